"""What the risk predictor is trained and judged on: oracle charts, and whether an event follows when dosing stops.

A patient follows a clinic's plan (`courses.dosing`) until a step of his own, and gets nothing more from then on. Every
visit from that step on shows a chart after which nothing is given, so what the following day brings is its label.
Charts and events alone: the oracle's hidden state is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm.courses import dosing, oracle_of
from world_models.ecg_wm.risk.predictor import BASELINE, HORIZON_H, QTCF, rise_ms
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.protocol import Chart

__all__ = ["LONG_QTCF_MS", "LARGE_RISE_MS", "RiskExamples", "risk_examples", "with_gaps"]

LONG_QTCF_MS, LARGE_RISE_MS = 500.0, 60.0  # ICH E14's classes that ask for stopping (k)
GRID_H = 2.0  # ECGs of the day ahead are looked at so often: more of them would find more outliers
COURSE_H = 24.0  # the longest a plan goes on
STOPS_AT_ONCE = 0.1  # share of the patients who get nothing at all, besides those whose plan is nothing
GAPPY, GAP = 0.5, 0.25  # share of charts with gaps, and of such a chart's measures that are missing
NO_QTCF, NO_BASELINE = 0.03, 0.1  # share of charts without these two


class RiskExamples(NamedTuple):
    """N charts and what followed. Patients of a batch stand in the same order at each of its visits."""

    inputs: Tensor  # [N, I] in the order of the names asked for
    qtcf_ms: Tensor  # [N]
    rise_ms: Tensor  # [N]
    outcome: Tensor  # [N, 2] 0 or 1, in the order of predictor.RISKS
    patient: Tensor  # int64 [N]: number within the batch
    cohort: Tensor  # int64 [N]: place in sorted(COHORTS)
    hours: Tensor  # [N] since admission


@torch.no_grad()
def risk_examples(
    key: Tensor, inputs: Sequence[str], hours_per_step: float = 2.0, visits: int = 4, cohort: str | None = None
) -> RiskExamples:
    """Examples of the patients with these keys [B], an equal share of every cohort (or all of one).

    Args:
        inputs: names of the measures besides QTcF; one that the oracle does not chart is NaN.
        visits: how many visits of each patient are kept, drawn from those after which nothing more is given.

    Raises:
        ValueError: a step that does not divide GRID_H.
    """
    stride = GRID_H / hours_per_step
    if stride != int(stride) or stride < 1:
        raise ValueError(f"hours_per_step={hours_per_step:g} must divide {GRID_H:g} h; give 0.5, 1 or 2")
    ahead, most = int(HORIZON_H / hours_per_step), int(COURSE_H / hours_per_step)
    names = [cohort] if cohort else sorted(COHORTS)
    device = str(key.device)
    parts = [(n, k) for n, k in zip(names, key.chunk(len(names)), strict=False)]
    state = tree.cat([admit(oracle_of(n, hours_per_step, device), k, {}) for n, k in parts])
    place = torch.cat([torch.full_like(k, sorted(COHORTS).index(n)) for n, k in parts])
    # Once admitted, patients differ by cohort only in the torsades risk at the same QTcF: those of one go together.
    risks = {n: COHORTS[n].torsades_risk for n, _ in parts}
    oracles = {risk: oracle_of(n, hours_per_step, device) for n, risk in risks.items()}
    risk = torch.cat([torch.full_like(k, risks[n], dtype=torch.float32) for n, k in parts])
    rows = [(risk == r).nonzero().flatten() for r in oracles]
    back = torch.cat(rows).argsort()
    stop = torch.floor(keys.uniform(key, 0, "risk/stop") * (most + 1)).long()
    stop = torch.where(keys.uniform(key, 0, "risk/never") < STOPS_AT_ONCE, 0, stop)
    actions = dosing(keys.fold(key, "risk/plan"), most, hours_per_step)
    step = torch.arange(most + 1, device=key.device)
    actions = torch.where((step < stop.unsqueeze(-1)).unsqueeze(-1), actions, 0.0)
    needed = {*inputs, QTCF, BASELINE, "torsades", "hours"}
    worlds, states = list(oracles.values()), [tree.take(state, chosen) for chosen in rows]

    def seen() -> Chart:
        parted = [world.observe(s) for world, s in zip(worlds, states, strict=True)]
        return {n: torch.cat([c[n] for c in parted])[back] for n in parted[0] if n in needed}

    charts = [seen()]
    for i in range(most + ahead):
        dose = actions[:, min(i, most)]  # the last one is nothing: no plan goes on beyond it
        states = [w.transition(s, dose[r]) for w, s, r in zip(worlds, states, rows, strict=True)]
        charts.append(seen())
    return _examples(key, charts, inputs, stop, visits, most, int(stride), place)


def _examples(
    key: Tensor,
    charts: list[Chart],
    inputs: Sequence[str],
    stop: Tensor,
    visits: int,
    most: int,
    stride: int,
    place: Tensor,
) -> RiskExamples:
    """The kept visits of the courses, `visits` a patient."""
    over = {n: torch.stack([c[n] for c in charts]) for n in charts[0]}  # [T, B]
    nan = torch.full_like(over[QTCF], float("nan"))
    table = torch.stack([over.get(n, nan) for n in inputs], -1)
    rise = rise_ms(over)
    outlier = (over[QTCF] > LONG_QTCF_MS) | (rise > LARGE_RISE_MS)
    batch = torch.arange(len(stop), device=key.device)
    found = []
    for v in range(visits):
        at = stop + torch.floor(keys.uniform(key, v, "risk/visit") * (most - stop + 1)).long()
        window = at + stride * torch.arange(int(HORIZON_H / GRID_H) + 1, device=key.device).unsqueeze(-1)  # [W, B]
        long = outlier.gather(0, window).any(0)
        # Torsades that lies behind is no event to come, and no clinic asks for its risk: such charts are left out.
        before = over["torsades"][at, batch] > 0.5
        struck = (over["torsades"].gather(0, window) > 0.5).any(0)
        outcome = torch.stack([struck | long, struck], -1).to(torch.float32)
        row = RiskExamples(
            table[at, batch], over[QTCF][at, batch], rise[at, batch], outcome, batch, place, over["hours"][at, batch]
        )
        found.append(RiskExamples(*(x[~before] for x in row)))
    return RiskExamples(*(torch.cat(column) for column in zip(*found, strict=True)))


def with_gaps(key: Tensor, data: RiskExamples, inputs: Sequence[str]) -> RiskExamples:
    """The same charts [N] (keys [N]) as clinics have them: some measures, now and then QTcF itself, are missing."""
    gappy = (keys.uniform(key, 0, "risk/gappy") < GAPPY).unsqueeze(-1)
    missing = gappy & (keys.uniform(key, 0, "risk/gap", (len(inputs),)) < GAP)
    table = torch.where(missing, float("nan"), data.inputs)
    rise = data.rise_ms
    if BASELINE in inputs:
        place = list(inputs).index(BASELINE)
        gone = keys.uniform(key, 0, "risk/baseline") < NO_BASELINE
        column = torch.where(gone, float("nan"), table[:, place])
        table = torch.cat([table[:, :place], column.unsqueeze(-1), table[:, place + 1 :]], -1)
        rise = torch.where(column.isnan(), float("nan"), rise)
    lost = keys.uniform(key, 0, "risk/qtcf") < NO_QTCF
    nan = torch.full_like(data.qtcf_ms, float("nan"))
    return data._replace(
        inputs=table, qtcf_ms=torch.where(lost, nan, data.qtcf_ms), rise_ms=torch.where(lost, nan, rise)
    )
