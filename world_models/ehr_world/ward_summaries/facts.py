"""What is true of a stay of the oracle ward, and would stand in its discharge summary.

The primary diagnosis is the disease behind the admission, the chronic conditions are those of the patient, and the
complications are read off the charted results by the thresholds below, with the most abnormal result as the reason:
Kidney injury by KDIGO 2012 (1.5 times the lowest creatinine and 0.3 mg/dL above it); the others at the usual limits of
"moderate to severe" (k). Allergies, which change nothing in the ward, are drawn by the patient's key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from world_models import keys
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.quantities.ward import DISEASES, INTERVENTIONS, STATIC, inquiry_index

__all__ = ["ALLERGENS", "COMPLICATIONS", "CONDITIONS", "Condition", "Finding", "StayFacts", "facts_of"]

ALLERGENS = (
    "penicillin",
    "sulfonamides",
    "codeine",
    "latex",
    "iodinated contrast",
    "aspirin",
    "shellfish",
    "vancomycin",
)
NONE_KNOWN = 0.45  # share of patients who are said to have no allergy (k)
TWO = 0.35  # of the others, the share with two
NOT_TOLD = 0.08  # share whose allergies the summary does not mention
CHRONIC = ("chronic_kidney_disease", "diabetes", "chronic_heart_failure")
MOST_COMPLICATIONS = 5
KDIGO_RATIO, KDIGO_RISE_MG_DL = 1.5, 0.3  # doi 10.1038/kisup.2012.1

# disease -> results that explain it, the most telling one first: item, which extreme, and where it begins to tell
_WHY: dict[str, tuple[tuple[str, str, float], ...]] = {
    "sepsis": (("lactate_mmol_l", "max", 2.0), ("temperature_c", "max", 38.3), ("white_cells_k_ul", "max", 12.0)),
    "pneumonia": (("temperature_c", "max", 38.0), ("spo2_percent", "min", 92.0), ("white_cells_k_ul", "max", 11.0)),
    "diabetic_ketoacidosis": (("glucose_mg_dl", "max", 250.0), ("ph", "min", 7.3), ("anion_gap_mmol_l", "max", 16.0)),
    "heart_failure": (("bnp_pg_ml", "max", 400.0), ("spo2_percent", "min", 92.0)),
    "gi_bleed": (("haemoglobin_g_dl", "min", 10.0), ("heart_rate_bpm", "max", 105.0)),
    "acute_kidney_injury": (("creatinine_mg_dl", "max", 1.5), ("urea_nitrogen_mg_dl", "max", 40.0)),
}
# complication -> item, which extreme, and the limit it passes
COMPLICATIONS: dict[str, tuple[str, str, float]] = {
    "hyperkalaemia": ("potassium_mmol_l", "max", 5.8),
    "hypokalaemia": ("potassium_mmol_l", "min", 3.0),
    "hyponatraemia": ("sodium_mmol_l", "min", 129.0),
    "hypernatraemia": ("sodium_mmol_l", "max", 150.0),
    "anaemia": ("haemoglobin_g_dl", "min", 8.0),
    "thrombocytopenia": ("platelets_k_ul", "min", 100.0),
    "lactic_acidosis": ("lactate_mmol_l", "max", 5.0),
    "hypophosphataemia": ("phosphate_mg_dl", "min", 1.5),
}
EXPLAINED = {  # a complication that is the disease itself
    "sepsis": ("lactic_acidosis",),
    "gi_bleed": ("anaemia",),
    "acute_kidney_injury": ("acute_kidney_injury",),
}
CONDITIONS = (*DISEASES, *CHRONIC, *COMPLICATIONS, "septic_shock", "respiratory_failure")


class Finding(NamedTuple):
    """A charted result."""

    item: str  # of INQUIRIES
    value: float  # in its unit


class Condition(NamedTuple):
    """Something that the patient has: what, and what shows it."""

    name: str  # of CONDITIONS
    findings: tuple[Finding, ...] = ()


class StayFacts(NamedTuple):
    """A stay's truth. `absent` are diseases of the ward that the patient has not."""

    age_years: int
    female: bool
    allergies: tuple[str, ...] | None  # of ALLERGENS; None: the summary does not tell
    primary: Condition
    secondary: tuple[Condition, ...]
    absent: tuple[str, ...]
    treatments: tuple[str, ...]  # names of INTERVENTIONS that were given
    days: int
    died: bool


