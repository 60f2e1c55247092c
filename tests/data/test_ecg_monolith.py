from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from world_models.data.ecg import monolith_writer
from world_models.data.ecg.monolith import (
    MonolithError,
    MonolithWriter,
    consecutive,
    from_arrays,
    pairs,
    read_monolith,
    read_records,
    split,
    stable_share,
    subset_patients,
    take,
    transitions,
)

CODES = ("I10", "I44", "I48")
ROOT = Path(__file__).resolve().parents[2]


def rows(start: int, count: int, samples: int = 50) -> dict:
    """Rows `start` to `start + count` of an endless source: what a row holds depends on its number alone."""
    number = np.arange(start, start + count)
    wave = np.sin(number[:, None, None] + np.arange(12)[:, None] + 0.1 * np.arange(samples)).astype(np.float32)
    return {
        "ecg": wave,
        "label": (number[:, None] >> np.arange(3)) % 2 == 1,
        "patient": number // 3,
        "days": number % 3 * 7.5,
        "age_years": 40.0 + number,
        "sex_female": np.where(number % 5 == 0, np.nan, number % 2),
        "fold": number // 3 % 20,
        "first": number % 3 == 0,
        "record": 1000 + number,
    }


def writer(path: Path, **other) -> MonolithWriter:
    return MonolithWriter(path, **{"codes": CODES, "rate": 100, "samples": 50, "source": "a test", **other})


def assert_rows(path: Path, count: int) -> None:
    m, truth = read_monolith(path), rows(0, count)
    assert torch.equal(m.ecg, torch.from_numpy(truth["ecg"]).half())
    for name in ("label", "patient", "days", "age_years", "sex_female", "fold", "first"):
        expected = torch.as_tensor(truth[name])
        assert torch.equal(torch.nan_to_num(getattr(m, name).double(), -1), torch.nan_to_num(expected.double(), -1)), (
            name
        )
    assert read_records(path).tolist() == truth["record"].tolist()
    assert (m.codes, m.sampling_rate_hz, m.treated) == (CODES, 100.0, None)


def test_what_is_written_is_read_and_only_the_closed_file_has_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(monolith_writer, "GROW_ROWS", 64)
    path = tmp_path / "m.h5"
    with writer(path, licence="ODbL") as w:
        for start in range(0, 150, 15):
            w.append(**rows(start, 15))
            assert not path.exists()
        assert (w.rows, w.position) == (150, 150)
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]
    assert path.stat().st_size < 1_000_000  # rows laid out in advance and not used are given back
    assert_rows(path, 150)
    with h5py.File(path) as file:
        assert file["ecg"].shape == (150, 12, 50) and file["ecg"].dtype == np.float16
        assert (file.attrs["source"], file.attrs["licence"]) == ("a test", "ODbL")


def test_rows_are_chosen_in_the_order_asked(tmp_path):
    path = tmp_path / "m.h5"
    with writer(path) as w:
        w.append(**rows(0, 3000))
    whole = read_monolith(path)
    index = torch.tensor([2999, 0, 7, 7, 1500, 1024, 1023])
    for choice, expected in (
        (index, index),
        (slice(2900, None, 7), torch.arange(2900, 3000, 7)),
        (whole.fold == 4, torch.nonzero(whole.fold == 4)[:, 0]),
        ([], torch.zeros(0, dtype=torch.int64)),
    ):
        part = read_monolith(path, torch.tensor(choice, dtype=torch.int64) if choice == [] else choice)
        assert torch.equal(part.ecg, whole.ecg[expected]) and torch.equal(part.patient, whole.patient[expected])
        assert torch.equal(read_records(path, expected), 1000 + expected)
    with pytest.raises(MonolithError, match="3000 is not|0 to 2999|row 3000"):
        read_monolith(path, [3000])
    with pytest.raises(MonolithError, match="mask"):
        read_monolith(path, np.ones(4, dtype=bool))


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "m.h5"
    with pytest.raises(KeyboardInterrupt), writer(path) as w:
        w.append(**rows(0, 40), position=44, skipped=4)
        raise KeyboardInterrupt
    assert not path.exists()
    with writer(path) as w:
        assert (w.rows, w.position, w.skipped) == (40, 44, 4)
        w.append(**rows(40, 10))
        assert (w.rows, w.position, w.skipped) == (50, 54, 4)
    assert_rows(path, 50)


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.data.test_ecg_monolith import rows, writer
from world_models.data.ecg import monolith_writer
monolith_writer.GROW_ROWS = 64
from pathlib import Path
w = writer(Path(sys.argv[1]))
while True:
    w.append(**rows(w.rows, 7))
    print(w.rows, flush=True)
