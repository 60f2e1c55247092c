"""The machine measurements of the Chapman-Shaoxing ECGs: rates and intervals by rhythm, age and sex, no waveforms.

One row a patient, one ten-second ECG each, measured by the recorder's own program on the representative beat; rhythm
and beat labels are physicians'. The ECGs were chosen by rhythm, so shares of rhythms are the database's, no
population's, and rates are cut where the rhythms' names are: compare within a rhythm.

Source: CC BY 4.0; Zheng 2020, doi 10.1038/s41597-020-0386-x. The code AFIB is fibrillation and AF is flutter there (k).
QTCorrected is Bazett's; QTcF is taken here from QT and the ventricular rate, as everywhere in this project.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from world_models.data.ehr.flow import Ledger
from world_models.ecg.intervals import log_rr, qt_scale
from world_models.quantities.ecg_drug import MEASURES
from world_models.quantity import by_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILES", "RHYTHMS", "Measurements", "find_table", "load_measurements"]

FILES = ("machine_measurements.parquet", "Diagnostics.csv")  # looked for in a folder, in this order
RHYTHMS = {
    "SB": "sinus bradycardia",
    "SR": "sinus rhythm",
    "ST": "sinus tachycardia",
    "SA": "sinus irregularity",
    "AFIB": "atrial fibrillation",
    "AF": "atrial flutter",
    "AT": "atrial tachycardia",
    "SVT": "supraventricular tachycardia",
    "AVNRT": "AV nodal reentrant tachycardia",
    "AVRT": "AV reentrant tachycardia",
    "SAAWR": "wandering atrial rhythm",
}
# the file's column -> ours
NUMBERS = {
    "PatientAge": "age_years",
    "VentricularRate": "heart_rate_bpm",
    "QRSDuration": "qrs_ms",
    "QTInterval": "qt_ms",
    "QTCorrected": "qtcb_ms",
}
TEXTS = ("FileName", "Rhythm", "Beat", "Gender")
SEXES = {"FEMALE": 1.0, "MALE": 0.0}
AGE_YEARS = (0.0, 120.0)  # children stand in the table too
BAZETT_EXPONENT = 0.5
BAZETT_WITHIN_MS = 5.0  # the machine's QTc is at most 2 ms from Bazett's of its QT and rate


class Measurements(NamedTuple):
    """The table's rows that can be used, and what became of the others."""

    frame: pd.DataFrame  # see `load_measurements`
    rows: Ledger


