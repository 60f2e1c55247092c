"""Whether a language model can be a ward: its vocabulary, its window, and the shape of its cache."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.cache import LMState
from world_models.ehr_world.causal_lm.codec import NarrativeCodec
from world_models.ehr_world.causal_lm.model import CausalLM
from world_models.ehr_world.causal_lm.text import STATUS, AskedItem, Narrative, NarrativeStep
from world_models.ehr_world.causal_lm.ward.config import CausalWardConfig
from world_models.ehr_world.causal_lm.ward.narratives import step_of
from world_models.ehr_world.causal_lm.ward.stream import Shape, tokens_of
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_static
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, INTERVENTIONS, STATIC

__all__ = ["cache_shape", "check_fits", "known_inquiries", "room_for"]

HARD = 0.98765  # of a largest amount, to be written with as many digits as any


def known_inquiries(codec: NarrativeCodec) -> Tensor:
    """bool [I]: inquiries that the vocabulary has an answer to.

    Raises:
        ValueError: it does not know how a stay goes on.
    """
    asked = tuple(AskedItem(name) for name in (*(q.name for q in INQUIRIES), STATUS))
    kept = codec.known(Narrative((), (), 1.0, (NarrativeStep(1, asked),)))[0].steps[0].asked
    names = {a.item for a in kept}
    if STATUS not in names:
        raise ValueError(
            f"the model's vocabulary has no {STATUS!r}, which tells how a stay goes on; train on stays that ask for it"
        )
    return torch.tensor([q.name in names for q in INQUIRIES])


def room_for(codec: NarrativeCodec, step: NarrativeStep, hours_per_step: float) -> int:
    """Most tokens that a step takes, its outcomes among them."""
    orders = len(codec.orders(step, step.number - 1, hours_per_step))
    return orders + sum(len(codec.ask(asked.item)) + codec.longest for asked in step.asked)


def check_fits(lm: CausalLM, config: CausalWardConfig, answers: Tensor) -> None:
    """Raises ValueError: the window is wider than the model, or too narrow for a step in which all is ordered."""
    if config.window > lm.limit:
        raise ValueError(
            f"window={config.window} tokens is more than the model's {lm.limit} positions; give at most that"
        )
    back = [AskedItem(q.name) for q, known in zip(INQUIRIES, answers.tolist(), strict=True) if known]
    step = step_of(99, back, [q.name for q in INQUIRIES], [HARD * float(q.high) for q in INTERVENTIONS])
    static = torch.cat([torch.tensor([HARD * q.high for q in STATIC]), torch.eye(len(COMPLAINTS))[0]])
    context = len(tokens_of(lm.codec, Narrative(facts_of_static(static), (), config.hours_per_step))[0])
    most = context + room_for(lm.codec, step, config.hours_per_step)
    if most > config.window:
        raise ValueError(
            f"window={config.window} tokens is too narrow: a step in which everything is ordered and comes back may "
            f"take {most} with the context; make the world with --window {1 << (most - 1).bit_length()}"
        )


@torch.no_grad()
def cache_shape(lm: CausalLM) -> Shape:
    """Of the keys and values that the model keeps of each layer; found by feeding it one token."""
    zero = torch.zeros(1, dtype=torch.int64, device=lm.device)
    token = torch.full((1, 1), lm.codec.pad, device=lm.device)
    state, _ = lm.feed(LMState(zero, zero - 1, zero, token[:, :0], token, ()))
    return tuple((x.shape[1], x.shape[3], x.dtype) for layer in state.cache for x in layer)
