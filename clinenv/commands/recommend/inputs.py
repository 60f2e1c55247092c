"""What `clinenv recommend` is told: its arguments, and the checks of them against a world."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.recommend.candidates import REGIMENS
from clinenv.commands.recommend.label_rules import KNOWN_OTHER_DRUGS, Facts
from clinenv.commands.simulate.inputs import MAX_HOURS, add_patient_arguments, check_settings
from clinenv.ecg.measurement import Measurement

if TYPE_CHECKING:
    from world_models.protocol import WorldModel

__all__ = ["BLOOD", "add_arguments", "blood_of", "check", "check_hours", "facts_of"]

# argument -> (measure and factor, unit, least, most): outside, a figure is a slip of the unit, not a patient
BLOOD = {
    "creatinine_clearance": ("creatinine_clearance_ml_min", "mL/min", 5.0, 250.0),
    "potassium": ("potassium_mmol_l", "mmol/L", 1.5, 9.0),
    "magnesium": ("magnesium_mmol_l", "mmol/L", 0.2, 3.0),
}
MOST_TOKENS = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv recommend`."""
    add = parser.add_argument
    add_patient_arguments(parser)
    add("--creatinine-clearance", type=float, metavar="ML/MIN", help="creatinine clearance in mL/min")
    add("--potassium", type=float, metavar="MMOL/L", help="serum potassium in mmol/L")
    add("--magnesium", type=float, metavar="MMOL/L", help="serum magnesium in mmol/L")
    add("--taking", metavar="DRUG,...", help="other drugs the patient takes, for what the labels forbid with them")
    add("--drugs", metavar="DRUG,...", help="compare these alone (default: all that the world knows)")
    add("--regimen", choices=REGIMENS, default="single", help="one dose at hour 0, or repeated as the label has it")
    add("--hours", type=float, default=24.0, help="how long to simulate (default 24)")
    add("--clock-hour", type=float, default=8.0, metavar="H", help="hour of the day at the ECG (default 8)")
    add("--samples", type=int, default=64, metavar="N", help="possible courses of each candidate (default 64)")
    add("--world", default="ecg-wm-small", help="ecg-wm-small, oracle, or a folder of weights (default ecg-wm-small)")
    add("--risk-predictor", metavar="DIR", help="a folder of a frozen risk predictor (default: the one that ships)")
    add("--seed", type=int, default=0, help="the same seed gives the same report (default 0)")
    add(
        "--lambda", dest="risk_aversion", type=float, default=1.0, metavar="L",
        help="weight of the spread in the score S = mu + lambda sigma (default 1)",
    )  # fmt: skip
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--vlm", metavar="DIR", help="also ask a vision-language model on this disk (transformers)")
    model.add_argument("--vlm-url", metavar="URL", help="also ask one behind an OpenAI-compatible address")
    add("--vlm-model", metavar="NAME", help="the name under which --vlm-url serves it")
    add("--vlm-free", action="store_true", help="let --vlm write freely instead of within the form of an answer")
    add("--vlm-tokens", type=int, default=512, metavar="N", help="longest answer of the model (default 512)")
    add("--out", metavar="HTML", help="write the report to this file")
    add("--json", metavar="OUT", help="also write the numbers to this file")


def check(given: argparse.Namespace) -> None:
    """Refuse settings out of range.

    Raises:
        UsageError: there is such a value.
    """
    check_settings(given)
    for name, (_, unit, least, most) in BLOOD.items():
        value = getattr(given, name)
        if value is not None and not least <= value <= most:
            raise UsageError(
                f"--{name.replace('_', '-')} {value:g} is outside {least:g} to {most:g} {unit}; check the unit"
            )
    if not 1 <= given.vlm_tokens <= MOST_TOKENS:
        raise UsageError(f"--vlm-tokens {given.vlm_tokens} is outside 1 to {MOST_TOKENS}; 512 is the default")
    if (given.vlm_url is None) != (given.vlm_model is None):
        raise UsageError("--vlm-url and --vlm-model go together: give the address and the model's name, or neither")
    if given.vlm_free and given.vlm is None:
        raise UsageError("--vlm-free is for --vlm; give that, or leave it out")


def check_hours(world: WorldModel[Any], hours: float) -> None:
    """Refuse a horizon that the world cannot simulate.

    Raises:
        UsageError: it is outside 0 to MAX_HOURS, or no multiple of the world's step.
    """
    if not 0 < hours <= MAX_HOURS:
        raise UsageError(f"--hours {hours:g} is outside 0 to {MAX_HOURS:g}; give a number of hours in between")
    step = world.hours_per_step
    if round(hours / step) < 1 or not math.isclose(hours / step, round(hours / step), abs_tol=1e-6):
        raise UsageError(f"--hours {hours:g} is no multiple of {step:g} h, the step of world {world.name}; give one")


def blood_of(given: argparse.Namespace) -> dict[str, float]:
    """What was given of the blood: name of the measure -> value."""
    return {BLOOD[n][0]: getattr(given, n) for n in BLOOD if getattr(given, n) is not None}


def facts_of(found: Measurement, blood: dict[str, float], taking: str | None) -> Facts:
    """What the labels' rules are asked about.

    Raises:
        UsageError: a drug that no rule knows.
    """
    others = tuple(part.strip().lower() for part in (taking or "").split(",") if part.strip())
    for name in others:
        if name not in KNOWN_OTHER_DRUGS:
            raise UsageError(
                f"--taking {name}: no rule knows this drug; leave it out, or choose of {', '.join(KNOWN_OTHER_DRUGS)}"
            )
    pr = found.intervals["pr_ms"]
    return Facts(
        qtcf_ms=found.intervals["qtcf_ms"],
        qt_ms=found.intervals["qt_ms"],
        qrs_ms=found.intervals["qrs_ms"],
        heart_rate_bpm=found.intervals["heart_rate_bpm"],
        pr_ms=pr if math.isfinite(pr) else None,
        creatinine_clearance_ml_min=blood.get("creatinine_clearance_ml_min"),
        potassium_mmol_l=blood.get("potassium_mmol_l"),
        magnesium_mmol_l=blood.get("magnesium_mmol_l"),
        taking=others,
    )
