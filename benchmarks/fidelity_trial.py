"""How well a world predicts a real drug-response trial of the ECGRDVQ layout.

    python -m benchmarks.fidelity_trial --trial CSV --world oracle|ecg-wm-small --out predictions.csv
    python -m benchmarks.fidelity_trial --trial CSV --loso

The first predicts every post-dose triplicate mean from the subject's own same-period pre-dose intervals, age, sex,
weight, drug, dose and hour alone. The second refits the oracle without each subject in turn, predicts that subject, and
sets the errors beside persistence, the population course and the linear mixed concentration-response model; table,
predictions and plot go to benchmarks/results/. Torch runs on one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks import trial_worlds
from benchmarks.trial_baselines import concentration_response, persistence, population_course
from benchmarks.trial_worlds import TARGETS, Prediction, predict_oracle
from world_models.data.ecgrdvq import INTERVALS, load_raw, load_trial
from world_models.oracles.pharmacology import TrialModel
from world_models.oracles.trial_fit import fit_trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leave_one_out", "main", "pre_dose_rows", "predict", "report"]

WORLDS = ("oracle", "ecg-wm-small")
DRUG_ORDER = ("placebo", "ranolazine", "dofetilide", "verapamil", "quinidine")


def pre_dose_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The post-dose rows, each with its period's pre-dose means as `pre_*`; periods without a pre-dose reading are dropped."""
    before = frame[frame["hour"] < 0].sort_values("hour").groupby(["randid", "drug", "period"]).last()
    before = before[[*INTERVALS, "hour"]].add_prefix("pre_").reset_index()
    rows = frame[frame["hour"] > 0].merge(before, on=["randid", "drug", "period"], how="inner")
    return rows[rows["pre_qtcf_ms"].notna()].reset_index(drop=True)


def predict(world_name: str, rows: pd.DataFrame, samples: int = 512, seed: int = 0, model: TrialModel | None = None) -> Prediction:
    """Predictions of a world for rows of `pre_dose_rows`. Post-dose values that the rows carry are taken off first.

    Raises:
        ValueError: no such world.
    """
    blind = rows.drop(columns=[c for c in (*INTERVALS, "conc_ng_per_ml", "replicates") if c in rows.columns])
    if world_name == "oracle":
        return predict_oracle(model or TrialModel.load(), blind, samples, seed)
    adapter = getattr(trial_worlds, "predict_" + world_name.replace("-", "_"), None)
    if adapter is None:
        raise ValueError(f"no world {world_name!r} to predict a trial with; choose from {', '.join(WORLDS)}")
    return adapter(blind, samples, seed)


def leave_one_out(frame: pd.DataFrame, samples: int = 512, seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Rows of `pre_dose_rows` with columns <target>, <target>_q05, <target>_q95 of the oracle fitted without that row's
    subject, and <target>_<baseline> of the three baselines."""
    import pandas as pd
    from tqdm import tqdm

    rows = pre_dose_rows(frame)
    parts = []
    for subject in tqdm(sorted(rows["randid"].unique()), desc="leave one out", disable=not progress, file=sys.stderr):
        train, test = rows[rows["randid"] != subject], rows[rows["randid"] == subject].reset_index(drop=True)
        model = TrialModel(fit_trial(frame[frame["randid"] != subject], standard_errors=False))
        predicted = predict("oracle", test, samples, seed, model)
        columns = {}
        for name in TARGETS:
            columns[name], columns[f"{name}_q05"], columns[f"{name}_q95"] = (part[name] for part in predicted)
        baselines = {
            "persistence": persistence(test),
            "population_course": population_course(train, test),
            "concentration_response": concentration_response(train, test),
        }
        for baseline, values in baselines.items():
            for name in TARGETS:
                columns[f"{name}_{baseline}"] = values[name]
        parts.append(pd.concat([test, pd.DataFrame(columns)], axis=1))
    return pd.concat(parts, ignore_index=True)


def _course_r2(table: pd.DataFrame, drug: str, name: str) -> float:
    """R² of the mean placebo-corrected change over the hours, predicted against observed."""
    column = TARGETS[name]
    both = {}
    for source, value in (("observed", table[column]), ("predicted", table[name])):
        change = (value - table[f"pre_{column}"]).rename("change")
        wide = table[["randid", "drug", "hour"]].assign(change=change).pivot_table(index=["randid", "hour"], columns="drug", values="change")
        both[source] = (wide[drug] - wide["placebo"]).dropna().groupby("hour").mean()
    seen, guess = both["observed"], both["predicted"].reindex(both["observed"].index)
    return float(1 - ((seen - guess) ** 2).sum() / ((seen - seen.mean()) ** 2).sum())


def report(table: pd.DataFrame) -> pd.DataFrame:
    """One line a target and arm ('all' first): mean absolute errors, coverage, course R², number of readings."""
    import pandas as pd

    lines = []
    ours = "oracle"
    for name, column in TARGETS.items():
        for arm in ("all", *[d for d in DRUG_ORDER if d in set(table["drug"])]):
            part = table if arm == "all" else table[table["drug"] == arm]
            part = part[part[column].notna()]
            line = {"interval": name, "arm": arm, "readings": len(part)}
            line[f"mae_{ours}_ms"] = (part[name] - part[column]).abs().mean()
            for baseline in ("persistence", "population_course", "concentration_response"):
                if f"{name}_{baseline}" in part:
                    line[f"mae_{baseline}_ms"] = (part[f"{name}_{baseline}"] - part[column]).abs().mean()
            line["coverage_90"] = ((part[column] >= part[f"{name}_q05"]) & (part[column] <= part[f"{name}_q95"])).mean()
            line["band_width_ms"] = (part[f"{name}_q95"] - part[f"{name}_q05"]).mean()
            if arm not in ("all", "placebo") and "placebo" in set(table["drug"]):
                line["course_r2"] = _course_r2(table, arm, name)
            lines.append(line)
    return pd.DataFrame(lines)
