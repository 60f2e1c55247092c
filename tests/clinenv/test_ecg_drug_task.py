"""The reward's terms one by one, the cost's classes, and that doing nothing is not the best one can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from clinenv.envs.ecg_drug.task import MENU, ECGDrugTask
from clinenv.rewards import exponential_excess, relative_amount
from clinenv.simulator import Simulator
from tests.toy_world import ToyWorld
from world_models import keys
from world_models.quantities.ecg_drug import ORDERS

TRIAL = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "ecgrdvq"


def charts(**after: float) -> tuple[dict, dict]:
    before = {"hours": 0.0, "qtcf_ms": 420.0, "baseline_qtcf_ms": 420.0, "arrhythmia_burden": 0.5, "torsades": 0.0}
    both = before, {**before, "hours": 2.0, **after}
    return tuple({name: torch.tensor([value]) for name, value in chart.items()} for chart in both)


def terms(action: list[float] | None = None, **after: float) -> dict[str, float]:
    orders = torch.tensor([action or [0.0] * 4])
    return {name: float(value) for name, value in ECGDrugTask().reward(*_with(orders, charts(**after))).items()}


def _with(orders, pair):
    return pair[0], orders, pair[1]


def test_rhythm_pays_by_time_in_sinus() -> None:
    assert terms(arrhythmia_burden=0.0)["rhythm"] == pytest.approx(10 / 24)
    assert terms(arrhythmia_burden=1.0)["rhythm"] == 0.0
    assert terms(arrhythmia_burden=0.0, hours=4.0)["rhythm"] == pytest.approx(20 / 24)


def test_qt_toxicity_follows_the_published_hazard() -> None:
    assert abs(terms(qtcf_ms=400.0)["qt_toxicity"]) < 1e-4
    at_500 = -(1.06**5 - 1) * 10 / 24
    assert terms(qtcf_ms=500.0)["qt_toxicity"] == pytest.approx(at_500, rel=1e-3)
    hazard = exponential_excess(torch.tensor([510.0, 520.0]), 450.0, 1.06, 10.0, 5.0) + 1
    assert float(hazard[1] / hazard[0]) == pytest.approx(1.06, rel=1e-4)
    grid = exponential_excess(torch.linspace(300, 700, 401), 450.0, 1.06, 10.0, 5.0)
    assert bool((grid.diff() >= 0).all()) and float(grid.diff().diff().abs().max()) < 5e-3, "no corner"


def test_dose_burden_counts_daily_doses_and_torsades_counts_once() -> None:
    assert terms([2000.0, 1.0, 480.0, 1600.0])["dose_burden"] == pytest.approx(-1.0)
    assert terms(torsades=1.0)["torsades"] == -20.0
    before, after = charts(torsades=1.0)
    again = ECGDrugTask().reward(after, torch.zeros(1, 4), after)
    assert float(again["torsades"]) == 0.0
    with pytest.raises(ValueError, match="columns"):
        relative_amount(torch.zeros(1, 3), (1.0, 1.0))


@pytest.mark.parametrize(
    ("qtcf", "baseline", "cost"),
    [(500.0, 460.0, 0), (500.5, 460.0, 1), (480.0, 420.0, 0), (480.5, 420.0, 1), (430.0, 420.0, 0)],
)
def test_cost_is_the_outlier_class(qtcf: float, baseline: float, cost: int) -> None:
    before, after = charts(qtcf_ms=qtcf, baseline_qtcf_ms=baseline)
    assert float(ECGDrugTask().cost(before, torch.zeros(1, 4), after)) == cost


@pytest.mark.parametrize(
    ("part", "after"),
    [
        ("qtc", {"qtcf_ms": 501.0}),
        ("av_block", {"av_block": 1.0}),
        ("bradycardia", {"heart_rate_bpm": 39.0}),
        ("hypotension", {"systolic_bp_mmhg": 89.0}),
    ],
)
def test_each_harm_costs_one_and_is_named(part: str, after: dict[str, float]) -> None:
    well = {"av_block": 0.0, "heart_rate_bpm": 41.0, "systolic_bp_mmhg": 90.0}
    task, nothing = ECGDrugTask(), torch.zeros(1, 4)
    step = charts(**well)
    assert not any(float(v) for v in task.cost_parts(step[0], nothing, step[1]).values())
    before, ill = charts(**(well | after))
    parts = task.cost_parts(before, nothing, ill)
    assert [name for name, value in parts.items() if float(value)] == [part]
    assert float(task.cost(before, nothing, ill)) == 1.0
    before, worse = charts(**(well | after | {"qtcf_ms": 501.0}))
    assert float(task.cost(before, nothing, worse)) == 1.0, "harms do not add up"


def test_what_is_not_known_costs_nothing() -> None:
    task, nothing = ECGDrugTask(), torch.zeros(1, 4)
    nan = float("nan")
    unknown = charts(av_block=nan, heart_rate_bpm=nan, systolic_bp_mmhg=nan, qtcf_ms=nan)
    assert float(task.cost(unknown[0], nothing, unknown[1])) == 0.0
    less = charts()  # a world without block, rate and pressure
    assert list(task.cost_parts(less[0], nothing, less[1])) == list(task.cost_parts(unknown[0], nothing, unknown[1]))


@pytest.mark.parametrize(
    ("given", "since", "cost"),
    [
        ([0.0, 0.5, 80.0, 0.0], [96.0] * 4, 1),
        ([0.0, 0.5, 0.0, 0.0], [96.0, 96.0, 22.0, 96.0], 1),
        ([0.0, 0.5, 0.0, 0.0], [96.0, 96.0, 24.0, 96.0], 0),
        ([0.0, 0.0, 80.0, 0.0], [96.0, 46.0, 96.0, 96.0], 1),
        ([0.0, 0.0, 80.0, 0.0], [96.0, 48.0, 2.0, 96.0], 0),
        ([0.0, 0.0, 0.0, 400.0], [96.0, 2.0, 2.0, 2.0], 0),
    ],
)
def test_dofetilide_and_verapamil_are_not_given_together(given: list[float], since: list[float], cost: int) -> None:
    before, after = charts()
    before["hours_since_dose"] = torch.tensor([since])
    parts = ECGDrugTask().cost_parts(before, torch.tensor([given]), after)
    assert float(parts["contraindicated_pair"]) == cost


def test_the_menu_is_what_the_page_says() -> None:
    table = MENU.table(ORDERS)
    assert table.shape == (9, 4) and bool((table[0] == 0).all())
    assert table[4].tolist() == pytest.approx([0, 0.5, 0, 0]) and table[8].tolist() == pytest.approx([0, 0, 0, 400.0])


def test_nothing_is_not_best_and_overdosing_is_worse() -> None:
    """In the toy world too: a sensible regimen beats nothing, dofetilide every two hours is far worse."""
    simulator = Simulator(ToyWorld(hazard=0.002), ECGDrugTask())
    state, chart = simulator.reset(keys.from_seed(0, 200), {"baseline_burden": torch.full((200,), 0.7)})
    table = MENU.table(ORDERS)

    def value(entry: int, every: int) -> float:
        plan = torch.zeros(200, 24, 4)
        plan[:, ::every] = table[entry]
        return float(simulator.rollout(state, chart, plan).rewards.sum(1).mean())

    nothing = value(0, 1)
    assert value(3, 6) > nothing + 0.2
    assert value(4, 1) < nothing - 5


@pytest.mark.parametrize("cohort", ["typical", "long-qt"])
def test_in_the_oracle_treating_pays_for_most_but_not_where_qt_is_long(cohort: str) -> None:
    """The share of patients for whom a label-like regimen beats doing nothing."""
    from world_models import catalog

    simulator = Simulator(catalog.load("oracle", cohort=cohort), ECGDrugTask())
    state, chart = simulator.reset(keys.from_seed(0, 120))
    table = MENU.table(ORDERS)
    value = {}
    for entry, every in ((0, 1), (1, 6), (3, 6), (4, 6), (4, 1)):
        plan = torch.zeros(120, 24, 4)
        plan[:, ::every] = table[entry]
        value[entry, every] = simulator.rollout(state, chart, plan).rewards.sum(1)
    nothing, full_dose = value[0, 1], value[4, 6]
    if cohort == "typical":
        best = torch.stack([value[1, 6], value[3, 6], full_dose]).amax(0)
        assert float((best > nothing).float().mean()) > 0.8
    else:
        assert float((full_dose > nothing).float().mean()) < 0.1
    assert float(value[4, 1].mean()) < float(nothing.mean()) - 10, "dofetilide every two hours is a disaster"


def test_a_reader_errs_as_the_trial_s_triplicates_scatter() -> None:
    if not TRIAL.is_dir():
        pytest.skip(f"no trial under {TRIAL}; set CLINENV_DATA to the folder that holds ecgrdvq/")
    from benchmarks.ecg_drug.repeatability import READ, repeatability

    rows = repeatability(TRIAL)
    assert [row["measure"] for row in rows] == list(READ)
    assert {c.name for c in ECGDrugTask().observation if c.noise_sd > 0} == set(READ), "the others follow from these"
    for row in rows:
        assert row["readings"] > 3000 and row["task_sd"] == pytest.approx(row["sd"], rel=0.02), row


def test_skewed_and_missing_measures_come_back_in_their_units() -> None:
    """What `describe` says is what was read; the last PR stands where there is none, and no entry is ever NaN."""
    from clinenv.envs.ecg_drug.env import ECGDrugVectorEnv

    env = ECGDrugVectorEnv(64, world="oracle", cohort="persistent", hours=8)
    observation, _ = env.reset(seed=1)
    for _ in range(4):
        assert env.observation_space.contains(observation)
        told, chart = env.describe(observation), env.chart
        for column in ECGDrugTask().observation:
            if column.name in told and column.name != "pr_ms":
                assert told[column.name] == pytest.approx(chart[column.name].numpy(), rel=1e-4, abs=1e-3), column.name
        there = ~chart["pr_ms"].isnan()
        assert 0 < int(there.sum()) < 64
        assert told["pr_ms"][there.numpy()] == pytest.approx(chart["pr_ms"][there].numpy(), rel=1e-4)
        observation, *_ = env.step([3] * 64)
    env.close()
