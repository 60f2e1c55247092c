"""Batch surgery on states: NamedTuples (nested at will) and dicts of tensors, batch first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

__all__ = ["batch_size", "cat", "copy", "leaves", "map_leaves", "put", "repeat", "take", "to", "where"]


def map_leaves(function: Callable[..., Tensor], tree: T, *rest: T) -> T:
    """Apply `function` to the tensors that stand in the same place of each tree; None stays None."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *rest)
    if isinstance(tree, dict):
        return {k: map_leaves(function, v, *(r[k] for r in rest)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [map_leaves(function, v, *(r[i] for r in rest)) for i, v in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    raise TypeError(f"a state holds tensors, NamedTuples, tuples and dicts, not {type(tree).__name__}")


def leaves(tree: Any) -> list[Tensor]:
    """Every tensor of the tree, in order."""
    found: list[Tensor] = []
    map_leaves(lambda x: found.append(x) or x, tree)
    return found


def batch_size(tree: Any) -> int:
    return leaves(tree)[0].shape[0]


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


def where(mask: Tensor, if_true: T, if_false: T) -> T:
    """Row by row: the rows of `if_true` where mask [B] holds, else the rows of `if_false`."""
    return map_leaves(lambda a, b: torch.where(_spread(mask, a), a, b), if_true, if_false)


def take(tree: T, index: Tensor | slice) -> T:
    """The rows at `index` (int64 [N] or a slice)."""
    return map_leaves(lambda x: x[index], tree)


def put(tree: T, index: Tensor, rows: T) -> T:
    """A copy of the tree with the rows at `index` [N] replaced by `rows` [N, ...]."""
    return map_leaves(lambda x, r: x.index_copy(0, index, r), tree, rows)


def repeat(tree: T, times: int) -> T:
    """Each row `times` times in a run: [B, ...] -> [B * times, ...]."""
    return map_leaves(lambda x: x.repeat_interleave(times, dim=0), tree)


def cat(trees: Sequence[T]) -> T:
    """Batches one after the other."""
    return map_leaves(lambda *xs: torch.cat(xs, dim=0), trees[0], *trees[1:])


def copy(tree: T) -> T:
    return map_leaves(torch.clone, tree)


def to(tree: T, device: torch.device | str) -> T:
    return map_leaves(lambda x: x.to(device), tree)
