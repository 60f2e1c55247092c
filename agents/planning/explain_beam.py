"""Beam search for `ECGExplain-v0`: the best sets of transitions of each length, grown one transition at a time.

The value of a set is what the task would pay for it: the fall of the squared distance to the goal, less a penalty for
each transition. Every set that `stop` could end on competes, so a longer explanation must earn its length.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from clinenv.envs.ecg_explain.task import ECGExplainTask
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.cardiac_jepa.explain import MAX_STEPS
from world_models.protocol import Chart

__all__ = ["ExplainBeam", "Explainer", "SetFollower"]


class Explainer(Protocol):
    """Says at once which transitions it thinks there were."""

    name: str

    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C] in {-1, 0, 1} from the first chart of each problem."""


class ExplainBeam:
    """Breadth-first over sets of transitions, keeping the best few of each size.

    Args:
        simulator: of `ExplainWorld` and `ECGExplainTask`.
        width: sets kept of each size.
        depth: transitions at most.
        penalty: for each transition, as a share of the squared distance at the start; None: the task's own step cost.
        max_rows: states tried at once; problems are taken in groups so that memory stays bounded.

    Raises:
        ValueError: a width, depth or max_rows below 1, a negative penalty, or a simulator of another task.
    """

    def __init__(
        self,
        simulator: Simulator,
        width: int = 8,
        depth: int = 4,
        penalty: float | None = None,
        max_rows: int = 8192,
        name: str = "beam search",
    ) -> None:
        if min(width, depth, max_rows) < 1:
            raise ValueError(f"width, depth and max_rows must be at least 1, got {width}, {depth}, {max_rows}")
        task: object = simulator.task
        if not isinstance(task, ECGExplainTask):
            raise ValueError(f"beam search needs a simulator of ECGExplainTask, got one of {simulator.task.name}")
        self._task = task
        penalty = float(task.step_cost if penalty is None else penalty)
        if penalty < 0:
            raise ValueError(f"penalty must be 0 or more, got {penalty}; a negative one would reward length")
        self.simulator, self.width, self.depth, self.penalty = simulator, width, depth, penalty
        self.max_rows, self.name = max_rows, name
        self._moves = torch.eye(len(simulator.task.orders), device=simulator.device)[1:]  # all but stop

    @torch.no_grad()
    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C]: the best set of each problem, from its chart at the start."""
        group = max(1, self.max_rows // (self.width * len(self._moves)))
        rows = torch.arange(chart["days"].shape[0], device=chart["days"].device)
        return torch.cat([self._search(tree.take(chart, part)) for part in rows.split(group)])

    def _search(self, chart: Chart) -> Tensor:
        world, task = self.simulator.world, self._task
        count, moves = chart["days"].shape[0], len(self._moves)
        key = keys.from_seed(0, count, chart["days"].device)  # nothing here is left to chance
        state: Any = world.initial(key, world.read(chart))
        best = torch.zeros_like(chart["found"])
        best_value = -chart["distance"]
        width = 1
        for size in range(1, self.depth + 1):
            here = world.observe(state)
            allowed = task.admissible(here)[:, 1:] & torch.cat([here["found"] == 0] * 2, -1)  # nothing taken back
            tried = world.transition(tree.repeat(state, moves), self._moves.repeat(count * width, 1))
            after = world.observe(tried)
            value = (-after["distance"] - self.penalty * size).reshape(count, width * moves)
            value = torch.where(allowed.reshape(count, width * moves), value, -torch.inf)
            found = after["found"].reshape(count, width * moves, -1)
            keep = min(self.width, width * moves)
            # One set is reached in as many orders as it has members: look among more, keep the first of each.
            look = min(keep * size, width * moves)
            value, index = value.topk(look, dim=1)
            found = found.gather(1, index.unsqueeze(-1).expand(-1, -1, found.shape[-1]))
            equal = (found.unsqueeze(2) == found.unsqueeze(1)).all(-1)
            earlier = torch.ones(look, look, dtype=torch.bool, device=equal.device).tril(-1)
            value = torch.where((equal & earlier).any(-1), -torch.inf, value)
            value, order = value.topk(keep, dim=1)
            index = index.gather(1, order)
            found = found.gather(1, order.unsqueeze(-1).expand(-1, -1, found.shape[-1]))
            better = value[:, 0] > best_value
            best = torch.where(better.unsqueeze(-1), found[:, 0], best)
            best_value = torch.where(better, value[:, 0], best_value)
            rows = torch.arange(count, device=index.device).unsqueeze(-1) * (width * moves) + index
            state, width = tree.take(tried, rows.flatten()), keep
        return best


class SetFollower:
    """An agent of `ECGExplain-v0` that proposes what an `Explainer` said, one transition a step, then stops."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer, self.name = explainer, explainer.name
        self._answer: Tensor | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the answers; rows that start anew are solved anew at their first chart in any case."""
        if mask is None:
            self._answer = None

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B]: rows of the task's menu."""
        if self._answer is None or self._answer.shape != chart["found"].shape:
            self._answer = self.explainer.solve(chart)
        else:
            fresh = (chart["steps_left"] == MAX_STEPS).nonzero().squeeze(1)
            if len(fresh):
                self._answer[fresh] = self.explainer.solve(tree.take(chart, fresh))
        left = self._answer - chart["found"]
        codes = left.shape[1]
        first = (left != 0).to(torch.int8).argmax(-1)
        sign = left.gather(1, first.unsqueeze(-1)).squeeze(-1)
        move = torch.where(sign > 0, first + 1, first + 1 + codes)
        return torch.where(sign != 0, move, 0)
