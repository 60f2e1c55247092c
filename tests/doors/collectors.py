"""How each library collects courses and hands them to a learner, with what it brings for that itself.

Each function gives the whole episodes of ROWS rows from SEED on (Minari, which has no rows: one each of twice as many).
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.doors.courses import ROWS, SEED, STEPS, Course, Moment, whole, world

LENGTH = 3 * STEPS + 2  # steps: three courses and the start of a fourth


def vector(env_id: str = "ECGDrug-v0", **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """Three patients as Gymnasium makes them."""
    return gymnasium.make_vec(
        env_id, num_envs=ROWS, vectorization_mode="vector_entry_point", **{"world": world(), **kwargs}
    )


def stable_baselines3(_: Path) -> list[Course]:
    """From DQN's replay buffer."""
    sb3 = pytest.importorskip("stable_baselines3")
    from agents.sb3.vec_env import SB3VecEnv

    envs = SB3VecEnv(vector(autoreset_mode=AutoresetMode.SAME_STEP))
    model = sb3.DQN("MlpPolicy", envs, buffer_size=1000, learning_starts=10_000, seed=0, device="cpu")
    envs.seed(SEED)  # after SB3 gave the environments its own seed
    model.learn(LENGTH * ROWS)
    kept = model.replay_buffer
    moments = []
    for t in range(kept.pos):
        cut, over = kept.timeouts[t] > 0, kept.dones[t] > 0
        action = kept.actions[t, :, 0]
        moment = kept.observations[t], action, kept.rewards[t], kept.next_observations[t], over & ~cut, cut
        moments.append(Moment(*moment))
    return whole(moments)


def sb3_contrib(_: Path) -> list[Course]:
    """From what MaskablePPO collects."""
    contrib = pytest.importorskip("sb3_contrib")
    from stable_baselines3.common.callbacks import BaseCallback

    from agents.sb3.vec_env import SB3VecEnv

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            now = self.locals
            assert now["action_masks"].shape == (ROWS, 9) and now["action_masks"].all()
            following = now["new_obs"].copy()
            for row, info in enumerate(now["infos"]):
                following[row] = info.get("terminal_observation", following[row])
            cut = np.array([info.get("TimeLimit.truncated", False) for info in now["infos"]])
            seen = self.model._last_obs.copy()
            over = now["dones"] & ~cut
            moments.append(Moment(seen, now["actions"].copy(), now["rewards"].copy(), following, over, cut))
            return True

    moments: list[Moment] = []
    envs = SB3VecEnv(vector(autoreset_mode=AutoresetMode.SAME_STEP))
    model = contrib.MaskablePPO("MlpPolicy", envs, n_steps=LENGTH, batch_size=74, n_epochs=1, seed=0, device="cpu")
    envs.seed(SEED)
    model.learn(LENGTH * ROWS, callback=Watch())
    return whole(moments)


def cleanrl(_: Path) -> list[Course]:
    """From the batch of the single-file loop among the examples."""
    from examples.doors import cleanrl_ppo

    torch.manual_seed(0)
    envs = vector(autoreset_mode=AutoresetMode.SAME_STEP, tensors=True)
    seen, _ = envs.reset(seed=SEED)
    agent = cleanrl_ppo.Agent(seen.shape[-1], 9)
    batch, _ = cleanrl_ppo.collect(envs, agent, seen, LENGTH)
    names = ("seen", "action", "reward", "following", "terminated", "truncated")
    return whole([Moment(*(batch[name][t] for name in names)) for t in range(LENGTH)])


def torchrl(_: Path) -> list[Course]:
    """From a Collector's batch."""
    collectors = pytest.importorskip("torchrl.collectors")
    from clinenv.doors.torchrl import TorchRLEnv

    torch.manual_seed(0)
    env = TorchRLEnv("ECGDrug-v0", ROWS, world=world())
    env.set_seed(SEED)
    made = getattr(collectors, "Collector", None) or collectors.SyncDataCollector
    collector = made(env, frames_per_batch=ROWS * LENGTH, total_frames=ROWS * LENGTH)
    try:
        (batch,) = list(collector)
    finally:
        collector.shutdown()
    after = batch["next"]
    assert batch.batch_size == (ROWS, LENGTH)
    return whole(
        [
            Moment(
                batch["observation"][:, t],
                batch["action"][:, t],
                after["reward"][:, t, 0],
                after["observation"][:, t],
                after["terminated"][:, t, 0],
                after["truncated"][:, t, 0],
            )
            for t in range(LENGTH)
        ]
    )


