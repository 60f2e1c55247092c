"""Inquiries: when a specimen is collected, what its result is, and when it comes.

Vital signs are read at the end of the step. Cultures are collected at its beginning, before what is ordered with them.
All other tests share one venepuncture of the step, at a random half hour in its first three fifths, and come back after
the time of their kind; what comes after the step's end is pending. A second order while one is pending is refused (it
would be cancelled as a duplicate), one specimen in fifty is lost and never comes.

Noise: log-normal, a biological part that moves slowly (Ornstein-Uhlenbeck, 24 h) and an analytical part of every
specimen; what is measured together shares it (haematocrit and haemoglobin, the three pressures). Within-person CV after
the EFLM database and Ricos 1999 (doi 10.1080/00365519950185229), analytical CV as of current analysers, all (k). CRP,
lactate and markers of inflammation have far smaller biological CV here than in the healthy (34 %, 27 %): over a stay
their movement is the disease, which the state holds.

Turnaround in hours (k): gas at the point of care 0.15; haematology 0.6; chemistry 1.0; coagulation 1.1; markers 1.3,
each times a log-normal factor of 30 %. A culture that grows is reported after 24 to 36 h, one that does not after 48 h.
It grows by the load in the patient at collection, less readily under drugs that kill the organism.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ward.body.blood import inr_of, ptt_of
from world_models.oracles.ward.body.infection import GREATEST_KILL_PER_H, killing
from world_models.oracles.ward.dynamics import TICK_H, concentrations
from world_models.oracles.ward.luck import Luck
from world_models.oracles.ward.state import Records, WardState
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, MAX_HOURS_SINCE, inquiry_index

__all__ = ["LOST", "Specimens", "advance_biology", "blank_records", "collection_tick", "file_results", "growth"]
__all__ += ["collection_ticks", "noise_sd", "true_values"]

LOST = 0.02  # share of specimens that never give a result
BIOLOGY_H = 24.0  # time constant of the slow biological variation (k)
NEVER = 1e6
GROWTH_H, GROWTH_SPREAD_H, NO_GROWTH_H = 24.0, 12.0, 48.0  # a culture that grows is reported after 24 to 36 h (k)
TURNAROUND_LOG_SD = 0.3  # (k)

# measure -> (biological CV, analytical CV, resolution of the report)
_NOISE: dict[str, tuple[float, float, float]] = {
    "sodium_mmol_l": (0.005, 0.006, 1.0),
    "potassium_mmol_l": (0.025, 0.012, 0.1),
    "chloride_mmol_l": (0.008, 0.007, 1.0),
    "bicarbonate_mmol_l": (0.025, 0.025, 1.0),
    "urea_nitrogen_mg_dl": (0.04, 0.022, 1.0),
    "creatinine_mg_dl": (0.035, 0.022, 0.01),
    "glucose_mg_dl": (0.045, 0.02, 1.0),
    "anion_gap_mmol_l": (0.0, 0.0, 1.0),
    "calcium_mg_dl": (0.014, 0.012, 0.1),
    "magnesium_mg_dl": (0.025, 0.018, 0.1),
    "phosphate_mg_dl": (0.05, 0.018, 0.1),
    "albumin_g_dl": (0.022, 0.018, 0.1),
    "alt_u_l": (0.08, 0.03, 1.0),
    "bilirubin_mg_dl": (0.12, 0.04, 0.1),
    "beta_hydroxybutyrate_mmol_l": (0.05, 0.04, 0.01),
    "crp_mg_l": (0.06, 0.035, 0.1),
    "troponin_ng_l": (0.08, 0.04, 1.0),
    "bnp_pg_ml": (0.12, 0.04, 1.0),
    "white_cells_k_ul": (0.07, 0.02, 0.1),
    "haemoglobin_g_dl": (0.016, 0.009, 0.1),
    "haematocrit_percent": (0.016, 0.012, 0.1),
    "platelets_k_ul": (0.05, 0.025, 1.0),
    "inr": (0.025, 0.02, 0.1),
    "ptt_s": (0.025, 0.022, 0.1),
    "lactate_mmol_l": (0.06, 0.03, 0.1),
    "ph": (0.0008, 0.0007, 0.01),
    "pco2_mmhg": (0.03, 0.018, 1.0),
    "po2_mmhg": (0.04, 0.02, 1.0),
    "heart_rate_bpm": (0.015, 0.015, 1.0),
    "map_mmhg": (0.015, 0.030, 1.0),
    "sbp_mmhg": (0.015, 0.030, 1.0),
    "dbp_mmhg": (0.015, 0.030, 1.0),
    "respiratory_rate_min": (0.03, 0.08, 1.0),
    "spo2_percent": (0.003, 0.009, 1.0),
    "temperature_c": (0.002, 0.004, 0.1),
    "urine_output_ml_h": (0.0, 0.06, 1.0),
    "gcs": (0.0, 0.0, 1.0),
    "blood_culture": (0.0, 0.0, 1.0),
    "urine_culture": (0.0, 0.0, 1.0),
}
# measures that share the noise of another: (its own share, the rest is the other's)
_SHARES = {
    "haematocrit_percent": ("haemoglobin_g_dl", 0.3),
    "sbp_mmhg": ("map_mmhg", 0.35),
    "dbp_mmhg": ("map_mmhg", 0.35),
}
_BLOOD_CULTURE, _URINE_CULTURE = inquiry_index("blood_culture"), inquiry_index("urine_culture")
_ANION_GAP = inquiry_index("anion_gap_mmol_l")
_SODIUM, _CHLORIDE, _BICARBONATE = (
    inquiry_index(n) for n in ("sodium_mmol_l", "chloride_mmol_l", "bicarbonate_mmol_l")
)
_TURNAROUND_H = {"gas": 0.15, "haematology": 0.6, "chemistry": 1.0, "coagulation": 1.1, "marker": 1.3}


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> dict[str, Tensor]:
    """Constant rows [I] of this module's tables."""
    rows = [_NOISE[q.name] for q in INQUIRIES]
    shared = [_SHARES.get(q.name, (q.name, 1.0)) for q in INQUIRIES]
    kinds = [q.kind for q in INQUIRIES]

    def row(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return {
        "biological": row([r[0] for r in rows]),
        "analytical": row([r[1] for r in rows]),
        "resolution": row([r[2] for r in rows]),
        "source": torch.tensor([inquiry_index(s[0]) for s in shared], device=device),
        "own": row([s[1] for s in shared]),
        "others": row([math.sqrt(1.0 - s[1] * s[1]) if s[1] < 1.0 else 0.0 for s in shared]),
        "low": row([float(q.low) for q in INQUIRIES]),
        "high": row([float(q.high) for q in INQUIRIES]),
        "typical": row([float(q.typical) for q in INQUIRIES]),
        "turnaround": row([_TURNAROUND_H.get(k, 0.0) for k in kinds]),
        "vital": torch.tensor([k == "vital" for k in kinds], device=device),
        "culture": torch.tensor([k == "culture" for k in kinds], device=device),
    }


def blank_records(key: Tensor) -> Records:
    """Nothing was ever measured or given."""
    table = _tables(key.device)
    batch, count, doses = key.shape[0], len(INQUIRIES), len(INTERVENTIONS)
    zero = torch.zeros(batch, count, device=key.device)
    none = torch.zeros(batch, count, dtype=torch.bool, device=key.device)
    treatments = torch.zeros(batch, doses, device=key.device)
    return Records(
        value=table["typical"].expand(batch, count).clone(),
        drawn_h=zero - NEVER,
        seen=none,
        pending=none.clone(),
        pending_value=zero.clone(),
        pending_drawn_h=zero.clone(),
        pending_due_h=zero.clone(),
        biological=keys.normal(key, 0, "ward/biology at admission", (count,)),
        given=treatments,
        since_h=treatments + MAX_HOURS_SINCE,
    )


def advance_biology(records: Records, luck: Luck, hours: float) -> Records:
    """The slow biological part of every measure, a step further."""
    keep = math.exp(-hours / BIOLOGY_H)
    fresh = luck.normal("ward/biology")
    return records._replace(biological=records.biological * keep + fresh * math.sqrt(1.0 - keep * keep))


def collection_ticks(ticks: int) -> int:
    """How many half hours of a step of `ticks` blood may be collected in."""
    return max(1, int(ticks * 0.6))


def noise_sd(values: Tensor) -> Tensor:
    """Standard deviation [B, I] of one result's noise, biological and analytical, at these values."""
    table = _tables(values.device)
    variance = table["biological"] * table["biological"] + table["analytical"] * table["analytical"]
    return values.abs() * variance.sqrt()


def collection_tick(luck: Luck, ticks: int) -> Tensor:
    """The half hour of the step, int64 [B], in which blood is collected: somewhere in its first three fifths."""
    choices = collection_ticks(ticks)
    return (luck.uniform("ward/venepuncture") * choices).to(torch.int64).clamp_max(choices - 1)


def true_values(state: WardState, urine_ml_h: Tensor | None = None) -> Tensor:
    """What perfect instruments would read now, [B, I]; cultures read 0 (`growth`), the anion gap is the true one."""
    sodium, potassium, chloride, glucose, haematocrit, _, _ = concentrations(state)
    salts, kidney, blood, organs, signals = state.salts, state.kidney, state.blood, state.organs, state.signals
    haemoglobin = haematocrit * 33.5
    person = state.person
    # pulse pressure: stroke volume over the compliance that age takes away; a third of it lies above the mean
    stiff = 1.0 + (person.age_years - 50.0).clamp(-25.0, 45.0) * 0.012
    pulse = signals.stroke * 44.0 * stiff * (signals.map / person.map_mmhg).sqrt()
    pulse = pulse.clamp(10.0, 110.0).minimum(signals.map * 0.95)
    arterial = _tension(signals.saturation).minimum(signals.alveolar_po2)
    zero = torch.zeros_like(sodium)
    columns = {
        "sodium_mmol_l": sodium,
        "potassium_mmol_l": potassium,
        "chloride_mmol_l": chloride,
        "bicarbonate_mmol_l": signals.bicarbonate,
        "urea_nitrogen_mg_dl": kidney.urea,
        "creatinine_mg_dl": kidney.creatinine,
        "glucose_mg_dl": glucose * 18.02,
        "anion_gap_mmol_l": sodium - chloride - signals.bicarbonate,
        "calcium_mg_dl": salts.free_calcium_mg_dl + blood.albumin * 0.8,
        "magnesium_mg_dl": salts.magnesium_mg_dl,
        "phosphate_mg_dl": salts.phosphate_mg_dl,
        "albumin_g_dl": blood.albumin,
        "alt_u_l": organs.alt,
        "bilirubin_mg_dl": organs.bilirubin,
        "beta_hydroxybutyrate_mmol_l": state.metabolism.ketones,
        "crp_mg_l": blood.crp,
        "troponin_ng_l": organs.troponin,
        "bnp_pg_ml": organs.bnp,
        "white_cells_k_ul": blood.white_cells,
        "haemoglobin_g_dl": haemoglobin,
        "haematocrit_percent": haematocrit * 100.0,
        "platelets_k_ul": blood.platelets,
        "inr": inr_of(blood),
        "ptt_s": ptt_of(blood),
        "lactate_mmol_l": state.metabolism.lactate,
        "ph": signals.ph,
        "pco2_mmhg": state.lungs.pco2,
        "po2_mmhg": arterial,
        "heart_rate_bpm": state.circulation.heart_rate,
        "map_mmhg": signals.map,
        "sbp_mmhg": signals.map + pulse * 0.64,
        "dbp_mmhg": signals.map - pulse * 0.36,
        "respiratory_rate_min": signals.breaths,
        "spo2_percent": signals.saturation * 100.0,
        "temperature_c": state.metabolism.temperature,
        "urine_output_ml_h": signals.urine_l_h * 1000.0 if urine_ml_h is None else urine_ml_h,
        "gcs": 15.0 - organs.brain * 12.0,
        "blood_culture": zero,
        "urine_culture": zero,
    }
    return torch.stack([columns[q.name] for q in INQUIRIES], -1)


def _tension(saturation: Tensor) -> Tensor:
    """Oxygen tension in mmHg at a saturation: Severinghaus inverted (Ellis 1989, doi 10.1152/jappl.1989.67.2.902)."""
    s = saturation.clamp(0.05, 0.9975)
    a = 11700.0 / (1.0 / s - 1.0)
    root = (a * a + 125000.0).sqrt()
    up, down = root + a, (root - a).clamp_min(1e-3)
    return (up.log() * (1.0 / 3.0)).exp() - (down.log() * (1.0 / 3.0)).exp()


def growth(state: WardState, luck: Luck) -> tuple[Tensor, Tensor]:
    """Results [B] of a blood and a urine culture collected now: 0 for no growth, else the organism's index."""
    infection, person = state.infection, state.person
    square = infection.pathogen * infection.pathogen
    spared = 1.0 - killing(infection, person) * (0.85 / GREATEST_KILL_PER_H)
    blood = person.bacteraemia * square / (square + 0.6) * spared
    urine = person.urinary_site * 0.92 * square / (square + 0.05) * spared
    organism = person.organism
    in_blood = (luck.uniform("ward/blood culture") < blood).to(organism.dtype) * organism
    in_urine = (luck.uniform("ward/urine culture") < urine).to(organism.dtype) * organism
    return in_blood, in_urine


class Specimens:
    """The inquiries of one step, from order to result."""

    def __init__(self, state: WardState, asked: Tensor, luck: Luck) -> None:
        """`asked` bool [B, I]; `luck` of the step that begins now (number t + 1 of the state)."""
        self.table = _tables(state.key.device)
        self.luck = luck
        keep = luck.uniform("ward/lost specimen") >= LOST
        self.asked = asked & ~state.records.pending & (keep | self.table["vital"])
        blood, urine = growth(state, luck)
        self.cultures = {_BLOOD_CULTURE: blood, _URINE_CULTURE: urine}
        self.values = torch.zeros_like(state.records.value)

    def collect(self, state: WardState, now: Tensor) -> None:
        """Blood is collected from the rows where now [B] holds."""
        self.values = torch.where(now.unsqueeze(-1), true_values(state), self.values)

    def results(self, state: WardState, urine_ml_h: Tensor) -> Tensor:
        """Reported values [B, I], once the step has ended in `state`."""
        table = self.table
        values = torch.where(table["vital"], true_values(state, urine_ml_h), self.values)
        fresh = self.luck.normal("ward/analysis")
        fresh = fresh * table["own"] + fresh[:, table["source"]] * table["others"]
        slow = state.records.biological
        slow = slow * table["own"] + slow[:, table["source"]] * table["others"]
        noise = slow * table["biological"] + fresh * table["analytical"]
        # the anion gap is the arithmetic of its specimen
        reported = values * noise.exp()
        step = table["resolution"]
        reported = (reported / step).round() * step
        columns = list(reported.unbind(-1))
        columns[_ANION_GAP] = columns[_SODIUM] - columns[_CHLORIDE] - columns[_BICARBONATE]
        for index, value in self.cultures.items():
            columns[index] = value
        return torch.stack(columns, -1).maximum(table["low"]).minimum(table["high"])

    def times(self, collected_at: Tensor, start_h: Tensor, hours: float) -> tuple[Tensor, Tensor]:
        """Hours since admission of collection and result [B, I]; `collected_at` int64 [B]: tick of the venepuncture."""
        table = self.table
        blood = (start_h + collected_at.to(torch.float32) * TICK_H).unsqueeze(-1)
        end = (start_h + hours).unsqueeze(-1)
        collected = torch.where(table["vital"], end, torch.where(table["culture"], start_h.unsqueeze(-1), blood))
        spread = (self.luck.normal("ward/turnaround") * TURNAROUND_LOG_SD).exp()
        wait = table["turnaround"] * spread
        grows = torch.zeros_like(wait)
        positive = GROWTH_H + GROWTH_SPREAD_H * self.luck.uniform("ward/time to positivity")
        for index, value in self.cultures.items():
            grows[:, index] = torch.where(value > 0, positive, NO_GROWTH_H)
        wait = torch.where(table["culture"], grows, wait)
        return collected, collected + wait


def file_results(
    records: Records, specimens: Specimens, values: Tensor, collected: Tensor, due: Tensor, end_h: Tensor
) -> Records:
    """The chart at the step's end (hours since admission [B]): what has come is charted, the rest is pending."""
    new = specimens.asked
    pending_value = torch.where(new, values, records.pending_value)
    pending_drawn = torch.where(new, collected, records.pending_drawn_h)
    pending_due = torch.where(new, due, records.pending_due_h)
    waiting = records.pending | new
    came = waiting & (pending_due <= end_h.unsqueeze(-1))
    return records._replace(
        value=torch.where(came, pending_value, records.value),
        drawn_h=torch.where(came, pending_drawn, records.drawn_h),
        seen=records.seen | came,
        pending=waiting & ~came,
        pending_value=pending_value,
        pending_drawn_h=pending_drawn,
        pending_due_h=pending_due,
    )
