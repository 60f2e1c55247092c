"""What no chart shows of a patient and a good eye at the bedside sees: the hidden severity, as a rank in (0, 1).

Of each oracle one quantity, chosen because it bears on the outcome and the charts say little of it:

- drug start: the arrhythmia to come, that is the mean burden of the next 48 h if nothing were ordered (the patient's
  own course with his own luck), beyond what his burden at admission leads one to expect;
- ward: the hazard of death now (`WardOracle.truth`'s severity);
- clinic: the mean log frailty over the groups of disease.

The rank is that among REFERENCE patients of the same world at admission, so that it is uniform there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from world_models import keys
from world_models.protocol import Oracle

__all__ = ["REFERENCE", "HiddenRank"]

REFERENCE = 2048  # patients that ranks are among
EXPECTED_DEGREE = 3  # of the polynomial in the burden at admission that foretells the burden to come


def _burden_to_come(simulator: Simulator, state: Any) -> Tensor:
    """float32 [B], 0 .. 1: the mean over an untreated episode."""
    steps = round(simulator.task.horizon_hours / simulator.world.hours_per_step)
    chart = simulator.world.observe(state)
    nothing = torch.zeros(len(state.key), steps, len(simulator.world.orders), device=simulator.device)
    return simulator.rollout(state, chart, nothing).charts["arrhythmia_burden"][:, 1:].mean(-1)


def _of_truth(name: str) -> Callable[[Simulator, Any], Tensor]:
    """The mean over its columns of a hidden quantity that the oracle names."""

    def read(simulator: Simulator, state: Any) -> Tensor:
        assert isinstance(simulator.world, Oracle)
        value = simulator.world.truth(state)[name]
        return value if value.ndim == 1 else value.mean(-1)

    return read


class _Severity(NamedTuple):
    read: Callable[[Simulator, Any], Tensor]  # float32 [B], higher is sicker
    beyond: str = ""  # a measure of the chart; the severity is what it does not foretell of `read`
    changes: bool = False  # from step to step; else it is that at admission throughout


_SEVERITY: dict[str, _Severity] = {
    "ECGDrug": _Severity(_burden_to_come, "arrhythmia_burden"),
    "EHRWard": _Severity(_of_truth("severity"), changes=True),
    "ECGProgression": _Severity(_of_truth("log_frailty")),
}


class HiddenRank:
    """Ranks the hidden severity of patients of one simulator.

    Attributes:
        changes: whether to ask at every step; else what was said at admission holds.

    Raises:
        ValueError: its world is learned, or no severity is defined for its task.
    """

    def __init__(self, simulator: Simulator) -> None:
        if not isinstance(simulator.world, Oracle):
            raise ValueError(
                f"world {simulator.world.name!r} is learned: nobody knows what it hides. Log in the oracle, or turn "
                "the dial of confounding to 0"
            )
        if simulator.task.name not in _SEVERITY:
            raise ValueError(
                f"task {simulator.task.name!r} has no hidden severity; there is one for {', '.join(_SEVERITY)}"
            )
        self._simulator, self._severity = simulator, _SEVERITY[simulator.task.name]
        self.changes = self._severity.changes
        self._foretold: Tensor | None = None  # float64 [EXPECTED_DEGREE + 1]: of the polynomial
        state = simulator.world.initial(keys.fold(keys.from_seed(0, REFERENCE, simulator.device), "offline/reference"))
        if self._severity.beyond:
            found = self._severity.read(simulator, state).to(torch.float64)
            self._foretold = torch.linalg.lstsq(self._powers(state), found.unsqueeze(-1)).solution.squeeze(-1)
        self._reference = self.severity(state).sort().values

    @staticmethod
    def defined(simulator: Simulator) -> bool:
        """Whether there is a hidden severity for this world and task."""
        return isinstance(simulator.world, Oracle) and simulator.task.name in _SEVERITY

    def _powers(self, state: Any) -> Tensor:
        """float64 [B, EXPECTED_DEGREE + 1] of the measure that foretells."""
        seen = self._simulator.world.observe(state)[self._severity.beyond].to(torch.float64)
        return torch.stack([seen**power for power in range(EXPECTED_DEGREE + 1)], -1)

    @torch.no_grad()
    def severity(self, state: Any) -> Tensor:
        """float32 [B], in its own unit; higher is sicker."""
        found = self._severity.read(self._simulator, state)
        if self._foretold is not None:
            found = found - self._powers(state) @ self._foretold
        return found.to(torch.float32)

    def __call__(self, state: Any) -> Tensor:
        """float32 [B] in (0, 1); who ties with several of the reference stands in their middle."""
        found = self.severity(state)
        below = torch.searchsorted(self._reference, found)
        up_to = torch.searchsorted(self._reference, found, right=True)
        return ((below + up_to).to(torch.float32) * 0.5 + 0.5) / (REFERENCE + 1)
