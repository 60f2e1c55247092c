"""A cardiologist's rules for `ECGProgression-v0`: what guidelines say to do with what the ECG's probe reads.

Sources (k unless a number is given): atrial fibrillation, ESC 2020 (doi 10.1093/eurheartj/ehaa612): anticoagulation
from a CHA2DS2-VASc of 2 in men and 3 in women (Lip 2010, doi 10.1378/chest.09-1584), rhythm control by cardioversion,
then drugs, then ablation; heart failure, ESC 2021 (doi 10.1093/eurheartj/ehab368): ACE inhibitor and beta-blocker,
diuretic against congestion; hypertension, ESC/ESH 2018 (doi 10.1093/eurheartj/ehy339): ACE inhibitor first, a diuretic
with it; chronic coronary syndromes, ESC 2019 (doi 10.1093/eurheartj/ehz425), and infarction, ESC 2017 (doi
10.1093/eurheartj/ehx393): beta-blocker, ACE inhibitor, revascularisation; pacing, ESC 2021 (doi
10.1093/eurheartj/ehab364): high-degree block and sick sinus; pulmonary embolism, ESC 2019 (doi
10.1093/eurheartj/ehz405): anticoagulation; prevention, ESC 2021 (doi 10.1093/eurheartj/ehab484): a statin in
atherosclerosis; an SGLT2 inhibitor, a defibrillator and resynchronisation in heart failure, ESC 2021; valves, ESC 2021
(doi 10.1093/eurheartj/ehab395): a new aortic valve in stenosis with symptoms. Intervals between visits are a choice in
their spirit.

Three limits of what is observed: a code does not say how high the block is, so what is implanted asks for a surer
reading; diabetes, one point of the score, is in no chart here; nor are the ejection fraction and the width of the QRS,
for which cardiomyopathy (I42) and I44 stand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.progression import CODES, INTERVALS_MONTHS, ORDERS, TREATMENTS

__all__ = ["KNOBS", "LARGEST", "ProgressionRule", "TunedRule", "cha2ds2_vasc"]

KNOBS = (*(f"read {code}" for code in CODES), "sure of an implant", "months")
LARGEST = 4.0  # a knob turns no further than this, either way

# CHA2DS2-VASc (Lip 2010): a point from each age on, and the scores from which to anticoagulate (ESC 2020)
POINT_FROM_YEARS = (65.0, 75.0)
ANTICOAGULATE_MEN, ANTICOAGULATE_WOMEN = 2.0, 3.0
# Time to the next visit, the first that holds; a choice
MONTHS_AFTER_AN_EVENT, MONTHS_WATCHED, MONTHS_ILL, MONTHS_WELL = 1.0, 3.0, 6.0, 12.0
# A reading of I49 is sick sinus or something else: so much of it counts towards a pacemaker; a choice
SICK_SINUS_SHARE = 0.9

_COLUMN = {q.name: i for i, q in enumerate(ORDERS)}


def cha2ds2_vasc(chart: Chart, has: Tensor) -> Tensor:
    """Score [B], 0 to 8 (no chart here shows diabetes), from age, sex and the conditions has bool [B, C]."""

    def one(*codes: str) -> Tensor:
        return _any_of(has, *codes).to(torch.float32)

    age, very_old = ((chart["age_years"] >= years).to(torch.float32) for years in POINT_FROM_YEARS)
    heart = one("I50", "I42") + one("I10", "I11") + 2.0 * one("I63") + one("I21", "I25", "I70", "I73")
    return heart + (age + very_old) + (chart["sex_female"] > 0.5).to(torch.float32)


def _any_of(has: Tensor, *codes: str) -> Tensor:
    """bool [B]: whether one of the codes is among the conditions has bool [B, C]."""
    return torch.stack([has[:, CODES.index(code)] for code in codes], -1).any(-1)


class ProgressionRule:
    """Reads a condition where the probe is above a threshold; remembers nothing but what the chart shows was done.

    Args:
        threshold: probability from which a condition is taken for present; a number, or one a code [C].
        sure: the same for what gets a pacemaker, a defibrillator, resynchronisation or a new valve.
        measure: what is read: "probe", or "condition" for a clinician who knows the recorded diagnoses (an upper
            bound, no rival).

    Raises:
        ValueError: a threshold outside (0, 1), or another measure.
    """

    def __init__(
        self, threshold: float | Tensor = 0.5, sure: float = 0.8, measure: str = "probe", name: str = "guideline rule"
    ) -> None:
        limits = torch.as_tensor(threshold, dtype=torch.float32)
        if limits.shape not in ((), (len(CODES),)) or not bool(((limits > 0) & (limits < 1)).all()):
            raise ValueError(f"threshold must be one number in (0, 1), or {len(CODES)} of them, got {threshold}")
        if not 0.0 < sure < 1.0:
            raise ValueError(f"sure must be in (0, 1), got {sure}")
        if measure not in ("probe", "condition"):
            raise ValueError(f"measure {measure!r} is unknown; choose probe or condition")
        self.threshold: Tensor = limits
        self.sure: float | Tensor = sure
        self.measure, self.name = measure, name

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        read = chart[self.measure]
        has = read > self.threshold.to(read.device)
        done = chart["treated"] > 0.5

        def any_of(*codes: str) -> Tensor:
            return _any_of(has, *codes)

        def had(treatment: str) -> Tensor:
            return done[:, TREATMENTS.index(treatment)]

        slowest = torch.maximum(read[:, CODES.index("I44")], SICK_SINUS_SHARE * read[:, CODES.index("I49")])
        fibrillates, low, failing = any_of("I48"), any_of("I95"), any_of("I50", "I42")
        ischaemic = any_of("I20", "I21")
        surely = {code: read[:, CODES.index(code)] > self.sure for code in ("I35", "I42", "I44")}
        crt = surely["I42"] & surely["I44"] & ~had("crt")
        icd = surely["I42"] & ~any_of("I21") & ~had("icd")
        valve = surely["I35"] & any_of("I20", "I50") & ~any_of("I63") & ~had("valve_replacement")
        pacemaker = (slowest > self.sure) & ~had("pacemaker") & ~had("crt") & ~crt
        paces = had("pacemaker") | had("crt") | had("icd") | pacemaker | crt | icd
        slow = any_of("I44") & ~paces  # what slows conduction further is kept from these
        bled = chart["bleeding"] > 0.5

        score = cha2ds2_vasc(chart, has)
        needs = torch.where(chart["sex_female"] > 0.5, ANTICOAGULATE_WOMEN, ANTICOAGULATE_MEN)
        # fibrillation that has gone may come back: who was anticoagulated for it stays so
        anticoagulant = ((fibrillates | had("anticoagulant")) & (score >= needs)) | any_of("I26", "I82")
        cardioversion = fibrillates & ~had("cardioversion")
        ablation = (fibrillates & had("cardioversion") & had("antiarrhythmic")) & ~had("ablation")
        antiarrhythmic = (fibrillates & had("cardioversion") | any_of("I47")) & ~slow & ~had("ablation")
        given = {
            "cardioversion": cardioversion,
            "ablation": ablation,
            "pacemaker": pacemaker,
            "revascularisation": ischaemic & ~had("revascularisation"),
            "antiarrhythmic": antiarrhythmic,
            "beta_blocker": (failing | any_of("I20", "I21", "I25", "I48", "I47")) & ~slow & ~low,
            "ace_inhibitor": (any_of("I10", "I11", "I21", "I25") | failing) & ~low,
            "diuretic": any_of("I50", "I11") & ~low,
            "anticoagulant": anticoagulant & ~bled,
            "statin": any_of("I20", "I21", "I25", "I63", "I70", "I73"),
            "sglt2_inhibitor": failing & ~low,
            "icd": icd,
            "crt": crt,
            "valve_replacement": valve,
        }
        soon = any_of("I21", "I26", "I30") | bled | cardioversion | pacemaker | icd | crt | valve
        watched = any_of("I48", "I50", "I42", "I44", "I47", "I20", "I95", "I31", "I82")
        known = has.any(-1)
        months = torch.where(known, MONTHS_ILL, MONTHS_WELL)
        months = torch.where(soon, MONTHS_AFTER_AN_EVENT, torch.where(watched, MONTHS_WATCHED, months))
        orders = torch.zeros(read.shape[0], len(ORDERS), device=read.device)
        for name, yes in given.items():
            orders[:, _COLUMN[name]] = yes.to(torch.float32)
        orders[:, _COLUMN["months_to_next_visit"]] = months
        return orders


class TunedRule(ProgressionRule):
    """The rule with knobs [P] (or [B, P], one set a row) in the columns of KNOBS; all at 0 it is the rule itself.

    A unit of a reading knob moves a threshold by one on the logit scale (up: the rule sees the condition less often),
    one of the last knob doubles the time to the next visit, rounded to an interval of the menu.

    Args:
        threshold: [C] of the rule.
        knobs: see above.
        sure: of the rule.
    """

    def __init__(self, threshold: Tensor, knobs: Tensor, sure: float = 0.8, name: str = "tuned rule") -> None:
        super().__init__(name=name)
        self.knobs = knobs
        self._base = torch.cat([threshold, torch.tensor([sure])])
        self._turn(knobs)

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin with all patients again; single ones need nothing forgotten."""
        if mask is None:
            self._turn(self.knobs)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the knobs of these rows [K]."""
        if self.knobs.ndim == 2:
            self._turn(self._here[rows])

    def _turn(self, knobs: Tensor) -> None:
        """Thresholds and stretch of the knobs of those in the batch."""
        self._here, turned = knobs, knobs[..., :-1]
        moved = torch.where(turned == 0, self._base, (self._base.logit() + turned).sigmoid())
        self.threshold, self.sure, self.stretch = moved[..., :-1], moved[..., -1], knobs[..., -1]

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders of the turned rule."""
        orders = super().act(chart)
        offered = torch.tensor(INTERVALS_MONTHS, device=orders.device)
        distance = (orders[:, -1:].log2() + self.stretch.reshape(-1, 1) - offered.log2()).abs()
        orders[:, -1] = offered[distance.argmin(-1)]
        return orders
