"""From the moments of a ward's episode to the picture of `patient_chart`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clinenv.episodes import Episodes
from clinenv.rendering.labels import order_title
from clinenv.rendering.patient_chart import Lane, ResultSeries, chart_image, results
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, ORDERS, inquiry_index

__all__ = ["ward_frame"]

_UNITS = {"mm[Hg]": "mmHg", "Cel": "\u00b0C", "10*3/uL": "10\u00b3/\u00b5L", "1": "", "bpm": "/min"}
_TITLES = {
    "heart_rate_bpm": "Heart rate",
    "map_mmhg": "MAP",
    "spo2_percent": "SpO2",
    "temperature_c": "Temperature",
    "potassium_mmol_l": "Potassium",
    "creatinine_mg_dl": "Creatinine",
    "glucose_mg_dl": "Glucose",
    "haemoglobin_g_dl": "Haemoglobin",
    "lactate_mmol_l": "Lactate",
    "white_cells_k_ul": "White cells",
}
_SHORTEST_H = 24.0  # of the time axis: the first hours are not blown up
_TEST_BAR = 0.85  # of a step: a gap separates the tests of one step from those of the next
_AFTER_REFUSAL_H = 1e-3  # a refusal counts as just after what ended at its hour


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def ward_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one patient, from the moments of its episode, oldest first."""
    task, world = episodes.simulator.task, episodes.simulator.world
    series = []
    for name in task.trend:
        place = inquiry_index(name)
        q = INQUIRIES[place]
        hours, values = results(moments, row, name, place)
        normal = (float(q.normal[0]), float(q.normal[1]))
        series.append(ResultSeries(_title(name), _UNITS.get(q.unit, q.unit), hours, values, normal))
    now = float(moments[-1]["hours"][row])
    start = float(moments[0]["hours"][row])
    chart = episodes.running.chart
    who = "woman" if float(chart["sex_female"][row]) > 0.5 else "man"
    complaints = [c for c, x in zip(COMPLAINTS, chart["complaint"][row].tolist(), strict=True) if x > 0.5]
    title = f"{task.name} in {world.name}: hour {now:g}, {_whereabouts(moments[-1], row)}"
    subtitle = f"A {who} of {float(chart['age_years'][row]):.0f} years, {float(chart['weight_kg'][row]):.0f} kg"
    subtitle += f", admitted for {complaints[0]}" if complaints else ""
    subtitle += ". Green: reference range. Crosses: ordered, not carried out."
    axis = max(start + _SHORTEST_H, now + 2 * float(world.hours_per_step))
    return np.asarray(chart_image(title, subtitle, series, _lanes(moments, row), now, axis))


def _whereabouts(moment: Mapping[str, np.ndarray], row: int) -> str:
    if moment["alive"][row] < 0.5:
        return "died"
    return "went home" if moment["discharged"][row] > 0.5 else "in hospital"


def _lanes(moments: Sequence[Mapping[str, np.ndarray]], row: int) -> list[Lane]:
    """Tests in one lane, then one for each treatment that was given or refused, the most recent first."""
    first = len(INQUIRIES)  # column of the first treatment
    tests: list[tuple[float, float, float]] = []
    spans: dict[int, list[tuple[float, float, float]]] = {}
    refused: dict[int, list[float]] = {}
    for before, after in zip(moments, moments[1:], strict=False):
        start, stop = float(before["hours"][row]), float(after["hours"][row])
        orders = after["orders"][row]
        if not len(orders):
            continue
        asked = int((orders[:first] > 0).sum())
        if asked:
            tests.append((start, start + _TEST_BAR * (stop - start), asked / first))
        for column in (np.flatnonzero(orders[first:] > 0) + first).tolist():
            spans.setdefault(column, []).append((start, stop, float(orders[column]) / float(ORDERS[column].high)))
        if "refused" in after:
            for column in (np.flatnonzero(after["refused"][row, first:]) + first).tolist():
                refused.setdefault(column, []).append(start)
    lanes = [Lane("tests (how many)", tests, test=True)] if tests else []

    def latest(column: int) -> float:
        given_until = [stop for _, stop, _ in spans.get(column, [])]
        return max(given_until + [hour + _AFTER_REFUSAL_H for hour in refused.get(column, [])])

    for column in sorted({*spans, *refused}, key=lambda c: (-latest(c), c)):
        lanes.append(Lane(order_title(ORDERS[column].name), spans.get(column, []), refused.get(column, [])))
    return lanes
