"""Clots on the ward: who gets them, what heparin leaves of them, what they do, and what heparin costs."""

from __future__ import annotations

import pytest
import torch

from world_models import keys, tree
from world_models.oracles.ward.body.blood import opens_per_h
from world_models.oracles.ward.body.thrombosis import Lying, advance_clots, left_by_heparin, strike, thrombosis_per_h
from world_models.oracles.ward.luck import Luck
from world_models.oracles.ward.state import Clots
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import ORDERS, order_index

HOURLY = WardOracle("pneumonia", hours_per_step=1)
COUNT = 32


def admitted(count: int = 64, seed: int = 5, world: WardOracle = HOURLY, **factors: float):
    return world.initial(keys.from_seed(seed, count), {n: torch.full((count,), v) for n, v in factors.items()})


def lying(count: int, ventilated: float = 0.0, line: float = 0.0) -> Lying:
    return Lying(torch.full((count,), ventilated), torch.full((count,), line))


def on_heparin(state, level: float):
    return state._replace(blood=state.blood._replace(heparin=torch.full_like(state.blood.heparin, level)))


def test_the_old_the_still_the_inflamed_and_those_with_a_line_are_at_more_risk() -> None:
    base = thrombosis_per_h(admitted(severity=0.3, age_years=60.0), lying(64))
    for more in (
        thrombosis_per_h(admitted(severity=0.3, age_years=85.0), lying(64)),
        thrombosis_per_h(admitted(severity=0.9, age_years=60.0), lying(64)),
        thrombosis_per_h(admitted(severity=0.3, age_years=60.0), lying(64, ventilated=1.0)),
        thrombosis_per_h(admitted(severity=0.3, age_years=60.0), lying(64, line=1.0)),
    ):
        assert float(more.mean()) > 1.2 * float(base.mean())


def test_heparin_leaves_less_the_more_there_is() -> None:
    """Rates as the infusion settles: U/kg/h over 36 is U/mL. 6 leaves the trial's 0.37, 18 a sixth."""
    left = left_by_heparin(torch.tensor([0.0, 3.0, 6.0, 18.0, 36.0]) / 36.0).tolist()
    assert left[0] == 1.0 and all(a > b for a, b in zip(left, left[1:], strict=False))
    assert 0.22 < left[2] < 0.63 and 0.10 < left[3] < 0.25
    state = admitted()
    free, given = (thrombosis_per_h(on_heparin(state, x), lying(64)) for x in (0.0, 6.0 / 36.0))
    torch.testing.assert_close(given / free, torch.full((64,), left[2]))


def test_a_clot_begins_as_often_as_its_hazard_says_and_heparin_keeps_it_away() -> None:
    count = 4000
    state = HOURLY.initial(keys.from_seed(6, 1))
    state = type(state)(*(_repeat(part, count) for part in state))._replace(key=keys.from_seed(7, count))
    t = torch.ones(count, dtype=torch.int64)
    hours = 400.0
    for level in (0.0, 0.17):
        now = on_heparin(state, level)
        expected = float((1.0 - (-thrombosis_per_h(now, lying(count)) * hours).exp()).mean())
        found = strike(now, Luck(now.key, t, 4), lying(count), hours)
        share = float((found.vein > 0).float().mean())
        assert share == pytest.approx(expected, abs=4.0 * (expected / count) ** 0.5)
        assert float(found.lung.max()) == 0.0, "what has just begun has not gone anywhere"
    assert torch.equal(
        strike(state, Luck(state.key, t, 4), lying(count), hours).vein[17:18], _alone(state, t, hours, 17)
    )


def _repeat(part, count: int):
    if isinstance(part, torch.Tensor):
        return part.expand(count, *part.shape[1:]).contiguous()
    return type(part)(*(_repeat(x, count) for x in part))


def _alone(state, t, hours: float, row: int):
    here = slice(row, row + 1)
    return strike(tree.take(state, here), Luck(state.key[here], t[here], 4), lying(1), hours).vein


def test_emboli_come_from_a_clot_and_take_a_part_of_it_along() -> None:
    count = 2000
    state = HOURLY.initial(keys.from_seed(9, count))
    full = state._replace(clots=Clots(torch.full((count,), 0.8), torch.zeros(count)))
    t = torch.ones(count, dtype=torch.int64)
    found = strike(full, Luck(full.key, t, 4), lying(count), 48.0)
    gone = found.lung > 0
    assert 0.05 < float(gone.float().mean()) < 0.25
    assert float(found.vein[gone].max()) < 0.8 - 0.2 and float(found.lung.max()) <= 0.8
    treated = strike(on_heparin(full, 0.5), Luck(full.key, t, 4), lying(count), 48.0)
    assert float((treated.lung > 0).float().sum()) < 0.35 * float(gone.float().sum())


