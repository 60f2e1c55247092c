"""The orders whose effects are judged: target, time and patients of each, fixed from pharmacology before any result.

A contrast gives an intervention at its standard dose from the branching point on, or not at all. An amount is given
once, in the first step, or every `every_h` hours; a rate or a setting is held up to the last horizon. What else ran at
the branching point goes on in both arms as it was (settings only); nothing else is added. A laboratory value of
horizon h is of the specimen drawn in the step that begins at h (0 to 1.5 h into it), a vital sign is read at h itself;
horizon 1 is the specimen of the very step in which the order is given.

Pantoprazole is left out: it acts on the chance of rebleeding alone, which no single charted quantity shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from world_models.protocol import Chart
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    inquiry_index,
    intervention_index,
)

__all__ = ["CONTRASTS", "EARLY", "HORIZONS_H", "LATE", "Contrast", "step_of"]

HORIZONS_H = (4, 12, 24)
LATE, EARLY = 6, 1  # steps of 4 h at which histories branch
_STEP_H = 4


@dataclass(frozen=True, slots=True)
class Contrast:
    """One order against its absence."""

    intervention: str
    target: str  # the inquiry it moves most
    horizon_h: int  # when it moves it most
    population: str  # whom it is given to, in words; `who` in code, by the chart alone
    who: Callable[[Chart], Tensor]
    why: str  # of target and horizon
    every_h: int | None = None  # of an amount; None: once
    branch: int = LATE
    beside: tuple[tuple[str, float], ...] = ()  # set in both arms, at this amount

    @property
    def setting(self) -> bool:
        """It is a rate or a setting that is held, not an amount that is given."""
        return INTERVENTIONS[intervention_index(self.intervention)].per_hour is None

    @property
    def dose(self) -> float:
        """The standard dose, in the intervention's unit."""
        return float(INTERVENTIONS[intervention_index(self.intervention)].standard)

    @property
    def horizons_h(self) -> tuple[int, ...]:
        """Hours after the branching point at which the target is asked."""
        return tuple(sorted({*HORIZONS_H, self.horizon_h}))

    def given(self, step: int) -> bool:
        """Whether step 1, 2, ... after the branching point gives it."""
        if self.setting:
            return True
        return step == 1 if self.every_h is None else ((step - 1) * _STEP_H) % self.every_h == 0


