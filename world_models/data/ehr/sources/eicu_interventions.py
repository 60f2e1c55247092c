"""eICU's tables of what was given -> raw interventions (see `canonical_events`); what is read how: see `eicu`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from world_models.data.ehr import intervention_items
from world_models.data.ehr import units as ehr_units
from world_models.data.ehr.canonical_events import number, single_number
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.sources.eicu_orders import BLOOD_PRODUCTS, drug_of_order, infusion_of, treatment_of

__all__ = ["blood_products", "infusions", "minutes", "orders", "placed", "treatments"]

LONGEST_GAP_MINUTES = 24 * 60  # between two rows of one infusion; after a longer one its end is not told
WEIGHTS_KG = (20.0, 400.0)  # of adults that are believed
FURTHEST_MINUTES = 10 * 366 * 24 * 60  # an offset beyond is a slip of the pen


def minutes(offsets: pd.Series) -> pd.Series:
    """Timedelta [N] of minutes; NaT where the offset is not told or beyond FURTHEST_MINUTES."""
    values = offsets.to_numpy(np.float64)
    known = np.isfinite(values) & (np.abs(values) <= FURTHEST_MINUTES)
    return pd.Series(pd.to_timedelta(np.where(known, values, np.nan) * 60, unit="s"), offsets.index).astype(
        "timedelta64[us]"
    )


def placed(rows: pd.DataFrame, offset: str, stays: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table with `stay_id`, `admitted` (of the unit), `at` (of the offset) and `collected` (the same)."""
    admitted = stays.set_index("stay_id")["admitted"]
    begun = rows["patientunitstayid"].map(admitted).astype("datetime64[us]")
    at = (begun + minutes(rows[offset])).astype("datetime64[us]")
    return rows.assign(stay_id=rows["patientunitstayid"], admitted=begun, at=at, collected=at)


def infusions(rows: pd.DataFrame, stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """infusiondrug: each rate from its row to the next of the same drug and stay."""
    named = [infusion_of(name) if name else ("", "") for name in rows["drugname"].astype(object).fillna("")]
    odd = np.array([unit is None for _, unit in named], bool)
    flow.repair("infusiondrug", "a unit in the drug's name that no table has: rate left out", int(odd.sum()))
    told = rows["drugrate"].astype(object)
    told = told.mask(told.fillna("").astype(str).str.strip().str.lower().eq("off"), "0")
    rate = single_number(told, flow, "infusiondrug", "rate").mask(pd.Series(odd, rows.index))
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "admitted": rows["admitted"],
            "item": [item for item, _ in named],
            "start": rows["at"],
            "rate": rate,
            "rate_unit": [unit or "" for _, unit in named],
            "source": "EICU//" + rows["drugname"].astype(object).fillna(""),
            "weight": _weights(rows, stays),
            "untold": rate.isna() & ~odd,  # such a row still ends what ran before it
        }
    ).reset_index(drop=True)
    frame = _by_weight(frame, flow)
    frame = _in_one_unit(frame, flow)
    after = frame.groupby(["stay_id", "item"])["start"].shift(-1)
    frame["end"] = after.where(after - frame["start"] <= pd.Timedelta(minutes=LONGEST_GAP_MINUTES))
    untold = frame.pop("untold")
    flow.refuse("infusiondrug", "no rate: whether it runs is not told", int(untold.sum()))
    frame = frame[~untold]
    still = frame["rate"].eq(0)
    flow.refuse("infusiondrug", "rate 0: it does not run", int(still.sum()))
    frame = _from_admission(frame[~still].reset_index(drop=True), flow, "infusiondrug")
    dose, unit = _amounts(frame)
    return frame.assign(kind="infusion", dose=dose, unit=unit, route="").drop(columns=["admitted", "weight"])


def _weights(rows: pd.DataFrame, stays: pd.DataFrame) -> pd.Series:
    """kg [N]: of the row, else of the admission; NaN where neither is one of an adult."""
    own = number(rows["patientweight"])
    whole = rows["stay_id"].map(stays.set_index("stay_id")["weight_kg"])
    return own.where(own.between(*WEIGHTS_KG), whole.where(whole.between(*WEIGHTS_KG)))


