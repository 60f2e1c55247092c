"""Units by an explicit table: how a unit is spelt, and what converts into what, item by item.

Nothing is guessed. A unit that is not in the table is not converted: the value is dropped and counted under its item
and unit, and `check_units` makes an error of it where an item loses more than the tolerance.

Molar masses: glucose 180.16, creatinine 113.12, urea nitrogen 28.01 (per mole of urea), bilirubin 584.7, calcium
40.08, magnesium 24.305, phosphorus 30.97, cholesterol 386.7, triglycerides 885.7, uric acid 168.1 g/mol (k).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from world_models.data.ehr.flow import Flow
from world_models.data.ehr.inquiry_items import by_name

__all__ = ["CONVERSIONS", "Conversion", "UnitError", "check_units", "conversion", "dose_conversion", "largest_amount"]
__all__ += ["spell", "spell_dose"]


class UnitError(ValueError):
    """Values of one item come in units that no conversion is known for."""


class Conversion(NamedTuple):
    """ours = factor * theirs + offset."""

    factor: float = 1.0
    offset: float = 0.0


# Other spellings of the same unit, lower case, blanks removed.
_SPELLINGS: dict[str, str] = {
    "mmol/l": "mmol/L", "meq/l": "mEq/L", "mg/dl": "mg/dL", "g/dl": "g/dL", "gm/dl": "g/dL", "g/l": "g/L",
    "mg/l": "mg/L", "ug/ml": "ug/mL", "mcg/ml": "ug/mL", "ng/ml": "ng/mL", "ng/l": "ng/L", "pg/ml": "pg/mL",
    "ug/l": "ug/L", "mcg/l": "ug/L",
    "umol/l": "umol/L", "micromol/l": "umol/L", "iu/l": "U/L", "u/l": "U/L", "unit/l": "U/L", "units/l": "U/L",
    "k/ul": "10*3/uL", "10*3/ul": "10*3/uL", "10^3/ul": "10*3/uL", "10*9/l": "10*3/uL", "10^9/l": "10*3/uL",
    "thou/ul": "10*3/uL", "x10e9/l": "10*3/uL", "#/ul": "#/uL",
    "m/ul": "10*6/uL", "10*6/ul": "10*6/uL", "10^6/ul": "10*6/uL", "10*12/l": "10*6/uL",
    "mmhg": "mm[Hg]", "mm[hg]": "mm[Hg]", "kpa": "kPa", "cmh2o": "cm[H2O]", "cm[h2o]": "cm[H2O]",
    "%": "%", "percent": "%", "fraction": "fraction",
    "sec": "s", "secs": "s", "seconds": "s", "s": "s", "fl": "fL", "pg": "pg",
    "mosm/kg": "mOsm/kg", "bpm": "bpm", "insp/min": "/min", "/min": "/min", "breaths/min": "/min",
    "°c": "Cel", "?c": "Cel", "degc": "Cel", "c": "Cel", "cel": "Cel", "deg.c": "Cel",
    "°f": "degF", "?f": "degF", "degf": "degF", "f": "degF", "[degf]": "degF", "deg.f": "degF",
    "kg": "kg", "lb": "lb", "lbs": "lb", "lbs.": "lb", "cm": "cm", "inch": "in", "inches": "in", "in": "in", "m": "m",
    "ml": "mL", "ml/b": "mL", "l": "L", "l/min": "L/min", "lpm": "L/min",
    "units": "1", "points": "1", "1": "1", "ratio": "1", "mg/dlfeu": "mg/dL FEU",
}  # fmt: skip

# Any item: from -> to.
_GENERAL: dict[tuple[str, str], Conversion] = {
    ("degF", "Cel"): Conversion(5 / 9, -160 / 9),
    ("lb", "kg"): Conversion(0.45359237),
    ("in", "cm"): Conversion(2.54),
    ("m", "cm"): Conversion(100.0),
    ("kPa", "mm[Hg]"): Conversion(7.50062),
    ("L", "mL"): Conversion(1000.0),
    ("g/L", "g/dL"): Conversion(0.1),
    ("g/L", "mg/dL"): Conversion(100.0),
    ("g/dL", "mg/dL"): Conversion(1000.0),
    ("mg/dL", "mg/L"): Conversion(10.0),
    ("ug/mL", "mg/L"): Conversion(),
    ("ug/L", "ng/mL"): Conversion(),
    ("ng/L", "ng/mL"): Conversion(0.001),
    ("ng/mL", "ng/L"): Conversion(1000.0),
    ("pg/mL", "ng/L"): Conversion(),
    ("ug/L", "ng/L"): Conversion(1000.0),
    ("pg/mL", "ng/mL"): Conversion(0.001),
    ("ng/mL", "pg/mL"): Conversion(1000.0),
    ("ng/L", "pg/mL"): Conversion(),
    ("#/uL", "10*3/uL"): Conversion(0.001),
    ("fraction", "%"): Conversion(100.0),
    ("%", "fraction"): Conversion(0.01),
}

# One item only: what a mole or an equivalent weighs. (item, from) -> into the item's unit.
CONVERSIONS: dict[tuple[str, str], Conversion] = {
    **{
        (item, "mEq/L"): Conversion()  # one charge a particle
        for item in (
            "sodium_mmol_l", "potassium_mmol_l", "chloride_mmol_l", "bicarbonate_mmol_l",
            "anion_gap_mmol_l", "base_excess_mmol_l",
        )
    },
    ("respiratory_rate_min", "bpm"): Conversion(),  # breaths
    ("glucose_mg_dl", "mmol/L"): Conversion(18.016),
    ("creatinine_mg_dl", "umol/L"): Conversion(1 / 88.4),
    ("urea_nitrogen_mg_dl", "mmol/L"): Conversion(2.801),
    ("bilirubin_mg_dl", "umol/L"): Conversion(1 / 17.1),
    ("calcium_mg_dl", "mmol/L"): Conversion(4.008),
    ("ionized_calcium_mmol_l", "mg/dL"): Conversion(1 / 4.008),
    ("ionized_calcium_mmol_l", "mEq/L"): Conversion(0.5),
    ("magnesium_mg_dl", "mmol/L"): Conversion(2.4305),
    ("magnesium_mg_dl", "mEq/L"): Conversion(1.21525),
    ("phosphate_mg_dl", "mmol/L"): Conversion(3.097),
    ("lactate_mmol_l", "mg/dL"): Conversion(1 / 9.008),
    ("cholesterol_mg_dl", "mmol/L"): Conversion(38.67),
    ("triglycerides_mg_dl", "mmol/L"): Conversion(88.57),
    ("uric_acid_mg_dl", "umol/L"): Conversion(1 / 59.48),
    ("haemoglobin_g_dl", "mmol/L"): Conversion(1.6114),  # per monomer
}  # fmt: skip


def spell(unit: object) -> str:
    """The unit as we write it; '' for none. An unknown one comes back stripped."""
    text = "" if unit is None or unit != unit else str(unit).strip()
    if text.upper() in ("", "UNK", "NONE", "NAN"):
        return ""
    return _SPELLINGS.get(text.lower().replace(" ", "").replace("µ", "u").replace("μ", "u"), text)


def conversion(item: str, unit: str, to: str) -> Conversion | None:
    """From a unit (as `spell` gives it) into the item's; None where the table has nothing to say."""
    if unit == to:
        return Conversion()
    return CONVERSIONS.get((item, unit)) or _GENERAL.get((unit, to))


