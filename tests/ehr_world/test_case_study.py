"""The case study's choice and levels."""

import torch

from benchmarks.people.case_study import eligible, levels, median_stay


def test_levels_are_relative_errors():
    y = torch.tensor([100.0, 100.0, 100.0, -50.0])
    assert levels(y, torch.tensor([109.0, 115.0, 70.0, -50.0])) == ["precise", "acceptable", "deviation", "precise"]


def test_the_stay_of_median_accuracy_is_shown():
    y = torch.ones(6)
    off = torch.tensor([1.0, 1.0, 1.0, 9.0, 9.0, 9.0])  # stay 7: both right; 8: one; 9: none
    slots = {"y": y, "point/model": off, "stay": torch.tensor([7, 7, 8, 8, 9, 9])}
    assert median_stay(slots) == 8


def test_eligible_stays_have_enough_numbers_after_the_given_hours():
    values = torch.full((3, 10, 9), float("nan"))
    values[0, 5:9] = 1.0
    values[1, 0:5] = 1.0  # all before
    values[2, 5:9, :4] = 1.0  # too few items
    assert eligible(values, begin=3).tolist() == [0]
