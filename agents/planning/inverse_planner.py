"""Amortised planning by inverse dynamics: wish for an ECG, and be told the drug and the dose that lead there.

From the chart now and a wished-for one some hours later, `ecg-inverse-small` says in one pass which single order lies
between them (`world_models.ecg_wm.inverse`): no search. What may be wished for is bounded by what drugs do: of each
drug the change that a usual dose makes in the imagined world, in parts of its size, and of them only what keeps QTcF
short of a limit. The wishes' answers are proposals, once and repeated at every dose interval; the planner scores them
and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.imagination import Imagination
from agents.planning.plan_config import PlanConfig
from agents.planning.problem import ChosenPlan, Optimiser, Problem, second_look
from agents.protocol import menu_of
from world_models import tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.inverse import Inferred, InverseDynamics, menu_probabilities, project_dose
from world_models.ecg_wm.transitions import COVARIATES
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["InverseConfig", "InversePlanner"]

_ORDERS = tuple(f"{drug}_mg" for drug in DRUGS)


@dataclass(frozen=True)
class InverseConfig(PlanConfig):
    """`particles` and `finalists` are of the scoring."""

    wishes: tuple[float, ...] = (0.25, 0.5, 1.0)  # parts of a drug's usual effect that are wished for
    wish_hours: float = 4.0  # between the two ECGs
    longest_qtcf_ms: float = 500.0  # of a wished-for ECG: ICH E14's outlier class
    likeliest: int = 2  # entries of the menu taken from each answer

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.wishes or min(self.wishes) <= 0 or not self.wish_hours > 0 or self.likeliest < 1:
            raise ValueError(f"need wishes and wish_hours above 0 and likeliest >= 1, got {self}")

    def optimiser(self) -> Optimiser:
        """`InversePlanner`."""
        return InversePlanner(self)


class InversePlanner:
    """The optimiser, for the orders of the antiarrhythmic worlds.

    Args:
        model: the inverse dynamics; None: those that ship.

    Raises:
        ValueError: from `plan`, where the world takes other orders.
    """

    def __init__(self, config: InverseConfig, model: InverseDynamics | None = None) -> None:
        self.config = config
        self.model = InverseDynamics.load() if model is None else model

    def plan(self, problem: Problem) -> ChosenPlan:
        """See `Optimiser`."""
        imagined = problem.imagination
        if imagined is None or tuple(imagined.simulator.task.orders) != _ORDERS:
            raise ValueError(f"inverse dynamics knows orders of {', '.join(DRUGS)} alone; plan otherwise in this world")
        plans = self.proposals(problem, imagined)
        count = problem.affords(plans.shape[1], self.config.finalists + 2)
        scores, index = problem.evaluate(plans[:, :count], 0).sort(stable=True, dim=1, descending=True)
        plans = plans.gather(1, index.unsqueeze(-1).expand(-1, -1, plans.shape[-1]))
        return second_look(problem, plans, scores, problem.belief, self.config.finalists)

    @torch.no_grad()
    def proposals(self, problem: Problem, imagined: Imagination) -> Tensor:
        """Plans [B, N, places]: nothing, what the problem proposes, and each wish's orders, now and at every interval
        of the config."""
        c, space, chart = self.config, problem.space, imagined.chart
        wished, possible = self._wishes(imagined)
        count = wished.shape[1]
        before = latent.standardise(chart).repeat_interleave(count, 0)
        hours = torch.full((len(before),), c.wish_hours, device=before.device)
        who = _covariates(chart).repeat_interleave(count, 0)
        found = self.model.infer(before, wished.flatten(0, 1), hours, who)
        orders = self._orders(imagined, found).unflatten(0, (-1, count)) * possible[..., None, None]
        orders = orders.flatten(1, 2)  # [B, wishes * likeliest, A]
        steps = torch.arange(c.horizon, device=orders.device)
        patterns = [steps == 0, *(steps % n == 0 for n in c.every if n < c.horizon)]
        courses = torch.cat([orders.unsqueeze(2) * p.to(orders.dtype).unsqueeze(-1) for p in patterns], 1)
        parts = [space.anchors()[:1].expand(len(courses), -1, -1)]
        if problem.proposals is not None:
            parts.append(problem.proposals)
        return torch.cat([*parts, space.nearest(courses).to(parts[0].dtype)], 1)

    def _wishes(self, imagined: Imagination) -> tuple[Tensor, Tensor]:
        """Coordinates [B, N, COORDS] wished for, and bool [B, N] which of them keep QTcF within its limit.

        A drug's usual effect is that of the middle of its orders' range, against nothing, in the belief's own futures
        with equal luck.
        """
        c, simulator = self.config, imagined.simulator
        highest = torch.tensor(
            [q.high for q in simulator.world.orders], dtype=torch.float32, device=imagined.key.device
        )
        tried = torch.cat([torch.zeros(1, len(highest), device=highest.device), 0.5 * torch.diag(highest)])
        state, chart = imagined.futures(1, look=4)
        state, chart = tree.repeat(state, len(tried)), tree.repeat(chart, len(tried))
        orders = tried.repeat(imagined.patients, 1)
        for _ in range(max(round(c.wish_hours / simulator.world.hours_per_step), 1)):
            out = simulator.step(state, chart, orders)
            state, chart, orders = out.state, out.chart, torch.zeros_like(orders)
        after = latent.standardise(chart).unflatten(0, (-1, len(tried)))
        effect = after[:, 1:] - after[:, :1]  # [B, D, COORDS]
        share = torch.tensor(c.wishes, device=effect.device)[:, None, None]
        wished = latent.standardise(imagined.chart)[:, None, None] + share * effect.unsqueeze(1)
        qtcf = chart["qtcf_ms"].unflatten(0, (-1, len(tried)))
        longer = imagined.chart["qtcf_ms"][:, None, None] + share.squeeze(-1) * (qtcf[:, 1:] - qtcf[:, :1]).unsqueeze(1)
        return wished.flatten(1, 2), (longer <= c.longest_qtcf_ms).flatten(1)

    def _orders(self, imagined: Imagination, found: Inferred) -> Tensor:
        """Orders float32 [R, likeliest, A] in mg: the likeliest entries of the task's menu, or the nearest dose."""
        menu = menu_of(imagined.simulator)
        if menu is None or menu.ndim == 3:
            return project_dose(found).unsqueeze(1).expand(-1, self.config.likeliest, -1)
        chances = menu_probabilities(found, menu)
        return menu[chances.topk(min(self.config.likeliest, len(menu)), 1).indices]


def _covariates(chart: Chart) -> Tensor:
    """float32 [B, COVARIATES], NaN where the chart lacks one."""
    unknown = torch.full_like(chart["hours"], torch.nan)
    return torch.stack([chart.get(name, unknown).to(torch.float32) for name in COVARIATES], -1)
