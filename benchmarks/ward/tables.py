"""EHRWorld's tables with rivals of one budget: `python -m benchmarks.ward.tables --work SHARDS --runs DIR`.

On the oracle ward, and with --meds on recorded stays (one fold of the patients held out; rivals start from their ward
weights). Everyone trained has the same `--budget` of processor time on one thread; "shipped" is the catalogued world.
Results `PREFIX_table1.csv` (both settings, the paper's columns and those it lacks), `_table2.csv` (next step, full
trajectory, retention in percent), `_figure3.csv` and `.png` (all values against those that moved by over 25 %),
`_efficiency.csv` (from `benchmarks.ward.speed`), `_hyperparameters.csv`. Predictions are kept under --runs: the same
command goes on where it was stopped. Points are medians: of a language model's few samples, of 8 paths of a set_outcome
world, of one path of medians for boosting. Rows marked "other data" are the paper's own figures and compare with
nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.common.spent import spending, spent
from benchmarks.ward import rivals_lm as lms
from benchmarks.ward.fidelity_tables import clip, simulate
from benchmarks.ward.paper_tables import efficiency, figure, figure_rows, hyperparameters, paper_rows, retention
from benchmarks.ward.rivals import Boosting, by_net, train_set_outcome, untold
from benchmarks.ward.slots import (
    BASELINES,
    Known,
    SlotPrediction,
    Slots,
    all_slots,
    from_paths,
    score,
    simple,
    some_slots,
)
from world_models import catalog, checkpoint, tree
from world_models.ehr_world import records, ward_rollouts
from world_models.ehr_world.episode_tensors import real_vocabulary
from world_models.ehr_world.feeder import join
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import to_z

BEGIN = 1  # positions 0 and 1 are given to a full trajectory
RIVALS = ("set_outcome", "boosting", "quantile", "text")


class Field(NamedTuple):
    """Where rivals meet."""

    data: str
    known: Known
    train: Stays
    held: Stays
    judged: Stays
    slots: Slots
    part: Stays  # of the full trajectory
    full: Slots
    runs: Path
    budget: float
    starts: Path | None  # folder of the rivals' ward weights


def ward_field(a: argparse.Namespace, model: EHRWorldModel) -> Field:
    """The oracle ward as a field: training, validation and judged stays.

    Raises:
        SystemExit: there are no training stays.
    """
    paths = sorted(a.work.glob("train-*.safetensors"))
    if not paths:
        raise SystemExit(
            f"{a.work} holds no train-*.safetensors; make them: python -m world_models.ehr_world.train --out DIR"
        )
    shards, have = [], 0
    for path in paths:
        if have >= a.stays:
            break
        shards.append(Stays(**load_file(path)))
        have += len(shards[-1].static)
    train = join(shards)
    held = join(ward_rollouts.read_shards(a.work, "valid"))
    seed = {"test": ward_rollouts.TEST_SEED, "valid": ward_rollouts.VALID_SEED}[a.split]
    if a.split == "test" and not list(a.work.glob("test-*.safetensors")):
        ward_rollouts.write_shards(a.work, "test", seed, 2000, size=2000)
    stays = join(ward_rollouts.read_shards(a.work, a.split))
    known = Known(model.vocabulary, shards[0])
    return _field(
        a, "oracle ward", known, train, tree.take(held, slice(-256, None)), stays, a.runs / "ward", a.budget, None
    )


def records_field(a: argparse.Namespace, model: EHRWorldModel) -> Field:
    """Recorded stays as a field, one fold of the patients held out."""
    found, _ = records.read_records(model.vocabulary, a.runs, a.meds, a.tables)
    out = records.fold_of(found.subject, a.folds) == a.fold
    train, test = tree.take(found.stays, ~out), tree.take(found.stays, out)
    known = Known(real_vocabulary(model.vocabulary, [train]), train)
    name, folder = f"{a.meds.name}, fold {a.fold} of {a.folds}", a.runs / f"records-{a.fold}-{a.folds}"
    return _field(a, name, known, train, train, test, folder, a.records_budget, a.runs / "ward")


def _field(
    a: argparse.Namespace,
    data: str,
    known: Known,
    train: Stays,
    held: Stays,
    stays: Stays,
    runs: Path,
    budget: float,
    starts: Path | None,
) -> Field:
    judged = tree.take(stays, slice(0, a.patients))
    long = (judged.valid.sum(1) > BEGIN + 2).nonzero()[: a.full_patients, 0]
    part = clip(tree.take(judged, long), a.days * 6)
    runs.mkdir(parents=True, exist_ok=True)
    return Field(
        data,
        known,
        train,
        held,
        judged,
        some_slots(judged, known.label, a.slots, a.seed),
        part,
        all_slots(part, BEGIN),
        runs,
        budget,
        starts,
    )


def kept(field: Field, name: str, mark: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` gives, kept under the runs; `mark` says what it depends on."""
    count = f"{len(field.slots.y)} {float(field.slots.y.double().sum())} {len(field.full.y)} {field.budget} {mark}"
    path = field.runs / f"said-{name}-{hashlib.sha256(count.encode()).hexdigest()[:10]}.safetensors"
    if not path.exists():
        with spending(field.runs / f"said-{name}"):
            checkpoint.save_tensors(path, {n: x.clone() for n, x in make().items()})  # two names may share one tensor
    return load_file(path)


