"""Where the search for a T wave's bend begins: a guess from what is read of the unbent wave and what is asked for.

A ridge regression, on twelve such numbers and their products, of the bends that the search found for patients of the
oracle (`python -m world_models.oracles.ecg_drug.fit.t_start` makes it anew): with it half the rounds come as near.

Elementwise operations and adds in a fixed order only.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from world_models.constants import constant
from world_models.tensor_file import read_tensors

__all__ = ["COEFFICIENTS_FILE", "FEATURES", "features", "guess"]

COEFFICIENTS_FILE = Path(__file__).with_name("t_start.safetensors")
_NUMBERS = 12
FEATURES = 1 + _NUMBERS + _NUMBERS * (_NUMBERS + 1) // 2
# Near the middle of healthy adults' waves: root of asymmetry, flatness, log ms of ERD_30 and LRD_30; 1 / spread.
_MIDDLE, _PER_UNIT, _PEAK_MS = (0.4, 0.42, 3.75, 3.3), 3.0, 10.0
_FARTHEST, _LONGEST = 8.0, 1.6  # no feature counts for more; nor a ratio of durations for more than e^1.6 = 5


def features(read: Tensor, wanted: Tensor) -> Tensor:
    """Features [FEATURES, B] of waves that read as `read` [B, 6] and shall read as `wanted` [B, 6].

    Asymmetry, flatness, ERD_30, LRD_30, T peak and T end in ms after the peak wanted, as `t_synthesis` orders them. A
    NaN counts as 0.
    """
    scaled = []
    for values in (read, wanted):
        asymmetry, flatness, erd, lrd, peak, end = torch.nan_to_num(values, nan=0.0).unbind(-1)
        durations = torch.stack((erd, lrd, end)).clamp_min(1.0).log()
        scaled.append((torch.stack((asymmetry.clamp_min(0.0).sqrt(), flatness)), durations, peak * (1.0 / _PEAK_MS)))
    (form, long, peak), (form_wanted, long_wanted, peak_wanted) = scaled
    off = (long - long_wanted).clamp(-_LONGEST, _LONGEST)
    middle = constant(_MIDDLE, read.device, read.dtype).unsqueeze(-1)
    wave = torch.cat((form_wanted, long_wanted[:2])) - middle
    shift = (peak - peak_wanted).unsqueeze(0)
    numbers = torch.cat((form - form_wanted, off[:2], shift, off[2:], wave, form - middle[:2])) * _PER_UNIT
    products = [numbers[i] * numbers[i:] for i in range(_NUMBERS)]
    return torch.cat((torch.ones_like(numbers[:1]), numbers, *products)).clamp(-_FARTHEST, _FARTHEST)


@lru_cache(maxsize=4)
def _coefficients(free: int, device: torch.device) -> Tensor:
    """[FEATURES, free, 1]; see `tensor_file.read_tensors` for what raises."""
    with torch.inference_mode(False):  # kept beyond this call
        wanted = {"coefficients": torch.empty(FEATURES, free, device="meta")}
        return read_tensors(COEFFICIENTS_FILE, wanted)[0]["coefficients"].unsqueeze(-1).to(device)


def guess(read: Tensor, wanted: Tensor, free: int) -> Tensor:
    """Free parameters [B, free] of the bend with which waves read as `read` might read as `wanted`, [B, 6] each.

    Raises:
        FileNotFoundError, CheckpointError: the shipped coefficients are gone, or of something else.
    """
    total = torch.zeros(free, read.shape[0], dtype=read.dtype, device=read.device)
    for feature, weights in zip(features(read, wanted), _coefficients(free, read.device), strict=True):
        total += weights * feature
    return total.T.contiguous()
