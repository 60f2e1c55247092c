"""What a learned ward carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from world_models.ehr_world.set_outcome.backbone import Cache

__all__ = ["LOG", "EHRState"]

LOG = 96  # steps the log of amounts reaches back: 16 days of four-hour steps


class EHRState(NamedTuple):
    """B patients, I inquiries, J interventions, S static features. Step numbers count positions (`stay_tensors`)."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B] steps since the start
    start_h: Tensor  # [B] hours since admission at t = 0
    static: Tensor  # [B, S] in their units; NaN: not known
    diagnosis: Tensor  # [B, D] 0 or 1; NaN: not told; used only by a model that conditions on diagnoses
    hidden: Tensor | Cache  # what the backbone carries; of a GRU [B, layers, H]
    value: Tensor  # [B, I] last result; typical while none has come
    drawn_h: Tensor  # [B, I] hours since admission when its specimen was collected
    drawn_step: Tensor  # int64 [B, I]
    seen: Tensor  # bool [B, I]
    trend: Tensor  # [B, I, NUMBERS] of `trends`; of a network without, [B, I, 0]
    pending: Tensor  # bool [B, I]
    pending_value: Tensor  # [B, I] sampled already, shown once due
    pending_drawn_h: Tensor  # [B, I]
    pending_drawn_step: Tensor  # int64 [B, I]
    pending_due_step: Tensor  # int64 [B, I]
    given: Tensor  # [B, J] amounts of the last step
    since_h: Tensor  # [B, J] hours since last given
    total_log: Tensor  # [B, LOG, J] amounts given up to step s, in shares of the largest, at row s modulo LOG
    alive: Tensor  # bool [B]
    home: Tensor  # bool [B]
    death_chance: Tensor  # [B] that the model gave to death in the step just past
    home_chance: Tensor  # [B] that it gave to discharge in it, of one who lives


# read by `clinenv.snapshot`; mypy knows no attributes of a NamedTuple's class but its fields
EHRState.MAY_BE_NAN = ("static", "diagnosis")  # type: ignore[attr-defined]
