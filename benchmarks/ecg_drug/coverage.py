"""Do 90 % bands cover 90 %? Learned world against the oracle, before and after split conformal calibration.

    python -m benchmarks.ecg_drug.coverage

Patients of every cohort, each with one drug in a single or a repeated dose, known by the baseline chart alone. The
learned world's band at 2, 6, 12 and 24 h is the middle 90 % of its particles. The calibration sees one half of the
patients, the figures are of the other half, whom neither training nor calibration met:

- none: the particles' own band
- all: one correction a measure;  drug: one a drug;  drug, sex, cohort: one in each such group

`coverage_ecg_wm.csv` has the share covered, and the mean width, by everything, drug, sex, cohort, hour and plan;
`coverage_ecg_wm_groups.csv` the lowest and highest share among the groups of drug x sex x cohort;
`coverage_ecg_wm_parts.csv` how much of the spread is the patient's (epistemic) and how much chance (aleatoric).
Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.fidelity import particles, plans, run
from world_models import catalog, keys, tree
from world_models.ecg_wm import conformal
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import History
from world_models.quantities.ecg_drug import DRUGS
from world_models.uncertainty import decompose

MEASURES = ("qtcf_ms", "pr_ms", "qrs_ms", "heart_rate_bpm", "jt_peak_c_ms", "tpeak_tend_ms")
HOURS = (2, 6, 12, 24)
LEVEL = 0.9
SEX = ("men", "women")
# Apart from training (1e9, 2e9), the risk predictor (3e9) and the other benchmarks (4e9, 6e9 to 8e9).
COVERAGE_SEED, PARTICLE_SEED = 9_000_000_000, 9_500_000_000
CELL_STRIDE = 100_000  # seeds from one cohort's and plan's patients to the next's


class Bands(NamedTuple):
    """N observations: of one patient at one hour."""

    low: dict[str, Tensor]  # measure -> [N] 5 % of the particles
    high: dict[str, Tensor]
    observed: dict[str, Tensor]  # what the oracle's chart showed
    drug: Tensor  # int64 [N]
    sex: Tensor
    cohort: Tensor
    hour: Tensor
    repeated: Tensor
    kept: Tensor  # bool [N]: of a patient kept for calibration


def observe_bands(model: Any, patients: int, samples: int) -> Bands:
    """Bands and observations of `patients` patients of every cohort under every plan, half of them for calibration."""
    parts = [
        _cell(model, cohort, plan, doses, place, patients, samples)
        for place, (cohort, plan, doses) in enumerate(_cells(model.hours_per_step))
    ]
    joined = [
        {n: torch.cat([p[i][n] for p in parts]) for n in MEASURES}  # type: ignore[call-overload]
        if isinstance(parts[0][i], dict)
        else torch.cat([p[i] for p in parts])
        for i in range(len(parts[0]))
    ]
    return Bands(*joined)


def _cells(hours_per_step: float) -> Iterator[tuple[str, str, Tensor]]:
    steps = int(max(HOURS) / hours_per_step)
    for cohort in sorted(COHORTS):
        for plan, doses in plans(hours_per_step, steps).items():
            yield cohort, plan, doses


def _cell(model: Any, cohort: str, plan: str, doses: Tensor, place: int, patients: int, samples: int) -> Bands:
    key = keys.from_seed(COVERAGE_SEED + place * CELL_STRIDE, patients)
    oracle = ECGDrugOracle(cohort=cohort, hours_per_step=model.hours_per_step)
    charts = [oracle.observe(s) for s in run(oracle, oracle.initial(key), doses)]
    state = many_of(model, charts[0], key, samples)
    found: dict[str, list[Any]] = {"low": [], "high": [], "observed": []}
    for i, dose in enumerate(doses):
        state = model.transition(state, dose.expand(patients * samples, -1))
        if (i + 1) * model.hours_per_step in HOURS:
            seen = model.observe(state)
            ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            band = {n: seen[n].reshape(patients, samples).quantile(ends, dim=1) for n in MEASURES}
            found["low"].append({n: band[n][0] for n in MEASURES})
            found["high"].append({n: band[n][1] for n in MEASURES})
            found["observed"].append({n: charts[i + 1][n] for n in MEASURES})
    times = len(found["low"])
    values = [{n: torch.cat([row[n] for row in found[what]]) for n in MEASURES} for what in found]
    drug, kind = plan.split()

    def all_of(number: int) -> Tensor:
        return torch.full((patients * times,), number)

    return Bands(
        *values,
        drug=all_of(DRUGS.index(drug)),
        sex=charts[0]["sex_female"].long().repeat(times),
        cohort=all_of(sorted(COHORTS).index(cohort)),
        hour=torch.tensor(HOURS).repeat_interleave(patients),
        repeated=all_of(int(kind == "repeated")),
        kept=(torch.arange(patients) < patients // 2).repeat(times),
    )


def many_of(model: Any, first: dict[str, Tensor], key: Tensor, samples: int) -> Any:
    """The belief after the baseline chart alone, as `samples` particles a patient."""
    count = len(key)
    history = History(
        {n: v.unsqueeze(1) for n, v in first.items()}, torch.zeros(count, 1, len(DRUGS)), torch.zeros(count, 1)
    )
    state = model.infer(history, keys.from_seed(PARTICLE_SEED, count), None)
    return particles(model, state, samples, key)


def tables(bands: Bands) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Share covered and mean width by group, and the extremes among drug x sex x cohort, for each calibration."""
    each = (bands.drug * len(SEX) + bands.sex) * len(COHORTS) + bands.cohort
    names = [f"{d}/{s}/{c}" for d in DRUGS for s in SEX for c in sorted(COHORTS)]
    kept, test = bands.kept, ~bands.kept
    kinds: dict[str, tuple[Tensor | None, list[str]]] = {
        "all": (None, []), "drug": (bands.drug, list(DRUGS)), "drug, sex, cohort": (each, names)
    }  # fmt: skip
    views = {
        "everything": (torch.zeros_like(bands.drug), ["everything"]),
        "drug": (bands.drug, list(DRUGS)),
        "sex": (bands.sex, list(SEX)),
        "cohort": (bands.cohort, sorted(COHORTS)),
        "hour": (torch.searchsorted(torch.tensor(HOURS), bands.hour), [f"{h} h" for h in HOURS]),
        "plan": (bands.repeated, ["single", "repeated"]),
    }
    rows, extremes = [], []
    for kind in ("none", *kinds):
        made = None
        if kind != "none":
            group, labels = kinds[kind]
            made = conformal.fit(
                *({n: part[n][kept] for n in MEASURES} for part in (bands.low, bands.high, bands.observed)),
                level=LEVEL, group=None if group is None else group[kept], groups=labels,
            )  # fmt: skip
        inside, width = {}, {}
        for n in MEASURES:
            low, high = bands.low[n], bands.high[n]
            if made is not None:
                low, high = made.band(n, low, high, kinds[kind][0])
            inside[n] = conformal.covered(low, high, bands.observed[n]).float()
            width[n] = high - low
        for view, (place, labels) in views.items():
            for i, label in enumerate(labels):
                chosen = test & (place == i)
                shares = {n: float(inside[n][chosen].mean()) for n in MEASURES}
                rows.append({
                    "calibration": kind, "by": view, "group": label, "observations": int(chosen.sum()),
                    "all_measures": float(np.mean(list(shares.values()))), **shares,
                    "width_qtcf_ms": float(width["qtcf_ms"][chosen].mean()),
                })  # fmt: skip
        for n in MEASURES:
            cell = [
                float(inside[n][test & (each == g)].mean()) for g in range(len(names)) if (test & (each == g)).any()
            ]
            extremes.append({
                "calibration": kind, "measure": n, "groups": len(cell), "lowest": min(cell), "highest": max(cell),
                "median": float(np.median(cell)), "outside_80_to_97": sum(not 0.8 <= c <= 0.97 for c in cell),
            })  # fmt: skip
    return rows, extremes


