"""The network: one position per time step, its events pooled as a set, one query per ordered item.

    chart and interventions of step t --pool--> x_t --backbone--> h_t --> death, discharge within the step
    h_{t-1}, interventions of step t, chart before it --fuse--> p_t --query of each ordered item--> its outcome

Pooling sums an embedding per item, scaled by its value's features: on the dense row of a step that sum is one matrix
product. A query sees the state after the step's interventions were fed in, its item, the item's last charted value and
that value's age. In training all positions are computed at once; only the backbone looks from position to position.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.backbone import Cache, Recurrent, Transformer
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.stay_tensors import NEVER, Charted
from world_models.ehr_world.vocabulary import Vocabulary, to_z

__all__ = ["Exposure", "Outcome", "SetOutcome", "Known"]

DELAYS = NEVER + 1


class Exposure(NamedTuple):
    """Interventions as one slot's item met them, [N, J] in shares of the largest amount."""

    now: Tensor  # in the step
    before: Tensor  # in the step before it
    earlier: Tensor  # in the one before that
    since: Tensor  # summed over all steps after the one its last charted value was drawn in, this step's with them
    change: Tensor  # now, against that step


class Known(NamedTuple):
    """What the chart holds when a step begins, or once it has ended: [..., I] each."""

    z: Tensor  # last value on its scale, 0 where none has come; a label's class
    seen: Tensor  # 0 or 1
    age: Tensor  # steps since it was drawn


class Outcome(NamedTuple):
    """Predictions for N slots of K bins."""

    log_mass: Tensor  # [N, K]
    edges: Tensor  # [N, K + 1]
    loading: Tensor  # [N, R] of the copula; 0 for labels
    hidden: Tensor  # [N, query]
    around: bins.Around  # the logistic base; labels: even


