"""The fitted trial as a generative model: virtual people, their kinetics, and what doses do to their ECG.

Levels, effects, courses and variation of an endpoint add on its working scale (`scales`): ms and bpm for the intervals,
logarithms, roots and plain numbers for the T wave. `scales.from_scale` gives its own unit.

Everything is elementwise over the batch and deterministic in the key, so row i of a batch equals the same person alone
bit for bit. Amounts are float64 (the modes' coefficients nearly cancel); what is handed out is float32.

    model = TrialModel.load()
    person = model.individual(key, sex_female, weight_kg, age_years, clearance)
    amounts = model.advance(person, model.no_drug(batch), dose_mg, hours=2.0)
    model.effects(person, amounts)["jt_peak_c_ms"]

Drugs of the CiPA table can be added (`load(extra_drugs=("mexiletine",))`). They have no fitted kinetics and no fitted
slopes: one unit of dose is the amount whose single dose peaks at the table's free Cmax, absorbed with
`EXTRA_KA_PER_H` and eliminated with a half-life of `EXTRA_HALF_LIFE_H`, both assumed; concentrations are free and in
nM; effects follow the rough multi-channel law. They are marked in `extrapolated`.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models import keys, tree
from world_models.config_json import ConfigError, parse_json
from world_models.oracles.ecg_drug import kinetics as pk
from world_models.oracles.ecg_drug import tolerance
from world_models.oracles.ecg_drug.cipa import cipa_table
from world_models.oracles.ecg_drug.dynamics import (
    ENDPOINTS,
    EffectLaw,
    channel_effects,
    daily_course,
    daily_rows,
    saturating,
)
from world_models.oracles.ecg_drug.fitted import FittedDrug, matrix_of, times, times_rows, wide
from world_models.oracles.ecg_drug.kinetics import Amounts
from world_models.oracles.ecg_drug.people_kinetics import EXTRA_KE0_PER_H, SLOTS_PER_DRUG, PeopleKinetics
from world_models.oracles.ecg_drug.roots import root

__all__ = ["Amounts", "Individual", "TrialModel"]

_ROWS = 1024  # people whose effects are worked out at once: more do not stay near the processor


class Individual(NamedTuple):
    """People [B], drugs D, endpoints E (in the order of `ENDPOINTS`), P plasma modes, M = P + E + 1 modes in all.

    The last effect site and mode are the slow ones of `tolerance`. The kinetics, whose terms nearly cancel, are
    float64. Memory runs along the patients.
    """

    rates: Tensor  # [B, D, M] per h
    lag_h: Tensor  # [B, D]
    plasma: Tensor  # [B, D, P] ng/mL per mg
    effect: Tensor  # [B, D, P + 1, E + 1] ng/mL at the effect site per mg, the last a slow one (`tolerance`)
    slope: Tensor  # [B, D, E] float32, on the working scale, per ng/mL; not used for added drugs
    adapts_above: Tensor  # [B, D] float32, ng/mL at the slow site: `tolerance.adapts_above`


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
        self._adapting = tolerance.strengths(self.drugs, self.device)
        # an added drug's unit of dose is what peaks at its free Cmax
        doses = [float(parameters["drugs"][name]["dose_mg"]) for name in fitted] + [1.0] * len(self.extra)
        self._single_dose_mg = wide(doses, self.device)

        def narrow(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values, dtype=float), dtype=torch.float32, device=self.device)

        self._fits = tuple(FittedDrug.of(name, parameters["drugs"][name], self.device) for name in fitted)
        self._people = PeopleKinetics(self._fits, self.extra, self.device)
        self.modes = self._people.count + len(ENDPOINTS) + 1
        extra_ke0 = [EXTRA_KE0_PER_H] * len(ENDPOINTS)
        ke0 = [fit.ke0 for fit in self._fits] + [extra_ke0] * len(self.extra)
        self._ke0 = wide([[*rates, tolerance.PER_H] for rates in ke0], self.device).T.unsqueeze(-1)  # [E + 1, D, 1]
        self.law = self._effect_law()
        base = parameters["baseline"]
        level = np.asarray(base["between_subject_covariance"], dtype=float)
        scale = np.sqrt(np.diag(level))
        sensitive = np.asarray(base["sensitivity_with_level_correlation"], dtype=float)
        # standardised sensitivities given the level's standardised deviations: regression and what is left over
        regression = sensitive @ np.linalg.pinv(level / np.outer(scale, scale))
        left = np.asarray(base["sensitivity_correlation"], dtype=float) - regression @ sensitive.T
        # rows are endpoints, or drugs' endpoints; columns patients
        self._slope, self._slope_sex, self._slope_sd = (
            torch.cat([getattr(fit, name) for fit in self._fits]).to(torch.float32).unsqueeze(-1)
            for name in ("slope", "slope_sex", "slope_sd")
        )
        varies = (self._slope_sd != 0).cpu().numpy()  # of what does not, a sensitivity is not asked for
        self._sensitivity = matrix_of(np.hstack((regression, root(left))) * varies, self.device)
        self._level_sd = narrow(scale[:, None])
        self._women, self._men = (narrow([[base[sex][e]] for e in ENDPOINTS]) for sex in ("women", "men"))
        self._subject_root = matrix_of(root(base["between_subject_covariance"]), self.device)
        self._day_root = matrix_of(root(base["between_period_covariance"]), self.device)
        residual = root(base["residual_covariance"])
        self._residual_root = matrix_of(residual, self.device)
        course = parameters["course"]
        self._meals = tuple(float(hour) for hour in course["meal_clock_hours"])
        self._course = {e: narrow(course[e]["coefficients"]) for e in ENDPOINTS}
        by_hour = np.array([course[e]["coefficients"] for e in ENDPOINTS], dtype=float)
        self._moment = matrix_of(np.hstack((residual, by_hour)), self.device)
        self._harmonics = (by_hour.shape[1] - len(self._meals)) // 2
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
            parameters = parse_json(source.read_bytes(), str(source))
        except ConfigError as error:
            raise ValueError(
                f"{source} is not JSON ({error}); make one with python -m world_models.oracles.ecg_drug.fit.trial"
            ) from error
        missing = [k for k in ("drugs", "baseline", "course") if not isinstance(parameters.get(k), dict)]
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
        clearance: Tensor,
        level: dict[str, Tensor] | None = None,
    ) -> Individual:
        """Sample people's kinetics and sensitivities from keys [B].

        Sensitivities go with the person's own drug-free level (a longer Tpeak-Tend answers more) and with one another
        across drugs. `level` gives that level per endpoint where it is known; else it is what `baseline` samples from
        the same key.

        `clearance` multiplies the drugs' clearances (1: as in the trial's people): [B, D], or [B] for all drugs alike.
        Weight acts by allometry on clearance and volumes. `age_years` has no effect: the trial's people were 20 to 35
        years old and say nothing about it.

        Raises:
            ValueError: `clearance` is neither [B] nor has it one column a drug.
        """
        if clearance.ndim == 1:
            clearance = clearance.unsqueeze(-1).expand(-1, len(self.drugs))
        if clearance.ndim != 2 or clearance.shape[1] != len(self.drugs):
            raise ValueError(
                f"clearance has shape {tuple(clearance.shape)}; give [B, {len(self.drugs)}], a multiplier for each of "
                f"{', '.join(self.drugs)} (1: as in the trial), or [B] for all of them"
            )
        fitted, sites = len(self.fitted), len(ENDPOINTS)
        drawn = keys.uniforms(key, 0, (("pk", fitted * SLOTS_PER_DRUG), ("pd", fitted * sites))).T
        z = keys.to_normal(drawn)
        side = sex_female.to(torch.float64) - 0.5
        rates, lag_h, plasma = self._people.sampled(
            key, z[: fitted * SLOTS_PER_DRUG].to(torch.float64), side, weight_kg, clearance.to(torch.float64).log()
        )
        found = [
            pk.site_modes(r, p, self._ke0) for r, p in zip(*(x.split(_ROWS, -1) for x in (rates, plasma)), strict=True)
        ]
        ke0, effect = (torch.cat(each, -1) if len(found) > 1 else each[0] for each in zip(*found, strict=True))
        if level is None:
            level = self.baseline(key, sex_female, age_years)
        known = torch.stack([level[e] for e in ENDPOINTS])
        deviation = (known - self._mean_level(sex_female)) / self._level_sd
        spread = times_rows(self._sensitivity, torch.cat((deviation, z[fitted * SLOTS_PER_DRUG :])))
        slopes = spread * self._slope_sd + self._slope_sex * side.to(torch.float32) + self._slope
        slopes = torch.cat((slopes, slopes.new_zeros(len(self.extra) * sites, len(key)))) if self.extra else slopes
        # Views whose memory runs along the patients: small inner dimensions would cost more than the arithmetic.
        rates, plasma, effect = (
            torch.cat((rates, ke0)).permute(2, 1, 0),
            plasma.permute(2, 1, 0),
            effect.permute(3, 2, 0, 1),
        )
        slope = slopes.unflatten(0, (len(self.drugs), sites)).permute(2, 0, 1)
        above = tolerance.adapts_above(rates, plasma, self._single_dose_mg).to(torch.float32)
        return Individual(rates, lag_h.T, plasma, effect, slope, above)

    def _mean_level(self, sex_female: Tensor) -> Tensor:
        """Mean drug-free level [E, B] of people of this sex."""
        side = sex_female.to(torch.float32)
        return self._women * side + self._men * (1.0 - side)

    def no_drug(self, batch: int) -> Amounts:
        """Nothing on board in `batch` people."""
        return pk.empty(batch, len(self.drugs), self.modes, self.device)

    def advance(
        self, individual: Individual, amounts: Amounts, dose_mg: Tensor, hours: float, fast_mg: Tensor | None = None
    ) -> Amounts:
        """`hours` later, the doses [B, D] being swallowed now. Exact superposition of all doses so far.

        `fast_mg` [B, D] is swallowed besides and passes absorption by: see `interactions`.

        Raises:
            ValueError: a step shorter than `kinetics.MIN_STEP_H`, or a dose of the wrong width.
        """
        if dose_mg.shape[-1] != len(self.drugs):
            raise ValueError(f"dose_mg has {dose_mg.shape[-1]} columns, one a drug are needed: {', '.join(self.drugs)}")
        return pk.advance(pk.Kinetics(*individual[:4]), amounts, dose_mg, hours, fast_mg)

    def concentrations(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Plasma concentrations [B, D] float32 in `concentration_units` (ng/mL; added drugs nM, free)."""
        return pk.concentration(pk.Kinetics(*individual[:4]), amounts).to(torch.float32)

    def _changes(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Change [B, D, E] float32 that each drug makes of each endpoint, on its working scale (`scales`)."""
        # past the sums of `effect_sites` nothing cancels any more
        sites = pk.effect_sites(pk.Kinetics(*individual[:4]), amounts, torch.float32)
        slow, sites = sites[..., -1], sites[..., :-1]
        change = saturating(sites, individual.slope, self.law)
        change *= tolerance.effect_left(slow, individual.adapts_above, self._adapting)
        if self.extra:
            first = len(self.fitted)
            added = [channel_effects(item, sites[:, first + i, 0]) for i, item in enumerate(self.extra)]
            rows = [torch.stack([row[e] for e in ENDPOINTS], -1) for row in added]
            change = torch.cat([change[:, :first], torch.stack(rows, 1)], 1)
        return change

    def slow_sites(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Concentrations [B, D] ng/mL float32 in the slow compartments that tolerance follows."""
        return pk.effect_sites(pk.Kinetics(*individual[:4]), amounts)[..., -1].to(torch.float32)

    def effects_by_drug(self, individual: Individual, amounts: Amounts) -> dict[str, Tensor]:
        """Change of each endpoint that each drug makes, [B, D] float32 on its working scale (ms; heart rate bpm)."""
        changes = self._changes(individual, amounts)
        return {e: changes[..., i].contiguous() for i, e in enumerate(ENDPOINTS)}

    def total_effects(self, individual: Individual, amounts: Amounts) -> Tensor:
        """Change [B, E] float32 of each endpoint, in the order of ENDPOINTS: the drugs' changes, added."""
        batch = len(amounts.modes)
        if batch <= _ROWS:
            return self._total_effects(individual, amounts)
        return tree.cat([self._total_effects(*tree.take((individual, amounts), r)) for r in tree.runs(batch, _ROWS)])

    def _total_effects(self, individual: Individual, amounts: Amounts) -> Tensor:
        changes = self._changes(individual, amounts)
        total = changes[:, 0]
        for i in range(1, changes.shape[1]):
            total = total + changes[:, i]
        return total

    def effects(self, individual: Individual, amounts: Amounts) -> dict[str, Tensor]:
        """`total_effects` by endpoint, [B] each."""
        return _by_endpoint(self.total_effects(individual, amounts))

    def _effect_law(self) -> EffectLaw:
        """The law of the drugs' effects; 1 for added drugs, which use none."""
        rows = [
            torch.stack(
                [*(getattr(fit, name) for fit in self._fits), *[torch.ones_like(self._fits[0].power)] * len(self.extra)]
            )
            for name in ("per_c50", "power", "per_reference")
        ]
        return EffectLaw.of(*(x.to(torch.float32) for x in rows))

    def time_of_day(self, clock_hour: Tensor) -> dict[str, Tensor]:
        """Course over the day [B] per endpoint, period 24 h, around a daily mean of zero; differences of it count."""
        return {e: daily_course(clock_hour, c, self._meals) for e, c in self._course.items()}

    def baseline(self, key: Tensor, sex_female: Tensor, age_years: Tensor) -> dict[str, Tensor]:
        """A person's own drug-free means [B] per endpoint, at the daily mean. Age has no effect (trial: 20 to 35)."""
        del age_years
        z = keys.to_normal(keys.uniforms(key, 0, (("baseline", len(ENDPOINTS)),))).T
        own = times_rows(self._subject_root, z)
        return _by_endpoint((self._mean_level(sex_female) + own).T)

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
            sites = pk.effect_sites(pk.Kinetics(*individual[:4]), amounts)[..., :-1]
            sites = saturating(sites.to(torch.float32), None, self.law)
            z = keys.normal(key, t, "drug residual", (len(self.fitted), len(ENDPOINTS)))
            for i, own in enumerate(self._fits):
                sampled = sampled + times(own.noise_root, z[:, i]) * sites[:, i]
        return sampled

    def moment(self, z: Tensor, clock_hour: Tensor) -> Tensor:
        """What within-day variation and the time of day add, as rows [E, B] on the working scales.

        Args:
            z: [E, B] the normals of `residuals`, (key, t, "residual"). clock_hour: [B].
        """
        return times_rows(self._moment, torch.cat((z, daily_rows(clock_hour, self._harmonics, self._meals))))

    def train_range(self) -> Tensor:
        """Highest concentration [D] the fit has seen, float32, in `concentration_units`; added drugs: 4 free Cmax."""
        seen = [self.parameters["drugs"][name]["highest_concentration_ng_per_ml"] for name in self.fitted]
        return torch.tensor(
            seen + [4.0 * item.free_cmax_nm for item in self.extra], dtype=torch.float32, device=self.device
        )
