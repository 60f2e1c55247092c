"""Judging is paired and repeatable, and its figures are the ones numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.baselines.constant import Constant, no_treatment
from agents.baselines.uniform import Uniform
from agents.rollout import EpisodeResults, admission_factors, format_table, judge, paired_table
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from clinenv.task import Outcomes
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models import catalog, keys


@pytest.fixture(scope="module")
def simulator():
    return Simulator(DialWorld(drift=0.4), DialTask())


def test_same_agent_same_keys_same_episodes(simulator):
    key = keys.from_seed(0, 20)
    agent = Uniform(3, seed=4)
    first, second = (judge(agent, simulator, key, STEPS) for _ in range(2))
    assert torch.equal(first.returns, second.returns) and torch.equal(first.ordered, second.ordered)


def test_patients_do_not_depend_on_each_other(simulator):
    key = keys.from_seed(0, 20)
    together = judge(Constant(1), simulator, key, STEPS)
    alone = judge(Constant(1), simulator, key[7:8], STEPS)
    assert float(together.returns[7]) == float(alone.returns[0])


def test_pairing_takes_chance_out_of_a_difference():
    class Costless(DialTask):
        def reward(self, before, action, after):
            return {"chance": after["dial_turns"] - before["dial_turns"]}

    simulator = Simulator(DialWorld(drift=5.0), Costless())
    key = keys.from_seed(1, 50)
    results = {n: judge(Constant(i), simulator, key, STEPS) for i, n in enumerate(("none", "one"))}
    rows = paired_table(results, reference="none", resamples=200)
    assert rows[1]["return_minus_reference"] == pytest.approx(STEPS, abs=1e-3)
    assert rows[1]["return_minus_reference_high"] - rows[1]["return_minus_reference_low"] < 1e-3
    assert rows[1]["return_high"] - rows[1]["return_low"] > 1.0


def test_terms_sum_to_the_return_and_steps_are_counted(simulator):
    episodes = judge(Constant(2), simulator, keys.from_seed(0, 5), STEPS)
    assert torch.allclose(sum(episodes.terms.values()), episodes.returns, rtol=1e-5)
    assert episodes.lengths.tolist() == [STEPS] * 5
    assert episodes.costs.tolist() == [float(STEPS)] * 5
    assert episodes.ordered.tolist() == episodes.given.tolist() == [[2.0 * STEPS]] * 5
    assert episodes.refused.tolist() == [0.0] * 5 and episodes.outcomes == Outcomes({}, {})


def test_nothing_counts_after_the_end():
    class Short(DialTask):
        def terminated(self, chart):
            return chart["dial_turns"] >= 4.0

    simulator = Simulator(DialWorld(), Short())
    path = {"path_turns": torch.ones(2, STEPS)}
    episodes = judge(Constant(2), simulator, keys.from_seed(0, 2), STEPS, factors=path)
    assert episodes.lengths.tolist() == [2, 2] and episodes.ordered.tolist() == [[4.0]] * 2
    assert episodes.returns.tolist() == [-5.0] * 2  # (2 - 1)^2 + (4 - 2)^2


def _episodes(returns):
    zero = torch.zeros(len(returns))
    outcomes = Outcomes({"torsades": zero + 0.5}, {"max_qtcf_ms": zero + 510.0})
    return EpisodeResults(torch.tensor(returns), zero, zero.long(), {}, outcomes, *[zero.unsqueeze(1)] * 2, zero)


def test_table_equals_numpy():
    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    rows = paired_table({"a": _episodes(values), "b": _episodes(values + 1)}, reference="a")
    assert rows[0]["return"] == pytest.approx(values.mean(), abs=1e-6)
    half = 1.96 * values.std(ddof=1) / 20
    assert rows[0]["return_low"] == pytest.approx(values.mean() - half, abs=0.02)
    assert rows[0]["return_high"] == pytest.approx(values.mean() + half, abs=0.02)
    assert rows[0]["return_cvar"] == pytest.approx(np.sort(values)[:20].mean(), abs=1e-5)
    assert rows[1]["return_minus_reference"] == pytest.approx(1.0, abs=1e-5)
    assert rows[1]["torsades"] == rows[1]["torsades_low"] == 0.5 and rows[1]["torsades_minus_reference"] == 0.0
    assert rows[0]["max_qtcf_ms"] == 510.0 and "max_qtcf_ms_low" not in rows[0]
    head, _, first, _ = format_table(rows).splitlines()
    assert "return minus reference" in head and "50.0 [50.0, 50.0]" in first and "510 ms" in first
    assert "torsades" in head and "discharged" not in head


def test_outcomes_are_added_up_and_the_highest_kept_until_the_end():
    class Watched(DialTask):
        def outcomes(self, before, action, after):
            turned = after["dial_turns"] - before["dial_turns"]
            return Outcomes({"turned": turned}, {"furthest": torch.maximum(before["dial_turns"], after["dial_turns"])})

        def terminated(self, chart):
            return chart["dial_turns"] >= chart["path_turns"].sum(-1)

    path = {"path_turns": torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 7 + [1.0], [2.0] * 8])}
    episodes = judge(Constant(1), Simulator(DialWorld(), Watched()), keys.from_seed(0, 3), STEPS, factors=path)
    assert (
        episodes.outcomes.totals["turned"].tolist() == episodes.outcomes.peaks["furthest"].tolist() == [4.0, 1.0, 8.0]
    )


def test_refuses_unpaired_results_and_empty_runs(simulator):
    with pytest.raises(ValueError, match="same patients"):
        paired_table({"a": _episodes([1.0]), "b": _episodes([1.0, 2.0])})
    with pytest.raises(ValueError, match="reference"):
        paired_table({"a": _episodes([1.0])}, reference="z")
    with pytest.raises(ValueError, match="steps"):
        judge(no_treatment(), simulator, keys.from_seed(0, 3), 0)


def test_patients_of_an_admission_chart_keep_their_rhythm_in_another_world() -> None:
    """In fibrillation the chart has no PR and no sinus rate: those are sampled, and everybody can be admitted."""
    oracle, learned = catalog.load("oracle", cohort="persistent"), catalog.load("ecg-wm-small")
    key = keys.from_seed(5, 60)
    chart = oracle.observe(oracle.initial(key))
    waving = chart["atrial_fibrillation"] > 0.5
    assert 0 < int(waving.sum()) < 60
    factors = admission_factors(chart, oracle, learned)
    kidneys = {"creatinine_clearance_ml_min", "potassium_mmol_l", "magnesium_mmol_l", "baseline_systolic_bp_mmhg"}
    wave = {"baseline_t_amplitude_uv", "baseline_erd_30_ms", "baseline_fibrillation_rate_bpm", "admission_fibrillation"}
    assert kidneys | wave <= set(factors) and not any(name.endswith("_clearance") for name in factors)
    for name in ("baseline_pr_ms", "baseline_heart_rate_bpm"):
        assert torch.equal(factors[name].isnan(), waving)
    assert torch.equal(factors["baseline_fibrillation_rate_bpm"].isnan(), ~waving)
    for world in (oracle, learned):
        _, seen = Simulator(world, ECGDrugTask()).reset(key, factors)
        assert torch.equal(seen["atrial_fibrillation"] > 0.5, waving)
        assert torch.equal(seen["potassium_mmol_l"], chart["potassium_mmol_l"])
    results = judge(no_treatment(), Simulator(learned, ECGDrugTask()), key, 2, factors)
    assert bool(torch.isfinite(results.returns).all())
