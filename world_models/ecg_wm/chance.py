"""How much of a prediction's spread is chance from moment to moment, and how much that the patient is not known.

Chance is what the residual alone varies by (`log_noise`, its standard deviation over hours), brought to the chart's
units by the delta method, times a factor a measure that calibration finds by nested particles
(`world_models.uncertainty.decompose`): the sampled residual also varies by what the prior gets wrong. It is that of a
moment about which nothing recent is known; minutes after an ECG it is less. Like the spread it is that of an ECG whose
rhythm is given: that fibrillation comes and goes is no part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import gradients
from world_models.constants import constant
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT, jt_peak_scale, log_rr, qt_scale
from world_models.ecg_wm.latent import COORDINATES, SCALE
from world_models.ecg_wm.state import Present
from world_models.protocol import Parts

__all__ = ["chance_sd", "split"]


def chance_sd(present: Present, log_noise: Tensor) -> dict[str, Tensor]:
    """Standard deviation [B] in the chart's unit of each measure's residual; `log_noise` [COORDS] is that of u."""
    chart = present.intervals
    noise = log_noise.exp() * constant(SCALE, log_noise.device)
    like = torch.ones_like(chart["qtcf_ms"])
    sd = {name: like * noise[i] for i, name in enumerate(COORDINATES)}
    own, fast = sd["heart_rate_bpm"], sd.pop("fibrillation_rate_bpm")
    sd["heart_rate_bpm"] = torch.where(present.fibrillating, fast, own)
    sd["t_amplitude_uv"] = sd["t_amplitude_uv"] * chart["t_amplitude_uv"]
    sd["t_asymmetry"] = sd["t_asymmetry"] * 2.0 * chart["t_asymmetry"].sqrt()
    # QTcF = (QRS + Tpeak-Tend) RR^(-1/3) + J-Tpeak c RR^(0.58 - 1/3)
    log = log_rr(chart["heart_rate_bpm"])
    shrink = 1.0 / qt_scale(log)
    stretch = jt_peak_scale(log) * shrink
    ends = (chart["qrs_ms"] + chart["tpeak_tend_ms"]) * shrink * QT_EXPONENT
    by_rate = (ends - chart["jt_peak_c_ms"] * stretch * (JT_PEAK_EXPONENT - QT_EXPONENT)) / chart["heart_rate_bpm"]
    # in fibrillation QTcF is that of sinus rhythm, whatever the rate
    by_rate = torch.where(present.fibrillating, 0.0, by_rate)
    each = (by_rate * own, shrink * sd["qrs_ms"], stretch * sd["jt_peak_c_ms"], shrink * sd["tpeak_tend_ms"])
    sd["qtcf_ms"] = torch.stack(each).square().sum(0).sqrt()
    return sd


def split(spread: dict[str, Tensor], chance: dict[str, Tensor], scale: Tensor) -> dict[str, Parts]:
    """Parts [B] of each measure in `spread`, whose chance counts `scale` times, a row of it a measure.

    Chance above the whole spread is cut to it: nothing is left then.
    """
    whole = torch.stack(list(spread.values()))  # all measures at once: one by one they cost more than the spread
    part = torch.minimum(torch.stack([chance[name] for name in spread]) * scale.unsqueeze(-1), whole)
    rest = gradients.root(whole * whole - part * part)
    return {name: Parts(*each) for name, *each in zip(spread, whole, rest, part, strict=True)}
