"""Tree search over decisions and luck: PUCT, widening progressively over chance outcomes.

Selection: mean value + c P(a) sqrt(N) / (1 + n) (Rosin 2011, doi 10.1007/s10472-011-9258-6; Silver 2017, doi
10.1038/nature24270), values in standard deviations of a tree's, for a return has no bounds. A
decision taken n times has at most k n^alpha outcomes (Couetoux 2011, doi 10.1007/978-3-642-25566-3_32), each a
particle: at the root a belief's, its unknowns sampled anew, below it the same patient with other luck. Trees of one
patient are independent and their visits added up (Chaslot 2008, doi 10.1007/978-3-540-87608-3_6), so that one patient
fills a batch.

What there is to decide at a node: the first orders of the best plans of a first round, each as a change of the base
plan (a policy's, or nothing), which is also what follows a leaf. So sets of dozens of orders are searched as edits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.planning.imagination import Imagination, utility
from agents.planning.plan_config import PlanConfig
from agents.planning.problem import ChosenPlan, Optimiser, Problem, first_plans, gather, repeats, second_look
from world_models import keys, tree

__all__ = ["TreeConfig", "TreeSearch"]


@dataclass(frozen=True)
class TreeConfig(PlanConfig):
    """`simulations` paths in each of `trees` trees; a node's decision is held for `block` steps."""

    simulations: int = 40  # paths of a tree; with a budget there are as many as it pays for, up to
    most_simulations: int = 400  # for which memory is taken
    trees: int = 4  # of each patient
    width: int = 12  # decisions at a node
    exploration: float = 1.25  # c
    widening: float = 1.0  # k
    widening_power: float = 0.5  # alpha
    temperature: float = 1.0  # of the prior P, in standard deviations of the first round's scores

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.simulations, self.trees, self.width - 1) < 1 or not 0.0 <= self.widening_power < 1.0:
            raise ValueError(
                f"need simulations and trees >= 1, width >= 2 and widening_power in [0, 1), got {self.simulations}, "
                f"{self.trees}, {self.width} and {self.widening_power}"
            )
        if min(self.exploration, self.widening, self.temperature) <= 0:
            raise ValueError("exploration, widening and temperature must be above 0")

    @property
    def rows(self) -> int:
        """Imagined at once for a patient: every node is kept."""
        return max(self.trees * (self.simulations + 1), super().rows)

    def optimiser(self) -> Optimiser:
        """`TreeSearch`."""
        return TreeSearch(self)


@dataclass
class _Forest:
    """R trees of N nodes with M decisions and C outcomes each. Node 0 is the root."""

    states: Any  # [R * N] of the world
    charts: Any  # [R * N]
    prior: Tensor  # [R, M]
    visits: Tensor  # [R, N] of paths
    chosen: Tensor  # [R, N, M] how often each decision was taken
    total: Tensor  # [R, N, M] of the utilities that came of it
    child: Tensor  # int64 [R, N, M, C]
    outcomes: Tensor  # int64 [R, N, M] how many outcomes there are
    returns: Tensor  # [R, N] from the root to the node
    costs: Tensor  # [R, N]
    ended: Tensor  # bool [R, N]
    depth: Tensor  # int64 [R, N]
    used: Tensor  # int64 [R] nodes of each tree
    moments: Tensor  # [R, 3] of the utilities seen: how many, their sum and the sum of their squares


