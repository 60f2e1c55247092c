"""The likeliest transitions of `ECGExplain-v0`: how well a set foretells the second latent, and how often it happens.

The distance that the task pays for treats every direction of the latent alike, and every transition alike. Two ECGs of
one state differ, though, and far more in some directions than in others; and some transitions are far commoner. So

    score(a) = -tau/2 |L^-1 (z_goal - Dyn(z_before, a, days))|^2 + sum of the log odds of what a changes,

the log posterior of a normal error with covariance L L^T up to a constant, and tempered: errors have heavier tails than
a normal's, and L is estimated (a "power posterior", tau < 1 (k)). `explain_fit` gets all three from known pairs.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from world_models import tree
from world_models.cardiac_jepa.explain import MAX_STEPS, ExplainWorld
from world_models.protocol import Chart

__all__ = [
    "ExplainPosterior",
    "SetScore",
    "TransitionPrior",
    "explain_world_of",
    "missed_by_sets",
    "singles_and_pairs",
    "whitening",
]


class TransitionPrior(NamedTuple):
    """How often each of C conditions sets in or resolves between two ECGs, by the days between them."""

    edges: Tensor  # [K - 1] days that part the K groups
    onset: Tensor  # [K, C] log odds among those without it
    resolution: Tensor  # [K, C] log odds among those with it

    def log_odds(self, condition: Tensor, days: Tensor) -> Tensor:
        """[B, C] that each condition changes, the only way it can, for condition [B, C] and days [B]."""
        group = torch.bucketize(days.contiguous(), self.edges)
        return torch.where(condition > 0.5, self.resolution[group], self.onset[group])

    @property
    def codes(self) -> int:
        """C, the number of conditions."""
        return self.onset.shape[-1]

    def of_sets(self, chart: Chart, changed: Tensor) -> Tensor:
        """Log odds [B, M] of the sets changed bool [B, M, C], or [M, C] for all; transitions are independent."""
        odds = self.log_odds(chart["condition_before"], chart["days"])
        return (odds.unsqueeze(1) * changed).sum(-1)


class SetScore(Protocol):
    """What is said for a set of transitions besides where it leads."""

    @property
    def codes(self) -> int:
        """C, the number of conditions."""

    def of_sets(self, chart: Chart, changed: Tensor) -> Tensor:
        """Score [B, M] of the sets changed bool [B, M, C], or [M, C] for all problems; higher is likelier."""


class ExplainPosterior:
    """Every single transition and every pair of them is scored; larger sets grow from the best of these.

    It proposes at least one transition, as every problem of the task has: what two ECGs of an unchanged patient look
    like is not asked.

    Args:
        simulator: of `ExplainWorld` and `ECGExplainTask`.
        prior: what is said for a set besides where it leads: `TransitionPrior`, or `explain_reading.ReadTransitions`.
        metric: lower triangle [Z, Z], the Cholesky factor of the covariance of what the dynamics do not foretell; None:
            every direction alike.
        tau: weight of the latents against the prior; 0: the prior alone, blind to them.
        width: sets of two and more that larger ones grow from.
        depth: transitions at most.
        max_rows: latents tried at once; problems are taken in groups so that memory stays bounded.

    Raises:
        ValueError: a width or max_rows below 1, a depth that no episode has time for, a negative tau, a metric or prior
            of other sizes than the world's, or a simulator of another world.
    """

    def __init__(
        self,
        simulator: Simulator,
        prior: SetScore,
        metric: Tensor | None = None,
        tau: float = 0.25,
        width: int = 8,
        depth: int = 4,
        max_rows: int = 8192,
        name: str = "posterior beam",
    ) -> None:
        if min(width, max_rows) < 1 or not 1 <= depth <= MAX_STEPS:
            raise ValueError(
                f"width and max_rows must be at least 1 and depth 1 to {MAX_STEPS}, got {width}, {max_rows}, {depth}"
            )
        if not tau >= 0:
            raise ValueError(f"tau must be 0 or more, got {tau}; a negative one would reward error")
        self.simulator, self.prior, self.tau, self.name = simulator, prior, float(tau), name
        self.width, self.depth, self.max_rows = width, depth, max_rows
        self.codes = len(explain_world_of(simulator).codes)
        if prior.codes != self.codes:
            raise ValueError(f"the prior is of {prior.codes} conditions, the world of {self.codes}")
        size = next(q.shape[0] for q in simulator.world.measures if q.name == "z_goal")
        if metric is not None and tuple(metric.shape) != (size, size):
            raise ValueError(f"metric must be [{size}, {size}] like the latent, got {list(metric.shape)}")
        eye = torch.eye(size, device=simulator.device)
        self._whiten = eye if metric is None else whitening(metric)

    @torch.no_grad()
    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C]: the likeliest set of each problem, from its chart at the start."""
        return self.ranked(chart, 1)[:, 0]

    @torch.no_grad()
    def ranked(self, chart: Chart, count: int) -> Tensor:
        """float32 [B, count, C]: the likeliest sets looked at, best first; zeros where there are no more."""
        rows = torch.arange(len(chart["days"]), device=chart["days"].device)
        sets = singles_and_pairs(self.codes, min(self.depth, 2), rows.device)
        group = max(1, self.max_rows // max(len(sets), self.width * self.codes))
        return torch.cat([self._search(tree.take(chart, part), sets, count) for part in rows.split(group)])

    def score(self, chart: Chart, changed: Tensor) -> Tensor:
        """[B, M] of the sets changed bool [B, M, C] (or [M, C], the same for all)."""
        value = self.prior.of_sets(chart, changed)
        if self.tau > 0:
            error = missed_by_sets(self.simulator, chart, changed) @ self._whiten.T
            value = value - 0.5 * self.tau * error.square().sum(-1)
        return value

    def _search(self, chart: Chart, sets: Tensor, count: int) -> Tensor:
        problems, codes = len(chart["days"]), self.codes
        value = self.score(chart, sets)
        best, index = value.topk(min(count, len(sets)), dim=1)
        best_sets = sets[index]
        of_two = sets.sum(-1) == min(self.depth, 2)
        kept_value, index = value.masked_fill(~of_two, -torch.inf).topk(min(self.width, int(of_two.sum())), dim=1)
        kept = sets[index]
        one_more = torch.eye(codes, dtype=torch.bool, device=sets.device)
        for size in range(3, min(self.depth, codes) + 1):
            grown = (kept.unsqueeze(2) | one_more).flatten(1, 2)
            value = self.score(chart, grown).masked_fill(grown.sum(-1) != size, -torch.inf)
            # One set grows from as many as it has members: look among more, keep one of each.
            value, index = value.topk(min(self.width * size, grown.shape[1]), dim=1)
            grown = _rows(grown, index)
            value = value.masked_fill(_seen_before(grown), -torch.inf)
            kept_value, index = value.topk(min(self.width, value.shape[1]), dim=1)
            kept = _rows(grown, index)
            best, index = torch.cat([best, kept_value], 1).topk(min(count, best.shape[1] + kept.shape[1]), dim=1)
            best_sets = _rows(torch.cat([best_sets, kept], 1), index)
        answer = torch.zeros(problems, count, codes, device=sets.device)
        signed = best_sets * (1.0 - 2.0 * chart["condition_before"]).unsqueeze(1)
        answer[:, : best.shape[1]] = torch.where(best.isfinite().unsqueeze(-1), signed, 0.0)
        return answer


def explain_world_of(simulator: Simulator) -> ExplainWorld:
    """The simulator's world, in which a decider proposes transitions.

    Raises:
        ValueError: it is another world.
    """
    if not isinstance(simulator.world, ExplainWorld):
        raise ValueError(f"explanations need a simulator of ExplainWorld, got one of {type(simulator.world).__name__}")
    return simulator.world


def singles_and_pairs(codes: int, depth: int = 2, device: torch.device | str = "cpu") -> Tensor:
    """bool [M, C]: each condition that may change, and with a depth of 2 each two of them."""
    one = torch.eye(codes, dtype=torch.bool, device=device)
    if depth < 2 or codes < 2:
        return one
    i, j = torch.triu_indices(codes, codes, 1, device=device)
    return torch.cat([one, one[i] | one[j]])


def missed_by_sets(simulator: Simulator, chart: Chart, changed: Tensor) -> Tensor:
    """[B, M, Z]: the second latent less the one each set leads to, for sets bool [M, C] or [B, M, C]."""
    condition, days = chart["condition_before"], chart["days"]
    found = changed * (1.0 - 2.0 * condition).unsqueeze(1)
    times = found.shape[1]
    before = chart["z_before"].repeat_interleave(times, 0)
    led = explain_world_of(simulator).lead(before, found.flatten(0, 1), days.repeat_interleave(times, 0))
    return chart["z_goal"].unsqueeze(1) - led.reshape(len(days), times, -1)


def whitening(metric: Tensor) -> Tensor:
    """The inverse [Z, Z] of a lower triangle: |whitening(L) x|^2 = x^T (L L^T)^-1 x."""
    eye = torch.eye(len(metric), dtype=metric.dtype, device=metric.device)
    return torch.linalg.solve_triangular(metric, eye, upper=False)


def _rows(sets: Tensor, index: Tensor) -> Tensor:
    """Sets [B, N, C] at index [B, K] of each row."""
    return sets.gather(1, index.unsqueeze(-1).expand(-1, -1, sets.shape[-1]))


def _seen_before(sets: Tensor) -> Tensor:
    """bool [B, N]: whether an earlier set of the row is the same."""
    equal = (sets.unsqueeze(2) == sets.unsqueeze(1)).all(-1)
    return (equal & torch.ones(equal.shape[-2:], dtype=torch.bool, device=sets.device).tril(-1)).any(-1)
