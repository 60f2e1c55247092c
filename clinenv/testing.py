"""Public checks for your own tasks, simulators and vector environments; each raises an AssertionError with the rule.

In a test of your own:

    from clinenv.testing import check_vector_env
    check_vector_env(lambda **more: gymnasium.make_vec("ECGDrug-v0", **more), lambda: gymnasium.make("ECGDrug-v0"))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from clinenv.codec import pick_levels
from clinenv.simulator import Simulator, Step
from clinenv.task import Levels, Menu, Switches, Task
from clinenv.testing_calls import check_closed, check_env, check_fork, check_infos, check_refusals, check_reset_refusals
from world_models import keys, tree
from world_models.protocol import Chart, WorldModel
from world_models.testing import random_orders

__all__ = ["check_env", "check_fork", "check_simulator", "check_task", "check_vector_env"]


def _same(x: Tensor, y: Tensor) -> bool:
    """Equal, where a measure that is not there (NaN) equals itself."""
    return torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())


def check_task(task: Task, world: WorldModel, batch: int = 9, steps: int = 6) -> None:
    """The task's rules on charts of `world`: shapes, finite terms, purity, and each row judged by itself."""
    simulator = Simulator(world, task)
    key = keys.from_seed(5, batch, world.device)
    state, chart = simulator.reset(key)
    assert task.horizon_hours > 0, "horizon_hours must be positive"
    nothing = torch.zeros(batch, len(world.orders), device=world.device)
    asked = task.reward(chart, nothing, chart)
    assert isinstance(asked, dict), "reward gives a dict: name -> tensor [B]"
    names = [*asked, *(f"cost_{name}" for name in task.cost_parts(chart, nothing, chart))]  # as info asks for them
    for step in range(steps):
        action = _orders(simulator, key, step)
        out = simulator.step(state, chart, action)
        if simulator.task.refuses:
            _check_refusals(task, chart, action, out)
        action = out.given  # what is judged is what was carried out
        held = tree.copy((chart, action, out.chart))
        terms, cost, over = _judge(task, chart, action, out.chart)
        for x, y in zip(tree.leaves(held), tree.leaves((chart, action, out.chart)), strict=True):
            assert _same(x, y), "a task must not change the chart or action it is given"
        assert out.terms, "a reward has at least one named term"
        assert list(terms) == names, f"the terms must be the same, in the same order, at every step: {names}"
        for name, value in {**terms, "cost": cost}.items():
            fine = value.shape == (batch,) and value.dtype == torch.float32 and bool(torch.isfinite(value).all())
            assert fine, f"{name} must be finite, float32, shape [B]"
        assert bool((cost >= 0).all()), "a cost is never negative"
        for name, part in task.cost_parts(chart, action, out.chart).items():
            fine = part.shape == (batch,) and part.dtype == torch.float32 and bool(torch.isfinite(part).all())
            assert fine, f"part {name} of the cost must be finite, float32, shape [B]"
            assert bool(((part >= 0) & (part <= cost)).all()), f"part {name} of the cost lies between 0 and the cost"
        assert over.dtype == torch.bool and over.shape == (batch,), "terminated must be bool [B]"
        total = sum(out.terms.values())
        torch.testing.assert_close(out.reward, total, msg="the reward must be the sum of its terms")
        for row in (0, batch - 1):
            only = slice(row, row + 1)
            alone = _judge(task, *tree.take((chart, action, out.chart), only))
            for x, y in zip(tree.leaves(alone), tree.leaves(tree.take((terms, cost, over), only)), strict=True):
                assert torch.equal(x, y), "row i of a batch must be judged like the same patient alone"
        state, chart = out.state, out.chart


