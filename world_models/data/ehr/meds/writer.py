"""PatientEpisodes to MEDS and back, losing nothing; rollouts as generated trajectories.

The rows read as MEDS of MIMIC to any tool (LAB//itemid//unit, MEDICATION//name//Administered, INFUSION_START ...),
and carry further columns, which `schema.EpisodeSchema` declares, so that `read_episodes` gives back the very same
objects: `stay_id`; `order_set`, the time step whose set of orders a row belongs to; `order_id`, which links the start
and the end of one intervention; and the fields of an event that MEDS has no place for. One row a stay, STAY//EPISODE,
holds what is true of the whole stay. Tables are validated by `meds`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from world_models.config_json import parse_json
from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr.episode import (
    KINDS,
    Diagnosis,
    EpisodeError,
    InquiryEvent,
    InterventionEvent,
    PatientEpisode,
    build_episode,
)
from world_models.data.ehr.meds.schema import EpisodeSchema, GeneratedTrajectorySchema
from world_models.data.ehr.tables import EhrDataError
from world_models.files import replacing

__all__ = ["is_episode_file", "read_episodes", "to_table", "trajectory_table", "write_episodes", "write_table"]
__all__ += ["write_trajectories"]

EPISODE_CODE = "STAY//EPISODE"
UNKNOWN = "UNK"  # as MEDS of MIMIC writes what is not known
_Row: TypeAlias = list[Any]  # one value of each of _FIELDS

_FIELDS = (
    ("subject_id", pa.int64()),
    ("time", pa.timestamp("us")),
    ("code", pa.string()),
    ("numeric_value", pa.float32()),
    ("text_value", pa.large_string()),
    ("stay_id", pa.int64()),
    ("order_set", pa.int32()),
    ("order_id", pa.int64()),
    ("item", pa.string()),
    ("unit", pa.string()),
    ("source", pa.string()),
    ("result_time", pa.timestamp("us")),
    ("end_time", pa.timestamp("us")),
    ("kind", pa.string()),
    ("dose", pa.float32()),
    ("rate", pa.float32()),
    ("rate_unit", pa.string()),
    ("route", pa.string()),
)
_TOLD = {
    "inquiry": ("item", "unit", "source"),
    "diagnosis": ("item",),
    **dict.fromkeys(KINDS, ("item", "unit", "source", "rate_unit", "route")),
}
_TEXTS = ("race", "admission_type", "admission_location", "discharge_location", "hospital")
_FLAGS = ("died_in_hospital", "truncated", "sex_female")
_SCHEMA = pa.schema(list(_FIELDS))
_PLACE = {name: i for i, (name, _) in enumerate(_FIELDS)}


def _row(subject_id: int, time: datetime | None, code: str, **fields: object) -> _Row:
    row: _Row = [subject_id, time, code, *[None] * (len(_FIELDS) - 3)]
    for name, value in fields.items():
        row[_PLACE[name]] = value
    return row


def to_table(episodes: Iterable[PatientEpisode]) -> pa.Table:
    """MEDS rows of episodes, sorted by subject and time, validated against `EpisodeSchema`.

    Raises:
        EpisodeError: two episodes with the same subject_id and stay_id.
    """
    episodes = sorted(episodes, key=lambda e: (e.subject_id, e.started, e.stay_id))
    keys = [(e.subject_id, e.stay_id) for e in episodes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise EpisodeError(f"subject {twice[0]}, stay {twice[1]} is there twice; give each stay once")
    rows: list[_Row] = []
    own: list[_Row] = []
    subject = None
    for episode in episodes:
        if episode.subject_id != subject:
            rows += _sorted(own)
            subject, own = episode.subject_id, _static(episode)
        own += _rows(episode)
    rows += _sorted(own)
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [[] for _ in _FIELDS]
    table = pa.table([pa.array(column, kind) for column, (_, kind) in zip(columns, _FIELDS, strict=True)], _SCHEMA)
    return EpisodeSchema.align(table)


def _sorted(rows: list[_Row]) -> list[_Row]:
    """One subject's rows by time, static ones first; rows of one moment stay in the order they were made in."""
    return sorted(rows, key=lambda row: datetime.min if row[1] is None else row[1])


