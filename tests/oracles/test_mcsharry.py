from __future__ import annotations

import math

import pytest
import torch

from world_models.ecg.mcsharry import ecgsyn_waves, gaussian_sum, mcsharry_rhs, ode_residual, phase

RATES = torch.tensor([48.0, 60.0, 95.0], dtype=torch.float64)


def _circle(steps: int = 4000):
    omega = (2 * math.pi * RATES / 60.0).unsqueeze(-1)
    seconds = (60.0 / RATES).unsqueeze(-1) * torch.linspace(-0.499, 0.499, steps, dtype=torch.float64)
    return omega * seconds, omega.expand(-1, steps), seconds


def test_closed_solution_satisfies_the_ode():
    theta, omega, seconds = _circle()
    waves = ecgsyn_waves(RATES)
    z = gaussian_sum(theta, omega, waves)[:, 0]
    slope = (z[:, 2:] - z[:, :-2]) / (seconds[:, 2:] - seconds[:, :-2])
    right = mcsharry_rhs(theta, waves)[:, 0, 1:-1]
    assert right.abs().max() > 1.0
    assert (slope - right).abs().max() < 1e-3 * right.abs().max()


def test_closed_solution_equals_integration():
    theta, omega, seconds = _circle()
    waves = ecgsyn_waves(RATES)
    z = gaussian_sum(theta, omega, waves)[:, 0]
    integrated = torch.cumulative_trapezoid(mcsharry_rhs(theta, waves)[:, 0], seconds, dim=-1) + z[:, :1]
    assert (integrated - z[:, 1:]).abs().max() < 1e-4


def test_baseline_term_pulls_towards_z0():
    theta, omega, _ = _circle(200)
    waves = ecgsyn_waves(RATES)
    free = mcsharry_rhs(theta, waves)
    z = torch.full_like(free, 0.3)
    assert torch.allclose(mcsharry_rhs(theta, waves, z), free - 0.3)
    assert torch.allclose(mcsharry_rhs(theta, waves, z, torch.full_like(z, 0.3)), free)


def test_phase_and_residual_on_a_sampled_beat():
    r = torch.tensor([[-250, 250, 750, 1250]])
    theta, omega = phase(r, 1000)
    assert theta[0, 250] == 0 and theta[0, 500] == pytest.approx(math.pi)
    assert omega[0, 0] == pytest.approx(2 * math.pi)
    waves = ecgsyn_waves(torch.tensor([60.0]))
    z = gaussian_sum(theta, omega, waves)
    away = (theta[:, 1:-1].abs() < 3.0).unsqueeze(1)  # at the wrap the tail of P meets that of T
    assert (ode_residual(z, theta, waves) * away).abs().max() < 0.02 * mcsharry_rhs(theta, waves).abs().max()
    assert (ode_residual(2 * z, theta, waves) * away).abs().max() > 0.5
