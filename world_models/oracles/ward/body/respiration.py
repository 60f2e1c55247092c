"""Breathing: acid-base status, ventilation and its drive, carbon dioxide, oxygen, and the muscles that tire.

Bicarbonate is what electroneutrality leaves: Na + K - Cl - anions, so saline lowers it by its chloride, and lactate and
ketones by their charge (Stewart's view, Figge 1992 (k)); pH follows Henderson and Hasselbalch. The brain aims at the
carbon dioxide that compensates the bicarbonate (1.2 mmHg for each mmol/L missing, 0.7 for each in excess (k)), lower in
hypoxia and inflammation; weak or stiff lungs may not reach it. Saturation: Severinghaus 1979
(doi 10.1152/jappl.1979.46.3.599) of the alveolar oxygen after mismatch, less what shunted venous blood takes away, so
oxygen mends mismatch and hardly mends shunt. What pressure opens (`ventilation`) is lost to neither.

An embolus in the lung is dead space and mismatch: breathing must be deeper, and oxygen falls though nothing is
consolidated. A ventilator carries the breathing; own breaths come through where they want more than it gives, and go on
alone when it stops, as far as the muscles can: rested ones better, ones that lay idle for days worse.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.oracles.ward.body.normal import BICARBONATE_MMOL_L, TEMPERATURE_C
from world_models.oracles.ward.body.ventilation import Machine, felt
from world_models.oracles.ward.state import Lungs, Person

__all__ = ["Breath", "acid_base", "advance_lungs", "advance_muscles", "henderson_hasselbalch", "saturation_of"]

PCO2_MMHG = 40.0  # in health (k)
COMPENSATION_LOW, COMPENSATION_HIGH = 1.2, 0.7  # mmHg for each mmol/L of bicarbonate missing, or in excess (k)
INSPIRED_MMHG = 713.0  # barometric pressure less water vapour at 37 C
ROOM_AIR = 0.21
FATIGUES_ABOVE = 0.62  # share of what fresh muscles can do (k)
DISUSE_H, DISUSE_MOST, DISUSE_HEALS_H = 96.0, 0.35, 72.0  # of muscles that lie idle: time constants, largest (assumed)
BLOWN_OFF_MMHG, WEAKER_EMBOLISM = 10.0, 0.3  # carbon dioxide and reserve lost by a bed all obstructed (assumed)
DEAD_SPACE_EMBOLISM, MISMATCH_EMBOLISM, SHUNT_EMBOLISM = 1.0, 0.40, 0.12  # of a bed all obstructed (assumed)
CO2_SOLUBILITY = 0.0307  # mmol/L per mmHg, of plasma at 37 C (k)
PK = 6.1  # of carbonic acid in plasma (k)
LOG10_E = 0.4342945
NORMAL_ANIONS = 5.0  # sulfate, urate and what else is not measured, mmol/L


class Breath(NamedTuple):
    """What breathing tells the other organs, [B] each."""

    saturation: Tensor
    alveolar_po2: Tensor
    extraction: Tensor  # share of delivered oxygen that is taken up
    breaths: Tensor
    demand: Tensor  # ventilation wanted, as a share of what the muscles can do


def acid_base(
    sodium: Tensor, potassium: Tensor, chloride: Tensor, anions: Tensor, pco2: Tensor
) -> tuple[Tensor, Tensor]:
    """Bicarbonate in mmol/L and pH from concentrations in mmol/L and carbon dioxide in mmHg."""
    bicarbonate = (sodium + potassium - chloride - anions).clamp(2.0, 60.0)
    return bicarbonate, henderson_hasselbalch(bicarbonate, pco2).clamp(6.5, 7.9)


def henderson_hasselbalch(bicarbonate: Tensor, pco2: Tensor) -> Tensor:
    """pH of bicarbonate in mmol/L and carbon dioxide in mmHg."""
    return (bicarbonate / (pco2 * CO2_SOLUBILITY)).log() * LOG10_E + PK


def saturation_of(po2: Tensor) -> Tensor:
    """Severinghaus: saturation 0..1 at an oxygen tension in mmHg."""
    cubic = po2 * (po2 * po2 + 150.0)
    return cubic / (cubic + 23400.0)


def advance_lungs(
    lungs: Lungs,
    person: Person,
    bicarbonate: Tensor,
    temperature: Tensor,
    inflammation: Tensor,
    brain: Tensor,
    last_saturation: Tensor,
    flow: Tensor,
    haemoglobin: Tensor,
    obstruction: Tensor,
    oxygen_fraction: Tensor,
    ventilation_l_min: Tensor,
    machine: Machine,
    noise: Tensor,
    keep: float,
) -> tuple[Tensor, Breath]:
    """Carbon dioxide after five minutes, and `Breath`.

    Args:
        flow: cardiac output, share of own normal.
        obstruction: share of the pulmonary bed behind emboli.
        ventilation_l_min: of the machine, 0 for none.
        machine: what it does at that.
        noise: unit variance, on the effort.
        keep: share of the distance to the new carbon dioxide that is left after the step.
    """
    metabolism = (temperature - TEMPERATURE_C) * 0.10 + 1.0 + inflammation * 0.20
    load = (lungs.consolidation * 0.6 + lungs.water * 0.45 + felt(lungs.injury) * 0.6).clamp_max(1.0)
    short = BICARBONATE_MMOL_L - bicarbonate
    aim = PCO2_MMHG - short.clamp_min(0.0) * COMPENSATION_LOW + (-short).clamp_min(0.0) * COMPENSATION_HIGH
    hypoxia = (0.90 - last_saturation).clamp(0.0, 0.2)
    aim = aim - hypoxia * 40.0 - inflammation * 7.0 - load * 3.0 - obstruction * BLOWN_OFF_MMHG - noise * 1.2
    aim = aim.clamp(11.0, 70.0)
    wanted = metabolism * PCO2_MMHG / aim
    strength = person.breathing_reserve * 4.6 * (1.0 - load * 0.5) * (1.0 - obstruction * WEAKER_EMBOLISM)
    strength = strength * (1.0 - lungs.disuse)
    able = strength * (1.0 - lungs.fatigue * 0.8) * (1.0 - brain * 0.75)
    own = wanted.minimum(able)
    dead_space = load * 0.6 + obstruction * DEAD_SPACE_EMBOLISM + 1.0
    given = ventilation_l_min / (person.weight_kg * 0.085 * dead_space)
    got = (1.0 - machine.on) * own + machine.on * given.maximum(own * 0.5)
    target = metabolism * PCO2_MMHG / got.clamp_min(0.15)
    pco2 = target.clamp(8.0, 170.0)
    pco2 = pco2 + (lungs.pco2 - pco2) * keep
    # breaths: minute volume rises more by depth than by rate; stiff lungs are breathed fast and shallow
    minute = own * dead_space
    spontaneous = minute.sqrt() * (minute * 0.1 + 0.9) * (load * 0.65 + inflammation * 0.35 + 1.0) * 14.5
    breaths = (1.0 - machine.on) * spontaneous + machine.on * machine.breaths

    inspired = oxygen_fraction.clamp(ROOM_AIR, 1.0)
    alveolar = inspired * INSPIRED_MMHG - pco2 * 1.2
    relief = 1.0 - machine.recruited
    mismatch = load * relief * 0.32 + obstruction * MISMATCH_EMBOLISM
    alveolar = ((alveolar - 7.0) * (1.0 - mismatch)).clamp_min(15.0)
    shut = (lungs.consolidation * 0.40 + lungs.water * 0.26 + felt(lungs.injury) * 0.36) * relief
    shunt = (shut + obstruction * SHUNT_EMBOLISM + 0.02).clamp_max(0.6)
    taken = metabolism * 3.5 / (haemoglobin * flow).clamp_min(0.3)  # arteriovenous difference, in saturation
    taken = taken.clamp_max(0.75)
    saturation = (saturation_of(alveolar) - shunt / (1.0 - shunt) * taken).clamp(0.15, 1.0)
    extraction = (taken / saturation).clamp_max(1.0)
    return pco2, Breath(saturation, alveolar, extraction, breaths.clamp(4.0, 60.0), wanted / strength)


def advance_muscles(
    fatigue: Tensor, disuse: Tensor, demand: Tensor, ventilated: Tensor, hours: float
) -> tuple[Tensor, Tensor]:
    """Fatigue and disuse of the breathing muscles [B], `ventilated` 0 or 1.

    Fatigue grows while the demand stays above 0.62 of what fresh muscles can do, and rests away on a ventilator. Disuse
    grows on it, over days (Levine 2008, doi 10.1056/NEJMoa070447 (k)), and goes as the patient breathes again.
    """
    strain = (demand - FATIGUES_ABOVE).clamp(0.0, 0.6) * (1.0 - ventilated)
    change = strain * 0.22 * (1.0 - fatigue) - fatigue * (0.05 + 0.05 * ventilated)
    idle = (DISUSE_MOST - disuse) * (1.0 / DISUSE_H) * ventilated - disuse * (1.0 / DISUSE_HEALS_H) * (1.0 - ventilated)
    return (fatigue + change * hours).clamp(0.0, 1.0), (disuse + idle * hours).clamp(0.0, 1.0)
