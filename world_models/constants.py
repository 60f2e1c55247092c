"""Rows of constants as tensors, made once a device: rebuilt at each call they cost more than the sums they enter."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["constant"]


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor [n] of `values`. Shared by all callers: never write into it."""
    # Made in inference mode and kept, it could not stand in a computation that takes gradients later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
