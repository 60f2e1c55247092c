"""What a new process waits for, and the memory it takes: `python -m benchmarks.common.first_calls ID WORLD [BATCH]`.

Prints one JSON line: seconds of the wall clock until clinenv was imported ("import_s"), until the first environment was
made ("make_s", with the import of torch and the loading of weights), and of its first "reset_s" and "step_s" and of the
second step ("second_step_s"); resident memory, MB, of the process then ("process_mb"), and, with a batch, what each row
of a vector environment of so many added to it once all have stepped and begun anew ("row_kb").
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["in_fresh_process", "main"]

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/proc/self/statm")  # Linux


def in_fresh_process(id_: str, world: str, batch: int, timeout_s: float = 300.0) -> dict[str, Any]:
    """What a new process finds, or {"error": its last words}."""
    command = [sys.executable, "-m", "benchmarks.common.first_calls", id_, world, str(batch)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=timeout_s)
        return json.loads(run.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"error": said[-1][:200] if said else type(error).__name__}


def _resident_mb() -> float | None:
    return int(MEMORY.read_text().split()[1]) * resource.getpagesize() / 2**20 if MEMORY.exists() else None


def main(argv: list[str] | None = None) -> int:
    """See the module."""
    id_, world, *more = sys.argv[1:] if argv is None else argv
    times = [time.perf_counter()]

    def passed(name: str, since: float | None = None) -> None:
        times.append(time.perf_counter())
        found[name] = times[-1] - times[-2]

    found: dict[str, Any] = {}
    import clinenv  # noqa: F401  (the first import is what is timed)

    passed("import_s")
    import gymnasium

    arguments: dict[str, Any] = {"world": world}
    if id_ == "EHRReplay-v0":
        from benchmarks.common.stays import stay

        arguments["stays"] = [stay(1), stay(2)]
    env = gymnasium.make(id_, **arguments)
    passed("make_s")
    env.reset(seed=0)
    passed("reset_s")
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(2)]
    times.append(time.perf_counter())
    for name, action in zip(("step_s", "second_step_s"), actions, strict=True):
        env.step(action)
        passed(name)
        env.reset()
        times.append(time.perf_counter())
    found["process_mb"] = before = _resident_mb()
    if more and before is not None:
        found |= {"batch": int(more[0]), "row_kb": _row_kb(id_, int(more[0]), arguments, before)}
    print(json.dumps(found))
    return 0


def _row_kb(id_: str, batch: int, arguments: dict[str, Any], before: float) -> float:
    """Kilobytes that each row of a vector environment adds to a process of so many megabytes."""
    from benchmarks.common.stepping import Case, made, together

    world = arguments.pop("world")
    work = together(made(Case(id_, world, arguments), batch))
    for _ in range(4):
        work()
    after = _resident_mb()
    assert after is not None
    return (after - before) * 1024 / batch


if __name__ == "__main__":
    raise SystemExit(main())
