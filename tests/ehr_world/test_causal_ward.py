"""The causal language model as a ward: the contract, its cache and window, its luck, and starting from a record."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.testing import check_simulator
from tests.ehr_world.causal_ward_small import narratives, small
from tests.ehr_world.ward_small import some_stays
from world_models import keys, tree
from world_models.ehr_world.causal_lm.cache import EMPTY
from world_models.ehr_world.causal_lm.text import STATUS, AskedItem
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.causal_lm.ward.forecast import Forecast
from world_models.ehr_world.causal_lm.ward.narratives import charted_stay, step_of
from world_models.ehr_world.causal_lm.ward.state import CausalWardState
from world_models.ehr_world.causal_lm.ward.tables import tables_of
from world_models.ehr_world.causal_lm.ward.world import CausalWard
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, NEVER, Stays, charted
from world_models.protocol import HasWeights, History, LearnedWorld
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, inquiry_index
from world_models.testing import check_world, random_orders

pytestmark = pytest.mark.slow  # networks are trained

STEPS = 12  # a window of the small world is full after about eight


def course(world: CausalWard, key: Tensor, steps: int = STEPS, given: float = 0.4) -> list[CausalWardState]:
    """States under random orders, which are functions of the keys."""
    states = [world.initial(key)]
    for t in range(steps):
        states.append(world.transition(states[-1], random_orders(world, key, t, given=given)))
    return states


def assert_alike(world: CausalWard, a: CausalWardState, b: CausalWardState, sd: bool = True) -> None:
    """The same words, and the same chart but for rounding."""
    assert torch.equal(a.stream.tokens, b.stream.tokens)
    for x, y in zip(tree.leaves(world.observe(a)), tree.leaves(world.observe(b)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-3)
    if sd:
        torch.testing.assert_close(a.sd, b.sd, rtol=1e-4, atol=1e-3)


def test_it_keeps_the_contract() -> None:
    world = small()
    assert isinstance(world, LearnedWorld) and isinstance(world, HasWeights)
    check_world(world, batch=5, steps=4, relative=1e-4, absolute=1e-3)
    check_simulator(Simulator(world, EHRWardTask()), batch=4, exact=False)


def test_so_does_one_that_writes_text() -> None:
    world = small("text", at_once=2)
    check_world(world, batch=3, steps=1, relative=1e-4, absolute=1e-3)
    state = course(world, keys.from_seed(3, 2), 1)[-1]
    assert world.spread(state) == {}, "of text no forecast is at hand"
    assert bool(state.seen.any())


def test_a_cache_gives_what_reading_anew_gives_beyond_a_full_window() -> None:
    world, forgetful = small(), small(cache=False)
    key = keys.from_seed(8, 3)
    shortened = False
    for a, b in zip(course(world, key), course(forgetful, key), strict=True):
        assert_alike(world, a, b)
        assert b.stream.cache == () and int(b.stream.fed.max()) == 0
        shortened |= bool((a.stream.length < a.t * 30).any())
        width = a.stream.tokens.shape[1]
        beyond = (torch.arange(width) >= a.stream.fed.unsqueeze(1))[:, None, :, None]
        assert all(not bool((x * beyond).any()) for layer in a.stream.cache for x in layer)
    assert shortened, "no window was ever full"


def test_the_cache_holds_the_keys_and_values_of_its_tokens() -> None:
    world = small()
    state = course(world, keys.from_seed(8, 3), 5)[-1]
    for row in range(3):
        fed = int(state.stream.fed[row])
        ids = state.stream.tokens[row : row + 1, :fed]
        assert bool((ids != EMPTY).all())
        with torch.no_grad():
            plain = world.lm.model(input_ids=ids, use_cache=True).past_key_values
        for mine, theirs in zip(state.stream.cache, plain.layers, strict=True):
            torch.testing.assert_close(mine[0][row, :, :fed], theirs.keys[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(mine[1][row, :, :fed], theirs.values[0], rtol=1e-4, atol=1e-4)


def test_patients_of_any_age_live_side_by_side() -> None:
    """Rows that began later, as autoreset makes them, whatever is read at once."""
    world, key = small(), keys.from_seed(8, 3)
    states = course(world, key)
    old, young = states[-1], course(world, keys.from_seed(90, 1), 0)[-1]
    mixed = tree.put(old, torch.tensor([1]), young)
    action = random_orders(world, mixed.key, STEPS, given=0.4)
    action[1] = random_orders(world, young.key, 0, given=0.4)[0]
    for other in (world, small(at_once=2)):
        after = other.transition(mixed, action)
        assert_alike(world, tree.take(after, torch.tensor([1])), world.transition(young, action[1:2]))
        for row in (0, 2):
            alone = world.transition(tree.take(old, torch.tensor([row])), action[row : row + 1])
            assert_alike(world, tree.take(after, torch.tensor([row])), alone)


def test_the_luck_of_an_item_does_not_depend_on_what_else_was_ordered() -> None:
    """A model that knows nothing writes what luck says: the same with other orders, another with another key."""
    blind = small()
    lm = blind.lm
    held = [p.clone() for p in lm.model.parameters()]
    try:
        with torch.no_grad():
            for p in lm.model.parameters():
                p.zero_()
        state = blind.initial(keys.from_seed(40, 6))
        vitals = [i for i, q in enumerate(INQUIRIES) if q.kind == "vital"]
        many = torch.zeros(6, len(blind.orders))
        many[:, vitals] = 1.0
        few = many.clone()
        few[:, vitals[::2]] = 0.0
        few[:, len(INQUIRIES) + 3] = 0.5
        a, b = blind.transition(state, many), blind.transition(state, few)
        both = [i for i in vitals[1::2] if bool((a.value[:, i] != state.value[:, i]).any())]
        assert len(both) > 2 and torch.equal(a.value[:, vitals[1::2]], b.value[:, vitals[1::2]])
        other = blind.transition(blind.rekey(state, keys.fold(state.key, "other")), many)
        assert not torch.equal(other.value[:, both], a.value[:, both])
    finally:
        with torch.no_grad():
            for p, old in zip(lm.model.parameters(), held, strict=True):
                p.copy_(old)


def test_the_stay_told_holds_nothing_that_is_still_on_its_way() -> None:
    world = small()
    culture = inquiry_index("blood_culture")
    slow = world.tables._replace(delay=torch.zeros_like(world.tables.delay))
    slow.delay[:, 0] = 1.0
    slow.delay[culture] = torch.tensor([0.0, 0.0, 0.5, 0.5, *[0.0] * (NEVER - 3)])
    world = CausalWard(world.lm, slow, world.config)
    state = world.initial(keys.from_seed(5, 16))
    order = torch.zeros(16, len(world.orders))
    order[:, culture] = 1.0
    sent = world.transition(state, order)
    assert bool(sent.pending[:, culture].all())
    names = world.lm.codec.names
    ask, give = names.index("ask:blood_culture"), names.index("give:blood_culture")
    assert not bool((sent.stream.tokens == ask).any()) and bool((sent.stream.tokens == give).any(1).all())
    # a second order while one is out is refused, and the first comes when its delay says
    later = world.transition(world.transition(sent, order), order * 0)
    came = ~later.pending[:, culture]
    assert 0 < int(came.sum()) < 16 and torch.equal((later.stream.tokens == ask).any(1), came)
    assert bool((later.stream.tokens == give).sum(1).eq(1).all())
    assert torch.equal(world.transition(later, order * 0).pending[:, culture], torch.zeros(16, dtype=torch.bool))
    # another luck draws anew when it comes, and says nothing of what had come
    again = world.rekey(sent, keys.fold(sent.key, "again"))
    assert not torch.equal(again.due, sent.due) and int(again.due[:, culture].min()) == 3
    assert torch.equal(again.stream.tokens, sent.stream.tokens)
    for x, y in zip(tree.leaves(world.observe(again)), tree.leaves(world.observe(sent)), strict=True):
        assert torch.equal(x, y)


def test_training_tells_a_stay_as_the_world_does() -> None:
    items = len(INQUIRIES)
    gas, culture = inquiry_index("lactate_mmol_l"), inquiry_index("blood_culture")
    shape = (1, 5, items)
    asked, value = torch.zeros(shape, dtype=torch.bool), torch.full(shape, float("nan"))
    delay = torch.full(shape, -1, dtype=torch.int8)
    for place, item, number, late in ((1, gas, 2.5, 0), (1, culture, 2.0, 2), (3, culture, float("nan"), CENSORED)):
        asked[0, place, item], value[0, place, item], delay[0, place, item] = True, number, late
    there = torch.ones(1, 5, dtype=torch.bool)
    given = torch.zeros(1, 5, len(INTERVENTIONS))
    stays = Stays(some_stays().static[:1], torch.zeros(1, 6), asked, value, delay, given, there, ~there, there)
    steps = charted_stay(stays, charted(stays), 0, 4.0).steps
    assert [a.item for a in steps[0].asked] == [], "how the stay goes on is not asked at admission"
    assert steps[1].asked == (AskedItem("lactate_mmol_l", 2.5, None, "mmol/L"), AskedItem(STATUS, label="stays"))
    assert [g.item for g in steps[1].given] == ["blood_culture"]
    assert steps[3].asked[0] == AskedItem("blood_culture", label="mrsa")
    assert [g.item for g in steps[3].given] == ["blood_culture"] and len(steps[4].asked) == 1
    assert steps[2] == step_of(2, [AskedItem(STATUS, label="stays")], [], [0.0] * len(INTERVENTIONS))


def test_delays_are_frequencies_with_what_was_still_out() -> None:
    """Of four specimens two came after a step; one, out for one step when its stay ended, would have come later."""
    stays = some_stays()
    item = inquiry_index("sodium_mmol_l")
    asked, delay = torch.zeros_like(stays.asked[:4]), stays.delay[:4].clone()
    asked[:, 1, item] = True
    delay[:, 1, item] = torch.tensor([1, 1, 3, CENSORED], dtype=torch.int8)
    valid = torch.ones(4, stays.asked.shape[1], dtype=torch.bool)
    valid[3, 3:] = False
    few = tree.take(stays, slice(0, 4))._replace(asked=asked, delay=delay, valid=valid)
    found = tables_of(few).delay
    torch.testing.assert_close(found[item, :4], torch.tensor([0.0, 2 / 3, 0.0, 1 / 3]))
    torch.testing.assert_close(found.sum(-1), torch.ones(len(INQUIRIES)))
    delay[2, 1, item] = NEVER
    assert float(tables_of(few._replace(delay=delay)).delay[item, NEVER]) == pytest.approx(1 / 3)
    assert LAST_DELAY + 1 == NEVER


def test_a_record_told_to_it_goes_on_as_the_course_that_was_recorded() -> None:
    world, key = small(), keys.from_seed(61, 3)
    states, actions = [world.initial(key)], []
    for t in range(3):
        action = random_orders(world, key, t, given=0.25)
        actions.append(action)
        states.append(world.transition(states[-1], action))
    charts = [world.observe(s) for s in states]
    history = History(
        {name: torch.stack([c[name] for c in charts], 1) for name in charts[0]},
        torch.stack([*actions, torch.zeros_like(actions[0])], 1),
        torch.stack([c["hours"] for c in charts], 1),
    )
    inferred = world.infer(history, key)
    assert torch.equal(inferred.t, states[-1].t)
    assert torch.equal(inferred.stream.tokens, states[-1].stream.tokens), "told in the very words"
    for name, value in charts[-1].items():
        torch.testing.assert_close(world.observe(inferred)[name], value, rtol=1e-4, atol=1e-3, msg=name)
    action = random_orders(world, key, 3, given=0.25)
    a, b = world.transition(inferred, action), world.transition(states[-1], action)
    alike = (a.due == b.due).all(1) | ~states[-1].pending.any(1)
    assert bool(alike.any())
    assert_alike(world, tree.take(a, alike), tree.take(b, alike), sd=False)  # what was told was not foretold


def test_a_sparse_record_of_values_alone_is_enough() -> None:
    world = small()
    nan = float("nan")
    charts = {
        "heart_rate_bpm": torch.tensor([[110.0, nan, 90.0], [nan, nan, nan]]),
        "lactate_mmol_l": torch.tensor([[4.0, 3.0, nan], [nan, 2.0, nan]]),
        "age_years": torch.tensor([[60.0, 60.0, 60.0], [nan, nan, nan]]),
    }
    hours = torch.tensor([[0.0, 4.0, 12.0], [0.0, 8.0, 12.0]])
    actions = torch.zeros(2, 3, len(world.orders))
    actions[0, 0, len(INQUIRIES)] = 1000.0
    state = world.infer(History(charts, actions, hours), keys.from_seed(1, 2))
    chart = world.observe(state)
    assert chart["heart_rate_bpm"].tolist() == [90.0, 75.0] and chart["lactate_mmol_l"].tolist() == [3.0, 2.0]
    rate, lactate = inquiry_index("heart_rate_bpm"), inquiry_index("lactate_mmol_l")
    assert chart["inquiry_age_hours"][0, [rate, lactate]].tolist() == [0.0, 8.0]
    assert chart["treatment_age_hours"][0, 0] == 8.0 and float(state.t.float().mean()) == 3.0
    assert bool(world.support(state)[0]) and world.transition(state, actions[:, 0]).t.tolist() == [4, 4]
    with pytest.raises(ValueError, match="no inquiry of the ward"):
        world.infer(History({"age_years": charts["age_years"]}, actions, hours), keys.from_seed(1, 2))
    with pytest.raises(ValueError, match="whole steps"):
        world.infer(History(charts, actions, hours + torch.tensor([0.0, 1.0, 0.0])), keys.from_seed(1, 2))


def test_the_spread_of_a_forecast_is_that_of_the_values_it_decodes_to() -> None:
    codec = QuantileCodec.fit(narratives())
    forecast = Forecast(codec, torch.device("cpu"))
    item = inquiry_index("heart_rate_bpm")
    chance = torch.zeros(2, codec.size)
    chance[0, codec.ids["q2"]] = chance[0, codec.ids["q7"]] = 0.5
    chance[1, codec.ids["q4"]] = 1.0
    places = torch.linspace(0.0005, 0.9995, 1000).tolist()
    for row, tokens in enumerate((["q2", "q7"], ["q4"])):
        drawn = [codec.decode("heart_rate_bpm", [codec.ids[q]], u).value for q in tokens for u in places]
        sd = torch.tensor(drawn, dtype=torch.float64).std(unbiased=False)
        assert float(forecast.sd([item, item], chance)[row]) == pytest.approx(float(sd), rel=0.01)
    steps = [step for stay in narratives() for step in stay.steps]
    met = torch.tensor([a.value for step in steps for a in step.asked if a.item == "heart_rate_bpm"])
    assert float(forecast.prior[item]) == pytest.approx(float(met.std()), rel=0.1)


def test_a_window_that_cannot_hold_a_full_step_is_refused() -> None:
    with pytest.raises(ValueError, match="too narrow.*--window 256"):
        small(window=128)
    with pytest.raises(ValueError, match="448 positions"):
        small(window=1024)
