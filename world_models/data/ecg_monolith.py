"""The earlier name of `world_models.data.ecg.monolith`, as documents and notebooks give it."""

from world_models.data.ecg.monolith import (
    Monolith,
    MonolithError,
    MonolithWriter,
    Transitions,
    consecutive,
    from_arrays,
    pairs,
    read_monolith,
    read_records,
    split,
    stable_share,
    subset_patients,
    take,
    transitions,
)

__all__ = [
    "Monolith",
    "MonolithError",
    "MonolithWriter",
    "Transitions",
    "consecutive",
    "from_arrays",
    "pairs",
    "read_monolith",
    "read_records",
    "split",
    "stable_share",
    "subset_patients",
    "take",
    "transitions",
]
