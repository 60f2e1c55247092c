"""How well a world predicts a real drug-response trial of the ECGRDVQ layout.

    python -m benchmarks.ecg_drug.trial --trial CSV --world oracle|ecg-wm-small --out predictions.csv
    python -m benchmarks.ecg_drug.trial --trial CSV --loso
    python -m benchmarks.ecg_drug.trial --trial CSV --folds 4
    python -m benchmarks.ecg_drug.trial --trial CSV --folds 4 --world ecg-wm-small --work DIR

The first predicts every post-dose triplicate mean from the subject's own same-period pre-dose ECG, age, sex,
weight, drug, dose and hour alone. The second refits the oracle without each subject in turn, predicts that subject, and
sets the errors beside persistence, the population course and the linear mixed concentration-response model; table,
predictions and plot go to benchmarks/results/. The third leaves out a quarter of the subjects at a time and sets every
measure's error beside each rival's, with the paired difference over subjects (`trial_folds`). The fourth trains the
learned world from nothing for each of these folds, on an oracle fitted without it (`trial_learned`), and sets it beside
that oracle too; what training has reached is kept in DIR. Torch runs on one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.common.intervals import share_over_patients
from benchmarks.common.results import RESULTS, TRIAL_FIT, made_by, write_csv, write_figure
from benchmarks.ecg_drug.chart_stages import Budget
from benchmarks.ecg_drug.trial_baselines import concentration_response, persistence, population_course
from benchmarks.ecg_drug.trial_folds import RIVALS, choose_pooling, compared, predict_folds, refitted_oracle
from benchmarks.ecg_drug.trial_folds import SEED as FOLD_SEED
from benchmarks.ecg_drug.trial_learned import refitted_learned
from benchmarks.ecg_drug.trial_pooling import LAW_ALONE
from benchmarks.ecg_drug.trial_rows import blind, pre_dose_rows
from benchmarks.ecg_drug.trial_worlds import ADAPTERS, TARGETS, TrialPrediction, predict_oracle
from world_models.command_line import MOST_BATCH, folder, whole
from world_models.data.ecg.ecgrdvq import canonical_drug, load_raw, load_trial
from world_models.oracles.ecg_drug.fit.trial import fit_trial
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.quantities.ecg_drug import DRUGS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leave_one_out", "main", "pre_dose_rows", "predict", "report"]

MODULE = "benchmarks.ecg_drug.trial"
DECIMALS = 3  # of the tables: asymmetry and flatness are small numbers
FOLD_DECIMALS = 4
LEARNED = ("ecg-wm-small",)  # adapters with weights of their own
FEWEST_SAMPLES = 20  # a 5 % quantile needs one sample beyond it
BASELINES = ("persistence", "population_course", "concentration_response", "concentration_response_covariate")
DRUG_ORDER = ("placebo", *DRUGS)


def predict(
    world_name: str, rows: pd.DataFrame, samples: int = 512, seed: int = 0, model: TrialModel | None = None
) -> TrialPrediction:
    """Predictions of a world for rows of `pre_dose_rows`. Post-dose values that the rows carry are taken off first.

    `model` puts another fit in the place of the shipped oracle, its law alone: the shipped pooling with the arms' means
    was chosen on the shipped fit's subjects.

    Raises:
        ValueError: no such world.
    """
    unread = blind(rows)
    if model is not None:
        return predict_oracle(model, unread, samples, seed, LAW_ALONE)
    if world_name not in ADAPTERS:
        raise ValueError(f"no world {world_name!r} to predict a trial with; choose from {', '.join(ADAPTERS)}")
    return ADAPTERS[world_name](unread, samples, seed)


def rivals(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns <target>_<baseline> [R] of the simple predictors, for the rows of `test`, fitted on those of `train`.

    In the measures' own units; `trial_folds` gives each the scale of the T wave that suits it.
    """
    found = {
        "persistence": persistence(test),
        "population_course": population_course(train, test),
        "concentration_response": concentration_response(train, test),
        "concentration_response_covariate": concentration_response(train, test, covariate=True),
    }
    return {f"{name}_{baseline}": values[name] for baseline, values in found.items() for name in TARGETS}


