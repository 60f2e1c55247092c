"""Training on recorded stays, few as they are: from a ward's weights, over Challenge 2012, to the patients of a folder.

Three steps, each resumable and kept in the work folder under a sum of what it depends on:
1. the weights of `--init`, a world trained on the oracle ward;
2. optionally the 4,000 stays of Challenge 2012 (48 h, no drugs, ends unknown): how real values and their noise look;
3. the training patients: a few passes (how many, folds inside these patients choose), item columns hidden at random,
   the running average of the weights kept; with `orders` above 1, runs over several orders whose weights are averaged.

Of a start that learned from people already, bins and scales stay: on others, its weights would mean something else, and
what it knows would have to be learned again from few patients. Else bins of items that Challenge 2012 holds are from
there, others from the training patients: nothing of a held-out patient is in the vocabulary, the baselines or the
weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from world_models import checkpoint, keys
from world_models.catalog import WORLDS, weights_folder
from world_models.ehr_world.episode_tensors import real_vocabulary
from world_models.ehr_world.feeder import Feeder, schedule
from world_models.ehr_world.finish import finish
from world_models.ehr_world.judging import compare, looked_ahead, nats_a_value
from world_models.ehr_world.records import (
    Guesses,
    StayRecords,
    fold_of,
    guesses_of,
    numbers,
    read_records,
    shares,
    take,
)
from world_models.ehr_world.set_outcome.losses import stay_losses
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.temperature import best_temperature, with_temperature
from world_models.ehr_world.vocabulary import SOURCE_PREFIX, Vocabulary
from world_models.training import fit

__all__ = ["Fold", "RecordsRecipe", "choose_passes", "finish_fold", "folder_of", "from_arguments", "read_sources"]
__all__ += ["train_fold", "tune"]

# Whose records these are, this module cannot know: only the world that ships says that they are the open demo's.
DEMO_NAME, OWN_NAME = "ehr-mimic-demo-small", "ehr-own-stays"
START = "ehr-icu-small"  # whose weights a world of records starts from, where no other is named
LEAST_STEPS = 10
WEIGHT_DECAY, AVERAGE = 1e-2, 0.99  # of the weights; of the running average of weights


@dataclass(frozen=True)
class RecordsRecipe:
    """How a world is fitted to records. The defaults were chosen on patients inside the training folds."""

    wide_steps: int = 800  # on Challenge 2012
    wide_rate: float = 1e-3
    wide_batch: int = 64
    passes: float | None = None  # over the training stays, for each order of the data; None: see `choose_passes`
    steps: int | None = None  # instead of passes
    rate: float = 5e-4
    batch: int = 12
    orders: int = 1  # runs whose weights are averaged
    hide: float = 0.2  # share of a stay's item columns whose values are hidden from the chart and the loss
    ahead: float = 0.7  # share of stays of which no result is shown after a random position, though all are predicted
    early: float = 1.5  # above 1 that position comes early
    fewest: int = 500  # values of an item in Challenge 2012 for its bins to be from there

    def steps_over(self, stays: int) -> int:
        """Steps on so many training stays: `steps`, or those of `passes` over them."""
        if self.steps:
            return self.steps
        assert self.passes is not None, "chosen before"
        return max(LEAST_STEPS, round(self.passes * stays / self.batch))


def hidden(stays: Stays, share: float, step: int, seed: int) -> Stays:
    """Whole item columns of some stays left out, so that no item is told by the same few others in every stay."""
    if share <= 0:
        return stays
    batch, _, items = stays.value.shape
    keep = keys.uniform(keys.from_seed(seed, batch), step, "hide", (items,)) >= share
    return stays._replace(asked=stays.asked & keep.unsqueeze(1))


def tune(
    net: SetOutcome,
    stays: Stays,
    recipe: RecordsRecipe,
    folder: Path,
    stage: str,
    steps: int,
    rate: float,
    batch: int,
    ends: bool,
    seed: int = 0,
) -> None:
    """Fit to the stays; leaves the averaged weights in the net.

    `ends` False: the record stops before the patient leaves, so death and discharge are not learned from it.
    """
    feed = Feeder(stays, min(batch, len(stays.static)), seed=1000 + seed)
    expected = float(stays.valid.sum()) / len(stays.static) * feed.batch

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        part = hidden(feed(step), recipe.hide, step, 7_000 + seed)
        found = stay_losses(net, part, expected, looked_ahead(part, recipe.ahead, recipe.early, step, 9_000 + seed))
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        return found.total(ends), metrics

    fit(net, loss, schedule(steps, rate, WEIGHT_DECAY, save_every_s=30.0, average=AVERAGE), folder, stage)


PASSES = (3.0, 6.0, 12.0, 24.0)  # to choose from
INNER_FOLDS = 3


class Chosen(NamedTuple):
    """What folds inside the training patients chose."""

    passes: float
    temperature: float  # at the end, see `temperature`
    nats: dict[float, float] = {}  # passes -> `nats_a_value`; empty: nothing was tried


def choose_passes(
    init: Path, train: StayRecords, work: Path, name: str, wide: StayRecords | None, recipe: RecordsRecipe
) -> Chosen:
    """How many passes over these patients predict others of them best, and how sure to be of others then.

    It trains twelve times, for a few hundred stays; with many thousands give `steps` instead, and nothing is chosen.
    Patients held out by the caller are not in `train`, so what judges the world chose nothing. Too few patients to be
    divided: the middle choice, the start's temperature, and no figures.
    """
    if len(train.subject.unique()) < 2 * INNER_FOLDS:
        return Chosen(PASSES[len(PASSES) // 2], EHRWorldModel.load(init).config.temperature)
    found, fit_by = {}, {}
    for passes in PASSES:
        of = dataclasses.replace(recipe, passes=passes)
        judged = []
        for inner in range(INNER_FOLDS):
            fold = train_fold(init, train, work, INNER_FOLDS, inner, name, wide, recipe=of)
            assert fold.held_out is not None, "with several folds one is held out"
            with_temperature(fold.net, 1.0)
            judged.append((fold.net, fold.held_out.stays))
        found[passes], fit_by[passes] = nats_a_value(judged, recipe.early), judged
    best = min(found, key=lambda passes: found[passes])
    return Chosen(best, best_temperature(fit_by[best]), found)


class Fold(NamedTuple):
    """What one fold's training leaves."""

    net: SetOutcome
    train: StayRecords
    held_out: StayRecords | None  # None: all patients were trained on
    guesses: Guesses
    chosen: dict[float, float] = {}  # passes -> nats a value, where they were chosen


