"""Why a diagnosis was made, in the note's words: within its line of the list, or where the course explains it."""

from __future__ import annotations

import re
from collections.abc import Callable

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
_STATUS = re.compile(r"(?:stable|resolved|improved|unchanged|chronic|continued?|as above)\b", re.IGNORECASE)
_About = Callable[[StatedDiagnosis, str], "int | None"]


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


def _by_name(diagnosis: StatedDiagnosis, text: str) -> int | None:
    """The end of the diagnosis's name in a text; None where it does not stand there."""
    place = text.lower().find(diagnosis.name.lower())
    return None if place < 0 else place + len(diagnosis.name)


def _by_terms(diagnosis: StatedDiagnosis, text: str) -> int | None:
    """The end of whatever means the same in the ward; None where nothing does."""
    same = (end for begin, end in mentions(text) if diagnosis.terms and terms_of(text[begin:end]) == diagnosis.terms)
    return next(same, None)


def reason_in_course(diagnosis: StatedDiagnosis, text: str) -> str:
    """What the text gives for a diagnosis; "" where it gives nothing.

    A course by problems has the problem's name first ("# Sepsis: lactate 4.1 ..."): then the sentence after it. In
    prose it is what follows a cue such as "given" or "as evidenced by". Another name of the same is looked for last.
    """
    told = list(sentences(text))
    return next((r for about in (_by_name, _by_terms) if (r := _explained(diagnosis, told, about))), "")


def _explained(diagnosis: StatedDiagnosis, told: list[str], about: _About) -> str:
    for i, sentence in enumerate(told):
        label = _LABEL.match(sentence)
        if label is not None and about(diagnosis, label[1]) is not None:
            rest = sentence[label.end() :] or (told[i + 1] if i + 1 < len(told) else "")
            return "" if _STATUS.match(rest) else _clause(rest)
        end = about(diagnosis, sentence)
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
