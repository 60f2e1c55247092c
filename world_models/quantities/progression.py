"""What the progression worlds know of a patient and what can be ordered: one table for oracle and learned world.

Conditions are three-character ICD-10 codes of chapter IX, the label set of MIMIC-IV-ECG cut to what the progression
oracle simulates. `IRREVERSIBLE` and `BECOMES` say which transitions nature does not undo; they are facts about
diseases, not about any model, so that a model's reversal can be tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence

from world_models.quantity import Quantity

__all__ = [
    "BECOMES", "CODES", "CONDITIONS", "DEVICES", "DRUGS", "INTERVALS_MONTHS", "IRREVERSIBLE", "MEASURES", "ORDERS",
    "PROCEDURES", "SAMPLES", "SAMPLING_RATE_HZ", "TREATMENTS", "becomes", "lasts", "scars",
]  # fmt: skip

CONDITIONS: dict[str, str] = {
    "I10": "essential hypertension",
    "I11": "hypertensive heart disease",
    "I20": "angina pectoris",
    "I21": "acute myocardial infarction",
    "I25": "chronic ischaemic heart disease (old infarction)",
    "I26": "pulmonary embolism",
    "I27": "pulmonary heart disease",
    "I30": "acute pericarditis",
    "I31": "pericardial effusion",
    "I34": "mitral valve disorder",
    "I35": "aortic valve disorder",
    "I42": "cardiomyopathy",
    "I44": "atrioventricular and left bundle-branch block",
    "I45": "right bundle-branch and other conduction disorders",
    "I47": "paroxysmal tachycardia",
    "I48": "atrial fibrillation and flutter",
    "I49": "other arrhythmias (premature beats, sick sinus)",
    "I50": "heart failure",
    "I51": "takotsubo and other ill-defined heart disease",
    "I63": "cerebral infarction",
    "I70": "atherosclerosis",
    "I73": "peripheral vascular disease",
    "I82": "venous thrombosis",
    "I95": "hypotension",
}
CODES: tuple[str, ...] = tuple(CONDITIONS)

# Once there, always there: scars, dilated chambers and stiff vessels do not go.
IRREVERSIBLE: frozenset[str] = frozenset({"I10", "I11", "I25", "I27", "I34", "I35", "I42", "I70", "I73"})
# What goes but leaves another condition behind: an infarction heals into a scar, so its onset cannot be undone either.
BECOMES: dict[str, str] = {"I21": "I25"}


def lasts(code: str) -> bool:
    """Whether a condition, once there, stays; a finer code does what its category does, I25.2 what I25 does."""
    return code[:3].upper() in IRREVERSIBLE


def becomes(code: str) -> str | None:
    """The category that a condition leaves behind when it goes, if any; a finer code leaves what its category does."""
    return BECOMES.get(code[:3].upper())


def scars(codes: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Columns among these codes of each condition of `BECOMES` and of what it leaves, where both are there.

    With finer codes a condition has a pair for every one that its scar may be coded as.
    """
    columns = range(len(codes))
    return tuple(
        (i, j) for a, b in BECOMES.items() for i in columns if _of(codes[i], a) for j in columns if _of(codes[j], b)
    )


def _of(code: str, category: str) -> bool:
    return code[:3].upper() == category


# In the order of the columns of orders and charts; what is new is appended.
TREATMENTS: tuple[str, ...] = (
    "cardioversion", "ablation", "pacemaker", "revascularisation",
    "antiarrhythmic", "beta_blocker", "ace_inhibitor", "diuretic", "anticoagulant",
    "statin", "sglt2_inhibitor", "icd", "crt", "valve_replacement",
)  # fmt: skip
DEVICES: tuple[str, ...] = ("pacemaker", "icd", "crt")  # implanted once and kept
_AT_THE_VISIT = {"cardioversion", "ablation", "revascularisation", "valve_replacement", *DEVICES}
PROCEDURES: tuple[str, ...] = tuple(name for name in TREATMENTS if name in _AT_THE_VISIT)
DRUGS: tuple[str, ...] = tuple(name for name in TREATMENTS if name not in PROCEDURES)  # taken until the next visit
INTERVALS_MONTHS: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0)  # to the next visit, as the tasks offer them

SAMPLING_RATE_HZ = 100.0
SAMPLES = 1000  # 10 s

_NAMES = {"icd": "implantable cardioverter-defibrillator", "crt": "cardiac resynchronisation (biventricular pacing)"}
_NAMES |= {"sglt2_inhibitor": "SGLT2 inhibitor", "ace_inhibitor": "ACE inhibitor"}
_NAMES |= {"valve_replacement": "replacement of the aortic valve"}


def _meaning(treatment: str) -> str:
    when = "done at this visit" if treatment in PROCEDURES else "taken until the next visit"
    return f"{_NAMES.get(treatment, treatment.replace('_', ' '))}, {when}"


ORDERS: tuple[Quantity, ...] = (
    *(Quantity(name, "bool", 0.0, 1.0, (), _meaning(name)) for name in TREATMENTS),
    Quantity("months_to_next_visit", "month", 1.0, 24.0, (), "time to the next visit"),
)

MEASURES: tuple[Quantity, ...] = (
    Quantity("age_years", "a", 18.0, 130.0, (), "age now"),
    Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
    Quantity("years", "a", 0.0, 100.0, (), "since the first visit"),
    Quantity("months_since_visit", "month", 0.0, 24.0, (), "since the visit before; 0 at the first"),
    Quantity("condition", "bool", 0.0, 1.0, (len(CODES),), "conditions present at this visit: " + " ".join(CODES)),
    Quantity(
        "treated", "bool", 0.0, 1.0, (len(TREATMENTS),),
        "drugs taken since the last visit, procedures ever done: " + " ".join(TREATMENTS),
    ),
    Quantity("bleeding", "bool", 0.0, 1.0, (), "a major bleed since the last visit"),
    Quantity("dead", "bool", 0.0, 1.0, (), "1 if the patient has died"),
    Quantity("ecg_mv", "mV", -20.0, 20.0, (12, SAMPLES), "12 leads, 10 s at 100 Hz", on_request=True),
)  # fmt: skip
