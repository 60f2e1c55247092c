"""Every id at the door of every library: `python -m benchmarks.doors --out benchmarks/results/doors.csv`.

One row a library, check and id: the library's own checker where it has one, else its own collection of whole courses,
in the learned world that an id stands for; whether it passed or why not, and patient-steps a second that the library
collects (random actions, one process; of wall clock and of processor time). A library that is not installed is named as
that. What the doors promise besides, step by step against the plain environment, is tested in `tests/doors`.

Random numbers: the patients are those of seed 0; actions are drawn as each library draws them, most from seed 0.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common.door_checks import LIBRARIES, Case, NotApplicable, check_team
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.common.stays import stay
from benchmarks.common.timing import rate
from clinenv import registration
from world_models import catalog
from world_models.command_line import number, whole


def cases(ids: Sequence[str], num_envs: int) -> list[Case]:
    """Each id in the learned world that it stands for, loaded once."""
    found, worlds = [], {}
    for row in registration.ENVIRONMENTS:
        if row["id"] in ids:
            name = row["kwargs"]["world"]
            worlds[name] = worlds.get(name) or catalog.load(name)
            arguments = {"world": worlds[name]}
            if row["id"] == "EHRReplay-v0":
                arguments["stays"] = [stay(1), stay(2)]
            found.append(Case(row["id"], arguments, num_envs))
    return found


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _verdict(check: Callable[[], Any]) -> tuple[str, Any]:
    """What came of it in words, and what it returned."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about themselves
            return "passed", check()
    except NotApplicable as reason:
        return f"does not apply: {reason}", None
    except Exception as error:  # whatever a library raises is the finding
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}", None


def row_of(name: str, case: Case, seconds: float) -> dict[str, Any]:
    """The finding of one library on one id."""
    library = LIBRARIES[name]
    row: dict[str, Any] = {
        "library": name,
        "version": _version(library.distribution),
        "id": case.env_id,
        "check": str(library.check.__doc__).rstrip("."),
        "num_envs": case.num_envs,
    }
    if importlib.util.find_spec(library.module) is None:
        return {**row, "result": "not installed"}
    result, work = _verdict(lambda: library.check(case))
    if work is not None:
        result, found = _verdict(lambda: rate(work, seconds, 1))
        if found is not None:
            row |= {"steps_per_second": found["median"], "steps_per_cpu_second": found["cpu"]}
    return {**row, "result": result}


def team_rows() -> list[dict[str, Any]]:
    """PettingZoo's findings on every environment of several agents."""
    row = {"library": "pettingzoo", "version": _version("pettingzoo"), "check": str(check_team.__doc__).rstrip(".")}
    ids = [team["id"] for team in registration.TEAMS]
    return [{**row, "id": i, "num_envs": 1, "result": _verdict(lambda i=i: check_team(i))[0]} for i in ids]


def main(argv: list[str] | None = None) -> int:
    """Check, print and write; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__.split("\n")[0])
    ids = [row["id"] for row in registration.ENVIRONMENTS]
    parser.add_argument("--ids", nargs="+", choices=ids, default=ids, metavar="ID")
    names = [*LIBRARIES, "pettingzoo"]
    parser.add_argument("--libraries", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--num-envs", type=whole(1, 1 << 16), default=256, help="patients at once")
    parser.add_argument("--seconds", type=number(0.05, 600.0), default=1.0, help="of collecting, each")
    parser.add_argument("--out", type=Path, default=RESULTS / "doors.csv")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = cases(args.ids, args.num_envs)
    rows = []
    asked = [(name, case) for name in args.libraries if name in LIBRARIES for case in found]
    for name, case in tqdm(asked, unit="check"):
        rows.append(row_of(name, case, args.seconds))
        tqdm.write(_line(rows[-1]))
    rows += team_rows() if "pettingzoo" in args.libraries else []
    worlds = {row["kwargs"]["world"] for row in registration.ENVIRONMENTS if row["id"] in args.ids}
    write_csv(args.out, rows, made_by("benchmarks.doors", argv, {"patients": 0}, sorted(worlds)))
    print(f"written: {args.out}")
    return int(any(row["result"] != "passed" and not _excused(row["result"]) for row in rows))


def _excused(result: str) -> bool:
    return result == "not installed" or result.startswith("does not apply")


def _line(row: Mapping[str, Any]) -> str:
    speed = f"{row['steps_per_second']:10,.0f} steps/s" if "steps_per_second" in row else ""
    return f"{row['library']:20s} {row['version']:14s} {row['id']:22s} {row['result']:8s} {speed}"


if __name__ == "__main__":
    raise SystemExit(main())
