"""Make a learned progression world: `python -m world_models.cardiac_jepa.train --out DIR [--data FILE.h5]`.

Without `--data` everything comes from the progression oracle: a monolith of some patients (`cohort`) for the probe and
what is kept, and pairs of many more for the JEPA, synthesised as it trains (`simulated_pairs`). Stages, each resumable
in the work folder: the monolith, the JEPA (`pretrain`), the probe on its latents, the process of the labels, then what
the world keeps of validation patients: the spread of what the predictor cannot foretell, first visits to sample
patients from, pairs to explain. Run the same command again after a kill.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from world_models import checkpoint, command_line, keys, tree
from world_models.cardiac_jepa import cohort
from world_models.cardiac_jepa.auroc import macro_auroc
from world_models.cardiac_jepa.card import write_card
from world_models.cardiac_jepa.config import FULL, NARROW, JEPAConfig, WorldConfig, with_inverse
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.labels import Followed, LabelModel
from world_models.cardiac_jepa.model import KIND, CardiacJEPAWorld, Reader
from world_models.cardiac_jepa.pretrain import PairBatches, PairSource, pretrain
from world_models.cardiac_jepa.probes import fit_probe, youden
from world_models.cardiac_jepa.real_ecgs import MixedPairs, SingleECGs, told_sources, tuning_ecgs
from world_models.cardiac_jepa.simulated_pairs import SimulatedPairs, simulated_visits
from world_models.cardiac_jepa.synthetic_pairs import Pairs, with_synthetic
from world_models.command_line import MOST_BATCH, MOST_THREADS, number, whole
from world_models.data.ecg.monolith import Monolith, pairs, read_monolith
from world_models.data.ecg.pairs import with_changes
from world_models.oracles.progression.visits import consecutive
from world_models.quantities.progression import CODES
from world_models.training import Schedule, fit

__all__ = ["finish_world", "fit_labels", "main"]

SEED, PAIRS_SEED, FOLLOW_SEED, VALID_FOLLOW_SEED = 5_000_000, 6_000_000, 5_500_000_000, 5_600_000_000
PATIENTS, PAIRS_PATIENTS, FOLLOWED = 38_000, 300_000, 24_000
STEPS, BATCH, RATE = 4000, 256, 1e-3
DYNAMICS_HIDDEN = 384  # width of the narrow preset's predictor, for which simulated pairs are enough
CHANGED = 0.7  # least share of changed pairs among those that the JEPA sees
PROBE_ROWS = 20_000
VALID = 18  # the fold of validation patients
UNKNOWN_AGE_YEARS = 60.0  # what a first visit without an age is taken for
REACH_MARGIN = 1.05  # how far over the longest latent of training one may be


class Sides(NamedTuple):
    """Row numbers of a monolith: training and validation ECGs, and the pairs among each."""

    train: Tensor
    valid: Tensor
    train_pairs: tuple[Tensor, Tensor]
    valid_pairs: tuple[Tensor, Tensor]


def on_codes(m: Monolith, codes: tuple[str, ...] = CODES) -> Monolith:
    """The same ECGs with labels for these codes only, which the task and the labels' process know.

    Raises:
        ValueError: a code that the data does not have.
    """
    lacking = [c for c in codes if c not in m.codes]
    if lacking:
        raise ValueError(
            f"the data has no label {', '.join(lacking)} (it has {', '.join(m.codes)}); the progression worlds need "
            f"{', '.join(codes)}: add a column of zeros for a condition nobody has"
        )
    return m._replace(label=m.label[:, [m.codes.index(c) for c in codes]], codes=codes)


def sides(m: Monolith) -> Sides:
    """Folds 0 to 17 and fold 18; test patients (19) are not touched here."""
    first, second = pairs(m)
    side = m.fold[first]
    return Sides(
        (m.fold < VALID).nonzero().squeeze(1),
        (m.fold == VALID).nonzero().squeeze(1),
        (first[side < VALID], second[side < VALID]),
        (first[side == VALID], second[side == VALID]),
    )


def fit_labels(
    model: LabelModel, seen: Followed, folder: Path, steps: int = 3000, batch: int = 1024, rate: float = 5e-3
) -> None:
    """Maximum likelihood; leaves the averaged weights in the model. Resumable in `folder`."""
    count = len(seen.months)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = (keys.uniform(keys.from_seed(step, 1), 0, "label rows", (batch,))[0] * count).to(torch.int64)
        value = model.loss(Followed(*(x[rows] for x in seen)))
        return value, {"nll": float(value.detach())}

    warm = min(100, max(1, steps // 10))
    fit(model, loss, Schedule(steps, rate, warm_up=warm, weight_decay=1e-4, clip=5.0, average=0.99), folder, "labels")


@torch.no_grad()
def _latents(reader: Reader, m: Monolith, rows: Tensor, what: str) -> Tensor:
    out = [reader.latents(m.ecg[some].float()) for some in tqdm(rows.split(512), desc=what, mininterval=1)]
    return torch.cat(out)


def _some(rows: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of these rows, evenly by chance, in no order."""
    if len(rows) <= count:
        return rows
    order = keys.uniform(keys.from_seed(seed, 1), 0, "rows", (len(rows),))[0].argsort()
    return rows[order[:count]]


