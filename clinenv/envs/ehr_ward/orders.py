"""What can be ordered on the ward, and which orders the ward does not carry out.

Two kinds of refusal. What the chart alone forbids (potassium at a charted potassium of 6) is in the action mask. What
contradicts another order of the same set (a beta blocker beside a vasopressor) is no property of one order, so the mask
cannot say it; it is refused when the set is given. Only charted values forbid: a potassium nobody measured forbids
nothing, and an old one forbids until a new one is charted.

Sources of the limits: insulin waits for a potassium of 3.3 mmol/L (ADA consensus on hyperglycaemic crises, Kitabchi
2009, PMID 19564476); hypoglycaemia below 70 mg/dL (International Hypoglycaemia Study Group 2017, PMID 27872155); all
others as on the labels and at the bedside (k).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.task import Doses, Switches
from world_models.protocol import Chart
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    MAX_HOURS_SINCE,
    ORDERS,
    inquiry_index,
    intervention_index,
    order_index,
)

__all__ = ["DOSES", "LIMITS", "SWITCHES", "Limit", "admissible", "reasons", "refused"]

SWITCHES = Switches({**{q.order: 1.0 for q in INQUIRIES}, **{q.name: float(q.standard) for q in INTERVENTIONS}})
DOSES = Doses({q.name: float(q.high) for q in ORDERS})


class Limit(NamedTuple):
    """The order is refused while the charted measure is above (or below) the limit."""

    order: str
    measure: str
    side: str  # "above" or "below"
    limit: float

    @property
    def reason(self) -> str:
        """Why an order is refused, in words."""
        unit = INQUIRIES[inquiry_index(self.measure)].unit
        words = next((q.meaning for q in INQUIRIES if q.name == self.measure), self.measure)
        return f"charted {words} is {self.side} {self.limit:g} {unit}"


LIMITS: tuple[Limit, ...] = (
    Limit("potassium_chloride_mmol", "potassium_mmol_l", "above", 5.5),
    Limit("insulin_units_h", "glucose_mg_dl", "below", 70.0),
    Limit("insulin_units_h", "potassium_mmol_l", "below", 3.3),
    Limit("heparin_units_kg_h", "platelets_k_ul", "below", 50.0),
    Limit("heparin_units_kg_h", "inr", "above", 3.0),
    Limit("heparin_units_kg_h", "haemoglobin_g_dl", "below", 7.0),
    Limit("metoprolol_mg", "map_mmhg", "below", 65.0),
    Limit("metoprolol_mg", "heart_rate_bpm", "below", 55.0),
    Limit("norepinephrine_ug_kg_min", "map_mmhg", "above", 105.0),
    Limit("vasopressin_units_min", "map_mmhg", "above", 105.0),
    Limit("ultrafiltration_ml_h", "map_mmhg", "below", 55.0),
    Limit("sodium_phosphate_mmol", "phosphate_mg_dl", "above", 5.5),
    Limit("magnesium_sulfate_g", "magnesium_mg_dl", "above", 4.0),
    Limit("calcium_gluconate_g", "calcium_mg_dl", "above", 11.0),
    Limit("bicarbonate_mmol", "ph", "above", 7.50),
    Limit("water_ml", "sodium_mmol_l", "below", 130.0),
    Limit("acetaminophen_mg", "alt_u_l", "above", 1000.0),
)

_OUT = "its specimen is out and the result has not come"
_BLEEDS = "the patient came with bleeding, and no endoscopy has stopped it a day ago or more"
_AWAKE = "the patient is awake (charted coma scale 15) and charted oxygen saturation is 94 % or more on room air"
_BARRED_VOLUME = "a minute volume under 3 L/min is no ventilation"
_AWAKE_GCS, _GOOD_SPO2, _LEAST_VOLUME = 15.0, 94.0, 3.0
_SUGAR_WITHOUT_INSULIN = 300.0  # mg/dL
_HEALED_HOURS = 24.0  # after an endoscopy
_ROOM_AIR = 0.21  # share of oxygen, as a share of the largest amount, which is 1

# (order refused, orders of the set that contradict it, why)
_BESIDE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("metoprolol_mg", ("norepinephrine_ug_kg_min", "vasopressin_units_min"), "it is ordered beside a vasopressor"),
    ("ceftriaxone_g", ("piperacillin_tazobactam_g", "meropenem_g"), "a broader beta-lactam is ordered with it"),
    ("piperacillin_tazobactam_g", ("meropenem_g",), "a broader beta-lactam is ordered with it"),
    ("sodium_phosphate_mmol", ("calcium_gluconate_g",), "it precipitates with the calcium ordered with it"),
)


_UF, _RRT, _VENTILATION = "ultrafiltration_ml_h", "renal_replacement_ml_kg_h", "ventilation_l_min"
_NO_RRT = "no renal replacement runs in this step"
# columns of the chart's arrays and of the orders
_BLEEDING = COMPLAINTS.index("bleeding")
_ENDOSCOPY, _OXYGEN, _VENTILATOR = map(intervention_index, ("endoscopy", "oxygen_fraction", "ventilation_l_min"))
_GCS, _SPO2, _GLUCOSE = map(inquiry_index, ("gcs", "spo2_percent", "glucose_mg_dl"))
_ULTRAFILTRATION, _DIALYSIS, _VOLUME, _DEXTROSE, _INSULIN = map(
    order_index, (_UF, _RRT, _VENTILATION, "dextrose_g", "insulin_units_h")
)
_SUGAR = f"charted glucose is above {_SUGAR_WITHOUT_INSULIN:g} mg/dL and no insulin runs"


class _Tables(NamedTuple):
    """Constants on the device: of each limit its measure's place, sign (1 above, -1 below) and value [R]; columns of
    the orders that the chart forbids [R + 2]; of _BESIDE the order [K] and those it contradicts [K, 2]; columns of the
    orders that contradict a set [K + 3]."""

    place: Tensor
    sign: Tensor
    limit: Tensor
    by_chart: Tensor
    order: Tensor
    others: Tensor
    by_set: Tensor


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> _Tables:
    def columns(names: list[str]) -> Tensor:
        return torch.tensor([order_index(name) for name in names], device=device)

    beside = [order for order, _, _ in _BESIDE]
    others = [[order_index(name) for name in (*names, names[-1])[:2]] for _, names, _ in _BESIDE]
    return _Tables(
        torch.tensor([inquiry_index(limit.measure) for limit in LIMITS], device=device),
        torch.tensor([1.0 if limit.side == "above" else -1.0 for limit in LIMITS], device=device),
        torch.tensor([limit.limit for limit in LIMITS], device=device),
        columns([*(limit.order for limit in LIMITS), *(order for order, _, _ in _BY_CHART)]),
        columns(beside),
        torch.tensor(others, device=device),
        columns([*beside, _UF, _VENTILATION, "dextrose_g"]),
    )


def _onto_orders(broken: Tensor, columns: Tensor) -> Tensor:
    """bool [B, A]: an order any of whose rules (bool [B, R], of the orders `columns` [R]) is broken."""
    count = torch.zeros(broken.shape[0], len(ORDERS), dtype=torch.int32, device=broken.device)
    return count.index_add_(1, columns, broken.to(torch.int32)) > 0


def _bleeding(chart: Chart) -> Tensor:
    endoscopy = chart["treatment_age_hours"][:, _ENDOSCOPY]
    stopped = (endoscopy >= _HEALED_HOURS) & (endoscopy < MAX_HOURS_SINCE)  # the age's cap reads "never"
    return (chart["complaint"][:, _BLEEDING] > 0.5) & ~stopped


def _awake(chart: Chart) -> Tensor:
    seen, given = chart["inquiry_seen"] > 0.5, chart["treatment_share"]
    known = seen[:, _GCS] & seen[:, _SPO2]
    air = given[:, _OXYGEN] <= _ROOM_AIR
    off = given[:, _VENTILATOR] <= 0
    return known & air & off & (chart["gcs"] >= _AWAKE_GCS) & (chart["spo2_percent"] >= _GOOD_SPO2)


# refused for what the chart says as a whole
_BY_CHART: tuple[tuple[str, Callable[[Chart], Tensor], str], ...] = (
    ("heparin_units_kg_h", _bleeding, _BLEEDS),
    (_VENTILATION, _awake, _AWAKE),
)


def _forbidden(chart: Chart) -> Tensor:
    """bool [B, R + 2]: which rule of the chart is broken: those of LIMITS, then those of _BY_CHART."""
    tables = _tables(chart["hours"].device)
    value = torch.stack([chart[rule.measure] for rule in LIMITS], -1)
    beyond = (chart["inquiry_seen"][:, tables.place] > 0.5) & ((value - tables.limit) * tables.sign > 0)
    return torch.cat([beyond, torch.stack([test(chart) for _, test, _ in _BY_CHART], -1)], -1)


def admissible(chart: Chart) -> Tensor:
    """bool [B, A]: orders the chart allows, each taken by itself."""
    forbidden = _onto_orders(_forbidden(chart), _tables(chart["hours"].device).by_chart)
    forbidden[:, : len(INQUIRIES)] |= chart["inquiry_pending"] > 0.5
    return ~forbidden


def _contradicting(chart: Chart, left: Tensor) -> Tensor:
    """bool [B, K + 3]: which rule of the set `left` [B, A] (what the chart allows) is broken: those of _BESIDE, then
    ultrafiltration alone, a volume too small, sugar on sugar."""
    tables, on = _tables(left.device), left > 0
    beside = on[:, tables.order] & on[:, tables.others].any(-1)
    volume = left[:, _VOLUME]
    sweet = (chart["inquiry_seen"][:, _GLUCOSE] > 0.5) & (chart["glucose_mg_dl"] > _SUGAR_WITHOUT_INSULIN)
    alone = torch.stack(
        [
            on[:, _ULTRAFILTRATION] & ~on[:, _DIALYSIS],
            (volume > 0) & (volume < _LEAST_VOLUME),
            on[:, _DEXTROSE] & ~on[:, _INSULIN] & sweet,
        ],
        -1,
    )
    return torch.cat([beside, alone], -1)


def refused(chart: Chart, action: Tensor, allowed: Tensor) -> Tensor:
    """bool [B, A]: the orders of action [B, A] that are not carried out; `allowed` is `admissible` of the chart.

    The chart is asked first; an order it forbids contradicts nothing any more.
    """
    wrong = (action > 0) & ~allowed
    clash = _contradicting(chart, torch.where(wrong, 0.0, action))
    return wrong | _onto_orders(clash, _tables(action.device).by_set)


def reasons(chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
    """For each patient: (order, why it was refused), by order; an order may be refused for several reasons."""
    asked = action > 0
    wrong = asked & ~admissible(chart)
    rules = [(q.order, _OUT) for q in INQUIRIES]
    rules += [(rule.order, rule.reason) for rule in LIMITS] + [(order, why) for order, _, why in _BY_CHART]
    columns = torch.tensor([order_index(order) for order, _ in rules], device=action.device)
    broken = torch.cat([chart["inquiry_pending"] > 0.5, _forbidden(chart)], -1) & asked[:, columns]
    rules += [(order, why) for order, _, why in _BESIDE]
    rules += [(_UF, _NO_RRT), (_VENTILATION, _BARRED_VOLUME), ("dextrose_g", _SUGAR)]
    broken = torch.cat([broken, _contradicting(chart, torch.where(wrong, 0.0, action))], -1)
    told: list[list[tuple[str, str]]] = [[] for _ in range(len(action))]
    for row, rule in broken.nonzero().tolist():
        told[row].append(rules[rule])
    return [sorted(row, key=lambda said: order_index(said[0])) for row in told]
