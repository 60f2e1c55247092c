"""What `probes` lays beside the oracle: ranges, whose they are, and sources; (k) marks what was not looked up.

A range is "published" if its ends are the source's (a confidence interval, as a rule), else "our own".
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BETWEEN", "EXCESS", "ONSETS_PER_1000", "OWN", "PREVALENCE_PERCENT", "PUBLISHED", "RISKS", "TREATED"]
__all__ += ["Excess", "Treated"]

PUBLISHED, OWN = "published", "our own"

PREVALENCE_PERCENT = {  # cardiology outpatients, mean age 64: registries in round figures (k)
    "I10": (45, 65), "I25": (18, 35), "I48": (10, 20), "I50": (8, 20), "I20": (3, 12), "I34": (5, 15), "I35": (3, 10),
    "I44": (3, 10), "I45": (3, 9), "I49": (5, 12), "I70": (5, 15), "I73": (4, 12), "I42": (2, 6),
}  # fmt: skip
ONSETS_PER_1000 = {  # first ones, general population of 65 (k)
    "I10": (25, 60), "I21": (2.5, 8), "I25": (4, 14), "I26": (0.6, 2), "I30": (0.2, 0.6), "I48": (5, 12),
    "I50": (4, 12), "I63": (2.5, 7), "I73": (3, 10), "I82": (1, 3), "I35": (2, 6), "I44": (2, 7), "I45": (2, 6),
    "I47": (1, 5),
}  # fmt: skip
# Of the same life table as `life_table.LIFE_TABLE`, which holds the decades: the background was not set by these.
BETWEEN = {65: (16.01, 9.87), 75: (35.67, 24.93), 85: (97.85, 74.26)}


class Treated(NamedTuple):
    """A treatment's ratio on the rate of an outcome."""

    name: str
    outcome: str
    present: tuple[str, ...]
    before: tuple[str, ...]  # conditions in the history
    low: float
    high: float
    whose: str
    source: str
    traits: tuple[str, ...] = ()  # that all have, of `state.TRAITS`; the others of these nobody
    months: int = 0  # followed; 0: 24, or 48 for rarer onsets