def _static(episode: PatientEpisode) -> list[_Row]:
    """Sex and birth, once a subject (of the first stay)."""
    rows = []
    if episode.sex_female is not None:
        rows.append(_row(episode.subject_id, None, f"GENDER//{'F' if episode.sex_female else 'M'}"))
    year = episode.admitted.year - int(episode.age_years or 0)
    if episode.age_years is not None and year >= 1:
        rows.append(_row(episode.subject_id, datetime(year, 1, 1), "MEDS_BIRTH"))
    return rows


def _rows(e: PatientEpisode) -> list[_Row]:
    """All rows of one stay, in the order in which rows of one moment shall stand."""
    whole = {
        "admitted": e.admitted.isoformat(),
        "discharged": e.discharged.isoformat(),
        "died": None if e.died is None else e.died.isoformat(),
        **{name: getattr(e, name) for name in ("hours_per_step", "died_in_hospital", "truncated", "age_years")},
        **{name: getattr(e, name) for name in ("sex_female", *_TEXTS)},
    }
    rows = [_stay_row(e, e.started, EPISODE_CODE, text_value=json.dumps(whole))]
    if e.started < e.admitted:
        rows.append(_stay_row(e, e.started, "ED_REGISTRATION"))
    kind, place = e.admission_type or UNKNOWN, e.admission_location or UNKNOWN
    rows.append(_stay_row(e, e.admitted, f"HOSPITAL_ADMISSION//{kind}//{place}"))
    if e.race:
        rows.append(_stay_row(e, e.admitted, f"RACE//{e.race}"))
    order_id = 0
    for step in e.steps:
        rows += [_inquiry_row(e, step.number, inquiry) for inquiry in step.inquiries]
        for intervention in step.interventions:
            order_id += 1
            rows += _intervention_rows(e, step.number, order_id, intervention)
    for diagnosis in e.diagnoses:
        code = f"DIAGNOSIS//ICD//{diagnosis.version}//{diagnosis.code}"
        own = {"order_id": diagnosis.sequence, "kind": "diagnosis", "item": diagnosis.code}
        rows.append(_stay_row(e, e.discharged, code, **own))
    if e.died is not None:
        rows.append(_stay_row(e, e.died, "MEDS_DEATH"))
    rows.append(_stay_row(e, e.discharged, f"HOSPITAL_DISCHARGE//{e.discharge_location or UNKNOWN}"))
    return rows


def _stay_row(e: PatientEpisode, time: datetime, code: str, **fields: object) -> _Row:
    return _row(e.subject_id, time, code, stay_id=e.stay_id, **fields)


def _inquiry_row(e: PatientEpisode, number: int, inquiry: InquiryEvent) -> _Row:
    """Written out in the order of _FIELDS: there are millions of them."""
    item, value, label, collected, resulted, unit, source = inquiry
    code = _inquiry_code(item, source)
    return [
        *(e.subject_id, collected, code, value, label, e.stay_id, number, None, item, unit, source, resulted),
        *(None, "inquiry", None, None, None, None),
    ]


def _intervention_rows(e: PatientEpisode, number: int, order_id: int, done: InterventionEvent) -> list[_Row]:
    """The start, which `read_episodes` takes alone, and for other readers the end."""
    first, last = _intervention_codes(done)
    shared = {"order_set": number, "order_id": order_id, "item": done.item, "source": done.source}
    start = _stay_row(
        e,
        done.start,
        first,
        numeric_value=done.rate if done.kind == "infusion" else done.dose,
        unit=done.unit,
        end_time=done.end,
        kind=done.kind,
        dose=done.dose,
        rate=done.rate,
        rate_unit=done.rate_unit,
        route=done.route,
        **shared,
    )
    if done.end is None or not last:
        return [start]
    amount = done.dose if done.kind == "infusion" else None
    return [start, _stay_row(e, done.end, last, numeric_value=amount, **shared)]


