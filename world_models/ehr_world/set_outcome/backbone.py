"""What walks through time: a GRU, or a causal transformer with a cache of keys and values.

Both take the digest x_t of every position and answer h_t, all positions at once (`whole`) or one by one (`step`) from
what they carry; both begin with a state before the admission, made of the static context. What is carried has the batch
first and is a tensor or a NamedTuple of them, so that `tree` can copy, branch and pick rows of it.

The transformer is pre-norm (Xiong et al. 2020, arXiv 2002.04745), its positions rotary (Su et al. 2021, arXiv
2104.09864), its heads share one key and one value (Shazeer 2019, arXiv 1911.02150): a cache is then small enough to be
copied from state to state. A position sees itself and WINDOW - 1 before it, so the cache is a ring and a stay may last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

__all__ = ["WINDOW", "Backbone", "Cache", "Recurrent", "Transformer"]

WINDOW = 128  # positions, that before the admission among them
HEADS, WIDTH = 4, 32  # of the attention; one key and one value of WIDTH serve all heads
ROTARY_BASE = 1000.0  # below the usual 10,000 (Su et al.), as stays are short


class Backbone(Protocol):
    """What both forms do. `carried` is a Tensor of the GRU's and a `Cache` of the transformer's."""

    def begin(self, first: Tensor) -> Any:
        """Carried before the admission, from the static context [B, ...]."""

    def top(self, carried: Any) -> Tensor:
        """h [B, H] after the last position."""

    def whole(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """h before and after every position, [B, T, H] each, of digests x [B, T, H]."""

    def recall(self, x: Tensor, first: Tensor, last: Tensor) -> Any:
        """Carried after position `last` int64 [B] of each row."""

    def step(self, x: Tensor, carried: Any, place: Tensor) -> tuple[Tensor, Any]:
        """(h [B, H], carried) after one more position of digest x [B, H]; `place` int64 [B] is its number."""


class Recurrent(nn.GRU):
    """A GRU as a backbone. Carries [B, layers, H]: each layer's state."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__(hidden, hidden, layers, batch_first=True)

    def begin(self, first: Tensor) -> Tensor:
        """Carried before the admission, from [B, layers * H]."""
        return first.unflatten(-1, (self.num_layers, self.hidden_size)).contiguous()

    @staticmethod
    def top(carried: Tensor) -> Tensor:
        """h [B, H] after the last position."""
        return carried[:, -1]

    def whole(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """h before and after every position, [B, T, H] each, of digests x [B, T, H]."""
        begun = self.begin(first).movedim(1, 0).contiguous()
        hidden, _ = self(x, begun)
        return torch.cat([begun[-1].unsqueeze(1), hidden[:, :-1]], 1), hidden

    def recall(self, x: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Carried after position `last` int64 [B] of each row. A layer at a time: a layer's states at each row's own
        end are then among its outputs."""
        begun = self.begin(first).movedim(1, 0).contiguous()
        row, finals = torch.arange(len(x), device=x.device), []
        for layer in range(self.num_layers):
            weights = [getattr(self, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            x, _ = torch._VF.gru(x, begun[layer].unsqueeze(0).contiguous(), weights, True, 1, 0.0, False, False, True)
            finals.append(x[row, last])
        return torch.stack(finals, 1)

    def step(self, x: Tensor, carried: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """(h [B, H], carried) after one more position of digest x [B, H]; a GRU counts no places."""
        top, hidden = self(x.unsqueeze(1), carried.movedim(1, 0).contiguous())
        return top[:, 0], hidden.movedim(0, 1).contiguous()


class Cache(NamedTuple):
    """What a transformer carries."""

    top: Tensor  # [B, H] h after the last position
    kept: Tensor  # [B, layers, WINDOW, 2 * WIDTH] key and value of position n at n modulo WINDOW; the rest is 0


class Transformer(nn.Module):
    """Causal, over x_0, x_1, ... and what stands before them, the static context, as a position of its own."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    @property
    def _blocks(self) -> Iterable[Block]:
        return cast("Iterable[Block]", self.layers)

    def begin(self, first: Tensor) -> Cache:
        """Carried before the admission, from [B, H]."""
        kept = first.new_zeros(len(first), len(self.layers), WINDOW, 2 * WIDTH)
        place = torch.zeros(len(first), dtype=torch.int64, device=first.device)
        return self._next(first, kept, place)[1]

    @staticmethod
    def top(carried: Cache) -> Tensor:
        """h [B, H] after the last position."""
        return carried.top

    def whole(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """h before and after every position, [B, T, H] each, of digests x [B, T, H]."""
        hidden, _ = self._all(x, first)
        return hidden[:, :-1], hidden[:, 1:]

    def recall(self, x: Tensor, first: Tensor, last: Tensor) -> Cache:
        """Carried after position `last` int64 [B] of each row: the cache filled in one pass."""
        hidden, kept = self._all(x, first)
        end = (last + 1).unsqueeze(-1)  # places count what stands before the admission
        ring = torch.arange(WINDOW, device=x.device)
        place = end - (end - ring).remainder(WINDOW)  # the newest that each row of the ring holds
        at = place.clamp_min(0).view(len(x), 1, WINDOW, 1).expand(-1, kept.shape[1], -1, kept.shape[3])
        held = torch.gather(kept, 2, at) * (place >= 0).view(len(x), 1, WINDOW, 1)
        return Cache(hidden[torch.arange(len(x), device=x.device), last + 1], held)

    def step(self, x: Tensor, carried: Cache, place: Tensor) -> tuple[Tensor, Cache]:
        """(h [B, H], carried) after one more position of digest x [B, H]; `place` int64 [B] is its number."""
        return self._next(x, carried.kept, place + 1)

    def _all(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """h [B, 1 + T, H], and each layer's keys and values [B, layers, 1 + T, 2 * WIDTH]."""
        x = torch.cat([first.unsqueeze(1), x], 1)
        place = torch.arange(x.shape[1], device=x.device)
        back = place.unsqueeze(1) - place
        hides = (back < 0) | (back >= WINDOW)
        kept = []
        for layer in self._blocks:
            query, pair = layer.project(x, place)
            kept.append(pair)
            x = layer.finish(x, attend(query, pair, hides))
        return self.norm(x), torch.stack(kept, 1)

    def _next(self, x: Tensor, kept: Tensor, place: Tensor) -> tuple[Tensor, Cache]:
        used = WINDOW  # where a graph is written for a compiler, no shape may depend on places
        if not torch.compiler.is_compiling():
            used = min(int(place.max()) + 1, WINDOW) if len(place) else 1
        hides = torch.arange(used, device=x.device) > place.view(-1, 1, 1)  # later rows of a young ring are empty
        slot = place.remainder(WINDOW).view(-1, 1, 1).expand(-1, 1, 2 * WIDTH)
        x, rings = x.unsqueeze(1), []
        for i, layer in enumerate(self._blocks):
            query, pair = layer.project(x, place.unsqueeze(-1))
            rings.append(kept[:, i].scatter(1, slot, pair))
            x = layer.finish(x, attend(query, rings[-1][:, :used], hides))
        top = self.norm(x)[:, 0]
        return top, Cache(top, torch.stack(rings, 1))


class Block(nn.Module):
    """One layer of the transformer: attention and a perceptron, each behind a norm of its own."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.project_in = nn.Linear(hidden, (HEADS + 2) * WIDTH, bias=False)
        self.project_out = nn.Linear(HEADS * WIDTH, hidden)
        self.mlp = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )

    def project(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, T, HEADS, WIDTH], and key beside value [B, T, 2 * WIDTH]; `place` [T] or [B, T]."""
        query, key, value = self.project_in(self.norm(x)).split([HEADS * WIDTH, WIDTH, WIDTH], -1)
        query = turn(query.unflatten(-1, (HEADS, WIDTH)), place.unsqueeze(-1))
        return query, torch.cat([turn(key, place), value], -1)

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """The layer's output [B, T, H], from its input and what attention saw [B, T, HEADS * WIDTH]."""
        x = x + self.project_out(seen)
        return x + self.mlp(x)


def turn(x: Tensor, place: Tensor) -> Tensor:
    """Rotary positions: pair i of x [..., WIDTH] turned by place [...] / ROTARY_BASE^(2i / WIDTH), so that a product of
    two turned vectors depends on the distance of their places."""
    half = x.shape[-1] // 2
    rate = torch.exp(torch.arange(half, dtype=torch.float32, device=x.device) * (-math.log(ROTARY_BASE) / half))
    angle = place.unsqueeze(-1).to(torch.float32) * rate
    cosine, sine = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


def attend(query: Tensor, pair: Tensor, hides: Tensor) -> Tensor:
    """[B, T, HEADS * WIDTH] of queries [B, T, HEADS, WIDTH] on S keys and values; `hides` bool [T, S] or [B, 1, S]."""
    batch, count = query.shape[:2]
    key, value = pair.split(WIDTH, -1)
    score = query.flatten(1, 2) @ key.transpose(1, 2) * WIDTH**-0.5  # one key for all heads: one product a row
    score = score.unflatten(1, (count, HEADS)).masked_fill(hides.unsqueeze(-2), float("-inf"))
    mixed = torch.softmax(score, -1).flatten(1, 2) @ value
    return mixed.reshape(batch, count, HEADS * WIDTH)
