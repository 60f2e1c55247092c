"""What may happen to a patient besides the intervals: torsades de pointes and atrioventricular block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.latent_ode import PATIENT
from world_models.ecg_wm.state import ECGWorldState
from world_models.nn.mlp import mlp
from world_models.protocol import Chart, Fates

if TYPE_CHECKING:
    from world_models.ecg_wm.model import ECGWorldModel

__all__ = ["AVBlock", "TorsadesHazard", "torsades_fates"]

# The torsades hazard bends at these QTcF, and in these units QTcF and rate enter it.
SHORT_QTCF_MS, MIDDLE_QTCF_MS, LONG_QTCF_MS, PER_MS = 450.0, 500.0, 600.0, 100.0
SLOW_RATE_BPM, PER_BPM = 60.0, 10.0
NARROWEST_GATE = 0.02  # width of the gate on QTcF's rise, in units of PER_MS
NODE_HOURS = 8.0  # for so long an atrioventricular node conducts badly (k)


class TorsadesHazard(nn.Module):
    """Log of the hazard per hour, learned from events alone.

    In QTcF linear between knots at 450 and 600 ms; in a rate under 60 bpm; in the covariates; and gated by the rise
    over the admission QTcF, as a long QT that a patient has always lived with is no drug's effect.
    """

    def __init__(self) -> None:
        super().__init__()
        # level, four slopes, middle and width of the gate on the rise
        self.law = nn.Parameter(torch.tensor([-8.0, 1.0, 1.0, 1.0, 0.0, 0.3, 0.2]))
        self.patient = nn.Parameter(torch.zeros(PATIENT))

    def forward(self, chart: Chart, baseline_qtcf_ms: Tensor, patient: Tensor) -> Tensor:
        """Log hazard [...] of charts with qtcf_ms and heart_rate_bpm [...] and covariates [..., PATIENT]."""
        level, slope, longer, shorter, slow, middle, width = self.law.unbind()
        qtcf = chart["qtcf_ms"] / PER_MS
        above, below = qtcf - LONG_QTCF_MS / PER_MS, SHORT_QTCF_MS / PER_MS - qtcf
        bends = longer * above.clamp_min(0) - shorter * below.clamp_min(0)
        rise = qtcf - baseline_qtcf_ms / PER_MS
        gate = nn.functional.logsigmoid((rise - middle) / (width.abs() + NARROWEST_GATE))
        bradycardia = slow * (SLOW_RATE_BPM - chart["heart_rate_bpm"]).clamp_min(0) / PER_BPM
        own = (patient * self.patient).sum(-1)
        return level + slope * (qtcf - MIDDLE_QTCF_MS / PER_MS) + bends + bradycardia + gate + own

    def chance(self, chart: Chart, baseline_qtcf_ms: Tensor, patient: Tensor, hours: float) -> Tensor:
        """Chance [...] of torsades within `hours` at that hazard; arguments as above."""
        return -torch.expm1(-self(chart, baseline_qtcf_ms, patient).exp() * hours)


def torsades_fates(model: ECGWorldModel, before: ECGWorldState, after: ECGWorldState) -> Fates:
    """See `TellsFates`: torsades in the step that led to `after`, for those who have not had it."""
    patient = after.rates.patient
    chance = model.torsades_hazard.chance(
        after.present.intervals, after.baseline_qtcf_ms, patient, model.hours_per_step
    )
    chance = torch.where(before.torsades > 0, 0.0, chance)
    return Fates(after._replace(torsades=before.torsades), {"torsades": chance}, {"torsades": 1.0})


class AVBlock(nn.Module):
    """Second- or third-degree block: there while a standard normal process lies below a learned threshold."""

    def __init__(self, effects: int, width: int):
        super().__init__()
        self.threshold = mlp((COORDS + effects + PATIENT, width, 1))
        last = self.threshold[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, -3.0)

    def limit(self, u: Tensor, effect: Tensor, patient: Tensor) -> Tensor:
        """The threshold [...] in SDs, of coordinates [..., COORDS], effect levels and covariates."""
        return self.threshold(torch.cat([u, effect, patient], dim=-1)).squeeze(-1)

    def blocked(self, conduction: Tensor, u: Tensor, effect: Tensor, patient: Tensor) -> Tensor:
        """bool [B]: the node's process [B] lies below the threshold."""
        return conduction < self.limit(u, effect, patient)

    @staticmethod
    def conduct(conduction: Tensor, normal: Tensor, hours: float) -> Tensor:
        """The node's process [B] `hours` later, with a standard normal [B]."""
        keep = math.exp(-hours / NODE_HOURS)
        return keep * conduction + math.sqrt(1.0 - keep * keep) * normal
