"""Texts of stays to narratives (`text` writes them), or an error that names the line and what was expected there."""

from __future__ import annotations

from pathlib import Path

from world_models.data.ehr.episode import Diagnosis
from world_models.ehr_world.causal_lm.text import (
    _NUMBER,
    NARROWEST_STEP_HOURS,
    AskedItem,
    Given,
    Narrative,
    NarrativeError,
    NarrativeStep,
    _unescape,
    ask_text,
    parse_outcome,
)

__all__ = ["parse", "parse_stays", "read_stays"]


def parse(text: str) -> Narrative:
    """The narrative of a text: `parse(render(n)) == n` and `render(parse(text)) == text` for a text of ours.

    Raises:
        NarrativeError: names the line and what was expected there.
    """
    if not text.endswith("\n"):
        raise NarrativeError("the text does not end with a newline: it was cut off; give the whole stay")
    lines = text[:-1].split("\n")
    facts, width = _context(lines[0])
    at = 1
    diagnoses: tuple[Diagnosis, ...] = ()
    if at < len(lines) and lines[at].startswith("diagnoses | "):
        diagnoses = tuple(_diagnosis(field, at + 1) for field in lines[at].split(" | ")[1:])
        at += 1
    steps: list[NarrativeStep] = []
    while at < len(lines):
        step, at = _step(lines, at, width)
        if steps and step.number <= steps[-1].number:
            raise NarrativeError(
                f"line {at}: step {step.number} stands after step {steps[-1].number}: time runs backwards; "
                "sort the steps"
            )
        steps.append(step)
    return Narrative(facts, diagnoses, width, tuple(steps))


def parse_stays(text: str) -> list[Narrative]:
    """The narratives of a text that holds several stays, an empty line between them."""
    return [parse(stay.strip("\n") + "\n") for stay in text.split("\n\n") if stay.strip("\n")]


def read_stays(path: str | Path) -> list[Narrative]:
    """`parse_stays` of a file.

    Raises:
        NarrativeError: it holds no stay, or one that does not parse; names the file.
    """
    path = Path(path)
    try:
        stays = parse_stays(path.read_text(encoding="utf-8", errors="strict"))
    except (NarrativeError, UnicodeDecodeError) as error:
        raise NarrativeError(f"{path}: {error}") from None
    if not stays:
        raise NarrativeError(f"{path} holds no stay; write them with text.render, an empty line between two")
    return stays


def _number(text: str, line: int, what: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise NarrativeError(f"line {line}: {what} {text!r} is no number; expected one like 4 or 0.25")
    return float(text)


def _context(line: str) -> tuple[tuple[tuple[str, float | str], ...], float]:
    fields = line.split(" | ")
    if fields[0] != "patient" or len(fields) < 2 or not fields[-1].startswith("step "):
        raise NarrativeError(f"line 1: {line[:60]!r}; expected 'patient | ... | step HOURS'")
    width = _number(fields[-1][5:], 1, "step")
    if not width >= NARROWEST_STEP_HOURS * 0.999:
        raise NarrativeError(f"line 1: steps of {width} hours are under a minute; give at least 1/60")
    facts: list[tuple[str, float | str]] = []
    for field in fields[1:-1]:
        name, blank, value = field.partition(" ")
        if not name or not blank:
            raise NarrativeError(f"line 1: {field!r}; expected a fact, 'name value'")
        if _NUMBER.fullmatch(value):
            facts.append((name, float(value)))
        else:
            quoted = len(value) >= 2 and value[0] == value[-1] == '"'
            facts.append((name, _unescape(value[1:-1] if quoted else value, 1)))
    return tuple(facts), width


def _diagnosis(field: str, line: int) -> Diagnosis:
    parts = field.split(" ", 2)
    if len(parts) != 3 or not (parts[0] == "-" or parts[0].isdecimal()):
        raise NarrativeError(f"line {line}: {field!r}; expected 'RANK VERSION CODE', RANK '-' where there is none")
    return Diagnosis(None if parts[0] == "-" else int(parts[0]), parts[1], _unescape(parts[2], line))


def _step(lines: list[str], at: int, width: float) -> tuple[NarrativeStep, int]:
    """The step that begins at lines[at], and where the next one does."""
    if not lines[at].startswith("hour "):
        raise NarrativeError(f"line {at + 1}: {lines[at][:60]!r}; expected 'hour HOURS', the head of a step")
    hours = _number(lines[at][5:], at + 1, "hour")
    index = round(hours / width)
    if index < 0 or abs(index * width - hours) > 1e-3:
        raise NarrativeError(f"line {at + 1}: hour {hours:g} is no multiple of the step of {width:g} hours")
    at += 1
    items: list[str] = []
    if at < len(lines) and lines[at].startswith("ask | "):
        items = [_unescape(field, at + 1) for field in lines[at].split(" | ")[1:]]
        at += 1
    given: list[Given] = []
    while at < len(lines) and lines[at].startswith("give | "):
        given.append(_given(lines[at], at + 1))
        at += 1
    asked: list[AskedItem] = []
    for item in items:
        if at == len(lines) or not lines[at].startswith(ask_text(item)):
            break
        asked.append(parse_outcome(item, lines[at][len(ask_text(item)) :], at + 1))
        at += 1
    if at < len(lines) and not lines[at].startswith("hour "):
        expected = f"the outcome of {items[len(asked)]!r}" if len(asked) < len(items) else "the next step, 'hour HOURS'"
        raise NarrativeError(f"line {at + 1}: {lines[at][:60]!r}; expected {expected}")
    asked += [AskedItem(item) for item in items[len(asked) :]]
    return NarrativeStep(index, tuple(asked), tuple(given)), at


def _given(line: str, at: int) -> Given:
    fields = line.split(" | ")
    if len(fields) < 3:
        raise NarrativeError(f"line {at}: {line[:60]!r}; expected 'give | ITEM | KIND | ...'")
    given = Given(_unescape(fields[1], at), _unescape(fields[2], at))
    for field in fields[3:]:
        word, _, rest = field.partition(" ")
        if word in ("dose", "rate"):
            digits, _, unit = rest.partition(" ")
            amount, unit = None if digits == "?" else _number(digits, at, word), _unescape(unit, at)
            given = (
                given._replace(dose=amount, unit=unit)
                if word == "dose"
                else given._replace(rate=amount, rate_unit=unit)
            )
        elif word == "for":
            given = given._replace(hours=_number(rest, at, word))
        elif word == "route":
            given = given._replace(route=_unescape(rest, at))
        else:
            raise NarrativeError(f"line {at}: {field!r}; expected dose, rate, for or route")
    return given
