"""From the arguments of `gymnasium.make` to running episodes: one place for the single and the vector environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import logger
from gymnasium.envs.registration import EnvSpec

from clinenv import registration
from clinenv.door import Door
from clinenv.episodes import Episodes, horizon_in_steps
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models import catalog
from world_models.devices import checked_device
from world_models.protocol import WorldModel

__all__ = [
    "RENDER_FPS", "RENDER_MODES", "assemble", "check_flag", "check_options", "load_world", "registered_limit",
    "split_options", "warn_short_limit",
]  # fmt: skip

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 4
MOST_ENVS = 1 << 31  # rows; memory ends long before


def assemble(
    task: Task,
    count: int,
    world: str | WorldModel,
    patients: Any,
    cohort: str | None,
    observation: str,
    noise: str,
    missingness: str,
    hours: float | None,
    max_episode_steps: int | None,
    device: str | None,
    action_unit: str,
    render_mode: str | None,
    hours_per_step: float | None = None,
    uncertainty: bool = True,
) -> Episodes:
    """Episodes of `count` patients; the arguments are those of `ClinicalEnv`.

    Raises:
        ValueError: an argument that is unknown, of another kind or out of range; the message names the choices.
    """
    if not isinstance(task, Task):
        raise ValueError(f"task={task!r} is no task; give an object with what `clinenv.task.Task` names, or leave it out")
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= MOST_ENVS:
        raise ValueError(f"num_envs={count!r}: a whole number of environments is needed, at least one, at most {MOST_ENVS:,}")
    check_flag("uncertainty", uncertainty)
    _check_limit(max_episode_steps)
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode {render_mode!r} is unknown; choose None or one of {', '.join(RENDER_MODES)}")
    world = load_world(task, world, device, cohort, hours_per_step)
    simulator = Simulator(world, task)
    door = Door(world, task, observation, noise, missingness, action_unit)
    steps = horizon_in_steps(task.horizon_hours if hours is None else hours, world.hours_per_step)
    clock = next((quantity for quantity in world.measures if quantity.name == "hours"), None)
    if clock is not None and hours is not None and steps * world.hours_per_step > clock.high:
        raise ValueError(f"hours={hours:g}: world {world.name!r} tells time up to {clock.high:g} h; give at most that")
    if max_episode_steps is not None and max_episode_steps > 0:  # Gymnasium: -1 lifts the limit
        if hours is not None and max_episode_steps < steps:
            warn_short_limit(steps * world.hours_per_step, steps, max_episode_steps)
        steps = min(steps, max_episode_steps)
    if patients == "generated":
        chosen = None
    elif hasattr(patients, "factors"):
        chosen = patients
    elif not isinstance(patients, str | Path):
        raise ValueError(
            f'patients={patients!r} is a {type(patients).__name__}; give "generated", a folder of ECGs, or an object with '
            "factors(key)"
        )
    elif "ecg_mv" not in {quantity.name for quantity in world.measures}:
        raise ValueError(
            f"patients={patients!r}: a folder of ECGs needs a world that draws them, and {world.name!r} does not; use "
            '"generated" or an object with factors(key)'
        )
    else:
        from clinenv.patients import RecordedPatients

        chosen = RecordedPatients(patients, world)
    return Episodes(simulator, door, count, steps, chosen, uncertainty)


def load_world(
    task: Task, world: str | WorldModel, device: str | None, cohort: str | None, hours_per_step: float | None
) -> WorldModel:
    """The world of these arguments; "oracle" is that of the task.

    Raises:
        ValueError: an unknown name, or an argument that does not go with the world given.
    """
    if isinstance(world, str | Path):
        world = getattr(task, "oracle", world) if world == "oracle" else world
        released = registration.WEIGHTS_SHA256.get(str(world))
        return catalog.load(
            world, "cpu" if device is None else device, cohort, sha256=released, hours_per_step=hours_per_step
        )
    if not isinstance(world, WorldModel):
        raise ValueError(
            f"world={world!r} is no world; give a name ({', '.join(catalog.WORLDS)}), a folder with weights, or an object "
            "with what `world_models.protocol.WorldModel` names"
        )
    if device is not None and checked_device(device).type != torch.device(world.device).type:
        raise ValueError(f"device={device!r}, but the world given lives on {world.device}; build it there instead")
    if cohort is not None:
        raise ValueError(f"cohort={cohort!r} goes with a world given by its name; build your own world with it instead")
    if hours_per_step is not None and catalog.checked_step(hours_per_step) != world.hours_per_step:
        raise ValueError(
            f"hours_per_step={hours_per_step!r}, but the world given makes steps of {world.hours_per_step:g} h; build "
            "your own with other steps instead"
        )
    return world


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless the argument is True or False: what stands for neither is a slip."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r} is neither True nor False; give one of them")


def _check_limit(steps: Any) -> None:
    """Raises ValueError unless it is a time limit as `gymnasium.make` takes it."""
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if steps is not None and not (whole and (steps == -1 or steps >= 1)):
        raise ValueError(f"max_episode_steps={steps!r} is no time limit; give a whole number of at least 1, or -1 for none")


def warn_short_limit(hours: float, steps: int, limit: int) -> None:
    """Say that two time limits disagree."""
    logger.warn(
        f"an episode of {hours:g} h takes {steps} steps, but the id's time limit is {limit}, and the shorter holds: pass "
        f"max_episode_steps={steps} as well"
    )


def registered_limit(spec: EnvSpec | None) -> int | None:
    """The time limit that an environment's id was registered with, in steps."""
    registered = None if spec is None else gymnasium.registry.get(spec.id)
    return None if registered is None else registered.max_episode_steps


def check_options(options: Any) -> Mapping[str, Any]:
    """The options of a reset.

    Raises:
        ValueError: neither None nor a mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options={options!r} is a {type(options).__name__}; give a dict such as {{'age_years': 70}}")
    return options or {}


def split_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The patient factors of reset's options: under "factors", or flat.

    Raises:
        ValueError: the options or their "factors" are no mapping, or a factor is given both ways.
    """
    given = {name: value for name, value in check_options(options).items() if name != "reset_mask"}
    nested = given.pop("factors", None)
    nested = {} if nested is None else nested
    if not isinstance(nested, Mapping):
        raise ValueError(f'options["factors"]={nested!r} must map names to values, got {type(nested).__name__}')
    twice = sorted(set(nested) & set(given))
    if twice:
        raise ValueError(f"factor {twice[0]!r} is given both flat and under 'factors'; give it once")
    return {**nested, **given}
