"""The ward that is shipped: the contract, its environment, a start from nothing, and checkpoints that are not it."""

from __future__ import annotations

import copy
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import clinenv  # noqa: F401 - registers the ids
from tests.ehr_world.ward_small import some_stays, tiny
from world_models import catalog, checkpoint, keys
from world_models.data.ehr.episode import build_episode
from world_models.ehr_world.set_outcome.config import BACKBONES
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.quantities.ward import INQUIRIES, ORDERS
from world_models.testing import check_world

NAME = "ehr-ward-small"
TESTS = len(INQUIRIES)


@pytest.fixture(scope="module")
def world() -> EHRWorldModel:
    if not (catalog.weights_folder(NAME) / "model.safetensors").is_file():
        pytest.skip(f"world {NAME} has no weights here; train it first")
    return catalog.load(NAME)


def test_the_contract(world) -> None:
    check_world(world, batch=4, steps=4, relative=1e-4, absolute=1e-3)


def test_the_environment_on_it(world) -> None:
    env = gymnasium.make("EHRWard-v0", world=world)
    check_env(env.unwrapped, skip_render_check=True)
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(env.unwrapped)
    many = gymnasium.make_vec("EHRWard-v0", num_envs=3, vectorization_mode="vector_entry_point", world=world)
    seen, _ = many.reset(seed=5)
    many.action_space.seed(0)
    actions = [many.action_space.sample() for _ in range(3)]
    courses = [many.step(action) for action in actions]
    for row in range(3):
        np.testing.assert_allclose(env.reset(seed=5 + row)[0], seen[row], rtol=1e-4, atol=1e-3)
        for action, (observation, reward, ended, *_) in zip(actions, courses, strict=True):
            told = env.step(action[row])
            np.testing.assert_allclose(told[0], observation[row], rtol=1e-4, atol=1e-3)
            assert told[1] == pytest.approx(reward[row], rel=1e-3, abs=1e-3) and told[2] == ended[row]
            if ended[row]:
                break


@pytest.mark.parametrize("recorded", [True, False], ids=["triage", "nothing"])
@pytest.mark.parametrize("which", [*BACKBONES, "shipped"])
def test_a_stay_of_which_only_the_door_is_known_answers_every_test(which: str, recorded: bool, request) -> None:
    """Position 0 alone: as generated patients have it, with triage, and as recorded stays have it, with nothing."""
    model = request.getfixturevalue("world") if which == "shipped" else tiny(0, which)
    stays = some_stays()
    door = Stays(*stays[:2], *(x[:, :1] for x in stays[2:]))
    door = door if recorded else door._replace(asked=torch.zeros_like(door.asked))
    state = model.resample_pending(believe(model, door, keys.from_seed(1, 48), torch.zeros(48)))
    assert state.t.tolist() == [0] * 48 and bool(state.seen.any()) == recorded
    every = torch.cat([torch.ones(48, TESTS), torch.zeros(48, len(ORDERS) - TESTS)], -1)
    after = model.transition(state, every)
    answered = (after.seen | after.pending).float().mean(0)
    assert float(answered.amin()) > 0.5, INQUIRIES[int(answered.argmin())].name
    for q in model.measures:
        value = model.observe(after)[q.name]
        assert bool(((value >= q.low) & (value <= q.high)).all()), q.name
    assert all(bool((sd > 0).all()) for sd in model.spread(state).values())


@pytest.mark.parametrize("which", BACKBONES)
def test_a_recorded_stay_is_taken_over_at_its_very_first_hour(which: str) -> None:
    start = datetime(2150, 3, 1, 8)
    episode = build_episode(
        subject_id=1,
        stay_id=1,
        started=start,
        admitted=start,
        discharged=start + timedelta(hours=40),
        inquiries=[],
        interventions=[],
        age_years=70.0,
        sex_female=True,
        died_in_hospital=False,
    )
    model = tiny(0, which)
    state = model.infer_stay(episode, keys.from_seed(3, 4), hours=0.0)
    assert state.t.tolist() == [0] * 4 and not bool(state.seen.any())
    everything = torch.tensor([[q.high for q in ORDERS]]).expand(4, -1)
    assert model.transition(state, everything).t.tolist() == [1] * 4


def spoilt(folder: Path, change) -> Path:
    """A copy of the shipped world whose config `change` has edited."""
    shutil.copytree(catalog.weights_folder(NAME), folder)
    config = json.loads((folder / "config.json").read_text())
    before = copy.deepcopy(config)
    change(config)
    assert config != before
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint.seal(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["vocabulary"]["items"][0].update(name="foo"), r"lacks \['foo'\] and adds \['sodium_mmol_l'\]"),
        (lambda c: c["vocabulary"]["items"].reverse(), "39 inquiries.*the same names in another order"),
        (lambda c: c["vocabulary"]["treatments"].pop(), "29 interventions.*adds.*'ultrafiltration_ml_h'"),
        (lambda c: c["vocabulary"]["items"][1].update(unit="mg/dL"), "potassium_mmol_l has unit 'mg/dL'.*'mmol/L'"),
        (lambda c: c["vocabulary"]["items"][1].update(high=99.0), "potassium_mmol_l has high 99.0, this version"),
        (
            lambda c: c["vocabulary"]["treatments"][0].update(unit="L"),
            "saline_ml has unit 'L', this version's ward 'mL'",
        ),
        (lambda c: c["vocabulary"]["treatments"][0].update(high=4.0), "saline_ml has high 4.0, this version's.*4000"),
        (
            lambda c: c["vocabulary"]["static"][0].update(name="height_cm"),
            "static feature 0 is 'height_cm'.*'age_years'",
        ),
        (lambda c: c["vocabulary"]["static"].pop(), "11 in all.*'12'"),
        (lambda c: c["vocabulary"]["items"][0]["edges"].reverse(), "edges of sodium_mmol_l do not ascend"),
        (lambda c: c["vocabulary"].update(hours_per_step=0.0), "hours_per_step=0 must be above 0 h"),
        (lambda c: c["vocabulary"]["items"][0].pop("edges"), "vocabulary.*lacks the field 'edges'"),
        (lambda c: c.pop("vocabulary"), "holds no vocabulary.*train the world again"),
        (lambda c: c.update(hidden=64), "does not hold the tensors expected here.*train it again"),
        (lambda c: c.update(hidden="wide"), "hidden must be of type int, not 'wide'"),
        (lambda c: c.update(backbone="lstm"), "unknown backbone 'lstm'; there are: gru, transformer"),
    ],
)
def test_a_checkpoint_of_another_vocabulary_is_refused(world, tmp_path, change, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        catalog.load(spoilt(tmp_path / "other", change))


def test_orders_that_do_not_exist_and_doses_out_of_range_are_named(world) -> None:
    env = gymnasium.make("EHRWardDose-v0", world=world).unwrapped
    env.reset(seed=1)
    kept = env.snapshot()
    dose = np.zeros(len(ORDERS), dtype=np.float32)
    dose[[q.name for q in ORDERS].index("furosemide_mg")] = 500.0
    with pytest.raises(ValueError, match=r"500.*furosemide_mg.*outside"):
        env.step(dose)
    with pytest.raises(ValueError, match=r"shape \(1, 69\), got \(1, 70\)"):
        env.step(np.zeros(70, dtype=np.float32))
    with pytest.raises(ValueError, match="age_years=300 a is outside 18 to 100"):
        env.reset(options={"age_years": 300})
    assert env.snapshot() == kept