# An item of which this share or more is implausible, of at least so many values, is in another unit than its source's.
MOST_IMPLAUSIBLE, FEWEST_IMPLAUSIBLE = 0.1, 20


def check_units(flow: Flow, tolerance: float = 0.01) -> None:
    """Refuse a run in which an item lost more than `tolerance` of its values to units that are not in the table, or
    MOST_IMPLAUSIBLE of them to its plausible range: a table without units is then not in those of its publisher.

    Raises:
        UnitError: names the item, the units or the range, and the counts.
    """
    _check_plausible(flow)
    bad = []
    for item, units in sorted(flow.unknown_units.items()):
        lost, met = sum(units.values()), flow.values[item]
        if lost > tolerance * met:
            seen = ", ".join(f"{unit or 'no unit'!r} x {n}" for unit, n in units.most_common(5))
            bad.append(f"{item}: {lost} of {met} values in {seen}")
    if bad:
        raise UnitError(
            f"mixed units: more than {tolerance:g} of an item's values have a unit that cannot be converted: "
            f"{'; '.join(bad)}; add the conversion to units.CONVERSIONS, correct the table, or raise the tolerance"
        )


def _check_plausible(flow: Flow) -> None:
    bad = []
    for name, lost in sorted(flow.implausible.items()):
        if lost >= FEWEST_IMPLAUSIBLE and lost >= MOST_IMPLAUSIBLE * flow.values[name]:
            item = by_name(name)
            bad.append(f"{name}: {lost} of {flow.values[name]} values outside {item.low:g}..{item.high:g} {item.unit}")
    if bad:
        raise UnitError(
            f"another unit: {MOST_IMPLAUSIBLE:.0%} or more of an item's values are implausible: {'; '.join(bad)}; "
            "convert the column to the unit its publisher states (values of one item in several units are not told "
            "apart), or leave it out"
        )


