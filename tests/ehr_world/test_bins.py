"""Bins with interpolation: a density that integrates to one, and a distribution function that its quantiles invert."""

from __future__ import annotations

import pytest
import torch

from world_models.ehr_world.set_outcome import bins

EDGES = torch.tensor([[-3.0, -1.0, -0.2, 0.4, 1.5, 4.0], [-2.0, 0.0, 2.0, 2.0, 2.0, 2.0]])  # the second has two bins
FREE = torch.tensor([[0.3, -0.5, 1.0, 0.2, -1.0], [0.4, -0.4, 9.0, 9.0, 9.0]])


def around(location: list[float], scale: list[float], bend: float = 0.0) -> bins.Around:
    return bins.Around(torch.tensor(location), torch.tensor(scale), torch.full((len(scale),), bend))


def masses(based: bool) -> torch.Tensor:
    return bins.log_masses(FREE, around([0.2, -0.5], [0.74, 1.1]), EDGES, torch.tensor([based, based]))


@pytest.mark.parametrize("based", [True, False])
def test_the_density_integrates_to_one(based: bool) -> None:
    log_mass = masses(based)
    z = torch.linspace(-3.0, 4.0, 140_001, dtype=torch.float64)
    middle = ((z[1:] + z[:-1]) / 2).float()
    for row in range(2):
        inside = (middle > EDGES[row, 0]) & (middle < EDGES[row, -1])
        x = middle[inside]
        density = bins.log_density(log_mass[row].expand(len(x), -1), x, EDGES[row].expand(len(x), -1)).exp()
        assert float(density.double().sum() * (z[1] - z[0])) == pytest.approx(1.0, abs=1e-3)


def test_a_bin_the_item_lacks_has_no_mass() -> None:
    assert torch.equal(masses(True)[1, 2:], torch.full((3,), float("-inf")))
    assert float(masses(True)[1].exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_the_base_is_a_logistic_and_its_tails_belong_to_the_outer_bins() -> None:
    scale = 0.74
    mass = bins.log_masses(torch.zeros(1, 5), around([0.2], [scale]), EDGES[:1], torch.tensor([True])).exp()
    at = torch.sigmoid((EDGES[0] - 0.2) / scale)
    at[0], at[-1] = 0.0, 1.0
    torch.testing.assert_close(mass[0], at.diff(), atol=1e-4, rtol=1e-3)


def test_quantiles_invert_the_distribution_function() -> None:
    mass = masses(True).exp()
    u = torch.linspace(0.01, 0.99, 37)
    for row in range(2):
        m, e = mass[row].expand(len(u), -1), EDGES[row].expand(len(u), -1)
        torch.testing.assert_close(bins.cdf(m, bins.quantile(m, u, e), e), u, atol=1e-5, rtol=0)


def test_the_cdf_is_the_integral_of_the_density() -> None:
    log_mass = masses(True)[:1]
    z = torch.linspace(-3.0, 1.0, 40_001)
    middle = (z[1:] + z[:-1]) / 2
    density = bins.log_density(log_mass.expand(len(middle), -1), middle, EDGES[:1].expand(len(middle), -1)).exp()
    area = float(density.double().sum() * (z[1] - z[0]))
    assert float(bins.cdf(log_mass.exp(), torch.tensor([1.0]), EDGES[:1])) == pytest.approx(area, abs=1e-3)


def test_values_beyond_the_edges_count_for_the_outer_bins() -> None:
    assert bins.bin_of(torch.tensor([-9.0, 9.0]), EDGES).tolist() == [0, 1]
    assert bins.cdf(masses(True).exp(), torch.tensor([-9.0, 9.0]), EDGES).tolist() == pytest.approx(
        [0.0, 1.0], abs=1e-6
    )


@pytest.mark.parametrize("location", [-40.0, -2.9, 0.1, 3.0, 60.0])
@pytest.mark.parametrize("scale", [0.003, 0.3, 5.0, 1e4])
@pytest.mark.parametrize("bend", [0.0, 0.017, 0.2])
def test_inside_a_bin_the_density_is_the_base_cut_to_it(location: float, scale: float, bend: float) -> None:
    mass = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]])
    base = around([location], [scale], bend)
    z = torch.linspace(-3.0, 4.0, 70_001, dtype=torch.float64)
    middle = ((z[1:] + z[:-1]) / 2).float()
    many = [x.expand(len(middle), *x.shape[1:]) for x in (mass.log(), EDGES[:1], *base)]
    density = bins.log_density(many[0], middle, many[1], bins.Around(*many[2:])).exp().double()
    assert float(density.sum() * (z[1] - z[0])) == pytest.approx(1.0, abs=2e-3)
    u = torch.linspace(0.005, 0.995, 199)
    m, e, at = mass.expand(199, -1), EDGES[:1].expand(199, -1), bins.Around(*(x.expand(199) for x in base))
    x = bins.quantile(m, u, e, at)
    torch.testing.assert_close(bins.cdf(m, x, e, at), u, atol=1e-4, rtol=0)
    below = torch.stack([density[middle <= q].sum() * (z[1] - z[0]) for q in x])
    torch.testing.assert_close(below.float(), u, atol=3e-3, rtol=0)
    if scale == 1e4:  # even
        torch.testing.assert_close(x, bins.quantile(m, u, e), atol=1e-4, rtol=0)


def test_an_outer_bin_holds_its_mass_near_the_inner_edge_when_the_base_lies_inside() -> None:
    mass = torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2]])
    u = torch.tensor([[0.1, 0.9]])
    low, high = bins.quantile(mass, u, EDGES[:1], around([0.0], [0.2]))[0].tolist()
    even_low, even_high = bins.quantile(mass, u, EDGES[:1])[0].tolist()
    assert even_low + 0.3 < low < -1.0 and 1.5 < high < even_high - 0.3


def test_a_bent_base_has_the_normal_distributions_tails() -> None:
    edges = torch.tensor([[-8.0, -3.09, -2.33, 0.0, 2.33, 3.09, 8.0]])
    base = around([0.0], [1 / 1.5976], 0.0173)
    mass = bins.log_masses(torch.zeros(1, 6), base, edges, torch.tensor([True])).exp()[0]
    expected = torch.special.ndtr(edges[0].double()).diff().float()
    torch.testing.assert_close(mass, expected, atol=1.5e-4, rtol=0.0)
