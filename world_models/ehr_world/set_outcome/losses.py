"""Likelihood of stays under teacher forcing: every position of every stay at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.ehr_world.set_outcome.copula import log_copula
from world_models.ehr_world.set_outcome.network import ChartFeatures, Exposure, Outcome, SetOutcome, StepInputs
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, NEVER, Stays, charted
from world_models.ehr_world.vocabulary import to_z

__all__ = ["Forced", "StayLosses", "end_losses", "forced", "likelihood", "normal_score", "stay_losses"]


SLOTS = 16.0  # of a position, about: only sets the balance between values and ends
DELAY_WEIGHT = 0.3  # against values: when a result comes matters less than what it says
LEAST_TAIL = 1e-6  # of a probability integral transform, before it becomes a normal score


class Forced(NamedTuple):
    """A teacher-forced pass: what was predicted at every position, and where the slots are."""

    hidden: Tensor  # [B, T, H] after each position
    end_logits: Tensor  # [B, T, 2]
    outcome: Outcome  # of the N slots
    row: Tensor  # int64 [N]
    place: Tensor  # int64 [N]
    item: Tensor  # int64 [N]
    z: Tensor  # [N] what came, on the item's scale (a label's class); NaN: nothing
    last_z: Tensor  # [N] what was charted before
    last_seen: Tensor  # [N]


class StayLosses(NamedTuple):
    """The terms of the loss, each a number; `stay_losses` says what each is a mean of."""

    value: Tensor  # mean negative log density (mass for labels) of a slot
    copula: Tensor  # mean of a slot
    delay: Tensor
    death: Tensor  # mean of a position
    home: Tensor

    def total(self, ends: bool = True) -> Tensor:
        """Their weighted sum; without `ends` death and discharge do not count."""
        total = self.value + self.copula + DELAY_WEIGHT * self.delay
        return total + self.death + self.home if ends else total


def forced(net: SetOutcome, stays: Stays, recorded: bool = True) -> Forced:
    """All positions of all stays in one pass; not `recorded`: orders act as an agent's do, not as a record's go along
    with what follows (`SetOutcomeConfig.recorded_gain`)."""
    batch, count, _ = stays.value.shape
    chart = charted(stays)
    after = net.charted(chart)
    before = net.chart_before(after)
    step = torch.arange(count, device=stays.value.device, dtype=torch.float32).expand(batch, count)
    static, diagnosis = (x.unsqueeze(1).expand(-1, count, -1) for x in (stays.static, stays.diagnosis))
    fixed = net.fixed(static, diagnosis, step)
    inputs = StepInputs(before, net.doses(stays.given), fixed)
    ended = inputs._replace(chart=after)
    x = net.digest(chart.fresh.to(torch.float32), ended)
    earlier, hidden = net.backbone.whole(x, net.begin(fixed[:, 0]))
    asked = net.ask(net.fuse(earlier, inputs))
    row, place, item = (stays.asked & stays.valid.unsqueeze(-1)).nonzero(as_tuple=True)
    last = ChartFeatures(*(part[row, place, item] for part in before))
    met = _exposure(stays.given / net.largest, row, place, last)
    met = met.times(net.recorded_gain) if recorded else met
    outcome = net.query(asked[row, place], item, last, met)
    z = to_z(stays.value[row, place, item], net.scale[item])
    return Forced(hidden, net.end_logits(hidden, x, ended), outcome, row, place, item, z, last.z, last.seen)


def _exposure(share: Tensor, row: Tensor, place: Tensor, last: ChartFeatures) -> Exposure:
    """What slots [N] met, of what is given at every position, `share` [B, T, J] of the largest amounts."""
    count, total = share.shape[1], share.cumsum(1)
    collected, seen = (place - last.age.to(torch.int64)).clamp_min(0), last.seen.unsqueeze(-1)
    before, earlier = (nn.functional.pad(share, (0, 0, k, 0))[:, :count] for k in (1, 2))
    now = share[row, place]
    since = total[row, place] - total[row, collected] * seen
    return Exposure(now, before[row, place], earlier[row, place], since, now - share[row, collected] * seen)


def normal_score(u: Tensor) -> Tensor:
    """Standard normal quantile of u [...], cut to +-4.75."""
    return torch.erfinv(u.clamp(LEAST_TAIL, 1 - LEAST_TAIL) * 2 - 1) * math.sqrt(2.0)


def likelihood(net: SetOutcome, run: Forced) -> tuple[Tensor, Tensor]:
    """Log likelihood [N] of each slot's value (density on the z scale, mass for labels), and its PIT [N]."""
    label = net.label[run.item]
    z = run.z.nan_to_num(0.0)
    marginal = run.outcome.marginal
    inside = torch.maximum(torch.minimum(z, marginal.edges[:, -1]), marginal.edges[:, 0])
    log_p, pit = marginal.log_density(inside), marginal.cdf(inside)
    return log_p, torch.where(label, 0.5, pit)