TREATED: tuple[Treated, ...] = (
    Treated("anticoagulant", "I63", ("I48",), (), 0.26, 0.51, PUBLISHED, "Hart 2007 PMID 17577005: 0.36"),
    Treated("anticoagulant", "bleed", ("I48",), (), 1.5, 2.6, OWN, "ARISTOTLE against no drug (k): about 2"),
    Treated("anticoagulant", "I82", (), ("I82",), 0.09, 0.39, PUBLISHED, "EINSTEIN-Ext. PMID 21128814 (k): 0.18"),
    Treated("antiarrhythmic", "I48", (), ("I48",), 0.35, 0.70, OWN, "Cochrane PMID 25820938 (k): odds 0.19 to 0.70"),
    Treated(
        "antiarrhythmic", "death", ("I25",), (), 1.1, 2.5, OWN, "CAST PMID 1900101 (k): class I 2.5; amiodarone about 1"
    ),
    Treated("ablation", "I48", (), ("I48",), 0.35, 0.60, OWN, "CABANA PMID 30874766: 0.52 (k) against drugs"),
    Treated("beta_blocker", "death", ("I50",), (), 0.53, 0.81, PUBLISHED, "MERIT-HF PMID 10376614 (k): 0.66"),
    Treated(
        "beta_blocker", "I21", ("I25",), (), 0.39, 0.90, PUBLISHED,
        "CAPRICORN doi 10.1016/S0140-6736(00)04560-8: 0.59 (interval (k))",
    ),
    Treated("beta_blocker", "I44", ("I10",), (), 1.1, 2.0, OWN, "clinical knowledge (k)"),
    Treated("ace_inhibitor", "death", ("I50",), (), 0.74, 0.95, PUBLISHED, "SOLVD treatment PMID 2057034 (k): 0.84"),
    Treated("ace_inhibitor", "I50", ("I25",), (), 0.56, 0.87, OWN, "SOLVD prevention 0.63, HOPE 0.77 (k)"),
    Treated("ace_inhibitor", "I63", ("I10",), (), 0.56, 0.84, PUBLISHED, "HOPE PMID 10639539 (k): 0.68"),
    Treated("ace_inhibitor", "I95", ("I10",), (), 1.2, 2.2, OWN, "SPRINT PMID 26551272 (k): 1.7"),
    Treated(
        "diuretic", "I50", ("I10",), (), 0.42, 0.62, PUBLISHED, "Psaty 2003 doi 10.1001/jama.289.19.2534: 0.51"
    ),
    Treated(
        "diuretic", "I50", (), ("I50",), 0.60, 0.85, PUBLISHED,
        "CHAMPION doi 10.1016/S0140-6736(11)60101-3: hospital for heart failure 0.72",
    ),
    Treated(
        "diuretic", "death", ("I50",), (), 0.90, 1.05, OWN,
        "no trial tells (Faris 2012 PMID 22336795): what relapses prevented make, no more",
    ),
    Treated(
        "revascularisation", "I21", ("I25",), (), 0.67, 1.0, OWN,
        "ISCHEMIA (k): 0.67 spontaneous; COURAGE (k): 1.1 all",
    ),
    Treated("pacemaker", "death", ("I44",), (), 0.3, 0.8, OWN, "Edhag 1976 PMID 1010778 (k): about half die in a year",
            ("high_block",)),
    Treated("pacemaker", "death", ("I44",), (), 0.97, 1.1, OWN, "nobody dies of a left block alone (k)",
            ("left_branch",)),
    Treated(
        "statin", "I21", ("I25",), (), 0.74, 0.80, PUBLISHED,
        "CTT 2005 doi 10.1016/S0140-6736(05)67394-1: coronary events 0.77 for each mmol/L",
    ),
    Treated("statin", "I63", ("I25",), (), 0.78, 0.88, PUBLISHED, "CTT 2005: stroke 0.83"),
    Treated("statin", "death", ("I25",), (), 0.84, 0.91, PUBLISHED, "CTT 2005: 0.88"),
    Treated(
        "statin", "death", ("I50", "I25"), (), 0.86, 1.05, PUBLISHED, "CORONA doi 10.1056/NEJMoa0706201: 0.95"
    ),
    Treated(
        "sglt2_inhibitor", "death", ("I50",), (), 0.77, 0.98, PUBLISHED,
        "Zannad 2020 doi 10.1016/S0140-6736(20)31824-9, reduced ejection fraction: 0.87", ("reduced",),
    ),
    Treated(
        "sglt2_inhibitor", "death", ("I50",), (), 0.86, 0.99, PUBLISHED,
        "Vaduganathan 2022 doi 10.1016/S0140-6736(22)01429-5, all five trials: 0.92",
    ),
    Treated(
        "sglt2_inhibitor", "I50", (), ("I50",), 0.67, 0.78, PUBLISHED,
        "Vaduganathan 2022: hospital for heart failure 0.72",
    ),
    Treated(
        "sglt2_inhibitor", "I50", ("I10",), (), 0.61, 0.79, PUBLISHED,
        "Zelniker 2019 doi 10.1016/S0140-6736(18)32590-X, in diabetes: 0.69", ("diabetes",),
    ),
    Treated(
        "icd", "death", ("I50",), (), 0.62, 0.96, PUBLISHED, "SCD-HeFT doi 10.1056/NEJMoa043399: 0.77", ("reduced",)
    ),
    Treated(
        "icd", "death", ("I42", "I21"), (), 0.76, 1.55, PUBLISHED,
        "DINAMIT doi 10.1056/NEJMoa041489, soon after infarction: 1.08", (), 2,
    ),
    Treated("icd", "death", ("I35",), (), 0.97, 1.06, OWN, "nothing where the ejection fraction is above 35 % (k)"),
    Treated(
        "crt", "death", ("I50", "I44"), (), 0.48, 0.85, PUBLISHED, "CARE-HF doi 10.1056/NEJMoa050496: 0.64",
        ("reduced", "left_branch"),
    ),
    Treated(
        "crt", "I50", ("I44",), ("I50",), 0.36, 0.64, PUBLISHED, "CARE-HF: hospital for heart failure 0.48",
        ("reduced", "left_branch"),
    ),
    Treated(
        "crt", "death", ("I50",), (), 1.11, 2.93, PUBLISHED,
        "EchoCRT doi 10.1056/NEJMoa1306687, QRS under 130 ms: 1.81", ("reduced",),
    ),
    Treated(
        "valve_replacement", "death", ("I35", "I50"), (), 0.40, 0.74, PUBLISHED,
        "PARTNER B doi 10.1056/NEJMoa1008232: 0.55", ("stenosis",),
    ),
)  # fmt: skip


