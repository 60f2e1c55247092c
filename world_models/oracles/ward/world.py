"""The mechanistic ward: a hospital stay that answers orders, with known counterfactual truth.

One step of `hours_per_step`: the orders are read (`prescribing`), blood is collected at its time, the body runs in half
hours of six five-minute steps (`dynamics`), vital signs are read at the end, results that are due are charted
(`measurement`). At its start a clot may begin or go to the lung, and a lesion open (`body.thrombosis`, `body.blood`).
At its end death strikes by the hazard added up over it (`hazard`), and whose chart allows it may go home
(`discharge`). The dead and the discharged stand still: only the clock goes on.

Hidden from the chart: the organism, the disease and its severity, every pool and signal, what a test not ordered would
show. `truth` gives them to a judge.

Limits. A teaching-size body: one tissue, one lung, one kidney, no rhythm disturbance beyond the rate, no second
infection, no arterial clot, no allergy, no surgery, no life after discharge; drugs beyond the menu do not exist.
Parameters are population values from the literature, or marked (k) or (assumed) in their files, tuned so that the
probes of `benchmarks.ward.probes` lie in their ranges; no part is fitted to patients' records.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from world_models import gradients, keys, tree
from world_models.inputs import check_also, checked_orders
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ward import cohorts as ward_cohorts
from world_models.oracles.ward.admission import arrive
from world_models.oracles.ward.body.blood import opens_per_h
from world_models.oracles.ward.body.infection import killing
from world_models.oracles.ward.body.normal import VENTILATED_L_MIN
from world_models.oracles.ward.body.thrombosis import Lying, strike
from world_models.oracles.ward.discharge import chance_of_discharge
from world_models.oracles.ward.dynamics import TICK_H, concentrations, leak_of, tick
from world_models.oracles.ward.half_hours import TICKS_PER_HOUR, through
from world_models.oracles.ward.luck import Luck
from world_models.oracles.ward.measurement import (
    Specimens,
    advance_biology,
    blank_records,
    collection_tick,
    file_results,
    noise_sd,
    true_values,
)
from world_models.oracles.ward.prescribing import Prescription, parted
from world_models.oracles.ward.state import StayStatus, WardState
from world_models.program import Program
from world_models.protocol import Chart, Factors, Fates
from world_models.quantities.ward import (
    DISEASES,
    INQUIRIES,
    INTERVENTIONS,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    MEASURES,
    ORDERS,
    STATIC,
    intervention_index,
)
from world_models.quantity import Quantity
from world_models.rounding import expit

__all__ = ["WardOracle", "WardState"]

_STATIC = {q.name: i for i, q in enumerate(STATIC)}
_GI_BLEED = float(DISEASES.index("gi_bleed"))
_VENTILATION = intervention_index("ventilation_l_min")
_LINES = tuple(
    map(intervention_index, ("norepinephrine_ug_kg_min", "vasopressin_units_min", "renal_replacement_ml_kg_h"))
)
_ORGANS = (
    "person", "fluids", "salts", "circulation", "lungs", "metabolism", "infection", "kidney", "blood", "clots",
    "organs", "course", "signals",
)  # fmt: skip


class WardOracle:
    """A hospital stay as an Oracle (`world_models.protocol`).

    Args:
        cohort: whom `initial` admits: a name of `cohorts.COHORTS` or a WardCohort.
        hours_per_step: a whole number of hours, 1 to 12.
        device: where all tensors live.

    Raises:
        ValueError: an unknown cohort, or a step that is no whole number of hours from 1 to 12.
    """

    name = "ward-oracle"
    measures: tuple[Quantity, ...] = MEASURES
    orders: tuple[Quantity, ...] = ORDERS
    factors: tuple[Quantity, ...] = ward_cohorts.FACTORS

    def __init__(
        self,
        cohort: str | ward_cohorts.WardCohort = "ward",
        hours_per_step: float = 4.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= hours_per_step <= 12 or float(hours_per_step) != round(hours_per_step):
            raise ValueError(f"hours_per_step={hours_per_step} must be a whole number of hours from 1 to 12; try 4")
        self.cohort = cohort_named(ward_cohorts.COHORTS, cohort)
        self.hours_per_step = float(hours_per_step)
        self.device = torch.device(device)
        self._largest = torch.tensor([float(q.high) for q in INTERVENTIONS], device=self.device)
        at_triage = [q.kind == "vital" and q.name != "urine_output_ml_h" for q in INQUIRIES]
        self._at_triage = torch.tensor(at_triage, device=self.device)

    # ---- the protocol's verbs

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> WardState:
        """Patients at admission, vital signs taken. Given factors [B] are fixed.

        Raises:
            ValueError: a factor that is unknown, out of bounds or of the wrong shape.
        """
        state = _admitted(key, ward_cohorts.sample_factors(self.cohort, key, factors))
        t = state.t
        nothing, run = _nothing(key), _program(self.device)
        with torch.inference_mode():  # a fifth faster on small batches
            for _ in range(TICKS_PER_HOUR):
                state = run(state, nothing)
        state = tree.copy(_from_here(state))  # ordinary tensors again
        triage = Specimens(state, self._at_triage.expand(key.shape[0], -1), Luck(key, t, 1))
        values = triage.results(state, state.signals.urine_l_h * 1000.0)
        now = torch.zeros(key.shape[0], device=self.device)
        collected, due = triage.times(t, now, 0.0)
        return state._replace(records=file_results(state.records, triage, values, collected, due, now))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: those of STATIC that it holds."""
        return {name: chart[name].to(self.device, torch.float32) for name in _STATIC if name in chart}

    @gradients.unwatched
    def transition(self, state: WardState, action: Tensor) -> WardState:
        """One step under `action` [B, A] in the orders' units.

        Raises:
            ValueError: an amount outside its order's bounds.
        """
        asked, given = parted(checked_orders(self.orders, action, state.key.shape[0], self.device))
        hours = int(self.hours_per_step)
        t = state.t + 1
        key = state.key
        start_h = state.t.to(torch.float32) * self.hours_per_step
        plan = Prescription.of(given, self.hours_per_step)
        luck = Luck(key, t, hours)
        shaken = luck.normal("ward/noise").T.reshape(hours, len(state.noise), -1)
        rebled = self._rebleeding(state, luck)
        clots = strike(state, luck, _lying(given), self.hours_per_step)
        specimens = Specimens(state, asked, luck)
        collected_at = collection_tick(luck, hours * TICKS_PER_HOUR)
        now = state._replace(blood=state.blood._replace(lesion=rebled), clots=clots)
        now, hazard = through(now, plan, shaken, specimens, collected_at, lambda: _program(self.device))
        urine = (now.fluids.urine_l - state.fluids.urine_l).float() * (1000.0 / self.hours_per_step)
        records = advance_biology(now.records, luck, self.hours_per_step)
        now = now._replace(records=records)
        values = specimens.results(now, urine)
        collected, due = specimens.times(collected_at, start_h, self.hours_per_step)
        records = file_results(records, specimens, values, collected, due, start_h + self.hours_per_step)
        since = (records.since_h + self.hours_per_step).clamp_max(MAX_HOURS_SINCE)
        records = records._replace(given=given, since_h=torch.where(given > 0.0, 0.0, since))
        dying = -(-hazard).expm1()
        leaving = chance_of_discharge(self.observe(now._replace(records=records, t=t)), self.hours_per_step)
        dies = luck.uniform("ward/death") < dying
        leaves = (luck.uniform("ward/discharge") < leaving) & ~dies
        # outside of inference mode, so every leaf is an ordinary tensor
        course = StayStatus(
            now.course.hazard_per_h, (~dies).to(torch.float32), leaves.to(torch.float32), dying, leaving
        )
        here = (state.course.alive > 0.5) & (state.course.discharged < 0.5)
        nil = torch.zeros_like(hazard)
        still = state._replace(course=state.course._replace(death_chance=nil, home_chance=nil))
        moved = tree.where(here, now._replace(course=course, records=records), still)
        return moved._replace(t=t)

    def fates(self, before: WardState, after: WardState) -> Fates:
        """See `TellsFates`: death, or else discharge."""
        course, was = after.course, before.course
        spared = after._replace(course=course._replace(alive=was.alive, discharged=was.discharged))
        chances = {"alive": course.death_chance, "discharged": course.home_chance * (1.0 - course.death_chance)}
        return Fates(spared, chances, {"alive": 0.0, "discharged": 1.0})

    def observe(self, state: WardState, also: Sequence[str] = ()) -> Chart:
        """The chart now; `also=("diagnosis",)` adds the discharge diagnosis, one-hot [B, D].

        Raises:
            ValueError: `also` names something that is no measure.
        """
        check_also(self.measures, also)
        records = state.records
        hours = state.t.to(torch.float32) * self.hours_per_step
        chart = {name: state.factors[:, i].contiguous() for name, i in _STATIC.items()}
        chart |= {
            "complaint": state.complaint,
            "hours": hours.clamp_max(10000.0),
            "alive": state.course.alive,
            "discharged": state.course.discharged,
        }
        chart |= dict(zip((q.name for q in INQUIRIES), records.value.T.contiguous().unbind(0), strict=True))
        age = (hours.unsqueeze(-1) - records.drawn_h).clamp(0.0, MAX_AGE_HOURS)
        chart |= {
            "inquiry_age_hours": age,
            "inquiry_seen": records.seen.to(torch.float32),
            "inquiry_pending": records.pending.to(torch.float32),
            "treatment_share": records.given / self._largest,
            "treatment_age_hours": records.since_h,
        }
        if "diagnosis" in also:
            kinds = torch.arange(len(DISEASES), device=self.device)
            chart["diagnosis"] = (state.person.disease.unsqueeze(-1) == kinds).to(torch.float32)
        return chart

    def rekey(self, state: WardState, key: Tensor) -> WardState:
        """The same patients with other random numbers. The oracle knows them: only what is to come changes."""
        return state._replace(key=key)

    def spread(self, state: WardState) -> dict[str, Tensor]:
        """Standard deviation [B] of a result's noise, at the charted value: all that the oracle cannot know now."""
        sd = noise_sd(state.records.value)
        return {q.name: sd[:, i].contiguous() for i, q in enumerate(INQUIRIES) if q.kind != "culture"}

    def support(self, state: WardState) -> Tensor:
        """bool [B]: the body is within what the equations were written for."""
        sodium, potassium, _, glucose, haematocrit, _, _ = concentrations(state)
        signals = state.signals
        fine = (sodium > 105.0) & (sodium < 175.0) & (potassium > 1.8) & (potassium < 9.0)
        fine = fine & (signals.ph > 6.75) & (signals.ph < 7.75) & (glucose > 1.5) & (glucose < 60.0)
        fine = fine & (haematocrit > 0.10) & (haematocrit < 0.62) & (signals.filling < 2.8)
        return fine

    def truth(self, state: WardState) -> dict[str, Tensor]:
        """Hidden quantities [B]: person, organs and signals by `organ_name`, true values by `true_MEASURE`,

        `severity`: 0..1, how ill the patient is now (the hazard of death on a logistic scale: 0.5 at 1.3 % a day);
        `antibiotic_kill_per_h`, `capillary_leak`, and the balances `water_balance_l`, `sodium_balance_mmol`,
        `potassium_balance_mmol`, `haemoglobin_balance_g`: pool now + out - in, float64, constant over a stay.
        """
        out: dict[str, Tensor] = {}
        for organ in _ORGANS:
            part = getattr(state, organ)
            out |= {f"{organ}_{name}": value for name, value in part._asdict().items()}
        values = true_values(state)
        out |= {f"true_{q.name}": values[:, i].contiguous() for i, q in enumerate(INQUIRIES) if q.kind != "culture"}
        out["severity"] = expit((state.course.hazard_per_h.clamp_min(1e-9).log() + 7.5) * 0.8)
        out["antibiotic_kill_per_h"] = killing(state.infection, state.person)
        out["capillary_leak"] = leak_of(state)
        fluids, salts, blood = state.fluids, state.salts, state.blood
        water = fluids.plasma_l + fluids.interstitial_l + fluids.cell_l
        out["water_balance_l"] = water + fluids.out_l - fluids.in_l
        out["sodium_balance_mmol"] = salts.sodium + salts.sodium_out - salts.sodium_in
        out["potassium_balance_mmol"] = (
            salts.potassium + salts.cell_potassium + salts.potassium_out - salts.potassium_in
        )
        out["haemoglobin_balance_g"] = blood.haemoglobin_g + blood.haemoglobin_out - blood.haemoglobin_in
        return out

    # ---- parts

    def _rebleeding(self, state: WardState, luck: Luck) -> Tensor:
        """The lesion at the step's start: a closed one may reopen, and anybody may begin to bleed under heparin."""
        blood, person = state.blood, state.person
        bleeder = (person.disease == _GI_BLEED).to(torch.float32)
        hours = state.t.to(torch.float32) * self.hours_per_step
        rate = opens_per_h(blood, bleeder * (person.severity * 0.010 + 0.002) * (hours * (-1.0 / 60.0)).exp())
        opens = luck.uniform("ward/rebleeding") < -(rate * -self.hours_per_step).expm1()
        return torch.where(opens, torch.maximum(blood.lesion, person.severity * 0.5 + 0.25), blood.lesion)


