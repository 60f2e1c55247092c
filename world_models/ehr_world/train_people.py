"""Training on all open sets of recorded stays together: `python -m world_models.ehr_world.train --source people`.

Each set is divided once (`people`): patients to learn from, to choose by, and to judge by; the last two are in neither
the vocabulary nor the weights. The set a stay is from is part of its context, hidden from a share of the stays so that
the world can be asked about a hospital it does not know. Some results are hidden while learning, so that a world must
live without the last value (`judging.looked_ahead`) and without the item's neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ehr_world.episode_tensors import real_vocabulary
from world_models.ehr_world.feeder import schedule
from world_models.ehr_world.judging import looked_ahead
from world_models.ehr_world.people import Cohort, divided, read_cohort, shards, with_sources
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.losses import stay_losses
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, trim
from world_models.ehr_world.vocabulary import SOURCE_PREFIX, Vocabulary
from world_models.training import fit

__all__ = ["PeopleFeed", "PeopleRecipe", "people_words", "read_people", "tune_people"]

SHARD = 256  # stays of about one length
_EPOCHS_APART = 100_003


@dataclass(frozen=True)
class PeopleRecipe:
    """How a world is fitted to the open sets. The defaults were chosen on the patients kept to choose by."""

    steps: int = 6000
    rate: float = 2e-3
    positions: int = 1024  # of a batch, about
    weight_decay: float = 1e-2
    average: float = 0.998
    hide: float = 0.1  # share of a stay's item columns left out
    ahead: float = 0.3  # share of stays of which no result is shown after a random position
    early: float = 1.5  # above 1 that position comes early
    untold: float = 0.3  # share of stays whose source is not told


class Learned(NamedTuple):
    """Stays of one set to learn from, in shards, and whether their records tell how they ended."""

    shards: list[Stays]
    ends: bool


def read_people(
    cohorts: Sequence[Cohort], folder: Path, words: Vocabulary, work: Path
) -> dict[str, dict[str, StayRecords]]:
    """Name of a set -> part -> its stays."""
    return {c.name: divided(c, read_cohort(c, folder, words, work)) for c in cohorts}


def people_words(base: Vocabulary, stays: Sequence[Stays], sources: Sequence[str], hours_per_step: float) -> Vocabulary:
    """The ward's items with bins, scales and grids from these stays, in steps of this width."""
    known = dataclasses.replace(base, hours_per_step=hours_per_step)
    width = len(known.static)
    plain = [s._replace(static=s.static[:, :width]) for s in stays]
    return with_sources(real_vocabulary(known, plain), sources)


class PeopleFeed:
    """Batches of about `positions` positions, each of stays of one set and about one length, as a function of the step.

    A set is met as often as its positions weigh, times `weights` (default 1).
    """

    def __init__(
        self, sets: Mapping[str, Learned], positions: int, seed: int = 0, weights: Mapping[str, float] | None = None
    ) -> None:
        self.seed, self.sets = seed, sets
        self.batches: list[tuple[str, int, int]] = []  # set, shard, stays of a batch
        for name, learned in sets.items():
            for i, shard in enumerate(learned.shards):
                size = max(1, min(len(shard.static), positions // shard.value.shape[1]))
                times = max(1, round((weights or {}).get(name, 1.0) * len(shard.static) / size))
                self.batches += [(name, i, size)] * times
        self._order = lru_cache(maxsize=2)(self._epoch)

    def __call__(self, step: int) -> tuple[Stays, bool]:
        """The stays of a step, and whether their ends are told."""
        epoch, place = divmod(step, len(self.batches))
        name, number, size = self.batches[self._order(epoch)[place]]
        shard = self.sets[name].shards[number]
        pick = torch.randperm(len(shard.static), generator=torch.Generator().manual_seed(self.seed * 7919 + step))
        return trim(tree.take(shard, pick[:size])), self.sets[name].ends

    def _epoch(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * _EPOCHS_APART + epoch)
        return torch.randperm(len(self.batches), generator=generator).tolist()


def hidden(stays: Stays, recipe: PeopleRecipe, sources: Tensor, step: int, seed: int) -> Stays:
    """Whole item columns of some stays left out, and the source of some untold; `sources` bool [S] marks its
    features."""
    batch, _, items = stays.value.shape
    key = keys.from_seed(seed, batch)
    keep = keys.uniform(key, step, "hide", (items,)) >= recipe.hide
    untold = keys.uniform(key, step, "untold", ()) < recipe.untold
    static = torch.where(untold.unsqueeze(-1) & sources, float("nan"), stays.static)
    return stays._replace(asked=stays.asked & keep.unsqueeze(1), static=static)


def tune_people(
    net: SetOutcome, sets: Mapping[str, Learned], recipe: PeopleRecipe, folder: Path, stage: str, seed: int = 0
) -> None:
    """Fit to the sets; leaves the averaged weights in the net. Goes on where an earlier run in `folder` stopped."""
    feed = PeopleFeed(sets, recipe.positions, seed)
    sources = torch.tensor([s.name.startswith(SOURCE_PREFIX) for s in net.vocabulary.static])

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        stays, ends = feed(step)
        part = hidden(stays, recipe, sources, step, 7_000 + seed)
        shown = looked_ahead(part, recipe.ahead, recipe.early, step, 9_000 + seed)
        found = stay_losses(net, part, float(recipe.positions), shown)
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        return found.total(ends), metrics

    plan = schedule(recipe.steps, recipe.rate, recipe.weight_decay, save_every_s=60.0, average=recipe.average)
    fit(net, loss, plan, folder, stage)


def learned(parts: Mapping[str, Mapping[str, StayRecords]], cohorts: Sequence[Cohort]) -> dict[str, Learned]:
    """The stays to learn from, cut into shards."""
    ends = {c.name: c.ends for c in cohorts}
    return {
        name: Learned(shards(of["learn"].stays, SHARD), ends[name])
        for name, of in parts.items()
        if len(of["learn"].subject)
    }
