"""How a chart's names read on paper: `qtcf_ms` is "QTcF" in "ms"."""

from __future__ import annotations

__all__ = ["LIMITS", "NOT_FOR_CLINICAL_USE", "hour_ticks", "least_span", "nice_ticks", "order_title", "reading"]

NOT_FOR_CLINICAL_USE = "Simulation - not for clinical use"

_NAMES = {
    "heart_rate_bpm": "Heart rate",
    "pr_ms": "PR",
    "qrs_ms": "QRS",
    "qt_ms": "QT",
    "qtcf_ms": "QTcF",
    "jt_peak_ms": "J-Tpeak",
    "jt_peak_c_ms": "J-Tpeak c",
    "tpeak_tend_ms": "Tpeak-Tend",
    "rr_ms": "RR",
    "baseline_qtcf_ms": "Baseline QTcF",
    "arrhythmia_burden": "Arrhythmia burden",
    "torsades": "Torsades",
}
_UNITS = {"ms": "ms", "bpm": "bpm", "mg": "mg", "mv": "mV", "kg": "kg", "years": "years", "hours": "h"}

# The line a reader looks for: 500 ms QTcF stops a drug by its label (dofetilide) and is the top class of ICH E14.
LIMITS = {"qtcf_ms": 500.0}


def reading(name: str) -> tuple[str, str]:
    """(what it is called, its unit); a name that is not known is read from its own words and ending."""
    stem, _, suffix = name.rpartition("_")
    unit = _UNITS.get(suffix, "")
    if name in _NAMES:
        return _NAMES[name], unit
    words = (stem if unit else name).replace("_", " ")
    return words[:1].upper() + words[1:], unit


_ORDER_UNITS = (
    "_ug_kg_min", "_units_kg_h", "_ml_kg_h", "_units_min", "_units_h", "_ml_h", "_l_min", "_fraction", "_mmol", "_units",
    "_ml", "_mg", "_g",
)  # fmt: skip


def order_title(name: str) -> str:
    """An order's name in words, without its unit: `renal_replacement_ml_kg_h` is "renal replacement"."""
    suffix = next((unit for unit in _ORDER_UNITS if name.endswith(unit)), "")
    return name.removesuffix(suffix).replace("_", " ")


def least_span(name: str) -> float:
    """The smallest range a trend's axis shows, so that measuring noise is not drawn as a mountain range."""
    return {"ms": 20.0, "bpm": 10.0}.get(reading(name)[1], 0.1)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** (len(f"{int(rough)}") - 1) if rough >= 1 else 10.0 ** -(len(f"{int(1 / rough)}"))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20, 50, 100) if power * m >= rough)
    first = -(-low // step)
    return [round((first + i) * step, 10) for i in range(int((high - first * step) // step) + 1)]


def hour_ticks(end: float, count: int = 5) -> list[float]:
    """Hours from 0 to `end` in steps a ward counts in: 1, 2, 3, 6, 12, 24, ..."""
    step = next((s for s in (0.5, 1, 2, 3, 6, 12, 24, 48) if end / s <= count), 24 * max(round(end / 24 / count), 3))
    return [i * float(step) for i in range(int(end / step + 1e-9) + 1)]
