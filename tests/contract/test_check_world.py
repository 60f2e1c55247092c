"""The public checker of worlds names the rule that a broken world breaks."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.toy_world import ToyWorld
from world_models.inputs import checked_factors
from world_models.testing import check_world


class DrawsFromNumpy(ToyWorld):
    def transition(self, state, action):
        np.random.rand()
        return super().transition(state, action)


class DrawsFromPython(ToyWorld):
    def observe(self, state, also=()):
        random.random()
        return super().observe(state, also)


class DrawsFromTorch(ToyWorld):
    def initial(self, key, factors=None):
        torch.rand(1)
        return super().initial(key, factors)


class LosesItsKey(ToyWorld):
    def transition(self, state, action):
        moved = super().transition(state, action)
        return moved._replace(key=moved.key + 1)


class IgnoresWhatNoChartShows(ToyWorld):
    def initial(self, key, factors=None):
        fixed = checked_factors(self.factors, factors, len(key), self.device)
        return super().initial(key, {name: value for name, value in fixed.items() if name != "metaboliser"})


class OtherPatients(ToyWorld):
    def rekey(self, state, key):
        other = super().rekey(state, key)
        other.patient[:, 0] = 18.0
        return other


class BoundlessSpread(ToyWorld):
    def spread(self, state):
        return {name: sd * torch.inf for name, sd in super().spread(state).items()}


class SpreadOfACrowd(ToyWorld):
    def spread(self, state):
        return {name: sd * len(state.key) for name, sd in super().spread(state).items()}


class SupportOfACrowd(ToyWorld):
    def support(self, state):
        return torch.full((len(state.key),), len(state.key) > 3)


class SupportThatWrites(ToyWorld):
    def support(self, state):
        state.total.mul_(2.0).add_(1.0)
        return super().support(state)


class CutsWideActions(ToyWorld):
    def transition(self, state, action):
        return super().transition(state, action[:, : len(self.orders)])


class Timeless(ToyWorld):
    hours_per_step = float("inf")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (DrawsFromNumpy, "called numpy's global generator"),
        (DrawsFromPython, "called Python's global generator"),
        (DrawsFromTorch, "called torch's global generator"),
        (LosesItsKey, "transition must keep the key"),
        (IgnoresWhatNoChartShows, "factor metaboliser changes nothing: 0.25 and 4"),
        (OtherPatients, "rekey changed age_years"),
        (BoundlessSpread, "spread of qtcf_ms must be finite"),
        (SpreadOfACrowd, "spread of rows .* results differ"),
        (SupportOfACrowd, "support of rows .* results differ"),
        (SupportThatWrites, "spread or support changed the state"),
        (CutsWideActions, r"\(7, 5\) instead of \(7, 4\) was taken"),
        (Timeless, "positive hours_per_step"),
    ],
)
def test_a_broken_world_is_told_which_rule(broken: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_world(broken())


def test_an_honest_world_passes() -> None:
    check_world(ToyWorld(), also=("ecg_mv", "latent"))
