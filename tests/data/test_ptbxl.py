"""PTB-XL's table, its statements as labels, and the beats of real ECGs by split."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.data.small_ecg_databases import PTBXL_ROWS, write_challenge, write_ptbxl
from world_models.data.ecg import ptbxl, scp, snomed
from world_models.data.ecg.real_beats import R_SAMPLE, SAMPLES, real_beats
from world_models.data.ecg.wfdb.reader import RecordError

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
needs_ptbxl = pytest.mark.skipif(
    not (DATA / "ptbxl/ptbxl_database.csv").is_file(), reason=f"no PTB-XL at {DATA / 'ptbxl'} (set CLINENV_DATA)"
)


def changed(number: int, place: int, value: object) -> list[tuple]:
    """The rows with one cell changed."""
    return [(*r[:place], value, *r[place + 1 :]) if r[0] == number else r for r in PTBXL_ROWS]


def test_a_row_says_who_when_and_what(tmp_path):
    table = ptbxl.read_table(write_ptbxl(tmp_path / "ptbxl", records=(1, 2, 3)))
    assert [entry.ecg_id for entry in table.entries] == [3, 2, 1], "by patient, then time"
    assert [entry.ecg_id for entry in table.without_record] == [4]
    two = table.entries[1]
    assert (two.patient_id, two.age_years, two.sex_female, two.fold) == (13243, 90.0, False, 7)
    assert dict(two.scp) == {"IMI": 15.0, "LNGQT": 100.0, "SBRAD": 0.0}
    assert table.without_record[0].age_years is None
    assert ptbxl.read_entry(two).ecg_mv.shape == (12, 5000)


def test_statements_of_unknown_likelihood_are_present():
    said, rest = scp.labels_of(scp.parse_codes("{'NORM': 80.0, 'SR': 0.0, 'LAO/LAE': 0.0, 'ISC_': 50.0}"))
    assert said == {"sinus_rhythm", "lae", "ischaemia_or_infarct"} and rest == ("NORM",)
    assert {label for labels in scp.SCP.values() for label in labels} <= set(snomed.LABELS)
    assert scp.parse_codes("{}") == {}


@pytest.mark.parametrize(
    "text",
    ["", "NORM", "{'NORM': 'x'}", "{'NORM': 101.0}", "{'NORM': 1.0, 'NORM': 2.0}", "{'NORM': 1.0,}", "{'a b': 1}"]
    + ["{" * 5000, "{'NORM': " + "9" * 400 + "}", "{'NORM': __import__('os')}", "{'NORM\": 1.0}"],
)
def test_cells_that_are_no_statements_are_refused(text):
    with pytest.raises(scp.ScpError, match="correct the cell"):
        scp.parse_codes(text)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (changed(1, 3, "2"), "line 2: sex is '2'"),
        (changed(1, 5, "NORM"), "line 2: scp_codes 'NORM'"),
        (changed(2, 6, 11), "line 3: strat_fold is '11'"),
        (changed(2, 1, "x"), "line 3: patient_id is 'x'"),
        (changed(2, 4, "14.11.1984"), "line 3: .*14.11.1984"),
        (changed(2, 6, 8), "patient 13243 is in folds 8 and 7"),
        (changed(2, 0, 1), "ecg_id 1 stands twice"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, rows, words):
    with pytest.raises(RecordError, match=words):
        ptbxl.read_table(write_ptbxl(tmp_path / "ptbxl", rows, records=()))


def test_a_folder_that_is_no_ptbxl(tmp_path):
    with pytest.raises(RecordError, match="no ptbxl_database.csv"):
        ptbxl.read_table(tmp_path)
    with pytest.raises(RecordError, match="none of the 4 records"):
        ptbxl.read_table(write_ptbxl(tmp_path, records=()))
    table = tmp_path / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("records500/00000/00001_hr", "../../etc/passwd"))
    with pytest.raises(RecordError, match="not a path below the folder"):
        ptbxl.read_table(tmp_path)
    table.write_text("ecg_id,age\n1,2\n")
    with pytest.raises(RecordError, match="lacks the columns patient_id"):
        ptbxl.read_table(tmp_path)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="no CSV in UTF-8"):
        ptbxl.read_table(tmp_path)


def test_a_name_too_long_for_a_file_is_a_record_that_is_not_there(tmp_path):
    table = write_ptbxl(tmp_path, records=(1,)) / "ptbxl_database.csv"
    whole = table.read_text()
    assert whole.count("records500/00000/00002_hr") == 1
    table.write_text(whole.replace("records500/00000/00002_hr", "a" * 1000))
    found = ptbxl.read_table(tmp_path)
    assert [e.ecg_id for e in found.entries] == [1] and 2 in [e.ecg_id for e in found.without_record]


def test_nobody_is_on_two_sides_of_a_split(tmp_path):
    """The Challenge's HR records are PTB-XL's: they follow its folds, and an ECG that both hold counts once."""
    folders = (write_ptbxl(tmp_path / "ptbxl", records=(1, 2, 3)), None, write_challenge(tmp_path / "challenge"))
    sides = {split: real_beats(*folders, split) for split in ("train", "valid", "test")}
    assert sides["train"].record == ["00001_hr", "JS20000"] and sides["train"].source == ["ptbxl", "challenge"]
    assert sides["valid"].patient == ["ptbxl/13243", "ptbxl/13243"] and sides["valid"].fold.tolist() == [7, 7]
    assert sides["test"].record == ["HR00004"] and sides["test"].patient == ["ptbxl/20372"]
    assert sides["train"].age_years.tolist() == [56.0, 61.0] and sides["train"].sex_female.tolist() == [1.0, 1.0]
    train = sides["train"]
    assert train.beat_mv.shape == (2, 8, SAMPLES) and bool(train.measured.trusted.all())
    assert int(train.beat_mv[0, 1].argmax()) == pytest.approx(R_SAMPLE, abs=3)


def test_what_is_kept_is_what_was_read_and_is_made_anew_when_the_records_change(tmp_path):
    folder, cache = write_ptbxl(tmp_path / "ptbxl"), tmp_path / "cache"
    first = real_beats(folder, None, None, "valid", cache=cache)
    again = real_beats(folder, None, None, "valid", cache=cache)
    for name, value in first.measured._asdict().items():
        other = getattr(again.measured, name)
        assert other.dtype == value.dtype and torch.equal(other.nan_to_num(-1.0), value.nan_to_num(-1.0)), name
    assert torch.equal(again.beat_mv, first.beat_mv) and again.patient == first.patient
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # cut short
    assert torch.equal(real_beats(folder, None, None, "valid", cache=cache).beat_mv, first.beat_mv)
    write_ptbxl(folder, [r for r in PTBXL_ROWS if r[0] != 3])
    assert len(real_beats(folder, None, None, "valid", cache=cache).beat_mv) == 1


def test_no_beats_say_why(tmp_path):
    with pytest.raises(ValueError, match="split='all' is unknown"):
        real_beats(tmp_path, None, None, "all")
    with pytest.raises(RecordError, match="no source"):
        real_beats(None, None, None, "train")
    with pytest.raises(RecordError, match="no ECG of the split 'test'"):
        real_beats(None, None, write_challenge(tmp_path / "c", ("JS20000",)), "test")
    folder = write_ptbxl(tmp_path / "ptbxl")
    (folder / "records500/00000/00001_hr.dat").write_bytes(b"short")
    with pytest.raises(RecordError, match="1 of 1 records cannot be read"):
        real_beats(folder, None, None, "train", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@needs_ptbxl
def test_real_records_of_all_folds_but_the_authors_own():
    table = ptbxl.read_table(DATA / "ptbxl")
    assert len(table.entries) == 353 and not table.without_record
    assert {entry.fold for entry in table.entries} == set(range(1, 9))
    rest = {code for entry in table.entries for code in scp.labels_of(entry.scp)[1]}
    assert rest <= {"NORM", "ABQRS", "HVOLT", "DIG", "EL", "SEHYP", "ANEUR"}


@pytest.mark.slow
@needs_ptbxl
def test_real_beats_of_the_two_sides_are_of_other_people(tmp_path):
    sides = [real_beats(DATA / "ptbxl", DATA / "ludb", DATA / "ecg_12lead/cinc2021", s) for s in ("train", "valid")]
    assert not set(sides[0].patient) & set(sides[1].patient)
    assert len(sides[0].beat_mv) > 330 and len(sides[1].beat_mv) > 150
    assert set(sides[0].fold.tolist()) == set(range(7)) and set(sides[1].fold.tolist()) == {0, 7, 8}
    assert all(bool(torch.isfinite(side.beat_mv).all()) for side in sides)
