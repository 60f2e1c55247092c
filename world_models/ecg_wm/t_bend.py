"""The T wave bent on the canonical axis: the same vector loop, run through at another speed, and larger or smaller.

Drugs change how fast repolarisation goes along its path, and how large it is, more than the path. So the leads of a
beat, a recorded one too, keep their polarities and their proportions: between J point and the end of the tail time is
run through by a monotone function (`Bend.early` left of the T peak, `Bend.late` right of it; J point, T peak and T end
stay), and the whole is scaled. Any flank that falls towards both sides can so be given another form: ERD_30, LRD_30,
asymmetry and flatness are properties of the flanks.

`Bender` says which bend makes a beat measure what is asked for. It looks at the wave that is there, so that decoded
beats and recorded ones are served alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.constants import constant
from world_models.ecg.st_t import smoothstep
from world_models.ecg.t_wave import KORS
from world_models.ecg_wm.beats import PIECES, QRS_START, SAMPLES
from world_models.ecg_wm.t_reading import ReadT, read_t
from world_models.nn.mlp import mlp

__all__ = [
    "J_POINT",
    "T_CENTRE",
    "T_MEASURES",
    "T_PEAK",
    "T_SCALE",
    "Bend",
    "Bender",
    "bent",
    "kors",
    "missed",
    "standardised",
]

T_MEASURES = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
J_POINT = QRS_START + PIECES[3]  # canonical samples
T_PEAK = J_POINT + PIECES[4]
_EARLY, _LATE = PIECES[4], PIECES[5]  # J to T peak, T peak to T end
# Centres of the bumps of which the logarithm of the speed is made: shares of J to T peak, and of T peak to T end.
_CENTRES = ((0.0, 0.14, 0.3, 0.5, 0.75), (0.0, 0.3, 0.65, 1.05))
_WIDTHS = ((0.1, 0.1, 0.13, 0.17, 0.2), (0.2, 0.22, 0.25, 0.3))
_LATE_END = 1.0 + PIECES[6] / PIECES[5]  # of the tail, in Tpeak-Tend on the canonical axis
_STEEPEST = 2.2  # largest logarithm of the speed of one bump
_GRID = 96  # cells of the table of each flank
_BLEND = 0.35  # share of J to T peak over which the gain sets in
_GAIN = 2.5  # largest logarithm of the gain
# Round numbers near a healthy adult's: log uV, asymmetry's root, flatness, log ms, log ms.
T_CENTRE, T_SCALE = (6.2, 0.4, 0.42, 3.75, 3.3), (0.45, 0.17, 0.07, 0.3, 0.3)
# A miss of this size counts as one: amplitude's logarithm, asymmetry, flatness, ERD_30 and LRD_30 in ms, and so much
# of what is asked for; T peak and T end, ms.
MISS, MISS_SHARE, MISS_MARKS = (0.03, 0.02, 0.012, 1.0, 1.0), (0.0, 0.05, 0.0, 0.015, 0.015), (1.0, 2.5)
PASSES = 2  # corrections of the first guess
_PARAMETERS = len(_CENTRES[0]) + len(_CENTRES[1]) + 1
_FEW_MV = 0.03  # a T vector smaller than this is not normalised further


class Bend(NamedTuple):
    """How B beats' T waves are bent; zeros leave them."""

    early: Tensor  # [B, 5] logarithms of the speed left of the peak, at `_CENTRES[0]`
    late: Tensor  # [B, 4] right of it
    log_gain: Tensor  # [B] of ST and T


def standardised(t_wave: Tensor) -> Tensor:
    """T measures [B, 5] (`T_MEASURES`, chart units) -> [B, 5] on their working scale: logarithms, root, as they are."""
    amplitude, asymmetry, flatness, erd, lrd = t_wave.unbind(-1)
    rows = (amplitude.clamp_min(1.0).log(), asymmetry.clamp_min(1e-4).sqrt(), flatness)
    raw = torch.stack((*rows, erd.clamp_min(1.0).log(), lrd.clamp_min(1.0).log()), dim=-1)
    return (raw - constant(T_CENTRE, raw.device, raw.dtype)) / constant(T_SCALE, raw.device, raw.dtype)


