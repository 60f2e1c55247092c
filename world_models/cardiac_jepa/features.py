"""The encoder as a feature extractor for other models, at whatever rate their ECGs are sampled.

    features = load_features()                       # the weights that ship
    h = features(chart["ecg_mv"], 500.0)             # [B, 12, 5000] mV -> [B, D]

The encoder was trained on simulated ECGs at 100 Hz; what reaches it here is low-passed and resampled first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from world_models.cardiac_jepa.model import CardiacJEPAWorld
from world_models.cardiac_jepa.probes import crop_features
from world_models.catalog import WORLDS, weights_folder
from world_models.quantities.progression import SAMPLING_RATE_HZ

__all__ = ["load_features", "resampled"]

_REACH = 4  # zero crossings of the windowed sinc on either side


def resampled(ecg_mv: Tensor, sampling_rate_hz: float, target_hz: float = SAMPLING_RATE_HZ) -> Tensor:
    """ECGs [B, L, T] at another rate, [B, L, T * target / rate]: a Hann-windowed sinc, ends held at their values.

    Raises:
        ValueError: a rate below the target or no whole multiple of it.
    """
    factor = round(sampling_rate_hz / target_hz)
    if factor < 1 or abs(factor * target_hz - sampling_rate_hz) > 1e-6:
        raise ValueError(
            f"sampling_rate_hz={sampling_rate_hz:g} is no whole multiple of {target_hz:g} Hz; resample the ECG first "
            "(world_models.data.ecg.wfdb.reader.read_ecg does for files)"
        )
    if factor == 1:
        return ecg_mv
    half = _REACH * factor
    place = torch.arange(-half, half + 1, device=ecg_mv.device, dtype=torch.float32)
    kernel = torch.sinc(place / factor) * (0.5 + 0.5 * torch.cos(math.pi * place / (half + 1)))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    flat = ecg_mv.to(torch.float32).flatten(0, 1).unsqueeze(1)
    padded = torch.nn.functional.pad(flat, (half, half), mode="replicate")
    out = torch.nn.functional.conv1d(padded, kernel, stride=factor)
    return out.squeeze(1).unflatten(0, ecg_mv.shape[:2])


def load_features(
    world: str | Path = "cardiac-jepa-small", device: torch.device | str = "cpu"
) -> Callable[[Tensor, float], Tensor]:
    """A function (ecg_mv [B, 12, T], sampling_rate_hz) -> features [B, D] of a cardiac JEPA's encoder; no gradient.

    Args:
        world: a name of the catalogue or the folder of a cardiac JEPA.

    Raises:
        ValueError: a folder that holds none.
    """
    folder = weights_folder(str(world)) if str(world) in WORLDS else Path(world)
    jepa = CardiacJEPAWorld.load(folder, device).jepa

    @torch.no_grad()
    def features(ecg_mv: Tensor, sampling_rate_hz: float = SAMPLING_RATE_HZ) -> Tensor:
        return crop_features(jepa.encoder, resampled(ecg_mv.to(device), sampling_rate_hz), jepa.config.crop_samples)

    return features
