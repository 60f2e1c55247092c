"""Orders by the clock, stopped by the QTc, drawn by chance; and the best constant, chosen where it may be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from agents.baselines import constants
from agents.baselines.constants import best, candidates, tried
from agents.baselines.explain_sets import FixedSets
from agents.baselines.rules import clinician, dofetilide_label, nothing
from agents.baselines.schedule import EVERY_VISIT, ONCE, Schedule, StoppedByQTc
from agents.baselines.uniform import UniformAmounts
from agents.board.stage import HORIZONS, Stage
from agents.board.watched import outside
from agents.making import Making
from agents.protocol import menu_of, to_orders
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.envs.ehr_ward.orders import DOSES, SWITCHES
from world_models import keys
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ward import ORDERS


def making(env_id: str, steps: int, runs, world: str | None = None) -> Making:
    stage = Stage(env_id, steps)
    simulator = stage.oracle if world == "oracle" else stage.learned
    return Making(env_id, simulator, world or stage.learned_name, steps, runs=runs, quick=True)


def at(hours: float, rows: int = 3) -> dict[str, torch.Tensor]:
    return {"hours": torch.full((rows,), hours)}


def test_a_schedule_follows_the_clock_from_the_first_visit_on() -> None:
    amount, every = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([6.0, 12.0, ONCE, EVERY_VISIT])
    agent = Schedule(ECGDrugTask(), amount, every)
    for start in (0.0, 25.0):  # admitted, or taken over in the middle of a stay
        agent.reset()
        given = [agent.act(at(start + h))[1].tolist() for h in (0.0, 2.0, 6.0, 12.0, 18.0, 24.0)]
        assert given == [[1, 2, 3, 4], [0, 0, 0, 4], [1, 0, 0, 4], [1, 2, 0, 4], [1, 0, 0, 4], [1, 2, 0, 4]]
    agent.act(at(start + 26.0))
    agent.reset(torch.tensor([True, False, False]))  # another patient in row 0 begins from the beginning
    assert agent.act(at(start + 28.0)).tolist() == [[1, 2, 3, 4], [0, 0, 0, 4], [0, 0, 0, 4]]
    with pytest.raises(ValueError, match="0 or more"):
        Schedule(ECGDrugTask(), -amount, every)
    with pytest.raises(ValueError, match="must be"):
        Schedule(ECGDrugTask(), amount, every[:2])


def test_rows_keep_their_own_schedule_when_others_leave() -> None:
    agent = Schedule(ECGDrugTask(), torch.tensor([[1.0], [2.0], [3.0]]), torch.full((3, 1), 6.0))
    agent.act(at(0.0))
    agent.narrow(torch.tensor([0, 2]))
    agent.narrow(torch.tensor([1]))
    assert agent.act(at(6.0, 1)).tolist() == [[3.0]]


def test_a_long_qtc_stops_the_drug_for_good() -> None:
    simulator = Stage("ECGDrug-v0", 24).learned
    course = Schedule(simulator.task, torch.tensor([0.0, 0.5, 0.0, 0.0]), torch.full((4,), EVERY_VISIT))
    agent = StoppedByQTc(course, simulator, 440.0)

    def step(*qtcf_ms: float) -> list[float]:
        before = torch.tensor([420.0, 420.0, 445.0])
        chart = {**at(0.0), "qtcf_ms": torch.tensor(qtcf_ms), "baseline_qtcf_ms": before}
        return agent.act(chart)[:, 1].tolist()

    assert step(430.0, 430.0, 430.0) == [0.5, 0.5, 0.0], "the third began too long"
    assert step(481.0, 479.0, 430.0) == [0.0, 0.5, 0.0], "60 ms above admission"
    assert step(420.0, 501.0, 430.0) == [0.0, 0.0, 0.0] and step(420.0, 420.0, 420.0) == [0.0, 0.0, 0.0]
    agent.reset()
    assert step(430.0, 430.0, 430.0) == [0.5, 0.5, 0.0]


def test_chance_orders_as_the_action_space_would() -> None:
    rows = {"hours": torch.zeros(400)}
    for actions, share in ((SWITCHES, 0.5), (DOSES, 0.5)):
        agent = UniformAmounts(actions, ORDERS, seed=3)
        first, second = agent.act(rows), agent.act(rows)
        assert not outside(first, actions, ORDERS).any() and not torch.equal(first, second)
        graded = torch.tensor([q.unit != "bool" for q in ORDERS])
        assert float((first[:, graded] > 0).float().mean()) == pytest.approx(share, abs=0.02)
        agent.reset()
        assert torch.equal(agent.act(rows), first)
    asked = (UniformAmounts(DOSES, ORDERS).act(rows)[:, ~graded] > 0).float().mean()
    assert float(asked) == pytest.approx(0.25, abs=0.02), "yes from a half of a continuous dose upwards"


def test_constants_are_actions_of_their_id_and_within_the_labels() -> None:
    for env_id in HORIZONS:
        simulator = Stage(env_id, 8).learned
        offered = candidates(simulator, env_id)
        assert len(set(offered.names)) == len(offered.names) >= 30
        state, chart = simulator.reset(keys.from_seed(3, 2))
        for name, row in zip(offered.names, range(len(offered.names)), strict=True):
            orders = to_orders(offered.agent(simulator, torch.tensor(row)).act(chart), menu_of(simulator))
            assert not outside(orders, simulator.task.actions, simulator.world.orders).any(), (env_id, name)
    drug = Stage("ECGDrugContinuous-v0", 8).learned
    offered = candidates(drug, "ECGDrugContinuous-v0")
    daily = torch.tensor([d.largest_daily_mg for d in ANTIARRHYTHMICS])
    assert bool((offered.amount * 24.0 / offered.every_hours <= daily + 1e-4).all())
    assert "dofetilide 0.25 mg every 12 h" in offered.names


def test_the_best_constant_is_chosen_on_tuning_patients_and_kept(tmp_path) -> None:
    where = making("ECGDrug-v0", 24, tmp_path)
    found = tried(where)
    assert len(found["names"]) == len(found["returns"]) and len(found["finalists"]) == constants.FINALISTS
    chosen = best(where)
    top = found["final_returns"].index(max(found["final_returns"]))
    assert chosen.settings["chosen"] == found["finalists"][top] == chosen.agent.name
    path = next(tmp_path.glob("constants-ECGDrug-v0-ecg-wm-small-24.json"))
    kept = {**json.loads(path.read_text()), "names": ["another"]}
    path.write_text(json.dumps(kept))
    assert tried(where)["names"] == ["another"], "what is kept is used again"
    assert tried(replace(where, quick=False, steps=12))["names"] == found["names"], "but not for another budget"
    own = best(making("ECGDrug-v0", 24, tmp_path, "oracle"))
    assert own.settings["world"] == "oracle" and own.settings["weights"] is None
    guarded = best(where, guarded=True)
    assert guarded.settings["guarded"] and "begun up to" in guarded.settings["chosen"]


def test_one_explanation_for_everyone_where_it_is_possible() -> None:
    chart = {"condition_before": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    assert FixedSets(torch.tensor([1.0, 0.0])).solve(chart).tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert FixedSets(torch.tensor([0.0, -1.0])).solve(chart).tolist() == [[0.0, 0.0], [0.0, -1.0]]


def test_rules_speak_the_language_of_their_id(tmp_path) -> None:
    for env_id, build in (
        ("ECGDrugContinuous-v0", dofetilide_label),
        ("EHRWard-v0", clinician),
        ("EHRWardDose-v0", clinician),
        ("ECGProgression-v0", nothing),
        ("EHRReplay-v0", nothing),
    ):
        where = making(env_id, 12, tmp_path)
        chart = where.simulator.reset(keys.from_seed(1, 6))[1]
        orders = to_orders(build(where).act(chart), menu_of(where.simulator))
        assert not outside(orders, where.simulator.task.actions, where.simulator.world.orders).any(), env_id
