"""Half an hour of the ward: six fast steps of five minutes, then one slow step.

Fast (5 min): acid-base, breathing, circulation, excretion, glucose and insulin, water, sodium, potassium, chloride.
Slow (30 min, time constants from hours to days; exact where linear): infection and its drugs, kidneys' injury and
retention, blood, clots, minerals, markers, mind, lungs' water, consolidation and injury, hazard.

Elementwise operations on contiguous [B] only: row i of a batch is bit for bit the same patient alone. No pow, no
sigmoid, no matrix product: torch's kernels for those round the tail of a batch otherwise than its middle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.oracles.ward.admission import anions
from world_models.oracles.ward.body.blood import advance_blood, bleeding_l_h
from world_models.oracles.ward.body.circulation import (
    HAEMOGLOBIN_G_PER_L_CELLS,
    advance_circulation,
    advance_steroid_and_blocker,
    vasoplegia_of,
)
from world_models.oracles.ward.body.electrolytes import (
    advance_minerals,
    advance_salts,
    infused_salts,
    potassium_level,
    shift_chloride,
)
from world_models.oracles.ward.body.fluids import advance_fluids, drinking, infused_water_l_h, insensible, spare
from world_models.oracles.ward.body.infection import advance_infection
from world_models.oracles.ward.body.metabolism import DEXTROSE_MMOL_PER_G, advance_glucose, advance_slow_metabolism
from world_models.oracles.ward.body.renal import advance_kidney, excrete, filtration
from world_models.oracles.ward.body.respiration import acid_base, advance_lungs, advance_muscles
from world_models.oracles.ward.body.thrombosis import advance_clots
from world_models.oracles.ward.body.ventilation import Machine, advance_injury, machine_of
from world_models.oracles.ward.hazard import hazard_per_h
from world_models.oracles.ward.outcome import advance_organs, oxygen_debt_rate
from world_models.oracles.ward.state import Lungs, Noise, Signals, WardState

__all__ = ["FAST_H", "FAST_PER_TICK", "TICK_H", "advance_noise", "advanced", "concentrations", "leak_of", "tick"]
__all__ += ["Conditions", "conditions", "fast_step", "slow_step"]

FAST_H = 1.0 / 12.0
TICK_H = 0.5
FAST_PER_TICK = 6
_KEEP_CO2 = math.exp(-FAST_H / 0.20)
RINGER_LACTATE_MMOL_ML = 0.028  # lactate in Ringer's
LUNG_WATER_H = 7.0  # time constant with which oedema clears (k)
CONSOLIDATES_H, CLEARS_H = 14.0, 42.0  # time constants of a lung's consolidation (k)
HELD_MMHG_PER_CMH2O = 0.6  # left atrial pressure that a cmH2O of mean airway pressure makes up for (assumed)
INJURY_LEAKS_PER_H = 0.01  # lung water an hour by an injury of the whole lung (assumed)
_NOISE_HOURS = 5.0  # correlation time of the moment-to-moment variation
_NOISE_KEEP = math.exp(-1.0 / _NOISE_HOURS)
_NOISE_NEW = math.sqrt(1.0 - _NOISE_KEEP * _NOISE_KEEP)


def leak_of(state: WardState) -> Tensor:
    """Capillary leak, 0..1."""
    infection = state.infection
    raw = (infection.phagocytes * 0.70 + infection.damage * 0.14) * state.person.leak_tendency
    return (raw * state.person.systemic).clamp(0.0, 1.0)


def systemic(state: WardState) -> tuple[Tensor, Tensor]:
    """Activated phagocytes and tissue damage as the whole body meets them: an infected lung keeps part to itself."""
    return state.infection.phagocytes * state.person.systemic, state.infection.damage * state.person.systemic


def concentrations(state: WardState) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sodium, potassium, chloride, glucose (mmol/L); haematocrit; plasma and extracellular volume (L). float32."""
    fluids, salts = state.fluids, state.salts
    outside = fluids.plasma_l + fluids.interstitial_l
    per_litre = 1.0 / outside
    sodium = (salts.sodium * per_litre).float()
    potassium = (salts.potassium * per_litre).float()
    chloride = (salts.chloride * per_litre).float()
    plasma, extracellular = fluids.plasma_l.float(), outside.float()
    glucose = state.metabolism.glucose_mmol / extracellular
    cells = state.blood.haemoglobin_g.float() * (1.0 / HAEMOGLOBIN_G_PER_L_CELLS)
    return sodium, potassium, chloride, glucose, cells / (cells + plasma), plasma, extracellular


