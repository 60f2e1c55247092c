"""Folds of a trial's subjects: the oracle refitted on the others, judged on those left out beside its rivals.

Every predictor is fitted on the training subjects alone. The oracle's structure is fixed (`fit.effects.USUAL`); how far
its law is pooled with the means of the arms, and how wide its bands are, is chosen on four folds of the training
subjects (`choose_pooling`), none of whom is judged. Each rival models the T wave on whichever scale predicts training
subjects better that are left out of its fit (`trial_baselines.best_scales`). Differences are paired, and bootstrapped
over subjects.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchmarks.ecg_drug.trial_baselines import (
    best_scales,
    concentration_response,
    persistence,
    population_course,
    rescaled,
)
from benchmarks.ecg_drug.trial_pooling import Pooling, arm_means, mixed
from benchmarks.ecg_drug.trial_rows import (
    T_TARGETS,
    TARGETS,
    TrialPrediction,
    blind,
    on_scale,
    own_unit,
    pre_dose_rows,
)
from benchmarks.ecg_drug.trial_worlds import predict_oracle
from world_models.bootstrap import percentile_interval, resamples
from world_models.oracles.ecg_drug.fit.trial import fit_trial
from world_models.oracles.ecg_drug.population import TrialModel

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

__all__ = [
    "POOLED",
    "RIVALS",
    "Law",
    "Predictor",
    "choose_pooling",
    "compared",
    "folds_of",
    "oracles_law",
    "predict_folds",
]
__all__ += ["refitted_oracle"]

RIVALS = ("persistence", "population_course", "concentration_response")
POOLED = "T wave pooled"
SEED = 2026  # of the folds
INNER_FOLDS, INNER_SEED = 4, 11  # of training subjects, to choose the pooling
WIDENINGS = (1.0, 2.0, 4.0)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
COVERAGE = 0.9

# training frame (all hours), post-dose rows of other subjects without their outcome -> prediction
Predictor = Callable[["pd.DataFrame", "pd.DataFrame"], TrialPrediction]
# training frame -> the fit to it, and what foresees rows without their outcome by a widening, unpooled
Law = Callable[["pd.DataFrame"], tuple[TrialModel, Callable[["pd.DataFrame", float], TrialPrediction]]]


def folds_of(subjects: np.ndarray, count: int, seed: int = SEED) -> list[np.ndarray]:
    """The subjects in `count` folds of sizes that differ by one at most.

    Raises:
        ValueError: fewer than two folds, or more than subjects.
    """
    if not 2 <= count <= len(subjects):
        raise ValueError(f"{count} folds of {len(subjects)} subjects; give 2 to {len(subjects)}")
    order = np.random.default_rng(seed).permutation(len(subjects))
    return [np.sort(np.asarray(subjects)[order[i::count]]) for i in range(count)]


class _Inner(NamedTuple):
    """One target on inner folds: R readings of training subjects, on its working scale, each predicted without its
    subject."""

    read: np.ndarray  # [R]
    law: tuple[np.ndarray, np.ndarray, np.ndarray]  # point, 5 % and 95 % quantile, [R] each
    means: np.ndarray  # [R] of the arm


def oracles_law(samples: int = 256, seed: int = 0) -> Law:
    """The oracle's law, fitted to the training subjects."""

    def law(train: pd.DataFrame) -> tuple[TrialModel, Callable[[pd.DataFrame, float], TrialPrediction]]:
        model = TrialModel(fit_trial(train, standard_errors=False))

        def foresee(rows: pd.DataFrame, widening: float) -> TrialPrediction:
            return predict_oracle(model, rows, samples, seed, Pooling(widening, {}, {}))

        return model, foresee

    return law


