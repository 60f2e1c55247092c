"""What the package promises of its surroundings: functions of an empty folder that raise where one is broken."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import torch

import clinenv  # noqa: F401  (registers the ids)
from agents import run_folder
from agents.baselines.tuned_rules import kept_knobs
from agents.offline import logged
from clinenv.commands.main import INTERRUPTED
from clinenv.commands.main import main as command
from clinenv.testing import check_fork
from tests.campaign import jobs, small
from world_models import checkpoint
from world_models.data.ecg.monolith import MonolithError
from world_models.data.ehr.meds.writer import write_episodes
from world_models.files import write_bytes

__all__ = ["PROMISES", "course"]

IDS = ("ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0", "ECGExplain-v0")
FEW_BYTES = 4096  # what a full disk still takes


def course(name: str, env: Any = None, steps: int = 3) -> str:
    """SHA-256 of a short course of an id under one seed; of `env`, where one is given that stands at its start."""
    fresh = env is None
    env = gymnasium.make(name).unwrapped if env is None else env
    digest = hashlib.sha256()
    if fresh:
        env.reset(seed=5)
    env.action_space.seed(5)
    for _ in range(steps):
        observation, reward, over, cut, _ = env.step(env.action_space.sample())
        digest.update(np.asarray(observation).tobytes() + np.float64(reward).tobytes() + bytes([over, cut]))
        if over or cut:
            env.reset(seed=6)
    return digest.hexdigest()


def forks(folder: Path) -> None:
    """A forked child steps every id, whatever threads its parent used."""
    for name in IDS:
        check_fork(partial(gymnasium.make, name), timeout_s=300.0)


def spawns(folder: Path) -> None:
    """A spawned child has the same course as this process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(course, IDS))
    assert there == [course(name) for name in IDS]


def threads(folder: Path) -> None:
    """Four threads with an environment each have the course of one alone."""
    alone = [course(name) for name in IDS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(course, IDS)) == alone


def copies(folder: Path) -> None:
    """A deep copy and a pickle of an environment go on as it does."""
    for name in IDS:
        env = gymnasium.make(name).unwrapped
        env.reset(seed=5)
        twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        told = course(name, env)
        assert [course(name, twin) for twin in twins] == [told, told], name