def at_slots(field: Field, paths: Tensor) -> SlotPrediction:
    """Paths [P, B, T, I] of own outcomes at the slots of the full trajectory."""
    drawn = paths[:, field.full.row, field.full.place, field.full.item]
    label = field.known.label[field.full.item]
    # a path refuses an order while its own earlier specimen is out: there the other paths' median stands for it
    drawn = torch.where(drawn.isnan(), drawn.nanmedian(0).values, drawn)
    z = to_z(drawn, field.known.scale[field.full.item])
    z[:, label] = drawn[:, label]
    return from_paths(z, field.full, field.known)


def world_of(net: SetOutcome, name: str) -> EHRWorldModel:
    """A world around a trained network."""
    model = EHRWorldModel(net.config, net.vocabulary)
    model.net.load_state_dict(net.state_dict())
    model.name = name
    return model.eval().requires_grad_(False)


def judge_net(
    field: Field, name: str, net: SetOutcome, mark: str, full: bool = True
) -> list[tuple[str, Slots, SlotPrediction]]:
    """Next step and, with `full`, full trajectory of a set_outcome network: (setting, slots, prediction) each."""
    judged, part = untold(net, field.judged), untold(net, field.part)
    said = kept(field, f"{name}-next", mark, lambda: by_net(net, judged, field.slots, field.known).save())
    out = [("next_step", field.slots, SlotPrediction(**said))]
    if full:
        given = records.cut(part, BEGIN)
        made = kept(field, f"{name}-full", mark, lambda: {"paths": simulate(world_of(net, name), part, given, BEGIN)})
        out.append(("full_trajectory", field.full, at_slots(field, made["paths"])))
    return out


def judge_lm(
    field: Field, form: str, a: argparse.Namespace, init: Path | None
) -> list[tuple[str, Slots, SlotPrediction]]:
    """The same of a language model, trained if it is not yet; `init`: folder of one to start from."""
    lm = lms.train_lm(
        field.train, field.runs / form, field.budget, form, init=init, rate=None if init is None else 5e-4
    )
    paths, few = (a.paths_text, a.full_paths_text) if form == "text" else (a.paths_quantile, a.full_paths_quantile)
    said = kept(
        field,
        f"{form}-next",
        f"{paths}",
        lambda: lms.next_step(lm, field.judged, field.slots, field.known, paths).save(),
    )
    made = kept(
        field, f"{form}-full", f"{few}", lambda: {"paths": lms.simulate(lm, field.part, BEGIN, field.known, few)}
    )
    return [
        ("next_step", field.slots, SlotPrediction(**said)),
        ("full_trajectory", field.full, at_slots(field, made["paths"])),
    ]


