"""Sizes of a learned ward."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SetOutcomeConfig"]


@dataclass(frozen=True)
class SetOutcomeConfig:
    """Saved as JSON beside the weights, together with the vocabulary."""

    name: str = "ehr-ward-small"
    hidden: int = 192  # of the backbone
    layers: int = 2  # of the GRU
    query: int = 128  # width of the query head
    rank: int = 8  # of the copula
    with_diagnoses: bool = False  # condition on discharge diagnoses: they tell the future
    admissions: int = 1024  # rows of the table that generated patients are drawn from
    longest_h: float = 336.0  # of a training stay
