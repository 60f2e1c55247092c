"""Episodes straight into memory, of whatever holds them: for sets that fit, such as the demos or a test set."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

from world_models.data.ehr.assemble import count
from world_models.data.ehr.episode import PatientEpisode
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.meds.reader import data_files
from world_models.data.ehr.meds.writer import is_episode_file, read_episodes
from world_models.data.ehr.shards import Source, prepare, read_shard, source_flow
from world_models.data.ehr.units import check_units

__all__ = ["load_episodes"]


def load_episodes(
    meds: str | Path | None = None,
    tables: str | Path | None = None,
    mimic3: str | Path | None = None,
    challenge2012: str | Path | None = None,
    challenge2019: str | Path | None = None,
    eicu: str | Path | None = None,
    hours_per_step: float = 4.0,
    unit_tolerance: float = 0.01,
    date_order: str | None = None,
) -> tuple[list[PatientEpisode], Flow]:
    """All stays, unfiltered, by subject and start, and the flow of how they came about.

    `meds` may be what `pipeline` wrote (then nothing is converted again, and the steps are laid out anew if their
    width is another) or any MEDS export of MIMIC; beside it, `tables` adds what MEDS leaves out. `date_order` is needed
    where the tables' dates do not tell whether 02/03/2150 is in February or March: see `Source`.

    Raises:
        EhrDataError: a source that cannot be read, or not one source.
        UnitError: an item lost more than `unit_tolerance` of its values to units.
    """
    source = Source(
        meds=_text(meds),
        tables=_text(tables),
        mimic3=_text(mimic3),
        challenge2012=_text(challenge2012),
        challenge2019=_text(challenge2019),
        eicu=_text(eicu),
        hours_per_step=hours_per_step,
        shards=8 if challenge2019 is not None else 1,  # a large table a part at a time
        date_order=date_order,
    )
    if meds is not None and tables is None:
        files = data_files(meds)
        if all(is_episode_file(path) for path in files):
            own = [e for path in files for e in read_episodes(path)]
            own = [e if e.hours_per_step == hours_per_step else e.regrid(hours_per_step) for e in own]
            flow = Flow()
            flow.stage("stays", None, **count(own))
            return sorted(own, key=_order), flow
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts = [read_shard(folder) for folder in prepare(source, work, quiet=True)]
        episodes = [e for part, _ in parts for e in part]
        flow = source_flow(work, (flow for _, flow in parts))
    check_units(flow, unit_tolerance)
    return sorted(episodes, key=_order), flow


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _order(e: PatientEpisode) -> tuple[int, datetime, int]:
    return (e.subject_id, e.started, e.stay_id)
