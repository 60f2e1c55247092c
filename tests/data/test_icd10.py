"""The tree of ICD-10: chapters, blocks, categories, and the path to any code."""

from __future__ import annotations

import csv
import string

import pytest

from world_models.data.ehr.context.icd_terms import TABLE as TERMS
from world_models.data.icd10 import (
    CATEGORIES,
    CHAPTERS,
    UnknownCodeError,
    blocks,
    classes,
    in_chapter,
    path,
    plain,
    three,
)
from world_models.quantities.progression import CODES

# Well-known diagnoses of every chapter, in the spellings of hospitals' tables.
KNOWN = """
A41.9 I A30-A49 | A90 I A90-A99 | B18.1 I B15-B19 | B20 I B20-B24 | B59 I B50-B64 | B97.29 I B95-B98 | B99.9 I B99-B99
C00.0 II C00-C14 | C34.90 II C30-C39 | C4A.9 II C43-C44 | C50.911 II C50-C50 | C79.51 II C76-C80 | C7A.8 II C7A-C7A
C7B.8 II C7B-C7B | C92.0 II C81-C96 | C97 II C97-C97 | D05.1 II D00-D09 | D3A.0 II D3A-D3A | D46.9 II D37-D48
D48.9 II D37-D48 | D49.9 II D49-D49 | D50.9 III D50-D53 | D64.9 III D60-D64 | D89.9 III D80-D89
E10.9 IV E08-E14 | E11.9 IV E08-E14 | E78.5 IV E70-E90 | E87.6 IV E70-E90 | E89.0 IV E70-E90
F03.90 V F00-F09 | F32.9 V F30-F39 | G20 VI G20-G26 | G45.9 VI G40-G47 | G89.29 VI G89-G99
H40.9 VII H40-H42 | H59.8 VII H55-H59 | H60.9 VIII H60-H62 | H91.90 VIII H90-H95
I10 IX I10-I16 | I16.0 IX I10-I16 | I1A.0 IX I10-I16 | I48.91 IX I30-I52 | I5A IX I30-I52 | I64 IX I60-I69
J18.9 X J09-J18 | J44.1 X J40-J47 | J4A.0 X J40-J47 | J96.01 X J95-J99 | K68.9 XI K65-K68 | K92.2 XI K90-K95
L03.90 XII L00-L08 | L49.0 XII L49-L54 | M1A.9XX0 XIII M05-M14 | M54.5 XIII M50-M54 | M97.01XA XIII M95-M99
N17.9 XIV N17-N19 | N18.3 XIV N17-N19 | N40.0 XIV N40-N53 | O14.1 XV O10-O16 | O80 XV O80-O84 | O9A.2 XV O94-O99
P07.3 XVI P05-P08 | P22.0 XVI P19-P29 | Q21.1 XVII Q20-Q28 | Q90.9 XVII Q90-Q99 | QA0.8 XVII QA0-QA0
R07.9 XVIII R00-R09 | R57.0 XVIII R50-R69 | R97.20 XVIII R97-R97 | R99 XVIII R95-R99
S72.001A XIX S70-S79 | T07 XIX T00-T07 | T46.0X5A XIX T36-T50 | T82.7 XIX T80-T88 | T98.3 XIX T90-T98
V00.131A XX V00-V09 | W19.XXXA XX W00-W19 | X52 XX X50-X57 | X58.XXXA XX X58-X59 | X99.1 XX X85-Y09 | Y09 XX X85-Y09
Y57.9 XX Y40-Y59 | Y92.230 XX Y90-Y99 | Z00.0 XXI Z00-Z13 | Z3A.20 XXI Z30-Z39 | Z79.01 XXI Z77-Z99
Z95.0 XXI Z77-Z99 | Z99.9 XXI Z77-Z99 | U07.1 XXII U00-U49 | U12.9 XXII U00-U49 | U85 XXII U82-U85
"""
TOLD = [tuple(row.split()) for row in KNOWN.replace("\n", "|").split("|") if row.strip()]


@pytest.mark.parametrize(("code", "chapter", "block"), TOLD)
def test_known_codes_stand_where_the_editions_put_them(code, chapter, block):
    assert path(code)[:3] == (chapter, block, code[:3])
    assert path(code.replace(".", "").lower()) == path(code)
    assert three(code, chapter) == code[:3] and in_chapter(code, chapter)


def test_the_known_codes_are_of_every_chapter():
    assert {chapter for _, chapter, _ in TOLD} == set(CHAPTERS) == {block.chapter for block in blocks().values()}
    assert len(TOLD) >= 40


@pytest.mark.parametrize("code", ["I48.91", "I4891", "i48", " I48 ", "I48.1"])
def test_one_category_however_it_is_written(code):
    assert three(code) == "I48"
    assert path(code)[:3] == ("IX", "I30-I52", "I48")


@pytest.mark.parametrize(
    ("code", "below"),
    [
        ("I48", ["I48"]),
        ("I480", ["I48", "I48.0"]),
        ("i48.91", ["I48", "I48.9", "I48.91"]),
        ("S72001A", ["S72", "S72.0", "S72.00", "S72.001", "S72.001A"]),
        ("W19.XXXA", ["W19", "W19.XXXA"]),  # placeholders are no level
        ("T46.0X5A", ["T46", "T46.0", "T46.0X5", "T46.0X5A"]),
        ("I10.X", ["I10"]),  # nor at the end
        ("T46.0X", ["T46", "T46.0"]),
    ],
)
def test_finer_levels_follow_the_category(code, below):
    assert list(path(code)[2:]) == below
    assert path(path(code)[-1]) == path(code)  # the last is the code, as it is written here
    assert plain(code) == plain(below[-1])


