"""Raw tables (csv.gz, csv or parquet) to shards: each read once, lazily, with bounded memory, and split by patient.

DuckDB scans and types a table, batch by batch; each batch is dealt out to one parquet file a shard. A shard is a folder
with all tables of its patients, and so the unit of work for any cluster. A table is written under other names and takes
its own name when it is complete, with a note `<table>.done.json` of what was read: a run that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from world_models.config_json import parse_json
from world_models.data.ehr.cells import NO_ID, EhrDataError, Habits, find_habits, trimmed, undecided, value_of
from world_models.data.ehr.flow import Ledger
from world_models.files import write_text

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "EhrDataError",
    "RowFilter",
    "TableSpec",
    "deal",
    "empty_frame",
    "find_table",
    "frame_of",
    "read_shard_table",
    "scan",
    "shard_of_subject",
]

FORMATS = (".parquet", ".csv.gz", ".csv")
BATCH_ROWS = 65536
BUFFER_ROWS = 400_000
# Of one of the first lines of a CSV. DuckDB tries every way to tell cells apart in four times as much as this: in the
# 32 MB that it takes by itself, one line without end costs 12 s of a processor before it is refused.
MOST_LINE_BYTES = 1_000_000

# (batch) -> the rows to keep, and the reason why the others are not
RowFilter: TypeAlias = "Callable[[pa.RecordBatch], tuple[np.ndarray, str]]"


@dataclass(frozen=True)
class TableSpec:
    """A table as its publisher names it. `columns`: name -> id, float, amount (a number as text, or a range), flag,
    text or time; `optional` ones may be absent."""

    name: str
    columns: dict[str, str]
    optional: frozenset[str] = frozenset()
    keep: RowFilter | None = field(default=None, compare=False)


def find_table(folder: str | Path, name: str) -> Path | None:
    """`<folder>/[hosp/|icu/]<name>.parquet|.csv.gz|.csv`, whatever the case; None where there is none."""
    folder = Path(folder)
    for place in (folder, folder / "hosp", folder / "icu"):
        if not place.is_dir():
            continue
        files = {path.name.lower(): path for path in place.iterdir() if path.is_file()}
        for suffix in FORMATS:
            if name.lower() + suffix in files:
                return files[name.lower() + suffix]
    return None


def connect(memory_limit: str = "1GB", spill: str | Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own in memory, one thread, that spills to `spill` beyond `memory_limit`."""
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "threads": 1,
        "preserve_insertion_order": True,
    }
    if spill is not None:
        settings["temp_directory"] = str(spill)
    db = duckdb.connect(config=settings)
    db.execute("SET GLOBAL TimeZone = 'UTC'")  # else a time with a zone is read in that of the machine
    return db


def _source(path: Path, first_lines: bool = False) -> str:
    """The table as DuckDB's FROM takes it, to be read or (`first_lines`) to be asked for its columns at little cost.
    Wildcards in the path are meant as they stand, a folder named `subject_id=1` adds no column."""
    quoted = re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''")
    if path.suffix.lower() == ".parquet":
        return f"read_parquet('{quoted}', hive_partitioning=false)"
    limits = f", max_line_size={MOST_LINE_BYTES}, buffer_size={4 * MOST_LINE_BYTES}" if first_lines else ""
    return f"read_csv('{quoted}', all_varchar=true, header=true, hive_partitioning=false{limits})"


