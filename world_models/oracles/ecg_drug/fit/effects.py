"""Population pharmacodynamics from the trial: each endpoint by a linear mixed model on effect-site concentrations.

y = mean of the sex + course of the day + sum over drugs of slope · Ce · (Ce / Cref)^(power - 1) / (1 + Ce / C50)
  + what arms and hours show beyond that + subject + subject in period + subject's own slopes + residual

y is the endpoint on its working scale (`scales`). All arms are fitted together: the placebo arm, and every arm before
and long after its dose, carry the course of the day. Ce comes from each subject's own kinetics (`kinetics`), through an
effect compartment a drug and endpoint.

What all subjects of an arm show at an hour beyond the law (a meal's exact shape, a law that is only nearly right) is no
independent error of each reading. It has a term of its own, a smooth random course a drug and one for the day, whose
size the likelihood finds (empirical Bayes). It belongs to the trial's hours and doses: predictions of a trial of this
design use it (`EndpointFit.beyond`), no world does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.dynamics import ENDPOINTS, daily_basis
from world_models.oracles.ecg_drug.fit.kinetics import individual_kinetics
from world_models.oracles.ecg_drug.fit.linear_mixed import Design, LinearFit, fit_linear_mixed
from world_models.oracles.ecg_drug.fit.nonlinear_mixed import MixedFit
from world_models.oracles.ecg_drug.kinetics import effect_modes
from world_models.oracles.ecg_drug.scales import SCALES, T_ENDPOINTS, scaled
from world_models.quantities.drugs import ANTIARRHYTHMICS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DOSING_CLOCK_HOUR", "USUAL", "Arranged", "EndpointFit", "Structure", "arrange"]
__all__ += ["course_names", "fit_endpoint"]

DOSING_CLOCK_HOUR = 8.5  # doses were given around 8 to 9 in the morning; hours in the file count from the dose
KE0_FLOOR_PER_H = 0.5  # slower ones fit a subject's drift over the day, not a drug's delay
_KE0_START_PER_H, _KE0_SD = 2.0, 0.6  # log-normal prior on what an effect-compartment rate has above the floor
_C50_START, _C50_SD = 3.0, 0.7  # log-normal prior on C50 over the mean peak concentration
_BLUR_START, _BLUR_SD = 0.5, 1.0  # log-normal prior on a drug's own noise at the mean peak, over the common residual SD
_POWER_SD = 0.2  # log-normal prior around 1
# prior SDs in the scale's `step` (10 ms of an interval)
_HARMONIC_STEPS = 1.0  # of the first harmonic's coefficients and of a meal's, falling as 1 / k²
_SHIFT_STEPS = 0.5  # of the pre-dose condition and of the drift over the first 24 h
_BEYOND_START, _BEYOND_SD = 0.2, 0.7  # log-normal prior on the SDs beyond the law: of a step, and its log SD
_BEYOND_COMPONENTS = 8
_BEYOND_HOURS = 2.0  # over which what is beyond the law is alike: absorption and effect delays take as long (k)


@dataclass(frozen=True, slots=True)
class Structure:
    """What of the model is chosen and not estimated."""

    harmonics: int = 4  # of the day
    meals: tuple[float, ...] = (DOSING_CLOCK_HOUR + 1.75,)  # clock hours; placebo's T amplitude falls from 1.5 h on
    beyond: bool = True  # the term beyond the law
    t_saturating: tuple[str, ...] = ()  # drugs whose effect on the T wave saturates
    t_steepening: tuple[str, ...] = ()  # drugs whose effect on it grows faster than the concentration
    sex_slope_steps: float = 2.0  # ridge on women's less men's slopes at the mean peak, in the scale's `step`
    uncorrelated: int = 5  # how many uncorrelated values the correlations of the few subjects are shrunk by


USUAL = Structure()


@dataclass(frozen=True)
class Arranged:
    """The trial as padded tensors: N subjects, arms (placebo first, then D drugs), T hours; rows are arm-major."""

    subjects: list
    female: Tensor  # [N]
    hours: Tensor  # [T]
    values: dict[str, Tensor]  # endpoint -> [N, (1 + D) · T] on its working scale, NaN where missing
    rates: Tensor  # [N, D, 4]
    plasma: Tensor  # [N, D, 4] for the given dose
    lag_h: Tensor  # [N, D]
    peak: Tensor  # [D] mean over subjects of the highest measured concentration, ng/mL


def arrange(frame: pd.DataFrame, kinetics: dict[str, tuple[MixedFit, list]]) -> Arranged:
    """Tidy frame and fitted kinetics -> tensors. Without a drug's arm, a subject gets typical kinetics."""
    import numpy as np

    subjects = sorted(frame["randid"].unique())
    hours = sorted(frame["hour"].unique())
    arms = ["placebo", *[d.name for d in ANTIARRHYTHMICS]]
    grid = frame.drop_duplicates(["randid", "drug", "hour"]).set_index(["randid", "drug", "hour"])
    index = [(s, a, h) for s in subjects for a in arms for h in hours]
    grid = grid.reindex(index)
    values = {
        name: torch.tensor(scaled(name, grid[name].to_numpy(dtype=float)).reshape(len(subjects), -1))
        for name in ENDPOINTS
        if name in grid.columns
    }
    female = frame.groupby("randid")["sex_female"].first().loc[subjects].to_numpy(dtype=float)
    rates, plasma, lags, peak = [], [], [], []
    for item in ANTIARRHYTHMICS:
        fit, fitted = kinetics[item.name]
        rows = torch.tensor([fitted.index(s) if s in fitted else -1 for s in subjects])
        phi = torch.where(rows.unsqueeze(-1) >= 0, fit.phi[rows.clamp_min(0)], fit.theta)
        kin = individual_kinetics(item, phi, [])
        arm = frame[frame["drug"] == item.name]
        dose = float(arm["dose_mg"].median())
        rates.append(kin.rates)
        plasma.append(kin.plasma * dose)
        lags.append(kin.lag_h)
        peak.append(float(np.nanmean(arm.groupby("randid")["conc_ng_per_ml"].max())))
    return Arranged(
        subjects,
        torch.tensor(female),
        torch.tensor(hours, dtype=torch.float64),
        values,
        torch.stack(rates, 1),
        torch.stack(plasma, 1),
        torch.stack(lags, 1),
        torch.tensor(peak, dtype=torch.float64),
    )


