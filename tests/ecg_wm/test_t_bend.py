"""Bends of the T wave: what they leave alone, what they change, and a bender that learns to ask for the right one."""

import torch

from world_models import keys
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beat_training import asked_t_waves, train_bender
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.t_bend import J_POINT, T_PEAK, Bend, Bender, bent, missed
from world_models.ecg_wm.t_reading import read_t
from world_models.ecg_wm.vae import BeatVAE


def some(tmp_path, count: int = 48):
    """Drawn beats."""
    return BeatSource(tmp_path, drawn=128).batch(keys.from_seed(3, count))


def a_bend(count: int, size: float = 0.5) -> Bend:
    key = keys.from_seed(4, count)
    return Bend(size * keys.normal(key, 0, "early", (5,)), size * keys.normal(key, 0, "late", (4,)), torch.zeros(count))


def test_no_bend_changes_nothing_and_any_leaves_the_beat_up_to_the_j_point(tmp_path):
    beat = some(tmp_path).beat
    none = Bend(torch.zeros(48, 5), torch.zeros(48, 4), torch.zeros(48))
    assert (bent(beat, none) - beat).abs().max() < 1e-4
    changed = bent(beat, a_bend(48)._replace(log_gain=torch.full((48,), 0.7)))
    assert torch.equal(changed[..., :J_POINT], beat[..., :J_POINT])
    assert (changed[..., J_POINT:] - beat[..., J_POINT:]).abs().amax((1, 2)).min() > 0.01


def test_peak_and_polarity_stay_where_only_the_flanks_are_bent(tmp_path):
    beat = some(tmp_path).beat
    changed = bent(beat, a_bend(48))
    assert (changed[..., T_PEAK] - beat[..., T_PEAK]).abs().max() < 1e-3
    # The same path: every value of a bent wave stands between values of the wave that was.
    assert (changed[..., J_POINT:].amax(-1) <= beat[..., J_POINT:].amax(-1) + 1e-5).all()
    assert (changed[..., J_POINT:].amin(-1) >= beat[..., J_POINT:].amin(-1) - 1e-5).all()


def test_a_gain_is_read_as_amplitude_and_as_nothing_else(tmp_path):
    pool = some(tmp_path)
    before = read_t(pool.beat, pool.intervals).t_wave
    twice = Bend(torch.zeros(48, 5), torch.zeros(48, 4), torch.full((48,), 0.6931))
    after = read_t(bent(pool.beat, twice), pool.intervals).t_wave
    assert torch.allclose(after[:, 0], 2 * before[:, 0], rtol=0.02)
    assert (after - before)[:, 3:].nan_to_num().abs().median() < 1.0


def test_rows_do_not_depend_on_each_other(tmp_path):
    pool = some(tmp_path)
    bend = a_bend(48)
    whole = bent(pool.beat, bend)
    alone = torch.cat([bent(pool.beat[i : i + 1], Bend(*(x[i : i + 1] for x in bend))) for i in range(48)])
    assert torch.equal(whole, alone)


def test_an_untrained_bender_has_the_amplitude_and_a_short_training_brings_the_rest_nearer(tmp_path):
    source = BeatSource(tmp_path, drawn=128)
    pool = source.batch(keys.from_seed(9, 96))
    asked, times = asked_t_waves(keys.from_seed(10, 96), pool.t_wave, pool.intervals)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = BeatVAE(SMALL)
    vae.lay_basis(source.drawn.beat, torch.ones(128))

    def misses(bender: Bender) -> torch.Tensor:
        with torch.no_grad():
            return missed(read_t(bent(pool.beat, bender(pool.beat, asked, times)), times), asked).abs().median(0).values

    before = misses(vae.bender)
    assert before[0] * 0.03 < 0.1  # of the logarithm
    train_bender(vae, source, 40, 48, tmp_path)
    after = misses(vae.bender)
    assert after[1:].sum() < 0.8 * before[1:].sum(), (before, after)
