"""The tables' figures on cases whose answers are known by hand."""

import csv
import math

import pytest
import torch

from benchmarks.ecg_drug import tables
from benchmarks.ecg_drug.rivals.frame import Predicted
from benchmarks.ecg_drug.rivals.paper import REMARK, paper_rows
from benchmarks.ecg_drug.table_scores import MOVED, class_scores, error_scores, point_of, risk_scores
from benchmarks.ecg_drug.tables import latents_by_components, main
from tests.rivals.easy_pairs import drawn


def of_charts(pairs, samples=1, **measures):
    """A prediction that is the truth but for what is given."""
    chart = {n: v.expand(samples, -1) for n, v in pairs.post.items() if v.ndim == 1 and n != "hours"}
    chart |= {n: torch.as_tensor(v, dtype=torch.float32).expand(samples, -1) for n, v in measures.items()}
    return Predicted(pairs.post_beat.expand(samples, -1, -1, -1), chart)


def of(pairs, part, **measures):
    """The pairs with measures of `part` replaced."""
    new = {n: torch.as_tensor(v, dtype=torch.float32) for n, v in measures.items()}
    return pairs._replace(**{part: {**getattr(pairs, part), **new}})


@pytest.fixture
def four():
    pairs = drawn("test", 100).take(slice(4))
    pairs = of(pairs, "pre", qtcf_ms=[400.0, 400, 400, 400])
    return of(pairs, "post", qtcf_ms=[400.0, 435, 470, 510], pr_ms=[150.0, 210, 150, 150],
              tpeak_tend_ms=[80.0, 80, 120, 80])  # fmt: skip


def test_the_truth_has_no_error_and_all_classes(four):
    found = of_charts(four, 3)
    errors = error_scores(found, four, lambda beat, chart: beat.mean(1))
    assert all(v == pytest.approx(0, abs=1e-6) for k, v in errors.items() if k != "patients")
    right = class_scores(found, four)
    assert right["accuracy_all_three"] == right["recall_all_three"] == right["recall_qtc"] == 1.0


def test_errors_by_hand(four):
    found = of_charts(four)._replace(beat=(four.post_beat + torch.tensor([0.1, 0.1, 0.1, 0.3])[:, None, None])[None])
    found = found._replace(chart=found.chart | {"qtcf_ms": four.post["qtcf_ms"][None] + 8.0})
    row = error_scores(found, four, lambda beat, chart: beat.flatten(1)[:, :2] * 10)
    assert row["signal_mae"] == pytest.approx(0.15, abs=1e-5)
    assert row["signal_mse"] == pytest.approx((3 * 0.01 + 0.09) / 4, abs=1e-5)
    assert 0.07 < row["time_signal_mae"] <= 0.1501  # before and after the beat there is nothing to err in
    assert row["latent_mae"] == pytest.approx(1.5, abs=1e-4)
    assert row["mae_qtcf_ms"] == pytest.approx(8.0, abs=1e-3)
    assert row["signal_mae_low"] <= 0.15 <= row["signal_mae_high"]


def test_time_errors_see_a_shift_that_canonical_ones_do_not(four):
    found = of_charts(four, jt_peak_ms=four.post["jt_peak_ms"] + 40.0)
    row = error_scores(found, four, lambda beat, chart: beat.flatten(1))
    assert row["signal_mse"] == pytest.approx(0, abs=1e-9) and row["time_signal_mse"] > 1e-4


def test_classes_by_hand(four):
    # true: none; rise > 30; > 450 and rise > 30, > 60; > 450, 480, 500 and both rises: 0 + 1 + 3 + 5 classes
    found = of_charts(four, qtcf_ms=[400.0, 435, 470, 470], pr_ms=[150.0, 150, 150, 150])
    row = class_scores(found, four)
    assert row["accuracy_qtc"] == 0.75 and row["recall_qtc"] == pytest.approx(7 / 9)
    # > 450: 2 of 2, > 480: 0 of 1, > 500: 0 of 1, rise > 30: 3 of 3, rise > 60: 2 of 2
    assert row["macro_recall_qtc"] == pytest.approx((1 + 0 + 0 + 1 + 1) / 5)
    assert row["accuracy_pr"] == 0.75 and row["recall_pr"] == 0.0 and row["in_a_class_pr"] == 0.25
    assert row["accuracy_tpeak_tend"] == 1.0 and row["recall_tpeak_tend"] == 1.0
    assert row["accuracy_all_three"] == 0.5  # the first and the third
    assert row["recall_all_three"] == pytest.approx(1 / 3)


