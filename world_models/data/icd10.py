"""ICD-10: its 22 chapters, their blocks and three-character categories, and the path from a chapter down to any code.

Two editions are meant at once: the WHO's of 2019 (with the emergency codes U10 to U12 of 2020 and 2021) and ICD-10-CM
(MIMIC-IV; the release of April 2026), which has categories of its own and lacks others. `icd10_blocks.csv` has a row a
block, with the categories that either edition has. Blocks are named once for both, by their first and last number in
either: "E08-E14" is the WHO's E10-E14 and CM's E08-E13. Where the editions put a category into different blocks the
WHO's counts: E89 is of E70-E90. CM's own blocks stay apart: R97 is one, within the numbers of the WHO's R95-R99. A
category with a letter (I1A, C4A) is CM's alone and stands outside the numbers of its block. Blocks of blocks (all of
C00-C75) are left out.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "CATEGORIES", "CHAPTER", "CHAPTERS", "Block", "UnknownCodeError", "blocks", "classes", "in_chapter", "path",
    "plain", "three",
]  # fmt: skip

TABLE = Path(__file__).with_name("icd10_blocks.csv")
CHAPTER = "IX"  # the one meant where none is named: diseases of the circulatory system

CHAPTERS: dict[str, str] = {
    "I": "infections", "II": "tumours", "III": "blood and immunity", "IV": "endocrine, nutrition and metabolism",
    "V": "mental disorders", "VI": "nervous system", "VII": "eye", "VIII": "ear", "IX": "circulation",
    "X": "respiration", "XI": "digestion", "XII": "skin", "XIII": "muscles, joints and bones",
    "XIV": "kidneys, urinary tract and genital organs", "XV": "pregnancy and childbirth", "XVI": "the newborn",
    "XVII": "malformations and chromosomes", "XVIII": "symptoms and findings", "XIX": "injuries and poisoning",
    "XX": "external causes", "XXI": "contact with health services", "XXII": "special purposes",
}  # fmt: skip
# By letter; D and H are shared by two chapters, parted at D50 and H60.
_CHAPTER_OF = dict(zip(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ("I", "I", "II", "II", "IV", "V", "VI", "VII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII", "XVIII",
     "XIX", "XIX", "XXII", "XX", "XX", "XX", "XX", "XXI"), strict=True,
))  # fmt: skip
_PARTED = {"D": ("5", "III"), "H": ("6", "VIII")}  # letter -> the digit from which on it is the second chapter's

CATEGORIES: dict[str, str] = {  # of chapter IX, in words
    "I00": "rheumatic fever without heart involvement", "I01": "rheumatic fever with heart involvement",
    "I02": "rheumatic chorea",
    "I05": "rheumatic mitral valve disease", "I06": "rheumatic aortic valve disease",
    "I07": "rheumatic tricuspid valve disease", "I08": "disease of several valves",
    "I09": "other rheumatic heart disease",
    "I10": "essential hypertension", "I11": "hypertensive heart disease", "I12": "hypertensive kidney disease",
    "I13": "hypertensive heart and kidney disease", "I15": "secondary hypertension", "I16": "hypertensive crisis",
    "I1A": "other hypertension",
    "I20": "angina pectoris", "I21": "acute myocardial infarction", "I22": "subsequent myocardial infarction",
    "I23": "complications soon after infarction", "I24": "other acute ischaemic heart disease",
    "I25": "chronic ischaemic heart disease",
    "I26": "pulmonary embolism", "I27": "other pulmonary heart disease", "I28": "other disease of pulmonary vessels",
    "I30": "acute pericarditis", "I31": "other pericardial disease", "I32": "pericarditis in other diseases",
    "I33": "acute endocarditis", "I34": "mitral valve disorder", "I35": "aortic valve disorder",
    "I36": "tricuspid valve disorder", "I37": "pulmonary valve disorder", "I38": "endocarditis, valve not named",
    "I39": "valve disorders in other diseases", "I40": "acute myocarditis", "I41": "myocarditis in other diseases",
    "I42": "cardiomyopathy", "I43": "cardiomyopathy in other diseases",
    "I44": "atrioventricular and left bundle-branch block", "I45": "other conduction disorders",
    "I46": "cardiac arrest", "I47": "paroxysmal tachycardia", "I48": "atrial fibrillation and flutter",
    "I49": "other arrhythmias", "I50": "heart failure", "I51": "ill-defined heart disease",
    "I52": "heart disorders in other diseases", "I5A": "non-ischaemic myocardial injury",
    "I60": "subarachnoid haemorrhage", "I61": "intracerebral haemorrhage", "I62": "other intracranial haemorrhage",
    "I63": "cerebral infarction", "I64": "stroke, kind not named", "I65": "precerebral artery stenosis",
    "I66": "cerebral artery stenosis", "I67": "other cerebrovascular disease",
    "I68": "cerebrovascular disorders in other diseases", "I69": "sequelae of cerebrovascular disease",
    "I70": "atherosclerosis", "I71": "aortic aneurysm and dissection", "I72": "other aneurysm",
    "I73": "other peripheral vascular disease", "I74": "arterial embolism and thrombosis", "I75": "atheroembolism",
    "I76": "septic arterial embolism", "I77": "other arterial disorders", "I78": "disease of capillaries",
    "I79": "vessel disorders in other diseases",
    "I80": "phlebitis", "I81": "portal vein thrombosis", "I82": "other venous thrombosis",
    "I83": "varicose veins of the legs", "I85": "oesophageal varices", "I86": "varicose veins elsewhere",
    "I87": "other disorders of veins", "I88": "nonspecific lymphadenitis", "I89": "other lymphatic disorders",
    "I95": "hypotension", "I96": "gangrene", "I97": "circulatory complications of procedures",
    "I98": "circulatory disorders in other diseases", "I99": "other circulatory disorders",
}  # fmt: skip


class UnknownCodeError(ValueError):
    """A code that ICD-10, or the chapter asked for, does not have; the message names it and the nearest there are."""


class Block(NamedTuple):
    """A row of the table."""

    chapter: str
    meaning: str
    categories: tuple[str, ...]  # in the order of their numbers, letters last


@cache
def _blocks() -> MappingProxyType[str, Block]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return MappingProxyType({r["block"]: Block(r["chapter"], r["meaning"], _listed(r["categories"])) for r in rows})


@cache
def _block_of() -> dict[str, str]:
    """Category -> block."""
    return {category: name for name, block in _blocks().items() for category in block.categories}


def _listed(ranges: str) -> tuple[str, ...]:
    """ "I10-I13 I15 I1A" -> every category in these; a range may go over letters, as X85-Y09 does."""
    met: list[str] = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        met.append(first)
        while last and met[-1] != last:
            letter, number = met[-1][0], int(met[-1][1:]) + 1
            met.append(f"{letter}{number:02d}" if number < 100 else f"{chr(ord(letter) + 1)}00")
    return tuple(met)


def blocks(chapters: Collection[str] = tuple(CHAPTERS)) -> dict[str, Block]:
    """Block -> its row, of some chapters, in the order of the WHO's edition.

    Raises:
        ValueError: no such chapter.
    """
    wanted = _chapters(chapters)
    return {name: block for name, block in _blocks().items() if block.chapter in wanted}


def _chapters(given: Collection[str]) -> tuple[str, ...]:
    """Numerals as given, a single one as well."""
    chapters = (given,) if isinstance(given, str) else tuple(given)
    for chapter in chapters or ("",):
        if chapter not in CHAPTERS:
            raise ValueError(f"no chapter {chapter!r}: ICD-10 has I to XXII; give Roman numerals such as {CHAPTER!r}")
    return chapters


def plain(code: str) -> str:
    """A code as it is compared: capitals without dots and spaces, and without placeholders at its end.

    ICD-10-CM fills empty places before a seventh character with X (W19.XXXA), and some write I10 as I10.X.
    """
    text = re.sub(r"[\s.]", "", str(code)).upper()
    return text[:3] + text[3:].rstrip("X")


def _number(two: str) -> int:
    """ "48" -> 48; a letter counts as a ten, so that "1A" comes after "19"."""
    return 10 * min(int(two[0], 36), 10) + min(int(two[1], 36), 10)


def _nearest(text: str, known: Collection[str]) -> list[str]:
    """The known categories of the same letter (if there are any) closest by number, or by spelling without one."""
    digits = re.fullmatch(r"[A-Z]?([0-9][0-9A-Z])[0-9A-Z]*", text)
    if digits is None:
        return difflib.get_close_matches(text[:3], known, n=3, cutoff=0.0)
    number = _number(digits.group(1))
    near = [code for code in known if code[0] == text[0]] or known
    return sorted(near, key=lambda code: (abs(_number(code[1:]) - number), code))[:3]


def _chapter(text: str) -> str | None:
    """The chapter of a plain code, by its letter and, for D and H, its number; None without a letter."""
    digit, second = _PARTED.get(text[:1], ("", ""))
    return second if digit and text[1:2] >= digit else _CHAPTER_OF.get(text[:1])


def in_chapter(code: str, chapters: Collection[str] = (CHAPTER,)) -> bool:
    """Whether a code, dotted or not, has a letter (D and H: a letter and number) of these chapters; it need not be one
    that exists.

    Raises:
        ValueError: no such chapter.
    """
    return _chapter(plain(code)) in _chapters(chapters)


def three(code: str, chapters: Collection[str] = (CHAPTER,)) -> str:
    """The three-character category of a code of these chapters: "I48.91", "I4891" and "i48" are "I48".

    What comes after the category is not looked up: up to four letters and digits are taken as they are.

    Raises:
        UnknownCodeError: not a code, not of these chapters, or a category that no edition has.
        ValueError: no such chapter.
    """
    text, chapters = plain(code), _chapters(chapters)
    block = _block_of().get(text[:3])
    if block is None or _blocks()[block].chapter not in chapters:
        raise _unknown(code, text, chapters)
    if not re.fullmatch(r"[0-9A-Z]{0,4}", text[3:]):
        raise UnknownCodeError(
            f"unknown code {str(code)!r}: after {text[:3]} a code has up to four letters and digits, as in "
            f"{text[:3]}.0; give one of those"
        )
    return text[:3]


def _unknown(code: str, text: str, chapters: tuple[str, ...]) -> UnknownCodeError:
    """That no category of these chapters fits; of several the one of the code's letter is named."""
    own = _chapter(text)
    chapters = (own,) if own in chapters else chapters
    known = [category for block in blocks(chapters).values() for category in block.categories]
    where = "ICD-10"
    if len(chapters) < len(CHAPTERS):
        where = f"chapter{'' if len(chapters) == 1 else 's'} {', '.join(chapters)} of ICD-10"
    have = "has" if len(chapters) in (1, len(CHAPTERS)) else "have"
    return UnknownCodeError(
        f"unknown code {str(code)!r}: {where} {have} {min(known)} to {max(known)}, such as "
        f"{', '.join(_nearest(text, known))}; give one of those"
    )


