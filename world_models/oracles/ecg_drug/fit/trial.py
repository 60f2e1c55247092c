"""Fit a drug-response trial of the ECGRDVQ layout: population kinetics, effects, baselines and the day's course.

    python -m world_models.oracles.ecg_drug.fit.trial --trial DIR_OR_CSV --out JSON

The JSON is what `population.TrialModel.load` reads: population parameters with standard errors, nothing about any
single subject.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from world_models.data.ecg.ecgrdvq import T_WAVE, load_trial
from world_models.files import write_text
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.correlations import correlation, covariances, pooled
from world_models.oracles.ecg_drug.fit.effects import (
    DOSING_CLOCK_HOUR,
    USUAL,
    Arranged,
    EndpointFit,
    Structure,
    arrange,
    course_names,
    fit_endpoint,
)
from world_models.oracles.ecg_drug.fit.kinetics import ALLOMETRY, REFERENCE_WEIGHT_KG, fit_kinetics, names_of
from world_models.oracles.ecg_drug.fit.nonlinear_mixed import MixedFit
from world_models.oracles.ecg_drug.scales import SCALES, scaled
from world_models.quantities.drugs import ANTIARRHYTHMICS, Drug

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fit_trial", "main"]

# what the command says of the data unless it is told otherwise
_DATASET = "PhysioNet ECGRDVQ 1.0.0 (FDA SCR-002, NCT01873950)"
_LICENCE = "Open Data Commons Attribution License (ODC-By) 1.0"
_CITATION = "Johannesen L et al. 2014, Clin Pharmacol Ther 96:549, doi 10.1038/clpt.2014.155"

_UNITS = {"clearance": "L/h", "v1": "L", "ka": "1/h", "lag": "h", "q": "L/h", "v2": "L"}


def _round(value: Any, digits: int = 6) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_round(v, digits) for v in value]
    return float(f"{value:.{digits}g}")


def _error(value: Any) -> float | None:
    """A standard error, or None where the fit did not make one (JSON has no NaN)."""
    return _round(value, 3) if np.isfinite(float(value)) else None


def _kinetics_entry(item: Drug, fit: MixedFit) -> dict[str, Any]:
    names, stages, compartments = names_of(item), item.kinetics.absorption_stages, item.kinetics.compartments
    return {
        "structure": f"{stages} absorption stage(s), lag, {compartments} compartment(s), apparent",
        "units": {n: _UNITS[n] for n in names},
        "typical": {n: _round(v) for n, v in zip(names, fit.theta.exp(), strict=True)},
        "relative_standard_error": {n: _round(v, 3) for n, v in zip(names, fit.standard_errors, strict=False)},
        "women_minus_men_log_clearance_and_volumes": _round(fit.beta[0]) if fit.beta.numel() else 0.0,
        "women_minus_men_standard_error": _round(fit.standard_errors[-1], 3) if fit.beta.numel() else 0.0,
        "parameter_order": list(names),
        "between_subject_log_covariance": _round(fit.omega),
        "between_subject_log_sd_standard_error": _round(fit.omega_sd_errors, 3),
        "residual_sd_additive_ng_per_ml": _round(fit.additive),
        "residual_sd_proportional": _round(fit.proportional),
        "minus_two_log_likelihood": _round(fit.minus_two_log_likelihood),
    }


def _effect_entries(
    data: Arranged, fits: dict[str, EndpointFit], uncorrelated: int
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Each drug's entry, and the correlation [E + D · E] of subjects' levels and sensitivities (drug-major).

    Who is sensitive to one drug in an interval is sensitive to the others, and stands out in that interval without a
    drug: a person's own way of repolarising, which a new subject's pre-dose reading tells something about.
    """
    entries = []
    sensitivities = [fits[e].fit.effects[0][:, 0].numpy() for e in ENDPOINTS]
    for i, item in enumerate(ANTIARRHYTHMICS):
        entry: dict[str, Any] = {}
        peak = float(data.peak[i])
        predicted: list[np.ndarray] = []
        blurred: list[np.ndarray] = []
        for e in ENDPOINTS:
            fitted = fits[e]
            f = fitted.fit
            record: dict[str, Any] = {
                "unit": f"{SCALES[e].unit} per ng/mL",
                "slope_per_ng_per_ml": 0.0,
                "slope_standard_error": 0.0,
                "women_minus_men_per_ng_per_ml": 0.0,
                "women_minus_men_standard_error": 0.0,
                "between_subject_sd_per_ng_per_ml": 0.0,
                "between_subject_sd_standard_error": 0.0,
                "ke0_per_h": 3.0,
                "ke0_relative_standard_error": None,
                "c50_ng_per_ml": None,
                "c50_relative_standard_error": None,
                "power": 1.0,
                "power_relative_standard_error": None,
                "residual_sd_per_ng_per_ml": 0.0,
                "residual_sd_relative_standard_error": None,
            }
            blup, left = np.zeros(len(data.subjects)), np.zeros(f.residuals.numel())
            if item.name in fitted.active:
                at, place = fitted.names.index(item.name), fitted.active.index(item.name)
                sex = fitted.names.index(f"{item.name}_sex")
                record["slope_per_ng_per_ml"] = _round(f.beta[at] / peak)
                record["slope_standard_error"] = _round(f.errors[at] / peak, 3)
                record["women_minus_men_per_ng_per_ml"] = _round(f.beta[sex] / peak)
                record["women_minus_men_standard_error"] = _round(f.errors[sex] / peak, 3)
                record["between_subject_sd_per_ng_per_ml"] = _round(f.component_sds[2 + place] / peak)
                record["between_subject_sd_standard_error"] = _error(f.component_errors[2 + place] / peak)
                record["ke0_per_h"] = _round(fitted.ke0[place])
                record["ke0_relative_standard_error"] = _error(fitted.ke0_errors[place])
                record["residual_sd_per_ng_per_ml"] = _round(fitted.log_blur[place].exp() * f.residual_sd / peak)
                record["residual_sd_relative_standard_error"] = _error(fitted.blur_errors[place])
                if item.name in fitted.saturating:
                    c50 = fitted.saturating.index(item.name)
                    record["c50_ng_per_ml"] = _round(fitted.log_c50[c50].exp() * peak)
                    record["c50_relative_standard_error"] = _error(fitted.c50_errors[c50])
                if item.name in fitted.powered:
                    power = fitted.powered.index(item.name)
                    record["power"] = _round(fitted.log_power[power].exp())
                    record["power_relative_standard_error"] = _error(fitted.power_errors[power])
                blup = f.effects[2 + place][:, 0].numpy()
                at_work = (fitted.site[..., place] > 0.3).numpy().ravel()
                left = np.where(at_work, f.residuals.flatten().numpy(), np.nan)
            entry[e] = record
            predicted.append(blup)
            blurred.append(left)
        sensitivities += predicted
        entry["residual_correlation"] = _round(correlation(blurred, uncorrelated), 4)
        entries.append(entry)
    return entries, pooled(correlation(sensitivities, uncorrelated, len(data.subjects)))