def advance_noise(noise: Noise, normals: tuple[Tensor, ...]) -> Noise:
    """One hour of every Ornstein-Uhlenbeck process, from standard normals [B] each."""
    return Noise(*(advanced(x, z) for x, z in zip(noise, normals, strict=True)))


def advanced(noise: Tensor, normals: Tensor) -> Tensor:
    """One such process [...], or several, an hour on."""
    return noise * _NOISE_KEEP + normals * _NOISE_NEW


class Conditions(NamedTuple):
    """What holds for half an hour, whatever its five minutes bring. [B] each."""

    machine: Machine
    salt_in: tuple[Tensor, Tensor, Tensor]  # sodium, potassium, chloride, mmol/h
    water_in: Tensor  # L/h
    dialysis: Tensor  # effluent, L/h
    removed: Tensor  # ultrafiltration, L/h
    eating: Tensor  # share of the ward's diet


def conditions(state: WardState, rates: dict[str, Tensor]) -> Conditions:
    """Of the half hour that begins in `state` under `rates`."""
    dialysis = rates["renal_replacement_ml_kg_h"] * state.person.weight_kg * 0.001
    running = (dialysis > 0.01).to(dialysis.dtype)
    machine = machine_of(state.lungs, state.person, rates["ventilation_l_min"], rates["oxygen_fraction"])
    return Conditions(
        machine,
        infused_salts(rates),
        infused_water_l_h(rates),
        dialysis,
        rates["ultrafiltration_ml_h"] * 0.001 * running,
        _eating(state, machine.on),
    )


def tick(state: WardState, rates: dict[str, Tensor]) -> WardState:
    """Half an hour under `rates` (`Prescription.during`). Nobody dies in here: the hazard is only known after it."""
    held = conditions(state, rates)
    state = fast_step(state, rates, held)
    bled = state.signals.bleed_l_h
    for _ in range(FAST_PER_TICK - 1):
        state = fast_step(state, rates, held)
        bled = bled + state.signals.bleed_l_h
    return slow_step(state, rates, held, bled)


def _eating(state: WardState, ventilated: Tensor) -> Tensor:
    """Share of the ward's diet: none for the confused, the ventilated, the vomiting, the bleeding."""
    clear = (1.0 - state.organs.brain * 3.2).clamp(0.0, 1.0)
    settled = (1.0 - (state.metabolism.ketones - 1.5).clamp(0.0, 4.0) * 0.25) * (1.0 - state.blood.lesion).clamp(
        0.0, 1.0
    )
    return clear * settled * (1.0 - state.infection.phagocytes.clamp(0.0, 1.0) * 0.4) * (1.0 - ventilated)


