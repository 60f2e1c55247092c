"""WFDB records with leads missing, flat or lost for a while: read all the same, and made whole.

`wfdb.reader.read_ecg` refuses a record without V1 to V6, one with gaps throughout and one with more than three flat
leads; here what is not there is NaN, and `ecg.lead_repair` makes it from at least two whole leads among the eight
independent ones (I, II, V1 to V6).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from world_models.data.ecg.wfdb.comments import patient_of
from world_models.data.ecg.wfdb.reader import SHORTEST_S, RecordError, Recording
from world_models.data.ecg.wfdb.record import read_leads
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
from world_models.ecg.lead_repair import RepairedLeads, repair_leads, warnings_of

__all__ = ["RepairedRecording", "read_with_gaps", "read_repaired"]


class RepairedRecording(NamedTuple):
    """A record as `read_ecg` gives it, and which of its leads were made."""

    recording: Recording  # its warnings name each lead that was made
    leads_made: tuple[str, ...]  # of I, II, V1-V6, in part or whole
    repaired: RepairedLeads  # of the one row


def _resampled(lead: np.ndarray, rate: float, target: float) -> np.ndarray:
    """A lead at another rate; NaN where its nearest sample was none."""
    from scipy.signal import resample_poly

    if rate == target or not np.isfinite(lead).any():
        return np.full(round(len(lead) * target / rate), np.nan) if rate != target else lead
    ratio = Fraction(target / rate).limit_denominator(1000)
    there = np.flatnonzero(np.isfinite(lead))
    whole = np.interp(np.arange(len(lead)), there, lead[there])
    level = float(np.median(whole))
    made = resample_poly(whole - level, ratio.numerator, ratio.denominator, padtype="line") + level
    made = made[: round(len(lead) * target / rate)]
    nearest = np.minimum((np.arange(len(made)) * rate / target).round().astype(int), len(lead) - 1)
    return np.where(np.isfinite(lead[nearest]), made, np.nan)


def read_with_gaps(path: str | Path, sampling_rate_hz: float = 500.0, seconds: float = 10.0) -> Recording:
    """The middle of a record, [12, T] mV, NaN where a lead or a sample is not there.

    Raises:
        RecordError: no such record, an unknown unit or rate, or too short.
        ValueError: `sampling_rate_hz` or `seconds` is not positive.
    """
    if not sampling_rate_hz > 0 or not seconds > 0:
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz} and seconds={seconds} must both be above 0")
    path = Path(path)
    base = path.with_suffix("") if path.suffix.lower() in (".hea", ".dat", ".mat") else path
    if not base.with_name(base.name + ".hea").is_file():
        raise RecordError(f"no WFDB record at {path}: {base.name}.hea does not exist; give the path of a .hea file")
    warnings: list[str] = []
    leads, rate, comments = read_leads(base, None, warnings)
    length = max((len(lead) for lead in leads.values()), default=0)
    if length < SHORTEST_S * rate:
        raise RecordError(
            f"{base}: {length / rate:.1f} s of any lead; at least {SHORTEST_S:g} s are needed: give a longer recording"
        )
    wanted = round(seconds * rate)
    start = max((length - wanted) // 2, 0)
    absent = np.full(min(wanted, length), np.nan)
    cut = {name: lead[start : start + wanted] for name, lead in leads.items()}
    ecg = np.stack([_resampled(cut.get(name, absent), rate, sampling_rate_hz) for name in LEADS])
    age_years, sex_female = patient_of(comments, warnings)
    return Recording(
        ecg_mv=torch.from_numpy(np.ascontiguousarray(ecg, dtype=np.float32)),
        sampling_rate_hz=float(sampling_rate_hz),
        age_years=age_years,
        sex_female=sex_female,
        name=base.name,
        warnings=tuple(warnings),
        leads_missing=tuple(name for name in LEADS if name not in leads),
    )


def read_repaired(path: str | Path, sampling_rate_hz: float = 500.0, seconds: float = 10.0) -> RepairedRecording:
    """A record made whole, with a warning for every lead that was made.

    Raises:
        RecordError: as `read_with_gaps`, or fewer than two whole leads of I, II, V1-V6.
    """
    recording = read_with_gaps(path, sampling_rate_hz, seconds)
    try:
        repaired = repair_leads(recording.ecg_mv.unsqueeze(0), sampling_rate_hz)
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
    made = [n for n, gone in zip(INDEPENDENT_LEADS, repaired.reconstructed[0].tolist(), strict=True) if gone]
    warnings = (*recording.warnings, *warnings_of(repaired))
    return RepairedRecording(recording._replace(ecg_mv=repaired.ecg_mv[0], warnings=warnings), tuple(made), repaired)
