"""The leads of a WFDB record over one stretch of time, whether it is in one piece or in segments."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from world_models.data.ecg.wfdb.header import RecordError, WfdbHeader, read_header
from world_models.data.ecg.wfdb.leads import Lead, leads_of, one_rate
from world_models.data.ecg.wfdb.signals import MOST_SAMPLES_READ, frames_of, read_channels

__all__ = ["RATE_LIMITS_HZ", "READ_AT_MOST_S", "read_leads"]

RATE_LIMITS_HZ = (100.0, 10_000.0)  # below 100 Hz no interval can be measured to useful accuracy
READ_AT_MOST_S = 120.0  # of a long recording only the middle is read
MOST_SEGMENTS_READ = 1000
MOST_SKEW_S = 1.0


def read_leads(
    base: Path, rate_hz: float | None, warnings: list[str]
) -> tuple[dict[str, np.ndarray], float, tuple[str, ...], float]:
    """At most the middle two minutes: name -> [T] mV of the leads among LEADS, their rate in Hz, the header's comments,
    and where they begin, in seconds from the record's start.

    Args:
        rate_hz: sampling rate of the leads; None: the header's.

    Raises:
        RecordError: no record, no rate, or one that cannot be read.
    """
    header = read_header(base)
    pattern = _pattern(header)
    total = sum(s.frames for s in header.segments) if header.segments else frames_of(header)
    if not pattern.signals or not total:
        raise RecordError(
            f"{base}: the record is empty ({len(pattern.signals)} signals, {total} samples); give a 12-lead record"
        )
    if header.frames is not None and header.frames != total and header.segments:
        raise RecordError(
            f"{base}: the first line states {header.frames} samples, its segments have {total} together; correct the "
            "header"
        )
    frame_hz = _frame_hz(header, pattern, rate_hz, warnings)
    across = sum(s.samples_a_frame for s in pattern.signals)
    length = max(1, min(total, int(READ_AT_MOST_S * frame_hz), MOST_SAMPLES_READ // across))
    start = (total - length) // 2
    found: dict[str, Lead] = {}
    comments = header.comments
    for part, at in [(header, 0)] if not header.segments else _overlapping(header, start, start + length):
        skew = max(s.skew for s in part.signals) if part.signals else 0
        if skew > MOST_SKEW_S * frame_hz:
            raise RecordError(
                f"{part.base}.hea: a skew of {skew} samples is {skew / frame_hz:.1f} s, over {MOST_SKEW_S:g} s; "
                "correct the header"
            )
        said: list[str] = []
        if skew:
            said.append(f"the header states skews of up to {skew} samples between signals: taken out")
        frames = frames_of(part)
        first, last = max(start - at, 0), min(start + length - at, frames)
        channels = read_channels(part, first, last, frames, said)
        for name, lead in leads_of(channels, part.base, said).items():
            whole = found.setdefault(name, Lead(np.full(length * lead.samples_a_frame, np.nan), lead.samples_a_frame))
            if whole.samples_a_frame != lead.samples_a_frame:
                raise RecordError(
                    f"{part.base}: lead {name} has {lead.samples_a_frame} samples a frame, before it had "
                    f"{whole.samples_a_frame}; give the segments as records of their own"
                )
            place = (at + first - start) * lead.samples_a_frame
            whole.mv[place : place + len(lead.mv)] = lead.mv
        warnings.extend(text for text in said if text not in warnings)
        if part is not header:
            comments += part.comments
    leads, hz = one_rate(found, frame_hz, warnings)
    return leads, hz, comments, start / frame_hz


def _pattern(header: WfdbHeader) -> WfdbHeader:
    """The header whose signal lines say how many samples a frame has: of a record in segments the first one's."""
    for segment in header.segments:
        if segment.name is not None:
            return _segment(header, segment.name)
    return header


def _segment(header: WfdbHeader, name: str) -> WfdbHeader:
    part = read_header(header.base.parent / name, segment=True)
    if part.segments:
        raise RecordError(f"{header.base}: its segment {name} is in segments itself; join them")
    return part


def _frame_hz(header: WfdbHeader, pattern: WfdbHeader, given_hz: float | None, warnings: list[str]) -> float:
    """Frames a second: from the leads' rate, if that is given, else as the header states."""
    per_frame = max(s.samples_a_frame for s in pattern.signals)
    if given_hz is None and header.rate_hz is None:
        raise RecordError(
            f"{header.base}: the header states no sampling rate; give it with --rate-hz HZ (rate_hz= in Python), or "
            "write it on the header's first line"
        )
    stated_hz = None if header.rate_hz is None else header.rate_hz * per_frame
    rate = stated_hz if given_hz is None else given_hz
    assert rate is not None  # one of the two is there
    low, high = RATE_LIMITS_HZ
    if not low <= rate <= high:
        said = "sampling rate" if given_hz is None else "the given sampling rate"
        remedy = "correct the first line of the header" if given_hz is None else "give another"
        raise RecordError(f"{header.base}: {said} {rate:g} Hz is outside {low:g} to {high:g} Hz; {remedy}")
    if given_hz is not None and stated_hz is not None and not math.isclose(given_hz, stated_hz, rel_tol=1e-6):
        warnings.append(f"the header states {stated_hz:g} Hz, but {given_hz:g} Hz were given and are taken")
    return rate / per_frame


def _overlapping(header: WfdbHeader, start: int, stop: int) -> list[tuple[WfdbHeader, int]]:
    """The segments between the frames `start` and `stop`, each with the frame at which it starts."""
    wanted, at = [], 0
    for segment in header.segments:
        if segment.frames and segment.name is not None and at < stop and at + segment.frames > start:
            wanted.append((segment, at))
        at += segment.frames
    if len(wanted) > MOST_SEGMENTS_READ:
        raise RecordError(
            f"{header.base}: {len(wanted)} segments in the {READ_AT_MOST_S:g} s read, over {MOST_SEGMENTS_READ}; join "
            "them"
        )
    found = []
    for segment, at in wanted:
        part = _segment(header, str(segment.name))
        if None not in (part.rate_hz, header.rate_hz) and part.rate_hz != header.rate_hz:
            raise RecordError(
                f"{part.base}: {part.rate_hz:g} Hz, but the record {header.base.name} states {header.rate_hz:g} Hz; "
                "correct one of the two"
            )
        if frames_of(part) != segment.frames:
            raise RecordError(
                f"{part.base}: {frames_of(part)} samples, but the record {header.base.name} states {segment.frames}; "
                "correct one of the two"
            )
        found.append((part, at))
    return found
