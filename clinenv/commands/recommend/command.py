"""`clinenv recommend`: which drug and dose carries how much risk, and does how much good, for a recorded patient.

As in ECG-WM (Chen et al. 2026, arXiv 2605.17580): from the pre-dose ECG each candidate is simulated many times, a
frozen risk predictor judges the ECGs, and candidates are ranked by S = mu + lambda sigma. That order is one of risk
alone, in which doing nothing usually comes first; what each drug does to the arrhythmia stands beside it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.measure import check_measurable, measure_record
from clinenv.commands.output import output_paths, write_whole
from clinenv.commands.recommend.candidates import NOTHING, candidates_of
from clinenv.commands.recommend.evaluate import Evaluation, evaluate, headline, ranked
from clinenv.commands.recommend.inputs import BLOOD, blood_of, check, check_hours, facts_of
from clinenv.commands.simulate.command import admitted, rounded
from clinenv.commands.simulate.inputs import Patient, patient_of
from clinenv.ecg.measurement import Measurement
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from clinenv.commands.recommend.advice import Advice
    from world_models.ecg_wm.risk.predictor import RiskPredictor
    from world_models.protocol import WorldModel

__all__ = ["run"]

NEEDED = ("heart_rate_bpm", "pr_ms", "qtcf_ms", "baseline_qtcf_ms", "arrhythmia_burden", "torsades", "ecg_mv")


def run(given: argparse.Namespace) -> int:
    """Read, measure, simulate, judge, and only then write.

    Raises:
        UsageError: an argument, the record, the world, the predictor or the model cannot be used.
        OSError: a file cannot be written.
    """
    check(given)
    out, target = output_paths(given)
    from clinenv.commands.recommend.content import content_of
    from clinenv.commands.recommend.page import page
    from clinenv.commands.worlds import about, load_world

    world = load_world(given.world)
    lacking = sorted(set(NEEDED) - {q.name for q in world.measures})
    if lacking:
        raise UsageError(
            f"--world {given.world}: this world has no {', '.join(lacking)}, so drugs cannot be compared in it; take "
            "ecg-wm-small or oracle"
        )
    check_hours(world, given.hours)
    predictor = _predictor(given.risk_predictor, str(world.device))
    blood = blood_of(given)
    drugs = None if given.drugs is None else [d for d in given.drugs.split(",") if d.strip()]
    found = measure_record(given.ecg, rate_hz=given.rate_hz)
    check_measurable(found)
    facts = facts_of(found, blood, given.taking)
    candidates = candidates_of(world, facts, drugs, given.regimen)
    asked = _asked(given)
    patient = patient_of(world, found, given.age, given.sex, given.weight)
    accepted = {n: v for n, v in blood.items() if n in {q.name for q in world.factors}}
    state = admitted(world, found, patient, given.samples, given.seed, given.clock_hour, accepted)
    order = ranked(evaluate(world, state, candidates, predictor, given.hours, given.risk_aversion, blood))
    advice = None if asked is None else asked(found, patient, order, blood)
    warnings = _warnings(found, patient, order, world, predictor, blood, accepted, given.taking or "")
    described = {**about(given.world, world), "Risk predictor": f"seal SHA-256 {predictor.weights_sha256}"}
    numbers = _as_json(found, patient, order, given, described, blood, warnings, advice)
    command = "clinenv " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["recommend"] else ""
    html = page(content_of(found, patient, order, given, described, blood, warnings, advice, command))
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, html)
    if target is not None:
        write_whole(target, text)
    _print_summary(found, order, given, warnings, advice)
    for path in (p for p in (out, target) if p is not None):
        print(f"wrote {path}")
    return 0


def _predictor(folder: str | None, device: str) -> RiskPredictor:
    """The frozen predictor; the one that ships must be the released one."""
    from clinenv.registration import WEIGHTS_SHA256
    from world_models.ecg_wm.risk.predictor import SHIPPED, RiskPredictor

    try:
        predictor = RiskPredictor.load(folder, device)
    except (ValueError, OSError) as error:
        raise UsageError(f"--risk-predictor {folder or SHIPPED}: {error}") from error
    if folder is None and predictor.weights_sha256 != WEIGHTS_SHA256.get(SHIPPED):
        raise UsageError(
            f"the risk predictor {SHIPPED} bears the seal {predictor.weights_sha256}, not the released one; restore "
            "its folder, or name yours with --risk-predictor"
        )
    return predictor


def _asked(given: argparse.Namespace) -> Any:
    """The function that asks the vision-language model, ready to be called; None: none is to be asked.

    Made before the simulation, so that a wrong folder is found out before the work.
    """
    if given.vlm is None and given.vlm_url is None:
        return None
    from clinenv.commands.recommend.vision import adviser

    return adviser(given)


def _warnings(
    found: Measurement,
    patient: Patient,
    order: Sequence[Evaluation],
    world: WorldModel[Any],
    predictor: RiskPredictor,
    blood: Mapping[str, float],
    accepted: Mapping[str, float],
    taking: str,
) -> list[str]:
    notes = list(found.warnings)
    if patient.weight_kg is None:
        notes.append("weight not given: each sample draws one from the cohort")
    if taking:
        notes.append(f"what the patient takes already ({taking}) is not simulated: it only enters the labels' rules")
    words = {name: (flag.replace("_", " "), unit) for flag, (name, unit, _, _) in BLOOD.items()}
    for name, value in blood.items():
        label, unit = words[name]
        unused = [] if name in accepted else [f"world {world.name}"]
        if name not in predictor.config.inputs:
            unused.append("the risk predictor")
        if unused:
            notes.append(
                f"{label} {value:g} {unit} is not taken into account by {' and '.join(unused)}"
                + (", only by the labels' rules" if len(unused) == 2 else "")
            )
    beyond = [e.candidate.name for e in order if not e.trusted]
    if beyond:
        notes.append(
            f"beyond what world {world.name} was fitted or trained on in more than a tenth of the samples, so "
            f"extrapolated: {', '.join(beyond)}"
        )
    return notes


def _as_json(
    found: Measurement,
    patient: Patient,
    order: Sequence[Evaluation],
    given: argparse.Namespace,
    described: Mapping[str, str],
    blood: Mapping[str, float],
    warnings: Sequence[str],
    advice: Advice | None,
) -> dict[str, Any]:
    best = headline(order)
    place = 0
    rows = []
    for e in order:
        place += not e.candidate.forbidden
        rows.append({"rank": None if e.candidate.forbidden else place, **_row(e)})
    return {
        "note": NOT_FOR_CLINICAL_USE,
        "record": found.record,
        "measured": found.as_json(),
        "patient": {
            **patient.as_json(),
            **blood,
            "taking": [d.strip().lower() for d in (given.taking or "").split(",") if d.strip()],
        },
        "world": dict(described),
        "samples": given.samples,
        "seed": given.seed,
        "hours": given.hours,
        "regimen": given.regimen,
        "lambda": given.risk_aversion,
        "ranked_by": "S = mu + lambda sigma of the frozen predictor's risk at each sample's worst ECG, lower is better",
        "least_risk_treatment": None if best is None else best.candidate.name,
        "ranking": rows,
        "vision_language": None if advice is None else advice.as_json(),
        "warnings": list(warnings),
    }


def _row(e: Evaluation) -> dict[str, Any]:
    """One candidate's numbers; bands as p05, median, p95."""
    found: dict[str, Any] = {
        "name": e.candidate.name,
        "drug": e.candidate.drug,
        "dose_mg": e.candidate.dose_mg,
        "every_hours": e.candidate.every_hours,
        "contraindicated": e.candidate.forbidden,
        "label": [asdict(f) for f in e.candidate.findings],
        "within_support": e.trusted,
    }
    for name, value in vars(e).items():
        if name != "candidate":
            found[name] = dict(zip(("p05", "median", "p95"), value, strict=True)) if isinstance(value, tuple) else value
    return rounded(found)


