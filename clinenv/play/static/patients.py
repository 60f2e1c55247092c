"""Patients to start from, as the page without a server holds them: admission states, and what the oracle gave them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from clinenv.episodes import Episodes
from clinenv.play.game import Game
from clinenv.play.session import ORACLE, Session
from clinenv.play.static.networks import Named, named
from clinenv.task import Menu
from world_models import tree

__all__ = ["EVERY_HOURS", "Admitted", "admitted", "kept_state", "packed", "tried"]

EVERY_HOURS = 12.0  # between the doses of a plan that is tried in the oracle beforehand


class Admitted(NamedTuple):
    """A patient of the page."""

    session: Session
    told: dict[str, Any]  # JSON: seed, cohort, facts, and what is shown at admission
    state: Named  # of the learned world, see `kept_state`


def kept_state(state: Any) -> Named:
    """The tensors of a state that steps and drawings take.

    Not what recorded patients keep of their ECG, which is nothing in generated ones, and not the log of doses, by which
    `rekey` lives a course anew.
    """
    left = ("recorded.", "dose_log_mg")
    return {name: value for name, value in named(state).items() if not name.startswith(left)}


def admitted(game: Game, world: str, cohorts: tuple[str, ...], each: int) -> list[Admitted]:
    """Patients 1 to `each` of every cohort, as `clinenv play` admits them into a learned world."""
    found = []
    for cohort in cohorts:
        for seed in range(1, each + 1):
            session = Session(game, world, seed, cohort)
            first = session.branches[0].moments[0]["learned"]
            told = {"seed": seed, "cohort": cohort, "facts": session.facts, "shown": first.shown}
            found.append(Admitted(session, told, kept_state(first.running.state)))
    return found


def tried(patients: list[Admitted]) -> list[list[dict[str, Any]]]:
    """For each patient, as JSON, what the oracle gave under each entry of the menu, every `EVERY_HOURS`: plan, reward
    and cost of the whole episode."""
    oracle: Episodes = patients[0].session.episodes[ORACLE]
    simulator, menu = oracle.simulator, patients[0].session.game.task().actions
    assert isinstance(menu, Menu)
    table = menu.table(simulator.world.orders)  # [E, A]
    apart = round(EVERY_HOURS / simulator.world.hours_per_step)
    given = torch.arange(oracle.horizon_steps) % apart == 0
    plans = table.unsqueeze(1) * given[:, None]  # [E, H, A]
    running = [one.session.branches[0].moments[0][ORACLE].running for one in patients]
    state, chart = tree.repeat(tree.cat([(now.state, now.chart) for now in running]), len(table))
    out = simulator.rollout(state, chart, plans.repeat(len(patients), 1, 1))
    rewards, costs = (x.sum(1).reshape(len(patients), -1).tolist() for x in (out.rewards, out.costs))
    names = [name if i == 0 else f"{name} every {EVERY_HOURS:g} h" for i, (name, _) in enumerate(menu.entries)]
    return [
        [
            {"plan": name, "reward": round(reward, 4), "cost": cost}
            for name, reward, cost in zip(names, *columns, strict=True)
        ]
        for columns in zip(rewards, costs, strict=True)
    ]


def packed(state: Named) -> bytes:
    """The tensors of a state one after the other, little-endian."""
    return b"".join(_bytes(value) for value in state.values())


def _bytes(value: Tensor) -> bytes:
    return value.contiguous().numpy().astype(value.numpy().dtype.newbyteorder("<")).tobytes()
