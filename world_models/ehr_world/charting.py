"""What a learned ward knows of its patients as the chart of the ward: the oracle's names, units and bounds."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, MAX_AGE_HOURS, MEASURES, STATIC

__all__ = ["Kept", "ward_chart"]

MOST_HOURS = next(q.high for q in MEASURES if q.name == "hours")


class Kept(Protocol):
    """What a state keeps for its chart, of B patients, I inquiries and J interventions."""

    @property
    def value(self) -> Tensor:
        """[B, I] the last results, in their units; what was never resulted reads typical."""

    @property
    def seen(self) -> Tensor:
        """bool [B, I] there is a result."""

    @property
    def drawn_h(self) -> Tensor:
        """[B, I] hours since admission when its specimen was collected."""

    @property
    def pending(self) -> Tensor:
        """bool [B, I] a specimen is on its way."""

    @property
    def since_h(self) -> Tensor:
        """[B, J] hours since each intervention was last given."""

    @property
    def alive(self) -> Tensor:
        """bool [B]"""

    @property
    def home(self) -> Tensor:
        """bool [B] discharged."""


def ward_chart(state: Kept, static: Tensor, hours: Tensor, share: Tensor) -> Chart:
    """The chart now, without what is on request.

    Args:
        static: [B, S] what is fixed, without NaN: STATIC, then the complaints; what follows is no part of a chart.
        hours: [B] since admission.
        share: [B, J] what was given in the last step, in shares of the largest amounts.
    """
    chart = {q.name: static[:, i].clamp(q.low, q.high) for i, q in enumerate(STATIC)}
    chart |= {
        "complaint": static[:, len(STATIC) : len(STATIC) + len(COMPLAINTS)].clamp(0.0, 1.0),
        "hours": hours.clamp(0.0, MOST_HOURS),
        "alive": state.alive.to(torch.float32),
        "discharged": state.home.to(torch.float32),
    }
    chart |= {q.name: state.value[:, i].contiguous() for i, q in enumerate(INQUIRIES)}
    age = torch.where(state.seen, hours.unsqueeze(-1) - state.drawn_h, MAX_AGE_HOURS)
    return chart | {
        "inquiry_age_hours": age.clamp(0.0, MAX_AGE_HOURS),
        "inquiry_seen": state.seen.to(torch.float32),
        "inquiry_pending": state.pending.to(torch.float32),
        "treatment_share": share.clamp(0.0, 1.0),
        "treatment_age_hours": state.since_h,
    }
