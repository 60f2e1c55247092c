"""ICD-10 chapter IX (diseases of the circulatory system): which three-character codes there are, and what is above
them.

Two editions are meant at once. ICD-10-CM (MIMIC-IV; the release of April 2026) has I16, I1A, I5A, I75, I76 and I96 that
the WHO's edition (2019) has not; the WHO's has I64 and I98. The blocks are named once for both: "I10-I16" is the WHO's
I10-I15 and the newest CM's I10-I1A, "I30-I52" is CM's I30-I5A.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["BLOCKS", "CATEGORIES", "CHAPTER", "UnknownCodeError", "classes", "in_chapter", "path", "three"]

CHAPTER = "IX"

BLOCKS: dict[str, dict[str, str]] = {  # block -> category -> what it is
    "I00-I02": {"I00": "rheumatic fever without heart involvement", "I01": "rheumatic fever with heart involvement",
                "I02": "rheumatic chorea"},
    "I05-I09": {"I05": "rheumatic mitral valve disease", "I06": "rheumatic aortic valve disease",
                "I07": "rheumatic tricuspid valve disease", "I08": "disease of several valves",
                "I09": "other rheumatic heart disease"},
    "I10-I16": {"I10": "essential hypertension", "I11": "hypertensive heart disease",
                "I12": "hypertensive kidney disease", "I13": "hypertensive heart and kidney disease",
                "I15": "secondary hypertension", "I16": "hypertensive crisis", "I1A": "other hypertension"},
    "I20-I25": {"I20": "angina pectoris", "I21": "acute myocardial infarction",
                "I22": "subsequent myocardial infarction", "I23": "complications soon after infarction",
                "I24": "other acute ischaemic heart disease", "I25": "chronic ischaemic heart disease"},
    "I26-I28": {"I26": "pulmonary embolism", "I27": "other pulmonary heart disease",
                "I28": "other disease of pulmonary vessels"},
    "I30-I52": {"I30": "acute pericarditis", "I31": "other pericardial disease",
                "I32": "pericarditis in other diseases", "I33": "acute endocarditis", "I34": "mitral valve disorder",
                "I35": "aortic valve disorder", "I36": "tricuspid valve disorder", "I37": "pulmonary valve disorder",
                "I38": "endocarditis, valve not named", "I39": "valve disorders in other diseases",
                "I40": "acute myocarditis", "I41": "myocarditis in other diseases", "I42": "cardiomyopathy",
                "I43": "cardiomyopathy in other diseases", "I44": "atrioventricular and left bundle-branch block",
                "I45": "other conduction disorders", "I46": "cardiac arrest", "I47": "paroxysmal tachycardia",
                "I48": "atrial fibrillation and flutter", "I49": "other arrhythmias", "I50": "heart failure",
                "I51": "ill-defined heart disease", "I52": "heart disorders in other diseases",
                "I5A": "non-ischaemic myocardial injury"},
    "I60-I69": {"I60": "subarachnoid haemorrhage", "I61": "intracerebral haemorrhage",
                "I62": "other intracranial haemorrhage", "I63": "cerebral infarction",
                "I64": "stroke, kind not named", "I65": "precerebral artery stenosis",
                "I66": "cerebral artery stenosis", "I67": "other cerebrovascular disease",
                "I68": "cerebrovascular disorders in other diseases", "I69": "sequelae of cerebrovascular disease"},
    "I70-I79": {"I70": "atherosclerosis", "I71": "aortic aneurysm and dissection", "I72": "other aneurysm",
                "I73": "other peripheral vascular disease", "I74": "arterial embolism and thrombosis",
                "I75": "atheroembolism", "I76": "septic arterial embolism", "I77": "other arterial disorders",
                "I78": "disease of capillaries", "I79": "vessel disorders in other diseases"},
    "I80-I89": {"I80": "phlebitis", "I81": "portal vein thrombosis", "I82": "other venous thrombosis",
                "I83": "varicose veins of the legs", "I85": "oesophageal varices", "I86": "varicose veins elsewhere",
                "I87": "other disorders of veins", "I88": "nonspecific lymphadenitis",
                "I89": "other lymphatic disorders"},
    "I95-I99": {"I95": "hypotension", "I96": "gangrene", "I97": "circulatory complications of procedures",
                "I98": "circulatory disorders in other diseases", "I99": "other circulatory disorders"},
}  # fmt: skip
CATEGORIES: dict[str, str] = {code: name for block in BLOCKS.values() for code, name in block.items()}
_BLOCK_OF = {code: block for block, codes in BLOCKS.items() for code in codes}


class UnknownCodeError(ValueError):
    """A code that chapter IX does not have; the message names it and the nearest codes there are."""


def _plain(code: str) -> str:
    return re.sub(r"[\s.]", "", str(code)).upper()


def _number(two: str) -> int:
    """ "48" -> 48; a letter counts as a ten, so that "1A" comes after "19"."""
    return 10 * int(two[0]) + min(int(two[1], 36), 10)


def _nearest(text: str) -> list[str]:
    """The codes of chapter IX closest by number where the value has one, else by spelling."""
    digits = re.fullmatch(r"[A-Z]?([0-9][0-9A-Z])[0-9A-Z]*", text)
    if digits is None:
        return difflib.get_close_matches(text[:3], CATEGORIES, n=3, cutoff=0.0)
    number = _number(digits.group(1))
    return sorted(CATEGORIES, key=lambda code: (abs(_number(code[1:]) - number), code))[:3]


def in_chapter(code: str) -> bool:
    """Whether a code, dotted or not, has the letter of chapter IX; it need not be one that exists."""
    return _plain(code)[:1] == "I"


def three(code: str) -> str:
    """The three-character category of a code of chapter IX: "I48.91", "I4891" and "i48" are "I48".

    Raises:
        UnknownCodeError: not a code, not of this chapter, or a category that no edition has.
    """
    text = _plain(code)
    if re.fullmatch(r"[A-Z][0-9][0-9A-Z]{1,5}", text) and text[:3] in CATEGORIES:
        return text[:3]
    raise UnknownCodeError(
        f"unknown code {str(code)!r}: chapter {CHAPTER} of ICD-10 has I00 to I99, such as {', '.join(_nearest(text))}; "
        "give one of those"
    )


def path(code: str) -> tuple[str, str, str]:
    """(chapter, block, category) of a code: "I48.91" -> ("IX", "I30-I52", "I48").

    Raises:
        UnknownCodeError: see `three`.
    """
    category = three(code)
    return CHAPTER, _BLOCK_OF[category], category


def classes(column: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The label set of a file: every category of chapter IX met in a column of lists of codes, sorted.

    MIMIC-IV-ECG-Ext-ICD's `all_diag_all` gives 76 this way (k). Codes of other chapters are passed over.

    Raises:
        UnknownCodeError: a code with the letter I that no edition has.
    """
    met = {code for codes in column for code in codes}
    return tuple(sorted({three(code) for code in met if in_chapter(code)}))
