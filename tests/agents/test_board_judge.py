"""The judge hands out charts alone, takes orders alone, and says why an agent has no result."""

from __future__ import annotations

import gc
import time

import pytest
import torch

from agents.baselines.constant import no_treatment
from agents.baselines.ecg_rules import DofetilideLabelRule
from agents.baselines.uniform import Uniform
from agents.board.draw import checked_salt, edition, judged_keys, new_salt
from agents.board.stage import HORIZONS, Stage
from agents.board.watched import Disqualified, Elsewhere, Watched, Whole, outside, visible
from agents.protocol import menu_of
from agents.rollout import judge
from clinenv.codec import codec_of
from clinenv.envs.ecg_progression.task import LEVELS, ECGProgressionTask
from clinenv.envs.ehr_ward.orders import DOSES, SWITCHES
from clinenv.task import Doses
from world_models import keys
from world_models.quantities.progression import ORDERS as CLINIC
from world_models.quantities.ward import ORDERS as WARD
from world_models.quantities.ward import order_index

SALT = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def drug():
    return Stage("ECGDrug-v0", 24).oracle


class Agent:
    """Does what `act` is told to do, or nothing."""

    name = "under test"

    def __init__(self, act=None):
        self.seen = []
        self._act = act or (lambda chart: torch.zeros(len(chart["hours"]), dtype=torch.int64))

    def reset(self, mask=None):
        pass

    def act(self, chart):
        self.seen.append(chart)
        return self._act(chart)


def judged(agent, simulator, limit_ms=None, steps=4):
    watched = Watched(agent, simulator, visible(simulator.task), limit_ms)
    return judge(watched, simulator, judged_keys(edition(SALT), "ECGDrug-v0", 6), steps), watched


# ---- whom it is judged on


def test_patients_follow_from_the_salt_and_from_what_is_submitted() -> None:
    of = edition(SALT, ["a", "b"])
    assert of == edition(SALT, ["b", "a"]) != edition(SALT, ["a"]) and of != edition(new_salt(), ["a", "b"])
    some, more = judged_keys(of, "ECGDrug-v0", 5), judged_keys(of, "ECGDrug-v0", 9)
    assert torch.equal(some, more[:5]) and not set(some.tolist()) & set(judged_keys(of, "EHRWard-v0", 5).tolist())
    assert not set(some.tolist()) & set(judged_keys(edition(SALT, ["a"]), "ECGDrug-v0", 5).tolist())
    trained_on = keys.from_seed(0, 100_000)  # and each row's later episodes
    assert not set(some.tolist()) & set(torch.cat([trained_on, keys.fold(trained_on, 1)]).tolist())
    assert len({new_salt() for _ in range(5)}) == 5
    for wrong in ("", "xyz", "0" * 31, "A" * 32):
        with pytest.raises(ValueError, match="salt"):
            checked_salt(wrong)


def test_both_worlds_are_given_the_same_patients() -> None:
    key = judged_keys(edition(SALT), "x", 12)
    for env_id, shared in (
        ("ECGDrug-v0", ("age_years", "qtcf_ms", "potassium_mmol_l", "atrial_fibrillation")),
        ("EHRWard-v0", ("age_years", "weight_kg", "diabetes", "complaint")),
        ("ECGProgression-v0", ("age_years", "sex_female", "condition")),
    ):
        stage = Stage(env_id, 12)
        mine, theirs = (
            simulator.reset(patients.keys, patients.factors)[1]
            for patients, simulator in zip(stage.patients(key), (stage.oracle, stage.learned), strict=True)
        )
        for name in shared:  # a QTcF is drawn and read again
            apart = 2.0 if name == "qtcf_ms" else 1e-4
            assert torch.allclose(mine[name], theirs[name], atol=apart), (env_id, name)


