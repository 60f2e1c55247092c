"""Stays as tensors: slots at their draw, the chart at its time."""

from __future__ import annotations

import pytest
import torch

from tests.ehr_world.ward_small import some_stays
from world_models import keys
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, NEVER, charted, pad
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES, inquiry_index


def test_slots_and_delays_give_back_the_oracles_charts() -> None:
    """What `charted` makes of specimens and delays is the last value, whether seen, that the oracle charted."""
    seen_charts = []

    def record(chart, key, t, severity, confounding):
        seen_charts.append((key, chart))
        return ward_rollouts.behaviour(chart, key, t)

    key = keys.from_seed(4711, 6)
    stays = ward_rollouts.rollout(key, steps=14, orders=record)
    chart = charted(stays)
    for t, (who, shown) in enumerate(seen_charts):
        rows = (key.unsqueeze(0) == who.unsqueeze(1)).int().argmax(1)
        seen = shown["inquiry_seen"] > 0.5
        assert torch.equal(chart.seen[rows, t], seen)
        values = torch.stack([shown[q.name] for q in INQUIRIES], -1)
        assert torch.equal(chart.value[rows, t][seen], values[seen])
        age = shown["inquiry_age_hours"][seen]
        assert float((chart.age[rows, t][seen] * 4.0 - age).abs().max()) <= 4.0


def test_a_culture_waits_and_other_results_come_in_their_step() -> None:
    stays = some_stays()
    vital = inquiry_index("heart_rate_bpm")
    assert (stays.delay[..., vital][stays.asked[..., vital]] == 0).all()
    culture = inquiry_index("blood_culture")
    late = stays.delay[..., culture][stays.asked[..., culture]].tolist()
    assert set(late) <= {*range(6, LAST_DELAY + 1), NEVER, CENSORED} and CENSORED in late
    assert stays.value[..., culture][stays.asked[..., culture] & (stays.delay[..., culture] == CENSORED)].isnan().all()


def test_nobody_is_charted_after_death_or_discharge() -> None:
    stays = some_stays()
    gone = (~stays.alive | stays.home).cumsum(1) - (~stays.alive | stays.home).int()
    assert not bool((stays.valid & (gone > 0)).any())
    assert not bool((stays.asked & ~stays.valid.unsqueeze(-1)).any())


def test_padding_changes_nothing() -> None:
    stays = some_stays()
    assert all(
        torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0)) for a, b in zip(pad(pad(stays, 30), 9), stays, strict=True)
    )


def test_the_oracles_truth_is_never_asked_without_confounding(monkeypatch) -> None:
    monkeypatch.setattr(WardOracle, "truth", lambda *_: (_ for _ in ()).throw(AssertionError("truth was read")))
    stays = ward_rollouts.rollout(keys.from_seed(1, 2), steps=2)
    assert stays.valid.any()
    with pytest.raises(AssertionError, match="truth was read"):  # the dial is what asks for it
        ward_rollouts.rollout(keys.from_seed(1, 2), steps=2, confounding=1.0)
