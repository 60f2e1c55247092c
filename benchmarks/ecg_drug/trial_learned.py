"""A learned world for a trial's folds: trained from nothing on courses of an oracle fitted without who is judged.

Its chart stages alone (dynamics, belief, foresight): no ECG is drawn. Moment-to-moment variation is the evidence
bound's own, autoregressive and normal (`normal_residual`), which the diffusion is not needed for. Training goes on where
it was stopped: each set of training subjects has a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.ecg_drug.trial_folds import Law, Predictor, choose_pooling, oracles_law
from benchmarks.ecg_drug.trial_pooling import Pooling
from benchmarks.ecg_drug.trial_rows import TrialPrediction, blind, pre_dose_rows
from benchmarks.ecg_drug.trial_worlds import STEP_H, predict_learned
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.courses import sample_courses
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.train import train_belief, train_dynamics, train_foresight
from world_models.files import write_text
from world_models.oracles.ecg_drug.fit.trial import fit_trial
from world_models.oracles.ecg_drug.population import TrialModel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Budget", "learned_law", "normal_residual", "refitted_learned", "train_on"]

logger = logging.getLogger(__name__)

# whom it learns from: three quarters volunteers as the trial's, the rest patients, who differ in what volunteers share
COHORTS = ("healthy",) * 6 + ("typical", "paroxysmal")
LEAST_BATCH = 16


@dataclass(frozen=True)
class Budget:
    """Training steps of each stage, and patients a step.

    Raises:
        ValueError: a number of steps below 1, or a batch too small for its cohorts.
    """

    dynamics: int = 800
    belief: int = 100
    foresight: int = 100
    batch: int = 128

    def __post_init__(self) -> None:
        for name in ("dynamics", "belief", "foresight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} steps; give 1 or more")
        if self.batch < LEAST_BATCH:
            raise ValueError(f"batch={self.batch} patients are too few for the cohorts; give {LEAST_BATCH} or more")


@torch.no_grad()
def normal_residual(model: ECGWorldModel, hours: float) -> ECGWorldModel:
    """The model, of steps of `hours`, with the residual that its dynamics were trained with.

    An untrained student gives back its noise, so the units of the residual are all there is to set: no centre, and the
    autoregression's innovation as the spread of each coordinate. The shape keeps still.
    """
    fresh, units = ECGWorldModel(model.config), model.residual.diffusion.units
    model.residual.load_state_dict(fresh.residual.state_dict())
    memory = torch.exp(-hours / model.log_memory.exp())
    units.centre.zero_()
    units.scale[:COORDS] = model.log_noise.exp() * (1 - memory.square()).clamp_min(1e-8).sqrt()
    units.scale[COORDS:] = 0.0
    return model.with_options(hours_per_step=hours, cohort="healthy")


def train_on(trial: TrialModel, folder: Path, budget: Budget = Budget()) -> ECGWorldModel:
    """A learned world of half-hour steps, trained from nothing on courses of the oracle with this fit.

    Raises:
        ValueError: `folder` holds the training of another fit or budget.
    """
    told = {"fit": _checksum(trial), **vars(budget), "cohorts": list(COHORTS)}
    path = folder / "budget.json"
    if path.is_file() and json.loads(path.read_text()) != told:
        raise ValueError(f"{folder} was begun with another fit or budget: name another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(told))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the networks' first weights
        model = ECGWorldModel(SMALL)
    draw = partial(sample_courses, cohort=COHORTS, known=0.0, trial=trial)
    begin = time.process_time()
    train_dynamics(model, budget.dynamics, budget.batch, folder, draw)
    train_belief(model, budget.belief, budget.batch, folder, draw)
    train_foresight(model, budget.foresight, budget.batch * 2 // 3, folder, draw)
    logger.info("%s: %.0f s of processor time", folder.name, time.process_time() - begin)
    return normal_residual(model, STEP_H)


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
    work: Path, budget: Budget = Budget(), samples: int = 256, seed: int = 0, inner_worlds: bool = False
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
