"""Training a rival within a budget of processor time, the same way for every network.

In segments: each goes on where the last one ended (`world_models.training.fit` at a constant rate, weights averaged),
and ends with a score on validation patients; the best segment's weights are kept (early stopping). What a segment cost,
its scoring included, is counted (`benchmarks.common.spent`), and the next one's length is planned from it, so that the
whole lands on the budget. The plan is written before its segment runs: a killed run goes on where it was.

`to_plateau` goes on from there until the validation score no longer falls, for who wants to know what more time gives.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.spent import spending, spent
from benchmarks.ecg_drug.rivals.frame import Scales
from benchmarks.ecg_drug.rivals.network import NetworkRival, PairNetwork, Table, table_of
from world_models import keys
from world_models.ecg_wm.pairs import Pairs
from world_models.files import write_text
from world_models.tensor_file import read_tensors, save_tensors
from world_models.training import Schedule, fit

__all__ = ["RATES", "Trained", "energy_score", "still_falling", "to_plateau", "train", "train_steps", "tuned"]

RATES = (3e-4, 1e-3, 3e-3)  # learning rates that every network is tried with
TUNING_SHARE = 0.15  # of the budget, for each of them
BATCH = 64
SEGMENT_SHARE, LEAST_SCORES = 0.05, 5.0  # of the budget, but at least so many times as long as scoring takes
VALIDATION_MOST, VALIDATION_SAMPLES = 128, 4  # patients and samples of a score
_TRAIN_SEED, _SCORE_SEED = 33_000_000_000, 33_500_000_000
_PATIENCE = 6  # segments without a better score: the plateau
_BETTER = 0.002  # share by which a score must be lower to count
LEAST_LEFT = 0.02  # of a budget, that is worth another segment
_FEW = 6  # steps that are timed for the first plan

Build = Callable[[], PairNetwork]


class Trained(NamedTuple):
    """A trained network and what it took."""

    rival: NetworkRival
    curve: list[dict[str, float]]  # a row a segment: step, cpu_s (from the start), score
    cpu_s: float  # spent on this run
    tuning_cpu_s: float  # and on choosing its learning rate
    rate: float


def energy_score(net: PairNetwork, table: Table) -> float:
    """Mean energy score (Gneiting & Raftery 2007, doi 10.1198/016214506000001437) of a few samples, beat and measures
    each per root of their entries: small when samples are near to what happened and as spread as they should be."""
    count = min(VALIDATION_MOST, len(table.pre))
    own = keys.from_seed(_SCORE_SEED, count, table.pre.device)
    few = Table(*(column[:count] for column in table))
    total = 0.0
    with torch.no_grad():
        drawn = [net.generate(few.pre, few.told, few.drug, keys.fold(own, s)) for s in range(VALIDATION_SAMPLES)]
    for i, seen in enumerate((few.beat, few.measures)):
        samples = torch.stack([d[i].flatten(1) for d in drawn]) / seen[0].numel() ** 0.5
        off = samples - seen.flatten(1) / seen[0].numel() ** 0.5
        apart = (samples.unsqueeze(0) - samples.unsqueeze(1)).norm(dim=-1)
        pairs = VALIDATION_SAMPLES * (VALIDATION_SAMPLES - 1)
        total += float(off.norm(dim=-1).mean() - 0.5 * apart.sum((0, 1)).mean() / pairs)
    return total


class _Run:
    """One network in one folder: `steps` done, segment by segment."""

    def __init__(self, build: Build, pairs: Pairs, validation: Pairs, folder: Path, rate: float):
        self.scales = Scales.of(pairs)
        self.table, self.other = table_of(pairs, self.scales), table_of(validation, self.scales)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights begin alike however often this is called
            self.net = build()
        self.folder, self.rate = folder, rate
        folder.mkdir(parents=True, exist_ok=True)
        self.plan: dict[str, Any] = {"rate": rate, "pairs": pairs.size, "title": self.net.title, "ends": []}
        self.curve: list[dict[str, float]] = []
        self._resume()

    def _resume(self) -> None:
        plan, curve = self.folder / "plan.json", self.folder / "curve.json"
        if plan.is_file():
            told = json.loads(plan.read_text())
            for name in ("rate", "pairs", "title"):
                if told[name] != self.plan[name]:
                    raise ValueError(
                        f"{self.folder} was begun with {name} {told[name]}, not {self.plan[name]}: "
                        "name another folder or delete it"
                    )
            self.plan = told
        if curve.is_file():
            self.curve = json.loads(curve.read_text())

    def cpu_s(self) -> float:
        """Spent so far, all segments together."""
        return sum(spent(self.folder / "spent" / str(i)) for i in range(-1, len(self.plan["ends"])))

    def loss(self, net: PairNetwork, step: int) -> tuple[Tensor, dict[str, float]]:
        """Of the batch that belongs to this step."""
        own = keys.fold(keys.from_seed(_TRAIN_SEED, BATCH, self.table.pre.device), step)
        rows = (keys.uniform(own, 0, "rival/row") * len(self.table.pre)).long().clamp_max(len(self.table.pre) - 1)
        return net.loss(self.table.batch(own, rows), step)

    def timed(self) -> tuple[float, float]:
        """Seconds of processor time of a step, from a few on a copy, and of scoring; they count."""
        path = self.folder / "spent" / "-1"
        known = self.folder / "seconds.json"
        if known.is_file():
            step_s, score_s = json.loads(known.read_text())
            return float(step_s), float(score_s)
        trial = copy.deepcopy(self.net)
        with spending(path):
            self.loss(trial, 0)[0].backward()
            start = time.process_time()
            for step in range(_FEW):
                self.loss(trial, step)[0].backward()
            one = (time.process_time() - start) / _FEW
            start = time.process_time()
            energy_score(trial.eval(), self.other)
            score_s = time.process_time() - start
        write_text(known, json.dumps([one, score_s]))
        return one, score_s

    def segment(self, steps: int) -> float:
        """Trains to the end of the next segment, which is `steps` long where it was not planned yet; its score."""
        number = len(self.curve)
        if number == len(self.plan["ends"]):
            begin = self.plan["ends"][-1] if self.plan["ends"] else 0
            self.plan["ends"].append(begin + steps)
            write_text(self.folder / "plan.json", json.dumps(self.plan))
        end = self.plan["ends"][number]
        with spending(self.folder / "spent" / str(number)):
            self.net.train().requires_grad_(True)
            schedule = Schedule(
                end, self.rate, warm_up=50, weight_decay=self.net.decay, average=0.99, shape="constant",
                first_beta=self.net.first_beta,
            )  # fmt: skip
            fit(self.net, lambda step: self.loss(self.net, step), schedule, self.folder, "net")
            start = time.process_time()
            score = energy_score(self.net.eval(), self.other)
            score_s = time.process_time() - start
        if not self.curve or score < min(row["score"] for row in self.curve):
            save_tensors(self.folder / "best.safetensors", dict(self.net.named_parameters()))
        self.curve.append({"step": float(end), "cpu_s": self.cpu_s(), "score": score, "score_s": score_s})
        write_text(self.folder / "curve.json", json.dumps(self.curve))
        return score

    def trained(self, tuning_cpu_s: float = 0.0) -> Trained:
        """With the weights of the best segment."""
        best, _ = read_tensors(self.folder / "best.safetensors", dict(self.net.named_parameters()))
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                parameter.copy_(best[name])
        return Trained(NetworkRival(copy.deepcopy(self.net), self.scales), list(self.curve), self.cpu_s(),
                       tuning_cpu_s, self.rate)  # fmt: skip


def _within(run: _Run, budget_s: float) -> None:
    """Segments until the budget is spent."""
    known = run.folder / "budget.json"
    if known.is_file() and json.loads(known.read_text()) != budget_s:
        raise ValueError(
            f"{run.folder} was begun with a budget of {json.loads(known.read_text())} s, not {budget_s}: name another "
            "folder or delete it"
        )
    write_text(known, json.dumps(budget_s))
    one, score_s = run.timed()
    while True:
        if len(run.plan["ends"]) > len(run.curve):  # planned before it was killed
            run.segment(0)
            continue
        done, left = len(run.curve), budget_s - run.cpu_s()
        if done:
            last = run.curve[-1]["cpu_s"] - (run.curve[-2]["cpu_s"] if done > 1 else spent(run.folder / "spent" / "-1"))
            length = run.plan["ends"][-1] - (run.plan["ends"][-2] if done > 1 else 0)
            score_s = run.curve[-1]["score_s"]
            one = max(last - score_s, 1e-6) / length
        wanted_s = max(SEGMENT_SHARE * budget_s, LEAST_SCORES * score_s)
        if left - wanted_s < wanted_s + score_s:  # what would be left for one more is less: this is the last
            wanted_s = left - score_s
        fits_s = left - score_s
        if fits_s < one or left < LEAST_LEFT * budget_s:
            return
        run.segment(max(1, int(min(wanted_s, fits_s) / one)))


def train(build: Build, pairs: Pairs, validation: Pairs, folder: Path, budget_s: float, rate: float) -> Trained:
    """A network trained for `budget_s` seconds of processor time at one learning rate; goes on where it was stopped.

    Raises:
        ValueError: the folder was begun with something else.
    """
    run = _Run(build, pairs, validation, folder, rate)
    _within(run, budget_s)
    return run.trained()


def train_steps(
    build: Build, pairs: Pairs, validation: Pairs, folder: Path, steps: int, rate: float, segment: int = 50
) -> Trained:
    """The same by steps: what is to come out equal everywhere, whatever the machine."""
    run = _Run(build, pairs, validation, folder, rate)
    while not run.curve or run.curve[-1]["step"] < steps:
        run.segment(min(segment, steps - int(run.curve[-1]["step"] if run.curve else 0)))
    return run.trained()


def tuned(
    build: Build, pairs: Pairs, validation: Pairs, folder: Path, budget_s: float, rates: tuple[float, ...] = RATES
) -> Trained:
    """The learning rate whose short run scores best on validation patients, then the whole budget at it."""
    found: dict[float, float] = {}
    cost = 0.0
    for rate in rates:
        some = train(build, pairs, validation, folder / f"rate_{rate:g}", TUNING_SHARE * budget_s, rate)
        found[rate] = min(row["score"] for row in some.curve)
        cost += some.cpu_s
    best = min(found, key=lambda r: found[r])
    return train(build, pairs, validation, folder / "whole", budget_s, best)._replace(tuning_cpu_s=cost)


def still_falling(curve: list[dict[str, float]]) -> bool:
    """Whether the last quarter of a run still found a score that is lower by `_BETTER` than all before."""
    at = max(1, len(curve) * 3 // 4)
    before, after = [r["score"] for r in curve[:at]], [r["score"] for r in curve[at:]]
    return bool(after) and min(after) < (1 - _BETTER) * min(before)


def to_plateau(
    build: Build, pairs: Pairs, validation: Pairs, folder: Path, begun: Path, rate: float, most_s: float
) -> Trained:
    """Goes on, in `folder`, from where `train` ended in `begun`, until `_PATIENCE` segments have brought nothing or
    `most_s` seconds of processor time are spent, those before included.

    Raises:
        ValueError: nothing was trained in `begun`.
    """
    if not folder.is_dir():
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        if not (begun / "best.safetensors").is_file():
            raise ValueError(f"{begun} holds no trained network to go on with; train it first")
        shutil.copytree(begun, part)
        part.rename(folder)
    run = _Run(build, pairs, validation, folder, rate)
    ends = run.plan["ends"]
    length = max(b - a for a, b in zip([0, *ends], ends, strict=False))
    while run.cpu_s() < most_s:
        scores = [row["score"] for row in run.curve]
        since = len(scores) - next(i for i, s in enumerate(scores) if s <= min(scores) * (1 + _BETTER))
        if since > _PATIENCE:
            break
        run.segment(length)
    return run.trained()
