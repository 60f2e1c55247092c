"""Sodium, potassium, chloride, and the slower magnesium, phosphate and calcium.

Potassium moves between the extracellular space and cells towards a level set by the cells' own content (a deficit of
about 250 mmol for the first mmol/L (k)), what they have newly taken up, insulin, pH (1 % up for each 0.01 below 7.40
(k)) and tonicity. Chloride leaves cells against bicarbonate when that is high and enters when it is low: the cells'
share of buffering.

Contents: saline Na 154 Cl 154; Ringer's lactate Na 130 K 4 Cl 109 lactate 28; 8.4 % bicarbonate Na 1 mmol/mL; a unit of
red cells Na 20 K 5 Cl 16, of plasma Na 40 K 1 Cl 25, of platelets Na 35 K 1 Cl 22 mmol (k).
"""

from __future__ import annotations

import math

from torch import Tensor

from world_models.oracles.ward.body.fluids import CARRIER_L_PER_MMOL
from world_models.oracles.ward.body.normal import BICARBONATE_MMOL_L, FREE_CALCIUM_MG_DL, PER_80_KG, POTASSIUM_MMOL_L
from world_models.oracles.ward.body.renal import INTAKE_POTASSIUM_MMOL_H, INTAKE_SODIUM_MMOL_H, Urine
from world_models.oracles.ward.state import Person, Salts

__all__ = ["advance_minerals", "advance_salts", "infused_salts", "potassium_level"]
__all__ += ["BUFFERED_MMOL", "CELL_DEFICIT_MMOL", "CELL_EXCESS_MMOL", "potassium_shift", "shift_chloride"]

DIALYSATE_SODIUM, DIALYSATE_POTASSIUM, DIALYSATE_CHLORIDE = 140.0, 3.5, 102.0  # mmol/L
SALINE_MMOL_L = 154.0  # sodium, and chloride
RINGER_SODIUM, RINGER_POTASSIUM, RINGER_CHLORIDE = 130.0, 4.0, 109.0  # mmol/L
BUFFERED_MMOL = 4.0  # chloride that leaves cells for each mmol/L of bicarbonate (k)
BUFFERING_H = 2.0  # (k)
UPTAKE_PER_H = 3.2  # of the extracellular excess of potassium
CELL_DEFICIT_MMOL = 820.0  # e-fold change of the level for this loss of the cells' content
CELL_EXCESS_MMOL = 350.0  # and for this gain
QUICK_MMOL = 300.0  # and, for a while, for this much newly taken up
SPREADING_H = 9.0  # time in which that spreads among all cells


def potassium_level(
    cell_potassium: Tensor,
    normal_cell_potassium: Tensor,
    recent_uptake: Tensor,
    insulin_action: Tensor,
    ph: Tensor,
    osmolality: Tensor,
) -> Tensor:
    """The extracellular potassium in mmol/L that cells would hold in balance; 4.2 in health."""
    gain = cell_potassium - normal_cell_potassium
    content = gain.clamp_min(0.0) / CELL_EXCESS_MMOL + gain.clamp_max(0.0) / CELL_DEFICIT_MMOL
    content = content + recent_uptake.clamp(-120.0, 120.0) / QUICK_MMOL
    return (content + potassium_shift(insulin_action, ph, osmolality)).clamp(-1.6, 1.0).exp() * POTASSIUM_MMOL_L


def potassium_shift(insulin_action: Tensor, ph: Tensor, osmolality: Tensor) -> Tensor:
    """What insulin, acid and tonicity add to the logarithm of that level."""
    insulin = ((insulin_action + 3.0) / 11.0).log() * -0.105
    return insulin + (7.40 - ph) * 1.2 + (osmolality - 287.0).clamp(-20.0, 60.0) * 0.0045


