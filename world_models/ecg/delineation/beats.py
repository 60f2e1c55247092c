"""Beats of a batch of ECGs: conditioning, R peaks on the spatial velocity, alignment, the median beat.

Everything is a batched tensor operation at 500 Hz inside, whatever the rate of the recording. A lead that holds
non-finite values or nothing at all is left out lead by lead; a row without a usable lead yields no beats.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.rhythm import MEMBER, RhythmFindings, early, rhythm_of

__all__ = ["INNER_HZ", "FoundBeats", "condition", "find_beats", "median_beats", "stack_beats"]

INNER_HZ = 500.0  # rate at which beats are brought together and measured
_SEARCH_HZ = 250.0  # rate of the QRS band, in which beats are found and aligned
_FLAT_SHARE = 0.01  # a lead under this share of the strongest lead's scatter carries nothing
_FLAT_MV = 1e-4
_RAIL_MV = 50.0  # no heart reaches this: a railed or wrongly scaled lead
_MISSING_SHARE = 0.02  # non-finite samples beyond this share make a lead unusable
_REFRACTORY_S = 0.2  # half width within which only the highest velocity counts as a beat
_T_WAVE_S = 0.36  # within this of a peak twice as fast, a peak is a T wave
_WINDOW_S = 0.08  # half width of the QRS window compared between beats
_LAG_S = 0.036  # beats are shifted by at most this to match the template
_EARLY_COUNTS = 0.5  # an early beat as the first template, beside one in time: in bigeminy either kind is the half
_SPIKE_S, _SPIKE_MV, _SPIKE_LEADS = 0.006, 0.25, 4  # half width of the median that a spike stands out of
_SPIKE_STEP_MV = 0.2  # its steepest step from sample to sample
_SPIKE_STEEP, _SPIKE_NOISE = 4.0, 20.0  # times the steepest step nearby without it; times the usual distance
_SEEN_SIZE, _SEEN_SHARE = (
    0.3,
    0.5,
)  # an odd beat shows, at this share of a usual beat's size, in this share of the leads


class FoundBeats(NamedTuple):
    """The beats of B recordings, at most K each, in order of time; places not used have `kept` false."""

    position: Tensor  # [B, K] R peak in samples at 500 Hz, int64; -1 where there is no beat
    correlation: Tensor  # [B, K] with the template in the QRS band, 0 where there is no beat
    rhythm: RhythmFindings


def _raised(f: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, half a cosine between."""
    x = ((f - low) / (high - low)).clamp(0, 1)
    return 0.5 - 0.5 * torch.cos(math.pi * x)


