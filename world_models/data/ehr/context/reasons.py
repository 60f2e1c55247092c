"""Why a diagnosis was made, in the note's words: within its line of the list, or where the course explains it."""

from __future__ import annotations

import re

from world_models.data.ehr.context.schema import StatedDiagnosis
from world_models.data.ehr.context.sections import sentences
from world_models.data.ehr.context.terms import mentions, terms_of

__all__ = ["reason_in_course", "split_reason"]

_CUE = re.compile(
    r"\s*[,;(-]?\s*\b(?:due to|secondary to|given|based on|on the basis of|because of|evidenced by|as evidenced by|"
    r"as shown by|supported by|in the setting of|in view of|attributed to|with)\b:?\s+",
    re.IGNORECASE,
)
_IN_LIST = re.compile(
    r"\s*[,;-]?\s*\b(?:due to|secondary to|given|based on|on the basis of|because of|as evidenced by|evidenced by|"
    r"as shown by|supported by)\b\s+",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"\s*\(((?!stage|type|ICD|EF)[^()]*\d[^()]*)\)\s*\.?$", re.IGNORECASE)
_DASH = re.compile(r"\s+[-–—]{1,2}\s+|:\s+")
_LABEL = re.compile(r"^\s*[#*-]*\s*([^:.]{3,80}?)\s*[:.]\s+")
NEAR = 25  # characters from the name to the cue that explains it
_STOP = frozenset("the a an of and with to on in for due acute chronic severe type stage".split())


def split_reason(item: str) -> tuple[str, str]:
    """An item of a list of diagnoses as the name and the reason given with it ("" for none)."""
    bracket = _BRACKET.search(item)
    if bracket is not None and bracket.start() > 2:
        return item[: bracket.start()].strip(" .,;"), bracket[1].strip()
    for parting in (_IN_LIST, _DASH):
        match = parting.search(item)
        if match is not None and match.start() > 2:
            return item[: match.start()].strip(" .,;("), item[match.end() :].strip(" .,;)")
    return item.strip(" .,;"), ""


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]{2,}", text.lower())) - _STOP


def _about(diagnosis: StatedDiagnosis, text: str) -> int | None:
    """Where a text has named the diagnosis (the end of the name); None where it does not."""
    place = text.lower().find(diagnosis.name.lower())
    if place >= 0:
        return place + len(diagnosis.name)
    for begin, end in mentions(text):
        if set(terms_of(text[begin:end])) & set(diagnosis.terms):
            return end
    return None


def reason_in_course(diagnosis: StatedDiagnosis, text: str) -> str:
    """What the first sentence that explains the diagnosis gives for it; "" where none does.

    A course by problems has the problem's name first ("# Sepsis: lactate 4.1 ..."): then the sentence after it. In
    prose it is what follows a cue such as "given" or "as evidenced by".
    """
    following = False
    for sentence in sentences(text):
        label = _LABEL.match(sentence)
        if following:
            return _clause(sentence)
        if label is not None and (
            _about(diagnosis, label[1]) is not None or _words(label[1]) == _words(diagnosis.name)
        ):
            rest = sentence[label.end() :]
            if rest:
                return _clause(rest)
            following = True
            continue
        end = _about(diagnosis, sentence)
        if end is not None:
            cue = _IN_LIST.search(sentence, end)  # "with" alone says too little there
            if cue is not None and cue.start() - end <= NEAR:
                return _clause(sentence[cue.end() :])
    return ""


def _clause(text: str) -> str:
    """A reason's words: after a cue if it begins with one, up to the sentence's end."""
    cue = _CUE.search(text)
    if cue is not None and cue.start() <= 40:
        text = text[cue.end() :]
    return re.split(r"(?<!\d)\.(?:\s|$)|;", text)[0].strip(" .,;)")
