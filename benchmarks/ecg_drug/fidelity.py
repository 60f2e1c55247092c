"""The learned world against the oracle on generated patients it never met: `python -m benchmarks.ecg_drug.fidelity`.

With `--table NAME ...` another experiment of the learned ECG world (`TABLES`); `--table NAME --help` tells its options.
Without it:

Four drugs, a single dose and a repeated one each; after 2, 12 and 24 h the intervals read by the delineator off the
learned world's own ECG are compared with the oracle's chart, beside persistence (the patient's baseline) and the
population-mean course (baseline + mean change of 2,000 other patients at that hour of that plan). From the baseline
ECG alone, and again from 2 and 4 h post-dose ECGs on. From the baseline alone there is also `best`: the median over
the oracle's own samples of everything that a patient's baseline chart does not tell, the smallest mean absolute error
that any model can have with that information. Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.intervals import numpy_mean_interval
from benchmarks.common.results import RESULTS, made_by, write_csv
from world_models import catalog, keys, tree
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm import latent
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import Chart, History
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import DRUGS

INTERVALS = ("qtcf_ms", "pr_ms", "jt_peak_c_ms", "tpeak_tend_ms")
HOURS = (2, 12, 24)
SINGLE_MG = {d.name: d.trial_dose_mg for d in ANTIARRHYTHMICS}
# mg and hours between doses: twice a day, three times where the label's day holds more than two
REPEATED = {
    d.name: (d.largest_single_mg, 12 if d.largest_daily_mg <= 2 * d.largest_single_mg else 8) for d in ANTIARRHYTHMICS
}
# Training uses seeds from 1e9 on, calibration from 2e9. Test patients of 4e9 on were seen while stages were chosen.
TEST_SEED, POPULATION_SEED, BEST_SEED = 6_000_000_000, 7_000_000_000, 8_000_000_000
BASELINE = {
    "age_years": "age_years",
    "sex_female": "sex_female",
    "weight_kg": "weight_kg",
    "admission_clock_hour": "clock_hour",
    "baseline_heart_rate_bpm": "heart_rate_bpm",
    "baseline_pr_ms": "pr_ms",
    "baseline_qrs_ms": "qrs_ms",
    "baseline_qtcf_ms": "qtcf_ms",
    "baseline_tpeak_tend_ms": "tpeak_tend_ms",
    "baseline_burden": "arrhythmia_burden",
    "baseline_systolic_bp_mmhg": "systolic_bp_mmhg",
    **{f"baseline_{n}": n for n in latent.T_WAVE},
    **{n: n for n in ("creatinine_clearance_ml_min", "potassium_mmol_l", "magnesium_mmol_l")},
    "admission_fibrillation": "atrial_fibrillation",
}  # factor -> what it is in the admission chart


def plans(hours_per_step: float, steps: int) -> dict[str, Tensor]:
    """Name -> doses [steps, 4] mg."""
    found = {}
    for i, drug in enumerate(DRUGS):
        single = torch.zeros(steps, len(DRUGS))
        single[0, i] = SINGLE_MG[drug]
        found[f"{drug} single"] = single
        dose, every = REPEATED[drug]
        repeated = torch.zeros(steps, len(DRUGS))
        repeated[:: int(every / hours_per_step), i] = dose
        found[f"{drug} repeated"] = repeated
    return found


def run(world, state, actions: Tensor) -> list:
    """States after 0, 1, ... steps of the plan [steps, 4]."""
    states = [state]
    for row in actions:
        states.append(world.transition(states[-1], row.expand(tree.batch_size(state), -1)))
    return states


def without_residual(model, state):
    """The state without its moment-to-moment variation, in sinus rhythm: what is expected of it."""
    none = torch.zeros_like(state.hours)
    return model.settled(state._replace(residual=torch.zeros_like(state.residual)), none)


def sinus_keys(oracle, seed: int, count: int) -> Tensor:
    """Keys of `count` patients whose admission ECG shows sinus rhythm: of the others no baseline PR is known.

    Raises:
        ValueError: a cohort in which fewer than a tenth are.
    """
    key = keys.from_seed(seed, 10 * count)
    sinus = oracle.observe(oracle.initial(key))["atrial_fibrillation"] < 0.5
    if int(sinus.sum()) < count:
        raise ValueError(f"{int(sinus.sum())} of {len(key)} patients are in sinus rhythm; choose another cohort")
    return key[sinus][:count]


def measured(chart: Chart) -> dict[str, Tensor]:
    """What the delineator reads off the chart's ECG."""
    parts = [delineate(ecg, 500.0) for ecg in chart["ecg_mv"].split(128)]
    return {
        name: torch.cat([getattr(p, name) for p in parts]) for name in (*INTERVALS, "heart_rate_bpm", "qrs_ms", "qt_ms")
    }


