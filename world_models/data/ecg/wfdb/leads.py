"""The twelve leads among a record's channels: names and units of many makers, limb leads that follow from others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from world_models.data.ecg.wfdb.header import RecordError
from world_models.data.ecg.wfdb.signals import DEFAULT_GAIN, Channel
from world_models.ecg.lead_names import LEADS

__all__ = ["MV_OF_UNIT", "Lead", "canonical", "complete", "leads_of", "one_rate"]

# Every limb lead as a sum of I and II.
_LIMB = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0),
         "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}  # fmt: skip
MV_OF_UNIT = {"mv": 1.0, "millivolt": 1.0, "millivolts": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "microvolt": 1e-3,
              "microvolts": 1e-3, "nv": 1e-6, "v": 1e3, "volt": 1e3, "volts": 1e3}  # fmt: skip
_ALIASES = {name.upper(): name for name in LEADS}
_ALIASES |= {f"C{i}": f"V{i}" for i in range(1, 7)}  # the IEC's older names
_ALIASES |= {"1": "I", "2": "II", "3": "III", "DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III",
             "LI": "I", "LII": "II", "LIII": "III", "MLI": "I", "MLII": "II", "MLIII": "III", "VR": "aVR", "VL": "aVL",
             "VF": "aVF", "MV1": "V1", "MV2": "V2", "MV3": "V3", "MV4": "V4", "MV5": "V5", "MV6": "V6"}  # fmt: skip
_RANGE_ERROR = 1e-3  # of a range of 1, in leads that were scaled to it
_EINTHOVEN_ERROR = 0.05  # SD of II - I - III as a share of III's, below which they obey Einthoven's law
_SWAPPED_MV, _SWAPPED_SHARE = 0.05, 0.25  # SD of what a limb lead is off what two others imply


class Lead(NamedTuple):
    """One lead of a record, at its own rate."""

    mv: np.ndarray  # [T] float64, NaN where there is no sample
    samples_a_frame: int


def canonical(label: str) -> tuple[str | None, float]:
    """A channel's name as one of LEADS (or None) and its sign: '-aVR' is aVR upside down."""
    text = unicodedata.normalize("NFKC", label).translate({0x2212: "-", 0x2013: "-"})
    text = re.sub(r"[\s_.]+|[(\[][munµμ]?V[)\]]", "", text, flags=re.IGNORECASE).upper()
    text = re.sub(r"^(MDC)?(ECG)?(LEAD)?", "", text)
    sign = -1.0 if text.startswith("-") else 1.0
    return _ALIASES.get(text.lstrip("-")), sign


def _gains_are_ranges(channels: Sequence[Channel]) -> bool:
    """Whether every lead was scaled to its own range of 1, as in LUDB 1.0.1: there the gain in the header is the lead's
    peak-to-peak, which breaks Einthoven's law; the samples themselves obey it to 0.3 % and have the size of microvolts.
    """
    gains = [c.signal.gain or DEFAULT_GAIN for c in channels]
    if len(channels) < 3 or len({len(c.values) for c in channels}) > 1 or np.ptp(gains) == 0:
        return False
    signal = np.stack([c.values for c in channels])
    if not np.isfinite(signal).all() or np.abs(np.ptp(signal, axis=1) - 1.0).max() > _RANGE_ERROR:
        return False
    limb = {canonical(c.signal.label)[0]: c.values * gain for c, gain in zip(channels, gains, strict=True)}
    if not {"I", "II", "III"} <= limb.keys():
        return False
    return bool(np.std(limb["II"] - limb["I"] - limb["III"]) < _EINTHOVEN_ERROR * np.std(limb["III"]))


def leads_of(channels: Sequence[Channel], base: Path, warnings: list[str]) -> dict[str, Lead]:
    """Name -> lead, of the channels that are one of LEADS.

    Raises:
        RecordError: a lead in a unit that is no voltage.
    """
    found: dict[str, Lead] = {}
    no_gain: list[str] = []
    ranges = _gains_are_ranges(channels)
    if ranges:
        warnings.append("the header scales every lead to its own range: gains ignored, samples taken as microvolts")
    for signal, values in channels:
        name, sign = canonical(signal.label)
        if name is None:
            continue
        if name in found:
            warnings.append(f"lead {name} is there more than once; the first is used")
            continue
        unit = (signal.unit or "mV").strip().lower()
        if unit not in MV_OF_UNIT:
            raise RecordError(
                f"{base}: lead {signal.label} is in unit {signal.unit!r}; known are mV, uV, nV and V: state one of "
                "them in the header"
            )
        if signal.gain is None:
            no_gain.append(name)
        scale = (signal.gain or DEFAULT_GAIN) * 1e-3 if ranges else MV_OF_UNIT[unit]
        found[name] = Lead(values * (sign * scale), signal.samples_a_frame)
    if no_gain:
        warnings.append(
            f"the header states no gain for {', '.join(no_gain)}: {DEFAULT_GAIN:g} units per mV taken, check the "
            "amplitudes"
        )
    return found


