"""The standard twelve leads from the eight independent ones (I, II, V1 to V6)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["INDEPENDENT", "add_independent", "derive_limb", "derive_twelve"]

INDEPENDENT = (slice(0, 2), slice(6, 12))  # where the independent leads stand among the twelve


def derive_twelve(eight: Tensor, out: Tensor | None = None) -> Tensor:
    """The standard twelve leads [B, 12, T] from the eight independent ones [B, 8, T], in the order of `lead_names`.

    Einthoven: III = II - I. Goldberger: aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2. Differentiable;
    `out` [B, 12, T] is written to where it is given.
    """
    if out is None:
        out = eight.new_empty(eight.shape[0], 12, eight.shape[2])
    for own, its in zip(INDEPENDENT, eight.split((2, 6), dim=1), strict=True):
        out[:, own] = its
    return derive_limb(out)


def derive_limb(twelve: Tensor) -> Tensor:
    """The four limb leads that follow from I and II, written into [B, 12, T]."""
    one, two = twelve[:, 0].clone(), twelve[:, 1].clone()
    for i, lead in enumerate((two - one, (one + two) * -0.5, one - two * 0.5, two - one * 0.5), 2):
        twelve[:, i] = lead
    return twelve


def add_independent(twelve: Tensor, eight: Tensor, size_uv: Tensor) -> None:
    """Adds what is in the independent leads [B, 8, T], times a size [B, 1], to twelve leads [B, 12, T] in mV."""
    eight.mul_((size_uv * 1e-3).unsqueeze(-1))
    for own, its in zip(INDEPENDENT, eight.split((2, 6), dim=1), strict=True):
        twelve[:, own] += its