def _fit_reader(reader: Reader, m: Monolith, where: Sides) -> tuple[Tensor, Tensor]:
    """Fit probe and thresholds; latents [N, Z] of some training ECGs, and [rows, Z] of all (NaN outside validation)."""
    train, valid = _some(where.train, PROBE_ROWS, 1), where.valid
    z_train = _latents(reader, m, train, "training latents")
    z = torch.full((len(m.fold), z_train.shape[1]), float("nan"))
    z[valid] = _latents(reader, m, valid, "validation latents")
    with torch.enable_grad():
        probe = fit_probe(z_train, m.label[train], (z[valid], m.label[valid]))
    for name, value in zip(("weight", "bias", "mean", "scale"), probe, strict=True):
        getattr(reader, f"probe_{name}").copy_(value)
    reader.threshold.copy_(youden(reader.chances(z[valid]), m.label[valid]).nan_to_num(1.0))
    return z_train, z


def _keep_patients(world: CardiacJEPAWorld, m: Monolith, rows: Tensor, z: Tensor) -> None:
    """First visits [N] that new patients are sampled from, with latents z [rows, Z]."""
    world.bank_latent.copy_(z[rows])
    world.bank_condition.copy_(m.label[rows])
    world.bank_ecg.copy_(m.ecg[rows[: world.config.bank_ecgs], :, : world.bank_ecg.shape[-1]])
    world.bank_age_years.copy_(m.age_years[rows].nan_to_num(UNKNOWN_AGE_YEARS).clamp(18, 100))
    world.bank_sex_female.copy_(m.sex_female[rows].nan_to_num(0.0))
    if m.treated is not None:
        world.bank_treated.copy_(m.treated[rows])


