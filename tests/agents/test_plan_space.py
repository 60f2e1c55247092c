"""Plan spaces: shapes, probabilities, repeatability; and CEM on problems whose answer is known."""

from __future__ import annotations

import pytest
import torch

from agents.planning.cem import CEM, CEMConfig
from agents.planning.plan_space import LevelPlans, MenuPlans, fixed_levels
from agents.planning.random_shooting import random_shooting
from clinenv.task import Levels
from world_models import keys
from world_models.quantity import Quantity

LEVELS = Levels({"pill": (0.0, 1.0), "interval": (1.0, 2.0, 4.0), "operation": (0.0, 1.0)}, ("operation",), "interval")
ORDERS = tuple(Quantity(name, "1", 0.0, 4.0) for name in LEVELS.names)
ONCE = torch.tensor([False, False, True])


def menu(choices: int) -> torch.Tensor:
    """[M, 1]: row i orders i."""
    return torch.arange(float(choices)).unsqueeze(1)


def plans_of(config: CEMConfig, choices: int) -> MenuPlans:
    return MenuPlans(menu(choices), config.horizon, config.nothing, config.every)


def test_samples_follow_the_probabilities_and_the_key():
    key = keys.from_seed(0, 3)
    belief = torch.tensor([0.7, 0.2, 0.1]).expand(3, 4, 3)
    space = MenuPlans(menu(3), 4, nothing=0.7)
    plans = space.sample(key, 0, belief, 4000)
    assert plans.shape == (3, 4000, 4)
    share = torch.stack([(plans == m).float().mean(1) for m in range(3)], -1)
    assert torch.allclose(share, belief, atol=0.03)
    assert torch.equal(plans, space.sample(key, 0, belief, 4000))
    assert not torch.equal(plans, space.sample(key, 1, belief, 4000))
    assert torch.equal(plans[1:2], space.sample(key[1:2], 0, belief[1:2], 4000))


def test_anchors_hold_nothing_once_always_and_every():
    plans = MenuPlans(menu(3), 8, nothing=0.7, every=(6,)).anchors().tolist()
    assert plans[0] == [0] * 8
    assert [2] + [0] * 7 in plans and [1] * 8 in plans and [2, 0, 0, 0, 0, 0, 2, 0] in plans
    assert len(plans) == 1 + 3 * 2


def test_refit_is_a_distribution_with_a_floor():
    space = MenuPlans(menu(4), 3, nothing=0.7)
    new = space.refit(torch.ones(2, 5, 3, dtype=torch.int64), space.prior(2), smoothing=0.2, floor=0.1)
    assert torch.allclose(new.sum(-1), torch.ones(2, 3))
    assert float(new.min()) >= 0.1 / 4 - 1e-7 and bool((new.argmax(-1) == 1).all())


def test_later_drops_the_front_and_fills_up_from_the_prior():
    space = MenuPlans(menu(3), 4, nothing=0.5)
    belief = torch.arange(12.0).reshape(1, 4, 3)
    moved = space.later(belief, 1)
    assert torch.equal(moved[:, :3], belief[:, 1:]) and torch.equal(moved[:, 3:], space.prior(1)[:, :1])
    assert torch.equal(space.later(belief, 4), space.prior(1))


def test_levels_rule_out_what_an_order_does_not_have():
    table = LEVELS.table(ORDERS)
    space = LevelPlans(table, 2, 0.6, ONCE)
    prior = space.prior(1)
    assert prior.shape == (1, 2 * 3, 3)
    torch.testing.assert_close(prior[0, :3], torch.tensor([[0.6, 0.4, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.4, 0.0]]))
    refitted = space.refit(torch.ones(1, 4, 6, dtype=torch.int64), prior, smoothing=0.0, floor=0.1)
    torch.testing.assert_close(refitted.sum(-1), torch.ones(1, 6))
    assert float(refitted[0, 0, 2]) == 0.0 and float(refitted[0, 1, 2]) > 0.0
    plans = space.sample(keys.from_seed(2, 1), 0, prior, 500)
    assert int(plans[..., [0, 2, 3, 5]].max()) == 1 and int(plans.max()) == 2
    assert [0, 0, 1, 0, 0, 0] in space.anchors().tolist() and [0, 2, 0, 0, 2, 0] in space.anchors().tolist()
    assert torch.equal(space.later(prior, 1), prior)


