"""What a simulator of `grad=True` passes equals finite differences on the same keys, in every learned world."""

from __future__ import annotations

import threading

import gymnasium
import pytest
import torch

import clinenv  # noqa: F401
from clinenv.simulator import Simulator
from world_models import gradients, keys

PATIENTS = 12


def simulator(name: str, grad: bool = True) -> Simulator:
    env = gymnasium.make(name).unwrapped
    return Simulator(env.world, env.task, grad)


def plans(sim: Simulator, steps: int, share: float, given: float = 1.0) -> torch.Tensor:
    """Orders [B, H, A]: each drawn between nothing and `share` of its most, and given with a chance of `given`."""
    high = torch.tensor([float(order.high) for order in sim.world.orders])
    key, shape = keys.from_seed(3, PATIENTS), (steps, len(high))
    amount = keys.uniform(key, 0, "amount", shape) * high * share
    return torch.where(keys.uniform(key, 0, "given", shape) < given, amount, 0.0)


def differences(sim: Simulator, start, actions: torch.Tensor, step: int, column: int, by: float):
    """Of each patient's return, to each side: d return / d amount [B], and bool [B] where the same ends were reached
    on both sides and the amount was not at its end."""
    up, down = actions.detach().clone(), actions.detach().clone()
    up[:, step, column] += by
    down[:, step, column] = down[:, step, column] - by
    inside = down[:, step, column] > 0
    with torch.no_grad():
        a, b = (sim.rollout(*start, side.clamp_min(0.0)) for side in (up, down))
    return (a.rewards.sum(1) - b.rewards.sum(1)) / (2 * by), inside & (a.terminated == b.terminated).all(1)


@pytest.mark.parametrize("step", [0, 5])
def test_a_drug_world_is_differentiated_by_every_dose(step: int) -> None:
    sim = simulator("ECGDrugContinuous-v0")
    start = sim.reset(keys.from_seed(5, PATIENTS))
    actions = plans(sim, 12, 0.15).requires_grad_()
    course = sim.rollout(*start, actions)
    (slope,) = torch.autograd.grad(course.rewards.sum(), actions)
    for column, order in enumerate(sim.world.orders):
        wanted, fair = differences(sim, start, actions, step, column, 0.004 * order.high)
        assert fair.sum() >= PATIENTS - 2
        off, scale = (slope[:, step, column] - wanted).abs()[fair], float(wanted[fair].abs().max())
        assert float(off.median()) < 1e-3 * scale and float(off.max()) < 0.02 * scale, order.name
    assert set(sim.world.graded_orders) == {order.name for order in sim.world.orders}


def test_treatments_of_the_ward_are_differentiated_by_their_amounts() -> None:
    sim = simulator("EHRWardDose-v0")
    start = sim.reset(keys.from_seed(5, PATIENTS))
    tests = len(sim.world.orders) - 30
    actions = plans(sim, 6, 0.3, 0.5)
    actions[..., :tests] = 1.0
    actions.requires_grad_()
    (slope,) = torch.autograd.grad(sim.rollout(*start, actions).rewards.sum(), actions)
    assert bool(torch.isfinite(slope).all()), "also of what was not given"
    names = [order.name for order in sim.world.orders]
    compared = 0
    for name in ("norepinephrine_ug_kg_min", "insulin_units_h", "oxygen_fraction", "hydrocortisone_mg", "saline_ml"):
        column = names.index(name)
        wanted, fair = differences(sim, start, actions, 1, column, 0.004 * sim.world.orders[column].high)
        off = (slope[:, 1, column] - wanted).abs()[fair]
        scale = float(wanted[fair].abs().median())
        assert float(off.median()) < 0.03 * scale, name  # a value may pass a bin's edge within the difference
        compared += int(fair.sum())
    assert compared > 15
    assert "inquire_sodium" not in sim.world.graded_orders and "insulin_units_h" in sim.world.graded_orders


