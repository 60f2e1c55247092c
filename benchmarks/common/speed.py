"""How fast the environments are: `python -m benchmarks.common.speed --json benchmarks/results/speed.json [--peers]`.

Measures all of it in one run, with one torch thread:

- steps a second of every id in its learned world and its oracle: one patient as `gymnasium.make` gives him, and the
  vector environment at 64 and 1024 (ECGDrug-v0 at 4096 too, and with the 12-lead ECG in its observation), beside
  `Simulator.step` of the same patients, by turns;
- where the time goes: learned passes, random keys, admissions, physiology, door (`benchmarks.common.time_split`), and
  the share that learned passes reach of the matrix products of the same run;
- what a new process waits for, and memory (`benchmarks.common.first_calls`); 12-lead ECGs a second;
- CartPole-v1 behind the same interface as a yardstick and, with `--peers`, `benchmarks.common.peers`, each in a virtual
  environment of its own.

A rate is the median of `--repeats` turns of `--seconds`, random actions drawn beforehand, after a warm-up, resets
included. Patients who come are drawn ahead, two a row at once: where a stay takes much longer than a turn, some turns
hold that drawing and others do not. "cpu" is the rate per second of processor time: on a machine that others use it is
the one to read, and the split is of processor time too. A batch of which a step takes longer than `--patience` is left
out, and named.

`--quick` measures a few ids at small batches, without peers: to see that everything runs.
"""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from benchmarks.common.case_speed import case_rows
from benchmarks.common.drawing_speed import waveform_rows
from benchmarks.common.first_calls import in_fresh_process
from benchmarks.common.matrix_peak import matrix_peak
from benchmarks.common.peers import FOLDER, PEERS, measure_peer
from benchmarks.common.playing import playing
from benchmarks.common.results import made_by, write_json
from benchmarks.common.stepping import CASES, Case
from benchmarks.common.time_split import KINDS
from benchmarks.common.timing import Work, rate

BATCHES = (1, 64, 1024)
LARGEST = {"ECGDrug-v0": (4096,)}  # whose worlds are light enough
SHOWING_ECGS = {"observation": "ecg"}
ECG_BATCHES = (64, 512)  # drawn at once
CROWD = 256  # rows of whom memory is told
YARDSTICK = "CartPole-v1"
QUICK = (("ECGDrug-v0", "ecg-wm-small"), ("ECGDrug-v0", "oracle"), ("ECGProgression-v0", "cardiac-jepa-small"))
LISTS = ("steps_per_second", "time_share", "left_out", "yardsticks", "waveforms_per_second", "first_calls", "peers")


def say(name: str, text: str) -> None:
    """A line of progress."""
    print(f"{name:56s} {text}", flush=True)


def told(key: str, row: dict[str, Any]) -> None:
    """A row of `case_rows` as a line."""
    name = f"{row['id']}, {row['world']}, {row['observation']}, batch {row['batch']}"
    if key == "left_out":
        say(name, f"left out: {row['why']}")
    elif key == "steps_per_second":
        ratio = "" if row["of_simulator"] is None else f", {row['of_simulator']:.2f} of Simulator.step"
        say(name, f"{row['environment']['median']:,.0f} steps/s, {row['environment']['cpu']:,.0f} a CPU s{ratio}")
    else:
        shares = ", ".join(f"{kind} {row['share'][kind]:.0%}" for kind in KINDS)
        say("", f"{shares}; learned passes at {row['share_of_peak']:.2%} of the peak")


def cases_of(args: argparse.Namespace) -> list[tuple[Case, tuple[int, ...]]]:
    """Each case with the batches it is measured at."""
    if args.quick:
        return [(case, (1, 64)) for case in CASES if (case.id, case.world) in QUICK]
    chosen = [case for case in CASES if not args.ids or case.id in args.ids]
    found = [(case, (*args.batches, *LARGEST.get(case.id, ()))) for case in chosen]
    with_ecgs = [replace(case, arguments=SHOWING_ECGS) for case in chosen if case.id in LARGEST]
    return found + [(case, (1, 64)) for case in with_ecgs]


