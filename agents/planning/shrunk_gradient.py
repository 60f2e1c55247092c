"""Uphill in a policy's parameters by a gradient that believes each reward term only as far as its noise allows.

Every patient is met twice with the same chance, with the parameters moved by +z and by -z, z a normal sample of his own
(antithetic evolution strategies: Salimans 2017, arXiv 1703.03864). Half the difference, regressed on z, is the slope.
A return mixes what is almost certain (what a test costs) with what hardly is (who dies), and the second drowns the
first. So the gradient is taken term by term, each shrunk towards 0 by empirical Bayes (James & Stein 1961; Efron &
Morris 1973, doi 10.2307/2284155): of a term whose slopes are no larger than their standard errors nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from world_models import keys

__all__ = ["ShrunkGradient", "climb", "shrunk"]

# (parameters [N, P], int64 [N] which patient of the look, look) -> name -> [N], terms that add up to the return.
# Equal patients of an equal look meet equal chance.
EvaluateTerms = Callable[[Tensor, Tensor, int], Mapping[str, Tensor]]


@dataclass(frozen=True)
class ShrunkGradient:
    """How long to climb: rounds * (2 * pairs + (len(strides) + 1) * judged) courses."""

    rounds: int = 3
    pairs: int = 768  # patients met twice for a gradient
    spread: float = 0.5  # SD of z
    strides: tuple[float, ...] = (0.25, 0.5, 1.0)  # steps tried, as the root mean square change of a parameter
    judged: int = 192  # other patients on which the stride is chosen; staying is always among the choices

    def __post_init__(self) -> None:
        if min(self.rounds, self.pairs - 1, self.judged) < 1 or self.spread <= 0 or not self.strides:
            raise ValueError(f"need rounds and judged >= 1, pairs >= 2, spread > 0 and a stride, got {self}")


def shrunk(slope: Tensor, error: Tensor) -> Tensor:
    """Slopes [P] with standard errors [P], towards 0: s * tau^2 / (tau^2 + e^2), tau^2 = mean(s^2 - e^2) or 0."""
    size = (slope.square() - error.square()).mean().clamp_min(0.0)
    return slope * size / (size + error.square()).clamp_min(1e-30)


def climb(
    evaluate: EvaluateTerms,
    start: Tensor,
    config: ShrunkGradient,
    seed: int = 0,
    limit: float | None = None,
    together: tuple[tuple[str, ...], ...] = (),
    progress: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Parameters [P] after the last round; `start` itself where no stride was better.

    Args:
        evaluate: the return's terms.
        start: [P].
        seed: of the sampling.
        limit: parameters stay within -limit .. limit.
        together: terms that are one fate (death, discharge) and are summed before anything else.
        progress: called with the round and the gain of its stride.
    """
    here = start.clone()
    key = keys.fold(keys.from_seed(seed, config.pairs), "agent/climb")
    patient = torch.arange(config.pairs)
    judged = torch.arange(config.judged)
    for look in range(config.rounds):
        z = keys.normal(key, look, "moves", (len(here),)).to(here) * config.spread
        both = torch.cat([here + z, here - z])
        terms = evaluate(_within(both, limit), patient.repeat(2), 2 * look)
        gradient = torch.zeros_like(here)
        for change in _grouped(terms, together):
            half = (change[: config.pairs] - change[config.pairs :]) / 2.0
            product = z * half.unsqueeze(1) / config.spread**2
            gradient += shrunk(product.mean(0), product.std(0) / config.pairs**0.5)
        size = gradient.square().mean().sqrt()
        if float(size) > 0:
            tried = torch.stack([here, *(here + gradient / size * stride for stride in config.strides)])
            tried = _within(tried, limit)
            found = evaluate(tried.repeat_interleave(config.judged, 0), judged.repeat(len(tried)), 2 * look + 1)
            gains = _total(list(found.values())).view(len(tried), config.judged)
            gains = gains - gains[:1]  # paired with staying
            # a stride is worth what it gained less its standard error: the best of several by chance is not enough
            score = gains.mean(1) - gains.std(1, correction=0) / config.judged**0.5
            best = int(score.argmax())
            here, gain = tried[best], float(gains[best].mean())
        else:
            gain = 0.0
        if progress is not None:
            progress(look + 1, gain)
    return here


def _total(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


def _within(parameters: Tensor, limit: float | None) -> Tensor:
    return parameters if limit is None else parameters.clamp(-limit, limit)


def _grouped(terms: Mapping[str, Tensor], together: tuple[tuple[str, ...], ...]) -> list[Tensor]:
    joined = {name for group in together for name in group}
    groups = [_total([terms[name] for name in group]) for group in together]
    return [*groups, *(value for name, value in terms.items() if name not in joined)]
