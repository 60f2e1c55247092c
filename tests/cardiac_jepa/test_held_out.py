"""Real ECGs on published folds: who teaches and who is judged, rivals, the last ones once; a masked autoencoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.progression import fidelity, held_out, masked, real_rivals
from tests.cardiac_jepa.test_jepa_benchmarks import TINY
from tests.cardiac_jepa.two_processes import recordings
from tests.data.small_ecg_databases import write_ptbxl
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.pretrain import PairSource
from world_models.cardiac_jepa.real_ecgs import told_sources, tuning_ecgs
from world_models.data.ecg.labelled import LabelledECGs, read_ptbxl
from world_models.data.ecg.scp import ScpError, superclasses
from world_models.plateau import Patience

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior infarction,1.0,,,MI,IMI
LNGQT,long QT-interval,1.0,,,STTC,STTC
AFIB,atrial fibrillation,,,1.0,,
CLBBB,left bundle-branch block,1.0,,,CD,CLBBB
LVH,left ventricular hypertrophy,1.0,,,HYP,LVH
"""


@pytest.fixture
def ptbxl(tmp_path: Path) -> Path:
    """Two patients with two ECGs each in folds 1, 2 and 7: one normal, one with an infarction."""
    rows = []
    for fold, first in ((1, 10), (2, 20), (7, 30)):
        for i in range(4):
            said = "{'NORM': 100.0, 'SR': 0.0}" if i < 2 else "{'IMI': 15.0, 'AFIB': 0.0}"
            when = f"1984-11-{10 + i:02d} 09:00:00"
            rows.append((first + i, f"{first + i // 2}.0", "60.0", "0", when, said, fold))
    folder = write_ptbxl(tmp_path / "ptbxl", rows, tuple(row[0] for row in rows))
    (folder / "scp_statements.csv").write_text(STATEMENTS)
    return folder


def test_ptbxl_gives_superclasses_single_labels_and_its_folds(ptbxl: Path) -> None:
    found = read_ptbxl(ptbxl, (1, 2))
    assert found.ecg.shape == (8, 12, 1000) and found.fold is not None and found.fold.tolist() == [1] * 4 + [2] * 4
    said = {n: found.label[:, found.names.index(n)].tolist() for n in ("NORM", "MI", "sinus_rhythm", "CD")}
    assert said["NORM"] == said["sinus_rhythm"] == [True, True, False, False] * 2 and not any(said["CD"])
    assert said["MI"] == [False, False, True, True] * 2 and "NORM" not in found.unmapped
    once = read_ptbxl(ptbxl, (7,), one_a_patient=True)
    assert once.record == ("records500/00000/00030_hr", "records500/00000/00032_hr")
    with pytest.raises(ValueError, match="no ECG of folds 5"):
        read_ptbxl(ptbxl, (5,))


def test_only_the_tuning_side_is_pretrained_on(ptbxl: Path) -> None:
    assert tuning_ecgs(ptbxl, None).shape == (8, 12, 1000)  # of fold 7 nothing
    with pytest.raises(ValueError, match="no folder"):
        tuning_ecgs(None, None)
    told = told_sources(8, 0.25, with_ptbxl=True, with_ludb=False)
    assert "10.1038/s41597-020-0495-6" in told and "LUDB" not in told and "of 8 real ECGs" in told


def test_a_table_of_statements_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScpError, match="no scp_statements.csv"):
        superclasses(tmp_path / "scp_statements.csv")
    table = tmp_path / "scp_statements.csv"
    for text, words in (
        (STATEMENTS.replace("diagnostic_class", "class"), "lacks a column"),
        (STATEMENTS.replace("HYP,LVH", "HEART,LVH"), "class 'HEART'"),
        (STATEMENTS.replace("LVH,left ventricular hypertrophy,1.0", "LVH,left,"), "no statement of some"),
    ):
        table.write_text(text)
        with pytest.raises(ScpError, match=words):
            superclasses(table)


@pytest.mark.slow
def test_the_last_folds_are_refused_until_the_end_and_judged_once(
    ptbxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fidelity, "jepa_world", lambda name: SimpleNamespace(jepa=CardiacJEPA(TINY).eval()))
    out = tmp_path / "found.json"
    command = ["--ptbxl", str(ptbxl), "--out", str(out), "--least", "2", "--resamples", "20"]
    for wrong, words in (
        (["--judge-folds", "7", "8"], "judged once, at the end"),
        (["--judge-folds", "6", "7"], "1 2 3 4 5 6 or 7 8"),
        (["--halves"], "one at a time"),
        (["--masked", str(tmp_path / "none")], "is no folder"),
    ):
        with pytest.raises(SystemExit):
            fidelity.main([*command, *wrong])
        assert words in capsys.readouterr().err
    assert fidelity.main(command) == 0
    tuning = json.loads(out.read_text())
    assert (
        tuning["records"] == 8
        and tuning["patients"] == 4
        and set(tuning["groups"])
        == {
            "superclasses",
            "single_labels",
        }
    )
    with pytest.raises(SystemExit):
        fidelity.main([*command, "--final"])
    assert "judged once" in capsys.readouterr().err
    out.unlink()
    assert fidelity.main([*command, "--final"]) == 0
    last = json.loads(out.read_text())
    assert (last["records"], last["tuning_records"]) == (4, 8) and "once" in last["judged"]
    (ptbxl / "scp_statements.csv").unlink()
    assert fidelity.main([*command[:2], "--out", str(tmp_path / "other.json")]) == 2
    assert not (tmp_path / "other.json").exists()


