"""`clinenv recommend`: what it ranks, what the labels forbid, what it writes, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from clinenv.commands.main import main
from clinenv.commands.recommend.candidates import NOTHING, candidates_of, label_interval_h
from clinenv.commands.recommend.evaluate import evaluate, headline, ranked, turned_round
from clinenv.commands.recommend.label_rules import Facts, findings
from clinenv.rendering.candidate_charts import DotRow, dots_svg
from tests.clinenv.records import write_record
from world_models import catalog, checkpoint, keys
from world_models.ecg_wm.risk.predictor import RiskPredictor
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.quantities.drugs import ANTIARRHYTHMICS

WELL = Facts(qtcf_ms=410.0, qt_ms=400.0, qrs_ms=92.0, heart_rate_bpm=66.0, pr_ms=160.0)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"))


def recommend(record: Path, folder: Path, *more: str) -> int:
    out = ("--out", str(folder / "r.html"), "--json", str(folder / "r.json"))
    who = ("--age", "61", "--sex", "F", "--world", "oracle", "--samples", "16", "--hours", "12")
    return main(["recommend", "--ecg", str(record), *who, *out, *more])


# ---- what is compared, and in what order


def test_candidates_are_the_menu_and_nothing() -> None:
    found = candidates_of(ECGDrugOracle(), WELL)
    assert found[0].drug == NOTHING and len({c.name for c in found}) == len(found)
    assert [(c.drug, c.dose_mg) for c in found[1:]] == [(d.name, mg) for d in ANTIARRHYTHMICS for mg in d.menu_mg]
    assert all(c.every_hours is None for c in found)
    two = candidates_of(ECGDrugOracle(), WELL, ["Dofetilide"], "label")
    assert [c.every_hours for c in two] == [None, 12.0, 12.0]
    assert [label_interval_h(d.name) for d in ANTIARRHYTHMICS] == [12.0, 12.0, 6.0, 6.0]


def test_more_drug_is_more_risk_and_lambda_weighs_the_spread() -> None:
    """In the oracle, by the shipped predictor: dofetilide's doses in order, nothing least, S = mu + lambda sigma."""
    world, predictor = ECGDrugOracle(), RiskPredictor.load()
    state = world.initial(keys.from_seed(12_300_000_000, 48))
    candidates = candidates_of(world, WELL)
    for weight in (0.0, 2.0):
        found = evaluate(world, state, candidates, predictor, 24.0, weight, {})
        by_name = {e.candidate.name: e for e in found}
        low, high = by_name["dofetilide 250 µg"], by_name["dofetilide 500 µg"]
        assert by_name[NOTHING].score < low.score < high.score
        assert low.qtcf_peak_ms.median < high.qtcf_peak_ms.median
        assert all(math.isclose(e.score, e.mu + weight * e.sigma, rel_tol=1e-9) for e in found)
        assert by_name[NOTHING].burden_change == (0.0, 0.0, 0.0), "the same samples: no drug changes nothing"
        assert high.benefit > low.benefit > 0
        assert by_name["verapamil 120 mg"].pr_peak_ms.median > by_name[NOTHING].pr_peak_ms.median + 5
        order = ranked(found)
        assert [e.score for e in order] == sorted(e.score for e in found)
        best = headline(found)
        assert best is not None and best.candidate.drug != NOTHING and best.benefit >= 0.01


def test_what_the_label_forbids_is_last_and_never_the_headline() -> None:
    world, predictor = ECGDrugOracle(), RiskPredictor.load()
    state = world.initial(keys.from_seed(12_300_000_000, 8))
    long = Facts(qtcf_ms=455.0, qt_ms=450.0, qrs_ms=92.0, heart_rate_bpm=66.0)
    order = ranked(evaluate(world, state, candidates_of(world, long), predictor, 4.0, 1.0, {}))
    assert [e.candidate.drug for e in order][-2:] == ["dofetilide", "dofetilide"]
    assert all(not e.candidate.forbidden for e in order[:-2])
    best = headline(order)
    assert best is None or not best.candidate.forbidden