@lru_cache(1 << 12)
def _inquiry_code(name: str, source: str) -> str:
    item = inquiry_items.find(name)
    if item is None:
        return name
    if source.startswith("SUBJECT_FLUID_OUTPUT"):
        return f"SUBJECT_FLUID_OUTPUT//{item.itemids[0]}//{item.unit}"
    return item.code


def _intervention_codes(done: InterventionEvent) -> tuple[str, str]:
    """(at the start, at the end)."""
    item, number = intervention_items.by_name().get(done.item), done.source.rpartition("//")[2]
    told = inquiry_items.whole_number(number)
    itemid = item.itemids[0] if item is not None and item.itemids else done.item if told is None else told
    return {
        "administration": (f"MEDICATION//{done.item}//Administered", ""),
        "prescription": (f"MEDICATION//START//{done.item}", f"MEDICATION//STOP//{done.item}"),
        "infusion": (f"INFUSION_START//{itemid}", f"INFUSION_END//{itemid}"),
        "procedure": (f"PROCEDURE//START//{itemid}", f"PROCEDURE//END//{itemid}"),
    }[done.kind]


def write_table(table: pa.Table, path: str | Path) -> Path:
    """To a name of its own, then moved into place; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        pq.write_table(table, part)
    return path


def write_episodes(episodes: Iterable[PatientEpisode], path: str | Path) -> Path:
    """One MEDS parquet file of episodes; a subject's belong in one file."""
    return write_table(to_table(episodes), path)


def is_episode_file(path: str | Path) -> bool:
    """Whether a parquet file was written by `write_episodes` (or by anybody with its columns)."""
    try:
        return set(_PLACE) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def read_episodes(source: str | Path | pa.Table) -> list[PatientEpisode]:
    """The episodes of `write_episodes`'s file, or `to_table`'s table, equal to those written.

    Raises:
        EhrDataError: not such a file, or cut short.
        EpisodeError: the rows make no episode (see `PatientEpisode`).
    """
    whose = "the table" if isinstance(source, pa.Table) else str(source)
    try:
        table = source if isinstance(source, pa.Table) else pq.read_table(source, partitioning=None)
        missing = [name for name in _PLACE if name not in table.column_names]
        if missing:
            raise EhrDataError(
                f"{whose} lacks the column(s) {', '.join(missing)}: it was not written by write_episodes; read MEDS of "
                "other makers with python -m world_models.data.ehr.pipeline --meds"
            )
        columns = {name: table.column(name).cast(kind).to_pylist() for name, kind in _FIELDS}
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise EhrDataError(f"{whose} cannot be read as episodes ({error}); fetch or write it again") from error
    try:
        return _episodes(columns, whose)
    except EpisodeError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise EhrDataError(
            f"{whose} was not written by write_episodes, or changed since: a row holds what no episode has ({error}); "
            "write it again"
        ) from error


