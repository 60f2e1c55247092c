"""The canonical time axis: there and back, and decoded beats that have the intervals they were asked for."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import keys
from world_models.ecg.morphology import default_morphology
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template
from world_models.ecg_wm import beats

AT_R, LENGTH = 300, 801


def some_intervals(count: int, seed: int = 0) -> Intervals:
    key = keys.from_seed(seed, count)

    def between(name: str, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * keys.uniform(key, 0, name)

    return Intervals.of(
        between("hr", 45, 110),
        between("pr", 110, 260),
        between("qrs", 75, 130),
        between("jt", 160, 300),
        between("tt", 60, 130),
    )


def ends_of(i: Intervals) -> torch.Tensor:
    return beats.piece_ends(i.pr_ms, i.qrs_ms, i.jt_peak_ms, i.tpeak_tend_ms)


def test_there_and_back_is_the_same_beat():
    intervals = some_intervals(32)
    template = beat_template(intervals, default_morphology(32))
    onset = AT_R - R_SHARE * intervals.qrs_ms / 2
    canonical = beats.to_canonical(template, ends_of(intervals), onset, 500.0)
    back = beats.from_canonical(canonical, ends_of(intervals), onset, LENGTH, 500.0)
    assert (back - template).abs().max() < 0.1  # the steepest flank of R; elsewhere far less:
    assert (back - template).square().mean().sqrt() < 0.006


def test_a_shape_warped_to_other_intervals_has_them():
    start, goal = some_intervals(16, 0), some_intervals(16, 1)
    shape = default_morphology(16)
    canonical = beats.to_canonical(
        beat_template(start, shape), ends_of(start), AT_R - R_SHARE * start.qrs_ms / 2, 500.0
    )
    onset = AT_R - R_SHARE * goal.qrs_ms / 2
    warped = beats.from_canonical(canonical, ends_of(goal), onset, LENGTH, 500.0)
    truth = beat_template(goal, shape)
    # T's peak in lead V4 falls where the goal's intervals put it, within one sample.
    late = AT_R + 60
    assert (warped[:, 5, late:].argmax(-1) - truth[:, 5, late:].argmax(-1)).abs().max() <= 1


@given(pr=st.floats(80, 350), qrs=st.floats(60, 180), jt=st.floats(100, 450), tail=st.floats(40, 180))
@settings(max_examples=60, deadline=None)
def test_anchors_rise_and_span_the_intervals(pr, qrs, jt, tail):
    ends = beats.piece_ends(*(torch.tensor([v]) for v in (pr, qrs, jt, tail)))[0]
    assert (ends.diff() > 0).all()
    torch.testing.assert_close(ends[6] - ends[3], torch.tensor(qrs + jt + tail), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(ends[3] - ends[1], torch.tensor(pr), rtol=1e-5, atol=1e-3)


def test_overlap_with_neighbours_is_marked():
    intervals = some_intervals(8)
    alone = beats.valid_samples(ends_of(intervals), torch.full((8,), 3000.0))
    crowded = beats.valid_samples(ends_of(intervals), intervals.qt_ms + 0.5 * intervals.pr_ms)
    assert (
        alone.all()
        and not crowded[:, : beats.PIECES[0]].any()
        and crowded[:, beats.QRS_START : beats.QRS_START + 40].all()
    )
