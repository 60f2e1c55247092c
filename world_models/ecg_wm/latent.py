"""The physiological coordinates of the latent, and the way between them and the chart.

The latent of one ECG is z = (u, m): u holds the coordinates that the ODE prior moves, each on a working scale (T
amplitude by its logarithm, asymmetry by its root, burden by its logit) and standardised; m is the shape of the beat
(see `vae`). Rate-corrected J-Tpeak stands in u because drugs act on it; QT and its corrections follow from the
identities QT = QRS + J-Tpeak + Tpeak-Tend, QTcF = QT / RR^(1/3), J-Tpeak c = J-Tpeak / RR^0.58 (RR in s).

An ECG shows sinus rhythm or fibrillation, never both: of the sinus rate, PR and the rate in fibrillation a chart gives
what its rhythm has, and the others are NaN in `standardise`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.constants import constant
from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.protocol import Chart

__all__ = [
    "BURDEN",
    "CENTRE",
    "COORDINATES",
    "COORDS",
    "SCALE",
    "T_WAVE",
    "intervals_of",
    "logit_burden",
    "shown_in",
    "standardise",
]

T_WAVE = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
COORDINATES = (
    "heart_rate_bpm",  # in sinus rhythm
    "pr_ms",
    "qrs_ms",
    "jt_peak_c_ms",
    "tpeak_tend_ms",
    *T_WAVE,
    "systolic_bp_mmhg",
    "fibrillation_rate_bpm",  # of the ventricles, where the ECG shows fibrillation
    "arrhythmia_burden",
)
COORDS = len(COORDINATES)
BURDEN = COORDINATES.index("arrhythmia_burden")  # the last: it follows a drug far more slowly than the others
_AMPLITUDE, _ASYMMETRY = (COORDINATES.index(name) for name in T_WAVE[:2])
_RATE, _PR, _FIBRILLATION = (COORDINATES.index(n) for n in ("heart_rate_bpm", "pr_ms", "fibrillation_rate_bpm"))
# On the working scale. Round numbers near a resting adult's mean and spread: they only set the scale the networks see.
CENTRE = (65.0, 165.0, 95.0, 235.0, 85.0, 6.0, 0.45, 0.44, 46.0, 38.0, 130.0, 105.0, -1.0)
SCALE = (10.0, 25.0, 10.0, 20.0, 12.0, 0.4, 0.15, 0.06, 10.0, 10.0, 15.0, 15.0, 1.0)
# Where values are clamped: beyond, no generator or network is fitted, and within, every interval derived from them lies
# inside its Quantity's bounds (the test tries the corners).
LOW = (35.0, 70.0, 60.0, 110.0, 40.0, 3.7, 0.05, 0.1, 8.0, 6.0, 60.0, 40.0, -7.0)
HIGH = (170.0, 500.0, 200.0, 480.0, 220.0, 7.8, 1.6, 0.9, 200.0, 150.0, 240.0, 210.0, 7.0)
LONGEST_QT_MS, SHORTEST_JT_PEAK_MS = 950.0, 80.0
USUAL_RATE_BPM = 70.0


def logit_burden(burden: Tensor) -> Tensor:
    """Logit of a burden in [0, 1], cut at 1/1000 from either end (a burden of 0 carries no more than that)."""
    burden = burden.clamp(1e-3, 1 - 1e-3)
    return torch.log(burden) - torch.log1p(-burden)


def standardise(chart: Chart) -> Tensor:
    """u [..., COORDS] of a chart. NaN stays NaN, and stands for what the chart lacks or its rhythm does not have."""
    given = next(iter(chart.values()))
    unknown = torch.full_like(given, torch.nan, dtype=torch.float32)
    columns = {name: chart.get(name, unknown).to(torch.float32) for name in COORDINATES}
    if "atrial_fibrillation" in chart:
        fibrillating = chart["atrial_fibrillation"] > 0.5
        columns["fibrillation_rate_bpm"] = torch.where(fibrillating, columns["heart_rate_bpm"], unknown)
        columns["heart_rate_bpm"] = torch.where(fibrillating, unknown, columns["heart_rate_bpm"])
        columns["pr_ms"] = torch.where(fibrillating, unknown, columns["pr_ms"])
        columns["jt_peak_c_ms"] = torch.where(fibrillating, _in_sinus(chart, unknown), columns["jt_peak_c_ms"])
    columns["t_amplitude_uv"] = columns["t_amplitude_uv"].log()
    columns["t_asymmetry"] = columns["t_asymmetry"].sqrt()
    columns["arrhythmia_burden"] = logit_burden(columns["arrhythmia_burden"])
    raw = torch.stack(list(columns.values()), dim=-1)
    return (raw - constant(CENTRE, raw.device)) / constant(SCALE, raw.device)


def _in_sinus(chart: Chart, unknown: Tensor) -> Tensor:
    """J-Tpeak c [...] in ms that QTcF, QRS and Tpeak-Tend of a chart in fibrillation leave in sinus rhythm.

    At a usual rate: what of QTcF the rate gives to J-Tpeak c it takes by QRS and Tpeak-Tend, to a ms or two.
    """
    qtcf, qrs, tail = (chart.get(name, unknown) for name in ("qtcf_ms", "qrs_ms", "tpeak_tend_ms"))
    log = log_rr(torch.full_like(qtcf, USUAL_RATE_BPM))
    return (qtcf * qt_scale(log) - qrs - tail) / jt_peak_scale(log)


def shown_in(seen: Tensor) -> Tensor:
    """bool [..., COORDS]: coordinates that ECGs show of which `seen` [..., 2] says whether any was in sinus rhythm, and
    whether any was in fibrillation."""
    found = torch.ones(*seen.shape[:-1], COORDS, dtype=torch.bool, device=seen.device)
    found[..., _RATE] = found[..., _PR] = seen[..., 0]
    found[..., _FIBRILLATION] = seen[..., 1]
    return found


def intervals_of(u: Tensor, fibrillating: Tensor | None = None) -> Chart:
    """What the chart says [...] of u [..., COORDS]: the head on the latent. Values are clamped to LOW and HIGH.

    `fibrillating` [...] bool: which ECGs show fibrillation (none when None); there the ventricles' rate is that in
    fibrillation, and PR is NaN.
    """
    scale, centre, low, high = (constant(row, u.device, u.dtype) for row in (SCALE, CENTRE, LOW, HIGH))
    # each coordinate in one run of memory
    rows = (u * scale + centre).clamp(low, high).movedim(-1, 0).contiguous()
    sinus, pr, qrs, jt_c, tpte, amplitude, asymmetry, flatness, erd, lrd, systolic, fast, burden = rows.unbind(0)
    rate = sinus
    if fibrillating is not None:
        rate = torch.where(fibrillating, fast, sinus)
        pr = torch.where(fibrillating, torch.nan, pr)
    log = log_rr(sinus)
    before_and_after = qrs + tpte
    jt = torch.minimum(jt_c * jt_peak_scale(log), LONGEST_QT_MS - before_and_after)
    qt = before_and_after + jt
    if fibrillating is not None:
        # QTcF is what it is in sinus rhythm: QT follows from it at the other rate, and J-Tpeak gives way
        other = log_rr(rate)
        qt = torch.minimum(qt * qt_scale(other - log), constant((LONGEST_QT_MS,), u.device, u.dtype))
        jt = (qt - before_and_after).clamp_min(SHORTEST_JT_PEAK_MS)
        qt, log = before_and_after + jt, other
    stretch = jt_peak_scale(log)
    return {
        "heart_rate_bpm": rate,
        "pr_ms": pr,
        "qrs_ms": qrs,
        "qt_ms": qt,
        "qtcf_ms": qt / qt_scale(log),
        "jt_peak_ms": jt,
        "jt_peak_c_ms": jt / stretch,
        "tpeak_tend_ms": tpte,
        "t_amplitude_uv": amplitude.exp(),
        "t_asymmetry": asymmetry.square(),
        "t_flatness": flatness,
        "erd_30_ms": erd,
        "lrd_30_ms": lrd,
        "systolic_bp_mmhg": systolic,
        "arrhythmia_burden": torch.sigmoid(burden),
    }
