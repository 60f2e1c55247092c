"""Recorded stays ready for training and judging: read once, kept as tensors, split by patient.

What `episode_tensors.from_episodes` says holds here too. A source that does not tell when a result came counts as
charted in the step that collected it (`stay_tensors.charted` reads it so), and here its delay is written down as 0, so
that a world trained on such records charts its own answers the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from world_models import checkpoint, tree
from world_models.ehr_world.episode_tensors import from_episodes
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, UNKNOWN, Stays, charted, first_positions, previous
from world_models.ehr_world.vocabulary import Vocabulary, from_z, to_z

if TYPE_CHECKING:
    from world_models.data.ehr.context import icd_terms
from world_models.data.ehr.episode import PatientEpisode

__all__ = ["Guesses", "StayRecords", "cut", "first_value", "fold_of", "guesses_of", "numbers", "read_records"]
__all__ += ["count_values", "median_values", "shares", "take"]

MOST = 85  # positions of a stay: 14 days of 4 h, and the admission
MEDIAN_ERROR = 0.8  # mean absolute error of a standard normal's median: sqrt(2 / pi) (k)
LEAST_ERROR = 0.02  # standard deviations of an item: no baseline counts as better


class StayRecords(NamedTuple):
    """B recorded stays."""

    stays: Stays
    subject: Tensor  # int64 [B]
    filtered: Tensor  # bool [B] passes the paper's filters


class Guesses(NamedTuple):
    """What the simple baselines know of training patients: [I] each, on the items' z scales."""

    median: Tensor
    last_value: Tensor  # mean absolute error of carrying the last charted value forward
    first_value: Tensor  # of the stay's first value
    item_median: Tensor  # of `median`

    def to_json(self) -> dict[str, list[float]]:
        """What `from_json` reads, to six decimals."""
        return {name: [round(float(x), 6) for x in row] for name, row in self._asdict().items()}

    @classmethod
    def from_json(cls, plain: dict[str, list[float]]) -> Guesses:
        """The guesses in a world's config."""
        return cls(*(torch.tensor(plain[name], dtype=torch.float32) for name in cls._fields))


def take(records: StayRecords, rows: Tensor) -> StayRecords:
    """The records at `rows` (int64 [N])."""
    return StayRecords(tree.take(records.stays, rows), records.subject[rows], records.filtered[rows])


def read_records(
    words: Vocabulary,
    work: Path | None = None,
    meds: str | Path | None = None,
    tables: str | Path | None = None,
    challenge2012: str | Path | None = None,
    date_order: str | None = None,
) -> tuple[StayRecords, dict]:
    """Stays of a source on the vocabulary's items, and what was left out on the way: {"stages": ..., "dropped": ...}.

    `date_order` is that of `load_episodes`. With `work`, they are kept there and read back while the source's files,
    the items, the steps and `date_order` are the same.

    Raises:
        ValueError (EhrDataError, UnitError): a source that cannot be read, or holds no stay.
    """
    sources = {"meds": meds, "tables": tables, "challenge2012": challenge2012}
    kept = None if work is None else work / f"records-{_mark(words, sources, date_order)}.safetensors"
    if kept is not None and kept.exists():
        try:
            x = load_file(kept)
            left = json.loads(bytes(x["left_out"].tolist()))
            return StayRecords(Stays(*(x[n] for n in Stays._fields)), x["subject"], x["filtered"].bool()), left
        except (SafetensorError, KeyError):
            kept.unlink()  # cut short by a kill: read the source again
    records, left = _read(words, sources, date_order)
    if kept is not None:
        told = torch.tensor(list(json.dumps(left).encode()), dtype=torch.uint8)
        rest = {"subject": records.subject, "filtered": records.filtered, "left_out": told}
        checkpoint.save_tensors(kept, {**records.stays._asdict(), **rest})
    return records, left


def _read(words: Vocabulary, sources: dict[str, str | Path | None], date_order: str | None) -> tuple[StayRecords, dict]:
    from world_models.data.ehr.filters import FilterRules, measure, select
    from world_models.data.ehr.flow import Flow
    from world_models.data.ehr.load import load_episodes
    from world_models.data.ehr.tables import EhrDataError

    episodes, flow = load_episodes(
        meds=sources["meds"],
        tables=sources["tables"],
        challenge2012=sources["challenge2012"],
        hours_per_step=words.hours_per_step,
        date_order=date_order,
    )
    if not episodes:
        raise EhrDataError(f"the source holds no stay that can be read; what became of its rows:\n{flow.diagram()}")
    measured = measure(episodes)
    good = {
        (s, i) for s, i in select(measured, FilterRules(), Flow())[["subject_id", "stay_id"]].itertuples(index=False)
    }
    stays = from_episodes(words, episodes, most=MOST)
    stays = stays._replace(delay=torch.where(stays.asked & (stays.delay == UNKNOWN), 0, stays.delay).to(torch.int8))
    subject = torch.tensor([e.subject_id for e in episodes], dtype=torch.int64)
    filtered = torch.tensor([(e.subject_id, e.stay_id) in good for e in episodes])
    dropped = {table: {reason: int(n) for reason, n in ledger.dropped.items()} for table, ledger in flow.rows.items()}
    slots = int((stays.asked & ~stays.value.isnan()).sum())
    return StayRecords(stays, subject, filtered), {
        "stages": [{"name": s.name, "patients": s.patients, "stays": s.episodes} for s in flow.stages],
        "rows_dropped": {t: reasons for t, reasons in dropped.items() if reasons},
        **_left_out(words, episodes),
        "values_kept_last_of_each_step": slots,
    }


