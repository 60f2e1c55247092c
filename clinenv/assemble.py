"""From the arguments of `gymnasium.make` to running episodes: one place for the single and the vector environment."""

from __future__ import annotations

from collections.abc import Mapping
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
from world_models.protocol import WorldModel

__all__ = ["RENDER_FPS", "RENDER_MODES", "assemble", "check_options", "load_world", "registered_limit", "split_options"]
__all__ += ["warn_short_limit"]

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 4


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
        ValueError: an argument that is unknown or out of range; the message names the choices.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"num_envs={count!r}: a whole number of environments is needed, at least one")
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode {render_mode!r} is unknown; choose None or one of {', '.join(RENDER_MODES)}")
    world = load_world(task, world, device, cohort, hours_per_step)
    simulator = Simulator(world, task)
    door = Door(world, task, observation, noise, missingness, action_unit)
    steps = horizon_in_steps(task.horizon_hours if hours is None else hours, world.hours_per_step)
    if max_episode_steps is not None and max_episode_steps > 0:  # Gymnasium: -1 lifts the limit
        if hours is not None and max_episode_steps < steps:
            warn_short_limit(steps * world.hours_per_step, steps, max_episode_steps)
        steps = min(steps, max_episode_steps)
    if patients == "generated":
        chosen = None
    elif hasattr(patients, "factors"):
        chosen = patients
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
    if isinstance(world, str):
        world = getattr(task, "oracle", world) if world == "oracle" else world
        released = registration.WEIGHTS_SHA256.get(world)
        return catalog.load(
            world, device=device or "cpu", cohort=cohort, sha256=released, hours_per_step=hours_per_step
        )
    if device is not None and torch.device(device).type != torch.device(world.device).type:
        raise ValueError(f"device={device!r}, but the world given lives on {world.device}; build it there instead")
    if cohort is not None:
        raise ValueError(f"cohort={cohort!r} goes with a world given by its name; build your own world with it instead")
    if hours_per_step is not None and hours_per_step != world.hours_per_step:
        raise ValueError(
            f"hours_per_step={hours_per_step:g}, but the world given makes steps of {world.hours_per_step:g} h; build "
            "your own with other steps instead"
        )
    return world


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
