"""Rivals find what is known to be best, look at nothing later, resume, and leave the test part alone."""

import dataclasses
import math

import pytest
import torch

from benchmarks.people import grud, rivals
from benchmarks.people.contest import RIVALS, taught
from benchmarks.people.design import design, table
from benchmarks.people.holt import CHOICES, chosen, forecasts
from benchmarks.people.language import trained
from benchmarks.people.learned import world_columns
from benchmarks.people.prediction import Scale, columns
from benchmarks.people.rules import Rule, fitted, medians
from benchmarks.people.slots import Places, next_places, path_places
from benchmarks.people.tables import POOLED, rows
from tests.benchmarks.people_stays import ITEM, SPREAD, process, records, room, scale
from tests.ehr_world.ward_small import tiny, words
from world_models.ehr_world.vocabulary import from_z

HOURS = 4.0


def error(places: Places, z: torch.Tensor) -> float:
    return float((z - scale().z(places.y, places.item)).abs().mean())


def test_shares_and_spreads_are_recovered():
    s, n = scale(), 20_000
    generator = torch.Generator().manual_seed(0)
    item = torch.full((n,), ITEM)
    last = (80 + 10 * torch.randn(n, generator=generator)).round()
    u = torch.rand(n, generator=generator) - 0.5
    noise = -0.5 * u.sign() * torch.log1p(-2 * u.abs())
    moved = from_z(s.z(last, item) + noise, s.scale[item]).round().float()
    y = torch.where(torch.rand(n, generator=generator) < 0.6, last, moved)
    zero = torch.zeros(n, dtype=torch.int64)
    places = Places(zero, zero, zero, item, y, last, last, torch.ones(n), last)
    found = fitted(places, s.z(last, item), last, s, HOURS)
    assert abs(float(found.share[ITEM, 1]) - 0.6) < 0.03 and abs(float(found.spread[ITEM, 1]) - 0.5) < 0.05


def test_of_a_constant_column_the_last_reports_cell_wins():
    stays, s = process(60), scale()
    stays = stays._replace(value=torch.where(stays.asked, stays.value[:, :1].nan_to_num(90.0).round(), float("nan")))
    places = next_places(words(), stays)
    says = {k: Rule.learned(k, places, s, HOURS).says(places, s) for k in ("last_value", "item_median")}
    told = {k: columns(m, places.y, places.item, s) for k, m in says.items()}
    assert float(told["last_value"]["nll"].mean()) < float(told["item_median"]["nll"].mean()) - 1
    grid = s.grid[ITEM]
    assert float((told["last_value"]["quantiles"][:, 9] - s.z(places.y, places.item)).abs().mean()) < 0.5 * grid


def test_smoothing_finds_noise_and_trend():
    s = scale()
    noise = process(80, keep=0.0)
    best = chosen([(noise, next_places(words(), noise))], s, HOURS)[ITEM]
    assert float(best[0]) <= sorted({c[0] for c in CHOICES})[1] and float(best[1]) <= 0.1
    z = torch.arange(16.0) * 0.15 + torch.linspace(-2, 0.8, 40).unsqueeze(1)
    rising = noise._replace(
        value=noise.value[:40].clone(), **{n: getattr(noise, n)[:40] for n in noise._fields if n != "value"}
    )
    rising.value[..., ITEM] = torch.where(rising.asked[..., ITEM], from_z(z, words().scale_table()[ITEM]), float("nan"))
    places = next_places(words(), rising)
    best = chosen([(rising, places)], s, HOURS)
    told, same = forecasts(rising, places, [best, torch.tensor([1.0, 0.0, 0.8]).expand(len(best), -1)], s, HOURS)
    assert float(best[ITEM, 1]) > 0 and error(places, told) < 0.6 * error(places, same)
    assert torch.allclose(same, s.z(places.given, places.item), atol=1e-5)  # alpha 1, beta 0: the last value


