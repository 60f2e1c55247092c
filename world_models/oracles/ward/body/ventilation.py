"""The ventilator: tidal volume, PEEP and pressures; what they open, what they cost the heart, what they injure.

The order is a minute volume and an inspired fraction. The rest is set as a protocol would: the rate rises with the
minute volume (10 + 1 for each L/min (assumed)), so that more volume is partly a deeper breath, and PEEP follows the
inspired fraction by the ARDS Network's lower table (2000, doi 10.1056/NEJM200005043421801), which allows 5 cmH2O at
0.30, 8 to 10 at 0.50, 10 at 0.60 and 18 to 24 at 1.00; `PEEP_CMH2O` are its rows, straight lines between them.

Compliance of lungs and chest is 0.9 mL/cmH2O a kg of predicted weight where all is open (k), less by what is closed:
the baby lung. Driving pressure is tidal volume over compliance. Injury grows with driving pressure (deaths rise above
some 14 cmH2O: Amato 2015, doi 10.1056/NEJMsa1410639), with tidal volume above 8 mL/kg (12 mL/kg killed 39.8 % where 6
killed 31.0 %: ARDS Network 2000), with plateau pressure near 30 cmH2O, and with inspired oxygen above 0.6 for a day or
more, also without a ventilator (Davis 1983, doi 10.1056/NEJM198310133091502 (k)). How fast is (assumed).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from world_models.oracles.ward.body.normal import VENTILATED_L_MIN
from world_models.oracles.ward.state import Lungs, Person

__all__ = ["PEEP_CMH2O", "Machine", "advance_injury", "closed_share", "felt", "machine_of", "peep_of"]

PEEP_CMH2O = ((0.30, 5.0), (0.50, 9.0), (0.60, 10.0), (1.00, 18.0))  # inspired fraction, PEEP
RATE_MIN, RATE_PER_L_MIN = 10.0, 1.0  # breaths a minute: at least, and more for each L/min (assumed)
COMPLIANCE_ML_CMH2O_KG = 0.9  # of an open lung in its chest, a kg of predicted weight (k)
CLOSED = (0.70, 0.50, 0.60)  # share of the lung that full consolidation, flooding and injury close (assumed)
RECRUITS_HALF_CMH2O = 18.0  # PEEP that opens half of what is closed (assumed): 5 opens 0.22, 10 opens 0.36
INSPIRING = 0.35  # share of the time (k)
SAFE_DRIVING, SAFE_TIDAL_ML_KG, SAFE_PLATEAU, SAFE_OXYGEN = 14.0, 8.0, 28.0, 0.60
# injury an hour: a cmH2O of driving pressure, a mL/kg, a cmH2O of plateau, and of inspired fraction, beyond the safe
PER_DRIVING, PER_TIDAL, PER_PLATEAU, PER_OXYGEN = 0.0010, 0.0030, 0.0010, 0.008  # (assumed)
INJURY_HEALS_H = 120.0  # time constant (assumed)


class Machine(NamedTuple):
    """What the ventilator does, [B] each; 0 without one."""

    on: Tensor  # 0 or 1
    breaths: Tensor  # a minute
    peep: Tensor  # cmH2O
    plateau: Tensor
    driving: Tensor
    tidal_ml_kg: Tensor  # a kg of predicted weight
    recruited: Tensor  # share of what is closed that pressure holds open
    mean_pressure: Tensor  # of the airway, cmH2O


def peep_of(oxygen_fraction: Tensor) -> Tensor:
    """PEEP [B] in cmH2O that the table pairs with an inspired fraction [B]."""
    peep = oxygen_fraction * 0.0 + PEEP_CMH2O[0][1]
    for (low, at_low), (high, at_high) in zip(PEEP_CMH2O, PEEP_CMH2O[1:], strict=False):
        slope = (at_high - at_low) / (high - low)
        peep = peep + (oxygen_fraction - low).clamp(0.0, high - low) * slope
    return peep


def felt(injury: Tensor) -> Tensor:
    """What an injury [B] does to the lung, 0..1: reserves hide the first tenth (assumed)."""
    return injury * injury / (injury + 0.15)


def closed_share(lungs: Lungs) -> Tensor:
    """Share [B] of the lung that holds no air, without a ventilator."""
    water, injury = lungs.water * CLOSED[1], felt(lungs.injury) * CLOSED[2]
    return (lungs.consolidation * CLOSED[0] + water + injury).clamp_max(0.85)


def machine_of(lungs: Lungs, person: Person, ventilation_l_min: Tensor, oxygen_fraction: Tensor) -> Machine:
    """The ventilator at this minute volume [B] (0: none) and inspired fraction [B]."""
    on = (ventilation_l_min > VENTILATED_L_MIN).to(ventilation_l_min.dtype)
    breaths = ventilation_l_min * RATE_PER_L_MIN + RATE_MIN
    tidal_ml = ventilation_l_min * 1000.0 / breaths
    peep = peep_of(oxygen_fraction) * on
    recruited = peep / (peep + RECRUITS_HALF_CMH2O)
    open_share = 1.0 - closed_share(lungs) * (1.0 - recruited)
    driving = tidal_ml / (person.predicted_kg * COMPLIANCE_ML_CMH2O_KG * open_share) * on
    plateau = peep + driving
    return Machine(
        on, breaths, peep, plateau, driving, tidal_ml / person.predicted_kg * on, recruited, peep + driving * INSPIRING
    )


def advance_injury(injury: Tensor, machine: Machine, oxygen_fraction: Tensor, hours: float) -> Tensor:
    """Injury [B] of the lung by pressure, volume and oxygen after `hours`, 0..1."""
    made = (machine.driving - SAFE_DRIVING).clamp_min(0.0) * PER_DRIVING
    made = made + (machine.tidal_ml_kg - SAFE_TIDAL_ML_KG).clamp_min(0.0) * PER_TIDAL
    made = made + (machine.plateau - SAFE_PLATEAU).clamp_min(0.0) * PER_PLATEAU
    made = made + (oxygen_fraction - SAFE_OXYGEN).clamp_min(0.0) * PER_OXYGEN
    return (injury * math.exp(-hours / INJURY_HEALS_H) + made * (1.0 - injury) * hours).clamp(0.0, 1.0)
