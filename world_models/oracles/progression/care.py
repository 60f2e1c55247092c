"""Usual care: a clinician who reads the chart and mostly follows the guidelines, each in his own way.

Drugs and procedures are ordered with chances that depend on the conditions charted, on what is taken already (treatment
tends to go on), on harms (hypotension, heart block, a bleed) and on a taste of the patient's clinician that no chart
shows. So in the same state treatment varies, as it must for its effects to be learnable, and nothing hidden of the
patient drives it: given the chart, orders are as good as randomised.

Chances are those of registries in round figures (k): about 70 % anticoagulated with atrial fibrillation and a
CHA2DS2-VASc of 2 or more (GARFIELD-AF, ORBIT-AF), 80 % on an ACE inhibitor and a beta-blocker in heart failure, two
thirds on a statin with atherosclerosis. Devices are implanted where the chart has what they are for; it tells neither
the ejection fraction nor the width of the QRS, so I42 stands for the first and I44 for the second.
CHA2DS2-VASc: Lip 2010, PMID 19762550 (k).
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys
from world_models.protocol import Chart
from world_models.quantities.progression import CODES, DRUGS, PROCEDURES, TREATMENTS

__all__ = ["cha2ds2_vasc", "history_of_treatment", "usual_care"]

_COLUMN = {code: i for i, code in enumerate(CODES)}
_TASTE_SD = 0.8  # of a clinician's log odds for a treatment
_PERSISTENCE = 1.6  # log odds that a drug already taken gains, and one not taken loses half of
_MONTHS = (1.0, 3.0, 6.0, 12.0)


def _has(condition: Tensor, *codes: str) -> Tensor:
    """bool [B]: any of these is present."""
    found = condition[:, _COLUMN[codes[0]]] > 0.5
    for code in codes[1:]:
        found = found | (condition[:, _COLUMN[code]] > 0.5)
    return found


def cha2ds2_vasc(age_years: Tensor, sex_female: Tensor, condition: Tensor) -> Tensor:
    """Stroke risk score [B], 0 to 8 (diabetes is not charted, so its point is never given)."""
    points = (age_years >= 65.0).to(torch.float32) + (age_years >= 75.0) + (sex_female > 0.5)
    points = points + _has(condition, "I50", "I42") + _has(condition, "I10", "I11")
    return points + 2.0 * _has(condition, "I63") + _has(condition, "I21", "I25", "I70", "I73")


def _chances(age_years: Tensor, sex_female: Tensor, condition: Tensor) -> dict[str, Tensor]:
    """Chance [B] of each treatment in an average clinician's hands, harms and habits left out."""

    def ladder(usual: float, *steps: tuple[Tensor, float]) -> Tensor:
        """The chance of the last step that holds, `usual` where none does."""
        chance = torch.full_like(age_years, usual)
        for holds, value in steps:
            chance = torch.where(holds, torch.full_like(chance, value), chance)
        return chance

    has = lambda *codes: _has(condition, *codes)  # noqa: E731
    risk = cha2ds2_vasc(age_years, sex_female, condition) >= 2.0
    return {
        "cardioversion": ladder(0.0, (has("I48"), 0.08), (has("I47"), 0.08)),
        "ablation": ladder(0.0, (has("I48", "I47"), 0.035)),
        "pacemaker": ladder(0.002, (has("I49"), 0.01), (has("I44"), 0.05)),
        "revascularisation": ladder(0.002, (has("I25"), 0.02), (has("I20"), 0.30), (has("I21"), 0.60)),
        "antiarrhythmic": ladder(0.01, (has("I49"), 0.03), (has("I48"), 0.22), (has("I47"), 0.25)),
        "beta_blocker": ladder(
            0.05, (has("I10"), 0.20), (has("I47", "I48"), 0.65), (has("I20", "I25"), 0.65),
            (has("I21", "I50", "I42"), 0.82),
        ),
        "ace_inhibitor": ladder(
            0.05, (has("I10"), 0.50), (has("I25", "I73"), 0.60), (has("I11", "I21"), 0.70),
            (has("I50", "I42"), 0.80),
        ),
        "diuretic": ladder(0.03, (has("I10"), 0.28), (has("I11", "I27", "I35"), 0.45), (has("I50"), 0.82)),
        "anticoagulant": ladder(0.03, (has("I48"), 0.35), (has("I48") & risk, 0.72), (has("I26", "I82"), 0.92)),
        "statin": ladder(
            0.10, (age_years >= 65.0, 0.25), (has("I10"), 0.38), (has("I20", "I25", "I63", "I70", "I73"), 0.68),
            (has("I21"), 0.88),
        ),
        "sglt2_inhibitor": ladder(0.04, (has("I50", "I42"), 0.28)),
        "icd": ladder(0.0, (has("I47"), 0.02), (has("I50") & has("I25"), 0.02), (has("I42"), 0.06)),
        "crt": ladder(0.0, (has("I44") & has("I50"), 0.04), (has("I44") & has("I42"), 0.10)),
        "valve_replacement": ladder(0.0, (has("I35"), 0.02), (has("I35") & has("I20", "I50"), 0.12)),
    }  # fmt: skip


