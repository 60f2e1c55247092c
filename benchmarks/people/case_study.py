"""One patient's course as a learned world lives it, beside the record: `python -m benchmarks.people.case_study`.

    python -m benchmarks.people.case_study --data DIR --world ehr-icu-small --cohort eicu_demo [--given-hours 24]

After EHRWorld's Figure 4: the record up to an hour is given, then the world lives by its own outcomes under the
recorded orders. A value foretold within 10 % is precise, within 20 % acceptable, else a deviation. The patient is not
chosen by hand: of the test patients (whom no training saw) with enough charted numbers, the one whose share of values
within 25 % is the median. Writes case_study.png and case_study.csv (every value of that stay) to --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from benchmarks.ward.fidelity_tables import PATHS_SEED
from benchmarks.ward.records import PATHS, Slots, path_slots, restrict
from benchmarks.ward.records_judged import guesses_for
from benchmarks.ward.scores import CLOSE
from world_models import catalog
from world_models.ehr_world.people import COHORTS, divided, read_cohort
from world_models.ehr_world.records import take
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.train_records import folder_of

MODULE = "benchmarks.people.case_study"
PRECISE, ACCEPTABLE = 0.10, 0.20  # relative errors of EHRWorld's figure
COLOURS = {"precise": "#2a7f3f", "acceptable": "#c98a00", "deviation": "#b3261e"}
PANELS, FEWEST_ITEMS, FEWEST_VALUES = 9, 8, 4  # items shown; items with so many values each make a stay eligible
MOST_STAYS = 80  # eligible ones that are lived through


def levels(y: Tensor, point: Tensor) -> list[str]:
    """The level of each foretold value."""
    error = (point - y).abs() / y.abs().clamp_min(1e-9)
    return ["precise" if e <= PRECISE else "acceptable" if e <= ACCEPTABLE else "deviation" for e in error.tolist()]


def eligible(values: Tensor, begin: int) -> Tensor:
    """Stays with FEWEST_ITEMS numbers charted FEWEST_VALUES times after position `begin`, of values [B, T, I]."""
    counts = (~values[:, begin + 1 :].isnan()).sum(1)
    return ((counts >= FEWEST_VALUES).sum(-1) >= FEWEST_ITEMS).nonzero().squeeze(1)


def median_stay(slots: Slots) -> int:
    """The stay whose share of values within 25 % is the (lower) median of all."""
    known = restrict(slots, slots["y"] != 0)
    hit = ((known["point/model"] - known["y"]).abs() <= CLOSE * known["y"].abs()).double()
    stays, row = torch.unique(known["stay"], return_inverse=True)
    share = torch.zeros(len(stays), dtype=torch.float64).index_add(0, row, hit) / torch.bincount(row)
    return int(stays[share.argsort(stable=True)[(len(stays) - 1) // 2]])


def plot(path: Path, model: EHRWorldModel, slots: Slots, record: Tensor, begin: int, made: dict[str, Any]) -> None:
    """Panels of the items charted most: the record [T, I], what the world said, and how far off it was."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    hours = model.hours_per_step
    items, counts = torch.unique(slots["item"], return_counts=True)
    shown = items[counts.argsort(descending=True, stable=True)[:PANELS]].tolist()
    figure, axes = plt.subplots(3, 3, figsize=(14, 9), sharex=True, constrained_layout=True)
    for axis, item in zip(axes.flatten(), shown, strict=False):
        mine = restrict(slots, slots["item"] == item)
        order = mine["place"].argsort()
        mine = {name: x[order] for name, x in mine.items()}
        at = mine["place"].double() * hours
        told = (~record[:, item].isnan()).nonzero().squeeze(1)
        axis.axvspan(0, begin * hours, color="0.93", zorder=0)
        axis.plot(told * hours, record[told, item], color="0.35", marker=".", markersize=4, linewidth=1, label="record")
        axis.fill_between(
            at, mine["low/model"], mine["high/model"], color="#3b6fb6", alpha=0.18, label="80 % of the world"
        )
        axis.plot(at, mine["point/model"], color="#3b6fb6", linewidth=1, label="world, median")
        kinds = levels(mine["y"], mine["point/model"])
        for kind, colour in COLOURS.items():
            here = torch.tensor([k == kind for k in kinds])
            axis.scatter(at[here], mine["point/model"][here], color=colour, s=18, zorder=3, label=kind)
        word = model.vocabulary.items[item]
        axis.set_title(f"{word.name} ({word.unit})", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("hours since the stay's start; grey: given")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(
        f"{model.name}: a test patient of median accuracy, its own outcomes fed back. Not for clinical use."
    )
    write_figure(path, figure, made)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Live the stays, choose one, draw it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the open sets")
    parser.add_argument("--world", default="ehr-icu-small")
    parser.add_argument("--cohort", choices=[c.name for c in COHORTS], default="eicu_demo")
    parser.add_argument("--given-hours", type=float, default=24.0)
    parser.add_argument("--paths", type=int, default=PATHS)
    parser.add_argument("--work", type=Path, help="where read stays are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args(argv)
    torch.set_num_threads(a.threads)
    try:
        model = catalog.load(a.world)
        if not isinstance(model, EHRWorldModel):
            raise ValueError(f"world {a.world!r} is no learned ward; give ehr-icu-small or a folder of one")
        cohort = next(c for c in COHORTS if c.name == a.cohort)
        records = divided(cohort, read_cohort(cohort, a.data, model.vocabulary, a.work))["test"]
        begin = round(a.given_hours / model.hours_per_step)
        number = torch.where(model.net.label, float("nan"), records.stays.value)
        long = eligible(number, begin)[:MOST_STAYS]
        if not len(long):
            raise ValueError(
                f"no test stay of {a.cohort} has enough numbers after {a.given_hours:g} h; give fewer hours"
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = take(records, long)
    slots = path_slots(model, records, guesses_for(model, folder_of(a.world))[0], begin, a.paths)
    chosen = median_stay(slots)
    one = restrict(slots, slots["stay"] == chosen)
    kinds = levels(one["y"], one["point/model"])
    made = made_by(MODULE, argv, {"paths": PATHS_SEED}, [a.world])
    rows = [
        {
            "hour": float(place) * model.hours_per_step,
            "item": model.vocabulary.items[item].name,
            "recorded": y,
            "foretold": p,
            "low80": low,
            "high80": high,
            "level": kind,
        }
        for place, item, y, p, low, high, kind in zip(
            *(one[n].tolist() for n in ("place", "item", "y", "point/model", "low/model", "high/model")),
            kinds,
            strict=True,
        )
    ]
    write_csv(a.out / "case_study.csv", sorted(rows, key=lambda r: (r["item"], r["hour"])), made)
    plot(a.out / "case_study.png", model, one, records.stays.value[chosen], begin, made)
    every = levels(slots["y"], slots["point/model"])
    for name, found in (("this stay", kinds), (f"all {len(long)} stays", every)):
        shares = "  ".join(f"{kind} {found.count(kind) / len(found):.2f}" for kind in COLOURS)
        print(f"{name}: {len(found)} values after {a.given_hours:g} h: {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
