"""One 12-lead ECG from any WFDB record: leads named, ordered, scaled to mV, resampled and cut to one window.

The rules, all of them stated in errors and warnings:
- the limb leads may be any two of I, II, III, aVR, aVL, aVF (the rest follow by Einthoven and Goldberger, also where a
  lead is there but has no valid sample); V1 to V6 must all be there; other channels (vector leads, pressures) are left
  aside;
- each lead is read at its own rate (samples a frame times frames a second); unlike rates are brought to the highest;
- a header that states no rate is an error unless the rate is given;
- the window is the middle one of the record; where samples are missing there, the longest stretch without a gap is
  used; gaps of up to 40 ms are bridged by a straight line and said so, longer ones that no window avoids are an error;
- where the header's gains are each lead's own peak-to-peak range (LUDB), the samples are taken as microvolts;
- a record shorter than the window is returned as it is, with a warning, if it lasts long enough, else it is an error;
- up to three flat leads are a warning, more are an error;
- where a caller can do with fewer (`whole=False`), leads that are missing, flat or without samples are NaN and named;
- no file is opened that is not a regular one in the header's own folder, and what a header asks for is held against
  limits before anything is allocated (`header`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.data.ecg.wfdb.comments import parse_age_years, parse_sex_female, patient_of
from world_models.data.ecg.wfdb.header import RecordError, segments_of
from world_models.data.ecg.wfdb.leads import complete
from world_models.data.ecg.wfdb.record import read_leads
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS

__all__ = ["RecordError", "Recording", "folder_records", "from_leads", "parse_age_years", "parse_sex_female"]
__all__ += ["read_ecg"]

SHORTEST_S = 4.0  # what the delineator needs
BRIDGED_GAP_S = 0.04
FLAT_MV = 0.005  # peak to peak: the resolution of a 12-bit recorder
USUAL_MV = (0.1, 20.0)  # peak to peak, median over the leads
MOST_FLAT = 3
LEAST_GOOD = 2  # of the independent leads, where others may be lost: as `ecg.lead_repair` needs
CLIPPED_SHARE = 0.02  # of the samples at the very highest, or lowest, value; of 539 real recordings at most 1.3 %


class Recording(NamedTuple):
    """One ECG as read."""

    ecg_mv: Tensor  # [12, T] float32 mV, order LEADS
    sampling_rate_hz: float
    age_years: float | None
    sex_female: bool | None
    name: str
    warnings: tuple[str, ...]
    leads_missing: tuple[str, ...]  # limb leads the record did not have, or not throughout: derived from the others
    leads_lost: tuple[str, ...] = ()  # of I, II, V1-V6: without a signal and NaN (only where asked for)
    start_s: float = 0.0  # where the window begins, from the start of the record


def _base(path: str | Path) -> Path:
    """The record's path without extension, its header known to exist."""
    path = Path(path)
    base = path.with_suffix("") if path.suffix.lower() in (".hea", ".dat", ".mat") else path
    header = base.parent / (base.name + ".hea")
    if exists(header):  # not Path's: a name may be longer than any file's
        return base
    if isdir(path):
        raise RecordError(f"{path} is a folder, not a record; give the path of one of its .hea files")
    if isfile(path):
        raise RecordError(
            f"{path} is not a WFDB record: there is no {header.name} beside it; give a record's .hea, or read the file "
            "into an array and give that to clinenv.ecg.measure(array, rate_hz=...)"
        )
    raise RecordError(f"no WFDB record at {path}: {header} does not exist; give the path of a .hea file")


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of the stretches where mask holds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _bridge(ecg: np.ndarray, rate: float, warnings: list[str]) -> np.ndarray:
    """Short gaps bridged by a straight line."""
    for row, name in zip(ecg, LEADS, strict=True):
        lost = ~np.isfinite(row)
        if lost.all() or not lost.any():
            continue
        short = [(a, b) for a, b in _runs(lost) if b - a <= BRIDGED_GAP_S * rate]
        there = np.flatnonzero(~lost)
        for a, b in short:  # at the record's ends, which a skew may take, the last value is held
            row[a:b] = np.interp(np.arange(a, b), there, row[there])
        if short:
            warnings.append(f"lead {name}: {sum(b - a for a, b in short)} missing samples bridged by a straight line")
    return ecg