def _check_refusals(task: Task, chart: Chart, action: Tensor, out: Step) -> None:
    """What the chart forbids is refused, nothing else is that was not given, and every refusal has its reason."""
    admissible = task.admissible(chart)
    refused = task.refused(chart, action, admissible)
    assert admissible.shape == refused.shape == action.shape, "admissible and refused are [B, A]"
    assert admissible.dtype == refused.dtype == torch.bool, "admissible and refused are bool"
    assert bool(((action > 0) | ~refused).all()), "an order that was not given cannot be refused"
    assert bool((refused | (action <= 0) | admissible).all()), "an order the chart does not allow must be refused"
    assert out.refused is not None and torch.equal(out.refused, refused), "the step must refuse what the task refuses"
    assert torch.equal(out.given, torch.where(refused, 0.0, action)), "what is refused is not carried out, the rest is"
    assert not bool(task.refused(chart, out.given, admissible).any()), "what was carried out must stand by itself"
    told = [len({order for order, _ in row}) for row in task.reasons(chart, action)]
    assert told == refused.sum(-1).tolist(), "each refused order has a reason"
    for row in (0, len(action) - 1):
        alone = task.refused(*tree.take((chart, action, admissible), slice(row, row + 1)))
        assert torch.equal(alone[0], refused[row]), "row i of a batch must be refused like the same patient alone"


