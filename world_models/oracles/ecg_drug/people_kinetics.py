"""People's kinetics: what their parameters are, and the exponentials that follow from them, of all drugs together.

Drugs of one structure (absorption stages, compartments) are sampled in one pass. An added drug of the CiPA table has no
fitted kinetics: one unit of its dose is the amount whose single dose peaks at the table's free Cmax in a typical
person, absorbed with `EXTRA_KA_PER_H` and eliminated with a half-life of `EXTRA_HALF_LIFE_H`, both assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ecg_drug import kinetics as pk
from world_models.oracles.ecg_drug.cipa import CipaDrug
from world_models.oracles.ecg_drug.fit.kinetics import ALLOMETRY, REFERENCE_WEIGHT_KG
from world_models.oracles.ecg_drug.fitted import FittedDrug, wide

__all__ = ["EXTRA_KE0_PER_H", "SLOTS_PER_DRUG", "AlikeDrugs", "PeopleKinetics"]

EXTRA_KA_PER_H = 1.0
EXTRA_HALF_LIFE_H = 8.0
EXTRA_KE0_PER_H = 3.0
_EXTRA_STRUCTURE = (1, 1)  # absorption stages and compartments
EXTRA_LOG_SPREAD = 0.3  # between people, of an added drug's clearance: about that of the fitted ones
# log parameters of a drug at most: a fixed number, so that adding drugs changes no one's random numbers
SLOTS_PER_DRUG = 6


class AlikeDrugs(NamedTuple):
    """Fitted drugs of one structure, G of them, whose P parameters are sampled together. Float64."""

    place: tuple[int, ...]  # of each among the fitted drugs
    stages: int
    compartments: int
    names: tuple[str, ...]  # of the P parameters
    log_typical: Tensor  # [P, G, 1]
    roots: tuple[Tensor, ...]  # P columns [P, G, 1] of the roots of the between-subject covariances
    by_weight: Tensor  # [P, 1, 1] exponent of the weight
    by_sex: Tensor  # [P, G, 1] women minus men, of the logs

    @classmethod
    def among(cls, drugs: Sequence[FittedDrug], device: torch.device) -> tuple[AlikeDrugs, ...]:
        """The drugs, by their structure."""
        kinds: dict[tuple[int, int], list[int]] = {}
        for i, one in enumerate(drugs):
            kinds.setdefault((one.stages, one.compartments), []).append(i)
        return tuple(cls._of(tuple(place), [drugs[i] for i in place], device) for place in kinds.values())

    @classmethod
    def _of(cls, place: tuple[int, ...], drugs: Sequence[FittedDrug], device: torch.device) -> AlikeDrugs:
        names = drugs[0].names
        roots = np.stack([one.root for one in drugs], 1)  # [P, G, P]
        weight = np.array([ALLOMETRY.get(name, 0.0) for name in names])
        sex = np.outer([name in ALLOMETRY for name in names], [one.sex for one in drugs])
        return cls(
            place,
            drugs[0].stages,
            drugs[0].compartments,
            names,
            torch.stack([one.log_typical for one in drugs], 1).unsqueeze(-1),
            tuple(wide(roots[:, :, j, None], device) for j in range(len(names))),
            wide(weight[:, None, None], device),
            wide(sex[:, :, None], device),
        )

    def plasma_modes(
        self, z: Tensor, side: Tensor, log_weight: Tensor, log_clearance: Tensor
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """People's `kinetics.plasma_modes`, [G, B] each.

        Args:
            z: standard normals [G, P, B]. side: sex [B], +-0.5. log_weight: [B]. log_clearance: factor [G, B].
        """
        log = self.roots[0] * z[:, 0]  # [P, G, B]
        for j in range(1, len(self.names)):
            log += self.roots[j] * z[:, j]
        log = self.log_typical + log + self.by_weight * log_weight + self.by_sex * side
        log[self.names.index("clearance")] += log_clearance
        value = dict(zip(self.names, log.exp().unbind(0), strict=True))
        return pk.plasma_modes(
            value["ka"],
            value["lag"],
            value["clearance"],
            value["v1"],
            value.get("q"),
            value.get("v2"),
            self.stages,
        )


class PeopleKinetics:
    """Samples the plasma modes of people for fitted drugs and added ones, in this order.

    Attributes:
        count: P, plasma modes that a drug has; fewer than four where no drug has more.
    """

    def __init__(self, fits: Sequence[FittedDrug], extra: Sequence[CipaDrug], device: torch.device) -> None:
        self._kinds = AlikeDrugs.among(fits, device)
        self._fitted, self._extra, self._device = len(fits), tuple(extra), device
        structures = [(kind.stages, kind.compartments) for kind in self._kinds] + [_EXTRA_STRUCTURE] * bool(extra)
        self.count = max(sum(structure) for structure in structures)

    def sampled(
        self, key: Tensor, z: Tensor, side: Tensor, weight_kg: Tensor, log_clearance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rates [P, D, B], lags [D, B] and plasma coefficients [P, D, B] of people with these normals [fitted * 6, B]
        and log clearance factors [B, D]."""
        log_weight = (weight_kg.to(torch.float64) / REFERENCE_WEIGHT_KG).log()
        z = z.unflatten(0, (-1, SLOTS_PER_DRUG))
        columns = log_clearance.T
        kinds = [
            (
                kind.plasma_modes(z[list(kind.place), : len(kind.names)], side, log_weight, columns[list(kind.place)]),
                kind,
            )
            for kind in self._kinds
        ]
        live = [
            (*_live(found, pk.live_modes(kind.stages, kind.compartments), self.count), kind.place)
            for found, kind in kinds
        ]
        for i, item in enumerate(self._extra, self._fitted):
            found = _extrapolated_modes(key, item, columns[i : i + 1])
            live.append((*_live(found, pk.live_modes(*_EXTRA_STRUCTURE), self.count), (i,)))
        rates, lag_h, plasma = (
            torch.cat([x[0] for x in live], 1),
            torch.cat([x[1] for x in live]),
            torch.cat([x[2] for x in live], 1),
        )
        order = [place for *_, places in live for place in places]
        if order != sorted(order):
            back = torch.tensor(order, device=self._device).argsort()
            rates, lag_h, plasma = rates[:, back], lag_h[back], plasma[:, back]
        return rates, lag_h, plasma


