"""Draw an ECG whose T wave measures what is asked: amplitude, asymmetry, flatness, ERD_30, LRD_30, its peak and end.

`shape_t_wave` gives the `TShape` with which `waveform.synthesise_ecg` draws such an ECG. A bend is guessed (`t_start`),
read (`t_reader`), guessed again with what was missed asked for in addition; where that is not enough, its slopes are
found by damped least squares (Levenberg 1944, doi 10.1090/qam/10666). Besides the five measures stand the T peak and
the T end that the delineator would mark, whose smoothing moves a skewed wave's peak to its slower side. Not all of
these go together; what cannot be had is approached, each miss in its `SCALE`, and of equally good bends the one that
bends least is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg import t_start
from world_models.ecg.morphology import solve
from world_models.ecg.t_bend import TShape, own_st_t
from world_models.ecg.t_reader import (
    FREE,
    Beats,
    Marks,
    beats_of,
    free_of,
    free_shape,
    marks_of,
    read_bent,
    unevenness,
)
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import R_SHARE, WAVES, Intervals
from world_models.tree import rows_of

__all__ = ["QUICK", "SCALE", "Marks", "Search", "begun", "bend_for", "cost", "marks_of", "own_wave", "posed"]
__all__ += ["search_begun", "search_round", "shape_t_wave"]

# A miss of this size counts as one: asymmetry, flatness, ERD_30, LRD_30, T peak and T end as delineated, ms.
SCALE = (0.015, 0.006, 0.8, 0.8, 0.35, 0.35)
_CALM, _EVEN = 0.06, 0.7  # weights of a slope's logarithm and of its change from knot to knot, beside the misses
# Squared misses (their sum) under which a beat is not bent at all; guesses, and the units in which they are put right,
# in SCALE's order; then rounds of the search, and squared misses under which a beat is left as it is.
_AS_IT_IS, _GUESSES, _ASK_LARGEST = 1.0, 3, 8.0
_ASK_UNITS = (0.02, 0.01, 1.5, 1.5, 1.0, 1.5)
QUICK, _CAREFUL = (10, 20.0), ((4, 9.0), (8, 9.0), (12, 12.0))
_HOPE = 0.7  # of a stage: the share of a beat's cost that is left where it was worth while
_FAR, _UNREADABLE = 60.0, 20.0  # no miss counts for more; a wave off which a measure cannot be read counts for this
_GAINS = (0.01, 100.0)
_STEP = 0.03  # of the finite differences
_DAMPING = (0.3, 0.2, 10.0)  # at first, its factor after a round that was better, and after one that was not
_LIMIT, _LARGEST = 2.5, 1.2  # of the logarithms, and of their change in one round
_ROWS, _SLOPE_ROWS = 512, 64  # ECGs solved at once, and their slopes: as many as stay near the cache
_ST = WAVES.index("ST")


class Search(NamedTuple):
    """Where the search stands; B rows."""

    x: Tensor  # [B, FREE]
    gain: Tensor  # [B]
    off: Tensor  # [B, M] misses in their SCALE, then what bending costs
    height_mv: Tensor  # [B] the amplitude that is read


def _misses(beats: Beats, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    read, height = read_bent(beats, free_shape(x, gain))
    scale = torch.tensor(SCALE, device=x.device)
    off = torch.nan_to_num((read - beats.target) / scale, nan=_UNREADABLE).clamp(-_FAR, _FAR)
    off = torch.where(beats.target.isfinite(), off, torch.zeros_like(off))
    return torch.cat((off, _EVEN * unevenness(x), _CALM * x), dim=-1), height


def _gain(beats: Beats, gain: Tensor, height_mv: Tensor) -> Tensor:
    wanted = (gain * beats.amplitude_mv / height_mv.clamp_min(1e-6)).clamp(*_GAINS)
    return torch.where(torch.isfinite(wanted), wanted, gain)


def cost(off: Tensor) -> Tensor:
    """Sum [B] of the squares of misses [B, M]."""
    return (off * off).sum(-1)


def _slopes(beats: Beats, at: Search) -> Tensor:
    """How the misses change with each free parameter, [B, FREE, M], by differences."""
    parts = []
    for start in range(0, max(at.x.shape[0], 1), _SLOPE_ROWS):
        rows = slice(start, start + _SLOPE_ROWS)
        parts.append(_slopes_of(Beats(*(v[rows] for v in beats)), Search(*(v[rows] for v in at))))
    return torch.cat(parts)


def _slopes_of(beats: Beats, at: Search) -> Tensor:
    """`_slopes` of few beats, all parameters at once."""
    rows = at.x.shape[0]
    many = Beats(*(v.repeat(FREE, *(1,) * (v.ndim - 1)) for v in beats))
    steps = (torch.eye(FREE, device=at.x.device) * _STEP).repeat_interleave(rows, 0)
    moved, _ = _misses(many, at.x.repeat(FREE, 1) + steps, at.gain.repeat(FREE))
    return (moved.reshape(FREE, rows, -1) - at.off).transpose(0, 1).contiguous() / _STEP


def _rounds(beats: Beats, at: Search, rounds: int) -> Search:
    """Least squares with slopes by differences once, and from then on by what each step taught (Broyden 1965, doi
    10.1090/S0025-5718-1965-0198670-6)."""
    at, slope, damping = search_begun(beats, at)
    for _ in range(rounds):
        at, slope, damping = search_round(beats, at, slope, damping)
    return at


def search_round(beats: Beats, at: Search, slope: Tensor, damping: Tensor) -> tuple[Search, Tensor, Tensor]:
    """One round of damped least squares: where the search stands then, its slopes [B, FREE, M] and its damping [B]."""
    diagonal = torch.eye(FREE, device=at.x.device)
    normal = torch.stack([(slope * slope[:, i : i + 1]).sum(-1) for i in range(FREE)], dim=1)
    right = (slope * at.off.unsqueeze(1)).sum(-1, keepdim=True)
    move = -solve((normal + diagonal * damping[:, None, None]).double(), right.double()).squeeze(-1)
    tried = (at.x + move.to(at.x.dtype).clamp(-_LARGEST, _LARGEST)).clamp(-_LIMIT, _LIMIT)
    off, height = _misses(beats, tried, at.gain)
    step = tried - at.x
    foretold = torch.zeros_like(off)
    for i in range(FREE):
        foretold = foretold + slope[:, i] * step[:, i : i + 1]
    surprise = (off - at.off - foretold).unsqueeze(1)
    slope = slope + surprise * (step / (step * step).sum(-1, keepdim=True).clamp_min(1e-8)).unsqueeze(-1)
    better = (cost(off) < cost(at.off)) & height.isfinite()
    height = torch.where(better, height, at.height_mv)
    x, off = (torch.where(better.unsqueeze(-1), a, b) for a, b in ((tried, at.x), (off, at.off)))
    at = Search(x, _gain(beats, at.gain, height), off, height)
    damping = (damping * torch.where(better, _DAMPING[1], _DAMPING[2])).clamp(1e-3, 1e6)
    return at, slope, damping


def search_begun(beats: Beats, at: Search) -> tuple[Search, Tensor, Tensor]:
    """What the first `search_round` starts from: slopes by differences, and the damping of the beginning."""
    off, height = _misses(beats, at.x, at.gain)
    at = at._replace(off=off, height_mv=height)
    return at, _slopes(beats, at), torch.full_like(at.gain, _DAMPING[0])


def _guessed(beats: Beats, plain: Tensor, height_mv: Tensor) -> Search:
    """The best of some guesses of `t_start`: what a guess misses is asked for in addition.

    In the six measures the guesses nearly do what they are asked: Broyden's method (good update of the inverse, doi
    10.1090/S0025-5718-1965-0198670-6), from the identity, on what is asked. `plain` [B, 6] and `height_mv` [B] are read
    of the unbent wave.
    """
    network = t_start.layers(plain.device)
    form = torch.cat((t_start.asks(plain, beats.drawn), t_start.own_form(beats.channels, beats.drawn)), dim=-1)
    own = t_start.own_part(form, network)
    target = torch.where(beats.target.isfinite(), beats.target, torch.nan_to_num(plain))  # what is open stays as it is
    units = torch.tensor(_ASK_UNITS, device=plain.device)
    inverse = torch.eye(len(SCALE), device=plain.device).expand(plain.shape[0], -1, -1)
    asked, gain = target, _gain(beats, torch.ones_like(height_mv), height_mv)
    x = t_start.guess(t_start.asks(asked, beats.drawn), own, network)
    off, height = _misses(beats, x, gain)
    best = Search(x, _gain(beats, gain, height), off, height)
    miss = _in_units(off, units)
    for _ in range(_GUESSES - 1):
        step = -(inverse * miss.unsqueeze(1)).sum(-1).clamp(-_ASK_LARGEST, _ASK_LARGEST)
        asked = asked + step * units
        gain = _gain(beats, gain, height)
        x = t_start.guess(t_start.asks(asked, beats.drawn), own, network)
        off, height = _misses(beats, x, gain)
        new = _in_units(off, units)
        turned = (inverse * (new - miss).unsqueeze(1)).sum(-1)
        size, along = (step * step).sum(-1, keepdim=True).clamp_min(1e-6), (step * turned).sum(-1, keepdim=True)
        along = torch.where(along.abs() < 0.1 * size, size, along)
        row = (step.unsqueeze(-1) * inverse).sum(1, keepdim=True)
        inverse = inverse + ((step - turned) / along).unsqueeze(-1) * row
        miss = new
        found = Search(x, _gain(beats, gain, height), off, height)
        better = (cost(off[:, : len(SCALE)]) < cost(best.off[:, : len(SCALE)])) & height.isfinite()
        best = _chosen(better, found, best)
    return best


def _in_units(off: Tensor, units: Tensor) -> Tensor:
    """The misses [B, 6] of `_misses` in the units in which guesses are asked for."""
    return off[:, : len(SCALE)] * (torch.tensor(SCALE, device=off.device) / units)


def _chosen(first: Tensor, one: Search, other: Search) -> Search:
    """Rows of `one` where `first` [B] is true, else of `other`."""
    pairs = zip(one, other, strict=True)
    return Search(*(torch.where(first.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in pairs))


def begun(beats: Beats) -> Search:
    """Beats as they are, if they measure what is asked for, else as guessed."""
    rows, device = beats.drawn.shape[0], beats.drawn.device
    x, one = torch.zeros(rows, FREE, device=device), torch.ones(rows, device=device)
    plain, height = read_bent(beats, free_shape(x, one))
    gain = _gain(beats, one, height)
    off, _ = _misses(beats, x, gain)
    at = Search(x, gain, off, height * gain)
    bends = cost(off[:, : len(SCALE)]) > _AS_IT_IS
    left = rows_of(bends)
    if not len(left):
        return at
    guessed = _guessed(_of(beats, left), plain[left], height[left])
    found = _chosen(bends[left], guessed, Search(*(v[left] for v in at)))
    return Search(*(v.index_copy(0, left, new) for v, new in zip(at, found, strict=True)))


def _of(beats: Beats, rows: Tensor | slice) -> Beats:
    return Beats(*(v[rows] for v in beats))


def _in_blocks(work: Callable[[Tensor], Search], rows: Tensor) -> Search:
    """`work` on the rows [N], so many at once as stay near the cache."""
    parts = [work(some) for some in rows.split(_ROWS)] or [work(rows)]
    return Search(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _improved(beats: Beats, at: Search, rows: Tensor, rounds: int) -> Search:
    found = _in_blocks(lambda some: _rounds(_of(beats, some), Search(*(v[some] for v in at)), rounds), rows)
    return Search(*(v.index_copy(0, rows, new) for v, new in zip(at, found, strict=True)))


def _solve(beats: Beats, careful: Tensor) -> TShape:
    every = torch.arange(beats.drawn.shape[0], device=beats.drawn.device)
    at = _in_blocks(lambda some: begun(_of(beats, some)), every)
    for left, stages in ((every[careful], _CAREFUL), (every[~careful], (QUICK,))):
        for rounds, done in stages:
            left = left[cost(at.off[left, : len(SCALE)]) > done]
            if not len(left):
                break
            before = cost(at.off[left])
            at = _improved(beats, at, left, rounds)
            left = left[cost(at.off[left]) < _HOPE * before]  # what hardly comes nearer cannot be had
    return free_shape(at.x, at.gain)


def posed(
    intervals: Intervals, morphology: Tensor | None, wanted: TWave, residual: Tensor | None, marks: Marks
) -> Beats:
    """What is to be bent, and what for; see `shape_t_wave`."""
    drawn = torch.stack(((1.0 - R_SHARE) * intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms), dim=-1).to(
        torch.float32
    )
    own = own_st_t(None if morphology is None else morphology[..., _ST : _ST + 3].to(torch.float32), residual)
    asked = [x.to(torch.float32) for x in wanted]
    peak = torch.zeros_like(marks.t_peak)
    target = torch.stack((asked[1], asked[2], asked[3], asked[4], peak, marks.t_end - marks.t_peak), dim=-1)
    return beats_of(own, drawn, marks, target, asked[0] * 1e-3)


def shape_t_wave(
    intervals: Intervals,
    morphology: Tensor | None,
    wanted: TWave,
    residual: Tensor | None = None,
    marks: Marks | None = None,
    careful: Tensor | None = None,
) -> TShape:
    """The shape [B] with which ECGs of these intervals and wave heights [B, 8, W] measure the T wave wanted.

    Args:
        intervals: with which it will be drawn.
        morphology: wave heights [B, 8, W] in mV; None: the residual is the beat.
        wanted: a NaN leaves that measure open.
        residual: [B, 8, 200] mV of a recorded beat on the canonical axis (`beat_axis`), drawn along.
        marks: where J point, T peak and T end are to be read; by default where the intervals put them.
        careful: bool [B]: whose shape is searched for long, at up to four times the cost, as recorded beats need when
            another's T wave is asked of them; by default those with a residual.

    Raises:
        ValueError: an amplitude, a duration or a flatness wanted is not above 0, or an asymmetry is under 0.
    """
    for name, value in zip(TWave._fields, wanted, strict=True):
        if bool((value < 0).any()) or (name != "asymmetry" and bool((value == 0).any())):
            raise ValueError(f"{name} wanted from {float(value.min()):g} must be above 0")
    marks = marks_of(intervals) if marks is None else marks
    if careful is None:
        own = None if residual is None else (residual != 0).flatten(1).any(-1)
        careful = torch.zeros_like(marks.t_peak, dtype=torch.bool) if own is None else own
    return _solve(posed(intervals, morphology, wanted, residual, marks), careful)


def own_wave(intervals: Intervals, residual: Tensor) -> TWave:
    """What the T waves of beats [B, 8, 200] that are all residual measure as they are, where the intervals put them."""
    open_ = TWave(*(torch.full_like(intervals.jt_peak_ms, torch.nan) for _ in TWave._fields))
    beats = posed(intervals, None, open_, residual, marks_of(intervals))
    one = torch.ones_like(intervals.jt_peak_ms, dtype=torch.float32)
    read, height_mv = read_bent(beats, free_shape(one.new_zeros(len(one), FREE), one))
    return TWave(height_mv * 1e3, *read[:, :4].unbind(-1))


def bend_for(intervals: Intervals, residual: Tensor, wanted: TWave) -> TShape:
    """As `shape_t_wave` of beats [B, 8, 200] that are all residual, with gradients with respect to `wanted`.

    The search is not differentiated. Where it ends the bend follows what is wanted by the inverse of how the measures
    follow the bend, in the least squares that the search solves.
    """
    with torch.no_grad():
        shape = shape_t_wave(intervals, None, wanted, residual)
        beats = posed(intervals, None, wanted, residual, marks_of(intervals))
        x = free_of(shape)
        off, height = _misses(beats, x, shape.gain)
        slope = torch.nan_to_num(_slopes(beats, Search(x, shape.gain, off, height)))
        normal = (slope.unsqueeze(1) * slope.unsqueeze(2)).sum(-1)
        damped = (normal + _DAMPING[0] * torch.eye(FREE, device=x.device)).double()
        follows = solve(damped, slope[..., : len(SCALE)].double()).to(x.dtype)  # [B, FREE, 6]
    asked = torch.stack((wanted.asymmetry, wanted.flatness, wanted.erd_30_ms, wanted.lrd_30_ms), dim=-1)
    change = torch.where(asked.isnan(), 0.0, asked - asked.detach()) / torch.tensor(SCALE[:4], device=x.device)
    x = x + (follows[..., :4] * change.unsqueeze(1)).sum(-1)
    amplitude = torch.where(wanted.amplitude_uv.isnan(), 1.0, wanted.amplitude_uv)  # what is left open pulls at nothing
    return free_shape(x, shape.gain * (amplitude / amplitude.detach()))
