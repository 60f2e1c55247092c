"""Hospital data to MEDS episodes: python -m world_models.data.ehr.pipeline SOURCE --out DIR.

SOURCE is one of --tables DIR (MIMIC-IV), --meds FILE_OR_DIR, both together (MEDS, and from the tables what it leaves
out: microbiology, doses, ...), --mimic3 DIR, --challenge2012 DIR, --challenge2019 FILE, --eicu DIR. Written are
`data/NNNN.parquet` (see `writer`), `metadata/` and `flow.json`, all at once at the end; until then everything is in
`DIR/.work`, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import CodeMetadataSchema, DatasetMetadataSchema, SubjectSplitSchema
from tqdm import tqdm

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.cells import DATE_ORDERS
from world_models.data.ehr.episode import EpisodeError
from world_models.data.ehr.filters import FilterRules, select, split_patients
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.meds.writer import write_table
from world_models.data.ehr.shards import SOURCES, Source, prepare, process_shard, source_flow
from world_models.data.ehr.tables import EhrDataError, write_json
from world_models.data.ehr.units import UnitError, check_units

__all__ = ["run"]


def run(
    source: Source,
    out: str | Path,
    rules: FilterRules | None = None,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    unit_tolerance: float = 0.01,
    jobs: int = 1,
    keep_work: bool = False,
    quiet: bool = True,
) -> Flow:
    """The whole pipeline; returns the flow, which is also `<out>/flow.json`.

    Raises:
        EhrDataError: the source cannot be read, `out` is in use, or no episode is left.
        UnitError: an item lost more than `unit_tolerance` of its values to unknown units.
        EpisodeError: a stay that cannot be.
    """
    out = Path(out)
    work = out / ".work"
    if (out / "flow.json").exists() or ((out / "data").exists() and not work.exists()):
        raise EhrDataError(f"{out} holds a dataset already; give another --out or remove it")
    rules = FilterRules() if rules is None else rules
    begun = work.exists()
    try:
        folders = prepare(source, work, quiet)
    except (EhrDataError, OSError):
        if not begun:  # what cannot be read leaves nothing behind that the next try would stumble over
            shutil.rmtree(work, ignore_errors=True)
            with suppress(OSError):  # not empty: not ours
                out.rmdir()
        raise
    _process(folders, jobs, quiet)
    flow = source_flow(work, (Flow.read(folder / "flow.json") for folder in folders))
    check_units(flow, unit_tolerance)
    measures = pd.concat([pq.read_table(folder / "measures.parquet").to_pandas() for folder in folders])
    kept = select(measures, rules, flow)
    if kept.empty:
        raise EhrDataError(f"no episode is left; the flow says why:\n{flow.diagram()}")
    sides = split_patients(kept, shares, seed)
    flow.stages[-1].name += " (kept)"
    final = work / "final"
    shutil.rmtree(final, ignore_errors=True)
    _write(folders, kept, sides, final, source)
    for name in sorted(set(sides.values())):
        part = kept[kept["subject_id"].map(sides) == name]
        flow.note(f"{name}: {part['subject_id'].nunique()} patients, {len(part)} episodes")
    for name in ("metadata", "data"):
        shutil.rmtree(out / name, ignore_errors=True)  # of a run that was stopped between these lines
        os.replace(final / name, out / name)
    write_json(out / "flow.json", {**flow.as_dict(), "source": asdict(source), "rules": asdict(rules), "seed": seed})
    if not keep_work:
        shutil.rmtree(work)
    return flow


def _process(folders: list[Path], jobs: int, quiet: bool) -> None:
    with tqdm(total=len(folders), desc="shards", unit=" shards", disable=quiet, leave=False) as bar:
        if jobs <= 1:
            for folder in folders:
                process_shard(folder)
                bar.update()
            return
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(process_shard, folders):
                bar.update()


def _write(folders: list[Path], kept: pd.DataFrame, sides: dict[int, str], final: Path, source: Source) -> None:
    """data/ and metadata/ of the kept stays below `final`."""
    wanted = pd.MultiIndex.from_frame(kept[["subject_id", "stay_id"]])
    subjects = pa.array(sorted(sides), pa.int64())
    codes: set[str] = set()
    for folder in folders:
        table = pq.read_table(folder / "episodes.parquet")
        rows = pd.MultiIndex.from_arrays([table.column("subject_id").to_numpy(), table.column("stay_id").to_pandas()])
        static = pc.and_(table.column("stay_id").is_null(), pc.is_in(table.column("subject_id"), value_set=subjects))
        table = table.filter(pc.or_(pa.array(rows.isin(wanted)), static))
        if table.num_rows:
            codes.update(table.column("code").unique().to_pylist())
            write_table(table, final / "data" / f"{folder.name}.parquet")
    split = pa.table({"subject_id": subjects, "split": [sides[int(s)] for s in subjects.to_pylist()]})
    write_table(SubjectSplitSchema.align(split), final / "metadata" / "subject_splits.parquet")
    names = {item.code: f"{item.name}, {item.unit}" for item in inquiry_items.INQUIRY_ITEMS}
    known = sorted(codes)
    described = pa.table(
        {
            "code": pa.array(known, pa.string()),
            "description": pa.array([names.get(code) for code in known], pa.string()),
            "parent_codes": pa.array([None] * len(known), pa.list_(pa.string())),
        }
    )
    write_table(CodeMetadataSchema.align(described), final / "metadata" / "codes.parquet")
    metadata = {
        "dataset_name": "PatientEpisodes of "
        + ", ".join(name for name in SOURCES if getattr(source, name) is not None),
        "etl_name": "clinenv world_models.data.ehr.pipeline",
        "meds_version": "0.4.1",
        "raw_source_id_columns": ["stay_id", "order_id", "source"],
        "code_modifier_columns": ["unit", "rate_unit", "route", "kind"],
        "other_extension_columns": ["order_set", "item", "result_time", "end_time", "dose", "rate"],
    }
    DatasetMetadataSchema.validate(metadata)
    write_json(final / "metadata" / "dataset.json", metadata)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m world_models.data.ehr.pipeline", description=__doc__)
    parser.add_argument("--tables", help="folder of MIMIC-IV tables (flat, or hosp/ and icu/)")
    parser.add_argument("--meds", help="MEDS file or folder")
    parser.add_argument("--mimic3", help="folder of MIMIC-III tables")
    parser.add_argument("--challenge2012", help="folder of PhysioNet Challenge 2012")
    parser.add_argument("--challenge2019", help="table of PhysioNet Challenge 2019, or folder of its .psv files")
    parser.add_argument("--eicu", help="folder of eICU tables, with YAIB's hourly.parquet")
    parser.add_argument("--out", required=True, help="new folder for the dataset")
    defaults = {field.name: field.default for field in fields(Source)}
    parser.add_argument("--hours-per-step", type=float, default=defaults["hours_per_step"])
    parser.add_argument("--shards", type=int, default=defaults["shards"], help="about 500 patients each")
    parser.add_argument("--jobs", type=int, default=1, help="shards processed at once")
    parser.add_argument("--memory-limit", default=defaults["memory_limit"], help="of DuckDB, e.g. 4GB")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="of dates like 02/03/2150; else as the tables show")
    parser.add_argument("--no-filters", action="store_true", help="keep every stay")
    parser.add_argument(
        "--split", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "TUNING", "HELD_OUT")
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--unit-tolerance", type=float, default=0.01, help="share of an item's values lost to units")
    parser.add_argument("--keep-work", action="store_true", help="leave the shards in OUT/.work")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    try:
        source = Source(**{field.name: getattr(asked, field.name) for field in fields(Source)})
        rules = FilterRules(100.0, 0.0, False) if asked.no_filters else FilterRules()
        flow = run(
            source,
            asked.out,
            rules,
            tuple(asked.split),
            asked.seed,
            asked.unit_tolerance,
            asked.jobs,
            asked.keep_work,
            asked.quiet,
        )
    except (EhrDataError, EpisodeError, UnitError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(flow.diagram())
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak = max(process.ru_maxrss for process in used)
    cpu_s = sum(process.ru_utime + process.ru_stime for process in used)
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    print(
        f"{time.perf_counter() - began:.1f} s ({cpu_s:.1f} s of CPU), peak memory {peak * scale / 1e9:.2f} GB, written "
        f"to {asked.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
