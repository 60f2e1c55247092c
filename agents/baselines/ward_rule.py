"""The ward's clinician as an agent, and the same rule with knobs: how a learned decider departs from it.

The rule of `world_models.oracles.ward.clinician` decides from the chart alone, at exact amounts. A knob changes how the
rule is applied, never what it is allowed to see:

- read:  the rule sees a charted value higher than it is (a pressure read 8 mm Hg too low brings vasopressors sooner);
- dose:  the amount the rule gives is multiplied;
- wait:  the rule's intervals between two of a test are stretched (or shortened).

All knobs at 0 are the rule itself, to the bit, so a search over them begins as good as the rule. Which knobs there are
and how far one unit turns each is a choice (about a cautious and a bold colleague apart).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from agents.protocol import Narrowable
from clinenv.envs.ehr_ward.orders import SWITCHES
from world_models.oracles.ward.clinician import clinician
from world_models.protocol import Chart
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, ORDERS, inquiry_index, intervention_index

__all__ = ["KNOBS", "LARGEST", "AtStandardAmounts", "Clinician", "Knob", "NoOrders", "StandardClinician"]
__all__ += ["TunedClinician", "tuned"]

LARGEST = 3.0  # a knob turns no further than this, either way
STEP_HOURS = 4.0  # of the ward's worlds as they ship
GIVEN_FROM = 0.5  # of the standard amount: a smaller one is not given where only that can be had
# One unit of a knob, in the logarithm of a dose and of the time between two of a test; a choice
DOSE_SIZE, WAIT_SIZE = 0.4, 0.8


class Knob(NamedTuple):
    """One way to depart from the rule."""

    kind: str  # read, dose or wait
    target: str  # measure, intervention or test
    size: float  # one unit: added to the value, or to the logarithm of what is multiplied
    log: bool  # the unit multiplies

    @property
    def name(self) -> str:
        """Of the knob in tables and files."""
        return f"{self.kind} {self.target}"


_ADDED = {
    "map_mmhg": 8.0, "heart_rate_bpm": 10.0, "spo2_percent": 2.0, "temperature_c": 0.4, "potassium_mmol_l": 0.3,
    "bicarbonate_mmol_l": 2.0, "haemoglobin_g_dl": 0.7, "pco2_mmhg": 6.0, "ph": 0.04,
}  # fmt: skip
_MULTIPLIED = {
    "lactate_mmol_l": 0.3, "crp_mg_l": 0.4, "white_cells_k_ul": 0.2, "glucose_mg_dl": 0.12, "creatinine_mg_dl": 0.3,
    "urea_nitrogen_mg_dl": 0.3, "urine_output_ml_h": 0.3, "bnp_pg_ml": 0.5, "beta_hydroxybutyrate_mmol_l": 0.4,
}  # fmt: skip
_DOSED = (
    "saline_ml",
    "ringers_lactate_ml",
    "norepinephrine_ug_kg_min",
    "vasopressin_units_min",
    "hydrocortisone_mg",
    "piperacillin_tazobactam_g",
    "vancomycin_mg",
    "ceftriaxone_g",
    "meropenem_g",
    "furosemide_mg",
    "insulin_units_h",
    "dextrose_g",
    "potassium_chloride_mmol",
    "bicarbonate_mmol",
    "ventilation_l_min",
    "acetaminophen_mg",
    "metoprolol_mg",
    "renal_replacement_ml_kg_h",
    "ultrafiltration_ml_h",
)

KNOBS: tuple[Knob, ...] = (
    *(Knob("read", name, size, False) for name, size in _ADDED.items()),
    *(Knob("read", name, size, True) for name, size in _MULTIPLIED.items()),
    *(Knob("dose", name, DOSE_SIZE, True) for name in _DOSED),
    # vital signs are taken every step, for next to nothing: no knob
    *(Knob("wait", q.name, WAIT_SIZE, True) for q in INQUIRIES if q.kind != "vital"),
)

_READ = tuple(k for k in KNOBS if k.kind == "read")


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, ...]:
    """Sizes [P]; columns of the dose knobs [D] and of the wait knobs [W] in KNOBS; their interventions and tests."""

    def columns(kind: str) -> list[int]:
        return [i for i, knob in enumerate(KNOBS) if knob.kind == kind]

    dose, wait = columns("dose"), columns("wait")
    tables = (
        [k.size for k in KNOBS],
        dose,
        [intervention_index(KNOBS[i].target) for i in dose],
        wait,
        [inquiry_index(KNOBS[i].target) for i in wait],
    )
    return tuple(torch.tensor(table, device=device) for table in tables)


@lru_cache(maxsize=8)
def _highest(device: torch.device) -> Tensor:
    return torch.tensor([float(q.high) for q in INTERVENTIONS], device=device)


def tuned(chart: Chart, knobs: Tensor, hours_per_step: float = STEP_HOURS) -> Tensor:
    """Orders [B, A] of the rule with knobs [B, P] (or [P], for all rows) in the columns of KNOBS.

    Raises:
        ValueError: another number of knobs.
    """
    if knobs.shape[-1] != len(KNOBS):
        raise ValueError(f"the rule has {len(KNOBS)} knobs, got {tuple(knobs.shape)}; see KNOBS")
    sizes, dose_knob, dose, wait_knob, wait = _tables(chart["hours"].device)
    turned = (knobs.clamp(-LARGEST, LARGEST) * sizes).expand(chart["hours"].shape[0], -1)
    read = dict(chart)
    for i, knob in enumerate(_READ):
        place = inquiry_index(knob.target)
        value, quantity = chart[knob.target], INQUIRIES[place]
        moved = value * turned[:, i].exp() if knob.log else value + turned[:, i]
        # a value nobody charted stays typical: no rule fires on it
        seen = chart["inquiry_seen"][:, place] > 0.5
        read[knob.target] = torch.where(seen, moved.clamp(quantity.low, quantity.high), value)
    given = clinician(read, hours_per_step)[:, len(INQUIRIES) :]
    amount = given.index_copy(1, dose, given[:, dose] * turned[:, dose_knob].exp())

    # a test is due once age + step reaches its interval: ages run slower where the interval is stretched
    ages = chart["inquiry_age_hours"]
    slower = (ages[:, wait] + hours_per_step) * (-turned[:, wait_knob]).exp() - hours_per_step
    read["inquiry_age_hours"] = ages.index_copy(1, wait, torch.where(turned[:, wait_knob] == 0, ages[:, wait], slower))
    asked = clinician(read, hours_per_step)[:, : len(INQUIRIES)]
    return torch.cat([asked, torch.minimum(amount, _highest(ages.device))], -1)


class _Stateless:
    """An agent that remembers nothing: it may be asked for any rows in any order."""

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""


class NoOrders(_Stateless):
    """Neither tests nor treatments."""

    name = "no orders"

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A], zeros."""
        return chart["hours"].new_zeros(chart["hours"].shape[0], len(ORDERS))


