"""The latent diffusion on a problem with a known answer, where each sampler stands beside samples of the truth.

`known_pairs`: a conditional distribution written down here, correlated, heteroscedastic and bimodal in one entry.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ecg_drug.diffusion_scores import SAMPLES, scores
from world_models import keys
from world_models.ecg_wm.diffusion.condition import Part
from world_models.ecg_wm.diffusion.ddpm import DDIM, DDPM
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, LatentDiffusion, Pairs
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.diffusion.train import fresh, train_student, train_teacher
from world_models.training import Schedule

__all__ = ["KNOWN_PARTS", "KNOWN_SEED", "KNOWN_SIZE", "known", "known_pairs", "known_post"]

KNOWN_PARTS = (Part("x", 3),)
KNOWN_SIZE = 8
KNOWN_SEED, SEED = 7_000_000_000, 2026
STEPS = 1200


def known_pairs(key: Tensor) -> Pairs:
    """Pairs [B] of keys [B] from the known distribution: x ~ U(-1, 1)^3, z_post by `known_post`."""
    x = 2 * keys.uniform(key, 0, "known/x", (3,)) - 1
    z_post = known_post(x, key)
    return Pairs(torch.zeros_like(z_post), _known_prior(x), z_post, {"x": x}, torch.full((len(key), 9), torch.nan))


def _known_prior(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(-1), x[:, :2]], dim=-1)


def known_post(x: Tensor, key: Tensor) -> Tensor:
    """z_post [B, 8] given x [B, 3]: the prior and what it does not know.

    Entries 0 to 3 are correlated (0.8 between neighbours), with a spread that grows from 0.3 to 1.5 along x_0, about a
    bend in x_2; entry 4 sits at +-1 with the sign of x_1 favoured 4 to 1; the rest are independent, of spread 0.5.
    """
    e = keys.normal(key, 0, "known/e", (KNOWN_SIZE,))
    chain = [e[:, 0]]
    for k in range(1, 4):
        chain.append(0.8 * chain[-1] + 0.6 * e[:, k])
    spread = (0.9 + 0.6 * x[:, :1]) * torch.stack(chain, dim=-1)
    side = torch.where(keys.uniform(key, 0, "known/side") < 0.8, 1.0, -1.0) * torch.sign(x[:, 1])
    two = (side + 0.2 * e[:, 4]).unsqueeze(-1)
    return _known_prior(x) + torch.cat([spread + x[:, 2:3].square(), two, 0.5 * e[:, 5:]], dim=-1)


def known(work: Path, scale: float) -> list[dict[str, Any]]:
    """Each sampler's energy score beside the truth's own, and the features that make the problem hard."""
    pairs = known_pairs(keys.from_seed(KNOWN_SEED, 2000))
    truth = torch.stack([_again(pairs, n) for n in range(SAMPLES)])
    model = fresh(DiffusionConfig(128, 2, 64, 1, 2), KNOWN_SIZE, KNOWN_PARTS, SEED)
    some = known_pairs(keys.from_seed(KNOWN_SEED + 10**6, 4000))
    model.units.measure(some.z_post - some.z_prior)

    def draw(step: int) -> tuple[Pairs, Tensor]:
        key = keys.from_seed(KNOWN_SEED + 10**7 + step * 512, 512)
        return known_pairs(key), keys.fold(key, "loss")

    rows = [_known_row("truth", truth, pairs, model)]
    count = max(20, round(STEPS * scale))
    start = copy.deepcopy(model.teacher.state_dict())
    for name, sampler in (("rectified flow", RectifiedFlow()), ("ddpm", DDPM())):
        model.teacher.load_state_dict(start)
        stage = f"known_{name.replace(' ', '_')}"
        train_teacher(model, sampler, draw, Schedule(count), work, stage, partial=False)
        tried: list[tuple[str, Sampler, int]] = [(name, sampler, 50), (name, sampler, 10), (name, sampler, 3)]
        tried += [("ddim", DDIM(), 50)] if name == "ddpm" else [("heun", RectifiedFlow(heun=True), 10)]
        rows += [
            _known_row(f"{label}, {steps}", _draw_known(model, pairs, one, steps), pairs, model)
            for label, one, steps in tried
        ]
    train_student(model, draw, Schedule(count), work, "known_student", partial=False)
    return [*rows, _known_row("student, 2", _draw_known(model, pairs, None, 2), pairs, model)]


def _again(pairs: Pairs, n: int) -> Tensor:
    """A further sample of the truth under the same x."""
    return known_post(pairs.parts["x"], keys.fold(keys.from_seed(KNOWN_SEED, len(pairs.z_pre)), 100 + n))


@torch.no_grad()
def _draw_known(model: LatentDiffusion, pairs: Pairs, sampler: Sampler | None, steps: int) -> Tensor:
    _, condition, given = model.prepare(pairs)
    key = keys.from_seed(KNOWN_SEED + 5 * 10**8, len(given))
    return torch.stack([model.sample(condition, given, keys.fold(key, n), sampler, steps) for n in range(SAMPLES)])


def _known_row(name: str, samples: Tensor, pairs: Pairs, model: LatentDiffusion) -> dict[str, Any]:
    x, off = pairs.parts["x"], samples - pairs.z_prior
    side = ((off[..., 4] * torch.sign(x[:, 1])) > 0).float().mean()
    between = (off[..., 4].abs() < 0.4).float().mean()  # hardly ever in truth
    wide, narrow = x[:, 0] > 0.5, x[:, 0] < -0.5
    ratio = samples[:, wide, 0].std(0).mean() / samples[:, narrow, 0].std(0).mean()
    told = scores(samples, pairs.z_post, model.units.scale)
    more = {"favoured_side": float(side), "between_modes": float(between), "spread_ratio": float(ratio)}
    return {"sampler": name, **told, **more}