class SetOutcome(nn.Module):
    def __init__(self, config: SetOutcomeConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        items, doses, static = len(vocabulary.items), len(vocabulary.treatments), len(vocabulary.static)
        hidden, query, rank, count = config.hidden, config.query, config.rank, vocabulary.bins
        fixed = 2 * static + 2 + (len(vocabulary.diagnoses) if config.with_diagnoses else 0)
        self.register_buffer("edges", vocabulary.edge_table())
        self.register_buffer("scale", vocabulary.scale_table())
        self.register_buffer("label", vocabulary.is_label())
        self.register_buffer("largest", torch.tensor([t.high for t in vocabulary.treatments]))
        self.register_buffer("static_mean", torch.tensor([s.mean for s in vocabulary.static]))
        self.register_buffer("static_sd", torch.tensor([s.sd for s in vocabulary.static]))
        # Not weights, but on their device: what training met, and what an unknown one reads as (a yes or no: no).
        usual = [0.0 if (s.low, s.high) == (0.0, 1.0) else s.mean for s in vocabulary.static]
        rows = {"static_low": [s.low for s in vocabulary.static], "static_high": [s.high for s in vocabulary.static]}
        for name, row in {**rows, "usual": usual}.items():
            self.register_buffer(name, torch.tensor(row), persistent=False)
        recurrent = config.backbone == "gru"
        begun = config.layers * hidden if recurrent else hidden
        self.begin = nn.Sequential(nn.Linear(fixed, hidden), nn.GELU(), nn.Linear(hidden, begun))
        self.pool = nn.Linear(6 * items + 3 * doses + fixed, hidden)
        self.pool_out = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        if recurrent:
            self.gru = Recurrent(hidden, config.layers)
        else:
            self.transformer = Transformer(hidden, config.layers)
        self.fuse_in = nn.Linear(hidden + 4 * items + 3 * doses + fixed, hidden)
        self.fuse_out = nn.Linear(hidden, hidden)
        self.ends = nn.Sequential(nn.Linear(2 * hidden, query), nn.GELU(), nn.Linear(query, 2))
        self.ask = nn.Linear(hidden, query)
        self.gain = nn.Embedding(items, query)
        self.item = nn.Embedding(items, query)
        self.last = nn.Linear(6, query)
        self.norm = nn.LayerNorm(query)
        self.mix = nn.Sequential(nn.Linear(query, query), nn.GELU(), nn.Linear(query, query))
        self.norm_out = nn.LayerNorm(query)
        self.width = count + 4 + rank
        self.out = nn.Linear(query, self.width)
        self.out_item = nn.Embedding(items, self.width)
        self.delay = nn.Linear(query, DELAYS)
        self.delay_class = nn.Embedding(items * (1 + max(1, count)), DELAYS)
        # what each intervention moves each item by, per share: a straight way beside the deep one, for rare pairs
        self.effect = nn.Embedding(items, len(Exposure._fields) * doses)
        self.effect_slope = nn.Embedding(items, len(Exposure._fields) * doses)  # by how far off the item was
        for table in (self.out_item, self.delay_class, self.effect, self.effect_slope):
            nn.init.zeros_(table.weight)
        with torch.no_grad():
            self.gain.weight.mul_(0.5)
            self.item.weight.mul_(0.5)
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[count + 1] = -1.0  # log scale: narrower than the marginal
            self.out.bias[count + 2] = 1.5  # keeps most of the last value
            self.out_item.weight[:, count + 4 :].normal_(std=0.2, generator=torch.Generator().manual_seed(1))
            self.ends[-1].bias.copy_(torch.tensor([-4.0, -3.5]))

    # ---- features

    def z_of(self, value: Tensor) -> Tensor:
        """Values [..., I] on their scales, cut to +-8."""
        return to_z(value, self.scale).clamp(-8.0, 8.0)

    def fixed(self, static: Tensor, diagnosis: Tensor | None, step: Tensor) -> Tensor:
        """Static context and time, [..., F]; `step` [...] is the position's number."""
        lacking = static.isnan()
        plain = torch.where(lacking, 0.0, (static - self.static_mean) / self.static_sd).clamp(-5.0, 5.0)
        time = torch.stack([step.log1p() * 0.25, step / 42.0], -1)
        parts = [plain, lacking.to(plain.dtype), time]
        return torch.cat(parts if diagnosis is None else [*parts, diagnosis], -1)

    def doses(self, given: Tensor) -> Tensor:
        share = given / self.largest
        return torch.cat([share, share.clamp_min(0.0).sqrt(), (given > 0).to(share.dtype)], -1)

    def chart_features(self, known: Known) -> Tensor:
        z = known.z * known.seen
        return torch.cat([z, known.seen, (known.age * 0.5).log1p() * known.seen, (z.abs() - 1.0).clamp_min(0.0)], -1)

    # ---- parts

    @property
    def backbone(self) -> Recurrent | Transformer:
        return self.gru if self.config.backbone == "gru" else self.transformer

    def start(self, fixed: Tensor) -> Tensor | Cache:
        """What the backbone carries before the admission, from the static context [B, F]."""
        return self.backbone.begin(self.begin(fixed))

    def digest(self, known: Known, fresh: Tensor, doses: Tensor, fixed: Tensor) -> Tensor:
        """x_t [..., H] from the chart after the step, which results are fresh, and what was given."""
        new = torch.cat([fresh, fresh * known.z], -1)
        return self.pool_out(self.pool(torch.cat([self.chart_features(known), new, doses, fixed], -1)))

    def fuse(self, hidden: Tensor, known: Known, doses: Tensor, fixed: Tensor) -> Tensor:
        """p_t [..., H]: the state once the step's interventions were fed in."""
        inner = self.fuse_in(torch.cat([hidden, self.chart_features(known), doses, fixed], -1))
        return hidden + self.fuse_out(nn.functional.gelu(inner))

    def end_logits(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Logits [..., 2] of death in the step, and of discharge if alive."""
        return self.ends(torch.cat([hidden, x], -1))

    def query(self, asked: Tensor, item: Tensor, z: Tensor, seen: Tensor, age: Tensor, met: Exposure) -> Outcome:
        """Outcomes of N slots; or of every item in turn of B patients, N = B * I, without a copy of `asked` for each.

        Args:
            asked: [N, query], `self.ask(p_t)` of each slot's position; or [B, 1, query].
            item: int64 [N], or [I].
            z, seen, age: [N], or [B, I], of the item in the chart before the step.
            met: interventions since that value, [N, J] or [B, I, J].
        """
        value = z * seen
        features = torch.stack(
            [value, value.abs(), seen, (age * 0.5).log1p() * seen, value * (-age * 0.25).exp(), (-age * 0.5).exp() * seen],
            -1,
        )
        hidden = asked * (1.0 + self.gain(item)) + self.item(item) + self.last(features)
        hidden = hidden + self.mix(self.norm(hidden))
        hidden = self.norm_out(hidden)
        out = self.out(hidden) + self.out_item(item)
        # times 8: a table entry has far to go at a rate of learning that suits the rest
        amounts = torch.cat(met._replace(since=met.since.clamp(0.0, 4.0)), -1)
        push = 8.0 * (amounts * self.effect(item)).sum(-1)
        push = push + 2.0 * value.clamp(-3.0, 3.0) * (amounts * self.effect_slope(item)).sum(-1)
        if z.ndim == 2:
            item = item.expand(z.shape).flatten()
            hidden, out, push, value = (x.flatten(0, 1) for x in (hidden, out, push, value))
        count = self.vocabulary.bins
        free = out[:, :count]
        moved, log_scale, keep, log_bend = out[:, count : count + 4].unbind(-1)
        location = torch.sigmoid(keep) * value + moved + push
        edges, label = self.edges[item], self.label[item]
        bend = 0.01 * log_bend.clamp(-5.0, 3.0).exp()
        around = bins.Around(location, torch.where(label, 1e4, log_scale.clamp(-6.0, 3.0).exp()), bend)
        log_mass = bins.log_masses(free, around, edges, ~label)
        return Outcome(log_mass, edges, out[:, count + 4 :] * (~label).unsqueeze(-1), hidden, around)

    def delay_logits(self, hidden: Tensor, item: Tensor, klass: Tensor) -> Tensor:
        """Logits [N, DELAYS] of how many steps later a result comes; `klass` [N]: 1 + a label's class, 0 for numbers."""
        return self.delay(hidden) + self.delay_class(item * (1 + self.vocabulary.bins) + klass)

    def known_after(self, chart: Charted) -> Known:
        """The chart after each position as features: [B, T, I]."""
        seen = chart.seen.to(torch.float32)
        return Known(self.z_of(chart.value) * seen, seen, chart.age)

    @staticmethod
    def known_before(after: Known) -> Known:
        """The chart as each position's step began: the position before, one step older."""

        def late(x: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)

        seen = late(after.seen)
        return Known(late(after.z), seen, (late(after.age) + 1.0) * seen)
