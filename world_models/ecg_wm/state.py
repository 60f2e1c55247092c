"""What an ECG world model carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.ecg_wm.latent_ode import Rates

__all__ = ["Belief", "ECGWorldState"]


class Belief(NamedTuple):
    """Gaussian over a patient's random effects (the first `eta`) and baseline correction (the last 6)."""

    mean: Tensor  # [B, eta + 6]
    deviation: Tensor  # [B, eta + 6]


class ECGWorldState(NamedTuple):
    """B patients, D drugs, six coordinates of u (`latent.COORDINATES`)."""

    MAY_BE_NAN = ("metaboliser",)

    key: Tensor  # [B] int64
    t: Tensor  # [B] int64, steps since the start
    age_years: Tensor  # [B]
    sex_female: Tensor  # [B]
    weight_kg: Tensor  # [B]
    metaboliser: Tensor  # [B] clearance multiplier, NaN where it is not known
    start_hour: Tensor  # [B] clock hour of admission
    hours: Tensor  # [B] h since admission
    measured: Tensor  # [B, 6] u of the baseline as it was read
    belief: Belief
    unknown: Tensor  # [B, eta + 6] the draw from the belief that this state lives by
    rates: Rates
    amounts: Tensor  # [B, D, 6] drug amounts, in reference doses
    deviation: Tensor  # [B, 6] what the prior has moved u by
    residual: Tensor  # [B, 6] what the flow has added
    shape: Tensor  # [B, morphology] m of the beat
    torsades: Tensor  # [B] 0 or 1
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D] h, 96 when there was none
    dose_log_mg: Tensor  # [B, W, D] doses of the last W steps, step t at row t modulo W
