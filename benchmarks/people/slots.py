"""The values that are foretold: numbers charted before in their stay, told from what stood in the chart at an origin.

Next step: the origin is the position before the value's own. Trajectory: one origin for all of a stay's later values;
what was charted since is not told, the orders and doses since are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import tree
from world_models.ehr_world.records import UNTOLD, StayRecords, cut, numbers
from world_models.ehr_world.set_outcome.stay_tensors import Charted, Stays, charted, previous, trim
from world_models.ehr_world.vocabulary import Vocabulary

__all__ = ["Places", "grouped", "joined", "next_places", "owners", "path_places", "some_rows", "taken"]

CHUNK = 256  # stays


class Places(NamedTuple):
    """N values, sorted by stay, position and item."""

    row: Tensor  # int64 [N] of the stay
    place: Tensor  # int64 [N] position of the value
    origin: Tensor  # int64 [N] position at which it is foretold, before `place`
    item: Tensor  # int64 [N]
    y: Tensor  # [N] in the item's unit
    last: Tensor  # [N] charted before `place`; never NaN
    given: Tensor  # [N] charted at the origin; NaN: none was yet
    age: Tensor  # [N] steps from the specimen of `given` to `place`; to the admission where there is none
    first: Tensor  # [N] the stay's first value that was charted at the origin; NaN: none


def taken(places: Places, which: Tensor) -> Places:
    """The places at `which`, int64 [M] or bool [N]."""
    return Places(*(x[which] for x in places))


def grouped(stays: Stays, places: Places, chunk: int = CHUNK) -> Iterator[tuple[Stays, Places, Tensor]]:
    """Stays of about one length, cut to it, their places (rows counted among them) and which of `places` these are."""
    order = stays.valid.sum(1).argsort(stable=True)
    part_of, within = torch.empty_like(order), torch.empty_like(order)
    part_of[order] = torch.arange(len(order)) // chunk
    within[order] = torch.arange(len(order)) % chunk
    part = part_of[places.row]
    for i, rows in enumerate(order.split(chunk)):
        at = (part == i).nonzero().squeeze(1)
        if len(at):
            mine = taken(places, at)
            yield trim(tree.take(stays, rows)), mine._replace(row=within[mine.row]), at


def next_places(words: Vocabulary, stays: Stays) -> Places:
    """Every number charted before in its stay, foretold one step ahead."""
    return _all_places(words, stays, None)


def path_places(words: Vocabulary, stays: Stays, begin: int) -> Places:
    """Every number after position `begin` that had been charted before in its stay, foretold from there."""
    return _all_places(words, stays, begin)


def _all_places(words: Vocabulary, stays: Stays, begin: int | None) -> Places:
    found = []
    for rows in stays.valid.sum(1).argsort(stable=True).split(CHUNK):
        part = trim(tree.take(stays, rows))
        if begin is not None and part.value.shape[1] <= begin + 1:
            continue  # nobody is there any more
        chart = charted(part)
        there = numbers(words, part) & previous(chart.seen)
        there[:, : 1 if begin is None else begin + 1] = False
        row, place, item = there.nonzero(as_tuple=True)
        shown = chart if begin is None else charted(cut(part, begin))
        origin = place - 1 if begin is None else torch.full_like(place, begin)
        if len(row):
            places = _places(part, chart, shown, row, place, origin, item)
            found.append(places._replace(row=rows[row]))
    if not found:
        raise ValueError("no number was charted twice in a stay: nothing can be foretold; give longer stays")
    out = joined(found)
    longest = stays.value.shape[1]
    return taken(out, ((out.row * longest + out.place) * stays.value.shape[2] + out.item).argsort())


def joined(places: Sequence[Places]) -> Places:
    """The places of several, one after the other."""
    return Places(*(torch.cat(x) for x in zip(*places, strict=True)))


def _places(
    stays: Stays, chart: Charted, shown: Charted, row: Tensor, place: Tensor, origin: Tensor, item: Tensor
) -> Places:
    origin = origin.clamp_max(shown.seen.shape[1] - 1)
    at = (row, origin, item)
    seen = shown.seen[at]
    age = torch.where(seen, shown.age[at] + (place - origin), place.to(torch.float32))
    first = torch.gather(shown.value, 1, shown.seen.to(torch.int8).argmax(1, keepdim=True)).squeeze(1)
    return Places(
        row,
        place,
        origin,
        item,
        stays.value[row, place, item],
        chart.value[row, place - 1, item],
        torch.where(seen, shown.value[at], float("nan")),
        age,
        torch.where(seen, first[row, item], float("nan")),
    )


def some_rows(places: Places, most: int, seed: int) -> Tensor:
    """int64 [R] of the stays that have places, `most` at most, drawn by the seed."""
    rows = places.row.unique()
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]].sort().values


def owners(records: StayRecords, by_hospital: bool) -> Tensor:
    """int64 [B] who is resampled as one: the patient, or the hospital where stays were divided by it."""
    if not by_hospital:
        return records.subject
    return torch.where(records.hospital == UNTOLD, -1 - records.subject, records.hospital)
