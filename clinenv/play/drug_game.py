"""The start of an antiarrhythmic on the page: `ECGDrug-v0` and `ECGDrugContinuous-v0`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.play.game import Fact, Game, Row, unit_shown
from clinenv.rendering.labels import LIMITS, label_and_unit, least_span, order_title
from clinenv.task import Doses
from world_models.oracles.ecg_drug.cohort_table import COHORTS
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS, MEASURES
from world_models.quantity import by_name

__all__ = ["CONTINUOUS", "DRUG", "ORDER_NAMES", "numbers"]

_ECG = (
    "heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtcf_ms", "jt_peak_c_ms", "tpeak_tend_ms", "t_amplitude_uv",
    "atrial_fibrillation", "av_block",
)  # fmt: skip
_STATE = ("systolic_bp_mmhg", "arrhythmia_burden", "torsades")
_WORDS = {
    "arrhythmia_burden": ("Time in the arrhythmia, of the last 2 h", "%"),
    "systolic_bp_mmhg": ("Systolic pressure", "mmHg"),
    "atrial_fibrillation": ("Atrial fibrillation (1: on this ECG)", ""),
    "av_block": ("AV block, second degree or more (1: yes)", ""),
    "torsades": ("Torsades de pointes (1: it has come)", ""),
}
ORDER_NAMES = {f"{drug}_mg": (order_title(f"{drug}_mg"), "Doses, by mouth, now") for drug in DRUGS}


def _row(name: str, group: str) -> Row:
    label, unit = _WORDS.get(name) or (label_and_unit(name)[0], unit_shown(by_name(MEASURES, name).unit))
    digits = 0
    span = 10.0 if unit == "%" else 1.0 if not unit else least_span(name)
    return Row(name, label, unit, group, digits, None, LIMITS.get(name), span)


def numbers(chart: Chart) -> Tensor:
    """The values [B, R] of the game's rows in their units; NaN where one is not known."""
    unknown = torch.full_like(chart["hours"], torch.nan)
    shown = [chart.get(name, unknown) * (100.0 if name == "arrhythmia_burden" else 1.0) for name in (*_ECG, *_STATE)]
    return torch.cat((torch.stack(shown, -1), chart["total_dose_mg"]), -1)


def _read(chart: Chart) -> dict[str, float | None]:
    values = zip((row.key for row in _ROWS), numbers(chart)[0].tolist(), strict=True)
    return {name: None if math.isnan(value) else value for name, value in values}


def _facts(chart: Chart) -> list[Fact]:
    def number(name: str) -> float:
        return float(chart[name][0])

    return [
        Fact("Age", f"{number('age_years'):.0f} years"),
        Fact("Sex", "female" if number("sex_female") > 0.5 else "male"),
        Fact("Weight", f"{number('weight_kg'):.0f} kg"),
        Fact("Creatinine clearance", f"{number('creatinine_clearance_ml_min'):.0f} mL/min"),
        Fact("Potassium", f"{number('potassium_mmol_l'):.1f} mmol/L"),
        Fact("Magnesium", f"{number('magnesium_mmol_l'):.2f} mmol/L"),
        Fact("QTcF at admission", f"{number('baseline_qtcf_ms'):.0f} ms"),
    ]


_ROWS = (
    *(_row(name, "ECG") for name in _ECG),
    *(_row(name, "Patient") for name in _STATE),
    *(Row(f"total_{drug}", f"{drug.capitalize()}, given so far", "mg", "Given", 2 if drug == "dofetilide" else 0)
      for drug in DRUGS),
)  # fmt: skip
_COHORTS = {"typical": COHORTS["typical"].meaning} | {name: cohort.meaning for name, cohort in COHORTS.items()}

DRUG = Game(
    id="ECGDrug-v0",
    title="Starting an antiarrhythmic",
    goal="48 hours in hospital: bring the patient back to sinus rhythm without a long QT, and with little drug.",
    task=ECGDrugTask,
    cohorts=_COHORTS,
    rows=_ROWS,
    trend=("qtcf_ms", "arrhythmia_burden", "heart_rate_bpm", "pr_ms", "qrs_ms", "systolic_bp_mmhg"),
    read=_read,
    facts=_facts,
    clock="h",
    reward_unit="points",
    ecg_rate_hz=500.0,
)
CONTINUOUS = replace(DRUG, id="ECGDrugContinuous-v0", task=lambda: ECGDrugTask(actions=Doses(SINGLE_DOSE_MG)))
