"""The oracle's law pooled with what the fitted trial's arms showed, where a trial of the same doses is foreseen.

The law says what a person's own kinetics, level and sex make of a dose; with few subjects to learn that from, part of
it is noise. The arm's mean change since before the dose says nothing about a person and is right on average. What lies
between the two errs less than either (Bates & Granger 1969, doi 10.1057/jors.1969.103 (k)). Weights are chosen on folds
of training subjects (`trial_folds.choose_pooling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.ecg_drug.trial_rows import TARGETS, TrialPrediction, on_scale, own_unit
from world_models.oracles.ecg_drug.population import TrialModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LAW_ALONE", "SAME_DOSE", "SHIPPED_POOLING", "Pooling", "arm_means", "mixed", "pooled"]

SAME_DOSE = 0.01  # relative


@dataclass(frozen=True)
class Pooling:
    """What the fit's few subjects leave open."""

    widening: float  # of the variance between people: tails are heavier than a normal's of an SD that few subjects gave
    weights: Mapping[str, float]  # target -> of its arm's mean change, the law having the rest; left out: the law alone
    bands: Mapping[str, float]  # target -> factor on the bands' widths


LAW_ALONE = Pooling(1.0, {}, {})
# chosen on folds of all sixteen subjects: `python -m benchmarks.ecg_drug.trial --trial CSV --folds 4` prints it
SHIPPED_POOLING = Pooling(
    widening=1.0,
    weights={"QTcF": 0.25, "TpTe": 0.5, "Twave_amplitude": 0.75, "Twave_asymmetry": 0.5, "Twave_flatness": 0.25},
    bands={
        "QTcF": 1.02,
        "JTpc": 1.04,
        "TpTe": 0.89,
        "PR": 1.10,
        "Twave_amplitude": 0.96,
        "Twave_asymmetry": 1.19,
        "Twave_flatness": 1.16,
        "ERD_30": 1.10,
        "LRD_30": 0.97,
    },
)


def arm_means(model: TrialModel, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Target -> [R] on its working scale: the pre-dose value plus the trial's mean change in that arm at that hour.

    Between hours on a straight line; NaN for a dose or drug that the trial had not.
    """
    hours = np.asarray(model.parameters["course"]["trial_hours"])
    dose = {name: entry["dose_mg"] for name, entry in model.parameters["drugs"].items()} | {"placebo": 0.0}
    cells = list(zip(rows["drug"], rows["hour"], rows["dose_mg"], strict=True))
    known = [d in dose and abs(mg - dose[d]) <= SAME_DOSE * dose[d] for d, _, mg in cells]
    found = {}
    for name, column in TARGETS.items():
        means = model.parameters["arm_means"][column]
        change = [np.interp(h, hours, means[d]) if ok else np.nan for (d, h, _), ok in zip(cells, known, strict=True)]
        found[name] = on_scale(column, rows[f"pre_{column}"].to_numpy(dtype=float)) + np.array(change)
    return found


def mixed(law: np.ndarray, means: np.ndarray, weight: float) -> np.ndarray:
    """The law [R] moved towards the arm's mean, on the working scale; the law alone where that is not known."""
    return np.where(np.isnan(means), law, law + weight * (means - law))


def pooled(model: TrialModel, rows: pd.DataFrame, law: TrialPrediction, pooling: Pooling) -> TrialPrediction:
    """The law's prediction moved towards its arm's mean and its bands widened, both on the working scale."""
    arms = arm_means(model, rows)
    found = TrialPrediction({}, {}, {})
    for name, column in TARGETS.items():
        point, low, high = (on_scale(column, x[name]) for x in law)
        moved = mixed(point, arms[name], pooling.weights.get(name, 0.0))
        band = pooling.bands.get(name, 1.0)
        found.point[name] = own_unit(column, moved)
        found.low[name] = own_unit(column, moved + band * (low - point))
        found.high[name] = own_unit(column, moved + band * (high - point))
    return found
