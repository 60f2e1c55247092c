"""Atrial fibrillation on the oracle's ECG: how often, how fast, what the chart and a delineator say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from world_models import keys, tree
from world_models.data.ecg import ludb
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.fibrillation import fibrillation_beats, fibrillation_waves
from world_models.oracles.ecg_drug.fibrillation import ventricular_rate
from world_models.oracles.ecg_drug.world import ECGDrugOracle

LUDB = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ludb"
DRUGS = ("ranolazine", "dofetilide", "verapamil", "quinidine")


@pytest.fixture(scope="module")
def world():
    return ECGDrugOracle("persistent")


@pytest.fixture(scope="module")
def fibrillating(world):
    state = world.initial(keys.from_seed(3, 24), {"admission_fibrillation": torch.ones(24)})
    return state, world.observe(state, ("ecg_mv",))


def test_fibrillation_shows_on_the_burden_s_share_of_ecgs(world):
    for burden in (0.0, 0.2, 0.75, 1.0):
        state = world.initial(keys.from_seed(5, 4000), {"baseline_burden": torch.full((4000,), burden)})
        chart = world.observe(state)
        assert float(chart["atrial_fibrillation"].mean()) == pytest.approx(burden, abs=0.02)
        assert torch.equal(chart["pr_ms"].isnan(), chart["atrial_fibrillation"] > 0)
    later = world.observe(world.transition(state, torch.zeros(4000, 4)))
    assert float(later["atrial_fibrillation"].mean()) == pytest.approx(
        float(later["arrhythmia_burden"].mean()), abs=0.02
    )


def test_the_qtcf_is_that_of_sinus_rhythm_and_the_identities_hold(world):
    key = keys.from_seed(8, 500)
    sinus, waving = (
        world.observe(world.initial(key, {"admission_fibrillation": torch.full((500,), x)})) for x in (0.0, 1.0)
    )
    assert torch.allclose(waving["qtcf_ms"], sinus["qtcf_ms"], atol=0.01)
    rr = 60.0 / waving["heart_rate_bpm"]
    total = waving["qrs_ms"] + waving["jt_peak_ms"] + waving["tpeak_tend_ms"]
    assert torch.allclose(waving["qt_ms"], total, atol=1e-3)
    assert torch.allclose(waving["qtcf_ms"], waving["qt_ms"] / rr ** (1 / 3), atol=1e-3)
    assert 95 < float(waving["heart_rate_bpm"].mean()) < 120 and float(sinus["heart_rate_bpm"].mean()) < 80


def test_verapamil_slows_it_by_concentration_and_the_others_hardly():
    own, sinus = torch.full((4,), 110.0), torch.full((4,), 70.0)
    level = torch.tensor([0.0, 50.0, 130.0, 400.0])
    for i, (drug, low, high) in enumerate(
        (("ranolazine", 0.0, 0.0), ("dofetilide", 0.0, 0.0), ("verapamil", -0.25, -0.15), ("quinidine", 0.0, 0.1))
    ):
        concentration = torch.zeros(4, 4)
        concentration[:, i] = level * (10.0 if drug == "quinidine" else 1.0)
        rate = ventricular_rate(own, sinus, concentration, DRUGS)
        change = rate / rate[0] - 1.0
        assert (change.diff() <= 0).all() if drug == "verapamil" else (change.diff() >= 0).all()
        assert low <= float(change[2]) <= high, drug


def test_the_beats_are_irregular_and_their_mean_is_the_rate():
    key = keys.from_seed(1, 200)
    rate = torch.linspace(55.0, 170.0, 200)
    r = fibrillation_beats(key, 0, rate, 45)
    rr = r.diff(dim=-1).float() * 2.0
    assert (rr > 150.0).all()
    for i in range(200):
        inside = r[i][(r[i] >= 0) & (r[i] < 5000)]
        assert float(inside.float().diff().mean()) * 2.0 == pytest.approx(60000.0 / float(rate[i]), rel=0.01)
    assert 0.17 < float((rr.std(-1) / rr.mean(-1)).median()) < 0.26


def test_f_waves_are_largest_in_v1_and_lie_between_four_and_nine_hertz():
    waves = fibrillation_waves(keys.from_seed(2, 40), 0, 5000, 500.0)
    size = waves.square().mean(-1).sqrt().median(0).values
    assert int(size.argmax()) == 2 and 0.02 < float(size[2]) < 0.12  # mV
    power = torch.fft.rfft(waves[:, 2]).abs().square()
    f = torch.arange(power.shape[-1]) * 0.1
    assert float(power[:, (f >= 4) & (f <= 9.5)].sum() / power.sum()) > 0.85


def test_the_delineator_finds_no_pr_and_still_a_heart(fibrillating):
    state, chart = fibrillating
    found = delineate(chart["ecg_mv"], 500.0)
    assert float(found.pr_ms.isnan().float().mean()) > 0.85
    assert found.measurable.all()
    assert float((found.heart_rate_bpm - chart["heart_rate_bpm"]).abs().median()) < 3.0
    assert float((found.qrs_ms - chart["qrs_ms"]).abs().nanmedian()) < 6.0


def test_a_recording_in_fibrillation_is_admitted_in_fibrillation(world, fibrillating):
    from world_models.inputs import admit

    state, chart = fibrillating
    factors = world.read({"ecg_mv": chart["ecg_mv"][:6]})
    copy = world.observe(admit(world, keys.from_seed(9, 6), factors))
    waving = factors["admission_fibrillation"] > 0
    assert waving.float().mean() > 0.6
    assert torch.equal(copy["atrial_fibrillation"], factors["admission_fibrillation"])
    assert torch.allclose(copy["heart_rate_bpm"][waving], factors["baseline_fibrillation_rate_bpm"][waving])
    assert torch.allclose(copy["qtcf_ms"], factors["baseline_qtcf_ms"], atol=0.01)


def test_a_row_in_fibrillation_is_drawn_alike_in_every_batch(world):
    state = world.initial(keys.from_seed(4, 9))
    state = state._replace(fibrillation=state.fibrillation._replace(shown=torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1, 0])))
    whole = world.observe(state, ("ecg_mv",))["ecg_mv"]
    for row in (0, 2, 8):
        alone = world.observe(tree.take(state, slice(row, row + 1)), ("ecg_mv",))["ecg_mv"]
        assert torch.equal(alone[0], whole[row])


@pytest.mark.skipif(not LUDB.is_dir(), reason="needs LUDB in ../shared/data/ludb")
def test_real_fibrillation_reads_alike():
    records = [
        r.ecg_mv for r in ludb.iterate(LUDB) if not r.pacing and any("fibrillation" in x.lower() for x in r.rhythm)
    ]
    found = delineate(torch.stack(records), 500.0)
    assert float(found.pr_ms.isnan().float().mean()) > 0.85 and found.measurable.all()