"""


def test_a_killed_process_loses_only_the_batch_at_hand(tmp_path):
    path = tmp_path / "m.h5"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(ROOT)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    process.stdout.readline()
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    told = int(process.stdout.read().split()[-1])
    process.wait()
    assert told >= 7
    with writer(path) as w:
        assert 0 <= w.rows - told <= 7
        last = w.rows + 5
        w.append(**rows(w.rows, 5))
    assert_rows(path, last)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"codes": ("I10",)}, "codes"),
        ({"rate": 500}, "sampling_rate_hz"),
        ({"samples": 51}, "samples"),
        ({"source": "another"}, "source"),
        ({"treatments": ("pacemaker",)}, "treatments"),
    ],
)
def test_a_part_of_another_layout_is_refused(tmp_path, other, word):
    path = tmp_path / "m.h5"
    w = writer(path)
    w.append(**rows(0, 5))
    w.abandon()
    before = (tmp_path / "m.h5.part").read_bytes()
    with pytest.raises(MonolithError, match=word):
        writer(path, **other)
    assert (tmp_path / "m.h5.part").read_bytes() == before


def test_errors_say_what_is_wrong_and_write_nothing(tmp_path):
    path = tmp_path / "m.h5"
    with pytest.raises(MonolithError, match="m.h5"):
        read_monolith(path)
    (tmp_path / "m.h5.part").write_bytes(b"not HDF5")
    with pytest.raises(MonolithError, match="remove it"):
        writer(path)
    (tmp_path / "m.h5.part").unlink()
    with pytest.raises(MonolithError, match="no row"), writer(path):
        pass
    w = writer(path)
    with pytest.raises(MonolithError, match=r"ecg has shape \[5, 12, 49\]"):
        w.append(**{**rows(0, 5), "ecg": np.zeros((5, 12, 49))})
    for wrong in (np.nan, 2000.0):
        with pytest.raises(MonolithError, match="1000 mV"):
            w.append(**{**rows(0, 5), "ecg": np.full((5, 12, 50), wrong)})
    with pytest.raises(MonolithError, match="treated"):
        w.append(**rows(0, 5), treated=np.zeros((5, 9)))
    assert w.rows == 0
    w.append(**rows(0, 5))
    w.close()
    with pytest.raises(MonolithError, match="closed"):
        w.append(**rows(0, 5))
    with pytest.raises(MonolithError, match="exists"):
        writer(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["ecg"] = np.zeros((2, 12, 5))
    with pytest.raises(MonolithError, match="label"):
        read_monolith(tmp_path / "other.h5")


def test_treatments_are_kept(tmp_path):
    treated = np.arange(10).reshape(5, 2) % 3 == 0
    with writer(tmp_path / "m.h5", treatments=("pacemaker", "diuretic")) as w:
        w.append(**rows(0, 5), treated=treated)
    assert read_monolith(tmp_path / "m.h5").treated.tolist() == treated.tolist()


def _monolith(label, patient, days, **other):
    count = len(patient)
    return from_arrays(ecg=np.zeros((count, 12, 8)), label=label, patient=patient, days=days, codes=CODES, **other)


def test_pairs_follow_time_within_a_patient_in_any_row_order():
    m = _monolith(np.zeros((6, 3)), [2, 1, 2, 1, 3, 2], [5.0, 9.0, 1.0, 3.0, 0.0, 5.0])
    before, after = pairs(m)
    assert list(zip(before.tolist(), after.tolist(), strict=True)) == [(3, 1), (2, 0), (0, 5)]
    assert m.first.tolist() == [False, False, True, True, True, False]
    assert np.isnan(stable_share(_monolith(np.zeros((2, 3)), [1, 2], [0.0, 0.0])))
    with pytest.raises(ValueError, match="patient"):
        consecutive(m.patient, m.days[:2])


def test_statistics_of_the_appendix_by_hand():
    label = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1]])
    m = _monolith(label, [1, 1, 1, 1, 2, 3], [0.0, 1.0, 2.0, 3.0, 0.0, 0.0])
    found = transitions(m.label, m.patient, m.days)
    assert (found.pairs, found.changed, found.changed_patients) == (3, 2, 1)
    assert (found.ecgs, found.patients, found.singletons, found.most_ecgs) == (6, 3, 2, 4)
    assert found.stable_share == pytest.approx(1 / 3) == stable_share(m)
    assert found.magnitudes == {1: 0.5, 3: 0.5}
    assert found.codes_per_ecg == pytest.approx(9 / 6)
    assert found.jaccard_below_half == 1.0


def test_sides_follow_the_folds():
    m = _monolith(np.zeros((20, 3)), np.arange(20), np.zeros(20), fold=np.arange(20))
    assert [len(split(m, side).patient) for side in ("train", "valid", "test")] == [18, 1, 1]
    assert split(m, "test").patient.tolist() == [19]
    assert take(m, slice(3, 5)).fold.tolist() == [3, 4]
    with pytest.raises(MonolithError, match="'dev'"):
        split(m, "dev")


def test_subsets_are_nested_by_patient_and_of_their_size():
    patient = torch.arange(1000).repeat_interleave(3)[torch.from_numpy(np.random.default_rng(0).permutation(3000))]
    masks = {share: subset_patients(patient, share, seed=7) for share in (0.01, 0.1, 0.5, 1.0)}
    chosen = {share: set(patient[mask].tolist()) for share, mask in masks.items()}
    assert [len(people) for people in chosen.values()] == [10, 100, 500, 1000]
    assert chosen[0.01] < chosen[0.1] < chosen[0.5] < chosen[1.0]
    assert int(masks[0.1].sum()) == 300  # whole patients
    assert chosen[0.1] != set(patient[subset_patients(patient, 0.1, seed=8)].tolist())
    # Nothing to do with the order of the rows or the size of the numbers.
    assert chosen[0.1] == set(patient.flip(0)[subset_patients(patient.flip(0), 0.1, seed=7)].tolist())
    assert 40 < np.mean(list(chosen[0.1])) / 10 < 60
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="share"):
            subset_patients(patient, share, seed=7)


def test_arrays_are_checked():
    good = {
        "ecg": np.zeros((2, 12, 8)),
        "label": np.zeros((2, 3)),
        "patient": [1, 1],
        "days": [0.0, 1.0],
        "codes": CODES,
    }
    assert from_arrays(**good).ecg.dtype == torch.float16
    for wrong in ({"ecg": np.zeros((2, 8, 12))}, {"codes": ("I10",)}, {"patient": [1]}, {"treated": np.zeros((3, 9))}):
        with pytest.raises(MonolithError, match="shape"):
            from_arrays(**{**good, **wrong})