@pytest.mark.parametrize("begin", [None, 3])
def test_what_is_read_and_foretold_knows_nothing_later(begin):
    stays, s = process(12), scale()
    places = next_places(words(), stays) if begin is None else path_places(words(), stays, begin)
    other = stays._replace(value=torch.where(torch.arange(16).view(1, -1, 1) > 8, stays.value + 50, stays.value))
    late = next_places(words(), other) if begin is None else path_places(words(), other, begin)
    before = places.origin <= 8 if begin is not None else places.place <= 9
    which = before.nonzero().squeeze(1)
    every = torch.arange(design(stays, places, s, HOURS).common.shape[1])
    a, b = (table(design(x, p, s, HOURS), which, every) for x, p in ((stays, places), (other, late)))
    assert torch.equal(a.nan_to_num(-99.0), b.nan_to_num(-99.0))
    setting = torch.tensor([0.5, 0.3, 0.95]).expand(len(s.grid), -1)
    a, b = (forecasts(x, p, [setting], s, HOURS)[0][which] for x, p in ((stays, places), (other, late)))
    assert torch.equal(a.nan_to_num(-99.0), b.nan_to_num(-99.0))
    net = grud.Recurrent(grud._fresh(words()))
    with torch.no_grad():
        for p in net.net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    a, b = (net.columns(x, p, s)["quantiles"][which] for x, p in ((stays, places), (other, late)))
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_boosting_recovers_an_autoregression(tmp_path):
    boosting = pytest.importorskip("benchmarks.people.boosting")
    pytest.importorskip("lightgbm")
    s = scale()
    learn, valid, judged = (process(n, keep=0.2, seed=i) for i, n in enumerate((250, 120, 120)))
    a, b, c = (taught([(x, next_places(words(), x))], s, HOURS) for x in (learn, valid, judged))
    model = boosting.train(a, b, s, medians(a.places, s), tmp_path, 3000, [ITEM])
    told = columns(model.says(c), c.places.y, c.places.item, s)
    best = SPREAD * math.sqrt(2 / math.pi)
    z = told["quantiles"].double()
    last = s.z(c.places.given, c.places.item)
    assert error(c.places, z[:, 9]) < 1.15 * best < 0.9 * error(c.places, last)
    y = s.z(c.places.y, c.places.item)
    assert 0.74 < float(((y >= z[:, 1]) & (y <= z[:, 17])).double().mean()) < 0.86
    assert float(told["nll"].mean()) < math.log(SPREAD * math.sqrt(2 * math.pi * math.e)) + 0.15
    kept = (tmp_path / f"item-{ITEM}.json").stat().st_mtime_ns
    again = boosting.train(a, b, s, medians(a.places, s), tmp_path, 3000, [ITEM])
    assert (tmp_path / f"item-{ITEM}.json").stat().st_mtime_ns == kept
    assert torch.equal(columns(again.says(c), c.places.y, c.places.item, s)["nll"], told["nll"])


@pytest.mark.slow
def test_the_network_learns_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(grud, "STAGE", 60)
    monkeypatch.setattr(grud, "RATES", (1e-2, 3e-3))
    learn, valid, judged = (records(process(n, seed=i)) for i, n in enumerate((120, 40, 40)))
    net = grud.train_grud([learn], [valid], words(), tmp_path, 120)
    places, s = next_places(words(), judged.stays), scale()
    told = net.columns(judged.stays, places, s)
    z = told["quantiles"].double()[:, 9]
    assert error(places, z) < 0.9 * error(places, s.z(places.given, places.item))
    again = grud.train_grud([learn], [valid], words(), tmp_path, 120).columns(judged.stays, places, s)
    assert torch.equal(again["nll"], told["nll"])
    one = records(process(40, seed=2)).stays
    alone = next_places(words(), one)
    rows_of = alone.row == 3
    part = type(one)(*(x[3:4] for x in one))
    single = net.columns(part, next_places(words(), part), s)
    assert torch.allclose(single["quantiles"], net.columns(one, alone, s)["quantiles"][rows_of], atol=1e-4)


