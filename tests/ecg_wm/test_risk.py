"""The frozen risk predictor: monotone, blind to what is missing, honest about its inputs; and what it is trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clinenv.registration import WEIGHTS_SHA256
from world_models import checkpoint, keys
from world_models.checkpoint import CheckpointError
from world_models.ecg_wm.risk.data import LARGE_RISE_MS, LONG_QTCF_MS, risk_examples, with_gaps
from world_models.ecg_wm.risk.predictor import (
    HORIZON_H,
    QTCF_KNOTS_MS,
    RISKS,
    SHIPPED,
    RiskConfig,
    RiskPredictor,
    risk_inputs,
)
from world_models.ecg_wm.risk.train import main, train_risk
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.quantities.ecg_drug import MEASURES


@pytest.fixture(scope="module")
def shipped() -> RiskPredictor:
    return RiskPredictor.load()


@pytest.fixture(scope="module")
def charts() -> dict[str, Tensor]:
    oracle = ECGDrugOracle(cohort="elderly")
    state = oracle.initial(keys.from_seed(12_000_000_000, 64))
    return oracle.observe(oracle.transition(state, torch.tensor([0.0, 0.5, 0.0, 0.0]).expand(64, -1)))


def drawn(seed: int = 0) -> RiskPredictor:
    """A predictor whose every weight is random, so that a property holds by construction and not by training."""
    model = RiskPredictor(RiskConfig(risk_inputs())).eval().requires_grad_(False)
    for i, parameter in enumerate(model.parameters()):
        parameter.copy_(keys.normal(keys.from_seed(seed + i, 1), 0, "weights", tuple(parameter.shape))[0] * 0.3)
    return model


@pytest.mark.parametrize("which", ["shipped", "random"])
def test_the_risk_never_falls_as_qtcf_grows(which: str, shipped: RiskPredictor, charts: dict[str, Tensor]) -> None:
    model = shipped if which == "shipped" else drawn()
    grid = torch.linspace(320.0, 700.0, 77)
    for lost in ((), ("baseline_qtcf_ms",), ("pr_ms", "heart_rate_bpm")):
        chart = {n: v.unsqueeze(-1).expand(-1, 77) for n, v in charts.items() if v.ndim == 1 and n not in lost}
        risk = model({**chart, "qtcf_ms": grid.expand(64, -1)})
        for n in RISKS:
            assert bool((risk[n].diff(dim=-1) >= -1e-6).all()), n
            assert bool(((risk[n] >= 0) & (risk[n] <= 1)).all())


def test_what_is_missing_is_the_same_as_what_is_nan(shipped: RiskPredictor, charts: dict[str, Tensor]) -> None:
    nan = torch.full_like(charts["pr_ms"], float("nan"))
    without = {n: v for n, v in charts.items() if n != "pr_ms"}
    for n in RISKS:
        assert torch.equal(shipped({**charts, "pr_ms": nan})[n], shipped(without)[n])
    every = shipped({"qtcf_ms": charts["qtcf_ms"]})["event"]
    assert bool(every.isfinite().all()) and float(every.std()) > 0.05
    none = shipped({"qtcf_ms": nan, "age_years": charts["age_years"]})["event"]
    assert bool(none.isfinite().all())
    with pytest.raises(ValueError, match="has none of qtcf_ms"):
        shipped({"weight_kg": nan})


def test_the_shipped_predictor_is_of_use_and_knows_its_events(shipped: RiskPredictor) -> None:
    """On patients of its own: ranks better than QTcF alone, its mean is the share of events."""
    data = risk_examples(keys.from_seed(12_100_000_000, 3000), shipped.config.inputs)
    chance = torch.sigmoid(shipped.logits(data.inputs, data.qtcf_ms, data.rise_ms))[:, 0]
    hit = data.outcome[:, 0]

    def auroc(score: Tensor) -> float:
        rank = score.argsort().argsort().double()
        n = hit.sum()
        return float((rank[hit > 0.5].sum() - n * (n - 1) / 2) / (n * (len(hit) - n)))

    assert auroc(chance) > 0.95 and auroc(chance) > auroc(data.qtcf_ms) + 0.01
    assert float(chance.mean()) == pytest.approx(float(hit.mean()), abs=0.01)
    there = (data.qtcf_ms > LONG_QTCF_MS + 5) | (data.rise_ms > LARGE_RISE_MS + 5)
    assert bool((hit[there] == 1).all()) and float(chance[there].mean()) > 0.95


def test_the_shipped_folder_is_the_released_one() -> None:
    folder = Path(checkpoint.__file__).parent / "weights" / SHIPPED
    assert checkpoint.sha256(folder) == WEIGHTS_SHA256[SHIPPED]
    assert sum(f.stat().st_size for f in folder.iterdir()) < 1_000_000
    assert "Not for clinical use" in (folder / checkpoint.CARD).read_text(encoding="utf-8")


def test_labels_are_what_follows_once_nothing_more_is_given() -> None:
    """Gone through by hand: one cohort, one patient's visits against his own course."""
    key = keys.from_seed(5, 1200)
    data = risk_examples(key, ("qrs_ms", "no_such_measure"), 2.0, visits=2, cohort="heart-failure")
    assert bool(data.inputs[:, 1].isnan().all()) and not bool(data.inputs[:, 0].isnan().any())
    assert bool((data.cohort == sorted(COHORTS).index("heart-failure")).all())
    event, torsades = data.outcome.unbind(-1)
    now = (data.qtcf_ms > LONG_QTCF_MS) | (data.rise_ms > LARGE_RISE_MS)
    assert bool((event[now] == 1).all()) and bool((event >= torsades).all())
    assert 0 < float(event.mean()) < 0.6 and float(event[~now].mean()) > 0  # some are still to come
    assert bool((data.hours <= 24).all())
    # all of it follows from the key, and a patient's examples do not depend on who stands beside him
    alone = risk_examples(key[:600], ("qrs_ms",), 2.0, visits=2, cohort="heart-failure")
    same = data.patient < 600
    assert torch.equal(alone.qtcf_ms, data.qtcf_ms[same]) and torch.equal(alone.outcome, data.outcome[same])
    with pytest.raises(ValueError, match="must divide 2"):
        risk_examples(key, ("qrs_ms",), 4.0)
    assert HORIZON_H == 24.0


