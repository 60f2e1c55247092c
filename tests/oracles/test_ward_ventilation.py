"""The ventilator of the ward: PEEP and pressures, what they open, what they cost the heart, what they injure."""

from __future__ import annotations

import pytest
import torch

from world_models import keys, tree
from world_models.oracles.ward.body.respiration import advance_muscles
from world_models.oracles.ward.body.ventilation import PEEP_CMH2O, advance_injury, machine_of, peep_of
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import ORDERS, order_index

COUNT = 32
WORLD = WardOracle("pneumonia", hours_per_step=4)


def orders(count: int, **amounts: float) -> torch.Tensor:
    action = torch.zeros(count, len(ORDERS))
    for name, amount in amounts.items():
        action[:, order_index(name)] = amount
    return action


def alive(state):
    one = torch.ones_like(state.course.alive)
    return state._replace(course=state.course._replace(alive=one, discharged=one * 0))


def after(steps: int, state, **amounts: float):
    for _ in range(steps):
        state = alive(WORLD.transition(state, orders(len(state.key), **amounts)))
    return state


def arms(state, steps: int, *each: dict[str, float]):
    """The same patients under each of these orders, in one batch: a state an arm."""
    rows = torch.arange(COUNT).repeat(len(each))
    state = tree.take(state, rows)
    action = torch.cat([orders(COUNT, **amounts) for amounts in each])
    for _ in range(steps):
        state = alive(WORLD.transition(state, action))
    return [tree.take(state, slice(arm * COUNT, (arm + 1) * COUNT)) for arm in range(len(each))]


@pytest.fixture(scope="module")
def pneumonia():
    return WORLD.initial(keys.from_seed(21, COUNT), {"severity": torch.full((COUNT,), 0.6)})


@pytest.fixture(scope="module")
def ventilated(pneumonia):
    """Four hours at inspired fractions of 0.4, 0.7 and 1, at minute volumes of 6, 10 and 16 L/min, and without."""
    oxygen = [{"ventilation_l_min": 8.0, "oxygen_fraction": x} for x in (0.4, 0.7, 1.0)]
    volume = [{"ventilation_l_min": x, "oxygen_fraction": 0.5} for x in (6.0, 10.0, 16.0)]
    found = arms(pneumonia, 1, *oxygen, *volume, {"oxygen_fraction": 0.7}, {"oxygen_fraction": 0.5})
    return found[:3], found[3:6], found[6], found[7]


def test_peep_is_the_ards_networks_lower_table() -> None:
    """Of each inspired fraction the table allows these."""
    fractions = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    allowed = ((5, 5), (5, 8), (8, 10), (10, 10), (10, 14), (14, 14), (14, 18), (18, 24))
    for fraction, (low, high) in zip(fractions, allowed, strict=True):
        assert low - 1e-4 <= peep_of(torch.tensor([fraction])).item() <= high + 1e-4, fraction
    assert peep_of(torch.tensor([0.21])).item() == 5.0 and dict(PEEP_CMH2O)[1.0] == 18.0


def test_without_the_order_there_is_no_pressure_and_no_injury(ventilated) -> None:
    state = ventilated[3]
    for name in ("peep", "plateau", "driving", "tidal_ml_kg"):
        assert float(getattr(state.signals, name).abs().max()) == 0.0
    assert float(state.lungs.injury.max()) == 0.0 == float(state.lungs.disuse.max())


def test_more_volume_means_more_pressure_less_carbon_dioxide_and_more_injury(ventilated) -> None:
    found = ventilated[1]
    for read, rises in (
        (lambda s: s.signals.driving, True),
        (lambda s: s.signals.plateau, True),
        (lambda s: s.signals.tidal_ml_kg, True),
        (lambda s: s.lungs.injury, True),
        (lambda s: s.lungs.pco2, False),
    ):
        means = [float(read(s).mean()) for s in found]
        steps = [b - a if rises else a - b for a, b in zip(means, means[1:], strict=False)]
        assert min(steps) > 0, means
    one = found[1].signals
    torch.testing.assert_close(one.plateau, one.peep + one.driving)
    assert 5.5 < float(one.tidal_ml_kg.mean()) < 9.0 and 8.0 < float(one.driving.mean()) < 22.0


def test_a_stiffer_lung_and_a_smaller_person_meet_more_driving_pressure(pneumonia) -> None:
    volume, oxygen = torch.full((COUNT,), 8.0), torch.full((COUNT,), 0.5)
    clear = pneumonia.lungs._replace(consolidation=torch.zeros(COUNT), water=torch.zeros(COUNT))
    open_lung = machine_of(clear, pneumonia.person, volume, oxygen)
    stiff = machine_of(pneumonia.lungs, pneumonia.person, volume, oxygen)
    assert bool((stiff.driving > open_lung.driving).all()) and 5.0 < float(open_lung.driving.mean()) < 10.0
    order = pneumonia.person.predicted_kg.argsort()
    assert float(open_lung.driving[order[0]]) > float(open_lung.driving[order[-1]])


