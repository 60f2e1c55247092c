"""Worlds and their rivals on recorded stays of people.

    python -m benchmarks.people.rivals --data DIR --work DIR --out DIR

Every rival is fitted to the stays to learn from, chosen by those to choose by, and judged on these; `--test` judges on
those kept for the end, and on sets that nobody learned from. `--world` puts learned worlds beside them, on the same
values. What was trained or said is kept in `--work`, so a run goes on where it stopped. Written, with the steps' hours
in their names: people_next_4h.csv, people_next_items_4h.csv, people_trajectory_4h.csv and, with language models,
people_language_4h.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.results import made_by, write_csv
from benchmarks.people.contest import NEXT, RIVALS, Room, Says, begins
from benchmarks.people.language import Language, few, slots_of_few, trained
from benchmarks.people.learned import load_world, world_columns
from benchmarks.people.parts import People, read_parts
from benchmarks.people.prediction import Scale, scored
from benchmarks.people.slots import Places, next_places, owners, path_places, some_rows
from benchmarks.people.tables import item_rows, rows
from benchmarks.ward.records import Slots
from world_models import checkpoint, command_line
from world_models.ehr_world.records import StayRecords, take
from world_models.ehr_world.train_records import folder_of

__all__ = ["main"]

QUICK_STAYS, QUICK_ROWS, QUICK_STEPS = 150, 4000, 500  # of each part, of an item, of the network
SEED = 0
PATHS = 48  # of a world's own outcomes; of 16 the mixture is a percent too narrow


class Asked(NamedTuple):
    """What is foretold of one set in one setting."""

    records: StayRecords
    places: Places


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.people.rivals", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the open sets")
    parser.add_argument("--work", type=command_line.folder, required=True, help="stays, models and progress")
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder of the tables")
    parser.add_argument("--hours", type=float, choices=(1.0, 4.0), default=4.0, help="of a step")
    parser.add_argument("--only", nargs="+", choices=RIVALS, help="these rivals, and the last value")
    parser.add_argument(
        "--world", action="append", default=[], metavar="NAME_OR_DIR", help="a learned world beside them"
    )
    parser.add_argument("--settings", nargs="+", help="of next_step and trajectory_from_4h, _24h; default: all")
    parser.add_argument("--test", action="store_true", help="judge on what was kept for the end")
    parser.add_argument("--quick", action="store_true", help="a few stays and small models: does it run")
    parser.add_argument("--most", type=command_line.whole(10), help="stays of a part of a set; default: all")
    parser.add_argument("--stays", type=command_line.whole(1), default=300, help="of a set, in trajectories")
    parser.add_argument("--paths", type=command_line.whole(2), default=PATHS, help="of a world's own outcomes")
    parser.add_argument("--rows", type=command_line.whole(100), default=60_000, help="of an item, for boosting")
    parser.add_argument("--steps", type=command_line.whole(1), default=12_000, help="of the network, at most")
    parser.add_argument("--resamples", type=command_line.whole(10), default=1000)
    parser.add_argument(
        "--lm", action="append", type=trained, default=[], metavar="FORM:SECONDS:RATE", help=trained.__doc__
    )
    parser.add_argument("--lm-stays", type=command_line.whole(1), default=100, help="of a set, for language models")
    parser.add_argument("--threads", type=command_line.whole(1, command_line.MOST_THREADS), default=1)
    a = parser.parse_args(argv)
    known = [NEXT, *begins(a.hours)]
    for name in a.settings or []:
        if name not in known:
            parser.error(f"--settings {name}: choose from {', '.join(known)}")
    if a.hours != 4.0 and a.lm:
        parser.error(f"--hours {a.hours:g}: language models write steps of 4 hours; give --hours 4 or leave them out")
    a.settings = [n for n in known if n in (a.settings or known)]
    a.rivals = [n for n in RIVALS if a.only is None or n in a.only or n == "last_value"]
    return a


def asked_of(people: People, part: str, setting: str, begin: int | None, stays: int) -> dict[str, Asked]:
    """Set -> the stays that are judged and their values; in trajectories at most `stays` of each set."""
    out = {}
    for name, of in people.parts.items():
        if part not in of:
            continue
        records = of[part]
        if begin is None:
            out[name] = Asked(records, next_places(people.words, records.stays))
            continue
        some = take(records, some_rows(path_places(people.words, records.stays, begin), stays, SEED))
        out[name] = Asked(some, path_places(people.words, some.stays, begin))
    return out


def _kept(path: Path, say: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What was said before, or says it now and keeps it."""
    if path.exists():
        return load_file(path)
    told = {n: x.contiguous() for n, x in say().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_tensors(path, told)
    return told


def _slots(asked: Asked, by_hospital: bool) -> Slots:
    p = asked.places
    return {
        "y": p.y,
        "item": p.item,
        "last": p.last,
        "place": p.place,
        "stay": p.row,
        "subject": owners(asked.records, by_hospital)[p.row],
    }


def judge(a: argparse.Namespace, room: Room, setting: str, begin: int | None) -> tuple[dict[str, Slots], list[str]]:
    """The columns of every rival and world on every set, and their names."""
    part = "test" if a.test else "valid"
    asked = asked_of(room.people, part, setting, begin, a.stays)
    slots = {n: _slots(x, room.people.cohorts[n].by_hospital) for n, x in asked.items()}
    for name in tqdm(a.rivals, desc=setting):
        says: list[Says] = []
        spent = {"boosting": (room.rows,), "grud": (room.steps,)}.get(name, ())

        def say(source: str, it: Asked, name: str = name, says: list[Says] = says) -> dict[str, Tensor]:
            if not says:
                says.append(RIVALS[name](room, begin))
            return says[0](source, it.records, it.places)

        for source, it in asked.items():
            path = room.work / "said" / f"{name}-{setting}-{part}-{source}-{_sum(it, *spent)}.safetensors"
            told = _kept(path, lambda source=source, it=it: say(source, it))  # type: ignore[misc]
            slots[source] |= scored(name, told, it.places, room.scale)
    for world in a.world:
        for source, told in _by_world(a, room, world, setting, begin, asked).items():
            slots[source] |= scored(Path(world).name, told, asked[source].places, room.scale)
    return slots, [*(Path(w).name for w in a.world), *a.rivals]


def _by_world(
    a: argparse.Namespace, room: Room, world: str, setting: str, begin: int | None, asked: dict[str, Asked]
) -> dict[str, dict[str, Tensor]]:
    """What a learned world says of every set."""
    model, label = load_world(world, room.hours), Path(world).name
    seal, part, out = checkpoint.sha256(folder_of(world))[:12], "test" if a.test else "valid", {}
    for source, it in tqdm(asked.items(), desc=f"{setting}, {label}"):
        path = room.work / "said" / f"{label}-{seal}-{setting}-{part}-{source}-{_sum(it, a.paths)}.safetensors"

        def foretell(source: str = source, it: Asked = it) -> dict[str, Tensor]:
            return world_columns(model, world, source, it.records, it.places, room.scale, begin, a.paths)

        out[source] = _kept(path, foretell)
    return out


def by_language(a: argparse.Namespace, room: Room) -> list[dict]:
    """Rows of the language models, and of the other rivals on the same values."""
    part, people = "test" if a.test else "valid", room.people
    asked = {n: few(people.words, of[part], a.lm_stays, SEED) for n, of in people.parts.items() if part in of}
    told: dict[str, dict[str, dict[str, Tensor]]] = {n: {} for n in asked}
    for name in a.rivals:
        says = RIVALS[name](room, None)
        for source, it in asked.items():
            told[source][name] = says(source, it.records, it.places)
    for world in a.world:
        model, name = load_world(world, room.hours), Path(world).name
        for source, it in asked.items():
            columns = world_columns(model, world, source, it.records, it.places, room.scale, None, a.paths)
            told[source][name] = columns
    learn = [r.stays for r in room.records("learn")]
    cpu_s, names = {}, [*(Path(w).name for w in a.world), *a.rivals]
    for form, seconds, rate in a.lm:
        name = f"{form}-lm-{seconds:g}s"
        folder = room.work / f"{name}-rate{rate:g}"
        name = name if sum(x[:2] == (form, seconds) for x in a.lm) == 1 else folder.name
        rival = Language(form, learn, people.words, folder, seconds, rate)
        cpu_s[name] = rival.cpu_s
        names.append(name)
        for source, it in asked.items():
            path = room.work / "said" / f"{folder.name}-{part}-{source}-{a.lm_stays}.safetensors"
            told[source][name] = _kept(path, lambda rival=rival, it=it: rival.says(it, room.scale))  # type: ignore[misc]
    slots = {
        n: slots_of_few(it, owners(it.records, people.cohorts[n].by_hospital), told[n], room.scale)
        for n, it in asked.items()
    }
    found = rows("next_step, few", slots, names, people.words, a.resamples)
    return [row | {"cpu_s": cpu_s.get(row["model"], float("nan"))} for row in found]


def _sum(asked: Asked, *spent: int) -> str:
    """A short sum of the values that are foretold and of what the rival may spend."""
    told = json.dumps([*spent, len(asked.places.y), float(asked.places.y.double().sum())])
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def run(a: argparse.Namespace) -> dict[str, list[dict]]:
    """Name of a table -> its rows; each is written as soon as it is whole."""
    most = QUICK_STAYS if a.quick else a.most
    work = a.work / f"{'quick-' * a.quick}{a.hours:g}h{f'-{most}' if most else ''}"
    parts = ("learn", "valid", "test") if a.test else ("learn", "valid")
    people = read_parts(a.data, a.work / "stays", a.hours, most, parts)
    spends = (QUICK_ROWS, QUICK_STEPS) if a.quick else (a.rows, a.steps)
    room = Room(people, Scale(people.words), a.hours, work, *spends)
    for world in a.world:
        load_world(world, a.hours)  # what cannot be judged is refused before anything is trained
    made = made_by("benchmarks.people.rivals", None, {"trajectory stays": SEED, "bootstrap": 0}, a.world)
    tables: dict[str, list[dict]] = {}
    for setting in a.settings:
        begin = begins(a.hours).get(setting)
        slots, who = judge(a, room, setting, begin)
        table = "people_next" if begin is None else "people_trajectory"
        tables.setdefault(table, []).extend(rows(setting, slots, who, people.words, a.resamples, begin))
        if begin is None:
            tables["people_next_items"] = item_rows(setting, slots, who, people.words)
            if a.lm:
                tables["people_language"] = by_language(a, room)
        a.out.mkdir(parents=True, exist_ok=True)
        for name, found in tables.items():
            write_csv(a.out / f"{name}_{a.hours:g}h.csv", found, made)
    return tables


def _told(tables: dict[str, list[dict]]) -> str:
    names = ("s25", "s25_hits", "s10", "mae_sd", "nll", "crps", "coverage80", "status_f1", "high_sensitivity_s25_hits")
    lines = []
    for table in ("people_next", "people_trajectory", "people_language"):
        for row in tables.get(table, []):
            head = f"{row['setting']:<20} {row['horizon']:<10} {row['set']:<15} {row['model']:<16}"
            lines.append(head + " ".join(f"{n} {row[n]:.4f}" for n in names))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line; exits with 2 on errors."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        tables = run(a)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(_told(tables))


if __name__ == "__main__":
    main()
