from __future__ import annotations

import math

import pytest
import torch

from benchmarks.common.results import read_csv
from benchmarks.ward import effects as effects_module
from benchmarks.ward.effect_orders import CONTRASTS, step_of
from benchmarks.ward.effect_scores import correlation, effects, reliability, row_of, summary
from benchmarks.ward.effects import cohort, learned_arms, main, oracle_arms
from tests.ehr_world.ward_small import tiny
from world_models import keys
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, inquiry_index, intervention_index

SEED = 8_300_000_000


def _contrast(name: str):
    return next(c for c in CONTRASTS if c.intervention == name)


def test_the_table_names_each_order_once_and_only_what_there_is():
    names = [c.intervention for c in CONTRASTS]
    assert len(set(names)) == len(names) >= 20
    for c in CONTRASTS:
        assert 0 < c.dose <= INTERVENTIONS[intervention_index(c.intervention)].high
        assert c.horizon_h in c.horizons_h and INQUIRIES[inquiry_index(c.target)].kind != "culture"
        assert len({step_of(c.target, h) for h in c.horizons_h}) == len(c.horizons_h)
        assert not (c.setting and c.every_h)


def test_a_laboratory_value_is_drawn_after_its_horizon_a_vital_read_at_it():
    assert [step_of("map_mmhg", h) for h in (4, 12, 24)] == [1, 3, 6]
    assert [step_of("potassium_mmol_l", h) for h in (1, 4, 24, 72)] == [1, 2, 7, 19]


def test_doses_are_given_once_at_intervals_or_held():
    def steps(name):
        return [s for s in range(1, 8) if _contrast(name).given(s)]

    assert steps("potassium_chloride_mmol") == [1]
    assert steps("meropenem_g") == [1, 3, 5, 7]
    assert steps("ceftriaxone_g") == [1, 7]
    assert steps("norepinephrine_ug_kg_min") == list(range(1, 8))


def test_unit_effects_leave_out_luck_without_a_value():
    nan = float("nan")
    values = torch.tensor([[[1.0, 2.0], [1.0, nan], [nan, nan]], [[3.0, 5.0], [2.0, 9.0], [1.0, 1.0]]])
    found = effects(values)
    assert found[:2].tolist() == [2.5, 1.0] and found[2].isnan()


def test_figures_of_a_row_on_known_effects():
    truth = torch.linspace(0.5, 1.5, 101)
    row = row_of(truth, 1.2 * truth, others_mean=1.0)
    assert row["ratio"] == pytest.approx(1.2) and row["within_25_percent"] == 1 and row["same_sign"] == 1
    assert row["unit_correlation"] == pytest.approx(1.0)
    assert row["oracle_low"] < 1.0 < row["oracle_high"]
    assert row["ratio_low"] == pytest.approx(1.2) and row["ratio_high"] == pytest.approx(1.2)
    rms = math.sqrt(float(truth.double().square().mean()))
    assert row["pehe_no_effect"] == pytest.approx(rms) and row["pehe"] == pytest.approx(0.2 * rms)
    assert row["pehe_population_effect"] == pytest.approx(float((truth - 1).square().mean().sqrt()), rel=1e-5)
    wrong = row_of(truth, -0.9 * truth, others_mean=1.0)
    assert wrong["same_sign"] == 0 and wrong["within_25_percent"] == 0
    assert wrong["unit_correlation"] == pytest.approx(-1.0)


def test_an_effect_that_does_not_vary_has_no_correlation_and_none_at_all_no_row():
    assert math.isnan(correlation(torch.ones(20), torch.arange(20.0)))
    with pytest.raises(ValueError, match="more patients"):
        row_of(torch.full((4,), float("nan")), torch.ones(4), 0.0)


