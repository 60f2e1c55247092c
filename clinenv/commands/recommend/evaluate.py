"""Every candidate lived through by the same samples of the patient, judged by the frozen predictor, put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinenv.commands.recommend.candidates import NOTHING, Candidate
from clinenv.commands.simulate.command import BAND, QTCF_LIMIT_MS, RISE_LIMIT_MS, share

if TYPE_CHECKING:
    from torch import Tensor

    from world_models.ecg_wm.risk.predictor import RiskPredictor
    from world_models.protocol import Chart, WorldModel

__all__ = ["Band", "Evaluation", "evaluate", "headline", "ranked", "turned_round"]

LEAST_BENEFIT = 0.01  # of the time: a drug that takes away less of the arrhythmia is not called a treatment (k)


class Band(NamedTuple):
    """Median and 5 to 95 % of the samples; NaN where no sample has a value."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What the samples of one candidate did. Peaks are over the hours after the first dose."""

    candidate: Candidate
    mu: float  # mean over the samples of the risk of their worst ECG, 0 to 1
    sigma: float  # its standard deviation
    score: float  # S = mu + lambda sigma
    delta_risk: Band  # risk of the worst ECG less that of the ECG before any dose
    torsades_risk: float  # mean of the predictor's risk of torsades alone
    qtcf_peak_ms: Band
    qtcf_rise_ms: Band  # largest, over the recorded ECG
    over_500_ms: Mapping[str, float | int]
    over_60_ms_rise: Mapping[str, float | int]
    torsades: Mapping[str, float | int]  # events in the simulation itself
    pr_peak_ms: Band
    lowest_rate_bpm: Band
    burden: Band  # share of the time in the arrhythmia over the whole horizon
    burden_change: Band  # less that of the same sample without a drug: negative is benefit
    supported: Mapping[str, float | int]  # samples always within what the world was fitted or trained on

    @property
    def benefit(self) -> float:
        """Median share of the time that the drug frees of the arrhythmia."""
        return -self.burden_change.median

    @property
    def trusted(self) -> bool:
        """Whether at least nine tenths of the samples stay where the world has data."""
        return float(self.supported["probability"]) >= 0.9


def evaluate(
    world: WorldModel[Any],
    state: Any,
    candidates: Sequence[Candidate],
    predictor: RiskPredictor,
    hours: float,
    risk_aversion: float,
    known: Mapping[str, float],
) -> list[Evaluation]:
    """Simulate all candidates from the same state [P], with the same random keys, so that they differ by drug alone.

    Args:
        hours: simulated, a multiple of the world's step.
        known: measures of the patient that hold throughout where the world's chart lacks them (potassium, say).
    """
    import torch

    from world_models import tree
    from world_models.ecg_wm.risk.predictor import RISKS
    from world_models.uncertainty import risk_score

    samples, steps = tree.batch_size(state), round(hours / world.hours_per_step)
    doses = torch.stack([_doses(world, c, steps) for c in candidates])  # [C, T, A]
    with torch.no_grad():
        many = tree.cat([state] * len(candidates))
        charts, inside = [world.observe(many)], torch.ones(len(candidates) * samples, dtype=torch.bool)
        for i in range(steps):
            many = world.transition(many, doses[:, i].repeat_interleave(samples, 0).to(world.device))
            charts.append(world.observe(many))
            inside &= world.support(many).cpu()
        risks = [predictor(_with(chart, known)) for chart in charts]
        risk = {n: torch.stack([r[n] for r in risks]).reshape(steps + 1, -1, samples).double().cpu() for n in RISKS}
    worst = risk["event"][1:].amax(0)  # [C, P]
    scores = risk_score(worst, risk_aversion)

    def over(name: str) -> np.ndarray:
        """[T + 1, C, P] of a measure."""
        return torch.stack([c[name] for c in charts]).reshape(steps + 1, -1, samples).double().cpu().numpy()

    course = _Course(
        over("qtcf_ms"), over("baseline_qtcf_ms")[0], over("pr_ms"), over("heart_rate_bpm"), over("torsades"),
        over("arrhythmia_burden")[1:].mean(0), inside.reshape(-1, samples).numpy(),
    )  # fmt: skip
    untreated = next(i for i, c in enumerate(candidates) if c.drug == NOTHING)
    delta = (worst - risk["event"][0]).numpy()
    torsades = risk["torsades"][1:].amax(0).mean(-1).tolist()
    return [
        _evaluation(c, course, i, untreated, [float(v[i]) for v in scores], delta[i], torsades[i])
        for i, c in enumerate(candidates)
    ]


