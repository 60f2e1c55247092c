"""What a rollout in the learned progression world carries."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["ProgressionBelief"]


class ProgressionBelief(NamedTuple):
    """B patients, C conditions, Z entries of the latent."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B] visits since the first
    entry_age_years: Tensor  # [B]
    sex_female: Tensor  # [B]
    years: Tensor  # [B] since the first visit
    months_since_visit: Tensor  # [B]
    condition: Tensor  # [B, C] 0 or 1
    believed: Tensor  # [B, C] chance of each now: `condition` itself where it is known
    ever: Tensor  # [B, PROCEDURES] procedures done
    taken: Tensor  # [B, DRUGS] drugs since the last visit
    bleeding: Tensor  # [B]
    dead: Tensor  # [B]
    latent: Tensor  # [B, Z] what the predictor expects of this visit's ECG
    shift: Tensor  # [B, Z] how this visit's ECG differs from it
