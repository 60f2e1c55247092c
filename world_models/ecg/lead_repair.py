"""Leads that are missing, flat or lost for a while, reconstructed from the others.

Of the eight independent leads (I, II, V1-V6) one to six may be lost; at least two must be whole. A lost sample is the
linear regression of its lead on the whole leads at that moment, with coefficients of their own in three segments of the
beat (up to the QRS, the QRS, after it): the heart's dipole, which all leads see, points elsewhere in each. The moments
stand in `lead_moments.json` (`lead_repair_fit` makes it from real beats; no beat of the judging half is among them).
Where a lead is there for at least two seconds of the recording, what it does there beside the others refines the
coefficients: this patient's, with the population's as if one more second had been seen of it.

A limb lead that Einthoven's law gives from other limb leads is no reconstruction.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS

__all__ = ["FEWEST_WHOLE", "MOMENTS_FILE", "RepairedLeads", "reconstruct", "repair_leads", "segments", "warnings_of"]

MOMENTS_FILE = Path(__file__).with_name("lead_moments.json")
FEWEST_WHOLE = 2  # leads that must be whole: one tells nothing of a dipole's direction
FLAT_MV = 0.005  # peak to peak over the recording: the resolution of a 12-bit recorder
STILL_S = 1.0  # a lead that keeps one value for so long is off; between beats real ones move by noise
RAIL_MV = 50.0  # no heart reaches this
RIDGE = 1e-3  # of the whole leads' mean power
OWN_S, PRIOR_S = 2.0, 1.0  # seconds of a lead from which the patient's own moments count; weight of the population's
BEFORE_P_MS, AROUND_QRS_MS, FADE_MS = 280.0, 10.0, 20.0
# Where the marks cannot be read: a resting adult's, ms from R
_USUAL_MS = {"qrs_onset_ms": -40.0, "qrs_offset_ms": 50.0, "t_end_ms": 360.0}
_LIMB = LEADS[:6]


class RepairedLeads(NamedTuple):
    """Recordings in which nothing is missing any more."""

    ecg_mv: Tensor  # [B, 12, T] float32; rows without a lost sample are as they were
    reconstructed: Tensor  # [B, 8] bool, order INDEPENDENT_LEADS: in part or whole
    share: Tensor  # [B, 8] of the samples
    expected_r: Tensor  # [B, 8] correlation to be expected of a reconstruction by the moments; 1 where there is none


@cache
def _moments() -> Tensor:
    """[3, 8, 8] second moments of the leads in each segment, each beat's mean power being 1."""
    return torch.tensor(json.loads(MOMENTS_FILE.read_text(encoding="utf-8"))["moments"], dtype=torch.float32)


def _lost(leads: Tensor, fs: float) -> Tensor:
    """bool [B, C, T]: samples that are not finite, beyond any heart's, or of a lead that is flat or stands still."""
    finite = torch.isfinite(leads) & (leads.abs() < RAIL_MV)
    clean = torch.where(finite, leads, torch.zeros_like(leads))
    high = torch.where(finite, leads, torch.full_like(leads, -torch.inf)).amax(-1)
    low = torch.where(finite, leads, torch.full_like(leads, torch.inf)).amin(-1)
    flat = ~(high - low >= FLAT_MV)
    window = max(2, round(STILL_S * fs))
    moves = F.pad((clean[..., 1:] != clean[..., :-1]).to(torch.float32), (1, 0))
    # where the greatest movement of a whole window is none, every sample of that window stands still
    still = 1.0 - F.max_pool1d(moves[..., 1:], window - 1, 1) if leads.shape[-1] > window else moves[..., :0]
    if still.shape[-1]:
        still = F.max_pool1d(F.pad(still, (window - 1, window - 1)), window, 1)
    else:
        still = torch.zeros_like(moves)
    return ~finite | flat.unsqueeze(-1) | (still > 0.5)


