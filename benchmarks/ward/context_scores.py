"""How a context that was read from a summary agrees with the truth behind it, field by field.

Names and reasons are compared by their words: two say the same where their words' F1 is at least 0.5 ("Severe sepsis"
and "sepsis"), brackets left out; each is matched once, the closest first. Terms, age and sex must be equal. What is
said of allergies is a set: the agents, or that there are none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import percentile_interval, resamples
from world_models.data.ehr.context.schema import CHRONIC, StatedDiagnosis, StaticContext
from world_models.quantities.ward import DISEASES

__all__ = ["FIELDS", "compare", "same_words", "score_rows", "word_f1"]

FIELDS = (
    "age", "sex", "allergies", "primary diagnosis", "secondary diagnoses", "reasons", "chronic conditions",
    "acute diseases",
)  # fmt: skip
SAME = 0.5  # F1 of the words, from where on two texts say the same
_NONE_KNOWN = "none known"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:\.[0-9]+)?", re.sub(r"\([^)]*\)", " ", text.lower()) or text.lower())


def word_f1(one: str, other: str) -> float:
    """F1 of two texts' words, each counted as often as it stands (as SQuAD does: Rajpurkar 2016, arXiv 1606.05250)."""
    a, b = _words(one), _words(other)
    common = sum(min(a.count(w), b.count(w)) for w in set(a))
    return 2.0 * common / (len(a) + len(b)) if common else 0.0


def same_words(one: str, other: str) -> bool:
    """Whether two names or reasons say the same."""
    return word_f1(one, other) >= SAME


def _pairs(found: Sequence[str], true: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the texts that say the same, the closest first, each once."""
    close = [(word_f1(f, t), i, j) for i, f in enumerate(found) for j, t in enumerate(true)]
    made: list[tuple[int, int]] = []
    for f1, i, j in sorted(close, key=lambda c: (-c[0], c[1], c[2])):
        if f1 >= SAME and all(i != a and j != b for a, b in made):
            made.append((i, j))
    return made


def _counts(hits: int, found: int, true: int) -> tuple[int, int, int]:
    return hits, found - hits, true - hits


def _one(found: Any, true: Any) -> tuple[int, int, int]:
    told, is_so = found is not None, true is not None
    return _counts(int(told and is_so and found == true), int(told), int(is_so))


def _sets(found: set[str], true: set[str]) -> tuple[int, int, int]:
    return _counts(len(found & true), len(found), len(true))


def _matched(found: Sequence[str], true: Sequence[str]) -> tuple[int, int, int]:
    return _counts(len(_pairs(found, true)), len(found), len(true))


def _agents(allergies: tuple[str, ...] | None) -> list[str]:
    return [] if allergies is None else list(allergies) or [_NONE_KNOWN]


def _reasons(found: list[StatedDiagnosis], true: list[StatedDiagnosis]) -> tuple[int, int, int]:
    """A reason is right where it says the same as the true one of the same diagnosis."""
    pairs = _pairs([d.name for d in found], [d.name for d in true])
    hits = sum(same_words(found[i].reason, true[j].reason) for i, j in pairs)
    return _counts(hits, sum(bool(d.reason) for d in found), sum(bool(d.reason) for d in true))


def compare(found: StaticContext, true: StaticContext) -> Tensor:
    """Hits, false ones and missed ones of each field, int64 [FIELDS, 3]."""
    primary = [[] if c.primary is None else [c.primary.name] for c in (found, true)]
    secondary = [[d.name for d in c.secondary] for c in (found, true)]
    return torch.tensor(
        [
            _one(found.age_years, true.age_years),
            _one(found.sex, true.sex),
            _matched(_agents(found.allergies), _agents(true.allergies)),
            _matched(primary[0], primary[1]),
            _matched(secondary[0], secondary[1]),
            _reasons(list(found.diagnoses()), list(true.diagnoses())),
            _sets(found.terms() & set(CHRONIC), true.terms() & set(CHRONIC)),
            _sets(found.terms() & set(DISEASES), true.terms() & set(DISEASES)),
        ]
    )


def _figures(counts: Tensor) -> Tensor:
    """Precision, recall and F1 [..., 3] of summed counts [..., 3]; NaN where none was found, or none was there."""
    hits, false, missed = counts.double().unbind(-1)
    return torch.stack([hits / (hits + false), hits / (hits + missed), 2 * hits / (2 * hits + false + missed)], -1)


def score_rows(counts: Tensor, number: int = 2000) -> list[dict[str, Any]]:
    """A row a field from counts [N, FIELDS, 3] of N summaries: pooled figures, intervals by a bootstrap over
    summaries."""
    drawn = resamples(len(counts), number)
    again = _figures(torch.stack([counts[rows].sum(0) for rows in drawn]))  # [R, FIELDS, 3]
    pooled, total, rows = _figures(counts.sum(0)), counts.sum(0), []
    for place, name in enumerate(FIELDS):
        row: dict[str, Any] = {"field": name, "summaries": len(counts), "true": int(total[place, [0, 2]].sum())}
        for k, figure in enumerate(("precision", "recall", "f1")):
            known = again[:, place, k]
            low, high = percentile_interval(known[~known.isnan()])
            row |= {figure: float(pooled[place, k]), f"{figure}_low": low, f"{figure}_high": high}
        rows.append(row)
    return rows
