"""`clinenv train`: names and presets, choosing among seeds on validation patients, TensorBoard, and refusals."""

from __future__ import annotations

import builtins
import json

import pytest
import torch

from agents import ppo, ppo_config, run_folder
from agents import train as training
from agents.policy_agent import PolicyAgent
from agents.ppo_config import PPOConfig
from agents.rollout import judge
from agents.sb3.algorithms import ALGORITHMS as OF_SB3
from agents.sb3.presets import PRESETS, preset_for
from clinenv.commands import train as command
from clinenv.commands.main import main
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.registration import ENVIRONMENTS
from clinenv.simulator import Simulator
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from tests.toy_world import ToyWorld
from world_models import catalog, keys, tree


def patients(env_id, num_envs, world, **kw):
    return ClinicalVectorEnv(DialTask(), num_envs, DialWorld(drift=0.2), **kw)


@pytest.fixture
def dial(monkeypatch):
    """Every environment is the dial, and trainings are small."""
    monkeypatch.setattr(run_folder, "make_patients", patients)
    monkeypatch.setattr(ppo_config, "preset_for", lambda _: PPOConfig(n_steps=STEPS, minibatch=64, learning_rate=3e-3))
    monkeypatch.setattr(training, "VALIDATION_PATIENTS", 50)


def test_the_command_knows_every_trainer_and_every_id_has_its_presets():
    assert list(command.ALGORITHMS) == list(training.TRAINERS)
    assert {"ppo" if name == "sb3-ppo" else name for name in command.ALGORITHMS} == OF_SB3.keys() == PRESETS.keys()
    for row in ENVIRONMENTS:
        config = ppo_config.preset_for(row["id"])
        assert config.minibatch <= config.num_envs * config.n_steps
        for algo in PRESETS:
            preset = preset_for(algo, row["id"])
            assert preset.algo == algo
            own = preset_for("ppo", row["id"])
            assert preset.cost_weight == own.cost_weight, f"{algo} on {row['id']}"


def test_of_several_seeds_the_best_on_validation_patients_is_kept(dial, tmp_path):
    out = tmp_path / "runs"
    kw = {"num_envs": 16, "cost_weight": 0.0, "make": patients, "progress": False}
    training.train(out, 16 * STEPS * 6, "ppo", "ECGDrug-v0", seed=3, seeds=3, **kw)
    told = run_folder.read_config(out)
    assert told["validation"].keys() == {"seed-3", "seed-4", "seed-5"}
    best = max(told["validation"], key=lambda name: told["validation"][name]["return"])
    assert told["chosen"] == best
    assert (out / "policy.safetensors").read_bytes() == (out / best / "policy.safetensors").read_bytes()
    simulator = patients("", 1, None).simulator
    key = keys.fold(keys.from_seed(training.VALIDATION_SEED, 50), "validation")
    found = judge(PolicyAgent(out, simulator), simulator, key, STEPS)
    assert float(found.returns.mean()) == pytest.approx(told["validation"][best]["return"], rel=1e-5)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("seed-*/policy.safetensors")}
    training.train(out, 16 * STEPS * 6, "ppo", "ECGDrug-v0", seed=3, seeds=3, **kw)
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}, "nothing was left to do"


def test_the_command_line_trains_and_says_where(tmp_path, capsys, monkeypatch):
    load = training.run_folder.make_patients
    monkeypatch.setattr(run_folder, "make_patients", lambda i, n, w, **kw: load(i, n, ToyWorld(), **kw))
    monkeypatch.setattr(ppo, "train", _with(ppo.train, make=run_folder.make_patients, progress=False))
    out = tmp_path / "p"
    assert main(["train", "ppo", "ECGDrug-v0", "--out", str(out), "--steps", "100", "--num-envs", "4"]) == 0
    assert f"policy in {out}" in capsys.readouterr().out
    told = run_folder.read_config(out)
    assert (told["world"], told["preset"]["num_envs"], told["steps"]) == ("ecg-wm-small", 4, 100)
    assert main(["train", "ppo", "ECGDrug-v0", "--out", str(out), "--steps", "100", "--num-envs", "8"]) == 2
    assert "another preset" in capsys.readouterr().err
    again = ["train", "ppo", "ECGDrug-v0", "--out", str(out), "--steps", "100", "--num-envs", "8", "--fresh"]
    assert main([*again, "--cost-limit", "0.5"]) == 0
    assert run_folder.read_config(out)["preset"]["cost_limit"] == 0.5


