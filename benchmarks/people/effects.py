"""What orders do to people, by five estimators on the same decision points, beside the literature, the oracle ward and
learned wards: `python -m benchmarks.people.effects --eicu DIR --meds FILE --tables DIR --mimic3 DIR --out CSV`.

Any of the records will do (`--challenge2019 FILE` has oxygen alone). `questions` says what is asked, of whom and what
is known; `points` what a decision point is; `estimators` how effects are estimated; `judged` when a record cannot tell.
The effect is that on the treated, of the dose they got; beside it stands the same brought to a usual dose, as if it
were proportional. `--world NAME` (several are possible) asks a learned ward at the same treated decision points.
MIMIC-III's demo may share patients with MIMIC-IV's: models are never fitted across records, but "all" may count
somebody twice.

With `--work DIR` decision points and fitted models are kept there, so that a run goes on where it was stopped and a
further world costs its own passes alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.people import figure
from benchmarks.people.estimators import Nuisances, cluster_sums, nuisances, overlap
from benchmarks.people.judged import Asked, rows_of, together
from benchmarks.people.points import Points, decision_points
from benchmarks.people.questions import QUESTIONS, Question, by_name
from benchmarks.people.sources import WITHOUT_TREATMENTS, Record, kept, records_of
from benchmarks.people.worlds import WORLD_POINTS, world_effects
from world_models import catalog, checkpoint
from world_models.ehr_world.set_outcome.world import EHRWorldModel

__all__ = ["ask", "main"]

Worlds = dict[str, tuple[EHRWorldModel, str]]  # name -> world and seal


def ask(record: Record, q: Question, work: Path | None, worlds: Worlds, untreated: int, seed: int) -> Asked | str:
    """A record's answer to a question, or why it has none."""
    if q.order and record.key in WITHOUT_TREATMENTS:
        return "the record holds no treatments"
    points = _points(record, q, work, untreated, seed)
    if points is None:
        return "nobody was treated, or nobody untreated, with the outcome measured"
    settings = [untreated, seed]
    try:
        fitted = _nuisances(record, q, work, points, seed, settings)
    except ValueError as error:
        return str(error)
    treated = points.treated
    return Asked(
        record=record.name,
        sums=cluster_sums(treated, points.outcome, points.baseline, points.cluster, fitted),
        control_sums=_control(record, q, work, points, seed, settings),
        overlap=overlap(treated, points.baseline, fitted),
        treated=int(treated.sum()),
        untreated=int((~treated).sum()),
        patients=len(np.unique(points.subject[treated])),
        clusters=len(np.unique(points.cluster)),
        dose=points.dose[treated],
        after_h=float(points.outcome_after_h[treated].mean()),
        measured=points.measured,
        effects={name: _foretold(record, q, work, points, name, *world, settings) for name, world in worlds.items()},
    )


def _points(record: Record, q: Question, work: Path | None, untreated: int, seed: int) -> Points | None:
    def make() -> dict[str, np.ndarray]:
        several = len({s.hospital for s in record.stays}) > 1
        found = decision_points(q, record.stays, untreated, seed, by_hospital=several)
        return {} if found is None else found._asdict()

    told = kept(work, record, q, "points", [untreated, seed], make)
    return Points(**told) if told else None


def _nuisances(
    record: Record, q: Question, work: Path | None, points: Points, seed: int, settings: list[int]
) -> Nuisances:
    def make() -> dict[str, np.ndarray]:
        p = points
        return nuisances(p.history, p.treated, p.outcome, p.baseline, p.cluster, seed)._asdict()

    return Nuisances(**kept(work, record, q, "nuisances", settings, make))


def _control(
    record: Record, q: Question, work: Path | None, points: Points, seed: int, settings: list[int]
) -> np.ndarray | None:
    """The control outcome's sums, on the points that have it before and after; None: too few have."""
    there = ~np.isnan(points.control) & ~np.isnan(points.control_baseline)
    treated, cluster, history = points.treated[there], points.cluster[there], points.history[there]
    y, before = points.control[there], points.control_baseline[there]

    def make() -> dict[str, np.ndarray]:
        return nuisances(history, treated, y, before, cluster, seed)._asdict()

    try:
        fitted = Nuisances(**kept(work, record, q, "control", settings, make))
    except ValueError:
        return None
    return cluster_sums(treated, y, before, cluster, fitted)


