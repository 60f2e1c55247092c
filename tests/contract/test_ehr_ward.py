"""The ward's environments: every id and observation, the mask across autoresets, row i, and what the page promises."""

from __future__ import annotations

import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ehr_ward.env import EHRWardEnv
from clinenv.envs.ehr_ward.event_view import KINDS
from clinenv.testing import check_vector_env
from tests.toy_ward import InferringToyWard, ToyWard
from world_models.quantities.ward import INQUIRIES, ORDERS, inquiry_index, order_index
from world_models.testing import check_world

IDS = ("EHRWard-v0", "EHRWardDose-v0")
OBSERVATIONS = ("chart", "events", "text")
POTASSIUM = inquiry_index("potassium_mmol_l")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(env_id: str = "EHRWard-v0", **kwargs) -> gymnasium.Env:
    return gymnasium.make(env_id, **{"world": ToyWard(), **kwargs})


def vector(num_envs: int = 3, env_id: str = "EHRWard-v0", **kwargs):
    kwargs = {"world": ToyWard(hazard=0.1), **kwargs}
    return gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


def order(*names: str) -> np.ndarray:
    action = np.zeros(len(ORDERS), dtype=np.int8)
    action[[order_index(name) for name in names]] = 1
    return action


@pytest.mark.parametrize("world", [ToyWard(), InferringToyWard()], ids=["toy", "inferring"])
def test_the_stand_in_keeps_the_contract_of_a_world(world) -> None:
    check_world(world, batch=3, steps=3)


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("env_id", IDS)
def test_checkers_are_silent(env_id: str, observation: str) -> None:
    for tiers in ({}, {"noise": "ward", "missingness": "much"}):
        env = make(env_id, observation=observation, **tiers).unwrapped
        check_env(env, skip_render_check=True)
        if observation != "text":  # Stable-Baselines3 knows no strings
            pytest.importorskip("stable_baselines3.common.env_checker").check_env(env)


def test_the_oracle_passes_the_checkers_and_row_i_is_the_single_environment() -> None:
    single = gymnasium.make("EHRWard-v0", world="oracle", hours_per_step=1, cohort="sepsis")
    assert single.unwrapped.world.name == "ward-oracle" and single.unwrapped.world.hours_per_step == 1.0
    many = vector(2, world="oracle", hours_per_step=1, cohort="sepsis")
    many.action_space.seed(0)
    for env in (single, many):  # 14 days in hours are more than the id's 84 steps
        with pytest.warns(UserWarning, match="336 steps.*84.*max_episode_steps=336"):
            seen, _ = env.reset(seed=8)
    check_env(single.unwrapped, skip_render_check=True)
    actions = [many.action_space.sample() for _ in range(3)]
    courses = [many.step(a) for a in actions]
    for row in range(2):
        assert np.array_equal(single.reset(seed=8 + row)[0], seen[row])
        for action, (observation, reward, terminated, _, infos) in zip(actions, courses, strict=True):
            told = single.step(action[row])
            assert np.array_equal(told[0], observation[row])
            assert (told[1], told[2]) == (reward[row], terminated[row])
            assert all(np.array_equal(infos[name][row], value) for name, value in told[4].items())


def test_each_task_has_its_own_oracle() -> None:
    ecg = gymnasium.make("ECGDrug-v0", world="oracle")
    ward = gymnasium.make("EHRWardDose-v0", world="oracle")
    assert (ecg.unwrapped.world.name, ward.unwrapped.world.name) == ("oracle", "ward-oracle")
    with pytest.raises(ValueError, match="observes"):
        gymnasium.make("EHRWard-v0", world=ecg.unwrapped.world)


@pytest.mark.parametrize("env_id", IDS)
def test_it_is_n_single_environments(env_id: str) -> None:
    world = ToyWard(hazard=0.2)
    check_vector_env(
        lambda **kwargs: vector(env_id=env_id, world=world, **kwargs),
        lambda: gymnasium.make(env_id, world=world),
        num_envs=2,
        steps=10,
    )


@pytest.mark.parametrize("observation", ["events", "text"])
def test_it_is_n_single_environments_whatever_is_observed(observation: str) -> None:
    world = ToyWard(hazard=0.2)
    kwargs = {"observation": observation, "noise": "ward", "missingness": "much", "hours": 12}
    check_vector_env(
        lambda **given: vector(world=world, **kwargs, **given),
        lambda: gymnasium.make("EHRWard-v0", world=world, **kwargs),
        num_envs=2,
        steps=5,
    )


def test_the_mask_follows_autoreset() -> None:
    env = vector(4, world=ToyWard(hazard=0.4), autoreset_mode=AutoresetMode.SAME_STEP)
    _, infos = env.reset(seed=1)
    assert infos["action_mask"].dtype == np.int8 and infos["action_mask"].shape == (4, 69)
    ended = 0
    for _ in range(6):
        *_, infos = env.step(np.tile(order(INQUIRIES[POTASSIUM].order, "ultrafiltration_ml_h"), (4, 1)))
        for row in range(4):
            waits = env.unwrapped.chart["inquiry_pending"][row, POTASSIUM] > 0.5
            assert infos["action_mask"][row, POTASSIUM] == (not waits)
        for row in np.flatnonzero(infos.get("_final_info", np.zeros(4, bool))):
            ended += 1
            assert (
                infos["final_info"]["action_mask"].shape == (4, 69) and infos["final_info"]["refused_orders"][row] >= 1
            )
            assert infos["action_mask"][row, POTASSIUM] == 1, "the new patient awaits nothing"
    assert ended > 2


