"""Bounds of waves as a reader marks them: each of the twelve leads by itself, then the median over the leads.

A bound that the leads vote on does not follow one lead: not the fibrillation that fills V1, not a pacing spike seen in
three leads, not a T wave so small that its end is noise. Of one lead alone it is that lead's own bound.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.search import crossing, highest

__all__ = ["QRS_RUNGS", "VOTE_RUNGS", "qrs_votes", "twelve", "wave_votes"]

VOTE_RUNGS = (0.45, 0.35, 0.25, 0.18)  # of the steepest slope of a lead's P or T
QRS_RUNGS = (0.06, 0.2)  # of the steepest slope of a lead's QRS
_FAST = 0.3  # of the steepest slope of a lead's QRS; nothing but the QRS is as fast
_VOTE_SHARE = 0.15  # of the largest lead's wave, under which a lead has no vote


def twelve(x: Tensor) -> Tensor:
    """Leads I, II, V1-V6 [B, 8, L] with III, aVR (its sign turned), aVL and aVF behind, [B, 12, L]."""
    one, two = x[:, 0:1], x[:, 1:2]
    return torch.cat([x, two - one, 0.5 * (one + two), one - 0.5 * two, two - 0.5 * one], 1)


def _voters(usable: Tensor) -> Tensor:
    both = usable[:, :1] & usable[:, 1:2]
    return torch.cat([usable, both.expand(-1, 4)], 1)


def _median(each: Tensor, votes: Tensor, otherwise: Tensor) -> Tensor:
    """Median of each [B, 12] over the leads that vote; `otherwise` [B] where none does."""
    low = torch.where(votes, each, torch.full_like(each, torch.inf)).sort(-1).values
    n = votes.sum(-1, keepdim=True)
    middle = 0.5 * (low.gather(-1, ((n - 1) // 2).clamp_min(0)) + low.gather(-1, n // 2 % each.shape[-1]))
    return torch.where(n.squeeze(-1) > 0, middle.squeeze(-1), otherwise)


def qrs_votes(slope: Tensor, usable: Tensor, near: tuple[int, int], hold: int) -> tuple[Tensor, Tensor]:
    """Onset and offset of the QRS, each [B, len(QRS_RUNGS)] in samples.

    Args:
        slope: [B, 8, L] of the beat, L no longer than the stretch in which the QRS may lie.
        usable: [B, 8] bool.
        near: first and last sample between which each lead's steepest place is sought.
        hold: a bound is where a lead's slope stays low for 2 * hold + 1 samples.
    """
    votes = _voters(usable)
    size = twelve(slope).abs()
    b, c, n = size.shape
    steepest, at = size[..., near[0] : near[1]].max(-1)
    # The offset is sought from the last fast place on: a lead may rest in the middle of its QRS.
    fast = size[..., near[0] : near[1]] > _FAST * steepest.unsqueeze(-1)
    last = torch.where(fast, torch.arange(near[0], near[1], device=size.device), torch.zeros_like(at[..., None]))
    start = {-1: (at + near[0]).reshape(-1), 1: last.amax(-1).reshape(-1)}
    held = F.max_pool1d(size, 2 * hold + 1, 1, hold).reshape(b * c, n)
    votes = votes & (steepest > 0)
    middle = torch.full_like(steepest[:, 0], 0.5 * (near[0] + near[1]))

    def bound(rung: float, side: int) -> Tensor:
        each = crossing(held, (rung * steepest).reshape(-1), start[side], side).reshape(b, c) - side * hold
        return _median(each, votes, middle)

    onset, offset = (torch.stack([bound(r, side) for r in QRS_RUNGS], -1) for side in (-1, 1))
    return onset, offset


def wave_votes(slope: Tensor, hump: Tensor, usable: Tensor, peak: Tensor, reach: int, end: Tensor, side: int) -> Tensor:
    """Bound of P (its onset, side -1) or T (its end, side +1), [B, len(VOTE_RUNGS)] in samples.

    slope and hump: [B, 8, L]. A lead's peak is sought within `reach` of `peak` [B], its steepest place
    between there and `end` [B]. Leads in which the wave is small against the largest have no vote.
    """
    slope, hump = twelve(slope), twelve(hump)
    usable = _voters(usable)
    b, c, n = slope.shape
    time = torch.arange(n, device=slope.device)
    close = (time >= (peak - reach).unsqueeze(-1)) & (time <= (peak + reach).unsqueeze(-1))
    size, own = torch.where(close.unsqueeze(1), hump.abs(), torch.full_like(hump, -1.0)).max(-1)
    sign = torch.sign(hump.gather(-1, own.unsqueeze(-1)))
    fall = (-side * sign * slope).reshape(b * c, n)
    own, end = own.reshape(-1), end.to(own.dtype).repeat_interleave(c)
    far = torch.maximum(end, own + 30) if side > 0 else torch.minimum(end, own - 15)
    steepest, at = highest(fall, own, far) if side > 0 else highest(fall, far, own)
    votes = usable & (size >= _VOTE_SHARE * torch.where(usable, size, torch.zeros_like(size)).amax(-1, keepdim=True))
    bounds = [crossing(fall, r * steepest, at, side).reshape(b, c) for r in VOTE_RUNGS]
    return torch.stack([_median(each, votes, peak) for each in bounds], -1)
