"""What a planner says of its last decisions: what they took, and what it imagined, to be held against what came."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PlanReport", "blank_report"]


class PlanReport(NamedTuple):
    """Of each of B patients the last decision at which a plan was made."""

    decided: Tensor  # bool [B]: it was made at the last visit; else at an earlier one
    transitions: Tensor  # int64 [B]: imagined steps, those of policy, proposals and `rewards` included
    milliseconds: Tensor  # float32 [B]: wall-clock, shared equally by the patients planned together
    promised: Tensor  # float32 [B]: the plan's score by the objective
    rewards: Tensor  # float32 [B, H]: mean imagined reward of each step of the plan, on particles of their own
    costs: Tensor  # float32 [B, H]: mean imagined cost; after an imagined end both are 0


def blank_report(patients: int, horizon: int, device: torch.device) -> PlanReport:
    """Of patients nobody has planned for."""
    whole, none = torch.zeros(patients, dtype=torch.int64, device=device), torch.zeros(patients, device=device)
    course = torch.zeros(patients, horizon, device=device)
    return PlanReport(whole > 0, whole, none.clone(), none.clone(), course.clone(), course.clone())
