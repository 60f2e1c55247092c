"""DADM-like: a drug-aware diffusion model (Shao 2025, arXiv 2502.07297) over the beat itself.

A one-dimensional U-Net denoises the change of the beat and the measures together. External knowledge comes in by
cross-attention (class, ion-channel block, label facts, and the beat's own McSharry waves: places, widths and heights of
P, QRS, ST and T in the pre-dose ECG); drug, dose and demographics by a control branch whose last layers start at zero
(ControlNet, Zhang 2023, arXiv 2302.05543). The paper's own ODE and its causal parts of later versions are not rebuilt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, SAMPLES, Block, Modulated, dense, sinusoid
from benchmarks.ecg_drug.rivals.denoising import ddim, noised
from benchmarks.ecg_drug.rivals.frame import FEATURES
from benchmarks.ecg_drug.rivals.knowledge import CHANNELS, FACTS, knowledge_table
from benchmarks.ecg_drug.rivals.network import Batch, PairNetwork
from world_models.ecg.beat_axis import J_POINT, PIECES, QRS_START, T_PEAK

__all__ = ["DADM"]

_DRUGS = 5
_FLAT = LEADS * SAMPLES
# where on the canonical axis each wave's height is read
_WAVES = (PIECES[0] + PIECES[1] // 2, (QRS_START + J_POINT) // 2, J_POINT, (J_POINT + T_PEAK) // 2, T_PEAK)


class DADM(PairNetwork):
    """See the module's docstring."""

    title, paper = "DADM", "arXiv 2502.07297"

    def __init__(self, width: int = 24, size: int = 48):
        super().__init__()
        for name, table in zip(("classes", "channels", "facts"), knowledge_table(), strict=True):
            self.register_buffer(name, table)
        self.known = nn.ModuleList(nn.Linear(n, size) for n in (4, len(CHANNELS) + 1, len(FACTS), MEASURES))
        self.waves = nn.Linear(LEADS, size)
        self.at = dense(2 * size + MEASURES, size, size)
        self.told = dense(FEATURES, size, size)
        self.down = nn.ModuleList(Modulated(c, width, size, 2) for c in (LEADS, width, width))
        self.deep = nn.Linear(width, size)
        self.block = Block(size, context=size)
        self.rise = nn.Linear(size, width)
        self.up = nn.ModuleList(Modulated(2 * width, width, size) for _ in range(3))
        self.out = nn.Conv1d(width + LEADS, LEADS, 5, padding=2)
        self.measures = dense(3 * size + MEASURES, 2 * size, 2 * size, MEASURES)
        self.control = nn.ModuleList(Modulated(c, width, size, 2) for c in (LEADS, width, width))
        self.zero = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        for layer in self.zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.size = size

    def _knowledge(self, pre: Tensor, told: Tensor, drug: Tensor) -> Tensor:
        """Tokens [B, 9, size] of what is known beforehand."""
        dose = told[:, MEASURES + _DRUGS : MEASURES + _DRUGS + 4].sum(-1, keepdim=True)
        known = (self.classes[drug], torch.cat([self.channels[drug], dose], -1), self.facts[drug], told[:, :MEASURES])
        tokens = [layer(x) for layer, x in zip(self.known, known, strict=True)]
        heights = self.waves(pre[..., list(_WAVES)].transpose(1, 2))
        return torch.cat([torch.stack(tokens, 1), heights], 1)

    def _prepared(self, pre: Tensor, told: Tensor, drug: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What does not depend on the time: knowledge, condition, and the control branch's additions."""
        by, x, added = self.told(told), pre, []
        for layer, zero in zip(self.control, self.zero, strict=True):
            x = layer(x, by)
            added.append(zero(x))
        return self._knowledge(pre, told, drug), by, added

    def _velocity(self, x: Tensor, time: Tensor, known: Tensor, by: Tensor, added: list[Tensor]) -> Tensor:
        """The velocity [B, 1610] in x at times [B]."""
        beat, measures = x.split((_FLAT, MEASURES), -1)
        beat = beat.unflatten(-1, (LEADS, SAMPLES))
        at = self.at(torch.cat([sinusoid(time, self.size), by, measures], -1))
        kept, h = [], beat
        for layer, more in zip(self.down, added, strict=True):
            h = layer(h, at)
            kept.append(h + more)
        deep = self.block(self.deep(kept[-1].transpose(1, 2)), known)
        h = self.rise(deep).transpose(1, 2)
        for i, layer in enumerate(self.up):
            h = layer(torch.cat([h, kept[-1 - i]], 1), at)
            h = F.interpolate(h, scale_factor=2.0, mode="linear", align_corners=False)
        said = self.out(torch.cat([h, beat], 1)).flatten(1)
        return torch.cat([said, self.measures(torch.cat([deep.mean(1), at, by, measures], -1))], -1)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean square error of the velocity, beat and measures in equal parts."""
        clean = torch.cat([batch.beat.flatten(1), batch.measures], -1)
        x, velocity, time = noised(clean, batch.key)
        off = (self._velocity(x, time, *self._prepared(batch.pre, batch.told, batch.drug)) - velocity).square()
        beat, measures = off[:, :_FLAT].mean(), off[:, _FLAT:].mean()
        return beat + measures, {"beat": float(beat.detach()), "measures": float(measures.detach())}

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        ready = self._prepared(pre, told, drug)
        x = ddim(lambda z, time: self._velocity(z, time, *ready), key, _FLAT + MEASURES)
        return x[:, :_FLAT].unflatten(-1, (LEADS, SAMPLES)), x[:, _FLAT:]
