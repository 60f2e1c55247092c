"""Plans that are courses of doses at fixed hours: a row of the menu, every n steps from step s on, so many times.

A plan of 24 or 84 steps has a handful of places, as a prescription has. Of several courses the one that began last
counts: it takes the place of those before it.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from agents.planning.menu_plans import nearest_row
from agents.planning.plan_space import CategoricalPlans, PlanSpace, check_nothing

__all__ = ["SchedulePlans"]

_ROW, _EVERY, _START, _DOSES = range(4)
_FIELDS = 4


class SchedulePlans(CategoricalPlans):
    """Courses one after the other, each four places (row, every, start, doses): int64 [..., 4 * courses].

    Args:
        menu: orders float32 [M, A]; row 0 is "nothing": a course of nothing ends the one before it.
        horizon: H.
        nothing: prior probability of row 0.
        every: steps between two doses that a course may have.
        doses: how many doses a course may have; 0: until the end.
        courses: of one plan.
        indices: whether a decision is a row of the menu (the task's action is one) or the orders themselves.
        first: [B, places, M], another prior: see `around`.

    Raises:
        ValueError: fewer than two rows, no interval, no number of doses, one out of range, or no course.
    """

    def __init__(
        self,
        menu: Tensor,
        horizon: int,
        nothing: float,
        every: tuple[int, ...],
        doses: tuple[int, ...] = (0, 1, 2),
        courses: int = 2,
        indices: bool = True,
        first: Tensor | None = None,
    ) -> None:
        check_nothing(nothing)
        if menu.shape[0] < 2 or not every or min(every) < 1 or not doses or min(doses) < 0 or courses < 1:
            raise ValueError(
                f"a schedule needs a menu of 2 rows, intervals of 1 step or more, numbers of doses of 0 or more and a "
                f"course; got {menu.shape[0]} rows, every={every}, doses={doses}, courses={courses}"
            )
        device = menu.device
        self._menu, self._horizon, self._nothing, self._indices = menu, horizon, nothing, indices
        self._every_steps, self._dose_counts, self._courses = every, doses, courses
        self._every = torch.tensor(every, device=device)
        self._doses = torch.tensor(doses, device=device)
        sizes = (menu.shape[0], len(every), horizon, len(doses))
        one = torch.zeros(_FIELDS, max(sizes), device=device)
        for place, size in enumerate(sizes):
            one[place, :size] = 1.0 / size
        one[_ROW, : sizes[0]] = (1.0 - nothing) / (sizes[0] - 1)
        one[_ROW, 0] = nothing
        # early starts are the ones that can still be carried out before the next plan
        early = 0.5 ** (torch.arange(horizon, device=device) / 4.0)
        one[_START, :horizon] = early / early.sum()
        self._exists = (one > 0).repeat(courses, 1)
        super().__init__(one.repeat(courses, 1) if first is None else first, courses)

    def _uniform(self, weight: float) -> Tensor:
        return weight * self._exists / self._exists.sum(-1, keepdim=True)

    def anchors(self) -> Tensor:
        """int64 [N, places]: nothing; each row every n-th step from now on, to the end; each row once, now."""
        rows, to_the_end, single = range(1, self._menu.shape[0]), self._number(0), self._number(1)
        courses = [(row, e, 0, to_the_end) for row, e in product(rows, range(len(self._every_steps)))]
        courses += [(row, 0, 0, single) for row in rows] if 1 in self._dose_counts else []
        plans = torch.zeros(1 + len(courses), self._courses, _FIELDS, dtype=torch.int64, device=self._menu.device)
        plans[1:, 0] = torch.tensor(courses, device=self._menu.device)
        # courses that never begin: they start with the first, which comes after them
        return self._in_order(plans).flatten(1)

    def _number(self, doses: int) -> int:
        return self._dose_counts.index(doses) if doses in self._dose_counts else 0

    @staticmethod
    def _in_order(plans: Tensor) -> Tensor:
        """Courses of nothing go first, so that they end none."""
        order = (plans[..., _ROW] > 0).to(torch.int64).argsort(stable=True, dim=-1)
        return plans.gather(-2, order.unsqueeze(-1).expand_as(plans))

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, places, M], see `PlanSpace`: starts move to the next dose that is due."""
        fresh = belief.unflatten(1, (self._courses, _FIELDS)).clone()
        starts, h = fresh[:, :, _START, : self._horizon], self._horizon
        moved = torch.zeros_like(starts)
        for place, every in enumerate(self._every_steps):
            begin = torch.arange(h, device=belief.device) - steps
            due = torch.where(begin < 0, torch.remainder(begin, every), begin).clamp_max(h - 1)
            share = fresh[:, :, _EVERY, place].unsqueeze(-1) * starts
            moved.scatter_add_(-1, due.expand_as(share).contiguous(), share)
        fresh[:, :, _START, :h] = moved
        return fresh.flatten(1, 2)

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """int64 [..., places], see `PlanSpace`."""
        courses = plans.unflatten(-1, (self._courses, _FIELDS)).clone()
        row, every, start, doses = courses.unbind(-1)
        number = torch.arange(self._courses, device=plans.device)
        began = start.unsqueeze(-2)  # [..., 1, courses]
        after = (began > start.unsqueeze(-1)) | ((began == start.unsqueeze(-1)) & (number > number.unsqueeze(-1)))
        over = ((began <= steps) & after).any(-1)  # another course has taken its place
        between, most = self._every[every], self._doses[doses]
        given = torch.div(steps - 1 - start, between, rounding_mode="floor") + 1
        over = over | ((most > 0) & (start < steps) & (given >= most))
        begin = start - steps
        due = torch.where(begin < 0, torch.remainder(begin, between), begin).clamp_max(self._horizon - 1)
        courses[..., _ROW] = torch.where(over, 0, row)
        courses[..., _START] = torch.where(over, 0, due)
        return self._in_order(courses).flatten(-2)

    def nearest(self, orders: Tensor) -> Tensor:
        """int64 [..., places], see `PlanSpace`: of single courses to the end the one that differs at the fewest
        steps."""
        rows = nearest_row(orders, self._menu)  # [..., H]
        anchors = self.anchors()
        differs = (self._rows(anchors) != rows.unsqueeze(-2)).sum(-1)  # [..., N]
        return anchors[differs.argmin(-1)]

    def around(self, orders: Tensor) -> PlanSpace:
        """See `PlanSpace`: each place of the nearest plan has `nothing` of the probability."""
        places, size = self.nearest(orders), self._first.shape[-1]
        sure = torch.nn.functional.one_hot(places, size).to(torch.float32)
        first = self._nothing * sure + (1.0 - self._nothing) * self._uniform(1.0)
        rest = (self._every_steps, self._dose_counts, self._courses, self._indices)
        return SchedulePlans(self._menu, self._horizon, self._nothing, *rest, first)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`."""
        return self._menu[self._rows(plans)]

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """int64 [B], rows of the menu, or float32 [B, A], orders."""
        row = self._rows(plans).gather(1, step.unsqueeze(1)).squeeze(1)
        return row if self._indices else self._menu[row]

    def _rows(self, plans: Tensor) -> Tensor:
        """int64 [..., H]: the row of the menu at each step."""
        courses = plans.unflatten(-1, (self._courses, _FIELDS))
        steps = torch.arange(self._horizon, device=plans.device)
        given = torch.zeros(*plans.shape[:-1], self._horizon, dtype=torch.int64, device=plans.device)
        latest = torch.full_like(given, -1)  # when the course that counts began
        for course in range(self._courses):
            row, every, start, doses = courses[..., course, :].unsqueeze(-2).unbind(-1)
            every, doses = self._every[every], self._doses[doses]
            since = steps - start
            number = torch.div(since, every, rounding_mode="floor")
            due = (since >= 0) & (torch.remainder(since, every) == 0) & ((doses == 0) | (number < doses))
            counts = (since >= 0) & (start >= latest)
            given = torch.where(counts, torch.where(due, row, 0), given)
            latest = torch.where(counts, start, latest)
        return given