@dataclass
class _LooseStay:
    """What the rows of one stay say, before they are an episode."""

    facts: dict[str, Any] | None = None  # of its row EPISODE_CODE
    inquiries: list[InquiryEvent] = field(default_factory=list)
    interventions: list[InterventionEvent] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """One row, as column -> value; a row of no kind is for other readers."""
        kind, code = row["kind"], row["code"]
        if code == EPISODE_CODE:
            self.facts = {"started": row["time"], **parse_json(row["text_value"], f"the row {EPISODE_CODE}")}
        elif kind == "inquiry":
            value, label = row["numeric_value"], row["text_value"]
            when, told = row["time"], row["result_time"]
            self.inquiries.append(InquiryEvent(row["item"], value, label, when, told, row["unit"], row["source"]))
        elif kind == "diagnosis":
            self.diagnoses.append(Diagnosis(row["order_id"], code.split("//", 3)[2], row["item"]))
        elif kind:
            amounts = (row[name] for name in ("dose", "unit", "rate", "rate_unit", "route", "source"))
            self.interventions.append(InterventionEvent(row["item"], kind, row["time"], row["end_time"], *amounts))

    def episode(self, subject_id: int, stay_id: int, whose: str) -> PatientEpisode:
        """The checked episode. Raises EhrDataError for facts of a wrong type or none, EpisodeError for those that
        clash."""
        here = f"{whose}: subject {subject_id}, stay {stay_id}"
        if self.facts is None:
            raise EhrDataError(f"{here} has no row {EPISODE_CODE}; write the file again")
        facts = {"hospital": "", **self.facts}  # files of earlier versions do not name it
        odd = [name for name in _TEXTS if not isinstance(facts[name], str)]
        odd += [name for name in _FLAGS if not isinstance(facts[name], bool | None)]
        if odd:
            raise EhrDataError(f"{here}: {odd[0]}={facts[odd[0]]!r}; write the file again")
        for name in ("admitted", "discharged", "died"):
            facts[name] = None if facts[name] is None else datetime.fromisoformat(facts[name])
        return build_episode(
            subject_id=subject_id,
            stay_id=stay_id,
            inquiries=self.inquiries,
            interventions=self.interventions,
            diagnoses=self.diagnoses,
            **facts,
        )


def _episodes(columns: dict[str, list[Any]], whose: str) -> list[PatientEpisode]:
    stays: dict[tuple[int, int], _LooseStay] = {}
    for i, (stay_id, kind, code) in enumerate(zip(columns["stay_id"], columns["kind"], columns["code"], strict=True)):
        if stay_id is None:
            continue
        untold = [name for name in ("subject_id", *_TOLD.get(str(kind), ())) if columns[name][i] is None]
        if untold:
            raise EhrDataError(f"{whose}, row {i}: {code} has no {', '.join(untold)}; write the file again")
        stay = stays.setdefault((columns["subject_id"][i], stay_id), _LooseStay())
        if kind or code == EPISODE_CODE:
            stay.add({name: column[i] for name, column in columns.items()})
    episodes = [stay.episode(*key, whose) for key, stay in stays.items()]
    return sorted(episodes, key=lambda e: (e.subject_id, e.started, e.stay_id))


def trajectory_table(
    episodes: Iterable[PatientEpisode], prediction_times: Mapping[tuple[int, int], datetime]
) -> pa.Table:
    """What was generated: the rows after each stay's prediction time, with that time, by GeneratedTrajectorySchema.

    `prediction_times`: (subject_id, stay_id) -> the last time that input was used from.

    Raises:
        EpisodeError: a stay without a prediction time.
    """
    episodes = list(episodes)
    missing = [(e.subject_id, e.stay_id) for e in episodes if (e.subject_id, e.stay_id) not in prediction_times]
    if missing:
        raise EpisodeError(f"subject {missing[0][0]}, stay {missing[0][1]} has no prediction time; give one")
    table = to_table(episodes)
    keys = zip(table.column("subject_id").to_pylist(), table.column("stay_id").to_pylist(), strict=True)
    since = [prediction_times.get(key) for key in keys]
    times = table.column("time").to_pylist()
    after = [s is not None and t is not None and t > s for s, t in zip(since, times, strict=True)]
    table = table.append_column("prediction_time", pa.array(since, pa.timestamp("us"))).filter(pa.array(after))
    return GeneratedTrajectorySchema.align(table)


def write_trajectories(
    samples: Sequence[Iterable[PatientEpisode]],
    prediction_times: Mapping[tuple[int, int], datetime],
    folder: str | Path,
) -> list[Path]:
    """Samples of the same stays, one file each (`0000.parquet` ...), as the schema asks."""
    tables = [trajectory_table(sample, prediction_times) for sample in samples]
    return [write_table(table, Path(folder) / f"{i:04d}.parquet") for i, table in enumerate(tables)]
