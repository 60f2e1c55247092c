"""python -m benchmarks.common.trajectories --out FILE [--against FILE]: the same courses before and after a change.

Every id in every world it knows, seeds 0 to 3, the same random actions: observations, rewards, costs and ends of 30
steps. `--against` compares with a file written by another version and exits with 1 where they differ by more than
1e-6.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import clinenv  # noqa: F401 - registers the ids
from world_models.files import replacing

COURSES = (
    ("ECGDrug-v0", "ecg-wm-small", {}),
    ("ECGDrug-v0", "oracle", {}),
    ("ECGDrug-v0", "ecg-wm-small", {"observation": "latent", "noise": "ward", "missingness": "much"}),
    ("ECGDrug-v0", "oracle", {"observation": "ecg"}),
    ("ECGDrugContinuous-v0", "ecg-wm-small", {}),
    ("ECGDrugContinuous-v0", "oracle", {"noise": "ward", "missingness": "much"}),
    ("EHRWard-v0", "ehr-ward-small", {}),
    ("EHRWard-v0", "oracle", {"noise": "ward", "missingness": "much"}),
    ("EHRWardDose-v0", "ehr-ward-small", {}),
    ("EHRWardDose-v0", "oracle", {}),
    ("ECGProgression-v0", "cardiac-jepa-small", {}),
    ("ECGProgression-v0", "oracle", {}),
    ("ECGExplain-v0", "cardiac-jepa-small", {}),
    ("ECGExplain-v0", "oracle", {}),
)
SEEDS = (0, 1, 2, 3)
STEPS = 30
TOLERANCE = 1e-6


def name_of(env_id: str, world: str, arguments: dict[str, Any]) -> str:
    """A course's name in the file: id, world and options."""
    return "/".join((env_id, world, *(f"{name}={value}" for name, value in arguments.items())))


def course(env_id: str, world: str, arguments: dict[str, Any], steps: int = STEPS) -> dict[str, np.ndarray]:
    """Observation, reward, terminated, truncated and cost of every seed and step; an ended episode begins anew."""
    env = gymnasium.make(env_id, world=world, **arguments)
    rows: dict[str, list] = {"observation": [], "reward": [], "terminated": [], "truncated": [], "cost": []}
    for seed in SEEDS:
        env.action_space.seed(seed)
        observation, _ = env.reset(seed=seed)
        rows["observation"].append(flat(observation))
        for step in range(steps):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            for name, value in (("reward", reward), ("terminated", terminated), ("truncated", truncated)):
                rows[name].append(value)
            rows["cost"].append(info["cost"])
            rows["observation"].append(flat(observation))
            if terminated or truncated:
                observation, _ = env.reset(seed=1000 * (step + 1) + seed)
    env.close()
    return {name: np.asarray(values, np.float64) for name, values in rows.items()}


def flat(observation: Any) -> np.ndarray:
    """An observation, a dict or an array, as one row of float64."""
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def differences(found: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest relative difference (absolute below 1) of each array; infinite where one lacks or differs in
    shape."""
    result = {}
    for name in sorted({*found, *before}):
        if name not in found or name not in before or found[name].shape != before[name].shape:
            result[name] = np.inf
            continue
        a, b = np.nan_to_num(found[name]), np.nan_to_num(before[name])
        result[name] = float(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0))
    return result


def main() -> None:
    """Write the courses; with --against compare, and exit with 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="an .npz file")
    parser.add_argument("--against", type=Path, help="a file that another version wrote")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    for env_id, world, options in COURSES:
        name = name_of(env_id, world, options)
        arrays = course(env_id, world, options)
        found |= {f"{name}/{part}": value for part, value in arrays.items()}
        print(f"{name}: return of seeds {SEEDS} {arrays['reward'].sum():.6f}", flush=True)
    with replacing(arguments.out) as part:
        np.savez_compressed(part, **found)
    if arguments.against:
        with np.load(arguments.against, allow_pickle=False) as file:
            off = differences(found, dict(file))
        print(f"largest difference {max(off.values()):.3g} over {len(off)} arrays")
        for name, size in off.items():
            if size > TOLERANCE:
                print(f"  {name}: {size:.3g}")
        sys.exit(max(off.values()) > TOLERANCE)


if __name__ == "__main__":
    main()
