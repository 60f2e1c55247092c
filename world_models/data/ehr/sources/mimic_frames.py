"""What the tables of MIMIC-III and MIMIC-IV have in common: their rows as frames of stays and raw events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr.assemble import before_death
from world_models.data.ehr.canonical_events import single_number
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.tables import EhrDataError

__all__ = ["charted", "drug_orders", "infusions", "item_columns", "listed_items", "main_prescriptions", "procedures"]
__all__ += ["stack", "stays_of"]


def listed_items(batch: pa.RecordBatch) -> tuple[np.ndarray, str]:
    """The rows to keep, bool [N]: those of an item in the table of inquiries (a `tables.RowFilter`)."""
    wanted = pa.array(sorted(inquiry_items.by_itemid()), pa.int64())
    itemid = batch.column(batch.schema.get_field_index("itemid"))
    keep = pc.is_in(itemid, value_set=wanted).to_numpy(zero_copy_only=False)
    return keep, "item not in the table of inquiries"


def stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenated; empty ones only where all are."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def stays_of(
    admissions: pd.DataFrame,
    patients: pd.DataFrame,
    age_years: Callable[[pd.DataFrame], pd.Series],
    race: str,
    flow: Flow,
) -> pd.DataFrame:
    """Stays as `Frames` has them.

    Args:
        age_years: of the admissions with their patients' columns; NaN: unknown.
        race: the name of its column.

    Raises:
        EhrDataError: a patient has several rows.
    """
    stays = _with_patients(admissions, patients)
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
            "age_years": age_years(stays),
            "sex_female": np.where(sex == "F", 1.0, np.where(sex == "M", 0.0, np.nan)),
            "truncated": False,
            "race": stays[race],
            "admission_type": stays["admission_type"],
            "admission_location": stays["admission_location"],
            "discharge_location": stays["discharge_location"],
        }
    )
    return _of_the_living(made, stays["dod"], flow)


def _with_patients(admissions: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Each admission with its patient's row, where there is one.

    Raises:
        EhrDataError: a patient has several rows.
    """
    twice = patients.loc[patients["subject_id"].duplicated(), "subject_id"]
    if len(twice):
        raise EhrDataError(
            f"table patients: subject_id {twice.iloc[0]} has {int((patients['subject_id'] == twice.iloc[0]).sum())} "
            f"rows ({twice.nunique()} such patients); a patient has one: remove the others"
        )
    return admissions.merge(patients, on="subject_id", how="left")


def _of_the_living(stays: pd.DataFrame, dod: pd.Series, flow: Flow) -> pd.DataFrame:
    """Stays (as `Frames` has them) of patients who die, by the hospital's deathtime or their date of death `dod`."""
    inside = (dod >= stays["admitted"].dt.normalize()) & (dod < stays["discharged"].dt.normalize())
    stays["died"] = stays["died"].where(stays["died"].notna() | ~inside, dod)
    return before_death(stays, stays["subject_id"], dod, flow)


def charted(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """A table of values (itemid, charttime, storetime, valueuom, valuenum or a numeric value) as raw inquiries."""
    text = table["value"] if "valuenum" in table else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "subject_id": table["subject_id"],
            "stay_id": table["hadm_id"],
            "itemid": table["itemid"],
            "unit": table["valueuom"],
            "value": table["valuenum"] if "valuenum" in table else table["value"],
            "text": text,
            "collected": table["charttime"],
            "resulted": table["storetime"],
            "source": prefix + "//" + table["itemid"].astype(str),
        }
    )


def main_prescriptions(prescriptions: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """The rows of an order's drug; those of what it is given in belong to another's."""
    main = prescriptions["drug_type"].eq("MAIN")
    flow.refuse("prescriptions", "diluent or additive of another order", int((~main).sum()))
    return prescriptions[main]


def drug_orders(orders: pd.DataFrame, flow: Flow, table: str) -> pd.DataFrame:
    """Orders (name, starttime, stoptime, dose_val_rx, dose_unit_rx, route) of `table` as raw interventions."""
    names = orders["name"].astype(object).fillna("")
    flush = names.map(intervention_items.is_flush).astype(bool)
    flow.refuse(table, "line flush", int(flush.sum()))
    orders, names = orders[~flush].reset_index(drop=True), names[~flush]
    return pd.DataFrame(
        {
            "subject_id": orders["subject_id"],
            "stay_id": orders["hadm_id"],
            "kind": "prescription",
            "item": [intervention_items.item_of_drug(name) if name else "" for name in names],
            "start": orders["starttime"],
            "end": orders["stoptime"],
            "dose": single_number(orders["dose_val_rx"], flow, table, "dose ordered"),
            "unit": orders["dose_unit_rx"],
            "rate": np.nan,
            "rate_unit": "",
            "route": orders["route"],
            "source": ["MEDICATION//" + name for name in names],
        }
    )


def infusions(inputs: pd.DataFrame, flow: Flow, name: str) -> pd.DataFrame:
    """The table `name`, inputevents as MetaVision charts them, as raw interventions.

    A rewritten row was replaced by another and did not run.
    """
    rewritten = inputs["statusdescription"].eq("Rewritten")
    flow.refuse(name, "rewritten (replaced by another row)", int(rewritten.sum()))
    inputs = inputs[~rewritten]
    return pd.DataFrame(
        {
            **item_columns(inputs, "infusion", "input"),
            "start": inputs["starttime"],
            "end": inputs["endtime"],
            "dose": inputs["amount"],
            "unit": inputs["amountuom"],
            "rate": inputs["rate"],
            "rate_unit": inputs["rateuom"],
            "route": "",
            "weight_kg": inputs["patientweight"],
        }
    )


def procedures(table: pd.DataFrame, flow: Flow, name: str) -> pd.DataFrame:
    """The table `name`, procedureevents, as raw interventions."""
    administrative = table["itemid"].isin(intervention_items.ADMINISTRATIVE)
    flow.refuse(name, "administrative (family, theatre log)", int(administrative.sum()))
    table = table[~administrative]
    return pd.DataFrame(
        {
            **item_columns(table, "procedure", "procedure"),
            "start": table["starttime"],
            "end": table["endtime"],
            "dose": np.nan,
            "unit": "",
            "rate": np.nan,
            "rate_unit": "",
            "route": "",
        }
    )


def item_columns(table: pd.DataFrame, kind: str, unlisted: str) -> dict[str, Any]:
    """Whose, in which stay, and what: columns of raw interventions from subject_id, hadm_id and itemid.

    Args:
        kind: one of `episode.KINDS`.
        unlisted: an item that is not in the table of interventions is named "<unlisted> <itemid>".
    """
    return {
        "subject_id": table["subject_id"],
        "stay_id": table["hadm_id"],
        "kind": kind,
        "item": _item_names(table["itemid"], unlisted),
        "source": f"{kind.upper()}//" + table["itemid"].astype(str),
    }


def _item_names(itemids: pd.Series, unlisted: str) -> list[str]:
    """Our name of each item id, else "<unlisted> <id>"; "" where the id is not told."""
    items = intervention_items.by_itemid()
    known = {i: items[i].name if i in items else f"{unlisted} {i}" for i in itemids.unique().tolist()}
    known[NO_ID] = ""
    return [known[i] for i in itemids.tolist()]