@torch.no_grad()
def finish_world(
    config: WorldConfig,
    jepa: CardiacJEPA,
    labels: LabelModel,
    m: Monolith,
    out: Path,
    command: str,
    source: str,
    judged: Followed,
) -> tuple[CardiacJEPAWorld, dict[str, float]]:
    """The world around a trained JEPA and label process, saved to `out`.

    Args:
        m: the data; probes are fitted on its training side, everything else is taken from fold 18.
        judged: follow-ups that trained nothing, for the card.
    """
    where = sides(m)
    a, b = where.valid_pairs
    changed = (m.label[a] != m.label[b]).any(1)
    firsts = where.valid[m.days[where.valid] == 0]
    bank, count = min(config.bank, len(firsts)), min(config.pairs, int(changed.sum()))
    config = dataclasses.replace(config, bank=bank, bank_ecgs=min(config.bank_ecgs, bank), pairs=count)
    world = CardiacJEPAWorld(config)
    world.reader.jepa.load_state_dict(jepa.state_dict())
    world.labels.load_state_dict(labels.state_dict())
    world.eval()
    z_train, z = _fit_reader(world.reader, m, where)
    _keep_patients(world, m, _some(firsts, config.bank, 2), z)

    action, days = m.label[b].float() - m.label[a].float(), m.days[b] - m.days[a]
    wrong = z[b] - jepa.eval().predict(z[a], action, days)
    held = jepa.predict(z[a], torch.zeros_like(action), days)
    covariance = wrong.T @ wrong / len(wrong) + 1e-6 * torch.eye(wrong.shape[1])
    world.residual.copy_(torch.linalg.cholesky(covariance))
    world.reach.copy_(z_train.square().sum(-1).sqrt().amax() * REACH_MARGIN)
    keep = _some(changed.nonzero().squeeze(1), config.pairs, 3)
    world.pair_before.copy_(z[a[keep]])
    world.pair_after.copy_(z[b[keep]])
    world.pair_condition.copy_(m.label[a[keep]])
    world.pair_action.copy_(action[keep].to(torch.int8))
    world.pair_days.copy_(days[keep])

    error, without = wrong.square().mean(1), (z[b] - held).square().mean(1)
    chance = world.reader.chances(z[where.valid])
    figures = {
        "probe macro AUROC, validation ECGs": macro_auroc(chance, m.label[where.valid], 10),
        "prediction error, true action / none, changed pairs": float(error[changed].mean() / without[changed].mean()),
        "prediction error (mean square an entry; latents have variance 1)": float(error.mean()),
        "label process, nats a visit": float(labels.loss(judged)),
        "validation ECGs": len(where.valid),
        "validation pairs": len(a),
        "parameters": sum(p.numel() for p in world.parameters()),
    }
    plain = {"kind": KIND, **config.to_dict()}
    card = write_card(config.name, jepa.config, command, source, figures)
    checkpoint.save_checkpoint(out, world.state_dict(), plain, card)
    return world, figures


