"""Quantity: the one place where a name, its unit and its range are written down."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAYS_PER_MONTH", "DAYS_PER_YEAR", "Quantity", "by_name"]

DAYS_PER_YEAR = 365.25  # of the Julian calendar, as epidemiology counts
DAYS_PER_MONTH = DAYS_PER_YEAR / 12.0


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that can be measured, ordered or fixed.

    `low` and `high` bound every value a world may put in a chart (or accept in an order), and become the bounds of
    the Gymnasium space. A measure that `may_be_missing` is NaN where there is none; an observation then shows the last
    one (`clinenv.readings`). `unit` is never empty: a pure number says "1", a share "fraction", a yes/no "bool".
    """

    name: str  # snake_case, ends in the unit where it has one: qtcf_ms
    unit: str  # UCUM-like: ms, bpm, mg, h, mV, fraction, bool, 1
    low: float
    high: float
    shape: tuple[int, ...] = ()  # of one patient's value: () for a scalar, (12, 5000) for an ECG
    meaning: str = ""  # one line for the documentation page
    on_request: bool = False  # True: costly, so `observe` gives it only when it is asked for by name
    may_be_missing: bool = False  # True: NaN in a chart where there is none now (PR without a P wave)

    def __post_init__(self) -> None:
        if not self.name or not self.unit:
            raise ValueError(
                f"Quantity {self.name!r} needs a name and a unit (unit={self.unit!r}); a pure number has unit '1'"
            )
        if not self.low < self.high:
            raise ValueError(f"Quantity {self.name!r} needs low < high, got low={self.low}, high={self.high}")


def by_name(quantities: tuple[Quantity, ...], name: str) -> Quantity:
    """The quantity of that name.

    Raises:
        KeyError: there is none; the message lists the names there are.
    """
    for quantity in quantities:
        if quantity.name == name:
            return quantity
    raise KeyError(f"no quantity {name!r}; there are: {', '.join(q.name for q in quantities)}")
