"""Correlation of two beats at the shift where they are most alike."""

import pytest
import torch

from world_models.ecg.likeness import aligned_correlation
from world_models.ecg.morphology import default_morphology
from world_models.ecg.waveform import Intervals, beat_template


def a_beat() -> torch.Tensor:
    values = (torch.full((2,), v) for v in (60.0, 160.0, 90.0, 220.0, 85.0))
    return beat_template(Intervals.of(*values), default_morphology(2))[..., 100:700]


@pytest.mark.parametrize("shift", [-15, -4, 0, 9])
def test_the_same_beat_with_another_r_mark_is_the_same_beat(shift: int):
    beat = a_beat()
    r, found = aligned_correlation(beat, 1.7 * beat.roll(shift, -1))
    assert (r > 0.9999).all() and (found == shift).all()
    if abs(shift) > 3:
        assert ((beat * beat.roll(shift, -1)).sum() / beat.square().sum()) < 0.9


def test_a_turned_beat_and_a_flat_one():
    beat = a_beat()
    assert aligned_correlation(beat, -beat)[0].max() < 0.6
    assert not aligned_correlation(beat, torch.zeros_like(beat))[0].any()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two beats"):
        aligned_correlation(a_beat(), a_beat()[:1])
    with pytest.raises(ValueError, match="too short"):
        aligned_correlation(a_beat()[..., :40], a_beat()[..., :40])
