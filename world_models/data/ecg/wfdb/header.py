"""WFDB headers (WFDB Programmer's Guide, header(5)), read strictly: every number is held against a limit before use.

A header is thirty bytes that may ask for a billion segments. So nothing is allocated on its word: what it states must
stand in it, line by line, and lie within the limits below; the error names the field, its value and the remedy.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = [
    "FORMATS",
    "WfdbHeader",
    "RecordError",
    "Segment",
    "Signal",
    "comments_of",
    "open_inside",
    "read_header",
    "segments_of",
]

HEADER_BYTES = 8 << 20
MOST_SIGNALS = 1024
MOST_SEGMENTS = 100_000
MOST_SAMPLES_A_FRAME = 10_000
MOST_FRAMES = 1 << 40
FIELD_LENGTH = 255  # characters: the longest name of a file
MOST_SKEW = 100_000  # frames; also at most a second, where the rate is known
FILE_BYTES = 1 << 36  # 64 GiB
GAIN_LIMITS = (1e-9, 1e12)
# Format -> the stored value that stands for "no sample" (None: there is none). 0 is a signal without a file.
FORMATS: dict[int, int | None] = {
    0: None, 8: None, 16: -(1 << 15), 24: -(1 << 23), 32: -(1 << 31), 61: -(1 << 15), 80: -(1 << 7), 160: -(1 << 15),
    212: -(1 << 11), 310: -(1 << 9), 311: -(1 << 9), 508: -(1 << 7), 516: -(1 << 15), 524: -(1 << 23),
}  # fmt: skip

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_RATE = re.compile(rf"({_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(rf"({_NUMBER})(?:\(([-+]?\d+)\))?(?:/(.*))?")
_TIME = re.compile(r"\d{1,2}(:\d{1,2}){0,2}(\.\d+)?")
_DATE = re.compile(r"\d{1,2}/\d{1,2}/\d{2,4}")


class RecordError(ValueError):
    """A record that cannot be used; the message names the value, the limit and the remedy."""


class Signal(NamedTuple):
    """One signal line."""

    file: str | None  # None: no file, no sample is valid
    format: int
    samples_a_frame: int
    skew: int  # frames by which the file's samples lie too late
    offset: int  # bytes before the first sample
    gain: float | None  # stored units per physical unit; None: not stated
    baseline: int  # stored value of 0
    unit: str | None  # None: not stated
    initial: int  # value before the first sample, which format 8 counts from
    checksum: int | None  # of all samples, modulo 65,536; None: not stated
    label: str


class Segment(NamedTuple):
    """One segment line of a record in segments."""

    name: str | None  # of the record it is; None: a gap
    frames: int


class WfdbHeader(NamedTuple):
    """All that a .hea file states, checked."""

    base: Path  # the record's path without extension
    rate_hz: float | None  # frames a second; None: not stated
    frames: int | None  # None: not stated
    signals: tuple[Signal, ...]  # none where the record is in segments
    segments: tuple[Segment, ...]
    comments: tuple[str, ...]


def _open_regular(path: Path, remedy: str) -> BinaryIO:
    """Open a regular file of at most `FILE_BYTES`; anything else is refused before a byte is read."""
    try:
        # A pipe would wait for a writer: it is opened without waiting, and refused.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; {remedy}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({error}); {remedy}") from error
    facts = os.fstat(file.fileno())
    if stat.S_ISREG(facts.st_mode) and facts.st_size <= FILE_BYTES:
        return file
    file.close()
    if not stat.S_ISREG(facts.st_mode):
        raise RecordError(f"{path} is no regular file; {remedy}")
    raise RecordError(f"{path} has {facts.st_size} bytes, over {FILE_BYTES}; cut the record into shorter ones")


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file that a header in `folder` names: a regular one in that folder, of at most `FILE_BYTES`.

    Raises:
        RecordError: anything else, before a byte is read.
    """
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise RecordError(f"{path} cannot be read ({error}); copy the file itself to {folder}") from error
    if not inside:
        raise RecordError(f"{path} is a link that leads out of its folder; copy the file itself to {folder}")
    return _open_regular(path, "fetch all files of the record again")


