"""What `benchmarks.doors` asks of each library: its own checker where it has one, then some steps as it collects."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

import clinenv  # noqa: F401  (registers the ids)
from clinenv import registration
from clinenv.episodes import Episodes

__all__ = ["LIBRARIES", "Case", "Library", "NotApplicable", "check_team"]

Work = Callable[[], int]  # some steps; how many


class NotApplicable(Exception):
    """The library cannot take such an environment, and nobody expects it to."""


class Case(NamedTuple):
    """An id with what it is made of."""

    env_id: str
    arguments: dict[str, Any]
    num_envs: int

    def single(self, **more: Any) -> gymnasium.Env:
        """One patient."""
        return gymnasium.make(self.env_id, **self.arguments, **more)

    def vector(self, mode: AutoresetMode, **more: Any) -> gymnasium.vector.VectorEnv:
        """Many patients."""
        given = {**self.arguments, "uncertainty": False, **more}
        return gymnasium.make_vec(
            self.env_id, self.num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **given
        )

    def numbered(self) -> dict[str, Any]:
        """Arguments with which the actions are no MultiBinary."""
        episodes: Episodes = self.single().unwrapped.episodes
        switches = isinstance(episodes.interface.codec.space, gymnasium.spaces.MultiBinary)
        return {**self.arguments, **({"action": "multidiscrete"} if switches else {})}

    def only_amounts(self, library: str) -> None:
        """Raises NotApplicable where the actions are choices."""
        if not isinstance(self.single().action_space, gymnasium.spaces.Box):
            raise NotApplicable(f"{library} takes amounts alone")


# ---- the libraries: each checks an id and says how to collect from it


def check_gymnasium(case: Case) -> Work:
    """Gymnasium's check_env; the vector environment."""
    from gymnasium.utils.env_checker import check_env

    check_env(case.single().unwrapped, skip_render_check=True)
    return _stepping(case.vector(AutoresetMode.NEXT_STEP))


def check_stable_baselines3(case: Case) -> Work:
    """SB3's check_env; SB3VecEnv."""
    from stable_baselines3.common.env_checker import check_env

    from agents.sb3.vec_env import SB3VecEnv

    check_env(case.single().unwrapped, skip_render_check=True)
    env = SB3VecEnv(case.vector(AutoresetMode.SAME_STEP))
    env.reset()
    space = env.env.action_space
    space.seed(0)
    return lambda: len(env.step(space.sample())[1])


def check_sb3_contrib(case: Case) -> Work:
    """MaskablePPO learns with the masks of the environment."""
    from sb3_contrib import MaskablePPO

    from agents.sb3.vec_env import SB3VecEnv

    if isinstance(case.single().action_space, gymnasium.spaces.Box):
        raise NotApplicable("MaskablePPO masks choices, and these are amounts")
    env = SB3VecEnv(case.vector(AutoresetMode.SAME_STEP, **_besides(case.numbered(), case.arguments)))
    settings = {"n_steps": 8, "batch_size": 8 * case.num_envs, "n_epochs": 1, "seed": 0, "device": "cpu"}
    model = MaskablePPO("MlpPolicy", env, **settings)

    def work() -> int:
        model.learn(8 * case.num_envs, reset_num_timesteps=False)
        return 8 * case.num_envs

    return work


def check_torchrl(case: Case) -> Work:
    """TorchRL's check_env_specs on the native environment."""
    from clinenv.doors.torchrl import TorchRLEnv

    return _torchrl(TorchRLEnv(case.env_id, case.num_envs, **case.arguments, uncertainty=False), case)


def check_torchrl_wrapper(case: Case) -> Work:
    """TorchRL's check_env_specs on its GymWrapper, autoreset disabled."""
    from torchrl.envs import GymWrapper

    return _torchrl(GymWrapper(case.vector(AutoresetMode.DISABLED), categorical_action_encoding=True), case)


