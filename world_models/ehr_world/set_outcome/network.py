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

from world_models import gradients, tree
from world_models.ehr_world.set_outcome import bins, ends, trends
from world_models.ehr_world.set_outcome.backbone import Backbone, Cache, Recurrent, Transformer
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.marginal import Again, Marginal
from world_models.ehr_world.set_outcome.stay_tensors import NEVER, Charted, previous
from world_models.ehr_world.vocabulary import Vocabulary, from_z, to_z

__all__ = ["DOSE_FEATURES", "ChartFeatures", "Exposure", "Outcome", "SetOutcome", "StepInputs"]

DELAYS = NEVER + 1  # classes of a result's delay

# How numbers enter and leave the network: choices of ours, none of them tuned. The shipped weights stand on each.
MOST_Z = 8.0  # on an item's scale; values further off read as this far
MOST_STATIC_SD = 5.0  # of a static feature, the same
LOG_TIME_SCALE, WEEK_STEPS = 0.25, 42.0  # a position's number: its logarithm, and in weeks of four-hour steps
AGE_SCALE = 0.5  # per step, before the logarithm of a value's age
SLOW_FADE, FAST_FADE = 0.25, 0.5  # per step: a last value's weight fades as exp(-rate * age)
DOSE_FEATURES = 3  # of an intervention, see `SetOutcome.doses`
VALUE_FEATURES = 6  # of an item's last value, see `SetOutcome.query`
EFFECT_GAIN, SLOPE_GAIN = 8.0, 2.0  # a table entry has far to go at a rate of learning that suits the rest
MOST_SINCE = 4.0  # shares of the largest amount summed since the last value
MOST_SLOPE_Z = 3.0  # how far off the item counts for an effect's slope
LOG_SCALE = (-6.0, 3.0)  # limits of the base's log scale
LOG_BEND, BEND_UNIT = (-5.0, 3.0), 0.01  # of the base's log bend, which is told in this unit
LABEL_SCALE = 1e4  # of a label's base: so wide that its bins are even
MOST_TREND_Z = 6.0  # how far off a trend's number counts
CELL_Z = 0.01  # width of the last report's cell where reports have no step
MOST_AGAIN = 0.999  # share of the mass on the last report

SLOTS_AT_ONCE = 4096  # of which the numbers stay in a processor's cache

# first weights
TABLE_GAIN, OUT_GAIN = 0.5, 0.1  # smaller than the library's: items begin alike, and near the base
LOG_SCALE_START = -1.0  # narrower than the marginal
KEEP_START = 1.5  # before the sigmoid: keeps most of the last value
LOADING_SD = 0.2  # of the copula's loadings
AGAIN_START = -2.0  # before the sigmoid


class Exposure(NamedTuple):
    """Interventions as one slot's item met them, [N, J] in shares of the largest amount."""

    now: Tensor  # in the step
    before: Tensor  # in the step before it
    earlier: Tensor  # in the one before that
    since: Tensor  # summed over all steps after the one its last charted value was collected in, this step's with them
    change: Tensor  # now, against that step

    def times(self, gain: Tensor) -> Exposure:
        """All of it times a gain [J] of each intervention."""
        return Exposure(*(x * gain for x in self))


class ChartFeatures(NamedTuple):
    """The chart as the network reads it, when a step begins or once it has ended: [..., I] each."""

    z: Tensor  # last value on its scale, 0 where none has come; a label's class
    seen: Tensor  # 0 or 1
    age: Tensor  # steps since its specimen was collected
    trend: Tensor  # [..., I, NUMBERS] of `trends`; of a network without, [..., I, 0]


class StepInputs(NamedTuple):
    """All that the network reads of a step beside what the backbone carries."""

    chart: ChartFeatures  # [..., I]
    doses: Tensor  # [..., 3 J] of `SetOutcome.doses`; of a network without `deep_orders`, [..., 0]
    fixed: Tensor  # [..., F] of `SetOutcome.fixed`


class Outcome(NamedTuple):
    """Predictions for N slots."""

    marginal: Marginal
    loading: Tensor  # [N, R] of the copula; 0 for labels
    hidden: Tensor  # [N, query]