def _odds(chance: Tensor) -> Tensor:
    safe = chance.clamp(1e-6, 1.0 - 1e-6)
    return (safe / (1.0 - safe)).log()


def usual_care(chart: Chart, key: Tensor, t: Tensor | int) -> Tensor:
    """Orders [B, ORDERS] of `progression.ORDERS` for a chart, by the clinician of key [B] at visit t.

    The clinician's taste is a function of `key` alone, the rest of (key, t).
    """
    condition, treated = chart["condition"], chart["treated"]
    chances = _chances(chart["age_years"], chart["sex_female"], condition)
    taste = keys.normal(key, 0, "progression care/taste", (len(TREATMENTS),)) * _TASTE_SD
    u = keys.uniform(key, t, "progression care/luck", (len(TREATMENTS) + 1,))
    low, block = _has(condition, "I95"), _has(condition, "I44", "I49")
    had = {name: treated[:, i] > 0.5 for i, name in enumerate(TREATMENTS)}
    paced = had["pacemaker"] | had["crt"]
    against = {
        "beta_blocker": 1.2 * low + 1.2 * (block & ~paced),
        "ace_inhibitor": 1.2 * low,
        "diuretic": 1.0 * low,
        "antiarrhythmic": 1.5 * (block & ~paced),
        "anticoagulant": 1.5 * (chart["bleeding"] > 0.5),
        "pacemaker": 20.0 * paced,
        "ablation": 1.0 * had["ablation"],
        "revascularisation": 1.0 * had["revascularisation"],
        "sglt2_inhibitor": 1.0 * low,
        "icd": 20.0 * had["icd"] + 4.0 * _has(condition, "I21"),
        "crt": 20.0 * had["crt"],
        "valve_replacement": 20.0 * had["valve_replacement"] + 1.0 * _has(condition, "I63"),
    }
    orders = []
    for i, name in enumerate(TREATMENTS):
        odds = _odds(chances[name]) + taste[:, i] - against.get(name, 0.0)
        if name in DRUGS:
            odds = odds + _PERSISTENCE * (1.5 * had[name] - 0.5)
        likely = 1.0 / (1.0 + (-odds).exp())
        orders.append(((u[:, i] < likely) & (chances[name] > 0.0)).to(torch.float32))
    acute = _has(condition, "I21", "I26", "I30", "I63", "I31")
    ill = _has(condition, "I50", "I47", "I20", "I82", "I95") | _has(condition, "I48")
    place = u[:, -1] * 0.999 + acute.to(torch.float32) * -0.75 + ill.to(torch.float32) * -0.3 + 0.3
    months = torch.full_like(place, _MONTHS[0])
    for edge, value in ((0.15, _MONTHS[1]), (0.5, _MONTHS[2]), (0.9, _MONTHS[3])):
        months = torch.where(place > edge, torch.full_like(months, value), months)
    return torch.stack((*orders, months), -1)


def history_of_treatment(
    key: Tensor, age_years: Tensor, sex_female: Tensor, condition: Tensor, ever: Tensor
) -> tuple[Tensor, Tensor]:
    """What was done before entry: procedures bool [B, PROCEDURES] and drugs bool [B, DRUGS]; of key and conditions."""
    u = keys.uniform(key, 0, "progression care/history", (len(TREATMENTS),))
    chances = _chances(age_years, sex_female, condition)
    taste = keys.normal(key, 0, "progression care/taste", (len(TREATMENTS),)) * _TASTE_SD
    places = {name: i for i, name in enumerate(TREATMENTS)}
    drugs = [u[:, i] < 1.0 / (1.0 + (-_odds(chances[n]) - taste[:, i]).exp()) for n, i in places.items() if n in DRUGS]
    af, ischaemia, block = _has(ever, "I48", "I47"), _has(ever, "I20", "I21"), _has(condition, "I44")
    weak = _has(condition, "I42")
    for_whom = {  # and what share of them had it
        "cardioversion": (af, 0.25),
        "ablation": (af, 0.10),
        "pacemaker": (block, 0.25),
        "revascularisation": (ischaemia, 0.5),
        "icd": (weak, 0.20),
        "crt": (weak & block, 0.20),
        "valve_replacement": (_has(condition, "I35"), 0.10),
    }
    done = [whom & (u[:, places[name]] < share) for name, (whom, share) in for_whom.items()]
    assert tuple(for_whom) == PROCEDURES
    return torch.stack(done, -1), torch.stack(drugs, -1)