def all_rows(field: Field, a: argparse.Namespace, shipped: EHRWorldModel | None) -> list[dict[str, Any]]:
    """Rows of both settings."""
    rows: list[dict[str, Any]] = []
    know = field.known

    def add(
        name: str, found: list[tuple[str, Slots, SlotPrediction]], budget: float | str = "", remark: str = ""
    ) -> None:
        for setting, slots, said in found:
            row = {"data": field.data, "setting": setting}
            row |= score(name, slots, said, know, setting == "full_trajectory") | {"cpu_s": budget, "remark": remark}
            stays = field.judged if setting == "next_step" else field.part
            rows.append(
                row | {"patients": len(stays.static), "horizon_h": "" if setting == "next_step" else a.days * 24}
            )

    if shipped is not None:
        add(f"{shipped.name} (shipped)", judge_net(field, "shipped", shipped.net, shipped.weights_sha256), "its own")
    if "set_outcome" in a.rivals:
        init = _ward_weights(field, "set_outcome")
        folder, rate = field.runs / "set_outcome", 2e-3 if init is None else 5e-4
        net = train_set_outcome(field.train, field.held, know.words, folder, field.budget, init=init, rate=rate)
        add("set_outcome, equal budget", judge_net(field, "set_outcome", net, ""), spent(folder))
    for form, name in (("text", "causal_lm, text"), ("quantile", "causal_lm, quantile tokens")):
        if form in a.rivals:
            few = {"text": (a.paths_text, a.full_paths_text), "quantile": (a.paths_quantile, a.full_paths_quantile)}[
                form
            ]
            found = judge_lm(field, form, a, field.starts / form if field.starts else None)
            add(name, found, spent(field.runs / form), f"median of {few[0]} draws; full trajectory: of {few[1]} paths")
    if "boosting" in a.rivals:
        trees = cache(lambda: Boosting.train(field.train, know, field.runs / "boosting", field.budget))
        said = kept(field, "boosting-next", "", lambda: trees().predict(field.judged, field.slots).save())
        path = kept(field, "boosting-full", "", lambda: {"paths": trees().simulate(field.part, BEGIN)})["paths"]
        told = [("next_step", field.slots, SlotPrediction(**said))]
        told.append(("full_trajectory", field.full, at_slots(field, path)))
        add("gradient boosting an item", told, spent(field.runs / "boosting"), "full trajectory: one path of medians")
    for name in BASELINES:
        told = [("next_step", field.slots, simple(name, field.slots, know))]
        told.append(("full_trajectory", field.full, simple(name, field.full, know, True)))
        add(name, told, 0.0, "full trajectory: the last one given" if name == "last_value" else "")
    if a.naive:
        try:
            said, slots, missing = lms.naive(field.judged, field.slots, know, a.naive, a.threads)
            remark = f"{len(slots.y)} outcomes; {missing} without a usable answer count as wrong"
            add("SmolLM2-135M, prompt only", [("next_step", slots, said)], "", remark)
            add("last_value (those outcomes)", [("next_step", slots, simple("last_value", slots, know))], 0.0)
        except ImportError as error:
            rows.append(
                {
                    "data": field.data,
                    "setting": "next_step",
                    "model": "SmolLM2-135M, prompt only",
                    "remark": f"not run: {error}",
                }
            )
    return rows


def _ward_weights(field: Field, name: str) -> dict[str, Tensor] | None:
    """The last averaged weights of a rival's training on the ward, by name."""
    if field.starts is None:
        return None
    from world_models.ehr_world.set_outcome.config import SetOutcomeConfig

    tensors = load_file(field.starts / name / "outcomes.safetensors")
    names = [n for n, p in SetOutcome(SetOutcomeConfig(), field.known.words).named_parameters() if p.requires_grad]
    return {n: tensors[f"average.{i}"] for i, n in enumerate(names)}


def sweep(field: Field, a: argparse.Namespace) -> list[dict[str, Any]]:
    """Next step of set_outcome at other sizes and rates, `--sweep` seconds each."""
    from world_models.ehr_world.set_outcome.config import SetOutcomeConfig

    known_fields = SetOutcomeConfig.__dataclass_fields__
    runs: list[tuple[str, str, dict[str, Any]]] = [("standard", "", {})]
    runs += [("hidden", str(n), {"hidden": n}) for n in (96, 320)] + [
        ("layers", "1", {"layers": 1}),
        ("rank", "0", {"rank": 0}),
    ]
    runs += [("learning_rate", f"{r:g}", {"rate": r}) for r in (5e-4, 1e-3, 4e-3)] + [
        ("batch", str(b), {"batch": b}) for b in (16, 64)
    ]
    runs += [("with_diagnoses", "True (tells the future)", {"with_diagnoses": True})]
    if "backbone" in known_fields:
        runs += [("backbone", "transformer", {"backbone": "transformer"})]
    rows = []
    for name, value, options in tqdm(runs, desc="sweep", mininterval=1):
        folder = field.runs / f"sweep-{name}-{value.split()[0] if value else ''}"
        net = train_set_outcome(field.train, field.held, field.known.words, folder, a.sweep, **options)
        ((_, slots, said),) = judge_net(field, folder.name, net, f"{a.sweep}", full=False)
        row = {
            "parameter": name,
            "value": value,
            **score("set_outcome", slots, said, field.known),
            "cpu_s": spent(folder),
        }
        rows.append(row | {"parameters": sum(p.numel() for p in net.parameters())})
    return rows