class SetOutcome(nn.Module):
    """Weights of the form `set_outcome`, and the tables of its vocabulary as buffers.

    I items, J interventions, S static features, K bins, H and Q the config's `hidden` and `query`, R its `rank`.
    """

    edges: Tensor  # [I, K + 1]
    scale: Tensor  # [I, 4]
    label: Tensor  # bool [I]
    largest: Tensor  # [J] in the interventions' units
    static_mean: Tensor  # [S]
    static_sd: Tensor  # [S]
    static_low: Tensor  # [S] least and greatest met in training
    static_high: Tensor  # [S]
    usual: Tensor  # [S] what an unknown feature reads as
    grid: Tensor  # [I] step of the reports, in the items' units; 0: none
    recorded_gain: Tensor  # [J] of the config

    def __init__(self, config: SetOutcomeConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary, self.bin_count = config, vocabulary, vocabulary.bins
        items, doses, static = len(vocabulary.items), len(vocabulary.treatments), len(vocabulary.static)
        hidden, query = config.hidden, config.query
        dosed = DOSE_FEATURES * doses if config.deep_orders else 0
        fixed = 2 * static + 2 + (2 * len(vocabulary.diagnoses) if config.with_diagnoses else 0)
        # An order moves the base's location, to which free logits and the last report answer as they learned; or, in a
        # network that never met one, all that a slot says.
        self.moves_all, self.base_alone = not config.deep_orders, False
        self._register_tables()
        recurrent = config.backbone == "gru"
        begun = config.layers * hidden if recurrent else hidden
        self.begin = nn.Sequential(nn.Linear(fixed, hidden), nn.GELU(), nn.Linear(hidden, begun))
        self.pool = nn.Linear(6 * items + dosed + fixed, hidden)
        self.pool_out = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        if recurrent:
            self.gru = Recurrent(hidden, config.layers)
        else:
            self.transformer = Transformer(hidden, config.layers)
        self.fuse_in = nn.Linear(hidden + 4 * items + dosed + fixed, hidden)
        self.fuse_out = nn.Linear(hidden, hidden)
        self.ends, self.own_static = ends.head(config, vocabulary), ends.own_static(vocabulary)
        self.ask = nn.Linear(hidden, query)
        self.gain = nn.Embedding(items, query)
        self.item = nn.Embedding(items, query)
        self.last = nn.Linear(VALUE_FEATURES, query)
        self.norm = nn.LayerNorm(query)
        self.mix = nn.Sequential(nn.Linear(query, query), nn.GELU(), nn.Linear(query, query))
        self.norm_out = nn.LayerNorm(query)
        self.width = self.bin_count + 4 + config.rank + config.repeats
        self.out = nn.Linear(query, self.width)
        self.out_item = nn.Embedding(items, self.width)
        self.delay = nn.Linear(query, DELAYS)
        self.delay_class = nn.Embedding(items * (1 + max(1, self.bin_count)), DELAYS)
        # what each intervention moves each item by, per share: a straight way beside the deep one, for rare pairs
        self.effect = nn.Embedding(items, len(Exposure._fields) * doses)
        self.effect_slope = nn.Embedding(items, len(Exposure._fields) * doses)  # by how far off the item was
        if config.trends:
            self.trend = nn.Linear(trends.FEATURES, query)
            self.trend_gain = nn.Embedding(items, trends.FEATURES)
            self.pull = nn.Embedding(items, trends.FEATURES)  # a straight way to the location, item by item
            self.mix_again = nn.Sequential(nn.LayerNorm(query), nn.Linear(query, 2 * query), nn.GELU())
            self.mix_out = nn.Linear(2 * query, query)
        self._first_weights()

    def _register_tables(self) -> None:
        vocabulary = self.vocabulary
        self.register_buffer("edges", vocabulary.edge_table())
        self.register_buffer("scale", vocabulary.scale_table())
        self.register_buffer("label", vocabulary.is_label())
        self.register_buffer("largest", torch.tensor([t.high for t in vocabulary.treatments]))
        self.register_buffer("static_mean", torch.tensor([s.mean for s in vocabulary.static]))
        self.register_buffer("static_sd", torch.tensor([s.sd for s in vocabulary.static]))
        # Not weights, but on their device: what training met, and what an unknown one reads as (a yes or no: no).
        usual = [0.0 if (s.low, s.high) == (0.0, 1.0) else s.mean for s in vocabulary.static]
        self.register_buffer("grid", vocabulary.grids(), persistent=False)
        gain = self.config.recorded_gain or (1.0,) * len(vocabulary.treatments)
        if len(gain) != len(vocabulary.treatments):
            raise ValueError(
                f"recorded_gain has {len(gain)} numbers, the vocabulary {len(vocabulary.treatments)} interventions"
            )
        self.register_buffer("recorded_gain", torch.tensor(gain), persistent=False)
        rows = {"static_low": [s.low for s in vocabulary.static], "static_high": [s.high for s in vocabulary.static]}
        for name, row in {**rows, "usual": usual}.items():
            self.register_buffer(name, torch.tensor(row), persistent=False)

    @torch.no_grad()
    def _first_weights(self) -> None:
        for table in (self.out_item, self.delay_class, self.effect, self.effect_slope):
            nn.init.zeros_(table.weight)
        self.gain.weight.mul_(TABLE_GAIN)
        self.item.weight.mul_(TABLE_GAIN)
        self.out.weight.mul_(OUT_GAIN)
        self.out.bias.zero_()
        self.out.bias[self.bin_count + 1] = LOG_SCALE_START
        self.out.bias[self.bin_count + 2] = KEEP_START
        if self.config.trends:
            for table in (self.trend_gain, self.pull):
                nn.init.zeros_(table.weight)
        if self.config.repeats:
            self.out.bias[-1] = AGAIN_START
        loading = self.out_item.weight[:, self.bin_count + 4 : self.bin_count + 4 + self.config.rank]
        loading.normal_(std=LOADING_SD, generator=torch.Generator().manual_seed(1))

    # ---- features

    def z_of(self, value: Tensor) -> Tensor:
        """Values [..., I] on their scales, cut to +-MOST_Z."""
        return to_z(value, self.scale).clamp(-MOST_Z, MOST_Z)

    def fixed(self, static: Tensor, diagnosis: Tensor, step: Tensor) -> Tensor:
        """Static context [..., S], diagnoses [..., D] (if the config conditions on them; NaN: not told) and time as
        features [..., F]; `step` [...] is the position's number."""
        lacking = static.isnan()
        plain = torch.where(lacking, 0.0, (static - self.static_mean) / self.static_sd)
        plain = plain.clamp(-MOST_STATIC_SD, MOST_STATIC_SD)
        time = torch.stack([step.log1p() * LOG_TIME_SCALE, step / WEEK_STEPS], -1)
        parts = [plain, lacking.to(plain.dtype), time]
        if self.config.with_diagnoses:
            parts += [diagnosis.nan_to_num(0.0), diagnosis.isnan().to(plain.dtype)]
        return torch.cat(parts, -1)

    def doses(self, given: Tensor) -> Tensor:
        """Interventions [..., J] in their units as features [..., 3 J]: share of the largest, its root, if given;
        none without `deep_orders`."""
        if not self.config.deep_orders:
            return given[..., :0]
        share = given / self.largest
        return torch.cat([share, gradients.root(share), (given > 0).to(share.dtype)], -1)

    @staticmethod
    def chart_row(chart: ChartFeatures) -> Tensor:
        """The chart as one row [..., 4 I]: value, seen, age, and how far beyond one unit of its scale the value is."""
        z = chart.z * chart.seen
        age = (chart.age * AGE_SCALE).log1p() * chart.seen
        return torch.cat([z, chart.seen, age, (z.abs() - 1.0).clamp_min(0.0)], -1)

    def chart(self, value: Tensor, seen: Tensor, age: Tensor, trend: Tensor) -> ChartFeatures:
        """Features of a chart [..., I]: last values in their units, whether there is one (bool), its age in steps, and
        what is kept of how they have gone [..., I, `trend_width`]."""
        there = seen.to(torch.float32)
        return ChartFeatures(self.z_of(value) * there, there, age * there, trend)

    def charted(self, chart: Charted) -> ChartFeatures:
        """Features after every position of a record's chart."""
        z = self.z_of(chart.value)
        kept = trends.trends(chart, z) if self.config.trends else z.new_zeros(*z.shape, 0)
        return self.chart(chart.value, chart.seen, chart.age, kept)

    @property
    def trend_width(self) -> int:
        """How many numbers are kept of how each item has gone."""
        return trends.NUMBERS if self.config.trends else 0

    @staticmethod
    def chart_before(after: ChartFeatures) -> ChartFeatures:
        """The chart as each position's step began: the position before, one step older."""
        seen = previous(after.seen)
        return ChartFeatures(previous(after.z), seen, (previous(after.age) + 1.0) * seen, previous(after.trend))

    # ---- parts

    @property
    def backbone(self) -> Backbone:
        """What the config names."""
        return self.gru if self.config.backbone == "gru" else self.transformer

    def start(self, fixed: Tensor) -> Tensor | Cache:
        """What the backbone carries before the admission, from the static context [B, F]."""
        return self.backbone.begin(self.begin(fixed))

    def digest(self, fresh: Tensor, inputs: StepInputs) -> Tensor:
        """x_t [..., H] from the chart after the step, which of its results are `fresh` [..., I], and what was given."""
        chart, doses, fixed = inputs
        new = torch.cat([fresh, fresh * chart.z], -1)
        return self.pool_out(self.pool(torch.cat([self.chart_row(chart), new, doses, fixed], -1)))

    def fuse(self, hidden: Tensor, inputs: StepInputs) -> Tensor:
        """p_t [..., H] from h [..., H]: the state once the step's interventions were fed in."""
        chart, doses, fixed = inputs
        inner = self.fuse_in(torch.cat([hidden, self.chart_row(chart), doses, fixed], -1))
        return hidden + self.fuse_out(nn.functional.gelu(inner))

    def end_logits(self, hidden: Tensor, x: Tensor, inputs: StepInputs) -> Tensor:
        """Logits [..., 2] of death in the step, and of discharge if alive; the chart of `inputs` as the step ends."""
        by_chart, static = self.config.ends_by_chart, len(self.static_mean)
        return self.ends(ends.chart_row(inputs, static, self.own_static) if by_chart else torch.cat([hidden, x], -1))

    def outcomes(
        self, carried: Tensor | Cache, inputs: StepInputs, row: Tensor, item: Tensor, met: Exposure
    ) -> Outcome:
        """Outcomes of slots (row, item), int64 [N] each, of the step that follows what the backbone carries.

        Args:
            inputs: [B, ...] of that step, its chart as the step begins.
            met: [N, J].
        """
        asked = self.ask(self.fuse(self.backbone.top(carried), inputs))
        last = ChartFeatures(*(x[row, item] for x in inputs.chart))
        return self.query(asked[row], item, last, met)

    def take_in(
        self, carried: Tensor | Cache, inputs: StepInputs, fresh: Tensor, step: Tensor
    ) -> tuple[Tensor | Cache, Tensor]:
        """What the backbone carries after the step `step` int64 [B], and the step's `end_logits` [B, 2].

        Args:
            inputs: [B, ...] of that step, its chart as the step ends.
            fresh: [B, I] 1 where a result came in this step.
        """
        x = self.digest(fresh, inputs)
        hidden, carried = self.backbone.step(x, carried, step)
        return carried, self.end_logits(hidden, x, inputs)

    def query(self, asked: Tensor, item: Tensor, last: ChartFeatures, met: Exposure) -> Outcome:
        """Outcomes of N slots; or of every item in turn of B patients, N = B * I, without a copy of `asked` for each.

        Args:
            asked: [N, Q], `self.ask(p_t)` of each slot's position; or [B, 1, Q].
            item: int64 [N], or [I].
            last: [N], or [B, I], of the item in the chart before the step.
            met: interventions since that value, [N, J] or [B, I, J].
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return self._query(asked, item, last, met)  # how many there are is not asked for: a graph may not know
        most = max(1, SLOTS_AT_ONCE // (item.shape[0] if last.z.ndim == 2 else 1))
        if len(last.z) <= most:
            return self._query(asked, item, last, met)
        parts = []
        for run in tree.runs(len(last.z), most):
            those = item if last.z.ndim == 2 else item[run]
            parts.append(self._query(asked[run], those, tree.take(last, run), tree.take(met, run)))
        return tree.cat(parts)

    def _query(self, asked: Tensor, item: Tensor, last: ChartFeatures, met: Exposure) -> Outcome:
        value = last.z * last.seen
        features = torch.stack(
            [
                value,
                value.abs(),
                last.seen,
                (last.age * AGE_SCALE).log1p() * last.seen,
                value * (-last.age * SLOW_FADE).exp(),
                (-last.age * FAST_FADE).exp() * last.seen,
            ],
            -1,
        )
        hidden = asked * (1.0 + self.gain(item)) + self.item(item) + self.last(features)
        orders = self._push(item, value, met)
        push = torch.zeros_like(orders) if self.moves_all else orders
        if self.config.trends:
            gone = trends.features(last.trend, last.z).clamp(-MOST_TREND_Z, MOST_TREND_Z)
            hidden = hidden + self.trend(gone * (1.0 + self.trend_gain(item)))
            push = push + (gone * self.pull(item)).sum(-1)
        hidden = hidden + self.mix(self.norm(hidden))
        if self.config.trends:
            hidden = hidden + self.mix_out(self.mix_again(hidden))
        hidden = self.norm_out(hidden)
        out = self.out(hidden) + self.out_item(item)
        seen = last.seen
        if value.ndim == 2:
            item = item.expand(value.shape).flatten()
            hidden, out, push, value = hidden.flatten(0, 1), out.flatten(0, 1), push.flatten(0, 1), value.flatten(0, 1)
            seen, orders = seen.flatten(0, 1), orders.flatten()
        marginal = self._marginal(item, value, seen, push, out)
        return Outcome(
            marginal.moved(torch.where(self.label[item], 0.0, orders)) if self.moves_all else marginal,
            out[:, self.bin_count + 4 : self.bin_count + 4 + self.config.rank] * (~self.label[item]).unsqueeze(-1),
            hidden,
        )

    def _marginal(self, item: Tensor, value: Tensor, seen: Tensor, push: Tensor, out: Tensor) -> Marginal:
        """Of N slots, from their last values on the z scale, what moves their locations, and the head's numbers."""
        moved, log_scale, keep, log_bend = out[:, self.bin_count : self.bin_count + 4].unbind(-1)
        location = torch.sigmoid(keep) * value + moved + push
        edges, label = self.edges[item], self.label[item]
        scale = torch.where(label, LABEL_SCALE, log_scale.clamp(*LOG_SCALE).exp())
        around = bins.Around(location, scale, BEND_UNIT * log_bend.clamp(*LOG_BEND).exp())
        free = out[:, : self.bin_count]
        free = torch.where(label.unsqueeze(-1), free, 0.0) if self.base_alone else free
        log_mass = bins.log_masses(free, around, edges, ~label, self.config.temperature)
        if not self.config.repeats or self.base_alone:
            return Marginal(log_mass, edges, around)
        share = MOST_AGAIN * torch.sigmoid(out[:, -1]) * seen * (~label)
        return Marginal(log_mass, edges, around, Again(share, *self._cell(item, value)))

    def _cell(self, item: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends [N] of what is reported as z, on its scale."""
        scale, half = self.scale[item], 0.5 * self.grid[item]
        report, gridded = from_z(z, scale), half > 0
        low = torch.where(gridded, to_z(report - half, scale), z - 0.5 * CELL_Z)
        high = torch.where(gridded, to_z(report + half, scale), z + 0.5 * CELL_Z)
        return low, torch.maximum(high, low + 1e-3 * CELL_Z)  # at a scale's end a cell may have no width

    def _push(self, item: Tensor, value: Tensor, met: Exposure) -> Tensor:
        """What the interventions move each slot's location by, on the item's scale: [N] or [B, I]."""
        amounts = torch.cat(met._replace(since=met.since.clamp(0.0, MOST_SINCE)), -1)
        push = EFFECT_GAIN * (amounts * self.effect(item)).sum(-1)
        off = SLOPE_GAIN * value.clamp(-MOST_SLOPE_Z, MOST_SLOPE_Z)
        return push + off * (amounts * self.effect_slope(item)).sum(-1)

    def delay_logits(self, hidden: Tensor, item: Tensor, klass: Tensor) -> Tensor:
        """Logits [N, DELAYS] of how many steps later a result comes; `klass` [N]: 1 + a label's class, or 0."""
        return self.delay(hidden) + self.delay_class(item * (1 + self.bin_count) + klass)
