"""Stateless randomness: one int64 key a patient, and every number a pure function of (key, t, purpose).

No global generator is ever called. So a row of a batch gets the same random numbers as the same patient alone, a branch
can keep its random stream (same key) or be given another (`fold`), and a state is all there is to save.

Shapes: B patients; `*shape` is that of one patient's numbers. `t` is a step, or int64 [B] of them. The `purpose` is a
name that keeps streams apart: two calls for one key, t and purpose are the same numbers.

The generator is splitmix64 (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195) in wrapping int64 arithmetic.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["bernoulli", "bits", "categorical", "drawn", "fold", "from_seed"]
__all__ += ["noise", "normal", "stream", "to_normal", "uniform", "uniforms"]


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL1 = _signed(0xBF58476D1CE4E5B9)
_MUL2 = _signed(0x94D049BB133111EB)
_TIME = _signed(0xD1B54A32D192ED03)


def _shift_right(x: Tensor, n: int) -> Tensor:
    """Logical right shift: torch's is arithmetic on int64, so the copied sign bits are masked off."""
    return (x >> n).bitwise_and_((1 << (64 - n)) - 1)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser. In place on its own first copy: on a wide batch half the time was allocation."""
    x = _shift_right(x, 30).bitwise_xor_(x).mul_(_MUL1)
    x = _shift_right(x, 27).bitwise_xor_(x).mul_(_MUL2)
    return _shift_right(x, 31).bitwise_xor_(x)


@lru_cache(maxsize=512)
def _purpose(purpose: str) -> int:
    """A stable 64-bit number for a purpose's name (crc32 twice: Python's own hash changes between processes)."""
    raw = purpose.encode()
    return _signed((zlib.crc32(raw) << 32) | zlib.crc32(raw[::-1] + b"/clinenv"))


@lru_cache(maxsize=64)
def _counters(count: int, device: torch.device) -> Tensor:
    """The constant table (1..count) * golden ratio, wrapped in Python: one product inside torch.compile overflows."""
    return torch.tensor(
        [_signed(i * 0x9E3779B97F4A7C15) for i in range(1, count + 1)], dtype=torch.int64, device=device
    )


def _salt(data: int | str | Tensor) -> int | Tensor:
    """What `fold` stirs into a key. A plain number stays one: a tensor of it costs as much as half the stirring."""
    if isinstance(data, Tensor):
        return data.to(torch.int64) * _TIME + _GOLDEN
    number = _purpose(data) if isinstance(data, str) else int(data)
    return _signed(number * _TIME + _GOLDEN)


@lru_cache(maxsize=128)
def _purposes(
    purposes: tuple[str | tuple[str, int], ...], device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Salts [P, 1] of several purposes; for each of their N numbers whose it is [N] (None: one each), and counters
    [N, 1]."""
    each = [(p, 1) if isinstance(p, str) else p for p in purposes]
    salts = torch.tensor([_salt(name) for name, _ in each], dtype=torch.int64, device=device)
    owner = torch.tensor([i for i, (_, count) in enumerate(each) for _ in range(count)], device=device)
    counters = torch.cat([_counters(count, device) for _, count in each])
    return salts[:, None], None if all(count == 1 for _, count in each) else owner, counters[:, None]


def from_seed(seed: int, count: int = 1, device: torch.device | str = "cpu") -> Tensor:
    """Keys [count] int64 of rows seed, seed + 1, ...: row i of `from_seed(s, n)` is `from_seed(s + i)`."""
    base = torch.tensor([_signed(int(seed) + i) for i in range(count)], dtype=torch.int64, device=device)
    return _mix(base + _GOLDEN)


def fold(key: Tensor, data: int | str | Tensor) -> Tensor:
    """A new key [B] from a key [B] and a number, a name, or a tensor of numbers [B] (int64)."""
    return _mix(_mix(key + _GOLDEN) ^ _salt(data))


