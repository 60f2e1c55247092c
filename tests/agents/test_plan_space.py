"""Plan spaces: shapes, probabilities, repeatability; and CEM on problems whose answer is known."""

from __future__ import annotations

import pytest
import torch

from agents.planning.cem import CEM, CEMConfig
from agents.planning.coloured_noise import coloured_uniforms
from agents.planning.dose_plans import DosePlans, dose_menu
from agents.planning.edit_plans import EditPlans
from agents.planning.level_plans import LevelPlans, SwitchPlans, fixed_levels
from agents.planning.menu_plans import MenuPlans
from agents.planning.problem import Problem
from agents.planning.random_shooting import RandomShooting, ShootingConfig
from agents.planning.schedule_plans import SchedulePlans
from clinenv.task import Doses, Levels, Switches
from world_models import keys
from world_models.quantity import Quantity

LEVELS = Levels({"pill": (0.0, 1.0), "interval": (1.0, 2.0, 4.0), "operation": (0.0, 1.0)}, ("operation",), "interval")
ORDERS = tuple(Quantity(name, "1", 0.0, 4.0) for name in LEVELS.names)
ONCE = torch.tensor([False, False, True])


def menu(choices: int) -> torch.Tensor:
    """[M, 1]: row i orders i."""
    return torch.arange(float(choices)).unsqueeze(1)


def solved(config, choices, score, key):
    """The plan that an optimiser finds; score(rows int64 [B, K, H], look)."""
    space = MenuPlans(menu(choices), config.horizon, config.nothing, config.every)
    return config.optimiser().plan(Problem(space, key, lambda orders, look: score(orders[..., 0].long(), look)))


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
    space = LevelPlans(LEVELS.table(ORDERS), 3, 0.6, ONCE, block=3)
    plan = torch.tensor([[1, 2, 1]])
    assert space.orders(plan).tolist() == [[[1.0, 4.0, 1.0], [1.0, 4.0, 0.0], [1.0, 4.0, 0.0]]]
    assert space.decisions(plan, torch.tensor([1])).tolist() == [[1.0, 4.0, 0.0]]
    belief = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(space.later(belief, 2), belief)
    fixed = LevelPlans(fixed_levels(LEVELS, LEVELS.table(ORDERS), None), 3, 0.6, ONCE, block=3)
    assert fixed.orders(plan * 0)[0, :, 1].tolist() == [2.0] * 3  # the middle interval


