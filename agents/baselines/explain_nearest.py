"""Explanations without a model: the nearest pair of a library, and the commonest transition of all.

What a model of the dynamics has to beat. Both propose only what is possible for the patient (no onset of what is
present, no resolution of what is absent), as the environment's mask would have them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.protocol import Chart

__all__ = ["MostCommon", "NearestPair"]

METRICS = ("cosine", "l2")


def _possible(action: Tensor, condition: Tensor) -> Tensor:
    """bool [B, N]: whether each of the transition sets action [N, C] fits each patient's conditions [B, C]."""
    present = condition > 0.5
    onset, resolution = (action > 0).to(torch.float32), (action < 0).to(torch.float32)
    wrong = present.to(torch.float32) @ onset.T + (~present).to(torch.float32) @ resolution.T
    return wrong < 0.5


def _checked(action: Tensor, difference: Tensor | None = None) -> None:
    if action.ndim != 2 or not len(action):
        raise ValueError(f"a library needs transitions [N >= 1, C], got {tuple(action.shape)}")
    if difference is not None and (difference.ndim != 2 or len(difference) != len(action)):
        raise ValueError(f"a library needs as many latents as transitions, got {len(difference)} and {len(action)}")


class NearestPair:
    """The transitions of the library's pair whose latent difference is nearest.

    Args:
        difference: [N, Z], z_after - z_before of known pairs.
        action: [N, C] in {-1, 0, 1}, their transitions.
        metric: "cosine" or "l2".
        chunk: problems compared at a time.
    """

    def __init__(
        self, difference: Tensor, action: Tensor, metric: str = "cosine", chunk: int = 256, name: str | None = None
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r} is unknown; choose one of {', '.join(METRICS)}")
        _checked(action, difference)
        self.difference, self.action = difference.to(torch.float32), action.to(torch.float32)
        self.metric, self.chunk, self.name = metric, chunk, name or f"nearest pair ({metric})"

    @torch.no_grad()
    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C]; nothing where no pair of the library is possible for the patient."""
        wanted = chart["z_goal"] - chart["z_before"]
        found = []
        for rows in torch.arange(len(wanted), device=wanted.device).split(self.chunk):
            near = wanted[rows] @ self.difference.T
            if self.metric == "cosine":
                near = near / self.difference.norm(dim=-1).clamp_min(1e-6)
            else:
                near = 2.0 * near - self.difference.square().sum(-1)
            possible = _possible(self.action, chart["condition_before"][rows])
            best = torch.where(possible, near, -torch.inf).argmax(-1)
            found.append(torch.where(possible.any(-1, keepdim=True), self.action[best], 0.0))
        return torch.cat(found)


class MostCommon:
    """The commonest set of transitions among those possible for the patient: the prior, blind to the ECGs."""

    def __init__(self, action: Tensor, name: str = "commonest transition") -> None:
        _checked(action)
        sets, counts = action.to(torch.float32).unique(dim=0, return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        self.action, self.name = sets[order], name

    @torch.no_grad()
    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C]; nothing where no known set is possible for the patient."""
        possible = _possible(self.action, chart["condition_before"])
        first = possible.to(torch.int8).argmax(-1)
        return torch.where(possible.any(-1, keepdim=True), self.action[first], 0.0)
