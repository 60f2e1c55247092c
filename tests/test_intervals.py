"""Intervals of the benchmarks: the figures committed were made with these very resamples, so they may not change."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.common import intervals
from benchmarks.ecg_drug.trial import report
from benchmarks.ecg_drug.trial_worlds import TARGETS
from benchmarks.ward.effect_scores import row_of
from benchmarks.ward.records import differences
from benchmarks.ward.scores import brier
from world_models import keys

N = 40
X = keys.normal(keys.from_seed(5, 1), 0, "x", (N,))[0]
Y = keys.normal(keys.from_seed(6, 1), 0, "y", (N,))[0] + 1
PATIENT = torch.arange(N) // 3


def near(*values: float) -> object:
    return pytest.approx(values, rel=1e-12)


def test_means_are_resampled_as_they_were() -> None:
    found = intervals.mean_interval(X, intervals.resamples(N, 500))
    assert tuple(found) == near(0.3046552739455365, 0.005533630921272575, 0.6214015701194875)
    hits = intervals.mean_interval((X > 0).double(), intervals.resamples(N, 500, 1, "explain/bootstrap"))
    assert tuple(hits)[1:] == near(0.33687500000000004, 0.65)
    point, low, high = intervals.mean_interval(torch.arange(400.0))
    assert point == 199.5 and low < point < high and high - low == pytest.approx(22.6, rel=0.15)
    row: dict[str, float] = {}
    intervals.put_mean(row, "return", X)
    assert list(row) == ["return", "return_low", "return_high"] and row["return"] == found.value


def test_ratios_resample_whole_patients_as_they_did() -> None:
    found = intervals.ratio_interval(X.square(), Y.square(), PATIENT, 300, 2)
    assert tuple(found) == near(0.5410496567482969, 0.4534932533802734, 0.6766858942431278)
    none = intervals.ratio_interval(X.square(), torch.zeros(N), PATIENT, 10, 0)
    assert math.isinf(none.value) and math.isnan(none.low), "no resample has a ratio"


def test_paired_differences_are_resampled_as_they_were() -> None:
    slots = {
        "subject": PATIENT,
        "y": Y,
        "last": X,
        "point/a": Y * 1.1,
        "point/b": X,
        "nll/a": X.abs(),
        "nll/b": Y.abs(),
    }
    found = differences(slots, "a", "b", 300)
    assert tuple(found["s25"].values()) == near(0.925, 0.8421052631578947, 1.0, 14)
    assert tuple(found["nll"].values()) == near(-0.363308618159499, -0.5140950354328055, -0.2601899582410299, 14)


def test_effects_and_skill_are_resampled_as_they_were() -> None:
    row = row_of(X, Y, 0.1, 400)
    assert (row["oracle_low"], row["oracle_high"]) == near(-0.0201258770158165, 0.6284820645814762)
    assert (row["ratio_low"], row["ratio_high"]) == near(-15.707071332610944, 33.043403936732055)
    told = brier(torch.sigmoid(X), Y > 1, 200)
    # single precision: processors may differ in the last digits
    assert (told["skill_low"], told["skill_high"]) == pytest.approx(
        (-0.2801811099052429, 0.21452243626117706), rel=1e-5
    )


def test_medians_shares_and_wilson_are_what_they_were() -> None:
    found = intervals.numpy_median_interval(X.abs().double().numpy(), number=300)
    assert found == near(0.5439049869775772, 1.3374561071395874)
    rng, values = np.random.default_rng(0), X.double().numpy()
    assert intervals.numpy_mean_interval(values, rng, 300) == near(-0.07001371770427794, 0.6278551722847617)
    assert intervals.numpy_mean_interval(values, rng, 300) == near(-0.018940146301756604, 0.6521714869374408)
    people = pd.Series((X > 0).numpy()).astype(float).groupby(PATIENT.numpy())
    inside, cases = people.sum().to_numpy(), people.count().to_numpy()
    assert intervals.share_over_patients(inside, cases, 300) == near(0.35714285714285715, 0.6388888888888888)
    assert intervals.wilson(3, 80) == near(0.012834568820056527, 0.10454720163826584)
    assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_the_coverage_of_a_trial_has_an_interval_over_people() -> None:
    frame = pd.DataFrame({"randid": PATIENT.numpy(), "drug": "dofetilide", "hour": 1.0})
    for name, column in TARGETS.items():
        frame[column], frame[name], frame[f"pre_{column}"] = X.numpy(), 0.0, 0.0
        frame[f"{name}_q05"], frame[f"{name}_q95"] = 0.0, 10.0
    line = report(frame).iloc[0]
    assert line["coverage_low"] < line["coverage_90"] < line["coverage_high"]
