"""Training with Stable-Baselines3 and sb3-contrib; `clinenv train` is its command line.

A run is a function of its seed and its settings alone: before each rollout the global generators that SB3 draws from
are seeded from the run's seed and the steps done, so a run that was stopped ends as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed

from agents import run_folder
from agents.journal import Journal
from agents.sb3 import store
from agents.sb3.algorithms import Algorithm, checked_algorithm
from agents.sb3.presets import Preset, preset_for
from agents.sb3.vec_env import SB3VecEnv
from clinenv.doors.making import clinical
from world_models import keys
from world_models.protocol import WorldModel

__all__ = ["train"]

_LINE_STEPS = 24  # of each patient between two lines of metrics, for algorithms whose rollouts are shorter


class _Between(BaseCallback):
    """What happens between two rollouts: metrics, the multiplier, a checkpoint, and the generators' seed."""

    def __init__(self, vec: SB3VecEnv, preset: Preset, seed: int, journal: Journal, save: Callable[[], None]) -> None:
        super().__init__()
        self.vec, self.preset, self.seed, self.journal, self.save = vec, preset, seed, journal, save
        self.save_every_s = 60.0

    def _on_training_start(self) -> None:
        self.line_at, self.saved = self.num_timesteps, time.monotonic()
        self.due = self.vec.num_envs * max(_LINE_STEPS, getattr(self.model, "n_steps", 1))
        if self.preset.cost_limit is not None:  # the multiplier moves with every rollout
            self.due = self.vec.num_envs * self.model.n_steps  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._tell(last=False)
        if time.monotonic() - self.saved > self.save_every_s:
            self.save()
            self.saved = time.monotonic()
        seed = int(keys.fold(keys.from_seed(self.seed), self.num_timesteps)) & 0xFFFFFFFF
        set_random_seed(seed)
        self.model.action_space.seed(seed)

    def _on_training_end(self) -> None:
        self._tell(last=True)
        self.save()

    def _tell(self, last: bool) -> None:
        """A line of metrics where one is due."""
        due = self.num_timesteps // self.due > self.line_at // self.due  # wherever the run was stopped
        if not due and not (last and self.num_timesteps > self.line_at):
            return
        self.line_at = self.num_timesteps
        told = self.vec.finished()
        if self.preset.cost_limit is not None and "cost" in told:
            beyond = told["cost"] - self.preset.cost_limit
            self.vec.cost_weight = max(0.0, self.vec.cost_weight + self.preset.multiplier_rate * beyond)
            told["multiplier"] = self.vec.cost_weight
        for name, value in self.logger.name_to_value.items():
            if name.startswith("train/"):
                told[name.removeprefix("train/")] = float(value)
        self.journal.line(self.num_timesteps, told)


def train(
    out: str | Path,
    steps: int,
    algo: str = "ppo",
    world: str | Path | WorldModel | None = None,
    env_id: str = "ECGDrug-v0",
    preset: Preset | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    save_every_s: float = 60.0,
    tensorboard: bool = False,
    make: Callable[..., VectorEnv] | None = None,
    **env_kwargs: Any,
) -> Path:
    """Train until at least `steps` patient-steps have been seen in all; returns the folder of the policy.

    Args:
        out: folder (see `agents.run_folder`).
        algo: a name of `agents.sb3.algorithms.ALGORITHMS`.
        world: name, folder or object, as the environment takes it; None: the id's own.
        preset: None: that of the algorithm and the id. With a `cost_limit`, a multiplier takes the place of the cost's
            weight: after each rollout it rises by what the mean cost lay above the limit, and falls by what below.
        seed: of SB3's networks and sampling, and of the patients.
        resume: go on from `out`; False: start anew.
        save_every_s: seconds between two checkpoints.
        make: builds the vector environment, called as make(env_id, num_envs, world, autoreset_mode=..., **env_kwargs);
            None: `run_folder.make_patients`.

    Raises:
        ValueError: an argument that is none, actions that the algorithm cannot take, or `out` holds another run.
    """
    algorithm = checked_algorithm(algo)
    algorithm.load()  # or say what is not installed
    preset = preset or preset_for(algo, env_id)
    if preset.cost_limit is not None and not algorithm.on_policy:
        raise ValueError(f"cost_limit={preset.cost_limit}: {algo} learns from what is long past; take ppo, or a weight")
    told = run_folder.described(algorithm.library, algo, env_id, world, preset.to_json(), seed, steps, env_kwargs)
    folder = Path(out)
    resume = resume and run_folder.resumable(folder, told)
    envs = (make or run_folder.make_patients)(
        env_id, preset.num_envs, world, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs
    )
    try:
        # Course and horizon are the same steps for everyone and the hour is observed: the end is the end.
        vec = SB3VecEnv(envs, cost_weight=preset.cost_weight, bootstrap_truncated=False)
        _check_actions(algo, algorithm, env_id, envs)
        told["observation_names"] = list(clinical(envs).episodes.interface.layout.names)
        model = _untrained(algorithm, vec, preset, seed)
        if resume:
            with run_folder.opened_checkpoint(folder) as found:
                store.restore(model, vec, found)
            if run_folder.lags(folder, model.num_timesteps):
                store.save(model, vec, folder, told)
        else:
            run_folder.forget(folder)
            vec.seed(seed)
        done = model.num_timesteps
        label = f"{algo} in {told['world']}"
        with Journal(folder, label, max(steps, done), done, progress, tensorboard) as journal:
            between = _Between(vec, preset, seed, journal, lambda: store.save(model, vec, folder, told))
            between.save_every_s = save_every_s
            if done < steps:
                model.learn(steps - done, callback=between, reset_num_timesteps=done == 0)
    finally:
        envs.close()
    return folder


def _untrained(algorithm: Algorithm, vec: SB3VecEnv, preset: Preset, seed: int) -> BaseAlgorithm:
    """The model before its first step."""
    settings = dict(preset.settings)
    if preset.decay:
        top = settings["learning_rate"]
        settings["learning_rate"] = lambda remaining: top * remaining
    sizes = {"net_arch": list(preset.net_arch), **preset.policy}
    return algorithm.load()(algorithm.load_policy(), vec, seed=seed, device="cpu", policy_kwargs=sizes, **settings)


def _check_actions(algo: str, algorithm: Algorithm, env_id: str, envs: VectorEnv) -> None:
    """Raises ValueError where the algorithm cannot take the actions of the environment."""
    space = envs.single_action_space
    if algorithm.menu_only and not isinstance(space, Discrete):
        raise ValueError(f"{algo} needs a menu, but {env_id} takes {space}; take ppo")
    if algorithm.masks and not clinical(envs).task.refuses:
        raise ValueError(f"{algo} needs masks, and {env_id} refuses nothing; take ppo")
