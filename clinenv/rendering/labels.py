"""How names of a chart and of orders are shown to people: `qtcf_ms` is "QTcF" in "ms"; and ticks of axes."""

from __future__ import annotations

from world_models.quantities.progression import CONDITIONS

__all__ = [
    "LIMITS",
    "NOT_FOR_CLINICAL_USE",
    "condition_label",
    "hour_ticks",
    "label_and_unit",
    "least_span",
    "nice_ticks",
    "order_title",
]

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
    "t_amplitude_uv": "T amplitude",
    "t_asymmetry": "T asymmetry",
    "t_flatness": "T flatness",
    "erd_30_ms": "ERD 30 %",
    "lrd_30_ms": "LRD 30 %",
    "systolic_bp_mmhg": "Systolic",
    "av_block": "AV block",
    "rr_ms": "RR",
    "baseline_qtcf_ms": "Baseline QTcF",
    "arrhythmia_burden": "Arrhythmia burden",
    "torsades": "Torsades",
}
_UNITS = {"ms": "ms", "bpm": "bpm", "mg": "mg", "mv": "mV", "kg": "kg", "years": "years", "hours": "h"}
_UNITS |= {"uv": "µV", "mmhg": "mmHg"}

# The line a reader looks for: 500 ms QTcF stops a drug by its label (dofetilide) and is the top class of ICH E14.
LIMITS = {"qtcf_ms": 500.0}

_LEAST_SPANS, _LEAST_SPAN = {"ms": 20.0, "bpm": 10.0, "µV": 100.0, "mmHg": 20.0}, 0.1  # by unit; of any other


def label_and_unit(name: str) -> tuple[str, str]:
    """(label, unit) of a chart's name; an unknown name is put into words, its unit taken from its ending."""
    stem, _, suffix = name.rpartition("_")
    unit = _UNITS.get(suffix, "")
    if name in _NAMES:
        return _NAMES[name], unit
    words = (stem if unit else name).replace("_", " ")
    return words[:1].upper() + words[1:], unit


_ORDER_UNITS = (
    "_ug_kg_min",
    "_units_kg_h",
    "_ml_kg_h",
    "_units_min",
    "_units_h",
    "_ml_h",
    "_l_min",
    "_fraction",
    "_mmol",
    "_units",
    "_ml",
    "_mg",
    "_g",
)  # as order names end; the longer ones first, for some end in a shorter one


def order_title(name: str) -> str:
    """An order's name in words, without its unit: `renal_replacement_ml_kg_h` is "renal replacement"."""
    suffix = next((unit for unit in _ORDER_UNITS if name.endswith(unit)), "")
    return name.removesuffix(suffix).replace("_", " ")


def least_span(name: str) -> float:
    """The smallest range a trend's axis shows, so that measurement noise does not look like a mountain range."""
    return _LEAST_SPANS.get(label_and_unit(name)[1], _LEAST_SPAN)


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


def condition_label(code: str, longest: int = 28) -> str:
    """A condition's code and its name, cut to `longest` letters: "I10  essential hypertension"."""
    name = CONDITIONS.get(code, "").split(" (")[0]
    return f"{code}  {name}" if len(name) <= longest else f"{code}  {name[: longest - 1].rstrip()}…"
