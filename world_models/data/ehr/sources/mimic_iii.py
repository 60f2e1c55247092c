"""MIMIC-III tables -> frames of stays and events: labs, prescriptions, inputs of both systems, outputs, microbiology.

Johnson 2016, doi 10.1038/sdata.2016.35. What differs from MIMIC-IV: labs have no result time; ages over 89 are shifted
to 300 (read as 90); prescriptions have dates without times and are orders, not doses given; a culture without an
organism grew nothing; CareVue charts a running infusion hour by hour (INPUTEVENTS_CV: each row is one moment, without
an end) and MetaVision as intervals (INPUTEVENTS_MV). Patients may be the same as in MIMIC-IV: never mix the two across
a split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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

__all__ = ["REQUIRED", "TABLES", "read_shard"]

REQUIRED = ("admissions", "patients")
OLDEST_TOLD_YEARS = 89.0
_IDS = {"subject_id": "id", "hadm_id": "id"}

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
        canonical_inquiries(charted(outputs, "SUBJECT_FLUID_OUTPUT"), flow, "outputevents"),
        culture_inquiries(micro, flow, "microbiologyevents"),
    ]
    orders = main_prescriptions(tables["prescriptions"], flow).rename(
        columns={"drug": "name", "startdate": "starttime", "enddate": "stoptime"}
    )
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
