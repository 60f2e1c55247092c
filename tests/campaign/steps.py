"""Random and extreme actions in every id and every world: no NaN, nothing outside its space, no memory that grows.

    python -m tests.campaign steps --count 10000000 --out campaign.json

A step is one patient's. Every pair of id and world is stepped in both ways, each course in a process of its own; each
gets the same share of what is left of the processor time (--seconds), the slow ones first, so that the fast ones bear
most of the count. Random actions are the space's own samples, within the mask where there is one; extreme ones are the
space's corners, held for a whole course or thrown anew at every step, the mask disregarded.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import gymnasium
import numpy as np
import psutil
import torch
import torch._dynamo  # noqa: F401  (loaded by the first world; here once for all children)
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

import clinenv  # noqa: F401  (registers the ids)
from clinenv.registration import TEAMS, make_team
from tests.campaign import tally
from tests.campaign.jobs import stays
from world_models import catalog

__all__ = ["PAIRS", "extreme", "main", "stepped", "wrong"]

PAIRS = (
    *((name, world) for name in ("ECGDrug-v0", "ECGDrugContinuous-v0") for world in ("ecg-wm-small", "oracle")),
    *((name, w) for name in ("EHRWard-v0", "EHRWardDose-v0") for w in ("ehr-ward-small", "ehr-icu-small", "oracle")),
    *((name, world) for name in ("ECGProgression-v0",) for world in ("cardiac-jepa-small", "oracle")),
    *((name, world) for name in ("ECGExplain-v0",) for world in ("cardiac-jepa-small", "oracle")),
    *(("EHRReplay-v0", world) for world in ("ehr-mimic-demo-small", "ehr-icu-small")),  # from four invented stays
    *((name, world) for name in ("CareTeam-v0", "CareTeamDose-v0") for world in ("ehr-ward-small", "oracle")),
)
ROWS = {"ecg-wm-small": 2048, "cardiac-jepa-small": 512}  # patients at once, many where that is fast
ROWS |= {"ECGDrug-v0 oracle": 2048, "ECGDrugContinuous-v0 oracle": 2048}
FEW = 32  # in all other pairs
GROWTH = 0.01  # of resident memory after the first half
LEAST = 100  # steps of a batch before its growth is judged: until then caches fill
HOLD = 12  # steps for which a corner is held
# oneDNN keeps up to 1,024 kernels, one for each shape that it met, and rows that begin anew come in every number: that
# grows for thousands of steps until it is full, and would hide what grows for ever. The numbers are the same without.
KERNELS = "0"


class Team:
    """A care team of many patients as one environment, whose actions and observations are dicts by role."""

    def __init__(self, team: Any) -> None:
        self.team, self.num_envs, roles = team, team.num_envs, team.possible_agents
        seen = {role: batch_space(team.observation_space(role), self.num_envs) for role in roles}
        done = {role: batch_space(team.action_space(role), self.num_envs) for role in roles}
        self.observation_space, self.action_space = spaces.Dict(seen), spaces.Dict(done)

    def reset(self, seed: int) -> tuple[Any, Any]:
        """Of all patients."""
        return self.team.reset(seed=seed)

    def step(self, actions: Any) -> tuple[Any, ...]:
        """The team's reward and ends, which all roles share, as arrays."""
        seen, rewards, *ends, info = self.team.step(actions)
        ended, cut = (np.stack(list(flags.values())) for flags in ends)
        return seen, np.stack(list(rewards.values())), ended, cut, info

    def close(self) -> None:
        """The team's."""
        self.team.close()


def wrong(name: str, value: Any, space: spaces.Space | None = None) -> str | None:
    """What is wrong with an observation, a reward or an entry of info; None if nothing is."""
    if isinstance(value, dict):
        inner = space.spaces if isinstance(space, spaces.Dict) else {}
        found = (wrong(f"{name}.{key}", part, inner.get(key)) for key, part in value.items())
        return next((said for said in found if said), None)
    array = np.asarray(value)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{name} holds {array[~np.isfinite(array)][0]}"
    if isinstance(space, spaces.Box) and not ((array >= space.low) & (array <= space.high)).all():
        outside = (array < space.low) | (array > space.high)
        where = tuple(int(i[0]) for i in outside.nonzero())
        low, high = (np.broadcast_to(side, array.shape)[where] for side in (space.low, space.high))
        return f"{name}{list(where)} is {array[where]}, outside {low} to {high}"
    if space is not None and not isinstance(space, spaces.Box) and not space.contains(value):
        return f"{name} is outside {type(space).__name__}"
    return None


def extreme(space: spaces.Space, rng: np.random.Generator) -> Any:
    """One corner of a batched action space a row: all lowest, all highest, or each entry one or the other."""
    if isinstance(space, spaces.Dict):
        return {name: extreme(part, rng) for name, part in space.spaces.items()}
    low, high = _corners(space)
    rows = low.shape[0]
    how = rng.integers(0, 4, rows).reshape(rows, *[1] * (low.ndim - 1))
    thrown = rng.integers(0, 2, low.shape).astype(bool)
    return np.where((how == 0) | ((how >= 2) & thrown), low, high).astype(space.dtype)


def _numbers(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fib"


def _corners(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiDiscrete):
        return np.zeros_like(space.nvec), space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8)
    raise TypeError(f"no corners of {space}")


