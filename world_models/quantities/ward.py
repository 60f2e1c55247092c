"""What the ward worlds measure and what can be ordered in them: one table for oracle, learned worlds and data.

An order is an inquiry (0 or 1: ordered in this step; it returns a value and changes nothing) or an intervention (an
exact amount in its unit; it returns nothing and changes the patient). The action has one column an order: first the
inquiries, then the interventions, in the order of these tables.

A chart cannot hold NaN, so a value that was never resulted reads `typical`, and `inquiry_seen` says 0 for it.

`normal` is the adult reference range: laboratory values after the ABIM's laboratory reference ranges (k), vitals as
usual at the bedside: HR 60-100, MAP 70-105, SBP 90-140, RR 12-20, SpO2 95-100, T 36.1-38.0 (k).
"""

from __future__ import annotations

from dataclasses import dataclass

from world_models.quantity import Quantity

__all__ = ["COMPLAINTS", "DISEASES", "INQUIRIES", "INTERVENTIONS", "MAX_AGE_HOURS", "MAX_HOURS_SINCE", "MEASURES"]
__all__ += ["ORDERS", "ORGANISMS", "STATIC", "Inquiry", "Intervention", "inquiry_index", "intervention_index"]
__all__ += ["order_index"]

DISEASES = ("sepsis", "pneumonia", "diabetic_ketoacidosis", "heart_failure", "gi_bleed", "acute_kidney_injury")
COMPLAINTS = ("fever", "dyspnoea", "hyperglycaemia", "bleeding", "oliguria", "weakness")
# What grows, if anything does; also the result of a culture (0: no growth).
ORGANISMS = ("none", "gram_positive_susceptible", "mrsa", "gram_negative_susceptible", "gram_negative_resistant")

_UNIT_SUFFIXES: tuple[str, ...] = (
    "_mmol_l", "_mg_dl", "_g_dl", "_u_l", "_mg_l", "_ng_l", "_pg_ml", "_k_ul", "_percent", "_mmhg", "_bpm", "_min",
    "_ml_h", "_s", "_c",
)  # fmt: skip

