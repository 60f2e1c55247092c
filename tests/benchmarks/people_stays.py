"""Stays of one known process: an item that follows a first-order autoregression, measured in most steps."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.people.contest import Room
from benchmarks.people.parts import People
from benchmarks.people.prediction import Scale
from tests.ehr_world.ward_small import some_stays, words
from world_models.ehr_world.people import COHORTS, PARTS
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.vocabulary import from_z

ITEM = next(i for i, item in enumerate(words().items) if item.name == "heart_rate_bpm")
SPREAD = 0.6  # of the process' steps


def scale() -> Scale:
    return Scale(words())


def process(count: int, steps: int = 16, keep: float = 0.5, seed: int = 0, level: float = 0.0) -> Stays:
    """z' = level + keep (z - level) + SPREAD noise, in nine of ten steps."""
    generator = torch.Generator().manual_seed(seed)
    like = some_stays()
    z = torch.zeros(count, steps)
    z[:, 0] = torch.randn(count, generator=generator)
    for t in range(1, steps):
        noise = torch.randn(count, generator=generator)
        z[:, t] = level + keep * (z[:, t - 1] - level) + SPREAD * noise
    asked = torch.zeros(count, steps, like.value.shape[2], dtype=torch.bool)
    asked[..., ITEM] = torch.rand(count, steps, generator=generator) < 0.9
    value = torch.full(asked.shape, float("nan"))
    value[..., ITEM] = from_z(z, words().scale_table()[ITEM])
    there = torch.ones(count, steps, dtype=torch.bool)
    return Stays(
        like.static[:1].expand(count, -1),
        like.diagnosis[:1].expand(count, -1),
        asked,
        torch.where(asked, value, float("nan")),
        torch.zeros(asked.shape, dtype=torch.int8),
        torch.zeros(count, steps, like.given.shape[2]),
        there,
        torch.zeros_like(there),
        there,
    )


def records(stays: Stays) -> StayRecords:
    count = len(stays.static)
    return StayRecords(stays, torch.arange(count), torch.ones(count, dtype=torch.bool), torch.arange(count) % 7)


def room(folder: Path, count: int = 40) -> Room:
    """Two sets of the process."""
    parts = {
        c.name: {p: records(process(count, seed=10 * i + j)) for j, p in enumerate(PARTS)}
        for i, c in enumerate((COHORTS[0], COHORTS[2]))
    }
    people = People(words(), parts, {c.name: c for c in COHORTS})
    return Room(people, scale(), words().hours_per_step, folder, rows=500, steps=20)
