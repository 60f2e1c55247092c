"""Glucose, insulin, ketones, lactate and heat.

Glucose: a minimal model (Bergman 1981 (k)) in amounts: hepatic production, raised by stress hormones and held down by
insulin action; uptake with and without insulin, both saturating; loss in the urine above 10 mmol/L. Insulin: clearance
15 mL/min/kg, half-life 6 min, action with 40 min (k). Ketones are made where insulin action is missing, burnt by a
saturating law. Lactate is made faster by inflammation and much faster where oxygen extraction nears its limit, and
cleared by a liver that needs flow. Temperature follows the set point that inflammation raises and acetaminophen lowers
(half-life 2.5 h).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models.oracles.ward.body.normal import L_H_PER_ML_MIN
from world_models.oracles.ward.body.renal import KETONE_EXCRETION
from world_models.oracles.ward.state import TRACE, Metabolism, Person

__all__ = ["DEXTROSE_MMOL_PER_G", "advance_glucose", "advance_slow_metabolism"]

DEXTROSE_MMOL_PER_G = 1000.0 / 180.2
INSULIN_CL_L_H_KG = 0.9
INSULIN_HALF_LIFE_MIN, ACTION_MIN = 6.0, 40.0  # half-life in plasma; time constant of the action (k)
STEROID_HALF_MG = 80.0  # hydrocortisone on board, of half its effect on glucose (k)
ACETAMINOPHEN_HALF_MG, ACETAMINOPHEN_HALF_LIFE_H = 600.0, 2.5  # (k)
LACTATE_PER_H = 1.05  # mmol/L made and cleared an hour at 1 mmol/L in health (k)
HEAT_H = 1.6  # time constant of the temperature (k)
RESISTS_H, RECOVERS_H = 4.0, 14.0  # time constants with which resistance to insulin comes and goes (k)
BASAL_INSULIN = 8.0  # mU/L


def advance_glucose(
    now: Metabolism,
    person: Person,
    glucose: Tensor,
    spilled_mmol_h: Tensor,
    dextrose_mmol_h: Tensor,
    insulin_units_h: Tensor,
    eaten_mmol_h: Tensor,
    phagocytes: Tensor,
    norepinephrine: Tensor,
    steroid_mg: Tensor,
    gfr: Tensor,
    noise: Tensor,
    hours: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Glucose (mmol outside cells), insulin and its action after `hours` (5 minutes); glucose in mmol/L."""
    ratio = glucose * 0.2
    square = ratio * ratio
    secreted = (
        person.beta_cell * BASAL_INSULIN * square * (12.0 / (square + 11.0))
    )  # 8 mU/L at 5 mmol/L, twelvefold at most
    slower = 1.0 - (60.0 - gfr).clamp(0.0, 60.0) * 0.006
    infused = insulin_units_h * 1000.0 / (person.weight_kg * INSULIN_CL_L_H_KG * slower)
    settled = secreted + infused
    insulin = settled + (now.insulin - settled) * math.exp(-hours * 60.0 * math.log(2.0) / INSULIN_HALF_LIFE_MIN)
    action = insulin + (now.insulin_action - insulin) * math.exp(-hours * 60.0 / ACTION_MIN)

    stress = (
        1.0 + phagocytes * 0.7 + norepinephrine.clamp_max(0.5) * 0.8 + steroid_mg / (steroid_mg + STEROID_HALF_MG) * 0.5
    )
    resist = person.insulin_sensitivity / (
        1.0 + phagocytes * 0.5 + steroid_mg / (steroid_mg + STEROID_HALF_MG) * 0.5 + now.resistance
    )
    effect = action * resist
    defence = (3.9 - glucose).clamp(0.0, 3.0) * 0.5 + 1.0  # glucagon and adrenaline
    liver = person.glucose_turnover_mmol_h * (stress * (1.0 + noise * 0.08)) * (18.7 / (effect + 10.7)) * defence
    liver = liver / ((ratio - 1.0).clamp_min(-0.5) * 0.12 + 1.0)
    free = ratio * (1.6 / (ratio + 0.6)) * 0.62
    driven = effect / (effect + 95.0) * 12.9 * ratio * (2.0 / (ratio + 1.0)) * 0.38
    uptake = person.glucose_turnover_mmol_h * (free + driven)
    change = liver + dextrose_mmol_h + eaten_mmol_h - uptake - spilled_mmol_h
    return (now.glucose_mmol + change * hours).clamp_min(3.0), insulin, action


