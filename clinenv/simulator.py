"""Simulator: a world and a task together. The only step in the project; environments and planners stand on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from clinenv.compiled import Compiled
from clinenv.imagined import EVENTS, Imagined, accrue_drawn, accrue_expected, total
from clinenv.pessimism import TERM, Pessimism, Wary
from clinenv.task import Task
from world_models import gradients, keys, tree
from world_models.inputs import admit, checked_orders
from world_models.protocol import Chart, Factors, HasMembers, Oracle, TellsFates, WorldModel

__all__ = ["Imagined", "Rollout", "Simulator", "Step"]

P = ParamSpec("P")
R = TypeVar("R")


def _as_asked(method: Callable[Concatenate[Simulator, P], R]) -> Callable[Concatenate[Simulator, P], R]:
    """Decorates what passes gradients in a simulator of `grad=True`, and is under `torch.no_grad` in any other."""
    without = torch.no_grad()(method)

    @wraps(method)
    def called(self: Simulator, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.grad:
            return without(self, *args, **kwargs)
        with gradients.passed():
            return method(self, *args, **kwargs)

    return called


class Step(NamedTuple):
    """What one step gave. The tensors may be shared with the world: never write into them."""

    state: Any  # the world's state after the step
    chart: Chart  # after the step: name -> [B, *shape]
    reward: Tensor  # float32 [B], the sum of the terms
    terms: dict[str, Tensor]  # name -> float32 [B]
    cost: Tensor  # float32 [B]
    cost_parts: dict[str, Tensor]  # name -> float32 [B]; empty where the task names none
    terminated: Tensor  # bool [B]
    given: Tensor  # float32 [B, A] the orders that were carried out
    refused: Tensor | None = None  # bool [B, A] those that were not; None: the task refuses none


class Rollout(NamedTuple):
    """A course under given orders. After the end, rewards and costs are 0 and the charts go on."""

    charts: Chart  # name -> [B, H + 1, *shape]; entry 0 is now
    rewards: Tensor  # float32 [B, H]
    terms: dict[str, Tensor]  # name -> float32 [B, H]
    costs: Tensor  # float32 [B, H]
    terminated: Tensor  # bool [B, H]: the end was reached at or before this step
    state: Any  # after the last step


class Simulator:
    """Steps batches of patients of `world` and judges them by `task`.

    With `grad=True` charts, rewards and costs of `step`, `rollout` and `imagine` can be differentiated by the actions
    handed in (where torch's own mode allows it: not within `torch.no_grad()`). A gradient runs along the course that
    was drawn. Nothing passes one where the answer comes in steps: an event drawn or not, an end reached, a threshold
    (so all of a cost that counts), whole numbers, whether something was given at all. A refused order has none.

    Args:
        grad: whether gradients are passed; costs nothing when they are not.
        events: how `imagine` treats rare events (torsades; death and discharge) whose chances the world knows: "drawn",
            as they strike in an environment, or "expected", at their chances (`clinenv.imagined`): the mean return is
            the same, less noisy, and is differentiated by what moves a chance.
        chances: how many particles of `imagine` share a belief; above 1 where chance and not knowing are to be told
            apart (`agents.planning.risk`).
        pessimism: what is held against the world's errors, as a `Pessimism` or its fields: a term of the reward more,
            or an end where nothing is known (`clinenv.pessimism`).
        compile: whether `step` runs as machine code (`clinenv.compiled`), made at the first step of each batch size.
            World and task are taken as they are then: change neither afterwards.

    Raises:
        ValueError: the task needs a measure or an order that the world does not have; `grad` is asked of a world
            through which no amount can be followed (`world_models.gradients.Differentiable`), expected events of one
            that does not tell their chances (`TellsFates`), pessimism of one that is unsure of nothing; an unknown
            pessimism; `chances` is below 1; or `compile` together with `grad`, or of a world that is not on the CPU.
    """

    def __init__(
        self,
        world: WorldModel,
        task: Task,
        grad: bool = False,
        events: str = "drawn",
        chances: int = 1,
        pessimism: Pessimism | Mapping[str, Any] | None = None,
        compile: bool = False,
    ) -> None:
        self.world = world
        self.task = task
        self.grad = grad
        self.events = events
        self.chances = chances
        _check_options(world, grad, events, chances, compile)
        measured = {quantity.name for quantity in world.measures}
        missing = [column.name for column in task.observation if column.name not in measured]
        if missing:
            raise ValueError(
                f"task {task.name!r} observes {', '.join(missing)}, which world {world.name!r} does not measure; it "
                f"measures {', '.join(sorted(measured))}"
            )
        ordered = tuple(quantity.name for quantity in world.orders)
        if ordered != task.orders:
            raise ValueError(
                f"task {task.name!r} gives the orders {', '.join(task.orders)}, but world {world.name!r} takes "
                f"{', '.join(ordered)}; names and their order must agree"
            )
        if type(task).clock is Task.clock and "hours" not in measured:
            raise ValueError(
                f"world {world.name!r} measures no hours; give task {task.name!r} a method clock(chart) -> hours [B]"
            )
        if task.told and not isinstance(world, Oracle):
            raise ValueError(
                f"task {task.name!r} repeats {', '.join(task.told)} of a world's truth, and world "
                f"{world.name!r} tells none"
            )
        unknown = sorted(set(task.actions.names) - set(ordered))
        if unknown:
            raise ValueError(f"an action of task {task.name!r} orders {', '.join(unknown)}, which is none of {ordered}")
        pessimism = Pessimism.of(pessimism)
        self.wary = None if pessimism is None else Wary(pessimism, world, task)
        self.compile = compile
        self._code: Compiled | None = None

    @property
    def device(self) -> torch.device:
        """Where the world lives."""
        return torch.device(self.world.device)

    @torch.no_grad()
    def reset(self, key: Tensor, factors: Factors | None = None, also: Sequence[str] = ()) -> tuple[Any, Chart]:
        """New patients [B] and their first chart; a NaN factor is not known; `also` names measures on request."""
        state = admit(self.world, key, factors or {})
        return state, self.world.observe(state, also)

    @_as_asked
    def step(
        self, state: Any, chart: Chart, action: Tensor, also: Sequence[str] = (), admissible: Tensor | None = None
    ) -> Step:
        """One step of `world.hours_per_step`. What the task refuses is not carried out.

        Args:
            state: of B patients, with `chart` the chart that was observed in it.
            action: float32 [B, A] in the orders' units.
            also: measures on request to put into the new chart.
            admissible: bool [B, A] what the task allows on `chart`, where that is known already.

        Raises:
            ValueError: the world's own, of an amount out of its order's bounds or an unknown measure.
            CompileError: `compile` was asked for, and the world or the task cannot be compiled.
        """
        if not self.compile:
            return self.advance(state, chart, action, also, admissible)
        if self._code is None:
            what = f"a step of {self.task.name} in {self.world.name}"
            self._code = Compiled(self._plain, what, (self.world, self.task, self.wary), _next_arguments)
        # what looks at values is left out of compiled code
        action = checked_orders(self.world.orders, action, len(state.key), self.device)
        plain = {name: value for name, value in chart.items() if name not in also}
        out = self._code(state, plain, action, admissible)
        if not also:
            return out
        asked = self.world.observe(out.state, also)  # drawings, which ask for values
        return out._replace(chart={**out.chart, **{name: asked[name] for name in also}})

    def _plain(self, state: Any, chart: Chart, action: Tensor, admissible: Tensor | None) -> Step:
        return self.advance(state, chart, action, (), admissible)

    def advance(
        self, state: Any, chart: Chart, action: Tensor, also: Sequence[str] = (), admissible: Tensor | None = None
    ) -> Step:
        """`step` as a pure function of tensors, never compiled: what compiled code is made of. Arguments as there."""
        action, refused = self.carried_out(chart, action, admissible)
        state = self.world.transition(state, action)
        after = self.world.observe(state, also)
        terms = self.task.reward(chart, action, after)
        cost, parts = self.task.cost_and_parts(chart, action, after)
        terminated = self.task.terminated(after)
        if self.wary is not None:
            pays, outside = self.wary(state)
            terms = {**terms, TERM: pays}
            terminated = terminated if outside is None else terminated | outside
        return Step(state, after, total(terms), terms, cost, parts, terminated, action, refused)

    @torch.no_grad()
    def over(self, state: Any, chart: Chart) -> Tensor:
        """bool [B]: the episode has ended where `chart` was observed in `state`. It never has at its start for want of
        knowledge of the patient."""
        ended = self.task.terminated(chart)
        outside = None if self.wary is None else self.wary(state)[1]
        return ended if outside is None else ended | (outside & (state.t > 0))

    def carried_out(
        self, chart: Chart, action: Tensor, admissible: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Of an action [B, A] what the task does not refuse, and bool [B, A] what it does (None: it refuses none).

        Arguments as for `step`.
        """
        if not self.task.refuses:
            return action, None
        allowed = self.task.admissible(chart) if admissible is None else admissible
        refused = self.task.refused(chart, action, allowed)
        return torch.where(refused, 0.0, action), refused

    @_as_asked
    def imagine(
        self,
        state: Any,
        chart: Chart,
        actions: Tensor,
        particles: int,
        key: Tensor | None = None,
        discount: float = 1.0,
        chunk: int = 16384,
    ) -> Imagined:
        """Try K candidate plans on `particles` possible futures of each patient.

        The particles have keys of their own, so a planner never sees the future that the patient will meet; all
        candidates share them, so their differences are paired. Each lives by a sample of what is not known of the
        patient (`WorldModel.rekey`), or, with `chances` above 1, runs of so many by the same one: what differs within a
        run is chance, what differs between runs is not knowing, which observations would make less of.

        Args:
            state: of B patients, with `chart` their chart now.
            actions: [B, K, H, A] in the orders' units.
            particles: P, at least 1.
            key: int64 [B], from which the particles' keys follow; by default the state's own key.
            discount: of each further step's reward.
            chunk: rows simulated at a time; bounds the memory, does not change the result in an oracle.
        """
        patients, candidates, horizon = actions.shape[:3]
        if particles < 1 or horizon < 1:
            raise ValueError(f"imagine needs particles >= 1 and a plan of >= 1 step, got {particles} and {horizon}")
        if particles % self.chances:
            raise ValueError(f"particles={particles} is no multiple of the simulator's chances={self.chances}")
        if patients != state.key.shape[0]:
            raise ValueError(f"actions are for {patients} patients but the state holds {state.key.shape[0]}")
        requested = {quantity.name for quantity in self.world.measures if quantity.on_request}
        chart = {name: value for name, value in chart.items() if name not in requested}  # no waveform a particle
        base = keys.fold(state.key if key is None else key, "imagine")
        # Candidates share particles: redraw each patient's unknowns once a particle, not once a plan.
        beliefs = particles // self.chances
        each = torch.arange(patients * beliefs, device=base.device)
        futures = self.world.rekey(tree.repeat(state, beliefs), keys.fold(base[each // beliefs], each % beliefs))
        if self.chances > 1:
            futures = tree.repeat(futures, self.chances)
            chance = torch.arange(patients * particles, device=base.device) % self.chances
            futures = futures._replace(key=keys.fold(keys.fold(futures.key, "imagine/chance"), chance))
        accrue = accrue_drawn if self.events == "drawn" else accrue_expected
        parts = []
        for rows in torch.arange(patients * candidates * particles, device=base.device).split(chunk):
            plan = rows // particles  # patient * K + candidate
            patient = plan // candidates
            alone = tree.take(futures, patient * particles + rows % particles)
            plans = actions.flatten(0, 1)[plan]
            parts.append(accrue(self, alone, tree.take(chart, patient), plans, discount))
        shape = (patients, candidates, particles)
        returns, costs, terminated = (torch.cat(column).reshape(shape) for column in zip(*parts, strict=True))
        members = self.world.member_of(futures) if isinstance(self.world, HasMembers) else None
        members = None if members is None else members.reshape(patients, particles)
        return Imagined(returns, costs, terminated, self.chances, members)

    @_as_asked
    def rollout(self, state: Any, chart: Chart, actions: Tensor, also: Sequence[str] = ()) -> Rollout:
        """The course of B patients under actions [B, H, A], with their own random keys."""
        if actions.ndim != 3 or actions.shape[1] < 1:
            raise ValueError(f"actions need the shape [B, H, A] with H >= 1, got {tuple(actions.shape)}")
        charts, steps, ended = [self.world.observe(state, also) if also else chart], [], []
        over = self.task.terminated(chart)
        for h in range(actions.shape[1]):
            out = self.step(state, charts[-1], actions[:, h], also)
            zero = torch.zeros_like(out.reward)
            terms = {name: torch.where(over, zero, term) for name, term in out.terms.items()}
            steps.append((terms, torch.where(over, zero, out.reward), torch.where(over, zero, out.cost)))
            over = over | out.terminated
            ended.append(over)
            state = out.state
            charts.append(out.chart)
        return Rollout(
            charts={name: torch.stack([c[name] for c in charts], 1) for name in charts[-1]},
            rewards=torch.stack([s[1] for s in steps], 1),
            terms={name: torch.stack([s[0][name] for s in steps], 1) for name in steps[0][0]},
            costs=torch.stack([s[2] for s in steps], 1),
            terminated=torch.stack(ended, 1),
            state=state,
        )

    def counterfactual(
        self, state: Any, chart: Chart, a: Tensor, b: Tensor, also: Sequence[str] = ()
    ) -> tuple[Rollout, Rollout]:
        """The same patients with the same random keys under two plans [B, H, A]: equal plans give equal futures."""
        return self.rollout(state, chart, a, also), self.rollout(state, chart, b, also)


def _next_arguments(
    out: Step, state: Any, chart: Chart, action: Tensor, admissible: Tensor | None
) -> tuple[Any, Chart, Tensor, Tensor | None]:
    """The arguments of the step after this one."""
    return out.state, out.chart, action, admissible


def _check_options(world: WorldModel, grad: bool, events: str, chances: int, compile: bool) -> None:
    """Raises ValueError: see `Simulator`."""
    if compile and grad:
        raise ValueError("compile=True passes no gradients; take either compile=True or grad=True")
    if compile and torch.device(world.device).type != "cpu":
        raise ValueError(f"compile=True is for worlds on the CPU, and {world.name!r} lives on {world.device}; leave it")
    if events not in EVENTS:
        raise ValueError(f"events={events!r} is unknown; choose one of {', '.join(EVENTS)}")
    if events == "expected" and not isinstance(world, TellsFates):
        raise ValueError(f"events='expected': world {world.name!r} tells no chances of events; take 'drawn'")
    if chances < 1:
        raise ValueError(f"chances={chances}: at least 1 future of each belief is needed")
    if grad and not (isinstance(world, gradients.Differentiable) and world.graded_orders):
        raise ValueError(
            f"grad=True: world {world.name!r} passes no gradients; take a learned world, or leave grad=False"
        )
