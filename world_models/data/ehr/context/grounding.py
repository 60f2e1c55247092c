"""What an answer says and the note does not: a model may invent a diagnosis, and what it invents is left out."""

from __future__ import annotations

import re
from collections import Counter

from world_models.data.ehr.context.schema import StatedDiagnosis, StaticContext
from world_models.data.ehr.context.terms import terms_of

__all__ = ["grounded"]


def _plain(text: str) -> str:
    """Words and numbers in lower case, parted by single spaces, a space at either end."""
    return f" {' '.join(re.findall(r'[a-z0-9]+(?:[.][0-9]+)?', text.lower()))} "


def grounded(context: StaticContext, note: str) -> tuple[StaticContext, dict[str, int]]:
    """The context without what the note does not say, and how often each field said such a thing.

    Names, reasons, allergies and codes must stand in the note word by word (case, line breaks and punctuation apart),
    an age as a number. A diagnosis whose name does not is dropped whole; of one whose reason or code does not, that
    alone. Terms are not words of the note: those of the name's own words are added to them. An empty list of allergies
    stands, as there are many ways to say it.
    """
    words, refused = _plain(note), Counter[str]()

    def stands(text: str, field: str) -> bool:
        found = _plain(text) in words and _plain(text).strip() != ""
        refused[field] += not found
        return found

    def kept(diagnosis: StatedDiagnosis, field: str) -> StatedDiagnosis | None:
        if not stands(diagnosis.name, field):
            return None
        reason = diagnosis.reason if diagnosis.reason and stands(diagnosis.reason, f"{field}.reason") else ""
        code = diagnosis.icd10 if diagnosis.icd10 and stands(diagnosis.icd10, f"{field}.icd10") else None
        terms = dict.fromkeys((*diagnosis.terms, *terms_of(diagnosis.name, primary=field == "primary")))
        return StatedDiagnosis(diagnosis.name.strip(), reason.strip(), code, tuple(terms))

    age = context.age_years
    if age is not None and not re.search(rf"(?<![\d.]){age:g}(?!\.?\d)", note):  # "67M" tells it, "Hgb 6.7" does not
        refused["age_years"] += 1
        age = None
    allergies = context.allergies
    if allergies:
        allergies = tuple(a.strip() for a in allergies if stands(a, "allergies")) or None
    primary = None if context.primary is None else kept(context.primary, "primary")
    secondary = [kept(diagnosis, "secondary") for diagnosis in context.secondary]
    left = StaticContext(age, context.sex, allergies, primary, tuple(d for d in secondary if d is not None))
    return left, dict(+refused)
