"""Training pairs that nobody recorded as such: transitions taken back, and chains of them (the paper's section 5).

A reversed pair is the later ECG before the earlier one, under the opposite transition and after as long; a chained one
skips visits in between and adds their transitions. Both only where nature allows: nothing lasting goes, an infarction
leaves its scar, and what cannot be undone is not (`quantities.progression`). ECGs are recorded ones throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.cardiac_jepa.dynamics import reversible
from world_models.quantities.progression import lasts, scars

__all__ = ["Pairs", "chained", "natural", "with_synthetic"]


class Pairs(NamedTuple):
    """P pairs of rows of ECGs."""

    first: Tensor  # int64 [P]
    second: Tensor  # int64 [P]
    reversed: Tensor  # bool [P]: the second was recorded before the first


def natural(before: Tensor, after: Tensor, codes: Sequence[str]) -> Tensor:
    """bool [P]: whether labels before [P, C] may be followed by those after [P, C]: nothing lasting has gone, and an
    acute infarction that has gone has left its scar."""
    gone = before.bool() & ~after.bool()
    lasting = torch.tensor([lasts(code) for code in codes], device=gone.device)
    pairs, healed = scars(codes), ~gone
    for acute, scar in pairs:
        healed[:, acute] |= after[:, scar].bool()
    return ~(gone & lasting).any(-1) & healed[:, sorted({acute for acute, _ in pairs})].all(-1)


def chained(first: Tensor, second: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Pairs [Q] of what lies 2 to `most` of the pairs (first, second) [P] apart, each the next ECG of its patient."""
    rows = int(torch.maximum(first, second).max()) + 1 if len(first) else 0
    after = torch.full((rows,), -1)
    after[first] = second
    starts, ends, at = [], [], second
    begin = first
    for _ in range(most - 1):
        at = after[at]
        begin, at = begin[at >= 0], at[at >= 0]
        starts.append(begin)
        ends.append(at)
    empty = first[:0]
    return torch.cat([empty, *starts]), torch.cat([empty, *ends])


def with_synthetic(
    first: Tensor, second: Tensor, label: Tensor, codes: Sequence[str], reverse: bool = False, chain: int = 1
) -> Pairs:
    """The pairs (first, second) [P], and after them what they give: chains, then reversals of both.

    Only pairs whose labels change are added: those that tell what an action does.

    Args:
        label: bool [N, C] of the rows that the pairs name.
        reverse: add what may be taken back.
        chain: transitions joined at most; 1 adds none.

    Raises:
        ValueError: a chain below 1.
    """
    if chain < 1:
        raise ValueError(f"chain={chain} transitions cannot be joined; give 1 (no chains) or more")
    more_first, more_second = chained(first, second, chain)
    keep = (label[more_first] != label[more_second]).any(-1) & natural(label[more_first], label[more_second], codes)
    a, b = torch.cat([first, more_first[keep]]), torch.cat([second, more_second[keep]])
    back = torch.zeros(len(a), dtype=torch.bool)
    if reverse:
        action = label[b].float() - label[a].float()
        can = action.ne(0).any(-1) & reversible(action, codes) & natural(label[b], label[a], codes)
        a, b = torch.cat([a, b[can]]), torch.cat([b, a[can]])
        back = torch.cat([back, torch.ones(int(can.sum()), dtype=torch.bool)])
    return Pairs(a, b, back)
