"""One test for every door: what its library hands to a learner is what happened."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from tests.doors import collectors
from tests.doors.courses import ROWS, SEED, STEPS, Moment, check, whole

CONTINUOUS = {"rsl_rl", "omnisafe"}  # these know no menus
DOORS = (
    "stable_baselines3",
    "sb3_contrib",
    "cleanrl",
    "torchrl",
    "rllib",
    "pufferlib",
    "skrl",
    "rsl_rl",
    "omnisafe",
    "minari",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
@pytest.mark.parametrize("door", DOORS)
def test_whole_courses_of_one_patient_each(door: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    courses = getattr(collectors, door)(tmp_path)
    assert len(courses) >= 2 * ROWS
    rows = 2 * ROWS if door == "minari" else ROWS
    check(courses, "ECGDrugContinuous-v0" if door in CONTINUOUS else "ECGDrug-v0", rows)


def by_hand(mode: AutoresetMode, read_as: AutoresetMode) -> list:
    """Courses of a vector environment in one mode, read as if it had another."""
    env = collectors.vector(autoreset_mode=mode)
    luck = np.random.default_rng(0)
    seen, _ = env.reset(seed=SEED)
    moments, over = [], np.zeros(ROWS, bool)
    for _ in range(3 * (STEPS + 2)):
        action = luck.integers(0, 9, ROWS)
        shown, reward, terminated, truncated, info = env.step(action)
        following = shown.copy()
        if read_as == AutoresetMode.SAME_STEP and "final_obs" in info:
            rows = info["_final_obs"]
            following[rows] = np.stack(info["final_obs"][rows])
        moments.append(Moment(seen, action, reward, following, terminated, truncated))
        seen = shown
    if read_as == AutoresetMode.SAME_STEP:
        return whole(moments)
    per_row = []
    for row in range(ROWS):  # the step after an end is none
        kept, over = [], False
        for m in moments:
            if not over:
                kept.append(Moment(*(x[row : row + 1] for x in m)))
            over = bool(m.terminated[row] | m.truncated[row])
        per_row += whole(kept)
    return per_row


def test_the_check_itself_takes_what_is_right_and_finds_what_is_wrong() -> None:
    right = [(mode, mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)]
    for mode, read_as in right:
        check(by_hand(mode, read_as))
    with pytest.raises(AssertionError, match="hours|another patient|begins none"):
        check(by_hand(AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP))  # as RLlib would
    courses = by_hand(AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP)
    first = courses[0]
    for harmed, said in (
        (first._replace(observations=np.roll(first.observations, 1, 0)), "begins none"),
        (first._replace(rewards=first.rewards + 1.0), "Not equal"),
        (first._replace(truncated=~first.truncated, terminated=~first.terminated), "went on after"),
        (first._replace(observations=np.concatenate([first.observations[:-1], courses[1].observations[:1]])), "hours"),
    ):
        with pytest.raises(AssertionError, match=said):
            check([harmed, *courses[1:]])


def test_the_plain_environment_is_the_yardstick() -> None:
    """What the courses are held against is Gymnasium's own environment, without any of the doors."""
    env = gymnasium.make("ECGDrug-v0", world=collectors.world())
    assert type(env.unwrapped).__module__ == "clinenv.envs.ecg_drug.env"
