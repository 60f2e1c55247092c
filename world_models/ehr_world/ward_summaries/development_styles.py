"""The styles that the rules and the prompt were written with: a hospital's headings, and a short form."""

from __future__ import annotations

from collections.abc import Sequence

from world_models.ehr_world.ward_summaries.facts import StayFacts
from world_models.ehr_world.ward_summaries.wording import Dice, Named, Style, Vocabulary

__all__ = ["DEVELOPMENT"]

_CONDITIONS: dict[str, tuple[str, ...]] = {
    "sepsis": ("Sepsis", "Severe sepsis", "Septicemia"),
    "pneumonia": ("Pneumonia", "Community acquired pneumonia", "CAP"),
    "diabetic_ketoacidosis": ("Diabetic ketoacidosis", "DKA"),
    "heart_failure": ("Acute heart failure", "Acute systolic heart failure", "Acute decompensated heart failure"),
    "heart_failure_on_chronic": ("Acute on chronic systolic heart failure", "CHF exacerbation"),
    "gi_bleed": ("Upper GI bleed", "Gastrointestinal bleeding", "UGIB"),
    "acute_kidney_injury": ("Acute kidney injury", "AKI", "Acute renal failure"),
    "chronic_kidney_disease": ("Chronic kidney disease", "CKD", "CKD stage III"),
    "diabetes": ("Diabetes mellitus type 2", "DM2", "Diabetes"),
    "chronic_heart_failure": ("Congestive heart failure", "CHF", "Chronic systolic heart failure"),
    "hyperkalaemia": ("Hyperkalemia",),
    "hypokalaemia": ("Hypokalemia",),
    "hyponatraemia": ("Hyponatremia",),
    "hypernatraemia": ("Hypernatremia",),
    "anaemia": ("Anemia", "Acute blood loss anemia"),
    "thrombocytopenia": ("Thrombocytopenia",),
    "lactic_acidosis": ("Lactic acidosis",),
    "hypophosphataemia": ("Hypophosphatemia",),
    "septic_shock": ("Septic shock",),
    "respiratory_failure": ("Acute respiratory failure", "Hypoxemic respiratory failure"),
}
_RESULTS: dict[str, tuple[str, ...]] = {
    "lactate_mmol_l": ("lactate {}", "lactate of {} mmol/L"),
    "temperature_c": ("temperature {} C", "fever to {}"),
    "white_cells_k_ul": ("WBC {}", "white count of {}"),
    "spo2_percent": ("O2 sat {}%", "saturation of {}%"),
    "glucose_mg_dl": ("glucose {}", "glucose of {} mg/dL"),
    "ph": ("pH {}",),
    "anion_gap_mmol_l": ("anion gap {}",),
    "bnp_pg_ml": ("BNP {}", "BNP of {} pg/mL"),
    "haemoglobin_g_dl": ("hemoglobin {}", "Hgb of {}"),
    "heart_rate_bpm": ("heart rate {}",),
    "creatinine_mg_dl": ("creatinine {}", "creatinine of {} mg/dL"),
    "urea_nitrogen_mg_dl": ("BUN {}",),
    "potassium_mmol_l": ("potassium {}", "K {}"),
    "sodium_mmol_l": ("sodium {}", "Na {}"),
    "platelets_k_ul": ("platelets {}",),
    "phosphate_mg_dl": ("phosphate {}",),
    "map_mmhg": ("MAP {}", "mean arterial pressure of {}"),
}
_ALLERGENS: dict[str, tuple[str, ...]] = {
    "penicillin": ("Penicillins", "penicillin"),
    "sulfonamides": ("Sulfa (Sulfonamide Antibiotics)", "sulfa"),
    "codeine": ("Codeine",),
    "latex": ("Latex",),
    "iodinated contrast": ("Iodinated contrast",),
    "aspirin": ("Aspirin",),
    "shellfish": ("Shellfish",),
    "vancomycin": ("Vancomycin",),
}
_TREATMENTS = {
    "ceftriaxone_g": "ceftriaxone",
    "piperacillin_tazobactam_g": "piperacillin-tazobactam",
    "vancomycin_mg": "vancomycin",
    "furosemide_mg": "IV furosemide",
    "insulin_units_h": "an insulin drip",
    "red_cells_units": "packed red cells",
    "norepinephrine_ug_kg_min": "norepinephrine",
    "pantoprazole_mg": "pantoprazole",
    "ventilation_l_min": "mechanical ventilation",
    "saline_ml": "normal saline",
}
_FAMILY = (
    "Father with CHF, died of MI at 70.",
    "Mother had diabetes and CKD.",
    "Brother with pneumonia last year. No early coronary disease.",
    "Non-contributory.",
)
_PAST = (
    "s/p appendectomy in 1998",
    "Pneumonia in 2009, resolved",
    "h/o GI bleed in 2011",
    "s/p cholecystectomy",
    "Nephrolithiasis, remote",
)
_WORDS = Vocabulary(_CONDITIONS, _RESULTS, _ALLERGENS, _TREATMENTS, _FAMILY, _PAST)
_DENIED = {
    "sepsis": "There was no evidence of sepsis.",
    "pneumonia": "Chest x-ray showed no pneumonia.",
    "diabetic_ketoacidosis": "DKA was ruled out.",
    "heart_failure": "No signs of heart failure on exam.",
    "gi_bleed": "Patient denied melena; GI bleed was ruled out.",
    "acute_kidney_injury": "No acute kidney injury.",
}


