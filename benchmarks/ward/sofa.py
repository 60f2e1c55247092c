"""SOFA of patients of the oracle ward (Vincent 1996, PMID 8844239 (k)), from true values and the last step's orders:
how ill they are as intensive care counts it, to hold beside the deaths that follow.

Steps of the score, 0 to 4 for each of six organs: oxygen tension over inspired fraction under 400, 300, and with a
ventilator 200, 100 mmHg; platelets under 150, 100, 50, 20; bilirubin from 1.2, 2, 6, 12 mg/dL; mean pressure under 70
mmHg, any vasopressin or norepinephrine, above 0.1 ug/kg/min; coma scale under 15, 13, 10, 6; creatinine from 1.2, 2,
3.5, 5 mg/dL.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.oracles.ward.world import WardOracle, WardState
from world_models.quantities.ward import intervention_index

__all__ = ["auroc", "sofa"]

_OXYGEN, _MACHINE, _NORADRENALINE, _VASOPRESSIN = map(
    intervention_index, ("oxygen_fraction", "ventilation_l_min", "norepinephrine_ug_kg_min", "vasopressin_units_min")
)


def _steps(value: Tensor, limits: tuple[float, ...], below: bool) -> Tensor:
    """How many of `limits` a value [B] lies under (or has reached)."""
    bounds = torch.tensor(limits, device=value.device)
    passed = value.unsqueeze(-1) < bounds if below else value.unsqueeze(-1) >= bounds
    return passed.sum(-1)


def sofa(world: WardOracle, state: WardState) -> Tensor:
    """Score int64 [B], 0 to 24, of the patients as they are now under the last step's orders."""
    truth, given = world.truth(state), state.records.given
    inspired = given[:, _OXYGEN].clamp(0.21, 1.0)
    ratio = truth["true_po2_mmhg"] / inspired
    helped = given[:, _MACHINE] > 0.5
    lungs = _steps(ratio, (400.0, 300.0), True) + torch.where(helped, _steps(ratio, (200.0, 100.0), True), 0)
    pressor = given[:, _NORADRENALINE]
    some = (pressor > 0.0) | (given[:, _VASOPRESSIN] > 0.0)
    heart = (truth["signals_map"] < 70.0).to(torch.int64)
    heart = torch.where(some, 3, heart)
    heart = torch.where(pressor > 0.1, 4, heart)
    return (
        lungs
        + heart
        + _steps(truth["true_platelets_k_ul"], (150.0, 100.0, 50.0, 20.0), True)
        + _steps(truth["true_bilirubin_mg_dl"], (1.2, 2.0, 6.0, 12.0), False)
        + _steps(truth["true_gcs"].round(), (15.0, 13.0, 10.0, 6.0), True)
        + _steps(truth["true_creatinine_mg_dl"], (1.2, 2.0, 3.5, 5.0), False)
    )


def auroc(score: Tensor, died: Tensor) -> float:
    """Chance that of one who died (bool [B]) and one who did not the first had the higher score, ties half."""
    of_dead, of_others = score[died].double(), score[~died].double()
    difference = of_dead.unsqueeze(-1) - of_others
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())