class TreeSearch:
    """The optimiser. It needs an imagined world to step in: `Problem.imagination`.

    Over luck the mean counts, whatever the objective's risk (`imagination.utility`).

    Raises:
        ValueError: from `plan`, where there is no imagined world.
    """

    def __init__(self, config: TreeConfig) -> None:
        self.config = config

    def plan(self, problem: Problem) -> ChosenPlan:
        """See `Optimiser`."""
        if problem.imagination is None:
            raise ValueError("tree search steps through an imagined world; plan with it in a WorldPlanner")
        c, space = self.config, problem.space
        base = space.orders(space.likeliest(problem.belief))  # the policy's plan, or nothing
        kept = c.finalists + 3
        plans = first_plans(problem, problem.belief, c.candidates, kept)
        # plans that begin alike are one decision of the root
        alike = repeats(space.orders(plans)[:, :, : c.block].flatten(2))
        scores, index = problem.evaluate(plans, 0).masked_fill(alike, -torch.inf).topk(min(c.width, plans.shape[1]), 1)
        plans = gather(plans, index)
        most = c.simulations if problem.meter.budget is None else c.most_simulations
        first = space.orders(plans)[:, :, : c.block]
        search = _Search(problem.imagination, c, most, base, first, _prior(scores, c.temperature))
        for number in range(most):
            if not problem.meter.affords(1, c.trees * c.horizon, -(-kept * c.particles // c.trees)):
                break
            start_ms = problem.meter.milliseconds
            problem.meter.spent(c.trees * search.simulate(number), start_ms)
        found = space.nearest(search.principal()).to(plans.dtype).unsqueeze(1)
        return second_look(problem, torch.cat([found, plans], 1), scores, problem.belief, c.finalists + 1)


def _prior(scores: Tensor, temperature: float) -> Tensor:
    """[B, M] from the first round's scores [B, M]."""
    there = scores.isfinite()
    spread = scores.masked_fill(~there, 0.0).std(1, keepdim=True) if scores.shape[1] > 1 else torch.ones_like(scores)
    scaled = (scores - scores.amax(1, keepdim=True)) / (temperature * spread.clamp_min(1e-6))
    return torch.softmax(scaled, 1)


class _Search:
    """The trees of B patients."""

    def __init__(
        self, imagined: Imagination, c: TreeConfig, most: int, base: Tensor, first: Tensor, prior: Tensor
    ) -> None:
        """`most` paths at most; base [B, H, A]; first [B, M, block, A], the decisions of the root; prior [B, M]."""
        self.c, self.imagined, self.simulator = c, imagined, imagined.simulator
        roots, moves, device = len(prior) * c.trees, prior.shape[1], prior.device
        self.patient = torch.arange(len(prior), device=device).repeat_interleave(c.trees)
        self.key = keys.fold(
            keys.fold(imagined.key, "tree")[self.patient], torch.arange(roots, device=device) % c.trees
        )
        # a decision is a change of what the base gives: some of it taken away, something added
        now = base[:, None, : c.block]
        self.base = base
        self.scale = torch.where(first < now, first / now.clamp_min(1e-9), 1.0)
        self.added = (first - now).clamp_min(0.0)
        nodes, wide = most + 1, int(c.widening * most**c.widening_power) + 1
        rows = torch.arange(roots, device=device).repeat_interleave(nodes)
        zero = torch.zeros(roots, nodes, device=device)
        edge = torch.zeros(roots, nodes, moves, device=device)
        whole = torch.zeros(roots, nodes, dtype=torch.int64, device=device)
        self.forest = _Forest(
            states=tree.copy(tree.take(imagined.state, self.patient[rows])),
            charts=tree.copy(tree.take(imagined.chart, self.patient[rows])),
            prior=prior[self.patient],
            visits=zero.clone(),
            chosen=edge.clone(),
            total=edge.clone(),
            child=torch.full((roots, nodes, moves, wide), -1, dtype=torch.int64, device=device),
            outcomes=edge.to(torch.int64),
            returns=zero.clone(),
            costs=zero.clone(),
            ended=self.simulator.task.terminated(imagined.chart)[self.patient].unsqueeze(1).repeat(1, nodes),
            depth=whole.clone(),
            used=torch.ones(roots, dtype=torch.int64, device=device),
            moments=torch.zeros(roots, 3, device=device),
        )
        self.nodes, self.deepest = nodes, -(-c.horizon // c.block)

    def simulate(self, number: int) -> int:
        """One path in each tree: down to a node that is not there yet, on to the horizon, and back up.

        Returns:
            How many steps were imagined in a tree (in that of the patient with most).
        """
        f = self.forest
        everyone = torch.arange(len(f.used), device=f.used.device)
        here = torch.zeros_like(f.used)
        going = ~f.ended[everyone, here]
        path: list[tuple[Tensor, Tensor, Tensor]] = []  # (node, decision, whether it was taken)
        grown = torch.zeros_like(going)
        for _ in range(self.deepest):
            going = going & (f.depth[everyone, here] < self.deepest)
            if not bool(going.any()):
                break
            move = self._select(here)
            path.append((here, move, going))
            known, allowed = f.outcomes[everyone, here, move], self._allowed(f.chosen[everyone, here, move])
            grow = going & (known < allowed)
            lead = self._least_visited(here, move)
            new = f.used.clone()
            self._grow(grow, here, move, new, number)
            here = torch.where(grow, new, torch.where(going, lead, here))
            grown = grown | grow
            going = going & ~grow & ~f.ended[everyone, here]
        utility, steps = self._judge(here, number)
        self._back_up(path, here, utility)
        return steps + (self.c.block if bool(grown.any()) else 0)

    def principal(self) -> Tensor:
        """Orders float32 [B, H, A] of the principal variation: from the root on the decision taken most often, over all
        trees and outcomes; where nobody has been, the base plan."""
        f, c = self.forest, self.c
        count = f.prior.shape[0] // c.trees
        orders = self.base.clone()
        active = torch.zeros_like(f.visits, dtype=torch.bool)
        active[:, 0] = True
        everyone = torch.arange(count, device=orders.device)
        for depth in range(self.deepest):
            votes = torch.where(active.unsqueeze(-1), f.chosen, 0.0).sum(1).unflatten(0, (count, c.trees)).sum(1)
            best, seen = votes.argmax(1), votes.amax(1) > 0
            steps = slice(depth * c.block, min((depth + 1) * c.block, c.horizon))
            length = steps.stop - steps.start
            changed = orders[:, steps] * self.scale[everyone, best, :length] + self.added[everyone, best, :length]
            orders[:, steps] = torch.where(seen[:, None, None], changed, orders[:, steps])
            which = best.repeat_interleave(c.trees)[:, None, None, None]
            under = f.child.gather(2, which.expand(-1, f.child.shape[1], 1, f.child.shape[3]))
            reached = torch.where(active.unsqueeze(-1), under.squeeze(2), -1).flatten(1)
            active = torch.zeros_like(active).scatter(1, reached.clamp_min(0), reached >= 0) & (f.depth == depth + 1)
        return orders

    def _select(self, node: Tensor) -> Tensor:
        """int64 [R]: the decision of each tree at its node."""
        f, everyone = self.forest, torch.arange(len(node), device=node.device)
        chosen, total = f.chosen[everyone, node], f.total[everyone, node]
        all_of_them = chosen.sum(1, keepdim=True)
        mean = torch.where(all_of_them > 0, total.sum(1, keepdim=True) / all_of_them.clamp_min(1.0), 0.0)
        value = torch.where(chosen > 0, total / chosen.clamp_min(1.0), mean)
        count, once, twice = f.moments.unsqueeze(-1).unbind(1)
        centre = once / count.clamp_min(1.0)
        spread = (twice / count.clamp_min(1.0) - centre.square()).clamp_min(0.0).sqrt()
        scaled = torch.where(spread > 1e-6, (value - centre) / spread.clamp_min(1e-6), 0.0)
        bonus = self.c.exploration * f.prior * (all_of_them + 1.0).sqrt() / (1.0 + chosen)
        return (scaled + bonus).argmax(1)

    def _allowed(self, chosen: Tensor) -> Tensor:
        """How many outcomes a decision may have that was taken so often before."""
        return (self.c.widening * (chosen + 1.0) ** self.c.widening_power).floor().clamp_min(1.0).to(torch.int64)

    def _least_visited(self, node: Tensor, move: Tensor) -> Tensor:
        """int64 [R]: of the outcomes there are, the one seen least; node 0 where there is none."""
        f, everyone = self.forest, torch.arange(len(node), device=node.device)
        outcomes = f.child[everyone, node, move]  # [R, C]
        seen = f.visits.gather(1, outcomes.clamp_min(0)).masked_fill(outcomes < 0, torch.inf)
        return outcomes.gather(1, seen.argmin(1, keepdim=True)).squeeze(1).clamp_min(0)

    def _grow(self, grow: Tensor, node: Tensor, move: Tensor, new: Tensor, number: int) -> None:
        """Another outcome of a decision, as node `new` [R], in the trees of grow bool [R]."""
        rows = grow.nonzero().squeeze(1)
        if not len(rows):
            return
        f, c, simulator = self.forest, self.c, self.simulator
        node, move, new, patient = node[rows], move[rows], new[rows], self.patient[rows]
        at = rows * self.nodes + node
        state, chart = tree.take(f.states, at), tree.take(f.charts, at)
        luck = keys.fold(keys.fold(self.key[rows], "outcome"), number)
        state = tree.where(node == 0, simulator.world.rekey(state, luck), state._replace(key=luck))
        returns, costs = f.returns[rows, node], f.costs[rows, node]
        here = ~simulator.task.terminated(chart)
        start = f.depth[rows, node] * c.block
        for step in range(c.block):
            when = (start + step).clamp_max(c.horizon - 1)
            change = (patient, move, min(step, self.scale.shape[2] - 1))
            orders = self.base[patient, when] * self.scale[change] + self.added[change]
            out = simulator.step(state, chart, orders)
            on = here & (start + step < c.horizon)
            weight = c.discount ** (start + step).to(torch.float32)
            returns = returns + torch.where(on, out.reward * weight, 0.0)
            costs = costs + torch.where(on, out.cost, 0.0)
            here, state, chart = here & ~out.terminated, out.state, out.chart
        spot = rows * self.nodes + new
        tree.map_leaves(lambda x, y: x.index_copy_(0, spot, y), f.states, state)
        tree.map_leaves(lambda x, y: x.index_copy_(0, spot, y), f.charts, {n: chart[n] for n in f.charts})
        f.returns[rows, new], f.costs[rows, new], f.ended[rows, new] = returns, costs, ~here
        f.depth[rows, new] = f.depth[rows, node] + 1
        f.child[rows, node, move, f.outcomes[rows, node, move]] = new
        f.outcomes[rows, node, move] += 1
        f.used[rows] += 1

    def _judge(self, node: Tensor, number: int) -> tuple[Tensor, int]:
        """[R]: the utility of the courses that lead to a node and, by value or base plan, on from it; and the steps it
        took."""
        f, c, imagined = self.forest, self.c, self.imagined
        everyone = torch.arange(len(node), device=node.device)
        at = everyone * self.nodes + node
        state, chart = tree.take(f.states, at), tree.take(f.charts, at)
        returns, costs, here = f.returns[everyone, node], f.costs[everyone, node], ~f.ended[everyone, node]
        start = f.depth[everyone, node] * c.block
        luck = keys.fold(keys.fold(self.key, "leaf"), number)
        state = state._replace(key=luck)
        step = 0
        while imagined.value is None and bool((on := here & (start + step < c.horizon)).any()):
            when = (start + step).clamp_max(c.horizon - 1)
            out = self.simulator.step(state, chart, self.base[self.patient, when])
            returns = returns + torch.where(on, out.reward * c.discount ** (start + step).to(torch.float32), 0.0)
            costs = costs + torch.where(on, out.cost, 0.0)
            here, state, chart = here & ~(out.terminated & on), out.state, out.chart
            step += 1
        return utility(imagined.objective, returns, costs), step

    def _back_up(self, path: list[tuple[Tensor, Tensor, Tensor]], leaf: Tensor, utility: Tensor) -> None:
        f, everyone = self.forest, torch.arange(len(leaf), device=leaf.device)
        f.moments += torch.stack([torch.ones_like(utility), utility, utility.square()], 1)
        for node, move, taken in path:
            rows = taken.nonzero().squeeze(1)
            f.chosen[rows, node[rows], move[rows]] += 1.0
            f.total[rows, node[rows], move[rows]] += utility[rows]
            f.visits[rows, node[rows]] += 1.0
        f.visits[everyone, leaf] += 1.0
