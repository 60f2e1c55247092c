"""Cardiac JEPA's tables: `python -m benchmarks.progression.tables --data FILE.h5 --work DIR` (or `--patients N`).

Table 1: supervised end to end, naive self-supervision (patient invariance) and the action-conditioned dynamics, by
linear probe and fine-tuned; triage (first ECG of a stay) and monitoring (all ECGs); a row for the same with inverse
dynamics, as shipped, which the paper does not have. Table 2: at 1 % of the training patients. Table 3: SIGReg against
VICReg. Figure 4: 100, 10 and 1 % of the patients, pre-training restricted too. Macro AUROC over the labels with at
least `--least` ECGs on either side, 95 % intervals from 1,000 resamples of the test patients; differences are paired on
the same ones. A random encoder's probe is the floor. The validation fold chooses the probe's penalty, the best check
of a fine-tuning and the supervised rival's rate, and is the same at every share of the training patients.

Written: PREFIX_table1.csv, _table2.csv, _table3.csv, _figure4.csv and .png, _differences.csv, _labels.csv, _arms.csv,
and _within.csv: whether a patient's own changes are seen, which is what invariance to the patient should lose. Every
arm is kept under --work: the same command goes on where it was stopped, and `--arms` makes some of them elsewhere.
Rows from the paper (MIMIC-IV-ECG, other patients and labels) are marked and compare with nothing. On a GPU the same:
`--device cuda --preset xresnet1d50 --batch 512 --steps 100000`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import Bootstrap, bootstrap_macro, columns, difference, ratio_interval
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.progression.arms import (
    METHODS,
    PRESETS,
    PROBE,
    TUNED,
    WHOLE,
    Arm,
    ArmSettings,
    SplitCohort,
    cohort_of,
    data_mark,
    run_arm,
)
from benchmarks.progression.paper import NAMES, NO_LABELS, NO_PATIENT, PAPER, QUESTIONS, TASKS, figure
from world_models.data.ecg.monolith import read_monolith

__all__ = ["Judged", "judge", "main", "tables"]

FEWEST_CHANGES = 20
Key = tuple[str, str, float]  # method, protocol, share


class Judged:
    """Bootstraps of every (method, protocol, share) on both tasks, and what the arms cost."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, Key], Bootstrap] = {}
        self.arms: dict[tuple[str, float], dict[str, Any]] = {}

    def at(self, key: Key) -> dict[str, Any]:
        """The columns of one row: each task as text, then its figure and interval."""
        told: dict[str, Any] = {title: str(self.found[task, key].macro) for task, title in TASKS.items()}
        for task in TASKS:
            told |= columns(task, self.found[task, key].macro)
        return told

    def has(self, key: Key) -> bool:
        """Whether both tasks were judged."""
        return all((task, key) in self.found for task in TASKS)


def judge(cohort: SplitCohort, arms: dict[tuple[str, float], Arm], number: int, least: int, seed: int = 0) -> Judged:
    """Bootstrap every arm's scores on the test ECGs, all on the same `number` resamples of the patients."""
    m, out = cohort.data, Judged()
    rows: dict[str, Tensor] = {
        "triage": m.first[cohort.test],
        "monitoring": torch.ones(len(cohort.test), dtype=torch.bool),
    }
    for (method, share), arm in arms.items():
        out.arms[method, share] = arm.told
        for protocol, score in arm.scores.items():
            for task, keep in rows.items():
                label, patient = m.label[cohort.test][keep], m.patient[cohort.test][keep]
                out.found[task, (method, protocol, share)] = bootstrap_macro(
                    score[keep], label, patient, number, seed, least
                )
    return out


def _row(judged: Judged, table: str, key: Key, **first: Any) -> dict[str, Any]:
    method, protocol, _ = key
    return {"data": "this run", **first, "method": NAMES[method], "protocol": protocol, **judged.at(key)}


def _published(table: str, key: Key, **first: Any) -> list[dict[str, Any]]:
    found = PAPER.get((table, key[0], key[1]))
    if found is None:
        return []
    told = dict(zip(TASKS.values(), found, strict=True))
    return [{"data": "published, MIMIC-IV-ECG", **first, "method": NAMES[key[0]], "protocol": key[1], **told}]


def _both(*methods: str, share: float = 1.0) -> list[Key]:
    return [(m, p, share) for m in methods for p in (PROBE, TUNED)]


