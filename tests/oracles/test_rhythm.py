"""Rhythm: torsades monotone in QTcF and absorbing, burden suppressed by the published amounts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import keys
from world_models.oracles.ecg_drug.rhythm import (
    BURDEN,
    NORMAL,
    SUPPRESSION,
    UNIFORM,
    advance_rhythm,
    initial_rhythm,
    logit_shift,
    torsades_hazard,
)

DRUGS = ("ranolazine", "dofetilide", "verapamil", "quinidine")


def _one(x: float, n: int = 1) -> torch.Tensor:
    return torch.full((n,), float(x))


def _run(n: int, hours: float, steps: int, burden: float, shift: float, qtcf: float):
    key, base, rate = keys.from_seed(1, n), _one(420.0, n), _one(70.0, n)
    state = initial_rhythm(_one(burden, n), base, rate)
    course = [state]
    for i in range(steps):
        change, chance = keys.normal(key, i + 1, NORMAL), keys.uniform(key, i + 1, UNIFORM)
        state = advance_rhythm(change, chance, state, _one(burden, n), _one(shift, n), _one(qtcf, n), rate, base, hours)
        course.append(state)
    return course


@given(qtcf=st.floats(250, 900, width=32), more=st.floats(0.5, 200, width=32), rate=st.floats(36, 150, width=32))
def test_hazard_rises_with_qtcf_and_falls_with_rate(qtcf: float, more: float, rate: float) -> None:
    base = _one(420.0)
    low, high = torsades_hazard(_one(qtcf), _one(rate), base), torsades_hazard(_one(qtcf + more), _one(rate), base)
    assert 0 <= low.item() <= high.item() and torch.isfinite(high).all()
    assert torsades_hazard(_one(qtcf), _one(rate + 5), base).item() <= low.item() * (1 + 1e-6)
    assert torsades_hazard(_one(qtcf), _one(rate), base, risk=3.0).item() == pytest.approx(3 * low.item(), rel=1e-5)


def test_hazard_is_negligible_in_the_normal_and_steep_above_600() -> None:
    at = {q: torsades_hazard(_one(q), _one(70), _one(410)).item() for q in (410, 480, 520, 600, 650)}
    assert at[410] * 72 < 1e-4  # no torsades in placebo arms
    assert 1.5 < at[520] / at[480] < 3.5  # two- to threefold across 500 ms
    assert (
        torsades_hazard(_one(500), _one(70), _one(500)).item()
        < 0.1 * torsades_hazard(_one(500), _one(70), _one(430)).item()
    )  # a long QT that no drug made
    assert at[650] / at[600] > at[520] / at[480]


def test_torsades_is_absorbing_and_a_longer_qt_only_adds_to_it() -> None:
    courses = {q: _run(4000, 2.0, 24, 0.4, 0.0, q) for q in (480.0, 540.0, 620.0)}
    for course in courses.values():
        for before, after in zip(course, course[1:], strict=False):
            assert (after.torsades >= before.torsades).all()
    ends = [c[-1].torsades for c in courses.values()]
    assert (ends[1] >= ends[0]).all() and (ends[2] >= ends[1]).all()
    assert 0 < ends[2].mean() < 1 and ends[2].mean() > ends[0].mean()


def test_torsades_frequency_is_the_integrated_hazard() -> None:
    course = _run(20000, 2.0, 12, 0.4, 0.0, 600.0)
    untreated = torsades_hazard(_one(420), _one(70), _one(420)).item()
    hazard = torsades_hazard(_one(600), _one(70), _one(420)).item()
    expected = 1 - math.exp(-(hazard * 23 + untreated))  # the first hour still counts half the admission's
    assert course[-1].torsades.mean().item() == pytest.approx(expected, abs=4 * (expected / 20000) ** 0.5)


@settings(deadline=None)
@given(
    c=st.lists(st.floats(0, 5000, width=32), min_size=4, max_size=4),
    drug=st.integers(0, 3),
    factor=st.floats(1, 10, width=32),
)
def test_shift_grows_with_every_concentration_and_is_bounded(c: list[float], drug: int, factor: float) -> None:
    low = torch.tensor([c])
    high = low.clone()
    high[:, drug] = high[:, drug] * factor + 0.1
    a, b = logit_shift(low, DRUGS).item(), logit_shift(high, DRUGS).item()
    assert 0 <= a <= b + 1e-5 and b <= BURDEN.together


def test_shift_meets_the_published_figures_at_steady_state() -> None:
    average_ng_ml = {"ranolazine": 1040.0, "dofetilide": 2.08, "verapamil": 42.0, "quinidine": 3200.0}
    shift = {"ranolazine": 0.5, "dofetilide": 2.1, "verapamil": 0.15, "quinidine": 2.0}
    for i, name in enumerate(DRUGS):
        c = torch.zeros(1, 4)
        c[0, i] = average_ng_ml[name]
        assert logit_shift(c, DRUGS).item() == pytest.approx(shift[name], abs=0.06), name
    assert logit_shift(torch.full((1, 2), 9.0), ("bepridil", "sotalol")).item() == 0.0
    assert set(SUPPRESSION) == set(DRUGS)


def test_shift_sets_in_as_conversions_do_and_wears_off() -> None:
    course = _run(1, 2.0, 36, 0.4, 2.0, 420.0)
    share = [c.shift.item() / course[36].shift.item() for c in course]
    assert share[12] == pytest.approx(0.70, abs=0.1) and share[18] == pytest.approx(0.91, abs=0.06)  # SAFIRE-D
    assert all(b > a for a, b in zip(share, share[1:], strict=False))


def test_step_length_does_not_change_the_law() -> None:
    long, short = _run(20000, 4.0, 6, 0.3, 1.5, 420.0), _run(20000, 1.0, 24, 0.3, 1.5, 420.0)
    assert long[-1].shift[0].item() == pytest.approx(short[-1].shift[0].item(), rel=1e-5)
    assert long[-1].fluctuation.std().item() == pytest.approx(short[-1].fluctuation.std().item(), abs=0.015)
    assert long[-1].burden.mean().item() == pytest.approx(short[-1].burden.mean().item(), abs=0.005)


@given(burden=st.floats(0, 1, width=32))
@settings(deadline=None)
def test_burden_starts_where_it_is_and_stays_a_fraction(burden: float) -> None:
    course = _run(64, 2.0, 24, burden, 0.0, 420.0)
    assert torch.equal(course[0].burden, _one(burden, 64))
    for c in course:
        assert (c.burden >= 0).all() and (c.burden <= 1).all()


def test_row_equals_the_patient_alone() -> None:
    many = _run(257, 2.0, 5, 0.3, 1.1, 530.0)[-1]
    for n in (1, 3, 64):
        alone = _run(n, 2.0, 5, 0.3, 1.1, 530.0)[-1]
        for a, b in zip(many, alone, strict=True):
            assert torch.equal(a[:n], b)
