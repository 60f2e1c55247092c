"""What a world is: the verbs every learned model and every oracle answers to, and their rules.

Rules, checked by `world_models.testing.check_world`:
- a state is a NamedTuple of batch-first tensors whose first two leaves are `key` (int64 [B]) and `t` (int64 [B],
  steps since the start); it is never changed in place;
- `transition`, `observe` and `initial` are pure: noise comes from `world_models.keys` alone, so equal inputs give
  equal outputs, and row i of a batch equals the same patient alone (oracle: bit for bit; learned: 1e-4 relative);
- every chart value lies within its Quantity's bounds;
- what a caller hands in is never bent into shape: `initial` refuses factors, `transition` amounts and `observe` names
  that are unknown, of another shape, no real numbers, NaN or out of their Quantity's bounds, with a ValueError that
  names value, limit and remedy. `world_models.inputs` holds the checks, to be called first thing in these verbs;
- a world never learns who asks: no gymnasium, no reward, no policy in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from world_models.quantity import Quantity

__all__ = ["Chart", "Factors", "History", "Learned", "Oracle", "WorldModel"]

S = TypeVar("S", bound=NamedTuple)
Chart = dict[str, Tensor]  # what can be measured now: name -> [B, *shape]
Factors = Mapping[str, Tensor]  # what is fixed about a patient: name -> [B, *shape]


class History(NamedTuple):
    """A recorded course, from which a learned world forms its belief. T visits of B patients, oldest first.

    `charts[:, 0]` was read before any dose of the record; `actions[:, i]` was given right after visit i, so the last
    row of actions is given at the last visit (zeros when nothing was given yet). NaN in a chart means not measured.
    """

    charts: Chart  # name -> [B, T, *shape]
    actions: Tensor  # [B, T, A] in the orders' units
    hours: Tensor  # [B, T] hours since the first visit, not decreasing


@runtime_checkable
class WorldModel(Protocol[S]):
    """A patient simulator over batches. All tensors live on `device`."""

    name: str
    measures: tuple[Quantity, ...]  # what `observe` can put in a chart
    orders: tuple[Quantity, ...]  # one a column of the action
    factors: tuple[Quantity, ...]  # what `initial` lets a caller fix
    hours_per_step: float
    device: torch.device

    def initial(self, key: Tensor, factors: Factors | None = None) -> S:
        """Patients [B] at t = 0 from keys [B]; a factor that is given is fixed, all others are drawn from the key.

        Raises:
            ValueError: a factor that is unknown, of another shape, or with a value (NaN is one) out of its bounds.
        """

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """What this world can take from a recorded chart (an ECG, say) as factors for `initial`.

        NaN where the chart of a row does not say it; `world_models.inputs.admit` has those rows drawn.
        """

    def transition(self, state: S, action: Tensor) -> S:
        """One step of `hours_per_step` after the orders in action [B, A]; pure; t grows by one.

        Raises:
            ValueError: an action of another shape, or an amount that is neither 0 nor within its order's bounds.
        """

    def observe(self, state: S, also: Sequence[str] = ()) -> Chart:
        """Every measure that is not `on_request`, and those on request that `also` names.

        Raises:
            ValueError: `also` names something that is no measure.
        """

    def rekey(self, state: S, key: Tensor) -> S:
        """The same patients with other luck: what is not known of them is drawn anew from key [B]."""

    def spread(self, state: S) -> dict[str, Tensor]:
        """Standard deviation [B] of the model's prediction for each measure it is unsure of, in the measure's unit."""

    def support(self, state: S) -> Tensor:
        """bool [B]: the state lies within what the model was fitted or trained on."""


@runtime_checkable
class Learned(WorldModel[S], Protocol[S]):
    """A trained world: it can also start from what was recorded of a real patient."""

    config: Any

    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> S:
        """Belief about these patients at the last visit of their history; unknowns are drawn from key [B].

        Raises:
            ValueError: factors as in `initial`, or a history the world cannot go on from.
        """


@runtime_checkable
class Oracle(WorldModel[S], Protocol[S]):
    """A mechanistic world whose hidden state is known."""

    def truth(self, state: S) -> dict[str, Tensor]:
        """Hidden quantities, for judging only; never in the chart."""