def _sum(*of: object) -> str:
    return hashlib.sha256(json.dumps(of, default=str).encode()).hexdigest()[:10]


def _sum_of_stays(stays: Stays) -> str:
    digest = hashlib.sha256()
    for x in (stays.asked, stays.value.nan_to_num(-1.0), stays.given, stays.valid):
        digest.update(x.contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]


def train_fold(
    init: Path,
    records: StayRecords,
    work: Path,
    folds: int,
    fold: int,
    name: str = OWN_NAME,
    wide: StayRecords | None = None,
    share: float = 1.0,
    recipe: RecordsRecipe | None = None,
) -> Fold:
    """The network of one fold, trained on a share of its training patients; `folds` 1 trains on all patients.

    Args:
        init: folder of the world whose weights are the start.
        work: what is finished there by the same inputs is loaded, what was broken off goes on.
        wide: stays of Challenge 2012, for the step before.

    Raises:
        ValueError: weights of `init` that do not fit, or fewer patients than folds.
    """
    recipe = recipe or RecordsRecipe()
    start = EHRWorldModel.load(init)
    config, words = dataclasses.replace(start.config, name=name, temperature=1.0), start.vocabulary
    sum_ = _sum(start.weights_sha256, dataclasses.asdict(config))
    kept: set[str] = set()
    with torch.random.fork_rng(devices=[]):  # every first weight of a new network is overwritten
        net = SetOutcome(config, words)
        net.load_state_dict(start.net.state_dict())
        if wide is not None and recipe.wide_steps:
            net, words, kept, sum_ = _on_wide(net, words, wide, recipe, work, sum_)
        train, held_out = _divided(records, folds, fold, share)
        chosen = Chosen(recipe.passes or 0.0, start.config.temperature)
        if recipe.passes is None and recipe.steps is None:
            chosen = choose_passes(init, train, work, name, wide, recipe)
            recipe = dataclasses.replace(recipe, passes=chosen.passes)
        words = binned(words, train.stays, keep=kept)
        sum_ = _sum(sum_, dataclasses.asdict(recipe), _sum_of_stays(train.stays))
        steps = recipe.steps_over(len(train.subject))
        nets = []
        for order in range(recipe.orders):
            one = moved(net, words)
            tune(
                one,
                train.stays,
                recipe,
                work / f"fold-{fold}-of-{folds}-{sum_}",
                f"tune-{order}",
                steps,
                recipe.rate,
                recipe.batch,
                ends=True,
                seed=order,
            )
            nets.append(one)
    _average(nets)
    with_temperature(nets[0], chosen.temperature)
    return Fold(nets[0], train, held_out, guesses_of(words, train.stays), chosen.nats)


