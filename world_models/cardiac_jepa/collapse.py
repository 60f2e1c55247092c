"""A watch over training: latents that all become the same, or live in a few dimensions, stop the run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["CollapsedError", "CollapseWatch", "effective_rank"]


class CollapsedError(RuntimeError):
    """The latents have collapsed; the message says by how much and what to change."""


@torch.no_grad()
def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the singular values of centred z [B, D]: 1 to min(B - 1, D).

    Roy & Vetterli 2007 (EUSIPCO, "The effective rank"). Through the eigenvalues of the smaller Gram matrix in float64.
    """
    x = (z.detach() - z.detach().mean(0)).double()
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


class CollapseWatch:
    """Told the metrics of a step now and then; raises when one stays under its limit for `patience` checks running.

    Behind a final BatchNorm z keeps its standard deviation until its input vanishes; a collapse then shows in the rank.

    Args:
        min_std: limit of `std`, the mean over coordinates of the latents' standard deviation.
        min_rank: limit of `rank`, the effective rank.
        patience: checks.
        from_step: earlier steps are let pass; a fresh network's latents lie in few dimensions.
    """

    def __init__(self, min_std: float = 0.1, min_rank: float = 4.0, patience: int = 5, from_step: int = 100):
        self.limits = {"std": min_std, "rank": min_rank}
        self.patience = patience
        self.from_step = from_step
        self.under = dict.fromkeys(self.limits, 0)

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of a step.

        Raises:
            CollapsedError: a value, or NaN in its place, was under its limit `patience` times running.
        """
        if step < self.from_step:
            return
        for name, limit in self.limits.items():
            if name not in metrics:
                continue
            value = metrics[name]
            self.under[name] = 0 if value >= limit else self.under[name] + 1
            if self.under[name] >= self.patience:
                raise CollapsedError(
                    f"the latents have collapsed: {name} is {value:.3g} at step {step}, under {limit:g} for "
                    f"{self.patience} checks (std {metrics.get('std', float('nan')):.3g}, effective rank "
                    f"{metrics.get('rank', float('nan')):.3g}). Raise `weight` (lambda) or the batch, or lower the rate"
                )
