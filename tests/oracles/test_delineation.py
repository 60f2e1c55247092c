"""The delineator against drawn truth, manual marks, and hostile input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from world_models import keys
from world_models.oracles.delineation import CONVENTIONS, delineate, median_beats
from world_models.oracles.ecg_waveform import (
    Intervals,
    beat_template,
    derive_twelve,
    draw_ecg,
    tile,
)
from world_models.oracles.morphology import MorphologyBank, default_morphology

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
    morphology = MorphologyBank.load().draw(keys.fold(key, "morphology"))
    ecg = draw_ecg(key, 0, truth, morphology, seconds=seconds, sampling_rate_hz=fs, noise_uv=noise_uv, wander_uv=50.0)
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


def test_noise_is_not_trusted():
    noise = keys.noise(keys.from_seed(1, 8), 0, "noise", (12, 5000)) * 0.2
    got = delineate(noise, 500.0)
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


@pytest.mark.skipif(not (DATA / "ludb").is_dir(), reason=f"needs LUDB at {DATA / 'ludb'} (or CLINENV_DATA)")
def test_manual_marks_of_real_recordings():
    pytest.importorskip("wfdb")
    from benchmarks.delineation import INTERVALS, read_ludb

    _, ecg, lead_ii, all_leads = read_ludb(DATA / "ludb", halves=(0,))
    got = delineate(torch.tensor(ecg, dtype=torch.float32), 500.0, "reader")
    assert set(CONVENTIONS) == {"tangent", "reader"}
    for marks, limits in ((all_leads, (6.5, 6.0, 6.5)), (lead_ii, (6.5, 8.0, 8.5))):
        for column, (name, limit) in enumerate(zip(INTERVALS, limits, strict=True)):
            error = np.abs(getattr(got, name).numpy() - marks[:, column])
            known = np.isfinite(marks[:, column])
            assert np.median(np.where(np.isfinite(error), error, np.inf)[known]) <= limit, name
    assert got.trusted.float().mean() > 0.85
