"""One 12-lead ECG from an array in memory, by the rules by which a WFDB record is read (`wfdb.reader`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from world_models.data.ecg.wfdb.header import RecordError
from world_models.data.ecg.wfdb.leads import MV_OF_UNIT, canonical
from world_models.data.ecg.wfdb.reader import SHORTEST_S, Recording, from_leads
from world_models.data.ecg.wfdb.record import RATE_LIMITS_HZ, READ_AT_MOST_S
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS

__all__ = ["read_array"]

NAME = "the array"  # what messages call it


def read_array(
    ecg: Any,
    rate_hz: float | None,
    leads: Sequence[str] | None = None,
    unit: str = "mV",
    sampling_rate_hz: float = 500.0,
    seconds: float = 10.0,
    whole: bool = True,
) -> Recording:
    """One ECG in memory as its middle `seconds` at `sampling_rate_hz`, in mV.

    Args:
        ecg: [L, T] numbers, a row a lead: a numpy array, a torch tensor on any device, or nested lists. NaN is a
            missing sample.
        rate_hz: at which it was sampled.
        leads: the rows' names, in any usual spelling ("aVR", "-aVR", "MLII", "Lead V1"); None: `LEADS` for twelve rows,
            `INDEPENDENT_LEADS` for eight.
        unit: of the numbers: V, mV, uV or nV.
        whole: False: leads may be missing, flat or NaN, as `read_ecg` has it.

    Raises:
        RecordError: no rate or one outside 100 to 10,000 Hz, another shape, no real numbers, names that are unknown,
            twice there or not as many as rows, an unknown unit; and all that `read_ecg` refuses.
    """
    signal = _signal(ecg)
    rate = _rate(rate_hz)
    scale = MV_OF_UNIT.get(str(unit).strip().lower())
    if scale is None:
        raise RecordError(f"unit={unit!r} is unknown; give V, mV, uV or nV")
    names = _names(leads, len(signal))
    samples = signal.shape[1]
    length = min(samples, int(READ_AT_MOST_S * rate))
    start = (samples - length) // 2
    middle = signal[:, start : start + length] * scale
    rows = {name: sign * row for (name, sign), row in zip(names, middle, strict=True) if name is not None}
    if not rows:
        raise RecordError(f"{NAME} has no row that is one of {', '.join(LEADS)}; correct leads=")
    return from_leads(
        rows, rate, Path(NAME), float(sampling_rate_hz), seconds, SHORTEST_S, whole, [], began_s=start / rate
    )


def _signal(ecg: Any) -> np.ndarray:
    """[L, T] float64 of whatever holds the numbers."""
    if isinstance(ecg, Tensor):
        ecg = ecg.detach().cpu().double() if ecg.is_floating_point() else ecg.detach().cpu()
        ecg = ecg.numpy()
    try:
        array = np.asarray(ecg)
    except ValueError as error:
        raise RecordError(f"{NAME} is no array of numbers ({error}); give rows of one length") from None
    if array.dtype.kind not in "fiu":
        raise RecordError(f"{NAME} holds {array.dtype}, no real numbers; give voltages as float or integer")
    if array.ndim != 2:
        raise RecordError(
            f"{NAME} has the shape {array.shape}; one ECG is [leads, samples], such as (12, 5000): of several, give "
            "one after the other"
        )
    if array.shape[0] > array.shape[1]:
        raise RecordError(f"{NAME} has the shape {array.shape}, a column a lead; transpose it to [leads, samples]")
    signal = array.astype(np.float64)
    signal[~np.isfinite(signal)] = np.nan
    return signal


def _rate(rate_hz: Any) -> float:
    low, high = RATE_LIMITS_HZ
    if rate_hz is None:
        raise RecordError(f"rate_hz is not given: an array does not say at how many Hz it was sampled; give {low:g} up")
    number = isinstance(rate_hz, Real) and not isinstance(rate_hz, bool)
    if not number or not math.isfinite(rate_hz) or not low <= rate_hz <= high:
        said = f"{rate_hz:g}" if number else repr(rate_hz)
        raise RecordError(f"rate_hz={said} is outside {low:g} to {high:g} Hz; give the rate at which it was sampled")
    return float(rate_hz)


def _names(leads: Sequence[str] | None, count: int) -> list[tuple[str | None, float]]:
    """(name among LEADS, sign) of every row."""
    if leads is None:
        usual = {len(LEADS): LEADS, len(INDEPENDENT_LEADS): INDEPENDENT_LEADS}
        if count not in usual:
            raise RecordError(
                f"{NAME} has {count} rows: without leads= there are 12 ({', '.join(LEADS)}) or 8 "
                f"({', '.join(INDEPENDENT_LEADS)}); name the rows by leads="
            )
        return [(name, 1.0) for name in usual[count]]
    if isinstance(leads, str) or len(leads) != count:
        raise RecordError(f"leads= names {1 if isinstance(leads, str) else len(leads)} rows, {NAME} has {count}")
    found = [canonical(str(name)) for name in leads]
    unknown = [str(label) for label, (name, _) in zip(leads, found, strict=True) if name is None]
    if unknown:
        raise RecordError(f"leads= names {', '.join(unknown)[:80]}, none of {', '.join(LEADS)}; leave such rows out")
    twice = sorted({str(name) for name, _ in found if sum(name == other for other, _ in found) > 1})
    if twice:
        raise RecordError(f"leads= names {', '.join(twice)} more than once; give each lead one row")
    return found
