"""TorchRL's PPO on its own collector, over a native environment: tensordicts on the device from end to end."""

from __future__ import annotations

import argparse

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from clinenv.doors.torchrl import TorchRLEnv


def main(argv: list[str] | None = None) -> list[float]:
    """Trains; returns the mean return of the courses in each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=256)
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    env = TorchRLEnv("ECGDrug-v0", args.num_envs, world=args.world)
    env.set_seed(0)
    seen = env.observation_spec["observation"].shape[-1]

    def network(out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out))

    logits = TensorDictModule(network(env.action_spec.space.n), ["observation"], ["logits"])
    actor = ProbabilisticActor(
        logits, in_keys=["logits"], distribution_class=torch.distributions.Categorical, return_log_prob=True
    )
    critic = ValueOperator(network(1), in_keys=["observation"])
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.02, normalize_advantage=True)
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)

    means = []
    frames = 24 * args.num_envs  # one whole course of every patient
    collector = Collector(env, actor, frames_per_batch=frames, total_frames=max(frames, args.steps))
    for batch in collector:
        means.append(float(batch["next", "reward"].sum() / batch["next", "done"].sum().clamp(min=1)))
        with torch.no_grad():
            advantage(batch)
        flat = batch.reshape(-1)
        for _ in range(4):
            for rows in torch.randperm(len(flat)).chunk(4):
                terms = loss(flat[rows])
                optimizer.zero_grad()
                sum(terms[name] for name in ("loss_objective", "loss_critic", "loss_entropy")).backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
    collector.shutdown()
    print(f"return {means[0]:.2f} at first, {means[-1]:.2f} at last")
    return means


if __name__ == "__main__":
    main()
