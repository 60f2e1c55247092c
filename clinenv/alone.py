"""One patient alone, compiled: from an action to what `ClinicalEnv.step` gives in one call of machine code.

Where the patient stands is packed (`clinenv.packed`), and the code takes and gives that. Patients to come are drawn
ahead, several at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinenv.compiled import Compiled, Run
from clinenv.episodes import Episodes, Held
from clinenv.packed import Form, Packing, Put

__all__ = ["Alone", "Stepped"]

Stepped = tuple[Any, float, bool, bool, dict[str, Any]]  # what `ClinicalEnv.step` gives
_AHEAD = 16  # patients drawn at once, at little more than the price of one


class _Told(NamedTuple):
    """What a step says, by name."""

    names: tuple[str, ...]  # of the numbers in info, in order
    flags: tuple[str, ...]  # those of them that are true or false
    arrays: tuple[str, ...]  # what else is in info


class _Ahead(NamedTuple):
    """Patients drawn ahead: those of the episodes from `first` on of one row key."""

    base: int
    first: int
    put: Put
    observation: np.ndarray  # [_AHEAD, n]
    numbers: list[list[float]]
    arrays: list[np.ndarray]  # [_AHEAD, ...] each


class Alone:
    """Steps the one patient of `episodes`, which hold it before and after.

    Whatever else changes them (a reset with options, a snapshot) is taken up at the next step.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes, self._packing = episodes, Packing(episodes)
        simulator = episodes.simulator
        what = f"one patient of {simulator.task.name} in {simulator.world.name}"
        self._code = Compiled(self._advanced, what, self._packing.bound(), threads=1)
        self._form: Form | None = None
        self._told = _Told((), (), ())
        self._run: Run | None = None
        self._put: Put | None = None  # where the patient stands, if the last to change that was done here
        self._source: Any = None  # what `episodes` hold then
        self._ahead: _Ahead | None = None

    @staticmethod
    def can(episodes: Episodes) -> bool:
        """Whether there is one patient, who can be packed."""
        return episodes.count == 1 and Packing.can(episodes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None, "_put": None, "_source": None}

    @torch.no_grad()
    def next_patient(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The world's next patient of the row's own key, as `ClinicalEnv.reset` gives him; None before the first step,
        and where patients come from elsewhere."""
        episodes, form = self._episodes, self._form
        if episodes.patients is not None or form is None:
            return None
        now = episodes.running
        base, episode, ahead = int(now.base), int(now.episode) + 1, self._ahead
        if ahead is None or ahead.base != base or not 0 <= episode - ahead.first < _AHEAD:
            ahead = self._ahead = self._drawn(form, now.base, episode)
        i = episode - ahead.first
        put = Put(*(tuple(x[i : i + 1] for x in rows) for rows in ahead.put))
        self._hold(put, partial(self._at_start, form, put))
        info = self._info(ahead.numbers[i], [x[i].copy() for x in ahead.arrays])
        return ahead.observation[i].copy(), info

    def _drawn(self, form: Form, base: Tensor, first: int) -> _Ahead:
        episodes, told = self._episodes, self._told
        each = torch.arange(first, first + _AHEAD, device=base.device)
        shown, fresh = episodes.fresh(base.expand(_AHEAD).contiguous(), each)
        allowed = episodes.task_allows(fresh)
        facts = episodes.facts_of(fresh, allowed)
        none = torch.zeros(_AHEAD, device=base.device)  # what a step is judged by
        numbers = torch.stack([facts.get(name, none).to(torch.float32) for name in told.names], 1)
        # of one patient the code reads a row without gaps
        rows = (tuple(x.contiguous() for x in part) for part in self._packing.pack(form, fresh, allowed))
        return _Ahead(
            int(base),
            first,
            Put(*rows),
            shown.numpy(),
            numbers.tolist(),
            [facts[name].numpy() for name in told.arrays],
        )

    @torch.no_grad()
    def step(self, action: Any) -> Stepped | None:
        """See `ClinicalEnv.step`; None where there is no compiler.

        Raises:
            ValueError: an action outside the action space.
            CompileError: the world or the task cannot be compiled.
        """
        episodes, packing = self._episodes, self._packing
        orders = episodes.interface.codec.single(action)
        if orders is None:  # no plain action of the space: refused there, or taken in another form
            orders = episodes.interface.codec(action[None] if isinstance(action, Tensor) else [action], 1)
        if self._form is None:
            self._form, info = packing.form()
            self._told = _names(info)
        form, put = self._form, self._put
        if put is None or episodes.source is not self._source:
            now = episodes.running
            put = packing.pack(form, now, episodes.task_allows(now))
        if self._run is None:
            self._run = self._code.flat(put.moving, put.still, orders)
            if self._run is None:
                return None
        out = self._run([*put.moving, *put.still, orders])
        kinds = len(put.moving)
        after = Put(tuple(out[:kinds]), put.still)
        self._hold(after, partial(packing.after, form, put, after))
        values = out[kinds + 1].tolist()
        info = self._info(values, [x.numpy() for x in out[kinds + 2 :]])
        reward, terminated, truncated = values[-3:]
        return out[kinds].numpy(), reward, terminated > 0, truncated > 0, info

    def _info(self, values: list[float], arrays: list[np.ndarray]) -> dict[str, Any]:
        """Of numbers that begin with those of info's names."""
        told = self._told
        info: dict[str, Any] = dict(zip(told.names, values, strict=False))
        for name in told.flags:
            info[name] = info[name] > 0
        info.update(zip(told.arrays, arrays, strict=True))
        return info

    def _hold(self, put: Put, held: Callable[[], Held]) -> None:
        self._put, self._source = put, held
        self._episodes.hold(held)

    def _at_start(self, form: Form, put: Put) -> Held:
        now, allowed, *_ = self._packing.unpack(form, put)
        return Held(now, None, None, allowed)

    def _advanced(self, moving: tuple[Tensor, ...], still: tuple[Tensor, ...], orders: Tensor) -> tuple[Tensor, ...]:
        """What is compiled. Gives what moves after the step, the observation, info's numbers with reward and both ends
        behind them, then info's arrays."""
        form, told = self._form, self._told
        assert form is not None
        now, allowed, *_ = self._packing.unpack(form, Put(moving, still))
        after = self._packing.stepped(now, allowed, orders)
        put = self._packing.pack(form, after.now, after.allowed, (after.out.given, after.wanted))
        numbers = [*(after.info[name] for name in told.names), after.out.reward, after.out.terminated, after.truncated]
        return (
            *put.moving,
            after.observation[0],
            torch.cat([x.to(torch.float32) for x in numbers]),
            *(after.info[name][0] for name in told.arrays),
        )


def _names(info: dict[str, Tensor]) -> _Told:
    """Of what a step by Python said."""
    single = {name: value.dtype for name, value in info.items() if value.ndim == 1}
    flags = tuple(name for name, dtype in single.items() if dtype == torch.bool)
    return _Told(tuple(single), flags, tuple(name for name in info if name not in single))