def bits(key: Tensor, t: int | Tensor, purpose: str, shape: tuple[int, ...] = ()) -> Tensor:
    """63 random bits, int64 [B, *shape], for this key at time t and for this purpose."""
    base = fold(fold(key, purpose), t)
    count = math.prod(shape)
    words = _mix(base.unsqueeze(-1) + _counters(count, key.device))
    return words.bitwise_and_((1 << 63) - 1).reshape(*key.shape, *shape)


def uniform(key: Tensor, t: int | Tensor, purpose: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform on the open interval (0, 1), float32 [B, *shape]."""
    return _unit(bits(key, t, purpose, shape))


def stream(key: Tensor, purpose: str, count: int) -> tuple[Tensor, Tensor]:
    """What `drawn` makes `count` numbers of for any time: for code that may read nothing but its arguments."""
    return fold(key, purpose), _counters(count, key.device)


def drawn(stream: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
    """Uniform on (0, 1), float32 [B, N]: the very bits of `uniform` with the key and purpose of the stream."""
    base, counters = stream
    return _unit(_mix(fold(base, t).unsqueeze(-1) + counters).bitwise_and_((1 << 63) - 1))


def uniforms(key: Tensor, t: int | Tensor, purposes: tuple[str | tuple[str, int], ...]) -> Tensor:
    """Uniform on (0, 1) for several purposes in one pass, float32 [B, N]: the very bits of separate `uniform` calls.

    Args:
        key: int64 [B].
        purposes: a name stands for one number, (name, count) for the `count` of `uniform(key, t, name, (count,))`.
    """
    # Rows are numbers and columns patients, so each number's [B] is one run of memory; the transpose is a view.
    salts, owner, counters = _purposes(purposes, key.device)
    named = _mix(_mix(key + _GOLDEN) ^ salts)
    timed = _mix(_mix(named + _GOLDEN) ^ _salt(t))
    words = timed if owner is None else timed[owner]
    return _unit(_mix(words + counters).bitwise_and_((1 << 63) - 1)).T


def _unit(words: Tensor) -> Tensor:
    """(0, 1) from 63 random bits: the upper 23, in the middle of their cell."""
    return (words >> 40).to(torch.float32).add_(0.5).mul_(1.0 / (1 << 23))


def normal(key: Tensor, t: int | Tensor, purpose: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal by inversion, float32 [B, *shape] (23 bits: the tails end at about 5.3 sigma)."""
    return to_normal(uniform(key, t, purpose, shape))


def to_normal(u: Tensor) -> Tensor:
    """Standard normals [...] from uniforms on (0, 1), by inversion."""
    return (u * 2).sub_(1).erfinv_().mul_(math.sqrt(2.0))


def noise(key: Tensor, t: int | Tensor, purpose: str, shape: tuple[int, ...]) -> Tensor:
    """Bell-shaped noise of mean 0 and variance 1, [B, *shape]: four 16-bit uniforms added, cut at 3.46 sigma.

    A quarter of `normal`'s cost: for the samples of an ECG, where nobody looks at a tail.
    """
    count = math.prod(shape)
    words = fold(fold(key, purpose), t).unsqueeze(-1) + _counters(count, key.device)
    halves = _mix(words).view(torch.int16).reshape(*words.shape, 4)
    total = halves[..., 0].to(torch.float32) + halves[..., 1] + halves[..., 2] + halves[..., 3]
    return total.add_(2.0).mul_(math.sqrt(3.0) / (1 << 16)).reshape(*key.shape, *shape)


def bernoulli(key: Tensor, t: int | Tensor, purpose: str, probability: Tensor) -> Tensor:
    """bool [B]: true with the given probability [B]."""
    return uniform(key, t, purpose) < probability


def categorical(key: Tensor, t: int | Tensor, purpose: str, probabilities: Tensor) -> Tensor:
    """Index int64 [B] sampled by probabilities [C] or [B, C] (they need not sum to one)."""
    edges = torch.cumsum(probabilities, dim=-1)
    point = uniform(key, t, purpose).unsqueeze(-1) * edges[..., -1:]
    return (point >= edges).sum(-1).clamp_max(probabilities.shape[-1] - 1)
