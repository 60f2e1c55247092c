"""What eICU calls a drug, a fluid or a treatment -> our interventions: the tables that `eicu` reads by.

Three kinds of names. Infusions carry the unit of their rate in the name, 'Norepinephrine (mcg/min)': RATE_UNITS has
every one that is read. Orders of the pharmacy are named as each hospital likes, a container first ('2 ml vial :
ondansetron hcl'), or not at all: then the number of the ingredient list (HICL) names the drug, where the demo's named
orders of that number are of one drug, brands included. Treatments are paths ('cardiovascular|shock|vasopressors|
norepinephrine > 0.1 micrograms/kg/min'): TREATMENTS has their patterns, and where none fits, the last parts of the
path are looked up as drugs. Everything else (consultations, diets, catheters, classes of drugs without a name) is no
order of ours, and counted.
"""

from __future__ import annotations

import re
from functools import cache

from world_models.data.ehr import intervention_items

__all__ = ["BLOOD_PRODUCTS", "CONTINUOUS", "HICL", "RATE_UNITS", "TREATMENTS", "drug_of_order", "infusion_of"]
__all__ += ["treatment_of"]

# The unit in the name of an infusion -> as we write it; "" says that it is not told.
RATE_UNITS: dict[str, str] = {
    "ml/hr": "mL/h", "mcg/kg/min": "ug/kg/min", "mcg/min": "ug/min", "mcg/hr": "ug/h", "mcg/kg/hr": "ug/kg/h",
    "mg/hr": "mg/h", "mg/min": "mg/min", "mg/kg/min": "mg/kg/min", "mg/kg/hr": "mg/kg/h", "units/hr": "[U]/h",
    "units/min": "[U]/min", "units/kg/hr": "[U]/kg/h", "unknown": "", "": "",
}  # fmt: skip

# Names that `intervention_items` does not read, matched from the start, lower case, containers taken off.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"(dextrose.?-?|d)5 ?%?(-| w/| )?-?(nacl|sodium chloride|1/2 ?ns|0\.45)", "dextrose_5_saline_0_45"),
    (r"d5 ?0\.45", "dextrose_5_saline_0_45"),
    (r"(0\.9 ?%?|\.9) ?(ns|nacl|sodium chloride)$|(nss?|nacl|sodium chloride)( 0\.9 ?%.*)?( ivf| infusion| bolus)?$",
     "saline"),
    (r"nss? (0\.9%|bolus)|nacl 0\.9|volume \(ml\)-(0\.9 ?%|sodium chloride 0\.9)", "saline"),
    (r"volume \(ml\)-lactated|lr( ivf)?$", "ringers_lactate"),
    (r"(1/2 ?ns|0\.45 ?n(s|acl))", "saline_0_45"),
    (r"(prbc|blood \(prbc|volume-transfuse rbc)", "red_cells"),
    (r"(sod(ium)? bicarb|bicarb)", "bicarbonate"),
    (r"volume \(ml\) ?-?heparin", "heparin"), (r"volume \(ml\) phenylephrine", "phenylephrine"),
    (r"volume \(ml\) magnesium", "magnesium_sulfate"), (r"magnesium sulf", "magnesium_sulfate"),
    (r"(klor-con|k-dur|k-tab)", "potassium_chloride"), (r"cardizem", "diltiazem"), (r"levaquin", "levofloxacin"),
    (r"vancocin", "vancomycin"), (r"(sublimaze|duragesic)", "fentanyl"), (r"rocephin", "ceftriaxone"),
    (r"ancef", "cefazolin"), (r"merrem", "meropenem"), (r"(solu-?medrol)", "methylprednisolone"),
    (r"deltasone", "prednisone"), (r"decadron", "dexamethasone"), (r"lipitor", "atorvastatin"),
    (r"coreg", "carvedilol"), (r"plavix", "clopidogrel"), (r"(haldol)", "haloperidol"), (r"reglan", "metoclopramide"),
    (r"(dulcolax)", "bisacodyl"), (r"colace", "docusate"), (r"miralax", "polyethylene_glycol"),
    (r"(toprol)", "metoprolol"), (r"(prinivil|zestril)", "lisinopril"), (r"apresoline", "hydralazine"),
    (r"(glucagen)", "glucagon"), (r"(synthroid)", "levothyroxine"), (r"neurontin", "gabapentin"),
    (r"(duoneb|albuterol.?(-|/).?ipratropium)", "albuterol_ipratropium"), (r"atrovent", "ipratropium"),
    (r"(proventil|ventolin)", "albuterol"), (r"bumex", "bumetanide"), (r"(lanoxin)", "digoxin"),
    (r"aspart insulin", "insulin"), (r"(ecotrin)", "aspirin"), (r"nimbex", "cisatracurium"),
    (r"seroquel", "quetiapine"), (r"(nitrostat|nitro-bid)", "nitroglycerin"),
)  # fmt: skip