def _print_summary(
    found: Measurement,
    order: Sequence[Evaluation],
    given: argparse.Namespace,
    warnings: Sequence[str],
    advice: Advice | None,
) -> None:
    print(NOT_FOR_CLINICAL_USE)
    print(f"record {found.record}: candidates by risk S = mu + {given.risk_aversion:g} sigma over {given.hours:g} h")
    print("      drug and dose         S %    mu  sigma  QTcF peak ms (90 %)  >500 %  arrhythmia change, points")
    place = 0
    for e in order:
        place += not e.candidate.forbidden
        q = e.qtcf_peak_ms
        rank = "  -" if e.candidate.forbidden else f"{place:>3}"
        marks = " label forbids" * e.candidate.forbidden + " extrapolated" * (not e.trusted)
        print(
            f"  {rank} {e.candidate.name:<20} {100 * e.score:5.1f} {100 * e.mu:5.1f} {100 * e.sigma:6.1f}  "
            f"{q.median:5.0f} ({q.low:.0f} to {q.high:.0f})   {100 * float(e.over_500_ms['probability']):6.1f}  "
            f"{100 * e.burden_change.median:+7.1f}{marks}"
        )
    best = headline(order)
    print(
        "no drug frees the patient of the arrhythmia for a hundredth of the time"
        if best is None
        else f"of those that treat, {best.candidate.name} carries the least risk; the order is one of risk alone, "
        f"and {NOTHING} treats nothing"
    )
    if advice is not None:
        print(f"vision-language model: {advice.summary()}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
