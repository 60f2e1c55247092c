"""Many patients compiled: from actions to all that `ClinicalVectorEnv.step` gives in one call of machine code.

Patients to come wait packed as those who are there (`clinenv.packed`), so that letting them in copies a few rows of a
handful of tensors, not of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clinenv.compiled import Compiled, Run
from clinenv.episodes import Episodes, Held
from clinenv.packed import Form, Packing, Put
from clinenv.vector_info import Stacked, stacked
from clinenv.waiting import WaitingRoom
from world_models.protocol import Oracle

__all__ = ["Crowd", "Moment"]


class Moment(NamedTuple):
    """What a step of all rows gave."""

    observation: Any
    told: Stacked  # what info says
    names: tuple[str, ...]  # of it, in order
    reward: Tensor  # float32 [B]
    terminated: Tensor  # bool [B]
    truncated: Tensor  # bool [B]


class _Stood(NamedTuple):
    """Where patients stand, as those who wait for them are told apart."""

    base: Tensor  # int64 [B], see `Running`
    episode: Tensor
    put: Put


class Crowd:
    """Steps the patients of `episodes`, which hold them before and after.

    Whatever else changes them (a reset with options, a snapshot) is taken up at the next step.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes, self._packing = episodes, Packing(episodes)
        self._code = self._compiled()
        self._form: Form | None = None
        self._names: tuple[str, ...] = ()
        self._kinds: tuple[tuple[str, ...], ...] = ()  # of info's tensors
        self._run: Run | None = None
        self._put: Put | None = None  # where the patients stand, if the last to change that was done here
        self._who: tuple[Tensor, Tensor] | None = None  # int64 [B] the rows' keys and the numbers of their episodes
        self._before: Put | None = None  # where they stood before the last step
        self._source: Any = None  # what `episodes` hold then
        self._waiting = WaitingRoom(episodes.count, self._drawn)

    @staticmethod
    def can(episodes: Episodes) -> bool:
        """Whether the patients can be packed, in a learned world: an oracle's step makes a graph so large that all of a
        step is not compiled for many patients in minutes."""
        return Packing.can(episodes) and not isinstance(episodes.simulator.world, Oracle)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None, "_put": None, "_who": None, "_before": None, "_source": None}

    @torch.no_grad()
    def step(self, actions: Any) -> Moment | None:
        """Act in every row; None where there is no compiler.

        Raises:
            ValueError: an action outside the action space.
            CompileError: the world or the task cannot be compiled.
        """
        episodes = self._episodes
        orders = episodes.interface.codec(actions, episodes.count)
        form, put = self._standing()
        if self._run is None:
            self._run = self._code.flat(put.moving, put.still, form.alike, orders)
            if self._run is None:
                return None
        out = self._run([*put.moving, *put.still, *form.alike, orders])
        kinds = len(put.moving)
        after = Put(tuple(map(_laid, out[:kinds], put.moving)), put.still)
        self._before = put
        self._hold(after, partial(self._packing.after, form, put, after))
        observation, reward, terminated, truncated, *told = out[kinds:]
        return Moment(
            observation, dict(zip(self._kinds, told, strict=True)), self._names, reward, terminated, truncated
        )

    @torch.no_grad()
    def renew(self, ended: Tensor, shown: Any, told: Stacked) -> tuple[Any, Stacked]:
        """See `Episodes.renew`: right after a step."""
        form, put, before, who = self._form, self._put, self._before, self._who
        assert form is not None and put is not None and before is not None and who is not None
        stood, shown, told = self._waiting.renewed((_Stood(*who, put), shown, told), ended)
        self._who, self._episodes.start = (stood.base, stood.episode), None
        self._hold(stood.put, partial(self._renewed, form, before, put, stood.put, ended))
        return shown, told

    def _renewed(self, form: Form, before: Put, stepped: Put, put: Put, ended: Tensor) -> Held:
        now, allowed, *_ = self._packing.unpack(form, put)
        return self._packing.after(form, before, stepped).begun(now, ended)._replace(admissible=allowed)

    def _standing(self) -> tuple[Form, Put]:
        """Where all rows stand, and the form of that."""
        form, put = self._form, self._put
        if form is not None and put is not None and self._episodes.source is self._source:
            return form, put
        now = self._episodes.running
        allowed = self._episodes.task_allows(now)
        if form is None or not self._packing.fits(form, now, allowed):
            form, info = self._packing.form()
            told = stacked(info)
            self._form, self._names, self._kinds, self._run = form, tuple(info), tuple(told), None
            self._code = self._compiled(form.kinds)
            self._waiting = WaitingRoom(self._episodes.count, self._drawn)
        self._who = now.base, now.episode
        return form, self._packing.pack(form, now, allowed)

    def _compiled(self, *more: Any) -> Compiled:
        simulator = self._episodes.simulator
        what = f"{self._episodes.count} patients of {simulator.task.name} in {simulator.world.name}"
        return Compiled(self._advanced, what, (*self._packing.bound(), *more))

    def _hold(self, put: Put, held: Callable[[], Held]) -> None:
        self._put, self._source = put, held
        self._episodes.hold(held)

    def _drawn(self, base: Tensor, episode: Tensor) -> tuple[Any, Any, Stacked]:
        """Patients [R] as they begin, packed, what is shown and said of them."""
        episodes, form = self._episodes, self._form
        assert form is not None
        shown, fresh = episodes.fresh(base, episode)
        allowed = episodes.task_allows(fresh)
        told = stacked({**episodes.facts_of(fresh, allowed), **episodes.unjudged(len(base))})
        return _Stood(base, episode, self._packing.pack(form, fresh, allowed)), shown, told

    def _advanced(
        self, moving: tuple[Tensor, ...], still: tuple[Tensor, ...], alike: tuple[Tensor, ...], orders: Tensor
    ) -> tuple[Tensor, ...]:
        """What is compiled. Gives what moves after the step, the observation, reward, both ends, and info's tensors."""
        form = self._form
        assert form is not None
        now, allowed, *_ = self._packing.unpack(form, Put(moving, still), alike)
        after = self._packing.stepped(now, allowed, orders)
        put = self._packing.pack(form, after.now, after.allowed, (after.out.given, after.wanted))
        told = stacked(after.info)
        return (
            *put.moving,
            after.observation,
            after.out.reward,
            after.out.terminated,
            after.truncated,
            *told.values(),
        )


def _laid(x: Tensor, like: Tensor) -> Tensor:
    """x in memory as `like`, as the code will read it at the next step; it gives small tensors otherwise at times."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)
