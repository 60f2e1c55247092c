"""RLlib: every id by its name, with the one autoreset mode that RLlib means, and a loud refusal of any other.

RLlib never reads `autoreset_mode`: its runners treat every vector environment as a next-step one. A same-step one runs
all the same, on wrong data: last observations belong to the next patient, and every episode but the first lacks its
first hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from clinenv import registration
from clinenv.doors.making import missing, patients, refuse_multibinary

try:
    from ray.tune.registry import register_env
except ImportError as error:
    raise missing(error, "RLlib", 'pip install "clinenv[rllib]"') from None

__all__ = ["creator", "refuse_wrong_autoreset", "register"]


def register() -> None:
    """Make every id known to RLlib, on remote runners too: `config.environment("ECGDrug-v0", env_config={...})`.

    `env_config` holds the arguments of the environment. With `gym_env_vectorize_mode="vector_entry_point"` the patients
    of a runner are one batch, and no two runners meet the same; with the other modes each is an environment of its own.
    A second call changes nothing.
    """
    for row in registration.ENVIRONMENTS:
        register_env(row["id"], creator(row["id"]))


def creator(env_id: str) -> Callable[[Mapping[str, Any]], gymnasium.Env | VectorEnv]:
    """What RLlib calls with an `env_config`, to which it adds "num_envs" where it wants a vector environment.

    The environments that it makes raise ValueError: another autoreset mode than next-step, MultiBinary actions, or what
    the environment itself refuses.
    """

    def create(env_config: Mapping[str, Any]) -> gymnasium.Env | VectorEnv:
        arguments = dict(env_config)
        num_envs = arguments.pop("num_envs", None)
        mode = arguments.pop("autoreset_mode", AutoresetMode.NEXT_STEP)
        _refuse(mode)
        made: gymnasium.Env | VectorEnv
        if num_envs is None:
            registration.register()
            made = gymnasium.make(env_id, **arguments)
            space = made.action_space
        else:
            batch = patients(env_id, num_envs, AutoresetMode.NEXT_STEP, **arguments)
            space = batch.single_action_space
            made = _Apart(batch, getattr(env_config, "worker_index", 0) * (num_envs - 1))
        refuse_multibinary("RLlib", space)
        return made

    return create


class _Apart(VectorWrapper):
    """Runner w is seeded with s + w, and row i of a batch with its seed + i: the shift makes that s + w N + i."""

    def __init__(self, env: VectorEnv, shift: int) -> None:
        super().__init__(env)
        self._shift = shift

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's own, with the seed shifted."""
        return self.env.reset(seed=None if seed is None else seed + self._shift, options=options)


def refuse_wrong_autoreset(*, env: Any, **_: Any) -> None:
    """For vector environments that came to RLlib by another way: `config.callbacks(on_environment_created=
    refuse_wrong_autoreset)`.

    Raises:
        ValueError: the environment has another autoreset mode than next-step.
    """
    _refuse(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def _refuse(mode: Any) -> None:
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
        raise ValueError(
            f"autoreset_mode={mode!r}: RLlib takes every vector environment for a next-step one and would learn from "
            "the wrong patients' observations; leave it out, or give gymnasium.vector.AutoresetMode.NEXT_STEP"
        )