def tables(judged: Judged, shares: list[float]) -> dict[str, list[dict[str, Any]]]:
    """Rows of every CSV but the figure's picture, from whatever arms there are."""
    least = min(shares)
    wanted: dict[str, list[Key]] = {
        "table1": [("supervised", WHOLE, 1.0), *_both("naive", "ours", "inverse"), ("random", PROBE, 1.0)],
        "table2": [("supervised", WHOLE, least), *_both("ours", "inverse", share=least)],
        "table3": _both("vicreg", "ours"),
    }
    out: dict[str, list[dict[str, Any]]] = {}
    for table, keys in wanted.items():
        rows, published = [], []
        for key in keys:
            first: dict[str, Any] = {}
            if table == "table1":
                first = {
                    "labels": "" if key[0] in NO_LABELS else "x",
                    "patient_id": "" if key[0] in NO_PATIENT else "x",
                }
            elif table == "table2":
                first = {"share": least}
            else:
                first = {"regularization": "VICReg" if key[0] == "vicreg" else "SIGReg"}
            if judged.has(key):
                rows.append(_row(judged, table, key, **first))
                published += _published(table, key, **({**first, "share": 0.01} if table == "table2" else first))
        out[table] = rows + published
    out["figure4"] = [
        {"share": share, "train_patients": judged.arms[method, share]["train_patients"]}
        | _row(judged, "figure4", (method, protocol, share))
        for share in sorted(shares, reverse=True)
        for method, protocol, _ in (("supervised", WHOLE, share), *_both("ours", "inverse"))
        if judged.has((method, protocol, share))
    ]
    questions = [*QUESTIONS]
    for share in shares:
        named = f"at {100 * share:g} %: "
        questions += [
            (f"{named}{who} {n} - supervised", (m, p, share), ("supervised", WHOLE, share))
            for m, who in (("ours", "ours"), ("inverse", "inverse dynamics"))
            for n, p in (("fine-tuned", TUNED), ("probe", PROBE))
            if (m, share, p) != ("ours", 1.0, PROBE)
        ]
    out["differences"] = [
        {"difference": name, "task": TASKS[task], **columns("macro_auroc", d), "above_zero": d.low > 0}
        for name, a, b in questions
        if judged.has(a) and judged.has(b)
        for task in TASKS
        for d in (difference(judged.found[task, a], judged.found[task, b]),)
    ]
    out["arms"] = list(judged.arms.values())
    return out


def label_rows(judged: Judged, cohort: SplitCohort) -> list[dict[str, Any]]:
    """AUROC of each label under each arm, monitoring; empty where the test ECGs have one class."""
    counts = cohort.data.label[cohort.test].sum(0).tolist()
    rows = []
    for (task, (method, protocol, share)), found in judged.found.items():
        if task == "monitoring":
            for c, code in enumerate(cohort.data.codes):
                x = found.label(c)
                told = (
                    columns("auroc", x)
                    if x.value == x.value
                    else dict.fromkeys(("auroc", "auroc_low", "auroc_high"), "")
                )
                row = {
                    "method": NAMES[method],
                    "protocol": protocol,
                    "share": share,
                    "code": code,
                    "positives": counts[c],
                }
                rows.append(row | {"in_macro": bool(found.judged[c])} | told)
    return rows


def within_rows(arms: dict[tuple[str, float], Arm], cohort: SplitCohort) -> list[dict[str, Any]]:
    """Of one patient's two ECGs, does the one with the label score higher? What invariance to the patient should lose.

    A row an arm and code with `FEWEST_CHANGES` or more, and one over all changes: share of the test pairs in which the
    label starts or resolves whose scores move the right way (0.5: chance), with the interval of its mean over
    patients."""
    m, at = cohort.data, torch.full((len(cohort.data.patient),), -1)
    at[cohort.test] = torch.arange(len(cohort.test))
    keep = torch.isin(cohort.first, cohort.test)
    first, second = cohort.first[keep], cohort.second[keep]
    change = m.label[second].float() - m.label[first].float()
    rows = []
    for (method, share), arm in arms.items():
        for protocol, score in arm.scores.items():
            right = ((score[at[second]] - score[at[first]]) * change > 0).float()
            for c, code in [*enumerate(m.codes), (slice(None), "all")]:
                where = (change != 0)[:, c].nonzero()
                if len(where) < (1 if code == "all" else FEWEST_CHANGES):
                    continue
                hit, who = right[:, c][(change != 0)[:, c]], m.patient[first][where[:, 0]]
                found = ratio_interval(hit, torch.ones_like(hit), who, 1000, 0)._asdict()
                row = {"method": NAMES[method], "protocol": protocol, "share": share, "code": code, "changes": len(hit)}
                rows.append(row | {f"right_way_{n}": x for n, x in found.items()})
    return rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    s = ArmSettings("")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a monolith (HDF5)")
    parser.add_argument(
        "--patients", type=int, help="without --data: patients of the progression oracle, kept under --work"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the patients, the shares of them, and the training")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=s.preset)
    parser.add_argument("--steps", type=int, default=s.steps, help="of pre-training")
    parser.add_argument("--batch", type=int, default=s.batch)
    parser.add_argument("--rate", type=float, default=s.rate)
    parser.add_argument("--changed", type=float, default=s.changed, help="least share of changed pairs in pre-training")
    parser.add_argument(
        "--finetune-steps", type=int, default=s.finetune_steps, help="of fine-tuning, and of the supervised rival"
    )
    parser.add_argument("--finetune-batch", type=int, default=s.finetune_batch)
    parser.add_argument("--finetune-rate", type=float, default=s.finetune_rate)
    parser.add_argument(
        "--supervised-rates", type=float, nargs="+", default=list(s.supervised_rates), help="validation chooses"
    )
    parser.add_argument(
        "--steps-power", type=float, default=s.steps_power, help="at a share f steps are multiplied by f ** this"
    )
    parser.add_argument("--head", choices=("probe", "shares"), default=s.head, help="where the fine-tuned head starts")
    parser.add_argument("--probe-loss", choices=("bce", "asymmetric"), default=s.probe_loss)
    parser.add_argument("--arms", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.1, 0.01], help="of the training patients")
    parser.add_argument("--resamples", "--draws", type=int, default=1000, help="of the test patients")
    parser.add_argument("--least", type=int, default=10, help="ECGs with and without a label for it to count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of the arms")
    parser.add_argument("--out", type=Path, default=RESULTS / "cardiac_jepa", help="PREFIX of the results")
    a = parser.parse_args(argv)
    if (a.data is None) == (a.patients is None):
        parser.error("give either --data FILE.h5 or --patients N")
    if a.data is not None and not a.data.is_file():
        parser.error(f"{a.data} is no file; check the path")
    if a.patients is not None and a.patients < 100:
        parser.error(f"--patients {a.patients}: at least 100, that all three splits have some")
    if not all(0 < f <= 1 for f in a.fractions):
        parser.error(f"--fractions {a.fractions} must lie in (0, 1]")
    if min(a.steps, a.batch, a.finetune_steps, a.finetune_batch, a.resamples, a.least, a.threads) < 1:
        parser.error("steps, batches, resamples, least and threads must be 1 or more")
    return a


