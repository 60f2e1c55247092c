"""Training on all open sets of recorded stays together: `python -m world_models.ehr_world.train --source people`.

Each set is divided once (`people`): patients to learn from, to choose by, and to judge by; the last two are in neither
the vocabulary nor the weights. The set a stay is from is part of its context, hidden from a share of the stays so that
the world can be asked about a hospital it does not know. Some results are hidden while learning, so that a world must
live without the last value (`judging.looked_ahead`) and without the item's neighbours.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models import keys, tree
from world_models.ehr_world.episode_tensors import real_vocabulary
from world_models.ehr_world.feeder import join, schedule
from world_models.ehr_world.finish import finish
from world_models.ehr_world.judging import compare, looked_ahead
from world_models.ehr_world.people import (
    cohorts_in,
    divided,
    read_cohort,
    shards,
    undiagnosed,
    with_sources,
)
from world_models.ehr_world.records import guesses_of
from world_models.ehr_world.set_outcome.losses import stay_losses
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, pad, trim
from world_models.ehr_world.train_ends import learn_ends
from world_models.ehr_world.train_orders import learn_effects, learn_uncharted, unread
from world_models.ehr_world.vocabulary import SOURCE_PREFIX, Vocabulary
from world_models.training import fit

__all__ = ["Learned", "People", "PeopleFeed", "PeopleRecipe", "finish_people", "learn_from_simulated", "people_words"]
__all__ += ["read_people", "settle_effects", "tune_people"]

SHARD = 256  # stays of about one length
_EPOCHS_APART = 100_003


@dataclass(frozen=True)
class PeopleRecipe:
    """How a world is fitted to the open sets. The defaults were chosen on the patients kept to choose by."""

    steps: int = 3000
    rate: float = 2e-3
    positions: int = 1024  # of a batch, about
    weight_decay: float = 5e-2
    average: float = 0.998
    hide: float = 0.2  # share of a stay's item columns left out
    ahead: float = 0.5  # share of stays of which no result is shown after a random position
    early: float = 1.5  # above 1 that position comes early
    untold: float = 0.5  # share of stays whose source is not told
    undiagnosed: float = 0.7  # share of stays whose discharge diagnoses are not told, where the record has them
    polish: int = 3000  # steps of a second cosine from the averaged weights, with less hidden
    effects: int = 1500  # steps on simulated stays, for what orders do
    uncharted: int = 400  # and for results that no record holds
    ends: int = 600  # on both, for how stays end
    settle: int = 200  # steps of the gains of effects

    def polishing(self) -> PeopleRecipe:
        """The second cosine: lower, and nearer to how the world is asked."""
        return dataclasses.replace(
            self, steps=self.polish, rate=0.5 * self.rate, weight_decay=1e-2, hide=0.1, ahead=0.3, untold=0.3
        )


class Learned(NamedTuple):
    """Stays of one set to learn from, in shards; `ends` and `often` as in `Cohort`."""

    shards: list[Stays]
    ends: bool
    often: float = 1.0


class People(NamedTuple):
    """The open sets, ready to learn from."""

    words: Vocabulary
    sets: dict[str, Learned]
    valid: dict[str, Stays]
    patients: dict[str, tuple[int, int]]  # of a set: who is learned from, who is chosen by
    attributions: list[str]


def read_people(folder: Path, base: Vocabulary, hours_per_step: float, work: Path) -> People:
    """The parts to learn from and to choose by of every set that is there, on a vocabulary made of the first.

    Raises:
        FileNotFoundError: none is there.
        ValueError (EhrDataError, UnitError): files that cannot be read.
    """
    cohorts = [c for c in cohorts_in(folder) if c.learn > 0]
    names = [c.name for c in cohorts]
    plain = with_sources(dataclasses.replace(base, hours_per_step=hours_per_step), names)
    sets, valid, patients = {}, {}, {}
    for cohort in cohorts:
        parts = divided(cohort, read_cohort(cohort, folder, plain, work, diagnoses=True))
        sets[cohort.name] = Learned(shards(parts["learn"].stays, SHARD), cohort.ends, cohort.often)
        valid[cohort.name] = trim(undiagnosed(parts["valid"]).stays)
        learn, chosen = (len(parts[name].subject.unique()) for name in ("learn", "valid"))
        patients[cohort.name] = (learn, chosen)
    words = people_words(base, [s for x in sets.values() for s in x.shards], names, hours_per_step)
    return People(words, sets, valid, patients, [c.attribution for c in cohorts])


def people_words(base: Vocabulary, stays: Sequence[Stays], sources: Sequence[str], hours_per_step: float) -> Vocabulary:
    """The ward's items with bins, scales and grids from these stays, in steps of this width."""
    known = dataclasses.replace(base, hours_per_step=hours_per_step)
    width = len(known.static)
    plain = [s._replace(static=s.static[:, :width]) for s in stays]
    return with_sources(real_vocabulary(known, plain), sources)


