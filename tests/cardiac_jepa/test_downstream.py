"""Asymmetric loss, AUROC and its bootstrap, probes, fine-tuning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models.cardiac_jepa import finetune as tuning
from world_models.cardiac_jepa.asymmetric_loss import asymmetric_loss
from world_models.cardiac_jepa.auroc import auroc, bootstrap_macro, difference, judged_labels, macro_auroc
from world_models.cardiac_jepa.finetune import FinetuneRecipe, LabelledRows, finetune, predict, supervised
from world_models.cardiac_jepa.probes import (
    apply,
    crop_features,
    cross_validated,
    features,
    fit_probe,
    folds_of,
    youden,
)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the loss


def test_without_focus_and_clip_the_loss_is_cross_entropy() -> None:
    x, y = normals(50, 7) * 4, normals(50, 7, seed=1) > 0
    assert asymmetric_loss(x, y, 0.0, 0.0, 0.0).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(x, y.float()).item(), rel=1e-5
    )


def test_the_loss_by_its_definition() -> None:
    x, y = normals(40, 5).double() * 3, normals(40, 5, seed=1) > 0.5
    p = torch.sigmoid(x)
    q = (p - 0.05).clamp(min=0)
    by_hand = torch.where(y, -(1 - p) * p.log(), -(q**4) * (1 - q).log()).mean()
    assert asymmetric_loss(x, y).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_an_absent_label_under_the_clip_costs_nothing_and_its_gradient_is_no_nan() -> None:
    x = torch.tensor([[-40.0, -4.0, 40.0, 100.0]], requires_grad=True)
    loss = asymmetric_loss(x, torch.tensor([[False, False, True, False]]))
    loss.backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and bool(torch.isfinite(loss))
    assert x.grad[0, :2].abs().max() == 0
    assert asymmetric_loss(x[:, :3].detach(), torch.tensor([[False, False, True]])) < 1e-6


def test_the_loss_stays_float32_under_autocast_and_checks_its_input() -> None:
    x, y = normals(8, 3), normals(8, 3, seed=1) > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert asymmetric_loss(x.bfloat16(), y).dtype == torch.float32
    with pytest.raises(ValueError, match="one shape"):
        asymmetric_loss(x, y[:, :2])
    with pytest.raises(ValueError, match="clip"):
        asymmetric_loss(x, y, clip=1.0)


# ---- AUROC


def by_pairs(score: Tensor, label: Tensor) -> float:
    wins = score[label][:, None] - score[~label][None]
    return float(((wins > 0).double() + 0.5 * (wins == 0).double()).mean())


def test_auroc_equals_counting_pairs_with_ties() -> None:
    score, label = normals(200, 4).round(decimals=1), normals(200, 4, seed=1) > 0.8
    assert auroc(score, label).tolist() == pytest.approx(
        [by_pairs(score[:, c], label[:, c]) for c in range(4)], abs=1e-12
    )


def test_auroc_of_one_class_is_nan_and_stays_out_of_the_macro() -> None:
    score, label = normals(30, 3), normals(30, 3, seed=1) > 0
    label[:, 1] = False
    assert auroc(score, label).isnan().tolist() == [False, True, False]
    assert judged_labels(label, 3).tolist() == [True, False, True]
    assert macro_auroc(score, label) == pytest.approx(float(auroc(score, label)[[0, 2]].mean()))
    with pytest.raises(ValueError, match="NaN"):
        auroc(score.index_fill(0, torch.tensor([2]), float("nan")), label)


def test_the_bootstrap_draws_whole_patients_and_is_the_auroc_of_the_drawn_rows() -> None:
    from world_models import keys

    patient = torch.arange(120) // 3 * 7 + 1000
    score, label = normals(120, 2).round(decimals=1), normals(120, 2, seed=1) > 0.5
    found = bootstrap_macro(score, label, patient, draws=3, seed=5, least=5)
    key = keys.fold(keys.from_seed(5).expand(3), torch.arange(3))
    for r, mine in enumerate(keys.bits(key, 0, "bootstrap patients", (40,)) % 40):
        rows = torch.cat([torch.arange(3) + 3 * p for p in mine.tolist()])
        assert found.draws[r].tolist() == pytest.approx(auroc(score[rows], label[rows]).tolist(), abs=1e-6)


def test_bootstrap_interval_covers_and_paired_differences_are_narrower() -> None:
    label = normals(1500, 3, seed=1) > 0.5
    good = label.float() + normals(1500, 3, seed=2)
    better = good + 0.1 * label
    patient = torch.arange(1500) // 2
    a, b = (bootstrap_macro(x, label, patient, 300) for x in (good, better))
    assert a.macro.low < a.macro.value < a.macro.high
    assert abs(a.macro.value - 0.76) < 0.03  # two unit normals one apart: Phi(1 / sqrt 2)
    gain = difference(b, a)
    assert gain.low > 0 and gain.high - gain.low < 0.3 * (a.macro.high - a.macro.low)
    assert tuple(difference(a, a)) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same ECGs"):
        difference(a, bootstrap_macro(good, label, patient, 200))


def test_a_label_whose_class_is_empty_in_a_draw_is_left_out_of_that_draw_alone() -> None:
    label = torch.zeros(40, 2, dtype=torch.bool)
    label[:20, 0] = True
    label[0, 1] = True
    found = bootstrap_macro(normals(40, 2), label, torch.arange(40), 200, least=1)
    missing = found.draws[:, 1].isnan()
    assert 0.2 < float(missing.float().mean()) < 0.55  # (1 - 1 / 40) ** 40 = 0.36
    assert not bool(found.draws[:, 0].isnan().any())
    assert found.macro.low == found.macro.low
    with pytest.raises(ValueError, match="no label"):
        bootstrap_macro(normals(40, 2), label, torch.arange(40), 10, least=25)


# ---- probes


def planted(count: int = 600, labels: int = 4, size: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    h = normals(count, size, seed=seed) * torch.logspace(-2, 2, size)
    weight = normals(labels, size, seed=99) / torch.logspace(-2, 2, size)
    return h, (h @ weight.T + normals(count, labels, seed=seed + 1)) > 0.5


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_a_probe_finds_a_planted_direction_whatever_the_features_scales(loss: str) -> None:
    h, y = planted()
    probe = fit_probe(h[:400], y[:400], (h[400:500], y[400:500]), loss=loss)
    assert macro_auroc(apply(probe, h[500:]), y[500:]) > 0.9


def test_a_probe_is_the_optimum_of_penalised_logistic_regression() -> None:
    h, y = planted(200, 1, 3)
    probe = fit_probe(h, y, None, (0.1,), iterations=200)
    x = ((h - probe.mean) / probe.scale).double()
    w, b = probe.weight.double().requires_grad_(), probe.bias.double().requires_grad_()
    value = F.binary_cross_entropy_with_logits(x @ w.T + b, y.double()) + 0.05 * (w * w).sum()
    assert all(g.abs().max() < 1e-5 for g in torch.autograd.grad(value, (w, b)))


def test_validation_patients_choose_a_strong_penalty_where_features_are_noise() -> None:
    h, y = normals(60, 50), normals(60, 1, seed=1) > 0
    strong = fit_probe(h, y, None, (10.0,))
    weak = fit_probe(h, y, None, (1e-6,))
    assert strong.weight.norm() < 0.2 * weak.weight.norm()
    with pytest.raises(ValueError, match="valid"):
        fit_probe(h, y)
    with pytest.raises(ValueError, match="finite"):
        fit_probe(h * float("nan"), y, None, (1.0,))


def test_a_label_nobody_has_does_not_break_the_probe() -> None:
    h, y = planted()
    y[:, 2] = False
    probe = fit_probe(h[:400], y[:400], (h[400:], y[400:]))
    logits = apply(probe, h[400:])
    assert bool(torch.isfinite(logits).all()) and logits[:, 2].max() < -3


def test_folds_keep_patients_whole_and_spread_rare_labels() -> None:
    patient = torch.arange(300) // 3
    label = torch.zeros(300, 2, dtype=torch.bool)
    label[:30, 0] = True  # ten patients
    label[::2, 1] = True
    fold = folds_of(patient, label, 5, seed=3)
    assert all(len(fold[patient == p].unique()) == 1 for p in range(100))
    assert [int(label[fold == f, 0].sum()) for f in range(5)] == [6] * 5
    assert fold.bincount().max() - fold.bincount().min() <= 6
    assert torch.equal(fold, folds_of(patient, label, 5, seed=3))
    with pytest.raises(ValueError, match="patients cannot"):
        folds_of(torch.zeros(9), label[:9], 2)


def test_cross_validation_never_fits_a_row_with_its_own_patient() -> None:
    """Features that name the patient, labels by patient at random: a leak would read them off."""
    patient = torch.arange(240) // 4
    h = F.one_hot(patient, 60).float()
    label = (normals(60, 1, seed=4) > 0)[patient]
    assert macro_auroc(cross_validated(h, label, patient, 4), label) < 0.6
    told, truth = planted(240, 2)
    assert macro_auroc(cross_validated(told, truth, patient, 4), truth) > 0.85


def test_youden_threshold_splits_best() -> None:
    score = torch.tensor([[0.1, 5], [0.2, 5], [0.6, 5], [0.7, 5], [0.9, 5]])
    label = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 1], [1, 1]]).bool()
    found = youden(score, label)
    assert found[0] == pytest.approx(0.6) and found[1].isnan()
    assert ((score[:, 0] >= found[0]) == torch.tensor([False, False, True, True, True])).all()
    tied = youden(torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[True], [False], [False]]))
    assert tied.item() == 1.0


# ---- features and fine-tuning


class Small(nn.Module):
    """A stand-in encoder [B, 12, T] -> [B, 6] that any T fits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(12, 6, 9, 4)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, ecg: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(ecg))).mean(-1)


