"""ECGs drawn as they are to be read, on drawn beats and on recorded ones that keep their own shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.contract.test_rounding import Watch
from world_models import keys
from world_models.data.ecg import ludb
from world_models.ecg.as_read import drawn_as_asked, drawn_as_read
from world_models.ecg.beat_axis import SAMPLES
from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.likeness import aligned_correlation, beat_windows
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.recorded import beat_of, t_wave_factors
from world_models.ecg.t_wave import TWave, measure_t_wave
from world_models.ecg.waveform import Intervals, synthesise_ecg
from world_models.oracles.ecg_drug.drawing import t_wave_of
from world_models.oracles.ecg_drug.world import ECGDrugOracle

LUDB = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ludb"
INTERVALS = ("pr_ms", "qrs_ms", "qt_ms", "jt_peak_ms", "tpeak_tend_ms")
# In the order of TWave: amplitude in per cent, the others in their units.
LIMITS = (5.0, 0.03, 0.02, 2.0, 2.0)


def asked(count):
    u = keys.uniform(keys.from_seed(21, count), 0, "asked", (10,))
    jt = 190 + 110 * u[:, 3]
    intervals = Intervals.of(50 + 30 * u[:, 0], 130 + 60 * u[:, 1], 80 + 25 * u[:, 2], jt, 68 + 40 * u[:, 4])
    # As the trial's people have them without drug and at the peak of dofetilide; skewed waves are flatter and broader.
    s = u[:, 9]
    wanted = TWave(
        250 + 500 * u[:, 5], 0.1 + 0.2 * s, 0.38 + 0.1 * s, 40 + 14 * s + 3 * u[:, 6], 0.36 * intervals.tpeak_tend_ms
    )
    return intervals, wanted


def check(ecg, intervals, wanted):
    found, read = delineate(ecg, 500.0), measure_t_wave(ecg).t_wave
    for name in INTERVALS:
        assert float((getattr(found, name) - getattr(intervals, name)).abs().nanmedian()) < 1.0, name
    for name, value, want, limit in zip(TWave._fields, read, wanted, LIMITS, strict=True):
        off = (value - want).abs() * (100.0 / want if name == "amplitude_uv" else 1.0)
        assert float(off.nanmedian()) < limit, name


def test_drawn_beats_are_read_as_asked():
    intervals, wanted = asked(32)
    key = keys.from_seed(2, 32)
    morphology = MorphologyBank.load().sample(key)
    drawn = drawn_as_asked(intervals, morphology, wanted)
    check(synthesise_ecg(key, 0, drawn.intervals, morphology, t_shape=drawn.t_shape), intervals, wanted)


def test_without_a_t_wave_asked_for_the_intervals_are_still_read_as_asked():
    intervals, _ = asked(24)
    key = keys.from_seed(3, 24)
    morphology = MorphologyBank.load().sample(key)
    drawn = drawn_as_asked(intervals, morphology)
    found = delineate(synthesise_ecg(key, 0, drawn.intervals, morphology, t_shape=drawn.t_shape), 500.0)
    for name in INTERVALS:
        assert float((getattr(found, name) - getattr(intervals, name)).abs().nanmedian()) < 1.0, name


def test_a_row_is_planned_alike_in_every_batch():
    intervals, wanted = asked(11)
    morphology = MorphologyBank.load().sample(keys.from_seed(4, 11))
    with Watch() as watch:
        whole = drawn_as_asked(intervals, morphology, wanted)
    assert not watch.found, watch.found
    for rows in (slice(2, 3), slice(4, 9)):
        few = Intervals(*(x[rows] for x in intervals))
        part = drawn_as_asked(few, morphology[rows], TWave(*(x[rows] for x in wanted)))
        for a, b in zip((*whole.intervals, *whole.t_shape), (*part.intervals, *part.t_shape), strict=True):
            assert torch.equal(a[rows], b)


def test_the_oracle_takes_the_chart_s_t_wave_where_there_is_one():
    names = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
    assert t_wave_of({"qt_ms": torch.zeros(1)}) is None
    told = t_wave_of({n: torch.full((1,), float(i)) for i, n in enumerate(names)})
    assert [float(x) for x in told] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def recorded():
    if not LUDB.is_dir():
        pytest.skip("needs LUDB in ../shared/data/ludb")
    records = []
    for record in ludb.iterate(LUDB):
        if not record.pacing and all("sinus" in line.lower() for line in record.rhythm):
            records.append(record.ecg_mv)
        if len(records) == 40:
            break
    ecg = torch.stack(records)
    found = delineate(ecg, 500.0)
    good = found.trusted & ~found.pr_ms.isnan()
    return ecg[good], Delineation(*(x[good] for x in found))


def test_a_recorded_beat_is_kept_before_a_dose_and_its_qrs_after(recorded):
    _, found = recorded
    beat, own = beat_of(found), TWave(*t_wave_factors(found).values())
    assert beat["residual_mv"].shape[1:] == (8, SAMPLES)
    intervals = Intervals.of(*(getattr(found, n) for n in Intervals._fields if n != "qt_ms"))
    longer = Intervals.of(*intervals[:3], intervals.jt_peak_ms + 40.0, intervals.tpeak_tend_ms + 15.0)
    # What dofetilide does to the trial's people at its peak.
    other = TWave(
        0.6 * own.amplitude_uv, own.asymmetry + 0.1, own.flatness + 0.05, own.erd_30_ms + 15, own.lrd_30_ms + 9
    )
    whole, qrs = beat_windows(found)
    key = keys.from_seed(6, len(found.pr_ms))
    for changed, ask, wanted in ((False, intervals, own), (True, longer, other)):
        drawn = drawn_as_asked(ask, beat["morphology"], wanted, beat["residual_mv"])
        ecg = synthesise_ecg(
            key, 0, drawn.intervals, beat["morphology"], t_shape=drawn.t_shape, residual=drawn.residual
        )
        check(ecg, ask, wanted)
        after = delineate(ecg, 500.0).median_beat
        assert float(aligned_correlation(found.median_beat, after, qrs)[0].median()) > 0.99
        r = float(aligned_correlation(found.median_beat, after, whole)[0].median())
        assert (r > 0.995) != changed, r


def test_a_recorded_patient_of_the_oracle_keeps_his_beat(recorded):
    ecg, found = recorded
    world = ECGDrugOracle()
    state = world.initial(keys.from_seed(7, 4), world.read({"ecg_mv": ecg[:4]}) | {"baseline_burden": torch.zeros(4)})
    shown = delineate(world.observe(state, ("ecg_mv",))["ecg_mv"], 500.0).median_beat
    window = beat_windows(Delineation(*(x[:4] for x in found)))[0]
    assert (aligned_correlation(found.median_beat[:4], shown, window)[0] > 0.99).all()


def test_what_is_drawn_keeps_a_plain_beat_s_shape_without_residual():
    intervals, _ = asked(4)
    morphology = MorphologyBank.load().sample(keys.from_seed(4, 4))
    drawn, marks = drawn_as_read(intervals, morphology)
    zero, _ = drawn_as_read(intervals, morphology, torch.zeros(4, 8, SAMPLES))
    assert all(torch.equal(a, b) for a, b in zip(drawn, zero, strict=True))
    assert torch.allclose(marks.t_end - marks.t_peak, intervals.tpeak_tend_ms, atol=1e-3)
