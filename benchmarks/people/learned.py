"""Learned worlds on the rivals' places, their distributions moved onto the common scale.

A world has scales of its own: quantiles are moved by way of the unit, a likelihood by the ratio of the scales' slopes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.people.prediction import Scale
from benchmarks.people.slots import Places
from benchmarks.ward.records import next_slots, path_slots
from benchmarks.ward.records_judged import guesses_for
from world_models import catalog
from world_models.ehr_world.people import told_source
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.train_records import folder_of
from world_models.ehr_world.vocabulary import from_z, log_slope

__all__ = ["load_world", "world_columns"]


def load_world(name: str, hours_per_step: float) -> EHRWorldModel:
    """A learned ward by name or folder.

    Raises:
        ValueError, OSError: no such world, no learned ward, or steps of another width.
    """
    model = catalog.load(name)
    if not isinstance(model, EHRWorldModel):
        raise ValueError(
            f"world {name!r} is no learned ward (set_outcome); give ehr-mimic-demo-small or a folder of one"
        )
    if model.hours_per_step != hours_per_step:
        raise ValueError(
            f"world {name!r} makes steps of {model.hours_per_step:g} h, and --hours is {hours_per_step:g}: give a "
            "world of that width, or other --hours"
        )
    return model


def world_columns(
    model: EHRWorldModel,
    name: str,
    source: str,
    records: StayRecords,
    places: Places,
    scale: Scale,
    begin: int | None,
    paths: int,
) -> dict[str, Tensor]:
    """What `prediction.columns` gives of a rival: next step (`begin` None), or by the world's own outcomes."""
    guesses, _ = guesses_for(model, folder_of(name))
    mine = told_source(records, model.vocabulary, source)
    if begin is None:
        slots = next_slots(model, mine, guesses)
    else:
        slots = path_slots(model, mine, guesses, begin, paths)
    count, items = records.stays.value.shape[1:]
    known = (slots["stay"] * count + slots["place"]) * items + slots["item"]
    order = known.argsort()
    wanted = (places.row * count + places.place) * items + places.item
    at = torch.searchsorted(known[order], wanted).clamp_max(len(known) - 1)
    if not bool((known[order][at] == wanted).all()):
        raise ValueError(f"world {name!r} foretells not all of the values: its items are not those of the others")
    at = order[at]
    item, own = places.item, model.net.scale.double()
    value = from_z(slots["quantiles/model"][at].double(), own[item].unsqueeze(1))
    y = places.y.double()
    ratio = log_slope(y, scale.scale[item]) - log_slope(y, own[item])
    return {
        "quantiles": scale.z(value, item.unsqueeze(1)).float(),
        "nll": slots["nll/model"][at] + ratio.float(),
        "hits": slots["point/model_hits"][at],
    }
