"""A recorded 12-lead ECG in numbers: intervals, marks and features of arrays and WFDB records at any sampling rate.

    import clinenv
    found = clinenv.ecg.measure(ecg_mv, rate_hz=360)       # numpy or torch [leads, samples] in mV
    found = clinenv.ecg.measure("folder/record")           # WFDB, at the rate that its header states
    found.intervals["qtcf_ms"], found.trusted, found.warnings

All three functions read what they are given by the same rules (`world_models.data.ecg.wfdb.reader`): the middle ten
seconds, at 500 Hz; up to six of the eight independent leads may be missing, flat or NaN and are then made from the
others, with a warning. What cannot be used raises one `RecordError` (a ValueError) that names the value, the limit and
the remedy. Research software: nothing here is a clinical finding. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.ecg.marks import Marks
from clinenv.ecg.measurement import Measurement

if TYPE_CHECKING:
    from world_models.data.ecg.wfdb.reader import Recording

__all__ = ["Marks", "Measurement", "delineate", "features", "measure"]


def _read(source: Any, rate_hz: float | None, leads: Sequence[str] | None, unit: str | None, repair: bool) -> Recording:
    """The middle ten seconds at 500 Hz of a WFDB record (a path) or an array."""
    from world_models.data.ecg.arrays import read_array
    from world_models.data.ecg.wfdb.header import RecordError
    from world_models.data.ecg.wfdb.reader import read_ecg

    if not isinstance(source, str | Path):
        return read_array(source, rate_hz, leads, "mV" if unit is None else unit, whole=not repair)
    if leads is not None or unit is not None:
        raise RecordError(f"{source}: leads= and unit= are for arrays, a record's header states both; leave them out")
    if rate_hz is not None and not rate_hz > 0:
        raise RecordError(f"rate_hz={rate_hz!r} is not above 0; give the rate at which the record was sampled")
    return read_ecg(source, rate_hz=rate_hz, whole=not repair)


def measure(
    source: Any,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    convention: str = "reader",
    repair: bool = True,
) -> Measurement:
    """The intervals of one ECG (ms, beats a minute), its T wave's shape, its quality, and whether to trust them.

    Intervals are read on all leads, reconstructed ones too (they come out nearer to those of the whole record so);
    quality and trust are those of the recorded leads alone.

    Args:
        source: an array [leads, samples] (numpy, torch, lists; NaN where samples are missing), or the path of a WFDB
            record, with or without .hea. 4 s or more.
        rate_hz: sampling rate, 100 to 10,000 Hz; of a record only where its header does not state it.
        leads: names of an array's rows in any usual spelling; None: twelve rows are I, II, III, aVR, aVL, aVF, V1-V6,
            eight are I, II, V1-V6.
        unit: of an array: "mV" (the default), "uV", "nV" or "V".
        convention: "reader", where cardiologists put their marks, or "tangent", by which drug trials and the worlds
            measure (P starts some 10 ms later, T ends some 14 ms earlier).
        repair: make leads that are missing, flat or NaN from the others; False: such an ECG is an error.

    Raises:
        RecordError (a ValueError): it cannot be read, or is no usable 12-lead ECG.
        ValueError: an unknown convention.
    """
    from clinenv.ecg.measurement import measured

    return measured(_read(source, rate_hz, leads, unit, repair), convention, repair)


def delineate(
    source: Any,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    convention: str = "reader",
    repair: bool = True,
) -> Marks:
    """Where the beats of one ECG lie (seconds), and where P, QRS and T of its median beat begin, peak and end (ms).

    Args and errors: as `measure`.
    """
    from clinenv.ecg.marks import marked

    return marked(_read(source, rate_hz, leads, unit, repair), convention, repair)


def features(
    source: Any,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    world: str | Path = "cardiac-jepa-small",
    repair: bool = True,
) -> Any:
    """The features [D] float32 of one ECG, or [B, D] of an array [B, leads, samples]: a cardiac JEPA's encoder.

    The encoder has learned from ECGs at 100 Hz: what reaches it is low-passed and resampled. A torch tensor gives a
    torch tensor on its device, all else a numpy array. No gradient.

    Args and errors: as `measure`; and
        world: a name of the catalogue or the folder of a cardiac JEPA (a ValueError where it is none).
    """
    import numpy as np
    import torch

    from clinenv.ecg.measurement import RATE_HZ, whole_ecg
    from world_models.cardiac_jepa.features import load_features

    batch = not isinstance(source, str | Path) and np.ndim(source) == 3
    encode = load_features(world)
    rows = []
    for one in source if batch else [source]:
        ecg_mv, _ = whole_ecg(_read(one, rate_hz, leads, unit, repair), repair)
        rows.append(encode(ecg_mv[None], RATE_HZ)[0])
    found = torch.stack(rows) if batch else rows[0]
    return found.to(source.device) if isinstance(source, torch.Tensor) else found.numpy()
