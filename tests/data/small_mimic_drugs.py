"""MIMIC-IV-ECG and the hospital tables beside it, small and in the published layout: who was given what between ECGs.

Made up from end to end. The waveforms are the oracle's generator's, with the QT that the machine's table states.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from tests.clinenv.records import write_record
from tests.mimic_example import HEADERS
from world_models import keys
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import Intervals, synthesise_ecg

MEASURED = (
    "subject_id,study_id,cart_id,ecg_time,"
    + ",".join(f"report_{i}" for i in range(18))
    + ",bandwidth,filtering,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis"
)
OMR = "subject_id,chartdate,seq_num,result_name,result_value"
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # the order of its files
NOT_MEASURED = 29999
# subject, study, time, rr, p onset, qrs onset, qrs end, t end
ECGS = [
    (10000001, 41, "2150-03-01 06:00:00", 1000, 100, 260, 350, 660),  # QT 400
    (10000001, 42, "2150-03-01 09:30:00", 1000, 100, 260, 350, 664),  # the last before verapamil
    (10000001, 43, "2150-03-01 14:00:00", 1000, 100, 300, 390, 708),  # the first after: PR 200, QT 408
    (10000001, 44, "2150-03-01 20:00:00", 800, 100, 260, 350, 620),
    (10000002, 51, "2160-01-01 08:00:00", 900, NOT_MEASURED, 260, 350, 640),  # no P wave
    (10000002, 52, "2160-01-01 12:00:00", 900, NOT_MEASURED, 260, 350, 700),
    (10000003, 61, "2170-01-01 08:00:00", 900, 100, 260, 350, 640),  # nothing given near it
]
ROWS = {
    "patients": [
        dict(subject_id=10000001, gender="F", anchor_age=50, anchor_year=2148, anchor_year_group="2011 - 2013"),
        dict(subject_id=10000002, gender="M", anchor_age=70, anchor_year=2160, anchor_year_group="2011 - 2013"),
        dict(subject_id=10000003, gender="M", anchor_age=40, anchor_year=2170, anchor_year_group="2011 - 2013"),
    ],
    "emar": [
        dict(subject_id=10000001, hadm_id=11, emar_id="1-1", pharmacy_id=900, medication="Verapamil",
             charttime="2150-03-01 10:00:00", event_txt="Administered"),
        dict(subject_id=10000001, hadm_id=11, emar_id="1-2", pharmacy_id=900, medication="Verapamil SR",
             charttime="2150-03-01 13:00:00", event_txt="Administered"),
        dict(subject_id=10000001, hadm_id=11, emar_id="1-3", pharmacy_id=900, medication="Verapamil",
             charttime="2150-03-01 09:00:00", event_txt="Not Given"),
        dict(subject_id=10000001, hadm_id=11, emar_id="1-4", pharmacy_id=901, medication="Furosemide",
             charttime="2150-03-01 11:00:00", event_txt="Administered"),
        dict(subject_id=10000001, hadm_id=11, emar_id="1-5", pharmacy_id=902, medication="Heparin Flush (10 units/ml)",
             charttime="2150-03-01 12:00:00", event_txt="Flushed"),
        dict(subject_id=10000001, hadm_id=11, emar_id="1-6", pharmacy_id=903, medication="Acetaminophen",
             charttime="2150-03-01 12:00:00", event_txt="Administered"),
        dict(subject_id=99999999, hadm_id=91, emar_id="9-1", pharmacy_id=904, medication="Verapamil",
             charttime="2150-03-01 12:00:00", event_txt="Administered"),  # a patient without ECGs
    ],
    "emar_detail": [
        dict(subject_id=10000001, emar_id="1-1", route="PO"),
        dict(subject_id=10000001, emar_id="1-1", parent_field_ordinal="1.1", dose_given="80", dose_given_unit="mg"),
        dict(subject_id=10000001, emar_id="1-1", parent_field_ordinal="1.2", dose_given="40", dose_given_unit="mg"),
        dict(subject_id=10000001, emar_id="1-2", parent_field_ordinal="1.1", dose_given="120", dose_given_unit="mg"),
        dict(subject_id=10000001, emar_id="1-4", parent_field_ordinal="1.1", dose_given="20", dose_given_unit="mg"),
    ],
    "prescriptions": [
        dict(subject_id=10000001, hadm_id=11, pharmacy_id=900, starttime="2150-03-01 05:00:00", drug_type="MAIN",
             stoptime="2150-03-03 05:00:00", drug="Verapamil", dose_val_rx="120", dose_unit_rx="mg", route="PO"),
        dict(subject_id=10000002, hadm_id=21, pharmacy_id=910, starttime="2160-01-01 09:00:00", drug_type="MAIN",
             stoptime="2160-01-02 09:00:00", drug="Dofetilide", dose_val_rx="500", dose_unit_rx="mcg", route="PO"),
        dict(subject_id=10000002, hadm_id=21, pharmacy_id=911, starttime="2160-01-01 09:00:00", drug_type="BASE",
             drug="Heparin", dose_val_rx="500", dose_unit_rx="mL", route="IV"),
    ],
    "inputevents": [
        dict(subject_id=10000001, hadm_id=11, stay_id=111, itemid=221906, starttime="2150-03-01 05:00:00",
             endtime="2150-03-01 11:30:00", amount=1.92, amountuom="mg", rate=0.1, rateuom="mcg/kg/min", orderid=1,
             linkorderid=1, patientweight=80.0, statusdescription="FinishedRunning"),
        dict(subject_id=10000001, hadm_id=11, stay_id=111, itemid=222168, starttime="2150-03-01 12:30:00",
             endtime="2150-03-01 13:30:00", amount=100.0, amountuom="mg", orderid=2, linkorderid=2,
             patientweight=80.0, statusdescription="Rewritten"),
    ],
    "labevents": [
        dict(subject_id=10000001, itemid=50971, charttime="2150-03-01 05:00:00", valuenum=3.9, valueuom="mEq/L"),
        dict(subject_id=10000001, itemid=50971, charttime="2150-03-01 09:00:00", valuenum=4.4, valueuom="mEq/L"),
        dict(subject_id=10000001, itemid=50971, charttime="2150-03-01 10:30:00", valuenum=5.5, valueuom="mEq/L"),
        dict(subject_id=10000001, itemid=50960, charttime="2150-02-28 09:00:00", valuenum=2.0, valueuom="mg/dL"),
        dict(subject_id=10000001, itemid=50912, charttime="2150-03-01 05:00:00", valuenum=1.0, valueuom="mg/dL"),
        dict(subject_id=10000002, itemid=50912, charttime="2159-12-01 05:00:00", valuenum=1.0, valueuom="mg/dL"),
        dict(subject_id=10000002, itemid=50971, charttime="2160-01-01 05:00:00", valuenum=99.0, valueuom="mEq/L"),
    ],
    "omr": [
        dict(subject_id=10000001, chartdate="2150-02-01", seq_num=1, result_name="Weight (Lbs)", result_value="154.3"),
        dict(subject_id=10000001, chartdate="2150-04-01", seq_num=1, result_name="Weight (Lbs)", result_value="300"),
        dict(subject_id=10000001, chartdate="2150-02-02", seq_num=1, result_name="Blood Pressure", result_value="1/2"),
    ],
}  # fmt: skip
ICU = ("inputevents",)


def write_hospital(folder: Path, leave_out: tuple[str, ...] = (), **changed: list[dict]) -> Path:
    """The tables as csv.gz below hosp/ and icu/."""
    for name, rows in {**ROWS, **changed}.items():
        if name in leave_out:
            continue
        columns = (OMR if name == "omr" else HEADERS[name]).split(",")
        place = folder / ("icu" if name in ICU else "hosp")
        place.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).reindex(columns=columns).to_csv(place / f"{name}.csv.gz", index=False)
    return folder


def record_path(subject: int, study: int) -> str:
    return f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"


def write_ecgs(folder: Path, ecgs: list[tuple] | None = None, waveforms: tuple[int, ...] = ()) -> Path:
    """record_list.csv, machine_measurements.csv, and the waveforms of these studies."""
    ecgs = ECGS if ecgs is None else ecgs
    folder.mkdir(exist_ok=True)
    listed = [
        dict(subject_id=s, study_id=n, file_name=n, ecg_time=time, path=record_path(s, n)) for s, n, time, *_ in ecgs
    ]
    pd.DataFrame(listed).to_csv(folder / "record_list.csv", index=False)
    columns = ("rr_interval", "p_onset", "qrs_onset", "qrs_end", "t_end")
    measured = [
        dict(
            subject_id=s,
            study_id=n,
            cart_id=6,
            ecg_time=time,
            report_0="Sinus rhythm",
            **dict(zip(columns, ms, strict=True)),
        )
        for s, n, time, *ms in ecgs
    ]
    frame = pd.DataFrame(measured).reindex(columns=MEASURED.split(","))
    frame.to_csv(folder / "machine_measurements.csv", index=False)
    bank = MorphologyBank.load()
    for subject, study, _, rr, p, onset, end, t_end in ecgs:
        if study not in waveforms:
            continue
        key = keys.from_seed(subject, 1)
        pr, qrs, qt = onset - p, end - onset, t_end - onset
        one = torch.ones(1)
        intervals = Intervals.of(60_000 / rr * one, pr * one, qrs * one, (qt - qrs - 85.0) * one, 85.0 * one)
        ecg = synthesise_ecg(
            key, 0, intervals, bank.sample(keys.fold(key, "shape")), noise_uv=5 * one, wander_uv=20 * one
        )
        place = folder / record_path(subject, study)
        place.parent.mkdir(parents=True)
        write_record(place.parent, place.name, ecg[0].numpy(), order=MIMIC_LEADS, gain=200.0, comments=())
    return folder
