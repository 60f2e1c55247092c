"""The latent diffusion on the world's own steps: samplers beside each other, few steps beside fifty, what the physics
energy and the prior do.

    python -m benchmarks.ecg_drug.diffusion_bench --work DIR [--out PREFIX] [--world NAME] [--parts ...]

Parts, each a table (PREFIX_part.csv), intervals over patients:

- known: a conditional distribution with a known answer (`diffusion_known`); samplers beside samples of the truth.

Of the world's own weights, nothing trained:

- shipped: its few-step student beside its teacher at 50, 10 and 3 evaluations: errors as ratios to the fifty's with
  their intervals, and milliseconds for 4,096 rows.
- prior: 0 to 100 % of the prior's prediction given to the teacher (its student always has all of it).
- mismatch: the prior's rates and effects wrong for all, and its changes wrong patient by patient.
- guidance: the energy at sampling time.

Trained here on the world's steps (patients of another seed than the world's):

- samplers: DDPM and DDIM beside rectified flow at 50, 10 and 3 evaluations.
- student: one to three evaluations, taught on the energy score of the data and by regression on the teacher.
- epk: teachers and students trained on with the energy's weight from 0 up.

Nothing is chosen on the test patients. A run that is stopped goes on where it was (`--work`).
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import resamples
from benchmarks.common.results import RESULTS, made_by, write_tables
from benchmarks.ecg_drug.diffusion_known import KNOWN_SEED, known
from benchmarks.ecg_drug.diffusion_scores import physics, sd_of_entries, timed
from benchmarks.ecg_drug.diffusion_steps import (
    MANY,
    SEED,
    SIZES,
    TEST_SEED,
    TRAIN_SEED,
    Bench,
    draw_all,
    errors_of_patients,
    judged,
    prepared,
    steps_of_patients,
    with_shapes,
    world_of,
)
from world_models import keys
from world_models.bootstrap import percentile_interval
from world_models.command_line import folder, number, whole
from world_models.ecg_wm.diffusion.ddpm import DDIM, DDPM
from world_models.ecg_wm.diffusion.distil import regressed
from world_models.ecg_wm.diffusion.latent_diffusion import LatentDiffusion
from world_models.ecg_wm.diffusion.mismatch import misspecified, mistaken_change
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.diffusion.train import fresh, train_student, train_teacher
from world_models.training import Schedule, fit

__all__ = ["PARTS", "main"]

PARTS = ("known", "shipped", "prior", "mismatch", "guidance", "samplers", "student", "epk")
EPK_BATCH, EPK_ROWS = 64, 32  # energy is asked of so many rows: decoding costs more than all the rest
STUDENT_SAMPLES = 4  # a condition, in its energy score: half the price of 8 at equal steps
STEPS = {"teacher": 2500, "student": 1500, "epk": 150, "regressed": 1000}
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)  # of the EPK term
STRENGTHS = (0.0, 0.1, 0.3, 1.0, 3.0)  # of guidance
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MISMATCHES = (0.0, 0.25, 0.5, 1.0)
SPEED_ROWS = 4096
LEAST_TESTS = 32
COMMAND = "benchmarks.ecg_drug.diffusion_bench"
Row = dict[str, Any]


def _steps(bench: Bench, what: str) -> int:
    """Training steps of a stage at this run's scale."""
    return max(20, round(STEPS[what] * bench.scale))


# ---- the world's own weights


def alone(bench: Bench) -> list[Row]:
    """The latent before the step, the prior alone and the truth, judged alike."""
    test, rows = bench.test, []
    for name, z in (("before the step", test.z_pre), ("prior alone", test.z_prior), ("truth", test.z_post)):
        told = physics(z.unsqueeze(0), test, bench.true_beat, bench.epk.energy, bench.epk.decode, bench.worst)
        error = (z - test.z_post).abs() / bench.model.units.scale
        rows.append({"sampler": name, "evaluations": 0, "mae_of_median": float(error.mean()), **told})
    return rows


def shipped(bench: Bench) -> list[Row]:
    """The world's student beside its teacher: errors and time, and the ratios to fifty evaluations."""
    model, test = bench.world.residual.diffusion, bench.test
    _, condition, given = model.prepare(test.take(torch.arange(SPEED_ROWS) % len(test.z_pre)))
    key = keys.from_seed(SEED, SPEED_ROWS)
    chosen = resamples(len(test.z_pre))
    rows, first = alone(bench), None
    for name, sampler, count in (
        ("teacher", RectifiedFlow(), MANY),
        ("teacher", RectifiedFlow(), 10),
        ("teacher", RectifiedFlow(), 3),
        ("student", None, model.config.evaluations),
    ):
        drawn = draw_all(model, test, sampler, count)
        each = errors_of_patients(drawn, test, bench.model.units.scale)
        spent = timed(lambda s=sampler, n=count: model.sample(condition, given, key, s, n), 3)  # type: ignore[misc]
        row: Row = {"sampler": name, "evaluations": count, "ms_4096": spent, **judged(bench, drawn)}
        first = (each, spent) if first is None else first
        for measure, value in each.items():
            reference = first[0][measure]
            row[f"{measure}_ratio"] = float(value.mean() / reference.mean())
            ends = percentile_interval(value[chosen].mean(-1) / reference[chosen].mean(-1))
            row[f"{measure}_ratio_low"], row[f"{measure}_ratio_high"] = ends
        rows.append(row | {"times_faster": first[1] / spent})
    return rows


