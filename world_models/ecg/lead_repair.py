"""Leads that are missing, flat or broken, made again from the others.

The eight independent leads of a beat, cut at its marks and stretched onto one time axis, are taken for normal: a mean
beat, components that span leads and time (as probabilistic principal components have them: Tipping 1999,
doi 10.1111/1467-9868.00196), and what those leave over, white in time and correlated between leads, wave by wave. Any
subset of leads then says by the rules of conditioning what the others look like, without a model for each subset. The
median beat tells the components; what each single beat, premature ones too, differs by from the median goes to the
lost leads by the leads' covariance alone (the regression between leads that is usual: Nelwan 2004, PMID 15534848).

A beat is first scaled to its own size. The fit and its provenance: `lead_repair_fit`, `lead_repair.json`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.beats import INNER_HZ, FoundBeats, condition, find_beats
from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.delineation.waves import BEFORE
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
from world_models.ecg.waveform import p_duration_ms

__all__ = [
    "AXIS",
    "LEAST_GOOD",
    "MODEL_FILE",
    "WAVES",
    "LeadModel",
    "Repaired",
    "axis_beats",
    "load_lead_model",
    "lost_leads",
    "rebuild_beats",
    "repair_leads",
    "twelve_leads",
]

MODEL_FILE = Path(__file__).with_name("lead_repair.safetensors")
LEAST_GOOD = 2  # leads: of one alone nothing is known of the heart vector's direction
# Samples of the time axis: before P, P, PR segment, QRS, J point to T peak, T peak to T end, after T.
WAVES = (8, 32, 16, 48, 48, 32, 16)
AXIS = sum(WAVES)
_QRS_START = sum(WAVES[:3])
_FLAT_MV = 0.005  # peak to peak: the resolution of a 12-bit recorder
_LEAST_MV = 1e-3  # root mean square of a beat below which its size means nothing
_FADE = 21  # samples (42 ms) over which a beat's template and covariances pass into the next stretch's
# What stands in for an interval that the ECG does not have (no P wave, say): a resting adult's, ms.
_TYPICAL_MS = {"pr_ms": 160.0, "qrs_ms": 95.0, "jt_peak_ms": 220.0, "tpeak_tend_ms": 85.0, "qrs_onset_ms": -40.0}
_INDEPENDENT = [LEADS.index(name) for name in INDEPENDENT_LEADS]


class LeadModel(NamedTuple):
    """The normal law of a beat scaled to a root mean square of 1 over all leads and the axis. Float64."""

    mean: Tensor  # [8, AXIS]
    components: Tensor  # [R, 8, AXIS], each times its standard deviation
    left: Tensor  # [len(WAVES), 8, 8] covariance between leads of what the components leave, wave by wave
    whole: Tensor  # [8, 8] second moment between leads over the whole axis: for beats of unknown kind
    temper: Tensor  # scalar: how many neighbouring samples say the same, so that the components are not overrated


class Repaired(NamedTuple):
    """An ECG whose lost leads were made from the others."""

    ecg_mv: Tensor  # [B, 12, T]; leads that were not lost as they came
    lost: Tensor  # [B, 8] bool: which of I, II, V1-V6 were made


@lru_cache(maxsize=4)
def load_lead_model(path: Path = MODEL_FILE) -> LeadModel:
    """The shipped model, or one that `lead_repair_fit` made.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds another axis or other leads.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no lead model at {path}; make one with python -m world_models.ecg.lead_repair_fit")
    held = load_file(str(path))
    shape = (len(INDEPENDENT_LEADS), AXIS)
    if set(held) != set(LeadModel._fields) or tuple(held["mean"].shape) != shape:
        raise ValueError(f"{path} is no model of {shape[0]} leads on {shape[1]} samples; fit it again")
    return LeadModel(**{name: held[name].to(torch.float64) for name in LeadModel._fields})