def test_the_same_seed_gives_the_same_course() -> None:
    for observation in OBSERVATIONS:
        courses = []
        for _ in range(2):
            env = make(observation=observation, noise="ward", missingness="some")
            env.action_space.seed(4)
            courses.append([env.reset(seed=9)[0], *[env.step(env.action_space.sample())[:2] for _ in range(4)]])
        assert data_equivalence(courses[0], courses[1], exact=True)


def test_the_stay_ends_after_fourteen_days_whatever_the_step() -> None:
    for hours_per_step, steps in ((12.0, 28), (4.0, 84)):
        world = ToyWard(hours_per_step=hours_per_step, hazard=0.0, leaves=0.0)
        env = vector(1, world=world, autoreset_mode="Disabled")
        env.reset(seed=0)
        nothing = np.zeros((1, 69), dtype=np.int8)
        for _ in range(steps - 1):
            assert not env.step(nothing)[3][0]
        assert env.step(nothing)[3][0]
    with pytest.raises(ValueError, match="hours_per_step=6.*4 h"):
        make(hours_per_step=6)


def test_what_was_never_ordered_says_so() -> None:
    env = make(world=ToyWard(hazard=0.0, leaves=0.0)).unwrapped
    said = env.describe(env.reset(seed=0)[0])
    assert said[f"inquiry_seen[{POTASSIUM}]"] == 0 and said[f"inquiry_age_hours[{POTASSIUM}]"] == 336
    assert said["potassium_mmol_l"] == pytest.approx(4.2, rel=1e-4)
    said = env.describe(env.step(order(INQUIRIES[POTASSIUM].order))[0])
    assert said[f"inquiry_pending[{POTASSIUM}]"] == 1 and said[f"inquiry_seen[{POTASSIUM}]"] == 0
    said = env.describe(env.step(order())[0])
    assert said[f"inquiry_seen[{POTASSIUM}]"] == 1 and said[f"inquiry_age_hours[{POTASSIUM}]"] == pytest.approx(
        7, abs=1e-3
    )
    assert said["potassium_mmol_l"] == pytest.approx(float(env.chart["potassium_mmol_l"]), rel=1e-4)


def test_the_page_states_the_spaces_as_they_are() -> None:
    layout = EHRWardEnv(world=ToyWard()).episodes.interface.layout
    rows = re.findall(r"^ *\| (\d[\d-]*) \|" + r"(.+?)\|" * 6 + "$", EHRWardEnv.__doc__, re.MULTILINE)
    rows = [row for row in rows if not row[1].strip().startswith("inquire_")]
    last = -1
    for num, label, unit, low, high, centre, scale in rows:
        if not re.match(r"-?[\d.]+", low.strip()):
            continue  # a row of the action table
        start, _, stop = num.partition("-")
        assert int(start) == last + 1
        last = int(stop or start)
        assert layout.names[int(start)].split("[")[0] == label.strip() == layout.names[last].split("[")[0]
        assert layout.units[last] == unit.strip() and bool(layout.log[last]) == ("(log)" in centre)
        stated = [float(x.split()[0]) for x in (low, high, centre, scale)]
        found = [x[last] for x in (layout.low, layout.high, layout.centre, layout.scale)]
        assert stated == pytest.approx([float(x) for x in found], rel=1e-3), label
    assert last == len(layout.names) - 1 == 228
    menu = dict(re.findall(r"\b(\d+) \| ([a-z]\w*)", EHRWardEnv.__doc__.split("## Observation Space")[0]))
    assert [menu[str(i)] for i in range(69)] == [q.name for q in ORDERS]
    for section in (
        "Description",
        "Action Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Information",
        "Arguments",
    ):
        assert f"## {section}" in EHRWardEnv.__doc__
    assert "Not for clinical use" in EHRWardEnv.__doc__


def test_events_are_the_set_of_the_step() -> None:
    env = make(observation="events", world=ToyWard(hazard=0.0, leaves=0.0))
    first, _ = env.reset(seed=0)
    vital = [i for i, q in enumerate(INQUIRIES) if q.kind == "vital"]
    assert first["item"][first["mask"] == 1].tolist() == vital and set(first["kind"][: len(vital)]) == {
        KINDS.index("result")
    }
    action = order(INQUIRIES[POTASSIUM].order, "furosemide_mg", "ultrafiltration_ml_h")
    shown = env.step(action)[0]
    events = list(zip(shown["kind"].tolist(), shown["item"].tolist(), shown["value"].tolist(), strict=True))
    furosemide = order_index("furosemide_mg")
    assert events[:2] == [(1, POTASSIUM, 1.0), (2, furosemide, pytest.approx(40 / 240))], "what was refused is no event"
    assert shown["mask"].sum() == 2 and not shown["item"][2:].any()
    later = env.step(order())[0]
    assert later["mask"].sum() == 1 and (later["kind"][0], later["item"][0]) == (KINDS.index("result"), POTASSIUM)
    assert later["age_hours"][0] == pytest.approx(7.0)


