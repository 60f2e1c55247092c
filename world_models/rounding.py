"""Elementwise functions that round a row alike in every batch, on every processor.

Torch's CPU kernels work through a tensor in vectors and finish its tail, and what a thread leaves over, one number at
a time. For most functions both ways share their code. For those of `UNEVEN` they do not: the last bit of a row then
depends on how many rows stand beside it, differently under each instruction set (`ATEN_CPU_CAPABILITY`). The forms
here are made of exp, log and log1p alone, which round alike everywhere. Whatever promises "row i of a batch is the same
patient alone, bit for bit" uses them; `tests/contract/test_rounding.py` watches that none of `UNEVEN` runs there.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["UNEVEN", "expit", "power", "softplus"]

# Kernels seen to differ between the body and the tail of a batch under avx2 or avx512 (float32 or float64, torch 2.13),
# and those that sum in an order of their own. `pow` is even for the exponents -2, -1, -1/2, 1/2, 2 and 3 alone.
UNEVEN = frozenset(
    """pow sigmoid log_sigmoid_forward softplus silu mish gelu elu celu selu sinh cosh exp2 atan2 hypot logit logaddexp
    logaddexp2 std var var_mean std_mean mm addmm bmm baddbmm mv addmv dot convolution native_layer_norm""".split()
)


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base ** exponent of a base [...] that is not negative; 0 counts as 1e-30."""
    return torch.exp(base.clamp_min(1e-30).log() * exponent)


def expit(logit: Tensor) -> Tensor:
    """1 / (1 + exp(-logit)) [...]."""
    return 1.0 / (1.0 + (-logit).exp())


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) [...]."""
    return x.clamp_min(0.0) + (-x.abs()).exp().log1p()
