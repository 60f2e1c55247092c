"""A rival that is a network: what it has to offer, and how its samples become beats and charts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.frame import Given, Predicted, Scales, chart_of, endpoints_of, features, given
from world_models import keys
from world_models.ecg_wm.pairs import Pairs

__all__ = ["Batch", "NetworkRival", "PairNetwork", "Table", "table_of"]

_AT_ONCE = 2048  # rows generated together


class Batch(NamedTuple):
    """B training rows in the networks' units."""

    key: Tensor  # int64 [B] of this row in this step
    pre: Tensor  # [B, 8, 200]
    told: Tensor  # [B, FEATURES]
    drug: Tensor  # int64 [B]
    beat: Tensor  # [B, 8, 200] change
    measures: Tensor  # [B, 10] change


class Table(NamedTuple):
    """All rows of a set of pairs in the networks' units."""

    pre: Tensor
    told: Tensor
    drug: Tensor
    beat: Tensor
    measures: Tensor

    def batch(self, key: Tensor, rows: Tensor) -> Batch:
        """The rows [B], with keys [B]."""
        return Batch(key, *(column[rows] for column in self))


def table_of(pairs: Pairs, scales: Scales) -> Table:
    """Pairs in the networks' units."""
    beat, measures = scales.change(pairs)
    told = features(given(pairs), scales)
    return Table(pairs.pre_beat / scales.lead_sd, told, pairs.drug, beat, measures)


class PairNetwork(nn.Module):
    """A generator of changes, with the loss that trains it."""

    title = ""  # as tables name it
    paper = ""  # where its idea was published
    first_beta = 0.9  # AdamW's
    decay = 0.0  # of weights

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """What one step of training minimises, and figures for the log. Adversarial ones take turns by the step."""
        raise NotImplementedError

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of beats [B, 8, 200] and of measures [B, 10], one sample for each key [B]."""
        raise NotImplementedError


class NetworkRival:
    """A trained network as a `Rival`."""

    def __init__(self, net: PairNetwork, scales: Scales):
        self.net, self.scales, self.name = net.eval().requires_grad_(False), scales, net.title

    @torch.no_grad()
    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """See `frame.Rival.sample`."""
        rest = features(told, self.scales)
        pre, before = told.pre_beat / self.scales.lead_sd, endpoints_of(told.pre_chart)
        beats, levels = [], []
        for s in range(samples):
            own = keys.fold(key, s)
            parts = [
                self.net.generate(pre[rows], rest[rows], told.drug[rows], own[rows])
                for rows in torch.arange(len(key), device=key.device).split(_AT_ONCE)
            ]
            beat, measures = (torch.cat(column) for column in zip(*parts, strict=True))
            beats.append(told.pre_beat + beat * self.scales.beat_sd)
            levels.append(before + measures * self.scales.change_sd + self.scales.change_mean)
        return Predicted(torch.stack(beats), chart_of(torch.stack(levels)))
