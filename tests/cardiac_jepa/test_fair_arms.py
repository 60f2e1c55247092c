"""The fair arms on a cohort small enough to train in seconds: who learns from whom, what is written and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.common.results import read_csv
from benchmarks.progression import arms, fair, fair_arms
from tests.cardiac_jepa.test_jepa_benchmarks import CODES, TINY, cohort
from world_models.cardiac_jepa.auroc import bootstrap_macro, contrast, difference, mean_of
from world_models.data.ecg.monolith import Monolith, MonolithWriter, from_arrays
from world_models.plateau import Patience


@pytest.fixture(scope="module")
def monolith() -> Monolith:
    return from_arrays(**cohort(400, 250), codes=CODES)


def test_a_small_share_chooses_on_no_more_than_it_learns_from(monolith: Monolith) -> None:
    c = arms.cohort_of(monolith)
    small, large = (arms.sides_of(c, share, 0, 0.25) for share in (0.02, 0.5))
    people = {name: len(monolith.patient[rows].unique()) for name, rows in small._asdict().items() if name[0] in "tv"}
    assert people == {"train": 7, "valid": 2} and len(small.valid) <= len(small.train)
    assert set(small.train.tolist()) <= set(large.train.tolist()) and len(large.valid) == 80
    inside = torch.isin(small.first, small.train) & torch.isin(small.second, small.train)
    assert bool(inside.all()) and not bool(torch.isin(small.valid, small.train).any())
    assert len(arms.sides_of(c, 0.02, 0, 9.0).valid) == len(small.train)  # asked for more: cut to as many
    with pytest.raises(ValueError, match="pairs at a share"):
        arms.sides_of(c._replace(first=c.first[:0], second=c.second[:0]), 0.5, 0, 0.25)


def settings(**more) -> fair.FairSettings:
    patience = Patience(check=10, checks=2, least_steps=20, most_steps=40, warm_up=5)
    epochs = fair.Epochs(2, 2, 2, 64, 64, 64)
    return fair.FairSettings("made up", rates=(1e-3, 1e-2), patience=patience, epochs=epochs, batch=32, **more)


@pytest.mark.slow
def test_every_schedule_trains_and_a_finished_arm_is_not_trained_again(
    monolith: Monolith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(arms.PRESETS, "narrow", TINY)
    c = arms.cohort_of(monolith)
    asked = [
        ("fair", "supervised", float("inf")),
        ("equal", "reversed-chained", 20.0),
        ("paper", "paper", float("inf")),
        ("mixed", "paper", float("inf")),
    ]
    made, arm_of = {}, {}
    for schedule, form, seconds in asked:
        made[form] = arm_of[schedule] = fair.run_fair_arm(c, form, 0.5, schedule, settings(), tmp_path, 0, seconds)
    paper, mixed = arm_of["paper"], arm_of["mixed"]
    assert torch.equal(mixed.scores[arms.PROBE], paper.scores[arms.PROBE]), "the same encoder"
    assert not torch.equal(mixed.scores[arms.TUNED], paper.scores[arms.TUNED])
    assert mixed.told["labels_rate"] in (1e-3, 1e-2) and mixed.told["pretrain_cpu_s"] == paper.told["pretrain_cpu_s"]
    told = made["supervised"].told
    assert set(made["supervised"].scores) == {arms.WHOLE}
    assert set(made["paper"].scores) == set(made["reversed-chained"].scores) == {arms.PROBE, arms.TUNED}
    assert told["labels_rate"] in (1e-3, 1e-2) and told["labels_steps_of_all_rates"] >= 40 and told["cpu_s"] > 0
    assert made["paper"].told["pretrain_steps"] == 2 * -(-540 // 64)  # epochs over the pairs in their natural numbers
    label = monolith.label[c.test]
    area = bootstrap_macro(made["supervised"].scores[arms.WHOLE], label, monolith.patient[c.test], 50, 0, 5)
    assert area.macro.value > 0.8  # a condition lifts its lead: 40 steps see it

    def never(*_: object, **__: object) -> None:
        raise AssertionError("an arm that was done is trained again")

    for name in ("pretrain", "finetune", "to_plateau"):
        monkeypatch.setattr(fair, name, never)
    for schedule, form, seconds in asked:
        again = fair.run_fair_arm(c, form, 0.5, schedule, settings(), tmp_path, 0, seconds)
        assert again.told == arm_of[schedule].told
        assert all(torch.equal(again.scores[n], x) for n, x in arm_of[schedule].scores.items())
    for form, schedule, seconds, words in (
        ("theirs", "fair", float("inf"), "no form"),
        ("ours", "equal", float("inf"), "'equal' needs them"),
        ("ours", "fair", 3.0, "the others have none"),
        ("ours", "mixed", float("inf"), "train that first"),
    ):
        with pytest.raises(ValueError, match=words):
            fair.run_fair_arm(c, form, 0.5, schedule, settings(), tmp_path, 0, seconds)


def test_what_unequal_training_makes_is_the_difference_of_two_leads(monolith: Monolith) -> None:
    c = arms.cohort_of(monolith)
    truth = monolith.label[c.test].float()
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    judged = fair_arms.Judged(c, 100, 5)
    for schedule, strength in (("paper", 0.2), ("fair", 1.0)):
        judged.add(schedule, 0.1, "supervised", {arms.WHOLE: strength * truth + noise})
        judged.add(schedule, 0.1, "ours", {arms.TUNED: 1.0 * truth + noise})
    row = next(r for r in fair_arms.unequal(judged) if r["task"].startswith("Triage"))
    assert row["fair_lead"] == row["fair_lead_low"] == 0.0 and row["published_lead"] == 0.05
    assert (
        row["unequal_training"] == pytest.approx(row["lead_of_the_papers_schedule"]) and row["unequal_training"] > 0.1
    )
    assert row["unequal_training_low"] > 0 and row["lead_at_equal_seconds"] != row["lead_at_equal_seconds"]
    leads = fair_arms.differences(judged)
    assert {(r["schedule"], r["above_zero"]) for r in leads} == {("paper", True), ("fair", False)}


def test_contrasts_and_means_of_bootstraps() -> None:
    label = torch.arange(60)[:, None] % 2 == 0
    scores = [label.float() + torch.randn(60, 1, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    a, b, c = (bootstrap_macro(x, label, torch.arange(60), 200) for x in scores)
    assert tuple(contrast((1.0, a), (-1.0, b))) == tuple(difference(a, b))
    both = mean_of([a, b])
    assert both.macro.value == pytest.approx((a.macro.value + b.macro.value) / 2)
    assert both.macro.low > min(a.macro.low, b.macro.low)
    assert tuple(contrast((1.0, c), (-0.5, a), (-0.5, b))) == pytest.approx(tuple(difference(c, both)), abs=1e-6)
    with pytest.raises(ValueError, match="one weight"):
        contrast()
    with pytest.raises(ValueError, match="no run"):
        mean_of([])


@pytest.mark.slow
def test_the_command_writes_its_tables_and_refuses_one_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(arms.PRESETS, "narrow", TINY)
    data = tmp_path / "data.h5"
    with MonolithWriter(data, CODES, 100.0, 300, "made up") as out:
        out.append(**cohort(160))
    command = ["--data", str(data), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--quick"]
    command += ["--arms", "supervised", "naive", "--resamples", "40", "--most-steps", "15", "--fractions", "0.5"]
    assert fair_arms.main(command) == 0
    made = {name: read_csv(tmp_path / "out" / f"cardiac_jepa_fair_{name}.csv") for name in ("arms", "leads", "unequal")}
    assert {r["schedule"] for r in made["arms"]} == set(fair.SCHEDULES) and len(made["arms"]) == 11
    assert all(float(r["triage_low"]) <= float(r["triage"]) <= float(r["triage_high"]) for r in made["arms"])
    assert len(made["unequal"]) == 2 and len(made["leads"]) == 16
    costs = read_csv(tmp_path / "out" / "cardiac_jepa_fair_costs.csv")
    assert all(float(r["cpu_s"]) > 0 for r in costs)
    base = ["--work", str(tmp_path / "w"), "--out", str(tmp_path / "o")]
    for wrong in (
        [],
        ["--data", str(tmp_path / "none.h5")],
        ["--data", str(data), "--rates", "1e-3"],
        ["--data", str(data), "--schedules", "equal"],
    ):
        with pytest.raises(SystemExit):
            fair_arms.main([*base, *wrong])
    (tmp_path / "bad.h5").write_bytes(b"no")
    assert fair_arms.main([*base, "--data", str(tmp_path / "bad.h5")]) == 2
    assert "HDF5" in capsys.readouterr().err and not (tmp_path / "o").exists()
