"""MIMIC-IV raw tables (hosp and icu, as PhysioNet publishes them) -> frames of stays and events.

Needed: admissions, patients. The rest is read where it is there: diagnoses_icd, labevents, microbiologyevents, emar,
emar_detail, prescriptions, pharmacy, chartevents, inputevents, procedureevents, outputevents.

Johnson 2023, doi 10.1038/s41597-022-01899-x. Traps, each with a test: a lab is collected at charttime and its result
storetime; labevents.hadm_id may be null (the stay is then found by time); emar joined to prescriptions on pharmacy_id
fans out unless drug_type is MAIN; emar_detail has a parent row and one row a product; infusions rewritten or paused
are marked in statusdescription; billing codes of procedures have a date only and are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from world_models.data.ehr import intervention_items
from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions, number, single_number
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.microbiology import culture_inquiries
from world_models.data.ehr.sources.mimic_frames import (
    charted,
    drug_orders,
    infusions,
    listed_items,
    main_prescriptions,
    procedures,
    stack,
    stays_of,
)
from world_models.data.ehr.tables import TableSpec, read_shard_table

__all__ = ["REQUIRED", "TABLES", "administered", "fill_doses", "read_shard"]

REQUIRED = ("admissions", "patients")
_IDS = {"subject_id": "id", "hadm_id": "id"}


# fmt: off
TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (
    TableSpec("admissions", {
        **_IDS, "admittime": "time", "dischtime": "time", "deathtime": "time", "admission_type": "text",
        "admission_location": "text", "discharge_location": "text", "race": "text", "edregtime": "time",
        "hospital_expire_flag": "flag"}, frozenset({"edregtime", "race"})),
    TableSpec("patients", {
        "subject_id": "id", "gender": "text", "anchor_age": "float", "anchor_year": "float", "dod": "time"},
        frozenset({"dod"})),
    TableSpec("diagnoses_icd", {**_IDS, "seq_num": "id", "icd_code": "text", "icd_version": "id"}),
    TableSpec("labevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "text", "valuenum": "float",
        "valueuom": "text"}, keep=listed_items),
    TableSpec("chartevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "text", "valuenum": "float",
        "valueuom": "text"}, keep=listed_items),
    TableSpec("outputevents", {
        **_IDS, "itemid": "id", "charttime": "time", "storetime": "time", "value": "float", "valueuom": "text"},
        keep=listed_items),
    TableSpec("microbiologyevents", {
        **_IDS, "charttime": "time", "storetime": "time", "spec_type_desc": "text", "test_name": "text",
        "org_name": "text", "ab_name": "text", "interpretation": "text", "comments": "text"}),
    TableSpec("emar", {
        **_IDS, "emar_id": "text", "pharmacy_id": "id", "charttime": "time", "medication": "text",
        "event_txt": "text"}),
    TableSpec("emar_detail", {
        "subject_id": "id", "emar_id": "text", "parent_field_ordinal": "text", "dose_given": "amount",
        "dose_given_unit": "text", "infusion_rate": "amount", "infusion_rate_unit": "text", "route": "text"}),
    TableSpec("prescriptions", {
        **_IDS, "pharmacy_id": "id", "starttime": "time", "stoptime": "time", "drug_type": "text", "drug": "text",
        "dose_val_rx": "amount", "dose_unit_rx": "text", "route": "text"}),
    TableSpec("pharmacy", {
        **_IDS, "pharmacy_id": "id", "starttime": "time", "stoptime": "time", "medication": "text", "route": "text"}),
    TableSpec("inputevents", {
        **_IDS, "itemid": "id", "starttime": "time", "endtime": "time", "amount": "float", "amountuom": "text",
        "rate": "float", "rateuom": "text", "patientweight": "float", "statusdescription": "text"}),
    TableSpec("procedureevents", {
        **_IDS, "itemid": "id", "starttime": "time", "endtime": "time", "statusdescription": "text"}),
)}
# fmt: on


def read_shard(folder: str | Path, flow: Flow) -> Frames:
    """Frames of one shard's tables.

    Raises:
        EhrDataError: a table cannot be read.
    """
    tables = {name: read_shard_table(folder, spec) for name, spec in TABLES.items() if name not in _AT_NEED}
    diagnoses = tables["diagnoses_icd"].rename(
        columns={"hadm_id": "stay_id", "seq_num": "sequence", "icd_code": "code", "icd_version": "version"}
    )
    inquiries = [
        canonical_inquiries(charted(read_shard_table(folder, TABLES[name]), prefix), flow, name)
        for name, prefix in (("labevents", "LAB"), ("chartevents", "LAB"), ("outputevents", "SUBJECT_FLUID_OUTPUT"))
    ]
    micro = tables["microbiologyevents"].rename(
        columns={
            "hadm_id": "stay_id",
            "charttime": "collected",
            "storetime": "resulted",
            "spec_type_desc": "specimen",
            "test_name": "test",
            "org_name": "organism",
            "ab_name": "antibiotic",
        }
    )
    inquiries.append(culture_inquiries(micro, flow, "microbiologyevents"))
    interventions = [
        canonical_interventions(
            administered(tables["emar"], tables["emar_detail"], tables["prescriptions"], flow), flow, "emar"
        ),
        canonical_interventions(infusions(tables["inputevents"], flow, "inputevents"), flow, "inputevents"),
        canonical_interventions(
            procedures(tables["procedureevents"], flow, "procedureevents"), flow, "procedureevents"
        ),
        _prescribed(tables["prescriptions"], tables["pharmacy"], flow),
    ]
    return Frames(
        stays_of(tables["admissions"], tables["patients"], _age_years, "race", flow),
        diagnoses[["stay_id", "sequence", "version", "code"]],
        stack(inquiries),
        stack(interventions),
    )


_AT_NEED = ("labevents", "chartevents", "outputevents")  # the large ones, one at a time


def _age_years(stays: pd.DataFrame) -> pd.Series:
    """The anchor age plus the years between anchor and admission."""
    return stays["anchor_age"] + stays["admittime"].dt.year - stays["anchor_year"]


def administered(emar: pd.DataFrame, detail: pd.DataFrame, prescriptions: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """emar rows of doses that went in. The dose is the sum of the product rows of emar_detail, where they share a unit;
    where there is none, the dose of the order (its MAIN row, so that the join cannot fan out). A dose of which one
    product's cannot be read is not told."""
    done = emar["event_txt"].isin(intervention_items.EXECUTED)
    flow.refuse("emar", "not executed (not given, stopped, flushed, assessed ...)", int((~done).sum()))
    flush = done & emar["medication"].astype(object).fillna("").map(intervention_items.is_flush).astype(bool)
    flow.refuse("emar", "line flush", int(flush.sum()))
    emar = emar[done & ~flush]
    again = detail.duplicated() & detail["parent_field_ordinal"].notna()  # the ordinal numbers an event's products
    flow.repair("emar_detail", "the same product of one administration again: taken once", int(again.sum()))
    detail = detail[~again]
    detail = detail.assign(
        dose=single_number(detail["dose_given"], flow, "emar_detail", "dose given"),
        rate=single_number(detail["infusion_rate"], flow, "emar_detail", "infusion rate"),
        unit=detail["dose_given_unit"].astype(object).fillna(""),
        rate_unit=detail["infusion_rate_unit"].astype(object).fillna(""),
    )
    unread = detail.loc[detail["dose_given"].notna() & detail["dose"].isna(), "emar_id"]
    dosed = detail[detail["dose"].notna() & ~detail["emar_id"].isin(unread)].groupby("emar_id")
    mixed = dosed["unit"].nunique() > 1
    doses = dosed.agg(dose=("dose", "sum"), unit=("unit", "first"))[~mixed]
    flow.repair("emar", "products of one administration in several units: dose left out", int(mixed.sum()))
    rates = (
        detail[detail["rate"].notna()].groupby("emar_id").agg(rate=("rate", "first"), rate_unit=("rate_unit", "first"))
    )
    routes = detail.groupby("emar_id")["route"].first()
    by_id = emar["emar_id"].to_numpy()
    dose = doses["dose"].reindex(by_id).to_numpy(np.float64)
    unit = doses["unit"].reindex(by_id).to_numpy(object)
    route = routes.reindex(by_id).to_numpy(object)

    main = prescriptions[prescriptions["drug_type"].eq("MAIN") & prescriptions["pharmacy_id"].ne(NO_ID)]
    main = main.drop_duplicates("pharmacy_id").set_index("pharmacy_id").reindex(emar["pharmacy_id"].to_numpy())
    ordered = number(main["dose_val_rx"]).to_numpy()
    take = np.isnan(dose) & np.isfinite(ordered)
    flow.repair("emar", "dose taken from the order", int(take.sum()))
    medication = emar["medication"].astype(object).fillna("").to_numpy()
    return pd.DataFrame(
        {
            "subject_id": emar["subject_id"].to_numpy(),
            "stay_id": emar["hadm_id"].to_numpy(),
            "kind": "administration",
            "item": [intervention_items.item_of_drug(name) if name else "" for name in medication],
            "start": emar["charttime"].to_numpy(),
            "end": pd.Series(pd.NaT, index=range(len(emar)), dtype="datetime64[us]"),
            "dose": np.where(take, ordered, dose),
            "unit": np.where(take, main["dose_unit_rx"].to_numpy(object), unit),
            "rate": rates["rate"].reindex(by_id).to_numpy(),
            "rate_unit": rates["rate_unit"].reindex(by_id).to_numpy(),
            "route": np.where(pd.isna(route), main["route"].to_numpy(object), route),
            "source": ["MEDICATION//" + name for name in medication],
        }
    )


