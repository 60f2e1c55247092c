"""Blood: red cells and their loss, clotting, heparin, white cells, platelets, albumin, C-reactive protein.

Haemoglobin is a mass with a ledger: units bring 60 g, bleeding takes it at its concentration, marrow and spleen hold
each other in balance (life span 115 days (k)). Clotting factors are one share of normal with 30 h of renewal; INR 1 +
0.3 (1/F - 1); PTT grows as exp(1.65 x heparin in U/mL): 18 U/kg/h come to 0.5 U/mL and 60 to 80 s (k). CRP: made in
step with inflammation after 6 h, half-life 19 h (k). Bleeding follows the open lesion, the pressure and the clotting;
acid suppression and endoscopy close it (k). Anybody may begin to bleed, seldom without heparin: 0.3 % in ten days, and
2 to 4 % on a therapeutic dose (Levine 2001, doi 10.1378/chest.119.1_suppl.108S (k)).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models.oracles.ward.body.fluids import PLASMA_UNIT_L
from world_models.oracles.ward.state import TRACE, Blood, Person

__all__ = ["HAEMOGLOBIN_G_PER_UNIT", "advance_blood", "bleeding_l_h", "inr_of", "opens_per_h", "ptt_of"]

HAEMOGLOBIN_G_PER_UNIT = 60.0
LIFE_SPAN_H = 115.0 * 24.0
PTT_S = 29.0  # normal activated partial thromboplastin time (k)
WHITE_CELLS_H, PLATELETS_H, FACTORS_H, ALBUMIN_H, CRP_DRIVE_H = 9.0, 40.0, 30.0, 60.0, 6.0  # time constants (k)
CRP_PER_H = 0.0365  # half-life 19 h
ACID_HALF_MG, ACID_HALF_LIFE_H = 30.0, 14.0  # of the proton-pump inhibitor's effect (k)
SPONTANEOUS_PER_H, SPONTANEOUS_PER_U_ML = 1.2e-5, 18.0  # bleeding of anybody, and how much more under heparin (k)
HEPARIN_V_L_KG = 0.06
HEPARIN_PER_H = 0.60  # elimination (k)
PLATELETS_PER_UNIT = 170.0  # 10^9, in a unit (k): K/uL in a litre of blood


def inr_of(blood: Blood) -> Tensor:
    """International normalised ratio [B]: 1 + 0.3 (1/F - 1), a little more under heparin."""
    return (1.0 / blood.factors.clamp_min(0.05) - 1.0) * 0.3 + 1.0 + blood.heparin.clamp_max(3.0) * 0.05


def ptt_of(blood: Blood) -> Tensor:
    """Activated partial thromboplastin time [B] in s: exponential in heparin, longer with few clotting factors."""
    thin = (1.0 / blood.factors.clamp_min(0.05) - 1.0) * 0.12 + 1.0
    return (blood.heparin * 1.65).clamp_max(1.9).exp() * thin * PTT_S


def bleeding_l_h(blood: Blood, pressure: Tensor) -> Tensor:
    """Whole blood lost by the open lesion, L/h."""
    poor = (inr_of(blood) - 1.2).clamp(0.0, 4.0) * 0.35 + (90.0 - blood.platelets).clamp_min(0.0) * 0.008
    poor = poor + blood.heparin.clamp_max(3.0) * 1.2
    acid = 1.0 - blood.acid_suppression / (blood.acid_suppression + ACID_HALF_MG) * 0.35
    return blood.lesion * 0.27 * (pressure / 90.0).clamp(0.1, 1.5) * (poor + 1.0) * acid


def opens_per_h(blood: Blood, own_per_h: Tensor) -> Tensor:
    """Hazard [B] an hour that a lesion opens: the own one of a bleeder, and what anybody runs, more so under heparin.

    Endoscopy has treated the own one, and acid suppression lowers both.
    """
    acid = 1.0 - blood.acid_suppression / (blood.acid_suppression + ACID_HALF_MG) * 0.55
    anybody = (blood.heparin.clamp_max(3.0) * SPONTANEOUS_PER_U_ML + 1.0) * SPONTANEOUS_PER_H
    return (own_per_h * (1.0 - blood.lesion_treated * 0.85) + anybody) * acid


def advance_blood(
    now: Blood,
    person: Person,
    plasma_l: Tensor,
    bleed_l_h: Tensor,
    haemoglobin_g_dl: Tensor,
    phagocytes: Tensor,
    damage: Tensor,
    leak: Tensor,
    steroid_mg: Tensor,
    rates: dict[str, Tensor],
    hours: float,
) -> Blood:
    """All of it over `hours` (half an hour). `bleed_l_h` is the mean loss of whole blood in that time."""
    severe = (damage * 0.5).clamp_max(1.2)
    blood_l = plasma_l * 1.7
    lost = bleed_l_h / blood_l  # share an hour

    mass = now.haemoglobin_g
    worn = (person.haemoglobin_g_dl * plasma_l * (17.0 * hours / LIFE_SPAN_H)).double()
    bled = (bleed_l_h * haemoglobin_g_dl * (10.0 * hours)).double()
    born = worn * (1.0 - phagocytes.clamp_max(1.0) * 0.6).double()
    given = (rates["red_cells_units"] * (HAEMOGLOBIN_G_PER_UNIT * hours)).double()
    gain, loss = born + given, worn + bled

    aim = person.white_cells * (1.0 + phagocytes * 2.3 + steroid_mg / (steroid_mg + 100.0) * 0.35)
    white = aim + (now.white_cells - aim) * math.exp(-hours / WHITE_CELLS_H)
    aim = person.platelets * (1.05 - severe * 0.75).clamp_min(0.08)
    platelets = aim + (now.platelets - aim) * math.exp(-hours / PLATELETS_H)
    platelets = (
        platelets * (1.0 - lost * (0.6 * hours)) + rates["platelets_units"] * (hours * PLATELETS_PER_UNIT) / blood_l
    )
    factors = (
        now.factors + ((1.0 - now.factors) / FACTORS_H - now.factors * severe * 0.045 - now.factors * lost) * hours
    )
    factors = factors + rates["plasma_units"] * (hours * PLASMA_UNIT_L) / plasma_l * (1.05 - now.factors)
    settled = rates["heparin_units_kg_h"] / (1000.0 * HEPARIN_V_L_KG * HEPARIN_PER_H)
    settled = settled / person.drug_clearance + TRACE
    heparin = settled + (now.heparin - settled) * (person.drug_clearance * (-hours * HEPARIN_PER_H)).exp()

    aim = person.albumin_g_dl * (1.0 - phagocytes * 0.32 - leak * 0.15)
    albumin = aim + (now.albumin - aim) * math.exp(-hours / ALBUMIN_H)
    albumin = albumin * (1.0 - lost * (0.5 * hours)) + rates["plasma_units"] * hours * 0.9 / (plasma_l * 10.0)
    drive = phagocytes + (now.crp_drive - phagocytes) * math.exp(-hours / CRP_DRIVE_H)
    made = drive * 19.0 + 0.06
    crp = made / CRP_PER_H + (now.crp - made / CRP_PER_H) * math.exp(-hours * CRP_PER_H)

    suppression = (
        now.acid_suppression * math.exp(-hours * math.log(2.0) / ACID_HALF_LIFE_H) + rates["pantoprazole_mg"] * hours
    )
    clot = (1.0 / (1.0 + (inr_of(now) - 1.2).clamp_min(0.0))) * (now.platelets / 100.0).clamp_max(1.0)
    clot = clot / (1.0 + now.heparin.clamp_max(3.0) * 2.0)
    # haemostasis by the endoscopist works within the time of the procedure (1/2 an hour at the bleeding vessel)
    scoped = rates["endoscopy"].clamp_max(2.0)
    shut = 0.075 * clot * (1.0 + suppression / (suppression + ACID_HALF_MG)) + scoped * 2.4
    lesion = now.lesion * (shut * -hours).exp()
    treated = now.lesion_treated + (1.0 - now.lesion_treated) * (scoped * hours).clamp_max(1.0) * 0.85
    return Blood(
        haemoglobin_g=mass + (gain - loss),
        haemoglobin_in=now.haemoglobin_in + gain,
        haemoglobin_out=now.haemoglobin_out + loss,
        white_cells=white,
        platelets=platelets.clamp(2.0, 1500.0),
        factors=factors.clamp(0.04, 1.3),
        heparin=heparin,
        albumin=albumin.clamp(0.8, 6.0),
        crp=crp,
        crp_drive=drive,
        lesion=torch.where(lesion < 0.01, 0.0, lesion),
        lesion_treated=treated,
        acid_suppression=suppression,
    )
