"""eICU Collaborative Research Database (and its demo) -> frames: a stay is one stay in a unit of intensive care.

Pollard 2018, doi 10.1038/sdata.2018.178. Needed: `patient` and `hourly`, the 48 labs and vital signs of up to seven
days as YAIB lays them out (van de Water 2024, arXiv 2306.05109): a row an hour, `time` a timedelta since the unit
admission. The rest is read where it is there: infusiondrug, medication, treatment, intakeoutput (blood products),
respiratorycharting (tidal and minute volume, PEEP, oxygen flow), microlab, diagnosis.

Times are offsets in minutes from the unit admission and may be negative: what lies before it belongs to the patient's
earlier stay, if it lies in one, and is left out otherwise, but for what still runs or is open at the admission, which
then begins there. There is no calendar: a patient's first hospital stay begins on 2000-01-01, the next four years
later, those that end in death last. A patient's hospital stays of one year have no order; several unit stays of one do.
Values stop after seven days: such stays are cut there (`truncated`). The hospital is kept with the stay, to split by.

An infusion's unit stands in its name (`eicu_orders.RATE_UNITS`). A row says the rate from then on; it ends where the
next row of the same drug in the same stay begins, unless that is more than a day later: then its end is not told. Rates
a minute or an hour are brought to those a kilogram, and the other way round, by the weight on record; without one they
stay in their own unit. Orders of the pharmacy are orders (`prescription`): that they were given is not told. Treatments
are what somebody documented as done, without doses; one that infusions or blood products of the same stay tell with
doses is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions, number
from world_models.data.ehr.flow import Flow, Ledger
from world_models.data.ehr.microbiology import culture_inquiries
from world_models.data.ehr.sources import eicu_interventions as given
from world_models.data.ehr.sources.hourly import Variable, hourly_inquiries, refuse_backwards
from world_models.data.ehr.sources.mimic_frames import stack
from world_models.data.ehr.tables import EhrDataError, TableSpec, read_shard_table, scan

__all__ = ["CHARTED", "REQUIRED", "TABLES", "VARIABLES", "batches", "read_shard", "subjects"]

REQUIRED = ("patient", "hourly")
RECORD_HOURS = 169  # hourly holds the hours 0 to 168
OLDEST_TOLD_YEARS = 90.0  # what is older is told as "> 89"
FIRST_YEAR, YEARS_APART = 2000, 4
# fmt: off
VARIABLES: dict[str, Variable] = {
    "alb": ("albumin_g_dl", "g/dL"), "alp": ("alkaline_phosphatase_u_l", "U/L"), "alt": ("alt_u_l", "U/L"),
    "ast": ("ast_u_l", "U/L"), "be": ("base_excess_mmol_l", "mmol/L"), "bicar": ("bicarbonate_mmol_l", "mmol/L"),
    "bili": ("bilirubin_mg_dl", "mg/dL"), "bili_dir": ("bilirubin_direct_mg_dl", "mg/dL"), "bnd": ("", "%"),
    "bun": ("urea_nitrogen_mg_dl", "mg/dL"), "ca": ("calcium_mg_dl", "mg/dL"),
    "cai": ("ionized_calcium_mmol_l", "mmol/L"), "ck": ("creatine_kinase_u_l", "U/L"),
    "ckmb": ("ck_mb_ng_ml", "ng/mL"), "cl": ("chloride_mmol_l", "mmol/L"), "crea": ("creatinine_mg_dl", "mg/dL"),
    "crp": ("crp_mg_l", "mg/L"), "dbp": ("dbp_mmhg", "mm[Hg]"), "fgn": ("fibrinogen_mg_dl", "mg/dL"),
    "fio2": ("fio2_fraction", "%"), "glu": ("glucose_mg_dl", "mg/dL"), "hgb": ("haemoglobin_g_dl", "g/dL"),
    "hr": ("heart_rate_bpm", "bpm"), "inr_pt": ("inr", "1"), "k": ("potassium_mmol_l", "mmol/L"),
    "lact": ("lactate_mmol_l", "mmol/L"), "lymph": ("lymphocytes_percent", "%"), "map": ("map_mmhg", "mm[Hg]"),
    "mch": ("", "pg"), "mchc": ("", "g/dL"), "mcv": ("mcv_fl", "fL"), "methb": ("", "%"),
    "mg": ("magnesium_mg_dl", "mg/dL"), "na": ("sodium_mmol_l", "mmol/L"), "neut": ("neutrophils_percent", "%"),
    "o2sat": ("spo2_percent", "%"), "pco2": ("pco2_mmhg", "mm[Hg]"), "ph": ("ph", "1"),
    "phos": ("phosphate_mg_dl", "mg/dL"), "plt": ("platelets_k_ul", "10*3/uL"), "po2": ("po2_mmhg", "mm[Hg]"),
    "ptt": ("ptt_s", "s"), "resp": ("respiratory_rate_min", "/min"), "sbp": ("sbp_mmhg", "mm[Hg]"),
    "temp": ("temperature_c", "Cel"), "tnt": ("troponin_ng_l", "ng/mL"), "urine": ("urine_output_ml", "mL"),
    "wbc": ("white_cells_k_ul", "10*3/uL"),
}
# Labels of respiratorycharting
CHARTED: dict[str, Variable] = {
    "PEEP": ("peep_cmh2o", "cm[H2O]"), "Exhaled TV (patient)": ("tidal_volume_ml", "mL"),
    "Exhaled MV": ("minute_volume_l_min", "L/min"), "LPM O2": ("oxygen_flow_l_min", "L/min"),
}
# fmt: on
_STATIC: dict[str, Variable] = {"admissionweight": ("weight_kg", "kg"), "admissionheight": ("height_cm", "cm")}
_PATIENT = r"^(\d{3})-(\d{1,7})$"
_DURATIONS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def _labelled(batch: pa.RecordBatch) -> tuple[np.ndarray, str]:
    label = batch.column(batch.schema.get_field_index("respchartvaluelabel"))
    keep = pc.fill_null(pc.is_in(label, value_set=pa.array(list(CHARTED))), False)
    return keep.to_numpy(zero_copy_only=False), "not among the labels that are read"


def _blood(batch: pa.RecordBatch) -> tuple[np.ndarray, str]:
    path = batch.column(batch.schema.get_field_index("cellpath"))
    keep = pc.fill_null(pc.match_substring(path, "Blood Products"), False)
    return keep.to_numpy(zero_copy_only=False), "no blood product"


_STAY = {"patientunitstayid": "id"}
TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec("patient", {
            **_STAY, "patienthealthsystemstayid": "id", "uniquepid": "text", "gender": "text", "age": "text",
            "ethnicity": "text", "hospitalid": "id", "hospitaladmitoffset": "id", "hospitaldischargeyear": "id",
            "hospitaldischargeoffset": "id", "hospitaldischargestatus": "text", "unittype": "text",
            "unitadmitsource": "text", "unitdischargeoffset": "id", "unitdischargelocation": "text",
            "unitdischargestatus": "text", "admissionweight": "float", "admissionheight": "float"}),
        TableSpec("hourly", {**_STAY, "time": "id", **dict.fromkeys(VARIABLES, "float")}),
        TableSpec("infusiondrug", {
            **_STAY, "infusionoffset": "id", "drugname": "text", "drugrate": "text", "patientweight": "text"}),
        TableSpec("medication", {
            **_STAY, "drugstartoffset": "id", "drugstopoffset": "id", "drugordercancelled": "text",
            "drugname": "text", "drughiclseqno": "id", "dosage": "text", "routeadmin": "text"}),
        TableSpec("treatment", {**_STAY, "treatmentoffset": "id", "treatmentstring": "text"}),
        TableSpec("intakeoutput", {
            **_STAY, "intakeoutputoffset": "id", "cellpath": "text", "celllabel": "text",
            "cellvaluenumeric": "float"}, keep=_blood),
        TableSpec("respiratorycharting", {
            **_STAY, "respchartoffset": "id", "respchartvaluelabel": "text", "respchartvalue": "text"},
            keep=_labelled),
        TableSpec("microlab", {
            **_STAY, "culturetakenoffset": "id", "culturesite": "text", "organism": "text", "antibiotic": "text",
            "sensitivitylevel": "text"}),
        TableSpec("diagnosis", {
            **_STAY, "activeupondischarge": "flag", "icd9code": "text", "diagnosispriority": "text"}),
    )
}  # fmt: skip


def subjects(patient: str | Path, memory_limit: str = "1GB") -> pd.Series:
    """subject_id int64 of each patientunitstayid, from the table of patients.

    Raises:
        EhrDataError: the table cannot be read, a `uniquepid` is not like 002-1039, a stay is there twice.
    """
    spec = TableSpec("patient", {**_STAY, "uniquepid": "text"})
    frame = pa.Table.from_batches(list(scan(patient, spec, memory_limit))).to_pandas()
    frame = frame[frame["patientunitstayid"].notna()]
    parts = frame["uniquepid"].astype(str).str.extract(_PATIENT)
    bad = parts[0].isna()
    if bad.any():
        raise EhrDataError(
            f"{patient}: uniquepid {frame.loc[bad, 'uniquepid'].iloc[0]!r} is not like 002-1039 ({int(bad.sum())} "
            "such rows); give the table as published"
        )
    stay = frame["patientunitstayid"].astype(np.int64)
    if stay.duplicated().any():
        raise EhrDataError(
            f"{patient}: patientunitstayid {stay[stay.duplicated()].iloc[0]} has several rows; a unit stay has one"
        )
    ids = parts[0].astype(np.int64) * 10_000_000 + parts[1].astype(np.int64)
    return pd.Series(ids.to_numpy(), index=stay.to_numpy())


def batches(
    path: str | Path, spec: TableSpec, owner: pd.Series, memory_limit: str = "1GB", ledger: Ledger | None = None
) -> Iterator[pa.RecordBatch]:
    """Record batches of one table with its patients' subject_id (`owner`: see `subjects`), `time` of hourly as hours.

    Raises:
        EhrDataError: the table cannot be read; `time` is no timedelta.
    """
    scale = _seconds(Path(path)) if spec.name == "hourly" else 0.0
    for batch in scan(path, spec, memory_limit, ledger=ledger):
        stay = batch.column(batch.schema.get_field_index("patientunitstayid")).to_numpy(zero_copy_only=False)
        whose = owner.reindex(stay).to_numpy(np.float64)
        subject = pa.array(np.where(np.isnan(whose), 0, whose).astype(np.int64), mask=np.isnan(whose))
        if scale:
            hour = pc.multiply(pc.cast(batch.column(batch.schema.get_field_index("time")), pa.float64()), scale / 3600)
            batch = batch.set_column(batch.schema.get_field_index("time"), "time", hour)
        yield batch.append_column("subject_id", subject)


def _seconds(path: Path) -> float:
    """Of one unit of hourly's column `time`, a timedelta; 1 where there is no such column (`scan` says so)."""
    if path.suffix.lower() != ".parquet":
        raise EhrDataError(f"{path}: hourly is read as parquet, where `time` is a timedelta; write it so")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise EhrDataError(
            f"{path} cannot be read as a table ({str(error).splitlines()[0]}): it is cut short, damaged or not what "
            "its name says; fetch or write it again"
        ) from error
    if "time" not in schema.names:
        return 1.0
    kind = schema.field("time").type
    if not pa.types.is_duration(kind):
        raise EhrDataError(
            f"{path}, column time: a {kind} does not say whether it counts hours, minutes or seconds since the unit "
            "admission; write it as a timedelta (pa.duration)"
        )
    return _DURATIONS[kind.unit]


