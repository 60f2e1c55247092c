"""Files are there whole or not at all."""

from __future__ import annotations

import pytest

from world_models.files import replacing, write_bytes, write_text


def test_the_old_file_stays_where_the_new_one_does_not_end_well(tmp_path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old\n")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as part:
        assert part.suffix == ".csv" and part.parent == tmp_path
        part.write_text("new")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old\n" and list(tmp_path.iterdir()) == [path]
    write_bytes(path, b"new\n")
    assert path.read_bytes() == b"new\n" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_replaces_nothing(tmp_path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old\n")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old\n"


def test_writers_of_one_file_in_one_process_do_not_meet(tmp_path) -> None:
    path = tmp_path / "table.csv"
    with replacing(path) as one, replacing(path) as other:
        assert one != other, "threads, and containers on one disk, have one process number"
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
