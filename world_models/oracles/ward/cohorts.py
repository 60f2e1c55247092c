"""Who is admitted to the ward: what a caller may fix, and the hidden person behind it, all from the key.

Mix and comorbidity are those of a general medical ward with an intensive care unit (k): age by disease, one in eight
with chronic kidney disease (one in three of those with acute kidney injury or heart failure), one in four diabetic.
Organisms: sepsis by the shares of community-onset bacteraemia, half Gram-negative; pneumonia mostly susceptible
Gram-positive (k). Concentrations of half the killing are multiples of the usual inhibitory concentrations (k): a
susceptible organism is killed by ordinary doses, a resistant one by none that can be ordered.

Body water: 0.60 (men) or 0.50 (women) of the weight, less 1.5 per mille of it a year above 40, 0.37 of it
extracellular; plasma 43 or 40 mL/kg (k). Creatinine production (28 - 0.2 age) mg/kg/day, 0.85 of it in women (Cockcroft
& Gault 1976, doi 10.1159/000180580). Glucose turnover 2 mg/kg/min (k). Height 176 cm (men) or 163 cm (women), SD 7 (k).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from world_models import keys
from world_models.inputs import checked_factors
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ward.hazard import PERSONAL
from world_models.oracles.ward.state import Person
from world_models.quantities.ward import COMPLAINTS, DISEASES, ORGANISMS, STATIC
from world_models.quantity import Quantity, by_name

__all__ = ["COHORTS", "FACTORS", "WardCohort", "sample_complaint", "sample_factors", "sample_person"]

FACTORS: tuple[Quantity, ...] = (
    *STATIC,
    Quantity("disease", "1", 0.0, len(DISEASES) - 1.0, (), "index in DISEASES"),
    Quantity("organism", "1", 0.0, len(ORGANISMS) - 1.0, (), "index in ORGANISMS; hidden"),
    Quantity("severity", "fraction", 0.0, 1.0, (), "of the disease at admission; hidden"),
)

# by disease, in the order of DISEASES
_AGE = ((67, 14), (68, 15), (42, 16), (75, 11), (66, 15), (69, 13))  # mean, SD
_KIDNEY = (0.15, 0.12, 0.08, 0.35, 0.15, 0.35)  # share with chronic kidney disease
_DIABETES = (0.28, 0.22, 1.0, 0.38, 0.22, 0.33)
_HEART = (0.12, 0.15, 0.05, 0.75, 0.12, 0.20)
# none, susceptible Gram-positive, MRSA, susceptible and resistant Gram-negative
_ORGANISM = (
    (0.00, 0.25, 0.15, 0.45, 0.15),
    (0.00, 0.55, 0.10, 0.25, 0.10),
    (1.0, 0.0, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0, 0.0),
)
# fever, dyspnoea, hyperglycaemia, bleeding, oliguria, weakness
_COMPLAINT = (
    (0.60, 0.10, 0.02, 0.00, 0.08, 0.20),
    (0.35, 0.55, 0.01, 0.01, 0.01, 0.07),
    (0.06, 0.06, 0.70, 0.00, 0.02, 0.16),
    (0.02, 0.82, 0.01, 0.00, 0.05, 0.10),
    (0.01, 0.04, 0.00, 0.80, 0.01, 0.14),
    (0.03, 0.10, 0.03, 0.00, 0.54, 0.30),
)
# concentration of half the killing, mg/L in plasma: piperacillin, vancomycin, ceftriaxone, meropenem
_EC50 = (
    (1.0, 1.0, 1.0, 1.0),
    (6.0, 8.0, 12.0, 2.0),
    (2000.0, 8.0, 4000.0, 1000.0),
    (12.0, 4000.0, 12.0, 1.5),
    (600.0, 4000.0, 4000.0, 3.0),
)


@dataclass(frozen=True, slots=True)
class WardCohort:
    """Who is admitted: a mix of diseases and a range of severity."""

    name: str
    meaning: str
    mix: tuple[float, ...]  # weights in the order of DISEASES
    severity: tuple[float, float] = (0.0, 1.0)  # sampled from its lower end more often than from its upper


def _only(disease: str) -> tuple[float, ...]:
    return tuple(float(d == disease) for d in DISEASES)


COHORTS: dict[str, WardCohort] = {
    c.name: c
    for c in (
        WardCohort("ward", "all six diseases, mild to severe", (0.22, 0.24, 0.10, 0.20, 0.12, 0.12)),
        WardCohort("icu", "all six diseases, the severe half", (0.30, 0.22, 0.12, 0.14, 0.10, 0.12), (0.5, 1.0)),
        *(WardCohort(d.replace("_", "-"), f"{d.replace('_', ' ')} only", _only(d)) for d in DISEASES),
    )
}


def _z(key: Tensor, name: str) -> Tensor:
    return keys.normal(key, 0, f"ward/{name}").clamp(-2.5, 2.5)


def _u(key: Tensor, name: str) -> Tensor:
    return keys.uniform(key, 0, f"ward/{name}")


def _by(index: Tensor, rows: tuple) -> Tensor:
    """The row of a table that an index [B] (as float) names: [B] or [B, columns]."""
    return torch.tensor(rows, dtype=torch.float32, device=index.device)[index.to(torch.int64)]


def sample_factors(
    cohort: str | WardCohort, key: Tensor, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Every factor of FACTORS for patients with these keys, float32 [B] each.

    Args:
        given: factors that are known, [B]. What depends on a factor follows the given one.

    Raises:
        ValueError: an unknown cohort or factor, a wrong shape, a value out of bounds, or an index that is no integer.
    """
    who = cohort_named(COHORTS, cohort)
    given = checked_factors(FACTORS, given, key.shape[0], key.device)
    for name in ("disease", "organism"):
        if name in given and bool((given[name] != given[name].round()).any()):
            raise ValueError(f"factor {name!r} is an index: give whole numbers")

    def settle(name: str, sampled: Tensor) -> Tensor:
        quantity = by_name(FACTORS, name)
        return given.get(name, sampled.to(torch.float32).clamp(quantity.low, quantity.high))

    mix = torch.tensor(who.mix, device=key.device)
    disease = settle("disease", keys.categorical(key, 0, "ward/disease", mix))
    low, high = who.severity
    skewed = (_u(key, "severity").log() * 1.4).exp()
    severity = settle("severity", skewed * (high - low) + low)
    age_law = _by(disease, _AGE)
    age = settle("age_years", age_law[:, 0].contiguous() + age_law[:, 1].contiguous() * _z(key, "age"))
    female = settle("sex_female", _u(key, "sex") < 0.48)
    weight = settle("weight_kg", 83.0 - 12.0 * female + 15.0 * _z(key, "weight"))
    older = ((age - 65.0) * 0.02).clamp(-0.6, 0.6) + 1.0
    kidney = settle("chronic_kidney_disease", _u(key, "kidney") < _by(disease, _KIDNEY) * older)
    diabetes = settle("diabetes", _u(key, "diabetes") < _by(disease, _DIABETES))
    heart = settle("chronic_heart_failure", _u(key, "heart") < _by(disease, _HEART) * older)
    organism = settle("organism", keys.categorical(key, 0, "ward/organism", _by(disease, _ORGANISM)))
    found = (age, female, weight, kidney, diabetes, heart, disease, organism, severity)
    return dict(zip((q.name for q in FACTORS), found, strict=True))


