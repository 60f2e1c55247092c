"""One price of a QALY and one discount, and that the tasks which weigh health and money use them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import clinenv
from clinenv import worth
from clinenv.envs.ecg_progression import rewards as clinic
from clinenv.envs.ehr_ward import rewards as ward
from clinenv.envs.ehr_ward import task as ward_task


def test_present_years_add_up_and_shrink_with_the_time_ahead() -> None:
    a, b, c = (torch.tensor([x]) for x in (0.0, 4.0, 10.0))
    whole = worth.present_years(a, c).item()
    assert whole == pytest.approx((worth.present_years(a, b) + worth.present_years(b, c)).item(), rel=1e-6)
    assert whole == pytest.approx((1.0 - 1.03**-10) / math.log(1.03), rel=1e-6)
    assert worth.present(c).item() == pytest.approx(1.03**-10, rel=1e-6) and worth.present(a).item() == 1.0
    short = worth.present_years(b, b + 1.0 / 365.25).item()
    assert short == pytest.approx(1.03**-4 / 365.25, rel=1e-3), "a day is not lost in rounding"
    assert worth.present_years(b, b).item() == 0.0


def test_ward_and_clinic_pay_one_price_for_a_qaly() -> None:
    assert worth.in_qaly(worth.DOLLARS_PER_QALY) == 1.0
    dollars = (clinic.VISIT_QALY - clinic.VISIT_DAYS / 365.25) * worth.DOLLARS_PER_QALY
    assert dollars == pytest.approx(clinic.VISIT_DOLLARS)
    assert worth.DOLLARS_PER_QALY / ward.UNIT_DOLLARS == ward_task._QALY == 10.0
    said = [path for path in Path(clinenv.__file__).parent.rglob("*.py") if "DOLLARS_PER_QALY =" in path.read_text()]
    assert [path.name for path in said] == ["worth.py"]