def made_up(count: int = 64) -> held_out.Halves:
    """ECGs with a tall lead II where they have the label; folds 1 to 3, and 4 for the end."""
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(count, 1, generator=generator) < 0.4
    time = torch.arange(1000)
    beat = sum(torch.exp(-0.5 * ((time - at) / 2.0) ** 2) for at in range(40, 1000, 80))
    ecg = beat * (1 + 0.2 * torch.rand(count, 12, 1, generator=generator))
    ecg = ecg + 0.02 * torch.randn(count, 12, 1000, generator=generator)
    ecg[:, 1] += label * beat
    fold = torch.arange(count) % 4 + 1
    x = LabelledECGs(ecg, label, ("tall",), ("r",) * count, torch.arange(count) // 2, "made up", {}, {}, fold)
    return held_out.Halves(x, fold == 4, {"single_labels": ("tall",)}, ["said"])


def test_folds_teach_each_other_and_the_last_one_is_taught_by_all() -> None:
    halves = made_up()
    assert halves.x.fold is not None
    for train, test in halves.splits(last=False):
        assert len(train) == 32 and not bool((halves.x.fold[train] == halves.x.fold[test][0]).any())
        assert not bool(halves.final[train].any()) and not bool(halves.final[test].any())
    ((train, test),) = halves.splits(last=True)
    assert len(train) == 48 and bool(halves.final[test].all())


@pytest.mark.slow
def test_all_rivals_are_judged_and_what_is_plain_is_found(tmp_path: Path) -> None:
    trained = masked_autoencoder(tmp_path / "masked")
    patience = Patience(check=5, checks=1, least_steps=0, most_steps=5, warm_up=2)
    asked = held_out.Asked(
        resamples=50,
        random_seeds=2,
        trained=True,
        rates=(1e-2,),
        patience=patience,
        masked=trained,
        work=tmp_path / "work",
    )
    found = held_out.judge_halves(CardiacJEPA(TINY).eval(), made_up(), asked)
    group = found["groups"]["single_labels"]
    assert set(group["macro_auroc"]) == {
        "probe",
        "random_encoder",
        "hand_features",
        "hand_features_boosted",
        "masked_autoencoder",
        "supervised",
        "fine_tuned",
    }
    assert group["macro_auroc"]["hand_features"]["auroc"] > 0.9
    assert group["macro_auroc"]["hand_features_boosted"]["auroc"] > 0.9
    assert len(group["training"]["supervised"]) == 3 and set(group["seed_range"]) == {"random_encoder"}
    assert "tall" in held_out.table(found) and found["notes"] == ["said"]
    places = [tmp_path / "work" / f"single_labels-{_mark(seed)}" for seed in (0, 1)]
    assert places[0] != places[1] and places[0].is_dir()  # another encoder's training is not gone on with
    with pytest.raises(ValueError, match="no label has 90"):
        held_out.judge_halves(CardiacJEPA(TINY).eval(), made_up(), replace(asked, least=90, trained=False))


def _mark(seed: int) -> str:
    halves = made_up()
    cases = real_rivals.Cases(halves.x.ecg, halves.x.label, halves.patient)
    patience = Patience(check=5, checks=1, least_steps=0, most_steps=5, warm_up=2)
    return held_out._mark(CardiacJEPA(TINY, seed), halves, cases, held_out.Asked(rates=(1e-2,), patience=patience))


def test_boosting_without_a_class_says_what_is_usual() -> None:
    x = made_up().x
    cases = real_rivals.Cases(x.ecg, torch.zeros_like(x.label), x.patient)  # type: ignore[arg-type]
    scores = real_rivals.boosted(cases, torch.randn(64, 3, generator=torch.Generator().manual_seed(1)), 0)
    assert scores(torch.arange(40), torch.arange(40, 64)).unique().numel() == 1


# ---- the masked autoencoder


def masked_autoencoder(folder: Path, steps: int = 6) -> Path:
    data, first, second = recordings(40)
    masked.train(replace(TINY, crop_samples=128), PairSource(data, first, second, 128), folder, steps, 16, 1e-2)
    return folder


def test_a_masked_autoencoder_learns_to_fill_in_and_is_kept(tmp_path: Path) -> None:
    folder = masked_autoencoder(tmp_path / "run", 60)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["masked"] < 0.8 * rows[0]["masked"]
    encoder, config = masked.load_encoder(folder)
    assert config.crop_samples == 128 and not encoder.training
    with pytest.raises(ValueError, match="other settings"):
        masked_autoencoder(folder, 61)
    with pytest.raises(ValueError, match="no masked autoencoder"):
        masked.load_encoder(tmp_path)


def test_masks_hide_stretches_and_leads_and_the_loss_sees_the_hidden_alone() -> None:
    model = masked.MaskedAutoencoder(TINY).eval()
    hidden = model.masks(200, 250, 3)
    assert torch.equal(hidden, model.masks(200, 250, 3)) and not torch.equal(hidden, model.masks(200, 250, 4))
    assert 0.55 < float(hidden.float().mean()) < 0.7  # 1 - 0.5 * 0.75
    assert torch.equal(model.masks(10, 250, 3), hidden[:10])

    class Blank(torch.nn.Module):
        scale_mv = torch.ones(1, 12, 1)

        def features(self, ecg: Tensor) -> Tensor:
            return torch.zeros(len(ecg), TINY.out, 8)

    model.encoder = Blank()  # type: ignore[assignment]
    with torch.no_grad():
        assert model(torch.full((4, 12, 250), 2.0), 3).item() == pytest.approx(4.0)
