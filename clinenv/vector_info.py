"""Gymnasium's vector info: every value an array [N], beside it `_name`, the mask of the rows that have it.

Where the mask is False the value is 0, as in Gymnasium's own vector environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world_models import tree

__all__ = ["Stacked", "as_info", "object_rows", "row_of", "stacked"]

Info = dict[str, Any]  # nested dicts of tensors or arrays [N]
Stacked = dict[tuple[str, ...], Tensor]  # facts of a kind and shape as one tensor [N, names, ...]: what is done to all
# of them is done once


def stacked(facts: dict[str, Tensor]) -> Stacked:
    """The facts, name -> [N, ...], in one tensor for all of a kind and shape."""
    kinds: dict[Any, list[str]] = {}
    for name in sorted(facts):
        kinds.setdefault((facts[name].dtype, facts[name].shape), []).append(name)
    return {tuple(names): torch.stack([facts[name] for name in names], 1) for names in kinds.values()}


def as_info(told: Stacked, names: Iterable[str], tensors: bool, mask: Tensor | None = None) -> Info:
    """Info of the rows where mask, bool [N], holds, in memory of its own.

    Args:
        told: facts of all rows; 0 is said where the mask does not hold.
        names: of them, in the order in which they are said.
        tensors: as they are, not as numpy arrays (float64, bool or int8).
        mask: None: it holds everywhere.
    """
    values: dict[str, Any] = {}
    for group, part in told.items():
        rows = part.movedim(1, 0)  # [names, N, ...]
        if mask is not None:
            spread = mask.reshape(-1, *[1] * (rows.ndim - 2))
            rows = rows & spread if rows.dtype == torch.bool else torch.where(spread, rows, 0)
        rows = rows.clone(memory_format=torch.contiguous_format)
        values.update(zip(group, rows if tensors else _array(rows), strict=True))
    first = next(iter(told.values()))
    there = torch.ones(len(first), dtype=torch.bool, device=first.device) if mask is None else mask
    masks = there.expand(len(values), len(first)).clone()
    info: Info = {}
    for name, those in zip(names, masks if tensors else masks.cpu().numpy(), strict=True):
        info[name], info[f"_{name}"] = values[name], those
    return info


def _array(rows: Tensor) -> np.ndarray:
    array = rows.cpu().numpy()
    return array if rows.dtype in (torch.bool, torch.int8) else array.astype(np.float64)


def object_rows(observation: Any, mask: np.ndarray, release: Callable[[Any], Any]) -> np.ndarray:
    """Object array [N]: the single observation of each row where mask [N] holds, None elsewhere.

    Args:
        observation: tensors [N, ...], as a view shows them.
        release: makes of such tensors what is handed out.
    """
    rows = np.full(len(mask), None, dtype=object)
    chosen = np.flatnonzero(mask)
    part = release(tree.take(observation, torch.as_tensor(chosen, device=tree.leaves(observation)[0].device)))
    for place, i in enumerate(chosen.tolist()):
        rows[i] = row_of(part, place)
    return rows


def row_of(batch: Any, row: int) -> Any:
    """One row of what was released, in memory of its own."""
    if isinstance(batch, dict):
        return {name: row_of(value, row) for name, value in batch.items()}
    return batch[row].copy() if isinstance(batch, np.ndarray) else batch[row]
