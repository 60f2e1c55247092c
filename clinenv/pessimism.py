"""Pessimism against a world's errors: whoever searches long enough finds what a world gets wrong to his favour.

Two ways, both in the one step of the `Simulator`, so that planners and policies in training meet them alike:

- "mopo" (Yu 2020, arXiv 2005.13239): each step pays `weight` for a unit of doubt about it;
- "morel" (Kidambi 2020, arXiv 2005.05951): a step that leaves what the world was fitted to (`WorldModel.support`), or
  of which doubt exceeds `threshold`, pays `weight` once and ends the episode.

Doubt [B] is the root mean square, over the measures that a world is unsure of, of its standard deviation in units of
the task's observation (`Column.scale`, in which 1 is a large difference). Of an ensemble it is what its members
disagree by, which only more data would settle; of a single world its own epistemic spread, which holds not knowing the
patient as well, or all of its spread where it does not tell the parts apart.

Whoever begins outside is ended by his first step. The reward of a pessimistic simulator is for choosing; what is earned
is judged by one without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clinenv.task import Task
from world_models import gradients, keys
from world_models.protocol import HasMembers, SplitsSpread, WorldModel

__all__ = ["KINDS", "TERM", "Pessimism", "Wary"]

KINDS = ("mopo", "morel")
TERM = "pessimism"  # its name among the reward's terms


@dataclass(frozen=True)
class Pessimism:
    """What is held against a world.

    Raises:
        ValueError: an unknown kind, a number that is none, below 0 or not finite, or a threshold for "mopo".
    """

    kind: str = "mopo"
    weight: float = 1.0  # reward lost by a step of doubt 1, or by leaving what is known
    threshold: float | None = None  # of doubt; "morel" alone; None: the world's own support decides

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"pessimism of kind {self.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        for name in ("weight", "threshold"):
            value = getattr(self, name)
            if value is None and name == "threshold":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name}={value!r} of pessimism must be a finite number of at least 0")
        if self.threshold is not None and self.kind != "morel":
            raise ValueError('a threshold is for pessimism of kind "morel"; "mopo" charges all doubt by its weight')

    @classmethod
    def of(cls, given: Any) -> Pessimism | None:
        """Of a mapping such as {"kind": "mopo", "weight": 1.0}; None and a Pessimism stay what they are.

        Raises:
            ValueError: as above, or something else than these.
        """
        if given is None or isinstance(given, cls):
            return given
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping) or any(name not in known for name in given):
            raise ValueError(f"pessimism={given!r}: give None, or a mapping with some of {', '.join(known)}")
        return cls(**given)


class Wary:
    """A pessimism bound to a world and a task.

    Raises:
        ValueError: the world is unsure of nothing that the task observes, so there is nothing to charge.
    """

    def __init__(self, pessimism: Pessimism, world: WorldModel, task: Task) -> None:
        self.pessimism, self._world = pessimism, world
        scales: dict[str, float] = {}
        for column in task.observation:
            if isinstance(column.scale, int | float) and isinstance(column.centre, int | float):
                scales[column.name] = column.scale * (column.centre if column.log else 1.0)
        self._scales = scales
        self._asks_doubt = pessimism.kind == "mopo" or pessimism.threshold is not None
        if self._asks_doubt:  # refused now, rather than at the first step
            self.doubt(world.initial(keys.from_seed(0, 1, world.device)))

    def doubt(self, state: Any) -> Tensor:
        """Doubt [B] about how the state came to be; see the module.

        Raises:
            ValueError: the world is unsure of nothing that the task observes.
        """
        world = self._world
        if isinstance(world, HasMembers):
            sd = world.disagreement(state)
        elif isinstance(world, SplitsSpread):
            sd = {name: parts.epistemic for name, parts in world.spread_parts(state).items()}
        else:
            sd = world.spread(state)
        shares = [value / self._scales[name] for name, value in sd.items() if name in self._scales]
        if not shares:
            raise ValueError(
                f"world {world.name!r} puts a spread on nothing that the task observes, so its doubt is not known; "
                'take pessimism of kind "morel" without a threshold, or an ensemble'
            )
        return gradients.root(torch.stack(shares).square().mean(0))

    def __call__(self, state: Any) -> tuple[Tensor, Tensor | None]:
        """What the step to `state` pays [B] (0 or less), and bool [B] where it ends the episode (None: nowhere)."""
        given = self.pessimism
        doubt = self.doubt(state) if self._asks_doubt else None
        if given.kind == "mopo":
            assert doubt is not None
            return doubt * -given.weight, None
        outside = ~self._world.support(state)
        if doubt is not None and given.threshold is not None:
            outside = outside | (doubt > given.threshold)
        return outside.to(torch.float32) * -given.weight, outside
