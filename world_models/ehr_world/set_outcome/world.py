"""EHRWorldModel: a learned hospital stay that answers sets of concurrent orders.

One step: interventions are fed in, every ordered inquiry is answered from a query of the state after them (marginals by
quantile bins, their dependence by a copula), results that are due are charted, the recurrent state takes in the chart,
then death and discharge are drawn. The chart is the ward oracle's: same names, units and bounds.

After EHRWorld (`docs/`): a set of orders in, a set of outcomes out, inquiries apart from interventions. Research
software, trained on a simulator or on few stays: nothing here is a clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from world_models import checkpoint, keys, tree
from world_models.config_json import from_json
from world_models.ehr_world.set_outcome import bins, inference
from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.set_outcome.copula import latent
from world_models.ehr_world.set_outcome.stay_tensors import LAST_DELAY
from world_models.ehr_world.set_outcome.network import Exposure, Known, Outcome, SetOutcome
from world_models.ehr_world.set_outcome.state import LOG, EHRState
from world_models.ehr_world.vocabulary import Vocabulary, from_z
from world_models.ehr_world.ward_check import check_vocabulary
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, History
from world_models.quantities.ward import (
    INQUIRIES,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    MEASURES,
    ORDERS,
    STATIC,
)
from world_models.quantity import Quantity

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode

__all__ = ["KIND", "EHRWorldModel"]

KIND = "ehr-set-outcome"
AT_ONCE = 128  # patients: what a pass over all their items leaves behind then stays in a processor's cache


class Luck(NamedTuple):
    """What a step draws, uniform on (0, 1)."""

    own: Tensor  # [B, I] of each item
    shared: Tensor  # [B, R] of the copula's factors
    delay: Tensor  # [B, I]
    ends: Tensor  # [B, 2] of death and of discharge


class EHRWorldModel(nn.Module):
    """The learned ward, form `set_outcome`. Implements `world_models.protocol.Learned`.

    Raises:
        ValueError: the vocabulary is not that of the ward (`ward`): names, units, limits.
    """

    measures: tuple[Quantity, ...] = tuple(q for q in MEASURES if q.name != "diagnosis")
    orders: tuple[Quantity, ...] = ORDERS
    factors: tuple[Quantity, ...] = (*STATIC, next(q for q in MEASURES if q.name == "complaint"))
    from_config = (  # the vocabulary's tables: weights mean nothing under another
        "bounds", "typical", "offset_h", "whole", "net.edges", "net.scale", "net.label", "net.largest", "net.static_mean",
        "net.static_sd",
    )  # fmt: skip

    def __init__(self, config: SetOutcomeConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        check_vocabulary(vocabulary)
        self.config, self.vocabulary, self.name = config, vocabulary, config.name
        self.hours_per_step = vocabulary.hours_per_step
        self.net = SetOutcome(config, vocabulary)
        items = len(vocabulary.items)
        self.register_buffer("admissions", torch.zeros(config.admissions, len(vocabulary.static)))
        self.register_buffer("triage", torch.zeros(items))  # share of admissions that measure it at the door
        self.register_buffer("most_given", torch.tensor(float(len(vocabulary.treatments))))  # at once, in training
        self.register_buffer("bounds", torch.tensor([[i.low, i.high] for i in vocabulary.items]))
        self.register_buffer("typical", torch.tensor([i.typical for i in vocabulary.items]))
        self.register_buffer("offset_h", torch.tensor([i.offset_h for i in vocabulary.items]))
        self.register_buffer("whole", vocabulary.is_whole())
        numbers = [place for place, item in enumerate(vocabulary.items) if not item.labels]
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
        state = self.blank(key, self._admit(key, given))
        asked = keys.uniform(key, 0, "triage", (len(self.triage),)) < self.triage
        return self._advance(state, asked, state.given, torch.zeros_like(state.t))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: the static context that it holds."""
        return {q.name: chart[q.name].to(self.device, torch.float32) for q in self.factors if q.name in chart}

    @torch.no_grad()
    def transition(self, state: EHRState, action: Tensor) -> EHRState:
        """One step under `action` [B, A] in the orders' units. Raises ValueError: an amount outside its bounds."""
        items = len(self.typical)
        action = checked_orders(self.orders, action, state.key.shape[0], self.device)
        given = action[:, items:]
        here = state.alive & ~state.home
        asked = (action[:, :items] >= 0.5) & ~state.pending & here.unsqueeze(-1)
        moved = self._advance(state, asked, given, state.t + 1)
        rest = {"total_log": moved.total_log[:, :0]}  # the longest leaf: already as it was where nobody is
        kept = tree.where(here, moved._replace(**rest), state._replace(**rest))
        chance = torch.where(here, moved.death_chance, 0.0)
        return kept._replace(total_log=moved.total_log, t=state.t + 1, death_chance=chance)

    def observe(self, state: EHRState, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises ValueError: `also` names something that is no measure of this world."""
        check_also(self.measures, also)
        hours = state.start_h + state.t.to(torch.float32) * self.hours_per_step
        # A chart holds no NaN: what is not known of the context reads as usual.
        plain = torch.where(state.static.isnan(), self.net.usual, state.static)
        chart = {q.name: plain[:, i].clamp(q.low, q.high) for i, q in enumerate(STATIC)}
        chart |= {
            "complaint": plain[:, len(STATIC) :].clamp(0.0, 1.0),
            "hours": hours.clamp(0.0, 10000.0),
            "alive": state.alive.to(torch.float32),
            "discharged": state.home.to(torch.float32),
        }
        chart |= {q.name: state.value[:, i].contiguous() for i, q in enumerate(INQUIRIES)}
        age = torch.where(state.seen, hours.unsqueeze(-1) - state.drawn_h, MAX_AGE_HOURS)
        chart |= {
            "inquiry_age_hours": age.clamp(0.0, MAX_AGE_HOURS),
            "inquiry_seen": state.seen.to(torch.float32),
            "inquiry_pending": state.pending.to(torch.float32),
            "treatment_share": (state.given / self.net.largest).clamp(0.0, 1.0),
            "treatment_age_hours": state.since_h,
        }
        return chart

    @torch.no_grad()
    def rekey(self, state: EHRState, key: Tensor) -> EHRState:
        """The same charts with other luck. Unknown is what is still to come and what specimens on their way will say:
        both are drawn anew, given all that is charted by now."""
        return self._redraw_pending(state._replace(key=key.to(self.device)))

    @torch.no_grad()
    def spread(self, state: EHRState) -> dict[str, Tensor]:
        """Half the width [B] of the central 68 % of each number's prediction for a next step without treatment."""
        parts = [self._spread(tree.take(state, slice(i, i + AT_ONCE))) for i in range(0, len(state.key), AT_ONCE)]
        sd = torch.cat(parts) if parts else state.value[:, self.numbers]
        return {INQUIRIES[item].name: sd[:, i] for i, item in enumerate(self.numbers.tolist())}

    def _spread(self, state: EHRState) -> Tensor:
        """[B, numbers]"""
        item, step, none = self.numbers, state.t + 1, torch.zeros_like(state.given)
        known = self.known(state, step)
        z, seen, age = (x[:, item] for x in known)
        asked = self.net.ask(self._before(state, known, none, self._fixed(state, step))).unsqueeze(1)
        row = torch.arange(len(step), device=self.device).unsqueeze(1).expand(z.shape)
        outcome = self.net.query(asked, item, z, seen, age, self._met(state, step, none, row, item.expand(z.shape)))
        ends = outcome.edges.new_tensor([0.1587, 0.8413]).expand(z.numel(), 2)
        found = bins.quantile(outcome.log_mass.exp(), ends, outcome.edges, outcome.around).unflatten(0, z.shape)
        value = from_z(found, self.net.scale[item].unsqueeze(1))
        return ((value[..., 1] - value[..., 0]) / 2).clamp_min(0.0)

    @torch.no_grad()
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

    def blank(self, key: Tensor, static: Tensor, diagnosis: Tensor | None = None) -> EHRState:
        """Patients [B] of whom nothing but the static context is known, before the admission's own position."""
        batch, items, doses = key.shape[0], len(self.typical), len(self.net.largest)
        zero = torch.zeros(batch, items, device=self.device)
        none, never = zero.bool(), zero.to(torch.int64)
        if diagnosis is None:
            diagnosis = torch.zeros(batch, len(self.vocabulary.diagnoses), device=self.device)
        there = torch.ones(batch, dtype=torch.bool, device=self.device)
        nil = torch.zeros(batch, device=self.device)
        state = EHRState(
            key=key, t=torch.zeros_like(key), start_h=nil, static=static, diagnosis=diagnosis, hidden=zero,
            value=self.typical.expand(batch, -1).clone(), drawn_h=zero, drawn_step=never, seen=none, pending=none,
            pending_value=zero, pending_drawn_h=zero, pending_drawn_step=never, pending_due_step=never,
            given=torch.zeros(batch, doses, device=self.device),
            since_h=torch.full((batch, doses), MAX_HOURS_SINCE, device=self.device),
            total_log=torch.zeros(batch, LOG, doses, device=self.device),
            alive=there, home=~there, death_chance=nil,
        )  # fmt: skip
        return state._replace(hidden=self.net.start(self._fixed(state, state.t)))

    def _admit(self, key: Tensor, given: dict[str, Tensor]) -> Tensor:
        """Static context [B, S]: a row of the table, likelier the nearer it is to what is given."""
        batch = key.shape[0]
        wanted = torch.full((batch, self.admissions.shape[1]), float("nan"), device=self.device)
        for i, q in enumerate(STATIC):
            if q.name in given:
                wanted[:, i] = given[q.name]
        if "complaint" in given:
            wanted[:, len(STATIC) :] = given["complaint"]
        far = (self.admissions - wanted.unsqueeze(1)) / self.net.static_sd  # a third of an SD off is still alike
        weight = torch.exp(-0.5 * (far.nan_to_num(0.0) / 0.33).square().sum(-1).clamp_max(160.0))
        row = keys.categorical(key, 0, "admission", weight)
        return torch.where(wanted.isnan(), self.admissions[row], wanted)

    def _fixed(self, state: EHRState, step: Tensor) -> Tensor:
        diagnosis = state.diagnosis if self.config.with_diagnoses else None
        hours = state.start_h / self.hours_per_step
        return self.net.fixed(state.static, diagnosis, step.to(torch.float32) + hours)

    def known(self, state: EHRState, step: Tensor) -> Known:
        """The chart as features, its ages counted up to `step` [B]."""
        seen = state.seen.to(torch.float32)
        age = (step.unsqueeze(-1) - state.drawn_step).clamp_min(0).to(torch.float32)
        return Known(self.net.z_of(state.value) * seen, seen, age * seen)

    def _before(self, state: EHRState, known: Known, given: Tensor, fixed: Tensor) -> Tensor:
        """p [B, H] of the step that follows the state, under the interventions `given`."""
        return self.net.fuse(self.net.backbone.top(state.hidden), known, self.net.doses(given), fixed)

    def _ask(self, state: EHRState, step: Tensor, given: Tensor, row: Tensor, item: Tensor) -> Outcome:
        """Predictions for slots (row, item) of the step `step` [B] under the interventions `given`."""
        known = self.known(state, step)
        asked = self.net.ask(self._before(state, known, given, self._fixed(state, step)))[row]
        met = self._met(state, step, given / self.net.largest, row, item)
        return self.net.query(asked, item, known.z[row, item], known.seen[row, item], known.age[row, item], met)

    def _total(self, state: EHRState, step: Tensor, row: Tensor) -> Tensor:
        """Amounts [N, J] given up to `step` [N]; before the admission none were."""
        return state.total_log[row, step.remainder(LOG)] * (step >= 0).unsqueeze(-1)

    def _met(self, state: EHRState, step: Tensor, share: Tensor, row: Tensor, item: Tensor) -> Exposure:
        """What slots (row, item) met when `share` [B, J] is given in step `step` [B]."""
        now, at = share[row], step[row]
        drawn = torch.maximum(state.drawn_step[row, item], at - LOG + 2)  # the log reaches no further back
        seen = state.seen[row, item].unsqueeze(-1)
        then = self._total(state, drawn, row)
        that = then - self._total(state, drawn - 1, row)
        late = [self._total(state, at - k, row) for k in (1, 2, 3)]
        return Exposure(now, late[0] - late[1], late[1] - late[2], late[0] + now - then * seen, now - that * seen)

    def _luck(self, key: Tensor, step: Tensor, name: str) -> Luck:
        """All that a step draws, in one pass."""
        items, rank = len(self.typical), self.config.rank
        parts = ((f"{name}/own", items), (f"{name}/shared", rank), (f"{name}/delay", items), "death", "discharge")
        return Luck(*keys.uniforms(key, step, parts).split([items, rank, items, 2], -1))

    def _draw(self, outcome: Outcome, row: Tensor, item: Tensor, luck: Luck) -> Tensor:
        """One value [N] for each slot: correlated within a row by the copula."""
        own, shared = keys.to_normal(luck.own[row, item]), keys.to_normal(luck.shared)[row]
        u = torch.special.ndtr(latent(outcome.loading, shared, own)).clamp(1e-6, 1 - 1e-6)
        z = bins.quantile(outcome.log_mass.exp(), u, outcome.edges, outcome.around)
        value = from_z(z, self.net.scale[item])
        value = torch.where(self.whole[item] | self.net.label[item], value.round(), value)
        return value.maximum(self.bounds[item, 0]).minimum(self.bounds[item, 1])

    def _draw_delay(
        self, outcome: Outcome, row: Tensor, item: Tensor, value: Tensor, luck: Luck, waited: Tensor | None = None
    ) -> Tensor:
        """Steps [N] until a result comes (beyond LAST_DELAY: never), given that it took longer than `waited` [N]."""
        klass = torch.where(self.net.label[item], value.to(torch.int64) + 1, 0)
        logits = self.net.delay_logits(outcome.hidden, item, klass)
        if waited is not None:
            late = torch.arange(logits.shape[1], device=self.device) > waited.unsqueeze(-1)
            logits = logits.masked_fill(~late, -1e9)
        mass = torch.softmax(logits, -1)
        point = luck.delay[row, item].unsqueeze(-1)
        return (point >= torch.cumsum(mass, -1)).sum(-1).clamp_max(mass.shape[1] - 1)

    def _advance(self, state: EHRState, asked: Tensor, given: Tensor, step: Tensor) -> EHRState:
        """Position `step` [B]: outcomes of `asked` bool [B, I] under `given`, charting, the recurrent step, the ends.

        The log of amounts stays as it was where nobody is."""
        row, item = asked.nonzero(as_tuple=True)
        luck = self._luck(state.key, step, "outcome")
        share, fixed = given / self.net.largest, self._fixed(state, step)
        outcome = self._ask(state, step, given, row, item)
        value = self._draw(outcome, row, item, luck)
        delay = self._draw_delay(outcome, row, item, value, luck)

        begins_h = state.start_h + (step - 1).clamp_min(0).to(torch.float32) * self.hours_per_step
        first = (step == 0).unsqueeze(-1)
        drawn_h = torch.where(first, state.start_h.unsqueeze(-1), begins_h.unsqueeze(-1) + self.offset_h)
        at = (row, item)
        held = delay <= LAST_DELAY  # a lost specimen is not on its way
        waits = state.pending.index_put(at, held)
        due = state.pending_due_step.index_put(at, step[row] + delay)
        coming = state.pending_value.index_put(at, value)
        coming_h = torch.where(asked, drawn_h, state.pending_drawn_h)
        coming_step = torch.where(asked, step.unsqueeze(-1), state.pending_drawn_step)
        came = waits & (due <= step.unsqueeze(-1))
        gap = torch.where(step == 0, 0.0, self.hours_per_step).unsqueeze(-1)
        since = torch.where(given > 0, 0.0, (state.since_h + gap).clamp_max(MAX_HOURS_SINCE))
        everyone, place = torch.arange(len(step), device=self.device), step.remainder(LOG)
        total = self._total(state, step - 1, everyone) + share
        here = (state.alive & ~state.home).unsqueeze(-1)
        total = torch.where(here, total, state.total_log[everyone, place])
        state = state._replace(
            total_log=state.total_log.index_put((everyone, place), total),
            value=torch.where(came, coming, state.value),
            drawn_h=torch.where(came, coming_h, state.drawn_h),
            drawn_step=torch.where(came, coming_step, state.drawn_step),
            seen=state.seen | came,
            pending=waits & ~came,
            pending_value=coming, pending_drawn_h=coming_h, pending_drawn_step=coming_step, pending_due_step=due,
            given=given, since_h=since,
        )  # fmt: skip
        x = self.net.digest(self.known(state, step), came.to(torch.float32), self.net.doses(given), fixed)
        top, hidden = self.net.backbone.step(x, state.hidden, step)
        chance = torch.sigmoid(self.net.end_logits(top, x)) * (step > 0).unsqueeze(-1)
        dies, leaves = (luck.ends < chance).unbind(-1)
        return state._replace(hidden=hidden, alive=~dies, home=leaves & ~dies, death_chance=chance[:, 0])

    def _redraw_pending(self, state: EHRState) -> EHRState:
        """What is on its way says something else, and comes at another time, by the state's key."""
        row, item = state.pending.nonzero(as_tuple=True)
        luck = self._luck(state.key, state.t, "pending")
        outcome = self._ask(state, state.t, torch.zeros_like(state.given), row, item)
        value = self._draw(outcome, row, item, luck)
        sent = state.pending_drawn_step[row, item]
        waited = (state.t[row] - sent).clamp(0, LAST_DELAY - 1)
        delay = self._draw_delay(outcome, row, item, value, luck, waited)
        at = (row, item)
        return state._replace(
            pending_value=state.pending_value.index_put(at, value),
            pending_due_step=state.pending_due_step.index_put(at, sent + delay),
        )


def _build(plain: dict[str, Any]) -> EHRWorldModel:
    if "vocabulary" not in plain:
        raise ValueError("it holds no vocabulary; train the world again")
    sizes = {name: value for name, value in plain.items() if name not in ("vocabulary", "guesses")}
    return EHRWorldModel(from_json(SetOutcomeConfig, sizes, "the config"), Vocabulary.from_json(plain["vocabulary"]))
