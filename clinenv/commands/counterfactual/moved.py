"""What a world says of a latent that a transition moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Moved", "Neighbour"]


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
class Moved:
    """What the world says. Arrays over its C codes are chances that the probe reads."""

    codes: tuple[str, ...]
    before: np.ndarray  # [C] of the recorded ECG's latent
    after: np.ndarray  # [C] of the moved one
    without: np.ndarray  # [C] of one moved by the same months and no transition
    threshold: np.ndarray  # [C] over which the probe decides that a condition is there
    latents: np.ndarray  # [3, Z] before, after, without
    distances: dict[str, float]  # between latents; NaN where the world has nothing to measure it on
    nearest_before: tuple[Neighbour, ...]
    nearest_after: tuple[Neighbour, ...]
    stored: int  # ECGs that the nearest were looked for among
    supported: bool
    support: str  # why, in words

    def changed(self, other_than: np.ndarray) -> list[int]:
        """Codes outside the transition [C] whose decision is not what it was."""
        flips = (self.before >= self.threshold) != (self.after >= self.threshold)
        return [int(i) for i in np.flatnonzero(flips & (other_than == 0))]

    def largest(self, other_than: np.ndarray) -> list[int]:
        """Codes outside the transition [C], largest change of chance first."""
        order = np.argsort(-np.abs(self.after - self.before), kind="stable")
        return [int(i) for i in order if other_than[i] == 0]
