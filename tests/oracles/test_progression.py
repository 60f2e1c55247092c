"""The progression oracle: its contract, luck no schedule changes, what cannot be undone, cited effects, the record."""

from __future__ import annotations

import pytest
import torch

from world_models import keys, tree
from world_models.oracles.progression import conditions, mortality, treatments
from world_models.oracles.progression import state as body
from world_models.oracles.progression.care import cha2ds2_vasc, usual_care
from world_models.oracles.progression.entry import COHORTS
from world_models.oracles.progression.visits import consecutive, make_visits, paper_pairs, statistics
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import BECOMES, CODES, DRUGS, IRREVERSIBLE, ORDERS, PROCEDURES, TREATMENTS
from world_models.testing import check_world, random_orders

CLINIC = ProgressionOracle()
HOSPITAL = ProgressionOracle(cohort="hospital")


def orders(count: int, months: float, *given: str) -> torch.Tensor:
    row = [1.0 if name in given else 0.0 for name in TREATMENTS]
    return torch.tensor([*row, months]).expand(count, -1)


def people(count: int, *present: str, age: float = 70.0, seed: int = 5):
    """Untreated people of one age with exactly these conditions."""
    yes = torch.tensor([float(code in present) for code in CODES]).expand(count, -1)
    state = CLINIC.initial(keys.from_seed(seed, count), {"condition": yes, "age_years": torch.full((count,), age)})
    return state._replace(procedures=torch.zeros_like(state.procedures), drugs=torch.zeros_like(state.drugs))


def column(state, code: str) -> torch.Tensor:
    return state.present[:, CODES.index(code)]


def drugs(count: int, *given: str) -> torch.Tensor:
    return torch.tensor([name in given for name in DRUGS]).expand(count, -1)


def first_events(state, code: str, taken: torch.Tensor, months: int = 36) -> float:
    """First onsets of `code` a month at risk."""
    stop = torch.tensor([c == code for c in CODES])
    after = months(state, taken, torch.full_like(state.month, months), stop)
    return float((column(after, code) & ~column(state, code)).sum()) / float((after.month - state.month).sum())


@pytest.mark.parametrize("cohort", sorted(COHORTS))
def test_the_contract(cohort: str) -> None:
    check_world(ProgressionOracle(cohort=cohort), batch=5, steps=4)


def test_the_contract_with_ecg() -> None:
    pytest.importorskip("world_models.oracles.progression.ecg.synthesis")
    check_world(CLINIC, batch=3, steps=2, also=("ecg_mv",))


def test_a_row_of_a_large_batch_is_the_patient_alone() -> None:
    key = keys.from_seed(11, 600)
    state, alone = HOSPITAL.initial(key), HOSPITAL.initial(key[577:578])
    for step in range(3):
        action = random_orders(HOSPITAL, key, step)
        state, alone = HOSPITAL.transition(state, action), HOSPITAL.transition(alone, action[577:578])
    for many, one in zip(tree.leaves(state), tree.leaves(alone), strict=True):
        assert torch.equal(many[577:578], one)


def test_sums_of_log_ratios_are_exact_in_any_order() -> None:
    effects = body.tables(torch.device("cpu")).effects
    assert torch.equal((effects * 1024.0).round(), effects * 1024.0)
    holds = (keys.uniform(keys.from_seed(3, 50), 0, "holds", (effects.shape[0],)) < 0.5).float()
    turned = torch.randperm(effects.shape[0], generator=torch.Generator().manual_seed(0))
    assert torch.equal(holds @ effects, holds[:, turned] @ effects[turned])
    assert torch.equal((holds @ effects).double(), holds.double() @ effects.double())
    excess = body.tables(torch.device("cpu")).excess
    assert torch.equal((holds @ excess).double(), holds.double() @ excess.double())


def test_one_year_at_once_or_in_quarters_is_the_same_course() -> None:
    state = HOSPITAL.initial(keys.from_seed(2, 300))
    once = HOSPITAL.transition(state, orders(300, 12.0, "beta_blocker", "anticoagulant"))
    quarter = state
    for _ in range(4):
        quarter = HOSPITAL.transition(quarter, orders(300, 3.0, "beta_blocker", "anticoagulant"))
    for name in ("present", "ever", "years_since_onset", "month", "dead"):
        assert torch.equal(getattr(once, name), getattr(quarter, name)), name
    assert bool((once.present != state.present).any()) and bool(once.dead.any()), "nothing happened: no test"


def test_what_cannot_be_undone_is_not() -> None:
    state = HOSPITAL.initial(keys.from_seed(3, 300))
    for step in range(6):
        after = HOSPITAL.transition(state, random_orders(HOSPITAL, state.key, step))
        gone = state.present & ~after.present
        for code in IRREVERSIBLE:
            assert not bool(gone[:, CODES.index(code)].any()), code
        for old, new in BECOMES.items():
            assert bool(column(after, new)[gone[:, CODES.index(old)]].all())
        state = after


