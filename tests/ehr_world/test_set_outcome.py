"""The network and the world: parallel pass against steps, the contract, belief from a record."""

from __future__ import annotations

import pytest
import torch

from tests.ehr_world.ward_small import some_stays, tiny
from world_models import keys, tree
from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.config import BACKBONES
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.losses import forced, stay_losses
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.vocabulary import from_z
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.protocol import History
from world_models.quantities.ward import INQUIRIES
from world_models.testing import check_world, random_orders

I = len(INQUIRIES)  # noqa: E741


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_contract(backbone: str) -> None:
    check_world(tiny(0, backbone), batch=4, steps=4, relative=1e-4, absolute=1e-3)


@pytest.mark.parametrize(("backbone", "people"), [("gru", False), ("gru", True), ("transformer", False)])
def test_teacher_forcing_equals_stepping(backbone: str, people: bool) -> None:
    """A stay that the world itself lived, read in one parallel pass, gives every prediction and its last state."""
    model = tiny(0, backbone, people)
    state = model.initial(keys.from_seed(9, 5))
    static, steps, states, answers = state.static, 6, [state], []
    records = {n: [] for n in ("asked", "value", "delay", "given")}

    def note(before, after, asked, given) -> None:
        came = after.seen & (after.drawn_step == after.t.unsqueeze(-1))
        held = after.pending & (after.pending_drawn_step == after.t.unsqueeze(-1))
        value = torch.where(came, after.value, after.pending_value)
        late = torch.where(came, 0, (after.pending_due_step - after.t.unsqueeze(-1)).clamp_max(15))
        records["asked"].append(asked)
        records["value"].append(torch.where(asked & (came | held), value, float("nan")))
        records["delay"].append(torch.where(asked & (came | held), late, 15).to(torch.int8))
        records["given"].append(given)

    note(state, state, state.seen | state.pending, state.given)
    for t in range(steps):
        action = random_orders(model, state.key, t, share=0.3, given=0.3)
        asked = (action[:, :I] >= 0.5) & ~state.pending
        row, item = asked.nonzero(as_tuple=True)
        answers.append((row, item, model.outcomes(state, state.t + 1, action[:, I:], row, item).marginal))
        state = model.transition(state, action)
        on = torch.ones_like(state.alive)
        state = state._replace(alive=on, home=~on)  # nobody leaves, so that every step is lived
        note(states[-1], state, asked, action[:, I:])
        states.append(state)
    there = torch.ones(5, steps + 1, dtype=torch.bool)
    stays = Stays(static, torch.zeros(5, 6), *(torch.stack(records[n], 1) for n in records), there, ~there, there)
    run = forced(model.net, stays)
    for t, (row, item, marginal) in enumerate(answers, start=1):
        mine = run.place == t
        order = (row * I + item).argsort()
        assert torch.equal(run.row[mine] * I + run.item[mine], (row * I + item)[order])
        found, wanted = run.outcome.marginal.take(mine), marginal.take(order)
        torch.testing.assert_close(found.log_mass, wanted.log_mass, rtol=1e-4, atol=1e-4)
        if people:
            torch.testing.assert_close(found.masses(), wanted.masses(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(run.hidden[:, -1], model.net.backbone.top(state.hidden), rtol=1e-4, atol=1e-5)
    chances = torch.stack([state.death_chance, state.home_chance], -1)
    torch.testing.assert_close(torch.sigmoid(run.end_logits[:, -1]), chances, rtol=1e-4, atol=1e-6)
    again = believe(model, stays, state.key, torch.zeros(5))
    torch.testing.assert_close(again.hidden, state.hidden, rtol=1e-4, atol=1e-5)
    assert torch.equal(again.drawn_step * again.seen, state.drawn_step * state.seen)
    torch.testing.assert_close(again.trend, state.trend, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone", "people"), [("gru", False), ("gru", True), ("transformer", False)])
def test_the_loss_is_finite_and_moves_every_weight(backbone: str, people: bool) -> None:
    net = tiny(0, backbone, people).net.requires_grad_(True)
    found = stay_losses(net, some_stays())
    sum(found).backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert not still
    assert all(bool((p.grad != 0).any()) for n, p in net.named_parameters() if n != "out_item.weight")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_who_has_died_or_left_stays_as_they_were(backbone: str) -> None:
    """Every leaf but the time, the log of amounts among them; those beside them go on as alone."""
    model = tiny(0, backbone)
    state = model.initial(keys.from_seed(9, 4))
    for t in range(3):
        state = model.transition(state, random_orders(model, state.key, t, share=0.3, given=0.3))
    on = torch.tensor([True, False, True, False])
    state = state._replace(
        alive=torch.tensor([True, False, True, True]), home=torch.tensor([False, False, False, True])
    )
    action = random_orders(model, state.key, 7, given=0.9)
    after = model.transition(state, action)
    for name, before, now in zip(state._fields, state, after, strict=True):
        if name not in ("t", "death_chance", "home_chance"):
            for a, b in zip(tree.leaves(tree.take(before, ~on)), tree.leaves(tree.take(now, ~on)), strict=True):
                assert torch.equal(a.nan_to_num(), b.nan_to_num()), name
    for chance in (after.death_chance, after.home_chance):
        assert not bool(chance[~on].any()) and bool((chance[on] > 0).all())
    assert bool((after.total_log[on] != state.total_log[on]).any()) and after.t.tolist() == [4] * 4
    alone = model.transition(tree.take(state, on), action[on])
    for a, b in zip(tree.leaves(tree.take(after, on)), tree.leaves(alone), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)


def test_the_spread_is_that_of_every_number_asked_at_once() -> None:
    """In passes over a few patients at a time, without a copy for each item: the same as slot by slot."""
    model = tiny()
    state = tree.repeat(model.initial(keys.from_seed(9, 1)), 150)
    state = state._replace(key=keys.fold(state.key, torch.arange(150)))
    for t in range(2):
        state = model.transition(state, random_orders(model, state.key, t, share=0.3, given=0.3))
    told, ends = model.spread(state), torch.tensor([0.1587, 0.8413]).expand(150, 2)
    numbers = [i for i, item in enumerate(model.vocabulary.items) if not item.labels]
    assert list(told) == [INQUIRIES[i].name for i in numbers]
    for i in numbers[::9]:
        item = torch.full((150,), i)
        outcome = model.outcomes(state, state.t + 1, torch.zeros_like(state.given), torch.arange(150), item)
        low, high = from_z(
            outcome.marginal.quantile(ends),
            model.net.scale[item].unsqueeze(1),
        ).T
        torch.testing.assert_close(told[INQUIRIES[i].name], (high - low) / 2, rtol=1e-4, atol=1e-5)


def test_draws_follow_the_heads_margins() -> None:
    model = tiny()
    state = tree.repeat(model.initial(keys.from_seed(3, 1)), 6000)
    state = state._replace(key=keys.fold(state.key, torch.arange(6000)))
    item = torch.full((6000,), [q.name for q in INQUIRIES].index("heart_rate_bpm"))
    row = torch.arange(6000)
    outcome = model.outcomes(state, state.t + 1, state.given, row, item)
    drawn = model._sample_values(outcome, row, item, model._chances(state.key, state.t + 1, "outcome"))
    z = model.net.z_of(drawn.unsqueeze(-1).expand(-1, I))[:, item[0]]
    share = torch.bincount(bins.bin_of(z, outcome.marginal.edges), minlength=outcome.marginal.log_mass.shape[1]) / 6000
    torch.testing.assert_close(share, outcome.marginal.log_mass[0].exp(), atol=0.02, rtol=0)


def recorded(steps: int = 7) -> tuple[History, dict]:
    """Charts and orders of the oracle ward."""
    world, charts, actions = WardOracle(), [], []
    state = world.initial(keys.from_seed(123, 4))
    for _ in range(steps):
        charts.append(world.observe(state))
        actions.append(clinician(charts[-1], key=state.key, t=state.t, variation=1.0))
        state = world.transition(state, actions[-1])
    charts.append(world.observe(state))
    actions.append(torch.zeros_like(actions[-1]))
    history = History(
        {n: torch.stack([c[n] for c in charts], 1) for n in charts[0]},
        torch.stack(actions, 1),
        torch.stack([c["hours"] for c in charts], 1),
    )
    return history, charts[-1]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_infer_shows_the_recorded_chart_at_the_branching_point_exactly(backbone: str) -> None:
    model = tiny(0, backbone)
    history, last = recorded()
    state = model.infer(history, keys.from_seed(5, 4))
    shown = model.observe(state)
    assert set(shown) == set(last) and state.t.tolist() == [7] * 4
    for name, value in last.items():
        # ages are differences of hours: exact to float32's rounding at a few hundred hours
        torch.testing.assert_close(shown[name], value, rtol=1e-6, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")
    for name in (*(q.name for q in INQUIRIES), "inquiry_seen", "inquiry_pending"):
        assert torch.equal(shown[name], last[name]), name
    after = model.transition(state, history.actions[:, 0])
    assert after.t.tolist() == [8] * 4


def test_infer_ignores_padding_by_gaps_and_refuses_what_runs_backwards() -> None:
    model = tiny()
    history, _ = recorded(4)
    with pytest.raises(ValueError, match="grow by a step"):
        model.infer(history._replace(hours=history.hours.flip(1)), keys.from_seed(5, 4))
    with pytest.raises(ValueError, match="off: regrid"):
        model.infer(history._replace(hours=history.hours * 1.2), keys.from_seed(5, 4))
    with pytest.raises(ValueError, match="no inquiry"):
        model.infer(history._replace(charts={"hours": history.hours}), keys.from_seed(5, 4))


def test_infer_from_bare_values() -> None:
    """A history of values alone, NaN where nothing was measured."""
    value = torch.tensor([[80.0, float("nan"), 95.0]])
    history = History({"heart_rate_bpm": value}, torch.zeros(1, 3, I + 30), torch.tensor([[0.0, 4.0, 8.0]]))
    shown = tiny().observe(tiny().infer(history, keys.from_seed(1, 1)))
    assert float(shown["heart_rate_bpm"]) == 95.0 and float(shown["inquiry_seen"].sum()) == 1.0
    earlier = History({"heart_rate_bpm": value[:, :2]}, history.actions[:, :2], history.hours[:, :2])
    shown = tiny().observe(tiny().infer(earlier, keys.from_seed(1, 1)))
    assert float(shown["heart_rate_bpm"]) == 80.0 and float(shown["inquiry_age_hours"].amin()) == 4.0


def test_rekey_redraws_what_is_on_its_way_and_keeps_the_chart() -> None:
    model = tiny()
    history, _ = recorded()
    state = model.infer(tree.repeat(history, 8), keys.from_seed(5, 32))
    other = model.rekey(state, keys.from_seed(99, 32))
    assert bool(state.pending.any())
    assert not torch.equal(state.pending_value, other.pending_value)
    assert all(
        torch.equal(a, b) for a, b in zip(model.observe(state).values(), model.observe(other).values(), strict=True)
    )
    assert bool((other.pending_due_step > other.t.unsqueeze(-1))[other.pending].all())


def test_generated_patients_follow_what_is_given() -> None:
    model = tiny()
    age = torch.full((20,), 44.0)
    chart = model.observe(model.initial(keys.from_seed(2, 20), {"age_years": age}))
    assert torch.equal(chart["age_years"], age)
    assert bool((chart["complaint"].sum(-1) == 1).all())
    with pytest.raises(ValueError, match="age_years"):
        model.initial(keys.from_seed(2, 1), {"age_years": torch.tensor([400.0])})


def test_a_loss_over_an_expected_count_adds_up_whatever_the_batches() -> None:
    """Stays sorted by length into batches weigh as they do together: who dies early does not count for more."""
    net, stays = tiny().net, some_stays()
    order = stays.valid.sum(1).argsort()
    whole = stay_losses(net, stays, 100.0)
    halves = [stay_losses(net, tree.take(stays, rows), 100.0) for rows in order.chunk(2)]
    for name, total, *pieces in zip(whole._fields, whole, *halves, strict=True):
        torch.testing.assert_close(total, sum(pieces), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_an_interventions_straight_way_moves_its_item_alone() -> None:
    """The table of effects reaches an item's prediction by what was given since its last value."""
    model = tiny()
    with torch.no_grad():
        for p in model.net.parameters():
            p.zero_()
        model.net.out.bias[model.vocabulary.bins + 1] = -2.0
        heart, dose = [q.name for q in INQUIRIES].index("heart_rate_bpm"), 25
        model.net.effect.weight[heart, 30 + dose] = 0.1  # summed since the last value
    state = model.initial(keys.from_seed(3, 2))
    given = torch.zeros(2, 30)
    given[0, dose] = model.net.largest[dose]
    state = model.transition(state, torch.cat([torch.zeros(2, I), given], -1))
    row, item = torch.tensor([0, 0, 1]), torch.tensor([heart, heart + 1, heart])
    outcome = model.outcomes(state, state.t + 1, torch.zeros(2, 30), row, item)
    z = outcome.marginal.quantile(torch.full((3,), 0.5))
    plain = model.outcomes(state._replace(total_log=state.total_log * 0), state.t + 1, torch.zeros(2, 30), row, item)
    without = plain.marginal.quantile(torch.full((3,), 0.5))
    assert float(z[0] - without[0]) == pytest.approx(0.8, abs=0.25)
    torch.testing.assert_close(z[1:], without[1:])