def _left_out(words: Vocabulary, episodes: Sequence[PatientEpisode]) -> dict[str, Any]:
    """Results that the tensors of these episodes do not hold, counted by why."""
    known = {i.name for i in words.items}
    other: dict[str, int] = {}
    after = censored = 0
    for e in episodes:
        for step in e.steps:
            for q in step.inquiries:
                if step.number + 1 >= MOST:
                    after += 1
                elif q.value is None and q.item in known:
                    censored += 1
                elif q.value is not None and q.item not in known and q.item != "urine_output_ml":
                    other[q.item] = other.get(q.item, 0) + 1
    return {
        "values_of_items_the_world_does_not_know": dict(sorted(other.items(), key=lambda x: -x[1])),
        "results_after_day_14": after,
        "censored_results": censored,
    }


def _mark(words: Vocabulary, sources: dict[str, str | Path | None], date_order: str | None) -> str:
    """A short sum of what the tensors depend on: the files by path, size and time, the items, the steps' width, the
    table of codes."""
    rows: list = [[i.name, i.unit, i.low, i.high] for i in words.items]
    rows += [[t.name, t.high] for t in words.treatments] + [words.hours_per_step, MOST]
    rows += [date_order] if date_order else []
    rows += [hashlib.sha256(icd_terms.TABLE.read_bytes()).hexdigest()]  # what codes say of a stay
    for name, path in sources.items():
        if path is None:
            continue
        path = Path(path)
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        rows += [[name, str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def fold_of(subject: Tensor, folds: int, seed: int = 0) -> Tensor:
    """The fold [B] of each stay; all stays of a patient are in one, and folds differ by a patient at most.

    Raises:
        ValueError: fewer patients than folds.
    """
    people, place = torch.unique(subject, return_inverse=True)
    if len(people) < folds:
        raise ValueError(f"{len(people)} patients cannot be split into {folds} folds; ask for fewer")
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(people)) % folds
    return fold[place]


def cut(stays: Stays, begin: int) -> Stays:
    """The record as it stood after position `begin`: what had not resulted by then is on its way."""
    given = first_positions(stays, begin + 1)
    place = torch.arange(begin + 1).view(1, -1, 1)
    out = given.asked & (given.delay > 0) & (place + given.delay.to(torch.int64) > begin)
    return given._replace(
        value=torch.where(out, float("nan"), given.value), delay=torch.where(out, CENSORED, given.delay).to(torch.int8)
    )


def numbers(words: Vocabulary, stays: Stays) -> Tensor:
    """bool [B, T, I]: slots of numbers that came back."""
    return stays.asked & ~stays.value.isnan() & stays.valid.unsqueeze(-1) & ~words.is_label()


def first_value(stays: Stays) -> tuple[Tensor, Tensor]:
    """First value [B, I] of the stay (NaN: none) and the position that collected it."""
    there = stays.asked & ~stays.value.isnan()
    place = there.to(torch.int8).argmax(1)
    value = torch.gather(stays.value, 1, place.unsqueeze(1)).squeeze(1)
    return torch.where(there.any(1), value, float("nan")), place


def guesses_of(words: Vocabulary, stays: Stays) -> Guesses:
    """The baselines' medians and mean errors from training stays; an item without values keeps z = 0 and
    an error of MEDIAN_ERROR."""
    scale, there = words.scale_table(), numbers(words, stays)
    z = to_z(stays.value, scale).nan_to_num(0.0)
    chart = charted(stays)
    seen, last = previous(chart.seen), previous(to_z(chart.value, scale))
    first, place = first_value(stays)
    later = torch.arange(z.shape[1]).view(1, -1, 1) > place.unsqueeze(1)
    count = len(words.items)
    middle = torch.stack(
        [z[..., i][there[..., i]].median() if there[..., i].any() else torch.tensor(0.0) for i in range(count)]
    )
    errors = []
    pairs = ((last, seen), (to_z(first, scale).unsqueeze(1).nan_to_num(0.0), later), (middle, torch.ones_like(seen)))
    for guess, known in pairs:
        counted = there & known
        total, n = ((z - guess).abs() * counted).sum((0, 1)), counted.sum((0, 1))
        errors.append(torch.where(n > 0, total / n.clamp_min(1), MEDIAN_ERROR).clamp_min(LEAST_ERROR))
    return Guesses(middle, *errors)


def median_values(words: Vocabulary, guesses: Guesses) -> Tensor:
    """[I] in the items' units."""
    return from_z(guesses.median, words.scale_table())


def count_values(words: Vocabulary, stays: Stays) -> Tensor:
    """int64 [I]: values of each item that were charted before in their stay."""
    return (numbers(words, stays) & previous(charted(stays).seen)).sum((0, 1))


def shares(subject: Tensor, share: float, seed: int) -> Tensor:
    """bool [B]: stays of a share of the patients, the same for the same seed; larger shares contain smaller ones."""
    people, place = torch.unique(subject, return_inverse=True)
    rank = torch.empty(len(people), dtype=torch.int64)
    rank[torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))] = torch.arange(len(people))
    return (rank < max(1, round(share * len(people))))[place]
