"""The table of interventions: our name for a drug, a fluid or a procedure, its units, and where it stands in MIMIC.

Names are those of `quantities.ward` without their unit, where the ward gives the same thing. A row gives the unit that
doses and rates are brought to where they can be (`units.dose_conversion`), the MIMIC item ids of its infusions and
procedures (MetaVision 220000 up, CareVue 30000 up) and a pattern for its names in emar, pharmacy and prescriptions,
brands included. What is not in the table keeps the source's own name in lower case and its own units.

`amount` and `rate` are also the units of an infusion whose source leaves them out (the MEDS demo does), but for
`AMOUNT_IF_MISSING`: in INPUTEVENTS_MV of the MIMIC-III demo every one of these item ids has this one unit. `max_rate`
is the highest rate kept; above it the rate is dropped and counted, the infusion stays. Norepinephrine rows in mg/kg/min
are converted; where the patient's weight is charted as 1 they are in ug/kg/min already (mimic-code,
concepts/medication/norepinephrine.sql). `LARGEST_DOSES` are the same for doses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

__all__ = ["ADMINISTRATIVE", "AMOUNT_IF_MISSING", "EXECUTED", "LARGEST_DOSES", "INTERVENTION_ITEMS", "InterventionItem"]
__all__ += ["by_itemid", "by_name", "is_flush", "item_of_drug"]


@dataclass(frozen=True, slots=True)
class InterventionItem:
    """One thing that can be given to a patient or done."""

    name: str
    amount: str  # unit of a dose; "" where the sources have none in common
    rate: str  # unit of an infusion's rate; "" where it is not infused by rate
    itemids: tuple[int, ...] = ()
    pattern: str = ""  # of names, lower case, blanks single; matched from the start
    max_rate: float | None = None  # in `rate`


def _fluid(name: str, itemids: tuple[int, ...], pattern: str = "") -> InterventionItem:
    return InterventionItem(name, "mL", "mL/h", itemids, pattern, 10000)


def _dosed(name: str, itemid: int | None = None, pattern: str = "", unit: str = "mg") -> InterventionItem:
    return InterventionItem(name, unit, "", (itemid,) if itemid else (), pattern or name.replace("_", " "))


# fmt: off
INTERVENTION_ITEMS: tuple[InterventionItem, ...] = (
    # fluids and blood
    _fluid("saline", (225158, 30018), r"(sodium chloride 0\.9 ?%|0\.9 ?% sodium chloride|ns$|normal saline)"),
    _fluid("saline_0_45", (225159,), r"(sodium chloride 0\.45|0\.45 ?% sodium chloride|1/2 ns)"),
    _fluid("ringers_lactate", (225828, 30021), r"(lactated ringer|ringer|lr$)"),
    _fluid("dextrose_5", (220949, 30013), r"(d5w|5 ?% dextrose|dextrose 5 ?%)"),
    _fluid("dextrose_5_saline_0_45", (225823,), r"d5 ?1/2 ?ns"),
    _fluid("dextrose_50", (220952,), r"(dextrose 50|d50)"),
    _fluid("albumin_25", (220862, 30009), r"albumin.*25"),
    _fluid("albumin_5", (220864, 30008), r"albumin.*\b5"),
    _fluid("red_cells", (225168, 226368), r"packed red"),
    _fluid("plasma", (220970,), r"fresh frozen plasma"),
    _fluid("platelets", (225170, 226369), r"platelets"),
    _fluid("cryoprecipitate", (225171, 226371), r"cryo"),
    # heart and vessels
    InterventionItem("norepinephrine", "mg", "ug/kg/min", (221906, 30120), r"(norepinephrine|levophed)", 10),
    InterventionItem("epinephrine", "mg", "ug/kg/min", (221289, 30119), r"(epinephrine|adrenalin)", 10),
    InterventionItem("phenylephrine", "mg", "ug/kg/min", (221749, 30128), r"(phenylephrine|neosyn|neo-syn)", 50),
    InterventionItem("vasopressin", "[U]", "[U]/h", (222315, 30051), r"vasopressin", 30),
    InterventionItem("dopamine", "mg", "ug/kg/min", (221662, 30043), r"dopamine", 100),
    InterventionItem("dobutamine", "mg", "ug/kg/min", (221653, 30042), r"dobutamine", 100),
    InterventionItem("milrinone", "mg", "ug/kg/min", (221986, 30125), r"milrinone", 5),
    InterventionItem("nitroglycerin", "mg", "ug/kg/min", (222056, 30121), r"nitroglycerin", 30),
    InterventionItem("nitroprusside", "mg", "ug/kg/min", (222051, 30050), r"(nitroprusside|nipride)", 30),
    InterventionItem("nicardipine", "mg", "ug/kg/min", (222042, 30178), r"nicardipine", 50),
    InterventionItem("esmolol", "mg", "ug/kg/min", (221429, 30117), r"esmolol", 1000),
    InterventionItem("amiodarone", "mg", "mg/min", (221347, 228339, 30112), r"amiodarone", 50),
    InterventionItem("diltiazem", "mg", "mg/h", (221468,), r"diltiazem", 100),
    InterventionItem("labetalol", "mg", "mg/min", (225153, 30122), r"labetalol", 50),
    _dosed("metoprolol", 225974, r"(metoprolol|lopressor)"), _dosed("hydralazine", 221828), _dosed("lisinopril"),
    _dosed("amlodipine"), _dosed("carvedilol"), _dosed("digoxin"), _dosed("atorvastatin"), _dosed("aspirin"),
    _dosed("midodrine"),
    # sedation and pain
    InterventionItem("propofol", "mg", "ug/kg/min", (222168, 30131), r"(propofol|diprivan)", 500),
    InterventionItem("fentanyl", "ug", "ug/h", (221744, 225942, 30118), r"fentanyl", 2000),
    InterventionItem("midazolam", "mg", "mg/h", (221668, 30124), r"(midazolam|versed)", 100),
    InterventionItem("dexmedetomidine", "ug", "ug/kg/h", (225150, 229420), r"(dexmedetomidine|precedex)", 10),
    InterventionItem("morphine", "mg", "mg/h", (225154, 30126), r"morphine", 100),
    InterventionItem("hydromorphone", "mg", "mg/h", (221833,), r"(hydromorphone|dilaudid)", 50),
    InterventionItem("lorazepam", "mg", "mg/h", (221385, 30141), r"(lorazepam|ativan)", 50),
    InterventionItem("cisatracurium", "mg", "mg/kg/h", (30114,), r"(cisatracurium|nimbex)", 5),
    _dosed("acetaminophen", 228315, r"(acetaminophen|tylenol)"), _dosed("oxycodone"), _dosed("haloperidol", 221824),
    _dosed("quetiapine"), _dosed("gabapentin"), _dosed("levetiracetam", 228316, r"(levetiracetam|keppra)"),
    # electrolytes, kidney, sugar
    InterventionItem(
        "potassium_chloride", "mmol", "mmol/h", (225166, 227536), r"(potassium chloride|potassium chl|kcl)", 200),
    InterventionItem("magnesium_sulfate", "g", "g/h", (222011,), r"magnesium sulfate", 50),
    InterventionItem("calcium_gluconate", "g", "g/h", (221456, 227525), r"calcium gluconate", 50),
    InterventionItem("bicarbonate", "mmol", "mmol/h", (220995,), r"sodium bicarbonate", 1000),
    InterventionItem("potassium_phosphate", "mmol", "mmol/h", (225834,), r"(potassium phosphate|k phos)", 100),
    InterventionItem("sodium_phosphate", "mmol", "mmol/h", (225835,), r"(sodium phosphate|na phos)", 100),
    _fluid("potassium_chloride_premix", (227522,)), _fluid("magnesium_sulfate_premix", (227523,)),
    InterventionItem("furosemide", "mg", "mg/h", (221794, 228340, 30123), r"(furosemide|lasix)", 200),
    _dosed("bumetanide"), _dosed("spironolactone"), _dosed("torsemide"),
    InterventionItem("insulin_glargine", "[U]", "", (223260,), r"(insulin.*glargine|glargine|lantus)"),
    InterventionItem("insulin_nph", "[U]", "", (223259,), r"(insulin.*nph|nph)"),
    InterventionItem("insulin", "[U]", "[U]/h", (223258, 223262, 30045), r"(insulin|humalog|humulin|novolog)", 200),
    _dosed("levothyroxine", unit="ug"), _dosed("glucagon"),
    _dosed("hydrocortisone"), _dosed("methylprednisolone"), _dosed("prednisone"), _dosed("dexamethasone"),
    # clotting
    InterventionItem("heparin", "[U]", "[U]/h", (225152, 225975, 30025), r"heparin", 10000),
    _dosed("enoxaparin", 225906, r"(enoxaparin|lovenox)"), _dosed("warfarin", 225913, r"(warfarin|coumadin)"),
    _dosed("phytonadione", 227535, r"(phytonadione|vitamin k)"), _dosed("clopidogrel"),
    # infection
    _dosed("vancomycin", 225798), _dosed("piperacillin_tazobactam", 225893, r"(piperacillin|zosyn)", "g"),
    _dosed("cefepime", 225851, unit="g"), _dosed("ceftriaxone", 225855, unit="g"),
    _dosed("cefazolin", 225850, unit="g"), _dosed("ceftazidime", 225853, unit="g"),
    _dosed("meropenem", 225883), _dosed("metronidazole", 225884, r"(metronidazole|flagyl)"),
    _dosed("ciprofloxacin", 225859), _dosed("levofloxacin", 225879), _dosed("azithromycin", 225845),
    _dosed("ampicillin_sulbactam", 225843, r"(ampicillin.*sulbactam|unasyn)", "g"),
    _dosed("ampicillin", 225842, unit="g"), _dosed("linezolid", 225881), _dosed("clindamycin", 225860),
    _dosed("gentamicin", 225875), _dosed("tobramycin", 225902), _dosed("acyclovir", 225837),
    _dosed("fluconazole", 225869), _dosed("micafungin", 225885), _dosed("doxycycline", 225865),
    # gut and lung
    InterventionItem("pantoprazole", "mg", "mg/h", (225910,), r"(pantoprazole|protonix)", 50),
    _dosed("omeprazole", 227694), _dosed("famotidine", 225907, r"(famotidine|pepcid)"), _dosed("ranitidine", 225911),
    InterventionItem("octreotide", "ug", "ug/h", (225155, 30133), r"(octreotide|sandostatin)", 500),
    _dosed("ondansetron", None, r"(ondansetron|zofran)"), _dosed("metoclopramide"), _dosed("lactulose", None, "", "mL"),
    _dosed("docusate", None, r"docusate"), _dosed("senna"), _dosed("bisacodyl"),
    _dosed("polyethylene_glycol", None, r"polyethylene glycol", "g"), _dosed("rifaximin"),
    InterventionItem("albuterol_ipratropium", "", "", (), r"ipratropium.?(-|/).?albuterol"),
    InterventionItem("albuterol", "", "", (), r"albuterol"),
    InterventionItem("ipratropium", "", "", (), r"ipratropium"),
    _dosed("thiamine", 225833), _dosed("folic_acid", 225832),
    InterventionItem("multivitamins", "", "", (), r"multivitamin"),
    # procedures
    *(InterventionItem(name, "", "", itemids) for name, itemids in {
        "invasive_ventilation": (225792,), "noninvasive_ventilation": (225794,), "intubation": (224385,),
        "extubation": (227194,), "hemodialysis": (225441,), "renal_replacement": (225802,),
        "arterial_line": (225752,), "central_line": (224263, 224264, 224267, 224268, 224560, 224269),
        "dialysis_catheter": (224270,), "peripheral_line": (224274, 224275, 224276, 224277, 224566),
        "chest_x_ray": (225459,), "x_ray": (221216, 225457), "ct_scan": (221214,), "mri": (223253,),
        "ultrasound": (221217,), "electrocardiogram": (225402,), "echocardiogram": (225432, 221255),
        "electroencephalogram": (221223,), "bronchoscopy": (225400,), "endoscopy": (225439,),
        "blood_culture_taken": (225401,), "urine_culture_taken": (225454,), "sputum_culture_taken": (225451,),
        "pan_culture_taken": (225444,), "stool_culture_taken": (225814,), "nasal_swab_taken": (225966,),
        "paracentesis": (225445,), "thoracentesis": (225479,), "chest_tube": (225433,),
        "chest_tube_removed": (227712,), "cardioversion": (225464,),
    }.items()),
)
# fmt: on

# Highest dose kept, in the item's `amount`: of one administration or order, or of an infusion as a whole. Some five to
# ten times what is usual at most, so that above it a number is a slip of the pen or of the unit (k).
# fmt: off
LARGEST_DOSES: dict[str, float] = {
    **{item.name: 20_000.0 for item in INTERVENTION_ITEMS if item.amount == "mL"}, "lactulose": 5_000,
    "norepinephrine": 500, "epinephrine": 200, "phenylephrine": 3_000, "vasopressin": 1_000, "dopamine": 5_000,
    "dobutamine": 5_000, "milrinone": 300, "nitroglycerin": 3_000, "nitroprusside": 1_000, "nicardipine": 1_500,
    "esmolol": 50_000, "amiodarone": 5_000, "diltiazem": 2_000, "labetalol": 6_000, "metoprolol": 1_000,
    "hydralazine": 500, "lisinopril": 200, "amlodipine": 100, "carvedilol": 200, "digoxin": 5, "atorvastatin": 400,
    "aspirin": 5_000, "midodrine": 150,
    "propofol": 30_000, "fentanyl": 50_000, "midazolam": 2_000, "dexmedetomidine": 10_000, "morphine": 2_000,
    "hydromorphone": 1_000, "lorazepam": 1_000, "cisatracurium": 4_000, "acetaminophen": 10_000, "oxycodone": 800,
    "haloperidol": 200, "quetiapine": 2_000, "gabapentin": 6_000, "levetiracetam": 10_000,
    "potassium_chloride": 1_000, "magnesium_sulfate": 100, "calcium_gluconate": 200, "bicarbonate": 5_000,
    "potassium_phosphate": 500, "sodium_phosphate": 500, "furosemide": 4_000, "bumetanide": 100,
    "spironolactone": 1_000, "torsemide": 1_000, "insulin_glargine": 1_000, "insulin_nph": 1_000, "insulin": 3_000,
    "levothyroxine": 2_000, "glucagon": 200, "hydrocortisone": 2_000, "methylprednisolone": 5_000, "prednisone": 1_000,
    "dexamethasone": 1_000,
    "heparin": 250_000, "enoxaparin": 1_000, "warfarin": 100, "phytonadione": 200, "clopidogrel": 2_000,
    "vancomycin": 20_000, "piperacillin_tazobactam": 50, "cefepime": 20, "ceftriaxone": 20, "cefazolin": 20,
    "ceftazidime": 20, "meropenem": 20_000, "metronidazole": 10_000, "ciprofloxacin": 5_000, "levofloxacin": 5_000,
    "azithromycin": 5_000, "ampicillin_sulbactam": 30, "ampicillin": 30, "linezolid": 5_000, "clindamycin": 10_000,
    "gentamicin": 3_000, "tobramycin": 3_000, "acyclovir": 10_000, "fluconazole": 5_000, "micafungin": 2_000,
    "doxycycline": 2_000,
    "pantoprazole": 1_000, "omeprazole": 1_000, "famotidine": 500, "ranitidine": 3_000, "octreotide": 20_000,
    "ondansetron": 200, "metoclopramide": 500, "docusate": 5_000, "senna": 500, "bisacodyl": 200,
    "polyethylene_glycol": 5_000, "rifaximin": 5_000, "thiamine": 5_000, "folic_acid": 200,
}
# fmt: on

# MetaVision counts these by the dose; the amount of the last three is in mg beside a rate and in ug without, so that
# without a unit it is unknown.
AMOUNT_IF_MISSING: dict[int, str] = {
    **dict.fromkeys((
        225798, 225837, 225842, 225843, 225845, 225850, 225851, 225853, 225855, 225859, 225860, 225865, 225869, 225875,
        225879, 225881, 225883, 225884, 225885, 225893, 225902, 225906, 225907, 225910, 225911, 225913, 225975, 227694,
    ), "dose"),
    221744: "", 225942: "", 225155: "",
}  # fmt: skip

# procedureevents that change nobody: family meetings, calls, the way to theatre and back.
ADMINISTRATIVE = frozenset({228125, 228127, 228128, 228129, 228130, 225469, 225470})

# event_txt of emar that says a dose went in; every other ("Not Given", "Hold Dose", "Flushed", "Stopped" ...) is not
# one.
EXECUTED = frozenset({
    "Administered", "Administered Bolus from IV Drip", "Administered in Other Location", "Applied",
    "Applied in Other Location", "Delayed Administered", "Delayed Applied", "Delayed Started", "Partial Administered",
    "Removed Existing / Applied New", "Restarted", "Started", "Started in Other Location",
})  # fmt: skip


@cache
def by_itemid() -> dict[int, InterventionItem]:
    """MIMIC itemid -> item."""
    return {itemid: item for item in INTERVENTION_ITEMS for itemid in item.itemids}


@cache
def by_name() -> dict[str, InterventionItem]:
    """Our name -> item."""
    return {item.name: item for item in INTERVENTION_ITEMS}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(item.pattern), item.name) for item in INTERVENTION_ITEMS if item.pattern)


@cache
def item_of_drug(name: str) -> str:
    """Our name for a drug as a pharmacy writes it; of a drug outside the table its own name, lower case, single blanks.

    'HYDROmorphone (Dilaudid)' -> 'hydromorphone'; 'Heparin' -> 'heparin'; 'Sevelamer CARBONATE' stays
    'sevelamer carbonate'. Salts and forms of a listed drug fall together; combinations listed first stay apart.
    """
    plain = " ".join(name.lower().split())
    if plain in by_name():  # our own name, on its way back from a file
        return plain
    return next((item for pattern, item in _patterns() if pattern.match(plain)), plain)


def is_flush(name: str) -> bool:
    """Saline or heparin that keeps a line open: no treatment."""
    return "flush" in name.lower()
