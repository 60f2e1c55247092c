"""Samples of a WFDB record: a stretch of each signal, at its own rate.

The wfdb library decodes them, after `header` has checked what the header asks for, and only the stretch asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from world_models.data.ecg.wfdb.header import FORMATS, RecordError, Signal, WfdbHeader, open_inside

__all__ = ["MOST_SAMPLES_READ", "Channel", "frames_of", "read_channels"]

DEFAULT_GAIN = 200.0  # stored units per mV, the format's own default
MOST_SAMPLES_READ = 16_000_000  # of all signals together: two minutes of twelve leads at 10 kHz
_FLAC = (508, 516, 524)
_MATLAB = b"MATLAB "  # how a file of version 5 and later begins, what SciPy writes unasked; version 4 is WFDB's `16+24`


class Channel(NamedTuple):
    """A stretch of one signal."""

    signal: Signal
    values: np.ndarray  # [frames * samples_a_frame] float64 in the signal's unit, NaN where there is no sample


def _groups(header: WfdbHeader) -> list[list[Signal]]:
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
                f"{header.base}.hea: signals of the file {group[0].file} differ in format or byte offset; correct the "
                "header"
            )
        if group[0].format in _FLAC and len({s.samples_a_frame for s in group}) > 1:
            raise RecordError(
                f"{header.base}.hea: signals of the FLAC file {group[0].file} differ in samples a frame; correct the "
                "header"
            )
    return groups


def _frames_held(header: WfdbHeader, group: Sequence[Signal]) -> int:
    """How many whole frames the file of a group holds."""
    from wfdb.io._signal import BYTES_PER_SAMPLE

    first, across = group[0], sum(s.samples_a_frame for s in group)
    with open_inside(header.base.parent, str(first.file)) as file:
        if file.read(len(_MATLAB)) == _MATLAB:
            raise RecordError(f"{file.name} is a MATLAB file of version 5 or later; WFDB takes 4: save it as '-v4'")
        file.seek(0)
        if first.format not in _FLAC:
            size = max(0, os.fstat(file.fileno()).st_size - first.offset)
            return int(size / BYTES_PER_SAMPLE[str(first.format)]) // across
        import soundfile

        try:
            return max(0, soundfile.info(file).frames - first.offset) // first.samples_a_frame
        except RuntimeError as error:  # soundfile's
            raise RecordError(f"{file.name} is no FLAC file ({error}); fetch it again") from error


def frames_of(header: WfdbHeader) -> int:
    """The length of a record that is not in segments: as stated, else what its files hold.

    Raises:
        RecordError: a file that is not there, is none of the record's own, or holds less than the header states.
    """
    groups = [group for group in _groups(header) if group[0].file is not None]
    held = [(_frames_held(header, group), str(group[0].file)) for group in groups]
    least, name = min(held, default=(header.frames or 0, ""))
    if header.frames is not None and least < header.frames:
        raise RecordError(
            f"{header.base}: {name} holds {least} samples of each signal, its header states {header.frames}; "
            "fetch the file again or correct the header"
        )
    return least if header.frames is None else header.frames


def read_channels(header: WfdbHeader, start: int, stop: int, frames: int, warnings: list[str]) -> list[Channel]:
    """Frames `start` to `stop` of every signal of a record of that many `frames`, skew taken out, in physical units.

    Raises:
        RecordError: a file that cannot be read.
    """
    found: list[Channel] = []
    for group in _groups(header):
        if group[0].file is None:
            found += [Channel(s, np.full((stop - start) * s.samples_a_frame, np.nan)) for s in group]
            continue
        for signal, stored in zip(group, _stored(header, group, start, stop), strict=True):
            whole = start == 0 and stop == frames and signal.skew == 0
            if whole and _contradicts(signal, stored[: frames * signal.samples_a_frame], header):
                warnings.append(
                    f"signal {signal.label or len(found) + 1}: the samples' checksum is not the header's; the file may "
                    "be damaged"
                )
            found.append(Channel(signal, _physical(signal, stored, stop - start)))
    return found


def _stored(header: WfdbHeader, group: Sequence[Signal], start: int, stop: int) -> list[np.ndarray]:
    """Stored values of the signals of one file [frames * samples_a_frame], int64, from `start` until, where the file
    holds them, as many frames beyond `stop` as the largest skew takes away.
    """
    # Not the public `wfdb.rdrecord`: it reads the header again by looser rules (of 'xé.dat' it opens 'x.dat', which
    # nobody has checked; 'a.b.dat' it refuses), and reads no stretch of a record whose length is not stated.
    from wfdb.io._signal import _rd_segment

    held = _frames_held(header, group)
    first = 0 if group[0].format == 8 else start  # format 8 stores differences: they count from the first sample
    end = min(stop + max(s.skew for s in group), held)
    asked = (end - first) * sum(s.samples_a_frame for s in group)
    path = header.base.parent.absolute() / str(group[0].file)
    if asked > 2 * MOST_SAMPLES_READ:
        raise RecordError(f"{path}: {asked} samples to read, over {2 * MOST_SAMPLES_READ}; cut the record")
    if "::" in str(path):
        raise RecordError(f"{path}: the wfdb library takes '::' for a file within an archive; rename the folder")
    try:
        found = _rd_segment(
            file_name=[path.name] * len(group),
            dir_name=str(path.parent),
            pn_dir=None,
            fmt=[str(s.format) for s in group],
            n_sig=len(group),
            sig_len=held,
            byte_offset=[s.offset for s in group],
            samps_per_frame=[s.samples_a_frame for s in group],
            skew=[s.skew for s in group],
            init_value=[s.initial for s in group],
            sampfrom=first,
            sampto=end,
            channels=list(range(len(group))),
            ignore_skew=True,  # it fails where two signals are skewed by unlike numbers of frames
        )
    except Exception as error:  # of any kind: the bytes are a stranger's
        raise RecordError(
            f"{path} cannot be decoded as format {group[0].format} ({error}); fetch it again or correct the header"
        ) from error
    wanted = [
        values[(start - first) * signal.samples_a_frame :].astype(np.int64)
        for signal, values in zip(group, found, strict=True)
    ]
    if group[0].format == 311:  # of the two bits that each 32 leave unused, wfdb takes in one
        wanted = [(values + 512) % 1024 - 512 for values in wanted]
    return wanted


def _contradicts(signal: Signal, stored: np.ndarray, header: WfdbHeader) -> bool:
    """Whether the header states another checksum. One that is 0 for every signal was never computed."""
    stated = signal.checksum
    return stated is not None and any(s.checksum for s in header.signals) and (int(stored.sum()) - stated) % 65536 != 0


def _physical(signal: Signal, stored: np.ndarray, frames: int) -> np.ndarray:
    late = stored[signal.skew * signal.samples_a_frame :][: frames * signal.samples_a_frame]
    value = (late - signal.baseline) / (signal.gain or DEFAULT_GAIN)
    value[late == FORMATS[signal.format]] = np.nan
    return np.concatenate([value, np.full(frames * signal.samples_a_frame - len(value), np.nan)])
