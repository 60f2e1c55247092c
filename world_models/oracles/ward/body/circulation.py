"""Heart and vessels: filling, stroke volume, resistance, baroreflex, and the drugs that act on them.

Filling is the stressed blood volume (a Guyton view: total less what the veins hold without pressure, which vasodilation
enlarges and tone and pressors shrink). Stroke volume saturates in filling, falls with afterload (the more the weaker
the heart), and pressure = venous pressure + flow x resistance. The baroreflex has 5 to 10 minutes.

Norepinephrine acts on log resistance by an Emax law of the effect-site rate. Its half-life grows with severity from 2
to 6.8 min (Beloeil 2005, doi 10.1093/bja/aei259), its effect falls with acidosis and with organ damage (Oualha 2014,
PMC4239982: largest rise 32 mmHg with up to three failing organs, 12 with more).

Pressure in the airway holds blood back from the chest, the more the emptier the veins: some 7 % of the output at a PEEP
of 5 cmH2O, a fifth at 15 (k). Emboli that obstruct more than a quarter of the lung's arteries hold it back from the
left heart (McIntyre & Sasahara 1971: mean pulmonary pressure rises from there (k)); how much is (assumed).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from world_models.oracles.ward.body.normal import TEMPERATURE_C
from world_models.oracles.ward.state import TRACE, Circulation, Person

__all__ = ["Beat", "advance_circulation", "advance_steroid_and_blocker", "vasoplegia_of"]

REFERENCE_VENOUS = 4.0  # mmHg, of a normally filled patient
NOREPINEPHRINE_HALF = 0.25  # ug/kg/min at the effect site, of half the effect (k)
VASOPRESSIN_HALF = 0.03  # U/min (k)
VASOPRESSIN_HALF_LIFE_MIN = 10.0  # (k)
STEROID_HALF_MG = 60.0  # hydrocortisone on board, of half its effect on vessels (k)
METOPROLOL_HALF_MG = 8.0  # (k)
STEROID_HALF_LIFE_H, METOPROLOL_HALF_LIFE_H = 8.0, 3.5  # of the effect, and in plasma (k)
REFLEX_MMHG = 20.0  # error of pressure at which the baroreflex is half spent (k)
TONE_STEP, RATE_STEP, PRESSURE_STEP = 0.4, 0.5, 0.6  # share of the way that reflex, rate and pressure go in 5 minutes
STRESSED = 0.30  # share of the normal blood volume
HAEMOGLOBIN_G_PER_L_CELLS = 335.0
HELD_PER_CMH2O = 0.009  # share of the flow that a cmH2O of mean airway pressure holds back, well filled (k)
OBSTRUCTED_FROM, HELD_BY_EMBOLI = 0.25, 1.5  # share of the bed from which emboli cost flow; share of it lost (assumed)


class Beat(NamedTuple):
    """What the circulation tells the other organs, [B] each."""

    map: Tensor
    flow: Tensor
    filling: Tensor
    stroke: Tensor
    wedge: Tensor
    vasoplegia: Tensor


def vasoplegia_of(phagocytes: Tensor, damage: Tensor, steroid_mg: Tensor) -> Tensor:
    """Loss of log resistance by inflammation; hydrocortisone gives back up to a quarter."""
    square = phagocytes * phagocytes
    raw = square / (square + 0.25) * 1.05 + damage * 0.10
    return raw * (1.0 - steroid_mg / (steroid_mg + STEROID_HALF_MG) * 0.25)


def advance_circulation(
    now: Circulation,
    person: Person,
    blood_l: Tensor,
    haematocrit: Tensor,
    last_map: Tensor,
    vasoplegia: Tensor,
    phagocytes: Tensor,
    damage: Tensor,
    temperature: Tensor,
    saturation: Tensor,
    ph: Tensor,
    norepinephrine: Tensor,
    vasopressin: Tensor,
    mean_airway_cmh2o: Tensor,
    obstruction: Tensor,
    noise_vessels: Tensor,
    noise_heart: Tensor,
    hours: float,
) -> tuple[Circulation, Beat]:
    """Five minutes of the circulation. Drugs in their orders' units; noises have unit variance.

    Args:
        mean_airway_cmh2o: of a ventilator, 0 without one.
        obstruction: share of the pulmonary bed behind emboli.
    """
    severe = (damage / 2.0).clamp_max(1.0)
    # half-life 2 .. 6.8 min: 60 ln 2 / half-life per hour
    loss = (severe * 4.6 + 2.05).reciprocal() * (60.0 * math.log(2.0))
    norepi = norepinephrine + TRACE + (now.norepinephrine - norepinephrine) * (loss * -hours).exp()
    vaso = (
        vasopressin
        + TRACE
        + (now.vasopressin - vasopressin) * math.exp(-hours * 60.0 * math.log(2.0) / VASOPRESSIN_HALF_LIFE_MIN)
    )

    acidosis = (7.25 - ph).clamp(0.0, 0.4)
    resist = (1.0 + severe * 1.2 + acidosis * 4.0) / (
        person.pressor_response * (1.0 + now.steroid / (now.steroid + STEROID_HALF_MG) * 0.4)
    )
    squeeze = norepi / (norepi + resist * NOREPINEPHRINE_HALF)  # 0..1
    hold = vaso / (vaso + VASOPRESSIN_HALF)
    constrict = squeeze * 1.85 * (1.0 - severe * 0.48) + hold * 0.48 * (1.0 - severe * 0.4)

    miss = (person.map_mmhg - last_map) / REFLEX_MMHG
    tone_aim = miss / (miss.abs() + 1.0)
    tone = now.tone + (tone_aim - now.tone) * TONE_STEP

    normal_blood = person.plasma_l / (1.0 - person.haemoglobin_g_dl * (10.0 / HAEMOGLOBIN_G_PER_L_CELLS))
    slack = (
        1.0
        - (1.0 - person.contractility).clamp(0.0, 0.7) * 0.20
        + vasoplegia * 0.10
        - tone * 0.14
        - (squeeze + hold * 0.3) * 0.10
    )
    filling = (blood_l - normal_blood * (1.0 - STRESSED) * slack) / (normal_blood * STRESSED)
    filling = filling.clamp(0.03, 3.0)

    blocked = now.metoprolol / (now.metoprolol + METOPROLOL_HALF_MG)
    depressed = (phagocytes * 0.35 + severe * 0.2).clamp_max(0.55)
    pump = person.contractility * (1.0 + tone * 0.18 + squeeze * 0.15) * (1.0 - depressed) * (1.0 - blocked * 0.22)
    pump = pump * (1.0 - acidosis * 1.2) * (1.0 - (0.75 - saturation).clamp(0.0, 0.5))

    heat = (temperature - TEMPERATURE_C).clamp(-2.0, 4.0)
    thin = (0.27 - haematocrit).clamp_min(0.0)
    hypoxia = (0.90 - saturation).clamp(0.0, 0.3)
    rate_aim = person.heart_rate_bpm + tone.clamp_min(0.0) * 48.0 + tone.clamp_max(0.0) * 20.0
    rate_aim = rate_aim + heat * 8.5 + thin * 120.0 + hypoxia * 120.0 + phagocytes * 12.0 + squeeze * 4.0
    rate_aim = (rate_aim + noise_heart * 3.5) * (1.0 - blocked * 0.52)
    rate = now.heart_rate + (rate_aim.clamp(34.0, 180.0) - now.heart_rate) * RATE_STEP

    viscosity = (haematocrit - 0.40) * 0.6
    held = (1.0 - person.contractility).clamp(0.0, 0.7) * 0.42  # the failing heart's lasting constriction
    log_resistance = held + tone * 0.42 + constrict - vasoplegia + viscosity - heat * 0.03 + noise_vessels * 0.035
    resistance = log_resistance.clamp(-1.8, 1.8).exp()
    weak = (1.0 - person.contractility * (1.0 - depressed)).clamp_min(0.0)
    after = (1.0 + (resistance - 1.0) * (weak * 0.5 + 0.10)).clamp_min(0.6)
    stroke = filling / (filling + 0.5) * 1.5 * pump / after
    empty = (2.0 - filling).clamp(0.6, 1.7)
    pressed = 1.0 - (mean_airway_cmh2o * empty * HELD_PER_CMH2O).clamp_max(0.6)
    through = 1.0 - (obstruction - OBSTRUCTED_FROM).clamp_min(0.0) * HELD_BY_EMBOLI
    pressed = pressed * through
    fast = (rate - 140.0).clamp_min(0.0) / 90.0 + 1.0
    flow = (stroke * rate / person.heart_rate_bpm * pressed / fast).clamp(0.05, 3.5)

    venous = filling * REFERENCE_VENOUS
    pressure = (venous + (person.map_mmhg - REFERENCE_VENOUS) * flow * resistance).clamp(8.0, 200.0)
    wedge = filling * through * 8.5 / (pump * (1.0 + blocked * 0.1)).clamp_min(0.2)
    # the pressure itself settles within the step, but only half way: the reflex is read from it
    pressure = last_map + (pressure - last_map) * PRESSURE_STEP
    beat = Beat(pressure, flow, filling, stroke, wedge.clamp_max(60.0), vasoplegia)
    return now._replace(heart_rate=rate, tone=tone, norepinephrine=norepi, vasopressin=vaso), beat


def advance_steroid_and_blocker(
    now: Circulation, person: Person, hydrocortisone_mg_h: Tensor, metoprolol_mg_h: Tensor, hours: float
) -> Circulation:
    """Drugs with half-lives of hours: hydrocortisone's effect 8 h, metoprolol 3.5 h (k)."""
    steroid = now.steroid * math.exp(-hours * math.log(2.0) / STEROID_HALF_LIFE_H) + hydrocortisone_mg_h * hours
    rate = person.drug_clearance * (math.log(2.0) / METOPROLOL_HALF_LIFE_H)
    blocker = now.metoprolol * (rate * -hours).exp() + metoprolol_mg_h * hours + TRACE
    return now._replace(steroid=steroid, metoprolol=blocker)