def test_a_stay_is_taken_over_from_its_record() -> None:
    stage = Stage("EHRReplay-v0", 12)
    key = judged_keys(edition(SALT), "EHRReplay-v0", 8)
    in_oracle, in_learned = stage.patients(key)
    (_, body), (_, believed) = in_oracle.begun, in_learned.begun
    assert body["hours"].tolist() == believed["hours"].tolist() == [24.0] * 8
    assert bool((body["alive"] > 0.5).all()) and bool((body["discharged"] < 0.5).all())
    for name in ("age_years", "map_mmhg", "heart_rate_bpm", "inquiry_seen"):
        assert torch.equal(body[name], believed[name]), f"{name} stands in the record"
    assert not torch.equal(body["weight_kg"], believed["weight_kg"]), "no record says it"
    alone = stage.patients(key[5:6])[0].begun[1]
    assert torch.equal(alone["map_mmhg"], body["map_mmhg"][5:6])


def test_every_pair_to_be_explained_differs() -> None:
    stage = Stage("ECGExplain-v0", 8)
    for patients in stage.patients(judged_keys(edition(SALT), "ECGExplain-v0", 12)):
        assert bool((patients.begun[0].sought != 0).any(-1).all())


def test_a_stage_refuses_what_the_id_does_not_have() -> None:
    with pytest.raises(ValueError, match="no id 'Pong-v0'"):
        Stage("Pong-v0", 3)
    with pytest.raises(ValueError, match="1 to 8 steps, got 9"):
        Stage("ECGExplain-v0", 9)
    with pytest.raises(ValueError, match="horizon_years"):
        ECGProgressionTask(horizon_years=11.0)
    assert max(HORIZONS["ECGDrug-v0"]) == 168 and max(HORIZONS["EHRWard-v0"]) == 84


# ---- what an agent is handed


def test_an_agent_is_shown_the_observation_and_nothing_of_the_judges_own(drug) -> None:
    key = judged_keys(edition(SALT), "ECGDrug-v0", 6)
    spy = Agent()
    results, _ = judged(spy, drug)
    names = {c.name for c in drug.task.observation}
    secret = set(key.tolist())
    for chart in spy.seen:
        assert set(chart) <= names
        reached, ends = [chart, *gc.get_referents(chart)], 0
        tensors = [x for x in reached if isinstance(x, torch.Tensor)]
        assert len(tensors) == len(chart)
        for values in tensors:
            ends += len(set(values.flatten().to(torch.int64).tolist()) & secret) if values.dtype == torch.int64 else 0
        assert ends == 0, "a random key can be reached"
    clinic = visible(Stage("ECGProgression-v0", 12).oracle.task)
    assert "condition" not in clinic and {"probe", "age_years"} <= set(clinic), "recorded diagnoses are not shown"
    assert bool(torch.isfinite(results.returns).all())


def test_what_an_agent_writes_into_its_chart_changes_nothing(drug) -> None:
    def vandal(chart):
        for values in chart.values():
            values.fill_(1e6)
        chart.clear()
        return torch.zeros(6, dtype=torch.int64)

    spoiled, _ = judged(Agent(vandal), drug)
    honest, _ = judged(no_treatment(), drug)
    assert torch.equal(spoiled.returns, honest.returns) and torch.equal(spoiled.costs, honest.costs)


def test_an_agent_that_cannot_be_narrowed_decides_the_same(drug) -> None:
    key = judged_keys(edition(SALT), "ECGDrug-v0", 60)
    menu = menu_of(drug)
    agent = DofetilideLabelRule(menu, [q.name for q in drug.world.orders])
    plain = judge(agent, drug, key, 24)
    watched = judge(Watched(agent, drug, visible(drug.task)), drug, key, 24)
    assert torch.equal(plain.returns, watched.returns)
    chance = Uniform(9, seed=1)
    whole, carried = judge(chance, drug, key, 24), judge(Whole(chance), drug, key, 24)
    assert torch.equal(whole.returns, carried.returns) and bool((whole.lengths < 24).any()), "somebody left early"


