"""Judge agents with rare events at their chances: the same mean as `agents.rollout.judge`, surer where a few deaths are
most of the return.

A course is followed as if none of the events had struck, and each step is counted by the chance that the patient is
there to take it, with what the events would have made of it by their own chances (Rao-Blackwell: the expectation over
the events given all else of the course). What a decision changes of a chance is then seen in every patient, and not
only in the few whom luck lets die under one agent and live under another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.protocol import Agent, Narrowable, menu_of, to_orders
from agents.tally import EpisodeResults, Tally
from clinenv.imagined import total
from clinenv.simulator import Simulator, Step
from world_models import keys, tree
from world_models.protocol import Chart, Fates, TellsFates

__all__ = ["judge_expected"]


@torch.no_grad()
def judge_expected(
    agent: Agent,
    simulator: Simulator,
    key: Tensor,
    steps: int,
    events: Sequence[str] = ("alive",),
    begun: tuple[Any, Chart] | None = None,
    progress: Callable[[int], None] | None = None,
) -> EpisodeResults:
    """Expected episodes of the patients of `key` int64 [N], of at most `steps` steps.

    Equal keys are equal patients and luck, as in `judge`: results of two agents are paired row by row.

    Args:
        events: taken at their chances, by the measures that tell of them; all others are drawn.
        begun: state and chart of the N patients where they are taken over; None: they are admitted.
        progress: called with the number of steps done, after each.

    Raises:
        ValueError: no keys, fewer than one step, a world that tells no chances or none of these events, or an event
            that does not end the task (what follows it would have to be followed too).
    """
    if key.ndim != 1 or key.shape[0] == 0 or steps < 1:
        raise ValueError(f"judge_expected needs keys [N >= 1] and steps >= 1, got {tuple(key.shape)} and {steps}")
    if not isinstance(simulator.world, TellsFates):
        raise ValueError(f"world {simulator.world.name!r} tells no chances of events; use agents.rollout.judge")
    count, menu = key.shape[0], menu_of(simulator)
    agent.reset()
    state, chart = simulator.reset(key) if begun is None else begun
    patients = torch.arange(count, device=key.device)  # those in the batch
    here = torch.ones(count, dtype=torch.bool, device=key.device)  # whose course goes on
    there = torch.ones(count, device=key.device)  # the chance that no event has struck
    tally = Tally(simulator.task, count)
    for done in range(steps):
        ordered = to_orders(agent.act(chart).to(key.device), menu) * here.unsqueeze(-1)
        given, refused = simulator.carried_out(chart, ordered)
        fates = simulator.world.fates(state, simulator.world.transition(state, given))
        unknown = sorted(set(events) - set(fates.chances))
        if unknown:
            raise ValueError(
                f"no event {', '.join(unknown)}; the world tells the chances of {', '.join(fates.chances)}"
            )
        weighed = {name: fates.chances[name] for name in events}
        plain = simulator.world.observe(fates.spared)
        spared = 1.0 - total(weighed) if weighed else torch.ones_like(there)
        after = _drawn(fates, weighed, spared, plain)
        for chance, seen in [(spared, after), *((p, _struck(plain, fates, name)) for name, p in weighed.items())]:
            _check_ends(simulator, seen, fates)
            tally.add(patients, here, chart, ordered, _judged(simulator, chart, given, seen, refused), there * chance)
        there, here = there * spared, here & ~simulator.task.terminated(after)
        state, chart = fates.spared, after
        if progress is not None:
            progress(done + 1)
        if not bool(here.any()):
            break
        if isinstance(agent, Narrowable) and not bool(here.all()):
            rows = here.nonzero().squeeze(1)
            agent.narrow(rows)
            state, chart, patients, here, there = tree.take((state, chart, patients, here, there), rows)
    return tally.results()


def _drawn(fates: Fates, weighed: Mapping[str, Tensor], spared: Tensor, chart: Chart) -> Chart:
    """The chart [B] after the step, with the events that are not weighed drawn, given that none of those strikes."""
    luck = keys.uniform(fates.spared.key, fates.spared.t, "judge/events")
    below = torch.zeros_like(spared)
    for name in fates.chances:
        if name not in weighed:
            share = below + fates.chances[name] / spared.clamp_min(1e-9)
            chart = {**chart, name: torch.where((luck >= below) & (luck < share), fates.values[name], chart[name])}
            below = share
    return chart


def _struck(chart: Chart, fates: Fates, name: str) -> Chart:
    """The chart, had this event struck."""
    return {**chart, name: torch.full_like(chart[name], fates.values[name])}


def _check_ends(simulator: Simulator, chart: Chart, fates: Fates) -> None:
    struck = [chart[name] == value for name, value in fates.values.items()]
    if bool((torch.stack(struck).any(0) & ~simulator.task.terminated(chart)).any()):
        raise ValueError(
            f"an event of {', '.join(fates.values)} does not end task {simulator.task.name!r}: its course cannot be "
            "weighed; use agents.rollout.judge"
        )


def _judged(simulator: Simulator, before: Chart, given: Tensor, after: Chart, refused: Tensor | None) -> Step:
    """What the task makes of a step that ends in this chart."""
    task = simulator.task
    terms = task.reward(before, given, after)
    cost, parts = task.cost_and_parts(before, given, after)
    return Step(None, after, total(terms), terms, cost, parts, task.terminated(after), given, refused)
