"""Terms of the clinic's reward, all in quality-adjusted life years (QALY) lost, and its cost.

A year in full health loses nothing, a year dead loses 1, a year with disease loses the combined disability weight. The
sum of an episode is therefore the QALYs lived within the horizon minus its years, ten unless the task says otherwise;
each counted at the first visit, so that a year ahead is worth 3 % less (`clinenv.worth`): ten years are 8.7.

Sources. Disability weights: `clinenv.disability`; codes without a health state of their own there take that of the
nearest named one (said beside each). A code holds all grades of its disease, so it gets the mean over grades, in shares
that are assumed where no source stands: fibrillation's 0.224 ("periods of rapid heartbeats and occasional fainting") is
GBD's weight of those with symptoms alone, and it has none for the others. They are combined as GBD combines comorbid
states, 1 - prod(1 - w). Utility of taking a pill a day: Hutchins 2015 (doi
10.1161/CIRCOUTCOMES.114.001240) (k); of anticoagulants: Gage 1996 (PMID 8629644) (k), Freeman 2011 (PMID 21041570) (k);
of procedures and bleeding: rounded from cost-effectiveness analyses of the same kind (k). Drugs that a block or a low
pressure forbids: the drugs' labels, ESC 2021 guidelines on heart failure (doi 10.1093/eurheartj/ehab368) and on pacing
(doi 10.1093/eurheartj/ehab364) (k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clinenv.disability import HEALTH_STATE, HEART_FAILURE, over_grades
from clinenv.rewards import total
from clinenv.worth import in_qaly
from world_models.constants import constant
from world_models.quantities.progression import CODES, DEVICES, DRUGS, ORDERS, PROCEDURES, TREATMENTS

__all__ = [
    "BLEEDING_QALY", "CONGESTED", "DISABILITY", "DRUG_QALY_YEAR", "HORIZON_YEARS", "PROCEDURE_QALY", "VISIT_QALY",
    "RewardWeights", "burden", "contraindicated", "drug_burden", "procedure_burden", "within",
]  # fmt: skip

HORIZON_YEARS = 10.0

_MILD, _MODERATE = HEALTH_STATE["heart failure, mild"], HEALTH_STATE["heart failure, moderate"]
_KNOWN = HEALTH_STATE["anxiety about a diagnosis"]
# with symptoms in the 17 % in whom they are severe or disabling (EHRA III and IV in ORBIT-AF, Freeman 2015, doi
# 10.1161/CIRCOUTCOMES.114.001303 (k)); in the others as anxiety about a diagnosis
_FIBRILLATION = over_grades({"atrial fibrillation with symptoms": 0.17, "anxiety about a diagnosis": 0.83})
_STROKE = {"stroke, mild": 1 / 3, "stroke, moderate": 1 / 3, "stroke, moderate with cognition": 1 / 6}

# Share of a year's health that the condition takes while it is present.
DISABILITY: dict[str, float] = {
    "I10": 0.0,  # a risk, not a state of health
    "I11": _MILD,
    "I20": HEALTH_STATE["angina, moderate"],
    "I21": over_grades({"infarction, days 1 and 2": 2 / 28, "infarction, days 3 to 28": 26 / 28}),
    "I25": HEALTH_STATE["angina, mild"],
    "I26": _MODERATE,  # as heart failure
    "I27": _MODERATE,  # as heart failure
    "I30": HEALTH_STATE["acute episode, moderate"],
    "I31": _MILD,  # as heart failure
    "I34": _MILD,  # as heart failure
    "I35": _MILD,  # as heart failure
    "I42": _MILD,  # as heart failure
    "I44": _KNOWN,
    "I45": 0.0,  # a finding, not a state of health
    "I47": _FIBRILLATION,  # as it
    "I48": _FIBRILLATION,
    "I49": _KNOWN,
    "I50": HEART_FAILURE,  # see CONGESTED
    "I51": _MILD,  # as heart failure
    "I63": over_grades(_STROKE | {"stroke, severe": 1 / 6}),  # shares are assumed
    "I70": 0.0,  # a risk, not a state of health
    "I73": HEALTH_STATE["claudication"],
    "I82": HEALTH_STATE["claudication"],
    "I95": _KNOWN,
}
# Heart failure that no diuretic relieves counts as severe. That diuretics relieve it: Faris 2012 (PMID 22336795); that
# it is just this much, is assumed.
CONGESTED = HEALTH_STATE["heart failure, severe"]
DRUG_QALY_YEAR: dict[str, float] = {  # lost by taking it for a year: pills, side effects short of a bleed
    "antiarrhythmic": 0.020,
    "beta_blocker": 0.006,
    "ace_inhibitor": 0.004,
    "diuretic": 0.006,
    "anticoagulant": 0.008,
    "statin": 0.004,
    "sglt2_inhibitor": 0.006,  # genital infections
}
PROCEDURE_QALY: dict[str, float] = {  # lost by one: days in hospital, and complications by their frequency
    "cardioversion": 0.004,
    "ablation": 0.020,
    "pacemaker": 0.020,
    "revascularisation": 0.020,
    "icd": 0.030,  # and shocks that were not needed, changes of the battery (assumed)
    "crt": 0.030,  # and a lead more, which is often placed anew (assumed)
    "valve_replacement": 0.060,  # an operation, or a catheter's; rehabilitation (assumed)
}
VISIT_DAYS, VISIT_DOLLARS = 0.5, 150.0
VISIT_QALY = VISIT_DAYS / 365.25 + in_qaly(VISIT_DOLLARS)  # lost by one visit: half a day, and its price (0.0029)
BLEEDING_QALY = 0.030  # lost by a major bleed: two months at a utility lower by a fifth


@dataclass(frozen=True)
class RewardWeights:
    """How much each aim counts: 1 is a QALY for a QALY. Change them with this object."""

    disease_burden: float = 1.0
    death: float = 1.0
    treatment_burden: float = 1.0
    visits: float = 1.0
    bleeding: float = 1.0


_LOG_HEALTH = tuple(math.log1p(-DISABILITY[code]) for code in CODES)
_DRUGS = tuple(DRUG_QALY_YEAR.get(q.name, 0.0) for q in ORDERS)
_PROCEDURES = tuple(PROCEDURE_QALY.get(q.name, 0.0) for q in ORDERS)
assert set(DISABILITY) == set(CODES) and set(DRUG_QALY_YEAR) == set(DRUGS) and set(PROCEDURE_QALY) == set(PROCEDURES)
_COLUMN = {q.name: i for i, q in enumerate(ORDERS)}
# (treatment, condition that forbids it, whether a device that paces lifts that)
_FORBIDDEN = (
    ("beta_blocker", "I44", True),
    ("antiarrhythmic", "I44", True),
    ("ace_inhibitor", "I95", False),
    ("diuretic", "I95", False),
    ("sglt2_inhibitor", "I95", False),  # its trials left low pressures out (DAPA-HF, doi 10.1056/NEJMoa1911303)
    ("icd", "I21", False),  # none within 40 days of an infarction: ESC 2022, doi 10.1093/eurheartj/ehac262
    ("valve_replacement", "I63", False),  # not soon after a stroke, if it can wait (k)
)
_FAILURE, _DIURETIC = CODES.index("I50"), _COLUMN["diuretic"]
_MORE = math.log1p(-CONGESTED) - math.log1p(-DISABILITY["I50"])


def burden(condition: Tensor, action: Tensor) -> Tensor:
    """Share [B] of health lost to conditions [B, C] under action [B, A], combined as 1 - prod(1 - w)."""
    congested = condition[:, _FAILURE] * (action[:, _DIURETIC] <= 0)
    log_health = total(condition * constant(_LOG_HEALTH, condition.device, condition.dtype))
    return -torch.expm1(log_health + congested * _MORE)


def drug_burden(action: Tensor) -> Tensor:
    """QALYs [B] that a year on the drugs of action [B, A] loses."""
    return total((action > 0) * constant(_DRUGS, action.device, torch.float32))


def procedure_burden(action: Tensor) -> Tensor:
    """QALYs [B] that the procedures of action [B, A] lose."""
    return total((action > 0) * constant(_PROCEDURES, action.device, torch.float32))


def within(before: Tensor, after: Tensor, died: Tensor, horizon_years: float = HORIZON_YEARS) -> tuple[Tensor, Tensor]:
    """Years [B] since the first visit, within the horizon, at which an interval begins and at which life in it ends.

    Who died in it (`died` [B], 0 or 1) is taken to have died in its middle.
    """
    start = before.clamp(max=horizon_years)
    stop = after.clamp(max=horizon_years).maximum(start)
    return start, stop - (stop - start) * died * 0.5


def contraindicated(condition: Tensor, treated: Tensor, action: Tensor) -> Tensor:
    """How many [B] of the treatments in action [B, A] the conditions [B, C] forbid.

    A device that paces, there already (treated [B, TREATMENTS]) or implanted with the action, makes a block harmless.
    """
    paced = torch.zeros_like(treated[:, 0], dtype=torch.bool)
    for device in DEVICES:
        paced = paced | (treated[:, TREATMENTS.index(device)] > 0.5) | (action[:, _COLUMN[device]] > 0)
    count = torch.zeros_like(action[:, 0])
    for treatment, code, lifted in _FORBIDDEN:
        wrong = (action[:, _COLUMN[treatment]] > 0) & (condition[:, CODES.index(code)] > 0.5)
        count = count + (wrong & ~paced if lifted else wrong).to(count.dtype)
    return count
