"""How sure a model of quantile tokens is of a value: the standard deviation of its forecast, in the value's unit.

Within a bin a value is drawn as `QuantileCodec` decodes one: half of the time evenly between the least and the median
of the training values there, half of the time between the median and the largest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.quantities.ward import INQUIRIES

__all__ = ["Forecast"]


class Forecast:
    """Tables of a codec's bins.

    `numbers` are the inquiries that it has bins of; `prior` [I] are the standard deviations of the training values.
    """

    def __init__(self, codec: QuantileCodec, device: torch.device) -> None:
        known = [codec.bins.get(f"value {q.name}") for q in INQUIRIES]
        most = max((len(b.points) for b in known if b is not None), default=1)
        mean, variance = torch.zeros(len(known), most), torch.zeros(len(known), most)
        share = torch.zeros(len(known), most)
        for row, one in enumerate(known):
            if one is None:
                continue
            for place, (low, middle, high) in enumerate(one.points):
                halves = [
                    ((low + middle) / 2, (middle - low) ** 2 / 12),
                    ((middle + high) / 2, (high - middle) ** 2 / 12),
                ]
                centre = sum(m for m, _ in halves) / 2
                mean[row, place] = centre
                variance[row, place] = sum(v + (m - centre) ** 2 for m, v in halves) / 2
            share[row, : len(one.points)] = 1 / len(one.points)
        self._tokens = torch.tensor([codec.ids[f"q{i}"] for i in range(most)], device=device)
        self._mean, self._variance = mean.to(device), variance.to(device)
        self.numbers = tuple(i for i, one in enumerate(known) if one is not None)
        self.prior = _sd(share.to(device), self._mean, self._variance)

    def sd(self, items: Sequence[int], chance: Tensor) -> Tensor:
        """[N] of forecasts of the inquiries `items` [N], from the chances [N, V] of the outcome's token."""
        at = torch.tensor(items, dtype=torch.int64, device=chance.device)
        share = chance[:, self._tokens]
        share = share / share.sum(-1, keepdim=True).clamp_min(1e-12)
        return _sd(share, self._mean[at], self._variance[at])


def _sd(share: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    middle = (share * mean).sum(-1, keepdim=True)
    return (share * (variance + (mean - middle).square())).sum(-1).sqrt()