def facts_of(stays: Stays, key: Tensor) -> list[StayFacts]:
    """The truth of whole stays [B] of the oracle (`ward_rollouts.rollout` with `diagnosis`) with their keys [B].

    Raises:
        ValueError: keys of another number, or stays whose disease is not told.
    """
    if len(key) != len(stays.static):
        raise ValueError(f"{len(key)} keys for {len(stays.static)} stays; give those that the stays were drawn from")
    if bool((stays.diagnosis.sum(-1) < 0.5).any()):
        raise ValueError("a stay has no diagnosis; roll stays out with the disease that the oracle tells")
    return [_facts(stays, key[row : row + 1], row) for row in range(len(key))]


def _facts(stays: Stays, key: Tensor, row: int) -> StayFacts:
    static = dict(zip((q.name for q in STATIC), stays.static[row].tolist(), strict=False))
    disease = DISEASES[int(stays.diagnosis[row].argmax())]
    value, given = stays.value[row], stays.given[row]
    chronic = [Condition(name) for name in CHRONIC if static[name] > 0.5]
    complications = list(_complications(disease, value, given))[:MOST_COMPLICATIONS]
    names = {disease, *(c.name for c in complications)}
    if "septic_shock" in names:
        names.add("sepsis")
    if static["chronic_heart_failure"] > 0.5:
        names.add("heart_failure")  # nobody would say that it was ruled out
    return StayFacts(
        age_years=round(static["age_years"]),
        female=static["sex_female"] > 0.5,
        allergies=_allergies(key),
        primary=Condition(disease, _reasons(disease, value)),
        secondary=(*complications, *chronic),
        absent=tuple(d for d in DISEASES if d not in names),
        treatments=tuple(q.name for j, q in enumerate(INTERVENTIONS) if float(given[:, j].max()) > 0),
        days=max(1, math.ceil((int(stays.valid[row].sum()) - 1) / 6)),
        died=not bool(stays.alive[row].all()),
    )


def _extreme(value: Tensor, item: str, which: str) -> float:
    """Of a stay's results [T, I]; NaN where the item has none."""
    of = value[:, inquiry_index(item)]
    of = of[~of.isnan()]
    return math.nan if not len(of) else float(of.max() if which == "max" else of.min())


def _passes(found: float, which: str, limit: float) -> bool:
    return found >= limit if which == "max" else found <= limit  # NaN passes nothing


def _reasons(disease: str, value: Tensor) -> tuple[Finding, ...]:
    """The two most telling abnormal results at most."""
    found = [(item, _extreme(value, item, which), which, limit) for item, which, limit in _WHY[disease]]
    return tuple(Finding(item, x) for item, x, which, limit in found if _passes(x, which, limit))[:2]


def _complications(disease: str, value: Tensor, given: Tensor) -> Iterator[Condition]:
    explained = EXPLAINED.get(disease, ())
    treated = {q.name for j, q in enumerate(INTERVENTIONS) if float(given[:, j].max()) > 0}
    if disease in ("sepsis", "pneumonia") and "norepinephrine_ug_kg_min" in treated:
        yield Condition("septic_shock", (Finding("map_mmhg", _extreme(value, "map_mmhg", "min")),))
    if "ventilation_l_min" in treated:
        yield Condition("respiratory_failure", (Finding("spo2_percent", _extreme(value, "spo2_percent", "min")),))
    most, least = (_extreme(value, "creatinine_mg_dl", which) for which in ("max", "min"))
    risen = most >= KDIGO_RATIO * least and most >= least + KDIGO_RISE_MG_DL
    if "acute_kidney_injury" not in explained and risen:
        yield Condition("acute_kidney_injury", (Finding("creatinine_mg_dl", most),))
    for name, (item, which, limit) in COMPLICATIONS.items():
        found = _extreme(value, item, which)
        if name not in explained and _passes(found, which, limit):
            yield Condition(name, (Finding(item, found),))


def _allergies(key: Tensor) -> tuple[str, ...] | None:
    told, some, first, two, second = keys.uniform(key, 0, "summary/allergies", (5,))[0].tolist()
    if told < NOT_TOLD:
        return None
    if some < NONE_KNOWN:
        return ()
    one = int(first * len(ALLERGENS))
    other = (one + 1 + int(second * (len(ALLERGENS) - 1))) % len(ALLERGENS)
    return (ALLERGENS[one], ALLERGENS[other]) if two < TWO else (ALLERGENS[one],)
