"""PPO in one file, in the manner of CleanRL: everything on the page, tensors that never leave the device.

Two details that a course's end asks for: the environment begins ended rows anew in the same step, so the value of what
the clock cut off is that of `final_obs`, not of the observation that came back; and what is learned is the reward less
a fixed price of the safety cost.
"""

from __future__ import annotations

import argparse

import gymnasium
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical

import clinenv  # noqa: F401  (registers the ids)

GAMMA, LAMBDA, CLIP, ENTROPY, EPOCHS, MINIBATCHES, COST_PRICE = 0.99, 0.95, 0.2, 0.02, 4, 4, 0.2


class Agent(nn.Module):
    """Actor and critic, two hidden layers each."""

    def __init__(self, seen: int, choices: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, choices))

    def forward(self, seen: Tensor) -> tuple[Categorical, Tensor]:
        return Categorical(logits=self.actor(seen)), self.critic(seen).squeeze(-1)


@torch.no_grad()
def collect(envs: VectorEnv, agent: Agent, seen: Tensor, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """`steps` steps of all rows, each name [steps, N, ...], and what is seen after them.

    `following` is what each step led to: the last observation of the same patient where his course ended.
    """
    kept: dict[str, list[Tensor]] = {}
    for _ in range(steps):
        policy, _ = agent(seen)
        action = policy.sample()
        shown, reward, terminated, truncated, info = envs.step(action)
        following, cost = shown, info["cost"]
        if "final_obs" in info:
            ended = info["_final_obs"]
            following = torch.where(ended.unsqueeze(-1), info["final_obs"], shown)
            cost = torch.where(ended, info["final_info"]["cost"], cost)
        step = {"seen": seen, "action": action, "log_prob": policy.log_prob(action), "reward": reward, "cost": cost}
        step |= {"following": following, "terminated": terminated, "truncated": truncated}
        for name, value in step.items():
            kept.setdefault(name, []).append(value)
        seen = shown
    return {name: torch.stack(values) for name, values in kept.items()}, seen


@torch.no_grad()
def advantages(batch: dict[str, Tensor], agent: Agent) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv:1506.02438) and returns, both [steps, N]."""
    value, ahead = agent(batch["seen"])[1], agent(batch["following"])[1]
    goes_on = ~(batch["terminated"] | batch["truncated"])
    reward = batch["reward"] - COST_PRICE * batch["cost"]
    delta = reward + GAMMA * ahead * ~batch["terminated"] - value
    estimate, running = torch.zeros_like(delta), torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + GAMMA * LAMBDA * goes_on[t] * running
        estimate[t] = running
    return estimate, estimate + value


def update(batch: dict[str, Tensor], agent: Agent, optimizer: torch.optim.Optimizer, luck: torch.Generator) -> None:
    """The clipped objective (Schulman et al. 2017, arXiv:1707.06347) on shuffled minibatches."""
    estimate, returns = advantages(batch, agent)
    flat = {name: batch[name].flatten(0, 1) for name in ("seen", "action", "log_prob")}
    estimate, returns = estimate.flatten(), returns.flatten()
    for _ in range(EPOCHS):
        order = torch.randperm(len(estimate), generator=luck).to(estimate.device)
        for rows in order.chunk(MINIBATCHES):
            policy, value = agent(flat["seen"][rows])
            ratio = (policy.log_prob(flat["action"][rows]) - flat["log_prob"][rows]).exp()
            gain = (estimate[rows] - estimate[rows].mean()) / (estimate[rows].std() + 1e-8)
            objective = torch.minimum(gain * ratio, gain * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = 0.5 * (value - returns[rows]).square().mean() - objective - ENTROPY * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main(argv: list[str] | None = None) -> list[float]:
    """Trains; returns the mean return of the courses that ended in each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=256)
    args = parser.parse_args(argv)

    envs = gymnasium.make_vec(
        "ECGDrug-v0",
        num_envs=args.num_envs,
        vectorization_mode="vector_entry_point",
        world=args.world,
        autoreset_mode=AutoresetMode.SAME_STEP,
        tensors=True,
    )
    torch.manual_seed(0)
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    luck = torch.Generator().manual_seed(0)
    seen, _ = envs.reset(seed=0)
    earned, means = torch.zeros(args.num_envs), []
    for _ in range(max(1, args.steps // (24 * args.num_envs))):
        batch, seen = collect(envs, agent, seen, 24)
        ended: list[Tensor] = []
        for reward, over in zip(batch["reward"], batch["terminated"] | batch["truncated"], strict=True):
            earned = earned + reward
            ended.append(earned[over])
            earned = torch.where(over, 0.0, earned)
        means.append(float(torch.cat(ended).mean()))
        update(batch, agent, optimizer, luck)
    print(f"return {means[0]:.2f} at first, {means[-1]:.2f} at last")
    envs.close()
    return means


if __name__ == "__main__":
    main()
