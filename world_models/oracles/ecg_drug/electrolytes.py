"""Potassium and magnesium: how they change the block of IKr, the resting QT and the risk of torsades.

Constant over a stay: they are corrected before a drug is started, and nobody orders them here.

- **Block.** In myocytes the concentration that blocks half of IKr rises with the potassium outside: dofetilide 2.7 nM
  at 1 mmol/L and 79 nM at 8 mmol/L, quinidine 0.4 and 3.8 uM (Yang & Roden 1996, Circulation 93:407): powers
  of 1.6 and 1.1 of the potassium. In people the change is smaller: raising potassium by about 0.7 mmol/L took back a
  third to a half of what quinidine had done to the QTU interval, and less of its QTc (Choy 1997,
  Circulation 96:2149 (k)). Half of the powers in vitro is used for the change of QTc per concentration: 0.8 and
  0.55, which at 3.2 instead of 4.2 mmol/L is 1.24 and 1.16 times the effect. Magnesium shortens the QTc under IKr
  block hardly at all: a power of 0.15 (k).
- **Resting QT.** 8 ms longer per mmol/L of potassium missing, 15 ms per mmol/L of magnesium (k).
- **Torsades** at the same QTc: log hazard +0.9 per mmol/L of potassium missing (below 3.5 counts two of Tisdale's
  points, twice the female sex's one: doi 10.1161/CIRCOUTCOMES.113.000651), +3 per mmol/L of magnesium: magnesium given
  before ibutilide, which raises the level by 0.3 to 0.5 mmol/L, left a third of the ventricular arrhythmias
  (Patsilinakos 2010 (k)).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.rounding import power

__all__ = ["MAGNESIUM_MMOL_L", "POTASSIUM_MMOL_L", "block_strength", "log_torsades_risk", "resting_qtcf_ms"]

POTASSIUM_MMOL_L, MAGNESIUM_MMOL_L = 4.2, 0.85  # normal means: where nothing is changed
POTASSIUM_POWER = {"dofetilide": 0.8, "quinidine": 0.55}  # of the effect of a blocker of IKr
MAGNESIUM_POWER = 0.15
STRENGTH = (0.6, 2.0)  # nothing beyond was seen
QTCF_MS_PER_POTASSIUM, QTCF_MS_PER_MAGNESIUM = 8.0, 15.0  # per mmol/L missing
TORSADES_PER_POTASSIUM, TORSADES_PER_MAGNESIUM = 0.9, 3.0  # log hazard per mmol/L missing


def block_strength(potassium_mmol_l: Tensor, magnesium_mmol_l: Tensor, drugs: Sequence[str]) -> Tensor:
    """Multiplier [B, D] of each drug's effect on repolarisation at these levels [B]; 1 for drugs that spare IKr."""
    magnesium = power(magnesium_mmol_l / MAGNESIUM_MMOL_L, -MAGNESIUM_POWER)
    one = torch.ones_like(potassium_mmol_l)
    columns = [
        (power(potassium_mmol_l / POTASSIUM_MMOL_L, -POTASSIUM_POWER[drug]) * magnesium).clamp(*STRENGTH)
        if drug in POTASSIUM_POWER
        else one
        for drug in drugs
    ]
    return torch.stack(columns, -1)


def resting_qtcf_ms(potassium_mmol_l: Tensor, magnesium_mmol_l: Tensor) -> Tensor:
    """Change of the drug-free QTcF [B] in ms against normal levels."""
    missing = POTASSIUM_MMOL_L - potassium_mmol_l, MAGNESIUM_MMOL_L - magnesium_mmol_l
    return missing[0] * QTCF_MS_PER_POTASSIUM + missing[1] * QTCF_MS_PER_MAGNESIUM


def log_torsades_risk(potassium_mmol_l: Tensor, magnesium_mmol_l: Tensor) -> Tensor:
    """What is added to the log hazard of torsades [B] at the same QTcF."""
    missing = POTASSIUM_MMOL_L - potassium_mmol_l, MAGNESIUM_MMOL_L - magnesium_mmol_l
    return missing[0] * TORSADES_PER_POTASSIUM + missing[1] * TORSADES_PER_MAGNESIUM
