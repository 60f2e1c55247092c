"""How fast the environment is: `python -m benchmarks.common.speed --json benchmarks/results/speed.json [--peers]`.

Measures, in one run: environment steps a second at batch 1, 64, 1024 and 4096 for chart and ECG observations in the
oracle and the learned world, with Gymnasium's CartPole-v1 in SyncVectorEnv(64) as the yardstick; 12-lead ECGs a second,
also of several processes at once;
the shares of time in passes through learned weights, in torch modules alone and in the world's verbs (what each counts:
`benchmarks.common.network_share`; the target is half of the time in learned passes at batch 4096); the time of
`import clinenv` and of the first `make`; memory an environment.
`--peers` adds ICU-Sepsis and mbrl-lib, each in a virtual environment of its own.

A rate is the median of `--repeats` runs of at least `--seconds` each, random actions drawn beforehand, after a warm-up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import clinenv  # noqa: F401  (registers the ids)
from benchmarks.common.network_share import time_shares
from benchmarks.common.peers import PEERS, measure_peer
from benchmarks.common.results import made_by, write_json

BATCHES = (1, 64, 1024, 4096)
ECG_BATCHES = (64, 512)  # drawn at once
COURSE_STEPS = 24  # 48 h
IMPORTS, FIRST_MAKES = 5, 3  # fresh processes that are timed
CROWD = 4096  # environments of which memory is told
ROOT = Path(__file__).resolve().parents[2]


def rate(work: Callable[[], int], seconds: float, repeats: int) -> dict[str, float]:
    """Units of work a second: median, lowest and highest of `repeats`. `work` does some and says how many units.

    `cpu` is the median per second of processor time (all threads added): on a machine that others use too it says what
    the wall clock cannot.
    """
    work()
    found, cpu = [], []
    for _ in range(repeats):
        done, start, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            done += work()
        found.append(done / (time.perf_counter() - start))
        cpu.append(done / max(time.process_time() - used, 1e-9))
    return {"median": statistics.median(found), "low": min(found), "high": max(found), "cpu": statistics.median(cpu)}


def stepping(env: gym.vector.VectorEnv, actions: int = 16, seed: int = 0) -> Callable[[], int]:
    """Work: one step of every environment, with actions from a small table drawn beforehand."""
    env.reset(seed=seed)
    table = np.random.default_rng(seed).integers(env.single_action_space.n, size=(actions, env.num_envs))
    turn = iter(range(10**12))

    def work() -> int:
        env.step(table[next(turn) % actions])
        return env.num_envs

    return work


def course(step: Callable[[], int]) -> Callable[[], int]:
    """Work: a whole course, so that admissions, which come all at once, weigh as much as they do."""
    return lambda: sum(step() for _ in range(COURSE_STEPS))


def clinical(world: Any, batch: int, observation: str) -> gym.vector.VectorEnv:
    """A vector environment of `batch` patients, restarted in the step in which they end."""
    return gym.make_vec(
        "ECGDrug-v0",
        num_envs=batch,
        vectorization_mode="vector_entry_point",
        vector_kwargs={},
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        world=world,
        observation=observation,
    )


def single(world: Any, observation: str) -> Callable[[], int]:
    """Work: one step of the single environment, as a user calls it."""
    env = gym.make("ECGDrug-v0", world=world, observation=observation, disable_env_checker=True)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=64)
    turn = iter(range(10**12))

    def work() -> int:
        _, _, terminated, truncated, _ = env.step(actions[next(turn) % 64])
        if terminated or truncated:
            env.reset()
        return 1

    return work


def waveforms(world: Any, batch: int) -> Callable[[], int]:
    """Work: a 12-lead, ten-second, 500 Hz ECG for each patient of a batch, chart included."""
    from world_models import keys

    state = world.initial(keys.from_seed(0, batch))

    def work() -> int:
        world.observe(state, ("ecg_mv",))
        return batch

    return work


def _waveforms_alone(name: str, batch: int, seconds: float, together: Any, found: Any) -> None:
    """In a process of its own: ECGs a second on one thread, once all of `together` are warm."""
    from world_models import catalog

    torch.set_num_threads(1)
    work = waveforms(catalog.load(name), batch)
    work()
    work()
    together.wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += work()
    found.put(done / (time.perf_counter() - start))


def waveforms_of_processes(name: str, batch: int, seconds: float, processes: int) -> float:
    """ECGs a second of so many processes at once, each on one thread: their rates' sum."""
    context = multiprocessing.get_context("spawn")
    together, found = context.Barrier(processes), context.Queue()
    several = [
        context.Process(target=_waveforms_alone, args=(name, batch, seconds, together, found)) for _ in range(processes)
    ]
    for process in several:
        process.start()
    total = sum(found.get() for _ in several)
    for process in several:
        process.join()
    return total


