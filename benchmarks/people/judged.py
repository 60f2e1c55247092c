"""One question in one record, or in all together: its decision points, every estimator, its control, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.people.estimators import ESTIMATORS, Estimate, Overlap, estimates, pooled
from benchmarks.people.oracle import oracle_effect, regularised
from benchmarks.people.questions import Question

__all__ = ["MAIN", "Asked", "rows_of", "together", "verdict"]

MAIN = "doubly_robust"
FEW_TREATED, FEW_PATIENTS = 50, 20
UNLIKE = 0.25  # standard deviations between treated and weighted untreated at which they are not comparable


class Asked(NamedTuple):
    """What a record answers to one question."""

    record: str
    sums: np.ndarray  # [C, 10] of `cluster_sums`
    control_sums: np.ndarray | None  # None: too few have it
    overlap: Overlap | None  # None: of several records together
    treated: int
    untreated: int
    patients: int  # treated ones
    clusters: int
    dose: np.ndarray  # of the treated; NaN: not told
    after_h: float  # mean hours from the decision to the outcome, of the treated
    measured: np.ndarray  # [2] share of untreated, of treated
    effects: dict[str, tuple[np.ndarray, np.ndarray]]  # world -> effects and clusters of treated points


def rows_of(q: Question, asked: Asked) -> list[dict[str, Any]]:
    """The table's rows: an estimator each, the oracle, the estimate drawn towards it, the worlds, the control."""
    found: dict[str, Estimate] = dict(estimates(asked.sums))
    known = asked.dose[~np.isnan(asked.dose)]
    dose = float(known.mean()) if len(known) else float("nan")
    control = None if asked.control_sums is None else estimates(asked.control_sums)
    oracle = oracle_effect(q, dose if len(known) else q.usual_dose, asked.after_h)
    if oracle is not None:
        found["oracle_regularised"] = regularised(found[MAIN], oracle[0])
    for name, (effect, cluster) in asked.effects.items():
        found[f"world {name}"] = _mean(effect, cluster)
    if oracle is not None:
        found["oracle"] = Estimate(oracle[0], float("nan"), float("nan"), float("nan"))
    scale = q.usual_dose / dose
    told = verdict(q, asked, found, control, scale)
    counts: dict[str, Any] = {
        "treated": asked.treated,
        "untreated": asked.untreated,
        "treated_patients": asked.patients,
        "clusters": asked.clusters,
        "mean_dose": dose,
        "dose_unit": q.dose_unit,
        "doses_told": len(known) / max(len(asked.dose), 1),
        "outcome_after_h": asked.after_h,
        "measured_untreated": float(asked.measured[0]),
        "measured_treated": float(asked.measured[1]),
    }
    seen = asked.overlap
    counts |= {
        "propensity_cut": float("nan") if seen is None else seen.cut_share,
        "effective_untreated": float("nan") if seen is None else seen.effective_untreated,
        "imbalance_before": float("nan") if seen is None else seen.imbalance_before,
        "imbalance": float("nan") if seen is None else seen.imbalance,
    }
    first = {"question": q.name, "record": asked.record}
    rows = [
        {
            **first,
            "estimator": name,
            "outcome": q.target,
            **_columns("effect", e, 1.0),
            **_columns("usual_dose_effect", e, scale),
            "usual_dose": q.usual_dose,
            **counts,
            "known_low": q.low,
            "known_high": q.high,
            "verdict": told if name == MAIN else "",
            "literature": q.literature,
        }
        for name, e in found.items()
    ]
    for name in ESTIMATORS[1:] if control is not None else ():
        rows.append(
            {
                **first,
                "estimator": f"control {name}",
                "outcome": q.control,
                **_columns("effect", control[name], 1.0),
                "known_low": 0.0,
                "known_high": 0.0,
            }
        )
    return rows


def _columns(name: str, e: Estimate, scale: float) -> dict[str, float]:
    return {name: e.value * scale, f"{name}_low": e.low * scale, f"{name}_high": e.high * scale}


def _mean(effect: np.ndarray, cluster: np.ndarray) -> Estimate:
    """The mean of unit effects; clusters resampled."""
    _, owner = np.unique(cluster, return_inverse=True)
    sums = np.zeros((int(owner.max()) + 1, 10))
    sums[:, 0], sums[:, 3] = np.bincount(owner), np.bincount(owner, effect)
    return estimates(sums)["outcome_regression"]


def verdict(
    q: Question, asked: Asked, found: dict[str, Estimate], control: dict[str, Estimate] | None, scale: float
) -> str:
    """What the record can tell, by rules: sign and size beside what is known (`scale` brings an effect to a usual dose;
    NaN: no dose is told), and every trouble that was found."""
    main = found[MAIN]
    trouble = []
    if asked.treated < FEW_TREATED or asked.patients < FEW_PATIENTS:
        trouble.append(f"few treated ({asked.treated} times, {asked.patients} patients)")
    if all(found[n].value * q.sign <= 0 for n in ("naive", "outcome_regression", MAIN, "doubly_robust_logistic")):
        trouble.append("wrong sign by every comparison")
    if asked.overlap is not None and abs(asked.overlap.imbalance) > UNLIKE:
        trouble.append(f"no like untreated (target {asked.overlap.imbalance:+.2f} SD apart after weighting)")
    if control is not None and (control[MAIN].low > 0 or control[MAIN].high < 0):
        trouble.append("confounding left: the control moves")
    if main.low * q.sign > 0 and main.high * q.sign > 0:
        said = "sign as known"
    elif main.low * q.sign < 0 and main.high * q.sign < 0:
        said = "sign against what is known"
    else:
        said = "not told from no effect"
    return "; ".join([said, *_size(q, main, scale), *trouble])


def _size(q: Question, main: Estimate, scale: float) -> list[str]:
    """Whether a usual dose's interval reaches the known range."""
    near, far = sorted((q.sign * q.low, q.sign * q.high))
    ends = sorted((q.sign * main.low * scale, q.sign * main.high * scale))
    if not all(np.isfinite(ends)):
        return ["size not told"]
    return (
        ["smaller than known"]
        if ends[1] < near
        else ["larger than known"]
        if ends[0] > far
        else ["size may be as known"]
    )


def together(parts: Sequence[Asked]) -> Asked:
    """All records as one; each keeps its own models, and its untreated stand for its own treated."""
    controls = [p.control_sums for p in parts if p.control_sums is not None]
    n = np.array([p.treated for p in parts], dtype=float)
    shift = 10**15  # clusters of different records never share a number
    worlds = dict.fromkeys(w for p in parts for w in p.effects)
    return Asked(
        record="all",
        sums=pooled([p.sums for p in parts]),
        control_sums=pooled(controls) if controls else None,
        overlap=None,
        treated=int(n.sum()),
        untreated=sum(p.untreated for p in parts),
        patients=sum(p.patients for p in parts),
        clusters=sum(p.clusters for p in parts),
        dose=np.concatenate([p.dose for p in parts]),
        after_h=float((n * [p.after_h for p in parts]).sum() / n.sum()),
        measured=(n[:, None] * np.stack([p.measured for p in parts])).sum(0) / n.sum(),
        effects={
            w: (
                np.concatenate([p.effects[w][0] for p in parts if w in p.effects]),
                np.concatenate([p.effects[w][1] + i * shift for i, p in enumerate(parts) if w in p.effects]),
            )
            for w in worlds
        },
    )
