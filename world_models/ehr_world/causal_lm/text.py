"""A stay as text, the form that EHRWorld's language models read (its section 4), and back again.

    patient | age_years 63 | sex female | step 4
    diagnoses | 1 10 A419
    hour 0
    ask | heart_rate_bpm | culture//blood//aerobic | status
    give | norepinephrine | infusion | rate 0.1 ug/kg/min | for 3.5 | route iv
    heart_rate_bpm = 112
    culture//blood//aerobic = "negative"
    status = "stays"

First what is fixed, with the discharge diagnoses only if they are asked for (they tell the future); then the steps in
time. Each opens with its set of orders: inquiries, then interventions with amount, unit and route; the set of outcomes
follows, one line an inquiry in the order they were asked, so that whatever is predicted stands after everything it may
depend on. Interventions have no outcome. Sets are written in one fixed order (by name).

An outcome is a number in the item's usual unit (`usual_unit`; any other is written after it), or a label in quotes:

    outcome = number [" " unit] newline | '"' text '"' newline        number = ["-"] digits ["." digits] ["e" exponent]

In names, units and labels a backslash, a newline, a return, a bar and a quote are written \\\\ \\n \\r \\p \\q.

`status` is an inquiry of ours, asked last in every step: "stays", or how the stay ends ("discharged", "died").

Kept is what a step knows: an event's own minute within its step and the delay of a result are not. On steps of a
minute (`episode.regrid(1 / 60)`) there is one step for each charted minute, which is the paper's form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.episode import Diagnosis, InquiryEvent, InterventionEvent, PatientEpisode, build_episode
from world_models.quantities import ward as ward_quantities

__all__ = [
    "STATUS",
    "STATUSES",
    "AskedItem",
    "Given",
    "Narrative",
    "NarrativeError",
    "NarrativeStep",
    "ask_text",
    "context_text",
]
__all__ += [
    "narrative_of",
    "number",
    "orders_text",
    "outcome_text",
    "parse_outcome",
]
__all__ += ["render", "to_episode", "usual_unit"]

T = TypeVar("T")

STATUS = "status"
STATUSES = ("stays", "discharged", "died")
NARROWEST_STEP_HOURS = 1 / 60
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "|": "\\p", '"': "\\q"}
_BACK = {escape[1]: plain for plain, escape in _ESCAPES.items()}
_TEXTS = ("race", "admission_type", "admission_location")  # known at admission; discharge_location is not


class NarrativeError(ValueError):
    """A stay that cannot be written, or a text that is none; the message names the line and what was expected."""


class AskedItem(NamedTuple):
    """An inquiry and its outcome: a value in `unit`, or a label, or (both None) not known yet."""

    item: str
    value: float | None = None
    label: str | None = None
    unit: str = ""  # of a value; "" for a label

    @property
    def known(self) -> bool:
        """There is an outcome."""
        return self.value is not None or self.label is not None


class Given(NamedTuple):
    """An intervention. `dose` is an amount, `rate` an amount per time; None is unknown."""

    item: str
    kind: str
    dose: float | None = None
    unit: str = ""
    rate: float | None = None
    rate_unit: str = ""
    hours: float | None = None  # how long; None: at once, or not told
    route: str = ""

    def order(self) -> tuple:
        """By what the interventions of a step are sorted: all fields, what is unknown first."""
        return tuple(-math.inf if field is None else field for field in self)


class NarrativeStep(NamedTuple):
    """A step's orders, and their outcomes where they are known."""

    number: int  # the step begins number * hours_per_step after the start
    asked: tuple[AskedItem, ...] = ()
    given: tuple[Given, ...] = ()

    def orders(self) -> NarrativeStep:
        """The same orders, their outcomes not known yet."""
        return self._replace(asked=tuple(AskedItem(a.item) for a in self.asked))


class Narrative(NamedTuple):
    """A stay as the language models see it."""

    facts: tuple[tuple[str, float | str], ...]  # what is known at admission: name (no blank in it) and value
    diagnoses: tuple[Diagnosis, ...]
    hours_per_step: float
    steps: tuple[NarrativeStep, ...] = ()


def usual_unit(item: str) -> str | None:
    """Unit of an item in the tables of the ward and of the data; None for one that has no number of its own."""
    try:
        return ward_quantities.INQUIRIES[ward_quantities.inquiry_index(item)].unit
    except KeyError:
        known = inquiry_items.find(item)
        return None if known is None else known.unit


