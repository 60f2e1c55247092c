"""Cohorts: every factor drawn from the key alone, within bounds, and fixed where a caller gives it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import keys
from world_models.oracles.ecg_drug.cohorts import (
    COHORTS,
    FACTORS,
    JT_PEAK_C_MS,
    ECGDrugCohort,
    jt_peak_c,
    sample_factors,
)
from world_models.oracles.ecg_drug.population import TrialModel


@pytest.fixture(scope="module")
def trial() -> TrialModel:
    return TrialModel.load()


@pytest.mark.parametrize("cohort", COHORTS)
def test_every_factor_is_within_bounds_and_leaves_a_j_tpeak(cohort: str, trial: TrialModel) -> None:
    drawn = sample_factors(cohort, keys.from_seed(1, 4000), trial=trial)
    assert list(drawn) == [q.name for q in FACTORS]
    for q in FACTORS:
        value = drawn[q.name]
        assert value.dtype == torch.float32 and value.shape == (4000,)
        assert not value.isnan().any() and (value >= q.low).all() and (value <= q.high).all(), q.name
    left = jt_peak_c(
        drawn["baseline_qtcf_ms"],
        drawn["baseline_qrs_ms"],
        drawn["baseline_tpeak_tend_ms"],
        drawn["baseline_heart_rate_bpm"],
    )
    assert left.min() >= JT_PEAK_C_MS[0] - 1 and left.max() <= JT_PEAK_C_MS[1] + 1


@pytest.mark.parametrize("batch", [1, 3, 64, 257])
@pytest.mark.parametrize("cohort", COHORTS)
def test_row_equals_the_patient_alone_bit_for_bit(cohort: str, batch: int, trial: TrialModel) -> None:
    key = keys.from_seed(5, 300)
    many, few = sample_factors(cohort, key, trial=trial), sample_factors(cohort, key[:batch], trial=trial)
    for name in many:
        assert torch.equal(many[name][:batch], few[name]), name


def test_factors_drawn_at_once_are_the_bits_of_each_drawn_alone() -> None:
    who, key = COHORTS["elderly"], keys.from_seed(7, 99)
    drawn = sample_factors(who, key)

    def alone(name: str) -> torch.Tensor:
        spread = getattr(who, name)
        low, high = (0.5 * (1 + math.erf(z / math.sqrt(2))) for z in spread.z_range)
        u = keys.uniform(key, 0, f"cohort/{name}") * (high - low) + low
        value = (u * 2.0 - 1.0).erfinv() * math.sqrt(2.0) * spread.sd + spread.mean
        if spread.female:
            value = value + drawn["sex_female"] * spread.female
        return value + (drawn["age_years"] - 60.0) * spread.per_year if spread.per_year else value

    assert torch.equal(drawn["sex_female"], (keys.uniform(key, 0, "cohort/sex_female") < who.share_female).float())
    for name in ("age_years", "weight_kg", "baseline_heart_rate_bpm", "baseline_pr_ms", "potassium_mmol_l"):
        quantity = next(q for q in FACTORS if q.name == name)
        assert torch.equal(drawn[name], alone(name).clamp(quantity.low, quantity.high)), name
    creatinine = alone("serum_creatinine_mg_dl").exp()
    clearance = (140.0 - drawn["age_years"]) * drawn["weight_kg"] / (creatinine * 72.0)
    clearance = clearance * torch.where(drawn["sex_female"] > 0.5, 0.85, 1.0)  # Cockcroft and Gault
    torch.testing.assert_close(drawn["creatinine_clearance_ml_min"], clearance.clamp(5.0, 250.0))
    resting = (4.2 - drawn["potassium_mmol_l"]) * 8.0 + (0.85 - drawn["magnesium_mmol_l"]) * 15.0
    torch.testing.assert_close(drawn["baseline_qtcf_ms"], alone("baseline_qtcf_ms") + resting)
    assert torch.equal(drawn["baseline_burden"], 1.0 / (1.0 + (-alone("baseline_burden")).exp()))


def test_cohorts_are_what_they_say(trial: TrialModel) -> None:
    drawn = {c: sample_factors(c, keys.from_seed(9, 4000), trial=trial) for c in COHORTS}
    typical = drawn["typical"]
    assert typical["baseline_qtcf_ms"].quantile(0.97) < 445  # the label's limit for starting
    assert 0.25 < typical["sex_female"].mean() < 0.35
    assert drawn["elderly"]["age_years"].min() >= 69
    assert typical["baseline_qtcf_ms"].max() <= 440.0
    for slower in ("verapamil_clearance", "quinidine_clearance", "creatinine_clearance_ml_min"):
        assert drawn["elderly"][slower].mean() < 0.95 * typical[slower].mean()
    assert drawn["heart-failure"]["creatinine_clearance_ml_min"].mean() < 75
    assert typical["creatinine_clearance_ml_min"].mean() > 85
    assert (typical["creatinine_clearance_ml_min"] < 60).float().mean() > 0.02  # whom the label gives less
    assert drawn["long-qt"]["baseline_qtcf_ms"].min() > 445
    for drug in ("ranolazine", "verapamil", "quinidine"):
        assert drawn["poor-metaboliser"][f"{drug}_clearance"].max() < 0.65
    logs = torch.stack([typical[f"{d}_clearance"].log() for d in ("ranolazine", "verapamil", "quinidine")])
    apart = logs.corrcoef()[~torch.eye(3, dtype=torch.bool)]
    assert (apart > 0.35).all() and (apart < 0.65).all()  # half of each one's variance is CYP3A4's
    assert drawn["heart-failure"]["baseline_qrs_ms"].mean() > typical["baseline_qrs_ms"].mean() + 10
    assert drawn["bradycardia"]["baseline_heart_rate_bpm"].max() <= 61
    assert drawn["healthy"]["baseline_burden"].mean() < 0.03
    assert drawn["paroxysmal"]["baseline_burden"].mean() == pytest.approx(0.174, abs=0.04)  # HARMONY
    assert drawn["persistent"]["baseline_burden"].mean() == pytest.approx(0.675, abs=0.05)
    women = drawn["healthy"]["sex_female"] > 0
    longer = drawn["healthy"]["baseline_qtcf_ms"]
    assert longer[women].mean() > longer[~women].mean() + 5  # as in the trial


@settings(deadline=None, max_examples=30)
@given(
    age=st.floats(18, 100, width=32),
    sex=st.sampled_from([0.0, 1.0]),
    qtcf=st.floats(380, 500, width=32),
    clock=st.floats(0, 24, width=32),
)
def test_given_factors_are_honoured(age: float, sex: float, qtcf: float, clock: float) -> None:
    key = keys.from_seed(2, 6)
    fix = {
        "age_years": torch.full((6,), age),
        "sex_female": torch.full((6,), sex),
        "baseline_qtcf_ms": torch.full((6,), qtcf),
        "admission_clock_hour": torch.full((6,), clock),
    }
    drawn = sample_factors("typical", key, fix)
    assert torch.equal(drawn["age_years"], fix["age_years"])
    assert torch.equal(drawn["sex_female"], fix["sex_female"])
    assert torch.equal(drawn["baseline_qtcf_ms"], fix["baseline_qtcf_ms"])
    assert torch.equal(drawn["admission_clock_hour"], fix["admission_clock_hour"])


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"age_years": torch.tensor([130.0])}, ["age_years", "130", "18 to 100", "leave it out"]),
        ({"agee": torch.tensor([50.0])}, ["agee", "age_years"]),
        ({"age_years": torch.tensor([50.0, 60.0])}, ["age_years", "shape"]),
        (
            {
                "baseline_qtcf_ms": torch.tensor([321.0]),
                "baseline_qrs_ms": torch.tensor([178.0]),
                "baseline_tpeak_tend_ms": torch.tensor([150.0]),
            },
            ["J-Tpeak", "leave out"],
        ),
    ],
)
def test_bad_factors_are_named_with_limit_and_remedy(factors: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        sample_factors("typical", keys.from_seed(1, 1), factors)
    assert all(w in str(caught.value) for w in words), caught.value


def test_unknown_cohort_lists_those_there_are_and_own_cohorts_work() -> None:
    with pytest.raises(ValueError, match="heart-failure"):
        sample_factors("martians", keys.from_seed(1, 1))
    mine = COHORTS["typical"]
    assert isinstance(mine, ECGDrugCohort)
    key = keys.from_seed(1, 3)
    assert torch.equal(sample_factors(mine, key)["weight_kg"], sample_factors("typical", key)["weight_kg"])
