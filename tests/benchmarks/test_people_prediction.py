"""What rivals say: distributions against closed forms, places without a look ahead, scores."""

import math

import torch

from benchmarks.people.prediction import FINE, _cdf, columns, from_quantiles, laplace, refined, said_again, scored
from benchmarks.people.slots import Places, grouped, next_places, path_places
from benchmarks.ward.scores import LEVELS
from tests.benchmarks.people_stays import ITEM, process, scale
from tests.ehr_world.ward_small import some_stays, words
from world_models.ehr_world.records import cut
from world_models.ehr_world.set_outcome.stay_tensors import charted


def of_item(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return y, torch.full(y.shape, ITEM, dtype=torch.int64)


def test_a_laplace_has_its_closed_forms():
    s, spread = scale(), torch.tensor(0.7, dtype=torch.float64)
    y, item = of_item(torch.arange(50.0, 130.0))
    middle = s.z(torch.full_like(y, 88.0), item)
    marginal = laplace(middle, spread.expand(len(y)), s, item)
    told = columns(marginal, y, item, s)
    d = (s.z(y, item) - middle).abs()
    low, high = s.cell(y, item)
    inside = (high + low) / 2
    exact = (2 * spread).log() + (inside - middle).abs() / spread
    weight = (-exact).exp()
    lost = float(((told["nll"] - exact) * weight).sum() / weight.sum())
    assert abs(lost) < 0.01  # bins are even inside
    q = middle.unsqueeze(1) - spread * (LEVELS - 0.5).sign() * torch.log1p(-2 * (LEVELS - 0.5).abs())
    assert torch.allclose(told["quantiles"].double(), q, atol=0.02)
    places = Places(*[item] * 4, y, y, y, y, y)
    found = scored("it", told, places, s)
    crps = d + spread * (-d / spread).exp() - 0.75 * spread
    assert float((found["crps/it"] - crps).abs().amax()) < 0.06 * float(crps.amax())  # of 19 levels
    sure = (d - spread * math.log(5)).abs() > 0.15
    assert torch.equal(found["inside/it"][sure] > 0, (d <= spread * math.log(5))[sure])


def test_few_quantiles_of_a_logistic_give_it_back():
    s = scale()
    levels = torch.tensor([0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95], dtype=torch.float64)
    y, item = of_item(torch.tensor([70.0, 90.0, 110.0]))
    q, fine = refined((0.3 * torch.logit(levels)).expand(3, -1), levels)
    assert torch.allclose(q, 0.3 * torch.logit(FINE).expand(3, -1)) and torch.equal(fine, FINE)
    marginal = from_quantiles(q, fine, s, item)
    z = torch.tensor([-0.8, 0.1, 1.2], dtype=torch.float64)
    t = z / 0.3
    exact = torch.nn.functional.logsigmoid(t) + torch.nn.functional.logsigmoid(-t) - math.log(0.3)
    assert torch.allclose(marginal.log_density(z), exact, atol=0.15)
    assert torch.allclose(marginal.cdf(z), torch.sigmoid(t), atol=0.01)


def test_a_share_lies_on_the_last_report_and_nothing_is_said_again_without_one():
    s = scale()
    y, item = of_item(torch.tensor([80.0, 80.0]))
    plain = laplace(s.z(torch.tensor([100.0, 100.0]), item), torch.tensor([0.5, 0.5]), s, item)
    marginal = said_again(plain, torch.tensor([0.6, 0.6]), torch.tensor([80.0, float("nan")]), s, item)
    low, high = s.cell(y, item)
    mass = marginal.cdf(high) - marginal.cdf(low)
    bare = plain.cdf(high) - plain.cdf(low)
    assert abs(float(mass[0]) - 0.6 - 0.4 * float(bare[0])) < 1e-6 and abs(float(mass[1] - bare[1])) < 1e-9
    many = torch.tensor([[-3.0, -0.6, 0.1, 4.0]] * 2, dtype=torch.float64)
    many[:, 1] = (low + high) / 2
    each = torch.stack([marginal.cdf(z) for z in many.unbind(1)], 1)
    assert torch.allclose(_cdf(marginal, many), each, atol=1e-9)
    told = columns(marginal, y, item, s)
    assert abs(float(told["nll"][0] - ((high - low).log() - mass.log())[0])) < 1e-5
    assert float(told["hits"][0]) == torch.tensor(80.0) or abs(float(told["hits"][0]) - 80) < 20


def test_the_point_for_hits_has_the_most_mass_within_a_quarter():
    s = scale()
    y, item = of_item(torch.full((1,), 90.0))
    q = torch.cat([torch.linspace(-2.0, -1.9, 12), torch.linspace(2.0, 3.5, 13)]).double().unsqueeze(0)
    marginal = from_quantiles(q, FINE, s, item)
    told = columns(marginal, y, item, s)
    points = s.value(told["quantiles"].double(), item.unsqueeze(1))[0]

    def within(p: torch.Tensor) -> float:
        ends = s.z(torch.stack([p / 1.25, p / 0.75]), item.expand(2))
        return float(marginal.cdf(ends[1:]) - marginal.cdf(ends[:1]))

    best = max(within(p) for p in points)
    assert abs(within(told["hits"][0].double()) - best) < 1e-5


def test_places_are_repeated_numbers_and_see_nothing_that_came_later():
    stays = some_stays()
    for begin, places in ((None, next_places(words(), stays)), (2, path_places(words(), stays, 2))):
        assert int(places.place.min()) >= 1 and not bool(places.last.isnan().any())
        assert not bool(words().is_label()[places.item].any())
        origin = places.place - 1 if begin is None else torch.full_like(places.place, begin)
        assert torch.equal(places.origin, origin)
        for n in range(0, len(places.y), max(1, len(places.y) // 20)):
            row, at = int(places.row[n]), int(places.origin[n])
            other = stays._replace(value=stays.value.clone())
            other.value[row, at + 1 :] = 77.0
            known = charted(cut(stays, at)), charted(cut(other, at))
            seen = [c.value[row, at, places.item[n]] for c in known]
            assert torch.equal(seen[0], seen[1])
            if not places.given[n].isnan():
                assert float(places.given[n]) == float(seen[0])


def test_stays_that_end_before_the_origin_have_no_places(monkeypatch):
    monkeypatch.setattr("benchmarks.people.slots.CHUNK", 10)
    stays = process(30)
    left = torch.arange(16).expand(30, -1) < torch.where(torch.arange(30) < 12, 3, 16).unsqueeze(1)
    places = path_places(words(), stays._replace(valid=left, asked=stays.asked & left.unsqueeze(-1)), 5)
    assert set(places.row.tolist()) == set(range(12, 30)) and int(places.place.min()) == 6


def test_places_in_groups_are_the_same_places():
    stays = process(30)
    places = next_places(words(), stays)
    found = torch.full((len(places.y),), float("nan"))
    for part, mine, at in grouped(stays, places, 7):
        found[at] = part.value[mine.row, mine.place, mine.item]
    assert torch.equal(found, places.y)
