"""Rivals that know only charts: persistence, population course, a concentration-response model, gradient boosting.

Their beat is the pre-dose beat, at the intervals that they foretell. Those that are fitted add samples of what their
fit left over on validation patients (of the same drug), so they have a spread like all others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.spent import spending, spent
from benchmarks.ecg_drug.rivals.frame import Given, Predicted, Scales, chart_of, endpoints_of, features, given, repeated
from world_models import keys
from world_models.ecg_wm.pairs import HOURS, Pairs, own_beat
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.population import Individual, TrialModel
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["CHART_RIVALS", "Boosting", "ConcentrationResponse", "Persistence", "PopulationCourse", "fit_chart_rival"]

_RIDGE = 1.0  # rows' worth of no effect that every coefficient starts from
_PEOPLE, _TYPICAL_KG = 256, 75.0
BOOSTING_RATES = (0.1, 0.3, 0.03)  # as many as the networks have; the usual one first
_TREES = 15.0  # over the rate, at most


def _known(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Change of the measures [N, 10] on their working scales, and which rows are known throughout (bool [N])."""
    change = endpoints_of(pairs.post) - endpoints_of(pairs.pre)
    return change, ~change.isnan().any(-1)


class _ChartRival:
    """A point prediction of the change, and residuals of validation patients about it."""

    name = ""

    def change(self, told: Given) -> Tensor:
        """The change [N, 10] of the measures on their working scales."""
        raise NotImplementedError

    def keep_residuals(self, validation: Pairs) -> None:
        """What the fit leaves over, by drug."""
        change, known = _known(validation)
        left = change - self.change(given(validation))
        drugs = range(1 + len(ANTIARRHYTHMICS))
        self.residuals = [left[known & (validation.drug == d)] for d in drugs]
        self.residuals = [r - r.mean(0) if len(r) else left[known] for r in self.residuals]

    @torch.no_grad()
    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """See `frame.Rival.sample`."""
        levels = endpoints_of(told.pre_chart) + self.change(told)
        # the patient's own beat with the T wave that is foretold: as a simple rule would draw it
        found = repeated(own_beat(chart_of(levels), told.pre_beat, (told.pre_chart, told.pre_beat)), levels, samples)
        if samples == 1:
            return found
        own = torch.stack([keys.fold(key, s) for s in range(samples)])
        left = torch.zeros(samples, *levels.shape)
        u = torch.stack([keys.uniform(k, 0, "rival/residual") for k in own])
        for d, some in enumerate(self.residuals):
            rows = (told.drug == d).nonzero().flatten()
            if len(rows) and len(some):
                left[:, rows] = some[(u[:, rows] * len(some)).long().clamp_max(len(some) - 1)]
        return Predicted(found.beat, chart_of(levels + left))


