"""EHRWorldModel: a learned hospital stay that answers sets of concurrent orders.

One step: interventions are fed in, every ordered inquiry is answered from a query of the state after them (marginals by
quantile bins, their dependence by a copula), results that are due are charted, the recurrent state takes in the chart,
then death and discharge are drawn. The chart is the ward oracle's: same names, units and bounds.

After EHRWorld (`docs/`): a set of orders in, a set of outcomes out, inquiries apart from interventions. Research
software, trained on a simulator or on few stays: nothing here is a clinical prediction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from world_models import checkpoint, keys, tree
from world_models.ehr_world import bins
from world_models.ehr_world.config import SetOutcomeConfig
from world_models.ehr_world.copula import latent
from world_models.ehr_world.events import LAST_DELAY
from world_models.ehr_world.set_outcome import Exposure, Known, Outcome, SetOutcome
from world_models.ehr_world.state import LOG, EHRState
from world_models.ehr_world.vocabulary import Vocabulary, from_z
from world_models.oracles.cohorts import check_factors
from world_models.protocol import Chart, Factors, History
from world_models.quantity import Quantity
from world_models.ward_quantities import (
    INQUIRIES,
    INTERVENTIONS,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    MEASURES,
    ORDERS,
    STATIC,
)

if TYPE_CHECKING:
    from world_models.data.episode import PatientEpisode

__all__ = ["KIND", "EHRWorldModel"]

KIND = "ehr-set-outcome"


class EHRWorldModel(nn.Module):
    """The learned ward, form `set_outcome`. Implements `world_models.protocol.Learned`.

    Raises:
        ValueError: the vocabulary is not that of the ward (`ward_quantities`).
    """

    measures: tuple[Quantity, ...] = tuple(q for q in MEASURES if q.name != "diagnosis")
    orders: tuple[Quantity, ...] = ORDERS
    factors: tuple[Quantity, ...] = (*STATIC, next(q for q in MEASURES if q.name == "complaint"))

    def __init__(self, config: SetOutcomeConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        vocabulary.check([q.name for q in INQUIRIES], [q.name for q in INTERVENTIONS], "this version's ward")
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

    # ---- loading

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> EHRWorldModel:
        """From a folder with config.json and model.safetensors. One copy of the weights a process and device.

        Raises:
            ValueError: a folder whose config, vocabulary or weights are not this model's.
        """
        return _loaded(str(folder), checkpoint.sha256(folder), str(device))

    @property
    def device(self) -> torch.device:
        return self.typical.device

    # ---- the verbs

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> EHRState:
        """Patients [B] at admission, triage taken. Static context comes from the table of training admissions: a row
        like the given factors [B] (NaN: not given), which then replace the row's.

        Raises:
            ValueError: a factor is unknown, out of range or of the wrong shape.
        """
        key = key.to(self.device)
        given = {n: v.to(self.device, torch.float32) for n, v in (factors or {}).items()}
        check_factors(given, key.shape[0], self.factors)
        state = self.blank(key, self._admit(key, given))
        asked = keys.uniform(key, 0, "triage", (len(self.triage),)) < self.triage
        return self._advance(state, asked, state.given, torch.zeros_like(state.t))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: the static context that it holds."""
        return {q.name: chart[q.name].to(self.device, torch.float32) for q in self.factors if q.name in chart}

    @torch.no_grad()
    def transition(self, state: EHRState, action: Tensor) -> EHRState:
        """One step under `action` [B, A] in the orders' units; orders outside their bounds are cut to them."""
        items = len(self.typical)
        action = action.to(self.device, torch.float32)
        given = torch.minimum(action[:, items:].clamp_min(0.0), self.net.largest)
        here = state.alive & ~state.home
        asked = (action[:, :items] >= 0.5) & ~state.pending & here.unsqueeze(-1)
        moved = self._advance(state, asked, given, state.t + 1)
        return tree.where(here, moved, state._replace(death_chance=torch.zeros_like(state.death_chance)))._replace(
            t=state.t + 1
        )

    def observe(self, state: EHRState, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises KeyError: `also` names something that is no measure of this world."""
        names = {q.name for q in self.measures}
        unknown = [n for n in also if n not in names]
        if unknown:
            raise KeyError(f"no measure {', '.join(unknown)}; there are: {', '.join(sorted(names))}")
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
        batch, items = state.value.shape
        row = torch.arange(batch, device=self.device).repeat_interleave(items)
        item = torch.arange(items, device=self.device).repeat(batch)
        outcome = self._ask(state, state.t + 1, torch.zeros_like(state.given), row, item)
        ends = outcome.edges.new_tensor([0.1587, 0.8413]).expand(len(row), 2)
        z = bins.quantile(outcome.log_mass.exp(), ends, outcome.edges)
        value = from_z(z, self.net.scale[item].unsqueeze(1))
        sd = ((value[:, 1] - value[:, 0]) / 2).clamp_min(0.0).view(batch, items)
        return {q.name: sd[:, i] for i, q in enumerate(INQUIRIES) if not self.vocabulary.items[i].labels}

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
        from world_models.ehr_world.inference import infer

        return infer(self, history, key, dict(factors or {}))

    @torch.no_grad()
    def infer_stay(self, episode: PatientEpisode, key: Tensor, hours: float | None = None) -> EHRState:
        """Belief about one recorded stay, for every key of `key` [B], at `hours` (None: its end)."""
        from world_models.ehr_world.inference import infer_stay

        return infer_stay(self, episode, key, hours)

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
        return state._replace(hidden=self.net.start(self._fixed(state, state.t)).movedim(0, 1).contiguous())

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

    def _ask(self, state: EHRState, step: Tensor, given: Tensor, row: Tensor, item: Tensor) -> Outcome:
        """Predictions for slots (row, item) of the step `step` [B] under the interventions `given`."""
        known = self.known(state, step)
        p = self.net.fuse(state.hidden[:, -1], known, self.net.doses(given), self._fixed(state, step))
        asked = self.net.ask(p)[row]
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
        total = self._total(state, at - 1, row) + now
        return Exposure(now, total - then * seen, now - that * seen)

    def _draw(self, outcome: Outcome, row: Tensor, item: Tensor, key: Tensor, step: Tensor, luck: str) -> Tensor:
        """One value [N] for each slot: correlated within a row by the copula."""
        items = len(self.typical)
        own = keys.normal(key, step, f"{luck}/own", (items,))[row, item]
        shared = keys.normal(key, step, f"{luck}/shared", (self.config.rank,))[row]
        u = torch.special.ndtr(latent(outcome.loading, shared, own)).clamp(1e-6, 1 - 1e-6)
        z = bins.quantile(outcome.log_mass.exp(), u, outcome.edges)
        value = from_z(z, self.net.scale[item])
        value = torch.where(self.whole[item] | self.net.label[item], value.round(), value)
        return value.maximum(self.bounds[item, 0]).minimum(self.bounds[item, 1])

    def _draw_delay(
        self, outcome: Outcome, row: Tensor, item: Tensor, value: Tensor, key: Tensor, step: Tensor, luck: str, waited: Tensor
    ) -> Tensor:
        """Steps [N] until a result comes (beyond LAST_DELAY: never), given that it took longer than `waited` [N]."""
        klass = torch.where(self.net.label[item], value.to(torch.int64) + 1, 0)
        logits = self.net.delay_logits(outcome.hidden, item, klass)
        late = torch.arange(logits.shape[1], device=self.device) > waited.unsqueeze(-1)
        mass = torch.softmax(logits.masked_fill(~late, -1e9), -1)
        point = keys.uniform(key, step, f"{luck}/delay", (len(self.typical),))[row, item].unsqueeze(-1)
        return (point >= torch.cumsum(mass, -1)).sum(-1).clamp_max(mass.shape[1] - 1)

    def _advance(self, state: EHRState, asked: Tensor, given: Tensor, step: Tensor) -> EHRState:
        """Position `step` [B]: outcomes of `asked` bool [B, I] under `given`, charting, the recurrent step, the ends."""
        row, item = asked.nonzero(as_tuple=True)
        outcome = self._ask(state, step, given, row, item)
        value = self._draw(outcome, row, item, state.key, step, "outcome")
        no_wait = torch.full_like(item, -1)
        delay = self._draw_delay(outcome, row, item, value, state.key, step, "outcome", no_wait)

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
        everyone = torch.arange(len(step), device=self.device)
        total = self._total(state, step - 1, everyone) + given / self.net.largest
        place = step.remainder(LOG).view(-1, 1, 1).expand(-1, 1, total.shape[1])
        state = state._replace(
            total_log=state.total_log.scatter(1, place, total.unsqueeze(1)),
            value=torch.where(came, coming, state.value),
            drawn_h=torch.where(came, coming_h, state.drawn_h),
            drawn_step=torch.where(came, coming_step, state.drawn_step),
            seen=state.seen | came,
            pending=waits & ~came,
            pending_value=coming, pending_drawn_h=coming_h, pending_drawn_step=coming_step, pending_due_step=due,
            given=given, since_h=since,
        )  # fmt: skip
        x = self.net.digest(
            self.known(state, step), came.to(torch.float32), self.net.doses(given), self._fixed(state, step)
        )
        top, hidden = self.net.gru(x.unsqueeze(1), state.hidden.movedim(1, 0).contiguous())
        state = state._replace(hidden=hidden.movedim(0, 1).contiguous())
        chance = torch.sigmoid(self.net.end_logits(top[:, 0], x)) * (step > 0).unsqueeze(-1)
        dies = keys.uniform(state.key, step, "death") < chance[:, 0]
        leaves = (keys.uniform(state.key, step, "discharge") < chance[:, 1]) & ~dies
        return state._replace(alive=~dies, home=leaves, death_chance=chance[:, 0])

    def _redraw_pending(self, state: EHRState) -> EHRState:
        """What is on its way says something else, and comes at another time, by the state's key."""
        row, item = state.pending.nonzero(as_tuple=True)
        outcome = self._ask(state, state.t, torch.zeros_like(state.given), row, item)
        value = self._draw(outcome, row, item, state.key, state.t, "pending")
        sent = state.pending_drawn_step[row, item]
        waited = (state.t[row] - sent).clamp(0, LAST_DELAY - 1)
        delay = self._draw_delay(outcome, row, item, value, state.key, state.t, "pending", waited)
        at = (row, item)
        return state._replace(
            pending_value=state.pending_value.index_put(at, value),
            pending_due_step=state.pending_due_step.index_put(at, sent + delay),
        )


@lru_cache(maxsize=8)
def _loaded(folder: str, sha256: str, device: str) -> EHRWorldModel:
    tensors, config = checkpoint.load(folder, device, expected_sha256=sha256)
    if "vocabulary" not in config:
        raise ValueError(f"{folder} holds no vocabulary; it is no learned ward of this version: train it again")
    words = Vocabulary.from_json(config["vocabulary"])
    known = {f.name for f in dataclasses.fields(SetOutcomeConfig)}
    model = EHRWorldModel(SetOutcomeConfig(**{k: v for k, v in config.items() if k in known}), words)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{folder} does not hold a learned ward of this version ({error}); train it again") from None
    return model.to(device).eval().requires_grad_(False)