def scan(
    path: str | Path,
    spec: TableSpec,
    memory_limit: str = "1GB",
    spill: Path | None = None,
    date_order: str | None = None,
    ledger: Ledger | None = None,
) -> Iterator[pa.RecordBatch]:
    """Record batches with the columns of `spec`, found whatever their case; an absent optional one is all null.

    One pass, but for a table with dates or numbers that only its other cells can tell how to read (see `cells`):
    those are looked at first where the first such row is met. Cells that say something and cannot be read are null, and
    counted in `ledger`.

    Raises:
        EhrDataError: no such file, a column missing, a file cut short or not of its format; dates or commas that may
            mean two things.
    """
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc

    path = Path(path)
    if not path.is_file():
        raise EhrDataError(f"no file {path}; give a folder that holds the table {spec.name}")
    try:
        with connect(memory_limit, spill) as db:
            source = _source(path)
            rows = db.execute(f"DESCRIBE SELECT * FROM {_source(path, first_lines=True)}").fetchall()
            there, types = {row[0].lower(): row[0] for row in rows}, {row[0]: row[1] for row in rows}
            missing = [name for name in spec.columns if name.lower() not in there and name not in spec.optional]
            if missing:
                raise EhrDataError(
                    f"{path} lacks the column(s) {', '.join(missing)}; a table {spec.name} has "
                    f"{', '.join(spec.columns)}: give the table as published (found: {', '.join(there)}; "
                    "where these are not its names, a row has more or fewer cells than the header, or is cut short)"
                )
            names = {there[name.lower()]: name for name in spec.columns if name.lower() in there}
            kinds = {theirs: spec.columns[ours] for theirs, ours in names.items()}
            _refuse_inexact(db, source, {c: types[c] for c, kind in kinds.items() if kind == "id"}, path)

            cells = trimmed(source, kinds)

            def read(habits: Habits | None, skip: int) -> Iterator[pa.RecordBatch]:
                wanted = []
                for name, kind in spec.columns.items():
                    theirs = there.get(name.lower())
                    wanted.append(f'{_null(kind) if theirs is None else value_of(theirs, kind, habits)} AS "{name}"')
                open_ = undecided(kinds) if habits is None else "FALSE"
                result = db.cursor().sql(f'SELECT {", ".join(wanted)}, {open_} AS "{_OPEN}" FROM {cells} OFFSET {skip}')
                # the name in DuckDB 2, else the one before it
                yield from (getattr(result, "to_arrow_reader", None) or result.fetch_arrow_reader)(BATCH_ROWS)

            done = 0
            for batch in read(None, 0):
                if pc.any(batch.column(_OPEN)).as_py():
                    break
                done += batch.num_rows
                yield batch.drop_columns(_OPEN)
            else:
                return
            habits = find_habits(db, cells, kinds, str(path), date_order)
            if ledger is not None:
                ledger.repaired.update({f"{names[c]} cannot be read: left out": n for c, n in habits.unread.items()})
            for batch in read(habits, done):
                yield batch.drop_columns(_OPEN)
    except (duckdb.Error, pa.ArrowException) as error:
        first = str(error).strip().splitlines()[0]
        raise EhrDataError(
            f"{path} cannot be read as a table ({first}): it is cut short, damaged or not what its name says; "
            "fetch or write it again"
        ) from error


_EXACT = {"FLOAT": 2**24, "DOUBLE": 2**53}  # whole numbers up to these are told apart


def _refuse_inexact(db: duckdb.DuckDBPyConnection, source: str, ids: dict[str, str], path: Path) -> None:
    """Raises EhrDataError for an id that has lost digits to its column's type."""
    for name, limit in ((name, _EXACT[kind]) for name, kind in ids.items() if kind in _EXACT):
        quoted = '"' + name.replace('"', '""') + '"'
        row = db.execute(f"SELECT MAX(ABS({quoted})) FILTER (ISFINITE({quoted})) FROM {source}").fetchone()
        most = None if row is None else row[0]
        if most is not None and most > limit:
            raise EhrDataError(
                f"{path}, column {name}: {most:.0f} is above {limit}, from where on its type ({ids[name]}) does not "
                "tell ids apart; write the column as int64"
            )


_OPEN = "what the row says depends on others"


def _null(kind: str) -> str:
    return {"id": "NULL::BIGINT", "float": "NULL::DOUBLE", "flag": "NULL::DOUBLE", "time": "NULL::TIMESTAMP"}.get(
        kind, "NULL::VARCHAR"
    )


def shard_of_subject(subject_ids: np.ndarray, n_shards: int) -> np.ndarray:
    """Shard int64 [N] of each subject id: a fixed mix, so a patient is in the same shard of every table and run."""
    mixed = subject_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(n_shards)).astype(np.int64)


def deal(
    batches: Iterator[pa.RecordBatch],
    name: str,
    shards: Path,
    shard_of: Callable[[np.ndarray], np.ndarray],
    keep: RowFilter | None = None,
    progress: Callable[[int], None] | None = None,
    ledger: Ledger | None = None,
) -> Ledger:
    """Write `<shards>/<NNNN>/<name>.parquet` of batches that have a `subject_id`; all files appear at the end at once.

    `shard_of` gives -1 for a subject who is not wanted. Returns the ledger of the rows (`ledger`, where `batches`
    counts in one too); it is also left as `<shards>/../<name>.done.json`, and where that exists already nothing is
    read.

    Raises:
        EhrDataError: no row at all has a subject_id that is a whole number.
    """
    import pyarrow as pa

    done = shards.parent / f"{name}.done.json"
    if done.is_file():
        return Ledger.from_dict(parse_json(done.read_bytes(), str(done)))
    ledger = Ledger() if ledger is None else ledger
    looked_at = nobody = 0
    with _ShardFiles(name, shards) as files:
        for batch in batches:
            ledger.read += batch.num_rows
            if progress is not None:
                progress(batch.num_rows)
            if keep is not None:
                mask, reason = keep(batch)
                ledger.dropped[reason] += int((~mask).sum())
                batch = batch.filter(pa.array(mask))
            place, known = _places(batch, shard_of)
            looked_at, nobody = looked_at + len(known), nobody + int((~known).sum())
            ledger.dropped["no subject_id, or a subject of no shard"] += int((place < 0).sum())
            ledger.kept += files.add(batch, place)
        if nobody and nobody == looked_at:
            raise EhrDataError(
                f"table {name}: none of its {nobody} rows has a subject_id that is a whole number below 2**63; number "
                "the patients"
            )
    ledger.dropped += Counter()  # zero counts go
    write_json(done, ledger.as_dict())
    return ledger


