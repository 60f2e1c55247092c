"""Rivals that know only charts, and worlds as rivals."""

import pytest
import torch

from benchmarks.ecg_drug.rivals.charts import (
    CHART_RIVALS,
    Boosting,
    ConcentrationResponse,
    Persistence,
    PopulationCourse,
    fit_chart_rival,
)
from benchmarks.ecg_drug.rivals.frame import endpoints_of, given
from benchmarks.ecg_drug.rivals.world import WorldRival, factors_of
from tests.rivals.easy_pairs import LONGER_MS, drawn, easy
from world_models import tree
from world_models.ecg.beat_axis import J_POINT, QRS_START, T_PEAK
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.model import ECGWorldModel
from world_models.oracles.ecg_drug.world import ECGDrugOracle


def test_persistence_is_the_same_again():
    pairs = drawn("train", 96)
    found = Persistence().sample(given(pairs), key=pairs.key, samples=2)
    assert torch.equal(found.beat[1], pairs.pre_beat)
    for name in ("qtcf_ms", "pr_ms", "t_amplitude_uv", "lrd_30_ms"):
        assert torch.equal(found.chart[name][0], pairs.pre[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", CHART_RIVALS)
def test_each_learns_an_easy_effect_and_is_a_function_of_its_key(name, tmp_path):
    train, other, test = (easy(s, n) for s, n in (("train", 400), ("validation", 64), ("test", 100)))
    rival, cost = fit_chart_rival(name, train, other, 10.0, tmp_path)
    found = rival.sample(given(test), key=test.key, samples=12)
    again = rival.sample(given(test.take(slice(3, 5))), key=test.key[3:5], samples=12)
    assert torch.allclose(found.chart["qtcf_ms"][:, 3:5], again.chart["qtcf_ms"], atol=1e-3)
    off = (found.chart["jt_peak_c_ms"].mean(0) - test.post["jt_peak_c_ms"]).abs().mean()
    if name == "persistence":
        assert off == pytest.approx(LONGER_MS * float((test.drug > 0).float().mean()), rel=0.05)
    else:
        assert cost > 0 and off < 12.0


def test_the_population_course_is_the_mean_change():
    train = easy("train", 400)
    rival = PopulationCourse(train)
    change = rival.change(given(train))
    true = endpoints_of(train.post) - endpoints_of(train.pre)
    some = (train.hours == 2.0) & (train.drug == 1)
    assert change[some, 3].mean() == pytest.approx(float(true[some, 3].mean()), rel=0.1)


def test_concentrations_fall_with_time_and_drive_the_effect():
    rival = ConcentrationResponse(drawn("train", 400))
    assert rival.level.shape == (10, 4) and (rival.level.amax(0) == 1).all()
    assert (rival.level[-1] < 0.5).all()  # a day after a single dose
    other = drawn("validation", 64)
    told = given(other.take(slice(1)))._replace(drug=torch.tensor([2]), hours=torch.tensor([3.0]))
    low, high = (rival.change(told._replace(dose_mg=torch.tensor([mg])))[0, 3] for mg in (0.1, 0.9))
    assert high > low + 5.0  # dofetilide, J-Tpeak c


@pytest.mark.slow
def test_residuals_have_the_drugs_spread():
    train, other = drawn("train", 400), drawn("validation", 64)
    rival = Boosting(train, other, 5.0)
    rival.keep_residuals(other)
    found = rival.sample(given(other), key=other.key, samples=40)
    assert 4.0 < found.chart["qtcf_ms"].std(0).mean() < 40.0


@pytest.mark.slow
def test_an_oracle_as_a_rival_knows_more_than_persistence():
    test = drawn("test", 100)
    rival = WorldRival(lambda hours: ECGDrugOracle(hours_per_step=hours), "oracle")
    found = rival.sample(given(test), key=test.key, samples=8)
    assert found.beat.shape == (8, 100, 8, 200) and torch.isfinite(found.beat).all()
    assert not found.chart["qtcf_ms"].isnan().any()
    error = (found.chart["qtcf_ms"].median(0).values - test.post["qtcf_ms"]).abs().mean()
    assert error < (test.pre["qtcf_ms"] - test.post["qtcf_ms"]).abs().mean()
    # the patient's own QRS stays; the T wave is drawn anew
    assert (found.beat.mean(0) - test.pre_beat)[..., QRS_START + 8 : J_POINT - 8].abs().mean() < 0.03
    drugged = (test.drug == 2) & (test.hours > 1) & (test.hours < 9)
    moved = (found.beat.mean(0) - test.pre_beat)[..., T_PEAK].abs().mean(-1)
    assert moved[drugged].mean() > moved[test.drug == 0].mean()
    alone = rival.sample(given(test.take(slice(7, 8))), key=test.key[7:8], samples=8)
    assert torch.allclose(alone.chart["pr_ms"][:, 0], found.chart["pr_ms"][:, 7], atol=1e-3)


def test_a_learned_world_goes_through_the_same_door():
    test = drawn("test", 100).take(slice(12))
    rival = WorldRival(lambda hours: ECGWorldModel(ECGWorldConfig(), hours_per_step=hours).eval(), "untrained")
    found = rival.sample(given(test), key=test.key, samples=2)
    assert found.beat.shape == (2, 12, 8, 200) and torch.isfinite(found.chart["qtcf_ms"]).all()


def test_worlds_are_told_what_the_chart_shows_and_nothing_hidden():
    test = drawn("test", 100).take(slice(4))
    oracle = ECGDrugOracle()
    told = factors_of(oracle, dict(test.pre), given(test).covariates)
    assert torch.equal(told["baseline_qtcf_ms"], test.pre["qtcf_ms"].clamp(200, 700))
    assert "quinidine_clearance" not in told and "verapamil_clearance" not in told and "morphology" not in told
    assert (told["baseline_burden"] == 0).all() or told["baseline_burden"].max() <= 0.01
    assert tree.batch_size(oracle.initial(test.key, told)) == 4
