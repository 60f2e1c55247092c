"""Teaching the few-step student: on the energy score of its own samples, or by regression on a teacher's.

- `scored`: the energy score of several of its samples for what was observed, a proper score (Gneiting & Raftery 2007,
  doi 10.1198/016214506000001437), so at its least the student's distribution is that of the data, however few steps it
  takes. The joint score in many dimensions hardly feels how two entries go together, so to it and to each entry's own
  score those of random pairs of entries are added, turned by a random angle.
- `regressed`: the distance to where the teacher's deterministic sampler takes the same noise (as the distillation of
  rectified flow, Liu 2023, arXiv 2209.03003). Only ever as good as the teacher.

The observed may be the data, a teacher's samples of further conditions, or both by turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.diffusion.student import FewStepStudent
from world_models.ecg_wm.flow import energy_score

__all__ = ["pair_score", "regressed", "scored"]


def pair_score(samples: Tensor, observed: Tensor, key: Tensor) -> Tensor:
    """Mean one-dimensional energy score [B] of samples [M, B, Z] along random directions of two entries each.

    As many directions as entries; one set for the whole batch, from the first of keys [B].
    """
    size = observed.shape[-1]
    one = torch.argsort(keys.uniform(key[:1], 0, "distil/pairs", (size,)).squeeze(0))
    other = one.roll(1)
    angle = 2 * math.pi * keys.uniform(key[:1], 0, "distil/angles", (size,)).squeeze(0)

    def turned(x: Tensor) -> Tensor:
        return x[..., one] * angle.cos() + x[..., other] * angle.sin()

    drawn, seen = turned(samples), turned(observed)
    count = samples.shape[0]
    # Of a sorted sample the mean distance between two of it is a weighted sum: no table of pairs is needed.
    rank = torch.arange(1, count + 1, dtype=drawn.dtype, device=drawn.device)
    weight = (2 * rank - count - 1) / (count * (count - 1))
    apart = (drawn.sort(0).values * weight[:, None, None]).sum(0)
    return ((drawn - seen).abs().mean(0) - apart).mean(-1)


def scored(
    student: FewStepStudent,
    observed: Tensor,
    condition: Tensor,
    key: Tensor,
    samples: int = 8,
    energy: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The student's loss, a scalar, for observed z [B, Z] under conditions [B, C]; keys [B].

    Args:
        samples: of the student, for each condition; at least 2.
        energy: of z [B, Z], already weighted; its mean over one of the samples is added (the EPK term).

    Raises:
        ValueError: fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"samples={samples}; the energy score compares samples with each other: give at least 2")
    noise = keys.normal(key, 0, "distil/noise", (samples, observed.shape[-1])).transpose(0, 1)
    drawn = student(noise, condition)
    loss = (energy_score(drawn, observed) + pair_score(drawn, observed, key)).mean()
    return loss if energy is None else loss + energy(drawn[0]).mean()


def regressed(student: FewStepStudent, noise: Tensor, taught: Tensor, condition: Tensor) -> Tensor:
    """Mean absolute distance, a scalar, between the student's samples and the teacher's [B, Z] of the same noise."""
    return (student(noise, condition) - taught).abs().mean()