SIMULATED = """ECGs and charts simulated by the progression oracle (`world_models/oracles/progression/`): the JEPA
learned from pairs of {drawn} patients, synthesised as it trained; the probe from {ecgs} ECGs of {patients} others,
folds 0 to 17 (18 for validation, 19 untouched); the labels' process from visits with orders of {followed} more. Wave
shapes of the oracle were fitted to LUDB 1.0.1 (Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211, ODC-By; 114 of its
160 records), and the leads' fixed scales are medians over all 160. No other use of a real patient's record was made."""
GIVEN = """{name}: {ecgs} ECGs of {patients} patients, {pairs} training pairs, folds 0 to 17 trained on, 18 for
validation, 19 untouched; visits with orders of {followed} simulated patients for the labels. The weights hold latents
of validation patients (a bank and pairs): share them only as the data's licence allows."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m world_models.cardiac_jepa.train", description=__doc__.split("\n")[0])
    p.add_argument("--out", type=command_line.folder, required=True, help="folder of the world to be")
    p.add_argument(
        "--work", type=command_line.folder, default=Path("runs/cardiac-jepa"), help="data, progress and metrics"
    )
    p.add_argument("--data", type=Path, help="an HDF5 monolith (see world_models/data/README.md); default: simulated")
    p.add_argument(
        "--patients",
        type=whole(1),
        default=PATIENTS,
        help="simulated, of the probe and what the world keeps; without --data",
    )
    p.add_argument(
        "--drawn",
        type=whole(1),
        default=PAIRS_PATIENTS,
        help="simulated, whose pairs the JEPA learns from; without --data",
    )
    p.add_argument("--followed", type=whole(1), default=FOLLOWED, help="simulated patients for the labels' process")
    p.add_argument("--preset", choices=("narrow", "xresnet1d50"), default="narrow")
    p.add_argument("--name", default="cardiac-jepa-small")
    p.add_argument("--steps", type=whole(1), default=STEPS, help="of the JEPA")
    p.add_argument("--label-steps", type=whole(1), default=3000, help="of the labels' process")
    p.add_argument("--batch", type=whole(2, MOST_BATCH), default=BATCH, help="pairs")
    p.add_argument("--rate", type=number(0, 10, above=True), default=RATE)
    p.add_argument("--weight", type=float, help="lambda of SIGReg; default: the preset's")
    p.add_argument("--latent", type=int, help="size of z; default: a quarter of the published preset's")
    p.add_argument("--inverse", type=float, help="weight of inverse dynamics; default: 3; 0: none, as published")
    p.add_argument("--action", choices=("embedded", "binary"), help="binary: the published one, without time")
    p.add_argument("--dynamics", choices=("mlp", "ode"), help="ode: a Neural ODE in elapsed time")
    p.add_argument("--reverse", action="store_true", help="also transitions taken back, where nature allows")
    p.add_argument("--chain", type=whole(1, 11), default=1, help="also chains of so many transitions at most")
    p.add_argument("--ptbxl", type=Path, help="folder of PTB-XL: its folds 1 to 6 as single ECGs, unlabelled")
    p.add_argument("--ludb", type=Path, help="folder of LUDB: its odd records likewise")
    p.add_argument("--real-share", type=number(0, 0.9, above=True), default=0.25, help="of a batch: real single ECGs")
    p.add_argument("--device", type=command_line.device, default="cpu")
    p.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    a = _arguments(argv)
    try:
        return _run(a)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check_enough(m: Monolith, where: Sides, path: Path) -> None:
    """Refuse data with a side that nothing can be learned from or judged on, before hours of training.

    Raises:
        ValueError: there are no such rows.
    """
    changed = (m.label[where.valid_pairs[0]] != m.label[where.valid_pairs[1]]).any(1)
    found = {
        "training pairs": len(where.train_pairs[0]),
        "first ECGs of validation patients (fold 18)": int((m.days[where.valid] == 0).sum()),
        "validation pairs whose conditions change": int(changed.sum()),
    }
    lacking = [name for name, count in found.items() if not count]
    if lacking:
        raise ValueError(f"{path} has {len(m.fold)} ECGs and no {', no '.join(lacking)}; take more patients")


def _pairs(a: argparse.Namespace, jepa: JEPAConfig, m: Monolith, where: Sides) -> PairBatches:
    """What the JEPA learns from: simulated pairs, or those of `--data`; with the synthetic ones that were asked for.

    Raises:
        ValueError: too few simulated patients for a pair.
    """
    if a.data is not None:
        first, second = where.train_pairs
        pairs = _with_changes(with_synthetic(first, second, m.label, m.codes, a.reverse, a.chain), m.label)
        return PairSource(m, *pairs[:2], crop=jepa.crop_samples, seed=0, reversed=pairs.reversed)
    visits = tree.to(simulated_visits(a.work / "visits", PAIRS_SEED, a.drawn), a.device)
    if not len(consecutive(visits)):
        raise ValueError(f"the visits of --drawn {a.drawn} patients make no pair; ask for more, some hundreds at least")
    first, second = consecutive(visits).unbind(1)
    pairs = _with_changes(with_synthetic(first, second, visits.condition, CODES, a.reverse, a.chain), visits.condition)
    return SimulatedPairs(visits, *pairs[:2], crop=jepa.crop_samples, reversed=pairs.reversed)


def _with_changes(pairs: Pairs, label: Tensor) -> Pairs:
    """The pairs with those that changed repeated, which way round each is kept."""
    plain = ~pairs.reversed  # reversed ones are all changed: they are part of the share
    first, second = with_changes(pairs.first[plain], pairs.second[plain], label, CHANGED)
    back = torch.zeros(len(first), dtype=torch.bool)
    return Pairs(
        torch.cat([first, pairs.first[~plain]]),
        torch.cat([second, pairs.second[~plain]]),
        torch.cat([back, pairs.reversed[~plain]]),
    )


def _with_real(source: PairBatches, a: argparse.Namespace, jepa: JEPAConfig) -> tuple[PairBatches, str]:
    """The source with single real ECGs where folders of them are given, and what the card says of them.

    Raises:
        ValueError: a folder does not hold what it should.
    """
    if a.ptbxl is None and a.ludb is None:
        return source, ""
    ecg = tuning_ecgs(a.ptbxl, a.ludb)
    singles = SingleECGs(ecg, len(jepa.codes), jepa.crop_samples)
    told = told_sources(len(ecg), a.real_share, a.ptbxl is not None, a.ludb is not None)
    return MixedPairs(source, singles, a.real_share), told


def _run(a: argparse.Namespace) -> int:
    torch.set_num_threads(a.threads)
    jepa = dataclasses.replace(with_inverse(NARROW if a.preset == "narrow" else FULL), name=a.name)
    if a.preset == "narrow" and a.data is None:
        jepa = dataclasses.replace(jepa, dynamics_hidden=DYNAMICS_HIDDEN)
    names = "weight", "latent", "inverse", "action", "dynamics"
    chosen = {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    jepa = dataclasses.replace(jepa, **chosen)
    if a.data is not None and not a.data.is_file():
        raise ValueError(
            f"--data {a.data}: no such file; make one with world_models.data.ecg.mimic_iv_ecg, or leave it out"
        )
    for name in ("ptbxl", "ludb"):
        if getattr(a, name) is not None and not getattr(a, name).is_dir():
            raise ValueError(f"--{name} {getattr(a, name)}: no such folder; correct the path, or leave it out")
    if a.data is None:
        a.work.mkdir(parents=True, exist_ok=True)
    path = a.data or cohort.progression_monolith(a.work / f"progression-{a.patients}.h5", SEED, a.patients)
    try:
        m = on_codes(read_monolith(path))
    except ValueError as error:
        raise ValueError(f"--data {path}: {error}") from None
    jepa = dataclasses.replace(jepa, codes=m.codes)
    where = sides(m)
    _check_enough(m, where, path)
    source, told = _with_real(_pairs(a, jepa, m, where), a, jepa)
    trained = pretrain(jepa, source, a.work / f"jepa-{a.preset}", a.steps, a.batch, a.rate, 0, device=a.device).cpu()
    config = WorldConfig(name=a.name, jepa=jepa.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = LabelModel(m.codes, config.label_hidden)
    seen = cohort.follow_ups(FOLLOW_SEED, a.followed)
    fit_labels(labels, seen, a.work / f"labels-{a.followed}", a.label_steps)
    text = SIMULATED if a.data is None else GIVEN
    text = text.format(
        name=Path(path).name,
        ecgs=len(m.fold),
        patients=len(m.patient.unique()),
        pairs=len(where.train_pairs[0]),
        followed=a.followed,
        drawn=a.drawn,
    )
    text = text.replace(" No other use of a real patient's record was made.", f"\n{told}") if told else text
    given = f"--data {Path(path).name} " if a.data else f"--patients {a.patients} --drawn {a.drawn} "
    command = f"python -m world_models.cardiac_jepa.train {given}"
    command += f"--followed {a.followed} --preset {a.preset} --steps {a.steps} --batch {a.batch} --rate {a.rate:g} "
    command += "".join(f"--{k} {v if isinstance(v, str) else f'{v:g}'} " for k, v in chosen.items())
    command += "--reverse " * a.reverse + f"--chain {a.chain} " * (a.chain > 1)
    command += "".join(f"--{name} DIR " for name in ("ptbxl", "ludb") if getattr(a, name))
    command += f"--real-share {a.real_share:g} " * bool(told) + "--out DIR"
    judged = cohort.follow_ups(VALID_FOLLOW_SEED, 1000)
    _, figures = finish_world(config, trained, labels, m, a.out, command, text, judged)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