def _live(
    found: tuple[list[Tensor], Tensor, list[Tensor]], live: tuple[int, ...], count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rates [count, G, B], lags [G, B] and coefficients of `kinetics.plasma_modes`, dead modes left out but for as many
    as make `count`."""
    chosen = (*live, *(m for m in range(pk.BASE_MODES) if m not in live))[:count]
    rates, lag_h, plasma = found
    return torch.stack([rates[m] for m in chosen]), lag_h, torch.stack([plasma[m] for m in chosen])


def _extrapolated_modes(
    key: Tensor, item: CipaDrug, log_clearance: Tensor
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """`kinetics.plasma_modes` [1, B] of a drug without a fit: one unit of dose is what peaks at the free Cmax in a
    typical person (nM)."""
    eta = keys.normal(key, 0, f"pk {item.name}", ()).to(torch.float64) * EXTRA_LOG_SPREAD
    k = math.log(2.0) / EXTRA_HALF_LIFE_H
    clearance = torch.exp(math.log(k) + eta + log_clearance)  # of a volume of 1 L: only the shape counts
    one = torch.ones_like(clearance)
    rates, lag_h, plasma = pk.plasma_modes(one * EXTRA_KA_PER_H, 0 * one, clearance, one, None, None, 1)
    peak_at = math.log(EXTRA_KA_PER_H / k) / (EXTRA_KA_PER_H - k)
    scale = item.free_cmax_nm / (1000.0 * math.exp(-k * peak_at))
    return rates, lag_h, [part * scale for part in plasma]
