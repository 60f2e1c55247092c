"""Recorded stays ready for training and judging: read once, kept as tensors, split by patient.

What `episode_tensors.from_episodes` says holds here too. A source that does not tell when a result came counts as
charted in the step that collected it (`stay_tensors.charted` reads it so), and here its delay is written down as 0, so
that a world trained on such records charts its own answers the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
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
    from world_models.data.ehr.episode import PatientEpisode

__all__ = ["UNTOLD", "Guesses", "StayRecords", "cut", "first_value", "fold_of", "guesses_of", "numbers", "read_records"]
__all__ += ["count_values", "median_values", "most_positions", "shares", "take"]

MOST_H, MOST_POSITIONS = 336.0, 169  # of a stay: 14 days of 4 h, or 7 of 1 h, and the admission
MEDIAN_ERROR = 0.8  # mean absolute error of a standard normal's median: sqrt(2 / pi) (k)
UNTOLD = -1
LEAST_ERROR = 0.02  # standard deviations of an item: no baseline counts as better


class StayRecords(NamedTuple):
    """B recorded stays."""

    stays: Stays
    subject: Tensor  # int64 [B]
    filtered: Tensor  # bool [B] passes the paper's filters
    hospital: Tensor  # int64 [B] number of the hospital; UNTOLD where the record does not say


class Sources(NamedTuple):
    """Where stays are read from; as in `load_episodes`."""

    meds: str | Path | None = None
    tables: str | Path | None = None
    mimic3: str | Path | None = None
    challenge2012: str | Path | None = None
    challenge2019: str | Path | None = None
    eicu: str | Path | None = None


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
    return StayRecords(tree.take(records.stays, rows), *(x[rows] for x in records[1:]))


def most_positions(hours_per_step: float) -> int:
    """Positions of a stay that are kept, for steps of this width."""
    return min(MOST_POSITIONS, round(MOST_H / hours_per_step) + 1)


def read_records(
    words: Vocabulary,
    work: Path | None = None,
    meds: str | Path | None = None,
    tables: str | Path | None = None,
    mimic3: str | Path | None = None,
    challenge2012: str | Path | None = None,
    challenge2019: str | Path | None = None,
    eicu: str | Path | None = None,
    date_order: str | None = None,
) -> tuple[StayRecords, dict]:
    """Stays of a source on the vocabulary's items, and what was left out on the way: {"stages": ..., "dropped": ...}.

    The sources and `date_order` are those of `load_episodes`. With `work`, the stays are kept there and read back while
    the source's files, the items, the steps, `date_order` and the code that reads are the same.

    Raises:
        ValueError (EhrDataError, UnitError): a source that cannot be read, or holds no stay.
    """
    sources = Sources(meds, tables, mimic3, challenge2012, challenge2019, eicu)
    kept = None if work is None else work / f"records-{_mark(words, sources, date_order)}.safetensors"
    if kept is not None and kept.exists():
        try:
            x = load_file(kept)
            left = json.loads(bytes(x["left_out"].tolist()))
            stays = Stays(*(x[n] for n in Stays._fields))
            return StayRecords(stays, x["subject"], x["filtered"].bool(), x["hospital"]), left
        except (SafetensorError, KeyError):
            kept.unlink()  # cut short by a kill: read the source again
    records, left = _read(words, sources, date_order)
    if kept is not None:
        told = torch.tensor(list(json.dumps(left).encode()), dtype=torch.uint8)
        rest = {name: getattr(records, name) for name in StayRecords._fields[1:]}
        checkpoint.save_tensors(kept, {**records.stays._asdict(), **rest, "left_out": told})
    return records, left


def _read(words: Vocabulary, sources: Sources, date_order: str | None) -> tuple[StayRecords, dict]:
    from world_models.data.ehr.filters import FilterRules, measure, select
    from world_models.data.ehr.flow import Flow
    from world_models.data.ehr.load import load_episodes
    from world_models.data.ehr.tables import EhrDataError

    episodes, flow = load_episodes(*sources, hours_per_step=words.hours_per_step, date_order=date_order)
    if not episodes:
        raise EhrDataError(f"the source holds no stay that can be read; what became of its rows:\n{flow.diagram()}")
    measured = measure(episodes)
    good = {
        (s, i) for s, i in select(measured, FilterRules(), Flow())[["subject_id", "stay_id"]].itertuples(index=False)
    }
    most = most_positions(words.hours_per_step)
    stays = from_episodes(words, episodes, most=most)
    stays = stays._replace(delay=torch.where(stays.asked & (stays.delay == UNKNOWN), 0, stays.delay).to(torch.int8))
    subject = torch.tensor([e.subject_id for e in episodes], dtype=torch.int64)
    filtered = torch.tensor([(e.subject_id, e.stay_id) in good for e in episodes])
    hospital = torch.tensor([hospital_number(e.hospital) for e in episodes], dtype=torch.int64)
    dropped = {table: {reason: int(n) for reason, n in ledger.dropped.items()} for table, ledger in flow.rows.items()}
    slots = int((stays.asked & ~stays.value.isnan()).sum())
    return StayRecords(stays, subject, filtered, hospital), {
        "stages": [{"name": s.name, "patients": s.patients, "stays": s.episodes} for s in flow.stages],
        "rows_dropped": {t: reasons for t, reasons in dropped.items() if reasons},
        **_left_out(words, episodes, most),
        "values_kept_last_of_each_step": slots,
    }


def hospital_number(told: str) -> int:
    """Of "eICU 59", 59; UNTOLD where the record names no hospital by number."""
    number = told.rpartition(" ")[2]
    return int(number) if number.isdecimal() else UNTOLD


def _left_out(words: Vocabulary, episodes: Sequence[PatientEpisode], most: int) -> dict[str, Any]:
    """Results that the tensors of these episodes do not hold, counted by why."""
    known = {i.name for i in words.items}
    other: dict[str, int] = {}
    after = censored = 0
    for e in episodes:
        for step in e.steps:
            for q in step.inquiries:
                if step.number + 1 >= most:
                    after += 1
                elif q.value is None and q.item in known:
                    censored += 1
                elif q.value is not None and q.item not in known and q.item != "urine_output_ml":
                    other[q.item] = other.get(q.item, 0) + 1
    return {
        "values_of_items_the_world_does_not_know": dict(sorted(other.items(), key=lambda x: -x[1])),
        "results_after_the_last_position": after,
        "censored_results": censored,
    }


def _mark(words: Vocabulary, sources: Sources, date_order: str | None) -> str:
    """A short sum of what the tensors depend on: the files by path, size and time, the items, the steps' width."""
    rows: list = [[i.name, i.unit, i.low, i.high] for i in words.items]
    rows += [[t.name, t.high] for t in words.treatments] + [words.hours_per_step, _code()]
    rows += [date_order] if date_order else []
    for name, path in sources._asdict().items():
        if path is None:
            continue
        path = Path(path)
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        rows += [[name, str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _code() -> str:
    """A sum of the code that reads: stays kept by an older version are read again."""
    here = Path(__file__).parent
    files = [*(here.parent / "data" / "ehr").rglob("*.py"), here / "episode_tensors.py", Path(__file__)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()


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
