"""Where agents are judged: an id in its learned world and in its oracle, with the same patients in both.

`EHRReplay-v0` goes on from recorded stays. Of a real one nobody knows the hidden body, so no oracle can go on with it;
here the record is of an oracle's patient: a day under the clinician's rule, as a record would hold it. The learned
world infers its belief from that record, the oracle goes on with the body that it was written about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium
import torch
from torch import Tensor

import clinenv  # noqa: F401  (registers the ids)
from agents.registry import CLINIC, DRUG, EXPLAIN, WARD
from agents.rollout import admission_factors
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.registration import ENVIRONMENTS
from clinenv.simulator import Simulator
from world_models import keys as random
from world_models import tree
from world_models.oracles.ward.clinician import clinician
from world_models.protocol import Chart, Factors, History, SupportsInfer

__all__ = ["HORIZONS", "REPLAY", "Patients", "Stage", "learned_world", "simulator_of"]

REPLAY = "EHRReplay-v0"
RECORDED_H = 24.0  # of a stay before it is taken over
# Steps: of the drug start 2 h, to 14 days; of the ward 4 h, where stays end after 14 days, which are 84. The clinic's
# are months, the shortest interval: two, seven and ten years. An explanation has eight.
HORIZONS: dict[str, tuple[int, ...]] = {
    **{env_id: (12, 24, 84, 168) for env_id in DRUG},
    **{env_id: (12, 24, 84) for env_id in WARD},
    CLINIC: (24, 84, 120),
    EXPLAIN: (8,),
}
OWN: dict[str, int] = {row["id"]: int(row["max_episode_steps"]) for row in ENVIRONMENTS}  # the id's own
MONTHS_A_YEAR = 12
_UNTOLD = ("weight_kg", "chronic_kidney_disease", "diabetes", "chronic_heart_failure", "complaint")  # by a record
_MOST_TRIES = 64  # draws for a patient who is wanted


class Patients(NamedTuple):
    """N patients as a world gets them: admitted from keys and factors, or taken over where they are."""

    keys: Tensor  # int64 [N]
    factors: Factors | None
    begun: tuple[Any, Chart] | None


def learned_world(env_id: str) -> str:
    """The learned world that an id is made with when none is named."""
    return next(row["kwargs"]["world"] for row in ENVIRONMENTS if row["id"] == env_id)


@lru_cache(maxsize=64)
def simulator_of(env_id: str, world: str, steps: int | None = None) -> Simulator:
    """The simulator of an id in a world, "oracle" for the id's own; steps matter where a task ends itself by the clock.

    Raises:
        ValueError: an unknown world, or one that does not go with the id.
    """
    settings: dict[str, Any] = {}
    if env_id == CLINIC and steps is not None:
        settings["task"] = ECGProgressionTask(horizon_years=steps / MONTHS_A_YEAR)
    # to go on from stays is how episodes begin, not what a step is: task and world are the ward's
    made = gymnasium.make(
        "EHRWard-v0" if env_id == REPLAY else env_id, world=world, disable_env_checker=True, **settings
    )
    simulator: Simulator = made.unwrapped.simulator  # type: ignore[attr-defined]
    return simulator


@dataclass(frozen=True)
class Stage:
    """One id at one length.

    Args:
        env_id: one of `HORIZONS`.
        steps: of an episode at most.
        world: the learned world, by name or folder; None: the id's own.

    Raises:
        ValueError: an unknown id, a length outside what the id allows, or a world that it cannot use.
    """

    env_id: str
    steps: int
    world: str | None = None

    def __post_init__(self) -> None:
        if self.env_id not in HORIZONS:
            raise ValueError(f"no id {self.env_id!r} on the board; there are: {', '.join(HORIZONS)}")
        most = max(HORIZONS[self.env_id])
        if not 1 <= self.steps <= most:
            raise ValueError(f"{self.env_id} is judged over 1 to {most} steps, got {self.steps}; give one of them")

    @property
    def learned_name(self) -> str:
        """Name or folder of the learned world."""
        return self.world or learned_world(self.env_id)

    @property
    def learned(self) -> Simulator:
        """In which agents are made, and which promises."""
        return simulator_of(self.env_id, self.learned_name, self.steps)

    @property
    def oracle(self) -> Simulator:
        """In which they are judged."""
        return simulator_of(self.env_id, "oracle", self.steps)

    @torch.no_grad()
    def patients(self, keys: Tensor, also: tuple[str, ...] = ()) -> tuple[Patients, Patients]:
        """The patients of keys int64 [N] in the oracle, and the same ones in the learned world.

        The learned world is told what the oracle's first charts show, or the record. What no chart shows it draws from
        the same keys. Pairs to be explained are drawn by each world: a pair of one is no pair of the other, and all of
        them differ in a condition.
        """
        if self.env_id == REPLAY:
            return self._recorded(keys, also)
        if self.env_id == EXPLAIN:
            return _problems(self.oracle, keys, also), _problems(self.learned, keys, also)
        in_oracle = Patients(keys, None, None)
        chart = self.oracle.reset(keys)[1]
        return in_oracle, Patients(keys, admission_factors(chart, self.learned.world), None)

    def _recorded(self, keys: Tensor, also: tuple[str, ...]) -> tuple[Patients, Patients]:
        """Patients whose first day is on record, in the oracle and as the learned world believes them to be."""
        oracle, world = self.oracle, self.learned.world
        if not isinstance(world, SupportsInfer):
            raise ValueError(f"world {world.name!r} cannot go on from a record; name a learned ward")

        def draw(some: Tensor) -> tuple[Any, Tensor]:
            state, history, here = _course(oracle, some)
            return (state, history), here

        state, history = _first_wanted(keys, draw, f"stayed {RECORDED_H:g} h")
        chart = oracle.world.observe(state, also)
        believed = world.infer(history, state.key)
        seen = self.learned.world.observe(believed, also)
        last = {name: value[:, -1] for name, value in history.charts.items() if name in seen}
        shown = {n: torch.where(last[n].isnan(), x, last[n]) if n in last else x for n, x in seen.items()}
        return Patients(state.key, None, (state, chart)), Patients(state.key, None, (believed, shown))


def _first_wanted(keys: Tensor, draw: Callable[[Tensor], tuple[Any, Tensor]], what: str) -> Any:
    """A tree [N]: row i is what `draw` gives for key i, or for the first of the keys folded from it that is wanted.

    Args:
        draw: from keys [B] a tree [B], and bool [B] which of its rows are wanted.
        what: is wanted, for the message.

    Raises:
        ValueError: some rows never are.
    """
    left, rows, found = torch.arange(len(keys), device=keys.device), [], []
    for _ in range(_MOST_TRIES):
        drawn, wanted = draw(keys)
        rows.append(left[wanted])
        found.append(tree.take(drawn, wanted))
        left, keys = left[~wanted], random.fold(keys[~wanted], "another")
        if not len(left):
            return tree.take(tree.cat(found), torch.cat(rows).argsort())
    raise ValueError(f"{len(left)} of {len(keys)} patients never {what}; draw others")


def _problems(simulator: Simulator, keys: Tensor, also: tuple[str, ...]) -> Patients:
    """Pairs between which something changed, as all of the learned world's are."""

    def draw(some: Tensor) -> tuple[Any, Tensor]:
        state, chart = simulator.reset(some, None, also)
        return (state, chart), (state.sought != 0).any(-1)

    state, chart = _first_wanted(keys, draw, "changed between two ECGs")
    return Patients(state.key, None, (state, chart))


