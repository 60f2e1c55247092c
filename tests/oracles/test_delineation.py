"""The delineator against drawn truth, manual marks, and hostile input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from world_models import keys
from world_models.ecg.delineation.delineate import CONVENTIONS, delineate, median_beats
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.morphology import MorphologyBank, default_morphology
from world_models.ecg.waveform import (
    WAVES,
    Intervals,
    beat_template,
    synthesise_ecg,
    tile,
)

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
MEASURED = ("rr_ms", "pr_ms", "qrs_ms", "qt_ms", "jt_peak_ms", "tpeak_tend_ms", "quality")


def _drawn(count: int, seed: int = 3, fs: float = 500.0, seconds: float = 10.0, noise_uv: float = 15.0):
    key = keys.from_seed(seed, count)

    def between(name: str, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * keys.uniform(key, 0, name)

    rate = between("rate", 45.0, 130.0)
    rr = 60000.0 / rate
    qrs, tail = between("qrs", 80.0, 130.0), between("tail", 60.0, 120.0)
    jt = (between("qtcf", 370.0, 480.0) * (rr / 1000.0) ** (1 / 3) - qrs - tail).clamp_min(90.0)
    pr = torch.minimum(between("pr", 120.0, 230.0), (rr - qrs - jt - tail).clamp_min(100.0))
    truth = Intervals.of(rate, pr, qrs, jt, tail)
    morphology = MorphologyBank.load().sample(keys.fold(key, "morphology"))
    ecg = synthesise_ecg(
        key, 0, truth, morphology, seconds=seconds, sampling_rate_hz=fs, noise_uv=noise_uv, wander_uv=50.0
    )
    return ecg, truth


@pytest.fixture(scope="module")
def drawn():
    return _drawn(96)


@pytest.fixture(scope="module")
def found(drawn):
    return delineate(drawn[0], 500.0)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("qt_ms", 5.0),
        ("tpeak_tend_ms", 5.0),
        ("pr_ms", 5.5),
        ("qrs_ms", 8.0),
        ("jt_peak_ms", 8.0),
        ("heart_rate_bpm", 0.3),
    ],
)
def test_drawn_truth_is_measured(drawn, found, name, limit):
    error = (getattr(found, name) - getattr(drawn[1], name)).abs()
    assert not error.isnan().any()
    assert error.mean() <= limit, f"{name}: mean absolute error {error.mean():.2f}, limit {limit}"


def test_identities_and_trust(found):
    assert found.trusted.all() and (found.quality > 0.8).all()
    torch.testing.assert_close(found.qt_ms, found.qrs_ms + found.jt_peak_ms + found.tpeak_tend_ms)
    rr = found.rr_ms / 1000
    torch.testing.assert_close(found.qtcf_ms, found.qt_ms / rr ** (1 / 3))
    torch.testing.assert_close(found.jt_peak_c_ms, found.jt_peak_ms / rr**0.58)
    assert found.median_beat.shape == (96, 8, 725)
    assert all(x.dtype == torch.float32 for x in found[:10])
    for r in found.r_samples:
        assert (r[r >= 0].diff() > 0).all() and (r[(r >= 0).sum() :] == -1).all()


@pytest.mark.parametrize(("fs", "seconds"), [(250.0, 10.0), (1000.0, 5.0), (257.0, 7.3), (100.0, 10.0)])
def test_other_rates_and_lengths(fs, seconds):
    ecg, truth = _drawn(24, seed=8, fs=fs, seconds=seconds)
    got = delineate(ecg, fs)
    assert (got.qt_ms - truth.qt_ms).abs().nanmedian() < (12.0 if fs == 100.0 else 7.0)
    assert (got.heart_rate_bpm - truth.heart_rate_bpm).abs().median() < 1.0
    last = got.r_samples.amax()
    assert 0 < last < ecg.shape[-1]


def test_a_row_does_not_depend_on_the_batch(drawn, found):
    for i in (0, 17, 95):
        alone = delineate(drawn[0][i : i + 1], 500.0)
        for name in MEASURED:
            torch.testing.assert_close(getattr(alone, name), getattr(found, name)[i : i + 1], rtol=0, atol=1e-2)
        torch.testing.assert_close(alone.r_samples[0], found.r_samples[i])


def test_scale_does_not_matter(drawn, found):
    for factor in (0.5, 2.0):
        scaled = delineate(drawn[0][:16] * factor, 500.0)
        for name in MEASURED:
            torch.testing.assert_close(getattr(scaled, name), getattr(found, name)[:16], rtol=0, atol=0.1)


def test_eight_leads_serve_as_twelve(drawn, found):
    eight = drawn[0][:8, [0, 1, 6, 7, 8, 9, 10, 11]]
    torch.testing.assert_close(delineate(eight, 500.0).qt_ms, found.qt_ms[:8], rtol=0, atol=1e-2)


def test_a_lost_row_poisons_no_other(drawn, found):
    ecg = drawn[0][:8].clone()
    ecg[2] = torch.nan
    ecg[5] = 0.0
    ecg[6] = torch.inf
    got = delineate(ecg, 500.0)
    for i in (2, 5, 6):
        assert not got.trusted[i] and got.quality[i] == 0 and got.qt_ms[i].isnan() and (got.r_samples[i] == -1).all()
    for i in (0, 1, 3, 4, 7):
        torch.testing.assert_close(got.qt_ms[i], found.qt_ms[i], rtol=0, atol=1e-2)


def test_lost_leads_are_left_out_and_flagged(drawn, found):
    ecg = drawn[0][:16].clone()
    ecg[:, 8] = torch.nan
    ecg[:, 10] = 0.3
    ecg[:, 6, 100:150] = torch.nan  # a hundredth of the samples: the lead still serves
    got = delineate(ecg, 500.0)
    assert (got.quality < found.quality[:16]).all()
    assert (got.qt_ms - found.qt_ms[:16]).abs().median() < 5
    limb = drawn[0][:16].clone()
    limb[:, 1] = torch.nan  # lead II is made again from I and III
    torch.testing.assert_close(delineate(limb, 500.0).qt_ms, found.qt_ms[:16], rtol=0, atol=0.5)
    dead = drawn[0][:4].clone()
    dead[:, 1:] = 0.0
    assert (delineate(dead, 500.0).quality < 0.7).all()


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_noise_a_flat_lead_and_two_seconds_are_flagged(drawn, convention):
    noise = keys.noise(keys.from_seed(1, 8), 0, "noise", (12, 5000)) * 0.2
    got = delineate(noise, 500.0, convention)
    assert not got.trusted.any() and (got.quality < 0.5).all()
    whole = delineate(drawn[0][:16], 500.0, convention).quality
    ecg = drawn[0][:16].clone()
    ecg[:, 8] = 0.2
    assert (delineate(ecg, 500.0, convention).quality < whole - 0.05).all()
    truth = Intervals.of(
        torch.tensor([60.0, 70.0, 80.0] * 2), *(torch.full((6,), x) for x in (160.0, 95.0, 200.0, 85.0))
    )
    ecg = synthesise_ecg(keys.from_seed(2, 6), 0, truth, default_morphology(6), noise_uv=15.0)
    for nothing in (0.0, torch.nan):
        ecg[..., 1000:] = nothing
        got = delineate(ecg, 500.0, convention)
        assert not got.trusted.any() and (got.quality < 0.5).all()


def test_fibrillation_has_no_pr_and_is_not_trusted():
    count = 16
    key = keys.from_seed(77, count)
    ones = torch.ones(count)
    truth = Intervals.of(90 * ones, 150 * ones, 95 * ones, 180 * ones, 85 * ones)
    morphology = default_morphology(count)
    morphology[:, :, :2] = 0.0  # no P
    r = torch.cumsum((0.42 + 0.6 * keys.uniform(key, 0, "rr", (30,))) * 500, dim=-1).long()
    time = torch.arange(5000) / 500.0
    wave = 6.0 + keys.uniform(key, 0, "f") * 2.0
    phase = torch.cumsum(0.15 * keys.normal(key, 0, "drift", (5000,)), dim=-1)
    flutter = 0.04 * torch.sin(2 * torch.pi * wave.unsqueeze(-1) * time + phase)
    eight = tile(beat_template(truth, morphology), r, 5000) + flutter.unsqueeze(1)
    got = delineate(derive_twelve(eight + 0.015 * keys.noise(key, 0, "noise", (8, 5000))), 500.0)
    assert got.pr_ms.isnan().float().mean() >= 0.9
    assert got.trusted.float().mean() <= 0.1
    assert (got.qrs_ms.isfinite()).all()


def _series(truth: Intervals, morphology: torch.Tensor, r: torch.Tensor, samples: int = 5000) -> torch.Tensor:
    """Eight leads with beats at the samples r [K] or [B, K] and 10 uV of noise."""
    count = len(morphology)
    r = r.expand(count, -1).contiguous()
    noise = keys.noise(keys.from_seed(6, count), 0, "noise", (8, samples))
    return tile(beat_template(truth, morphology), r, samples) + 0.01 * noise


def _same(count: int, *ms: float) -> Intervals:
    return Intervals.of(*(torch.full((count,), x) for x in ms))


def test_a_reader_is_not_led_by_one_lead_full_of_fibrillation():
    count = 16
    key = keys.from_seed(77, count)
    morphology = default_morphology(count)
    morphology[:, :, :2] = 0.0  # no P
    morphology[:, 2, WAVES.index("QRS_1") : WAVES.index("QRS_8") + 1] *= 0.15  # V1's QRS is small
    r = torch.cumsum((0.62 + 0.5 * keys.uniform(key, 0, "rr", (24,))) * 500, dim=-1).long()
    eight = _series(_same(count, 75.0, 150.0, 130.0, 180.0, 85.0), morphology, r)
    phase = torch.cumsum(0.1 * keys.normal(key, 0, "drift", (5000,)), dim=-1)
    wave = torch.sin(2 * torch.pi * 6 * torch.arange(5000) / 500.0 + phase)
    stirred = eight.clone()
    stirred[:, 2:4] += wave.unsqueeze(1) * torch.tensor([0.08, 0.03]).view(1, 2, 1)
    calm, got = (delineate(derive_twelve(x), 500.0, "reader") for x in (eight, stirred))
    assert (got.qrs_onset_ms - calm.qrs_onset_ms).abs().max() < 10
    assert (got.qt_ms - calm.qt_ms).abs().max() < 15


def test_a_pacing_spike_in_some_leads_is_not_the_qrs_onset():
    morphology = default_morphology(4)
    morphology[:, :, :2] = 0.0
    r = torch.arange(1, 13) * 428 - 200
    eight = _series(_same(4, 70.0, 150.0, 150.0, 190.0, 90.0), morphology, r)
    calm = delineate(derive_twelve(eight), 500.0, "reader")
    for place in (r + round(float(calm.qrs_onset_ms[0]) / 2) - 20).tolist():
        if place >= 0:
            eight[:, [0, 5, 6], place : place + 12] += 0.3 * torch.tensor([1.0] * 6 + [-1.0] * 6)
    got = delineate(derive_twelve(eight), 500.0, "reader")
    assert (got.qrs_onset_ms - calm.qrs_onset_ms).abs().max() < 10
    assert (got.qt_ms - calm.qt_ms).abs().max() < 10


@pytest.mark.parametrize(("convention", "limit"), [("tangent", 14.0), ("reader", 20.0)])
def test_where_rr_is_irregular_no_p_wave_is_taken_out_of_t(convention, limit):
    count = 16
    morphology = default_morphology(count)
    morphology[:, :, WAVES.index("P")] = 0.2
    rr = 60.0 / 110.0 * (0.75 + 0.5 * keys.uniform(keys.from_seed(77, count), 0, "rr", (40,)))
    truth = _same(count, 110.0, 180.0, 95.0, 170.0, 80.0)
    eight = _series(truth, morphology, torch.cumsum(rr * 500, dim=-1).long())
    error = (delineate(derive_twelve(eight), 500.0, convention).qt_ms - truth.qt_ms).abs()
    assert error.median() < limit


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_one_false_beat_does_not_close_the_search_for_t(convention):
    r = 450 + 500 * torch.arange(6)
    truth = _same(4, 60.0, 160.0, 95.0, 220.0, 90.0)
    eight = _series(truth, default_morphology(4), r, samples=2000)
    false = torch.exp(-0.5 * ((torch.arange(100) - 50) / 6.0) ** 2)
    eight[:, :, 1525:1625] += false * torch.tensor([1.0, -1.0] * 4).view(1, 8, 1)
    got = delineate(derive_twelve(eight), 500.0, convention)
    assert ((got.r_samples >= 0).sum(-1) == 4).all()  # the three whole beats and the false one
    assert (got.qt_ms - truth.qt_ms).abs().max() < 25


def test_in_one_lead_the_next_p_wave_is_not_taken_for_a_low_t():
    morphology = default_morphology(8)
    t = [WAVES.index(name) for name in ("ST", "ST_T", "T")]
    morphology[:, :, WAVES.index("P")] = 0.12 * morphology[:, :, WAVES.index("T")].sign()
    morphology[:, :, t] *= 0.4
    truth = _same(8, 90.0, 280.0, 95.0, 170.0, 80.0)
    ecg = derive_twelve(_series(truth, morphology, 100 + 333 * torch.arange(15)))
    ecg[:, [0, *range(2, 12)]] = 0.0  # lead II alone
    got = delineate(ecg, 500.0, "reader")
    assert (got.qt_ms - truth.qt_ms).abs().max() < 25 and (got.t_peak_ms < 300).all()


def test_a_long_qt_is_not_drawn_to_the_usual():
    key = keys.from_seed(31, 96)
    rate = 50.0 + 30.0 * keys.uniform(key, 0, "rate")
    qrs, tail = 80.0 + 60.0 * keys.uniform(key, 0, "qrs"), 80.0 + 70.0 * keys.uniform(key, 0, "tail")
    qt = torch.minimum(560.0 + 80.0 * keys.uniform(key, 0, "qt"), 60000.0 / rate - 160.0)
    truth = Intervals.of(rate, torch.full((96,), 150.0), qrs, qt - qrs - tail, tail)
    morphology = MorphologyBank.load().sample(keys.fold(key, "morphology"))
    for convention in CONVENTIONS:
        got = delineate(synthesise_ecg(key, 0, truth, morphology, noise_uv=15.0), 500.0, convention)
        assert ((got.qt_ms - truth.qt_ms).abs() > 40).float().mean() < 0.03


def test_in_one_lead_the_qrs_offset_is_not_a_rest_within_the_qrs():
    """A lead whose R wave rests for 30 ms on its way down."""
    eight = torch.zeros(1, 8, 5000)
    time = torch.arange(-150, 350) * 2.0
    shape = torch.exp(-0.5 * (time / 8) ** 2) + 0.6 * torch.exp(-0.5 * ((time - 70) / 8) ** 2)
    shape = shape + 0.25 * torch.exp(-0.5 * ((time - 300) / 45) ** 2)
    for r in range(300, 4600, 500):
        eight[0, 1, r - 150 : r + 350] += shape
    eight += 0.003 * keys.noise(keys.from_seed(3, 1), 0, "noise", (8, 5000)) * (torch.arange(8) == 1).view(1, 8, 1)
    got = delineate(eight, 500.0, "reader")
    assert 80 < got.qrs_ms < 150 and 360 < got.t_end_ms < 460


def test_ectopic_beats_do_not_move_the_median_beat(drawn, found):
    ecg = drawn[0][:16].clone()
    for i in range(16):
        r = int(found.r_samples[i, 4])
        window = slice(r - 60, r + 90)
        bump = torch.exp(-0.5 * ((torch.arange(150) - 70) / 25.0) ** 2)
        ecg[i, :, window] = -1.5 * ecg[i, :, r : r + 1] * bump
    got = delineate(ecg, 500.0)
    assert (got.qt_ms - found.qt_ms[:16]).abs().median() < 3
    assert (got.qrs_ms - found.qrs_ms[:16]).abs().median() < 3


def test_median_beats_for_the_encoder(drawn, found):
    ecg = drawn[0][:8]
    beat = median_beats(ecg, found.r_samples[:8], 500.0, 0.3, 0.6)
    assert beat.shape == (8, 8, 450) and beat.isfinite().all()
    size = beat.square().sum(1)
    assert ((size.argmax(-1) - 150).abs() <= 3).all()
    assert beat[:, :, 110:130].mean(-1).abs().max() < 0.05  # baseline
    torch.testing.assert_close(median_beats(ecg[3:4], found.r_samples[3:4], 500.0, 0.3, 0.6)[0], beat[3])
    none = median_beats(ecg, torch.full((8, 5), -1), 500.0, 0.3, 0.6)
    assert (none == 0).all()


def test_bad_input_is_refused(drawn):
    ecg = drawn[0][:1]
    with pytest.raises(ValueError, match="4 s"):
        delineate(ecg[..., :1500], 500.0)
    with pytest.raises(ValueError, match="100 Hz"):
        delineate(ecg, 50.0)
    with pytest.raises(ValueError, match=r"\[B, 12, T\]"):
        delineate(ecg[:, :3], 500.0)
    with pytest.raises(ValueError, match="tangent"):
        delineate(ecg, 500.0, "guess")
    with pytest.raises(ValueError, match="r_samples"):
        median_beats(ecg, torch.zeros(2, 3, dtype=torch.int64), 500.0, 0.3, 0.6)


def test_no_rows():
    got = delineate(torch.zeros(0, 12, 5000), 500.0)
    assert got.qt_ms.shape == (0,) and got.median_beat.shape == (0, 8, 725)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "ludb").is_dir(), reason=f"needs LUDB at {DATA / 'ludb'} (or CLINENV_DATA)")
def test_manual_marks_of_real_recordings():
    pytest.importorskip("wfdb")
    from benchmarks.ecg_drug.delineation import INTERVALS, read_ludb

    _, ecg, lead_ii, all_leads = read_ludb(DATA / "ludb", halves=(0,))
    got = delineate(torch.tensor(ecg, dtype=torch.float32), 500.0, "reader")
    assert set(CONVENTIONS) == {"tangent", "reader"}
    for marks, limits in ((all_leads, (6.5, 6.0, 6.5)), (lead_ii, (6.5, 8.0, 8.5))):
        for column, (name, limit) in enumerate(zip(INTERVALS, limits, strict=True)):
            error = np.abs(getattr(got, name).numpy() - marks[:, column])
            known = np.isfinite(marks[:, column])
            assert np.median(np.where(np.isfinite(error), error, np.inf)[known]) <= limit, name
    assert got.trusted.float().mean() > 0.85
