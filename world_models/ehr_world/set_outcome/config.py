"""Sizes of a learned ward."""

from __future__ import annotations

from dataclasses import dataclass

from world_models.config_json import check_sizes

__all__ = ["BACKBONES", "SetOutcomeConfig"]

BACKBONES = ("gru", "transformer")


@dataclass(frozen=True)
class SetOutcomeConfig:
    """Saved as JSON beside the weights, together with the vocabulary.

    Raises:
        ValueError: an unknown backbone, or a size below 1 or far beyond what is ever trained.
    """

    name: str = "ehr-ward-small"
    hidden: int = 192  # of the backbone
    layers: int = 2  # of the backbone
    query: int = 128  # width of the query head
    rank: int = 8  # of the copula
    with_diagnoses: bool = False  # condition on discharge diagnoses: they tell the future
    admissions: int = 1024  # rows of the table that generated patients are sampled from
    longest_h: float = 336.0  # of a training stay
    backbone: str = "gru"  # or "transformer": see `backbone`
    trends: bool = False  # queries read how an item has gone: see `trends`
    repeats: bool = False  # a share of the mass may lie on the last report: see `marginal`
    deep_orders: bool = True  # all of the network reads orders; else they act by the table of straight effects alone
    temperature: float = 1.0  # of the bins' masses, set once trained: see `temperature`
    ends_by_chart: bool = False  # death and discharge read last values, not how much is charted: see `ends`
    # of each intervention's straight effects, what shows in records, where it is given because of what it prevents:
    # used to foretell recorded orders, not what an agent's orders do; empty: all of it
    recorded_gain: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {self.backbone!r}; there are: {', '.join(BACKBONES)}")
        check_sizes(self, hidden=65_536, layers=256, query=65_536, admissions=1 << 24)
        check_sizes(self, least=0, rank=1024)
        if not 0.1 <= self.temperature <= 10:
            raise ValueError(f"temperature={self.temperature:g} must be from 0.1 to 10; 1 leaves masses as they are")
        if not 0 < self.longest_h <= 1e6:
            raise ValueError(f"longest_h={self.longest_h:g} must be above 0 h and at most 1e6 h")
