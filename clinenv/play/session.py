"""A patient being played: the same one in a learned world and in the oracle, and the branches of the course."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clinenv.admission import admission_factors
from clinenv.play import course
from clinenv.play.game import Game
from clinenv.play.games import default_world
from world_models import keys

__all__ = ["MOST_BRANCHES", "ORACLE", "PlayError", "Session"]

ORACLE = "oracle"
ROLES = ("learned", ORACLE)
MOST_BRANCHES = 8


class PlayError(ValueError):
    """What was asked for cannot be done; one sentence with the remedy, which the page shows."""


@dataclass
class Branch:
    """A course under its own orders, from admission on: what it shares with its parent, it shares."""

    parent: tuple[int, int] | None  # branch and step that it left; None: the first
    moments: list[dict[str, course.Stand]] = field(default_factory=list)  # role -> where the patient stands


class Session:
    """One patient.

    The patient is the oracle's of that seed and cohort; the learned world is told what the oracle's admission chart
    shows, and draws the rest, and all chance to come, from the same key.

    Args:
        world: whose chart is seen and orders are given on: "oracle", or a learned world by name or folder; the other
            role goes along with the same orders.
        hours: longest course; None: the task's.

    Raises:
        ValueError: an unknown world or cohort, a seed or a length that is none; the message names the choices.
    """

    def __init__(self, game: Game, world: str, seed: int, cohort: str, hours: float | None = None) -> None:
        self.game, self.seed, self.cohort = game, seed, cohort
        self.seen = ORACLE if world == ORACLE else "learned"
        learned = course.episodes_of(game, default_world(game.id) if world == ORACLE else world, cohort, hours)
        step = learned.simulator.world.hours_per_step
        try:
            oracle = course.episodes_of(game, ORACLE, cohort, hours)
            if oracle.simulator.world.hours_per_step != step:
                oracle = course.episodes_of(game, ORACLE, cohort, hours, step)
        except ValueError as error:
            raise PlayError(str(error)) from error
        self.episodes = {"learned": learned, ORACLE: oracle}
        base = keys.from_seed(seed, 1)
        truth = course.begin(game, oracle, base)
        told = admission_factors(truth.running.chart, learned.simulator.world)
        first = {"learned": course.begin(game, learned, base, told), ORACLE: truth}
        self.facts = [[fact.what, fact.value] for fact in game.facts(first[self.seen].running.chart)]
        self.branches = [Branch(None, [first])]

    def order(self, branch: int, step: int, action: Any) -> dict[str, Any]:
        """Carry out orders at the last moment of a branch, in both worlds; the new moment as JSON.

        Raises:
            PlayError: no such branch, a step that is not its last one (the page is behind), or a course that is over.
            ValueError: no action of the id.
        """
        chosen = self._branch(branch)
        last = len(chosen.moments) - 1
        if step != last:
            raise PlayError(
                f"the course stands at step {last}, not {step}; reload the page, or branch from step {step}"
            )
        now = chosen.moments[-1]
        if now[self.seen].shown["end"] is not None:
            raise PlayError("this course is over; branch from an earlier step, or take a new patient")
        after = {role: course.advance(self.game, self.episodes[role], now[role], action) for role in ROLES}
        chosen.moments.append(after)
        return _told(after)

    def fork(self, branch: int, step: int) -> dict[str, Any]:
        """A new branch that shares the course up to a step; its JSON.

        Raises:
            PlayError: no such branch or step, a course that was over there, or too many branches.
        """
        moments = self._moments(branch, step)
        if len(self.branches) >= MOST_BRANCHES:
            raise PlayError(f"there are {MOST_BRANCHES} branches already, the most there may be; take a new patient")
        if moments[-1][self.seen].shown["end"] is not None:
            raise PlayError(f"the course is over at step {step}; branch from an earlier step")
        self.branches.append(Branch((branch, step), list(moments)))
        return self._branch_told(len(self.branches) - 1)

    def ecg(self, branch: int, step: int, role: str) -> str | None:
        """The ECG of a moment as an SVG; None where that world draws none.

        Raises:
            PlayError: no such branch, step or role.
        """
        if role not in ROLES:
            raise PlayError(f"no role {role!r}; there are: {', '.join(ROLES)}")
        stand = self._moments(branch, step)[-1][role]
        made = self.episodes[role]
        time = stand.shown["time"]
        when = f"hour {time:g}" if self.game.clock == "h" else f"year {time:.1f}"
        title = f"Simulated patient {self.seed}, {made.simulator.world.name}, {when}"
        return course.paper(self.game, made, stand, title, f"ecg-{branch}-{role}")

    def told(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "seed": self.seed,
            "cohort": self.cohort,
            "seen": self.seen,
            "worlds": {role: course.about(made) for role, made in self.episodes.items()},
            "facts": self.facts,
            "branches": [self._branch_told(number) for number in range(len(self.branches))],
        }

    def _branch(self, branch: int) -> Branch:
        if not 0 <= branch < len(self.branches):
            raise PlayError(f"there is no branch {branch}; the branches are 0 to {len(self.branches) - 1}")
        return self.branches[branch]

    def _moments(self, branch: int, step: int) -> list[dict[str, course.Stand]]:
        """The moments of a branch up to a step."""
        moments = self._branch(branch).moments
        if not 0 <= step < len(moments):
            raise PlayError(f"branch {branch} has no step {step}; its steps are 0 to {len(moments) - 1}")
        return moments[: step + 1]

    def _branch_told(self, number: int) -> dict[str, Any]:
        branch = self.branches[number]
        parent = None if branch.parent is None else {"branch": branch.parent[0], "step": branch.parent[1]}
        return {"id": number, "parent": parent, "moments": [_told(moment) for moment in branch.moments]}


def _told(moment: dict[str, course.Stand]) -> dict[str, Any]:
    return {role: stand.shown for role, stand in moment.items()}
