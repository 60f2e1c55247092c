"""Log a behaviour on a batch of patients, with the chance of each of its decisions, in any world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents.offline.acting import Acting
from agents.offline.choices import Choices
from agents.offline.hidden import HiddenRank
from agents.offline.logged import About, Logged
from clinenv.interface import Interface
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.protocol import HasCohort, HasWeights

__all__ = ["collect"]


@torch.no_grad()
def collect(
    acting: Acting,
    simulator: Simulator,
    first_seed: int,
    patients: int,
    steps: int,
    env_id: str,
    nominal: Acting | None = None,
    progress: Callable[[int], None] | None = None,
) -> Logged:
    """Run `acting` on patients first_seed, first_seed + 1, ...: those whom the environment meets under these seeds.

    Args:
        steps: after which an episode is truncated.
        env_id: whose task and default settings these are; for the record.
        nominal: the same behaviour with its dial at 0, asked for the chance of what was decided; needed where
            `acting` acts on a hidden severity.
        progress: called with the number of each finished step.

    Raises:
        ValueError: no patients or steps, or a dial above 0 without `nominal` or in a learned world.
    """
    dial = acting.behaviour.dial
    if patients < 1 or steps < 1:
        raise ValueError(f"a log needs at least one patient and one step, got {patients} and {steps}")
    if dial > 0 and nominal is None:
        raise ValueError(f"dial {dial:g}: give `nominal`, the same behaviour with its dial at 0, as well")
    rank = HiddenRank(simulator) if dial > 0 or HiddenRank.defined(simulator) else None
    interface = Interface(simulator.world, simulator.task)
    key = keys.fold(keys.from_seed(first_seed, patients, simulator.device), 0)  # as the first episode of a row
    acting.reset()
    if nominal is not None:
        nominal.reset()
    state, chart = simulator.reset(key)
    observation, kept = interface.observe(chart, state.key, state.t, None)
    severity = None if rank is None else rank(state)
    log = _Log(simulator, interface, patients, steps, acting.choices)
    rows = torch.arange(patients, device=simulator.device)
    log.show(rows, 0, observation, chart)
    hidden = severity
    for step in range(steps):
        if rank is not None and rank.changes and dial > 0 and step:
            hidden = rank(state)
        choice, log_prob = acting.choose(chart, hidden if dial > 0 else None)
        told = log_prob if nominal is None else nominal.follow(chart, choice)
        out = simulator.step(state, chart, acting.choices.orders(choice))
        observation, kept = interface.observe(out.chart, out.state.key, out.state.t, kept, out.given)
        ended = torch.full_like(out.terminated, step + 1 == steps) & ~out.terminated
        figures = {"reward": out.reward, "cost": out.cost, "log_prob": log_prob, "nominal_log_prob": told}
        log.step(rows, step, choice, {**figures, "terminated": out.terminated, "truncated": ended}, out.terms)
        log.show(rows, step + 1, observation, out.chart)
        if progress is not None:
            progress(step + 1)
        state, chart = out.state, out.chart
        if bool(out.terminated.any()):
            on = (~out.terminated).nonzero().squeeze(-1)
            if not len(on):
                break
            acting.narrow(on)
            if nominal is not None:
                nominal.narrow(on)
            state, chart, kept, rows = tree.take((state, chart, kept, rows), on)
            hidden = None if hidden is None else hidden[on]
    about = _about(acting, simulator, interface, first_seed, patients, steps, env_id)
    return log.done(about, torch.arange(first_seed, first_seed + patients), severity)


class _Log:
    """The arrays, as they fill."""

    def __init__(self, simulator: Simulator, interface: Interface, patients: int, steps: int, choices: Choices) -> None:
        self._task, self._codec = simulator.task, interface.codec
        kind = torch.int64 if choices.discrete else torch.float32
        self._observation = torch.zeros(patients, steps + 1, len(interface.layout))
        self._choice = torch.zeros(patients, steps, choices.entries, dtype=kind)
        self._figures: dict[str, Tensor] = {}
        self._terms: dict[str, Tensor] = {}
        self._mask: Tensor | None = None
        self._length = torch.zeros(patients, dtype=torch.int64)
        self._shape = (patients, steps)

    def show(self, rows: Tensor, step: int, observation: Tensor, chart: Any) -> None:
        """What the rows are shown before this step."""
        rows = rows.cpu()
        self._observation[rows, step] = observation.cpu()
        if self._task.refuses:
            mask = self._codec.mask(self._task.admissible(chart)).cpu()
            if self._mask is None:
                self._mask = torch.zeros(self._shape[0], self._shape[1] + 1, mask.shape[1], dtype=torch.int8)
            self._mask[rows, step] = mask

    def step(
        self, rows: Tensor, step: int, choice: Tensor, figures: dict[str, Tensor], terms: dict[str, Tensor]
    ) -> None:
        """What was decided and what came of it."""
        rows = rows.cpu()
        self._choice[rows, step] = choice.cpu()
        for store, values in ((self._figures, figures), (self._terms, terms)):
            for name, value in values.items():
                if name not in store:
                    store[name] = torch.zeros(self._shape, dtype=value.dtype)
                store[name][rows, step] = value.cpu()
        self._length[rows] = step + 1

    def done(self, about: About, seed: Tensor, severity: Tensor | None) -> Logged:
        """The log, cut to its longest stay."""
        width = int(self._length.max())
        unknown = torch.full((self._shape[0],), torch.nan)
        return Logged(
            about=about,
            seed=seed,
            length=self._length,
            observation=self._observation[:, : width + 1].contiguous(),
            choice=self._choice[:, :width].contiguous(),
            terms={name: value[:, :width].contiguous() for name, value in self._terms.items()},
            hidden_severity=unknown if severity is None else severity.cpu(),
            mask=None if self._mask is None else self._mask[:, : width + 1].contiguous(),
            **{name: value[:, :width].contiguous() for name, value in self._figures.items()},
        )


def _about(
    acting: Acting, simulator: Simulator, interface: Interface, first: int, patients: int, steps: int, env_id: str
) -> About:
    world = simulator.world
    cohort = getattr(world.cohort, "name", None) or str(world.cohort) if isinstance(world, HasCohort) else None
    return About(
        env_id=env_id,
        task=simulator.task.name,
        world=world.name,
        weights_sha256=world.weights_sha256 if isinstance(world, HasWeights) else None,
        cohort=cohort,
        behaviour=acting.name,
        confounding=acting.behaviour.dial,
        first_seed=first,
        patients=patients,
        most_steps=steps,
        hours_per_step=world.hours_per_step,
        observation_names=tuple(interface.layout.names),
        observation_units=tuple(interface.layout.units),
        action_kind=type(acting.choices.kind).__name__.lower(),
        action_labels=tuple(acting.choices.labels),
    )
