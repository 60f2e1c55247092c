"""MEDS events of MIMIC -> frames of stays and events, from every export so far.

MEDS 0.4 (`subject_id`, `time`, `code`, `numeric_value`, `text_value`, further columns allowed) and the demo of 2023
(`value` for `numeric_value`). Used where they are there: numeric_value, text_value, hadm_id, unit, route, order_id,
race; an id in words is numbered by its hash. Codes: see
`codes.parse_lab_code` for values; HOSPITAL_ADMISSION//type//location, HOSPITAL_DISCHARGE//location,
ED_REGISTRATION, MEDS_BIRTH, MEDS_DEATH, GENDER//F, RACE//..., DIAGNOSIS//ICD//version//code,
MEDICATION//name//event, MEDICATION//START|STOP//name, INFUSION_START|END//itemid, PROCEDURE//START|END//itemid. The
rest is counted as not used.

What the format leaves out: stays are found from admissions and discharges in order of time where there is no hadm_id
(their id is then 1000 * subject_id + 1, 2, ...); a dose of a medication is not there (`mimic_iv.fill_doses` takes it
from prescriptions); an end belongs to a start for certain only where nothing else of that name runs, or an order_id
says so: else the end and the amount are left out, counted. A result without a collection time (LAB//RESULT) was
collected when its specimen was, the nearest before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr.assemble import Frames
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions, shortest_decimals
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.intervention_items import InterventionItem
from world_models.data.ehr.meds.columns import TYPES, typed
from world_models.data.ehr.meds.hospital_stays import given_stay, place_or_given, read_stays, stay_of_discharge
from world_models.data.ehr.meds.links import collection_times, link_ends
from world_models.data.ehr.tables import EhrDataError

__all__ = ["data_files", "iterate", "read_shard", "subjects"]

COLUMNS = ("hadm_id", "unit", "route", "order_id", "race")  # used where they are there
BATCH_ROWS = 65536


def data_files(path: str | Path) -> list[Path]:
    """The parquet files of a MEDS dataset: a file, its root folder (then `data/**/*.parquet`) or its data folder.

    Raises:
        EhrDataError: there are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    folder = path / "data" if (path / "data").is_dir() else path
    files = sorted(_below(folder, set()))
    if not files:
        raise EhrDataError(f"no parquet file at {path}; give a MEDS file, or a folder with data/**/*.parquet")
    return files


def _below(folder: Path, entered: set[Path]) -> Iterator[Path]:
    """Parquet files of a folder and those in it, links to folders followed, each folder once."""
    if not folder.is_dir() or folder.resolve() in entered:
        return
    entered.add(folder.resolve())
    for path in folder.iterdir():
        if path.name == "metadata" or path.name.startswith((".", "_")):  # "_": what Spark and Hadoop leave beside data
            continue
        if path.is_dir():
            yield from _below(path, entered)
        elif path.suffix.lower() == ".parquet":
            yield path


def iterate(path: str | Path) -> Iterator[pa.RecordBatch]:
    """Record batches with subject_id int64, time timestamp[us], code, numeric_value float64, text_value and COLUMNS,
    checked on the way: one run of rows a subject, sorted by time.

    Raises:
        EhrDataError: a column missing or of a type that MEDS does not allow, a file cut short, a subject in two runs,
            time running backwards or outside `cells.YEARS`.
    """
    path = Path(path)
    check = _Order(path)
    for table in _batches(path, tuple(TYPES)):
        check(table)
        yield from table.to_batches()


def subjects(path: str | Path) -> np.ndarray:
    """The subject ids int64 [N] of a file, sorted, each once; nothing else of it is read.

    Raises:
        EhrDataError: as `iterate`.
    """
    ids = [
        pc.unique(table.column("subject_id")).drop_null().to_numpy() for table in _batches(Path(path), ("subject_id",))
    ]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))


