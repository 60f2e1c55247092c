"""Lost leads made from the others: what is there stays, what is made is marked, and too few leads are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from world_models import keys
from world_models.data.ecg import ludb, ptbxl
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.lead_repair import MOMENTS_FILE, repair_leads, segments, warnings_of
from world_models.ecg.lead_repair_fit import main
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import Intervals, synthesise_ecg

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
V3, V5 = 8, 10  # among the twelve


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """[3, 12, 5000] drawn ECGs."""
    key = keys.from_seed(5, 3)
    one = torch.ones(3)
    intervals = Intervals.of(70 * one, 160 * one, 92 * one, 220 * one, 85 * one)
    return synthesise_ecg(key, 0, intervals, MorphologyBank.load().sample(key), noise_uv=5 * one, wander_uv=20 * one)


def r(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_nothing_lost_nothing_changed(drawn):
    found = repair_leads(drawn)
    assert torch.equal(found.ecg_mv, drawn) and not found.reconstructed.any() and bool((found.expected_r == 1).all())
    assert not warnings_of(found)


@pytest.mark.parametrize("how", ["nan", "flat", "railed", "still"])
def test_a_lost_lead_is_made_and_marked_and_the_others_stay(drawn, how):
    holed = drawn.clone()
    value = {"nan": torch.nan, "flat": 0.0, "railed": 80.0, "still": 0.3}[how]
    holed[1, V5] = value
    found = repair_leads(holed)
    assert found.reconstructed.nonzero().tolist() == [[1, INDEPENDENT_LEADS.index("V5")]]
    others = [i for i in range(12) if i != V5]
    assert torch.equal(found.ecg_mv[:, others][:, 6:], drawn[:, others][:, 6:])
    torch.testing.assert_close(found.ecg_mv[:, others], drawn[:, others], atol=1e-4, rtol=0)
    assert torch.isfinite(found.ecg_mv).all() and r(found.ecg_mv[1, V5], drawn[1, V5]) > 0.9
    (said,) = warnings_of(found, 1)
    assert said.startswith("lead V5: 100% reconstructed") and not warnings_of(found, 0)


def test_a_limb_lead_that_follows_from_others_is_no_reconstruction(drawn):
    holed = drawn.clone()
    holed[0, [0, 4]] = torch.nan  # I and aVL: II - III has I
    found = repair_leads(holed)
    assert not found.reconstructed.any()
    torch.testing.assert_close(found.ecg_mv, drawn, atol=1e-4, rtol=0)
    eight = repair_leads(drawn[:, [0, 1, *range(6, 12)]])
    torch.testing.assert_close(eight.ecg_mv, drawn, atol=1e-4, rtol=0)


def test_einthoven_holds_whatever_was_lost(drawn):
    holed = drawn.clone()
    holed[:, :6] = torch.nan
    ecg = repair_leads(holed).ecg_mv
    one, two, three, right, left, foot = ecg[:, :6].unbind(1)
    torch.testing.assert_close(three, two - one)
    torch.testing.assert_close(right + left + foot, torch.zeros_like(foot), atol=1e-5, rtol=0)


def test_a_lost_stretch_is_filled_by_the_patients_own_leads(drawn):
    holed = drawn.clone()
    holed[0, V3, 2000:3500] = torch.nan
    part, whole = repair_leads(holed), drawn.clone()
    whole[0, V3] = torch.nan
    assert torch.equal(part.ecg_mv[0, V3, :2000], drawn[0, V3, :2000])
    assert float(part.share[0, INDEPENDENT_LEADS.index("V3")]) == pytest.approx(0.3)

    def error(ecg: torch.Tensor) -> float:
        return float((ecg[0, V3, 2000:3500] - drawn[0, V3, 2000:3500]).square().mean().sqrt())

    assert error(part.ecg_mv) < 0.7 * error(repair_leads(whole).ecg_mv)


def test_rows_do_not_meet(drawn):
    holed = drawn.clone()
    holed[0, V3], holed[1, 6:9], holed[2, :6] = torch.nan, 0.0, torch.nan
    together = repair_leads(holed)
    for i in range(3):
        alone = repair_leads(holed[i : i + 1])
        torch.testing.assert_close(alone.ecg_mv[0], together.ecg_mv[i], atol=1e-4, rtol=1e-4)
        assert torch.equal(alone.reconstructed[0], together.reconstructed[i])


def test_too_few_leads_and_wrong_arguments_are_refused(drawn):
    holed = drawn.clone()
    holed[2, :11] = torch.nan
    with pytest.raises(ValueError, match=r"ECG 2 of 3 has 1 whole lead\(s\) of I, II, V1-V6 \(V6\); at least 2"):
        repair_leads(holed)
    with pytest.raises(ValueError, match="none"):
        repair_leads(torch.full((1, 12, 5000), torch.nan))
    with pytest.raises(ValueError, match="must be a float tensor"):
        repair_leads(drawn[:, :5])
    with pytest.raises(ValueError, match="at least 4 s"):
        repair_leads(drawn[..., :1000])


def test_segments_cover_every_sample(drawn):
    weight = segments(5000, 500.0, delineate(drawn, 500.0))
    torch.testing.assert_close(weight.sum(1), torch.ones(3, 5000))
    share = weight.mean(-1)
    assert bool((share > 0.08).all()) and bool((share[:, 1] < 0.25).all())


def test_the_moments_are_of_training_beats_alone():
    told = json.loads(MOMENTS_FILE.read_text(encoding="utf-8"))
    moments = torch.tensor(told["moments"])
    assert moments.shape == (3, 8, 8) and told["split"].startswith("train")
    torch.testing.assert_close(moments, moments.transpose(1, 2))
    assert bool((torch.linalg.eigvalsh(moments) > 0).all())


def test_the_fit_refuses_wrong_folders(tmp_path, capsys):
    assert main(["--ludb", str(tmp_path), "--out", str(tmp_path / "m.json")]) == 2
    assert main(["--out", str(tmp_path / "m.json")]) == 2
    assert main(["--ludb", str(tmp_path), "--out", str(tmp_path / "none/m.json")]) == 2
    assert capsys.readouterr().err.count("error: ") == 3 and not list(tmp_path.iterdir())


def test_real_records_that_were_not_fitted():
    if not (DATA / "ptbxl/ptbxl_database.csv").is_file() or not (DATA / "ludb/ludb.csv").is_file():
        pytest.skip(f"no PTB-XL and LUDB at {DATA} (set CLINENV_DATA)")
    entries = [e for e in ptbxl.read_table(DATA / "ptbxl").entries if e.fold in (7, 8)][:24]
    ecgs = [ptbxl.read_entry(entry).ecg_mv for entry in entries]
    names = [name for name in ludb.record_names(DATA / "ludb") if int(name) % 2 == 0][:12]
    ecgs += [ludb.read_record(DATA / "ludb", name).ecg_mv for name in names]
    ecg = torch.stack(ecgs)
    holed = ecg.clone()
    for i in range(len(ecg)):
        holed[i, [6 + i % 6, 6 + (i + 1 + i // 6) % 6]] = torch.nan
    found = repair_leads(holed)
    assert bool((found.reconstructed.sum(1) >= 1).all())
    pairs = [(i, 4 + lead) for i, lead in found.reconstructed.nonzero().tolist()]
    assert torch.tensor([r(found.ecg_mv[i, lead], ecg[i, lead]) for i, lead in pairs]).median() > 0.85
