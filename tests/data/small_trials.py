"""Small folders of the two FDA trials in their published layout (SCR-003's from descriptions (k)), of drawn ECGs.

Two people, all five periods, few times; every ECG of one time once. Concentrations follow the staging of SCR-003: what
enters later is "NA" before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.clinenv.records import PR_MS, QRS_MS, QT_MS, RR_MS, TPEAK_TEND_MS, drawn_ecg
from world_models.ecg.lead_names import LEADS

PEOPLE = (("F", 25, 55.0), ("M", 31, 80.5))
_DOSES = {
    "Ranolazine": (1500.0, "mg"),
    "Dofetilide": (500.0, "ug"),
    "Verapamil HCL": (120.0, "mg"),
    "Quinidine Sulph": (400.0, "mg"),
    "Placebo": (np.nan, np.nan),
}
SCR003_ARMS = {
    "A": "Dofetilide",
    "B": "Lidocaine + Dofetilide",
    "C": "Mexiletine + Dofetilide",
    "D": "Moxifloxacin + Diltiazem",
    "E": "Placebo",
}
# arm -> column -> (first hour measured, last hour measured, value)
SCR003_MEASURED = {
    "A": {"DOF": (1.5, 14.0, 1800.0)},
    "B": {"LIDO": (1.5, 8.0, 2500.0), "DOF": (7.0, 14.0, 900.0)},
    "C": {"MEXI": (1.5, 14.0, 700.0), "DOF": (7.0, 14.0, 950.0)},
    "D": {"MOXI": (1.5, 24.0, 3000.0), "MOXI.M2": (2.5, 24.0, 120.0), "DILT": (13.0, 24.0, 90.0)},
    "E": {},
}
SCR003_HOURS = (-0.5, 1.5, 2.5, 6.5, 7.0, 8.0, 12.0, 13.0, 14.0, 24.0)
R_MS = 350  # of the median beat


def _measured() -> dict[str, object]:
    return {
        "RR": int(RR_MS),
        "PR": PR_MS,
        "QT": QT_MS,
        "QRS": QRS_MS,
        "JTPEAK": QT_MS - QRS_MS - TPEAK_TEND_MS,
        "TPEAKTEND": TPEAK_TEND_MS,
        "TPEAKTPEAKP": np.nan,
        "ERD_30": 42.0,
        "LRD_30": 27.0,
        "Twave_amplitude": 640.5,
        "Twave_asymmetry": 0.15,
        "Twave_flatness": 0.41,
    }


def _person(number: int, trial: int) -> dict[str, object]:
    sex, age, weight = PEOPLE[number]
    return {
        "RANDID": 1000 * (trial - 1) + 1 + number,
        "SEX": sex,
        "AGE": age,
        "HGHT": 170.0,
        "WGHT": weight,
        "SYSBP": 114.5,
        "DIABP": 64.25,
        "RACE": "WHITE",
        "ETHNIC": "NOT HISPANIC OR LATINO",
    }


def scr002(hours: tuple[float, ...] = (-0.5, 1.0, 6.0)) -> pd.DataFrame:
    """SCR-002.Clinical.Data.csv: 32 columns in the file's order."""
    rows = []
    for number in range(len(PEOPLE)):
        for period, (drug, (dose, unit)) in enumerate(_DOSES.items(), start=1):
            for hour in hours:
                taken = hour > 0 and drug != "Placebo"
                rows.append(
                    {
                        "EGREFID": f"00ed-{number}-{period}-{round(10 * hour + 5)}",
                        **_person(number, 2),
                        "ARMCD": "A,B,C,D,E",
                        "VISIT": f"PERIOD-{period}-DOSING",
                        "EXTRT": drug,
                        "EXDOSE": dose,
                        "EXDOSU": unit,
                        "TPT": hour,
                        "BASELINE": "Y" if hour < 0 else "N",
                        "PCTEST": drug.split()[0] if taken else np.nan,
                        "PCSTRESN": 100.0 if taken else np.nan,
                        "PCSTRESU": ("pg/mL" if drug == "Dofetilide" else "ng/mL") if taken else np.nan,
                        **_measured(),
                    }
                )
    return pd.DataFrame(rows)


