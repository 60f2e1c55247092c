"""Running episodes of a ward patient to whom three people attend: `Episodes` that take their actions together and say
of each of them what became of his orders.

What is said of one role alone stands under "ROLE/NAME" among the facts; `split` takes them apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clinenv.envs.care_team.rights import ROLES, standing, standing_words
from clinenv.envs.care_team.role_codec import RoleCodec
from clinenv.envs.care_team.settle import Settled, settle
from clinenv.envs.ehr_ward.rewards import price
from clinenv.episodes import Episodes, Running
from clinenv.simulator import Step
from clinenv.task import Doses, Switches
from world_models.quantities.ward import ORDERS

__all__ = ["CareTeamEpisodes", "mask_name", "split"]

_OWN = "/"  # between a role and a name
_TOLD = ("orders", "refused_orders", "held_orders", "changed_orders", "holds", "adjustments", "price_usd")
_BY_TEAM = ("action_mask", "refused_orders")  # facts of the ward that each role has of his own
_SPREADS = ("spread_", "epistemic_", "aleatoric_")


def mask_name(actions: Switches | Doses) -> str:
    """Under which name info holds the mask. Loops that are written for masks hand `info["action_mask"]` to
    `action_space.sample`, which a Box refuses; so that of amounts has another name."""
    return "action_mask" if isinstance(actions, Switches) else "order_mask"


class CareTeamEpisodes(Episodes):
    """Arguments as for `Episodes`; its task's actions are switches or amounts of all the ward's orders.

    Attributes:
        codecs: role -> what translates his actions.
        settled: what came of the last actions; None before the first.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        actions = self.simulator.task.actions
        names = tuple(order.name for order in ORDERS)
        if not isinstance(actions, Switches | Doses) or actions.names != names:
            raise ValueError(
                "a care team's task needs switches or amounts of all the ward's orders, in their order; take "
                "`CareTeamTask`, or give it `clinenv.envs.ehr_ward.orders.DOSES` as actions"
            )
        unit = self.settings.action_unit
        self.codecs = {role: RoleCodec(role, actions, unit, self.device) for role in ROLES}
        self.settled: Settled | None = None
        self._mask_name = mask_name(actions)

    @torch.no_grad()
    def decide(self, actions: Mapping[str, Any]) -> Settled:
        """What the actions, role -> [B, entries], would come to now.

        Raises:
            ValueError: not a mapping of exactly the roles, or an action outside its space.
        """
        if not isinstance(actions, Mapping) or set(actions) != set(ROLES):
            found = ", ".join(map(str, actions)) if isinstance(actions, Mapping) else repr(type(actions).__name__)
            raise ValueError(f"the team acts together: give a mapping with {', '.join(ROLES)}, got {found or 'nobody'}")
        words = {role: self.codecs[role](actions[role], self.count) for role in ROLES}
        return settle(words, standing(self.running.chart))

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Step, Tensor]:
        """Act in every row: see `Episodes.step`; the actions are those of `decide`."""
        settled = self.decide(actions)
        out = self.carry_out(settled.orders)
        self.settled = settled
        return out

    @torch.no_grad()
    def facts(self, fresh: Running | None = None) -> dict[str, Tensor]:
        """As `Episodes.facts`, and of each role its mask."""
        said = super().facts(fresh)
        chart = (self.running if fresh is None else fresh).chart
        allowed = self._allowed() if fresh is None else self.simulator.task.admissible(chart)
        return said | {
            f"{role}{_OWN}{self._mask_name}": codec.mask(allowed, chart) for role, codec in self.codecs.items()
        }

    def verdict(self, out: Step) -> dict[str, Tensor]:
        """As `Episodes.verdict`, and of each role how many orders he gave, how many of them the ward refused or the
        standing orders did not cover, a colleague held back or gave at another amount; how many of his colleagues'
        orders he held back and adjusted; and what was given at his word, in US dollars."""
        return super().verdict(out) | {
            f"{role}{_OWN}{name}": value for role in ROLES for name, value in self._told(role, out).items()
        }

    def unjudged(self, count: int | None = None) -> dict[str, Tensor]:
        """As `Episodes.unjudged`."""
        nothing = torch.zeros(self.count if count is None else count, device=self.device)
        return super().unjudged(count) | {f"{role}{_OWN}{name}": nothing for role in ROLES for name in _TOLD}

    def _told(self, role: str, out: Step) -> dict[str, Tensor]:
        settled = self.settled
        assert settled is not None and self.wanted is not None and out.refused is not None
        mine = settled.ordered[role]
        refused = settled.beyond[role] | (mine & out.refused)
        decided = settled.by == ROLES.index(role)
        hours = out.chart["hours"] - self.wanted[0]["hours"]
        tests, treatments = price(torch.where(decided, out.given, 0.0), hours)
        asked = mine | settled.beyond[role]
        first, second = (settled.held[other] for other in ROLES if other != role)
        counts = [asked, refused, mine & (first | second)]
        counts += [settled.changed[role], settled.held[role], settled.adjusted[role]]
        values = [count.sum(-1).to(torch.float32) for count in counts]
        return dict(zip(_TOLD, [*values, tests + treatments], strict=True))

    @torch.no_grad()
    def disputes(self, row: int) -> list[tuple[str, str, str]]:
        """(role, order, why it was not carried out as he gave it) of the last step of a row; empty before the first.

        Raises:
            ValueError: no such row.
        """
        refused = dict(self.refusals(row))
        if self.settled is None or self.wanted is None:
            return []
        found, settled = [], self.settled
        for role in ROLES:
            for column in (settled.ordered[role] | settled.beyond[role])[row].nonzero().flatten().tolist():
                order = ORDERS[column].name
                who = [other for other in ROLES if other != role]
                holders = [other for other in who if settled.held[other][row, column]]
                if settled.beyond[role][row, column]:
                    found.append((role, order, standing_words(order)))
                elif holders:
                    found.append((role, order, f"the {' and the '.join(holders)} held it back"))
                elif order in refused:
                    found.append((role, order, refused[order]))
                elif settled.changed[role][row, column]:
                    setter = [other for other in who if settled.adjusted[other][row, column]]
                    other = setter[0] if setter else ROLES[int(settled.by[row, column])]
                    found.append((role, order, f"the {other} gave another amount"))
        return found


def split(facts: Mapping[str, Any], role: str, measures: tuple[str, ...]) -> dict[str, Any]:
    """What of the facts is said to one role: the shared ones but the spreads of what is not in his chart, and his own.

    Args:
        facts: name -> value, with Gymnasium's masks `_name` or without.
        measures: of his chart.
    """
    mine = {}
    for name, value in facts.items():
        mark, plain = ("_", name[1:]) if name.startswith("_") else ("", name)
        owner, _, own = plain.rpartition(_OWN)
        if owner:
            if owner == role:
                mine[mark + own] = value
        elif plain not in _BY_TEAM and _his(plain, measures):
            mine[name] = value
    return mine


def _his(name: str, measures: tuple[str, ...]) -> bool:
    prefix = next((start for start in _SPREADS if name.startswith(start)), None)
    return prefix is None or name.removeprefix(prefix) in measures
