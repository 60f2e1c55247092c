"""Episodes as a library handed them to a learner, held against the plain environment with the same seed and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import clinenv  # noqa: F401 - registers the ids
from tests.toy_world import ToyWorld

SEED = 42
ROWS = 3
STEPS = 24  # of a whole course: 48 h
HAZARD = 2e-4  # of torsades, so that some courses end before their time


class Course(NamedTuple):
    """One episode, from its first observation to its last."""

    observations: np.ndarray  # float32 [T + 1, n]
    actions: np.ndarray  # [T] or [T, D]
    rewards: np.ndarray  # [T]
    terminated: np.ndarray  # bool [T]
    truncated: np.ndarray  # bool [T]


class Moment(NamedTuple):
    """One step of N rows, as numpy arrays or tensors."""

    observation: Any  # [N, n] the action was chosen on
    action: Any  # [N] or [N, D]
    reward: Any  # [N]
    following: Any  # [N, n] what came of it: the last observation of rows that ended
    terminated: Any  # bool [N]
    truncated: Any  # bool [N]


def world() -> ToyWorld:
    """Patients some of whom die of it."""
    return ToyWorld(hazard=HAZARD)


def whole(moments: Sequence[Moment]) -> list[Course]:
    """The episodes of consecutive steps, row after row, without what was left unfinished."""
    columns = [np.stack([np.asarray(m[field]) for m in moments]) for field in range(len(Moment._fields))]
    seen, action, reward, following, terminated, truncated = columns
    found = []
    for row in range(seen.shape[1]):
        begin = 0
        for end in np.flatnonzero((terminated | truncated)[:, row]):
            steps = slice(begin, end + 1)
            goes_on = np.array_equal(seen[begin + 1 : end + 1, row], following[begin:end, row])
            assert goes_on, f"row {row}: a step begins with another observation than the one before it ended with"
            found.append(
                Course(
                    np.concatenate([seen[steps, row], following[end : end + 1, row]]),
                    *(x[steps, row] for x in (action, reward, terminated, truncated)),
                )
            )
            begin = end + 1
    return found


def check(courses: Sequence[Course], env_id: str = "ECGDrug-v0", rows: int = ROWS, seed: int = SEED) -> None:
    """Every course is one whole episode of one patient, the one that the plain environment has, step for step."""
    plain = gymnasium.make(env_id, world=world())
    episodes = len(courses)
    starts = {}
    for row in range(rows):
        first, _ = plain.reset(seed=seed + row)
        for episode in range(episodes):
            starts[first.astype(np.float32).tobytes()] = row, episode
            first, _ = plain.reset()
    met = []
    for course in courses:
        assert course.observations.dtype == np.float32, "observations lost or won precision on their way"
        place = starts.get(course.observations[0].tobytes())
        assert place is not None, "an episode begins with an observation that begins none of the plain environment"
        met.append(place)
        _check_one(course, plain, *place, seed)
    assert len(set(met)) == len(met), "an episode was met twice"
    assert {row for row, _ in met} == set(range(rows)), "a row never finished an episode"
    for row in range(rows):  # nobody was left out
        assert sorted(e for r, e in met if r == row) == list(range(sum(r == row for r, _ in met)))
    assert any(c.terminated[-1] for c in courses), "none was ended by the task: too little was tested"
    assert any(c.truncated[-1] and not c.terminated[-1] for c in courses), "none was ended by the clock"


def _check_one(course: Course, plain: gymnasium.Env, row: int, episode: int, seed: int) -> None:
    told = plain.unwrapped.describe(course.observations)
    steps = len(course.rewards)
    hours = np.round(told["hours"], 2).tolist()
    assert hours == [2.0 * step for step in range(steps + 1)], f"hours run {hours[:3]} ... {hours[-1]}"
    for name in ("age_years", "weight_kg", "baseline_qtcf_ms"):
        assert np.ptp(told[name]) < 1e-3, f"{name} changes: the last observation is another patient's"
    assert not course.terminated[:-1].any() and not course.truncated[:-1].any(), "it went on after its end"
    assert course.truncated[-1] == (steps == STEPS), "truncated means 48 h, and nothing else"
    assert course.truncated[-1] or course.terminated[-1]

    seen, _ = plain.reset(seed=seed + row)
    for _ in range(episode):
        seen, _ = plain.reset()
    total = 0.0
    for step, action in enumerate(course.actions):
        assert np.array_equal(seen, course.observations[step]), f"step {step} shows something else"
        seen, reward, terminated, truncated, _ = plain.step(action)
        total += reward
        assert (terminated, truncated) == (course.terminated[step], course.truncated[step]), f"flags of step {step}"
    assert np.array_equal(seen, course.observations[-1]), "the last observation is not that of the last step"
    np.testing.assert_allclose(np.sum(course.rewards, dtype=np.float64), total, rtol=1e-5, atol=1e-5)
