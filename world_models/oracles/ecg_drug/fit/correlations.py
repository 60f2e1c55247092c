"""How the endpoints go together, from a few subjects: correlations shrunk, and pooled where few can show more."""

from __future__ import annotations

import numpy as np

from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.effects import Arranged, EndpointFit
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS

__all__ = ["correlation", "covariances", "pooled"]

_REPOLARISATION = ("jt_peak_c_ms", "tpeak_tend_ms")


def _shrunk(correlation: np.ndarray, count: int, uncorrelated: int) -> np.ndarray:
    """Correlations of `count` values, pulled towards none: as if some uncorrelated ones had been seen besides."""
    correlation = np.nan_to_num(correlation) * count / (count + uncorrelated)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def correlation(columns: list[np.ndarray], uncorrelated: int, count: int | None = None) -> np.ndarray:
    """Shrunk correlation [E, E] of columns that may hold NaN (left out) or be constant (uncorrelated)."""
    values = np.stack(columns, -1)
    values = values[~np.isnan(values).any(-1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(np.outer(*[values.std(0) > 1e-9] * 2), np.corrcoef(values.T), 0.0)
    return _shrunk(found, count or len(values), uncorrelated)


def covariances(data: Arranged, fits: dict[str, EndpointFit], uncorrelated: int) -> dict[str, np.ndarray]:
    """Between-subject, between-period and residual covariance of the endpoints [E, E], on their working scales.

    SDs are the likelihood's; correlations those of the predicted effects of subjects and periods, and of the residuals
    of readings that no drug blurs.
    """
    f = [fits[e].fit for e in ENDPOINTS]
    quiet = np.all([(fits[e].site.abs().sum(-1) < 0.2).numpy().ravel() for e in ENDPOINTS], axis=0)
    n = len(data.subjects)
    # shrunk as the sensitivities' are: one matrix in all
    subject = correlation([x.effects[0][:, 0].numpy() for x in f], uncorrelated, n)
    period = correlation([x.effects[1].flatten().numpy() for x in f], uncorrelated, n)
    residual = correlation([np.where(quiet, x.residuals.flatten().numpy(), np.nan) for x in f], uncorrelated)
    spread = {
        "subject": (subject, [float(x.component_sds[0]) for x in f]),
        "period": (period, [float(x.component_sds[1]) for x in f]),
        "residual": (residual, [x.residual_sd for x in f]),
    }
    return {name: c * np.outer(sd, sd) for name, (c, sd) in spread.items()}


def _kinds(e: str, f: str) -> tuple[bool, bool, bool]:
    """Which correlations beyond the levels' own two endpoints may have: of e's level with the sensitivity of f; of
    their sensitivities to one drug; of their sensitivities to two drugs."""
    if e in _REPOLARISATION and f in _REPOLARISATION:
        return True, True, True
    if e in T_ENDPOINTS and f in T_ENDPOINTS:
        return e == f, True, e == f
    of_t = {e, f} <= {*_REPOLARISATION, *T_ENDPOINTS}
    return False, of_t, False


def pooled(found: np.ndarray) -> np.ndarray:
    """The correlation [E + D · E] with only the structure that a few subjects can show.

    J-Tpeak c, Tpeak-Tend and the T wave keep correlations beyond the levels' own (`_kinds`), and every pair of the same
    kind (this endpoint's level with that endpoint's sensitivity; sensitivities to one drug; to two drugs) gets its
    kind's mean over the drugs that act on both.
    """
    count = len(ENDPOINTS)
    kinds: dict[tuple, list[tuple[int, int]]] = {}
    drugs = range(1, len(found) // count)
    for e, one in enumerate(ENDPOINTS):
        for f, other in enumerate(ENDPOINTS):
            level, same, across = _kinds(one, other)
            for d in drugs:
                if level:
                    kinds.setdefault(("level", e, f), []).append((e, d * count + f))
                for g in drugs:
                    if (same if d == g else across) and (e, d) != (f, g):
                        kinds.setdefault((d == g, min(e, f), max(e, f)), []).append((d * count + e, g * count + f))
    result = np.eye(len(found))
    result[:count, :count] = found[:count, :count]
    levels: dict[int, list[int]] = {}  # of an endpoint's sensitivity: whose levels it goes with
    for kind in kinds:
        if kind[0] == "level":
            levels.setdefault(kind[2], []).append(kind[1])
    for pairs in kinds.values():
        live = [(i, j) for i, j in pairs if found[i, j] != 0.0]  # exactly 0: a drug that does not act
        mean = float(np.mean([found[i, j] for i, j in live])) if live else 0.0
        for i, j in live:
            result[i, j] = result[j, i] = mean
    for f, own in levels.items():
        for at in (d * count + f for d in drugs):
            # with the other levels as those go with its own: none of them says anything of its own
            weight = np.linalg.solve(result[np.ix_(own, own)], result[own, at])
            result[:count, at] = result[at, :count] = result[:count, own] @ weight
    return result