@pytest.mark.parametrize(
    ("drug", "mg", "change", "forbidden", "words"),
    [
        ("dofetilide", 0.5, {"creatinine_clearance_ml_min": 80.0}, False, ""),
        ("dofetilide", 0.5, {}, False, "clearance not given"),
        ("dofetilide", 0.25, {"creatinine_clearance_ml_min": 19.0}, True, "below 20"),
        ("dofetilide", 0.5, {"creatinine_clearance_ml_min": 50.0}, True, "starting dose of 250 µg"),
        ("dofetilide", 0.25, {"creatinine_clearance_ml_min": 50.0}, False, ""),
        ("dofetilide", 0.25, {"creatinine_clearance_ml_min": 30.0}, True, "starting dose of 125 µg"),
        ("dofetilide", 0.25, {"qtcf_ms": 441.0, "creatinine_clearance_ml_min": 80.0}, True, "above 440 ms"),
        ("dofetilide", 0.25, {"qtcf_ms": 480.0, "qrs_ms": 140.0, "creatinine_clearance_ml_min": 80.0}, False, ""),
        ("dofetilide", 0.25, {"qtcf_ms": 445.0, "qt_ms": 430.0, "heart_rate_bpm": 55.0,
                              "creatinine_clearance_ml_min": 80.0}, False, ""),
        ("dofetilide", 0.25, {"taking": ("verapamil",), "creatinine_clearance_ml_min": 80.0}, True, "with verapamil"),
        ("dofetilide", 0.25, {"taking": ("quinidine",), "creatinine_clearance_ml_min": 80.0}, True, "three half-lives"),
        ("dofetilide", 0.25, {"potassium_mmol_l": 3.1, "creatinine_clearance_ml_min": 80.0}, False, "corrected first"),
        ("verapamil", 80.0, {"taking": ("dofetilide",)}, True, "not with dofetilide"),
        ("verapamil", 80.0, {"pr_ms": 230.0}, False, "PR 230"),
        ("verapamil", 80.0, {"pr_ms": None}, False, ""),
        ("ranolazine", 1000.0, {"taking": ("verapamil",)}, True, "at most 500 mg"),
        ("ranolazine", 500.0, {"taking": ("verapamil",)}, False, ""),
        ("ranolazine", 500.0, {"taking": ("rifampin",)}, True, "not with rifampin"),
        ("quinidine", 200.0, {"qtcf_ms": 510.0}, True, "above 500 ms"),
        ("quinidine", 200.0, {"qtcf_ms": 480.0}, False, "prolongs"),
    ],
)  # fmt: skip
def test_the_labels_rules(drug: str, mg: float, change: dict, forbidden: bool, words: str) -> None:
    import dataclasses

    found = findings(drug, mg, dataclasses.replace(WELL, **change))
    assert any(f.forbids for f in found) is forbidden
    assert (words in " ".join(f.text for f in found)) if words else not found
    assert all(f.source.endswith("label") for f in found)


def test_a_spread_that_vanishes_with_certainty_is_pointed_out() -> None:
    """mu + sigma of a chance is not monotone: 0.89 +- 0.31 scores above 1.00 +- 0.03."""
    import dataclasses

    world, predictor = ECGDrugOracle(), RiskPredictor.load()
    state = world.initial(keys.from_seed(12_300_000_000, 4))
    nothing, low, high = evaluate(world, state, candidates_of(world, WELL, ["quinidine"]), predictor, 2.0, 1.0, {})
    low = dataclasses.replace(low, mu=0.89, sigma=0.31, score=1.20)
    high = dataclasses.replace(high, mu=1.0, sigma=0.03, score=1.03)
    assert turned_round([nothing, high, low]) == [(high, low)]
    assert not turned_round([nothing, dataclasses.replace(high, score=1.3), low])


