"""What the oracle knows of its patients between two steps."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.oracles.ecg_drug.cohorts import FACTORS
from world_models.oracles.ecg_drug.fibrillation import Fibrillation
from world_models.oracles.ecg_drug.harms import HarmState
from world_models.oracles.ecg_drug.kinetics import Pace
from world_models.oracles.ecg_drug.population import Amounts, Individual
from world_models.oracles.ecg_drug.rhythm import ArrhythmiaState

__all__ = ["FACTOR_COLUMN", "ECGDrugState"]

FACTOR_COLUMN = {q.name: i for i, q in enumerate(FACTORS)}  # of `ECGDrugState.factors`


class ECGDrugState(NamedTuple):
    """B patients. Hidden state included: this is the oracle's."""

    key: Tensor  # int64 [B] random numbers to come
    t: Tensor  # int64 [B] steps since admission
    factors: Tensor  # [B, F] float32 in the order of `FACTORS`
    own: Tensor  # [B, 10] ENDPOINTS without drug, time of day and variation, on their working scales (`scales`)
    now: Tensor  # [B, 10] ENDPOINTS of the present ECG, in their own units
    individual: Individual  # kinetics and sensitivity
    pace: Pace  # what one step of the oracle does to what is on board
    level_per_mg: Tensor  # [B, D] area under the plasma curve of one mg, ng/mL h
    amounts: Amounts  # drug on board
    concentration: Tensor  # [B, D] plasma, ng/mL, now
    rhythm: ArrhythmiaState
    fibrillation: Fibrillation  # of the present ECG
    torsades_risk: Tensor  # [B] factor on the hazard
    harms: HarmState
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D], 96 if never
    morphology: Tensor  # [B, 8, W] amplitudes of the beat's waves in mV, leads I II V1-V6
    residual: Tensor  # [B, 8, 200] mV, what they do not express of a recorded beat; [B, 8, 0] where none is recorded
