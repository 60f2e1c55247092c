"""Population pharmacodynamics from the trial: each endpoint by a linear mixed model on effect-site concentrations.

y = mean of the sex + course of the day + sum over drugs of slope · Ce · (Ce / Cref)^(power - 1) / (1 + Ce / C50)
  + subject + subject in period + subject's own slopes + residual

All arms are fitted together: the placebo arm, and every arm before and long after its dose, carry the course of the
day. Ce comes from each subject's own kinetics (`kinetics`), through an effect compartment a drug and endpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.dynamics import harmonics
from world_models.oracles.ecg_drug.fit.kinetics import individual_kinetics
from world_models.oracles.ecg_drug.fit.linear_mixed import Design, LinearFit, fit_linear_mixed
from world_models.oracles.ecg_drug.fit.nonlinear_mixed import MixedFit
from world_models.oracles.ecg_drug.kinetics import effect_modes
from world_models.quantities.drugs import ANTIARRHYTHMICS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DOSING_CLOCK_HOUR", "HARMONICS", "Arranged", "EndpointFit", "arrange", "fit_endpoint"]

DOSING_CLOCK_HOUR = 8.5  # doses were given around 8 to 9 in the morning; hours in the file count from the dose
HARMONICS = 4
_HARMONIC_SD = 10.0  # ms (bpm): prior SD of the first harmonic's coefficients, falling as 1 / k²
KE0_FLOOR_PER_H = 0.5  # slower ones fit a subject's drift over the day, not a drug's delay
_KE0_START_PER_H, _KE0_SD = 2.0, 0.6  # log-normal prior on what an effect-compartment rate has above the floor
_C50_START, _C50_SD = 3.0, 0.7  # log-normal prior on C50 over the mean peak concentration
_BLUR_START, _BLUR_SD = 0.5, 1.0  # log-normal prior on a drug's own noise at the mean peak, over the common residual SD
_SHIFT_SD = 5.0  # prior SD of the pre-dose condition and of the drift over the first 24 h
_POWER_SD = 0.2  # log-normal prior around 1
_SEX_SLOPE_SD = 20.0  # ms at the mean peak: ridge on the difference between women's and men's slopes


@dataclass(frozen=True)
class Arranged:
    """The trial as padded tensors: N subjects, arms (placebo first, then D drugs), T hours; rows are arm-major."""

    subjects: list
    female: Tensor  # [N]
    hours: Tensor  # [T]
    values: dict[str, Tensor]  # endpoint -> [N, (1 + D) · T], NaN where missing
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
        name: torch.tensor(grid[name].to_numpy(dtype=float).reshape(len(subjects), -1))
        for name in grid.columns
        if name.endswith(("_ms", "_bpm"))
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


def fit_endpoint(
    data: Arranged, endpoint: str, standard_errors: bool = True, threshold: float = math.sqrt(2.0)
) -> EndpointFit:
    """Fit one endpoint; drugs whose mean slope is under `threshold` standard errors are out, the rest refitted.

    The square root of 2 is Akaike's criterion for one parameter.
    """
    everything = list(range(len(ANTIARRHYTHMICS)))
    first = _fit(data, endpoint, everything, False)
    at = [first.names.index(ANTIARRHYTHMICS[i].name) for i in everything]
    z = [abs(float(first.fit.beta[a] / first.fit.errors[a])) for a in at]
    return _fit(data, endpoint, [i for i in everything if z[i] >= threshold], standard_errors)


def _fit(data: Arranged, endpoint: str, active: list[int], standard_errors: bool) -> EndpointFit:
    n, d, t, k = len(data.subjects), len(ANTIARRHYTHMICS), len(data.hours), len(active)
    y = data.values[endpoint]
    rows = (1 + d) * t
    sexes = torch.stack([data.female, 1 - data.female], -1).unsqueeze(1).expand(n, rows, 2)
    since = data.hours.clamp_min(0.0) / 24.0
    course = torch.cat(
        [
            harmonics(DOSING_CLOCK_HOUR + data.hours, HARMONICS),
            (data.hours < 0).to(since.dtype).unsqueeze(-1),
            since.unsqueeze(-1),
        ],
        -1,
    )
    order = [f"{f}{h}" for h in range(1, HARMONICS + 1) for f in ("cos", "sin")]
    course_sd = [_HARMONIC_SD / h**2 for h in range(1, HARMONICS + 1) for _ in range(2)] + [_SHIFT_SD] * 2
    course = course.repeat(1 + d, 1).unsqueeze(0).expand(n, rows, -1)
    period = torch.eye(1 + d, dtype=torch.float64).repeat_interleave(t, 0).unsqueeze(0).expand(n, rows, -1)
    one = torch.ones(n, rows, 1, dtype=torch.float64)
    sat = [i for i in active if endpoint in ANTIARRHYTHMICS[i].saturating]
    powered = [i for i in active if endpoint in ANTIARRHYTHMICS[i].steepening]
    sizes = [k, len(sat), len(powered), k]
    sex_sign = (data.female - 0.5).view(n, 1, 1)

    def columns(nonlinear: Tensor) -> Design:
        log_ke0, log_c50, log_power, log_blur = nonlinear.split(sizes)
        ke0 = torch.stack(
            [
                KE0_FLOOR_PER_H + log_ke0[active.index(i)].exp() if i in active else log_ke0.new_ones(())
                for i in range(d)
            ]
        )
        site = effect_site(data, ke0)
        per_c50 = torch.stack([(-log_c50[sat.index(i)]).exp() if i in sat else log_c50.new_zeros(()) for i in range(d)])
        power = torch.stack(
            [log_power[powered.index(i)].exp() if i in powered else log_power.new_ones(()) for i in range(d)]
        )
        # the gradient of a power at zero concentration is not finite; nothing of the effect is there anyway
        site = (site + 1e-12) ** power.view(1, d, 1) / (1 + site * per_c50.view(1, d, 1))
        own = (
            torch.diag_embed(site.permute(0, 2, 1)).permute(0, 2, 1, 3).reshape(n, d * t, d)
        )  # a drug acts in its own arm
        blocks = torch.cat([own.new_zeros(n, t, d), own], 1)[..., active]
        fixed = torch.cat([sexes, course, blocks, blocks * sex_sign], -1)
        # a drug also blurs the reading (flat and notched T waves): its own noise, in proportion to the site
        extra = (blocks * log_blur.exp()).square().sum(-1)
        return Design(fixed, (one, period, *[blocks[..., i : i + 1] for i in range(k)]), (1 + extra).sqrt())

    acting = [ANTIARRHYTHMICS[i].name for i in active]
    names = ["women", "men", *order, "predose", "drift", *acting, *[f"{name}_sex" for name in acting]]
    prior = torch.tensor(
        [torch.inf, torch.inf, *course_sd, *[torch.inf] * k, *[_SEX_SLOPE_SD] * k], dtype=torch.float64
    )
    spread = float((y - y.nanmean()).square().nanmean().sqrt())
    nonlinear = torch.tensor(
        [_KE0_START_PER_H] * k + [_C50_START] * len(sat) + [1.0] * len(powered) + [_BLUR_START] * k, dtype=torch.float64
    ).log()
    width = torch.tensor(
        [_KE0_SD] * k + [_C50_SD] * len(sat) + [_POWER_SD] * len(powered) + [_BLUR_SD] * k, dtype=torch.float64
    )
    sds = torch.tensor([0.7, 0.2, *[0.15] * k], dtype=torch.float64) * spread
    fit = fit_linear_mixed(columns, y, prior, sds, 0.3 * spread, nonlinear, width, standard_errors)
    log_ke0, log_c50, log_power, log_blur = fit.nonlinear.split(sizes)
    ke0_errors, c50_errors, power_errors, blur_errors = fit.nonlinear_errors.split(sizes)
    ke0 = KE0_FLOOR_PER_H + log_ke0.exp()
    site = torch.cat([one[..., :0], *columns(fit.nonlinear).random[2:]], -1)
    return EndpointFit(
        fit,
        names,
        acting,
        [ANTIARRHYTHMICS[i].name for i in sat],
        [ANTIARRHYTHMICS[i].name for i in powered],
        ke0,
        ke0_errors * log_ke0.exp() / ke0,
        log_c50,
        log_power,
        log_blur,
        c50_errors,
        power_errors,
        blur_errors,
        site,
    )
