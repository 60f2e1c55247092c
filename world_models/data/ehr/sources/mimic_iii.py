"""MIMIC-III tables -> frames of stays and events: labs, charted values, prescriptions, inputs of both systems, outputs,
microbiology.

Johnson 2016, doi 10.1038/sdata.2016.35. What differs from MIMIC-IV: labs have no result time; ages over 89 are shifted
to 300 (read as 90); prescriptions have dates without times and are orders, not doses given; a culture without an
organism grew nothing; CareVue charts a running infusion hour by hour (INPUTEVENTS_CV: each row is one moment, without
an end) and MetaVision as intervals (INPUTEVENTS_MV). Patients may be the same as in MIMIC-IV: never mix the two across
a split.

Among the charted values stand the limits that alarms were set to, under items of their own (ALARM_LIMITS), and rows
that their author marked as an error: both are counted and left out. CareVue charts copies of laboratory values without
units; of these only the glucose at the finger is taken, which never reaches the laboratory. Its "(calc)" temperatures
repeat the other scale's, and are left out too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from world_models.data.ehr.assemble import Frames, calendar_years
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.microbiology import culture_inquiries
from world_models.data.ehr.sources.mimic_frames import (
    charted,
    drug_orders,
    infusions,
    item_columns,
    listed_items,
    main_prescriptions,
    procedures,
    stack,
    stays_of,
)
from world_models.data.ehr.tables import TableSpec, read_shard_table

__all__ = ["ALARM_LIMITS", "REQUIRED", "TABLES", "read_shard"]

REQUIRED = ("admissions", "patients")
OLDEST_TOLD_YEARS = 89.0
_IDS = {"subject_id": "id", "hadm_id": "id"}

# fmt: off
# Items of D_ITEMS that hold what an alarm was set to: pressures, rates, saturation, airway, minute volume, inspired
# oxygen; CareVue, then MetaVision.
ALARM_LIMITS: frozenset[int] = frozenset({
    185, 186, 218, 219, 436, 3311, 3345, 3421, 3450, 3497, 3609, 5813, 5814, 5815, 5816, 5817, 5818, 5819, 5820, 6208,
    8501, 8511, 8517, 8518, 8527, 8547, 8548, 8549, 8550, 8551, 8552, 8553, 8554,
    220046, 220047, 220056, 220058, 220063, 220066, 220072, 220073, 220292, 220293, 223751, 223752, 223769, 223770,
    223873, 223874, 223875, 224161, 224162, 226253,
})
# fmt: on


def _listed_or_alarm(batch: pa.RecordBatch) -> tuple[np.ndarray, str]:
    """`listed_items`, and the alarm limits with them: these are counted apart."""
    keep, reason = listed_items(batch)
    alarms = pa.array(sorted(ALARM_LIMITS), pa.int64())
    itemid = batch.column(batch.schema.get_field_index("itemid"))
    return keep | pc.is_in(itemid, value_set=alarms).to_numpy(zero_copy_only=False), reason


# fmt: off
TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (
    TableSpec("admissions", {
        **_IDS, "admittime": "time", "dischtime": "time", "deathtime": "time", "admission_type": "text",
        "admission_location": "text", "discharge_location": "text", "ethnicity": "text", "edregtime": "time",
        "hospital_expire_flag": "flag"}),
    TableSpec("patients", {"subject_id": "id", "gender": "text", "dob": "time", "dod": "time"}, frozenset({"dod"})),
    TableSpec("diagnoses_icd", {**_IDS, "seq_num": "id", "icd9_code": "text"}),
    TableSpec("labevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "text", "valuenum": "float",
        "valueuom": "text"}, frozenset({"storetime"}), listed_items),
    TableSpec("chartevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "text", "valuenum": "float",
        "valueuom": "text", "error": "flag"}, frozenset({"storetime", "error"}), _listed_or_alarm),
    TableSpec("outputevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "float", "valueuom": "text"},
        keep=listed_items),
    TableSpec("microbiologyevents", {
        **_IDS, "charttime": "time", "spec_type_desc": "text", "org_name": "text", "ab_name": "text",
        "interpretation": "text"}),
    TableSpec("prescriptions", {
        **_IDS, "startdate": "time", "enddate": "time", "drug_type": "text", "drug": "text", "dose_val_rx": "amount",
        "dose_unit_rx": "text", "route": "text"}),
    TableSpec("inputevents_mv", {
        **_IDS, "itemid": "id", "starttime": "time", "endtime": "time", "amount": "float", "amountuom": "text",
        "rate": "float", "rateuom": "text", "patientweight": "float", "statusdescription": "text"}),
    TableSpec("inputevents_cv", {
        **_IDS, "itemid": "id", "charttime": "time", "amount": "float", "amountuom": "text", "rate": "float",
        "rateuom": "text", "originalroute": "text"}),
    TableSpec("procedureevents_mv", {
        **_IDS, "itemid": "id", "starttime": "time", "endtime": "time", "statusdescription": "text"}),
)}
# fmt: on


def read_shard(folder: str | Path, flow: Flow) -> Frames:
    """Frames of one shard's tables.

    Raises:
        EhrDataError: a table cannot be read.
    """
    tables = {name: read_shard_table(folder, spec) for name, spec in TABLES.items()}
    values = _measured(tables.pop("chartevents"), flow)
    micro = tables["microbiologyevents"].rename(
        columns={
            "hadm_id": "stay_id",
            "charttime": "collected",
            "spec_type_desc": "specimen",
            "org_name": "organism",
            "ab_name": "antibiotic",
        }
    )
    micro = micro.assign(test="culture", comments="", resulted=pd.Series(pd.NaT, micro.index, "datetime64[us]"))
    outputs = tables["outputevents"].assign(valueuom=tables["outputevents"]["valueuom"].fillna("ml"))
    inquiries = [
        canonical_inquiries(charted(tables["labevents"], "LAB"), flow, "labevents"),
        canonical_inquiries(charted(values, "LAB"), flow, "chartevents"),
        canonical_inquiries(charted(outputs, "SUBJECT_FLUID_OUTPUT"), flow, "outputevents"),
        culture_inquiries(micro, flow, "microbiologyevents"),
    ]
    orders = main_prescriptions(tables["prescriptions"], flow).rename(
        columns={"drug": "name", "startdate": "starttime", "enddate": "stoptime"}
    )
    orders = _from_admission(orders, tables["admissions"], flow)
    interventions = [
        canonical_interventions(infusions(tables["inputevents_mv"], flow, "inputevents_mv"), flow, "inputevents_mv"),
        canonical_interventions(_moments(tables["inputevents_cv"], flow), flow, "inputevents_cv"),
        canonical_interventions(drug_orders(orders, flow, "prescriptions"), flow, "prescriptions"),
        canonical_interventions(
            procedures(tables["procedureevents_mv"], flow, "procedureevents_mv"), flow, "procedureevents_mv"
        ),
    ]
    diagnoses = tables["diagnoses_icd"].rename(
        columns={"hadm_id": "stay_id", "seq_num": "sequence", "icd9_code": "code"}
    )
    diagnoses = diagnoses.assign(version="9")
    return Frames(
        stays_of(tables["admissions"], tables["patients"], _age_years, "ethnicity", flow),
        diagnoses[["stay_id", "sequence", "version", "code"]],
        stack(inquiries),
        stack(interventions),
    )


def _measured(rows: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """The rows of chartevents that somebody measured."""
    alarm = rows["itemid"].isin(list(ALARM_LIMITS))
    wrong = rows["error"].eq(1) & ~alarm
    flow.refuse("chartevents", "what an alarm was set to, no measurement", int(alarm.sum()))
    flow.refuse("chartevents", "marked as an error by who charted it", int(wrong.sum()))
    return rows[~alarm & ~wrong]


def _from_admission(orders: pd.DataFrame, admissions: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """A prescription has a date and no time: what is of the day of the admission begins with it."""
    admitted = admissions.drop_duplicates("hadm_id").set_index("hadm_id")["admittime"]
    begins = orders["hadm_id"].map(admitted).astype("datetime64[us]")
    start = orders["starttime"]
    early = (start < begins) & (start.dt.normalize() == begins.dt.normalize())
    flow.repair("prescriptions", "a date without a time, the admission's: begins with the admission", int(early.sum()))
    return orders.assign(starttime=start.mask(early, begins))


def _age_years(stays: pd.DataFrame) -> pd.Series:
    """Years at the admission; those over the oldest that are told count as one more than it."""
    age = calendar_years(stays["dob"], stays["admittime"])
    return age.where(age.isna() | (age <= OLDEST_TOLD_YEARS), OLDEST_TOLD_YEARS + 1)


def _moments(inputs: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """inputevents as CareVue charts them, each row a moment, as raw interventions."""
    blank = inputs["amount"].isna() & inputs["rate"].isna()
    flow.refuse("inputevents_cv", "neither amount nor rate (a bag hung or stopped)", int(blank.sum()))
    inputs = inputs[~blank]
    return pd.DataFrame(
        {
            **item_columns(inputs, "infusion", "input"),
            "start": inputs["charttime"],
            "end": pd.Series(pd.NaT, inputs.index, "datetime64[us]"),
            "dose": inputs["amount"],
            "unit": inputs["amountuom"],
            "rate": inputs["rate"],
            "rate_unit": inputs["rateuom"],
            "route": inputs["originalroute"].astype(object).fillna("").str.lower(),
        }
    )
