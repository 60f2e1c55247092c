"""What a causal ward is, as its folder's world.json keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from world_models.config_json import check_sizes

__all__ = ["CausalWardConfig"]

MOST_TOKENS = 1 << 20  # of a window
MOST_ROWS = 1 << 16  # patients read at once


@dataclass(frozen=True)
class CausalWardConfig:
    """Raises ValueError: a size or a number out of its limits."""

    name: str = "ehr-ward-lm"
    window: int = 1024  # tokens of a stay that are kept; a fuller one begins anew from its last half
    cache: bool = True  # keep the model's keys and values in the state; False: read the window again at every step
    at_once: int = 64  # patients read at once: bounds the memory of a step, changes nothing else
    temperature: float = 1.0  # of the draws
    hours_per_step: float = 4.0
    longest_h: float = 336.0  # stays of training; `support` is false beyond
    most_given: int = 30  # interventions at once, in training

    def __post_init__(self) -> None:
        check_sizes(self, window=MOST_TOKENS, at_once=MOST_ROWS)
        for name, most in (("temperature", 100.0), ("hours_per_step", 168.0), ("longest_h", 1e6)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)!r} must be above 0 and at most {most:g}")
