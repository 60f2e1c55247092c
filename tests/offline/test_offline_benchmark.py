"""The benchmark's table is made of its cells, which are kept; the example says what the log would have one believe."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from agents.offline.ope import fitted_q
from benchmarks import offline
from benchmarks.common.results import provenance, read_csv, read_json
from benchmarks.ope import cells
from benchmarks.ope.table import printed, summary


def made_up(dial: float, errors: dict[str, list[float]]) -> dict:
    """A cell of policies that earn 0, 1, 2, ..., estimated with these errors."""
    rows = []
    for estimator, each in errors.items():
        for i, error in enumerate(each):
            low, high = i + error - 0.5, i + error + 0.5
            rows.append({
                "policy": f"p{i}", "estimator": estimator, "estimate": i + error, "estimate_low": low,
                "estimate_high": high, "truth": float(i), "error": error, "effective_stays": 10.0 + i,
            })  # fmt: skip
    truth = torch.arange(float(len(each)), dtype=torch.float64)
    ranks = {n: cells._ranked((truth + torch.tensor(e).double()).expand(3, -1), truth) for n, e in errors.items()}
    return {"cell": {"env_id": "none", "dial": dial, "repeat": 0}, "rows": rows, "ranks": ranks}


def test_the_table_says_how_far_and_in_which_order() -> None:
    found = summary([made_up(0.0, {"off": [3.0, 0.0, 0.0], "near": [0.1, 0.1, -0.2], "turned": [2.0, 0.0, -2.0]})])
    rows = {row["estimator"]: row for row in found}
    assert [row["place"] for row in found] == [1, 2, 3] and found[0]["estimator"] == "near"
    assert rows["near"]["rmse"] == pytest.approx((0.06 / 3) ** 0.5) and rows["near"]["bias"] == pytest.approx(0.0)
    assert rows["near"]["coverage"] == 1.0 and rows["off"]["coverage"] == pytest.approx(2 / 3)
    assert rows["near"]["rank_correlation"] == pytest.approx(1.0)
    assert rows["turned"]["rank_correlation"] == pytest.approx(-1.0) and rows["turned"]["regret"] == 2.0
    assert rows["off"]["regret"] == 2.0 and rows["near"]["regret"] == 0.0
    assert "near" in printed(found) and "0.14" in printed(found)


@pytest.mark.slow
def test_the_benchmark_keeps_its_cells(tmp_path, capsys, monkeypatch) -> None:
    small = dict(patients=dict.fromkeys(offline.HEADLINE, 24), judged=dict.fromkeys(offline.HEADLINE, 50))
    settings = offline.replace(offline.QUICK, resamples=10, refits=2, samples=1, **small)
    monkeypatch.setattr(offline, "QUICK", settings)
    monkeypatch.setattr(offline, "learned_policies", lambda *_: {})
    monkeypatch.setattr(fitted_q, "RANDOM_FEATURES", 20)
    arguments = ["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert offline.main(arguments) == 0
    said = capsys.readouterr().out
    assert "left out" in said and "dial 1: 7 policies" in said
    table, policies = read_csv(tmp_path / "out" / "offline.csv"), read_csv(tmp_path / "out" / "offline_policies.csv")
    assert len(table) == 8 + 14 and len(policies) == 7 * len(table)
    assert {row["dial"] for row in table} == {"0", "1"}
    assert provenance(tmp_path / "out" / "offline.csv")["command"].startswith("python -m benchmarks.offline --quick")
    kept = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.json")}
    assert len(kept) == 3
    gone = next(path for path in kept if path.name == "ECGDrug-v0-1-0.json")
    gone.unlink()
    monkeypatch.setattr(offline, "truths", None)  # not asked again
    assert offline.main(arguments) == 0
    again = json.loads(gone.read_text())
    before = json.loads(kept[gone])
    for row, old in zip(again["rows"], before["rows"], strict=True):
        assert row["estimate"] == pytest.approx(old["estimate"], rel=1e-4, abs=1e-4)
    assert read_json(tmp_path / "out" / "offline.json")["without_learned_policies"] == ["ECGDrug-v0"]


def test_the_example_puts_estimates_beside_the_truth(capsys, monkeypatch) -> None:
    monkeypatch.setattr(fitted_q, "RANDOM_FEATURES", 20)
    found = importlib.import_module("examples.10_offline").main(["--patients", "300"])
    assert len(found) == 7 and all(abs(value - found["truth"]) < 1.5 for value in found.values())
    said = capsys.readouterr().out
    assert said.count("effective stays") == 2 and said.count("error") == 6