def test_crops_tile_the_record_and_features_leave_the_mode_alone() -> None:
    encoder = Small().eval()
    ecg = normals(5, 12, 1000)
    by_hand = torch.stack([encoder(ecg[..., s : s + 250]) for s in (0, 250, 500, 750)]).mean(0)
    assert torch.allclose(crop_features(encoder, ecg), by_hand, atol=1e-6)
    assert crop_features(encoder, ecg[..., :600]).shape == (5, 6)
    assert torch.allclose(crop_features(encoder, ecg[..., :200]), encoder(ecg[..., :200]))
    encoder.train()
    rows = torch.tensor([3, 1])
    out = features(encoder, ecg.half(), rows, batch=1)
    assert encoder.training and torch.allclose(out, by_hand[rows], atol=1e-3)


def sine_rows(count: int = 96) -> tuple[Tensor, Tensor]:
    """Label: a fast wave in lead II, over noise."""
    label = normals(count, 1, seed=8) > 0
    wave = torch.sin(torch.arange(500) * 0.9)
    ecg = normals(count, 12, 500, seed=9)
    ecg[:, 1] += 1.5 * label * wave
    return ecg.half(), label


RECIPE = FinetuneRecipe(steps=40, batch=16, rate=2e-2, checks=4)


def parts() -> tuple[LabelledRows, LabelledRows]:
    ecg, label = sine_rows()
    return LabelledRows(ecg, label, torch.arange(64)), LabelledRows(ecg, label, torch.arange(64, 96))


