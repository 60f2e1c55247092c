"""What is known of the four drugs beforehand, for the rival that is told: class, channels, label.

Block of hERG, late sodium, calcium and sodium channels at the therapeutic free Cmax, from the CiPA table (a drug
without a row there has zeros). Label facts, as numbers of 0 to 1 (US prescribing information (k); half-lives in days):
prolongs QT, prolongs PR, share cleared by the kidneys unchanged, half-life, contraindicated with long QT.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.cipa import cipa_table
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["CHANNELS", "FACTS", "knowledge_table"]

CHANNELS = ("herg", "late_sodium", "calcium", "sodium")
CLASSES = ("IA", "ID", "III", "IV")
FACTS = ("prolongs_qt", "prolongs_pr", "renal", "half_life_days", "not_in_long_qt")
# half-lives: 7, 10, 3 to 7, 6 to 8 h; dofetilide: 80 % in urine, four fifths of it unchanged
_LABEL = {
    "ranolazine": (1.0, 0.0, 0.05, 7 / 24, 0.0),
    "dofetilide": (1.0, 0.0, 0.64, 10 / 24, 1.0),
    "verapamil": (0.0, 1.0, 0.04, 5 / 24, 0.0),
    "quinidine": (1.0, 0.0, 0.2, 7 / 24, 1.0),
}


def _blocked(ic50_nm: float, hill: float, level_nm: float) -> float:
    return 0.0 if ic50_nm <= 0 else 1.0 / (1.0 + (ic50_nm / level_nm) ** hill)


def knowledge_table() -> tuple[Tensor, Tensor, Tensor]:
    """For nothing and each drug: class [5, 4], channel block [5, 4], label facts [5, 5]; row 0 is zeros."""
    table = cipa_table()
    classes, channels, facts = [[0.0] * len(CLASSES)], [[0.0] * len(CHANNELS)], [[0.0] * len(FACTS)]
    for drug in ANTIARRHYTHMICS:
        classes.append([float(c == drug.antiarrhythmic_class) for c in CLASSES])
        row = table.get(drug.name)
        blocks = [0.0] * len(CHANNELS) if row is None else [
            _blocked(*getattr(row, c), row.free_cmax_nm) for c in CHANNELS
        ]  # fmt: skip
        channels.append(blocks)
        facts.append(list(_LABEL.get(drug.name, (0.0,) * len(FACTS))))
    return torch.tensor(classes), torch.tensor(channels), torch.tensor(facts)