def step_of(target: str, horizon_h: int) -> int:
    """The step, from 1, whose inquiry answers for this horizon."""
    if INQUIRIES[inquiry_index(target)].kind == "vital":
        return max(1, horizon_h // _STEP_H)
    return horizon_h // _STEP_H + 1


def _complains(chart: Chart, of: str) -> Tensor:
    return chart["complaint"][:, COMPLAINTS.index(of)] > 0.5


def _running(chart: Chart, name: str) -> Tensor:
    return chart["treatment_share"][:, intervention_index(name)] > 0


def _infected(chart: Chart) -> Tensor:
    return _complains(chart, "fever") | (chart["crp_mg_l"] > 70) | (chart["temperature_c"] > 38)


# fmt: off
CONTRASTS: tuple[Contrast, ...] = (
    Contrast("saline_ml", "chloride_mmol_l", 4, "BNP < 350, SpO2 >= 92",
             lambda c: (c["bnp_pg_ml"] < 350) & (c["spo2_percent"] >= 92),
             "154 mmol of chloride against 102 in plasma"),
    Contrast("ringers_lactate_ml", "map_mmhg", 4, "MAP < 80, BNP < 350",
             lambda c: (c["map_mmhg"] < 80) & (c["bnp_pg_ml"] < 350), "a bolus acts while it lasts in plasma: hours"),
    Contrast("water_ml", "sodium_mmol_l", 4, "Na >= 140", lambda c: c["sodium_mmol_l"] >= 140,
             "half a litre in total body water, before the kidney answers"),
    Contrast("norepinephrine_ug_kg_min", "map_mmhg", 4, "signs of infection; MAP < 75 or on it",
             lambda c: _infected(c) & ((c["map_mmhg"] < 75) | _running(c, "norepinephrine_ug_kg_min")),
             "half-life of minutes: steady within the first step"),
    Contrast("vasopressin_units_min", "map_mmhg", 4, "signs of infection; MAP < 80",
             lambda c: _infected(c) & (c["map_mmhg"] < 80), "half-life of 10 to 20 min"),
    Contrast("hydrocortisone_mg", "map_mmhg", 24, "signs of infection; MAP < 80 or on norepinephrine",
             lambda c: _infected(c) & ((c["map_mmhg"] < 80) | _running(c, "norepinephrine_ug_kg_min")),
             "slow: responsiveness of vessels returns over a day", every_h=8),
    Contrast("piperacillin_tazobactam_g", "crp_mg_l", 72, "signs of infection", _infected,
             "CRP falls by halves in 19 h once killing has begun", every_h=8),
    Contrast("vancomycin_mg", "crp_mg_l", 72, "signs of infection", _infected, "as above", every_h=12),
    Contrast("ceftriaxone_g", "crp_mg_l", 72, "signs of infection", _infected, "as above", every_h=24),
    Contrast("meropenem_g", "crp_mg_l", 72, "signs of infection", _infected, "as above", every_h=8),
    Contrast("furosemide_mg", "urine_output_ml_h", 4, "MAP > 64, creatinine < 3",
             lambda c: (c["map_mmhg"] > 64) & (c["creatinine_mg_dl"] < 3), "acts within minutes, over in 2 to 6 h"),
    Contrast("insulin_units_h", "glucose_mg_dl", 4, "glucose > 200", lambda c: c["glucose_mg_dl"] > 200,
             "4 h of infusion; afterwards sugars near the floor"),
    Contrast("dextrose_g", "glucose_mg_dl", 1, "glucose < 150", lambda c: c["glucose_mg_dl"] < 150,
             "gone within hours where insulin answers"),
    Contrast("potassium_chloride_mmol", "potassium_mmol_l", 4, "K < 4.5", lambda c: c["potassium_mmol_l"] < 4.5,
             "spread over the extracellular water, before cells and kidney take it"),
    Contrast("magnesium_sulfate_g", "magnesium_mg_dl", 4, "Mg < 2.2", lambda c: c["magnesium_mg_dl"] < 2.2,
             "as potassium"),
    Contrast("sodium_phosphate_mmol", "phosphate_mg_dl", 4, "phosphate < 4", lambda c: c["phosphate_mg_dl"] < 4,
             "as potassium"),
    Contrast("calcium_gluconate_g", "calcium_mg_dl", 4, "Ca < 9.5", lambda c: c["calcium_mg_dl"] < 9.5, "as potassium"),
    Contrast("bicarbonate_mmol", "bicarbonate_mmol_l", 4, "HCO3 < 23", lambda c: c["bicarbonate_mmol_l"] < 23,
             "100 mmol in about half of body weight, before lung and kidney answer"),
    Contrast("red_cells_units", "haemoglobin_g_dl", 4, "Hgb < 9.5", lambda c: c["haemoglobin_g_dl"] < 9.5,
             "in full at once; cells live for weeks"),
    Contrast("plasma_units", "inr", 4, "INR > 1.2", lambda c: c["inr"] > 1.2, "factor VII lives 4 to 6 h"),
    Contrast("platelets_units", "platelets_k_ul", 4, "platelets < 150", lambda c: c["platelets_k_ul"] < 150,
             "in full at once; platelets live for days"),
    Contrast("heparin_units_kg_h", "ptt_s", 12, "PTT < 45, not bleeding",
             lambda c: (c["ptt_s"] < 45) & ~_complains(c, "bleeding"), "half-life 1 to 1.5 h: steady after 6 h"),
    Contrast("oxygen_fraction", "spo2_percent", 4, "SpO2 < 95 or on oxygen, not ventilated",
             lambda c: ((c["spo2_percent"] < 95) | _running(c, "oxygen_fraction")) & ~_running(c, "ventilation_l_min"),
             "minutes"),
    Contrast("ventilation_l_min", "pco2_mmhg", 4, "pCO2 > 45 or ventilated",
             lambda c: (c["pco2_mmhg"] > 45) | _running(c, "ventilation_l_min"),
             "stores of CO2 fill and empty in an hour"),
    Contrast("acetaminophen_mg", "temperature_c", 4, "temperature > 37.8", lambda c: c["temperature_c"] > 37.8,
             "lowest 2 to 4 h after the dose"),
    Contrast("metoprolol_mg", "heart_rate_bpm", 4, "heart rate > 90", lambda c: c["heart_rate_bpm"] > 90,
             "half-life 3 to 4 h"),
    Contrast("endoscopy", "haemoglobin_g_dl", 24, "came bleeding; branching at 4 h",
             lambda c: _complains(c, "bleeding"), "what no longer bleeds adds up over a day", branch=EARLY),
    Contrast("renal_replacement_ml_kg_h", "urea_nitrogen_mg_dl", 24, "creatinine > 1.8",
             lambda c: c["creatinine_mg_dl"] > 1.8, "25 mL/kg/h clear body water of urea in about a day"),
    Contrast("ultrafiltration_ml_h", "haemoglobin_g_dl", 24, "creatinine > 1.8; on renal replacement in both arms",
             lambda c: c["creatinine_mg_dl"] > 1.8, "2.4 L of plasma water by then, refilled from tissue in part",
             beside=(("renal_replacement_ml_kg_h", 25.0),)),
)
# fmt: on