def parts_table(model: Any, patients: int) -> list[dict[str, Any]]:
    """Median over patients of the typical cohort of spread, epistemic and aleatoric part, from the baseline alone."""
    key = keys.from_seed(COVERAGE_SEED - CELL_STRIDE, patients)
    oracle = ECGDrugOracle(hours_per_step=model.hours_per_step)
    state = tree.take(many_of(model, oracle.observe(oracle.initial(key)), key, 1), slice(None))
    rows = []
    for plan, doses in plans(model.hours_per_step, int(max(HOURS) / model.hours_per_step)).items():
        found = decompose(model, state, doses, key, MEASURES, patients=16, chances=4)
        for hour in HOURS:
            at = int(hour / model.hours_per_step) - 1
            for n, parts in found.items():
                figures = {k: float(v[:, at].square().mean().sqrt()) for k, v in parts._asdict().items()}
                rows.append({"plan": plan, "hours": hour, "measure": n, "patients": patients, **figures})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Write the three tables and print the shares covered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned world")
    parser.add_argument("--patients", type=int, default=192, help="of each cohort and plan; half calibrate, half judge")
    parser.add_argument("--samples", type=int, default=64, help="particles behind each band")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(argv)
    model = catalog.load(chosen.world)
    with torch.no_grad():
        bands = observe_bands(model, chosen.patients, chosen.samples)
        rows, extremes = tables(bands)
        parts = parts_table(model, 64)
    seeds = {"patients": COVERAGE_SEED, "particles": PARTICLE_SEED}
    made = made_by("benchmarks.ecg_drug.coverage", argv, seeds, [chosen.world, "oracle"])
    for name, table in (("", rows), ("_groups", extremes), ("_parts", parts)):
        write_csv(chosen.out / f"coverage_ecg_wm{name}.csv", table, made)
    for row in rows:
        shares = "  ".join(f"{n} {row[n]:.3f}" for n in ("all_measures", *MEASURES))
        print(f"{row['calibration']:<18} {row['by']:<10} {row['group']:<17} {shares}  width {row['width_qtcf_ms']:.1f}")
    for row in extremes:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
