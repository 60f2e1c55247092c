"""One weight of a disease for ward and clinic, and how its grades are put together."""

from __future__ import annotations

import pytest

from clinenv.disability import HEALTH_STATE, HEART_FAILURE, over_grades
from clinenv.envs.ecg_progression import rewards as clinic
from clinenv.envs.ehr_ward import years_left


def test_the_mean_over_grades_lies_among_them_and_shares_must_sum_to_one() -> None:
    assert over_grades({"angina, mild": 0.5, "angina, moderate": 0.5}) == pytest.approx(0.0565, abs=6e-4)
    assert HEALTH_STATE["heart failure, mild"] < HEART_FAILURE < HEALTH_STATE["heart failure, severe"]
    with pytest.raises(ValueError, match="sum to 0.9; they must sum to 1"):
        over_grades({"angina, mild": 0.4, "angina, moderate": 0.5})


def test_heart_failure_weighs_the_same_on_the_ward_and_in_the_clinic() -> None:
    assert clinic.DISABILITY["I50"] == HEART_FAILURE == years_left._DISABILITY[-1] == 0.097
    assert clinic.DISABILITY["I48"] == 0.048 and clinic.DISABILITY["I63"] == 0.174 and clinic.DISABILITY["I21"] == 0.1
