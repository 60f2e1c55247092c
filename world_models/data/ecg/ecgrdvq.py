"""The FDA drug-response trials on PhysioNet: ECGRDVQ (SCR-002) and ECGDMMLD (SCR-003, whose table `ecgdmmld` turns).

Two things are read here: the clinical table (intervals and plasma concentrations, one row an ECG, three ECGs a nominal
time) into a tidy frame of triplicate means, and the waveforms (`raw/` and `medians/`, WFDB) by their reference id.
`trial_ecgs` joins the two, ECG by ECG.

Source: ECGRDVQ 1.0.0, ODC-By; trial NCT01873950; Johannesen 2014, doi 10.1038/clpt.2014.155. ECGDMMLD: trial
NCT02308748; Johannesen 2016, PMID 26259627.

In SCR-003 the arm's label is not the drug on board: a period has several doses, and the second drug enters hours after
the first. There, judge what is on board by the measured analytes (`conc_*_ng_per_ml`), never by `drug`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from world_models.data.ecg.ecgdmmld import in_columns_of_scr002
from world_models.data.ecg.wfdb.leads import complete
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.data.ecg.wfdb.record import read_leads
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT
from world_models.ecg.lead_names import LEADS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CLINICAL_FILES",
    "INTERVALS",
    "READINGS",
    "T_WAVE",
    "Waveform",
    "canonical_drug",
    "find_record",
    "load_raw",
    "load_trial",
    "numeric",
    "read_record",
    "tidied",
]

logger = logging.getLogger(__name__)

CLINICAL_FILES = ("SCR-002.Clinical.Data.csv", "SCR-003.Clinical.Data.csv")
INTERVALS: tuple[str, ...] = ("heart_rate_bpm", "rr_ms", "pr_ms", "qrs_ms", "qt_ms", "jt_peak_ms", "tpeak_tend_ms")
INTERVALS += ("qtcf_ms", "jt_peak_c_ms")
# our name -> the table's column. Amplitude is that of the vector magnitude (Vicente 2015, doi 10.1161/JAHA.114.001615).
T_WAVE: dict[str, str] = {
    "t_amplitude_uv": "Twave_amplitude",
    "t_asymmetry": "Twave_asymmetry",
    "t_flatness": "Twave_flatness",
    "erd_30_ms": "ERD_30",
    "lrd_30_ms": "LRD_30",
}
READINGS: tuple[str, ...] = (*INTERVALS, *T_WAVE)  # all that is measured on an ECG

_REQUIRED = (
    "EGREFID RANDID SEX AGE WGHT VISIT EXTRT EXDOSE EXDOSU TPT PCTEST PCSTRESN PCSTRESU RR PR QT QRS JTPEAK TPEAKTEND"
).split()
_MG = {"mg": 1.0, "ug": 1e-3, "µg": 1e-3, "mcg": 1e-3, "g": 1e3}
_NG_PER_ML = {
    "ng/ml": 1.0,
    "pg/ml": 1e-3,
    "ug/ml": 1e3,
    "µg/ml": 1e3,
    "mg/l": 1e3,
    "ug/l": 1.0,
    "µg/l": 1.0,
    "ng/l": 1e-3,
}
_PLAUSIBLE_MS: dict[str, tuple[float, float]] = {
    "RR": (240, 3000),
    "PR": (60, 600),
    "QRS": (40, 250),
    "QT": (150, 1000),
    "JTPEAK": (50, 800),
    "TPEAKTEND": (20, 400),
}

# A T wave that can be measured at all; readings beyond are those of a wave the delineator did not find.
_PLAUSIBLE_T = {
    "Twave_amplitude": (20, 3000),
    "Twave_asymmetry": (0, 3),
    "Twave_flatness": (0.02, 0.98),
    "ERD_30": (4, 250),
    "LRD_30": (4, 200),
}


def canonical_drug(label: object) -> str:
    """'Quinidine Sulph' -> 'quinidine', 'Verapamil HCL' -> 'verapamil'; combinations keep their '+'."""
    parts = str(label).lower().replace("/", "+").split("+")
    return "+".join(part.split()[0] for part in parts if part.split())


def _find_table(path: str | Path) -> Path:
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        for name in CLINICAL_FILES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"no clinical table in {path}: looked for {' and '.join(CLINICAL_FILES)}; give the CSV itself"
        )
    raise FileNotFoundError(f"{path} is neither a file nor a folder; give the trial's folder or its clinical CSV")


def load_raw(path: str | Path) -> pd.DataFrame:
    """The table as it stands, one row an ECG, columns checked; SCR-003's in those of SCR-002, with its analytes'.

    Raises:
        FileNotFoundError: no such file, or no clinical table in the folder.
        ValueError: not a CSV of this layout (missing columns are named), or no rows.
    """
    import pandas as pd

    table = _find_table(path)
    try:
        raw = pd.read_csv(table)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{table} cannot be read as a CSV ({error}); give the trial's clinical table") from error
    raw = in_columns_of_scr002(raw)
    missing = [name for name in _REQUIRED if name not in raw.columns]
    if missing:
        raise ValueError(f"{table} lacks the columns {', '.join(missing)}; the layout is that of {CLINICAL_FILES[0]}")
    if raw.empty:
        raise ValueError(f"{table} has no rows; give a table with at least one ECG")
    return raw


def _one_scale(values: pd.Series, table: dict[str, float], what: str) -> float:
    units = sorted({str(unit).strip() for unit in values.dropna()})
    if len(units) > 1:
        raise ValueError(f"{what} comes in mixed units ({', '.join(units)}); convert the file to one unit first")
    if not units:
        return 1.0
    if units[0].lower() not in table:
        raise ValueError(f"{what} has the unit {units[0]!r}, which is not known; use one of {', '.join(sorted(table))}")
    return table[units[0].lower()]


def _repair(raw: pd.DataFrame) -> pd.DataFrame:
    """Undo 32-bit wraps and blank what no heart can do."""
    raw = raw.copy()
    for name, (low, high) in _PLAUSIBLE_MS.items():
        values = numeric(raw[name], name)
        wrapped = (values < 0) | (values >= 2.0**31)
        if wrapped.any():
            # an unsigned difference that went below zero and was then written with or without its sign
            repaired = np.mod(values[wrapped], 2.0**32)
            repaired = np.where(repaired >= 2.0**31, repaired - 2.0**32, repaired)
            values[wrapped] = repaired
            logger.warning("%s: %d value(s) were 32-bit wraps and have been unwrapped", name, int(wrapped.sum()))
        odd = values.notna() & ~values.between(low, high)
        if odd.any():
            logger.warning("%s: %d value(s) outside %g..%g ms are dropped", name, int(odd.sum()), low, high)
            values[odd] = np.nan
        raw[name] = values
    for name, (least, most) in _PLAUSIBLE_T.items():
        if name not in raw.columns:  # a trial of intervals alone can be read; who needs the T wave says so
            logger.warning("no column %s: that measure of the T wave is unknown throughout", name)
            raw[name] = np.nan
        values = numeric(raw[name], name)
        odd = values.notna() & ~values.between(least, most)
        if odd.any():
            logger.warning("%s: %d value(s) outside %g..%g are dropped", name, int(odd.sum()), least, most)
        raw[name] = values.mask(odd)
    return raw


def numeric(column: pd.Series, name: str) -> pd.Series:
    """float64 column; text that is no number is an error that shows it."""
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce")
    bad = column[values.isna() & column.notna()]
    if len(bad):
        raise ValueError(f"column {name} holds {bad.iloc[0]!r}, which is not a number; correct or blank it")
    return values.astype(np.float64)


def tidied(path: str | Path) -> pd.DataFrame:
    """The table's rows, repaired and in one unit each, with columns of our own: drug (the arm, canonical), dose_mg (0
    where none is told), analyte and conc (ng/mL, of the row), conc_ng_per_ml (of the arm's own drug), sex_female.

    Raises:
        FileNotFoundError, ValueError: see `load_trial`.
    """
    raw = _repair(load_raw(path))
    for name in ("AGE", "WGHT", "TPT", "EXDOSE", "PCSTRESN"):
        raw[name] = numeric(raw[name], name)
    raw["drug"] = raw["EXTRT"].map(canonical_drug)
    raw["dose_mg"] = 0.0
    for drug, rows in raw.groupby("drug"):
        scale = _one_scale(rows["EXDOSU"], _MG, f"the dose of {drug}")
        raw.loc[rows.index, "dose_mg"] = (rows["EXDOSE"] * scale).fillna(0.0)
        if drug != "placebo" and (raw.loc[rows.index, "dose_mg"] <= 0).any():
            logger.warning("%s: some rows carry no dose", drug)
    raw["analyte"] = raw["PCTEST"].map(canonical_drug, na_action="ignore")
    raw["conc"] = np.nan
    for analyte, rows in raw.dropna(subset=["analyte"]).groupby("analyte"):
        raw.loc[rows.index, "conc"] = rows["PCSTRESN"] * _one_scale(
            rows["PCSTRESU"], _NG_PER_ML, f"the concentration of {analyte}"
        )
    own = [isinstance(a, str) and a in d.split("+") for a, d in zip(raw["analyte"], raw["drug"], strict=True)]
    raw["conc_ng_per_ml"] = raw["conc"].where(own)

    sex = raw["SEX"].astype(str).str.strip().str.upper().str[:1]
    if not sex.isin(["F", "M"]).all():
        raise ValueError(f"SEX holds {sorted(set(raw['SEX'].astype(str)) - {'F', 'M'})}; use F or M")
    raw["sex_female"] = (sex == "F").astype(np.float64)
    return raw


def load_trial(path: str | Path, analytes: bool = False) -> pd.DataFrame:
    """Triplicate means, one row a subject, period and nominal time, sorted.

    Columns: randid, drug (canonical, 'placebo'), period, hour (h after dosing; -0.5 is before it), sex_female,
    age_years, weight_kg, dose_mg, conc_ng_per_ml (of the analyte that is the arm's own drug; NaN where none was taken),
    replicates (ECGs with a QT), and every name in `READINGS` (the T wave's are NaN where the table has no such column:
    T_WAVE names them). QTcF = QT / RR^(1/3) and J-Tpeak c = J-Tpeak / RR^0.58
    (RR in s) are taken ECG by ECG, then averaged. Rows without any interval stay, with NaN intervals.
    `analytes=True` adds a column `conc_<analyte>_ng_per_ml` each (SCR-003: what is really on board).

    Raises:
        FileNotFoundError, ValueError: see `load_raw`; mixed or unknown units; a text where a number belongs.
    """
    import pandas as pd

    raw = tidied(path)
    rr_s = raw["RR"] / 1000.0
    tidy = pd.DataFrame(
        {
            "randid": raw["RANDID"],
            "drug": raw["drug"],
            "period": raw["VISIT"],
            "hour": raw["TPT"],
            "sex_female": raw["sex_female"],
            "age_years": raw["AGE"],
            "weight_kg": raw["WGHT"],
            "dose_mg": raw["dose_mg"],
            "conc_ng_per_ml": raw["conc_ng_per_ml"],
            "replicates": raw["QT"].notna().astype(int),
            "heart_rate_bpm": 60.0 / rr_s,
            "rr_ms": raw["RR"],
            "pr_ms": raw["PR"],
            "qrs_ms": raw["QRS"],
            "qt_ms": raw["QT"],
            "jt_peak_ms": raw["JTPEAK"],
            "tpeak_tend_ms": raw["TPEAKTEND"],
            "qtcf_ms": raw["QT"] / rr_s**QT_EXPONENT,
            "jt_peak_c_ms": raw["JTPEAK"] / rr_s**JT_PEAK_EXPONENT,
            **{name: raw[column] for name, column in T_WAVE.items()},
        }
    )
    keys = ["randid", "drug", "period", "hour"]
    rest = [name for name in tidy.columns if name not in keys]
    grouped = tidy.groupby(keys, as_index=False, dropna=False)
    result = grouped[rest].agg({name: "sum" if name == "replicates" else "mean" for name in rest})
    if analytes:
        long = raw.dropna(subset=["analyte"]).rename(columns={"RANDID": "randid", "VISIT": "period", "TPT": "hour"})
        wide = long.pivot_table(index=keys, columns="analyte", values="conc", aggfunc="mean")
        wide.columns = [f"conc_{name}_ng_per_ml" for name in wide.columns]
        own = [name for name in raw.columns if name.startswith("conc_") and name != "conc_ng_per_ml"]
        if own:  # SCR-003's columns have all that its rows have
            wide = raw.rename(columns={"RANDID": "randid", "VISIT": "period", "TPT": "hour"}).groupby(keys)[own].mean()
        result = result.merge(wide.reset_index(), on=keys, how="left")
    return result.sort_values(keys, ignore_index=True)


class Waveform(NamedTuple):
    """One WFDB record in millivolts, leads in the standard order."""

    signal_mv: np.ndarray  # [12, T] float32
    sampling_rate_hz: float
    leads: tuple[str, ...]


def read_record(folder: str | Path, randid: int | str, egrefid: str, kind: str = "raw") -> Waveform:
    """The 12-lead ECG (kind 'raw': 10 s at 1000 Hz) or the median beat ('medians': 1.2 s) of one row of the table.

    The record is `<folder>/<kind>/<RANDID>/<EGREFID>` (PhysioNet's layout; the same without the subject's folder also
    is found). Leads may stand in any order, spelling and unit; other channels (a median beat's VCGMAG, vx, vy, vz) are
    left aside.

    Raises:
        ValueError: unknown kind.
        RecordError: a damaged header, an unknown unit, a lead missing.
        FileNotFoundError: no such record.
    """
    found = find_record(folder, randid, egrefid, kind)
    if found is None:
        raise FileNotFoundError(
            f"no record {egrefid} of subject {randid}: looked for {Path(folder) / kind}/[{randid}/]{egrefid}.hea"
        )
    warnings: list[str] = []
    leads, rate, _, _ = read_leads(found, None, warnings)
    signal, _ = complete(leads, found, warnings)
    for warning in warnings:
        logger.warning("%s: %s", found, warning)
    return Waveform(np.asarray(signal, dtype=np.float32), rate, LEADS)


def find_record(folder: str | Path, randid: int | str, egrefid: str, kind: str) -> Path | None:
    """The record's path without extension; None where it is not on disk.

    Raises:
        ValueError: unknown kind.
        RecordError: an id that is no plain name (it would lead out of the folder).
    """
    if kind not in ("raw", "medians"):
        raise ValueError(f"kind={kind!r} is not one of 'raw', 'medians'")
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", str(name)) for name in (randid, egrefid)):
        raise RecordError(f"RANDID {randid!r} or EGREFID {egrefid!r} is no plain name; correct the clinical table")
    base = Path(folder) / kind
    candidates = [base / str(randid) / egrefid, base / egrefid]
    return next((path for path in candidates if path.with_name(path.name + ".hea").is_file()), None)
