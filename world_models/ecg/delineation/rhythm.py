"""RR intervals of a batch of recordings: the heart rate, the beats QT is read on and the RR before them, ectopic beats.

The heart rate counts every beat. QT belongs to the beat it is read on and follows the RR interval before it, so it is
corrected by the RR before the normal beats, premature ones and the pauses after them left out where others are there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MEMBER", "RhythmFindings", "early", "masked_mean", "masked_median", "rhythm_of"]

MEMBER = 0.85  # correlation with the template from which a beat counts as one of the dominant kind
_CROWDED = 0.85  # RR intervals under this share of the lower third's are too few to show in the median beat
_PREMATURE = 0.85  # a beat after less than this share of the median RR starts on the last beat's T wave
_ECTOPIC_RR = 0.8  # after less than this share of the median RR it is called premature; sinus arrhythmia stays above
_EARLY = 2 / 3  # an RR interval a third shorter than both its neighbours is early whatever the median, as in bigeminy
_ODD, _ODD_RR = 0.7, 0.9  # correlation under which a beat is of another kind; under MEMBER it has to be early as well
_ODD_EDGE_S = 0.25  # so near the recording's ends the filters bend the shape
_PAUSE = 1.6  # an RR interval over that many medians lets a beat drop; the median beat is that of the others
_FEW = 3  # beats under which a stricter choice is not made


class RhythmFindings(NamedTuple):
    """Of at most K beats a recording."""

    member: Tensor  # [B, K] bool: of the dominant kind and undisturbed, so part of the median beat
    ectopic: Tensor  # [B, K] bool: premature, or of another shape
    rr_ms: Tensor  # [B] mean RR interval of all beats; NaN under two beats, like the others
    usual_rr_ms: Tensor  # [B] the same without intervals far from the median
    before_rr_ms: Tensor  # [B] mean RR interval that ends at a member in time, from a member where there are such
    shortest_ms: Tensor  # [B] shortest usual RR after a member: beyond it the median beat holds the next QRS
    scatter: Tensor  # [B] median absolute RR difference over the usual RR; NaN under three beats


def masked_median(x: Tensor, mask: Tensor) -> Tensor:
    """Median along the last dim over `mask`; NaN where the mask is empty."""
    x = torch.where(mask, x, torch.full_like(x, torch.inf)).sort(-1).values
    n = mask.sum(-1, keepdim=True)
    low = x.gather(-1, ((n - 1) // 2).clamp_min(0))
    high = x.gather(-1, (n // 2).clamp_max(x.shape[-1] - 1))
    return torch.where(n > 0, 0.5 * (low + high), torch.full_like(low, torch.nan)).squeeze(-1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean along the last dim over `mask`; NaN where the mask is empty."""
    return torch.where(mask, x, torch.zeros_like(x)).sum(-1) / mask.sum(-1)


def early(position: Tensor, real: Tensor) -> Tensor:
    """Beats [B, K] after an RR interval far shorter than those before and after it (of those that are there)."""
    if position.shape[1] < 3:
        return torch.zeros_like(real)
    both = real[:, 1:] & real[:, :-1]
    rr = torch.where(both, position[:, 1:] - position[:, :-1], torch.full_like(position[:, 1:], torch.inf))
    around = torch.minimum(F.pad(rr[:, 1:], (0, 1), value=torch.inf), F.pad(rr[:, :-1], (1, 0), value=torch.inf))
    return F.pad(both & (rr < _EARLY * around) & around.isfinite(), (1, 0))


def rhythm_of(
    position: Tensor, real: Tensor, member: Tensor, correlation: Tensor, fs: float, samples: int
) -> RhythmFindings:
    """The rhythm of beats at `position` [B, K] (in samples at `fs`, in order of time, the `real` ones first).

    Args:
        member: [B, K] bool, beats of the dominant shape.
        correlation: [B, K] with that shape.
        samples: length of the recordings.
    """
    both = real[:, 1:] & real[:, :-1]
    rr = torch.where(both, position[:, 1:] - position[:, :-1], torch.zeros_like(position[:, 1:])) * (1000 / fs)
    if rr.shape[1] == 0:
        return RhythmFindings(member, torch.zeros_like(member), *[torch.full_like(position[:, 0], torch.nan)] * 5)
    middle = masked_median(rr, both)
    usual = masked_mean(rr, both & (rr > 0.6 * middle[:, None]) & (rr < _PAUSE * middle[:, None]))
    scatter = masked_median((rr - middle[:, None]).abs(), both) / usual
    before_time = early(position, real)

    # Beats that have their T wave to themselves; in bigeminy there are none, and those that are not early serve.
    short = both & (rr < _PREMATURE * middle[:, None])
    in_time = member & ~before_time
    calm = in_time & ~F.pad(short, (1, 0)) & ~F.pad(short, (0, 1))
    ectopic = real & (before_time | _ectopic(rr / middle[:, None], both, position, correlation, fs, samples))
    for better in (in_time & before_time.any(-1, keepdim=True), calm):
        member = torch.where(better.sum(-1, keepdim=True) >= _FEW, better, member)

    ends = both & member[:, 1:]
    paused = both & (rr > _PAUSE * middle[:, None])
    for better in (ends & ~short, ends & ~short & member[:, :-1], ends & ~short & member[:, :-1] & ~paused):
        ends = torch.where(better.any(-1, keepdim=True), better, ends)
    before = masked_mean(rr, ends)
    # The median beat shows a next QRS only where a good part of its beats have one by then: a single false or early
    # beat, far before a third of them, does not close the search for T.
    followed = both & member[:, :-1]
    after = torch.where(followed, rr, torch.full_like(rr, torch.inf)).sort(-1).values
    third = after.gather(-1, followed.sum(-1, keepdim=True).clamp_max(after.shape[-1] - 1) // 3)
    after = torch.where(after >= _CROWDED * third, after, torch.full_like(after, torch.inf)).amin(-1)
    return RhythmFindings(
        member=member,
        ectopic=ectopic,
        rr_ms=masked_mean(rr, both),
        usual_rr_ms=usual,
        before_rr_ms=torch.where(before.isnan(), usual, before),
        shortest_ms=torch.minimum(after, usual),
        scatter=scatter,
    )


def _ectopic(share: Tensor, both: Tensor, position: Tensor, correlation: Tensor, fs: float, samples: int) -> Tensor:
    """Beats [B, K] that come early or look different; share: RR intervals [B, K - 1] over their median."""
    share = F.pad(torch.where(both, share, torch.ones_like(share)), (1, 0), value=1.0)
    edge = _ODD_EDGE_S * fs
    whole = (position > edge) & (position < samples - edge)
    odd = (correlation < _ODD) | ((correlation < MEMBER) & (share < _ODD_RR))
    return (share < _ECTOPIC_RR) | (whole & odd)
