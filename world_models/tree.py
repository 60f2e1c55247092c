"""Batch surgery on states: trees of tensors, batch first.

A tree is a tensor, None, or a NamedTuple, tuple or dict of trees, nested at will. Every function here returns a tree of
the same structure and changes none in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")  # a tree: what goes in as some NamedTuple comes out as the same

__all__ = [
    "batch_size",
    "cat",
    "copy",
    "exchange",
    "leaves",
    "map_leaves",
    "put",
    "repeat",
    "rows_of",
    "runs",
    "take",
    "to",
    "where",
]


def map_leaves(function: Callable[..., Any], tree: T, *rest: T) -> T:
    """Apply `function` to the tensors that stand in the same place of each tree; None stays None.

    Args:
        function: takes one tensor of each tree, and gives what shall stand in their place: a tensor, as a rule.
        tree: the structure comes from this one.
        rest: trees of the same structure.

    Raises:
        TypeError: the tree holds something else.
    """
    return cast(T, _mapped(function, tree, rest))


def _mapped(function: Callable[..., Any], tree: Any, rest: tuple[Any, ...]) -> Any:
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *rest)
    if isinstance(tree, dict):
        return {k: _mapped(function, v, tuple(r[k] for r in rest)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [_mapped(function, v, tuple(r[i] for r in rest)) for i, v in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    raise TypeError(f"a state holds tensors, NamedTuples, tuples and dicts, not {type(tree).__name__}")


def leaves(tree: Any) -> list[Tensor]:
    """Every tensor of the tree, in order."""
    found: list[Tensor] = []
    _mapped(found.append, tree, ())
    return found


def batch_size(tree: Any) -> int:
    """Rows of the tree, told by its first tensor."""
    return leaves(tree)[0].shape[0]


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    """mask [B] as [B, 1, ...], to stand beside `like` [B, ...]."""
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


def _along(x: Tensor) -> bool:
    """Whether the memory of x [B, ...] runs along the patients. Worlds choose that where a patient's own dimensions are
    small; what is made of such a tensor here keeps it."""
    return x.ndim > 1 and x.stride(0) == 1 and not x.is_contiguous()


def _one_row(*parts: Tensor) -> bool:
    """Whether all rows of all parts are one row of memory (`expand`ed): a world keeps so what no patient has. What is
    made of such tensors here stays one."""
    x = parts[0]
    if x.shape[0] < 2 or x.stride(0) != 0:
        return False
    return all(
        y.data_ptr() == x.data_ptr() and y.stride()[1:] == x.stride()[1:] and (len(y) < 2 or y.stride(0) == 0)
        for y in parts[1:]
    )


def where(mask: Tensor, if_true: T, if_false: T) -> T:
    """Row by row: the rows of `if_true` where mask (bool [B]) holds, else the rows of `if_false`. A tensor that both
    hold is handed on."""
    return map_leaves(
        lambda a, b: a if a is b or _one_row(a, b) else torch.where(_spread(mask, a), a, b), if_true, if_false
    )


def rows_of(mask: Tensor) -> Tensor:
    """int64 [N] the rows where mask (bool [B]) holds, for work that only some rows need.

    While a graph is written (for ONNX, or to be compiled), all rows, so that no shape depends on values: whoever works
    on the rows must leave those as they are where `mask[rows]` does not hold.
    """
    if torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling():
        return torch.arange(mask.shape[0], device=mask.device)
    return mask.nonzero().squeeze(-1)


def take(tree: T, index: Tensor | slice) -> T:
    """The rows at `index` (int64 [N], bool [B] or a slice)."""
    if isinstance(index, slice) or index.dtype == torch.bool:
        return map_leaves(lambda x: x[index], tree)
    return map_leaves(lambda x: _rows(x, index), tree)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    if _one_row(x):
        return x[:1].expand(len(index), *x.shape[1:])
    return x.movedim(0, -1)[..., index].movedim(-1, 0) if _along(x) else x[index]


def put(tree: T, index: Tensor, rows: T) -> T:
    """A copy of the tree with the rows at `index` (int64 [N]) replaced by `rows` [N, ...]."""

    def replaced(x: Tensor, r: Tensor) -> Tensor:
        return x if _one_row(x, r) else x.clone().index_copy_(0, index, r)  # a clone keeps the memory's order

    return map_leaves(replaced, tree, rows)


def exchange(tree: T, index: Tensor, other: T) -> T:
    """A copy of the tree with the rows at `index` (int64 [N]) as they are in `other`: `put` of `take`, and a good deal
    quicker than `where` if few rows are exchanged."""

    def exchanged(x: Tensor, y: Tensor) -> Tensor:
        return x if _one_row(x, y) else x.clone().index_copy_(0, index, y.index_select(0, index))

    return map_leaves(exchanged, tree, other)


def repeat(tree: T, times: int) -> T:
    """Each row `times` times in a run: [B, ...] -> [B * times, ...]."""
    if not (found := leaves(tree)):
        return tree
    return take(tree, torch.arange(found[0].shape[0], device=found[0].device).repeat_interleave(times))


def cat(trees: Sequence[T]) -> T:
    """Batches one after the other: [B1, ...], [B2, ...] -> [B1 + B2, ...]."""
    return map_leaves(_joined, trees[0], *trees[1:])


def _joined(*parts: Tensor) -> Tensor:
    if _one_row(*parts):
        return parts[0][:1].expand(sum(map(len, parts)), *parts[0].shape[1:])
    if _along(parts[0]):
        return torch.cat([part.movedim(0, -1) for part in parts], -1).movedim(-1, 0)
    return torch.cat(parts)


def runs(rows: int, most: int) -> list[slice]:
    """Slices of at most `most` that cover so many rows."""
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


def copy(tree: T) -> T:
    """A tree of tensors of its own, with the same values."""
    return map_leaves(torch.clone, tree)


def to(tree: T, device: torch.device | str) -> T:
    """The tree on that device; tensors that are there already are passed on."""
    return map_leaves(lambda x: x.to(device), tree)
