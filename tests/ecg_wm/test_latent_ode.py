"""The ODE prior: nodes against the adaptive reference, one course whatever the step, linearity in dose."""

import math

import pytest
import torch

from world_models import keys, tree
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.latent import BURDEN, COORDS
from world_models.ecg_wm.latent_ode import MODES, PATIENT, PhysiologicalPrior, Rates
from world_models.ecg_wm.quadrature import gauss_nodes

RATES = ((1.0, 0.10, 0.02, 0.10, 3.0, 0.6, 0.03), (2.0, 0.3, 0.2, 0.15, 2.0, 0.5, 0.03))
BATCH = 16


@pytest.fixture
def prior() -> PhysiologicalPrior:
    torch.manual_seed(3)
    made = PhysiologicalPrior(ECGWorldConfig(), 2, RATES, (1.0, 10.0)).requires_grad_(False)
    torch.nn.init.normal_(made.drift_out.weight, std=0.05)  # as if trained: a correction that does something
    torch.nn.init.normal_(made.daily, std=0.3)
    torch.nn.init.normal_(made.entry_together, std=0.1)
    return made


def patients(prior: PhysiologicalPrior) -> tuple[Rates, torch.Tensor]:
    key = keys.from_seed(0, BATCH)
    eta = keys.normal(key, 0, "eta", (prior.config.eta,))
    who = keys.normal(key, 0, "patient", (PATIENT,)) * 0.5
    anchor = keys.normal(key, 0, "anchor", (COORDS,)) * 0.5
    return prior.individual(eta, who, anchor), keys.uniform(key, 0, "start") * 24


def dosed(prior: PhysiologicalPrior, rates: Rates, first: float, second: float) -> torch.Tensor:
    return prior.dose(rates, torch.zeros(BATCH, 2, MODES), torch.tensor([[first, second]]).expand(BATCH, -1))


def test_nodes_integrate_polynomials_under_a_cut_exponential():
    for length in (0.05, 1.0, 10.0, 200.0):
        nodes, weights = (torch.tensor(x, dtype=torch.float64) for x in gauss_nodes(length, 3))
        assert ((nodes > 0) & (nodes < length)).all() and float(weights.sum()) == pytest.approx(-math.expm1(-length))
        # three nodes are exact up to the fifth power
        grid = torch.linspace(0, min(length, 60.0), 400_001, dtype=torch.float64)
        for power in (1, 5):
            right = float(torch.trapezoid(grid**power * torch.exp(-grid), grid))
            assert float((weights * nodes**power).sum()) == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("hours", [0.25, 0.5, 2.0, 12.0])
def test_a_step_agrees_with_dopri5(prior, hours):
    rates, start = patients(prior)
    amounts, deviation = dosed(prior, rates, 1.0, 5.0), torch.zeros(BATCH, COORDS)
    fast = prior.advance(rates, amounts, deviation, start, start, hours)
    exact = prior.double()
    wide = tree.map_leaves(lambda x: x.double(), rates)
    moment = (amounts.double(), deviation.double(), start.double(), start.double())
    sites, right = exact.adaptive(wide, *moment, hours)
    level = (fast.amounts.double().unsqueeze(-2) @ wide.site).squeeze(-2)
    torch.testing.assert_close(level, sites, atol=2e-4, rtol=2e-3)
    off = (fast.deviation - right).abs()
    assert off[:, :BURDEN].max() < 0.01  # of the scale of a coordinate: 0.2 ms of J-Tpeak c
    assert off[:, BURDEN].max() < 0.05  # of a logit


def test_one_course_whatever_the_step(prior):
    rates, start = patients(prior)
    amounts, deviation = dosed(prior, rates, 1.0, 5.0), torch.zeros(BATCH, COORDS)
    whole = prior.advance(rates, amounts, deviation, start, start, 12.0)
    hour = start
    for _ in range(48):
        step = prior.advance(rates, amounts, deviation, hour, start, 0.25)
        amounts, deviation, hour = step.amounts, step.relaxed, hour + 0.25
    torch.testing.assert_close(amounts, whole.amounts, atol=1e-5, rtol=1e-4)
    deviation = step.deviation
    assert (deviation - whole.deviation)[:, :BURDEN].abs().max() < 0.01
    assert (deviation - whole.deviation)[:, BURDEN].abs().max() < 0.05


def test_patients_may_have_steps_of_their_own(prior):
    rates, start = patients(prior)
    amounts, deviation = dosed(prior, rates, 1.0, 5.0), torch.zeros(BATCH, COORDS)
    hours = torch.full((BATCH,), 2.0)
    hours[1::2] = 0.5
    mixed = prior.advance(rates, amounts, deviation, start, start, hours)
    for length, rows in ((2.0, slice(0, None, 2)), (0.5, slice(1, None, 2))):
        alone = prior.advance(rates, amounts, deviation, start, start, length)
        torch.testing.assert_close(mixed.deviation[rows, :BURDEN], alone.deviation[rows, :BURDEN])
        assert (mixed.deviation - alone.deviation)[rows, BURDEN].abs().max() < 1e-3  # of a logit
        torch.testing.assert_close(mixed.amounts[rows], alone.amounts[rows])


def test_doses_superpose_and_a_sum_of_exponentials_never_goes_negative(prior):
    rates, start = patients(prior)
    nothing = torch.zeros(BATCH, COORDS)
    one, two = dosed(prior, rates, 1.0, 0.0), dosed(prior, rates, 2.0, 0.0)
    torch.testing.assert_close(two, 2 * one)
    for hours in (0.25, 1.0, 8.0):
        step = prior.advance(rates, one, nothing, start, start, hours)
        assert (prior.central(rates, step.amounts) > -1e-6).all() and (step.effect >= 0).all()


def test_nothing_moves_without_drug_at_the_same_hour(prior):
    prior.daily[:, 2:] = 0  # the first harmonic alone: the higher, the more of it the relaxation lags behind
    rates, start = patients(prior)
    none, still = torch.zeros(BATCH, 2, MODES), torch.zeros(BATCH, COORDS)
    moved = prior.advance(rates, none, still, start, start, 24.0).deviation
    # A whole day later the clock says the same: nothing but the minutes of relaxation behind it is left.
    assert moved[:, :BURDEN].abs().max() < 0.1
