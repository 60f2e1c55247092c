"""What a caller may hand to a world's verbs, checked in one place, so that every world refuses the same things.

A world calls `checked_factors` in `initial`, `checked_orders` in `transition` and `check_also` in `observe`. Each
compares its whole batch at once and waits for one result: on a GPU that wait is the price of a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from world_models import tree
from world_models.protocol import Factors, S, WorldModel
from world_models.quantity import Quantity

__all__ = ["admit", "check_also", "checked_factors", "checked_orders"]


def checked_factors(
    factors: tuple[Quantity, ...], given: Mapping[str, Any] | None, batch: int, device: torch.device | str
) -> dict[str, Tensor]:
    """What is fixed about `batch` patients, float32 [B, *shape] each, on the device.

    Args:
        factors: those the world lets a caller fix.
        given: name -> tensor [B, *shape]; the world samples the factors that are left out.

    Raises:
        ValueError: an unknown factor, no real numbers, another shape, or a value (NaN is one) outside the Quantity's
            bounds, or for a "bool" neither 0 nor 1. `admit` is for patients of whom not the same is known.
    """
    known = {quantity.name: quantity for quantity in factors}
    checked: dict[str, Tensor] = {}
    fine: dict[str, Tensor] = {}
    for name, value in (given or {}).items():
        if name not in known:
            raise ValueError(f"unknown factor {name!r}; this world lets you fix {', '.join(sorted(known)) or 'none'}")
        quantity, shape = known[name], (batch, *known[name].shape)
        value = _real(f"factor {name!r}", value, f"a tensor of shape {shape} in {quantity.unit}")
        if tuple(value.shape) != shape:
            raise ValueError(f"factor {name!r} has shape {tuple(value.shape)}; give one value a patient: {shape}")
        value = value.to(device, torch.float32)
        fine[name] = (value >= quantity.low) & (value <= quantity.high)  # False for NaN
        if quantity.unit == "bool":
            fine[name] = (value == 0.0) | (value == 1.0)
        checked[name] = value
    if fine and not bool(torch.stack([rows.all() for rows in fine.values()]).all()):
        name = next(name for name, rows in fine.items() if not bool(rows.all()))
        row, *_ = place = tuple((~fine[name]).nonzero()[0].tolist())
        quantity, value = known[name], checked[name][place].item()
        said = f"{value:g} is neither 0 nor 1"
        if quantity.unit != "bool":
            said = f"{value:g} {quantity.unit} is outside {quantity.low:g} to {quantity.high:g} {quantity.unit}"
        raise ValueError(f"factor {name}={said} (patient {row}); correct it, or leave it out to have it sampled")
    return checked


def checked_orders(orders: tuple[Quantity, ...], action: Any, batch: int, device: torch.device | str) -> Tensor:
    """The orders of `batch` patients, float32 [B, A] on the device: each between nothing and its largest amount.

    A verb under `torch.compile` checks no amounts, as a look at them would break its graph.

    Args:
        orders: the world's, one a column.
        action: [B, A] in the orders' units. 0 orders nothing, also where the least amount is more.

    Raises:
        ValueError: no real numbers, another shape, or an amount (NaN is one) outside its bounds.
    """
    shape = (batch, len(orders))
    action = _real("action", action, f"a tensor of shape {shape}, one column for each order")
    if tuple(action.shape) != shape:
        raise ValueError(
            f"action has shape {tuple(action.shape)}; give {shape}: {batch} patients, {len(orders)} columns"
        )
    action = action.to(device, torch.float32)
    if torch.compiler.is_compiling():
        return action
    low, high = _limits(orders, str(device))
    fine = (action >= low) & (action <= high)  # False for NaN
    if not bool(fine.all()):
        row, column = (~fine).nonzero()[0].tolist()
        order = orders[column]
        raise ValueError(
            f"order {order.name}={action[row, column].item():g} {order.unit} (patient {row}) is outside "
            f"{min(order.low, 0.0):g} to {order.high:g} {order.unit}; give an amount within them, 0 for none"
        )
    return action


def check_also(measures: tuple[Quantity, ...], also: Sequence[str]) -> None:
    """`also` names measures of the world.

    Raises:
        ValueError: a name that is no measure, or one text instead of several names.
    """
    if isinstance(also, str):
        raise ValueError(f"also={also!r} is one text; give names, such as also=({also!r},)")
    known = {quantity.name for quantity in measures} if also else set()
    unknown = [name for name in also if name not in known]
    if unknown:
        raise ValueError(f"no measure {', '.join(map(str, unknown))}; there are: {', '.join(sorted(known))}")


def admit(world: WorldModel[S], key: Tensor, factors: Factors) -> S:
    """The state of `world.initial` for patients of whom not the same is known: a factor that is NaN is sampled.

    Records say different things of different patients, but a factor is given to a world for all rows or for none. So
    the rows are admitted in groups of whom the same is known.

    Args:
        key: int64 [B].
        factors: name -> [B, *shape]; a row with a NaN anywhere in its value does not state this factor.

    Raises:
        ValueError: as `world.initial`.
    """
    unknown = {n: v.isnan().reshape(len(key), -1).any(-1) for n, v in factors.items() if v.is_floating_point()}
    unknown = {name: rows for name, rows in unknown.items() if bool(rows.any())}
    if not unknown:
        return world.initial(key, factors or None)
    pattern = torch.stack([rows.to(torch.int64) << bit for bit, rows in enumerate(unknown.values())]).sum(0)
    state: S | None = None
    for kind in pattern.unique().tolist():
        rows = (pattern == kind).nonzero().flatten()
        left_out = {name for bit, name in enumerate(unknown) if kind >> bit & 1}
        stated = {name: value[rows] for name, value in factors.items() if name not in left_out}
        part = world.initial(key[rows], stated or None)
        if state is None:  # a place for every row, each of which is filled by its own group
            state = tree.take(part, torch.zeros_like(pattern))
        state = tree.put(state, rows, part)
    assert state is not None  # a pattern has at least one kind of row
    return state


def _real(what: str, value: Any, wanted: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is {value!r}, a {type(value).__name__}; give {wanted}")
    if value.is_complex():
        raise ValueError(f"{what} holds complex numbers ({value.dtype}); give {wanted}")
    return value


@lru_cache(maxsize=64)
def _limits(orders: tuple[Quantity, ...], device: str) -> tuple[Tensor, Tensor]:
    """Least and largest amounts [A]; nothing can always be ordered."""
    low = torch.tensor([min(order.low, 0.0) for order in orders], device=device)
    return low, torch.tensor([float(order.high) for order in orders], device=device)