def lost_leads(eight_mv: Tensor) -> Tensor:
    """Which leads of [B, 8, T] at 500 Hz carry nothing, [B, 8] bool: flat, railed, or over 2 % not finite."""
    _, _, usable = condition(eight_mv.to(torch.float32), INNER_HZ)
    clean = torch.nan_to_num(eight_mv, nan=0.0, posinf=0.0, neginf=0.0)
    return ~usable | (clean.amax(-1) - clean.amin(-1) < _FLAT_MV)


def twelve_leads(eight_mv: Tensor) -> Tensor:
    """[B, 12, T] in standard order of I, II, V1-V6 [B, 8, T] (Einthoven, Goldberger)."""
    one, two = eight_mv[:, 0], eight_mv[:, 1]
    limb = torch.stack([one, two, two - one, -0.5 * (one + two), one - 0.5 * two, two - 0.5 * one], 1)
    return torch.cat([limb, eight_mv[:, 2:]], 1)


def _ends(marks: Delineation) -> Tensor:
    """Ends of the pieces in ms from the QRS onset, [B, 8]."""
    pr, qrs, jt, tail = (
        torch.nan_to_num(getattr(marks, n), nan=_TYPICAL_MS[n])
        for n in ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
    )
    p, zero = p_duration_ms(pr), torch.zeros_like(pr)
    end = qrs + jt + tail
    return torch.stack([-pr - 0.5 * p, -pr, p - pr, zero, qrs, qrs + jt, end, end + tail], -1)


def _onset_ms(marks: Delineation) -> Tensor:
    return torch.nan_to_num(marks.qrs_onset_ms, nan=_TYPICAL_MS["qrs_onset_ms"])


def _read(values: Tensor, place: Tensor) -> Tensor:
    """values [B, C, N] at places [B, M] between samples, linear, held beyond the ends: [B, C, M]."""
    place = place.clamp(0, values.shape[-1] - 1.001)
    left = place.floor()
    index = left.long().unsqueeze(1).expand(-1, values.shape[1], -1)
    below = values.gather(-1, index)
    return below + (place - left).unsqueeze(1).to(values.dtype) * (values.gather(-1, index + 1) - below)


def axis_beats(marks: Delineation) -> Tensor:
    """The median beats of delineated ECGs on the model's axis, [B, 8, AXIS] mV, zero just before the QRS."""
    ends = _ends(marks)
    pieces = []
    for k, count in enumerate(WAVES):
        share = torch.arange(count, device=ends.device, dtype=ends.dtype) / count
        pieces.append(ends[:, k : k + 1] + share * (ends[:, k + 1 : k + 2] - ends[:, k : k + 1]))
    time_ms = torch.cat(pieces, -1) + _onset_ms(marks).unsqueeze(-1)
    beat = _read(marks.median_beat, BEFORE + time_ms * (INNER_HZ / 1000.0))
    return beat - beat[..., _QRS_START - 2 : _QRS_START].mean(-1, keepdim=True)


def _inverse(covariance: Tensor, good: Tensor) -> Tensor:
    """Inverse of the good leads' part of [S, 8, 8] for good [B, 8], zero elsewhere: [B, S, 8, 8]."""
    both = (good.unsqueeze(-1) & good.unsqueeze(-2)).unsqueeze(1).to(covariance.dtype)
    alone = torch.diag_embed((~good).to(covariance.dtype)).unsqueeze(1)
    return torch.linalg.inv(covariance * both + alone) * both


def _wave_of(device: torch.device) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(WAVES), device=device), torch.tensor(WAVES, device=device))


