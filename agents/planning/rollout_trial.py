"""Edits of a policy tried on imagined futures: one by one beside the policy itself, then the good ones together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from agents.planning.budget import Meter
from agents.planning.edits import Edits
from agents.planning.imagination import Course, Followed, Imagination, follow, mean_course, utility
from agents.planning.policy_here import PolicyHere
from clinenv.imagined import Imagined
from world_models import keys, tree
from world_models.protocol import Chart

if TYPE_CHECKING:
    from agents.planning.rollout_policy import RolloutConfig

__all__ = ["Futures", "Judged", "Singles", "Trial"]


class Judged(NamedTuple):
    """What was decided for B patients."""

    chosen: Tensor  # bool [B, E]: the edits that hold
    promised: Tensor  # [B] the objective of what was chosen
    course: Course  # its mean course
    transitions: Tensor  # int64 [B]


class Futures(NamedTuple):
    """Courses of N candidates, each on P futures of its patient."""

    utilities: Tensor  # [N, P] each course for itself
    score: Tensor  # [N] the objective of all
    course: Course  # [N, H]


class Singles(NamedTuple):
    """Each edit beside the policy, on the same futures. NaN: it was not tried."""

    gain: Tensor  # [B, E]
    error: Tensor  # [B, E] standard error of the paired difference
    base: Futures  # [B] the policy's own
    transitions: Tensor  # int64 [B]


@dataclass
class Trial:
    """One decision of B patients."""

    imagined: Imagination
    policy: PolicyHere
    edits: Edits
    config: RolloutConfig
    meter: Meter
    max_rows: int

    def solve(self, key: Tensor) -> Judged:
        """The edits of each patient that gained surely, on futures that had no part in finding them.

        Args:
            key: int64 [B]: which edits are tried, where not all can be.
        """
        single = self.singles(key)
        gains = (single.gain - self.config.screen * single.error).nan_to_num(-torch.inf)
        return self._settle(gains, single.base, single.transitions)

    def singles(self, key: Tensor) -> Singles:
        """Every edit for itself beside the policy. Arguments as for `solve`."""
        c, count = self.config, self.imagined.patients
        base, orders = self._plain(torch.arange(count, device=key.device))
        patient, edit = self._offered(key, orders)
        gain = torch.full((count, len(self.edits)), torch.nan, device=key.device)
        error = gain.clone()
        used = torch.full((count,), self._each, device=key.device)
        for part in torch.arange(len(patient), device=key.device).split(max(self.max_rows // c.particles, 1)):
            if not len(part) or not self.meter.affords(1, self._each):  # of nobody's orders is there anything to edit
                break
            whom, which = patient[part], edit[part]
            tried = self._run(whom, torch.nn.functional.one_hot(which, len(self.edits)).bool(), 0, c.particles)
            gain[whom, which], error[whom, which] = _paired(tried, base, whom)
            used += self._each * torch.bincount(whom, minlength=count)
        return Singles(gain, error, base, used)

    @property
    def _finalists(self) -> int:
        """The policy, its best edit; all good ones, and the better half of them."""
        return 4 if self.edits.together else 2

    @property
    def _each(self) -> int:
        """Transitions of one candidate."""
        return self.config.particles * self.config.horizon

    def _plain(self, everyone: Tensor) -> tuple[Futures, Tensor]:
        """The policy's own futures, and the orders [B, P, hold, A] that it gives while an edit would hold."""
        c = self.config
        nothing = torch.zeros(len(everyone), len(self.edits), dtype=torch.bool, device=everyone.device)
        found, followed = self._follow(everyone, nothing, 0, c.particles)
        return found, followed.orders.unflatten(0, (-1, c.particles))[:, :, : c.replan_every]

    def _offered(self, key: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
        """Patients and edits int64 [N] to be tried: of those that change anything, as many as there may be."""
        c = self.config
        relevant = self.edits.relevant((orders > 0).any(2).any(1), orders[:, :, 0].amin(1))
        most = min(c.edits, self.meter.affords(c.edits, self._each, kept=self._finalists * c.finals))
        order = keys.uniform(key, 0, "planning/edits", (len(self.edits),)).masked_fill(~relevant, 2.0)
        limit = order.sort(1).values[:, min(most, len(self.edits)) - 1 : min(most, len(self.edits))]
        kept = relevant & (order <= limit) if most else torch.zeros_like(relevant)
        patient, edit = kept.nonzero(as_tuple=True)
        # a budget that runs out shall cut all patients short alike
        turn = kept.cumsum(1)[patient, edit].argsort(stable=True)
        return patient[turn], edit[turn]

    def _settle(self, gains: Tensor, base: Futures, used: Tensor) -> Judged:
        """The best of: the policy, its best edit, all good edits together, and the better half of them."""
        c, promised, course = self.config, base.score.clone(), Course(*(x.clone() for x in base.course))
        none = torch.zeros_like(gains, dtype=torch.bool)
        chosen = none.clone()
        best, index = gains.topk(min(c.joint, gains.shape[1]), 1)
        hopeful = (best[:, 0] > 0).nonzero().squeeze(1)
        if not len(hopeful):
            return Judged(chosen, promised, course, used)
        good = best[hopeful] > 0
        half = good & (good.cumsum(1) <= (good.sum(1, keepdim=True) + 1) // 2)
        alone = good & (good.cumsum(1) == 1)
        sets = [torch.zeros_like(alone), alone, half, good][: self._finalists]
        candidates = torch.stack([none[hopeful].scatter(1, index[hopeful], s) for s in sets], 1)  # [h, S, E]
        particles, size = c.particles * c.finals, candidates.shape[1]
        found = self._run(hopeful.repeat_interleave(size), candidates.flatten(0, 1), 1, particles)
        used[hopeful] += size * particles * c.horizon
        plain, whose = tree.take(found, slice(0, None, size)), torch.arange(len(hopeful), device=used.device)
        gain, error = _paired(found, plain, whose.repeat_interleave(size))
        pick = (gain - c.caution * error).unflatten(0, (-1, size)).argmax(1)  # the policy's own gain is 0
        at = whose * size + pick
        chosen[hopeful] = candidates.flatten(0, 1)[at]
        promised[hopeful] = found.score[at]
        course.rewards[hopeful], course.costs[hopeful] = found.course.rewards[at], found.course.costs[at]
        return Judged(chosen, promised, course, used)

    def _run(self, whom: Tensor, chosen: Tensor, look: int, particles: int) -> Futures:
        """Candidates bool [N, E] of patients int64 [N], in portions."""
        parts = torch.arange(len(whom), device=whom.device).split(max(self.max_rows // particles, 1))
        return tree.cat([self._follow(whom[part], chosen[part], look, particles)[0] for part in parts])

    def _follow(self, whom: Tensor, chosen: Tensor, look: int, particles: int) -> tuple[Futures, Followed]:
        c, imagined = self.config, self.imagined
        # the futures of one patient are the same for all that is tried on him
        patients, place = whom.unique(return_inverse=True)
        state, chart = imagined.only(patients).futures(particles, look)
        row = (place.unsqueeze(1) * particles + torch.arange(particles, device=whom.device)).flatten()
        policy = self.policy.begin(particles, whom.repeat_interleave(particles))
        edited = tree.repeat(chosen, particles)

        def decide(step: int, chart: Chart, rows: Tensor) -> Tensor:
            orders = policy(step, chart, rows)
            return self.edits.applied(orders, edited[rows], step) if step < c.replan_every else orders

        steps = (decide, c.horizon, c.discount, imagined.value, self.policy.narrow)
        with self.meter.spending(len(whom) // max(len(patients), 1) * particles * c.horizon):
            followed = follow(imagined.simulator, tree.take(state, row), tree.take(chart, row), *steps)
        returns, costs, ended = (
            x.unflatten(0, (-1, 1, particles)) for x in (followed.returns, followed.costs.sum(1), followed.terminated)
        )
        scores = imagined.objective(Imagined(returns, costs, ended)).squeeze(1)
        utilities = utility(imagined.objective, returns, costs).squeeze(1)
        return Futures(utilities, scores, mean_course(followed, particles)), followed


def _paired(tried: Futures, base: Futures, whom: Tensor) -> tuple[Tensor, Tensor]:
    """[N] how much better than the base of patients int64 [N], and the standard error of the paired difference."""
    difference = tried.utilities - base.utilities[whom]
    return tried.score - base.score[whom], difference.std(1) / difference.shape[1] ** 0.5