# Doses. A spelling of ours: mass ug mg g kg, volume mL L, [U] (unit), mmol mEq, per kg, per min or h.
_DOSE_WORDS = {
    "mcg": "ug", "ug": "ug", "µg": "ug", "mg": "mg", "g": "g", "gm": "g", "gram": "g", "grams": "g", "ml": "mL",
    "l": "L", "unit": "[U]", "units": "[U]", "u": "[U]", "iu": "[U]", "[u]": "[U]", "meq": "mEq", "mmol": "mmol",
    "ng": "ng",
    "kg": "kg", "min": "min", "hour": "h", "hr": "h", "h": "h", "day": "d", "dose": "dose",
}  # fmt: skip
# CareVue writes rates without a stroke: mcgkgmin, Uhr, mLhr.
_CAREVUE = re.compile(r"^(mcg|mg|ml|u|meq|gm|ng)(kg)?(min|hr)$")
_SCALE = {"ng": ("g", 1e-9), "ug": ("g", 1e-6), "mg": ("g", 1e-3), "g": ("g", 1.0), "mL": ("L", 1e-3), "L": ("L", 1.0)}
# No dose of any drug, and no rate per minute, hour or day, is above these: 1 kg, 20 L, ... of words like "tab" 10,000
_LARGEST = {"g": 1_000.0, "L": 20.0, "[U]": 1e8, "mmol": 10_000.0, "mEq": 10_000.0}
_LARGEST_COUNT = 10_000.0
_MONOVALENT = frozenset({"potassium_chloride", "bicarbonate"})
_PER = {"min": 1.0, "h": 60.0, "d": 1440.0}  # minutes


def spell_dose(unit: object) -> str:
    """A dose's or rate's unit as we write it: 'mcg/kg/min' -> 'ug/kg/min', 'Uhr' -> '[U]/h', 'mEq./hour' -> 'mEq/h'.

    A word that is not known ('TAB', 'BAG') is kept in lower case.
    """
    text = "" if unit is None or unit != unit else str(unit).strip()
    if text.upper() in ("", "UNK", "NONE", "NAN", "___"):
        return ""
    lower = text.lower().replace(" ", "").replace("μ", "µ")
    carevue = _CAREVUE.match(lower)
    words = [word for word in carevue.groups() if word] if carevue else lower.split("/")
    return "/".join(_DOSE_WORDS.get(word.rstrip("."), word) for word in words)


def dose_conversion(item: str, unit: str, to: str) -> float | None:
    """The factor from one dose unit (as `spell_dose` gives it) to another; None where they measure different things.

    Masses with masses, volumes with volumes, per kg with per kg; a patient's weight or a drug's molar mass is never
    assumed. Milliequivalents are millimoles for the salts in `_MONOVALENT` only.
    """
    if unit == to:
        return 1.0
    if item in _MONOVALENT:
        unit, to = unit.replace("mEq", "mmol"), to.replace("mEq", "mmol")
    ours, theirs = _dose_parts(unit), _dose_parts(to)
    if ours is None or theirs is None or ours[:2] != theirs[:2]:
        return None
    return round(ours[2] / theirs[2], 12)


def largest_amount(unit: str) -> float:
    """The highest dose or rate, in a unit (as `spell_dose` gives it), that is kept of a drug nobody has listed."""
    head = unit.partition("/")[0]
    base, scale = _SCALE.get(head, (head, 1.0))
    return _LARGEST.get(base, _LARGEST_COUNT) / scale


def _dose_parts(unit: str) -> tuple[str, tuple[str, ...], float] | None:
    """(base amount, what it is per, scale): 'mg/kg/min' -> ('g', ('kg', 't'), 1e-3)."""
    head, *per = unit.split("/")
    base, scale = _SCALE.get(head, (head, 1.0))
    kinds = []
    for word in per:
        if word in _PER:
            scale /= _PER[word]
            kinds.append("t")
        elif word == "kg":
            kinds.append("kg")
        else:
            return None
    return base, tuple(sorted(kinds)), scale
