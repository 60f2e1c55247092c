"""How sure a network is, set on stays that it has not met."""

import dataclasses

import pytest
import torch

from tests.ehr_world.ward_small import some_stays, tiny
from world_models import keys
from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.stay_tensors import UNKNOWN, Stays
from world_models.ehr_world.temperature import TEMPERATURES, best_temperature, with_temperature
from world_models.ehr_world.vocabulary import from_z


def drawn_at(temperature: float) -> Stays:
    """Stays of two positions, whose second one is drawn from the small network at this temperature."""
    net = tiny().net
    with_temperature(net, temperature)
    many = [x[:, :2].repeat(40, 1, 1) if x.ndim == 3 else x[:, :2].repeat(40, 1) for x in some_stays()[2:]]
    stays = Stays(*(x.repeat(40, 1) for x in some_stays()[:2]), *many)
    stays = stays._replace(delay=torch.where(stays.value.isnan(), UNKNOWN, 0), alive=torch.ones_like(stays.alive))
    stays = stays._replace(valid=torch.ones_like(stays.valid))
    with torch.no_grad():
        run = forced(net, stays)
    later = (run.place == 1) & ~net.label[run.item]
    marginal, row, item = run.outcome.marginal.take(later), run.row[later], run.item[later]
    u = keys.uniform(keys.from_seed(3), 0, "draws", (len(row),))[0]
    value = stays.value.clone()
    value[row, 1, item] = from_z(marginal.quantile(u), net.scale[item])
    return stays._replace(value=torch.where(stays.value.isnan(), stays.value, value))


@pytest.mark.parametrize("true", [1.0, 1.1, 1.25])
def test_the_temperature_that_stays_were_drawn_at_is_found(true: float) -> None:
    found = best_temperature([(tiny().net, drawn_at(true))])
    assert abs(found - true) <= 0.051, (found, true)


def test_warmer_is_less_sure_of_numbers_and_leaves_labels_and_the_likeliest_bin() -> None:
    around = bins.Around(*(torch.tensor([x, x]) for x in (0.2, 0.7, 0.0)))
    edges = torch.linspace(-3, 3, 7).expand(2, -1)
    free, based = torch.tensor([[0.3, -1.0, 2.0, 0.1, 0.0, -0.5]]).expand(2, -1), torch.tensor([True, False])
    plain, warm = (bins.log_masses(free, around, edges, based, t).exp() for t in (1.0, 1.3))
    torch.testing.assert_close(warm.sum(1), torch.ones(2))
    assert torch.equal(plain[1], warm[1]), "a label's classes are as learned"
    assert int(plain[0].argmax()) == int(warm[0].argmax()) and float(warm[0].max()) < float(plain[0].max())
    torch.testing.assert_close(bins.log_masses(free, around, edges, based), plain.log())


def test_what_a_world_says_follows_its_temperature() -> None:
    net, stays = tiny().net, some_stays()
    spread = []
    for temperature in (1.0, 1.3):
        with_temperature(net, temperature)
        with torch.no_grad():
            marginal = forced(net, stays).outcome.marginal
        ends = marginal.quantile(torch.tensor([0.1, 0.9]).expand(len(marginal.edges), -1))
        spread.append(float((ends[:, 1] - ends[:, 0]).mean()))
    assert spread[1] > 1.02 * spread[0]


def test_odd_temperatures_are_refused() -> None:
    for odd in (0.0, -1.0, 11.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            dataclasses.replace(SetOutcomeConfig(), temperature=odd)
    net = tiny().net
    with_temperature(net, 1.1)
    with pytest.raises(ValueError, match=r"has temperature 1\.1 already"):
        best_temperature([(net, some_stays())])
    assert TEMPERATURES[0] == 1.0