def test_the_clinic_is_differentiated_by_the_time_to_the_next_visit() -> None:
    sim = simulator("ECGProgression-v0")
    start = sim.reset(keys.from_seed(5, PATIENTS))
    assert sim.world.graded_orders == ("months_to_next_visit",)
    actions = torch.zeros(PATIENTS, 6, len(sim.world.orders))
    actions[..., -1] = 6.0
    actions.requires_grad_()
    (slope,) = torch.autograd.grad(sim.rollout(*start, actions).rewards.sum(), actions)
    wanted, fair = differences(sim, start, actions, 2, -1, 0.05)
    assert fair.sum() >= PATIENTS - 3
    torch.testing.assert_close(slope[:, 2, -1][fair], wanted[fair], rtol=0.01, atol=2e-4)


def test_plans_are_differentiated_on_the_particles_of_imagine() -> None:
    sim = simulator("ECGDrugContinuous-v0")
    state, chart = sim.reset(keys.from_seed(5, 4))
    actions = plans(sim, 6, 0.15)[:8].reshape(4, 2, 6, 4).requires_grad_()
    whole = sim.imagine(state, chart, actions, particles=3, discount=0.97)
    (slope,) = torch.autograd.grad(whole.returns.mean(-1).sum(), actions)
    parted = sim.imagine(state, chart, actions, particles=3, discount=0.97, chunk=5)
    (again,) = torch.autograd.grad(parted.returns.mean(-1).sum(), actions)
    torch.testing.assert_close(slope, again, rtol=1e-3, atol=1e-6)
    by = 0.004
    up, down = actions.detach().clone(), actions.detach().clone()
    up[:, :, 1, 1] += by
    down[:, :, 1, 1] -= by
    with torch.no_grad():
        a, b = (sim.imagine(state, chart, x, particles=3, discount=0.97).returns.mean(-1) for x in (up, down))
    torch.testing.assert_close(slope[:, :, 1, 1], (a - b) / (2 * by), rtol=5e-3, atol=2e-3)


def test_values_are_the_same_with_and_without_and_a_graph_is_kept_only_where_asked() -> None:
    plain, asked = simulator("ECGDrugContinuous-v0", False), simulator("ECGDrugContinuous-v0")
    state, chart = plain.reset(keys.from_seed(5, 4))
    action = plans(plain, 1, 0.15)[:4, 0].requires_grad_()
    without, with_ = plain.step(state, chart, action), asked.step(state, chart, action)
    assert torch.equal(without.reward, with_.reward)
    assert not without.reward.requires_grad and with_.reward.requires_grad
    assert with_.chart["qtcf_ms"].requires_grad
    assert not with_.cost.requires_grad, "a count of thresholds passes none"
    with torch.no_grad():
        assert not asked.step(state, chart, action).reward.requires_grad, "torch's own mode holds"
    assert not plain.world.transition(state, action).deviation.requires_grad
    assert not asked.world.transition(state, action).deviation.requires_grad, "after the step it is off again"


def test_who_asks_is_told_apart_by_threads_and_forgotten_after_an_error() -> None:
    @gradients.verb
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    x = torch.ones(1, requires_grad=True)
    elsewhere: list[bool] = []
    with gradients.passed():
        assert double(x).requires_grad
        other = threading.Thread(target=lambda: elsewhere.append(double(x).requires_grad))
        other.start()
        other.join()
        with gradients.passed(False):
            assert not double(x).requires_grad
        assert double(x).requires_grad
    assert elsewhere == [False]
    with pytest.raises(KeyError), gradients.passed():
        raise KeyError
    assert not double(x).requires_grad


def test_the_root_has_no_slope_where_nothing_is_given() -> None:
    x = torch.tensor([-1.0, 0.0, 4.0], requires_grad=True)
    (slope,) = torch.autograd.grad(gradients.root(x).sum(), x)
    assert slope.tolist() == [0.0, 0.0, 0.25]
    assert torch.equal(gradients.root(x.detach()), gradients.root(x).detach())


@pytest.mark.parametrize("name", ["ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0"])
def test_an_oracle_passes_none_and_says_so(name: str) -> None:
    env = gymnasium.make(name, world="oracle").unwrapped
    with pytest.raises(ValueError, match="passes no gradients; take a learned world"):
        Simulator(env.world, env.task, grad=True)
