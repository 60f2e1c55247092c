"""Independent PPO: each member of the care team learns by itself, from its own chart, on the team's reward.

Proximal policy optimisation (Schulman 2017, arXiv 1707.06347) with generalised advantages (Schulman 2016, arXiv
1506.02438), one actor and one critic a role, neither of which ever sees another role's chart: for each the others are
part of the environment (de Witt 2020, arXiv 2011.09533, where that was hard to beat).

The batched environment gives tensors and nothing leaves the device. An action is a switch for each entry, sampled
independently, the mask's zeros excluded. What is sampled departs from the split rule: the logit of an entry is
`confidence` where the rule would give the order and minus that where not, plus what the actor puts out, whose last
layer begins at zero. So the untrained team is the rule with a little noise, and at its mode the rule itself.

An iteration's patients and chance are functions of the seed and the iteration's number, so a training that was killed
goes on with what it would have met: `train` into the same folder again.

policy.safetensors, optimizer.safetensors, policy.json under one seal; metrics.jsonl has a line an iteration.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from agents.team.learned import FORM, RolePolicy
from agents.team.split_rule import RuleMember
from clinenv.assemble import WorldLike
from clinenv.envs.care_team.charts import own_chart
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.care_team.vector_env import CareTeamVectorEnv
from clinenv.registration import WARD_WORLD
from world_models import keys
from world_models.nn.mlp import sample_weights
from world_models.protocol import Chart

__all__ = ["TeamPPO", "advantages", "log_chance", "train"]

FIRST_PATIENT = 8_700_000_000  # seeds of patients that nothing else meets


@dataclass(frozen=True)
class TeamPPO:
    """How it is run; saved beside the policy.

    Raises:
        ValueError: a number that is none of its kind.
    """

    iterations: int = 400  # half an hour of a core; with 40 the team is worse than the rule that it departs from
    num_envs: int = 128
    n_steps: int = 48  # eight days: a usual stay, and the start of another
    minibatches: int = 8
    epochs: int = 4
    learning_rate: float = 1e-3  # falls linearly to 0
    gamma: float = 0.99  # of a step of four hours
    gae_lambda: float = 0.95
    clip: float = 0.2
    largest_norm: float = 0.5  # of the gradient
    target_kl: float = 0.03  # stops an update's epochs: with fifty switches the ratio of policies runs away
    entropy: float = 0.0  # weight
    confidence: float = 4.0  # logit of the rule: 1.8 % of its switches are sampled the other way
    hidden: tuple[int, ...] = (128, 128)
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.iterations, self.num_envs, self.n_steps, self.minibatches, self.epochs)
        if min(counts) < 1 or self.learning_rate <= 0 or not 0 < self.gamma <= 1:
            raise ValueError(f"counts must be at least 1, the rate above 0 and gamma in (0, 1], got {self}")


def log_chance(logits: Tensor, action: Tensor, mask: Tensor) -> Tensor:
    """Log-probability [B] of switches [B, n], of which those without a mask could only be off."""
    each = -functional.binary_cross_entropy_with_logits(logits, action, reduction="none")
    return (each * mask).sum(-1)


class _Rollout(NamedTuple):
    """What one role met in an iteration: [T, N, ...]."""

    observation: Tensor
    rule: Tensor
    mask: Tensor
    action: Tensor
    log_chance: Tensor
    value: Tensor
    advantage: Tensor


class _Role:
    """One role's policy with its optimiser."""

    def __init__(self, role: str, env: CareTeamVectorEnv, config: TeamPPO) -> None:
        self.role, self.config = role, config
        self.codec = env.episodes.codecs[role]
        shape = env.observation_space(role).shape
        assert shape is not None
        self.policy = RolePolicy(shape[0], len(self.codec.labels), config.hidden, config.confidence)
        sample_weights(self.policy, config.seed * len(ROLES) + ROLES.index(role))
        self.policy.to(env.ward.episodes.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), config.learning_rate)
        self.rule = RuleMember(role)

    def proposal(self, chart: Chart) -> Tensor:
        """float32 [B, says]: what the split rule says on this role's chart."""
        return self.codec.encode(self.rule.act(own_chart(self.role, chart)))

    def update(self, met: _Rollout, iteration: int) -> dict[str, float]:
        """Some epochs of clipped steps; what came of them."""
        c, flat = self.config, _Rollout(*(x.flatten(0, 1) for x in met))
        count = len(flat.advantage)
        gain = (flat.advantage - flat.advantage.mean()) / (flat.advantage.std() + 1e-8)
        target = flat.advantage + flat.value
        generator = torch.Generator().manual_seed(
            (c.seed * 1_000_003 + iteration) * len(ROLES) + ROLES.index(self.role)
        )
        told = {"kl": 0.0, "value_loss": 0.0, "epochs": 0.0}
        for epoch in range(c.epochs):
            order = torch.randperm(count, generator=generator).to(gain.device)
            divergence = []
            for rows in order.chunk(c.minibatches):
                logits = self.policy.logits(flat.observation[rows], flat.rule[rows])
                change = log_chance(logits, flat.action[rows], flat.mask[rows]) - flat.log_chance[rows]
                ratio = change.exp()
                divergence.append(float((ratio - 1.0 - change).mean().detach()))
                clipped = ratio.clamp(1 - c.clip, 1 + c.clip)
                policy_loss = -torch.minimum(ratio * gain[rows], clipped * gain[rows]).mean()
                value_loss = (self.policy.value(flat.observation[rows]) - target[rows]).square().mean()
                chance = logits.sigmoid()
                doubt = functional.binary_cross_entropy_with_logits(logits, chance, reduction="none")
                loss = policy_loss + 0.5 * value_loss - c.entropy * (doubt * flat.mask[rows]).sum(-1).mean()
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                # apart: the critic's errors are of the size of returns, and would leave nothing for the actor
                nn.utils.clip_grad_norm_(self.policy.actor.parameters(), c.largest_norm)
                nn.utils.clip_grad_norm_(self.policy.critic.parameters(), c.largest_norm)
                self.optimiser.step()
                told["value_loss"] = float(value_loss.detach())
            told |= {"kl": sum(divergence) / len(divergence), "epochs": epoch + 1.0}
            if told["kl"] > c.target_kl:
                break
        return told