def _inner_folds(
    frame: pd.DataFrame, rows: pd.DataFrame, law_of: Law, widenings: tuple[float, ...]
) -> dict[float, dict[str, _Inner]]:
    """Widening -> target -> predictions of `rows` from the fit to the other folds."""
    subjects = np.array(sorted(rows["randid"].unique()))
    parts: dict[float, dict[str, list[_Inner]]] = {w: {name: [] for name in TARGETS} for w in widenings}
    for out in folds_of(subjects, min(INNER_FOLDS, len(subjects)), INNER_SEED):
        test = rows[rows["randid"].isin(out)].reset_index(drop=True)
        model, foresee = law_of(frame[~frame["randid"].isin(out)])
        means = arm_means(model, test)
        for widening, found in parts.items():
            law = foresee(blind(test), widening)
            for name, column in TARGETS.items():
                point, low, high = (on_scale(column, x[name]) for x in law)
                read = on_scale(column, test[column].to_numpy(dtype=float))
                found[name].append(_Inner(read, (point, low, high), means[name]))
    return {w: {name: _joined(each) for name, each in found.items()} for w, found in parts.items()}


def _joined(parts: list[_Inner]) -> _Inner:
    law = [np.concatenate([p.law[i] for p in parts]) for i in range(3)]
    read, means = (np.concatenate([getattr(p, field) for p in parts]) for field in ("read", "means"))
    return _Inner(read, (law[0], law[1], law[2]), means)


def choose_pooling(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    samples: int = 256,
    seed: int = 0,
    law: Law | None = None,
    widenings: tuple[float, ...] = WIDENINGS,
) -> Pooling:
    """Widening, weights and bands that do best on folds of these subjects, each predicted from the others.

    The widening is one for all targets (least mean of errors in SDs before the dose), the weights a target's own. A
    band's factor is the 0.9 quantile of |error| over the half-width on its side (split conformal, Vovk 2005 (k)).

    Args:
        law: what is fitted to the other folds; None: the oracle's.
        widenings: to choose from.
    """
    before = frame[frame["hour"] < 0]
    found = _inner_folds(frame, rows, oracles_law(samples, seed) if law is None else law, widenings)
    weights: dict[float, dict[str, float]] = {}
    totals: dict[float, float] = {}
    for widening, inner in found.items():
        weights[widening], totals[widening] = {}, 0.0
        for name, column in TARGETS.items():
            errors = {w: _error(inner[name], column, w) for w in WEIGHTS}
            chosen = min(errors, key=lambda w: errors[w])
            weights[widening][name] = chosen
            totals[widening] += errors[chosen] / float(before[column].std())
    best = min(totals, key=lambda w: totals[w])
    return Pooling(best, weights[best], {name: _band(found[best][name], weights[best][name]) for name in TARGETS})


def _error(inner: _Inner, column: str, weight: float) -> float:
    """Mean absolute error in the target's own unit."""
    point = own_unit(column, mixed(inner.law[0], inner.means, weight))
    return float(np.nanmean(np.abs(point - own_unit(column, inner.read))))


def _band(inner: _Inner, weight: float) -> float:
    """Factor on the bands with which they hold nine tenths of the readings."""
    point, low, high = inner.law
    off = inner.read - mixed(point, inner.means, weight)
    score = np.abs(off) / np.maximum(np.where(off > 0, high - point, point - low), 1e-9)
    return float(np.quantile(score[~np.isnan(score)], COVERAGE))


def refitted_oracle(samples: int = 512, seed: int = 0) -> Predictor:
    """The oracle, fitted and its pooling chosen on the training subjects."""

    def predictor(train: pd.DataFrame, test: pd.DataFrame) -> TrialPrediction:
        pooling = choose_pooling(train, pre_dose_rows(train), min(samples, 256), seed)
        logger.info("pooling: %s", pooling)
        model = TrialModel(fit_trial(train, standard_errors=False))
        return predict_oracle(model, blind(test), samples, seed, pooling)

    return predictor


