"""The T wave in the oracle: what the trial found of it happens to its virtual people."""

from __future__ import annotations

import pytest
import torch

from world_models import keys
from world_models.oracles.ecg_drug.cipa import cipa_table
from world_models.oracles.ecg_drug.cohorts import LRD_SHARE, sample_factors
from world_models.oracles.ecg_drug.dynamics import channel_effects
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle


def test_the_trials_people_rest_before_the_dose_and_not_after() -> None:
    """Their admission ECG is the trial's pre-dose one; what belongs to that alone has gone by the next visit."""
    world = ECGDrugOracle(cohort="healthy")
    n = 4000
    # without an arrhythmia: an ECG in fibrillation has another rate, and no PR
    fixed = {"admission_clock_hour": torch.full((n,), 8.0), "baseline_burden": torch.zeros(n)}
    state = world.initial(keys.from_seed(71, n), fixed)
    later = world.observe(world.transition(state, torch.zeros(n, 4)))
    own, first = world.truth(state), world.observe(state)
    day = world.trial.time_of_day(torch.tensor([8.0, 10.0]))
    for i, name in enumerate(("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms")):
        rest = world.trial.before_dosing[i].item()
        assert (first[name] - own[f"own_{name}"]).mean().item() == pytest.approx(rest + day[name][0].item(), abs=0.5)
        assert (later[name] - own[f"own_{name}"]).mean().item() == pytest.approx(day[name][1].item(), abs=0.5)


def test_dofetilide_and_quinidine_flatten_broaden_and_skew_the_t_wave() -> None:
    """Against the same people without the drug, two and a half hours after it, as in the trial (Vicente 2015)."""
    world = ECGDrugOracle(cohort="healthy", hours_per_step=2.5)
    state = world.initial(keys.from_seed(73, 2000))
    none, ranolazine, dofetilide, verapamil, quinidine = (
        {
            n: v.mean().item()
            for n, v in world.observe(world.transition(state, torch.tensor(o).expand(2000, 4))).items()
            if v.ndim == 1
        }
        for o in ([0.0] * 4, *(torch.diag(torch.tensor([1500.0, 0.5, 120.0, 400.0])).tolist()))
    )
    for name, low, high in (("dofetilide", 0.6, 0.85), ("quinidine", 0.5, 0.8)):
        chart = {"dofetilide": dofetilide, "quinidine": quinidine}[name]
        assert low < chart["t_amplitude_uv"] / none["t_amplitude_uv"] < high, name  # the trial: 0.77 and 0.68
        assert 0.08 < chart["t_flatness"] - none["t_flatness"] < 0.2, name  # 0.15, 0.16
        assert 0.1 < chart["t_asymmetry"] - none["t_asymmetry"] < 0.45, name  # 0.24, 0.34
        assert 12 < chart["erd_30_ms"] - none["erd_30_ms"] < 32, name  # 22, 24
        assert 7 < chart["lrd_30_ms"] - none["lrd_30_ms"] < 25, name  # 14, 14
    for chart in (ranolazine, verapamil):
        assert abs(chart["t_flatness"] - none["t_flatness"]) < 0.07
        assert chart["t_amplitude_uv"] > 0.8 * none["t_amplitude_uv"]


def test_women_and_the_old_have_lower_t_waves_and_lrd_30_goes_with_tpeak_tend() -> None:
    key = keys.from_seed(79, 4000)
    same = torch.ones(4000)
    young, old, women = (
        sample_factors("typical", key, {"age_years": age * same, "sex_female": sex * same})
        for age, sex in ((40.0, 0.0), (80.0, 0.0), (40.0, 1.0))
    )
    name = "baseline_t_amplitude_uv"
    assert old[name].median() < 0.9 * young[name].median()
    assert women[name].median() < 0.85 * young[name].median()
    share = young["baseline_lrd_30_ms"] / young["baseline_tpeak_tend_ms"]
    assert share.min() > LRD_SHARE[0] - 1e-3 and share.max() < LRD_SHARE[1] + 1e-3
    both = torch.stack([young["baseline_t_flatness"], young["baseline_erd_30_ms"].log()])
    assert 0.6 < torch.corrcoef(both)[0, 1] < 0.85


def test_a_drug_without_a_fit_changes_the_t_wave_by_its_herg_block() -> None:
    table = cipa_table()
    free = torch.tensor([table["dofetilide"].free_cmax_nm], dtype=torch.float64)
    effect = channel_effects(table["dofetilide"], free)
    assert effect["t_amplitude_uv"] < 0 and all(effect[n] > 0 for n in T_ENDPOINTS[1:])
    none = channel_effects(table["dofetilide"], torch.zeros(1, dtype=torch.float64))
    assert all(abs(float(none[n])) < 1e-6 for n in T_ENDPOINTS)