def _prescribed(prescriptions: pd.DataFrame, pharmacy: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Orders of the pharmacy, one row each, with the dose of their MAIN prescription row; without the pharmacy's table
    the MAIN rows themselves."""
    orders = main_prescriptions(prescriptions, flow)
    if not len(pharmacy):
        raw = drug_orders(orders.assign(name=orders["drug"]), flow, "prescriptions")
        return canonical_interventions(raw, flow, "prescriptions")
    known = orders["pharmacy_id"].isin(pharmacy["pharmacy_id"]) & orders["pharmacy_id"].ne(NO_ID)
    flow.refuse("prescriptions", "order not in pharmacy", int((~known).sum()))
    flow.table("prescriptions").read += int(known.sum())
    flow.table("prescriptions").kept += int(known.sum())
    doses = orders[known].drop_duplicates("pharmacy_id")
    orders = pharmacy.merge(
        doses[["pharmacy_id", "drug", "dose_val_rx", "dose_unit_rx", "route"]],
        on="pharmacy_id",
        how="left",
        suffixes=("", "_rx"),
        validate="many_to_one",
    )
    orders["name"] = orders["medication"].where(orders["medication"].notna(), orders["drug"])
    orders["route"] = orders["route"].where(orders["route"].notna(), orders["route_rx"])
    return canonical_interventions(drug_orders(orders, flow, "pharmacy"), flow, "pharmacy")


def fill_doses(given: pd.DataFrame, orders: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Administrations without a dose take dose and route of the order of the same drug that was open then, the one
    begun last; counted. `orders` has kind "prescription"."""
    bare = given["dose"].isna() & given["kind"].eq("administration")
    if not bare.any() or orders.empty:
        return given
    left = given.loc[bare, ["subject_id", "item", "start"]].assign(at=np.flatnonzero(bare))
    right = orders.loc[orders["dose"].notna(), ["subject_id", "item", "start", "end", "dose", "unit", "route"]]
    right = right.rename(columns={"start": "ordered"}).sort_values("ordered", kind="stable")
    merged = pd.merge_asof(
        left.sort_values("start", kind="stable"), right, left_on="start", right_on="ordered", by=["subject_id", "item"]
    )
    merged = merged[merged["dose"].notna() & (merged["end"].isna() | (merged["start"] <= merged["end"]))]
    given = given.copy()
    rows = given.index[merged["at"].to_numpy()]
    for name in ("dose", "unit"):
        given.loc[rows, name] = merged[name].to_numpy()
    blank = given.loc[rows, "route"].eq("").to_numpy()
    given.loc[rows[blank], "route"] = merged["route"].to_numpy()[blank]
    flow.repair("interventions", "dose of an administration taken from its order", len(rows))
    return given
