"""What verapamil, and a little quinidine, do besides: block of the atrioventricular node, slow rate, low pressure.

All of it is exact in steps of any length and a function of the key: the slow process is an Ornstein-Uhlenbeck one, all
else follows what is in the plasma now. Nothing happens at admission: nobody is admitted in block.

- **Atrioventricular block** (second or third degree) is there while a standard normal process of a node's conduction
  (time constant `NODE_HOURS`) lies below a threshold that rises with PR and with verapamil. Oral verapamil: 0.8 % of
  4,954 patients (Calan label); hardly ever without (`benchmarks.ecg_drug.probes` prints both). The chart's rate and
  the drawn ECG stay those of conducted beats.
- **Rate.** In the trial's volunteers verapamil speeds the sinus node by reflex, which the fit holds; older patients,
  whose reflex is weak, are slowed a little (`ECGDrugCohort.verapamil_reflex`), and a cohort's share with sinus node
  disease by up to `SLOWING_BPM` more (1.4 % of patients fell below 50 bpm: label).
- **Systolic pressure**: the person's own, the day's course (lower by 10 mmHg at night), variation between readings,
  less `VERAPAMIL_MMHG` and `QUINIDINE_MMHG` of two Hill curves (the slow vessels' calcium channel; the alpha block of
  quinidine). 120 mg lower it by about 10 mmHg (k); hypotension in 2.5 % (label), "under 90 mmHg" here.

People differ in how strongly pressure and node answer: log-normal, from the key.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys

__all__ = ["HarmState", "advance_harms", "initial_harms", "slowing_bpm"]

NODE_HOURS = 8.0  # for so long a node conducts badly (k)
BLOCK_AT_PR_170 = 4.7  # SDs of the node's process below its mean at which conduction fails, at a PR of 170 ms
BLOCK_PER_MS = 0.011  # SDs by which each ms of PR brings the threshold nearer
BLOCK_BY_VERAPAMIL = 2.0  # SDs, at a concentration far above the half
VERAPAMIL_HALF_NG_ML = 120.0  # of pressure, node and rate: PR and pressure follow concentrations of 100 to 200 (k)
SLOWING_BPM = 25.0  # greatest, in sinus node disease
VERAPAMIL_MMHG = 17.0
QUINIDINE_MMHG, QUINIDINE_HALF_NG_ML = 8.0, 3000.0
DAY_MMHG, HIGHEST_HOUR = 5.0, 15.0  # half the difference of day and night, when it is highest
READING_MMHG = 4.5  # SD between readings an hour apart (k)
ANSWER_LOG_SD = 0.35  # between people
LIMITS_MMHG = (45.0, 250.0)


class HarmState(NamedTuple):
    """What the harms hang on, and whether they are there now. Float32 [B]."""

    own_mmhg: Tensor  # systolic pressure without drug, time of day and variation
    pressure_answer: Tensor  # multiplier of the drugs' effect on pressure
    node_answer: Tensor  # multiplier of verapamil's effect on the atrioventricular node
    sinus_disease: Tensor  # 0, or the multiplier of verapamil's effect on the sinus node
    conduction: Tensor  # the node's process, standard normal
    systolic_bp_mmhg: Tensor
    av_block: Tensor  # 0 or 1


@lru_cache(maxsize=32)
def _pace(hours: float) -> tuple[float, float]:
    """What a step leaves of the node's process, and the SD of what it adds."""
    keep = math.exp(-hours / NODE_HOURS)
    return keep, math.sqrt(1.0 - keep * keep)


def _moment_mmhg(chance: Tensor, clock_hour: Tensor) -> Tensor:
    """What time of day and variation, a standard normal [B], add, [B]."""
    return ((clock_hour - HIGHEST_HOUR) * (2.0 * math.pi / 24.0)).cos() * DAY_MMHG + chance * READING_MMHG


def _answer(key: Tensor, name: str) -> Tensor:
    return (keys.normal(key, 0, f"harms/{name}") * ANSWER_LOG_SD).exp()


def initial_harms(
    key: Tensor, baseline_mmhg: Tensor, admission_clock_hour: Tensor, sinus_disease_share: float
) -> HarmState:
    """Patients [B] at admission, whose reading is `baseline_mmhg`; a share of them has sinus node disease."""
    reading, conduction = keys.normal(key, 0, "harms", (2,)).unbind(-1)
    ill = (keys.uniform(key, 0, "harms/sinus disease") < sinus_disease_share).to(torch.float32)
    return HarmState(
        own_mmhg=baseline_mmhg - _moment_mmhg(reading, admission_clock_hour),
        pressure_answer=_answer(key, "pressure answer"),
        node_answer=_answer(key, "node answer"),
        sinus_disease=ill * _answer(key, "sinus answer"),
        conduction=conduction.contiguous(),
        systolic_bp_mmhg=baseline_mmhg,
        av_block=torch.zeros_like(baseline_mmhg),
    )


def _filled(concentration_ng_ml: Tensor, half_ng_ml: float) -> Tensor:
    return concentration_ng_ml / (concentration_ng_ml + half_ng_ml)


def slowing_bpm(harms: HarmState, verapamil_ng_ml: Tensor) -> Tensor:
    """By how much verapamil at this plasma concentration lowers the sinus rate [B], bpm: 0 in a healthy sinus node."""
    return harms.sinus_disease * _filled(verapamil_ng_ml, VERAPAMIL_HALF_NG_ML) * SLOWING_BPM


def advance_harms(
    key: Tensor,
    t: Tensor,
    harms: HarmState,
    pr_ms: Tensor,
    verapamil_ng_ml: Tensor,
    quinidine_ng_ml: Tensor,
    clock_hour: Tensor,
    hours: float,
) -> HarmState:
    """The harms `hours` later.

    Args:
        key, t: int64 [B]; t numbers the step that ends now.
        pr_ms: [B] of the new chart; where it is NaN (no P wave) there is no block.
        verapamil_ng_ml, quinidine_ng_ml: [B] in plasma at the step's end.
        clock_hour: [B] then.
    """
    keep, shock = _pace(hours)
    reading, change = keys.normal(key, t, "harms", (2,)).unbind(-1)
    conduction = harms.conduction * keep + change * shock
    verapamil = _filled(verapamil_ng_ml, VERAPAMIL_HALF_NG_ML)
    threshold = (pr_ms - 170.0) * BLOCK_PER_MS + verapamil * harms.node_answer * BLOCK_BY_VERAPAMIL - BLOCK_AT_PR_170
    drugs = verapamil * VERAPAMIL_MMHG + _filled(quinidine_ng_ml, QUINIDINE_HALF_NG_ML) * QUINIDINE_MMHG
    pressure = harms.own_mmhg + _moment_mmhg(reading, clock_hour) - drugs * harms.pressure_answer
    return harms._replace(
        conduction=conduction,
        systolic_bp_mmhg=pressure.clamp(*LIMITS_MMHG),
        av_block=(conduction < threshold).to(torch.float32),
    )
