"""skrl's PPO: `wrap_env` finds out by itself what it is given, and the agent is told how every course ended."""

from __future__ import annotations

import argparse

import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import nn

from clinenv.doors.skrl import SkrlVectorEnv, tell_last_observations


def _network(seen: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out))


class Policy(CategoricalMixin, Model):
    """Logits of the menu."""

    def __init__(self, observation_space, action_space, device) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device=device)
        CategoricalMixin.__init__(self)
        self.network = _network(self.num_observations, self.num_actions)

    def compute(self, inputs, role):
        return self.network(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    """The value of what is seen."""

    def __init__(self, observation_space, action_space, device) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device=device)
        DeterministicMixin.__init__(self)
        self.network = _network(self.num_observations, 1)

    def compute(self, inputs, role):
        return self.network(inputs["observations"]), {}


def main(argv: list[str] | None = None) -> list[float]:
    """Trains; returns the mean reward of a step in the first and the last round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=256)
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    env = wrap_env(SkrlVectorEnv("ECGDrug-v0", args.num_envs, world=args.world), verbose=False)
    spaces = env.observation_space, env.action_space, env.device
    models = {"policy": Policy(*spaces), "value": Value(*spaces)}
    rounds = max(1, args.steps // (24 * args.num_envs))
    cfg = PPO_CFG(rollouts=24, learning_epochs=4, mini_batches=4, learning_rate=1e-3, entropy_loss_scale=0.02)
    cfg.experiment.write_interval = cfg.experiment.checkpoint_interval = 0
    agent = PPO(
        models=models,
        memory=RandomMemory(memory_size=24, num_envs=args.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg=cfg,
    )
    rewards: list[float] = []
    learn = agent.update

    def update(**when) -> None:
        rewards.append(float(agent.memory.get_tensor_by_name("rewards").mean()))
        learn(**when)

    agent.update = update
    trainer = {"timesteps": 24 * rounds, "headless": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=tell_last_observations(agent), cfg=trainer).train()
    print(f"reward of a step {rewards[0]:.3f} at first, {rewards[-1]:.3f} at last")
    env.close()
    return rewards


if __name__ == "__main__":
    main()
