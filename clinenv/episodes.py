"""Episodes: B running courses, batch first. What the single and the vector environment share, so that they agree.

The random key of row i in its episode e is `fold(from_seed(seed + i), e)`: row i of a large batch meets the same
patients, one after the other, as a single environment that was reset with `seed + i`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from clinenv import snapshot as snapshots
from clinenv.arguments import checked_seed, factor_rows
from clinenv.interface import Interface
from clinenv.patients import Patients, Starting
from clinenv.pessimism import TERM
from clinenv.running import Held, Moved, Running
from clinenv.settings import Settings
from clinenv.simulator import Simulator, Step
from clinenv.vector_info import Stacked, stacked
from clinenv.waiting import WaitingRoom
from world_models import keys, tree
from world_models.inputs import admit
from world_models.protocol import Chart, Oracle, SplitsSpread
from world_models.uncertainty import as_info

__all__ = ["Episodes", "Held", "Moved", "Running"]


class Episodes:
    """Runs episodes of `simulator` behind `interface`, `count` at a time.

    Args:
        horizon_steps: after which an episode is truncated.
        patients: gives factors for new patients from their keys (see `clinenv.patients`), or None: the world's own.
        settings: that the environment was made with.
    """

    def __init__(
        self,
        simulator: Simulator,
        interface: Interface,
        count: int,
        horizon_steps: int,
        patients: Patients | None,
        settings: Settings,
    ) -> None:
        self.simulator = simulator
        self.interface = interface
        self.count = count
        self.horizon_steps = horizon_steps
        self.patients = patients
        self.settings = settings
        self._held: Held = Held()
        self._later: Callable[[], Held] | None = None  # gives what is held, once it is asked for
        self.source: Held | Callable[[], Held] = self._held  # what was given to `hold` last
        self.start: Any = None  # of the patients who began last: what `Starting` made of the options
        world = simulator.world
        self._truth = world.truth if simulator.task.told and isinstance(world, Oracle) else None
        self._parts = world.spread_parts if isinstance(world, SplitsSpread) else None
        self._judged: tuple[str, ...] | None = None  # what `verdict` says, by name
        self._waiting = WaitingRoom(count, self._drawn_ahead)

    @property
    def device(self) -> torch.device:
        """Where the patients are."""
        return self.interface.device

    @property
    def held(self) -> Held:
        """What is known of the running patients."""
        if self._later is not None:
            self._held, self._later = self._later(), None
        return self._held

    def hold(self, held: Held | Callable[[], Held]) -> None:
        """From here on; a function is called once somebody asks."""
        self.source = held
        self._held, self._later = (held, None) if isinstance(held, Held) else (self._held, held)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": self.held, "_later": None, "source": self.held}

    @property
    def begun(self) -> bool:
        """Whether there was a reset; asks nobody where the rows stand."""
        return self._later is not None or self._held.now is not None

    @property
    def now(self) -> Running | None:
        """Where all rows stand; None before the first reset."""
        return self.held.now

    @now.setter
    def now(self, running: Running | None) -> None:
        """They stand elsewhere now; what led there stays as it was."""
        self.hold(self.held._replace(now=running, admissible=None))

    @property
    def given(self) -> Tensor | None:
        """float32 [B, A] the orders carried out in the last step."""
        return self.held.given

    @property
    def wanted(self) -> tuple[Chart, Tensor] | None:
        """The chart before the last step, and what was ordered on it, float32 [B, A]."""
        return self.held.wanted

    @property
    def running(self) -> Running:
        """`now`. Raises gymnasium.error.ResetNeeded before the first reset."""
        now = self.held.now
        if now is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        return now

    @torch.no_grad()
    def begin(
        self,
        rows: Tensor | None,
        base: Tensor | None = None,
        factors: Mapping[str, Tensor] | None = None,
        start: Any = None,
    ) -> tuple[Any, Running]:
        """Start new episodes; `renew` is the quicker way to what comes next of itself.

        Args:
            rows: int64 [R] which rows; None: all of them.
            base: int64 [R] new row keys, whose episodes count from 0; None: the next episode of the row's own key.
            factors: name -> tensor [R, *shape] from `options`: what is fixed about the new patients.
            start: what `Starting` patients made of the options.

        Returns:
            The observation of the fresh rows [R], and where these rows stand.
        """
        every = rows is None
        self.start = start
        if rows is None:
            rows = torch.arange(self.count, device=self.device)
        if base is not None:
            observation, fresh = self.fresh(base, torch.zeros_like(base), factors, start)
        else:
            observation, fresh = self.fresh(self.running.base[rows], self.running.episode[rows] + 1, factors, start)
        self.adopt(None if every or self.now is None else rows, fresh)
        return observation, fresh

    @torch.no_grad()
    def renew(self, ended: Tensor, shown: Any = None, told: Any = None) -> tuple[Any, Any]:
        """The next episode of their own key in the rows `ended`, bool [B].

        Args:
            shown, told: the observation of all rows, and their `facts` and `verdict`, stacked; None: not wanted.

        Returns:
            Both, with those of the fresh patients in the rows where there are any.
        """
        self.start = None
        now: tuple[Any, ...] = (self.running,) if shown is None else (self.running, shown, told)
        found = self._waiting.renewed(now, ended)
        self.hold(self.held.begun(found[0], ended))
        return (None, None) if shown is None else (found[1], found[2])

    def _drawn_ahead(self, base: Tensor, episode: Tensor) -> tuple[Running, Any, Stacked]:
        """`fresh`, with what info says of them."""
        observation, fresh = self.fresh(base, episode)
        return fresh, observation, stacked({**self.facts(fresh), **self.unjudged(len(base))})

    def fresh(
        self, base: Tensor, episode: Tensor, factors: Mapping[str, Tensor] | None = None, start: Any = None
    ) -> tuple[Any, Running]:
        """Patients [R] who begin the episodes int64 [R] of row keys int64 [R], and what is shown of them. Pure;
        arguments and result as of `begin`."""
        key = keys.fold(base, episode)
        fixed = {} if self.patients is None else dict(self.patients.factors(key))
        fixed.update(factors or {})
        if isinstance(self.patients, Starting):
            state, chart = self.patients.begin(key, fixed, start)
        else:
            state = admit(self.simulator.world, key, fixed)
            chart = self.simulator.world.observe(state, self.interface.view.also)
        observation, shown = self.interface.observe(chart, state.key, state.t, None)
        return observation, Running(state, chart, shown, base, episode, torch.zeros_like(episode))

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Step, Tensor]:
        """Act in every row: the new observation, the step, and truncated bool [B]."""
        return self.carry_out(self.interface.codec(actions, self.count))

    @torch.no_grad()
    def carry_out(self, orders: Tensor) -> tuple[Any, Step, Tensor]:
        """`step`, from the orders float32 [B, A] in their units."""
        now = self.running
        moved = self.advance(now, orders, self._allowed() if self.simulator.task.refuses else None)
        self.hold(Held(moved.now, moved.out.given, (now.chart, moved.wanted)))
        return moved.observation, moved.out, moved.truncated

    def advance(self, now: Running, orders: Tensor, allowed: Tensor | None, plain: bool = False) -> Moved:
        """A step as a pure function: nothing here changes.

        Args:
            orders: float32 [B, A] in their units.
            allowed: bool [B, A] what is admissible now; None: the task refuses nothing.
            plain: leave the simulator's compiled code alone, for code that is compiled as a whole.
        """
        simulator, also = self.simulator, self.interface.view.also
        wanted = self.interface.lose(orders, now.state.key, now.state.t)
        step = simulator.advance if plain else simulator.step
        out = step(now.state, now.chart, wanted, also, allowed)
        observation, shown = self.interface.observe(out.chart, out.state.key, out.state.t, now.shown, out.given)
        steps = now.steps + 1
        after = Running(out.state, out.chart, shown, now.base, now.episode, steps)
        return Moved(after, observation, out, steps >= self.horizon_steps, wanted)

    def _allowed(self) -> Tensor:
        """bool [B, A]: what is admissible now, computed once a moment."""
        held = self.held
        if held.admissible is None:
            held = self._held = held._replace(admissible=self.simulator.task.admissible(self.running.chart))
        assert held.admissible is not None
        return held.admissible

    def task_allows(self, moment: Running) -> Tensor | None:
        """bool [B, A]: what is admissible at a moment; None: the task refuses nothing."""
        return self.simulator.task.admissible(moment.chart) if self.simulator.task.refuses else None

    @torch.no_grad()
    def action_mask(self) -> Tensor:
        """int8 [B, entries]: see `clinenv.codec.Codec.mask`."""
        return self.interface.codec.mask(self._allowed())

    @torch.no_grad()
    def choices(self) -> Tensor:
        """bool [B, choices] on the device: see `clinenv.codec.Codec.choices`."""
        return self.interface.codec.choices(self._allowed())

    def action_masks(self) -> np.ndarray:
        """`choices` as a numpy array."""
        return self.choices().cpu().numpy()

    def adopt(self, rows: Tensor | None, fresh: Running) -> None:
        """Go on in rows int64 [R] (None: all) with patients [R] who begin there."""
        if rows is None or (len(rows) == self.count and bool((rows[1:] > rows[:-1]).all())):
            return self.hold(Held(fresh))
        begun = torch.zeros(self.count, dtype=torch.bool, device=self.device).index_fill(0, rows, True)
        return self.hold(self.held.begun(tree.put(self.running, rows, fresh), begun))

    @torch.no_grad()
    def facts(self, fresh: Running | None = None) -> dict[str, Tensor]:
        """What info says of now, or of rows that have just begun: hours, support, spread_<measure> (with
        epistemic_<measure> and aleatoric_<measure> where the world tells them apart), what the task repeats of the
        world's truth (`Task.told`), and action_mask int8 [B, entries] where the task refuses orders.

        Flat names, as in Gymnasium's own environments: loggers pick them by name, and TorchRL reads no nested info.
        """
        moment = self.running if fresh is None else fresh
        if fresh is None and self.simulator.task.refuses:
            return self.facts_of(moment, self._allowed())
        return self.facts_of(moment, self.task_allows(moment))

    def facts_of(self, moment: Running, allowed: Tensor | None) -> dict[str, Tensor]:
        """`facts` as a pure function of where rows stand and what is admissible there (None: nothing is refused)."""
        world, task = self.simulator.world, self.simulator.task
        facts = {"hours": task.clock(moment.chart), "support": world.support(moment.state)}
        if self.settings.uncertainty and self._parts is not None:
            facts.update(as_info(self._parts(moment.state)))
        elif self.settings.uncertainty:
            facts.update({f"spread_{name}": sd for name, sd in world.spread(moment.state).items()})
        if self._truth is not None:
            truth = self._truth(moment.state)
            facts.update({name: truth[name] for name in task.told})
        if allowed is not None:
            facts["action_mask"] = self.interface.codec.mask(allowed)
        return facts

    def verdict(self, out: Step) -> dict[str, Tensor]:
        """What info says of a step besides: cost, cost_<part>, reward_<term>, and refused_orders (how many; see
        `refusals`)."""
        said = {"cost": out.cost}
        said |= {f"cost_{name}": part for name, part in out.cost_parts.items()}
        said |= {f"reward_{name}": term for name, term in out.terms.items()}
        if out.refused is not None:
            said["refused_orders"] = out.refused.sum(-1).to(torch.float32)
        return said

    @torch.no_grad()
    def unjudged(self, count: int | None = None) -> dict[str, Tensor]:
        """The names of `verdict`, 0 for `count` patients (None: all rows): nothing was ordered for them yet."""
        chart = self.running.chart
        if self._judged is None:  # a task does not list its terms: it is asked for them once, of a step without orders
            nothing = torch.zeros(self.count, len(self.simulator.world.orders), device=self.device)
            task = self.simulator.task
            parts = (f"cost_{name}" for name in task.cost_parts(chart, nothing, chart))
            named = [*task.reward(chart, nothing, chart), *([TERM] if self.simulator.wary is not None else [])]
            terms = (f"reward_{name}" for name in named)
            self._judged = ("cost", *parts, *terms, *(("refused_orders",) if task.refuses else ()))
        zero = torch.zeros(self.count if count is None else count, device=self.device)
        return {name: zero.clone() for name in self._judged}

    @torch.no_grad()
    def refusals(self, row: int) -> list[tuple[str, str]]:
        """(order, why it was not carried out) of the last step of a row; empty before the first.

        Raises:
            ValueError: no such row.
        """
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < self.count:
            raise ValueError(
                f"row {row!r} is none of the {self.count} rows; give a whole number from 0 to {self.count - 1}"
            )
        if self.wanted is None:
            return []
        only = slice(row, row + 1)
        return self.simulator.task.reasons(*tree.take(self.wanted, only))[0]

    def options(self, options: Any, count: int) -> tuple[dict[str, Tensor], Any]:
        """What a reset's options fix of `count` new patients: factors [count, *shape], and where they start.

        Raises:
            ValueError: no mapping, an unknown factor, a value that is no number or is out of bounds, a wrong length, or
                a start that there is not.
        """
        start = None
        if isinstance(self.patients, Starting):
            start, options = self.patients.choose(options)
        return factor_rows(self.simulator.world.factors, options, count, self.device), start

    def snapshot(self) -> bytes:
        """State and random keys of all rows as bytes; see `clinenv.snapshot`.

        Raises:
            ValueError: before the first reset.
            SnapshotError (a ValueError): the state holds NaN or infinity where it cannot.
        """
        if self.now is None:
            raise ValueError("there is nothing to save yet; call reset() first")
        return snapshots.pack(self.now, self._setting(), snapshots.missing(self.simulator))

    @torch.no_grad()
    def restore(self, snapshot: bytes, seed: int | None = None) -> Any:
        """Go back to a snapshot; one of a single row fills every row, so that one patient can be branched.

        Args:
            snapshot: of the same world, weights, task and settings.
            seed: None keeps the random keys, so that equal actions give equal futures; a number gives every row another
                key from here on (what is not known of the patient is sampled anew, each row for itself), and its later
                patients with it.

        Returns:
            The observation of all rows.

        Raises:
            SnapshotError (a ValueError): not a snapshot, a damaged one, or one of another world, other weights, another
                task, other settings or another number of rows; nothing is changed then.
            ValueError: a seed that is none.
        """
        seed = None if seed is None else checked_seed(seed, 1)
        template = self.now if self.now is not None else self._template()
        gaps = snapshots.missing(self.simulator)
        now: Running = tree.to(snapshots.unpack(snapshot, self._setting(), template, gaps), self.device)
        rows = tree.batch_size(now)
        if rows not in (1, self.count):
            raise snapshots.SnapshotError(
                f"this snapshot holds {rows} patients but there are {self.count} rows; save 1 or as many"
            )
        if rows != self.count:
            now = tree.repeat(now, self.count)
        if seed is not None:
            row = torch.arange(self.count, device=self.device)
            key = keys.fold(keys.fold(keys.fold(now.state.key, "branch"), seed), row)
            base = keys.fold(keys.fold(keys.fold(now.base, "branch"), seed), row)  # of who comes after this patient
            now = now._replace(state=self.simulator.world.rekey(now.state, key), base=base)
        self.hold(Held(now))
        return self.observation()

    @torch.no_grad()
    def over(self) -> Tensor:
        """bool [B]: rows whose episode has ended."""
        now = self.running
        return (now.steps >= self.horizon_steps) | self.simulator.over(now.state, now.chart)

    @torch.no_grad()
    def observation(self) -> Any:
        """What is shown now, again."""
        return self.interface.show(self.running.shown, self.running.chart)

    def _setting(self) -> dict[str, Any]:
        """What a snapshot is bound to; computed anew, since a world's weights may have been trained since."""
        return snapshots.setting(self.simulator, self.interface, self.settings)

    def _template(self) -> Running:
        self.begin(None, keys.from_seed(0, self.count, self.device))
        template, self.now = self.running, None
        return template