def fast_step(state: WardState, rates: dict[str, Tensor], held: Conditions) -> WardState:
    """Five minutes."""
    machine, salt_in, water_in, dialysis, removed, eating = held
    person, infection, metabolism, blood = state.person, state.infection, state.metabolism, state.blood
    sodium, potassium, chloride, glucose, haematocrit, plasma, extracellular = concentrations(state)
    haemoglobin = haematocrit * (HAEMOGLOBIN_G_PER_L_CELLS * 0.1)
    last = state.signals
    charge = anions(
        blood.albumin, metabolism.lactate, metabolism.ketones, state.salts.phosphate_mg_dl, state.kidney.urea
    )
    bicarbonate, ph = acid_base(sodium, potassium, chloride, charge, state.lungs.pco2)
    pco2, breath = advance_lungs(
        state.lungs, person, bicarbonate, metabolism.temperature, infection.phagocytes, state.organs.brain,
        last.saturation, last.flow, haemoglobin, state.clots.lung, rates["oxygen_fraction"],
        rates["ventilation_l_min"], machine, state.noise.breath, _KEEP_CO2,
    )  # fmt: skip
    leak = leak_of(state)
    cells, damage = systemic(state)
    circulation, beat = advance_circulation(
        state.circulation, person, plasma / (1.0 - haematocrit), haematocrit, last.map,
        vasoplegia_of(cells, damage, state.circulation.steroid), cells, damage, metabolism.temperature,
        breath.saturation, ph,
        rates["norepinephrine_ug_kg_min"], rates["vasopressin_units_min"], machine.mean_pressure, state.clots.lung,
        state.noise.vessels, state.noise.heart, FAST_H,
    )  # fmt: skip
    sense = beat.filling * 0.35 + beat.flow * 0.65 * (beat.map / person.map_mmhg)
    left = spare((plasma / person.plasma_l).minimum(extracellular / person.extracellular_l))
    removed = removed * left
    gfr = left * filtration(person, state.kidney.tubular_injury, beat.map, beat.flow, beat.filling)
    urine = excrete(state.kidney, person, gfr, sense, sodium, potassium, bicarbonate, glucose, metabolism.ketones)
    sugar, insulin, action = advance_glucose(
        metabolism, person, glucose, urine.glucose, rates["dextrose_g"] * DEXTROSE_MMOL_PER_G,
        rates["insulin_units_h"], eating * person.glucose_turnover_mmol_h * 0.10, infection.phagocytes,
        circulation.norepinephrine, circulation.steroid, gfr, state.noise.liver, FAST_H,
    )  # fmt: skip
    bleed = bleeding_l_h(blood, beat.map) * left
    plasma_lost = bleed * (1.0 - haematocrit)
    drunk = drinking(person, sodium, eating) + rates["water_ml"] * 0.001
    inside = state.fluids.cell_l.float()
    fluids = advance_fluids(
        state.fluids, person, water_in, drunk, urine.water_l,
        insensible(person, metabolism.temperature, breath.breaths) * left + plasma_lost + removed,
        blood.albumin, leak, sodium * 2.0 + glucose, state.salts.cell_osmoles / inside, plasma, extracellular, FAST_H,
    )  # fmt: skip
    level = potassium_level(
        state.salts.cell_potassium.float(),
        state.salts.cell_potassium_0,
        state.salts.recent_uptake,
        action,
        ph,
        sodium * 2.0 + glucose,
    )
    salts = advance_salts(
        state.salts, person, salt_in, eating, urine, plasma_lost, dialysis, removed, sodium, potassium, chloride,
        extracellular, level, FAST_H,
    )  # fmt: skip
    return state._replace(
        fluids=fluids,
        salts=salts,
        circulation=circulation,
        lungs=state.lungs._replace(pco2=pco2),
        metabolism=metabolism._replace(glucose_mmol=sugar, insulin=insulin, insulin_action=action),
        signals=Signals(
            map=beat.map,
            flow=beat.flow,
            filling=beat.filling,
            stroke=beat.stroke,
            wedge=beat.wedge,
            saturation=breath.saturation,
            alveolar_po2=breath.alveolar_po2,
            extraction=breath.extraction,
            breaths=breath.breaths,
            demand=breath.demand,
            bicarbonate=bicarbonate,
            ph=ph,
            gfr=gfr,
            volume_sense=sense,
            urine_l_h=urine.water_l,
            bleed_l_h=bleed,
            haemoglobin=haemoglobin,
            peep=machine.peep,
            plateau=machine.plateau,
            driving=machine.driving,
            tidal_ml_kg=machine.tidal_ml_kg,
        ),
    )