def _batches(path: Path, wanted: tuple[str, ...]) -> Iterator[pa.Table]:
    """The wanted columns of `TYPES`, null where the file has none of that name."""
    try:
        with pq.ParquetFile(path) as file:
            there = {name.lower(): name for name in file.schema_arrow.names}
            twice = [name for name, n in Counter(file.schema_arrow.names).items() if n > 1 and name.lower() in TYPES]
            if twice:
                raise EhrDataError(f"{path} has several columns {twice[0]}; MEDS has one: remove the others")
            missing = [name for name in ("subject_id", "time", "code") if name not in there]
            if missing:
                raise EhrDataError(
                    f"{path} lacks the column(s) {', '.join(missing)} of MEDS; it has {', '.join(there)}: "
                    "write it by the MEDS schema (meds.DataSchema)"
                )
            there.setdefault("numeric_value", there.get("value"))
            names = {name: there[name] for name in wanted if there.get(name) is not None}
            for batch in file.iter_batches(BATCH_ROWS, columns=list(names.values())):
                yield pa.table(
                    [
                        typed(batch.column(names[name]) if name in names else pa.nulls(batch.num_rows), name, path)
                        for name in wanted
                    ],
                    list(wanted),
                )
    except (pa.ArrowException, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise EhrDataError(
            f"{path} cannot be read as parquet ({first}): it is no parquet file, or cut short or damaged; fetch or "
            "write it again"
        ) from error


class _Order:
    """Checks across batches that each subject is one run of rows and its times go up. Static rows (no time) may stand
    anywhere in the run: some exports sort them last."""

    def __init__(self, path: Path) -> None:
        self.path, self.row = path, 0
        self.seen: set[int] = set()
        self.subject: int | None = None  # of the row before
        self.timed: tuple[int, int] | None = None  # subject and time of the last row with a time

    def __call__(self, table: pa.Table) -> None:
        if table.column("subject_id").null_count or table.column("code").null_count:
            raise EhrDataError(f"{self.path} has rows without subject_id or code; MEDS allows none: remove them")
        subject = table.column("subject_id").to_numpy()
        if not len(subject):
            return
        starts = subject[np.concatenate(([self.subject != subject[0]], subject[1:] != subject[:-1]))]
        once, times = np.unique(starts, return_counts=True)
        again = self.seen.intersection(once.tolist()) or set(once[times > 1].tolist())
        if again:
            raise EhrDataError(
                f"{self.path}: the rows of subject {min(again)} stand in several places; MEDS wants them together: "
                "sort the file by subject_id, time"
            )
        self.seen.update(once.tolist())
        self.subject = int(subject[-1])
        rows = np.flatnonzero(table.column("time").is_valid().to_numpy())
        if len(rows):
            whose = subject[rows]
            time = table.column("time").drop_null().cast(pa.int64()).to_numpy()
            first = self.timed or (int(whose[0]), int(time[0]))
            before = np.concatenate(([first[0]], whose[:-1]))
            earlier = np.concatenate(([first[1]], time[:-1]))
            bad = np.flatnonzero((before == whose) & (earlier > time))
            if len(bad):
                i = int(bad[0])
                raise EhrDataError(
                    f"{self.path}, row {self.row + rows[i]}: subject {whose[i]} at {_when(time[i])} after "
                    f"{_when(earlier[i])}: time runs backwards; MEDS wants each subject's rows sorted by time: sort "
                    "the file by subject_id, time"
                )
            self.timed = (int(whose[-1]), int(time[-1]))
        self.row += len(subject)


def _when(microseconds: int) -> str:
    return str(np.datetime64(int(microseconds), "us"))


def read_shard(source: str | Path, flow: Flow) -> Frames:
    """Frames of one MEDS file (a shard: one subject is in one file).

    Raises:
        EhrDataError: see `iterate`; no hadm_id beside subject ids over 9e12.
    """
    table = pa.Table.from_batches(list(iterate(source)) or [], schema=pa.schema(list(TYPES.items())))
    flow.table("meds").read += table.num_rows
    code_of = table.column("code").combine_chunks().dictionary_encode()
    codes = np.array(code_of.dictionary.to_pylist(), dtype=object)
    index = code_of.indices.to_numpy(zero_copy_only=False)
    kinds = np.array([_kind(code) for code in codes], dtype=object)
    counts = np.bincount(index, minlength=len(codes))
    for kind, n in sorted(zip(kinds.tolist(), counts.tolist(), strict=True)):
        if kind.startswith("unused "):
            flow.drop("meds", kind.removeprefix("unused "), n)
    used = np.array([not kind.startswith("unused ") for kind in kinds], bool)[index]
    rows = table.drop_columns("code").filter(pa.array(used)).to_pandas(date_as_object=False)
    rows["time"] = rows["time"].astype("datetime64[us]")
    for name in ("hadm_id", "order_id"):
        rows[name] = rows[name].to_numpy(np.int64)
    rows["code"] = index[used]
    del table, code_of
    untimed = rows["time"].isna() & ~np.isin(kinds[rows["code"].to_numpy()], STATIC)
    flow.drop("meds", "no time", int(untimed.sum()))
    rows = rows[~untimed].reset_index(drop=True)
    rows = rows.assign(kind=pd.Categorical(kinds[rows["code"].to_numpy()]), text=rows["text_value"])
    # two that start at one moment are two: their rows are the same, and their ends tell them apart
    single = ~rows["kind"].astype(object).str.endswith((" start", " end")).astype(bool)
    doubled = rows.duplicated() & single
    flow.drop("meds", "exact duplicate row", int(doubled.sum()))
    rows = rows[~doubled].reset_index(drop=True)
    flow.table("meds").kept += len(rows)
    rows["code"] = codes[rows["code"].to_numpy()]
    rows["numeric_value"] = shortest_decimals(rows["numeric_value"].to_numpy())
    stays = read_stays(dict(iter(rows.groupby("kind", sort=False, observed=True))), rows.iloc[:0], flow)
    rows["stay_id"] = given_stay(rows, stays)
    parts, none = dict(iter(rows.groupby("kind", sort=False, observed=True))), rows.iloc[:0]
    diagnoses = parts.get("diagnosis", none)
    at = stay_of_discharge(diagnoses, stays)
    split = diagnoses["code"].str.split("//", n=3)
    return Frames(
        stays,
        pd.DataFrame(
            {"stay_id": at, "sequence": np.nan, "version": split.str[2].to_numpy(), "code": split.str[3].to_numpy()}
        ),
        canonical_inquiries(_values(parts, none, flow), flow, "meds values"),
        canonical_interventions(_done(parts, none, stays, flow), flow, "meds interventions"),
    )


_WHOLE = {"MEDS_BIRTH": "birth", "MEDS_DEATH": "death", "ED_REGISTRATION": "ed"}
STATIC = ("gender", "race")  # may stand without a time
_FIRST = {
    "GENDER": "gender",
    "RACE": "race",
    "HOSPITAL_ADMISSION": "admission",
    "HOSPITAL_DISCHARGE": "discharge",
    "INFUSION_START": "infusion start",
    "INFUSION_END": "infusion end",
}


def _kind(code: str) -> str:
    """What a code is to us; 'unused ...' says why it is nothing."""
    if code in _WHOLE:
        return _WHOLE[code]
    parts = code.split("//")
    lab = inquiry_items.parse_lab_code(code)
    if lab is not None:
        return lab.event if lab.itemid in inquiry_items.by_itemid() else "unused item not in the table of inquiries"
    if parts[0] in ("INFUSION_START", "INFUSION_END") and len(parts) < 2:
        return "unused infusion without a name"
    if parts[0] in _FIRST:
        return _FIRST[parts[0]]
    itemid = inquiry_items.whole_number(parts[-1])
    if parts[0] == "DIAGNOSIS" and len(parts) >= 4 and parts[1] == "ICD":
        return "diagnosis"
    if parts[0] == "PROCEDURE" and len(parts) == 3 and parts[1] in ("START", "END") and itemid is not None:
        administrative = itemid in intervention_items.ADMINISTRATIVE
        return "unused administrative procedure" if administrative else f"procedure {parts[1].lower()}"
    if parts[0] == "MEDICATION" and len(parts) >= 3:
        name = parts[2] if parts[1] in ("START", "STOP") else parts[1]
        if intervention_items.is_flush(name):
            return "unused line flush"
        if name in ("UNK", ""):
            return "unused medication without a name"
        if parts[1] in ("START", "STOP"):
            return f"order {'start' if parts[1] == 'START' else 'end'}"
        return "given" if parts[2] in intervention_items.EXECUTED else "unused medication not executed"
    return f"unused code {parts[0]}{' (billing)' if parts[:2] == ['PROCEDURE', 'ICD'] else ''}"


def _values(parts: dict[str, pd.DataFrame], none: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Raw inquiries of values at their collection, and of results collected when their specimen was."""
    results = collection_times(parts.get("result", none), parts.get("specimen", none), flow)
    values = parts.get("value", none).assign(collected=lambda rows: rows["time"], resulted=np.datetime64("NaT", "us"))
    types: dict[str, Any] = {
        "collected": "datetime64[us]",
        "resulted": "datetime64[us]",
        "subject_id": np.int64,
        "numeric_value": np.float64,
        "stay_id": np.int64,
        "code": object,
        "text": object,
    }
    rows = {
        name: np.concatenate([part[name].to_numpy(kind) for part in (values, results)]) for name, kind in types.items()
    }
    codes, unique = pd.factorize(rows["code"])
    labs = [lab for lab in map(inquiry_items.parse_lab_code, unique) if lab is not None]
    assert len(labs) == len(unique)  # `_kind` lets no other code be a value or a result
    itemid = np.array([lab.itemid for lab in labs], np.int64)
    prefix = _objects(f"{code.split('//')[0]}//{lab.itemid}" for code, lab in zip(unique, labs, strict=True))
    unit = _objects(lab.unit for lab in labs)
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": rows["stay_id"],
            "itemid": itemid[codes],
            "unit": unit[codes],
            "value": rows["numeric_value"],
            "text": rows["text"],
            "collected": rows["collected"],
            "resulted": rows["resulted"],
            "source": prefix[codes],
        }
    )


def _done(parts: dict[str, pd.DataFrame], none: pd.DataFrame, stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Raw interventions."""
    given = parts.get("given", none)
    frames = [_named(given.assign(end=np.datetime64("NaT", "us"), amount=np.nan), "administration", 1)]
    frames[0]["dose"] = given["numeric_value"].to_numpy(np.float64)
    for kind, word in (("infusion", "infusion"), ("procedure", "procedure"), ("prescription", "order")):
        starts, ends = parts.get(f"{word} start", none), parts.get(f"{word} end", none)
        at = place_or_given(pd.concat([starts, ends]), stays)
        name = 2 if kind != "infusion" else 1
        linked = link_ends(starts, ends, at, name, flow, kind)
        frames.append(_named(linked, kind, name))
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _named(rows: pd.DataFrame, kind: str, part: int) -> pd.DataFrame:
    """Rows with `end`, `amount` (and of infusions the rate as numeric_value) as raw interventions."""
    word = rows["code"].str.split("//").str[part].str.strip().to_numpy(object)
    itemids = [inquiry_items.whole_number(w) for w in word]
    known: list[InterventionItem | None] = [None] * len(word)
    if kind in ("infusion", "procedure"):
        items, unlisted = intervention_items.by_itemid(), "input" if kind == "infusion" else "procedure"
        known = [None if itemid is None else items.get(itemid) for itemid in itemids]
        item = [f"{unlisted} {w}" if found is None else found.name for found, w in zip(known, word, strict=True)]
        source = [f"{kind.upper()}//{w}" for w in word]
    else:
        item = [intervention_items.item_of_drug(w) for w in word]
        source = [f"MEDICATION//{w}" for w in word]
    unit = _text(rows["unit"])
    infused = kind == "infusion"
    rate_unit = _objects(u or (found.rate if found and infused else "") for found, u in zip(known, unit, strict=True))
    if infused:
        usual = zip(known, itemids, strict=True)
        unit = _objects("" if found is None else _amount_unit(found, itemid) for found, itemid in usual)
        if "amount_unit" in rows:
            told = _text(rows["amount_unit"])
            unit = np.where(told == "", unit, told)
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "stay_id": rows["stay_id"].to_numpy(np.int64),
            "kind": kind,
            "item": item,
            "start": rows["time"].to_numpy("datetime64[us]"),
            "end": rows["end"].to_numpy("datetime64[us]"),
            "dose": rows["amount"].to_numpy(np.float64),
            "unit": unit,
            "rate": rows["numeric_value"].to_numpy(np.float64) if infused else np.nan,
            "rate_unit": rate_unit if infused else "",
            "source": source,
            "route": _text(rows["route"]),
        }
    )


def _amount_unit(item: InterventionItem, itemid: int | None) -> str:
    """The unit of an infusion's amount where the source leaves it out."""
    return item.amount if itemid is None else intervention_items.AMOUNT_IF_MISSING.get(itemid, item.amount)


def _text(column: pd.Series) -> np.ndarray:
    """A column [N] object of text, "" where there is none."""
    return column.astype(object).where(column.notna(), "").to_numpy()


def _objects(values: Iterable[object]) -> np.ndarray:
    """Values as an array [N] object."""
    return np.array(list(values), dtype=object)
