"""Every ECG database into a monolith by one command: what its columns hold, stopping, damage, wrong folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.small_ecg_databases import write_challenge, write_ptbxl
from tests.data.small_trials import write_ecgdmmld, write_ecgrdvq
from tests.kills import kill_at, needs_fork
from world_models.data.ecg import monolith_convert, monolith_file, monolith_writer, ptbxl, snomed
from world_models.data.ecg.monolith import MonolithError, read_index, read_monolith, split
from world_models.data.ecg.monolith_convert import round_trip
from world_models.data.ecg.monolith_sources import SOURCES, number_of, record_name
from world_models.data.ecg.to_monolith import main
from world_models.data.ecg.wfdb.reader import read_ecg

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
REAL = {"ptbxl": "ptbxl/ptbxl_database.csv", "ludb": "ludb/ludb.csv", "challenge": "ecg_12lead/cinc2021/JS20000.hea"}


def run(source: str, folder: Path, out: Path, *more: str) -> int:
    return main(["--source", source, str(folder), "--out", str(out), "--workers", "1", "--quiet", *more])


def test_ptbxl_rows_by_patient_and_time(tmp_path, capsys):
    folder = write_ptbxl(tmp_path / "ptbxl")
    assert run("ptbxl", folder, tmp_path / "m.h5") == 0
    told = capsys.readouterr().out
    assert "4 ECGs of 3 patients (train 1, valid 2, test 1), 0 left out" in told and "4 records differ" in told
    held = read_index(tmp_path / "m.h5")
    assert held.record.tolist() == [3, 2, 1, 4] and held.patient.tolist() == [13243, 13243, 15709, 20372]
    assert held.days.tolist() == pytest.approx([0.0, (2 * 3600 + 55 * 60 + 37) / 86400, 0.0, 0.0])
    assert held.fold.tolist() == [18, 18, 3, 19] and held.first.tolist() == [True, False, True, True]
    assert held.age_years[:3].tolist() == [90.0, 90.0, 56.0] and bool(held.age_years[3].isnan())
    said = [{held.codes[i] for i in row.nonzero().flatten().tolist()} for row in held.label]
    assert said == [{"atrial_fibrillation"}, {"ischaemia_or_infarct", "prolonged_qt", "sinus_bradycardia"}] + [
        {"sinus_rhythm"},
        set(),
    ]
    assert held.rows_of(13243).tolist() == [0, 1] and held.rows_of(13243, (0.1, 9.0)).tolist() == [1]
    assert held.rows_of(1).tolist() == []
    whole = read_monolith(tmp_path / "m.h5")
    assert whole.ecg.shape == (4, 12, 5000) and len(split(whole, "valid").patient) == 2
    wave = read_ecg(folder / "records500/00000/00002_hr").ecg_mv
    # half the spacing of float16 numbers just below 2 mV
    assert float((whole.ecg[1].float() - wave).abs().max()) <= 2.0**-11


def test_a_challenge_record_is_found_by_its_name(tmp_path):
    assert (
        run("challenge", write_challenge(tmp_path / "c", ("JS20000", "E07500")), tmp_path / "m.h5", "--rate", "100")
        == 0
    )
    held = read_index(tmp_path / "m.h5")
    assert sorted(record_name(number) for number in held.record.tolist()) == ["E07500", "JS20000"]
    assert held.sampling_rate_hz == 100.0 and held.sex_female.tolist() == [1.0, 1.0]
    assert {held.codes[i] for i in held.label[0].nonzero().flatten().tolist()} == {"sinus_rhythm", "t_wave_abnormal"}
    with pytest.raises(ValueError, match="-1 is no record's number"):
        record_name(-1)


@pytest.mark.slow
def test_a_trial_knows_what_is_on_board(tmp_path):
    assert run("ecgrdvq", write_ecgrdvq(tmp_path / "ecgrdvq"), tmp_path / "m.h5") == 0
    held = read_index(tmp_path / "m.h5")
    assert held.codes == ("dofetilide", "placebo", "quinidine", "ranolazine", "verapamil")
    assert held.treatments == ("dofetilide", "quinidine", "ranolazine", "verapamil") and held.treated is not None
    rows = held.rows_of(1001)
    assert held.days[rows].tolist() == pytest.approx([7.0 * p + h for p in range(5) for h in (0.0, 1.5 / 24)])
    assert held.treated[rows].any(1).tolist() == [False, True] * 4 + [False, False]
    assert held.first[rows].tolist() == [True, False] * 5
    assert int(held.record[rows[0]]) == number_of("00ed-0-1-0") and held.fold.unique().tolist() == [0, 10]
    assert run("ecgdmmld", write_ecgdmmld(tmp_path / "dmmld", (2.5, 8.0)), tmp_path / "d.h5") == 0
    staged = read_index(tmp_path / "d.h5")
    row = staged.rows_of(2001, (28.0, 28.2))[0]  # the fifth period, mexiletine + dofetilide, at 2.5 h
    assert staged.treated is not None
    there = {staged.treatments[i] for i in staged.treated[row].nonzero().flatten().tolist()}
    assert there == {"mexiletine"} and bool(staged.label[row, staged.codes.index("mexiletine+dofetilide")])


@needs_fork
def test_a_killed_run_goes_on_to_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(monolith_convert, "BLOCK", 1)
    folder = write_ptbxl(tmp_path / "ptbxl")
    assert run("ptbxl", folder, tmp_path / "whole.h5") == 0
    resumed = 0
    for line in range(20, 400, 60):
        out = tmp_path / f"{line}.h5"
        killed = kill_at(
            line, lambda out=out: run("ptbxl", folder, out), monolith_convert, monolith_writer, monolith_file
        )
        resumed += killed and out.with_name(out.name + ".part").exists()
        assert out.exists() or run("ptbxl", folder, out) == 0
        for a, b in zip(read_monolith(out), read_monolith(tmp_path / "whole.h5"), strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, torch.Tensor) else a == b
        assert not out.with_name(out.name + ".part").exists()
    assert resumed >= 3


def test_a_run_is_not_continued_with_other_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(monolith_convert, "BLOCK", 1)
    folder = write_ptbxl(tmp_path / "ptbxl")
    read, calls = monolith_convert._read_block, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(monolith_convert, "_read_block", stop)
    with pytest.raises(KeyboardInterrupt):
        run("ptbxl", folder, tmp_path / "m.h5")
    assert (tmp_path / "m.h5.part").exists()
    (folder / "records500/00000/00004_hr.hea").unlink()
    assert run("ptbxl", folder, tmp_path / "m.h5") == 2 and "another layout (source" in capsys.readouterr().err
    assert run("ptbxl", folder, tmp_path / "m.h5", "--rate", "100") == 2
    assert (tmp_path / "m.h5.part").exists() and not (tmp_path / "m.h5").exists()


def test_a_changed_byte_is_found(tmp_path):
    folder = write_challenge(tmp_path / "c")
    assert run("challenge", folder, tmp_path / "m.h5") == 0
    content = bytearray((tmp_path / "m.h5").read_bytes())
    rows = read_monolith(tmp_path / "m.h5").ecg.numpy()
    place = bytes(content).index(rows[0, 3, 100:120].tobytes())
    content[place] ^= 1
    (tmp_path / "bad.h5").write_bytes(content)
    for read in (read_monolith, read_index):
        with pytest.raises(MonolithError, match="row 0 is not what was written"):
            read(tmp_path / "bad.h5")
    rows_of = SOURCES["challenge"](folder)
    assert round_trip(rows_of, tmp_path / "m.h5", 500.0, 10.0).largest_uv < 1.0
    with pytest.raises(MonolithError, match="not what was written"):
        round_trip(rows_of, tmp_path / "bad.h5", 500.0, 10.0)


@pytest.mark.parametrize("source", [*SOURCES, "mimic-iv-ecg"])
def test_wrong_folders_are_errors_and_nothing_is_written(tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    labels = ["--labels", str(tmp_path / "none.csv")] if source == "mimic-iv-ecg" else []
    for folder in (tmp_path / "empty", tmp_path / "absent"):
        assert run(source, folder, tmp_path / "m.h5", *labels) == 2
        assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "there.h5").write_bytes(b"mine")
    assert run(source, tmp_path / "empty", tmp_path / "there.h5", *labels) == 2
    assert run(source, tmp_path / "empty", tmp_path / "none" / "m.h5", *labels) == 2
    assert (tmp_path / "there.h5").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "there.h5"]


def test_records_that_cannot_be_read(tmp_path, capsys):
    folder = write_ptbxl(tmp_path / "ptbxl")
    (folder / "records500/00000/00002_hr.dat").write_bytes(b"short")
    assert run("ptbxl", folder, tmp_path / "m.h5") == 2
    assert "1 of 4 records cannot be read" in capsys.readouterr().err and not (tmp_path / "m.h5").exists()
    (tmp_path / "m.h5.part").unlink()
    assert run("ptbxl", folder, tmp_path / "m.h5", "--most-missing", "0.3") == 0
    assert "3 ECGs of 3 patients" in capsys.readouterr().out
    assert read_index(tmp_path / "m.h5").record.tolist() == [3, 1, 4]


def test_options_that_do_not_fit(tmp_path, capsys):
    for options in (["--labels", "x.csv"], ["--rate", "50"], ["--workers", "0"], ["--seconds", "nan"]):
        with pytest.raises(SystemExit) as error:
            run("ptbxl", tmp_path, tmp_path / "m.h5", *options)
        assert error.value.code == 2
    with pytest.raises(SystemExit):
        run("mimic-iv-ecg", tmp_path, tmp_path / "m.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", REAL)
def test_real_databases(tmp_path, source):
    if not (DATA / REAL[source]).is_file():
        pytest.skip(f"no {source} at {DATA} (set CLINENV_DATA)")
    folder = (DATA / REAL[source]).parent
    rows = SOURCES[source](folder)
    some = rows._replace(paths=rows.paths[:12], columns={name: value[:12] for name, value in rows.columns.items()})
    monolith_convert.convert(some, tmp_path / "m.h5", rate=500.0, seconds=10.0, workers=1)
    held, whole = read_index(tmp_path / "m.h5"), read_monolith(tmp_path / "m.h5")
    assert bool((held.patient[1:] >= held.patient[:-1]).all()) and held.codes == tuple(snomed.LABELS)
    assert bool(held.label.any(1).all() if source != "ptbxl" else held.label.any())
    found = round_trip(some, tmp_path / "m.h5", 500.0, 10.0)
    assert found.ecgs == 12 and found.rms_uv < 0.3 and found.largest_uv < 4.0
    assert whole.ecg.shape == (12, 12, 5000)
    if source == "ptbxl":
        ids = {entry.ecg_id: entry for entry in ptbxl.read_table(folder).entries}
        assert [ids[number].patient_id for number in held.record.tolist()] == held.patient.tolist()
        assert len(rows.paths) == 353 and np.bincount(rows.columns["fold"])[18] == 88
    shutil.rmtree(tmp_path)
