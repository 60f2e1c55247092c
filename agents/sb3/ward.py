"""PPO on the ward: on the menu's switches from nothing, and on the knobs of the clinician's rule from the rule.

Sixty-nine switches leave chance little hope: a policy that begins at random orders half the menu every four hours. The
knobs of `agents.baselines.ward_rule` are the other way round: the policy's output is added to the rule's settings, its
last layer begins at zero, so the untrained policy is the rule to the bit and training can only move away from it.

Both train in a batch of patients (`SB3VecEnv`), on the chart as `EHRWard-v0` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from safetensors.torch import save as save_tensors
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import Tensor

import clinenv  # noqa: F401  (registers the ids)
from agents import run_folder
from agents.baselines.ward_rule import KNOBS, LARGEST, tuned
from agents.sb3.store import filled
from agents.sb3.vec_env import SB3VecEnv
from clinenv.doors.making import clinical
from clinenv.envs.ehr_ward.orders import SWITCHES
from clinenv.interface import Interface
from clinenv.simulator import Simulator
from world_models.checkpoint import CheckpointError
from world_models.protocol import Chart, WorldModel

__all__ = ["OUTPUTS", "KnobVecEnv", "WardPolicy", "WardPPO", "train_ward"]

OUTPUTS = ("switches", "knobs")  # what the policy puts out
FORM = run_folder.POLICY


@dataclass(frozen=True)
class WardPPO:
    """How PPO is run; saved as JSON beside the policy."""

    form: str = "knobs"
    num_envs: int = 256
    n_steps: int = 28  # a rollout: about one usual stay of every patient
    batch_size: int = 1024
    n_epochs: int = 6
    learning_rate: float = 5e-4  # falls linearly to 0
    gamma: float = 0.99  # of a step of four hours: discharge a week away still counts two thirds
    gae_lambda: float = 0.95
    ent_coef: float = 0.0
    target_kl: float | None = 0.03  # stops an update's epochs: with so many knobs the ratio of policies runs away
    cost_weight: float = 0.0  # what one unit of info["cost"] is worth in reward
    log_std: float = -1.2  # knobs: SD of the first exploration, in units of a knob
    net_arch: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        if self.form not in OUTPUTS:
            raise ValueError(f"form {self.form!r} is unknown; choose one of {', '.join(OUTPUTS)}")


class KnobVecEnv(SB3VecEnv):
    """`EHRWardDose-v0` in units, acted on by the knobs of the rule: an action is float32 [N, P] in -3..3."""

    def __init__(self, env: VectorEnv, cost_weight: float = 0.0) -> None:
        super().__init__(env, cost_weight, bootstrap_truncated=False)
        self.action_space = gym.spaces.Box(-LARGEST, LARGEST, (len(KNOBS),), np.float32)
        self._patients = clinical(env)
        self._hours = float(self._patients.world.hours_per_step)

    def step_wait(self) -> VecEnvStepReturn:
        """As in `SB3VecEnv`, with the orders that the rule gives with these knobs."""
        knobs = torch.as_tensor(np.asarray(self._actions, np.float32))
        self._actions = tuned(self._patients.chart, knobs, self._hours).numpy()
        return super().step_wait()


class WardPolicy:
    """A trained policy as an agent: the policy's mode, from the chart through the environment's own encoder.

    Args:
        policy: a folder written by `train_ward`, or the policy itself with its `form`.
        simulator: where it is judged.

    Raises:
        FileNotFoundError: the folder holds no policy.
        ValueError: it was trained on another layout of the observation, or is damaged or altered (CheckpointError).
    """

    def __init__(
        self, policy: str | Path | ActorCriticPolicy, simulator: Simulator, form: str = "knobs", name: str = "PPO"
    ) -> None:
        self.name = name
        self._interface = Interface(simulator.world, simulator.task)
        if not isinstance(policy, ActorCriticPolicy):
            policy, form = _load(Path(policy), self._interface)
        if tuple(policy.observation_space.shape or ()) != (len(self._interface.layout.names),):
            wanted, shown = policy.observation_space.shape, len(self._interface.layout.names)
            raise ValueError(f"the policy reads {wanted} entries, the chart has {shown}; train one for this task")
        self.form = form
        self._policy = policy
        self._hours = float(simulator.world.hours_per_step)
        policy.set_training_mode(False)

    def reset(self, mask: Tensor | None = None) -> None:
        """The policy remembers nothing."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        count = chart["hours"].shape[0]
        nobody = torch.zeros(count, dtype=torch.int64, device=chart["hours"].device)
        observation, _ = self._interface.observe(chart, nobody, nobody, None)
        choice = self._policy._predict(observation, deterministic=True)
        if self.form == "knobs":
            return tuned(chart, choice.clamp(-LARGEST, LARGEST), self._hours)
        return self._interface.codec(choice, count)


