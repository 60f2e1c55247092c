"""A Gaussian copula of low rank over the slots of one step: what is sampled together errs together.

Slot i carries a loading vector l_i [R]. Its latent is (l_i . f + e_i) / sqrt(1 + |l_i|^2) with f ~ N(0, I_R) shared by
the step and e_i ~ N(0, 1) of its own: unit variance, correlation l_i . l_j / sqrt((1 + |l_i|^2)(1 + |l_j|^2)). With
d_i = 1 / (1 + |l_i|^2) the correlation matrix is D + W W', w_i = sqrt(d_i) l_i, and by Woodbury's identity and the
matrix determinant lemma its likelihood needs one R x R factorisation a step, whatever the number of slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["latent", "log_copula"]


def log_copula(z: Tensor, loading: Tensor, group: Tensor, groups: int) -> Tensor:
    """Log density of the copula [groups], summed over each group's slots.

    Args:
        z: [N] normal scores of the slots' probability integral transforms.
        loading: [N, R].
        group: int64 [N], the step each slot belongs to.
    """
    rank = loading.shape[1]
    grown = 1.0 + loading.square().sum(-1)
    y = z * grown.sqrt()  # z over the square root of d
    outer = (loading.unsqueeze(-1) * loading.unsqueeze(-2)).flatten(1)
    sums = torch.cat([outer, loading * y.unsqueeze(-1), (y.square() - z.square() - grown.log()).unsqueeze(-1)], -1)
    total = torch.zeros(groups, sums.shape[1], dtype=z.dtype, device=z.device).index_add(0, group, sums)
    inner = total[:, : rank * rank].unflatten(1, (rank, rank)) + torch.eye(rank, dtype=z.dtype, device=z.device)
    b, rest = total[:, rank * rank : -1], total[:, -1]
    # `rest` holds sum(y^2 - z^2) + sum(log d)
    factor = torch.linalg.cholesky(inner)
    solved = torch.linalg.solve_triangular(factor, b.unsqueeze(-1), upper=False).squeeze(-1)
    log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (rest + log_det - solved.square().sum(-1))


def latent(loading: Tensor, shared: Tensor, own: Tensor) -> Tensor:
    """Correlated standard normals [...] from loadings [..., R], shared factors [..., R] and own noise [...]."""
    return ((loading * shared).sum(-1) + own) * (1.0 + loading.square().sum(-1)).rsqrt()
