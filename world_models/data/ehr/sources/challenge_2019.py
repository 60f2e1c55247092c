"""PhysioNet/CinC Challenge 2019: hourly vital signs and labs of stays in intensive care, with a sepsis label -> frames.

Reyna 2020, doi 10.1097/CCM.0000000000004145. Two layouts: one table with a column `patient` (parquet or csv), and the
challenge's own, one file a stay (`p100001.psv`, cells separated by bars). Set A's patients are numbered below 100,000
and set B's above: two hospitals. Row ICULOS = k holds the k-th hour in intensive care and is collected at its begin;
there is no calendar: every stay enters intensive care on 2000-01-01, and what ICULOS leaves out before its first row
was not told. Nor are treatments, discharge or death: every record is `truncated` (the septic ones some hours after the
onset).

The label begins six hours before the onset of sepsis, so that as a value of that hour it would tell the future: it is
kept as a discharge diagnosis. Units are those of the challenge's description, but for lactate: it says mg/dL, and the
median of 2.0 is the one of mmol/L. Calcium is total in some rows and ionised in others (CALCIUM). FiO2 is a fraction;
what lies outside 0.21 to 1 (percents, litres a minute, -50) is dropped, counted, as by all plausible ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries
from world_models.data.ehr.flow import Flow, Ledger
from world_models.data.ehr.inquiry_items import whole_number
from world_models.data.ehr.sources.hourly import Variable, hourly_inquiries, refuse_backwards
from world_models.data.ehr.tables import EhrDataError, TableSpec, read_shard_table, scan

__all__ = ["CALCIUM", "HOURS", "VARIABLES", "batches", "read_shard"]

EPOCH = datetime(2000, 1, 1)
LONGEST_STAY_HOURS = 366 * 24
OLDEST_TOLD_YEARS = 90.0  # what is older is told as 100
FIRST_OF_SET_B = 100_000
SEPSIS = ("10", "A419")
# fmt: off
VARIABLES: dict[str, Variable] = {
    "HR": ("heart_rate_bpm", "bpm"), "O2Sat": ("spo2_percent", "%"), "Temp": ("temperature_c", "Cel"),
    "SBP": ("sbp_mmhg", "mm[Hg]"), "MAP": ("map_mmhg", "mm[Hg]"), "DBP": ("dbp_mmhg", "mm[Hg]"),
    "Resp": ("respiratory_rate_min", "/min"), "EtCO2": ("end_tidal_co2_mmhg", "mm[Hg]"),
    "BaseExcess": ("base_excess_mmol_l", "mmol/L"), "HCO3": ("bicarbonate_mmol_l", "mmol/L"),
    "FiO2": ("fio2_fraction", "fraction"), "pH": ("ph", "1"), "PaCO2": ("pco2_mmhg", "mm[Hg]"),
    "SaO2": ("arterial_saturation_percent", "%"), "AST": ("ast_u_l", "U/L"),
    "BUN": ("urea_nitrogen_mg_dl", "mg/dL"), "Alkalinephos": ("alkaline_phosphatase_u_l", "U/L"),
    "Calcium": ("calcium_mg_dl", "mg/dL"), "Chloride": ("chloride_mmol_l", "mmol/L"),
    "Creatinine": ("creatinine_mg_dl", "mg/dL"), "Bilirubin_direct": ("bilirubin_direct_mg_dl", "mg/dL"),
    "Glucose": ("glucose_mg_dl", "mg/dL"), "Lactate": ("lactate_mmol_l", "mmol/L"),
    "Magnesium": ("magnesium_mg_dl", "mg/dL"), "Phosphate": ("phosphate_mg_dl", "mg/dL"),
    "Potassium": ("potassium_mmol_l", "mmol/L"), "Bilirubin_total": ("bilirubin_mg_dl", "mg/dL"),
    "TroponinI": ("troponin_i_ng_l", "ng/mL"), "Hct": ("haematocrit_percent", "%"),
    "Hgb": ("haemoglobin_g_dl", "g/dL"), "PTT": ("ptt_s", "s"), "WBC": ("white_cells_k_ul", "10*3/uL"),
    "Fibrinogen": ("fibrinogen_mg_dl", "mg/dL"), "Platelets": ("platelets_k_ul", "10*3/uL"),
}
# fmt: on
# Below the first limit ionised calcium in mmol/L, from the second on total calcium in mg/dL. Between them lie ionised
# calcium in mg/dL (of set B's 38,667 values 1,297, most of them around 4.8, four times the same patients' other ones)
# and totals that endanger life: what a value there is is not told, and it is left out.
CALCIUM = (2.0, 6.0)
_STATIC = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime", "ICULOS", "SepsisLabel")
HOURS = TableSpec("hours", {"patient": "id", **dict.fromkeys([*VARIABLES, *_STATIC], "float")})
_SHARD = TableSpec("hours", {"subject_id": "id", **dict.fromkeys([*VARIABLES, *_STATIC], "float")})


def batches(source: str | Path, memory_limit: str = "1GB", ledger: Ledger | None = None) -> Iterator[pa.RecordBatch]:
    """Record batches with columns subject_id, VARIABLES and what is true of the whole stay.

    Args:
        source: the table, a folder with one such table, or with files like p100001.psv below it.

    Raises:
        EhrDataError: neither is there, a column is missing, a file is cut short.
    """
    source = Path(source)
    tables = _tables(source)
    if tables:
        for batch in scan(tables[0], HOURS, memory_limit, ledger=ledger):
            yield batch.rename_columns(list(_SHARD.columns))
        return
    files = sorted(path for path in source.rglob("p*.psv") if whole_number(path.stem[1:]) is not None)
    if not files:
        raise EhrDataError(
            f"{source} is no table and holds neither one (.parquet, .csv.gz, .csv) nor files like p100001.psv; give "
            "the table or the folder of the challenge"
        )
    for k in range(0, len(files), 200):
        yield from pa.Table.from_batches([_of_file(path) for path in files[k : k + 200]]).combine_chunks().to_batches()


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(p for p in source.glob("*") if p.name.lower().endswith((".parquet", ".csv.gz", ".csv")))
    if len(found) > 1:
        raise EhrDataError(f"{source} holds {len(found)} tables ({found[0].name}, {found[1].name}, ...); give one")
    return found


def _of_file(path: Path) -> pa.RecordBatch:
    try:
        frame = pd.read_csv(path, sep="|")
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise EhrDataError(f"{path} is no record of the challenge: {error}; fetch it again") from error
    missing = [name for name in (*VARIABLES, *_STATIC) if name not in frame.columns]
    if missing:
        raise EhrDataError(f"{path} lacks the column(s) {', '.join(missing)}; give the record as published")
    frame = frame[[*VARIABLES, *_STATIC]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    frame.insert(0, "subject_id", np.int64(whole_number(path.stem[1:]) or 0))
    return pa.RecordBatch.from_pandas(frame, preserve_index=False)


def read_shard(folder: str | Path, flow: Flow) -> Frames:
    """Frames of one shard: a table `hours` as `batches` gives it.

    Raises:
        EhrDataError: a stay's hours do not grow.
    """
    rows = read_shard_table(folder, _SHARD)
    timed = rows["ICULOS"].between(1, LONGEST_STAY_HOURS)
    flow.table("hours").read += int((~timed).sum())
    flow.drop("hours", f"ICULOS outside 1..{LONGEST_STAY_HOURS}", int((~timed).sum()))
    rows = rows[timed].reset_index(drop=True)
    refuse_backwards(rows["subject_id"], rows["ICULOS"], "Challenge 2019, column ICULOS")
    flow.table("hours").read += len(rows)
    flow.table("hours").kept += len(rows)
    begin = pd.Timestamp(EPOCH).as_unit("us") + pd.to_timedelta((rows["ICULOS"] - 1) * 3600, unit="s")
    rows = rows.assign(stay_id=rows["subject_id"], collected=begin.astype("datetime64[us]"))
    raw = hourly_inquiries(rows, VARIABLES, "CHALLENGE2019")
    stays, diagnoses = _stays(rows)
    return Frames(stays, diagnoses, canonical_inquiries(_calcium(raw, flow), flow, "values"))


def _calcium(raw: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Raw inquiries whose calcium is told apart by CALCIUM."""
    calcium = raw["source"].eq("CHALLENGE2019//Calcium")
    ionised, total = raw["value"] < CALCIUM[0], raw["value"] >= CALCIUM[1]
    unclear = calcium & ~ionised & ~total
    flow.refuse("values", "calcium between ionised (mmol/L) and total (mg/dL): unclear which", int(unclear.sum()))
    raw = raw.assign(
        itemid=raw["itemid"].mask(calcium & ionised, _IONISED),
        unit=raw["unit"].mask(calcium & ionised, "mmol/L"),
    )
    return raw[~unclear]


