"""The latent diffusion on a test bed: samplers beside each other, few steps beside fifty, what the physics energy does.

    python -m benchmarks.ecg_drug.diffusion_bench --work DIR [--out PREFIX] [--patients N] [--scale S] [--parts ...]

Parts, each a table (PREFIX_part.csv):

- known: a conditional distribution with a known answer (`diffusion_pairs.known_pairs`); DDPM, DDIM, rectified flow and
  the student beside samples of the truth.
- samplers: pairs of ECG latents of the oracle's patients; the same at 50, 10 and 3 evaluations.
- student: one to three evaluations, taught on the energy score of the data and by regression on the teacher, each as a
  ratio to rectified flow's 50; milliseconds for 4,096 rows beside today's residual flow.
- epk: teachers and students trained on with the energy's weight from 0 up.
- guidance: the teacher without it, guided at sampling time.
- prior: 0 to 100 % of the prior given.
- mismatch: the prior's rates and effects wrong for all, and its changes wrong patient by patient.

Training, choice and test patients are kept apart by seed. Nothing is chosen on the test patients. A run that is
stopped goes on where it was (`--work`).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_tables
from benchmarks.ecg_drug import diffusion_pairs as bed
from benchmarks.ecg_drug.diffusion_scores import SAMPLES, physics, scores, sd_of_entries, timed
from world_models import keys
from world_models.ecg_wm.diffusion.ddpm import DDIM, DDPM
from world_models.ecg_wm.diffusion.decoded import PresentDecoder
from world_models.ecg_wm.diffusion.distil import regressed
from world_models.ecg_wm.diffusion.energy import EPK, EnergyWeights
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, LatentDiffusion, Pairs
from world_models.ecg_wm.diffusion.mismatch import misspecified, mistaken_change
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.diffusion.train import Draw, fresh, train_student, train_teacher
from world_models.training import Schedule, fit

PARTS = ("known", "samplers", "student", "epk", "guidance", "prior", "mismatch")
SEED = 2026
TRAIN_SEED, TEST_SEED, KNOWN_SEED = 5_000_000_000, 6_000_000_000, 7_000_000_000
SIZES = DiffusionConfig(teacher_width=192)
BATCH, EPK_BATCH = 256, 64
STUDENT_SAMPLES = 4  # a condition, in its energy score: half the price of 8 at equal steps
STEPS = {"teacher": 2500, "student": 1500, "epk": 150, "known": 1200, "regressed": 1000}
MANY = 50  # evaluations that count as many
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)  # of the EPK term
STRENGTHS = (0.0, 0.1, 0.3, 1.0, 3.0)  # of guidance
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MISMATCHES = (0.0, 0.25, 0.5, 1.0)
SPEED_ROWS = 4096
TEST_SHARE = 24  # training patients to one that judges
COMMAND = "benchmarks.ecg_drug.diffusion_bench"


@dataclass
class Bench:
    """What all parts share."""

    work: Path
    scale: float
    world: Any
    train: Pairs
    test: Pairs
    true_beat: Tensor
    model: LatentDiffusion
    epk: EPK
    worst: float  # total energy of a true beat's 99th percentile
    law: Tensor  # of the shape, see `diffusion_pairs.lay_shapes`

    def steps(self, what: str) -> int:
        """Training steps of a stage at this run's scale."""
        return max(20, round(STEPS[what] * self.scale))

    def draw(self, stage: str, batch: int = BATCH) -> Draw:
        """Batches of the training pairs, a function of the step."""

        def one(step: int) -> tuple[Pairs, Tensor]:
            key = keys.fold(keys.from_seed(TRAIN_SEED + step * batch, batch), stage)
            index = torch.floor(keys.uniform(key, 0, "bench/row") * len(self.train.z_pre)).long()
            return self.train.take(index.clamp_max(len(self.train.z_pre) - 1)), key

        return one

    def test_keys(self, rows: int) -> list[Tensor]:
        """Keys of SAMPLES samples of each of `rows` test pairs."""
        key = keys.from_seed(TEST_SEED, rows)
        return [keys.fold(key, n) for n in range(SAMPLES)]