def _plain_name(name: str, where: str) -> str | None:
    """The name of a file beside the header; None for '~', which stands for none."""
    if name in (".", "..") or "/" in name or "\\" in name or ":" in name:
        raise RecordError(
            f"{where}: the file {name[:60]!r} is outside the record's own folder; put all its files into one folder "
            "and name them without a path"
        )
    return None if name == "~" else name


def _fields(line: str, where: str, most: int = -1) -> list[str]:
    """The fields of a line; the last of `most` + 1 may hold spaces and be of any length."""
    fields = line.split(maxsplit=most)
    long = next((f for f in fields[: most if most > 0 else None] if len(f) > FIELD_LENGTH), None)
    if long is not None:
        raise RecordError(
            f"{where}: a field of {len(long)} characters ({long[:20]}...), over {FIELD_LENGTH}; correct it"
        )
    return fields


def _whole(text: str, what: str, where: str, low: int, high: int) -> int:
    """A whole number within limits; `what` names the field."""
    if not re.fullmatch(r"[-+]?\d{1,20}", text):
        raise RecordError(f"{where}: {what} {text[:40]!r} is no whole number; correct the header")
    value = int(text)
    if not low <= value <= high:
        raise RecordError(f"{where}: {what} {value} is outside {low} to {high}; correct the header")
    return value


def _text(file: BinaryIO, path: Path) -> str:
    content = file.read(HEADER_BYTES + 1)
    if len(content) > HEADER_BYTES:
        raise RecordError(f"{path} is over {HEADER_BYTES} bytes, too long for a WFDB header; give a record's .hea")
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        if b"\0" in content:
            raise RecordError(
                f"{path} is not a WFDB header (it holds NUL bytes); give a record's .hea, saved as UTF-8 text"
            )
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _rate(text: str, where: str) -> float | None:
    match = _RATE.fullmatch(text)
    if not match:
        hint = "; write a decimal point" if "," in text else "; write it in Hz, without a unit"
        raise RecordError(f"{where}: sampling rate {text[:40]!r} is no number{hint}, as in 500")
    return float(match.group(1))


def _clock(fields: list[str], where: str) -> None:
    """The start's time and date are not used, but one that cannot be read may stand for a field left out."""
    remedy = "; write HH:MM:SS, then DD/MM/YYYY (05:05:15 08/05/2014), or leave both out"
    for text, rule, what in zip(fields, (_TIME, _DATE), ("start time", "start date"), strict=False):
        if not rule.fullmatch(text):
            raise RecordError(f"{where}: {what} {text[:40]!r} is not in WFDB's form{remedy}")


def _signal(line: str, where: str) -> Signal:
    """One signal line: file, format, gain, ADC resolution, ADC zero, first value, checksum, block size, description."""
    fields = _fields(line, where, 8)
    if len(fields) < 2:
        raise RecordError(
            f"{where}: {line[:60]!r} has no format; write the file's name and the format, as in 'r.dat 16'"
        )
    match = _FORMAT.fullmatch(fields[1])
    if not match or int(match.group(1)) not in FORMATS:
        known = ", ".join(str(f) for f in FORMATS)
        raise RecordError(f"{where}: format {fields[1][:40]!r} is unknown; known are {known}: correct the header")
    fmt, per_frame, skew, offset = match.groups()
    gain, baseline, unit = None, None, None
    if len(fields) > 2:
        match = _GAIN.fullmatch(fields[2])
        if not match:
            hint = "; write a decimal point" if "," in fields[2] else ""
            raise RecordError(
                f"{where}: gain {fields[2][:40]!r} is not in the form 200(0)/mV (units per mV, baseline, unit){hint}"
            )
        gain, unit = float(match.group(1)) or None, match.group(3) or None
        if gain is not None and not GAIN_LIMITS[0] <= abs(gain) <= GAIN_LIMITS[1]:
            raise RecordError(f"{where}: gain {gain:g} is outside {GAIN_LIMITS[0]:g} to {GAIN_LIMITS[1]:g}; correct it")
        if match.group(2):
            baseline = _whole(match.group(2), "baseline", where, -(1 << 31), (1 << 31) - 1)
    names = ("ADC resolution", "ADC zero", "first value", "checksum", "block size")
    numbers = [_whole(text, name, where, -(1 << 32), 1 << 32) for text, name in zip(fields[3:8], names, strict=False)]
    numbers += [0] * (5 - len(numbers))
    return Signal(
        file=None if fmt == "0" else _plain_name(fields[0], where),
        format=int(fmt),
        samples_a_frame=_whole(per_frame or "1", "samples a frame", where, 1, MOST_SAMPLES_A_FRAME),
        skew=_whole(skew or "0", "skew", where, 0, MOST_SKEW),
        offset=_whole(offset or "0", "byte offset", where, 0, FILE_BYTES),
        gain=gain,
        baseline=numbers[1] if baseline is None else baseline,
        unit=unit,
        initial=numbers[2],
        checksum=numbers[3] if len(fields) > 6 else None,
        label=fields[8].strip() if len(fields) > 8 else "",
    )