def test_nobody_in_a_class_has_no_recall(four):
    row = class_scores(of_charts(of(four, "post", pr_ms=[150.0] * 4)), of(four, "post", pr_ms=[150.0] * 4))
    assert math.isnan(row["recall_pr"]) and row["accuracy_pr"] == 1.0


def test_the_point_is_median_of_charts_and_mean_of_beats(four):
    three = of_charts(four, 3)
    chart = three.chart | {"qtcf_ms": torch.tensor([[400.0], [410.0], [700.0]]).expand(3, 4)}
    beat, median = point_of(Predicted(three.beat * torch.tensor([0.0, 1, 2])[:, None, None, None], chart))
    assert torch.allclose(beat, four.post_beat, atol=1e-6) and (median["qtcf_ms"] == 410).all()


def test_risks_by_hand(four):
    def risk(chart):
        assert set(chart) >= {"age_years", "baseline_qtcf_ms", "qtcf_ms"}
        return (chart["qtcf_ms"] - 400.0) / 100.0

    found = of_charts(four, 2, qtcf_ms=[400.0, 445, 480, 490])
    row = risk_scores(found, four, risk)
    said, true = torch.tensor([0, 0.45, 0.8, 0.9]), torch.tensor([0, 0.35, 0.7, 1.1])
    assert row["pearson"] == pytest.approx(float(torch.corrcoef(torch.stack([said, true]))[0, 1]), abs=1e-5)
    assert row["spearman"] == pytest.approx(1.0) and row["sign_agreement"] == 1.0
    assert row["moved"] == 3 and MOVED > 0
    assert row["mae"] == pytest.approx(0.1) and row["rmse"] == pytest.approx(math.sqrt((0.01 + 0.01 + 0.04) / 4))
    wrong = risk_scores(of_charts(four, 1, qtcf_ms=[400.0, 390, 480, 490]), four, risk)
    assert wrong["sign_agreement"] == pytest.approx(2 / 3)
    still = risk_scores(of_charts(four, 1, qtcf_ms=[400.0] * 4), four, risk)
    assert math.isnan(still["pearson"]) and still["sign_agreement"] == 0.0


def test_components_are_over_their_spread():
    pairs = drawn("train", 400)
    latent = latents_by_components(pairs)(torch.cat([pairs.pre_beat, pairs.post_beat]), {})
    assert latent.shape == (800, tables.COMPONENTS)
    assert (latent.std(0) - 1).abs().max() < 0.02 and latent.mean(0).abs().max() < 1e-3


def test_the_papers_figures_are_marked():
    assert [len(paper_rows(t)) for t in (1, 2, 3)] == [7, 8, 2]
    assert all(r["remark"] == REMARK for t in (1, 2, 3) for r in paper_rows(t))
    ours = next(r for r in paper_rows(2) if r["model"] == "ECG-WM")
    assert (ours["accuracy_qtc"], ours["accuracy_pr"], ours["accuracy_tpeak_tend"]) == (0.9055, 0.7604, 0.947)


def test_the_command_writes_tables_with_what_made_them(tmp_path):
    arguments = ["--table", "2", "3", "--rivals", "persistence", "population", "--train", "64", "--validation", "16"]
    arguments += ["--test", "16", "--samples", "2", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    lines = (tmp_path / "out" / "tables_ecg_wm_2.csv").read_text().splitlines()
    assert lines[0].startswith("# {") and any("benchmarks.ecg_drug.tables" in line for line in lines)
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [r["model"] for r in rows[:2]] == ["persistence", "population course"]
    assert rows[0]["remark"] == "" and rows[-1]["remark"] == REMARK
    assert not (tmp_path / "out" / "tables_ecg_wm_1.csv").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--table", "4"], "invalid choice: 4"),
        (["--rivals", "gan"], "invalid choice: 'gan'"),
        (["--budget", "0"], "give one"),
        (["--url", "http://localhost:1/v1"], "--url and --model belong together"),
        (["--gguf", "smollm2", "--transformers", "x"], "one language model a run"),
        (["--risk", "nowhere"], "nowhere"),
        (["--world", "nowhere"], "nowhere"),
        (["--encoder", "oracle"], "has no autoencoder"),
        (["--transformers", "nowhere"], "holds no causal model"),
        (["--gguf", "nowhere.gguf"], ""),
    ],
)
def test_bad_arguments_end_with_2_before_anything_is_written(wrong, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main([*wrong, "--work", "work", "--out", "out"])
    except SystemExit as end:
        code = end.code
    assert code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