def _actions(envs: Any, kind: str, seed: int) -> Iterator[Any]:
    """Actions without end; the caller sends the latest info."""
    rng = np.random.default_rng(seed)
    envs.action_space.seed(seed)
    info = yield None
    held = None
    for t in range(1 << 62):
        if kind == "random":
            action = envs.action_space.sample()
            if "action_mask" in info and np.shape(action) == np.shape(info["action_mask"]):
                action = action * info["action_mask"].astype(action.dtype)
        else:
            if held is None or t % HOLD == 0 or (t // 120) % 2:
                held = extreme(envs.action_space, rng)
            action = held
        info = yield action


def _made(name: str, world: str, rows: int) -> Any:
    if name in {row["id"] for row in TEAMS}:
        return Team(make_team(name, "vector", num_envs=rows, world=world))
    settings = {"world": world} | ({"stays": stays()} if name == "EHRReplay-v0" else {})
    return gymnasium.make_vec(name, num_envs=rows, vectorization_mode="vector_entry_point", **settings)


def _held_bytes() -> int:
    """Resident memory, without what glibc keeps free for the next step: that comes and goes by some 2 %."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    return int(psutil.Process().memory_info().rss)


def stepped(envs: Any, kind: str, seed: int, most: int, seconds: float) -> tuple[int, str | None, float]:
    """Step until `most` patient-steps or so many seconds; steps, what was wrong first (None), and growth of memory.

    Growth: of resident memory from the middle to the end, as a share.
    """
    done, batch = 0, envs.num_envs
    actions = _actions(envs, kind, seed)
    next(actions)
    observation, info = envs.reset(seed=seed)
    found = wrong("reset", observation, envs.observation_space)
    began, middle = time.process_time(), 0
    while found is None and done < most and time.process_time() - began < seconds:
        action = actions.send(info)
        observation, reward, terminated, truncated, info = envs.step(action)
        done += batch
        told = {name: value for name, value in info.items() if isinstance(value, dict) or _numbers(value)}
        found = (
            wrong("observation", observation, envs.observation_space)
            or wrong("reward", reward)
            or wrong("info", told)
            or (None if terminated.dtype == truncated.dtype == bool else "a flag is no bool")
        )
        if not middle and (done * 2 >= most or (time.process_time() - began) * 2 >= seconds):
            middle = _held_bytes()
    growth = _held_bytes() / middle - 1.0 if middle else 0.0
    return done, None if found is None else f"step {done // batch} of {batch} patients: {found}", growth


def course(name: str, world: str, kind: str, seed: int, most: int, seconds: float) -> dict[str, Any]:
    """One course in this process: {"done": steps, "found": what was wrong or None, "growth", "seconds"}."""
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = KERNELS  # read when the first kernel is made, in this process
    torch.set_num_threads(1)
    began = time.process_time()
    envs = _made(name, world, _rows(name, world))
    done, found, growth = stepped(envs, kind, seed, most, seconds)
    envs.close()
    return {"done": done, "found": found, "growth": growth, "seconds": time.process_time() - began}


def _rows(name: str, world: str) -> int:
    return ROWS.get(f"{name} {world}", ROWS.get(world, FEW))


def main(given: list[str] | None = None) -> int:
    """Run it; 1 if a promise was broken."""
    options = tally.arguments(__doc__ or "", 200_000, 120.0, given)
    told = tally.Tally.begun("steps", options.seed, options.out)
    here = [p for p in PAIRS if _there(*p)]
    courses = [(name, world, kind) for name, world in here for kind in ("random", "extreme")]
    courses = [c for c in courses if not options.only or c[0] in options.only]
    courses.sort(key=lambda c: _rows(*c[:2]))  # the slow ones first: what they leave the fast ones take
    used_s = told.figures.setdefault("processor seconds", {})
    for number, (name, world, kind) in enumerate(courses):
        label, rows = f"{name} {world} {kind}", _rows(name, world)
        if told.done(label):
            continue
        after = sum(not told.done(" ".join(c)) for c in courses)
        share = max((options.count - sum(told.done(k) for k in told.counts)) // after, rows * 30)
        share_s = max((options.seconds - sum(used_s.values())) / after, 1.0)
        seed = options.seed * 1000 + number
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:  # its memory is its own
            try:
                end = pool.submit(course, name, world, kind, seed, share, share_s).result()
            except Exception as error:  # raised in the course, or the process died
                told.fail(label, f"{type(error).__name__}: {error}")
                continue
        done, found, growth, long = end["done"], end["found"], end["growth"], end["done"] > LEAST * rows
        told.add(label, "fine", done if found is None else max(done - 1, 0))
        if found is not None:
            told.fail(label, found)
        elif growth > GROWTH and long:
            told.fail(label, f"resident memory grew by {growth:.1%} in the second half")
        judged = "growth" if long else "growth, too few steps to judge"
        told.figures.setdefault(judged, {})[label] = round(growth, 4)
        used_s[label] = round(end["seconds"], 1)
        told.save()
    return told.report()


def _there(name: str, world: str) -> bool:
    """Whether the weights of a world are here; an oracle needs none of its own."""
    entry = catalog.WORLDS.get(world)
    return entry is None or not entry.weights or (catalog.weights_folder(world) / "model.safetensors").is_file()
