"""One 12-lead ECG from any WFDB record: leads named, ordered, scaled to mV, resampled and cut to one window.

The rules, all of them stated in errors and warnings:
- the limb leads may be any two of I, II, III, aVR, aVL, aVF (the rest follow by Einthoven and Goldberger); V1 to V6
  must all be there; other channels (vector leads, pressures) are left aside;
- the window is the middle one of the record; where samples are missing there, the longest stretch without a gap is
  used; gaps of up to 40 ms are bridged by a straight line and said so, longer ones that no window avoids are an error;
- where the header's gains are each lead's own peak-to-peak range (LUDB), the samples are taken as microvolts;
- a record shorter than the window is returned as it is if it lasts at least 8 s, else it is an error;
- up to three flat leads are a warning, more are an error.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["LEADS", "RecordError", "Recording", "folder_records", "parse_age_years", "parse_sex_female", "read_ecg"]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SHORTEST_S = 8.0
RATE_LIMITS_HZ = (100.0, 10_000.0)  # below 100 Hz no interval can be measured to useful accuracy
BRIDGED_GAP_S = 0.04
FLAT_MV = 0.005  # peak to peak: the resolution of a 12-bit recorder
MOST_FLAT = 3
READ_AT_MOST_S = 120.0  # of a long recording only the middle is read

# Every limb lead as a sum of I and II.
_LIMB = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0),
         "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}  # fmt: skip
_MV = {"mv": 1.0, "millivolt": 1.0, "millivolts": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "microvolt": 1e-3,
       "microvolts": 1e-3, "nv": 1e-6, "v": 1e3, "volt": 1e3, "volts": 1e3}  # fmt: skip
_ALIASES = {name.upper(): name for name in LEADS}
_ALIASES |= {f"C{i}": f"V{i}" for i in range(1, 7)}  # the IEC's older names
_ALIASES |= {"1": "I", "2": "II", "3": "III", "DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III",
             "LI": "I", "LII": "II", "LIII": "III", "MLI": "I", "MLII": "II", "MLIII": "III", "VR": "aVR", "VL": "aVL",
             "VF": "aVF", "MV1": "V1", "MV2": "V2", "MV3": "V3", "MV4": "V4", "MV5": "V5", "MV6": "V6"}  # fmt: skip


class RecordError(ValueError):
    """A record that cannot be used; the message names the value, the limit and the remedy."""


class Recording(NamedTuple):
    """One ECG as read."""

    ecg_mv: Tensor  # [12, T] float32 mV, order LEADS
    sampling_rate_hz: float
    age_years: float | None
    sex_female: bool | None
    name: str
    warnings: tuple[str, ...]
    leads_missing: tuple[str, ...]  # limb leads the record did not have: derived from the others


def _canonical(label: object) -> tuple[str | None, float]:
    """A channel's name as one of LEADS (or None) and its sign: '-aVR' is aVR upside down."""
    text = re.sub(r"[\s_.]+", "", str(label or "")).upper()
    text = re.sub(r"^(MDC)?(ECG)?(LEAD)?", "", text)
    sign = -1.0 if text.startswith("-") else 1.0
    return _ALIASES.get(text.lstrip("-")), sign


def _base(path: str | Path) -> Path:
    """The record's path without extension, its header known to exist."""
    path = Path(path)
    base = path.with_suffix("") if path.suffix.lower() in (".hea", ".dat", ".mat") else path
    header = base.parent / (base.name + ".hea")
    if header.is_file():
        return base
    if path.is_dir():
        raise RecordError(f"{path} is a folder, not a record; give one record of it (folder_records lists them)")
    if path.is_file():
        raise RecordError(f"{path} is not a WFDB record: there is no {header.name} beside it; give a record's .hea")
    raise RecordError(f"no WFDB record at {path}: {header} does not exist; give the path of a .hea file")


