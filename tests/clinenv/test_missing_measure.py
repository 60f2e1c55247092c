"""A measure that is missing now (PR in fibrillation): what is observed, paid and painted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import clinenv  # noqa: F401, registers the ids
from clinenv.envs.ecg_drug.env import ECGDrugEnv, ECGDrugVectorEnv
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.readings import Readings
from clinenv.view import ChartView
from world_models import keys
from world_models.oracles.ecg_drug.world import ECGDrugOracle


@pytest.fixture(scope="module")
def world():
    return ECGDrugOracle("persistent")


@pytest.mark.parametrize("noise", ["none", "clinic"])
def test_the_last_pr_that_was_read_stays_and_the_column_says_so(world, noise):
    task = ECGDrugTask()
    view = ChartView(world, task)
    readings = Readings(world, task, view, noise, "none")
    pr, waving = (view.layout.names.index(n) for n in ("pr_ms", "atrial_fibrillation"))
    state = world.initial(keys.from_seed(3, 200))
    last = None
    seen_changes = 0
    for _ in range(4):
        chart = world.observe(state)
        row = readings.row(chart, state.key, state.t, last)
        assert torch.isfinite(row).all()
        assert (row >= torch.as_tensor(view.layout.low)).all() and (row <= torch.as_tensor(view.layout.high)).all()
        gone = chart["atrial_fibrillation"] > 0
        assert torch.equal(row[:, waving] > 0.5, gone) and torch.equal(gone, chart["pr_ms"].isnan())
        before = torch.full_like(row[:, pr], 170.0) if last is None else last[:, pr]
        assert torch.equal(row[gone, pr], before[gone])
        if noise == "none":
            assert torch.equal(row[~gone, pr], chart["pr_ms"][~gone])
        seen_changes += int(gone.sum())
        last, state = row, world.transition(state, torch.zeros(200, 4))
    assert seen_changes > 100


def test_reward_and_cost_stay_finite_and_observations_in_their_box():
    env = ECGDrugVectorEnv(16, world="oracle", cohort="persistent", missingness="some")
    observation, _ = env.reset(seed=4)
    actions = np.arange(16) % 9
    for _ in range(5):
        assert np.isfinite(observation).all() and env.observation_space.contains(observation)
        observation, reward, _, _, info = env.step(actions)
        assert np.isfinite(reward).all() and np.isfinite(info["cost"]).all()
        assert all(np.isfinite(v).all() for n, v in info.items() if n.startswith(("reward_", "spread_")))
    told = env.unwrapped.describe(observation)
    assert np.isfinite(told["pr_ms"]).all() and set(np.unique(told["atrial_fibrillation"])) <= {0.0, 1.0}
    env.close()


def test_a_patient_in_fibrillation_is_painted():
    env = ECGDrugEnv(world="oracle", render_mode="rgb_array")
    env.reset(seed=5, options={"baseline_burden": 1.0})
    env.step(6)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 5
    env.close()
