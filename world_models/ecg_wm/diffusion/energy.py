"""The physics energy (EPK, external physiological knowledge) of a decoded beat beside the ODE's prediction.

Three parts, each one number a beat, and each 1 in the mean on the true post-dose beats of training patients, so that a
weight means the same for all:

- measures: intervals and T-wave measures read off the beat, against what the prior predicts of them; squared
  differences in units of how far true beats lie from the prior. What is predicted is best what the same reader finds
  on the pre-dose beat plus the change that the prior foresees: a reader's own bias for a shape then cancels;
- dipole: what of the beat a single dipole cannot make (`single_dipole`);
- mcsharry: what of the beat McSharry's waves cannot make (`mcsharry_fit`).

Above 1 is further from physiology than real beats are. Below 1 is closer to the prior than real beats are: a model
driven there has lost spread or reconstruction. As a training loss on the estimate of the clean latent and as guidance
at sampling time: `EPK`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.ecg.intervals import jt_peak_scale
from world_models.ecg_wm.diffusion.decoded import Decode, DecodedBeat
from world_models.ecg_wm.diffusion.marks import read_marks, read_t_wave
from world_models.ecg_wm.diffusion.mcsharry_fit import mcsharry_residual
from world_models.ecg_wm.diffusion.single_dipole import outside_dower, outside_rank

__all__ = ["EPK", "MEASURED", "EnergyParts", "EnergyWeights", "PhysicsEnergy", "read_measures"]

MEASURED: tuple[str, ...] = (
    *("pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms"),
    *("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms"),
)
_BEND = 4.0  # units beyond which a difference counts linearly: one misread mark must not outweigh a batch
_LEAST = 1e-6


@dataclass(frozen=True)
class EnergyWeights:
    """What each part of the energy counts."""

    measures: float = 1.0
    dipole: float = 0.25
    mcsharry: float = 0.25


class EnergyParts(NamedTuple):
    """The parts of the energy, each [B] and 1 in the mean on true beats."""

    measures: Tensor
    dipole: Tensor
    mcsharry: Tensor

    def total(self, weights: EnergyWeights) -> Tensor:
        """Their weighted sum [B]."""
        return weights.measures * self.measures + weights.dipole * self.dipole + weights.mcsharry * self.mcsharry


def read_measures(beat: DecodedBeat) -> Tensor:
    """MEASURED of beats [B], as read off them: [B, 9], NaN where one cannot be read."""
    marks = read_marks(beat)
    rr_s_log = (beat.rr_ms / 1000).log()
    intervals = (
        marks.qrs_onset_ms - marks.p_onset_ms,
        marks.j_point_ms - marks.qrs_onset_ms,
        (marks.t_peak_ms - marks.j_point_ms) / jt_peak_scale(rr_s_log),
        marks.t_end_ms - marks.t_peak_ms,
    )
    return torch.stack([*intervals, *read_t_wave(beat, marks)], dim=-1)


class PhysicsEnergy(nn.Module):
    """The energy, calibrated on true beats.

    Args:
        torso: "own": the dipole part is outside the beat's own three dimensions; "dower": outside Dower's torso.

    Raises:
        ValueError: another torso.
    """

    offset: Tensor  # [9] median of what is read less what the prior predicts, on true beats
    scale: Tensor  # [9] spread of it
    unit: Tensor  # [3] mean of each part on true beats

    def __init__(self, torso: str = "own"):
        super().__init__()
        if torso not in ("own", "dower"):
            raise ValueError(f"torso is {torso!r}; choose own or dower")
        self.torso = torso
        self.register_buffer("offset", torch.zeros(len(MEASURED)))
        self.register_buffer("scale", torch.ones(len(MEASURED)))
        self.register_buffer("unit", torch.ones(len(EnergyParts._fields)))

    def forward(self, beat: DecodedBeat, predicted: Tensor) -> EnergyParts:
        """The energy of beats [B] beside predicted MEASURED [B, 9]; NaN among those asks nothing of that measure."""
        raw = self._raw(read_measures(beat), beat, predicted)
        return EnergyParts(*(part / unit for part, unit in zip(raw, self.unit, strict=True)))

    @torch.no_grad()
    def calibrate(self, beat: DecodedBeat, predicted: Tensor) -> None:
        """Set offset, scale and units on true post-dose beats [N] and what the prior predicts of them [N, 9].

        Raises:
            ValueError: fewer than 32 beats of which a measure can be read.
        """
        read = read_measures(beat)
        off = read - predicted
        counts = torch.isfinite(off).sum(0)
        if int(counts.min()) < 32:
            name = MEASURED[int(counts.argmin())]
            raise ValueError(f"{name} can be read in {int(counts.min())} of {len(off)} beats; calibrate on more")
        offset = off.nanmedian(0).values
        self.offset.copy_(offset)
        # 1.4826 times the median absolute deviation is a normal's SD, and some misread marks do not move it
        self.scale.copy_((1.4826 * (off - offset).abs().nanmedian(0).values).clamp_min(_LEAST))
        self.unit.copy_(torch.stack([part.mean() for part in self._raw(read, beat, predicted)]).clamp_min(_LEAST))

    def _raw(self, read: Tensor, beat: DecodedBeat, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        off = (read - predicted - self.offset) / self.scale
        known = torch.isfinite(off)
        off = torch.where(known, off, torch.zeros_like(off))
        bent = 2 * _BEND**2 * ((1 + (off / _BEND).square()).sqrt() - 1)  # Charbonnier: off^2 while it is small
        measures = bent.sum(-1) / known.sum(-1).clamp_min(1)
        outside = outside_rank(beat.beat_mv) if self.torso == "own" else outside_dower(beat.beat_mv)
        return measures, outside, mcsharry_residual(beat)


class EPK:
    """The energy as a function of a latent, for training losses and guidance.

    Args:
        energy: calibrated.
        decode: z to its beat.
        weights: of the parts.
    """

    def __init__(self, energy: PhysicsEnergy, decode: Decode, weights: EnergyWeights = EnergyWeights()):
        self.energy, self.decode, self.weights = energy, decode, weights

    def __call__(self, z: Tensor, predicted: Tensor) -> Tensor:
        """Energy [B] of latents [B, Z] (the decoder's, not the residual) beside predicted MEASURED [B, 9]."""
        return self.energy(self.decode(z), predicted).total(self.weights)

    def against(self, predicted: Tensor, restore: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The energy of residuals [B, Z] in their units, for `Guidance`: `restore` gives their latents."""
        return lambda residual: self(restore(residual), predicted)
