"""observation="text": the chart as a progress note, for agents that read.

Every charted value stands in it once, new ones first, with unit, age and a mark where it is outside its reference
range; what was never measured is named as such. The words are ours alone: no note of a patient was used.
"""

from __future__ import annotations

import string
from typing import Any

from gymnasium import spaces
from torch import Tensor, cat

from clinenv.envs.ehr_ward.event_view import StepView
from clinenv.rendering.labels import order_title
from clinenv.task import Task
from clinenv.view import Kept
from world_models.protocol import Chart, WorldModel
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    MAX_HOURS_SINCE,
    ORGANISMS,
    Inquiry,
)

__all__ = ["NoteView"]

LONGEST = 12000  # characters; with every value charted and every order given a note has some 9000
_CONDITIONS = {
    "chronic_kidney_disease": "chronic kidney disease",
    "diabetes": "diabetes",
    "chronic_heart_failure": "heart failure",
}
_UNITS = {"mm[Hg]": "mmHg", "Cel": "C", "10*3/uL": "10^3/uL", "1": "", "[U]/h": "units/h", "[U]/min": "units/min"}
_UNITS |= {"[U]/kg/h": "units/kg/h", "bool": "", "fraction": ""}
_SHORT = {"ph": "pH", "gcs": "GCS", "inr": "INR", "crp": "CRP", "alt": "ALT", "bnp": "BNP", "ptt": "PTT", "map": "MAP"}
_SHORT |= {"sbp": "SBP", "dbp": "DBP", "pco2": "PaCO2", "po2": "PaO2", "spo2": "SpO2"}


def _title(name: str) -> str:
    """A measure's name in words: of an inquiry without its unit."""
    stem = name.removeprefix("inquire_")
    return _SHORT.get(stem, stem.replace("_", " "))


_NAMES = tuple(_title(q.order) for q in INQUIRIES)
_DRUGS = {q.name: order_title(q.name) for q in INTERVENTIONS}
_DRUG_UNITS = {q.name: "units" if q.name.endswith("_units") else _UNITS.get(q.unit, q.unit) for q in INTERVENTIONS}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _age(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def _result(q: Inquiry, name: str, value: float, age: float) -> str:
    if q.kind == "culture":
        grown = ORGANISMS[round(value)].replace("_", " ")
        words = "no growth" if round(value) == 0 else grown
        return f"{name}: {words} (drawn {age:g} h ago)"
    low, high = q.normal
    mark = ", low" if value < low else ", high" if value > high else ""
    unit = _UNITS.get(q.unit, q.unit)
    return f"{name} {_number(value)}{' ' + unit if unit else ''} ({_age(age)} h ago{mark})"


class NoteView(StepView):
    """`Text` of at most LONGEST printable characters and newlines."""

    space = spaces.Text(
        LONGEST, min_length=1, charset=string.ascii_letters + string.digits + string.punctuation + " \n"
    )

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        self._hours_per_step = float(world.hours_per_step)

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> Tensor:
        """[B, n + width]: what the note says, as numbers; `release` makes words of them."""
        return cat(list(kept), -1)

    def release(self, observation: Tensor) -> Any:
        """B notes."""
        observation = observation.cpu()
        row, past = observation[:, : -self.width], self.remembered(observation[:, -self.width :])
        return tuple(self._note(row[i], past.given[i], past.new[i]) for i in range(len(row)))  # strings: one by one

    def _note(self, row: Tensor, given: Tensor, new: Tensor) -> str:
        of = dict(zip(self.layout.names, row.tolist(), strict=True))
        complaint = max(range(len(COMPLAINTS)), key=lambda i: of[f"complaint[{i}]"])
        came = (
            COMPLAINTS[complaint].replace("_", " ") if of[f"complaint[{complaint}]"] > 0.5 else "an unknown complaint"
        )
        known = [words for name, words in _CONDITIONS.items() if of[name] > 0.5]
        who = "woman" if of["sex_female"] > 0.5 else "man"
        lines = [
            f"Hour {of['hours']:g} of the stay.",
            f"A {who} of {of['age_years']:.0f} years, {of['weight_kg']:.0f} kg, admitted for {came}. "
            f"Known before: {', '.join(known) if known else 'nothing of note'}.",
        ]
        fresh: list[str] = []
        older: list[str] = []
        never: list[str] = []
        out: list[str] = []
        for i, q in enumerate(INQUIRIES):
            if of[f"inquiry_pending[{i}]"] > 0.5:
                out.append(_NAMES[i])
            if of[f"inquiry_seen[{i}]"] <= 0.5:
                never.append(_NAMES[i])
                continue
            said = _result(q, _NAMES[i], of[q.name], of[f"inquiry_age_hours[{i}]"])
            (fresh if bool(new[i]) else older).append(said)
        for title, words in (("New results", fresh), ("Earlier results", older)):
            lines.append(f"{title}: {'; '.join(words) if words else 'none'}.")
        lines.append(f"Never measured: {', '.join(never) if never else 'nothing'}.")
        lines.append(f"Results awaited: {', '.join(out) if out else 'none'}.")
        doses = given[len(INQUIRIES) :].tolist()
        now, before = [], []
        for j, drug in enumerate(INTERVENTIONS):
            since = of[f"treatment_age_hours[{j}]"]
            if doses[j] > 0:
                now.append(f"{_DRUGS[drug.name]} {_number(doses[j])} {_DRUG_UNITS[drug.name]}".strip())
            elif since < MAX_HOURS_SINCE:
                before.append(f"{_DRUGS[drug.name]} {since:g} h ago")
        step = f"in the last {self._hours_per_step:g} h"
        lines.append(f"Given {step}: {'; '.join(now) if now else 'nothing'}.")
        lines.append(f"Given before: {'; '.join(before) if before else 'nothing'}.")
        return "\n".join(lines)