class PeopleFeed:
    """Batches of about `positions` positions, each of stays of one set and about one length, as a function of the step.

    A set is met as often as its positions weigh, times its `often`.
    """

    def __init__(self, sets: Mapping[str, Learned], positions: int, seed: int = 0) -> None:
        self.seed, self.sets = seed, sets
        self.batches: list[tuple[str, int, int]] = []  # set, shard, stays of a batch
        for name, learned in sets.items():
            for i, shard in enumerate(learned.shards):
                size = max(1, min(len(shard.static), positions // shard.value.shape[1]))
                times = max(1, round(learned.often * len(shard.static) / size))
                self.batches += [(name, i, size)] * times
        self._order = lru_cache(maxsize=2)(self._epoch)

    def __call__(self, step: int) -> tuple[Stays, bool]:
        """The stays of a step, and whether their ends are told."""
        epoch, place = divmod(step, len(self.batches))
        name, number, size = self.batches[self._order(epoch)[place]]
        shard = self.sets[name].shards[number]
        pick = torch.randperm(len(shard.static), generator=torch.Generator().manual_seed(self.seed * 7919 + step))
        return trim(tree.take(shard, pick[:size])), self.sets[name].ends

    def _epoch(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * _EPOCHS_APART + epoch)
        return torch.randperm(len(self.batches), generator=generator).tolist()


def hidden(stays: Stays, recipe: PeopleRecipe, names: Sequence[str], step: int, seed: int) -> Stays:
    """Whole item columns of some stays left out, the source of some untold and the diagnoses of others; `names` [S] of
    the static features. Simulated stays always tell that they are: else a hospital that nobody knows, whose patients
    get many orders, would be foretold as surely as a simulator."""
    batch, _, items = stays.value.shape
    key = keys.from_seed(seed, batch)
    keep = keys.uniform(key, step, "hide", (items,)) >= recipe.hide
    untold, undiagnosed = (keys.uniform(key, step, name).unsqueeze(-1) for name in ("untold", "undiagnosed"))
    sources = torch.tensor([name.startswith(SOURCE_PREFIX) for name in names])
    static = torch.where((untold < recipe.untold) & sources, float("nan"), stays.static)
    diagnosis = torch.where(undiagnosed < recipe.undiagnosed, float("nan"), stays.diagnosis)
    return stays._replace(asked=stays.asked & keep.unsqueeze(1), static=static, diagnosis=diagnosis)


def tune_people(
    net: SetOutcome, sets: Mapping[str, Learned], recipe: PeopleRecipe, folder: Path, stage: str, seed: int = 0
) -> None:
    """Fit to the sets; leaves the averaged weights in the net. Goes on where an earlier run in `folder` stopped."""
    feed = PeopleFeed(sets, recipe.positions, seed)
    names = [s.name for s in net.vocabulary.static]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        stays, ends = feed(step)
        part = hidden(stays, recipe, names, step, 7_000 + seed)
        shown = looked_ahead(part, recipe.ahead, recipe.early, step, 9_000 + seed)
        found = stay_losses(net, part, float(recipe.positions), shown)
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        return found.total(ends), metrics

    plan = schedule(recipe.steps, recipe.rate, recipe.weight_decay, save_every_s=60.0, average=recipe.average)
    fit(net, loss, plan, folder, stage)


def settle_effects(net: SetOutcome, valid: Mapping[str, Stays], recipe: PeopleRecipe, folder: Path) -> None:
    """One gain for each intervention on its straight effects, as records show them, fitted with all else as it is.

    What an order does to the oracle's patients, or to a few hundred stays learned by heart, is more than what the same
    order goes with on other people's charts, where it is given because of what it prevents. The gains, 0 to 1, hold for
    recorded orders alone (`SetOutcomeConfig.recorded_gain`); an agent's orders act in full. They are fitted to the
    patients kept to choose by: on those learned from nothing is seen of that. An order that their records do not hold
    keeps the gain it began with.
    """
    sets = {name: Learned(shards(stays, SHARD), False) for name, stays in valid.items()}
    treated = {name: of for name, of in sets.items() if any(bool((s.given > 0).any()) for s in of.shards)}
    if not treated:
        return
    feed = PeopleFeed(treated, recipe.positions, seed=2)
    gain = torch.nn.Parameter(torch.full_like(net.largest, GAIN_START))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        net.recorded_gain = gain.clamp(0.0, 1.0)
        stays, _ = feed(step)
        found = stay_losses(net, stays, float(recipe.positions))
        return found.value, {"value": float(found.value.detach()), "gain": float(gain.detach().mean())}

    plan = schedule(recipe.settle, GAIN_RATE, 0.0, save_every_s=60.0, average=0.9)
    fit(net, loss, plan, folder, "settle", parameters=[gain])
    net.recorded_gain = gain.detach().clamp(0.0, 1.0)
    told = tuple(round(float(x), 4) for x in net.recorded_gain)
    net.config = dataclasses.replace(net.config, recorded_gain=told)


GAIN_START, GAIN_RATE = 0.3, 0.05
FIRST_POSITIONS = 13  # of the stays that the table of admissions and the guesses are made of
GUESSED_FROM = 3000  # stays
FEWEST = 100  # results of an item, or stays that tell a feature, for people to teach what it means

SOURCE = """{told}.
{taught}Patients (in eICU: hospitals) were divided once, by a sum of the source and their number
(`world_models.ehr_world.people`); the rest are test data, as is all of both MIMIC demos. A result counts as charted in
the step of its draw. Of static context a record tells age and sex, and where it is coded chronic conditions; which set
a stay is from is a feature of its own, untold for {untold:.0%} of the stays while learning.

Attribution. These weights were made from:
{attributions}.
What is made from the eICU demo is available under the Open Data Commons Open Database License 1.0,
https://opendatacommons.org/licenses/odbl/1-0/. PhysioNet: Goldberger et al. 2000, Circulation 101(23):e215."""


TAUGHT = """What an order of an agent does is learned from {count:,} simulated stays of the oracle ward
(`world_models/ehr_world/ward_rollouts.py`), and so is what no record holds ({items}). People's values are foretold by
a network that has met neither. {ends}"""
ENDS = """How a stay ends is learned from those stays and from the patients of {sets} together, by the last values of
what those patients' records hold, not by how much is charted."""
CARD_WIDTH = 120


def learn_from_simulated(net: SetOutcome, people: People, simulated: Stays, recipe: PeopleRecipe, folder: Path) -> str:
    """What people's records cannot teach; see `train_orders`. Returns what the card says of it."""
    shards_ = [s for x in people.sets.values() for s in x.shards]
    told = torch.stack([(~s.static.isnan()).sum(0) for s in shards_]).sum(0)
    items = _results(people.sets) < FEWEST
    unread(net, items, told < FEWEST)
    sources = len(told) - simulated.static.shape[1]
    simulated = simulated._replace(static=nn.functional.pad(simulated.static, (0, sources), value=float("nan")))
    learn_effects(net, simulated, recipe.effects, folder)
    if bool(items.any()):
        learn_uncharted(net, simulated, items, recipe.uncharted, folder)
    ending = {name: of for name, of in people.sets.items() if of.ends}
    told_ends = ""
    if ending:
        told_ends = ENDS.format(sets=" and ".join(ending))
        feed, known = PeopleFeed(ending, recipe.positions, seed=3), _results(ending) >= FEWEST
        learn_ends(net, lambda step: feed(step)[0], recipe.positions, known, simulated, recipe.ends, folder)
    names = ", ".join(i.name for i, few in zip(net.vocabulary.items, items.tolist(), strict=True) if few)
    text = TAUGHT.format(count=len(simulated.static), items=names or "nothing", ends=told_ends)
    return textwrap.fill(text, CARD_WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _results(sets: Mapping[str, Learned]) -> Tensor:
    """How many each item has, int64 [I]."""
    return torch.stack([(s.asked & ~s.value.isnan()).sum((0, 1)) for x in sets.values() for s in x.shards]).sum(0)


def finish_people(
    net: SetOutcome, people: People, recipe: PeopleRecipe, out: Path, command: str, taught: str = ""
) -> dict[str, float | int]:
    """The world around a trained network, saved to `out`; `taught`: what its card says of simulated stays.
    Returns the card's figures, of the patients chosen by."""
    every = [s for x in people.sets.values() for s in x.shards]
    firsts = join([pad(s, FIRST_POSITIONS) for s in every])
    order = torch.randperm(len(firsts.static), generator=torch.Generator().manual_seed(0))
    firsts = tree.take(firsts, order)
    width = sum(not s.name.startswith(SOURCE_PREFIX) for s in net.vocabulary.static)
    known = firsts.static.clone()
    known[:, :width] = torch.where(known[:, :width].isnan(), net.usual[:width], known[:, :width])
    some = [tree.take(s, slice(0, None, max(1, sum(len(x.static) for x in every) // GUESSED_FROM))) for s in every]
    guesses = guesses_of(net.vocabulary, join(some))
    figures: dict[str, float] = {}
    for name, stays in people.valid.items():
        found = compare(net, stays, guesses)
        figures |= {f"{name}, {figure}": value for figure, value in found.items()}
    told = ";\n".join(f"{n}: {a:,} patients learned from, {b:,} chosen by" for n, (a, b) in people.patients.items())
    source = SOURCE.format(told=told, taught=taught, untold=recipe.untold, attributions=";\n".join(people.attributions))
    return finish(
        net,
        firsts._replace(static=known),
        join([trim(s) for s in people.valid.values()]),
        out,
        command,
        source,
        extra={"guesses": guesses.to_json()},
        figures=figures,
        judged="python -m benchmarks.people.rivals --data DIR --work DIR --test --world " + net.config.name,
    )[1]
