"""A log is what the environment did, comes back from its file and from Minari as it was, and is made by one command."""

from __future__ import annotations

import os
import signal

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401
from agents.offline import make as making
from agents.offline.acting import Acting
from agents.offline.behaviour import Exploring
from agents.offline.charts import ChartReader
from agents.offline.choices import Choices
from agents.offline.collect import collect
from agents.offline.logged import Logged, LoggedError, load, save
from agents.offline.minari_form import as_logged, write_minari
from agents.offline.recipes import CASES, behaviour, colleagues, simulator_of
from tests.campaign.guarded import guarded
from tests.kills import needs_fork

FEW = 4
SEED = 4321


def equal(one: Logged, other: Logged) -> bool:
    """Equal arrays of equal types, and the same words."""
    same = one.about == other.about and one.terms.keys() == other.terms.keys()
    pairs = [(value, getattr(other, name)) for name, value in vars(one).items() if isinstance(value, torch.Tensor)]
    pairs += [(value, other.terms[name]) for name, value in one.terms.items()]
    return same and all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.is_floating_point) for a, b in pairs
    )


@pytest.fixture(scope="module")
def logs() -> dict[str, Logged]:
    made = {}
    for env_id, case in CASES.items():
        simulator = simulator_of(env_id)
        acting = Acting(behaviour(env_id, "mixed", simulator), 1)
        made[env_id] = collect(acting, simulator, SEED, FEW, min(case.steps, 24), env_id)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("env_id", list(CASES))
