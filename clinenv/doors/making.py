"""What the doors share: the vector environment behind an id, and the words for what is missing or cannot be taken."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from clinenv.registration import register
from clinenv.vector_env import ClinicalVectorEnv

__all__ = ["boxed", "clinical", "cost_of_step", "missing", "patients", "refuse_multibinary"]


def missing(error: ImportError, library: str, command: str) -> ImportError:
    """The error of a door whose library, or something that the library needs, is not installed.

    Args:
        command: installs it.
    """
    return ImportError(f"the door of {library} needs {error.name or library} ({error}); install it: {command}")


def clinical(env: VectorEnv) -> ClinicalVectorEnv:
    """The batch of patients beneath the wrappers.

    Raises:
        TypeError: it is none of clinenv's.
    """
    if not isinstance(env.unwrapped, ClinicalVectorEnv):
        raise TypeError(f"this needs a vector environment of clinenv, got {type(env.unwrapped).__name__}")
    return env.unwrapped


def patients(env_id: str, num_envs: int, mode: AutoresetMode, **arguments: Any) -> ClinicalVectorEnv:
    """The vector environment of an id, as `gymnasium.make_vec` makes it, in the autoreset mode that a library means.

    Args:
        arguments: as for `gymnasium.make_vec`; `autoreset_mode` is the door's own affair.

    Raises:
        ValueError: an autoreset mode was given, or what the environment itself refuses.
        TypeError: the id is none of clinenv's.
    """
    if "autoreset_mode" in arguments:
        raise ValueError(
            f"autoreset_mode={arguments['autoreset_mode']!r}: the library decides, and its door knows it means "
            f"{mode.value!r}; leave it out"
        )
    register()
    made = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **arguments
    )
    return clinical(made)


def cost_of_step(info: dict[str, Any]) -> Tensor:
    """float32 [N]: the cost of a same-step step; a row that ended has it in final_info, its info being the next
    patient's."""
    if "final_info" not in info:
        return info["cost"]
    return torch.where(info["_final_info"], info["final_info"]["cost"], info["cost"])


def boxed(library: str, what: str, space: gymnasium.Space) -> gymnasium.spaces.Box:
    """The space, for a library that knows no other than a Box.

    Args:
        what: the space is of: "actions" or "observations".

    Raises:
        ValueError: it is another.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        remedy = "an id whose actions are amounts" if what == "actions" else 'observation="chart"'
        raise ValueError(f"{library} takes {what} in a Box, and these are {space}; choose {remedy}")
    return space


def refuse_multibinary(library: str, space: gymnasium.Space) -> None:
    """Raises ValueError where a library that knows no MultiBinary would be handed one."""
    if isinstance(space, gymnasium.spaces.MultiBinary):
        raise ValueError(f'{library} knows no actions like {space}; pass action="multidiscrete" as well')