# Number of the ingredient list -> drug, of the demo's named orders of that number (alone, or but for its brands).
HICL: dict[int, str] = {
    4: "digoxin", 83: "amiodarone", 89: "hydralazine", 132: "lisinopril", 136: "nitroprusside", 159: "nitroglycerin",
    182: "diltiazem", 183: "nicardipine", 517: "albuterol", 523: "bicarbonate", 525: "ringers_lactate",
    540: "sodium_phosphate", 549: "potassium_chloride", 551: "potassium_phosphate", 585: "calcium_gluconate",
    610: "magnesium_sulfate", 768: "insulin", 915: "dextrose_5", 926: "dextrose_50", 1040: "phytonadione",
    1062: "folic_acid", 1075: "thiamine", 1099: "multivitamins", 1301: "bisacodyl", 1326: "docusate",
    1396: "lactulose", 1619: "midazolam", 1661: "haloperidol", 1694: "morphine", 1695: "hydromorphone",
    1742: "oxycodone", 1820: "aspirin", 1866: "acetaminophen", 2050: "epinephrine", 2051: "norepinephrine",
    2059: "dopamine", 2073: "albuterol", 2087: "phenylephrine", 2095: "labetalol", 2102: "metoprolol",
    2148: "metoclopramide", 2808: "heparin", 2810: "heparin", 2812: "warfarin", 2839: "vasopressin",
    2849: "levothyroxine", 2866: "hydrocortisone", 2876: "methylprednisolone", 2879: "prednisone",
    2888: "dexamethasone", 2889: "dexamethasone", 2901: "spironolactone", 3660: "furosemide", 3664: "bumetanide",
    3976: "cefazolin", 3996: "ceftriaxone", 4042: "vancomycin", 4157: "metronidazole", 4521: "famotidine",
    4673: "omeprazole", 4842: "propofol", 4846: "lorazepam", 5888: "nitroglycerin", 6071: "ciprofloxacin",
    6306: "magnesium_sulfate", 6323: "metoprolol", 6334: "azithromycin", 6438: "fentanyl", 6494: "amlodipine",
    7878: "enoxaparin", 8254: "saline_0_45", 8255: "saline", 8259: "metronidazole", 8466: "vancomycin",
    8738: "piperacillin_tazobactam", 8831: "gabapentin", 10093: "vancomycin", 10132: "cefepime", 11254: "meropenem",
    11528: "insulin", 12383: "levofloxacin", 12384: "levofloxacin", 12404: "atorvastatin", 13795: "carvedilol",
    14015: "quetiapine", 14772: "potassium_chloride", 15908: "midodrine", 17539: "clopidogrel", 19058: "ondansetron",
    19078: "glucagon", 20769: "insulin", 20952: "levetiracetam", 20971: "dexmedetomidine", 22008: "pantoprazole",
    22025: "insulin_glargine", 22819: "polyethylene_glycol", 25277: "morphine", 25386: "fentanyl",
    32900: "piperacillin_tazobactam", 33314: "heparin", 33442: "heparin", 33598: "ondansetron",
    34805: "hydromorphone", 35779: "nicardipine", 36808: "methylprednisolone", 36875: "hydrocortisone",
    37442: "vancomycin",
}  # fmt: skip

_SALINE = r"normal saline (administration|solution)|administration of saline solution"
# Pattern in the path, lower case -> our item, kind; the first that fits. Insulin and heparin under the skin are other
# things than the infusions of those names, and keep names of their own; heparin whose way is not told is not read.
TREATMENTS: tuple[tuple[str, str, str], ...] = (
    (r"non-invasive ventilation", "noninvasive_ventilation", "procedure"),
    (r"mechanical ventilation|ventilator weaning", "invasive_ventilation", "procedure"),
    (r"endotracheal tube removal", "extubation", "procedure"),
    (r"endotracheal tube\|insertion|reintubation", "intubation", "procedure"),
    (r"venous catheter for hemodialysis", "dialysis_catheter", "procedure"),
    (r"\|dialysis\|c [av] ", "renal_replacement", "procedure"),
    (r"\|dialysis\|hemodialysis", "hemodialysis", "procedure"),
    (r"esophagogastroduodenoscopy", "endoscopy", "procedure"), (r"chest x-ray", "chest_x_ray", "procedure"),
    (r"\bct scan", "ct_scan", "procedure"), (r"\bmri\b", "mri", "procedure"),
    (r"echocardiography|diagnostic ultrasound of heart", "echocardiogram", "procedure"),
    (r"\beeg\b", "electroencephalogram", "procedure"), (r"\|bronchoscopy", "bronchoscopy", "procedure"),
    (r"paracentesis", "paracentesis", "procedure"), (r"thoracentesis", "thoracentesis", "procedure"),
    (r"insertion of thoracostomy tube|\|chest tube$", "chest_tube", "procedure"),
    (r"catheter placement\|central venous", "central_line", "procedure"),
    (r"catheter placement\|arterial", "arterial_line", "procedure"), (r"\|cardioversion", "cardioversion", "procedure"),
    (r"cultures\|blood", "blood_culture_taken", "procedure"), (r"cultures\|urine", "urine_culture_taken", "procedure"),
    (r"cultures\|sputum", "sputum_culture_taken", "procedure"),
    (r"cultures\|stool", "stool_culture_taken", "procedure"),
    (_SALINE, "saline", "administration"), (r"lactated ringer", "ringers_lactate", "administration"),
    (r"d5 half-normal saline", "dextrose_5_saline_0_45", "administration"),
    (r"half-normal saline", "saline_0_45", "administration"), (r"\|d5w$", "dextrose_5", "administration"),
    (r"\|d50$", "dextrose_50", "administration"), (r"\|colloid administration\|albumin", "albumin", "administration"),
    (r"packed red blood cells", "red_cells", "administration"), (r"fresh frozen plasma", "plasma", "administration"),
    (r"platelet concentrate", "platelets", "administration"), (r"cryoprecipitate", "cryoprecipitate", "administration"),
    (r"electrolytes?( administration)?\|potassium", "potassium_chloride", "administration"),
    (r"electrolytes?( administration)?\|magnesium", "magnesium_sulfate", "administration"),
    (r"electrolytes?( administration)?\|calcium|\|intravenous calcium", "calcium_gluconate", "administration"),
    (r"electrolytes?( administration)?\|phosphate", "phosphate", "administration"),
    (r"insulin\|continuous infusion", "insulin", "infusion"),
    (r"\|insulin\b", "insulin subcutaneous", "administration"),
    (r"conventional heparin therapy\|intravenous", "heparin", "infusion"),
    (r"conventional heparin therapy\|subcutaneous", "heparin subcutaneous", "administration"),
    (r"\|vitamin k$", "phytonadione", "administration"),
)  # fmt: skip

