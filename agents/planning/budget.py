"""How long a planner may think about one decision, in imagined steps or in time, and what it has used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Budget", "Meter"]


@dataclass(frozen=True)
class Budget:
    """The most that a decision for one patient may take; planners think until it is used up. At least one of the two.

    Patients planned together have as much time as all of them one after the other. The first round of plans is always
    scored, however long it takes. Time makes a run depend on the machine: equal runs are promised for transitions
    alone.

    Raises:
        ValueError: neither is given, or one is not above 0.
    """

    transitions: int | None = None  # imagined steps of one patient: plans x particles x horizon
    milliseconds: float | None = None

    def __post_init__(self) -> None:
        if self.transitions is None and self.milliseconds is None:
            raise ValueError("a budget needs transitions or milliseconds; pass no budget for a planner's own settings")
        for name in ("transitions", "milliseconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of a budget must be above 0, got {value}")


class Meter:
    """What one decision of `patients` patients has used, and how much more its budget pays for.

    Args:
        reserved: transitions that are kept back for the report.
    """

    def __init__(self, budget: Budget | None = None, patients: int = 1, reserved: int = 0) -> None:
        self.budget, self.patients, self._reserved = budget, patients, reserved
        self.transitions = 0  # imagined for each patient
        self.plans = 0  # of them scored: what a policy proposes comes before the first
        self._began = time.perf_counter()
        self._last: tuple[int, float] | None = None  # transitions and milliseconds of the last call

    @property
    def milliseconds(self) -> float:
        """Since the decision began, a patient."""
        return (time.perf_counter() - self._began) * 1000.0 / self.patients

    @contextmanager
    def spending(self, transitions: int) -> Iterator[None]:
        """So many steps are imagined for each patient within."""
        start = self.milliseconds
        yield
        self.spent(transitions, start)

    def spent(self, transitions: int, start_ms: float) -> None:
        """So many steps were imagined for each patient since `milliseconds` was `start_ms`."""
        self.transitions += transitions
        self._last = (transitions, self.milliseconds - start_ms)

    def affords(self, plans: int, each: int, kept: int = 0) -> int:
        """How many of `plans` plans, of `each` transitions a patient, may still be scored, so that `kept` more can be.
        Time holds nobody back before the first are.

        Raises:
            ValueError: not even the first is paid for.
        """
        if self.budget is None:
            return plans
        most = plans
        if self.budget.transitions is not None:
            most = min(most, (self.budget.transitions - self._reserved - self.transitions) // each - kept)
            least = self.transitions + each + self._reserved
            if not self.plans and self.budget.transitions < least:
                policy = f", after {self.transitions} for what the policy proposes" if self.transitions else ""
                raise ValueError(
                    f"a budget of {self.budget.transitions} transitions does not pay for one plan of {each} (particles "
                    f"x horizon) and its report{policy}; raise it to {least}, or lower particles or horizon"
                )
        if self.budget.milliseconds is not None and self.plans:
            needed = self._expected(most * each) + (self._expected(kept * each) if kept else 0.0)
            most = most if needed <= self.budget.milliseconds - self.milliseconds or self._last is None else 0
        return max(most, 0)

    def _expected(self, transitions: int) -> float:
        """Milliseconds of a call: a small one takes as long as the last, for most of it is not work but calling."""
        if self._last is None:
            return 0.0
        before, took = self._last
        return took * max(1.0, transitions / max(before, 1))