def prior(bench: Bench) -> list[Row]:
    """From no physics to all of it, in the world's own teacher."""
    model, rows = bench.world.residual.diffusion, []
    for share in SHARES:
        drawn = draw_all(model, bench.test, RectifiedFlow(), 20, share)
        rows.append({"prior_share": share, "network": "teacher", **judged(bench, drawn)})
    drawn = draw_all(model, bench.test, None)
    return [*rows, {"prior_share": 1.0, "network": "student", **judged(bench, drawn)}]


def mismatch(bench: Bench) -> list[Row]:
    """A prior that is wrong for everybody, and one that is wrong patient by patient."""
    world, rows = bench.world, []
    right, test = world.prior, bench.test
    key, patients = keys.from_seed(TEST_SEED + 10**8, len(test.z_pre)), bench.tests
    for size in MISMATCHES:
        change = mistaken_change(test.z_prior - test.z_pre, key, size)
        wrong = {"patient": test._replace(z_prior=test.z_pre + change)}
        try:
            world.prior = misspecified(right, keys.from_seed(SEED, 1), size)
            other = with_shapes(world, steps_of_patients(world, patients)).take(bench.kept.nonzero().squeeze(-1))
        finally:
            world.prior = right
        wrong["population"] = other
        for kind, pairs in wrong.items():
            told = judged(bench, draw_all(world.residual.diffusion, pairs, None), pairs)
            off = (pairs.z_prior - pairs.z_post).abs() / bench.model.units.scale
            rows.append({"wrong_for": kind, "size": size, "mae_of_prior": float(off.mean()), **told})
    return rows


def guidance(bench: Bench) -> list[Row]:
    """The world's teacher guided by the energy at sampling time, on a part of the test steps: each step decodes."""
    few = min(64, len(bench.test.z_pre))
    test, beat = bench.test.take(torch.arange(few)), bench.true_beat[:few]
    rows = []
    for strength in STRENGTHS:
        guide = (bench.epk, strength) if strength else None
        drawn = draw_all(bench.world.residual.diffusion, test, RectifiedFlow(), 8, guidance=guide)
        rows.append({"strength": strength, **judged(bench, drawn, test, beat)})
    return rows


# ---- trained here


def _base_teacher(bench: Bench, sampler: Sampler, name: str) -> None:
    """Train (or load) the teacher of this name into the bench's model."""
    schedule = Schedule(_steps(bench, "teacher"), learning_rate=1e-3)
    train_teacher(bench.model, sampler, bench.draw(name), schedule, bench.work, f"teacher_{name}")


def _base_student(bench: Bench) -> None:
    """Train (or load) the student of two evaluations."""
    schedule = Schedule(_steps(bench, "student"))
    train_student(bench.model, bench.draw("student"), schedule, bench.work, "student_2", STUDENT_SAMPLES)


def samplers(bench: Bench) -> list[Row]:
    """DDPM and DDIM beside rectified flow at 50, 10 and 3 evaluations."""
    rows, initial = alone(bench), copy.deepcopy(bench.model.teacher.state_dict())
    flow: list[tuple[str, Sampler, int]] = [("rectified flow", RectifiedFlow(), n) for n in (MANY, 10, 3)]
    flow += [("rectified flow, Heun", RectifiedFlow(heun=True), 10)]
    chain: list[tuple[str, Sampler, int]] = [("ddpm", DDPM(), n) for n in (MANY, 10, 3)]
    chain += [("ddim", DDIM(), n) for n in (MANY, 10, 3)]
    for name, tried in (("ddpm", chain), ("flow", flow)):
        bench.model.teacher.load_state_dict(initial)
        _base_teacher(bench, DDPM() if name == "ddpm" else RectifiedFlow(), name)
        for label, sampler, steps in tried:
            drawn = draw_all(bench.model, bench.test, sampler, steps)
            rows.append({"sampler": label, "evaluations": steps, **judged(bench, drawn)})
    return rows