def _with(function, **fixed):
    return lambda *args, **kw: function(*args, **{**kw, **fixed})


def test_tensorboard_holds_the_metrics(dial, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kw = {"make": patients, "progress": False, "tensorboard": True, "num_envs": 16}
    folder = training.train(tmp_path / "p", 16 * STEPS * 3, **kw)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = EventAccumulator(str(folder / "tensorboard"))
    told.Reload()
    assert [event.step for event in told.Scalars("return")] == [line["steps"] for line in lines]
    for event, line in zip(told.Scalars("return"), lines, strict=True):
        assert event.value == pytest.approx(line["return"], rel=1e-4)


def test_what_is_not_installed_is_named_before_anything_is_written(dial, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **kw):
        if name.split(".")[0] in ("tensorboard", "sb3_contrib") or name == "torch.utils.tensorboard":
            raise ImportError(f"no module named {name}")
        return real(name, *rest, **kw)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("agents.sb3.algorithms.import_module", lambda name: without(name))
    kw = {"make": patients, "progress": False, "num_envs": 4}
    with pytest.raises(ValueError, match=r"clinenv\[rl\]"):
        training.train(tmp_path / "t", 10, tensorboard=True, **kw)
    with pytest.raises(ValueError, match=r"TRPO needs sb3-contrib.*clinenv\[rl\]"):
        training.train(tmp_path / "t", 10, "trpo", **kw)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["sac", "ECGDrug-v0"], "invalid choice: 'sac'"),
        (["ppo", "CartPole-v1"], "choose one of ECGDrug-v0"),
        (["ppo", "ECGDrug-v0", "--world", "nowhere"], "unknown world 'nowhere'"),
        (["ppo", "ECGDrug-v0", "--steps", "0"], "0 is not a whole number"),
        (["ppo", "ECGDrug-v0", "--seeds", "0"], "0 is not a whole number"),
        (["ppo", "ECGDrug-v0", "--cost-limit", "-1"], "-1 is not a number"),
        (["ppo", "ECGDrug-v0", "--device", "tpu"], "device"),
        (["dqn", "ECGDrugContinuous-v0", "--world", "oracle"], "dqn needs a menu"),
        (["maskable-ppo", "ECGDrug-v0", "--world", "oracle"], "refuses nothing; take ppo"),
        (["qrdqn", "ECGDrug-v0", "--cost-limit", "1"], "take ppo, or a weight"),
        (["a2c", "ECGDrug-v0", "--device", "cuda"], "take ppo, or leave it out"),
    ],
)
def test_wrong_arguments_end_with_2_and_write_nothing(wrong, words, tmp_path, capsys):
    if wrong[0] in ("maskable-ppo", "qrdqn"):
        pytest.importorskip("sb3_contrib")
    try:
        code = main(["train", *wrong, "--out", str(tmp_path / "out")])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2 and words in said and "Traceback" not in said and not list(tmp_path.iterdir())


def test_on_a_gpu_nothing_leaves_it_and_the_policy_decides_as_on_the_cpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    config = PPOConfig(num_envs=256)
    folder = ppo.train(tmp_path / "gpu", 256 * 24 * 20, "ECGDrug-v0", config=config, progress=False, device="cuda")
    charts, decided = [], []
    for device in ("cuda", "cpu"):
        simulator = Simulator(catalog.load("ecg-wm-small", device), ECGDrugTask())
        agent = PolicyAgent(folder, simulator)
        if not charts:
            _, chart = simulator.reset(keys.from_seed(5, 500, device))
            charts.append(chart)
        decided.append(agent.act(tree.to(charts[0], device)))
        assert decided[-1].device.type == device
    assert float((decided[0].cpu() == decided[1]).float().mean()) > 0.99
    assert len(decided[1].unique()) > 1