def _by_weight(frame: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Rates a kilogram where our table has them so, and as a whole where it has those."""
    pairs = frame[["item", "rate_unit"]].drop_duplicates()
    found = {(item, unit): _weight_power(item, unit) for item, unit in pairs.itertuples(index=False, name=None)}
    told = [found[pair] for pair in zip(frame["item"], frame["rate_unit"], strict=True)]
    power = np.array([power for power, _ in told], np.float64)
    known = (power != 0) & frame["weight"].notna().to_numpy()
    flow.repair("infusiondrug", "rate brought to or from one a kilogram by the weight on record", int(known.sum()))
    flow.repair("infusiondrug", "no weight on record: rate stays in its own unit", int(((power != 0) & ~known).sum()))
    factor = np.where(known, frame["weight"].fillna(1.0).to_numpy() ** power, 1.0)
    unit = np.where(known, np.array([unit for _, unit in told], object), frame["rate_unit"])
    return frame.assign(rate=frame["rate"] * factor, rate_unit=unit)


def _weight_power(item: str, unit: str) -> tuple[int, str]:
    """(power of the weight that brings the rate to our table's kind, the unit it then has)."""
    listed = intervention_items.by_name().get(item)
    wanted = "" if listed is None else listed.rate
    if not wanted or not unit or ehr_units.dose_conversion(item, unit, wanted) is not None:
        return 0, unit
    head, _, per = unit.partition("/")
    other, power = (unit.replace("/kg", ""), 1) if "/kg" in unit else (f"{head}/kg/{per}", -1)
    return (power, other) if ehr_units.dose_conversion(item, other, wanted) is not None else (0, unit)


def _in_one_unit(frame: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Sorted by stay, drug and time, each moment once: of several rows the one in a unit that can be converted."""
    pairs = {
        (item, unit): _convertible(item, unit)
        for item, unit in frame[["item", "rate_unit"]].drop_duplicates().itertuples(index=False, name=None)
    }
    odd = [not pairs[pair] for pair in zip(frame["item"], frame["rate_unit"], strict=True)]
    worse = np.array(odd, np.int64) + 2 * frame["untold"].to_numpy(np.int64)
    frame = frame.assign(worse=worse).sort_values(["stay_id", "item", "start", "worse"], kind="stable")
    again = frame.duplicated(["stay_id", "item", "start"])
    flow.refuse("infusiondrug", "the same drug and moment again (in another unit, a second bag)", int(again.sum()))
    return frame[~again].drop(columns="worse").reset_index(drop=True)


def _convertible(item: str, unit: str) -> bool:
    listed = intervention_items.by_name().get(item)
    return bool(unit) and listed is not None and ehr_units.dose_conversion(item, unit, listed.rate) is not None


def _from_admission(frame: pd.DataFrame, flow: Flow, table: str) -> pd.DataFrame:
    """What runs or is open at the unit admission begins there; needs `admitted`, `start` and `end`."""
    open_ = (frame["start"] < frame["admitted"]) & (frame["end"] > frame["admitted"])
    flow.repair(table, "begun before the unit admission and still on: begins there", int(open_.sum()))
    return frame.assign(start=frame["start"].mask(open_, frame["admitted"]))


def _amounts(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Dose [N] and its unit of infusions with an end: the rate times its duration; none of rates a kilogram."""
    hours = ((frame["end"] - frame["start"]) / pd.Timedelta(hours=1)).to_numpy(np.float64)
    per = frame["rate_unit"].astype(str).str.extract(r"^([^/]+)/(h|min)$")
    scale = per[1].map({"h": 1.0, "min": 60.0}).to_numpy(np.float64)
    dose = frame["rate"].to_numpy(np.float64) * hours * scale
    return dose, np.where(np.isfinite(dose), per[0].fillna("").to_numpy(object), "")


def blood_products(rows: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """intakeoutput: volumes of blood products."""
    label = rows["celllabel"].astype(object).fillna("").str.lower().str.strip()
    item = [next((item for pattern, item in BLOOD_PRODUCTS if re.match(pattern, name)), "") for name in label]
    known = np.array([bool(name) for name in item], bool)
    flow.refuse("intakeoutput", "a blood product that no table has", int((~known).sum()))
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "kind": "administration",
            "item": item,
            "start": rows["at"],
            "end": pd.Series(pd.NaT, rows.index, "datetime64[us]"),
            "dose": rows["cellvaluenumeric"],
            "unit": "mL",
            "rate": np.nan,
            "rate_unit": "",
            "route": "",
            "source": "EICU//" + label,
        }
    )
    return frame[known].reset_index(drop=True)


def treatments(rows: pd.DataFrame, dosed: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """treatment: what was documented as done. `dosed`: (stay_id, item) that another table tells with doses."""
    found = [treatment_of(path) for path in rows["treatmentstring"].astype(object).fillna("")]
    known = np.array([each is not None for each in found], bool)
    flow.refuse("treatment", "no order of ours (consultations, diets, classes without a name)", int((~known).sum()))
    told = [each for each in found if each is not None]
    rows = rows[known]
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "stay_id": rows["stay_id"].to_numpy(),
            "kind": [kind for _, kind, _ in told],
            "item": [item for item, _, _ in told],
            "start": rows["at"].to_numpy(),
            "end": np.full(len(rows), np.datetime64("NaT", "us")),
            "dose": np.nan,
            "unit": "",
            "rate": np.nan,
            "rate_unit": "",
            "route": [route for _, _, route in told],
            "source": ("EICU//" + rows["treatmentstring"].astype(object)).to_numpy(),
        }
    )
    again = pd.MultiIndex.from_frame(frame[["stay_id", "item"]]).isin(pd.MultiIndex.from_frame(dosed))
    flow.refuse("treatment", "told with doses by the stay's infusions or blood products", int(again.sum()))
    return frame[~again].reset_index(drop=True)


def orders(rows: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """medication: orders of the pharmacy."""
    cancelled = rows["drugordercancelled"].astype(object).fillna("").str.lower().eq("yes")
    flow.refuse("medication", "order cancelled", int(cancelled.sum()))
    names = rows["drugname"].astype(object).fillna("")
    flush = ~cancelled & names.map(intervention_items.is_flush).astype(bool)
    flow.refuse("medication", "line flush", int(flush.sum()))
    rows, names = rows[~cancelled & ~flush].reset_index(drop=True), names[~cancelled & ~flush].reset_index(drop=True)
    items = [drug_of_order(n, int(h)) for n, h in zip(names, rows["drughiclseqno"], strict=True)]
    by_number = sum(bool(item) and not name.strip() for item, name in zip(items, names, strict=True))
    flow.repair("medication", "no name: named by the number of its ingredients", by_number)
    stop = rows["drugstopoffset"].astype(np.float64).where(~rows["drugstopoffset"].isin([0, NO_ID]))
    told = rows["dosage"].astype(object).fillna("").astype(str).str.strip()
    parts = told.str.extract(r"^([\d.,]+)\s*([A-Za-z/%]+)$")
    flow.repair(
        "medication", "dosage that is no number with a unit: left out", int((told.ne("") & parts[0].isna()).sum())
    )
    frame = pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "admitted": rows["admitted"],
            "kind": "prescription",
            "item": items,
            "start": rows["at"],
            "end": (rows["admitted"] + minutes(stop)).astype("datetime64[us]"),
            "dose": number(parts[0]),
            "unit": parts[1].fillna(""),
            "rate": np.nan,
            "rate_unit": "",
            "route": rows["routeadmin"].astype(object).fillna(""),
            "source": "EICU//" + names,
        }
    )
    return _from_admission(frame, flow, "medication").drop(columns="admitted")
