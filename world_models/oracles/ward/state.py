"""The state of the mechanistic ward: about 80 numbers a patient, in one NamedTuple an organ, each [B].

Pools that obey a balance (water, sodium, potassium, chloride, haemoglobin) are float64 and carry ledgers of all that
came in and went out since admission, so that

    pool now + out = pool at admission + in

holds to rounding after any course. Everything else is float32. One contiguous [B] a number, not one [B, S]: a column of
a wide tensor is strided, and elementwise work on it is several times slower.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# Added where a drug washes out: without it amounts fall into denormal numbers, on which processors are a hundred times
# slower, within hours of the last dose.
TRACE = 1e-12

__all__ = [
    "TRACE",
    "Blood",
    "Circulation",
    "Clots",
    "StayStatus",
    "Fluids",
    "Infection",
    "Kidney",
    "Lungs",
    "Metabolism",
    "Noise",
    "Organs",
]
__all__ += ["Person", "Records", "Salts", "Signals", "WardState"]


class Person(NamedTuple):
    """What does not change during the stay and is not in the chart. float32 [B] each."""

    disease: Tensor  # index in DISEASES
    organism: Tensor  # index in ORGANISMS
    severity: Tensor  # 0..1, of the disease at admission
    weight_kg: Tensor
    predicted_kg: Tensor  # weight that goes with height and sex: the size of the lungs
    age_years: Tensor
    diabetes: Tensor  # 0 or 1
    plasma_l: Tensor  # own normal volumes
    extracellular_l: Tensor
    cell_l: Tensor
    haemoglobin_g_dl: Tensor  # own normal
    map_mmhg: Tensor  # own normal mean arterial pressure
    heart_rate_bpm: Tensor  # own normal
    gfr_ml_min: Tensor  # own normal (in chronic kidney disease: the reduced one)
    contractility: Tensor  # 1 is a healthy heart
    albumin_g_dl: Tensor  # own normal
    white_cells: Tensor  # own normal, 10*3/uL
    platelets: Tensor  # own normal, 10*3/uL
    glucose_turnover_mmol_h: Tensor  # hepatic production after an overnight fast
    insulin_sensitivity: Tensor  # 1 is healthy
    beta_cell: Tensor  # share of normal insulin secretion
    creatinine_mg_h: Tensor  # production
    urea_mg_h: Tensor  # production, as nitrogen
    growth_per_h: Tensor  # of the organism, without host or drug
    host: Tensor  # killing by phagocytes, 1 is typical
    systemic: Tensor  # share of inflammation and damage that leaves its site for the body
    lung_site: Tensor  # 1 if the infection is in the lung
    urinary_site: Tensor  # 1 if it came from the urinary tract
    bacteraemia: Tensor  # chance that a blood culture grows, at a high load
    ec50_piperacillin: Tensor  # concentration of half the killing, mg/L
    ec50_vancomycin: Tensor
    ec50_ceftriaxone: Tensor
    ec50_meropenem: Tensor
    pressor_response: Tensor  # sensitivity to catecholamines, 1 is typical
    leak_tendency: Tensor  # capillary leak at the same inflammation
    diuretic_response: Tensor
    drug_clearance: Tensor  # factor on every drug's clearance
    breathing_reserve: Tensor  # ventilatory capacity, 1 is typical
    tubular_recovery_h: Tensor  # time constant of tubular repair
    hazard_factor: Tensor  # frailty


class Fluids(NamedTuple):
    """Litres, float64."""

    plasma_l: Tensor
    interstitial_l: Tensor
    cell_l: Tensor
    in_l: Tensor  # ledger
    out_l: Tensor
    urine_l: Tensor  # of `out_l`


class Salts(NamedTuple):
    """Extracellular millimoles, float64; `cell_potassium` is within cells."""

    sodium: Tensor
    sodium_in: Tensor
    sodium_out: Tensor
    potassium: Tensor
    cell_potassium: Tensor
    potassium_in: Tensor
    potassium_out: Tensor
    chloride: Tensor
    chloride_shift: Tensor  # moved out of cells against bicarbonate; float32
    cell_osmoles: Tensor  # mOsm that stay in cells; float32, constant
    cell_potassium_0: Tensor  # own normal; float32, constant
    recent_uptake: Tensor  # potassium newly in cells, not yet spread among all of them, mmol; float32
    magnesium_mg_dl: Tensor  # float32
    phosphate_mg_dl: Tensor  # float32
    free_calcium_mg_dl: Tensor  # ionised and complexed; float32


class Circulation(NamedTuple):
    """Heart rate, reflex and the drugs at heart and vessels. float32 [B] each, as all below."""

    heart_rate: Tensor  # bpm
    tone: Tensor  # baroreflex, -1..1
    norepinephrine: Tensor  # effect site, as the infusion rate it equals, ug/kg/min
    vasopressin: Tensor  # effect site, U/min
    steroid: Tensor  # hydrocortisone on board, mg
    metoprolol: Tensor  # on board, mg


class Lungs(NamedTuple):
    """Carbon dioxide, and what makes breathing hard."""

    pco2: Tensor  # mmHg
    water: Tensor  # excess lung water, 1 is flooding
    consolidation: Tensor  # 0..1
    fatigue: Tensor  # of the breathing muscles, 0..1
    injury: Tensor  # by the ventilator and by oxygen, 0..1
    disuse: Tensor  # weakness of the breathing muscles by controlled ventilation, 0..1


class Metabolism(NamedTuple):
    """Glucose, insulin, ketones, lactate, heat, and acetaminophen."""

    glucose_mmol: Tensor  # in the extracellular space
    insulin: Tensor  # plasma, mU/L
    insulin_action: Tensor  # at the tissues, mU/L
    ketones: Tensor  # 3-hydroxybutyrate, mmol/L
    lactate: Tensor  # mmol/L
    temperature: Tensor  # Celsius
    acetaminophen: Tensor  # on board, mg
    resistance: Tensor  # to insulin, by ketosis and hyperglycaemia; 0 in health


class Infection(NamedTuple):
    """Reynolds 2006: pathogen, activated phagocytes, tissue damage, anti-inflammatory mediator; and the drugs."""

    pathogen: Tensor  # 10^6 / mL
    phagocytes: Tensor
    damage: Tensor
    anti: Tensor
    piperacillin: Tensor  # plasma, mg/L
    vancomycin: Tensor
    ceftriaxone: Tensor
    meropenem: Tensor


class Kidney(NamedTuple):
    """Injury, what is retained, and furosemide."""

    tubular_injury: Tensor  # share of nephrons that do not work, 0..1
    creatinine: Tensor  # mg/dL
    urea: Tensor  # urea nitrogen, mg/dL
    furosemide: Tensor  # plasma, mg in the body
    furosemide_site: Tensor  # tubular site, mg


class Blood(NamedTuple):
    """Red cells with their ledger, clotting, white cells, proteins, and an open lesion if there is one."""

    haemoglobin_g: Tensor  # circulating mass, float64
    haemoglobin_in: Tensor  # ledger, float64
    haemoglobin_out: Tensor
    white_cells: Tensor
    platelets: Tensor
    factors: Tensor  # clotting factors, share of normal
    heparin: Tensor  # U/mL
    albumin: Tensor  # g/dL
    crp: Tensor  # mg/L
    crp_drive: Tensor  # hepatic synthesis under way
    lesion: Tensor  # open bleeding vessel, 0..1
    lesion_treated: Tensor  # haemostasis by endoscopy, 0..1
    acid_suppression: Tensor  # by the proton-pump inhibitor, mg on board


class Clots(NamedTuple):
    """Venous thromboembolism. No test of the menu shows it; what it does to oxygen, heart and breathing is charted."""

    vein: Tensor  # thrombus of the deep veins, 0..1; 0: none
    lung: Tensor  # share of the pulmonary arteries' bed that emboli obstruct, 0..1


class Organs(NamedTuple):
    """Markers of suffering organs, the mind, and the oxygen debt."""

    troponin: Tensor  # ng/L
    bnp: Tensor  # pg/mL
    alt: Tensor  # U/L
    bilirubin: Tensor  # mg/dL
    brain: Tensor  # encephalopathy, 0..1
    debt: Tensor  # accumulated oxygen debt, arbitrary units


class StayStatus(NamedTuple):
    """How the stay goes."""

    hazard_per_h: Tensor  # of death, now
    alive: Tensor  # 1 or 0
    discharged: Tensor
    death_chance: Tensor  # that the step just past had of ending in death
    home_chance: Tensor  # and of discharge, of one who lives


class Noise(NamedTuple):
    """Ornstein-Uhlenbeck processes, unit variance, moved every hour."""

    vessels: Tensor
    heart: Tensor
    breath: Tensor
    heat: Tensor
    liver: Tensor


class Signals(NamedTuple):
    """What the organs tell each other: functions of the rest, kept from the last five minutes."""

    map: Tensor  # mmHg
    flow: Tensor  # cardiac output, share of own normal
    filling: Tensor  # stressed blood volume, share of own normal
    stroke: Tensor  # stroke volume, share of own normal
    wedge: Tensor  # left atrial pressure, mmHg
    saturation: Tensor  # arterial, 0..1
    alveolar_po2: Tensor  # mmHg, after ventilation-perfusion mismatch
    extraction: Tensor  # oxygen extraction ratio
    breaths: Tensor  # a minute
    demand: Tensor  # ventilation wanted, as a share of what fresh muscles can do
    bicarbonate: Tensor  # mmol/L
    ph: Tensor
    gfr: Tensor  # mL/min
    volume_sense: Tensor  # effective arterial filling, 1 is normal
    urine_l_h: Tensor
    bleed_l_h: Tensor
    haemoglobin: Tensor  # g/dL
    peep: Tensor  # of the ventilator, cmH2O; this and the three below are 0 without one
    plateau: Tensor  # airway pressure at the end of inspiration, cmH2O
    driving: Tensor  # plateau less PEEP, cmH2O
    tidal_ml_kg: Tensor  # tidal volume a kg of predicted weight


class Records(NamedTuple):
    """What the chart knows: [B, I] each, in the order of INQUIRIES; given and since are [B, J] (INTERVENTIONS)."""

    value: Tensor  # last result
    drawn_h: Tensor  # when its specimen was collected, hours since admission
    seen: Tensor  # bool
    pending: Tensor  # bool
    pending_value: Tensor
    pending_drawn_h: Tensor
    pending_due_h: Tensor
    biological: Tensor  # slow within-person variation, unit variance
    given: Tensor  # amounts of the last step, in the orders' units
    since_h: Tensor  # hours since last given


class WardState(NamedTuple):
    """B patients. Hidden state included: this is the oracle's."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    factors: Tensor  # [B, F] in the order of `cohorts.FACTORS`
    complaint: Tensor  # [B, C] one-hot
    person: Person
    fluids: Fluids
    salts: Salts
    circulation: Circulation
    lungs: Lungs
    metabolism: Metabolism
    infection: Infection
    kidney: Kidney
    blood: Blood
    clots: Clots
    organs: Organs
    course: StayStatus
    noise: Noise
    signals: Signals
    records: Records
