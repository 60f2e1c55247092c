"""SIGReg's known values, its gradient, VICReg by hand, and both over two processes."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributed import get_world_size

from tests.cardiac_jepa.two_processes import run
from world_models import keys
from world_models.cardiac_jepa.reduce import BatchNorm1d
from world_models.cardiac_jepa.sigreg import sigreg, slices
from world_models.cardiac_jepa.vicreg import vicreg


def normal(rows: int, size: int, seed: int = 0) -> Tensor:
    return keys.normal(keys.from_seed(seed, rows), 0, "z", (size,))


def plain(z: Tensor, directions: Tensor) -> Tensor:
    """The statistic written out from its definition, all 17 points."""
    t = torch.linspace(0, 3, 17)
    weight = torch.full((17,), 2 * 3 / 16)
    weight[[0, -1]] = 3 / 16
    window = torch.exp(-t.square() / 2)
    angle = (z @ directions).unsqueeze(-1) * t
    error = (angle.cos().mean(0) - window).square() + angle.sin().mean(0).square()
    return (error @ (weight * window)).mean() * z.shape[0]


@pytest.mark.parametrize("rows", [64, 512, 2048])
def test_a_standard_normal_gives_the_same_whatever_its_size(rows):
    """Its expectation is the integral of exp(-t^2 / 2) (1 - exp(-t^2)), 1.06."""
    values = [float(sigreg(normal(rows, 64, 10_000 * i), i, 64)) for i in range(8)]
    assert sum(values) / 8 == pytest.approx(1.05, abs=0.06)


def test_known_departures():
    z = normal(512, 256)
    assert float(sigreg(0 * z, 0)) == pytest.approx(0.40 * 512, rel=0.02)
    assert float(sigreg(0.5 * z, 0)) == pytest.approx(79, rel=0.02)
    assert float(sigreg(2 * z, 0)) == pytest.approx(120, rel=0.02)


def test_value_and_gradient_are_those_of_the_definition():
    z = (0.3 + 1.4 * normal(40, 10)).requires_grad_()
    expected = plain(z, slices(10, 64, 3))
    value = sigreg(z, 3, 64)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(3 * value, z)
    (wanted,) = torch.autograd.grad(3 * expected, z)
    torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)
    assert bool(torch.isfinite(slope).all()) and slope.norm() > 0


def test_gradient_at_full_collapse_is_finite():
    z = torch.zeros(64, 16, requires_grad=True)
    sigreg(z, 0, 32).backward()
    assert bool(torch.isfinite(z.grad).all())


def test_directions_are_unit_and_new_each_step_only():
    a = slices(32, 100, 4)
    torch.testing.assert_close(a.norm(dim=0), torch.ones(100))
    assert torch.equal(a, slices(32, 100, 4)) and not torch.equal(a, slices(32, 100, 5))
    assert (a.T @ a - torch.eye(100)).abs().max() < 0.8  # no two alike


def test_float32_under_autocast():
    z = normal(512, 64)
    with torch.autocast("cpu", torch.bfloat16):
        value = sigreg(z, 0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, sigreg(z, 0))


def test_vicreg_by_hand():
    z = 0.5 * normal(300, 6)
    centred = z - z.mean(0)
    covariance = centred.T @ centred / 299
    variance, off = vicreg(z)
    assert float(variance) == pytest.approx(
        float((1 - (covariance.diagonal() + 1e-4).sqrt()).clamp(min=0).mean()), rel=1e-4
    )
    expected = sum(float(covariance[i, j]) ** 2 for i in range(6) for j in range(6) if i != j) / 6
    assert float(off) == pytest.approx(expected, rel=1e-3)
    assert float(vicreg(2 * normal(300, 6))[0]) == 0  # the hinge is one-sided
    assert float(vicreg(torch.zeros(8, 6))[0]) == pytest.approx(1 - math.sqrt(1e-4), rel=1e-5)
    with pytest.raises(ValueError, match="two rows"):
        vicreg(z[:1])


def losses(z: Tensor, world: int = 1, rank: int = 0) -> dict[str, Tensor]:
    """Values and gradients of this rank's share; gradients as DistributedDataParallel would leave them in z's place."""
    norm = BatchNorm1d(z.shape[1])
    share = z.chunk(world)[rank].clone().requires_grad_()
    found = {}
    x = norm(share.unsqueeze(-1) * torch.tensor([1.0, 2.0])).flatten(1)
    normed = (x * torch.linspace(0, 1, x.shape[1])).tanh().square().mean()
    for name, value in (
        ("sigreg", sigreg(share, 1, 32)),
        ("variance", vicreg(share)[0]),
        ("covariance", vicreg(share)[1]),
        ("batch norm", normed),
    ):
        (slope,) = torch.autograd.grad(value, share, retain_graph=True)
        found |= {name: value.detach(), f"{name} gradient": slope / world}
    return found | {"mean": norm.running_mean, "variance kept": norm.running_var}


def share_of(rank: int) -> dict[str, Tensor]:
    return losses(0.1 + 0.7 * normal(24, 8), get_world_size(), rank)


@pytest.mark.slow
def test_two_processes_give_the_joined_batch(tmp_path):
    alone = losses(0.1 + 0.7 * normal(24, 8))
    ranks = run(share_of, tmp_path)
    for name, value in alone.items():
        got = torch.cat([r[name] for r in ranks]) if "gradient" in name else ranks[0][name]
        if name == "batch norm":  # a plain mean of each share's rows
            got = (ranks[0][name] + ranks[1][name]) / 2
        elif "gradient" not in name:
            assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert alone["sigreg gradient"].norm() > 1e-2 and alone["batch norm gradient"].norm() > 1e-4