def in_fresh_process(code: str, *args: str) -> float:
    """What `code` prints last, as a number, run by a new interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *args]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return float(run.stdout.split()[-1])


IMPORT = "import time; t = time.perf_counter(); import clinenv; print(time.perf_counter() - t)"
FIRST_MAKE = (
    "import sys, time, clinenv, gymnasium; t = time.perf_counter();"
    "e = gymnasium.make('ECGDrug-v0', world=sys.argv[1]); e.reset(seed=0); print(time.perf_counter() - t)"
)
# Resident memory (Linux) of a process after two whole courses of its batch, MB.
MEMORY = (
    "import sys, resource, clinenv, gymnasium, numpy as np, torch; torch.set_num_threads(1); n = int(sys.argv[2]);"
    "e = gymnasium.make_vec('ECGDrug-v0', num_envs=n, vectorization_mode='vector_entry_point', world=sys.argv[1],"
    "                       autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP);"
    "e.reset(seed=0);"
    "[e.step(np.full(n, i % 9)) for i in range(48)];"
    "print(int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20)"
)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the run as one JSON-ready dict."""
    from world_models import catalog

    torch.set_num_threads(args.threads)
    out: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "torch": torch.__version__,
        "gymnasium": gym.__version__,
        "torch_threads": args.threads,
        "load_average_before": os.getloadavg()[0],
        "steps_per_second": [],
        "waveforms_per_second": [],
        "time_share": [],
        "first_make_s": {},
        f"memory_mb_per_env_at_{CROWD}": {},
    }

    def line(name: str, text: str) -> None:
        print(f"{name:58s} {text}", flush=True)

    def steps(world: str, observation: str, batch: str, found: dict[str, float]) -> None:
        out["steps_per_second"].append({"world": world, "observation": observation, "batch": batch, **found})
        rates = f"{found['median']:12,.0f} steps/s  {found['cpu']:12,.0f} a CPU s"
        line(f"{world}, {observation}, batch {batch}", rates)

    yard = gym.make_vec("CartPole-v1", num_envs=64, vectorization_mode="sync")
    steps("CartPole-v1 SyncVectorEnv", "state", "64", rate(stepping(yard), args.seconds, args.repeats))
    for name in args.worlds:
        world = catalog.load(name)
        for observation in ("chart", "ecg"):
            steps(name, observation, "1 (gym.make)", rate(single(world, observation), args.seconds, args.repeats))
            for batch in args.batches:
                if observation == "ecg" and batch > args.largest_ecg_batch:
                    continue
                env = clinical(world, batch, observation)
                steps(name, observation, str(batch), rate(stepping(env), args.seconds, args.repeats))
                if observation == "chart":
                    share = time_shares(course(stepping(env)), env.unwrapped.world, args.seconds)
                    out["time_share"].append({"world": name, "batch": batch, "share": share})
                    line(f"{name}, time in learned passes, batch {batch}", f"{share['learned']:12.0%}")
                    line("   in calls of torch modules alone", f"{share['modules']:12.0%}")
                    line("   in all of the world's verbs", f"{share['world']:12.0%}")
                env.close()
        for batch in ECG_BATCHES:
            found = rate(waveforms(world, batch), args.seconds, args.repeats)
            out["waveforms_per_second"].append({"world": name, "batch": batch, "processes": 1, **found})
            rates = f"{found['median']:12,.0f} ECGs/s  {found['cpu']:12,.0f} a CPU s"
            line(f"{name}, 12-lead ECGs, 10 s, 500 Hz, batch {batch}", rates)
        several = [
            waveforms_of_processes(name, ECG_BATCHES[-1], args.seconds, args.processes) for _ in range(args.repeats)
        ]
        found = {"median": statistics.median(several), "low": min(several), "high": max(several)}
        told = {"world": name, "batch": ECG_BATCHES[-1], "processes": args.processes}
        out["waveforms_per_second"].append(told | found)
        line(f"   batch {ECG_BATCHES[-1]} in each of {args.processes} processes", f"{found['median']:12,.0f} ECGs/s")

    out["import_clinenv_s"] = statistics.median(in_fresh_process(IMPORT) for _ in range(IMPORTS))
    line("import clinenv", f"{out['import_clinenv_s']:12.2f} s")
    for name in args.worlds:
        out["first_make_s"][name] = statistics.median(in_fresh_process(FIRST_MAKE, name) for _ in range(FIRST_MAKES))
        line(f"first make and reset, {name}", f"{out['first_make_s'][name]:12.2f} s")
        if not Path("/proc/self/statm").exists():
            continue
        used = {n: in_fresh_process(MEMORY, name, str(n)) for n in (1, CROWD)}
        each = (used[CROWD] - used[1]) / (CROWD - 1)
        memory = {"extra": each, "process": used[CROWD], "process_of_one": used[1]}
        out[f"memory_mb_per_env_at_{CROWD}"][name] = memory
        line(f"memory at batch {CROWD}, {name}", f"{each * 1024:12.1f} kB an environment, {used[CROWD]:,.0f} MB in all")

    if args.peers:
        out["peers"] = {}
        for peer in PEERS:
            found = measure_peer(peer, Path(args.peers_dir), args.seconds, args.repeats, args.threads)
            out["peers"][peer] = found
            line(peer, found.get("error") or "  ".join(f"{k}: {v:,.0f}/s" for k, v in found["rates"].items()))
    return out


def main(argv: list[str] | None = None) -> int:
    """Measure, print and, with --json, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.common.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", nargs="+", default=["oracle", "ecg-wm-small"])
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--largest-ecg-batch", type=int, default=1024, help="4096 ECGs are 1 GB a step")
    threads = "torch threads; several that share their cores with other work are slower than one"
    parser.add_argument("--threads", type=int, default=1, help=threads)
    parser.add_argument("--processes", type=int, default=2, help="that draw ECGs at the same time, one thread each")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="install and measure the peers too (network needed)")
    parser.add_argument("--peers-dir", default=str(Path.home() / ".cache" / "clinenv-peers"))
    parser.add_argument("--json", help="file to write")
    args = parser.parse_args(argv)
    out = measure(args)
    if args.json:
        path = Path(args.json)
        write_json(path, out, made_by("benchmarks.common.speed", argv, {"actions, patients": 0}, args.worlds))
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
