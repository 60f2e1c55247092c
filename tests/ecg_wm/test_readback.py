"""A drawn ECG reads as its chart; the prior over beat shapes draws none that no beat has."""

import copy

import pytest
import torch

from world_models import catalog, keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.readback import FEATURES, READ, Readback
from world_models.ecg_wm.readback_training import sample_requests, train_readback
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.vae import EXAMPLES, BeatVAE


@pytest.fixture(scope="module")
def world():
    return catalog.load("ecg-wm-small")


def errors(world, shape, key, chart) -> torch.Tensor:
    """What the delineator reads off the drawn ECG less what the chart says, [B, 4] ms."""
    read = delineate(synthesise(world.vae, world.readback, shape, key, torch.zeros_like(key), chart), RATE_HZ)
    return torch.stack([getattr(read, name) - chart[name] for name in READ], dim=-1)


def test_the_shipped_worlds_ecg_reads_as_its_chart(world):
    state = world.initial(keys.from_seed(77, 192))
    for dose in (0.0, 0.5):
        action = torch.zeros(192, 4)
        action[:, 1] = dose
        state = world.transition(world.transition(state, action), 0 * action)
        chart = world.observe(state)
        off = errors(world, state.shape, state.key, chart).abs()
        assert (off.nanmedian(0).values < 1.5).all(), off.nanmedian(0).values
        assert (off.nan_to_num(99.0) < 8).float().mean() > 0.97


def test_an_untrained_readback_asks_for_what_the_chart_says():
    chart = {name: torch.full((3,), 100.0) for name in FEATURES}
    asked = Readback(SMALL).asked(torch.randn(3, SMALL.morphology, generator=torch.Generator().manual_seed(0)), chart)
    assert all(torch.equal(asked[name], chart[name]) for name in READ)


def test_a_short_training_already_brings_reading_and_chart_together(world, tmp_path):
    fresh = copy.deepcopy(world).requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # its first weights: how far a short training gets depends on them
        fresh.readback = Readback(SMALL)
    source = BeatSource(tmp_path, pipeline=64)
    key = keys.from_seed(123, 192)
    shape, chart = sample_requests(fresh, source, key)
    before = errors(fresh, shape, key, chart).abs().nanmedian(0).values
    train_readback(fresh, source, 1, 320, 200, 64, tmp_path)
    after = errors(fresh, shape, key, chart).abs().nanmedian(0).values
    assert (after < 0.8 * before).all(), (before, after)
    again = copy.deepcopy(world).requires_grad_(True)
    again.readback = Readback(SMALL)
    train_readback(again, source, 1, 320, 200, 64, tmp_path)  # a finished stage is loaded, not trained again
    for one, other in zip(fresh.readback.parameters(), again.readback.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_prior_keeps_the_spread_of_the_examples_and_draws_nothing_between_two_kinds_of_beat():
    vae = BeatVAE(SMALL)
    cloud = 0.2 * keys.normal(keys.from_seed(5, 2 * EXAMPLES), 0, "cloud", (SMALL.morphology,))
    cloud[::2, 0] += 3.0
    cloud[1::2, 0] -= 3.0
    vae.lay_prior(cloud)
    drawn = vae.prior(keys.from_seed(9, 20_000))
    assert torch.allclose(drawn.mean(0), cloud.mean(0), atol=0.1)
    assert torch.allclose(drawn.std(0), cloud.std(0), rtol=0.1)
    # A Gaussian of this mean and spread would put a fifth of its draws there.
    assert (drawn[:, 0].abs() < 0.75).float().mean() < 0.01