@torch.no_grad()
def draw_all(
    bench: Bench,
    model: LatentDiffusion,
    pairs: Pairs,
    sampler: Sampler | None,
    steps: int = MANY,
    share: float = 1.0,
    strength: float = 0.0,
    count: int = SAMPLES,
) -> Tensor:
    """Samples [count, B, Z] of the post-dose latents of pairs [B]."""
    _, condition, given = model.prepare(pairs, None, share)
    guidance = (bench.epk, pairs.predicted, strength) if strength else None
    every = bench.test_keys(len(pairs.z_pre))[:count]
    return torch.stack([model.sample(condition, given, key, sampler, steps, guidance) for key in every])


def judged(bench: Bench, model: LatentDiffusion, samples: Tensor, pairs: Pairs, beat: Tensor) -> dict[str, float]:
    """Scores and physics of samples for pairs."""
    told = scores(samples, pairs.z_post, model.units.scale)
    return told | physics(samples, pairs, beat, bench.epk.energy, bench.epk.decode, bench.worst)


# ---- the problem with a known answer


def known(work: Path, scale: float) -> list[dict[str, Any]]:
    """Each sampler's energy score beside the truth's own, and the features that make the problem hard."""
    pairs = bed.known_pairs(keys.from_seed(KNOWN_SEED, 2000))
    truth = torch.stack([_again(pairs, n) for n in range(SAMPLES)])
    model = fresh(DiffusionConfig(128, 2, 64, 1, 2), bed.KNOWN_SIZE, bed.KNOWN_PARTS, SEED)
    some = bed.known_pairs(keys.from_seed(KNOWN_SEED + 10**6, 4000))
    model.units.measure(some.z_post - some.z_prior)

    def draw(step: int) -> tuple[Pairs, Tensor]:
        key = keys.from_seed(KNOWN_SEED + 10**7 + step * 512, 512)
        return bed.known_pairs(key), keys.fold(key, "loss")

    rows = [_known_row("truth", truth, pairs, model)]
    count = max(20, round(STEPS["known"] * scale))
    start = copy.deepcopy(model.teacher.state_dict())
    for name, sampler in (("rectified flow", RectifiedFlow()), ("ddpm", DDPM())):
        model.teacher.load_state_dict(start)
        stage = f"known_{name.replace(' ', '_')}"
        train_teacher(model, sampler, draw, Schedule(count), work, stage, partial=False)
        tried: list[tuple[str, Sampler, int]] = [(name, sampler, 50), (name, sampler, 10), (name, sampler, 3)]
        tried += [("ddim", DDIM(), 50)] if name == "ddpm" else [("heun", RectifiedFlow(heun=True), 10)]
        rows += [
            _known_row(f"{label}, {steps}", _draw_known(model, pairs, one, steps), pairs, model)
            for label, one, steps in tried
        ]
    train_student(model, draw, Schedule(count), work, "known_student", partial=False)
    return [*rows, _known_row("student, 2", _draw_known(model, pairs, None, 2), pairs, model)]


def _again(pairs: Pairs, n: int) -> Tensor:
    """A further sample of the truth under the same x."""
    return bed.known_post(pairs.parts["x"], keys.fold(keys.from_seed(KNOWN_SEED, len(pairs.z_pre)), 100 + n))


@torch.no_grad()
def _draw_known(model: LatentDiffusion, pairs: Pairs, sampler: Sampler | None, steps: int) -> Tensor:
    _, condition, given = model.prepare(pairs)
    key = keys.from_seed(KNOWN_SEED + 5 * 10**8, len(given))
    return torch.stack([model.sample(condition, given, keys.fold(key, n), sampler, steps) for n in range(SAMPLES)])


def _known_row(name: str, samples: Tensor, pairs: Pairs, model: LatentDiffusion) -> dict[str, Any]:
    x, off = pairs.parts["x"], samples - pairs.z_prior
    side = ((off[..., 4] * torch.sign(x[:, 1])) > 0).float().mean()
    between = (off[..., 4].abs() < 0.4).float().mean()  # hardly ever in truth
    wide, narrow = x[:, 0] > 0.5, x[:, 0] < -0.5
    ratio = samples[:, wide, 0].std(0).mean() / samples[:, narrow, 0].std(0).mean()
    told = scores(samples, pairs.z_post, model.units.scale)
    more = {"favoured_side": float(side), "between_modes": float(between), "spread_ratio": float(ratio)}
    return {"sampler": name, **told, **more}


