"""What an environment or a training command is asked for is refused by its value, before anything is made."""

from __future__ import annotations

import copy
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from agents.sb3 import train as sb3
from clinenv.commands.main import main as cli
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld
from world_models import catalog
from world_models.cardiac_jepa import train as jepa
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.devices import checked_device
from world_models.ecg_wm import train as ecg_wm
from world_models.ehr_world import train as ehr_world
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.vocabulary import StaticFeature, Vocabulary

BOTH = [
    ({"world": None}, "world=None is no world; give a name"),
    ({"world": 5}, "world=5 is no world"),
    ({"world": ""}, "unknown world ''"),
    ({"task": "sleep"}, "task='sleep' is no task"),
    ({"cohort": ["typical"]}, r"cohort=\['typical'\] is a list"),
    ({"hours": 10**400}, "is no length of an episode"),
    ({"hours": 1e300}, r"hours=1e\+300 is no length of an episode"),
    ({"hours": 1002}, "hours=1002: world 'oracle' tells time up to 1000 h"),
    ({"hours_per_step": "2"}, "hours_per_step='2' is no length of a step"),
    ({"hours_per_step": True}, "hours_per_step=True is no length of a step"),
    ({"hours_per_step": float("inf")}, "hours_per_step=inf is no length of a step"),
    ({"hours_per_step": 1e300}, "above 0 and at most 168"),
    ({"device": "tpu"}, "device='tpu' cannot be used here"),
    ({"device": "meta"}, "device='meta' cannot be used here"),
    ({"device": ""}, "device='' cannot be used here"),
    ({"device": 5}, "device=5 is a int, no name of a device"),
    ({"uncertainty": "no"}, "uncertainty='no' is neither True nor False"),
    ({"patients": None}, 'patients=None is a NoneType; give "generated"'),
    ({"patients": [1]}, r"patients=\[1\] is a list"),
]
VECTOR = [
    ({"tensors": "yes"}, "tensors='yes' is neither"),
    ({"max_episode_steps": 0}, "max_episode_steps=0 is no time limit"),
    ({"max_episode_steps": 1.5}, "max_episode_steps=1.5 is no time limit"),
    ({"autoreset_mode": "nope"}, "'nope' is unknown; choose one of 'NextStep', 'SameStep', 'Disabled'"),
    ({"num_envs": 2**70}, "at most 2,147,483,648"),
]


@pytest.mark.parametrize(("kwargs", "words"), BOTH)
def test_arguments_of_both_doors(kwargs: dict, words: str) -> None:
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(ValueError, match=words):
            make("ECGDrugContinuous-v0", **{"world": "oracle", **kwargs})


@pytest.mark.parametrize(("kwargs", "words"), VECTOR)
def test_arguments_of_the_vector_door(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gymnasium.make_vec("ECGDrug-v0", world="oracle", **kwargs)


def test_a_world_that_is_given_is_checked_like_a_name() -> None:
    with pytest.raises(ValueError, match="device='tpu' cannot be used here"):
        gymnasium.make("ECGDrug-v0", world=ToyWorld(), device="tpu")
    with pytest.raises(ValueError, match="hours_per_step=True is no length of a step"):
        gymnasium.make("ECGDrug-v0", world=ToyWorld(), hours_per_step=True)
    with pytest.raises(ValueError, match="device='tpu' cannot be used here"):
        catalog.load("ecg-wm-small", device="tpu")
    assert checked_device("cpu") == checked_device(torch.device("cpu")) == torch.device("cpu")


def test_what_needs_a_reset_says_so() -> None:
    for env in (
        gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped,
        gymnasium.make_vec("ECGDrug-v0", world=ToyWorld()),
    ):
        for name in ("state", "chart"):
            with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
                getattr(env, name)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, 2**64, [1]])
def test_a_restored_snapshot_takes_only_a_seed(seed) -> None:
    env = gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped
    env.reset(seed=1)
    kept = env.snapshot()
    env.step(0)
    now = env.snapshot()
    with pytest.raises(ValueError, match="seed .* is not a whole number from 0"):
        env.restore(kept, seed=seed)
    assert env.snapshot() == now
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.restore(kept)


@pytest.mark.parametrize("row", [2, -1, "a", None, 1.5, True])
def test_a_row_that_is_none(row) -> None:
    for env_id, world in (("EHRWard-v0", ToyWard()), ("ECGDrug-v0", ToyWorld())):
        env = gymnasium.make_vec(env_id, num_envs=2, world=world)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        with pytest.raises(ValueError, match="is none of the 2 rows"):
            env.unwrapped.refusals(row)


