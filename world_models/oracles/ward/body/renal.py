"""Kidneys: filtration, what is excreted of salt and water, furosemide, injury of the tubules, creatinine and urea.

Filtration is autoregulated down to about two thirds of the own normal pressure, falls with flow and with lost nephrons.
Sodium follows the effective arterial filling (so a failing heart retains it), water follows the osmoles to be carried
and the vasopressin that tonicity and filling call for. Creatinine: V dCr/dt = G - CL Cr (Chen 2013, JASN 24:877); urea
likewise, with a clearance that falls from 0.5 of filtration when the kidney is avid.

Furosemide: clearance 4.6 mL/min/kg, two thirds of it renal, volume 0.15 L/kg (k); its effect follows an Emax law of the
amount at the tubule, up to a quarter of the filtered sodium (k).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.oracles.ward.body.normal import (
    BICARBONATE_MMOL_L,
    L_H_PER_ML_MIN,
    PER_80_KG,
    POTASSIUM_MMOL_L,
    SODIUM_MMOL_L,
)
from world_models.oracles.ward.state import TRACE, Kidney, Person
from world_models.rounding import expit

__all__ = ["Urine", "advance_kidney", "excrete", "filtration", "usual_creatinine", "usual_urea"]

FUROSEMIDE_CL_L_H_KG = 4.6 * 0.06
FUROSEMIDE_V_L_KG = 0.15
INTAKE_SODIUM_MMOL_H = 4.4  # of the ward's diet, for 80 kg
INTAKE_POTASSIUM_MMOL_H = 2.9
KETONE_EXCRETION = 0.13  # share of the filtered ketones
ACID_MMOL_H = 1.6  # fixed acid of metabolism that stays outside cells, for 80 kg


# what follows: (k), tuned by `benchmarks.ward.probes`
FUROSEMIDE_HALF_MG = 9.0  # at the tubule, of half the effect
LOOP_SHARE = 0.25  # of the filtered sodium that furosemide can drive out
FUROSEMIDE_SITE_H = 1.1  # time constant from plasma to tubule
GLUCOSE_THRESHOLD_MMOL_L = 11.5  # above it glucose spills
UNCONCENTRATED_MOSM_L = 330.0  # of urine that the kidney neither dilutes nor concentrates
CONCENTRATES_MOSM_L, DILUTES_MOSM_L = 620.0, 260.0  # how far a healthy kidney goes above and below that
BLOOD_UREA_MG_PER_L = 5500.0  # urea nitrogen made of each litre that bleeds into the gut
STEROID_HALF_MG = 100.0  # of half the catabolism
VANCOMYCIN_TOXIC_MG_L = 22.0  # above it vancomycin injures tubules
DRUG_GFR_ML_MIN = 110.0  # filtration at which drugs' clearances are stated
MOST_URINE_L_H = 2.4
MAX_INJURY = 0.97  # of the nephrons
DL_H_PER_ML_MIN = 0.6  # a clearance in mL/min as dL/h
UREA_CLEARANCE = 0.5  # of urea over filtration, in those who are not avid for water (k)


def usual_creatinine(person: Person) -> Tensor:
    """Creatinine [B] in mg/dL at which the own normal kidneys excrete what is made."""
    return person.creatinine_mg_h / (person.gfr_ml_min * DL_H_PER_ML_MIN)


def usual_urea(person: Person) -> Tensor:
    """Urea nitrogen [B] in mg/dL, likewise."""
    return person.urea_mg_h / (person.gfr_ml_min * (DL_H_PER_ML_MIN * UREA_CLEARANCE))


class Urine(NamedTuple):
    """What leaves by the kidneys an hour: litres and millimoles, [B] each."""

    water_l: Tensor
    sodium: Tensor
    potassium: Tensor
    chloride: Tensor
    glucose: Tensor


def filtration(person: Person, tubular_injury: Tensor, pressure: Tensor, flow: Tensor, filling: Tensor) -> Tensor:
    """Glomerular filtration rate in mL/min."""
    driven = expit((pressure / person.map_mmhg - 0.66) * 13.0)
    fed = (flow * 0.8 + 0.2).clamp_max(1.0)
    congested = 1.0 - ((filling - 1.3) * 0.14).clamp(0.0, 0.3)
    return person.gfr_ml_min * driven * fed * congested * (1.0 - tubular_injury)


def excrete(
    kidney: Kidney,
    person: Person,
    gfr: Tensor,
    volume_sense: Tensor,
    sodium: Tensor,
    potassium: Tensor,
    bicarbonate: Tensor,
    glucose: Tensor,
    ketones: Tensor,
) -> Urine:
    """Excretion an hour, from concentrations in mmol/L. `volume_sense` is the effective arterial filling, 1 normal."""
    size = person.weight_kg * PER_80_KG
    share = gfr / person.gfr_ml_min
    litres = gfr * L_H_PER_ML_MIN
    filtered = litres * sodium
    avid = 1.0 - volume_sense
    resting = size * INTAKE_SODIUM_MMOL_H * (share * 1.1).clamp_max(1.0)
    held = resting * (avid.clamp(-0.5, 0.6) * -7.0).exp() * ((sodium - SODIUM_MMOL_L) * 0.04).clamp(-0.4, 0.6).exp()
    held = held.minimum(filtered * 0.06)
    site = kidney.furosemide_site
    loop = (
        site
        / (site + FUROSEMIDE_HALF_MG)
        * LOOP_SHARE
        * person.diuretic_response
        * filtered
        * (1.0 - avid.clamp(0.0, 0.8) * 0.6)
    )
    out_sodium = held + loop

    push = ((potassium - POTASSIUM_MMOL_L) * 0.75).clamp(-3.0, 3.0).exp()
    aldosterone = avid.clamp(-0.3, 0.5) * 0.5 + 1.0
    out_potassium = (
        size * INTAKE_POTASSIUM_MMOL_H * push * aldosterone * (share * 0.7 + 0.3) * (share * 3.0).clamp_max(1.0)
    )
    out_potassium = (out_potassium + loop * 0.045 * (potassium * 0.25)).minimum(litres * potassium * 1.5)

    spilled = (glucose - GLUCOSE_THRESHOLD_MMOL_L).clamp_min(0.0) * litres
    out_sodium = (out_sodium + spilled * 0.28).minimum(filtered * 0.35)  # dragged along by the glucose
    out_potassium = out_potassium + spilled * 0.045 * (potassium * 0.25)
    size_acid = size * ACID_MMOL_H
    acid = size_acid * (share * 2.5).clamp_max(1.0)
    acid = acid + size * share * (
        (BICARBONATE_MMOL_L - bicarbonate).clamp(0.0, 12.0) * 0.36 - (bicarbonate - 26.5).clamp(0.0, 20.0) * 1.6
    )
    # fixed acid that is made but not excreted stays as chloride: what is made less what leaves with ammonium
    # ketones in the urine take the place of chloride: they leave with sodium, and bicarbonate with them
    out_chloride = out_sodium + out_potassium + acid - size_acid - litres * ketones * (KETONE_EXCRETION * 1.25)

    urea = kidney.urea * 0.357 * litres * 0.5  # mg/dL of nitrogen -> mmol/L
    osmoles = (out_sodium + out_potassium) * 2.0 + urea + spilled + size * 7.0
    forced = (loop * 2.0 + spilled) / osmoles
    healthy = (1.0 - kidney.tubular_injury) * (share * 0.5 + 0.5).clamp_max(1.0)
    strongest = healthy * CONCENTRATES_MOSM_L + UNCONCENTRATED_MOSM_L
    want = expit((sodium - 138.6) * 0.75 + avid.clamp(-0.5, 0.8) * 6.0)
    weakest = UNCONCENTRATED_MOSM_L - healthy * DILUTES_MOSM_L
    dense = weakest + (strongest - weakest) * want
    dense = dense + (UNCONCENTRATED_MOSM_L - dense) * forced
    water = (osmoles / dense).minimum(litres * (share * 0.4 + 0.08)).clamp_max(MOST_URINE_L_H)
    return Urine(water, out_sodium, out_potassium, out_chloride, spilled)


def advance_kidney(
    kidney: Kidney,
    person: Person,
    gfr: Tensor,
    volume_sense: Tensor,
    pressure: Tensor,
    phagocytes: Tensor,
    damage: Tensor,
    vancomycin: Tensor,
    flow: Tensor,
    bleed_l_h: Tensor,
    steroid_mg: Tensor,
    furosemide_mg_h: Tensor,
    dialysis_l_h: Tensor,
    body_water_l: Tensor,
    hours: float,
) -> Kidney:
    """The slow half of the kidney: injury and repair of tubules, creatinine, urea, furosemide, over `hours`."""
    low = (person.map_mmhg * 0.70 - pressure).clamp(0.0, 30.0) / 20.0
    starved = (0.55 - flow).clamp(0.0, 0.5)
    septic = phagocytes * phagocytes * 0.035 + damage * 0.006
    toxic = (vancomycin - VANCOMYCIN_TOXIC_MG_L).clamp(0.0, 60.0) * 0.0007
    hit = low * 0.05 + starved * 0.08 + septic + toxic
    injury = kidney.tubular_injury
    injury = injury + (hit * (MAX_INJURY - injury) - injury / person.tubular_recovery_h) * hours

    decilitres = body_water_l * 10.0
    litres = gfr * L_H_PER_ML_MIN
    rate = (litres + dialysis_l_h + 0.04) / body_water_l  # a little creatinine leaves by the gut
    settled = person.creatinine_mg_h / decilitres / rate
    creatinine = settled + (kidney.creatinine - settled) * (rate * -hours).exp()

    passed = (volume_sense * 0.6 + 0.4).clamp(0.55, 1.0) * 0.5
    rate = (litres * passed + dialysis_l_h + 0.03) / body_water_l
    made = (
        person.urea_mg_h * (1.0 + phagocytes * 0.8 + steroid_mg / (steroid_mg + STEROID_HALF_MG) * 0.5)
        + bleed_l_h * BLOOD_UREA_MG_PER_L
    )
    settled = made / decilitres / rate
    urea = settled + (kidney.urea - settled) * (rate * -hours).exp()

    clear = FUROSEMIDE_CL_L_H_KG / FUROSEMIDE_V_L_KG * person.drug_clearance * (gfr / DRUG_GFR_ML_MIN * 0.65 + 0.35)
    fade = (clear * -hours).exp()
    given = furosemide_mg_h / clear + TRACE
    furosemide = given + (kidney.furosemide - given) * fade
    secreted = furosemide * (gfr / DRUG_GFR_ML_MIN * 0.7 + 0.3).clamp_max(1.2)
    site = kidney.furosemide_site + (secreted - kidney.furosemide_site) * (
        1.0 - 2.718281828 ** (-hours / FUROSEMIDE_SITE_H)
    )
    return Kidney(injury.clamp(0.0, MAX_INJURY), creatinine, urea, furosemide, site)
