"""Rivals of the learned ward that are no language models, each trained within the same processor time.

`set_outcome` is trained by `world_models.ehr_world.train`'s own code on as many steps as the budget allows: a few steps
are timed first, and count. Gradient boosting has one model an item and level (0.1, 0.5, 0.9), from the chart before the
step, ages, the step's doses and those of the last day, and static context; between its levels stands a split normal
distribution. The network goes on where it was stopped; the time spent is kept in `spent.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.spent import spending
from benchmarks.ward.fidelity_tables import by_length
from benchmarks.ward.scores import LEVELS
from benchmarks.ward.slots import Known, SlotPrediction, Slots
from world_models import keys
from world_models.ehr_world.feeder import Feeder
from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.copula import latent, log_copula
from world_models.ehr_world.set_outcome.losses import forced, likelihood, normal_score, stay_losses
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.train import fresh, train_net
from world_models.ehr_world.vocabulary import Vocabulary, from_z, log_slope, to_z
from world_models.files import write_text

__all__ = ["Boosting", "budget_steps", "by_net", "train_set_outcome", "untold"]

JOINT_SAMPLES = 16  # joint samples for the energy score
TRIAL = 40  # steps timed before training, at most: batches are of very different lengths


def budget_steps(folder: Path, budget_s: float, work: Callable[[int], None], used_s: float = 0.0) -> int:
    """Steps that `budget_s` seconds of processor time hold, from a few of them that are timed; kept in the folder, so
    that a resumed run has the same schedule; `used_s` of it are spent already.

    Raises:
        ValueError: the folder was begun with another budget.
    """
    path = folder / "steps.json"
    if path.exists():
        saved = json.loads(path.read_text())
        if saved["budget_s"] != budget_s:
            raise ValueError(
                f"{folder} was trained for {saved['budget_s']} s, not {budget_s}: name another folder or delete it"
            )
        return int(saved["steps"])
    first = time.process_time()
    work(0)  # the first one also sets things up
    start, done = time.process_time(), 0
    while done < TRIAL and (done == 0 or time.process_time() - start < 0.05 * budget_s):
        done += 1
        work(done)
    one = (time.process_time() - start) / done
    steps = max(1, int((budget_s - used_s - (time.process_time() - first)) / one))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"budget_s": budget_s, "steps": steps, "second_a_step": one}))
    return steps


# ---- set_outcome


def train_set_outcome(
    stays: Stays,
    held_out: Stays,
    words: Vocabulary,
    folder: Path,
    budget_s: float,
    batch: int = 32,
    rate: float = 2e-3,
    init: dict[str, Tensor] | None = None,
    **sizes: Any,
) -> SetOutcome:
    """A network of the standard sizes (but `sizes`), trained for `budget_s` seconds of processor time.

    Args:
        init: weights to start from, by name; those that fit in shape are taken.
    """
    net, trial = (fresh(dataclasses.replace(SetOutcomeConfig(), **sizes), words) for _ in range(2))
    if init is not None:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name in init and init[name].shape == parameter.shape:
                    parameter.copy_(init[name])
    feed = Feeder(stays, batch, seed=1)

    def work(step: int) -> None:
        found = stay_losses(trial, feed(step))
        (found.value + found.copula + found.delay + found.death + found.home).backward()

    with spending(folder):
        steps = budget_steps(folder, budget_s, work)
        train_net(net, stays, held_out, steps, batch, folder, rate)
    return net.eval().requires_grad_(False)


def untold(net: SetOutcome, stays: Stays) -> Stays:
    """The stays with what the network may be told of them besides: their source, not told."""
    more = len(net.vocabulary.static) - stays.static.shape[1]
    return stays._replace(static=torch.nn.functional.pad(stays.static, (0, more), value=float("nan")))


@torch.no_grad()
def by_net(net: SetOutcome, stays: Stays, slots: Slots, known: Known, chunk: int = 100) -> SlotPrediction:
    """What a set_outcome network says of slots of these stays, on the scales that are `known`: next step, from the
    true history."""
    count, items = stays.value.shape[1:]

    def number(row: Tensor, place: Tensor, item: Tensor) -> Tensor:
        return (row * count + place) * items + item

    where = number(slots.row, slots.place, slots.item)
    size, width, rank = len(where), net.vocabulary.bins, net.config.rank
    mass, edges, loading = torch.zeros(size, width), torch.zeros(size, width + 1), torch.zeros(size, rank)
    nll, pit = torch.zeros(size), torch.zeros(size)
    around = bins.Around(torch.zeros(size), torch.ones(size), torch.zeros(size))
    for rows, part in by_length(stays, chunk):
        run = forced(net, part)
        log_p, u = likelihood(net, run)
        slot = number(rows[run.row], run.place, run.item)
        at = torch.searchsorted(where, slot).clamp_max(size - 1)
        hit = where[at] == slot
        at = at[hit]
        mass[at], edges[at], loading[at] = (
            run.outcome.marginal.log_mass[hit].exp(),
            run.outcome.marginal.edges[hit],
            run.outcome.loading[hit],
        )
        nll[at], pit[at] = -log_p[hit], u[hit]
        for mine, its in zip(around, run.outcome.marginal.around, strict=True):
            mine[at] = its[hit]
    own, common = net.scale[slots.item], known.scale[slots.item]
    label = known.label[slots.item]

    def moved(z: Tensor) -> Tensor:
        """From the network's scales [N] or [N, Q]."""
        mine, theirs = (own, common) if z.ndim == 1 else (own.unsqueeze(1), common.unsqueeze(1))
        return torch.where(label if z.ndim == 1 else label.unsqueeze(1), z, to_z(from_z(z, mine), theirs))

    nll += torch.where(label, 0.0, log_slope(slots.y, common) - log_slope(slots.y, own))
    q = moved(bins.quantile(mass, LEVELS.expand(size, -1), edges, around))
    point = torch.where(label, mass.argmax(-1).float(), from_z(q[:, 9], common))
    number_only = ~label
    groups = int(slots.group.max()) + 1
    copula = torch.zeros(groups)
    if rank:
        copula = log_copula(normal_score(pit[number_only]), loading[number_only], slots.group[number_only], groups)
    held = torch.zeros(groups).index_add(0, slots.group[number_only], torch.ones(int(number_only.sum())))
    joint = nll - (copula / held.clamp_min(1))[slots.group]
    key, paths = keys.from_seed(77, 1), []
    for p in range(JOINT_SAMPLES):
        luck = keys.normal(key, p, "own", (size,))[0]
        shared = keys.normal(key, p, "shared", (groups, max(1, rank)))[0][slots.group, :rank]
        paths.append(moved(bins.quantile(mass, torch.special.ndtr(latent(loading, shared, luck)), edges, around)))
    return SlotPrediction(point, q, nll, None, torch.stack(paths), joint)


