"""From the ten modelled endpoints to what the chart shows: soft limits, and the identities between intervals."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from world_models.ecg.intervals import rr_scales
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fibrillation import Fibrillation
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS
from world_models.protocol import Chart

__all__ = ["chart_intervals", "limited"]

# (low, high, softness): identity between low + softness and high - softness, tanh to the limits beyond. Within them a
# chart value cannot leave its Quantity's bounds and the synthesised ECG holds every wave.
_LIMITS = {
    "heart_rate_bpm": (35.0, 165.0, 5.0),
    "pr_ms": (70.0, 440.0, 10.0),
    "qrs_ms": (50.0, 210.0, 10.0),
    "jt_peak_c_ms": (91.0, 500.0, 9.0),
    "tpeak_tend_ms": (30.0, 195.0, 10.0),
    "t_amplitude_uv": (30.0, 2900.0, 15.0),
    "t_asymmetry": (0.0, 2.9, 0.001),
    "t_flatness": (0.05, 0.95, 0.05),
    "erd_30_ms": (8.0, 240.0, 5.0),
    "lrd_30_ms": (6.0, 190.0, 4.0),
}
# The early part of a T wave is shorter than J-Tpeak, the late one than Tpeak-Tend. Drawn waves reach 0.68 of it
# (`ecg.t_synthesis`), the trial's lie between 0.15 and 0.72.
_MOST_ERD_SHARE, _MOST_LRD_SHARE = 0.75, 0.75
_LONGEST_QT_MS = 745.0  # the waveform's window ends at 750
_SHORTEST_QT_MS, _SHORTEST_QTCF_MS = 151.0, 201.0  # the chart's lowest are 150 and 200
_SHORTEST_JT_PEAK_MS = 80.0  # in fibrillation


@lru_cache(maxsize=8)
def _limits(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the identity ends below and above, and the softness, [10, 1] each."""
    with torch.inference_mode(False):  # kept beyond this call
        rows = torch.tensor([_LIMITS[n] for n in ENDPOINTS], device=device)
        low, high, soft = (rows[:, i : i + 1].contiguous() for i in range(3))
        return low + soft, high - soft, soft


def limited(now: Tensor) -> tuple[Tensor, Tensor]:
    """Endpoints as rows [10, B], in their own units, brought softly within their limits, J-Tpeak c to what the longest
    and shortest QT leave, and ERD_30 and LRD_30 to what J-Tpeak and Tpeak-Tend leave; and the QTcF [B] in ms of sinus
    rhythm that they make."""
    low, high, soft = _limits(now.device)
    inner = torch.clamp(now, low, high)
    now = (now - inner).div_(soft).tanh_().mul_(soft).add_(inner)
    rate, _, qrs, jtpc, tail = now[:5].unbind(0)
    by_qt, stretch = rr_scales(rate)
    other = qrs + tail
    shortest = (by_qt * _SHORTEST_QTCF_MS).clamp_min(_SHORTEST_QT_MS) - other
    jt_peak = torch.maximum(torch.minimum(jtpc * stretch, _LONGEST_QT_MS - other), shortest)
    now[3] = jt_peak / stretch
    now[8] = torch.minimum(now[8], jt_peak * _MOST_ERD_SHARE)
    now[9] = torch.minimum(now[9], tail * _MOST_LRD_SHARE)
    return now, (other + jt_peak) / by_qt


def chart_intervals(now: Tensor, fibrillation: Fibrillation) -> Chart:
    """All intervals and T-wave measures of the chart [B] from the endpoints [B, 10] by the identities.

    In fibrillation the rate is the ventricles' and PR is NaN; QTcF stays what it is in sinus rhythm, QT follows from it
    at the new rate, and of its parts J-Tpeak gives way.
    """
    rate, pr, qrs, jtpc, tail, *t_wave = (c.contiguous() for c in now.unbind(-1))
    by_qt, stretch = rr_scales(torch.stack((rate, fibrillation.rate_bpm)))
    jt_peak = jtpc * stretch[0]
    qt = qrs + jt_peak + tail
    qtcf = qt / by_qt[0]
    other = qrs + tail
    then = (qtcf * by_qt[1] - other).clamp_min(_SHORTEST_JT_PEAK_MS)
    then_qt = other + then
    sinus = torch.stack((rate, pr, qt, qtcf, jt_peak, jtpc))
    nothing = torch.full_like(pr, torch.nan)
    waving = torch.stack((fibrillation.rate_bpm, nothing, then_qt, then_qt / by_qt[1], then, then / stretch[1]))
    rate, pr, qt, qtcf, jt_peak, jtpc = torch.where(fibrillation.shown > 0, waving, sinus).unbind(0)
    return {
        "heart_rate_bpm": rate,
        "pr_ms": pr,
        "qrs_ms": qrs,
        "qt_ms": qt,
        "qtcf_ms": qtcf,
        "jt_peak_ms": jt_peak,
        "jt_peak_c_ms": jtpc,
        "tpeak_tend_ms": tail,
        **dict(zip(T_ENDPOINTS, t_wave, strict=True)),
        "atrial_fibrillation": fibrillation.shown,
    }