MAX_AGE_HOURS = 336.0  # of a charted value; "never" reads the same
MAX_HOURS_SINCE = 96.0  # since an intervention; "never" reads the same


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Something that can be asked for. `kind` decides when it is read and how long its result takes."""

    name: str  # of the measure, with its unit
    unit: str
    low: float  # bounds of the chart
    high: float
    typical: float  # shown while nothing was ever resulted
    normal: tuple[float, float]  # adult reference range
    kind: str  # chemistry, haematology, coagulation, gas, marker, vital, culture
    meaning: str

    @property
    def order(self) -> str:
        """Name of the order that asks for it: without the unit, as an order is yes or no."""
        unit = next((u for u in _UNIT_SUFFIXES if self.name.endswith(u)), "")
        return f"inquire_{self.name.removesuffix(unit)}"


@dataclass(frozen=True, slots=True)
class Intervention:
    """Something that can be done. An amount is given at `per_hour` at most (evenly over the step if that is too slow);
    a rate or a setting holds for the whole step."""

    name: str
    unit: str
    high: float  # largest amount, rate or setting of one step
    standard: float  # a usual one
    per_hour: float | None  # fastest infusion, in the unit an hour; None: a rate or a setting
    meaning: str


# fmt: off
INQUIRIES: tuple[Inquiry, ...] = (
    Inquiry("sodium_mmol_l", "mmol/L", 90, 200, 140, (136, 145), "chemistry", "serum sodium"),
    Inquiry("potassium_mmol_l", "mmol/L", 1, 12, 4.2, (3.5, 5.0), "chemistry", "serum potassium"),
    Inquiry("chloride_mmol_l", "mmol/L", 60, 160, 102, (98, 106), "chemistry", "serum chloride"),
    Inquiry("bicarbonate_mmol_l", "mmol/L", 1, 60, 25, (23, 28), "chemistry", "serum bicarbonate (total CO2)"),
    Inquiry("urea_nitrogen_mg_dl", "mg/dL", 1, 300, 14, (8, 20), "chemistry", "blood urea nitrogen"),
    Inquiry("creatinine_mg_dl", "mg/dL", 0.1, 25, 0.9, (0.5, 1.3), "chemistry", "serum creatinine"),
    Inquiry("glucose_mg_dl", "mg/dL", 10, 1500, 100, (70, 140), "chemistry", "blood glucose"),
    Inquiry("anion_gap_mmol_l", "mmol/L", -10, 70, 12, (7, 13), "chemistry", "Na - Cl - HCO3 of the same specimen"),
    Inquiry("calcium_mg_dl", "mg/dL", 3, 18, 9.4, (8.6, 10.2), "chemistry", "total serum calcium"),
    Inquiry("magnesium_mg_dl", "mg/dL", 0.3, 10, 2.0, (1.6, 2.6), "chemistry", "serum magnesium"),
    Inquiry("phosphate_mg_dl", "mg/dL", 0.2, 20, 3.5, (3.0, 4.5), "chemistry", "serum inorganic phosphorus"),
    Inquiry("albumin_g_dl", "g/dL", 0.5, 6, 4.0, (3.5, 5.5), "chemistry", "serum albumin"),
    Inquiry("alt_u_l", "U/L", 3, 15000, 22, (10, 40), "chemistry", "alanine aminotransferase"),
    Inquiry("bilirubin_mg_dl", "mg/dL", 0.1, 50, 0.6, (0.3, 1.2), "chemistry", "total bilirubin"),
    Inquiry("beta_hydroxybutyrate_mmol_l", "mmol/L", 0.01, 20, 0.1, (0.02, 0.3), "chemistry", "serum 3-hydroxybutyrate"),  # noqa: E501
    Inquiry("crp_mg_l", "mg/L", 0.1, 700, 2, (0, 8), "marker", "C-reactive protein"),
    Inquiry("troponin_ng_l", "ng/L", 1, 50000, 8, (0, 19), "marker", "high-sensitivity troponin T"),
    Inquiry("bnp_pg_ml", "pg/mL", 1, 10000, 35, (0, 100), "marker", "B-type natriuretic peptide"),
    Inquiry("white_cells_k_ul", "10*3/uL", 0.1, 120, 7.5, (4, 11), "haematology", "white cells"),
    Inquiry("haemoglobin_g_dl", "g/dL", 1, 24, 14, (12, 17), "haematology", "haemoglobin"),
    Inquiry("haematocrit_percent", "%", 3, 75, 42, (36, 51), "haematology", "haematocrit"),
    Inquiry("platelets_k_ul", "10*3/uL", 1, 1500, 240, (150, 350), "haematology", "platelets"),
    Inquiry("inr", "1", 0.7, 20, 1.0, (0.8, 1.2), "coagulation", "prothrombin time, international normalised ratio"),
    Inquiry("ptt_s", "s", 15, 200, 30, (25, 35), "coagulation", "activated partial thromboplastin time"),
    Inquiry("lactate_mmol_l", "mmol/L", 0.2, 35, 1.0, (0.5, 2.0), "gas", "blood lactate"),
    Inquiry("ph", "1", 6.4, 8.0, 7.40, (7.35, 7.45), "gas", "arterial pH"),
    Inquiry("pco2_mmhg", "mm[Hg]", 5, 180, 40, (35, 45), "gas", "arterial carbon dioxide tension"),
    Inquiry("po2_mmhg", "mm[Hg]", 10, 700, 90, (80, 100), "gas", "arterial oxygen tension"),
    Inquiry("heart_rate_bpm", "bpm", 10, 250, 75, (60, 100), "vital", "heart rate"),
    Inquiry("map_mmhg", "mm[Hg]", 5, 220, 88, (70, 105), "vital", "mean arterial pressure"),
    Inquiry("sbp_mmhg", "mm[Hg]", 10, 300, 120, (90, 140), "vital", "systolic arterial pressure"),
    Inquiry("dbp_mmhg", "mm[Hg]", 5, 200, 72, (60, 90), "vital", "diastolic arterial pressure"),
    Inquiry("respiratory_rate_min", "/min", 2, 70, 15, (12, 20), "vital", "breaths a minute"),
    Inquiry("spo2_percent", "%", 20, 100, 97, (95, 100), "vital", "pulse oximetry"),
    Inquiry("temperature_c", "Cel", 28, 43, 36.9, (36.1, 38.0), "vital", "body temperature"),
    Inquiry("urine_output_ml_h", "mL/h", 0, 2500, 70, (35, 150), "vital", "urine of the last step, an hour"),
    Inquiry("gcs", "1", 3, 15, 15, (15, 15), "vital", "Glasgow coma scale"),
    Inquiry("blood_culture", "1", 0, 4, 0, (0, 0), "culture", "0 no growth, else the index in ORGANISMS"),
    Inquiry("urine_culture", "1", 0, 4, 0, (0, 0), "culture", "0 no growth, else the index in ORGANISMS"),
)

INTERVENTIONS: tuple[Intervention, ...] = (
    Intervention("saline_ml", "mL", 4000, 1000, 1000, "0.9 % sodium chloride"),
    Intervention("ringers_lactate_ml", "mL", 4000, 1000, 1000, "Ringer's lactate"),
    Intervention("water_ml", "mL", 2000, 500, 250, "water by feeding tube"),
    Intervention("norepinephrine_ug_kg_min", "ug/kg/min", 2, 0.1, None, "norepinephrine infusion"),
    Intervention("vasopressin_units_min", "[U]/min", 0.08, 0.03, None, "vasopressin infusion"),
    Intervention("hydrocortisone_mg", "mg", 200, 50, 400, "hydrocortisone"),
    Intervention("piperacillin_tazobactam_g", "g", 9, 4.5, 9, "piperacillin-tazobactam (8:1)"),
    Intervention("vancomycin_mg", "mg", 3000, 1250, 1000, "vancomycin"),
    Intervention("ceftriaxone_g", "g", 4, 2, 4, "ceftriaxone"),
    Intervention("meropenem_g", "g", 4, 1, 2, "meropenem"),
    Intervention("furosemide_mg", "mg", 240, 40, 240, "furosemide, intravenous"),
    Intervention("insulin_units_h", "[U]/h", 20, 7, None, "regular insulin infusion"),
    Intervention("dextrose_g", "g", 100, 25, 50, "glucose as 10 % dextrose"),
    Intervention("potassium_chloride_mmol", "mmol", 80, 20, 20, "potassium chloride, 100 mL with each 20 mmol"),
    Intervention("magnesium_sulfate_g", "g", 8, 2, 2, "magnesium sulfate, 4.06 mmol each g"),
    Intervention("sodium_phosphate_mmol", "mmol", 45, 15, 7.5, "sodium phosphate, 4 mmol sodium with each 3 mmol"),
    Intervention("calcium_gluconate_g", "g", 6, 2, 6, "calcium gluconate, 2.32 mmol each g"),
    Intervention("bicarbonate_mmol", "mmol", 200, 100, 100, "sodium bicarbonate 8.4 %"),
    Intervention("red_cells_units", "1", 6, 1, 2, "packed red cells"),
    Intervention("plasma_units", "1", 6, 2, 2, "fresh frozen plasma"),
    Intervention("platelets_units", "1", 4, 1, 2, "apheresis platelets"),
    Intervention("heparin_units_kg_h", "[U]/kg/h", 36, 18, None, "unfractionated heparin infusion"),
    Intervention("oxygen_fraction", "fraction", 1, 0.4, None, "inspired oxygen; up to 0.21 is room air"),
    Intervention("ventilation_l_min", "L/min", 20, 8, None, "mechanical ventilation at this minute volume; 0: none"),
    Intervention("acetaminophen_mg", "mg", 2000, 1000, 2000, "acetaminophen"),
    Intervention("metoprolol_mg", "mg", 15, 5, 15, "metoprolol, intravenous"),
    Intervention("pantoprazole_mg", "mg", 160, 80, 160, "proton-pump inhibitor, intravenous"),
    Intervention("endoscopy", "bool", 1, 1, 2, "upper endoscopy with haemostasis"),
    Intervention("renal_replacement_ml_kg_h", "mL/kg/h", 60, 25, None, "continuous renal replacement, effluent"),
    Intervention("ultrafiltration_ml_h", "mL/h", 500, 100, None, "net removal while renal replacement runs"),
)
# fmt: on

STATIC: tuple[Quantity, ...] = (
    Quantity("age_years", "a", 18.0, 100.0, (), "age at admission"),
    Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
    Quantity("weight_kg", "kg", 35.0, 180.0, (), "body weight at admission"),
    Quantity("chronic_kidney_disease", "bool", 0.0, 1.0, (), "known before admission"),
    Quantity("diabetes", "bool", 0.0, 1.0, (), "known before admission"),
    Quantity("chronic_heart_failure", "bool", 0.0, 1.0, (), "known before admission"),
)

_I, _J = (len(INQUIRIES),), (len(INTERVENTIONS),)

MEASURES: tuple[Quantity, ...] = (
    *STATIC,
    Quantity(
        "complaint", "bool", 0.0, 1.0, (len(COMPLAINTS),), "why the patient came, one of: " + ", ".join(COMPLAINTS)
    ),
    Quantity("hours", "h", 0.0, 10000.0, (), "hours since admission"),
    Quantity("alive", "bool", 0.0, 1.0, (), "0 once dead; the chart then stands still"),
    Quantity("discharged", "bool", 0.0, 1.0, (), "1 once gone home; the chart then stands still"),
    *(Quantity(q.name, q.unit, q.low, q.high, (), f"{q.meaning}; last result") for q in INQUIRIES),
    Quantity("inquiry_age_hours", "h", 0.0, MAX_AGE_HOURS, _I, "since the charted value was drawn; at its cap: never"),
    Quantity("inquiry_seen", "bool", 0.0, 1.0, _I, "1 once a result has come; before, the value is only typical"),
    Quantity("inquiry_pending", "bool", 0.0, 1.0, _I, "1 while a specimen is out whose result has not come"),
    Quantity("treatment_share", "fraction", 0.0, 1.0, _J, "given in the last step, as a share of the largest amount"),
    Quantity("treatment_age_hours", "h", 0.0, MAX_HOURS_SINCE, _J, "since it was last given; at its cap: never"),
    Quantity(
        "diagnosis", "bool", 0.0, 1.0, (len(DISEASES),), "discharge diagnosis (tells the future)", on_request=True
    ),
)

ORDERS: tuple[Quantity, ...] = (
    *(Quantity(q.order, "bool", 0.0, 1.0, (), f"ask for: {q.meaning}") for q in INQUIRIES),
    *(Quantity(q.name, q.unit, 0.0, float(q.high), (), q.meaning) for q in INTERVENTIONS),
)

_ORDER = {q.name: i for i, q in enumerate(ORDERS)}
_INQUIRY = {q.name: i for i, q in enumerate(INQUIRIES)}
_INTERVENTION = {q.name: i for i, q in enumerate(INTERVENTIONS)}


def _find(table: dict[str, int], what: str, name: str) -> int:
    try:
        return table[name]
    except KeyError:
        raise KeyError(f"no {what} {name!r}; there are: {', '.join(table)}") from None


def order_index(name: str) -> int:
    """Column of the action. Raises KeyError for an unknown name, with those there are."""
    return _find(_ORDER, "order", name)


def inquiry_index(name: str) -> int:
    """Place of a measure in INQUIRIES (and so in `inquiry_age_hours` and its like). Raises KeyError."""
    return _find(_INQUIRY, "inquiry", name)


def intervention_index(name: str) -> int:
    """Place of an intervention in INTERVENTIONS (and so in `treatment_share`). Raises KeyError."""
    return _find(_INTERVENTION, "intervention", name)
