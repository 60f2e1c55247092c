"""What the clinic's devices, valves and newer drugs do: for whom they are, what trials showed, how the old die."""

from __future__ import annotations

import math

import pytest
import torch

from world_models import keys
from world_models.life_table import LIFE_TABLE
from world_models.oracles.progression import mortality
from world_models.oracles.progression import state as body
from world_models.oracles.progression.care import usual_care
from world_models.oracles.progression.ecg.shown import FORMS, form_of, shown_on_ecg
from world_models.oracles.progression.months import months
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import CODES, DRUGS, PROCEDURES, TREATMENTS
from world_models.quantities.treated_columns import joined, parted

WORLD = ProgressionOracle(cohort="community")


def people(count: int, *present: str, age: float = 65.0, traits: tuple[str, ...] = (), before: tuple[str, ...] = ()):
    """Untreated people of that age with exactly these conditions and traits, and these in their history."""
    yes = torch.tensor([float(code in present) for code in CODES]).expand(count, -1)
    given = {"condition": yes, "age_years": torch.full((count,), age)}
    state = WORLD.initial(keys.from_seed(21, count), given)
    hold = torch.tensor([name in traits for name in body.TRAITS]).expand(count, -1)
    ever = state.present | torch.tensor([code in before for code in CODES])
    none = {"procedures": torch.zeros_like(state.procedures), "drugs": torch.zeros_like(state.drugs)}
    return state._replace(traits=hold, ever=ever, **none)


def rate(state, event: str, *treated: str) -> torch.Tensor:
    """Rate a year [B] of "death", a code or "resolve CODE" under these treatments."""
    given = torch.tensor([name in treated for name in TREATMENTS]).expand(len(state.key), -1)
    static = body.static_rates(state.sex_female, state.frailty)
    held = (state.present, state.ever, state.years_since_onset, state.traits, given)
    rates = body.log_rates(static, state.sex_female, state.entry_age_years, *held).exp()
    return rates[:, [*CODES, *(f"resolve {c}" for c in CODES), "death", "bleed"].index(event)]


def ratio(state, event: str, *treated: str) -> float:
    return float((rate(state, event, *treated) / rate(state, event)).mean())


def test_treatments_are_parted_and_joined_in_the_order_of_the_columns() -> None:
    old = ("cardioversion", "ablation", "pacemaker", "revascularisation", "antiarrhythmic", "beta_blocker")
    assert (*old, "ace_inhibitor", "diuretic", "anticoagulant") == TREATMENTS[:9], "what is new is appended"
    columns = torch.arange(len(TREATMENTS)).expand(3, -1)
    procedures, drugs = parted(columns)
    assert [TREATMENTS[i] for i in procedures[0]] == list(PROCEDURES) and [TREATMENTS[i] for i in drugs[0]] == list(
        DRUGS
    )
    assert torch.equal(joined(procedures, drugs), columns)


def test_a_persons_form_of_disease_is_the_one_that_the_ecg_shows() -> None:
    key = keys.from_seed(4, 500)
    shown = shown_on_ecg(key, torch.zeros_like(key), torch.ones(500, len(CODES), dtype=torch.bool))
    for name, forms in FORMS.items():
        for form, _ in forms:
            assert torch.equal(form_of(key, name, (form,)), shown.is_form(name, form))
    state = WORLD.initial(key)
    blocked = shown.is_form("I44", "second_degree") | shown.is_form("I44", "third_degree")
    assert torch.equal(state.traits[:, body.TRAITS.index("high_block")], blocked)
    assert torch.equal(state.traits[:, body.TRAITS.index("left_branch")], shown.is_form("I44", "lbbb"))


WEAK, BROAD = ("reduced",), ("reduced", "left_branch")


@pytest.mark.parametrize(
    ("treated", "event", "present", "before", "traits", "published"),
    [
        ("statin", "I21", ("I25",), (), (), 0.81),
        ("statin", "I63", ("I25",), (), (), 0.86),
        ("statin", "death", ("I50", "I25"), (), (), 0.961),
        ("sglt2_inhibitor", "death", ("I50",), (), WEAK, 0.87),
        ("sglt2_inhibitor", "death", ("I50",), (), (), 0.92),
        ("sglt2_inhibitor", "I50", (), ("I50",), (), 0.72),
        ("icd", "death", ("I50",), (), WEAK, 0.77),
        ("icd", "death", ("I50",), (), (), 1.0),
        ("icd", "death", ("I42", "I21"), (), (), 1.0),
        ("icd", "death", ("I47",), (), ("ventricular",), 0.77),
        ("crt", "death", ("I50", "I44"), (), BROAD, 0.64),
        ("crt", "death", ("I50", "I44"), (), WEAK, 1.81),
        ("crt", "death", ("I50",), (), BROAD, 1.81),
        ("crt", "I50", ("I44",), ("I50",), BROAD, 0.48),
        ("valve_replacement", "death", ("I35", "I50"), (), ("stenosis",), 0.52),
        ("valve_replacement", "death", ("I35",), (), ("stenosis",), 1.0),
        ("valve_replacement", "death", ("I50",), (), (), 1.0),
        ("pacemaker", "death", ("I44",), (), ("left_branch",), 1.0),
        ("diuretic", "I50", ("I10",), (), (), 0.51),
        ("diuretic", "I50", (), ("I50",), (), 0.72),
        ("diuretic", "I63", ("I48",), (), (), 1.0),
        ("diuretic", "death", ("I50",), (), (), 1.0),
    ],
)
def test_an_effect_is_the_tables_in_whom_it_was_shown(
    treated: str, event: str, present: tuple, before: tuple, traits: tuple, published: float
) -> None:
    state = people(50, *present, before=before, traits=traits)
    assert ratio(state, event, treated) == pytest.approx(published, rel=0.01)


