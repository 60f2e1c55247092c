"""T-wave morphology: known truths of the measures, and drawn ECGs that measure what was asked."""

from __future__ import annotations

import math

import pytest
import torch

from tests.contract.test_rounding import Watch
from world_models import keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.morphology import MorphologyBank, default_morphology
from world_models.ecg.t_bend import own_place, unbent
from world_models.ecg.t_synthesis import shape_t_wave
from world_models.ecg.t_wave import KORS, Definition, TMarks, TWave, measure_t_wave, t_wave
from world_models.ecg.waveform import Intervals, beat_template, sample_times_ms, synthesise_ecg

LEADS = torch.tensor((0.2, 0.3, 0.05, 0.5, 0.45, 0.4, 0.3, 0.2))  # mV at the T peak
AT_R, T_PEAK_MS = 200, 300.0


def gaussian_beats(left_ms, right_ms, height=1.0):
    """Beats [B, 8, 700] at 500 Hz of nothing but a T wave, R at AT_R, and their marks; sigmas [B] ms."""
    left, right = torch.as_tensor(left_ms).reshape(-1, 1), torch.as_tensor(right_ms).reshape(-1, 1)
    t = (torch.arange(700) - AT_R) * 2.0 - T_PEAK_MS
    wave = torch.exp(-0.5 * (t / torch.where(t < 0, left, right)) ** 2)
    n = left.shape[0]
    marks = TMarks(*(torch.full((n,), x) for x in (-40.0, 50.0, T_PEAK_MS)), T_PEAK_MS + 2.0 * right.flatten())
    return height * wave.unsqueeze(1) * LEADS.view(1, 8, 1), marks


def read(beats, marks, **others):
    return t_wave(beats, marks, 500.0, AT_R, **others)


def intervals_of(key):
    u = keys.uniform(key, 0, "test", (5,))
    rate, jt = 50 + 25 * u[:, 0], 190 + 80 * u[:, 3]
    return Intervals.of(rate, 130 + 50 * u[:, 1], 80 + 25 * u[:, 2], jt, 62 + 26 * u[:, 4])


def asked(key):
    u = keys.uniform(key, 0, "asked", (5,))
    low, high = (250.0, 0.08, 0.38, 36.0, 28.0), (900.0, 0.25, 0.45, 48.0, 36.0)
    return TWave(*(a + (b - a) * u[:, i] for i, (a, b) in enumerate(zip(low, high, strict=True))))


@pytest.fixture(scope="module")
def drawn():
    key = keys.from_seed(11, 24)
    intervals, wanted = intervals_of(key), asked(key)
    morphology = MorphologyBank.load().sample(key)
    morphology[::2] = default_morphology(12)
    return key, intervals, wanted, morphology, shape_t_wave(intervals, morphology, wanted)


def test_a_gaussian_wave_measures_what_mathematics_says():
    found = read(*gaussian_beats([40.0, 55.0], [40.0, 30.0]))
    fall = math.sqrt(-2.0 * math.log(0.7))
    assert float(found.erd_30_ms[0]) == pytest.approx(40.0 * fall, abs=0.1)
    assert float(found.lrd_30_ms[0]) == pytest.approx(40.0 * fall, abs=0.1)
    # The smoothing moves the peak of a skewed wave to its slower side.
    assert float(found.erd_30_ms[1]) == pytest.approx(55.0 * fall, abs=2.0)
    assert float(found.lrd_30_ms[1]) == pytest.approx(30.0 * fall, abs=2.0)
    size = 1000.0 * float((torch.tensor(KORS) @ LEADS).square().sum().sqrt())
    assert found.amplitude_uv.numpy() == pytest.approx([size, size], rel=0.01)
    assert float(found.asymmetry[0]) < 0.002 < 0.1 < float(found.asymmetry[1])


def test_flatness_is_that_of_the_whole_gaussian_and_of_the_box():
    beats, marks = gaussian_beats([25.0], [25.0])
    whole = marks._replace(t_end_ms=marks.t_peak_ms + 150.0)
    assert float(read(beats, whole).flatness) == pytest.approx(1.0 / 3.0, abs=0.01)
    t = (torch.arange(700) - AT_R) * 2.0 - T_PEAK_MS
    # All but a box, its middle a touch higher so that there is a peak.
    box = ((t.abs() <= 90.0) * (1.0 - 1e-4 * t.abs())) * LEADS.view(1, 8, 1)
    assert float(read(box, whole).flatness) == pytest.approx(0.6, abs=0.01)


