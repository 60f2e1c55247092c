"""A trained care team: what a role's policy is, and three of them from a folder as members of a `CareTeam`.

policy.safetensors, optimizer.safetensors    the roles' parameters, and the optimisers' moments to go on training
policy.json                                  how they were made, how far, and the seal over all (`world_models.sealed`)

python -m agents.team.learned FOLDER    seals a folder that was changed on purpose
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.team.members import CareTeam
from agents.team.split_rule import RuleMember
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.care_team.role_codec import RoleCodec
from clinenv.envs.care_team.settle import Word
from clinenv.envs.care_team.task import OBSERVATION, TeamView
from clinenv.interface import Interface
from clinenv.settings import Settings
from clinenv.simulator import Simulator
from world_models import keys
from world_models.nn.mlp import mlp
from world_models.protocol import Chart
from world_models.sealed import Form, command_line

__all__ = ["FORM", "LearnedMember", "RolePolicy", "learned_team", "untrained_team"]

FORM = Form("policy.json", ("policy.safetensors", "optimizer.safetensors"), "python -m agents.team.learned")


class RolePolicy(nn.Module):
    """Actor and critic of one role.

    Args:
        sees: entries of its observation.
        says: entries of its action.
    """

    def __init__(self, sees: int, says: int, hidden: tuple[int, ...], confidence: float) -> None:
        super().__init__()
        self.confidence = confidence
        self.actor = mlp((sees + says, *hidden, says), zero_last=True)
        self.critic = mlp((sees, *hidden, 1), zero_last=True)

    def logits(self, observation: Tensor, rule: Tensor) -> Tensor:
        """Of each switch [B, says]; `rule` float32 [B, says] is what the split rule would say (0 or 1)."""
        return self.confidence * (2.0 * rule - 1.0) + self.actor(torch.cat([observation, rule], -1))

    def value(self, observation: Tensor) -> Tensor:
        """The team's discounted return from here, [B]."""
        return self.critic(observation).squeeze(-1)


class LearnedMember:
    """A trained role as a member of a `CareTeam`.

    Args:
        role: whose policy it is.
        policy: the role's.
        simulator: where it acts; its task is a `CareTeamTask`.
        seed: of the sampling, as in training; None: the policy's mode.
    """

    def __init__(self, role: str, policy: RolePolicy, simulator: Simulator, seed: int | None = 0) -> None:
        self.role, self._policy, self._seed = role, policy.eval(), seed
        self._interface = Interface(simulator.world, simulator.task, Settings(observation=OBSERVATION))
        actions: Any = simulator.task.actions
        self._codec = RoleCodec(role, actions, "scaled", self._interface.device)
        self._rule = RuleMember(role)
        self._key: Tensor | None = None  # int64 [B] of the rows that are left
        self._visits = 0

    def reset(self, mask: Tensor | None = None) -> None:
        """The policy remembers nothing; its chance begins anew, or is another for the rows of a mask."""
        if mask is None:
            self._key, self._visits = None, 0
        elif self._key is not None:
            self._key = torch.where(mask, keys.fold(self._key, self._visits), self._key)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the chance of these rows [K]."""
        if self._key is not None:
            self._key = self._key[rows]

    @torch.no_grad()
    def act(self, chart: Chart) -> Word:
        """What the policy samples on the role's own chart."""
        count, device = chart["hours"].shape[0], chart["hours"].device
        nobody = torch.zeros(count, dtype=torch.int64, device=device)
        shown, _ = self._interface.observe(chart, nobody, nobody, None)
        logits = self._policy.logits(shown[self.role], self._codec.encode(self._rule.act(chart)))
        threshold = torch.full_like(logits, 0.5)
        if self._seed is not None:
            if self._key is None:
                self._key = keys.from_seed(self._seed, count, device)
            threshold = keys.uniform(self._key, self._visits, f"agent/team/{self.role}", (logits.shape[1],))
            self._visits += 1
        return self._codec((threshold < logits.sigmoid()).to(torch.int8), count)


def _policies(simulator: Simulator, hidden: tuple[int, ...], confidence: float) -> dict[str, RolePolicy]:
    """Role -> a policy of the sizes that this simulator's task needs, as yet untrained."""
    view = Interface(simulator.world, simulator.task, Settings(observation=OBSERVATION)).view
    actions: Any = simulator.task.actions
    if not isinstance(view, TeamView):
        raise TypeError(f"task {simulator.task.name!r} has no view of a team; take a CareTeamTask")
    codecs = {role: RoleCodec(role, actions, "scaled", simulator.device) for role in ROLES}
    sizes = {role: (len(view.layouts[role]), len(codecs[role].labels)) for role in ROLES}
    return {role: RolePolicy(*sizes[role], hidden, confidence).to(simulator.device) for role in ROLES}


def untrained_team(simulator: Simulator, confidence: float, seed: int | None = 0) -> CareTeam:
    """The split rule with the noise that training begins with: what of a trained team's gain is noise alone."""
    policies = _policies(simulator, (1,), confidence)
    return CareTeam({role: LearnedMember(role, policies[role], simulator, seed) for role in ROLES}, "untrained PPO")


def learned_team(
    folder: str | Path, simulator: Simulator, seed: int | None = 0, name: str = "independent PPO"
) -> CareTeam:
    """The team of a folder written by `agents.team.ppo.train`, to be judged in `simulator`, whose task is a
    `CareTeamTask`.

    Args:
        seed: see `LearnedMember`.

    Raises:
        FileNotFoundError: the folder holds no team.
        CheckpointError: it is damaged or altered, or of other charts or actions.
    """
    folder = Path(folder)
    if not (folder / FORM.json).exists():
        raise FileNotFoundError(f"{folder / FORM.json} is not there; train a team first with agents.team.ppo.train")
    with FORM.opened(folder) as found:
        policies = _policies(simulator, tuple(found.config["hidden"]), found.config["confidence"])
        weights = {f"{n}.{k}": v for n, p in policies.items() for k, v in p.state_dict().items()}
        loaded = found.tensors(FORM.tensors[0], weights)
    for role, policy in policies.items():
        policy.load_state_dict({k.partition(".")[2]: v for k, v in loaded.items() if k.startswith(f"{role}.")})
    return CareTeam({role: LearnedMember(role, policies[role], simulator, seed) for role in ROLES}, name)


if __name__ == "__main__":
    sys.exit(command_line(FORM, "a team's folder")(None))
