"""Judging by several processes, a device each: `torchrun --nproc-per-node 4 script.py`, on one machine or many.

The patients are shared out in groups of a fixed size, and every process gets all results: they are the same numbers to
the bit, however many processes there are, on devices of one kind.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from agents.protocol import Agent
from agents.rollout import judge
from agents.tally import EpisodeResults
from clinenv.simulator import Simulator
from world_models import processes, tree

__all__ = ["judge_together"]


def judge_together(
    make: Callable[[int], Agent], simulator: Simulator, keys: Tensor, steps: int, group: int = 256
) -> EpisodeResults:
    """`agents.rollout.judge` on the patients of `keys` int64 [N], shared among the processes; all get all results [N].

    Every process of the run calls this with the same arguments, on a simulator of its own device.

    Args:
        make: the agent of a group of patients, from the number of its first: a planner takes its seed from it.
        steps: at most.
        group: patients judged at once. Another number is another run for an agent whose luck follows its rows.

    Raises:
        ValueError: no keys, a group below 1, fewer than one step, or fewer groups than processes.
    """
    rank, world = processes.ranks()
    if group < 1:
        raise ValueError(f"group={group} patients at once; give at least 1")
    groups = tree.runs(len(keys), group)
    if len(groups) < world:
        raise ValueError(
            f"{len(keys)} patients in groups of {group} are {len(groups)} groups for {world} processes; give more "
            "patients, a smaller group, or fewer processes"
        )
    own = [judge(make(rows.start), simulator, keys[rows].to(simulator.device), steps) for rows in groups[rank::world]]
    heard = processes.gathered(tree.cat(own))
    parts: list[EpisodeResults] = []
    taken = [0] * world
    for number, rows in enumerate(groups):  # back into the order of the keys
        whose, count = number % world, rows.stop - rows.start
        parts.append(tree.take(heard[whose], slice(taken[whose], taken[whose] + count)))
        taken[whose] += count
    return tree.cat(parts)
