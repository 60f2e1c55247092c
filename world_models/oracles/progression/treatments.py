"""What the treatments do: ratios on the rates of onset, resolution, death and bleeding, and what happens at once.

Drugs act on the rates while taken. A procedure acts twice: at the visit, with a chance of success and of harm
(`AT_ONCE`), and ever after through its feature ("ablation"). A pacemaker does not take the label I44 away: the block is
still there, it stops killing (`mortality.EXCESS`) and its rhythm is for the ECG to show; nor does a new valve take
I35 away.

Each row names its source (`SOURCES` in full; "(k)": from memory). Where a trial's end point is wider than a condition
here, the row says so. An effect holds in whom it was shown where that matters: beta-blockers and ACE inhibitors save
lives in heart failure, anticoagulants prevent the strokes of atrial fibrillation, class I drugs kill in scarred hearts,
a defibrillator and resynchronisation help weak ventricles (the second those with a broad QRS, and it harms the others).
A diuretic prevents the heart failure of hypertension, decongests and keeps from relapses; no trial of any size shows
that it lengthens life, so it does not here. What it does for symptoms is the task's (`rewards.CONGESTED`). Features
that are no condition or treatment are explained in `state.indications`.
"""

from __future__ import annotations

from typing import NamedTuple

from world_models.oracles.progression.conditions import Ratio

__all__ = ["AT_ONCE", "SOURCES", "TREATMENT_RATIOS", "AtOnce"]

