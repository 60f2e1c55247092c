"""How each world predicts a drug-response trial from what was known before the dose.

`rows` is a frame with one line a post-dose time: randid, drug, period, hour, dose_mg, sex_female, age_years, weight_kg
and `pre_<endpoint>`, the same period's pre-dose triplicate mean of every endpoint. Nothing measured after the dose
is in it. A predictor returns a `TrialPrediction`: the point and the 5 % and 95 % quantiles of every target, rows in
order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.ecg_drug.trial_pooling import SAME_DOSE, SHIPPED_POOLING, Pooling, pooled
from benchmarks.ecg_drug.trial_rows import T_TARGETS, TARGETS, TrialPrediction
from world_models import keys
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.kinetics import MIN_STEP_H
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.scales import SCALES, scaled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ADAPTERS", "TARGETS", "T_TARGETS", "TrialPrediction", "beyond_the_law"]
__all__ += ["predict_learned", "predict_oracle", "targets_of"]

STEP_H = 0.5  # of a learned world: the trial's hours lie on it


def targets_of(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Targets from the modelled endpoints in their own units: the T wave's as they are, and
    QTcF = (QRS + J-Tpeak c · RR^0.58 + Tpeak-Tend) / RR^(1/3), RR in s."""
    rr = 60.0 / np.clip(values["heart_rate_bpm"], 20.0, 250.0)
    qt = values["qrs_ms"] + values["jt_peak_c_ms"] * rr**JT_PEAK_EXPONENT + values["tpeak_tend_ms"]
    return {
        "QTcF": qt / rr**QT_EXPONENT,
        "JTpc": values["jt_peak_c_ms"],
        "TpTe": values["tpeak_tend_ms"],
        "PR": values["pr_ms"],
        **{name: values[column] for name, column in T_TARGETS.items() if column in values},
    }


def beyond_the_law(model: TrialModel, drug: str, hour: float, dose_mg: float | None = None) -> dict[str, float]:
    """What the fitted trial's arm shows at this hour beyond the law, by endpoint on its working scale.

    Between the trial's hours on a straight line; 0 before the dose. For another dose than the trial's, the part that
    all arms share (the placebo arm's).
    """
    course = model.parameters["course"]
    hours = np.asarray(course["trial_hours"])
    known = drug in model.fitted and (
        dose_mg is None or abs(dose_mg / model.parameters["drugs"][drug]["dose_mg"] - 1.0) < SAME_DOSE
    )
    arm = drug if known else "placebo"
    return {e: float(np.interp(hour, hours, course[e]["beyond"][arm])) if hour > 0 else 0.0 for e in ENDPOINTS}


