"""Which of the conditions present an ECG shows, how strongly and in which form: chance of person and day.

A condition that is present need not show: an old infarction may leave no Q wave, a paroxysm may be over. `VISIBLE`
says how often. What form a condition takes (which territory, which block, which arrhythmia) belongs to the person, so
it is the same at every visit, and the scar of an infarction lies where the infarction was.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.quantities.progression import CODES

__all__ = ["FORMS", "VISIBLE", "Shown", "Visible", "form_of", "shown_on_ecg"]


_COLUMN = {code: i for i, code in enumerate(CODES)}


class Visible(NamedTuple):
    """Shares between 0 and 1; on average always + (1 - always) * share of the ECGs show the condition."""

    always: float  # of the patients in whom every ECG shows it
    share: float  # of the ECGs that show it in all others


# All (k): the order of magnitude in textbooks and reviews, for ECGs taken while the diagnosis stands.
VISIBLE: dict[str, Visible] = {
    "I10": Visible(0.35, 0.0),  # slightly larger voltages, nothing that a reader would call abnormal
    "I11": Visible(0.60, 0.1),  # voltage criteria alone find far fewer (sensitivity 10-30 %)
    "I20": Visible(0.0, 0.35),  # the resting ECG is normal in half or more
    "I21": Visible(0.0, 0.90),
    "I25": Visible(0.65, 0.0),  # Q waves regress or never formed in a third
    "I26": Visible(0.0, 0.75),  # normal in about a quarter
    "I27": Visible(0.70, 0.1),
    "I30": Visible(0.0, 0.80),
    "I31": Visible(0.0, 0.70),
    "I34": Visible(0.60, 0.0),
    "I35": Visible(0.65, 0.1),
    "I42": Visible(0.85, 0.0),
    "I44": Visible(0.90, 0.7),  # second degree comes and goes
    "I45": Visible(0.92, 0.5),  # so does pre-excitation
    "I47": Visible(0.0, 0.40),  # paroxysmal
    "I48": Visible(0.60, 0.5),  # persistent in 60 %; paroxysmal in the rest: 80 % in all
    "I49": Visible(0.15, 0.65),
    "I50": Visible(0.75, 0.5),
    "I51": Visible(0.0, 0.85),
    "I63": Visible(0.0, 0.40),
    "I70": Visible(0.0, 0.0),
    "I73": Visible(0.0, 0.0),
    "I82": Visible(0.0, 0.0),
    "I95": Visible(0.0, 0.75),
}

# What form it takes in whom, and in what share of them (k).
FORMS: dict[str, tuple[tuple[str, float], ...]] = {
    "territory": (("anterior", 0.42), ("inferior", 0.40), ("lateral", 0.18)),
    "I21": (("st_elevation", 0.45), ("st_depression", 0.55)),
    "I35": (("stenosis", 0.65), ("regurgitation", 0.35)),
    "I44": (("first_degree", 0.30), ("second_degree", 0.15), ("third_degree", 0.15), ("lbbb", 0.40)),
    "I45": (("rbbb", 0.55), ("anterior_fascicle", 0.30), ("pre_excitation", 0.15)),
    "pathway": (("left_lateral", 0.6), ("septal", 0.4)),  # of pre-excitation
    "I47": (("supraventricular", 0.65), ("ventricular", 0.35)),
    "I48": (("fibrillation", 0.85), ("flutter", 0.15)),
    "I49": (("ventricular_beats", 0.45), ("atrial_beats", 0.25), ("sick_sinus", 0.30)),
    "I50": (("reduced", 0.5), ("preserved", 0.5)),  # of its ejection fraction: the ECG does not tell which
    "ectopic": (("outflow", 0.4), ("left_ventricle", 0.35), ("right_ventricle", 0.25)),
}
_FORM_INDEX = {(name, form): i for name, kinds in FORMS.items() for i, (form, _) in enumerate(kinds)}
_FORM_PURPOSES = tuple(f"form/{name}" for name in FORMS)


class Shown(NamedTuple):
    """What the ECGs of B patients show."""

    weight: Tensor  # float32 [B, C]: 0 where it is absent or does not show, else strength, 0.65 to 1.45
    present: Tensor  # bool [B, C]: the conditions themselves
    forms: dict[str, Tensor]  # int64 [B]: index into FORMS[name]

    def of(self, code: str) -> Tensor:
        """Strength [B] with which a condition shows."""
        return self.weight[:, _COLUMN[code]]

    def has(self, code: str) -> Tensor:
        """bool [B]: the condition is present, shown or not."""
        return self.present[:, _COLUMN[code]]

    def sees(self, code: str, form: str | None = None) -> Tensor:
        """bool [B]: the condition shows (in this form)."""
        seen = self.of(code) > 0
        return seen if form is None else seen & self.is_form(code, form)

    def is_form(self, name: str, form: str) -> Tensor:
        """bool [B]: the form this patient's condition takes whenever it is there."""
        return self.forms[name] == _FORM_INDEX[name, form]


def shown_on_ecg(key: Tensor, t: Tensor, condition: Tensor) -> Shown:
    """What the ECGs [B] of visits t show of the conditions present, bool [B, C]."""
    count = len(CODES)
    person = keys.uniforms(key, 0, (("shown/always", count), ("shown/strength", count), *_FORM_PURPOSES))
    today = keys.uniforms(key, t, (("shown/today", count), ("shown/strength_today", count)))
    always = torch.tensor([VISIBLE[c].always for c in CODES], device=key.device)
    share = torch.tensor([VISIBLE[c].share for c in CODES], device=key.device)
    seen = condition & ((person[:, :count] < always) | (today[:, :count] < share))
    strength = 0.65 + 0.6 * person[:, count : 2 * count] + 0.2 * today[:, count:]
    forms = {name: _chosen(name, person[:, 2 * count + i]) for i, name in enumerate(FORMS)}
    return Shown(seen * strength, condition, forms)


def form_of(key: Tensor, name: str, forms: tuple[str, ...]) -> Tensor:
    """bool [B]: whether what `name` takes in the persons of key [B] is one of these forms."""
    chosen = _chosen(name, keys.uniform(key, 0, f"form/{name}"))
    found = torch.zeros_like(chosen, dtype=torch.bool)
    for form in forms:
        found = found | (chosen == _FORM_INDEX[name, form])
    return found


def _chosen(name: str, point: Tensor) -> Tensor:
    """int64 [B]: the form at point [B], uniform on (0, 1)."""
    chosen, edge = torch.zeros_like(point, dtype=torch.int64), 0.0
    for _, part in FORMS[name][:-1]:
        edge += part
        chosen = chosen + (point >= edge)
    return chosen