SOURCES: dict[str, str] = {
    "k": "clinical knowledge or calibration (k)",
    "hart": "Hart 2007, warfarin in atrial fibrillation: stroke -64 % (death -26 % (k)), PMID 17577005",
    "compass": "Eikelboom 2017 (COMPASS), low-dose rivaroxaban: stroke 0.58, major bleeding 1.7, PMID 28844192 (k)",
    "aristotle": "Granger 2011 (ARISTOTLE), major bleeding 2.1 % (apixaban), 3.1 (warfarin) a year, PMID 21870978 (k)",
    "einstein-ext": "EINSTEIN 2010 (extension), recurrent thrombosis 0.18 on rivaroxaban, PMID 21128814 (k)",
    "cochrane-aad": "Lafuente-Lafuente 2015, recurrence odds 0.19 to 0.70 by drug, PMID 25820938 (k)",
    "affirm": "Wyse 2002 (AFFIRM), rhythm against rate control: death 1.15, PMID 12466506 (k)",
    "cast": "Echt 1991 (CAST), encainide or flecainide after infarction: death 2.5, PMID 1900101 (k)",
    "cabana": "Packer 2019 (CABANA), recurrence after ablation against drugs 0.52 (figure (k)), PMID 30874766",
    "castle": "Marrouche 2018 (CASTLE-AF), ablation in heart failure: death 0.53, PMID 29385358 (k)",
    "cappato": "Cappato 2010, ablation: tamponade 1.3 %, stroke 0.2 %, all major harms 4.5 %, PMID 19995881 (k)",
    "merit": "MERIT-HF 1999, metoprolol: death 0.66, PMID 10376614 (k)",
    "cibis": "CIBIS-II 1999, bisoprolol: death 0.66, PMID 10023943 (k)",
    "capricorn": "CAPRICORN 2001, carvedilol after infarction: death 0.77, infarction 0.59, "
    "doi 10.1016/S0140-6736(00)04560-8",
    "nasr": "Nasr 2007, beta-blockers in heart failure: new atrial fibrillation 0.73, PMID 17289748 (k)",
    "solvd-t": "SOLVD 1991, enalapril in heart failure: death 0.84, PMID 2057034 (k)",
    "solvd-p": "SOLVD 1992, enalapril in ventricular dysfunction: heart failure 0.63, PMID 1463530 (k)",
    "hope": "HOPE 2000, ramipril: infarction 0.80, stroke 0.68, heart failure 0.77, death 0.84, PMID 10639539 (k)",
    "healey": "Healey 2005, ACE inhibitors and sartans: atrial fibrillation 0.72, PMID 15936615 (k)",
    "psaty": "Psaty 2003, low-dose diuretics: heart failure 0.51, stroke 0.71, coronary 0.79, "
    "doi 10.1001/jama.289.19.2534",
    "sprint": "SPRINT 2015, intensive pressure control: heart failure 0.62, hypotension 1.7, PMID 26551272 (k)",
    "faris": "Faris 2012, diuretics in heart failure: less worsening, more exercise; trials too small to tell of "
    "death, PMID 22336795 (k)",
    "champion": "Abraham 2011 (CHAMPION), diuretics led by the pulmonary pressure: hospital for heart failure 0.72, "
    "doi 10.1016/S0140-6736(11)60101-3",
    "ctt": "Cholesterol Treatment Trialists 2005, a statin that lowers LDL by 1 mmol/L: coronary events 0.77, "
    "stroke 0.83, death 0.88, doi 10.1016/S0140-6736(05)67394-1",
    "hps-pad": "Heart Protection Study 2007, simvastatin: first peripheral vascular event 0.84, "
    "doi 10.1016/j.jvs.2006.12.054 (k)",
    "corona": "Kjekshus 2007 (CORONA), rosuvastatin in heart failure: death 0.95 (0.86 to 1.05), "
    "doi 10.1056/NEJMoa0706201",
    "vaduganathan": "Vaduganathan 2022, SGLT2 inhibitors in heart failure, five trials: hospital for it 0.72, "
    "death 0.92, doi 10.1016/S0140-6736(22)01429-5",
    "zannad": "Zannad 2020, SGLT2 inhibitors with a reduced ejection fraction: death 0.87, "
    "doi 10.1016/S0140-6736(20)31824-9",
    "zelniker": "Zelniker 2019, SGLT2 inhibitors in diabetes: hospital for heart failure 0.69, "
    "doi 10.1016/S0140-6736(18)32590-X",
    "scd-heft": "Bardy 2005 (SCD-HeFT), defibrillator with an ejection fraction of 35 % or less: death 0.77; MADIT-II "
    "after infarction 0.69, doi 10.1056/NEJMoa043399, 10.1056/NEJMoa013474. After ventricular tachycardia 0.72: "
    "Connolly 2000, doi 10.1053/euhj.2000.2476 (k). None within 40 days of an infarction: DINAMIT 2004, 1.08, "
    "doi 10.1056/NEJMoa041489",
    "madit-ii": "Moss 2002 (MADIT-II), new or worse heart failure 19.9 % with a defibrillator, 14.9 % without, "
    "doi 10.1056/NEJMoa013474",
    "care-hf": "Cleland 2005 (CARE-HF), resynchronisation with a broad QRS: death 0.64, hospital for heart failure "
    "0.48, doi 10.1056/NEJMoa050496",
    "echocrt": "Ruschitzka 2013 (EchoCRT), resynchronisation with a QRS under 130 ms: death 1.81, "
    "doi 10.1056/NEJMoa1306687",
    "kirkfeldt": "Kirkfeldt 2014, devices: all complications 9.5 %, major 5.6 %, doi 10.1093/eurheartj/eht511 (k)",
    "partner-b": "Leon 2010 (PARTNER B), new aortic valve in stenosis with symptoms, no surgery possible: death 0.55, "
    "doi 10.1056/NEJMoa1008232",
    "partner-3": "Mack 2019 (PARTNER 3), within 30 days by catheter and by surgery: death 0.4 and 1.1 %, stroke 0.6 "
    "and 2.4 %, pacemaker 6.5 and 4.0 %, new left bundle-branch block 22 and 8 %, atrial fibrillation 5 and 40 %, "
    "doi 10.1056/NEJMoa1814052",
    "courage": "Boden 2007 (COURAGE), stable angina: infarction and death unchanged, less angina, PMID 17387127 (k)",
    "ischemia": "Maron 2020 (ISCHEMIA), procedural infarctions early, fewer spontaneous (0.67), PMID 32227755 (k)",
}  # fmt: skip


class AtOnce(NamedTuple):
    """What a procedure may do at its visit: with `chance`, `condition` ends or (harm) starts."""

    procedure: str
    condition: str  # or "bleed", "death"
    starts: bool
    chance: float
    per_year: float  # the chance is less by this for each year the condition has lasted (down to a fifth of it)
    unless: str  # a drug that spares most of the harm, or "": then a fifth of the chance is left
    needs: str  # the harm comes only to whom this condition is present, or ""
    source: str