def one_rate(leads: dict[str, Lead], frame_hz: float, warnings: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """The leads at the highest of their rates, and that rate in Hz."""
    from scipy.signal import resample_poly

    most = max((lead.samples_a_frame for lead in leads.values()), default=1)
    rates = sorted({lead.samples_a_frame for lead in leads.values()})
    if len(rates) > 1:
        said = ", ".join(f"{frame_hz * r:g}" for r in rates)
        warnings.append(f"the leads are sampled at {said} Hz: all brought to {frame_hz * most:g} Hz")
    found = {}
    for name, (mv, own) in leads.items():
        lost = ~np.isfinite(mv)
        if own == most or lost.all():
            found[name] = mv if own == most else np.full(len(mv) // own * most, np.nan)
            continue
        ratio = Fraction(most, own)
        time = np.arange(len(mv))
        whole = np.where(lost, np.interp(time, time[~lost], mv[~lost]), mv)
        level = np.median(whole)
        fine = resample_poly(whole - level, ratio.numerator, ratio.denominator, padtype="line") + level
        nearest = np.minimum(np.arange(len(fine)) * own // most, len(mv) - 1)
        found[name] = np.where(lost[nearest], np.nan, fine)
    return found, frame_hz * most


def complete(
    found: dict[str, np.ndarray], base: Path, warnings: list[str], whole: bool = True
) -> tuple[np.ndarray, tuple[str, ...]]:
    """All leads [12, T] in standard order, and the names of the limb leads that were derived.

    A limb lead that is not there, or not all the time, follows from any two others (Einthoven, Goldberger).

    Args:
        whole: False: chest leads that are not there are NaN, and so are I and II (but one of them that is there itself)
            where fewer than two limb leads are.

    Raises:
        RecordError: a chest lead or more than four limb leads are missing or without a valid sample (`whole` alone), or
            there is no lead at all.
    """
    there = {name: mv for name, mv in found.items() if np.isfinite(mv).any()}
    empty = [name for name in found if name not in there]
    chest = [name for name in LEADS[6:] if name not in there]
    limb = [name for name in LEADS[:6] if name in there]
    if not whole and there:
        silent = np.full_like(next(iter(there.values())), np.nan)
        there |= dict.fromkeys(chest, silent)
        warnings.extend(f"lead {lost} is not in the record, or has no signal" for lost in chest)
        if len(limb) < 2:
            warnings.append(f"of the limb leads only {', '.join(limb) or 'none'} has a signal")
            return np.stack([there.get(name, silent) for name in LEADS]), ()
        chest = []
    if not whole and not there:
        raise RecordError(
            f"{base}: none of its leads carries a signal ({', '.join(found) or 'there is none'}: flat, or without a "
            "valid sample); check the electrodes and give another recording"
        )
    if chest or len(limb) < 2:
        short = f"limb leads {', '.join(limb) or 'none'} (two are needed)" if len(limb) < 2 else ""
        unread = f"; without a valid sample: {', '.join(empty)}" if empty else ""
        raise RecordError(
            f"{base}: missing leads: {', '.join(chest + ([short] if short else []))}; "
            f"needed are V1 to V6 and two of I, II, III, aVR, aVL, aVF (found: {', '.join(there) or 'none'}{unread})"
        )
    one = np.full_like(there[limb[0]], np.nan)
    two = one.copy()
    for a, b in combinations(limb, 2):
        (a1, a2), (b1, b2) = _LIMB[a], _LIMB[b]
        det = a1 * b2 - a2 * b1
        open_ = np.isnan(one)
        one[open_] = (b2 * there[a] - a2 * there[b])[open_] / det
        two[open_] = (a1 * there[b] - b1 * there[a])[open_] / det
    derived, leads = [], []
    for name in LEADS[:6]:
        implied = _LIMB[name][0] * one + _LIMB[name][1] * two
        own = there.get(name, np.full_like(one, np.nan))
        if name in limb[2:]:
            _compare(name, own, implied, limb, warnings)
        lost = np.isnan(own) & ~np.isnan(implied)
        if lost.any():
            derived.append(name)
            part = "" if name not in there else f" for {int(lost.sum())} of {len(own)} samples"
            why = (
                "has no valid sample"
                if name in empty
                else "is not in the record"
                if name not in there
                else "lacks some"
            )
            warnings.append(f"lead {name} {why}: derived from the other limb leads{part}")
        leads.append(np.where(lost, implied, own))
    return np.stack(leads + [there[name] for name in LEADS[6:]]), tuple(derived)


def _compare(name: str, own: np.ndarray, implied: np.ndarray, limb: Sequence[str], warnings: list[str]) -> None:
    both = ~np.isnan(own) & ~np.isnan(implied)
    if not both.any():
        return
    gap = float(np.std((own - implied)[both]))
    if gap > _SWAPPED_MV and gap > _SWAPPED_SHARE * float(np.std(implied[both])):
        warnings.append(
            f"lead {name} is {gap:.2f} mV (SD) off what {limb[0]} and {limb[1]} imply: leads may be swapped"
        )