# ---- the command


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.add(tag)
        assert not [v for k, v in attrs if k in ("src", "href", "data")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_and_numbers_agree(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--creatinine-clearance", "35", "--potassium", "3.2", "--taking", "digoxin", "--lambda", "2")
    assert recommend(record, tmp_path, *more) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    rows = {r["name"]: r for r in found["ranking"]}
    assert found["note"] == "Simulation - not for clinical use" and list(found)[0] == "note" and found["lambda"] == 2
    assert found["patient"]["potassium_mmol_l"] == 3.2 and found["patient"]["taking"] == ["digoxin"]
    assert all(rows[f"dofetilide {dose} µg"]["contraindicated"] for dose in (250, 500))
    assert [r["rank"] for r in found["ranking"]] == [1, 2, 3, 4, 5, 6, 7, None, None]
    for r in rows.values():
        assert r["score"] == pytest.approx(r["mu"] + 2 * r["sigma"], abs=3e-4)
        assert r["qtcf_peak_ms"]["p05"] <= r["qtcf_peak_ms"]["median"] <= r["qtcf_peak_ms"]["p95"]
        assert set(r["supported"]) == {"probability", "low", "high", "samples", "of"}
    assert any("potassium 3.2" in w and "not taken into account" in w for w in found["warnings"]) or (
        "potassium_mmol_l" in RiskPredictor.load().config.inputs
    )
    html = (tmp_path / "r.html").read_text()
    tags = _Tags()
    tags.feed(html)
    assert not tags.open and not {"script", "link", "img", "iframe"} & tags.seen
    assert html.index("not for clinical use") < html.index("<h1>")
    text = re.sub(r"<[^>]+>", " ", html)
    for r in rows.values():
        assert r["name"] in text
    assert "starting dose of 125 µg" in text and "raises digoxin" in text
    printed = capsys.readouterr().out
    assert printed.startswith("Simulation - not for clinical use") and "label forbids" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r.json"]


def test_the_same_seed_gives_the_same_numbers_and_any_world_can_be_asked(record: Path, tmp_path: Path) -> None:
    numbers = []
    for name, more in (("a", ()), ("b", ()), ("c", ("--seed", "5")), ("d", ("--world", "ecg-wm-small"))):
        (tmp_path / name).mkdir()
        assert recommend(record, tmp_path / name, "--drugs", "dofetilide,ranolazine", *more) == 0
        numbers.append(json.loads((tmp_path / name / "r.json").read_text()))
    assert numbers[0] == numbers[1] != numbers[2]
    assert {r["drug"] for r in numbers[0]["ranking"]} == {"nothing", "dofetilide", "ranolazine"}
    assert numbers[3]["world"]["World"] == "ecg-wm-small"


def test_without_files_it_only_prints(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["recommend", "--ecg", str(record), "--world", "oracle", "--samples", "4", "--regimen", "label"]
    assert main(order) == 0  # age and sex: the header's
    assert "ranolazine 500 mg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--drugs", "aspirin"), "choose of ranolazine"),
        (("--drugs", "dofetilide,dofetilide"), "named twice"),
        (("--taking", "garlic"), "no rule knows this drug"),
        (("--potassium", "40"), "outside 1.5 to 9 mmol/L"),
        (("--magnesium", "nan"), "not a finite number"),
        (("--creatinine-clearance", "1"), "outside 5 to 250"),
        (("--hours", "3"), "no multiple of 2 h"),
        (("--hours", "0"), "outside 0 to 168"),
        (("--samples", "1"), "outside 2 to 4096"),
        (("--lambda", "-1"), "outside 0 to 1000"),
        (("--age", "140"), "outside 18 to 100"),
        (("--world", "ward-oracle"), "drugs cannot be compared"),
        (("--risk-predictor", "nowhere"), "--risk-predictor nowhere"),
        (("--vlm", "nowhere"), "no config.json"),
        (("--vlm-url", "http://localhost:1/v1"), "go together"),
        (("--vlm-url", "ftp://x", "--vlm-model", "m"), "no http or https address"),
        (("--vlm-free",), "is for --vlm"),
        (("--vlm-tokens", "0"), "outside 1 to 8192"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    assert recommend(record, tmp_path, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("clinenv: error: ") and words in said
    assert not list(tmp_path.iterdir())


def test_a_damaged_predictor_is_refused(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "risk"
    shutil.copytree(Path(checkpoint.__file__).parent / "weights" / "ecg-risk-small", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    (tmp_path / "out").mkdir()
    assert recommend(record, tmp_path / "out", "--risk-predictor", str(folder)) == 2
    assert "seal" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
    out = ["--out", str(weights)]  # a file that is read is never written over
    assert main(["recommend", "--ecg", str(record), "--risk-predictor", str(folder), *out]) == 2
    assert weights.read_bytes() == bytes(content)


def test_beyond_the_training_support_is_marked(tmp_path: Path, record: Path, capsys: pytest.CaptureFixture) -> None:
    """At 100 years of age the learned world has no data: every candidate says so."""
    assert recommend(record, tmp_path, "--world", "ecg-wm-small", "--age", "99", "--drugs", "ranolazine") == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert not any(r["within_support"] for r in found["ranking"])
    assert any("extrapolated: nothing" in w or "extrapolated" in w for w in found["warnings"])
    assert "extrapolated</span>" in (tmp_path / "r.html").read_text()
    assert catalog.load("ecg-wm-small").name == found["world"]["World"]


def test_in_fibrillation_pr_is_missing_and_said_to_be() -> None:
    from clinenv.commands.recommend.evaluate import _band, _extreme

    pr = np.full((3, 4), np.nan)
    pr[1, 0] = 170.0
    assert _extreme(pr, np.fmax).tolist()[0] == 170.0
    assert _band(_extreme(pr, np.fmax)) == (170.0, 170.0, 170.0)
    assert all(math.isnan(v) for v in _band(np.full(4, np.nan)))


def test_a_chart_of_candidates_is_well_formed() -> None:
    rows = [
        DotRow("a <b>", 1.0, 2.0, 3.0, 2.5),
        DotRow("c", math.nan, math.nan, math.nan),
        DotRow("d", 0, 0, 0, 0, True),
    ]
    for svg in (
        dots_svg(rows, "%", "risk", 500.0, True),
        dots_svg(rows[1:2], "ms", "none"),
        dots_svg(rows[2:], "", ""),
    ):
        tags = _Tags()
        tags.feed(svg)
        assert not tags.open and "nan" not in re.sub(r"<title>.*?</title>", "", svg)
    assert "a &lt;b&gt;" in dots_svg(rows, "%", "risk")
    assert torch.isfinite(torch.tensor([float(x) for x in re.findall(r'cx="([^"]+)"', dots_svg(rows, "%", ""))])).all()