def _course(oracle: Simulator, keys: Tensor) -> tuple[Any, History, Tensor]:
    """RECORDED_H of patients [N] under the clinician's rule: their state, the record, and bool [N]: still here."""
    hours = oracle.world.hours_per_step
    state, chart = oracle.reset(keys)
    charts, given = [chart], []
    for _ in range(round(RECORDED_H / hours)):
        out = oracle.step(state, chart, clinician(chart, hours))
        state, chart = out.state, out.chart
        charts.append(chart)
        given.append(out.given)
    given.append(torch.zeros_like(given[0]))
    here = ~oracle.task.terminated(chart)
    kept = {name: torch.stack([c[name] for c in charts], 1) for name in chart}
    return state, History(_as_recorded(kept), torch.stack(given, 1), kept["hours"]), here


def _as_recorded(charts: Chart) -> Chart:
    """Charts [N, T] as a hospital's record holds them: NaN where no value came, and for what is not written down."""
    from world_models.quantities.ward import INQUIRIES

    seen = charts["inquiry_seen"] > 0.5
    values = {q.name: charts[q.name].masked_fill(~seen[..., i], torch.nan) for i, q in enumerate(INQUIRIES)}
    untold = {name: torch.full_like(charts[name], torch.nan) for name in _UNTOLD}
    return {**charts, **values, **untold}
