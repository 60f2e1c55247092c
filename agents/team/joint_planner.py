"""A joint planner for the care team: it sees all charts and edits what the members would say, one after the other.

Multiagent rollout (Bertsekas 2021, doi 10.1109/JAS.2021.1003814). A base team, the split rule, says its words. Then
role by role a few edits of the role's word (an order less, an order more, a hold, no tests in this step) are tried in
the learned world, the roles before it as they were edited, those after it as the base has them, and the base team going
on from there: as many futures as there are edits in all, not in every combination. What two of them order one alone
cannot leave out, so an order is left out by all who gave it.

All edits of a decision meet the same particles. An edit is taken where its gain over none exceeds `caution` times its
standard error: the best of several looks good by chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.team.members import CareTeam
from clinenv.envs.care_team.rights import ROLES, columns, standing
from clinenv.envs.care_team.settle import Word, settle
from clinenv.envs.ehr_ward.orders import SWITCHES
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.protocol import Chart, History, SupportsInfer
from world_models.quantities.ward import INQUIRIES, ORDERS

__all__ = ["JointPlanner", "JointPlanning", "edits"]

_TESTS = len(INQUIRIES)
_OF_GIVEN = 8.0  # how much likelier an edit of what would be given is tried than one of what would not


@dataclass(frozen=True)
class JointPlanning:
    """How hard it thinks: (edits + 2) * roles * particles * horizon steps a patient and decision.

    Raises:
        ValueError: a count below its least, or a negative caution.
    """

    horizon: int = 12  # steps imagined: two days, within which who can go home does
    particles: int = 8
    edits: int = 4  # tried of each role, besides none and no tests
    caution: float = 1.5  # standard errors that a gain must exceed
    discount: float = 0.99

    def __post_init__(self) -> None:
        if min(self.horizon, self.edits) < 1 or self.particles < 2 or self.caution < 0:
            raise ValueError(f"need horizon and edits >= 1, particles >= 2 and caution >= 0, got {self}")


def edits(
    role: str, words: Mapping[str, Word], allowed: Tensor, key: Tensor, count: int, amounts: Tensor
) -> dict[str, Word]:
    """Variants [B, count + 2] of what all say: as it is, without the role's tests, and `count` with one entry of the
    role's the other way.

    Which entries is a matter of chance: those that would be given (and can so be left out or held back) are likelier.

    Args:
        words: role -> what all say, [B, A].
        allowed: bool [B, A] what the ward would carry out.
        key: int64 [B] of the choice.
        amounts: float32 [A] at which something is ordered that was not.
    """
    word, device = words[role], allowed.device
    mine, holds = columns(role, "order_it", device).clone(), columns(role, "hold", device)
    mine[:_TESTS] = False
    others = torch.stack([words[other].orders > 0 for other in ROLES if other != role]).any(0)
    given = word.orders > 0
    # entries [B, 2 A]: orders the other way, then holds of what a colleague orders
    weight = torch.cat(
        [mine * torch.where(given, _OF_GIVEN, allowed.to(torch.float32)), holds * others * _OF_GIVEN], -1
    )
    gumbel = -(-keys.uniform(key, 0, "agent/team/edits", (weight.shape[1],)).log()).log()
    entry = (weight.log() + gumbel).topk(count).indices  # [B, count]
    real = weight.gather(1, entry) > 0
    rows = torch.arange(len(entry), device=device)[:, None].expand_as(entry)
    place = torch.arange(count, device=device).expand_as(entry) + 2

    every = {who: Word(*(x.unsqueeze(1).repeat(1, count + 2, 1) for x in said)) for who, said in words.items()}
    every[role].orders[:, 1, :_TESTS] = 0.0
    order, column = real & (entry < weight.shape[1] // 2), entry % (weight.shape[1] // 2)
    less = order & given.gather(1, column)
    more, hold = order & ~less, real & ~order
    for said in every.values():
        said.orders[rows[less], place[less], column[less]] = 0.0
    every[role].orders[rows[more], place[more], column[more]] = amounts[column][more]
    every[role].holds[rows[hold], place[hold], column[hold]] = True
    return every


class JointPlanner:
    """An `agents.protocol.Agent`: the base team, edited by what a learned world foretells.

    Args:
        simulator: the world it believes in, with the task it is judged by.
        base: the team whose words are edited, and who goes on in the imagined futures. Its members must remember
            nothing, for they are asked about patients that do not exist.
        config: how hard it thinks.
        seed: of its own random stream: beliefs, particles and choice of edits.
        max_rows: futures imagined at once.

    Attributes:
        edited: how often each role's word was edited since `reset`, of how many decisions.

    Raises:
        ValueError: a world that forms no belief from a recorded course.
    """

    def __init__(
        self,
        simulator: Simulator,
        base: CareTeam,
        config: JointPlanning | None = None,
        seed: int = 0,
        max_rows: int = 16_384,
        name: str = "joint planner",
    ) -> None:
        if not isinstance(simulator.world, SupportsInfer):
            raise ValueError(
                f"world {simulator.world.name!r} cannot infer a belief from a course; plan in a learned ward"
            )
        self.simulator, self.base, self.name = simulator, base, name
        self.config, self.seed, self.max_rows = config or JointPlanning(), seed, max_rows
        self.edited = {role: 0 for role in ROLES} | {"decisions": 0}
        self._read = [q.name for q in simulator.world.measures if not q.on_request]
        self._amounts = torch.tensor([float(SWITCHES.standard[q.name]) for q in ORDERS], device=simulator.device)
        self._course: list[tuple[Chart, Tensor]] = []  # charts, and the orders given on them
        self._key: Tensor | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget every patient.

        Raises:
            ValueError: a mask: patients of one batch come together here.
        """
        if mask is not None:
            raise ValueError("the joint planner's patients come together; reset() without a mask, for a new batch")
        self._course, self._key = [], None
        self.edited = {role: 0 for role in ROLES} | {"decisions": 0}

    def narrow(self, rows: Tensor) -> None:
        """Go on with these rows [K]."""
        self._course = [tree.take(moment, rows) for moment in self._course]
        self._key = None if self._key is None else self._key[rows]

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: the orders of the edited team."""
        chart = {name: chart[name].to(self.simulator.device) for name in self._read}
        count = len(chart["hours"])
        if self._key is None:
            self._key = keys.fold(keys.from_seed(self.seed, count, self.simulator.device), "agent/team/planner")
        groups = max(1, self.max_rows // ((self.config.edits + 2) * self.config.particles))
        orders = []
        for rows in torch.arange(count, device=self.simulator.device).split(groups):
            orders.append(self._decide(tree.take(chart, rows), [tree.take(m, rows) for m in self._course], rows))
        given = torch.cat(orders)
        self._course.append((chart, given))
        return given

    def _decide(self, chart: Chart, course: list[tuple[Chart, Tensor]], rows: Tensor) -> Tensor:
        assert self._key is not None
        key = keys.fold(self._key[rows], len(course))
        state = self._belief(chart, course, keys.fold(key, "belief"))
        shown = self.simulator.world.observe(state)  # what is believed: its changes are the world's own
        allowed, nurse = self.simulator.task.admissible(chart), standing(chart)
        words = self.base.words(chart)
        for i, role in enumerate(ROLES):
            tried = edits(role, words, allowed, keys.fold(key, i), self.config.edits, self._amounts)
            number = tried[role].orders.shape[1]
            said = {who: Word(*(x.flatten(0, 1) for x in word)) for who, word in tried.items()}
            joint = settle(said, nurse.repeat_interleave(number, 0)).orders.view(len(rows), number, -1)
            gain = self._returns(state, shown, joint, keys.fold(key, f"particles {i}"))
            gain = gain - gain[:, :1]
            error = gain.std(-1) / self.config.particles**0.5
            best = (gain.mean(-1) - self.config.caution * error).argmax(-1)
            here = torch.arange(len(rows), device=best.device)
            words = {who: Word(*(x[here, best] for x in word)) for who, word in tried.items()}
            self.edited[role] += int((best > 0).sum())
        self.edited["decisions"] += len(rows)
        return settle(words, nurse).orders

    def _belief(self, chart: Chart, course: list[tuple[Chart, Tensor]], key: Tensor) -> Any:
        """State [B] of the planner's world from the charts and orders until now."""
        charts = [*(past for past, _ in course), chart]
        orders = [*(given for _, given in course), torch.zeros(len(key), len(ORDERS), device=key.device)]
        hours = torch.stack([moment["hours"] for moment in charts], 1)
        history = History(
            charts={name: torch.stack([moment[name] for moment in charts], 1) for name in chart},
            actions=torch.stack(orders, 1),
            hours=hours - hours[:, :1],
        )
        world = self.simulator.world
        assert isinstance(world, SupportsInfer)
        return world.infer(history, key)

    def _returns(self, state: Any, chart: Chart, orders: Tensor, key: Tensor) -> Tensor:
        """Discounted returns [B, K, P] of K first sets of orders [B, K, A], the base team going on after them."""
        patients, number = orders.shape[:2]
        particles = self.config.particles
        each = torch.arange(patients * particles, device=key.device)
        futures = self.simulator.world.rekey(
            tree.repeat(state, particles), keys.fold(key[each // particles], each % particles)
        )
        every = torch.arange(patients * number * particles, device=key.device)
        patient, particle = every // (number * particles), every % particles
        now, seen = tree.take(futures, patient * particles + particle), tree.take(chart, patient)
        first = orders.flatten(0, 1).repeat_interleave(particles, 0)
        alive = ~self.simulator.task.terminated(seen)
        total, weight = torch.zeros(len(every), device=key.device), 1.0
        for step in range(self.config.horizon):
            out = self.simulator.step(now, seen, first if step == 0 else self.base.act(seen))
            total = total + torch.where(alive, out.reward, 0.0) * weight
            alive = alive & ~out.terminated
            now, seen, weight = out.state, out.chart, weight * self.config.discount
        return total.view(patients, number, particles)
