"""Learned wards as members of an ensemble: what is charted is one member's, what it means is each one's own."""

from __future__ import annotations

import pytest
import torch

from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.testing import check_simulator
from tests.ehr_world.ward_small import tiny
from world_models import ensemble, keys, tree
from world_models.ehr_world.set_outcome.config import BACKBONES
from world_models.ehr_world.set_outcome.following import join, next_quantiles
from world_models.protocol import TellsFates
from world_models.testing import check_world, random_orders


def two(backbone: str = "gru") -> ensemble.Ensemble:
    return ensemble.of([tiny(0, backbone), tiny(1, backbone)])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_is_a_world_and_keeps_the_rules(backbone: str) -> None:
    world = two(backbone)
    assert isinstance(world, TellsFates)
    check_world(world, batch=4, steps=4, relative=1e-4, absolute=2e-3)
    if backbone == "gru":
        check_simulator(Simulator(world, EHRWardTask()), exact=False)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_who_follows_what_he_would_have_drawn_himself_stands_where_he_would(backbone: str) -> None:
    model = tiny(0, backbone)
    state = model.initial(keys.from_seed(3, 12))
    for a, b in zip(tree.leaves(join(model, state)), tree.leaves(state), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
    for t in range(5):
        action = random_orders(model, state.key, t, share=0.3, given=0.3)
        after = model.transition(state, action)
        followed = model.follow(state, action, after)
        for name, a, b in zip(after._fields, followed, after, strict=True):
            for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
                torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)
        state = after


def test_members_share_the_chart_and_keep_their_own_mind() -> None:
    world = two()
    state = world.initial(keys.from_seed(3, 30))
    for t in range(4):
        state = world.transition(state, random_orders(world, state.key, t, share=0.3, given=0.3))
    charts = [member.observe(own) for member, own in zip(world.members, state.states, strict=True)]
    for name, value in world.observe(state).items():
        for chart in charts:
            torch.testing.assert_close(chart[name], value, msg=name)
    one, other = state.states
    assert not torch.allclose(one.hidden, other.hidden) and not torch.allclose(one.death_chance, other.death_chance)
    apart = world.disagreement(state)
    assert set(apart) == set(world.spread(state)) and float(apart["potassium_mmol_l"].mean()) > 0
    parts = world.spread_parts(state)["potassium_mmol_l"]
    torch.testing.assert_close(parts.epistemic, apart["potassium_mmol_l"])


def test_quantiles_of_the_next_value_are_in_order_and_the_spread_is_of_them() -> None:
    model = tiny(0)
    state = model.initial(keys.from_seed(3, 9))
    low, middle, high = next_quantiles(model, state, (0.1587, 0.5, 0.8413)).unbind(-1)
    assert bool((low <= middle).all()) and bool((middle <= high).all())
    told, spread = model.foretold(state), model.spread(state)
    for i, name in enumerate(spread):
        torch.testing.assert_close(told[name], middle[:, i])
        torch.testing.assert_close(spread[name], (high[:, i] - low[:, i]) / 2)
