"""An ECG from a beat's shape: decoded, completed by what was recorded, its T wave bent and all warped to the chart's
intervals, set beat after beat, twelve leads."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import tree
from world_models.ecg.st_t import smoothstep
from world_models.ecg.waveform import R_SHARE, beat_samples, derive_twelve, tile
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import AT_R, PIECES, QRS_START, RATE_HZ
from world_models.ecg_wm.readback import FEATURES, Readback, t_wave_asked
from world_models.ecg_wm.recorded import Recorded, kept, nearness
from world_models.ecg_wm.t_bend import T_MEASURES, bent
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = ["drawn_beat", "synthesise"]

SAMPLES, BEAT_SAMPLES = 5000, 801  # of the ECG, of one beat with its neighbourhood
HRV_MS = 20.0  # SD of RR intervals: a resting adult's within ten seconds (k)
ECGS_AT_ONCE = 64  # as many as stay near the cache


def drawn_beat(
    vae: BeatVAE,
    readback: Readback,
    m: Tensor,
    recorded: Recorded | None,
    chart: Chart,
    p_scale: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The canonical beats [B, 8, SAMPLES] mV that are drawn, and the intervals [B] in ms that they are spread to.

    `chart` holds FEATURES and, or not, the T measures; see `synthesise` for the rest.
    """
    asked_t = t_wave_asked(chart)
    beat = vae.shape(m)
    share: Tensor | None = None
    if recorded is not None:
        beat = beat + kept(recorded, asked_t)
        share = 1.0 - nearness(recorded, asked_t, torch.stack([chart[n] for n in FEATURES], dim=-1))
    intervals, t_wave = readback.asked(beat, chart, share)
    if t_wave is not None:
        known = ~t_wave.isnan().any(-1)
        times = torch.stack([chart["heart_rate_bpm"], *intervals.values()], dim=-1)
        bend = vae.bender(beat, torch.nan_to_num(t_wave, nan=50.0), times)
        held = known.to(beat.dtype) if share is None else known * share[:, 2]
        bend = tree.map_leaves(lambda x: x * (held if x.ndim == 1 else held.unsqueeze(-1)), bend)
        beat = bent(beat, bend)
    if p_scale is not None:
        beat = beat * _p_gain(p_scale)
    return beat, intervals


def synthesise(
    vae: BeatVAE,
    readback: Readback,
    m: Tensor,
    recorded: Recorded | None,
    key: Tensor,
    t: Tensor,
    chart: Chart,
    *,
    p_scale: Tensor | None = None,
    r_samples: Tensor | None = None,
    atrial_mv: Tensor | None = None,
) -> Tensor:
    """ECG [B, 12, 5000] mV of beat shapes m [B, morphology] on which a delineator reads the chart's intervals.

    Args:
        recorded: what recorded patients keep of their own beats; None or `Recorded.nothing` for generated ones.
        key, t: [B] the random numbers of the rhythm.
        chart: heart rate, PR, QRS, J-Tpeak, Tpeak-Tend [B], and the T measures [B] where they are asked for.
        p_scale: [B] what is left of the P wave, 0 in atrial fibrillation; None: all.
        r_samples: [B, K] int64 rising R peaks of a rhythm made elsewhere; None: sinus rhythm of the chart's rate.
        atrial_mv: [B, 8, 5000] what the atria do besides, fibrillation waves say; None: nothing.
    """
    given = {name: chart[name] for name in (*FEATURES, *T_MEASURES) if name in chart}
    out = torch.empty(key.shape[0], 12, SAMPLES, device=m.device, dtype=m.dtype)
    for start in range(0, key.shape[0], ECGS_AT_ONCE):
        rows = slice(start, start + ECGS_AT_ONCE)
        asked, kept_rows, p_rows = tree.take((given, recorded, p_scale), rows)
        beat, times = drawn_beat(vae, readback, m[rows], kept_rows, asked, p_rows)
        ends = beats.piece_ends(times["pr_ms"], times["qrs_ms"], times["jt_peak_ms"], times["tpeak_tend_ms"])
        onset = AT_R - R_SHARE * times["qrs_ms"] * (RATE_HZ / 1000)
        # A recorded beat may start and end off the level of its PR segment: between beats there is zero.
        beat = beat - 0.5 * (beat[..., :1] + beat[..., -1:])
        template = beats.from_canonical(beat, ends, onset, BEAT_SAMPLES, RATE_HZ)
        if r_samples is None:
            r_peaks = beat_samples(key[rows], t[rows], asked["heart_rate_bpm"], hrv_ms=HRV_MS)
        else:
            r_peaks = r_samples[rows]
        eight = tile(template, r_peaks, SAMPLES, AT_R)
        if atrial_mv is not None:
            eight = eight + atrial_mv[rows]
        derive_twelve(eight, out[rows])
    return out


def _p_gain(p_scale: Tensor) -> Tensor:
    """Gain [B, 1, SAMPLES] of the beat: `p_scale` [B] up to the PR segment, 1 from the QRS on."""
    place = torch.arange(beats.SAMPLES, device=p_scale.device, dtype=p_scale.dtype)
    late = smoothstep((place - (QRS_START - PIECES[2])) / (PIECES[2] - 2))
    return (p_scale.unsqueeze(-1) + (1.0 - p_scale.unsqueeze(-1)) * late).unsqueeze(1)
