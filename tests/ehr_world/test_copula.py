"""The low-rank copula against torch's own multivariate normal, and its draws against its matrix."""

from __future__ import annotations

import torch
from torch.distributions import MultivariateNormal, Normal

from world_models import keys
from world_models.ehr_world.set_outcome.copula import latent, log_copula


def correlation(loading: torch.Tensor) -> torch.Tensor:
    grown = 1.0 + loading.square().sum(-1)
    matrix = loading @ loading.T + torch.eye(len(loading), dtype=loading.dtype)
    return matrix * grown.rsqrt().outer(grown.rsqrt())


def test_the_likelihood_is_the_multivariate_normals() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = [5, 1, 9]
    loading = torch.randn(sum(sizes), 8, generator=generator, dtype=torch.float64) * 0.7
    z = torch.randn(sum(sizes), generator=generator, dtype=torch.float64)
    group = torch.repeat_interleave(torch.tensor([0, 1, 3]), torch.tensor(sizes))  # group 2 has no slot
    found = log_copula(z, loading, group, 4)
    for g in range(4):
        rows = group == g
        expected = torch.zeros((), dtype=torch.float64)
        if rows.any():
            count = int(rows.sum())
            joint = MultivariateNormal(torch.zeros(count, dtype=torch.float64), correlation(loading[rows]))
            expected = joint.log_prob(z[rows]) - Normal(0.0, 1.0).log_prob(z[rows]).sum()
        torch.testing.assert_close(found[g], expected, atol=1e-9, rtol=1e-9)


def test_without_loadings_there_is_no_dependence() -> None:
    z = torch.tensor([0.3, -2.0, 1.0])
    torch.testing.assert_close(log_copula(z, torch.zeros(3, 8), torch.zeros(3, dtype=torch.int64), 1), torch.zeros(1))


def test_drawn_scores_have_unit_variance_and_the_heads_correlations() -> None:
    loading = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)) * 0.6
    key = keys.from_seed(5, 40_000)
    z = latent(loading, keys.normal(key, 0, "shared", (8,)).unsqueeze(1), keys.normal(key, 0, "own", (4,)))
    torch.testing.assert_close(torch.corrcoef(z.T), correlation(loading), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(4), atol=0.02, rtol=0)