def forecast(oracle, first: Chart, plan: Tensor, samples: int) -> list[Chart]:
    """Charts after 0, 1, ... steps of the plan: medians [B] over the oracle's samples given the admission chart
    alone."""
    count = first["hours"].shape[0]
    factors = {factor: first[name].repeat_interleave(samples) for factor, name in BASELINE.items()}
    state = oracle.initial(keys.from_seed(BEST_SEED, count * samples), factors)
    found = []
    for s in run(oracle, state, plan):
        chart = oracle.observe(s)
        found.append({n: chart[n].reshape(count, samples).nanmedian(dim=1).values for n in INTERVALS})
    return found


def particles(model, state, count: int, start: Tensor):
    """[B * count] particles of one belief, each with its own unknowns and random keys."""
    many = tree.repeat(state, count)
    number = torch.arange(count).repeat(start.shape[0])
    return model.rekey(many, keys.fold(keys.fold(many.key, "particle"), number))


def compare(model, oracle, patients: int, samples: int, seed: int = TEST_SEED) -> list[dict]:
    """Errors and coverage for every plan, hour, interval and amount of history."""
    rng = np.random.default_rng(0)
    steps = int(24 / model.hours_per_step)
    key, others = sinus_keys(oracle, seed, patients), sinus_keys(oracle, POPULATION_SEED, 2000)
    rows: list[dict] = []
    for name, plan in plans(model.hours_per_step, steps).items():
        truth_states = run(oracle, oracle.initial(key), plan)
        truth = [oracle.observe(s) for s in truth_states]
        crowd = [oracle.observe(s) for s in run(oracle, oracle.initial(others), plan)]
        best = forecast(oracle, truth[0], plan, samples)
        seen = [oracle.observe(truth_states[i], ("ecg_mv",)) for i in range(3)]
        for visits, label in ((1, "baseline alone"), (3, "two post-dose ECGs")):
            history = recorded(seen[:visits], truth[:visits], plan, model.hours_per_step)
            state = model.infer(history, keys.fold(key, "model"), None)
            many = particles(model, state, samples, key)
            point = model.expected(state)
            for i in range(visits - 1, steps):
                point = model.transition(point, plan[i].expand(patients, -1))
                many = model.transition(many, plan[i].expand(patients * samples, -1))
                hour = int((i + 1) * model.hours_per_step)
                if hour not in HOURS:
                    continue
                own = model.observe(without_residual(model, point), ("ecg_mv",))
                read = measured(own)
                cloud = model.observe(many)
                for interval in INTERVALS:
                    target = truth[i + 1][interval].numpy()
                    base = truth[0][interval].numpy()
                    change = float((crowd[i + 1][interval] - crowd[0][interval]).nanmean())
                    spread = cloud[interval].reshape(patients, samples)
                    low, high = (spread.nanquantile(q, dim=1).numpy() for q in (0.05, 0.95))
                    foreseen = best[i + 1][interval].numpy() if visits == 1 else np.full(patients, np.nan)
                    errors = {
                        "model": np.abs(read[interval].numpy() - target),
                        "persistence": np.abs(base - target),
                        "population": np.abs(base + change - target),
                        "best": np.abs(foreseen - target),
                        "chart": np.abs(own[interval].numpy() - target),
                    }
                    gap, shown = errors["model"] - errors["population"], ~np.isnan(target)
                    ci = numpy_mean_interval(gap[~np.isnan(gap)], rng) if shown.any() else (np.nan, np.nan)
                    rows.append(
                        {
                            "plan": name,
                            "hours": hour,
                            "history": label,
                            "interval": interval,
                            "patients": patients,
                            **{f"mae_{k}_ms": _mean(v) for k, v in errors.items()},
                            "ratio_to_persistence": round(
                                float(np.nanmean(errors["model"]) / np.nanmean(errors["persistence"])), 3
                            ),
                            "model_minus_population_low": round(ci[0], 3),
                            "model_minus_population_high": round(ci[1], 3),
                            "coverage90": round(float(((target >= low) & (target <= high))[shown].mean()), 4),
                            "unreadable": round(float(np.isnan(errors["model"])[shown].mean()), 4),
                            "head_vs_delineator_median_ms": round(
                                float(np.nanmedian(np.abs((read[interval] - own[interval]).numpy()))), 3
                            ),
                        }
                    )
    return rows