def effect_site(data: Arranged, ke0: Tensor) -> Tensor:
    """Effect-site concentration over the mean peak, [N, D, T], for effect-compartment rates [D]."""
    rates, coefficients = effect_modes(data.rates, data.plasma, ke0.unsqueeze(-1).expand(len(data.subjects), -1, 1))
    since = data.hours - data.lag_h.unsqueeze(-1)
    on = (since > 0).to(ke0.dtype)
    every = torch.cat([data.rates, rates], -1)
    decay = torch.exp(-every.unsqueeze(-1) * since.clamp_min(0.0).unsqueeze(-2)) * on.unsqueeze(-2)
    return (coefficients.squeeze(-2).unsqueeze(-1) * decay).sum(-2).clamp_min(0.0) / data.peak.unsqueeze(-1)


@dataclass(frozen=True)
class EndpointFit:
    """One endpoint's fit; drugs that do not act on it are left out."""

    fit: LinearFit
    names: list[str]  # of the fixed effects
    active: list[str]  # drugs with a slope, in the order of the slopes' variances and of log ke0
    saturating: list[str]  # those of them with a C50
    powered: list[str]  # those of them with a power
    ke0: Tensor  # [active] per h
    ke0_errors: Tensor  # [active] relative
    log_c50: Tensor  # [saturating] over the mean peak
    log_power: Tensor  # [powered]
    log_blur: Tensor  # [active] the drug's own noise at the mean peak over the common residual SD
    c50_errors: Tensor  # of the logs, as the next two
    power_errors: Tensor
    blur_errors: Tensor
    site: Tensor  # [N, rows, active drugs] effect-site concentration over the mean peak (after saturation)
    beyond: Tensor  # [1 + D, T] what every arm shows beyond the law; 0 before the dose


def fit_endpoint(
    data: Arranged,
    endpoint: str,
    standard_errors: bool = True,
    threshold: float = math.sqrt(2.0),
    structure: Structure = USUAL,
) -> EndpointFit:
    """Fit one endpoint; drugs whose mean slope is under `threshold` standard errors are out, the rest refitted.

    The square root of 2 is Akaike's criterion for one parameter.

    Raises:
        ValueError: not a single value of the endpoint.
    """
    if endpoint not in data.values or bool(data.values[endpoint].isnan().all()):
        raise ValueError(f"the trial holds no value of {endpoint}; a fit needs its column filled")
    everything = list(range(len(ANTIARRHYTHMICS)))
    first = _Model(data, endpoint, everything, structure).fit(False)
    at = [first.names.index(ANTIARRHYTHMICS[i].name) for i in everything]
    z = [abs(float(first.fit.beta[a] / first.fit.errors[a])) for a in at]
    active = [i for i in everything if z[i] >= threshold]
    if active == everything and not standard_errors:
        return first
    return _Model(data, endpoint, active, structure).fit(standard_errors)


