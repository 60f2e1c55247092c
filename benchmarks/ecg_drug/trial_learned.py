"""A learned world for a trial's folds: trained from nothing on courses of an oracle fitted without who is judged.

Its chart stages alone (`chart_stages`). Training goes on where it was stopped: each set of training subjects has a
folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ecg_drug.chart_stages import Budget, train_chart_stages
from benchmarks.ecg_drug.trial_folds import Law, Predictor, choose_pooling, oracles_law
from benchmarks.ecg_drug.trial_pooling import Pooling
from benchmarks.ecg_drug.trial_rows import TrialPrediction, blind, pre_dose_rows
from benchmarks.ecg_drug.trial_worlds import STEP_H, predict_learned
from world_models.ecg_wm.courses import sample_courses
from world_models.ecg_wm.model import ECGWorldModel
from world_models.oracles.ecg_drug.fit.trial import fit_trial
from world_models.oracles.ecg_drug.population import TrialModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["learned_law", "refitted_learned", "train_on"]

logger = logging.getLogger(__name__)

# whom it learns from: three quarters volunteers as the trial's, the rest patients, who differ in what volunteers share
COHORTS = ("healthy",) * 6 + ("typical", "paroxysmal")


def train_on(trial: TrialModel, folder: Path, budget: Budget) -> ECGWorldModel:
    """A learned world of half-hour steps, trained from nothing on courses of the oracle with this fit.

    Raises:
        ValueError: `folder` holds the training of another fit or budget.
    """
    draw = partial(sample_courses, cohort=COHORTS, known=0.0, trial=trial)
    told = {"fit": _checksum(trial), "cohorts": list(COHORTS)}
    return train_chart_stages(folder, budget, draw, told, STEP_H).with_options(cohort="healthy")


def _checksum(trial: TrialModel) -> str:
    """Short checksum of a fit's parameters."""
    text = json.dumps(trial.parameters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _trained(work: Path, budget: Budget, train: pd.DataFrame) -> tuple[TrialModel, ECGWorldModel]:
    """The fit to these people, and the world taught by it, in a folder of these people's own."""
    trial = TrialModel(fit_trial(train, standard_errors=False))
    subjects = sorted(str(s) for s in train["randid"].unique())
    name = hashlib.sha256(",".join(subjects).encode()).hexdigest()[:12]
    return trial, train_on(trial, work / f"of_{len(subjects)}_subjects_{name}", budget)


def learned_law(work: Path, budget: Budget, samples: int = 256, seed: int = 0) -> Law:
    """A learned world trained on the oracle fitted to the training subjects; it has no widening."""

    def law(train: pd.DataFrame) -> tuple[TrialModel, Callable[[pd.DataFrame, float], TrialPrediction]]:
        trial, model = _trained(work, budget, train)

        def foresee(rows: pd.DataFrame, widening: float) -> TrialPrediction:
            return predict_learned(model, trial, rows, samples, seed, Pooling(widening, {}, {}))

        return trial, foresee

    return law


def refitted_learned(
    work: Path, budget: Budget, samples: int = 256, seed: int = 0, inner_worlds: bool = False
) -> Predictor:
    """The learned world of the training subjects, pooled with their arms by weights chosen among them.

    Args:
        work: where training is kept.
        inner_worlds: choose weights and bands with worlds trained anew for each inner fold (four times the work more).
            Otherwise they are those that suit the oracle's law on the inner folds, which the world was taught by.
    """

    def predictor(train: pd.DataFrame, test: pd.DataFrame) -> TrialPrediction:
        law = learned_law(work, budget, samples, seed) if inner_worlds else oracles_law(min(samples, 256), seed)
        pooling = choose_pooling(train, pre_dose_rows(train), law=law, widenings=(1.0,))
        logger.info("pooling: %s", pooling)
        trial, model = _trained(work, budget, train)
        return predict_learned(model, trial, blind(test), samples, seed, pooling)

    return predictor
