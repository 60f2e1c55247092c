"""Samples of a WFDB record (WFDB Programmer's Guide, signal(5)): a stretch of each signal, at its own rate.

Files are read only after `wfdb_header` has checked what the header asks for, and only the stretch asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from world_models.data.wfdb_header import FORMATS, Header, RecordError, Signal, open_inside

__all__ = ["MOST_SAMPLES_READ", "Channel", "frames_of", "read_channels"]

DEFAULT_GAIN = 200.0  # stored units per mV, the format's own default
MOST_SAMPLES_READ = 16_000_000  # of all signals together: two minutes of twelve leads at 10 kHz
# Samples of a block and its bytes; a block that ends early holds as many as its bytes cover.
_BLOCKS = {8: (1, 1), 80: (1, 1), 16: (1, 2), 61: (1, 2), 160: (1, 2), 24: (1, 3), 32: (1, 4), 212: (2, 3), 310: (3, 4),
           311: (3, 4)}  # fmt: skip
_FLAC = {508: 8, 516: 16, 524: 24}  # bits
_FLAC_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}


class Channel(NamedTuple):
    """A stretch of one signal."""

    signal: Signal
    values: np.ndarray  # [frames * samples_a_frame] float64 in the signal's unit, NaN where there is no sample


def _words(raw: np.ndarray, fmt: int) -> np.ndarray:
    """Stored values of whole blocks of bytes [N * block], int64."""
    if fmt in (16, 61, 160):
        value = raw.view(">i2" if fmt == 61 else "<u2" if fmt == 160 else "<i2").astype(np.int64)
        return value - 32768 if fmt == 160 else value
    if fmt in (8, 80):
        return raw.view(np.int8).astype(np.int64) if fmt == 8 else raw.astype(np.int64) - 128
    if fmt == 32:
        return raw.view("<i4").astype(np.int64)
    samples, size = _BLOCKS[fmt]
    byte = raw.reshape(-1, size).astype(np.int64)
    word = (byte << (8 * np.arange(size))).sum(1)  # of a block, the first byte lowest
    if fmt == 24:
        parts, bits = [word], 24
    elif fmt == 212:
        parts, bits = [word & 0xFFF, (word >> 16) | ((word >> 4) & 0xF00)], 12
    elif fmt == 310:
        parts, bits = [(word >> 1) & 0x3FF, (word >> 17) & 0x3FF, ((word >> 11) & 0x1F) | ((word >> 22) & 0x3E0)], 10
    else:
        parts, bits = [word & 0x3FF, (word >> 10) & 0x3FF, (word >> 20) & 0x3FF], 10
    value = np.stack(parts, 1).reshape(-1)
    return value - ((value >> (bits - 1)) << bits)


def _held(size: int, fmt: int) -> int:
    """How many samples `size` bytes hold."""
    samples, width = _BLOCKS[fmt]
    return size // width * samples + (size % width) * samples // width


def _stored(file: BinaryIO, group: Sequence[Signal], start: int, stop: int) -> np.ndarray:
    """Frames `start` to `stop` of a file's signals [frames, samples a frame of all], int64."""
    fmt, across = group[0].format, sum(s.samples_a_frame for s in group)
    if fmt in _FLAC:
        return _flac(file, group, start, stop)
    samples, width = _BLOCKS[fmt]
    first = 0 if fmt == 8 else start * across // samples * samples
    last = stop * across
    file.seek(group[0].offset + first // samples * width)
    raw = np.frombuffer(file.read(-(-(last - first) // samples) * width), np.uint8)
    value = _words(np.concatenate([raw, np.zeros(-len(raw) % width, np.uint8)]), fmt)
    value = value[start * across - first : last - first]
    if fmt != 8:
        return value.reshape(-1, across)
    # Differences, each signal's own, from the first value in the header.
    value = _words(raw, fmt)[:last].reshape(-1, across)
    parts, column = [], 0
    for signal in group:
        own = value[:, column : column + signal.samples_a_frame]
        parts.append((signal.initial + own.reshape(-1).cumsum()).reshape(own.shape)[start:])
        column += signal.samples_a_frame
    return np.concatenate(parts, 1)


def _flac(file: BinaryIO, group: Sequence[Signal], start: int, stop: int) -> np.ndarray:
    import soundfile

    per_frame = group[0].samples_a_frame
    with soundfile.SoundFile(file) as sound:
        bits = _FLAC_BITS.get(sound.subtype, 99)
        if sound.format != "FLAC" or bits > _FLAC[group[0].format] or sound.channels != len(group):
            raise RecordError(
                f"{file.name} holds {sound.channels} channels of {sound.subtype} in {sound.format}; its header asks for "
                f"{len(group)} of at most {_FLAC[group[0].format]} bits in FLAC: correct the header"
            )
        sound.seek(start * per_frame + group[0].offset)
        value = sound.read((stop - start) * per_frame, dtype="int32", always_2d=True).astype(np.int64) >> (32 - bits)
    value = value[: len(value) // per_frame * per_frame]
    return value.reshape(-1, per_frame, len(group)).transpose(0, 2, 1).reshape(-1, per_frame * len(group))


def _frames_held(file: BinaryIO, group: Sequence[Signal]) -> int:
    """How many whole frames a file holds."""
    across = sum(s.samples_a_frame for s in group)
    if group[0].format in _FLAC:
        import soundfile

        held = max(0, soundfile.info(file).frames - group[0].offset) * len(group)
        file.seek(0)
        return held // across
    return _held(max(0, os.fstat(file.fileno()).st_size - group[0].offset), group[0].format) // across


def _groups(header: Header) -> list[list[Signal]]:
    """The signals by the file they share; signals of one file stand one after the other in each frame."""
    groups: list[list[Signal]] = []
    for signal in header.signals:
        if groups and signal.file is not None and signal.file == groups[-1][0].file:
            groups[-1].append(signal)
        else:
            groups.append([signal])
    names = [group[0].file for group in groups if group[0].file is not None]
    if len(set(names)) < len(names):
        raise RecordError(f"{header.base}.hea: signals of one file do not stand together; put their lines in its order")
    for group in groups:
        if len({(s.format, s.offset) for s in group}) > 1:
            raise RecordError(
                f"{header.base}.hea: signals of the file {group[0].file} differ in format or byte offset; correct the header"
            )
        if group[0].format in _FLAC and len({s.samples_a_frame for s in group}) > 1:
            raise RecordError(f"{header.base}.hea: signals of the FLAC file {group[0].file} differ in samples a frame")
    return groups


def _opened(header: Header, group: Sequence[Signal]) -> BinaryIO:
    return open_inside(header.base.parent, str(group[0].file))


def frames_of(header: Header) -> int:
    """The length of a record that is not in segments: as stated, else what its files hold.

    Raises:
        RecordError: a file that is not there, is none of the record's own, or holds less than the header states.
    """
    held = []
    for group in _groups(header):
        if group[0].file is not None:
            with _opened(header, group) as file:
                try:
                    held.append((_frames_held(file, group), str(group[0].file)))
                except RuntimeError as error:  # soundfile's
                    raise RecordError(f"{file.name} is no FLAC file ({error}); fetch it again") from error
    least, name = min(held, default=(header.frames or 0, ""))
    if header.frames is not None and least < header.frames:
        raise RecordError(
            f"{header.base}: {name} holds {least} samples of each signal, its header states {header.frames}; "
            "fetch the file again or correct the header"
        )
    return least if header.frames is None else header.frames


def read_channels(header: Header, start: int, stop: int, frames: int, warnings: list[str]) -> list[Channel]:
    """Frames `start` to `stop` of every signal of a record of that many `frames`, skew taken out, in physical units.

    Raises:
        RecordError: a file that cannot be read.
    """
    found = []
    for group in _groups(header):
        across = sum(s.samples_a_frame for s in group)
        if group[0].file is None:
            found += [Channel(s, np.full((stop - start) * s.samples_a_frame, np.nan)) for s in group]
            continue
        with _opened(header, group) as file:
            try:
                end = min(stop + max(s.skew for s in group), _frames_held(file, group))
                asked = (end - (0 if group[0].format == 8 else start)) * across  # format 8 counts from the first sample
                if asked > 2 * MOST_SAMPLES_READ:
                    raise RecordError(
                        f"{file.name}: {asked} samples to read, over {2 * MOST_SAMPLES_READ}; cut the record"
                    )
                stored = _stored(file, group, start, end)
            except RuntimeError as error:  # soundfile's
                raise RecordError(f"{file.name} cannot be decoded ({error}); fetch it again") from error
        if stored.shape != (end - start, across):
            raise RecordError(f"{header.base.parent / str(group[0].file)} ends early; fetch it again")
        column = 0
        for signal in group:
            own = stored[:, column : column + signal.samples_a_frame]
            column += signal.samples_a_frame
            whole = start == 0 and stop == frames and signal.skew == 0
            if whole and _contradicts(signal, own[:frames], header):
                warnings.append(
                    f"signal {signal.label or column}: the samples' checksum is not the header's; the file may be damaged"
                )
            found.append(Channel(signal, _physical(signal, own, stop - start)))
    return found


def _contradicts(signal: Signal, stored: np.ndarray, header: Header) -> bool:
    """Whether the header states another checksum. One that is 0 for every signal was never computed."""
    stated = signal.checksum
    return stated is not None and any(s.checksum for s in header.signals) and (int(stored.sum()) - stated) % 65536 != 0


def _physical(signal: Signal, stored: np.ndarray, frames: int) -> np.ndarray:
    late = stored[signal.skew : signal.skew + frames]
    value = (late - signal.baseline) / (signal.gain or DEFAULT_GAIN)
    value[late == FORMATS[signal.format]] = np.nan
    lacking = np.full((frames - len(late), signal.samples_a_frame), np.nan)
    return np.concatenate([value, lacking]).reshape(-1)
