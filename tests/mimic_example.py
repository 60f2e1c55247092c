"""A hospital of two patients in the exact raw layout of MIMIC-IV, with its traps, and the MEDS its exporters make.

Made up from end to end. Patient 1: one stay through the emergency ward, with every kind of event. Patient 2: two stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

HEADERS = {
    "admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
    "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,"
    "hospital_expire_flag",
    "patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,"
    "valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning",
    "outputevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom",
    "microbiologyevents": "microevent_id,subject_id,hadm_id,micro_specimen_id,order_provider_id,chartdate,charttime,"
    "spec_itemid,spec_type_desc,test_seq,storedate,storetime,test_itemid,test_name,org_itemid,org_name,isolate_num,"
    "quantity,ab_itemid,ab_name,dilution_text,dilution_comparison,dilution_value,interpretation,comments",
    "emar": "subject_id,hadm_id,emar_id,emar_seq,poe_id,pharmacy_id,enter_provider_id,charttime,medication,event_txt,"
    "scheduletime,storetime",
    "emar_detail": "subject_id,emar_id,emar_seq,parent_field_ordinal,administration_type,pharmacy_id,barcode_type,"
    "reason_for_no_barcode,complete_dose_not_given,dose_due,dose_due_unit,dose_given,dose_given_unit,"
    "will_remainder_of_dose_be_given,product_amount_given,product_unit,product_code,product_description,"
    "product_description_other,prior_infusion_rate,infusion_rate,infusion_rate_adjustment,"
    "infusion_rate_adjustment_amount,infusion_rate_unit,route,infusion_complete,completion_interval,new_iv_bag_hung,"
    "continued_infusion_in_other_location,restart_interval,side,site,non_formulary_visual_verification",
    "prescriptions": "subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,order_provider_id,starttime,stoptime,drug_type,"
    "drug,formulary_drug_cd,gsn,ndc,prod_strength,form_rx,dose_val_rx,dose_unit_rx,form_val_disp,form_unit_disp,"
    "doses_per_24_hrs,route",
    "pharmacy": "subject_id,hadm_id,pharmacy_id,poe_id,starttime,stoptime,medication,proc_type,status,entertime,"
    "verifiedtime,route,frequency,disp_sched,infusion_type,sliding_scale,lockout_interval,basal_rate,one_hr_max,"
    "doses_per_24_hrs,duration,duration_interval,expiration_value,expiration_unit,expirationdate,dispensation,"
    "fill_quantity",
    "inputevents": "subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,amount,amountuom,rate,"
    "rateuom,orderid,linkorderid,ordercategoryname,secondaryordercategoryname,ordercomponenttypedescription,"
    "ordercategorydescription,patientweight,totalamount,totalamountuom,isopenbag,continueinnextdept,"
    "statusdescription,originalamount,originalrate",
    "procedureevents": "subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,value,valueuom,"
    "location,locationcategory,orderid,linkorderid,ordercategoryname,ordercategorydescription,patientweight,isopenbag,"
    "continueinnextdept,statusdescription,originalamount,originalrate",
}

_STAYS = [
    dict(subject_id=1, hadm_id=11, admittime="2150-03-01 10:00:00", dischtime="2150-03-05 12:00:00",
         admission_type="EW EMER.", admission_location="EMERGENCY ROOM", discharge_location="HOME", race="WHITE",
         edregtime="2150-03-01 06:00:00", hospital_expire_flag=0),
    dict(subject_id=2, hadm_id=21, admittime="2160-01-01 00:30:00", dischtime="2160-01-03 10:00:00",
         admission_type="URGENT", admission_location="CLINIC REFERRAL", discharge_location="HOME", race="ASIAN",
         hospital_expire_flag=0),
    # dischtime of a death without its time of day
    dict(subject_id=2, hadm_id=22, admittime="2160-02-01 08:00:00", dischtime="2160-02-04 00:00:00",
         deathtime="2160-02-04 21:15:00", admission_type="URGENT", admission_location="CLINIC REFERRAL",
         discharge_location="DIED", race="ASIAN", hospital_expire_flag=1),
]  # fmt: skip


def _lab(subject, hadm, itemid, draw, store, value, unit, number=True):
    return dict(
        subject_id=subject,
        hadm_id=hadm,
        itemid=itemid,
        charttime=draw,
        storetime=store,
        value=str(value),
        valuenum=value if number else None,
        valueuom=unit,
    )


_LABS = [
    _lab(1, 11, 50971, "2150-03-01 07:00:00", "2150-03-01 08:10:00", 3.1, "mEq/L"),
    _lab(1, None, 50971, "2150-03-01 13:00:00", "2150-03-01 14:00:00", 3.9, "mEq/L"),  # hadm_id null
    _lab(1, 11, 50931, "2150-03-01 07:00:00", "2150-03-01 08:10:00", 250, "mg/dL"),
    _lab(1, 11, 51003, "2150-03-01 07:00:00", "2150-03-01 09:00:00", "<0.01", "ng/mL", number=False),
    _lab(1, 11, 50912, "2150-03-01 07:00:00", "2150-03-01 08:10:00", "___", "mg/dL", number=False),  # no result
    _lab(1, 11, 50912, "2150-03-02 07:00:00", "2150-03-02 08:10:00", 1.4, "mg/dL"),
    _lab(1, 11, 51237, "2150-03-02 07:00:00", "2150-03-02 08:00:00", 1.3, None),  # no unit, and needs none
    _lab(1, 11, 51301, "2150-03-02 07:00:00", "2150-03-02 06:00:00", 12.0, "K/uL"),  # result before the draw
    _lab(1, 11, 50983, "2150-03-02 07:00:00", "2150-03-02 08:00:00", 1350, "mEq/L"),  # a slip of the pen
    _lab(1, 11, 51478, "2150-03-02 07:00:00", "2150-03-02 08:00:00", 100, "mg/dL"),  # urine: not listed
    _lab(1, None, 50971, "2151-07-01 07:00:00", "2151-07-01 08:00:00", 4.4, "mEq/L"),  # an outpatient by then
    _lab(2, 21, 50971, "2160-01-01 06:00:00", "2160-01-01 07:00:00", 4.0, "mEq/L"),
    _lab(2, 22, 50971, "2160-02-04 12:00:00", "2160-02-04 13:00:00", 6.1, "mEq/L"),  # after 00:00, before the death
]


def _chart(itemid, time, value, unit):
    return dict(
        subject_id=1,
        hadm_id=11,
        stay_id=111,
        charttime=time,
        storetime=time,
        itemid=itemid,
        value=str(value),
        valuenum=value,
        valueuom=unit,
        warning=0,
    )


_CHARTED = [
    _chart(223761, "2150-03-01 11:00:00", 98.6, "°F"),
    _chart(223762, "2150-03-01 15:00:00", 38.5, "°C"),
    _chart(220045, "2150-03-01 11:00:00", 95, "bpm"),
    _chart(220739, "2150-03-01 11:00:00", 4, None),
    _chart(223900, "2150-03-01 11:00:00", 5, None),
    _chart(223901, "2150-03-01 11:00:00", 6, None),
    _chart(227442, "2150-03-01 13:00:00", 3.9, "mEq/L"),  # the lab's potassium, charted again
    _chart(220046, "2150-03-01 11:00:00", 130, "bpm"),  # an alarm's limit
]

_OUTPUTS = [
    dict(subject_id=1, hadm_id=11, stay_id=111, charttime="3/1/2150 12:00", storetime="3/1/2150 12:05",
         itemid=226559, value=300, valueuom="ml"),
    # not listed; its date tells that the month is first
    dict(subject_id=1, hadm_id=11, stay_id=111, charttime="3/13/2150 8:00", storetime="3/13/2150 8:05",
         itemid=226588, value=20, valueuom="ml"),
]  # fmt: skip


def _culture(
    organism, antibiotic, interpretation, comments, store, specimen="BLOOD CULTURE", draw="2150-03-01 07:30:00"
):
    return dict(
        subject_id=1,
        hadm_id=11,
        micro_specimen_id=5,
        charttime=draw,
        chartdate="2150-03-01 00:00:00",
        storetime=store,
        spec_type_desc=specimen,
        test_name=f"{specimen.title()}, Routine",
        org_name=organism,
        ab_name=antibiotic,
        interpretation=interpretation,
        comments=comments,
    )


_CULTURES = [
    _culture("ESCHERICHIA COLI", "CEFTRIAXONE", "R", None, "2150-03-03 09:00:00"),
    _culture("ESCHERICHIA COLI", "MEROPENEM", "S", None, "2150-03-03 11:00:00"),
    _culture(None, None, None, "NO GROWTH.", "2150-03-02 09:00:00", "URINE"),
    _culture(None, None, None, "___", "2150-03-02 09:00:00", "SPUTUM"),
    _culture(None, None, None, "NO GROWTH.", "2150-03-02 09:00:00", "SWAB", draw=None),  # a date only
]


def _order(pharmacy_id, drug, start, stop, dose, unit, route, kind="MAIN"):
    return dict(
        subject_id=1,
        hadm_id=11,
        pharmacy_id=pharmacy_id,
        starttime=start,
        stoptime=stop,
        drug_type=kind,
        drug=drug,
        dose_val_rx=dose,
        dose_unit_rx=unit,
        route=route,
    )


_ORDERS = [
    _order(900, "CefTRIAXone", "2150-03-01 08:00:00", "2150-03-03 08:00:00", "1", "gm", "IV"),
    _order(900, "Iso-Osmotic Dextrose", "2150-03-01 08:00:00", "2150-03-03 08:00:00", "50", "mL", "IV", "BASE"),
    _order(901, "Insulin", "2150-03-01 08:00:00", "2150-03-05 08:00:00", "0-10", "UNIT", "SC"),
    _order(902, "Sodium Chloride 0.9%  Flush", "2150-03-01 08:00:00", "2150-03-05 08:00:00", "3", "mL", "IV"),
    _order(903, "Furosemide", "2150-03-02 08:00:00", "2150-03-02 07:00:00", "40", "mg", "IV"),  # ends before it starts
]
_PHARMACY = [
    dict(subject_id=1, hadm_id=11, pharmacy_id=o["pharmacy_id"], starttime=o["starttime"], stoptime=o["stoptime"],
         medication=o["drug"], route=o["route"], status="Discontinued")
    for o in _ORDERS if o["drug_type"] == "MAIN"
]  # fmt: skip


def _given(emar_id, pharmacy_id, drug, time, event="Administered"):
    return dict(
        subject_id=1,
        hadm_id=11,
        emar_id=emar_id,
        pharmacy_id=pharmacy_id,
        charttime=time,
        medication=drug,
        event_txt=event,
    )


def _detail(emar_id, parent, dose=None, unit=None, route=None):
    return dict(
        subject_id=1, emar_id=emar_id, parent_field_ordinal=parent, dose_given=dose, dose_given_unit=unit, route=route
    )


_EMAR = [
    _given("1-1", 900, "CefTRIAXone", "2150-03-01 09:00:00"),  # no detail: dose of the order, not of its diluent
    _given("1-2", 901, "Insulin", "2150-03-01 09:30:00"),
    _given("1-3", 901, "Insulin", "2150-03-01 13:30:00", "Not Given per Sliding Scale"),
    _given("1-4", 902, "Sodium Chloride 0.9%  Flush", "2150-03-01 13:30:00"),
    _given("1-5", None, "Acetaminophen", "2150-03-01 20:00:00"),
]
_DETAIL = [
    _detail("1-2", None, route="SC"),
    _detail("1-2", "1.1", "4", "UNIT"),
    _detail("1-2", "1.2", "2", "UNIT"),
    _detail("1-5", None, route="PO/NG"),
    _detail("1-5", "1.1", "500", "mg"),
    _detail("1-5", "1.2", "1", "TAB"),  # another unit: no sum
]


def _infusion(itemid, start, end, amount, amount_unit, rate, rate_unit, order, weight=80.0, status="FinishedRunning"):
    return dict(
        subject_id=1,
        hadm_id=11,
        stay_id=111,
        starttime=start,
        endtime=end,
        itemid=itemid,
        amount=amount,
        amountuom=amount_unit,
        rate=rate,
        rateuom=rate_unit,
        orderid=order,
        linkorderid=order,
        patientweight=weight,
        statusdescription=status,
    )


_INPUTS = [
    _infusion(221906, "2150-03-01 11:00:00", "2150-03-01 15:00:00", 1.92, "mg", 0.1, "mcg/kg/min", 1),
    _infusion(221906, "2150-03-01 15:00:00", "2150-03-01 16:00:00", 0.96, "mg", 0.0002, "mg/kg/min", 2),
    _infusion(221906, "2150-03-01 17:00:00", "2150-03-01 18:00:00", 0.96, "mg", 0.15, "mg/kg/min", 3, weight=1.0),
    _infusion(225158, "2150-03-01 11:00:00", "2150-03-01 12:00:00", 1000, "ml", 1000, "mL/hour", 4),
    _infusion(225158, "2150-03-01 11:30:00", "2150-03-01 13:30:00", 200, "ml", 100, "mL/hour", 5),  # at the same time
    _infusion(225166, "2150-03-01 14:00:00", "2150-03-01 15:00:00", 20, "mEq", None, None, 6),
    _infusion(225166, "2150-03-01 16:00:00", "2150-03-01 17:00:00", 20, "mEq", None, None, 7, status="Rewritten"),
]
_PROCEDURES = [
    dict(subject_id=1, hadm_id=11, stay_id=111, starttime="3/1/2150 11:00", endtime="3/2/2150 9:00", itemid=225792,
         statusdescription="FinishedRunning", orderid=70),
    dict(subject_id=1, hadm_id=11, stay_id=111, starttime="3/13/2150 11:00", endtime="3/13/2150 11:01", itemid=228129,
         statusdescription="FinishedRunning", orderid=71),
]  # fmt: skip

ROWS = {
    "admissions": _STAYS,
    "patients": [
        dict(subject_id=1, gender="F", anchor_age=50, anchor_year=2148),
        dict(subject_id=2, gender="M", anchor_age=70, anchor_year=2160, dod="2160-02-04"),
    ],
    "diagnoses_icd": [
        dict(subject_id=1, hadm_id=11, seq_num=1, icd_code="0389", icd_version=9),
        dict(subject_id=1, hadm_id=11, seq_num=2, icd_code="I509", icd_version=10),
        dict(subject_id=2, hadm_id=21, seq_num=1, icd_code="I509", icd_version=10),
        dict(subject_id=2, hadm_id=22, seq_num=1, icd_code="N179", icd_version=10),
    ],
    "labevents": _LABS,
    "chartevents": _CHARTED,
    "outputevents": _OUTPUTS,
    "microbiologyevents": _CULTURES,
    "prescriptions": _ORDERS,
    "pharmacy": _PHARMACY,
    "emar": _EMAR,
    "emar_detail": _DETAIL,
    "inputevents": _INPUTS,
    "procedureevents": _PROCEDURES,
}
ICU = ("chartevents", "outputevents", "inputevents", "procedureevents")


def table(name: str) -> pd.DataFrame:
    """The table in its full published layout, every column as text."""
    frame = pd.DataFrame(ROWS[name]).reindex(columns=HEADERS[name].split(","))
    return frame.map(lambda value: None if pd.isna(value) else str(value))


def write(folder: Path, style: str = "csv.gz", leave_out: tuple[str, ...] = ()) -> Path:
    """The tables as csv.gz below hosp/ and icu/, or as parquet side by side."""
    for name in ROWS:
        if name in leave_out:
            continue
        frame = table(name)
        if style == "parquet":
            folder.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        else:
            place = folder / ("icu" if name in ICU else "hosp")
            place.mkdir(parents=True, exist_ok=True)
            frame.to_csv(place / f"{name}.csv.gz", index=False)
    return folder


def as_meds(style: str) -> pd.DataFrame:
    """What MIMIC_IV_MEDS makes of the tables: "old" (the demo of 2023) or "new" (results at their own times)."""
    out: list[dict] = []

    def add(rows: list[dict], code, time: str | None, value: str | None = None, **extra: str) -> None:
        for row in rows:
            moment = None if time is None else pd.to_datetime(row.get(time), format="mixed")
            if time is not None and pd.isna(moment):
                continue
            number = None if value is None else row.get(value)
            told = {name: row.get(column) for name, column in extra.items()} if style == "new" else {}
            out.append(
                {
                    "subject_id": row["subject_id"],
                    "time": moment,
                    "code": code(row),
                    "numeric_value": number,
                    "hadm_id": row.get("hadm_id"),
                    **told,
                }
            )

    def unit(row: dict) -> str:
        return row.get("valueuom") or "UNK"

    discharge = {row["hadm_id"]: row["dischtime"] for row in _STAYS}
    add(_STAYS, lambda r: "ED_REGISTRATION", "edregtime")
    add(_STAYS, lambda r: f"HOSPITAL_ADMISSION//{r['admission_type']}//{r['admission_location']}", "admittime")
    add(_STAYS, lambda r: f"HOSPITAL_DISCHARGE//{r['discharge_location']}", "dischtime")
    if style == "new":
        add(_STAYS, lambda r: f"RACE//{r['race']}", "admittime")
    add(ROWS["patients"], lambda r: f"GENDER//{r['gender']}", None)
    born = [{**r, "born": f"{r['anchor_year'] - r['anchor_age']}-01-01"} for r in ROWS["patients"]]
    add(born, lambda r: "MEDS_BIRTH", "born")
    add(_STAYS, lambda r: "MEDS_DEATH", "deathtime")
    coded = [{**r, "time": discharge[r["hadm_id"]]} for r in ROWS["diagnoses_icd"]]
    add(coded, lambda r: f"DIAGNOSIS//ICD//{r['icd_version']}//{r['icd_code']}", "time")
    if style == "new":
        add(_LABS, lambda r: f"LAB//SPECIMEN_COLLECTED//{r['itemid']}//STAT", "charttime")
        add(_LABS, lambda r: f"LAB//RESULT//{r['itemid']}//{unit(r)}", "storetime", "valuenum", text_value="value")
    else:
        add(_LABS, lambda r: f"LAB//{r['itemid']}//{unit(r)}", "charttime", "valuenum")
    add(_CHARTED, lambda r: f"LAB//{r['itemid']}//{unit(r)}", "charttime", "valuenum", text_value="value")
    add(_OUTPUTS, lambda r: f"SUBJECT_FLUID_OUTPUT//{r['itemid']}//{unit(r)}", "charttime", "value")
    add(_EMAR, lambda r: f"MEDICATION//{r['medication']}//{r['event_txt']}", "charttime")
    add(_PHARMACY, lambda r: f"MEDICATION//START//{r['medication']}", "starttime", route="route")
    add(_PHARMACY, lambda r: f"MEDICATION//STOP//{r['medication']}", "stoptime")
    running = [row for row in _INPUTS if row["statusdescription"] != "Rewritten"]
    add(running, lambda r: f"INFUSION_START//{r['itemid']}", "starttime", "rate", unit="rateuom", order_id="orderid")
    add(running, lambda r: f"INFUSION_END//{r['itemid']}", "endtime", "amount", unit="amountuom", order_id="orderid")
    add(_PROCEDURES, lambda r: f"PROCEDURE//START//{r['itemid']}", "starttime", order_id="orderid")
    add(_PROCEDURES, lambda r: f"PROCEDURE//END//{r['itemid']}", "endtime", order_id="orderid")
    frame = pd.DataFrame(out).sort_values(["subject_id", "time"], kind="stable", na_position="first")
    frame["time"] = frame["time"].astype("datetime64[us]")
    frame["numeric_value"] = frame["numeric_value"].astype(np.float32)
    if style == "old":
        frame = frame.rename(columns={"numeric_value": "value"}).drop(columns="hadm_id").assign(table="condition")
    else:
        frame["hadm_id"] = frame["hadm_id"].astype("Int64")
        frame["order_id"] = frame["order_id"].astype("Int64")
    return frame.reset_index(drop=True)
