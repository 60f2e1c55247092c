"""Several learned worlds as one: which of them is right is one more thing that is not known of a patient.

Each patient lives in one member, drawn by his key, and by `rekey` anew; so the particles of a planner differ in the
member as well as in the patient and in chance. All members carry a state of every patient: one draws what comes, and
the others follow what was shown (`Follows`), as they would follow a chart. Hence each is at any time a fair guess of
the same patient, and what they foretell of him can be compared: where they disagree, the data that they learned from
leave the answer open (Lakshminarayanan 2017, arXiv 1612.01474; Chua 2018, arXiv 1805.12114).

    spread^2 = mean of the members' own spread^2 + variance of what they foretell

A step costs one member's draw and every member's deterministic part. `of` makes a world of members;
`catalog.load("ensemble:PATH1,PATH2")` loads one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from world_models import gradients, keys, tree
from world_models.inputs import check_also, checked_orders
from world_models.protocol import (
    Chart,
    Factors,
    Fates,
    HasWeights,
    History,
    LearnedWorld,
    Parts,
    S,
    SplitsSpread,
    TellsFates,
)
from world_models.quantity import Quantity

__all__ = ["Ensemble", "EnsembleConfig", "EnsembleState", "Follows", "of"]

T = TypeVar("T")  # a tree


@runtime_checkable
class Follows(LearnedWorld[S], Protocol[S]):
    """A learned world that can go on with a patient as another one of its kind has shown him."""

    def join(self, state: S, shown: S) -> S:
        """The patients at admission as `shown`, another member's own `initial`, shows them; `state` is this world's own
        of the same keys and factors. Pure."""

    def follow(self, state: S, action: Tensor, shown: S) -> S:
        """The state one step later of patients who were given `action` [B, A] and of whom then was charted what
        `shown` shows: the state of another member after its own step. What no chart shows stays this world's. Pure.

        Raises:
            ValueError: an amount out of its order's bounds.
        """

    def foretold(self, state: S) -> Chart:
        """What this world has the chart say now but for the chance of the moment: measure of `spread` -> [B]."""


@dataclass(frozen=True)
class EnsembleConfig:
    """Which members; for snapshots."""

    name: str
    members: tuple[str, ...]  # the members' names


class EnsembleState(NamedTuple):
    """B patients in all members. Who changes the key changes the luck of all of them."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    member: Tensor  # int64 [B] which of them each patient lives in
    states: tuple[Any, ...]  # each member's own state of all B


def of(members: Sequence[Follows[Any]], name: str = "ensemble") -> Ensemble:
    """The world of these members.

    Raises:
        ValueError: fewer than two, one that cannot follow another, or members that differ in kind, measures, orders,
            factors, step or device.
    """
    tells = all(isinstance(member, TellsFates) for member in members)
    return (EnsembleWithFates if tells else Ensemble)(members, name)