def infused_salts(rates: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Sodium, potassium and chloride that infusions bring, mmol/h, from the rates of `Prescription.during`."""
    saline, ringer = rates["saline_ml"] * 0.001, rates["ringers_lactate_ml"] * 0.001
    kcl, red, plasma = rates["potassium_chloride_mmol"], rates["red_cells_units"], rates["plasma_units"]
    platelets, bicarbonate = rates["platelets_units"], rates["bicarbonate_mmol"]
    carrier = kcl * CARRIER_L_PER_MMOL
    sodium = (saline + carrier) * SALINE_MMOL_L + ringer * RINGER_SODIUM + bicarbonate
    sodium = sodium + rates["sodium_phosphate_mmol"] * (4.0 / 3.0) + red * 20.0 + plasma * 40.0 + platelets * 35.0
    potassium = kcl + ringer * RINGER_POTASSIUM + red * 5.0 + plasma + platelets
    chloride = (
        (saline + carrier) * SALINE_MMOL_L
        + ringer * RINGER_CHLORIDE
        + kcl
        + red * 16.0
        + plasma * 25.0
        + platelets * 22.0
    )
    return sodium, potassium, chloride


def advance_salts(
    salts: Salts,
    person: Person,
    infused: tuple[Tensor, Tensor, Tensor],
    eating: Tensor,
    urine: Urine,
    plasma_lost_l_h: Tensor,
    dialysis_l_h: Tensor,
    removed_l_h: Tensor,
    sodium: Tensor,
    potassium: Tensor,
    chloride: Tensor,
    extracellular_l: Tensor,
    level: Tensor,
    hours: float,
) -> Salts:
    """Sodium, potassium and chloride after `hours` (5 minutes).

    Args:
        infused: sodium, potassium, chloride in mmol/h.
        eating: share of the ward's diet that is eaten.
        plasma_lost_l_h: by bleeding.
        dialysis_l_h: effluent; the fluid holds Na at 140, K 3.5, Cl 102 (bicarbonate near 26).
        removed_l_h: ultrafiltration.
        sodium, potassium, chloride: concentrations now. level: of `potassium_level`.
    """
    size = person.weight_kg * PER_80_KG * eating
    gone = plasma_lost_l_h + removed_l_h
    in_sodium = infused[0] + size * INTAKE_SODIUM_MMOL_H
    out_sodium = urine.sodium + gone * sodium + dialysis_l_h * (sodium - DIALYSATE_SODIUM)
    in_potassium = infused[1] + size * INTAKE_POTASSIUM_MMOL_H
    out_potassium = urine.potassium + gone * potassium + dialysis_l_h * (potassium - DIALYSATE_POTASSIUM)
    into_cells = (potassium - level) * extracellular_l * UPTAKE_PER_H
    # the diet's salt is eaten as chloride of both; what the kidney balances is the fixed acid
    in_chloride = infused[2] + size * (INTAKE_SODIUM_MMOL_H + INTAKE_POTASSIUM_MMOL_H)
    out_chloride = urine.chloride + gone * chloride + dialysis_l_h * (chloride - DIALYSATE_CHLORIDE)

    gain_na, loss_na = (in_sodium * hours).double(), (out_sodium * hours).double()
    gain_k, loss_k = (in_potassium * hours).double(), (out_potassium * hours).double()
    moved = (into_cells * hours).double()
    return salts._replace(
        sodium=salts.sodium + (gain_na - loss_na),
        sodium_in=salts.sodium_in + gain_na,
        sodium_out=salts.sodium_out + loss_na,
        potassium=salts.potassium + (gain_k - loss_k - moved),
        cell_potassium=salts.cell_potassium + moved,
        potassium_in=salts.potassium_in + gain_k,
        potassium_out=salts.potassium_out + loss_k,
        recent_uptake=salts.recent_uptake + (into_cells - salts.recent_uptake / SPREADING_H) * hours,
        chloride=salts.chloride + ((in_chloride - out_chloride) * hours).double(),
    )


def shift_chloride(salts: Salts, bicarbonate: Tensor, hours: float) -> Salts:
    """Buffering by cells: chloride out of them against bicarbonate, 4 mmol each mmol/L above 24, within 2 hours."""
    aim = (bicarbonate - BICARBONATE_MMOL_L) * BUFFERED_MMOL
    step = (aim - salts.chloride_shift) * (1.0 - math.exp(-hours / BUFFERING_H))
    return salts._replace(chloride=salts.chloride + step.double(), chloride_shift=salts.chloride_shift + step)


def advance_minerals(
    salts: Salts,
    person: Person,
    gfr: Tensor,
    urine_l_h: Tensor,
    insulin_action: Tensor,
    phagocytes: Tensor,
    eating: Tensor,
    dialysis_l_h: Tensor,
    rates: dict[str, Tensor],
    hours: float,
) -> Salts:
    """Magnesium, phosphate and free calcium (mg/dL) after `hours`.

    One gram of magnesium sulfate is 98.7 mg of magnesium in 0.5 L/kg, a mmol of phosphate 31 mg of phosphorus in
    0.6 L/kg, a gram of calcium gluconate 93 mg of calcium in 0.25 L/kg; a unit of citrated blood binds 15 mg (k).
    """
    share = (gfr / 100.0).clamp_max(1.2)
    wash = (urine_l_h - 0.10).clamp(0.0, 1.5)
    weight = person.weight_kg
    # normal 2.0, 3.4 and 6.2: intake and excretion in balance there
    magnesium = salts.magnesium_mg_dl
    change = rates["magnesium_sulfate_g"] * 98.7 / (weight * 5.0) + (eating * 0.012 - wash * 0.06 * magnesium * 0.5)
    change = change - (magnesium - 1.7).clamp_min(0.0) * 0.04 * share - dialysis_l_h * (magnesium - 1.6) / weight
    phosphate = salts.phosphate_mg_dl
    into = (
        ((insulin_action - 15.0).clamp(0.0, 120.0) * 0.0022 - (6.0 - insulin_action).clamp_min(0.0) * 0.006)
        * phosphate
        * 0.25
    )
    fixed = rates["sodium_phosphate_mmol"] * 31.0 / (weight * 6.0)
    change_p = fixed + 0.03 + eating * 0.07 - (phosphate - 1.4).clamp_min(0.0) * 0.05 * share - into
    change_p = change_p - dialysis_l_h * phosphate / (weight * 0.9)
    calcium = salts.free_calcium_mg_dl
    bound = (rates["red_cells_units"] + rates["plasma_units"]) * 15.0 / (weight * 2.5)
    aim = FREE_CALCIUM_MG_DL - phagocytes * 0.9 - (phosphate - 4.5).clamp(0.0, 10.0) * 0.12
    change_c = rates["calcium_gluconate_g"] * 93.0 / (weight * 2.5) - bound + (aim - calcium) / 9.0
    return salts._replace(
        magnesium_mg_dl=(magnesium + change * hours).clamp(0.3, 12.0),
        phosphate_mg_dl=(phosphate + change_p * hours).clamp(0.3, 20.0),
        free_calcium_mg_dl=(calcium + change_c * hours).clamp(2.0, 14.0),
    )