def check_torchrl_wrapper_same_step(case: Case) -> Work:
    """TorchRL's check_env_specs on its GymWrapper, same-step autoreset."""
    from torchrl.envs import GymWrapper

    return _torchrl(GymWrapper(case.vector(AutoresetMode.SAME_STEP), categorical_action_encoding=True), case)


def _torchrl(env: Any, case: Case) -> Work:
    from torchrl.envs.utils import check_env_specs

    check_env_specs(env)

    @torch.no_grad()
    def work() -> int:
        env.rollout(24, break_when_any_done=False)
        return 24 * case.num_envs

    return work


def check_rllib(case: Case) -> Work:
    """Episodes of RLlib's runner over the native vector entry point: each of one patient, from its first hour."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from clinenv.doors import rllib as door

    door.register()

    def runner(**more: Any) -> Any:
        config = (
            PPOConfig()
            .environment(case.env_id, env_config={**case.numbered(), "uncertainty": False, **more})
            .env_runners(
                num_env_runners=0,
                num_envs_per_env_runner=case.num_envs,
                gym_env_vectorize_mode="vector_entry_point",
            )
            .callbacks(on_environment_created=door.refuse_wrong_autoreset)
            .debugging(seed=0)
        )
        return SingleAgentEnvRunner(config=config, worker_index=0)

    short = runner(max_episode_steps=3)
    began, whole = set(), 0
    for episode in short.sample(num_timesteps=9 * case.num_envs, random_actions=True):
        hours = [info["hours"] for info in episode.get_infos()]
        began.add(hours[0])
        whole += len(hours) == 4 and episode.is_truncated
        assert np.all(np.diff(hours) > 0), f"hours run {hours}: an episode is of two patients"
    assert len(began) == 1, f"episodes begin at the hours {sorted(began)}"
    assert whole > 0, "no episode was whole, so nothing was seen of how one ends"
    full = runner()
    return lambda: sum(len(e) for e in full.sample(num_timesteps=8 * case.num_envs, random_actions=True))


def check_pufferlib(case: Case) -> Work:
    """PufferLib's vectorisation of the native environment."""
    import pufferlib.vector

    from clinenv.doors.pufferlib import PufferVectorEnv

    kwargs = {"env_id": case.env_id, "num_envs": case.num_envs, **case.numbered()}
    env = pufferlib.vector.make(PufferVectorEnv, env_kwargs=kwargs, backend=pufferlib.vector.Serial)
    env.async_reset(0)
    env.action_space.seed(0)

    def work() -> int:
        seen, reward, *_ = env.recv()
        assert np.isfinite(seen).all() and np.isfinite(reward).all()
        env.send(env.action_space.sample())
        return case.num_envs

    return work


def check_skrl(case: Case) -> Work:
    """skrl's wrap_env, which finds out by itself."""
    from skrl.envs.wrappers.torch import wrap_env

    from clinenv.doors.skrl import SkrlVectorEnv

    env = wrap_env(SkrlVectorEnv(case.env_id, case.num_envs, **case.numbered()), verbose=False)
    space = env._env.action_space
    space.seed(0)
    env.reset()
    return lambda: len(env.step(torch.as_tensor(space.sample()).reshape(case.num_envs, -1))[1])


def check_rsl_rl(case: Case) -> Work:
    """rsl_rl's VecEnv."""
    case.only_amounts("rsl_rl")
    from clinenv.doors.rsl_rl import RslVecEnv

    env = RslVecEnv(case.env_id, case.num_envs, **case.arguments)
    luck = torch.Generator().manual_seed(0)
    return lambda: len(env.step(torch.randn(case.num_envs, env.num_actions, generator=luck))[1])


def check_omnisafe(case: Case) -> Work:
    """OmniSafe's CMDP, found by its id."""
    case.only_amounts("OmniSafe")
    import clinenv.doors.omnisafe  # noqa: F401  (loads OmniSafe and registers the ids)
    from omnisafe.envs.core import make  # isort: skip

    env = make(case.env_id, num_envs=case.num_envs, **case.arguments)
    env.set_seed(0)
    env.reset()
    luck = torch.Generator().manual_seed(0)
    shape = case.num_envs, *env.action_space.shape
    return lambda: len(env.step(torch.randn(shape, generator=luck))[1])