def rllib(_: Path) -> list[Course]:
    """From the episodes of an env runner, over the native vector entry point."""
    ppo = pytest.importorskip("ray.rllib.algorithms.ppo")
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from clinenv.doors import rllib as door

    door.register()
    mode = {"num_envs_per_env_runner": ROWS, "gym_env_vectorize_mode": "vector_entry_point"}
    config = (
        ppo.PPOConfig()
        .environment("ECGDrug-v0", env_config={"world": world()})
        .env_runners(num_env_runners=0, **mode)
        .debugging(seed=SEED)
    )
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    try:
        episodes = runner.sample(num_timesteps=3 * ROWS * LENGTH, random_actions=True)
    finally:
        runner.stop()
    found = []
    for episode in episodes:
        if episode.is_done:
            steps = len(episode)
            flags = np.zeros((2, steps), bool)
            flags[:, -1] = episode.is_terminated, episode.is_truncated
            seen, actions = np.asarray(episode.get_observations()), np.asarray(episode.get_actions())
            found.append(Course(seen, actions, np.asarray(episode.get_rewards()), *flags))
    return found


def pufferlib(_: Path) -> list[Course]:
    """By the calls that PuffeRL makes, from PufferLib's buffers."""
    vectors = pytest.importorskip("pufferlib.vector")
    from clinenv.doors.pufferlib import PufferVectorEnv

    kwargs = {"env_id": "ECGDrug-v0", "num_envs": ROWS, "world": world()}
    env = vectors.make(PufferVectorEnv, env_kwargs=kwargs, backend=vectors.PufferEnv)
    assert SEED % ROWS == 0
    env.async_reset(SEED // ROWS)  # row i is then the patient of SEED + i
    luck = np.random.default_rng(0)
    seen = env.recv()[0].copy()
    moments, told = [], []
    for _ in range(LENGTH):
        action = luck.integers(0, 9, ROWS)
        env.send(action)
        shown, reward, terminals, truncations, _, infos, _, _ = env.recv()
        over = (terminals | truncations)[:, None]
        following = np.where(over, env.final_observations, shown)
        moments.append(Moment(seen, action, reward.copy(), following, terminals.copy(), truncations.copy()))
        told += infos
        seen = shown.copy()
    found = whole(moments)
    lengths = sorted(int(info["episode_length"]) for info in told)
    assert lengths == sorted(len(course.rewards) for course in found)
    return found


def skrl(_: Path) -> list[Course]:
    """From the transitions that skrl's trainer has its agent record."""
    agents = pytest.importorskip("skrl.agents.torch")
    from skrl import config
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.trainers.torch import SequentialTrainer

    from clinenv.doors.skrl import SkrlVectorEnv, tell_last_observations

    class Recorder(agents.Agent):
        def act(self, observations: Any, states: Any, *, timestep: int, timesteps: int) -> Any:
            return torch.as_tensor(luck.integers(0, 9, (ROWS, 1))), {}

        def record_transition(self, **t: Any) -> None:
            flat = (t[name][:, 0].clone() for name in ("actions", "rewards"))
            action, reward = flat
            flags = (t[name][:, 0] for name in ("terminated", "truncated"))
            moments.append(Moment(t["observations"], action, reward, t["next_observations"], *flags))

        def pre_interaction(self, *, timestep: int, timesteps: int) -> None: ...

        def post_interaction(self, *, timestep: int, timesteps: int) -> None: ...

        def update(self, *, timestep: int, timesteps: int) -> None: ...

    luck, moments = np.random.default_rng(0), []
    config.torch.key = SEED
    env = wrap_env(SkrlVectorEnv("ECGDrug-v0", ROWS, world=world()), verbose=False)
    quiet = {"timesteps": LENGTH, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    cfg = agents.AgentCfg(experiment=agents.ExperimentCfg(write_interval=0, checkpoint_interval=0))
    recorder = Recorder(
        models={}, memory=None, observation_space=env.observation_space, action_space=env.action_space, cfg=cfg
    )
    SequentialTrainer(env=env, agents=tell_last_observations(recorder), cfg=quiet).train()
    return whole(moments)


def rsl_rl(_: Path) -> list[Course]:
    """From the steps that rsl_rl's runner hands to PPO."""
    runners = pytest.importorskip("rsl_rl.runners")
    from clinenv.doors.rsl_rl import RslVecEnv

    torch.manual_seed(0)
    env = RslVecEnv("ECGDrugContinuous-v0", ROWS, seed=SEED, world=world())
    runner = runners.OnPolicyRunner(env, rsl_rl_config(LENGTH))
    learn = runner.alg.process_env_step
    moments = []

    def watched(observations: Any, rewards: Any, dones: Any, extras: Any) -> None:
        last = extras.get("final_observations", observations)["policy"]
        following = torch.where(dones.unsqueeze(-1), last, observations["policy"])
        step = runner.alg.transition
        action = step.actions.clamp(-1, 1)
        seen, cut = step.observations["policy"], extras["time_outs"]
        moments.append(Moment(seen.clone(), action, rewards.clone(), following.clone(), dones & ~cut, cut))
        learn(observations, rewards, dones, extras)

    runner.alg.process_env_step = watched
    runner.learn(1)
    assert not env.get_observations()["policy"].is_inference(), "gradients refuse what inference mode made"
    return whole(moments)


def rsl_rl_config(steps: int) -> dict[str, Any]:
    """A small PPO for rsl_rl's runner."""
    network = {"class_name": "MLPModel", "hidden_dims": [8], "activation": "tanh"}
    actor = {**network, "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 0.7}}
    algorithm = {"class_name": "PPO", "num_learning_epochs": 1, "num_mini_batches": 2}
    groups = {"actor": ["policy"], "critic": ["policy"]}
    rest = {"num_steps_per_env": steps, "save_interval": 1000, "obs_groups": groups}
    return {"actor": actor, "critic": network, "algorithm": algorithm, **rest}


def omnisafe(_: Path) -> list[Course]:
    """Through the adapter that stands between OmniSafe's algorithms and its environments."""
    if importlib.util.find_spec("omnisafe") is None:
        pytest.skip("omnisafe is not installed")
    importlib.import_module("clinenv.doors.omnisafe")  # loads OmniSafe and registers the ids
    from omnisafe.adapter import OnPolicyAdapter
    from omnisafe.utils.config import get_default_kwargs_yaml

    config = get_default_kwargs_yaml("PPOLag", "ECGDrugContinuous-v0", "on-policy")
    config.recurisve_update({"algo_cfgs": {"obs_normalize": False}, "env_cfgs": {"world": world()}})
    adapter = OnPolicyAdapter("ECGDrugContinuous-v0", ROWS, SEED, config)
    luck = np.random.default_rng(0)
    seen, _ = adapter.reset()
    moments = []
    for _ in range(LENGTH):
        action = torch.as_tensor(luck.integers(-8, 9, (ROWS, 4)) / 8, dtype=torch.float32)  # which scaling leaves exact
        shown, reward, cost, terminated, truncated, info = adapter.step(action)
        assert bool((cost >= 0).all()) and cost.shape == (ROWS,)
        over = (terminated + truncated > 0).unsqueeze(-1)
        following = torch.where(over, info.get("final_observation", shown), shown)
        moments.append(Moment(seen, action, reward, following, terminated > 0, truncated > 0))
        seen = shown
    return whole(moments)


def minari(folder: Path) -> list[Course]:
    """From a data set that Minari wrote and read again."""
    library = pytest.importorskip("minari")
    env = library.DataCollector(gymnasium.make("ECGDrug-v0", world=world()), record_infos=True)
    env.action_space.seed(0)
    for row in range(2 * ROWS):  # a reset without a seed is given one by Minari
        env.reset(seed=SEED + row)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    data = env.create_dataset("clinenv/conformance-v0", algorithm_name="random", eval_env=None)
    return [
        Course(e.observations, e.actions, e.rewards, e.terminations, e.truncations) for e in data.iterate_episodes()
    ]