class Clinician(_Stateless):
    """The rule, at the amounts it decides."""

    def __init__(self, hours_per_step: float = STEP_HOURS, name: str = "clinician's rule") -> None:
        self.hours_per_step, self.name = hours_per_step, name

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        return clinician(chart, self.hours_per_step)


class AtStandardAmounts:
    """An agent of `EHRWardDose-v0` where only standard amounts can be had (`EHRWard-v0`): an order is given from half
    of one upwards.

    Args:
        agent: gives orders float32 [B, A] in their units.
    """

    def __init__(self, agent: Narrowable, name: str | None = None) -> None:
        self.agent, self.name = agent, name or f"{agent.name}, at standard amounts"
        self._standard = torch.tensor([float(SWITCHES.standard[q.name]) for q in ORDERS])

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent's own."""
        self.agent.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """The agent's own."""
        self.agent.narrow(rows)

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: every order is 0 or its standard amount."""
        standard = self._standard.to(chart["hours"].device)
        return (self.agent.act(chart) >= GIVEN_FROM * standard) * standard

    def switches(self, chart: Chart) -> Tensor:
        """int8 [B, A]: the same as an action of `EHRWard-v0`."""
        return (self.act(chart) > 0).to(torch.int8)


class StandardClinician(AtStandardAmounts):
    """The rule at the menu's standard amounts."""

    def __init__(self, hours_per_step: float = STEP_HOURS, name: str = "rule at standard amounts") -> None:
        super().__init__(Clinician(hours_per_step), name)


class TunedClinician(_Stateless):
    """The rule with fixed knobs float32 [P], the same for every patient, or [B, P], each patient's own.

    Raises:
        ValueError: another number of knobs.
    """

    def __init__(self, knobs: Tensor, hours_per_step: float = STEP_HOURS, name: str = "tuned rule") -> None:
        if knobs.ndim not in (1, 2) or knobs.shape[-1] != len(KNOBS):
            raise ValueError(f"the rule has {len(KNOBS)} knobs, got {tuple(knobs.shape)}; see KNOBS")
        self.knobs, self.hours_per_step, self.name = knobs, hours_per_step, name
        self._here = knobs  # of the patients in the batch

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin with all patients again; single ones need nothing forgotten."""
        if mask is None:
            self._here = self.knobs

    def narrow(self, rows: Tensor) -> None:
        """Go on with the knobs of these rows [K]."""
        if self.knobs.ndim == 2:
            self._here = self._here[rows]

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        return tuned(chart, self._here.to(chart["hours"].device), self.hours_per_step)