def check_minari(case: Case) -> Work:
    """Minari records, writes and reads: every array is what the environment gave."""
    import minari

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        env = minari.DataCollector(case.single(), record_infos=True)
        courses = [list(_course(env, seed, 12)) for seed in (0, 1)]
        for kept, again in zip(courses, [list(_course(case.single(), seed, 12)) for seed in (0, 1)], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(kept, again, strict=True)), "the collector changed a course"
        data = env.create_dataset("clinenv/round-trip-v0", algorithm_name="random", eval_env=None)
        episodes = list(data.iterate_episodes())
        assert len(episodes) == len(courses), f"{len(episodes)} courses came back of {len(courses)}"
        for episode, course in zip(episodes, courses, strict=True):
            seen, actions, rewards, costs = course
            assert np.array_equal(episode.observations, seen), "the observations differ"
            assert np.array_equal(episode.actions, actions), "the actions differ"
            assert np.array_equal(episode.rewards, rewards), "the rewards differ"
            assert np.array_equal(episode.infos["cost"], costs), "the costs differ"
    single = case.single()
    return lambda: len(list(_course(single, None, 12))[2])


def _course(env: gymnasium.Env, seed: int | None, steps: int) -> Iterator[np.ndarray]:
    """Observations, actions, rewards and costs of a course of at most so many steps."""
    env.action_space.seed(seed)
    first, info = env.reset(seed=seed)
    seen, actions, rewards, costs = [first], [], [], [info["cost"]]
    for _ in range(steps):
        action = env.action_space.sample()
        after, reward, terminated, truncated, info = env.step(action)
        for column, value in ((seen, after), (actions, action), (rewards, reward), (costs, info["cost"])):
            column.append(value)
        if terminated or truncated:
            break
    yield from (np.asarray(column) for column in (seen, actions, rewards, costs))


def _stepping(env: gymnasium.vector.VectorEnv) -> Work:
    env.reset(seed=0)
    env.action_space.seed(0)
    return lambda: len(env.step(env.action_space.sample())[1])


def _besides(more: Mapping[str, Any], less: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in more.items() if name not in less}


def check_team(team: str) -> None:
    """PettingZoo's api, seed, parallel api and parallel seed tests."""
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

    def make(form: str) -> Any:
        return registration.make_team(team, form)

    api_test(make("aec"), num_cycles=20)
    seed_test(lambda: make("aec"), num_cycles=10)
    parallel_api_test(make("parallel"), num_cycles=20)
    parallel_seed_test(lambda: make("parallel"), num_cycles=10)


class Library(NamedTuple):
    """A library at the door."""

    distribution: str
    module: str  # what is imported
    check: Callable[[Case], Work]


LIBRARIES: dict[str, Library] = {
    "gymnasium": Library("gymnasium", "gymnasium", check_gymnasium),
    "stable-baselines3": Library("stable-baselines3", "stable_baselines3", check_stable_baselines3),
    "sb3-contrib": Library("sb3-contrib", "sb3_contrib", check_sb3_contrib),
    "torchrl": Library("torchrl", "torchrl", check_torchrl),
    "torchrl-gymwrapper": Library("torchrl", "torchrl", check_torchrl_wrapper),
    "torchrl-gymwrapper-same-step": Library("torchrl", "torchrl", check_torchrl_wrapper_same_step),
    "rllib": Library("ray", "ray", check_rllib),
    "pufferlib": Library("pufferlib-core", "pufferlib", check_pufferlib),
    "skrl": Library("skrl", "skrl", check_skrl),
    "rsl_rl": Library("rsl-rl-lib", "rsl_rl", check_rsl_rl),
    "omnisafe": Library("omnisafe", "omnisafe", check_omnisafe),
    "minari": Library("minari", "minari", check_minari),
}
