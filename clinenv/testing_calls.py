"""What an environment must do with what its methods are called with, and say of itself: `check_env`, `check_fork`, and
the parts of `check_vector_env` that hold for single environments too. Use them through `clinenv.testing`."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils.env_checker import data_equivalence

__all__ = ["check_closed", "check_env", "check_fork", "check_infos", "check_refusals", "check_reset_refusals"]

WRONG_SEEDS: tuple[Any, ...] = (-1, 1.5, "a", True, 2**64)
WRONG_OPTIONS: tuple[tuple[Any, str], ...] = (  # and what the refusal names
    ([{}], "[{}]"),
    (5, "5"),
    ("age_years", "age_years"),
    ({"no_such_factor": 1}, "no_such_factor"),
    ({"factors": [1]}, "factors"),
)


def check_env(make: Callable[[], gymnasium.Env], steps: int = 12, seed: int = 11) -> None:
    """A single environment's rules beyond those of Gymnasium's own checker.

    Proves that its id has a time limit, that info holds the same names and kinds of values at reset and step (zero
    where nothing was judged yet), that seeds, options and actions that are none are refused with a ValueError and leave
    no trace, that a step needs a reset, and that nothing works after `close`, which may be called twice.

    Args:
        make: one environment, as `gymnasium.make` gives it or bare.
        steps: of the course that is looked at; episodes that end within it begin anew.
    """
    env, twin = make(), make()
    if env.spec is not None:
        registered = gymnasium.registry.get(env.spec.id)
        limit = env.spec.max_episode_steps or (registered and registered.max_episode_steps)
        assert limit, f"{env.spec.id} has no max_episode_steps, which gymnasium.wrappers.TimeAwareObservation needs"
    env, twin = env.unwrapped, twin.unwrapped
    try:
        _check_raises(lambda: env.step(env.action_space.sample()), gymnasium.error.ResetNeeded, "step before any reset")
        check_reset_refusals(env)
        numpy_seed: Any = np.int64(seed)
        first = env.reset(seed=numpy_seed)
        assert data_equivalence(first, twin.reset(seed=seed), exact=True), "a numpy integer is a seed like any other"
        env.action_space.seed(seed)
        assert env.observation_space.contains(first[0]), "the observation of a reset is not in the observation space"
        check_infos(env, first[1], steps)
        env.reset(seed=seed)
        twin.reset(seed=seed)
        action = env.action_space.sample()
        check_refusals(env, action)
        mine, theirs = env.step(action), twin.step(action)
        assert data_equivalence(mine, theirs, exact=True), "a call that was refused must leave no trace"
    finally:
        twin.close()
        env.close()
        env.close()
    check_closed(env)


def check_infos(env: Any, first: Mapping[str, Any], steps: int) -> None:
    """The infos of `steps` steps are of the form of `first`, that of a reset, in which nothing is judged yet."""
    form = _form(first)
    judged = [n for n in first if n.startswith(("cost", "reward_")) or n == "refused_orders"]
    assert "cost" in judged, "info must hold cost, 0 at a reset"
    for name in judged:
        assert not np.any(first[name]), f"info[{name!r}] is {first[name]!r} at a reset, before anything was ordered"
    for _ in range(steps):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        now = _form({name: value for name, value in info.items() if not name.lstrip("_").startswith("final_")})
        differing = sorted(name for name in form.keys() | now.keys() if form.get(name) != now.get(name))
        assert not differing, (
            f"info of a step and of a reset differ in {', '.join(differing)}: the same names and kinds of values "
            "belong in both, neutral where nothing happened yet"
        )
        if np.ndim(terminated) == 0 and (terminated or truncated):
            env.reset()


def check_reset_refusals(env: Any) -> None:
    """Seeds and options that are none are refused by their value."""
    for seed in WRONG_SEEDS:
        _check_raises(partial(env.reset, seed=seed), ValueError, f"reset(seed={seed!r})", repr(seed))
    for options, name in WRONG_OPTIONS:
        _check_raises(partial(env.reset, options=options), ValueError, f"reset(options={options!r})", name)


def check_refusals(env: Any, action: Any) -> None:
    """What is like `action`, one that is fine, but is none, is refused; so are seeds and options."""
    good = np.asarray(action)
    far = good.astype(np.result_type(good, np.int32))  # of a kind that holds a million
    wrong = {
        "None": None,
        "text": "orders",
        "an object": object(),
        "a list of unlike lengths": [[0], [0, 1]],
        "complex numbers": good.astype(np.complex64),
        "NaN": good * np.nan,
        "infinity": good + np.inf,
        "numbers too large": far + 10**6,
        "numbers too small": far - 10**6,
        "another shape": np.stack([good, good]),
    }
    for what, orders in wrong.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_raises(partial(env.step, orders), ValueError, f"step with {what} ({orders!r})")
    check_reset_refusals(env)


def check_fork(make: Callable[[], gymnasium.Env], timeout_s: float = 60.0) -> None:
    """An environment that is made, reset and stepped in a forked child comes back, whatever threads its parent used.

    Where there is no fork there is nothing to check.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(2, threads))
    try:
        torch.ones(1_000_000).exp().sum()  # the parent's pool has worked
        child = multiprocessing.get_context("fork").Process(target=_short_course, args=(make,))
        child.start()
        child.join(timeout_s)
        hangs = child.is_alive()
        if hangs:
            child.kill()
            child.join()
    finally:
        torch.set_num_threads(threads)
    assert not hangs, (
        f"a forked child was not done after {timeout_s:g} s: it waits for threads that only its parent has"
    )
    assert child.exitcode == 0, f"a forked child ended with exit code {child.exitcode}"


def _short_course(make: Callable[[], gymnasium.Env]) -> None:
    env = make()
    env.reset(seed=0)
    env.step(env.action_space.sample())


def check_closed(env: Any) -> None:
    """A closed environment says so."""
    closed = gymnasium.error.ClosedEnvironmentError
    _check_raises(lambda: env.reset(seed=0), closed, "reset after close")
    _check_raises(lambda: env.step(env.action_space.sample()), closed, "step after close")


def _check_raises(call: Callable[[], Any], wanted: type[Exception], what: str, name: str = "") -> None:
    try:
        call()
    except wanted as error:
        assert name in str(error), f"{what}: the refusal must name {name}, but says {str(error)!r}"
    except Exception as error:
        raise AssertionError(f"{what} must raise {wanted.__name__}, not {type(error).__name__} ({error})") from error
    else:
        raise AssertionError(f"{what} was taken; it must raise {wanted.__name__}")


def _form(info: Mapping[str, Any]) -> dict[str, Any]:
    """What kind of value stands under each name."""
    return {n: (v.dtype, v.shape) if isinstance(v, np.ndarray | torch.Tensor) else type(v) for n, v in info.items()}
