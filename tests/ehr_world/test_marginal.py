"""The distribution with a share of its mass on the last report: a density, a distribution function, its inverse."""

import pytest
import torch

from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.marginal import Again, Marginal

EDGES = torch.tensor([[-2.0, -1.0, -0.25, 0.25, 1.0, 3.0]])


def marginal(share: float, low: float = 0.3, high: float = 0.4, rows: int = 1) -> Marginal:
    around = bins.Around(torch.tensor([0.2]), torch.tensor([0.6]), torch.tensor([0.05]))
    log_mass = bins.log_masses(torch.tensor([[0.3, -0.2, 0.1, 0.0, 0.4]]), around, EDGES, torch.tensor([True]))
    again = Again(torch.tensor([share]), torch.tensor([low]), torch.tensor([high]))
    return Marginal(log_mass, EDGES, around, again).take(torch.zeros(rows, dtype=torch.int64))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("cell", [(0.3, 0.4), (0.9, 1.1), (2.9, 3.05)])
def test_quantile_inverts_the_distribution_function(share, cell):
    u = torch.linspace(0.01, 0.99, 99)
    one = marginal(share, *cell)
    z = one.quantile(u.unsqueeze(0))[0]
    assert bool((z[1:] >= z[:-1] - 1e-5).all())
    many = marginal(share, *cell, rows=99)
    inside = z < 2.999  # all of what lies beyond the outer edge is told of it
    torch.testing.assert_close(many.cdf(z)[inside], u[inside], atol=2e-4, rtol=0)
    torch.testing.assert_close(many.quantile(u), z)


def test_density_integrates_to_one_and_is_the_slope_of_the_distribution_function():
    z = torch.linspace(-2.0, 3.0, 20_001)
    many = marginal(0.4, rows=len(z))
    density = many.log_density(z).exp()
    assert float(torch.trapezoid(density, z)) == pytest.approx(1.0, abs=0.01)
    rise = (many.cdf(z)[1:] - many.cdf(z)[:-1]).sum()
    assert float(rise) == pytest.approx(1.0, abs=0.01)
    cell = (z > 0.31) & (z < 0.39)
    base = marginal(0.0, rows=len(z)).log_density(z).exp()
    assert float(density[cell].mean()) == pytest.approx(0.4 / 0.1 + 0.6 * float(base[cell].mean()), rel=0.02)


def test_masses_are_those_of_the_distribution_function():
    one = marginal(0.4, 0.2, 0.3)  # the cell lies across an edge
    mass = one.masses()[0]
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-5)
    many = marginal(0.4, 0.2, 0.3, rows=6)
    below = many.cdf(EDGES[0])
    torch.testing.assert_close(mass[1:4], (below[1:] - below[:-1])[1:4], atol=0.01, rtol=0)


def test_without_a_last_report_it_is_the_plain_one():
    plain = marginal(0.0)._replace(again=None)
    z = torch.tensor([0.35])
    torch.testing.assert_close(marginal(0.0).cdf(z), plain.cdf(z))
    torch.testing.assert_close(marginal(0.0).log_density(z), plain.log_density(z))
    torch.testing.assert_close(
        marginal(0.0).quantile(torch.tensor([[0.2, 0.6]])), plain.quantile(torch.tensor([[0.2, 0.6]]))
    )


def test_a_moved_one_says_the_same_further_up():
    plain, by = marginal(0.3, rows=5), 0.37
    moved = plain.moved(torch.full((5,), by))
    u = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.97])
    torch.testing.assert_close(moved.quantile(u), plain.quantile(u) + by, rtol=0, atol=1e-4)
    z = plain.quantile(u)
    torch.testing.assert_close(moved.cdf(z + by), plain.cdf(z), rtol=0, atol=1e-4)
    torch.testing.assert_close(moved.masses(), plain.masses(), rtol=0, atol=1e-5)
