"""WFDB records for the tests: a drawn 12-lead ECG with known intervals, written by wfdb in any order, gain and rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from world_models.ecg.lead_names import LEADS

RR_MS, PR_MS, QRS_MS, QT_MS, TPEAK_TEND_MS = 900.0, 160.0, 92.0, 400.0, 84.0

# Amplitude in mV of P, Q, R, S, T in the eight independent leads: a plain normal axis.
_WAVES = {
    "I": (0.09, -0.05, 0.70, -0.12, 0.22),
    "II": (0.14, -0.08, 1.10, -0.15, 0.32),
    "V1": (0.06, 0.0, 0.25, -1.00, -0.08),
    "V2": (0.07, 0.0, 0.45, -1.30, 0.35),
    "V3": (0.07, -0.02, 0.80, -0.90, 0.42),
    "V4": (0.07, -0.06, 1.30, -0.50, 0.40),
    "V5": (0.07, -0.08, 1.25, -0.20, 0.32),
    "V6": (0.07, -0.08, 0.95, -0.10, 0.24),
}


def drawn_ecg(seconds: float = 10.0, hz: float = 500.0, noise_uv: float = 5.0) -> np.ndarray:
    """[12, T] in mV. QRS onset is 0.4 QRS before R; T is Gaussian to its right with SD = Tpeak-Tend / 2."""
    t = np.arange(round(seconds * hz)) / hz * 1000.0
    onset = -0.4 * QRS_MS
    places = (onset - PR_MS + 50.0, onset + 14.0, 0.0, QRS_MS * 0.6 - 18.0, onset + QT_MS - TPEAK_TEND_MS)
    lead = {name: np.zeros_like(t) for name in _WAVES}
    for r in np.arange(0.5 * RR_MS, t[-1] + RR_MS, RR_MS):
        for i, (place, sd) in enumerate(zip(places, (25.0, 6.0, 10.0, 8.0, 42.0), strict=True)):
            d = t - r - place
            width = np.where(d < 0, 50.0, TPEAK_TEND_MS / 2) if i == 4 else sd
            bump = np.exp(-0.5 * (d / width) ** 2)
            for name, heights in _WAVES.items():
                lead[name] += heights[i] * bump
    rng = np.random.default_rng(7)
    lead = {name: x + rng.normal(0, noise_uv / 1000, x.shape) for name, x in lead.items()}
    one, two = lead["I"], lead["II"]
    limb = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([{**lead, **limb}[name] for name in LEADS])


def write_record(
    folder: Path,
    name: str = "rec",
    ecg_mv: np.ndarray | None = None,
    hz: float = 500.0,
    order: Sequence[str] = LEADS,
    unit: str = "mV",
    gain: float = 1000.0,
    comments: Sequence[str] = ("Age: 61", "Sex: Female"),
) -> Path:
    """Write the leads named in `order`; the record's path without ending."""
    import wfdb

    ecg = drawn_ecg(hz=hz) if ecg_mv is None else ecg_mv
    scale = {"mV": 1.0, "uV": 1000.0}.get(unit, 1.0)
    signal = np.stack([ecg[LEADS.index(lead)] for lead in order], axis=1) * scale
    count = len(order)
    wfdb.wrsamp(
        name,
        fs=hz,
        units=[unit] * count,
        sig_name=list(order),
        p_signal=signal,
        fmt=["16"] * count,
        adc_gain=[gain / scale] * count,
        baseline=[0] * count,
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / name
