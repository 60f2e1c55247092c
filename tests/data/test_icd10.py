from __future__ import annotations

import pytest

from world_models.data.icd10 import BLOCKS, CATEGORIES, UnknownCodeError, classes, in_chapter, path, three
from world_models.quantities.progression import CODES


@pytest.mark.parametrize("code", ["I48.91", "I4891", "i48", " I48 ", "I48.1"])
def test_one_category_however_it_is_written(code):
    assert three(code) == "I48"
    assert path(code) == ("IX", "I30-I52", "I48")


def test_every_category_lies_within_the_bounds_of_its_block():
    for block, codes in BLOCKS.items():
        low, high = block.split("-")
        # The two categories that ICD-10-CM added past the end of a block keep the block's older name.
        assert all(low <= code <= high for code in codes if code not in ("I1A", "I5A"))
    assert (path("I16")[1], path("I1A")[1], path("I5A")[1]) == ("I10-I16", "I10-I16", "I30-I52")
    assert len(CATEGORIES) == 82 == sum(len(codes) for codes in BLOCKS.values())  # 80 of CM, 2 of the WHO's own


def test_the_oracles_codes_are_known():
    assert [three(code) for code in CODES] == list(CODES)
    assert len({path(code)[1] for code in CODES}) == 8


@pytest.mark.parametrize(
    ("code", "near"),
    [("I17", "I16"), ("I90.1", "I89"), ("J48", "I48"), ("X", "I"), ("", "I"), ("I4", "I"), ("48", "I48")],
)
def test_unknown_codes_are_named_with_the_nearest(code, near):
    with pytest.raises(UnknownCodeError, match=near) as caught:
        three(code)
    assert repr(code) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_classes_come_from_the_file():
    column = [["I4891", "E785", "I10"], [], ["i48.0", "W19XXXA", "I252"], ["Z79"]]
    assert classes(column) == ("I10", "I25", "I48")
    assert classes([[], ["E785"]]) == ()
    assert in_chapter("i48.0") and not in_chapter("E78.5")
    with pytest.raises(UnknownCodeError, match="I14"):
        classes([["I10"], ["I14.9"]])
