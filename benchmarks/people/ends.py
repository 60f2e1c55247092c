"""How well worlds tell ends of people, and what charting does to them: `python -m benchmarks.people.ends --data DIR`.

Next step: after each step of a recorded stay, the chance that the patient dies in it, or else leaves. Judged on the
sets whose records tell ends, by patients (in eICU hospitals) kept for the end. Rivals: how often it happened by that
step of the stay among those learned from (the base of the skill), gradient boosting on what the chart says, and the
same told also what was charted how often and when, which is what ends go with in records.

Asked: patients of the world itself for three days without treatment, with nothing charted, each item as often as in the
records learned from, or all of it at every step. What is charted is an agent's own choice: it should not decide who
lives.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common.intervals import (
    Interval,
    bootstrap_macro,
    columns,
    mean_interval,
    percentile_interval,
    resamples,
)
from benchmarks.common.results import made_by, write_csv
from benchmarks.people.boosting import FIXED, PATIENCE, RATES, SIZES, lightgbm
from benchmarks.people.learned import load_world
from benchmarks.people.parts import read_parts
from world_models import command_line, keys, tree
from world_models.ehr_world.people import told_source
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted, trim
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import Vocabulary, to_z

__all__ = ["asked", "main", "rows_of"]

ENDS = ("death", "discharge")
LEAST = 1e-4  # of a chance, for its logarithm
LONGEST = 24  # steps of a stay that have a rate of their own
TREES, CHUNK = 600, 50
HOURS = 4.0  # of a step
PATIENTS, SEED, DAYS_H = 300, 5, 72.0
BASE, POOLED = "rate by step", "all sets"


class Steps(NamedTuple):
    """Steps of stays in which an end could come, [N] each."""

    row: Tensor  # int64
    place: Tensor  # int64
    happened: Tensor  # bool
    owner: Tensor  # int64, the patient or hospital


def steps_of(records: StayRecords, end: str, by_hospital: bool) -> Steps:
    """All later steps of the stays; those of discharge without the ones in which somebody dies."""
    stays = records.stays
    later = stays.valid & (torch.arange(stays.valid.shape[1]) > 0)
    later = later & (stays.alive if end == "discharge" else True)
    row, place = later.nonzero(as_tuple=True)
    happened = (stays.home if end == "discharge" else ~stays.alive)[row, place]
    owner = records.hospital if by_hospital else records.subject
    return Steps(row, place, happened, torch.unique(owner, return_inverse=True)[1][row])


# ---- rivals


def by_time(learn: list[tuple[StayRecords, bool]], end: str) -> Tensor:
    """How often it happened in each of the first steps, [LONGEST]; the last is that of all later ones."""
    found = [steps_of(r, end, of) for r, of in learn]
    place = torch.cat([s.place for s in found]).clamp_max(LONGEST - 1)
    happened = torch.cat([s.happened for s in found]).double()
    counts = torch.zeros(2, LONGEST, dtype=torch.float64).index_add_(
        1, place, torch.stack([happened, happened * 0 + 1])
    )
    usual = happened.mean()
    return (counts[0] + 20.0 * usual) / (counts[1] + 20.0)  # a step that few reach leans on all


def features(words: Vocabulary, stays: Stays, charting: bool) -> Tensor:
    """[B, T, F] last values as the step ends, the patient and the time; `charting`: and ages, whether a value came in
    the step, and how many did in it and in all."""
    chart, static = charted(stays), stays.static[:, : len(words.static)]
    count = stays.value.shape[1]
    z = torch.where(chart.seen, to_z(chart.value, words.scale_table()), float("nan"))
    step = torch.arange(count, dtype=torch.float32).expand(len(static), count).unsqueeze(-1)
    parts = [z, static.unsqueeze(1).expand(-1, count, -1), step]
    if charting:
        came = chart.fresh.float().sum(-1, keepdim=True)
        parts += [torch.where(chart.seen, chart.age, float("nan")), chart.fresh.float(), came, came.cumsum(1)]
    return torch.cat(parts, -1)


def boosted(
    words: Vocabulary,
    learn: list[tuple[StayRecords, bool]],
    valid: list[tuple[StayRecords, bool]],
    end: str,
    told: bool,
) -> Any:
    """A classifier chosen among RATES and SIZES, and stopped, on the patients kept to choose by."""
    lgb = lightgbm()

    def table(parts: list[tuple[StayRecords, bool]]) -> tuple[Any, Any]:
        x, y = [], []
        for records, of in parts:
            at = steps_of(records, end, of)
            x.append(features(words, records.stays, told)[at.row, at.place])
            y.append(at.happened.float())
        return torch.cat(x).numpy(), torch.cat(y).numpy()

    taught, judges, best = table(learn), table(valid), None
    for rate, leaves in itertools.product(RATES, SIZES):
        setting = {**FIXED, "objective": "binary", "metric": "binary_logloss", "learning_rate": rate}
        data = lgb.Dataset(*taught, params={"max_bin": FIXED["max_bin"], "verbosity": -1})
        stop = lgb.early_stopping(PATIENCE, verbose=False)
        watch = [data.create_valid(*judges)]
        model = lgb.train({**setting, "num_leaves": leaves}, data, TREES, valid_sets=watch, callbacks=[stop])
        loss = model.best_score["valid_0"]["binary_logloss"]
        if best is None or loss < best[0]:
            best = (loss, model)
    assert best is not None
    return best[1]


@torch.no_grad()
def by_world(model: EHRWorldModel, records: StayRecords, source: str) -> Tensor:
    """Chances [B, T, 2] of death in the step, and of discharge if alive."""
    stays = told_source(records, model.vocabulary, source).stays
    out = torch.zeros(*stays.valid.shape, 2)
    for rows in stays.valid.sum(1).argsort().split(CHUNK):
        part = trim(tree.take(stays, rows))
        out[rows, : part.valid.shape[1]] = torch.sigmoid(forced(model.net, part).end_logits)
    return out


# ---- figures


def rows_of(at: Steps, said: dict[str, Tensor], number: int) -> list[dict[str, Any]]:
    """A row for each who said chances [N], BASE among them; the same owners are resampled for all."""
    count, y = int(at.owner.max()) + 1, at.happened.double()
    chosen = resamples(count, number)
    times = torch.zeros(number, count, dtype=torch.float64)
    times.scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64))

    def summed(name: str, log: bool) -> Tensor:
        p = said[name].double()
        log_loss = nn.functional.binary_cross_entropy(p.clamp(LEAST, 1 - LEAST), y, reduction="none")
        return torch.zeros(count, dtype=torch.float64).index_add_(0, at.owner, log_loss if log else (p - y) ** 2)

    def skill(name: str, log: bool) -> Interval:
        mine, base = summed(name, log), summed(BASE, log)
        drawn = 1.0 - (times @ mine) / (times @ base)
        return Interval(1.0 - float(mine.sum() / base.sum()), *percentile_interval(drawn))

    out = []
    for name, p in said.items():
        area = bootstrap_macro(p.unsqueeze(1), at.happened.unsqueeze(1), at.owner, number, least=1)
        row = {"model": name, "steps": len(y), "ends": int(y.sum()), "rate": float(y.mean()), "said": float(p.mean())}
        row |= columns("auroc", area.label(0))
        row |= columns("log_skill", skill(name, True)) | columns("brier_skill", skill(name, False))
        out.append(row)
    return out


@torch.no_grad()
def asked(model: EHRWorldModel, label: str, usual: Tensor) -> list[dict[str, Any]]:
    """Shares of the world's own patients who are dead or at home after three days without treatment; `usual` [I] is the
    share of steps in which records chart an item."""
    inquiries, out = len(usual), []
    shares = {"nothing": torch.zeros(inquiries), "as in records": usual, "everything": torch.ones(inquiries)}
    for name, share in shares.items():
        state = model.initial(keys.from_seed(SEED, PATIENTS))
        dice = torch.Generator().manual_seed(SEED)
        for _ in range(round(DAYS_H / model.hours_per_step)):
            orders = torch.zeros(PATIENTS, len(model.orders))
            orders[:, :inquiries] = (torch.rand(PATIENTS, inquiries, generator=dice) < share).float()
            state = model.transition(state, orders)
        row: dict[str, Any] = {"model": label, "asked": name, "patients": PATIENTS, "hours": DAYS_H}
        row |= columns("dead", mean_interval(~state.alive)) | columns("home", mean_interval(state.home))
        out.append(row)
    return out


# ---- the command


def judge(a: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables."""
    worlds = {Path(w).name: load_world(w, HOURS) for w in a.world}
    people = read_parts(a.data, a.work / "stays", HOURS)
    told = {n: of for n, of in people.parts.items() if people.cohorts[n].ends}
    parts = {
        part: [(of[part], people.cohorts[n].by_hospital) for n, of in told.items() if part in of]
        for part in ("learn", "valid")
    }
    tests = {n: (of["test"], people.cohorts[n].by_hospital) for n, of in told.items() if "test" in of}
    chances = {
        n: {w: by_world(m, records, n) for w, m in worlds.items()}
        for n, (records, _) in tqdm(tests.items(), desc="worlds")
    }
    table = []
    for which, end in enumerate(ENDS):
        rate = by_time(parts["learn"], end)
        trees = {
            name: boosted(people.words, parts["learn"], parts["valid"], end, charting)
            for name, charting in (("boosting, values", False), ("boosting, values and charting", True))
        }
        every: list[tuple[Steps, dict[str, Tensor]]] = []
        for source, (records, of) in tests.items():
            at = steps_of(records, end, of)
            said = {BASE: rate[at.place.clamp_max(LONGEST - 1)].float()}
            said |= {w: p[at.row, at.place, which] for w, p in chances[source].items()}
            for name, model in trees.items():
                x = features(people.words, records.stays, name.endswith("charting"))[at.row, at.place]
                said[name] = torch.tensor(model.predict(x.numpy()), dtype=torch.float32)
            every.append((at, said))
            table += [{"end": end, "set": source, **row} for row in rows_of(at, said, a.resamples)]
        at, said = _pooled(every)
        table += [{"end": end, "set": POOLED, **row} for row in rows_of(at, said, a.resamples)]
    learnt = [r.stays for r, _ in parts["learn"]]
    often = sum((s.asked & s.valid.unsqueeze(-1)).sum((0, 1)) for s in learnt)
    usual = torch.as_tensor(often) / sum(int(s.valid.sum()) for s in learnt)
    return {"people_ends": table, "people_ends_asked": [row for n, m in worlds.items() for row in asked(m, n, usual)]}


def _pooled(every: list[tuple[Steps, dict[str, Tensor]]]) -> tuple[Steps, dict[str, Tensor]]:
    owners = [at.owner * len(every) + i for i, (at, _) in enumerate(every)]
    row, place, happened = (torch.cat([at[k] for at, _ in every]) for k in range(3))
    at = Steps(row, place, happened, torch.unique(torch.cat(owners), return_inverse=True)[1])
    return at, {name: torch.cat([said[name] for _, said in every]) for name in every[0][1]}


def main(argv: list[str] | None = None) -> None:
    """The command line; exits with 2 on errors."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.people.ends", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the open sets")
    parser.add_argument("--work", type=command_line.folder, required=True, help="stays, kept between runs")
    parser.add_argument("--world", action="append", required=True, metavar="NAME_OR_DIR", help="several are possible")
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder of the tables")
    parser.add_argument("--resamples", type=command_line.whole(10), default=1000)
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        tables = judge(a)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    made = made_by("benchmarks.people.ends", argv, {"asked": SEED, "bootstrap": 0}, a.world)
    for name, found in tables.items():
        write_csv(a.out / f"{name}.csv", found, made)
        for row in found:
            print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
