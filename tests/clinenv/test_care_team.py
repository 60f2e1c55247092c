"""The care team's table, charts and rules of settling: each without an environment around it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from clinenv.envs.care_team.charts import RESULTS, TREATMENTS, own_chart, places
from clinenv.envs.care_team.rights import (
    INTENSIVIST,
    NURSE,
    PHARMACIST,
    RIGHTS,
    ROLES,
    STANDING,
    columns,
    orders_of,
    standing,
)
from clinenv.envs.care_team.role_codec import RoleCodec
from clinenv.envs.care_team.settle import NOBODY, Word, settle
from clinenv.envs.care_team.task import WHOLE, CareTeamTask, TeamView
from clinenv.envs.care_team.team_env import CareTeamEnv
from clinenv.envs.ehr_ward.orders import DOSES, SWITCHES
from tests.toy_ward import ToyWard
from world_models import keys, tree
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, ORDERS, inquiry_index, order_index

CPU = torch.device("cpu")
A = len(ORDERS)
COLUMN = {order.name: i for i, order in enumerate(ORDERS)}
THINGS = ("order_it", "hold", "adjust")


def chart(count: int = 4, seed: int = 0, steps: int = 3):
    """Patients of whom every test was ordered and some things were given."""
    world = ToyWard(hazard=0.0, leaves=0.0)
    state = world.initial(keys.from_seed(seed, count))
    for t in range(steps):
        given = torch.tensor([float(q.high) for q in ORDERS]) * 0.3
        state = world.transition(state, given * (keys.uniform(state.key, t, "test", (A,)) < 0.5))
        state = world.transition(
            state, torch.tensor([1.0] * len(INQUIRIES) + [0.0] * len(INTERVENTIONS)).expand(count, A)
        )
    return world.observe(state)


def word(count: int = 1, orders: dict | None = None, holds: tuple = (), adjusts: dict | None = None) -> Word:
    said = Word(torch.zeros(count, A), torch.zeros(count, A, dtype=torch.bool), torch.zeros(count, A))
    for name, amount in (orders or {}).items():
        said.orders[:, COLUMN[name]] = amount
    for name in holds:
        said.holds[:, COLUMN[name]] = True
    for name, amount in (adjusts or {}).items():
        said.adjusts[:, COLUMN[name]] = amount
    return said


def settled(everything_stands: bool = True, **words: Word):
    said = {role: words.get(role, word()) for role in ROLES}
    return settle(said, torch.full((1, A), everything_stands))


def told(result) -> dict[str, tuple[float, str]]:
    given = result.orders[0].nonzero().flatten().tolist()
    return {ORDERS[c].name: (float(result.orders[0, c]), ROLES[int(result.by[0, c])]) for c in given}


# ---- the table


def test_every_order_is_somebodys_and_who_speaks_of_it_sees_it() -> None:
    assert [row.order for row in RIGHTS] == [order.name for order in ORDERS]
    for row, order in zip(RIGHTS, ORDERS, strict=True):
        assert row.order_it and {*row.order_it, *row.hold, *row.adjust} <= set(ROLES)
        for role in {*row.order_it, *row.hold, *row.adjust}:
            column = order_index(order.name)
            if column < len(INQUIRIES):
                assert INQUIRIES[column].name in RESULTS[role], f"the {role} orders {order.name} without seeing it"
            else:
                assert order.name in TREATMENTS[role]
        others = {*row.hold, *row.adjust}
        assert not others or len({*row.order_it, *others}) > 1, f"{order.name}: nobody to hold back or adjust"
    overlapping = [row.order for row in RIGHTS if len(row.order_it) > 1]
    assert {"vancomycin_mg", "oxygen_fraction", "inquire_potassium"} <= set(overlapping)
    for rule in STANDING:
        assert NURSE in RIGHTS[order_index(rule.order)].order_it and rule.measure in RESULTS[NURSE]
    with pytest.raises(ValueError, match="intensivist, pharmacist, nurse"):
        orders_of("surgeon", "hold")


def test_what_an_emergency_needs_nobody_holds_back() -> None:
    at_once = ("saline_ml", "ringers_lactate_ml", "norepinephrine_ug_kg_min", "vasopressin_units_min")
    at_once += ("red_cells_units", "plasma_units", "platelets_units", "oxygen_fraction", "ventilation_l_min")
    at_once += ("endoscopy", "renal_replacement_ml_kg_h", "calcium_gluconate_g", "dextrose_g")
    assert not [name for name in at_once if RIGHTS[COLUMN[name]].hold]


def test_the_page_is_the_table() -> None:
    page = CareTeamEnv.__doc__
    found: dict[str, tuple] = {}
    for names, *three in re.findall(r"^ *\|" + r"([^|\n]*)\|" * 4 + "$", page, re.MULTILINE):
        for name in names.split(","):
            if name.strip() in COLUMN:
                assert name.strip() not in found
                found[name.strip()] = tuple(tuple(x.strip() for x in part.split(",") if x.strip()) for part in three)
    assert found == {row.order: (row.order_it, row.hold, row.adjust) for row in RIGHTS}
    unseen: dict[str, set[str]] = {role: set() for role in ROLES}
    for role, names in re.findall(r"^ *\| (intensivist|pharmacist|nurse) \|([^|\n]*)\|$", page, re.MULTILINE):
        unseen[role] |= {name.strip() for name in names.split(",")}
    for role in ROLES:
        hidden = {q.name for q in INQUIRIES} - set(RESULTS[role]) | {q.name for q in INTERVENTIONS} - set(
            TREATMENTS[role]
        )
        assert unseen[role] == hidden, role
        for rule in STANDING:
            assert f"{rule.limit:g}" in page.split("by standing order")[1].split("At last")[0]
    switches = {role: RoleCodec(role, SWITCHES, "scaled", CPU).space.n for role in ROLES}
    amounts = {role: RoleCodec(role, DOSES, "scaled", CPU).space.shape[0] for role in ROLES}
    assert "intensivist {intensivist}, pharmacist {pharmacist}, nurse {nurse} entries".format(**switches) in page
    assert "({intensivist}, {pharmacist} and {nurse} entries".format(**amounts) in page
    view = TeamView(ToyWard(), CareTeamTask())
    sizes = {role: len(layout) for role, layout in view.layouts.items()}
    assert "intensivist {intensivist}, pharmacist\n    {pharmacist}, nurse {nurse}.".format(**sizes) in page


# ---- charts


def test_a_chart_of_ones_own_is_the_ward_without_the_rest() -> None:
    whole = chart()
    view = TeamView(ToyWard(), CareTeamTask())
    for role in ROLES:
        mine = own_chart(role, whole)
        for i, q in enumerate(INQUIRIES):
            if q.name in RESULTS[role]:
                assert torch.equal(mine[q.name], whole[q.name])
                assert torch.equal(mine["inquiry_seen"][:, i], whole["inquiry_seen"][:, i])
            else:
                assert bool((mine[q.name] == q.typical).all()) and not mine["inquiry_seen"][:, i].any()
                assert whole["inquiry_seen"][:, i].all(), "there was something to hide"
        for j, q in enumerate(INTERVENTIONS):
            seen = q.name in TREATMENTS[role]
            assert torch.equal(mine["treatment_share"][:, j], whole["treatment_share"][:, j] * seen)
        assert not [name for name in view.layouts[role].names if name.split("[")[0] not in whole]
        assert places(role, view.layout.names) == sorted(places(role, view.layout.names))
    every = set().union(*(view.layouts[role].names for role in ROLES))
    assert every == set(view.layout.names), "somebody sees each entry"
    with pytest.raises(ValueError, match="surgeon"):
        own_chart("surgeon", whole)


def test_an_observation_says_what_is_in_the_chart() -> None:
    task, world = CareTeamTask(), ToyWard(hazard=0.0)
    view = TeamView(world, task)
    row = torch.arange(len(view.layout), dtype=torch.float32).expand(2, -1)
    shown = view.show(row, None, {})
    for role in ROLES:
        assert shown[role].shape == view.spaces[role].sample()[None].repeat(2, 0).shape
        names = [view.layout.names[int(i)] for i in shown[role][0]]
        assert names == list(view.layouts[role].names)
    assert torch.equal(shown[WHOLE], row)
    said = view.describe({NURSE: np.zeros(len(view.layouts[NURSE]), np.float32)})
    assert said[NURSE]["map_mmhg"] == pytest.approx(87.5) and "sodium_mmol_l" not in said[NURSE]
    with pytest.raises(ValueError, match="intensivist, pharmacist, nurse"):
        view.describe(np.zeros(3))


# ---- settling


def test_a_hold_beats_every_order_and_an_adjustment_needs_one() -> None:
    order = {"metoprolol_mg": 5.0}
    assert told(settled(intensivist=word(orders=order))) == {"metoprolol_mg": (5.0, INTENSIVIST)}
    for role in (PHARMACIST, NURSE):
        held = settled(intensivist=word(orders=order), **{role: word(holds=("metoprolol_mg",))})
        assert told(held) == {} and int(held.by[0, COLUMN["metoprolol_mg"]]) == NOBODY
        assert bool(held.held[role][0, COLUMN["metoprolol_mg"]]) and bool(held.ordered[INTENSIVIST].any())
    assert not settled(pharmacist=word(holds=("metoprolol_mg",))).held[PHARMACIST].any(), "there was nothing to hold"
    smaller = settled(intensivist=word(orders=order), pharmacist=word(adjusts={"metoprolol_mg": 2.5}))
    assert told(smaller) == {"metoprolol_mg": (2.5, INTENSIVIST)}
    assert bool(smaller.changed[INTENSIVIST].any()) and bool(smaller.adjusted[PHARMACIST].any())
    assert told(settled(pharmacist=word(adjusts={"metoprolol_mg": 2.5}))) == {}
    titrated = settled(
        intensivist=word(orders={"norepinephrine_ug_kg_min": 0.1}),
        nurse=word(adjusts={"norepinephrine_ug_kg_min": 0.2}),
    )
    assert told(titrated)["norepinephrine_ug_kg_min"] == (pytest.approx(0.2), INTENSIVIST)


def test_of_several_amounts_the_pharmacists_counts_then_the_intensivists() -> None:
    three = {"vancomycin_mg": 1250.0}
    both = settled(intensivist=word(orders=three), pharmacist=word(orders={"vancomycin_mg": 750.0}))
    assert told(both) == {"vancomycin_mg": (750.0, PHARMACIST)}
    assert bool(both.changed[INTENSIVIST].any()) and not both.changed[PHARMACIST].any()
    oxygen = settled(intensivist=word(orders={"oxygen_fraction": 0.6}), nurse=word(orders={"oxygen_fraction": 0.3}))
    assert told(oxygen)["oxygen_fraction"] == (pytest.approx(0.6), INTENSIVIST)


def test_what_is_not_ones_own_is_not_heard() -> None:
    everything = {q.name: float(q.high) for q in ORDERS}
    for role in ROLES:
        given = told(settled(**{role: word(orders=everything)}))
        assert set(given) == set(orders_of(role, "order_it"))
        only = settled(**{role: word(holds=tuple(COLUMN))}, **{r: word(orders=everything) for r in ROLES if r != role})
        assert {ORDERS[c].name for c in only.held[role][0].nonzero().flatten().tolist()} == {
            name for name in orders_of(role, "hold") if set(RIGHTS[COLUMN[name]].order_it) - {role}
        }
    assert set(told(settled(**{role: word(orders=everything) for role in ROLES}))) == set(COLUMN)


def test_the_nurse_keeps_to_the_standing_orders() -> None:
    now = chart(count=3)
    now["inquiry_seen"][:, inquiry_index("spo2_percent")] = torch.tensor([1.0, 1.0, 0.0])
    now["spo2_percent"] = torch.tensor([90.0, 97.0, 90.0])
    now["treatment_share"][:] = 0.0
    assert standing(now)[:, COLUMN["oxygen_fraction"]].tolist() == [True, False, False], "only what is charted counts"
    now["treatment_share"][1:, INTERVENTIONS.index(next(q for q in INTERVENTIONS if q.name == "oxygen_fraction"))] = 0.4
    assert bool(standing(now)[:, COLUMN["oxygen_fraction"]].all()), "what runs may be titrated"
    asked = word(orders={"oxygen_fraction": 0.4, "inquire_map": 1.0})
    barred = settled(everything_stands=False, nurse=asked)
    assert told(barred) == {} and int(barred.beyond[NURSE].sum()) == 2
    other = standing(now)
    rest = [c for c in range(A) if ORDERS[c].name not in {row.order for row in STANDING}]
    assert bool(other[:, rest].all())


def test_a_row_is_settled_as_alone() -> None:
    count = 6
    key = keys.from_seed(3, count)
    now = chart(count)
    words = {}
    for i, role in enumerate(ROLES):
        u = keys.uniform(key, i, "test", (3 * A,))
        high = torch.tensor([float(q.high) for q in ORDERS])
        words[role] = Word(
            (u[:, :A] < 0.4) * high * u[:, :A], u[:, A : 2 * A] < 0.2, (u[:, 2 * A :] < 0.3) * high * 0.5
        )
    together = settle(words, standing(now))
    assert bool(together.orders.any(0).sum() > 30)
    for row in range(count):
        only = slice(row, row + 1)
        alone = settle(tree.take(words, only), standing(tree.take(now, only)))
        for x, y in zip(tree.leaves(alone), tree.leaves(tree.take(together, only)), strict=True):
            assert torch.equal(x, y)


# ---- actions of one


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("unit", ["switches", "scaled", "units"])
def test_an_action_says_what_its_labels_say(role: str, unit: str) -> None:
    actions = SWITCHES if unit == "switches" else DOSES
    codec = RoleCodec(role, actions, "scaled" if unit == "switches" else unit, CPU)
    things = THINGS[:2] if unit == "switches" else THINGS
    labels = [{"order_it": "", "hold": "hold ", "adjust": "adjust "}[t] + n for t in things for n in orders_of(role, t)]
    assert codec.labels == labels and codec.space.shape == (len(labels),)
    for entry, label in enumerate(labels):
        action = np.zeros((1, len(labels)), np.float32)
        kind, _, name = label.rpartition(" ")
        highest = (SWITCHES.standard if unit == "switches" else DOSES.highest)[name]
        amount = 1.0 if kind == "hold" else highest
        action[0, entry] = amount if unit == "units" else 1.0
        said = codec(action, 1)
        part = {"": said.orders, "hold": said.holds, "adjust": said.adjusts}[kind]
        assert float(part[0, COLUMN[name]]) == pytest.approx(amount)
        assert sum(int((x != 0).sum()) for x in said) == 1
        np.testing.assert_allclose(codec.encode(said).numpy(), action, rtol=1e-6)
    for wrong in (None, "orders", np.zeros(3), np.full((1, len(labels)), np.nan), np.full((1, len(labels)), 7000.0)):
        with pytest.raises(ValueError, match=role):
            codec(wrong, 1)


def test_a_mask_forbids_what_the_ward_and_the_standing_orders_forbid() -> None:
    now = chart(5, seed=4)
    allowed = keys.uniform(keys.from_seed(0, 5), 0, "test", (A,)) < 0.5
    for role in ROLES:
        codec = RoleCodec(role, DOSES, "scaled", CPU)
        mask = codec.mask(allowed, now)
        for entry, label in enumerate(codec.labels):
            kind, _, name = label.rpartition(" ")
            wanted = allowed[:, COLUMN[name]]
            if kind == "hold":
                wanted = torch.ones_like(wanted)
            elif role == NURSE and kind == "":
                wanted = wanted & standing(now)[:, COLUMN[name]]
            assert torch.equal(mask[:, entry].bool(), wanted), label
        assert mask.dtype == torch.int8
    assert int(columns(NURSE, "hold", CPU).sum()) == len(orders_of(NURSE, "hold"))
