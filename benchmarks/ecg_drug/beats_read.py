"""What a delineator reads of the learned world's ECGs, less what was asked of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm import latent
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.courses import sample_courses
from world_models.ecg_wm.encode import t_wave_of
from world_models.ecg_wm.recorded import INTERVALS, Recorded
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.t_measures import T_MEASURES
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = ["READ", "Request", "dosed_charts", "missed", "missing_of", "slowed"]

READ = (*INTERVALS[1:], "qt_ms", *T_MEASURES)
PAUSE_MS = 60.0  # at least from T end to half a PR before the next QRS: a heart too fast for that is slowed


class Request(NamedTuple):
    """ECGs to be synthesised, B of them."""

    m: Tensor  # [B, morphology]
    recorded: Recorded
    chart: Chart  # INTERVALS and T_MEASURES [B]


def slowed(chart: Chart) -> Chart:
    """The chart with a heart rate at which T and the next P stand apart, so that both can be read."""
    qt = chart["qrs_ms"] + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]
    fastest = 60_000 / (qt + 0.5 * chart["pr_ms"] + PAUSE_MS)
    return {**chart, "heart_rate_bpm": torch.minimum(chart["heart_rate_bpm"], fastest)}


@torch.no_grad()
def dosed_charts(key: Tensor) -> Chart:
    """Charts [B] of visits of dosed patients of all the oracle's cohorts, as in sinus rhythm."""
    data = sample_courses(keys.fold(key, "courses"), 8, 2.0)
    visit = torch.floor(keys.uniform(key, 0, "beats/visit") * data.u.shape[1]).long()
    u = data.u[torch.arange(len(visit), device=visit.device), visit]
    chart = latent.intervals_of(torch.where(u.isnan(), data.measured, u))
    return slowed({name: chart[name] for name in (*INTERVALS, *T_MEASURES)})


@torch.no_grad()
def missing_of(vae: BeatVAE, asked: Request, key: Tensor) -> Tensor:
    """`missed` of the ECGs asked for."""
    return missed(synthesise(vae, asked.m, asked.recorded, key, torch.zeros_like(key), asked.chart), asked.chart)


def missed(ecg_mv: Tensor, chart: Chart) -> Tensor:
    """Chart less what is read of its ECGs [B, 12, 5000] in mV, [B, 10] in READ's order and units; of the amplitude the
    logarithm."""
    found = delineate(ecg_mv, RATE_HZ)
    t_wave = t_wave_of(found)
    read = {name: getattr(found, name) for name in READ if name not in T_MEASURES}
    read |= {name: t_wave[:, i] for i, name in enumerate(T_MEASURES)}
    wanted = {**chart, "qt_ms": chart["qrs_ms"] + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]}
    off = {name: wanted[name] - read[name] for name in READ}
    name = T_MEASURES[0]
    off[name] = (wanted[name] / read[name].clamp_min(1.0)).log()
    return torch.where(found.measurable.unsqueeze(-1), torch.stack(list(off.values()), dim=-1), torch.nan)
