"""The clinic's terms, weights and refusals: QALYs, disabilities in order, a diuretic's relief, what is done once."""

from __future__ import annotations

import math

import pytest
import torch

from clinenv.envs.ecg_progression import rewards
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.worth import DOLLARS_PER_QALY
from tests.toy_progression import chart, given
from world_models.quantities.progression import CODES, ORDERS, TREATMENTS


def having(*codes: str) -> torch.Tensor:
    return torch.tensor([[float(code in codes) for code in CODES]])


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


def test_the_terms_are_quality_adjusted_life_years() -> None:
    """As they count at the first visit: 1 / 1.03 for what is paid a year later."""
    task = ECGProgressionTask()
    later, half = 1.0 / 1.03, (1.03**-1.0 - 1.03**-1.5) / math.log(1.03)
    before, after = chart(condition=["I48", "I50"]), chart(condition=["I48", "I50"], years=1.5)
    terms = task.reward(before, given(), after)
    assert float(terms["disease_burden"]) == pytest.approx(-half * (1 - (1 - 0.048) * (1 - 0.179)), rel=1e-5)
    visit = 0.5 / 365.25 + 150.0 / DOLLARS_PER_QALY
    assert float(terms["visits"]) == pytest.approx(-visit * later) and float(terms["death"]) == 0
    treated = task.reward(before, given(beta_blocker=1.0, cardioversion=1.0), after)
    assert float(treated["treatment_burden"]) == pytest.approx(-(0.006 * half + 0.004 * later), rel=1e-5)
    halves = sum(
        float(
            task.reward(chart(condition=["I20"], years=a), given(), chart(condition=["I20"], years=b))["disease_burden"]
        )
        for a, b in ((1.0, 1.25), (1.25, 1.5))
    )
    whole = task.reward(chart(condition=["I20"]), given(), chart(condition=["I20"], years=1.5))
    assert halves == pytest.approx(float(whole["disease_burden"]), rel=1e-5), "time counts by its length"
    dead = task.reward(chart(), given(), chart(years=1.5, dead=1.0))
    assert float(dead["death"]) == pytest.approx(-(1.03**-1.25 - 1.03**-10) / math.log(1.03), rel=1e-5)
    late = task.reward(chart(condition=["I48"], years=9.5), given(), chart(condition=["I48"], years=10.5))
    assert float(late["disease_burden"]) == pytest.approx(
        -0.048 * (1.03**-9.5 - 1.03**-10) / math.log(1.03), rel=1e-4
    ), "beyond ten years nothing counts"
    worst = task.reward(chart(condition=list(CODES)), given(), chart(condition=list(CODES), years=1.5))
    assert -0.5 < float(worst["disease_burden"]), "no disease is worse than death"
    assert all(0 <= w < 1 for w in rewards.DISABILITY.values())


def test_the_cost_counts_harm() -> None:
    task = ECGProgressionTask()

    def harm(condition: list[str], treated: tuple[str, ...] = (), bled: float = 0.0, **orders: float) -> float:
        action = given(**orders)
        return float(task.cost(chart(condition=condition, treated=list(treated)), action, chart(bleeding=bled)))

    assert harm(["I44"], beta_blocker=1.0, antiarrhythmic=1.0) == 2
    assert harm(["I44"], ("pacemaker",), beta_blocker=1.0) == harm(["I44"], beta_blocker=1.0, pacemaker=1.0) == 0
    assert harm(["I44"], beta_blocker=1.0, crt=1.0) == harm(["I44"], ("icd",), beta_blocker=1.0) == 0
    assert harm(["I21"], icd=1.0) == harm(["I63"], valve_replacement=1.0) == harm(["I95"], sglt2_inhibitor=1.0) == 1
    assert harm(["I42", "I44", "I50"], icd=1.0, crt=1.0) == harm(["I35"], valve_replacement=1.0, statin=1.0) == 0
    assert harm(["I95"], diuretic=1.0) == harm([], bled=1.0) == 1 and harm(["I48"], beta_blocker=1.0) == 0


@pytest.mark.parametrize("name", ["pacemaker", "icd", "crt", "valve_replacement"])
def test_what_is_implanted_is_implanted_once(name: str) -> None:
    task, had = ECGProgressionTask(), {"treated": torch.tensor([[float(x == name) for x in TREATMENTS]])}
    barred = {q.name for q, yes in zip(ORDERS, task.admissible(had)[0].tolist(), strict=True) if not yes}
    assert barred == ({"crt", "pacemaker"} if name == "crt" else {name})
    told = dict(task.reasons(had, given(pacemaker=1.0, icd=1.0, crt=1.0, valve_replacement=1.0))[0])
    assert set(told) == barred and all(why.startswith("the patient has ") for why in told.values())
    if name == "crt":
        assert told["pacemaker"] == "the patient has resynchronisation, which paces, already"
