"""EHRWorldModel: a learned hospital stay that answers sets of concurrent orders.

One step: interventions are fed in, every ordered inquiry is answered from a query of the state after them (marginals by
quantile bins, their dependence by a copula), results that are due are charted, the recurrent state takes in the chart,
then death and discharge are sampled. The chart is the ward oracle's: same names, units and bounds.

After EHRWorld (`docs/`): a set of orders in, a set of outcomes out, inquiries apart from interventions. Research
software, trained on a simulator or on few stays: nothing here is a clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from world_models import checkpoint, gradients, keys, tree
from world_models.config_json import from_json
from world_models.ehr_world.charting import ward_chart
from world_models.ehr_world.set_outcome import inference, trends
from world_models.ehr_world.set_outcome.arrivals import admit, blank
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.copula import latent
from world_models.ehr_world.set_outcome.following import follow, join, next_quantiles
from world_models.ehr_world.set_outcome.network import ChartFeatures, Exposure, Outcome, SetOutcome, StepInputs
from world_models.ehr_world.set_outcome.slots import Slots, slots_of
from world_models.ehr_world.set_outcome.state import LOG, EHRState
from world_models.ehr_world.set_outcome.stay_tensors import LAST_DELAY
from world_models.ehr_world.vocabulary import Vocabulary, from_z
from world_models.ehr_world.ward_check import check_vocabulary
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, Fates, History
from world_models.quantities.ward import INQUIRIES, MAX_HOURS_SINCE, MEASURES, ORDERS, STATIC
from world_models.quantity import Quantity

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode

__all__ = ["KIND", "EHRWorldModel"]

KIND = "ehr-set-outcome"
CENTRAL_68 = (0.1587, 0.8413)  # one standard deviation to each side of a normal's middle (k)
LEAST_TAIL = 1e-6  # probabilities at which a value is read off lie this far from 0 and 1
IMPOSSIBLE = -1e9  # a logit


class Chances(NamedTuple):
    """The random numbers of a step: a function of key, step and purpose."""

    own: Tensor  # [B, I] standard normal, of each item
    shared: Tensor  # [B, R] standard normal, of the copula's factors
    delay: Tensor  # [B, I] uniform on (0, 1)
    ends: Tensor  # [B, 2] uniform on (0, 1), of death and of discharge


class Recent(NamedTuple):
    """Interventions of the steps before one, [B, J] in shares of the largest amount."""

    total: Tensor  # of all of them
    before: Tensor  # in the last
    earlier: Tensor  # in the one before that


class EHRWorldModel(nn.Module):
    """The learned ward, form `set_outcome`. Implements `world_models.protocol.LearnedWorld`.

    Raises:
        ValueError: the vocabulary is not that of the ward (`ward_check`): names, units, limits.
    """

    measures: tuple[Quantity, ...] = tuple(q for q in MEASURES if q.name != "diagnosis")
    orders: tuple[Quantity, ...] = ORDERS
    graded_orders = tuple(q.name for q in ORDERS if q.unit != "bool")  # treatments with an amount
    halves = ("bfloat16", "float16")  # see `half.TakesHalf`
    dtype = "float32"
    factors: tuple[Quantity, ...] = (*STATIC, next(q for q in MEASURES if q.name == "complaint"))
    from_config = (  # the vocabulary's tables: weights mean nothing under another
        "bounds",
        "typical",
        "offset_h",
        "whole",
        "net.edges",
        "net.scale",
        "net.label",
        "net.largest",
        "net.static_mean",
        "net.static_sd",
    )

    admissions: Tensor  # [config.admissions, S] static context of training patients
    triage: Tensor  # [I] share of admissions that measure it on arrival
    most_given: Tensor  # [] interventions at once, in training
    bounds: Tensor  # [I, 2] of the chart
    typical: Tensor  # [I] shown while nothing was ever resulted
    offset_h: Tensor  # [I] usual hours from a step's start to the specimen's collection
    whole: Tensor  # bool [I] values are whole numbers
    numbers: Tensor  # int64: items that are no labels

    def __init__(self, config: SetOutcomeConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        check_vocabulary(vocabulary)
        self.config, self.vocabulary, self.name = config, vocabulary, config.name
        self.hours_per_step = vocabulary.hours_per_step
        self.net = SetOutcome(config, vocabulary)
        items = len(vocabulary.items)
        self.register_buffer("admissions", torch.zeros(config.admissions, len(vocabulary.static)))
        self.register_buffer("triage", torch.zeros(items))
        self.register_buffer("most_given", torch.tensor(float(len(vocabulary.treatments))))
        self.register_buffer("bounds", torch.tensor([[i.low, i.high] for i in vocabulary.items]))
        self.register_buffer("typical", torch.tensor([i.typical for i in vocabulary.items]))
        self.register_buffer("offset_h", torch.tensor([i.offset_h for i in vocabulary.items]))
        self.register_buffer("whole", vocabulary.is_whole())
        numbers = [place for place, item in enumerate(vocabulary.items) if not item.labels]
        self.number_names = tuple(INQUIRIES[place].name for place in numbers)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)

    # ---- loading

    @classmethod
    def load(cls, folder: str | Path | checkpoint.Opened, device: torch.device | str = "cpu") -> EHRWorldModel:
        """From a folder with config.json and model.safetensors. One copy of the weights a process and device.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """
        return checkpoint.load_module(folder, KIND, _build, device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the states."""
        return self.typical.device

    # ---- the verbs

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> EHRState:
        """Patients [B] at admission, triage taken. Static context comes from the table of training admissions: a row
        like the given factors [B], which then replace the row's.

        Raises:
            ValueError: a factor is unknown, out of range or of the wrong shape.
        """
        key = key.to(self.device)
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        state = blank(self, key, admit(self, key, given))
        asked = keys.uniform(key, 0, "triage", (len(self.triage),)) < self.triage
        return self._advance(state, asked, state.given, torch.zeros_like(state.t))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: the static context that it holds."""
        return {q.name: chart[q.name].to(self.device, torch.float32) for q in self.factors if q.name in chart}

    @gradients.verb
    def transition(self, state: EHRState, action: Tensor, recorded: bool = False) -> EHRState:
        """One step under `action` [B, A] in the orders' units. `recorded`: they are a record's, not an agent's (see
        `SetOutcomeConfig.recorded_gain`). Raises ValueError: an amount outside its bounds."""
        items = len(self.typical)
        action = checked_orders(self.orders, action, state.key.shape[0], self.device)
        given = action[:, items:]
        here = state.alive & ~state.home
        asked = (action[:, :items] >= 0.5) & ~state.pending & here.unsqueeze(-1)
        moved = self._advance(state, asked, given, state.t + 1, recorded)
        none = moved.total_log[:, :0]  # the longest leaf: already as it was where nobody is
        kept = tree.where(here, moved._replace(total_log=none), state._replace(total_log=none))
        dying, leaving = (torch.where(here, chance, 0.0) for chance in (moved.death_chance, moved.home_chance))
        return kept._replace(total_log=moved.total_log, t=state.t + 1, death_chance=dying, home_chance=leaving)

    @gradients.verb
    def fates(self, before: EHRState, after: EHRState) -> Fates:
        """See `TellsFates`: death, or else discharge."""
        chances = {"alive": after.death_chance, "discharged": after.home_chance * (1.0 - after.death_chance)}
        return Fates(after._replace(alive=before.alive, home=before.home), chances, {"alive": 0.0, "discharged": 1.0})

    def observe(self, state: EHRState, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises ValueError: `also` names something that is no measure of this world."""
        check_also(self.measures, also)
        hours = state.start_h + state.t.to(torch.float32) * self.hours_per_step
        # A chart holds no NaN: what is not known of the context reads as usual.
        plain = torch.where(state.static.isnan(), self.net.usual, state.static)
        return ward_chart(state, plain, hours, state.given / self.net.largest)

    @gradients.verb
    def rekey(self, state: EHRState, key: Tensor) -> EHRState:
        """The same charts with another random stream. Unknown is what is still to come and what specimens on their way
        will say: both are sampled again, given all that is charted by now."""
        return self.resample_pending(state._replace(key=key.to(self.device)))

    @gradients.verb
    def spread(self, state: EHRState) -> dict[str, Tensor]:
        """Half the width [B] of the central 68 % of each number's prediction for a next step without treatment."""
        value = next_quantiles(self, state, CENTRAL_68)
        sd = ((value[..., 1] - value[..., 0]) / 2).clamp_min(0.0)
        return {name: sd[:, i] for i, name in enumerate(self.number_names)}

    @gradients.verb
    def foretold(self, state: EHRState) -> Chart:
        """See `ensemble.Follows`: the median of each number's prediction for a next step without treatment."""
        middle = next_quantiles(self, state, (0.5,))[..., 0]
        return {name: middle[:, i] for i, name in enumerate(self.number_names)}

    def join(self, state: EHRState, shown: EHRState) -> EHRState:
        """See `ensemble.Follows`."""
        return join(self, shown)

    @gradients.verb
    def follow(self, state: EHRState, action: Tensor, shown: EHRState) -> EHRState:
        """See `ensemble.Follows`. Raises ValueError: an amount outside its bounds."""
        action = checked_orders(self.orders, action, state.key.shape[0], self.device)
        return follow(self, state, action[:, len(self.typical) :], shown)

    @gradients.verb
    def support(self, state: EHRState) -> Tensor:
        """bool [B]: static context, length of stay and number of concurrent interventions as training met them."""
        static = state.static
        inside = (((static >= self.net.static_low) & (static <= self.net.static_high)) | static.isnan()).all(-1)
        hours = state.start_h + state.t.to(torch.float32) * self.hours_per_step
        return inside & (hours <= self.config.longest_h) & ((state.given > 0).sum(-1) <= self.most_given)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> EHRState:
        """Belief at the last visit of a recorded course; see `inference.infer`."""
        return inference.infer(self, history, key, checked_factors(self.factors, factors, key.shape[0], self.device))

    @torch.no_grad()
    def infer_stay(self, episode: PatientEpisode, key: Tensor, hours: float | None = None) -> EHRState:
        """Belief about one recorded stay, for every key of `key` [B], at `hours` (None: its end)."""
        return inference.infer_stay(self, episode, key, hours)

    # ---- parts

    def chart_features(self, state: EHRState, step: Tensor) -> ChartFeatures:
        """The chart as features, its ages counted up to `step` [B]."""
        age = (step.unsqueeze(-1) - state.drawn_step).clamp_min(0).to(torch.float32)
        return self.net.chart(state.value, state.seen, age, state.trend)

    def step_inputs(self, state: EHRState, step: Tensor, given: Tensor) -> StepInputs:
        """What the network reads of the step `step` [B] that follows the state, under interventions `given` [B, J]."""
        chart, position = self.chart_features(state, step), step.to(torch.float32) + state.start_h / self.hours_per_step
        return StepInputs(chart, self.net.doses(given), self.net.fixed(state.static, state.diagnosis, position))

    def _total(self, state: EHRState, step: Tensor, row: Tensor) -> Tensor:
        """Amounts [..., J] given to patients `row` up to `step`, int64 [...]; before the admission none were."""
        return state.total_log[row, step.remainder(LOG)] * (step >= 0).unsqueeze(-1)

    def recent(self, state: EHRState, step: Tensor) -> Recent:
        """What patients [B] were given before `step` [B]."""
        everyone = torch.arange(len(step), device=step.device)
        one, two, three = (self._total(state, step - k, everyone) for k in (1, 2, 3))
        return Recent(one, one - two, two - three)

    def exposure(
        self, state: EHRState, step: Tensor, share: Tensor, recent: Recent, row: Tensor, item: Tensor
    ) -> Exposure:
        """What slots (row, item), int64 [...], met when `share` [B, J] is given in step `step` [B]."""
        now = share[row]
        collected = torch.maximum(state.drawn_step[row, item], step[row] - LOG + 2)  # the log reaches no further back
        seen = state.seen[row, item].unsqueeze(-1)
        then = self._total(state, collected, row)
        that = then - self._total(state, collected - 1, row)
        since = recent.total[row] + now - then * seen
        return Exposure(now, recent.before[row], recent.earlier[row], since, now - that * seen)

    def outcomes(
        self, state: EHRState, step: Tensor, given: Tensor, row: Tensor, item: Tensor, recorded: bool = False
    ) -> Outcome:
        """Predictions for slots (row, item), int64 [N], of the step `step` [B] under interventions `given` [B, J];
        `recorded` as in `transition`."""
        met = self.exposure(state, step, given / self.net.largest, self.recent(state, step), row, item)
        met = met.times(self.net.recorded_gain) if recorded else met
        return self.net.outcomes(state.hidden, self.step_inputs(state, step, given), row, item, met)

    def _chances(self, key: Tensor, step: Tensor, name: str) -> Chances:
        """All random numbers of a step, in one pass."""
        items, rank = len(self.typical), self.config.rank
        purposes = ((f"{name}/own", items), (f"{name}/shared", rank), (f"{name}/delay", items), "death", "discharge")
        uniform = keys.uniforms(key, step, purposes)
        own, shared = keys.to_normal(uniform[:, : items + rank]).split([items, rank], -1)
        return Chances(own, shared, *uniform[:, items + rank :].split([items, 2], -1))

    def _sample_values(self, outcome: Outcome, row: Tensor, item: Tensor, chances: Chances) -> Tensor:
        """One value [N] for each slot: correlated within a row by the copula."""
        score = latent(outcome.loading, chances.shared[row], chances.own[row, item])
        u = torch.special.ndtr(score).clamp(LEAST_TAIL, 1 - LEAST_TAIL)
        value = from_z(outcome.marginal.quantile(u), self.net.scale[item])
        value = torch.where(self.whole[item] | self.net.label[item], value.round(), value)
        if self.config.repeats:  # a report said again is the same number
            step = self.net.grid[item]
            value = torch.where(step > 0, (value / step.clamp_min(LEAST_TAIL)).round() * step, value)
        return value.maximum(self.bounds[item, 0]).minimum(self.bounds[item, 1])

    def _sample_delays(
        self, outcome: Outcome, row: Tensor, item: Tensor, value: Tensor, chances: Chances, waited: Tensor | None = None
    ) -> Tensor:
        """Steps [N] until a result comes (beyond LAST_DELAY: never), given that it took longer than `waited` [N]."""
        klass = torch.where(self.net.label[item], value.to(torch.int64) + 1, 0)
        logits = self.net.delay_logits(outcome.hidden, item, klass)
        if waited is not None:
            late = torch.arange(logits.shape[1], device=logits.device) > waited.unsqueeze(-1)
            logits = logits.masked_fill(~late, IMPOSSIBLE)
        mass = torch.softmax(logits, -1)
        point = chances.delay[row, item].unsqueeze(-1)
        return (point >= torch.cumsum(mass, -1)).sum(-1).clamp_max(mass.shape[1] - 1)

    def _advance(self, state: EHRState, asked: Tensor, given: Tensor, step: Tensor, recorded: bool = False) -> EHRState:
        """Position `step` [B]: outcomes of `asked` bool [B, I] under `given`, charting, the recurrent step, the ends.

        The log of amounts stays as it was where nobody is."""
        at = slots_of(asked)
        row, item = at.row, at.item
        share, recent = given / self.net.largest, self.recent(state, step)
        met = self.exposure(state, step, share, recent, row, item)
        met = met.times(self.net.recorded_gain) if recorded else met
        chances, inputs = self._chances(state.key, step, "outcome"), self.step_inputs(state, step, given)
        outcome = self.net.outcomes(state.hidden, inputs, row, item, met)
        value = self._sample_values(outcome, row, item, chances)
        delay = self._sample_delays(outcome, row, item, value, chances)

        state = self._collected(state, asked, step, at, value, delay)
        came = state.pending & (state.pending_due_step <= step.unsqueeze(-1))
        gap = torch.where(step == 0, 0.0, self.hours_per_step).unsqueeze(-1)
        state = self.shown(state, came, state.pending_value, state.pending_drawn_h, state.pending_drawn_step)
        state = state._replace(
            pending=state.pending & ~came,
            given=given,
            since_h=torch.where(given > 0, 0.0, (state.since_h + gap).clamp_max(MAX_HOURS_SINCE)),
            total_log=self._logged(state, step, recent.total + share),
        )
        inputs = inputs._replace(chart=self.chart_features(state, step))
        hidden, ends = self.net.take_in(state.hidden, inputs, came.to(torch.float32), step)
        chance = torch.sigmoid(ends) * (step > 0).unsqueeze(-1)
        dies, leaves = (chances.ends < chance).unbind(-1)
        dying, leaving = chance.unbind(-1)
        state = state._replace(hidden=hidden, alive=~dies, home=leaves & ~dies)
        return state._replace(death_chance=dying, home_chance=leaving)

    def shown(self, state: EHRState, came: Tensor, value: Tensor, drawn_h: Tensor, drawn_step: Tensor) -> EHRState:
        """The state once results `value` [B, I] were charted where `came` (bool [B, I]), collected at `drawn_h`, in the
        step `drawn_step`."""
        trend = state.trend
        if self.config.trends:
            gap = (drawn_step - state.drawn_step).to(torch.float32)
            trend = trends.grown(trend, came, self.net.z_of(value), self.net.z_of(state.value), gap)
        return state._replace(
            value=torch.where(came, value, state.value),
            drawn_h=torch.where(came, drawn_h, state.drawn_h),
            drawn_step=torch.where(came, drawn_step, state.drawn_step),
            seen=state.seen | came,
            trend=trend,
        )

    def _collected(
        self, state: EHRState, asked: Tensor, step: Tensor, at: Slots, value: Tensor, delay: Tensor
    ) -> EHRState:
        """The state with the step's specimens on their way: `value`, `delay` [N] of the slots `at`, those `asked`."""
        begins_h = state.start_h + (step - 1).clamp_min(0).to(torch.float32) * self.hours_per_step
        first = (step == 0).unsqueeze(-1)
        drawn_h = torch.where(first, state.start_h.unsqueeze(-1), begins_h.unsqueeze(-1) + self.offset_h)
        return state._replace(
            pending=at.put(state.pending, delay <= LAST_DELAY),  # a lost specimen is not on its way
            pending_value=at.put(state.pending_value, value),
            pending_drawn_h=torch.where(asked, drawn_h, state.pending_drawn_h),
            pending_drawn_step=torch.where(asked, step.unsqueeze(-1), state.pending_drawn_step),
            pending_due_step=at.put(state.pending_due_step, step[at.row] + delay),
        )

    @staticmethod
    def _logged(state: EHRState, step: Tensor, total: Tensor) -> Tensor:
        """The log of amounts [B, LOG, J] with `total` [B, J] at the step's row, of those who are there."""
        at = (torch.arange(len(step), device=step.device), step.remainder(LOG))
        here = (state.alive & ~state.home).unsqueeze(-1)
        return state.total_log.index_put(at, torch.where(here, total, state.total_log[at]))

    def resample_pending(self, state: EHRState) -> EHRState:
        """What is on its way says something else, and comes at another time, by the state's key."""
        at = slots_of(state.pending)
        row, item = at.row, at.item
        chances = self._chances(state.key, state.t, "pending")
        outcome = self.outcomes(state, state.t, torch.zeros_like(state.given), row, item)
        value = self._sample_values(outcome, row, item, chances)
        sent = state.pending_drawn_step[row, item]
        waited = (state.t[row] - sent).clamp(0, LAST_DELAY - 1)
        delay = self._sample_delays(outcome, row, item, value, chances, waited)
        return state._replace(
            pending_value=at.put(state.pending_value, value),
            pending_due_step=at.put(state.pending_due_step, sent + delay),
        )


def _build(plain: dict[str, Any]) -> EHRWorldModel:
    if "vocabulary" not in plain:
        raise ValueError("it holds no vocabulary; train the world again")
    sizes = {name: value for name, value in plain.items() if name not in ("vocabulary", "guesses")}
    return EHRWorldModel(from_json(SetOutcomeConfig, sizes, "the config"), Vocabulary.from_json(plain["vocabulary"]))
