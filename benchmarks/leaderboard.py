"""The leaderboard: agents x environments x lengths, made in the learned worlds, judged in the oracles.

    python -m benchmarks.leaderboard --quick                        everything, small, in minutes
    python -m benchmarks.leaderboard --workers 2                    in full; the same command goes on after a stop
    python -m benchmarks.leaderboard --shards 4 --shard 0           a quarter, for a machine of its own
    python -m benchmarks.leaderboard --tables-only                  the tables of what is judged so far
    python -m benchmarks.leaderboard --ids ID --salt S --beside leaderboard.csv     an id anew, the others as they were
    python -m benchmarks.leaderboard --spread ray                   on a Ray cluster (extra ray)

Every agent of `agents.registry` (and what --submission adds) is made in the learned world, judged there and in the
oracle on the same patients under the same luck: return, safety cost, the worst 5 % of both, the exploitation gap
(promised minus earned), the regret against the best reference that owns the oracle, and milliseconds a decision.
Whom it is judged on follows from a salt that is drawn when the board is opened; --salt draws the same again.

Writes leaderboard.csv, leaderboard_constants.csv, leaderboard.md and leaderboard.html to --out. Cells and trained
agents are kept in --runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.board.board import FILE as BOARD
from agents.board.board import Board, constants_tried, open_board
from agents.board.cell import Rules
from agents.board.draw import new_salt
from agents.board.page import board_page
from agents.board.run import SPREADS, run_groups
from agents.board.stage import HORIZONS, learned_world, simulator_of
from agents.board.submission import Submission, read_submission
from agents.board.table import as_markdown, read_rows, rows_of
from agents.registry import AGENTS, Entry
from agents.registry import entry as agent_named
from benchmarks.common.results import RESULTS, made_by, provenance, write_csv, write_page
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from world_models.command_line import folder, number, whole

MODULE = "benchmarks.leaderboard"
QUICK = Rules("", patients=24, slow_patients=8, limit_ms=5_000.0, quick=True)
FULL = Rules("", patients=200, slow_patients=60, limit_ms=5_000.0)
QUICK_STEPS = 12  # at most, of an episode in the quick form


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short episodes, few patients, small budgets: minutes")
    parser.add_argument("--ids", nargs="+", default=list(HORIZONS), choices=list(HORIZONS), metavar="ID")
    parser.add_argument("--agents", nargs="+", metavar="NAME", help="of the registry (default: all)")
    parser.add_argument("--steps", nargs="+", type=whole(1, 168), help="lengths, of those an id has (default: all)")
    parser.add_argument("--seeds", type=whole(1, 100), help="of each agent at most (default: three where chance plays)")
    parser.add_argument("--patients", type=whole(2, 100_000), help="judged on")
    parser.add_argument("--slow-patients", type=whole(2, 100_000), help="for agents that think long: the first of them")
    parser.add_argument("--limit-ms", type=number(0, 1e9, above=True), help="longest decision for a patient")
    parser.add_argument("--submission", action="append", default=[], metavar="FILE.json", help="judged besides")
    parser.add_argument("--salt", help="32 or more hexadecimal digits; the patients of a board that was published")
    parser.add_argument("--spread", choices=list(SPREADS), default="processes", help="over what the cells are spread")
    parser.add_argument("--workers", type=whole(1, 1024), default=2, help="processes at a time")
    parser.add_argument("--shards", type=whole(1, 10_000), default=1, help="parts of the board, for several machines")
    parser.add_argument("--shard", type=whole(0, 9_999), default=0, help="the part to judge; it writes no tables")
    parser.add_argument(
        "--beside", type=Path, metavar="FILE.csv", help="an earlier table of this salt, whose rows of other ids stay"
    )
    parser.add_argument("--tables-only", action="store_true", help="judge nothing")
    parser.add_argument("--runs", type=folder, default=Path("runs/leaderboard"), help="cells and trained agents")
    parser.add_argument("--out", type=folder, default=RESULTS)
    args = parser.parse_args(argv)
    if args.shard >= args.shards:
        parser.error(f"--shard {args.shard} of --shards {args.shards}: they are numbered from 0")
    return args


def _rules(args: argparse.Namespace) -> Rules:
    given = {"patients": args.patients, "slow_patients": args.slow_patients, "limit_ms": args.limit_ms}
    return replace(QUICK if args.quick else FULL, **{name: v for name, v in given.items() if v is not None})


def _horizons(args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Lengths by id: those asked for, or an id's shortest where it has none of them."""
    wanted = [QUICK_STEPS] if args.quick and args.steps is None else args.steps
    if wanted is None:
        return {env_id: HORIZONS[env_id] for env_id in args.ids}
    return {i: tuple(s for s in HORIZONS[i] if s in wanted) or (min(HORIZONS[i]),) for i in args.ids}


def _open(args: argparse.Namespace) -> Board:
    submissions: list[Submission] = [read_submission(path) for path in args.submission]
    agents: Sequence[Entry] = AGENTS if args.agents is None else [agent_named(name) for name in args.agents]
    seeds = 3 if args.quick and args.seeds is None else args.seeds
    runs = args.runs / ("quick" if args.quick else "full")
    if args.shards > 1 and args.salt is None and not (runs / BOARD).exists():
        raise ValueError(f"--shards {args.shards} without --salt: give all of them one, such as {new_salt()}")
    return open_board(runs, _rules(args), args.ids, _horizons(args), agents, seeds, submissions, args.salt)


