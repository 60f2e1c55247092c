"""The trial's arms beside the oracle's: mean change of every measure from before the dose, hour by hour.

    python -m benchmarks.ecg_drug.trial_arms --trial CSV

Virtual volunteers of the `healthy` cohort are read half an hour before the dose, as the trial's were, given the trial's
single dose and followed for a day in steps of half an hour. Amplitude changes in per cent of each one's own value, the
others in their units. `in_error` is the difference over the trial's standard error over its subjects. Writes
benchmarks/results/trial_arms.csv; torch runs on one thread.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
import torch

from benchmarks.common.results import RESULTS, TRIAL_FIT, made_by, write_csv
from benchmarks.ecg_drug.trial_worlds import TARGETS
from world_models import keys
from world_models.data.ecg.ecgrdvq import load_trial
from world_models.oracles.ecg_drug.world import ECGDrugOracle

__all__ = ["HOURS", "main", "oracle_arms", "side_by_side", "trial_arms"]

MODULE = "benchmarks.ecg_drug.trial_arms"
HOURS = (1.0, 2.5, 6.0, 12.0)
STEP_H = 0.5
PER_CENT = "t_amplitude_uv"
MEASURES = tuple(TARGETS.values())


def _change(name: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return 100.0 * (after / before - 1.0) if name == PER_CENT else after - before


def trial_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns drug, hour, measure, mean, error (of the mean, over subjects) of a frame of `load_trial`."""
    before = frame[frame["hour"] < 0].set_index(["randid", "drug", "period"])[list(MEASURES)]
    lines = []
    for (drug, hour), rows in frame[frame["hour"].isin(HOURS)].groupby(["drug", "hour"]):
        now = rows.set_index(["randid", "drug", "period"])
        base = before.reindex(now.index)
        for name in MEASURES:
            change = _change(name, base[name].to_numpy(), now[name].to_numpy())
            change = change[~np.isnan(change)]
            error = change.std(ddof=1) / np.sqrt(len(change))
            lines.append({"drug": drug, "hour": hour, "measure": name, "mean": change.mean(), "error": error})
    return pd.DataFrame(lines)


def oracle_arms(people: int, seed: int = 0) -> pd.DataFrame:
    """Columns drug, hour, measure, mean of virtual volunteers [people] of each arm."""
    world = ECGDrugOracle(cohort="healthy", hours_per_step=STEP_H)
    fit = world.trial.parameters
    clock = fit["course"]["dosing_clock_hour"] - STEP_H
    state = world.initial(keys.from_seed(seed, people), {"admission_clock_hour": torch.full((people,), clock)})
    chart = world.observe(state)
    before = {name: chart[name].double().numpy() for name in MEASURES}
    ready = world.transition(state, torch.zeros(people, len(world.drugs)))
    lines = []
    for drug in ("placebo", *world.drugs):
        dose = torch.zeros(people, len(world.drugs))
        if drug != "placebo":
            dose[:, world.drugs.index(drug)] = fit["drugs"][drug]["dose_mg"]
        now = ready
        for step in range(1, int(max(HOURS) / STEP_H) + 1):
            now = world.transition(now, dose if step == 1 else torch.zeros_like(dose))
            if step * STEP_H not in HOURS:
                continue
            chart = world.observe(now)
            for name in MEASURES:
                mean = _change(name, before[name], chart[name].double().numpy()).mean()
                lines.append({"drug": drug, "hour": step * STEP_H, "measure": name, "oracle": mean})
    return pd.DataFrame(lines)


def side_by_side(frame: pd.DataFrame, people: int, seed: int = 0) -> pd.DataFrame:
    """Both tables in one: drug, hour, measure, trial, error, oracle, in_error."""
    table = trial_arms(frame).merge(oracle_arms(people, seed), on=["drug", "hour", "measure"])
    table = table.rename(columns={"mean": "trial"})
    return table.assign(in_error=(table["oracle"] - table["trial"]) / table["error"])


def main(argv: list[str] | None = None) -> int:
    """Print and write the table. Returns the exit status: 2 for a trial that cannot be read."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trial", required=True, help="the clinical CSV, or the folder it lies in")
    parser.add_argument("--people", type=int, default=2000, help="virtual volunteers an arm")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.people < 2:
        parser.error(f"--people {options.people}: give 2 or more")
    torch.set_num_threads(1)
    try:
        table = side_by_side(load_trial(options.trial), options.people, options.seed)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in MEASURES:
        part = table[table["measure"] == name]
        wide = part.pivot_table(index="hour", columns="drug", values=["trial", "oracle"]).swaplevel(axis=1)
        print(f"\n{name}{', %' if name == PER_CENT else ''}")
        print(wide.sort_index(axis=1).round(1 if name.endswith(("_ms", "_uv")) else 3).to_string())
    off = table["in_error"].abs()
    print(f"\nwithin two standard errors of the trial: {int((off <= 2).sum())} of {len(table)}")
    write_csv(
        RESULTS / "trial_arms.csv",
        table.to_dict("records"),
        made_by(MODULE, argv, {"volunteers": options.seed}, (), [TRIAL_FIT]),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
