"""Rows of the tables: every score of every rival, each set apart and all together, beside the last value.

Intervals are of a paired bootstrap over patients (in eICU over hospitals, which is how it is divided).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.people.prediction import Scale
from benchmarks.ward.records import Slots, differences, restrict, scores
from benchmarks.ward.scores import CLOSE, MOVED
from world_models.ehr_world.vocabulary import Vocabulary

__all__ = ["POOLED", "item_rows", "rows"]

POOLED = "all sets"
BASE = "last_value"
DAY_H = 24.0
FEWEST = 50  # values of an item that has a row
ASKED = ("s25", "s10", "s25_macro", "nll", "nll_macro", "crps", "coverage80", "status_f1", "high_sensitivity_s25")
COMPARED = ("s25", "high_sensitivity_s25", "nll", "crps")


def normal_of(words: Vocabulary) -> Tensor:
    """Reference ranges [I, 2]; NaN where there is none."""
    none = (float("nan"), float("nan"))
    return torch.tensor([i.normal if i.normal and not i.labels else none for i in words.items])


def pooled(slots: Sequence[Slots]) -> Slots:
    """All sets together, owners and stays of different sets told apart; the columns that all of them have."""
    names = set.intersection(*(set(s) for s in slots))
    out = {n: torch.cat([s[n] for s in slots]) for n in names}
    for name in ("subject", "stay"):
        apart = [torch.unique(s[name], return_inverse=True)[1] * len(slots) + i for i, s in enumerate(slots)]
        out[name] = torch.cat(apart)
    return out


def rows(
    setting: str,
    by_source: Mapping[str, Slots],
    rivals: Sequence[str],
    words: Vocabulary,
    resamples: int,
    begin: int | None = None,
) -> list[dict]:
    """Rows of a setting; of a trajectory (`begin`) also those of the first day."""
    sets = dict(by_source)
    if len(sets) > 1:
        sets[POOLED] = pooled(list(by_source.values()))
    out = []
    for source, slots in sets.items():
        subsets = {"to the end" if begin is not None else "": slots}
        if begin is not None:
            day = slots["place"] <= begin + round(DAY_H / words.hours_per_step)
            subsets = {"24 h": restrict(slots, day), **subsets}
        for horizon, part in subsets.items():
            if len(part["y"]):
                out += [
                    {"setting": setting, "horizon": horizon, "set": source, **_row(part, who, words, resamples)}
                    for who in rivals
                ]
    return out


def _row(slots: Slots, who: str, words: Vocabulary, resamples: int) -> dict:
    """One rival on one set; columns `_hits`: with the point that is likeliest within 25 %."""
    normal, scale = normal_of(words), Scale(words)
    found, hits = scores(slots, who, normal), scores(slots, f"{who}_hits", normal)
    error = scale.z(slots[f"point/{who}"], slots["item"]) - scale.z(slots["y"], slots["item"])
    row = {
        "model": who,
        "values": len(slots["y"]),
        "stays": len(slots["stay"].unique()),
        "owners": len(slots["subject"].unique()),
        "moved": found["moved"],
        "s25_hits": hits["s25"],
        "high_sensitivity_s25_hits": hits["high_sensitivity_s25"],
        "mae_sd": float(error.abs().mean()),
        **{name: found[name] for name in ASKED},
    }
    if who == BASE:
        return row
    apart = {"": differences(slots, who, BASE, resamples), "_hits": differences(slots, f"{who}_hits", BASE, resamples)}
    for end, told in apart.items():
        for name in COMPARED:
            if name in told:
                d = told[name]
                row |= {f"{name}{end}_minus_last": d["difference"], f"{name}{end}_low": d["low"]}
                row[f"{name}{end}_high"] = d["high"]
    return row


def item_rows(setting: str, by_source: Mapping[str, Slots], rivals: Sequence[str], words: Vocabulary) -> list[dict]:
    """Every item of every set, with errors in its own unit."""
    out = []
    for source, slots in by_source.items():
        for i in slots["item"].unique().tolist():
            part = restrict(slots, slots["item"] == i)
            if len(part["y"]) < FEWEST:
                continue
            y, last = part["y"], part["last"]
            known = y != 0
            moved = known & (last != 0) & ((y - last).abs() > MOVED * last.abs())
            for who in rivals:
                hit = {
                    end: ((part[f"point/{who}{end}"] - y).abs() <= CLOSE * y.abs()).double() for end in ("", "_hits")
                }
                out.append(
                    {
                        "setting": setting,
                        "set": source,
                        "item": words.items[i].name,
                        "unit": words.items[i].unit,
                        "model": who,
                        "values": len(y),
                        "s25": float(hit[""][known].mean()),
                        "s25_hits": float(hit["_hits"][known].mean()),
                        "high_sensitivity_s25": float(hit[""][moved].mean()),
                        "mae": float((part[f"point/{who}"] - y).abs().mean()),
                        "nll": float(part[f"nll/{who}"].mean()),
                        "crps": float(part[f"crps/{who}"].mean()),
                        "coverage80": float(part[f"inside/{who}"].mean()),
                    }
                )
    return out
