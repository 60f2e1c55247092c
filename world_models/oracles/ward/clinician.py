"""A clinician for the ward: a pure function from chart to orders, with a dial for confounding.

Plain rules as on a general ward with an intensive care unit (thresholds: Surviving Sepsis Campaign 2021, ADA consensus
on hyperglycaemic crises, restrictive transfusion at 7 g/dL; from memory (k)). It reads what is charted and nothing
else, so with `confounding=0` what it orders depends on the chart alone. Above 0 it also acts on a severity that no
chart shows, as a good eye at the bedside does: sicker patients get more and earlier, which biases whoever learns
effects from its record.

`variation` makes colleagues of it: doses, thresholds and zeal for tests then differ by patient and by step, as
functions of keys, so that a record of its orders has the overlap that learning needs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ward.bedside import BedsideChart, Decisions
from world_models.protocol import Chart
from world_models.quantities.ward import (
    INQUIRIES,
    INTERVENTIONS,
    ORDERS,
    inquiry_index,
)

__all__ = ["clinician"]

# hours between two of a test, for a calm and for an unstable patient
_INTERVALS: dict[str, tuple[float, float]] = {
    **{q.name: (24.0, 8.0) for q in INQUIRIES if q.kind == "chemistry"},
    **{q.name: (24.0, 12.0) for q in INQUIRIES if q.kind == "haematology"},
    **{q.name: (72.0, 24.0) for q in INQUIRIES if q.kind == "coagulation"},
    **{q.name: (96.0, 8.0) for q in INQUIRIES if q.kind == "gas"},
    **{q.name: (0.0, 0.0) for q in INQUIRIES if q.kind == "vital"},
    "lactate_mmol_l": (48.0, 4.0),
    "crp_mg_l": (24.0, 24.0),
    "troponin_ng_l": (96.0, 48.0),
    "bnp_pg_ml": (72.0, 48.0),
    "albumin_g_dl": (72.0, 48.0),
    "alt_u_l": (72.0, 24.0),
    "bilirubin_mg_dl": (72.0, 24.0),
    "calcium_mg_dl": (48.0, 24.0),
    "magnesium_mg_dl": (48.0, 24.0),
    "phosphate_mg_dl": (48.0, 24.0),
    "beta_hydroxybutyrate_mmol_l": (200.0, 200.0),
    "blood_culture": (400.0, 400.0),
    "urine_culture": (400.0, 400.0),
}

# yes or no, whole units, and settings read off a monitor do not vary with taste
_SETTLED = ("endoscopy", "oxygen_fraction", "ventilation_l_min", "red_cells_units", "plasma_units", "platelets_units")
# heparin: 5,000 units thrice a day in 100 kg, the usual infusion, and what tells them apart
PROPHYLAXIS_U_KG_H, THERAPY_U_KG_H, THERAPEUTIC_FROM = 6.0, 18.0, 9.5
DOSE_LOG_SD, DOSE_LOG_LIMIT = 0.25, 0.6  # of all other doses between colleagues, at variation 1


@lru_cache(maxsize=8)
def _interval_rows(device: torch.device) -> tuple[Tensor, Tensor]:
    calm = torch.tensor([_INTERVALS[q.name][0] for q in INQUIRIES], device=device)
    busy = torch.tensor([_INTERVALS[q.name][1] for q in INQUIRIES], device=device)
    return calm, busy


@lru_cache(maxsize=8)
def _limits(device: torch.device) -> tuple[Tensor, Tensor]:
    """Largest amounts [J], and which interventions are settled, bool [J]."""
    highest = torch.tensor([float(q.high) for q in INTERVENTIONS], device=device)
    return highest, torch.tensor([q.name in _SETTLED for q in INTERVENTIONS], device=device)


def clinician(
    chart: Chart,
    hours_per_step: float = 4.0,
    confounding: float = 0.0,
    severity: Tensor | None = None,
    key: Tensor | None = None,
    t: Tensor | None = None,
    variation: float = 0.0,
) -> Tensor:
    """Orders [B, A] in the columns of `quantities.ward.ORDERS`.

    Args:
        chart: of a ward world (`ward.MEASURES`).
        hours_per_step: of that world; amounts are those of one step.
        confounding: 0 .. 1, how far the orders follow `severity` beyond the chart.
        severity: [B] in 0..1, hidden (`WardOracle.truth(state)["severity"]`); needed if confounding > 0.
        key, t: int64 [B], where the variation between colleagues comes from; needed if variation > 0.
        variation: 0 .. 1, its size.

    Raises:
        ValueError: confounding without severity, or variation without key and t.
    """
    view = BedsideChart(chart)
    nothing = torch.zeros_like(chart["hours"])
    alarm = nothing
    if confounding > 0:
        if severity is None:
            raise ValueError(
                f"confounding={confounding} needs the hidden severity [B]; pass truth(state)['severity'] or use 0"
            )
        alarm = severity.to(nothing.dtype) * confounding
    style = torch.zeros(len(nothing), 3, device=nothing.device)
    mood = torch.zeros(len(nothing), len(ORDERS), device=nothing.device)
    if variation > 0:
        if key is None or t is None:
            raise ValueError(f"variation={variation} needs key and t, int64 [B]; pass state.key and state.t or use 0")
        style = keys.normal(key, 0, "clinician/style", (3,)) * variation
        mood = keys.normal(key, t, "clinician/mood", (len(ORDERS),)) * variation
    doses = Decisions(nothing, hours_per_step)
    zeal, wet, hurry = style.unbind(-1)
    _circulation(view, doses, alarm, wet * 3.0)
    _infection(view, doses, alarm, hurry * 4.0)
    _breathing(view, doses, alarm)
    _sugar(view, doses)
    _kidneys_and_salts(view, doses, alarm)
    _blood(view, doses, alarm, wet * 0.3)
    _thrombosis(view, doses)
    doses.every("acetaminophen_mg", view, view["temperature_c"] > 38.5, 1000.0, 6.0)
    asked = _inquiries(view, alarm, zeal, hours_per_step)
    if variation > 0:
        noise = mood[:, : len(INQUIRIES)]
        asked = (asked | (noise > 2.0 * max(variation, 0.5))) & (noise > -2.0 * max(variation, 0.5))
    decided = doses.columns()
    taste = (mood[:, len(INQUIRIES) :] * DOSE_LOG_SD).clamp(-DOSE_LOG_LIMIT, DOSE_LOG_LIMIT).exp()
    highest, settled = _limits(nothing.device)
    amounts = torch.where(settled, decided, decided * taste).minimum(highest)
    here = ((chart["alive"] > 0.5) & (chart["discharged"] < 0.5)).unsqueeze(-1)
    return torch.cat([asked.to(nothing.dtype), amounts], -1) * here


def _wet_lungs(view: BedsideChart) -> Tensor:
    return (view["bnp_pg_ml"] > 350.0) | ((view["chronic_heart_failure"] > 0.5) & (view["spo2_percent"] < 92.0))


def _circulation(view: BedsideChart, doses: Decisions, alarm: Tensor, wet: Tensor) -> None:
    pressure, lactate = view["map_mmhg"], view["lactate_mmol_l"]
    low = pressure < 65.0 + alarm * 8.0 + wet
    poor = (lactate > 3.0) & (view.age("lactate_mmol_l") < 12.0)
    fast = view["heart_rate_bpm"] > 110.0
    dry = ~_wet_lungs(view)
    early = view["hours"] < 12.0
    scale = doses.hours / 4.0
    bolus = ((low | poor) & early & dry, 1000.0 * (1.0 + alarm * 0.6) * scale)
    doses.give("ringers_lactate_ml", *bolus)
    doses.give("ringers_lactate_ml", low & ~early & dry, 500.0 * scale)
    doses.give("ringers_lactate_ml", low & ~dry, 250.0 * scale)
    oliguria = (view["urine_output_ml_h"] < 0.4 * view["weight_kg"]) & (view.age("urine_output_ml_h") < 9.0)
    doses.give(
        "ringers_lactate_ml", oliguria & dry & (view["hours"] < 30.0) & (view["creatinine_mg_dl"] < 6.0), 500.0 * scale
    )
    bleeding = view.complains("bleeding")
    doses.give("saline_ml", bleeding & (low | fast) & early & dry, 1000.0 * scale)

    now = view.running("norepinephrine_ug_kg_min")
    error = 68.0 + alarm * 4.0 - pressure
    wanted = now + error.clamp(-20.0, 25.0) * 0.008 * (1.0 + now * 2.0) * (1.0 + alarm * 0.5)
    start = (pressure < 60.0) | (low & (view["hours"] >= 4.0))
    use = (now > 0.0) | start
    wanted = torch.where(wanted < 0.025, 0.0, wanted.clamp(0.0, 1.5))
    doses.give("norepinephrine_ug_kg_min", use, wanted)
    deep = wanted > 0.25 - alarm * 0.08
    held = (view.running("vasopressin_units_min") > 0.0) & (wanted > 0.10)
    doses.give("vasopressin_units_min", use & (deep | held), 0.03)
    doses.every("hydrocortisone_mg", view, use & (deep | held), 50.0, 6.0)
    calm = (view["heart_rate_bpm"] > 125.0) & (pressure > 85.0) & (lactate < 2.2) & (view["temperature_c"] < 38.0)
    doses.every("metoprolol_mg", view, calm, 5.0, 6.0)


def _infection(view: BedsideChart, doses: Decisions, alarm: Tensor, hurry: Tensor) -> None:
    hot = view["temperature_c"] > 38.0
    crp, white = view["crp_mg_l"], view["white_cells_k_ul"]
    inflamed = (crp > 70.0 - hurry * 5.0) | ((white > 12.5) & (crp > 30.0))
    cultures = view["blood_culture"].maximum(view["urine_culture"])
    known = cultures > 0.5
    shock = (view["map_mmhg"] < 65.0 + alarm * 8.0) | (view["lactate_mmol_l"] > 3.5) | (alarm > 0.45)
    suspect = view.complains("fever") | (hot & (view["hours"] < 36.0)) | (hot & inflamed)
    suspect = (
        suspect | (inflamed & view.complains("dyspnoea")) | (inflamed & shock) | known | (inflamed & (crp > 130.0))
    )
    treated = torch.stack(
        [view.since(n) for n in ("piperacillin_tazobactam_g", "ceftriaxone_g", "meropenem_g", "vancomycin_mg")], -1
    ).amin(-1)
    going = (treated < 26.0) & ((crp > 45.0) | hot | (view["hours"] < 72.0) | (white > 12.5))
    treat = suspect | going
    failing = (view["hours"] > 44.0) & (inflamed & (crp > 110.0)) & (hot | shock)
    kidneys = (view["creatinine_mg_dl"] > 2.2).to(crp.dtype)
    lung = view.complains("dyspnoea") | (view["spo2_percent"] < 92.0)
    broad = shock | failing | ((crp > 190.0) & ~lung)
    # what grew decides; before that, what the patient looks like
    gram_positive, mrsa = cultures == 1.0, cultures == 2.0
    negative, resistant = cultures == 3.0, cultures == 4.0
    doses.every("meropenem_g", view, treat & (resistant | (failing & ~known)), 1.0, 8.0)
    doses.every("piperacillin_tazobactam_g", view, treat & ~known & broad & ~failing, 4.5, 8.0)
    narrow = treat & ((~known & ~broad) | gram_positive | negative)
    doses.every("ceftriaxone_g", view, narrow, 2.0, 24.0)
    cover = treat & (mrsa | (~known & broad))
    dose = view["weight_kg"] * 15.0 * (1.0 - kidneys * 0.35)
    due = view.since("vancomycin_mg") + doses.hours >= 12.0 + kidneys * 24.0
    doses.give("vancomycin_mg", cover & due, dose)


def _breathing(view: BedsideChart, doses: Decisions, alarm: Tensor) -> None:
    saturation, now = view["spo2_percent"], view.running("oxygen_fraction").clamp_min(0.21)
    wanted = now + torch.where(saturation < 88.0, 0.25, torch.where(saturation < 91.5, 0.12, 0.0)) * (1.0 + alarm * 0.3)
    wanted = wanted - torch.where(saturation >= 96.0, 0.15, torch.where(saturation >= 94.0, 0.06, 0.0))
    wanted = wanted.clamp(0.21, 1.0)
    doses.give("oxygen_fraction", wanted > 0.235, wanted)
    machine = view.running("ventilation_l_min")
    on = machine > 0.5
    gas = view.age("pco2_mmhg") < 14.0
    tired = gas & (view["pco2_mmhg"] > 62.0) & (view["ph"] < 7.24)
    hypoxic = (saturation < 87.0) & (now >= 0.55)
    start = tired | hypoxic | (view["gcs"] <= 8.0)
    stay = on & ((saturation < 92.0) | (now > 0.45) | (view["gcs"] < 10.0) | (view["map_mmhg"] < 58.0))
    want = view["weight_kg"] * 0.11
    high = torch.where(gas & on, ((view["pco2_mmhg"] - 42.0) * 0.02).clamp(-0.3, 0.6), 0.0)
    want = torch.where(on, machine * (1.0 + high), want).clamp(4.0, 18.0)
    doses.give("ventilation_l_min", start | stay, want)


def _sugar(view: BedsideChart, doses: Decisions) -> None:
    glucose, ketones, weight = view["glucose_mg_dl"], view["beta_hydroxybutyrate_mmol_l"], view["weight_kg"]
    potassium, diabetic = view["potassium_mmol_l"], view["diabetes"] > 0.5
    scale = doses.hours / 4.0
    acidotic = (ketones > 1.5) & (view.age("beta_hydroxybutyrate_mmol_l") < 30.0)
    crisis = acidotic & diabetic & ((view["bicarbonate_mmol_l"] < 18.0) | (glucose > 250.0) | (ketones > 3.0))
    early = view.complains("hyperglycaemia") & (view["hours"] < 1.0)
    # with a sugar an hour 0.1 U/kg/h goes on to 250 mg/dL; who sees it once a long step must slow down sooner
    ahead = 60.0 + 20.0 * min(doses.hours, 4.0)
    rate = torch.where(glucose > 230.0 + ahead, 0.10, torch.where(glucose > 150.0 + ahead, 0.055, 0.028)) * weight
    rate = torch.where(early, 0.085 * weight, rate)
    doses.give("insulin_units_h", (crisis | early) & (potassium > 3.3), rate)
    fast = crisis & (glucose > 260.0) & (view["hours"] < 20.0)
    doses.give("saline_ml", fast | early, (1000.0 + 500.0 * early) * scale)
    doses.give("ringers_lactate_ml", crisis & (glucose <= 260.0) & (view["hours"] < 40.0), 500.0 * scale)
    doses.give("dextrose_g", crisis & (glucose < 150.0 + ahead), 20.0 * scale)
    doses.give("dextrose_g", crisis & (glucose < 80.0 + ahead), 40.0 * scale)
    passing = view["urine_output_ml_h"] > 25.0
    doses.give("potassium_chloride_mmol", (crisis | early) & (potassium < 5.1) & passing, 20.0 * scale)
    doses.give("potassium_chloride_mmol", crisis & (potassium < 4.0), 40.0 * scale)
    # afterwards, and for other diabetics with high sugar: a running supply, led by the sugar, never quite stopped
    now = view.running("insulin_units_h")
    given = view.since("insulin_units_h") < 90.0
    dependent = diabetic & ((view.complains("hyperglycaemia") & (view["hours"] > 1.0)) | given) & ~crisis
    fresh = (view.age("glucose_mg_dl") < 9.0).to(glucose.dtype)
    led = torch.where(now > 3.6, 1.2, now) + (glucose - 150.0).clamp(-120.0, 200.0) * 0.004 * fresh
    led = torch.where(glucose < 100.0, led * 0.6, led).clamp(0.45, 3.4)
    doses.give("insulin_units_h", dependent | ((glucose > 200.0) & ~crisis), led)
    doses.give("dextrose_g", given & (glucose < 95.0), 15.0 * scale)
    low = glucose < 70.0
    doses.stop("insulin_units_h", low & ~dependent)
    doses.give("dextrose_g", low, 30.0)


def _kidneys_and_salts(view: BedsideChart, doses: Decisions, alarm: Tensor) -> None:
    potassium, sodium, creatinine = view["potassium_mmol_l"], view["sodium_mmol_l"], view["creatinine_mg_dl"]
    recent = view.age("potassium_mmol_l") < 14.0
    scale = doses.hours / 4.0
    doses.give("potassium_chloride_mmol", recent & (potassium < 3.6) & (creatinine < 4.0), 40.0 * scale)
    doses.give("potassium_chloride_mmol", recent & (potassium < 3.2), 60.0 * scale)
    doses.stop("potassium_chloride_mmol", potassium > 5.2)
    high = recent & (potassium > 6.0)
    doses.give("calcium_gluconate_g", recent & (potassium > 6.5), 2.0)
    doses.give("insulin_units_h", high & (view["glucose_mg_dl"] > 90.0), 0.9)
    doses.give("dextrose_g", high & (view["glucose_mg_dl"] < 250.0), 45.0)
    day = view.age("magnesium_mg_dl") < 30.0
    doses.every("magnesium_sulfate_g", view, day & (view["magnesium_mg_dl"] < 1.6), 2.0, 12.0)
    doses.every("sodium_phosphate_mmol", view, day & (view["phosphate_mg_dl"] < 1.8), 15.0, 12.0)
    doses.every("calcium_gluconate_g", view, day & (view["calcium_mg_dl"] < 7.4), 2.0, 12.0)
    doses.give("water_ml", sodium > 147.0, 500.0 * scale)
    acid = (view["ph"] < 7.15) & (view.age("ph") < 9.0) & (view["beta_hydroxybutyrate_mmol_l"] < 3.0)
    doses.give("bicarbonate_mmol", acid, 100.0)

    wet = _wet_lungs(view)
    needs = (view.running("oxygen_fraction") > 0.235) | (view["spo2_percent"] < 93.0) | (view["bnp_pg_ml"] > 700.0)
    loop = wet & needs & (view["map_mmhg"] > 64.0) & (sodium < 149.0)
    amount = torch.where(creatinine > 1.8, 80.0, 40.0) * (1.0 + alarm * 0.5)
    doses.every("furosemide_mg", view, loop, amount, 8.0)

    on = view.running("renal_replacement_ml_kg_h") > 0.0
    oliguric = (view["urine_output_ml_h"] < 0.35 * view["weight_kg"]) & (view["hours"] > 5.0)
    failed = (creatinine > 3.0) | ((creatinine > 2.0) & oliguric)
    start = failed & ((recent & (potassium > 6.4)) | (view["urea_nitrogen_mg_dl"] > 110.0 - alarm * 20.0))
    start = start | (failed & (view["ph"] < 7.18) & (view.age("ph") < 9.0)) | (failed & oliguric & wet)
    start = start & (view["beta_hydroxybutyrate_mmol_l"] < 3.0)
    stay = on & ((potassium > 5.3) | (view["urea_nitrogen_mg_dl"] > 50.0) | (oliguric & (creatinine > 1.5)))
    dialysed = start | stay
    doses.give("renal_replacement_ml_kg_h", dialysed, 25.0)
    doses.give("ultrafiltration_ml_h", dialysed & wet & (view["map_mmhg"] > 68.0), 120.0)


def _blood(view: BedsideChart, doses: Decisions, alarm: Tensor, liberal: Tensor) -> None:
    bleeding = view.complains("bleeding")
    haemoglobin = view["haemoglobin_g_dl"]
    recent = view.age("haemoglobin_g_dl") < 14.0
    frail = (view["chronic_heart_failure"] > 0.5) | bleeding
    limit = 7.0 + frail.to(haemoglobin.dtype) * 0.7 + alarm * 1.2 + liberal
    doses.give("red_cells_units", recent & (haemoglobin < limit), 1.0)
    doses.give("red_cells_units", recent & (haemoglobin < limit - 1.0), 2.0)
    collapse = bleeding & (view["map_mmhg"] < 62.0) & (view["heart_rate_bpm"] > 100.0)
    doses.give("red_cells_units", collapse, 2.0)
    doses.give("plasma_units", bleeding & (view["inr"] > 1.7), 2.0)
    doses.give("platelets_units", (bleeding & (view["platelets_k_ul"] < 50.0)) | (view["platelets_k_ul"] < 12.0), 1.0)
    doses.every("pantoprazole_mg", view, bleeding, 40.0, 12.0)
    doses.give("pantoprazole_mg", bleeding & (view["hours"] < 1.0), 80.0)
    never = view.since("endoscopy") > 95.0
    ready = (view["map_mmhg"] > 60.0) & (view["hours"] >= 3.0)
    again = (view.since("endoscopy") > 12.0) & (collapse | (view["heart_rate_bpm"] > 115.0)) & (haemoglobin < 8.5)
    doses.give("endoscopy", bleeding & ready & ((never & (view["hours"] < 60.0)) | again), 1.0)


def _thrombosis(view: BedsideChart, doses: Decisions) -> None:
    """Heparin against clots, by points as in the score of Padua (Barbar 2010); more if one seems to be in the lung."""
    oxygen, machine = view.running("oxygen_fraction"), view.running("ventilation_l_min")
    kept_in_bed = (view["gcs"] < 14.0) | (machine > 0.5) | (oxygen > 0.3) | (view["map_mmhg"] < 65.0)
    kept_in_bed = kept_in_bed | (view.running("norepinephrine_ug_kg_min") > 0.0)
    infected = (view["crp_mg_l"] > 50.0) | (view["temperature_c"] > 38.0)
    failing = (view["chronic_heart_failure"] > 0.5) | (view["bnp_pg_ml"] > 350.0)
    points = kept_in_bed * 3.0 + (view["age_years"] >= 70.0) * 1.0 + infected * 1.0 + failing * 1.0
    bleeds = view.complains("bleeding") | (view["haemoglobin_g_dl"] < 8.0) | (view["platelets_k_ul"] < 50.0)
    safe = ~bleeds & (view["inr"] < 1.8) & (view["hours"] >= 4.0)
    doses.give("heparin_units_kg_h", safe & (points >= 4.0), PROPHYLAXIS_U_KG_H)
    # short of breath with a fast heart, blowing off carbon dioxide, the right heart strained and nothing inflamed
    strained = (view["bnp_pg_ml"] > 120.0) & (view["troponin_ng_l"] > 30.0) & (view["chronic_heart_failure"] < 0.5)
    short = (view["spo2_percent"] < 93.0) | (oxygen > 0.3)
    lungs = short & (view["heart_rate_bpm"] > 100.0) & (view["pco2_mmhg"] < 36.0) & (view.age("pco2_mmhg") < 14.0)
    suspect = lungs & strained & (view["crp_mg_l"] < 80.0) & (view["hours"] > 24.0)
    treated = view.running("heparin_units_kg_h") > THERAPEUTIC_FROM
    doses.give("heparin_units_kg_h", safe & (suspect | treated), THERAPY_U_KG_H)


def _inquiries(view: BedsideChart, alarm: Tensor, zeal: Tensor, hours: float) -> Tensor:
    """bool [B, I]: what is due by its interval, and what a finding calls for."""
    calm, busy = _interval_rows(view.ages.device)
    support = (view.running("norepinephrine_ug_kg_min") > 0) | (view.running("ventilation_l_min") > 0)
    support = support | (view.running("renal_replacement_ml_kg_h") > 0)
    odd = (
        (view["map_mmhg"] < 65.0)
        | (view["spo2_percent"] < 90.0)
        | (view["gcs"] < 13.0)
        | (view["heart_rate_bpm"] > 120.0)
    )
    odd = odd | (view["lactate_mmol_l"] > 2.5) | (view["potassium_mmol_l"] > 5.6) | (view["potassium_mmol_l"] < 3.3)
    crisis = (view["beta_hydroxybutyrate_mmol_l"] > 1.5) | (view["glucose_mg_dl"] > 300.0)
    tense = (support | odd | crisis | (alarm > 0.5)).to(alarm.dtype).unsqueeze(-1)
    wait = calm + (busy - calm) * tense
    wait = wait * (1.0 - alarm * 0.3).unsqueeze(-1) * (zeal * -0.3).exp().unsqueeze(-1)
    due = view.ages + hours >= wait
    columns = list(due.unbind(-1))

    def also(name: str, when: Tensor, every: float) -> None:
        index = inquiry_index(name)
        columns[index] = columns[index] | (when & (view.age(name) + hours >= every))

    for name in ("glucose_mg_dl", "potassium_mmol_l", "sodium_mmol_l", "chloride_mmol_l", "bicarbonate_mmol_l"):
        also(name, crisis, 4.0)
    also("anion_gap_mmol_l", crisis, 4.0)
    also("glucose_mg_dl", view.since("insulin_units_h") < 48.0, 4.0)
    also("potassium_mmol_l", view["potassium_mmol_l"] > 5.6, 4.0)
    also("beta_hydroxybutyrate_mmol_l", crisis | view.complains("hyperglycaemia"), 8.0)
    also("beta_hydroxybutyrate_mmol_l", (view["diabetes"] > 0.5) & (view["glucose_mg_dl"] > 250.0), 12.0)
    bleeding = view.complains("bleeding") & (view["hours"] < 72.0)
    for name in ("haemoglobin_g_dl", "haematocrit_percent"):
        also(name, bleeding, 6.0)
    for name in ("inr", "ptt_s", "platelets_k_ul"):
        also(name, bleeding, 24.0)
    also("ptt_s", view.running("heparin_units_kg_h") > THERAPEUTIC_FROM, 6.0)
    short = (view["spo2_percent"] < 92.0) | (view.running("oxygen_fraction") > 0.4)
    acid = view["bicarbonate_mmol_l"] < 17.0
    for name in ("ph", "pco2_mmhg", "po2_mmhg"):
        also(name, short | acid, 8.0)
    hot = (view["temperature_c"] > 38.0) | view.complains("fever") | (view["crp_mg_l"] > 100.0)
    also("blood_culture", hot, 48.0)
    also("urine_culture", hot, 72.0)
    also("bnp_pg_ml", view["bnp_pg_ml"] > 300.0, 24.0)
    return torch.stack(columns, -1)