def _mean(values: np.ndarray) -> float:
    return round(float(np.nanmean(values)), 3) if not np.isnan(values).all() else float("nan")


def recorded(seen: list[Chart], truth: list[Chart], plan: Tensor, hours_per_step: float) -> History:
    """A history whose post-dose intervals are what the delineator reads off the oracle's ECGs.

    The first visit keeps the chart's own values: both worlds know a generated patient's admission ECG exactly.
    """
    charts = [truth[0]]
    for i in range(1, len(seen)):
        read = measured(seen[i])
        charts.append({**truth[i], **{n: v for n, v in read.items() if n in truth[i]}})
    count = seen[0]["hours"].shape[0]
    stacked = {n: torch.stack([c[n] for c in charts], dim=1) for n in truth[0]}
    actions = torch.zeros(count, len(seen), plan.shape[1])
    for i in range(len(seen) - 1):
        actions[:, i] = plan[i]
    hours = (torch.arange(len(seen)) * hours_per_step).expand(count, -1)
    return History(stacked, actions, hours)


def drift(model, patients: int, seed: int = TEST_SEED) -> dict[str, float]:
    """Change of heart rate and R amplitude from step 1 to step 24 without drug, mean over patients, at the same hour
    of day."""
    key = keys.from_seed(seed + 1_000_000, patients)
    nothing = torch.zeros(24, len(DRUGS))
    states = run(model, model.initial(key), nothing)
    day = int(24 / model.hours_per_step)
    first, last = (model.observe(states[i], ("ecg_mv",)) for i in (24 - day, 24))
    rate = (last["heart_rate_bpm"] - first["heart_rate_bpm"]).mean().item()
    height = [c["ecg_mv"].amax(-1).sub(c["ecg_mv"].amin(-1)).mean().item() for c in (first, last)]
    start = model.observe(states[0])["heart_rate_bpm"].mean().item()
    return {"heart_rate_change_bpm": rate, "heart_rate_start_bpm": start, "amplitude_ratio": height[1] / height[0]}


