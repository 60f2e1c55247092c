"""Rows as readers give them -> values in our items and units, doses in theirs: vectorised, every row accounted for.

Readers hand over two frames, whatever their source. Inquiries: subject_id, stay_id (NO_ID: unknown), itemid, unit,
value, text, collected, resulted, source. Interventions: subject_id, stay_id, kind, item, start, end, dose, unit, rate,
rate_unit, route, source, weight_kg. Times are datetime64[us]; a missing number is NaN, a missing time NaT, a missing
text "".
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr import units as ehr_units
from world_models.data.ehr.flow import Flow

__all__ = ["INQUIRY_COLUMNS", "INTERVENTION_COLUMNS", "canonical_inquiries", "canonical_interventions", "empty"]
__all__ += ["number", "shortest_decimals", "single_number"]

INQUIRY_COLUMNS = ("subject_id", "stay_id", "item", "value", "label", "collected", "resulted", "unit", "source")
INTERVENTION_COLUMNS: tuple[str, ...] = (
    "subject_id",
    "stay_id",
    "kind",
    "item",
    "start",
    "end",
    "dose",
    "unit",
    "rate",
    "rate_unit",
)
INTERVENTION_COLUMNS += ("route", "source")
# A result beyond what the method can tell: kept as a label
_COMPARED = (
    r"^\s*([<>]\s*/?=?|=[<>]|[≤≥]|(?:LESS|GREATER|MORE) THAN(?: OR EQUAL TO)?|(?:BELOW|UNDER|ABOVE|OVER|LT|GT))\s*"
    r"([+-]?(?:[0-9][0-9.,]*|[.,][0-9]+)(?:E[+-]?[0-9]+)?)"
    r"(?:\s*[A-Z%\u039c*(\[][^<>≤≥]*)?$"  # a unit or a mark may follow; \u039c is micro
)
# The same signs in other alphabets and in HTML
_SIGNS = {"＜": "<", "＞": ">", "⩽": "≤", "≦": "≤", "⩾": "≥", "≧": "≥", "&LT;": "<", "&GT;": ">", "−": "-"}
# Says a limit, whether or not its number can be read: then the number beside it is no measurement
_LIMIT = (
    r"[<>≤≥]|\b(?:(?:LESS|GREATER|MORE|FEWER|HIGHER|LOWER) THAN|BELOW|UNDER|ABOVE|OVER|AT LEAST|AT MOST|UP TO|LT|GT)\b"
)
_BELOW = ("<", "≤", "LESS", "BELOW", "UNDER", "LT")
WEIGHT_NOT_CHARTED_KG = 1.0
UG_PER_MG = 1000.0


def empty(columns: tuple[str, ...]) -> pd.DataFrame:
    """A frame of no rows with the types of the others."""
    kinds = {"subject_id": "int64", "stay_id": "int64", "value": "float64", "dose": "float64", "rate": "float64"}
    times = ("collected", "resulted", "start", "end")
    return pd.DataFrame(
        {name: pd.Series(dtype="datetime64[us]" if name in times else kinds.get(name, "object")) for name in columns}
    )


def number(text: pd.Series) -> pd.Series:
    """float64 of a column of text: '1,000' is 1000, '2,5' is 2.5 (a comma before exactly three digits separates
    thousands, any other is a decimal one); ranges ('5-10'), words and what is not finite are NaN."""
    plain = text.astype("object").where(text.notna(), "").astype(str).str.strip()
    thousands = plain.str.fullmatch(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")
    plain = plain.mask(thousands, plain.str.replace(",", "", regex=False))
    plain = plain.mask(plain.str.fullmatch(r"[+-]?[0-9]*,[0-9]+"), plain.str.replace(",", ".", regex=False))
    numeral = plain.str.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
    values = pd.to_numeric(plain.where(numeral), errors="coerce").astype(np.float64)
    return values.where(np.isfinite(values))


def single_number(text: pd.Series, flow: Flow, table: str, what: str) -> pd.Series:
    """`number` of a column; what says something and is no single number is counted."""
    values = number(text)
    told = text.astype("object").where(text.notna(), "").astype(str).str.strip().ne("")
    flow.repair(table, f"{what} that is no single number (a range, words): left out", int((told & values.isna()).sum()))
    return values


def shortest_decimals(values: np.ndarray) -> np.ndarray:
    """float64 [N]: of each number the shortest decimal with the same float32, so that 0.1 read from a float32 column is
    0.1 again before it is converted. NaN stays."""
    with np.errstate(over="ignore"):
        unique, place = np.unique(values.astype(np.float32), return_inverse=True)
    return np.array([float(str(value)) for value in unique], np.float64)[place]


def canonical_inquiries(raw: pd.DataFrame, flow: Flow, table: str) -> pd.DataFrame:
    """Values of listed items in their units and plausible ranges (columns INQUIRY_COLUMNS); the rest counted.

    A number beyond the method's reach ('<0.01', and '>60' though the source gives 60 as its number) is censored, not
    measured: it becomes a label in the item's unit, and is left out, counted, where its limit cannot be read. Result
    times before the collection are set to it, counted as repaired.
    """
    ledger = flow.table(table)
    ledger.read += len(raw)
    if raw.empty:
        return empty(INQUIRY_COLUMNS)
    listed = raw["itemid"].isin(list(inquiry_items.by_itemid()))
    flow.drop(table, "item not in the table of inquiries", int((~listed).sum()))
    raw, signs, values = _numeric_results(raw[listed].reset_index(drop=True), flow, table)
    censored = signs.notna().to_numpy()
    pair, met = _pairs(raw["itemid"], raw["unit"])
    units = _item_units(met, np.bincount(pair, minlength=len(met)), flow)
    values = values * units.factor[pair] + units.offset[pair]
    convertible = np.isfinite(units.factor)[pair]
    flow.drop(table, "unit missing or not convertible", int((~convertible).sum()))
    in_range = (values >= units.low[pair]) & (values <= units.high[pair])
    plausible = convertible & np.isfinite(values) & (censored | in_range)
    flow.drop(table, "outside the plausible range", int((convertible & ~plausible).sum()))
    names, lost = np.unique(units.name[pair[convertible & ~plausible]].astype(str), return_counts=True)
    flow.implausible.update(dict(zip(names.tolist(), lost.tolist(), strict=True)))
    collected, resulted = raw["collected"].to_numpy("datetime64[us]"), raw["resulted"].to_numpy("datetime64[us]")
    early = plausible & (resulted < collected)
    flow.repair(table, "result before the collection: taken as the collection time", int(early.sum()))
    result = pd.DataFrame(
        {
            "subject_id": raw["subject_id"].to_numpy(np.int64),
            "stay_id": raw["stay_id"].to_numpy(np.int64),
            "item": units.name[pair],
            "value": np.where(censored, np.nan, values),
            "label": _labels(signs, values, censored & plausible),
            "collected": collected,
            "resulted": np.where(early, collected, resulted),
            "unit": np.where(censored, "", units.unit[pair]),
            "source": raw["source"].to_numpy(object),
        }
    )
    ledger.kept += int(plausible.sum())
    return result[plausible].reset_index(drop=True)


def _numeric_results(raw: pd.DataFrame, flow: Flow, table: str) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """The rows with a number and a collection time, their signs ('<', NaN where the number is measured), the
    numbers."""
    signs = np.full(len(raw), np.nan, object)
    limits = np.full(len(raw), np.nan)
    limited = np.zeros(len(raw), bool)
    text = raw["text"] if "text" in raw else pd.Series("", raw.index, object)
    wordy = (text.notna() & text.ne("")).to_numpy(bool)
    if wordy.any():  # most sources tell numbers alone, and words are slow to read
        said = text[wordy].astype(str).str.upper()
        for theirs, ours in _SIGNS.items():
            said = said.str.replace(theirs, ours, regex=False)
        compared = said.str.extract(_COMPARED)
        limits[wordy] = number(compared[1]).to_numpy()
        signs[wordy] = compared[0].to_numpy(object)
        limited[wordy] = said.str.contains(_LIMIT).to_numpy(bool)
    censored = ~np.isnan(limits)
    keep = censored | (raw["value"].notna().to_numpy() & ~limited)
    flow.drop(table, "no numeric result (text, blank or censored)", int((~keep).sum()))
    no_time = keep & raw["collected"].isna().to_numpy()
    flow.drop(table, "no readable collection time", int(no_time.sum()))
    keep &= ~no_time
    values = np.where(censored, limits, raw["value"].to_numpy(np.float64))[keep]
    return raw[keep], pd.Series(np.where(censored, signs, np.nan)[keep], raw.index[keep]), values


class _ItemUnits(NamedTuple):
    """What each of K pairs of item and source unit becomes: value = factor * theirs + offset, in `unit`."""

    name: np.ndarray  # [K] object
    unit: np.ndarray  # [K] object
    factor: np.ndarray  # [K] float64, NaN where there is no conversion
    offset: np.ndarray  # [K] float64
    low: np.ndarray  # [K] float64, plausible in `unit`
    high: np.ndarray  # [K] float64


def _item_units(pairs: list[tuple[Any, ...]], counts: np.ndarray, flow: Flow) -> _ItemUnits:
    """The conversion of each (itemid, unit); values met, and those of unknown units, are counted in the flow."""
    items, size = inquiry_items.by_itemid(), len(pairs)
    made = _ItemUnits(
        np.empty(size, object), np.empty(size, object), np.full(size, np.nan), *(np.zeros(size) for _ in range(3))
    )
    for k, (itemid, unit) in enumerate(pairs):
        item = items[int(itemid)]
        spelt = ehr_units.spell(unit) or inquiry_items.UNIT_IF_MISSING.get(int(itemid), "")
        spelt = inquiry_items.UNIT_INSTEAD.get(int(itemid), spelt)
        made.name[k], made.unit[k], made.low[k], made.high[k] = item.name, item.unit, item.low, item.high
        flow.values[item.name] += int(counts[k])
        found = ehr_units.conversion(item.name, spelt, item.unit) if spelt else None
        if found is None:
            flow.unknown_units.setdefault(item.name, Counter())[spelt] += int(counts[k])
        else:
            made.factor[k], made.offset[k] = found
    return made


def _labels(signs: pd.Series, values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Labels [N] object of censored values, '<0.01' or '>=60'; None in the rows that are not among `which`."""
    labels = np.full(len(values), None, object)
    for i in np.flatnonzero(which):
        sign = signs.iloc[i]
        equal = "=" if "=" in sign or sign.endswith(("≤", "≥", "TO")) else ""
        labels[i] = f"{'<' if sign.lstrip('=').startswith(_BELOW) else '>'}{equal}{values[i]:.6g}"
    return labels