def test_an_infarction_heals_into_a_scar_within_four_months() -> None:
    state = people(200, "I21")
    after = CLINIC.transition(state, orders(200, 4.0))
    live = ~after.dead
    again = column(after, "I21") & (after.years_since_onset[:, CODES.index("I21")] > 0.26)
    assert int(live.sum()) > 100 and not bool(again[live].any())
    assert bool(column(after, "I25")[live].all())


def test_the_dead_stay_as_they_died() -> None:
    state = HOSPITAL.initial(keys.from_seed(4, 300))
    state = HOSPITAL.transition(state, orders(300, 24.0))
    dead = state.dead.nonzero()[:, 0]
    assert len(dead) > 10
    later = HOSPITAL.transition(state, orders(300, 24.0, *TREATMENTS))
    before, after = HOSPITAL.observe(tree.take(state, dead)), HOSPITAL.observe(tree.take(later, dead))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_luck_keeps_the_patient() -> None:
    state = CLINIC.initial(keys.from_seed(5, 40))
    other = CLINIC.rekey(state, keys.fold(state.key, "other"))
    assert torch.equal(other.patient, state.key), "the anatomy must not follow the luck"
    a, b = CLINIC.transition(state, orders(40, 24.0)), CLINIC.transition(other, orders(40, 24.0))
    assert bool((a.present != b.present).any())


@pytest.mark.parametrize(
    ("drug", "present", "code", "low", "high"),
    [
        ("anticoagulant", "I48", "I63", 0.2, 0.6),
        ("diuretic", "I10", "I50", 0.3, 0.75),
        ("ace_inhibitor", "I25", "I50", 0.5, 0.95),
        ("beta_blocker", "I25", "I95", 1.1, 2.4),
    ],
)
def test_cited_effects_come_back_from_simulation(drug: str, present: str, code: str, low: float, high: float) -> None:
    state = people(3000, present)
    ratio = first_events(state, code, drugs(3000, drug)) / first_events(state, code, drugs(3000))
    assert low < ratio < high


def test_anticoagulants_bleed_and_beta_blockers_save_in_heart_failure() -> None:
    failing = people(3000, "I50")
    plain, blocked = (CLINIC.transition(failing, orders(3000, 24.0, *d)) for d in ((), ("beta_blocker",)))
    assert int(blocked.dead.sum()) < 0.9 * int(plain.dead.sum())
    bled = CLINIC.transition(failing, orders(3000, 24.0, "anticoagulant")).bleeding
    assert int(bled.sum()) > 1.3 * int(plain.bleeding.sum())


def test_procedures_act_at_once_and_harm_some() -> None:
    fibrillating = people(4000, "I48")
    done = torch.tensor([name == "cardioversion" for name in PROCEDURES]).expand(4000, -1)
    shocked = body.at_once(fibrillating, done, drugs(4000))
    covered = body.at_once(fibrillating, done, drugs(4000, "anticoagulant"))
    sinus = 1.0 - float(column(shocked, "I48").float().mean())
    assert 0.7 < sinus < 0.95
    assert int(column(covered, "I63").sum()) < int(column(shocked, "I63").sum())
    angina = people(1000, "I20", "I25")
    stent = torch.tensor([name == "revascularisation" for name in PROCEDURES]).expand(1000, -1)
    relieved = body.at_once(angina, stent, drugs(1000))
    assert float(column(relieved, "I20").float().mean()) < 0.4 and bool(column(relieved, "I25").all())
    assert (
        bool(relieved.procedures[:, PROCEDURES.index("revascularisation")].all())
        and int(column(relieved, "I21").sum()) > 0
    )


def test_age_and_conditions_raise_the_rates() -> None:
    young, old, hypertensive = people(500, age=55.0), people(500, age=75.0), people(500, "I10", age=55.0)
    rates = [CLINIC.truth(s)["onset_per_year"][:, CODES.index("I48")].mean() for s in (young, old, hypertensive)]
    assert 3.5 < float(rates[1] / rates[0]) < 6.0, "2.1 to 2.2 a decade"
    assert 1.2 < float(rates[2] / rates[0]) < 1.9
    assert bool((CLINIC.truth(old)["death_per_year"] > CLINIC.truth(young)["death_per_year"]).all())