def rivals_left_out(rows: pd.DataFrame) -> pd.DataFrame:
    """The rivals' columns for `rows` of a trial whose outcome is known, each subject predicted from the others.

    NaN where no baseline was read; with a single subject, who has no others, persistence alone.
    """
    import pandas as pd

    read = rows[rows["pre_qtcf_ms"].notna()]
    if read["randid"].nunique() < 2:
        return pd.DataFrame({f"{name}_persistence": v for name, v in persistence(rows).items()}, index=rows.index)
    parts = []
    for _, own in read.groupby("randid"):
        others = read.drop(own.index)
        parts.append(pd.DataFrame(rivals(others, own.reset_index(drop=True)), index=own.index))
    return pd.concat(parts).reindex(rows.index)


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
        columns.update(rivals(train, test))
        parts.append(pd.concat([test, pd.DataFrame(columns)], axis=1))
    return pd.concat(parts, ignore_index=True)


def _course(table: pd.DataFrame, drug: str, name: str) -> tuple[pd.Series, pd.Series]:
    """Mean placebo-corrected change from pre-dose by hour: observed, predicted; the same readings in both."""
    column = TARGETS[name]
    both = {}
    read = table[column].notna()
    for source, value in (("observed", table[column]), ("predicted", table[name].where(read))):
        change = (value - table[f"pre_{column}"]).rename("change")
        wide = (
            table[["randid", "drug", "hour"]]
            .assign(change=change)
            .pivot_table(index=["randid", "hour"], columns="drug", values="change")
        )
        both[source] = (wide[drug] - wide["placebo"]).dropna().groupby("hour").mean()
    return both["observed"], both["predicted"].reindex(both["observed"].index)


def _course_r2(table: pd.DataFrame, drug: str, name: str) -> float:
    """R² of the mean placebo-corrected change over the hours, predicted against observed."""
    seen, guess = _course(table, drug, name)
    return float(1 - ((seen - guess) ** 2).sum() / ((seen - seen.mean()) ** 2).sum())


def report(table: pd.DataFrame) -> pd.DataFrame:
    """One line a target and arm ('all' first): mean absolute errors, coverage with its interval, course R²,
    readings."""
    import pandas as pd

    lines = []
    for name, column in TARGETS.items():
        if table[name].isna().all():  # a world that does not chart it
            continue
        for arm in ("all", *[d for d in DRUG_ORDER if d in set(table["drug"])]):
            part = table if arm == "all" else table[table["drug"] == arm]
            part = part[part[column].notna()]
            line = {"interval": name, "arm": arm, "readings": len(part)}
            line["mae_world_ms"] = (part[name] - part[column]).abs().mean()
            for baseline in BASELINES:
                if f"{name}_{baseline}" in part:
                    line[f"mae_{baseline}_ms"] = (part[f"{name}_{baseline}"] - part[column]).abs().mean()
            inside = (part[column] >= part[f"{name}_q05"]) & (part[column] <= part[f"{name}_q95"])
            line["coverage_90"] = inside.mean()
            people = inside.astype(float).groupby(part["randid"])  # readings of one person are not independent
            found = share_over_patients(people.sum().to_numpy(), people.count().to_numpy().astype(float))
            line["coverage_low"], line["coverage_high"] = found
            line["band_width_ms"] = (part[f"{name}_q95"] - part[f"{name}_q05"]).mean()
            if arm not in ("all", "placebo") and "placebo" in set(table["drug"]):
                line["course_r2"] = _course_r2(table, arm, name)
            lines.append(line)
    return pd.DataFrame(lines)


