"""The condition [B, C] of the diffusion from named parts, any of which may be missing.

A part is a group of numbers under one name (pre-dose z, the ODE's prediction, doses, ...). What is missing of it is 0,
and for parts that may be missing a mask stands beside the values, so "0" and "not known" are told apart. NaN counts as
missing. `drop` hides parts and entries at random in training, so that any subset can be asked for later (as
classifier-free guidance drops its condition, Ho & Salimans 2022, arXiv 2207.12598, but entry by entry).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from world_models import keys

__all__ = ["ConditionLayout", "Part"]


@dataclass(frozen=True)
class Part:
    """One named group of numbers of the condition.

    `maskable` "entries": each number may be missing on its own (leads, coordinates, electrolytes); "whole": all or none
    (age, a prediction); "never": always there (dose, time). `drop` is how often training hides it (each entry, or the
    whole). `of_prior`: it comes from the ODE, and shrinks with the share of the prior that is given.

    Raises:
        ValueError: no size, an unknown way of being missing, or a share that is none.
    """

    name: str
    size: int
    maskable: str = "never"
    drop: float = 0.0
    of_prior: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"part {self.name!r} has size {self.size}; it needs at least 1")
        if self.maskable not in ("never", "whole", "entries"):
            raise ValueError(f"part {self.name!r}: maskable is {self.maskable!r}; choose never, whole or entries")
        if not 0 <= self.drop < 1 or (self.drop and self.maskable == "never"):
            raise ValueError(f"part {self.name!r}: drop={self.drop} must be in [0, 1), and 0 where nothing may miss")

    @property
    def masks(self) -> int:
        """How many mask entries stand beside its values."""
        return {"never": 0, "whole": 1, "entries": self.size}[self.maskable]


@dataclass(frozen=True)
class ConditionLayout:
    """The parts of a condition, in order.

    Raises:
        ValueError: two parts of one name.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        double = {name for name in names if names.count(name) > 1}
        if double:
            raise ValueError(f"parts named twice: {', '.join(sorted(double))}; give each its own name")

    @property
    def size(self) -> int:
        """C, values and masks."""
        return sum(part.size + part.masks for part in self.parts)

    def build(self, values: Mapping[str, Tensor], seen: Mapping[str, Tensor] | None = None) -> Tensor:
        """The condition [B, C].

        Args:
            values: each part's [B, size] (or [B] where size is 1). A part that may be missing can be left out.
            seen: bool [B, size] or [B, 1] of parts that may be missing: what of them is known. Default: all not NaN.

        Raises:
            ValueError: a part that must be there is not, one is unknown or of another size, or NaN where none may be.
        """
        seen = seen or {}
        unknown = (values.keys() | seen.keys()) - {part.name for part in self.parts}
        if unknown:
            raise ValueError(f"unknown parts {', '.join(sorted(unknown))}; the layout has {', '.join(self.names)}")
        if not values:
            raise ValueError(f"no part is given; give at least one of {', '.join(self.names)}")
        some = next(iter(values.values()))
        columns = []
        for part in self.parts:
            columns += _columns(part, values.get(part.name), seen.get(part.name), some)
        return torch.cat(columns, dim=-1)

    @property
    def names(self) -> tuple[str, ...]:
        """The parts' names, in order."""
        return tuple(part.name for part in self.parts)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Which columns of the condition these parts' values and masks are."""
        start, found = 0, {}
        for part in self.parts:
            found[part.name] = list(range(start, start := start + part.size + part.masks))
        return [column for name in names for column in found[name]]

    def shared(self, values: Mapping[str, Tensor], share: Tensor) -> dict[str, Tensor]:
        """The values with those that come from the ODE shrunk by `share` [B]."""
        of_prior = {part.name for part in self.parts if part.of_prior}
        return {
            name: value * share.reshape(-1, *([1] * (value.ndim - 1))) if name in of_prior else value
            for name, value in values.items()
        }

    def drop(self, values: Mapping[str, Tensor], key: Tensor, t: int | Tensor = 0) -> dict[str, Tensor]:
        """`seen` masks for `build`, hiding what is known of values [B, size] at random by each part's share."""
        seen = {}
        for part in self.parts:
            if part.maskable == "never" or part.name not in values:
                continue
            value = _column(part, values[part.name])
            count = part.size if part.maskable == "entries" else 1
            keep = keys.uniform(key, t, f"condition/{part.name}", (count,)) >= part.drop
            seen[part.name] = keep & torch.isfinite(value)
        return seen


def _column(part: Part, value: Tensor) -> Tensor:
    value = value.unsqueeze(-1) if value.ndim == 1 and part.size == 1 else value
    if value.ndim != 2 or value.shape[-1] != part.size:
        raise ValueError(f"part {part.name!r} has shape {tuple(value.shape)}; give [B, {part.size}]")
    return value.to(torch.float32)


def _columns(part: Part, value: Tensor | None, seen: Tensor | None, like: Tensor) -> list[Tensor]:
    """The part's values and masks."""
    if value is None:
        if part.maskable == "never":
            raise ValueError(f"part {part.name!r} is missing and must be given: [B, {part.size}]")
        return [like.new_zeros(like.shape[0], part.size + part.masks, dtype=torch.float32)]
    value = _column(part, value)
    known = torch.isfinite(value)
    if part.maskable == "never":
        if not bool(known.all()):
            raise ValueError(f"part {part.name!r} holds a value that is not finite; it is always needed")
        return [value]
    if seen is not None:
        known = known & seen
    if part.maskable == "whole":
        known = known.all(-1, keepdim=True)
    return [torch.where(known, value, torch.zeros_like(value)), known.to(torch.float32)]