def test_a_log_is_what_the_environment_does(env_id: str, logs: dict[str, Logged]) -> None:
    logged, choices = logs[env_id], Choices(simulator_of(env_id))
    steps = min(CASES[env_id].steps, 24)
    envs = gym.make_vec(
        env_id, FEW, world="oracle", autoreset_mode="Disabled", max_episode_steps=steps, uncertainty=False
    )
    observation, info = envs.reset(seed=SEED)
    over = np.zeros(FEW, bool)
    for t in range(logged.reward.shape[1]):
        rows = np.flatnonzero(~over)
        np.testing.assert_allclose(observation[rows], logged.observation[rows, t], rtol=1e-4, atol=1e-4)
        if logged.mask is not None:
            assert np.array_equal(info["action_mask"][rows], logged.mask[rows, t])
        action = choices.action(logged.choice[:, t]).numpy()
        if over.any():
            envs.reset(options={"reset_mask": over})  # whose rows are no longer looked at
        observation, reward, terminated, truncated, info = envs.step(action)
        np.testing.assert_allclose(reward[rows], logged.reward[rows, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(info["cost"][rows], logged.cost[rows, t], rtol=1e-4, atol=1e-5)
        for name, value in logged.terms.items():
            np.testing.assert_allclose(info[f"reward_{name}"][rows], value[rows, t], rtol=1e-4, atol=1e-5)
        assert np.array_equal(terminated[rows], logged.terminated[rows, t])
        assert np.array_equal((truncated & ~terminated)[rows], logged.truncated[rows, t])
        over[rows] |= (terminated | truncated)[rows]
    envs.close()
    assert over.all() and np.array_equal(logged.here.sum(-1), logged.length)
    torch.testing.assert_close(sum(logged.terms.values()), logged.reward, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("env_id", list(CASES))
def test_a_file_gives_back_what_was_logged(env_id: str, logs: dict[str, Logged], tmp_path) -> None:
    save(logs[env_id], tmp_path / "log.h5")
    assert equal(load(tmp_path / "log.h5"), logs[env_id])


@pytest.mark.parametrize("env_id", list(CASES))
def test_minari_gives_back_what_was_logged(env_id: str, logs: dict[str, Logged], tmp_path, monkeypatch) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    name = f"clinenv/{env_id}/mixed-v0"
    write_minari(logs[env_id], tmp_path, name)
    dataset = minari.load_dataset(name)
    assert equal(as_logged(dataset), logs[env_id])
    keys = {"confounding", "cost", "hidden_severity", "log_prob", "nominal_log_prob"}
    for episode in dataset:
        assert keys <= episode.infos.keys() and all(len(v) == len(episode) + 1 for v in episode.infos.values())
        assert all(dataset.action_space.contains(action) for action in episode.actions)
        assert all(dataset.observation_space.contains(row) for row in episode.observations)
    assert dataset.env_spec is not None and dataset.env_spec.kwargs["world"] == logs[env_id].about.world
    with pytest.raises(ValueError, match="is there already"):
        write_minari(logs[env_id], tmp_path, name)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", list(CASES))
def test_rules_decide_on_the_logs_charts_as_they_did(env_id: str) -> None:
    simulator = simulator_of(env_id)
    few, steps = (4, 4) if env_id == "ECGProgression-v0" else (12, 14)  # whose ECGs take their time
    for name, part in list(colleagues(env_id, simulator).items())[:4]:
        if not isinstance(part, Exploring) or part.epsilon == 1.0 or not part.choices.discrete:
            continue
        part.epsilon = 0.0
        logged = collect(Acting(part, 1), simulator, SEED, few, steps, env_id)
        reader = ChartReader(simulator, logged)
        part.reset()
        for t in range(logged.reward.shape[1]):
            here = logged.here[:, t]
            again = part.choices.of(part.agent.act(reader.at(t)))
            assert torch.equal(again[here], logged.choice[here, t]), f"{name}, step {t}"


def test_the_dial_needs_the_nominal_behaviour_and_an_oracle() -> None:
    simulator = simulator_of("ECGDrug-v0")
    confounded = Acting(behaviour("ECGDrug-v0", "mixed", simulator, 1.0), 1)
    with pytest.raises(ValueError, match="give `nominal`"):
        collect(confounded, simulator, SEED, FEW, 2, "ECGDrug-v0")
    nominal = Acting(behaviour("ECGDrug-v0", "mixed", simulator), 1)
    logged = collect(confounded, simulator, SEED, 64, 24, "ECGDrug-v0", nominal)
    assert logged.about.confounding == 1.0
    apart = (logged.log_prob - logged.nominal_log_prob)[logged.here]
    assert float(apart[:64].abs().max()) > 0.05 and float(logged.log_prob.max()) <= 1e-5
    learned = simulator_of("ECGDrug-v0", "learned")
    with pytest.raises(ValueError, match="is learned"):
        collect(Acting(behaviour("ECGDrug-v0", "mixed", learned, 1.0)), learned, SEED, FEW, 2, "ECGDrug-v0", nominal)
    plain = collect(Acting(behaviour("ECGDrug-v0", "mixed", learned)), learned, SEED, FEW, 3, "ECGDrug-v0")
    assert bool(plain.hidden_severity.isnan().all()) and len(plain.about.weights_sha256 or "") == 64


def _damage(path, how: str, elsewhere) -> None:
    if how == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "no HDF5":
        path.write_bytes(b"# a table, in truth\n")
    else:
        with h5py.File(path, "r+") as file:
            values = file["reward"][:]
            del file["reward"]
            if how == "a link":
                file["reward"] = h5py.ExternalLink(str(elsewhere), "/reward")
            elif how == "other rows":
                file["reward"] = values[:-1]
            elif how == "text":
                file["reward"] = [b"x"] * len(values)


@pytest.mark.parametrize("how", ["cut short", "no HDF5", "a link", "other rows", "text", "a part gone"])
def test_a_damaged_file_is_refused(how: str, logs: dict[str, Logged], tmp_path) -> None:
    for name in ("log.h5", "other.h5"):
        save(logs["ECGDrug-v0"], tmp_path / name)
    _damage(tmp_path / "log.h5", how, tmp_path / "other.h5")
    with pytest.raises(LoggedError, match="make it again"):
        load(tmp_path / "log.h5")


@needs_fork
def test_no_damaged_word_ends_the_process_that_reads(logs: dict[str, Logged], tmp_path) -> None:
    """In HDF5's older formats some do: a chunk's index without a checksum leads out of the file."""
    path = tmp_path / "log.h5"
    save(logs["ECGDrug-v0"], path)
    whole = path.read_bytes()

    def trial(place: int) -> dict[str, str]:
        path.write_bytes(whole[:place] + bytes(4) + whole[place + 4 :])
        try:
            load(path)
        except LoggedError:
            return {"outcome": "refused"}
        return {"outcome": "read"}

    told = dict(guarded(trial, list(range(1, len(whole) - 4, len(whole) // 300))))
    assert {outcome.get("outcome") for outcome in told.values()} == {"read", "refused"}, told


@pytest.mark.slow
def test_one_command_makes_logs_and_goes_on_where_it_stopped(tmp_path, capsys) -> None:
    arguments = ["--out", str(tmp_path), "--ids", "ECGDrug-v0", "--patients", "20"]
    assert making.main(arguments) == 0
    suffixes = ("h5", "json", "md", "croissant.json")
    names = {f"ECGDrug-v0-{kind}.{suffix}" for kind in ("random", "clinician", "mixed") for suffix in suffixes}
    assert {path.name for path in tmp_path.iterdir()} == names
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "ECGDrug-v0-mixed.h5").unlink()  # as if stopped before it
    capsys.readouterr()
    assert making.main(arguments) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first  # the very same file again
    logged = load(tmp_path / "ECGDrug-v0-mixed.h5")
    sheet = (tmp_path / "ECGDrug-v0-mixed.md").read_text(encoding="utf-8")
    assert (
        f"{logged.returns.mean():.3f}" in sheet and "Not for clinical use" in sheet and "dofetilide label rule" in sheet
    )
    seeds = [load(tmp_path / f"ECGDrug-v0-{kind}.h5").seed for kind in ("random", "clinician", "mixed")]
    assert len(torch.cat(seeds).unique()) == 60  # no patient is in two logs


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--confounding", "2"], "2 is not a number from 0 to 1"),
        (["--world", "no-such-world"], "unknown world 'no-such-world'"),
        (["--world", "learned", "--confounding", "1", "--kinds", "mixed"], "is learned"),
        (["--ids", "ECGDrugContinuous-v0", "--kinds", "random"], "take kind mixed"),
    ],
)
def test_a_wrong_order_is_refused_before_anything_is_written(arguments, why, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        making.main(["--out", str(tmp_path / "logs"), "--patients", "4", *arguments])
    assert stopped.value.code == 2 and why in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))


@needs_fork
def test_a_full_disk_leaves_the_log_that_was_there(logs, tmp_path) -> None:
    """HDF5 closing a file on a full disk ended the process with a signal."""
    resource = pytest.importorskip("resource")
    logged, path = logs["ECGDrug-v0"], tmp_path / "log.h5"
    save(logged, path)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            save(logged, path)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