SPACES = {
    "menu": MenuPlans(menu(3), 7, 0.7, (3,)),
    "menu in blocks": MenuPlans(menu(3), 7, 0.7, (4,), block=2),
    "levels": LevelPlans(LEVELS.table(ORDERS), 7, 0.6, ONCE),
    "levels in blocks": LevelPlans(LEVELS.table(ORDERS), 7, 0.6, ONCE, block=3),
    "switches": SwitchPlans(Switches({"pill": 1.0, "operation": 2.0}), ORDERS, 7, 0.8),
    "doses": DosePlans(Doses({"pill": 4.0, "interval": 2.0}), ORDERS, 7, 0.8, (3,)),
    "doses in blocks": DosePlans(Doses({"pill": 4.0, "interval": 2.0}), ORDERS, 7, 0.8, block=3, once=ONCE),
    "schedules": SchedulePlans(menu(3), 7, 0.4, (2, 3)),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_space_keeps_the_rules(name):
    space, key = SPACES[name], keys.from_seed(1, 2)
    prior = space.prior(2)
    plans = space.sample(key, 0, prior, 40)
    orders = space.orders(plans)
    columns = orders.shape[-1]
    assert orders.shape == (2, 40, 7, columns) and bool((orders >= 0).all()) and float(orders.max()) > 0
    assert torch.equal(plans[1:], space.sample(key[1:], 0, prior[1:], 40)) and plans.dtype == space.anchors().dtype
    nothing = space.orders(space.anchors())[0]
    assert torch.equal(nothing[:, 0], torch.zeros(7)), "the first anchor does nothing"
    # what a plan orders is the plan's own, however its orders are read back
    anchors = space.orders(space.anchors())
    again = space.orders(space.nearest(anchors))
    assert torch.equal(again, anchors) or name == "schedules"
    refitted = space.refit(plans[:, :4], prior, 0.1, 0.02)
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, -1)
    of_one = space.refit(plans[:, :4], prior, 0.0, 0.0, weights)
    assert refitted.shape == prior.shape and bool(refitted.isfinite().all())
    torch.testing.assert_close(space.orders(space.likeliest(of_one)), orders[:, 0])
    coloured = space.sample(key, 0, prior, 40, beta=1.0)
    assert coloured.shape == plans.shape and not torch.equal(coloured, plans)
    assert space.later(prior, 3).shape == prior.shape
    moved = space.orders(space.shifted(plans, 3))
    if "blocks" not in name and name != "schedules":
        assert torch.equal(moved[:, :, :4], orders[:, :, 3:]) and float(moved[:, :, 4:, 0].abs().max()) == 0.0
    step = torch.tensor([2, 5])
    given = space.decisions(plans[:, 0], step)
    rows = torch.arange(2)
    if given.ndim == 1:
        assert torch.equal(menu(3)[given], orders[rows, 0, step])
    else:
        assert torch.equal(given, orders[rows, 0, step])
    centred = space.around(orders[:, 0])
    expected = centred.orders(centred.likeliest(centred.prior(2)))
    if name == "schedules":
        assert expected.shape == orders[:, 0].shape
    elif "levels" in name:  # what has one level or is an interval stays as it is
        assert torch.equal(expected, orders[:, 0])
    else:
        torch.testing.assert_close(expected, orders[:, 0])
    near = (centred.orders(centred.sample(key, 0, centred.prior(2), 40)) != orders[:, :1]).any(-1).float().mean()
    far = (orders != orders[:, :1]).any(-1).float().mean()
    assert float(near) < float(far) + 0.05


def test_edits_leave_out_add_and_scale():
    base = torch.tensor([[[2.0, 0.0, 0.0], [2.0, 3.0, 1.0]]])
    space = EditPlans(
        base, torch.tensor([1.0, 2.0, 1.0]), torch.tensor([True, True, True]), 0.2, ONCE, block=2, scales=(0.5,)
    )
    edited = {choice: space.orders(torch.full((1, 3), choice))[0] for choice in range(4)}
    assert torch.equal(edited[0], base[0])
    assert torch.equal(edited[1], torch.zeros(2, 3))
    # an act that the base does in the block is not done twice; an amount is raised to the standard one, never lowered
    assert edited[2].tolist() == [[2.0, 2.0, 0.0], [2.0, 3.0, 1.0]]
    assert edited[3].tolist() == [[1.0, 0.0, 0.0], [1.0, 1.5, 0.5]]
    with pytest.raises(ValueError, match="edit"):
        EditPlans(base, torch.ones(3), torch.zeros(3, dtype=torch.bool), 0.2, ONCE)


def test_schedules_are_courses_of_doses():
    space = SchedulePlans(menu(3), 12, 0.4, (2, 5), doses=(0, 2))
    twice = torch.tensor([2, 0, 1, 1, 1, 1, 6, 0])  # row 2 every 2 from step 1, two doses; then row 1 every 5 from 6
    assert space.orders(twice)[:, 0].tolist() == [0, 2, 0, 2, 0, 0, 1, 0, 0, 0, 0, 1]
    assert space.orders(space.shifted(twice, 6))[:6, 0].tolist() == [1, 0, 0, 0, 0, 1]
    sure = space.refit(twice.expand(1, 2, -1), space.prior(1), 0.0, 0.0)
    later = space.later(sure, 4)
    torch.testing.assert_close(later.sum(-1), torch.ones(1, 8))
    assert later[0, 2].argmax() == 1 and later[0, 6].argmax() == 2  # the next dose that is due
    anchors = space.orders(space.anchors())[..., 0]
    assert [2.0] * 12 not in anchors.tolist() and [1.0, 0.0] * 6 in anchors.tolist()
    menu_of_doses = dose_menu(Doses({"pill": 4.0}), ORDERS, (0.5, 1.0))
    assert menu_of_doses.tolist() == [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="schedule"):
        SchedulePlans(menu(3), 12, 0.4, ())