def narrative_of(
    episode: PatientEpisode, diagnoses: bool = False, status: bool = True, significant: int | None = None
) -> Narrative:
    """What the text keeps of an episode.

    Args:
        diagnoses: with the discharge diagnoses, as the paper does; they are known only at discharge.
        status: ask for `status` at every step.
        significant: digits that values, doses and rates are rounded to; None keeps all.

    Raises:
        NarrativeError: steps under a minute, or an item named "status".
    """
    facts: list[tuple[str, float | str]] = []
    if episode.age_years is not None:
        facts.append(("age_years", float(episode.age_years)))
    if episode.sex_female is not None:
        facts.append(("sex", "female" if episode.sex_female else "male"))
    facts += [(name, getattr(episode, name)) for name in _TEXTS if getattr(episode, name)]
    if episode.hours_per_step < NARROWEST_STEP_HOURS * 0.999:
        raise NarrativeError(f"hours_per_step={episode.hours_per_step} is under a minute; use regrid(1 / 60) or wider")

    def rounded(value: float | None) -> float | None:
        return value if value is None or significant is None else float(f"{value:.{significant}g}")

    steps = []
    for step in episode.steps:
        asked = []
        for q in sorted(step.inquiries, key=lambda q: (q.item, q.collected)):
            if q.item == STATUS:
                raise NarrativeError(f"stay {episode.stay_id} has an item {STATUS!r}; that name is taken, rename it")
            asked.append(AskedItem(q.item, rounded(q.value), q.label, q.unit if q.label is None else ""))
        if status:
            asked.append(AskedItem(STATUS, label=_end(episode) if step is episode.steps[-1] else STATUSES[0]))
        given = [
            Given(i.item, i.kind, rounded(i.dose), i.unit, rounded(i.rate), i.rate_unit, _duration(i), i.route)
            for i in step.interventions
        ]
        steps.append(NarrativeStep(step.number, tuple(asked), tuple(sorted(given, key=Given.order))))
    return Narrative(tuple(facts), episode.diagnoses if diagnoses else (), episode.hours_per_step, tuple(steps))


def _end(episode: PatientEpisode) -> str:
    if episode.died_in_hospital:
        return STATUSES[2]
    return STATUSES[0] if episode.truncated else STATUSES[1]


def _duration(done: InterventionEvent) -> float | None:
    return None if done.end is None else round((done.end - done.start) / timedelta(hours=1), 4)


def to_episode(narrative: Narrative, started: datetime, subject_id: int = 0, stay_id: int = 0) -> PatientEpisode:
    """An episode that reads the same: `narrative_of(to_episode(n, t)) == n`, but for facts that an episode has no
    field for. Events stand at the start of their step; equal ones spread over it, as a set holds no doubles.

    Raises:
        NarrativeError: an inquiry without an outcome. EpisodeError: a stay that cannot be.
    """
    width = timedelta(hours=narrative.hours_per_step)
    inquiries, interventions, end = [], [], STATUSES[0]
    for step in narrative.steps:
        start = started + step.number * width
        for a, at in _spread([a for a in step.asked if a.item != STATUS], lambda a: a.item, start, width):
            if not a.known:
                raise NarrativeError(
                    f"step {step.number}: {a.item} has no outcome yet; generate it or drop the inquiry"
                )
            inquiries.append(InquiryEvent(a.item, a.value, a.label, at, None, a.unit, ""))
        for g, at in _spread(step.given, lambda g: g, start, width):
            stop = None if g.hours is None else at + timedelta(hours=g.hours)
            interventions.append(
                InterventionEvent(g.item, g.kind, at, stop, g.dose, g.unit, g.rate, g.rate_unit, g.route, "")
            )
        end = next((a.label for a in step.asked if a.item == STATUS and a.label), STATUSES[0])
    discharged = started + width * (narrative.steps[-1].number + 1 if narrative.steps else 0)
    stay: dict[str, object] = {name: value for name, value in narrative.facts if name in _TEXTS}
    for name, value in narrative.facts:
        if name == "sex":
            stay["sex_female"] = value == "female"
        elif name == "age_years":
            stay[name] = value
    died = end == STATUSES[2]
    return build_episode(
        started=started,
        admitted=started,
        discharged=discharged,
        hours_per_step=narrative.hours_per_step,
        inquiries=inquiries,
        interventions=interventions,
        diagnoses=narrative.diagnoses,
        subject_id=subject_id,
        stay_id=stay_id,
        died=discharged if died else None,
        died_in_hospital=died,
        truncated=end == STATUSES[0],
        **stay,
    )


def _spread(
    events: Iterable[T], name: Callable[[T], Hashable], start: datetime, width: timedelta
) -> Iterator[tuple[T, datetime]]:
    """(event, time): of n events of one name, the k-th at k/n of the step."""
    groups: dict[Hashable, list[T]] = {}
    for event in events:
        groups.setdefault(name(event), []).append(event)
    for group in groups.values():
        yield from ((event, start + width * k / len(group)) for k, event in enumerate(group))