def read_shard(folder: str | Path, flow: Flow) -> Frames:
    """Frames of one shard's tables, as `batches` gives them.

    Raises:
        EhrDataError: a stay's hours do not grow.
    """
    tables = {name: _shard_table(folder, spec) for name, spec in TABLES.items()}
    stays = _stays(tables["patient"])
    hours = given.placed(tables["hourly"].assign(minute=60.0 * tables["hourly"]["time"]), "minute", stays)
    refuse_backwards(hours["stay_id"], hours["time"], "eICU hourly, column time")
    flow.table("hourly").read += len(hours)
    flow.table("hourly").kept += len(hours)
    inquiries = [
        canonical_inquiries(hourly_inquiries(hours, VARIABLES, "EICU"), flow, "hourly values"),
        canonical_inquiries(_charted(given.placed(tables["respiratorycharting"], "respchartoffset", stays)), flow,
                            "respiratorycharting"),
        canonical_inquiries(
            hourly_inquiries(tables["patient"].assign(stay_id=stays["stay_id"], collected=stays["admitted"]), _STATIC,
                             "EICU"), flow, "weight and height"),
        _cultures(given.placed(tables["microlab"], "culturetakenoffset", stays), flow),
    ]  # fmt: skip
    told = [
        given.infusions(given.placed(tables["infusiondrug"], "infusionoffset", stays), stays, flow),
        given.blood_products(given.placed(tables["intakeoutput"], "intakeoutputoffset", stays), flow),
    ]
    dosed = pd.concat(told)[["stay_id", "item"]].drop_duplicates()
    interventions = [
        canonical_interventions(told[0], flow, "infusiondrug"),
        canonical_interventions(told[1], flow, "intakeoutput"),
        canonical_interventions(
            given.treatments(given.placed(tables["treatment"], "treatmentoffset", stays), dosed, flow),
            flow,
            "treatment",
        ),
        canonical_interventions(
            given.orders(given.placed(tables["medication"], "drugstartoffset", stays), flow), flow, "medication"
        ),
    ]
    return Frames(stays, _diagnoses(tables["diagnosis"], flow), stack(inquiries), stack(interventions))


