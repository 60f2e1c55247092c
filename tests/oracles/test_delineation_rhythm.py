"""Premature beats: the rate counts them, QT and its correction do not; what no heart made is not trusted."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from world_models import keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.morphology import default_morphology
from world_models.ecg.waveform import Intervals, beat_template, synthesise_ecg, tile

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
QT_MS = 390.0


def _of(*ms: float) -> Intervals:
    return Intervals.of(*(torch.tensor([v]) for v in ms))


def _with_premature(every: int, ventricular: bool, step: int = 400, coupling: int = 230) -> tuple[torch.Tensor, float]:
    """[1, 12, 5000] where each `every`-th normal beat is followed by a premature one and a full pause, and the rate."""
    place, beats, early, count = 150, [], [], 0
    while place < 4950:
        beats.append(place)
        count += 1
        if every and count % every == 0:
            early.append(place + coupling)
            place += step
        place += step
    normal, shape = _of(60.0, 160.0, 95.0, 210.0, 85.0), default_morphology(1)
    if ventricular:
        odd = -1.3 * default_morphology(1).roll(3, 1)
        odd[:, :, :2] = 0.0  # no P
        places = torch.tensor([[*early, 10_000]])
        eight = tile(beat_template(_of(60.0, 160.0, 160.0, 180.0, 90.0), odd), places, 5000)
        eight = eight + tile(beat_template(normal, shape), torch.tensor([beats]), 5000)
    else:
        eight = tile(beat_template(normal, shape), torch.tensor([sorted(beats + early)]), 5000)
    noise = 0.01 * keys.noise(keys.from_seed(3, 1), 0, "noise", (8, 5000))
    together = sorted(beats + early)
    return derive_twelve(eight + noise), 60.0 * 500 * (len(together) - 1) / (together[-1] - together[0])


@pytest.mark.parametrize("ventricular", [True, False])
@pytest.mark.parametrize(("every", "before_ms"), [(4, 800.0), (6, 800.0), (2, 1140.0), (1, 1140.0)])
def test_premature_beats_count_for_the_rate_and_not_for_qt(ventricular, every, before_ms):
    """In bigeminy and trigeminy the undisturbed normal beats follow a pause: it is what corrects their QT."""
    ecg, rate = _with_premature(every, ventricular)
    got = delineate(ecg, 500.0)
    assert got.trusted and float(got.heart_rate_bpm) == pytest.approx(rate, rel=0.01)
    assert float(got.qt_ms) == pytest.approx(QT_MS, abs=16) and float(got.qrs_ms) == pytest.approx(95, abs=10)
    assert float(got.before_rr_ms) == pytest.approx(before_ms, rel=0.035)
    corrected = float(got.qt_ms) / (float(got.before_rr_ms) / 1000) ** (1 / 3)
    assert float(got.qtcf_ms) == pytest.approx(corrected, abs=0.1)
    assert int(got.ectopic_beats) == {4: 2, 6: 1, 2: 4, 1: 6}[every]


def test_without_premature_beats_nothing_is_set_apart():
    ecg, rate = _with_premature(0, False)
    got = delineate(ecg, 500.0)
    assert int(got.ectopic_beats) == 0 and float(got.before_rr_ms) == pytest.approx(float(got.rr_ms), abs=0.1)
    assert float(got.heart_rate_bpm) == pytest.approx(rate, abs=0.1)


def _regular(rate: float) -> torch.Tensor:
    places = torch.arange(150.0, 5000.0, 30_000 / rate).round().long()[None]
    eight = tile(beat_template(_of(rate, 60.0, 60.0, 60.0, 40.0), default_morphology(1)), places, 5000)
    return derive_twelve(eight + 0.01 * keys.noise(keys.from_seed(3, 1), 0, "noise", (8, 5000)))


@pytest.mark.parametrize("rate", [180, 240, 280, 295, 300, 320, 350])
def test_beats_too_close_to_be_told_apart_are_not_every_third_of_them(rate):
    got = delineate(_regular(float(rate)), 500.0)
    assert not got.trusted or float(got.heart_rate_bpm) == pytest.approx(rate, rel=0.01)
    assert got.measurable == (rate < 290)


@pytest.mark.parametrize("dropped", [(3,), (3, 7), (5, 6)])
def test_a_pause_does_not_correct_the_qt_of_the_beats_without_one(dropped):
    places = torch.tensor([[place for i, place in enumerate(range(150, 4950, 400)) if i not in dropped]])
    eight = tile(beat_template(_of(75.0, 160.0, 95.0, 210.0, 85.0), default_morphology(1)), places, 5000)
    got = delineate(derive_twelve(eight + 0.01 * keys.noise(keys.from_seed(3, 1), 0, "noise", (8, 5000))), 500.0)
    rate = 60 * 500 * (places.shape[1] - 1) / float(places[0, -1] - places[0, 0])
    assert got.trusted and float(got.heart_rate_bpm) == pytest.approx(rate, rel=0.01)
    assert float(got.before_rr_ms) == pytest.approx(800, abs=2)
    assert float(got.qtcf_ms) == pytest.approx(QT_MS / 0.8 ** (1 / 3), abs=8)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_that_moves_the_marks_is_not_trusted(hz):
    plain, _ = _with_premature(0, False)
    wave = torch.sin(2 * math.pi * hz * torch.arange(5000) / 500 + torch.arange(8)[:, None])
    size = torch.tensor([0.5, 1.0, 0.2, 0.4, 0.7, 0.9, 1.1, 0.8])[:, None]
    for mv in (0.02, 0.05, 0.13, 0.2, 0.4):
        got = delineate(plain + derive_twelve((mv * size * wave)[None]), 500.0)
        assert got.measurable and float(got.heart_rate_bpm) == pytest.approx(75, abs=0.5)
        assert got.trusted == (mv <= 0.05)
        assert not got.trusted or float(got.qt_ms) == pytest.approx(QT_MS, abs=12)


@pytest.mark.parametrize("mv", [1.0, 5.0, 15.0])
@pytest.mark.parametrize("samples", [1, 2])
def test_pacemaker_spikes_in_every_lead_are_no_qrs(mv, samples):
    plain, rate = _with_premature(0, False)
    size = torch.tensor([0.5, 1.0, 0.3, 0.6, 0.9, 1.0, 0.8, 0.5])
    spikes = torch.zeros(1, 8, 5000)
    for r in range(150, 4950, 400):
        for before in (24, 24 + 80):  # in samples before R: at the QRS onset, and at the P wave
            spikes[0, :, r - before : r - before + samples] = mv * size[:, None]
    got, without = delineate(plain + derive_twelve(spikes), 500.0), delineate(plain, 500.0)
    assert got.trusted and float(got.heart_rate_bpm) == pytest.approx(rate, rel=0.005)
    for name in ("qt_ms", "qrs_ms", "pr_ms", "qtcf_ms"):
        assert float(getattr(got, name)) == pytest.approx(float(getattr(without, name)), abs=4), name


def test_an_electrode_that_moves_is_no_beat():
    ecg, rate = _with_premature(0, False)
    push = torch.exp(-0.5 * ((torch.arange(120) - 60) / 8.0) ** 2)
    for place in (1030, 2640):
        ecg[:, 8:10, place : place + 120] += 2.5 * push  # V3 and V4, between two beats
    got = delineate(ecg, 500.0)
    assert float(got.heart_rate_bpm) == pytest.approx(rate, abs=0.2) and int(got.ectopic_beats) == 0


def _twelve(trace: torch.Tensor) -> torch.Tensor:
    return trace.expand(12, -1).clone()


def _pink(luck: torch.Generator, *shape: int, slope: float = 1.0) -> torch.Tensor:
    spectrum = torch.fft.rfft(torch.randn(*shape, 5000, generator=luck))
    f = torch.arange(spectrum.shape[-1]).clamp_min(5) / 10.0
    x = torch.fft.irfft(spectrum / f ** (slope / 2), n=5000)
    return x / x.std(-1, keepdim=True)


def _no_ecgs() -> dict[str, torch.Tensor]:
    luck = torch.Generator().manual_seed(5)
    time = torch.arange(5000) / 500.0
    sizes = torch.linspace(-1, 1.5, 12)[:, None]
    found = {"ramp": _twelve(time / 10), "constant": torch.full((12, 5000), 0.7)}
    for hz in (0.5, 1.0, 1.2, 2.0, 3.0, 5.0, 8.0, 10.0, 17.0, 25.0, 40.0, 50.0, 60.0):
        turn = 2 * math.pi * hz * time
        shapes = {
            "sine": turn.sin(),
            "square": (turn + 0.1).sin().sign(),
            "sawtooth": 2 * ((hz * time) % 1) - 1,
            "triangle": 4 * ((hz * time) % 1 - 0.5).abs() - 1,
            "pulses": ((hz * time) % 1 < 0.03).float(),
            "bells": torch.exp(-0.5 * (((hz * time) % 1 - 0.5) / hz / 0.02) ** 2),
        }
        for name, trace in shapes.items():
            found[f"{name} {hz:g}"] = _twelve(trace)
            found[f"{name} {hz:g}, sizes and noise"] = sizes * trace + 0.01 * torch.randn(12, 5000, generator=luck)
            found[f"{name} {hz:g}, much noise"] = trace + 0.1 * torch.randn(12, 5000, generator=luck)
        found[f"sine {hz:g}, phases"] = torch.stack([(turn + p).sin() for p in torch.linspace(0, 5, 12)])
    for hz in (50.0, 60.0):
        found[f"hum {hz:g}"] = _twelve(sum((2 * math.pi * hz * k * time).sin() / k for k in (1, 2, 3, 4)))
    for i in range(4):
        found[f"white {i}"] = 0.2 * torch.randn(12, 5000, generator=luck)
        found[f"white, one trace {i}"] = _twelve(0.2 * torch.randn(5000, generator=luck))
        found[f"pink {i}"], found[f"brown {i}"] = 0.3 * _pink(luck, 12), 0.3 * _pink(luck, 12, slope=2.0)
        drift = torch.cumsum(10 + 0.4 * _pink(luck, slope=2.0), 0) / 500
        alpha = (2 * math.pi * drift).sin() * (1 + 0.5 * _pink(luck, slope=2.0))
        sources = torch.stack([_pink(luck), alpha, _pink(luck)])
        found[f"EEG {i}"] = 0.05 * torch.randn(12, 3, generator=luck) @ sources
    return found


@pytest.mark.slow
def test_what_no_heart_made_is_neither_trusted_nor_measurable():
    signals = _no_ecgs()
    for convention, step in (("tangent", 1), ("reader", 4)):
        names, rows = list(signals)[::step], torch.stack(list(signals.values())[::step])
        got = delineate(rows, 500.0, convention)
        assert [name for name, row in zip(names, got.trusted, strict=True) if row] == []
        assert [name for name, row in zip(names, got.measurable, strict=True) if row] == []


def test_a_heart_is_measurable_with_hum_on_it_with_a_wrong_gain_and_a_swapped_electrode():
    truth = Intervals.of(*(torch.full((6,), v) for v in (72.0, 160.0, 95.0, 210.0, 85.0)))
    ecg = synthesise_ecg(keys.from_seed(4, 6), 0, truth, default_morphology(6), noise_uv=15.0)
    hum = 0.3 * (2 * math.pi * 50 * torch.arange(5000) / 500).sin()
    ecg[0] += derive_twelve(torch.linspace(-1, 1, 8)[None, :, None] * hum)[0]
    ecg[1] *= torch.linspace(0.3, 3.0, 12)[:, None]  # each lead scaled by itself
    one, two, three = ecg[2, :3].clone()
    ecg[2, :6] = torch.stack([-one, three, two, (one - three) / 2, -one - (three - -one) / 2, (two + three) / 2])
    ecg[3, 4] = 0.0
    ecg[4] *= 0.2
    got = delineate(ecg, 500.0)
    assert got.measurable.all() and got.heart_rate_bpm.sub(72).abs().max() < 0.5
    assert got.trusted[1:].all() and got.qt_ms[1:].sub(QT_MS).abs().max() < 8
    assert not got.trusted[0]  # such hum stands in the median beat and moves the QRS's ends by 60 ms


@pytest.mark.skipif(not (DATA / "ludb").is_dir(), reason=f"needs LUDB at {DATA / 'ludb'} (or CLINENV_DATA)")
def test_extrasystoles_of_real_recordings_against_manual_marks():
    """Over the stretch that is marked, all beats are found and the rate is the marks'; the extrasystoles are named."""
    from world_models.data.ecg import ludb

    with (DATA / "ludb" / "ludb.csv").open(newline="", encoding="utf-8-sig") as file:
        names = [row["ID"].strip() for row in csv.DictReader(file) if row["Extrasystolies"].strip()]
    named = 0
    for name in names:
        record = ludb.read_record(DATA / "ludb", name)
        got = delineate(record.ecg_mv[None], 500.0)
        marks = np.sort(record.beats["II"].qrs_peak)
        found = got.r_samples[0][got.r_samples[0] >= 0].numpy()
        spacing = np.diff(found)
        assert float(got.heart_rate_bpm) == pytest.approx(30_000 / spacing.mean(), abs=0.1)
        inside = found[(found > marks[0] - 60) & (found < marks[-1] + 60)]
        assert len(inside) == len(marks), name
        assert np.diff(inside).mean() == pytest.approx(np.diff(marks).mean(), rel=0.01), name
        named += int(got.ectopic_beats) > 0
    assert len(names) == 9 and named >= 8


def _real() -> list[Path]:
    folders = [DATA / name for name in ("ecg_12lead", "ludb", "ptbxl")]
    return [path.with_suffix("") for folder in folders for path in sorted(folder.rglob("*.hea"))[:40]]


@pytest.mark.skipif(not _real(), reason=f"no recordings in {DATA} (set CLINENV_DATA)")
def test_real_recordings_are_measurable():
    from world_models.data.ecg.wfdb.reader import read_ecg

    got = delineate(torch.stack([read_ecg(path).ecg_mv for path in _real()]), 500.0)
    assert got.measurable.all() and got.trusted.float().mean() > 0.88
