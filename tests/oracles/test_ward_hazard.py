"""The hazard of death on the ward: every sign in its direction, every constant with its source, the page of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.ward.sofa import auroc, sofa
from world_models import keys
from world_models.oracles.ward.discharge import CRITERIA, FREE_HOURS
from world_models.oracles.ward.hazard import BASE_LOG_HAZARD, PERSONAL, TERMS, hazard_per_h, table
from world_models.oracles.ward.world import WardOracle

PAGE = (Path(__file__).parents[2] / "docs/ward_oracle.md").read_text(encoding="utf-8")


def fine() -> dict[str, torch.Tensor]:
    """Every sign at a value that no row counts."""
    signs = {}
    for name in {term.sign for term in TERMS}:
        rows = [term for term in TERMS if term.sign == name]
        above = [term.begins for term in rows if term.side == "above"]
        below = [term.begins for term in rows if term.side == "below"]
        signs[name] = torch.tensor([(above or below)[0] if not (above and below) else 0.5 * (above[0] + below[0])])
    return signs


@pytest.mark.parametrize("term", TERMS, ids=lambda t: f"{t.sign} {t.side}")
def test_each_sign_kills_beyond_its_limit_by_its_slope_and_no_further_than_its_most(term) -> None:
    one = torch.ones(1)
    base = hazard_per_h(fine(), one).log().item()
    assert base == pytest.approx(BASE_LOG_HAZARD)
    way = 1.0 if term.side == "above" else -1.0
    part = min(0.5 * term.most, 8.0 / term.slope)
    logs = [
        hazard_per_h(fine() | {term.sign: torch.tensor([term.begins + way * x])}, one).log().item()
        for x in (part, 0.5 * part, 3.0 * term.most)
    ]
    assert logs[0] - base == pytest.approx(term.slope * part, rel=1e-3)
    assert logs[1] < logs[0] <= logs[2] and logs[2] - base <= term.slope * term.most + 1e-3
    assert hazard_per_h(fine(), 2.0 * one).item() == pytest.approx(2.0 * hazard_per_h(fine(), one).item())


def test_every_constant_has_a_source_or_says_that_it_has_none() -> None:
    assert all("(assumed)" in term.source or "doi" in term.source or "PMID" in term.source for term in TERMS)
    assert all(source for _, _, source in PERSONAL)


def test_the_page_states_the_constants_as_they_are() -> None:
    for row in table():
        assert row in PAGE, row
    for criterion in CRITERIA:
        row = f"| {criterion.measure} |"
        line = next(line for line in PAGE.splitlines() if line.startswith(row))
        low, high, lasts, needed = (cell.strip() for cell in line.split("|")[2:6])
        stated = (float(low or "-inf"), float(high or "inf"), float(lasts), needed == "yes")
        assert stated == criterion[1:], line
    words = " ".join(PAGE.split())
    for name, hours in FREE_HOURS.items():
        assert f"{name} {hours:g}" in words


def test_sofa_counts_failing_organs_and_ranks_who_dies() -> None:
    world = WardOracle("sepsis", hours_per_step=1)
    count = 64
    severity = torch.tensor([0.1, 0.9]).repeat_interleave(count)
    state = world.initial(keys.from_seed(5, count).repeat(2), {"severity": severity})
    score = sofa(world, state)
    mild, severe = score.reshape(2, count).double().mean(-1).tolist()
    assert severe > mild + 1.0 and int(score.min()) >= 0 and int(score.max()) <= 24
    noradrenaline = state._replace(records=state.records._replace(given=state.records.given.clone()))
    noradrenaline.records.given[:, 3] = 0.3
    raised = sofa(world, noradrenaline) - score
    assert int(raised.min()) >= 3 and int(raised.max()) <= 4
    died = torch.tensor([False, True, True, False])
    assert auroc(torch.tensor([1, 5, 6, 2]), died) == 1.0 and auroc(torch.tensor([3, 3, 3, 3]), died) == 0.5
    assert auroc(torch.tensor([1, 5, 2, 3]), died) == 0.75
