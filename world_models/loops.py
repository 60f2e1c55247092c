"""Loops that stay loops where a graph is written for a compiler.

Written out, a step of the ward is 36,000 operations: to compile them takes an hour. `repeated` writes the loop itself,
its body once. A compiled loop pays for each tensor that goes round, so trees of many [B] go packed: one tensor a type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop_op

from world_models import tree

T = TypeVar("T")

__all__ = ["packed", "repeated", "unpacked"]


def repeated(
    times: int | Tensor, body: Callable[..., tuple[Tensor, ...]], carried: tuple[Tensor, ...], held: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """`carried = body(i, *carried, *held)` for i = 0 .. times - 1, an int64 [].

    Args:
        times: how often, at least 1; or an int64 [] that says so.
        body: reads nothing but its arguments, and gives tensors of the shapes of `carried`, none of them an argument.
        carried: what goes round.
        held: what every round reads.
    """

    if not torch.compiler.is_compiling():
        for i in range(int(times)):
            carried = body(torch.tensor(i, device=carried[0].device), *carried, *held)
        return carried

    end = times if isinstance(times, Tensor) else torch.full((), times, device=carried[0].device)

    def going(i: Tensor, *rest: Tensor) -> Tensor:
        return i < rest[-1]

    def around(i: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return (i + 1, *body(i, *rest[:-1]))

    start = torch.zeros((), dtype=torch.int64, device=carried[0].device)
    carried, held = (tuple(_own(x, end) for x in of) for of in (carried, held))
    # what torch says of its own arguments is narrower than what it takes
    return while_loop_op(going, around, (start, *carried), (*held, end.clone()))[1:]  # type: ignore[arg-type]


def _own(x: Tensor, end: Tensor) -> Tensor:
    """A copy that the compiler cannot leave out. What goes into a loop may share no memory, and states may be views of
    one row; and an argument of the whole graph that went in as it is would be freed once a round (torch 2.13)."""
    return torch.where(end > 0, x.clone(memory_format=torch.contiguous_format), x)


def packed(of: object, kind: torch.dtype = torch.float32) -> Tensor:
    """The leaves [B] of a tree that are numbers of this kind, [V, B]."""
    return torch.stack([x for x in tree.leaves(of) if x.dtype == kind])


def unpacked(like: T, *packs: Tensor) -> T:
    """A tree built like `like`, of what `packed` made of one: a pack for each kind of number in it."""
    rows = {pack.dtype: iter(pack.unbind(0)) for pack in packs}
    return tree.map_leaves(lambda x: next(rows[x.dtype]), like)
