"""How the old die: a background by age and sex, and what each condition adds to it.

`BACKGROUND` is the death rate of people who have none of the conditions and risks, `EXCESS` the ratios of those who do,
`FATALITY` what an onset kills of at once. The background is what the life table leaves once the excess of a community's
conditions is taken off, so that adults as they live (cohort "community", under the drugs they come with) die as the
table says: `python -m benchmarks.progression.calibrate_mortality` prints it, and `benchmarks.progression.probes` shows
how far from the table each age and sex ends.

The log excess of all that a person has counts in full up to `FULL`, and `FURTHER` of what goes beyond it: ratios of
single diseases do not multiply without end. From 70 on it fades, as relative risks do with age (Prospective Studies
Collaboration 2002, doi 10.1016/S0140-6736(02)11911-8); by how much, is assumed, as are both figures before.

Life table: `world_models.life_table`. Ratios of cohort studies are taken as causal; most are of people in their sixties
and seventies.
"""

from __future__ import annotations

import math

from torch import Tensor

from world_models.oracles.progression.conditions import Ratio

__all__ = ["BACKGROUND", "EXCESS", "FATALITY", "LETHAL", "OLDEST_YEARS", "SOURCES", "YOUNGEST_YEARS"]
__all__ += ["combined", "segments"]

SOURCES: dict[str, str] = {
    "k": "clinical knowledge or calibration (k)",
    "erfc-2015": "Emerging Risk Factors 2015, death: diabetes 1.9, stroke 2.1, infarction 2.0, "
    "doi 10.1001/jama.2015.7008",
    "gellert": "Gellert 2012, smokers of 60 and more: death 1.83, doi 10.1001/archinternmed.2012.1397 (k)",
    "framingham-af-death": "Benjamin 1998, death after atrial fibrillation 1.5 (men) and 1.9 (women), PMID 9737513 (k)",
    "kannel": "Kannel 1994 (Framingham), heart failure: death four to eight times as in others of that age, most of it "
    "before beta-blockers, doi 10.1136/hrt.72.2_Suppl.S3 (k)",
    "nkomo": "Nkomo 2006, moderate or severe valve disease: death 1.36, doi 10.1016/S0140-6736(06)69208-8",
    "ross": "Ross 1968, aortic stenosis with symptoms: two to three years to death, doi 10.1161/01.CIR.38.1S5.V-61 (k)",
    "getabi": "Diehm 2009 (getABI), peripheral artery disease: death 1.7 to 1.9, "
    "doi 10.1161/CIRCULATIONAHA.109.865600 (k)",
    "edhag": "Edhag 1976, complete block without a pacemaker: about half die within a year, PMID 1010778 (k)",
}

BACKGROUND: dict[int, tuple[float, float]] = {  # the same of people without any condition or risk; calibrated
    40: (1.73, 0.998),
    50: (3.03, 1.95),
    60: (5.74, 3.6),
    70: (8.47, 6.2),
    80: (22.9, 18.1),
    90: (86.0, 69.8),
    100: (237.0, 205.0),
}
YOUNGEST_YEARS, OLDEST_YEARS = float(min(BACKGROUND)), float(max(BACKGROUND))

FULL, FURTHER = math.log(6.0), 0.4
_FADES_FROM_YEARS, _FADES_PER_YEAR, _LEAST = 70.0, 0.02, 0.6

# Died of at once, at 60; 1.4 times a decade (k).
FATALITY: dict[str, float] = {"I21": 0.06, "I26": 0.05, "I63": 0.09}

_ROWS: tuple[tuple[str, float, str], ...] = (
    ("I50", 3.0, "kannel"),  # with the next row 6
    ("ever I50", 2.0, "k"),
    ("I21", 2.5, "k"),
    ("I25", 1.5, "erfc-2015"),  # with the next row 1.95 for who had an infarction
    ("ever I21", 1.3, "erfc-2015"),
    ("ever I63", 2.1, "erfc-2015"),
    ("I48", 1.6, "framingham-af-death"),
    ("I26", 1.8, "k"),
    ("I27", 1.6, "k"),
    ("I35", 1.25, "nkomo"),
    ("tight_valve", 2.5, "ross"),
    ("I34", 1.25, "nkomo"),
    ("I42", 1.5, "k"),
    ("I47", 1.25, "k"),
    ("I44", 1.1, "k"),
    ("blocked", 3.0, "edhag"),  # second degree and third; of the third alone more
    ("blocked & paced", 1.0 / 3.0, "edhag"),  # takes it away again
    ("I70", 1.15, "k"),
    ("I73", 1.6, "getabi"),
    ("I95", 1.3, "k"),
    ("I10", 1.1, "k"),
    ("I11", 1.2, "k"),
    ("smoker", 1.83, "gellert"),
    ("diabetes", 1.9, "erfc-2015"),
)
EXCESS: tuple[Ratio, ...] = tuple(Ratio("death", *row) for row in _ROWS)
# What an old person who came to be old is less likely to have; see `entry`.
LETHAL: tuple[str, ...] = ("I21", "I25", "I26", "I27", "I35", "I42", "I44", "I47", "I48", "I50", "I63", "I73")


def combined(excess: Tensor, age_years: Tensor) -> Tensor:
    """Log ratio of death [B] of those whose rows of `EXCESS` sum to excess [B], at ages [B]."""
    counted = excess.clamp_max(FULL) + (excess - FULL).clamp_min(0.0) * FURTHER
    return counted * (1.0 - (age_years - _FADES_FROM_YEARS) * _FADES_PER_YEAR).clamp(_LEAST, 1.0)


def segments() -> tuple[list[float], list[float]]:
    """Log rates per year at the beginning of each decade of `BACKGROUND`, and their rise per year of age: men, women.

    Below the first age the first decade's line goes on; from the last age on the rate stays.
    """
    at, slope = [], []
    for sex in range(2):
        logs = [math.log(both[sex] / 1000.0) for both in BACKGROUND.values()]
        at += logs[:-1]
        slope += [(b - a) / 10.0 for a, b in zip(logs, logs[1:], strict=False)]
    return at, slope