def _rivals(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns <target>_<rival> for the rows of `test`; whether on the working scale: <target>_<rival>_scaled."""
    columns = {f"{name}_persistence": values for name, values in persistence(test).items()}
    for label, rival in (("population_course", population_course), ("concentration_response", concentration_response)):
        chosen = best_scales(rival, train)
        plain, other = rival(train, test), rescaled(rival, train, test)
        for name in TARGETS:
            on_scale = chosen.get(name, False)
            columns[f"{name}_{label}"] = other[name] if on_scale else plain[name]
            if name in T_TARGETS:
                columns[f"{name}_{label}_scaled"] = np.full(len(test), on_scale)
    return columns


def predict_folds(
    frame: pd.DataFrame, rows: pd.DataFrame, predictor: Predictor, count: int = 4, progress: bool = True
) -> pd.DataFrame:
    """`rows` (post-dose rows with `pre_*`) with `fold`, <target>, <target>_q05, <target>_q95 of the predictor fitted
    without the row's fold, and <target>_<rival>.

    Raises:
        ValueError: see `folds_of`.
    """
    import pandas as pd
    from tqdm import tqdm

    parts = []
    folds = folds_of(np.array(sorted(rows["randid"].unique())), count)
    for fold, out in enumerate(tqdm(folds, desc="folds", disable=not progress, file=sys.stderr)):
        left = rows["randid"].isin(out)
        train, test = rows[~left], rows[left].reset_index(drop=True)
        predicted = predictor(frame[~frame["randid"].isin(out)], test)
        columns: dict[str, np.ndarray] = {"fold": np.full(len(test), fold)}
        for name in TARGETS:
            columns[name], columns[f"{name}_q05"], columns[f"{name}_q95"] = (part[name] for part in predicted)
        columns |= _rivals(train, test)
        parts.append(pd.concat([test, pd.DataFrame(columns)], axis=1))
    return pd.concat(parts, ignore_index=True)


def _errors(table: pd.DataFrame, frame: pd.DataFrame, tail: str) -> dict[str, np.ndarray]:
    """Absolute errors [R] by target, NaN where nothing was read; pooled: in SDs of the measure before the dose."""
    found = {name: (table[f"{name}{tail}"] - table[c]).abs().to_numpy(dtype=float) for name, c in TARGETS.items()}
    before = frame[frame["hour"] < 0]
    scaled = [found[name] / float(before[column].std()) for name, column in T_TARGETS.items()]
    return found | {POOLED: np.concatenate(scaled)}


def compared(table: pd.DataFrame, frame: pd.DataFrame, rivals: tuple[str, ...] = RIVALS) -> pd.DataFrame:
    """One line a target and rival: both mean absolute errors, their difference (world less rival) with its paired 95 %
    interval over subjects, and how many of the world's 90 % bands hold the reading."""
    import pandas as pd

    subjects = np.array(sorted(table["randid"].unique()))
    drawn = resamples(len(subjects)).numpy()
    world = _errors(table, frame, "")
    lines = []
    for rival in rivals:
        other = _errors(table, frame, f"_{rival}")
        for name in (*TARGETS, POOLED):
            difference = world[name] - other[name]
            read = ~np.isnan(difference)
            owner = np.tile(table["randid"].to_numpy(), len(T_TARGETS) if name == POOLED else 1)
            sums = np.array([difference[read & (owner == s)].sum() for s in subjects])
            counts = np.array([(read & (owner == s)).sum() for s in subjects])
            means = torch.tensor(sums[drawn].sum(-1) / counts[drawn].sum(-1))
            low, high = percentile_interval(means)
            line = {"measure": name, "rival": rival, "readings": int(read.sum())}
            line |= {"mae_world": world[name][read].mean(), "mae_rival": other[name][read].mean()}
            line |= {"difference": sums.sum() / counts.sum(), "difference_low": low, "difference_high": high}
            if name != POOLED:
                inside = (table[TARGETS[name]] >= table[f"{name}_q05"]) & (table[TARGETS[name]] <= table[f"{name}_q95"])
                line["coverage_90"] = float(inside[table[TARGETS[name]].notna()].mean())
            if f"{name}_{rival}_scaled" in table:
                chosen = table.groupby("fold")[f"{name}_{rival}_scaled"].first()
                line["folds_on_working_scale"] = int(chosen.sum())
            lines.append(line)
    return pd.DataFrame(lines)