# condition present, outcome, ratio's range, whose, source
RISKS: tuple[tuple[str, str, float, float, str, str], ...] = (
    ("I48", "I63", 3.5, 6.5, OWN, "Wolf 1991 PMID 1866765 (k): 5"),
    ("I10", "I48", 1.2, 2.0, OWN, "Benjamin 1994 PMID 8114238: 1.4 to 1.5"),
    ("I50", "I48", 3.0, 6.0, OWN, "Benjamin 1994 PMID 8114238: 4.5 to 5.9"),
    ("I10", "I50", 1.6, 3.4, OWN, "Levy 1996 PMID 8622246 (k): 2.0 to 3.3"),
    ("I48", "I50", 1.8, 4.0, OWN, "Wang 2003 PMID 12771006 (k)"),
    ("I25", "I21", 2.0, 5.0, OWN, "clinical knowledge (k)"),
)


class Excess(NamedTuple):
    """A ratio on the rate of death at 65, of what is present, in the history or a trait."""

    what: str
    present: tuple[str, ...]
    before: tuple[str, ...]
    traits: tuple[str, ...]
    low: float
    high: float
    whose: str
    source: str


_ERFC = "Emerging Risk Factors 2015 doi 10.1001/jama.2015.7008"
EXCESS: tuple[Excess, ...] = (
    Excess("an old infarction", ("I25",), ("I21",), (), 1.9, 2.2, PUBLISHED, f"{_ERFC}: 2.0"),
    Excess("a stroke", (), ("I63",), (), 2.0, 2.2, PUBLISHED, f"{_ERFC}: 2.1"),
    Excess("diabetes", (), (), ("diabetes",), 1.8, 2.0, PUBLISHED, f"{_ERFC}: 1.9"),
    Excess("smoking", (), (), ("smoker",), 1.65, 2.03, PUBLISHED, "Gellert 2012 doi 10.1001/archinternmed.2012.1397"),
    Excess("I48", ("I48",), (), (), 1.2, 2.2, PUBLISHED, "Benjamin 1998 PMID 9737513 (k): 1.5 men, 1.9 women"),
    Excess("I50, no drug", ("I50",), (), (), 4.0, 8.0, PUBLISHED, "Kannel 1994 doi 10.1136/hrt.72.2_Suppl.S3 (k)"),
    Excess("I34", ("I34",), (), (), 1.15, 1.62, PUBLISHED, "Nkomo 2006 doi 10.1016/S0140-6736(06)69208-8: 1.36"),
    Excess("I35 without symptoms", ("I35",), (), (), 1.15, 1.62, PUBLISHED, "Nkomo 2006: 1.36"),
    Excess("I73", ("I73",), (), (), 1.38, 2.30, PUBLISHED,
           "getABI 2009 doi 10.1161/CIRCULATIONAHA.109.865600: 1.66 silent, 1.89 not (k)"),
)  # fmt: skip
