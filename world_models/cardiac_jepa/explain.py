"""ExplainWorld: two latents of one patient, and the transitions that a decider proposes to lead from one to the other.

Diagnosis as planning. The state holds the latent reached so far; an order toggles one condition, and the JEPA's
dynamics say where that leads. There is no chance in it: what the key gives is the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from world_models import half
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, History
from world_models.quantity import Quantity

__all__ = ["COMPOSITIONS", "LATENT_BOUND", "MAX_DAYS", "MAX_STEPS", "ExplainState", "ExplainWorld", "HasPairs"]

LATENT_BOUND = 50.0  # a projector that ends in BatchNorm stays within a few units
MAX_STEPS = 8
MAX_DAYS = 36525.0  # a hundred years
LEAST_START, MOST_DISTANCE = 1e-3, 1e6  # of a squared distance between latents, and of its share
COMPOSITIONS = ("chain", "joint")


class Predictor(Protocol):
    """Dynamics of latents."""

    def predict(self, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
        """The next latent [B, Z] from z [B, Z], action [B, C] in {-1, 0, 1} and days [B]."""


@runtime_checkable
class HasPairs(Protocol):
    """What it takes of a world."""

    @property
    def codes(self) -> tuple[str, ...]:
        """ICD-10, three characters: the columns of an action."""

    @property
    def name(self) -> str:
        """The world's name."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    @property
    def jepa(self) -> Predictor:
        """Says where a transition leads."""

    def explain_pairs(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One pair a key [B], a function of it; what it holds: see `model.ExplainPairs`."""


class ExplainState(NamedTuple):
    """B problems, C conditions, latents of Z entries: how far each explanation is."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    z_before: Tensor  # [B, Z]
    z_now: Tensor  # [B, Z] where the transitions so far lead
    z_goal: Tensor  # [B, Z]
    condition_before: Tensor  # bool [B, C]
    found: Tensor  # [B, C] in {-1, 0, 1}: the net of the transitions so far
    sought: Tensor  # [B, C] the true transitions; zeros where the problem was handed in without them
    days: Tensor  # [B] between the two ECGs
    stopped: Tensor  # bool [B]


class ExplainWorld:
    """Orders: "stop", then an onset of each code, then a resolution of each. An order that makes no sense (an onset of
    what is present, a resolution of what is absent) and any after "stop" does nothing.

    Args:
        world: a world with a JEPA and pairs (`HasPairs`).
        compose: how several transitions lead on. "chain": each is applied to the latent the one before led to, the days
            between the two ECGs passing with the first. "joint": the net set of transitions is applied to `z_before` at
            once, as the dynamics were trained.

    Raises:
        ValueError: an unknown `compose`.
    """

    hours_per_step = 1.0  # a step of thought; the protocol wants a length

    def __init__(self, world: HasPairs, compose: str = "chain") -> None:
        if compose not in COMPOSITIONS:
            raise ValueError(f"compose {compose!r} is unknown; choose one of {', '.join(COMPOSITIONS)}")
        self.world = world
        self.compose = compose
        self.name = f"{world.name}-explain" if compose == "chain" else f"{world.name}-explain-{compose}"
        self.device = torch.device(world.device)
        self.dtype = getattr(world, "dtype", half.WHOLE)  # see `half`
        self.codes = tuple(world.codes)
        with torch.no_grad():
            width = world.explain_pairs(torch.zeros(1, dtype=torch.int64, device=self.device))[0].shape[-1]
        named = " ".join(self.codes)
        z, c = (width,), (len(self.codes),)
        latent, bound = "1", LATENT_BOUND
        self.orders: tuple[Quantity, ...] = (
            Quantity("stop", "bool", 0.0, 1.0, (), "the explanation is complete"),
            *(Quantity(f"onset_{code}", "bool", 0.0, 1.0, (), f"{code} began") for code in self.codes),
            *(Quantity(f"resolution_{code}", "bool", 0.0, 1.0, (), f"{code} went") for code in self.codes),
        )
        problem = (
            Quantity("z_before", latent, -bound, bound, z, "latent of the first ECG"),
            Quantity("z_goal", latent, -bound, bound, z, "latent of the second ECG"),
            Quantity("condition_before", "bool", 0.0, 1.0, c, f"conditions at the first ECG: {named}"),
            Quantity("days", "d", 0.0, MAX_DAYS, (), "between the two ECGs"),
        )
        self.factors: tuple[Quantity, ...] = problem
        self.measures: tuple[Quantity, ...] = (
            *problem,
            Quantity("z_now", latent, -bound, bound, z, "latent the transitions so far lead to"),
            Quantity("difference", latent, -2 * bound, 2 * bound, z, "z_goal - z_now"),
            Quantity("found", "1", -1.0, 1.0, c, "net transitions so far: 1 onset, -1 resolution"),
            Quantity(
                "distance", "1", 0.0, MOST_DISTANCE, (), "squared distance to the goal, as a share of that at the start"
            ),
            Quantity("steps_left", "1", 0.0, float(MAX_STEPS), (), f"of {MAX_STEPS}"),
            Quantity("stopped", "bool", 0.0, 1.0, (), "1 once the decider has stopped"),
        )

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> ExplainState:
        """The problem of each key; with all four factors given, that problem (whose answer is then not known).

        Raises:
            ValueError: some of the factors, not all: half a problem has no answer; or one out of bounds.
        """
        given = checked_factors(self.factors, factors, len(key), self.device)
        names = {q.name for q in self.factors}
        if given and set(given) != names and set(given) != {"days"}:
            missing = ", ".join(sorted(names - set(given)))
            raise ValueError(f"a problem is given whole or sampled: {missing} is missing")
        if set(given) == names:
            before, goal, days = given["z_before"], given["z_goal"], given["days"]
            condition = given["condition_before"] > 0.5
            sought = torch.zeros_like(condition, dtype=torch.float32)
        else:
            before, goal, condition, sought, days = self.world.explain_pairs(key)
            days = given.get("days", days)
        before, goal = (x.to(torch.float32).clamp(-LATENT_BOUND, LATENT_BOUND) for x in (before, goal))
        return ExplainState(
            key,
            torch.zeros_like(key),
            before,
            before.clone(),
            goal,
            condition,
            torch.zeros_like(sought),
            sought.to(torch.float32),
            days.to(torch.float32).clamp(0.0, MAX_DAYS),
            torch.zeros_like(key, dtype=torch.bool),
        )

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """The problem of a chart."""
        return {q.name: chart[q.name] for q in self.factors if q.name in chart}

    def _led(self, z: Tensor, moved: Tensor, days: Tensor) -> Tensor:
        """The latent [B, Z] that transitions [B, C] lead to from z [B, Z] in days [B], in the world's precision."""
        return half.run(self.world, self.world.jepa.predict, z, moved, days).clamp(-LATENT_BOUND, LATENT_BOUND)

    @torch.no_grad()
    def transition(self, state: ExplainState, action: Tensor) -> ExplainState:
        """After the transitions ordered in action [B, 1 + 2 C]; those that make no sense do nothing.

        Raises:
            ValueError: an order that is neither 0 nor 1 or below.
        """
        c = len(self.codes)
        given = checked_orders(self.orders, action, len(state.key), self.device) > 0.5
        stopped = state.stopped | given[:, 0]
        present = torch.where(state.condition_before, 1.0, 0.0) + state.found > 0.5
        onset, resolution = given[:, 1 : c + 1] & ~present, given[:, c + 1 :] & present
        move = torch.where(stopped.unsqueeze(-1), 0.0, onset.to(torch.float32) - resolution.to(torch.float32))
        moves = move.abs().amax(-1) > 0
        found = state.found + move
        if self.compose == "joint":
            led = self._led(state.z_before, found, state.days)
        else:
            first = (state.z_now == state.z_before).all(-1)
            led = self._led(state.z_now, move, torch.where(first, state.days, 0.0))
        # A step that moved nothing, and nothing ordered, leaves the latent where it is.
        now = torch.where(moves.unsqueeze(-1), led, state.z_now)
        return state._replace(t=state.t + 1, z_now=now, found=found, stopped=stopped)

    @torch.no_grad()
    def lead(self, z_before: Tensor, found: Tensor, days: Tensor) -> Tensor:
        """The latent [B, Z] that sets of transitions found [B, C] lead to from z_before [B, Z] in days [B].

        Without the steps in between: all at once ("joint"), or one after the other in the order of the codes ("chain").
        An empty set leads nowhere.
        """
        if self.compose == "joint":
            led = self._led(z_before, found, days)
            return torch.where((found != 0).any(-1, keepdim=True), led, z_before)
        now, left = z_before, found
        while bool((left != 0).any()):
            first = (left != 0).to(torch.int8).argmax(-1, keepdim=True)
            move = torch.zeros_like(left).scatter(1, first, left.gather(1, first))
            led = self._led(now, move, days)
            now = torch.where((move != 0).any(-1, keepdim=True), led, now)
            left, days = left - move, torch.zeros_like(days)
        return now

    def observe(self, state: ExplainState, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises ValueError: `also` names something that is no measure."""
        check_also(self.measures, also)
        return {
            "z_before": state.z_before,
            "z_goal": state.z_goal,
            "condition_before": state.condition_before.to(torch.float32),
            "days": state.days,
            "z_now": state.z_now,
            "difference": state.z_goal - state.z_now,
            "found": state.found,
            "distance": self.distance(state),
            "steps_left": (MAX_STEPS - state.t).clamp(min=0).to(torch.float32),
            "stopped": state.stopped.to(torch.float32),
        }

    @staticmethod
    def distance(state: ExplainState) -> Tensor:
        """[B]: |z_goal - z_now|^2 / |z_goal - z_before|^2."""
        start = (state.z_goal - state.z_before).square().sum(-1).clamp_min(LEAST_START)
        return ((state.z_goal - state.z_now).square().sum(-1) / start).clamp(max=MOST_DISTANCE)

    def rekey(self, state: ExplainState, key: Tensor) -> ExplainState:
        """The same problem: nothing in it is left to chance."""
        return state._replace(key=key)

    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> ExplainState:
        """The state of the last chart, exactly: the chart shows all of it but the answer."""
        last = {name: value[:, -1] for name, value in history.charts.items()}
        state = self.initial(key, {**self.read(last), **(factors or {})})
        t = (MAX_STEPS - last["steps_left"]).round().to(torch.int64)
        return state._replace(t=t, z_now=last["z_now"], found=last["found"], stopped=last["stopped"] > 0.5)

    def spread(self, state: ExplainState) -> dict[str, Tensor]:
        """Nothing: there is no chance in it."""
        return {}

    def support(self, state: ExplainState) -> Tensor:
        """bool [B]: the goal is as far from 0 as a regularised latent may be."""
        return state.z_goal.abs().amax(-1) < 0.5 * LATENT_BOUND

    def truth(self, state: ExplainState) -> dict[str, Tensor]:
        """For judging: found and true_transitions int8 [B, C], explained bool [B], latent_distance [B]."""
        return {
            "found_transitions": state.found.to(torch.int8),
            "true_transitions": state.sought.to(torch.int8),
            "explained": (state.found == state.sought).all(-1),
            "latent_distance": self.distance(state),
        }