def test_the_note_says_what_the_chart_says() -> None:
    env = make(observation="text", world=ToyWard(hazard=0.0, leaves=0.0)).unwrapped
    env.reset(seed=0, options={"age_years": 61, "sex_female": 1, "diabetes": 1, "weight_kg": 70})
    note = env.step(order(INQUIRIES[POTASSIUM].order, "red_cells_units"))[0]
    assert (
        "A woman of 61 years, 70 kg" in note
        and "diabetes" in note
        and "Given in the last 4 h: red cells 1 units." in note
    )
    assert "Results awaited: potassium." in note and "potassium" in note.split("Never measured:")[1]
    note = env.step(order())[0]
    value = float(env.chart["potassium_mmol_l"])
    assert f"potassium {value:.3g} mmol/L (7 h ago" in note.split("Earlier results")[0]
    for _ in range(26):
        later = env.step(order())[0]
    assert f"potassium {value:.3g} mmol/L (111 h ago" in later
    with pytest.raises(ValueError, match="speaks for itself"):
        env.describe(note)
    with pytest.raises(ValueError, match="no tensors"):
        vector(observation="text", tensors=True)


def test_a_charted_value_keeps_its_reading_error_and_a_lost_test_never_comes() -> None:
    env = make(noise="ward", world=ToyWard(hazard=0.0, leaves=0.0)).unwrapped
    read = [env.describe(env.reset(seed=2)[0])["map_mmhg"]]
    read += [env.describe(env.step(order())[0])["map_mmhg"] for _ in range(3)]
    assert read == [read[0]] * 4 and read[0] != pytest.approx(float(env.chart["map_mmhg"]), abs=1e-3)
    assert env.describe(env.step(order("inquire_map"))[0])["map_mmhg"] != read[0]
    many = vector(200, world=ToyWard(hazard=0.0, leaves=0.0), missingness="much")
    many.reset(seed=0)
    many.step(np.tile(order(INQUIRIES[POTASSIUM].order), (200, 1)))
    out = many.unwrapped.chart["inquiry_pending"][:, POTASSIUM]
    assert 0.6 < float(out.mean()) < 0.8, "three in ten are lost"


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_a_snapshot_brings_everything_back(observation: str) -> None:
    kwargs = {
        "observation": observation,
        "noise": "clinic",
        "missingness": "some",
        "world": ToyWard(hazard=0.0, leaves=0.0),
    }
    env = make(**kwargs).unwrapped
    env.reset(seed=3)
    env.action_space.seed(0)
    plan = [env.action_space.sample() for _ in range(4)]
    shown = env.step(plan[0])[0]
    kept = env.snapshot()
    future = [env.step(a) for a in plan[1:]]
    for other in (env, make(**kwargs).unwrapped):
        assert data_equivalence(other.restore(kept), shown, exact=True)
        assert data_equivalence([other.step(a) for a in plan[1:]], future, exact=True)
    env.restore(kept, seed=1)
    assert not data_equivalence([env.step(a) for a in plan[1:]], future, exact=True)


@pytest.mark.parametrize(
    ("env_id", "observation", "policy"),
    [
        ("EHRWard-v0", "chart", "MlpPolicy"),
        ("EHRWard-v0", "events", "MultiInputPolicy"),
        ("EHRWardDose-v0", "chart", "MlpPolicy"),
    ],
)
def test_ppo_trains(env_id: str, observation: str, policy: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = make(env_id, observation=observation)
    model = sb3.PPO(
        policy, env, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu", policy_kwargs={"net_arch": [8]}
    )
    model.learn(32)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


def test_the_chart_is_drawn_and_frames_are_of_one_size() -> None:
    env = make(render_mode="rgb_array", world=ToyWard(hazard=0.0, leaves=0.0))
    env.reset(seed=0)
    frames = [env.render()]
    env.action_space.seed(0)
    for _ in range(3):
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert {(f.dtype, f.shape) for f in frames} == {(np.dtype(np.uint8), frames[0].shape)} and frames[0].ndim == 3
    assert all(not np.array_equal(a, b) for a, b in zip(frames, frames[1:], strict=False))
    check_env(make(render_mode="rgb_array").unwrapped, skip_render_check=False)
    rows = vector(2, render_mode="rgb_array")
    rows.reset(seed=0)
    assert len(rows.render()) == 2 and not np.array_equal(*rows.render())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"observation": "ecg"}, "chart, events, text"),
        ({"patients": "/no/such/folder"}, "reads no folders"),
        ({"world": "oracle", "hours_per_step": 5.5}, "whole number of hours"),
        ({"world": "oracle", "cohort": "children"}, "no cohort"),
        ({"world": "no-such-world"}, "ward-oracle"),
    ],
)
def test_bad_arguments_name_the_choices(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**kwargs)