def _pairs(first: pd.Series, second: pd.Series) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """The place [N] of each row's pair among the pairs met, and those; a missing second is ""."""
    keys = pd.DataFrame(
        {"first": first.to_numpy(), "second": second.astype(object).where(second.notna(), "").to_numpy()}
    )
    codes = keys.groupby(["first", "second"], sort=False).ngroup().to_numpy(np.int64)
    return codes, list(keys.drop_duplicates().itertuples(index=False, name=None))


def canonical_interventions(raw: pd.DataFrame, flow: Flow, table: str) -> pd.DataFrame:
    """Doses and rates in our units where the table converts them (columns INTERVENTION_COLUMNS); the rest counted.

    What cannot be converted keeps its own unit. A dose or rate above the item's or unit's limit, a negative one and an
    end before the start are blanked, counted as repaired; the intervention stays.
    """
    ledger = flow.table(table)
    ledger.read += len(raw)
    if raw.empty:
        return empty(INTERVENTION_COLUMNS)
    known = raw["start"].notna()
    flow.drop(table, "no readable start time", int((~known).sum()))
    named = known & raw["item"].astype(object).fillna("").ne("")
    flow.drop(table, "no name", int((known & ~named).sum()))
    raw = raw[named].reset_index(drop=True)
    result = raw[[name for name in INTERVENTION_COLUMNS]].copy()
    weight = raw["weight_kg"] if "weight_kg" in raw else pd.Series(np.nan, index=raw.index)
    for number_name, unit_name, target in (("dose", "unit", "amount"), ("rate", "rate_unit", "rate")):
        _convert(result, number_name, unit_name, target, weight, flow, table)
    for name in ("route", "source"):
        result[name] = result[name].astype(object).where(result[name].notna(), "")
    backwards = result["end"].notna() & (result["end"] < result["start"])
    result.loc[backwards, "end"] = pd.NaT
    flow.repair(table, "end before start: end blanked", int(backwards.sum()))
    ledger.kept += len(result)
    return result


