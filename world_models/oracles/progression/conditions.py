"""How the conditions start and go: rates per year and what age, sex and other conditions make of them.

A rate is per_1000 / 1000 a year for a man of 60 without anything else, times `per_decade` for each ten years above
60 (onsets: up to 90), times `female` in women, times the ratio of every feature that holds. Features are conditions
present ("I10"), conditions ever had ("ever I48"), hidden traits ("smoker", "diabetes", ...), treatments, what these are
for (`state.INDICATIONS`) and pairs of these ("I48 & anticoagulant"); `treatments` adds the treatments' rows,
`mortality` those of death. Targets are onsets ("I48"), resolutions ("resolve I48"), "death" and "bleed".

Sources stand beside each row by name and in `SOURCES` in full; "(k)": from memory, not looked up. Base rates were set
so that simulated incidence and prevalence meet the figures of `benchmarks/progression_probes.py`: they are calibrated,
not read off a table, so they all carry (k). Ratios from cohort studies are taken as causal, which is what a simulator
needs and what no cohort study shows.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ACUTE", "BLEED", "COMPLICATIONS", "FAMILIES", "ONSETS", "RATIOS", "RESOLUTIONS"]
__all__ += ["SOURCES", "Rate", "Ratio"]

SOURCES: dict[str, str] = {
    "k": "clinical knowledge or calibration (k)",
    "framingham-af": "Benjamin 1994, risk factors of atrial fibrillation, PMID 8114238",
    "framingham-stroke": "Wolf 1991, fivefold stroke with atrial fibrillation, PMID 1866765 (k)",
    "framingham-hf": "Levy 1996, hypertension to heart failure 2.0 (men) and 3.3 (women), PMID 8622246 (k)",
    "wang": "Wang 2003, atrial fibrillation and heart failure each lead to the other, PMID 12771006 (k)",
    "interheart": "Yusuf 2004, odds of infarction: smoking 2.87, diabetes 2.37, hypertension 1.91, PMID 15364185 (k)",
    "erfc": "Emerging Risk Factors 2010, diabetes: coronary 2.0, ischaemic stroke 2.27, PMID 20609967 (k)",
    "interstroke": "O'Donnell 2010, stroke: hypertension 2.6, smoking 2.1, PMID 20561675 (k)",
    "cteph": "Pengo 2004, 3.8 % chronic thromboembolic hypertension two years after embolism, PMID 15163775 (k)",
    "vte-recurrence": "Prandoni 2007, recurrent thrombosis 11 % in a year, 40 % in ten, PMID 17296569 (k)",
    "pericarditis": "Imazio 2013 (ICAP), recurrence a third without colchicine, PMID 23992557 (k)",
    "safe-t": "Singh 2005, recurrence of atrial fibrillation after conversion on placebo, PMID 15872201 (k)",
}


class Rate(NamedTuple):
    """How often an event happens, and what age, sex and hidden frailty make of it."""

    per_1000: float  # a year, man of 60
    per_decade: float
    female: float
    family: str  # whose hidden frailty multiplies it


class Ratio(NamedTuple):
    """By what a feature multiplies the rate of an event."""

    target: str  # a code, "resolve CODE", "death" or "bleed"
    feature: str  # of `state.FEATURES`, or two of them joined by " & "
    ratio: float
    source: str  # a key of SOURCES


FAMILIES: tuple[str, ...] = ("vascular", "rhythm", "muscle", "thrombosis", "inflammation", "survival")

ONSETS: dict[str, Rate] = {
    "I10": Rate(34.0, 1.30, 1.00, "vascular"),
    "I11": Rate(0.5, 1.35, 1.05, "vascular"),
    "I20": Rate(2.5, 1.30, 0.80, "vascular"),
    "I21": Rate(2.15, 1.50, 0.45, "vascular"),
    "I25": Rate(3.6, 1.55, 0.50, "vascular"),
    "I26": Rate(0.6, 1.50, 1.00, "thrombosis"),
    "I27": Rate(0.7, 1.40, 1.20, "muscle"),
    "I30": Rate(0.35, 0.95, 0.60, "inflammation"),
    "I31": Rate(0.5, 1.20, 0.90, "inflammation"),
    "I34": Rate(2.5, 1.50, 1.05, "muscle"),
    "I35": Rate(1.8, 1.90, 0.75, "vascular"),
    "I42": Rate(0.7, 1.15, 0.55, "muscle"),
    "I44": Rate(2.2, 1.70, 0.70, "rhythm"),
    "I45": Rate(2.6, 1.50, 0.55, "rhythm"),
    "I47": Rate(1.5, 1.25, 1.00, "rhythm"),
    "I48": Rate(2.4, 2.15, 0.67, "rhythm"),
    "I49": Rate(9.0, 1.35, 0.90, "rhythm"),
    "I50": Rate(1.3, 1.90, 0.80, "muscle"),
    "I51": Rate(1.2, 1.30, 1.60, "muscle"),
    "I63": Rate(1.6, 1.80, 0.85, "vascular"),
    "I70": Rate(2.6, 1.70, 0.80, "vascular"),
    "I73": Rate(1.8, 1.60, 0.75, "vascular"),
    "I82": Rate(0.9, 1.50, 0.95, "thrombosis"),
    "I95": Rate(2.2, 1.55, 1.00, "survival"),
}

# Per year while present, and the ratio for each further year it has lasted (up to five): an atrial fibrillation of
# years hardly converts by itself. Conditions of IRREVERSIBLE have no row. I21 leaves within three months, whatever the
# rate. The acute code I63 names the stroke of the last months; what is left of it is "ever I63".
RESOLUTIONS: dict[str, tuple[float, float]] = {
    "I20": (0.25, 0.90),
    "I21": (12.0, 1.00),
    "I26": (1.6, 1.00),
    "I30": (4.0, 1.00),
    "I31": (1.4, 0.85),
    "I44": (0.10, 0.70),
    "I45": (0.05, 0.70),
    "I47": (1.0, 0.80),
    "I48": (0.50, 0.65),
    "I49": (0.6, 0.85),
    "I50": (0.10, 0.80),
    "I51": (0.9, 0.80),
    "I63": (4.0, 1.00),
    "I82": (1.2, 0.85),
    "I95": (1.5, 0.90),
}

BLEED = Rate(6.0, 1.45, 0.95, "survival")  # major bleeds; about 1 % a year at 70 without anticoagulant (k)

# What brings a patient in at once, or is found because he came.
ACUTE: tuple[str, ...] = ("I20", "I21", "I26", "I30", "I31", "I47", "I48", "I50", "I51", "I63", "I82", "I95")

# Chance that the onset of one condition brings another within the same month, as the codes of one hospital stay come
# together; (k), in round figures of registries of infarction, embolism and heart failure.
COMPLICATIONS: dict[str, dict[str, float]] = {
    "I20": {"I25": 0.25},
    "I21": {"I25": 0.55, "I50": 0.18, "I95": 0.10, "I47": 0.06, "I48": 0.07, "I44": 0.05, "I49": 0.08, "I30": 0.02,
            "I31": 0.02, "I51": 0.02, "I42": 0.05, "I34": 0.04},
    "I26": {"I82": 0.35, "I27": 0.06, "I45": 0.08, "I95": 0.10, "I48": 0.04, "I50": 0.05},
    "I30": {"I31": 0.25, "I48": 0.04},
    "I42": {"I50": 0.25},
    "I47": {"I95": 0.06, "I49": 0.06},
    "I48": {"I50": 0.06, "I95": 0.03, "I49": 0.03},
    "I50": {"I27": 0.06, "I34": 0.06, "I95": 0.06, "I48": 0.05, "I31": 0.03, "I42": 0.08},
    "I51": {"I50": 0.15, "I49": 0.05},
    "I63": {"I48": 0.06, "I70": 0.10},
    "I82": {"I26": 0.20},
}  # fmt: skip

_K: dict[str, dict[str, float]] = {
    "I11": {"I10": 14.0, "diabetes": 1.4},
    "I20": {"I25": 7.0, "I35": 1.6, "ever I20": 3.0, "smoker": 1.3},
    "I21": {"I25": 2.6, "I20": 1.6, "ever I21": 1.4, "I73": 1.4},
    "I25": {"I10": 1.5, "I20": 2.5, "I70": 1.6, "smoker": 1.7},
    "I26": {"I82": 9.0, "I50": 1.7, "smoker": 1.2},
    "I27": {"I26": 4.0, "I50": 3.5, "smoker": 2.5, "I34": 1.8},
    "I30": {"I21": 20.0, "I31": 3.0},
    "I31": {"I30": 40.0, "I50": 2.2, "I27": 1.6, "I21": 4.0},
    "I34": {"I50": 1.8, "I42": 2.0, "I25": 1.4, "I48": 1.3, "ever I21": 1.3},
    "I35": {"I10": 1.3, "I25": 1.3, "I70": 1.3, "smoker": 1.3},
    "I42": {"I25": 2.5, "I21": 5.0, "ever I21": 1.8, "I11": 1.8, "I47": 1.4, "I48": 1.3, "diabetes": 1.4},
    "I44": {"I25": 1.4, "I35": 1.8, "I42": 2.2, "I21": 5.0, "I50": 1.4, "I10": 1.2},
    "I45": {"I26": 4.0, "I27": 2.0, "I25": 1.3, "I42": 1.5, "I44": 1.6},
    "I47": {"I25": 1.6, "I42": 3.5, "I50": 2.0, "I21": 4.0, "ever I21": 1.3, "ever I47": 25.0},
    "I48": {"I42": 1.6, "I27": 1.4, "I26": 1.4, "I49": 1.4, "I45": 1.1},
    "I49": {"I25": 1.3, "I50": 1.6, "I42": 1.7, "ever I49": 4.0, "I34": 1.3},
    "I50": {"I11": 1.8, "I25": 1.6, "I21": 6.0, "ever I21": 1.6, "I34": 1.6, "I35": 2.2, "I42": 4.5, "I27": 1.4,
            "I44": 1.3, "ever I50": 4.0, "smoker": 1.3},
    "I51": {"I50": 1.8, "I42": 1.5, "I21": 4.0},
    "I63": {"I70": 1.5, "I25": 1.2, "I21": 1.8, "ever I63": 3.0, "I42": 1.3, "I50": 1.2},
    "I70": {"I10": 1.5, "I25": 1.6, "smoker": 1.9, "diabetes": 1.4, "I73": 1.8},
    "I73": {"I10": 1.5, "I25": 1.5, "smoker": 3.0, "diabetes": 2.2, "I70": 1.8},
    "I82": {"I26": 5.0, "I50": 1.5},
    "I95": {"I50": 1.7, "I35": 1.4, "I42": 1.7, "diabetes": 1.3, "I44": 1.3, "I21": 3.0},
    "resolve I48": {"I34": 0.7, "I50": 0.7, "I42": 0.8},
    "resolve I50": {"I42": 0.5, "I25": 0.7, "I48": 0.7},
    "bleed": {"I10": 1.2, "I50": 1.3, "ever I63": 1.3, "I73": 1.2, "diabetes": 1.1},
}  # fmt: skip

RATIOS: tuple[Ratio, ...] = (
    *(Ratio(target, feature, ratio, "k") for target, row in _K.items() for feature, ratio in row.items()),
    Ratio("I48", "I10", 1.45, "framingham-af"),
    Ratio("I48", "I50", 5.0, "framingham-af"),  # men 4.5, women 5.9
    Ratio("I48", "I34", 2.0, "framingham-af"),  # valve disease 1.8 and 3.4
    Ratio("I48", "I35", 1.6, "framingham-af"),
    Ratio("I48", "I25", 1.4, "framingham-af"),
    Ratio("I48", "diabetes", 1.5, "framingham-af"),
    Ratio("I48", "ever I48", 130.0, "safe-t"),
    Ratio("I50", "I10", 2.3, "framingham-hf"),
    Ratio("I50", "I48", 2.4, "wang"),
    Ratio("I50", "diabetes", 1.7, "erfc"),
    Ratio("I21", "smoker", 2.87, "interheart"),
    Ratio("I21", "diabetes", 2.37, "interheart"),
    Ratio("I21", "I10", 1.91, "interheart"),
    Ratio("I25", "diabetes", 2.0, "erfc"),
    Ratio("I63", "I48", 5.0, "framingham-stroke"),
    Ratio("I63", "diabetes", 2.27, "erfc"),
    Ratio("I63", "I10", 2.6, "interstroke"),
    Ratio("I63", "smoker", 2.0, "interstroke"),
    Ratio("I27", "ever I26", 8.0, "cteph"),
    Ratio("I26", "ever I26", 20.0, "vte-recurrence"),
    Ratio("I82", "ever I82", 25.0, "vte-recurrence"),
    Ratio("I30", "ever I30", 150.0, "pericarditis"),
)
