"""Who comes to the first visit: a life from 35 lived under the same rates, then seen.

Age, sex, smoking, diabetes and the other traits, and hidden frailties are sampled from the key; the conditions are not
sampled but suffered: yearly steps from 35 to a year before entry, monthly steps in the last year, under the rates of
`state`, without treatment. Who comes has lived: where what somebody has would have killed, he is one to whom it did not
happen, and what is lethal (`mortality.LETHAL`) is gone as if it had never been. So prevalences, their correlations and
their rise with age follow from the table of rates. `referral` multiplies the rates of the years before: a cardiology
clinic sees those who fell ill, and the more so the more a condition leads to a cardiologist. `crisis` multiplies the
acute onsets of the last year, at the first of which those who come ill are seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.cohort import normal_cdf
from world_models.oracles.progression import mortality
from world_models.oracles.progression import state as body
from world_models.oracles.progression.care import history_of_treatment
from world_models.oracles.progression.conditions import ACUTE, FAMILIES, RESOLUTIONS
from world_models.oracles.progression.ecg.shown import form_of
from world_models.oracles.progression.state import ProgressionState
from world_models.quantities.progression import CODES, TREATMENTS
from world_models.quantity import Quantity

__all__ = ["COHORTS", "FACTORS", "ProgressionCohort", "enter"]

FACTORS: tuple[Quantity, ...] = (
    Quantity("age_years", "a", 18.0, 95.0, (), "age at the first visit"),
    Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
    Quantity("condition", "bool", 0.0, 1.0, (len(CODES),), "conditions present at the first visit: " + " ".join(CODES)),
)

_BEGINS = 35.0  # age from which conditions are suffered
_LONGEST_YEARS = 59  # yearly steps: 35 to 94, and the last year by months
_FRAILTY_SD = 0.55  # of a family's log factor, of which a part is shared by all
_SHARED_SD = 0.3
# each trait that is a form of a condition: of which, and which of them
_FORM_TRAITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reduced": ("I50", ("reduced",)),
    "left_branch": ("I44", ("lbbb",)),
    "high_block": ("I44", ("second_degree", "third_degree")),
    "stenosis": ("I35", ("stenosis",)),
    "ventricular": ("I47", ("ventricular",)),
}
assert body.TRAITS == ("smoker", "diabetes", *_FORM_TRAITS)
_C = len(CODES)


@dataclass(frozen=True, slots=True)
class ProgressionCohort:
    """Who comes to the first visit, and how his or her ECGs follow one another. Age is a normal cut to its range."""

    name: str
    meaning: str
    age_mean_years: float
    age_sd_years: float
    age_range_years: tuple[float, float]
    share_female: float
    share_smokers: float
    share_diabetes: float
    referral: float = 1.0  # on all rates of onset before entry
    referral_of: Mapping[str, float] = field(default_factory=dict)  # and of these, instead
    log_frailty: float = 0.0  # added to every family's
    crisis: float = 1.0  # on the rates of acute conditions in the year before entry
    comes_ill: bool = False  # the first visit is at the first acute onset of that year, if there is one
    event_visits: float = 0.0  # chance that an acute onset brings a recorded ECG before the visit that was planned
    same_stay: float = 0.15  # chance that the next ECG is taken within two weeks
    gap_median_days: float = 150.0  # of the others
    gap_log_sd: float = 1.0


_CARDIAC = {"I10": 1.25, "I25": 2.0, "I34": 1.4, "I35": 1.4, "I44": 1.8, "I45": 1.5, "I48": 1.9, "I49": 1.8, "I50": 1.6}

COHORTS: dict[str, ProgressionCohort] = {
    c.name: c
    for c in (
        ProgressionCohort("community", "adults of 40 to 90 as they live", 60.0, 14.0, (40.0, 90.0), 0.52, 0.18, 0.12),
        ProgressionCohort(
            "clinic", "cardiology outpatients, many of them sent for something new", 64.0, 12.0, (40.0, 90.0),
            0.47, 0.20, 0.18, 1.2, _CARDIAC, crisis=3.0, comes_ill=True, event_visits=0.5,
        ),
        ProgressionCohort(
            "hospital", "inpatients and emergencies: sicker, ECGs days to months apart", 66.0, 14.0, (40.0, 93.0),
            0.47, 0.24, 0.25, 1.3, log_frailty=0.45, crisis=9.0, comes_ill=True, event_visits=0.95, same_stay=0.45,
            gap_median_days=400.0, gap_log_sd=1.0,
        ),
    )
}  # fmt: skip


def enter(cohort: ProgressionCohort, key: Tensor, given: Mapping[str, Tensor]) -> ProgressionState:
    """Patients [B] at their first visit; `given` factors are fixed.

    Conditions that are given replace those suffered; hidden frailty stays as sampled, it is not inferred from them.
    """
    batch, device = key.shape[0], key.device
    low, high = (normal_cdf((a - cohort.age_mean_years) / cohort.age_sd_years) for a in cohort.age_range_years)
    u = keys.uniform(key, 0, "progression/entry", (4,))
    age = keys.to_normal(u[:, 0] * (high - low) + low) * cohort.age_sd_years + cohort.age_mean_years
    age = given.get("age_years", age.clamp(*cohort.age_range_years))
    sex = given.get("sex_female", (u[:, 1] < cohort.share_female).to(torch.float32))
    forms = (form_of(key, name, form) for name, form in _FORM_TRAITS.values())
    traits = torch.stack((u[:, 2] < cohort.share_smokers, u[:, 3] < cohort.share_diabetes, *forms), -1)
    normal = keys.normal(key, 0, "progression/frailty", (len(FAMILIES) + 1,))
    own_sd = math.sqrt(_FRAILTY_SD**2 - _SHARED_SD**2)
    # the mean factor is 1: less half the variance
    frailty = normal[:, :-1] * own_sd + normal[:, -1:] * _SHARED_SD - 0.5 * _FRAILTY_SD**2 + cohort.log_frailty
    present, ever, lasted = _suffered(cohort, key, age, sex, frailty, traits)
    condition = given.get("condition")
    if condition is not None:
        yes = condition > 0.5
        usual = torch.tensor(
            [min(3.0, 0.5 / RESOLUTIONS[c][0]) if c in RESOLUTIONS else 3.0 for c in CODES], device=device
        )
        since = torch.where(yes & present, lasted, torch.where(yes, usual, torch.zeros_like(lasted)))
        present, ever, lasted = yes, yes, since
    procedures, drugs = history_of_treatment(key, age, sex, present.to(torch.float32), ever.to(torch.float32))
    zero = torch.zeros_like(age)
    none = torch.zeros(batch, dtype=torch.bool, device=device)
    return ProgressionState(
        key=key,
        t=torch.zeros_like(key),
        patient=key.clone(),
        entry_age_years=age,
        sex_female=sex,
        month=torch.zeros_like(key),
        months_since_visit=zero,
        present=present,
        ever=ever,
        years_since_onset=lasted,
        procedures=procedures,
        drugs=drugs,
        frailty=frailty,
        traits=traits,
        bleeding=none,
        dead=none.clone(),
    )


def _suffered(
    cohort: ProgressionCohort, key: Tensor, age: Tensor, sex: Tensor, frailty: Tensor, traits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Conditions present, ever had, and years since onset [B, C] at `age`, lived from 35 on."""
    device = key.device
    acute = torch.tensor([c in ACUTE for c in CODES], device=device)
    # strokes come to neurology more than here: the root of what the others get
    weight = {c: 0.5 if c == "I63" else 1.0 for c in ACUTE}
    more_acute = [math.log(cohort.crisis) * weight.get(c, 0.0) for c in CODES]
    crisis = torch.tensor(more_acute + [0.0] * (_C + 2), dtype=torch.float32, device=device)
    came = torch.zeros_like(age, dtype=torch.bool)
    referral = [math.log(cohort.referral_of.get(c, cohort.referral)) for c in CODES]
    more = torch.tensor([*referral, *([0.0] * (_C + 2))], dtype=torch.float32, device=device)
    static = body.static_rates(sex, frailty) + more
    present = torch.zeros(key.shape[0], _C, dtype=torch.bool, device=device)
    ever, lasted = present.clone(), torch.zeros(key.shape[0], _C, device=device)
    untreated = torch.zeros(key.shape[0], len(TREATMENTS), dtype=torch.bool, device=device)
    becomes = body.tables(device).becomes
    lethal = torch.tensor([c in mortality.LETHAL for c in CODES], device=device)
    oldest = float(age.max()) if age.numel() else _BEGINS
    years = min(_LONGEST_YEARS, max(0, math.ceil(oldest - 1.0 - _BEGINS)))
    for back in range(years + 12, 0, -1):  # the last twelve steps are months
        yearly = back > 12
        step = 1.0 if yearly else body.MONTH_YEARS
        before = (back - 12) + 1.0 if yearly else back * body.MONTH_YEARS
        then = age - before
        u = keys.uniform(key, back, "progression/past", (2 * _C,))
        wait = body.waiting_times(u)
        rates = body.log_rates(
            static if yearly else static + crisis, sex, then, present, ever, lasted, traits, untreated
        ).exp()
        after = body.turn(rates, wait[:, :_C].contiguous(), present, ever, lasted, step)
        now, since = after.present, after.years_since_onset
        if yearly:  # what starts within a long step may also end in it; on average half of it is left
            ends = after.started & (wait[:, _C:] < rates[:, _C : 2 * _C] * (0.5 * step))
            now = now & ~ends
            for old, new in becomes:
                now[:, new] |= ends[:, old]
        lived = ((then >= _BEGINS) & ~came).unsqueeze(-1)
        ever = torch.where(lived, after.ever | now, ever)
        present = torch.where(lived, now, present)
        lasted = torch.where(lived, since, lasted)
        # killed by what he has, not by what kills others of his age too
        without = body.background_per_year(static, sex, then)
        killed = keys.uniform(key, back, "progression/killed") < (rates[:, 2 * _C] - without) * step
        spared = killed.unsqueeze(-1) & lethal & lived
        present, ever = present & ~spared, ever & ~spared
        lasted = torch.where(spared, torch.zeros_like(lasted), lasted)
        if cohort.comes_ill and not yearly:
            came = came | (lived[:, 0] & (after.started & acute).any(-1))
    return present, ever, lasted
