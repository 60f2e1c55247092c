"""Bends of canonical beats: what they leave alone, what is measured of them, and gradients through what is asked."""

import pytest
import torch

from world_models import keys
from world_models.ecg.beat_axis import J_POINT, T_PEAK, from_canonical, piece_ends
from world_models.ecg.t_bend import TShape, unbent
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.bending import asked_for, bent

# Amplitude by a factor, the others too: half way to what dofetilide does at its peak.
FACTORS = torch.tensor([0.75, 1.5, 1.08, 1.2, 1.2])


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Drawn beats whose T waves can be read."""
    beats = BeatSource(tmp_path_factory.mktemp("beats"), drawn=64).drawn
    known = beats.t_wave.isfinite().all(-1) & (beats.t_wave[:, 1] < 0.6)
    return beats.take(known.nonzero().squeeze(-1)[:32])


def measured(beat: torch.Tensor, intervals: torch.Tensor) -> torch.Tensor:
    """T measures [B, 5] of canonical beats at intervals [B, 5]."""
    _, pr, qrs, jt, tail = intervals.unbind(-1)
    drawn = from_canonical(beat, piece_ends(pr, qrs, jt, tail), torch.full_like(pr, 30.0), 480, 500.0)
    marks = TMarks(0 * qrs, qrs, qrs + jt, qrs + jt + tail)
    return torch.stack(t_wave(drawn, marks, 500.0, 30), dim=-1)


def test_any_bend_leaves_the_beat_up_to_the_j_point_and_the_place_of_the_peak(pool):
    beat, (jt, tail) = pool.beat, pool.intervals[:, 3:].unbind(-1)
    none = bent(beat, unbent(len(beat)), jt, tail)
    assert (none - beat)[..., : T_PEAK + 32].abs().max() < 2e-3
    key = keys.from_seed(4, len(beat))
    left, right = ((0.5 * keys.normal(key, 0, name, (5,))).exp() for name in ("left", "right"))
    shape = TShape(torch.full((len(beat),), 2.0), torch.zeros(len(beat)), left, right)
    changed = bent(beat, shape, jt, tail)
    assert torch.equal(changed[..., :J_POINT], beat[..., :J_POINT])
    torch.testing.assert_close(changed[..., T_PEAK], 2.0 * beat[..., T_PEAK], rtol=1e-3, atol=1e-3)
    assert (changed - none).abs().amax((1, 2)).min() > 0.01


def test_a_beat_asked_for_another_t_wave_measures_it(pool):
    wanted = pool.t_wave * FACTORS
    off = (measured(asked_for(pool.beat, wanted, pool.intervals), pool.intervals) - wanted).abs()
    assert (off[:, 0] / wanted[:, 0]).median() < 0.02
    assert (off[:, 1:].median(0).values < torch.tensor([0.03, 0.02, 2.0, 2.0])).all()


def test_what_is_measured_follows_what_is_asked_for(pool):
    wanted = (pool.t_wave * FACTORS).requires_grad_(True)
    read = measured(asked_for(pool.beat, wanted, pool.intervals), pool.intervals)
    for i in range(5):
        (slope,) = torch.autograd.grad(read[:, i].nan_to_num().sum(), wanted, retain_graph=True)
        assert slope.isfinite().all()
        assert 0.6 < float(slope[:, i].median()) < 1.4, (i, slope[:, i].median())