def _independent(ecg: Tensor, fs: float) -> tuple[Tensor, Tensor]:
    """Leads I, II, V1-V6 [B, 8, T] (0 where lost) and which of their samples are lost, bool [B, 8, T]."""
    lost = _lost(ecg, fs)
    clean = torch.where(lost, torch.zeros_like(ecg), ecg)
    if ecg.shape[1] == 8:
        return clean, lost
    x = dict(zip(_LIMB, clean[:, :6].unbind(1), strict=True))
    gone = dict(zip(_LIMB, lost[:, :6].unbind(1), strict=True))
    ways = {
        "I": ((x["II"] - x["III"], "II", "III"), ((x["aVL"] - x["aVR"]) / 1.5, "aVL", "aVR")),
        "II": ((x["I"] + x["III"], "I", "III"), ((x["aVF"] - x["aVR"]) / 1.5, "aVF", "aVR")),
    }
    made, left = [], []
    for name, others in ways.items():
        value, missing = x[name], gone[name]
        for other, a, b in others:
            usable = missing & ~gone[a] & ~gone[b]
            value, missing = torch.where(usable, other, value), missing & ~usable
        made.append(value)
        left.append(missing)
    return torch.cat([torch.stack(made, 1), clean[:, 6:]], 1), torch.cat([torch.stack(left, 1), lost[:, 6:]], 1)


