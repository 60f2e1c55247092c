"""One month in the life of a patient whose conditions start, go and kill: the state, the rates and the tick.

The rate of each event is exp(log base + age, sex and hidden frailty + sum of the log ratios of the features that hold).
That sum is a matrix product of zeros and ones with log ratios rounded to 1/1024: every partial sum is a multiple of
1/1024 below 2^13, so float32 holds it exactly and no order of summation, batch size or fused multiply-add can change a
bit. Everything else is elementwise. (Rounding a log ratio moves a ratio by at most 0.05 %.)

Events compete within a month: each condition starts if absent and ends if present when an exponential number of that
month falls short of rate / 12, and so for death and bleeding; all rates are those of the month's beginning. Random
numbers are functions of (key, month since entry) and not of the visits, so twelve months between two visits and four
times three months with the same drugs are the same course, and a treatment that lowers a rate can only take its events
away.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.progression import conditions, mortality
from world_models.oracles.progression.conditions import FAMILIES, Rate
from world_models.oracles.progression.treatments import AT_ONCE, TREATMENT_RATIOS, AtOnce
from world_models.quantities.progression import (
    CODES,
    DEVICES,
    DRUGS,
    IRREVERSIBLE,
    PROCEDURES,
    TREATMENTS,
    scars,
)

__all__ = [
    "FASTEST_PER_YEAR",
    "FATALITY_PER_DECADE",
    "FEATURES",
    "INDICATIONS",
    "MONTH_YEARS",
    "OLDEST_KILLED",
    "TRAITS",
]
__all__ += ["ProgressionState", "Tables", "Turn", "at_once", "background_per_year", "log_rates"]
__all__ += ["indications", "static_rates", "tables", "turn", "waiting_times"]

MONTH_YEARS = 1.0 / 12.0
# Hidden and for life. The last five are forms that a condition takes in this person whenever it is there, the same that
# its ECG shows (`ecg.shown.FORMS`): failure with a reduced ejection fraction, a block of the left branch, one of high
# degree, a stenosis of the aortic valve, tachycardia of the ventricles.
TRAITS: tuple[str, ...] = ("smoker", "diabetes", "reduced", "left_branch", "high_block", "stenosis", "ventricular")
# What treatments are for, of conditions, traits and devices; see `indications`.
INDICATIONS: tuple[str, ...] = (
    "low_lvef", "dyssynchrony", "blocked", "paced", "tight_valve", "sudden_death_risk", "I10 before I50",
    "diabetes before I50",
)  # fmt: skip
_C = len(CODES)
_GRAIN = 1024.0  # of a log ratio
_NEVER = -200.0  # log rate of what cannot happen: exp gives 0
_OLDEST = 3.0  # decades above 60 where the rise of onsets and bleeds with age ends
OLDEST_KILLED = 4.5  # and that of dying at an onset
FASTEST_PER_YEAR = 12.0  # of an onset, a death: many ratios at once must not make a rate absurd
FATALITY_PER_DECADE = math.log(1.4)  # log ratio of dying at an onset for each decade of age (k)
_HEALED_AFTER_YEARS = 0.24  # an acute infarction's code holds for three months at most
_LASTING_COUNTS_YEARS = 5.0
_LEFT_OF_CHANCE = 0.2  # of an effect at once, in old conditions or under a protecting drug


class ProgressionState(NamedTuple):
    """B patients between two visits; C conditions (`CODES`). Hidden state included: this is the oracle's."""

    key: Tensor  # int64 [B], random numbers to come
    t: Tensor  # int64 [B], visits since the first
    patient: Tensor  # int64 [B], the key at entry: anatomy, which `rekey` does not change
    entry_age_years: Tensor  # [B]
    sex_female: Tensor  # [B]
    month: Tensor  # int64 [B], lived since entry
    months_since_visit: Tensor  # [B]
    present: Tensor  # bool [B, C]
    ever: Tensor  # bool [B, C]
    years_since_onset: Tensor  # [B, C], 0 where absent
    procedures: Tensor  # bool [B, PROCEDURES], ever done
    drugs: Tensor  # bool [B, DRUGS], taken since the visit before
    frailty: Tensor  # [B, families], log factor on the rates, hidden
    traits: Tensor  # bool [B, TRAITS], hidden
    bleeding: Tensor  # bool [B], since the visit before
    dead: Tensor  # bool [B]