# ---- pairs of ECG latents


def prepared(work: Path, scale: float, patients: int) -> Bench:
    """Pairs, the calibrated energy and the teacher on rectified flow's path."""
    world = bed.world()
    train, _ = bed.ecg_pairs(world, TRAIN_SEED, patients)
    test, beat = bed.ecg_pairs(world, TEST_SEED, max(64, patients // TEST_SHARE))
    train, law = bed.lay_shapes(world, train)
    test, _ = bed.lay_shapes(world, test, law)
    model = fresh(SIZES, train.z_pre.shape[-1], bed.ECG_PARTS, SEED)
    model.units.measure(train.z_post - train.z_prior)
    decode = PresentDecoder(world.vae, bed.COORDINATES, bed.RATE_HZ)
    with torch.no_grad():
        some = train.take(torch.arange(0, len(train.z_pre), max(1, len(train.z_pre) // 2000)))
        model.energy.calibrate(decode(some.z_post), some.predicted)
        energies = model.energy(decode(some.z_post), some.predicted).total(EnergyWeights())
    epk = EPK(model.energy, decode)
    return Bench(work, scale, world, train, test, beat, model, epk, float(energies.quantile(0.99)), law)


def base_teacher(bench: Bench, sampler: Sampler, name: str) -> None:
    """Train (or load) the teacher of this name into the model."""
    schedule = Schedule(bench.steps("teacher"), learning_rate=1e-3)
    train_teacher(bench.model, sampler, bench.draw(name), schedule, bench.work, f"teacher_{name}")


def base_student(bench: Bench) -> None:
    """Train (or load) the student of two evaluations."""
    schedule = Schedule(bench.steps("student"))
    train_student(bench.model, bench.draw("student"), schedule, bench.work, "student_2", STUDENT_SAMPLES)


def persistence(bench: Bench) -> list[dict[str, Any]]:
    """The pre-dose latent, the prior alone and the truth, judged alike."""
    test = bench.test
    rows: list[dict[str, Any]] = []
    for name, z in (("pre-dose", test.z_pre), ("prior alone", test.z_prior), ("truth", test.z_post)):
        told = physics(z.unsqueeze(0), test, bench.true_beat, bench.epk.energy, bench.epk.decode, bench.worst)
        error = (z - test.z_post).abs() / bench.model.units.scale
        rows.append({"sampler": name, "evaluations": 0, "mae_of_median": float(error.mean()), **told})
    return rows


def samplers(bench: Bench) -> list[dict[str, Any]]:
    """DDPM and DDIM beside rectified flow at 50, 10 and 3 evaluations."""
    rows = persistence(bench)
    initial = copy.deepcopy(bench.model.teacher.state_dict())
    flow: list[tuple[str, Sampler, int]] = [("rectified flow", RectifiedFlow(), n) for n in (MANY, 10, 3)]
    flow += [("rectified flow, Heun", RectifiedFlow(heun=True), 10)]
    chain: list[tuple[str, Sampler, int]] = [("ddpm", DDPM(), n) for n in (MANY, 10, 3)]
    chain += [("ddim", DDIM(), n) for n in (MANY, 10, 3)]
    for name, tried in (("ddpm", chain), ("flow", flow)):
        bench.model.teacher.load_state_dict(initial)
        base_teacher(bench, DDPM() if name == "ddpm" else RectifiedFlow(), name)
        for label, sampler, steps in tried:
            drawn = draw_all(bench, bench.model, bench.test, sampler, steps)
            told = judged(bench, bench.model, drawn, bench.test, bench.true_beat)
            rows.append({"sampler": label, "evaluations": steps, **told})
    return rows


def student(bench: Bench) -> list[dict[str, Any]]:
    """Students of one to three evaluations as ratios to the teacher's fifty, and their time."""
    model, test = bench.model, bench.test
    many = draw_all(bench, model, test, RectifiedFlow())
    reference, sd = judged(bench, model, many, test, bench.true_beat), sd_of_entries(many)
    _, condition, given = model.prepare(test.take(torch.arange(SPEED_ROWS) % len(test.z_pre)))
    key = keys.from_seed(SEED, SPEED_ROWS)
    slow = timed(lambda: model.sample(condition, given, key, RectifiedFlow(), MANY), 2)
    rows = [{"student": "teacher, rectified flow", "evaluations": MANY, "ms_4096": slow, **reference}]
    for count, how in ((2, "scored"), (1, "scored"), (3, "scored"), (2, "regressed")):
        small = _student_of(bench, count, how)
        drawn = draw_all(bench, small, test, None)
        told = judged(bench, small, drawn, test, bench.true_beat)
        off = (sd_of_entries(drawn) / sd - 1).abs()
        ratios = {f"{n}_ratio": told[n] / reference[n] for n in ("energy_score", "mae_of_median", "signal_mae_uv")}
        spread = {"sd_off_mean": float(off.mean()), "sd_off_most": float(off.max())}
        spent = timed(lambda net=small: net.sample(condition, given, key))  # type: ignore[misc]
        cost = {"ms_4096": spent, "times_faster": slow / spent, "multiplications": small.student.multiplications}
        rows.append({"student": how, "evaluations": count, **cost, **told, **ratios, **spread})
        print(rows[-1], flush=True)
    now = bench.world.flow
    x, c = torch.zeros(SPEED_ROWS, 6), torch.zeros(SPEED_ROWS, now.velocity[0].in_features - 7)
    with torch.no_grad():
        rows.append(
            {"student": "today's residual flow on 6 entries", "evaluations": 3, "ms_4096": timed(lambda: now(x, c))}
        )
    return rows


def _student_of(bench: Bench, evaluations: int, how: str) -> LatentDiffusion:
    """The bench's model with a student of its own."""
    small = fresh(replace(SIZES, evaluations=evaluations), bench.model.latent, bed.ECG_PARTS, SEED)
    state = {n: v for n, v in bench.model.state_dict().items() if not n.startswith("student.")}
    small.load_state_dict(state, strict=False)
    stage = f"student_{evaluations}" if how == "scored" else f"regressed_{evaluations}"
    if how == "scored":
        schedule = Schedule(bench.steps("student"))
        train_student(small, bench.draw("student"), schedule, bench.work, stage, STUDENT_SAMPLES)
        return small
    with torch.no_grad():  # the teacher's end points are made once
        rows = torch.arange(0, len(bench.train.z_pre), max(1, len(bench.train.z_pre) // 4096))
        _, condition, _ = small.prepare(bench.train.take(rows))
        noise = keys.normal(keys.from_seed(TRAIN_SEED - 10**6, len(rows)), 0, "bench/noise", (small.latent,))
        taught = RectifiedFlow().sample(small.teacher, condition, noise.unsqueeze(0), MANY)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(TRAIN_SEED + 10**9 + step * BATCH, BATCH)
        at = torch.floor(keys.uniform(key, 0, "bench/row") * len(rows)).long().clamp_max(len(rows) - 1)
        return regressed(small.student, noise[at], taught[at], condition[at]), {}

    fit(small, loss, Schedule(bench.steps("regressed")), bench.work, stage, list(small.student.parameters()))
    return small


def epk(bench: Bench) -> list[dict[str, Any]]:
    """Teacher and student trained on with the energy in their loss: physics against reconstruction."""
    rows: list[dict[str, Any]] = []
    base = copy.deepcopy(bench.model.state_dict())
    schedule = Schedule(bench.steps("epk"), learning_rate=5e-4, warm_up=20, average=0.98)
    for weight in WEIGHTS:
        bench.model.load_state_dict(base)
        draw = bench.draw("epk", EPK_BATCH)
        stage = f"epk_{weight:g}"
        given = {"epk": bench.epk, "epk_weight": weight}
        train_teacher(bench.model, RectifiedFlow(), draw, schedule, bench.work, f"{stage}_teacher", **given)
        drawn = draw_all(bench, bench.model, bench.test, RectifiedFlow(), 20)
        told = judged(bench, bench.model, drawn, bench.test, bench.true_beat)
        rows.append({"epk_weight": weight, "network": "teacher", **told})
        train_student(bench.model, draw, schedule, bench.work, f"{stage}_student", **given)
        drawn = draw_all(bench, bench.model, bench.test, None)
        told = judged(bench, bench.model, drawn, bench.test, bench.true_beat)
        rows.append({"epk_weight": weight, "network": "student", **told})
    bench.model.load_state_dict(base)
    return rows


def guidance(bench: Bench) -> list[dict[str, Any]]:
    """The teacher guided by the energy at sampling time, on a part of the test pairs: each step decodes."""
    few = min(64, len(bench.test.z_pre))
    test, beat = bench.test.take(torch.arange(few)), bench.true_beat[:few]
    rows = []
    for strength in STRENGTHS:
        drawn = draw_all(bench, bench.model, test, RectifiedFlow(), 8, strength=strength)
        rows.append({"strength": strength, **judged(bench, bench.model, drawn, test, beat)})
    return rows


def prior(bench: Bench) -> list[dict[str, Any]]:
    """From no physics to all of it, in one model."""
    rows = []
    for share in SHARES:
        for name, sampler in (("teacher", RectifiedFlow()), ("student", None)):
            drawn = draw_all(bench, bench.model, bench.test, sampler, 20, share)
            told = judged(bench, bench.model, drawn, bench.test, bench.true_beat)
            rows.append({"prior_share": share, "network": name, **told})
    return rows


def mismatch(bench: Bench) -> list[dict[str, Any]]:
    """A prior that is wrong for everybody, and one that is wrong patient by patient."""
    rows: list[dict[str, Any]] = []
    right = bench.world.prior
    key = keys.from_seed(TEST_SEED + 10**8, len(bench.test.z_pre))
    for size in MISMATCHES:
        z_prior = bench.test.z_pre + mistaken_change(bench.test.z_prior - bench.test.z_pre, key, size)
        predicted = bed.foreseen_reading(bench.world, bench.test.z_pre, z_prior)
        wrong = {"patient": bench.test._replace(z_prior=z_prior, predicted=predicted)}
        bench.world.prior = misspecified(right, keys.from_seed(SEED), size)
        population, _ = bed.ecg_pairs(bench.world, TEST_SEED, len(bench.test.z_pre) // bed.VISITS)
        bench.world.prior = right
        # What happened is the oracle's: the wrong prior has a part in the prediction alone.
        wrong["population"] = bed.lay_shapes(bench.world, population, bench.law)[0]._replace(z_post=bench.test.z_post)
        for kind, pairs in wrong.items():
            drawn = draw_all(bench, bench.model, pairs, None)
            told = judged(bench, bench.model, drawn, pairs, bench.true_beat)
            alone = (pairs.z_prior - pairs.z_post).abs() / bench.model.units.scale
            rows.append({"wrong_for": kind, "size": size, "mae_of_prior": float(alone.mean()), **told})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what training has reached so far")
    parser.add_argument("--out", type=Path, default=RESULTS / "diffusion", help="prefix of the tables")
    parser.add_argument("--patients", type=int, default=6000, help="training patients; a 24th as many judge")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of training steps")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args(argv)
    if args.patients < 1536:
        parser.error(f"--patients {args.patients}: at least 1536, so that 64 judge")
    if not 0 < args.scale <= 100:
        parser.error(f"--scale {args.scale:g} must be above 0 and at most 100")
    torch.set_num_threads(1)
    made = made_by(COMMAND, argv, {"train": TRAIN_SEED, "test": TEST_SEED, "known": KNOWN_SEED}, ["ecg-wm-small"])
    if "known" in args.parts:
        write_tables(args.out, {"known": known(args.work, args.scale)}, made)
    rest = [part for part in PARTS[1:] if part in args.parts]
    if rest:
        bench = prepared(args.work, args.scale, args.patients)
        if "samplers" in rest:
            write_tables(args.out, {"samplers": samplers(bench)}, made)
        base_teacher(bench, RectifiedFlow(), "flow")
        base_student(bench)
        run = {"student": student, "epk": epk, "guidance": guidance, "prior": prior, "mismatch": mismatch}
        for part in rest:
            if part in run:
                write_tables(args.out, {part: run[part](bench)}, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