def _course_entries(
    data: Arranged, fits: dict[str, EndpointFit], structure: Structure
) -> tuple[dict[str, Any], dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """The day's course with what lies beyond the law, the sexes' means, and their standard errors."""
    course: dict[str, Any] = {
        "dosing_clock_hour": DOSING_CLOCK_HOUR,
        "form": "sum over k of c_k cos(2 pi k h / 24) + s_k sin(2 pi k h / 24), and of meals (dynamics.daily_basis)",
        "meal_clock_hours": list(structure.meals),
        "trial_hours": _round(data.hours),
        "beyond_the_law": "what each arm shows at these hours besides, shrunk (fit.effects); for predictions",
    }
    sexes: dict[str, dict[str, float]] = {"women": {}, "men": {}}
    errors: dict[str, dict[str, float]] = {"women": {}, "men": {}}
    order = course_names(structure.harmonics, structure.meals)
    for e in ENDPOINTS:
        fitted = fits[e]
        value = dict(zip(fitted.names, fitted.fit.beta.tolist(), strict=False))  # then come those beyond the law
        error = dict(zip(fitted.names, fitted.fit.errors.tolist(), strict=False))
        course[e] = {
            "coefficients": [_round(value[n]) for n in order],
            "coefficients_standard_errors": [_round(error[n], 3) for n in order],
            "before_dosing": _round(value["predose"]),
            "before_dosing_standard_error": _round(error["predose"], 3),
            "drift_over_24_h": _round(value["drift"]),
            "drift_over_24_h_standard_error": _round(error["drift"], 3),
            "beyond": dict(zip(("placebo", *[d.name for d in ANTIARRHYTHMICS]), _round(fitted.beyond, 4), strict=True)),
        }
        for sex in ("women", "men"):
            sexes[sex][e] = _round(value[sex])
            errors[sex][e] = _round(error[sex], 3)
    return course, sexes, errors


def _arm_means(frame: pd.DataFrame, hours: list[float]) -> dict[str, dict[str, list[float]]]:
    """Mean change from the same period's pre-dose value, on the working scale: measure -> arm -> one an hour.

    What a trial of the same design is foreseen with where nothing is known but its arms (population course). Before the
    dose, and where nobody was read, 0.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name in ("qtcf_ms", *ENDPOINTS):
        if name not in frame:  # QTcF is none of the endpoints
            continue
        level = frame.assign(level=scaled(name, frame[name]) if name in SCALES else frame[name])
        base = level[level["hour"] < 0].groupby(["randid", "drug", "period"], dropna=False)["level"].last()
        joined = level[level["hour"] > 0].merge(base.rename("before"), on=["randid", "drug", "period"], how="left")
        mean = (joined["level"] - joined["before"]).groupby([joined["drug"], joined["hour"]]).mean()
        found[name] = {
            arm: [_round(x, 5) for x in mean.reindex([(arm, h) for h in hours]).fillna(0.0)]
            for arm in ("placebo", *[d.name for d in ANTIARRHYTHMICS])
        }
    return found


def _check_trial(frame: pd.DataFrame) -> None:
    """Raise a ValueError where an arm or an endpoint is missing."""
    present = set(frame["drug"])
    absent = [name for name in ("placebo", *[d.name for d in ANTIARRHYTHMICS]) if name not in present]
    if absent:
        raise ValueError(f"the trial has no arm {', '.join(absent)}; it has {', '.join(sorted(present))}")
    empty = [e for e in ENDPOINTS if e not in frame or bool(frame[e].isna().all())]
    if empty:
        columns = ", ".join(f"{e} (column {T_WAVE[e]})" if e in T_WAVE else e for e in empty)
        raise ValueError(f"the trial holds no value of {columns}; fill it: a fit needs every endpoint")


def fit_trial(
    frame: pd.DataFrame, standard_errors: bool = True, progress: bool = False, structure: Structure = USUAL
) -> dict[str, Any]:
    """All population parameters from a tidy frame (`load_trial`), as the JSON's dict without its provenance.

    Raises:
        ValueError: a drug's arm, the placebo arm, or every value of an endpoint is missing.
    """
    from tqdm import tqdm

    _check_trial(frame)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are tiny: a second thread only costs
    try:
        bar = tqdm(total=len(ANTIARRHYTHMICS) + len(ENDPOINTS), desc="trial fit", disable=not progress, file=sys.stderr)
        kinetics = {}
        for item in ANTIARRHYTHMICS:
            kinetics[item.name] = fit_kinetics(frame, item)
            bar.update()
        data = arrange(frame, kinetics)
        fits = {}
        for endpoint in ENDPOINTS:
            fits[endpoint] = fit_endpoint(data, endpoint, standard_errors, structure=structure)
            bar.update()
        bar.close()
    finally:
        torch.set_num_threads(threads)
    spreads = covariances(data, fits, structure.uncorrelated)
    effects, together = _effect_entries(data, fits, structure.uncorrelated)
    law = (
        "slope C (C / reference)^(power - 1) / (1 + C / c50), C at the effect site, reference = mean_peak_concentration"
    )
    course, sexes, errors = _course_entries(data, fits, structure)
    drugs = {}
    for i, item in enumerate(ANTIARRHYTHMICS):
        arm = frame[frame["drug"] == item.name]
        drugs[item.name] = {
            "dose_mg": _round(arm["dose_mg"].median()),
            "mean_peak_concentration_ng_per_ml": _round(data.peak[i]),
            "highest_concentration_ng_per_ml": _round(arm["conc_ng_per_ml"].max()),
            "kinetics": _kinetics_entry(item, kinetics[item.name][0]),
            "effects": effects[i],
        }
    return {
        "effect_law": law,
        "drugs": drugs,
        "baseline": {
            "endpoint_order": list(ENDPOINTS),
            "scales": {e: SCALES[e].name for e in ENDPOINTS},
            "units": {e: SCALES[e].unit for e in ENDPOINTS},
            **sexes,
            "women_standard_errors": errors["women"],
            "men_standard_errors": errors["men"],
            "sensitivity_order": [f"{d.name} {e}" for d in ANTIARRHYTHMICS for e in ENDPOINTS],
            "sensitivity_with_level_correlation": _round(together[len(ENDPOINTS) :, : len(ENDPOINTS)], 4),
            "sensitivity_correlation": _round(together[len(ENDPOINTS) :, len(ENDPOINTS) :], 4),
            "between_subject_covariance": _round(spreads["subject"]),
            "between_period_covariance": _round(spreads["period"]),
            "residual_covariance": _round(spreads["residual"]),
            "sd_standard_errors": {
                "between_subject": [_error(fits[e].fit.component_errors[0]) for e in ENDPOINTS],
                "between_period": [_error(fits[e].fit.component_errors[1]) for e in ENDPOINTS],
            },
        },
        "course": course,
        "arm_means": _arm_means(frame, data.hours.tolist()),
    }


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit code: 2 where the trial cannot be read or fitted."""
    parser = argparse.ArgumentParser(
        prog="python -m world_models.oracles.ecg_drug.fit.trial", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trial", required=True, help="the trial's folder, or its clinical CSV")
    parser.add_argument("--out", required=True, help="JSON to write")
    parser.add_argument("--dataset", default=_DATASET, help="what the JSON says the data are (yours: say so)")
    parser.add_argument("--licence", default=_LICENCE)
    parser.add_argument("--citation", default=_CITATION)
    options = parser.parse_args(argv)
    out = Path(options.out)
    if not out.parent.is_dir():
        print(f"error: the folder {out.parent} does not exist; make it first", file=sys.stderr)
        return 2
    try:
        frame = load_trial(options.trial)
        fitted = fit_trial(frame, progress=True)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    women = int(frame.groupby("randid")["sex_female"].first().sum())
    subjects = int(frame["randid"].nunique())
    result = {
        "provenance": {
            "table": Path(options.trial).name,
            "dataset": options.dataset,
            "licence": options.licence,
            "citation": options.citation,
            "subjects": subjects,
            "women": women,
            "men": subjects - women,
            "age_years_range": [_round(frame["age_years"].min()), _round(frame["age_years"].max())],
            "weight_kg_range": [_round(frame["weight_kg"].min()), _round(frame["weight_kg"].max())],
            "command": f"{parser.prog} --trial {Path(options.trial).name} --out {out.name}",
            "reference_weight_kg": REFERENCE_WEIGHT_KG,
            "allometric_exponents": ALLOMETRY,
        },
        **fitted,
    }
    write_text(out, json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"fitted {subjects} subjects; wrote {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
