"""Organs that suffer: oxygen debt, markers, consciousness. What kills is in `hazard`, who goes home in `discharge`."""

from __future__ import annotations

import math

from torch import Tensor

from world_models.oracles.ward.state import Organs, Person, Signals

__all__ = ["advance_organs", "oxygen_debt_rate"]

DEBT_H, TROPONIN_H, BNP_H, ALT_H, BILIRUBIN_H, MIND_H = 16.0, 18.0, 13.0, 42.0, 30.0, 1.5  # time constants (k)
ALT_U_L, BILIRUBIN_MG_DL = 22.0, 0.6  # in health (k)
STRAINED_FROM, TROPONIN_STRAIN, BNP_STRAIN = 0.15, 90.0, 700.0  # of the right heart, by obstruction (assumed)


def oxygen_debt_rate(extraction: Tensor, pressure: Tensor, saturation: Tensor) -> Tensor:
    """How fast organs run into debt, an hour: by extraction at its limit, by low pressure, by low saturation."""
    return (
        (extraction - 0.61).clamp(0.0, 0.45) * 2.0
        + (56.0 - pressure).clamp(0.0, 30.0) * 0.018
        + (0.82 - saturation).clamp(0.0, 0.4) * 2.0
    )


def advance_organs(
    now: Organs,
    person: Person,
    signals: Signals,
    debt_rate: Tensor,
    damage: Tensor,
    phagocytes: Tensor,
    heart_rate: Tensor,
    urea: Tensor,
    sodium: Tensor,
    glucose: Tensor,
    pco2: Tensor,
    osmolality: Tensor,
    obstruction: Tensor,
    hours: float,
) -> Organs:
    """Markers, consciousness and oxygen debt over `hours`; glucose in mmol/L, urea nitrogen in mg/dL.

    `obstruction` of the pulmonary bed strains the right heart, in troponin and natriuretic peptide.
    """
    debt = now.debt * math.exp(-hours / DEBT_H) + debt_rate * hours
    strain = (heart_rate - 105.0).clamp(0.0, 80.0) * 0.02 + (signals.wedge - 18.0).clamp(0.0, 30.0) * 0.06
    old = (person.age_years - 50.0).clamp_min(0.0) * 0.2 + 5.0
    right = (obstruction - STRAINED_FROM).clamp_min(0.0)
    renal = 1.0 + (60.0 - signals.gfr).clamp(0.0, 60.0) * 0.012
    aim = (old + strain * 9.0 + debt_rate * 220.0 + phagocytes * 14.0 + right * TROPONIN_STRAIN) * renal
    troponin = aim + (now.troponin - aim) * math.exp(-hours / TROPONIN_H)
    aim = (30.0 + (signals.wedge - 9.5).clamp_min(0.0) * 42.0 + phagocytes * 60.0 + right * BNP_STRAIN) * renal
    bnp = aim + (now.bnp - aim) * math.exp(-hours / BNP_H)
    alt = ALT_U_L + (now.alt - ALT_U_L) * math.exp(-hours / ALT_H)
    alt = alt + (debt_rate.clamp_max(1.2) * 240.0 + damage * 0.6) * hours
    aim = BILIRUBIN_MG_DL + damage * 0.8 + (now.alt * 0.0012).clamp_max(3.0)
    bilirubin = aim + (now.bilirubin - aim) * math.exp(-hours / BILIRUBIN_H)

    fog = phagocytes * 0.16 + damage * 0.07 + (signals.extraction - 0.55).clamp(0.0, 0.4) * 0.8
    fog = fog + (52.0 - signals.map).clamp(0.0, 30.0) * 0.025 + (0.78 - signals.saturation).clamp(0.0, 0.4) * 3.0
    fog = fog + (2.9 - glucose).clamp(0.0, 2.5) * 0.42 + (pco2 - 68.0).clamp(0.0, 60.0) * 0.018
    fog = fog + (122.0 - sodium).clamp(0.0, 25.0) * 0.03 + (sodium - 158.0).clamp(0.0, 30.0) * 0.025
    fog = fog + (osmolality - 325.0).clamp(0.0, 80.0) * 0.006 + (urea - 110.0).clamp(0.0, 150.0) * 0.003
    fog = fog + (7.10 - signals.ph).clamp(0.0, 0.4) * 1.2 + (person.age_years - 75.0).clamp_min(0.0) * 0.003
    brain = fog + (now.brain - fog) * math.exp(-hours / MIND_H)
    return Organs(troponin, bnp, alt.clamp_max(14000.0), bilirubin, brain.clamp(0.0, 1.0), debt)
