"""Who on the team may order what, who may hold it back, and who may change its amount: one table, read by the
environment, its page and its tests.

What is said at the same time is settled by three rules (`clinenv.envs.care_team.settle`), strongest first:

1. **Held is held.** An order that a colleague with that right holds back is not given, whoever ordered it. What an
   emergency needs at once (fluids, pressors, blood, airway, dialysis, calcium) nobody can hold back.
2. **Adjusted is adjusted.** Who may adjust an order sets the amount of what a colleague ordered; by that he orders
   nothing himself.
3. **Of several amounts one counts:** the pharmacist's, who checks every dose; else the intensivist's; else the nurse's.

A nurse orders treatments within standing orders alone, which the chart opens. Only then come the ward's own limits,
which hold for everybody (`clinenv.envs.ehr_ward.orders`).

The division is that of a general intensive care unit with a pharmacist on it (k): the pharmacist verifies drugs before
they are given but not in an emergency, doses antibiotics and replaces electrolytes by protocol, and orders the
laboratory tests that drugs are dosed by; the nurse takes vital signs, specimens at the bedside, titrates what runs
(pressor to pressure, insulin to glucose, net removal to pressure), and withholds by hold parameters. Oxygen within a
target of 94 to 98 %: BTS guideline, O'Driscoll 2017, doi 10.1136/thoraxjnl-2016-209729. Hypoglycaemia below 70 mg/dL:
as for the ward's cost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.ward import INQUIRIES, ORDERS, inquiry_index, intervention_index, order_index

__all__ = ["INTENSIVIST", "NURSE", "PHARMACIST", "PRECEDENCE", "RIGHTS", "ROLES", "STANDING", "Right", "StandingOrder"]
__all__ += ["columns", "orders_of", "standing", "standing_words"]

ROLES = INTENSIVIST, PHARMACIST, NURSE = ("intensivist", "pharmacist", "nurse")
PRECEDENCE = (PHARMACIST, INTENSIVIST, NURSE)  # whose amount counts where several order the same


class Right(NamedTuple):
    """Of one order: the roles that may do each of three things with it."""

    order: str
    order_it: tuple[str, ...]
    hold: tuple[str, ...] = ()
    adjust: tuple[str, ...] = ()


_I, _P, _N = (INTENSIVIST,), (PHARMACIST,), (NURSE,)
# (measures of tests, who may order them)
_TESTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("heart_rate_bpm map_mmhg sbp_mmhg dbp_mmhg respiratory_rate_min spo2_percent temperature_c", _N),
    ("urine_output_ml_h gcs", _N),
    ("glucose_mg_dl lactate_mmol_l blood_culture urine_culture", _I + _N),
    ("potassium_mmol_l creatinine_mg_dl calcium_mg_dl platelets_k_ul inr", _I + _P),
    ("magnesium_mg_dl phosphate_mg_dl albumin_g_dl alt_u_l bilirubin_mg_dl ptt_s", _P),
    ("sodium_mmol_l chloride_mmol_l bicarbonate_mmol_l urea_nitrogen_mg_dl anion_gap_mmol_l", _I),
    ("beta_hydroxybutyrate_mmol_l crp_mg_l troponin_ng_l bnp_pg_ml", _I),
    ("white_cells_k_ul haemoglobin_g_dl haematocrit_percent ph pco2_mmhg po2_mmhg", _I),
)
# (treatments, who may order them, who may hold them back, who may adjust them)
_TREATMENTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("saline_ml ringers_lactate_ml bicarbonate_mmol vasopressin_units_min", _I, (), ()),
    ("red_cells_units plasma_units platelets_units", _I, (), ()),
    ("ventilation_l_min endoscopy renal_replacement_ml_kg_h", _I, (), ()),
    ("norepinephrine_ug_kg_min", _I, (), _N),
    ("ultrafiltration_ml_h", _I, _N, _N),
    ("water_ml", _I, _N, ()),
    ("insulin_units_h", _I, _P + _N, _N),
    ("furosemide_mg metoprolol_mg", _I, _P + _N, _P),
    ("hydrocortisone_mg heparin_units_kg_h", _I, _P, _P),
    ("piperacillin_tazobactam_g vancomycin_mg ceftriaxone_g meropenem_g", _I + _P, _P, _P),
    ("potassium_chloride_mmol pantoprazole_mg", _I + _P, _P, _P),
    ("calcium_gluconate_g", _I + _P, (), ()),
    ("magnesium_sulfate_g sodium_phosphate_mmol", _P, (), ()),
    ("acetaminophen_mg", _I + _N, _P, ()),
    ("dextrose_g oxygen_fraction", _I + _N, (), ()),
)


def _rights() -> tuple[Right, ...]:
    """In the order of ORDERS. Raises KeyError: an order that is in no row."""
    found: dict[str, Right] = {}
    for measures, may_order in _TESTS:
        for name in measures.split():
            order = INQUIRIES[inquiry_index(name)].order
            found[order] = Right(order, may_order)
    for names, *three in _TREATMENTS:
        found.update({name: Right(name, *three) for name in names.split()})
    return tuple(found[order.name] for order in ORDERS)


RIGHTS: tuple[Right, ...] = _rights()


class StandingOrder(NamedTuple):
    """A nurse may order it while the charted measure is beyond the limit, and go on with it while it runs."""

    order: str
    measure: str
    side: str  # "above" or "below"
    limit: float
    runs: float | None = None  # a share of the largest amount above which it counts as running; None: nothing to go on

    @property
    def words(self) -> str:
        """Why an order lies beyond it."""
        quantity = INQUIRIES[inquiry_index(self.measure)]
        return f"the standing order is for a charted {quantity.meaning} {self.side} {self.limit:g} {quantity.unit}"


STANDING: tuple[StandingOrder, ...] = (
    StandingOrder("oxygen_fraction", "spo2_percent", "below", 94.0, runs=0.21),
    StandingOrder("acetaminophen_mg", "temperature_c", "above", 38.0),
    StandingOrder("dextrose_g", "glucose_mg_dl", "below", 70.0),
)


def orders_of(role: str, right: str) -> tuple[str, ...]:
    """The orders that a role has a right to ("order_it", "hold" or "adjust"), in the order of ORDERS.

    Raises:
        ValueError: no such role.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; the team is {', '.join(ROLES)}")
    return tuple(row.order for row in RIGHTS if role in getattr(row, right))


@lru_cache(maxsize=64)
def columns(role: str, right: str, device: torch.device) -> Tensor:
    """bool [A]: `orders_of` as columns of the orders."""
    mine = orders_of(role, right)
    return torch.tensor([order.name in mine for order in ORDERS], device=device)


def standing(chart: Chart) -> Tensor:
    """bool [B, A]: what a nurse may order on this chart by the standing orders; all that needs none is True."""
    allowed = torch.ones(chart["hours"].shape[0], len(ORDERS), dtype=torch.bool, device=chart["hours"].device)
    for row in STANDING:
        value = chart[row.measure]
        beyond = value < row.limit if row.side == "below" else value > row.limit
        is_open = beyond & (chart["inquiry_seen"][:, inquiry_index(row.measure)] > 0.5)
        if row.runs is not None:
            is_open = is_open | (chart["treatment_share"][:, intervention_index(row.order)] > row.runs)
        allowed[:, order_index(row.order)] = is_open
    return allowed


def standing_words(order: str) -> str:
    """Why a nurse's order lies beyond the standing orders. Raises KeyError: it needs none."""
    return {row.order: row.words for row in STANDING}[order]
