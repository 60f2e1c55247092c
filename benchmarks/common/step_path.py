"""python -m benchmarks.common.step_path [ID ...]: how far a reader has to go who follows `env.step`.

Prints, for one step of each id in its learned world: functions of ours that are called, files they stand in, and how
often the call passes from one file to another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium

import clinenv  # noqa: F401 - registers the ids

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("world_models", "clinenv")
IDS = ("ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0")


def path_of_step(env_id: str) -> tuple[int, int, int]:
    """(functions, files, switches between files) of one step, after a first one that fills the caches."""
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    action = env.action_space.sample()
    functions: set[tuple[str, str]] = set()
    files: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(tuple(str(ROOT / floor) for floor in FLOORS)):
            return
        functions.add(
            (name, frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)
        )
        if not files or files[-1] != name:
            files.append(name)

    sys.setprofile(note)
    try:
        env.step(action)
    finally:
        sys.setprofile(None)
    env.close()
    return len(functions), len(set(files)), max(0, len(files) - 1)


def main() -> None:
    """Print one line an id."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ids", nargs="*", default=list(IDS))
    for env_id in parser.parse_args().ids:
        functions, files, switches = path_of_step(env_id)
        print(f"{env_id}: {functions} functions in {files} files, {switches} switches between files")


if __name__ == "__main__":
    main()