# A stroke within a month of cardioversion: 1 to 2 % uncovered, 0.3 % under an anticoagulant (k).
AT_ONCE: tuple[AtOnce, ...] = (
    AtOnce("cardioversion", "I48", False, 0.88, 0.06, "", "", "k"),
    AtOnce("cardioversion", "I47", False, 0.90, 0.00, "", "", "k"),
    AtOnce("cardioversion", "I63", True, 0.010, 0.00, "anticoagulant", "I48", "k"),
    AtOnce("ablation", "I48", False, 0.75, 0.06, "", "", "cabana"),
    AtOnce("ablation", "I47", False, 0.85, 0.02, "", "", "k"),
    AtOnce("ablation", "I31", True, 0.013, 0.00, "", "", "cappato"),
    AtOnce("ablation", "I30", True, 0.010, 0.00, "", "", "k"),
    AtOnce("ablation", "I63", True, 0.003, 0.00, "", "", "cappato"),
    AtOnce("ablation", "bleed", True, 0.010, 0.00, "", "", "cappato"),
    AtOnce("pacemaker", "I31", True, 0.004, 0.00, "", "", "k"),
    AtOnce("pacemaker", "bleed", True, 0.006, 0.00, "", "", "k"),
    AtOnce("revascularisation", "I20", False, 0.70, 0.00, "", "", "courage"),
    AtOnce("revascularisation", "I21", True, 0.020, 0.00, "", "", "ischemia"),
    AtOnce("revascularisation", "bleed", True, 0.015, 0.00, "", "", "k"),
    AtOnce("icd", "I31", True, 0.006, 0.00, "", "", "kirkfeldt"),
    AtOnce("icd", "bleed", True, 0.010, 0.00, "", "", "kirkfeldt"),
    AtOnce("crt", "I31", True, 0.008, 0.00, "", "", "kirkfeldt"),
    AtOnce("crt", "bleed", True, 0.012, 0.00, "", "", "kirkfeldt"),
    AtOnce("valve_replacement", "death", True, 0.008, 0.00, "", "", "partner-3"),
    AtOnce("valve_replacement", "I63", True, 0.015, 0.00, "", "", "partner-3"),
    AtOnce("valve_replacement", "I44", True, 0.150, 0.00, "", "", "partner-3"),
    AtOnce("valve_replacement", "I48", True, 0.200, 0.00, "", "", "partner-3"),
    AtOnce("valve_replacement", "bleed", True, 0.060, 0.00, "", "", "k"),
)

