"""Loops of a graph: what they compute, eagerly and written down."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.loops import packed, repeated, unpacked


class Pair(NamedTuple):
    """A tree of two kinds of numbers."""

    fine: Tensor
    coarse: tuple[Tensor, Tensor]


class Rounds(nn.Module):
    """Three rounds, in each of which two more go round."""

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        def inner(j: Tensor, x: Tensor, held: Tensor) -> tuple[Tensor]:
            return (x * 0.5 + held + j,)

        def outer(i: Tensor, x: Tensor, held: Tensor) -> tuple[Tensor]:
            return (repeated(2, inner, (x - i,), (held,))[0],)

        return repeated(3, outer, (x,), (held,))[0]


def test_packs_are_unpacked_as_they_were() -> None:
    pair = Pair(torch.rand(4, dtype=torch.float64), (torch.rand(4), torch.rand(4)))
    numbers, pools = packed(pair), packed(pair, torch.float64)
    assert numbers.shape == (2, 4) and pools.shape == (1, 4)
    again = unpacked(pair, numbers, pools)
    assert torch.equal(again.fine, pair.fine)
    assert all(torch.equal(a, b) for a, b in zip(again.coarse, pair.coarse, strict=True))


def test_a_loop_within_a_loop_is_written_once_and_computes_the_same() -> None:
    x, held = torch.rand(5), torch.rand(5)
    with torch.no_grad():
        graph = torch.export.export(Rounds(), (x, held), strict=False).module()
        assert torch.equal(graph(x, held), Rounds()(x, held))
    calls = [node for node in graph.graph.nodes if "while_loop" in str(node.target) and node.op == "call_function"]
    assert len(calls) == 1, "the rounds are written out"
