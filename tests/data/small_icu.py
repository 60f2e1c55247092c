"""A few invented stays in intensive care as Challenge 2019 and eICU lay them out: what tests change one thing of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from world_models.data.ehr.sources import challenge_2019, eicu

HOURS = 30  # of each stay

USUAL = {
    "HR": 80.0, "O2Sat": 97.0, "Temp": 37.0, "SBP": 120.0, "MAP": 80.0, "DBP": 60.0, "Resp": 16.0, "FiO2": 0.4,
    "Calcium": 8.4, "Lactate": 1.9, "TroponinI": 0.02,
}  # fmt: skip


def challenge(patients: int = 2) -> pd.DataFrame:
    """Patients 100001 ... (set B), a row an hour; lactate and the like every sixth; the last is septic from hour 20."""
    rows = []
    for n in range(patients):
        for hour in range(1, HOURS + 1):
            row = dict.fromkeys(challenge_2019.VARIABLES, np.nan)
            row.update({k: v for k, v in USUAL.items() if hour % 6 == 1 or k in ("HR", "O2Sat", "SBP", "DBP", "Temp")})
            static = {"Age": 64.0, "Gender": 0.0, "Unit1": 1.0, "Unit2": 0.0, "HospAdmTime": -9.5, "ICULOS": hour}
            septic = float(n == patients - 1 and hour >= 20)
            rows.append({"patient": 100001 + n, **row, **static, "SepsisLabel": septic})
    return pd.DataFrame(rows)


def write_challenge(frame: pd.DataFrame, folder: Path) -> Path:
    """One table; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "set.parquet", index=False)
    return folder / "set.parquet"


def _patient(stay: int, whole: int, person: str, admit: int, leave: int, **other: object) -> dict[str, object]:
    return {
        "patientunitstayid": stay, "patienthealthsystemstayid": whole, "uniquepid": person, "gender": "Female",
        "age": "71", "ethnicity": "Hispanic", "hospitalid": 59, "hospitaladmitoffset": admit,
        "hospitaldischargeyear": 2015, "hospitaldischargeoffset": 10000, "hospitaldischargestatus": "Alive",
        "unittype": "MICU", "unitadmitsource": "Floor", "unitdischargeoffset": leave, "unitdischargelocation": "Home",
        "unitdischargestatus": "Alive", "admissionweight": 80.0, "admissionheight": 165.0, **other,
    }  # fmt: skip


def eicu_tables() -> dict[str, pd.DataFrame]:
    """Three unit stays: 11 and 12 of one patient and hospital stay, one after the other; 21 of a man over 89 in another
    hospital, who dies in the unit."""
    patient = [
        _patient(11, 1, "002-1039", -60, 60 * HOURS),
        _patient(12, 1, "002-1039", -60 - 60 * HOURS, 60 * HOURS),
        _patient(21, 2, "003-7", -5, 60 * HOURS, gender="Male", age="> 89", hospitalid=67,
                 hospitaldischargestatus="Expired", unitdischargestatus="Expired",
                 hospitaldischargeoffset=60 * HOURS, admissionweight=np.nan),
    ]  # fmt: skip
    hourly = []
    for stay in (11, 12, 21):
        for hour in range(HOURS):
            row = dict.fromkeys(eicu.VARIABLES, np.nan)
            row.update(hr=85.0, sbp=110.0, dbp=60.0, map=77.0, temp=36.8, o2sat=96.0, resp=18.0)
            row.update({"fio2": 40.0, "k": 4.2, "ca": 8.4, "tnt": 0.05} if hour % 6 == 0 else {})
            hourly.append({"patientunitstayid": stay, "time": pd.Timedelta(hours=hour), **row})
    made = {
        "patient": pd.DataFrame(patient),
        "hourly": pd.DataFrame(hourly).astype({"time": "timedelta64[s]"}),
        "infusiondrug": pd.DataFrame(
            [
                (11, -30, "Norepinephrine (mcg/min)", "8", None),  # runs on into the stay
                (11, 60, "Norepinephrine (mcg/min)", "16", "100"),
                (11, 120, "Norepinephrine (mcg/min)", "0", None),
                (11, 120, "Furosemide (mg/hr)", "10", None),
                (11, 240, "Furosemide (mg/hr)", "0", None),
                (11, 300, "Propofol ()", "20", None),
                (11, 300, "Propofol (drops/min)", "20", None),
                (12, 60, "NS (ml/hr)", "100", None),
                (12, 180, "NS (ml/hr)", "ERROR", None),
                (21, 60, "Norepinephrine (mcg/min)", "8", None),  # no weight on record
                (21, 90, "Heparin (units/kg/hr)", "12", "50"),
                (21, 120, "Norepinephrine (mcg/min)", "OFF", None),
            ],
            columns=["patientunitstayid", "infusionoffset", "drugname", "drugrate", "patientweight"],
        ),
        "medication": pd.DataFrame(
            [
                (11, -600, 600, "No", "2 ml vial : ondansetron hcl 4 mg/2ml ij soln", 33598, "4 MG", "IV"),
                (11, -600, -500, "No", "Lasix", 3660, "40 mg", "IV"),  # over before the admission
                (11, 60, 0, "No", None, 4042, "1.25 g", "IV"),
                (11, 60, 0, "Yes", "vancomycin", 4042, "1 g", "IV"),
                (12, 60, 30, "No", "1000 ml flex cont : sodium chloride 0.9 % iv soln", 8255, "40 3", "IV"),
                (21, 60, 0, "No", None, 999999, "1 TAB", "PO"),
            ],
            columns=["patientunitstayid", "drugstartoffset", "drugstopoffset", "drugordercancelled", "drugname",
                     "drughiclseqno", "dosage", "routeadmin"],
        ),
        "treatment": pd.DataFrame(
            [
                (11, 90, "cardiovascular|shock|vasopressors|norepinephrine > 0.1 micrograms/kg/min"),
                (12, 90, "cardiovascular|shock|vasopressors|norepinephrine > 0.1 micrograms/kg/min"),
                (12, 90, "pulmonary|ventilation and oxygenation|mechanical ventilation"),
                (12, 90, "pulmonary|consultations|Pulmonary/CCM consultation"),
                (12, 95, "cardiovascular|vascular disorders|VTE prophylaxis|conventional heparin therapy|subcutaneous"),
            ],
            columns=["patientunitstayid", "treatmentoffset", "treatmentstring"],
        ),
        "intakeoutput": pd.DataFrame(
            [
                (21, 100, "flowsheet|I&O|Intake (ml)|Blood Products (ml)|pRBCs", "pRBCs", 310.0),
                (21, 100, "flowsheet|I&O|Intake (ml)|P.O.", "P.O.", 200.0),
            ],
            columns=["patientunitstayid", "intakeoutputoffset", "cellpath", "celllabel", "cellvaluenumeric"],
        ),
        "diagnosis": pd.DataFrame(
            [(11, "True", "038.9, A41.9", "Primary"), (11, "False", "428.0, I50.9", "Major"),
             (11, "True", "V58.61, Z79.01", "Other")],
            columns=["patientunitstayid", "activeupondischarge", "icd9code", "diagnosispriority"],
        ),
    }  # fmt: skip
    return made


def write_eicu(made: dict[str, pd.DataFrame], folder: Path) -> Path:
    """Tables as parquet files in a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    return folder
