"""Pairs drawn while training: functions of the step, true to their visits, a new day each time they come round."""

import pytest
import torch

from benchmarks.progression.ceiling import redrawn
from world_models import keys
from world_models.cardiac_jepa.simulated_pairs import SimulatedPairs, simulated_visits
from world_models.oracles.progression.ecg.shown import shown_on_ecg
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.oracles.progression.visits import MOST_VISITS, consecutive, make_visits
from world_models.quantities.progression import CODES


@pytest.fixture(scope="module")
def visits():
    return make_visits(31_000, 60, "hospital")


@pytest.fixture(scope="module")
def source(visits):
    return SimulatedPairs(visits, *consecutive(visits)[:40].unbind(1), crop=120, seed=2)


def test_a_batch_is_its_steps_and_its_visits(source, visits) -> None:
    ecg_a, ecg_b, action, days = source.batch(3, 12)
    assert ecg_a.shape == ecg_b.shape == (12, 12, 120) and action.shape == (12, len(CODES))
    again = source.batch(3, 12)
    assert all(torch.equal(x, y) for x, y in zip((ecg_a, ecg_b, action, days), again, strict=True))
    place, pair = source.order.batch(3, 12)
    first, second = source.first[pair], source.second[pair]
    assert torch.equal(action, visits.condition[second].float() - visits.condition[first].float())
    assert torch.equal(days, visits.days[second] - visits.days[first]) and bool((days >= 0).all())
    v, t = visits, visits.t[second] + MOST_VISITS * (1 + place)
    drawn = synthesise_progression_ecg(
        v.key[second], t, v.condition[second], v.age_years[second], v.sex_female[second], v.treated[second], 120
    )
    assert torch.equal(ecg_b, drawn)


def test_each_epoch_has_every_pair_on_a_new_day(source) -> None:
    numbers, pairs = zip(*(source.order.batch(step, 20) for step in range(4)), strict=True)
    assert torch.equal(torch.cat(numbers), torch.arange(80))
    for epoch in (pairs[:2], pairs[2:]):
        assert torch.equal(torch.cat(epoch).sort().values, torch.arange(40))
    where = (torch.cat(pairs) == 7).nonzero()[:, 0].tolist()
    days = [source.batch(at // 20, 20)[0][at % 20] for at in where]
    assert len(days) == 2 and float((days[0] - days[1]).abs().max()) > 0.01
    assert float((days[0] - days[1]).abs().mean()) < float(days[0].abs().mean()) * 3


def test_processes_share_a_batch(source) -> None:
    whole = source.batch(5, 8)
    halves = [source.batch(5, 8, rank, 2) for rank in (0, 1)]
    for part, both in zip(whole, zip(*halves, strict=True), strict=True):
        assert torch.equal(part, torch.cat(both))
    with pytest.raises(ValueError, match="9 cannot be shared by 2"):
        source.batch(0, 9, 0, 2)


def test_what_is_no_pair_is_refused(visits) -> None:
    good = consecutive(visits)[0]
    other = int((visits.patient != visits.patient[good[0]]).nonzero()[0])
    for first, second, says in (
        ([0], [len(visits.key)], "there are"),
        ([], [], "equal lists"),
        ([int(good[1])], [int(good[0])], "back in time"),
        ([int(good[0])], [other], "join two patients"),
    ):
        with pytest.raises(ValueError, match=says):
            SimulatedPairs(visits, torch.tensor(first, dtype=torch.int64), torch.tensor(second, dtype=torch.int64))


def test_visits_are_made_in_parts_and_kept(visits, tmp_path) -> None:
    made = simulated_visits(tmp_path, 31_000, 60, chunk=25)
    assert all(torch.equal(a, b) for a, b in zip(made, visits, strict=True))
    files = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    assert len(files) == 3
    simulated_visits(tmp_path, 31_000, 60, chunk=25)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == files


def test_redrawn_keeps_what_the_first_ecg_could_show_and_nothing_else() -> None:
    key, other = keys.from_seed(1, 400), keys.from_seed(9_000, 400)
    t, condition = torch.zeros(400, dtype=torch.int64), torch.ones(400, len(CODES), dtype=torch.bool)
    mine, theirs = shown_on_ecg(key, t, condition), shown_on_ecg(other, t, condition)
    none = torch.zeros_like(condition)
    assert torch.equal(redrawn(key, other, t, condition, condition).weight, mine.weight)
    assert torch.equal(redrawn(key, other, t, none, condition).weight, theirs.weight)
    scar = none.clone()
    scar[:, CODES.index("I25")] = True
    some = redrawn(key, other, t, scar, condition)
    assert torch.equal(some.forms["territory"], mine.forms["territory"])  # where the scar is, the next infarction is
    assert torch.equal(some.forms["I44"], theirs.forms["I44"])
    assert torch.equal(some.of("I25"), mine.of("I25")) and torch.equal(some.of("I21"), theirs.of("I21"))