def _foretold(
    record: Record,
    q: Question,
    work: Path | None,
    points: Points,
    name: str,
    model: EHRWorldModel,
    seal: str,
    settings: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """A world's effects at treated points, WORLD_POINTS of them at most, and their clusters."""
    rows = np.flatnonzero(points.treated)
    rows = np.sort(np.random.default_rng(settings[1]).permutation(rows)[:WORLD_POINTS])

    def make() -> dict[str, np.ndarray]:
        return {"effect": world_effects(model, q, points, record.episodes, rows)}

    told = kept(work, record, q, f"world-{Path(name).name}", [*settings, seal, WORLD_POINTS], make)
    return told["effect"], points.cluster[rows]


def _worlds(names: Sequence[str]) -> Worlds:
    out: Worlds = {}
    for name in names:
        model = catalog.load(name)
        if not isinstance(model, EHRWorldModel):
            raise ValueError(f"--world {name} is no learned ward of set outcomes; ehr-mimic-demo-small is one")
        folder = catalog.weights_folder(name) if name in catalog.WORLDS else Path(name)
        out[name] = model, checkpoint.sha256(folder)
    return out


def _answers(records: Sequence[Record], questions: Sequence[Question], a: argparse.Namespace, worlds: Worlds) -> list:
    """The table's rows."""
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=len(records) * len(questions), desc="questions", mininterval=1)
    found: dict[str, list[Asked]] = {q.name: [] for q in questions}
    for record in records:
        for q in questions:
            answer = ask(record, q, a.work, worlds, a.untreated, a.seed)
            bar.update()
            if isinstance(answer, Asked):
                found[q.name].append(answer)
            else:
                rows.append({"question": q.name, "record": record.name, "verdict": f"cannot tell: {answer}"})
    for q in questions:
        parts = found[q.name]
        for answer in [*parts, *([together(parts)] if len(parts) > 1 else [])]:
            rows += rows_of(q, answer)
    bar.close()
    place = {q.name: i for i, q in enumerate(questions)}
    return sorted(rows, key=lambda r: place[r["question"]])


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--eicu", type=Path, help="folder of eICU's tables")
    parser.add_argument("--meds", type=Path, help="MEDS events of MIMIC-IV, a file or a folder")
    parser.add_argument("--tables", type=Path, help="MIMIC-IV's own tables beside them: doses and routes")
    parser.add_argument("--mimic3", type=Path, help="folder of MIMIC-III's tables")
    parser.add_argument("--challenge2019", type=Path, help="table of the PhysioNet Challenge 2019: oxygen alone")
    parser.add_argument("--questions", nargs="+", metavar="ORDER", help="only these; default all")
    parser.add_argument("--world", nargs="*", default=["ehr-icu-small"], help="learned wards: names or folders")
    parser.add_argument("--untreated", type=int, default=12_000, help="untreated points of a question, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the draw, the folds and the trees")
    parser.add_argument("--work", type=Path, help="folder to keep decision points and fitted models in")
    parser.add_argument("--out", type=Path, default=RESULTS / "people_effects.csv", help="CSV; the figure beside it")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(argv)
    if a.untreated < 100:
        parser.error(f"--untreated {a.untreated} must be 100 at least, or there is nobody to compare with")
    if a.threads < 1:
        parser.error(f"--threads {a.threads} must be 1 or more")
    try:
        a.records = records_of(a.eicu, a.meds, a.tables, a.mimic3, a.challenge2019)
        a.asked = [by_name(n) for n in a.questions] if a.questions else list(QUESTIONS)
        a.worlds = _worlds(a.world)
    except (ValueError, OSError, KeyError) as error:
        parser.error(str(error))
    return a


def main(argv: list[str] | None = None) -> int:
    """Print the table, write it and the figure."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    from world_models.data.ehr.tables import EhrDataError
    from world_models.data.ehr.units import UnitError

    try:
        rows = _answers(a.records, a.asked, a, a.worlds)
    except (EhrDataError, UnitError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = made_by("benchmarks.people.effects", argv, {"draw, folds and trees": a.seed}, ["ward-oracle", *a.world])
    write_csv(a.out, rows, made)
    figure.draw(rows, a.out.with_suffix(".png"), made)
    print("\n".join(figure.lines(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
