"""The physiological coordinates of the latent, and the way between them and the chart.

The latent of one ECG is (u, m): u holds six standardised coordinates that the ODE prior moves (heart rate, PR, QRS,
J-Tpeak c, Tpeak-Tend, arrhythmia burden on the logit scale) and m the shape of the beat (see `vae`). Rate-corrected
J-Tpeak stands in u because drugs act on it; QT and its corrections follow from the identities
QT = QRS + J-Tpeak + Tpeak-Tend, QTcF = QT / RR^(1/3), J-Tpeak c = J-Tpeak / RR^0.58 (RR in s).
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.constants import constant
from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale

__all__ = ["CENTRE", "COORDINATES", "SCALE", "intervals_of", "logit_burden", "standardise"]

COORDINATES = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", "arrhythmia_burden")
# Round numbers near a resting adult's mean and spread: they only set the scale the networks see.
CENTRE = (65.0, 160.0, 95.0, 225.0, 85.0, -1.0)
SCALE = (10.0, 25.0, 10.0, 20.0, 12.0, 1.0)
# Where values are clamped: beyond, no generator or network is fitted, and within, every interval derived from them lies
# inside its Quantity's bounds (the test tries the corners).
LOW = (35.0, 70.0, 60.0, 110.0, 40.0, -7.0)
HIGH = (170.0, 500.0, 200.0, 480.0, 220.0, 7.0)
LONGEST_QT_MS = 950.0


def logit_burden(burden: Tensor) -> Tensor:
    """Logit of a burden in [0, 1], cut at 1/1000 from either end (a burden of 0 carries no more than that)."""
    burden = burden.clamp(1e-3, 1 - 1e-3)
    return torch.log(burden) - torch.log1p(-burden)


def standardise(chart: dict[str, Tensor]) -> Tensor:
    """u [..., 6] of a chart's intervals and burden; NaN stays NaN."""
    columns = [chart[name] for name in COORDINATES[:-1]] + [logit_burden(chart[COORDINATES[-1]])]
    raw = torch.stack([c.to(torch.float32) for c in columns], dim=-1)
    return (raw - constant(CENTRE, raw.device)) / constant(SCALE, raw.device)


def intervals_of(u: Tensor) -> dict[str, Tensor]:
    """The chart's intervals [...] from u [..., 6]: the head on the latent. Values are clamped to LOW and HIGH."""
    scale, centre, low, high = (constant(row, u.device, u.dtype) for row in (SCALE, CENTRE, LOW, HIGH))
    # each coordinate in one run of memory
    rows = (u * scale + centre).clamp(low, high).movedim(-1, 0).contiguous()
    rate, pr, qrs, jt_c, tpte, burden = rows.unbind(0)
    log = log_rr(rate)
    stretch = jt_peak_scale(log)
    before_and_after = qrs + tpte
    jt = torch.minimum(jt_c * stretch, LONGEST_QT_MS - before_and_after)
    qt = before_and_after + jt
    return {
        "heart_rate_bpm": rate,
        "pr_ms": pr,
        "qrs_ms": qrs,
        "qt_ms": qt,
        "qtcf_ms": qt / qt_scale(log),
        "jt_peak_ms": jt,
        "jt_peak_c_ms": jt / stretch,
        "tpeak_tend_ms": tpte,
        "arrhythmia_burden": torch.sigmoid(burden),
    }
