"""A learned ward that goes on with a patient as another one has shown him: a member of an ensemble.

What is charted, pending and given is the other's; what this network makes of it (what the backbone carries, and the
chances of death and discharge) is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models import tree
from world_models.ehr_world.set_outcome.network import ChartFeatures, StepInputs
from world_models.ehr_world.set_outcome.state import EHRState
from world_models.ehr_world.vocabulary import from_z

if TYPE_CHECKING:
    from world_models.ehr_world.set_outcome.world import EHRWorldModel

__all__ = ["AT_ONCE", "follow", "join", "next_quantiles"]

AT_ONCE = 96  # patients: what a pass over all their items leaves behind then stays in a processor's cache


def join(model: EHRWorldModel, shown: EHRState) -> EHRState:
    """The patients at admission, triage taken, of whom `shown` says what was charted."""
    net, start = model.net, torch.zeros_like(shown.t)
    hour = start.to(torch.float32) + shown.start_h / model.hours_per_step
    fixed = net.fixed(shown.static, shown.diagnosis, hour)
    inputs = StepInputs(model.chart_features(shown, start), net.doses(shown.given), fixed)
    hidden, _ = net.take_in(net.start(fixed), inputs, shown.seen.to(torch.float32), start)
    return shown._replace(hidden=hidden)


def follow(model: EHRWorldModel, state: EHRState, given: Tensor, shown: EHRState) -> EHRState:
    """The patients a step after `state`, given `given` [B, J]; `shown` says what then was charted of them."""
    step = state.t + 1
    came = shown.seen & (~state.seen | (shown.drawn_step != state.drawn_step))
    inputs = model.step_inputs(shown, step, given)
    hidden, ends = model.net.take_in(state.hidden, inputs, came.to(torch.float32), step)
    here = state.alive & ~state.home
    dying, leaving = (torch.sigmoid(ends) * here.unsqueeze(-1)).unbind(-1)
    hidden = tree.where(here, hidden, state.hidden)
    return shown._replace(hidden=hidden, death_chance=dying, home_chance=leaving)


def next_quantiles(model: EHRWorldModel, state: EHRState, chances: tuple[float, ...]) -> Tensor:
    """Values [B, numbers, len(chances)] below which each number's prediction for a next step without treatment lies
    with these chances."""
    item, step, none = model.numbers, state.t + 1, torch.zeros_like(state.given)
    recent, inputs = model.recent(state, step), model.step_inputs(state, step, none)
    asked = model.net.ask(model.net.fuse(model.net.backbone.top(state.hidden), inputs)).unsqueeze(1)
    parts = []
    most = len(step) if torch.compiler.is_compiling() else AT_ONCE  # a graph would hold every pass by itself
    for rows in torch.arange(len(step), device=step.device).split(most):
        row, column = rows.unsqueeze(1).expand(-1, len(item)), item.expand(len(rows), -1)
        last = ChartFeatures(*(x[row, column] for x in inputs.chart))
        outcome = model.net.query(asked[rows], item, last, model.exposure(state, step, none, recent, row, column))
        ends = outcome.loading.new_tensor(chances).expand(len(outcome.loading), len(chances))
        z = outcome.marginal.quantile(ends).unflatten(0, row.shape)
        parts.append(from_z(z, model.net.scale[item].unsqueeze(1)))
    return torch.cat(parts)
