"""The body at admission: what each disease has done by then, growing with its severity.

Typical deficits: diabetic ketoacidosis 5 to 8 L of water, 7 to 10 mmol/kg sodium, 3 to 5 mmol/kg potassium (k); heart
failure 3 to 7 L of excess extracellular water; gastrointestinal bleeding 10 to 35 % of the red cells; acute kidney
injury half to nine tenths of the nephrons, for days; sepsis and pneumonia a load and an inflammation of a day. The state
is then run for an hour without orders (`ward.WardOracle.initial`), so that fast signals agree with the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ward.body.circulation import HAEMOGLOBIN_G_PER_L_CELLS
from world_models.oracles.ward.body.electrolytes import CELL_DEFICIT_MMOL, CELL_EXCESS_MMOL, potassium_shift
from world_models.oracles.ward.body.respiration import NORMAL_ANIONS
from world_models.oracles.ward.state import (
    Blood,
    Circulation,
    Fluids,
    Infection,
    Kidney,
    Lungs,
    Metabolism,
    Noise,
    Organs,
    Person,
    Salts,
    Signals,
    StayStatus,
)

__all__ = ["anions", "arrive"]

Body = tuple[
    Fluids, Salts, Circulation, Lungs, Metabolism, Infection, Kidney, Blood, Organs, StayStatus, Noise, Signals
]


def anions(albumin: Tensor, lactate: Tensor, ketones: Tensor, phosphate: Tensor, urea: Tensor) -> Tensor:
    """Anions in mmol/L beyond chloride and bicarbonate: albumin, lactate, ketones, phosphate, and those of uraemia."""
    fixed = albumin * 2.45 + NORMAL_ANIONS - 0.9
    return fixed + lactate + ketones * 1.25 + phosphate * 0.55 - 1.9 + (urea - 14.0).clamp(0.0, 180.0) * 0.045


def arrive(key: Tensor, person: Person) -> Body:
    """The state of every organ at admission, for people of `cohorts.sample_person`."""
    d, s = person.disease, person.severity
    one = torch.ones_like(s)
    zero = torch.zeros_like(s)

    def has(index: int) -> Tensor:
        return (d == float(index)).to(torch.float32)

    def vary(name: str, sd: float) -> Tensor:
        return (keys.normal(key, 0, f"ward/arrive/{name}").clamp(-2.5, 2.5) * sd).exp()

    sepsis, pneumonia, dka, failure, bleed, injury = (has(i) for i in range(6))
    infected = (person.organism > 0).to(torch.float32)

    # inflammation and infection
    ill = infected * (0.22 + 0.48 * s * vary("inflammation", 0.15))
    phagocytes = (ill + (1.0 - infected) * (0.04 + 0.06 * s + injury * 0.06)).clamp_max(1.0)
    pathogen = infected * (1.3 + 5.0 * s) * vary("load", 0.3)
    damage = infected * (0.15 + 1.1 * s * s) + (1.0 - infected) * (0.02 + 0.05 * s + injury * (0.30 + 1.10 * s * s))
    anti = 0.125 + infected * (0.15 + 0.12 * s)
    infection = Infection(pathogen, phagocytes, damage, anti, zero, zero, zero, zero)

    # water
    short = (
        dka * (0.10 + 0.14 * s)
        + sepsis * (0.03 + 0.06 * s)
        + pneumonia * (0.02 + 0.04 * s)
        + injury * (0.06 - 0.10 * s)
    )
    extra = failure * (0.16 + 0.16 * s) * vary("congestion", 0.15)
    outside = person.extracellular_l * (1.0 - short + extra)
    inside = person.cell_l * (1.0 - dka * (0.04 + 0.06 * s))
    # excess collects in the interstitium first, deficits are shared
    plasma = person.plasma_l * (1.0 - short * 0.8 + extra * 0.55 - bleed * (0.02 + 0.12 * s))
    interstitial = outside - plasma
    wide = torch.float64
    nil = torch.zeros_like(s, dtype=wide)
    fluids = Fluids(plasma.to(wide), interstitial.to(wide), inside.to(wide), nil, nil, nil)
    outside = (fluids.plasma_l + fluids.interstitial_l).to(torch.float32)

    # metabolism
    glucose = 5.3 + 1.2 * person.diabetes * vary("glucose", 0.4) + phagocytes * 2.0
    glucose = glucose + dka * (15.0 + 16.0 * s) * vary("hyperglycaemia", 0.15)
    ketones = 0.12 + dka * (6.0 + 8.0 * s)
    lactate = (
        1.0 + infected * (0.5 + 4.0 * s * s) + bleed * (0.3 + 2.2 * s * s) + failure * 1.2 * s * s + dka * (0.6 + s)
    )
    heat = 36.8 + phagocytes / (phagocytes + 0.35) * 3.0
    insulin = (1.0 - dka) * 9.0 + dka * 2.5
    metabolism = Metabolism(
        glucose * outside, insulin, insulin, ketones, lactate, heat, zero, dka * (ketones * 0.66 + 2.2)
    )

    # kidneys
    tubules = (injury * (0.68 + 0.29 * s) + infected * 0.22 * s * s + 0.05 * s).clamp(0.0, 0.965)
    usual_creatinine = person.creatinine_mg_h / (person.gfr_ml_min * 0.6)
    usual_urea = person.urea_mg_h / (person.gfr_ml_min * 0.30)
    worse = 1.0 + infected * 0.7 * s + dka * 0.6 * s + failure * 0.35 + bleed * 0.15 + injury * (1.4 + 2.6 * s)
    more = 1.0 + infected * 0.8 * s + dka * 0.8 + failure * 0.7 + bleed * (1.0 + 0.8 * s) + injury * (1.6 + 1.8 * s)
    creatinine = (usual_creatinine * worse * vary("creatinine", 0.12)).clamp(0.3, 14.0)
    urea = (usual_urea * more * vary("urea", 0.15)).clamp(4.0, 180.0)
    kidney = Kidney(tubules, creatinine, urea, zero, zero)

    # blood
    lost = bleed * (0.10 + 0.26 * s) * vary("loss", 0.15)
    normal_cells = person.haemoglobin_g_dl * 10.0 / HAEMOGLOBIN_G_PER_L_CELLS
    blood_l = person.plasma_l / (1.0 - normal_cells)
    mass = (blood_l * person.haemoglobin_g_dl * 10.0 * (1.0 - lost)).to(wide)
    albumin = person.albumin_g_dl * (1.0 - phagocytes * 0.15 - failure * 0.06 - bleed * 0.08 * s)
    factors = (1.0 - damage * 0.12 - bleed * (0.08 + 0.14 * s)).clamp(0.3, 1.1) * vary("factors", 0.06)
    crp = 2.0 + phagocytes * 230.0 * vary("crp", 0.35)
    white = person.white_cells * (1.0 + phagocytes * 2.0 + dka * 0.5)
    platelets = person.platelets * (1.0 - damage * 0.15 - bleed * 0.1)
    lesion = bleed * (0.25 + 0.75 * s)
    blood = Blood(
        mass, nil, nil, white, platelets, factors, zero, albumin, crp, phagocytes, lesion.clamp_max(1.0), zero, zero
    )

    # salts: sodium a little low in hyperglycaemia, chloride what bicarbonate leaves
    sodium = 139.6 + 1.6 * keys.normal(key, 0, "ward/arrive/sodium").clamp(-2.5, 2.5)
    sodium = sodium - dka * (glucose - 8.0).clamp_min(0.0) * 0.27 - failure * (2.0 + 2.5 * s) - injury * 2.0
    potassium = 4.15 * vary("potassium", 0.06) + dka * 0.9 + injury * (0.7 + 2.2 * s) - failure * 0.1
    phosphate = 3.4 + dka * 0.8 + injury * (1.0 + 1.8 * s) + (usual_creatinine - 1.0).clamp(0.0, 4.0) * 0.3
    charge = anions(albumin, lactate, ketones, phosphate, urea)
    usual_charge = anions(person.albumin_g_dl, one, one * 0.12, one * 3.4, usual_urea)
    usual_bicarbonate = 24.8 - (usual_creatinine - 1.4).clamp(0.0, 3.0) * 1.2
    bicarbonate = usual_bicarbonate - (charge - usual_charge) * 0.85 - injury * (1.0 + 2.5 * s)
    bicarbonate = bicarbonate.clamp(4.0, 34.0)
    chloride = sodium + potassium - charge - bicarbonate
    wide_out = outside.to(wide)
    cell_0 = person.cell_l * 142.0
    osmolality = sodium * 2.0 + glucose
    # the cells' content that goes with this potassium, acidity, tonicity and lack of insulin
    winter = 40.0 - (24.0 - bicarbonate).clamp(0.0, 20.0) * 1.2 - phagocytes * 5.0
    ph = (bicarbonate / (winter.clamp(14.0, 45.0) * 0.0307)).log() * 0.4342945 + 6.1
    content = (potassium / 4.2).log() - potassium_shift(insulin, ph, osmolality)
    cell_k = cell_0 + content.clamp_min(0.0) * CELL_EXCESS_MMOL + content.clamp_max(0.0) * CELL_DEFICIT_MMOL
    salts = Salts(
        sodium=sodium.to(wide) * wide_out,
        sodium_in=nil,
        sodium_out=nil,
        potassium=potassium.to(wide) * wide_out,
        cell_potassium=cell_k.to(wide),
        potassium_in=nil,
        potassium_out=nil,
        chloride=chloride.to(wide) * wide_out,
        chloride_shift=(bicarbonate - 24.0) * 4.0,
        cell_osmoles=osmolality * inside,
        cell_potassium_0=cell_0,
        recent_uptake=zero,
        magnesium_mg_dl=2.0 * vary("magnesium", 0.08) - dka * 0.15 - failure * 0.1,
        phosphate_mg_dl=phosphate,
        free_calcium_mg_dl=6.2 - phagocytes * 0.5 - injury * 0.4,
    )

    # heart, lungs, mind
    rate = person.heart_rate_bpm + phagocytes * 35.0 + dka * 25.0 + bleed * (12.0 + 25.0 * s) + failure * 14.0
    circulation = Circulation(rate, zero + 0.25, zero, zero, zero, zero)
    lungs = Lungs(
        pco2=winter.clamp(14.0, 45.0),
        water=failure * (0.35 + 0.75 * s),
        consolidation=(person.lung_site * (0.16 + 0.62 * s) * vary("lung", 0.2)).clamp_max(0.95),
        fatigue=pneumonia * 0.1 * s + failure * 0.1 * s,
    )
    fog = phagocytes * 0.16 + dka * 0.12 * s + injury * 0.05 * s
    troponin = 8.0 + failure * (20.0 + 30.0 * s) + infected * 20.0 * s + bleed * 8.0 * s
    bnp = 35.0 + failure * (500.0 + 700.0 * s) * vary("bnp", 0.3) + infected * 80.0 * s
    alt = 22.0 * vary("alt", 0.3) + failure * 25.0 * s + infected * 30.0 * s * s
    organs = Organs(troponin, bnp, alt, 0.6 * vary("bilirubin", 0.25) + damage * 0.6, fog, zero)
    course = StayStatus(zero, zero, one, zero)
    noise = Noise(*(keys.normal(key, 0, "ward/arrive/noise", (5,)).clamp(-3.0, 3.0).T.contiguous().unbind(0)))
    signals = Signals(
        map=person.map_mmhg * (1.0 - 0.15 * s),
        flow=one,
        filling=one,
        stroke=one,
        wedge=one * 8.0,
        saturation=one * 0.93,
        alveolar_po2=one * 90.0,
        extraction=one * 0.27,
        breaths=one * 18.0,
        demand=one * 0.25,
        bicarbonate=bicarbonate,
        ph=one * 7.4,
        gfr=person.gfr_ml_min * (1.0 - tubules),
        volume_sense=one,
        urine_l_h=one * 0.06,
        bleed_l_h=zero,
        haemoglobin=person.haemoglobin_g_dl,
    )
    return fluids, salts, circulation, lungs, metabolism, infection, kidney, blood, organs, course, noise, signals
