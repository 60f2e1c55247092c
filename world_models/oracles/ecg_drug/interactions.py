"""One drug's kinetics under another: verapamil makes more of a dose of dofetilide, and faster.

Dofetilide's peak rises by 42 % with verapamil 80 mg three times a day; its exposure over the first 8 h by 26 %, overall
not significantly (Tikosyn label, Contraindications and Drug-Drug Interactions; Johnson 2001, J Clin Pharmacol 41:1248
(k)): verapamil speeds the flow through the gut's veins, and so the absorption, and hinders the kidneys' cation
transport. Other pairs are left alone: effects add, kinetics do not interact.

Kinetics here are sums of exponentials whose steps are exact and whose doses add, and they stay so. What verapamil does
depends on the verapamil that is in the body **when the dofetilide is swallowed**, which no later step changes: the dose
counts as `1 + more` of itself, and of that a share `fast` passes absorption by and is in the plasma at once after the
lag. A dose that is not absorbed first enters mode m with the weight 1 - r_m / ka of one that is (partial fractions of
the transfer function without its ka / (s + ka)), in the effect compartments too: the same modes, other weights.

The verapamil that counts is its plasma concentration, plus, for verapamil swallowed with the dofetilide, the mean
concentration that this dose will hold over 8 h. Clearance during the later hours is not changed: part of the renal
transport's hindrance is thus in the `more` instead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SPED", "Swallowed", "VERAPAMIL_HALF_NG_ML", "swallowed"]

SPED = ("dofetilide",)  # what verapamil speeds
# Set so that 80 mg three times a day raise dofetilide's mean peak by 42 % (`benchmarks.ecg_drug.probes` simulates it).
GREATEST_MORE, GREATEST_FAST = 0.22, 0.93  # at verapamil concentrations far above the half
VERAPAMIL_HALF_NG_ML = 15.0
VERAPAMIL_INTERVAL_H = 8.0  # over which a dose swallowed now is averaged


class Swallowed(NamedTuple):
    """Doses as they enter the body: [B, D] mg each, float32."""

    slow_mg: Tensor  # absorbed as fitted
    fast_mg: Tensor  # in the plasma at once after the lag


def swallowed(dose_mg: Tensor, concentration: Tensor, level_per_mg: Tensor, drugs: tuple[str, ...]) -> Swallowed:
    """What becomes of the doses [B, D] in mg.

    Args:
        concentration: [B, D] in plasma now, ng/mL.
        level_per_mg: [B, D] area under the plasma curve of one mg, ng/mL h.
        drugs: names of the columns.
    """
    if "verapamil" not in drugs or "dofetilide" not in drugs:
        return Swallowed(dose_mg, torch.zeros_like(dose_mg))
    giver, taker = drugs.index("verapamil"), drugs.index("dofetilide")
    level = concentration[:, giver] + dose_mg[:, giver] * level_per_mg[:, giver] * (1.0 / VERAPAMIL_INTERVAL_H)
    acts = level / (level + VERAPAMIL_HALF_NG_ML)
    column = torch.zeros(len(drugs), device=dose_mg.device)
    column[taker] = 1.0
    acts = acts.unsqueeze(-1) * column  # [B, D]: 0 but for dofetilide
    total = dose_mg * (acts * GREATEST_MORE + 1.0)
    fast = total * (acts * GREATEST_FAST)
    return Swallowed(total - fast, fast)
