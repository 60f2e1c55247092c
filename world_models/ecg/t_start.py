"""Where the search for a T wave's bend begins: a small network's guess from the wave that is there and what is asked.

Two hidden layers, made by `t_start_fit` on the bank's beats, bent and blended at random, by what the guessed bend
measures. Sums run over one input after the other, so that a row's guess is the same in every batch (`rounding`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FREE", "INPUTS", "LARGEST", "START_FILE", "Layer", "asks", "guess", "layers", "own_form", "own_part"]

START_FILE = Path(__file__).with_name("t_start.safetensors")
FREE = 10  # parameters of a bend: `t_synthesis`
LARGEST = 2.4  # no parameter is guessed beyond
# Entries of the own wave's table (`t_bend.own_st_t`: 96 from J point to T peak, 32 a Tpeak-Tend) that are looked at.
_PEAK, _PLACES = 96, (30, 48, 62, 74, 84, 104, 112, 124, 136, 152)
INPUTS = 14 + 2 * len(_PLACES)


class Layer(NamedTuple):
    """Weights [inputs, outputs] and bias [outputs]."""

    weight: Tensor
    bias: Tensor


@lru_cache(maxsize=4)
def layers(device: torch.device) -> tuple[Layer, ...]:
    """The shipped network on a device."""
    from safetensors.torch import load_file

    with torch.inference_mode(False):  # kept beyond this call
        file = load_file(START_FILE, device=str(device))
        return tuple(Layer(file[f"weight_{i}"], file[f"bias_{i}"]) for i in range(3))


def asks(measures: Tensor, drawn: Tensor) -> Tensor:
    """Measures [B, 6] (`t_synthesis.SCALE`'s order), read or asked for, on the network's scale.

    `drawn` [B, 3]: J point, J-Tpeak and Tpeak-Tend of the unbent wave, ms.
    """
    asymmetry, flatness, erd, lrd, peak, end = measures.unbind(-1)
    jt, tail = drawn[:, 1], drawn[:, 2]
    rows = (
        asymmetry.clamp_min(0.0).sqrt() * 3.0 - 1.2,
        (flatness - 0.42) * 10.0,
        erd / jt * 8.0 - 1.6,
        (lrd / tail - 0.4) * 8.0,
        peak / 8.0,
        (end / tail - 1.0) * 4.0,
    )
    return torch.nan_to_num(torch.stack(rows, dim=-1)).clamp(-6.0, 6.0)


def own_form(channels: Tensor, drawn: Tensor) -> Tensor:
    """Form of the own wave [B, 22]: durations, and first component and vector's length [B, 5, N] along it."""
    component = channels[:, 3]
    length = channels[:, 0] * channels[:, 0] + channels[:, 1] * channels[:, 1] + channels[:, 2] * channels[:, 2]
    form = [(drawn[:, 1:2] - 240.0) / 80.0, (drawn[:, 2:3] - 95.0) / 30.0]
    for wave in (component, (length + 1e-12).sqrt()):
        at = wave[:, list(_PLACES)] / wave[:, _PEAK : _PEAK + 1].abs().clamp_min(1e-3)
        form.append(at.clamp(-2.0, 3.0) * 2.0 - 1.0)
    return torch.cat(form, dim=-1)


def _through(inputs: Tensor, layer: Layer, first: int = 0) -> Tensor:
    """inputs [B, I] by the layer's weights from row `first` on, without its bias: [B, O]."""
    total = inputs[:, :1] * layer.weight[first]
    for i in range(1, inputs.shape[1]):
        total += inputs[:, i : i + 1] * layer.weight[first + i]
    return total


def own_part(own: Tensor, network: tuple[Layer, ...]) -> Tensor:
    """What the first layer makes of all but what is asked for: own [B, INPUTS - 6], as `guess` wants it."""
    return _through(own, network[0], 6) + network[0].bias


def guess(asked: Tensor, own: Tensor, network: tuple[Layer, ...]) -> Tensor:
    """Parameters [B, FREE] of a bend: asked [B, 6] of `asks`, own [B, H] of `own_part`."""
    hidden = torch.tanh(own + _through(asked, network[0]))
    hidden = torch.tanh(_through(hidden, network[1]) + network[1].bias)
    return LARGEST * torch.tanh((_through(hidden, network[2]) + network[2].bias) * (1.0 / LARGEST))
