"""Headers that ask for the impossible, files outside the record's folder, random damage: one named error, at once."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.data.test_wfdb_reader import _ecg, _write
from world_models.data.ecg.ludb import read_record
from world_models.data.ecg.wfdb import header as wfdb_header
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
from world_models.ecg.lead_names import LEADS

SIGNALS = [f"r.dat 16 1000/mV 16 0 0 0 0 {name}" for name in LEADS]


@pytest.fixture(scope="module")
def samples() -> bytes:
    return np.round(_ecg() * 1000).astype("<i2").tobytes()


def _put(folder: Path, first: str, lines: list[str], content: bytes = b"") -> Path:
    (folder / "r.hea").write_text("\n".join([first, *lines]) + "\n")
    (folder / "r.dat").write_bytes(content)
    return folder / "r"


def _refused(base: Path, match: str, within_s: float = 1.0) -> None:
    start = time.process_time()
    with pytest.raises(RecordError, match=match):
        read_ecg(base)
    assert time.process_time() - start < within_s


@pytest.mark.parametrize(
    ("first", "line", "match"),
    [
        ("r 20000 500 5000", None, "number of signals 20000 is outside 0 to 1024"),
        ("r/1000000000 12 500 5000", None, "number of segments 1000000000 is outside 1 to 100000"),
        ("r/99999 12 500 5000", None, "states 99999 segments, but 12 segment lines follow"),
        ("r 12 500 1000000000000000000", None, "number of samples 10{18} is outside"),
        ("r 12 500 1000000000000", None, "r.dat holds 5000 samples of each signal, its header states 1000000000000"),
        ("r 12 500 5000", "r.dat 16x1000000000 1000/mV 16 0 0 0 0 I", "samples a frame 1000000000 is outside"),
        ("r 12 500 5000", "r.dat 16x9999 1000/mV 16 0 0 0 0 I", "sampling rate|holds"),
        ("r 12 500 5000", "r.dat 16:999999999 1000/mV 16 0 0 0 0 I", "skew 999999999 is outside"),
        ("r 12 500 5000", "r.dat 16:4000 1000/mV 16 0 0 0 0 I", "a skew of 4000 samples is 8.0 s, over 1 s"),
        ("r 12 500 5000", "r.dat 16+99999999999999 1000/mV 16 0 0 0 0 I", "byte offset .* is outside"),
        ("r 12 500 5000", "r.dat 16 1e-300/mV 16 0 0 0 0 I", "gain 1e-300 is outside"),
        ("r 12 500 5000", "r.dat 16 inf/mV 16 0 0 0 0 I", "gain 'inf/mV' is not in the form"),
        ("r 12 500 5000", "r.dat 16 1000,0/mV 16 0 0 0 0 I", "signal 1: gain '1000,0/mV' .*decimal point"),
        ("r 12 500 5000", "r.dat 17 1000/mV 16 0 0 0 0 I", "format '17' is unknown"),
        ("r 12 500 5000", "r.dat 212 1000/mV 16 0 0 0 0 I", "differ in format"),
        ("r 12 500 5000", "r.dat 16 1000/mV twelve 0 0 0 0 I", "ADC resolution 'twelve' is no whole number"),
        ("r 12 500 5000", "r.dat", "has no format"),
        ("r 12 nan 5000", None, "sampling rate 'nan' is no number"),
        ("r 12 500,5 5000", None, "sampling rate '500,5' is no number; write a decimal point"),
        ("r 12 1e9 5000", None, "sampling rate 1e.09 Hz is outside 100 to 10000 Hz"),
        ("r 12 500 -5", None, "number of samples -5 is outside"),
        ("r 12 500 5000 2014-05-08 05:05:15", None, "start time '2014-05-08' is not in WFDB's form; write HH:MM:SS"),
        ("r 12 500 5000 05:05:15 2014-05-08", None, "start date '2014-05-08' is not in WFDB's form"),
        ("r 12 500 5000", "r.dat 16 " + "1" * 40_000 + "x 16 0 0 0 0 I", "a field of 40001 characters"),
        ("r 13 500 5000", None, "states 13 signals, but 12 signal lines follow"),
        ("r/12 12 500 5000", None, "segment 1: length '16' is no|does not exist|states 5000 samples, its segments"),
    ],
)
def test_headers_beyond_their_limits(tmp_path, samples, first, line, match):
    _refused(_put(tmp_path, first, [line or SIGNALS[0], *SIGNALS[1:]], samples), match)


@pytest.mark.parametrize("name", ["/etc/passwd", "../out.dat", "sub/r.dat", "..", "C:r.dat", "a\\r.dat"])
def test_files_elsewhere_are_refused_by_name(tmp_path, samples, name):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "out.dat").write_bytes(samples)
    _refused(
        _put(inner, "r 12 500 5000", [line.replace("r.dat", name) for line in SIGNALS]),
        "outside the record.s own folder",
    )
    (inner / "r.hea").write_text(f"r/1 12 500 5000\n{name} 5000\n")
    _refused(inner / "r", "outside the record.s own folder")


def test_links_pipes_and_folders_are_no_data_files(tmp_path, samples):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "out.dat").write_bytes(samples)
    base = _put(inner, "r 12 500 5000", SIGNALS, samples)
    assert read_ecg(base).ecg_mv.shape == (12, 5000)
    dat = inner / "r.dat"
    dat.rename(inner / "q.dat")
    dat.symlink_to("q.dat")
    assert read_ecg(base).ecg_mv.shape == (12, 5000)  # a link within the folder
    for target in (tmp_path / "out.dat", "/dev/zero"):
        dat.unlink()
        dat.symlink_to(target)
        _refused(base, "link that leads out of its folder")
    dat.unlink()
    dat.symlink_to("r.dat")
    _refused(base, "cannot be read|link")
    dat.unlink()
    dat.mkdir()
    _refused(base, "cannot be read|no regular file")
    dat.rmdir()
    os.mkfifo(dat)
    _refused(base, "r.dat is no regular file")
    header = inner / "p.hea"
    os.mkfifo(header)
    _refused(header, "p.hea is no regular file")


@pytest.mark.parametrize("name", ["xé.dat", "x.y.dat", "x+1.dat", "~x.dat", "x"])
def test_the_file_that_was_checked_is_the_one_read(tmp_path, samples, name):
    """Names that a laxer reading of the header would cut short, to a link that leads out of the folder."""
    expected = read_ecg(_put(tmp_path, "r 12 500", SIGNALS, samples)).ecg_mv
    base = _put(tmp_path, "r 12 500", [line.replace("r.dat", name) for line in SIGNALS], samples)
    (tmp_path / "r.dat").rename(tmp_path / name)
    for other in ("x.dat", ".dat", "x", "x.y"):
        if other != name:
            (tmp_path / other).symlink_to("/dev/zero")
    np.testing.assert_array_equal(read_ecg(base).ecg_mv, expected)


@pytest.mark.parametrize("version", [4, 5])
def test_matlab_files(tmp_path, samples, version):
    values = np.frombuffer(samples, "<i2").reshape(-1, len(LEADS)).T
    scipy.io.savemat(tmp_path / "r.mat", {"val": values}, format=str(version))
    lines = [line.replace("r.dat 16", "r.mat 16+24") for line in SIGNALS]
    base = _put(tmp_path, f"r {len(LEADS)} 500 {values.shape[1]}", lines)
    if version == 4:
        assert read_ecg(base).ecg_mv.shape == (12, values.shape[1])
    else:
        _refused(base, "MATLAB file of version 5.*-v4")


def test_a_folder_whose_name_is_taken_for_an_archive(tmp_path, samples):
    (tmp_path / "a::b").mkdir()
    _refused(_put(tmp_path / "a::b", "r 12 500 5000", SIGNALS, samples), "rename the folder")


def test_segments_that_lead_nowhere(tmp_path, samples):
    base = _put(tmp_path, "r/1 12 500 5000", ["r 5000"])
    _refused(base, "empty|segments itself")
    (tmp_path / "s.hea").write_text("\n".join(["s 12 250 5000", *SIGNALS]) + "\n")
    (tmp_path / "r.dat").write_bytes(samples)
    (tmp_path / "r.hea").write_text("r/1 12 500 5000\ns 5000\n")
    _refused(base, "250 Hz, but the record r states 500 Hz")
    (tmp_path / "r.hea").write_text("r/1 12 250 4000\ns 4000\n")
    _refused(base, "5000 samples, but the record r states 4000")
    (tmp_path / "r.hea").write_text("r/5000 12 500 5000\n" + "s 1\n" * 5000)
    _refused(base, "5000 segments in the 120 s read, over 1000")


def test_files_too_large(tmp_path, samples, monkeypatch):
    base = _put(tmp_path, "r 12 500 5000", SIGNALS, samples)
    with open(tmp_path / "r.dat", "r+b") as file:
        file.truncate(1 << 34)  # 16 GiB with a hole: only the header's length of it is read
    assert read_ecg(base).ecg_mv.shape == (12, 5000)
    monkeypatch.setattr(wfdb_header, "FILE_BYTES", 1 << 33)
    _refused(base, "bytes, over")
    with open(tmp_path / "r.hea", "r+b") as file:
        file.truncate(1 << 24)
    _refused(base, "too long for a WFDB header")


def test_marks_of_a_damaged_database(tmp_path, samples):
    (tmp_path / "data").mkdir()
    (tmp_path / "ludb.csv").write_text("ID,Sex,Age,Rhythms,Cardiac pacing,Conduction abnormalities\nr,F,50,,,\n")
    _put(tmp_path / "data", "r 12 500 5000", SIGNALS, samples)
    for lead in LEADS:
        (tmp_path / "data" / f"r.{lead.lower()}").write_bytes(b"\x01")
    with pytest.raises(RecordError, match="holds no marks"):
        read_record(tmp_path, "r")
    (tmp_path / "data" / "r.i").unlink()
    os.mkfifo(tmp_path / "data" / "r.i")
    with pytest.raises(RecordError, match="no regular file"):
        read_record(tmp_path, "r")


def test_comments_made_to_be_slow(tmp_path, samples):
    """Patterns that a backtracking search could try in endlessly many ways."""
    for text in ("age at " * 100_000, "Age: " + "1" * 40 + "!", "Age: " + "1 " * 100_000, "Age: " + "1 y " * 9 + "!"):
        base = _put(tmp_path, "r 12 500 5000", [*SIGNALS, *["# " + text] * 5], samples)
        start = time.process_time()
        assert read_ecg(base).age_years is None
        assert time.process_time() - start < 1.0


def _mutated(content: bytes, rng: random.Random) -> bytes:
    """A few random edits: bytes changed, taken out, doubled, or fields and numbers of the header exchanged."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(data)) if data else 0
        edit = rng.randrange(6)
        if edit == 0 and data:
            data[place] = rng.randrange(256)
        elif edit == 1:
            del data[place : place + rng.choice((1, 3, 100))]
        elif edit == 2:
            data[place:place] = data[place : place + rng.choice((1, 20, 400))]
        elif edit == 3:
            data[place:place] = rng.choice(
                (b"/", b"x999", b":7", b"+3", b"(", b"-1", b"1e9", b"\n", b" ", b"~", b"\xff")
            )
        elif edit == 4:
            del data[place:]
        else:
            fields = bytes(data).split(b" ")
            i, j = rng.randrange(len(fields)), rng.randrange(len(fields))
            fields[i], fields[j] = fields[j], fields[i]
            data = bytearray(b" ".join(fields))
    return bytes(data)


