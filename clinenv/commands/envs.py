"""`clinenv envs`: the ids, their spaces as they are, how long an episode is, and the worlds they are made in."""

from __future__ import annotations

import argparse
from typing import Any

from clinenv.commands.listing import add_json_flag, aligned, as_json
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

__all__ = ["add_arguments", "described", "rows", "run"]

# A step there is a transition that is proposed: it takes no time.
_UNTIMED = ("ECGExplain-v0",)
_HOURS_PER_YEAR = 365.25 * 24
# To go on from recorded stays is how its episodes begin: its spaces are the ward's, and need no stays.
_SPACES_OF = {"EHRReplay-v0": "EHRWard-v0"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv envs`."""
    add_json_flag(parser)


def rows() -> list[dict[str, Any]]:
    """Every id as plain JSON: its form, spaces, horizon, default world, and oracle. Makes each environment once."""
    import gymnasium

    import clinenv
    from clinenv.registration import ENVIRONMENTS, TEAMS

    found = []
    for row in ENVIRONMENTS:
        world = row["kwargs"]["world"]
        made: Any = gymnasium.make(_SPACES_OF.get(row["id"], row["id"]), world=world, disable_env_checker=True)
        told = {
            "action_space": described(made.action_space),
            "observation_space": described(made.observation_space),
        }
        found.append(_row(row["id"], "gymnasium.make", made.unwrapped.simulator, row, told))
    for row in TEAMS:
        team = clinenv.make_team(row["id"])
        told = {
            name: {agent: described(space(agent)) for agent in team.possible_agents}
            for name, space in (("action_space", team.action_space), ("observation_space", team.observation_space))
        }
        found.append(_row(row["id"], "clinenv.make_team", team.team.ward.simulator, row, told))
    return found


def _row(name: str, maker: str, simulator: Any, row: dict, told: dict[str, Any]) -> dict[str, Any]:
    """One id: spaces, the most steps and hours of an episode, and worlds. Hours are null where a step takes no time."""
    from clinenv.envs.ecg_progression.task import ECGProgressionTask

    task, world = simulator.task, simulator.world
    timed = name not in _UNTIMED
    # the clinic's task ends by the calendar, whatever the visits; its horizon in hours only leaves room for the most
    by_years = isinstance(task, ECGProgressionTask)
    hours = float(task.horizon_years * _HOURS_PER_YEAR if by_years else task.horizon_hours)
    steps = row.get("max_episode_steps") or round(hours / world.hours_per_step)  # a team has no limit but the task's
    return {
        "id": name,
        "made_by": maker,
        **told,
        "steps_at_most": steps,
        "hours_at_most": hours if timed else None,
        "hours_per_step": float(world.hours_per_step) if timed else None,
        "world": row["kwargs"]["world"],
        "oracle": None if name in _SPACES_OF else task.oracle,
    }


def described(space: Any) -> dict[str, Any]:
    """A space as plain JSON: its kind, its shape, its type of number, and what bounds it where that is short."""
    found: dict[str, Any] = {"kind": type(space).__name__}
    if hasattr(space, "spaces"):
        parts = space.spaces.items() if hasattr(space.spaces, "items") else enumerate(space.spaces)
        return found | {"spaces": {str(name): described(part) for name, part in parts}}
    if space.shape is not None:
        found["shape"] = list(space.shape)
    if hasattr(space, "nvec"):
        found["choices"] = space.nvec.tolist()
    elif hasattr(space, "n") and not found.get("shape"):
        found["choices"] = int(space.n)
    return found | ({"dtype": str(space.dtype)} if space.dtype is not None else {})


def _short(space: dict[str, Any]) -> str:
    """As a line shows it: "Box(29)", "Discrete(9)", "MultiBinary(69)"."""
    if "kind" not in space:  # a space an agent
        return f"{len(space)} agents'"
    size = space.get("choices") or "x".join(map(str, space.get("shape", ())))
    if isinstance(size, list):
        size = f"{len(size)} entries"
    return f"{space['kind']}({size})"


def run(given: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    found = rows()
    if given.json:
        print(as_json(found))
        return 0
    head = ("id", "action", "observation", "steps", "hours", "learned world", "oracle")
    lines = [
        (
            row["id"],
            _short(row["action_space"]),
            _short(row["observation_space"]),
            str(row["steps_at_most"]),
            "-" if row["hours_at_most"] is None else f"{row['hours_at_most']:g}",
            row["world"],
            row["oracle"] or "none",
        )
        for row in found
    ]
    print(aligned([head, *lines]))
    print(f"Every id takes world=NAME of `clinenv worlds`, too. {NOT_FOR_CLINICAL_USE}")
    return 0
