"""Beats on the canonical axis to learn from: real ones, varied, and drawn ones.

Real: the trusted median beats of PTB-XL's folds 1 to 6, LUDB's odd records and the Challenge's samples
(`data.ecg.real_beats`), cut at the delineator's marks. They are few, so each time one is taken it is varied as hearts,
chests and electrodes vary: size, size of P and of T, electrode gains, the heart's axis, the T wave's form. Drawn: the
oracle's generator on LUDB's morphologies, with T waves of any form, cut at marks as far off as a delineator's are.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.constants import constant
from world_models.data.ecg.real_beats import RealBeats, real_beats
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.t_bend import TShape, unbent
from world_models.ecg.t_wave import KORS, TMarks, t_wave
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import AT_R, RATE_HZ
from world_models.ecg_wm.bending import bent
from world_models.ecg_wm.encode import canonical_of, marks_of

__all__ = ["BeatPool", "BeatSource", "sample_intervals"]

DRAW_SEED = 3_000_000_000
DRAWN = 3072  # drawn beats
REAL_SHARE = 0.6  # of a batch
SLOPE_SD = 0.35  # of each logarithm of the slopes at which a drawn T wave is bent
JITTER_MS = 4.0  # SD of each mark of a drawn beat
# SDs of the variations of a real beat: logarithms of the gains of all, P, T, an electrode; radians of the axis
VARY = {"size": 0.25, "p": 0.2, "t": 0.25, "lead": 0.06, "axis": 0.15}
BEND_SD = 0.5  # of each logarithm of the speed at which the T wave runs
HELD_OUT = 6  # one patient in so many is kept to choose sizes and steps by, where that is asked for
# Leads from X, Y, Z (Dower 1980; figures in Edenbrandt 1988, doi 10.1016/0022-0736(88)90108-9)
DOWER = (
    (0.632, -0.235, 0.059),
    (0.235, 1.066, -0.132),
    (-0.515, 0.157, -0.917),
    (0.044, 0.164, -1.387),
    (0.882, 0.098, -1.277),
    (1.213, 0.127, -0.601),
    (1.125, 0.127, -0.086),
    (0.831, 0.076, 0.230),
)


class BeatPool(NamedTuple):
    """N beats."""

    beat: Tensor  # [N, 8, SAMPLES] mV, canonical
    leads: Tensor  # [N, 8] bool: recorded
    samples: Tensor  # [N, SAMPLES] bool: where the beat stands alone
    intervals: Tensor  # [N, 5] heart rate, PR, QRS, J-Tpeak, Tpeak-Tend; bpm and ms
    t_wave: Tensor  # [N, 5] chart units; NaN where it cannot be read

    def take(self, rows: Tensor) -> BeatPool:
        """The rows [M], an index or a mask."""
        return BeatPool(*(column[rows] for column in self))


def sample_intervals(key: Tensor) -> Intervals:
    """Intervals [B] well beyond what drugs do, each sampled on its own."""

    def between(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * keys.uniform(key, 0, f"beats/{name}")

    rate = between("rate", 42, 120)
    stretch = (60 / rate) ** 0.5
    return Intervals.of(
        rate,
        between("pr", 100, 280),
        between("qrs", 70, 140),
        between("jt", 150, 330) * stretch,
        between("tail", 55, 150),
    )


class BeatSource:
    """Batches of beats.

    Args:
        folder: where the real beats are kept once they are measured.
        ptbxl, ludb, challenge: folders of real ECGs, or None; without any, beats are drawn ones alone.
        hold_out: leave out one patient in `HELD_OUT` (`held_out` has them): to choose settings by, never to judge.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        ptbxl: Path | None = None,
        ludb: Path | None = None,
        challenge: Path | None = None,
        hold_out: bool = False,
        drawn: int = DRAWN,
    ):
        self.drawn = _drawn(keys.from_seed(DRAW_SEED, drawn, device))
        self.real: BeatPool | None = None
        self.held_out: BeatPool | None = None
        if ptbxl or ludb or challenge:
            found = real_beats(ptbxl, ludb, challenge, "train", cache=folder)
            pool = BeatPool(*(column.to(device) for column in pool_of(found)))
            aside = torch.tensor([zlib.crc32(name.encode()) % HELD_OUT == 0 for name in found.patient], device=device)
            self.held_out = pool.take(aside) if hold_out else None
            self.real = pool.take(~aside) if hold_out else pool

    def all(self) -> tuple[BeatPool, Tensor]:
        """Every beat once, and the share [N] of each in a batch."""
        if self.real is None:
            return self.drawn, torch.ones_like(self.drawn.beat[:, 0, 0])
        counts = len(self.real.beat), len(self.drawn.beat)
        share = [torch.full((n,), s / n) for n, s in zip(counts, (REAL_SHARE, 1 - REAL_SHARE), strict=True)]
        pool = BeatPool(*(torch.cat(pair) for pair in zip(self.real, self.drawn, strict=True)))
        return pool, torch.cat(share).to(pool.beat.device)

    def batch(self, key: Tensor) -> BeatPool:
        """Beats [B], the real ones varied. Their T waves are not measured anew: t_wave is that of the beat taken."""
        real = 0 if self.real is None else round(REAL_SHARE * key.shape[0])
        drawn = _picked(self.drawn, key[real:])
        if self.real is None or not real:
            return drawn
        taken = varied(_picked(self.real, key[:real]), key[:real])
        return BeatPool(*(torch.cat(pair) for pair in zip(taken, drawn, strict=True)))


