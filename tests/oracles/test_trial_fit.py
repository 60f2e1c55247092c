"""The fit: known truths come back from simulated trials, and the real file gives what is known of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from world_models import keys
from world_models.data.ecg.ecgrdvq import load_trial
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.kinetics import fit_kinetics, individual_kinetics, names_of
from world_models.oracles.ecg_drug.fit.linear_mixed import Design, fit_linear_mixed
from world_models.oracles.ecg_drug.fit.trial import fit_trial, main
from world_models.oracles.ecg_drug.kinetics import kernel
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS, scaled
from world_models.quantities.drugs import ANTIARRHYTHMICS, drug

pytestmark = pytest.mark.slow  # a fit takes twenty seconds, and each test reads it

HOURS = (-0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 14.0, 24.0)
DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "ecgrdvq"


def simulated_trial(model: TrialModel, subjects: int, seed: int) -> pd.DataFrame:
    """A trial of the real one's design, drawn from a model, as a tidy frame."""
    key = keys.from_seed(seed, subjects)
    female = (torch.arange(subjects) % 2).float()
    weight = 55.0 + 30.0 * keys.uniform(key, 0, "weight")
    person = model.individual(key, female, weight, 30.0 + 0 * weight, torch.ones(subjects))
    level = model.baseline(key, female, weight)
    course = model.parameters["course"]
    rows = []
    for arm, name in enumerate(("placebo", *model.drugs)):
        arm_key = keys.fold(key, arm)
        day = model.day_shift(arm_key)
        dose = torch.zeros(subjects, len(model.drugs))
        if arm:
            dose[:, arm - 1] = drug(name).trial_dose_mg
        for i, hour in enumerate(HOURS):
            amounts = (
                model.advance(person, model.no_drug(subjects), dose, hour) if hour > 0 else model.no_drug(subjects)
            )
            effects, noise = model.effects(person, amounts), model.residual(arm_key, i, person, amounts)
            clock = model.time_of_day(torch.tensor(course["dosing_clock_hour"] + hour))
            conc = model.concentrations(person, amounts)
            line = {"randid": range(subjects), "drug": name, "period": arm, "hour": hour, "sex_female": female.numpy()}
            line |= {"age_years": 30.0, "weight_kg": weight.numpy(), "dose_mg": dose.sum(-1).numpy(), "replicates": 3}
            line["conc_ng_per_ml"] = np.full(subjects, np.nan)
            if arm and hour > 0:
                line["conc_ng_per_ml"] = (conc[:, arm - 1] * torch.exp(0.1 * keys.normal(arm_key, i, "assay"))).numpy()
            for e in ENDPOINTS:
                shift = course[e]["before_dosing"] if hour < 0 else course[e]["drift_over_24_h"] * hour / 24.0
                now = (level[e] + day[e] + clock[e] + shift + effects[e] + noise[e]).numpy()
                line[e] = scaled(e, now, inverse=True)
            rows.append(pd.DataFrame(line))
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def refitted():
    model = TrialModel.load()
    frame = simulated_trial(model, 60, seed=11)
    torch.set_num_threads(1)
    return model.parameters, frame, fit_trial(frame)


def test_population_kinetics_come_back(refitted):
    truth, _, found = refitted
    for item in ANTIARRHYTHMICS:
        a, b = truth["drugs"][item.name]["kinetics"], found["drugs"][item.name]["kinetics"]
        for name in ("clearance", "v1"):
            assert b["typical"][name] == pytest.approx(a["typical"][name], rel=0.2), (item.name, name)
            at = a["parameter_order"].index(name)
            sds = [np.sqrt(np.diag(x["between_subject_log_covariance"]))[at] for x in (a, b)]
            assert sds[1] == pytest.approx(sds[0], abs=0.1)
        assert b["relative_standard_error"]["clearance"] < 0.15


def test_population_effects_and_levels_come_back(refitted):
    truth, _, found = refitted
    for name, endpoint in (
        ("dofetilide", "jt_peak_c_ms"),
        ("dofetilide", "tpeak_tend_ms"),
        ("quinidine", "tpeak_tend_ms"),
        ("quinidine", "jt_peak_c_ms"),
        ("verapamil", "pr_ms"),
        ("verapamil", "heart_rate_bpm"),
        ("ranolazine", "tpeak_tend_ms"),
        *((name, e) for name in ("dofetilide", "quinidine") for e in T_ENDPOINTS),
    ):
        sizes, errors = [], []
        for source in (truth, found):
            entry = source["drugs"][name]
            law, peak = entry["effects"][endpoint], truth["drugs"][name]["mean_peak_concentration_ng_per_ml"]
            at_peak = peak * (peak / entry["mean_peak_concentration_ng_per_ml"]) ** (law["power"] - 1)
            saturation = 1.0 if law["c50_ng_per_ml"] is None else 1.0 + peak / law["c50_ng_per_ml"]
            sizes.append(law["slope_per_ng_per_ml"] * at_peak / saturation)
            errors.append(law["slope_standard_error"] * at_peak / saturation)
        assert sizes[1] == pytest.approx(sizes[0], abs=max(3.5 * errors[1], 0.15 * abs(sizes[0]))), (name, endpoint)
    for sex in ("women", "men"):
        for e in ENDPOINTS:
            error = found["baseline"][f"{sex}_standard_errors"][e]
            assert found["baseline"][sex][e] == pytest.approx(truth["baseline"][sex][e], abs=3.5 * error), (sex, e)
    for which in ("between_subject_covariance", "between_period_covariance", "residual_covariance"):
        a, b = (np.sqrt(np.diag(source["baseline"][which])) for source in (truth, found))
        np.testing.assert_allclose(b, a, rtol=0.3)