def _read(base: Path):
    """The wfdb record (physical units), at most its middle two minutes."""
    import wfdb

    try:
        header = wfdb.rdheader(str(base))
        rate, channels, length = header.fs, header.n_sig, header.sig_len
    except Exception as error:  # wfdb raises whatever its parser stumbles on
        raise RecordError(f"{base}.hea is not a WFDB header ({error}); give a record written in WFDB format") from error
    low, high = RATE_LIMITS_HZ
    if rate is None or not low <= float(rate) <= high:
        raise RecordError(
            f"{base}: sampling rate {rate} Hz is outside {low:g} to {high:g} Hz; correct the first line of the header"
        )
    if not channels or length == 0:
        raise RecordError(f"{base}: the record is empty ({channels} signals, {length} samples); give a 12-lead record")
    window = {}
    if length and length > READ_AT_MOST_S * rate:
        half = int(READ_AT_MOST_S * rate / 2)
        window = {"sampfrom": length // 2 - half, "sampto": length // 2 + half}
    try:
        record = wfdb.rdrecord(str(base), **window)
    except Exception as error:
        raise RecordError(f"{base}: the signals cannot be read ({error}); fetch all its files again") from error
    if record.p_signal is None or record.p_signal.shape[0] == 0:
        raise RecordError(f"{base}: the record holds no samples; fetch the record again")
    return record


def _gain_fields(base: Path) -> list[str]:
    """The third field of every signal line: '200(0)/mV'. Two things in it wfdb does not tell: that there is no gain
    (it takes 200 units per mV), and a unit that is not ASCII (of 'µV' it keeps 'V')."""
    content = (base.parent / (base.name + ".hea")).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [fields[2] if len(fields) > 2 else "" for fields in lines[1:]]


def _gains_are_ranges(record) -> bool:
    """Whether every lead was scaled to its own range of 1, as in LUDB 1.0.1: there the gain in the header is the lead's
    peak-to-peak, which breaks Einthoven's law; the samples themselves obey it to 0.3 % and have the size of microvolts.
    """
    signal, gains = record.p_signal, record.adc_gain
    if gains is None or signal.shape[1] < 3 or not np.isfinite(signal).all():
        return False
    spread = np.ptp(signal, axis=0)
    if np.abs(spread - 1.0).max() > 1e-3 or np.ptp(gains) == 0:
        return False
    limb = {_canonical(label)[0]: signal[:, i] * gains[i] for i, label in enumerate(record.sig_name)}
    if not {"I", "II", "III"} <= limb.keys():
        return False
    return bool(np.std(limb["II"] - limb["I"] - limb["III"]) < 0.05 * np.std(limb["III"]))


def _leads_mv(record, base: Path, warnings: list[str]) -> dict[str, np.ndarray]:
    """name -> [T] float64 mV of the recorded leads among LEADS."""
    found: dict[str, np.ndarray] = {}
    ranges = _gains_are_ranges(record)
    if ranges:
        warnings.append("the header scales every lead to its own range: gains ignored, samples taken as microvolts")
    fields = _gain_fields(base)
    if len(fields) != len(record.sig_name):  # the header of a record in segments has no signal lines
        fields = []
    for i, label in enumerate(record.sig_name):
        name, sign = _canonical(label)
        if name is None:
            continue
        if name in found:
            warnings.append(f"lead {name} is there more than once; the first is used")
            continue
        unit = str(record.units[i] if record.units else "").strip()
        if fields and not fields[i].isascii():
            unit = fields[i].partition("/")[2]
        if unit.lower() not in _MV:
            raise RecordError(
                f"{base}: lead {label} is in unit {unit!r}; known are mV, uV, nV and V: state one of them in the header"
            )
        if fields and re.match(r"^(0+(\.0*)?(\(|/|$)|$)", fields[i]):
            warnings.append(f"lead {name}: the header states no gain; 200 units per mV taken")
        scale = record.adc_gain[i] * 1e-3 if ranges else _MV[unit.lower()]
        found[name] = record.p_signal[:, i].astype(np.float64) * (sign * scale)
        if not np.isfinite(found[name]).any():
            raise RecordError(f"{base}: lead {name} has no valid sample (all NaN); give a record that has this lead")
    return found


def _complete(found: dict[str, np.ndarray], base: Path, warnings: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """[12, T] in standard order, limb leads derived where they are missing, and the names of those."""
    chest = [name for name in LEADS[6:] if name not in found]
    limb = [name for name in LEADS[:6] if name in found]
    if chest or len(limb) < 2:
        short = f"limb leads {', '.join(limb) or 'none'} (two are needed)" if len(limb) < 2 else ""
        raise RecordError(
            f"{base}: missing leads: {', '.join(chest + ([short] if short else []))}; "
            f"needed are V1 to V6 and two of I, II, III, aVR, aVL, aVF (found: {', '.join(found) or 'none'})"
        )
    a, b = limb[0], limb[1]
    (a1, a2), (b1, b2) = _LIMB[a], _LIMB[b]
    det = a1 * b2 - a2 * b1
    one = (b2 * found[a] - a2 * found[b]) / det
    two = (a1 * found[b] - b1 * found[a]) / det
    missing = tuple(name for name in LEADS[:6] if name not in found)
    leads = [found.get(name, _LIMB[name][0] * one + _LIMB[name][1] * two) for name in LEADS[:6]]
    for name in limb[2:]:
        expected = _LIMB[name][0] * one + _LIMB[name][1] * two
        gap = np.nanstd(found[name] - expected)
        if gap > 0.05 and gap > 0.25 * np.nanstd(expected):
            warnings.append(f"lead {name} is {gap:.2f} mV (SD) off what {a} and {b} imply: leads may be swapped")
    return np.stack(leads + [found[name] for name in LEADS[6:]]), missing


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of the stretches where mask holds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _bridge(ecg: np.ndarray, rate: float, warnings: list[str]) -> np.ndarray:
    """Short gaps bridged by a straight line."""
    for row, name in zip(ecg, LEADS, strict=True):
        lost = ~np.isfinite(row)
        if not lost.any():
            continue
        short = [(a, b) for a, b in _runs(lost) if b - a <= BRIDGED_GAP_S * rate and a > 0 and b < row.size]
        for a, b in short:
            row[a:b] = np.interp(np.arange(a, b), (a - 1, b), (row[a - 1], row[b]))
        if short:
            warnings.append(f"lead {name}: {sum(b - a for a, b in short)} missing samples bridged by a straight line")
    return ecg


def _window(ecg: np.ndarray, rate: float, seconds: float, base: Path, warnings: list[str]) -> tuple[int, int]:
    """(start, stop) of the window in samples."""
    length = ecg.shape[1]
    wanted = int(round(seconds * rate))
    shortest = min(SHORTEST_S, seconds)
    if length < int(shortest * rate):
        raise RecordError(
            f"{base}: {length / rate:.1f} s of signal; at least {shortest:g} s are needed: give a longer recording"
        )
    start = max((length - wanted) // 2, 0)
    stop = min(start + wanted, length)
    lost = ~np.isfinite(ecg)
    if lost[:, start:stop].any():
        a, b = max(_runs(~lost.any(axis=0)), key=lambda run: run[1] - run[0], default=(0, 0))
        if b - a < int(shortest * rate):
            worst = int(lost.sum(axis=1).argmax())
            raise RecordError(
                f"{base}: lead {LEADS[worst]} lacks {int(lost[worst].sum())} of {length} samples (NaN) and the longest "
                f"stretch valid in all leads is {(b - a) / rate:.1f} s, under {shortest:g} s: give a cleaner recording"
            )
        start = a + max((b - a - wanted) // 2, 0)
        stop = min(start + wanted, b)
        warnings.append(f"missing samples: the window was moved to {start / rate:.1f} s from the record's start")
    if stop - start < wanted:
        warnings.append(f"{(stop - start) / rate:.1f} s of signal, shorter than the {seconds:g} s asked for")
    return start, stop


def _resample(ecg: np.ndarray, start: int, stop: int, rate: float, target: float) -> np.ndarray:
    """The window at the target rate. Up to a second on either side feeds the filter, then is cut off."""
    if rate == target:
        return ecg[:, start:stop]
    from scipy.signal import resample_poly

    ratio = Fraction(target / rate).limit_denominator(1000)
    lead_in = min(start, int(rate) // ratio.denominator * ratio.denominator)
    lead_in -= lead_in % ratio.denominator  # so that the cut falls on a sample of the new grid
    clean = np.isfinite(ecg[:, start - lead_in : start]).all()
    lead_in = lead_in if clean else 0
    tail = min(ecg.shape[1] - stop, int(rate))
    tail = tail if np.isfinite(ecg[:, stop : stop + tail]).all() else 0
    piece = ecg[:, start - lead_in : stop + tail]
    level = np.median(piece, axis=1, keepdims=True)
    # resample_poly low-passes below the lower of the two Nyquist rates (Kaiser window) before it drops samples.
    fine = resample_poly(piece - level, ratio.numerator, ratio.denominator, axis=1, padtype="line") + level
    skip = lead_in * ratio.numerator // ratio.denominator
    return fine[:, skip : skip + int(round((stop - start) * target / rate))]


def _check_flat(ecg: np.ndarray, missing: tuple[str, ...], base: Path, warnings: list[str]) -> None:
    spread = ecg.max(axis=1) - ecg.min(axis=1)
    flat = [name for name, x in zip(LEADS, spread, strict=True) if x < FLAT_MV and name not in missing]
    if len(flat) > MOST_FLAT:
        raise RecordError(
            f"{base}: {len(flat)} flat leads ({', '.join(flat)}), under {FLAT_MV * 1000:g} uV peak to peak; at most "
            f"{MOST_FLAT} may be: check the electrodes or the gain and give another recording"
        )
    warnings.extend(f"lead {name} is flat (under {FLAT_MV * 1000:g} uV peak to peak)" for name in flat)
    typical = float(np.median(spread))
    if not 0.1 <= typical <= 20.0:
        warnings.append(f"the leads are {typical:.3g} mV peak to peak (median), not 0.1 to 20 mV: check gain and unit")


def parse_age_years(text: str) -> float | None:
    """'56' -> 56, '>89' -> 90 (and 300, PTB-XL's code for it), 'NaN' and the implausible -> None."""
    match = re.match(r"^\s*(>?)\s*(\d+(?:\.\d+)?)", text)
    if not match:
        return None
    age = float(match.group(2))
    if age == 300 or match.group(1):
        return 90.0
    return age if age <= 120 else None


def parse_sex_female(text: str) -> bool | None:
    """'F', 'female' -> True; 'M', 'male' -> False; else None."""
    word = text.strip().lower()
    return True if word in ("f", "female") else False if word in ("m", "male") else None


def _comment(comments: list[str], key: str) -> str:
    for line in comments or ():
        match = re.match(rf"^\W*{key}\W*[:=]\s*(.*)$", line.strip(), flags=re.IGNORECASE)
        if match:
            return match.group(1)
    return ""


def read_ecg(path: str | Path, sampling_rate_hz: float = 500.0, seconds: float = 10.0) -> Recording:
    """Read one WFDB record (path with or without .hea, .dat or .mat) as a 12-lead ECG in mV.

    Any lead order and naming, gain, rate and unit; age and sex from the header's comments where they stand there
    (PhysioNet Challenge `Age: 56`, LUDB `<age>: 51`, PTB `age: 81`).

    Raises:
        RecordError: no such file, not a WFDB header, missing or all-NaN leads, too short, unknown unit, a rate out of
            100 to 10,000 Hz, no samples, more than three flat leads.
        ValueError: `sampling_rate_hz` or `seconds` is not positive.
    """
    if not sampling_rate_hz > 0 or not seconds > 0:
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz} and seconds={seconds} must both be above 0")
    base = _base(path)
    record = _read(base)
    rate = float(record.fs)
    warnings: list[str] = []
    ecg, missing = _complete(_leads_mv(record, base, warnings), base, warnings)
    if missing:
        warnings.append(f"limb leads derived from the others: {', '.join(missing)}")
    ecg = _bridge(ecg, rate, warnings)
    start, stop = _window(ecg, rate, seconds, base, warnings)
    ecg = _resample(ecg, start, stop, rate, float(sampling_rate_hz))
    _check_flat(ecg, missing, base, warnings)
    comments = list(getattr(record, "comments", None) or ())
    return Recording(
        ecg_mv=torch.from_numpy(np.ascontiguousarray(ecg, dtype=np.float32)),
        sampling_rate_hz=float(sampling_rate_hz),
        age_years=parse_age_years(_comment(comments, "age")),
        sex_female=parse_sex_female(_comment(comments, "(?:sex|gender)")),
        name=base.name,
        warnings=tuple(warnings),
        leads_missing=missing,
    )


def folder_records(path: str | Path) -> list[Path]:
    """The WFDB records (paths without extension, sorted) in a folder and the folders below it.

    Raises:
        RecordError: no such folder, or no .hea file in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; give a folder of WFDB records")
    records = sorted(header.with_suffix("") for header in folder.rglob("*.hea"))
    if not records:
        raise RecordError(f"no .hea file in {folder}; give a folder of WFDB records")
    return records
