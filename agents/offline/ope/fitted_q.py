"""Fitted Q evaluation: a regression on the log of what follows a state and a choice if the policy goes on from there.

Q is linear in fixed features (the observation, the choice, and random tanh features of any two entries of
both, which let them interact), so a fit is a ridge regression repeated once a step of the horizon:

    beta <- (Phi' Phi + ridge)^-1 Phi' (r + discount * V(next)),      V = mean of Phi beta over the policy's choices

(Le, Voloshin & Yue 2019, arXiv 1903.08738; with linear features Duan, Jia & Wang 2020, arXiv 2002.09516). V is kept
near the returns that the log's stays had from somewhere on, so that no repetition runs away. Several fits on
differently weighed stays (folds, resamples) are made at once.

The features read one observation: of a policy or a patient that what came before matters to, Q knows what the chart
says of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.offline.choices import Choices
from agents.offline.logged import Logged
from agents.offline.ope.evidence import Replayed
from world_models import keys

__all__ = ["FittedQ", "fitted_q_value"]

RANDOM_FEATURES = 400
_INPUTS = 2  # of a random feature: dense ones see little of any two inputs together
RIDGE = 3.0  # features are of order 1
_WIDEST = 5.0  # a scaled observation further out counts as this
_BLOCKS = 30  # of stays that are resampled together
_STILL = 1e-4  # relative to the range of returns: repetitions end once nothing moves further
_AT_ONCE = 4096  # rows of features


class FittedQ:
    """The features of one log, and the fits for any policy.

    Args:
        times: float64 [F, N], how often each fit counts each stay; None: one fit, every stay once.
    """

    def __init__(
        self, logged: Logged, choices: Choices, times: Tensor | None = None, discount: float = 1.0, seed: int = 0
    ) -> None:
        self._logged, self._choices, self._discount, self._seed = logged, choices, discount, seed
        self._here = logged.here
        count = len(logged.length)
        self._stay = torch.arange(count).unsqueeze(-1).expand_as(self._here)[self._here]
        self._observation = logged.observation[:, :-1][self._here].clamp(-_WIDEST, _WIDEST)
        self._reward = logged.reward[self._here]
        self._goes_on = torch.ones(len(self._stay), dtype=torch.bool)  # the next row is the same stay's next step
        self._goes_on[:-1] = self._stay[1:] == self._stay[:-1]
        self._goes_on[-1] = False
        self._features = self._phi(logged.choice[self._here])
        self._times = torch.ones(1, count, dtype=torch.float64) if times is None else times
        self._factors = self._cholesky()
        later = (logged.reward.flip(-1).cumsum(-1)).flip(-1)[self._here]
        low, high = float(later.min()), float(later.max())
        self._low, self._high = 2.0 * low - high, 2.0 * high - low  # their own width further, either way

    @classmethod
    def crossed(cls, logged: Logged, choices: Choices, discount: float = 1.0) -> FittedQ:
        """Two fits, each on one half of the stays: see `held_out`."""
        half = (torch.arange(len(logged.length)) % 2).to(torch.float64)
        return cls(logged, choices, torch.stack([half, 1.0 - half]), discount)  # fit 0 is for the even stays

    @classmethod
    def resampled(cls, logged: Logged, choices: Choices, number: int, discount: float = 1.0, seed: int = 0) -> FittedQ:
        """One fit on all stays, and `number` on resamples of blocks of them."""
        count = len(logged.length)
        blocks = min(_BLOCKS, count)
        drawn = keys.bits(keys.from_seed(seed, number), 0, "fitted q/bootstrap", (blocks,)) % blocks
        often = torch.zeros(number, blocks, dtype=torch.float64)
        often.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        each = often[:, torch.arange(count) % blocks]
        return cls(logged, choices, torch.cat([torch.ones(1, count, dtype=torch.float64), each]), discount, seed)

    @property
    def times(self) -> Tensor:
        """float64 [F, N]."""
        return self._times

    def held_out(self, replayed: Replayed) -> tuple[Tensor, Tensor]:
        """q and v float32 [N, T] of `crossed` fits: each stay's from the half that it is not in."""
        q, v = self.values(replayed)
        stays = torch.arange(q.shape[1])
        return q[stays % 2, stays], v[stays % 2, stays]

    def values(self, replayed: Replayed) -> tuple[Tensor, Tensor]:
        """q and v float32 [F, N, T] of every fit, for the policy that was replayed; 0 after a stay's end."""
        expected = torch.zeros_like(self._features)
        own = replayed.choices[self._here]  # [S, samples, D]
        for sample in own.unbind(1):
            expected += self._phi(sample) / own.shape[1]
        beta = self._fit(expected)
        q, v = torch.zeros(2, len(self._times), *self._here.shape)
        q[:, self._here] = (self._features @ beta).T
        v[:, self._here] = (expected @ beta).T  # not cut: doubly robust estimates need the mean of q
        return q, v

    def _fit(self, expected: Tensor) -> Tensor:
        """beta float32 [p, F]."""
        weight = self._times.to(torch.float32)[:, self._stay].T  # [S, F]
        beta = torch.zeros(self._features.shape[1], len(self._times))
        following = torch.zeros(len(self._reward), len(self._times))
        for _ in range(self._here.shape[1]):
            target = self._reward.unsqueeze(-1) + self._discount * following
            moment = self._features.T @ (weight * target)  # [p, F]
            beta = torch.cholesky_solve(moment.T.unsqueeze(-1).to(torch.float64), self._factors)
            beta = beta.squeeze(-1).T.to(torch.float32)
            value = (expected @ beta).clamp(self._low, self._high)
            moved = torch.where(self._goes_on.unsqueeze(-1), value.roll(-1, 0), 0.0)
            still = float((moved - following).abs().max()) <= _STILL * (self._high - self._low)
            following = moved
            if still:
                break
        return beta

    def _cholesky(self) -> Tensor:
        """float64 [F, p, p]: factors of Phi' Phi + ridge, from sums over stays that all fits count alike."""
        alike, group = self._times.T.unique(dim=0, return_inverse=True)  # [G, F], [N]
        size = self._features.shape[1]
        grams = torch.zeros(len(alike), size, size, dtype=torch.float64)
        of_row = group[self._stay]
        for g in range(len(alike)):
            for rows in (of_row == g).nonzero().squeeze(-1).split(_AT_ONCE):
                part = self._features[rows].to(torch.float64)  # what float32 rounds off a long log outweighs the ridge
                grams[g] += part.T @ part
        total = torch.einsum("gf,gpq->fpq", alike, grams) + RIDGE * torch.eye(size, dtype=torch.float64)
        return torch.linalg.cholesky(total)

    def _phi(self, choice: Tensor) -> Tensor:
        """float32 [S, p]: features of every step's observation with these choices [S, D]."""
        coded = self._choices.one_hot(choice)
        both = torch.cat([self._observation, coded], -1)
        width = both.shape[1]
        key = keys.from_seed(self._seed, 1)
        order = keys.uniform(key, 0, "fitted q/inputs", (width, RANDOM_FEATURES))[0]
        mix = keys.normal(key, 0, "fitted q/features", (width, RANDOM_FEATURES))[0]
        mix = torch.where(order <= order.kthvalue(_INPUTS, 0).values, mix, 0.0)
        shift = keys.normal(key, 0, "fitted q/shift", (RANDOM_FEATURES,))[0]
        return torch.cat([torch.ones(len(both), 1), both, (both @ mix + shift).tanh()], -1)


def fitted_q_value(fitted: FittedQ, replayed: Replayed) -> Tensor:
    """float64 [F]: the mean fitted value of the stays' first states, as each fit counts them."""
    first = fitted.values(replayed)[1][:, :, 0].to(torch.float64)
    return (first * fitted.times).sum(-1) / fitted.times.sum(-1)
