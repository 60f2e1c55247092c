"""Language models of stays as rivals on people: text and quantile tokens, at a budget of processor time.

They are those of `benchmarks.ward.rivals_lm`, trained on the sets to learn from. They take long to answer, so they are
judged on a few whole steps of a few stays of each set, and every other rival is judged on those values again beside
them. Of text the distribution is that of its samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common.spent import spent
from benchmarks.people.parts import some
from benchmarks.people.prediction import Scale, columns, from_quantiles, scored
from benchmarks.people.slots import Places, next_places, taken
from benchmarks.ward import slots as ward_slots
from benchmarks.ward.records import Slots
from benchmarks.ward.rivals_lm import next_step, train_lm
from benchmarks.ward.scores import LEVELS
from benchmarks.ward.slots import Known, some_slots
from world_models.ehr_world.feeder import join
from world_models.ehr_world.people import shards
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.vocabulary import STATIC_NAMES, Vocabulary

__all__ = ["FORMS", "SAMPLES", "Few", "Language", "Trained", "few", "slots_of_few", "trained"]

FORMS = ("text", "quantile")
MOST_SECONDS = 1e7
SAMPLES = 16  # joint ones of a step
A_STAY = 8  # numbers of a stay, in whole steps


class Few(NamedTuple):
    """The values that language models are judged on, of one set."""

    records: StayRecords
    places: Places
    slots: ward_slots.Slots  # of the same stays as the language models take them; others besides
    at: Tensor  # int64 [N] of each place, its slot


class Trained(NamedTuple):
    """How a language model is trained."""

    form: str  # of FORMS
    seconds: float  # of processor time
    rate: float  # of learning


def trained(text: str) -> Trained:
    """a language model beside them: text or quantile, its seconds of processor time, its learning rate"""
    form, seconds, rate = (*text.split(":"), "", "")[:3]
    try:
        told = Trained(form, float(seconds), float(rate))
    except ValueError:
        told = Trained(form, 0.0, 0.0)
    if text.count(":") != 2 or form not in FORMS or not 1 <= told.seconds <= MOST_SECONDS or not 0 < told.rate < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no FORM:SECONDS:RATE; FORM {' or '.join(FORMS)}, SECONDS 1 to {MOST_SECONDS:g}, RATE above "
            "0 and below 1: quantile:300:2.5e-4"
        )
    return told


def plain(stays: Stays) -> Stays:
    """The stays with the patient's facts alone: the narratives do not tell the source."""
    return stays._replace(static=stays.static[:, : len(STATIC_NAMES)])


def few(words: Vocabulary, records: StayRecords, stays: int, seed: int) -> Few:
    """Whole steps of at most this many stays, drawn by the seed."""
    part = some(records, stays, seed)
    places = next_places(words, part.stays)
    slots = some_slots(plain(part.stays), words.is_label(), A_STAY, seed)
    count, items = part.stays.value.shape[1:]
    wanted = (slots.row * count + slots.place) * items + slots.item
    mine = (places.row * count + places.place) * items + places.item
    at = torch.searchsorted(wanted, mine).clamp_max(len(wanted) - 1)
    there = wanted[at] == mine
    return Few(part, taken(places, there), slots, at[there])


class Language:
    """A trained language model that answers as rivals do."""

    def __init__(
        self, form: str, learn: list[Stays], words: Vocabulary, folder: Path, budget_s: float, rate: float
    ) -> None:
        whole = join([plain(s) for stays in learn for s in shards(stays, 256)])
        self.known, self.folder = Known(words, whole), folder
        self.model = train_lm(whole, folder, budget_s, form, rate=rate)

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that training took."""
        return spent(self.folder)

    def says(self, it: Few, scale: Scale, samples: int = SAMPLES) -> dict[str, Tensor]:
        """As `prediction.columns`, of the places."""
        told = next_step(self.model, plain(it.records.stays), it.slots, self.known, samples)
        q = told.quantiles
        if q is None:
            assert told.paths is not None
            z = told.paths.T.double()  # a sample without an answer says the last value again
            last = scale.z(it.slots.last, it.slots.item).nan_to_num(0.0).unsqueeze(1)
            q = torch.quantile(torch.where(z.isnan(), last, z), LEVELS.double(), dim=1).T
        item = it.places.item
        return columns(from_quantiles(q[it.at], LEVELS, scale, item), it.places.y, item, scale)


def slots_of_few(it: Few, owners: Tensor, told: dict[str, dict[str, Tensor]], scale: Scale) -> Slots:
    """The columns of all rivals in `told`, by name."""
    p = it.places
    out: Slots = {"y": p.y, "item": p.item, "last": p.last, "place": p.place, "stay": p.row, "subject": owners[p.row]}
    for name, x in told.items():
        out |= scored(name, x, p, scale)
    return out