def test_a_world_keeps_its_values_on_another_scale():
    model, it = tiny(), records(process(6))
    places = next_places(words(), it.stays)
    own = world_columns(model, "ehr-mimic-demo-small", "challenge_2012", it, places, scale(), None, 2)
    other = words()
    items = tuple(dataclasses.replace(i, mean=i.mean + 1.0, sd=i.sd * 2) for i in other.items)
    moved = Scale(dataclasses.replace(other, items=items))
    told = world_columns(model, "ehr-mimic-demo-small", "challenge_2012", it, places, moved, None, 2)
    value = moved.value(told["quantiles"].double(), places.item.unsqueeze(1))
    assert torch.allclose(value, scale().value(own["quantiles"].double(), places.item.unsqueeze(1)), rtol=1e-4)
    assert torch.allclose(told["nll"], own["nll"] - math.log(2.0), atol=1e-4)  # a density on twice the width
    assert torch.equal(told["hits"], own["hits"])


def judged(tmp_path, part: str, **changes):
    a = rivals._arguments(["--data", "x", "--work", str(tmp_path), "--out", str(tmp_path), "--only", "holt"])
    for name, value in {"test": part == "test", "stays": 10, **changes}.items():
        setattr(a, name, value)
    return a, room(tmp_path)


def test_tables_compare_each_rival_with_the_last_value_on_the_same_values(tmp_path):
    a, it = judged(tmp_path, "valid")
    slots, who = rivals.judge(a, it, "next_step", None)
    assert who == ["last_value", "holt"] and set(slots) == {"challenge_2012", "eicu_demo"}
    found = rows("next_step", slots, who, words(), 50)
    assert [r["set"] for r in found] == ["challenge_2012"] * 2 + ["eicu_demo"] * 2 + [POOLED] * 2
    by = {(r["set"], r["model"]): r for r in found}
    for name in slots:
        last, holt = by[name, "last_value"], by[name, "holt"]
        assert holt["s25_minus_last"] == pytest.approx(holt["s25"] - last["s25"], abs=1e-6)
        assert holt["mae_sd"] < last["mae_sd"] and holt["crps"] < last["crps"]
    assert by["eicu_demo", "holt"]["owners"] == 7  # hospitals


def test_the_test_part_is_read_only_when_asked_for(tmp_path):
    a, it = judged(tmp_path, "valid")
    spoiled = {n: {p: r for p, r in of.items() if p != "test"} for n, of in it.people.parts.items()}
    bare = dataclasses.replace(it, people=it.people._replace(parts=spoiled))
    slots, _ = rivals.judge(a, bare, "trajectory_from_4h", 1)
    assert all(len(s["stay"].unique()) <= 10 for s in slots.values())
    seen = {n: of["valid"].stays.value for n, of in it.people.parts.items()}
    for n, s in slots.items():
        assert bool(torch.isin(s["y"], seen[n]).all())
    assert set(RIVALS) >= {"last_value", "first_value", "item_median", "holt", "boosting", "grud"}


@pytest.mark.parametrize(
    "extra", [["--hours", "2"], ["--only", "oracle"], ["--settings", "later"], ["--hours", "1", "--only", "text"]]
)
def test_bad_arguments_end_with_2_and_write_nothing(tmp_path, capsys, extra):
    with pytest.raises(SystemExit) as stopped:
        rivals.main(
            ["--data", str(tmp_path / "none"), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), *extra]
        )
    assert stopped.value.code == 2 and not list(tmp_path.iterdir()) and "error" in capsys.readouterr().err


def test_a_folder_without_sets_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        rivals.main(["--data", str(tmp_path), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o")])
    assert stopped.value.code == 2 and "holds none of" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("text", ["prose:300:1e-3", "text:300", "text:0:1e-3", "quantile:many:1e-3", "text:300:2"])
def test_a_language_model_that_cannot_be_trained_is_refused_by_its_words(text, tmp_path, capsys):
    told = ["--data", str(tmp_path), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--lm"]
    with pytest.raises(SystemExit) as stopped:
        rivals.main([*told, text])
    assert stopped.value.code == 2 and text in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_language_model_is_told_by_form_seconds_and_rate():
    assert trained("quantile:300:2.5e-4") == ("quantile", 300.0, 2.5e-4)
