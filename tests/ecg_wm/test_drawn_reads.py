"""A drawn ECG reads as its chart; the prior over beat shapes draws none that no beat has."""

import copy

import pytest
import torch

from benchmarks.ecg_drug.beats_read import READ, Request, dosed_charts, missed, missing_of
from world_models import catalog, keys
from world_models.ecg.beat_axis import J_POINT
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beat_training import lay_linear, lay_prior
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.recorded import Recorded
from world_models.ecg_wm.synthesis import drawn_beat
from world_models.ecg_wm.t_measures import T_MEASURES
from world_models.ecg_wm.vae import EXAMPLES, BeatVAE
from world_models.oracles.ecg_drug.cohorts import FACTORS

# In READ's order: ms, logarithm of the amplitude, scores, ms.
LIMITS = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.05, 0.03, 0.02, 2.0, 2.0])

LEAST_BURDEN = next(q.low for q in FACTORS if q.name == "baseline_burden")


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """A VAE with its linear part alone, laid by drawn beats."""
    source = BeatSource(tmp_path_factory.mktemp("beats"), drawn=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = BeatVAE(SMALL).requires_grad_(False)
    lay_linear(vae, source)
    lay_prior(vae, source)
    return vae


def test_a_decoders_ecg_reads_as_a_dosed_patients_chart(laid):
    key = keys.from_seed(123, 96)
    chart = dosed_charts(key)
    shape = laid.prior(key, torch.stack([chart[name] for name in T_MEASURES], dim=-1))
    off = missing_of(laid, Request(shape, Recorded.nothing(shape), chart), key).abs()
    assert len(READ) == len(LIMITS) == off.shape[1]
    assert (off.nanmedian(0).values < LIMITS).all(), off.nanmedian(0).values


@pytest.mark.parametrize(("rate_bpm", "dose_mg"), [(65.0, 0.0), (65.0, 0.5), (None, 0.5)])
def test_the_shipped_worlds_ecg_reads_as_its_chart(rate_bpm, dose_mg):
    """In sinus rhythm, before and under 500 ug of dofetilide."""
    world = catalog.load("ecg-wm-small")
    told = {"admission_fibrillation": torch.zeros(256), "baseline_burden": torch.full((256,), LEAST_BURDEN)}
    if rate_bpm is not None:
        told["baseline_heart_rate_bpm"] = torch.full((256,), rate_bpm)
    action = torch.zeros(256, 4)
    action[:, 1] = dose_mg
    state = world.initial(keys.from_seed(77, 256), told)
    state = world.transition(world.transition(state, action), 0 * action)
    chart = world.observe(state, also=("ecg_mv",))
    off = missed(chart["ecg_mv"], chart).abs()[chart["atrial_fibrillation"] < 0.5]
    assert len(off) > 200
    assert (off.nanmedian(0).values < LIMITS).all(), off.nanmedian(0).values


def test_a_drug_leaves_a_patients_qrs_as_it_was():
    world = catalog.load("ecg-wm-small")
    told = {"admission_fibrillation": torch.zeros(64), "baseline_burden": torch.full((64,), LEAST_BURDEN)}
    action = torch.zeros(64, 4)
    action[:, 1] = 0.5
    state = world.initial(keys.from_seed(77, 64), told)
    after = world.transition(state, action)
    beats = []
    for some in (state, after):
        drawn = drawn_beat(world.vae, some.shape, some.recorded, world.observe(some), some.first_shape)
        beats.append(drawn.residual)
    moved = (beats[1] - beats[0]).abs()
    assert float((after.shape - state.shape).abs().mean()) > 0.05  # the latent moves, and ST and T with it
    assert float(moved[..., : J_POINT + 1].amax()) < 1e-6
    assert float(moved[..., J_POINT + 30 :].mean()) > 1e-3


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
