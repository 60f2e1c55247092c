"""Terms of the ward's reward and its cost, from charts and orders alone.

Everything is money, at what a QALY is worth (`clinenv.worth`): one unit is 10,000 US dollars, or a tenth of a QALY. A
death costs the years that the patient had before him (`years_left`), a day in hospital its nursing, room and board, and
the health that illness takes from it; tests and treatments cost their prices. A return is what the stay cost, all told,
and nothing in it is shaping.

Nothing here can be earned by not looking. The stability term counts a value that is not known as if it were bad, so a
test never lowers it; and harm is counted when it is charted, once for each result.

Sources. Reference ranges: `world_models.quantities.ward`. How far outside halves a value's worth: a choice, about the
width between NEWS2's bands of 0 and of 2 to 3 points (Royal College of Physicians 2017) for vital signs, and between
APACHE II's bands for laboratory values (Knaus 1985, PMID 3928249) (k). That a day with nothing in order is a day lost,
as if dead, is a choice: the Global Burden of Disease's weights of severe acute states lie from 0.13 to 0.66 (k). A day
in hospital: 2,883 US dollars in 2021 (American Hospital Association, by KFF (k)), less about a third for what is
counted apart; one on a ventilator 1,522 more (Dasta 2005, doi 10.1097/01.CCM.0000164543.14619.00 (k)). Prices of tests:
US Clinical Laboratory Fee Schedule; of drugs, blood and procedures: usual acquisition prices and fees in US dollars,
rounded (k). Hypoglycaemia of level 1 and 2: International Hypoglycaemia Study Group 2017 (PMID 27872155). A mean
pressure of 65 mm Hg: Surviving Sepsis Campaign 2021 (PMID 34605781).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from clinenv.rewards import total
from world_models.protocol import Chart
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, inquiry_index, intervention_index

__all__ = [
    "SAME_HOURS",
    "DAY_DOLLARS",
    "STABILITY",
    "TEST_PRICE",
    "TREATMENT_PRICE",
    "UNIT_DOLLARS",
    "RewardWeights",
    "Watched",
    "fresh",
    "harms",
    "price",
    "stability",
]


UNIT_DOLLARS = 10_000.0  # of the return
DAY_DOLLARS = 2_000.0  # in hospital, without tests, drugs, procedures


@dataclass(frozen=True)
class RewardWeights:
    """How much each aim counts: 1 is a dollar for a dollar. Change them with this object."""

    survival: float = 1.0
    stay: float = 1.0
    stability: float = 1.0
    tests: float = 1.0
    treatments: float = 1.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A measure of the stability term."""

    name: str
    half: float  # so far outside the reference range a value counts half
    weight: float = 1.0
    lasts_hours: float = 24.0  # an older value counts as not known


STABILITY: tuple[Watched, ...] = (
    Watched("map_mmhg", 12.0, 2.0, 6.0),
    Watched("heart_rate_bpm", 25.0, 1.0, 6.0),
    Watched("respiratory_rate_min", 7.0, 1.0, 6.0),
    Watched("spo2_percent", 4.0, 2.0, 6.0),
    Watched("temperature_c", 1.0, 1.0, 6.0),
    Watched("gcs", 3.0, 1.0, 6.0),
    Watched("urine_output_ml_h", 20.0, 1.0, 6.0),
    Watched("sodium_mmol_l", 8.0),
    Watched("potassium_mmol_l", 0.8),
    Watched("bicarbonate_mmol_l", 7.0),
    Watched("glucose_mg_dl", 80.0),
    Watched("creatinine_mg_dl", 1.2),
    Watched("lactate_mmol_l", 2.0),
    Watched("haemoglobin_g_dl", 4.0),
    Watched("white_cells_k_ul", 8.0),
)

_OF_KIND = {"chemistry": 5.0, "marker": 15.0, "haematology": 4.0, "coagulation": 5.0, "gas": 9.0, "vital": 0.2}
_OF_KIND["culture"] = 10.0
_OF_TEST = {"crp_mg_l": 5.0, "troponin_ng_l": 12.0, "bnp_pg_ml": 39.0, "lactate_mmol_l": 12.0}
# US dollars of one test, by inquiry
TEST_PRICE: dict[str, float] = {q.name: _OF_TEST.get(q.name, _OF_KIND[q.kind]) for q in INQUIRIES}

# US dollars of the standard amount; of a rate or a setting, of an hour at the standard one
TREATMENT_PRICE: dict[str, float] = {
    "saline_ml": 5.0,
    "ringers_lactate_ml": 5.0,
    "water_ml": 1.0,
    "norepinephrine_ug_kg_min": 8.0,
    "vasopressin_units_min": 20.0,
    "hydrocortisone_mg": 5.0,
    "piperacillin_tazobactam_g": 10.0,
    "vancomycin_mg": 10.0,
    "ceftriaxone_g": 5.0,
    "meropenem_g": 12.0,
    "furosemide_mg": 2.0,
    "insulin_units_h": 2.0,
    "dextrose_g": 4.0,
    "potassium_chloride_mmol": 4.0,
    "magnesium_sulfate_g": 3.0,
    "sodium_phosphate_mmol": 15.0,
    "calcium_gluconate_g": 6.0,
    "bicarbonate_mmol": 10.0,
    "red_cells_units": 220.0,
    "plasma_units": 120.0,
    "platelets_units": 520.0,
    "heparin_units_kg_h": 1.0,
    "oxygen_fraction": 1.0,
    "ventilation_l_min": 63.0,
    "acetaminophen_mg": 1.0,
    "metoprolol_mg": 3.0,
    "pantoprazole_mg": 5.0,
    "endoscopy": 900.0,
    "renal_replacement_ml_kg_h": 30.0,
    "ultrafiltration_ml_h": 1.0,
}

