"""Atrial fibrillation on the ECG: when the ventricles beat, and what the atria draw instead of P waves.

RR intervals are independent and log-normal: in ten seconds their standard deviation is 0.24 of the mean in LUDB's
eleven records in fibrillation without a pacemaker (quartiles 0.18, 0.28), 0.21 in nine of PTB-XL; their shortest lies
at 0.66 and 0.73 of the mean, their longest at 1.42 and 1.45. f waves: 4 to 9 a second, finer and coarser from person to
person, largest in V1, next in II (Xi 2003, doi 10.1109/CIC.2003.1291089 (k), Petrutiu 2006, doi
10.1016/j.hrthm.2006.09.018 (k)): two waves of a person's own rate whose rate and size drift.

Elementwise operations and sums along one row only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models import keys

__all__ = ["RR_SPREAD", "fibrillation_beats", "fibrillation_waves", "irregular"]

RR_SPREAD = 0.21  # SD of log RR
_SHARE = (0.5, 2.2)  # of the mean RR, beyond which no interval goes
_SHORTEST_S = 0.3  # no AV node conducts faster at rest (k)
# mV of the two waves in I, II, V1-V6, for a person of size 1 (k)
_ACROSS = (0.018, 0.035, 0.075, 0.04, 0.02, 0.014, 0.012, 0.01)
_ALONG = (0.012, -0.022, 0.03, 0.024, 0.018, 0.012, 0.012, 0.012)


def irregular(normal: Tensor) -> Tensor:
    """RR intervals [...] as shares of their mean, of standard normals [...]."""
    return torch.exp(RR_SPREAD * normal - 0.02).clamp(*_SHARE)


def fibrillation_beats(
    key: Tensor,
    t: int | Tensor,
    heart_rate_bpm: Tensor,
    count: int,
    *,
    seconds: float = 10.0,
    sampling_rate_hz: float = 500.0,
    margin: int = 4,
) -> Tensor:
    """Samples of the R peaks in fibrillation, int64 [B, count], rising; `margin` of them lie before the recording.

    The mean RR between the first and the last beat of the recording is 60 / heart rate to the sample, as in
    `waveform.beat_samples`, whose number of beats serves for `count`.
    """
    rr = 60.0 / heart_rate_bpm.to(torch.float32).unsqueeze(-1)
    step = torch.maximum(irregular(keys.normal(key, t, "fibrillation/rr", (count,))) * rr, _floor(rr))
    first = keys.uniform(key, t, "fibrillation/first", (1,)) * rr
    inside = torch.floor((seconds - 0.51 / sampling_rate_hz - first) / rr)  # intervals between beats of the recording
    # Sequential sums over a row, so a row alone adds up in the same order.
    place = torch.cumsum(step.to(torch.float64), dim=1).to(torch.float32)
    place = place - place[:, margin : margin + 1]
    last = (inside.to(torch.int64).clamp_min(1) + margin).clamp_max(count - 1)
    wanted = (last - margin).to(torch.float32) * rr
    place = first + place * (wanted / place.gather(1, last))
    # No other beat lies within the recording: those around it move away as far as it takes.
    index = torch.arange(count, device=key.device)
    late = (seconds - place.gather(1, (last + 1).clamp_max(count - 1))).clamp_min(0.0)
    early = (place[:, margin - 1 : margin] + 1.0 / sampling_rate_hz).clamp_min(0.0)
    place = place + late * (index > last) - early * (index < margin)
    return torch.round(place * sampling_rate_hz).to(torch.int64)


def _floor(rr_s: Tensor) -> Tensor:
    return torch.minimum(torch.full_like(rr_s, _SHORTEST_S), 0.8 * rr_s)


def fibrillation_waves(key: Tensor, t: int | Tensor, samples: int, sampling_rate_hz: float) -> Tensor:
    """f waves in mV, [B, 8, samples], of I, II, V1-V6: a person's rate and size from the key, the rest from t too."""
    own = keys.uniforms(key, 0, ("waves/rate", "waves/size", ("waves/lead", 16)))
    u = keys.uniforms(key, t, (("waves/phase", 6), "waves/drift"))
    seconds = torch.arange(samples, dtype=torch.float32, device=key.device) / sampling_rate_hz
    turn = 2.0 * math.pi
    hz = (5.2 + 2.6 * own[:, 0:1]) + 0.3 * (u[:, 6:7] - 0.5)
    size = 0.6 + 0.9 * own[:, 1:2]

    def slow(own_hz: float, phase: Tensor) -> Tensor:
        """sin(2 pi (own_hz t + phase)) [B, samples] of phases [B, 1], by the sum of two angles: no sine a patient."""
        angle, at = turn * own_hz * seconds, turn * phase
        return torch.sin(angle) * torch.cos(at) + torch.cos(angle) * torch.sin(at)

    drift, swift = slow(0.31, u[:, 0:1]), slow(1.13, u[:, 5:6])
    first = torch.sin(turn * (hz * seconds + u[:, 1:2]) + 1.8 * drift + 0.7 * swift)
    first = first * (1.0 + 0.35 * slow(0.47, u[:, 2:3]))
    second = torch.sin(turn * (hz * 1.17 * seconds + u[:, 3:4]) - 2.1 * drift + 0.9 * swift)
    lead = 0.6 + 0.8 * own[:, 2:18]
    across = torch.tensor(_ACROSS, device=key.device)
    along = torch.tensor(_ALONG, device=key.device)
    one = (across * lead[:, :8] * size).unsqueeze(-1) * first.unsqueeze(1)
    return one + (along * lead[:, 8:] * size).unsqueeze(-1) * second.unsqueeze(1)