def _template(model: LeadModel, beat: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and components at the scores that the good leads of beats [B, 8, AXIS] tell: [B, 8, AXIS] in units of the
    beat's size, and that size [B, 1, 1] in mV."""
    seen = good.to(beat.dtype)
    power = (model.mean.square() + model.components.square().sum(0)).mean(-1)
    expected = ((power * seen).sum(-1) / seen.sum(-1).clamp_min(1) / power.mean()).sqrt()
    size = ((beat.square().mean(-1) * seen).sum(-1) / seen.sum(-1).clamp_min(1)).sqrt() / expected
    size = size.clamp_min(_LEAST_MV)[:, None, None]
    off = (beat / size - model.mean) * seen.unsqueeze(-1)
    inverse = _inverse(model.left, good)[:, _wave_of(beat.device)]  # [B, AXIS, 8, 8]
    weighed = torch.einsum("ros,bsop->brps", model.components, inverse) / model.temper
    precision = torch.einsum("brps,qps->brq", weighed, model.components)
    precision = precision + torch.eye(precision.shape[-1], dtype=beat.dtype, device=beat.device)
    scores = torch.linalg.solve(precision, torch.einsum("brps,bps->br", weighed, off))
    return model.mean + torch.einsum("br,rls->bls", scores, model.components), size


def rebuild_beats(beat_mv: Tensor, good: Tensor, model: LeadModel | None = None) -> Tensor:
    """Beats [B, 8, AXIS] with the leads that are not `good` [B, 8] replaced by their mean given the good ones.

    Raises:
        ValueError: a row with fewer than two good leads.
    """
    _check_enough(good)
    model = _on(model, beat_mv.device)
    beat = torch.where(good.unsqueeze(-1), beat_mv, 0.0).to(torch.float64)
    template, size = _template(model, beat, good)
    left = torch.where(good.unsqueeze(-1), beat / size - template, 0.0)
    onto = torch.einsum("kmo,bkop->bkmp", model.left, _inverse(model.left, good))[:, _wave_of(beat.device)]
    made = (template + torch.einsum("bsmo,bos->bms", onto, left)) * size
    return torch.where(good.unsqueeze(-1), beat_mv, made.to(beat_mv.dtype))


def _on(model: LeadModel | None, device: torch.device) -> LeadModel:
    return LeadModel(*(t.to(device) for t in (load_lead_model() if model is None else model)))


def _check_enough(good: Tensor) -> None:
    few = (good.sum(-1) < LEAST_GOOD).nonzero().flatten().tolist()
    if few:
        there = ", ".join(n for n, g in zip(INDEPENDENT_LEADS, good[few[0]].tolist(), strict=True) if g) or "none"
        raise ValueError(
            f"ECG {few[0]}: of the independent leads {', '.join(INDEPENDENT_LEADS)} only {there} carries a signal; "
            f"at least {LEAST_GOOD} are needed: give a recording with more good leads"
        )


def repair_leads(ecg_mv: Tensor, model: LeadModel | None = None) -> Repaired:
    """Make the lost leads of ECGs [B, 12, T] (or [B, 8, T]: I, II, V1-V6) at 500 Hz, mV, from the good ones.

    Lost is what `lost_leads` says of the eight independent leads. Where I or II is lost, the four leads that follow
    from them are made anew as well, and what stood in their place is not used. Made leads have no baseline wander.

    Raises:
        ValueError: a shape that cannot be served, or a row with fewer than two good leads.
    """
    if ecg_mv.ndim != 3 or ecg_mv.shape[1] not in (8, 12):
        raise ValueError(f"ecg_mv must be [B, 12, T] or [B, 8, T] in mV at 500 Hz, got {tuple(ecg_mv.shape)}")
    eight = ecg_mv[:, _INDEPENDENT] if ecg_mv.shape[1] == 12 else ecg_mv
    lost = lost_leads(eight)
    _check_enough(~lost)
    rows = lost.any(-1).nonzero().flatten()
    whole = ecg_mv if ecg_mv.shape[1] == 12 else twelve_leads(ecg_mv)
    if not len(rows):
        return Repaired(whole, lost)
    with torch.no_grad():
        made = _made(eight[rows], ~lost[rows], _on(model, ecg_mv.device))
    made = torch.where(lost[rows].unsqueeze(-1), made.to(eight.dtype), eight[rows])
    full = twelve_leads(made)
    as_came = (~lost[rows, :2]).all(-1)[:, None, None]
    full[:, 2:6] = torch.where(as_came, whole[rows, 2:6], full[:, 2:6])
    out = whole.clone()
    out[rows] = full
    return Repaired(out, lost)


def _made(eight: Tensor, good: Tensor, model: LeadModel) -> Tensor:
    """All eight leads [B, 8, T] as the good ones tell them."""
    seen = torch.where(good.unsqueeze(-1), eight, torch.full_like(eight, torch.nan)).to(torch.float32)
    leads, velocity, usable = condition(seen, INNER_HZ)
    beats = find_beats(leads, velocity, usable)
    marks = delineate(seen, INNER_HZ)
    template, size = _template(model, axis_beats(marks).to(torch.float64), good)
    place, inside = _places(beats, marks, leads.shape[-1])
    fade = F.avg_pool1d(inside.to(torch.float64).unsqueeze(1), _FADE, 1, _FADE // 2, count_include_pad=False)
    drawn = _read(template * size, place) * fade
    leads = leads.to(torch.float64)
    off = (leads - _levels(leads, beats, marks) - drawn) * good.unsqueeze(-1)
    # Which covariance holds when: each wave's within the beats that the template is of, the whole beat's elsewhere.
    wave = torch.where(inside, _wave_of(place.device)[place.long().clamp(0, AXIS - 1)], len(WAVES))
    when = F.one_hot(wave, len(WAVES) + 1).to(torch.float64).transpose(1, 2)
    when = F.avg_pool1d(when, _FADE, 1, _FADE // 2, count_include_pad=False)
    moments = torch.cat([model.left, model.whole.unsqueeze(0)])
    onto = torch.einsum("kmo,bkop->bkmp", moments, _inverse(moments, good))
    made = drawn
    for k in range(len(WAVES) + 1):
        made = made + when[:, k : k + 1] * (onto[:, k] @ off)
    return made


def _levels(leads: Tensor, beats: FoundBeats, marks: Delineation) -> Tensor:
    """Each lead's level just before the QRS, [B, 8, 1]: the mean over the beats of the usual kind."""
    at = beats.position + ((_onset_ms(marks).unsqueeze(-1) - 6.0) * (INNER_HZ / 1000.0)).round().long()
    use = beats.rhythm.member & (at >= 0) & (at < leads.shape[-1])
    index = at.clamp(0, leads.shape[-1] - 1).unsqueeze(1).expand(-1, leads.shape[1], -1)
    value = leads.gather(-1, index) * use.unsqueeze(1)
    return (value.sum(-1) / use.sum(-1, keepdim=True).clamp_min(1)).unsqueeze(-1)


def _places(beats: FoundBeats, marks: Delineation, length: int) -> tuple[Tensor, Tensor]:
    """Where on the axis each of `length` samples lies, [B, T] float, and whether it lies in a beat of the usual kind.

    A beat begins before its own P wave, so the one before ends there.
    """
    ends, onset = _ends(marks), _onset_ms(marks)
    per_ms = INNER_HZ / 1000.0
    start = beats.position + ((ends[:, :1] + onset.unsqueeze(-1)) * per_ms).round().long()
    start = torch.where(beats.position >= 0, start, torch.full_like(start, length + 1))
    start, order = start.sort(-1)
    time = torch.arange(length, device=ends.device).expand(len(ends), -1)
    which = torch.searchsorted(start.contiguous(), time.contiguous(), right=True) - 1
    taken = order.gather(-1, which.clamp_min(0))
    since = (time - beats.position.gather(-1, taken)) / per_ms - onset.unsqueeze(-1)
    place = torch.zeros(since.shape, dtype=torch.float64, device=ends.device)
    for k, count in enumerate(WAVES):
        width = (ends[:, k + 1 : k + 2] - ends[:, k : k + 1]).clamp_min(1.0)
        place = place + count * ((since - ends[:, k : k + 1]) / width).clamp(0, 1)
    inside = (which >= 0) & (since < ends[:, -1:]) & beats.rhythm.member.gather(-1, taken)
    return place, inside
