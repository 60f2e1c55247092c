"""Death and discharge told by last values, learned from people and from simulated stays together."""

import dataclasses

import torch

from tests.ehr_world.test_train_orders import changed_by, few, people_net, weights
from tests.ehr_world.ward_small import CONFIG, words
from world_models.ehr_world.people import with_sources
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.train_ends import learn_ends

I = len(words().items)  # noqa: E741
EVERY = torch.ones(I, dtype=torch.bool)


def item(name: str) -> int:
    return [i.name for i in words().items].index(name)


def ends(net: SetOutcome, stays: Stays) -> torch.Tensor:
    with torch.no_grad():
        return forced(net, stays).end_logits


def by_chart(vocabulary=None) -> SetOutcome:
    config = dataclasses.replace(CONFIG, trends=True, repeats=True, deep_orders=False, ends_by_chart=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SetOutcome(config, vocabulary or words())


def charted_again(stays: Stays) -> Stays:
    """The same last values, each charted again at every later step."""
    value = stays.value.clone()
    for t in range(1, value.shape[1]):
        value[:, t] = torch.where(value[:, t].isnan(), value[:, t - 1], value[:, t])
    return stays._replace(value=value, asked=stays.asked | ~value.isnan(), delay=torch.zeros_like(stays.delay))


def test_how_often_a_value_is_charted_tells_nothing_of_an_end():
    stays = few()._replace(delay=torch.zeros_like(few().delay))
    often = charted_again(stays)
    assert int(often.asked.sum()) > 1.9 * int(stays.asked.sum())
    torch.testing.assert_close(ends(by_chart(), often), ends(by_chart(), stays), rtol=0, atol=1e-6)
    by_state = people_net()
    assert float((ends(by_state, often) - ends(by_state, stays)).abs().max()) > 1e-3


def test_the_source_tells_nothing_of_an_end_and_the_patient_does():
    net, stays = by_chart(with_sources(words(), ["one", "two"])), few()
    told = [stays._replace(static=torch.nn.functional.pad(stays.static, (0, 2), value=x)) for x in (0.0, 1.0)]
    assert torch.equal(*(ends(net, x) for x in told))
    older = told[0].static.clone()
    older[:, 0] += 30.0
    assert not torch.equal(ends(net, told[0]), ends(net, told[0]._replace(static=older)))


def test_a_head_is_learned_and_all_else_stays(tmp_path):
    """Of patients whose hearts beat fast all die in one step, of the others nobody; bicarbonate is not to be read."""
    net, which = people_net(), item("heart_rate_bpm")
    stays = few()
    fast = torch.arange(12) % 2 == 0
    value = torch.full_like(stays.value, float("nan"))
    value[..., which] = torch.where(fast, 150.0, 70.0).unsqueeze(1)
    value[..., item("bicarbonate_mmol_l")] = torch.where(fast, 10.0, 24.0).unsqueeze(1)
    alive = stays.valid.clone()
    alive[:, 1:] &= ~fast.unsqueeze(1)
    made = stays._replace(value=value, asked=~value.isnan(), delay=torch.zeros_like(stays.delay), alive=alive)
    made = made._replace(home=torch.zeros_like(stays.home), static=torch.zeros_like(stays.static))
    before, read = weights(net), EVERY.clone()
    read[item("bicarbonate_mmol_l")] = False
    learn_ends(net, lambda step: made, 96.0, read, made, 150, tmp_path)
    assert net.config.ends_by_chart
    own = {name: x for name, x in weights(net).items() if name.startswith("ends.")}
    assert changed_by(net, before | own) == set()
    death = torch.sigmoid(ends(net, made))[:, 1:, 0]
    assert float(death[fast].min()) > 0.9 and float(death[~fast].max()) < 0.1
    other = made.value.clone()
    other[..., item("bicarbonate_mmol_l")] += 9.0
    assert torch.equal(ends(net, made), ends(net, made._replace(value=other)))


def test_ends_that_are_rarer_among_simulated_patients_are_learned_as_peoples_are(tmp_path):
    """Of people one in three leaves in a step, of simulated patients nobody."""
    net, stays = people_net(), few()
    value = torch.full_like(stays.value, float("nan"))
    blank = stays._replace(value=value, asked=~value.isnan(), static=torch.zeros_like(stays.static))
    blank = blank._replace(alive=stays.valid.clone())
    third = (torch.arange(12).unsqueeze(1) + torch.arange(stays.valid.shape[1])) % 3 == 0
    people, made = blank._replace(home=third & stays.valid), blank._replace(home=torch.zeros_like(stays.home))
    learn_ends(net, lambda step: people, float(stays.valid.sum()), EVERY, made, 150, tmp_path)
    leaves = torch.sigmoid(ends(net, people))[:, 1:, 1][stays.valid[:, 1:]]
    assert 0.23 < float(leaves.mean()) < 0.43