def _picked(pool: BeatPool, key: Tensor) -> BeatPool:
    rows = torch.floor(keys.uniform(key, 0, "beats/row") * pool.beat.shape[0]).long().clamp_max(len(pool.beat) - 1)
    return pool.take(rows)


def pool_of(found: RealBeats) -> BeatPool:
    """Real median beats on the canonical axis; zero where a beat overlaps its neighbours."""
    canonical, leads, samples, whole = canonical_of(found.beat_mv, found.measured)
    read = t_wave(found.beat_mv, marks_of(found.measured), RATE_HZ, AT_R)
    intervals = torch.stack([whole[n] for n in ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")], 1)
    return BeatPool(torch.where(samples.unsqueeze(1), canonical, 0.0), leads, samples, intervals, torch.stack(read, -1))


def _drawn(key: Tensor) -> BeatPool:
    """Drawn beats of wide intervals and T forms, cut at marks a little off."""
    made = []
    bank = MorphologyBank.load(device=key.device)
    for rows in torch.arange(key.shape[0], device=key.device).split(256):
        made.append(_drawn_block(bank, key[rows]))
    return BeatPool(*(torch.cat(column) for column in zip(*made, strict=True)))


def _drawn_block(bank: MorphologyBank, key: Tensor) -> BeatPool:
    intervals = sample_intervals(key)

    def between(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * keys.uniform(key, 0, f"beats/t_{name}")

    flanks = [(SLOPE_SD * keys.normal(key, 0, f"beats/{side}", (5,))).exp() for side in ("left", "right")]
    shape = unbent(key.shape[0], key.device)._replace(left=flanks[0], right=flanks[1])
    template = beat_template(intervals, bank.sample(keys.fold(key, "beats/shape")), t_shape=shape)
    off = JITTER_MS * keys.normal(key, 0, "beats/marks", (5,))
    pr, qrs, jt, tail = (
        (x + d).clamp_min(40.0)
        for x, d in zip(
            (intervals.pr_ms, intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms),
            (off[:, 1], off[:, 2], 0.5 * off[:, 3], off[:, 4]),
            strict=True,
        )
    )
    ends = beats.piece_ends(pr, qrs, jt, tail)
    onset = -R_SHARE * intervals.qrs_ms + off[:, 0].clamp(-6, 6)
    canonical = beats.to_canonical(template, ends, AT_R + onset * (RATE_HZ / 1000), RATE_HZ)
    marks = TMarks(onset, onset + qrs, onset + qrs + jt, onset + qrs + jt + tail)
    read = torch.stack(t_wave(template, marks, RATE_HZ, AT_R), dim=-1)
    rate = intervals.heart_rate_bpm
    whole = torch.stack([rate, pr, qrs, jt, tail], dim=-1)
    leads = torch.ones(key.shape[0], beats.LEAD_COUNT, dtype=torch.bool, device=key.device)
    return BeatPool(canonical, leads, beats.valid_samples(ends, 60_000 / rate), whole, read)


def varied(pool: BeatPool, key: Tensor) -> BeatPool:
    """The beats [B] as other hearts, chests and electrodes would show them."""

    def normal(name: str, *shape: int) -> Tensor:
        return keys.normal(key, 0, f"beats/vary_{name}", shape)

    beat = pool.beat
    p_end = sum(beats.PIECES[:2])
    gains = torch.ones_like(beat[:, :1])
    gains[..., :p_end] = (VARY["p"] * normal("p")).exp()[:, None, None]
    beat = beat * gains * (VARY["size"] * normal("size")).exp()[:, None, None]
    bends = (keys.uniform(key, 0, "beats/bends") < 0.5).to(beat.dtype).unsqueeze(-1)
    early, late = ((BEND_SD * bends * normal(name, 5)).exp() for name in ("early", "late"))
    gain = (VARY["t"] * normal("t")).exp()
    shape = TShape(gain, torch.zeros_like(gain), early, late)
    beat = bent(beat, shape, pool.intervals[:, 3], pool.intervals[:, 4])
    beat = beat + torch.einsum("lv,bvs->bls", _dower(beat), _turned(beat, normal("axis", 3)))
    beat = beat * (VARY["lead"] * normal("lead", beats.LEAD_COUNT)).exp().unsqueeze(-1)
    return pool._replace(beat=beat * pool.leads.unsqueeze(-1))


def _dower(like: Tensor) -> Tensor:
    return constant(tuple(x for row in DOWER for x in row), like.device, like.dtype).view(beats.LEAD_COUNT, 3)


def _turned(beat: Tensor, axis: Tensor) -> Tensor:
    """By what the heart's vector [B, 3, SAMPLES] changes when it turns about `axis` [B, 3], of SD 1, by its length."""
    vector = torch.einsum("vl,bls->bvs", constant(tuple(sum(KORS, ())), beat.device, beat.dtype).view(3, -1), beat)
    axis = VARY["axis"] * axis
    angle = axis.square().sum(-1, keepdim=True).sqrt().clamp(1e-6, math.pi)
    unit = (axis / angle).unsqueeze(-1).expand_as(vector)
    sine, cosine = angle.sin().unsqueeze(-1), angle.cos().unsqueeze(-1)
    along = (unit * vector).sum(1, keepdim=True) * unit  # Rodrigues' rotation
    turned = vector * cosine + torch.linalg.cross(unit, vector, dim=1) * sine + along * (1 - cosine)
    return turned - vector