def _run(logs: Tensor, side: int, reach: float) -> Tensor:
    """Table [B, _GRID + 1] of the place in the old wave for evenly spaced places in the new one, 0 to `reach`.

    In units of the flank, pinned at 0 and at 1 (J point, or T end).
    """
    at = (torch.arange(_GRID, device=logs.device, dtype=logs.dtype) + 0.5) * (reach / _GRID)
    rate = torch.zeros(logs.shape[0], _GRID, device=logs.device, dtype=logs.dtype)
    for i, (centre, width) in enumerate(zip(_CENTRES[side], _WIDTHS[side], strict=True)):
        rate = rate + logs[:, i : i + 1] * torch.exp(-0.5 * ((at - centre) / width).square())
    speed = rate.exp()
    place = torch.cat([torch.zeros_like(speed[:, :1]), speed.cumsum(-1)], dim=-1)
    one = place[:, round(_GRID / reach)].unsqueeze(-1)  # exact: reach * _GRID is a whole number
    return place / one


def _looked_up(table: Tensor, share: Tensor, reach: float) -> Tensor:
    """The tables [B, _GRID + 1] at shares [N] of 0 to reach: [B, N]."""
    place = (share / reach).clamp(0, 1) * _GRID
    lower = place.floor().clamp_max(_GRID - 1).long()
    left = table[:, lower]
    return left + (place - lower) * (table[:, lower + 1] - left)


def bent(canonical_mv: Tensor, bend: Bend) -> Tensor:
    """Canonical beats [B, 8, SAMPLES] mV with their T waves bent; everything up to the J point stays bit for bit."""
    late = canonical_mv[..., J_POINT:]
    steps = torch.arange(SAMPLES - J_POINT, device=late.device, dtype=late.dtype)
    before = _looked_up(_run(bend.early, 0, 1.0), (_EARLY - steps[:_EARLY]) / _EARLY, 1.0)
    after = _looked_up(_run(bend.late, 1, _LATE_END), (steps[_EARLY:] - _EARLY) / _LATE, _LATE_END)
    place = torch.cat([_EARLY - _EARLY * before, _EARLY + _LATE * after], dim=-1).clamp(0, SAMPLES - J_POINT - 1.001)
    lower = place.detach().floor()
    share = (place - lower).unsqueeze(1)
    index = lower.long().unsqueeze(1).expand(-1, late.shape[1], -1)
    left = late.gather(-1, index)
    wave = left + share * (late.gather(-1, index + 1) - left)
    rise = smoothstep(steps / (_BLEND * _EARLY))
    gain = 1.0 + (bend.log_gain.exp() - 1.0).unsqueeze(-1) * rise
    return torch.cat([canonical_mv[..., :J_POINT], wave * gain.unsqueeze(1)], dim=-1)


def kors(like: Tensor) -> Tensor:
    """Kors' transform [3, 8], where and as `like` is."""
    return constant(tuple(x for row in KORS for x in row), like.device, like.dtype).view(3, 8)


def _profile(canonical_mv: Tensor) -> tuple[Tensor, Tensor]:
    """Form of the T wave that is there, [B, 2 * 48], and the logarithm [B, 1] of its vector at the peak, in uV."""
    late = canonical_mv[..., J_POINT:]
    direction = late[..., _EARLY - 5 : _EARLY + 6].mean(-1)
    length = direction.square().sum(-1, keepdim=True).sqrt().clamp_min(_FEW_MV)
    along = (late * (direction / length).unsqueeze(-1)).sum(1) / length
    vector = torch.einsum("vl,bls->bvs", kors(late), late)
    size = (vector.square().sum(1) + 1e-8).sqrt()
    peak = size[:, _EARLY - 8 : _EARLY + 9].amax(-1, keepdim=True).clamp_min(_FEW_MV)
    return torch.cat([along, size / peak], dim=-1)[:, ::2].clamp(-3, 3), (peak * 1000).log()


