"""CausalWard: the paper's causal language model as a ward world.

A step: what was ordered is sent away, with a delay drawn from the frequencies of training; the model is told the
interventions and the specimens sent, and writes the outcome of every inquiry that comes back, then how the stay goes
on, in the form it was trained on (`narratives`). What was written is what the chart shows. Outcomes of a step depend on
each other as the chain of tokens makes them.

After EHRWorld (section 4). Research software, trained on a simulator: nothing here is a clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ehr_world.causal_lm.model import CausalLM
from world_models.ehr_world.causal_lm.text import STATUS, STATUSES, AskedItem, Narrative, NarrativeStep
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.causal_lm.ward import folder as folders
from world_models.ehr_world.causal_lm.ward import recorded
from world_models.ehr_world.causal_lm.ward.config import CausalWardConfig
from world_models.ehr_world.causal_lm.ward.fit import cache_shape, check_fits, known_inquiries, room_for
from world_models.ehr_world.causal_lm.ward.forecast import Forecast
from world_models.ehr_world.causal_lm.ward.narratives import step_of
from world_models.ehr_world.causal_lm.ward.state import CausalWardState, blank
from world_models.ehr_world.causal_lm.ward.stream import Stream, closed, opened, shortened, tokens_of, written
from world_models.ehr_world.causal_lm.ward.tables import Tables
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_static
from world_models.ehr_world.charting import ward_chart
from world_models.ehr_world.set_outcome.arrivals import alike, static_context
from world_models.ehr_world.set_outcome.stay_tensors import LAST_DELAY
from world_models.ehr_world.vocabulary import collection_share
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, History
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, MAX_HOURS_SINCE, MEASURES, ORDERS, ORGANISMS, STATIC
from world_models.quantity import Quantity
from world_models.sealed import Opened

__all__ = ["CausalWard"]

LONG = 64  # tokens to be fed: rows with more are read apart, or all rows would be as wide
_ITEM = {q.name: i for i, q in enumerate(INQUIRIES)}


class CausalWard:
    """A causal language model as a ward. Implements `world_models.protocol.LearnedWorld`.

    Raises:
        ValueError: a vocabulary without the status, or a window that the fullest step does not fit.
    """

    measures: tuple[Quantity, ...] = tuple(q for q in MEASURES if q.name != "diagnosis")
    orders: tuple[Quantity, ...] = ORDERS
    factors: tuple[Quantity, ...] = (*STATIC, next(q for q in MEASURES if q.name == "complaint"))

    def __init__(self, lm: CausalLM, tables: Tables, config: CausalWardConfig, seal: str | None = None) -> None:
        self.lm, self.config, self.weights_sha256 = lm, config, seal
        self.name, self.hours_per_step, self.device = config.name, config.hours_per_step, torch.device(lm.device)
        self.tables = tree.to(tables, self.device)
        self.answers = known_inquiries(lm.codec).to(self.device)
        check_fits(lm, config, self.answers)
        self._shape = cache_shape(lm) if config.cache else ()
        self._sd = self.tables.sd
        self._by = self.tables.delay.cumsum(-1)  # chance that a result has come by then
        self._low, self._high = self._static_range()
        self._bounds = torch.tensor([[float(q.low), float(q.high)] for q in INQUIRIES], device=self.device)
        share = torch.tensor([collection_share(q.kind) for q in INQUIRIES], device=self.device)
        self._offset_h = share * config.hours_per_step
        self._largest = torch.tensor([float(q.high) for q in INTERVENTIONS], device=self.device)
        self.forecast = Forecast(lm.codec, self.device) if isinstance(lm.codec, QuantileCodec) else None

    @classmethod
    def load(cls, folder: str | Path | Opened, device: str = "cpu") -> CausalWard:
        """From a folder of `folder.write`.

        Raises:
            FileNotFoundError, ValueError: see `folder.opened`, `CausalLM.from_folder` and the class.
        """
        if not isinstance(folder, Opened):
            with folders.opened(folder) as found:
                return cls.load(found, device)
        config, tables = folders.configured(folder), folders.tables_in(folder)
        return cls(CausalLM.from_folder(folder.folder, device), tables, config, folder.sha256)

    # ---- the verbs

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> CausalWardState:
        """Patients [B] at admission, triage taken: like a training patient with the given factors.

        Raises:
            ValueError: a factor is unknown, out of range or of the wrong shape.
        """
        key = key.to(self.device)
        given = checked_factors(self.factors, factors, len(key), self.device)
        static = alike(self.tables.admissions, self._sd, key, static_context(given, len(key), self.device))
        state = self.unmeasured(
            key, static, [Narrative(facts_of_static(row), (), self.hours_per_step) for row in static]
        )
        asked = keys.uniform(key, 0, "causal_ward/triage", (len(INQUIRIES),)) < self.tables.triage
        parts = [
            self._advance(tree.take(state, rows), asked[rows], state.given[rows], torch.zeros_like(rows))
            for rows in torch.arange(len(key), device=self.device).split(self.config.at_once)
        ]
        return tree.cat(parts) if parts else state

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: the static context that it holds."""
        return {q.name: chart[q.name].to(self.device, torch.float32) for q in self.factors if q.name in chart}

    @torch.no_grad()
    def transition(self, state: CausalWardState, action: Tensor) -> CausalWardState:
        """One step under `action` [B, A] in the orders' units. Raises ValueError: an amount outside its bounds."""
        items = len(INQUIRIES)
        action = checked_orders(self.orders, action, len(state.key), self.device)
        here = (state.alive & ~state.home).nonzero()[:, 0]
        parts = []
        for rows in here.split(self.config.at_once) if len(here) else ():
            some, orders = tree.take(state, rows), action[rows]
            asked = (orders[:, :items] >= 0.5) & ~some.pending
            parts.append(self._advance(some, asked, orders[:, items:], some.t + 1))
        later = state._replace(t=state.t + 1)  # where nobody is any more, the chart stands still
        if not parts:
            return later
        return tree.cat(parts) if len(here) == len(state.key) else tree.put(later, here, tree.cat(parts))

    def observe(self, state: CausalWardState, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises ValueError: `also` names something that is no measure of this world."""
        check_also(self.measures, also)
        hours = state.start_h + state.t.to(torch.float32) * self.hours_per_step
        usual = self.tables.admissions.nanmean(0).nan_to_num(0.0)  # what is not known of a patient reads as usual
        static = torch.where(state.static.isnan(), usual, state.static)
        return ward_chart(state, static, hours, state.given / self._largest)

    @torch.no_grad()
    def rekey(self, state: CausalWardState, key: Tensor) -> CausalWardState:
        """The same charts with another random stream: of what is on its way, nothing but that it is was ever drawn,
        and when it comes is drawn again, given that it has not come yet."""
        return self.resent(state._replace(key=key.to(self.device)))

    def spread(self, state: CausalWardState) -> dict[str, Tensor]:
        """Standard deviation [B] of the forecast that each charted number was drawn from; of one that nobody foretold,
        that of the training values. Of a model that writes text nothing is said."""
        numbers = () if self.forecast is None else self.forecast.numbers
        return {INQUIRIES[i].name: state.sd[:, i] for i in numbers if INQUIRIES[i].kind != "culture"}

    def support(self, state: CausalWardState) -> Tensor:
        """bool [B]: static context, length of stay and number of concurrent interventions as training met them."""
        inside = (((state.static >= self._low) & (state.static <= self._high)) | state.static.isnan()).all(-1)
        hours = state.start_h + state.t.to(torch.float32) * self.hours_per_step
        return inside & (hours <= self.config.longest_h) & ((state.given > 0).sum(-1) <= self.config.most_given)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> CausalWardState:
        """The stay of a recorded course told to the model; see `recorded.infer`."""
        return recorded.infer(self, history, key, checked_factors(self.factors, factors, len(key), self.device))

    # ---- parts

    def unmeasured(self, key: Tensor, static: Tensor, told: Sequence[Narrative]) -> CausalWardState:
        """Patients [B] with an empty chart, their stays [B] told."""
        prior = torch.zeros(len(INQUIRIES), device=self.device) if self.forecast is None else self.forecast.prior
        pieces = [tokens_of(self.lm.codec, narrative) for narrative in told]
        return blank(key, static, prior, written(pieces, self.config.window, self._shape, self.device))

    def resent(self, state: CausalWardState) -> CausalWardState:
        """When what is on its way comes back, drawn by the state's key, given that it has not come by now."""
        waited = (state.t.unsqueeze(-1) - state.sent).clamp(0, LAST_DELAY)
        by = self._by.expand(len(waited), -1, -1)
        past, end = by.gather(-1, waited.unsqueeze(-1)), by[..., LAST_DELAY : LAST_DELAY + 1]
        u = keys.uniform(state.key, state.t, "causal_ward/again", (len(INQUIRIES),)).unsqueeze(-1)
        late = (past + u * (end - past) >= by[..., : LAST_DELAY + 1]).sum(-1).clamp_max(LAST_DELAY)
        due = torch.maximum(state.sent + late, state.t.unsqueeze(-1) + 1)
        return state._replace(due=torch.where(state.pending, due, state.due))

    def _advance(self, state: CausalWardState, asked: Tensor, given: Tensor, step: Tensor) -> CausalWardState:
        """The state at `step` [B], after inquiries `asked` bool [B, I] and interventions `given` [B, J]."""
        u = keys.uniform(state.key, step, "causal_ward/delay", (len(INQUIRIES),)).unsqueeze(-1)
        delay = (u >= self._by[:, :-1]).sum(-1)
        leaves = asked & (delay <= LAST_DELAY) & self.answers
        now = step.unsqueeze(-1)
        sent, due = torch.where(leaves, now, state.sent), torch.where(leaves, now + delay, state.due)
        pending = state.pending | leaves
        came = pending & (due <= now)
        stream, value, sd, ends = self._written(state, came, leaves & ~came, given, step)
        result = came & ~value.isnan()
        begins_h = state.start_h.unsqueeze(-1) + (sent - 1).clamp_min(0) * self.hours_per_step
        drawn_h = begins_h + torch.where(sent > 0, self._offset_h, 0.0)
        gap = torch.where(now > 0, self.hours_per_step, 0.0)
        return state._replace(
            t=step,
            value=torch.where(result, value, state.value),
            drawn_h=torch.where(result, drawn_h, state.drawn_h),
            seen=state.seen | result,
            pending=pending & ~came,
            sent=sent,
            due=due,
            given=given,
            since_h=torch.where(given > 0, 0.0, (state.since_h + gap).clamp_max(MAX_HOURS_SINCE)),
            alive=ends != STATUSES.index("died"),
            home=ends == STATUSES.index("discharged"),
            sd=torch.where(result, sd, state.sd),
            stream=stream,
        )

    def _written(
        self, state: CausalWardState, came: Tensor, sent: Tensor, given: Tensor, step: Tensor
    ) -> tuple[Stream, Tensor, Tensor, Tensor]:
        """What the model writes of a step: the stays with it, values [B, I] (NaN: none), standard deviations [B, I] of
        the forecasts, and int64 [B] how the stay goes on, as an index of STATUSES."""
        steps = [
            step_of(number, [AskedItem(INQUIRIES[i].name) for i in back], [INQUIRIES[i].name for i in out], amounts)
            for number, back, out, amounts in zip(
                step.tolist(), _columns(came), _columns(sent), given.tolist(), strict=True
            )
        ]
        room = [room_for(self.lm.codec, one, self.hours_per_step) for one in steps]
        stream = shortened(state.stream, torch.tensor(room, dtype=torch.int64, device=self.device))
        stream = self._caught_up(stream, state.key, step - 1)
        sd = state.sd.clone()

        def watch(items: list[str | None], chance: Tensor) -> None:
            at = [(row, _ITEM[item]) for row, item in enumerate(items) if item in _ITEM]
            at = [(row, i) for row, i in at if self.forecast is not None and i in self.forecast.numbers]
            if at and self.forecast is not None:
                rows, columns = (torch.tensor(x, device=self.device) for x in zip(*at, strict=True))
                sd[rows, columns] = self.forecast.sd([i for _, i in at], chance[rows])

        read, done = self.lm.step(
            opened(stream, state.key, step - 1), steps, self.hours_per_step, self.config.temperature, watch
        )
        value = torch.full(state.value.shape, float("nan"))
        ends = [_results(one, value[row]) for row, one in enumerate(done)]
        return closed(read, stream, step), self._reported(value.to(self.device)), sd, torch.tensor(ends).to(step)

    def _caught_up(self, stream: Stream, key: Tensor, t: Tensor) -> Stream:
        """The stream with its long unread rows read, where others have little to read."""
        waiting = stream.length - stream.fed
        rows = (waiting > LONG).nonzero()[:, 0]
        if not stream.cache or len(rows) in (0, len(key)):
            return stream
        some = tree.take(stream, rows)
        read, _ = self.lm.feed(opened(some, key[rows], t[rows]))
        return tree.put(stream, rows, closed(read, some, t[rows]))

    def _reported(self, value: Tensor) -> Tensor:
        """Values [B, I] on the grid on which they are reported, within the chart's bounds; NaN stays."""
        grid = self.tables.grid
        on = torch.where(grid > 0, (value / grid.clamp_min(1e-6)).round() * grid, value)
        return torch.maximum(torch.minimum(on, self._bounds[:, 1]), self._bounds[:, 0])

    def _static_range(self) -> tuple[Tensor, Tensor]:
        """Least and greatest [S] static context of training."""
        rows, known = self.tables.admissions, ~self.tables.admissions.isnan()
        return torch.where(known, rows, torch.inf).amin(0), torch.where(known, rows, -torch.inf).amax(0)


def _columns(which: Tensor) -> list[list[int]]:
    """The places that are true, of each row."""
    return [[i for i, on in enumerate(row) if on] for row in which.tolist()]


def _results(step: NarrativeStep, value: Tensor) -> int:
    """Writes a step's outcomes into `value` [I]; how the stay goes on, as an index of STATUSES."""
    end = 0
    for asked in step.asked:
        if asked.item == STATUS:
            end = STATUSES.index(asked.label) if asked.label in STATUSES else 0
        elif asked.label in ORGANISMS:
            value[_ITEM[asked.item]] = float(ORGANISMS.index(asked.label))
        elif asked.value is not None and asked.unit == INQUIRIES[_ITEM[asked.item]].unit:
            value[_ITEM[asked.item]] = asked.value
    return end
