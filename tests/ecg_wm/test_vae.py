"""The beat autoencoder before any training: its linear part, missing leads, sizes, and what is kept beside it.

A drawn ECG reads as its chart, the shipped world's too; the prior over beat shapes draws none that no beat has.
"""

import copy

import pytest
import torch

from benchmarks.ecg_drug.beats_read import READ, Request, dosed_charts, missed, missing_of
from world_models import catalog, keys
from world_models.ecg.beat_axis import J_POINT
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.waveform import beat_template
from world_models.ecg_wm import recorded
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beat_training import lay_linear, lay_prior
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.recorded import INTERVALS, Recorded
from world_models.ecg_wm.synthesis import drawn_beat, synthesise
from world_models.ecg_wm.t_measures import T_MEASURES, standardised
from world_models.ecg_wm.vae import EXAMPLES, SIZE_SD, BeatVAE
from world_models.oracles.ecg_drug.cohorts import FACTORS

# In READ's order: ms, logarithm of the amplitude, scores, ms.
LIMITS = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.05, 0.03, 0.02, 2.0, 2.0])

LEAST_BURDEN = next(q.low for q in FACTORS if q.name == "baseline_burden")


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """A VAE with its linear part laid, and the beats it was laid by."""
    source = BeatSource(tmp_path_factory.mktemp("beats"), drawn=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = BeatVAE(SMALL).requires_grad_(False)
    lay_linear(vae, source)
    lay_prior(vae, source)
    return vae, source.drawn


def likeness(a: torch.Tensor, b: torch.Tensor, dims=(1, 2)) -> torch.Tensor:
    return (a * b).sum(dims) / (a.square().sum(dims) * b.square().sum(dims)).sqrt()


def test_the_linear_part_alone_keeps_the_beats(laid):
    vae, pool = laid
    mean, log_variance = vae.encode(pool.beat, pool.leads, pool.samples)
    assert mean.shape == log_variance.shape == (256, SMALL.morphology)
    r = likeness(vae.shape(mean), pool.beat * vae.taper)
    assert r.median() > 0.99 and r.quantile(0.1) > 0.95
    assert (mean.std(0)[1:] < 1.5).all()


def test_the_size_of_a_beat_is_the_first_latent_and_no_other(laid):
    vae, pool = laid
    one, two = (vae.encode(k * pool.beat, pool.leads, pool.samples)[0] for k in (1.0, 2.0))
    assert torch.allclose(two[:, 0] - one[:, 0], torch.tensor(2.0).log() / SIZE_SD, atol=1e-3)
    assert torch.allclose(two[:, 1:], one[:, 1:], atol=1e-3)


def test_lost_leads_are_rebuilt_from_the_others(laid):
    vae, pool = laid
    leads = pool.leads.clone()
    leads[:, [1, 4]] = False
    broken = torch.where(leads.unsqueeze(-1), pool.beat, torch.nan)
    mean, _ = vae.encode(broken, leads, pool.samples)
    r = likeness(vae.shape(mean)[:, [1, 4]], (pool.beat * vae.taper)[:, [1, 4]])
    assert r.median() > 0.9


def test_rows_are_encoded_and_decoded_alike_in_any_batch(laid):
    vae, pool = laid
    some = pool.take(torch.arange(20))
    whole, _ = vae.encode(some.beat, some.leads, some.samples)
    alone = torch.cat([vae.encode(some.beat[i : i + 1], some.leads[:1], some.samples[i : i + 1])[0] for i in range(20)])
    torch.testing.assert_close(whole, alone, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(vae.shape(whole)[3:4], vae.shape(whole[3:4]), rtol=1e-4, atol=1e-4)


def test_a_generated_patient_has_a_beat_whose_t_wave_is_near_the_one_asked_for(laid):
    vae, pool = laid
    key = keys.from_seed(1, 64)
    asked = vae_asked = pool.t_wave[:64]
    near = (vae.prior(key, asked) - vae.prior(key)).abs().amax(-1) > 0
    assert near.float().mean() > 0.5
    which = torch.floor(keys.uniform(key, 0, "beat_example", (12,)) * len(vae.examples)).long()
    away = (vae.example_t_wave[which] - standardised(vae_asked).unsqueeze(1)).square().sum(-1)
    assert away.amin(-1).mean() < 0.5 * away[:, 0].mean()


def as_recorded(vae, pool, count: int = 24) -> tuple[torch.Tensor, Recorded, dict[str, torch.Tensor]]:
    some = pool.take(torch.arange(count))
    mean, _ = vae.encode(some.beat, some.leads, some.samples)
    kept = Recorded(some.beat - vae.shape(mean), some.t_wave, some.intervals)
    chart = dict(zip(INTERVALS, some.intervals.unbind(-1), strict=True))
    return mean, kept, chart | dict(zip(T_MEASURES, some.t_wave.unbind(-1), strict=True))


def test_a_recorded_beat_is_drawn_as_it_was_and_its_qrs_stays_when_the_t_wave_changes(laid):
    vae, pool = laid
    mean, kept, chart = as_recorded(vae, pool)
    drawn = drawn_beat(vae, mean, kept, chart)
    truth = pool.beat[:24]
    assert (drawn.residual - truth).abs().max() < 1e-3
    plain = beat_template(drawn.intervals, None, residual=truth)
    before = beat_template(drawn.intervals, None, t_shape=drawn.t_shape, residual=drawn.residual)
    r = likeness(plain, before)
    assert r.median() > 0.99 and r.min() > 0.9
    changed = {**chart, "t_amplitude_uv": 0.5 * chart["t_amplitude_uv"], "erd_30_ms": chart["erd_30_ms"] + 20}
    drugged = drawn_beat(vae, mean, kept, changed)
    assert (drugged.residual - truth)[..., :J_POINT].abs().max() < 1e-5
    after = beat_template(drugged.intervals, None, t_shape=drugged.t_shape, residual=drugged.residual)
    late = 300 + 80  # samples: 160 ms after R
    smaller = after[..., late:].abs().amax((1, 2)) < 0.8 * before[..., late:].abs().amax((1, 2))
    assert smaller.float().mean() > 0.7


def test_the_residual_fades_with_the_t_wave_and_generated_patients_have_none(laid):
    vae, pool = laid
    _, kept, _ = as_recorded(vae, pool)
    near = recorded.kept(kept, kept.t_wave)
    far = recorded.kept(kept, kept.t_wave * torch.tensor([0.3, 3.0, 1.3, 1.6, 1.6]))
    torch.testing.assert_close(near, kept.residual)
    assert torch.equal(far[..., :J_POINT], kept.residual[..., :J_POINT])
    assert far[..., J_POINT + 20 :].abs().sum() < 0.6 * near[..., J_POINT + 20 :].abs().sum()
    nothing = Recorded.nothing(kept.t_wave)
    assert not recorded.kept(nothing, kept.t_wave).any()


def test_who_fibrillates_has_no_p_wave_and_an_irregular_rhythm_and_the_others_keep_theirs(laid):
    vae, pool = laid
    mean, kept, chart = as_recorded(vae, pool, 8)
    slow = {**chart, "heart_rate_bpm": torch.full((8,), 70.0)}
    gone = {**slow, "pr_ms": torch.where(torch.arange(8) < 4, torch.nan, slow["pr_ms"])}
    key = keys.from_seed(0, 8)
    plain = synthesise(vae, mean, kept, key, torch.zeros_like(key), slow)
    waving = synthesise(vae, mean, kept, key, torch.zeros_like(key), gone, torch.arange(8) < 4)
    assert plain.shape == waving.shape == (8, 12, 5000) and waving.isfinite().all()
    torch.testing.assert_close(plain[4:], waving[4:])
    read = delineate(waving, 500.0)
    assert read.pr_ms[:4].isnan().float().mean() > 0.7 and read.pr_ms[4:].isfinite().float().mean() > 0.7
    assert (plain[:4] - waving[:4]).abs().amax((1, 2)).min() > 0.05


def test_an_ecg_hardly_depends_on_its_batch(laid):
    vae, pool = laid
    mean, kept, chart = as_recorded(vae, pool, 12)
    key = keys.from_seed(3, 12)
    whole = synthesise(vae, mean, kept, key, torch.zeros_like(key), chart)
    parts = []
    for i in range(12):
        few, mine = {name: value[i : i + 1] for name, value in chart.items()}, Recorded(*(x[i : i + 1] for x in kept))
        parts.append(synthesise(vae, mean[i : i + 1], mine, key[i : i + 1], torch.zeros_like(key[i : i + 1]), few))
    off = (whole - torch.cat(parts)).abs().amax((1, 2))  # mV
    # The decoder rounds by the batch in the last digit; the search for the T wave's bend may end elsewhere for it.
    assert off.median() < 0.001 and off.max() < 0.05, off


def test_a_decoders_ecg_reads_as_a_dosed_patients_chart(laid):
    vae, _ = laid
    key = keys.from_seed(123, 96)
    chart = dosed_charts(key)
    shape = vae.prior(key, torch.stack([chart[name] for name in T_MEASURES], dim=-1))
    off = missing_of(vae, Request(shape, Recorded.nothing(shape), chart), key).abs()
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