def test_damaged_records_are_read_or_give_one_named_error(tmp_path, samples):
    rng = random.Random(20)
    plain, cut = tmp_path / "plain", tmp_path / "cut"
    plain.mkdir()
    cut.mkdir()
    _put(plain, "r 12 500 5000 10:00:00 01/02/2003", [*SIGNALS, "# Age: 50", "# Sex: F"], samples)
    flac = _write(cut, _ecg()[:, :8], "f", leads=[*LEADS[:2], *LEADS[6:]], fmt="516")
    (cut / "r.hea").write_text("r/2 8 500 10000\nf 5000\nf 5000\n# Age: 50\n")
    targets = [
        (plain / "r", plain / "r.hea"),
        (plain / "r", plain / "r.dat"),
        (cut / "r", cut / "r.hea"),
        (cut / "r", flac.with_suffix(".hea")),
        (cut / "r", flac.with_suffix(".dat")),
    ]
    read, refused, start = 0, 0, time.process_time()
    for k in range(300):
        base, target = targets[k % len(targets)]
        whole = target.read_bytes()
        target.write_bytes(_mutated(whole, rng))
        try:
            found = read_ecg(base)
            read += 1
            assert found.ecg_mv.shape[0] == 12 and found.ecg_mv.isfinite().all()
        except RecordError as error:
            refused += 1
            assert len(str(error)) > 20
        target.write_bytes(whole)
    assert read > 50 and refused > 50 and time.process_time() - start < 20
