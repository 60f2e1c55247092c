"""What the estimators read: a log's rewards, how much likelier the policy's decisions were than the behaviour's, and a
fitted Q. Every estimator is a function

    estimate(evidence, times [R, N]) -> [R] float64

of how often each of the N stays counts: ones for the estimate itself, the multiplicities of R resamples for its
bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from agents.offline.acting import Acting
from agents.offline.charts import ChartReader
from agents.offline.logged import Logged
from world_models import keys

__all__ = ["Estimator", "Evidence", "Replayed", "effective_size", "evidence_of", "once", "replay", "weights"]


class Replayed(NamedTuple):
    """A policy, asked at every step of a log what it would have done there."""

    log_prob: Tensor  # float32 [N, T]: of the log's choice
    choices: Tensor  # [N, T, S, D]: samples of its own


class Evidence(NamedTuple):
    """N stays of at most T steps; everything is 0 after a stay's end. float64 but for `here`."""

    reward: Tensor  # [N, T]
    here: Tensor  # bool [N, T]
    log_ratio: Tensor  # [N, T]: log-probability of the choice under the policy less that under the behaviour
    q: Tensor  # [N, T]: fitted Q of state and choice; 0 where an estimator needs none
    v: Tensor  # [N, T]: mean of the fitted Q over the policy's choices
    discount: float


Estimator: TypeAlias = Callable[[Evidence, Tensor], Tensor]


@torch.no_grad()
def replay(policy: Acting, logged: Logged, reader: ChartReader, samples: int = 4, seed: int = 0) -> Replayed:
    """Ask `policy` about every step of the log, with the memory that the stay so far gives it.

    Args:
        samples: S, of its choices at each step.
        seed: of the samples.
    """
    count, steps = logged.reward.shape
    key = keys.from_seed(seed, count)
    policy.reset()
    log_prob, choices = [], []
    for step in range(steps):
        chances = policy.chances(reader.at(step))
        choice = logged.choice[:, step]
        log_prob.append(chances.log_prob(choice))
        choices.append(torch.stack([chances.sample(key, step, f"ope/{s}") for s in range(samples)], 1))
        policy.decided(choice)
    return Replayed(torch.stack(log_prob, 1), torch.stack(choices, 1))


def evidence_of(
    logged: Logged,
    replayed: Replayed,
    q: Tensor | None = None,
    v: Tensor | None = None,
    told: bool = False,
    discount: float = 1.0,
) -> Evidence:
    """The evidence about a policy's return.

    Args:
        q, v: [N, T] of a fitted Q.
        told: divide by the chance with which the behaviour did decide, hidden severity included, which only the one who
            made the log knows; else by the nominal one, which reads the charts alone.
    """
    here = logged.here
    behaviour = logged.log_prob if told else logged.nominal_log_prob
    zero = torch.zeros(here.shape, dtype=torch.float64)

    def kept(values: Tensor | None) -> Tensor:
        return zero if values is None else torch.where(here, values.to(torch.float64), 0.0)

    return Evidence(kept(logged.reward), here, kept(replayed.log_prob - behaviour), kept(q), kept(v), discount)


def weights(evidence: Evidence) -> Tensor:
    """Log importance weight [N, T] of each stay up to and with each step; after its end, that of its last."""
    return evidence.log_ratio.cumsum(-1)


def discounts(evidence: Evidence) -> Tensor:
    """[T]: discount ** t."""
    return evidence.discount ** torch.arange(evidence.reward.shape[1], dtype=torch.float64)


def once(evidence: Evidence) -> Tensor:
    """[1, N]: every stay counts once."""
    return torch.ones(1, len(evidence.reward), dtype=torch.float64)


def effective_size(evidence: Evidence) -> float:
    """How many stays of the policy's own the log is worth: (sum w)^2 / sum w^2 over whole stays (Kong 1992).

    Near 1, a single stay decides the estimate.
    """
    log = weights(evidence)[:, -1]
    share = (log - log.max()).exp()
    return float(share.sum().square() / share.square().sum())