def sample_complaint(key: Tensor, disease: Tensor) -> Tensor:
    """Why the patient came, one-hot [B, C]: a hint at the disease, not a diagnosis."""
    index = keys.categorical(key, 0, "ward/complaint", _by(disease, _COMPLAINT))
    return (index.unsqueeze(-1) == torch.arange(len(COMPLAINTS), device=key.device)).to(torch.float32)


def _predicted_kg(key: Tensor, female: Tensor) -> Tensor:
    """Predicted body weight [B]: 50 (women 45.5) kg and 0.91 kg for each cm above 152.4 (ARDS Network 2000)."""
    height_cm = 176.0 - 13.0 * female + (7.2 - 0.7 * female) * _z(key, "height")
    return 50.0 - 4.5 * female + (height_cm - 152.4) * 0.91


def sample_person(key: Tensor, who: Mapping[str, Tensor]) -> Person:
    """The hidden person behind the factors of `sample_factors`."""
    age, female, weight = who["age_years"], who["sex_female"], who["weight_kg"]
    disease, organism, severity = who["disease"], who["organism"], who["severity"]
    kidney, diabetes, heart = who["chronic_kidney_disease"], who["diabetes"], who["chronic_heart_failure"]
    dka = (disease == 2.0).to(torch.float32)
    failing = torch.maximum(heart, (disease == 3.0).to(torch.float32))

    def spread(name: str, sd: float) -> Tensor:
        return (_z(key, name) * sd).exp()

    water = weight * (0.60 - 0.10 * female - 0.0015 * (age - 40.0).clamp_min(0.0)) * spread("water", 0.05)
    plasma = weight * (0.043 - 0.003 * female) * spread("plasma", 0.06)
    clearance = (125.0 - 0.9 * (age - 30.0)).clamp_min(45.0) * (weight / 80.0).sqrt() * spread("gfr", 0.15)
    gfr = clearance * (1.0 - kidney * (0.52 + 0.08 * _z(key, "ckd").clamp(-2.0, 2.0)))
    production = weight * (28.0 - 0.2 * age).clamp_min(6.0) * (1.0 - 0.15 * female) / 24.0
    weakness = failing * (0.41 + 0.05 * _z(key, "pump")) + (disease == 3.0).to(torch.float32) * 0.12 * severity
    ec50 = _by(organism, _EC50)
    inhibit = [ec50[:, i].contiguous() * spread(f"ec50/{i}", 0.35) for i in range(4)]
    lung = (disease == 1.0).to(torch.float32)
    negative = (organism >= 3.0).to(torch.float32)
    per_year, frail, by_kidney, by_heart = (factor for _, factor, _ in PERSONAL)
    urinary = (_u(key, "urinary") < 0.15 + 0.55 * negative).to(torch.float32) * (1.0 - lung) * (organism > 0)
    return Person(
        disease=disease,
        organism=organism,
        severity=severity,
        weight_kg=weight,
        predicted_kg=_predicted_kg(key, female),
        age_years=age,
        diabetes=torch.maximum(diabetes, dka),
        plasma_l=plasma,
        extracellular_l=water * 0.37,
        cell_l=water * 0.63,
        haemoglobin_g_dl=(14.6 - 1.4 * female - 1.6 * kidney - 0.02 * (age - 60.0) + 0.9 * _z(key, "hb")).clamp(
            8.5, 18.0
        ),
        map_mmhg=(89.0 + 0.10 * (age - 55.0) + 7.0 * _z(key, "map") - 2.0 * failing).clamp(72.0, 115.0),
        heart_rate_bpm=(71.0 + 3.0 * female + 6.0 * _z(key, "rate") + 5.0 * failing).clamp(52.0, 95.0),
        gfr_ml_min=gfr,
        contractility=1.0 - weakness,
        albumin_g_dl=(4.1 - 0.3 * kidney - 0.006 * (age - 60.0).clamp_min(0.0) + 0.25 * _z(key, "albumin")).clamp(
            2.6, 4.9
        ),
        white_cells=7.2 * spread("white", 0.22),
        platelets=240.0 * spread("platelets", 0.22),
        glucose_turnover_mmol_h=weight * 0.666 * spread("turnover", 0.10),
        insulin_sensitivity=(1.0 - 0.42 * diabetes * (1.0 - 0.5 * dka)) * spread("insulin", 0.25),
        beta_cell=(1.0 - 0.50 * diabetes) * (1.0 - 0.95 * dka) * spread("beta", 0.20),
        creatinine_mg_h=production * spread("muscle", 0.12),
        urea_mg_h=weight * 5.6 * spread("protein", 0.15),
        growth_per_h=(0.43 + 0.27 * severity) * (1.0 - 0.14 * lung) * spread("growth", 0.10),
        host=(1.05 - 0.30 * severity - 0.003 * (age - 60.0)) * spread("host", 0.12),
        systemic=(1.0 - 0.42 * lung * (1.0 - 0.5 * severity)) * spread("systemic", 0.12),
        lung_site=lung,
        urinary_site=urinary,
        bacteraemia=(0.25 + 0.55 * (1.0 - lung)) * (organism > 0),
        ec50_piperacillin=inhibit[0],
        ec50_vancomycin=inhibit[1],
        ec50_ceftriaxone=inhibit[2],
        ec50_meropenem=inhibit[3],
        pressor_response=spread("pressor", 0.30) * (1.1 - 0.35 * severity),
        leak_tendency=spread("leak", 0.30),
        diuretic_response=spread("diuretic", 0.25),
        drug_clearance=spread("clearance", 0.20),
        breathing_reserve=(1.05 - 0.006 * (age - 60.0).clamp_min(-20.0)) * spread("breath", 0.12),
        tubular_recovery_h=140.0
        * spread("repair", 0.35)
        * (1.0 + 0.5 * kidney)
        * (1.0 + 0.8 * severity * (disease == 5.0)),
        hazard_factor=((age - 65.0) * per_year + kidney * by_kidney + failing * by_heart).exp()
        * spread("frailty", frail),
    )
