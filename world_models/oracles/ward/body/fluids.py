"""Water: plasma, interstitium and cells, with a ledger of all that came in and went out.

Between plasma and interstitium fluid moves towards a share of the extracellular water that albumin holds in the vessels
and leaky capillaries lose: out fast, back slowly (two-volume kinetics with expandable walls; Hahn 2020, doi
10.1111/aas.13533: 50 to 60 % of a crystalloid stays in the plasma while it runs, 15 to 20 % half an hour later).
Between interstitium and cells water follows osmolality, within a quarter of an hour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.oracles.ward.body.normal import SODIUM_MMOL_L, TEMPERATURE_C
from world_models.oracles.ward.state import Fluids, Person

__all__ = ["advance_fluids", "drinking", "insensible", "spare"]

OUTWARD_PER_H = 2.2  # of the plasma's excess
INWARD_PER_H = 0.40  # of its deficit
OSMOTIC_L_PER_MOSM_H = 0.10
DEXTROSE_L_PER_G, CARRIER_L_PER_MMOL = 0.010, 0.005  # water that dextrose, and saline that potassium chloride comes in
RED_CELLS_L, PLASMA_UNIT_L = 0.13, 0.25  # plasma in a unit of red cells; of plasma or platelets (k)


def infused_water_l_h(rates: dict[str, Tensor]) -> Tensor:
    """Water that infusions and units of blood bring, L/h [B], from the rates of `Prescription.during`."""
    water = (rates["saline_ml"] + rates["ringers_lactate_ml"] + rates["bicarbonate_mmol"]) * 0.001
    water = water + rates["dextrose_g"] * DEXTROSE_L_PER_G + rates["potassium_chloride_mmol"] * CARRIER_L_PER_MMOL
    return (
        water
        + rates["red_cells_units"] * RED_CELLS_L
        + (rates["plasma_units"] + rates["platelets_units"]) * PLASMA_UNIT_L
    )


def spare(share_of_normal: Tensor) -> Tensor:
    """1 while a volume is above half its normal, 0 at 0.3 of it: nothing more is lost from what is all but empty.

    Only the dead come here; it keeps their numbers finite for the rest of a step.
    """
    return ((share_of_normal - 0.3) * 5.0).clamp(0.0, 1.0)


def insensible(person: Person, temperature: Tensor, breaths: Tensor) -> Tensor:
    """Water lost by skin and lungs, L/h: 0.4 mL/kg/h, a tenth more a degree, more with fast breathing."""
    return (
        person.weight_kg
        * 0.0004
        * ((temperature - TEMPERATURE_C) * 0.1 + (breaths - 15.0) * 0.015 + 1.0).clamp(0.5, 2.5)
    )


def drinking(person: Person, sodium: Tensor, awake: Tensor) -> Tensor:
    """Water by mouth, L/h: 1.3 mL/kg/h for the awake, more with thirst."""
    return person.weight_kg * 0.0013 * awake * ((sodium - SODIUM_MMOL_L) * 0.16 + 1.0).clamp(0.15, 3.0)


def advance_fluids(
    fluids: Fluids,
    person: Person,
    infused_l_h: Tensor,
    drunk_l_h: Tensor,
    urine_l_h: Tensor,
    other_out_l_h: Tensor,
    albumin: Tensor,
    leak: Tensor,
    osmolality_out: Tensor,
    osmolality_in: Tensor,
    plasma_l: Tensor,
    extracellular_l: Tensor,
    hours: float,
) -> Fluids:
    """Water after `hours` (5 minutes): flows in float32, pools in float64.

    Args:
        other_out_l_h: insensible loss, plasma lost by bleeding, ultrafiltration.
        leak: of the capillaries, 0..1.
        osmolality_out, osmolality_in: effective, outside and inside cells, mOsm/L.
        plasma_l, extracellular_l: the pools as float32.
    """
    oncotic = 0.62 + albumin / person.albumin_g_dl * 0.38
    share = person.plasma_l / person.extracellular_l * oncotic * (1.0 - leak * 0.24)
    swollen = extracellular_l / person.extracellular_l
    # beyond its normal volume the interstitium takes the larger part: it yields when it swells
    held = extracellular_l - (extracellular_l - person.extracellular_l).clamp_min(0.0) * 0.38
    excess = plasma_l - held * share
    outward = excess * torch.where(excess > 0.0, (leak + 1.0) * OUTWARD_PER_H, INWARD_PER_H * swollen)
    swelling = (osmolality_in - osmolality_out) * OSMOTIC_L_PER_MOSM_H
    # cells take no more than leaves the vessels something
    swelling = swelling.clamp_max(0.0).clamp_min(-3.0) + swelling.clamp(0.0, 3.0) * spare(swollen)

    gain = (infused_l_h + drunk_l_h) * hours
    loss = (urine_l_h + other_out_l_h) * hours
    urine = (urine_l_h * hours).double()
    gain, loss, net = gain.double(), loss.double(), (gain - loss - outward * hours).double()
    moved, into_cells = (outward * hours).double(), (swelling * hours).double()
    return Fluids(
        plasma_l=fluids.plasma_l + net,
        interstitial_l=fluids.interstitial_l + (moved - into_cells),
        cell_l=fluids.cell_l + into_cells,
        in_l=fluids.in_l + gain,
        out_l=fluids.out_l + loss,
        urine_l=fluids.urine_l + urine,
    )