class Tables(NamedTuple):
    """The rate tables as tensors; columns are C onsets, C resolutions, death, bleed."""

    base: Tensor  # [E] log rate per year
    slope: Tensor  # [E] per decade
    female: Tensor  # [E]
    family: Tensor  # int64 [E]
    lasting: Tensor  # [C] log ratio of the resolution per year it has lasted
    effects: Tensor  # [features + pairs, E]
    excess: Tensor  # [features + pairs] log ratio of death, before it is combined
    left: Tensor  # int64 [pairs]
    right: Tensor  # int64 [pairs]
    mortal: Tensor  # int64 [F], the conditions whose onset may kill
    log_fatality: Tensor  # [F]
    death: Tensor  # [2 * segments] log rate of death a year where a decade of age begins: men, women
    death_slope: Tensor  # [2 * segments] its rise per year of age
    complications: Tensor  # [C, C] from an onset to the hazard of others in the same month
    becomes: tuple[tuple[int, int], ...]


class Turn(NamedTuple):
    """What one tick does."""

    present: Tensor  # bool [B, C] after it
    ever: Tensor  # bool [B, C]
    years_since_onset: Tensor  # [B, C]
    started: Tensor  # bool [B, C]


FEATURES: tuple[str, ...] = (*CODES, *(f"ever {c}" for c in CODES), *TRAITS, *TREATMENTS, *INDICATIONS)
_EVENTS: tuple[str, ...] = (*CODES, *(f"resolve {c}" for c in CODES), "death", "bleed")


def _rate(event: str) -> Rate:
    if event in conditions.ONSETS:
        return conditions.ONSETS[event]
    if event == "death":  # the rest is `mortality.BACKGROUND`
        return Rate(1000.0, 1.0, 1.0, "survival")
    if event == "bleed":
        return conditions.BLEED
    per_year, _ = conditions.RESOLUTIONS.get(event.removeprefix("resolve "), (0.0, 1.0))
    return Rate(per_year * 1000.0, 1.0, 1.0, "")


