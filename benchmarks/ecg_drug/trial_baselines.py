"""The three things a model of a drug-response trial has to beat, each fitted on the training subjects alone.

Persistence: the subject's own pre-dose value. Population course: that value plus the training subjects' mean change
at that drug and hour. Concentration-response: the field's linear mixed model of the change from pre-dose, drug by
drug with the placebo arm: treatment, concentration and nominal time as fixed effects, intercept and slope random by
subject (Garnett 2018, doi 10.1007/s10928-017-9558-5), without and with the centred pre-dose value as a covariate. With
it, its coefficient is learnt within subjects, from one period to the next, where the random intercept leaves it, and is
then too steep between subjects: on the real trial the model without it predicts a new subject better, so that is the
one to beat; the other is shown beside it. The concentration of a new subject is not known, so the training mean at that
hour stands for it.

Each can also be fitted on the T wave's working scales (`oracles.ecg_drug.scales`: an amplitude then changes by a
factor), and `best_scales` says for which measures that predicts subjects of the training set left out of it better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.ecg_drug.trial_rows import T_TARGETS, TARGETS
from world_models.oracles.ecg_drug.fit.linear_mixed import Design, fit_linear_mixed
from world_models.oracles.ecg_drug.scales import scaled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_scales", "concentration_response", "on_scales", "persistence", "population_course", "rescaled"]

INNER_FOLDS = 4  # of the training subjects, to choose a scale
_SEED = 11  # of these folds

Rival = Callable[["pd.DataFrame", "pd.DataFrame"], dict[str, np.ndarray]]


def on_scales(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the T wave, before and after the dose, on its working scales."""
    changed = {f"{pre}{e}": scaled(e, rows[f"{pre}{e}"]) for e in T_TARGETS.values() for pre in ("", "pre_")}
    return rows.assign(**changed)


def rescaled(rival: Rival, train: pd.DataFrame, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What `rival` predicts when it is fitted on the working scales, in the measures' own units."""
    found = rival(on_scales(train), on_scales(rows))
    return {n: scaled(T_TARGETS[n], v, inverse=True) if n in T_TARGETS else v for n, v in found.items()}


def best_scales(rival: Rival, train: pd.DataFrame) -> dict[str, bool]:
    """T-wave target -> whether the rival errs less on its working scale, on folds of `train`'s subjects."""
    subjects = np.array(sorted(train["randid"].unique()))
    order = np.random.default_rng(_SEED).permutation(len(subjects))
    errors = {name: np.zeros(2) for name in T_TARGETS}
    for fold in range(min(INNER_FOLDS, len(subjects))):
        out = train["randid"].isin(subjects[order[fold::INNER_FOLDS]])
        kept, test = train[~out], train[out].reset_index(drop=True)
        for i, found in enumerate((rival(kept, test), rescaled(rival, kept, test))):
            for name, column in T_TARGETS.items():
                errors[name][i] += float(np.nansum(np.abs(found[name] - test[column].to_numpy(dtype=float))))
    return {name: bool(error[1] < error[0]) for name, error in errors.items()}


def persistence(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Target -> [R] the pre-dose value of the same period, in its unit."""
    return {name: rows[f"pre_{column}"].to_numpy(dtype=float) for name, column in TARGETS.items()}


def population_course(train: pd.DataFrame, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Target -> [R] the pre-dose value plus the mean change of `train` at that drug and hour, in its unit."""
    found = {}
    for name, column in TARGETS.items():
        change = (train[column] - train[f"pre_{column}"]).groupby([train["drug"], train["hour"]]).mean()
        at = list(zip(rows["drug"], rows["hour"], strict=True))
        found[name] = rows[f"pre_{column}"].to_numpy(dtype=float) + change.reindex(at).to_numpy()
    return found


def _padded(frame: pd.DataFrame, columns: np.ndarray) -> torch.Tensor:
    """[N subjects, R, C] from rows: subjects' rows padded with NaN."""
    groups = [np.flatnonzero(frame["randid"].to_numpy() == s) for s in sorted(frame["randid"].unique())]
    out = np.full((len(groups), max(map(len, groups)), columns.shape[1]), np.nan)
    for i, g in enumerate(groups):
        out[i, : len(g)] = columns[g]
    return torch.tensor(out)


def concentration_response(train: pd.DataFrame, rows: pd.DataFrame, covariate: bool = False) -> dict[str, np.ndarray]:
    """Target -> [R] of the linear mixed model fitted to `train`, in its unit.

    covariate: with the centred pre-dose value.
    """
    drugs = sorted(set(train["drug"]) - {"placebo"})
    hours = sorted(train["hour"].unique())
    mean_conc = train.groupby(["drug", "hour"])["conc_ng_per_ml"].mean()
    found = {name: np.full(len(rows), np.nan) for name in TARGETS}
    placebo: dict[str, list[np.ndarray]] = {name: [] for name in TARGETS}
    for drug in drugs:
        part = train[train["drug"].isin(["placebo", drug])]
        own = (part["drug"] == drug).to_numpy(dtype=float)
        scale = float(mean_conc[drug].max())
        conc = np.where(own > 0, part["conc_ng_per_ml"].to_numpy() / scale, 0.0)
        # a concentration that was not measured (below the limit early on) is taken as the mean of that hour
        filled = np.array([mean_conc.get((drug, h), 0.0) for h in part["hour"]]) / scale
        conc = np.where(np.isnan(conc), filled, conc)
        target = rows["drug"].isin(["placebo", drug]).to_numpy()
        given = (rows["drug"] == drug).to_numpy(dtype=float)
        expected = given * np.array([mean_conc.get((drug, h), 0.0) for h in rows["hour"]]) / scale

        def design(own: np.ndarray, conc: np.ndarray, hour: np.ndarray, before: np.ndarray) -> np.ndarray:
            times = np.stack([(hour == h).astype(float) for h in hours], -1)
            return np.concatenate([times, np.stack([own, before, conc] if covariate else [own, conc], -1)], -1)

        for name, column in TARGETS.items():
            before = part[f"pre_{column}"].to_numpy(dtype=float)
            centre = np.nanmean(before)
            y = part[column].to_numpy(dtype=float) - before
            table = _padded(
                part, np.concatenate([design(own, conc, part["hour"].to_numpy(), before - centre), y[:, None]], -1)
            )
            missing = table.isnan().any(-1)
            fixed = torch.where(missing.unsqueeze(-1), 0.0, table[..., :-1])
            change = torch.where(missing, torch.nan, table[..., -1])
            random = (torch.ones_like(fixed[..., :1]), fixed[..., -1:])
            spread = float(np.nanstd(y))
            none = torch.zeros(0, dtype=torch.float64)
            fit = fit_linear_mixed(
                lambda _, f=fixed, r=random: Design(f, r),
                change,
                torch.full((fixed.shape[-1],), torch.inf),
                torch.tensor([0.4 * spread, 0.3 * spread]),
                0.6 * spread,
                none,
                none,
                standard_errors=False,
            )
            own_before = rows[f"pre_{column}"].to_numpy(dtype=float)
            x = design(given, expected, rows["hour"].to_numpy(), own_before - centre)
            predicted = own_before + x @ fit.beta.numpy()
            chosen = target & (given > 0)
            found[name][chosen] = predicted[chosen]
            placebo[name].append(predicted)
    at_rest = (rows["drug"] == "placebo").to_numpy()
    for name in TARGETS:
        # every drug's model predicts the placebo arm too; their mean is used
        found[name][at_rest] = np.mean(placebo[name], 0)[at_rest]
    return found
