"""Lost leads made from the others: exact where the normal law is known, near the recorded ones on real records."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from world_models import keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.lead_repair import AXIS, LeadModel, axis_beats, lost_leads, rebuild_beats, repair_leads
from world_models.ecg.lead_repair_fit import correlation, fit_leads, read_records
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import Intervals, synthesise_ecg

EIGHT = [0, 1, 6, 7, 8, 9, 10, 11]
DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))


def _ecgs(count: int) -> torch.Tensor:
    key = keys.from_seed(11, count)

    def value(low: float, high: float, name: str) -> torch.Tensor:
        return low + (high - low) * keys.uniform(key, 0, name)

    intervals = Intervals.of(
        value(55, 90, "rate"), value(130, 200, "pr"), value(80, 110, "qrs"), value(190, 240, "jt"), value(70, 100, "t")
    )
    return synthesise_ecg(key, 0, intervals, MorphologyBank.load().sample(keys.fold(key, "shape")), noise_uv=5.0)


def _losing(ecg: torch.Tensor, lost: list[int], value: float) -> torch.Tensor:
    eight = ecg[:, EIGHT].clone()
    eight[:, lost] = value
    return eight


def test_what_was_recorded_stays_and_what_was_lost_is_close() -> None:
    ecg = _ecgs(6)
    for lost, value in (([2, 5], float("nan")), ([0], 0.0), ([1, 3, 4, 6], float("nan"))):
        repaired = repair_leads(_losing(ecg, lost, value))
        assert repaired.lost.nonzero()[:, 1].unique().tolist() == lost and repaired.ecg_mv.isfinite().all()
        good = [EIGHT[i] for i in range(8) if i not in lost]
        assert torch.equal(repaired.ecg_mv[:, good], ecg[:, good])
        r = correlation(repaired.ecg_mv[:, EIGHT][:, lost], ecg[:, EIGHT][:, lost])
        assert r.median() > 0.9
        i, ii, iii, avr, avl, avf = repaired.ecg_mv[:, :6].unbind(1)
        for made, rule in ((iii, ii - i), (avr, -(i + ii) / 2), (avl, i - ii / 2), (avf, ii - i / 2)):
            assert torch.allclose(made, rule, atol=1e-5)


def test_a_whole_record_comes_back_as_it_was_and_rows_do_not_mix() -> None:
    ecg = _ecgs(3)
    assert torch.equal(repair_leads(ecg).ecg_mv, ecg)
    mixed = ecg[:, EIGHT].clone()
    mixed[1, 4] = float("nan")
    mixed[2, [0, 7]] = 0.0
    together = repair_leads(mixed)
    assert together.lost.sum(-1).tolist() == [0, 1, 2]
    for row in range(3):
        alone = repair_leads(mixed[row : row + 1]).ecg_mv
        assert torch.allclose(together.ecg_mv[row : row + 1], alone, atol=1e-4)


def test_too_few_leads_are_refused_and_named() -> None:
    eight = _losing(_ecgs(1), [0, 1, 2, 3, 4, 6, 7], 0.0)
    with pytest.raises(ValueError, match="only V4 carries a signal; at least 2"):
        repair_leads(eight)
    with pytest.raises(ValueError, match="at least 2"):
        rebuild_beats(torch.zeros(1, 8, AXIS), torch.zeros(1, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[B, 12, T\]"):
        repair_leads(torch.zeros(12, 5000))


def test_railed_flat_and_unfinite_leads_are_lost() -> None:
    eight = _ecgs(1)[:, EIGHT].clone()
    eight[0, 1], eight[0, 3], eight[0, 5, :500] = 0.001, 80.0, float("nan")
    assert lost_leads(eight)[0].tolist() == [name in ("II", "V2", "V4") for name in INDEPENDENT_LEADS]


def test_conditioning_is_that_of_the_normal_law() -> None:
    """Against the plain formula on the joint covariance of all samples, with the temper at 1."""
    generator = torch.Generator().manual_seed(3)
    components = 0.1 * torch.randn(3, 8, AXIS, generator=generator, dtype=torch.float64)
    mix = torch.randn(7, 8, 8, generator=generator, dtype=torch.float64)
    left = 0.01 * (mix @ mix.transpose(1, 2) + torch.eye(8, dtype=torch.float64))
    mean = torch.randn(8, AXIS, generator=generator, dtype=torch.float64)
    model = LeadModel(mean, components, left, torch.eye(8).double(), torch.tensor(1.0).double())
    beat = torch.randn(1, 8, AXIS, generator=generator, dtype=torch.float64)
    good = torch.tensor([[True, False, True, True, False, True, True, True]])
    # scaled so that the beat's size is 1, as the law is of scaled beats
    power = (mean.square() + components.square().sum(0)).mean(-1)
    beat = beat * (power[good[0]].mean() / power.mean()).sqrt() / beat[:, good[0]].square().mean().sqrt()
    wave = torch.repeat_interleave(torch.arange(7), torch.tensor([8, 32, 16, 48, 48, 32, 16]))
    joint = torch.einsum("rls,rmt->lsmt", components, components)
    for s in range(AXIS):
        joint[:, s, :, s] += left[wave[s]]
    joint = joint.reshape(8 * AXIS, 8 * AXIS)
    seen = good[0].repeat_interleave(AXIS)
    gain = torch.linalg.solve(joint[seen][:, seen], (beat - mean)[0].flatten()[seen])
    expected = mean.flatten()[~seen] + joint[~seen][:, seen] @ gain
    assert torch.allclose(rebuild_beats(beat, good, model)[0, ~good[0]].flatten(), expected, atol=1e-6)


def test_a_fit_needs_beats_enough() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_leads(torch.randn(20, 8, AXIS))


@pytest.mark.skipif(not (DATA / "ludb").is_dir(), reason=f"no LUDB at {DATA / 'ludb'}")
def test_on_real_records_not_fitted_on_two_lost_leads_come_back() -> None:
    ecg, _ = read_records(DATA / "ludb", None, odd=False)
    ecg = ecg[delineate(ecg, 500.0).trusted][:24]
    beat = axis_beats(delineate(ecg, 500.0))
    good = keys.uniform(keys.from_seed(5, len(ecg)), 0, "lost", (8,)).argsort(-1) >= 2
    again = rebuild_beats(beat, good)
    assert correlation(again, beat)[~good].median() > 0.95
    eight = torch.where(good.unsqueeze(-1), ecg[:, EIGHT], torch.full((), float("nan")))
    full, part = delineate(ecg, 500.0), delineate(repair_leads(eight).ecg_mv, 500.0)
    assert (full.qt_ms - part.qt_ms).abs().median() < 3.0 and (full.qrs_ms - part.qrs_ms).abs().median() < 3.0
