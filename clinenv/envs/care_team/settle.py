"""What three people said at the same time becomes one set of orders, by the rules of `rights`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.envs.care_team.rights import NURSE, PRECEDENCE, ROLES, columns

__all__ = ["NOBODY", "Settled", "Word", "settle"]

NOBODY = -1


class Word(NamedTuple):
    """What one member of the team says of each order, B patients and A orders."""

    orders: Tensor  # float32 [B, A] in the orders' units; 0: not ordered
    holds: Tensor  # bool [B, A] held back, should anybody order it
    adjusts: Tensor  # float32 [B, A] the amount to be given should a colleague order it; 0: as ordered


class Settled(NamedTuple):
    """What came of it."""

    orders: Tensor  # float32 [B, A]: the set that the ward is given
    by: Tensor  # int64 [B, A] index in ROLES of who ordered what stands; NOBODY where nothing was ordered
    ordered: dict[str, Tensor]  # role -> bool [B, A]: within his rights and the standing orders
    beyond: dict[str, Tensor]  # role -> bool [B, A]: beyond the standing orders, and so not given
    held: dict[str, Tensor]  # role -> bool [B, A]: a colleague's order that he held back
    changed: dict[str, Tensor]  # role -> bool [B, A]: his order is given, at a colleague's amount
    adjusted: dict[str, Tensor]  # role -> bool [B, A]: a colleague's amount that he changed


def settle(words: Mapping[str, Word], standing: Tensor) -> Settled:
    """The orders of the team; what somebody has no right to say is not heard.

    Args:
        words: role -> what he says, for every role.
        standing: bool [B, A] what the nurse may order (`rights.standing` of the chart).

    Raises:
        KeyError: a role is missing.
    """
    device = standing.device
    wanted = {role: words[role].orders * columns(role, "order_it", device) for role in ROLES}
    ordered = {role: wanted[role] > 0 for role in ROLES}
    beyond = {role: torch.zeros_like(standing) for role in ROLES}
    beyond[NURSE] = ordered[NURSE] & ~standing
    ordered[NURSE] = ordered[NURSE] & standing

    amount = torch.zeros_like(wanted[NURSE])
    by = torch.full(amount.shape, NOBODY, dtype=torch.int64, device=device)
    for role in reversed(PRECEDENCE):  # the strongest speaks last
        amount = torch.where(ordered[role], wanted[role], amount)
        by = torch.where(ordered[role], ROLES.index(role), by)

    adjusted = {}
    for role in reversed(PRECEDENCE):
        said = words[role].adjusts * columns(role, "adjust", device)
        mine = (said > 0) & (by != NOBODY) & (by != ROLES.index(role)) & (said != amount)
        amount = torch.where(mine, said, amount)
        adjusted[role] = mine

    held = {role: words[role].holds & columns(role, "hold", device) for role in ROLES}
    gone = held[ROLES[0]] | held[ROLES[1]] | held[ROLES[2]]
    changed = {role: ordered[role] & ~gone & (wanted[role] != amount) for role in ROLES}
    of_others = {
        role: ordered[ROLES[(i + 1) % len(ROLES)]] | ordered[ROLES[(i + 2) % len(ROLES)]]
        for i, role in enumerate(ROLES)
    }
    return Settled(
        orders=torch.where(gone, 0.0, amount),
        by=torch.where(gone, NOBODY, by),
        ordered=ordered,
        beyond=beyond,
        held={role: held[role] & of_others[role] for role in ROLES},
        changed=changed,
        adjusted={role: adjusted[role] & ~gone for role in ROLES},
    )
