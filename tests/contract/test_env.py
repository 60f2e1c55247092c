"""The single environment: Gymnasium's and Stable-Baselines3's checkers without a warning, and its own promises."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import clinenv  # noqa: F401 - registers the ids
from tests.contract.worlds import EXACTNESS, IDS, world_named
from tests.toy_world import ToyWorld

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(env_id: str = "ECGDrug-v0", **kwargs) -> gymnasium.Env:
    return gymnasium.make(env_id, **{"world": ToyWorld(), **kwargs})


@pytest.mark.parametrize("world", EXACTNESS)
@pytest.mark.parametrize("observation", ["chart", "ecg", "latent"])
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_and_sb3_checkers_are_silent(env_id: str, observation: str, world: str) -> None:
    found = world_named(world)
    if observation == "latent" and world == "oracle":
        world_named("ecg-wm-small")  # whose encoder is needed
    env = make(env_id, world=found, observation=observation)
    check_env(env.unwrapped, skip_render_check=True)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(env.unwrapped)


@pytest.mark.parametrize(("noise", "missingness"), [("ward", "much"), ("clinic", "some")])
@pytest.mark.parametrize("observation", ["chart", "ecg", "latent"])
def test_checkers_are_silent_in_every_tier(noise: str, missingness: str, observation: str) -> None:
    env = make(observation=observation, noise=noise, missingness=missingness)
    check_env(env.unwrapped, skip_render_check=True)


def test_rendering_passes_the_checker() -> None:
    pytest.importorskip("clinenv.rendering.ecg_paper")
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    env.step(4)
    frame = env.render()
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3
    check_env(make().unwrapped)


def test_same_seed_same_course_and_the_next_patient_is_another() -> None:
    env = make(noise="ward", missingness="some")
    courses = []
    for _ in range(2):
        first, _ = env.reset(seed=5)
        course = [first, *[env.step(a)[0] for a in (0, 4, 2)], env.reset()[0], env.reset()[0]]
        courses.append(course)
    assert data_equivalence(courses[0], courses[1], exact=True)
    assert not np.array_equal(courses[0][0], courses[0][-2])
    assert not np.array_equal(courses[0][-1], courses[0][-2])
    fresh = [make().reset()[0] for _ in range(2)]
    assert not np.array_equal(*fresh), "without a seed every environment meets other patients"


def test_same_seed_in_another_process() -> None:
    code = (
        "import gymnasium, clinenv, hashlib\nfrom tests.toy_world import ToyWorld\n"
        "e = gymnasium.make('ECGDrug-v0', world=ToyWorld(), noise='ward', missingness='some')\n"
        "h = hashlib.sha256(e.reset(seed=3)[0].tobytes())\n"
        "for a in (4, 0, 8, 5): h.update(e.step(a)[0].tobytes())\nprint(h.hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert there.returncode == 0, there.stderr
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(code, {})
    assert there.stdout == here.getvalue() and len(there.stdout) > 60


def test_options_fix_the_patient() -> None:
    env = make()
    for options in ({"age_years": 77, "sex_female": 1}, {"factors": {"age_years": 77, "sex_female": 1}}):
        observation, _ = env.reset(seed=1, options=options)
        said = env.unwrapped.describe(observation)
        assert said["age_years"] == pytest.approx(77, abs=1e-3) and said["sex_female"] == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"age": 70}, "unknown factor 'age'.*age_years"),
        ({"age_years": 300}, "age_years=300 a is outside 18 to 100"),
        ({"age_years": "old"}, "not a number"),
        ({"age_years": float("nan")}, "outside"),
        ({"age_years": [1.0, 2.0]}, "shape"),
        ({"factors": {"age_years": 70}, "age_years": 71}, "both"),
        ({"factors": 3}, "must map"),
    ],
)
def test_bad_options_are_refused_and_nothing_changes(options: dict, words: str) -> None:
    env = make()
    env.reset(seed=1)
    before = env.unwrapped.snapshot()
    with pytest.raises(ValueError, match=words):
        env.reset(options=options)
    assert env.unwrapped.snapshot() == before


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"observation": "pixels"}, "chart, ecg, latent"),
        ({"noise": "loud"}, "none, clinic, ward"),
        ({"missingness": "all"}, "none, some, much"),
        ({"hours": -1}, "hours=-1"),
        ({"hours": "two days"}, "hours='two days'"),
        ({"render_mode": "ansi"}, "rgb_array"),
        ({"action_unit": "g"}, "scaled, mg"),
        ({"world": "no-such-world"}, "oracle.*ecg-wm-small"),
        ({"cohort": "long-qt"}, "cohort"),
        ({"world": ToyWorld(latent=False), "patients": "/no/such/folder"}, "folder"),
    ],
)
def test_bad_arguments_name_the_choices(kwargs: dict, words: str) -> None:
    warnings.simplefilter("ignore")
    with pytest.raises((ValueError, gymnasium.error.Error), match=words):
        make("ECGDrugContinuous-v0", **kwargs)


def test_bad_actions() -> None:
    menu, doses = make().unwrapped, make("ECGDrugContinuous-v0").unwrapped
    menu.reset(seed=0)
    doses.reset(seed=0)
    for action in (9, -1, 1.5, [0, 1]):
        with pytest.raises(ValueError, match="menu"):
            menu.step(action)
    for action in ([2.0, 0, 0, 0], [float("nan")] * 4):
        with pytest.raises(ValueError, match="ClipAction"):
            doses.step(np.array(action, dtype=np.float32))
    with pytest.raises(ValueError, match="shape"):
        doses.step(np.zeros(3, dtype=np.float32))


def test_continuous_doses_are_the_milligrams_they_say() -> None:
    scaled, mg = make("ECGDrugContinuous-v0").unwrapped, make("ECGDrugContinuous-v0", action_unit="mg").unwrapped
    scaled.reset(seed=0)
    mg.reset(seed=0)
    a = scaled.step(np.array([0.5, -1.0, 1.0, 0.0], dtype=np.float32))
    b = mg.step(np.array([500.0, 0.0, 120.0, 0.0], dtype=np.float32))
    assert data_equivalence(a, b, exact=True)
    assert scaled.describe(a[0])["total_dose_mg[0]"] == pytest.approx(500.0)
    assert mg.action_space.high.tolist() == pytest.approx([1000.0, 0.5, 120.0, 400.0])


def test_stepping_past_the_end_is_refused() -> None:
    env = make(hours=4).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_a_time_limit_that_cuts_the_stay_short_is_said() -> None:
    env = make(hours=96)
    with pytest.warns(UserWarning, match="max_episode_steps=48"):
        env.reset(seed=0)
    env = make(hours=96, max_episode_steps=48, world=ToyWorld(hazard=0.0))
    with pytest.warns(UserWarning, match="as well"):
        env.reset(seed=0)
    steps = 1
    while not (lambda r: r[2] or r[3])(env.step(0)):
        steps += 1
    assert steps == 48


@pytest.mark.parametrize("observation", ["chart", "ecg", "latent"])
def test_a_snapshot_brings_patient_luck_and_observation_back(observation: str) -> None:
    kwargs = {"observation": observation, "noise": "ward", "missingness": "much", "world": ToyWorld(hazard=0.0)}
    env = make(**kwargs).unwrapped
    env.reset(seed=3)
    shown = [env.step(a)[0] for a in (4, 0, 6)][-1]
    kept = env.snapshot()
    assert isinstance(kept, bytes)
    future = [env.step(a) for a in (4, 4, 0, 2)]
    for other in (env, make(**kwargs).unwrapped):  # the same one, and one that never saw the patient
        assert data_equivalence(other.restore(kept), shown, exact=True)
        assert data_equivalence([other.step(a) for a in (4, 4, 0, 2)], future, exact=True)
    env.restore(kept, seed=1)
    elsewhere = [env.step(a) for a in (4, 4, 0, 2)]
    assert not data_equivalence(elsewhere, future, exact=True)
    assert env.snapshot() != kept


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    env = make().unwrapped
    with pytest.raises(ValueError, match="reset"):
        env.snapshot()
    env.reset(seed=3)
    kept = env.snapshot()
    for wrong in (b"", b"nonsense" * 20, kept[:-100]):
        with pytest.raises(ValueError, match="snapshot"):
            env.restore(wrong)
    other = ToyWorld()
    other.name = "another"
    with pytest.raises(ValueError, match="another"):
        make(world=other).unwrapped.restore(kept)
    with pytest.raises(ValueError, match="another observation"):
        make(observation="ecg").unwrapped.restore(kept)


def test_info_says_what_the_page_says() -> None:
    env = make()
    _, info = env.reset(seed=0)
    assert {"hours", "support", "spread_qtcf_ms"} <= set(info)
    assert info["cost"] == 0.0 and not any(info[name] for name in info if name.startswith("reward_"))
    said = set(info)
    _, reward, _, _, info = env.step(4)
    assert set(info) == said
    terms = {name: value for name, value in info.items() if name.startswith("reward_")}
    assert set(terms) == {"reward_rhythm", "reward_qt_toxicity", "reward_dose_burden", "reward_torsades"}
    assert sum(terms.values()) == pytest.approx(reward, abs=1e-6)
    assert info["hours"] == 2.0 and info["cost"] in (0.0, 1.0) and info["support"] is True
    assert all(type(value) in (float, bool) for value in info.values())
    _, plain = make(uncertainty=False).reset(seed=0)
    assert set(env.reset(seed=0)[1]) - set(plain) == {name for name in info if name.startswith("spread_")}
