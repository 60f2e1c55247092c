"""The benchmarks' commands on data small enough to know the answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.progression import actions, arms, fidelity, speed
from benchmarks.progression.hand_features import hand_features
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.data.ecg.monolith import Monolith, MonolithWriter, from_arrays

CODES = ("I10", "I48", "I21", "I25", "I44")
TINY = JEPAConfig(
    name="tiny",
    codes=CODES,
    stem=(4, 4, 8),
    inner=4,
    out=8,
    blocks=(1, 1, 1, 1),
    projector=8,
    latent=8,
    embedding=8,
    action_hidden=8,
    dynamics_hidden=16,
    dynamics_blocks=1,
    slices=16,
)
VISITS = 4


def cohort(patients: int = 160, samples: int = 300, seed: int = 0) -> dict:
    """Arrays of a monolith: condition c lifts lead c by 1 mV; I48 and I44 come and go, the others only come."""
    g = torch.Generator().manual_seed(seed)
    label = torch.rand(patients, 1, len(CODES), generator=g) < 0.3
    rows = [label]
    lasting = torch.tensor([c in ("I10", "I25") for c in CODES])
    for _ in range(VISITS - 1):
        flip = torch.rand(patients, 1, len(CODES), generator=g) < 0.25
        rows.append(torch.where(lasting, rows[-1] | flip, rows[-1] ^ flip))
    label = torch.cat(rows, 1).flatten(0, 1)
    ecg = 0.05 * torch.randn(len(label), 12, samples, generator=g)
    ecg[:, : len(CODES)] += label.float()[..., None]
    person = torch.arange(patients).repeat_interleave(VISITS)
    return {
        "ecg": ecg,
        "label": label,
        "patient": person * 1_000_003,
        "days": torch.arange(VISITS).repeat(patients) * 90.0,
        "age_years": torch.full((len(label),), 60.0),
        "sex_female": torch.zeros(len(label)),
        "fold": person % 20,
        "first": torch.arange(VISITS).repeat(patients) % 2 == 0,
    }


@pytest.fixture(scope="module")
def monolith() -> Monolith:
    return from_arrays(**cohort(800, 250), codes=CODES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.h5"
    with MonolithWriter(path, CODES, 100.0, 300, "made up") as out:
        out.append(**cohort())
    return path


class Perfect(nn.Module):
    """Sees a condition as its lead's mean, and moves a latent exactly as its action says."""

    config = SimpleNamespace(codes=CODES, crop_samples=250, latent=12)

    def latent(self, ecg: Tensor) -> Tensor:
        return ecg.mean(-1)

    def predict(self, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
        return z + torch.nn.functional.pad(action, (0, 12 - len(CODES)))


class Blind(Perfect):
    """Moves nothing."""

    def predict(self, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
        return z


def test_the_splits_are_the_folds_and_a_patient_in_two_is_refused(monolith: Monolith) -> None:
    c = arms.cohort_of(monolith)
    assert [len(c.train), len(c.valid), len(c.test)] == [2880, 160, 160]
    assert len(c.first) == 2400 and bool((monolith.patient[c.first] == monolith.patient[c.second]).all())
    fold = monolith.fold.clone()
    fold[0] = 19
    with pytest.raises(ValueError, match="more than one split"):
        arms.cohort_of(monolith._replace(fold=fold))
    with pytest.raises(ValueError, match="test"):
        arms.cohort_of(monolith._replace(fold=monolith.fold.clamp(max=18)))


def test_a_perfect_model_uses_its_actions_and_a_blind_one_does_not(monolith: Monolith) -> None:
    c = arms.cohort_of(monolith)
    perfect = actions.set_up(Perfect(), c, number=200)
    blind = actions.set_up(Blind(), c, number=200)
    true, none = ({r["ratio"]: r for r in actions.errors(s) if r["code"] == "all"} for s in (perfect, blind))
    assert true["true / zero action"]["value"] < 0.01 and true["true / shuffled action"]["high"] < 0.01
    assert none["true / zero action"]["value"] == pytest.approx(1) and none["true / persistence"][
        "value"
    ] == pytest.approx(1)
    total, nothing = actions.onsets(perfect)[-1], actions.onsets(blind)[-1]
    # the threshold is the lowest of some validation ECGs that have the label: a few others lie under it
    assert (
        total["onset_read_if_others_stay_pooled"] > 0.9 and total["others_stay"] > 0.95 and total["control_read"] < 0.05
    )
    assert total["recorded_read_predicted_pooled"] > 0.9 and total["recorded_read_in_next_ecg_pooled"] > 0.9
    assert nothing["onset_read"] == 0
    assert all(r["reversal_error_value"] < 1e-6 for r in actions.reversals(perfect))
    assert {r["changes"] for r in actions.reversals(perfect)} == {"may be undone", "may not be undone", "all"}


def test_rollouts_follow_the_record_then_draw_possible_transitions(monolith: Monolith) -> None:
    s = actions.set_up(Perfect(), arms.cohort_of(monolith), number=50)
    rows = actions.rollout(s, 8)
    assert [r["visit"] for r in rows] == list(range(9)) and rows[0]["patients"] == 40
    assert [r["recorded_share"] for r in rows] == [1.0] * VISITS + [0.0] * 5
    assert all(r["probe_macro_auroc"] > 0.99 for r in rows)  # nothing ever resolves that was not there
    assert all(0 < r["labels_a_patient"] < len(CODES) for r in rows)
    blind = actions.rollout(actions.set_up(Blind(), arms.cohort_of(monolith), number=50), 8)
    assert blind[-1]["probe_macro_auroc"] < 0.85 and blind[-1]["effective_rank"] == pytest.approx(
        blind[0]["effective_rank"]
    )


def test_bad_input_to_the_actions(monolith: Monolith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    c = arms.cohort_of(monolith._replace(codes=("I11", *CODES[1:])))
    with pytest.raises(ValueError, match="I10, I11"):
        actions.set_up(Perfect(), c)
    with pytest.raises(SystemExit):
        actions.main(["--data", str(tmp_path / "none.h5")])
    (tmp_path / "bad.h5").write_bytes(b"no")
    monkeypatch.setattr(actions.catalog, "load", lambda name: SimpleNamespace())
    assert actions.main(["--data", str(tmp_path / "bad.h5"), "--out", str(tmp_path / "x")]) == 2
    assert "no cardiac JEPA" in capsys.readouterr().err and not list(tmp_path.glob("x*"))


# ---- real ECGs in a folder


def write_records(folder: Path, count: int = 36) -> Path:
    """WFDB records whose label `tall` is a tall lead II; `never` nobody has; two records a patient."""
    wfdb = pytest.importorskip("wfdb")
    folder.mkdir()
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    g, lines = np.random.default_rng(0), ["record,patient,tall,never"]
    beat = np.exp(-0.5 * ((np.arange(1000)[:, None] - np.arange(40, 1000, 80)) / 2.0) ** 2).sum(1)
    for i in range(count):
        tall = (i // 2) % 2
        wave = beat[:, None] * (1 + 0.2 * g.standard_normal(12)) + 0.02 * g.standard_normal((1000, 12))
        wave[:, 1] += tall * beat
        wfdb.wrsamp(f"r{i:03d}", 100, ["mV"] * 12, leads, wave, fmt=["16"] * 12, write_dir=str(folder))
        lines.append(f"r{i:03d},p{i // 2},{tall},0")
    table = folder.parent / "labels.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimpleNamespace(jepa=CardiacJEPA(TINY).eval())
    monkeypatch.setattr(fidelity, "jepa_world", lambda name: world)


@pytest.mark.slow
def test_fidelity_on_a_folder_of_records(tmp_path: Path, tiny_world: None) -> None:
    table = write_records(tmp_path / "records")
    out = tmp_path / "metrics.json"
    command = [
        "--records",
        str(tmp_path / "records"),
        "--labels",
        str(table),
        "--out",
        str(out),
        "--folds",
        "3",
        "--draws",
        "100",
    ]
    assert fidelity.main([*command, "--supervised", "--supervised-steps", "4", "--supervised-rates", "1e-3"]) == 0
    found = json.loads(out.read_text())
    assert "Not for clinical use" in found["note"]
    assert found["records"] == 36 and found["patients"] == 18
    tall, never = found["labels"]["tall"], found["labels"]["never"]
    assert tall["hand_features"]["auroc"] > 0.85 and tall["positives"] == 18  # pooled over folds of few: not quite 1
    assert set(found["macro_auroc"]) == {"probe", "probe_of_latent", "random_encoder", "hand_features", "supervised"}
    assert never["probe"] is None and "0 of 36" in never["note"]
    assert found["probe_minus"]["random_encoder"]["low"] <= found["probe_minus"]["random_encoder"]["auroc"]


def test_fidelity_with_bad_input_writes_nothing(
    tmp_path: Path, tiny_world: None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_records(tmp_path / "records", 12)
    out, records = tmp_path / "metrics.json", ["--records", str(tmp_path / "records")]
    text = table.read_text()
    bad = {
        "name,tall\nr000,1\n": "record",
        text.replace("r003", "r999"): "r999",
        "record,tall\n" + "".join(f"r{i:03d},1\n" for i in range(12)): "no label has",
    }
    for i, (content, says) in enumerate(bad.items()):
        path = tmp_path / f"bad{i}.csv"
        path.write_text(content)
        assert fidelity.main([*records, "--labels", str(path), "--out", str(out), "--least", "2"]) == 2
        assert says in capsys.readouterr().err
    for wrong in (["--records", str(tmp_path / "nowhere"), "--labels", str(table)], records, []):
        with pytest.raises(SystemExit):
            fidelity.main([*wrong, "--out", str(out)])
    assert not out.exists() and not list(tmp_path.glob(".metrics*"))


def test_hand_features_count_the_beats() -> None:
    time = torch.arange(1000)
    ecg = torch.zeros(3, 12, 1000)
    for row, every in enumerate((50, 100)):
        for peak in range(20, 1000, every):
            ecg[row, 1] += torch.exp(-0.5 * ((time - peak) / 2.0) ** 2)
    found = hand_features(ecg)
    assert found.shape == (3, 64) and bool(torch.isfinite(found).all())
    assert found[0, 60:].tolist() == pytest.approx([0.5, 0.0, 0.5, 0.5], abs=0.02)
    assert found[1, 60:].tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0], abs=0.02)


def test_sources_are_joined_on_their_common_labels() -> None:
    def source(names: tuple[str, ...], count: int, patient: Tensor | None) -> fidelity.LabelledECGs:
        label = torch.ones(count, len(names), dtype=torch.bool)
        return fidelity.LabelledECGs(
            torch.zeros(count, 12, 1000), label, names, ("r",) * count, patient, names[0], {}, {}
        )

    both = fidelity.joined([source(("af", "pvc"), 3, None), source(("pvc", "lbbb"), 2, torch.tensor([7, 7]))])
    assert both.names == ("pvc",) and both.label.shape == (5, 1) and both.patient.tolist() == [0, 1, 2, 3, 3]
    with pytest.raises(ValueError, match="share no label"):
        fidelity.joined([source(("af",), 2, None), source(("lbbb",), 2, None)])


def test_speed_measures_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "NARROW", TINY)
    monkeypatch.setattr(speed, "FULL", TINY)
    monkeypatch.setattr(speed, "SHAPES", ((2, 12, 250),))
    out = tmp_path / "speed.json"
    assert (
        speed.main(
            ["--world", "untrained", "--batches", "1", "4", "--repeats", "1", "--seconds", "0.01", "--json", str(out)]
        )
        == 0
    )
    found = json.loads(out.read_text())
    assert all(r["median"] > 0 for r in (found["latent"] | found["encoders"]).values())
    assert set(found["shares_of_a_latent_step"]["batch 4"]) >= {"action projector", "predictor", "probe"}
    assert "forward and backward [2, 12, 250]" in found["encoders"]
    assert speed.main(["--world", "nonsense", "--json", str(tmp_path / "other.json")]) == 2
    assert not (tmp_path / "other.json").exists()