def stay_losses(
    net: SetOutcome,
    stays: Stays,
    expected: float | None = None,
    shown: Stays | None = None,
    ended: Tensor | None = None,
) -> StayLosses:
    """The terms of the loss, each a mean over this batch's slots or positions.

    With `expected`, the number of positions a batch has on average, each is a sum over that number (and SLOTS times it)
    instead: batches of equally long stays must not weigh equally, or those who die early would count for more.

    With `shown`, the same stays with some results left out, the network is told of those alone but must predict all.

    With `ended`, bool [B], death and discharge count only of stays whose record tells how they ended.
    """
    run = forced(net, stays if shown is None else shown)
    if shown is not None:
        run = run._replace(z=to_z(stays.value[run.row, run.place, run.item], net.scale[run.item]))
    there = ~run.z.isnan()
    log_p, pit = likelihood(net, run)
    slots = there.sum().clamp_min(1) if expected is None else expected * SLOTS
    value = -(log_p * there).sum() / slots

    batch, count = stays.valid.shape
    numeric = there & ~net.label[run.item]
    # detached: the margins are fitted for themselves, the copula to what they leave (inference functions for margins)
    scores = normal_score(pit.detach())[numeric]
    group = (run.row * count + run.place)[numeric]
    together = log_copula(scores, run.outcome.loading[numeric], group, batch * count)
    copula = -together.sum() / slots

    delay = _delay_loss(net, stays, run, slots)
    return StayLosses(value, copula, delay, *end_losses(run.end_logits, stays, expected, ended))


def end_losses(
    logits: Tensor, stays: Stays, expected: float | None = None, ended: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of death and of discharge if alive, from logits [B, T, 2]; `expected` and `ended` as in `stay_losses`."""
    dies, leaves = ~stays.alive, stays.home
    later = stays.valid & (torch.arange(stays.valid.shape[1], device=dies.device) > 0)
    if ended is not None:
        later = later & ended.unsqueeze(-1)
    found = []
    for which, (happens, at_risk) in enumerate(((dies, later), (leaves, later & stays.alive))):
        term = nn.functional.binary_cross_entropy_with_logits(logits[..., which], happens.float(), reduction="none")
        found.append((term * at_risk).sum() / (at_risk.sum().clamp_min(1) if expected is None else expected))
    return found[0], found[1]


def _delay_loss(net: SetOutcome, stays: Stays, run: Forced, slots: Tensor | float) -> Tensor:
    delay = stays.delay[run.row, run.place, run.item].to(torch.int64)
    told = (delay >= 0) | (delay == CENSORED)
    z = run.z.nan_to_num(-1.0)
    klass = torch.where(net.label[run.item], z.to(torch.int64) + 1, 0).clamp_min(0)
    log_p = torch.log_softmax(net.delay_logits(run.outcome.hidden, run.item, klass), -1)
    known = torch.gather(log_p, 1, delay.clamp(0, NEVER).unsqueeze(-1)).squeeze(-1)
    # censored: only that it took longer than the record lasted
    waited = (stays.valid.sum(1)[run.row] - 1 - run.place).clamp(0, LAST_DELAY)
    longer = torch.arange(log_p.shape[1], device=log_p.device) > waited.unsqueeze(-1)
    beyond = log_p.masked_fill(~longer, float("-inf")).logsumexp(-1)
    term = torch.where(delay == CENSORED, beyond, known)
    return -(term * told).sum() / slots