class _Course(NamedTuple):
    """Of C candidates and P samples."""

    qtcf: np.ndarray  # [T + 1, C, P]
    baseline: np.ndarray  # [C, P]
    pr: np.ndarray
    rate: np.ndarray
    torsades: np.ndarray
    burden: np.ndarray  # [C, P]
    inside: np.ndarray  # bool [C, P]


def _evaluation(
    candidate: Candidate, c: _Course, i: int, untreated: int, score: Sequence[float], delta: np.ndarray, torsades: float
) -> Evaluation:
    highest = c.qtcf[1:, i].max(0)
    rise = highest - c.baseline[i]
    mu, sigma, total = score
    return Evaluation(
        candidate=candidate,
        mu=mu,
        sigma=sigma,
        score=total,
        delta_risk=_band(delta),
        torsades_risk=torsades,
        qtcf_peak_ms=_band(highest),
        qtcf_rise_ms=_band(rise),
        over_500_ms=share(highest > QTCF_LIMIT_MS),
        over_60_ms_rise=share(rise > RISE_LIMIT_MS),
        torsades=share(c.torsades[:, i].max(0) > 0.5),
        pr_peak_ms=_band(_extreme(c.pr[1:, i], np.fmax)),
        lowest_rate_bpm=_band(_extreme(c.rate[1:, i], np.fmin)),
        burden=_band(c.burden[i]),
        burden_change=_band(c.burden[i] - c.burden[untreated]),
        supported=share(c.inside[i]),
    )


def _doses(world: WorldModel[Any], candidate: Candidate, steps: int) -> Tensor:
    """[T, A] of the candidate; a dose falls on the step nearest to its hour."""
    import torch

    doses = torch.zeros(steps, len(world.orders))
    if candidate.column < 0:
        return doses
    if candidate.every_hours is None:
        doses[0, candidate.column] = candidate.dose_mg
        return doses
    times = np.arange(0.0, steps * world.hours_per_step, candidate.every_hours)
    for step in {round(t / world.hours_per_step) for t in times}:
        if step < steps:
            doses[step, candidate.column] = candidate.dose_mg
    return doses


def _with(chart: Chart, known: Mapping[str, float]) -> Chart:
    """The chart, and what is known of the patient where the chart lacks it."""
    like = chart["qtcf_ms"]
    return {**{n: like.new_full(like.shape, v) for n, v in known.items()}, **chart}


def _extreme(values: np.ndarray, of: np.ufunc) -> np.ndarray:
    """Over the hours [T, P], what is missing (PR in fibrillation) left out; NaN where all is."""
    return np.asarray(of.reduce(values, axis=0))


def _band(values: np.ndarray) -> Band:
    seen = values[np.isfinite(values)]
    if not seen.size:
        return Band(float("nan"), float("nan"), float("nan"))
    low, median, high = np.quantile(seen, (BAND[0], 0.5, BAND[1]))
    return Band(float(low), float(median), float(high))


def ranked(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """By S, the least first; what the label rules out stands last, in the same order. Equal scores: less drug first."""
    return sorted(evaluations, key=lambda e: (e.candidate.forbidden, e.score, e.candidate.dose_mg))


def headline(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The drug of least S that the label allows and that frees LEAST_BENEFIT of the time; None: there is none."""
    treats = [e for e in evaluations if e.candidate.drug != NOTHING and not e.candidate.forbidden]
    return next((e for e in ranked(treats) if e.benefit >= LEAST_BENEFIT), None)


def turned_round(order: Sequence[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """(larger, smaller dose) of one drug where S prefers the larger although its mean risk is no less.

    The spread of a chance is largest at a half and vanishes at one, so mu + lambda sigma is not monotone in the risk:
    a dose that is sure to do harm may score below one that probably does.
    """
    found = []
    for a in order:
        for b in order:
            same = a.candidate.drug == b.candidate.drug and a.candidate.dose_mg > b.candidate.dose_mg
            if same and a.score < b.score and a.mu >= b.mu:
                found.append((a, b))
    return found
