"""PhysioNet/CinC Challenge 2012: the first 48 h of 4,000 stays in intensive care, 41 variables -> frames.

Silva 2012, PMID 24678516. Two layouts: `measurements.parquet` (set, RecordID, minute, Parameter, Value) beside
`outcomes.csv[.gz]`, and PhysioNet's own, one text file a stay (`set-a/132539.txt`: Time, Parameter, Value) beside
`Outcomes-a.txt`. There is no calendar: every stay starts on 2000-01-01. The record is cut at 48 h (`truncated`), and
the only treatment charted is mechanical ventilation.

-1 is missing (height, weight, SAPS, SOFA, survival); 0 is missing in pressures, heart and respiratory rate, which the
plausible ranges drop; FiO2 is a fraction.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions
from world_models.data.ehr.flow import Flow, Ledger
from world_models.data.ehr.tables import EhrDataError, TableSpec, find_table, read_shard_table, scan

__all__ = ["MEASUREMENTS", "OUTCOMES", "batches", "outcome_batches", "read_shard"]

EPOCH = datetime(2000, 1, 1)
RECORD_HOURS = 48
LONGEST_RECORD_MINUTES = 365 * 24 * 60  # a minute beyond it is a slip of the pen
OLDEST_TOLD_YEARS = 90.0  # what is older is told as this
MISSING = -1.0
STATIC = ("Age", "Gender", "Height", "ICUType", "Weight", "RecordID")
MEASUREMENTS = TableSpec("measurements", {"RecordID": "id", "minute": "id", "Parameter": "text", "Value": "float"})
OUTCOMES = TableSpec("outcomes", {"RecordID": "id", "In-hospital_death": "float", "Length_of_stay": "float"})
# The units the challenge's description gives its parameters, but for magnesium: it says mmol/L, and the median of 2.0
# is the one of mg/dL, as the same hospital reports it elsewhere.
UNITS = {
    "Na": "mEq/L", "K": "mEq/L", "HCO3": "mmol/L", "BUN": "mg/dL", "Creatinine": "mg/dL", "Glucose": "mg/dL",
    "Mg": "mg/dL", "Albumin": "g/dL", "Lactate": "mmol/L", "ALT": "IU/L", "AST": "IU/L", "ALP": "IU/L",
    "Bilirubin": "mg/dL", "TroponinT": "ug/L", "TroponinI": "ug/L", "Cholesterol": "mg/dL", "WBC": "K/uL", "HCT": "%",
    "Platelets": "K/uL", "pH": "1", "PaCO2": "mmHg", "PaO2": "mmHg", "SaO2": "%", "FiO2": "fraction", "HR": "bpm",
    "SysABP": "mmHg", "NISysABP": "mmHg", "DiasABP": "mmHg", "NIDiasABP": "mmHg", "MAP": "mmHg", "NIMAP": "mmHg",
    "RespRate": "/min", "Temp": "C", "GCS": "1", "Weight": "kg", "Height": "cm", "Urine": "mL",
}  # fmt: skip
ICU_TYPES = {1: "coronary care", 2: "cardiac surgery recovery", 3: "medical", 4: "surgical"}


def batches(folder: str | Path, memory_limit: str = "1GB", ledger: Ledger | None = None) -> Iterator[pa.RecordBatch]:
    """Record batches with columns subject_id, minute, Parameter, Value.

    Raises:
        EhrDataError: neither layout is there, a column is missing, a file is cut short, a time is no HH:MM.
    """
    folder = Path(folder)
    path = find_table(folder, "measurements")
    if path is not None:
        for batch in scan(path, MEASUREMENTS, memory_limit, ledger=ledger):
            yield batch.rename_columns(["subject_id", "minute", "Parameter", "Value"])
        return
    files = sorted(path for path in folder.rglob("*.txt") if inquiry_items.whole_number(path.stem) is not None)
    if not files:
        raise EhrDataError(
            f"{folder} holds neither measurements.parquet nor records like set-a/132539.txt; give the challenge's "
            "folder"
        )
    for path in files:
        yield _record_batch(path)


def _record_batch(path: Path) -> pa.RecordBatch:
    try:
        frame = pd.read_csv(path)
        clock = frame["Time"].astype(str).str.extract(r"^([0-9]{1,4}):([0-9]{2})$").astype(np.float64)
        if clock.isna().any(axis=None):
            raise ValueError(f"a time is no HH:MM: {frame['Time'][clock[0].isna()].iloc[0]!r}")
        minute = (60 * clock[0] + clock[1]).astype(np.int64)
        parameter = frame["Parameter"].astype(str)
        value = frame["Value"].astype(np.float64)
    except (KeyError, ValueError, OSError, pd.errors.ParserError) as error:
        raise EhrDataError(f"{path} is no record of the challenge (Time,Parameter,Value): {error}") from error
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.full(len(frame), inquiry_items.whole_number(path.stem), np.int64)),
            pa.array(minute),
            pa.array(parameter.tolist(), pa.string()),
            pa.array(value.to_numpy()),
        ],
        names=["subject_id", "minute", "Parameter", "Value"],
    )


def outcome_batches(
    folder: str | Path, memory_limit: str = "1GB", ledger: Ledger | None = None
) -> Iterator[pa.RecordBatch]:
    """Record batches with columns subject_id, In-hospital_death, Length_of_stay (days).

    Raises:
        EhrDataError: there is none, or it cannot be read.
    """
    folder = Path(folder)
    path = find_table(folder, "outcomes")
    found = [path] if path is not None else sorted(folder.rglob("Outcomes-*.txt"))
    if not found:
        raise EhrDataError(f"{folder} holds no outcomes.csv and no Outcomes-a.txt; give the challenge's folder")
    for path in found:
        for batch in scan(path, OUTCOMES, memory_limit, ledger=ledger):
            yield batch.rename_columns(["subject_id", "In-hospital_death", "Length_of_stay"])


def read_shard(folder: str | Path, flow: Flow) -> Frames:
    """Frames of one shard: tables `measurements` and `outcomes` as `batches` and `outcome_batches` give them."""
    spec = TableSpec("measurements", {"subject_id": "id", "minute": "id", "Parameter": "text", "Value": "float"})
    rows = read_shard_table(folder, spec)
    outcomes = read_shard_table(
        folder, TableSpec("outcomes", {"subject_id": "id", "In-hospital_death": "float", "Length_of_stay": "float"})
    )
    untimed = ~rows["minute"].between(0, LONGEST_RECORD_MINUTES)
    flow.refuse("measurements", "no minute since the start", int(untimed.sum()))
    rows = rows[~untimed]
    flow.repair(
        "outcomes", "outcome of a record again: the first is taken", int(outcomes["subject_id"].duplicated().sum())
    )
    static = rows[rows["Parameter"].isin(STATIC) & (rows["minute"] == 0)]
    first = static.drop_duplicates(["subject_id", "Parameter"]).pivot(
        index="subject_id", columns="Parameter", values="Value"
    )
    first = first.reindex(columns=list(STATIC)).where(lambda frame: frame >= 0)
    stays = pd.DataFrame({"subject_id": np.sort(rows["subject_id"].unique())})
    stays = stays.merge(first, left_on="subject_id", right_index=True, how="left")
    stays = stays.merge(outcomes.drop_duplicates("subject_id"), on="subject_id", how="left")
    epoch = pd.Timestamp(EPOCH).as_unit("us")
    ages = stays["Age"].where(stays["Age"] < OLDEST_TOLD_YEARS, OLDEST_TOLD_YEARS).where(stays["Age"].notna())
    frames_stays = pd.DataFrame(
        {
            "subject_id": stays["subject_id"],
            "stay_id": stays["subject_id"],
            "registered": pd.NaT,
            "admitted": epoch,
            "discharged": epoch + pd.Timedelta(hours=RECORD_HOURS),
            "died": pd.NaT,
            "died_in_hospital": stays["In-hospital_death"],
            "age_years": ages,
            "sex_female": 1.0 - stays["Gender"],
            "truncated": True,
            "race": "",
            "admission_type": stays["ICUType"].map(ICU_TYPES),
            "admission_location": "",
            "discharge_location": "",
        }
    )
    for name in ("registered", "died", "admitted", "discharged"):
        frames_stays[name] = frames_stays[name].astype("datetime64[us]")
    return Frames(
        frames_stays,
        inquiries=canonical_inquiries(_raw_inquiries(rows, epoch, flow), flow, "measurements"),
        interventions=canonical_interventions(_ventilation(rows, epoch), flow, "ventilation"),
    )


def _raw_inquiries(rows: pd.DataFrame, epoch: pd.Timestamp, flow: Flow) -> pd.DataFrame:
    """All measurements but the static ones and the ventilator's as raw inquiries."""
    itemids = {name: item.itemids[0] for item in inquiry_items.INQUIRY_ITEMS for name in item.challenge}
    static = rows["Parameter"].isin([name for name in STATIC if name not in ("Height", "Weight")])
    flow.refuse("measurements", "static (age, sex, unit)", int(static.sum()))
    ventilated = rows["Parameter"].eq("MechVent")
    flow.refuse("measurements", "ventilation: counted under interventions", int(ventilated.sum()))
    rows = rows[~static & ~ventilated]
    missing = rows["Value"].eq(MISSING) & rows["Parameter"].isin(["Height", "Weight"])
    flow.refuse("measurements", "-1: missing", int(missing.sum()))
    rows = rows[~missing]
    collected = epoch + pd.to_timedelta(rows["minute"].to_numpy(np.int64), unit="min")
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "stay_id": rows["subject_id"].to_numpy(),
            "itemid": rows["Parameter"].map(itemids).fillna(-1).astype(np.int64).to_numpy(),
            "unit": rows["Parameter"].map(UNITS).to_numpy(object),
            "value": rows["Value"].to_numpy(np.float64),
            "text": "",
            "collected": collected.astype("datetime64[us]"),
            "resulted": np.datetime64("NaT", "us"),
            "source": ("CHALLENGE2012//" + rows["Parameter"]).to_numpy(object),
        }
    )


def _ventilation(rows: pd.DataFrame, epoch: pd.Timestamp) -> pd.DataFrame:
    """Every charting of MechVent = 1 is a moment on the ventilator; when it ended is not told."""
    rows = rows[rows["Parameter"].eq("MechVent") & (rows["Value"] == 1)]
    start = (epoch + pd.to_timedelta(rows["minute"].to_numpy(np.int64), unit="min")).astype("datetime64[us]")
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "stay_id": rows["subject_id"].to_numpy(),
            "kind": "procedure",
            "item": "invasive_ventilation",
            "start": start,
            "end": np.full(len(rows), np.datetime64("NaT", "us")),
            "dose": np.nan,
            "unit": "",
            "rate": np.nan,
            "rate_unit": "",
            "route": "",
            "source": "CHALLENGE2012//MechVent",
        }
    )
