"""Static context of one stay: who the patient is, what he reacts to, and what he was treated for and why.

It is the patient-level profile that EHRWorld (appendix A.1) has a language model read from a discharge summary:
demographics, allergies, and a primary and secondary diagnoses, each with the reason that the summary gives. Names and
reasons are the note's own words; `terms` says which of the ward's diseases and chronic conditions a diagnosis is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from world_models.config_json import ConfigError, from_json, parse_json
from world_models.quantities.ward import DISEASES, STATIC

__all__ = [
    "CHRONIC",
    "JSON_SCHEMA",
    "SEXES",
    "TERMS",
    "ConfigError",
    "StatedDiagnosis",
    "StaticContext",
    "StayKey",
    "as_json",
    "read_context",
]

StayKey = tuple[int, int]  # subject_id, stay_id (hadm_id in MIMIC)
SEXES = ("female", "male")
# what was known before admission: the ward's yes-or-no features but the sex
CHRONIC: tuple[str, ...] = tuple(q.name for q in STATIC if q.unit == "bool" and q.name != "sex_female")
TERMS: tuple[str, ...] = (*DISEASES, *CHRONIC)
LONGEST = 300  # characters of a name or a reason: a sentence or two, not the note again
MOST_DIAGNOSES = 100  # more than any discharge list has
MOST_ALLERGIES = 40
OLDEST_YEARS = 130.0
_ICD10 = re.compile(r"[A-TV-Z][0-9][0-9A-Z](?:\.?[0-9A-Z]{1,4})?")


@dataclass(frozen=True, slots=True)
class StatedDiagnosis:
    """A diagnosis as the summary states it."""

    name: str  # in the note's words
    reason: str = ""  # why, in the note's words; "" where it gives none
    icd10: str | None = None  # only where the note writes the code
    terms: tuple[str, ...] = ()  # of TERMS: what it means in the ward; a ketoacidosis is a diabetes too

    def __post_init__(self) -> None:
        _check_text("name", self.name, least=1)
        _check_text("reason", self.reason)
        if self.icd10 is not None and not _ICD10.fullmatch(self.icd10):
            raise ValueError(f"icd10 {self.icd10!r} is no ICD-10 code such as I50.23; give one that is told, or null")
        unknown = [term for term in self.terms if term not in TERMS]
        if unknown:
            raise ValueError(f"term {unknown[0]!r} is unknown; give only: {', '.join(TERMS)}")


@dataclass(frozen=True, slots=True)
class StaticContext:
    """What a discharge summary says of its stay as a whole; None where it does not say."""

    age_years: float | None = None  # at admission
    sex: str | None = None  # one of SEXES
    allergies: tuple[str, ...] | None = None  # (): said to have none
    primary: StatedDiagnosis | None = None
    secondary: tuple[StatedDiagnosis, ...] = ()

    def __post_init__(self) -> None:
        if self.age_years is not None and not 0 <= self.age_years <= OLDEST_YEARS:
            raise ValueError(f"age_years {self.age_years:g} is outside 0..{OLDEST_YEARS:g}; give years, or null")
        if self.sex is not None and self.sex not in SEXES:
            raise ValueError(f"sex {self.sex!r} is none of {', '.join(SEXES)}; give one of them, or null")
        if len(self.allergies or ()) > MOST_ALLERGIES:
            raise ValueError(f"{len(self.allergies or ())} allergies; at most {MOST_ALLERGIES}: give each once")
        for allergy in self.allergies or ():
            _check_text("allergy", allergy, least=1)
        if len(self.secondary) > MOST_DIAGNOSES:
            raise ValueError(f"{len(self.secondary)} secondary diagnoses; at most {MOST_DIAGNOSES}: give each once")

    def diagnoses(self) -> Iterator[StatedDiagnosis]:
        """The primary one first."""
        if self.primary is not None:
            yield self.primary
        yield from self.secondary

    def terms(self) -> set[str]:
        """The ward's diseases and chronic conditions among the diagnoses."""
        return {term for diagnosis in self.diagnoses() for term in diagnosis.terms}


def _check_text(what: str, text: str, least: int = 0) -> None:
    if not least <= len(text.strip()) <= LONGEST:
        told = f"{text[:40]!r} ({len(text)} characters)"
        raise ValueError(f"{what} {told} must have {least} to {LONGEST} characters; quote the words that say it")


def as_json(context: StaticContext) -> dict[str, Any]:
    """A dict of plain JSON, which `read_context` makes equal again."""
    made: dict[str, Any] = json.loads(json.dumps(asdict(context)))  # tuples become lists
    return made


def read_context(value: str | dict[str, Any], where: str = "the context") -> StaticContext:
    """A context from JSON, or from the dict that JSON is read to.

    Raises:
        ConfigError: no JSON, an unknown or missing field, another type, or a value off the limits.
    """
    return from_json(StaticContext, parse_json(value, where) if isinstance(value, str) else value, where)


def _or_null(*kinds: str) -> dict[str, Any]:
    return {"type": [*kinds, "null"]}


_DIAGNOSIS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "reason", "icd10", "terms"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": LONGEST},
        "reason": {"type": "string", "maxLength": LONGEST},
        "icd10": _or_null("string"),
        "terms": {"type": "array", "items": {"type": "string", "enum": list(TERMS)}, "maxItems": 4},
    },
}

_ALLERGIES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": LONGEST},
    "maxItems": MOST_ALLERGIES,
}

# What a server is asked to keep to. All fields are required, as strict servers want it; absence is null.
JSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["age_years", "sex", "allergies", "primary", "secondary"],
    "properties": {
        "age_years": _or_null("number"),
        "sex": {"enum": [*SEXES, None]},
        "allergies": {"anyOf": [_ALLERGIES, {"type": "null"}]},
        "primary": {"anyOf": [_DIAGNOSIS, {"type": "null"}]},
        "secondary": {"type": "array", "items": _DIAGNOSIS, "maxItems": MOST_DIAGNOSES},
    },
}