def test_finetuning_learns_and_keeps_the_best_check(tmp_path: Path) -> None:
    train, valid = parts()
    model, found, rate = supervised(Small(), train, valid, tmp_path, RECIPE, (1e-6, 2e-2))
    assert found > 0.9 and rate == 2e-2
    assert not model.training
    again = macro_auroc(predict(model, valid.ecg, valid.rows), valid.label[valid.rows])
    assert again == pytest.approx(found, abs=1e-6)


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = parts()
    encoder = Small()
    built = {n: x.clone() for n, x in encoder.state_dict().items()}
    whole, _ = finetune(encoder, train, valid, tmp_path / "whole", RECIPE)
    other = Small()
    other.load_state_dict(built)
    real = tuning.labelled_batch

    def stop(rows: LabelledRows, recipe: FinetuneRecipe, step: int, device: str) -> tuple[Tensor, Tensor]:
        if step == 25:
            raise KeyboardInterrupt
        return real(rows, recipe, step, device)

    monkeypatch.setattr(tuning, "labelled_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(other, train, valid, tmp_path / "stopped", RECIPE)
    monkeypatch.setattr(tuning, "labelled_batch", real)
    resumed, _ = finetune(Small(), train, valid, tmp_path / "stopped", RECIPE)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_folder_with_another_recipe_is_refused(tmp_path: Path) -> None:
    train, valid = parts()
    finetune(Small(), train, valid, tmp_path, dataclasses.replace(RECIPE, steps=2, checks=1))
    with pytest.raises(ValueError, match="steps"):
        finetune(Small(), train, valid, tmp_path, dataclasses.replace(RECIPE, steps=3, checks=1))
    with pytest.raises(ValueError, match="1 or more"):
        FinetuneRecipe(steps=0)


def test_the_head_starts_as_the_probe(tmp_path: Path) -> None:
    train, valid = parts()
    encoder = Small()
    h = features(encoder, train.ecg, train.rows)
    probe = fit_probe(h, train.label[train.rows], None, (1e-2,))
    model = tuning.Classifier(encoder, 6, 1)
    model.begin(probe, torch.tensor([0.5]))
    assert torch.allclose(predict(model, train.ecg, train.rows), apply(probe, h), atol=1e-4)
