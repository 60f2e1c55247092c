"""The hazard of death: the log of it is a sum of how far each sign leaves what the body bears.

Every constant stands in one row of `TERMS` (or of `PERSONAL`), with its source or marked (assumed). Most are assumed:
studies give the odds of death in hospital by a value at admission or by the day's worst one, not a hazard an hour given
all the rest. Where one gives a size to compare, the row names it. What holds the whole to published figures are the
probes (`benchmarks.ward.probes`): deaths by disease, with the clinician of `clinician` and with nothing done, deaths by
SOFA score, and how well the score ranks who dies.

APACHE II (Knaus 1985, PMID 3928249 (k)) is 0.146 in the log odds of death in hospital for each of its points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

__all__ = ["BASE_LOG_HAZARD", "PERSONAL", "TERMS", "Term", "hazard_per_h", "table"]

BASE_LOG_HAZARD = -10.5  # log of the hazard an hour where nothing is amiss (assumed): set by deaths by disease
LARGEST_LOG_HAZARD = 1.5  # (assumed)


class Term(NamedTuple):
    """One sign: slope x its excess beyond `begins`, up to `most` of it."""

    sign: str
    unit: str
    side: str  # "above" or "below"
    begins: float
    most: float
    slope: float  # in the log hazard, a unit
    source: str


# fmt: off
TERMS: tuple[Term, ...] = (
    Term("map", "mmHg", "below", 62.0, 45.0, 0.095, "(assumed); APACHE II: 2 points under 70, 4 under 50"),
    Term("lactate", "mmol/L", "above", 2.2, 12.0, 0.20, "(assumed)"),
    Term("ph", "1", "below", 7.22, 0.6, 8.0, "(assumed); APACHE II: 3 points under 7.25, 4 under 7.15"),
    Term("ph", "1", "above", 7.58, 0.3, 8.0, "(assumed)"),
    Term("potassium", "mmol/L", "above", 5.8, 3.5, 2.6, "(assumed)"),
    Term("potassium", "mmol/L", "below", 2.9, 1.5, 2.0, "(assumed)"),
    Term("saturation", "fraction", "below", 0.90, 0.5, 13.0, "(assumed)"),
    Term("lung_water", "fraction", "above", 0.0, 1.3, 1.8, "(assumed)"),
    Term("lung_injury", "fraction", "above", 0.0, 1.0, 1.2, "(assumed)"),
    Term("obstruction", "fraction", "above", 0.30, 0.7, 8.0, "(assumed); beyond what flow and oxygen do: the next embolus, arrhythmia"),  # noqa: E501
    Term("haemoglobin", "g/dL", "below", 6.6, 5.0, 0.65, "(assumed); 0.92 in the odds, from 8 down, untransfused: Carson 2002 (k)"),  # noqa: E501
    Term("glucose", "mmol/L", "below", 2.7, 2.4, 1.6, "(assumed)"),
    Term("glucose", "mmol/L", "above", 35.0, 40.0, 0.05, "(assumed)"),
    Term("sodium", "mmol/L", "below", 122.0, 20.0, 0.09, "(assumed)"),
    Term("sodium", "mmol/L", "above", 157.0, 25.0, 0.09, "(assumed)"),
    Term("damage", "1", "above", 0.0, 2.6, 1.40, "(assumed); tissue damage of the infection model"),
    Term("debt", "1", "above", 0.0, 6.0, 0.35, "(assumed); accumulated oxygen debt"),
    Term("flow", "fraction", "below", 0.62, 0.5, 4.0, "(assumed); cardiac output of the own normal"),
    Term("wedge", "mmHg", "above", 22.0, 15.0, 0.14, "(assumed)"),
    Term("urea", "mg/dL", "above", 80.0, 120.0, 0.020, "(assumed)"),
    Term("brain", "fraction", "above", 0.0, 1.0, 2.2, "(assumed); APACHE II: 1.75 for 12 points of the coma scale"),
    Term("temperature", "Cel", "below", 35.0, 4.0, 0.4, "(assumed)"),
    Term("temperature", "Cel", "above", 40.3, 2.0, 0.8, "(assumed)"),
    Term("calcium", "mg/dL", "below", 4.2, 2.0, 0.8, "(assumed); free calcium"),
    Term("heart_rate", "bpm", "above", 145.0, 40.0, 0.02, "(assumed)"),
    Term("log_troponin", "1", "above", 0.0, 10.0, 0.25, "(assumed); log(1 + troponin / 100 ng/L)"),
)
# fmt: on
# What multiplies the hazard of a person: factor in its log, for what, source
PERSONAL: tuple[tuple[str, float, str], ...] = (
    ("year of age beyond 65", 0.028, "(assumed); APACHE II's points of age: 0.022"),
    ("SD of frailty", 0.35, "(assumed)"),
    ("chronic kidney disease", 0.22, "(assumed)"),
    ("chronic or acute heart failure", 0.22, "(assumed)"),
)


def hazard_per_h(signs: Mapping[str, Tensor], factor: Tensor) -> Tensor:
    """Hazard of death [B] an hour, of every sign [B] that TERMS names and the person's factor [B]."""
    log = factor * 0.0 + BASE_LOG_HAZARD
    for term in TERMS:
        value = signs[term.sign]
        excess = value - term.begins if term.side == "above" else term.begins - value
        log = log + excess.clamp(0.0, term.most) * term.slope
    return log.clamp_max(LARGEST_LOG_HAZARD).exp() * factor


def _unit(unit: str) -> str:
    return "" if unit == "1" else f" {unit}"


def table() -> list[str]:
    """The rows of `docs/ward_oracle.md`."""
    rows = [
        f"| {t.sign} | {t.side} {t.begins:g}{_unit(t.unit)} | {t.most:g} | {t.slope:g} | {t.source} |" for t in TERMS
    ]
    return rows + [f"| {what} | | | {slope:g} | {source} |" for what, slope, source in PERSONAL]