def segments(length: int, fs: float, measured: Delineation) -> Tensor:
    """Weights [B, 3, length] of the segments (up to the QRS, QRS, after it) at each sample; they sum to 1, and fade
    into each other over 20 ms."""
    on, off, end = (torch.nan_to_num(getattr(measured, name), nan=usual) for name, usual in _USUAL_MS.items())
    time = torch.arange(length, device=on.device) * (1000.0 / fs)
    beats = torch.where(measured.r_samples >= 0, measured.r_samples * (1000.0 / fs), torch.nan)  # [B, K]
    since = time - beats.unsqueeze(-1)  # [B, K, T], NaN where there is no beat
    ago = torch.where(since >= 0, since, torch.inf).amin(1)
    ahead = torch.where(since < 0, since, -torch.inf).amax(1)  # negative: ms until the next R
    on, off, end = on.unsqueeze(-1), off.unsqueeze(-1), end.unsqueeze(-1)
    qrs = (ago <= off + AROUND_QRS_MS) | (ahead >= on - AROUND_QRS_MS)
    before = ~qrs & (ahead >= on - BEFORE_P_MS) & (ago > end)
    weight = torch.stack([before, qrs, ~qrs & ~before], 1).to(torch.float32)
    width = 2 * max(1, round(FADE_MS / 2000.0 * fs)) + 1
    return F.avg_pool1d(weight, width, 1, width // 2, count_include_pad=False)


def _coefficients(moments: Tensor, whole: Tensor) -> Tensor:
    """[B, 3, 8, 8]: column m is the regression of lead m on the whole leads [B, 8], zero for the others."""
    mask = whole.to(moments.dtype)[:, None, :, None]
    both = mask * mask.transpose(-1, -2)
    power = (torch.diagonal(moments, dim1=-2, dim2=-1) * mask[..., 0]).sum(-1) / mask[..., 0].sum(-1)
    ridge = (RIDGE * power[..., None] + 1e-9).unsqueeze(-1) * torch.eye(8, device=moments.device)
    square = both * moments + ridge + torch.diag_embed((1 - mask[..., 0]).expand(-1, moments.shape[1], -1))
    return torch.linalg.solve(square, mask * moments)


def reconstruct(leads: Tensor, lost: Tensor, weight: Tensor, fs: float) -> tuple[Tensor, Tensor]:
    """Every lead [B, 8, T] mV as the whole leads say it, and the correlation to be expected of it [B, 8].

    Args:
        leads: [B, 8, T] mV with 0 where lost. lost: bool [B, 8, T]. weight: [B, 3, T], see `segments`.
    """
    whole = ~lost.any(-1)
    there = (~lost).to(leads.dtype)
    level = torch.where(lost, torch.nan, leads).nanmedian(-1, keepdim=True).values.nan_to_num(0.0)
    x = (leads - level) * there
    parts = weight.unsqueeze(2) * x.unsqueeze(1)  # [B, 3, 8, T]
    own = torch.einsum("bsct,bdt->bscd", parts, x)
    seen = torch.einsum("bst,bct,bdt->bscd", weight, there, there)
    population = _moments().to(leads).expand(leads.shape[0], -1, -1, -1)
    mask = whole.to(leads.dtype)[:, None, :]

    def power(moment: Tensor) -> Tensor:
        return (torch.diagonal(moment, dim1=-2, dim2=-1) * mask).sum(-1)[..., None, None]

    scale = power(own / seen.clamp_min(1.0)) / power(population).clamp_min(1e-9)
    prior = PRIOR_S * fs
    mixed = (prior * scale * population + own) / (prior + seen)
    told = (there.sum(-1) >= OWN_S * fs)[:, None, None, :]  # of the lead to be made
    usual = _coefficients(population, whole)
    coefficients = torch.where(told, _coefficients(mixed, whole), usual)
    made = torch.einsum("bst,bscm,bct->bmt", weight, coefficients, x * whole.unsqueeze(-1).to(x))
    explained = torch.einsum("bscm,scm->bsm", usual, population[0]).sum(1)
    total = torch.diagonal(population[0], dim1=-2, dim2=-1).sum(0)
    expected = (explained / total).clamp(0, 1).sqrt()
    return made + torch.where(told[:, 0, 0, :, None], level, torch.zeros_like(level)), expected


def repair_leads(ecg_mv: Tensor, sampling_rate_hz: float = 500.0) -> RepairedLeads:
    """Recordings with lost leads or stretches made whole.

    Args:
        ecg_mv: [B, 12, T] mV, standard order, or [B, 8, T] (I, II, V1-V6); NaN where nothing was recorded. At least
            4 s.

    Raises:
        ValueError: a shape, rate or length that `delineate` cannot serve, or a row with fewer than two whole leads.
    """
    measured = delineate(ecg_mv, sampling_rate_hz)  # lost leads are left out there; it checks the arguments
    ecg = ecg_mv.to(torch.float32)
    leads, lost = _independent(ecg, float(sampling_rate_hz))
    whole = ~lost.any(-1)
    few = (whole.sum(-1) < FEWEST_WHOLE).nonzero().flatten().tolist()
    if few:
        names = [name for name, good in zip(INDEPENDENT_LEADS, whole[few[0]].tolist(), strict=True) if good]
        raise ValueError(
            f"ECG {few[0]} of {len(ecg)} has {len(names)} whole lead(s) of I, II, V1-V6 ({', '.join(names) or 'none'})"
            f"; at least {FEWEST_WHOLE} without gaps are needed: give another recording, or a stretch without gaps"
        )
    made, expected = reconstruct(
        leads, lost, segments(ecg.shape[-1], float(sampling_rate_hz), measured), sampling_rate_hz
    )
    eight = torch.where(lost, made, leads)
    one, two = eight[:, 0], eight[:, 1]
    limb = torch.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], 1)
    full = torch.cat([limb, eight[:, 2:]], 1)
    if ecg.shape[1] == 12:
        intact = ~_lost(ecg, float(sampling_rate_hz)).any(-1).any(-1)
        full = torch.where(intact[:, None, None], ecg, full)
    share = lost.to(torch.float32).mean(-1)
    return RepairedLeads(full, ~whole, share, torch.where(whole, torch.ones_like(share), expected))


def warnings_of(repaired: RepairedLeads, row: int = 0) -> list[str]:
    """What a report must say of a row: each lead that was made, how much of it, and how far it is to be trusted."""
    told = []
    for i, name in enumerate(INDEPENDENT_LEADS):
        if bool(repaired.reconstructed[row, i]):
            told.append(
                f"lead {name}: {float(repaired.share[row, i]):.0%} reconstructed from the other leads (expected "
                f"correlation {float(repaired.expected_r[row, i]):.2f}); it is no measurement"
            )
    return told
