"""The dofetilide label's in-hospital initiation rule as a state machine over a batch of patients.

Source: TIKOSYN (dofetilide) prescribing information, Pfizer, sections Contraindications and Dosage and Administration
(instructions for individualised dose initiation):

- contraindicated when the baseline QTc is above 440 ms (500 ms with a ventricular conduction abnormality), below a
  creatinine clearance of 20 mL/min, and with verapamil;
- start 500 micrograms twice a day; 250 at a creatinine clearance of 40 to 60 mL/min, 125 at 20 to 40;
- 2 to 3 hours after the first dose: QTc more than 15 % above baseline, or above 500 ms (550 ms with a ventricular
  conduction abnormality): half of it (125 micrograms twice become 125 once a day);
- at any time after the second dose: QTc above 500 ms (550 ms): discontinue.

Where the chart or the menu cannot follow the label: without a creatinine clearance in the chart the kidneys count as
normal; a menu without 125 micrograms gives 250 half as often; the label names no correction formula, and QTcF is used
throughout, also below 60 bpm where the label reads the uncorrected QT. Verapamil counts as on board for a day after its
last dose (five half-lives (k)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import tree
from world_models.protocol import Chart

__all__ = ["DofetilideLabelRule", "label_dose_mg", "menu_row"]

CONTRAINDICATED_QTC_MS = 440.0
CONTRAINDICATED_QTC_WIDE_QRS_MS = 500.0
STOP_QTC_MS = 500.0
STOP_QTC_WIDE_QRS_MS = 550.0
HALVE_RISE = 0.15  # of the baseline QTc, after the first dose
WIDE_QRS_MS = 120.0  # a ventricular conduction abnormality: the usual bundle-branch limit
HOURS_BETWEEN_DOSES = 12.0
HOURS_TO_FIRST_CHECK = 2.0
FULL_MG, HALF_MG, QUARTER_MG = 0.5, 0.25, 0.125  # twice a day
EIGHTH_MG = QUARTER_MG / 2.0  # twice a day; given as QUARTER_MG once
NORMAL_ML_MIN, HALF_ML_MIN, LEAST_ML_MIN = 60.0, 40.0, 20.0  # creatinine clearances of the doses
VERAPAMIL_GONE_H = 24.0
_SLACK_H = 1e-3  # hours are float32 sums of steps


def menu_row(menu: Tensor, orders: Sequence[str], **dose_mg: float) -> int:
    """The row of menu [M, A] that orders just these doses, e.g. `menu_row(menu, names, dofetilide_mg=0.5)`.

    Raises:
        ValueError: no such order, or no row of the menu gives these doses; the message lists what there is.
    """
    unknown = set(dose_mg) - set(orders)
    if unknown:
        raise ValueError(f"no order named {sorted(unknown)}; there are: {', '.join(orders)}")
    wanted = torch.tensor([dose_mg.get(name, 0.0) for name in orders], dtype=menu.dtype, device=menu.device)
    match = torch.isclose(menu, wanted, rtol=1e-4, atol=1e-6).all(-1).nonzero()
    if match.numel() == 0:
        rows = f"its rows ({', '.join(orders)}): {menu.tolist()}"
        raise ValueError(f"no row of the menu orders {dose_mg or 'nothing'}; {rows}")
    return int(match[0, 0])


def label_dose_mg(creatinine_clearance_ml_min: Tensor) -> Tensor:
    """The label's first dose [B] in mg, twice a day, at a creatinine clearance [B] in mL/min; 0: contraindicated."""
    clearance = creatinine_clearance_ml_min
    dose = torch.where(clearance > NORMAL_ML_MIN, FULL_MG, HALF_MG)
    dose = torch.where(clearance < HALF_ML_MIN, QUARTER_MG, dose)
    return torch.where(clearance < LEAST_ML_MIN, 0.0, dose)


class _Course(NamedTuple):
    """Where each patient stands in the rule. All [B]."""

    seen: Tensor  # bool: the baseline visit has been
    baseline_qtc_ms: Tensor  # float32
    stop_qtc_ms: Tensor  # float32: 500, or 550 with a wide QRS
    dose_mg: Tensor  # float32, twice a day: 0.5, 0.25, 0.125, 0.0625, or 0 once contraindicated or stopped
    doses: Tensor  # int64: given so far
    last_dose_hour: Tensor  # float32, on the chart's clock
    checked: Tensor  # bool: the visit after the first dose has been


def _fresh(like: Tensor) -> _Course:
    zero = torch.zeros_like(like, dtype=torch.float32)
    false = torch.zeros_like(like, dtype=torch.bool)
    return _Course(false, zero, zero, zero, torch.zeros_like(like, dtype=torch.int64), zero, false)