def test_a_clot_grows_untreated_and_shrinks_under_heparin_and_emboli_dissolve() -> None:
    clots = Clots(torch.tensor([0.3, 0.3]), torch.tensor([0.5, 0.5]))
    for _ in range(96):
        clots = advance_clots(clots, torch.tensor([0.0, 0.5]), 0.5)
    assert float(clots.vein[0]) > 0.35 and float(clots.vein[1]) < 0.25
    assert 0.3 < float(clots.lung[0]) < 0.45 and float(clots.lung[0]) == float(clots.lung[1])
    none = advance_clots(Clots(torch.zeros(2), torch.zeros(2)), torch.tensor([0.0, 0.5]), 0.5)
    assert float(none.vein.abs().max()) == 0.0 == float(none.lung.abs().max())


def test_an_embolus_shows_in_oxygen_breathing_heart_and_markers_and_kills_when_large() -> None:
    world = WardOracle("diabetic-ketoacidosis", hours_per_step=4)
    sizes = (0.0, 0.3, 0.6)
    count = 32
    state = world.initial(keys.from_seed(11, count).repeat(3), {"severity": torch.full((3 * count,), 0.1)})
    lung = torch.tensor(sizes).repeat_interleave(count)
    state = state._replace(clots=Clots(torch.zeros_like(lung), lung))
    state = world.transition(state, torch.zeros(3 * count, len(ORDERS)))
    truth = world.truth(state)

    def by_size(name: str) -> list[float]:
        return truth[name].double().reshape(3, count).mean(-1).tolist()

    for name, rises in (
        ("signals_saturation", False),
        ("true_po2_mmhg", False),
        ("signals_flow", False),
        ("signals_map", False),
        ("signals_breaths", True),
        ("circulation_heart_rate", True),
        ("organs_troponin", True),
        ("organs_bnp", True),
        ("course_hazard_per_h", True),
    ):
        found = by_size(name)
        steps = [b - a if rises else a - b for a, b in zip(found, found[1:], strict=False)]
        assert min(steps) > 0, (name, found)
    small, large = by_size("course_hazard_per_h")[1:]
    assert large > 4.0 * small


def test_the_order_lowers_the_hazard_and_without_it_nothing_does() -> None:
    """Half a day of the same patients without heparin, at a prophylactic and at a therapeutic rate."""
    world, rates = WardOracle("pneumonia", hours_per_step=12), (0.0, 6.0, 18.0)
    state = world.initial(keys.from_seed(13, COUNT).repeat(3), {"severity": torch.full((3 * COUNT,), 0.3)})
    orders = torch.zeros(3 * COUNT, len(ORDERS))
    orders[:, order_index("heparin_units_kg_h")] = torch.tensor(rates).repeat_interleave(COUNT)
    before = thrombosis_per_h(state, lying(3 * COUNT)).reshape(3, COUNT)
    assert torch.equal(before[0], before[2])
    state = world.transition(state, orders)
    found = thrombosis_per_h(state, lying(3 * COUNT)).reshape(3, COUNT)
    none, prevented, treated = found.mean(-1).tolist()
    assert 0.22 < prevented / none < 0.63 and treated < 0.6 * prevented
    ratio = found[0] / before[0]
    assert float(ratio.min()) > 0.5, "illness may change it, but nothing prevents it"


def test_heparin_makes_anybody_bleed_more_often() -> None:
    state = admitted()
    nothing = torch.zeros(64)
    rates = [float(opens_per_h(on_heparin(state, x).blood, nothing).mean()) for x in (0.0, 0.17, 0.5)]
    assert rates[0] < rates[1] < rates[2]
    ten_days = [1.0 - 2.718281828 ** (-240.0 * r) for r in rates]
    assert 0.001 < ten_days[0] < 0.01 and 0.015 < ten_days[2] < 0.05
    suppressed = state.blood._replace(acid_suppression=torch.full((64,), 80.0))
    assert float(opens_per_h(suppressed, nothing).mean()) < rates[0]