def test_a_held_decision_gives_acts_once():
    space = LevelPlans(LEVELS.table(ORDERS), 3, 0.6, ONCE, hold=True)
    plan = torch.tensor([[1, 2, 1]])
    assert space.orders(plan).tolist() == [[[1.0, 4.0, 1.0], [1.0, 4.0, 0.0], [1.0, 4.0, 0.0]]]
    assert space.decisions(plan, torch.tensor([1])).tolist() == [[1.0, 4.0, 0.0]]
    belief = torch.rand(1, 3, 3)
    assert torch.equal(space.later(belief, 2), belief)
    fixed = LevelPlans(fixed_levels(LEVELS, LEVELS.table(ORDERS), None), 3, 0.6, ONCE, hold=True)
    assert fixed.orders(plan * 0)[0, :, 1].tolist() == [2.0] * 3  # the middle interval


def matching(target):
    """Score: how many steps of the plan are the target's; patients have targets of their own."""
    return lambda plans, look: (plans == target.unsqueeze(1)).float().sum(-1)


def test_cem_finds_the_known_best_for_every_patient():
    target = torch.tensor([[2, 0, 1, 3, 0, 2], [0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3], [0, 1, 0, 2, 0, 3]])
    config = CEMConfig(horizon=6, candidates=96, iterations=8, elites=10, particles=1, nothing=0.4, smoothing=0.1)
    cem = CEM(config, plans_of(config, 4))
    plan = cem.plan(matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.plan, target)
    assert torch.equal(plan.score, torch.full((4,), 6.0))
    again = cem.plan(matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.belief, again.belief)
    lone = cem.plan(matching(target[3:]), keys.from_seed(8, 1))
    assert torch.equal(lone.plan, plan.plan[3:])
    shot = random_shooting(config, plans_of(config, 4)).plan(matching(target), keys.from_seed(5, 4))
    assert float(shot.score.mean()) < 6.0  # refitting is what finds it


def test_nothing_and_constants_are_always_candidates():
    seen = []

    def only_nothing_is_good(plans, look):
        seen.append((plans, look))
        return -(plans != 0).float().sum(-1)

    config = CEMConfig(horizon=4, candidates=12, iterations=1, elites=3, nothing=0.0)
    plan = CEM(config, plans_of(config, 5)).plan(only_nothing_is_good, keys.from_seed(0, 2))
    assert bool((plan.plan == 0).all())
    tried = seen[0][0][0].tolist()
    for row in range(5):
        assert [row] * 4 in tried
    assert seen[-1][1] == 1  # the finalists get an independent look


def test_finalists_unmask_a_winner_by_chance():
    def by_chance(plans, look):
        treat = (plans != 0).any(-1).float()
        return treat if look == 0 else -treat

    config = CEMConfig(horizon=3, candidates=16, elites=4)
    plan = CEM(config, plans_of(config, 3)).plan(by_chance, keys.from_seed(1, 2))
    assert bool((plan.plan == 0).all())


def test_spaces_refuse_what_cannot_be_planned():
    with pytest.raises(ValueError, match="at least 2"):
        MenuPlans(menu(1), 3, nothing=0.5)
    with pytest.raises(ValueError, match="nothing"):
        MenuPlans(menu(2), 3, nothing=1.0)


@pytest.mark.parametrize("bad", [{"elites": 50}, {"horizon": 0}, {"replan_every": 9}, {"smoothing": 1.0}])
def test_config_refuses_nonsense(bad):
    with pytest.raises(ValueError):
        CEMConfig(**bad)
