"""A recurrent network with decays, after GRU-D (Che et al. 2018, doi 10.1038/s41598-018-24271-9).

Of every item it reads the last value, drawn to the item's mean the longer ago it was, and whether there is a new one;
its hidden state decays with time too. What is foretold of a step is read off the state before it, the orders of the
step, the patient and the item's own last value and age: three Laplace distributions around a moved last value, and a
share of the mass on the last report's cell. Trained to its plateau on the validation patients at two learning rates,
the better of which is kept; of a share of the stays no result is shown after a random position, so that it foretells
trajectories too. How wide its distributions are is corrected by one factor that the validation patients choose, as is
how sure the worlds are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.common.spent import spending
from benchmarks.people.parts import some
from benchmarks.people.prediction import FINE, Scale, columns, from_quantiles, said_again
from benchmarks.people.slots import Places, grouped
from world_models import tree
from world_models.ehr_world.judging import looked_ahead
from world_models.ehr_world.people import shards
from world_models.ehr_world.records import StayRecords, cut, numbers
from world_models.ehr_world.set_outcome.stay_tensors import Charted, Stays, charted, trim
from world_models.ehr_world.temperature import TEMPERATURES
from world_models.ehr_world.vocabulary import Vocabulary, to_z
from world_models.files import write_text
from world_models.training import Schedule, fit

__all__ = ["RATES", "GRUD", "Recurrent", "train_grud"]

RATES = (3e-3, 1e-3)  # learning rates
HIDDEN, PARTS = 96, 3
AHEAD, EARLY = 0.3, 1.5  # as the worlds on people learn
POSITIONS = 1536  # of a batch, about
STAGE = 500  # steps between two looks at the validation patients
PATIENCE = 3  # looks without a better one: the plateau
JUDGES = 300  # validation stays of a set
LEAST = 0.01  # of a spread, standard deviations
AGE_H = 24.0  # the logarithm of ages is of 1 + hours / AGE_H


class _Said(NamedTuple):
    """Of N places: three Laplace distributions and a share said again."""

    log_share: Tensor  # [N, PARTS] of what is not said again
    middle: Tensor  # [N, PARTS] z
    spread: Tensor  # [N, PARTS]
    again: Tensor  # [N] logit


class GRUD(nn.Module):
    """The network; see the module."""

    scale: Tensor
    high: Tensor
    static: Tensor

    def __init__(self, words: Vocabulary, hidden: int = HIDDEN) -> None:
        super().__init__()
        items, orders = len(words.items), len(words.treatments)
        self.hours, self.wider = words.hours_per_step, 1.0
        self.register_buffer("scale", words.scale_table(), persistent=False)
        self.register_buffer("high", torch.tensor([t.high for t in words.treatments]), persistent=False)
        static = torch.tensor([[s.mean, s.sd] for s in words.static])
        self.register_buffer("static", static, persistent=False)
        width = 2 * len(static)
        self.decay_x = nn.Parameter(torch.full((items,), 0.05))
        self.decay_h = nn.Linear(items, hidden)
        self.start = nn.Linear(width, hidden)
        self.cell = nn.GRUCell(2 * items + orders, hidden)
        self.item = nn.Embedding(items, 32)
        last = nn.Linear(128, 3 * PARTS + 1)
        read = hidden + 2 * orders + width + 32 + 6
        self.query = nn.Sequential(nn.Linear(read, 128), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        with torch.no_grad():  # at first: the last value, seldom said again
            last.bias.copy_(torch.tensor([*[0.0] * PARTS, -0.3, 0.0, 0.3, -1.0, -1.0, 0.5, -2.0]))

    def states(self, stays: Stays, chart: Charted) -> Tensor:
        """[B, T, H] after each position."""
        seen, z = chart.seen, torch.where(chart.seen, to_z(chart.value, self.scale), 0.0)
        age = torch.where(seen, chart.age * self.hours, AGE_H)
        kept = (-softplus(self.decay_x) * age).exp() * z  # towards the mean, 0
        fresh = chart.fresh.float()
        orders = (stays.given / self.high).clamp(0, 1).sqrt()
        read = torch.cat([torch.where(chart.fresh, z, kept), fresh, orders], -1)
        fade = (-torch.relu(self.decay_h((age / AGE_H).log1p()))).exp()
        h, out = torch.tanh(self.start(self.context(stays))), []
        for t in range(z.shape[1]):
            h = self.cell(read[:, t], h * fade[:, t])
            out.append(h)
        return torch.stack(out, 1)

    def context(self, stays: Stays) -> Tensor:
        """[B, 2 S] the patient: known features, and which are."""
        z = (stays.static - self.static[:, 0]) / self.static[:, 1]
        return torch.cat([z.nan_to_num(0.0).clamp(-5, 5), (~z.isnan()).float()], -1)

    def forward(self, stays: Stays, chart: Charted, row: Tensor, place: Tensor, item: Tensor) -> _Said:
        """What is foretold of places [N] from the chart of the position before each."""
        h = self.states(stays, chart)[row, place - 1]
        at = (row, place - 1, item)
        seen = chart.seen[at].float()
        z = torch.where(chart.seen[at], to_z(chart.value[at], self.scale[item]), 0.0)
        hours = (chart.age[at] + 1) * self.hours
        orders = (stays.given / self.high).clamp(0, 1).sqrt()
        own = torch.stack(
            [
                z,
                seen,
                (hours / AGE_H).log1p(),
                (-hours / AGE_H).exp() * z,
                place / 24,
                stays.asked[row, place].float().mean(1),
            ],
            -1,
        )
        past = (orders.cumsum(1)[row, place - 1] / place.unsqueeze(1)).sqrt()
        read = torch.cat([h, orders[row, place], past, self.context(stays)[row], self.item(item), own], -1)
        x = self.query(read)
        share, moved, wide = x[:, : 3 * PARTS].split(PARTS, -1)
        return _Said(
            share.log_softmax(-1),
            z.unsqueeze(-1) + moved,
            self.wider * (LEAST + softplus(wide)),
            x[:, -1] + (seen - 1) * 30.0,
        )


def _log_density(said: _Said, z: Tensor, low: Tensor, high: Tensor, can: Tensor) -> Tensor:
    """[N]; `can` bool [N]: z is in the cell from low to high and may have been said again."""
    d = (z.unsqueeze(-1) - said.middle).abs() / said.spread
    plain = (said.log_share - d - (2 * said.spread).log()).logsumexp(-1) + torch.nn.functional.logsigmoid(-said.again)
    again = torch.nn.functional.logsigmoid(said.again) - (high - low).log()
    return torch.where(can, torch.logaddexp(plain, again), plain)


def _loss(net: GRUD, scale: Scale, words: Vocabulary, part: Stays, shown: Stays) -> Tensor:
    """Mean nats of the numbers of these stays after the admission; `shown` is what is told of them."""
    chart = charted(shown)
    there = numbers(words, part)
    there[:, 0] = False
    row, place, item = there.nonzero(as_tuple=True)
    y, last = part.value[row, place, item], chart.value[row, place - 1, item]
    can = chart.seen[row, place - 1, item] & (scale.grid[item] > 0)
    low, high = scale.cell(last, item)
    z = scale.z(y, item)
    can = can & (z >= low) & (z <= high)
    return -_log_density(net(shown, chart, row, place, item), z.float(), low.float(), high.float(), can).mean()


def _quantiles(said: _Said, rounds: int = 30) -> Tensor:
    """[N, len(FINE)] of the three Laplace distributions, by bisection."""
    middle, spread, share = (x.double().unsqueeze(1) for x in (said.middle, said.spread, said.log_share.exp()))
    reach = 8 * spread.amax(-1)
    low, high = (middle.amin(-1) - reach).expand(-1, len(FINE)), (middle.amax(-1) + reach).expand(-1, len(FINE))
    for _ in range(rounds):
        z = (low + high) / 2
        d = (z.unsqueeze(-1) - middle) / spread
        below = torch.where(d < 0, 0.5 * d.clamp_max(0).exp(), 1 - 0.5 * (-d.clamp_min(0)).exp())
        left = (share * below).sum(-1) < FINE
        low, high = torch.where(left, z, low), torch.where(left, high, z)
    return (low + high) / 2


class Recurrent:
    """A trained network that answers as rivals do."""

    def __init__(self, net: GRUD) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def columns(self, stays: Stays, places: Places, scale: Scale) -> dict[str, Tensor]:
        """As `prediction.columns`; every place has the origin of all, or the position before it."""
        begin = int(places.origin[0]) if len(places.origin) else 0
        one = bool((places.origin == begin).all())
        found: dict[str, Tensor] = {}
        for part, mine, at in grouped(stays, places, 128):
            shown = _hidden_after(part, begin) if one else part
            said = self.net(shown, charted(shown), mine.row, mine.place, mine.item)
            plain = from_quantiles(_quantiles(said), FINE, scale, mine.item)
            marginal = said_again(plain, said.again.sigmoid(), mine.given, scale, mine.item)
            for name, x in columns(marginal, mine.y, mine.item, scale).items():
                found.setdefault(name, torch.empty(len(places.y), *x.shape[1:]))[at] = x
        return found


def _hidden_after(part: Stays, begin: int) -> Stays:
    """The stays with their orders, and the results that were charted by position `begin`."""
    known = cut(part, begin)
    value, delay = torch.full_like(part.value, float("nan")), part.delay.clone()
    value[:, : begin + 1], delay[:, : begin + 1] = known.value, known.delay
    return part._replace(value=value, delay=delay)


def train_grud(
    learn: Sequence[StayRecords], valid: Sequence[StayRecords], words: Vocabulary, folder: Path, steps: int
) -> Recurrent:
    """Each of RATES for at most `steps` steps, or until it stands still on `valid`; the better one. Resumes."""
    scale = Scale(words)
    parts = [shard for records in learn for shard in shards(records.stays, 256)]
    judges = [shard for records in valid for shard in shards(some(records, JUDGES).stays, 128)]
    results: dict[str, dict[str, float]] = {}
    with spending(folder):
        for rate in RATES:
            name = f"rate-{rate:g}"
            path = folder / f"{name}-{steps}.json"
            if not path.exists():
                write_text(path, json.dumps(_train_one(parts, judges, words, scale, folder / name, rate, steps)))
            results[name] = json.loads(path.read_text())
        best = min(results, key=lambda n: results[n]["nll"])
        net = _at(words, folder / best, int(results[best]["stage"]))
        net.wider = _best_width(net, judges, words, scale)
    return Recurrent(net)


@torch.no_grad()
def _best_width(net: GRUD, judges: list[Stays], words: Vocabulary, scale: Scale) -> float:
    """The factor of the spreads at which the numbers of these stays are likeliest, of those that a world may choose."""
    found = {}
    for net.wider in TEMPERATURES:
        found[net.wider] = sum(float(_loss(net, scale, words, j, j)) for j in judges)
    return min(found, key=lambda w: found[w])


def _fresh(words: Vocabulary) -> GRUD:
    """The network with weights of a seed of its own, and its last layer as it was made."""
    with torch.random.fork_rng(devices=[]):
        net = GRUD(words)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.ndim > 1 and bool(p.any()):
                bound = 1.0 if name.startswith("item") else p.shape[1] ** -0.5
                p.uniform_(-bound, bound, generator=generator)
            elif p.ndim == 1 and not name.startswith(("query.2", "decay_x")):
                p.zero_()
    return net


def _at(words: Vocabulary, folder: Path, stage: int) -> GRUD:
    """The network as it was after a stage."""
    net = _fresh(words)
    fit(net, lambda step: (torch.zeros(()), {}), _schedule(0.0), folder, f"stage-{stage}")
    return net


def _schedule(rate: float) -> Schedule:
    return Schedule(STAGE, rate, warm_up=20, weight_decay=1e-3, average=0.995, shape="constant")


def _train_one(
    parts: list[Stays],
    judges: list[Stays],
    words: Vocabulary,
    scale: Scale,
    folder: Path,
    rate: float,
    steps: int,
) -> dict[str, float]:
    """Stages at this rate, halved whenever the validation patients gain nothing, until PATIENCE such."""
    net, best, idle = _fresh(words), {"nll": float("inf"), "stage": -1.0}, 0
    for stage in range(max(1, steps // STAGE)):

        def loss(step: int, first: int = stage * STAGE) -> tuple[Tensor, dict[str, float]]:
            part = _batch(parts, first + step)
            value = _loss(net, scale, words, part, looked_ahead(part, AHEAD, EARLY, first + step, 31))
            return value, {"nll": float(value.detach())}

        fit(net, loss, _schedule(rate * 0.5**idle), folder, f"stage-{stage}")
        with torch.no_grad():
            found = [float(_loss(net, scale, words, j, j)) for j in judges]
        nll = sum(found) / len(found)
        if nll < best["nll"] - 1e-3:
            best, idle = {"nll": nll, "stage": float(stage), "rate": rate}, 0
        else:
            idle += 1
        if idle >= PATIENCE:
            break
    return best | {"stages": float(stage + 1)}


def _batch(parts: list[Stays], step: int) -> Stays:
    """About POSITIONS positions of one shard, a function of the step."""
    generator = torch.Generator().manual_seed(5_000_011 + step)
    weights = torch.tensor([float(p.valid.sum()) for p in parts])
    shard = parts[int(torch.multinomial(weights, 1, generator=generator))]
    count = max(1, min(len(shard.static), POSITIONS // shard.value.shape[1]))
    return trim(tree.take(shard, torch.randperm(len(shard.static), generator=generator)[:count]))