class Ensemble:
    """See the module; `of` makes one. Implements `world_models.protocol.LearnedWorld`."""

    def __init__(self, members: Sequence[Follows[Any]], name: str = "ensemble") -> None:
        _check(members)
        first = members[0]
        self.members: tuple[Follows[Any], ...] = tuple(members)
        self.name = name
        self.measures: tuple[Quantity, ...] = tuple(first.measures)
        self.orders: tuple[Quantity, ...] = tuple(first.orders)
        self.factors: tuple[Quantity, ...] = tuple(first.factors)
        self.hours_per_step = float(first.hours_per_step)
        self.device = torch.device(first.device)
        self.config = EnsembleConfig(name, tuple(member.name for member in members))
        graded = [member.graded_orders for member in members if isinstance(member, gradients.Differentiable)]
        self.graded_orders = tuple(graded[0]) if len(graded) == len(members) else ()

    @property
    def weights_sha256(self) -> str | None:
        """One seal over those of the members, in their order; None where one has none."""
        seals = [member.weights_sha256 if isinstance(member, HasWeights) else None for member in self.members]
        if any(seal is None for seal in seals):
            return None
        return hashlib.sha256("\n".join(map(str, seals)).encode()).hexdigest()

    # ---- the verbs

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> EnsembleState:
        """Patients [B] at admission, in every member. Raises ValueError: as the members."""
        state = self._of(key, tuple(member.initial(key, factors) for member in self.members))
        shown = self._each(state.member, lambda m, rows: _rows(state.states[m], rows))
        joined = (member.join(own, shown) for member, own in zip(self.members, state.states, strict=True))
        return state._replace(states=tuple(joined))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart, as the first member reads them."""
        return self.members[0].read(chart)

    @gradients.verb
    def transition(self, state: EnsembleState, action: Tensor) -> EnsembleState:
        """One step: each patient's member draws it, the others follow. Raises ValueError: an amount out of bounds."""
        action = checked_orders(self.orders, action, state.key.shape[0], self.device)
        inner = self._inner(state)
        shown = self._each(
            state.member, lambda m, rows: self.members[m].transition(_rows(inner[m], rows), action[rows])
        )
        after = (member.follow(own, action, shown) for member, own in zip(self.members, inner, strict=True))
        return EnsembleState(shown.key, shown.t, state.member, tuple(after))

    @gradients.verb
    def observe(self, state: EnsembleState, also: Sequence[str] = ()) -> Chart:
        """The chart of each patient's member. Raises ValueError: `also` names something that is no measure."""
        check_also(self.measures, also)
        inner = self._inner(state)
        return self._each(state.member, lambda m, rows: self.members[m].observe(_rows(inner[m], rows), also))

    @gradients.verb
    def rekey(self, state: EnsembleState, key: Tensor) -> EnsembleState:
        """Other random keys [B]: which member a patient lives in, and what none of them knows, is drawn anew."""
        inner = self._inner(state)
        return self._of(key, tuple(m.rekey(own, key) for m, own in zip(self.members, inner, strict=True)))

    @gradients.verb
    def spread(self, state: EnsembleState) -> dict[str, Tensor]:
        """Standard deviation [B] of each prediction, disagreement included."""
        return {name: parts.spread for name, parts in self.spread_parts(state).items()}

    @gradients.verb
    def spread_parts(self, state: EnsembleState) -> dict[str, Parts]:
        """See `SplitsSpread`: to the members' own epistemic part comes what they disagree by. Of a member that does not
        tell the parts apart, all of its spread counts as chance."""
        inner = self._inner(state)
        each = [_parts(member, own) for member, own in zip(self.members, inner, strict=True)]
        told = [member.foretold(own) for member, own in zip(self.members, inner, strict=True)]
        found = {}
        for name in each[0]:
            between = torch.stack([chart[name] for chart in told]).var(0)
            epistemic = torch.stack([parts[name].epistemic for parts in each]).square().mean(0) + between
            aleatoric = torch.stack([parts[name].aleatoric for parts in each]).square().mean(0)
            found[name] = Parts(*map(gradients.root, (epistemic + aleatoric, epistemic, aleatoric)))
        return found

    @gradients.verb
    def disagreement(self, state: EnsembleState) -> dict[str, Tensor]:
        """Standard deviation [B] between the members of what each foretells: the part of `spread` that is theirs."""
        told = [member.foretold(own) for member, own in zip(self.members, self._inner(state), strict=True)]
        return {name: gradients.root(torch.stack([chart[name] for chart in told]).var(0)) for name in told[0]}

    @gradients.verb
    def support(self, state: EnsembleState) -> Tensor:
        """bool [B]: within what every member was trained on."""
        inner = self._inner(state)
        found = [member.support(own) for member, own in zip(self.members, inner, strict=True)]
        return torch.stack(found).all(0)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> EnsembleState:
        """Every member's own belief after a recorded course. Raises ValueError: as the members."""
        return self._of(key, tuple(member.infer(history, key, factors) for member in self.members))

    def member_of(self, state: EnsembleState) -> Tensor:
        """int64 [B]: see `HasMembers`."""
        return state.member

    # ---- parts

    def _of(self, key: Tensor, states: tuple[Any, ...]) -> EnsembleState:
        """The patients of these states, each in a member that his key draws."""
        count = len(self.members)
        drawn = (keys.uniform(states[0].key, 0, "ensemble/member") * count).to(torch.int64).clamp_max(count - 1)
        return EnsembleState(states[0].key, states[0].t, drawn, states)

    def _inner(self, state: EnsembleState) -> tuple[Any, ...]:
        """Each member's state, under the key of the whole: who was given another key has another luck everywhere."""
        return tuple(own._replace(key=state.key) for own in state.states)

    def _each(self, member: Tensor, verb: Callable[[int, Tensor | slice], T]) -> T:
        """A tree [B] put together from verb(m, rows) of the rows of each member."""
        present = member.unique().tolist()
        if len(present) == 1:
            return verb(present[0], slice(None))
        rows = [(member == m).nonzero().squeeze(1) for m in present]
        found = tree.cat([verb(m, some) for m, some in zip(present, rows, strict=True)])
        return tree.take(found, torch.cat(rows).argsort())


class EnsembleWithFates(Ensemble):
    """An ensemble of worlds that tell the chances of rare events."""

    @gradients.verb
    def fates(self, before: EnsembleState, after: EnsembleState) -> Fates:
        """See `TellsFates`: those of each patient's member."""
        first, second = self._inner(before), self._inner(after)
        told = [m.fates(a, b) for m, a, b in zip(self.members, first, second, strict=True) if isinstance(m, TellsFates)]
        chances = {
            name: torch.stack([fates.chances[name] for fates in told]).gather(0, after.member.unsqueeze(0)).squeeze(0)
            for name in told[0].chances
        }
        return Fates(after._replace(states=tuple(fates.spared for fates in told)), chances, told[0].values)


def _rows(state: Any, rows: Tensor | slice) -> Any:
    return state if isinstance(rows, slice) else tree.take(state, rows)


def _parts(member: Follows[Any], state: Any) -> dict[str, Parts]:
    if isinstance(member, SplitsSpread):
        return member.spread_parts(state)
    return {name: Parts(sd, torch.zeros_like(sd), sd) for name, sd in member.spread(state).items()}


def _check(members: Sequence[Follows[Any]]) -> None:
    """Raises ValueError: see `of`."""
    if len(members) < 2:
        raise ValueError(f"an ensemble has at least two members, got {len(members)}; name several folders")
    first = members[0]
    for member in members:
        if not isinstance(member, Follows):
            raise ValueError(
                f"world {member.name!r} cannot follow what another world shows, so it is no member of an ensemble; "
                "members are worlds of the kinds ecg-wm and ehr-set-outcome"
            )
        for what in ("measures", "orders", "factors", "hours_per_step", "device"):
            if getattr(member, what) != getattr(first, what):
                raise ValueError(
                    f"members {first.name!r} and {member.name!r} differ in their {what}; an ensemble's members are "
                    "worlds of one kind, size and step on one device"
                )
        if type(member) is not type(first):
            raise ValueError(f"members {first.name!r} and {member.name!r} are worlds of different kinds")
