"""The words of the styles that readers are judged on: British spelling, other names, other units, other distractors.

They were written after the rules and the prompt. Neither may be changed in their light; the prompt's worked example was
changed later, tried on the development styles alone.
"""

from __future__ import annotations

from world_models.ehr_world.ward_summaries.wording import Vocabulary

__all__ = ["DENIED", "WORDS"]

_CONDITIONS: dict[str, tuple[str, ...]] = {
    "sepsis": ("Septicaemia", "Sepsis of bacterial origin", "Systemic sepsis", "Blood stream sepsis"),
    "pneumonia": ("Lobar pneumonia", "Lower respiratory tract infection with consolidation", "Bronchopneumonia"),
    "diabetic_ketoacidosis": ("Diabetic keto-acidosis", "Ketoacidosis in diabetes", "Hyperglycaemic crisis (DKA)"),
    "heart_failure": ("Acute left ventricular failure", "New onset heart failure, acute", "Acute pulmonary oedema"),
    "heart_failure_on_chronic": (
        "Decompensated chronic heart failure", "Exacerbation of HFrEF", "Worsening cardiac failure",
    ),
    "gi_bleed": ("Haemorrhage from the upper GI tract", "Bleeding duodenal ulcer", "Melaena", "GI haemorrhage"),
    "acute_kidney_injury": (
        "Acute kidney failure", "Acute renal impairment", "AKI (KDIGO 3)", "Acute tubular necrosis",
    ),
    "chronic_kidney_disease": ("Chronic renal impairment", "CKD G3b", "Chronic renal failure"),
    "diabetes": ("T2DM", "Type II diabetes", "Insulin-requiring diabetes mellitus", "NIDDM"),
    "chronic_heart_failure": ("HFrEF", "Chronic cardiac failure", "Ischaemic LV systolic dysfunction", "HFpEF"),
    "hyperkalaemia": ("Hyperkalaemia", "Raised potassium"),
    "hypokalaemia": ("Hypokalaemia", "Low potassium"),
    "hyponatraemia": ("Hyponatraemia", "Low sodium"),
    "hypernatraemia": ("Hypernatraemia", "Raised sodium"),
    "anaemia": ("Anaemia", "Anaemia needing transfusion"),
    "thrombocytopenia": ("Thrombocytopaenia", "Low platelet count"),
    "lactic_acidosis": ("Lactic acidaemia", "Hyperlactataemia"),
    "hypophosphataemia": ("Hypophosphataemia", "Low phosphate"),
    "septic_shock": ("Circulatory shock from sepsis", "Septic shock needing vasopressors"),
    "respiratory_failure": ("Type 1 respiratory failure", "Ventilatory failure"),
}  # fmt: skip
_RESULTS: dict[str, tuple[str, ...]] = {
    "lactate_mmol_l": ("a lactate of {}", "lactate {} mmol/l"),
    "temperature_c": ("a temperature of {}", "pyrexia of {}"),
    "white_cells_k_ul": ("a leucocyte count of {}", "leucocytes {}"),
    "spo2_percent": ("saturations of {} %", "oxygen saturations down to {} %"),
    "glucose_mg_dl": ("a plasma glucose of {} mg/dl", "glucose {} mg/dl"),
    "ph": ("an arterial pH of {}", "pH {}"),
    "anion_gap_mmol_l": ("a gap of {}",),
    "bnp_pg_ml": ("a BNP of {} ng/l", "BNP {} ng/l"),
    "haemoglobin_g_dl": ("a haemoglobin of {} g/dl", "Hb {}"),
    "heart_rate_bpm": ("a pulse of {}",),
    "creatinine_mg_dl": ("a creatinine of {} mg/dl", "creat {}"),
    "urea_nitrogen_mg_dl": ("a urea nitrogen of {}",),
    "potassium_mmol_l": ("a potassium of {} mmol/l", "K+ {}"),
    "sodium_mmol_l": ("a sodium of {} mmol/l", "Na+ {}"),
    "platelets_k_ul": ("a platelet count of {}",),
    "phosphate_mg_dl": ("a phosphate of {}",),
    "map_mmhg": ("a mean pressure of {} mmHg",),
}
_ALLERGENS: dict[str, tuple[str, ...]] = {
    "penicillin": ("co-amoxiclav", "penicillin"),
    "sulfonamides": ("co-trimoxazole", "sulphonamides"),
    "codeine": ("codeine phosphate",),
    "latex": ("natural rubber latex",),
    "iodinated contrast": ("radiographic contrast",),
    "aspirin": ("acetylsalicylic acid", "aspirin"),
    "shellfish": ("prawns",),
    "vancomycin": ("vancomycin",),
}
_TREATMENTS = {
    "ceftriaxone_g": "a cephalosporin",
    "piperacillin_tazobactam_g": "Tazocin",
    "vancomycin_mg": "vancomycin",
    "meropenem_g": "meropenem",
    "furosemide_mg": "frusemide",
    "insulin_units_h": "a variable rate insulin infusion",
    "red_cells_units": "blood",
    "norepinephrine_ug_kg_min": "noradrenaline",
    "endoscopy": "endoscopic haemostasis",
    "ventilation_l_min": "invasive ventilation",
    "renal_replacement_ml_kg_h": "haemofiltration",
}
_FAMILY = (
    "A sister is on dialysis for chronic renal failure.",
    "There is a strong family history of diabetes on the maternal side.",
    "A late uncle suffered from cardiac failure.",
    "Nothing of note runs in the family.",
)
_PAST = (
    "a hip replacement some years ago",
    "pneumonia as a teenager",
    "an episode of melaena in 2003 that never came back",
    "tonsillectomy in childhood",
    "a suspicion of diabetes that further tests did not bear out",
)
WORDS = Vocabulary(
    _CONDITIONS, _RESULTS, _ALLERGENS, _TREATMENTS, _FAMILY, _PAST, joined=(" together with ", " and ", " plus ")
)
DENIED: dict[str, tuple[str, ...]] = {
    "sepsis": ("Cultures stayed sterile and sepsis was felt to be unlikely.", "We found nothing to suggest sepsis."),
    "pneumonia": ("The radiograph was clear of pneumonia.", "Pneumonia was considered but excluded by CT."),
    "diabetic_ketoacidosis": ("Ketones were normal, so that ketoacidosis could be excluded.",),
    "heart_failure": ("An echocardiogram did not support acute heart failure.", "Heart failure: excluded on echo."),
    "gi_bleed": ("There had been no haematemesis or melaena at any time.", "Rectal examination negative for melaena."),
    "acute_kidney_injury": ("Renal function never suggested an acute kidney injury.", "AKI not present."),
}
