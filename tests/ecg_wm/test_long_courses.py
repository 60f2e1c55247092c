"""The shipped world over days of repeated doses: what it samples stays where ECGs are."""

import pytest
import torch

from world_models import catalog, keys
from world_models.oracles.ecg_drug.cohorts import COHORTS

REPEATED_MG = torch.tensor([1000.0, 0.5, 120.0, 400.0])  # every twelve hours, one drug a patient


@pytest.mark.parametrize("cohort", ["typical", "heart-failure", "long-qt"])
def test_nobody_runs_away_under_repeated_doses(cohort: str) -> None:
    """Told of its own samples beyond what training met, one in a thousand did, within a day (docs/log.md)."""
    assert cohort in COHORTS
    world = catalog.load("ecg-wm-small").with_options(cohort=cohort)
    count = 1024
    state = world.initial(keys.from_seed(3, count))
    doses = torch.diag(REPEATED_MG)[torch.arange(count) % 4]
    for step in range(36):
        state = world.transition(state, doses if step % 6 == 0 else torch.zeros_like(doses))
    assert float(state.present.u.abs().max()) < 20.0
    assert float(state.shape.abs().max()) < 30.0