def yardsticks(seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Rows of Gymnasium's CartPole-v1: one, 64 one after the other, 1024 as arrays."""
    one = playing(gym.make(YARDSTICK))
    works = [("one", 1, one)]
    for what, mode, batch in (("SyncVectorEnv", "sync", 64), ("CartPoleVectorEnv", "vector_entry_point", 1024)):
        works.append((what, batch, _swinging(gym.make_vec(YARDSTICK, batch, vectorization_mode=mode))))
    rows = [{"what": what, "batch": batch, **rate(work, seconds, repeats)} for what, batch, work in works]
    for row in rows:
        say(f"{YARDSTICK}, {row['what']}, batch {row['batch']}", f"{row['cpu']:,.0f} a CPU s")
    return rows


def _swinging(env: gym.vector.VectorEnv[Any, Any, Any]) -> Work:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = env.action_space.sample()

    def work() -> int:
        env.step(actions)
        return env.num_envs

    return work


def peer_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for what each peer steps; of one that could not be measured, why."""
    rows: list[dict[str, Any]] = []
    for peer in PEERS:
        found = measure_peer(peer, Path(args.peers_dir), args.seconds, args.repeats, args.threads)
        for what, rates in found.get("rates", {}).items():
            rows.append({"peer": peer, "measured": "yes", "what": what, **rates})
            say(f"{peer}, {what}", f"{rates['median']:,.0f} steps/s, {rates['cpu']:,.0f} a CPU s")
        if "error" in found:
            rows.append({"peer": peer, "measured": "no", "why": found["error"]})
            say(peer, found["error"])
    return rows


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the run as one JSON-ready dict."""
    torch.set_num_threads(args.threads)
    out: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "torch": torch.__version__,
        "gymnasium": gym.__version__,
        "torch_threads": args.threads,
        "seconds": args.seconds,
        "repeats": args.repeats,
        "load_average_before": os.getloadavg()[0],
        "matrix_peak": matrix_peak(args.seconds, args.repeats),
        **{name: [] for name in LISTS},
    }
    say("matrix products, float32", f"{out['matrix_peak']['cpu'] / 1e9:,.0f} GFLOP a CPU s")
    out["yardsticks"] += yardsticks(args.seconds, args.repeats)
    cases = cases_of(args)
    for case, batches in cases:
        for key, row in case_rows(case, batches, args.seconds, args.repeats, out["matrix_peak"]["cpu"], args.patience):
            out[key].append(row)
            told(key, row)
    for world in dict.fromkeys(case.world for case, _ in cases if case.id in LARGEST):
        batches = ECG_BATCHES[:1] if args.quick else ECG_BATCHES
        found = waveform_rows(world, batches, args.seconds, args.repeats, args.processes)
        out["waveforms_per_second"] += found
        for row in found:
            name = f"{world}, 12-lead ECGs, batch {row['batch']}, {row['processes']} processes"
            say(name, f"{row['median']:,.0f} ECGs/s")
    for case in [case for case, _ in cases if "observation" not in case.arguments][: 1 if args.quick else None]:
        found = in_fresh_process(case.id, case.world, CROWD)
        out["first_calls"].append({"id": case.id, "world": case.world, **found})
        say(
            f"{case.id}, {case.world}, in a new process",
            ", ".join(f"{k} {v:.3g}" for k, v in found.items()) if "error" not in found else found["error"],
        )
    if args.peers:
        out["peers"] += peer_rows(args)
    out["load_average_after"] = os.getloadavg()[0]
    return out


def main(argv: list[str] | None = None) -> int:
    """Measure, print and, with --json, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.common.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ids", nargs="+", choices=sorted({case.id for case in CASES}), help="by default all")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    threads = "torch threads; several that share their cores with other work are slower than one"
    parser.add_argument("--threads", type=int, default=1, help=threads)
    parser.add_argument("--processes", type=int, default=2, help="that draw ECGs at the same time, one thread each")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=0.8, help="processor time of a step, s, at most")
    parser.add_argument("--peers", action="store_true", help="install and measure the peers too (network needed)")
    parser.add_argument("--peers-dir", default=str(FOLDER), help="where their virtual environments lie")
    parser.add_argument("--quick", action="store_true", help="a few ids, small batches, short turns, no peers")
    parser.add_argument("--json", help="file to write")
    args = parser.parse_args(argv)
    if args.quick:
        args.seconds, args.repeats, args.peers, args.processes = 0.1, 1, False, 1
    out = measure(args)
    if args.json:
        worlds = sorted({case.catalogued for case, _ in cases_of(args)})
        write_json(args.json, out, made_by("benchmarks.common.speed", argv, {"actions, patients": 0}, worlds))
        print(f"written: {args.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