def write(rows: list[dict[str, Any]], path: Path, made: dict[str, Any]) -> None:
    """The table to a CSV; its path is printed."""
    write_csv(path, rows, made)
    print(path)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", default="ehr-ward-small", help="the shipped world of the ward, a name or a folder")
    parser.add_argument(
        "--records-world", help="the shipped world of records; it must not have met the fold's patients"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the ward's shards")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the rivals' training and predictions")
    parser.add_argument(
        "--parts", nargs="+", default=["rivals", "sweep", "efficiency"], choices=["rivals", "sweep", "efficiency"]
    )
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=RIVALS)
    parser.add_argument(
        "--budget", type=float, default=600.0, help="seconds of processor time for each that is trained"
    )
    parser.add_argument("--sweep", type=float, default=150.0, help="the same, for each row of the hyperparameter table")
    parser.add_argument("--records-budget", type=float, default=120.0, help="the same, on the records, after the ward")
    parser.add_argument("--stays", type=int, default=24000, help="training stays that are read")
    parser.add_argument("--split", choices=("test", "valid"), default="test")
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument(
        "--slots", type=int, default=16, help="numbers judged of a patient in the next step, whole steps"
    )
    parser.add_argument("--full-patients", type=int, default=30)
    parser.add_argument("--days", type=int, default=7, help="of the full trajectory")
    parser.add_argument("--paths-text", type=int, default=5)
    parser.add_argument("--paths-quantile", type=int, default=8)
    parser.add_argument("--full-paths-text", type=int, default=1)
    parser.add_argument("--full-paths-quantile", type=int, default=4)
    parser.add_argument("--naive", type=int, default=40, help="outcomes asked of SmolLM2; 0: none")
    parser.add_argument("--meds", type=Path, help="records: a MEDS folder")
    parser.add_argument("--tables", type=Path, help="MIMIC-IV tables beside --meds")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefix", type=Path, default=RESULTS / "tables_ehr_world")
    a = parser.parse_args(argv)
    if not 0 <= a.fold < a.folds:
        parser.error(f"--fold {a.fold} must lie in 0..{a.folds - 1}")
    if min(a.budget, a.sweep, a.records_budget) <= 0 or min(a.patients, a.slots, a.full_patients, a.days) < 1:
        parser.error("budgets, patients, slots and days must be above 0")
    return a


def main(argv: list[str] | None = None) -> None:
    """Train, judge and write the parts that were asked for."""
    a = arguments(argv)
    torch.set_num_threads(a.threads)
    os.environ["OMP_NUM_THREADS"] = str(a.threads)
    model = catalog.load(a.world)
    name = a.prefix.name

    def out(what: str) -> Path:
        return a.prefix.with_name(f"{name}_{what}")

    seeds = {"slots": a.seed, "test patients": ward_rollouts.TEST_SEED, "validation patients": ward_rollouts.VALID_SEED}
    worlds = [a.world, *([a.records_world] if a.records_world else []), "ward-oracle"]
    made = made_by("benchmarks.ward.tables", argv, seeds, worlds)
    if "rivals" in a.parts or "sweep" in a.parts:
        field = ward_field(a, model)
    if "rivals" in a.parts:
        rows = all_rows(field, a, model)
        write([*rows, *paper_rows()], out("table1.csv"), made)  # the ward's rows are not lost should the records fail
        if a.meds is not None:
            shipped = catalog.load(a.records_world) if a.records_world else None
            rows += all_rows(records_field(a, model), a, shipped)
        write([*rows, *paper_rows()], out("table1.csv"), made)
        write([*retention(rows), *paper_rows(short=True)], out("table2.csv"), made)
        write(figure_rows(rows), out("figure3.csv"), made)
        figure(figure_rows(rows), out("figure3.png"), made)
    if "sweep" in a.parts:
        write([*sweep(field, a), *hyperparameters()], out("hyperparameters.csv"), made)
    if "efficiency" in a.parts:
        write(efficiency(RESULTS / "speed_ehr_world.json"), out("efficiency.csv"), made)


if __name__ == "__main__":
    main()
