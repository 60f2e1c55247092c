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
    _kept: dict[str, list[Pair]] = field(default_factory=dict)

    def pairs(self, part: str, begin: int | None) -> list[Pair]:
        """Stays of the sets to learn from in a part, with their places: next step (None), or foretold from `begin`."""
        key = f"{part} {begin}"
        if key not in self._kept:
            words = self.people.words
            self._kept[key] = [
                (s, next_places(words, s) if begin is None else path_places(words, s, begin))
                for s in (r.stays for r in self.records(part))
            ]
        return self._kept[key]

    def records(self, part: str) -> list[StayRecords]:
        """The stays of a part of every set that is learned from."""
        sets = self.people.parts.items()
        return [of[part] for name, of in sets if self.people.cohorts[name].learn and part in of]


def _named(kind: str, begin: int | None) -> str:
    return f"{kind}-{'next' if begin is None else f'from-{begin}'}"


def _rule(kind: str) -> Callable[[Room, int | None], Says]:
    def fit(room: Room, begin: int | None) -> Says:
        with spending(room.work / _named(kind, begin)):
            places = joined([p for _, p in room.pairs("learn", begin)])
            rule = Rule.learned(kind, places, room.scale, room.hours)
        return lambda source, records, asked: columns(rule.says(asked, room.scale), asked.y, asked.item, room.scale)

    return fit


def _holt(room: Room, begin: int | None) -> Says:
    with spending(room.work / _named("holt", begin)):
        pairs = room.pairs("learn", begin)
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


def _boosting(room: Room, begin: int | None) -> Says:
    """One set of models for the next step, and one for trajectories from every begin."""
    ways: list[int | None] = [None] if begin is None else [*begins(room.hours).values()]
    learn, valid = (
        taught([pair for way in ways for pair in room.pairs(part, way)], room.scale, room.hours)
        for part in ("learn", "valid")
    )
    folder = room.work / f"boosting-{'next' if begin is None else 'trajectory'}-{room.rows}"
    model = train(learn, valid, room.scale, medians(learn.places, room.scale), folder, room.rows)

    def says(source: str, records: StayRecords, asked: Places) -> dict[str, Tensor]:
        told = model.says(taught([(records.stays, asked)], room.scale, room.hours))
        return columns(told, asked.y, asked.item, room.scale)

    return says


def _grud(room: Room, begin: int | None) -> Says:
    """One network for all settings: some results are hidden while it learns."""
    parts = room.records("learn"), room.records("valid")
    net: Recurrent = train_grud(*parts, room.people.words, room.work / "grud", room.steps)
    return lambda source, records, asked: net.columns(records.stays, asked, room.scale)


RIVALS: dict[str, Callable[[Room, int | None], Says]] = {
    "last_value": _rule("last_value"),
    "first_value": _rule("first_value"),
    "item_median": _rule("item_median"),
    "holt": _holt,
    "boosting": _boosting,
    "grud": _grud,
}
