"""The open sets as rivals and worlds meet them here: read once, divided once, in one vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from world_models.catalog import weights_folder
from world_models.ehr_world.people import PARTS, Cohort, cohorts_in, divided, read_cohort, shards, with_sources
from world_models.ehr_world.records import StayRecords, take
from world_models.ehr_world.set_outcome.stay_tensors import trim
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.train_people import people_words
from world_models.ehr_world.vocabulary import Vocabulary

__all__ = ["BASE", "People", "read_parts", "some"]

BASE = "ehr-ward-small"  # whose items everybody knows; bins, scales and grids are those of the stays to learn from
SHARD = 256


class People(NamedTuple):
    """The sets, divided."""

    words: Vocabulary  # scales, bins and grids of the stays to learn from
    parts: dict[str, dict[str, StayRecords]]  # set -> learn, valid or test -> its stays
    cohorts: dict[str, Cohort]


def some(records: StayRecords, most: int, seed: int = 0) -> StayRecords:
    """At most this many of the stays, drawn by the seed, on no more positions than the longest of them has."""
    count = len(records.subject)
    if count > most:
        rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values
        records = take(records, rows)
    return records._replace(stays=trim(records.stays)) if count else records


def read_parts(
    data: Path,
    work: Path | None,
    hours_per_step: float,
    most: int | None = None,
    parts: Sequence[str] = PARTS,
) -> People:
    """The sets below `data` that have stays in these parts; `most`: at most so many stays of each part.

    Raises:
        FileNotFoundError: none of the sets is there.
        ValueError (EhrDataError, UnitError): files that cannot be read, or no stay to learn from.
    """
    cohorts = [c for c in cohorts_in(data) if c.learn > 0 or "test" in parts]
    base = dataclasses.replace(
        EHRWorldModel.load(weights_folder(BASE)).vocabulary, hours_per_step=float(hours_per_step)
    )
    learnt = [c.name for c in cohorts if c.learn > 0]
    words = with_sources(base, learnt)
    found, taught = {}, []
    for cohort in cohorts:
        whole = divided(cohort, read_cohort(cohort, data, words, work))
        if len(whole["learn"].subject):
            taught += shards(whole["learn"].stays, SHARD)  # the vocabulary is of all of them, whatever `most` is
        found[cohort.name] = {n: some(whole[n], most or len(whole[n].subject)) for n in parts if len(whole[n].subject)}
    if not taught:
        raise ValueError(f"{data} holds no stay to learn from; give one of the sets that are learned from")
    return People(people_words(base, taught, learnt, hours_per_step), found, {c.name: c for c in cohorts})
