"""Make a learned ward: `python -m world_models.ehr_world.train --out DIR [--source ward | --source meds --meds DIR]`.

From the ward, stays are drawn from the oracle once (`ward_rollouts`) and kept as shards in the work folder; from real
stays they are read through `world_models.data`. Training is resumable: run the same command again. What is trained is
the likelihood of `losses` alone; afterwards the coverage of the predictive intervals is measured on the validation
stays and written into the card, and the table of admissions is filled from training patients.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from world_models import checkpoint, keys, tree
from world_models.catalog import weights_folder
from world_models.ehr_world import bins, vocabulary, ward_rollouts
from world_models.ehr_world.card import write_card
from world_models.ehr_world.config import SetOutcomeConfig
from world_models.ehr_world.events import Stays
from world_models.ehr_world.feeder import Feeder, join
from world_models.ehr_world.losses import forced, likelihood, parts
from world_models.ehr_world.model import KIND, EHRWorldModel
from world_models.ehr_world.set_outcome import SetOutcome
from world_models.ehr_world.vocabulary import Vocabulary
from world_models.training import Schedule, fit

__all__ = ["finish", "main", "measure", "train_net", "ward_stays"]

STEPS, POLISH, BATCH = 2200, 500, 32


def ward_stays(work: Path, count: int, held_out: int, confounding: float = 0.0) -> tuple[Stays, Stays]:
    """Training and validation stays from the oracle, made on the first call."""
    mark = "" if confounding == 0 else f"-confounding{confounding:g}"
    parts_ = []
    for name, seed, size in (("train", ward_rollouts.TRAIN_SEED, count), ("valid", ward_rollouts.VALID_SEED, held_out)):
        ward_rollouts.write_shards(work, name + mark, seed, size, confounding, size=min(2000 if name == "train" else 1000, size))
        parts_.append(join(ward_rollouts.read_shards(work, name + mark)))
    return parts_[0], parts_[1]


def read_or_build(work: Path, stays: Stays) -> Vocabulary:
    """The run's vocabulary: written on the first call, read afterwards, so that a resumed run keeps its bins."""
    path = work / "vocabulary.json"
    if path.exists():
        return Vocabulary.from_json(json.loads(path.read_text()))
    made = vocabulary.from_ward([stays])
    path.write_text(json.dumps(made.to_json()))
    return made