def path(code: str) -> tuple[str, ...]:
    """(chapter, block, category, then every finer level down to the code) of a code of any chapter.

    "I48" -> ("IX", "I30-I52", "I48"); "i4891" -> ("IX", "I30-I52", "I48", "I48.9", "I48.91"). Placeholders are no
    level: above "W19.XXXA" comes "W19". The last entry is the code as it is written here, whatever it was given as.

    Raises:
        UnknownCodeError: see `three`.
    """
    category, text = three(code, tuple(CHAPTERS)), plain(code)
    ends = [n for n in range(4, len(text) + 1) if text[n - 1] != "X"]
    block = _block_of()[category]
    return (_blocks()[block].chapter, block, category, *(f"{category}.{text[3:n]}" for n in ends))


def classes(column: Iterable[Iterable[str]], chapters: Collection[str] = (CHAPTER,)) -> tuple[str, ...]:
    """The label set of a file: every category of these chapters met in a column of lists of codes, sorted.

    MIMIC-IV-ECG-Ext-ICD's `all_diag_all` gives 76 of chapter IX this way (k). Codes of other chapters are passed over.

    Raises:
        UnknownCodeError: a code with a letter of these chapters that no edition has.
        ValueError: no such chapter.
    """
    chapters = _chapters(chapters)
    met = {code for codes in column for code in codes}
    return tuple(sorted({three(code, chapters) for code in met if in_chapter(code, chapters)}))
