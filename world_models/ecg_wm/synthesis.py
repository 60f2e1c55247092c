"""An ECG from a beat's shape: decoded, completed by what was recorded, and drawn as any beat is (`ecg.as_read`), so
that a delineator reads the chart's intervals and T wave on it.

Up to the J point a patient's beat stays the one he was admitted with: what these drugs do there is a matter of
durations, which the canonical axis takes out. The latent holds a beat's size and, beside it, the share of each wave, so
that a sample of a smaller T wave, decoded, has another QRS wherever the two do not cancel to the last digit. Of ST and
T a part of the sampled change is drawn (`SHOWN`); the T measures bend them besides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import tree
from world_models.ecg.as_read import Drawn, drawn_as_asked
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import Intervals, synthesise_ecg
from world_models.ecg_wm.recorded import INTERVALS, Recorded, after_j_point, kept
from world_models.ecg_wm.t_measures import T_MEASURES, t_wave_asked
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = ["decoded_beat", "drawn_beat", "synthesise"]

SAMPLES = 5000  # of the ECG
HRV_MS = 20.0  # SD of RR intervals in sinus rhythm: a resting adult's within ten seconds (k)
NO_PR_MS = 160.0  # of the drawing where there is no P to draw
# Share of a sampled change of ST and T that is drawn: on validation patients (`pairs`) latent MSE is 0.0401, 0.0400 and
# 0.0418 with none, half and all of it, signal MSE 0.00071, 0.00072 and 0.00074 mV^2.
SHOWN = 0.5
ECGS_AT_ONCE = 2048  # as many as are shaped together: the few that are hard to shape then make up a block


def decoded_beat(
    vae: BeatVAE, m: Tensor, first: Tensor | None, recorded: Recorded | None, asked: Tensor | None
) -> Tensor:
    """Canonical beats [B, 8, 200] mV of shapes m [B, morphology] before their T waves are bent to those asked [B, 5].

    `first` [B, morphology] are the shapes at admission, None: m; `recorded` as in `synthesise`.
    """
    beat = vae.shape(m)
    if first is not None:
        beat = torch.lerp(vae.shape(first), beat, SHOWN * after_j_point(beat))
    return beat if recorded is None else beat + kept(recorded, asked)


def drawn_beat(vae: BeatVAE, m: Tensor, recorded: Recorded | None, chart: Chart, first: Tensor | None = None) -> Drawn:
    """How to draw beats of shapes m [B, morphology]; its `residual` is the whole canonical beat [B, 8, 200] mV.

    `chart` holds INTERVALS and, or not, the T measures; see `synthesise` for the rest.
    """
    asked = t_wave_asked(chart)
    beat = decoded_beat(vae, m, first, recorded, asked)
    pr = torch.nan_to_num(chart["pr_ms"], nan=NO_PR_MS)
    intervals = Intervals.of(*({**chart, "pr_ms": pr}[name] for name in INTERVALS))
    wanted = None if asked is None else TWave(*asked.unbind(-1))
    own = torch.zeros_like(pr, dtype=torch.bool) if recorded is None else ~recorded.intervals.isnan().all(-1)
    return drawn_as_asked(intervals, None, wanted, beat, own)


@torch.no_grad()
def synthesise(
    vae: BeatVAE,
    m: Tensor,
    recorded: Recorded | None,
    key: Tensor,
    t: Tensor,
    chart: Chart,
    fibrillating: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """ECG [B, 12, 5000] mV of beat shapes m [B, morphology] on which a delineator reads the chart's values.

    In another batch a row differs by what the decoder rounds, and by how the search for the T wave's bend then goes:
    under a microvolt for most, some 20 uV for a few.

    Args:
        recorded: what recorded patients keep of their own beats; None or `Recorded.nothing` for generated ones.
        key, t: [B] the random numbers of the rhythm.
        chart: heart rate, PR (NaN: none), QRS, J-Tpeak, Tpeak-Tend [B], and the T measures [B] where they are asked.
        fibrillating: bool [B], whose atria fibrillate: irregular RR, f waves and no P; None: nobody's.
        first: [B, morphology] the shapes at admission, whose P wave and QRS are drawn; None: those of m.
    """
    given = {name: chart[name] for name in (*INTERVALS, *T_MEASURES) if name in chart}
    out = torch.empty(key.shape[0], 12, SAMPLES, device=m.device, dtype=m.dtype)
    for start in range(0, key.shape[0], ECGS_AT_ONCE):
        rows = slice(start, start + ECGS_AT_ONCE)
        asked, kept_rows, waving, begun = tree.take((given, recorded, fibrillating, first), rows)
        drawn = drawn_beat(vae, m[rows], kept_rows, asked, begun)
        synthesise_ecg(
            key[rows],
            t[rows],
            drawn.intervals,
            None,
            hrv_ms=HRV_MS,
            t_shape=drawn.t_shape,
            residual=drawn.residual,
            fibrillating=waving,
            out=out[rows],
        )
    return out
