"""Training of `Readback`: synthesise ECGs, delineate them, learn what is missing; again under the correction so far."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models import keys
from world_models.checkpoint import save_tensors
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm import latent
from world_models.ecg_wm.beat_data import BeatSource, sample_intervals
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.courses import sample_courses
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.readback import FEATURES, LIMIT_MS, READ
from world_models.ecg_wm.synthesis import synthesise
from world_models.protocol import Chart
from world_models.training import Schedule, fit

__all__ = ["sample_requests", "train_readback"]

SEED = 3_500_000_000
log = logging.getLogger(__name__)


def sample_requests(model: ECGWorldModel, source: BeatSource, key: Tensor) -> tuple[Tensor, Chart]:
    """Beat shapes [B, morphology] and charts of FEATURES [B]: what the world will be asked to synthesise, and beyond.

    Intervals: three quarters are visits of dosed patients of all cohorts, a quarter each sampled on its own, wide.
    Shapes: half are generated patients', half as the encoder reads them off beats, real ones among them.
    """
    quarter, half = key.shape[0] // 4, key.shape[0] // 2
    wide = sample_intervals(keys.fold(key[:quarter], "wide"))
    data = sample_courses(keys.fold(key[quarter:], "courses"), 8, 2.0)
    visit = torch.floor(keys.uniform(key[quarter:], 0, "readback/visit") * data.u.shape[1]).long()
    met = latent.intervals_of(data.u[torch.arange(visit.shape[0], device=visit.device), visit])
    chart = {n: torch.cat([getattr(wide, n), met[n]]) for n in FEATURES}
    generated = model.vae.prior(key[:half])
    seen, _, leads, samples = source.sample(keys.fold(key[half:], "beats"))
    shape = torch.cat([generated, model.vae.encode(seen, leads, samples)[0]])
    # Shapes and intervals are each sampled by row: shuffle one against the other.
    return shape[torch.argsort(keys.uniform(key, 0, "readback/shuffle"))], chart


def train_readback(
    model: ECGWorldModel, source: BeatSource, rounds: int, count: int, steps: int, batch: int, folder: Path
) -> None:
    """`rounds` of `count` synthesised and delineated ECGs, each followed by `steps` of learning on all rounds so far.

    What was delineated is kept in `folder`, so a killed run goes on where it was. A round of which nothing could be
    read, as after a few steps of the autoencoder, teaches nothing: a warning says so, and the correction stays.
    """
    features, targets = [], []
    for n in range(rounds):
        made = _round(model, source, n, count, folder)
        good = ~made["missing_ms"].isnan().any(-1) & (made["missing_ms"].abs() < 2 * LIMIT_MS).all(-1)
        features.append(torch.cat([made["intervals"], made["shape"]], dim=-1)[good])
        targets.append((made["given_ms"] + made["missing_ms"])[good].clamp(-LIMIT_MS, LIMIT_MS))
        x, y = torch.cat(features), torch.cat(targets)
        if not len(x):
            log.warning(
                "readback %d: the delineator could read none of %d synthesised ECGs, so no correction is learned from "
                "them; beats as they are after so few steps are not meant to be read",
                n + 1,
                count,
            )
            continue

        def loss(step: int, x: Tensor = x, y: Tensor = y, n: int = n) -> tuple[Tensor, dict[str, float]]:
            key = keys.from_seed(SEED + 10_000_000 * (n + 1) + step * batch, batch, x.device)
            rows = torch.floor(keys.uniform(key, 0, "readback/row") * x.shape[0]).long()
            found = model.readback(x[rows, len(FEATURES) :], x[rows, : len(FEATURES)])
            value = torch.nn.functional.smooth_l1_loss(found, y[rows], beta=2.0)  # ms; a misread wave is an outlier
            return value, {"smooth_l1": value.item()}

        schedule = Schedule(steps, learning_rate=2e-3, weight_decay=1e-2)
        fit(model, loss, schedule, folder, f"readback_{n + 1}", list(model.readback.parameters()))


@torch.no_grad()
def _round(model: ECGWorldModel, source: BeatSource, n: int, count: int, folder: Path) -> dict[str, Tensor]:
    """intervals [N, 5], shape [N, morphology], correction given and correction still missing [N, 4] ms."""
    path = folder / f"readback_ecgs_{n + 1}_{count}.safetensors"
    if path.exists():
        return load_file(path, device=str(model.device))
    parts: list[dict[str, Tensor]] = []
    for start in tqdm(range(0, count, 64), desc=f"readback ECGs {n + 1}", mininterval=1):
        key = keys.from_seed(SEED + n * count + start, min(64, count - start), model.device)
        shape, chart = sample_requests(model, source, key)
        intervals = torch.stack([chart[name] for name in FEATURES], dim=-1)
        read = delineate(synthesise(model.vae, model.readback, shape, key, torch.zeros_like(key), chart), RATE_HZ)
        missing = torch.stack([chart[name] - getattr(read, name) for name in READ], dim=-1)
        given = model.readback(shape, intervals)
        parts.append({"intervals": intervals, "shape": shape, "given_ms": given, "missing_ms": missing})
    made = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    save_tensors(path, made)
    return made
