"""SIGKILL at random moments of writing: no torn file under its final name, and what goes on ends as one undisturbed.

    python -m tests.campaign kills --count 200 --out campaign.json

A job is run once undisturbed, which gives its length and its result. Then it is started in children that are killed at
random moments, and started again as its user would, until one comes to its end. After every kill each file under its
final name must be read whole; at the end the result must be that of the undisturbed run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.campaign import tally
from tests.campaign.jobs import JOBS, Job

__all__ = ["killed", "main"]

ROUNDS = 4  # over all jobs, so that a run that is stopped has tried each
MOST_KILLS = 8  # of one job before it is left alone to end


def _started(job: Job, folder: Path) -> int:
    """A child that does the job; 0 is its exit code only if it came to the end."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        job.run(folder)
        code = 0
    finally:
        os._exit(code)


def _used_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def killed(job: Job, folder: Path, after_s: float, rng: random.Random) -> int | None:
    """Kill a child of the job after so much processor time of its own; its exit code where it ended before."""
    child = _started(job, folder)
    while _used_s(child) < after_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.01))  # the clock of /proc ticks every hundredth of a second
    os.kill(child, signal.SIGKILL)
    return None if os.waitpid(child, 0)[1] == signal.SIGKILL else 0


def _disturbed(job: Job, whole: object, length_s: float, rng: random.Random, told: tally.Tally, most: int) -> int:
    """One course of the job with kills; returns how many there were."""
    kills = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        while True:
            last = kills >= min(MOST_KILLS, most)
            code = killed(job, folder, 1e9 if last else rng.uniform(0.0, length_s), rng)
            if code is None:
                kills += 1
                try:
                    job.check(folder)
                except Exception as error:
                    told.fail(job.name, f"after kill {kills}: {type(error).__name__}: {error}")
                    return kills
                told.add(job.name, "whole or absent")
            elif code:
                told.fail(job.name, f"started again after {kills} kills, it ended with {code}")
                return kills
            else:
                break
        if job.result(folder) != whole:
            told.fail(job.name, f"after {kills} kills it ended with another result than undisturbed")
        stray = [path.name for path in folder.rglob("*") if job.left(path)]
        if stray:
            told.figures.setdefault("left behind", {})[job.name] = stray[:5]
    return kills


def _run(job: Job, wanted: int, rng: random.Random, told: tally.Tally, deadline: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        child = _started(job, folder)
        _, status, usage = os.wait4(child, 0)
        if status:
            told.fail(job.name, f"undisturbed it ended with {status}")
            return
        job.check(folder)
        whole, length_s = job.result(folder), usage.ru_utime + usage.ru_stime
    told.figures.setdefault("seconds undisturbed", {})[job.name] = round(length_s, 2)
    while told.done(job.name) < wanted and time.monotonic() < deadline:
        if not _disturbed(job, whole, length_s, rng, told, wanted - told.done(job.name)):
            told.figures["courses without a kill"] = told.figures.get("courses without a kill", 0) + 1
        told.save()


def main(given: list[str] | None = None) -> int:
    """Run it; 1 if a promise was broken."""
    options = tally.arguments(__doc__ or "", 28, 300.0, given)
    told = tally.Tally.begun("kills", options.seed, options.out)
    jobs = [job for job in JOBS if job.there() and (not options.only or job.name in options.only)]
    deadline = time.monotonic() + options.seconds
    for part, job in ((part, job) for part in range(1, ROUNDS + 1) for job in jobs):
        rng = random.Random(f"{options.seed} {job.name} {told.done(job.name)}")
        wanted = -(-options.count * part // (len(jobs) * ROUNDS))
        if told.done(job.name) < wanted and time.monotonic() < deadline:
            job.warm()
            _run(job, wanted, rng, told, deadline)
    return told.report()