@lru_cache(maxsize=8)
def tables(device: torch.device) -> Tables:
    """The tables of `conditions` and `treatments` on this device.

    Raises:
        ValueError: a row that names no event or feature, or resolves what is irreversible.
    """
    own = [*conditions.RATIOS, *TREATMENT_RATIOS]
    rows = [*own, *mortality.EXCESS]
    pairs = list(dict.fromkeys(r.feature for r in rows if "&" in r.feature))
    names = [*FEATURES, *pairs]
    for row in rows:
        parts = [p.strip() for p in row.feature.split("&")]
        if row.target not in _EVENTS or any(p not in FEATURES for p in parts) or row.ratio <= 0:
            raise ValueError(f"{row} names no event or feature of the oracle, or its ratio is not above 0")
        if row.target.removeprefix("resolve ") in IRREVERSIBLE and row.target.startswith("resolve "):
            raise ValueError(f"{row}: {row.target.removeprefix('resolve ')} is irreversible")
    effects = [[0.0] * len(_EVENTS) for _ in names]
    for row in own:
        effects[names.index(row.feature)][_EVENTS.index(row.target)] += round(math.log(row.ratio) * _GRAIN) / _GRAIN
    excess = [0.0] * len(names)
    for row in mortality.EXCESS:
        excess[names.index(row.feature)] += round(math.log(row.ratio) * _GRAIN) / _GRAIN
    rates = [_rate(event) for event in _EVENTS]
    lasting = [math.log(conditions.RESOLUTIONS.get(c, (0.0, 1.0))[1]) for c in CODES]
    halves = [[FEATURES.index(part.strip()) for part in pair.split("&")] for pair in pairs]

    complications = [[0.0] * _C for _ in CODES]
    for cause, brings in conditions.COMPLICATIONS.items():
        for effect, chance in brings.items():
            hazard = -math.log(1.0 - chance)
            complications[CODES.index(cause)][CODES.index(effect)] = round(hazard * _GRAIN) / _GRAIN

    mortal = [c for c, code in enumerate(CODES) if mortality.FATALITY.get(code, 0.0) > 0.0]
    death, death_slope = mortality.segments()

    def floats(values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    with torch.inference_mode(False):  # kept beyond this call
        return Tables(
            base=floats([math.log(r.per_1000 / 1000.0) if r.per_1000 > 0 else _NEVER for r in rates]),
            slope=floats([math.log(r.per_decade) for r in rates]),
            female=floats([math.log(r.female) for r in rates]),
            family=torch.tensor(
                [FAMILIES.index(r.family) if r.family else len(FAMILIES) for r in rates], device=device
            ),
            lasting=floats(lasting),
            effects=floats(effects),
            excess=floats(excess),
            left=torch.tensor([h[0] for h in halves], device=device),
            right=torch.tensor([h[1] for h in halves], device=device),
            mortal=torch.tensor(mortal, device=device),
            log_fatality=floats([mortality.FATALITY[CODES[c]] for c in mortal]).log(),
            death=floats(death),
            death_slope=floats(death_slope),
            complications=floats(complications),
            becomes=scars(CODES),
        )


def static_rates(sex_female: Tensor, frailty: Tensor) -> Tensor:
    """Log rates per year [B, E] at 60 as sex and hidden frailty leave them."""
    table = tables(frailty.device)
    padded = torch.cat((frailty, torch.zeros_like(frailty[:, :1])), -1)
    return table.base + sex_female.unsqueeze(-1) * table.female + padded[:, table.family]


_CODE = {code: i for i, code in enumerate(CODES)}
_TRAIT = {name: i for i, name in enumerate(TRAITS)}
_DEVICES = tuple(TREATMENTS.index(name) for name in DEVICES)


def indications(present: Tensor, ever: Tensor, traits: Tensor, treated: Tensor) -> Tensor:
    """bool [B, INDICATIONS]: what treatments are for.

    low_lvef: a left ventricular ejection fraction of 35 % or less, in cardiomyopathy (I42) and in heart failure of the
    reduced kind. dyssynchrony: that with a block of the left branch, or one that has the ventricle paced. blocked: a
    block of high degree. paced: a device that paces is in. tight_valve: aortic stenosis with symptoms (I20 or I50).
    sudden_death_risk: low_lvef or ventricular tachycardia, and no infarction in the last three months.
    """
    has = lambda code: present[:, _CODE[code]]  # noqa: E731
    is_ = lambda trait: traits[:, _TRAIT[trait]]  # noqa: E731
    failed = ever[:, _CODE["I50"]]
    low = has("I42") | (is_("reduced") & failed)
    paced = treated[:, _DEVICES[0]]
    for column in _DEVICES[1:]:
        paced = paced | treated[:, column]
    return torch.stack(
        (
            low,
            low & has("I44") & (is_("left_branch") | is_("high_block")),
            has("I44") & is_("high_block"),
            paced,
            has("I35") & is_("stenosis") & (has("I50") | has("I20")),
            (low | (has("I47") & is_("ventricular"))) & ~has("I21"),
            has("I10") & ~failed,
            is_("diabetes") & ~failed,
        ),
        -1,
    )


def log_rates(
    static: Tensor,
    sex_female: Tensor,
    age_years: Tensor,
    present: Tensor,
    ever: Tensor,
    lasted: Tensor,
    traits: Tensor,
    treated: Tensor,
    table: Tables | None = None,
) -> Tensor:
    """Log rates per year [B, E] of every onset, resolution, death and bleed in these conditions and treatments."""
    table = tables(static.device) if table is None else table
    treats = indications(present, ever, traits, treated)
    holds = torch.cat((present, ever, traits, treated, treats), -1).to(torch.float32)
    holds = torch.cat((holds, holds[:, table.left] * holds[:, table.right]), -1)
    decades = (age_years - 60.0) * 0.1
    by_age = decades.clamp_max(_OLDEST).unsqueeze(-1) * table.slope
    rate = static + by_age + holds @ table.effects  # exact: see the module's head
    going = rate[:, _C : 2 * _C] + lasted.clamp_max(_LASTING_COUNTS_YEARS) * table.lasting
    dying = rate[:, 2 * _C] + _background(table, sex_female, age_years)
    dying = dying + mortality.combined(holds @ table.excess, age_years)
    return torch.cat((rate[:, :_C], going, dying.unsqueeze(-1), rate[:, 2 * _C + 1 :]), -1)


def background_per_year(static: Tensor, sex_female: Tensor, age_years: Tensor) -> Tensor:
    """Deaths a year [B] of such people had they none of the conditions, risks and treatments."""
    return (static[:, 2 * _C] + _background(tables(static.device), sex_female, age_years)).exp()


def _background(table: Tables, sex_female: Tensor, age_years: Tensor) -> Tensor:
    """Log rate [B] of death a year in people without any condition: linear in age between the ages of the table."""
    count = len(table.death) // 2
    since = age_years.clamp_max(mortality.OLDEST_YEARS) - mortality.YOUNGEST_YEARS
    decade = (since * 0.1).floor().clamp(0, count - 1)
    row = decade.to(torch.int64) + (sex_female > 0.5).to(torch.int64) * count
    return table.death[row] + (since - decade * 10.0) * table.death_slope[row]


def waiting_times(u: Tensor) -> Tensor:
    """Standard exponentials [...] from uniforms [...] on (0, 1)."""
    return -u.log()


def turn(
    rates: Tensor,
    wait: Tensor,
    present: Tensor,
    ever: Tensor,
    lasted: Tensor,
    years: float,
    table: Tables | None = None,
) -> Turn:
    """Conditions after `years` under rates [B, E] a year, with standard exponentials wait [B, C]."""
    table = tables(rates.device) if table is None else table
    on = rates[:, :_C].clamp_max(FASTEST_PER_YEAR)
    hazard = torch.where(present, rates[:, _C : 2 * _C], on) * years
    first = ((wait < hazard) & ~present).to(torch.float32)
    # Complications of what has just begun. What is left of an exponential number is one again, so one serves both.
    brought = torch.where(present, torch.zeros_like(hazard), first @ table.complications)  # exact, as above
    happens = wait < hazard + brought
    started = happens & ~present
    gone = happens & present
    after = present ^ happens
    for old, new in table.becomes:
        healed = gone[:, old] | (present[:, old] & (lasted[:, old] >= _HEALED_AFTER_YEARS))
        after[:, old] &= ~healed
        after[:, new] |= healed
    longer = torch.where(after & present, lasted + years, torch.zeros_like(lasted))
    return Turn(after, ever | after, longer, started)


# each row of AT_ONCE with its columns: of the procedure, the condition (None: a bleed or death), the sparing drug, the
# one needed
_AT_ONCE: tuple[tuple[AtOnce, int, int | None, int | None, int | None], ...] = tuple(
    (
        row,
        PROCEDURES.index(row.procedure),
        None if row.condition in ("bleed", "death") else CODES.index(row.condition),
        DRUGS.index(row.unless) if row.unless else None,
        CODES.index(row.needs) if row.needs else None,
    )
    for row in AT_ONCE
)


def at_once(state: ProgressionState, procedures: Tensor, drugs: Tensor) -> ProgressionState:
    """What procedures [B, PROCEDURES] done now do before the next month begins; none of it in the dead."""
    u = keys.uniform(state.key, state.month, "progression/visit", (len(AT_ONCE),))
    present, ever, lasted, bleeding, dead = (
        state.present.clone(), state.ever.clone(), state.years_since_onset.clone(), torch.zeros_like(state.bleeding),
        state.dead,
    )  # fmt: skip
    alive, nothing = ~state.dead, torch.zeros_like(lasted[:, 0])
    for i, (row, procedure, c, unless, needs) in enumerate(_AT_ONCE):
        done = procedures[:, procedure] & alive
        if c is None:
            hit = done & (u[:, i] < row.chance)
            bleeding, dead = (bleeding | hit, dead) if row.condition == "bleed" else (bleeding, dead | hit)
            continue
        chance = (1.0 - lasted[:, c] * (row.per_year / row.chance)).clamp_min(_LEFT_OF_CHANCE) * row.chance
        if unless is not None:
            chance = torch.where(drugs[:, unless], chance * _LEFT_OF_CHANCE, chance)
        if needs is not None:  # as it was before the visit: success at once does not undo the risk
            done = done & state.present[:, needs]
        hit = done & (u[:, i] < chance)
        present[:, c] = (present[:, c] | hit) if row.starts else (present[:, c] & ~hit)
        ever[:, c] |= present[:, c]
        lasted[:, c] = torch.where(present[:, c] & state.present[:, c], lasted[:, c], nothing)
    return state._replace(
        present=present,
        ever=ever,
        years_since_onset=lasted,
        bleeding=bleeding,
        dead=dead,
        procedures=state.procedures | (procedures & alive.unsqueeze(-1)),
    )