def _eight(ecg: Tensor) -> tuple[Tensor, Tensor]:
    """Leads I, II, V1-V6 [B, 8, T] and which of them can be used [B, 8].

    A missing limb lead is made from the other limb leads (Einthoven, Goldberger) where these are there.
    """
    finite = torch.isfinite(ecg)
    count = finite.sum(-1)
    clean = torch.where(finite, ecg, torch.zeros_like(ecg))
    mean = clean.sum(-1, keepdim=True) / count.clamp_min(1).unsqueeze(-1)
    clean = torch.where(finite, ecg - mean, torch.zeros_like(ecg))
    scatter = clean.square().mean(-1).sqrt()
    peak = clean.abs().amax(-1)
    sound = (count >= (1 - _MISSING_SHARE) * ecg.shape[-1]) & (peak < _RAIL_MV)
    strongest = torch.where(sound, scatter, torch.zeros_like(scatter)).amax(-1, keepdim=True)
    sound &= scatter > (_FLAT_SHARE * strongest).clamp_min(_FLAT_MV)
    if ecg.shape[1] == 8:
        return clean, sound
    i, ii, iii, avr, avl, avf = clean[:, :6].unbind(1)
    s_i, s_ii, s_iii, s_r, s_l, s_f = sound[:, :6].unbind(1)

    def first(options: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        value, good = options[-1]
        for other, usable in reversed(options[:-1]):
            value, good = torch.where(usable.unsqueeze(-1), other, value), usable | good
        return value, good

    lead_i, good_i = first([(i, s_i), (ii - iii, s_ii & s_iii), ((avl - avr) / 1.5, s_l & s_r)])
    lead_ii, good_ii = first([(ii, s_ii), (i + iii, s_i & s_iii), ((avf - avr) / 1.5, s_f & s_r)])
    leads = torch.cat([lead_i.unsqueeze(1), lead_ii.unsqueeze(1), clean[:, 6:]], 1)
    usable = torch.cat([good_i.unsqueeze(1), good_ii.unsqueeze(1), sound[:, 6:]], 1)
    return leads, usable


def _spectrum(leads: Tensor, fs: float) -> tuple[Tensor, Tensor]:
    """Fourier transform of [..., T] after the line through both ends is out (the transform takes the recording as a
    loop: so it closes without a step), and the frequencies in Hz."""
    length = leads.shape[-1]
    edge = max(1, int(0.1 * fs))
    start, stop = leads[..., :edge].mean(-1, keepdim=True), leads[..., -edge:].mean(-1, keepdim=True)
    leads = leads - start - (stop - start) * torch.linspace(0, 1, length, device=leads.device, dtype=leads.dtype)
    spectrum = torch.fft.rfft(leads)
    return spectrum, torch.arange(spectrum.shape[-1], device=leads.device, dtype=leads.dtype) * (fs / length)


def _without_spikes(leads: Tensor, fs: float) -> Tensor:
    """Leads [B, 8, T] with a pacemaker's spikes, a few samples long and in several leads at once, taken out.

    The filters would spread a spike over 20 ms, into the QRS that it starts.
    """
    steps = (leads[..., 1:] - leads[..., :-1]).abs() > _SPIKE_STEP_MV
    rows = (steps.sum(1) >= _SPIKE_LEADS).any(-1)
    if not rows.any():  # as in nearly all recordings: the medians below take half as long as all the rest
        return leads
    out = leads.clone()
    out[rows] = _spikes_out(leads[rows], fs)
    return out


def _spikes_out(leads: Tensor, fs: float) -> Tensor:
    half = max(1, round(_SPIKE_S * fs))
    around = F.pad(leads, (half, half), mode="replicate").unfold(-1, 2 * half + 1, 1)
    calm = around.median(-1).values
    off = (leads - calm).abs()
    steep = F.max_pool1d(F.pad((calm[..., 1:] - calm[..., :-1]).abs(), (1, 0)), 4 * half + 1, 1, 2 * half)
    usual = off.median(-1, keepdim=True).values
    spike = (off > _SPIKE_MV) & (off > _SPIKE_STEEP * steep) & (off > _SPIKE_NOISE * usual)
    spike = (spike.sum(1, keepdim=True) >= _SPIKE_LEADS).to(leads.dtype)
    spike = F.max_pool1d(spike, 2 * half + 1, 1, half) > 0
    return torch.where(spike, calm, leads)


def condition(ecg: Tensor, fs: float) -> tuple[Tensor, Tensor, Tensor]:
    """Resampled leads, QRS-band velocity and lead usability.

    Args:
        ecg: [B, 12, T] in the standard order or [B, 8, T] of I, II, V1-V6, mV.
        fs: sampling rate, Hz.

    Returns:
        leads [B, 8, N] at 500 Hz without the wander below 0.5 Hz, velocity [B, 8, M] in the band 8-30 Hz at 250 Hz,
        usable [B, 8] bool. Leads that are not usable are zero.
    """
    leads, usable = _eight(ecg)
    length = leads.shape[-1]
    leads = _without_spikes(torch.where(usable.unsqueeze(-1), leads, torch.zeros_like(leads)), fs)
    spectrum, f = _spectrum(leads, fs)

    def back(gain: Tensor, rate: float) -> Tensor:
        n = round(length * rate / fs)
        keep = min(spectrum.shape[-1], (n + 1) // 2)
        return torch.fft.irfft(spectrum[..., :keep] * gain[:keep], n=n) * (n / length)

    wide = _raised(f, 0.3, 0.7) * (1 - _raised(f, 90.0, 120.0))
    band = _raised(f, 4.0, 10.0) * (1 - _raised(f, 24.0, 38.0))
    return back(wide, INNER_HZ), back(band * (2j * math.pi * f), _SEARCH_HZ), usable


def _windows(signal: Tensor, start: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """signal [B, C, N], start [B, K] -> windows [B, K, C, length], and which lie inside [B, K]."""
    inside = (start >= 0) & (start + length <= signal.shape[-1])
    at = start.clamp(0, max(0, signal.shape[-1] - length)).unsqueeze(-1) + torch.arange(length, device=start.device)
    at = at.clamp_max(signal.shape[-1] - 1)
    b, k = start.shape
    index = at.reshape(b, 1, k * length).expand(b, signal.shape[1], k * length)
    out = signal.gather(2, index).reshape(b, signal.shape[1], k, length).transpose(1, 2)
    return out, inside


def _peaks(velocity: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Times of the spatial velocity's peaks: index [B, K] at 250 Hz (ascending), and which are beats [B, K]."""
    speed = velocity.square().sum(1)
    width = int(0.06 * _SEARCH_HZ) | 1
    speed = F.avg_pool1d(speed.unsqueeze(1), width, 1, width // 2, count_include_pad=False).clamp_min(0).sqrt()
    b, _, n = speed.shape
    parts = max(2, round(n / (2.0 * _SEARCH_HZ)))
    # The median over two-second stretches of the fastest moment: a burst of noise spoils a stretch, not the level.
    span = n // parts
    level = speed[..., : span * parts].reshape(b, parts, span).amax(-1).sort(-1).values
    level = 0.5 * (level[:, (parts - 1) // 2] + level[:, parts // 2]).unsqueeze(-1)

    def highest(seconds: float) -> Tensor:
        half = int(seconds * _SEARCH_HZ)
        return F.max_pool1d(speed, 2 * half + 1, 1, half).squeeze(1)

    flat = speed.squeeze(1)
    peak = (flat == highest(_REFRACTORY_S)) & (flat > 0.35 * level) & (flat > 0.5 * highest(_T_WAVE_S))
    peak &= usable.any(-1, keepdim=True) & (flat > 0)
    most = math.ceil(n / (_REFRACTORY_S * _SEARCH_HZ)) + 1
    where = torch.where(peak, torch.arange(n, device=flat.device), torch.full_like(flat, n, dtype=torch.int64))
    index = where.topk(min(most, n), dim=-1, largest=False, sorted=True).values
    index = index[:, : max(1, int(peak.sum(-1).max()) if b else 1)]
    return index, index < n


def _normalised(x: Tensor) -> Tensor:
    return x / x.square().sum((-1, -2), keepdim=True).sqrt().clamp_min(1e-12)


def _align(velocity: Tensor, index: Tensor, real: Tensor, leads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shift each beat onto the dominant kind: position [B, K] in (fractional) samples at 250 Hz, correlation, member,
    and whether it is a beat whose QRS lies wholly within the recording. In order of time, beats first.

    leads: [B, 8] bool, the usable ones.
    """
    half, reach = int(_WINDOW_S * _SEARCH_HZ), int(_LAG_S * _SEARCH_HZ)
    width, lags = 2 * half + 1, 2 * reach + 1
    wide, inside = _windows(velocity, index - half - reach, width + 2 * reach)
    usable = real & inside  # a QRS cut by the recording's edge has no R to speak of
    middle = _normalised(wide[..., reach : reach + width]) * usable[..., None, None]
    flat = middle.flatten(2)
    likeness = torch.bmm(flat, flat.transpose(1, 2)).clamp_min(0).square().sum(-1)
    likeness = torch.where(early(index.to(velocity.dtype), usable), _EARLY_COUNTS * likeness, likeness)
    seed = likeness.argmax(-1)
    template = middle[torch.arange(len(seed), device=seed.device), seed]
    power = wide.square().sum(2).unfold(-1, width, 1).sum(-1).clamp_min(1e-24).sqrt()
    shifted = wide.unfold(-1, width, 1)  # [B, K, 8, lags, width], a view
    b, k = index.shape
    for _ in range(3):
        score = torch.einsum("bkclw,bcw->bkl", shifted, template) / power
        best, pick = score.max(-1)
        member = usable & (best >= MEMBER)
        rows = pick[:, :, None, None] + torch.arange(width, device=pick.device)
        taken = wide.gather(-1, rows.expand(b, k, wide.shape[2], width))
        template = _normalised((_normalised(taken) * member[..., None, None]).sum(1))
    left = score.gather(-1, (pick - 1).clamp_min(0).unsqueeze(-1)).squeeze(-1)
    right = score.gather(-1, (pick + 1).clamp_max(lags - 1).unsqueeze(-1)).squeeze(-1)
    bend = (2 * best - left - right).clamp_min(1e-6)
    fine = (0.5 * (right - left) / bend).clamp(-0.5, 0.5)
    position = index + torch.where(usable, pick - reach + fine, torch.zeros_like(fine))
    usable &= member | _seen(wide[..., reach : reach + width], member, leads)
    order = torch.where(usable, index, torch.full_like(index, velocity.shape[-1])).argsort(dim=-1, stable=True)
    best = torch.where(usable, best, torch.zeros_like(best))
    return position.gather(1, order), best.gather(1, order), member.gather(1, order), usable.gather(1, order)


def _seen(windows: Tensor, member: Tensor, leads: Tensor) -> Tensor:
    """Whether each window [B, K, 8, W] of the QRS-band velocity holds a beat: the heart shows in most leads, an
    electrode that moves in one or two."""
    power = windows.square().sum(-1)
    count = member.sum(-1)[:, None, None]
    usual = (power * member.unsqueeze(-1)).sum(1, keepdim=True) / count.clamp_min(1)
    shows = (power > _SEEN_SIZE**2 * usual) & leads.unsqueeze(1)
    return (shows.sum(-1) >= _SEEN_SHARE * leads.sum(-1, keepdim=True)) | (count[..., 0] == 0)


def _centred(a: Tensor) -> Tensor:
    return a - a.mean(-1, keepdim=True)


def find_beats(leads: Tensor, velocity: Tensor, usable: Tensor) -> FoundBeats:
    """R peaks of conditioned recordings (see `condition`), aligned by correlation, ectopic kinds marked off."""
    index, real = _peaks(velocity, usable)
    position, correlation, member, real = _align(velocity, index, real, usable)
    position = position * (INNER_HZ / _SEARCH_HZ)
    rhythm = rhythm_of(position, real, member, correlation, INNER_HZ, leads.shape[-1])
    member = rhythm.member
    # R itself: the largest vector of the mean aligned beat within the QRS, so that it falls on the R wave.
    half = int(0.06 * INNER_HZ)
    start = position.round().long() - half
    window, inside = _windows(leads, start, 2 * half + 1)
    weight = (member & inside).to(window.dtype)
    mean_beat = (window * weight[..., None, None]).sum(1) / weight.sum(-1).clamp_min(1)[:, None, None]
    size = _centred(mean_beat).square().sum(1)
    offset = size.argmax(-1) - half
    position = (position + offset[:, None]).round().long()
    real = real & (position >= 0) & (position < leads.shape[-1])
    position = torch.where(real, position, torch.full_like(position, -1))
    member, ectopic = member & (position >= 0), rhythm.ectopic & real
    return FoundBeats(position, correlation, rhythm._replace(member=member, ectopic=ectopic))


def stack_beats(leads: Tensor, position: Tensor, use: Tensor, before: int, after: int, fs: float = INNER_HZ) -> Tensor:
    """Median over beats: leads [B, C, N], position and use [B, K] -> beat [B, C, before + after].

    A beat cut by the recording's edge still serves where it reaches.
    """
    b, c, n = leads.shape
    length = before + after
    at = position.unsqueeze(-1) - before + torch.arange(length, device=leads.device)
    there = use.unsqueeze(-1) & (at >= 0) & (at < n)
    k = position.shape[1]
    index = at.clamp(0, n - 1).reshape(b, 1, k * length).expand(b, c, k * length)
    beats = leads.gather(2, index).reshape(b, c, k, length)
    # Each beat is first set to its own level just before the QRS, so that wander does not widen the median.
    near = slice(before - int(0.08 * fs), before - int(0.04 * fs))
    beats = beats - beats[..., near].mean(-1, keepdim=True)
    beats = torch.where(there.unsqueeze(1), beats, torch.full_like(beats, torch.nan))
    return torch.nanmedian(beats, dim=2).values.nan_to_num(0.0)


def median_beats(ecg: Tensor, r_samples: Tensor, fs: float, before_s: float, after_s: float) -> Tensor:
    """R-aligned median beat of leads I, II, V1-V6, mV, baseline removed: [B, 8, round((before_s + after_s) * fs)].

    Args:
        ecg: [B, 12, T] (standard order) or [B, 8, T] (I, II, V1-V6), mV.
        r_samples: [B, K] sample of each R peak, padded with -1.
        fs: sampling rate, Hz; the beat keeps it.
        before_s, after_s: seconds kept before and after R.

    The baseline is each beat's mean level from 80 to 40 ms before R, once wander below 0.5 Hz is out. Unusable leads
    and rows without beats are zero.

    Raises:
        ValueError: shapes, rate or window that cannot be served.
    """
    if ecg.ndim != 3 or ecg.shape[1] not in (8, 12) or r_samples.shape[:1] != ecg.shape[:1] or r_samples.ndim != 2:
        got = f"{tuple(ecg.shape)} and {tuple(r_samples.shape)}"
        raise ValueError(f"need ecg [B, 12 or 8, T] and r_samples [B, K], got {got}")
    if not (fs >= 100 and before_s >= 0.08 and after_s > 0 and before_s + after_s <= ecg.shape[-1] / fs):
        raise ValueError(
            f"need fs >= 100 Hz, before_s >= 0.08, after_s > 0 and a window within the recording, "
            f"got fs={fs}, before_s={before_s}, after_s={after_s} of {ecg.shape[-1] / fs:.2f} s"
        )
    leads, usable = _eight(ecg.to(torch.float32))
    leads = torch.where(usable.unsqueeze(-1), leads, torch.zeros_like(leads))
    spectrum, f = _spectrum(leads, fs)
    leads = torch.fft.irfft(spectrum * _raised(f, 0.3, 0.7), n=leads.shape[-1])
    before = round(before_s * fs)
    return stack_beats(leads, r_samples, r_samples >= 0, before, round((before_s + after_s) * fs) - before, fs)
