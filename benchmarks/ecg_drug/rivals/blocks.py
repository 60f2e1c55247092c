"""Parts that several rivals are built of. All of it can be differentiated twice, as gradient penalties need."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.frame import FEATURES

__all__ = ["LEADS", "MEASURES", "SAMPLES", "Attention", "Block", "BeatEncoder", "Modulated", "dense", "patches"]
__all__ += ["sinusoid", "unpatched"]

LEADS, SAMPLES, MEASURES = 8, 200, 10
_SLOPE = 0.2  # of leaky ReLUs


def dense(*sizes: int) -> nn.Sequential:
    """Linear layers with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers[:-1])


class Modulated(nn.Module):
    """A convolution whose output is scaled and shifted by an embedding (Perez 2018, arXiv 1709.07871)."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, 5, stride, padding=2)
        self.by = nn.Linear(embedding, 2 * channels_out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [B, C, L], embedding [B, E] -> [B, C', L / stride]."""
        gain, shift = self.by(embedding).unsqueeze(-1).chunk(2, dim=1)
        return F.leaky_relu(self.conv(x) * (1 + gain) + shift, _SLOPE)


class BeatEncoder(nn.Module):
    """The pre-dose beat [B, 8, 200] and the features [B, F] as one embedding [B, size]."""

    def __init__(self, size: int, width: int = 24):
        super().__init__()
        self.beat = nn.Sequential(
            nn.Conv1d(LEADS, width, 5, 2, padding=2),
            nn.LeakyReLU(_SLOPE),
            nn.Conv1d(width, width, 5, 2, padding=2),
            nn.LeakyReLU(_SLOPE),
            nn.Conv1d(width, width, 5, 2, padding=2),
            nn.Flatten(),
            nn.Linear(width * SAMPLES // 8, size),
        )
        self.both = dense(size + FEATURES, size, size)

    def forward(self, pre: Tensor, told: Tensor) -> Tensor:
        """[B, size]."""
        return self.both(torch.cat([self.beat(pre), told], -1))


class Attention(nn.Module):
    """Attention of tokens [B, T, D] to themselves or to a context [B, K, C] (Vaswani 2017, arXiv 1706.03762).

    Written out, as torch's fused kernels have no second derivative.
    """

    def __init__(self, size: int, heads: int = 4, context: int | None = None):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size if context is None else context, 2 * size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[B, T, D]."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = self.key_value(x if context is None else context)
        k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in both.chunk(2, dim=-1))
        weight = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.out((weight @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block, with cross-attention where there is a context of that size."""

    def __init__(self, size: int, heads: int = 4, context: int | None = None):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.own = Attention(size, heads)
        self.cross = None if context is None else Attention(size, heads, context)
        self.feed = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[B, T, D]."""
        x = x + self.own(self.norms[0](x))
        if self.cross is not None:
            x = x + self.cross(self.norms[1](x), context)
        return x + self.feed(self.norms[2](x))


def patches(beat: Tensor, count: int) -> Tensor:
    """Beats [B, C, 200] as `count` tokens [B, count, C * 200 / count]."""
    return beat.unflatten(-1, (count, -1)).transpose(1, 2).flatten(2)


def unpatched(tokens: Tensor, channels: int = LEADS) -> Tensor:
    """Tokens [B, T, C * n] back as beats [B, C, T * n]."""
    return tokens.unflatten(-1, (channels, -1)).transpose(1, 2).flatten(2)


def sinusoid(time: Tensor, size: int) -> Tensor:
    """Sines and cosines [B, size] of times [B] in 0..1."""
    rate = torch.exp(torch.linspace(0.0, math.log(1000.0), size // 2, device=time.device))
    angle = time.unsqueeze(-1) * rate
    return torch.cat([angle.sin(), angle.cos()], -1)