def _convert(
    frame: pd.DataFrame, name: str, unit_name: str, target: str, weight: pd.Series, flow: Flow, table: str
) -> None:
    """In place: `frame[name]` and its unit into the unit the order's table names, pair by pair."""
    items = intervention_items.by_name()
    values = frame[name].to_numpy(np.float64).copy()
    given = np.isfinite(values)
    negative = given & (values < 0)
    flow.repair(table, f"negative {name} blanked", int(negative.sum()))
    values[negative] = np.nan
    codes, unique = _pairs(frame["item"], frame[unit_name])
    units = np.empty(len(unique), object)
    factor, limit = np.ones(len(unique)), np.zeros(len(unique))
    for k, (item_name, unit) in enumerate(unique):
        item = items.get(item_name)
        units[k] = ehr_units.spell_dose(unit)
        wanted = getattr(item, target) if item is not None else ""
        found = ehr_units.dose_conversion(item_name, units[k], wanted) if wanted and units[k] else None
        if found is not None:
            factor[k], units[k] = found, wanted
        limit[k] = ehr_units.largest_amount(units[k])
        if found is not None and item is not None:
            listed = item.max_rate if target == "rate" else intervention_items.LARGEST_DOSES.get(item_name)
            limit[k] = limit[k] if listed is None else min(limit[k], listed)
    if target == "rate":  # mg/kg/min beside a weight of 1 kg is a slip of the unit: the number is in ug/kg/min
        slip = (weight == WEIGHT_NOT_CHARTED_KG).to_numpy() & (factor[codes] == UG_PER_MG)
        flow.repair(table, "rate in mg/kg/min beside a weight of 1 kg: read as ug/kg/min", int(slip.sum()))
        values = values * np.where(slip, 1.0, factor[codes])
    else:
        values = values * factor[codes]
    high = values > limit[codes]
    flow.repair(table, f"{name} above the limit blanked", int(high.sum()))
    values[high] = np.nan
    unitless = np.isfinite(values) & (units[codes] == "")
    flow.repair(table, f"{name} without a unit blanked", int(unitless.sum()))
    values[unitless] = np.nan
    frame[name] = values
    frame[unit_name] = np.where(np.isfinite(values), units[codes], "")
