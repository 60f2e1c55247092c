"""Monoliths that were killed, damaged or made up: what is read is what was written, or one kind of error says why
not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.data.test_ecg_monolith import assert_rows, rows, writer
from tests.kills import every, kill_at, needs_fork
from world_models.data.ecg import monolith_file, monolith_writer
from world_models.data.ecg.monolith import MonolithError, read_monolith

ROWS, BATCH = 21, 5


def write_all(path: Path, **other) -> None:
    """Go on until all rows are there, as a program does that is started again with the same command."""
    if path.exists():
        return
    with writer(path, **other) as w:
        while w.rows < ROWS:
            w.append(**rows(w.rows, min(BATCH, ROWS - w.rows)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monolith_writer, "GROW_ROWS", 6)  # then there are two growths and a cut at the end


@pytest.fixture
def whole(tmp_path: Path, small: None) -> Path:
    write_all(tmp_path / "whole.h5")
    return tmp_path / "whole.h5"


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("most", [None, ROWS])
def test_a_run_killed_anywhere_goes_on_to_the_same_file(tmp_path: Path, small: None, most: int | None) -> None:
    """A sample of the lines that the writer runs through; a second run is killed as well, the third ends."""
    line, killed, resumed = 0, True, 0
    while killed:
        path = tmp_path / f"{line}.h5"
        killed = kill_at(line, lambda path=path: write_all(path, most=most), monolith_writer, monolith_file)
        resumed += path.with_name(path.name + ".part").exists()
        kill_at(line // 3, lambda path=path: write_all(path, most=most), monolith_writer, monolith_file)
        write_all(path, most=most)
        assert_rows(path, ROWS)
        assert not list(tmp_path.glob(f"{line}.h5.*")), "nothing half done is left"
        line += every(263)
    assert resumed > 2


def test_a_full_disk_is_named_and_what_was_written_is_kept(tmp_path: Path, small: None, monkeypatch) -> None:
    """Each write, growth and note of h5py fails once; the next run ends as if nothing had been."""
    for name in ("__setitem__", "flush"):
        of = h5py.Dataset if name == "__setitem__" else h5py.File
        honest = getattr(of, name)
        for failing in range(0, 80, 16):
            left = [failing]

            def write(self, *given, left=left, honest=honest):
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(28, "no space left on device")
                return honest(self, *given)

            path = tmp_path / f"{name}{failing}.h5"
            with monkeypatch.context() as patch:
                patch.setattr(of, name, write)
                try:
                    write_all(path)
                except MonolithError as error:
                    assert "no space left" in str(error) and "run it again" in str(error)
                else:
                    assert left[0] >= 0
            write_all(path)
            assert_rows(path, ROWS)


def test_flipped_bytes_are_found_or_mean_nothing(whole: Path) -> None:
    """Where the structure stands each flip in turn, elsewhere a seeded sample, and files cut short."""
    content = whole.read_bytes()
    truth = read_monolith(whole)
    rng = np.random.default_rng(3)
    refused = 0
    for trial in range(200):
        harmed = bytearray(content)
        place = int(rng.integers(6200 if trial % 2 else len(content)))
        if trial % 8 == 7:
            del harmed[place:]
        else:
            harmed[place] ^= 1 << int(rng.integers(8))
        whole.write_bytes(harmed)
        try:
            found = read_monolith(whole)
        except MonolithError as error:
            refused += 1
            assert "again" in str(error) and str(whole) in str(error)
            continue
        assert (found.codes, found.sampling_rate_hz) == (truth.codes, truth.sampling_rate_hz)
        for here, there in zip(found, truth, strict=True):
            assert not isinstance(here, torch.Tensor) or here.nan_to_num().equal(there.nan_to_num())
    assert refused > 120


def test_a_damaged_part_is_not_continued(tmp_path: Path, small: None) -> None:
    path = tmp_path / "m.h5"
    w = writer(path)
    w.append(**rows(0, 5))
    w.abandon()
    part = tmp_path / "m.h5.part"
    holding = f"import h5py; f = h5py.File({str(part)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(MonolithError, match="open in another process.*let that one end first") as caught:
            writer(path)
        assert "remove" not in str(caught.value)
        other.communicate(b"\n")
    with h5py.File(part, "r+") as file:
        file["ecg"][3, 4, 5] += 0.5
    with pytest.raises(MonolithError, match="row 3 is not what was written"):
        writer(path)
    part.rename(path)
    with pytest.raises(MonolithError, match="holds 5 rows of 6"):
        read_monolith(path)


def _elsewhere(file: h5py.File, kind: str, other: Path) -> None:
    """Put `ecg` somewhere else, as a file does that wants its reader to open another."""
    shape, dtype = file["ecg"].shape, file["ecg"].dtype
    del file["ecg"]
    match kind:
        case "soft link":
            file["hidden"] = np.zeros(shape, dtype)
            file["ecg"] = h5py.SoftLink("/hidden")
        case "external link":
            file["ecg"] = h5py.ExternalLink(str(other), "ecg")
        case "external storage":
            size = int(np.prod(shape)) * dtype.itemsize
            file.create_dataset("ecg", shape, dtype, external=[(str(other), 0, size)])
        case "virtual data set":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(str(other), "ecg", shape)
            file.create_virtual_dataset("ecg", layout)
        case "chunks":
            file.create_dataset("ecg", shape, dtype, chunks=True, compression="gzip")


@pytest.mark.parametrize("kind", ["soft link", "external link", "external storage", "virtual data set", "chunks"])
def test_rows_that_lie_elsewhere_are_refused(whole: Path, kind: str) -> None:
    other = whole.with_name("other.h5")
    shutil.copy(whole, other)
    with h5py.File(whole, "r+") as file:
        _elsewhere(file, kind, other)
    with pytest.raises(
        MonolithError, match="link to somewhere else" if "link" in kind else "in one piece in this file"
    ):
        read_monolith(whole)


def test_made_up_files_are_refused_before_memory_is_taken(whole: Path) -> None:
    good = whole.read_bytes()

    def refused(change, words: str) -> None:
        whole.write_bytes(good)
        with h5py.File(whole, "r+") as file:
            change(file)
        with pytest.raises(MonolithError, match=words):
            read_monolith(whole)

    def replaced(name: str, **other):
        def change(file: h5py.File) -> None:
            del file[name]
            file.create_dataset(name, **other)

        return change

    def other_codes(file: h5py.File) -> None:
        text = file["layout"][:].tobytes().replace(b"I44", b"I45")
        file["layout"][...] = np.frombuffer(text, np.uint8)

    refused(other_codes, "not the one it was written with")
    refused(lambda f: f.attrs.modify("version", 1), "not a monolith of version 2")
    refused(lambda f: f.attrs.__setitem__("version", "x"), "damaged")
    refused(lambda f: f.__delitem__("layout"), "without layout")
    refused(replaced("patient", data=np.zeros(ROWS)), "patient is float64")
    refused(replaced("patient", data=np.zeros(ROWS + 1, np.int64)), r"not int64 \[21\]")
    refused(replaced("ecg", shape=(1 << 40, 12, 50), dtype="float16"), "not within the file")
    refused(replaced("label", data=[[b"yes"] * 3] * ROWS, dtype=h5py.string_dtype()), "label is object")
    refused(lambda f: f.create_group("days2") and f.move("days", "gone") or f.move("days2", "days"), "damaged|days")
