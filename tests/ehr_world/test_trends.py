"""How an item has gone so far: what is kept from result to result."""

import torch

from world_models.ehr_world.set_outcome import trends
from world_models.ehr_world.set_outcome.stay_tensors import Charted


def chart(values: list[float | None]) -> tuple[Charted, torch.Tensor]:
    """One item's column; None: nothing came."""
    value, seen, age, fresh = [], [], [], []
    last, since = 0.0, 0
    there = False
    for x in values:
        since += 1
        if x is not None:
            last, since, there = x, 0, True
        value.append(last)
        seen.append(there)
        age.append(float(since if there else 0))
        fresh.append(x is not None)
    shaped = [torch.tensor(column).view(1, -1, 1) for column in (value, seen, age, fresh)]
    return Charted(*shaped), shaped[0]


def test_numbers_kept_of_a_column():
    kept = trends.trends(*chart([1.0, None, 3.0, 3.0]))[0, :, 0]
    assert kept[0, trends.COUNT] == 1 and kept[0, trends.FIRST] == 1 and kept[0, trends.CHANGE] == 0
    assert torch.equal(kept[0], kept[1])  # nothing came
    end = dict(
        zip(("before", "gap", "first", "count", "fast", "slow", "all", "change", "same"), kept[3].tolist(), strict=True)
    )
    assert (end["before"], end["gap"], end["first"], end["count"]) == (3.0, 1.0, 1.0, 3.0)
    assert abs(end["all"] - 7 / 3) < 1e-6 and abs(end["slow"] - 7 / 3) < 1e-6  # fewer results than the window
    assert abs(end["fast"] - 2.5) < 1e-6  # ((1 + 3) / 2 + 3) / 2
    assert end["change"] == 1.0 and end["same"] == 0.5
    assert kept[2, trends.GAP] == 2.0


def test_features_are_relative_to_the_last_value_and_silent_without_one():
    c, z = chart([None, 1.0, 2.0])
    seen = trends.features(trends.trends(c, z), z)[0, :, 0]
    assert torch.equal(seen[0], torch.zeros(trends.FEATURES))
    assert bool((seen[1, :-1] == 0).all()) and seen[1, -1] > 0
    assert seen[2, 0] == -1.0 and seen[2, 1] == -0.5 and seen[2, 3] == -1.0


def test_rows_do_not_see_each_other():
    c, z = chart([1.0, 2.0, None, 5.0])
    other, w = chart([4.0, None, None, 1.0])
    both = Charted(*(torch.cat([a, b]) for a, b in zip(c, other, strict=True)))
    together = trends.trends(both, torch.cat([z, w]))
    torch.testing.assert_close(together[:1], trends.trends(c, z))
    torch.testing.assert_close(together[1:], trends.trends(other, w))
