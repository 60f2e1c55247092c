"""From the ten modelled endpoints to what the chart shows: soft limits, and the identities between intervals."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS

__all__ = ["chart_intervals", "limited", "rate_and_qtcf"]

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


@lru_cache(maxsize=8)
def _limits(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Low limit, high limit and softness, [10] each."""
    rows = torch.tensor([_LIMITS[n] for n in ENDPOINTS], device=device)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def limited(now: Tensor) -> Tensor:
    """Endpoints [B, 10] in their own units, brought softly within their limits, J-Tpeak c to what the longest and
    shortest QT leave, and ERD_30 and LRD_30 to what J-Tpeak and Tpeak-Tend leave."""
    low, high, soft = _limits(now.device)
    inner = torch.minimum(torch.maximum(now, low + soft), high - soft)
    now = inner + soft * ((now - inner) / soft).tanh()
    rate, pr, qrs, jtpc, tail, amplitude, asymmetry, flatness, erd, lrd = (c.contiguous() for c in now.unbind(-1))
    log = log_rr(rate)
    other = qrs + tail
    longest = _LONGEST_QT_MS - other
    shortest = torch.maximum(_SHORTEST_QTCF_MS * qt_scale(log), torch.full_like(other, _SHORTEST_QT_MS)) - other
    stretch = jt_peak_scale(log)
    jt_peak = torch.maximum(torch.minimum(jtpc * stretch, longest), shortest)
    erd, lrd = torch.minimum(erd, _MOST_ERD_SHARE * jt_peak), torch.minimum(lrd, _MOST_LRD_SHARE * tail)
    return torch.stack((rate, pr, qrs, jt_peak / stretch, tail, amplitude, asymmetry, flatness, erd, lrd), -1)


def rate_and_qtcf(now: Tensor) -> tuple[Tensor, Tensor]:
    """Heart rate in bpm and QTcF in ms [B] of the endpoints [B, 10], as `chart_intervals` gives them."""
    rate, _, qrs, jtpc, tail, *_ = (c.contiguous() for c in now.unbind(-1))
    log = log_rr(rate)
    return rate, (qrs + jtpc * jt_peak_scale(log) + tail) / qt_scale(log)


def chart_intervals(now: Tensor) -> dict[str, Tensor]:
    """All intervals and T-wave measures of the chart [B] from the endpoints [B, 10] by the identities."""
    rate, pr, qrs, jtpc, tail, *t_wave = (c.contiguous() for c in now.unbind(-1))
    log = log_rr(rate)
    jt_peak = jtpc * jt_peak_scale(log)
    qt = qrs + jt_peak + tail
    return {
        "heart_rate_bpm": rate,
        "pr_ms": pr,
        "qrs_ms": qrs,
        "qt_ms": qt,
        "qtcf_ms": qt / qt_scale(log),
        "jt_peak_ms": jt_peak,
        "jt_peak_c_ms": jtpc,
        "tpeak_tend_ms": tail,
        **dict(zip(T_ENDPOINTS, t_wave, strict=True)),
    }
