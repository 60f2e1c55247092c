"""ECG ODE-GAN: the generator is an ordinary differential equation along the beat (Golany, Freedman & Radinsky 2021,
AAAI, doi 10.1609/aaai.v35i1.16086).

A learned field moves a state along the beat's phase; it sees McSharry's waves as bumps of the phase, whose places and
widths here are those of the canonical axis. Heun's method on a fixed grid of 50 steps, lines between them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.adversarial import NOISE, AdversarialNetwork, ConvCritic
from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, SAMPLES, BeatEncoder, dense
from world_models.ecg.beat_axis import J_POINT, PIECES, QRS_START, T_PEAK

__all__ = ["ODEGAN"]

_STEPS = 50
_STATE = 16
_P = PIECES[0] + PIECES[1] / 2
_QRS = (QRS_START + J_POINT) / 2
# places and widths of P, Q, R, S, T in samples of the canonical axis
_CENTRES = (_P, _QRS - 12.0, _QRS, _QRS + 12.0, float(T_PEAK))
_WIDTHS = (10.0, 5.0, 5.0, 5.0, 18.0)


class ODEGAN(AdversarialNetwork):
    """See the module's docstring."""

    title, paper = "ECG ODE-GAN", "doi 10.1609/aaai.v35i1.16086"

    def __init__(self, embedding: int = 48, width: int = 48):
        super().__init__()
        self.see = BeatEncoder(embedding)
        both = embedding + NOISE
        self.start = nn.Linear(both, _STATE)
        self.by = nn.Linear(both, width)
        self.field = nn.Linear(_STATE + len(_CENTRES) + 2, width)
        self.turn = nn.Linear(width, _STATE)
        self.out = nn.Linear(_STATE, LEADS)
        self.measures = dense(both + _STATE, 64, MEASURES)
        self.critic = ConvCritic()

    def _waves(self) -> Tensor:
        """The bumps and the phase at the steps' bounds, [_STEPS + 1, 7]."""
        at = torch.linspace(0.0, SAMPLES - 1.0, _STEPS + 1, device=self.out.weight.device).unsqueeze(-1)
        bumps = torch.exp(-0.5 * ((at - at.new_tensor(_CENTRES)) / at.new_tensor(_WIDTHS)).square())
        phase = at / SAMPLES * (2 * torch.pi)
        return torch.cat([bumps, phase.sin(), phase.cos()], -1)

    def _slope(self, state: Tensor, wave: Tensor, by: Tensor) -> Tensor:
        seen = torch.cat([state, wave.expand(len(state), -1)], -1)
        return self.turn(torch.tanh(self.field(seen) + by))

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        both = torch.cat([self.see(pre, told), self.noise(key)], -1)
        state, by, waves, step = self.start(both), self.by(both), self._waves(), 4.0 / _STEPS
        states = [state]
        for i in range(_STEPS):
            first = self._slope(state, waves[i], by)
            second = self._slope(state + step * first, waves[i + 1], by)
            state = state + 0.5 * step * (first + second)
            states.append(state)
        course = self.out(torch.stack(states, 1)).transpose(1, 2)
        beat = F.interpolate(course, size=SAMPLES, mode="linear", align_corners=True)
        return beat, self.measures(torch.cat([both, state], -1))