def _collect(
    env: CareTeamVectorEnv, roles: Mapping[str, _Role], config: TeamPPO, iteration: int
) -> tuple[dict[str, _Rollout], dict[str, float]]:
    """One iteration's experience of every role, and how the stays went that ended in it."""
    shown, infos = env.reset(seed=FIRST_PATIENT + (config.seed * 10_000 + iteration) * config.num_envs)
    chance = keys.fold(keys.from_seed(config.seed, config.num_envs, env.episodes.device), iteration)
    met: dict[str, list[list[Tensor]]] = {role: [] for role in ROLES}
    rewards, ends = [], []
    total = torch.zeros(config.num_envs, device=env.episodes.device)
    finished: list[Tensor] = []
    for t in range(config.n_steps):
        actions = {}
        for name, role in roles.items():
            rule, mask = role.proposal(env.ward.chart), infos[name]["action_mask"].to(torch.float32)
            logits = role.policy.logits(shown[name], rule)
            u = keys.uniform(chance, t, f"agent/team/{name}", (logits.shape[1],))
            actions[name] = (u < logits.sigmoid()).to(torch.float32) * mask
            value = role.policy.value(shown[name])
            met[name].append([shown[name], rule, mask, actions[name], log_chance(logits, actions[name], mask), value])
        shown, reward, over, cut, infos = env.step(actions)
        ended = over[ROLES[0]] | cut[ROLES[0]]
        rewards.append({name: _with_rest(roles[name], config, reward[name], cut[name], infos[name]) for name in ROLES})
        ends.append(ended)
        total = total + reward[ROLES[0]]
        finished.append(total[ended])
        total = torch.where(ended, 0.0, total)
    found = {}
    for name, role in roles.items():
        columns = [torch.stack(column) for column in zip(*met[name], strict=True)]
        paid = torch.stack([r[name] for r in rewards])
        gain = advantages(paid, columns[-1], role.policy.value(shown[name]), torch.stack(ends), config)
        found[name] = _Rollout(*[*columns, gain])
    returns = torch.cat(finished)
    return found, {"stays": float(len(returns)), "return": float(returns.mean()) if len(returns) else math.nan}


def _with_rest(role: _Role, config: TeamPPO, reward: Tensor, cut: Tensor, info: Mapping[str, Any]) -> Tensor:
    """The reward [N], and where a stay was cut short what the critic expects of its rest."""
    if not bool(cut.any()):
        return reward
    rest = role.policy.value(torch.where(cut.unsqueeze(-1), info["final_obs"], 0.0))
    return reward + torch.where(cut, config.gamma * rest, 0.0)


