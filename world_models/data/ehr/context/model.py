"""Static context by a language model: any OpenAI-compatible server, or any callable that answers prompts.

A model is asked for JSON of `schema.JSON_SCHEMA`. An answer that is no JSON, off the schema, or says what the note does
not is sent back with what was wrong; after `MOST_ATTEMPTS` the rules speak in the model's place. An answer right but
for words that are not in the note is kept without them at the last attempt, if a diagnosis is left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from world_models.data.ehr.context.grounding import grounded
from world_models.data.ehr.context.rules import by_rules
from world_models.data.ehr.context.schema import (
    JSON_SCHEMA,
    SEXES,
    TERMS,
    ConfigError,
    StatedDiagnosis,
    StaticContext,
    as_json,
    read_context,
)
from world_models.ehr_world.causal_lm.client import LLMClient, LLMServerError, Message
from world_models.ehr_world.causal_lm.prompt import Backend, server

__all__ = ["MOST_ATTEMPTS", "RESPONSE_FORMAT", "Extraction", "endpoint", "extract", "messages"]

MOST_ATTEMPTS = 3  # questions a note, the first one included
MOST_TOKENS = 2048  # of an answer: a long list of diagnoses with their reasons has about a thousand
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "static_context", "strict": True, "schema": JSON_SCHEMA},
}
NOT_TAKEN = frozenset({400, 404, 415, 422, 501})  # what servers answer to a field that they do not know
TOO_LONG = frozenset({400, 413, 422})  # what they answer to a note that they cannot take: no use to ask again
_DECODER = json.JSONDecoder()
_SYSTEM = (
    "You read a hospital's discharge summary and answer with one JSON object and nothing else. Its fields:\n"
    '"age_years": number or null; "sex": ' + " or ".join(f'"{s}"' for s in SEXES) + " or null;\n"
    '"allergies": list of the agents the patient is allergic to, [] if the note says there are none, null if it does '
    "not say;\n"
    '"primary": the diagnosis that explains this admission, or null; "secondary": list of the other diagnoses.\n'
    'A diagnosis is {"name": ..., "reason": ..., "icd10": ..., "terms": [...]}: "name" and "reason" (the finding that '
    'the note gives for it, "" if none) are copied word by word from the note, as short as can be; "icd10" is a code '
    'only if the note writes one, else null; "terms" are those of the following that the diagnosis is, or []: '
    + ", ".join(TERMS)
    + ".\n"
    "Give only diagnoses of this admission and chronic conditions that the patient still has. Leave out what was ruled "
    "out or denied, what is past, and what relatives have."
)

# one worked example: small models need it, and large ones see what "as short as can be" means
_EXAMPLE = (
    "74 year old man with diabetes, admitted with cough. Chest film: infiltrate. No sign of heart failure. His brother "
    "has kidney disease. Allergies: iodine. Treated for pneumonia because of the infiltrate; sodium was 126 "
    "(hyponatremia) and recovered."
)
_EXAMPLE_CONTEXT = StaticContext(
    74.0,
    "male",
    ("iodine",),
    StatedDiagnosis("pneumonia", "infiltrate", None, ("pneumonia",)),
    (StatedDiagnosis("diabetes", "", None, ("diabetes",)), StatedDiagnosis("hyponatremia", "sodium was 126")),
)


@dataclass(frozen=True)
class Extraction:
    """A note's context, and how it came about."""

    context: StaticContext
    speaker: str  # "model" or "rules"
    attempts: int = 0  # answers asked of a model
    # why answers were refused, counted: "no answer", "request refused", "no JSON", "off the schema",
    # "not in the note: FIELD"
    refused: dict[str, int] = field(default_factory=dict)
    error: str = ""  # why the rules spoke in the model's place


def messages(note: str) -> list[Message]:
    """What asks a model for a note's context."""
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _EXAMPLE},
        {"role": "assistant", "content": json.dumps(as_json(_EXAMPLE_CONTEXT))},
        {"role": "user", "content": note},
    ]


