"""A discharge summary as its sections: what stands under which heading, headings as American hospitals write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Section", "sections", "sentences"]

# kind -> headings, lower case, without what is in brackets
_HEADINGS: dict[str, tuple[str, ...]] = {
    "allergies": ("allergies", "allergy", "drug allergies", "medication allergies", "allergies/adverse reactions"),
    "diagnosis": (
        "discharge diagnosis", "discharge diagnoses", "final diagnosis", "final diagnoses", "diagnosis", "diagnoses",
        "diagnoses at discharge", "discharge dx",
    ),
    "primary": ("primary diagnosis", "principal diagnosis", "primary", "primary diagnoses", "principal problem"),
    "secondary": (
        "secondary diagnosis", "secondary diagnoses", "secondary", "other diagnoses", "additional diagnoses",
        "comorbidities", "active problems",
    ),
    "history": ("past medical history", "medical history", "pmh", "past history", "past medical/surgical history"),
    "presenting": ("history of present illness", "hpi", "present illness", "history"),
    "course": ("brief hospital course", "hospital course", "course in hospital", "hospital course by problem"),
    "family": ("family history", "family hx", "fh"),
    "other": (
        "social history", "physical exam", "physical examination", "pertinent results", "medications on admission",
        "discharge medications", "discharge condition", "discharge disposition", "discharge instructions",
        "followup instructions", "follow-up", "chief complaint", "major surgical or invasive procedure", "procedures",
        "admission date", "discharge date", "service", "attending", "date of birth", "sex", "name", "imaging", "labs",
    ),
}  # fmt: skip
_KIND_OF = {heading: kind for kind, headings in _HEADINGS.items() for heading in headings}
_HEADING = re.compile(
    r"^[ \t]*(?:[#*=]+[ \t]*)?([A-Za-z][A-Za-z /&,'-]{1,48}?)[ \t]*(?:\([^)\n]*\))?[ \t]*\**:\**(.*)$"
)
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z#])|\n\s*\n|\n(?=\s*(?:#|[-*•]|\d{1,2}[.)])\s)")


class Section(NamedTuple):
    """One heading and what stands under it, down to the next."""

    kind: str  # a key of the headings; "other" for what is of no use here; "" before the first heading
    text: str


def _heading(line: str) -> tuple[str, str] | None:
    """The kind of section that this line begins, and what stands in it already; None for a line of text."""
    match = _HEADING.match(line)
    if match is not None:
        name, rest = " ".join(match[1].lower().split()), match[2].strip()
        if name in _KIND_OF:
            return _KIND_OF[name], rest
        # of headings that nobody listed, those that stand alone or in capitals; "Sepsis: ..." belongs to the course
        return ("other", rest) if not rest or (match[1].isupper() and len(name) > 4) else None
    name = " ".join(line.strip(" \t#*=").lower().split())
    return (_KIND_OF[name], "") if name in _KIND_OF and len(name) > 3 else None


def sections(note: str) -> list[Section]:
    """The sections in the note's order; a heading within a line's text begins none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in note.splitlines():
        begun = _heading(line)
        if begun is None:
            found[-1][1].append(line)
        else:
            found.append((begun[0], [begun[1]]))
    return [Section(kind, "\n".join(lines).strip()) for kind, lines in found if any(line.strip() for line in lines)]


def sentences(text: str) -> Iterator[str]:
    """Sentences, and items of lists; a line break within a sentence becomes a space."""
    for part in _END.split(text):
        plain = " ".join(part.split())
        if plain:
            yield plain
