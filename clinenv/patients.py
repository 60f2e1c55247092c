"""Whose course an environment runs: anything that says from a random key who the next patient is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from world_models.protocol import Chart

__all__ = ["Patients", "Starting"]


@runtime_checkable
class Patients(Protocol):
    """Anything that says what is fixed about new patients."""

    def factors(self, key: Tensor) -> dict[str, Tensor]:
        """Factors of the world for new patients: name -> [B, *shape] for keys [B]; the others are sampled. Pure.

        NaN where a patient's own is not known: it is sampled for that patient (`world_models.inputs.admit`).
        """


@runtime_checkable
class Starting(Patients, Protocol):
    """Patients who come with a course behind them, so that a world cannot just admit them."""

    def choose(self, options: Any) -> tuple[Any, dict[str, Any]]:
        """Of a reset's options: which start they ask for (as `begin` takes it; None: any), and the options left.

        Raises:
            ValueError: no such start.
        """

    def begin(self, key: Tensor, factors: dict[str, Tensor], start: Any) -> tuple[Any, Chart]:
        """The world's state of patients [B] where their course goes on, and the chart there. Pure."""
