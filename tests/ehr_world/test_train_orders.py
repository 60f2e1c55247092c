"""Orders and uncharted results taught by simulated stays, people's network left as it is."""

import dataclasses

import torch

from tests.ehr_world.ward_small import CONFIG, some_stays, words
from world_models import checkpoint
from world_models.ehr_world.people import with_sources
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.train_orders import learn_effects, learn_uncharted, unread
from world_models.ehr_world.train_people import Learned, People, PeopleRecipe, learn_from_simulated


def people_net(**changed) -> SetOutcome:
    """A network with first weights, of the form that is taught what orders do."""
    config = dataclasses.replace(CONFIG, trends=True, repeats=True, deep_orders=False, **changed)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SetOutcome(config, words())


def median(net: SetOutcome, stays: Stays, recorded: bool = False) -> torch.Tensor:
    with torch.no_grad():
        marginal = forced(net, stays, recorded).outcome.marginal
        return marginal.quantile(torch.full((len(marginal.edges),), 0.5))


def location(net: SetOutcome, stays: Stays, recorded: bool) -> torch.Tensor:
    with torch.no_grad():
        return forced(net, stays, recorded).outcome.marginal.around.location


def weights(net: SetOutcome) -> dict[str, torch.Tensor]:
    return {name: x.detach().clone() for name, x in net.named_parameters()}


def changed_by(net: SetOutcome, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, x in net.named_parameters() if not torch.equal(x, before[name])}


def few() -> Stays:
    return Stays(*(x[:12] for x in some_stays()))


def test_orders_act_by_the_table_alone_and_a_records_orders_by_their_gains():
    net, stays = people_net(recorded_gain=(0.0,) * len(words().treatments)), few()
    with torch.no_grad():
        net.effect.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    none = stays._replace(given=torch.zeros_like(stays.given))
    for recorded in (True, False):
        same = torch.equal(location(net, stays, recorded), location(net, none, recorded))
        assert same == recorded
    with torch.no_grad():
        net.effect.weight.zero_()
    assert torch.equal(location(net, stays, False), location(net, none, False))  # nothing else reads them


def test_an_order_moves_all_that_is_said_the_last_report_too():
    """However much of the mass lies on the last report, or in bins that free logits raise."""
    net, stays = people_net(), few()
    first = stays._replace(given=torch.zeros_like(stays.given))
    order, item = 4, int((~stays.value.isnan()).sum((0, 1))[: len(words().items)].argmax())
    assert not words().is_label()[item]
    with torch.no_grad():
        net.out.bias[-1] = 6.0  # nearly all of it
        net.effect.weight.view(len(words().items), 5, -1)[item, 0, order] = 0.1  # times EFFECT_GAIN: in the step itself
    given = first.given.clone()
    given[..., order] = net.largest[order]
    slots = forced(net, first, False)
    here, count = slots.item == item, int((slots.item == item).sum())
    step = median(net, first._replace(given=given)) - median(net, first)
    assert count > 10
    torch.testing.assert_close(step[here], torch.full((count,), 0.8), rtol=0, atol=2e-3)
    assert not step[~here].any()


def test_effects_pass_over_from_a_twin_and_nothing_else_does(tmp_path):
    net = people_net(recorded_gain=(0.0,) * len(words().treatments))
    before = weights(net)
    learn_effects(net, few(), 3, tmp_path)
    assert changed_by(net, before) == {"effect.weight", "effect_slope.weight"}
    assert not net.recorded_gain.any()


def test_uncharted_results_change_their_own_rows_alone(tmp_path):
    net, items = people_net(), torch.zeros(len(words().items), dtype=torch.bool)
    charted = (~few().value.isnan() & few().asked).sum((0, 1))
    items[charted.argmax()] = True
    before = weights(net)
    learn_uncharted(net, few(), items, 3, tmp_path)
    assert changed_by(net, before) <= {f"{n}.weight" for n in ("gain", "item", "out_item", "delay_class")} | {
        "trend_gain.weight",
        "pull.weight",
    }
    for name in ("gain", "item", "out_item"):
        rows = (getattr(net, name).weight != before[f"{name}.weight"]).any(1)
        assert torch.equal(rows, items), name


def test_what_is_not_read_changes_nothing_and_who_lacks_it_is_foretold_as_before():
    net, stays = people_net(), few()
    items = torch.zeros(len(words().items), dtype=torch.bool)
    items[3] = True
    context = torch.tensor([s.name.startswith("complaint") for s in words().static])
    lacking = torch.where(context, float("nan"), stays.static)
    without = stays._replace(static=lacking, asked=stays.asked & ~items)
    before = location(net, without, True)
    unread(net, items, context)
    torch.testing.assert_close(location(net, without, True), before, rtol=0, atol=1e-5)
    told = forced(net, without._replace(static=torch.where(context, 1.0, stays.static)))
    assert torch.equal(told.hidden, forced(net, without).hidden)
    other = stays.value + 5.0 * items
    assert torch.equal(forced(net, stays).hidden, forced(net, stays._replace(value=other)).hidden)


def test_what_people_never_chart_is_found_and_told(tmp_path):
    stays = few()
    items = torch.arange(len(words().items)) == 5
    people = Stays(*(torch.cat([x] * 12) for x in stays))
    people = people._replace(value=torch.where(items, float("nan"), people.value))
    net = people_net(recorded_gain=(0.0,) * len(words().treatments))
    net = SetOutcome(net.config, with_sources(words(), ["one"]))
    told = people._replace(static=torch.nn.functional.pad(people.static, (0, 1), value=1.0))
    sets = {"one": Learned([told], True)}
    recipe = PeopleRecipe(effects=1, uncharted=1)
    card = learn_from_simulated(net, People(net.vocabulary, sets, {}, {}, []), stays, recipe, tmp_path)
    assert words().items[5].name in card and f"{len(stays.static)} simulated" in card
    assert not net.recorded_gain.any() and bool(net.effect.weight.any())
    assert (tmp_path / "effects.safetensors").exists() and checkpoint.CARD not in [p.name for p in tmp_path.iterdir()]