def _on_wide(
    net: SetOutcome, words: Vocabulary, wide: StayRecords, recipe: RecordsRecipe, work: Path, sum_: str
) -> tuple[SetOutcome, Vocabulary, set[str], str]:
    """Trained on Challenge 2012: the network, its vocabulary, names of items whose bins are from there, and the sum of
    all that this depends on."""
    measured = numbers(words, wide.stays).sum((0, 1)).tolist()
    kept = {i.name for i, n in zip(words.items, measured, strict=True) if n >= recipe.fewest}
    words = binned(words, wide.stays, fewest=recipe.fewest)
    net = moved(net, words)
    of_wide = ("hide", "fewest", "ahead", "early")
    told = {n: v for n, v in dataclasses.asdict(recipe).items() if n.startswith("wide") or n in of_wide}
    sum_ = _sum(sum_, told, _sum_of_stays(wide.stays))
    folder = work / f"wide-{sum_}"
    tune(net, wide.stays, recipe, folder, "wide", recipe.wide_steps, recipe.wide_rate, recipe.wide_batch, ends=False)
    return net, words, kept, sum_


def binned(words: Vocabulary, stays: Stays, **options: Any) -> Vocabulary:
    """With bins from these stays, `options` as in `real_vocabulary`; one of people, who have sources, as it is."""
    of_people = any(s.name.startswith(SOURCE_PREFIX) for s in words.static)
    return words if of_people else real_vocabulary(words, [stays], **options)


def _divided(records: StayRecords, folds: int, fold: int, share: float) -> tuple[StayRecords, StayRecords | None]:
    """A share of the fold's training patients, and who is held out."""
    train, held_out = records, None
    if folds > 1:
        own = fold_of(records.subject, folds) == fold
        held_out, train = take(records, own.nonzero().squeeze(1)), take(records, (~own).nonzero().squeeze(1))
    if share < 1:
        train = take(train, shares(train.subject, share, seed=fold).nonzero().squeeze(1))
    return train, held_out


@torch.no_grad()
def _average(nets: list[SetOutcome]) -> None:
    """The first network's weights become the mean of all."""
    for together in zip(*(n.parameters() for n in nets), strict=True):
        together[0].copy_(torch.stack(list(together)).mean(0))


def moved(net: SetOutcome, words: Vocabulary) -> SetOutcome:
    """The same weights on another vocabulary's bins and scales.

    Raises:
        ValueError: the vocabulary has another number of bins, items or interventions.
    """
    if words.bins != net.vocabulary.bins:
        raise ValueError(
            f"these stays make {words.bins} bins an item at most, the weights were trained on {net.vocabulary.bins}; "
            "give more stays"
        )
    other = SetOutcome(net.config, words)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs)
    return other


SOURCE = """{trained} recorded stays of {patients} patients of {name}, unfiltered, cut at 14 days;
{held}.
Starting point: {init}{wide}.
Where a record does not say when a result came, it counts as charted in the step of its draw. Of static context a record
tells age and sex alone; nothing is measured at admission, for no record says so.

{terms}{attribution}{inherited}
PhysioNet: Goldberger et al. 2000, Circulation 101(23):e215."""

DEMO = """Attribution. MIMIC-IV Clinical Database Demo 2.2 and MIMIC-IV demo in MEDS 0.0.1: Johnson A, Bulgarelli L,
Pollard T, Horng S, Celi LA, Mark R (2023), PhysioNet, doi 10.13026/dp1f-ex47 (k), made available under the Open Data
Commons Open Database License (ODbL) 1.0, https://opendatacommons.org/licenses/odbl/1-0/.
These weights were made from that database."""
OWN = """Terms. These weights were made from records of your own. What you agreed to when you got the records holds for
the weights as well: pass them on only where that allows it."""

