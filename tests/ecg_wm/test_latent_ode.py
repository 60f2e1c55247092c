"""The ODE prior: fixed steps against the adaptive reference, linearity in dose, no drift without drug."""

import re

import pytest
import torch

from world_models import catalog, keys
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.latent_ode import COMPARTMENTS, COORDS, PATIENT, PhysiologicalPrior
from world_models.ecg_wm.step_error import StepError, step_errors

RATES = ((1.0, 0.10, 0.02, 0.10, 3.0, 0.6), (2.0, 0.3, 0.2, 0.15, 2.0, 0.5))
BATCH = 16


def make_prior() -> PhysiologicalPrior:
    torch.manual_seed(3)
    prior = PhysiologicalPrior(ECGWorldConfig(substeps=2), 2, RATES, (1.0, 10.0)).requires_grad_(False)
    torch.nn.init.normal_(prior.drift[-1].weight, std=0.05)  # as if trained: a correction that does something
    torch.nn.init.normal_(prior.daily, std=0.3)
    return prior


def make_patients(prior: PhysiologicalPrior) -> tuple[torch.Tensor, ...]:
    key = keys.from_seed(0, BATCH)
    eta = keys.normal(key, 0, "eta", (prior.config.eta,))
    patient = keys.normal(key, 0, "patient", (PATIENT,)) * 0.5
    anchor = keys.normal(key, 0, "anchor", (COORDS,)) * 0.5
    start = keys.uniform(key, 0, "start") * 24
    amounts = prior.dose(torch.zeros(BATCH, 2, COMPARTMENTS), torch.tensor([[1.0, 5.0]]).expand(BATCH, -1))
    return eta, patient, anchor, amounts, torch.zeros(BATCH, COORDS), start


def test_fixed_steps_agree_with_dopri5():
    prior = make_prior()
    eta, patient, anchor, amounts, deviation, start = make_patients(prior)
    rates = prior.individual(eta, patient, anchor, 2.0)
    fast = prior.advance(rates, amounts, deviation, start, start, 2.0)
    exact = prior.adaptive(eta, patient, anchor, amounts, deviation, start, start, 2.0)
    torch.testing.assert_close(fast[0], exact[0], atol=1e-4, rtol=1e-3)  # linear: exact but for float32
    # The latent is stepped; what two substeps miss stays under a fifth of the smallest coordinate scale ...
    error = (fast[1] - exact[1])[:, :5].abs()
    assert error.max() < 0.2, error.max()
    # ... and falls with the substep, as a consistent scheme's must.
    fine = PhysiologicalPrior(ECGWorldConfig(substeps=32), 2, RATES, (1.0, 10.0)).requires_grad_(False)
    fine.load_state_dict(prior.state_dict())
    close = fine.advance(fine.individual(eta, patient, anchor, 2.0), amounts, deviation, start, start, 2.0)
    finer = (close[1] - exact[1]).abs().max()
    assert finer < 0.25 * (fast[1] - exact[1]).abs().max(), finer


def test_mass_is_conserved_up_to_elimination_and_doses_superpose():
    prior = make_prior()
    eta, patient, anchor, amounts, deviation, start = make_patients(prior)
    rates = prior.individual(eta, patient, anchor, 2.0)
    once = prior.advance(rates, amounts, deviation, start, start, 2.0).amounts
    twice = prior.advance(rates, 2 * amounts, deviation, start, start, 2.0).amounts
    torch.testing.assert_close(twice, 2 * once)
    inside = once[..., :4].sum(-1)
    assert (inside <= amounts[..., :4].sum(-1) + 1e-6).all() and (once >= -1e-6).all()


def test_nothing_moves_without_drug_at_the_same_hour():
    prior = make_prior()
    eta, patient, anchor, amounts, deviation, start = make_patients(prior)
    rates = prior.individual(eta, patient, anchor, 24.0)
    moved = prior.advance(rates, torch.zeros_like(amounts), deviation, start, start, 24.0).deviation
    # A whole day later the clock says the same: with long substeps nothing but the residue of relaxation is left.
    assert moved[:, :5].abs().max() < 1e-3


# Of the shipped weights, ms: mean over patients of QTcF two hours after 0.5 mg of dofetilide, stepped less exact.
SHIPPED_OFF_MS = 7.15
LARGEST_MEAN_OFF_MS = 2.0  # what a remade model must keep to for every drug, a quarter of the trial's QTcF error


@pytest.fixture(scope="module")
def shipped_errors() -> dict[str, StepError]:
    return step_errors(catalog.load("ecg-wm-small"))


@pytest.mark.xfail(strict=True, reason=f"off by {SHIPPED_OFF_MS} ms until the model is remade")
def test_the_shipped_priors_steps_agree_with_dopri5(shipped_errors):
    off = {drug: abs(error.mean_ms) for drug, error in shipped_errors.items()}
    assert max(off.values()) < LARGEST_MEAN_OFF_MS, off


def test_the_shipped_priors_error_is_the_one_its_card_tells(shipped_errors):
    assert shipped_errors["dofetilide"].mean_ms == pytest.approx(SHIPPED_OFF_MS, abs=0.3)
    card = (catalog.weights_folder("ecg-wm-small") / "CARD.md").read_text(encoding="utf-8")
    for drug, error in shipped_errors.items():
        told = re.search(rf"\| {drug} {error.dose_mg:g} mg \| ([-+.\d]+) \| ([.\d]+) \|", card)
        assert float(told[1]) == pytest.approx(error.mean_ms, abs=0.1)
        assert float(told[2]) == pytest.approx(error.largest_ms, abs=0.1)
