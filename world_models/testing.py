"""check_world: the contract of `world_models.protocol`, for our worlds and for yours.

from world_models.testing import check_world
check_world(MyWorld())
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world_models import keys, tree
from world_models.protocol import Chart, WorldModel

__all__ = ["check_world", "random_orders"]

_OTHER = "check other luck"  # the purpose of the other keys that `rekey` is checked with


def random_orders(world: WorldModel, key: Tensor, t: int, share: float = 1.0, given: float = 0.5) -> Tensor:
    """Orders [B, A], each given with chance `given`, uniform up to `share` of the largest; a function of the key."""
    high = torch.tensor([order.high for order in world.orders], dtype=torch.float32, device=key.device)
    low = torch.tensor([order.low for order in world.orders], dtype=torch.float32, device=key.device)
    amount = low + (high - low) * share * keys.uniform(key, t, "check amount", (len(world.orders),))
    chosen = keys.uniform(key, t, "check chosen", (len(world.orders),)) < given
    return torch.where(chosen, amount, low.clamp(min=0.0).expand_as(amount))


@torch.no_grad()
def check_world(
    world: WorldModel,
    batch: int = 7,
    steps: int = 6,
    relative: float = 0.0,
    absolute: float = 0.0,
    also: Sequence[str] = (),
    stochastic: bool = True,
) -> None:
    """Check every rule of `world_models.protocol` on a batch of generated patients.

    Args:
        batch: patients simulated side by side.
        steps: how far.
        relative, absolute: how much row i of a batch may differ from the same patient alone; 0: not by one bit
            (oracles), 1e-4 and 1e-3 for learned worlds.
        also: measures on request to check too.
        stochastic: False for a world without randomness, where another key changes nothing.

    Raises:
        AssertionError: a rule is broken; the message says which, and where.
    """
    _check_names(world, also)
    key = keys.from_seed(20240, batch, world.device)
    generators = _generators()
    first = world.initial(key)
    _check_state(first, batch, 0)
    assert torch.equal(first.key, key), "initial(key) must keep the key as the state's first leaf"
    _check_same(first, world.initial(key), "initial called twice with the same keys")

    state, states, orders = first, [first], []
    for step in range(steps):
        action = random_orders(world, key, step)
        before, given = tree.copy(state), action.clone()
        after = world.transition(state, action)
        _check_same(state, before, "transition changed the state it was given, in place")
        assert torch.equal(action, given), "transition changed the action it was given, in place"
        _check_same(after, world.transition(state, action), "transition called twice with the same state and action")
        _check_state(after, batch, step + 1)
        assert torch.equal(after.key, key), "transition must keep the key: a patient's noise follows from it to the end"
        _check_chart(world, world.observe(after, also), batch, also)
        chart = world.observe(after, also)
        held = tree.copy(after)
        _check_same(chart, world.observe(after, also), "observe called twice in the same state")
        _check_same(after, held, "observe changed the state it was given, in place")
        _check_side_reports(world, after, batch)
        _check_same(after, held, "spread or support changed the state it was given, in place")
        state = after
        states.append(state)
        orders.append(action)
    _check_chart(world, world.observe(first, also), batch, also)
    for whose, position in _generators().items():
        said = f"the world called {whose} global generator; random numbers come from world_models.keys"
        assert position == generators[whose], said

    _check_rows(world, key, states, orders, relative, absolute, also)
    _check_keys(world, states, orders, stochastic)
    _check_factors(world, key)
    _check_refusals(world, key)


def _generators() -> dict[str, Any]:
    """Where the global generators stand, which nothing may call."""
    numpy = np.random.get_state(legacy=False)["state"]
    return {
        "torch's": torch.get_rng_state().tolist(),
        "numpy's": (numpy["key"].tolist(), numpy["pos"]),
        "Python's": random.getstate(),
    }


def _check_names(world: WorldModel, also: Sequence[str]) -> None:
    for kind in ("measures", "orders", "factors"):
        names = [quantity.name for quantity in getattr(world, kind)]
        assert len(set(names)) == len(names), f"{kind} names one twice: {names}"
        assert all(quantity.unit for quantity in getattr(world, kind)), f"every one of {kind} needs a unit"
    assert world.name and 0 < world.hours_per_step < torch.inf, "a world has a name and a positive hours_per_step"
    on_request = {q.name for q in world.measures if q.on_request}
    assert set(also) <= on_request, f"only {sorted(on_request)} can be asked for, not {sorted(also)}"


def _check_state(state: Any, batch: int, t: int) -> None:
    fields = getattr(state, "_fields", ())
    assert fields[:2] == ("key", "t"), f"a state is a NamedTuple whose first fields are key and t, not {fields[:2]}"
    for name in ("key", "t"):
        leaf = getattr(state, name)
        assert leaf.dtype == torch.int64 and leaf.shape == (batch,), f"{name} must be int64 [{batch}]"
    assert bool((state.t == t).all()), f"t must be {t} after {t} steps, got {state.t.tolist()}"
    for leaf in tree.leaves(state):
        assert leaf.shape[:1] == (batch,), f"every leaf of the state is batch first; one has shape {tuple(leaf.shape)}"
        assert not leaf.requires_grad, "no leaf of the state may carry a gradient"


def _check_chart(world: WorldModel, chart: Chart, batch: int, also: Sequence[str]) -> None:
    wanted = {q.name for q in world.measures if not q.on_request or q.name in also}
    assert set(chart) == wanted, f"the chart lacks {wanted - set(chart)} or holds the unasked {set(chart) - wanted}"
    for quantity in world.measures:
        if quantity.name in chart:
            value = chart[quantity.name]
            assert value.shape == (batch, *quantity.shape), f"{quantity.name} has shape {tuple(value.shape)}"
            assert value.dtype == torch.float32, f"{quantity.name} must be float32, not {value.dtype}"
            if quantity.may_be_missing:
                value = torch.nan_to_num(value, nan=quantity.low)
            low, high = float(value.min()), float(value.max())  # NaN fails the comparison
            bounds = f"{quantity.low:g}..{quantity.high:g} {quantity.unit}"
            assert low >= quantity.low and high <= quantity.high, f"{quantity.name} {low:g}..{high:g} leaves {bounds}"


def _check_side_reports(world: WorldModel, state: Any, batch: int) -> None:
    measured = {quantity.name for quantity in world.measures}
    for name, sd in world.spread(state).items():
        assert name in measured, f"spread names {name}, which is no measure"
        assert sd.shape == (batch,) and bool((sd >= 0).all()), f"spread of {name} must be [B] and not negative"
        assert bool(sd.isfinite().all()), f"spread of {name} must be finite"
    support = world.support(state)
    assert support.dtype == torch.bool and support.shape == (batch,), "support must be bool [B]"


def _check_same(a: Any, b: Any, what: str, relative: float = 0.0, absolute: float = 0.0) -> None:
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if relative == absolute == 0.0 or not x.is_floating_point():
            assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)), f"{what}: results differ"
        else:
            torch.testing.assert_close(x, y, rtol=relative, atol=absolute, equal_nan=True, msg=lambda m: f"{what}: {m}")


def _check_rows(
    world: WorldModel,
    key: Tensor,
    states: list[Any],
    orders: list[Tensor],
    relative: float,
    absolute: float,
    also: Sequence[str],
) -> None:
    """Row i of a batch equals the same patient alone, and equals itself in a shuffled batch."""
    batch = key.shape[0]
    for rows in (torch.tensor([0]), torch.tensor([batch - 1]), torch.arange(batch - 1, -1, -1)):
        rows = rows.to(key.device)
        what = f"rows {rows.tolist()} beside others and without them"
        alone = world.initial(key[rows])
        for step, state in enumerate(states):
            chart, expected = world.observe(alone, also), world.observe(state, also)
            _check_same(chart, tree.take(expected, rows), f"{what}, step {step}", relative, absolute)
            for verb in (world.spread, world.support):
                mine, theirs = verb(alone), tree.take(verb(state), rows)
                _check_same(mine, theirs, f"{verb.__name__} of {what}, step {step}", relative, absolute)
            if step < len(orders):
                alone = world.transition(alone, orders[step][rows])


def _check_keys(world: WorldModel, states: list[Any], orders: list[Tensor], stochastic: bool) -> None:
    """Same key, same orders: same future. Another key: the same patients, and another future."""
    here = states[len(orders) // 2]
    branch = here
    for action, later in zip(orders[len(orders) // 2 :], states[len(orders) // 2 + 1 :], strict=True):
        branch = world.transition(branch, action)
        _check_same(world.observe(branch), world.observe(later), "the same keys and orders from a kept state")
    other = world.rekey(here, keys.fold(here.key, _OTHER))
    assert torch.equal(other.key, keys.fold(here.key, _OTHER)), "rekey must put the new key into the state"
    assert torch.equal(other.t, here.t), "rekey must not move time"
    before, after = world.observe(here), world.observe(other)
    for name in {factor.name for factor in world.factors} & before.keys():
        assert _equal(before[name], after[name]), f"rekey changed {name}: another key, the same patients"
    _check_same(other, world.rekey(here, keys.fold(here.key, _OTHER)), "rekey called twice")
    changed = False
    for action in orders[len(orders) // 2 :]:
        here, other = world.transition(here, action), world.transition(other, action)
        a, b = world.observe(here), world.observe(other)
        changed = changed or any(not torch.equal(a[name], b[name]) for name in a)
    assert changed or not stochastic, "rekey gave the same future: the world's noise does not follow the state's key"


def _equal(x: Tensor, y: Tensor) -> bool:
    """The same numbers, NaN where the other has NaN or 0."""
    return torch.equal(torch.nan_to_num(x), torch.nan_to_num(y))


def _check_factors(world: WorldModel, key: Tensor) -> None:
    """A fixed factor changes the patient, and one that the chart shows under its own name shows the value given."""
    measured = {quantity.name for quantity in world.measures if not quantity.on_request}
    for factor in world.factors:
        if factor.name in measured and factor.shape == ():
            value = torch.full(key.shape, factor.low + 0.5 * (factor.high - factor.low), device=key.device)
            value = value.round() if factor.unit == "bool" else value
            shown = world.observe(world.initial(key, {factor.name: value}))[factor.name]
            torch.testing.assert_close(shown, value, rtol=1e-4, atol=1e-3, msg=f"factor {factor.name} was not kept")
        ends = [torch.full((len(key), *factor.shape), end, device=key.device) for end in (factor.low, factor.high)]
        try:
            least, most = (tree.leaves(world.initial(key, {factor.name: end})) for end in ends)
        except ValueError as error:  # one that a world takes only together with others, which it must name
            others = [q.name for q in world.factors if q.name != factor.name]
            said = f"factor {factor.name} within its bounds was refused: {error}"
            assert any(name in str(error) for name in others), said
            continue
        alike = (_equal(x, y) for x, y in zip(least, most, strict=True))
        said = f"factor {factor.name} changes nothing: {factor.low:g} and {factor.high:g} give the same patients"
        assert not all(alike), said


def _check_refusals(world: WorldModel, key: Tensor) -> None:
    """Amounts, factors and names that are out of what the world states are refused, each by its name."""
    state, batch = world.initial(key), len(key)
    nothing = torch.zeros(batch, len(world.orders), device=key.device)
    for column, order in enumerate(world.orders):
        below, above = min(order.low, 0.0) - 5.0, 2.0 * order.high + 1.0
        for amount in (below, above, 1e9 * (1.0 + abs(order.high)), torch.inf, -torch.inf, torch.nan):
            action = nothing.clone()
            action[-1, column] = amount
            what = f"transition with {order.name}={amount:g} {order.unit}, outside {order.low:g} to {order.high:g}"
            _check_refused(partial(world.transition, state, action), what, order.name)
    wider = torch.cat([nothing, nothing[:, :1]], 1)
    for wrong in (nothing[:, :-1], wider, nothing[:-1], nothing[:, None], nothing.to(torch.complex64)):
        what = f"transition with an action {wrong.dtype} {tuple(wrong.shape)} instead of {tuple(nothing.shape)}"
        _check_refused(partial(world.transition, state, wrong), what)
    for factor in world.factors:
        values = [factor.low - 1.0 - abs(factor.low), factor.high + 1.0 + abs(factor.high), torch.inf, torch.nan]
        for value in (*values, 0.5) if factor.unit == "bool" else values:
            given = torch.full((batch, *factor.shape), value, device=key.device)
            what = f"initial with {factor.name}={value:g} {factor.unit}, outside {factor.low:g} to {factor.high:g}"
            _check_refused(partial(world.initial, key, {factor.name: given}), what, factor.name)
        given = torch.full((batch + 1, *factor.shape), factor.low, device=key.device)
        what = f"initial with {factor.name} of {batch + 1} patients instead of {batch}"
        _check_refused(partial(world.initial, key, {factor.name: given}), what, factor.name)
    unknown = "no_such_name"
    given = torch.zeros(batch, device=key.device)
    _check_refused(partial(world.initial, key, {unknown: given}), f"initial with the factor {unknown}", unknown)
    _check_refused(partial(world.observe, state, (unknown,)), f"observe with also=({unknown!r},)", unknown)


def _check_refused(call: Callable[[], Any], what: str, name: str = "") -> None:
    remedy = "refuse it with a ValueError; world_models.inputs has the checks"
    try:
        call()
    except ValueError as error:
        assert name in str(error), f"{what}: the refusal must name {name}, but says {str(error)!r}"
    except Exception as error:
        raise AssertionError(f"{what} ended in {type(error).__name__} ({error}); {remedy}") from error
    else:
        raise AssertionError(f"{what} was taken; {remedy}")