def _laws(endpoint: str, active: list[int], structure: Structure) -> tuple[list[int], list[int]]:
    """Which of the active drugs' effects saturate, and which grow faster than the concentration."""
    saturating, steepening = [], []
    for i in active:
        item = ANTIARRHYTHMICS[i]
        of_t = endpoint in T_ENDPOINTS
        if endpoint in item.saturating or (of_t and item.name in structure.t_saturating):
            saturating.append(i)
        if endpoint in item.steepening or (of_t and item.name in structure.t_steepening):
            steepening.append(i)
    return saturating, steepening


def _smooth(hours: Tensor) -> Tensor:
    """[T, Q] root of a course's covariance over the hours after the dose; rows before it are 0.

    Its Q greatest components, which hold nine tenths of the variance of 1.
    """
    distance = (hours.unsqueeze(-1) - hours).abs()
    both = (hours > 0).unsqueeze(-1) & (hours > 0)
    values, vectors = torch.linalg.eigh(torch.exp(-distance / _BEYOND_HOURS) * both.to(hours.dtype))
    kept = slice(max(len(hours) - _BEYOND_COMPONENTS, 0), None)
    return vectors[:, kept] * values[kept].clamp_min(0.0).sqrt()


class _Model:
    """One endpoint's columns as a function of what enters nonlinearly: logs of ke0, C50, power, noise, sizes beyond."""

    def __init__(self, data: Arranged, endpoint: str, active: list[int], structure: Structure) -> None:
        self.data, self.active, self.structure = data, active, structure
        self.y, self.step = data.values[endpoint], SCALES[endpoint].step
        self.saturating, self.steepening = _laws(endpoint, active, structure)
        n, d, t = len(data.subjects), len(ANTIARRHYTHMICS), len(data.hours)
        self.shape = (n, d, t)
        rows = (1 + d) * t
        sexes = torch.stack([data.female, 1 - data.female], -1).unsqueeze(1).expand(n, rows, 2)
        course = torch.cat(
            [
                daily_basis(DOSING_CLOCK_HOUR + data.hours, structure.harmonics, structure.meals),
                (data.hours < 0).to(torch.float64).unsqueeze(-1),
                (data.hours.clamp_min(0.0) / 24.0).unsqueeze(-1),
            ],
            -1,
        )
        self.before = torch.cat([sexes, course.repeat(1 + d, 1).unsqueeze(0).expand(n, rows, -1)], -1)
        self.one = torch.ones(n, rows, 1, dtype=torch.float64)
        self.period = torch.eye(1 + d, dtype=torch.float64).repeat_interleave(t, 0).unsqueeze(0).expand(n, rows, -1)
        smooth = _smooth(data.hours)
        # one course common to all arms, then one a drug in its own arm
        self.day = smooth.repeat(1 + d, 1)
        none = torch.zeros(t, d * smooth.shape[-1], dtype=torch.float64)
        self.arms = torch.cat([none, torch.block_diag(*[smooth] * d)])
        k = len(active)
        self.sizes = [k, len(self.saturating), len(self.steepening), k, 2 if structure.beyond else 0]

    def site(self, log_ke0: Tensor, log_c50: Tensor, log_power: Tensor) -> Tensor:
        """Effect-site concentration over the mean peak, saturated and steepened, [N, D, T]."""

        def each(which: list[int], values: Tensor, other: float) -> Tensor:
            rest = values.new_full((), other)
            return torch.stack([values[which.index(i)] if i in which else rest for i in range(self.shape[1])])

        site = effect_site(self.data, each(self.active, KE0_FLOOR_PER_H + log_ke0.exp(), 1.0))
        per_c50 = each(self.saturating, (-log_c50).exp(), 0.0)
        power = each(self.steepening, log_power.exp(), 1.0)
        # the gradient of a power at zero concentration is not finite; nothing of the effect is there anyway
        return (site + 1e-12) ** power.view(1, -1, 1) / (1 + site * per_c50.view(1, -1, 1))

    def columns(self, nonlinear: Tensor) -> Design:
        """The design at these nonlinear parameters [P]."""
        n, d, t = self.shape
        *law, log_blur, log_beyond = nonlinear.split(self.sizes)
        site = self.site(*law)
        own = torch.diag_embed(site.permute(0, 2, 1)).permute(0, 2, 1, 3).reshape(n, d * t, d)  # a drug in its own arm
        blocks = torch.cat([own.new_zeros(n, t, d), own], 1)[..., self.active]
        fixed = [self.before, blocks, blocks * (self.data.female - 0.5).view(n, 1, 1)]
        if self.structure.beyond:
            size = log_beyond.exp() * self.step
            fixed.append(torch.cat([self.day * size[0], self.arms * size[1]], -1).expand(n, -1, -1))
        # a drug also blurs the reading (flat and notched T waves): its own noise, in proportion to the site
        extra = (blocks * log_blur.exp()).square().sum(-1)
        random = (self.one, self.period, *[blocks[..., i : i + 1] for i in range(len(self.active))])
        return Design(torch.cat(fixed, -1), random, (1 + extra).sqrt())

    def names(self) -> list[str]:
        """Of the fixed effects, without those beyond the law."""
        acting = [ANTIARRHYTHMICS[i].name for i in self.active]
        order = course_names(self.structure.harmonics, self.structure.meals)
        return ["women", "men", *order, "predose", "drift", *acting, *[f"{name}_sex" for name in acting]]

    def prior_sds(self) -> Tensor:
        """Of the fixed effects [F]; infinite: none."""
        s, k, count = self.structure, len(self.active), self.structure.harmonics
        day = [_HARMONIC_STEPS / h**2 for h in range(1, count + 1) for _ in range(2)] + [_HARMONIC_STEPS] * len(s.meals)
        steps = [torch.inf] * 2 + day + [_SHIFT_STEPS] * 2 + [torch.inf] * k + [s.sex_slope_steps] * k
        beyond = [1.0] * (self.day.shape[-1] + self.arms.shape[-1]) if s.beyond else []
        return torch.cat([torch.tensor(steps, dtype=torch.float64) * self.step, torch.tensor(beyond).double()])

    def fit(self, standard_errors: bool) -> EndpointFit:
        """The fit."""
        k = len(self.active)
        starts = (_KE0_START_PER_H, _C50_START, 1.0, _BLUR_START, _BEYOND_START)
        widths = (_KE0_SD, _C50_SD, _POWER_SD, _BLUR_SD, _BEYOND_SD)
        start, width = (
            torch.tensor([x for x, count in zip(each, self.sizes, strict=True) for _ in range(count)]).double()
            for each in (starts, widths)
        )
        spread = float((self.y - self.y.nanmean()).square().nanmean().sqrt())
        sds = torch.tensor([0.7, 0.2, *[0.15] * k], dtype=torch.float64) * spread
        fit = fit_linear_mixed(
            self.columns, self.y, self.prior_sds(), sds, 0.3 * spread, start.log(), width, standard_errors
        )
        log_ke0, log_c50, log_power, log_blur, log_beyond = fit.nonlinear.split(self.sizes)
        ke0_errors, c50_errors, power_errors, blur_errors, _ = fit.nonlinear_errors.split(self.sizes)
        ke0 = KE0_FLOOR_PER_H + log_ke0.exp()
        n, d, t = self.shape
        beyond, names = torch.zeros((1 + d) * t, dtype=torch.float64), self.names()
        if self.structure.beyond:
            both = torch.cat([self.day * log_beyond[0].exp(), self.arms * log_beyond[1].exp()], -1) * self.step
            beyond = both @ fit.beta[len(names) :]
        return EndpointFit(
            fit=fit,
            names=names,
            active=[ANTIARRHYTHMICS[i].name for i in self.active],
            saturating=[ANTIARRHYTHMICS[i].name for i in self.saturating],
            powered=[ANTIARRHYTHMICS[i].name for i in self.steepening],
            ke0=ke0,
            ke0_errors=ke0_errors * log_ke0.exp() / ke0,
            log_c50=log_c50,
            log_power=log_power,
            log_blur=log_blur,
            c50_errors=c50_errors,
            power_errors=power_errors,
            blur_errors=blur_errors,
            site=torch.cat([self.one[..., :0], *self.columns(fit.nonlinear).random[2:]], -1),
            beyond=beyond.reshape(1 + d, t),
        )


def course_names(harmonics: int, meals: Sequence[float]) -> list[str]:
    """Names of the columns of `dynamics.daily_basis`."""
    waves = [f"{f}{h}" for h in range(1, harmonics + 1) for f in ("cos", "sin")]
    return [*waves, *[f"meal{i + 1}" for i in range(len(meals))]]
