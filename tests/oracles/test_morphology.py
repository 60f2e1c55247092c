from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from world_models import keys
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.morphology import BANK_FILE, MorphologyBank, default_morphology, fit_morphology, fit_quality
from world_models.ecg.morphology_fit import fit_bank, main
from world_models.ecg.waveform import WAVES, Intervals, beat_template

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
HAS_LUDB = (DATA / "ludb" / "ludb.csv").is_file()
needs_ludb = pytest.mark.skipif(not HAS_LUDB, reason=f"no LUDB in {DATA} (set CLINENV_DATA)")


def _intervals(key):
    u = keys.uniform(key, 0, "test", (4,))
    rate = torch.full((key.shape[0],), 65.0)
    return Intervals.of(rate, 120 + 100 * u[:, 0], 75 + 60 * u[:, 1], 150 + 120 * u[:, 2], 60 + 60 * u[:, 3])


def test_bank_is_shaped_attributed_and_intact():
    bank = MorphologyBank.load()
    assert bank.heights_mv.shape[0] >= 80 and bank.heights_mv.shape[1:] == (8, len(WAVES))
    assert torch.isfinite(bank.heights_mv).all() and bank.heights_mv.abs().max() < 5.0
    card = json.loads(BANK_FILE.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(BANK_FILE.read_bytes()).hexdigest()
    assert "ODC-By" in card["licence"] and "10.1109/ACCESS.2020.3029211" in card["citation"]
    assert card["kept"] == bank.heights_mv.shape[0]


def test_draw_is_varied_measurable_and_stateless():
    key = keys.from_seed(0, 500)
    drawn = MorphologyBank.load().sample(key)
    assert torch.equal(drawn[17:20], MorphologyBank.load().sample(key[17:20]))
    assert len({tuple(row) for row in drawn[:, 1].round(decimals=4).tolist()}) == 500
    t = drawn[..., WAVES.index("T")].abs()
    assert ((t > 0.05).sum(-1) >= 4).all()
    qrs = drawn[..., 2:10].abs().amax((1, 2))
    assert (qrs > 0.2).all()
    away = [i for i, name in enumerate(INDEPENDENT_LEADS) if name != "V1"]
    assert (drawn[:, away, WAVES.index("P_biphasic")] == 0).all()


def test_fit_recovers_a_drawn_beat_despite_offset_drift_and_noise():
    key = keys.from_seed(1, 20)
    intervals, truth = _intervals(key), MorphologyBank.load().sample(key)
    beat = beat_template(intervals, truth)
    drift = torch.linspace(-0.2, 0.3, beat.shape[-1])
    fitted = fit_morphology(beat + drift + 0.005 * keys.noise(key, 0, "n", tuple(beat.shape[1:])), intervals)
    redrawn = beat_template(intervals, fitted)
    assert (redrawn - beat).abs().max() < 0.05
    whole, late = fit_quality(beat + drift, intervals, fitted)
    assert whole.min() > 0.99 and late.min() > 0.97


def test_fit_row_equals_the_patient_alone():
    key = keys.from_seed(2, 64)
    intervals = _intervals(key)
    beat = beat_template(intervals, MorphologyBank.load().sample(key)) + 0.01
    whole = fit_morphology(beat, intervals)
    for part in (slice(0, 1), slice(63, 64), slice(10, 17)):
        assert torch.equal(fit_morphology(beat[part], Intervals(*(x[part] for x in intervals))), whole[part])


def test_fit_keeps_st_below_t():
    key = keys.from_seed(3, 2)
    intervals, heights = _intervals(key), default_morphology(2)
    heights[..., WAVES.index("ST")] = 1.0  # a monster: larger than T
    fitted = fit_morphology(beat_template(intervals, heights), intervals)
    assert (fitted[..., WAVES.index("ST")].abs() <= 0.5 * fitted[..., WAVES.index("T")].abs() + 1e-6).all()


def test_bad_input_is_named(tmp_path, capsys):
    intervals = _intervals(keys.from_seed(0, 2))
    with pytest.raises(ValueError, match="median_beat is"):
        fit_morphology(torch.zeros(2, 12, 801), intervals)
    with pytest.raises(FileNotFoundError, match="morphology_fit"):
        MorphologyBank.load(tmp_path / "none.safetensors")
    save_file({"heights_mv": torch.zeros(3, 8, 4)}, str(tmp_path / "old.safetensors"), metadata={"waves": "P,T"})
    with pytest.raises(ValueError, match="fit the bank again"):
        MorphologyBank.load(tmp_path / "old.safetensors")
    assert main(["--ludb", str(tmp_path), "--out", str(tmp_path / "bank.safetensors")]) == 2
    assert "ludb.csv" in capsys.readouterr().err and not (tmp_path / "bank.safetensors").exists()
    assert main(["--ludb", str(tmp_path), "--out", str(tmp_path / "nowhere" / "bank.safetensors")]) == 2


@needs_ludb
def test_the_shipped_bank_is_what_the_command_makes(tmp_path, monkeypatch):
    from world_models.data.ecg import ludb

    names = ludb.record_names(DATA / "ludb")[:25]
    monkeypatch.setattr(ludb, "record_names", lambda folder: names)
    heights, account = fit_bank(DATA / "ludb")
    assert account["records"] == 25 and account["kept"] == heights.shape[0] >= 10
    assert account["r2_kept_median"] > 0.95
    shipped = MorphologyBank.load().heights_mv
    nearest = (heights[:, None] - shipped[None]).abs().amax((2, 3)).amin(1)
    assert nearest.max() < 1e-4