def student(bench: Bench) -> list[Row]:
    """Students of one to three evaluations as ratios to the teacher's fifty, and their time."""
    _base_teacher(bench, RectifiedFlow(), "flow")
    model, test = bench.model, bench.test
    many = draw_all(model, test, RectifiedFlow())
    reference, sd = judged(bench, many), sd_of_entries(many)
    _, condition, given = model.prepare(test.take(torch.arange(SPEED_ROWS) % len(test.z_pre)))
    key = keys.from_seed(SEED, SPEED_ROWS)
    slow = timed(lambda: model.sample(condition, given, key, RectifiedFlow(), MANY), 2)
    rows: list[Row] = [{"student": "teacher, rectified flow", "evaluations": MANY, "ms_4096": slow, **reference}]
    for count, how in ((2, "scored"), (1, "scored"), (3, "scored"), (2, "regressed")):
        small = _student_of(bench, count, how)
        drawn = draw_all(small, test, None)
        told = judged(bench, drawn)
        off = (sd_of_entries(drawn) / sd - 1).abs()
        ratios = {f"{n}_ratio": told[n] / reference[n] for n in ("energy_score", "mae_of_median", "signal_mae_uv")}
        spread = {"sd_off_mean": float(off.mean()), "sd_off_most": float(off.max())}
        spent = timed(lambda net=small: net.sample(condition, given, key))  # type: ignore[misc]
        cost = {"ms_4096": spent, "times_faster": slow / spent, "multiplications": small.student.multiplications}
        rows.append({"student": how, "evaluations": count, **cost, **told, **ratios, **spread})
    return rows


def _student_of(bench: Bench, evaluations: int, how: str) -> LatentDiffusion:
    """The bench's model with a student of its own."""
    parts = bench.world.residual.diffusion.layout.parts[:-2]  # without the prior's own, which every layout adds
    small = fresh(replace(SIZES, evaluations=evaluations), bench.model.latent, parts, SEED)
    state = {n: v for n, v in bench.model.state_dict().items() if not n.startswith("student.")}
    small.load_state_dict(state, strict=False)
    stage = f"student_{evaluations}" if how == "scored" else f"regressed_{evaluations}"
    if how == "scored":
        schedule = Schedule(_steps(bench, "student"))
        train_student(small, bench.draw("student"), schedule, bench.work, stage, STUDENT_SAMPLES)
        return small
    with torch.no_grad():  # the teacher's end points are made once
        rows = torch.arange(0, len(bench.train.z_pre), max(1, len(bench.train.z_pre) // 4096))
        _, condition, _ = small.prepare(bench.train.take(rows))
        noise = keys.normal(keys.from_seed(TRAIN_SEED - 10**6, len(rows)), 0, "bench/noise", (small.latent,))
        taught = RectifiedFlow().sample(small.teacher, condition, noise.unsqueeze(0), MANY)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(TRAIN_SEED + 10**9 + step * 256, 256)
        at = torch.floor(keys.uniform(key, 0, "bench/row") * len(rows)).long().clamp_max(len(rows) - 1)
        return regressed(small.student, noise[at], taught[at], condition[at]), {}

    fit(small, loss, Schedule(_steps(bench, "regressed")), bench.work, stage, list(small.student.parameters()))
    return small


def epk(bench: Bench) -> list[Row]:
    """Teacher and student trained on with the energy in their loss: physics against reconstruction and spread."""
    _base_teacher(bench, RectifiedFlow(), "flow")
    _base_student(bench)
    rows: list[Row] = []
    base = copy.deepcopy(bench.model.state_dict())
    schedule = Schedule(_steps(bench, "epk"), learning_rate=5e-4, warm_up=20, average=0.98)
    for weight in WEIGHTS:
        bench.model.load_state_dict(base)
        draw = bench.draw("epk", EPK_BATCH)
        stage, given = f"epk_{weight:g}", {"epk": bench.epk, "epk_weight": weight, "epk_rows": EPK_ROWS}
        train_teacher(bench.model, RectifiedFlow(), draw, schedule, bench.work, f"{stage}_teacher", **given)  # type: ignore[arg-type]
        drawn = draw_all(bench.model, bench.test, RectifiedFlow(), 20)
        rows.append({"epk_weight": weight, "network": "teacher", **judged(bench, drawn)})
        train_student(bench.model, draw, schedule, bench.work, f"{stage}_student", **given)  # type: ignore[arg-type]
        drawn = draw_all(bench.model, bench.test, None)
        rows.append({"epk_weight": weight, "network": "student", **judged(bench, drawn)})
    bench.model.load_state_dict(base)
    return rows


RUN: dict[str, Callable[[Bench], list[Row]]] = {
    "shipped": shipped,
    "prior": prior,
    "mismatch": mismatch,
    "guidance": guidance,
    "samplers": samplers,
    "student": student,
    "epk": epk,
}


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=folder, required=True, help="folder for what training has reached so far")
    parser.add_argument("--out", type=Path, default=RESULTS / "diffusion", help="prefix of the tables")
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--patients", type=whole(64), default=2000, help="of each step length, to train on")
    parser.add_argument("--tests", type=whole(LEAST_TESTS), default=256, help="of each step length, to judge on")
    parser.add_argument("--scale", type=number(0, 100, above=True), default=1.0, help="of all numbers of steps")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        world_of(args.world)  # before anything is made
        made = made_by(COMMAND, argv, {"train": TRAIN_SEED, "test": TEST_SEED, "known": KNOWN_SEED}, [args.world])
        if "known" in args.parts:
            write_tables(args.out, {"known": known(args.work, args.scale)}, made)
        rest = [part for part in PARTS[1:] if part in args.parts]
        if rest:
            bench = prepared(args.world, args.work, args.scale, args.patients, args.tests)
            for part in rest:
                write_tables(args.out, {part: RUN[part](bench)}, made)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