def test_peep_opens_lung_and_costs_flow(pneumonia, ventilated) -> None:
    by_oxygen, _, plain, _ = ventilated
    volume = torch.full((COUNT,), 8.0)
    low, high = (machine_of(pneumonia.lungs, pneumonia.person, volume, torch.full((COUNT,), x)) for x in (0.3, 0.9))
    assert bool((high.recruited > low.recruited).all()) and bool((high.driving < low.driving).all())
    helped = by_oxygen[1]
    assert float((helped.signals.saturation - plain.signals.saturation).mean()) > 0.005
    assert float((helped.signals.flow / plain.signals.flow).mean()) < 0.97


def test_pressure_costs_the_empty_more_than_the_filled(ventilated, pneumonia) -> None:
    flows = [float(x.signals.flow.mean()) for x in ventilated[0]]
    assert flows[2] < flows[0], "PEEP of 18 against some 7 cmH2O"
    plasma = pneumonia.fluids.plasma_l
    dry = pneumonia._replace(fluids=pneumonia.fluids._replace(plasma_l=plasma * 0.8))
    lost = []
    for start in (pneumonia, dry):
        free, held = arms(start, 1, {"oxygen_fraction": 1.0}, {"oxygen_fraction": 1.0, "ventilation_l_min": 8.0})
        lost.append(float((1.0 - held.signals.flow / free.signals.flow).mean()))
    assert lost[1] > lost[0] > 0.02


def test_injury_grows_with_volume_and_oxygen_heals_and_worsens_oxygenation(pneumonia) -> None:
    gentle, rough, toxic, mild = arms(
        pneumonia,
        4,
        {"ventilation_l_min": 6.0, "oxygen_fraction": 0.5},
        {"ventilation_l_min": 18.0, "oxygen_fraction": 0.5},
        {"oxygen_fraction": 1.0},
        {"oxygen_fraction": 0.6},
    )
    assert float(rough.lungs.injury.mean()) > 3.0 * float(gentle.lungs.injury.mean())
    assert float(toxic.lungs.injury.mean()) > 0.04 and float(mild.lungs.injury.max()) < 1e-6
    hurt = pneumonia._replace(lungs=pneumonia.lungs._replace(injury=torch.full((COUNT,), 0.5)))
    a, b = (after(1, s, oxygen_fraction=0.5) for s in (pneumonia, hurt))
    assert float((b.signals.saturation - a.signals.saturation).mean()) < -0.01
    assert bool((b.course.hazard_per_h > a.course.hazard_per_h).all())
    off = machine_of(hurt.lungs, hurt.person, torch.zeros(COUNT), torch.full((COUNT,), 0.21))
    assert float(advance_injury(hurt.lungs.injury, off, torch.full((COUNT,), 0.21), 24.0).max()) < 0.45


def test_rested_muscles_breathe_again_and_long_rest_weakens_them() -> None:
    world = WardOracle("heart-failure", hours_per_step=8)
    state = world.initial(keys.from_seed(23, COUNT).repeat(2), {"severity": torch.full((2 * COUNT,), 0.1)})
    tired = alive(state._replace(lungs=state.lungs._replace(fatigue=torch.full((2 * COUNT,), 0.95))))
    helped = torch.zeros(2 * COUNT, len(ORDERS))
    helped[COUNT:, order_index("ventilation_l_min")] = 8.0
    first = alive(world.transition(tired, helped))
    carbon = first.lungs.pco2.reshape(2, COUNT).mean(-1)
    assert float(carbon[1]) < float(carbon[0])
    rested = alive(world.transition(alive(world.transition(first, helped)), helped))
    freed = world.transition(rested, torch.zeros_like(helped)).lungs.pco2[COUNT:].median()
    assert float(freed) < 50.0, "it breathes by itself after the machine has stopped"
    fatigue = rested.lungs.fatigue.reshape(2, COUNT).mean(-1)
    assert float(fatigue[1]) < 0.5 * float(fatigue[0])

    idle, used = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])
    nothing = torch.zeros(2)
    for _ in range(5 * 48):
        _, idle = advance_muscles(nothing, idle, nothing, used, 0.5)
    assert 0.2 < float(idle[0]) < 0.35 and float(idle[1]) == 0.0
    _, later = advance_muscles(nothing, idle, nothing, nothing, 48.0)
    assert 0.0 < float(later[0]) < float(idle[0])
    weak = tree.take(rested, slice(COUNT, 2 * COUNT))
    weak = weak._replace(lungs=weak.lungs._replace(disuse=torch.full((COUNT,), 0.3)))
    strong = weak._replace(lungs=weak.lungs._replace(disuse=torch.zeros(COUNT)))
    demand = [world.transition(x, torch.zeros(COUNT, len(ORDERS))).signals.demand for x in (weak, strong)]
    assert bool((demand[0] > demand[1]).all())


def test_a_row_is_the_same_alone(pneumonia) -> None:
    row = slice(5, 6)
    together = after(1, pneumonia, ventilation_l_min=11.0, oxygen_fraction=0.8, heparin_units_kg_h=18.0)
    alone = after(1, tree.take(pneumonia, row), ventilation_l_min=11.0, oxygen_fraction=0.8, heparin_units_kg_h=18.0)
    for a, b in zip(tree.leaves(tree.take(together, row)), tree.leaves(alone), strict=True):
        assert torch.equal(a, b)
