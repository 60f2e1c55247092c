"""What is added up over episodes: returns, costs, terms, outcomes, orders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.simulator import Step
from clinenv.task import Outcomes, Task
from world_models import tree
from world_models.protocol import Chart

__all__ = ["EpisodeResults", "Tally"]


class EpisodeResults(NamedTuple):
    """One episode a patient. All tensors [N] on the CPU, in the order of the keys."""

    returns: Tensor  # sum of rewards, undiscounted
    costs: Tensor  # sum of safety costs
    lengths: Tensor  # int64 steps until the end; float32 the expected number, where events are taken at their chances
    terms: dict[str, Tensor]  # sum of each named reward term
    outcomes: Outcomes  # what the task says became of the patients
    ordered: Tensor  # [N, A]: total of each order as the agent gave it
    given: Tensor  # [N, A]: total of each order that was carried out
    refused: Tensor  # how many orders the task refused


class Tally:
    """What is added up over the episodes of N patients."""

    def __init__(self, task: Task, count: int) -> None:
        self._task, self._count = task, count
        self._figures: dict[str, Tensor] = {}
        self._terms: dict[str, Tensor] = {}
        self._totals: dict[str, Tensor] = {}
        self._peaks: dict[str, Tensor] = {}

    def add(
        self,
        patients: Tensor,
        here: Tensor,
        before: Chart,
        ordered: Tensor,
        out: Step,
        weight: Tensor | None = None,
    ) -> None:
        """One step of a batch of patients int64 [B], of which those count that are still here bool [B].

        Args:
            weight: float32 [B], the chance of each row's step; None: it happened. Peaks do not ask for it.
        """
        assert out.given is not None  # a simulator says what it carried out
        outcomes = self._task.outcomes(before, out.given, out.chart)
        figures = {"returns": out.reward, "costs": out.cost, "ordered": ordered, "given": out.given}
        figures["lengths"] = torch.ones_like(patients) if weight is None else torch.ones_like(out.cost)
        figures["refused"] = torch.zeros_like(out.cost) if out.refused is None else out.refused.sum(-1).to(out.cost)
        for sums, step in ((self._figures, figures), (self._terms, out.terms), (self._totals, outcomes.totals)):
            for name, value in step.items():
                if name not in sums:
                    sums[name] = value.new_zeros(self._count, *value.shape[1:])
                sums[name][patients[here]] += _weighed(value, weight)[here]
        for name, value in outcomes.peaks.items():
            peak = self._peaks.setdefault(name, value.new_full((self._count,), -torch.inf))
            peak[patients[here]] = torch.maximum(peak[patients[here]], value[here])

    def results(self) -> EpisodeResults:
        """Of all patients, on the CPU."""
        outcomes = Outcomes(self._totals, self._peaks)
        return tree.to(EpisodeResults(terms=self._terms, outcomes=outcomes, **self._figures), "cpu")


def _weighed(value: Tensor, weight: Tensor | None) -> Tensor:
    """Value [B, ...], each row times its weight [B]; a row of no weight is 0, whatever it holds."""
    if weight is None:
        return value
    weight = weight.reshape(-1, *(1,) * (value.ndim - 1))
    return torch.where(weight > 0, value * weight, 0.0)
