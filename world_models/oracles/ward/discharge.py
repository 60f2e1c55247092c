"""Who goes home: decided from the chart alone, as a ward round does, and by chance.

On a round a patient may go who has been in for a day, whose vital signs are fresh and stable (Halm 1998, doi
10.1001/jama.279.18.1452: heart rate at most 100, systolic pressure at least 90, at most 24 breaths, saturation at least
90 % without oxygen, temperature at most 37.8 C, clear mind), whose basic tests are known and in bounds, and who has had
no support for as long as `FREE_HOURS` says. A value that is too old counts as not known, and an unknown one keeps the
patient in: nobody is sent home unexamined. Bounds of tests and hours without support are (assumed).

Of whom all this holds, one in `ROUND_HOURS` hours goes (assumed): beds at home, transport, a second look. Two patients
with the same chart have the same chance, whatever their bodies hide; so some go too early, and what becomes of them at
home is not simulated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.ward import COMPLAINTS, INTERVENTIONS, inquiry_index, intervention_index

__all__ = ["CRITERIA", "FREE_HOURS", "LEAST_HOURS", "ROUND_HOURS", "Criterion", "chance_of_discharge", "fit_for_home"]

LEAST_HOURS = 24.0  # since admission (assumed)
ROUND_HOURS = 20.0  # mean wait of who may go (assumed)
WARD_INSULIN_U_H = 3.5  # up to here insulin stands for what is injected under the skin on a ward, and is no support
ROOM_AIR = 0.22
BLEEDER_HOURS = 14.0  # a bleeder's haemoglobin lasts no longer (assumed)
INFECTED_HOURS = 36.0  # nor do the markers of who came with a fever (assumed)
CREATININE_MG_DL, CREATININE_CHRONIC_MG_DL = 3.5, 5.0  # at most; in known chronic kidney disease (assumed)


class Criterion(NamedTuple):
    """A charted value that must lie from low to high."""

    measure: str
    low: float
    high: float
    lasts_hours: float  # an older value is not known
    needed: bool  # to be known; else only a known one counts


_LOW, _HIGH = float("-inf"), float("inf")
CRITERIA: tuple[Criterion, ...] = (
    Criterion("heart_rate_bpm", 45.0, 100.0, 8.0, True),
    Criterion("sbp_mmhg", 90.0, _HIGH, 8.0, True),
    Criterion("map_mmhg", 64.0, _HIGH, 8.0, True),
    Criterion("respiratory_rate_min", _LOW, 24.0, 8.0, True),
    Criterion("spo2_percent", 90.0, _HIGH, 8.0, True),
    Criterion("temperature_c", 35.5, 37.8, 8.0, True),
    Criterion("gcs", 14.0, _HIGH, 8.0, True),
    Criterion("sodium_mmol_l", 127.0, 150.0, 48.0, True),
    Criterion("potassium_mmol_l", 3.1, 5.7, 48.0, True),
    Criterion("creatinine_mg_dl", _LOW, CREATININE_CHRONIC_MG_DL, 48.0, True),
    Criterion("glucose_mg_dl", 65.0, 350.0, 48.0, True),
    Criterion("haemoglobin_g_dl", 7.0, _HIGH, 48.0, True),
    Criterion("bicarbonate_mmol_l", 16.0, _HIGH, 48.0, False),
    Criterion("beta_hydroxybutyrate_mmol_l", _LOW, 2.0, 48.0, False),
    Criterion("lactate_mmol_l", _LOW, 2.5, 48.0, False),
    Criterion("white_cells_k_ul", _LOW, 16.0, 48.0, False),
    Criterion("crp_mg_l", _LOW, 100.0, 72.0, False),
    Criterion("troponin_ng_l", _LOW, 300.0, 48.0, False),
)
# Hours since it was last given (as much as counts)
FREE_HOURS: dict[str, float] = {
    "norepinephrine_ug_kg_min": 24.0,
    "vasopressin_units_min": 24.0,
    "ventilation_l_min": 24.0,
    "renal_replacement_ml_kg_h": 48.0,
    "red_cells_units": 24.0,
    "plasma_units": 24.0,
    "platelets_units": 24.0,
    "endoscopy": 16.0,
    "hydrocortisone_mg": 24.0,
    "bicarbonate_mmol": 24.0,
    "acetaminophen_mg": 8.0,
    "furosemide_mg": 8.0,
    "saline_ml": 8.0,
    "ringers_lactate_ml": 8.0,
}


class _Tables(NamedTuple):
    """Rows [K] of CRITERIA and [F] of FREE_HOURS on a device."""

    place: Tensor
    low: Tensor
    high: Tensor
    lasts: Tensor
    needed: Tensor
    given: Tensor
    free: Tensor


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> _Tables:
    with torch.inference_mode(False):
        return _Tables(
            torch.tensor([inquiry_index(c.measure) for c in CRITERIA], device=device),
            torch.tensor([c.low for c in CRITERIA], device=device),
            torch.tensor([c.high for c in CRITERIA], device=device),
            torch.tensor([c.lasts_hours for c in CRITERIA], device=device),
            torch.tensor([c.needed for c in CRITERIA], device=device),
            torch.tensor([intervention_index(name) for name in FREE_HOURS], device=device),
            torch.tensor(list(FREE_HOURS.values()), device=device),
        )


_OXYGEN, _INSULIN = map(intervention_index, ("oxygen_fraction", "insulin_units_h"))
_INSULIN_SHARE = WARD_INSULIN_U_H / float(INTERVENTIONS[_INSULIN].high)
_HAEMOGLOBIN, _CRP = map(inquiry_index, ("haemoglobin_g_dl", "crp_mg_l"))
_FEVER, _BLEEDING = COMPLAINTS.index("fever"), COMPLAINTS.index("bleeding")


def fit_for_home(chart: Chart) -> Tensor:
    """bool [B]: the chart allows the patient to go."""
    table = _tables(chart["hours"].device)
    value = torch.stack([chart[c.measure] for c in CRITERIA], -1)
    ages, seen = chart["inquiry_age_hours"], chart["inquiry_seen"] > 0.5
    known = seen[:, table.place] & (ages[:, table.place] <= table.lasts)
    fine = (value >= table.low) & (value <= table.high)
    fit = torch.where(known, fine, ~table.needed).all(-1)
    free = chart["treatment_age_hours"][:, table.given] >= table.free
    share = chart["treatment_share"]
    fit = fit & free.all(-1) & (share[:, _OXYGEN] <= ROOM_AIR) & (share[:, _INSULIN] <= _INSULIN_SHARE)
    chronic = chart["chronic_kidney_disease"] > 0.5
    fit = fit & (chronic | (chart["creatinine_mg_dl"] <= CREATININE_MG_DL)) & (chart["hours"] >= LEAST_HOURS)
    fever, bleeding = chart["complaint"][:, _FEVER] > 0.5, chart["complaint"][:, _BLEEDING] > 0.5
    looked = seen[:, _CRP] & (ages[:, _CRP] <= INFECTED_HOURS)
    counted = seen[:, _HAEMOGLOBIN] & (ages[:, _HAEMOGLOBIN] <= BLEEDER_HOURS)
    return fit & (looked | ~fever) & (counted | ~bleeding)


def chance_of_discharge(chart: Chart, hours: float) -> Tensor:
    """Chance [B] to go home at the end of a step of `hours` whose chart this is, from 0 to 1."""
    chance = -torch.expm1(torch.full_like(chart["hours"], -hours / ROUND_HOURS))
    return torch.where(fit_for_home(chart), chance, 0.0)
