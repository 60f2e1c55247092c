"""What a caller hands in: numbers, flags, seeds, options and lengths, taken as they are meant or refused by their
name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world_models import keys
from world_models.inputs import checked_factors
from world_models.quantity import Quantity

__all__ = [
    "as_numbers",
    "check_flag",
    "check_limit",
    "check_options",
    "checked_seed",
    "factor_rows",
    "horizon_in_steps",
    "row_keys",
]

MOST_STEPS = 1 << 31  # of an episode: what can still be counted


def as_numbers(values: Any, device: torch.device | str) -> Tensor | None:
    """The values as a tensor on the device; None where they are no numbers, or some of them are masked or missing."""
    if isinstance(values, Tensor):
        plain = values.layout == torch.strided and values.device.type != "meta"
        given = values.detach().to(device) if plain else None
    else:
        try:
            masked = [np.ma.is_masked(part) for part in (values, *(values if isinstance(values, list | tuple) else ()))]
            given = None if any(masked) else torch.as_tensor(np.asarray(values), device=device)
        except (TypeError, ValueError, RuntimeError):  # None, text, objects, lists of unlike lengths, tensors in lists
            given = None
    return given


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless the argument is True or False: what stands for neither is a slip."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r} is neither True nor False; give one of them")


def check_limit(steps: Any, name: str = "max_episode_steps") -> None:
    """Raises ValueError unless it is a time limit as `gymnasium.make` takes it."""
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if steps is not None and not (whole and (steps == -1 or steps >= 1)):
        raise ValueError(f"{name}={steps!r} is no time limit; give a whole number of at least 1, or -1 for none")


def check_options(options: Any) -> Mapping[str, Any]:
    """The options of a reset.

    Raises:
        ValueError: neither None nor a mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options={options!r} is a {type(options).__name__}; give a dict such as {{'age_years': 70}}")
    return options or {}


def _split_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
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


def factor_rows(
    factors: tuple[Quantity, ...], options: Mapping[str, Any] | None, count: int, device: torch.device
) -> dict[str, Tensor]:
    """What a reset's options fix of `count` new patients: name -> float32 [count, *shape], one value for all or one a
    row.

    Raises:
        ValueError: no mapping, an unknown factor, a value that is no number or is out of bounds, or a wrong length.
    """
    known = {quantity.name: quantity for quantity in factors}
    rows = {}
    for name, value in _split_options(options).items():
        quantity = known.get(name)
        if quantity is not None:
            numbers = as_numbers(value, device)
            if numbers is None:
                raise ValueError(f"factor {name}={value!r} is not a number; give it in {quantity.unit}")
            value = numbers.expand(count, *quantity.shape) if numbers.shape == quantity.shape else numbers
        rows[name] = value
    return {name: value.contiguous() for name, value in checked_factors(factors, rows, count, device).items()}


def horizon_in_steps(hours: float, hours_per_step: float) -> int:
    """Steps of an episode of `hours`.

    Raises:
        ValueError: not a positive number of hours.
    """
    number = isinstance(hours, int | float | np.integer | np.floating) and not isinstance(hours, bool)
    if not (number and 0 < hours < MOST_STEPS * hours_per_step):  # False for NaN
        most = f"at most {MOST_STEPS:,} steps of {hours_per_step:g} h"
        raise ValueError(f"hours={hours!r} is no length of an episode; give a number over 0 ({most}), such as 48")
    return max(1, math.ceil(hours / hours_per_step - 1e-9))


def row_keys(seed: int | Sequence[int | None], count: int, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Row keys [count] of a seed or a list of seeds, and which of them were given (a None in the list was not).

    Raises:
        ValueError: as many seeds as rows are needed, each a whole number from 0 to what 64 bits hold.
    """
    if isinstance(seed, str) or not isinstance(seed, Sequence | np.ndarray) or getattr(seed, "ndim", 1) == 0:
        return keys.from_seed(checked_seed(seed, count), count, device), np.ones(count, bool)
    seeds = [None if s is None else checked_seed(s, 1) for s in seed]
    if len(seeds) != count:
        raise ValueError(f"a list of seeds needs one for each of the {count} environments, got {len(seeds)}")
    each = [keys.from_seed(s or 0, 1, device) for s in seeds]
    return torch.cat(each), np.array([s is not None for s in seeds])


def checked_seed(seed: Any, rows: int, what: str = "seed") -> int:
    """The seed of `rows` patients, seed, seed + 1, ...: there are 2^64 of them, and none is met under two numbers.

    Raises:
        ValueError: no whole number, or one that leaves no number for each row.
    """
    highest = 2**64 - rows
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or not 0 <= seed <= highest:
        otherwise = "the next patient" if what == "seed" else "the same"
        raise ValueError(
            f"{what} {seed!r} is not a whole number from 0 to {highest}; give one, or None for {otherwise}"
        )
    return int(seed)