def _judge(board: Board, args: argparse.Namespace) -> None:
    """Judge what is missing of this shard; a line of JSON for each group in progress.jsonl."""
    mine = board.groups[args.shard :: args.shards]
    with (
        tqdm(total=len(mine), desc="agents", unit="agent") as bar,
        (board.folder / "progress.jsonl").open("a", encoding="utf-8") as log,
    ):
        for group, found in run_groups(mine, board.rules, board.folder, args.spread, args.workers):
            bar.set_postfix_str(group.label[-50:])
            bar.update()
            for cell in found:
                line = {**cell["cell"], "status": cell["status"], "seconds": cell["seconds"], "cpu_s": cell["cpu_s"]}
                log.write(json.dumps({**line, "reason": cell.get("reason", "")}) + "\n")
            log.flush()
        bar.update(len(mine) - bar.n)  # those that were done before


def _facts(board: Board, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    slow = f", {board.rules.slow_patients} for planners" if board.rules.slow_patients < board.rules.patients else ""
    form = [("Form", "quick: small budgets, nothing to conclude from")] if board.rules.quick else []
    return [
        *form,
        ("Agents", str(len({r["agent"] for r in rows}))),
        ("Environments", str(len({r["id"] for r in rows}))),
        ("Patients", f"{board.rules.patients}{slow}"),
        ("Longest decision", f"{board.rules.limit_ms:g} ms"),
        ("Salt", board.salt),
        ("Code", ", ".join(dict.fromkeys(c for r in rows for c in r["code"].split(", "))) or "none"),
    ]


def _earlier(path: Path, salt: str, ids: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of other ids out of an earlier leaderboard.csv, and of the constants beside it.

    Raises:
        ValueError: a table of another salt, whose patients are others, or no table of a board.
        OSError: it cannot be read.
    """
    told = provenance(path).get("seeds", {}).get("salt")
    if told != salt:
        raise ValueError(f"{path} has the salt {told}, this board {salt}: judged on others; give --salt {told}")
    constants = read_rows(path.with_name(f"{path.stem}_constants.csv"), ("id", "constant"))
    return [r for r in read_rows(path) if r["id"] not in ids], [c for c in constants if c["id"] not in ids]


def _write(board: Board, args: argparse.Namespace, argv: Sequence[str] | None) -> list[dict[str, Any]]:
    """The tables and the page of what is judged; returns the rows."""
    cells, missing = board.finished()
    if missing:
        print(f"{len(missing)} of {len(cells) + len(missing)} cells are not judged yet", file=sys.stderr)
    rows = rows_of(cells)
    constants = constants_tried(board.folder)
    ids = list(board.ids)
    if args.beside is not None:
        earlier, tried = _earlier(args.beside, board.salt, ids)
        ids = [i for i in HORIZONS if i in {*ids, *(str(r["id"]) for r in earlier)}]
        rows = sorted([*rows, *earlier], key=lambda r: (ids.index(r["id"]), r["steps"]))
        constants = sorted([*constants, *tried], key=lambda c: ids.index(c["id"]))
    worlds = [w for i in ids for w in (learned_world(i), simulator_of(i, learned_world(i)).task.oracle)]
    seeds = {"salt": board.salt, "agents": "0, 1, 2 where chance plays", "bootstrap": 0}
    made = made_by(MODULE, argv, seeds, worlds)
    out = args.out
    write_csv(out / "leaderboard.csv", rows, made)
    write_csv(out / "leaderboard_constants.csv", constants, made)
    head = f"# Leaderboard\n\n{NOT_FOR_CLINICAL_USE}. Salt `{board.salt}`, 95 % intervals over patients and seeds.\n\n"
    write_page(out / "leaderboard.md", head + as_markdown(rows), made)
    write_page(out / "leaderboard.html", board_page(rows, _facts(board, rows), made["command"], constants), made)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Judge, write, and print the tables. Returns the exit status: 2 for what cannot be judged, 1 if a row failed."""
    args = _arguments(argv)
    start = time.perf_counter()
    try:
        if args.beside is not None:
            if not args.beside.is_file():
                raise ValueError(f"--beside {args.beside} is no file; give the leaderboard.csv of an earlier board")
            read_rows(args.beside)  # refused before a board is opened
        board = _open(args)
        if args.beside is not None:
            _earlier(args.beside, board.salt, args.ids)  # what cannot be read is refused before anything is judged
        if not args.tables_only:
            _judge(board, args)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.shards > 1 and not args.tables_only:
        print(f"shard {args.shard} of {args.shards} is judged; --tables-only writes the tables when all are")
        return 0
    rows = _write(board, args, argv)
    print(as_markdown(rows))
    failed = [r for r in rows if r["status"] != "ok"]
    for row in failed:
        print(f"failed: {row['agent']} in {row['id']}, {row['steps']} steps: {row['reason']}", file=sys.stderr)
    print(f"{len(rows)} rows in {args.out}, {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