def find_table(path: str | Path) -> Path:
    """The table itself, or the first of `FILES` in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a file nor a folder; give the folder or the table of measurements")
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"no table of measurements in {path}: looked for {' and '.join(FILES)}; give the file")


def _read(table: Path) -> pd.DataFrame:
    import pandas as pd

    if table.suffix in (".xlsx", ".xls"):
        raise ValueError(f"{table} is a workbook, which is not read here; save its sheet as {FILES[1]}")
    try:
        raw = pd.read_parquet(table) if table.suffix.lower() == ".parquet" else pd.read_csv(table)
    except ImportError as error:
        raise ValueError(f"{table} is Parquet, which needs pyarrow; install clinenv[ehr] or give a CSV") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:  # those of pyarrow and pandas are ValueErrors
        raise ValueError(f"{table} cannot be read as a table ({error}); fetch it again") from error
    missing = [name for name in (*TEXTS, *NUMBERS) if name not in raw.columns]
    if missing:
        raise ValueError(f"{table} lacks the columns {', '.join(missing)}; give the table with one row an ECG")
    if raw.empty:
        raise ValueError(f"{table} has no rows; give a table with at least one ECG")
    return raw


def _number(raw: pd.DataFrame, name: str, table: Path) -> pd.Series:
    """A column as float64, empty cells as NaN."""
    import pandas as pd

    values = pd.to_numeric(raw[name], errors="coerce").astype(np.float64)
    wrong = raw[name][values.isna() & raw[name].notna()]
    if len(wrong):
        raise ValueError(f"{table}, column {name}: {wrong.iloc[0]!r} is no number; correct the cell or leave it empty")
    return values


def load_measurements(path: str | Path) -> Measurements:
    """Every ECG whose measurements can be true, in the file's order.

    Columns: rhythm (a value of `RHYTHMS`), beat_labels (the physicians' codes; "" where there are none), sex_female
    (0 or 1), age_years, heart_rate_bpm (of the ventricles), qrs_ms, qt_ms, qtcf_ms (Fridericia, of QT and rate) and
    qtcb_ms (Bazett, as the machine gave it). Rows that are dropped are counted by reason in `rows`: a value missing,
    an unknown rhythm or sex, a measurement outside its chart's bounds, a QTc that is not Bazett's of QT and rate, the
    same file name again.

    Args:
        path: the folder, or the table: Parquet, or a CSV of the same columns.

    Raises:
        FileNotFoundError: no table there.
        ValueError: not a table of this layout, a text where a number belongs, or no row that can be used.
    """
    import pandas as pd

    table = find_table(path)
    raw = _read(table)
    frame = pd.DataFrame({ours: _number(raw, theirs, table) for theirs, ours in NUMBERS.items()})
    text = {name: raw[name].fillna("").astype(str).str.strip() for name in TEXTS}
    frame["rhythm"] = text["Rhythm"].str.upper().map(RHYTHMS)
    frame["sex_female"] = text["Gender"].str.upper().map(SEXES)
    frame["beat_labels"] = text["Beat"].where(text["Beat"].str.upper() != "NONE", "")
    frame["qtcf_ms"] = _corrected(frame)
    bazett = frame["qt_ms"] * (frame["heart_rate_bpm"] / 60.0) ** BAZETT_EXPONENT

    ledger = Ledger(read=len(raw))
    left = pd.Series(True, index=frame.index)
    bad: list[tuple[str, pd.Series]] = [("Rhythm is no known code", frame["rhythm"].isna())]
    bad.append(("Gender is neither FEMALE nor MALE", frame["sex_female"].isna()))
    bad.extend((f"{theirs} is missing", frame[ours].isna()) for theirs, ours in NUMBERS.items())
    for theirs, ours in NUMBERS.items():
        low, high = _bounds(ours)
        bad.append((f"{theirs} is not within {low:g} to {high:g}", ~frame[ours].between(low, high)))
    bad.append(("QTCorrected is not Bazett's", (frame["qtcb_ms"] - bazett).abs() > BAZETT_WITHIN_MS))
    bad.append(("FileName stands above already", text["FileName"].duplicated() & (text["FileName"] != "")))
    for reason, rows in bad:
        if count := int((rows & left).sum()):
            ledger.dropped[reason] += count
        left &= ~rows
    ledger.kept = int(left.sum())
    if not ledger.kept:
        reason, count = ledger.dropped.most_common(1)[0]
        raise ValueError(f"{table}: no row of {len(raw)} can be used, {count} since {reason}; see its units and codes")
    names = ["rhythm", "beat_labels", "sex_female", *NUMBERS.values()]
    names.insert(names.index("qtcb_ms"), "qtcf_ms")
    return Measurements(frame.loc[left, names].reset_index(drop=True), ledger)


def _corrected(frame: pd.DataFrame) -> np.ndarray:
    """QTcF [N] in ms."""
    rate, qt = (torch.from_numpy(frame[name].to_numpy(copy=True)) for name in ("heart_rate_bpm", "qt_ms"))
    corrected: np.ndarray = (qt / qt_scale(log_rr(rate))).numpy()
    return corrected


def _bounds(name: str) -> tuple[float, float]:
    """Of one of our columns: those of the chart; the machine's QTc has those of QTcF."""
    if name == "age_years":
        return AGE_YEARS
    measure = by_name(MEASURES, "qtcf_ms" if name == "qtcb_ms" else name)
    return measure.low, measure.high