class Persistence:
    """The pre-dose ECG, unchanged."""

    name = "persistence"

    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """See `frame.Rival.sample`."""
        found = repeated(told.pre_beat, endpoints_of(told.pre_chart), samples)
        same = {n: told.pre_chart[n].expand(samples, -1) for n in found.chart if n in told.pre_chart}
        return found._replace(chart=found.chart | same)


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Coefficients [P, 10] of y [N, 10] on columns x [N, P], each drawn a little to 0."""
    x, y = x.double(), y.double()
    size = x.square().mean(0).clamp_min(1e-12)
    return torch.linalg.solve(x.T @ x + _RIDGE * torch.diag(size), x.T @ y).float()


class PopulationCourse(_ChartRival):
    """The training patients' mean change at that drug and hour, by a part that goes with the dose and one that does not
    (the day's course)."""

    name = "population course"

    def __init__(self, pairs: Pairs):
        change, known = _known(pairs)
        self.coefficients = _least_squares(self._columns(given(pairs))[known], change[known])

    @staticmethod
    def _columns(told: Given) -> Tensor:
        """One column an hour, and one an hour and drug that holds the dose over the trial's."""
        at = torch.tensor(HOURS, device=told.hours.device)
        near = (told.hours.unsqueeze(-1) - at).abs().argmin(-1)
        hour = torch.nn.functional.one_hot(near, len(HOURS)).float()
        full = torch.tensor([d.trial_dose_mg for d in ANTIARRHYTHMICS], device=told.hours.device)
        dose = torch.nn.functional.one_hot(told.drug, 1 + len(full))[:, 1:] * told.dose_mg.unsqueeze(-1) / full
        return torch.cat([hour, (hour.unsqueeze(-1) * dose.unsqueeze(1)).flatten(1)], -1)

    def change(self, told: Given) -> Tensor:
        """See `_ChartRival.change`."""
        return self._columns(told) @ self.coefficients


class ConcentrationResponse(_ChartRival):
    """The field's model: change linear in concentration, drug by drug, with the hour as a factor and the centred
    pre-dose value (Garnett 2018, doi 10.1007/s10928-017-9558-5).

    Concentrations are the mean of people of the fitted kinetics at that dose and hour, as nobody measured these
    patients'. The model's random effects of a person cannot be told apart with one pair each; with them, on the trial's
    repeated periods, it is `benchmarks.ecg_drug.trial_baselines`.
    """

    name = "concentration-response"

    def __init__(self, pairs: Pairs):
        trial = TrialModel.load()
        one = torch.ones(_PEOPLE)
        people = trial.individual(keys.from_seed(0, _PEOPLE), 0.5 * one, _TYPICAL_KG * one, 30.0 * one, one)
        self.level = self._mean_level(trial, people)
        before, (change, known) = endpoints_of(pairs.pre), _known(pairs)
        self.centre = before[known].mean(0)
        told = given(pairs)
        columns = self._columns(told)
        # each measure has a column of its own pre-dose value: ten fits
        fits = [
            _least_squares(
                torch.cat([columns, (before - self.centre)[:, i : i + 1]], -1)[known], change[known, i : i + 1]
            )
            for i in range(len(ENDPOINTS))
        ]
        self.coefficients = torch.cat(fits, 1)

    @staticmethod
    def _mean_level(trial: TrialModel, people: Individual) -> Tensor:
        """Mean plasma concentration [hours, drugs] of one mg, over its highest at the hours there are."""
        found = []
        for hours in HOURS:
            row = []
            for i in range(len(trial.drugs)):
                dose = torch.zeros(_PEOPLE, len(trial.drugs))
                dose[:, i] = 1.0
                amounts = trial.advance(people, trial.no_drug(_PEOPLE), dose, hours)
                row.append(float(trial.concentrations(people, amounts)[:, i].mean()))
            found.append(row)
        table = torch.tensor(found)
        return table / table.amax(0).clamp_min(1e-12)

    def _columns(self, told: Given) -> Tensor:
        at = torch.tensor(HOURS, device=told.hours.device)
        near = (told.hours.unsqueeze(-1) - at).abs().argmin(-1)
        hour = torch.nn.functional.one_hot(near, len(HOURS)).float()
        full = torch.tensor([d.trial_dose_mg for d in ANTIARRHYTHMICS], device=told.hours.device)
        given_drug = torch.nn.functional.one_hot(told.drug, 1 + len(full))[:, 1:].float()
        level = given_drug * self.level[near] * told.dose_mg.unsqueeze(-1) / full
        return torch.cat([hour, given_drug, level], -1)

    def change(self, told: Given) -> Tensor:
        """See `_ChartRival.change`."""
        before = torch.nan_to_num(endpoints_of(told.pre_chart) - self.centre, nan=0.0)
        columns = self._columns(told)
        return columns @ self.coefficients[:-1] + before * self.coefficients[-1]


class Boosting(_ChartRival):
    """Gradient boosting of each measure's change from all that is told but the beat (scikit-learn's histogram boosting,
    after LightGBM, Ke 2017); rate and number of trees by validation patients.

    Raises:
        ImportError: scikit-learn is not installed.
    """

    name = "gradient boosting"

    def __init__(self, pairs: Pairs, validation: Pairs, budget_s: float = float("inf")):
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError:
            raise ImportError('gradient boosting needs scikit-learn: pip install "clinenv[bench]"') from None
        self.scales = Scales.of(pairs)
        (change, known), (other, sure) = _known(pairs), _known(validation)
        x, x_other = (features(given(p), self.scales)[k].numpy() for p, k in ((pairs, known), (validation, sure)))
        y, y_other = change[known].numpy(), other[sure].numpy()
        self.models: list[tuple[Any, int]] = []
        begin, fits = time.process_time(), len(ENDPOINTS) * len(BOOSTING_RATES)
        for i in range(len(ENDPOINTS)):
            best: tuple[float, Any, int] | None = None
            for k, rate in enumerate(BOOSTING_RATES):
                share = (i * len(BOOSTING_RATES) + k) / fits
                late = best is not None and time.process_time() - begin > budget_s * max(share, 1 / fits)
                if late:
                    continue
                model = HistGradientBoostingRegressor(
                    learning_rate=rate, max_iter=int(_TREES / rate), early_stopping=False, random_state=0
                ).fit(x, y[:, i])
                errors = [float(np.square(p - y_other[:, i]).mean()) for p in model.staged_predict(x_other)]
                trees = int(np.argmin(errors))
                if best is None or errors[trees] < best[0]:
                    best = errors[trees], model, trees + 1
            assert best is not None
            self.models.append(best[1:])

    def change(self, told: Given) -> Tensor:
        """See `_ChartRival.change`."""
        x = features(told, self.scales).numpy()
        columns = []
        for model, trees in self.models:
            for count, found in enumerate(model.staged_predict(x), 1):
                if count == trees:
                    columns.append(torch.from_numpy(np.asarray(found)).float())
                    break
        return torch.stack(columns, -1)


CHART_RIVALS = ("persistence", "population", "concentration", "boosting")


def fit_chart_rival(name: str, pairs: Pairs, validation: Pairs, budget_s: float, folder: Path) -> tuple[Any, float]:
    """A chart rival fitted to the pairs, and the processor time it took; fitted anew in every run, as it is quick.

    Raises:
        ValueError: no rival of that name.
    """
    with spending(folder):
        if name == "persistence":
            return Persistence(), 0.0
        if name == "population":
            rival: _ChartRival = PopulationCourse(pairs)
        elif name == "concentration":
            rival = ConcentrationResponse(pairs)
        elif name == "boosting":
            rival = Boosting(pairs, validation, budget_s)
        else:
            raise ValueError(f"no chart rival {name!r}; there are: {', '.join(CHART_RIVALS)}")
        rival.keep_residuals(validation)
    return rival, spent(folder)