def wanted_arms(methods: list[str], fractions: list[float]) -> list[tuple[str, float]]:
    """Every method on all patients; ours and the supervised at the smaller shares. Cheap ones first."""
    shares = sorted(set(fractions))
    small = [(m, f) for f in shares if f < 1 for m in ("supervised", "ours", "inverse") if m in methods]
    whole = ("random", "supervised", "ours", "naive", "vicreg", "inverse")
    return small + [(m, 1.0) for m in whole if m in methods and 1.0 in shares]


def run(a: argparse.Namespace, told: dict[str, Any]) -> list[Path]:
    """Train what is not trained yet, judge, and write; `told` is what `made_by` says. Returns the paths written."""
    path = a.data
    if path is None:
        from world_models.cardiac_jepa.cohort import progression_monolith

        a.work.mkdir(parents=True, exist_ok=True)
        path = a.work / f"progression-{a.patients}-{a.seed}.h5"
        if not path.exists():
            path = progression_monolith(path, a.seed, a.patients)
    cohort = cohort_of(read_monolith(path))
    settings = ArmSettings(
        data_mark(cohort.data),
        a.preset,
        a.steps,
        a.batch,
        a.rate,
        a.changed,
        a.finetune_steps,
        a.finetune_batch,
        a.finetune_rate,
        a.head,
        tuple(a.supervised_rates),
        steps_power=a.steps_power,
        probe_loss=a.probe_loss,
        seed=a.seed,
    )
    arms = {}
    for method, share in wanted_arms(a.arms, a.fractions):
        print(f"{method} at {100 * share:g} % of the patients", flush=True)
        arms[method, share] = run_arm(cohort, method, share, settings, a.work, a.device)
    judged = judge(cohort, arms, a.resamples, a.least)
    made, written = tables(judged, sorted(set(a.fractions))), []
    made |= {"labels": label_rows(judged, cohort), "within": within_rows(arms, cohort)}
    for row in made["arms"]:
        row |= {"device": a.device, "threads": a.threads} | {k: v for k, v in asdict(settings).items() if k not in row}
        row["supervised_rates"] = " ".join(f"{r:g}" for r in settings.supervised_rates)
    for name, rows in made.items():
        if rows:
            written.append(a.out.with_name(f"{a.out.name}_{name}.csv"))
            write_csv(written[-1], rows, told)
    if made["figure4"]:
        written.append(a.out.with_name(f"{a.out.name}_figure4.png"))
        figure(made["figure4"], written[-1], told)
    for name in ("table1", "table2", "table3", "differences"):
        for row in made[name]:
            print(name, {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    return written


def main(argv: list[str] | None = None) -> int:
    """Train, judge and write. Returns the exit status: 2 for data that cannot be used."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        told = made_by("benchmarks.progression.tables", argv, {"patients, shares, training": a.seed, "bootstrap": 0})
        for path in run(a, told):
            print(path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