def _level(
    model: TrialModel, before: np.ndarray, female: np.ndarray, hour: np.ndarray, widening: float
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean [P, 2E] and covariance [P, 2E, 2E] of (the subject's own level, the period's shift of it).

    The pre-dose reading is level + shift + the course at that hour + the pre-dose condition + a residual; the level
    varies between the people of a sex, the shift between periods. Endpoints that were not read keep their prior, given
    those that were.
    """
    base, course, count = model.parameters["baseline"], model.parameters["course"], len(ENDPOINTS)
    mean = np.where(female[:, None] > 0.5, [base["women"][e] for e in ENDPOINTS], [base["men"][e] for e in ENDPOINTS])
    prior = np.zeros((2 * count, 2 * count))
    prior[:count, :count] = np.asarray(base["between_subject_covariance"]) * widening
    prior[count:, count:] = base["between_period_covariance"]
    read = np.concatenate([np.eye(count), np.eye(count)], 1)
    noise = np.asarray(base["residual_covariance"])
    day = model.time_of_day(torch.tensor(course["dosing_clock_hour"] + hour))
    shift = np.stack([day[e].numpy() + np.where(hour < 0, course[e]["before_dosing"], 0.0) for e in ENDPOINTS], -1)
    posterior_mean = np.concatenate([mean, np.zeros_like(mean)], 1)
    posterior = np.repeat(prior[None], len(mean), 0)
    for i, row in enumerate(before):
        seen = np.flatnonzero(~np.isnan(row))
        if len(seen) == 0:
            continue
        h = read[seen]
        gain = prior @ h.T @ np.linalg.inv(h @ prior @ h.T + noise[np.ix_(seen, seen)])
        posterior_mean[i] += gain @ (row[seen] - shift[i, seen] - mean[i, seen])
        posterior[i] = prior - gain @ h @ prior
    return posterior_mean, posterior


def predict_oracle(
    model: TrialModel, rows: pd.DataFrame, samples: int = 512, seed: int = 0, pooling: Pooling | None = None
) -> TrialPrediction:
    """Monte-Carlo over virtual twins of each subject and period, conditional on the pre-dose reading; point = median.

    Then pooled with what the fitted trial's arms showed (`pooled`); None: as chosen for the shipped fit.

    Raises:
        ValueError: a drug the model does not know.
    """
    unknown = sorted(set(rows["drug"]) - {"placebo", *model.drugs})
    if unknown:
        raise ValueError(f"the model has no drug {', '.join(unknown)}; it knows placebo, {', '.join(model.drugs)}")
    periods = rows.groupby(["randid", "drug", "period"], sort=False, dropna=False)
    first = periods.first().reset_index()
    member = periods.ngroup().to_numpy()
    count = len(first)
    before = np.stack([scaled(e, first[f"pre_{e}"]) for e in ENDPOINTS], -1)
    female = first["sex_female"].to_numpy(dtype=float)
    pooling = SHIPPED_POOLING if pooling is None else pooling
    ahead = first["pre_hour"].fillna(-0.5).to_numpy(dtype=float)
    mean, covariance = _level(model, before, female, ahead, pooling.widening)
    key = keys.from_seed(seed, count * samples)
    width = len(ENDPOINTS)
    z = keys.normal(key, 0, "level", (2 * width,)).to(torch.float64).numpy().reshape(count, samples, -1)
    size = np.tile([SCALES[e].step for e in ENDPOINTS], 2)
    root = np.linalg.cholesky(covariance + 1e-8 * np.diag(size * size))
    drawn = mean[:, None] + np.einsum("pij,psj->psi", root, z)
    level = drawn[..., :width] + drawn[..., width:]
    own = {e: torch.tensor(drawn[..., i].reshape(-1), dtype=torch.float32) for i, e in enumerate(ENDPOINTS)}

    def wide(name: str) -> torch.Tensor:
        return torch.tensor(first[name].to_numpy(dtype=np.float32)).repeat_interleave(samples)

    twins = model.individual(
        key, wide("sex_female"), wide("weight_kg"), wide("age_years"), torch.ones(count * samples), own
    )
    dose = torch.zeros(count * samples, len(model.drugs))
    for i, name in enumerate(model.drugs):
        dose[:, i] = torch.where(
            torch.tensor((first["drug"] == name).to_numpy()).repeat_interleave(samples), wide("dose_mg"), 0.0
        )
    nothing = model.no_drug(count * samples)
    drift = np.array([model.parameters["course"][e]["drift_over_24_h"] for e in ENDPOINTS])
    found = [{name: np.zeros(len(rows)) for name in TARGETS} for _ in range(3)]
    for h in sorted(rows["hour"].unique()):
        chosen = np.flatnonzero(rows["hour"].to_numpy() == h)
        amounts = model.advance(twins, nothing, dose, max(float(h), MIN_STEP_H))
        effects = model.total_effects(twins, amounts)
        residual = model.residuals(key, int(round(float(h) * 60)), twins, amounts)
        day = model.time_of_day(torch.tensor(model.parameters["course"]["dosing_clock_hour"] + float(h)))
        common = np.array([float(day[e]) for e in ENDPOINTS]) + drift * min(max(float(h), 0.0), 24.0) / 24.0
        beyond = [
            list(beyond_the_law(model, name, float(h), mg).values())
            for name, mg in zip(first["drug"], first["dose_mg"], strict=True)
        ]
        now = level + (effects + residual).numpy().reshape(count, samples, -1).astype(float) + common
        now = now + np.array(beyond)[:, None]
        values = {e: scaled(e, now[..., i], inverse=True) for i, e in enumerate(ENDPOINTS)}
        for name, simulated in targets_of(values).items():
            for target, q in zip(found, (0.5, 0.05, 0.95), strict=True):
                target[name][chosen] = np.quantile(simulated, q, axis=1)[member[chosen]]
    return pooled(model, rows, TrialPrediction(*found), pooling)


def predict_learned(
    model: Any,
    fitted: TrialModel,
    rows: pd.DataFrame,
    samples: int = 256,
    seed: int = 0,
    pooling: Pooling | None = None,
) -> TrialPrediction:
    """A learned world's prediction: belief from the pre-dose reading, particles over half-hour steps; point = median.

    The reading is an admission's: as the oracle's volunteers are, the world's are admitted fasting and at rest, and
    what that does is gone once they are given a dose, so nothing is taken off here. What the fit to the trial found
    beyond a law (its drift over 24 h, `beyond_the_law`) is added as for the oracle: it belongs to this trial's days,
    and no world simulates it. Endpoints that were not read are filled with the fit's mean for the sex. Hours are
    rounded to the half hour. Targets that the world does not chart are NaN.

    Args:
        model: a learned world of half-hour steps whose patients are volunteers.
        fitted: the fit whose people the world was trained on.
        pooling: with the fitted trial's arms; its widening is the oracle's alone. None: as chosen for the shipped fit.

    Raises:
        ValueError: a drug the model does not know, or another step than half an hour.
    """
    from world_models.protocol import History
    from world_models.quantities.ecg_drug import DRUGS

    if model.hours_per_step != STEP_H:
        raise ValueError(f"the world steps {model.hours_per_step:g} h; load it with hours_per_step={STEP_H:g}")
    unknown = sorted(set(rows["drug"]) - {"placebo", *DRUGS})
    if unknown:
        raise ValueError(f"the world has no drug {', '.join(unknown)}; it knows placebo, {', '.join(DRUGS)}")
    course = fitted.parameters["course"]
    periods = rows.groupby(["randid", "drug", "period"], sort=False, dropna=False)
    first = periods.first().reset_index()
    member, count = periods.ngroup().to_numpy(), len(first)
    charted = [e for e in ENDPOINTS if e in {quantity.name for quantity in model.measures}]
    # The reading is as many half hours before the dose as the trial's table says.
    ahead = max(round(-float(first["pre_hour"].iloc[0]) / STEP_H), 0)
    chart = _admission(fitted, first, charted) | {
        "clock_hour": np.full(count, (course["dosing_clock_hour"] - ahead * STEP_H) % 24.0)
    }
    charts = {
        name: torch.tensor(v, dtype=torch.float32).repeat_interleave(samples).unsqueeze(1) for name, v in chart.items()
    }
    dose = torch.zeros(count * samples, len(DRUGS))
    for i, name in enumerate(DRUGS):
        mg = first["dose_mg"].to_numpy(dtype=np.float32) * (first["drug"] == name).to_numpy()
        dose[:, i] = torch.tensor(mg).repeat_interleave(samples)
    nothing = torch.zeros_like(dose)
    key = keys.from_seed(seed, count * samples)
    state = model.infer(History(charts, nothing.unsqueeze(1), torch.zeros(count * samples, 1)), key)
    steps = np.maximum(np.rint(rows["hour"].to_numpy(dtype=float) / STEP_H).astype(int), 1)
    found = [{name: np.full(len(rows), np.nan) for name in TARGETS} for _ in range(3)]
    for _ in range(ahead):
        state = model.transition(state, nothing)
    for step in range(1, int(steps.max()) + 1):
        state = model.transition(state, dose if step == 1 else nothing)
        chosen = np.flatnonzero(steps == step)
        if len(chosen) == 0:
            continue
        seen, hour = model.observe(state), step * STEP_H
        beyond = [beyond_the_law(fitted, n, hour, mg) for n, mg in zip(first["drug"], first["dose_mg"], strict=True)]
        values = {}
        for e in charted:
            common = course[e]["drift_over_24_h"] * min(hour / 24.0, 1.0) + np.array([b[e] for b in beyond])
            level = scaled(e, seen[e].numpy().reshape(count, samples)) + common[:, None]
            values[e] = scaled(e, level, inverse=True)
        for name, simulated in targets_of(values).items():
            for target, q in zip(found, (0.5, 0.05, 0.95), strict=True):
                target[name][chosen] = np.nanquantile(simulated, q, axis=1)[member[chosen]]
    return pooled(fitted, rows, TrialPrediction(*found), SHIPPED_POOLING if pooling is None else pooling)


def _admission(fitted: TrialModel, first: pd.DataFrame, charted: list[str]) -> dict[str, np.ndarray]:
    """The chart [P] of each period's pre-dose reading: volunteers in sinus rhythm, as good as without arrhythmia."""
    base = fitted.parameters["baseline"]
    female = first["sex_female"].to_numpy(dtype=float) > 0.5
    read = {}
    for e in charted:
        value = scaled(e, first[f"pre_{e}"])
        mean = np.where(female, base["women"][e], base["men"][e])
        read[e] = scaled(e, np.where(np.isnan(value), mean, value), inverse=True)
    rr = 60.0 / read["heart_rate_bpm"]
    qt = read["qrs_ms"] + read["jt_peak_c_ms"] * rr**JT_PEAK_EXPONENT + read["tpeak_tend_ms"]
    none = np.zeros(len(first))
    chart = {**read, "qtcf_ms": qt / rr**QT_EXPONENT, "arrhythmia_burden": none, "atrial_fibrillation": none}
    return chart | {name: first[name].to_numpy(dtype=float) for name in ("sex_female", "weight_kg", "age_years")}


def _shipped(world: str, rows: pd.DataFrame, samples: int, seed: int) -> TrialPrediction:
    """A shipped learned world's prediction, pooled as the shipped fit's."""
    from world_models import catalog

    model = catalog.load(world, cohort="healthy", hours_per_step=STEP_H)
    return predict_learned(model, TrialModel.load(), rows, samples, seed)


# One entry a world: rows, samples, seed -> prediction. `benchmarks.ecg_drug.trial --world` takes its names from here.
ADAPTERS: dict[str, Callable[[pd.DataFrame, int, int], TrialPrediction]] = {
    "oracle": lambda rows, samples, seed: predict_oracle(TrialModel.load(), rows, samples, seed),
    "ecg-wm-small": lambda rows, samples, seed: _shipped("ecg-wm-small", rows, samples, seed),
}
