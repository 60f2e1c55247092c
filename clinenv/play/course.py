"""One patient in one world, moment by moment, as values that JSON can hold."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from clinenv.assemble import WorldLike, assemble
from clinenv.episodes import Episodes, Running
from clinenv.play.game import Game, unit_shown
from clinenv.play.games import ORDER_NAMES
from clinenv.settings import Settings
from clinenv.simulator import Step
from clinenv.task import Doses
from world_models.protocol import HasCohort, HasWeights

__all__ = ["Stand", "about", "advance", "begin", "episodes_of", "in_words", "paper"]

_HOURS_PER_YEAR = 8766.0
_DIGITS = 6  # significant, of numbers on the wire
_ROW = torch.zeros(1, dtype=torch.int64)


class Stand(NamedTuple):
    """Where a patient stands in one world."""

    running: Running
    shown: dict[str, Any]  # JSON: see `_shown`


def episodes_of(
    game: Game, world: WorldLike, cohort: str | None, hours: float | None, hours_per_step: float | None = None
) -> Episodes:
    """Episodes of one patient of the game in a world; a world that knows no cohorts is not told one.

    Raises:
        ValueError: an argument that is unknown or out of range; the message names the choices.
    """
    unit = "units" if isinstance(game.task().actions, Doses) else "scaled"
    settings = Settings(hours=hours, hours_per_step=hours_per_step, action_unit=unit)
    made = assemble(game.task(), 1, world, settings)
    if cohort is None or not isinstance(made.simulator.world, HasCohort):
        return made
    return assemble(game.task(), 1, world, Settings(**{**settings.__dict__, "cohort": cohort}))


def about(episodes: Episodes) -> dict[str, Any]:
    """Which world it is, as JSON: name, whether it is learned, the seal of its weights, hours a step."""
    world = episodes.simulator.world
    seal = world.weights_sha256 if isinstance(world, HasWeights) else None
    return {
        "name": world.name,
        "learned": not world.name.endswith("oracle"),
        "sha256": seal,
        "hours_per_step": world.hours_per_step,
        "steps": episodes.horizon_steps,
    }


@torch.no_grad()
def begin(game: Game, episodes: Episodes, base: torch.Tensor, factors: Any = None) -> Stand:
    """The patient of the key int64 [1] at admission; `factors` [1] are told to the world, the rest it draws."""
    _, running = episodes.begin(None, base, factors)
    return Stand(running, _shown(game, episodes, None, "terminated" if bool(episodes.over()[0]) else None))


@torch.no_grad()
def advance(game: Game, episodes: Episodes, stand: Stand, action: Any) -> Stand:
    """One step on; a course that is over stays where it is.

    Raises:
        ValueError: no action of the id; the message names the entry and the limit.
    """
    if stand.shown["end"] is not None:
        return stand
    episodes.adopt(_ROW, stand.running)
    _, out, truncated = episodes.step([action])
    end = "terminated" if bool(out.terminated[0]) else "truncated" if bool(truncated[0]) else None
    return Stand(episodes.running, _shown(game, episodes, out, end))


@torch.no_grad()
def paper(game: Game, episodes: Episodes, stand: Stand, title: str, prefix: str) -> str | None:
    """The ECG of a moment as an SVG; None where the world draws none.

    Args:
        prefix: keeps the ids of two sheets on one page apart.
    """
    from clinenv.rendering.ecg_paper import svg_paper

    world = episodes.simulator.world
    if game.ecg_rate_hz is None or "ecg_mv" not in {quantity.name for quantity in world.measures}:
        return None
    ecg = world.observe(stand.running.state, ("ecg_mv",))["ecg_mv"][0].cpu().numpy()
    return svg_paper(ecg, game.ecg_rate_hz, title, prefix)


def _shown(game: Game, episodes: Episodes, out: Step | None, end: str | None) -> dict[str, Any]:
    """JSON of now: time (in the game's clock), values, spread (SD by row), support, end ("terminated", "truncated" or
    None), allowed (0 or 1 an entry of the action; None: all are), reward, terms, cost, costs, given and refused in
    words, and truth once the course is over."""
    now, simulator = episodes.running, episodes.simulator
    hours = float(simulator.task.clock(now.chart)[0])
    rows = {row.key for row in game.rows}
    spread = simulator.world.spread(now.state)
    shown: dict[str, Any] = {
        "time": _number(hours / _HOURS_PER_YEAR if game.clock == "years" else hours),
        "values": {key: _number(value) for key, value in game.read(now.chart).items()},
        "spread": {name: _number(float(sd[0])) for name, sd in spread.items() if name in rows},
        "support": bool(simulator.world.support(now.state)[0]),
        "end": end,
        "allowed": episodes.action_mask()[0].tolist() if simulator.task.refuses and end is None else None,
        "reward": 0.0, "terms": {}, "cost": 0.0, "costs": {}, "given": [], "refused": [],
        "truth": [],
    }  # fmt: skip
    if end is not None and game.truth is not None:
        shown["truth"] = [[fact.what, fact.value] for fact in game.truth(now.chart)]
    if out is not None:
        shown |= {
            "reward": _number(float(out.reward[0])),
            "terms": {name: _number(float(term[0])) for name, term in out.terms.items()},
            "cost": _number(float(out.cost[0])),
            "costs": {name: _number(float(part[0])) for name, part in out.cost_parts.items()},
            "given": in_words(episodes, out.given[0].tolist()),
            "refused": [[ORDER_NAMES[name][0], why] for name, why in episodes.refusals(0)],
        }
    return shown


def in_words(episodes: Episodes, amounts: list[float]) -> list[str]:
    """What was carried out: "dofetilide 0.5 mg"; of what is yes or no the name alone."""
    words = []
    for order, amount in zip(episodes.simulator.world.orders, amounts, strict=True):
        if amount > 0:
            label, unit = ORDER_NAMES[order.name][0], unit_shown(order.unit)
            words.append(label if order.unit == "bool" else f"{label} {amount:g} {unit}".rstrip())
    return words


def _number(value: float | None) -> float | None:
    """Six significant digits; None for what is not known."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")
