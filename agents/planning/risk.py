"""Risk measures: small objects that turn samples of a return into one number, higher is better.

Each is called on samples [..., P] and gives [...]. What must also know which futures share a belief, or which member of
an ensemble each lives in, is a `StructuredRisk` and takes the whole of what was imagined besides (`scored` asks).
`MeanMinusSigma` is the uncertainty-aware score S(a) = mu(a) + lambda sigma(a) of the ECG-WM paper, which is written for
a risk (lower is better); on a return the same order is mu - lambda sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clinenv.imagined import Imagined
from world_models.uncertainty import parts_of

__all__ = ["CVaR", "Mean", "MeanMinusSigma", "Risk", "StructuredRisk", "WorstMember", "scored"]

PARTS = ("both", "epistemic", "aleatoric")


@runtime_checkable
class Risk(Protocol):
    """Anything called as below."""

    def __call__(self, samples: Tensor) -> Tensor:
        """[..., P] samples of a return -> [...] score, higher is better."""


@runtime_checkable
class StructuredRisk(Protocol):
    """A risk that asks how the futures were imagined, or refuses some that it cannot judge."""

    def of(self, samples: Tensor, imagined: Imagined) -> Tensor:
        """[B, K, P] samples of the futures `imagined` -> [B, K] score, higher is better.

        Raises:
            ValueError: futures that this measure cannot be taken of; the message says how to imagine them.
        """


def scored(risk: Risk | StructuredRisk, samples: Tensor, imagined: Imagined) -> Tensor:
    """Scores [B, K] of samples [B, K, P] of the futures `imagined`. Raises as `StructuredRisk.of`."""
    return risk.of(samples, imagined) if isinstance(risk, StructuredRisk) else risk(samples)


@dataclass(frozen=True)
class Mean:
    """The expected return: indifferent to risk."""

    def __call__(self, samples: Tensor) -> Tensor:
        return samples.mean(-1)


@dataclass(frozen=True)
class MeanMinusSigma:
    """mu - lam * sigma, sigma the sample standard deviation (0 for a single sample), or one part of it.

    By the law of total variance Var = Var(E[return | patient]) + E(Var[return | patient]): the first is epistemic (the
    patient, and the member of an ensemble, are not known), the second aleatoric (chance). They are estimated from
    futures in runs that share a belief (`Simulator(..., chances=C)`), the first freed of what chance adds to the means
    of runs (`world_models.uncertainty.parts_of`).

    Raises:
        ValueError: lam is not finite, or an unknown part.
    """

    lam: float = 1.0
    part: str = "both"  # or "epistemic", "aleatoric"

    def __post_init__(self) -> None:
        if not math.isfinite(self.lam):
            raise ValueError(f"lam must be finite, got {self.lam}")
        if self.part not in PARTS:
            raise ValueError(f"part={self.part!r} is unknown; choose one of {', '.join(PARTS)}")

    def __call__(self, samples: Tensor) -> Tensor:
        if self.part != "both":
            raise ValueError(f"the {self.part} part cannot be told from samples alone; it is taken of imagined futures")
        if samples.shape[-1] < 2:
            return samples.mean(-1)
        return samples.mean(-1) - self.lam * samples.std(-1)

    def of(self, samples: Tensor, imagined: Imagined) -> Tensor:
        """See `StructuredRisk`."""
        if self.part != "epistemic":
            _check_drawn(f"a sigma that is {self.part}", imagined)
        if self.part == "both":
            return self(samples)
        chances, count = imagined.chances, samples.shape[-1]
        if chances < 2 or count < 2 * chances:
            raise ValueError(
                f"the {self.part} part of {count} futures in runs of {chances} cannot be told: at least 2 runs of 2 "
                "are needed; plan in a Simulator(..., chances=4), say, with a multiple of it as particles, 8 or more"
            )
        parts = parts_of(samples.unflatten(-1, (-1, chances)))
        sigma = parts.epistemic if self.part == "epistemic" else parts.aleatoric
        return samples.mean(-1) - self.lam * sigma


@dataclass(frozen=True)
class CVaR:
    """The mean of the worst `alpha` share of the samples (expected shortfall).

    Of P samples the worst floor(alpha P) count whole and the next one in part, the empirical estimator of Acerbi &
    Tasche 2002, doi 10.1016/S0378-4266(02)00283-2; alpha P below one gives the worst sample. That is no longer the
    tail that was asked for, so a planner's futures must be at least 1 / alpha (`of`).

    Raises:
        ValueError: alpha is not in (0, 1].
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise ValueError(f"alpha must be above 0 and at most 1, got {self.alpha}; 0.05 is the worst twentieth")

    @property
    def least_samples(self) -> int:
        """So many samples have one whole in the tail."""
        return math.ceil(round(1.0 / self.alpha, 9))

    def __call__(self, samples: Tensor) -> Tensor:
        tail = max(self.alpha * samples.shape[-1], 1.0)
        # 0.05 * 500 is 25.000000000000004 in floating point: without rounding, a 26th sample would count.
        tail = round(tail, 9)
        whole = int(tail)
        worst = samples.sort(-1).values
        total = worst[..., :whole].sum(-1)
        if tail > whole:
            total = total + (tail - whole) * worst[..., whole]
        return total / tail

    def of(self, samples: Tensor, imagined: Imagined) -> Tensor:
        """See `StructuredRisk`."""
        _check_drawn("a tail", imagined)
        if samples.shape[-1] < self.least_samples:
            raise ValueError(
                f"CVaR of the worst {self.alpha:g} needs at least {self.least_samples} particles, got "
                f"{samples.shape[-1]}: fewer have no whole one in that tail; raise particles, or alpha"
            )
        return self(samples)


@dataclass(frozen=True)
class WorstMember:
    """The mean return in that member of an ensemble in which the plan does worst (robust to which of them is true).

    Members are drawn by chance (`world_models.ensemble`), so some sixteen particles a member make this steady; one that
    no particle lives in is left out.
    """

    def of(self, samples: Tensor, imagined: Imagined) -> Tensor:
        """See `StructuredRisk`."""
        if imagined.members is None:
            raise ValueError("the worst member is asked of an ensemble; plan in a world such as 'ensemble:PATH1,PATH2'")
        worst = torch.full_like(samples[..., 0], torch.inf)
        for member in imagined.members.unique().tolist():
            inside = (imagined.members == member).to(samples.dtype)  # [B, P]
            count = inside.sum(-1, keepdim=True)
            mean = (samples * inside.unsqueeze(1)).sum(-1) / count.clamp_min(1)
            worst = torch.where((count > 0) & (mean < worst), mean, worst)
        return worst


def _check_drawn(what: str, imagined: Imagined) -> None:
    if imagined.terminated.is_floating_point():  # the chance of an end: events were not drawn
        raise ValueError(f"{what} cannot be taken of futures at their events' expectation; plan with events='drawn'")