def _judge(task: Task, before: Chart, action: Tensor, after: Chart) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Terms and parts under their names in info, cost, end."""
    step = before, action, after
    named = {**task.reward(*step), **{f"cost_{name}": part for name, part in task.cost_parts(*step).items()}}
    return named, task.cost(*step), task.terminated(after)


def _orders(simulator: Simulator, key: Tensor, t: int) -> Tensor:
    actions = simulator.task.actions
    if isinstance(actions, Menu):
        table = actions.table(simulator.world.orders, key.device)
        return table[keys.bits(key, t, "check entry") % len(actions)]
    if isinstance(actions, Levels):
        counts = torch.tensor(actions.counts, device=key.device)
        index = keys.bits(key, t, "check levels", (len(actions),)) % counts
        return pick_levels(actions.table(simulator.world.orders, key.device), index)
    orders = random_orders(simulator.world, key, t, share=0.25)
    yes_or_no = torch.tensor([q.unit == "bool" for q in simulator.world.orders], device=key.device)
    given = torch.where(yes_or_no, (orders > 0).to(orders.dtype), orders)
    if isinstance(actions, Switches):
        standard = torch.tensor([actions.standard.get(q.name, 0.0) for q in simulator.world.orders], device=key.device)
        given = torch.where(orders > 0, standard, 0.0)
    return given


def check_simulator(
    simulator: Simulator, batch: int = 5, horizon: int = 4, exact: bool = True, stochastic: bool = True
) -> None:
    """The simulator's rules: branching keeps the random keys, imagining hides them, candidates are paired, ends stop
    rewards, and no amount that its world does not take gets through.

    Args:
        exact: True for oracles; False compares chunked and whole imagination to rounding only.
        stochastic: False for a world without chance, whose particles are all alike.
    """
    check_task(simulator.task, simulator.world)
    key = keys.from_seed(77, batch, simulator.device)
    state, chart = simulator.reset(key)
    plan = torch.stack([_orders(simulator, key, t) for t in range(horizon)], 1)
    for amount in (-5.0, torch.inf, torch.nan):
        try:
            simulator.step(state, chart, torch.full_like(plan[:, 0], amount))
        except ValueError:
            continue
        raise AssertionError(f"a step with {amount:g} of every order was taken; its world must refuse it")

    a, b = simulator.counterfactual(state, chart, plan, plan.clone())
    for x, y in zip(tree.leaves(a.charts), tree.leaves(b.charts), strict=True):
        assert _same(x, y), "counterfactual: equal plans must give equal futures"
    assert torch.equal(a.rewards, b.rewards), "counterfactual: equal plans must give equal rewards"

    here, now = state, chart
    for h in range(horizon):
        out = simulator.step(here, now, plan[:, h])
        alive = ~a.terminated[:, h - 1] if h else torch.ones_like(out.terminated)
        expected = torch.where(alive, out.reward, torch.zeros_like(out.reward))
        assert torch.equal(a.rewards[:, h], expected), "rollout must be step after step, and pay nothing after the end"
        here, now = out.state, out.chart

    twins = torch.stack([plan, plan, torch.zeros_like(plan)], 1)
    held = tree.copy(state)
    told = simulator.imagine(state, chart, twins, particles=3)
    for x, y in zip(tree.leaves(state), tree.leaves(held), strict=True):
        assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)), "imagine must not change the state"
    assert told.returns.shape == told.costs.shape == told.terminated.shape == (batch, 3, 3), "imagine gives [B, K, P]"
    assert torch.equal(told.returns[:, 0], told.returns[:, 1]), "equal candidates must meet the same particles"
    again = simulator.imagine(state, chart, twins, particles=3, chunk=4)
    off = 0.0 if exact else 1e-3
    torch.testing.assert_close(
        told.returns, again.returns, rtol=off, atol=off, msg="the chunk must not change the result"
    )
    if not stochastic:
        return
    assert bool((told.returns[:, 0, 0] != told.returns[:, 0, 1]).any()), "particles must differ"
    other = simulator.imagine(state, chart, twins, particles=3, key=keys.fold(key, "check"))
    assert not torch.equal(other.returns, told.returns), "another key must give other particles"


def check_vector_env(
    make_vector: Callable[..., VectorEnv],
    make_single: Callable[[], gymnasium.Env],
    num_envs: int = 3,
    steps: int = 40,
    seed: int = 11,
    relative: float = 0.0,
    absolute: float = 0.0,
) -> None:
    """A vector environment's rules, in each autoreset mode it takes: it must be N single environments, in every word.

    Proves spaces and metadata, next-step autoreset where no mode is asked for, the three modes as Gymnasium 1.4 defines
    them, `final_obs`, `final_info` and all masks, row i equal to the single environment across autoresets, equal seeds
    giving equal courses, a partial reset, the same infos at reset and step, that seeds, options and actions that are
    none are refused, that nothing works after `close`, and that nothing that was returned is changed or shared by a
    later call.

    Args:
        make_vector: called with num_envs and autoreset_mode.
        make_single: one environment that behaves like each row.
        steps: enough to see episodes end; at least one must.
        relative, absolute: tolerance of values; 0: bit for bit.
    """
    _check_default(make_vector, num_envs, seed)
    for mode in AutoresetMode:
        vector = make_vector(num_envs=num_envs, autoreset_mode=mode)
        reference = SyncVectorEnv([make_single for _ in range(num_envs)], autoreset_mode=mode)
        try:
            _check_spaces(vector, reference, mode)
            _check_course(vector, reference, mode, steps, seed, relative, absolute)
            _check_reproducible(vector, seed, min(steps, 5))
        finally:
            vector.close()
            reference.close()


def _check_default(make_vector: Callable[..., VectorEnv], num_envs: int, seed: int) -> None:
    """What is so in every mode, and which mode holds where none is asked for."""
    vector = make_vector(num_envs=num_envs)
    try:
        mode = vector.metadata.get("autoreset_mode")
        assert mode == AutoresetMode.NEXT_STEP, f"the default must be next-step autoreset, Gymnasium's own, not {mode}"
        check_reset_refusals(vector)
        first = vector.reset(seed=seed)
        vector.action_space.seed(seed)
        check_refusals(vector, vector.action_space.sample())
        check_infos(vector, first[1], 3)
    finally:
        vector.close()
    check_closed(vector)


def _check_spaces(vector: VectorEnv, reference: VectorEnv, mode: AutoresetMode) -> None:
    assert vector.num_envs == reference.num_envs, f"num_envs is {vector.num_envs}"
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        mine, theirs = getattr(vector, name), getattr(reference, name)
        assert mine == theirs, f"{name} is {mine}, but single environments make it {theirs}"
    assert vector.metadata.get("autoreset_mode") == mode, f"metadata['autoreset_mode'] must be {mode}"
    assert getattr(vector.unwrapped, "autoreset_mode", None) == mode, f"the attribute autoreset_mode must be {mode}"


def _check_course(
    vector: VectorEnv,
    reference: VectorEnv,
    mode: AutoresetMode,
    steps: int,
    seed: int,
    relative: float,
    absolute: float,
) -> None:
    def same(mine: Any, theirs: Any, what: str) -> None:
        difference = _difference(mine, theirs, relative, absolute, what)
        assert not difference, f"{mode}: {difference}"

    same(vector.reset(seed=seed), reference.reset(seed=seed), "reset")
    vector.action_space.seed(seed)
    kept: list[tuple[Any, Any]] = []
    ends = 0
    for step in range(steps):
        action = vector.action_space.sample()
        mine, theirs = vector.step(action), reference.step(action)
        same(mine, theirs, f"step {step}")
        observation = vector.observation_space.contains(mine[0])
        assert observation, f"{mode}: the observation of step {step} is not in the observation space"
        for earlier, copy in kept[-3:]:
            assert not _shares_memory(mine, earlier), f"{mode}: step {step} returned memory of an earlier call"
            assert not _difference(earlier, copy, 0.0, 0.0, ""), f"{mode}: step {step} changed what was returned before"
        kept.append((mine, _copied(mine)))
        done = np.logical_or(mine[2], mine[3])
        ends += int(done.sum())
        if mode == AutoresetMode.DISABLED and done.any():
            options = ({"reset_mask": done.copy()}, {"reset_mask": done.copy()})
            same(vector.reset(options=options[0]), reference.reset(options=options[1]), f"masked reset at {step}")
            assert "reset_mask" in options[0], "reset must not change the options it is given"
    assert ends > 0, f"{mode}: no episode ended in {steps} steps, so autoreset was not tested; take more steps"
    seeds: Any = [seed + 100 + i for i in range(vector.num_envs)]
    same(vector.reset(seed=seeds), reference.reset(seed=seeds), "reset with a list of seeds")
    same(vector.reset(), reference.reset(), "reset without a seed")


def _check_reproducible(vector: Any, seed: int, steps: int) -> None:
    courses = []
    for _ in range(2):
        course = [vector.reset(seed=seed)]
        vector.action_space.seed(seed)
        for _ in range(steps):
            course.append(vector.step(vector.action_space.sample()))
            if vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED and (course[-1][2] | course[-1][3]).any():
                break
        courses.append(course)
    difference = _difference(courses[0], courses[1], 0.0, 0.0, "the same seed twice")
    assert not difference, difference


def _difference(a: Any, b: Any, relative: float, absolute: float, where: str) -> str:
    """What is not equal, in words; empty if nothing."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{where}: keys {sorted(a.keys() ^ b.keys())} are in one only"
        found = (_difference(a[k], b[k], relative, absolute, f"{where}[{k!r}]") for k in a)
        return next((words for words in found if words), "")
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        if len(a) != len(b):
            return f"{where}: lengths {len(a)} and {len(b)}"
        pairs = enumerate(zip(a, b, strict=True))
        found = (_difference(x, y, relative, absolute, f"{where}[{i}]") for i, (x, y) in pairs)
        return next((words for words in found if words), "")
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype == object:
        return _difference(list(a), list(b), relative, absolute, where)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind == "f" and (relative or absolute):
        alike = a.dtype == b.dtype and a.shape == b.shape
        return "" if alike and np.allclose(a, b, relative, absolute, equal_nan=True) else f"{where}: {a!r} is not {b!r}"
    return "" if data_equivalence(a, b, exact=True) else f"{where}: {a!r} is not {b!r}"


def _arrays(data: Any) -> list[np.ndarray]:
    if isinstance(data, np.ndarray):
        return [data] if data.dtype != object else [x for item in data for x in _arrays(item)]
    if isinstance(data, dict):
        return [x for item in data.values() for x in _arrays(item)]
    if isinstance(data, tuple | list):
        return [x for item in data for x in _arrays(item)]
    return []


def _shares_memory(a: Any, b: Any) -> bool:
    theirs = _arrays(b)
    return any(np.may_share_memory(x, y) for x in _arrays(a) for y in theirs)


def _copied(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        if data.dtype != object:
            return data.copy()
        copy = np.empty_like(data)
        copy[:] = [_copied(item) for item in data]
        return copy
    if isinstance(data, dict):
        return {name: _copied(value) for name, value in data.items()}
    if isinstance(data, tuple | list):
        return type(data)(_copied(item) for item in data)
    return data
