"""Proposals: shapes, probabilities, repeatability; and CEM on problems whose answer is known."""

from __future__ import annotations

import pytest
import torch

from agents.planning import proposals
from agents.planning.cem import CEM, CEMConfig
from agents.planning.random_shooting import random_shooting
from world_models import keys


def test_samples_follow_the_probabilities_and_the_key():
    key = keys.from_seed(0, 3)
    belief = torch.tensor([0.7, 0.2, 0.1]).expand(3, 4, 3)
    drawn = proposals.sample(key, 0, belief, 4000)
    assert drawn.shape == (3, 4000, 4)
    share = torch.stack([(drawn == m).float().mean(1) for m in range(3)], -1)
    assert torch.allclose(share, belief, atol=0.03)
    assert torch.equal(drawn, proposals.sample(key, 0, belief, 4000))
    assert not torch.equal(drawn, proposals.sample(key, 1, belief, 4000))
    assert torch.equal(drawn[1:2], proposals.sample(key[1:2], 0, belief[1:2], 4000))


def test_anchors_hold_nothing_once_always_and_every():
    plans = proposals.anchors(3, 8, every=(6,)).tolist()
    assert plans[0] == [0] * 8
    assert [2] + [0] * 7 in plans and [1] * 8 in plans and [2, 0, 0, 0, 0, 0, 2, 0] in plans
    assert len(plans) == 1 + 3 * 2


def test_refit_is_a_distribution_with_a_floor():
    old = proposals.prior(2, 3, 4, nothing=0.7)
    new = proposals.refit(torch.ones(2, 5, 3, dtype=torch.int64), old, smoothing=0.2, floor=0.1)
    assert torch.allclose(new.sum(-1), torch.ones(2, 3))
    assert float(new.min()) >= 0.1 / 4 - 1e-7 and bool((new.argmax(-1) == 1).all())


def test_shift_drops_the_front():
    belief = torch.arange(12.0).reshape(1, 4, 3)
    fill = torch.full((1, 4, 3), -1.0)
    moved = proposals.shift(belief, 1, fill)
    assert torch.equal(moved[:, :3], belief[:, 1:]) and torch.equal(moved[:, 3:], fill[:, :1])
    assert torch.equal(proposals.shift(belief, 4, fill), fill)


def matching(target):
    """Score: how many steps of the plan are the target's; patients have targets of their own."""
    return lambda plans, look: (plans == target.unsqueeze(1)).float().sum(-1)


def test_cem_finds_the_known_best_for_every_patient():
    target = torch.tensor([[2, 0, 1, 3, 0, 2], [0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3], [0, 1, 0, 2, 0, 3]])
    config = CEMConfig(horizon=6, candidates=96, iterations=8, elites=10, particles=1, nothing=0.4, smoothing=0.1)
    cem = CEM(config, choices=4)
    plan = cem.plan(matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.steps, target)
    assert torch.equal(plan.score, torch.full((4,), 6.0))
    again = cem.plan(matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.probabilities, again.probabilities)
    lone = cem.plan(matching(target[3:]), keys.from_seed(8, 1))
    assert torch.equal(lone.steps, plan.steps[3:])
    shot = random_shooting(config, 4).plan(matching(target), keys.from_seed(5, 4))
    assert float(shot.score.mean()) < 6.0  # refitting is what finds it


def test_nothing_and_constants_are_always_candidates():
    seen = []

    def only_nothing_is_good(plans, look):
        seen.append((plans, look))
        return -(plans != 0).float().sum(-1)

    config = CEMConfig(horizon=4, candidates=12, iterations=1, elites=3, nothing=0.0)
    plan = CEM(config, 5).plan(only_nothing_is_good, keys.from_seed(0, 2))
    assert bool((plan.steps == 0).all())
    tried = seen[0][0][0].tolist()
    for row in range(5):
        assert [row] * 4 in tried
    assert seen[-1][1] == 1  # the finalists get an independent look


def test_finalists_unmask_a_lucky_winner():
    def lucky(plans, look):
        treat = (plans != 0).any(-1).float()
        return treat if look == 0 else -treat

    plan = CEM(CEMConfig(horizon=3, candidates=16, elites=4), 3).plan(lucky, keys.from_seed(1, 2))
    assert bool((plan.steps == 0).all())


@pytest.mark.parametrize("bad", [{"elites": 50}, {"horizon": 0}, {"replan_every": 9}, {"smoothing": 1.0}])
def test_config_refuses_nonsense(bad):
    with pytest.raises(ValueError):
        CEMConfig(**bad)