def test_masked_numbers_are_no_numbers() -> None:
    env = gymnasium.make_vec("ECGDrugContinuous-v0", num_envs=2, world=ToyWorld())
    env.reset(seed=0)
    kept = env.snapshot()
    hidden = np.ma.masked_array(np.zeros((2, 4), np.float32), [[True] * 4, [False] * 4])
    for action in (hidden, torch.zeros(2, 4, device="meta"), torch.zeros(2, 4).to_sparse()):
        with pytest.raises(ValueError, match="are no real numbers"):
            env.step(action)
    with pytest.raises(ValueError, match=r"(?s)age_years=.* is not a number"):
        env.reset(options={"age_years": np.ma.masked_array([50.0, 60.0], [True, False])})
    assert env.snapshot() == kept
    env.step(np.ma.masked_array(np.zeros((2, 4), np.float32)))  # nothing is hidden: numbers like any others


def test_the_number_in_the_message_is_the_number_given() -> None:
    env = gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action 18446744073709551615 is outside"):
        env.step(np.uint64(2**64 - 1))


@pytest.mark.parametrize(
    ("said", "words"), [("a", "no row of 36 numbers"), ({}, "no 'chart'"), (np.zeros(3), r"shape \(3,\)")]
)
def test_what_is_no_observation_cannot_be_described(said, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped.describe(said)


def policy(arguments: list[str]) -> None:
    raise SystemExit(cli(["train", "ppo", "ECGDrug-v0", *arguments]))


COMMANDS = {
    ecg_wm.main: [],
    jepa.main: ["--patients", "2"],
    ehr_world.main: ["--stays", "4"],
    policy: ["--world", "oracle"],
}
WRONG = [
    *(
        (main, *more)
        for main in COMMANDS
        for more in (("--threads", "0"), ("--threads", "9" * 24), ("--out", "FILE"), ("--out", ""))
    ),
    *((main, "--device", name) for main in (ecg_wm.main, jepa.main, ehr_world.main) for name in ("tpu", "meta", "")),
    *(
        (jepa.main, f"--{name}", "0")
        for name in ("patients", "drawn", "followed", "steps", "label-steps", "batch", "rate")
    ),
    *((jepa.main, "--rate", value) for value in ("-1", "nan", "inf")),
    *(
        (ehr_world.main, f"--{name}", value)
        for name in ("stays", "held-out", "steps", "batch", "rate")
        for value in ("0", "-1")
    ),
    (ehr_world.main, "--polish", "-1"),
    (ehr_world.main, "--confounding", "nan"),
    (ehr_world.main, "--init", "nope"),
    (ehr_world.main, "--meds", "nowhere"),
    (ehr_world.main, "--work", "FILE"),
    (jepa.main, "--work", "FILE"),
    *((policy, f"--{name}", "0") for name in ("steps", "num-envs", "seeds")),
    (policy, "--seed", "-1"),
    (policy, "--cost-weight", "nan"),
    (policy, "--device", "tpu"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong[0].__module__} {' '.join(wrong[1:])[:40]}")
def test_training_commands_write_nothing_when_refused(
    wrong: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main, *more = wrong
    (tmp_path / "file").write_text("mine")
    given = [
        "--out",
        str(tmp_path / "out"),
        *COMMANDS[main],
        *(str(tmp_path / "file") if a == "FILE" else a for a in more),
    ]
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_too_few_patients_are_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    assert jepa.main(["--out", str(out), "--work", str(work), "--patients", "1", "--drawn", "4"]) == 2
    assert "no training pairs" in capsys.readouterr().err and not out.exists()
    assert [p.name for p in work.iterdir()] == ["progression-1.h5"]


def test_a_fresh_run_that_is_refused_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="unknown world"):
        sb3.train(tmp_path, 48, world="nowhere", resume=False, progress=False)
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_configurations_have_limits() -> None:
    fine = {"name": "age", "mean": 60.0, "sd": 10.0, "low": 18.0, "high": 90.0}
    for name, value in (("sd", 0.0), ("low", 91.0), ("high", 1e308), ("mean", float("nan"))):
        with pytest.raises(ValueError, match="age: mean"):
            StaticFeature(**{**fine, name: value})
    assert copy.copy(StaticFeature(**fine)).high == 90.0
    for hours in (0.0, 1e308):
        with pytest.raises(ValueError, match="hours_per_step=.* at most a week"):
            Vocabulary((), (), (), (), hours)
    with pytest.raises(ValueError, match="longest_h=1e[+]308"):
        SetOutcomeConfig(longest_h=1e308)
    for name in ("own_penalty", "inverse"):
        for value in (-1.0, 1e308):
            with pytest.raises(ValueError, match=name):
                JEPAConfig(**{name: value})