def number(value: float) -> str:
    """The shortest decimal that reads back as the same float: 4, 4.2, 1e-05."""
    if not math.isfinite(value):
        raise NarrativeError(f"value {value!r} is not finite; leave it out of the stay")
    return repr(float(value)).removesuffix(".0")


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text) if _ESCAPES.keys() & set(text) else text


def _unescape(text: str, line: int) -> str:
    if "\\" not in text:
        return text
    try:
        return re.sub(r"\\(.?)", lambda match: _BACK[match[1]], text, flags=re.DOTALL)
    except KeyError as error:
        raise NarrativeError(f"line {line}: \\{error.args[0]} is no escape; there are \\\\ \\n \\r \\p \\q") from None


def context_text(narrative: Narrative) -> str:
    """The lines before the first step."""
    fields = ["patient"]
    for name, value in narrative.facts:
        if not name or " " in name or _escape(name) != name:
            raise NarrativeError(f"a fact's name is one word without a bar or a quote, got {name!r}")
        fields.append(f"{name} {_fact(value)}")
    lines = [" | ".join([*fields, f"step {number(narrative.hours_per_step)}"])]
    if narrative.diagnoses:
        ranked = (
            f"{'-' if d.sequence is None else d.sequence} {d.version} {_escape(d.code)}" for d in narrative.diagnoses
        )
        lines.append(" | ".join(["diagnoses", *ranked]))
    return "".join(line + "\n" for line in lines)


def _fact(value: float | str) -> str:
    """A number bare, a text bare unless it could be taken for a number or is quoted itself."""
    if not isinstance(value, str):
        return number(value)
    return f'"{_escape(value)}"' if _NUMBER.fullmatch(value) else _escape(value)


def orders_text(step: NarrativeStep, hours_per_step: float) -> str:
    """The lines of a step before its outcomes."""
    lines = [f"hour {number(round(step.number * hours_per_step, 4))}"]
    if step.asked:
        lines.append(" | ".join(["ask", *(_escape(a.item) for a in step.asked)]))
    for g in step.given:
        fields = ["give", _escape(g.item), _escape(g.kind)]
        for word, amount, unit in (("dose", g.dose, g.unit), ("rate", g.rate, g.rate_unit)):
            if amount is not None or unit:
                fields.append(
                    f"{word} {'?' if amount is None else number(amount)}" + (f" {_escape(unit)}" if unit else "")
                )
        if g.hours is not None:
            fields.append(f"for {number(g.hours)}")
        if g.route:
            fields.append(f"route {_escape(g.route)}")
        lines.append(" | ".join(fields))
    return "".join(line + "\n" for line in lines)


def ask_text(item: str) -> str:
    """What stands before an outcome on its line."""
    return f"{_escape(item)} = "


def outcome_text(asked: AskedItem) -> str:
    """The outcome and the end of its line: what a model is trained to write.

    Raises:
        NarrativeError: there is no outcome.
    """
    if asked.label is not None:
        return f'"{_escape(asked.label)}"\n'
    if asked.value is None:
        raise NarrativeError(f"{asked.item} has no outcome yet")
    usual = asked.unit == usual_unit(asked.item)
    return number(asked.value) + ("" if usual else f" {_escape(asked.unit)}") + "\n"


def parse_outcome(item: str, text: str, line: int = 1) -> AskedItem:
    """An outcome from its text, with or without its newline.

    Raises:
        NarrativeError: it is no number and no label.
    """
    body = text[:-1] if text.endswith("\n") else text
    if len(body) >= 2 and body[0] == body[-1] == '"' and '"' not in body[1:-1]:
        return AskedItem(item, label=_unescape(body[1:-1], line))
    digits, blank, unit = body.partition(" ")
    if not _NUMBER.fullmatch(digits) or not math.isfinite(float(digits)):
        raise NarrativeError(f"line {line}: {item} = {text!r}; expected a finite number, or a label in quotes")
    return AskedItem(item, float(digits), None, _unescape(unit, line) if blank else (usual_unit(item) or ""))


def render(narrative: Narrative) -> str:
    """The whole text. Outcomes that are not known yet are left out, with all that follow in their step."""
    parts = [context_text(narrative)]
    for step in narrative.steps:
        parts.append(orders_text(step, narrative.hours_per_step))
        for asked in step.asked:
            if not asked.known:
                break
            parts += [ask_text(asked.item), outcome_text(asked)]
    return "".join(parts)
