"""The guess from which a T wave's bend is searched: the same in every batch, the trained network's, and near."""

import pytest
import torch
from safetensors.torch import save_file

from tests.contract.test_rounding import Watch
from world_models import keys
from world_models.ecg import t_reader as reader
from world_models.ecg import t_start, t_start_fit
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.t_synthesis import SCALE

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def asked():
    """Random beats that are asked for other T waves, what their own measure, and the network's inputs."""
    beats = t_start_fit.random_beats(MorphologyBank.load(), keys.from_seed(5, 96))
    plain, _ = reader.read_bent(
        beats, reader.free_shape(torch.zeros(len(beats.drawn), 10), torch.ones(len(beats.drawn)))
    )
    own = torch.cat((t_start.asks(plain, beats.drawn), t_start.own_form(beats.channels, beats.drawn)), dim=-1)
    return beats, plain, own


def test_a_guess_is_the_same_in_every_batch(asked):
    beats, _, own = asked
    network = t_start.layers(DEVICE)

    def guessed(rows: slice) -> torch.Tensor:
        aims = t_start.asks(beats.target[rows], beats.drawn[rows])
        return t_start.guess(aims, t_start.own_part(own[rows], network), network)

    with Watch() as watch:
        whole = guessed(slice(None))
    assert not watch.found, watch.found
    assert whole.shape == (len(own), t_start.FREE) and whole.isfinite().all() and (whole.abs() <= t_start.LARGEST).all()
    for rows in (slice(2, 3), slice(5, 22)):
        assert torch.equal(whole[rows], guessed(rows))


def test_the_guess_is_that_of_the_network_that_was_trained(asked, tmp_path, monkeypatch):
    beats, _, own = asked
    trained = t_start_fit.fit_start(2, 32, width=16)
    save_file(trained.tensors(), str(tmp_path / "start.safetensors"))
    monkeypatch.setattr(t_start, "START_FILE", tmp_path / "start.safetensors")
    network = t_start.layers.__wrapped__(DEVICE)  # not the one that is kept
    aims = t_start.asks(beats.target, beats.drawn)
    torch.testing.assert_close(
        t_start.guess(aims, t_start.own_part(own, network), network), trained(aims, own).detach()
    )


def test_the_shipped_guess_measures_nearer_to_what_is_asked(asked):
    beats, plain, own = asked
    network = t_start.layers(DEVICE)
    aims = t_start.asks(beats.target, beats.drawn)
    x = t_start.guess(aims, t_start.own_part(own, network), network)
    read, _ = reader.read_bent(beats, reader.free_shape(x, torch.ones(len(x))))
    scale = torch.tensor(SCALE)
    before, after = (((found - beats.target) / scale).abs().nanmedian(0).values for found in (plain, read))
    assert (after < before).all() and after.mean() < 0.4 * before.mean(), (before, after)
    assert torch.allclose(reader.free_of(reader.free_shape(x, torch.ones(len(x)))), x, atol=1e-5)
