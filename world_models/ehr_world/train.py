"""Make a learned ward: `python -m world_models.ehr_world.train --out DIR [--source ward | --source meds --meds DIR]`.

From the ward, stays are drawn from the oracle once (`ward_rollouts`) and kept as shards in the work folder; from real
stays (`train_records`) they are read through `world_models.data`. Training is resumable: run the same command again.
What is trained is the likelihood of `losses` alone; afterwards the coverage of the predictive intervals is measured on
the validation stays and written into the card, and the table of admissions is filled from training patients.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from world_models import command_line, tree
from world_models.command_line import MOST_BATCH, MOST_THREADS, number, whole
from world_models.data.ehr.cells import DATE_ORDERS
from world_models.ehr_world import vocabulary, ward_rollouts
from world_models.ehr_world.feeder import Feeder, join
from world_models.ehr_world.finish import finish
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.losses import stay_losses
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.vocabulary import Vocabulary
from world_models.training import Schedule, fit

__all__ = ["fresh", "main", "train_net", "ward_stays"]

STEPS, POLISH, BATCH = 3600, 800, 32


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


def fresh(config: SetOutcomeConfig, words: Vocabulary) -> SetOutcome:
    """A network with its first weights, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SetOutcome(config, words)


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
        found = stay_losses(net, feed(step), expected)
        total = found.value + found.copula + 0.3 * found.delay + found.death + found.home
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        if step % 200 == 0 or step + 1 == steps:
            with torch.no_grad():
                metrics |= {f"valid_{n}": float(v) for n, v in stay_losses(net, watch)._asdict().items()}
        return total, metrics

    warm = min(100, max(1, steps // 10))
    # a batch of long stays has a large gradient by right: clipped to one length, early deaths would count for more
    fit(net, loss, Schedule(steps, rate, warm_up=warm, weight_decay=1e-3, clip=10.0, save_every_s=60.0), folder, stage)


WARD_SOURCE = """Simulated stays of the oracle ward (`world_models/oracles/ward/world.py`), charts and orders only: {count}
patients (seeds from {seed} on; validation and test patients have seeds of their own) under the mixed behaviour of
`world_models/ehr_world/ward_rollouts.py`: two of three the rule-based clinician with edited orders (confounding dial
{dial:g}), one of three random menus."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m world_models.ehr_world.train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder of the finished world")
    parser.add_argument("--source", choices=("ward", "meds"), default="ward")
    parser.add_argument("--meds", type=Path, help="MEDS folder, with --source meds")
    parser.add_argument("--tables", type=Path, help="folder of MIMIC-IV tables beside --meds")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="of dates like 02/03/2150 in --tables")
    parser.add_argument("--challenge2012", type=Path, help="folder of its stays, trained on before those of --meds")
    parser.add_argument("--folds", type=whole(1), default=4, help="of the patients of --meds; one is held out; 1: none")
    parser.add_argument("--fold", type=whole(0), default=0)
    parser.add_argument("--init", help="with --source meds: the world (name or folder) to start from")
    parser.add_argument("--work", type=command_line.folder, help="shards and progress; default: OUT with '.work' appended")
    parser.add_argument("--stays", type=whole(1), default=24000, help="training stays drawn from the ward")
    parser.add_argument("--held-out", type=whole(1), default=1000, help="validation stays")
    parser.add_argument("--confounding", type=number(0, 1), default=0.0, help="the clinician's dial, with --source ward")
    parser.add_argument("--steps", type=whole(1), help=f"default {STEPS}; on records: passes that inner folds choose")
    parser.add_argument("--polish", type=whole(0), default=POLISH, help="steps of a second, lower cosine, with --source ward")
    parser.add_argument("--batch", type=whole(1, MOST_BATCH), help=f"default {BATCH}; on records: RecordsRecipe.batch")
    parser.add_argument("--rate", type=number(0, 10, above=True), help="peak learning rate; default 2e-3; on records: RecordsRecipe.rate")
    parser.add_argument("--name", help="default ehr-ward-small, or ehr-mimic-demo-small")
    parser.add_argument("--backbone", choices=("gru", "transformer"), default="gru", help="with --source ward")
    parser.add_argument("--device", type=command_line.device, default="cpu")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.fold < arguments.folds:
        parser.error(f"--fold {arguments.fold} must lie in 0..{arguments.folds - 1}")
    if arguments.source == "meds" and arguments.meds is None:
        parser.error("--source meds needs --meds DIR")
    if arguments.source == "ward":
        for name in ("meds", "tables", "challenge2012", "init"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} {getattr(arguments, name)} goes with --source meds; add that, or leave it out")
    return arguments


def main(argv: list[str] | None = None) -> None:
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    work = a.work or a.out.with_name(a.out.name + ".work")
    try:
        if a.source == "meds":
            from world_models.ehr_world.train_records import from_arguments

            figures = from_arguments(a, work)
        else:
            figures = _on_ward(a, work)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(json.dumps(figures))


def _on_ward(a: argparse.Namespace, work: Path) -> dict[str, float]:
    """Train on stays drawn from the ward; returns the figures of the card."""
    work.mkdir(parents=True, exist_ok=True)
    steps, batch, rate = a.steps or STEPS, a.batch or BATCH, a.rate or 2e-3
    config = dataclasses.replace(SetOutcomeConfig(), name=a.name or "ehr-ward-small", backbone=a.backbone)
    stays, held_out = ward_stays(work, a.stays, a.held_out, a.confounding)
    net = fresh(config, read_or_build(work, stays)).to(a.device)
    source = WARD_SOURCE.format(count=a.stays, seed=ward_rollouts.TRAIN_SEED, dial=a.confounding)
    train_net(net, stays, held_out, steps, batch, work, rate)
    if a.polish:  # a second, lower cosine from the averaged weights
        train_net(net, stays, held_out, a.polish, batch, work, 0.6 * rate, "polish")
    command = "python -m world_models.ehr_world.train --out DIR"
    command += f" --confounding {a.confounding:g}" * (a.confounding > 0) + f" --backbone {a.backbone}" * (a.backbone != "gru")
    return finish(net, stays, held_out, a.out, command, source)[1]


if __name__ == "__main__":
    main()