def test_reliability_tells_patients_from_luck():
    key = keys.from_seed(5, 400)
    luck = torch.stack([torch.zeros(400, 8), keys.normal(key, 0, "luck", (8,))])
    between = luck.clone()
    between[1] = between[1] + 3.0 * keys.normal(key, 0, "patient").unsqueeze(-1)
    assert reliability(luck) < 0.25
    assert reliability(between) == pytest.approx(72 / 73, abs=0.02)


def test_a_summary_counts_primary_rows_of_its_dial():
    base = {"model": "m", "dial": 0.0, "primary": 1, "pehe": 1.0, "pehe_no_effect": 2.0, "pehe_population_effect": 0.5}
    rows = [
        {**base, "within_25_percent": 1, "same_sign": 1, "unit_correlation": 0.2},
        {**base, "within_25_percent": 0, "same_sign": 1, "unit_correlation": 0.4},
        {**base, "within_25_percent": 0, "same_sign": 0, "unit_correlation": 0.6},
        {**base, "within_25_percent": 1, "same_sign": 1, "unit_correlation": 0.0, "primary": 0},
        {**base, "within_25_percent": 1, "same_sign": 1, "unit_correlation": 0.0, "dial": 1.0},
    ]
    found = summary(rows, 0.0)
    assert found["within_25_percent"] == 1 and found["same_sign"] == 2
    assert found["unit_correlation"] == pytest.approx(0.4)
    assert found["population"].startswith("1 of 3")


def test_arms_that_order_the_same_do_not_differ(monkeypatch):
    world, contrast = WardOracle(), _contrast("potassium_chloride_mmol")
    who = cohort(world, keys.from_seed(SEED, 6), 1)

    def same(*args):
        first, _ = actions(*args)
        return first, first

    actions = effects_module._actions
    monkeypatch.setattr(effects_module, "_actions", same)
    for arms in (oracle_arms(world, contrast, who, 2), learned_arms(tiny(), contrast, who, 2)):
        for h in contrast.horizons_h:
            here = ~arms[h][0].isnan()
            assert here.any() and torch.equal(arms[h][0][here], arms[h][1][here])


def test_potassium_chloride_raises_potassium_in_the_oracle():
    world, contrast = WardOracle(), _contrast("potassium_chloride_mmol")
    who = cohort(world, keys.from_seed(SEED, 12), 1)
    found = effects(oracle_arms(world, contrast, who, 2)[4])
    assert found.shape == who.state.key.shape
    assert 0.1 < float(found.nanmean()) < 0.5


@pytest.mark.slow
def test_the_command_writes_rows_of_both_dials_and_a_figure(tmp_path, monkeypatch):
    worlds = {"a": tiny(0), "b": tiny(1)}
    monkeypatch.setattr(effects_module.catalog, "load", lambda name: worlds[name])
    out = tmp_path / "effects.csv"
    orders = ["potassium_chloride_mmol", "furosemide_mg"]
    argv = ["--world", "a", "b", "--dial", "0", "1", "--orders", *orders, "--candidates", "30", "--patients", "10"]
    main([*argv, "--streams", "2", "--paths", "2", "--seed", str(SEED), "--out", str(out)])
    rows = read_csv(out)
    primary = [r for r in rows if r["primary"] == "1"]
    assert {(r["intervention"], float(r["dial"])) for r in primary} == {(o, d) for o in orders for d in (0.0, 1.0)}
    by_dial = {d: [r["effect_oracle"] for r in primary if float(r["dial"]) == d] for d in (0.0, 1.0)}
    assert by_dial[0.0] == by_dial[1.0]
    assert sum(r["intervention"] == "SUMMARY" for r in rows) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["effects.csv", "effects.png"]


def test_bad_arguments_are_named_before_anything_runs(tmp_path, capsys):
    for argv, word in (
        (["--world", "a", "b"], "one --dial for each"),
        (["--orders", "aspirin_mg"], "no contrast for aspirin_mg"),
        (["--patients", "0"], "--patients 0"),
    ):
        with pytest.raises(SystemExit):
            main([*argv, "--out", str(tmp_path / "x.csv")])
        assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