_ROWS: tuple[tuple[str, str, float, str], ...] = (
    # antiarrhythmic drugs
    ("I48", "antiarrhythmic", 0.50, "cochrane-aad"),
    ("resolve I48", "antiarrhythmic", 1.80, "cochrane-aad"),
    ("I47", "antiarrhythmic", 0.50, "k"),
    ("resolve I47", "antiarrhythmic", 1.60, "k"),
    ("I44", "antiarrhythmic", 1.60, "k"),
    ("I49", "antiarrhythmic", 1.30, "cochrane-aad"),  # bradycardia and proarrhythmia; odds 1.3 to 3.5 by drug
    ("I95", "antiarrhythmic", 1.20, "k"),
    ("death", "antiarrhythmic", 1.10, "affirm"),
    ("death", "I25 & antiarrhythmic", 1.50, "cast"),  # class I drugs 2.5, amiodarone near 1: a mix of both
    ("death", "I50 & antiarrhythmic", 1.15, "affirm"),
    # ablation, ever after
    ("I48", "ablation", 0.45, "cabana"),
    ("I47", "ablation", 0.20, "k"),
    ("death", "I50 & ablation", 0.65, "castle"),
    # beta-blocker
    ("death", "I50 & beta_blocker", 0.66, "merit"),
    ("death", "I21 & beta_blocker", 0.77, "capricorn"),
    ("I21", "I25 & beta_blocker", 0.75, "capricorn"),
    ("I48", "beta_blocker", 0.80, "nasr"),
    ("I47", "beta_blocker", 0.60, "k"),
    ("I20", "beta_blocker", 0.70, "k"),
    ("resolve I20", "beta_blocker", 1.50, "k"),
    ("I50", "I25 & beta_blocker", 0.85, "capricorn"),
    ("resolve I50", "beta_blocker", 1.40, "cibis"),
    ("I44", "beta_blocker", 1.45, "k"),
    ("I49", "beta_blocker", 0.95, "k"),  # fewer premature beats, more sinus bradycardia
    ("I95", "beta_blocker", 1.50, "k"),
    ("resolve I95", "beta_blocker", 0.75, "k"),
    # ACE inhibitor
    ("death", "I50 & ace_inhibitor", 0.84, "solvd-t"),
    ("death", "I25 & ace_inhibitor", 0.88, "hope"),
    ("I21", "ace_inhibitor", 0.80, "hope"),
    ("I63", "ace_inhibitor", 0.72, "hope"),
    ("I50", "ace_inhibitor", 0.72, "solvd-p"),  # 0.63 with a weak ventricle, 0.77 without
    ("I48", "ace_inhibitor", 0.80, "healey"),
    ("I11", "ace_inhibitor", 0.65, "hope"),
    ("I42", "ace_inhibitor", 0.80, "solvd-p"),
    ("resolve I50", "ace_inhibitor", 1.40, "solvd-t"),
    ("I95", "ace_inhibitor", 1.70, "sprint"),
    ("resolve I95", "ace_inhibitor", 0.75, "k"),
    # diuretic
    ("I50", "I10 before I50 & diuretic", 0.51, "psaty"),
    ("I50", "ever I50 & diuretic", 0.72, "champion"),  # a relapse
    ("resolve I50", "diuretic", 1.40, "faris"),  # decongestion
    ("I63", "I10 & diuretic", 0.71, "psaty"),
    ("I21", "I10 & diuretic", 0.79, "psaty"),
    ("I11", "I10 & diuretic", 0.75, "sprint"),
    ("I95", "diuretic", 1.60, "sprint"),
    ("I49", "diuretic", 1.15, "k"),  # by low potassium
    ("resolve I95", "diuretic", 0.75, "k"),
    # anticoagulant
    ("I63", "I48 & anticoagulant", 0.42, "hart"),  # times 0.85 below: 0.36 in atrial fibrillation
    ("I63", "anticoagulant", 0.85, "compass"),
    ("I26", "anticoagulant", 0.20, "einstein-ext"),
    ("I82", "anticoagulant", 0.20, "einstein-ext"),
    ("resolve I26", "anticoagulant", 1.30, "k"),
    ("resolve I82", "anticoagulant", 1.30, "k"),
    ("death", "I26 & anticoagulant", 0.40, "k"),
    ("death", "I48 & anticoagulant", 0.84, "hart"),  # 0.74 in the trials, part of it by strokes prevented here
    ("I31", "I30 & anticoagulant", 1.30, "k"),
    ("bleed", "anticoagulant", 2.00, "aristotle"),
    # pacemaker, ever after; what the block adds to death it takes away in `mortality`
    ("I95", "I44 & pacemaker", 0.75, "k"),
    ("I48", "pacemaker", 1.10, "k"),
    ("I50", "pacemaker", 1.15, "k"),  # pacing of the right ventricle
    # revascularisation, ever after
    ("I20", "revascularisation", 0.60, "courage"),
    ("I21", "I25 & revascularisation", 0.85, "ischemia"),
    ("death", "I25 & revascularisation", 0.97, "ischemia"),
    # statin
    ("I21", "statin", 0.81, "ctt"),  # 0.77 in the trials, part of it by the angina prevented here
    ("I25", "statin", 0.81, "ctt"),
    ("I20", "statin", 0.85, "k"),
    ("I63", "statin", 0.86, "ctt"),  # 0.83, likewise
    ("I73", "statin", 0.84, "hps-pad"),
    ("death", "I25 & statin", 0.89, "ctt"),  # 0.88 in the trials, part of it by infarctions prevented here
    ("death", "I50 & statin", 1.08, "corona"),  # with the row above: 0.96
    # SGLT2 inhibitor
    ("I50", "diabetes before I50 & sglt2_inhibitor", 0.69, "zelniker"),
    ("I50", "ever I50 & sglt2_inhibitor", 0.72, "vaduganathan"),
    ("death", "I50 & sglt2_inhibitor", 0.92, "vaduganathan"),
    ("death", "low_lvef & sglt2_inhibitor", 0.945, "zannad"),  # with the row above: 0.87
    ("I95", "sglt2_inhibitor", 1.15, "k"),
    # defibrillator, ever after
    ("death", "sudden_death_risk & icd", 0.77, "scd-heft"),
    ("I50", "icd", 1.15, "madit-ii"),
    # resynchronisation, ever after
    ("death", "low_lvef & crt", 1.81, "echocrt"),
    ("death", "dyssynchrony & crt", 0.354, "care-hf"),  # with the row above: 0.64
    ("I50", "dyssynchrony & crt", 0.48, "care-hf"),
    ("resolve I50", "dyssynchrony & crt", 1.80, "care-hf"),
    # new aortic valve, ever after
    ("death", "tight_valve & valve_replacement", 0.52, "partner-b"),
    ("I50", "I35 & valve_replacement", 0.60, "k"),  # takes away most of what I35 adds
    ("resolve I50", "tight_valve & valve_replacement", 3.00, "partner-b"),
    ("resolve I20", "tight_valve & valve_replacement", 3.00, "partner-b"),
)

TREATMENT_RATIOS: tuple[Ratio, ...] = tuple(Ratio(*row) for row in _ROWS)
