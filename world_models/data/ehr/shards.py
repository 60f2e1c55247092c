"""The work between raw files and episodes, cut into shards of whole patients.

`prepare` reads every file once and deals it out; `process_shard(path) -> path` turns one shard into episodes and needs
nothing but that path, so that joblib, Ray or a Slurm array can map it; both go on where a run was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from world_models.config_json import parse_json
from world_models.data.ehr.assemble import Frames, assemble
from world_models.data.ehr.cells import DATE_ORDERS, NO_ID
from world_models.data.ehr.episode import WIDEST_STEP_HOURS, PatientEpisode
from world_models.data.ehr.filters import measure
from world_models.data.ehr.flow import Flow, Ledger
from world_models.data.ehr.meds import reader as meds_reader
from world_models.data.ehr.meds.writer import write_episodes, write_table
from world_models.data.ehr.sources import challenge_2012, challenge_2019, eicu, mimic_iii, mimic_iv
from world_models.data.ehr.sources.mimic_frames import stack
from world_models.data.ehr.tables import (
    EhrDataError,
    RowFilter,
    TableSpec,
    clear_parts,
    deal,
    find_table,
    scan,
    shard_of_subject,
    write_json,
)

__all__ = ["SOURCES", "Source", "prepare", "process_shard", "read_shard", "shard_folders", "source_flow"]

# table of MIMIC-IV -> the kind of intervention that is then taken from it, not from MEDS
KIND_OF_TABLE = {
    "prescriptions": "prescription",
    "procedureevents": "procedure",
    "inputevents": "infusion",
    "emar": "administration",
}


SOURCES = ("meds", "tables", "mimic3", "challenge2012", "challenge2019", "eicu")


@dataclass(frozen=True)
class Source:
    """What is read, and how. Saved beside the shards."""

    meds: str | None = None  # file or folder
    tables: str | None = None  # folder of MIMIC-IV tables; beside `meds` it adds what MEDS leaves out
    mimic3: str | None = None
    challenge2012: str | None = None
    challenge2019: str | None = None  # the table, or a folder
    eicu: str | None = None
    hours_per_step: float = 4.0
    shards: int = 8  # ignored for a MEDS folder, whose files are the shards
    memory_limit: str = "1GB"  # of DuckDB
    date_order: str | None = None  # of dates like 02/03/2150 in tables: one of DATE_ORDERS; None: as the cells show

    def __post_init__(self) -> None:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1 and set(given) != {"meds", "tables"}:
            raise EhrDataError(
                f"give one source, or MEDS with the tables of the same patients; given: {', '.join(given) or 'none'}"
            )
        if not 0 < self.hours_per_step <= WIDEST_STEP_HOURS:
            raise EhrDataError(
                f"hours_per_step={self.hours_per_step} must be above 0 and at most {WIDEST_STEP_HOURS:g}; 4 is the "
                "usual one"
            )
        if self.date_order not in (None, *DATE_ORDERS):
            raise EhrDataError(
                f"date_order={self.date_order!r} is none of {', '.join(DATE_ORDERS)}; give one, or nothing"
            )
        if not 1 <= self.shards <= 1000:
            raise EhrDataError(f"shards={self.shards} is outside 1..1000; 1 to 1,000 patients a shard are usual")


def shard_folders(work: Path) -> list[Path]:
    """The folders `process_shard` takes, in order."""
    return sorted(path for path in (work / "shards").iterdir() if path.is_dir())


def prepare(source: Source, work: Path, quiet: bool = False) -> list[Path]:
    """Deal the source out to `<work>/shards/NNNN`, each file read once; returns those folders.

    Raises:
        EhrDataError: a file missing, cut short or without a column; MEDS rows unsorted; the folder was begun with
            other arguments.
    """
    work.mkdir(parents=True, exist_ok=True)
    config = work / "source.json"
    wanted = asdict(source)
    if config.is_file() and parse_json(config.read_bytes(), str(config)) != wanted:
        raise EhrDataError(f"{work} holds a run begun with other arguments; remove it or give another --out")
    write_json(config, wanted)
    clear_parts(work)
    shards = work / "shards"
    shards.mkdir(exist_ok=True)
    shard_of: Callable[[np.ndarray], np.ndarray] = partial(shard_of_subject, n_shards=source.shards)
    if source.meds is not None:
        files = meds_reader.data_files(source.meds)
        if len(files) == 1:
            with _bar("MEDS rows", quiet) as bar:
                deal(meds_reader.iterate(files[0]), "meds", shards, shard_of, progress=bar.update)
        else:
            owner = _owners(files)
            for i, path in enumerate(files):
                (shards / f"{i:04d}").mkdir(exist_ok=True)
                write_json(shards / f"{i:04d}" / "meds.json", {"path": str(Path(path).resolve())})
            shard_of = partial(_look_up, owner)
    for name, read, keep in _tables(source, work):
        ledger = Ledger()
        with _bar(f"{name} rows", quiet) as bar:
            deal(read(ledger), name, shards, shard_of, keep, bar.update, ledger)
    return shard_folders(work)


def _bar(what: str, quiet: bool) -> tqdm:
    return tqdm(desc=what, unit=" rows", unit_scale=True, disable=quiet, leave=False)


def _look_up(owner: pd.Series, subject_ids: np.ndarray) -> np.ndarray:
    return owner.reindex(subject_ids).fillna(-1).to_numpy(np.int64)


def _owners(files: list[Path]) -> pd.Series:
    """subject_id -> number of its file."""
    parts = []
    for i, path in enumerate(files):
        parts.append(pd.Series(i, index=meds_reader.subjects(path)))
    owner = pd.concat(parts)
    twice = owner.index[owner.index.duplicated()]
    if len(twice):
        places = [files[i].name for i in owner[owner.index == twice[0]]]
        raise EhrDataError(
            f"subject {twice[0]} is in several files ({', '.join(places)}); MEDS wants a subject in one: write it so"
        )
    return owner


_Read: TypeAlias = Callable[[Ledger], Iterator[pa.RecordBatch]]


def _tables(source: Source, work: Path) -> Iterator[tuple[str, _Read, RowFilter | None]]:
    """(name, its batches, counting in a ledger, filter of rows) of every table the source has."""
    if source.challenge2012 is not None:
        yield "measurements", partial(challenge_2012.batches, source.challenge2012, source.memory_limit), None
        yield "outcomes", partial(challenge_2012.outcome_batches, source.challenge2012, source.memory_limit), None
        return
    if source.challenge2019 is not None:
        yield "hours", partial(challenge_2019.batches, source.challenge2019, source.memory_limit), None
        return
    if source.eicu is not None:
        found = _found(source.eicu, eicu.TABLES, eicu.REQUIRED)
        owner = eicu.subjects(found["patient"], source.memory_limit)
        for name, path in found.items():
            spec = eicu.TABLES[name]
            yield name, partial(eicu.batches, path, spec, owner, source.memory_limit), spec.keep
        return
    layout = mimic_iii if source.mimic3 is not None else mimic_iv
    folder = source.mimic3 if source.mimic3 is not None else source.tables
    if folder is None:
        return
    for name, path in _found(folder, layout.TABLES, layout.REQUIRED).items():
        spec = layout.TABLES[name]
        read = partial(scan, path, spec, source.memory_limit, work / "spill", source.date_order)
        yield name, read, spec.keep


def _found(folder: str, specs: Mapping[str, TableSpec], required: tuple[str, ...]) -> dict[str, Path]:
    """The files of the tables that are there."""
    if not Path(folder).is_dir():
        raise EhrDataError(f"{folder} is no folder; give the folder of the tables (or of hosp/ and icu/)")
    found = {name: find_table(folder, name) for name in specs}
    absent = [name for name in required if found[name] is None]
    if absent:
        raise EhrDataError(
            f"{folder} lacks the table(s) {', '.join(absent)} (as .parquet, .csv.gz or .csv); they are needed"
        )
    return {name: path for name, path in found.items() if path is not None}


def process_shard(folder: str | Path) -> Path:
    """One shard into `episodes.parquet` (MEDS), `measures.parquet` and `flow.json` in the same folder.

    Returns the path of the episodes. A shard that is done already is left as it is.

    Raises:
        EhrDataError: a file cannot be read.
    """
    folder = Path(folder)
    episodes_file, flow_file = folder / "episodes.parquet", folder / "flow.json"
    if flow_file.is_file():
        return episodes_file
    episodes, flow = read_shard(folder)
    write_episodes(episodes, episodes_file)
    write_table(pa.Table.from_pandas(measure(episodes), preserve_index=False), folder / "measures.parquet")
    write_json(flow_file, flow.as_dict())
    return episodes_file


def read_shard(folder: str | Path) -> tuple[list[PatientEpisode], Flow]:
    """The episodes of one shard and their flow; nothing is written.

    Raises:
        EhrDataError: a file cannot be read.
    """
    folder = Path(folder)
    source = Source(
        **parse_json((folder.parents[1] / "source.json").read_bytes(), str(folder.parents[1] / "source.json"))
    )
    flow = Flow()
    episodes = assemble(_frames(folder, source, flow), source.hours_per_step, flow)
    flow.check()
    return episodes, flow


def _frames(folder: Path, source: Source, flow: Flow) -> Frames:
    if source.mimic3 is not None:
        return mimic_iii.read_shard(folder, flow)
    if source.challenge2012 is not None:
        return challenge_2012.read_shard(folder, flow)
    if source.challenge2019 is not None:
        return challenge_2019.read_shard(folder, flow)
    if source.eicu is not None:
        return eicu.read_shard(folder, flow)
    if source.meds is None:
        return mimic_iv.read_shard(folder, flow)
    pointer = folder / "meds.json"
    path = Path(parse_json(pointer.read_bytes(), str(pointer))["path"]) if pointer.is_file() else None
    frames = meds_reader.read_shard(path or folder / "meds.parquet", flow)
    if source.tables is None:
        return frames
    return _joined(frames, mimic_iv.read_shard(folder, flow), Path(source.tables), flow)


def _joined(meds: Frames, tables: Frames, folder: Path, flow: Flow) -> Frames:
    """Stays, diagnoses and the kinds of intervention that the tables hold from them; the rest from MEDS, the values of
    both (doubles go later); doses of drugs given from the orders."""
    told = {kind for name, kind in KIND_OF_TABLE.items() if find_table(folder, name) is not None}
    ours = meds.interventions[~meds.interventions["kind"].isin(told)]
    flow.table("meds interventions").kept -= len(meds.interventions) - len(ours)
    flow.drop("meds interventions", "taken from the tables instead", len(meds.interventions) - len(ours))
    orders = tables.interventions[tables.interventions["kind"] == "prescription"]
    ours = mimic_iv.fill_doses(ours.reset_index(drop=True), orders, flow)
    # ids of stays without hadm_id are made up: by the time of the event it is found again among the tables' stays
    known = meds.inquiries["stay_id"].isin(tables.stays["stay_id"])
    values = meds.inquiries.assign(stay_id=meds.inquiries["stay_id"].where(known, NO_ID))
    return Frames(
        tables.stays,
        tables.diagnoses if len(tables.diagnoses) else meds.diagnoses,
        stack([values, tables.inquiries]),
        stack([ours, tables.interventions]),
    )


def source_flow(work: Path, shards: Iterable[Flow]) -> Flow:
    """The flow up to the stays: what was dealt out, and what became of it in the shards, whose flows those are.

    Tables that no shard counts (admissions, patients, ...) are kept as they were dealt.
    """
    total = Flow()
    for flow in shards:
        total.add(flow)
    for path in sorted(work.glob("*.done.json")):
        name = path.name.removesuffix(".done.json")
        dealt = parse_json(path.read_bytes(), str(path))
        ledger = total.table(name)
        if not ledger.read and not ledger.kept:
            ledger.kept = dealt["kept"]
        ledger.read = dealt["read"]
        ledger.dropped.update(dealt["dropped"])
        ledger.repaired.update(dealt["repaired"])
    total.check()
    return total