def test_rows_that_have_left_are_carried_on_as_they_were() -> None:
    asked = []

    def act(chart):
        asked.append(chart["hours"].tolist())
        return torch.arange(len(chart["hours"]))

    whole = Whole(Agent(act))
    whole.reset()
    assert whole.act({"hours": torch.tensor([0.0, 1.0, 2.0])}).tolist() == [0, 1, 2]
    whole.narrow(torch.tensor([0, 2]))
    assert whole.act({"hours": torch.tensor([5.0, 7.0])}).tolist() == [0, 2]
    whole.narrow(torch.tensor([1]))
    assert whole.act({"hours": torch.tensor([9.0])}).tolist() == [2]
    assert asked == [[0.0, 1.0, 2.0], [5.0, 1.0, 7.0], [5.0, 1.0, 9.0]]


# ---- what an agent answers


def test_orders_lie_in_the_action_space_of_the_id(drug) -> None:
    orders = torch.zeros(4, len(WARD))
    saline, sodium = order_index("saline_ml"), order_index(WARD[0].name)
    orders[1, saline], orders[2, sodium], orders[3, saline] = 1000.0, 1.0, 250.0
    assert outside(orders, SWITCHES, WARD).tolist() == [False, False, False, True], "250 mL is no standard amount"
    orders[1, saline], orders[2, sodium] = 4001.0, 0.4
    assert outside(orders, DOSES, WARD).tolist() == [False, True, True, False], "too much; half a test"
    menu = drug.task.actions
    doses = torch.tensor([[0.0, 0.5, 0, 0], [0.0, 0.3, 0, 0], [0.0, -0.5, 0, 0], [float("nan"), 0, 0, 0]])
    assert outside(doses, menu, drug.world.orders).tolist() == [False, True, True, True]
    few = Doses({"dofetilide_mg": 0.5})
    assert outside(torch.tensor([[500.0, 0.0, 0, 0]]), few, drug.world.orders).tolist() == [True], "not offered"
    chosen = codec_of(LEVELS, CLINIC, "scaled", torch.device("cpu"))
    some = torch.tensor([LEVELS.counts]) - 1
    level = chosen(some, 1)
    assert not outside(level, LEVELS, CLINIC).any() and outside(level * 0.5, LEVELS, CLINIC).all()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda chart: 1 / 0, "it raised ZeroDivisionError: division by zero"),
        (lambda chart: chart["condition"], "KeyError"),
        (lambda chart: torch.full((6,), 9), "menu index 9"),
        (lambda chart: torch.full((6,), -1), "menu index -1"),
        (lambda chart: torch.full((6, 4), torch.nan), "no action of ECGDrug"),
        (lambda chart: torch.full((6, 4), 0.3), "no action of ECGDrug"),
        (lambda chart: torch.zeros(6, 3), "orders are 4 a patient"),
        (lambda chart: torch.zeros(5, dtype=torch.int64), "for 6 patients"),
        (lambda chart: [0] * 6, "it gave a list"),
        (lambda chart: torch.zeros(6, dtype=torch.bool), "no action"),
    ],
)
def test_an_agent_that_fails_is_disqualified_with_the_reason(drug, act, reason) -> None:
    with pytest.raises(Disqualified, match=reason):
        judged(Agent(act), drug)


def test_an_agent_that_thinks_too_long_is_disqualified(drug) -> None:
    def thinks(chart):
        end = time.process_time() + 0.12
        while time.process_time() < end:
            pass
        return torch.zeros(6, dtype=torch.int64)

    def sleeps(chart):
        time.sleep(0.12)
        return torch.zeros(6, dtype=torch.int64)

    class Away(Elsewhere, Agent):
        """By the clock: in another process who waits is as late as who computes."""

    for agent in (Agent(thinks), Away(sleeps)):
        with pytest.raises(Disqualified, match="ms a patient for a decision; 10 are allowed"):
            judged(agent, drug, limit_ms=10.0)
    _, watched = judged(Agent(sleeps), drug, limit_ms=10.0, steps=2)
    assert watched.decisions == 12 and watched.seconds < 0.1, "a process that was held up did not think"
