"""The frozen risk predictor on patients it never met: does it rank, and are its chances true?

    python -m benchmarks.ecg_drug.risk

Oracle patients of every cohort under plans that stop (`ecg_wm.risk.data`), with seeds of their own. Beside the
predictor stand what needs no learning: the base rate, QTcF alone, its rise alone (both made into chances by logistic
regression on other patients). `risk_predictor.csv` has AUROC, log score, Brier score and calibration error, with 95 %
intervals by resampling patients; `risk_reliability.csv` and its figure the share of events by predicted chance;
`risk_delta.csv` whether the change of the risk after a dose goes with what happened to the patient.
Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from world_models import checkpoint, keys
from world_models.ecg_wm.risk.data import LARGE_RISE_MS, LONG_QTCF_MS, RiskExamples, risk_examples, with_gaps
from world_models.ecg_wm.risk.predictor import RISKS, RiskPredictor
from world_models.oracles.ecg_drug.cohorts import COHORTS

# Apart from training (3e9) and the other benchmarks.
FIT_SEED, TEST_SEED = 10_000_000_000, 11_000_000_000
RESAMPLES, BINS = 60, 10
# Of the event the chance is read in tenths; of torsades, which are rare, in classes on a log scale.
EDGES = {"event": np.linspace(0, 1, BINS + 1), "torsades": np.array([0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0])}


def predicted(model: RiskPredictor, data: RiskExamples) -> dict[str, np.ndarray]:
    """Chances [N] of each risk."""
    with torch.no_grad():
        chance = torch.sigmoid(model.logits(data.inputs, data.qtcf_ms, data.rise_ms)).double().numpy()
    return {n: chance[:, i] for i, n in enumerate(RISKS)}


def simple_rivals(data: RiskExamples, other: RiskExamples) -> dict[str, dict[str, np.ndarray]]:
    """Rival -> risk -> chances [N], each fitted on the other patients."""
    found: dict[str, dict[str, np.ndarray]] = {"base rate": {}, "QTcF alone": {}, "rise alone": {}}
    for i, n in enumerate(RISKS):
        hit = other.outcome[:, i].numpy()
        found["base rate"][n] = np.full(len(data.outcome), hit.mean())
        for name in ("QTcF alone", "rise alone"):
            column = "qtcf_ms" if name.startswith("QTcF") else "rise_ms"
            line = LogisticRegression(C=1e6).fit(getattr(other, column).numpy()[:, None] / 100, hit)
            found[name][n] = line.predict_proba(getattr(data, column).numpy()[:, None] / 100)[:, 1]
    return found


def calibration_error(chance: np.ndarray, hit: np.ndarray, edges: np.ndarray) -> float:
    """Expected calibration error: |share of events - mean chance| in each class, weighed by its size."""
    place = np.clip(np.searchsorted(edges, chance, "right") - 1, 0, len(edges) - 2)
    gap = np.bincount(place, hit - chance, len(edges) - 1)
    return float(np.abs(gap).sum() / len(chance))


def auroc_and_log_score(chance: np.ndarray, hit: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """AUROC (NaN where all had the same outcome) and mean log score, the smaller the better."""
    p = chance.astype(np.float64).clip(1e-9, 1 - 1e-9)
    each = -(hit * np.log(p) + (1 - hit) * np.log1p(-p))
    known = 0 < hit.sum() < len(hit)
    auroc = float(roc_auc_score(hit, chance, sample_weight=weight)) if known else float("nan")
    return auroc, float(np.average(each, weights=weight))


def scores(chance: np.ndarray, hit: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """Figures of merit."""
    auroc, log_score = auroc_and_log_score(chance, hit)
    return {
        "auroc": auroc,
        "log_score": log_score,
        "brier": float(((chance - hit) ** 2).mean()),
        "calibration_error": calibration_error(chance, hit, edges),
    }


def judged(chance: np.ndarray, hit: np.ndarray, patient: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """`scores`, AUROC and log score with a 95 % interval by resampling patients, not charts."""
    found = scores(chance, hit, edges)
    rng = np.random.default_rng(0)
    _, number = np.unique(patient, return_inverse=True)
    count = int(number.max()) + 1
    draws = [
        auroc_and_log_score(chance, hit, np.bincount(rng.integers(0, count, count), minlength=count)[number])
        for _ in range(RESAMPLES)
    ]
    for n, values in zip(("auroc", "log_score"), zip(*draws, strict=True), strict=True):
        found[f"{n}_low"], found[f"{n}_high"] = np.nanquantile(values, (0.025, 0.975)).tolist()
    return found


def reliability(chance: np.ndarray, hit: np.ndarray, edges: np.ndarray) -> list[dict[str, float]]:
    """Share of events by class of predicted chance, with its 95 % interval (Wilson)."""
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (chance >= low) & ((chance < high) | (high == edges[-1]))
        n = int(inside.sum())
        if n:
            share, z = hit[inside].mean(), 1.96
            middle = (share + z * z / (2 * n)) / (1 + z * z / n)
            half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
            rows.append({
                "from": low, "to": high, "charts": n, "predicted": chance[inside].mean(), "observed": share,
                "low": max(middle - half, 0.0), "high": min(middle + half, 1.0),
            })  # fmt: skip
    return rows


def delta(model: RiskPredictor, patients: int, key: Tensor) -> list[dict[str, Any]]:
    """Change of the risk from the admission ECG to the worst one of a single dose's day, against what happened.

    The oracle's own chance of the event for each patient is the share over repeats with other random numbers, so that
    the delta-risk of the predictor is compared with a delta-risk, not with a coin's throw.
    """
    from world_models import tree
    from world_models.oracles.ecg_drug.world import ECGDrugOracle
    from world_models.quantities.drugs import ANTIARRHYTHMICS

    repeats, rows = 32, []
    oracle = ECGDrugOracle()
    admitted = oracle.initial(key)
    first = model(oracle.observe(admitted))["event"]
    for i, drug in enumerate(ANTIARRHYTHMICS):
        for dose_mg in drug.menu_mg:
            true, found = torch.zeros(2, patients), torch.zeros(patients)
            for arm, mg in enumerate((0.0, dose_mg)):
                many = tree.repeat(admitted, repeats)
                number = torch.arange(repeats).repeat(patients)
                many = oracle.rekey(many, keys.fold(keys.fold(many.key, "risk/repeat"), number))
                struck = torch.zeros(patients * repeats, dtype=torch.bool)
                for step in range(12):
                    dose = torch.zeros(patients * repeats, len(oracle.orders))
                    dose[:, i] = mg if step == 0 else 0.0
                    many = oracle.transition(many, dose)
                    chart = oracle.observe(many)
                    rise = chart["qtcf_ms"] - chart["baseline_qtcf_ms"]
                    struck |= (chart["torsades"] > 0.5) | (chart["qtcf_ms"] > LONG_QTCF_MS) | (rise > LARGE_RISE_MS)
                    if arm and step == 1:  # one post-dose ECG, as the paper has it: 4 h after the dose
                        found = model(chart)["event"].reshape(patients, repeats)[:, 0] - first
                true[arm] = struck.float().reshape(patients, repeats).mean(1)
            rows.append({"drug": drug.name, "dose_mg": dose_mg, "found": found, "true": true[1] - true[0]})
    rows.append(
        {"drug": "all", "dose_mg": float("nan"), **{k: torch.cat([r[k] for r in rows]) for k in ("found", "true")}}
    )
    return [_agreement(r) for r in rows]


def _agreement(row: dict[str, Any]) -> dict[str, Any]:
    found, true = row["found"].double().numpy(), row["true"].double().numpy()
    moved = np.abs(true) > 0.05  # of a change smaller than that the sign is the repeats' noise
    constant = found.std() == 0 or true.std() == 0
    return {
        "drug": row["drug"],
        "dose_mg": row["dose_mg"],
        "patients": len(found),
        "mean_true": true.mean(),
        "mean_predicted": found.mean(),
        "pearson": float("nan") if constant else float(np.corrcoef(found, true)[0, 1]),
        "sign_agreement": float((np.sign(found[moved]) == np.sign(true[moved])).mean())
        if moved.any()
        else float("nan"),
        "moved": int(moved.sum()),
        "mae": np.abs(found - true).mean(),
        "rmse": np.sqrt(((found - true) ** 2).mean()),
    }


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Observed share against predicted chance, on log scales for torsades."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), RISKS, strict=True):
        chosen = [r for r in rows if r["risk"] == name and r["charts"] >= 20]
        x, y = (np.array([r[k] for r in chosen]) for k in ("predicted", "observed"))
        error = [y - [r["low"] for r in chosen], [r["high"] for r in chosen] - y]
        axis.errorbar(x, y, yerr=np.abs(error), fmt="o", capsize=3)
        ends = [1e-5, 0.3] if name == "torsades" else [0, 1]
        axis.plot(ends, ends, color="grey", lw=1)
        if name == "torsades":
            axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        axis.set(title=name, xlabel="predicted chance", ylabel="share with the event (95 % interval)")
    return figure


def main(argv: list[str] | None = None) -> None:
    """Write the tables and the figure, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", type=Path, default=None, help="its folder (default: the one that ships)")
    parser.add_argument("--patients", type=int, default=24_000)
    parser.add_argument("--delta-patients", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(argv)
    model = RiskPredictor.load(chosen.predictor)
    names = model.config.inputs
    parts = [
        risk_examples(keys.from_seed(TEST_SEED + i * 100_000, 4000), names) for i in range(chosen.patients // 4000)
    ]
    data = RiskExamples(*(torch.cat(c) for c in zip(*parts, strict=True)))
    own = torch.cat([p.patient + i * 100_000 for i, p in enumerate(parts)])  # numbers within the whole test
    data = data._replace(patient=own)
    other = risk_examples(keys.from_seed(FIT_SEED, 8000), names)
    gaps = with_gaps(keys.fold(keys.from_seed(TEST_SEED, len(own)), "gaps"), data, names)
    chances = {"predictor": predicted(model, data), "predictor, measures missing": predicted(model, gaps)}
    chances |= simple_rivals(data, other)
    rows, classes = [], []
    for i, risk in enumerate(RISKS):
        hit = data.outcome[:, i].double().numpy()
        for name, chance in chances.items():
            figures = judged(chance[risk], hit, own.numpy(), EDGES[risk])
            rows.append({"risk": risk, "model": name, "patients_of": "all cohorts", "charts": len(hit),
                         "events": int(hit.sum()), **figures})  # fmt: skip
        groups = {cohort: (data.cohort == c).numpy() for c, cohort in enumerate(sorted(COHORTS))}
        groups["no outlier on this ECG"] = ~((data.qtcf_ms > LONG_QTCF_MS) | (data.rise_ms > LARGE_RISE_MS)).numpy()
        for cohort, inside in groups.items():
            figures = scores(chances["predictor"][risk][inside], hit[inside], EDGES[risk])
            rows.append({"risk": risk, "model": "predictor", "patients_of": cohort, "charts": int(inside.sum()),
                         "events": int(hit[inside].sum()), **figures})  # fmt: skip
        classes += [{"risk": risk, **r} for r in reliability(chances["predictor"][risk], hit, EDGES[risk])]
    with torch.no_grad():
        changes = delta(model, chosen.delta_patients, keys.from_seed(TEST_SEED - 1_000_000, chosen.delta_patients))
    seeds = {"test patients": TEST_SEED, "rivals' patients": FIT_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.risk", argv, seeds, ["oracle"])
    folder = Path(checkpoint.__file__).parent / "weights" / model.config.name if chosen.predictor is None else None
    if folder is not None:
        made["seals"][model.config.name] = checkpoint.sha256(folder)
    write_csv(chosen.out / "risk_predictor.csv", rows, made)
    write_csv(chosen.out / "risk_reliability.csv", classes, made)
    write_figure(chosen.out / "risk_reliability.png", picture(classes), made)
    write_csv(chosen.out / "risk_delta.csv", changes, made)
    for row in (*rows, *classes, *changes):
        print({k: round(float(v), 4) if isinstance(v, float | np.floating) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
