"""What an ECG world model carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg_wm.latent_ode import Rates
from world_models.ecg_wm.recorded import Recorded
from world_models.protocol import Chart

__all__ = ["Belief", "ECGWorldState", "Present", "with_dose"]


class Belief(NamedTuple):
    """Gaussian over a patient's random effects (the first `eta`) and baseline correction (the last COORDS)."""

    mean: Tensor  # [B, eta + COORDS]
    deviation: Tensor  # [B, eta + COORDS]


class Present(NamedTuple):
    """What follows from the rest of a state: worked out once, when the state is made, for all verbs that ask."""

    u: Tensor  # [B, COORDS] coordinates: anchor, deviation and residual together
    intervals: Chart  # what the chart reads [B] off u, in this ECG's rhythm
    effect: Tensor  # [B, D * SITES] saturated effect-site levels
    clock: Tensor  # [B, DAY_NUMBERS] waves of the clock hour
    fibrillating: Tensor  # [B] bool: this ECG shows fibrillation
    av_block: Tensor  # [B] 0 or 1: second- or third-degree block now


class ECGWorldState(NamedTuple):
    """B patients, D drugs, the coordinates of u (`latent.COORDINATES`).

    Whoever changes a state by `_replace` renews its `present` (`ECGWorldModel.settled`).
    """

    key: Tensor  # [B] int64
    t: Tensor  # [B] int64, steps since the start
    covariates: Tensor  # [B, 6] as `patients.COVARIATES` has them
    clearance: Tensor  # [B, 3] `patients.CLEARANCES`, NaN where it is not known
    start_hour: Tensor  # [B] clock hour of admission
    hours: Tensor  # [B] h since admission
    measured: Tensor  # [B, COORDS] u of the baseline as it was read
    baseline_qtcf_ms: Tensor  # [B] QTcF of `measured`
    belief: Belief
    unknown: Tensor  # [B, eta + COORDS] the sample of the belief that this state lives by
    rates: Rates
    who: Tensor  # [B, flow_width] what the residual's sampler makes of patient and admission ECG
    amounts: Tensor  # [B, D, MODES] drug amounts, in reference doses
    relaxed: Tensor  # [B, COORDS] what drugs and time of day have relaxed to
    deviation: Tensor  # [B, COORDS] what the prior has moved u by
    residual: Tensor  # [B, COORDS] what lies beyond the prior
    shape: Tensor  # [B, morphology] m of the beat now
    first_shape: Tensor  # [B, morphology] m of the admission ECG
    recorded: Recorded  # what recorded patients keep of their own beats
    seen: Tensor  # [B, 2] bool: an ECG in sinus rhythm, one in fibrillation has been shown
    torsades: Tensor  # [B] 0 or 1
    conduction: Tensor  # [B] standard normal process of the atrioventricular node
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D] h, 96 when there was none
    dose_log_mg: Tensor  # [B, W, D] doses of the last W steps, step t at row t modulo W
    present: Present


Present.MAY_BE_NAN = ("intervals",)  # type: ignore[attr-defined]  # no PR in fibrillation
ECGWorldState.MAY_BE_NAN = ("clearance",)  # type: ignore[attr-defined]  # of the class: a NamedTuple has fields only


def with_dose(log_mg: Tensor, t: Tensor, dose_mg: Tensor) -> Tensor:
    """The log [B, W, D] with a dose [B, D] added at step t [B], and the place of the next step emptied."""
    batch, window, drugs = log_mg.shape
    kept = log_mg.clone(memory_format=torch.contiguous_format)
    steps = kept.view(-1, drugs)
    first = torch.arange(0, batch * window, window, device=log_mg.device)
    steps.index_add_(0, first + torch.remainder(t, window), dose_mg)
    steps.index_fill_(0, first + torch.remainder(t + 1, window), 0.0)
    return kept