def advantages(rewards: Tensor, values: Tensor, last: Tensor, ends: Tensor, config: TeamPPO) -> Tensor:
    """Generalised advantages [T, N] of rewards and values [T, N], the value `last` [N] after them, and ends [T, N]."""
    gain, found = torch.zeros_like(last), torch.zeros_like(rewards)
    following = last
    for t in range(len(rewards) - 1, -1, -1):
        goes_on = (~ends[t]).to(rewards.dtype)
        surprise = rewards[t] + config.gamma * following * goes_on - values[t]
        gain = surprise + config.gamma * config.gae_lambda * goes_on * gain
        found[t], following = gain, values[t]
    return found


def train(out: str | Path, config: TeamPPO | None = None, world: WorldLike = WARD_WORLD, save_every: int = 5) -> Path:
    """Train the team; the folder with its policy. One that is there and finished is kept, an unfinished one goes on.

    Args:
        out: the folder.
        world: as the environment takes it.
        save_every: iterations.

    Raises:
        ValueError: the folder holds a team that was made otherwise, or a damaged one (CheckpointError).
    """
    config, folder = config or TeamPPO(), Path(out)
    name = str(world) if isinstance(world, str | Path) else world.name
    made = json.loads(json.dumps({**asdict(config), "world": name}))
    env = CareTeamVectorEnv(config.num_envs, world=world, autoreset_mode="SameStep", tensors=True, uncertainty=False)
    try:
        roles = {role: _Role(role, env, config) for role in ROLES}
        made["labels"] = {role: env.labels(role) for role in ROLES}
        done = _resumed(folder, roles, made)
        folder.mkdir(parents=True, exist_ok=True)
        bar = tqdm(range(done, config.iterations), initial=done, total=config.iterations, desc="team PPO")
        for iteration in bar:
            started = time.monotonic()
            with torch.no_grad():
                met, told = _collect(env, roles, config, iteration)
            for name, role in roles.items():
                for group in role.optimiser.param_groups:
                    group["lr"] = config.learning_rate * (1.0 - iteration / config.iterations)
                told |= {f"{name}_{k}": v for k, v in role.update(met[name], iteration).items()}
            bar.set_postfix(ret=f"{told['return']:.2f}")
            told |= {"iteration": iteration, "seconds": time.monotonic() - started}
            with open(folder / "metrics.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps({k: v if math.isfinite(v) else None for k, v in told.items()}) + "\n")
            if (iteration + 1) % save_every == 0 or iteration + 1 == config.iterations:
                _save(folder, roles, {**made, "done": iteration + 1})
    finally:
        env.close()
    return folder


def _save(folder: Path, roles: Mapping[str, _Role], config: Mapping[str, Any]) -> None:
    weights = {f"{n}.{k}": v.detach().cpu().clone() for n, r in roles.items() for k, v in r.policy.state_dict().items()}
    moments = {
        f"{name}.{index}.{slot}": value.detach().cpu().clone()
        for name, role in roles.items()
        for index, slots in role.optimiser.state_dict()["state"].items()
        for slot, value in slots.items()
    }
    FORM.write(folder, config, [save_tensors(weights), save_tensors(moments)])


def _resumed(folder: Path, roles: Mapping[str, _Role], made: Mapping[str, Any]) -> int:
    """Iterations that were done, their weights and moments put back; 0: the folder holds none."""
    if not (folder / FORM.json).exists():
        return 0
    with FORM.opened(folder) as found:
        differing = [k for k, v in made.items() if found.config.get(k) != v]
        if differing:
            raise ValueError(f"{folder} holds a team with another {', '.join(differing)}; choose another folder")
        weights = {f"{n}.{k}": v for n, r in roles.items() for k, v in r.policy.state_dict().items()}
        loaded = found.tensors(FORM.tensors[0], weights)
        slots: dict[str, Tensor] = {}
        for name, role in roles.items():
            for i, p in enumerate(role.policy.parameters()):
                slots |= {f"{name}.{i}.{slot}": p for slot in ("exp_avg", "exp_avg_sq")}
                slots[f"{name}.{i}.step"] = torch.zeros(())
        moments = found.tensors(FORM.tensors[1], slots)
        done = int(found.config["done"])
    for name, role in roles.items():
        role.policy.load_state_dict({k.partition(".")[2]: v for k, v in loaded.items() if k.startswith(f"{name}.")})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            owner, index, slot = key.split(".", 2)
            if owner == name:
                state.setdefault(int(index), {})[slot] = value
        role.optimiser.load_state_dict({"state": state, "param_groups": role.optimiser.state_dict()["param_groups"]})
    return done