def endpoint(client: LLMClient, most_tokens: int = MOST_TOKENS) -> Backend:
    """A server as a backend, at temperature 0, with `RESPONSE_FORMAT` where it takes that.

    A request that the server refuses is put again without the format; if that is answered, the format is not asked for
    any more.
    """
    strict = server(client, most_tokens, response_format=RESPONSE_FORMAT)
    plain = server(client, most_tokens)
    takes_format = True

    def ask(prompts: Sequence[Any]) -> list[str | Exception]:
        nonlocal takes_format
        answers = (strict if takes_format else plain)(prompts)
        again = [
            i for i, a in enumerate(answers) if takes_format and isinstance(a, LLMServerError) and a.status in NOT_TAKEN
        ]
        if again:
            second = plain([prompts[i] for i in again])
            takes_format = not any(isinstance(a, str) for a in second)
            for i, answer in zip(again, second, strict=True):
                answers[i] = answer
        return answers

    return ask


def found_json(answer: str) -> str:
    """The first JSON object in an answer, after whatever a model thought aloud. Raises ConfigError: there is none."""
    answer = answer.rpartition("</think>")[2]
    begin = answer.find("{")
    while begin >= 0:
        try:
            value, end = _DECODER.raw_decode(answer, begin)
        except (ValueError, RecursionError):
            begin = answer.find("{", begin + 1)
            continue
        if JSON_SCHEMA["properties"].keys() & value.keys():
            return answer[begin:end]
        begin = answer.find("{", end)
    raise ConfigError("the answer holds no JSON object with the fields asked for; answer with that object alone")


@dataclass
class _Asked:
    """One note under way."""

    note: str
    talk: list[Message]
    refused: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    error: str = ""
    nearly: StaticContext | None = None  # right but for words that are not in the note, which are left out
    done: StaticContext | None = None
    hopeless: bool = False  # the server does not take this note

    def hear(self, answer: str | Exception) -> None:
        """Take an answer, or what to say about it."""
        self.attempts += 1
        if isinstance(answer, Exception):
            self.error = str(answer)
            self.hopeless = getattr(answer, "status", None) in TOO_LONG
            self.refused["request refused" if self.hopeless else "no answer"] += 1
            return
        try:
            text = found_json(answer)
        except ConfigError as error:
            self._complain(answer, "no JSON", str(error))
            return
        try:
            said = read_context(text, "the answer")
        except ConfigError as error:
            self._complain(answer, "off the schema", str(error))
            return
        kept, foreign = grounded(said, self.note)
        if not foreign:
            self.done = kept
            return
        self.nearly = kept if any(kept.diagnoses()) else self.nearly
        for name, count in foreign.items():
            self.refused[f"not in the note: {name}"] += count
        what = f"these fields hold words that do not stand in the note: {', '.join(foreign)}; copy them from it exactly"
        self._complain(answer, "", what)

    def _complain(self, answer: str, kind: str, what: str) -> None:
        if kind:
            self.refused[kind] += 1
        self.error = what
        asking: Message = {
            "role": "user",
            "content": f"That was not right: {what}. Answer again with the whole object.",
        }
        self.talk = [
            *messages(self.note),
            {"role": "assistant", "content": answer},
            asking,
        ]  # the last try only: room is dear


def extract(notes: Sequence[str], backend: Backend | None, most_attempts: int = MOST_ATTEMPTS) -> list[Extraction]:
    """The context of each note [N]; all that are still open are asked together, so a server can work on many.

    Args:
        backend: `endpoint`, `causal_lm.prompt.gguf`, or any callable from prompts to answers; None: the rules alone.
        most_attempts: questions a note, 1 at least.
    """
    if backend is None:
        return [Extraction(by_rules(note), "rules") for note in notes]
    asked = [_Asked(note, messages(note)) for note in notes]
    for _ in range(most_attempts):
        open_ = [one for one in asked if one.done is None and not one.hopeless]
        if not open_:
            break
        for one, answer in zip(open_, backend([one.talk for one in open_]), strict=True):
            one.hear(answer)
    return [_told(one) for one in asked]


def _told(one: _Asked) -> Extraction:
    if one.done is not None:
        return Extraction(one.done, "model", one.attempts, dict(one.refused))
    if one.nearly is not None:
        return Extraction(one.nearly, "model", one.attempts, dict(one.refused))
    spoken = Extraction(by_rules(one.note), "rules", one.attempts, dict(one.refused), one.error)
    return replace(spoken, error=spoken.error or "the model gave no answer")