def _places(batch: pa.RecordBatch, shard_of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The shard [N] of each row, -1 for none; whether the row has a subject_id, bool [N]."""
    subject = batch.column(batch.schema.get_field_index("subject_id"))
    known = subject.is_valid().to_numpy(zero_copy_only=False)
    place = np.full(batch.num_rows, -1, np.int64)
    place[known] = shard_of(subject.drop_null().to_numpy(zero_copy_only=False).astype(np.int64))
    return place, known


class _ShardFiles:
    """One table's parquet file in each shard, buffered; all get their names when the block ends without an error."""

    def __init__(self, name: str, shards: Path) -> None:
        self._name, self._shards = name, shards
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._held: dict[int, list[pa.RecordBatch]] = {}
        self._rows = 0  # buffered, those of no shard counted

    def add(self, batch: pa.RecordBatch, place: np.ndarray) -> int:
        """Deal out the rows by their shard [N], -1 for none; returns how many have one."""
        import pyarrow as pa

        order = np.argsort(place, kind="stable")
        values, starts, counts = np.unique(place[order], return_index=True, return_counts=True)
        ordered = batch.take(pa.array(order))
        dealt = 0
        for shard, start, count in zip(values.tolist(), starts.tolist(), counts.tolist(), strict=True):
            if shard >= 0:
                self._held.setdefault(shard, []).append(ordered.slice(start, count))
                dealt += count
        self._rows += batch.num_rows
        if self._rows >= BUFFER_ROWS:
            self._flush()
        return dealt

    def _part(self, shard: int) -> Path:
        return self._shards / f"{shard:04d}" / f"{self._name}.parquet.part"

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for shard, parts in self._held.items():
            table = pa.Table.from_batches(parts)
            if shard not in self._writers:
                self._part(shard).parent.mkdir(parents=True, exist_ok=True)
                self._writers[shard] = pq.ParquetWriter(self._part(shard), table.schema)
            self._writers[shard].write_table(table)
        self._held.clear()
        self._rows = 0

    def __enter__(self) -> _ShardFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                for writer in self._writers.values():
                    writer.close()
        except BaseException:
            self._discard()
            raise
        if kind is not None:
            self._discard()
            return
        for shard in self._writers:
            os.replace(self._part(shard), self._part(shard).with_suffix(""))

    def _discard(self) -> None:
        for shard, writer in self._writers.items():
            writer.close()
            self._part(shard).unlink(missing_ok=True)


def read_shard_table(folder: str | Path, spec: TableSpec) -> pd.DataFrame:
    """One table of a shard as a pandas frame; empty, with its columns, where the shard has none of it. An id that is
    not told is `NO_ID`: as a float64 NaN would have it, the ids above 2**53 beside it lost their last digits."""
    import pyarrow.parquet as pq

    path = Path(folder) / f"{spec.name}.parquet"
    return empty_frame(spec) if not path.is_file() else frame_of(pq.read_table(path, partitioning=None))


def empty_frame(spec: TableSpec) -> pd.DataFrame:
    """No row of a table."""
    import pandas as pd

    kinds = {"id": "int64", "float": "float64", "flag": "float64", "time": "datetime64[us]"}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(kind, "object")) for name, kind in spec.columns.items()})


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A table as `scan` types it as a pandas frame, untold ids as `NO_ID`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, column in enumerate(table.schema):
        if column.type == pa.int64():
            table = table.set_column(i, column.name, pc.fill_null(table.column(i), NO_ID))
    return table.to_pandas(date_as_object=False)


def write_json(path: Path, data: object) -> None:
    """To a name of its own, then moved into place."""
    write_text(path, json.dumps(data, indent=1))


def clear_parts(folder: Path, patterns: Sequence[str] = ("*.part",)) -> None:
    """Remove what a stopped run left half-written below a folder."""
    for pattern in patterns:
        for path in folder.rglob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
