"""Whether a patient's ECG shows atrial fibrillation, how fast his ventricles then beat, and what the chart says of it.

A patient with burden b fibrillates on that share of his ECGs: whether on this one is a function of key and t. The
ventricular rate is his own (`baseline_fibrillation_rate_bpm`), a little other on every ECG, and follows what moves the
sinus rate (exertion, the day) by a third of it (k). Verapamil slows the AV node by its plasma concentration: 240 mg a
day bring the rate over the day from 96 to 81 bpm (RATAF, Ulimoen 2013, doi 10.1016/j.amjcard.2012.09.020 (k)); a fifth
at the 100 to 150 ng/mL of usual doses, half at most (k). Quinidine's vagolytic effect speeds it by a few per cent (k);
dofetilide and ranolazine leave it.

PR is missing then. QT is measured with the mean RR, and QTcF is what it is in sinus rhythm: QT follows from it at the
new rate, and of its parts J-Tpeak gives way. Tests of the QT under drugs correct in fibrillation as in sinus rhythm
(Musat 2013, doi 10.1016/j.hrthm.2013.05.024 (k)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.protocol import Chart

__all__ = ["RATES_BPM", "Fibrillation", "charted", "fibrillation_now", "ventricular_rate"]

RATES_BPM = (45.0, 175.0)
_VERAPAMIL_MOST, _VERAPAMIL_HALF_NG_ML = 0.45, 150.0  # largest slowing, and the concentration of half of it
_QUINIDINE_MOST, _QUINIDINE_HALF_NG_ML = 0.08, 2000.0
_WITH_SINUS = 0.35  # of the sinus rate's way from 70 bpm
_USUAL_SINUS_BPM = 70.0
_ECG_SD = 0.06  # of log rate, from ECG to ECG
_SHORTEST_JT_PEAK_MS = 80.0


class Fibrillation(NamedTuple):
    """Of the present ECG of B patients; float32 [B]."""

    shown: Tensor  # 1 where it shows fibrillation
    rate_bpm: Tensor  # ventricular rate that it has then


def ventricular_rate(own_bpm: Tensor, sinus_bpm: Tensor, concentration_ng_ml: Tensor, drugs: Sequence[str]) -> Tensor:
    """Mean ventricular rate [B] in fibrillation.

    Args:
        own_bpm: [B] the patient's without drugs, at a sinus rate of 70 bpm.
        sinus_bpm: [B] what his sinus rate would be now.
        concentration_ng_ml: [B, D] in plasma, of `drugs`.
    """
    rate = own_bpm + _WITH_SINUS * (sinus_bpm - _USUAL_SINUS_BPM)
    for name, most, half in (
        ("verapamil", -_VERAPAMIL_MOST, _VERAPAMIL_HALF_NG_ML),
        ("quinidine", _QUINIDINE_MOST, _QUINIDINE_HALF_NG_ML),
    ):
        if name in drugs:
            level = concentration_ng_ml[:, list(drugs).index(name)].clamp_min(0.0)
            rate = rate * (1.0 + most * level / (level + half))
    return rate


def fibrillation_now(
    key: Tensor,
    t: Tensor,
    burden: Tensor,
    own_bpm: Tensor,
    sinus_bpm: Tensor,
    concentration_ng_ml: Tensor,
    drugs: Sequence[str],
) -> Fibrillation:
    """What the ECG of step t shows, of patients with this burden [B]; the other arguments as in `ventricular_rate`."""
    shown = (keys.uniform(key, t, "fibrillation/shown") < burden).to(torch.float32)
    rate = ventricular_rate(own_bpm, sinus_bpm, concentration_ng_ml, drugs)
    rate = rate * (_ECG_SD * keys.normal(key, t, "fibrillation/rate")).exp()
    return Fibrillation(shown, rate.clamp(*RATES_BPM))


def charted(intervals: Chart, now: Fibrillation) -> Chart:
    """Rate and intervals of the chart [B] each, from those of sinus rhythm; with `atrial_fibrillation`."""
    log = log_rr(now.rate_bpm)
    other = intervals["qrs_ms"] + intervals["tpeak_tend_ms"]
    jt_peak = (intervals["qtcf_ms"] * qt_scale(log) - other).clamp_min(_SHORTEST_JT_PEAK_MS)
    qt = other + jt_peak
    then = {
        "heart_rate_bpm": now.rate_bpm,
        "pr_ms": torch.full_like(qt, torch.nan),
        "qt_ms": qt,
        "qtcf_ms": qt / qt_scale(log),
        "jt_peak_ms": jt_peak,
        "jt_peak_c_ms": jt_peak / jt_peak_scale(log),
    }
    shown = now.shown > 0
    out = {name: torch.where(shown, then[name], value) if name in then else value for name, value in intervals.items()}
    return {**out, "atrial_fibrillation": now.shown}