def _window(
    ecg: np.ndarray, rate: float, seconds: float, shortest: float, base: Path, warnings: list[str], began_s: float
) -> tuple[int, int]:
    """(start, stop) of the window in samples."""
    length = ecg.shape[1]
    wanted = int(round(seconds * rate))
    shortest = min(shortest, seconds)
    if length < int(shortest * rate):
        lasts = math.floor(10 * length / rate) / 10  # 3.999 s are not "4.0 s"
        raise RecordError(
            f"{base}: {lasts:.1f} s of signal; at least {shortest:g} s are needed: give a longer recording"
        )
    start = max((length - wanted) // 2, 0)
    stop = min(start + wanted, length)
    lost = ~np.isfinite(ecg)
    lost[lost.all(axis=1)] = False  # a lead that is not there asks for no window
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
        warnings.append(
            f"missing samples: the window was moved to {began_s + start / rate:.1f} s from the record's start"
        )
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
    there = ecg[np.isfinite(ecg[:, start:stop]).all(axis=1)]
    clean = np.isfinite(there[:, start - lead_in : start]).all()
    lead_in = lead_in if clean else 0
    tail = min(ecg.shape[1] - stop, int(rate))
    tail = tail if np.isfinite(there[:, stop : stop + tail]).all() else 0
    piece = ecg[:, start - lead_in : stop + tail]
    level = np.median(piece, axis=1, keepdims=True)
    # resample_poly low-passes below the lower of the two Nyquist rates (Kaiser window) before it drops samples.
    fine = resample_poly(piece - level, ratio.numerator, ratio.denominator, axis=1, padtype="line") + level
    skip = lead_in * ratio.numerator // ratio.denominator
    return fine[:, skip : skip + int(round((stop - start) * target / rate))]


def _without_flat(found: dict[str, np.ndarray], warnings: list[str]) -> dict[str, np.ndarray]:
    """The leads that are not flat throughout, so that limb leads are derived from those that carry a signal."""
    there = {name: mv for name, mv in found.items() if np.isfinite(mv).any()}
    flat = {name for name, mv in there.items() if np.nanmax(mv) - np.nanmin(mv) < FLAT_MV}
    warnings.extend(f"lead {name} is flat (under {FLAT_MV * 1000:g} uV peak to peak)" for name in LEADS if name in flat)
    return {name: mv for name, mv in there.items() if name not in flat}


def _without_gaps(ecg: np.ndarray, rate: float, shortest: float, warnings: list[str]) -> np.ndarray:
    """Leads [12, T], those of them NaN whose gaps leave no stretch of `shortest` seconds in common: the worst first."""
    ecg = ecg.copy()
    lost = ~np.isfinite(ecg)
    while True:
        part = lost & ~lost.all(axis=1, keepdims=True)
        longest = max((b - a for a, b in _runs(~part.any(axis=0))), default=0)
        if longest >= int(shortest * rate) or not part.any():
            return ecg
        worst = int(part.sum(axis=1).argmax())
        warnings.append(f"lead {LEADS[worst]} lacks {int(part[worst].sum())} of {ecg.shape[1]} samples: not used")
        ecg[worst], lost[worst] = np.nan, True


def _lost_leads(ecg: np.ndarray, base: Path) -> tuple[str, ...]:
    """Which of I, II, V1-V6 are NaN or flat in the window [12, T]; flat ones become NaN.

    Raises:
        RecordError: fewer than two are left.
    """
    for row in ecg:
        if row.max() - row.min() < FLAT_MV:
            row[:] = np.nan
    lost = tuple(n for n in INDEPENDENT_LEADS if not np.isfinite(ecg[LEADS.index(n)]).any())
    good = [n for n in INDEPENDENT_LEADS if n not in lost]
    if len(good) < LEAST_GOOD:
        raise RecordError(
            f"{base}: of the independent leads {', '.join(INDEPENDENT_LEADS)} only {', '.join(good) or 'none'} carries "
            f"a signal; at least {LEAST_GOOD} are needed: check the electrodes and give another recording"
        )
    return lost


def _check_flat(ecg: np.ndarray, missing: tuple[str, ...], base: Path, warnings: list[str], whole: bool) -> None:
    spread = ecg.max(axis=1) - ecg.min(axis=1)
    flat = [name for name, x in zip(LEADS, spread, strict=True) if x < FLAT_MV and name not in missing]
    if len(flat) > MOST_FLAT and whole:
        raise RecordError(
            f"{base}: {len(flat)} flat leads ({', '.join(flat)}), under {FLAT_MV * 1000:g} uV peak to peak; at most "
            f"{MOST_FLAT} may be: check the electrodes or the gain and give another recording"
        )
    warnings.extend(f"lead {name} is flat (under {FLAT_MV * 1000:g} uV peak to peak)" for name in flat)
    typical = float(np.nanmedian(spread))
    low, high = USUAL_MV
    if not low <= typical <= high:
        warnings.append(
            f"the leads are {typical:.3g} mV peak to peak (median), not {low:g} to {high:g} mV: check gain and unit"
        )


def _check_clipped(ecg: np.ndarray, warnings: list[str]) -> None:
    """Warn of leads [12, T] cut off at a level, as by a full converter: their waves are lower and shorter than they
    were."""
    extreme = np.stack([ecg.max(axis=1), ecg.min(axis=1)])[:, :, None]
    share = (ecg == extreme).mean(axis=2).max(axis=0)
    clipped = (share > CLIPPED_SHARE) & (ecg.max(axis=1) - ecg.min(axis=1) >= 10 * FLAT_MV)
    if clipped.any():
        named = ", ".join(name for name, is_clipped in zip(LEADS, clipped, strict=True) if is_clipped)
        warnings.append(f"lead {named}: clipped at its highest or lowest value, so that intervals may be off")


def read_ecg(
    path: str | Path,
    sampling_rate_hz: float = 500.0,
    seconds: float = 10.0,
    rate_hz: float | None = None,
    shortest_s: float = SHORTEST_S,
    whole: bool = True,
) -> Recording:
    """Read one WFDB record (path with or without .hea, .dat or .mat) as a 12-lead ECG in mV.

    Any lead order and naming, gain, rate and unit; age and sex from the header's comments where they stand there
    (`comments`).

    Args:
        sampling_rate_hz: of the ECG returned.
        seconds: of the ECG returned; a shorter record comes as it is, with a warning.
        rate_hz: at which the leads were sampled, for a header that does not state it (or states it wrongly).
        shortest_s: what a record must last.
        whole: False: leads may be missing, flat or without samples, as long as two of I, II, V1-V6 are good; they come
            as NaN, the eight's names in `leads_lost`. `world_models.ecg.lead_repair` makes them from the others.

    Raises:
        RecordError: no such file, not a WFDB header, a header beyond its limits, a file outside the record's folder,
            missing or all-NaN leads, too short, unknown unit, no rate or one out of 100 to 10,000 Hz, no samples, more
            than three flat leads.
        ValueError: `sampling_rate_hz`, `seconds` or `rate_hz` is not positive.
    """
    if not sampling_rate_hz > 0 or not seconds > 0:
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz} and seconds={seconds} must both be above 0")
    if rate_hz is not None and not rate_hz > 0:
        raise ValueError(f"rate_hz={rate_hz} must be above 0; give the rate at which the record was sampled")
    base = _base(path)
    warnings: list[str] = []
    leads, rate, comments, began_s = read_leads(base, rate_hz, warnings)
    found = from_leads(leads, rate, base, sampling_rate_hz, seconds, shortest_s, whole, warnings, began_s)
    told: list[str] = []
    age_years, sex_female = patient_of(comments, told)
    return found._replace(age_years=age_years, sex_female=sex_female, warnings=(*found.warnings, *told))