def advance_slow_metabolism(
    now: Metabolism,
    person: Person,
    extraction: Tensor,
    flow: Tensor,
    pressure: Tensor,
    gfr: Tensor,
    phagocytes: Tensor,
    damage: Tensor,
    cell_lactate_mmol_h: Tensor,
    extracellular_l: Tensor,
    acetaminophen_mg_h: Tensor,
    dialysis_l_h: Tensor,
    noise: Tensor,
    hours: float,
) -> Metabolism:
    """Ketones, resistance to insulin, lactate, temperature and acetaminophen over `hours`.

    `cell_lactate_mmol_h` is infused lactate.
    """
    effect = now.insulin_action * person.insulin_sensitivity
    low = effect / 3.6
    made = 1.0 / (1.0 + low * low * low * low) * (1.0 + phagocytes * 0.3)
    cleared = (
        0.55 / (now.ketones + 1.2) + gfr * (L_H_PER_ML_MIN * KETONE_EXCRETION) / extracellular_l + dialysis_l_h * 0.02
    )
    aim = made / cleared
    ketones = aim + (now.ketones - aim) * (cleared * -hours).exp()

    # inflamed tissue extracts less before it lacks
    short = (extraction - 0.60 + phagocytes * 0.12).clamp(0.0, 0.5)
    stressed = (55.0 - pressure).clamp(0.0, 40.0) * 0.05
    made = LACTATE_PER_H + phagocytes * 1.5 + damage * 0.25 + short * 34.0 + stressed
    made = made + cell_lactate_mmol_h / extracellular_l
    liver = LACTATE_PER_H * (flow * 0.75 + 0.25).clamp(0.2, 1.0) * (1.0 - (damage * 0.18).clamp_max(0.5))
    liver = liver / (1.0 + now.lactate * 0.05) * 1.05
    aim = made / liver
    lactate = aim + (now.lactate - aim) * (liver * -hours).exp()

    blocked = now.acetaminophen / (now.acetaminophen + ACETAMINOPHEN_HALF_MG)
    fever = phagocytes / (phagocytes + 0.35) * 3.1 * (1.0 - blocked * 1.0)
    cold = (0.6 - flow).clamp(0.0, 0.5) * 3.0 + dialysis_l_h * 0.15
    aim = 36.85 + fever - cold + noise * 0.15 - blocked * 0.1
    temperature = aim + (now.temperature - aim) * math.exp(-hours / HEAT_H)
    drug = (
        now.acetaminophen * math.exp(-hours * math.log(2.0) / ACETAMINOPHEN_HALF_LIFE_H)
        + acetaminophen_mg_h * hours
        + TRACE
    )
    aim = now.ketones * 0.66 + (now.glucose_mmol / extracellular_l - 11.0).clamp(0.0, 40.0) * 0.10
    pace = torch.where(aim > now.resistance, 1.0 - math.exp(-hours / RESISTS_H), 1.0 - math.exp(-hours / RECOVERS_H))
    resistance = now.resistance + (aim - now.resistance) * pace
    return now._replace(
        resistance=resistance,
        ketones=ketones.clamp(0.03, 20.0),
        lactate=lactate.clamp(0.3, 32.0),
        temperature=temperature.clamp(29.0, 42.5),
        acetaminophen=drug,
    )
