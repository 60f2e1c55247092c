"""Stays as tokens in a window of fixed width, with what the model keeps of them: rows of one shape, so that patients
can be branched, replaced and saved whatever their courses.

In a window tokens stand from the left, and so do the keys and values of those that were fed. `opened` makes of it the
state that `CausalLM` steps, whose new tokens stand behind the longest row's; `closed` moves them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.cache import EMPTY, LMState
from world_models.ehr_world.causal_lm.codec import NarrativeCodec, encode
from world_models.ehr_world.causal_lm.text import Narrative

__all__ = ["CONTEXT", "Shape", "Stream", "closed", "opened", "shortened", "tokens_of", "written"]

CONTEXT = -1  # in `Stream.step`: a token of what was known at admission

Shape = tuple[tuple[int, int, torch.dtype], ...]  # of each layer's keys, then its values: heads, width, type


class Stream(NamedTuple):
    """B stays."""

    tokens: Tensor  # int64 [B, W], then EMPTY
    step: Tensor  # int64 [B, W] the step that a token belongs to; CONTEXT before the first, and where there is none
    fed: Tensor  # int64 [B] tokens whose keys and values are in the cache
    cache: tuple[tuple[Tensor, Tensor], ...]  # of each layer: [B, heads, W, width], 0 beyond `fed`; (): none is kept

    @property
    def length(self) -> Tensor:
        """int64 [B]: tokens."""
        return (self.tokens != EMPTY).sum(1)


def tokens_of(codec: NarrativeCodec, narrative: Narrative) -> tuple[list[int], list[int]]:
    """The tokens of a stay, and the step that each belongs to. The first step counts as following the one before it.

    Raises:
        NarrativeError: an inquiry without an outcome, or one that the codec does not know.
    """
    ids = list(codec.context(narrative))
    steps = [CONTEXT] * len(ids)
    bare = narrative._replace(facts=(), diagnoses=())
    extra = len(codec.context(bare))
    for step in narrative.steps:
        piece = encode(codec, bare._replace(steps=(step,)), before=step.number - 1).ids[extra:]
        ids += piece
        steps += [step.number] * len(piece)
    return ids, steps


def written(
    pieces: Sequence[tuple[Sequence[int], Sequence[int]]], window: int, shape: Shape, device: torch.device
) -> Stream:
    """Stays of which nothing was fed yet, from what `tokens_of` gave; `shape` () keeps no cache.

    Raises:
        ValueError: more tokens than the window holds.
    """
    batch, longest = len(pieces), max((len(ids) for ids, _ in pieces), default=0)
    if longest > window:
        raise ValueError(f"a stay has {longest} tokens and the window holds {window}; tell its last steps")
    tokens = torch.tensor([[*ids, *[EMPTY] * (window - len(ids))] for ids, _ in pieces], dtype=torch.int64)
    step = torch.tensor([[*of, *[CONTEXT] * (window - len(of))] for _, of in pieces], dtype=torch.int64)
    size = (batch, window)
    empty = [torch.zeros(batch, heads, window, width, dtype=kind, device=device) for heads, width, kind in shape]
    return Stream(
        tokens.reshape(size).to(device),
        step.reshape(size).to(device),
        torch.zeros(batch, dtype=torch.int64, device=device),
        tuple(zip(empty[::2], empty[1::2], strict=True)),
    )


def shortened(stream: Stream, room: Tensor) -> Stream:
    """Rows in which `room` int64 [B] more tokens have no place begin anew: the context and as many of the last whole
    steps as half a window holds, or less, none of it fed.

    Raises:
        ValueError: the context alone leaves no room.
    """
    window, count = stream.tokens.shape[1], stream.length
    full = count + room > window
    if not bool(full.any()):
        return stream
    place = torch.arange(window, device=count.device).expand_as(stream.tokens)
    there = place < count.unsqueeze(1)
    context = there & (stream.step == CONTEXT)
    most = torch.minimum(torch.full_like(room, window // 2), window - room) - context.sum(1)
    if bool((full & (most < 0)).any()):
        raise ValueError(
            f"a step may take {int(room[full].max())} tokens, which with the context are more than the window's "
            f"{window}; make the world with a wider one"
        )
    begins = torch.ones_like(there)
    begins[:, 1:] = stream.step[:, 1:] != stream.step[:, :-1]
    first = torch.where(begins, place, 0).cummax(1).values  # where the token's step begins
    kept = context | (there & (count.unsqueeze(1) - first <= most.unsqueeze(1)))
    order = torch.sort((~kept).to(torch.int8), dim=1, stable=True).indices
    tokens = torch.where(kept, stream.tokens, EMPTY).gather(1, order)
    step = torch.where(kept, stream.step, CONTEXT).gather(1, order)
    rows = full.unsqueeze(1)
    return stream._replace(
        tokens=torch.where(rows, tokens, stream.tokens),
        step=torch.where(rows, step, stream.step),
        fed=torch.where(full, 0, stream.fed),
    )


def opened(stream: Stream, key: Tensor, t: Tensor) -> LMState:
    """The stays as `CausalLM` steps them, by keys [B], the last step told being t [B]."""
    longest = int(stream.fed.max())
    place = torch.arange(stream.tokens.shape[1], device=t.device)
    fed = torch.where(place < stream.fed.unsqueeze(1), stream.tokens, EMPTY)[:, :longest]
    waiting = stream.length - stream.fed
    at = stream.fed.unsqueeze(1) + torch.arange(int(waiting.max()), device=t.device)
    pending = stream.tokens.gather(1, at.clamp_max(len(place) - 1))
    pending = torch.where(at < stream.length.unsqueeze(1), pending, EMPTY)
    cache = tuple((k[:, :, :longest], v[:, :, :longest]) for k, v in stream.cache) if longest else ()
    return LMState(key, t, stream.fed, fed, pending, cache)


def closed(state: LMState, before: Stream, step: Tensor) -> Stream:
    """The stays after the model went on: what is new since `before` belongs to `step` int64 [B]."""
    window, old = before.tokens.shape[1], before.length
    told = torch.cat([state.fed, state.pending], 1)
    order = torch.sort((told == EMPTY).to(torch.int8), dim=1, stable=True).indices
    tokens = _widened(told.gather(1, order), window, EMPTY)
    place = torch.arange(window, device=step.device)
    new = (place >= old.unsqueeze(1)) & (tokens != EMPTY)
    steps = torch.where(new, step.unsqueeze(1), before.step)
    if not before.cache:
        return Stream(tokens, steps, torch.zeros_like(before.fed), ())
    longest = int(state.position.max())
    order = torch.sort((state.fed == EMPTY).to(torch.int8), dim=1, stable=True).indices[:, :longest]
    there = (torch.arange(longest, device=step.device) < state.position.unsqueeze(1))[:, None, :, None]

    def moved(x: Tensor) -> Tensor:
        out = x.new_zeros(*x.shape[:2], window, x.shape[3])
        left = x.gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        out[:, :, :longest] = torch.where(there, left, 0.0)
        return out

    return Stream(tokens, steps, state.position, tuple((moved(k), moved(v)) for k, v in state.cache))


def _widened(x: Tensor, width: int, fill: int) -> Tensor:
    """x [B, N] on `width` columns; what is cut off is filling."""
    if x.shape[1] >= width:
        return x[:, :width]
    return torch.cat([x, x.new_full((len(x), width - x.shape[1]), fill)], 1)
