"""An agent outside of an environment is shown what the environment would show him."""

from __future__ import annotations

import numpy as np
import torch

from agents.observer import Observer
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.vector_env import ClinicalVectorEnv
from world_models import tree

ROWS = 24


def test_what_fibrillation_hides_is_shown_as_it_was_last_read() -> None:
    env = ClinicalVectorEnv(ECGDrugTask(), ROWS, "oracle", autoreset_mode="Disabled")
    shown, _ = env.reset(seed=3)
    observer, few = Observer(env.episodes.interface), Observer(env.episodes.interface)
    rows = torch.arange(ROWS - 1, -1, -3)
    hidden = False
    for step in range(12):
        chart = env.episodes.running.chart
        hidden |= step > 0 and bool(chart["pr_ms"].isnan().any())
        np.testing.assert_array_equal(observer(chart).numpy(), shown)
        if step < 4:
            few(chart)
        else:
            if step == 4:
                few.narrow(rows)
            np.testing.assert_array_equal(few(tree.take(chart, rows)).numpy(), shown[rows.numpy()])
        shown, *_ = env.step(np.zeros(ROWS, int))
    assert hidden, "nobody fibrillates, so nothing was tried"
    fresh, _ = env.reset(options={"reset_mask": np.arange(ROWS) < 5})
    observer.reset(torch.arange(ROWS) < 5)
    np.testing.assert_array_equal(observer(env.episodes.running.chart).numpy(), fresh)
