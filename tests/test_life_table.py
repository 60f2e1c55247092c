"""The life table: its own figures come back, and the years that it leaves are those that others published."""

from __future__ import annotations

import math

import pytest
import torch

from world_models.life_table import LIFE_TABLE, deaths_per_year

# years left at 50, 65, 75, 85: US life table of 2019 (Arias & Xu 2022, National Vital Statistics Reports 70-19 (k))
PUBLISHED = {False: (29.9, 18.2, 11.3, 6.0), True: (33.5, 20.8, 13.1, 7.0)}


@pytest.mark.parametrize("female", [False, True])
def test_a_year_of_its_rates_kills_what_the_table_says(female: bool) -> None:
    for age, both in LIFE_TABLE.items():
        rate = deaths_per_year(torch.tensor([age + 0.5], dtype=torch.float64), female).item()
        assert 1000.0 * -math.expm1(-rate) == pytest.approx(both[int(female)])
    ages = torch.arange(18.0, 115.0, 0.25)
    assert bool((deaths_per_year(ages, female).diff() > 0).all()), "from 18 on every year is worse than the one before"


@pytest.mark.parametrize("female", [False, True])
def test_the_years_that_are_left_are_those_of_another_table(female: bool) -> None:
    step = 0.125
    for age, years in zip((50, 65, 75, 85), PUBLISHED[female], strict=True):
        ahead = torch.arange(0.0, 120.0 - age, step, dtype=torch.float64) + step / 2
        rate = deaths_per_year(age + ahead, female)
        alive = torch.exp(-(rate.cumsum(0) - rate / 2) * step)
        assert float(alive.sum() * step) == pytest.approx(years, rel=0.04)