def scr003(hours: tuple[float, ...] = SCR003_HOURS) -> pd.DataFrame:
    """SCR-003.Clinical.Data.csv: 33 columns in the file's order, "NA" where nothing was found."""
    columns = ("DOF", "LIDO", "MEXI", "MOXI", "MOXI.M2", "DILT")
    rows = []
    for number in range(len(PEOPLE)):
        for period, code in enumerate("EABDC", start=1):
            for hour in hours:
                found = {
                    name: value for name, (first, last, value) in SCR003_MEASURED[code].items() if first <= hour <= last
                }
                rows.append(
                    {
                        "EGREFID": f"9D7B03F2-{number}-{period}-{round(10 * hour + 5)}",
                        **_person(number, 3),
                        "ARMCD": "E-A-B-D-C",
                        "VISIT": f"PERIOD-{period}-DOSING",
                        "TRTA": SCR003_ARMS[code],
                        **{name: found.get(name, np.nan) for name in columns},
                        "TPT": hour,
                        "BASELINE": "Y" if hour < 0 else "N",
                        **_measured(),
                    }
                )
    return pd.DataFrame(rows)


def write_waveforms(folder: Path, table: pd.DataFrame, marks_csv: bool, prefix: str) -> None:
    """raw/ (12 leads, 10 s), medians/ (16 channels, 1.2 s, .atr) and, for ECGRDVQ, median_beat_fiducials.csv."""
    import wfdb

    raw = drawn_ecg(hz=1000.0)
    start = round(1.5 * RR_MS) - R_MS  # of the second drawn beat
    beat = raw[:, start : start + 1200]
    vector = np.stack([np.sqrt((beat**2).sum(0)), *beat[[0, 1, 6]]])
    onset = R_MS - round(0.4 * QRS_MS)
    places = [onset - PR_MS, onset, onset + QRS_MS, onset + QT_MS - TPEAK_TEND_MS, onset + QT_MS]
    names = ["AVR" if name == "aVR" else name for name in LEADS]
    lines = []
    for i, row in table.reset_index(drop=True).iterrows():
        for kind, signal, leads in (("raw", raw, names), ("medians", np.vstack([beat, vector]), [*names, *_EXTRA])):
            place = folder / kind / str(row["RANDID"])
            place.mkdir(parents=True, exist_ok=True)
            wfdb.wrsamp(
                row["EGREFID"],
                fs=1000,
                units=["mV"] * len(leads),
                sig_name=leads,
                p_signal=signal.T,
                fmt=["16"] * len(leads),
                adc_gain=[2000.0] * len(leads),
                baseline=[0] * len(leads),
                write_dir=str(place),
            )
        marks = [(place, symbol) for place, symbol in zip(places, "(()t)", strict=True)]
        marks = [m for k, m in enumerate(marks) if k != 2 or i]  # the first beat has no QRS offset
        samples, symbols = zip(*marks, strict=True)
        wfdb.wrann(
            row["EGREFID"],
            "atr",
            np.array([round(s) for s in samples]),
            list(symbols),
            fs=1000,
            write_dir=str(folder / "medians" / str(row["RANDID"])),
        )
        for filtered in (0, 1):
            lines.append(
                {
                    "RECORD": f"{prefix}/medians/{row['RANDID']}/{row['EGREFID']}",
                    "ERROR": np.nan,
                    "FILTER": filtered,
                    "RR": int(RR_MS),
                    "QON": round(places[1]),
                    "RPEAK": R_MS,
                    "QOFF": round(places[2]),
                    "TPEAK": round(places[3]) if i else -1,
                    "TPPEAK": -1,
                    "TEND": round(places[4]) - filtered,
                }
            )
    if marks_csv:
        pd.DataFrame(lines).to_csv(folder / "median_beat_fiducials.csv", index=False)


_EXTRA = ["VCGMAG", "vx", "vy", "vz"]


def write_ecgrdvq(folder: Path, hours: tuple[float, ...] = (-0.5, 1.0)) -> Path:
    """ECGRDVQ with its waveforms."""
    folder.mkdir(exist_ok=True)
    table = scr002(hours)
    table.to_csv(folder / "SCR-002.Clinical.Data.csv", index=False)
    write_waveforms(folder, table, True, "ecgrdvq")
    return folder


def write_ecgdmmld(folder: Path, waveforms_at: tuple[float, ...] = (-0.5,)) -> Path:
    """ECGDMMLD with the waveforms of a few times."""
    folder.mkdir(exist_ok=True)
    table = scr003()
    table.to_csv(folder / "SCR-003.Clinical.Data.csv", index=False, na_rep="NA")
    write_waveforms(folder, table[table["TPT"].isin(waveforms_at)], False, "ecgdmmld")
    return folder
