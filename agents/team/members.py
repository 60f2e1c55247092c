"""What a member of a care team is, and three of them as one agent that the judge can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clinenv.envs.care_team.charts import own_chart
from clinenv.envs.care_team.rights import ROLES, standing
from clinenv.envs.care_team.settle import Settled, Word, settle
from world_models.protocol import Chart
from world_models.quantities.ward import ORDERS

__all__ = ["CareTeam", "Member", "nothing_said"]


@runtime_checkable
class Member(Protocol):
    """Decides for a batch of patients from one role's chart alone; on memory and chance see `agents.protocol.Agent`."""

    role: str

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget everything, or the rows of mask bool [B]."""

    def narrow(self, rows: Tensor) -> None:
        """From now on the charts hold the rows int64 [K] alone."""

    def act(self, chart: Chart) -> Word:
        """What the role says on its own chart (`own_chart`); what it has no right to say is not heard."""


def nothing_said(chart: Chart) -> Word:
    """The word of somebody who is silent."""
    zeros = torch.zeros(chart["hours"].shape[0], len(ORDERS), device=chart["hours"].device)
    return Word(zeros, zeros > 0, zeros)


class CareTeam:
    """The members as one `Agent`: each is shown his own chart, and what they say is settled as in the environment.

    Args:
        members: role -> who fills it.
        name: for tables.

    Raises:
        ValueError: a role that nobody fills or somebody fills for another.
    """

    def __init__(self, members: Mapping[str, Member], name: str) -> None:
        if set(members) != set(ROLES) or any(member.role != role for role, member in members.items()):
            found = ", ".join(f"{role}: {member.role}" for role, member in members.items())
            raise ValueError(f"a team has one of each of {', '.join(ROLES)}, got {found or 'nobody'}")
        self.members, self.name = dict(members), name

    def reset(self, mask: Tensor | None = None) -> None:
        """All forget."""
        for member in self.members.values():
            member.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """All go on with these rows [K]."""
        for member in self.members.values():
            member.narrow(rows)

    def words(self, chart: Chart) -> dict[str, Word]:
        """Role -> what he says."""
        return {role: member.act(own_chart(role, chart)) for role, member in self.members.items()}

    def settled(self, chart: Chart) -> Settled:
        """What it comes to."""
        return settle(self.words(chart), standing(chart))

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: the orders of the team in their units."""
        return self.settled(chart).orders