# harm: columns of what is charted, and of the orders that a low pressure is laid to
_HYPOTENSIVE = tuple(map(intervention_index, ("metoprolol_mg", "furosemide_mg", "ultrafiltration_ml_h")))
_GLUCOSE, _POTASSIUM, _PRESSURE = map(inquiry_index, ("glucose_mg_dl", "potassium_mmol_l", "map_mmhg"))
SAME_HOURS = 0.01  # ages this close are of one result
_BLAMED_HOURS = 8.0  # an order is blamed for what is charted within this time of it
LEVEL_1_MG_DL, LEVEL_2_MG_DL = 70.0, 54.0
HYPERKALAEMIA_MMOL_L = 6.0
LOW_MAP_MMHG = 65.0


@lru_cache(maxsize=8)
def _prices(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """US dollars of a test [I], of a unit of treatment [J] (of a rate: an hour), and bool [J]: it is a rate."""
    tests = torch.tensor([TEST_PRICE[q.name] for q in INQUIRIES], device=device)
    each = torch.tensor([TREATMENT_PRICE[q.name] / float(q.standard) for q in INTERVENTIONS], device=device)
    return tests, each, torch.tensor([q.per_hour is None for q in INTERVENTIONS], device=device)


def price(action: Tensor, hours: Tensor) -> tuple[Tensor, Tensor]:
    """US dollars [B] of the tests and of the treatments of action [B, A] over `hours` [B]."""
    tests, each, rates = _prices(action.device)
    asked, given = action[:, : len(INQUIRIES)], action[:, len(INQUIRIES) :]
    return total(asked * tests), total(given * each * torch.where(rates, hours.unsqueeze(-1), 1.0))


@lru_cache(maxsize=8)
def _watched(device: torch.device) -> tuple[Tensor, ...]:
    """Of each watched measure: place, low, high, 1 / half, hours it lasts, weight (they sum to 1)."""
    rows = [INQUIRIES[inquiry_index(w.name)] for w in STABILITY]
    weights = sum(w.weight for w in STABILITY)
    columns = (
        [float(q.normal[0]) for q in rows],
        [float(q.normal[1]) for q in rows],
        [1.0 / w.half for w in STABILITY],
        [w.lasts_hours for w in STABILITY],
        [w.weight / weights for w in STABILITY],
    )
    place = torch.tensor([inquiry_index(w.name) for w in STABILITY], device=device)
    return place, *(torch.tensor(column, device=device) for column in columns)


def stability(chart: Chart) -> Tensor:
    """0 to 1, [B]: weighted share of the watched measures in order, 1 / (1 + distance / half) each outside its range;
    one that was never charted, or too long ago, counts 0."""
    place, low, high, inverse, lasts, weight = _watched(chart["hours"].device)
    value = torch.stack([chart[w.name] for w in STABILITY], -1)
    outside = (low - value).clamp(min=0.0) + (value - high).clamp(min=0.0)
    known = (chart["inquiry_seen"][:, place] > 0.5) & (chart["inquiry_age_hours"][:, place] <= lasts)
    return total(torch.where(known, weight / (outside * inverse + 1.0), 0.0))


def fresh(before: Chart, after: Chart) -> Tensor:
    """bool [B, I]: a result came to the chart between the two."""
    hours = (after["hours"] - before["hours"]).unsqueeze(-1)
    seen, known = after["inquiry_seen"] > 0.5, before["inquiry_seen"] > 0.5
    newer = after["inquiry_age_hours"] < before["inquiry_age_hours"] + hours - SAME_HOURS
    return seen & (newer | ~known)


def harms(before: Chart, after: Chart) -> dict[str, Tensor]:
    """Costs [B] of the results charted in this step: 1 for a glucose under 70 mg/dL, 1 more under 54; 1 for a potassium
    over 6 mmol/L; 1 for a mean pressure under 65 mm Hg within 8 h of a beta blocker, a diuretic or ultrafiltration."""
    new, since = fresh(before, after), after["treatment_age_hours"]

    glucose, potassium, pressure = after["glucose_mg_dl"], after["potassium_mmol_l"], after["map_mmhg"]
    blamed = since[:, _HYPOTENSIVE[0]] <= _BLAMED_HOURS
    for order in _HYPOTENSIVE[1:]:
        blamed = blamed | (since[:, order] <= _BLAMED_HOURS)
    low = (glucose < LEVEL_1_MG_DL).to(glucose.dtype) + (glucose < LEVEL_2_MG_DL).to(glucose.dtype)
    return {
        "hypoglycaemia": torch.where(new[:, _GLUCOSE], low, 0.0),
        "hyperkalaemia": (new[:, _POTASSIUM] & (potassium > HYPERKALAEMIA_MMOL_L)).to(low.dtype),
        "hypotension": (new[:, _PRESSURE] & (pressure < LOW_MAP_MMHG) & blamed).to(low.dtype),
    }
