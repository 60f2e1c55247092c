"""Gymnasium's vector info: every value an array [N], beside it `_name`, the mask of the rows that have it.

Where the mask is False the value is 0, as in Gymnasium's own vector environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world_models import tree

__all__ = ["as_arrays", "as_tensors", "masked", "object_rows", "row_of"]

Info = dict[str, Any]  # nested dicts of tensors or arrays [N]


def masked(facts: dict[str, Tensor], mask: Tensor, whole: bool = False) -> Info:
    """The facts, zero where mask bool [N] does not hold, each with its mask beside it; `whole`: it holds everywhere."""
    info: Info = {}
    for name, value in facts.items():
        if not whole:
            rows = mask.reshape(-1, *[1] * (value.ndim - 1))
            value = value & rows if value.dtype == torch.bool else torch.where(rows, value, 0)
        info[name] = value
        info[f"_{name}"] = mask
    return info


def as_tensors(info: Info) -> Info:
    """Every tensor copied, so that nothing is shared with the world or a later call."""
    return {name: as_tensors(value) if isinstance(value, dict) else value.clone() for name, value in info.items()}


def as_arrays(info: Info) -> Info:
    """Numpy arrays, float64, bool or int8, in one transfer for all of a kind and shape together."""
    places: list[tuple[Info, str, Tensor]] = []

    def collect(values: Info) -> Info:
        out: Info = {}
        for name, value in values.items():
            out[name] = None
            if isinstance(value, dict):
                out[name] = collect(value)
            else:
                places.append((out, name, value))
        return out

    result = collect(info)
    for kind in {(value.dtype, value.shape) for _, _, value in places}:
        group = [place for place in places if (place[2].dtype, place[2].shape) == kind]
        rows = torch.stack([value for _, _, value in group]).cpu().numpy()
        rows = rows if kind[0] in (torch.bool, torch.int8) else rows.astype(np.float64)
        for (out, name, _), row in zip(group, rows, strict=True):
            out[name] = row
    return result


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