def _admitted(key: Tensor, who: dict[str, Tensor]) -> WardState:
    """Patients with these factors, before anything is measured."""
    person = ward_cohorts.sample_person(key, who)
    factors = torch.stack([who[q.name] for q in ward_cohorts.FACTORS], -1)
    complaint = ward_cohorts.sample_complaint(key, who["disease"])
    return WardState(key, torch.zeros_like(key), factors, complaint, person, *arrive(key, person), blank_records(key))


def _lying(given: Tensor) -> Lying:
    """What amounts [B, J] say of lying still and of central lines."""
    machine = given[:, _VENTILATION] > VENTILATED_L_MIN
    line = (given[:, _LINES[0]] > 0.0) | (given[:, _LINES[1]] > 0.0) | (given[:, _LINES[2]] > 0.0)
    return Lying(machine.to(given.dtype), line.to(given.dtype))


def _nothing(key: Tensor) -> dict[str, Tensor]:
    """Half an hour without treatment."""
    return Prescription.of(torch.zeros(key.shape[0], len(INTERVENTIONS), device=key.device), 1.0).during(0.0, TICK_H)


@lru_cache(maxsize=8)
def _program(device: torch.device) -> Program:
    """`dynamics.tick`, recorded."""
    key = keys.from_seed(0, 1, device)
    return Program(tick, _admitted(key, ward_cohorts.sample_factors("ward", key)), _nothing(key))


def _from_here(state: WardState) -> WardState:
    """Ledgers and clocks start at admission."""
    nil = torch.zeros_like(state.fluids.in_l)
    return state._replace(
        fluids=state.fluids._replace(in_l=nil, out_l=nil, urine_l=nil),
        salts=state.salts._replace(sodium_in=nil, sodium_out=nil, potassium_in=nil, potassium_out=nil),
        blood=state.blood._replace(haemoglobin_in=nil, haemoglobin_out=nil),
    )
