"""MIMIC-III tables -> frames of stays and events: labs, prescriptions, inputs of both systems, outputs, microbiology.

Johnson 2016, doi 10.1038/sdata.2016.35. What differs from MIMIC-IV: labs have no result time; ages over 89 are shifted
to 300 (read as 90); prescriptions have dates without times and are orders, not doses given; a culture without an
organism grew nothing; CareVue charts a running infusion hour by hour (INPUTEVENTS_CV: each row is one moment, without
an end) and MetaVision as intervals (INPUTEVENTS_MV). Patients may be the same as in MIMIC-IV: never mix the two across
a split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from world_models.data.ehr import intervention_items
from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions, single_number
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.microbiology import culture_inquiries
from world_models.data.ehr.sources.mimic_iv import (
    LISTED_ITEMS,
    charted,
    item_names,
    living,
    procedures,
    stack,
    with_patients,
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
        "valueuom": "text"}, frozenset({"storetime"}), LISTED_ITEMS),
    TableSpec("outputevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "float", "valueuom": "text"},
        keep=LISTED_ITEMS),
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
    interventions = [
        canonical_interventions(_intervals(tables["inputevents_mv"], flow), flow, "inputevents_mv"),
        canonical_interventions(_moments(tables["inputevents_cv"], flow), flow, "inputevents_cv"),
        canonical_interventions(_prescribed(tables["prescriptions"], flow), flow, "prescriptions"),
        canonical_interventions(
            procedures(tables["procedureevents_mv"], flow, "procedureevents_mv"), flow, "procedureevents_mv"
        ),
    ]
    diagnoses = tables["diagnoses_icd"].rename(
        columns={"hadm_id": "stay_id", "seq_num": "sequence", "icd9_code": "code"}
    )
    diagnoses = diagnoses.assign(version="9")
    return Frames(
        _stays(tables["admissions"], tables["patients"], flow),
        diagnoses[["stay_id", "sequence", "version", "code"]],
        stack(inquiries),
        stack(interventions),
    )


def _stays(admissions: pd.DataFrame, patients: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    stays = with_patients(admissions, patients)
    # years by the calendar: 300 of them do not fit into a difference of times
    admitted, born = stays["admittime"].dt, stays["dob"].dt
    before_birthday = (admitted.month < born.month) | ((admitted.month == born.month) & (admitted.day < born.day))
    age = (admitted.year - born.year - before_birthday).astype(np.float64)
    sex = stays["gender"].astype(object).fillna("").str.upper().str[:1]
    made = pd.DataFrame(
        {
            "subject_id": stays["subject_id"],
            "stay_id": stays["hadm_id"],
            "registered": stays["edregtime"],
            "admitted": stays["admittime"],
            "discharged": stays["dischtime"],
            "died": stays["deathtime"],
            "died_in_hospital": stays["hospital_expire_flag"],
            "age_years": age.where(age <= OLDEST_TOLD_YEARS, OLDEST_TOLD_YEARS + 1).where(stays["dob"].notna()),
            "sex_female": np.where(sex == "F", 1.0, np.where(sex == "M", 0.0, np.nan)),
            "truncated": False,
            "race": stays["ethnicity"],
            "admission_type": stays["admission_type"],
            "admission_location": stays["admission_location"],
            "discharge_location": stays["discharge_location"],
        }
    )
    return living(made, stays["dod"], flow)


def _intervals(inputs: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    rewritten = inputs["statusdescription"].eq("Rewritten")
    flow.refuse("inputevents_mv", "rewritten (replaced by another row)", int(rewritten.sum()))
    inputs = inputs[~rewritten]
    return pd.DataFrame(
        {
            "subject_id": inputs["subject_id"],
            "stay_id": inputs["hadm_id"],
            "kind": "infusion",
            "item": item_names(inputs["itemid"], "input"),
            "start": inputs["starttime"],
            "end": inputs["endtime"],
            "dose": inputs["amount"],
            "unit": inputs["amountuom"],
            "rate": inputs["rate"],
            "rate_unit": inputs["rateuom"],
            "route": "",
            "source": "INFUSION//" + inputs["itemid"].astype(str),
            "weight_kg": inputs["patientweight"],
        }
    )


def _moments(inputs: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    blank = inputs["amount"].isna() & inputs["rate"].isna()
    flow.refuse("inputevents_cv", "neither amount nor rate (a bag hung or stopped)", int(blank.sum()))
    inputs = inputs[~blank]
    return pd.DataFrame(
        {
            "subject_id": inputs["subject_id"],
            "stay_id": inputs["hadm_id"],
            "kind": "infusion",
            "item": item_names(inputs["itemid"], "input"),
            "start": inputs["charttime"],
            "end": pd.Series(pd.NaT, inputs.index, "datetime64[us]"),
            "dose": inputs["amount"],
            "unit": inputs["amountuom"],
            "rate": inputs["rate"],
            "rate_unit": inputs["rateuom"],
            "route": inputs["originalroute"].astype(object).fillna("").str.lower(),
            "source": "INFUSION//" + inputs["itemid"].astype(str),
        }
    )


def _prescribed(table: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    main = table["drug_type"].eq("MAIN")
    flow.refuse("prescriptions", "diluent or additive of another order", int((~main).sum()))
    table = table[main]
    name = table["drug"].astype(object).fillna("")
    flush = name.map(intervention_items.is_flush).astype(bool)
    flow.refuse("prescriptions", "line flush", int(flush.sum()))
    table, name = table[~flush], name[~flush]
    dose = single_number(table["dose_val_rx"], flow, "prescriptions", "dose ordered")
    return pd.DataFrame(
        {
            "subject_id": table["subject_id"],
            "stay_id": table["hadm_id"],
            "kind": "prescription",
            "item": [intervention_items.item_of_drug(text) if text else "" for text in name],
            "start": table["startdate"],
            "end": table["enddate"],
            "dose": dose,
            "unit": table["dose_unit_rx"],
            "rate": np.nan,
            "rate_unit": "",
            "route": table["route"],
            "source": "MEDICATION//" + name,
        }
    )
