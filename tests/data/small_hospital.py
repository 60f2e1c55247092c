"""Four invented patients, as MIMIC-IV tables and as MEDS: what tests change one thing of."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from world_models.data.ehr.episode import PatientEpisode
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes

DAYS = 3  # of each stay
WRITTEN = "%Y-%m-%d %H:%M:%S"


# what a stay read from MEDS and the same read from tables have in common
SAME_EITHER_WAY = ("started", "discharged", "died", "died_in_hospital", "age_years", "sex_female")
SAME_EITHER_WAY += ("admission_type", "admission_location", "discharge_location")


def begun(patient: int) -> datetime:
    """When the patient of this number, 1 to 4, is admitted."""
    return datetime(2150, 3, 1 + patient, 8)


def tables(written: str = WRITTEN) -> dict[str, pd.DataFrame]:
    """Patients 1 to 4, one stay each (20000001 ...), 6 potassiums and 3 doses of furosemide; times as `written`."""
    at = lambda n, hours: (begun(n) + timedelta(hours=hours)).strftime(written)  # noqa: E731
    rows: dict[str, list[dict]] = {
        name: [] for name in ("admissions", "patients", "labevents", "emar", "emar_detail", "prescriptions")
    }
    for n in range(1, 5):
        stay = {"subject_id": n, "hadm_id": 20000000 + n}
        rows["patients"].append({"subject_id": n, "gender": "FM"[n % 2], "anchor_age": 60, "anchor_year": 2150})
        rows["admissions"].append(
            {
                **stay,
                "admittime": at(n, 0),
                "dischtime": at(n, 24 * DAYS),
                "deathtime": None,
                "admission_type": "URGENT",
                "admission_location": "CLINIC",
                "discharge_location": "HOME",
                "hospital_expire_flag": 0,
            }
        )
        for k in range(6):
            rows["labevents"].append(
                {
                    **stay,
                    "itemid": 50971,
                    "charttime": at(n, 1 + 8 * k),
                    "storetime": at(n, 2 + 8 * k),
                    "value": "4.1",
                    "valuenum": "4.1",
                    "valueuom": "mEq/L",
                }
            )
        for k in range(3):
            rows["emar"].append(
                {
                    **stay,
                    "emar_id": f"{n}-{k}",
                    "pharmacy_id": None,
                    "charttime": at(n, 6 + 8 * k),
                    "medication": "Furosemide",
                    "event_txt": "Administered",
                }
            )
            rows["emar_detail"].append(
                {
                    "subject_id": n,
                    "emar_id": f"{n}-{k}",
                    "parent_field_ordinal": "1.1",
                    "dose_given": "40",
                    "dose_given_unit": "mg",
                    "infusion_rate": None,
                    "infusion_rate_unit": None,
                    "route": "IV",
                }
            )
        rows["prescriptions"].append(
            {
                **stay,
                "pharmacy_id": 1000 * n,
                "starttime": at(n, 5),
                "stoptime": at(n, 60),
                "drug_type": "MAIN",
                "drug": "Furosemide",
                "dose_val_rx": "40",
                "dose_unit_rx": "mg",
                "route": "IV",
            }
        )
    return {name: pd.DataFrame(table) for name, table in rows.items()}


def write(made: dict[str, pd.DataFrame], folder: Path) -> Path:
    """Tables as CSV files in a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def read(made: dict[str, pd.DataFrame], folder: Path, **options) -> tuple[list[PatientEpisode], Flow]:
    """Episodes and flow of tables, written to a folder first; `options` are those of `load_episodes`."""
    return load_episodes(tables=write(made, folder), **options)


def meds() -> pd.DataFrame:
    """Patients 1 to 4 as MEDS rows, sorted: sex, birth, admission, 6 potassiums, discharge."""
    rows = []
    for n in range(1, 5):
        rows += [(n, None, "GENDER//F", None), (n, datetime(2090, 1, 1), "MEDS_BIRTH", None)]
        rows.append((n, begun(n), "HOSPITAL_ADMISSION//URGENT//CLINIC", None))
        rows += [(n, begun(n) + timedelta(hours=1 + 8 * k), "LAB//50971//mEq/L", 4.1) for k in range(6)]
        rows.append((n, begun(n) + timedelta(days=DAYS), "HOSPITAL_DISCHARGE//HOME", None))
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value"])
    return frame.astype({"time": "datetime64[us]", "numeric_value": "float32"}).assign(text_value=pd.Series(dtype=str))


def read_meds(frame: pd.DataFrame, folder: Path) -> tuple[list[PatientEpisode], Flow]:
    """Episodes and flow of MEDS rows, written to a folder first."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "m.parquet", index=False)
    return load_episodes(meds=folder / "m.parquet")
