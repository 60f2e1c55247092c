"""Encoders trained through compiled kernels."""

import copy

import pytest
import torch

from world_models.cardiac_jepa.encoder import XResNet1d, initialise


def _encoder() -> XResNet1d:
    encoder = XResNet1d(stem=(8, 8, 8), inner=8, out=16, blocks=(1, 1), kernel=5)
    initialise(encoder, 0)
    for block in list(encoder.layers)[-2:]:  # a block's last scale is zero at first, and its path has no gradient
        torch.nn.init.ones_(block.path[-1][-1].weight)
    return encoder.train()


def _gradient(encoder: XResNet1d, ecg: torch.Tensor) -> torch.Tensor:
    encoder.zero_grad()
    encoder(ecg).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in encoder.parameters()])


def test_evaluation_and_names_are_as_they_were():
    plain = _encoder()
    quick = copy.deepcopy(plain).quicken()
    ecg = 0.3 * torch.randn(4, 12, 250, generator=torch.Generator().manual_seed(0))
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert torch.equal(plain.eval()(ecg), quick.eval()(ecg))


@pytest.mark.compiles
def test_gradients_and_statistics_are_those_of_plain_training():
    plain = _encoder()
    quick = copy.deepcopy(plain).quicken()
    ecg = 0.3 * torch.randn(16, 12, 250, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_gradient(quick, ecg), _gradient(plain, ecg), rtol=1e-3, atol=1e-6)
    for name, x in plain.named_buffers():
        torch.testing.assert_close(dict(quick.named_buffers())[name], x, rtol=1e-4, atol=1e-6)
    twin = copy.deepcopy(quick)  # it trains its own weights
    with torch.no_grad():
        twin.layers[0][0].weight.mul_(2.0)
    assert not torch.allclose(_gradient(twin, ecg), _gradient(quick, ecg))
