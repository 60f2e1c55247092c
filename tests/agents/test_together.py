"""Results of several processes are those of one, to the bit."""

from __future__ import annotations

import pytest
import torch

from agents.baselines.uniform import Uniform
from agents.together import judge_together
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from tests.cardiac_jepa.two_processes import run
from tests.toy_world import ToyWorld
from world_models import keys, processes, tree

PATIENTS, STEPS, GROUP = 22, 6, 5  # five groups, the last of two: three for one process, two for the other


def judged(group: int = GROUP):
    simulator = Simulator(ToyWorld(hazard=0.2), ECGDrugTask())
    return judge_together(
        lambda first: Uniform(len(simulator.task.actions), seed=first),
        simulator,
        keys.from_seed(0, PATIENTS),
        STEPS,
        group,
    )


def flat(found) -> list[torch.Tensor]:
    return tree.leaves(found)


def by_two(rank: int) -> list[torch.Tensor]:
    own = torch.arange(3 + rank)
    heard = processes.gathered((own, own % 2 == 0))
    assert [part[0].tolist() for part in heard] == [[0, 1, 2], [0, 1, 2, 3]] and heard[1][1].dtype == torch.bool
    with pytest.raises(ValueError, match="22 patients in groups of 22 are 1 groups for 2 processes"):
        judged(PATIENTS)
    return flat(judged())


def test_two_processes_give_what_one_gives(tmp_path) -> None:
    alone = flat(judged())
    for heard in run(by_two, tmp_path):
        assert len(heard) == len(alone) and all(torch.equal(a, b) for a, b in zip(alone, heard, strict=True))


def test_a_process_alone_meets_nobody() -> None:
    assert processes.ranks() == (0, 1) and processes.gathered(torch.arange(3))[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="group=0"):
        judged(0)
