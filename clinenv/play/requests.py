"""What a page may ask for: bodies of requests, checked field by field before anything is done."""

from __future__ import annotations

import json
import math
from typing import Any

from clinenv.play.game import Game
from clinenv.play.session import ORACLE, PlayError

__all__ = ["MOST_BYTES", "checked_body", "checked_patient", "whole"]

MOST_BYTES = 65_536  # of a request's body: 69 numbers need a thousand
MOST_SEED = 2**53 - 1  # what a browser's number holds exactly
LEAST_HOURS = 1.0


def checked_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises PlayError: too long, no JSON, no object, or numbers that are none."""
    if len(body) > MOST_BYTES:
        raise PlayError(f"the request holds {len(body)} bytes; at most {MOST_BYTES} are read")
    try:
        found = json.loads(body or b"{}", parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise PlayError("the request is no JSON; send an object") from error
    if not isinstance(found, dict):
        raise PlayError(f"the request is a {type(found).__name__}; send an object")
    return found


def checked_patient(game: Game, worlds: tuple[str, ...], body: dict[str, Any]) -> dict[str, Any]:
    """seed, cohort, world and hours of a new patient.

    Raises:
        PlayError: one of them is none of those there are; the message names the choices.
    """
    cohort = body.get("cohort", next(iter(game.cohorts)))
    if not isinstance(cohort, str) or cohort not in game.cohorts:
        raise PlayError(f"no cohort {str(cohort)[:40]!r}; choose one of {', '.join(game.cohorts)}")
    world = body.get("world", worlds[0])
    if world not in (*worlds, ORACLE):
        raise PlayError(f"no world {str(world)[:40]!r} here; choose one of {', '.join((*worlds, ORACLE))}")
    return {
        "seed": whole(body, "seed", MOST_SEED, 1),
        "cohort": cohort,
        "world": world,
        "hours": _hours(body.get("hours"), game.task().horizon_hours),
    }


def whole(body: dict[str, Any], name: str, most: int, otherwise: int | None = None) -> int:
    """A whole number from 0 to `most` under a name. Raises PlayError: it is none."""
    value = body.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise PlayError(f"{name} {str(value)[:40]!r} is no whole number from 0 to {most}; give one")
    return value


def _hours(value: Any, most: float) -> float | None:
    if value is None:
        return None
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not LEAST_HOURS <= value <= most:
        raise PlayError(
            f"a length of {str(value)[:40]} h is not from {LEAST_HOURS:g} to {most:g} h; give one in between"
        )
    return float(value)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
