"""Linear mixed model with several variance components, by restricted maximum likelihood, all subjects at once.

y_i = X_i beta + sum_k Z_ik u_ik + eps_i, with u_ik ~ N(0, s_k²) independent and eps ~ N(0, s²); priors
beta ~ N(0, prior²) may be put on single fixed effects (a ridge: harmonics, sex differences). Laird & Ware 1982, PMID
7168798. Columns of X and Z, and the residual's scale, may depend on further nonlinear parameters (an effect
compartment's rate): those are found in the same search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Design", "LinearFit", "fit_linear_mixed"]

_FARTHEST = 3.5  # prior SDs from where the search starts that a parameter is followed


@dataclass(frozen=True)
class Design:
    """The model's columns. N subjects, R rows each (padded), F fixed effects, K variance components."""

    fixed: Tensor  # [N, R, F]
    random: tuple[Tensor, ...]  # K of [N, R, C_k]: columns that share one variance
    noise_scale: Tensor | None = None  # [N, R] residual SD of each row over the common one; None = 1


@dataclass(frozen=True)
class LinearFit:
    """Estimates of a linear mixed model: N subjects, R rows, F fixed effects, K components, P nonlinear parameters."""

    beta: Tensor  # [F]
    errors: Tensor  # [F] standard errors
    component_sds: Tensor  # [K]
    component_errors: Tensor  # [K] standard errors (curvature of the likelihood, delta method)
    residual_sd: float
    nonlinear: Tensor  # [P]
    nonlinear_errors: Tensor  # [P] (of the parameters as searched: logs)
    effects: tuple[Tensor, ...]  # K of [N, C_k]: predicted random effects
    residuals: Tensor  # [N, R] y - X beta - Z u, over the row's noise scale; NaN where missing
    minus_two_log_likelihood: float


def fit_linear_mixed(
    columns: Callable[[Tensor], Design],
    y: Tensor,
    prior_sd: Tensor,
    sds: Tensor,
    residual_sd: float,
    nonlinear: Tensor,
    nonlinear_prior_sd: Tensor,
    standard_errors: bool = True,
    iterations: int = 60,
) -> LinearFit:
    """Fit.

    Args:
        columns: nonlinear parameters [P] -> Design, differentiable.
        y: [N, R], NaN where missing. prior_sd: [F], inf = none.
        sds, residual_sd, nonlinear: where the search starts; [K], a number, [P].
        nonlinear_prior_sd: SD of normal priors around the start, [P].
        standard_errors: False skips those of the variance components and nonlinear parameters (a Hessian).
    """
    seen = ~y.isnan()
    y0 = torch.where(seen, y, torch.zeros_like(y)).to(torch.float64)
    k = len(sds)
    start = torch.cat([sds.log(), torch.tensor([residual_sd]).log(), nonlinear]).to(torch.float64)
    width = torch.cat([torch.full((k,), 1.5), torch.tensor([torch.inf]), nonlinear_prior_sd]).to(torch.float64)
    problem = _Problem(
        columns, y0, seen.to(torch.float64), prior_sd.to(torch.float64) ** -2, start.clone(), width, components=k
    )
    best = _search(problem, start, iterations)
    with torch.no_grad():
        solved = problem.solve(best)
        design, weight = solved.design, solved.weight
        errors = torch.linalg.inv(solved.information).diagonal().clamp_min(0).sqrt()
        rest = (y0 - design.fixed @ solved.beta) * weight.squeeze(-1)
        right = torch.einsum("nrc,nr->nc", solved.z, rest).unsqueeze(-1)
        u = torch.linalg.solve(solved.small, right).squeeze(-1) / solved.noise
        residuals = torch.where(seen, rest - torch.einsum("nrc,nc->nr", solved.z, u), torch.full_like(rest, torch.nan))
        effects, at = [], 0
        for i, block in enumerate(design.random):
            effects.append(u[:, at : at + block.shape[-1]] * best[i].exp())
            at += block.shape[-1]
    search_errors = _search_errors(problem, best) if standard_errors else torch.full_like(best, torch.nan)
    return LinearFit(
        solved.beta,
        errors,
        best[:k].exp(),
        best[:k].exp() * search_errors[:k],
        float(best[k].exp()),
        best[k + 1 :],
        search_errors[k + 1 :],
        tuple(effects),
        residuals,
        float(solved.value),
    )


