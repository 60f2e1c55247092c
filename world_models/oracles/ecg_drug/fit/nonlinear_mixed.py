"""Nonlinear mixed-effects fit by conditional linearisation: the population kinetics of one drug.

y_ij = f(phi_i, t_ij) + eps_ij, phi_i = theta + covariates_i · beta + eta_i (log parameters), eta_i ~ N(0, Omega),
eps ~ N(0, additive² + (proportional · f)²).

Each round finds every subject's eta by a few damped Gauss-Newton steps (the mode of its posterior), linearises f there
(Lindstrom & Bates 1990, doi 10.2307/2532087: the same first-order conditional linearisation as FOCE), solves the fixed
effects of the resulting linear mixed model by generalised least squares, and takes one EM step for Omega and the
residual error. All subjects at once; the Jacobian is by central differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MixedFit", "fit_mixed"]


LOG_2_PI = 1.8378770664093453


@dataclass(frozen=True)
class MixedFit:
    """Estimates on the log scale, float64. P parameters, C covariate effects, N subjects."""

    theta: Tensor  # [P]
    beta: Tensor  # [C]
    standard_errors: Tensor  # [P + C]
    omega: Tensor  # [P, P] between-subject covariance; zero rows for parameters without spread
    omega_sd_errors: Tensor  # [P] standard errors of sqrt(diag(omega)) (large-sample)
    additive: float
    proportional: float
    eta: Tensor  # [N, P] posterior modes
    phi: Tensor  # [N, P] individual log parameters
    minus_two_log_likelihood: float
    rounds: int


def _jacobian(f: Callable[[Tensor], Tensor], phi: Tensor) -> tuple[Tensor, Tensor]:
    """Values [N, T] and derivatives [N, T, P] of a function that treats the rows apart.

    Central differences in one call (error about 1e-8 in float64): ten times faster here than forward-mode products,
    whose cost is all dispatch.
    """
    n, p = phi.shape
    shifts = (
        torch.cat([torch.eye(p, dtype=phi.dtype), -torch.eye(p, dtype=phi.dtype), torch.zeros(1, p, dtype=phi.dtype)])
        * 1e-4
    )
    values = f((phi.unsqueeze(0) + shifts.unsqueeze(1)).reshape(-1, p)).reshape(2 * p + 1, n, -1)
    return values[-1], ((values[:p] - values[p : 2 * p]) / 2e-4).permute(1, 2, 0)


def _residual_sds(error2: Tensor, f: Tensor, mask: Tensor, additive: float, proportional: float) -> tuple[float, float]:
    """EM steps for the two parts of the residual variance, given the expected squared errors: they never overshoot."""
    a2, b2, count = additive**2, proportional**2, mask.sum()
    for _ in range(60):
        variance = a2 + b2 * f * f
        excess = mask * (error2 / variance - 1.0) / variance
        a2 = max(a2 * (1.0 + a2 * float(excess.sum() / count)), 0.0)
        b2 = max(b2 * (1.0 + b2 * float((excess * f * f).sum() / count)), 1e-4)
    return math.sqrt(a2), math.sqrt(b2)


def _posterior_modes(
    predict: Callable[[Tensor], Tensor],
    y: Tensor,
    mask: Tensor,
    base: Tensor,
    eta: Tensor,
    free: Tensor,
    prior: Tensor,
    additive: float,
    proportional: float,
    largest_spread: float,
) -> Tensor:
    """Each subject's eta [N, free], by four damped Gauss-Newton steps from `eta` [N, P] to its posterior's mode."""
    eta = eta.clone()
    for _ in range(4):
        f, full = _jacobian(predict, base + eta)
        weight = mask / (additive**2 + (proportional * f) ** 2)
        jac = full[:, :, free]
        hessian = torch.einsum("ntp,nt,ntq->npq", jac, weight, jac) + prior
        gradient = torch.einsum("ntp,nt->np", jac, weight * (y - f)) - eta[:, free] @ prior
        step = torch.linalg.solve(hessian, gradient)
        size = step.norm(dim=1, keepdim=True)
        eta[:, free] = (eta[:, free] + step * (0.7 / size).clamp_max(1.0)).clamp(
            -3 * largest_spread, 3 * largest_spread
        )
    return eta[:, free]


def _omega_errors(omega: Tensor, mean: Tensor, free: Tensor, parameters: int) -> Tensor:
    """Large-sample standard errors [P] of the between-subject SDs; 0 for parameters without spread.

    How much of each omega was seen rather than assumed: the shrinkage enters the effective number of subjects.
    """
    seen_share = ((mean**2).mean(0) / omega.diagonal()).clamp(0.05, 1.0)
    errors = torch.zeros(parameters, dtype=omega.dtype)
    errors[free] = omega.diagonal().sqrt() / torch.sqrt(2 * len(mean) * seen_share)
    return errors


def fit_mixed(  # noqa: PLR0915 - one round reads from top to bottom, and its parts share a dozen tensors
    predict: Callable[[Tensor], Tensor],
    y: Tensor,
    start: Tensor,
    spread: Tensor,
    offsets: Tensor,
    design: Tensor,
    floor: float,
    prior_sd: Tensor,
    largest_spread: float = 1.0,
    rounds: int = 80,
    tolerance: float = 1e-3,
) -> MixedFit:
    """Fit.

    Args:
        predict: individual log parameters [N, P] -> predictions [N, T], row by row.
        y: observations [N, T], NaN where missing.
        start: theta [P] to start from.
        spread: starting between-subject SD [P]; 0 = the parameter has none.
        offsets: known shifts of the log parameters (allometry) [N, P].
        design: covariate design [N, P, C]: phi gets design @ beta.
        floor: smallest additive error, in y's unit.
        prior_sd: SD [P + C] of a normal prior on each fixed effect around `start` (covariates: around 0); inf = none.
            It holds what the data barely see (a peripheral volume) near its starting value.
        largest_spread: no between-subject SD may pass it (log scale), no subject's eta three of it: beyond, a parameter
            that a subject's readings do not show (a lag between two of them) would wander off.

    Raises:
        FloatingPointError: the search left the finite numbers.
    """
    y, start = y.to(torch.float64), start.to(torch.float64)
    seen = ~y.isnan()
    mask = seen.to(y.dtype)
    y = torch.where(seen, y, torch.zeros_like(y))
    subjects, parameters, covariates = y.shape[0], start.numel(), design.shape[-1]
    free = torch.nonzero(spread > 0).flatten()
    theta, beta = start.clone(), torch.zeros(covariates, dtype=y.dtype)
    omega = torch.diag(spread[free].to(y.dtype) ** 2)
    eta = torch.zeros(subjects, parameters, dtype=y.dtype)
    additive, proportional = floor * 2.0, 0.3
    used, minus2 = 0, float("nan")

    while used < rounds:
        used += 1
        base = theta + offsets + (design * beta).sum(-1)
        prior = torch.linalg.inv(omega)
        eta[:, free] = _posterior_modes(
            predict, y, mask, base, eta, free, prior, additive, proportional, largest_spread
        )
        f, full = _jacobian(predict, base + eta)
        jac = full[:, :, free]
        variance = additive**2 + (proportional * f) ** 2
        # missing points: a huge variance takes them out of every sum without ragged tensors
        big = torch.where(seen, variance, torch.full_like(variance, 1e18))
        marginal = torch.einsum("ntp,pq,nsq->nts", jac, omega, jac) + torch.diag_embed(big)
        x = torch.cat([full, torch.einsum("ntp,npc->ntc", full, design)], -1)
        pseudo = ((y - f) * mask + torch.einsum("ntp,np->nt", jac, eta[:, free])) * mask
        x = x * mask.unsqueeze(-1)
        solved = torch.linalg.solve(marginal, torch.cat([x, pseudo.unsqueeze(-1)], -1))
        information = torch.einsum("nta,ntb->ab", x, solved[..., :-1])
        information = information + torch.diag(prior_sd**-2 + 1e-8)
        pull = torch.cat([start - theta, -beta]) * prior_sd**-2
        move = torch.linalg.solve(information, torch.einsum("nta,nt->a", x, solved[..., -1]) + pull)
        # a lag that hops over a reading kinks the likelihood and can set up a two-cycle: half steps end it
        move = move * min(0.5 if used > 10 else 1.0, 0.5 / float(move.abs().max().clamp_min(1e-12)))
        remaining = pseudo - torch.einsum("nta,a->nt", x, move)
        posterior = torch.linalg.inv(torch.einsum("ntp,nt,ntq->npq", jac, mask / variance, jac) + prior)
        mean = torch.einsum("npq,ntq,nt->np", posterior, jac, mask / variance * remaining)
        logdet = torch.linalg.slogdet(marginal)[1] - (1 - mask).sum(1) * torch.log(torch.tensor(1e18, dtype=y.dtype))
        fitted = torch.linalg.solve(marginal, remaining.unsqueeze(-1)).squeeze(-1)
        minus2 = float((logdet + (remaining * fitted).sum(1) + mask.sum(1) * LOG_2_PI).sum())
        new_omega = (torch.einsum("np,nq->pq", mean, mean) + posterior.sum(0)) / subjects
        if used > 10:
            new_omega = 0.5 * (new_omega + omega)
        excess = (new_omega.diagonal().sqrt() / largest_spread).clamp_min(1.0)
        new_omega = new_omega / torch.outer(excess, excess)
        error2 = (remaining - torch.einsum("ntp,np->nt", jac, mean)) ** 2 + torch.einsum(
            "ntp,npq,ntq->nt", jac, posterior, jac
        )
        change = max(
            float(move.abs().max()), float((new_omega.diagonal().sqrt() - omega.diagonal().sqrt()).abs().max())
        )
        theta, beta, omega = theta + move[:parameters], beta + move[parameters:], new_omega
        eta[:, free] = mean.clamp(-3 * largest_spread, 3 * largest_spread)
        additive, proportional = _residual_sds(error2, f, mask, max(additive, floor), proportional)
        additive = max(additive, floor)
        if not math.isfinite(additive + proportional + change):
            raise FloatingPointError(
                f"the fit diverged in round {used}; check the concentrations for units and outliers"
            )
        if change < tolerance:
            break

    errors = torch.linalg.inv(information).diagonal().clamp_min(0).sqrt()
    whole = torch.zeros(parameters, parameters, dtype=y.dtype)
    whole[free.unsqueeze(1), free] = omega
    omega_errors = _omega_errors(omega, mean, free, parameters)
    phi = theta + offsets + (design * beta).sum(-1) + eta
    return MixedFit(theta, beta, errors, whole, omega_errors, additive, proportional, eta, phi, minus2, used)
