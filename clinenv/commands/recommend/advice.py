"""A model's recommendation in words, and what is left of it once checked: nothing in it is ever acted on unchecked.

The model is shown the recorded ECG and the candidates' numbers and is to answer one JSON object,

    {"ranking": [{"drug": "ranolazine", "dose_mg": 500}, ...], "reason": "..."}

the best first. Every entry must be a drug and dose that was simulated; what the label forbids in this patient, doses
out of bounds, drugs nobody knows and repetitions are refused one by one and reported. An answer without such an object
is reported as it is, and recommends nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinenv.commands.recommend.candidates import NOTHING, Candidate
from clinenv.commands.recommend.evaluate import Evaluation
from clinenv.commands.simulate.inputs import Patient
from clinenv.ecg.measurement import Measurement
from clinenv.rendering.labels import label_and_unit
from world_models.quantities.ecg_drug import DOSE_LIMIT_MG

__all__ = ["Advice", "Refusal", "checked", "entry_text", "instructions"]

LONGEST_ANSWER = 100_000  # characters that are looked at
MOST_ENTRIES = 100
LONGEST_REASON = 2000  # characters that are kept
DOSE_SHARE = 1e-6  # doses are decimals


@dataclass(frozen=True)
class Refusal:
    """An entry that is not taken over."""

    entry: str
    why: str


@dataclass(frozen=True)
class Advice:
    """What a model said, and what stands of it."""

    model: str
    text: str  # its answer, word for word
    ranking: tuple[str, ...] = ()  # names of candidates, best first: what stands
    refused: tuple[Refusal, ...] = ()
    reason: str = ""
    problem: str = ""  # why there is no ranking

    def as_json(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "model": self.model,
            "parsed": not self.problem,
            "problem": self.problem or None,
            "ranking": list(self.ranking),
            "refused": [{"entry": r.entry, "why": r.why} for r in self.refused],
            "reason": self.reason,
            "answer": self.text,
        }

    def rows(self) -> tuple[tuple[str, str], ...]:
        """(what, value) for the page."""
        found = [("Model", self.model)]
        if self.problem:
            return (*found, ("Not taken over", self.problem))
        found.append(("Its ranking, checked", ", then ".join(self.ranking) or "nothing of it stands"))
        found += [("Refused", f"{r.entry}: {r.why}") for r in self.refused]
        return (*found, ("Its reason", self.reason)) if self.reason else tuple(found)

    def summary(self) -> str:
        """One line."""
        if self.problem:
            return f"not taken over, {self.problem}"
        left = ", ".join(self.ranking) or "nothing stands"
        return left + (f" ({len(self.refused)} entries refused)" if self.refused else "")


def entry_text(candidate: Candidate) -> str:
    """How a candidate is written in an answer."""
    return json.dumps({"drug": candidate.drug, "dose_mg": candidate.dose_mg})


def instructions(found: Measurement, patient: Patient, order: Sequence[Evaluation], blood: Mapping[str, float]) -> str:
    """The text that goes with the picture: patient, candidates with their numbers, the form of the answer."""
    intervals = ", ".join(
        f"{label_and_unit(n)[0]} {v:.0f} {label_and_unit(n)[1]}".strip()
        for n, v in found.intervals.items()
        if math.isfinite(v)
    )
    values = "".join(f", {n} {v:g}" for n, v in blood.items())
    lines = []
    for e in sorted(order, key=lambda e: (e.candidate.column, e.candidate.dose_mg)):
        label = "; ".join(f"{f.severity}: {f.text}" for f in e.candidate.findings)
        lines.append(
            f"- {entry_text(e.candidate)}: risk mean {100 * e.mu:.1f} %, SD {100 * e.sigma:.1f} %, score "
            f"{100 * e.score:.1f} %; longest QTcF {e.qtcf_peak_ms.median:.0f} ms ({e.qtcf_peak_ms.low:.0f} to "
            f"{e.qtcf_peak_ms.high:.0f}); time in the arrhythmia {100 * e.burden_change.median:+.1f} points"
            + (f"; label: {label}" if label else "")
        )
    sex = "woman" if patient.sex_female else "man"
    return (
        "This is research on simulated patients. The picture is the 12-lead ECG, before any drug, of a "
        f"{sex} of {patient.age_years:g} years with atrial fibrillation ({intervals}{values}). These treatments were "
        "simulated:\n" + "\n".join(lines) + "\nRank them, the best first, weighing the risk of torsades against the "
        "benefit; leave out what is contraindicated. Answer with one JSON object and nothing else: "
        '{"ranking": [{"drug": NAME, "dose_mg": NUMBER}, ...], "reason": TEXT}'
    )


def checked(text: str, model: str, candidates: Sequence[Candidate]) -> Advice:
    """What stands of an answer."""
    said = _object_in(text[:LONGEST_ANSWER])
    if said is None:
        return Advice(model, text, problem="its answer holds no JSON object with a list named ranking")
    entries = said["ranking"]
    if len(entries) > MOST_ENTRIES:
        return Advice(model, text, problem=f"its ranking has {len(entries)} entries, more than {MOST_ENTRIES}")
    ranking: list[str] = []
    refused: list[Refusal] = []
    for entry in entries:
        candidate, why = _candidate(entry, candidates)
        if candidate is not None and candidate.name in ranking:
            candidate, why = None, "it is there twice"
        if candidate is None:
            refused.append(Refusal(json.dumps(entry)[:200], why))
        else:
            ranking.append(candidate.name)
    reason = said.get("reason", "")
    reason = reason[:LONGEST_REASON] if isinstance(reason, str) else ""
    return Advice(model, text, tuple(ranking), tuple(refused), reason)


def _object_in(text: str) -> dict[str, Any] | None:
    """The first JSON object in the text that has a list named ranking."""

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    decoder = json.JSONDecoder(parse_constant=no_constant)
    at = text.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and isinstance(value.get("ranking"), list):
            return value
        at = text.find("{", at + 1)
    return None


def _candidate(entry: Any, candidates: Sequence[Candidate]) -> tuple[Candidate | None, str]:
    """The candidate that an entry names, or why there is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("drug"), str):
        return None, 'it is no object with a "drug"'
    drug, dose = entry["drug"].strip().lower(), entry.get("dose_mg", 0.0 if entry["drug"].lower() == NOTHING else None)
    if drug not in {c.drug for c in candidates}:
        return None, f"{drug[:40]!r} is none of the drugs compared"
    if isinstance(dose, bool) or not isinstance(dose, int | float) or not math.isfinite(dose):
        return None, "its dose_mg is no number"
    if drug != NOTHING and not 0 < dose <= DOSE_LIMIT_MG[drug]:
        return None, f"{dose:g} mg is outside 0 to {DOSE_LIMIT_MG[drug]:g} mg, the largest single order"
    match = [c for c in candidates if c.drug == drug and math.isclose(c.dose_mg, dose, rel_tol=DOSE_SHARE)]
    if not match:
        return None, f"{dose:g} mg of it was not simulated"
    if match[0].forbidden:
        return None, "the label forbids it in this patient: " + "; ".join(
            f.text for f in match[0].findings if f.forbids
        )
    return match[0], ""
