"""The command that makes a causal ward, its folder, and the world in the catalogue and in the ward's environments."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import pytest
import torch

import clinenv  # noqa: F401  (registers the environments)
from tests.ehr_world.causal_ward_small import language_model
from tests.ehr_world.ward_small import some_stays
from world_models import catalog, keys, tree
from world_models.checkpoint import CheckpointError
from world_models.ehr_world.causal_lm.ward import train
from world_models.ehr_world.causal_lm.ward.world import CausalWard
from world_models.testing import check_world, random_orders

SMALL = ["--width", "32", "--layers", "1", "--window", "256", "--batch", "8", "--stays", "40", "--held-out", "8"]


@pytest.fixture(scope="module", autouse=True)
def stays_at_hand() -> object:
    """The command's stays, which the oracle would take half a minute to make."""
    stays = some_stays()
    kept, train.ward_stays = (
        train.ward_stays,
        lambda work, count, held: (
            tree.take(stays, slice(0, count)),
            tree.take(stays, slice(count, count + held)),
        ),
    )
    yield
    train.ward_stays = kept


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that was trained for a moment."""
    out = tmp_path_factory.mktemp("lm") / "small"
    train.main(["--out", str(out), "--steps", "60", "--rate", "0.01", *SMALL])
    return out


def printed(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        train.main(arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_it_learns_and_the_log_says_so(made: Path) -> None:
    work = made.with_name("small.work")
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    watched = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert watched[-1] < 0.7 * watched[0]
    card = (made / "CARD.md").read_text()
    figures = dict(row.strip("| ").split(" | ") for row in card.splitlines() if row.startswith("| valid"))
    assert float(figures["valid_nats"]) < float(figures["valid_nats_frequencies"]) + 0.15, (
        "far from what counting gives"
    )


@pytest.mark.slow
def test_a_trained_one_keeps_the_contract(made: Path) -> None:
    world = catalog.load(f"causal-lm:{made}")
    assert catalog.load(f"causal-lm:{made}") is world
    check_world(world, batch=4, steps=4, relative=1e-4, absolute=1e-3)


def test_what_was_saved_is_what_was_made(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made again of the finished run, and of the language model alone: the same courses, the same seal."""
    out = tmp_path / "again"
    work = made.with_name("small.work")
    train.main(["--out", str(out), "--work", str(work), "--steps", "60", "--rate", "0.01", *SMALL])
    first, second = (catalog.load(f"causal-lm:{folder}") for folder in (made, out))
    assert first.weights_sha256 == second.weights_sha256 and printed(capsys)["parameters"] > 0
    plain = tmp_path / "plain"
    first.lm.save(plain)
    wrapped = tmp_path / "wrapped"
    train.main(["--out", str(wrapped), "--model", str(plain), "--stays", "40", "--held-out", "8"])
    third = catalog.load(f"causal-lm:{wrapped}")
    key = keys.from_seed(4, 3)
    ends = []
    for world in (first, second, third):
        state = world.initial(key)
        for t in range(3):
            state = world.transition(state, random_orders(world, key, t, given=0.3))
        ends.append(state)
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tree.leaves(ends[0]), tree.leaves(other), strict=True))
    train.main(["--out", str(wrapped), "--model", str(plain), "--stays", "40", "--held-out", "8"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "plain", "wrapped", "wrapped.work"]


def test_an_environment_runs_on_it(made: Path) -> None:
    env = gymnasium.make("EHRWard-v0", world=f"causal-lm:{made}")
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation) and info["spread_heart_rate_bpm"] > 0
    rewards = []
    for _ in range(3):
        action = env.action_space.sample(mask=info["action_mask"])
        observation, reward, terminated, _, info = env.step(action)
        assert env.observation_space.contains(observation)
        rewards.append(reward)
        if terminated:
            break
    kept = env.unwrapped.snapshot()
    again = gymnasium.make("EHRWard-v0", world=f"causal-lm:{made}")
    again.reset(seed=99)
    again.unwrapped.restore(kept)
    assert again.unwrapped.snapshot() == kept
    many = gymnasium.make_vec("EHRWard-v0", num_envs=3, world=f"causal-lm:{made}", max_episode_steps=2)
    many.reset(seed=3)
    many.action_space.seed(1)
    for _ in range(5):  # patients end and others begin in their rows
        observation, *_ = many.step(many.action_space.sample())
        assert many.observation_space.contains(observation)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("causal-lm:", "names no folder; make one with"),
        ("causal-lm:/nowhere", "no such folder; make one with python -m .*ward.train"),
        ("causal-lm:{plain}", "no world.json, so it is no world; make one with"),
        ("{plain}", "causal-lm:"),
        ("{made}", "given as causal-lm:"),
    ],
)
def test_what_is_no_world_is_refused_with_the_way_to_one(name: str, what: str, made: Path, tmp_path: Path) -> None:
    language_model("quantile").save(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=what):
        catalog.load(name.format(plain=tmp_path, made=made))


def test_options_that_do_not_go_with_it_are_refused(made: Path) -> None:
    name = f"causal-lm:{made}"
    with pytest.raises(ValueError, match="knows no cohorts"):
        catalog.load(name, cohort="sepsis")
    with pytest.raises(ValueError, match="makes steps of 4 h and no other"):
        catalog.load(name, hours_per_step=1)
    with pytest.raises(CheckpointError, match="bear the seal"):
        catalog.load(name, sha256="0" * 64)
    with pytest.raises(ValueError, match="ensemble"):
        catalog.load(f"ensemble:{name},ehr-ward-small")


@pytest.mark.parametrize("change", ["weights", "vocabulary", "tables", "setting", "added", "missing"])
def test_a_folder_that_was_changed_is_refused(change: str, made: Path, tmp_path: Path) -> None:
    world = catalog.load(f"causal-lm:{made}")
    assert isinstance(world, CausalWard)
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    files = {"weights": "model.safetensors", "vocabulary": "codec.json", "tables": "world.safetensors"}
    if change in files:
        path = folder / files[change]
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(bytes(content))
    elif change == "setting":
        path = folder / "world.json"
        path.write_text(path.read_text().replace('"window": 256', '"window": 250'))
    elif change == "added":
        (folder / "adapter_config.json").write_text("{}")
    else:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="[Rr]estore the folder"):
        catalog.load(f"causal-lm:{folder}")


def test_bad_arguments_are_refused_before_anything_is_trained(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert "no multiple of 32" in refused(["--out", out, "--width", "50"], capsys)
    narrow = ["--stays", "40", "--held-out", "8", "--window", "64"]
    assert "--window 256" in refused(["--out", out, *narrow], capsys)
    assert "no folder" in refused(["--out", out, "--work", out + "2", "--model", str(tmp_path / "none")], capsys)
    work = str(made.with_name("small.work"))
    assert "another run (steps: 60 then, 61 now" in refused(
        ["--out", out, "--work", work, "--steps", "61", "--rate", "0.01", *SMALL], capsys
    )
    assert not Path(out).exists()
