"""`patients=`: recorded patients are admitted, and a folder that cannot be used says why."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ecg_drug.recorded import RecordedPatients
from tests.clinenv.records import LEADS, QT_MS, RR_MS, drawn_ecg, write_record
from world_models import catalog, keys
from world_models.inputs import admit

pytest.importorskip("wfdb")
DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))


@pytest.fixture(scope="module")
def oracle():
    return catalog.load("oracle")


def test_a_patient_has_the_recorded_ecg_and_the_rest_is_drawn(tmp_path, oracle) -> None:
    write_record(tmp_path, "one", comments=("Age: 61", "Sex: Female"))
    write_record(tmp_path, "two", comments=())
    env = gymnasium.make("ECGDrug-v0", world=oracle, patients=str(tmp_path))
    ages = set()
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        said = env.unwrapped.describe(observation)
        assert said["qtcf_ms"] == pytest.approx(QT_MS / (RR_MS / 1000) ** (1 / 3), abs=15)
        assert said["heart_rate_bpm"] == pytest.approx(60_000 / RR_MS, abs=2)
        ages.add(round(said["age_years"], 2))
    assert 61.0 in ages and len(ages) > 3, "one record states the age, the other leaves it to be drawn"
    observation, _ = env.reset(seed=0, options={"age_years": 30})
    assert env.unwrapped.describe(observation)["age_years"] == pytest.approx(30, abs=1e-3)


def test_row_i_is_still_the_single_environment(tmp_path, oracle) -> None:
    write_record(tmp_path, "one")
    write_record(tmp_path, "two", drawn_ecg() * 1.5)
    patients = RecordedPatients(tmp_path, oracle)
    assert len(patients) == 2
    many = gymnasium.make_vec("ECGDrug-v0", num_envs=5, world=oracle, patients=patients)
    observation, _ = many.reset(seed=3)
    for i in range(5):
        single = gymnasium.make("ECGDrug-v0", world=oracle, patients=patients)
        assert np.array_equal(single.reset(seed=3 + i)[0], observation[i])
    drawn = patients.factors(keys.from_seed(0, 500))["age_years"]
    assert drawn.shape == (500,) and torch.equal(drawn[:7], patients.factors(keys.from_seed(0, 7))["age_years"])


@pytest.mark.parametrize("fault", ["empty", "one lead", "short", "nine seconds", "noise", "text"])
def test_a_folder_that_cannot_be_used_says_why(tmp_path, oracle, fault: str) -> None:
    words = {
        "empty": "no .hea",
        "one lead": "only II|at least 2",
        "short": "4 s",
        "nine seconds": "10 s",
        "noise": "measur",
        "text": "header",
    }[fault]
    if fault == "one lead":
        write_record(tmp_path, order=("II",))
    elif fault == "short":
        write_record(tmp_path, ecg_mv=drawn_ecg(2.0))
    elif fault == "nine seconds":
        write_record(tmp_path, ecg_mv=drawn_ecg(9.0))
    elif fault == "noise":
        write_record(tmp_path, ecg_mv=np.random.default_rng(0).normal(0, 0.5, (12, 5000)))
    elif fault == "text":
        (tmp_path / "letter.hea").write_text("Dear colleague,\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=words):
            gymnasium.make("ECGDrug-v0", world=oracle, patients=str(tmp_path))


def test_lost_leads_are_made_from_the_others(tmp_path, oracle) -> None:
    write_record(tmp_path, order=[lead for lead in LEADS if lead not in ("V2", "V6")])
    with pytest.warns(UserWarning, match="leads V2, V6 are missing, flat or broken and were reconstructed"):
        patients = RecordedPatients(tmp_path, oracle)
    factors = patients.factors(keys.from_seed(0, 1))
    assert float(factors["baseline_qtcf_ms"]) == pytest.approx(QT_MS / (RR_MS / 1000) ** (1 / 3), abs=15)
    assert 60 < float(factors["baseline_t_amplitude_uv"]) < 3000


@pytest.mark.parametrize("name", ["oracle", "ecg-wm-small"])
def test_a_record_in_fibrillation_shows_it(tmp_path, name: str) -> None:
    """Drawn by the oracle, written as a record, and met again: fibrillation, its rate, no PR, a T wave."""
    oracle, world = catalog.load("oracle"), catalog.load(name)
    key = keys.from_seed(11, 1)
    fixed = {"admission_fibrillation": torch.ones(1), "baseline_burden": torch.ones(1)}
    ecg = oracle.observe(oracle.initial(key, fixed), ("ecg_mv",))["ecg_mv"][0].numpy()
    write_record(tmp_path, "waving", ecg)
    write_record(tmp_path, "sinus")
    patients = RecordedPatients(tmp_path, world)
    assert len(patients) == 2
    many = keys.from_seed(0, 24)
    factors = patients.factors(many)
    waving = factors["admission_fibrillation"] > 0.5
    assert 0 < int(waving.sum()) < 24
    chart = world.observe(admit(world, many, factors))
    assert torch.equal(chart["atrial_fibrillation"] > 0.5, waving) and torch.equal(chart["pr_ms"].isnan(), waving)
    rate = factors["baseline_fibrillation_rate_bpm"]
    assert torch.equal(rate.isnan(), ~waving)
    # the oracle's admission reading is a moment of its own
    assert chart["heart_rate_bpm"][waving].numpy() == pytest.approx(rate[waving].numpy(), rel=0.25)
    assert bool(torch.isfinite(factors["baseline_t_amplitude_uv"]).all())
    env = gymnasium.make("ECGDrug-v0", world=world, patients=patients)
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)


def test_real_records(oracle, tmp_path) -> None:
    records = sorted((DATA / "ludb").rglob("*.hea"))
    if not records:
        pytest.skip(f"no LUDB records under {DATA}; set CLINENV_DATA to the folder that holds ludb/")
    for header in records[:6]:
        for part in header.parent.glob(header.stem + ".*"):
            (tmp_path / part.name).write_bytes(part.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patients = RecordedPatients(tmp_path, oracle)
    assert 1 <= len(patients) <= 6
    state = admit(oracle, keys.from_seed(0, 20), patients.factors(keys.from_seed(0, 20)))
    assert bool(torch.isfinite(oracle.observe(state)["qtcf_ms"]).all())