def plot(table: pd.DataFrame, path: Path, made: Mapping[str, Any]) -> None:
    """Mean placebo-corrected change over the hours, observed (dots) and predicted (line), target by drug."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drugs = [d for d in DRUG_ORDER[1:] if d in set(table["drug"])]
    figure, axes = plt.subplots(
        len(TARGETS), len(drugs), figsize=(3 * len(drugs), 2 * len(TARGETS)), sharex=True, sharey="row", squeeze=False
    )
    for row, name in enumerate(TARGETS):
        for column, drug in enumerate(drugs):
            seen, guess = _course(table, drug, name)
            axis = axes[row, column]
            axis.axhline(0, color="0.8", lw=0.8)
            axis.plot(seen.index, seen, "o", ms=4, color="0.2", label="observed")
            axis.plot(guess.index, guess, "-", color="tab:red", label="predicted, subject left out")
            axis.set_title(f"{drug}, R² {_course_r2(table, drug, name):.2f}", fontsize=9)
            if column == 0:
                axis.set_ylabel(f"{name} change")
            if row == len(TARGETS) - 1:
                axis.set_xlabel("hours after the dose")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    write_figure(path, figure, made, dpi=110)
    plt.close(figure)


def _write(frame: pd.DataFrame, path: Path, made: Mapping[str, Any] | None) -> None:
    """The frame to two decimals; what is not known stays empty."""
    plain = frame.round(DECIMALS).astype(object)
    write_csv(path, plain.where(plain.notna(), "").to_dict("records"), made)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trial", required=True, help="the clinical CSV, or the folder it lies in")
    parser.add_argument("--world", default="oracle", help=f"one of {', '.join(ADAPTERS)}")
    parser.add_argument("--out", help="CSV of predictions to write")
    parser.add_argument("--summary", help="CSV of the errors to write, where the trial's post-dose values are known")
    parser.add_argument("--loso", action="store_true", help="refit the oracle without each subject; table and plot")
    parser.add_argument(
        "--folds", type=int, metavar="N", help="refit the oracle without each of N parts of the subjects"
    )
    parser.add_argument("--work", type=folder, help="of a learned world's folds: where training is kept")
    parser.add_argument("--steps", type=whole(8), default=800, help="training steps of its dynamics; an eighth after")
    parser.add_argument("--batch", type=whole(16, MOST_BATCH), default=128, help="patients a training step")
    parser.add_argument("--inner-worlds", action="store_true", help="choose its pooling with worlds of their own")
    parser.add_argument("--results", type=folder, default=RESULTS, help="folder of the tables of --loso and --folds")
    parser.add_argument("--samples", type=int, default=512, help="virtual twins of each subject and period")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if not options.loso and not options.folds and not options.out:
        parser.error("give --out FILE, --loso or --folds N")
    if options.folds and options.world in LEARNED and options.work is None:
        parser.error(f"--folds of {options.world}, which is trained for each: give --work DIR to keep its training in")
    if options.folds is not None and options.folds < 2:
        parser.error(f"--folds {options.folds}: give 2 or more")
    if options.samples < FEWEST_SAMPLES:
        parser.error(f"--samples {options.samples} is too few for 5 % quantiles; give {FEWEST_SAMPLES} or more")
    if options.world not in ADAPTERS:
        parser.error(f"no world {options.world!r}; choose from {', '.join(ADAPTERS)}")
    if options.out and not Path(options.out).resolve().parent.is_dir():
        parser.error(f"the folder of {options.out} does not exist; make it first")
    return options


def _leave_one_out(options: argparse.Namespace, argv: list[str] | None) -> None:
    """Table and plot of the oracle refitted without each subject."""
    table = leave_one_out(load_trial(options.trial), options.samples, options.seed)
    summary = report(table)
    print(summary.round(DECIMALS).to_string(index=False))
    made = made_by(MODULE, argv, {"twins": options.seed, "bootstrap": 0})
    _write(summary, options.results / "fidelity_trial_loso.csv", made)
    plot(table, options.results / "fidelity_trial_loso.png", made)
    if options.out:
        columns = [f"{name}{end}" for name in TARGETS for end in ("", "_q05", "_q95")]
        _write(table[["randid", "drug", "hour", *columns]], Path(options.out), None)


def _folds(options: argparse.Namespace, argv: list[str] | None) -> None:
    """Table of a world refitted without each fold beside its rivals; of a learned one also beside the oracle."""
    frame = load_trial(options.trial)
    rows = pre_dose_rows(frame)
    oracle = predict_folds(frame, rows, refitted_oracle(options.samples, options.seed), options.folds)
    seeds = {"folds": FOLD_SEED, "twins": options.seed, "bootstrap": 0}
    if options.world in LEARNED:
        budget = Budget.of(options.steps, options.batch)
        predictor = refitted_learned(options.work, budget, options.samples, options.seed, options.inner_worlds)
        table = predict_folds(frame, rows, predictor, options.folds)
        table = table.assign(**{f"{name}_oracle": oracle[name].to_numpy() for name in TARGETS})
        summary, tail = compared(table, frame, (*RIVALS, "oracle")), f"_{options.world.replace('-', '_')}"
    else:
        table, tail = oracle, ""
        summary = compared(table, frame)
    print(summary.round(FOLD_DECIMALS).to_string(index=False))
    if not tail:
        print("of all subjects, for the shipped fit:", choose_pooling(frame, rows, seed=options.seed))
    path = options.results / f"fidelity_trial_folds{tail}.csv"
    write_csv(path, summary.to_dict("records"), made_by(MODULE, argv, seeds))
    if options.out:
        columns = [f"{name}{end}" for name in TARGETS for end in ("", "_q05", "_q95")]
        _write(table[["randid", "drug", "hour", "fold", *columns]], Path(options.out), None)


def _predict_file(options: argparse.Namespace, argv: list[str] | None) -> None:
    """Predictions of a world, in the trial's own words, and their errors where the outcome is known."""
    import pandas as pd

    frame = load_trial(options.trial)
    labels = {canonical_drug(text): text for text in load_raw(options.trial)["EXTRT"].dropna().unique()}
    rows = pre_dose_rows(frame, keep_unread=True)
    if rows.empty:
        raise ValueError(f"{options.trial} has no times after a dose (TPT > 0); there is nothing to predict")
    predicted = predict(options.world, rows, options.samples, options.seed)
    result = pd.DataFrame({"RANDID": rows["randid"], "EXTRT": rows["drug"].map(labels), "TPT": rows["hour"]})
    for name in TARGETS:
        result[name], result[f"{name}_q05"], result[f"{name}_q95"] = (part[name] for part in predicted)
    _write(result, Path(options.out), None)  # a plain table: whoever asked for predictions fixed its layout
    scored = pd.concat([rows, result[[c for c in result.columns if c not in ("RANDID", "EXTRT", "TPT")]]], axis=1)
    if scored["qtcf_ms"].notna().any():
        scored = pd.concat([scored, rivals_left_out(rows)], axis=1)
        summary = report(scored)
        print(summary.round(DECIMALS).to_string(index=False))
        if options.summary:
            seeds = {"twins": options.seed, "bootstrap": 0}
            worlds = [options.world] if options.world in LEARNED else []
            made = made_by(MODULE, argv, seeds, worlds, [TRIAL_FIT])  # every adapter stands on the trial's fit
            _write(summary, Path(options.summary), made)
    print(f"{len(result)} predictions of {options.world} -> {options.out}")


def main(argv: list[str] | None = None) -> int:
    """Predict, or leave one subject out. Returns the exit status: 2 for a trial that cannot be read."""
    import pandas as pd

    options = _arguments(argv)
    torch.set_num_threads(1)
    pd.set_option("display.width", 200)
    try:
        command = _leave_one_out if options.loso else _folds if options.folds else _predict_file
        command(options, argv)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