def summary(rows: list[dict]) -> list[dict]:
    """Pooled over hours and plans of a drug."""
    found = []
    for history in ("baseline alone", "two post-dose ECGs"):
        for drug in (*DRUGS, "all"):
            for interval in (*INTERVALS, "all"):
                chosen = [
                    r
                    for r in rows
                    if r["history"] == history
                    and (drug == "all" or r["plan"].startswith(drug))
                    and (interval == "all" or r["interval"] == interval)
                ]
                mean = {
                    k: float(np.mean([r[k] for r in chosen]))
                    for k in (
                        "mae_model_ms",
                        "mae_persistence_ms",
                        "mae_population_ms",
                        "mae_best_ms",
                        "mae_chart_ms",
                        "coverage90",
                    )
                }
                agree = float(np.median([r["head_vs_delineator_median_ms"] for r in chosen]))
                found.append(
                    {
                        "history": history,
                        "drug": drug,
                        "interval": interval,
                        **{k: round(v, 3) for k, v in mean.items()},
                        "ratio_to_persistence": round(mean["mae_model_ms"] / mean["mae_persistence_ms"], 3),
                        "best_to_persistence": round(mean["mae_best_ms"] / mean["mae_persistence_ms"], 3),
                        "head_vs_delineator_median_ms": round(agree, 3),
                    }
                )
    return found


# --table NAME -> the module whose command it is, and what it is asked
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "1": ("tables", ("--table", "1")),  # errors of latents and signals beside the paper's rivals
    "2": ("tables", ("--table", "2")),  # classes of QTc, PR and Tpeak-Tend
    "3": ("tables", ("--table", "3")),  # change of the risk
    "ood": ("held_out_drug", ()),  # a drug that training never saw
    "morphology": ("abnormal_beats", ()),  # abnormal beats of LUDB and PTB-XL beside normal ones
    "leads": ("missing_leads", ()),  # one to six leads missing before the dose
    "epk": ("diffusion_bench", ("--parts", "epk")),  # weight of the physics energy
    "rollout": ("rollout", ()),  # one to 24 steps beside the rivals
    "lambda": ("risk_aversion", ()),  # S = mu + lambda sigma
    "prior": ("diffusion_bench", ("--parts", "prior", "mismatch")),  # part of the prior, and a wrong one
    "sampler": ("diffusion_bench", ("--parts", "shipped")),  # few evaluations beside fifty
    "drugs": ("drugs_figure", ()),  # a picture of the ECG under each drug
}


def _other_table(argv: Sequence[str]) -> int | None:
    """The status of the table that `--table NAME` asks for first; None where it does not."""
    if not argv or argv[0] != "--table":
        return None
    name = argv[1] if len(argv) > 1 else ""
    if name not in TABLES:
        print(f"error: --table {name or 'of nothing'}: choose of {', '.join(TABLES)}", file=sys.stderr)
        return 2
    module, asked = TABLES[name]
    return int(importlib.import_module(f"benchmarks.ecg_drug.{module}").main([*asked, *argv[2:]]) or 0)


def main(argv: list[str] | None = None) -> int:
    """Write the three tables and print the pooled one, or another experiment's. Returns the exit status."""
    other = _other_table(sys.argv[1:] if argv is None else argv)
    if other is not None:
        return other
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned world")
    parser.add_argument("--cohort", default="typical")
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--samples", type=int, default=64, help="particles behind each band")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the first test patient")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(argv)
    model = catalog.load(chosen.world, cohort=chosen.cohort)
    with torch.no_grad():
        rows = compare(model, ECGDrugOracle(cohort=chosen.cohort), chosen.patients, chosen.samples, chosen.seed)
        still = drift(model, chosen.patients, chosen.seed)
    table = summary(rows)
    seeds = {"test patients": chosen.seed, "population course": POPULATION_SEED, "best": BEST_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.fidelity", argv, seeds, [chosen.world, "oracle"])
    write_csv(chosen.out / "fidelity_ecg_wm.csv", rows, made)
    write_csv(chosen.out / "fidelity_ecg_wm_summary.csv", table, made)
    write_csv(chosen.out / "fidelity_ecg_wm_drift.csv", [{k: round(v, 4) for k, v in still.items()}], made)
    for row in table:
        print("  ".join(f"{v:>20}" if isinstance(v, str) else f"{v:10.3f}" for v in row.values()))
    print(still)
    return 0


if __name__ == "__main__":
    sys.exit(main())
