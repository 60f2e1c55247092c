"""Risk measures against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.planning.risk import CVaR, Mean, MeanMinusSigma, Risk

SAMPLES = np.random.default_rng(3).normal(size=(5, 4, 40))


@pytest.mark.parametrize("risk", [Mean(), MeanMinusSigma(0.5), CVaR(0.1)])
def test_is_a_risk_and_drops_the_sample_axis(risk):
    assert isinstance(risk, Risk)
    assert risk(torch.tensor(SAMPLES)).shape == (5, 4)


def test_mean_and_sigma_equal_numpy():
    x = torch.tensor(SAMPLES)
    np.testing.assert_allclose(Mean()(x), SAMPLES.mean(-1))
    np.testing.assert_allclose(MeanMinusSigma(1.7)(x), SAMPLES.mean(-1) - 1.7 * SAMPLES.std(-1, ddof=1))
    np.testing.assert_allclose(MeanMinusSigma(-1.0)(x), SAMPLES.mean(-1) + SAMPLES.std(-1, ddof=1))


@pytest.mark.parametrize(("alpha", "count"), [(0.05, 2), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_cvar_is_the_mean_of_the_worst(alpha, count):
    np.testing.assert_allclose(CVaR(alpha)(torch.tensor(SAMPLES)), np.sort(SAMPLES, -1)[..., :count].mean(-1))


def test_cvar_counts_a_part_of_a_sample_and_never_less_than_one():
    x = torch.tensor([4.0, 1.0, 2.0, 3.0])
    assert float(CVaR(0.375)(x)) == pytest.approx((1.0 + 0.5 * 2.0) / 1.5)
    assert float(CVaR(0.01)(x)) == 1.0
    # 0.05 * 500 is a little above 25 in floating point.
    assert float(CVaR(0.05)(torch.arange(500.0))) == pytest.approx(12.0)


def test_sigma_of_one_sample_is_nothing():
    assert float(MeanMinusSigma(3.0)(torch.tensor([2.0]))) == 2.0


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5])
def test_cvar_refuses_a_share_that_is_none(alpha):
    with pytest.raises(ValueError, match="alpha"):
        CVaR(alpha)
