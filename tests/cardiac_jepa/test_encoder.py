"""The published network to the parameter, any length, and what a fixed scale keeps."""

import pytest
import torch
from torch import nn

from world_models import keys
from world_models.cardiac_jepa.config import FULL, NARROW, JEPAConfig
from world_models.cardiac_jepa.encoder import ConcatPoolHead, XResNet1d, _Halve, initialise
from world_models.cardiac_jepa.projector import Projector
from world_models.config_json import ConfigError, from_json


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def ecg(rows: int, samples: int) -> torch.Tensor:
    return 0.2 * keys.normal(keys.from_seed(0, rows), 0, "ecg", (12, samples))


def test_parameters_of_the_published_network():
    encoder = XResNet1d()
    assert count(encoder) == 886_400
    assert count(encoder) + count(ConcatPoolHead(256, 76)) == 926_412
    assert 50_000 < count(XResNet1d.of(NARROW)) < 150_000
    assert count(XResNet1d.of(FULL)) == 886_400


def test_shapes_and_lengths():
    encoder = XResNet1d.of(NARROW).eval()
    for samples in (100, 101, 250, 999, 1000):
        features = encoder.features(ecg(2, samples))
        assert features.shape == (2, 128, -(-samples // 32)), samples
    assert torch.equal(encoder(ecg(2, 250)), encoder.features(ecg(2, 250)).mean(-1))
    assert ConcatPoolHead(128, 5).eval()(encoder.features(ecg(1, 250))).shape == (1, 5)


def test_what_is_no_ecg_is_refused():
    encoder = XResNet1d.of(NARROW)
    for wrong in (ecg(2, 99), ecg(2, 250)[:, :8], ecg(2, 250)[0]):
        with pytest.raises(ValueError, match="all twelve leads"):
            encoder(wrong)


@pytest.mark.parametrize("samples", [2, 7, 32, 63])
def test_halving_is_average_pooling(samples):
    x = ecg(3, samples)
    assert torch.equal(_Halve()(x), nn.AvgPool1d(2, 2, ceil_mode=True)(x))


def test_a_fresh_block_passes_its_shortcut_on():
    encoder = XResNet1d.of(NARROW)
    block = encoder.layers[5]  # 128 channels in and out, halves
    x = ecg(2, 64)[:, :1].expand(2, 128, 64)
    torch.testing.assert_close(block(x), torch.relu(_Halve()(x)))


def test_voltage_is_kept():
    """A record scaled by itself would give the same features at any amplitude."""
    encoder = XResNet1d.of(NARROW)
    initialise(encoder, 0)
    encoder(ecg(64, 250))  # BatchNorm's first statistics
    encoder.eval()
    small, large = encoder(ecg(4, 250)), encoder(3 * ecg(4, 250))
    assert (small - large).norm() > 0.5 * small.norm()


def test_first_weights_follow_the_seed_alone():
    torch.manual_seed(1)
    one = XResNet1d.of(NARROW)
    torch.manual_seed(2)
    two = XResNet1d.of(NARROW)
    initialise(one, 5), initialise(two, 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    initialise(two, 6)
    assert not torch.equal(one.layers[0][0].weight, two.layers[0][0].weight)


def test_projector_ends_normalised_and_reads_one_patient():
    projector = Projector(32, 16, 8)
    h = 3 + keys.normal(keys.from_seed(0, 200), 0, "h", (32,))
    z = projector(h)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(8), atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="eval"):
        projector(h[:1])
    projector.eval()
    torch.testing.assert_close(projector(h[:1]), projector(h)[:1])
    assert sum(isinstance(m, nn.BatchNorm1d) for m in Projector(32, 16, 8, final_norm=False).modules()) == 2


def test_config_goes_to_json_and_back_and_refuses_nonsense():
    import json

    plain = json.loads(json.dumps(NARROW.to_dict()))
    assert from_json(JEPAConfig, plain, "jepa") == NARROW
    with pytest.raises(ConfigError, match="'lattent' that this version does not know"):
        from_json(JEPAConfig, {**plain, "lattent": 3}, "jepa")
    for wrong, words in (
        ({"regulariser": "none"}, "choose one of sigreg"),
        ({"weight": 1.0}, "lambda"),
        ({"codes": ("I10", "I10")}, "each once"),
        ({"latent": 0}, "1 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            JEPAConfig(**wrong)
