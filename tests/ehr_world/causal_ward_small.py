"""Small causal wards on a few stays of the oracle ward, with random weights; made once a process."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch

from tests.ehr_world.ward_small import some_stays
from world_models.ehr_world.causal_lm.codec import NarrativeCodec, TextCodec, train_tokenizer
from world_models.ehr_world.causal_lm.model import CausalLM, qwen3
from world_models.ehr_world.causal_lm.text import STATUS, AskedItem, Narrative, render
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.causal_lm.ward.config import CausalWardConfig
from world_models.ehr_world.causal_lm.ward.narratives import charted_stay, step_of
from world_models.ehr_world.causal_lm.ward.tables import tables_of
from world_models.ehr_world.causal_lm.ward.world import CausalWard
from world_models.ehr_world.set_outcome.stay_tensors import charted
from world_models.quantities.ward import INTERVENTIONS

WINDOWS = {"quantile": 448, "text": 4096}


@lru_cache(maxsize=1)
def narratives() -> list[Narrative]:
    stays = some_stays()
    chart = charted(stays)
    told = [charted_stay(stays, chart, row, 4.0) for row in range(len(stays.static))]
    nothing = [0.0] * len(INTERVENTIONS)  # cultures take longer than these stays last
    sent, *came = (
        step_of(1, [], ["blood_culture"], nothing),
        *(
            step_of(t, [AskedItem("blood_culture", label=label)], [], nothing)
            for t, label in ((2, "none"), (3, "mrsa"))
        ),
    )
    steps = [s._replace(asked=(*s.asked[:-1], AskedItem(STATUS, label="stays"))) for s in (sent, *came)]
    return [*told, told[0]._replace(steps=tuple(steps))]


def codec_without_ends() -> QuantileCodec:
    """Of quantile tokens; nobody dies or goes home, so that courses are long."""
    codec = QuantileCodec.fit(narratives())
    return QuantileCodec(codec.n_bins, codec.bins, codec.names, codec.outcomes | {STATUS: ["label:stays"]})


@lru_cache(maxsize=4)
def language_model(form: str) -> CausalLM:
    """Large random weights: what it writes depends on all that it read."""
    codec: NarrativeCodec = codec_without_ends()
    if form == "text":
        codec = TextCodec(train_tokenizer([render(n) for n in narratives()[:8]], 1024), numbers_only=True, longest=8)
    made = CausalLM.from_config(qwen3(codec.size, 16, 1, 2, WINDOWS[form]), codec, seed=3)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)
    return made


@lru_cache(maxsize=8)
def small(form: str = "quantile", **settings: object) -> CausalWard:
    config = CausalWardConfig(name="tiny", window=WINDOWS[form])
    config = dataclasses.replace(config, **settings)  # type: ignore[arg-type]
    return CausalWard(language_model(form), tables_of(some_stays()), config)