def train_net(
    net: SetOutcome, stays: Stays, held_out: Stays, steps: int, batch: int, folder: Path, rate: float = 2e-3,
    stage: str = "outcomes",
) -> None:  # fmt: skip
    """Fit the network to the stays; leaves the averaged weights in it. Resumes from `folder`; a stage that is done there
    is loaded."""
    feed = Feeder(stays, batch, seed=len(stage))
    expected = float(stays.valid.sum()) / len(stays.static) * min(batch, len(stays.static))
    watch = tree.take(held_out, slice(0, 64))
    watch = Stays(*watch[:2], *(x[:, : int(watch.valid.sum(1).amax())] for x in watch[2:]))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        found = parts(net, feed(step), expected)
        total = found.value + found.copula + 0.3 * found.delay + found.death + found.home
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        if step % 200 == 0 or step + 1 == steps:
            with torch.no_grad():
                metrics |= {f"valid_{n}": float(v) for n, v in parts(net, watch)._asdict().items()}
        return total, metrics

    warm = min(100, max(1, steps // 10))
    fit(net, loss, Schedule(steps, rate, warm_up=warm, weight_decay=1e-3, save_every_s=60.0), folder, stage)


@torch.no_grad()
def measure(net: SetOutcome, stays: Stays, batch: int = 50) -> dict[str, float]:
    """Next-step likelihood on these stays, and coverage of the central 80 %: of reports spread evenly over what rounds to
    them, as one rounded number may hold half the mass."""
    there = stays.asked & ~stays.value.isnan()
    grid = [vocabulary.report_grid(stays.value[..., i][there[..., i]].double()) for i in range(there.shape[-1])]
    grid = torch.tensor(grid, device=net.edges.device)
    total = torch.zeros(3, dtype=torch.float64)
    for rows in stays.valid.sum(1).argsort().split(batch):
        part = tree.take(stays, rows)
        part = Stays(*part[:2], *(x[:, : int(part.valid.sum(1).amax())] for x in part[2:]))
        run = forced(net, part)
        log_p, _ = likelihood(net, run)
        here = ~run.z.isnan() & ~net.label[run.item]
        even = keys.uniform(keys.from_seed(1), int(rows[0]), "measure", (len(run.z),))[0].to(grid.device) - 0.5
        near = part.value[run.row, run.place, run.item].nan_to_num(0.0) + even * grid[run.item]
        near = vocabulary.to_z(near, net.scale[run.item])
        near = torch.maximum(torch.minimum(near, run.outcome.edges[:, -1]), run.outcome.edges[:, 0])
        pit = bins.cdf(run.outcome.log_mass.exp(), near, run.outcome.edges)
        inside = (pit[here] > 0.1) & (pit[here] < 0.9)
        total += torch.tensor([float(-log_p[here].sum()), float(inside.sum()), float(here.sum())], dtype=torch.float64)
    nll, inside, count = total.tolist()
    return {"nll": nll / count, "coverage80": inside / count, "values": int(count), "stays": len(stays.static)}


def finish(
    net: SetOutcome, stays: Stays, held_out: Stays, out: Path, command: str, source: str
) -> tuple[EHRWorldModel, dict[str, float]]:
    """The world around a trained network, saved to `out`: admissions, triage and bounds from the training stays."""
    config = dataclasses.replace(net.config, admissions=min(net.config.admissions, len(stays.static)))
    model = EHRWorldModel(config, net.vocabulary)
    model.net.load_state_dict(net.state_dict())
    model = model.to(net.edges.device).eval().requires_grad_(False)
    rows = torch.arange(config.admissions) * (len(stays.static) // config.admissions)
    model.admissions.copy_(stays.static[rows])
    model.triage.copy_(stays.asked[:, 0].float().mean(0))
    model.most_given.fill_(float((stays.given > 0).sum(-1).amax()))
    figures = measure(model.net, held_out)
    figures["parameters"] = sum(p.numel() for p in model.parameters())
    plain = {"kind": KIND, **dataclasses.asdict(config), "vocabulary": net.vocabulary.to_json()}
    checkpoint.save_checkpoint(
        out, model.state_dict(), plain, write_card(config, net.vocabulary, command, source, figures)
    )
    return model, figures


WARD_SOURCE = """Simulated stays of the oracle ward (`world_models/oracles/ward.py`), charts and orders only: {count}
patients (seeds from {seed} on; validation and test patients have seeds of their own) under the mixed behaviour of
`world_models/ehr_world/ward_rollouts.py`: two of three the rule-based clinician with edited orders (confounding dial
{dial:g}), one of three random menus."""


MEDS_SOURCE = """{count} recorded stays ({name}), unfiltered, cut at 14 days, patients held out of
training: fold {fold} of {folds} by patient. Starting point: {init}. MIMIC's open demos stand under the Open Data Commons
Open Database License 1.0 (ODbL): Johnson et al., MIMIC-IV Clinical Database Demo, PhysioNet, doi 10.13026/dp1f-ex47 (k)."""


def meds_stays(a: argparse.Namespace, base: Vocabulary) -> tuple[Vocabulary, Stays, Stays]:
    """The vocabulary, training and validation stays of a MEDS folder, split by patient."""
    from world_models.data.ehr_load import load_episodes
    from world_models.ehr_world.stays import from_episodes, real_vocabulary

    episodes, _ = load_episodes(meds=a.meds, tables=a.tables, hours_per_step=base.hours_per_step)
    subjects = sorted({e.subject_id for e in episodes})
    order = torch.randperm(len(subjects), generator=torch.Generator().manual_seed(0)).tolist()
    out = {subjects[i] for place, i in enumerate(order) if place % a.folds == a.fold}
    stays = from_episodes(base, [e for e in episodes if e.subject_id not in out])
    words = real_vocabulary(base, [stays])
    return words, stays, from_episodes(words, [e for e in episodes if e.subject_id in out])


def start_from(net: SetOutcome, folder: Path) -> list[str]:
    """Copy the weights that fit by name and shape; the names of those that do not. The bins stay the net's own."""
    theirs, _ = checkpoint.load(folder)
    mine, left = dict(net.named_parameters()), []
    with torch.no_grad():
        for name, parameter in mine.items():
            other = theirs.get(f"net.{name}")
            if other is None or other.shape != parameter.shape:
                left.append(name)
            else:
                parameter.copy_(other)
    if len(left) == len(mine):
        raise ValueError(f"no weight of {folder} fits this network; give --init a learned ward of the same sizes")
    return left


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished world")
    parser.add_argument("--source", choices=("ward", "meds"), default="ward")
    parser.add_argument("--meds", type=Path, help="MEDS folder, with --source meds")
    parser.add_argument("--tables", type=Path, help="folder of MIMIC-IV tables beside --meds")
    parser.add_argument("--folds", type=int, default=10, help="of the patients of --meds; one is held out")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--init", type=Path, help="start from the weights of this world, where the items agree")
    parser.add_argument("--work", type=Path, help="shards and progress; default: OUT with '.work' appended")
    parser.add_argument("--stays", type=int, default=12000, help="training stays drawn from the ward")
    parser.add_argument("--held-out", type=int, default=1000, help="validation stays")
    parser.add_argument("--confounding", type=float, default=0.0, help="the clinician's dial, with --source ward")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--polish", type=int, default=POLISH, help="steps of a second, lower cosine")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate; 5e-4 suits --init")
    parser.add_argument("--name", default="ehr-ward-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.fold < arguments.folds:
        parser.error(f"--fold {arguments.fold} must lie in 0..{arguments.folds - 1}")
    if arguments.source == "meds" and arguments.meds is None:
        parser.error("--source meds needs --meds DIR")
    if not (0 <= arguments.confounding <= 1 and math.isfinite(arguments.confounding)):
        parser.error(f"--confounding {arguments.confounding} must lie in 0..1")
    return arguments


def main(argv: list[str] | None = None) -> None:
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    work = a.work or a.out.with_name(a.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(SetOutcomeConfig(), name=a.name)
    command = "python -m world_models.ehr_world.train --out DIR"
    if a.source == "ward":
        stays, held_out = ward_stays(work, a.stays, a.held_out, a.confounding)
        net = SetOutcome(config, read_or_build(work, stays)).to(a.device)
        source = WARD_SOURCE.format(count=a.stays, seed=ward_rollouts.TRAIN_SEED, dial=a.confounding)
    else:
        folder = a.init or weights_folder("ehr-ward-small")
        base = Vocabulary.from_json(checkpoint.read_config(folder)["vocabulary"])
        words, stays, held_out = meds_stays(a, base)
        net = SetOutcome(config, words).to(a.device)
        if a.init:
            left = start_from(net, a.init)
            print(f"weights from {a.init}; not taken over: {left or 'none'}")
        command += f" --source meds --meds MEDS{' --init INIT' if a.init else ''} --folds {a.folds} --fold {a.fold}"
        source = MEDS_SOURCE.format(
            count=len(stays.static) + len(held_out.static), name=a.meds.name, fold=a.fold, folds=a.folds,
            init=a.init.name if a.init else "random weights",
        )  # fmt: skip
    train_net(net, stays, held_out, a.steps, a.batch, work, a.rate)
    if a.polish:  # a second, lower cosine from the averaged weights
        train_net(net, stays, held_out, a.polish, a.batch, work, 0.6 * a.rate, "polish")
    _, figures = finish(net, stays, held_out, a.out, command, source)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
