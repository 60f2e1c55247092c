"""A drawn ECG reads as its chart; the prior over beat shapes draws none that no beat has."""

import copy

import pytest
import torch

from world_models import catalog, keys
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beat_training import lay_linear, lay_prior
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.readback import FEATURES, INTERVALS, LIMITS, READ, Readback, corrected
from world_models.ecg_wm.readback_training import Request, missing_of, sample_requests, train_readback
from world_models.ecg_wm.recorded import Recorded
from world_models.ecg_wm.t_bend import T_MEASURES
from world_models.ecg_wm.vae import EXAMPLES, BeatVAE


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """A VAE with its linear part alone, and a source of drawn beats."""
    source = BeatSource(tmp_path_factory.mktemp("beats"), drawn=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = BeatVAE(SMALL).requires_grad_(False)
    lay_linear(vae, source)
    lay_prior(vae, source)
    return vae, source


def test_the_shipped_worlds_ecg_reads_as_its_chart():
    world = catalog.load("ecg-wm-small")
    state = world.initial(keys.from_seed(77, 192))
    for dose in (0.0, 0.5):
        action = torch.zeros(192, 4)
        action[:, 1] = dose
        state = world.transition(world.transition(state, action), 0 * action)
        asked = Request(state.shape, state.recorded, world.observe(state))
        off = missing_of(world.vae, world.readback, asked, state.key)[:, : len(INTERVALS)].abs()
        assert (off.nanmedian(0).values < 1.5).all(), off.nanmedian(0).values
        assert (off.nan_to_num(99.0) < 8).float().mean() > 0.97


def test_an_untrained_readback_asks_for_what_the_chart_says():
    chart = {name: torch.full((3,), 100.0) for name in FEATURES}
    beat = torch.randn(3, 8, 200, generator=torch.Generator().manual_seed(0))
    intervals, t_wave = Readback(SMALL).asked(beat, chart)
    assert all(torch.equal(intervals[name], chart[name]) for name in INTERVALS) and t_wave is None
    values = torch.tensor([[500.0, 0.2, 0.4, 45.0, 30.0]]).expand(3, -1)
    intervals, t_wave = Readback(SMALL).asked(beat, chart | dict(zip(T_MEASURES, values.unbind(-1), strict=True)))
    torch.testing.assert_close(t_wave, values)


def test_corrections_stay_within_the_charts_bounds():
    least = torch.tensor([[25.0, 0.01, 0.03, 5.0, 5.0]])
    moved = corrected(least, -torch.tensor(LIMITS[len(INTERVALS) :]).unsqueeze(0))
    assert (moved >= torch.tensor([20.0, 0.0, 0.02, 4.0, 4.0])).all()


def test_a_short_training_already_brings_reading_and_chart_together(laid, tmp_path):
    vae, source = laid
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # its first weights: how far a short training gets depends on them
        fresh = Readback(SMALL)
    key = keys.from_seed(123, 192)
    asked = sample_requests(vae, source, key)
    scale = torch.tensor(LIMITS)

    def error(readback: Readback) -> torch.Tensor:
        return (missing_of(vae, readback, asked, key) / scale).abs().nanmedian(0).values

    before = error(fresh)
    train_readback(vae, fresh, source, 1, 320, 200, 64, tmp_path)
    after = error(fresh)
    # The intervals: T measures can only be put right through a bender that has learned something.
    assert after[: len(INTERVALS)].mean() < 0.8 * before[: len(INTERVALS)].mean(), (before, after)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = Readback(SMALL)
    train_readback(vae, again, source, 1, 320, 200, 64, tmp_path)  # a finished stage is loaded, not trained again
    for one, other in zip(fresh.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_requests_hold_generated_and_recorded_patients(laid):
    vae, source = laid
    asked = sample_requests(vae, source, keys.from_seed(5, 64))
    assert asked.m.shape == (64, SMALL.morphology) and set(asked.chart) == {*FEATURES, *T_MEASURES}
    assert all(torch.isfinite(value).all() for value in asked.chart.values())
    assert isinstance(asked.recorded, Recorded)
    assert asked.recorded.t_wave[:32].isnan().all() and asked.recorded.t_wave[32:].isfinite().all()
    qt = asked.chart["qrs_ms"] + asked.chart["jt_peak_ms"] + asked.chart["tpeak_tend_ms"]
    assert (qt + 0.5 * asked.chart["pr_ms"] < 60_000 / asked.chart["heart_rate_bpm"]).all()
    told = {name: torch.full((32,), 77.0) for name in asked.chart}
    assert (sample_requests(vae, source, keys.from_seed(5, 64), lambda key: told).chart["pr_ms"][:32] == 77).all()
    assert len(READ) == len(LIMITS)


def test_the_prior_keeps_the_spread_of_the_examples_and_draws_nothing_between_two_kinds_of_beat():
    vae = copy.deepcopy(BeatVAE(SMALL))
    cloud = 0.2 * keys.normal(keys.from_seed(5, 2 * EXAMPLES), 0, "cloud", (SMALL.morphology,))
    cloud[::2, 0] += 3.0
    cloud[1::2, 0] -= 3.0
    vae.lay_prior(cloud)
    drawn = vae.prior(keys.from_seed(9, 20_000))
    assert torch.allclose(drawn.mean(0), cloud.mean(0), atol=0.1)
    assert torch.allclose(drawn.std(0), cloud.std(0), rtol=0.1)
    # A Gaussian of this mean and spread would put a fifth of its draws there.
    assert (drawn[:, 0].abs() < 0.75).float().mean() < 0.01
