"""From ranked candidates to the page's content: wording, no new numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clinenv.commands.recommend.candidates import NOTHING
from clinenv.commands.recommend.evaluate import LEAST_BENEFIT, Evaluation, headline, turned_round
from clinenv.commands.recommend.inputs import BLOOD
from clinenv.commands.recommend.page import Content
from clinenv.ecg.measurement import RATE_HZ, Measurement

if TYPE_CHECKING:
    from clinenv.commands.recommend.advice import Advice
    from clinenv.commands.simulate.inputs import Patient

__all__ = ["content_of"]


def content_of(
    found: Measurement,
    patient: Patient,
    order: Sequence[Evaluation],
    given: argparse.Namespace,
    described: Mapping[str, str],
    blood: Mapping[str, float],
    warnings: Sequence[str],
    advice: Advice | None,
    command: str,
) -> Content:
    """The report of one recommendation.

    Args:
        order: as `evaluate.ranked` gives it.
        described: what `clinenv.commands.worlds.about` says of the world, and the predictor's seal.
        blood: what was given of the blood.
        command: the command line that makes the page again, or nothing.
    """
    relied_on = "can be relied on" if found.trusted else "should not be relied on"
    words = {name: (flag.replace("_", " ").capitalize(), unit) for flag, (name, unit, _, _) in BLOOD.items()}
    doses = "one dose at hour 0" if given.regimen == "single" else "repeated as the label has it"
    return Content(
        title=f"Drugs and doses compared over {given.hours:g} hours",
        lead=f"{len(order) - 1} treatments, {doses}, and no drug, for the patient of ECG record {found.record}",
        facts=(
            ("ECG record", found.record),
            ("Age", f"{patient.age_years:g} years"),
            ("Sex", "female" if patient.sex_female else "male"),
            ("Weight", "not given" if patient.weight_kg is None else f"{patient.weight_kg:g} kg"),
            *((words[n][0], f"{v:g} {words[n][1]}") for n, v in blood.items()),
            *((("Also takes", given.taking),) if given.taking else ()),
            ("World", described["World"]),
            ("Samples", f"{given.samples} each, seed {given.seed}"),
        ),
        summary=_summary(order),
        order=order,
        samples=given.samples,
        risk_aversion=given.risk_aversion,
        hours=given.hours,
        intervals=dict(found.intervals),
        quality=f"Quality {found.quality:.2f} of 1: the measurement {relied_on}.",
        ecg_mv=found.ecg_mv.numpy(),
        sampling_rate_hz=RATE_HZ,
        model=tuple(described.items()),
        advice=() if advice is None else advice.rows(),
        answer="" if advice is None else advice.text,
        warnings=tuple(warnings),
        notes=(
            "The risk is the predictor's chance of torsades de pointes, a QTcF above 500 ms or one more than 60 ms "
            "above the recorded ECG, at that ECG or in the 24 h after it if nothing more is given. All candidates are "
            "simulated on the same samples: those share the recorded ECG and differ in what it does not tell.",
        ),
        command=command,
    )


def _summary(order: Sequence[Evaluation]) -> tuple[str, ...]:
    """What comes out, in sentences."""
    said = [
        "The order is one of risk alone. Giving nothing adds no risk, so it usually comes first, and it treats "
        "nothing: read the arrhythmia's change beside the risk."
    ]
    said += [
        f"S prefers {a.candidate.name} to {b.candidate.name}, although its mean risk is higher ({100 * a.mu:.0f} and "
        f"{100 * b.mu:.0f} %): the spread of a risk vanishes as the risk becomes certain. Read μ there."
        for a, b in turned_round(order)
    ]
    best = headline(order)
    if best is None:
        said.append(
            f"No drug that the labels allow frees this patient of the arrhythmia for {100 * LEAST_BENEFIT:g} % of the "
            "time within the hours simulated."
        )
        return tuple(said)
    said.append(
        f"Of the drugs that the labels allow and that do something for the arrhythmia, {best.candidate.name} carries "
        f"the least risk: S = {100 * best.score:.1f} %, longest QTcF {best.qtcf_peak_ms.median:.0f} ms in the median, "
        f"time in the arrhythmia {100 * best.burden_change.median:+.1f} percentage points."
    )
    allowed = [e for e in order if e.candidate.drug != NOTHING and not e.candidate.forbidden]
    most = max(allowed, key=lambda e: e.benefit)
    if most is not best:
        said.append(
            f"{most.candidate.name.capitalize()} does most for it ({100 * most.burden_change.median:+.1f} points) at "
            f"S = {100 * most.score:.1f} %."
        )
    return tuple(said)