def missed(read: ReadT, asked: Tensor) -> Tensor:
    """What was read less T waves asked for [B, 5], each in units of what counts as a miss, [B, 7]: the five measures,
    T peak and T end. What cannot be read counts as nothing."""
    off = torch.cat([(read.t_wave[:, :1] / asked[:, :1]).clamp_min(1e-3).log(), read.t_wave[:, 1:] - asked[:, 1:]], -1)
    least, share, marks = (constant(row, off.device, off.dtype) for row in (MISS, MISS_SHARE, MISS_MARKS))
    off = off / (least + share * asked)
    return torch.nan_to_num(torch.cat([off, torch.stack([read.peak_off_ms, read.end_off_ms], -1) / marks], -1))


class Bender(nn.Module):
    """Which bend a beat needs for its T wave to measure what is asked for: a guess, read, and put right by what it
    misses, as often as is asked for (a Newton step whose slopes are learned)."""

    def __init__(self, width: int):
        super().__init__()
        inputs = (SAMPLES - J_POINT) + 1 + 2 + 5 + 1 + 2
        self.first = mlp((inputs, width, width, _PARAMETERS), zero_last=True)
        self.next = mlp((inputs + _PARAMETERS + 7, width, width, _PARAMETERS), zero_last=True)

    def forward(self, canonical_mv: Tensor, t_wave: Tensor, intervals: Tensor, passes: int = PASSES) -> Bend:
        """The bend of beats [B, 8, SAMPLES] for T measures [B, 5] (`T_MEASURES`) at intervals [B, 5] (bpm, ms)."""
        return self.guesses(canonical_mv, t_wave, intervals, passes)[-1][0]

    def guesses(
        self, canonical_mv: Tensor, t_wave: Tensor, intervals: Tensor, passes: int
    ) -> list[tuple[Bend, Tensor | None]]:
        """The first guess and `passes` better ones, each with what the guess misses [B, 7] (the last with None). No
        gradient goes from one guess to the one before."""
        seen, gain = _seen(canonical_mv, t_wave, intervals)
        raw = self.first(seen)
        found: list[tuple[Bend, Tensor | None]] = []
        for _ in range(passes):
            bend = _bend(raw, gain)
            misses = missed(read_t(bent(canonical_mv, bend), intervals), t_wave)
            found.append((bend, misses))
            last = raw.detach()
            raw = last + self.next(torch.cat([seen, last, misses.detach().clamp(-15, 15) / 3], dim=-1))
        found.append((_bend(raw, gain), None))
        return found


def _seen(canonical_mv: Tensor, t_wave: Tensor, intervals: Tensor) -> tuple[Tensor, Tensor]:
    """What the networks look at, and the logarithm [B, 1] by which the T vector has to grow."""
    form, log_peak = _profile(canonical_mv)
    gain = t_wave[:, :1].clamp_min(1.0).log() - log_peak
    jt, tail = intervals[:, 3:4], intervals[:, 4:5]
    shares = torch.cat([t_wave[:, 3:4] / jt - 0.2, t_wave[:, 4:5] / tail - 0.4], dim=-1) * 8
    scaled = torch.cat([(jt - 240) / 50, (tail - 90) / 25], dim=-1)
    return torch.cat([form, log_peak - 6, scaled, standardised(t_wave), gain, shares], dim=-1), gain


def _bend(raw: Tensor, gain: Tensor) -> Bend:
    early, late, more = raw.split([len(_CENTRES[0]), len(_CENTRES[1]), 1], dim=-1)
    early, late = (_STEEPEST * torch.tanh(x / _STEEPEST) for x in (early, late))
    return Bend(early, late, _GAIN * torch.tanh((gain + more).squeeze(-1) / _GAIN))
