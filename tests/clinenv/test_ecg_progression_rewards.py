"""The clinic's weights and refusals: disabilities in order, a diuretic's relief, what is done once."""

from __future__ import annotations

import pytest
import torch

from clinenv.envs.ecg_progression import rewards
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from world_models.quantities.progression import CODES, ORDERS, TREATMENTS

COLUMN = {q.name: i for i, q in enumerate(ORDERS)}


def having(*codes: str) -> torch.Tensor:
    return torch.tensor([[float(code in codes) for code in CODES]])


def given(**orders: float) -> torch.Tensor:
    action = torch.zeros(1, len(ORDERS))
    for name, amount in orders.items():
        action[0, COLUMN[name]] = amount
    return action


def test_disabilities_are_in_an_order_that_a_cardiologist_accepts() -> None:
    w = rewards.DISABILITY
    for worse, better in (
        ("I63", "I50"), ("I63", "I21"), ("I50", "I20"), ("I21", "I20"), ("I20", "I48"), ("I48", "I25"), ("I50", "I26"),
        ("I48", "I44"), ("I25", "I73"), ("I73", "I10"),
    ):  # fmt: skip
        assert w[worse] > w[better], f"{worse} is worse than {better}"
    assert w["I50"] > 1.5 * w["I48"], "fibrillation is not three times heart failure"
    assert w["I44"] == w["I49"] == w["I95"] < w["I48"] and w["I10"] == w["I45"] == w["I70"] == 0
    # GBD's own grades lie around what stands for all of them
    assert 0.041 < w["I50"] < rewards.CONGESTED == 0.179 and 0.019 < w["I63"] < 0.588 and 0.0 < w["I48"] < 0.224


def test_a_diuretic_relieves_congestion_and_no_more() -> None:
    condition = having("I50")
    dry, wet = (float(rewards.burden(condition, a)) for a in (given(diuretic=1.0), given()))
    assert dry == pytest.approx(rewards.DISABILITY["I50"]) and wet == pytest.approx(rewards.CONGESTED)
    well = having("I20")
    assert torch.equal(rewards.burden(well, given(diuretic=1.0)), rewards.burden(well, given()))


@pytest.mark.parametrize("name", ["pacemaker", "icd", "crt", "valve_replacement"])
def test_what_is_implanted_is_implanted_once(name: str) -> None:
    task, had = ECGProgressionTask(), {"treated": torch.tensor([[float(x == name) for x in TREATMENTS]])}
    barred = {q.name for q, yes in zip(ORDERS, task.admissible(had)[0].tolist(), strict=True) if not yes}
    assert barred == ({"crt", "pacemaker"} if name == "crt" else {name})
    told = dict(task.reasons(had, given(pacemaker=1.0, icd=1.0, crt=1.0, valve_replacement=1.0))[0])
    assert set(told) == barred and all(why.startswith("the patient has ") for why in told.values())
    if name == "crt":
        assert told["pacemaker"] == "the patient has resynchronisation, which paces, already"
