"""What a speed is measured of: ids in worlds, steps of a vector environment, and of its simulator alone.

In a long run the rows of a batch stand at different hours of their stays, so that some end at every step. Rows that
begin together would all end together, or not at all within the seconds of a benchmark: `spread_out` lets each believe
that some of its steps are over already.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import torch

import clinenv  # noqa: F401  (registers the ids)
from benchmarks.common.stays import stay
from benchmarks.common.timing import Work
from clinenv.episodes import Episodes

__all__ = ["CASES", "TABLE", "Case", "drawn_actions", "made", "spread_out", "together", "without_door"]

TABLE = 8  # random legal actions of a batch, drawn beforehand


@dataclass(frozen=True)
class Case:
    """An id in a world, with further arguments of the environment."""

    id: str
    world: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def catalogued(self) -> str:
        """The world's name in the catalogue: "oracle" is another for each domain."""
        return ORACLES.get(self.id.rpartition("-")[0], "oracle") if self.world == "oracle" else self.world


ORACLES = {
    "EHRWard": "ward-oracle",
    "EHRWardDose": "ward-oracle",
    "ECGProgression": "progression-oracle",
    "ECGExplain": "progression-oracle",
}

_REPLAYED = {"stays": [stay(1), stay(2)]}

CASES = (
    Case("ECGDrug-v0", "ecg-wm-small"),
    Case("ECGDrug-v0", "oracle"),
    Case("ECGDrugContinuous-v0", "ecg-wm-small"),
    Case("ECGDrugContinuous-v0", "oracle"),
    Case("EHRWard-v0", "ehr-ward-small"),
    Case("EHRWard-v0", "oracle"),
    Case("EHRWardDose-v0", "ehr-ward-small"),
    Case("EHRWardDose-v0", "oracle"),
    Case("EHRReplay-v0", "ehr-mimic-demo-small", _REPLAYED),  # of a record nobody knows the body: it has no oracle
    Case("ECGProgression-v0", "cardiac-jepa-small"),
    Case("ECGProgression-v0", "oracle"),
    Case("ECGExplain-v0", "cardiac-jepa-small"),
    Case("ECGExplain-v0", "oracle"),
)


def made(case: Case, batch: int, **arguments: Any) -> Any:
    """The environment: of one patient as `gymnasium.make` gives it, or the vector environment (same-step autoreset)."""
    arguments = {"world": case.world, **case.arguments, **arguments}
    if batch == 1:
        return gym.make(case.id, disable_env_checker=True, **arguments)
    return gym.make_vec(
        case.id,
        num_envs=batch,
        vectorization_mode="vector_entry_point",
        vector_kwargs={},
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        **arguments,
    )


def together(env: gym.vector.VectorEnv[Any, Any, Any], actions: Sequence[Any] | None = None) -> Work:
    """Work: a step of every row, what ends begun anew in it. As many patients were stepped as there are rows.

    Args:
        actions: of all rows, played one after the other and again; None: random legal ones.
    """
    actions = drawn_actions(env, 0) if actions is None else actions
    env.reset(seed=0)
    spread_out(env.unwrapped.episodes)
    turn = itertools.count()

    def work() -> int:
        env.step(actions[next(turn) % len(actions)])
        return env.num_envs

    return work


def drawn_actions(env: gym.vector.VectorEnv[Any, Any, Any], seed: int) -> list[Any]:
    """Random legal actions of all rows, TABLE times."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(TABLE)]


def spread_out(episodes: Episodes) -> None:
    """Let row i of B have i / B of its steps behind it."""
    now = episodes.running
    rows = torch.arange(episodes.count, device=now.steps.device)
    episodes.now = now._replace(steps=rows * episodes.horizon_steps // episodes.count)


def without_door(env: gym.vector.VectorEnv[Any, Any, Any], actions: Sequence[Any] | None = None) -> Work:
    """Work: `Simulator.step` of the patients who are in `env`, as they are then: no spaces, observation, infos or
    admissions. They do not move by it. `actions` as in `together`."""
    episodes: Episodes = env.unwrapped.episodes
    codec, simulator, also = episodes.interface.codec, episodes.simulator, episodes.interface.view.also
    actions = drawn_actions(env, 1) if actions is None else actions
    orders = [codec(action, episodes.count) for action in actions]
    turn = itertools.count()

    def work() -> int:
        now = episodes.running
        simulator.step(now.state, now.chart, orders[next(turn) % len(orders)], also)
        return episodes.count

    return work
