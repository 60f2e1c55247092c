"""What else a cardiac JEPA's world knows of two latents, weighed with its dynamics: sets of transitions scored by both.

The dynamics foretell one latent a set, and a normal error about it: that a condition shows on some days and not on
others, which makes two humps of one, they cannot say. The world's own parts read a transition off the two latents
directly: its probe at either, its inverse dynamics; and its labels' process says how often it comes about. So

    score(a) = -tau/2 |L^-1 (z_goal - Dyn(z_before, a, days))|^2 + sum over c in a of (w . clues_c + b_c)
               + m (|a| - 1) + s [a scar is left],

w and b apart for onsets and resolutions. A conditional logit over the sets (McFadden 1974 (k)), fitted to known pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from agents.planning.explain_fit import Fitted, distances
from agents.planning.explain_posterior import TransitionPrior, explain_world_of, singles_and_pairs
from clinenv.simulator import Simulator
from world_models.cardiac_jepa.labels import LabelModel
from world_models.cardiac_jepa.model import Reader
from world_models.protocol import Chart
from world_models.quantities.progression import DRUGS, PROCEDURES, scars
from world_models.quantity import DAYS_PER_MONTH

__all__ = ["ReadTransitions", "ReadableWorld", "clues", "fit_reading"]

USUAL_AGE_YEARS, USUAL_SEX = 65.0, 0.5  # the problem tells neither
RIDGE = 3.0  # on the squares of b; 1 to 30 gave the same in cross-validation among known pairs
CHANCE_EPS = 1e-6  # a probability nearer to 0 or 1 reads as this near: its log odds stay finite
LEAST_TAU = 1e-3  # where the fit of tau begins at least: it is fitted as a logarithm


class ReadableWorld(Protocol):
    """What an `ExplainWorld` is built on, with the parts of it that read a transition."""

    codes: tuple[str, ...]
    jepa: Any  # its `inverse` gives [B, C] of two latents [B, Z], or is None where it learned no inverse dynamics
    reader: Reader | None
    labels: LabelModel | None


class ReadTransitions(NamedTuple):
    """Scores sets of transitions from a problem's chart, as `TransitionPrior` does. C conditions, K clues."""

    world: ReadableWorld
    prior: TransitionPrior
    weight: Tensor  # [2, 1 + K] of the prior's log odds and the clues: onsets, resolutions
    bias: Tensor  # [2, C]
    more: Tensor  # [] for each transition after the first
    scar: Tensor  # [] where something resolves and what it becomes sets in

    @property
    def codes(self) -> int:
        """C, the number of conditions."""
        return self.prior.codes

    def of_sets(self, chart: Chart, changed: Tensor) -> Tensor:
        """Score [B, M] of the sets changed bool [B, M, C], or [M, C] for all problems."""
        return _scores(self, chart["condition_before"], _features(self.world, self.prior, chart), changed)


@torch.no_grad()
def clues(world: ReadableWorld, chart: Chart) -> Tensor:
    """[B, C, K]: what each part of the world that there is says for a change of each condition, the only way it can.

    The probe's log odds that it is (for a resolution: is not) there, at the second latent and at the first; inverse
    dynamics; log odds of the change by the labels' process, for a usual patient whom nothing is ordered for. A world
    without one of these (another JEPA, say, that learned no inverse dynamics) has fewer clues.
    """
    condition = chart["condition_before"]
    found = []
    reader = world.reader
    if reader is not None:
        found += [torch.logit(reader.chances(chart[z]), eps=CHANCE_EPS) for z in ("z_goal", "z_before")]
    if world.jepa.inverse is not None:
        found.append(world.jepa.inverse(chart["z_before"], chart["z_goal"]))
    if world.labels is not None:
        rows = len(condition)
        age, sex = (torch.full((rows,), x, device=condition.device) for x in (USUAL_AGE_YEARS, USUAL_SEX))
        none, drugs = (torch.zeros(rows, len(x), device=condition.device) for x in (PROCEDURES, DRUGS))
        months = chart["days"] / DAYS_PER_MONTH
        present = world.labels(condition, age, sex, none, none, drugs, months).present
        found.append(torch.logit(present, eps=CHANCE_EPS))
    toward = 1.0 - 2.0 * condition
    return torch.stack([toward * x for x in found], -1) if found else condition.new_zeros(*condition.shape, 0)


def fit_reading(
    simulator: Simulator, chart: Chart, sought: Tensor, how: Fitted, ridge: float = RIDGE
) -> tuple[ReadTransitions, float]:
    """The scores, and tau, under which the true sets of known pairs at their start are likeliest.

    Args:
        sought: [N, C] the true transitions; pairs with three and more say nothing here.
        how: what was fitted to the same pairs: prior and metric are taken from it.

    Raises:
        ValueError: no pair with one transition or two, or a negative ridge.
    """
    sets = singles_and_pairs(sought.shape[1], 2, sought.device)
    same = ((sought != 0).unsqueeze(1) == sets).all(-1)
    rows = same.any(1)
    if not bool(rows.any()) or ridge < 0:
        raise ValueError(
            f"a reading needs a pair of one or two transitions and a ridge of 0 or more, got {int(rows.sum())}, {ridge}"
        )
    world = cast(ReadableWorld, explain_world_of(simulator).world)
    distance, truth = distances(simulator, chart, sets, [how.metric])[0][rows], same[rows].to(torch.int8).argmax(1)
    features, condition = _features(world, how.prior, chart)[rows], chart["condition_before"][rows]
    weight = torch.zeros(2, features.shape[-1], device=sets.device)
    weight[:, 0] = 1.0
    bias, more, scar = weight.new_zeros(2, sets.shape[1]), weight.new_zeros(()), weight.new_zeros(())
    some = ReadTransitions(world, how.prior, weight, bias, more, scar)
    log_tau = torch.tensor(how.tau, device=sets.device).clamp_min(LEAST_TAU).log()
    learned = [x.requires_grad_() for x in (weight, bias, more, scar, log_tau)]
    step = torch.optim.LBFGS(learned, lr=0.5, max_iter=80, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        step.zero_grad()
        score = _scores(some, condition, features, sets) - 0.5 * log_tau.exp() * distance
        value = torch.nn.functional.cross_entropy(score, truth, reduction="sum") + ridge * some.bias.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        step.step(loss)
    read = ReadTransitions(world, how.prior, weight.detach(), bias.detach(), more.detach(), scar.detach())
    return read, float(log_tau.detach().exp())


def _features(world: ReadableWorld, prior: TransitionPrior, chart: Chart) -> Tensor:
    """The prior's log odds and the clues, [B, C, 1 + K]."""
    odds = prior.log_odds(chart["condition_before"], chart["days"])
    return torch.cat([odds.unsqueeze(-1), clues(world, chart)], -1)


def _scores(how: ReadTransitions, condition: Tensor, features: Tensor, changed: Tensor) -> Tensor:
    there = (condition > 0.5).to(torch.float32)
    each = (features * torch.lerp(how.weight[0], how.weight[1], there.unsqueeze(-1))).sum(-1)
    each = each + torch.lerp(how.bias[0].expand_as(there), how.bias[1].expand_as(there), there)
    value = (each.unsqueeze(1) * changed).sum(-1) + how.more * (changed.sum(-1) - 1)
    for i, j in scars(how.world.codes):
        new = ((condition[:, i] > 0.5) & (condition[:, j] < 0.5)).unsqueeze(1)
        value = value + how.scar * (changed[..., i] & changed[..., j] & new)
    return value
