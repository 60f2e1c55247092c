"""Requests as they come in: strict JSON with known fields, or one named error. Nothing is unpickled or evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from clinenv.serving.errors import Garbled, Refused, shown

__all__ = ["OBSERVATIONS", "fields", "read", "reset_fields", "session_id"]

OBSERVATIONS = ("both", "text", "chart")
_LONGEST_NAME = 255  # characters of an episode's or a session's id, as in OpenEnv
_DEEPEST = 8  # nested lists and objects
_RESET = ("seed", "episode_id", "options", "observation", "session_id")


def read(body: bytes | str) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        Garbled: no JSON in UTF-8, none of an object, a name that is there twice, NaN or an infinite number, or lists
            and objects nested too deep.
    """
    try:
        text = body.decode("utf-8") if isinstance(body, bytes) else body
        found = json.loads(
            text, parse_constant=_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once
        )
    except UnicodeDecodeError as error:
        raise Garbled(f"the body is no UTF-8 (byte {error.start}); send JSON in UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise Garbled(f"the body is no JSON: {error.msg} at character {error.pos}; send one JSON object") from None
    if not isinstance(found, dict):
        raise Garbled(f"the body is {shown(found)}, no JSON object; send one, such as {{}}")
    _check_depth(found, 0)
    return found


def fields(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raises Refused unless every name is known."""
    for name in given:
        if name not in known:
            raise Refused(f"field {shown(name)} of {where} is unknown; it may have {', '.join(known)}")


def reset_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a reset, those left out at their defaults: seed None, options {}, observation "both".

    Raises:
        Refused: an unknown field, or one of another kind. What seed and options may be, the environment itself checks.
    """
    fields(given, _RESET, "a reset")
    seed, options = given.get("seed"), given.get("options")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64):
        raise Refused(f"seed {shown(seed)} is no whole number from 0 to {2**64 - 1}; give one, or leave it out")
    if options is not None and not isinstance(options, dict):
        raise Refused(f'options {shown(options)} is no object; give one such as {{"age_years": 70}}, or leave it out')
    kind = given.get("observation", OBSERVATIONS[0])
    if kind not in OBSERVATIONS:
        raise Refused(f"observation {shown(kind)} is unknown; give one of {', '.join(OBSERVATIONS)}")
    return {
        "seed": seed,
        "options": options or {},
        "observation": kind,
        "episode_id": _name(given.get("episode_id"), "episode_id"),
    }


def session_id(given: Any) -> str | None:
    """Raises Refused unless it is a name, or None."""
    return _name(given, "session_id")


def _name(value: Any, what: str) -> str | None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME):
        raise Refused(f"{what} {shown(value)} is no text of 1 to {_LONGEST_NAME} characters; give one, or leave it out")
    return value


def _constant(name: str) -> NoReturn:
    raise Garbled(f"the body holds {name}, which is no number in JSON; send a finite number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Garbled(f"the number {text[:40]} is too large for 64 bits; send a finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > 25:  # Python refuses to read thousands of digits, and none of ours has more than 20
        raise Garbled(f"the number {text[:25]}... has {len(text)} digits; no number here has more than 25")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise Garbled(f"the name {shown(twice)} is there twice in one object; send it once")
    return made


def _check_depth(node: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise _too_deep()
    if isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            _check_depth(part, depth + 1)


def _too_deep() -> Garbled:
    return Garbled(f"the body nests lists or objects deeper than {_DEEPEST}; no request needs that")
