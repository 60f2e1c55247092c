"""Organs that suffer, the hazard of death, and when a patient may go home.

The log hazard is a sum of how far each sign leaves what the body bears: pressure, lactate, pH, potassium, saturation,
haemoglobin, glucose, sodium, temperature, tissue damage, consciousness; age and frailty multiply it. Slopes are set so
that mortality by disease, with the clinician of `clinician` and with nothing done, lies where published in-hospital
mortality does (`benchmarks.ward.probes`).

A patient goes home after 24 to 48 h (by chance) of stability without any organ support: criteria after Halm 1998 (k):
heart rate, pressure, breathing rate, saturation on room air, temperature and mind; with electrolytes, glucose and
haemoglobin in bounds, no open bleeding and no more infection than the host handles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models.oracles.ward.body.renal import usual_creatinine
from world_models.oracles.ward.state import Circulation, Organs, Person, Signals

__all__ = ["advance_organs", "hazard_per_h", "oxygen_debt_rate", "stable"]

DEBT_H, TROPONIN_H, BNP_H, ALT_H, BILIRUBIN_H, MIND_H = 16.0, 18.0, 13.0, 42.0, 30.0, 1.5  # time constants (k)
ALT_U_L, BILIRUBIN_MG_DL = 22.0, 0.6  # in health (k)
BASE_LOG_HAZARD = -10.5  # log of the hazard an hour where nothing is amiss; tuned by `benchmarks.ward.probes`


def oxygen_debt_rate(extraction: Tensor, pressure: Tensor, saturation: Tensor) -> Tensor:
    """How fast organs run into debt, an hour: by extraction at its limit, by low pressure, by low saturation."""
    return (
        (extraction - 0.61).clamp(0.0, 0.45) * 2.0
        + (56.0 - pressure).clamp(0.0, 30.0) * 0.018
        + (0.82 - saturation).clamp(0.0, 0.4) * 2.0
    )


def advance_organs(
    now: Organs,
    person: Person,
    signals: Signals,
    debt_rate: Tensor,
    damage: Tensor,
    phagocytes: Tensor,
    heart_rate: Tensor,
    urea: Tensor,
    sodium: Tensor,
    glucose: Tensor,
    pco2: Tensor,
    osmolality: Tensor,
    hours: float,
) -> Organs:
    """Markers, consciousness and oxygen debt over `hours`; glucose in mmol/L, urea nitrogen in mg/dL."""
    debt = now.debt * math.exp(-hours / DEBT_H) + debt_rate * hours
    strain = (heart_rate - 105.0).clamp(0.0, 80.0) * 0.02 + (signals.wedge - 18.0).clamp(0.0, 30.0) * 0.06
    old = (person.age_years - 50.0).clamp_min(0.0) * 0.2 + 5.0
    renal = 1.0 + (60.0 - signals.gfr).clamp(0.0, 60.0) * 0.012
    aim = (old + strain * 9.0 + debt_rate * 220.0 + phagocytes * 14.0) * renal
    troponin = aim + (now.troponin - aim) * math.exp(-hours / TROPONIN_H)
    aim = (30.0 + (signals.wedge - 9.5).clamp_min(0.0) * 42.0 + phagocytes * 60.0) * renal
    bnp = aim + (now.bnp - aim) * math.exp(-hours / BNP_H)
    alt = ALT_U_L + (now.alt - ALT_U_L) * math.exp(-hours / ALT_H)
    alt = alt + (debt_rate.clamp_max(1.2) * 240.0 + damage * 0.6) * hours
    aim = BILIRUBIN_MG_DL + damage * 0.8 + (now.alt * 0.0012).clamp_max(3.0)
    bilirubin = aim + (now.bilirubin - aim) * math.exp(-hours / BILIRUBIN_H)

    fog = phagocytes * 0.16 + damage * 0.07 + (signals.extraction - 0.55).clamp(0.0, 0.4) * 0.8
    fog = fog + (52.0 - signals.map).clamp(0.0, 30.0) * 0.025 + (0.78 - signals.saturation).clamp(0.0, 0.4) * 3.0
    fog = fog + (2.9 - glucose).clamp(0.0, 2.5) * 0.42 + (pco2 - 68.0).clamp(0.0, 60.0) * 0.018
    fog = fog + (122.0 - sodium).clamp(0.0, 25.0) * 0.03 + (sodium - 158.0).clamp(0.0, 30.0) * 0.025
    fog = fog + (osmolality - 325.0).clamp(0.0, 80.0) * 0.006 + (urea - 110.0).clamp(0.0, 150.0) * 0.003
    fog = fog + (7.10 - signals.ph).clamp(0.0, 0.4) * 1.2 + (person.age_years - 75.0).clamp_min(0.0) * 0.003
    brain = fog + (now.brain - fog) * math.exp(-hours / MIND_H)
    return Organs(troponin, bnp, alt.clamp_max(14000.0), bilirubin, brain.clamp(0.0, 1.0), debt)


def hazard_per_h(
    person: Person,
    signals: Signals,
    organs: Organs,
    damage: Tensor,
    lactate: Tensor,
    potassium: Tensor,
    sodium: Tensor,
    glucose: Tensor,
    temperature: Tensor,
    calcium: Tensor,
    heart_rate: Tensor,
    lung_water: Tensor,
    urea: Tensor,
) -> Tensor:
    """Hazard of death an hour."""
    x = (62.0 - signals.map).clamp(0.0, 45.0) * 0.095
    x = x + (lactate - 2.2).clamp(0.0, 12.0) * 0.20
    x = x + (7.22 - signals.ph).clamp(0.0, 0.6) * 8.0 + (signals.ph - 7.58).clamp(0.0, 0.3) * 8.0
    x = x + (potassium - 5.8).clamp(0.0, 3.5) * 2.6 + (2.9 - potassium).clamp(0.0, 1.5) * 2.0
    x = x + (0.90 - signals.saturation).clamp(0.0, 0.5) * 13.0 + lung_water * 1.8
    x = x + (6.6 - signals.haemoglobin).clamp(0.0, 5.0) * 0.65
    x = x + (2.7 - glucose).clamp(0.0, 2.4) * 1.6 + (glucose - 35.0).clamp(0.0, 40.0) * 0.05
    x = x + (122.0 - sodium).clamp(0.0, 20.0) * 0.09 + (sodium - 157.0).clamp(0.0, 25.0) * 0.09
    x = x + damage.clamp_max(2.6) * 1.40 + organs.debt.clamp_max(6.0) * 0.35
    x = x + (0.62 - signals.flow).clamp(0.0, 0.5) * 4.0 + (signals.wedge - 22.0).clamp(0.0, 15.0) * 0.14
    x = x + (urea - 80.0).clamp(0.0, 120.0) * 0.020
    x = x + organs.brain * 2.2 + (35.0 - temperature).clamp(0.0, 4.0) * 0.4 + (temperature - 40.3).clamp(0.0, 2.0) * 0.8
    x = x + (4.2 - calcium).clamp(0.0, 2.0) * 0.8 + (heart_rate - 145.0).clamp(0.0, 40.0) * 0.02
    x = x + (organs.troponin * 0.01 + 1.0).log() * 0.25
    return (x + BASE_LOG_HAZARD).clamp_max(1.5).exp() * person.hazard_factor


def stable(
    person: Person,
    signals: Signals,
    circulation: Circulation,
    organs: Organs,
    pathogen: Tensor,
    damage: Tensor,
    lesion: Tensor,
    temperature: Tensor,
    potassium: Tensor,
    sodium: Tensor,
    glucose: Tensor,
    ketones: Tensor,
    lung_water: Tensor,
    creatinine: Tensor,
    supported: Tensor,
) -> Tensor:
    """bool [B]: fit for the clock of discharge to run now. `supported`: on oxygen, pressors, ventilator or the like."""
    usual = usual_creatinine(person)
    fine = (circulation.heart_rate <= 106.0) & (signals.map >= 64.0) & (signals.breaths <= 24.0)
    fine = fine & (signals.saturation >= 0.895) & (temperature <= 37.9) & (organs.brain < 0.22)
    fine = fine & (potassium > 3.0) & (potassium < 5.8) & (sodium > 126.0) & (sodium < 151.0)
    fine = fine & (glucose > 3.6) & (glucose < 20.0) & (ketones < 2.0) & (signals.haemoglobin > 6.8)
    fine = fine & (pathogen < 0.10) & (damage < 0.5) & (lesion < 0.06) & (lung_water < 0.25)
    fine = fine & (creatinine < torch.maximum(usual * 3.0, usual + 1.5)) & (signals.bicarbonate > 15.5)
    return fine & ~supported
