"""What a rival is: told a patient's pre-dose ECG, order and hours, it samples post-dose beats and charts.

All networks learn the same thing in the same units (`Scales`): the change of the canonical beat and of the ten
modelled measures (`ENDPOINTS`, on their working scales), each over its spread in the training pairs. A beat on the
canonical axis says nothing of its timing, so every network generates beat and measures together, and its chart is what
it gives for them. None is handicapped by having to learn that a patient stays himself.

Shapes: N patients, S samples of each, F features, E = 10 measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from world_models.ecg import beat_axis
from world_models.ecg_wm.pairs import Pairs
from world_models.ecg_wm.transitions import dose_limits
from world_models.oracles.ecg_drug.chart import chart_intervals, limited
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fibrillation import Fibrillation
from world_models.oracles.ecg_drug.scales import from_scale, to_scale
from world_models.protocol import Chart

__all__ = ["COVARIATES", "FEATURES", "Given", "Predicted", "Rival", "Scales", "chart_of", "endpoints_of", "features"]
__all__ += ["given", "repeated"]

COVARIATES = ("age_years", "sex_female", "weight_kg", "creatinine_clearance_ml_min", "potassium_mmol_l")
COVARIATES += ("magnesium_mmol_l", "clock_hour")
# Round numbers near a patient's middle and spread: they only set the scale that networks see.
_MIDDLE = (55.0, 0.5, 78.0, 85.0, 4.2, 0.85)
_SPREAD = (18.0, 0.5, 16.0, 35.0, 0.4, 0.1)
_DRUGS = 4
FEATURES = len(ENDPOINTS) + (1 + _DRUGS) + _DRUGS + 4 + 4 + len(_MIDDLE)
_LEAST_BEAT_MV = 0.01  # of a sample's spread: below it there is nothing to learn


class Given(NamedTuple):
    """What is known of N patients before the dose."""

    pre_beat: Tensor  # [N, 8, 200] mV, canonical
    pre_chart: Chart  # [N] each
    drug: Tensor  # int64 [N], 0 nothing, else 1 + column of the orders
    dose_mg: Tensor  # [N]
    hours: Tensor  # [N] from the dose to the ECG asked for
    covariates: Mapping[str, Tensor]  # COVARIATES, [N] each


class Predicted(NamedTuple):
    """S samples of the ECGs of N patients."""

    beat: Tensor  # [S, N, 8, 200] mV, on the canonical axis of its own chart's intervals
    chart: Chart  # [S, N] each: intervals and T-wave measures; NaN where the pre-dose chart misses it


class Rival(Protocol):
    """Anything that foretells a post-dose ECG."""

    name: str

    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """Samples for N patients with keys int64 [N]; a function of its arguments."""


def given(pairs: Pairs) -> Given:
    """What a rival is told of the pairs."""
    covariates = {n: pairs.pre[n] for n in COVARIATES}
    return Given(pairs.pre_beat, pairs.pre, pairs.drug, pairs.dose_mg, pairs.hours, covariates)


def endpoints_of(chart: Chart) -> Tensor:
    """The ten measures of a chart on their working scales, [..., 10]."""
    return to_scale(torch.stack([chart[n] for n in ENDPOINTS], -1))


def chart_of(levels: Tensor) -> Chart:
    """Intervals and T-wave measures [...] of levels [..., 10] on the working scales, softly within what can be; NaN
    where a level is NaN, and in what follows from it."""
    shape = levels.shape[:-1]
    flat = from_scale(levels).reshape(-1, len(ENDPOINTS))
    missing = flat.isnan()
    whole, _ = limited(torch.where(missing, flat.new_tensor(_TYPICAL), flat).T.contiguous())
    sinus = Fibrillation(shown=torch.zeros(len(flat)), rate_bpm=torch.ones(len(flat)))
    found = chart_intervals(torch.where(missing, torch.nan, whole.T), sinus)
    del found["atrial_fibrillation"]  # nobody says anything of it
    return {n: v.reshape(shape) for n, v in found.items()}


_TYPICAL = (65.0, 160.0, 95.0, 225.0, 85.0, 500.0, 0.15, 0.42, 45.0, 30.0)  # stands in where a measure is missing


class Scales(NamedTuple):
    """Units in which networks see and say things; from the training pairs."""

    level_mean: Tensor  # [10] of the pre-dose measures on their working scales
    level_sd: Tensor  # [10]
    change_mean: Tensor  # [10] of post less pre
    change_sd: Tensor  # [10]
    lead_sd: Tensor  # [8, 1] mV of the pre-dose beats
    beat_sd: Tensor  # [200] mV of the change of the beats, over leads and pairs

    @classmethod
    def of(cls, pairs: Pairs) -> Scales:
        """The units of these pairs.

        Raises:
            ValueError: fewer than two pairs.
        """
        if pairs.size < 2:
            raise ValueError(f"{pairs.size} pairs have no spread; give at least two")
        before, after = endpoints_of(pairs.pre), endpoints_of(pairs.post)
        known = (~(before + after).isnan()).all(-1)
        before, change = before[known], (after - before)[known]
        moved = (pairs.post_beat - pairs.pre_beat).square().mean((0, 1)).sqrt()
        lead = pairs.pre_beat.square().mean((0, 2)).sqrt().unsqueeze(-1)
        return cls(
            before.mean(0),
            before.std(0).clamp_min(1e-6),
            change.mean(0),
            change.std(0).clamp_min(1e-6),
            lead.clamp_min(_LEAST_BEAT_MV),
            moved.clamp_min(_LEAST_BEAT_MV),
        )

    def change(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """What is to be learnt: change of beats [N, 8, 200] and of measures [N, 10], over their spread; 0 for NaN."""
        levels = (endpoints_of(pairs.post) - endpoints_of(pairs.pre) - self.change_mean) / self.change_sd
        return (pairs.post_beat - pairs.pre_beat) / self.beat_sd, torch.nan_to_num(levels, nan=0.0)


def features(told: Given, scales: Scales) -> Tensor:
    """Everything told but the beat, [N, FEATURES], on a unit scale; what is not known is 0."""
    level = torch.nan_to_num((endpoints_of(told.pre_chart) - scales.level_mean) / scales.level_sd, nan=0.0)
    which = torch.nn.functional.one_hot(told.drug, 1 + _DRUGS).to(level.dtype)
    largest = dose_limits(level.device)[1]
    share = which[:, 1:] * told.dose_mg.unsqueeze(-1) / largest
    h = told.hours.to(level.dtype)
    time = torch.stack([h / 24.0, torch.log1p(h) / 3.0, torch.exp(-h / 1.5), torch.exp(-h / 6.0)], -1)
    clock = told.covariates["clock_hour"].to(level.dtype)
    turns = torch.stack([clock, clock + h], -1) * (2.0 * math.pi / 24.0)
    who = torch.stack([told.covariates[n].to(level.dtype) for n in COVARIATES[:-1]], -1)
    who = torch.nan_to_num((who - who.new_tensor(_MIDDLE)) / who.new_tensor(_SPREAD), nan=0.0)
    return torch.cat([level, which, share, time, turns.sin(), turns.cos(), who], -1)


def repeated(beat: Tensor, levels: Tensor, samples: int) -> Predicted:
    """One and the same prediction `samples` times: beats [N, 8, 200], levels [N, 10] on the working scales."""
    chart = {n: v.expand(samples, -1) for n, v in chart_of(levels).items()}
    return Predicted(beat.expand(samples, -1, beat_axis.LEAD_COUNT, beat_axis.SAMPLES), chart)
