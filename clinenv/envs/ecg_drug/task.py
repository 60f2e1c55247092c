"""What is wanted when an antiarrhythmic is started in hospital: sinus rhythm, no long QT, no more drug than needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinenv.patients import Patients
from clinenv.rewards import exponential_excess, relative_amount, share_of_time
from clinenv.task import Column, Doses, Menu, Outcomes, Record, Task
from clinenv.view import View
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT
from world_models.protocol import Chart, WorldModel
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.rounding import power

__all__ = ["MENU", "SINGLE_DOSE_MG", "ECGDrugTask", "HarmLimits", "RewardWeights"]

# Two usual doses of each drug, in the order of the table.
MENU = Menu(
    (
        ("nothing", {}),
        *((f"{d.menu_name} {mg:g} mg", {f"{d.name}_mg": mg}) for d in ANTIARRHYTHMICS for mg in d.menu_mg),
    )
)

SINGLE_DOSE_MG = {f"{d.name}_mg": d.largest_single_mg for d in ANTIARRHYTHMICS}
DAILY_DOSE_MG = {f"{d.name}_mg": d.largest_daily_mg for d in ANTIARRHYTHMICS}
_DAILY = tuple(DAILY_DOSE_MG.values())


@dataclass(frozen=True)
class RewardWeights:
    """How much each aim counts. The shapes are published, the weights are a choice: change them with this object."""

    rhythm: float = 10.0  # 48 h wholly in sinus rhythm
    qt_toxicity: float = 10.0  # 48 h at a hazard twice that of a normal QTc; 500 ms throughout costs 3.4
    qtcf_threshold_ms: float = 450.0  # ICH E14's first class of concern
    hazard_per_10_ms: float = 1.06  # 1.05 to 1.07 with each 10 ms of QTc (Drew 2010, PMID 20142454)
    threshold_width_ms: float = 5.0  # rounding of the corner at the threshold
    dose_burden: float = 0.25  # one label's maximum daily dose, of any drug: a tie-breaker towards less
    torsades: float = 20.0  # torsades de pointes: twice what a perfect course can earn


@dataclass(frozen=True)
class HarmLimits:
    """From where on a chart shows harm. What is NaN, or not measured by a world, shows none."""

    qtcf_ms: float = 500.0  # ICH E14's outlier classes that ask for stopping
    qtcf_rise_ms: float = 60.0  # above the admission ECG
    slow_bpm: float = 40.0  # awake, a sign of sinus node disease to act on (ACC/AHA/HRS 2018 bradycardia guideline (k))
    low_mmhg: float = 90.0  # systolic: the usual definition of hypotension
    # Dofetilide's label: contraindicated with verapamil; two days of washout before an interacting drug is begun.
    washout_h: Mapping[str, float] = field(default_factory=lambda: {"dofetilide_mg": 48.0, "verapamil_mg": 24.0})


@dataclass(frozen=True)
class ECGDrugTask(Task):
    """Start of an antiarrhythmic over 48 h. Judged from the chart alone, the same in every world.

    The cost is 1 in a step with any of the harms of `cost_parts`.
    """

    actions: Menu | Doses = MENU
    weights: RewardWeights = field(default_factory=RewardWeights)
    limits: HarmLimits = field(default_factory=HarmLimits)
    horizon_hours: float = 48.0
    name: str = "ECGDrug"
    orders: tuple[str, ...] = tuple(DAILY_DOSE_MG)

    # noise_sd: repeatability of the same ECG variable within the triplicates of trial NCT01873950, pooled over all
    # subjects, drugs and times (doi 10.1038/clpt.2014.155; `python -m benchmarks.ecg_drug.repeatability`). QT, QTcF and
    # J-Tpeak c follow from the others in `reread`. A T amplitude's error hardly grows with it: 15 uV where it is least,
    # 20 where it is largest.
    observation: tuple[Column, ...] = (
        Column("age_years", 60.0, 20.0),
        Column("sex_female", 0.5, 0.5),
        Column("weight_kg", 75.0, 25.0),
        Column("creatinine_clearance_ml_min", 80.0, 40.0),
        Column("potassium_mmol_l", 4.2, 0.8),
        Column("magnesium_mmol_l", 0.85, 0.2),
        Column("hours", 24.0, 24.0),
        Column("clock_hour", 12.0, 12.0),
        Column("heart_rate_bpm", 75.0, 25.0, 2.8, "ecg"),
        Column("pr_ms", 170.0, 40.0, 5.3, "ecg"),
        Column("qrs_ms", 95.0, 20.0, 3.9, "ecg"),
        Column("qt_ms", 400.0, 60.0, 0.0, "ecg"),
        Column("qtcf_ms", 430.0, 50.0, 0.0, "ecg"),
        Column("jt_peak_ms", 220.0, 50.0, 4.7, "ecg"),
        Column("jt_peak_c_ms", 220.0, 50.0, 0.0, "ecg"),
        Column("tpeak_tend_ms", 85.0, 25.0, 2.7, "ecg"),
        Column("t_amplitude_uv", 450.0, 0.5, 18.0, "ecg", log=True),
        Column("t_asymmetry", 0.2, 0.2, 0.055, "ecg"),
        Column("t_flatness", 0.43, 0.1, 0.012, "ecg"),
        Column("erd_30_ms", 45.0, 15.0, 4.6, "ecg"),
        Column("lrd_30_ms", 32.0, 12.0, 3.9, "ecg"),
        Column("atrial_fibrillation", 0.5, 0.5, 0.0, "ecg"),
        Column("av_block", 0.5, 0.5, 0.0, "ecg"),
        Column("systolic_bp_mmhg", 130.0, 30.0),
        Column("baseline_qtcf_ms", 420.0, 40.0),
        Column("arrhythmia_burden", 0.5, 0.5),
        Column("torsades", 0.5, 0.5),
        # more than ten daily doses, or longer ago than two days, reads as that
        Column("total_dose_mg", _DAILY, _DAILY, bounds=((0.0,) * len(_DAILY), tuple(10 * dose for dose in _DAILY))),
        Column("hours_since_dose", 12.0, 12.0, bounds=(0.0, 48.0)),
    )
    records: tuple[Record, ...] = (Record("ecg", {"some": 0.2, "much": 0.5}, ("ecg_mv",)),)
    trend: tuple[str, ...] = (
        "qtcf_ms", "tpeak_tend_ms", "t_amplitude_uv", "pr_ms", "heart_rate_bpm", "arrhythmia_burden",
    )  # fmt: skip

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Terms [B]: rhythm, qt_toxicity, dose_burden, torsades. Time counts by the hours between the two charts."""
        w = self.weights
        hours = after["hours"] - before["hours"]
        sinus = share_of_time(1.0 - after["arrhythmia_burden"], hours, 48.0)
        qtcf = after["qtcf_ms"]
        hazard = exponential_excess(qtcf, w.qtcf_threshold_ms, w.hazard_per_10_ms, 10.0, w.threshold_width_ms)
        new_torsades = (after["torsades"] - before["torsades"]).clamp(min=0.0)
        return {
            "rhythm": sinus * w.rhythm,
            "qt_toxicity": share_of_time(hazard, hours, 48.0) * -w.qt_toxicity,
            "dose_burden": relative_amount(action, _DAILY) * -w.dose_burden,
            "torsades": new_torsades * -w.torsades,
        }

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """1.0 where any of `cost_parts` is, else 0.0."""
        return self.cost_and_parts(before, action, after)[0]

    def cost_and_parts(self, before: Chart, action: Tensor, after: Chart) -> tuple[Tensor, dict[str, Tensor]]:
        """`cost` and the `cost_parts` that it is made of."""
        parts = self.cost_parts(before, action, after)
        total, *others = parts.values()
        for part in others:
            total = torch.maximum(total, part)
        return total, parts

    def cost_parts(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """1.0 or 0.0 [B] each, of the chart after the step: qtc (QTcF > 500 ms, or > 60 ms above the admission ECG),
        av_block (second or third degree), bradycardia (< 40 bpm), hypotension (systolic < 90 mmHg), and, of the orders,
        contraindicated_pair (dofetilide or verapamil with or soon after the other)."""
        limits, qtcf = self.limits, after["qtcf_ms"]
        unknown = torch.full_like(qtcf, torch.nan)  # no comparison with it is true
        found = {
            "qtc": (qtcf > limits.qtcf_ms) | (qtcf - after["baseline_qtcf_ms"] > limits.qtcf_rise_ms),
            "av_block": after.get("av_block", unknown) > 0.5,
            "bradycardia": after.get("heart_rate_bpm", unknown) < limits.slow_bpm,
            "hypotension": after.get("systolic_bp_mmhg", unknown) < limits.low_mmhg,
            "contraindicated_pair": self._pair(before, action),
        }
        return dict(zip(found, torch.stack(list(found.values())).to(torch.float32).unbind(0), strict=True))

    def _pair(self, before: Chart, action: Tensor) -> Tensor:
        """bool [B]: one of the pair is given together with the other, or within the other's washout."""
        (one, one_h), (other, other_h) = ((self.orders.index(n), h) for n, h in self.limits.washout_h.items())
        since = before.get("hours_since_dose", torch.full_like(action, torch.inf))
        gives_one, gives_other = action[:, one] > 0, action[:, other] > 0
        on_one, on_other = gives_one | (since[:, one] < one_h), gives_other | (since[:, other] < other_h)
        return (gives_one & on_other) | (gives_other & on_one)

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """Total: torsades. Peaks: max_qtcf_ms; share_over_500_ms, 1.0 from the first QTcF above 500 ms on."""
        highest = torch.maximum(before["qtcf_ms"], after["qtcf_ms"])
        over = (highest > 500.0).to(torch.float32)
        began = (after["torsades"] - before["torsades"]).clamp(min=0.0)
        return Outcomes({"torsades": began}, {"max_qtcf_ms": highest, "share_over_500_ms": over})

    def terminated(self, chart: Chart) -> Tensor:
        """bool [B]: torsades de pointes."""
        return chart["torsades"] > 0.5

    def reread(self, chart: Chart) -> Chart:
        """QT, QTcF and J-Tpeak c from the read QRS, J-Tpeak, Tpeak-Tend and heart rate."""
        rr = 60.0 / chart["heart_rate_bpm"]
        qt = chart["qrs_ms"] + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]
        return {
            **chart,
            "qt_ms": qt,
            "qtcf_ms": qt / power(rr, QT_EXPONENT),
            "jt_peak_c_ms": chart["jt_peak_ms"] / power(rr, JT_PEAK_EXPONENT),
        }

    def views(self) -> Mapping[str, Callable[[WorldModel, Task], View]]:
        """ "ecg" and "latent": see `clinenv.envs.ecg_drug.views`."""
        from clinenv.envs.ecg_drug.views import ECG_VIEWS

        return ECG_VIEWS

    def patients_of(self, folder: str | Path, world: WorldModel) -> Patients:
        """The WFDB records of a folder."""
        from clinenv.envs.ecg_drug.recorded import RecordedPatients

        return RecordedPatients(folder, world)

    def recalled(self, world: WorldModel) -> tuple[str, ...]:
        """The hour and `trend`; the world must draw an ECG."""
        if "ecg_mv" not in {quantity.name for quantity in world.measures}:
            raise ValueError(f"world {world.name!r} draws no ecg_mv: there is nothing to render; use render_mode=None")
        return ("hours", *self.trend)

    def paint(self, episodes: Any, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
        """uint8 [H, W, 3]: the ECG on paper, and the trend below."""
        from clinenv.rendering.drug_chart import drug_frame

        return drug_frame(episodes, moments, row)