def test_a_device_that_paces_takes_away_what_a_block_of_high_degree_kills() -> None:
    blocked, well = people(50, "I44", traits=("high_block",)), people(50, "I44", traits=("left_branch",))
    untreated = float((rate(blocked, "death") / rate(well, "death")).mean())
    assert untreated == pytest.approx(3.0, rel=0.01)
    for device in ("pacemaker", "icd"):
        assert torch.allclose(rate(blocked, "death", device), rate(well, "death", device), rtol=0.01)
    twice = rate(blocked, "death", "pacemaker", "icd")
    assert torch.equal(twice, rate(blocked, "death", "icd")), "two devices save nobody twice"


def test_a_new_valve_may_kill_and_block_and_strike_at_once() -> None:
    state = people(6000, "I35", traits=("stenosis",))
    done = torch.tensor([name == "valve_replacement" for name in PROCEDURES]).expand(6000, -1)
    after = body.at_once(state, done, state.drugs)
    assert 0.003 < float(after.dead.float().mean()) < 0.015
    for code, low, high in (("I63", 0.008, 0.025), ("I44", 0.12, 0.18), ("I48", 0.16, 0.24)):
        assert low < float(after.present[:, CODES.index(code)].float().mean()) < high, code
    orders = torch.zeros(6000, len(TREATMENTS) + 1)
    orders[:, TREATMENTS.index("valve_replacement")], orders[:, -1] = 1.0, 1.0
    seen = WORLD.transition(state, orders)
    assert bool(seen.dead[after.dead].all()) and bool((seen.months_since_visit[after.dead] == 0).all())
    again = WORLD.transition(seen, orders)
    assert torch.equal(again.procedures[seen.dead], seen.procedures[seen.dead])


@pytest.mark.parametrize("sex", [0.0, 1.0])
def test_the_background_is_the_lines_between_its_ages(sex: float) -> None:
    ages = torch.tensor([40.0, 60.0, 65.0, 90.0, 100.0, 104.0, 30.0])
    static = body.static_rates(torch.full((7,), sex), torch.zeros(7, 6))
    found = 1000.0 * body.background_per_year(static, torch.full((7,), sex), ages)
    at = {age: both[int(sex)] for age, both in mortality.BACKGROUND.items()}
    expected = [at[40], at[60], math.sqrt(at[60] * at[70]), at[90], at[100], at[100], at[40] ** 2 / at[50]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=0.0)
    ordered = [at[age] for age in sorted(at)]
    assert ordered == sorted(ordered) and all(x < LIFE_TABLE[a][int(sex)] for a, x in at.items())


def test_the_old_die_as_the_life_table_says() -> None:
    for age, sex in ((80, 0), (85, 1)):
        table = {80: (58.21, 42.77), 85: (97.85, 74.26)}[age][sex]
        count = 3000
        given = {"age_years": torch.full((count,), float(age)), "sex_female": torch.full((count,), float(sex))}
        state = WORLD.initial(keys.from_seed(3, count), given)
        after = months(state, state.drugs, torch.full_like(state.month, 12))
        assert 1000.0 * float(after.dead.float().mean()) == pytest.approx(table, rel=0.2)


def test_many_diseases_do_not_multiply_without_end_and_count_less_in_the_old() -> None:
    one, many = people(20, "I50", age=65.0), people(20, *CODES, age=65.0)
    healthy = rate(people(20, age=65.0), "death")
    assert float((rate(one, "death") / healthy).mean()) == pytest.approx(6.0, rel=0.01)
    product = math.prod(r.ratio for r in mortality.EXCESS if r.feature.removeprefix("ever ") in CODES)
    assert 6.0 < float((rate(many, "death") / healthy).mean()) < 0.1 * product
    old = rate(people(20, "I50", age=90.0), "death") / rate(people(20, age=90.0), "death")
    assert float(old.mean()) == pytest.approx(6.0**0.6, rel=0.01)


def test_the_clinician_implants_once_and_for_a_reason() -> None:
    weak = people(3000, "I42", "I44", "I50", traits=BROAD)
    orders = usual_care(WORLD.observe(weak), weak.key, weak.t)
    share = {name: float(orders[:, TREATMENTS.index(name)].mean()) for name in TREATMENTS}
    assert 0.02 < share["icd"] < 0.2 and 0.03 < share["crt"] < 0.25 and 0.1 < share["sglt2_inhibitor"] < 0.5
    assert share["valve_replacement"] == 0.0
    has = weak._replace(procedures=torch.ones_like(weak.procedures))
    again = usual_care(WORLD.observe(has), has.key, has.t)
    for name in ("pacemaker", "icd", "crt", "valve_replacement"):
        assert float(again[:, TREATMENTS.index(name)].mean()) < 1e-3, name
    scarred = people(3000, "I25")
    statin = usual_care(WORLD.observe(scarred), scarred.key, scarred.t)[:, TREATMENTS.index("statin")]
    assert 0.35 < float(statin.mean()) < 0.85
