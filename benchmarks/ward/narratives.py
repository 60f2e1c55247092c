"""Stays of the ward as the narratives that a causal language model reads, and the state after one was told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.cache import EMPTY, LMState
from world_models.ehr_world.causal_lm.codec import encode, last_steps
from world_models.ehr_world.causal_lm.model import CausalLM
from world_models.ehr_world.causal_lm.text import STATUS, STATUSES, AskedItem, Narrative, NarrativeStep
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_static, narrative_of_ward
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, NEVER, UNKNOWN, Stays
from world_models.quantities.ward import INQUIRIES

__all__ = ["HOURS", "WINDOW", "Staying", "alone", "stay", "steps_told", "told"]

HOURS = 4.0  # of a step
WINDOW = 1024  # tokens: about 6 steps of text, 27 of quantile tokens; longer ones train at half the speed
_ASKED_END, _END = AskedItem(STATUS), AskedItem(STATUS, label=STATUSES[0])


class Staying:
    """A codec that is told, not asked, that the patient stays: each step's orders name the status, and its outcome
    stands before the next step's orders. Stays of the ward have no gaps, so the first step told follows one untold."""

    def __init__(self, codec: Any) -> None:
        self.inner = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def orders(self, step: NarrativeStep, before: int, hours_per_step: float) -> list[int]:
        """Tokens of a step's orders; before them the outcome of the status that the step before asked for."""
        end = [] if before < 0 else [*self.inner.ask(STATUS), *self.inner.outcome(_END)]
        asked = step._replace(asked=(*step.asked, _ASKED_END))
        return [*end, *self.inner.orders(asked, step.number - 1 if before < 0 else before, hours_per_step)]


def stay(
    stays: Stays, row: int, begin: int = 0, end: int | None = None, status: bool = False, now: int | None = None
) -> Narrative:
    """Positions begin .. end - 1 of one stay. With `now`, results that came after position `now` are left out."""
    end = int(stays.valid[row].sum()) if end is None else end
    value, asked = stays.value[row, begin:end], stays.asked[row, begin:end]
    if now is not None:
        delay = stays.delay[row, begin:end].long()
        late = torch.where(delay == UNKNOWN, 0, delay)
        place = torch.arange(begin, end).unsqueeze(-1)
        came = (late >= 0) & (late < NEVER) & (delay != CENSORED) & (place + late <= now)
        value = torch.where(came, value, float("nan"))
    made = narrative_of_ward(
        facts_of_static(stays.static[row]),
        asked,
        value,
        stays.given[row, begin:end],
        stays.alive[row, begin:end],
        stays.home[row, begin:end],
        HOURS,
        status,
    )
    return made._replace(steps=tuple(s._replace(number=s.number + begin) for s in made.steps))


def steps_told(stays: Stays, row: int, place: int, items: Sequence[int]) -> NarrativeStep:
    """Orders of a position, with the outcomes of these items as they came."""
    step = stay(stays, row, place, place + 1).steps[0]
    wanted = {INQUIRIES[i].name for i in items}
    return step._replace(asked=tuple(a for a in step.asked if a.item in wanted))


def told(lm: CausalLM, narratives: Sequence[Narrative], key: Tensor, room: int) -> LMState:
    """The state of stays of which all steps were told; of a stay that is too long, the last ones."""
    pieces, last = [], []
    for narrative in narratives:
        narrative = last_steps(lm.codec, lm.codec.known(narrative)[0], WINDOW - room)
        pieces.append(encode(lm.codec, narrative).ids)
        last.append(narrative.steps[-1].number if narrative.steps else -1)
    width = max(len(p) for p in pieces)
    pending = torch.tensor([[*p, *[EMPTY] * (width - len(p))] for p in pieces], dtype=torch.int64)
    state = lm.start([n._replace(facts=(), diagnoses=(), steps=()) for n in narratives], key)
    return state._replace(pending=pending, t=torch.tensor(last, dtype=torch.int64))


def alone(step: NarrativeStep) -> Narrative:
    """A narrative of one step of four hours and nothing else."""
    return Narrative((), (), HOURS, (step,))
