"""Make the members of an ensemble of ECG worlds: `python -m world_models.ecg_wm.members --out DIR`.

Each member is a trained world fitted further to a bootstrap resample of the same patients (Efron 1979, doi
10.1214/aos/1176344552; for ensembles of dynamics: Chua 2018, arXiv 1805.12114): where so many patients leave the answer
open, members disagree. DIR/member-0, -1, ... are worlds of their own; together they are the world
"ensemble:DIR/member-0,DIR/member-1,...". A run that was killed goes on; members that are there stay.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from world_models import catalog, checkpoint, command_line, keys
from world_models.command_line import MOST_THREADS, whole
from world_models.ecg_wm.courses import Courses, sample_courses
from world_models.ecg_wm.finetune import FineTuning, chosen, fine_tuned
from world_models.ecg_wm.model import KIND, ECGWorldModel

__all__ = ["bootstrapped", "main", "make_members", "pools_of"]

SEED = 5_000_000_000  # of the patients; apart from those of training, calibration and benchmarks
POOLS = ((24, 2.0), (24, 0.5))  # steps and hours between them: two days, and a dense first half day
MOST_MEMBERS, MOST_PATIENTS, LEAST_PATIENTS = 32, 100_000, 16


def pools_of(patients: int, seed: int, device: torch.device | str = "cpu") -> list[Courses]:
    """Courses of the same `patients` patients, for each of POOLS."""
    key = keys.from_seed(SEED + seed * MOST_PATIENTS, patients, device)
    return [sample_courses(key, steps, hours) for steps, hours in POOLS]


def bootstrapped(pools: Sequence[Courses], seed: int, member: int) -> list[Courses]:
    """The courses of as many patients, drawn with replacement, the same in every pool."""
    count = len(pools[0].actions)
    draw = keys.uniform(keys.fold(keys.from_seed(seed, 1, pools[0].u.device), "members"), member, "patient", (count,))
    rows = torch.floor(draw[0] * count).to(torch.int64)
    return [chosen(pool, rows) for pool in pools]


def make_members(
    world: ECGWorldModel, out: Path, members: int, patients: int, how: FineTuning, seed: int = 0
) -> list[Path]:
    """The folders of the members, made where they are not there.

    Raises:
        CheckpointError: a folder holds another world.
    """
    pools: list[Courses] = []
    folders = [out / f"member-{i}" for i in range(members)]
    for i, folder in enumerate(folders):
        config = dataclasses.replace(world.config, name=f"{world.config.name}-member-{i}")
        if (folder / checkpoint.CONFIG).exists():
            if catalog.load(folder).name != config.name:
                raise checkpoint.CheckpointError(f"{folder} holds another world; name another folder")
            continue
        pools = pools or pools_of(patients, seed, world.device)
        tuned = fine_tuned(world, bootstrapped(pools, seed, i), how, folder / "training", seed * MOST_MEMBERS + i)
        kind = {"kind": KIND, **dataclasses.asdict(config)}
        checkpoint.save_checkpoint(folder, tuned.state_dict(), kind, _card(config.name, world, patients, how))
    return folders


def _card(name: str, world: ECGWorldModel, patients: int, how: FineTuning) -> str:
    return f"""# {name}

{world.name} (seal {world.weights_sha256}) fitted further to a bootstrap resample of {patients} simulated patients:
{how.steps} steps of {how.batch} courses for prior, belief and spread, {how.event_steps} for torsades and block
(`python -m world_models.ecg_wm.members`). A member of an ensemble: alone it is no better than what it was made from.
Data, attributions and limits are those of {world.name}.

**Not for clinical use.** It was trained on simulated patients. Nothing it says is a prediction about a person.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m world_models.ecg_wm.members", description=__doc__)
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder for the members' folders")
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of the world they are made from")
    parser.add_argument("--members", type=whole(2, MOST_MEMBERS), default=4)
    parser.add_argument("--patients", type=whole(LEAST_PATIENTS, MOST_PATIENTS), default=256, help="that are resampled")
    parser.add_argument("--steps", type=whole(1), default=FineTuning.steps, help="training steps of each")
    parser.add_argument("--seed", type=whole(0, 1000), default=0, help="of the patients and the resamples")
    parser.add_argument("--device", type=command_line.device, default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=2, help="torch threads on the CPU")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        world = catalog.load(given.world, given.device)
        if not isinstance(world, ECGWorldModel):
            raise ValueError(f"world {given.world!r} is of another kind than {KIND}; give one of that kind")
        how = FineTuning(steps=given.steps, event_steps=given.steps)
        folders = make_members(world, given.out, given.members, given.patients, how, given.seed)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("ensemble:" + ",".join(map(str, folders)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