def _segments(lines: list[str], where: str) -> tuple[Segment, ...]:
    found = []
    for number, line in enumerate(lines, 1):
        fields = _fields(line, where)
        at = f"{where}, segment {number}"
        if len(fields) < 2:
            raise RecordError(f"{at}: {line[:60]!r} states no length; write the segment's name and its samples")
        found.append(Segment(_plain_name(fields[0], at), _whole(fields[1], "length", at, 0, MOST_FRAMES)))
    return tuple(found)


def _lines(path: Path, segment: bool) -> tuple[list[str], tuple[str, ...]]:
    """The lines that are no comments, and the comments without their sign."""
    opened = open_inside(path.parent, path.name) if segment else _open_regular(path, "give the path of a .hea file")
    with opened as file:
        lines = [line.strip() for line in re.split(r"\r\n|\r|\n", _text(file, path))]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    return [line for line in lines if line and not line.startswith("#")], comments


def comments_of(base: Path) -> tuple[str, ...]:
    """The comments of `base`.hea, whether or not its other lines can be read.

    Raises:
        RecordError: no such file, or no text.
    """
    return _lines(base.parent / (base.name + ".hea"), segment=False)[1]


def read_header(base: Path, segment: bool = False) -> WfdbHeader:
    """Read `base`.hea.

    Args:
        base: the record's path without extension.
        segment: another header names this one, so that it has to lie in that header's folder.

    Raises:
        RecordError: no such file, not a WFDB header, a field that cannot be read or is beyond its limit.
    """
    path = base.parent / (base.name + ".hea")
    lines, comments = _lines(path, segment)
    where = str(path)
    fields = _fields(lines[0], where) if lines else []
    if len(fields) < 2:
        raise RecordError(
            f"{path} is not a WFDB header (its first line holds no number of signals); give a record's .hea"
        )
    _, slash, count = fields[0].partition("/")
    if not fields[1].isascii() or not fields[1].isdecimal():
        raise RecordError(
            f"{path} is not a WFDB header (the number of signals in its first line is {fields[1][:40]!r}); "
            "give a record's .hea"
        )
    signals = _whole(fields[1], "number of signals", where, 0, MOST_SIGNALS)
    rate = _rate(fields[2], where) if len(fields) > 2 else None
    frames = _whole(fields[3], "number of samples", where, 0, MOST_FRAMES) if len(fields) > 3 else 0
    _clock(fields[4:6], where)
    stated, what = signals, "signal"
    if slash:
        stated, what = _whole(count, "number of segments", where, 1, MOST_SEGMENTS), "segment"
    if len(lines) - 1 != stated:
        raise RecordError(
            f"{where}: the first line states {stated} {what}s, but {len(lines) - 1} {what} lines follow; add the lines "
            "that are missing, take out the others, or correct the number"
        )
    return WfdbHeader(
        base=base,
        rate_hz=rate,
        frames=frames or None,
        signals=() if slash else tuple(_signal(line, f"{where}, signal {i}") for i, line in enumerate(lines[1:], 1)),
        segments=_segments(lines[1:], where) if slash else (),
        comments=comments,
    )


def segments_of(base: Path) -> list[str]:
    """The names of a record's segments; none for a record in one piece, or one whose header cannot be read."""
    try:
        with _open_regular(base.parent / (base.name + ".hea"), "") as file:
            if b"/" not in file.readline(200).partition(b" ")[0]:
                return []  # spares reading the whole header of most records
        return [segment.name for segment in read_header(base).segments if segment.name is not None]
    except RecordError:
        return []
