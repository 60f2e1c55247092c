"""The body at admission: what each disease has done by then, growing with its severity.

Typical deficits: diabetic ketoacidosis 5 to 8 L of water, 7 to 10 mmol/kg sodium, 3 to 5 mmol/kg potassium (k); heart
failure 3 to 7 L of excess extracellular water; gastrointestinal bleeding 10 to 35 % of the red cells; acute kidney
injury half to nine tenths of the nephrons, for days; sepsis and pneumonia a load and an inflammation of a day. The
state is then run for an hour without orders (`world.WardOracle.initial`), so that fast signals agree with the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ward.body.circulation import HAEMOGLOBIN_G_PER_L_CELLS
from world_models.oracles.ward.body.electrolytes import (
    BUFFERED_MMOL,
    CELL_DEFICIT_MMOL,
    CELL_EXCESS_MMOL,
    potassium_shift,
)
from world_models.oracles.ward.body.normal import BICARBONATE_MMOL_L, FREE_CALCIUM_MG_DL, POTASSIUM_MMOL_L
from world_models.oracles.ward.body.renal import usual_creatinine, usual_urea
from world_models.oracles.ward.body.respiration import COMPENSATION_LOW, NORMAL_ANIONS, PCO2_MMHG, henderson_hasselbalch
from world_models.oracles.ward.state import (
    Blood,
    Circulation,
    Clots,
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
from world_models.quantities.ward import DISEASES

__all__ = ["anions", "arrive"]

Body = tuple[
    Fluids, Salts, Circulation, Lungs, Metabolism, Infection, Kidney, Blood, Clots, Organs, StayStatus, Noise, Signals
]


_POOL = torch.float64  # of what obeys a balance
CELL_POTASSIUM_MMOL_L = 142.0  # of cell water (k)


def anions(albumin: Tensor, lactate: Tensor, ketones: Tensor, phosphate: Tensor, urea: Tensor) -> Tensor:
    """Anions in mmol/L beyond chloride and bicarbonate: albumin, lactate, ketones, phosphate, and those of uraemia."""
    fixed = albumin * 2.45 + NORMAL_ANIONS - 0.9
    return fixed + lactate + ketones * 1.25 + phosphate * 0.55 - 1.9 + (urea - 14.0).clamp(0.0, 180.0) * 0.045


class _Arrivals(NamedTuple):
    """B patients at admission: what brought them, [B] float32 each (0 or 1), and how severe it is (0..1)."""

    key: Tensor
    severity: Tensor
    infected: Tensor
    sepsis: Tensor
    pneumonia: Tensor
    dka: Tensor
    failure: Tensor
    bleed: Tensor
    injury: Tensor

    @classmethod
    def of(cls, key: Tensor, person: Person) -> _Arrivals:
        """From the hidden person, in the order of DISEASES."""
        kinds = [(person.disease == float(i)).to(torch.float32) for i in range(len(DISEASES))]
        return cls(key, person.severity, (person.organism > 0).to(torch.float32), *kinds)

    def vary(self, name: str, sd: float) -> Tensor:
        """A log-normal factor [B] of this log SD, cut at 2.5 SD."""
        return (keys.normal(self.key, 0, f"ward/arrive/{name}").clamp(-2.5, 2.5) * sd).exp()


def arrive(key: Tensor, person: Person) -> Body:
    """The state of every organ at admission, for people of `cohorts.sample_person`."""
    why = _Arrivals.of(key, person)
    infection = _infection(why)
    fluids = _fluids(why, person)
    outside = (fluids.plasma_l + fluids.interstitial_l).to(torch.float32)
    glucose, metabolism = _metabolism(why, person, infection.phagocytes, outside)
    kidney = _kidney(why, person)
    blood = _blood(why, person, infection)
    salts, bicarbonate, pco2 = _salts(why, person, infection, fluids, outside, glucose, metabolism, kidney, blood)
    zero, one = torch.zeros_like(why.severity), torch.ones_like(why.severity)
    heart_rate = person.heart_rate_bpm + infection.phagocytes * 35.0 + why.dka * 25.0
    heart_rate = heart_rate + why.bleed * (12.0 + 25.0 * why.severity) + why.failure * 14.0
    noise = keys.normal(key, 0, "ward/arrive/noise", (len(Noise._fields),)).clamp(-3.0, 3.0)
    return (
        fluids,
        salts,
        Circulation(heart_rate, zero + 0.25, zero, zero, zero, zero),
        _lungs(why, person, pco2),
        metabolism,
        infection,
        kidney,
        blood,
        Clots(zero, zero),
        _organs(why, infection),
        StayStatus(zero, one, zero, zero, zero),
        Noise(*noise.T.contiguous().unbind(0)),
        _signals(why, person, kidney, bicarbonate),
    )


def _infection(why: _Arrivals) -> Infection:
    """A load and an inflammation of a day; in the others what illness itself inflames."""
    s, infected, injury = why.severity, why.infected, why.injury
    zero = torch.zeros_like(s)
    ill = infected * (0.22 + 0.48 * s * why.vary("inflammation", 0.15))
    phagocytes = (ill + (1.0 - infected) * (0.04 + 0.06 * s + injury * 0.06)).clamp_max(1.0)
    pathogen = infected * (1.3 + 5.0 * s) * why.vary("load", 0.3)
    damage = infected * (0.15 + 1.1 * s * s) + (1.0 - infected) * (0.02 + 0.05 * s + injury * (0.30 + 1.10 * s * s))
    anti = 0.125 + infected * (0.15 + 0.12 * s)
    return Infection(pathogen, phagocytes, damage, anti, zero, zero, zero, zero)


def _fluids(why: _Arrivals, person: Person) -> Fluids:
    """Shares of the own normal volumes that are missing or in excess."""
    s, dka, sepsis, pneumonia, failure = why.severity, why.dka, why.sepsis, why.pneumonia, why.failure
    short = (
        dka * (0.10 + 0.14 * s)
        + sepsis * (0.03 + 0.06 * s)
        + pneumonia * (0.02 + 0.04 * s)
        + why.injury * (0.06 - 0.10 * s)
    )
    extra = failure * (0.16 + 0.16 * s) * why.vary("congestion", 0.15)
    outside = person.extracellular_l * (1.0 - short + extra)
    inside = person.cell_l * (1.0 - dka * (0.04 + 0.06 * s))
    # excess collects in the interstitium first, deficits are shared
    plasma = person.plasma_l * (1.0 - short * 0.8 + extra * 0.55 - why.bleed * (0.02 + 0.12 * s))
    nil = torch.zeros_like(s, dtype=_POOL)
    return Fluids(plasma.to(_POOL), (outside - plasma).to(_POOL), inside.to(_POOL), nil, nil, nil)


def _metabolism(why: _Arrivals, person: Person, phagocytes: Tensor, outside_l: Tensor) -> tuple[Tensor, Metabolism]:
    """Glucose in mmol/L, and the state."""
    s, dka, infected = why.severity, why.dka, why.infected
    glucose = 5.3 + 1.2 * person.diabetes * why.vary("glucose", 0.4) + phagocytes * 2.0
    glucose = glucose + dka * (15.0 + 16.0 * s) * why.vary("hyperglycaemia", 0.15)
    ketones = 0.12 + dka * (6.0 + 8.0 * s)
    lactate = (
        1.0
        + infected * (0.5 + 4.0 * s * s)
        + why.bleed * (0.3 + 2.2 * s * s)
        + why.failure * 1.2 * s * s
        + dka * (0.6 + s)
    )
    heat = 36.8 + phagocytes / (phagocytes + 0.35) * 3.0
    insulin = (1.0 - dka) * 9.0 + dka * 2.5
    resistance = dka * (ketones * 0.66 + 2.2)
    nothing = torch.zeros_like(s)
    return glucose, Metabolism(glucose * outside_l, insulin, insulin, ketones, lactate, heat, nothing, resistance)


def _kidney(why: _Arrivals, person: Person) -> Kidney:
    """Lost nephrons, and what has been retained by now."""
    s, dka, failure, bleed, injury, infected = why.severity, why.dka, why.failure, why.bleed, why.injury, why.infected
    zero = torch.zeros_like(s)
    tubules = (injury * (0.68 + 0.29 * s) + infected * 0.22 * s * s + 0.05 * s).clamp(0.0, 0.965)
    worse = 1.0 + infected * 0.7 * s + dka * 0.6 * s + failure * 0.35 + bleed * 0.15 + injury * (1.4 + 2.6 * s)
    more = 1.0 + infected * 0.8 * s + dka * 0.8 + failure * 0.7 + bleed * (1.0 + 0.8 * s) + injury * (1.6 + 1.8 * s)
    creatinine = (usual_creatinine(person) * worse * why.vary("creatinine", 0.12)).clamp(0.3, 14.0)
    urea = (usual_urea(person) * more * why.vary("urea", 0.15)).clamp(4.0, 180.0)
    return Kidney(tubules, creatinine, urea, zero, zero)


def _blood(why: _Arrivals, person: Person, infection: Infection) -> Blood:
    """Red cells lost, proteins, cells of inflammation, and the open lesion."""
    s, bleed, phagocytes, damage = why.severity, why.bleed, infection.phagocytes, infection.damage
    zero, nil = torch.zeros_like(s), torch.zeros_like(s, dtype=_POOL)
    lost = bleed * (0.10 + 0.26 * s) * why.vary("loss", 0.15)
    normal_cells = person.haemoglobin_g_dl * 10.0 / HAEMOGLOBIN_G_PER_L_CELLS
    blood_l = person.plasma_l / (1.0 - normal_cells)
    return Blood(
        haemoglobin_g=(blood_l * person.haemoglobin_g_dl * 10.0 * (1.0 - lost)).to(_POOL),
        haemoglobin_in=nil,
        haemoglobin_out=nil,
        white_cells=person.white_cells * (1.0 + phagocytes * 2.0 + why.dka * 0.5),
        platelets=person.platelets * (1.0 - damage * 0.15 - bleed * 0.1),
        factors=(1.0 - damage * 0.12 - bleed * (0.08 + 0.14 * s)).clamp(0.3, 1.1) * why.vary("factors", 0.06),
        heparin=zero,
        albumin=person.albumin_g_dl * (1.0 - phagocytes * 0.15 - why.failure * 0.06 - bleed * 0.08 * s),
        crp=2.0 + phagocytes * 230.0 * why.vary("crp", 0.35),
        crp_drive=phagocytes,
        lesion=(bleed * (0.25 + 0.75 * s)).clamp_max(1.0),
        lesion_treated=zero,
        acid_suppression=zero,
    )


def _salts(
    why: _Arrivals,
    person: Person,
    infection: Infection,
    fluids: Fluids,
    outside_l: Tensor,
    glucose: Tensor,
    metabolism: Metabolism,
    kidney: Kidney,
    blood: Blood,
) -> tuple[Salts, Tensor, Tensor]:
    """Salts, and bicarbonate (mmol/L) and carbon dioxide (mmHg) that go with them.

    Sodium is a little low in hyperglycaemia, chloride what bicarbonate leaves.
    """
    s, dka, failure, injury, phagocytes = why.severity, why.dka, why.failure, why.injury, infection.phagocytes
    one = torch.ones_like(s)
    sodium = 139.6 + 1.6 * keys.normal(why.key, 0, "ward/arrive/sodium").clamp(-2.5, 2.5)
    sodium = sodium - dka * (glucose - 8.0).clamp_min(0.0) * 0.27 - failure * (2.0 + 2.5 * s) - injury * 2.0
    potassium = 4.15 * why.vary("potassium", 0.06) + dka * 0.9 + injury * (0.7 + 2.2 * s) - failure * 0.1
    creatinine = usual_creatinine(person)
    phosphate = 3.4 + dka * 0.8 + injury * (1.0 + 1.8 * s) + (creatinine - 1.0).clamp(0.0, 4.0) * 0.3
    charge = anions(blood.albumin, metabolism.lactate, metabolism.ketones, phosphate, kidney.urea)
    usual_charge = anions(person.albumin_g_dl, one, one * 0.12, one * 3.4, usual_urea(person))
    usual_bicarbonate = 24.8 - (creatinine - 1.4).clamp(0.0, 3.0) * 1.2
    bicarbonate = usual_bicarbonate - (charge - usual_charge) * 0.85 - injury * (1.0 + 2.5 * s)
    bicarbonate = bicarbonate.clamp(4.0, 34.0)
    chloride = sodium + potassium - charge - bicarbonate
    outside = outside_l.to(_POOL)
    cell_0 = person.cell_l * CELL_POTASSIUM_MMOL_L
    osmolality = sodium * 2.0 + glucose
    # the cells' content that goes with this potassium, acidity, tonicity and lack of insulin
    pco2 = (
        PCO2_MMHG - (BICARBONATE_MMOL_L - bicarbonate).clamp(0.0, 20.0) * COMPENSATION_LOW - phagocytes * 5.0
    )  # Winter's compensation
    pco2 = pco2.clamp(14.0, 45.0)
    ph = henderson_hasselbalch(bicarbonate, pco2)
    content = (potassium / POTASSIUM_MMOL_L).log() - potassium_shift(metabolism.insulin, ph, osmolality)
    cell_k = cell_0 + content.clamp_min(0.0) * CELL_EXCESS_MMOL + content.clamp_max(0.0) * CELL_DEFICIT_MMOL
    nil = torch.zeros_like(outside)
    salts = Salts(
        sodium=sodium.to(_POOL) * outside,
        sodium_in=nil,
        sodium_out=nil,
        potassium=potassium.to(_POOL) * outside,
        cell_potassium=cell_k.to(_POOL),
        potassium_in=nil,
        potassium_out=nil,
        chloride=chloride.to(_POOL) * outside,
        chloride_shift=(bicarbonate - BICARBONATE_MMOL_L) * BUFFERED_MMOL,
        cell_osmoles=osmolality * fluids.cell_l.to(torch.float32),
        cell_potassium_0=cell_0,
        recent_uptake=torch.zeros_like(s),
        magnesium_mg_dl=2.0 * why.vary("magnesium", 0.08) - dka * 0.15 - failure * 0.1,
        phosphate_mg_dl=phosphate,
        free_calcium_mg_dl=FREE_CALCIUM_MG_DL - phagocytes * 0.5 - injury * 0.4,
    )
    return salts, bicarbonate, pco2


def _lungs(why: _Arrivals, person: Person, pco2: Tensor) -> Lungs:
    """Water of the failing heart, consolidation of the infected lung."""
    s = why.severity
    return Lungs(
        pco2=pco2,
        water=why.failure * (0.35 + 0.75 * s),
        consolidation=(person.lung_site * (0.16 + 0.62 * s) * why.vary("lung", 0.2)).clamp_max(0.95),
        fatigue=why.pneumonia * 0.1 * s + why.failure * 0.1 * s,
        injury=torch.zeros_like(s),
        disuse=torch.zeros_like(s),
    )


def _organs(why: _Arrivals, infection: Infection) -> Organs:
    """Markers and the mind."""
    s, infected, failure = why.severity, why.infected, why.failure
    return Organs(
        troponin=8.0 + failure * (20.0 + 30.0 * s) + infected * 20.0 * s + why.bleed * 8.0 * s,
        bnp=35.0 + failure * (500.0 + 700.0 * s) * why.vary("bnp", 0.3) + infected * 80.0 * s,
        alt=22.0 * why.vary("alt", 0.3) + failure * 25.0 * s + infected * 30.0 * s * s,
        bilirubin=0.6 * why.vary("bilirubin", 0.25) + infection.damage * 0.6,
        brain=infection.phagocytes * 0.16 + why.dka * 0.12 * s + why.injury * 0.05 * s,
        debt=torch.zeros_like(s),
    )


def _signals(why: _Arrivals, person: Person, kidney: Kidney, bicarbonate: Tensor) -> Signals:
    """A first guess: the hour before triage settles them."""
    one = torch.ones_like(why.severity)
    return Signals(
        map=person.map_mmhg * (1.0 - 0.15 * why.severity),
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
        gfr=person.gfr_ml_min * (1.0 - kidney.tubular_injury),
        volume_sense=one,
        urine_l_h=one * 0.06,
        bleed_l_h=torch.zeros_like(one),
        haemoglobin=person.haemoglobin_g_dl,
        peep=torch.zeros_like(one),
        plateau=torch.zeros_like(one),
        driving=torch.zeros_like(one),
        tidal_ml_kg=torch.zeros_like(one),
    )
