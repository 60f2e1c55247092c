"""The learned progression world: the process of its labels, the world's contract, and the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from world_models import checkpoint, keys
from world_models.cardiac_jepa import cohort, train
from world_models.cardiac_jepa.features import load_features, resampled
from world_models.cardiac_jepa.labels import Followed, LabelModel
from world_models.cardiac_jepa.model import CardiacJEPAWorld
from world_models.cardiac_jepa.reading import ReadOracle
from world_models.data.ecg.monolith import pairs, read_monolith
from world_models.protocol import History, LearnedWorld, Oracle
from world_models.quantities.progression import CODES, DRUGS, IRREVERSIBLE, ORDERS, PROCEDURES
from world_models.testing import check_world

SMALL = [
    "--patients",
    "160",
    "--drawn",
    "120",
    "--followed",
    "150",
    "--steps",
    "6",
    "--batch",
    "24",
    "--label-steps",
    "40",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jepa")
    assert train.main([*SMALL, "--out", str(folder / "world"), "--work", str(folder / "work")]) == 0
    return folder


@pytest.fixture(scope="module")
def world(made: Path) -> CardiacJEPAWorld:
    return CardiacJEPAWorld.load(made / "world")


def order(batch: int, months: float, *names: str) -> torch.Tensor:
    out = torch.zeros(batch, len(ORDERS))
    out[:, -1] = months
    for name in names:
        out[:, [q.name for q in ORDERS].index(name)] = 1.0
    return out


def process(seed: int = 3) -> LabelModel:
    model = LabelModel(CODES)
    for p, parameter in enumerate(model.parameters()):
        parameter.data += 0.2 * keys.normal(keys.from_seed(seed + p), 0, "test", tuple(parameter.shape))[0]
    return model


def a_visit(batch: int = 64, months: float = 6.0) -> list[torch.Tensor]:
    key = keys.from_seed(9, batch)
    condition = (keys.uniform(key, 0, "condition", (len(CODES),)) < 0.3).float()
    none = torch.zeros(batch, len(PROCEDURES))
    taken = (keys.uniform(key, 0, "taken", (len(DRUGS),)) < 0.5).float()
    return [condition, torch.full((batch,), 70.0), torch.ones(batch), none, none, taken, torch.full((batch,), months)]


def test_two_half_years_are_one_year_under_the_same_rates() -> None:
    model = process()
    for part in model.rates:  # rates that do not look at the patient: the chain's solution must then compose
        if isinstance(part, torch.nn.Linear):
            part.weight.data.zero_()
    with torch.no_grad():
        seen = a_visit()

        def present(start: float, months: float) -> torch.Tensor:
            return model(torch.full_like(seen[0], start), *seen[1:6], torch.full((64,), months)).present

        for start in (0.0, 1.0):
            half = present(start, 6.0)
            twice = half * present(1.0, 6.0) + (1 - half) * present(0.0, 6.0)
            assert torch.allclose(twice, present(start, 12.0), atol=1e-5)
        lasting = torch.tensor([c in IRREVERSIBLE for c in CODES])
        assert bool((present(1.0, 120.0)[:, lasting] > 1 - 1e-5).all())
        # procedures done none, so nothing ends at once; without time nothing happens but what procedures start
        assert float(present(1.0, 0.0).min()) > 1 - 1e-5 and float(present(0.0, 0.0).max()) < 1e-5


def test_irreversible_conditions_stay_and_an_infarction_leaves_a_scar() -> None:
    model = process()
    with torch.no_grad():
        seen = a_visit(512, 12.0)
        acute, scar = CODES.index("I21"), CODES.index("I25")
        model.usual[len(CODES) + acute] = 0.0  # it resolves within months
        seen[0][:, acute], seen[0][:, scar] = 1.0, 0.0
        u = keys.uniform(keys.from_seed(5, 512), 0, "u", (len(CODES) + 2,))
        u[:, len(CODES)] = u[:, len(CODES)].clamp_min(0.3)
        after, dead, _ = model.sample(model(*seen), seen[0], u)
    lives = dead < 0.5
    for c, code in enumerate(CODES):
        if code in IRREVERSIBLE:
            assert bool((after[:, c] >= seen[0][:, c]).all())
    healed = lives & (after[:, acute] < 0.5)
    assert int(healed.sum()) > 20 and bool((after[healed, scar] == 1).all())
    assert torch.equal(after[~lives], seen[0][~lives])


@pytest.mark.slow
def test_rates_are_recovered_from_visits(tmp_path: Path) -> None:
    # one code that sets in at 0.02 and resolves at 0.1 a month, and is resolved at once by a procedure half the time
    count, c = 20_000, CODES.index("I48")
    key = keys.from_seed(77, count)
    seen = a_visit(count)
    seen[0].zero_()
    seen[0][:, c] = (keys.uniform(key, 0, "present") < 0.5).float()
    done = torch.zeros(count, len(PROCEDURES))
    done[:, 0] = (keys.uniform(key, 0, "done") < 0.5).float()
    seen[4] = done
    months = 1 + 11 * keys.uniform(key, 0, "months")
    seen[6] = months
    on, off, at_once = 0.02, 0.1, 0.5
    start = seen[0][:, c] * (1 - at_once * done[:, 0])
    usual = on / (on + off)
    chance = usual + (start - usual) * torch.exp(-(on + off) * months)
    after = torch.zeros_like(seen[0])
    after[:, c] = (keys.uniform(key, 0, "after") < chance).float()
    none = torch.zeros(count)
    model = LabelModel(CODES)
    train.fit_labels(model, Followed(*seen, after, none, none), tmp_path, steps=600, batch=1024, rate=0.05)
    with torch.no_grad():
        found = model(*seen).present[:, c]
        wanted = chance
        assert float((found - wanted).abs().mean()) < 0.02
        assert float((found - wanted).mean().abs()) < 0.01
        # what the procedure does is found, be it at once or by the months: a patient with it and without
        twin = [x.clone() for x in seen]
        twin[4] = torch.zeros_like(done)
        twin[0][:, c], twin[6] = 1.0, torch.full((count,), 3.0)
        without = model(*twin).present[:, c].mean()
        twin[4] = torch.zeros_like(done).index_fill(1, torch.tensor([0]), 1.0)
        with_it = model(*twin).present[:, c].mean()
        decay = torch.tensor(-(on + off) * 3.0).exp()
        assert float(without) == pytest.approx(float(usual + (1 - usual) * decay), abs=0.06)
        assert float(with_it) == pytest.approx(float(usual + (0.5 - usual) * decay), abs=0.06)


def test_the_world_keeps_the_contract(world: CardiacJEPAWorld) -> None:
    assert isinstance(world, LearnedWorld)
    check_world(world, relative=1e-4, absolute=1e-3, also=("latent",))


def test_the_oracle_seen_through_the_reader_keeps_it_too(made: Path, world: CardiacJEPAWorld) -> None:
    oracle = ReadOracle.by(made / "world")
    assert isinstance(oracle, Oracle)
    check_world(oracle, batch=5, steps=3, relative=1e-4, absolute=1e-3, also=("latent", "ecg_mv"))
    key = keys.from_seed(4, 6)
    shown, bare = oracle.observe(oracle.initial(key)), oracle.oracle.observe(oracle.oracle.initial(key))
    assert all(torch.equal(shown[n], bare[n]) for n in bare) and set(shown) - set(bare) == {"probe"}


def test_conditions_given_move_the_latent_and_a_latent_given_is_kept(world: CardiacJEPAWorld) -> None:
    key = keys.from_seed(1, 8)
    free = world.initial(key)
    other = 1 - free.condition
    moved = world.initial(key, {"condition": other})
    assert torch.equal(moved.condition, other)
    kept = world.initial(key, {"condition": other, "latent": free.latent + 1})
    assert torch.equal(kept.latent, free.latent + 1) and float(kept.taken.sum()) == 0
    with pytest.raises(ValueError, match="unknown factor 'weight'"):
        world.initial(key, {"weight": torch.ones(8)})
    with pytest.raises(ValueError, match=r"condition=0.5 is neither 0 nor 1"):
        world.initial(key, {"condition": other * 0 + 0.5})
    with pytest.raises(ValueError, match=r"age_years=12 a is outside 18 to 100"):
        world.initial(key, {"age_years": torch.full((8,), 12.0)})


def test_orders_are_remembered_as_the_chart_says(world: CardiacJEPAWorld) -> None:
    state = world.initial(keys.from_seed(3, 20))
    state = world.transition(state, order(20, 3, "pacemaker", "diuretic"))
    state = world.transition(state, order(20, 12, "beta_blocker"))
    chart = world.observe(state)
    alive = chart["dead"] < 0.5
    names = [q.name for q in ORDERS[:-1]]
    assert bool((chart["treated"][alive][:, names.index("pacemaker")] == 1).all())
    assert bool((chart["treated"][alive][:, names.index("diuretic")] == 0).all())
    assert bool((chart["treated"][alive][:, names.index("beta_blocker")] == 1).all())
    assert torch.allclose(chart["years"][alive], torch.tensor(1.25))
    for c, code in enumerate(CODES):
        if code in IRREVERSIBLE:
            assert bool((chart["condition"][:, c] >= world.initial(keys.from_seed(3, 20)).condition[:, c]).all())


def test_a_record_without_diagnoses_leaves_them_in_doubt(world: CardiacJEPAWorld) -> None:
    key = keys.from_seed(6, 12)
    latent = world.initial(key).latent
    chart = {"age_years": torch.full((12, 2), 70.0), "latent": torch.stack([latent + 1, latent], 1)}
    action = torch.stack([order(12, 6, "ablation", "diuretic"), torch.zeros(12, len(ORDERS))], 1)
    history = History(chart, action, torch.tensor([[0.0, 24 * 182.625]]).expand(12, -1))
    state = world.infer(history, key)
    assert torch.equal(state.latent, latent) and state.t.tolist() == [1] * 12
    assert torch.allclose(state.years, torch.tensor(0.5)) and torch.allclose(state.entry_age_years, torch.tensor(69.5))
    assert bool((state.ever[:, PROCEDURES.index("ablation")] == 1).all()) and bool((state.taken[:, 3] == 1).all())
    redrawn = [world.rekey(state, keys.fold(key, i)).condition for i in range(300)]
    assert torch.allclose(torch.stack(redrawn).mean(0), world.reader.chances(latent), atol=0.15)
    told = world.infer(history._replace(charts={**chart, "condition": torch.ones(12, 2, len(CODES))}), key)
    assert bool((world.rekey(told, keys.fold(key, 1)).condition == 1).all())
    with pytest.raises(ValueError, match="give latent, or ecg_mv"):
        world.infer(history._replace(charts={"age_years": chart["age_years"]}), key)


def test_pairs_to_explain_hold_a_change_of_patients_that_trained_nothing(made: Path, world: CardiacJEPAWorld) -> None:
    found = world.explain_pairs(keys.from_seed(8, 30))
    assert bool((found.action != 0).any(1).all()) and bool((found.days >= 0).all())
    there = found.condition.float() + found.action
    assert float(there.min()) >= 0 and float(there.max()) <= 1
    drawn = ReadOracle.by(made / "world").explain_pairs(keys.from_seed(8, 6))
    there = drawn.condition.float() + drawn.action
    assert (
        float(there.min()) >= 0 and float(there.max()) <= 1 and float((drawn.action != 0).any(1).float().mean()) > 0.3
    )


def test_the_monolith_resumes_and_its_patients_keep_to_one_fold(made: Path, tmp_path: Path) -> None:
    m = read_monolith(made / "work" / "progression-160.h5")
    first, second = pairs(m)
    assert torch.equal(m.fold[first], m.fold[second]) and len(m.patient.unique()) == 160
    again = cohort.progression_monolith(tmp_path / "again.h5", train.SEED, 160, chunk=100)
    other = read_monolith(again)
    assert torch.equal(other.ecg, m.ecg) and torch.equal(other.label, m.label)


def test_training_goes_on_where_it_was_and_the_card_says_what_it_is(made: Path, world: CardiacJEPAWorld) -> None:
    out = made / "again"
    assert train.main([*SMALL, "--out", str(out), "--work", str(made / "work")]) == 0
    assert checkpoint.sha256(out) == checkpoint.sha256(made / "world")
    card = (out / "CARD.md").read_text()
    assert "Not for clinical use" in card and "No other use of a real patient's record" in card
    config = json.loads((out / "config.json").read_text())
    assert config["kind"] == "cardiac-jepa" and config["bank"] == len(world.bank_latent)


def test_other_models_get_features_at_their_own_rate(made: Path) -> None:
    features = load_features(made / "world")
    t = torch.arange(5000) / 500.0
    slow = torch.sin(2 * torch.pi * 7.0 * t).expand(2, 12, -1)
    at_100 = torch.sin(2 * torch.pi * 7.0 * torch.arange(1000) / 100.0).expand(2, 12, -1)
    assert torch.allclose(resampled(slow, 500.0)[..., 20:-20], at_100[..., 20:-20], atol=0.01)
    fast = torch.sin(2 * torch.pi * 120.0 * t).expand(1, 12, -1)  # above what 100 Hz can hold: gone, not folded back
    assert float(resampled(fast, 500.0)[..., 20:-20].abs().max()) < 0.02
    assert features(slow, 500.0).shape == (2, 128) and torch.allclose(
        features(slow, 500.0), features(at_100, 100.0), atol=0.1
    )
    with pytest.raises(ValueError, match="no whole multiple of 100 Hz"):
        features(slow, 360.0)


def test_data_of_other_codes_is_cut_to_those_of_the_worlds(made: Path) -> None:
    m = read_monolith(made / "work" / "progression-160.h5")
    more = m._replace(label=torch.cat([m.label[:, :1] & False, m.label.flip(1)], 1), codes=("I05", *m.codes[::-1]))
    assert torch.equal(train.on_codes(more).label, m.label)
    with pytest.raises(ValueError, match=r"no label I48.*column of zeros"):
        train.on_codes(m._replace(codes=tuple("I05" if c == "I48" else c for c in m.codes)))


def test_a_missing_monolith_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        train.main(["--data", str(tmp_path / "no.h5"), "--out", str(tmp_path / "w"), "--work", str(tmp_path / "r")])
        == 2
    )
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "w").exists() and not (tmp_path / "r").exists()


@pytest.mark.parametrize("wrong", (["--latent", "0"], ["--inverse", "-2"], ["--weight", "1.5"]))
def test_a_size_that_cannot_be_is_refused_before_anything_is_drawn(wrong: list[str], tmp_path: Path, capsys) -> None:
    threads = torch.get_num_threads()
    given = ["--out", str(tmp_path / "world"), "--work", str(tmp_path / "work"), "--threads", str(threads), *wrong]
    assert train.main(given) == 2
    assert wrong[1] in capsys.readouterr().err and not list(tmp_path.iterdir())