def _history(facts: StayFacts, conditions: Sequence[Named], words: Vocabulary, dice: Dice) -> list[str]:
    """Lines of the past medical history: chronic conditions among what is long over."""
    chronic = [c.name for c in conditions[1:] if not c.condition.findings]
    return [*chronic, dice.pick(words.past, "past")] if dice.chance(0.8, "told past") or not chronic else chronic


def _course(facts: StayFacts, words: Vocabulary) -> str:
    given = [words.treatments[name] for name in facts.treatments if name in words.treatments]
    return f"Treated with {', '.join(given)}." if given else "Managed supportively."


def _headings(
    facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str], words: Vocabulary, dice: Dice
) -> str:
    """The form of a large teaching hospital: a heading, then what belongs to it."""
    sex, title, noun = ("F", "Ms.", "woman") if facts.female else ("M", "Mr.", "man")
    first, others = conditions[0], conditions[1:]
    listed = [c for c in others if c.condition.findings or dice.chance(0.7, f"listed/{c.condition.name}")]
    told = (
        ""
        if facts.allergies is None
        else "Allergies:\n"
        + (" / ".join(allergies) or dice.pick(("No Known Allergies / Adverse Drug Reactions", "NKDA"), "none"))
    )
    denied = _DENIED[dice.pick(facts.absent, "denied")]
    explained = [
        f"# {c.name}: {c.reason[:1].upper()}{c.reason[1:]}." if c.reason else f"# {c.name}: Stable."
        for c in conditions
        if c.condition.findings or c is first
    ]
    parts = [
        "Name: ___   Unit No: ___\nAdmission Date: ___   Discharge Date: ___\n"
        f"Date of Birth: ___   Sex: {sex}\nService: MEDICINE",
        told,
        "Chief Complaint:\nweakness",
        f"History of Present Illness:\n{title} ___ is a {facts.age_years} year old {noun} who was brought in by "
        f"ambulance. {denied}",
        "Past Medical History:\n"
        + "\n".join(f"{i}. {x}" for i, x in enumerate(_history(facts, conditions, words, dice), 1)),
        "Family History:\n" + dice.pick(words.family, "family"),
        "Brief Hospital Course:\n" + "\n".join(explained) + f"\n{_course(facts, words)}",
        "Discharge Disposition:\n" + ("Expired" if facts.died else "Home"),
        "Discharge Diagnosis:\nPrimary diagnosis:\n" + first.name,
        "Secondary diagnosis:\n" + ("\n".join(c.name for c in listed) or "None"),
        "Discharge Condition:\n" + ("Deceased" if facts.died else "Stable"),
    ]
    return "\n\n".join(part for part in parts if part)


def _problems(
    facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str], words: Vocabulary, dice: Dice
) -> str:
    """A short form: history in a line, diagnoses numbered with their reasons in brackets."""
    short = f"{facts.age_years} y/o {'female' if facts.female else 'male'}"
    chronic = [c.name for c in conditions[1:] if not c.condition.findings]
    with_history = f" with history of {', '.join(chronic)}" if chronic else ""
    told = "" if facts.allergies is None else "ALLERGIES: " + (", ".join(allergies) or "NKDA")
    diagnoses = [f"{i}. {c.name}" + (f" ({c.reason})" if c.reason else "") for i, c in enumerate(conditions, 1)]
    parts = [
        f"HPI: {short}{with_history} admitted via the ED. {_DENIED[dice.pick(facts.absent, 'denied')]}",
        f"PAST MEDICAL HISTORY: {'; '.join(_history(facts, conditions, words, dice))}",
        told,
        f"FAMILY HISTORY: {dice.pick(words.family, 'family')}",
        f"HOSPITAL COURSE: {_course(facts, words)} Stayed {facts.days} days.",
        "DISCHARGE DIAGNOSES:\n" + "\n".join(diagnoses),
        f"DISPOSITION: {'Died' if facts.died else 'Home with services'}.",
    ]
    return "\n".join(part for part in parts if part)


DEVELOPMENT = (
    Style("headings", _WORDS, _headings, held_out=False),
    Style("problems", _WORDS, _problems, held_out=False),
)
