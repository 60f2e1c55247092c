"""Episodes: B running courses, batch first. What the single and the vector environment share, so that they agree.

The luck of row i in its episode e is `fold(from_seed(seed + i), e)`: row i of a large batch meets the same patients,
one after the other, as a single environment that was reset with `seed + i`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from clinenv import snapshot as snapshots
from clinenv.door import Door
from clinenv.patients import Starting
from clinenv.simulator import Simulator, Step
from clinenv.spaces import as_numbers
from world_models import keys, tree
from world_models.inputs import admit, checked_factors
from world_models.protocol import Chart

__all__ = ["Episodes", "Running", "checked_seed", "horizon_in_steps", "row_keys"]

MOST_STEPS = 1 << 31  # of an episode: what can still be counted


class Running(NamedTuple):
    """Everything there is to save: patients, their luck, and where in their course they are."""

    state: Any  # the world's
    chart: Chart  # now, with the waveforms the observation shows
    shown: Tensor  # float32 [B, n] what the decider last saw, in units
    base: Tensor  # int64 [B] key of the row, from its seed
    episode: Tensor  # int64 [B] how many episodes this row had before
    steps: Tensor  # int64 [B] since the reset


class Episodes:
    """Runs episodes of `simulator` behind `door`, `count` at a time.

    Args:
        horizon_steps: after which an episode is truncated.
        patients: gives factors for new patients from their keys (see `clinenv.patients`), or None: the world's own.
        uncertainty: whether `facts` says the world's spread.
    """

    def __init__(
        self,
        simulator: Simulator,
        door: Door,
        count: int,
        horizon_steps: int,
        patients: Any = None,
        uncertainty: bool = True,
    ) -> None:
        self.simulator = simulator
        self.door = door
        self.count = count
        self.horizon_steps = horizon_steps
        self.patients = patients
        self.uncertainty = uncertainty
        self.now: Running | None = None
        self.given: Tensor | None = None  # float32 [B, A] the orders carried out in the last step
        self.wanted: tuple[Chart, Tensor] | None = None  # the chart before the last step, and what was ordered on it
        self._factors = {quantity.name: quantity for quantity in simulator.world.factors}
        self._judged: tuple[str, ...] | None = None  # what `verdict` says, by name

    @property
    def device(self) -> torch.device:
        return self.door.device

    @property
    def running(self) -> Running:
        """`now`. Raises gymnasium.error.ResetNeeded before the first reset."""
        if self.now is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        return self.now

    @torch.no_grad()
    def begin(
        self, rows: Tensor | None, base: Tensor | None = None, factors: Mapping[str, Tensor] | None = None
    ) -> tuple[Any, Running]:
        """Start new episodes.

        Args:
            rows: int64 [R] which rows; None: all of them.
            base: int64 [R] new row keys, whose episodes count from 0; None: the next episode of the row's own key.
            factors: name -> tensor [R, *shape] from `check_factors`: what is fixed about the new patients.

        Returns:
            The observation of the fresh rows [R], and where these rows stand.
        """
        every = rows is None
        if rows is None:
            rows = torch.arange(self.count, device=self.device)
        if base is None:
            if self.now is None:
                raise RuntimeError("the first episodes need row keys")
            base, episode = self.now.base[rows], self.now.episode[rows] + 1
        else:
            episode = torch.zeros_like(base)
        key = keys.fold(base, episode)
        fixed = {} if self.patients is None else dict(self.patients.factors(key))
        fixed.update(factors or {})
        if isinstance(self.patients, Starting):
            state, chart = self.patients.begin(key, fixed)
        else:
            state = admit(self.simulator.world, key, fixed)
            chart = self.simulator.world.observe(state, self.door.also)
        observation, shown = self.door.observe(chart, state.key, state.t, None)
        fresh = Running(state, chart, shown, base, episode, torch.zeros_like(episode))
        if every or self.now is None:
            self.now = fresh
        else:
            self.now = tree.put(self.now, rows, fresh)
        return observation, fresh

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Step, Tensor]:
        """Act in every row: the new observation, the step, and truncated bool [B]."""
        now = self.now
        wanted = self.door.lose(self.door.orders(actions, self.count), now.state.key, now.state.t)
        out = self.simulator.step(now.state, now.chart, wanted, self.door.also)
        self.given, self.wanted = out.given, (now.chart, wanted)
        observation, shown = self.door.observe(out.chart, out.state.key, out.state.t, now.shown, out.given)
        steps = now.steps + 1
        self.now = Running(out.state, out.chart, shown, now.base, now.episode, steps)
        return observation, out, steps >= self.horizon_steps

    @torch.no_grad()
    def facts(self, moment: Running | None = None) -> dict[str, Tensor]:
        """What info says of a moment (of now): hours, support, spread_<measure>, and action_mask int8 [B, entries].

        A task's `told` adds names of the world's truth, and its `clock` gives the hours where the chart has none.

        The mask is there where the task refuses orders: 1 where the chart allows all that the entry orders.

        Flat names, as in Gymnasium's own environments: loggers pick them by name, and TorchRL reads no nested info.
        """
        moment = self.now if moment is None else moment
        world = self.simulator.world
        sds = world.spread(moment.state) if self.uncertainty else {}
        spread = {f"spread_{name}": sd for name, sd in sds.items()}
        task = self.simulator.task
        clock = getattr(task, "clock", None)
        hours = moment.chart["hours"] if clock is None else clock(moment.chart)
        facts = {"hours": hours, "support": world.support(moment.state), **spread}
        told = getattr(task, "told", ())
        if told:
            truth = world.truth(moment.state)
            facts.update({name: truth[name] for name in told})
        if self.simulator.refuses:
            facts["action_mask"] = self.door.orders.mask(self.simulator.task.admissible(moment.chart))
        return facts

    @staticmethod
    def verdict(out: Step) -> dict[str, Tensor]:
        """What info says of a step besides: cost, reward_<term>, and refused_orders (how many; see `refusals`)."""
        said = {"cost": out.cost, **{f"reward_{name}": term for name, term in out.terms.items()}}
        if out.refused is not None:
            said["refused_orders"] = out.refused.sum(-1).to(torch.float32)
        return said

    @torch.no_grad()
    def unjudged(self) -> dict[str, Tensor]:
        """The names of `verdict`, 0 for all rows: what info says of patients for whom nothing was ordered yet."""
        chart = self.now.chart
        if self._judged is None:  # a task does not list its terms: it is asked for them once, of a step without orders
            nothing = torch.zeros(self.count, len(self.simulator.world.orders), device=self.device)
            terms = self.simulator.task.reward(chart, nothing, chart)
            refused = ("refused_orders",) if self.simulator.refuses else ()
            self._judged = ("cost", *(f"reward_{name}" for name in terms), *refused)
        return {name: torch.zeros(self.count, device=self.device) for name in self._judged}

    @torch.no_grad()
    def refusals(self, row: int) -> list[tuple[str, str]]:
        """(order, why it was not carried out) of the last step of a row; empty before the first.

        Raises:
            ValueError: no such row.
        """
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < self.count:
            raise ValueError(f"row {row!r} is none of the {self.count} rows; give a whole number from 0 to {self.count - 1}")
        if self.wanted is None or not self.simulator.refuses:
            return []
        only = slice(row, row + 1)
        return self.simulator.task.reasons(*tree.take(self.wanted, only))[0]

    def check_factors(self, factors: Mapping[str, Any], count: int) -> dict[str, Tensor]:
        """Factors as tensors [count, *shape], each within its bounds; one value stands for all rows.

        Raises:
            ValueError: an unknown factor, a value that is not a number or is out of bounds, or a wrong length.
        """
        rows = {}
        for name, value in factors.items():
            quantity = self._factors.get(name)
            if quantity is not None:
                numbers = as_numbers(value, self.device)
                if numbers is None:
                    raise ValueError(f"factor {name}={value!r} is not a number; give it in {quantity.unit}")
                value = numbers
                value = value.expand(count, *quantity.shape) if value.shape == quantity.shape else value
            rows[name] = value
        checked = checked_factors(self.simulator.world.factors, rows, count, self.device)
        return {name: value.contiguous() for name, value in checked.items()}

    def snapshot(self) -> bytes:
        """State and luck of all rows as bytes; see `clinenv.snapshot`.

        Raises:
            ValueError: before the first reset.
            SnapshotError (a ValueError): the state holds NaN or infinity where it cannot.
        """
        if self.now is None:
            raise ValueError("there is nothing to save yet; call reset() first")
        return snapshots.pack(self.now, snapshots.setting(self.simulator, self.door))

    @torch.no_grad()
    def restore(self, snapshot: bytes, luck: int | None = None) -> Any:
        """Go back to a snapshot; one of a single row fills every row, so that one patient can be branched.

        Args:
            snapshot: of the same world, weights, task and settings.
            luck: None keeps the luck; a number gives every row other luck from here on (what is not known of the
                patient is drawn anew, each row for itself).

        Returns:
            The observation of all rows.

        Raises:
            SnapshotError (a ValueError): not a snapshot, a damaged one, or one of another world, other weights, another
                task, other settings or another number of rows; nothing is changed then.
            ValueError: luck that is no number a seed can be.
        """
        luck = None if luck is None else checked_seed(luck, 1, "luck")
        template = self.now if self.now is not None else self._template()
        now: Running = tree.to(
            snapshots.unpack(snapshot, snapshots.setting(self.simulator, self.door), template), self.device
        )
        rows = tree.batch_size(now)
        if rows not in (1, self.count):
            raise snapshots.SnapshotError(
                f"this snapshot holds {rows} patients but there are {self.count} rows; save 1 or as many"
            )
        if rows != self.count:
            now = tree.repeat(now, self.count)
        if luck is not None:
            row = torch.arange(self.count, device=self.device)
            key = keys.fold(keys.fold(keys.fold(now.state.key, "branch"), luck), row)
            now = now._replace(state=self.simulator.world.rekey(now.state, key))
        self.now, self.given, self.wanted = now, None, None
        return self.observation()

    @torch.no_grad()
    def observation(self) -> Any:
        """What is shown now, again."""
        return self.door.show(self.now.shown, self.now.chart)

    def _template(self) -> Running:
        base = keys.from_seed(0, self.count, self.device)
        self.begin(None, base)
        template, self.now = self.now, None
        return template


def horizon_in_steps(hours: float, hours_per_step: float) -> int:
    """Steps of an episode of `hours`.

    Raises:
        ValueError: not a positive number of hours.
    """
    number = isinstance(hours, int | float | np.integer | np.floating) and not isinstance(hours, bool)
    if not (number and 0 < hours < MOST_STEPS * hours_per_step):  # False for NaN
        most = f"at most {MOST_STEPS:,} steps of {hours_per_step:g} h"
        raise ValueError(f"hours={hours!r} is no length of an episode; give a number over 0 ({most}), such as 48")
    return max(1, math.ceil(hours / hours_per_step - 1e-9))


def row_keys(seed: int | Sequence[int | None], count: int, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Row keys [count] of a seed or a list of seeds, and which of them were given (a None in the list was not).

    Raises:
        ValueError: as many seeds as rows are needed, each a whole number from 0 to what 64 bits hold.
    """
    if isinstance(seed, str) or not isinstance(seed, Sequence | np.ndarray) or getattr(seed, "ndim", 1) == 0:
        return keys.from_seed(checked_seed(seed, count), count, device), np.ones(count, bool)
    seeds = [None if s is None else checked_seed(s, 1) for s in seed]
    if len(seeds) != count:
        raise ValueError(f"a list of seeds needs one for each of the {count} environments, got {len(seeds)}")
    each = [keys.from_seed(s or 0, 1, device) for s in seeds]
    return torch.cat(each), np.array([s is not None for s in seeds])


def checked_seed(seed: Any, rows: int, what: str = "seed") -> int:
    """The seed of `rows` patients, seed, seed + 1, ...: there are 2^64 of them, and none is met under two numbers.

    Raises:
        ValueError: no whole number, or one that leaves no number for each row.
    """
    highest = 2**64 - rows
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or not 0 <= seed <= highest:
        otherwise = "the next patient" if what == "seed" else "the same"
        raise ValueError(f"{what} {seed!r} is not a whole number from 0 to {highest}; give one, or None for {otherwise}")
    return int(seed)
