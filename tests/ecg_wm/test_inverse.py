"""Inverse dynamics: what is learned of pairs around one order, and its projection on what can be ordered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from world_models import keys
from world_models.checkpoint import CheckpointError
from world_models.ecg_wm import latent
from world_models.ecg_wm.inverse import (
    ECG_ONLY,
    Inferred,
    InverseConfig,
    InverseDynamics,
    menu_probabilities,
    project_dose,
)
from world_models.ecg_wm.inverse_training import hidden, train_inverse
from world_models.ecg_wm.transitions import COVARIATES, dose_limits, oracle_pairs, pooled, sample_transitions
from world_models.quantities.ecg_drug import DRUGS

SMALL = InverseConfig(width=48, depth=2, bins=8)
D = len(DRUGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[InverseDynamics, Path]:
    folder = tmp_path_factory.mktemp("inverse")
    return train_inverse(folder, steps=250, batch=256, config=SMALL, pairs=20_000), folder


def test_pairs_are_one_order_apart_and_luck_is_shared() -> None:
    data = sample_transitions(keys.from_seed(4, 400), 2.0)
    low, high = dose_limits()
    given = data.drug > 0
    which = (data.drug - 1).clamp_min(0)
    assert (data.dose_mg[~given] == 0).all() and (data.effect_ms[~given] == 0).all()
    assert (data.dose_mg >= low[which] * 0.999)[given].all() and (data.dose_mg <= high[which])[given].all()
    strong = data.effect_ms[data.drug == 1 + DRUGS.index("dofetilide")].mean()
    assert strong > 15 > data.effect_ms[data.drug == 1 + DRUGS.index("verapamil")].mean()
    alone = sample_transitions(keys.from_seed(4, 400), 2.0)
    assert torch.equal(data.drug, alone.drug) and torch.equal(data.before.nan_to_num(), alone.before.nan_to_num())
    with pytest.raises(ValueError, match="name the cohort"):
        oracle_pairs(
            keys.from_seed(0, 2), 2.0, torch.zeros(2).long(), torch.zeros(2), factors={"age_years": torch.ones(2)}
        )


def test_it_beats_chance_on_patients_not_met_and_is_calibrated_enough(trained: tuple[InverseDynamics, Path]) -> None:
    model, _ = trained
    data = pooled(9_000_000_000, 300)
    found = model.infer(data.before, data.after, data.hours, data.covariates)
    assert torch.allclose(found.drug.sum(-1), torch.ones(len(data.hours)), atol=1e-5)
    assert torch.allclose(found.dose.sum(-1), torch.ones(len(data.hours), D), atol=1e-5)
    large = data.effect_ms > 20
    right = (found.drug.argmax(-1) == data.drug)[large].double().mean()
    assert right > 0.55  # two drugs alone move QTcF so far: one half is what guessing among them gives
    said, truth = found.drug.max(-1).values.mean(), (found.drug.argmax(-1) == data.drug).float().mean()
    assert abs(said - truth) < 0.08


def test_what_is_not_known_may_be_missing(trained: tuple[InverseDynamics, Path]) -> None:
    model, _ = trained
    data = sample_transitions(keys.from_seed(9_100_000_000, 64), 3.0)
    lost = hidden(data, keys.from_seed(1, 64))
    assert lost.before.isnan().any() and not torch.equal(lost.before.isnan(), data.before.isnan())
    nothing = torch.full_like(data.before, torch.nan)
    found = model.infer(nothing, nothing, data.hours, torch.full_like(data.covariates, torch.nan))
    assert found.drug.isfinite().all() and (found.drug - found.drug[0]).abs().max() < 1e-5, "nothing known, one answer"
    assert sum(ECG_ONLY) == len(latent.COORDINATES) - 2


def test_bad_input_is_named(trained: tuple[InverseDynamics, Path]) -> None:
    model, _ = trained
    data = sample_transitions(keys.from_seed(3, 4), 2.0)
    with pytest.raises(ValueError, match="swap the two ECGs"):
        model.infer(data.before, data.after, -data.hours, data.covariates)
    with pytest.raises(ValueError, match="covariates"):
        model.infer(data.before, data.after, data.hours, data.covariates[:, : len(COVARIATES) - 1])


def _sure(drug: int, share: float = 1.0) -> Inferred:
    """All of the probability on one drug's dose around 1 mg of bins 0.25, 0.5, 1, 2."""
    chance = torch.full((1, 1 + D), (1 - share) / D)
    chance[0, drug] = share
    dose = torch.full((1, D, 4), 0.05)
    dose[..., 1] = 0.85
    return Inferred(chance, dose, torch.tensor([0.1, 0.25, 0.5, 1.0, 2.0]).expand(D, -1).contiguous())


def test_projection_takes_the_nearest_order() -> None:
    order = project_dose(_sure(2))
    assert order[0].nonzero().flatten().tolist() == [1] and 0.25 < float(order[0, 1]) < 0.5
    assert project_dose(_sure(0)).abs().sum() == 0
    menu = torch.zeros(4, D)
    menu[1, 1], menu[2, 1], menu[3, 0] = 0.4, 1.5, 0.4
    found = menu_probabilities(_sure(2, 0.99), menu)
    assert found.argmax() == 1 and torch.allclose(found.sum(), torch.tensor(1.0))
    # twice the prior, twice the odds
    prior = torch.tensor([0.25, 0.25, 0.25, 0.25])
    more = torch.tensor([0.2, 0.2, 0.4, 0.2])
    odds = menu_probabilities(_sure(2), menu, more)[0, 2] / menu_probabilities(_sure(2), menu, more)[0, 1]
    plain = menu_probabilities(_sure(2), menu, prior)[0, 2] / menu_probabilities(_sure(2), menu, prior)[0, 1]
    assert torch.allclose(odds, 2 * plain, rtol=1e-4)
    menu[1, 0] = 1.0
    with pytest.raises(ValueError, match="two drugs at once"):
        menu_probabilities(_sure(2), menu)


def test_saved_and_loaded_it_says_the_same_and_resumes(trained: tuple[InverseDynamics, Path]) -> None:
    model, folder = trained
    again = InverseDynamics.load(folder)
    data = sample_transitions(keys.from_seed(8, 16), 4.0)
    rows = (data.before, data.after, data.hours, data.covariates)
    assert torch.equal(model.infer(*rows).drug, again.infer(*rows).drug) and "Not for clinical use" in (
        folder / "CARD.md"
    ).read_text(encoding="utf-8")
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace('"heart_rate_bpm"', '"heart_rate"'), encoding="utf-8")
    with pytest.raises(CheckpointError):
        InverseDynamics.load(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")