def _shard_table(folder: str | Path, spec: TableSpec) -> pd.DataFrame:
    columns = {**spec.columns, "subject_id": "id"}
    if spec.name == "hourly":
        columns["time"] = "float"
    return read_shard_table(folder, TableSpec(spec.name, columns))


def _stays(patient: pd.DataFrame) -> pd.DataFrame:
    """Stays as `Frames` has them, and weight_kg."""
    died = patient["hospitaldischargestatus"].astype(object).fillna("").str.lower().eq("expired")
    there = patient["unitdischargestatus"].astype(object).fillna("").str.lower().eq("expired")
    year = _hospital_years(patient.assign(died=died))
    begin = pd.to_datetime(pd.DataFrame({"year": year, "month": 1, "day": 1})).astype("datetime64[us]")
    admitted = begin - given.minutes(patient["hospitaladmitoffset"])
    left = given.minutes(patient["unitdischargeoffset"])
    cut = left > pd.Timedelta(hours=RECORD_HOURS)
    gone = admitted + left
    death = gone.where(there, (admitted + given.minutes(patient["hospitaldischargeoffset"])).where(died))
    age = number(patient["age"].astype(object).where(~patient["age"].astype(str).str.strip().eq("> 89"), "90"))
    sex = patient["gender"].astype(object).fillna("").str.upper().str[:1]
    text = {
        ours: patient[theirs].astype(object).fillna("").astype(str)
        for ours, theirs in {"race": "ethnicity", "admission_type": "unittype", "admission_location": "unitadmitsource",
                             "discharge_location": "unitdischargelocation"}.items()
    }  # fmt: skip
    return pd.DataFrame(
        {
            "subject_id": patient["subject_id"],
            "stay_id": patient["patientunitstayid"],
            "registered": pd.Series(pd.NaT, patient.index, "datetime64[us]"),
            "admitted": admitted,
            "discharged": gone.mask(cut, admitted + pd.Timedelta(hours=RECORD_HOURS)).astype("datetime64[us]"),
            "died": death.astype("datetime64[us]"),
            "died_in_hospital": (died | there).astype(np.float64),
            "age_years": age.clip(upper=OLDEST_TOLD_YEARS),
            "sex_female": np.where(sex == "F", 1.0, np.where(sex == "M", 0.0, np.nan)),
            "truncated": cut,
            **text,
            "hospital": "eICU " + patient["hospitalid"].astype(str),
            "weight_kg": patient["admissionweight"],
        }
    )


