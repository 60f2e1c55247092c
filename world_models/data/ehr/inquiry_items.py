"""The table of inquiries: our name and unit for each, where it stands in MIMIC and Challenge 2012, and its ranges.

One row an item. `low` and `high` are plausible: outside them a value is a slip of the pen and is dropped, counted.
`ref_low` and `ref_high` are the adult reference range: what MIMIC-IV's own labevents columns print for most patients
(k), for vital signs HR 60-100, MAP 70-105, SBP 90-140, RR 12-20, SpO2 95-100, T 36.1-38.0; None where none is agreed.
Item ids were checked against `d_labitems` of the MIMIC-IV demo and `D_ITEMS` of the MIMIC-III demo. Lab items are of
blood; a charted copy of a lab (ids above 220000) has the same collection time and value and is taken once.

Names, units and spelling are those of `quantities.ward` where the ward measures the same thing; `troponin_ng_l` is
troponin T, `urine_output_ml` one charted volume (the ward's is a rate).

MEDS codes are read as every export so far writes them: `LAB//{itemid}//{unit}` (the demo of 2023, and charted values
to this day) and `LAB//RESULT//{itemid}//{unit}` at the result time with `LAB//SPECIMEN_COLLECTED//{itemid}` at the
collection time (MIMIC_IV_MEDS since 2024).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from world_models.quantity import Quantity

__all__ = ["INQUIRY_ITEMS", "UNIT_IF_MISSING", "UNIT_INSTEAD", "InquiryItem", "LabCode", "by_itemid", "by_name"]
__all__ += ["find", "parse_lab_code", "whole_number"]


@dataclass(frozen=True, slots=True)
class InquiryItem:
    """One thing that can be asked of a patient and answers with a number."""

    name: str  # ends in the unit
    unit: str
    low: float  # plausible, inclusive
    high: float
    ref_low: float | None  # reference range of adults
    ref_high: float | None
    itemids: tuple[int, ...]  # MIMIC, the first is the one we write
    challenge: tuple[str, ...] = ()  # parameters of Challenge 2012

    @property
    def code(self) -> str:
        """The code we write to MEDS."""
        return f"LAB//{self.itemids[0]}//{self.unit}"

    @property
    def quantity(self) -> Quantity:
        """Name, unit and plausible range as a Quantity."""
        return Quantity(self.name, self.unit, self.low, self.high)


_i = InquiryItem  # so that a row of the table is a line

# fmt: off
INQUIRY_ITEMS: tuple[InquiryItem, ...] = (
    # chemistry
    _i("sodium_mmol_l", "mmol/L", 90, 200, 133, 145, (50983, 50824, 52623, 52455, 220645, 226534), ("Na",)),
    _i("potassium_mmol_l", "mmol/L", 1, 12, 3.3, 5.1, (50971, 50822, 52610, 52452, 227442, 227464), ("K",)),
    _i("chloride_mmol_l", "mmol/L", 50, 170, 96, 108, (50902, 50806, 52535, 52434, 220602, 226536)),
    _i("bicarbonate_mmol_l", "mmol/L", 2, 60, 22, 32, (50882, 227443), ("HCO3",)),
    _i("anion_gap_mmol_l", "mmol/L", -5, 60, 8, 20, (50868, 52500, 227073)),
    _i("urea_nitrogen_mg_dl", "mg/dL", 0.5, 300, 6, 20, (51006, 52647, 225624), ("BUN",)),
    _i("creatinine_mg_dl", "mg/dL", 0.05, 40, 0.4, 1.2, (50912, 52546, 52024, 220615), ("Creatinine",)),
    _i("glucose_mg_dl", "mg/dL", 10, 2500, 70, 105,
       (50931, 50809, 52569, 52027, 220621, 226537, 225664, 807), ("Glucose",)),
    _i("calcium_mg_dl", "mg/dL", 2, 25, 8.4, 10.3, (50893, 225625)),
    _i("ionized_calcium_mmol_l", "mmol/L", 0.2, 5, 1.12, 1.32, (50808, 51624, 225667)),
    _i("magnesium_mg_dl", "mg/dL", 0.3, 15, 1.6, 2.6, (50960, 220635), ("Mg",)),
    _i("phosphate_mg_dl", "mg/dL", 0.2, 30, 2.7, 4.5, (50970, 225677)),
    _i("albumin_g_dl", "g/dL", 0.5, 7, 3.5, 5.2, (50862, 53085, 227456), ("Albumin",)),
    _i("total_protein_g_dl", "g/dL", 1, 15, 6.4, 8.3, (50976, 53096)),
    _i("lactate_mmol_l", "mmol/L", 0.1, 40, 0.5, 2.0, (50813, 52442, 53154, 225668), ("Lactate",)),
    _i("osmolality_mosm_kg", "mOsm/kg", 150, 500, 275, 310, (50964,)),
    _i("beta_hydroxybutyrate_mmol_l", "mmol/L", 0, 25, 0, 0.4, (51567,)),
    _i("uric_acid_mg_dl", "mg/dL", 0.1, 40, 3.4, 7.0, (51007, 225695)),
    # liver, pancreas, muscle, heart
    _i("alt_u_l", "U/L", 1, 30000, 0, 40, (50861, 53084, 220644), ("ALT",)),
    _i("ast_u_l", "U/L", 1, 40000, 0, 40, (50878, 53088, 220587), ("AST",)),
    _i("alkaline_phosphatase_u_l", "U/L", 3, 5000, 40, 130, (50863, 53086, 225612), ("ALP",)),
    _i("bilirubin_mg_dl", "mg/dL", 0.05, 90, 0, 1.5, (50885, 53089, 225690), ("Bilirubin",)),
    _i("bilirubin_direct_mg_dl", "mg/dL", 0, 60, 0, 0.3, (50883, 225651)),
    _i("lactate_dehydrogenase_u_l", "U/L", 10, 50000, 94, 250, (50954, 220632)),
    _i("amylase_u_l", "U/L", 1, 20000, 0, 100, (50867, 53087)),
    _i("lipase_u_l", "U/L", 1, 30000, 0, 60, (50956,)),
    _i("ammonia_umol_l", "umol/L", 1, 2000, 10, 60, (50866, 220580)),
    _i("creatine_kinase_u_l", "U/L", 1, 500000, 47, 322, (50910, 225634)),
    _i("ck_mb_ng_ml", "ng/mL", 0.1, 1000, 0, 10, (50911, 227445)),
    _i("troponin_ng_l", "ng/L", 1, 200000, 0, 10, (51003, 227429), ("TroponinT",)),
    _i("troponin_i_ng_l", "ng/L", 1, 500000, 0, 400, (51002, 52642), ("TroponinI",)),
    _i("nt_probnp_pg_ml", "pg/mL", 1, 200000, 0, 226, (50963,)),
    _i("crp_mg_l", "mg/L", 0.05, 1000, 0, 5, (50889, 227444)),
    _i("cholesterol_mg_dl", "mg/dL", 10, 1000, 0, 199, (50907,), ("Cholesterol",)),
    _i("triglycerides_mg_dl", "mg/dL", 5, 10000, 0, 149, (51000,)),
    # blood count and clotting
    _i("white_cells_k_ul", "10*3/uL", 0.05, 600, 4, 10, (51301, 51300, 51755, 51756, 220546), ("WBC",)),
    _i("haemoglobin_g_dl", "g/dL", 1.5, 25, 12, 17.5, (51222, 50811, 51640, 220228)),
    _i("haematocrit_percent", "%", 5, 75, 36, 51, (51221, 50810, 51638, 51639, 52028, 220545, 226540), ("HCT",)),
    _i("platelets_k_ul", "10*3/uL", 1, 3000, 150, 400, (51265, 51704, 227457), ("Platelets",)),
    _i("red_cells_m_ul", "10*6/uL", 0.5, 10, 3.9, 6.1, (51279,)),
    _i("mcv_fl", "fL", 40, 150, 82, 98, (51250, 51691)),
    _i("rdw_percent", "%", 8, 50, 10.5, 15.5, (51277,)),
    _i("neutrophils_percent", "%", 0, 100, 34, 71, (51256, 225643)),
    _i("lymphocytes_percent", "%", 0, 100, 19, 53, (51244, 51690, 51245, 225641)),
    _i("inr", "1", 0.5, 30, 0.9, 1.1, (51237, 51675, 227467)),
    _i("prothrombin_time_s", "s", 5, 200, 9.4, 12.5, (51274, 52921, 227465)),
    _i("ptt_s", "s", 10, 250, 25, 36.5, (51275, 52923, 227466)),
    _i("fibrinogen_mg_dl", "mg/dL", 15, 2500, 180, 400, (51214, 51623, 52116, 227468)),
    # blood gas
    _i("ph", "1", 6.3, 8, 7.35, 7.45, (50820, 223830), ("pH",)),
    _i("pco2_mmhg", "mm[Hg]", 5, 250, 35, 45, (50818, 220235), ("PaCO2",)),
    _i("po2_mmhg", "mm[Hg]", 10, 800, 85, 105, (50821, 220224), ("PaO2",)),
    _i("base_excess_mmol_l", "mmol/L", -50, 50, -2, 2, (50802, 224828)),
    _i("arterial_saturation_percent", "%", 20, 100, 95, 100, (50817, 220227), ("SaO2",)),
    _i("fio2_fraction", "fraction", 0.21, 1, None, None, (223835, 50816, 190, 3420), ("FiO2",)),
    _i("end_tidal_co2_mmhg", "mm[Hg]", 5, 120, 35, 45, (228640, 1817)),
    _i("vancomycin_level_mg_l", "mg/L", 0.1, 200, 10, 20, (51009, 227455, 227454)),
    # vital signs and bedside
    _i("heart_rate_bpm", "bpm", 5, 300, 60, 100, (220045, 211), ("HR",)),
    _i("sbp_mmhg", "mm[Hg]", 20, 320, 90, 140,
       (220050, 220179, 225309, 224167, 227243, 51, 455, 6701, 442), ("SysABP", "NISysABP")),
    _i("dbp_mmhg", "mm[Hg]", 5, 220, 60, 90,
       (220051, 220180, 225310, 224643, 227242, 8368, 8441, 8555, 8440), ("DiasABP", "NIDiasABP")),
    _i("map_mmhg", "mm[Hg]", 10, 250, 70, 105, (220052, 220181, 225312, 52, 456, 6702, 443), ("MAP", "NIMAP")),
    _i("respiratory_rate_min", "/min", 1, 90, 12, 20, (220210, 618), ("RespRate",)),
    _i("spo2_percent", "%", 20, 100, 95, 100, (220277, 646)),
    _i("temperature_c", "Cel", 25, 45, 36.1, 38.0, (223762, 223761, 676, 678), ("Temp",)),
    _i("cvp_mmhg", "mm[Hg]", -10, 60, 2, 8, (220074, 113)),
    _i("gcs_eye", "1", 1, 4, 4, 4, (220739, 184)),
    _i("gcs_verbal", "1", 1, 5, 5, 5, (223900, 723)),
    _i("gcs_motor", "1", 1, 6, 6, 6, (223901, 454)),
    _i("gcs", "1", 3, 15, 15, 15, (198,), ("GCS",)),
    _i("rass", "1", -5, 4, 0, 0, (228096,)),
    _i("peep_cmh2o", "cm[H2O]", 0, 40, None, None, (220339, 506)),
    _i("tidal_volume_ml", "mL", 20, 2500, None, None, (224685, 682)),
    _i("minute_volume_l_min", "L/min", 0.5, 60, None, None, (224687, 450)),
    _i("oxygen_flow_l_min", "L/min", 0, 80, None, None, (223834, 470)),
    _i("weight_kg", "kg", 20, 400, None, None, (224639, 226512, 226531, 763, 762), ("Weight",)),
    _i("height_cm", "cm", 100, 230, None, None, (226730, 226707, 920), ("Height",)),
    _i("urine_output_ml", "mL", 0, 5000, None, None,
       (226559, 226560, 226561, 226563, 226564, 226565, 226567, 226584, 226627, 226631,
        40055, 40069, 40473, 40094, 40715, 40085, 40057, 40056, 40405, 40428, 40086, 40096, 40651), ("Urine",)),
)
# fmt: on

# Sources that leave the unit out where it cannot be another one: itemid -> unit. A value without unit of any other
# item is dropped, counted.
UNIT_IF_MISSING: dict[int, str] = {
    51237: "1", 51675: "1", 227467: "1",  # INR
    50820: "1", 223830: "1",  # pH
    225664: "mg/dL", 226537: "mg/dL", 807: "mg/dL",  # glucose at the finger, in whole blood
    50817: "%", 223835: "%", 50816: "%", 3420: "%",  # FiO2; a fraction among them is out of range
    220739: "1", 223900: "1", 223901: "1", 184: "1", 723: "1", 454: "1", 198: "1", 228096: "1",  # Glasgow, RASS
    226531: "lb", 225695: "mg/dL", 227429: "ng/mL", 920: "in", 226707: "in",
    228640: "mm[Hg]",  # end-tidal carbon dioxide; its values of 20 to 40 are no kPa
}  # fmt: skip

# Sources whose own unit is wrong for an item: itemid -> unit. CareVue writes torr beside a fraction from 0.21 to 1.
UNIT_INSTEAD: dict[int, str] = {190: "fraction"}


@cache
def by_itemid() -> dict[int, InquiryItem]:
    """MIMIC itemid -> item."""
    return {itemid: item for item in INQUIRY_ITEMS for itemid in item.itemids}


@cache
def _names() -> dict[str, InquiryItem]:
    return {item.name: item for item in INQUIRY_ITEMS}


def find(name: str) -> InquiryItem | None:
    """The item of that name, or None (a label item is not in the table)."""
    return _names().get(name)


def by_name(name: str) -> InquiryItem:
    """The item of that name.

    Raises:
        KeyError: there is none; the message lists some of those there are.
    """
    try:
        return _names()[name]
    except KeyError:
        near = [other for other in _names() if other[:4] == name[:4]] or list(_names())[:8]
        raise KeyError(f"no inquiry item {name!r}; near it: {', '.join(near)}") from None


def whole_number(text: str) -> int | None:
    """The number that a text of ASCII digits says; None for any other text ("²" is a digit to Python) and for what an
    int64 need not hold."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


class LabCode(NamedTuple):
    """A MEDS code that holds a value, or the time of a collection."""

    itemid: int
    unit: str  # "" where the code has none or UNK
    event: str  # "value" (when collected), "result" (when resulted), "specimen" (the collection alone)


def parse_lab_code(code: str) -> LabCode | None:
    """What a MEDS code of MIMIC says: 'LAB//50971//mEq/L', 'LAB//RESULT//50971//mEq/L', 'SUBJECT_FLUID_OUTPUT//...'.

    None for every other code.
    """
    parts = code.split("//")
    event = "value"
    if parts[0] not in ("LAB", "SUBJECT_FLUID_OUTPUT") or len(parts) < 2:
        return None
    if parts[1] in ("RESULT", "SPECIMEN_COLLECTED"):
        event = "result" if parts[1] == "RESULT" else "specimen"
        parts = parts[1:]
    itemid = whole_number(parts[1]) if len(parts) > 1 else None
    if itemid is None:
        return None
    unit = "//".join(parts[2:]) if event != "specimen" else ""
    return LabCode(itemid, "" if unit == "UNK" else unit, event)
