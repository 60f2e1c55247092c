"""The state of stays that a language model reads, and its cache of keys and values as plain tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["EMPTY", "LMState", "cache_of", "joined", "squeeze"]

EMPTY = -1  # filling of `fed` and `pending`


class LMState(NamedTuple):
    """B stays as far as they were told."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B] index of the last step, -1 before the first
    position: Tensor  # int64 [B] tokens fed so far
    fed: Tensor  # int64 [B, T] the tokens of the cache's places, EMPTY where there is filling
    pending: Tensor  # int64 [B, P] tokens that are told but not fed yet, then EMPTY
    cache: tuple[tuple[Tensor, Tensor], ...]  # of each layer: keys and values [B, heads, T, width]

    @property
    def mask(self) -> Tensor:
        """bool [B, T]: places of the cache that hold a token."""
        return self.fed != EMPTY


def cache_of(layers: tuple[tuple[Tensor, Tensor], ...], room: int = 0) -> Any:
    """transformers' cache that starts with these tensors and leaves them as they are.

    With `room` it takes one copy of them into tensors with place for so many tokens more, and writes there; without,
    every token costs a copy of all before it.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Roomy(DynamicLayer):
        both: list[Tensor]  # keys and values, with room behind them

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            begin = self.get_seq_length()
            end = begin + key_states.shape[-2]
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            if begin == 0 or end > self.both[0].shape[-2]:
                old = (self.keys, self.values) if begin else (None, None)
                self.both = [_grown(x, n, end + room) for x, n in zip(old, (key_states, value_states), strict=True)]
            for buffer, new in zip(self.both, (key_states, value_states), strict=True):
                buffer[..., begin:end, :] = new
            self.keys, self.values = (buffer[..., :end, :] for buffer in self.both)
            return self.keys, self.values

    cache = DynamicCache()
    if room:
        cache.layer_class_to_replicate = Roomy
    for layer_keys, layer_values in layers:
        layer: DynamicLayer
        if room:
            layer = roomy = Roomy()
            layer.lazy_initialization(layer_keys, layer_values)
            roomy.both = [_grown(x, x, layer_keys.shape[-2] + room) for x in (layer_keys, layer_values)]
        else:
            layer = DynamicLayer()
            layer.lazy_initialization(layer_keys, layer_values)
        layer.keys, layer.values = layer_keys, layer_values
        cache.layers.append(layer)
    return cache


def _grown(old: Tensor | None, like: Tensor, place: int) -> Tensor:
    """A new tensor [B, heads, place, width] that begins with `old`."""
    buffer = like.new_empty(*like.shape[:-2], place, like.shape[-1])
    if old is not None:
        buffer[..., : old.shape[-2], :] = old
    return buffer


def joined(pending: Tensor, more: Tensor) -> Tensor:
    """`more` behind what is pending, row by row, the filling at the end."""
    both = torch.cat([pending, more], 1)
    real = both != EMPTY
    order = torch.sort((~real).to(torch.int8), dim=1, stable=True).indices
    width = int(real.sum(1).max()) if both.numel() else 0
    return both.gather(1, order)[:, :width]


def squeeze(state: LMState) -> LMState:
    """The same stays with no more filling in the cache than their lengths ask for (it comes first in a row)."""
    mask = state.mask
    order = torch.sort(mask.to(torch.int8), dim=1, stable=True).indices
    order = order[:, order.shape[1] - int(mask.sum(1).max()) :]

    def gathered(x: Tensor) -> Tensor:
        return x.gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))

    cache = tuple((gathered(k), gathered(v)) for k, v in state.cache)
    return state._replace(fed=state.fed.gather(1, order), cache=cache)
