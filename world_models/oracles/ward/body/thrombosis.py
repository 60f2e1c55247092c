"""Venous thromboembolism: a clot begins, grows, goes to the lung; heparin prevents it and lets it shrink.

A clot begins by chance, more readily in who lies still, is inflamed, is old, has a central line or a failing heart (the
score of Padua, Barbar 2010, doi 10.1111/j.1538-7836.2010.04044.x, weighs the same things (k)). The base is set so that
some 15 % of medical patients without heparin have one within 14 days, found by venography (MEDENOX: Samama 1999, doi
10.1056/NEJM199909093411103: 14.9 % with placebo, 5.5 % with a prophylactic dose, relative risk 0.37, 0.22 to 0.63), and
about twice that in intensive care (Cade 1982, 29 % (k)). All is decided at a step's start, by the patient's key.

What heparin leaves of the hazard is 1 / (1 + level / 0.10 U/mL): 6 U/kg/h, as much as 5,000 units thrice a day, comes
to 0.17 U/mL and leaves 0.37; 18 U/kg/h leaves 0.17. The same share holds for growth and for embolism: of untreated
pulmonary embolism a quarter died and a quarter came again, of treated none (Barritt & Jordan 1960 (k)). Lysis, shares
of a clot that break off and hazards of embolism are (assumed).

An obstructed bed is dead space and mismatch (`respiration`), a load on the right ventricle (`circulation`), strain in
troponin and natriuretic peptide (`outcome`), and above three tenths a hazard of its own (`hazard`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.oracles.ward.luck import Luck
from world_models.oracles.ward.state import Clots, WardState

__all__ = ["Lying", "advance_clots", "left_by_heparin", "strike", "thrombosis_per_h"]

HALF_U_ML = 0.10  # of heparin, that leaves half of the hazard
BEGINS_PER_H = 3.4e-4  # of somebody of 65 who walks little and has nothing else
LOG_STILL, LOG_INFLAMED, LOG_YEAR, LOG_LINE, LOG_FAILING = 1.0, 0.5, 0.02, 0.5, 0.3  # (assumed)
LEAST_STILL = 0.35  # a patient of a ward is in bed for much of the day (assumed)
EMBOLISM_PER_H = 0.004  # of a clot that fills the veins (assumed): one in six to seven while a stay lasts
GROWS_H, VEIN_LYSIS_H, LUNG_LYSIS_H = 72.0, 240.0, 200.0  # time constants (assumed)


class Lying(NamedTuple):
    """What a step's orders add to the risk, [B] each, 0 or 1."""

    ventilated: Tensor
    line: Tensor  # a central line: for pressors or renal replacement


def left_by_heparin(level_u_ml: Tensor) -> Tensor:
    """Share [B] of the hazard that heparin at this level leaves."""
    return HALF_U_ML / (level_u_ml + HALF_U_ML)


def thrombosis_per_h(state: WardState, lying: Lying) -> Tensor:
    """Hazard [B] an hour that a clot begins."""
    person = state.person
    weak = state.organs.brain * 1.5 + state.lungs.fatigue * 0.3 + (65.0 - state.signals.map).clamp(0.0, 10.0) * 0.03
    still = (weak + lying.ventilated + state.infection.phagocytes * 0.3 + LEAST_STILL).clamp_max(1.0)
    log = (still - LEAST_STILL) * LOG_STILL + state.infection.phagocytes * LOG_INFLAMED
    log = log + (person.age_years - 65.0) * LOG_YEAR + lying.line * LOG_LINE
    log = log + (person.contractility < 0.8).to(log.dtype) * LOG_FAILING
    return log.exp() * left_by_heparin(state.blood.heparin) * BEGINS_PER_H


def strike(state: WardState, luck: Luck, lying: Lying, hours: float) -> Clots:
    """Clots at the start of a step of `hours`: one may begin, a part of one may go to the lung."""
    clots = state.clots
    starts, large, breaks, share = luck.uniform("ward/thrombosis").unbind(-1)
    begins = starts < -(thrombosis_per_h(state, lying) * -hours).expm1()
    size = large * large * 0.7 + 0.1  # most stay small
    vein = torch.where(begins, torch.maximum(clots.vein, size), clots.vein)
    rate = clots.vein * left_by_heparin(state.blood.heparin) * EMBOLISM_PER_H
    goes = breaks < -(rate * -hours).expm1()
    part = torch.where(goes, share * 0.7 + 0.3, 0.0)
    lung = clots.lung + vein * part * (1.0 - clots.lung)
    return Clots(vein * (1.0 - part), lung)


def advance_clots(now: Clots, heparin_u_ml: Tensor, hours: float) -> Clots:
    """Growth and lysis over `hours`. Emboli dissolve by themselves, a clot in the veins better under heparin."""
    left = left_by_heparin(heparin_u_ml)
    change = (1.0 - now.vein) * left * (1.0 / GROWS_H) - (3.0 - left * 2.0) * (1.0 / VEIN_LYSIS_H)
    return Clots((now.vein * (change * hours).exp()).clamp(0.0, 1.0), now.lung * math.exp(-hours / LUNG_LYSIS_H))
