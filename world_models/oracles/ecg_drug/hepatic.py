"""The liver, and every drug's clearance in a patient.

Ranolazine, verapamil and quinidine are oxidised by CYP3A4 before all else (US labels of the three), so whoever has
little of it is slow with all three: `SHARED` is the correlation of the log multipliers, half of their variance (CYP3A
activity varies manifold between people, and about as much as each drug's own pathways (k)). Dofetilide is the kidneys'
(`renal`). Each multiplier is a factor of its own: 1 is the trial's people, whose spread the fit holds already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.renal import dofetilide_clearance

__all__ = ["HEPATIC", "SHARED", "clearances"]

HEPATIC = ("ranolazine", "verapamil", "quinidine")
SHARED = 0.5


def clearances(who: Mapping[str, Tensor], drugs: Sequence[str], volunteers: bool) -> Tensor:
    """Multipliers [B, D] of the fitted clearances, for drugs that no fit and no factor knows 1.

    Args:
        who: the factors, [B] each.
        volunteers: whether they are such as the trial's.
    """
    columns = []
    for drug in drugs:
        if drug == "dofetilide":
            kidneys = who["creatinine_clearance_ml_min"], who["sex_female"], who["weight_kg"]
            columns.append(dofetilide_clearance(*kidneys, volunteers))
        else:
            columns.append(who.get(f"{drug}_clearance", torch.ones_like(who["weight_kg"])))
    return torch.stack(columns, -1)