def one_file_two_threads(folder: Path) -> None:
    """Writers of one file in one process: at each moment it holds what one of them wrote."""
    path, stop = folder / "x.bin", time.monotonic() + 2.0
    contents = [bytes([n]) * 200_000 for n in range(4)]
    write_bytes(path, contents[0])

    def write(content: bytes) -> None:
        while time.monotonic() < stop:
            write_bytes(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert [p.name for p in folder.iterdir()] == ["x.bin"]


def _save_and_load(folder: Path, number: int) -> None:
    for _ in range(20):
        checkpoint.save_checkpoint(folder, {"x": torch.full((1000,), float(number))}, {"kind": str(number)}, "# x\n")
        tensors, config = checkpoint.load(folder)
        assert bool((tensors["x"] == float(config["kind"])).all())


def _knobs(path: Path, number: int) -> None:
    found = kept_knobs(path, ["a", "b"], lambda: torch.tensor([0.25, 0.5]), {"seed": 1})
    assert found.tolist() == [0.25, 0.5]


def two_processes_one_folder(folder: Path) -> None:
    """Processes that write one world, and ones that share what they tuned: what is read is always of one of them."""
    (folder / "w").mkdir()
    for work in (partial(_save_and_load, folder / "w"), partial(_knobs, folder / "knobs.json")):
        context = get_context("fork")
        children = [context.Process(target=work, args=(number,)) for number in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(300.0)
        assert [child.exitcode for child in children] == [0, 0, 0]


@contextmanager
def _full_disk() -> Any:
    """Every file of this process ends after `FEW_BYTES`: its writes fail as on a full disk."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def full_disk(folder: Path) -> None:
    """What was there stays as it was, nothing half written is left, and the error is named."""
    log, stays = small.log(), jobs.stays()
    weights = {"x": torch.zeros(10_000)}
    writers: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
        "x.bin": (lambda: write_bytes(folder / "x.bin", bytes(FEW_BYTES * 2)), OSError),
        "w": (lambda: checkpoint.save_checkpoint(folder / "w", weights, {"kind": "x"}, "# x\n"), OSError),
        "log.h5": (lambda: logged.save(log, folder / "log.h5"), OSError),
        "e.parquet": (lambda: write_episodes(stays, folder / "e.parquet"), OSError),
    }
    for name, (write, kind) in writers.items():
        write()
        before = jobs.digests(folder, "*")
        with _full_disk():
            try:
                write()
            except kind as error:
                assert len(str(error)) > 10, repr(error)
            else:
                raise AssertionError(f"{name} was written to a full disk")
        assert jobs.digests(folder, "*") == before, f"{name}: something else is there now"
    with _full_disk():
        try:
            small.write_monolith(folder / "m.h5", 60)
        except MonolithError as error:
            assert "run it again" in str(error), error
    small.write_monolith(folder / "m.h5", 60)


def full_disk_report(folder: Path) -> None:
    """A command says that it could not write, with exit code 2, and leaves nothing."""
    record, errors = jobs.record(), StringIO()
    asked = ["measure", "--ecg", str(record), "--json", str(folder / "m.json")]
    with _full_disk(), redirect_stderr(errors), redirect_stdout(StringIO()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        code = command(asked)
    assert code == 2 and "clinenv: error:" in errors.getvalue(), (code, errors.getvalue())
    assert not list(folder.iterdir())


def no_home(folder: Path) -> None:
    """Without a home that can be written to, a command measures and a page is drawn as ever."""
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "XDG_CONFIG_HOME": "/proc/nowhere"}
    environment = {**os.environ, **nowhere}
    environment.pop("MPLCONFIGDIR", None)
    asked = [sys.executable, "-m", "clinenv", "measure", "--ecg", str(jobs.record()), "--json", str(folder / "m.json")]
    found = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=500)
    assert found.returncode == 0 and (folder / "m.json").exists(), found.stderr[-800:]


def clock_jumps(folder: Path) -> None:
    """Training and courses do not depend on the time of day, forwards or backwards."""
    small.train_policy(folder / "a", 3)
    told = course("ECGDrug-v0")
    hours = iter(range(10**9))
    honest = time.time

    def jumping() -> float:
        return honest() + 1e8 * (-1.0) ** next(hours)

    with mock.patch("time.time", jumping):
        small.train_policy(folder / "b", 3)
        assert course("ECGDrug-v0") == told
    names = (run_folder.TENSORS, run_folder.POLICY.json)
    assert jobs.digests(folder / "a", *names) == jobs.digests(folder / "b", *names)


def interrupts(folder: Path) -> None:
    """Ctrl-C stops a command with exit code 130; nothing is torn, and the same command then ends as undisturbed."""
    asked = ["train", "ppo", "ECGDrug-v0", "--steps", "6000", "--num-envs", "64", "--threads", "1", "--out"]
    quiet = open(os.devnull, "w")
    with redirect_stdout(quiet), redirect_stderr(quiet):
        assert command([*asked, str(folder / "a")]) == 0
        for number in range(3):
            child = os.fork()
            if child == 0:
                os._exit(command([*asked, str(folder / "b")]))
            time.sleep(0.3 * (number + 1))
            os.kill(child, signal.SIGINT)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, INTERRUPTED), code
            jobs.check_policy(folder / "b")
        assert command([*asked, str(folder / "b")]) == 0
    assert jobs.digests(folder / "a", run_folder.TENSORS) == jobs.digests(folder / "b", run_folder.TENSORS)


PROMISES: dict[str, Callable[[Path], None]] = {
    "forks": forks,
    "spawns": spawns,
    "threads": threads,
    "deep copies and pickles": copies,
    "one file, four threads": one_file_two_threads,
    "one folder, three processes": two_processes_one_folder,
    "full disk": full_disk,
    "full disk under a command": full_disk_report,
    "no home": no_home,
    "clock jumps": clock_jumps,
    "Ctrl-C": interrupts,
}
