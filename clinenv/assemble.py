"""From a task, a world and settings to running episodes: one place for the single and the vector environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium import logger
from gymnasium.envs.registration import EnvSpec

from clinenv import registration
from clinenv.arguments import horizon_in_steps
from clinenv.episodes import Episodes
from clinenv.interface import Interface
from clinenv.patients import Patients
from clinenv.settings import Settings
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models import catalog, half
from world_models.devices import checked_device
from world_models.protocol import WorldModel

__all__ = ["WorldLike", "assemble", "load_world", "registered_limit", "warn_short_limit"]

WorldLike: TypeAlias = str | Path | WorldModel[Any]  # a name of the catalogue, a folder of weights, or a world
MOST_ENVS = 1 << 31  # rows; memory ends long before


def assemble(task: Task, count: int, world: WorldLike, settings: Settings, kind: type[Episodes] = Episodes) -> Episodes:
    """Episodes of `count` patients, of the given kind.

    Raises:
        ValueError: an argument that is unknown, of another kind or out of range; the message names the choices.
    """
    if not isinstance(task, Task):
        raise ValueError(f"task={task!r} is no task; give a subclass of `clinenv.task.Task`, or leave it out")
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= MOST_ENVS:
        raise ValueError(
            f"num_envs={count!r}: a whole number of environments is needed, at least one, at most {MOST_ENVS:,}"
        )
    world = load_world(task, world, settings.device, settings.cohort, settings.hours_per_step, settings.dtype)
    simulator = Simulator(world, task, pessimism=settings.pessimism, compile=settings.compile)
    interface = Interface(world, task, settings)
    steps = _horizon(task, world, settings)
    patients = _patients(task, world, settings.patients)
    return kind(simulator, interface, int(count), steps, patients, settings)


def _horizon(task: Task, world: WorldModel, settings: Settings) -> int:
    """Steps after which an episode is truncated."""
    hours, limit = settings.hours, settings.max_episode_steps
    steps = horizon_in_steps(task.horizon_hours if hours is None else hours, world.hours_per_step)
    clock = next((quantity for quantity in world.measures if quantity.name == "hours"), None)
    if clock is not None and hours is not None and steps * world.hours_per_step > clock.high:
        raise ValueError(f"hours={hours:g}: world {world.name!r} tells time up to {clock.high:g} h; give at most that")
    if limit is None or limit <= 0:  # Gymnasium: -1 lifts the limit
        return steps
    if hours is not None and limit < steps:
        warn_short_limit(steps * world.hours_per_step, steps, limit)
    return min(steps, limit)


def _patients(task: Task, world: WorldModel, patients: Any) -> Patients | None:
    """Who gives the factors of new patients; None: the world draws them all."""
    if isinstance(patients, str) and patients == "generated":
        return None
    if isinstance(patients, str | Path):
        return task.patients_of(patients, world)
    if not isinstance(patients, Patients):
        raise ValueError(
            f'patients={patients!r} is a {type(patients).__name__}; give "generated", a folder of ECGs, or an object '
            "with factors(key)"
        )
    return patients


def load_world(
    task: Task,
    world: WorldLike,
    device: str | None,
    cohort: str | None,
    hours_per_step: float | None,
    dtype: str | None = None,
) -> WorldModel:
    """The world of these arguments; "oracle" is that of the task.

    Raises:
        ValueError: an unknown name, or an argument that does not go with the world given.
    """
    if isinstance(world, str | Path):
        world = task.oracle if world == "oracle" else world
        released = registration.WEIGHTS_SHA256.get(str(world))
        device = "cpu" if device is None else device
        return catalog.load(world, device, cohort, sha256=released, hours_per_step=hours_per_step, dtype=dtype)
    if not isinstance(world, WorldModel):
        raise ValueError(
            f"world={world!r} is no world; give a name ({', '.join(catalog.WORLDS)}), a folder with weights, or an "
            "object with what `world_models.protocol.WorldModel` names"
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
    if dtype is not None and half.checked_dtype(dtype) != getattr(world, "dtype", half.WHOLE):
        raise ValueError(
            f"dtype={dtype!r} goes with a world given by its name; load your own in it instead "
            f"(world_models.catalog.load(..., dtype={dtype!r}))"
        )
    return world


def warn_short_limit(hours: float, steps: int, limit: int) -> None:
    """Say that two time limits disagree."""
    logger.warn(
        f"an episode of {hours:g} h takes {steps} steps, but the id's time limit is {limit}, and the shorter holds "
        f"unless `make` was told max_episode_steps={steps} as well"
    )


def registered_limit(spec: EnvSpec | None) -> int | None:
    """The time limit that an environment's id was registered with, in steps."""
    registered = None if spec is None else gymnasium.registry.get(spec.id)
    return None if registered is None else registered.max_episode_steps
