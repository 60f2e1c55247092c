"""Patients drawn ahead are those who would have come, and come in few batches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from clinenv import waiting
from tests.toy_world import ToyWorld

ROWS, STEPS = 24, 40


def course(env: Any, steps: int = STEPS) -> list[np.ndarray]:
    """What a seeded course of orders shows, all rows and steps."""
    rng = np.random.default_rng(0)
    given = [env.step(rng.integers(env.single_action_space.n, size=env.num_envs)) for _ in range(steps)]
    return [part for observation, reward, ended, cut, info in given for part in (observation, reward, ended, cut)] + [
        info["cost"] for *_, info in given
    ]


def made(world: Any, **kwargs: Any) -> Any:
    kwargs = {"num_envs": ROWS, "hours": 24, **kwargs}
    env = gymnasium.make_vec("ECGDrug-v0", world=world, vectorization_mode="vector_entry_point", **kwargs)
    env.reset(seed=5)
    return env


def alike(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_the_same_patients_in_the_same_order(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    world = ToyWorld(hazard=0.2)  # ends rows at odd times
    ahead = course(made(world, autoreset_mode=mode))
    monkeypatch.setattr(waiting, "MOST_BYTES", 0)  # nobody waits
    assert alike(ahead, course(made(world, autoreset_mode=mode)))


def test_the_oracles_patients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def desynchronised() -> list[np.ndarray]:
        env = made("oracle", hours=12)
        shown = []
        for first in range(0, 6, 2):  # rows are two steps apart from here on
            env.reset(options={"reset_mask": np.arange(ROWS) % 6 == first})
            shown += course(env, 2)
        return shown + course(env, 14)

    ahead = desynchronised()
    monkeypatch.setattr(waiting, "MOST_BYTES", 0)
    assert alike(ahead, desynchronised())


def test_they_come_in_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ToyWorld(hazard=0.5)
    drawn: list[int] = []
    initial = world.initial

    def counted(key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        drawn.append(len(key))
        return initial(key, *args, **kwargs)

    monkeypatch.setattr(world, "initial", counted)
    env = made(world, num_envs=200, hours=48)
    ends = sum(bool((ended | cut).any()) for _, _, ended, cut, _ in (env.step(np.zeros(200, int)) for _ in range(20)))
    assert ends > 12, "rows end at many steps"
    assert len(drawn) < ends / 2, drawn


def test_a_reset_with_factors_or_another_seed_forgets_who_waited() -> None:
    world = ToyWorld(hazard=0.2)
    env = made(world)
    course(env, 10)
    again = env.reset(seed=5)[0]
    assert np.array_equal(again, made(world).reset(seed=5)[0])
    assert alike(course(env), course(made(world)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copied_environment_has_a_room_of_its_own(copied: Any) -> None:
    env = made(ToyWorld(hazard=0.2))
    course(env, 10)
    twin = copied(env)
    assert alike(course(env), course(twin))


def test_waveforms_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_BYTES", 10_000)
    env = made(ToyWorld(hazard=0.2), observation="ecg", num_envs=12)
    course(env, 10)
    assert not env.unwrapped.episodes._waiting._waiting