def _hospital_years(patient: pd.DataFrame) -> np.ndarray:
    """The year [N] in which each row's hospital stay begins on our calendar."""
    keys = ["subject_id", "hospitaldischargeyear", "died", "patienthealthsystemstayid"]
    whole = patient.groupby(["subject_id", "patienthealthsystemstayid"], as_index=False).agg(
        hospitaldischargeyear=("hospitaldischargeyear", "max"), died=("died", "max")
    )
    whole = whole.sort_values(["subject_id", "died", *keys[1:2], keys[3]])
    whole["year"] = FIRST_YEAR + YEARS_APART * whole.groupby("subject_id").cumcount()
    on = ["subject_id", "patienthealthsystemstayid"]
    return patient[on].merge(whole[[*on, "year"]], on=on, how="left")["year"].to_numpy(np.int64)


def _charted(rows: pd.DataFrame) -> pd.DataFrame:
    """respiratorycharting as raw inquiries."""
    itemids = {label: inquiry_items.by_name(item).itemids[0] for label, (item, _) in CHARTED.items()}
    label = rows["respchartvaluelabel"]
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "itemid": label.map(itemids).fillna(-1).astype(np.int64),
            "unit": label.map({label: unit for label, (_, unit) in CHARTED.items()}),
            "value": number(rows["respchartvalue"]),
            "text": rows["respchartvalue"],
            "collected": rows["at"],
            "resulted": pd.Series(pd.NaT, rows.index, "datetime64[us]"),
            "source": "EICU//" + label.astype(str),
        }
    )