def slow_step(state: WardState, rates: dict[str, Tensor], held: Conditions, bled: Tensor) -> WardState:
    """What changes over hours, half an hour further; `bled` [B] is the sum of the fast steps' rates."""
    machine, dialysis, eating, bled_l_h = held.machine, held.dialysis, held.eating, bled * (1.0 / FAST_PER_TICK)
    person, infection, signals, circulation = state.person, state.infection, state.signals, state.circulation
    sodium, potassium, _, glucose, _, plasma, extracellular = concentrations(state)
    debt_rate = oxygen_debt_rate(signals.extraction, signals.map, signals.saturation)
    leak = leak_of(state)
    cells, damage = systemic(state)
    body_water = extracellular + state.fluids.cell_l.float()
    kidney = advance_kidney(
        state.kidney, person, signals.gfr, signals.volume_sense, signals.map, cells, damage,
        infection.vancomycin, signals.flow, bled_l_h, circulation.steroid, rates["furosemide_mg"], dialysis,
        body_water, TICK_H,
    )  # fmt: skip
    metabolism = advance_slow_metabolism(
        state.metabolism, person, signals.extraction, signals.flow, signals.map, signals.gfr, cells,
        damage, rates["ringers_lactate_ml"] * RINGER_LACTATE_MMOL_ML, extracellular, rates["acetaminophen_mg"],
        dialysis, state.noise.heat, TICK_H,
    )  # fmt: skip
    blood = advance_blood(
        state.blood, person, plasma, bled_l_h, signals.haemoglobin, infection.phagocytes, damage, leak,
        circulation.steroid, rates, TICK_H,
    )  # fmt: skip
    salts = advance_minerals(
        shift_chloride(state.salts, signals.bicarbonate, TICK_H), person, signals.gfr, signals.urine_l_h,
        metabolism.insulin_action, infection.phagocytes, eating, dialysis, rates, TICK_H,
    )  # fmt: skip
    osmolality = sodium * 2.0 + glucose + kidney.urea * 0.1
    organs = advance_organs(
        state.organs, person, signals, debt_rate, damage, cells, circulation.heart_rate,
        kidney.urea, sodium, glucose, state.lungs.pco2, osmolality, state.clots.lung, TICK_H,
    )  # fmt: skip
    signs = {
        "map": signals.map, "lactate": metabolism.lactate, "ph": signals.ph, "potassium": potassium,
        "saturation": signals.saturation, "lung_water": state.lungs.water, "lung_injury": state.lungs.injury,
        "obstruction": state.clots.lung, "haemoglobin": signals.haemoglobin, "glucose": glucose, "sodium": sodium,
        "damage": damage, "debt": organs.debt, "flow": signals.flow, "wedge": signals.wedge, "urea": kidney.urea,
        "brain": organs.brain, "temperature": metabolism.temperature, "calcium": salts.free_calcium_mg_dl,
        "heart_rate": circulation.heart_rate, "log_troponin": (organs.troponin * 0.01 + 1.0).log(),
    }  # fmt: skip
    return state._replace(
        circulation=advance_steroid_and_blocker(
            circulation, person, rates["hydrocortisone_mg"], rates["metoprolol_mg"], TICK_H
        ),
        lungs=_slow_lungs(state, leak, machine, rates["oxygen_fraction"]),
        metabolism=metabolism,
        infection=advance_infection(
            infection, person, signals.gfr, dialysis, debt_rate * 0.05, circulation.steroid, rates, TICK_H
        ),
        kidney=kidney,
        blood=blood,
        clots=advance_clots(state.clots, blood.heparin, TICK_H),
        salts=salts,
        organs=organs,
        course=state.course._replace(hazard_per_h=hazard_per_h(signs, person.hazard_factor)),
    )


def _slow_lungs(state: WardState, leak: Tensor, machine: Machine, oxygen_fraction: Tensor) -> Lungs:
    """Oedema by left atrial pressure, leak and injury, cleared within 7 h; consolidation by the infection of a lung."""
    lungs, infection, person, signals = state.lungs, state.infection, state.person, state.signals
    held = machine.mean_pressure * HELD_MMHG_PER_CMH2O
    pressed = (signals.wedge - (18.5 + held - leak * 8.0)).clamp(0.0, 25.0) * 0.019 + leak * infection.damage * 0.05
    pressed = pressed + lungs.injury * INJURY_LEAKS_PER_H
    water = lungs.water + (pressed * (1.3 - lungs.water).clamp_min(0.0) - lungs.water / LUNG_WATER_H) * TICK_H
    load = infection.pathogen / (infection.pathogen + 2.0)
    aim = person.lung_site * (load * 0.75 + infection.phagocytes * 0.35).clamp_max(1.0)
    rising = aim > lungs.consolidation
    pace = torch.where(rising, 1.0 - math.exp(-TICK_H / CONSOLIDATES_H), 1.0 - math.exp(-TICK_H / CLEARS_H))
    consolidation = lungs.consolidation + (aim - lungs.consolidation) * pace
    fatigue, disuse = advance_muscles(lungs.fatigue, lungs.disuse, signals.demand, machine.on, TICK_H)
    injury = advance_injury(lungs.injury, machine, oxygen_fraction, TICK_H)
    return Lungs(lungs.pco2, water.clamp(0.0, 1.3), consolidation.clamp(0.0, 1.0), fatigue, injury, disuse)