WIDE = """

PhysioNet/CinC Challenge 2012, set A: Silva I, Moody G, Scott DJ, Celi LA, Mark RG (2012), Computing in Cardiology
39:245-248 (PMID 24678516), Open Data Commons Attribution License (ODC-By) 1.0. Its patients are of the same hospital in
earlier years as MIMIC's: that one of them came again later and is in it cannot be ruled out."""


def _inherited(init: Path) -> str:
    """What the starting point's card asks to be told of its own data, if anything."""
    card = Path(init) / checkpoint.CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    rest = text.partition("Attribution. ")[2]
    told = rest.partition("\n## ")[0].partition("PhysioNet: Goldberger")[0].strip()
    told = told.replace("These weights were", "The weights of the starting point were")
    return f"\n\n{told}" if told else ""


def finish_fold(
    fold: Fold, out: Path, meds: Path, init: Path, folds: int, number: int, wide: bool, tables: bool = True
) -> tuple[EHRWorldModel, dict[str, float]]:
    """The world around a fold's network, saved to `out` with what the baselines know of the training patients."""
    command = "python -m world_models.ehr_world.train --source meds --meds MEDS"
    command += (
        f"{' --tables TABLES' if tables else ''}{' --challenge2012 DIR' if wide else ''} --init {Path(init).name}"
    )
    command += f" --name {fold.net.config.name}" if fold.net.config.name != OWN_NAME else ""
    command += f" --folds {folds} --fold {number} --out DIR"
    held = (
        "none was held out: its figures below are of the training stays"
        if fold.held_out is None
        else (f"the patients of fold {number} of {folds} ({len(fold.held_out.subject.unique())}) were held out")
    )
    source = SOURCE.format(
        trained=len(fold.train.subject),
        patients=len(fold.train.subject.unique()),
        name=Path(meds).name,
        held=held,
        init=Path(init).name,
        wide=", then the 4,000 stays of Challenge 2012 (48 h)" if wide else "",
        terms=DEMO if fold.net.config.name == DEMO_NAME else OWN,
        attribution=WIDE if wide else "",
        inherited=_inherited(init),
    )
    judged = fold.train if fold.held_out is None else fold.held_out
    known = fold.net.usual.to(fold.train.stays.static)
    static = torch.where(fold.train.stays.static.isnan(), known, fold.train.stays.static)
    train = fold.train.stays._replace(static=static)
    return finish(
        fold.net,
        train,
        judged.stays,
        out,
        command,
        source,
        extra={"guesses": fold.guesses.to_json()},
        figures=compare(fold.net, judged.stays, fold.guesses),
        judged="python -m benchmarks.ward.fidelity --records folds --meds MEDS --tables TABLES --work DIR",
    )


def folder_of(world: str | Path) -> Path:
    """The folder of a catalogued learned ward, or of one's own."""
    return weights_folder(str(world)) if str(world) in WORLDS else Path(world)


def read_sources(
    init: Path, work: Path, meds: Path, tables: Path | None, challenge2012: Path | None, date_order: str | None = None
) -> tuple[StayRecords, StayRecords | None]:
    """The stays to learn from, and those of Challenge 2012; kept in the work folder."""
    words = EHRWorldModel.load(init).vocabulary
    records, _ = read_records(words, work, meds=meds, tables=tables, date_order=date_order)
    return records, None if challenge2012 is None else read_records(words, work, challenge2012=challenge2012)[0]


def from_arguments(a: argparse.Namespace, work: Path) -> dict[str, float]:
    """`train --source meds`: one fold, from reading to the saved world."""
    init = folder_of(a.init or START)
    records, wide = read_sources(init, work, a.meds, a.tables, a.challenge2012, a.date_order)
    changed = {n: v for n in ("steps", "batch", "rate") if (v := getattr(a, n)) is not None}
    recipe = dataclasses.replace(RecordsRecipe(), **changed)
    fold = train_fold(init, records, work, a.folds, a.fold, a.name or OWN_NAME, wide, recipe=recipe)
    return finish_fold(fold, a.out, a.meds, init, a.folds, a.fold, wide is not None, a.tables is not None)[1]
