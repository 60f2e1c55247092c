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

__all__ = ["NORMAL", "RATES_BPM", "UNIFORM", "Fibrillation", "fibrillation_now", "ventricular_rate"]

NORMAL, UNIFORM = "fibrillation/rate", "fibrillation/shown"  # purposes (`keys`) of an ECG's random numbers

RATES_BPM = (45.0, 175.0)
_VERAPAMIL_MOST, _VERAPAMIL_HALF_NG_ML = 0.45, 150.0  # largest slowing, and the concentration of half of it
_QUINIDINE_MOST, _QUINIDINE_HALF_NG_ML = 0.08, 2000.0
_WITH_SINUS = 0.35  # of the sinus rate's way from 70 bpm
_USUAL_SINUS_BPM = 70.0
_ECG_SD = 0.06  # of log rate, from ECG to ECG


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
    chance: Tensor,
    variation: Tensor,
    burden: Tensor,
    own_bpm: Tensor,
    sinus_bpm: Tensor,
    concentration_ng_ml: Tensor,
    drugs: Sequence[str],
) -> Fibrillation:
    """What an ECG shows, of patients with this burden [B]; the other arguments as in `ventricular_rate`.

    Args:
        chance, variation: [B] the ECG's uniform (`UNIFORM`) and normal (`NORMAL`).
    """
    shown = (chance < burden).to(torch.float32)
    rate = ventricular_rate(own_bpm, sinus_bpm, concentration_ng_ml, drugs)
    rate = rate * (variation * _ECG_SD).exp()
    return Fibrillation(shown, rate.clamp(*RATES_BPM))