# Drugs that run as infusions when a treatment names them.
CONTINUOUS = frozenset({
    "norepinephrine", "epinephrine", "phenylephrine", "vasopressin", "dopamine", "dobutamine", "milrinone",
    "nicardipine", "nitroprusside", "esmolol", "propofol", "dexmedetomidine", "cisatracurium",
})  # fmt: skip

# Label of an intake in mL -> blood product
BLOOD_PRODUCTS: tuple[tuple[str, str], ...] = (
    (r"prbcs?$|.*packed rbcs?$|.*transfuse (red blood cells|rbcs?)$", "red_cells"),
    (r"ffp$|.*transfuse plasma$", "plasma"), (r"platelets$|.*transfuse platelet", "platelets"),
    (r"cryo", "cryoprecipitate"),
)  # fmt: skip

_UNIT_IN_NAME = re.compile(r"^(.*?)\s*\(([^()]*)\)\s*$")
_CONTAINER = re.compile(r"^[\d.,]+ ?(?:ml|gm|g|mg|l|each)\b[^:]*?(?::| - )\s*")
_WAYS = re.compile(r"^(iv|po|oral|intravenous)\b\s*")


@cache
def _item(name: str) -> str:
    """Our item of a drug's name as these tables and `intervention_items` read it, else the name in lower case."""
    plain = _CONTAINER.sub("", " ".join(name.lower().split())).lstrip("<* ")
    for pattern, item in _NAMES:
        if re.match(pattern, plain):
            return item
    return intervention_items.item_of_drug(plain)


@cache
def infusion_of(name: str) -> tuple[str, str | None]:
    """(our item, unit of the rate) of an infusion's name; the unit is "" where none is told, and None where one is that
    RATE_UNITS does not have.

    'Propofol (mcg/kg/min)' -> ('propofol', 'ug/kg/min'); 'Heparin ()' -> ('heparin', '').
    """
    found = _UNIT_IN_NAME.match(name)
    if found is None:
        return _item(name), ""
    told = found[2].strip().lower()
    if told not in RATE_UNITS and "/" not in told:  # a brand or a strength in brackets, no unit
        return _item(name), ""
    return _item(found[1]), RATE_UNITS.get(told)


@cache
def drug_of_order(name: str, hicl: int) -> str:
    """Our item of a pharmacy's order, by its name, or by HICL where it has none; "" where neither tells."""
    return _item(name) if name.strip() else HICL.get(hicl, "")


@cache
def treatment_of(path: str) -> tuple[str, str, str] | None:
    """(our item, kind, route) of a treatment; None for what is no order of ours.

    'gastrointestinal|medications|stress ulcer prophylaxis|pantoprazole|IV' -> ('pantoprazole', 'administration', 'IV').
    """
    plain = " ".join(path.lower().split())
    for pattern, item, kind in TREATMENTS:
        if re.search(pattern, plain):
            return item, kind, ""
    parts = plain.split("|")
    ways = [found[1] for part in parts[-2:] if (found := _WAYS.match(part))]
    route = "" if not ways else "IV" if ways[-1] in ("iv", "intravenous") else "PO"
    for part in reversed(parts[-2:]):
        name = _item(_WAYS.sub("", part)) if part else ""
        listed = intervention_items.by_name().get(name)
        if listed is not None and listed.amount:
            return name, "infusion" if name in CONTINUOUS else "administration", route
    return None
