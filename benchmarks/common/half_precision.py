"""What half precision costs and saves: `python -m benchmarks.common.half_precision --work DIR`.

Each learned world in float32 and with its products of matrices in bfloat16 and float16 (`catalog.load(dtype=...)`), on
the same simulated patients with the same luck, judged as its own tables judge it:

ecg-wm-small         absolute error of QTcF after 24 h against the drug oracle, mean of eight plans; the baseline ECG
                     alone is known (`benchmarks.ecg_drug.fidelity`)
ehr-ward-small       values within 25 % of the ward oracle's, living by its own outcomes from 4 h on, and how many its
                     80 % intervals hold (`benchmarks.ward.fidelity_tables`)
cardiac-jepa-small   squared distance between the latent that true transitions lead to and the next ECG's, over the mean
                     of that between both ECGs

Beside each: steps a second of 1,024 patients under the rule "nothing", one thread, by turns; what a processor gains
depends on whether it multiplies in that precision (AMX, AVX-512 BF16), which the page says. Writes half_precision.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.common.timing import by_turns
from benchmarks.ecg_drug.fidelity import TEST_SEED, plans, recorded, run, sinus_keys
from benchmarks.ward.fidelity_tables import PATHS_SEED, by_length, clip, cut, simulate
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models import catalog, half, keys, tree
from world_models.command_line import folder, number, whole
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.feeder import join

MODULE = "benchmarks.common.half_precision"
Judged = dict[str, Tensor]  # name of a measure -> its value for each patient, [N]
DAYS, CHUNK = 7, 25  # of a trajectory; stays at once
PAIRS_SEED = 9_300_000_000
BATCH = 1024


def judge_drug(world: Any, patients: int, _: Path) -> Judged:
    """Error of QTcF after 24 h, ms: [N], the mean over the plans."""
    oracle = catalog.load("oracle")
    key = sinus_keys(oracle, TEST_SEED, patients)
    errors = []
    for plan in plans(world.hours_per_step, int(24 / world.hours_per_step)).values():
        truth = [oracle.observe(state) for state in run(oracle, oracle.initial(key), plan)]
        seen = [oracle.observe(oracle.initial(key), ("ecg_mv",))]
        state = world.infer(recorded(seen, truth[:1], plan, world.hours_per_step), keys.fold(key, "model"), None)
        chart = world.observe(run(world, world.expected(state), plan)[-1])
        errors.append((chart["qtcf_ms"] - truth[-1]["qtcf_ms"]).abs())
    return {"error of QTcF after 24 h, ms": torch.stack(errors).nanmean(0)}


def judge_ward(world: Any, patients: int, work: Path) -> Judged:
    """Shares [N] of each stay's values within 25 % of the record, and within the 80 % interval of 19 paths."""
    shards = work / f"ward-{patients}"
    if not list(shards.glob("test-*.safetensors")):
        ward_rollouts.write_shards(shards, "test", ward_rollouts.TEST_SEED, patients, size=patients)
    test = clip(tree.take(join(ward_rollouts.read_shards(shards, "test")), slice(0, patients)), DAYS * 6)
    near, inside = torch.full((patients,), torch.nan), torch.full((patients,), torch.nan)
    for rows, part in by_length(test, CHUNK):
        paths = simulate(world, part, cut(part, 1), 1)  # [P, B, T, I]
        there = part.asked & ~part.value.isnan() & part.valid.unsqueeze(-1) & ~world.net.label
        there[:, :2] = False
        there &= ~paths.isnan().any(0)
        middle, ordered = paths.median(0).values, paths.sort(0).values
        close = (middle - part.value).abs() <= 0.25 * part.value.abs()
        held = (part.value >= ordered[1]) & (part.value <= ordered[-2])
        count = there.sum((1, 2))
        near[rows], inside[rows] = ((x & there).sum((1, 2)) / count for x in (close, held))
    return {"values within 25 %": near, "values in 80 % intervals": inside}


def judge_jepa(world: Any, patients: int, _: Path) -> Judged:
    """Squared distance [N] to the next ECG's latent, over the mean of that between the two ECGs."""
    before, goal, _, sought, days = world.explain_pairs(keys.from_seed(PAIRS_SEED, patients))
    led = half.run(world, world.jepa.predict, before, sought.to(torch.float32), days)
    return {"squared error of the latent": (led - goal).square().sum(-1) / (before - goal).square().sum(-1).mean()}


WORLDS: dict[str, tuple[type[Task], Callable[[Any, int, Path], Judged]]] = {
    "ecg-wm-small": (ECGDrugTask, judge_drug),
    "ehr-ward-small": (EHRWardTask, judge_ward),
    "cardiac-jepa-small": (ECGProgressionTask, judge_jepa),
}


def stepper(world: Any, task: type[Task]) -> Callable[[], int]:
    """A step of 1,024 patients to whom nothing is given; they begin anew after 20."""
    simulator = Simulator(world, task())
    begun = simulator.reset(keys.from_seed(0, BATCH))
    nothing, at = torch.zeros(BATCH, len(world.orders)), [0, *begun]

    def step() -> int:
        if at[0] % 20 == 0:
            at[1:] = begun
        out = simulator.step(at[1], at[2], nothing)
        at[:] = [at[0] + 1, out.state, out.chart]
        return BATCH

    return step


def rows_of(name: str, patients: int, work: Path, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """A row a measure and precision of one world."""
    task, judge = WORLDS[name]
    worlds = {dtype: catalog.load(name, dtype=dtype) for dtype in half.DTYPES}
    speeds = by_turns({dtype: stepper(world, task) for dtype, world in worlds.items()}, seconds, repeats)
    judged = {dtype: judge(world, patients, work) for dtype, world in worlds.items()}
    rows = []
    for dtype, found in judged.items():
        for measure, values in found.items():
            whole_values = judged[half.WHOLE][measure]
            known = ~(values.isnan() | whole_values.isnan())
            row: dict[str, Any] = {"world": name, "dtype": dtype, "measure": measure, "patients": int(known.sum())}
            put_mean(row, "value", values[known])
            put_mean(row, "minus_float32", (values - whole_values)[known])
            row |= {"steps_per_second": speeds[dtype]["median"]}
            row |= {"times_float32": speeds[dtype]["cpu"] / speeds[half.WHOLE]["cpu"]}
            rows.append(row)
            change = f"{row['minus_float32']:+.2g} [{row['minus_float32_low']:+.2g}, {row['minus_float32_high']:+.2g}]"
            print(
                f"{name:20s} {dtype:9s} {measure:30s} {row['value']:.4f} {change:30s} {row['times_float32']:.2f} times"
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Judge, time, print and write."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=folder, required=True, help="folder of the simulated stays")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--patients", type=whole(2), default=400)
    parser.add_argument("--seconds", type=number(0.05, 600), default=2.0, help="of a turn")
    parser.add_argument("--repeats", type=whole(1), default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "half_precision.csv")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [row for name in a.worlds for row in rows_of(name, a.patients, a.work, a.seconds, a.repeats)]
    seeds = {"drug patients": TEST_SEED, "ward patients": ward_rollouts.TEST_SEED, "paths": PATHS_SEED}
    seeds |= {"pairs": PAIRS_SEED, "bootstrap": 0}
    write_csv(a.out, rows, made_by(MODULE, argv, seeds, [*a.worlds, "oracle", "ward-oracle"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
