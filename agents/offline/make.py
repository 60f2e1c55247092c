"""Make the logged data sets: `python -m agents.offline.make --out DIR`.

Three for each headline id (random, clinician, mixed; see `agents.offline.recipes`) and a mixed one where amounts are
chosen, in the oracle unless --world says otherwise: ID-KIND.h5 with a data sheet beside it (.json and .md), and the
same for machines (.croissant.json). What is there already, as it would be made, is left; so the same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import clinenv
from agents.offline.acting import Acting
from agents.offline.collect import collect
from agents.offline.croissant import croissant_of, write_croissant
from agents.offline.logged import Logged, load, save
from agents.offline.minari_form import folder_of, write_minari
from agents.offline.recipes import CASES, KINDS, behaviour, simulator_of
from agents.offline.sheet import read_sheet, sheet_of, write_sheet
from world_models.command_line import MOST_THREADS, folder, number, whole
from world_models.protocol import HasWeights

__all__ = ["Order", "main", "make"]

MODULE = "agents.offline.make"
FIRST_SEED = 9_100_000_000  # of the patients of all logs; those of each log are its own
_APART = 10_000_000  # between the seeds of two logs


@dataclass(frozen=True)
class Order:
    """One log to be made."""

    env_id: str
    kind: str
    dial: float  # of confounding; a random log has none
    world: str  # "oracle", "learned", or a world's name or folder
    patients: int
    first_seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        confounded = f"-confounded-{self.dial:g}" if self.dial > 0 else ""
        world = "" if self.world == "oracle" else f"-{Path(self.world).name}"
        return f"{self.env_id}-{self.kind}{confounded}{world}"

    def log(self, progress: bool = False) -> Logged:
        """Log it."""
        simulator, steps = simulator_of(self.env_id, self.world), CASES[self.env_id].steps
        seed = self.first_seed
        acting = Acting(behaviour(self.env_id, self.kind, simulator, self.dial), seed)
        nominal = Acting(behaviour(self.env_id, self.kind, simulator), seed) if self.dial > 0 else None
        with tqdm(total=steps, desc=self.name, unit="step", leave=False, disable=not progress) as bar:
            return collect(
                acting, simulator, seed, self.patients, steps, self.env_id, nominal, lambda step: bar.update()
            )


def orders(ids: list[str], kinds: list[str], dial: float, world: str, patients: int | None) -> Iterator[Order]:
    """The logs of these ids and kinds, each with patients of its own."""
    for i, env_id in enumerate(CASES):
        for k, kind in enumerate(KINDS):
            usual = CASES[env_id].patients.get(kind)
            if env_id in ids and kind in kinds and usual is not None:
                own = 0.0 if kind == "random" else dial
                seed = FIRST_SEED + (i * len(KINDS) + k) * _APART
                yield Order(env_id, kind, own, world, patients or usual, seed)


def make(order: Order, out: Path, progress: bool = False) -> tuple[Path, bool]:
    """Log it to `out`, with its sheet, unless it is there; returns the file and whether it was made now."""
    path = out / f"{order.name}.h5"
    command = f"python -m {MODULE} --ids {order.env_id} --kinds {order.kind} --patients {order.patients}"
    command += f" --world {Path(order.world).name} --confounding {order.dial:g}"
    sheet = read_sheet(path)
    if sheet is not None and sheet.get("command") == command and sheet["about"]["first_seed"] == order.first_seed:
        world = simulator_of(order.env_id, order.world).world
        if sheet["about"]["weights_sha256"] == (world.weights_sha256 if isinstance(world, HasWeights) else None):
            return path, False
    save(order.log(progress), path)
    logged = load(path)
    sheet = sheet_of(logged, path, command)
    write_croissant(croissant_of(logged, sheet, clinenv.__version__), path)
    write_sheet(sheet, path)  # last: it is what says that all is there
    return path, True


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status is 2 where nothing could be made, and the message says why."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=folder, required=True, help="folder for the files")
    parser.add_argument("--ids", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    dial = "0: behaviours read the chart alone; 1: they also act on a hidden severity (an oracle only)"
    parser.add_argument("--confounding", type=number(0, 1), default=0.0, help=dial)
    parser.add_argument("--world", default="oracle", help="oracle, learned, a world's name, or a folder of weights")
    parser.add_argument("--patients", type=whole(1, 10**6), help="of each log (default: so that a file has a few MB)")
    minari = "also export each to this Minari root (MINARI_DATASETS_PATH), as clinenv/ID/KIND-v0"
    parser.add_argument("--minari", type=folder, help=minari)
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help="torch threads")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        wanted = list(orders(args.ids, args.kinds, args.confounding, args.world, args.patients))
        if not wanted:
            raise ValueError(f"none of {', '.join(args.ids)} has a log {' or '.join(args.kinds)}; take kind mixed")
        args.out.mkdir(parents=True, exist_ok=True)
        for order in tqdm(wanted, desc="logs", unit="log"):
            path, new = make(order, args.out, progress=True)
            sheet = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            note = "" if new else " (there already)"
            mean = f"return {sheet['return']['mean']:.2f}, {sheet['steps']:,} steps, {sheet['bytes'] / 1e6:.2f} MB"
            tqdm.write(f"{path.name}: {sheet['about']['patients']:,} patients, {mean}{note}")
            if args.minari is not None:
                dataset_id = f"clinenv/{order.env_id}/{order.name.removeprefix(order.env_id + '-')}-v0"
                if not folder_of(args.minari, dataset_id).exists():
                    write_minari(load(path), args.minari, dataset_id)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
