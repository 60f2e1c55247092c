"""What a diagnosis means in the ward, by the words that name it: the written forms and their usual abbreviations.

An abbreviation counts in capitals only ("AKI", not "aki" within a word); words count whatever their case. A failing
heart that is called neither acute nor chronic is a chronic condition, unless it is what the patient came for
(`primary`): the same rule as for codes that do not tell (`icd_terms`).
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

__all__ = ["mentions", "terms_of"]

_KIDNEYS = r"(?:kidney|renal)"
_HEART = r"(?<!without )(?:heart failure|cardiac failure|HFrEF|HFpEF|HFmrEF|CHF)"
_KIND = r"(?:\w+ ){0,4}"  # congestive, systolic, diastolic, left ventricular, ...
_WORSE = r"(?:exacerbation|decompensation)"

# term -> written forms; (?-i:...) keeps an abbreviation in its capitals
_FORMS: dict[str, str] = {
    "sepsis": r"\bsepsis\b|\bsepticemia|\bsepticaemia|\burosepsis\b|\bseptic\b(?! (?:\w+ )?(?:arthr|embol|thromb))",
    "pneumonia": r"(?<!interstitial )(?<!organizing )\bpneumonia\b|\bbronchopneumonia\b|(?-i:\b(?:[CHV]AP|PNA)\b)",
    "diabetic_ketoacidosis": r"\bdiabetic keto-?acidosis\b|\bketo-?acidosis\b|(?-i:\bDKA\b)",
    "gi_bleed": (
        r"\b(?:gastro-?intestinal|gi)\b(?: tract)? (?:bleed|h(?:a)?emorrhage)|(?-i:\b[UL]?GIB\b)|\bmel(?:a)?ena\b|"
        r"\bh(?:a)?ematemesis\b|\bbleeding (?:\w+ )?ulcer|\bh(?:a)?emorrhage of (?:the )?gastro-?intestinal|"
        r"\b(?:ulcer|gastritis|duodenitis|diverticul(?:osis|itis)|varices|angiodysplasia)\b[^.;]{0,40}?"
        r"(?<!without )\b(?:bleed|h(?:a)?emorrhag)"
    ),
    "acute_kidney_injury": (
        rf"\bacute (?:on chronic )?{_KIDNEYS} (?:injury|failure|insufficiency)|(?-i:\b(?:AKI|ARF)\b)|"
        r"\bacute tubular necrosis\b"
    ),
    "chronic_kidney_disease": (
        rf"\bchronic {_KIDNEYS} (?:disease|failure|insufficiency)|\bend[- ]stage {_KIDNEYS} disease|"
        rf"\bacute on chronic {_KIDNEYS}|(?-i:\b(?:CKD|ESRD|CRI)\b)"
    ),
    "diabetes": (
        r"\bdiabetes\b(?! insipidus)|\bdiabetic\b|\bketo-?acidosis\b|"
        r"(?-i:\b(?:DM|DM ?[12]|DM ?II?|T[12]DM|IDDM|NIDDM|DKA)\b)"
    ),
}
_FORM = {term: re.compile(forms, re.IGNORECASE) for term, forms in _FORMS.items()}
_FAILING = re.compile(rf"{_HEART}|\bADHF\b", re.IGNORECASE)
_ACUTE_HEART = re.compile(
    rf"\b(?:acute|decompensated)\b(?: on chronic)? ?{_KIND}{_HEART}|{_WORSE} of {_KIND}{_HEART}|"
    rf"{_HEART}.{{0,40}}\b{_WORSE}|\bADHF\b",
    re.IGNORECASE,
)
_CHRONIC_HEART = re.compile(
    rf"\bchronic {_KIND}{_HEART}|{_WORSE} of {_KIND}{_HEART}|{_HEART}.{{0,40}}\b{_WORSE}",
    re.IGNORECASE,
)
_ANY = re.compile("|".join([*(f"(?:{forms})" for forms in _FORMS.values()), _FAILING.pattern]), re.IGNORECASE)
_BEFORE = re.compile(
    r"(?:\b(?:acute|chronic|on|severe|decompensated|congestive|systolic|diastolic)[ -]+){1,4}$", re.IGNORECASE
)


_SPELT = (
    "septicemia pneumonia diabetes diabetic ketoacidosis failure disease chronic congestive systolic diastolic "
    "decompensated exacerbation gastrointestinal bleeding hemorrhage insufficiency"
).split()
ALIKE = 0.85  # of two words: one exchange of letters, or one letter too many in eight


@lru_cache(1 << 14)
def _spelt(word: str) -> str:
    """The word that this one is a misspelling of, or itself."""
    near = difflib.get_close_matches(word.lower(), _SPELT, 1, ALIKE) if len(word) > 6 else []
    return near[0] if near else word


def terms_of(name: str, primary: bool = False) -> tuple[str, ...]:
    """The terms (of `schema.TERMS`) that a diagnosis of this name has; none for what the ward does not know.

    `primary`: the patient came for it.
    """
    name = re.sub(r"[A-Za-z]+", lambda word: _spelt(word[0]), name)
    found = [term for term, form in _FORM.items() if form.search(name)]
    if _FAILING.search(name):
        acute, chronic = bool(_ACUTE_HEART.search(name)), bool(_CHRONIC_HEART.search(name))
        if acute or primary:
            found.append("heart_failure")
        if chronic or not acute:
            found.append("chronic_heart_failure")
    return tuple(found)


def mentions(text: str) -> list[tuple[int, int]]:
    """Where a text names what has a term: (begin, end), with the words before that tell acute from chronic."""
    found = []
    for match in _ANY.finditer(text):
        before = _BEFORE.search(text[: match.start()])
        found.append((match.start() if before is None else before.start(), match.end()))
    return found
