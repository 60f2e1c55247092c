"""What a world says of a latent that a transition moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["MovedLatent", "Neighbour"]


@dataclass(frozen=True)
class Neighbour:
    """One ECG of the world's bank."""

    row: int
    distance: float
    conditions: tuple[str, ...]
    age_years: float
    sex_female: bool
    ecg_mv: np.ndarray | None  # [12, samples] at 100 Hz, where the weights hold it


@dataclass(frozen=True)
class MovedLatent:
    """Before and after the move. Arrays over the world's C codes are probabilities that the probe reads."""

    codes: tuple[str, ...]
    before: np.ndarray  # [C] of the recorded ECG's latent
    after: np.ndarray  # [C] of the moved one
    without: np.ndarray  # [C] of one moved by the same months and no transition
    threshold: np.ndarray  # [C] from which the probe decides that a condition is there; 1: it has none
    latents: np.ndarray  # [3, Z] before, after, without
    distances: dict[str, float]  # between latents; NaN where the world has nothing to measure it on
    nearest_before: tuple[Neighbour, ...]
    nearest_after: tuple[Neighbour, ...]
    stored: int  # ECGs that the nearest were looked for among
    supported: bool
    support: str  # why, in words

    def changed(self, action: np.ndarray) -> list[int]:
        """Codes outside the transition [C] whose decision is not what it was."""
        flips = (self.before >= self.threshold) != (self.after >= self.threshold)
        return [int(i) for i in np.flatnonzero(flips & (action == 0))]

    def largest(self, action: np.ndarray) -> list[int]:
        """Codes outside the transition [C], largest change of probability first."""
        order = np.argsort(-np.abs(self.after - self.before), kind="stable")
        return [int(i) for i in order if action[i] == 0]