class DofetilideLabelRule:
    """500 micrograms every 12 h, less by the kidneys, halved or stopped by the QTc, for those who may have it.

    Args:
        menu: [M, A] orders in mg; needs rows for dofetilide 0.5 mg, 0.25 mg and nothing; one of 0.125 mg is used.
        orders: names of the menu's columns.

    Raises:
        ValueError: the menu lacks one of the three rows.
    """

    name = "dofetilide label rule"

    def __init__(self, menu: Tensor, orders: Sequence[str]) -> None:
        self._nothing = menu_row(menu, orders)
        self._full = menu_row(menu, orders, dofetilide_mg=FULL_MG)
        self._half = menu_row(menu, orders, dofetilide_mg=HALF_MG)
        try:
            self._quarter, rarer = menu_row(menu, orders, dofetilide_mg=QUARTER_MG), 1.0
        except ValueError:  # twice the dose, half as often
            self._quarter, rarer = self._half, 2.0
        self._quarter_h = HOURS_BETWEEN_DOSES * rarer
        self._verapamil = list(orders).index("verapamil_mg") if "verapamil_mg" in orders else None
        self._course: _Course | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget every course, or those of mask bool [B]: their next chart is the baseline visit."""
        if mask is None or self._course is None:
            self._course = None
            return
        self._course = tree.where(mask, _fresh(mask), self._course)

    def act(self, chart: Chart) -> Tensor:
        """int64 [B]. Reads hours, qtcf_ms, baseline_qtcf_ms and qrs_ms; where the chart has them,
        creatinine_clearance_ml_min and hours_since_dose."""
        hours, qtc = chart["hours"], chart["qtcf_ms"]
        course = self._course
        if course is None or course.seen.shape[0] != hours.shape[0]:
            course = _fresh(hours)

        # The baseline visit: may the drug be started at all?
        first = ~course.seen
        wide = chart["qrs_ms"] >= WIDE_QRS_MS
        limit = torch.where(wide, CONTRAINDICATED_QTC_WIDE_QRS_MS, CONTRAINDICATED_QTC_MS)
        allowed = chart["baseline_qtcf_ms"] <= limit
        baseline = torch.where(first, chart["baseline_qtcf_ms"], course.baseline_qtc_ms)
        stop = torch.where(first, torch.where(wide, STOP_QTC_WIDE_QRS_MS, STOP_QTC_MS), course.stop_qtc_ms)
        kidneys = chart.get("creatinine_clearance_ml_min", torch.full_like(qtc, NORMAL_ML_MIN + 1.0))
        dose = torch.where(first, torch.where(allowed, label_dose_mg(kidneys), 0.0), course.dose_mg)

        # The visit 2 h or more after the first dose: halve. One chance only, as the label has it.
        since = hours - course.last_dose_hour
        due = (course.doses == 1) & ~course.checked & (since >= HOURS_TO_FIRST_CHECK - _SLACK_H)
        long = (qtc > baseline * (1.0 + HALVE_RISE)) | (qtc > stop)
        dose = torch.where(due & long, (0.5 * dose).clamp_min(EIGHTH_MG) * (dose > 0), dose)

        # Any visit after the second dose: stop for good.
        dose = torch.where((course.doses >= 2) & (qtc > stop), torch.zeros_like(dose), dose)

        wait = torch.where(dose > QUARTER_MG, HOURS_BETWEEN_DOSES, self._quarter_h)
        wait = torch.where(dose < QUARTER_MG, 2.0 * self._quarter_h, wait)
        give = (dose > 0) & ((course.doses == 0) | (since >= wait - _SLACK_H)) & ~self._on_verapamil(chart)
        self._course = _Course(
            seen=torch.ones_like(first),
            baseline_qtc_ms=baseline,
            stop_qtc_ms=stop,
            dose_mg=dose,
            doses=course.doses + give.to(torch.int64),
            last_dose_hour=torch.where(give, hours, course.last_dose_hour),
            checked=course.checked | due,
        )
        row = torch.where(dose > 0.5 * (FULL_MG + HALF_MG), self._full, self._half)
        row = torch.where(dose < 0.5 * (HALF_MG + QUARTER_MG), self._quarter, row)
        return torch.where(give, row, self._nothing)

    def _on_verapamil(self, chart: Chart) -> Tensor:
        """bool [B]: verapamil was swallowed within VERAPAMIL_GONE_H."""
        if self._verapamil is None or "hours_since_dose" not in chart:
            return torch.zeros_like(chart["hours"], dtype=torch.bool)
        return chart["hours_since_dose"][:, self._verapamil] < VERAPAMIL_GONE_H
