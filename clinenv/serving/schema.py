"""What the server says of itself: JSON schemas and descriptions, in OpenEnv's form."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

import clinenv
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from clinenv.serving.course import Served
from clinenv.serving.messages import OBSERVATIONS

__all__ = ["OPENENV", "RESET", "STEP", "described", "listed", "schemas"]

OPENENV = "0.10.0"  # the release of OpenEnv whose wire format this is

_NUMBER, _TEXT, _FLAG = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
_ID = {"type": "string", "minLength": 1, "maxLength": 255}
RESET: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "seed": {"type": "integer", "minimum": 0, "description": "of the sequence of patients; left out: the next one"},
        "options": {"type": "object", "description": "what is fixed about the patient: see the environment's page"},
        "observation": {"enum": list(OBSERVATIONS), "description": "what an observation holds"},
        "episode_id": _ID,
        "session_id": {**_ID, "description": "over HTTP: of the session to go on with; left out: a new session"},
    },
}
STEP: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["action", "session_id"],
    "properties": {
        "action": {"type": "object"},
        "session_id": _ID,
        "timeout_s": {**_NUMBER, "description": "taken, but the server's own limit holds"},
        "request_id": _ID,
    },
}


def schemas(served: Served) -> dict[str, Any]:
    """The JSON schemas of an id's actions, observations and states, as GET /schema has them."""
    observation = _object({**_observation(served), "metadata": {"type": "object"}})
    first = _object({**observation["properties"], "how_to_act": _TEXT})
    state = {
        "episode_id": {"type": ["string", "null"]},
        "step_count": {"type": "integer"},
        "session_id": _TEXT,
        "env_id": _TEXT,
        "world": _TEXT,
        "seed": {"type": ["integer", "null"]},
        "hours": {**_NUMBER, "description": "since the episode began, h"},
        "return": {**_NUMBER, "description": "sum of the rewards"},
        "done": _FLAG,
    }
    return {
        "action": _action(served),
        "observation": observation,
        "reset_observation": first,
        "state": _object(state),
    }


def described(served: Served) -> dict[str, Any]:
    """GET /metadata: name, description, the environment's page."""
    world = "whose hidden truth is never sent" if served.oracle else "a learned world"
    return {
        "name": served.id,
        "description": f"{_first_words(served.page)} World: {served.world}, {world}. {NOT_FOR_CLINICAL_USE}.",
        "readme_content": f"{served.page}\n\n## By URL\n{served.how_to_act}",
        "version": clinenv.__version__,
        "author": "The clinenv authors",
        "documentation_url": None,
    }


def listed(all_served: list[Served]) -> list[dict[str, Any]]:
    """GET /envs: every id that is served, where, and in which world."""
    return [
        {"id": served.id, "path": f"/{served.id}", "world": served.world, "oracle": served.oracle}
        for served in all_served
    ]


def _action(served: Served) -> dict[str, Any]:
    reader, space = served.reader, served.reader.space
    count = len(reader.labels)
    row = {"type": "array", "minItems": count, "maxItems": count}
    if isinstance(space, spaces.Discrete):
        value: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": count - 1}
    elif isinstance(space, spaces.MultiBinary):
        value = {**row, "items": {"enum": [0, 1]}}
    elif isinstance(space, spaces.MultiDiscrete):
        levels = [{"type": "integer", "minimum": 0, "maximum": int(n) - 1} for n in space.nvec]
        value = {**row, "prefixItems": levels}
    else:
        value = {**row, "items": {"type": "number", "minimum": -1, "maximum": 1}}
    name = {"enum": list(reader.labels)}
    names = {"anyOf": [name, {"type": "array", "items": name}, {"type": "object", "propertyNames": name}]}
    forms = {
        "value": {**value, "description": "numbers of the action space, in the order of the names"},
        "orders": {**names, "description": "names, or names with amounts"},
        "text": {**_TEXT, "description": reader.words()},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**forms, "metadata": {"type": "object"}},
        "oneOf": [{"required": [form]} for form in forms],
        "description": f"exactly one of {', '.join(forms)}",
    }


def _observation(served: Served) -> dict[str, Any]:
    layout = served.layout
    chart = {
        name: {"type": ["number", "null"], "description": unit}
        for name, unit in zip(layout.names, layout.units, strict=True)
    }
    size = served.observation_size
    refusal = _object({"order": _TEXT, "why": _TEXT})
    return {
        "hours": {**_NUMBER, "description": "since the episode began, h"},
        "cost": {**_NUMBER, "description": "safety cost of the last step"},
        "reward_parts": {"type": "object", "description": "the reward's terms"},
        "cost_parts": {"type": "object"},
        "support": {"type": ["boolean", "null"], "description": "within the world's fitted range; null in an oracle"},
        "terminated": _FLAG,
        "truncated": _FLAG,
        "refused": {"type": "array", "items": refusal, "description": "orders that were not carried out"},
        "not_allowed": {"type": "array", "items": _TEXT, "description": "orders that the chart forbids now"},
        "text": {**_TEXT, "description": "the chart in words"},
        "chart": {"type": "object", "properties": chart, "description": "the chart in units"},
        "values": {
            "type": "array",
            "minItems": size,
            "maxItems": size,
            "items": _NUMBER,
            "description": "the observation of gymnasium.make(id), scaled",
        },
        "action_mask": {"type": ["array", "null"], "items": {"enum": [0, 1]}},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _first_words(page: str) -> str:
    """The first paragraph of an environment's page, in one line."""
    paragraphs = [part for part in page.split("\n\n") if part.strip()]
    first = paragraphs[0] if paragraphs else ""
    return " ".join(line for line in first.split("\n") if not line.startswith("#")).strip()
