"""Training of `Readback`: synthesise ECGs, delineate them, learn what is missing; again under the correction so far."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models import keys, tree
from world_models.checkpoint import save_tensors
from world_models.constants import constant
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.beat_training import asked_t_waves
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.encode import t_wave_of
from world_models.ecg_wm.readback import FEATURES, INTERVALS, LIMITS, PART, READ, Readback, t_wave_asked
from world_models.ecg_wm.recorded import Recorded, kept, nearness
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.t_bend import T_MEASURES
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart
from world_models.training import Schedule, fit

__all__ = ["Request", "missing_of", "sample_requests", "train_readback"]

SEED = 3_500_000_000
LEAST_SHARE = 0.5  # of the correction that a recorded beat gets: of less nothing is learned
PAUSE_MS = 60.0  # at least from T end to half a PR before the next QRS, so that T and P stand apart
MISREAD = 2.0  # times LIMITS: a delineator that is so far off has read another wave
# Sizes of a miss in the loss: below, its square counts, beyond, its size. As LIMITS.
BEND = (2.0, 2.0, 2.0, 2.0, 0.04, 0.03, 0.015, 2.0, 1.5)
log = logging.getLogger(__name__)


class Request(NamedTuple):
    """ECGs to be synthesised, B of them."""

    m: Tensor  # [B, morphology]
    recorded: Recorded
    chart: Chart  # FEATURES and T_MEASURES [B]


@torch.no_grad()
def sample_requests(
    vae: BeatVAE, source: BeatSource, key: Tensor, charts: Callable[[Tensor], Chart] | None = None
) -> Request:
    """What the world will be asked to synthesise, and beyond: half generated patients, half recorded ones.

    Recorded ones (real and drawn beats) are asked for T waves and intervals near their own, under drugs, and
    another's. `charts(key)` gives the charts of the generated ones (visits of dosed patients, say), FEATURES and
    T_MEASURES [B]; without it they are asked for other beats' intervals and T waves, under drugs.
    """
    pool = source.batch(key)
    order = torch.argsort(keys.uniform(key, 0, "readback/shuffle"))
    pool = pool.take(order)
    readable = torch.isfinite(pool.t_wave)
    t_own = torch.where(readable, pool.t_wave, pool.t_wave[readable.all(-1)][:1])
    t_wave, intervals = asked_t_waves(key, t_own, pool.intervals)
    chart = dict(zip(FEATURES, intervals.unbind(-1), strict=True)) | dict(
        zip(T_MEASURES, t_wave.unbind(-1), strict=True)
    )
    half = key.shape[0] // 2
    if charts is not None:
        told = charts(key[:half])
        chart = {name: torch.cat([told[name], value[half:]]) for name, value in chart.items()}
    qt = chart["qrs_ms"] + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]
    fastest = 60_000 / (qt + 0.5 * chart["pr_ms"] + PAUSE_MS)
    chart["heart_rate_bpm"] = torch.minimum(chart["heart_rate_bpm"], fastest)

    mean = vae.encode(pool.beat, pool.leads, pool.samples)[0]
    seen = (pool.leads.unsqueeze(-1) & pool.samples.unsqueeze(1)).to(mean.dtype)
    residual = (pool.beat - vae.shape(mean)) * seen
    recorded = Recorded(residual, pool.t_wave, pool.intervals)
    asked = t_wave_asked(chart)
    assert asked is not None
    m = torch.cat([vae.prior(key[:half], asked[:half]), mean[half:]])
    nothing = Recorded.nothing(mean[:half])
    return Request(m, tree.cat([nothing, tree.map_leaves(lambda x: x[half:], recorded)]), chart)


@torch.no_grad()
def missing_of(vae: BeatVAE, readback: Readback, asked: Request, key: Tensor) -> Tensor:
    """Chart less what is read of the synthesised ECGs, [B, 9] in READ's order and units (the amplitude's logarithm)."""
    ecg = synthesise(vae, readback, asked.m, asked.recorded, key, torch.zeros_like(key), asked.chart)
    found = delineate(ecg, RATE_HZ)
    t_wave = t_wave_of(found)
    read = {name: getattr(found, name) for name in INTERVALS}
    read |= {name: t_wave[:, i] for i, name in enumerate(T_MEASURES)}
    missing = [asked.chart[name] - read[name] for name in READ]
    name = T_MEASURES[0]
    missing[len(INTERVALS)] = (asked.chart[name] / read[name].clamp_min(1.0)).log()
    return torch.where(found.measurable.unsqueeze(-1), torch.stack(missing, dim=-1), torch.nan)


def train_readback(
    vae: BeatVAE,
    readback: Readback,
    source: BeatSource,
    rounds: int,
    count: int,
    steps: int,
    batch: int,
    folder: Path,
    charts: Callable[[Tensor], Chart] | None = None,
) -> None:
    """`rounds` of `count` synthesised and delineated ECGs, each followed by `steps` of learning on all rounds so far.

    What was delineated is kept in `folder`, so a killed run goes on where it was. A round of which nothing could be
    read, as after a few steps of the autoencoder, teaches nothing: a warning says so, and the correction stays.
    """
    made: list[dict[str, Tensor]] = []
    limits = constant(LIMITS, vae.weight.device)
    for n in range(rounds):
        made.append(_round(vae, readback, source, n, count, folder, charts))
        whole = {name: torch.cat([part[name] for part in made]) for name in made[0]}
        target = whole["given"] + whole["missing"] / whole["share"].clamp_min(LEAST_SHARE)
        known = torch.isfinite(target) & (whole["missing"].abs() < MISREAD * limits)
        good = known[:, 1:].all(-1)  # PR may be missing: not all have a P wave
        known = known & (whole["share"] >= LEAST_SHARE)
        if not bool(good.any()):
            log.warning(
                "readback %d: the delineator could read none of %d synthesised ECGs, so no correction is learned from "
                "them; beats as they are after so few steps are not meant to be read",
                n + 1,
                count,
            )
            continue
        rows = {name: whole[name][good] for name in ("coarse", "intervals", "t_wave")}
        rows |= {"target": torch.nan_to_num(target[good]).clamp(-limits, limits), "known": known[good].float()}

        def loss(step: int, rows: dict[str, Tensor] = rows, n: int = n) -> tuple[Tensor, dict[str, float]]:
            key = keys.from_seed(SEED + 10_000_000 * (n + 1) + step * batch, batch, vae.weight.device)
            index = torch.floor(keys.uniform(key, 0, "readback/row") * len(rows["target"])).long()
            taken = {name: value[index] for name, value in rows.items()}
            found = readback(taken["coarse"].float(), taken["intervals"], taken["t_wave"])
            off = (found - taken["target"]) / constant(BEND, found.device)
            value = (
                torch.nn.functional.smooth_l1_loss(off, torch.zeros_like(off), reduction="none") * taken["known"]
            ).mean()
            return value, {"smooth_l1": value.item()}

        schedule = Schedule(steps, learning_rate=1.5e-3, weight_decay=3e-2)
        fit(readback, loss, schedule, folder, f"readback_{n + 1}", list(readback.parameters()))


@torch.no_grad()
def _round(
    vae: BeatVAE,
    readback: Readback,
    source: BeatSource,
    n: int,
    count: int,
    folder: Path,
    charts: Callable[[Tensor], Chart] | None,
) -> dict[str, Tensor]:
    """Of N ECGs: what the network sees, the correction `given` [N, 9], and what is still `missing` [N, 9]."""
    path = folder / f"readback_ecgs_{n + 1}_{count}.safetensors"
    device = vae.weight.device
    if path.exists():
        return load_file(path, device=str(device))
    parts: list[dict[str, Tensor]] = []
    for start in tqdm(range(0, count, 64), desc=f"readback ECGs {n + 1}", mininterval=1):
        key = keys.from_seed(SEED + n * count + start, min(64, count - start), device)
        asked = sample_requests(vae, source, key, charts)
        t_wave = t_wave_asked(asked.chart)
        assert t_wave is not None
        intervals = torch.stack([asked.chart[name] for name in FEATURES], dim=-1)
        coarse = readback.coarse(vae.shape(asked.m) + kept(asked.recorded, t_wave))
        parts.append(
            {
                "coarse": coarse.half(),
                "intervals": intervals,
                "t_wave": t_wave,
                "share": (1.0 - nearness(asked.recorded, t_wave, intervals))[:, PART],
                "given": readback(coarse, intervals, t_wave),
                "missing": missing_of(vae, readback, asked, key),
            }
        )
    made = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    save_tensors(path, made)
    return made
