"""When the beats of a recording come, and one beat laid down at each of them.

Within one ECG every beat is the same template, moved to the beat's R sample and added to its neighbours; heart-rate
variability moves beats and changes no interval. Only elementwise operations and gathers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models import keys

__all__ = ["POST_MS", "PRE_MS", "add_rows", "as_column", "beat_samples", "beats_needed", "tile"]

# The window of a beat around R. Waves that reach outside are cut: it holds PR up to 450 ms and QT up to 750 ms
# (with QRS <= 230 ms and Tpeak-Tend <= 200 ms).
PRE_MS, POST_MS = 600.0, 1000.0
_RATES_BPM = (5.0, 400.0)


def as_column(value: float | Tensor, like: Tensor) -> Tensor:
    """A number or a tensor [B] as a float32 column [B, 1]."""
    return torch.as_tensor(value, dtype=torch.float32, device=like.device).expand(like.shape[0]).unsqueeze(-1)


def beat_samples(
    key: Tensor,
    t: int | Tensor,
    heart_rate_bpm: Tensor,
    *,
    seconds: float = 10.0,
    sampling_rate_hz: float = 500.0,
    hrv_ms: float | Tensor = 0.0,
    margin: int = 4,
    count: int | None = None,
) -> Tensor:
    """Samples of the R peaks, int64 [B, K], rising; `margin` beats lie before the recording and at least as many after.

    Beats sit on an even grid and are moved by a respiratory (0.2-0.33 Hz) and a slow (0.07-0.12 Hz) wave whose phases
    come from the key; the RR intervals then vary with standard deviation `hrv_ms` (at most 8 % of the mean RR). The
    first and the last beat within the recording stay on the grid, so the mean RR is 60 / heart rate to the sample.
    `count` is K, where it must not depend on the rates; it has to do for the fastest.

    Raises:
        ValueError: a heart rate is not within 5 to 400 bpm.
    """
    if count is None:
        count = beats_needed(heart_rate_bpm, seconds, margin)
    rr = 60.0 / heart_rate_bpm.to(torch.float32).unsqueeze(-1)
    u = keys.uniform(key, t, "beat_times", (5,))
    first = u[:, 0:1] * rr
    # Beats on the grid that fall on a sample of the recording (the last half sample rounds out of it).
    n_inside = torch.floor((seconds - 0.51 / sampling_rate_hz - first) / rr) + 1
    index = torch.arange(-margin, count - margin, dtype=torch.float32, device=key.device)
    last = (n_inside - 1).clamp_min(1.0)

    sd = torch.minimum(as_column(hrv_ms, key) * 1e-3, 0.08 * rr)
    respiratory = torch.minimum(0.2 + 0.13 * u[:, 1:2], 0.4 / rr)
    slow = 0.07 + 0.05 * u[:, 2:3]

    def moved(place: Tensor) -> Tensor:
        """Displacement in s of the beat at `place`. A wave of height A and frequency f gives RR a standard deviation
        of sqrt(2) A sin(pi f RR); the shares 0.8 and 0.6 add in quadrature to `sd`."""
        total = torch.zeros_like(place)
        for share, frequency, phase in ((0.8, respiratory, u[:, 3:4]), (0.6, slow, u[:, 4:5])):
            height = share * sd / (math.sqrt(2.0) * torch.sin(math.pi * frequency * rr))
            total = total + height * torch.sin(2.0 * math.pi * (frequency * rr * place + phase))
        return total

    place = index.expand(key.shape[0], -1).contiguous()
    start, end = moved(torch.zeros_like(last)), moved(last)
    shift = moved(place) - start - (end - start) * (place / last)
    shift = shift * ((place > 0) & (place < last))
    return torch.round((first + place * rr + shift) * sampling_rate_hz).to(torch.int64)


def beats_needed(heart_rate_bpm: Tensor, seconds: float = 10.0, margin: int = 4) -> int:
    """How many beats `beat_samples` lays down for rates [B].

    Raises:
        ValueError: a heart rate is not within 5 to 400 bpm.
    """
    slowest, fastest = (float(x) for x in torch.aminmax(heart_rate_bpm)) if heart_rate_bpm.numel() else (60.0, 60.0)
    if not (_RATES_BPM[0] <= slowest and fastest <= _RATES_BPM[1]):
        raise ValueError(
            f"heart_rate_bpm from {slowest} to {fastest} must lie within {_RATES_BPM[0]:g} to {_RATES_BPM[1]:g}: "
            "clip it to the chart's range first"
        )
    return int(math.ceil(seconds * fastest / 60.0)) + 2 * margin + 1


def tile(
    template: Tensor,
    r_samples: Tensor,
    samples: int,
    at_r: int | None = None,
    out: Tensor | None = None,
    into: tuple[slice, ...] = (slice(None),),
) -> Tensor:
    """Put a beat at every R sample and add what overlaps: [B, C, L] and [B, K] give [B, C, samples].

    `r_samples` must rise; beats outside the recording lend it their tails. `at_r` is the template's R index (default:
    that of `beat_template`, 0.6 of 1.6 s). A P wave may start before the previous T has ended.

    `out` [B, leads, samples] is written to where it is given, in order, into its leads `into`.
    """
    batch, leads, length = template.shape
    if out is None:
        out = template.new_empty(batch, leads, samples)
    if batch == 0:
        return out
    if at_r is None:
        at_r = int(round((length - 1) * PRE_MS / (PRE_MS + POST_MS)))
    moments = torch.arange(samples, device=template.device)
    # How far each row's beat reaches, and in its own shortest RR: how many of its neighbours can overlap.
    shortest = (r_samples[:, 1:] - r_samples[:, :-1]).amin(1).clamp_min(1)
    used = (template != 0).any(dim=1).to(torch.int8)
    before = at_r - used.argmax(1)
    after = length - 1 - used.flip(1).argmax(1) - at_r
    neighbours = (before + after) // shortest
    back = max(int(neighbours.max()), 0)
    # The last beat that has begun by each moment.
    begun = (r_samples - before.unsqueeze(1)).clamp(0, samples)
    counts = torch.zeros(batch, samples + 1, dtype=torch.int64, device=template.device)
    current = counts.scatter_add_(1, begun, torch.ones_like(begun)).cumsum(1)[:, :samples] - 1

    # The template's ends serve as "no wave here": made zero (they hold nothing but a cut tail).
    table = template.clone()
    table[:, :, 0] = 0.0
    table[:, :, -1] = 0.0
    beats = torch.nn.functional.pad(r_samples, (back + 1, 0), value=-2 * (samples + length))

    def place(rows: slice | Tensor, earlier: int) -> Tensor:
        """[rows, 1, samples] where in the table each moment lies in the beat before, `earlier` beats ago."""
        r = torch.gather(beats[rows], 1, current[rows] + (back + 1 - earlier))
        return (moments - r).add_(at_r).clamp_(0, length - 1).unsqueeze(1)

    # The last one, then those before it: a fixed order of sums, and of each row as many as it needs.
    waves = table.split([out[:, some].shape[1] for some in into], dim=1)
    now = place(slice(None), 0)
    for some, wave in zip(into, waves, strict=True):
        index = now.expand(-1, wave.shape[1], -1)
        if wave.requires_grad:  # `out=` passes no gradients on
            out[:, some] = torch.gather(wave, 2, index)
        else:
            torch.gather(wave, 2, index, out=out[:, some])
    for earlier in range(1, back + 1):
        rows = (neighbours >= earlier).nonzero().squeeze(-1)
        then = place(rows, earlier)
        for some, wave in zip(into, waves, strict=True):
            add_rows(out[:, some], rows, torch.gather(wave[rows], 2, then.expand(-1, wave.shape[1], -1)))
    return out


def add_rows(to: Tensor, rows: Tensor, what: Tensor) -> None:
    """Adds what [N, C, T] to the rows [N] of `to` [B, C, T], each at most once."""
    if to.device.type == "cpu":  # long rows: one by one takes a sixth of `index_add_`
        for row, one in zip(rows.tolist(), what, strict=True):
            to[row] += one
    else:
        to.index_add_(0, rows, what)
