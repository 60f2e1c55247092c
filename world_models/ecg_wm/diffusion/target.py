"""What is generated: the post-dose latent less what the prior says of it, in units of its scale.

r = (z_post - given) / scale,   given = z_pre + share (z_prior - z_pre).

`share` is how much of the ODE's prediction the model is given, 0 (no physics) to 1 (all of it); the rest is left to the
diffusion. A model that is to be used at several shares is trained on several, and told which.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ResidualUnits", "given_prior"]

_LEAST_SCALE = 1e-4
_ANY, _BEYOND = 1e9, 1.2  # before anything is measured; of the farthest training residual


def given_prior(z_pre: Tensor, z_prior: Tensor, share: float | Tensor) -> Tensor:
    """What of the prediction is given, [B, Z]; `share` a number or [B].

    Raises:
        ValueError: a share outside 0 to 1.
    """
    part = torch.as_tensor(share, dtype=z_pre.dtype, device=z_pre.device)
    if bool(((part < 0) | (part > 1)).any()):
        raise ValueError(f"prior_share from {part.min().item():g} to {part.max().item():g} must lie in 0 to 1")
    return z_pre + part.reshape(-1, 1) * (z_prior - z_pre)


class ResidualUnits(nn.Module):
    """Centre and scale of the residual, and how far it goes, measured once on training pairs."""

    centre: Tensor  # [Z]
    scale: Tensor  # [Z] standard deviation
    lowest: Tensor  # [Z] in units of the scale, as `highest`: samples end there
    highest: Tensor  # [Z]

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))
        self.register_buffer("lowest", torch.full((latent,), -_ANY))
        self.register_buffer("highest", torch.full((latent,), _ANY))

    def measure(self, residual: Tensor) -> None:
        """Take centre, scale and range from residuals z_post - given [N, Z].

        Raises:
            ValueError: fewer than two of them, or one that is not finite.
        """
        if residual.shape[0] < 2 or not bool(torch.isfinite(residual).all()):
            raise ValueError(f"{residual.shape[0]} residuals, all to be finite: give at least 2 training pairs")
        self.centre.copy_(residual.mean(0))
        self.scale.copy_(residual.std(0).clamp_min(_LEAST_SCALE))
        unit = (residual - self.centre) / self.scale
        self.lowest.copy_(_BEYOND * unit.amin(0))
        self.highest.copy_(_BEYOND * unit.amax(0))

    def standard(self, z_post: Tensor, given: Tensor) -> Tensor:
        """The residual in its units, [..., Z]."""
        return (z_post - given - self.centre) / self.scale

    def restore(self, residual: Tensor, given: Tensor) -> Tensor:
        """The post-dose latent [..., Z] of a residual [..., Z] in its units, which is kept within the range."""
        return torch.addcmul(given + self.centre, residual.clamp(self.lowest, self.highest), self.scale)