def test_the_json_holds_no_subject(refitted, tmp_path):
    _, _, found = refitted
    text = json.dumps(found, allow_nan=False)
    assert "randid" not in text.lower()
    path = tmp_path / "fit.json"
    path.write_text(text)
    assert TrialModel.load(path).drugs == ("ranolazine", "dofetilide", "verapamil", "quinidine")


def test_a_missing_arm_is_named(refitted):
    _, frame, _ = refitted
    with pytest.raises(ValueError, match="no arm verapamil"):
        fit_trial(frame[frame["drug"] != "verapamil"])
    with pytest.raises(ValueError, match=r"t_asymmetry \(column Twave_asymmetry\)"):
        fit_trial(frame.drop(columns="t_asymmetry"))
    with pytest.raises(ValueError, match="no concentrations of dofetilide"):
        fit_kinetics(frame.assign(conc_ng_per_ml=np.nan), drug("dofetilide"))


def test_linear_mixed_model_finds_fixed_effects_and_components():
    generator = np.random.default_rng(5)
    n, r = 80, 20
    x = torch.tensor(generator.normal(size=(n, r)))
    one = torch.ones(n, r, 1, dtype=torch.float64)
    u, v = generator.normal(size=(n, 1)) * 4.0, generator.normal(size=(n, 1)) * 2.0
    y = torch.tensor(10.0 + u + (3.0 + v) * x.numpy() + generator.normal(size=(n, r)) * 1.5)
    y[0, :5] = torch.nan
    design = Design(torch.cat([one, x.unsqueeze(-1)], -1), (one, x.unsqueeze(-1)))
    nothing = torch.zeros(0, dtype=torch.float64)
    fit = fit_linear_mixed(
        lambda _: design, y, torch.full((2,), torch.inf), torch.tensor([2.0, 1.0]), 1.0, nothing, nothing
    )
    np.testing.assert_allclose(fit.beta.numpy(), [10.0, 3.0], atol=3.5 * float(fit.errors.max()))
    np.testing.assert_allclose(fit.component_sds.numpy(), [4.0, 2.0], rtol=0.25)
    assert fit.residual_sd == pytest.approx(1.5, rel=0.06)
    assert np.corrcoef(fit.effects[0][:, 0].numpy(), u[:, 0])[0, 1] > 0.97
    assert bool(fit.residuals[0, :5].isnan().all())


def test_individual_curves_follow_the_concentrations():
    if not DATA.is_dir():
        pytest.skip(f"no trial at {DATA}; set CLINENV_DATA to the folder that holds ecgrdvq")
    frame = load_trial(DATA)
    item = drug("verapamil")
    fit, subjects = fit_kinetics(frame, item)
    arm = frame[(frame["drug"] == "verapamil") & (frame["hour"] > 0)]
    table = arm.pivot_table(index="randid", columns="hour", values="conc_ng_per_ml").loc[subjects]
    plasma, _ = kernel(individual_kinetics(item, fit.phi, []), torch.tensor(table.columns.to_numpy(dtype=float)))
    error = np.abs(np.log(table.to_numpy() / (120.0 * plasma.numpy())))[:, 3:]
    assert np.nanmedian(error) < 0.12
    assert 150 < float(fit.theta[names_of(item).index("clearance")].exp()) < 350


def test_command_writes_the_committed_fit_from_the_real_trial(tmp_path, capsys):
    if not DATA.is_dir():
        pytest.skip(f"no trial at {DATA}; set CLINENV_DATA to the folder that holds ecgrdvq")
    out = tmp_path / "fit.json"
    assert main(["--trial", str(DATA), "--out", str(out)]) == 0
    found, shipped = json.loads(out.read_text()), TrialModel.load().parameters
    assert found["provenance"]["subjects"] == shipped["provenance"]["subjects"]
    for name in shipped["drugs"]:
        for parameter, value in shipped["drugs"][name]["kinetics"]["typical"].items():
            assert found["drugs"][name]["kinetics"]["typical"][parameter] == pytest.approx(value, rel=0.02)
    # what is known of the trial: women have longer J-Tpeak, a faster heart and a steeper J-Tpeak slope on dofetilide
    assert shipped["baseline"]["women"]["jt_peak_c_ms"] > shipped["baseline"]["men"]["jt_peak_c_ms"]
    assert shipped["drugs"]["dofetilide"]["effects"]["jt_peak_c_ms"]["women_minus_men_per_ng_per_ml"] > 0
    assert main(["--trial", str(tmp_path), "--out", str(out)]) == 2
    assert main(["--trial", str(DATA), "--out", str(tmp_path / "no" / "x.json")]) == 2
    assert "no clinical table" in capsys.readouterr().err
