"""What an ECG world model carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.ecg_wm.latent_ode import Rates
from world_models.ecg_wm.recorded import Recorded
from world_models.protocol import Chart

__all__ = ["Belief", "ECGWorldState", "Present"]


class Belief(NamedTuple):
    """Gaussian over a patient's random effects (the first `eta`) and baseline correction (the last 6)."""

    mean: Tensor  # [B, eta + 6]
    deviation: Tensor  # [B, eta + 6]


class Present(NamedTuple):
    """What follows from the rest of a state: worked out once, when the state is made, for all verbs that ask."""

    u: Tensor  # [B, 6] coordinates: anchor, deviation and residual together
    intervals: Chart  # the chart's intervals [B] of u
    effect: Tensor  # [B, D * 2] saturated effect-site levels
    clock: Tensor  # [B, 4] waves of the clock hour


class ECGWorldState(NamedTuple):
    """B patients, D drugs, six coordinates of u (`latent.COORDINATES`).

    Whoever changes a state by `_replace` renews its `present` (`ECGWorldModel.settled`).
    """

    key: Tensor  # [B] int64
    t: Tensor  # [B] int64, steps since the start
    age_years: Tensor  # [B]
    sex_female: Tensor  # [B]
    weight_kg: Tensor  # [B]
    metaboliser: Tensor  # [B] clearance multiplier, NaN where it is not known
    start_hour: Tensor  # [B] clock hour of admission
    hours: Tensor  # [B] h since admission
    measured: Tensor  # [B, 6] u of the baseline as it was read
    baseline_qtcf_ms: Tensor  # [B] QTcF of `measured`
    belief: Belief
    unknown: Tensor  # [B, eta + 6] the sample of the belief that this state lives by
    rates: Rates
    amounts: Tensor  # [B, D, 6] drug amounts, in reference doses
    deviation: Tensor  # [B, 6] what the prior has moved u by
    residual: Tensor  # [B, 6] what the flow has added
    shape: Tensor  # [B, morphology] m of the beat
    recorded: Recorded  # what recorded patients keep of their own beats
    torsades: Tensor  # [B] 0 or 1
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D] h, 96 when there was none
    dose_log_mg: Tensor  # [B, W, D] doses of the last W steps, step t at row t modulo W
    present: Present


ECGWorldState.MAY_BE_NAN = ("metaboliser",)  # type: ignore[attr-defined]  # of the class: a NamedTuple has fields only
