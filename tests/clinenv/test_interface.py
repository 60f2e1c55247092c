"""What a decider is shown: scaling, noise, missing records."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.interface import Interface
from clinenv.settings import Settings
from tests.toy_world import ToyWorld
from world_models import keys


def vector(num_envs: int = 2000, **kwargs):
    return gymnasium.make_vec("ECGDrug-v0", num_envs=num_envs, world=ToyWorld(hazard=0.0), **kwargs).unwrapped


def test_the_observation_says_what_the_chart_says() -> None:
    env = vector(50)
    env.reset(seed=0)
    observation, *_ = env.step(np.full(50, 4))
    said, chart = env.describe(observation), env.chart
    for name in ("qtcf_ms", "pr_ms", "hours", "arrhythmia_burden"):
        np.testing.assert_allclose(said[name], chart[name].numpy(), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(said["total_dose_mg[1]"], 0.5, rtol=1e-5)
    assert np.abs(observation).mean() < 1.2, "scaled to about [-1, 1]"


def test_noise_has_the_published_size_and_the_identities_hold() -> None:
    clean, noisy = vector(), vector(noise="clinic")
    a, b = clean.describe(clean.reset(seed=1)[0]), noisy.describe(noisy.reset(seed=1)[0])
    published = {"heart_rate_bpm": 2.8, "pr_ms": 5.3, "qrs_ms": 3.9, "jt_peak_ms": 4.7, "tpeak_tend_ms": 2.8}
    for name, sd in published.items():
        error = b[name] - a[name]
        assert abs(error.mean()) < 0.15 * sd and error.std() == pytest.approx(sd, rel=0.06), name
    np.testing.assert_allclose(b["qt_ms"], b["qrs_ms"] + b["jt_peak_ms"] + b["tpeak_tend_ms"], atol=0.01)
    np.testing.assert_allclose(b["qtcf_ms"], b["qt_ms"] / (60 / b["heart_rate_bpm"]) ** (1 / 3), rtol=1e-4)
    twice = vector(noise="ward")
    c = twice.describe(twice.reset(seed=1)[0])
    np.testing.assert_allclose(c["pr_ms"] - a["pr_ms"], 2 * (b["pr_ms"] - a["pr_ms"]), atol=0.01)


def test_reward_cost_and_end_do_not_see_the_noise() -> None:
    clean, noisy = vector(64), vector(64, noise="ward", missingness="much")
    clean.reset(seed=1)
    noisy.reset(seed=1)
    for _ in range(5):
        a, b = clean.step(np.full(64, 4)), noisy.step(np.full(64, 4))
        assert np.array_equal(a[1], b[1]) and np.array_equal(a[4]["cost"], b[4]["cost"])
        assert not np.array_equal(a[0], b[0])


@pytest.mark.parametrize(("tier", "share"), [("some", 0.2), ("much", 0.5)])
def test_a_record_that_was_not_made_shows_the_last_one_and_its_age(tier: str, share: float) -> None:
    full, gaps = vector(), vector(missingness=tier)
    (a, _), (b, _) = full.reset(seed=3), gaps.reset(seed=3)
    assert np.array_equal(a, b), "the admission ECG is always made"
    before = gaps.describe(b)
    missed = 0.0
    for _ in range(6):
        a, b = full.step(np.full(2000, 4))[0], gaps.step(np.full(2000, 4))[0]
        truth, said = full.describe(a), gaps.describe(b)
        gone = said["hours_since_ecg"] > 0
        missed += gone.mean() / 6
        np.testing.assert_allclose(said["hours_since_ecg"][gone], before["hours_since_ecg"][gone] + 2, atol=1e-4)
        for name in ("qtcf_ms", "pr_ms", "heart_rate_bpm"):
            np.testing.assert_allclose(said[name][gone], before[name][gone], rtol=1e-5)
            np.testing.assert_allclose(said[name][~gone], truth[name][~gone], rtol=1e-5)
        for name in ("hours", "arrhythmia_burden", "total_dose_mg[1]"):
            np.testing.assert_allclose(said[name], truth[name], rtol=1e-5)
        before = said
    assert missed == pytest.approx(share, abs=0.02)


def test_a_missing_ecg_has_no_waveform() -> None:
    env = vector(40, missingness="much", observation="ecg")
    env.reset(seed=0)
    observation, *_ = env.step(np.zeros(40, int))
    gone = env.describe(observation)["hours_since_ecg"] > 0
    flat = (observation["ecg"] == 0).all(1)
    assert np.array_equal(gone, flat) and 5 < gone.sum() < 35


def test_an_observation_never_leaves_its_box() -> None:
    class Extreme(ToyWorld):
        def observe(self, state, also=()):
            chart = super().observe(state, also)
            ends = {q.name: (q.low, q.high) for q in self.measures}
            return {n: torch.full_like(v, ends[n][int(state.key[0]) % 2]) for n, v in chart.items()}

    for seed in range(4):
        world = Extreme()
        interface = Interface(world, ECGDrugTask(), Settings(noise="ward", missingness="much"))
        state = world.initial(keys.from_seed(seed, 5))
        observation, _ = interface.observe(world.observe(state), state.key, state.t, None)
        assert all(interface.view.space.contains(row) for row in observation.numpy())
