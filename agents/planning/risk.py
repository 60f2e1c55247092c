"""Risk measures: small objects that turn samples of a return into one number, higher is better.

Each is called on samples [..., P] and gives [...]. `MeanMinusSigma` is the uncertainty-aware score
S(a) = mu(a) + lambda sigma(a) of the ECG-WM paper, which is written for a risk (lower is better); on a return the
same order is mu - lambda sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["CVaR", "Mean", "MeanMinusSigma", "Risk"]


@runtime_checkable
class Risk(Protocol):
    """Anything called as below."""

    def __call__(self, samples: Tensor) -> Tensor:
        """[..., P] samples of a return -> [...] score, higher is better."""


@dataclass(frozen=True)
class Mean:
    """The expected return: indifferent to risk."""

    def __call__(self, samples: Tensor) -> Tensor:
        return samples.mean(-1)


@dataclass(frozen=True)
class MeanMinusSigma:
    """mu - lam * sigma, sigma the sample standard deviation (0 for a single sample).

    Raises:
        ValueError: lam is not finite.
    """

    lam: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.lam):
            raise ValueError(f"lam must be finite, got {self.lam}")

    def __call__(self, samples: Tensor) -> Tensor:
        if samples.shape[-1] < 2:
            return samples.mean(-1)
        return samples.mean(-1) - self.lam * samples.std(-1)


@dataclass(frozen=True)
class CVaR:
    """The mean of the worst `alpha` share of the samples (expected shortfall).

    Of P samples the worst floor(alpha P) count whole and the next one in part, the empirical estimator of Acerbi &
    Tasche 2002, doi 10.1016/S0378-4266(02)00283-2; alpha P below one gives the worst sample.

    Raises:
        ValueError: alpha is not in (0, 1].
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise ValueError(f"alpha must be above 0 and at most 1, got {self.alpha}; 0.05 is the worst twentieth")

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
