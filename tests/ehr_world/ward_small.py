"""A few stays of the oracle ward and an untrained small world on them, made once a process."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch

from world_models import keys
from world_models.ehr_world import vocabulary, ward_rollouts
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel

CONFIG = SetOutcomeConfig(name="tiny", hidden=24, query=16, admissions=16)


@lru_cache(maxsize=1)
def some_stays() -> Stays:
    return ward_rollouts.rollout(keys.from_seed(77_000, 48), steps=8)


@lru_cache(maxsize=1)
def words() -> vocabulary.Vocabulary:
    """Of the stays, with every class of a culture and every item met."""
    return vocabulary.from_ward([some_stays()])


def tiny(seed: int = 0, backbone: str = "gru", people: bool = False) -> EHRWorldModel:
    """A world with random weights of a size that makes its answers depend on everything; `people`: of the form that
    learns from them, with trends, a share on the last report, and ends read from the chart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = dataclasses.replace(CONFIG, backbone=backbone, trends=people, repeats=people, ends_by_chart=people)
        model = EHRWorldModel(config, words())
        with torch.no_grad():
            for name, p in model.net.named_parameters():
                if p.ndim > 1 and "out_item" not in name:
                    p.mul_(1.5)
            effect = torch.randn(model.net.effect.weight.shape, generator=torch.Generator().manual_seed(seed))
            model.net.effect.weight.copy_(0.05 * effect)
            if people:
                for table in (model.net.trend_gain, model.net.pull):
                    table.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
            model.net.delay.bias[0] = 3.0  # most results come in their own step, the rest later
            stays = some_stays()
            model.admissions.copy_(stays.static[:16])
            model.triage.copy_(stays.asked[:, 0].float().mean(0))
    return model.eval().requires_grad_(False)
