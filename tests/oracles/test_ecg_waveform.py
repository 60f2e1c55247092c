"""The drawn ECG measures what was asked for, by means that know nothing of how it was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from world_models import keys
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
from world_models.ecg.morphology import MorphologyBank, default_morphology
from world_models.ecg.waveform import (
    R_SHARE,
    WAVES,
    Intervals,
    beat_samples,
    beat_template,
    sample_times_ms,
    synthesise_ecg,
    tile,
    true_fiducials,
    wave_basis,
)


def intervals_of(key, heart_rate=(45.0, 130.0)):
    u = keys.uniform(key, 0, "test", (5,))
    low, high = heart_rate
    return Intervals.of(
        low + (high - low) * u[:, 0], 100 + 200 * u[:, 1], 70 + 90 * u[:, 2], 120 + 180 * u[:, 3], 55 + 90 * u[:, 4]
    )


def rows(intervals, index):
    return Intervals(*(x[index] for x in intervals))


def tangent_foot(t, x, peak, step):
    """Where the tangent at the steepest point on one side of the peak meets zero (t uniform)."""
    slope = np.gradient(x, t)
    side = np.arange(peak, min(len(x), peak + step)) if step > 0 else np.arange(max(0, peak + step), peak)
    steepest = side[np.argmax(np.abs(slope[side]))]
    return t[steepest] - x[steepest] / slope[steepest]


@pytest.fixture(scope="module")
def cohort():
    key = keys.from_seed(5, 40)
    return key, intervals_of(key), MorphologyBank.load().sample(key)


def test_einthoven_and_order(cohort):
    key, intervals, morphology = cohort
    ecg = synthesise_ecg(key, 0, intervals, morphology, noise_uv=15.0, wander_uv=60.0)
    assert ecg.shape == (40, 12, 5000) and ecg.dtype == torch.float32
    lead = {name: ecg[:, i] for i, name in enumerate(LEADS)}
    assert (lead["II"] - lead["I"] - lead["III"]).abs().max() < 1e-6
    assert (lead["aVR"] + lead["aVL"] + lead["aVF"]).abs().max() < 2e-6
    assert (lead["aVR"] + (lead["I"] + lead["II"]) / 2).abs().max() < 1e-6
    assert (lead["aVL"] - (lead["I"] - lead["III"]) / 2).abs().max() < 2e-6
    eight = torch.stack([lead[name] for name in INDEPENDENT_LEADS], dim=1)
    assert torch.equal(derive_twelve(eight), ecg)


def test_isolated_beat_measures_what_was_asked(cohort):
    """T by its peak and tangent, P by its tangent, QRS by its support, lead by lead, on a 4 kHz grid."""
    _, intervals, morphology = cohort
    rate = 4000.0
    beats = beat_template(intervals, morphology, rate).numpy().astype(np.float64)
    bare = morphology.clone()
    bare[..., [i for i, name in enumerate(WAVES) if not name.startswith("QRS")]] = 0
    qrs_only = beat_template(intervals, bare, rate).numpy()
    t = sample_times_ms(rate).numpy().astype(np.float64)
    checked = 0
    for b in range(beats.shape[0]):
        pr, qrs, qt, jt_peak, tpeak_tend = (float(x[b]) for x in intervals[1:])
        drawn = np.flatnonzero(np.abs(qrs_only[b]).max(0) > 0)
        assert t[drawn[-1]] - t[drawn[0]] == pytest.approx(qrs, abs=0.6)
        onset, j_point = t[drawn[0]], t[drawn[-1]]
        for lead in range(8):
            x = beats[b, lead]
            late = np.flatnonzero(t > j_point + 0.5 * jt_peak)
            if abs(float(morphology[b, lead, WAVES.index("T")])) > 0.1:
                peak = late[np.argmax(np.abs(x[late]))]
                end = tangent_foot(t, x, peak, 2000)
                assert t[peak] - j_point == pytest.approx(jt_peak, abs=1.0)
                assert end - t[peak] == pytest.approx(tpeak_tend, abs=1.0)
                assert end - onset == pytest.approx(qt, abs=1.0)
                checked += 1
            if INDEPENDENT_LEADS[lead] != "V1" and float(morphology[b, lead, WAVES.index("P")]) > 0.03:
                early = np.flatnonzero(t < onset)
                p_peak = early[np.argmax(np.abs(x[early]))]
                assert onset - tangent_foot(t, x, p_peak, -2000) == pytest.approx(pr, abs=1.0)
                checked += 1
    assert checked > 350


def test_drawn_strip_measures_what_was_asked(cohort):
    """On the noise-free 500 Hz strip itself, lead II, a beat whose T and P stand free."""
    key, _, morphology = cohort
    intervals = intervals_of(key, heart_rate=(50.0, 62.0))
    strip = synthesise_ecg(key, 0, intervals, morphology, hrv_ms=20.0)[:, 1].numpy().astype(np.float64)
    r = beat_samples(key, 0, intervals.heart_rate_bpm, hrv_ms=20.0)
    truth = true_fiducials(intervals, r)
    t = np.arange(5000) * 2.0
    height = morphology[:, 1, WAVES.index("T")]
    checked = 0
    for b in range(40):
        if height[b].abs() < 0.1 or intervals.qt_ms[b] + intervals.pr_ms[b] > 600:
            continue
        k = int(torch.nonzero(r[b] >= 1000)[0])
        onset_ms = 2.0 * float(truth.qrs_onset[b, k])
        low, high = int(truth.qrs_offset[b, k]) + 20, int(truth.t_offset[b, k]) + 60
        peak = low + int(np.argmax(np.abs(strip[b, low:high])))
        assert 2.0 * peak == pytest.approx(2.0 * float(truth.t_peak[b, k]), abs=2.0)
        assert tangent_foot(t, strip[b], peak, 90) - onset_ms == pytest.approx(float(intervals.qt_ms[b]), abs=2.0)
        checked += 1
    assert checked >= 8


def test_intervals_sum_and_fiducials(cohort):
    key, intervals, _ = cohort
    assert torch.equal(intervals.qt_ms, intervals.qrs_ms + intervals.jt_peak_ms + intervals.tpeak_tend_ms)
    truth = true_fiducials(intervals, beat_samples(key, 0, intervals.heart_rate_bpm))
    assert torch.allclose((truth.t_offset - truth.qrs_onset) * 2, intervals.qt_ms.unsqueeze(-1), atol=2e-2)
    assert torch.allclose((truth.qrs_onset - truth.p_onset) * 2, intervals.pr_ms.unsqueeze(-1), atol=2e-2)
    assert torch.allclose((truth.r - truth.qrs_onset) * 2, R_SHARE * intervals.qrs_ms.unsqueeze(-1), atol=2e-2)


@pytest.mark.parametrize("hrv_ms", [0.0, 25.0, 200.0])
def test_mean_rr_is_exact_to_the_sample(hrv_ms):
    key = keys.from_seed(1, 500)
    rate = 20.0 + 230.0 * keys.uniform(key, 0, "rate")
    r = beat_samples(key, 3, rate, hrv_ms=hrv_ms)
    assert (r[:, 1:] > r[:, :-1]).all()
    inside = (r >= 0) & (r < 5000)
    count = inside.sum(1)
    first = torch.where(inside, r, 10**6).amin(1)
    last = torch.where(inside, r, -1).amax(1)
    assert (((last - first) - (count - 1) * 500 * 60.0 / rate).abs() <= 1.01).all()
    assert ((r < 0).sum(1) >= 3).all() and ((r >= 5000).sum(1) >= 3).all()


def test_hrv_has_the_size_asked_for_and_is_the_keys():
    key = keys.from_seed(2, 300)
    rate = torch.full((300,), 65.0)
    r = beat_samples(key, 0, rate, seconds=120.0, hrv_ms=30.0).double()
    sd = ((r[:, 6:-6].diff(dim=1)) * 2).std(dim=1)
    assert 27 < float(sd.mean()) < 33
    assert torch.equal(r, beat_samples(key, 0, rate, seconds=120.0, hrv_ms=30.0).double())
    assert not torch.equal(r, beat_samples(key, 1, rate, seconds=120.0, hrv_ms=30.0).double())


@pytest.mark.parametrize("size", [1, 7])
def test_row_of_a_batch_equals_the_patient_alone(size):
    key = keys.from_seed(9, 64)
    intervals = intervals_of(key, heart_rate=(30.0, 220.0))
    morphology = MorphologyBank.load().sample(key)
    hrv = 10.0 + 40.0 * keys.uniform(key, 0, "hrv")
    when = torch.arange(64)
    options = {"noise_uv": 15.0, "wander_uv": 50.0}
    whole = synthesise_ecg(key, when, intervals, morphology, hrv_ms=hrv, **options)
    assert torch.isfinite(whole).all()
    for start in (0, 13, 50):
        part = slice(start, start + size)
        alone = synthesise_ecg(
            key[part], when[part], rows(intervals, part), morphology[part], hrv_ms=hrv[part], **options
        )
        assert torch.equal(alone, whole[part])
    assert torch.equal(MorphologyBank.load().sample(key[5:6])[0], morphology[5])


def test_tile_is_superposition():
    """At 200 bpm up to four beats overlap: compared with adding each shifted beat in turn."""
    key = keys.from_seed(4, 3)
    intervals = intervals_of(key, heart_rate=(150.0, 240.0))
    template = beat_template(intervals, default_morphology(3))
    r = beat_samples(key, 0, intervals.heart_rate_bpm, hrv_ms=15.0)
    at_r = int(torch.argmin(sample_times_ms().abs()))
    expected = np.zeros((3, 8, 5000))
    for b in range(3):
        for beat in r[b].tolist():
            start = beat - at_r
            low, high = max(start, 0), min(start + template.shape[2], 5000)
            if low < high:
                expected[b, :, low:high] += template[b, :, low - start : high - start].numpy()
    assert np.abs(tile(template, r, 5000).numpy() - expected).max() < 2e-6


def test_noise_and_wander_have_the_size_asked_for(cohort):
    key, intervals, morphology = cohort
    clean = synthesise_ecg(key, 0, intervals, morphology)
    noise = synthesise_ecg(key, 0, intervals, morphology, noise_uv=15.0) - clean
    assert float(noise[:, 6:].std()) * 1000 == pytest.approx(15.0, rel=0.02)
    wander = synthesise_ecg(key, 0, intervals, morphology, wander_uv=50.0) - clean
    assert float(wander[:, 6:].pow(2).mean().sqrt()) * 1000 == pytest.approx(50.0, rel=0.2)
    power = torch.fft.rfft(wander[:, 6:]).abs().pow(2).mean((0, 1))
    assert float(power[:11].sum() / power.sum()) > 0.95  # below 1 Hz
    assert torch.equal(clean, synthesise_ecg(key, 0, intervals, morphology))


@pytest.mark.parametrize("rate", [100.0, 250.0, 1000.0])
def test_other_sampling_rates_draw_the_same_beat(rate):
    key = keys.from_seed(3, 2)
    intervals = intervals_of(key)
    fine = beat_template(intervals, default_morphology(2), 1000.0)
    other = beat_template(intervals, default_morphology(2), rate)
    step = int(1000 / rate)
    assert torch.allclose(fine[..., ::step], other, atol=1e-5)
    assert synthesise_ecg(key, 0, intervals, default_morphology(2), sampling_rate_hz=rate).shape == (
        2,
        12,
        int(10 * rate),
    )


def test_basis_and_template_agree_and_are_differentiable():
    key = keys.from_seed(6, 4)
    intervals = Intervals(*(x.requires_grad_() for x in intervals_of(key)))
    morphology = default_morphology(4).requires_grad_()
    template = beat_template(intervals, morphology)
    mixed = (morphology.unsqueeze(-1) * wave_basis(intervals).unsqueeze(1)).sum(2)
    assert torch.allclose(template, mixed, atol=1e-6)
    derive_twelve(template).pow(2).sum().backward()
    for gradient in (morphology.grad, intervals.pr_ms.grad, intervals.qrs_ms.grad, intervals.jt_peak_ms.grad):
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_bad_heart_rate_is_named():
    key = keys.from_seed(0, 2)
    for bad in (0.0, float("nan"), 900.0):
        with pytest.raises(ValueError, match="heart_rate_bpm"):
            beat_samples(key, 0, torch.tensor([60.0, bad]))


def test_empty_batch():
    key = keys.from_seed(0, 0)
    intervals = Intervals(*(torch.zeros(0) for _ in range(6)))
    assert synthesise_ecg(key, 0, intervals, default_morphology(0)).shape == (0, 12, 5000)
