"""The fitted trial as a generative model: virtual people, their kinetics, and what doses do to their ECG.

Levels, effects, courses and variation of an endpoint add on its working scale (`scales`): ms and bpm for the intervals,
logarithms, roots and plain numbers for the T wave. `scales.from_scale` gives its own unit.

Everything is elementwise over the batch and deterministic in the key, so row i of a batch equals the same person alone
bit for bit. Amounts are float64 (the modes' coefficients nearly cancel); what is handed out is float32.

    model = TrialModel.load()
    person = model.individual(key, sex_female, weight_kg, age_years, metaboliser)
    amounts = model.advance(person, model.no_drug(batch), dose_mg, hours=2.0)
    model.effects(person, amounts)["jt_peak_c_ms"]

Drugs of the CiPA table can be added (`load(extra_drugs=("mexiletine",))`). They have no fitted kinetics and no fitted
slopes: one unit of dose is the amount whose single dose peaks at the table's free Cmax, absorbed with
`EXTRA_KA_PER_H` and eliminated with a half-life of `EXTRA_HALF_LIFE_H`, both assumed; concentrations are free and in
nM; effects follow the rough multi-channel law. They are marked in `extrapolated`.
"""

from __future__ import annotations

import json
import math
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ecg_drug import kinetics as pk
from world_models.oracles.ecg_drug.cipa import CipaDrug, cipa_table
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS, channel_effects, daily_course, saturating
from world_models.oracles.ecg_drug.fit.kinetics import REFERENCE_WEIGHT_KG
from world_models.oracles.ecg_drug.fitted import FittedDrug, host, root, times, wide
from world_models.oracles.ecg_drug.kinetics import Amounts

__all__ = ["Amounts", "Individual", "TrialModel"]

EXTRA_KA_PER_H = 1.0
EXTRA_HALF_LIFE_H = 8.0
EXTRA_KE0_PER_H = 3.0
EXTRA_LOG_SPREAD = 0.3  # between people, of an added drug's clearance: about that of the fitted ones
SLOTS_PER_DRUG = (
    6  # log parameters of a drug at most: a fixed number, so that adding drugs changes no one's random numbers
)


class Individual(NamedTuple):
    """People [B], drugs D, endpoints E (in the order of `ENDPOINTS`), modes M = 4 + E. Float64 but for what is said."""

    rates: Tensor  # [B, D, M] per h
    lag_h: Tensor  # [B, D]
    plasma: Tensor  # [B, D, 4] ng/mL per mg
    effect: Tensor  # [B, D, E, 5] ng/mL at the effect site per mg
    slope: Tensor  # [B, D, E] on the working scale, per ng/mL; not used for added drugs
    per_c50: Tensor  # [B, D, E] mL/ng: 1 / C50, 0 where the effect does not saturate
    power: Tensor  # [B, D, E] exponent of the concentration, 1 where the effect is linear
    per_reference: Tensor  # [B, D, E] mL/ng: 1 over the concentration at which the power changes nothing


def _by_endpoint(columns: Tensor) -> dict[str, Tensor]:
    """Columns [B, E] by the endpoints' names, [B] each."""
    return {e: columns[:, i].contiguous() for i, e in enumerate(ENDPOINTS)}


