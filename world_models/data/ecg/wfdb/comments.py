"""Age and sex from the comments of a WFDB header, which every database writes in its own way.

`Age: 56` (PhysioNet Challenge), `<age>: 51` (LUDB), `age: 81` (PTB), both on one line, `Age: 36 months`, `Age (months):
36`, `045Y` (DICOM). What is no single number of years (`18-29`) is unknown, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from world_models.quantity import DAYS_PER_YEAR

__all__ = ["patient_of", "parse_age_years", "parse_sex_female"]

OLDEST_YEARS = 120.0
OVER_89_YEARS = 90.0  # how an age that is told as "over 89" is read
PTBXL_OVER_89 = 300  # PTB-XL's code for it
_YEARS = {
    "year": 1.0,
    "month": 1 / 12,
    "week": 7 / DAYS_PER_YEAR,
    "day": 1 / DAYS_PER_YEAR,
    "hour": 1 / (24 * DAYS_PER_YEAR),
}
_SPELLINGS = {
    "year": "y yr yrs yo y/o y.o year years a",
    "month": "mo mos mon month months mth mths",
    "week": "w wk wks week weeks",
    "day": "d day days",
    "hour": "h hr hrs hour hours",
}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_DICOM = {"D": "day", "W": "week", "M": "month", "Y": "year"}
_UNSTATED = {"", "nan", "none", "null", "unknown", "unk", "n/a", "na", "u", "x", "?", "-", "not stated"}
_BARE = r"\d+(?:[.,]\d+)?"
_PART = r"(\d+(?:[.,]\d+)?)\s*-?\s*([a-z][a-z./]*)"
_LONGEST = 40  # characters of an age
_LINE, _LINES = 2000, 200  # characters of a comment, and comments, that are looked at
# Ages and sexes of somebody or something else.
_OTHERS = "".join(
    f"(?<!{whose} )"
    for whose in (
        "gestational",
        "maternal",
        "paternal",
        "mother",
        "father",
        "mother's",
        "father's",
        "fetal",
        "bone",
        "heart",
        "mean",
    )
)
_NOW = (
    r"(?:time of\s+)?(?:the\s+)?"
    r"(?:ecg|ekg|recording|acquisition|test|exam|examination|study|visit|admission|enrolment|enrollment)"
)
_NEXT_KEY = re.compile(
    r"<[^<>]*>|(?<!\w)(?:age|sex|gender)(?!\w)|(?<![\w.])[A-Za-z]\w*(?:\([^)]*\))?\s*[:=]|[;|\t#]|,(?!\s*\d)",
    re.IGNORECASE,
)


def parse_age_years(text: str, unit: str = "year") -> float | None:
    """'56' -> 56, '36 months' -> 3, '90 days' -> 0.25, '>89' -> 90 (and 300, PTB-XL's code for it).

    Ranges, 'NaN', the implausible (over 120 years) and all else that is not one age -> None.

    Args:
        unit: of a bare number: "year", "month", "week", "day" or "hour".
    """
    said = re.sub(r"\([^()]*\)", "", text[:_LINE]).strip().rstrip(".")
    dicom = re.fullmatch(r"(\d{3})([DWMY])", said)
    if dicom:
        return _plausible(int(dicom.group(1)) * _YEARS[_DICOM[dicom.group(2)]])
    said = re.sub(r"\s+(old|of age)$", "", said.lower())
    over = re.fullmatch(r"(?:>=?|over|above)\s*(\d{2})\s*([a-z./]*)|(\d{2})\s*([a-z./]*)\s*\+", said)
    if over:
        number, word = over.group(1) or over.group(3), over.group(2) or over.group(4)
        return OVER_89_YEARS if number in ("89", "90") and _UNITS.get(word or unit, word) == "year" else None
    parts = rf"{_BARE}|{_PART}(?:\s*(?:,|and)?\s*{_PART})*"
    if len(said) > _LONGEST or not re.fullmatch(parts, said):
        return None
    years, last = 0.0, float("inf")
    for number, word in [(said, "")] if re.fullmatch(_BARE, said) else re.findall(_PART, said):
        size = _YEARS.get(_UNITS.get(word, "") if word else unit)
        if size is None or size >= last:  # an unknown unit, or years after months: not one age
            return None
        years, last = years + float(number.replace(",", ".")) * size, size
    return OVER_89_YEARS if years == PTBXL_OVER_89 else _plausible(years)


def _plausible(years: float) -> float | None:
    return years if years <= OLDEST_YEARS else None


def parse_sex_female(text: str) -> bool | None:
    """'F', 'female', 'woman' -> True; 'M', 'male', 'man' -> False; else None."""
    word = text.strip().strip(".").lower()
    return True if word in ("f", "female", "woman") else False if word in ("m", "male", "man") else None


def _values(comments: Iterable[str], key: str) -> Iterable[tuple[str, str]]:
    """(value, the unit in brackets after the key) wherever the comments state `key`."""
    pattern = re.compile(
        rf"(?<![A-Za-z]){_OTHERS}{key}(?:\s+at\s+(?:the\s+)?{_NOW})?\s*"
        r"(?:[(\[_ ]\s*(\w+)\s*[)\]]?)?\s*(?:>\s*[:=]?|[:=])\s*",
        re.IGNORECASE,
    )
    for line in (comment[:_LINE] for comment in comments):
        for match in pattern.finditer(line):
            rest = line[match.end() :]
            stop = _NEXT_KEY.search(rest)
            yield rest[: stop.start() if stop else None].strip(), (match.group(1) or "").lower()


def patient_of(comments: Iterable[str], warnings: list[str]) -> tuple[float | None, bool | None]:
    """(age in years, whether female), None where the comments do not say; what cannot be understood is a warning."""
    comments = tuple(comments)[:_LINES]
    age = _one(
        [(value, parse_age_years(value, _UNITS.get(unit, "year"))) for value, unit in _values(comments, "age")],
        "age",
        "is not one age in years, months or days",
        warnings,
    )
    sex = _one(
        [(value, parse_sex_female(value)) for value, _ in _values(comments, "(?:sex|gender)")],
        "sex",
        "is neither female nor male in words",
        warnings,
    )
    return age, sex


def _one(read: list[tuple[str, Any]], what: str, wrong: str, warnings: list[str]) -> Any:
    """What all statements (as written, as read) agree on, those that say nothing left out; else None and a warning."""
    read = [(value, meaning) for value, meaning in read if meaning is not None or value.lower() not in _UNSTATED]
    unclear = next((value for value, meaning in read if meaning is None), None)
    said = list(dict.fromkeys(meaning for _, meaning in read if meaning is not None))
    if len(said) == 1 and unclear is None:
        return said[0]
    if len(said) > 1:
        both = " and ".join(repr(next(value for value, meaning in read if meaning == m)[:40]) for m in said[:2])
        warnings.append(f"the header's {what} is stated as {both}: {what} unknown")
    elif unclear is not None:
        warnings.append(f"the header's {what} {unclear[:40]!r} {wrong}: {what} unknown")
    return None
