"""How well a learned ward foretells what orders bring: `python -m benchmarks.ward.fidelity --world ehr-ward-small`.

On the oracle ward, patients never trained on (`ward_rollouts.TEST_SEED`), the orders those of the training's mixed
behaviour. Next step: each outcome from the true history. Full trajectory: the first step's outcomes are given, then
the world lives by its own outcomes under the recorded orders up to day 7; its point is the median of 19 paths, and
paths go on while the record does. Baselines: last value (full trajectory: the last one given), first value of the
stay, the item's training median. The ceiling is the oracle itself: the same hidden patient, other random keys (other
measurement noise, bleeding, physiological noise), the median of 19. Mortality: learned ward and oracle both under the
plain clinician, from 4 h and from 24 h on, deaths within 72 h.

On recorded stays, training nothing: `--meds FILE_OR_DIR [--tables DIR] --world ehr-mimic-demo-small --out metrics.json`
for any MEDS export of MIMIC, or `--mimic3 DIR`, `--challenge2012 DIR`, `--challenge2019 FILE`, `--eicu DIR`. Trained
and judged by folds of the patients: `--records folds --meds M --tables T --init ehr-ward-small --folds 4 --work DIR`.
Both: `records`, `records_judged`. Input that cannot be read: exit code 2, nothing written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.common.results import RESULTS, made_by, rounded, write_csv, write_json
from benchmarks.ward.fidelity_tables import PATHS_SEED, Table, ceiling_of, full_trajectory, next_step
from benchmarks.ward.mortality import TEST_OFFSET, mortality
from benchmarks.ward.records_judged import MOST_STAYS, judge_folds, judge_world, told
from world_models import catalog, tree
from world_models.data.ehr.cells import DATE_ORDERS
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.feeder import join
from world_models.ehr_world.records import Sources

MODULE = "benchmarks.ward.fidelity"
SOURCES = Sources._fields


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", default="ehr-ward-small", help="a catalogued learned ward or its folder")
    parser.add_argument("--work", type=Path, help="folder of what is made once: shards, read stays, trained folds")
    parser.add_argument("--out", type=Path, help="CSV of the tables, or JSON with --meds and --world")
    parser.add_argument("--threads", type=int, default=1)
    ward = parser.add_argument_group("on the oracle ward (no recorded stays)")
    ward.add_argument("--patients", type=int, default=2000)
    ward.add_argument("--ceiling", type=int, default=250, help="patients of the oracle's ceiling; 0: none")
    ward.add_argument("--parts", nargs="+", default=["next", "full", "death"], choices=["next", "full", "death"])
    records = parser.add_argument_group("on recorded stays")
    records.add_argument("--meds", type=Path, help="a MEDS file or folder")
    records.add_argument("--tables", type=Path, help="MIMIC-IV tables beside --meds: doses and cultures")
    records.add_argument("--date-order", choices=DATE_ORDERS, help="of dates like 02/03/2150 in --tables")
    records.add_argument("--records", choices=["folds"], help="train and judge a world for each fold of the patients")
    records.add_argument("--init", default="ehr-ward-small", help="with --records: the world to start from")
    records.add_argument("--mimic3", type=Path, help="a folder of MIMIC-III's tables")
    records.add_argument(
        "--challenge2012", type=Path, help="its stays; with --records: trained on before those of --meds"
    )
    records.add_argument("--challenge2019", type=Path, help="its table, or a folder of its files")
    records.add_argument("--eicu", type=Path, help="a folder of eICU's tables")
    records.add_argument("--stays", type=int, default=MOST_STAYS, help="of the full trajectories, at most")
    records.add_argument("--folds", type=int, default=4)
    records.add_argument(
        "--shares", nargs="+", type=float, default=[1.0], help="of the training patients: learning curve"
    )
    records.add_argument("--paths", type=int, default=16)
    records.add_argument("--name", default="ehr-mimic-demo-small")
    parser.add_argument(
        "--begins", nargs="+", type=int, help="positions given to the full trajectory; 1 and 0, or 1 and 6"
    )
    a = parser.parse_args(argv)
    for path in (getattr(a, name) for name in SOURCES):
        if path is not None and not path.exists():
            parser.error(f"{path} does not exist; check the path")
    if a.records and (a.meds is None or a.folds < 2):
        parser.error("--records folds needs --meds and at least 2 folds")
    recorded = [name for name in SOURCES if name != "tables" and getattr(a, name) is not None]
    if len(recorded) > 1 and not a.records:
        parser.error(f"give one source of stays, not {', '.join('--' + name for name in recorded)}")
    if a.work is None and (a.records or not recorded):
        parser.error("give --work DIR, a folder for what is made once")
    if recorded and not a.records and a.out is None:
        parser.error(f"--{recorded[0]} needs --out metrics.json")
    a.recorded = bool(recorded)
    if not all(0 < s <= 1 for s in a.shares):
        parser.error(f"--shares {a.shares} must lie in (0, 1]")
    if min(a.paths, a.stays) < 1 or any(b < 0 for b in a.begins or ()):
        parser.error(f"--paths {a.paths} and --stays {a.stays} must be 1 or more, --begins {a.begins} 0 or more")
    return a


def main(argv: list[str] | None = None) -> int:
    """On the oracle's stays or on recorded ones. Returns the exit status: 2 for input that cannot be read."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    if not a.recorded:
        rows = on_the_ward(a)
        seeds = {"valid": ward_rollouts.VALID_SEED, "test": ward_rollouts.TEST_SEED}
        if "death" in a.parts:
            seeds |= {"judged": seeds["test"] + TEST_OFFSET, "recalibrated on": seeds["valid"] + TEST_OFFSET}
        made = made_by(MODULE, argv, seeds, [a.world, "ward-oracle"])
        write_csv(a.out or RESULTS / "fidelity_ehr_world.csv", rows, made)
        return 0
    try:
        if a.records:
            a.begins = a.begins or [1, 6]
            rows, items = judge_folds(a)
            out = a.out or RESULTS / "fidelity_ehr_records.csv"
            made = made_by(MODULE, argv, {"paths": PATHS_SEED, "bootstrap": 0}, [a.init])
            write_csv(out, rows, made)
            write_csv(out.with_name(out.stem + "_items.csv"), items, made)
            for r in rows:
                print({n: round(v, 4) if isinstance(v, float) else v for n, v in r.items()})
        else:
            begin = (a.begins or [1])[0]
            sources = {name: getattr(a, name) for name in SOURCES}
            found = judge_world(a.world, sources, begin, a.paths, a.work, a.date_order, a.stays)
            made = made_by(MODULE, argv, {"paths": PATHS_SEED}, [a.world])
            write_json(a.out, rounded(found), made)
            print(told(found))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def on_the_ward(a: argparse.Namespace) -> list[dict]:
    """Rows of the tables on the oracle's stays, printed."""
    model = catalog.load(a.world)
    held = {}
    for name, seed, count in (("valid", ward_rollouts.VALID_SEED, 1000), ("test", ward_rollouts.TEST_SEED, a.patients)):
        size = 1000 if name == "valid" else 2000
        if not list(a.work.glob(f"{name}-*.safetensors")):
            ward_rollouts.write_shards(a.work, name, seed, count, size=size)
        held[name] = tree.take(join(ward_rollouts.read_shards(a.work, name)), slice(0, count))
    table, rows = Table(model, held["valid"]), []
    if "next" in a.parts:
        rows += next_step(model, held["test"], table, ceiling_of(a.work, a.ceiling, None))
    if "full" in a.parts:
        for begin in a.begins or [1, 0]:
            rows += full_trajectory(
                model, held["test"], table, begin, ceiling_of(a.work, a.ceiling if begin else 0, begin)
            )
    if "death" in a.parts:
        for begin in (1, 6):
            rows += mortality(model, a.patients, begin, oracle_paths=16 if a.ceiling else 0)
    next_s25 = next((r["s25"] for r in rows if r["setting"] == "next_step" and r["model"] == model.name), None)
    for r in rows:
        r["patients"] = r.get("patients", a.patients)
        if next_s25 and r["setting"].startswith("full") and r["model"] == model.name:
            r["retention"] = r["s25"] / next_s25
        print({n: round(v, 4) if isinstance(v, float) else v for n, v in r.items()})
    return rows


if __name__ == "__main__":
    sys.exit(main())
