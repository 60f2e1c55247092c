"""One id as it is served, and one client's course through it. Everything here blocks: it runs in a worker thread."""

from __future__ import annotations

import inspect
import logging
import secrets
import time
import uuid
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from clinenv.registration import register
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from clinenv.serving.actions import reader_of
from clinenv.serving.errors import Ended, Refused
from clinenv.serving.told import Notes, facts, numbers
from world_models.protocol import Oracle

__all__ = ["Course", "Served"]

_log = logging.getLogger(__name__)


class Served:
    """An id with the arguments that its environments are made with, and what clients are told of it.

    The world is loaded once, here, and shared: it holds no patient.

    Raises:
        ValueError, TypeError, OSError: what `gymnasium.make` refuses.
    """

    def __init__(self, env_id: str, arguments: Mapping[str, Any]) -> None:
        register()
        self.id = env_id
        self._arguments = {**arguments, "uncertainty": False}  # half the time of a step in a learned ward, and not sent
        env: Any = self.make().unwrapped
        self.page = inspect.getdoc(type(env)) or ""
        self.world = str(env.world.name)
        self.oracle = isinstance(env.world, Oracle)
        self.reader = reader_of(env.episodes)
        self.layout = env.episodes.interface.layout
        self.observation_size = int(np.prod(env.observation_space.shape))

    def make(self) -> gymnasium.Env:
        """A new environment, with nobody in it yet."""
        return gymnasium.make(self.id, disable_env_checker=True, **self._arguments)

    @property
    def how_to_act(self) -> str:
        """How an action is written, with the names of all orders."""
        return f"To act, {self.reader.words()}. The orders are: {', '.join(self.reader.labels)}."


class Course:
    """The patients of one client: one environment of their own, made at the first reset."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.id = secrets.token_urlsafe(16)  # whoever knows it may act: it cannot be guessed
        self.last_asked = time.monotonic()
        self.busy = False
        self.ended = ""  # why it takes no more requests
        self._env: Any = None
        self._state: dict[str, Any] = {"episode_id": None, "step_count": 0, "seed": None, "hours": 0.0, "return": 0.0}
        self._kind = "both"
        self._done = True

    def begin(self, seed: int | None, options: dict[str, Any], observation: str, episode_id: str | None) -> Any:
        """A reset. Without a seed the next patient of the session's sequence comes; the first seed is then drawn here.

        Raises:
            Refused: what the environment refuses of seed or options; nothing has changed then.
        """
        if self._env is None:
            self._env = self.served.make()
            self._notes = Notes(self._env.unwrapped.episodes)
        drawn = secrets.randbits(48) if seed is None and self._state["seed"] is None else seed
        try:
            shown, info = self._env.reset(seed=drawn, options=options)
        except (ValueError, TypeError) as error:
            raise Refused(str(error)) from None
        seed = self._state["seed"] if drawn is None else drawn
        self._state = {
            "episode_id": episode_id or uuid.uuid4().hex,
            "step_count": 0,
            "seed": seed,
            "hours": info["hours"],
            "return": 0.0,
        }
        self._kind, self._done = observation, False
        more = {"how_to_act": self.served.how_to_act}
        return self._reply(shown, info, self._notes.begin(shown), None, (False, False), more)

    def step(self, action: Any) -> Any:
        """A step.

        Raises:
            Refused: no action; nothing has changed then.
            Ended: no episode has begun, or it is over.
        """
        if self._done:
            raise Ended("the episode is over, or none has begun; send a reset first")
        meant = self.served.reader(action)
        try:
            shown, reward, terminated, truncated, info = self._env.step(meant)
        except (ValueError, TypeError) as error:
            raise Refused(f"{error}; {self.served.reader.words()}") from None
        self._done = terminated or truncated
        self._state["step_count"] += 1
        self._state["hours"] = info["hours"]
        self._state["return"] += reward
        return self._reply(shown, info, self._notes.write(shown), reward, (terminated, truncated), {})

    def state(self) -> dict[str, Any]:
        """Where the course is; of the patient nothing but the hour. The world's own state is never sent."""
        about = {"session_id": self.id, "env_id": self.served.id, "world": self.served.world, "done": self._done}
        return {**self._state, **about}

    def _reply(
        self,
        shown: Any,
        info: Mapping[str, Any],
        text: str,
        reward: float | None,
        flags: tuple[bool, bool],
        more: Mapping[str, Any],
    ) -> dict[str, Any]:
        """An answer as OpenEnv has it: observation, reward, done, metadata."""
        episodes, reader = self._env.unwrapped.episodes, self.served.reader
        refused = [] if reward is None else self._env.unwrapped.refusals()
        mask = info.get("action_mask")
        told: dict[str, Any] = {**facts(episodes, info), "terminated": flags[0], "truncated": flags[1]}
        told["refused"] = [{"order": order, "why": why} for order, why in refused]
        told["not_allowed"] = [] if mask is None else reader.barred(mask)
        if self._kind != "chart":
            told["text"] = _with_orders(text, told, flags)
        if self._kind != "text":
            told["values"] = numbers(shown)
            told["chart"] = dict(zip(self.served.layout.names, numbers(list(self._described(shown))), strict=True))
            told["action_mask"] = None if mask is None else mask.tolist()
        about = {"session_id": self.id, "env_id": self.served.id, "world": self.served.world}
        about |= {name: self._state[name] for name in ("episode_id", "step_count", "seed")}
        about["note"] = NOT_FOR_CLINICAL_USE
        told |= more
        told["metadata"] = about
        return {"observation": told, "reward": reward, "done": self._done, "metadata": about}

    def _described(self, shown: Any) -> Any:
        return self._env.unwrapped.describe(shown).values()

    def close(self) -> None:
        """Let the environment go."""
        if self._env is not None:
            self._env.close()


def _with_orders(text: str, told: Mapping[str, Any], flags: tuple[bool, bool]) -> str:
    """The text, and what became of the orders."""
    lines = [text]
    if told["refused"]:
        said = "; ".join(f"{refusal['order']} ({refusal['why']})" for refusal in told["refused"])
        lines.append(f"Not carried out of your last orders: {said}.")
    if any(flags):
        lines.append("The episode is over." if flags[0] else "The episode is over: its time is up.")
    elif told["not_allowed"]:
        lines.append(f"Not allowed now: {', '.join(told['not_allowed'])}.")
    return "\n".join(lines)
