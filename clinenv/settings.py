"""What an environment is told besides its task and its world: one frozen object for the single and the vector form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from clinenv.arguments import check_flag, check_limit
from clinenv.pessimism import Pessimism
from world_models.half import checked_dtype

__all__ = ["RENDER_FPS", "RENDER_MODES", "Settings"]

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments that `gymnasium.make` takes for every clinical environment.

    Raises:
        ValueError: an argument of another kind or out of range. What depends on the world or the task is checked with
            them (`clinenv.assemble`).
    """

    patients: Any = "generated"  # or a folder of records, or an object with factors(key) -> {name: tensor}
    cohort: str | None = None  # which patients the world draws, where it knows several; None: its default
    observation: str = "chart"  # or one that the task brings (`Task.views`): "ecg", "latent", "events", "text"
    noise: str = "none"  # "clinic", "ward": how carefully measures are read
    missingness: str = "none"  # "some", "much": how often a record is not made, or an order lost
    hours: float | None = None  # length of an episode, up to whole steps; None: the task's
    max_episode_steps: int | None = None  # the registry's time limit; with `hours` the shorter one holds; -1: none
    device: str | None = None  # of a world that is loaded by its name; None: the CPU
    # of a learned world's products of matrices: "bfloat16" or "float16" (`world_models.half`); None: "float32"
    dtype: str | None = None
    action_unit: str = "scaled"  # of a continuous action: [-1, 1], where 0 and below order nothing; or "mg", "units"
    action: str | None = None  # "multidiscrete": switches for libraries that know no MultiBinary; None: the task's own
    render_mode: str | None = None  # "rgb_array" or "human"
    hours_per_step: float | None = None  # for worlds that know several; None: the world's own
    # False leaves spread_*, epistemic_* and aleatoric_* out of info; in a learned ward that is half the time of a step
    uncertainty: bool = True
    compile: bool = False  # whether steps run as machine code, made at the first one (`clinenv.compiled`)
    # what is held against a learned world's errors in training: {"kind": "mopo", "weight": 1.0} (`clinenv.pessimism`)
    pessimism: Any = None

    def __post_init__(self) -> None:
        Pessimism.of(self.pessimism)
        check_flag("uncertainty", self.uncertainty)
        check_flag("compile", self.compile)
        checked_dtype(self.dtype)
        check_limit(self.max_episode_steps)
        if self.render_mode is not None and self.render_mode not in RENDER_MODES:
            known = ", ".join(RENDER_MODES)
            raise ValueError(f"render_mode {self.render_mode!r} is unknown; choose None or one of {known}")

    @classmethod
    def of(cls, arguments: Mapping[str, Any], besides: Sequence[str] = ()) -> Settings:
        """The settings of keyword arguments; `besides` names what the environment takes apart from them.

        Raises:
            TypeError: an argument that does not exist; the message names the one that was probably meant.
            ValueError: see above.
        """
        known = [field.name for field in fields(cls)]
        for name in arguments:
            if name not in known:
                close = get_close_matches(name, [*besides, *known], 1)
                meant = f"did you mean {close[0]}?" if close else f"choose from {', '.join([*besides, *known])}"
                raise TypeError(f"unexpected keyword argument {name!r}; {meant}")
        return cls(**arguments)
