"""Static context by rules: headings, lists, cue words, and the ward's terms (`terms`). It needs no model, no network.

What is denied ("no evidence of", "ruled out": after NegEx, Chapman 2001, doi 10.1006/jbin.2001.1029), belongs to the
family or is long past is no diagnosis of this stay. A chronic condition of the ward that only the history tells counts
as a secondary diagnosis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from world_models.data.ehr.context.icd_terms import terms_of_code
from world_models.data.ehr.context.reasons import reason_in_course, split_reason
from world_models.data.ehr.context.schema import CHRONIC, LONGEST, MOST_DIAGNOSES, StatedDiagnosis, StaticContext
from world_models.data.ehr.context.sections import Section, sections, sentences
from world_models.data.ehr.context.terms import mentions, terms_of

__all__ = ["by_rules"]

_OLD = r"(\d{1,3})[- ]?(?:years?[- ]old|yrs?[- ]old|y/?o\b|y\.o\.)"
_AGE = re.compile(rf"{_OLD}|\baged? ?:? ?(\d{{1,3}})\b|\b(\d{{2,3}}) ?(?-i:[MF])\b", re.IGNORECASE)
_SEX_FIELD = re.compile(r"\b(?:sex|gender)\s*:\s*(female|male|f|m)\b", re.IGNORECASE)
_SEX_SHORT = re.compile(r"\b\d{2,3} ?([MF])\b")
_SEX_WORD = re.compile(rf"{_OLD}\W+(?:\w+ ){{0,3}}?(woman|female|lady|f\b|man\b|male|gentleman|m\b)", re.IGNORECASE)
_TITLE = re.compile(r"\b(Mrs|Ms|Miss|Mr)\b")
_PRONOUN = re.compile(r"\b(she|her|he|his|him)\b", re.IGNORECASE)
_WOMAN = frozenset({"woman", "female", "lady", "f", "mrs", "ms", "miss", "she", "her"})
LONG_NAME = 6  # words; what is longer in a history is a sentence
OLDEST_TOLD = 120  # a larger number is no age

_NO_ALLERGY = re.compile(
    r"\b(?:NKDA|NKA)\b|\bno known\b|\bnone\b|\bno (?:drug |medication )?allergies\b|\bdenies\b", re.IGNORECASE
)
_ALLERGIC = re.compile(r"\ballergic to ([^.;\n]+)|\ballerg(?:y|ies) to ([^.;\n]+)", re.IGNORECASE)

_ITEM = re.compile(r"\s*(?:[-*•#]+|\d{1,2}[.)])\s+")
_INLINE_NUMBER = re.compile(r"(?:^|(?<=[\s;,]))\d{1,2}[.)]\s+")
_QUALIFIER = re.compile(
    r"(?:resolv\w+|improv\w+|stable|likely|chronic|acute|unspecified|mild|moderate|severe|stage|due|with|without|"
    r"requiring|now|on|in|of|status|not|no|type|\d)\b",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|denie[sd]|denying|without|negative for|rul(?:ed|ing|e) out|r/o|absence of|never(?: had)?|"
    r"unlikely to be|free of)\b(?:(?!\bbut\b|\bhowever\b|[;:]).){0,60}$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"^[^.;]{0,30}\b(?:(?:was|were|is|has been) )?(?:ruled out|excluded|unlikely|not (?:found|seen|confirmed))",
    re.IGNORECASE,
)
_FAMILY = re.compile(
    r"\b(?:family|father|mother|brother|sister|sibling|parent|aunt|uncle|grand\w+|maternal|paternal|son|daughter)\w*\b",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:h/o|s/p|status post|remote|in (?:19|20)\d\d|years ago|resolved in|previous(?:ly)?)\b", re.IGNORECASE
)
_ICD10 = re.compile(r"\b([A-TV-Z]\d[\dA-Z](?:\.[\dA-Z]{1,4}))\b")
_TREATED = re.compile(
    r"\b(?:diagnos\w+|treated for|admitted (?:with|for)|found to have|presented with|consistent with|developed|"
    r"complicated by|impression|assessment)\b",
    re.IGNORECASE,
)


def by_rules(note: str) -> StaticContext:
    """What these rules find in a note; a field that they do not find is None or empty."""
    parts = sections(note)
    primary, secondary = _diagnoses(parts)
    course = [s.text for s in parts if s.kind in ("course", "presenting", "")]
    return StaticContext(
        _age(note),
        _sex(note),
        _allergies(parts),
        None if primary is None else _explained(primary, course),
        tuple(_explained(d, course) for d in secondary[:MOST_DIAGNOSES]),
    )


def _age(note: str) -> float | None:
    for match in _AGE.finditer(note):
        age = int(match[1] or match[2] or match[3])
        if age <= OLDEST_TOLD:
            return float(age)
    return None


def _sex(note: str) -> str | None:
    match = _SEX_FIELD.search(note) or _SEX_WORD.search(note) or _SEX_SHORT.search(note) or _TITLE.search(note)
    if match is not None:
        return "female" if match[match.lastindex or 1].lower() in _WOMAN else "male"
    said = [word.lower() in _WOMAN for word in _PRONOUN.findall(note)]
    return None if not said else "female" if 2 * sum(said) > len(said) else "male"


# ---- allergies


def _allergies(parts: Iterable[Section]) -> tuple[str, ...] | None:
    listed = [s.text for s in parts if s.kind == "allergies"]
    if not listed:
        told = [m[1] or m[2] for s in parts if s.kind != "family" for m in _ALLERGIC.finditer(s.text)]
        if told:
            return _agents(", ".join(told))
        return () if any(re.search(r"\bNKD?A\b|\bno known (?:drug )?allerg", s.text) for s in parts) else None
    text = "\n".join(listed)
    if _NO_ALLERGY.search(text):
        return ()
    return _agents(text) or None


def _agents(text: str) -> tuple[str, ...]:
    """Drugs and other agents of a list, without the reactions to them."""
    plain = re.sub(r"\([^)]*\)|\[[^\]]*\]", "", text)
    names = (re.sub(r"^\s*(?:[-*•]+|\d{1,2}[.)])\s*", "", n) for n in re.split(r"[,;/\n]|\band\b", plain))
    cut = (re.split(r"\s+[-–:]+\s+|\s*:\s*|\bcauses\b|\bwhich\b", n)[0].strip(" .\t*") for n in names)
    return tuple(dict.fromkeys(n for n in cut if any(c.isalpha() for c in n) and len(n) <= LONGEST))


# ---- diagnoses


def _diagnoses(parts: list[Section]) -> tuple[StatedDiagnosis | None, list[StatedDiagnosis]]:
    """The primary one and the others, from the lists first and from the prose where there is none."""
    first = [d for s in parts if s.kind == "primary" for d in _listed(s.text, primary=True)]
    plain = [d for s in parts if s.kind == "diagnosis" for d in _listed(s.text, primary=not first)]
    others = [d for s in parts if s.kind == "secondary" for d in _listed(s.text)]
    found = [*first, *plain, *others]
    if not found:
        found = list(_in_prose(parts))
    known = {term for d in found for term in d.terms}
    for diagnosis in _chronic(parts):
        if not known.issuperset(diagnosis.terms):
            known.update(diagnosis.terms)
            found.append(diagnosis)
    unique = list({d.name.lower(): d for d in reversed(found)}.values())[::-1]
    return (unique[0], unique[1:]) if unique and unique[0].name == found[0].name else (None, unique)


def _items(text: str) -> Iterator[str]:
    """Items of a list: a line each, or numbered within it, or parted by semicolons or, where they are short, commas."""
    for line in text.splitlines():
        for item in _INLINE_NUMBER.split(_ITEM.sub("", line, count=1) if _ITEM.match(line) else line):
            for part in item.split(";"):
                pieces = re.split(r",\s+(?![^(]*\))", part.strip(" .,\t"))
                short = len(pieces) > 1 and all(len(p.split()) <= 5 and not _QUALIFIER.match(p) for p in pieces[1:])
                yield from (piece.strip(" .,\t") for piece in (pieces if short else [part]))


def _listed(text: str, primary: bool = False) -> list[StatedDiagnosis]:
    """The diagnoses of a list; the first of it is the primary one if `primary`."""
    found: list[StatedDiagnosis] = []
    for item in _items(text):
        if not any(c.isalpha() for c in item) or item.lower() in ("none", "n/a", "as above"):
            continue
        name, reason = split_reason(item)
        if name and not _denied(name, 0, len(name)) and not _FAMILY.search(name) and not _PAST.search(name):
            found.append(_stated(name, reason, primary and not found))
    return found


def _stated(name: str, reason: str, primary: bool = False) -> StatedDiagnosis:
    code = _ICD10.search(f"{name} {reason}")
    bare = (
        name if code is None else re.sub(r"[\[(]?(?:ICD-?10(?:-CM)?:? ?)?" + re.escape(code[1]) + r"[\])]?", "", name)
    )
    bare = " ".join(bare.split()).strip(" .,-:") or name
    terms = dict.fromkeys(terms_of(bare, primary))
    if code is not None:
        terms |= dict.fromkeys(terms_of_code("10", code[1], primary))
        reason = "" if code[1] in reason else reason
    return StatedDiagnosis(bare[:LONGEST], reason[:LONGEST], None if code is None else code[1], tuple(terms))


def _denied(sentence: str, begin: int, end: int) -> bool:
    """Whether a sentence says that what stands at begin..end is not so."""
    return bool(_DENIED_BEFORE.search(sentence[:begin]) or _DENIED_AFTER.match(sentence[end:])) or bool(
        re.match(r"(?:no|not|r/o|rule out|negative)\b", sentence[begin:end], re.IGNORECASE)
    )


def _told(text: str) -> Iterator[tuple[str, str]]:
    """What a text says of this patient and this time: the name of something with a term, and its sentence."""
    for sentence in sentences(text):
        for begin, end in mentions(sentence):
            name = sentence[begin:end]
            past = _PAST.search(sentence) and not set(terms_of(name)) <= set(CHRONIC)  # h/o CHF: it is there still
            if not (_denied(sentence, begin, end) or _FAMILY.search(sentence) or past):
                yield name, sentence


def _chronic(parts: Iterable[Section]) -> Iterator[StatedDiagnosis]:
    """Chronic conditions that only the history tells, by the terms that are chronic."""
    for section in parts:
        for item in _items(section.text) if section.kind == "history" else ():
            if len(item.split()) <= LONG_NAME:
                yield from (d for d in _listed(item) if d.terms and set(d.terms) <= set(CHRONIC))
        if section.kind in ("history", "presenting"):
            for name, _ in _told(section.text):
                terms = terms_of(name)
                if terms and set(terms) <= set(CHRONIC):  # a past ketoacidosis is none of this stay
                    yield StatedDiagnosis(name, "", None, terms)


def _in_prose(parts: Iterable[Section]) -> Iterator[StatedDiagnosis]:
    """Diagnoses of a note without a list: first what a sentence says to have been diagnosed or treated."""
    texts = [s.text for s in parts if s.kind in ("course", "presenting", "", "other")]
    told = [pair for text in texts for pair in _told(text)]
    ordered = [p for p in told if _TREATED.search(p[1])] + [p for p in told if not _TREATED.search(p[1])]
    known: set[str] = set()
    for name, _ in ordered:
        terms = terms_of(name, primary=not known)
        if not known.issuperset(terms):
            known.update(terms)
            yield StatedDiagnosis(name, "", None, terms)


def _explained(diagnosis: StatedDiagnosis, texts: list[str]) -> StatedDiagnosis:
    if diagnosis.reason:
        return diagnosis
    reason = next((r for r in (reason_in_course(diagnosis, text) for text in texts) if r), "")
    return StatedDiagnosis(diagnosis.name, reason[:LONGEST], diagnosis.icd10, diagnosis.terms)