def _cultures(rows: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    grown = rows["organism"].astype(object).fillna("")
    raw = pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "collected": rows["at"],
            "resulted": pd.Series(pd.NaT, rows.index, "datetime64[us]"),
            "specimen": rows["culturesite"],
            "test": "culture",
            "organism": grown.mask(grown.str.lower().eq("no growth"), "negative"),
            "antibiotic": rows["antibiotic"],
            "interpretation": rows["sensitivitylevel"].astype(object).fillna("").str[:1].str.upper(),
            "comments": "",
        }
    )
    return culture_inquiries(raw, flow, "microlab")


def _diagnoses(rows: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Those still active at discharge; a row may name several codes of either edition of the ICD."""
    active = rows["activeupondischarge"].eq(1)
    coded = active & rows["icd9code"].notna()
    ledger = flow.table("diagnosis")
    ledger.read += len(rows)
    flow.drop("diagnosis", "not active at discharge", int((~active).sum()))
    flow.drop("diagnosis", "no code of the ICD", int((active & ~coded).sum()))
    ledger.kept += int(coded.sum())
    rows = rows[coded]
    codes = rows.assign(code=rows["icd9code"].astype(str).str.split(",")).explode("code")
    code = codes["code"].astype(str).str.strip().str.upper()
    # E and V codes of the ninth edition are E and three digits, V and two
    ninth = code.str.match(r"^(\d|E\d{3}|V\d\d(\.|$))")
    sequence = codes["diagnosispriority"].astype(object).eq("Primary")
    return pd.DataFrame(
        {
            "stay_id": codes["patientunitstayid"],
            "sequence": np.where(sequence, 1.0, np.nan),
            "version": np.where(ninth, "9", "10"),
            "code": code.str.replace(".", "", regex=False),
        }
    )