def from_leads(
    leads: dict[str, np.ndarray],
    rate: float,
    base: Path,
    sampling_rate_hz: float,
    seconds: float,
    shortest_s: float,
    whole: bool,
    warnings: list[str],
    began_s: float = 0.0,
) -> Recording:
    """The window of leads that are at hand, as `read_ecg` makes it of a record's; age and sex unknown.

    Args:
        leads: name among LEADS -> [T] mV, NaN where there is no sample; all of one length.
        rate: of the leads, Hz.
        base: how messages call them; its last part is the name.
        warnings: what is known already; added to.
        began_s: where the leads begin, from the start of the record.

    Raises:
        RecordError: as `read_ecg`, but for what concerns files.
    """
    ecg, missing = complete(leads if whole else _without_flat(leads, warnings), base, warnings, whole)
    ecg = _bridge(ecg, rate, warnings)
    if not whole:
        ecg = _without_gaps(ecg, rate, min(shortest_s, seconds), warnings)
    start, stop = _window(ecg, rate, seconds, shortest_s, base, warnings, began_s)
    _check_clipped(ecg[:, start:stop], warnings)
    ecg = _resample(ecg, start, stop, rate, float(sampling_rate_hz))
    lost = () if whole else _lost_leads(ecg, base)
    _check_flat(ecg, missing, base, warnings, whole)
    return Recording(
        ecg_mv=torch.from_numpy(np.ascontiguousarray(ecg, dtype=np.float32)),
        sampling_rate_hz=float(sampling_rate_hz),
        age_years=None,
        sex_female=None,
        name=base.name,
        warnings=tuple(warnings),
        leads_missing=missing,
        leads_lost=lost,
        start_s=began_s + start / rate,
    )


def folder_records(path: str | Path) -> list[Path]:
    """The WFDB records (paths without extension, sorted) in a folder and the folders below it.

    Segments are not listed beside the record that they belong to.

    Raises:
        RecordError: no such folder, or no .hea file in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; give a folder of WFDB records")
    records = sorted(header.with_suffix("") for header in folder.rglob("*.hea"))
    if not records:
        raise RecordError(f"no .hea file in {folder}; give a folder of WFDB records")
    parts = {base.parent / name for base in records for name in segments_of(base)}
    return [base for base in records if base not in parts] or records