_IONISED = 50808  # ionised calcium


def _stays(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stays and diagnoses as `Frames` has them."""
    by = rows.groupby("subject_id", sort=True)
    first = by[["Age", "Gender", "Unit1", "Unit2"]].first()
    hours, septic = by["ICULOS"].max(), by["SepsisLabel"].max()
    epoch = pd.Timestamp(EPOCH).as_unit("us")
    subject = first.index.to_numpy(np.int64)
    unit = np.where(first["Unit1"].eq(1), "medical", np.where(first["Unit2"].eq(1), "surgical", ""))
    stays = pd.DataFrame(
        {
            "subject_id": subject,
            "stay_id": subject,
            "registered": pd.NaT,
            "admitted": epoch,
            "discharged": (epoch + pd.to_timedelta(hours.to_numpy() * 3600, unit="s")).astype("datetime64[us]"),
            "died": pd.NaT,
            "died_in_hospital": np.nan,
            "age_years": first["Age"].clip(upper=OLDEST_TOLD_YEARS).to_numpy(),
            "sex_female": 1.0 - first["Gender"].to_numpy(),
            "truncated": True,
            "race": "",
            "admission_type": unit,
            "admission_location": "",
            "discharge_location": "",
            "hospital": np.where(subject < FIRST_OF_SET_B, "challenge 2019 A", "challenge 2019 B"),
        }
    )
    for name in ("registered", "admitted", "died"):
        stays[name] = stays[name].astype("datetime64[us]")
    ill = septic.index[septic.eq(1)].to_numpy(np.int64)
    diagnoses = pd.DataFrame({"stay_id": ill, "sequence": np.nan, "version": SEPSIS[0], "code": SEPSIS[1]})
    return stays, diagnoses