class _Progress(BaseCallback):
    def __init__(self, say: Callable[[int, float], None] | None) -> None:
        super().__init__()
        self.say = say

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        recent = [e["r"] for e in self.model.ep_info_buffer or ()]
        if self.say is not None:
            self.say(self.num_timesteps, float(np.mean(recent)) if recent else float("nan"))


def train_ward(
    out: str | Path,
    steps: int,
    world: str | Path | WorldModel = "ehr-ward-small",
    config: WardPPO | None = None,
    seed: int = 0,
    first_patient: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Path:
    """Train for `steps` patient-steps; the folder with policy.safetensors and policy.json. One that is there is kept.

    Args:
        world: name, folder or object, as the environment takes it.
        seed: of SB3's networks and sampling.
        first_patient: seed of the first row's patients; the others' follow.
        progress: called after each rollout with the steps done and the recent mean return.

    Raises:
        ValueError: steps below 1, or `out` holds a policy made otherwise, or a damaged one (CheckpointError).
    """
    config = config or WardPPO()
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    folder = Path(out)
    name = str(world) if isinstance(world, str | Path) else world.name
    made: dict[str, Any] = {"steps": steps, "world": name, "seed": seed, "first_patient": first_patient}
    made |= json.loads(json.dumps(asdict(config)))
    if (folder / FORM.json).exists():
        with FORM.opened(folder) as found:
            old = found.config
        differing = [k for k, v in made.items() if old.get(k) != v]
        if differing:
            raise ValueError(f"{folder} holds a policy with another {', '.join(differing)}; choose another folder")
        return folder
    knobs = config.form == "knobs"
    settings: dict[str, Any] = {"world": world, "autoreset_mode": AutoresetMode.SAME_STEP}
    if knobs:
        settings["action_unit"] = "units"
    envs = gym.make_vec(
        "EHRWardDose-v0" if knobs else "EHRWard-v0",
        num_envs=config.num_envs,
        vectorization_mode="vector_entry_point",
        **settings,
    )
    try:
        vec = KnobVecEnv(envs, config.cost_weight) if knobs else SB3VecEnv(envs, config.cost_weight, False)
        model = _untrained(config, vec, seed)
        vec.seed(first_patient)
        model.learn(steps, callback=_Progress(progress))
        patients = clinical(envs)
        made["observation_names"] = list(Interface(patients.world, patients.task).layout.names)
    finally:
        envs.close()
    FORM.write(folder, made, [save_tensors(run_folder.plain(model.policy.state_dict()))])
    return folder


def _untrained(config: WardPPO, vec: SB3VecEnv, seed: int) -> PPO:
    """PPO before its first step; on the knobs, the policy is the rule."""
    policy: dict[str, Any] = {"net_arch": list(config.net_arch)}
    if config.form == "knobs":
        policy["log_std_init"] = config.log_std
    model = PPO(
        "MlpPolicy",
        vec,
        seed=seed,
        device="cpu",
        n_steps=config.n_steps,
        batch_size=min(config.batch_size, config.n_steps * config.num_envs),
        n_epochs=config.n_epochs,
        learning_rate=lambda left: config.learning_rate * left,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        ent_coef=config.ent_coef,
        target_kl=config.target_kl,
        policy_kwargs=policy,
    )
    if config.form == "knobs":
        last = model.policy.action_net
        assert isinstance(last, torch.nn.Linear)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    return model


def _load(folder: Path, interface: Interface) -> tuple[ActorCriticPolicy, str]:
    """The policy of a folder, and its form."""
    if not (folder / FORM.json).exists():
        raise FileNotFoundError(
            f"{folder / FORM.json} is not there; train a policy first with agents.sb3.ward.train_ward"
        )
    with FORM.opened(folder) as found:
        made = found.config
        if made.get("form") not in OUTPUTS:
            raise CheckpointError(
                f"{folder / FORM.json} has form={made.get('form')!r}; there are: {', '.join(OUTPUTS)}"
            )
        if made.get("observation_names") != list(interface.layout.names):
            raise ValueError("the policy was trained on another layout of the chart; train one for this task")
        box = gym.spaces.Box(-LARGEST, LARGEST, (len(KNOBS),), np.float32)
        space = box if made["form"] == "knobs" else gym.spaces.MultiBinary(len(SWITCHES))
        policy = filled(found, lambda: (ActorCriticPolicy, interface.view.space, space, made["net_arch"], {}))
    assert isinstance(policy, ActorCriticPolicy)
    return policy, made["form"]