def test_cohorts_keep_their_own_torsades_risk() -> None:
    key = keys.from_seed(77, 60)
    mixed = risk_examples(key, ("age_years",), 2.0, visits=1)
    for name in ("heart-failure", "typical"):
        place = sorted(COHORTS).index(name)
        chunk = key.chunk(len(COHORTS))[place]
        alone = risk_examples(chunk, ("age_years",), 2.0, visits=1, cohort=name)
        assert torch.equal(alone.qtcf_ms, mixed.qtcf_ms[mixed.cohort == place])
        assert torch.equal(alone.outcome, mixed.outcome[mixed.cohort == place])


def test_gaps_take_the_rise_with_the_baseline() -> None:
    names = risk_inputs()
    data = risk_examples(keys.from_seed(8, 500), names, 2.0)
    gaps = with_gaps(keys.from_seed(9, len(data.patient)), data, names)
    baseline = gaps.inputs[:, names.index("baseline_qtcf_ms")]
    assert bool(gaps.rise_ms[baseline.isnan() | gaps.qtcf_ms.isnan()].isnan().all())
    there = ~data.inputs.isnan()  # there is no PR in fibrillation, gap or not
    share = (gaps.inputs.isnan() & there).float().sum(0) / there.float().sum(0)
    assert bool((share > 0.05).all()) and bool((share < 0.35).all())
    assert torch.equal(gaps.outcome, data.outcome)


def test_inputs_come_from_the_table_of_measures() -> None:
    known = [q.name for q in MEASURES]
    assert set(risk_inputs()) <= set(known) and list(risk_inputs()) == [n for n in known if n in risk_inputs()]
    assert not {"qt_ms", "jt_peak_ms", "jt_peak_c_ms", "hours", "total_dose_mg", "torsades"} & set(risk_inputs())
    for wrong in ((), ("qtcf_ms",), ("pr_ms", "pr_ms")):
        with pytest.raises(ValueError, match="must be one name or more"):
            RiskConfig(wrong)


@pytest.mark.slow
def test_training_writes_a_sealed_folder_that_loads_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "risk"
    assert main(["--out", str(out), "--steps", "41", "--batch", "64"]) == 0
    assert checkpoint.sha256(out) in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["log_score_event"] < 0.9 * lines[0]["log_score_event"]
    model = RiskPredictor.load(out)
    assert model.config == RiskConfig(risk_inputs())
    again = train_risk(out, 41, 64)  # a finished run is taken from where it ended
    chart = {"qtcf_ms": torch.tensor([400.0, 520.0]), "pr_ms": torch.tensor([160.0, float("nan")])}
    assert torch.equal(model(chart)["event"], again(chart)["event"])
    plain = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**plain, "width": 32}))
    with pytest.raises(CheckpointError, match="seal"):
        RiskPredictor.load(out)
    assert main(["--out", str(out), "--steps", "41", "--batch", "64"]) == 0
    with pytest.raises(ValueError, match="at most"):
        train_risk(tmp_path / "none", steps=10**9)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not 'ecg-risk'"):
        RiskPredictor.load(Path(checkpoint.__file__).parent / "weights" / "ecg-wm-small")


def test_the_ramps_cover_where_charts_lie() -> None:
    """Sorted, and beyond the last of them a longer QTcF still counts."""
    assert list(QTCF_KNOTS_MS) == sorted(set(QTCF_KNOTS_MS))
    model = drawn(3)
    low, high = (
        model.logits(torch.full((1, len(risk_inputs())), float("nan")), torch.tensor([v]), torch.tensor([float("nan")]))
        for v in (700.0, 900.0)
    )
    assert bool((high > low).all())
    assert dataclasses.asdict(model.config)["inputs"] == risk_inputs()