def test_factors_fix_the_patient_and_bad_ones_are_refused() -> None:
    key = keys.from_seed(6, 4)
    wanted = torch.zeros(4, len(CODES))
    wanted[:, CODES.index("I44")] = 1.0
    state = CLINIC.initial(key, {"condition": wanted})
    assert torch.equal(state.present, wanted > 0.5)
    chart = CLINIC.observe(state)
    again = CLINIC.initial(key, CLINIC.read(chart))
    assert torch.equal(CLINIC.observe(again)["condition"], chart["condition"])
    with pytest.raises(ValueError, match="unknown factor"):
        CLINIC.initial(key, {"weight_kg": torch.zeros(4)})
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        CLINIC.initial(key, {"condition": wanted + 0.25 * (wanted == 1.0)})
    with pytest.raises(ValueError, match="18 to 95"):
        CLINIC.initial(key, {"age_years": torch.full((4,), 12.0)})
    with pytest.raises(ValueError, match="shape"):
        CLINIC.initial(key, {"condition": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match="no cohort"):
        ProgressionOracle(cohort="spa")
    with pytest.raises(ValueError, match="columns"):
        CLINIC.transition(state, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="no measure"):
        CLINIC.observe(state, ("mri",))


def test_every_row_of_the_tables_names_its_source() -> None:
    assert set(conditions.ONSETS) == set(CODES)
    assert set(conditions.RESOLUTIONS) == set(CODES) - IRREVERSIBLE
    assert {r.source for r in conditions.RATIOS} <= set(conditions.SOURCES)
    assert {r.source for r in mortality.EXCESS} <= set(mortality.SOURCES)
    rows = [*treatments.TREATMENT_RATIOS, *treatments.AT_ONCE]
    assert {r.source for r in rows} <= set(treatments.SOURCES)
    moved = {part.strip() for r in treatments.TREATMENT_RATIOS for part in r.feature.split("&")}
    assert set(TREATMENTS) <= moved | {r.procedure for r in treatments.AT_ONCE}


def test_the_clinician_follows_the_chart_in_his_own_way() -> None:
    state = people(2000, "I48", "I10", age=78.0)
    chart = CLINIC.observe(state)
    given = usual_care(chart, state.key, state.t)
    assert given.shape == (2000, len(ORDERS)) and set(given[:, -1].tolist()) <= {1.0, 3.0, 6.0, 12.0}
    share = float(given[:, TREATMENTS.index("anticoagulant")].mean())
    assert 0.45 < share < 0.85, "most, not all: treatment must vary at a given state"
    healthy = usual_care(CLINIC.observe(people(2000, age=50.0)), state.key, state.t)
    assert float(healthy[:, : len(TREATMENTS)].mean()) < 0.05
    assert not bool(healthy[:, TREATMENTS.index("cardioversion")].any())
    assert torch.equal(cha2ds2_vasc(chart["age_years"], state.sex_female, chart["condition"]), 3.0 + state.sex_female)


@pytest.fixture(scope="module")
def record():
    return make_visits(0, 1500, "hospital")


def test_the_record_is_sorted_and_reproducible(record) -> None:
    step = record.patient[1:] - record.patient[:-1]
    assert bool((step >= 0).all()) and bool((record.days[1:] > record.days[:-1])[step == 0].all())
    assert bool((record.t[1:] == record.t[:-1] + 1)[step == 0].all()) and int(record.t.max()) < 12
    part = make_visits(700, 3, "hospital")
    rows = (record.patient >= 700) & (record.patient < 703)
    assert torch.equal(record.condition[rows], part.condition) and torch.equal(record.days[rows], part.days)
    first = record.t == 0
    assert torch.equal(record.key[first], keys.from_seed(0, 1500))
    assert torch.equal(record.condition[first], HOSPITAL.initial(keys.from_seed(0, 1500)).present)
    with pytest.raises(ValueError, match="patients=0"):
        make_visits(0, 0)


def test_the_record_has_the_shape_of_the_real_one(record) -> None:
    found = statistics(record)
    assert 2.0 <= found["ecgs_per_patient_median"] <= 3.0 and 3.5 < found["ecgs_per_patient_mean"] < 5.0
    assert 0.65 < found["stable_share"] < 0.9 and found["changed_1_share"] > found["changed_2_share"]
    seen = record.condition.float().mean(0)
    assert float(seen.min()) > 0.002, "each condition must be there to be learned"


def test_paper_pairs_have_the_papers_shares(record) -> None:
    pairs = paper_pairs(record, 1)
    found = statistics(record, pairs)
    assert abs(found["stable_share"] - 0.729) < 0.03 and abs(found["changed_1_share"] - 0.326) < 0.06
    assert bool((record.patient[pairs[:, 0]] == record.patient[pairs[:, 1]]).all())
    assert torch.equal(pairs, paper_pairs(record, 1)) and not torch.equal(pairs, paper_pairs(record, 2))
    many = paper_pairs(record, 1, count=1000)
    assert len(many) == 1000 and len(torch.unique(many[:, 0])) == 1000
    assert abs(statistics(record, many)["stable_share"] - 0.729) < 0.01
    with pytest.raises(ValueError, match="stable pairs more"):
        paper_pairs(record, 1, count=10 * len(consecutive(record)))