# ---- gradient boosting


def features(stays: Stays, known: Known) -> Tensor:
    """[B, T, F] of every position: the chart before it, ages, its doses and those of the last day, static context,
    time. What is not known is NaN, which the trees take as it is."""
    chart = charted(stays)

    def late(x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:, :1], float("nan")), x[:, :-1]], 1)

    nan = float("nan")
    value = late(torch.where(chart.seen, to_z(chart.value, known.scale), nan))
    age = late(torch.where(chart.seen, chart.age + 1, nan))
    total = stays.given.cumsum(1)
    day = total - torch.cat([torch.zeros_like(total[:, :6]), total[:, :-6]], 1)[:, : total.shape[1]]
    count = stays.value.shape[1]
    static = stays.static.unsqueeze(1).expand(-1, count, -1)
    step = torch.arange(count, dtype=torch.float32).view(1, -1, 1).expand(len(static), -1, 1)
    return torch.cat([value, age, stays.given, day, static, step], -1)


class Boosting:
    """Gradient boosting for each item, at three levels; a classifier for a culture."""

    levels = (0.5, 0.1, 0.9)

    def __init__(self, known: Known, models: list[list[Any]]) -> None:
        self.known, self.models = known, models

    @classmethod
    def train(cls, stays: Stays, known: Known, folder: Path, budget_s: float, rows: int = 30_000) -> Boosting:
        """Every item has an equal share of what is left of the budget; a first small model says how many trees that
        is."""
        items = len(known.scale)
        models: list[list[Any]] = []
        (folder / "spent.json").unlink(
            missing_ok=True
        )  # the trees are not kept: what an earlier run spent left nothing
        start = time.process_time()
        with spending(folder), _one_thread():
            x = None
            for item in tqdm(range(items), desc="gradient boosting", mininterval=1):
                if x is None:
                    x = features(stays, known)
                left = budget_s - (time.process_time() - start)
                models.append(cls._one(stays, known, x, item, left / (items - item), rows))
        return cls(known, models)

    @classmethod
    def _one(cls, stays: Stays, known: Known, x: Tensor, item: int, share_s: float, most: int) -> list[Any]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        row, place = (stays.asked[..., item] & ~stays.value[..., item].isnan()).nonzero(as_tuple=True)
        later = place > 0
        row, place = row[later], place[later]
        pick = torch.randperm(len(row), generator=torch.Generator().manual_seed(item))[:most]
        row, place = row[pick], place[pick]
        y = stays.value[row, place, item]
        if len(row) < 20 or float(y.min()) == float(y.max()):
            return []
        table = x[row, place].numpy()
        table[:, np.isnan(table).all(0)] = 0.0  # what is never known (scikit-learn's bins need a value)
        same = {"learning_rate": 0.1, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False, "random_state": 0}
        if bool(known.label[item]):
            return [HistGradientBoostingClassifier(max_iter=30, **same).fit(table, y.long().numpy())]
        # the change against the last charted value: a sum of trees is slow to learn what stays as it was
        target = to_z(y, known.scale[item]).numpy() - np.nan_to_num(table[:, item])
        took = []
        for trees in (1, 6):
            begin = time.process_time()
            HistGradientBoostingRegressor(loss="quantile", quantile=0.5, max_iter=trees, **same).fit(table, target)
            took.append(time.process_time() - begin)
        one = max(took[1] - took[0], 0.005) / 5
        trees = int(max(5, min(400, (share_s - sum(took)) / len(cls.levels) / one - took[0] / one)))
        same["learning_rate"] = min(0.4, max(0.06, 6.0 / trees))  # few trees have far to go each
        return [
            HistGradientBoostingRegressor(loss="quantile", quantile=q, max_iter=trees, **same).fit(table, target)
            for q in cls.levels
        ]

    def ends(self, x: Tensor, item: int) -> Tensor:
        """[N, 3]: median and widths below and above it (one SD) on the z scale; of a label [N, 1], its class."""
        models = self.models[item]
        if not models:
            middle = to_z(self.known.median[item], self.known.scale[item])
            return torch.stack(
                [torch.where(x[:, item].isnan(), middle, x[:, item]), torch.ones(len(x)), torch.ones(len(x))], -1
            )
        told = [torch.from_numpy(np.asarray(m.predict(x.numpy()), dtype=np.float32)) for m in models]
        if bool(self.known.label[item]):
            return told[0].unsqueeze(-1)
        far, last = 1.2816, x[:, item].nan_to_num(0.0)
        return torch.stack(
            [last + told[0], ((told[0] - told[1]) / far).clamp_min(0.02), ((told[2] - told[0]) / far).clamp_min(0.02)],
            -1,
        )

    def predict(self, stays: Stays, slots: Slots) -> SlotPrediction:
        """Next step, from the true history."""
        known = self.known
        x = features(stays, known)[slots.row, slots.place]
        z, y = torch.zeros(len(x), 3), known.z(slots)
        point = torch.zeros(len(x))
        with _one_thread():
            for item in slots.item.unique().tolist():
                here = slots.item == item
                told = self.ends(x[here], item)
                if known.label[item]:
                    point[here] = told[:, 0] if self.models[item] else 0.0
                else:
                    z[here] = told
        number = ~known.label[slots.item]
        point[number] = from_z(z[number, 0], known.scale[slots.item[number]])
        error = y - z[:, 0]
        width = torch.where(error < 0, z[:, 1], z[:, 2]).clamp_min(1e-3)
        nll = 0.5 * (error / width).square() + width.log() + 0.5 * math.log(2 * math.pi)
        score = torch.erfinv(2 * LEVELS - 1) * math.sqrt(2.0)
        q = z[:, :1] + torch.where(score < 0, z[:, 1:2], z[:, 2:3]) * score
        drawn = keys.normal(keys.from_seed(78, 1), 0, "boosting", (JOINT_SAMPLES, len(x)))[0]
        paths = z[:, 0] + torch.where(drawn < 0, z[:, 1], z[:, 2]) * drawn
        return SlotPrediction(point, q, nll, None, paths, nll)

    def simulate(self, part: Stays, begin: int) -> Tensor:
        """Outcomes [1, B, T, I] of one path by medians: its own values are charted when the record's were."""
        own = part._replace(value=part.value.clone())
        own.value[:, begin + 1 :] = float("nan")
        with _one_thread():
            for t in range(begin + 1, part.value.shape[1]):
                came = part.asked[:, t] & ~part.value[:, t].isnan()
                now = Stays(*own[:2], *(v[:, : t + 1] for v in own[2:]))
                x = features(now, self.known)[:, t]
                for item in came.any(0).nonzero()[:, 0].tolist():
                    rows = came[:, item].nonzero()[:, 0]
                    told = self.ends(x[rows], item)[:, 0]
                    if self.known.label[item]:
                        told = told if self.models[item] else told * 0
                    else:
                        told = from_z(told, self.known.scale[item])
                    own.value[rows, t, item] = told
        return torch.where(part.asked, own.value, float("nan")).unsqueeze(0)


@contextmanager
def _one_thread():
    """scikit-learn's own threads held to torch's number, so that processor time is what it says."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        yield