def test_amplitude_scales_and_the_shape_does_not():
    beats, marks = gaussian_beats([44.0, 60.0], [33.0, 40.0])
    one, half = read(beats, marks), read(0.5 * beats, marks)
    assert torch.allclose(half.amplitude_uv, 0.5 * one.amplitude_uv, rtol=1e-4)
    for a, b in zip(one[1:], half[1:], strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_inverted_leads_twelve_leads_and_a_shifted_baseline_change_nothing():
    beats, marks = gaussian_beats([44.0], [33.0])
    plain = read(beats, marks)
    i, ii = beats[:, 0], beats[:, 1]
    limb = torch.stack((i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2), dim=1)
    for other in (-beats, torch.cat((limb, beats[:, 2:]), dim=1), beats + 0.7):
        for a, b in zip(plain, read(other, marks), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_unknown_marks_and_missing_samples_are_nan_and_leave_the_other_rows():
    beats, marks = gaussian_beats([44.0, 44.0, 50.0], [33.0, 33.0, 40.0])
    alone = read(*gaussian_beats([50.0], [40.0]))
    beats[1, 3, 100] = torch.nan
    marks.t_end_ms[0] = torch.nan
    for whole, row in zip(read(beats, marks), alone, strict=True):
        assert whole[:2].isnan().all() and torch.equal(whole[2:], row)


def test_gradients_reach_the_beats_and_point_the_right_way():
    beats, marks = gaussian_beats([44.0, 52.0], [33.0, 40.0])
    gain = torch.ones(2, requires_grad=True)
    found = read(beats * gain[:, None, None], marks)
    (slope,) = torch.autograd.grad(found.amplitude_uv.sum(), gain)
    assert torch.allclose(slope, found.amplitude_uv, rtol=1e-3)
    width = torch.tensor([44.0, 52.0], requires_grad=True)
    wide, marks = gaussian_beats(width, [33.0, 40.0])
    found = read(wide, marks)
    for value in found[1:4]:
        (slope,) = torch.autograd.grad(value.sum(), width, retain_graph=True)
        assert torch.isfinite(slope).all() and (slope > 0).all()


def test_what_cannot_be_served_is_refused():
    beats, marks = gaussian_beats([44.0], [33.0])
    with pytest.raises(ValueError, match="beat_mv is"):
        t_wave(beats[:, :5], marks)
    with pytest.raises(ValueError, match="marks must be"):
        t_wave(beats, marks._replace(t_end_ms=torch.zeros(2)))


def test_a_recording_without_a_heart_has_no_t_wave(drawn):
    key, intervals, _, morphology, _ = drawn
    ecg = synthesise_ecg(key[:2], 0, Intervals(*(x[:2] for x in intervals)), morphology[:2], noise_uv=10.0)
    ecg[1] = keys.noise(key[1:2], 0, "nothing", (12, 5000))[0] * 0.1
    found = measure_t_wave(ecg)
    assert found.trusted.tolist() == [True, False]
    assert all(torch.isfinite(x[0]) and x[1].isnan() for x in found.t_wave)


def test_the_drawn_ecg_measures_the_t_wave_asked(drawn):
    key, intervals, wanted, morphology, shape = drawn
    found = measure_t_wave(synthesise_ecg(key, 0, intervals, morphology, t_shape=shape)).t_wave
    limits = (0.05 * wanted.amplitude_uv, 0.03, 0.02, 2.0, 2.0)
    for name, value, want, limit in zip(TWave._fields, found, wanted, limits, strict=True):
        assert float(((value - want).abs() / limit).median()) < 1.0, name
        assert float(((value - want).abs() <= limit).float().mean()) > 0.6, name


def test_bending_leaves_all_before_the_j_point(drawn):
    _, intervals, _, morphology, shape = drawn
    t = sample_times_ms(2000.0)
    plain, bent = beat_template(intervals, morphology, 2000.0), beat_template(intervals, morphology, 2000.0, shape)
    for b in range(plain.shape[0]):
        j_point = 0.58 * float(intervals.qrs_ms[b])
        before = t < j_point - 0.41 * float(intervals.qrs_ms[b])  # the ST level sets in within the QRS
        assert torch.equal(plain[b, :, before], bent[b, :, before])
        assert torch.allclose(plain[b, :, t < j_point], bent[b, :, t < j_point], atol=1e-6)


def test_the_bend_rises_and_keeps_j_point_and_peak(drawn):
    _, intervals, _, _, shape = drawn
    after = torch.arange(0.0, 900.0, 1.0)
    j_point, jt_peak, tail = (0.58 * intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms)
    place = own_place(after, *(x.unsqueeze(-1) for x in (j_point, jt_peak, tail)), shape)
    assert (place.diff(dim=-1) >= 0).all()
    at_j = own_place(j_point.unsqueeze(-1), *(x.unsqueeze(-1) for x in (j_point, jt_peak, tail)), shape)
    peak = (j_point + jt_peak + shape.shift_ms).unsqueeze(-1)
    at_peak = own_place(peak, *(x.unsqueeze(-1) for x in (j_point, jt_peak, tail)), shape)
    assert torch.allclose(at_j, torch.zeros_like(at_j), atol=1e-2)
    assert torch.allclose(at_peak, torch.full_like(at_peak, 96.0), atol=1e-2)


def test_the_delineator_reads_peak_and_end_where_they_were_asked(drawn):
    key, intervals, _, morphology, shape = drawn
    found = delineate(synthesise_ecg(key, 0, intervals, morphology, t_shape=shape), 500.0)
    # R of the delineator is not R of the generator: marks are compared by their distances.
    end = (found.t_end_ms - found.t_peak_ms) - intervals.tpeak_tend_ms
    assert float(end.abs().median()) < 1.0
    plain = delineate(synthesise_ecg(key, 0, intervals, morphology), 500.0)
    assert float((found.qrs_ms - plain.qrs_ms).abs().median()) < 1.0
    assert float((found.pr_ms - plain.pr_ms).abs().median()) < 1.0
    assert (
        float((found.t_peak_ms - found.qrs_onset_ms - (intervals.qt_ms - intervals.tpeak_tend_ms)).abs().median()) < 3.5
    )


def test_a_row_is_shaped_and_drawn_alike_in_every_batch(drawn):
    key, intervals, wanted, morphology, shape = drawn
    with Watch() as watch:
        shape_t_wave(intervals, morphology, wanted)
        ecg = synthesise_ecg(key, 0, intervals, morphology, t_shape=shape)
    assert not watch.found, watch.found
    for rows in (slice(3, 4), slice(5, 12)):
        few = Intervals(*(x[rows] for x in intervals))
        alone = shape_t_wave(few, morphology[rows], TWave(*(x[rows] for x in wanted)))
        for whole, part in zip(shape, alone, strict=True):
            assert torch.equal(whole[rows], part)
        assert torch.equal(ecg[rows], synthesise_ecg(key[rows], 0, few, morphology[rows], t_shape=alone))


def test_the_unbent_shape_is_the_wave_as_drawn(drawn):
    _, intervals, _, morphology, _ = drawn
    plain, bent = beat_template(intervals, morphology), beat_template(intervals, morphology, 500.0, unbent(24))
    assert torch.allclose(plain, bent, atol=2e-3)  # the table is read along straight lines


def test_what_is_left_open_is_open_and_nonsense_is_refused(drawn):
    _, intervals, wanted, morphology, _ = drawn
    nan = torch.full_like(wanted.amplitude_uv, torch.nan)
    shape = shape_t_wave(intervals, morphology, TWave(nan, nan, nan, wanted.erd_30_ms, nan))
    assert all(torch.isfinite(x).all() for x in shape) and (shape.gain == 1.0).all()
    with pytest.raises(ValueError, match="erd_30_ms"):
        shape_t_wave(intervals, morphology, wanted._replace(erd_30_ms=-wanted.erd_30_ms))


def test_nobody_to_draw_is_an_empty_shape():
    empty = torch.zeros(0)
    intervals, wanted = Intervals(*(empty for _ in range(6))), TWave(*(empty for _ in range(5)))
    shape = shape_t_wave(intervals, default_morphology(0), wanted)
    assert all(x.shape[0] == 0 for x in shape)
    assert synthesise_ecg(keys.from_seed(1, 0), 0, intervals, default_morphology(0), t_shape=shape).shape[0] == 0


def test_another_definition_reads_another_number():
    beats, marks = gaussian_beats([44.0], [33.0])
    half = read(beats, marks, definition=Definition(level=0.5))
    assert float(half.erd_30_ms) == pytest.approx(44.0 * math.sqrt(2.0 * math.log(2.0)), abs=1.0)