class TrialModel:
    """The population of a fitted trial. See the module's docstring.

    Attributes:
        drugs: names, in the order of the dose's columns. extrapolated: bool per drug.
        concentration_units: 'ng/mL' per fitted drug, 'nM free' per added one.
        parameters: the JSON as read.
    """

    def __init__(
        self, parameters: dict[str, Any], device: torch.device | str = "cpu", extra_drugs: tuple[str, ...] = ()
    ) -> None:
        self.parameters = parameters
        self.device = torch.device(device)
        fitted = tuple(parameters["drugs"])
        table = cipa_table()
        for name in extra_drugs:
            if name in fitted:
                raise ValueError(f"{name} has fitted parameters already; leave it out of extra_drugs")
            if name not in table:
                raise ValueError(f"no drug {name!r} in the CiPA table; choose from {', '.join(sorted(table))}")
        self.fitted, self.extra = fitted, tuple(table[name] for name in extra_drugs)
        self.drugs = (*fitted, *extra_drugs)
        self.extrapolated = (False,) * len(fitted) + (True,) * len(self.extra)
        self.concentration_units = ("ng/mL",) * len(fitted) + ("nM free",) * len(self.extra)
        self.modes = pk.BASE_MODES + len(ENDPOINTS)

        def narrow(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values, dtype=float), dtype=torch.float32, device=self.device)

        self._fits = tuple(FittedDrug.of(name, parameters["drugs"][name], self.device) for name in fitted)
        base = parameters["baseline"]
        level = np.asarray(base["between_subject_covariance"], dtype=float)
        scale = np.sqrt(np.diag(level))
        sensitive = np.asarray(base["sensitivity_with_level_correlation"], dtype=float)
        # standardised sensitivities given the level's standardised deviations: regression and what is left over
        regression = sensitive @ np.linalg.pinv(level / np.outer(scale, scale))
        left = np.asarray(base["sensitivity_correlation"], dtype=float) - regression @ sensitive.T
        self._on_level, self._sensitivity_root = host(regression), host(root(left))
        self._level_sd = wide(scale, self.device)
        self._women, self._men = (narrow([base[sex][e] for e in ENDPOINTS]) for sex in ("women", "men"))
        self._subject_root = host(root(base["between_subject_covariance"]))
        self._day_root = host(root(base["between_period_covariance"]))
        self._residual_root = host(root(base["residual_covariance"]))
        course = parameters["course"]
        self._meals = tuple(float(hour) for hour in course["meal_clock_hours"])
        self._course = {e: narrow(course[e]["coefficients"]) for e in ENDPOINTS}
        self.before_dosing = narrow([course[e]["before_dosing"] for e in ENDPOINTS])

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        extra_drugs: tuple[str, ...] = (),
    ) -> TrialModel:
        """From a JSON that `trial` wrote; without a path, the shipped fit of ECGRDVQ (SCR-002).

        Raises:
            ValueError: not such a file, or a drug that is not in the CiPA table.
        """
        source = files("world_models.oracles.ecg_drug") / "fitted_scr002.json" if path is None else Path(path)
        try:
            parameters = json.loads(source.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{source} is not JSON ({error}); make one with python -m world_models.oracles.ecg_drug.fit.trial"
            ) from error
        missing = [k for k in ("drugs", "baseline", "course") if k not in parameters]
        if not missing:
            missing = [e for e in ENDPOINTS if "coefficients" not in parameters["course"].get(e, ())]
        if missing:
            raise ValueError(
                f"{source} lacks {', '.join(missing)}; make it with python -m world_models.oracles.ecg_drug.fit.trial"
            )
        return cls(parameters, device, tuple(extra_drugs))

    def individual(
        self,
        key: Tensor,
        sex_female: Tensor,
        weight_kg: Tensor,
        age_years: Tensor,
        metaboliser: Tensor,
        level: dict[str, Tensor] | None = None,
    ) -> Individual:
        """Sample people's kinetics and sensitivities from keys [B].

        Sensitivities go with the person's own drug-free level (a longer Tpeak-Tend answers more) and with one another
        across drugs. `level` gives that level per endpoint where it is known; else it is what `baseline` samples from
        the same key.

        `metaboliser` multiplies the clearance of every drug (1 = typical). Weight acts by allometry on clearance and
        volumes. `age_years` has no effect: the trial's people were 20 to 35 years old and say nothing about it.
        """
        d, e = len(self.fitted), len(ENDPOINTS)
        z = keys.normal(key, 0, "pk", (d, SLOTS_PER_DRUG)).to(torch.float64)
        log_weight = (weight_kg.to(torch.float64) / REFERENCE_WEIGHT_KG).log()
        log_metaboliser = metaboliser.to(torch.float64).log()
        side = sex_female.to(torch.float64) - 0.5
        sensitivity = self._sensitivity(key, sex_female, age_years, level)
        parts: list[pk.Kinetics] = []
        slopes: list[Tensor] = []
        for i, own in enumerate(self._fits):
            parts.append(own.kinetics(z[:, i, : len(own.names)], side, log_weight, log_metaboliser))
            spread = own.slope_sd * sensitivity[:, i * e : (i + 1) * e]
            slopes.append(own.slope + own.slope_sex * side.unsqueeze(-1) + spread)
        for item in self.extra:
            parts.append(_extrapolated_kinetics(key, item, log_metaboliser))
            slopes.append(torch.zeros(len(key), e, dtype=torch.float64, device=self.device))
        rates, lag_h, plasma, effect = (torch.stack(each, 1).contiguous() for each in zip(*parts, strict=True))
        return Individual(
            rates,
            lag_h,
            plasma,
            effect,
            torch.stack(slopes, 1),
            self._law([own.per_c50 for own in self._fits], len(key)),
            self._law([own.power for own in self._fits], len(key)),
            self._law([own.per_reference for own in self._fits], len(key)),
        )

    def _law(self, fitted: list[Tensor], batch: int) -> Tensor:
        """A number of the effects' law [B, D, E] from each fitted drug's [E]; 1 for added drugs, which use none."""
        rows = [*fitted, *(torch.ones_like(fitted[0]) for _ in self.extra)]
        return torch.stack([row.expand(batch, -1) for row in rows], 1)

    def _sensitivity(
        self, key: Tensor, sex_female: Tensor, age_years: Tensor, level: dict[str, Tensor] | None
    ) -> Tensor:
        """Standardised sensitivities [B, D * E] of people whose drug-free level is given or sampled from the key."""
        s = keys.normal(key, 0, "pd", (len(self.fitted), len(ENDPOINTS))).to(torch.float64)
        if level is None:
            level = self.baseline(key, sex_female, age_years)
        known = torch.stack([level[e] for e in ENDPOINTS], -1)
        deviation = (known - self._mean_level(sex_female)).to(torch.float64) / self._level_sd
        return times(self._on_level, deviation) + times(self._sensitivity_root, s.reshape(len(key), -1))

    def _mean_level(self, sex_female: Tensor) -> Tensor:
        """Mean drug-free level [B, E] of people of this sex."""
        side = sex_female.to(torch.float32).unsqueeze(-1)
        return self._women * side + self._men * (1.0 - side)

    def no_drug(self, batch: int) -> Amounts:
        """Nothing on board in `batch` people."""
        return pk.empty(batch, len(self.drugs), self.modes, self.device)

    def advance(self, individual: Individual, amounts: Amounts, dose_mg: Tensor, hours: float) -> Amounts:
        """`hours` later, the doses [B, D] being swallowed now. Exact superposition of all doses so far.

        Raises:
            ValueError: a step shorter than `kinetics.MIN_STEP_H`, or a dose of the wrong width.
        """
        if dose_mg.shape[-1] != len(self.drugs):
            raise ValueError(f"dose_mg has {dose_mg.shape[-1]} columns, one a drug are needed: {', '.join(self.drugs)}")
        return pk.advance(pk.Kinetics(*individual[:4]), amounts, dose_mg, hours)

    def concentrations(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Plasma concentrations [B, D] float32 in `concentration_units` (ng/mL; added drugs nM, free)."""
        return pk.concentration(pk.Kinetics(*individual[:4]), amounts).to(torch.float32)

    def _changes(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Change [B, D, E] float32 that each drug makes of each endpoint, on its working scale (`scales`)."""
        sites = pk.effect_sites(pk.Kinetics(*individual[:4]), amounts)
        change = saturating(sites, *individual[4:])
        if self.extra:
            first = len(self.fitted)
            added = [channel_effects(item, sites[:, first + i, 0]) for i, item in enumerate(self.extra)]
            rows = [torch.stack([row[e] for e in ENDPOINTS], -1) for row in added]
            change = torch.cat([change[:, :first], torch.stack(rows, 1)], 1)
        return change.to(torch.float32)

    def effects_by_drug(self, individual: Individual, amounts: Amounts) -> dict[str, Tensor]:
        """Change of each endpoint that each drug makes, [B, D] float32 on its working scale (ms; heart rate bpm)."""
        changes = self._changes(individual, amounts)
        return {e: changes[..., i].contiguous() for i, e in enumerate(ENDPOINTS)}

    def total_effects(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Change [B, E] float32 of each endpoint, in the order of ENDPOINTS: the drugs' changes, added."""
        changes = self._changes(individual, amounts)
        total = changes[:, 0]
        for i in range(1, changes.shape[1]):
            total = total + changes[:, i]
        return total

    def effects(self, individual: Individual, amounts: Amounts) -> dict[str, Tensor]:
        """`total_effects` by endpoint, [B] each."""
        return _by_endpoint(self.total_effects(individual, amounts))

    def time_of_day(self, clock_hour: Tensor) -> dict[str, Tensor]:
        """Course over the day [B] per endpoint, period 24 h, around a daily mean of zero; differences of it count."""
        return {e: daily_course(clock_hour, c, self._meals) for e, c in self._course.items()}

    def baseline(self, key: Tensor, sex_female: Tensor, age_years: Tensor) -> dict[str, Tensor]:
        """A person's own drug-free means [B] per endpoint, at the daily mean. Age has no effect (trial: 20 to 35)."""
        del age_years
        own = times(self._subject_root, keys.normal(key, 0, "baseline", (len(ENDPOINTS),)))
        return _by_endpoint(self._mean_level(sex_female) + own)

    def day_shift(self, key: Tensor) -> dict[str, Tensor]:
        """How this stay's level differs from the person's own mean, [B] per endpoint (between-period variation)."""
        return _by_endpoint(times(self._day_root, keys.normal(key, 0, "day", (len(ENDPOINTS),))))

    def residual(
        self, key: Tensor, t: int | Tensor, individual: Individual | None = None, amounts: Amounts | None = None
    ) -> dict[str, Tensor]:
        """`residuals` by endpoint, [B] each."""
        return _by_endpoint(self.residuals(key, t, individual, amounts))

    def residuals(
        self, key: Tensor, t: int | Tensor, individual: Individual | None = None, amounts: Amounts | None = None
    ) -> Tensor:
        """Within-day variation of a triplicate mean at time index t, [B, E]; correlated among endpoints, no drift.

        With `individual` and `amounts`, also what drugs add: flat and notched T waves make J-Tpeak and Tpeak-Tend
        scatter in proportion to the (saturated) effect-site concentration, in opposite directions.
        """
        sampled = times(self._residual_root, keys.normal(key, t, "residual", (len(ENDPOINTS),)))
        if individual is not None and amounts is not None:
            sites = pk.effect_sites(pk.Kinetics(*individual[:4]), amounts)
            sites = saturating(sites, torch.ones_like(sites), *individual[5:]).to(torch.float32)
            z = keys.normal(key, t, "drug residual", (len(self.fitted), len(ENDPOINTS)))
            for i, own in enumerate(self._fits):
                sampled = sampled + times(own.noise_root, z[:, i]) * sites[:, i]
        return sampled

    def train_range(self) -> Tensor:
        """Highest concentration [D] the fit has seen, float32, in `concentration_units`; added drugs: 4 free Cmax."""
        seen = [self.parameters["drugs"][name]["highest_concentration_ng_per_ml"] for name in self.fitted]
        return torch.tensor(
            seen + [4.0 * item.free_cmax_nm for item in self.extra], dtype=torch.float32, device=self.device
        )


def _extrapolated_kinetics(key: Tensor, item: CipaDrug, log_metaboliser: Tensor) -> pk.Kinetics:
    """Of a drug without a fit, [B]: one unit of dose is what peaks at the free Cmax in a typical person (nM)."""
    eta = keys.normal(key, 0, f"pk {item.name}", ()).to(torch.float64) * EXTRA_LOG_SPREAD
    k = math.log(2.0) / EXTRA_HALF_LIFE_H
    clearance = torch.exp(math.log(k) + eta + log_metaboliser)  # of a volume of 1 L: only the shape counts
    one = torch.ones_like(clearance)
    kin = pk.kinetics(
        one * EXTRA_KA_PER_H, 0 * one, clearance, one, None, None, 1, [one * EXTRA_KE0_PER_H] * len(ENDPOINTS)
    )
    peak_at = math.log(EXTRA_KA_PER_H / k) / (EXTRA_KA_PER_H - k)
    scale = item.free_cmax_nm / (1000.0 * math.exp(-k * peak_at))
    return kin._replace(plasma=kin.plasma * scale, effect=kin.effect * scale)
