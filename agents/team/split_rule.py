"""The clinician's rule split over the team: each member applies the whole rule to his own chart and orders what is his.

Nobody holds anything back: they are of one mind, and what one does not see the others may. What the rule loses by that
is what each does not know (a pharmacist who sees no pressure takes nobody for shocked).
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.team.members import CareTeam, nothing_said
from clinenv.envs.care_team.rights import ROLES, columns
from clinenv.envs.care_team.settle import Word
from world_models.protocol import Chart

__all__ = ["RuleMember", "Silent", "split_rule"]


class RuleMember:
    """One role's part of the rule.

    Args:
        role: of the team.
        standard: standard amounts alone (`CareTeam-v0`); False: the amounts it decides (`CareTeamDose-v0`).
    """

    def __init__(self, role: str, standard: bool = True) -> None:
        self.role = role
        self._rule = StandardClinician() if standard else Clinician()

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""

    @torch.no_grad()
    def act(self, chart: Chart) -> Word:
        """The rule's orders that are this role's."""
        orders = self._rule.act(chart) * columns(self.role, "order_it", chart["hours"].device)
        return nothing_said(chart)._replace(orders=orders)


class Silent:
    """Somebody who says nothing: what a team is without him."""

    def __init__(self, role: str) -> None:
        self.role = role

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to him."""

    def act(self, chart: Chart) -> Word:
        """Nothing."""
        return nothing_said(chart)


def split_rule(standard: bool = True, without: str = "") -> CareTeam:
    """The team of the rule, in which the role `without` may be silent.

    Raises:
        ValueError: no such role.
    """
    if without not in ("", *ROLES):
        raise ValueError(f"role {without!r} is unknown; the team is {', '.join(ROLES)}")
    members = {role: Silent(role) if role == without else RuleMember(role, standard) for role in ROLES}
    name = f"split rule{' at standard amounts' if standard else ''}"
    return CareTeam(members, f"{name}, no {without}" if without else name)
