"""Gymnasium's vector info: every value an array [N], beside it `_name`, the mask of the rows that have it.

Where the mask is False the value is 0, as in Gymnasium's own vector environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_arrays", "as_tensors", "masked", "object_rows"]

Info = dict[str, Any]  # nested dicts of tensors or arrays [N]


def masked(facts: dict[str, Tensor], mask: Tensor, whole: bool = False) -> Info:
    """The facts, zero where mask bool [N] does not hold, each with its mask beside it; `whole`: it holds everywhere."""
    info: Info = {}
    for name, value in facts.items():
        if not whole:
            value = value & mask if value.dtype == torch.bool else torch.where(mask, value, 0)
        info[name] = value
        info[f"_{name}"] = mask
    return info


def as_tensors(info: Info) -> Info:
    """Every tensor copied, so that nothing is shared with the world or a later call."""
    return {name: as_tensors(value) if isinstance(value, dict) else value.clone() for name, value in info.items()}


def as_arrays(info: Info) -> Info:
    """Numpy float64 and bool arrays, in one transfer for all of a kind together."""
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
    for dtype in {value.dtype for _, _, value in places}:
        group = [place for place in places if place[2].dtype == dtype]
        rows = torch.stack([value for _, _, value in group]).cpu().numpy()
        rows = rows if dtype == torch.bool else rows.astype(np.float64)
        for (out, name, _), row in zip(group, rows, strict=True):
            out[name] = row
    return result


def object_rows(observation: Any, mask: np.ndarray) -> np.ndarray:
    """Object array [N]: the single observation of each row where mask [N] holds, None elsewhere."""
    rows = np.full(len(mask), None, dtype=object)
    chosen = np.flatnonzero(mask)
    index = torch.as_tensor(chosen)
    if isinstance(observation, dict):
        parts = {name: value[index.to(value.device)].cpu().numpy() for name, value in observation.items()}
        for place, i in enumerate(chosen):
            rows[i] = {name: part[place].copy() for name, part in parts.items()}
    else:
        part = observation[index.to(observation.device)].cpu().numpy()
        for i, row in zip(chosen.tolist(), part, strict=True):
            rows[i] = row.copy()
    return rows