def test_every_letter_and_number_is_of_one_block_or_refused():
    of = {category: name for name, block in blocks().items() for category in block.categories}
    assert len(of) == 2122 == sum(len(block.categories) for block in blocks().values())
    assert len(blocks()) == 286
    second = string.digits + "A"
    for code in (a + b + c for a in string.ascii_uppercase for b in second for c in second + "B"):
        if code in of:
            assert path(code) == (blocks()[of[code]].chapter, of[code], code)
            assert in_chapter(code, path(code)[0])
        else:
            with pytest.raises(UnknownCodeError, match=code):
                path(code)


def test_blocks_are_in_order_and_do_not_overlap():
    ends = [tuple(name.split("-")) for name in blocks() if name[1:3].isdigit() and name != "R97-R97"]
    order = [end for pair in ends for end in pair]
    # the external causes (V to Y) come before Z, the special purposes (U) last
    place = [(end[0] == "U", end) for end in order]
    assert place == sorted(place)
    assert all(low <= high for low, high in ends)
    assert all(high < low for (_, high), (low, _) in zip(ends, ends[1:], strict=False) if low[0] != "U")
    chapters = [block.chapter for block in blocks().values()]
    assert list(dict.fromkeys(chapters)) == list(CHAPTERS)
    assert chapters == sorted(chapters, key=list(CHAPTERS).index)


def test_every_category_lies_within_the_bounds_of_its_block():
    outside = set()
    for name, block in blocks().items():
        low, high = name.split("-")
        assert block.meaning and block.categories[0] == min(block.categories)
        assert list(block.categories) == sorted(block.categories)
        outside |= {code for code in block.categories if not low <= code <= high}
    # ICD-10-CM put these at the end of older blocks
    assert outside == {"C4A", "I1A", "I5A", "J4A", "M1A", "O9A", "Z3A"}
    assert path("R97")[1] == "R97-R97" and path("R98")[1] == "R95-R99"  # CM's own, within the WHO's numbers


def test_chapter_nine_has_words_for_every_category():
    ninth = blocks("IX")
    assert [code for block in ninth.values() for code in block.categories] == list(CATEGORIES)
    assert len(CATEGORIES) == 82  # 80 of CM, 2 of the WHO's own
    assert list(ninth) == [
        "I00-I02", "I05-I09", "I10-I16", "I20-I25", "I26-I28", "I30-I52", "I60-I69", "I70-I79", "I80-I89", "I95-I99",
    ]  # fmt: skip


def test_chapters_agree_with_the_wards_table():
    with TERMS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["version"] == "10" and row["chapter"]]
    assert len(rows) > 20
    for row in rows:
        assert path(row["prefix"])[0] == row["chapter"], row


def test_the_oracles_codes_are_known():
    assert [three(code) for code in CODES] == list(CODES)
    assert all(len(path(code)) == 3 for code in CODES)
    assert len({path(code)[1] for code in CODES}) == 8


@pytest.mark.parametrize(
    ("code", "near"),
    [("I17", "I16"), ("I90.1", "I89"), ("J48", "I48"), ("X", "I"), ("", "I"), ("I4", "I"), ("48", "I48")],
)
def test_unknown_codes_are_named_with_the_nearest(code, near):
    with pytest.raises(UnknownCodeError, match=f"chapter IX of ICD-10 has I00 to I99, .*{near}") as caught:
        three(code)
    assert repr(code) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("A10", "chapter I of ICD-10 has A00 to B99, such as A09"),
        ("D4B", "chapter II of ICD-10 has C00 to D49, such as D4"),
        ("O93", "chapter XV of ICD-10 has O00 to O9A, such as O92, O94"),
        ("X55.1", "chapter XX of ICD-10 has V00 to Y99, such as X54"),
        ("48", ": ICD-10 has A00 to Z99, such as A48"),
        ("", ": ICD-10 has A00 to Z99"),
        ("I48.-", "after I48 .* as in I48.0"),
        ("I48.99999", "after I48 .* as in I48.0"),
    ],
)
def test_unknown_codes_of_all_chapters_are_named_with_the_limit(code, words):
    with pytest.raises(UnknownCodeError, match=words) as caught:
        path(code)
    assert str(caught.value).startswith(f"unknown code {code!r}")


def test_classes_come_from_the_file():
    column = [["I4891", "E785", "I10"], [], ["i48.0", "W19XXXA", "I252"], ["Z79"]]
    assert classes(column) == ("I10", "I25", "I48")
    assert classes([[], ["E785"]]) == ()
    assert classes(column, "IV") == ("E78",)
    assert classes(column, ("IX", "XXI")) == ("I10", "I25", "I48", "Z79")
    assert classes(column, CHAPTERS) == ("E78", "I10", "I25", "I48", "W19", "Z79")
    assert in_chapter("i48.0") and not in_chapter("E78.5")
    assert in_chapter("D49", "II") and in_chapter("D50", "III") and not in_chapter("D50", "II")
    assert in_chapter("H59", "VII") and in_chapter("H60", "VIII") and not in_chapter("H60", "VII")
    with pytest.raises(UnknownCodeError, match="I14"):
        classes([["I10"], ["I14.9"]])
    with pytest.raises(ValueError, match="no chapter 'XXIII': ICD-10 has I to XXII"):
        classes(column, ("IX", "XXIII"))
    with pytest.raises(ValueError, match="no chapter ''"):
        classes(column, ())
    with pytest.raises(UnknownCodeError, match="chapters IX, XXI of ICD-10 have I00 to Z99, such as Z"):
        three("N18", ("IX", "XXI"))
    with pytest.raises(ValueError, match="no chapter 9"):
        in_chapter("I48", (9,))
