"""Rivals by name: how each is fitted to the stays to learn from, chosen by those to choose by, and asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.spent import spending
from benchmarks.people.boosting import Taught, train
from benchmarks.people.design import Design, design
from benchmarks.people.grud import Recurrent, train_grud
from benchmarks.people.holt import Holt, chosen
from benchmarks.people.parts import People
from benchmarks.people.prediction import Scale, columns
from benchmarks.people.rules import Rule, medians
from benchmarks.people.slots import Places, joined, next_places, path_places
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.stay_tensors import Stays

__all__ = ["NEXT", "RIVALS", "Room", "Says", "begins"]

NEXT = "next_step"
FROM_H = (4.0, 24.0)  # hours after which a trajectory is foretold
Pair = tuple[Stays, Places]
# what a rival says: name of the set, its stays and places of them -> the columns of `prediction.columns`
Says = Callable[[str, StayRecords, Places], dict[str, Tensor]]


def begins(hours_per_step: float) -> dict[str, int]:
    """Name of each trajectory's setting -> the position it is foretold from."""
    return {f"trajectory_from_{h:g}h": max(1, round(h / hours_per_step)) for h in FROM_H}


@dataclass(frozen=True)
class Room:
    """What every rival is given."""

    people: People
    scale: Scale
    hours: float  # of a step
    work: Path
    rows: int = 60_000  # of an item that boosting learns from
    steps: int = 6000  # of the network
    lm_seconds: float = 600.0
    _kept: dict[str, list[Pair]] = field(default_factory=dict)

    def pairs(self, part: str, trajectory: bool) -> list[Pair]:
        """Stays of the sets to learn from in a part, with their places; of trajectories, from every begin."""
        key = f"{part}{trajectory}"
        if key not in self._kept:
            found, words = [], self.people.words
            for name, of in self.people.parts.items():
                if not self.people.cohorts[name].learn or part not in of:
                    continue
                stays = of[part].stays
                ways = begins(self.hours).values() if trajectory else (None,)
                for begin in ways:
                    found.append(
                        (stays, next_places(words, stays) if begin is None else path_places(words, stays, begin))
                    )
            self._kept[key] = found
        return self._kept[key]


def _rule(kind: str) -> Callable[[Room, bool], Says]:
    def fit(room: Room, trajectory: bool) -> Says:
        with spending(room.work / f"{kind}-{'trajectory' if trajectory else 'next'}"):
            places = joined([p for _, p in room.pairs("learn", trajectory)])
            rule = Rule.learned(kind, places, room.scale, room.hours)
        return lambda source, records, asked: columns(rule.says(asked, room.scale), asked.y, asked.item, room.scale)

    return fit


def _holt(room: Room, trajectory: bool) -> Says:
    with spending(room.work / f"holt-{'trajectory' if trajectory else 'next'}"):
        pairs = room.pairs("learn", trajectory)
        holt = Holt.learned(pairs, chosen(pairs, room.scale, room.hours), room.scale, room.hours)
    return lambda source, records, asked: columns(
        holt.says(records.stays, asked, room.scale), asked.y, asked.item, room.scale
    )


def taught(pairs: list[Pair], scale: Scale, hours_per_step: float) -> Taught:
    """The places of all pairs with their features."""
    parts, before = [], 0
    for stays, places in pairs:
        found = design(stays, places, scale, hours_per_step)
        parts.append(found._replace(at=found.at + before))
        before += len(found.common)
    return Taught(joined([p for _, p in pairs]), Design(*(torch.cat(x) for x in zip(*parts, strict=True))))


def _boosting(room: Room, trajectory: bool) -> Says:
    learn, valid = (taught(room.pairs(part, trajectory), room.scale, room.hours) for part in ("learn", "valid"))
    folder = room.work / f"boosting-{'trajectory' if trajectory else 'next'}-{room.rows}"
    model = train(learn, valid, room.scale, medians(learn.places, room.scale), folder, room.rows)

    def says(source: str, records: StayRecords, asked: Places) -> dict[str, Tensor]:
        told = model.says(taught([(records.stays, asked)], room.scale, room.hours))
        return columns(told, asked.y, asked.item, room.scale)

    return says


def _grud(room: Room, trajectory: bool) -> Says:
    """One network for both: some results are hidden while it learns."""
    parts = {
        part: [of[part] for name, of in room.people.parts.items() if room.people.cohorts[name].learn and part in of]
        for part in ("learn", "valid")
    }
    net: Recurrent = train_grud(parts["learn"], parts["valid"], room.people.words, room.work / "grud", room.steps)

    def says(source: str, records: StayRecords, asked: Places) -> dict[str, Tensor]:
        return net.columns(records.stays, asked, room.scale)

    return says


RIVALS: dict[str, Callable[[Room, bool], Says]] = {
    "last_value": _rule("last_value"),
    "first_value": _rule("first_value"),
    "item_median": _rule("item_median"),
    "holt": _holt,
    "boosting": _boosting,
    "grud": _grud,
}
