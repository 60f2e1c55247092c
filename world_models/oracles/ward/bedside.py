"""What a clinician's rules work with: the chart as they ask it, and the amounts they decide on."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.ward import COMPLAINTS, INTERVENTIONS, inquiry_index, intervention_index

__all__ = ["BedsideChart", "Decisions"]


class BedsideChart:
    """The chart, as the rules ask it. Values never resulted read as typical, so no rule fires on them."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.ages = chart["inquiry_age_hours"]
        self.each_age = self.ages.unbind(-1)
        self.each_since = chart["treatment_age_hours"].unbind(-1)
        self.each_share = chart["treatment_share"].unbind(-1)

    def __getitem__(self, name: str) -> Tensor:
        return self.chart[name]

    def age(self, name: str) -> Tensor:
        """Hours since the charted value was collected."""
        return self.each_age[inquiry_index(name)]

    def since(self, name: str) -> Tensor:
        """Hours since it was last given; 96 if never."""
        return self.each_since[intervention_index(name)]

    def running(self, name: str) -> Tensor:
        """What was given in the last step, in the order's unit."""
        index = intervention_index(name)
        return self.each_share[index] * float(INTERVENTIONS[index].high)

    def complains(self, of: str) -> Tensor:
        """bool [B]: it was what the patient came for."""
        return self.chart["complaint"][:, COMPLAINTS.index(of)] > 0.5


class Decisions:
    """Amounts being decided, one [B] an intervention; the largest that any rule asks for counts."""

    def __init__(self, nothing: Tensor, hours: float) -> None:
        self.hours = hours
        self.nothing = nothing
        self.amounts = {q.name: nothing for q in INTERVENTIONS}

    def give(self, name: str, when: Tensor, amount: Tensor | float) -> None:
        """At least `amount` where `when` [B] holds."""
        wanted = torch.where(when, torch.as_tensor(amount, dtype=self.nothing.dtype, device=self.nothing.device), 0.0)
        self.amounts[name] = torch.maximum(self.amounts[name], wanted)

    def every(self, name: str, view: BedsideChart, when: Tensor, amount: Tensor | float, hours: float) -> None:
        """A dose each `hours`: due once the last lies that long back at the step's start (steps may be coarser)."""
        due = view.since(name) + self.hours >= hours - 0.01
        times = max(1.0, round(self.hours / hours)) if self.hours > hours else 1.0
        self.give(name, when & due, torch.as_tensor(amount, dtype=self.nothing.dtype) * times)

    def stop(self, name: str, when: Tensor) -> None:
        """Nothing of it where `when` [B] holds, whatever was decided before."""
        self.amounts[name] = torch.where(when, 0.0, self.amounts[name])

    def columns(self) -> Tensor:
        """Amounts [B, J] in the order of INTERVENTIONS."""
        return torch.stack([self.amounts[q.name].expand_as(self.nothing) for q in INTERVENTIONS], -1)