class _Solved(NamedTuple):
    """The model at one point of the search, its fixed effects solved for."""

    value: Tensor  # minus two log likelihood and log priors
    beta: Tensor  # [F]
    information: Tensor  # [F, F]
    design: Design
    z: Tensor  # [N, R, C] all random columns, scaled and weighted
    small: Tensor  # [N, C, C] Woodbury's inner matrix
    noise: Tensor  # residual variance
    weight: Tensor  # [N, R, 1] 1 over the row's noise scale, 0 where missing


@dataclass(frozen=True)
class _Problem:
    """What the search minimises over a vector: K log SDs, the log residual SD, P nonlinear parameters."""

    columns: Callable[[Tensor], Design]
    y: Tensor  # [N, R], 0 where missing
    mask: Tensor  # [N, R]
    precision: Tensor  # [F] of the priors on fixed effects
    centre: Tensor  # [K + 1 + P] of the priors on the vector
    width: Tensor  # [K + 1 + P] their SDs
    components: int  # K

    def within(self, vector: Tensor) -> Tensor:
        """The vector no further from the priors' centres than can be computed with: a line search looks anywhere."""
        far = _FARTHEST * self.width
        return torch.minimum(torch.maximum(vector, self.centre - far), self.centre + far)

    def solve(self, vector: Tensor) -> _Solved:
        """The likelihood of the vector [K + 1 + P]; differentiable."""
        k, mask, y0 = self.components, self.mask, self.y
        asked, vector = vector, self.within(vector)
        design = self.columns(vector[k + 1 :])
        scale = torch.ones_like(y0) if design.noise_scale is None else design.noise_scale
        weight = (mask / scale).unsqueeze(-1)
        x = design.fixed * weight
        zs = [z * weight * vector[i].exp() for i, z in enumerate(design.random)]
        z = torch.cat(zs, -1)
        noise = (2 * vector[k]).exp()
        # Woodbury: with V = noise I + Z Z', only matrices as wide as Z are factorised
        small = torch.einsum("nrc,nrd->ncd", z, z) / noise + torch.eye(z.shape[-1], dtype=z.dtype)
        factor = torch.linalg.cholesky(small)
        right = torch.cat([x, y0.unsqueeze(-1) * weight], -1)
        zr = torch.einsum("nrc,nrf->ncf", z, right)
        gram = torch.einsum("nrf,nrg->fg", right, right) / noise
        half = torch.linalg.solve_triangular(factor, zr, upper=False)
        gram = gram - torch.einsum("ncf,ncg->fg", half, half) / noise**2
        information = gram[:-1, :-1] + torch.diag(self.precision)
        chol = torch.linalg.cholesky(information)
        beta = torch.cholesky_solve(gram[:-1, -1:], chol).squeeze(-1)
        quadratic = gram[-1, -1] - (gram[:-1, -1] * beta).sum()
        logdet = (
            mask.sum() * 2 * vector[k]
            + 2 * (mask * scale.log()).sum()
            + 2 * torch.diagonal(factor, dim1=-2, dim2=-1).log().sum()
        )
        value = logdet + quadratic + 2 * chol.diagonal().log().sum()
        value = value + (((asked - self.centre) / self.width) ** 2).sum()  # of what was asked: it leads back inside
        return _Solved(value, beta, information, design, z, small, noise, weight)


def _search(problem: _Problem, start: Tensor, iterations: int) -> Tensor:
    """The vector [K + 1 + P] of the smallest value, from `start`."""
    vector = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [vector], max_iter=iterations, tolerance_change=1e-4, tolerance_grad=1e-3, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = problem.solve(vector).value
        value.backward()
        return value

    optimiser.step(closure)
    return problem.within(vector.detach())


def _search_errors(problem: _Problem, best: Tensor) -> Tensor:
    """Standard errors [K + 1 + P] from the curvature at the optimum."""
    hessian = torch.autograd.functional.hessian(lambda v: problem.solve(v).value, best) / 2
    values, vectors = torch.linalg.eigh(hessian)
    inverse = (vectors / values.clamp_min(1e-6)) @ vectors.T
    return inverse.diagonal().clamp_min(0).sqrt()