def test_doses_are_nothing_or_an_amount_and_are_learned():
    space = DosePlans(Doses({"pill": 4.0, "interval": 2.0}), ORDERS, 3, 0.75)
    key, belief = keys.from_seed(0, 1), space.prior(1)
    plans = space.sample(key, 0, belief, 4000)
    assert float((plans > 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    target = torch.tensor([0.3, 0.0, 0.0, 0.8, 0.0, 0.1])
    for look in range(30):
        plans = space.sample(key, look + 1, belief, 200)
        best = (plans - target).square().sum(-1).topk(12, largest=False).indices
        belief = space.refit(plans.gather(1, best.unsqueeze(-1).expand(-1, -1, 6)), belief, 0.1, 0.0)
    torch.testing.assert_close(space.likeliest(belief)[0], target, atol=0.06, rtol=0.0)
    free = torch.full((1, 6), 0.5, requires_grad=True)
    space.orders(free).sum().backward()
    assert free.grad.tolist() == [[4.0, 2.0] * 3]


def test_coloured_noise_is_uniform_at_each_step_and_slow_along_them():
    key = keys.from_seed(0, 400)
    white, red = (torch.special.ndtri(coloured_uniforms(key, 0, (2, 1), 12, beta)) for beta in (0.0, 2.0))
    for noise, alike in ((white, 0.0), (red, 0.8)):
        assert float(noise.mean()) == pytest.approx(0.0, abs=0.05) and float(noise.std()) == pytest.approx(
            1.0, abs=0.03
        )
        assert float((noise[..., 1:] * noise[..., :-1]).mean()) == pytest.approx(alike, abs=0.08)
    with pytest.raises(ValueError, match="beta"):
        coloured_uniforms(key, 0, (2, 1), 12, -1.0)


def matching(target):
    """Score: how many steps of the plan are the target's; patients have targets of their own."""
    return lambda plans, look: (plans == target.unsqueeze(1)).float().sum(-1)


def test_cem_finds_the_known_best_for_every_patient():
    target = torch.tensor([[2, 0, 1, 3, 0, 2], [0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3], [0, 1, 0, 2, 0, 3]])
    config = CEMConfig(horizon=6, candidates=96, iterations=8, elites=10, particles=1, nothing=0.4, smoothing=0.1)
    plan = solved(config, 4, matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.plan, target)
    assert torch.equal(plan.score, torch.full((4,), 6.0))
    again = solved(config, 4, matching(target), keys.from_seed(5, 4))
    assert torch.equal(plan.belief, again.belief)
    lone = solved(config, 4, matching(target[3:]), keys.from_seed(8, 1))
    assert torch.equal(lone.plan, plan.plan[3:])
    shooting = ShootingConfig(horizon=6, candidates=96, iterations=8, particles=1, nothing=0.4)
    assert isinstance(shooting.optimiser(), RandomShooting) and isinstance(config.optimiser(), CEM)
    shot = solved(shooting, 4, matching(target), keys.from_seed(5, 4))
    assert float(shot.score.mean()) < 6.0  # refitting is what finds it


def test_nothing_and_constants_are_always_candidates():
    seen = []

    def only_nothing_is_good(plans, look):
        seen.append((plans, look))
        return -(plans != 0).float().sum(-1)

    config = CEMConfig(horizon=4, candidates=12, iterations=1, elites=3, nothing=0.0)
    plan = solved(config, 5, only_nothing_is_good, keys.from_seed(0, 2))
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
    plan = solved(config, 3, by_chance, keys.from_seed(1, 2))
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
