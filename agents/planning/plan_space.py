"""What a planner may plan: how plans are first believed in, sampled, refitted to the best of them, and become orders.

A plan is a row of numbers, one a place. Spaces differ by the kind of action (`menu_plans`, `level_plans`, `dose_plans`)
and by what a place stands for: a decision a step, one held over a block of steps, or a course of doses at fixed hours
(`schedule_plans`); and by where they are centred: on nothing, or on what a policy would do (`edit_plans`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from agents.planning.coloured_noise import coloured_uniforms
from world_models import keys

__all__ = ["CategoricalPlans", "PlanSpace", "blocks_of", "check_nothing", "equally", "from_probabilities", "held"]
__all__ += ["proposal_noise"]


class PlanSpace(Protocol):
    """All that a planner needs to know of its plans, plans [..., places] and beliefs [B, places, ...] of B patients."""

    def prior(self, patients: int) -> Tensor:
        """The belief before anything is known."""

    def anchors(self) -> Tensor:
        """Plans [N, places] that are always tried; the first is to do nothing at all, or as little as there is."""

    def likeliest(self, belief: Tensor) -> Tensor:
        """The plan [B, places] that the belief thinks best."""

    def sample(self, key: Tensor, look: int, belief: Tensor, count: int, beta: float = 0.0) -> Tensor:
        """Plans [B, count, places] from a belief with keys int64 [B]; another `look` is an independent sample.

        Args:
            beta: exponent of the noise's power spectrum 1 / f^beta over the steps of a plan: 0 white, each place by
                itself; above it, what is ordered at one step tends to be at the next (`coloured_noise`).
        """

    def refit(
        self, elites: Tensor, belief: Tensor, smoothing: float, floor: float, weights: Tensor | None = None
    ) -> Tensor:
        """The belief after the best plans [B, E, places] were seen.

        Args:
            smoothing: weight of the old belief, 0 forgets it.
            floor: weight of the widest belief there is, so that nothing is ever ruled out.
            weights: [B, E] how much each plan counts, adding up to 1; None: equally.
        """

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """The same belief after `steps` of the plan were carried out: the end comes from the prior."""

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """Plans [..., places] after `steps` of them were carried out: the end does nothing."""

    def nearest(self, orders: Tensor) -> Tensor:
        """The plans [..., places] whose orders come nearest to orders [..., H, A]."""

    def around(self, orders: Tensor) -> PlanSpace:
        """The space of the same plans, centred on orders float32 [B, H, A] of B patients: its prior expects those."""

    def orders(self, plans: Tensor) -> Tensor:
        """Orders float32 [..., H, A] of plans [..., places], for the H steps of the horizon."""

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """What `Agent.act` gives at step int64 [B] of plans [B, places]."""


class CategoricalPlans:
    """Plans whose places hold one of M choices: int64 [..., places]; a belief is probabilities [B, places, M].

    The places are sampled independently, or with coloured noise along the steps, and refitted each by itself. Choice 0
    is "nothing" wherever there is such a choice.

    Args:
        first: [places, M], the prior of every patient, or [B, places, M], each one's own.
        decided: steps that a plan decides on, each with places / decided places.
    """

    def __init__(self, first: Tensor, decided: int) -> None:
        self._first, self._decided = first, decided

    def prior(self, patients: int) -> Tensor:
        """[B, places, M], see `PlanSpace`."""
        return self._first.expand(patients, -1, -1).clone()

    def likeliest(self, belief: Tensor) -> Tensor:
        """int64 [B, places], see `PlanSpace`."""
        return belief.argmax(-1)

    def sample(self, key: Tensor, look: int, belief: Tensor, count: int, beta: float = 0.0) -> Tensor:
        """int64 [B, count, places], see `PlanSpace`."""
        return from_probabilities(belief, proposal_noise(key, look, count, belief.shape[1], self._decided, beta))

    def refit(
        self, elites: Tensor, belief: Tensor, smoothing: float, floor: float, weights: Tensor | None = None
    ) -> Tensor:
        """[B, places, M]: the elites' frequencies, mixed with the old belief and the uniform one, see `PlanSpace`."""
        counts = torch.zeros_like(belief)
        share = equally(elites) if weights is None else weights
        each = share.to(belief.dtype).unsqueeze(1).expand(-1, elites.shape[2], -1)
        counts.scatter_add_(2, elites.transpose(1, 2), each)
        new = smoothing * belief + (1.0 - smoothing) * counts
        return (1.0 - floor) * new + self._uniform(floor)

    def _uniform(self, weight: float) -> Tensor | float:
        """[places, M]: the weight, shared equally by the choices there are at a place."""
        return weight / self._first.shape[-1]

    def _moved(self, belief: Tensor, decisions: int) -> Tensor:
        """The belief without its first decisions, filled up from the prior's last ones."""
        places = decisions * (belief.shape[1] // self._decided)
        prior = self.prior(belief.shape[0])
        if places >= belief.shape[1]:
            return prior
        return torch.cat([belief[:, places:], prior[:, prior.shape[1] - places :]], dim=1)

    def _dropped(self, plans: Tensor, decisions: int) -> Tensor:
        """The plans without their first decisions, filled up with choice 0."""
        places = min(decisions * (plans.shape[-1] // self._decided), plans.shape[-1])
        return torch.cat([plans[..., places:], torch.zeros_like(plans[..., :places])], -1)


def proposal_noise(key: Tensor, look: int, count: int, places: int, decided: int, beta: float) -> Tensor:
    """Uniform on (0, 1), float32 [B, count, places]: what a sample of `count` plans is drawn from."""
    if beta == 0.0:
        return keys.uniform(key, look, "planning/proposal", (count, places))
    each = coloured_uniforms(key, look, (count, places // decided), decided, beta)
    return each.transpose(2, 3).flatten(2)


def from_probabilities(belief: Tensor, uniform: Tensor) -> Tensor:
    """int64 [B, K, places]: the choice at which uniform [B, K, places] falls in the belief [B, places, M]."""
    edges = belief.cumsum(-1).unsqueeze(1)  # [B, 1, places, M]
    point = uniform.unsqueeze(-1) * edges[..., -1:]
    return (point >= edges).sum(-1).clamp_max(belief.shape[-1] - 1)


def equally(plans: Tensor) -> Tensor:
    """float32 [B, E]: each of plans [B, E, places] has the same share of 1."""
    return torch.full(plans.shape[:2], 1.0 / plans.shape[1], device=plans.device)


def blocks_of(horizon: int, block: int) -> int:
    """How many decisions a plan of so many steps holds if each is held for `block` steps.

    Raises:
        ValueError: a block of less than one step.
    """
    if block < 1:
        raise ValueError(f"a block must be at least 1 step, got {block}")
    return -(-horizon // block)


def held(decided: Tensor, horizon: int, block: int, once: Tensor) -> Tensor:
    """Orders float32 [..., H, A] of decisions [..., N, A] that are held for `block` steps each; those of `once` bool
    [A] are acts, done at a block's first step alone."""
    orders = decided.repeat_interleave(block, -2)[..., :horizon, :]
    if block == 1:
        return orders
    later = torch.arange(horizon, device=orders.device) % block > 0
    return torch.where(later.unsqueeze(-1) & once, 0.0, orders)


def check_nothing(nothing: float) -> None:
    """Raises ValueError: a prior probability of "nothing" outside [0, 1)."""
    if not 0.0 <= nothing < 1.0:
        raise ValueError(f"the prior probability of 'nothing' must be at least 0 and below 1, got {nothing}")
