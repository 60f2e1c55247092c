"""Rates of large batches, and of several processes, on batches of a few."""

from __future__ import annotations

import time

import pytest

from benchmarks.common.several import rate_of_several
from benchmarks.common.speed_crowd import WHAT, crowd
from benchmarks.common.timing import Work


def waiting(units: int) -> Work:
    """Work that waits rather than counts: two processes do twice as much of it, however busy the cores are."""

    def work() -> int:
        time.sleep(0.02)
        return units

    return work


def test_the_rates_of_several_processes_are_added_up() -> None:
    one, two = (rate_of_several(waiting, (3,), processes, 0.2, 3) for processes in (1, 2))
    for rate in (one, two):
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert two["high"] > 1.3 * one["low"], "not one process's share"


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize(("env_id", "orders"), [("ECGDrug-v0", "random"), ("EHRWard-v0", "clinician's rule")])
def test_every_work_steps_as_many_patients_as_there_are_rows(env_id: str, orders: str, what: str) -> None:
    assert crowd(env_id, orders, what, 5)() == 5
