"""Hospital stays as tables, as MEDS and as our own files: whole ones, their damages, their readers."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests import mimic_example
from tests.campaign import small
from tests.campaign.damages import each
from tests.campaign.frames import changed
from tests.campaign.mutations import damaged, in_json
from world_models.data.ehr.context.context_file import read_contexts
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.writer import write_episodes

__all__ = [
    "contexts",
    "TABLE_BINARY",
    "TABLE_TEXT",
    "gzip_bomb",
    "meds_cells",
    "own_cells",
    "parquet_bomb",
    "read_own_stays",
    "table_cells",
    "write_meds",
    "write_own_stays",
    "write_tables",
]


def _mimic(name: str) -> Any:
    return mimic_example.table(name)


def write_tables(folder: Path) -> None:
    mimic_example.write(folder, "parquet")
    for name in ("labevents", "admissions", "emar"):
        (folder / f"{name}.parquet").unlink()
        _mimic(name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "chartevents.parquet").unlink()
    _mimic("chartevents").to_csv(folder / "chartevents.csv.gz", index=False)


def table_cells(folder: Path, rng: random.Random) -> str:
    name = rng.choice(sorted(mimic_example.ROWS))
    for path in folder.glob(f"{name}.*"):
        path.unlink()
    frame = changed(_mimic(name), rng, 3)
    if rng.random() < 0.5:
        frame.to_csv(folder / f"{name}.csv", index=False)
    else:
        frame.astype(object).where(frame.notna(), None).astype(str).to_parquet(folder / f"{name}.parquet", index=False)
    return f"cells {name}"


def gzip_bomb(folder: Path, rng: random.Random) -> str:
    """Three gigabytes of one character in three megabytes: one compressed piece, again and again."""
    path = folder / "chartevents.csv.gz"
    head = gzip.decompress(path.read_bytes()).split(b"\n")[0] + b"\n"
    piece = gzip.compress((rng.choice((b"1", b",", b"\n", b"1,\n", b'"')) * (16 << 20))[: 16 << 20], 1)
    with path.open("wb") as file:
        file.write(gzip.compress(head))
        for _ in range(192):
            file.write(piece)
    return "gzip bomb"


TABLE_TEXT = ("labevents.csv", "admissions.csv", "emar.csv")
TABLE_BINARY = ("chartevents.csv.gz", "patients.parquet", "inputevents.parquet", "prescriptions.parquet")


def write_meds(folder: Path, style: str) -> None:
    mimic_example.as_meds(style).to_parquet(folder / "m.parquet", index=False)


def meds_cells(folder: Path, rng: random.Random) -> str:
    changed(mimic_example.as_meds(rng.choice(("old", "new"))), rng, 3).to_parquet(folder / "m.parquet", index=False)
    return "cells"


def parquet_bomb(folder: Path, rng: random.Random) -> str:
    """Few kilobytes that are three gigabytes of text, one value four hundred times, or a million rows of one."""
    whole = pq.read_table(folder / "m.parquet").slice(0, 1)
    if rng.random() < 0.5:
        at = whole.schema.get_field_index("code")
        whole = pa.concat_tables([whole] * 400).combine_chunks()
        value = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["LAB//" + "9" * (8 << 20)]))
        whole = whole.set_column(at, "code", value)
    else:
        whole = whole.take(pa.array([0] * 1_000_000))
    limit = 1 << 30  # else the writer gives the dictionary up
    pq.write_table(whole, folder / "m.parquet", compression="zstd", dictionary_pagesize_limit=limit, store_schema=False)
    return "parquet bomb"


def write_own_stays(folder: Path) -> None:
    tables = mimic_example.write(folder / "t", "parquet")
    write_episodes(load_episodes(tables=tables)[0], folder / "m.parquet")
    shutil.rmtree(tables)
    small.write_contexts(folder / "contexts.jsonl")


def own_cells(folder: Path, rng: random.Random) -> str:
    frame = pq.read_table(folder / "m.parquet").to_pandas()
    told = [i for i, text in enumerate(frame["text_value"]) if str(text).startswith("{")]
    if rng.random() < 0.6:
        row = rng.choice(told)
        text = frame.at[row, "text_value"].encode()
        harmed = in_json(text, rng) if rng.random() < 0.7 else damaged(text, rng, True)
        frame.at[row, "text_value"] = harmed.decode("utf-8", "replace")
    else:
        frame = changed(frame, rng, 2)
    frame.to_parquet(folder / "m.parquet", index=False)
    return "cells"


def read_own_stays(folder: Path) -> None:
    each((lambda: load_episodes(meds=folder / "m.parquet"), lambda: read_contexts(folder / "contexts.jsonl")))


def contexts(folder: Path, rng: random.Random) -> str:
    """One line of a file of contexts, or its bytes."""
    path = folder / "contexts.jsonl"
    content = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(damaged(content, rng, True))
        return "contexts"
    lines = content.splitlines(keepends=True)
    row = rng.randrange(len(lines))
    lines[row] = in_json(lines[row], rng) + b"\n"
    path.write_bytes(b"".join(lines))
    return "a context"
