"""Two commands of `benchmarks.ward.fidelity` on recorded stays.

`--meds FILE_OR_DIR [--tables DIR] --world NAME_OR_DIR --out metrics.json` (or `--mimic3`, `--challenge2012`, `--eicu
DIR`, `--challenge2019 FILE`): a world on anybody's stays, training nothing. `--records folds --meds M --tables T --init
WARD --folds 4 --work DIR`: a world trained for each fold of the patients and judged on the others, the held-out
predictions of all folds pooled; `--shares` gives the learning curve.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.ward.records import (
    GUESSES,
    PATHS,
    Slots,
    ahead_slots,
    differences,
    joined,
    next_slots,
    normal_of,
    path_slots,
    restrict,
    scores,
)
from world_models import catalog, checkpoint
from world_models.ehr_world.people import told_source, undiagnosed
from world_models.ehr_world.records import Guesses, StayRecords, count_values, median_values, read_records, take
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.train_records import RecordsRecipe, finish_fold, folder_of, read_sources, train_fold

__all__ = ["ASKED", "guesses_for", "judge_folds", "judge_world", "told"]

ASKED = ("s10", "s15", "s25", "smape", "status_f1", "nll", "coverage80", "high_sensitivity_s25")
OF_HITS = ("s25", "s25_macro", "high_sensitivity_s25")
# argument -> the source a stay is then known to be from, where the world has heard of it
TOLD = {"challenge2012": "challenge_2012", "challenge2019": "challenge_2019", "eicu": "eicu_demo"}
MOST_STAYS = 500  # of a full trajectory, by default
PAPER_S25 = 0.716  # EHRWorld's 14B model, on MIMIC-IV: other data, other items
FEWEST = 100  # repeated measurements that make an item common


def guesses_for(model: EHRWorldModel, folder: Path) -> tuple[Guesses, str]:
    """The baselines' medians and errors of the patients the world was trained on, and where they are from."""
    plain = checkpoint.read_config(folder).get("guesses")
    if plain is not None:
        return Guesses.from_json(plain), "the world's training patients, as its config.json tells them"
    count = len(model.vocabulary.items)
    middle = []
    for item in model.vocabulary.items:
        inner = [e for e in item.edges if math.isfinite(e)]
        middle.append(inner[len(inner) // 2])
    flat = torch.full((count,), 0.5)
    return Guesses(torch.tensor(middle), flat, flat * 2, flat * 1.6), (
        "the middle bin edge of the world's vocabulary; errors of 0.5, 1 and 0.8 of an item's spread in training, for "
        "the world's config.json does not tell them"
    )


def _table(slots: Slots, model: EHRWorldModel) -> dict:
    """Scores of the model and the guesses on these slots."""
    normal, out = normal_of(model), {}
    for who in ("model", *GUESSES):
        row = scores(slots, who, normal)
        out[who] = {n: row[n] for n in (*ASKED, "s25_macro", "crps", "nll_macro")}
        out[who] |= {"mae_sd": float(slots[f"error/{who}"].mean())}
    hits = scores(slots, "model_hits", normal)  # S@25 alone has a point of its own, the likeliest to lie within 25 %
    out["model"] |= {f"{n}_of_the_median": out["model"][n] for n in OF_HITS} | {n: hits[n] for n in OF_HITS}
    return out | {
        "values": len(slots["y"]),
        "patients": len(slots["subject"].unique()),
        "stays": len(slots["stay"].unique()),
        "values_that_moved_by_over_25_percent": row["moved"],
        "zeros_left_out_of_s": row["zeros"],
    }


def judge_world(
    world: str,
    sources: Mapping[str, Path | None],
    begin: int = 1,
    paths: int = PATHS,
    work: Path | None = None,
    date_order: str | None = None,
    most: int = MOST_STAYS,
) -> dict:
    """What a world foretells of recorded stays, as plain JSON. `sources` are arguments of `read_records`; full
    trajectories are of `most` stays at most, drawn by a fixed seed.

    Raises:
        ValueError, OSError: records or a world that cannot be read.
    """
    model = catalog.load(world)
    if not isinstance(model, EHRWorldModel):
        raise ValueError(
            f"world {world!r} is no learned ward (set_outcome); give ehr-mimic-demo-small or a folder of one"
        )
    folder = folder_of(world)
    guesses, whence = guesses_for(model, folder)
    given: dict[str, Any] = {name: path for name, path in sources.items() if path is not None}
    records, left = read_records(model.vocabulary, work, date_order=date_order, **given)
    source = next((TOLD[name] for name in given if name in TOLD), None)
    records = told_source(undiagnosed(records), model.vocabulary, source)
    result: dict = {
        "world": str(world),
        "weights_sha256": checkpoint.sha256(folder),
        "hours_per_step": model.hours_per_step,
        "patients": len(records.subject.unique()),
        "stays": len(records.subject),
        "values": int((records.stays.asked & ~records.stays.value.isnan()).sum()),
    }
    following = next_slots(model, records, guesses)
    if not len(following["y"]):
        where = ", ".join(str(path) for path in given.values())
        raise ValueError(f"{where} holds no value of any item that {world} knows; is it of intensive care?")
    pick = torch.randperm(len(records.subject), generator=torch.Generator().manual_seed(0))[:most].sort().values
    some = take(records, pick)
    own = path_slots(model, some, guesses, begin, paths)
    told_firsts = path_slots(model, some, guesses, 0, paths, firsts=True)
    ahead = ahead_slots(model, some, guesses, begin)
    for name, slots in (
        ("next_step", following),
        ("full_trajectory", own),
        ("full_trajectory_ahead", ahead),
        ("full_trajectory_firsts_given", told_firsts),
    ):
        repeated = restrict(slots, ~slots["last"].isnan())
        if not len(repeated["y"]):
            where = ", ".join(str(path) for path in given.values())
            raise ValueError(
                f"{where} holds no inquiry that was answered twice in a stay: nothing to compare; give longer stays"
            )
        result[name] = _table(repeated, model)
        result[name]["first_measurements_included"] = _table(slots, model)
        filtered = (records if name == "next_step" else some).filtered[repeated["stay"]]
        result[name]["stays_within_the_papers_filters"] = (
            _table(restrict(repeated, filtered), model) if filtered.any() else None
        )
    result["full_trajectory"] |= {
        "given_hours": begin * model.hours_per_step,
        "paths": paths,
        "longest_h": (records.stays.valid.shape[1] - 1) * model.hours_per_step,
        "retention": result["full_trajectory"]["model"]["s25"] / max(1e-9, result["next_step"]["model"]["s25"]),
    }
    counts = count_values(model.vocabulary, records.stays).tolist()
    medians = median_values(model.vocabulary, guesses).tolist()
    result["items"] = [
        {"name": i.name, "unit": i.unit, "repeated_values": n, "median_used": m}
        for i, n, m in zip(model.vocabulary.items, counts, medians, strict=True)
        if not i.labels
    ]
    result["left_out"] = left
    result["notes"] = [
        f"The source is {source!r} to the world: it was trained on other patients of that set, or on these; parts that "
        "no training saw are told by world_models.ehr_world.people."
        if source and f"source_{source}" in [s.name for s in model.vocabulary.static]
        else "The world was not told, or does not know, which set these stays are from.",
        f"Full trajectories are of {len(some.subject)} stays, drawn by a fixed seed.",
        "s25, s25_macro and high_sensitivity_s25 of the model are of the point that is likeliest to lie within 25 % of "
        "the value; its other figures, and those named of_the_median, are of the median. mae_sd: mean absolute error "
        "of the median in standard deviations of the item's own scale.",
        "Scored: numbers that a recorded order returned after the stay's first position, where the item had been "
        "charted before; first_measurements_included adds the others, in which a guess that knows no value gives the "
        "median; "
        "stays_within_the_papers_filters leaves out the longest, fullest and emptiest stays of this data, as EHRWorld "
        "did.",
        f"Medians and errors of the guesses: {whence}. Their distributions are Laplace.",
        "nll and crps are on the item's own scale; coverage80 spreads rounded reports over what rounds to them.",
        "full_trajectory: the record up to given_hours, then the world's own outcomes under the recorded orders. There "
        "last_value is the last one given, but first_value is the stay's first wherever drawn, which the world may not "
        "have been told; in full_trajectory_firsts_given the first result of every inquiry is told to the world too. "
        "full_trajectory_ahead: the same record and orders, every later outcome foretold from them alone, none fed "
        "back.",
        "Not for clinical use.",
    ]
    return result


def _fold_slots(
    a: argparse.Namespace,
    fold: int,
    share: float,
    init: Path,
    records: StayRecords,
    wide: StayRecords | None,
    recipe: RecordsRecipe,
) -> tuple[dict[str, Slots], EHRWorldModel]:
    """One fold: trained (or loaded), saved, and its predictions of the held-out patients."""
    made = train_fold(init, records, a.work, a.folds, fold, a.name, wide, share, recipe)
    if made.chosen:
        told = ", ".join(f"{passes:g}: {nats:.4f}" for passes, nats in made.chosen.items())
        tqdm.write(f"fold {fold} share {share:g}, nats a value by passes (inner folds): {told}")
    saved = a.work / f"world-{fold}-of-{a.folds}-share-{share:g}"
    model, figures = finish_fold(made, saved, a.meds, init, a.folds, fold, wide is not None, a.tables is not None)
    tqdm.write(f"fold {fold} share {share:g}: " + json.dumps({n: round(float(v), 4) for n, v in figures.items()}))
    out = {"next_step": next_slots(model, made.held_out, made.guesses)}
    whole = share == 1.0
    for begin in a.begins if whole else a.begins[:1]:
        name = f"full_trajectory_from_{begin * model.hours_per_step:g}h"
        out[name] = path_slots(model, made.held_out, made.guesses, begin, a.paths)
        out[name.replace("from", "ahead_from")] = ahead_slots(model, made.held_out, made.guesses, begin)
    if whole:
        out["full_trajectory_firsts_given"] = path_slots(model, made.held_out, made.guesses, 0, a.paths, firsts=True)
        out["full_trajectory_ahead_firsts_given"] = ahead_slots(model, made.held_out, made.guesses, 0, firsts=True)
    for slots in out.values():
        slots["fold"] = torch.full_like(slots["item"], fold)
        slots["filtered"] = made.held_out.filtered[slots["stay"]]
        slots["stay"] = slots["stay"] + 1000 * fold
    return out, model


def judge_folds(a: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Rows of the table (setting, subset, share of the training patients, model, scores, paired differences of the
    model against this row with 95 % intervals over patients), and the items with their counts."""
    init = folder_of(a.init)
    records, wide = read_sources(init, a.work, a.meds, a.tables, a.challenge2012, a.date_order)
    recipe = RecordsRecipe()
    rows: list[dict] = []
    for share in a.shares:
        found: dict[str, list[Slots]] = {}
        for fold in tqdm(range(a.folds), desc=f"folds, share {share:g}"):
            slots, model = _fold_slots(a, fold, share, init, records, wide, recipe)
            for name, one in slots.items():
                found.setdefault(name, []).append(one)
        for name, parts in found.items():
            rows += _rows(name, joined(parts), model, records, share)
    return rows, item_rows(records, model)


def _rows(name: str, slots: Slots, model: EHRWorldModel, records: StayRecords, share: float) -> list[dict]:
    normal = normal_of(model)
    counts = count_values(model.vocabulary, records.stays)
    common = (counts >= FEWEST)[slots["item"]] & ~slots["last"].isnan()
    subsets = {"common items, repeated": common}
    if share == 1.0:
        subsets |= {
            "common items, repeated; the paper's filters": common & slots["filtered"],
            "all items": torch.ones_like(common),
        }
    full, out = name.startswith("full"), []
    for subset, keep in subsets.items():
        part = restrict(slots, keep)
        labels = {"last_value": "last_given_value"} if full else {}
        labels["model_hits"] = (
            "model, points for S@25"  # the point likeliest within 25 %: no other column is meant for it
        )
        for who in (
            "model",
            "model_hits",
            *(g for g in GUESSES if not (g == "last_value" and name.endswith("firsts_given"))),
        ):
            row = {"setting": name, "subset": subset, "share": share, "model": labels.get(who, who)}
            row |= {
                "patients": len(part["subject"].unique()),
                "stays": len(part["stay"].unique()),
                **scores(part, who, normal),
            }
            row["items"] = len(part["item"].unique())
            if full:
                row["horizon_h_median"] = float(part["place"].double().median()) * model.hours_per_step
            if who != "model":
                for score, d in differences(part, "model", who).items():
                    row |= {
                        f"model_minus_{score}": d["difference"],
                        f"{score}_low": d["low"],
                        f"{score}_high": d["high"],
                    }
            out.append(row)
        if full and subset == "common items, repeated" and share == 1.0:
            paper = {
                "subset": "MIMIC-IV, other data and items",
                "model": "EHRWorld 14B, as published",
                "s25": PAPER_S25,
            }
            out.append({"setting": name, **paper})
    return out


def item_rows(records: StayRecords, model: EHRWorldModel) -> list[dict]:
    """The numeric items with how often each was measured again in a stay."""
    counts = count_values(model.vocabulary, records.stays).tolist()
    return [
        {"item": i.name, "unit": i.unit, "repeated_values": n, "common": n >= FEWEST}
        for i, n in zip(model.vocabulary.items, counts, strict=True)
        if not i.labels
    ]


def told(found: dict) -> str:
    """The JSON's two tables in a few lines."""
    lines = [f"{found['patients']} patients, {found['stays']} stays, {found['values']} values; world {found['world']}"]
    for name in ("next_step", "full_trajectory"):
        lines.append(f"{name}: {found[name]['values']} values that had been charted before")
        lines += [
            f"  {who:<12}" + " ".join(f"{k} {found[name][who][k]:.3f}" for k in ASKED) for who in ("model", *GUESSES)
        ]
    return "\n".join(lines)
