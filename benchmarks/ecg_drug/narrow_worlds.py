"""ECG worlds that know too little: `python -m benchmarks.ecg_drug.narrow_worlds --out DIR`.

What a world gets wrong is found where its data end. These have learned their dynamics from a few hundred patients of
whom nobody took ranolazine or quinidine, and are asked about all four drugs. Members of an ensemble differ in their
first weights and in the bootstrap of the patients. Beats, the sampler and events are those of the shipped world.
Some two minutes of one core a member; a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from world_models import catalog, checkpoint, keys
from world_models.command_line import folder as writable
from world_models.command_line import whole
from world_models.ecg_wm.calibration import calibrate
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.courses import Courses, sample_courses
from world_models.ecg_wm.finetune import chosen
from world_models.ecg_wm.members import POOLS, bootstrapped
from world_models.ecg_wm.model import KIND, ECGWorldModel
from world_models.ecg_wm.train import APART, train_dynamics, train_foresight, untrained

__all__ = ["WITHHELD", "main", "narrow_pools", "narrow_worlds"]

WITHHELD = ("ranolazine", "quinidine")
SEED = 5_900_000_000
BATCH, FORESIGHT_SHARE = 96, 4  # courses a step; dynamics steps for one of foresight
SLOPE_SD = 0.3  # of the first slopes: what was never met stays as it was drawn


def narrow_pools(patients: int) -> list[Courses]:
    """Courses of the same patients, for each of `members.POOLS`."""
    key = keys.from_seed(SEED, patients)
    return [sample_courses(key, steps, hours, withheld=WITHHELD) for steps, hours in POOLS]


def narrow_worlds(out: Path, members: int, patients: int, steps: int) -> list[Path]:
    """The folders of the members, made where they are not there."""
    pools: Sequence[Courses] = ()
    folders = [out / f"narrow-{i}" for i in range(members)]
    for i, folder in enumerate(folders):
        if not (folder / checkpoint.CONFIG).exists():
            pools = pools or narrow_pools(patients)
            _make(folder, i, bootstrapped(pools, 0, i), steps)
    return folders


def _make(folder: Path, i: int, pools: Sequence[Courses], steps: int) -> None:
    shipped, config = catalog.load("ecg-wm-small"), dataclasses.replace(SMALL, name=f"narrow-{i}")
    assert isinstance(shipped, ECGWorldModel)
    model = untrained(config)
    drawn = keys.normal(keys.from_seed(SEED + i), 0, "narrow/slopes", tuple(model.prior.slope.shape))
    with torch.no_grad():
        model.prior.slope.copy_(SLOPE_SD * drawn[0])
    for part in APART:
        model.get_submodule(part).load_state_dict(shipped.get_submodule(part).state_dict())
    by_hours = {hours: pool for (_, hours), pool in zip(POOLS, pools, strict=True)}

    def draw(key: Tensor, steps: int, hours: float) -> Courses:
        pool = by_hours[hours]
        return chosen(pool, torch.floor(keys.uniform(key, 0, "narrow/row") * len(pool.actions)).to(torch.int64))

    train_dynamics(model, steps, BATCH, folder / "training", draw)
    train_foresight(model, max(1, steps // FORESIGHT_SHARE), BATCH, folder / "training", draw)
    model.eval().requires_grad_(False)
    calibrate(model, len(pools[0].actions), draw)
    card = f"# {config.name}\n\n{__doc__}\n**Not for clinical use.**\n"
    checkpoint.save_checkpoint(folder, model.state_dict(), {"kind": KIND, **dataclasses.asdict(config)}, card)


def main(argv: list[str] | None = None) -> int:
    """Make them and print the ensemble's name. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ecg_drug.narrow_worlds", description=__doc__)
    parser.add_argument("--out", type=writable, required=True)
    parser.add_argument("--members", type=whole(1, 32), default=4)
    parser.add_argument("--patients", type=whole(16, 100_000), default=256)
    parser.add_argument("--steps", type=whole(1), default=240)
    parser.add_argument("--threads", type=whole(1, 64), default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print("ensemble:" + ",".join(map(str, narrow_worlds(args.out, args.members, args.patients, args.steps))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
