"""Consecutive ECGs of a patient: which rows pair up, what changes between them, and nested subsets of patients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models import keys

__all__ = ["Transitions", "consecutive", "subset_patients", "transitions", "with_changes"]


class Transitions(NamedTuple):
    """The figures of the paper's appendix on labels over time."""

    ecgs: int
    patients: int
    singletons: int  # patients with one ECG
    most_ecgs: int  # of one patient
    codes_per_ecg: float
    pairs: int
    changed: int  # pairs whose label sets differ
    changed_patients: int  # who contribute a changed pair
    stable_share: float  # of the pairs; NaN without pairs
    magnitudes: dict[int, float]  # labels that change (L1 norm) -> share of the changed pairs
    jaccard_below_half: float  # share of the changed pairs that keep under half of the labels either has


def consecutive(patient: Tensor, days: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (before, after), each [P] int64, of ECGs of one patient that follow each other.

    Args:
        patient: [N] int64, in any order.
        days: [N]; rows at the same moment keep their order.

    Raises:
        ValueError: the two are not of one length.
    """
    if patient.shape != days.shape or patient.ndim != 1:
        raise ValueError(f"patient {list(patient.shape)} and days {list(days.shape)} must both be [N]")
    order = torch.from_numpy(np.lexsort((days.cpu().numpy(), patient.cpu().numpy())))
    before, after = order[:-1], order[1:]
    same = patient.cpu()[before] == patient.cpu()[after]
    return before[same], after[same]


def transitions(label: Tensor, patient: Tensor, days: Tensor) -> Transitions:
    """What changes between consecutive ECGs.

    Args:
        label: [N, C] bool. patient, days: [N].
    """
    before, after = consecutive(patient, days)
    counts = torch.unique(patient, return_counts=True)[1]
    # By blocks: 638,683 pairs of 76 labels are small, their differences as a whole need not be held.
    size = torch.empty(len(before), dtype=torch.int64)
    shared = torch.empty(len(before), dtype=torch.int64)
    for start in range(0, len(before), 65_536):
        block = slice(start, start + 65_536)
        a, b = label[before[block]], label[after[block]]
        size[block] = (a ^ b).sum(dim=1)
        shared[block] = (a & b).sum(dim=1)
    changed = size > 0
    number = int(changed.sum())
    values, tally = torch.unique(size[changed], return_counts=True)
    overlap = shared[changed] / (shared[changed] + size[changed])
    return Transitions(
        ecgs=len(label),
        patients=len(counts),
        singletons=int((counts == 1).sum()),
        most_ecgs=int(counts.max()) if len(counts) else 0,
        codes_per_ecg=float(label.sum()) / len(label) if len(label) else float("nan"),
        pairs=len(before),
        changed=number,
        changed_patients=len(torch.unique(patient[before[changed]])),
        stable_share=1.0 - number / len(before) if len(before) else float("nan"),
        magnitudes={int(v): int(n) / number for v, n in zip(values, tally, strict=True)},
        jaccard_below_half=float((overlap < 0.5).float().mean()) if number else float("nan"),
    )


def subset_patients(patient: Tensor, share: float, seed: int) -> Tensor:
    """Mask [N] of the rows of a share of the patients, chosen by patient number: with one seed the 1 % are among the 10
    %.

    At least one patient is chosen; the number is the share rounded to the nearest.

    Raises:
        ValueError: `share` is not in (0, 1], or there is no patient.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} of the patients must be above 0 and at most 1")
    people, row = torch.unique(patient, return_inverse=True)
    if not len(people):
        raise ValueError("no patient to choose from; give at least one row")
    chance = keys.bits(keys.fold(people.to(torch.int64), int(seed)), 0, "subset of patients")
    rank = torch.empty(len(people), dtype=torch.int64)
    rank[torch.argsort(chance.cpu(), stable=True)] = torch.arange(len(people))
    return (rank < max(1, round(share * len(people))))[row.cpu()].to(patient.device)


def with_changes(before: Tensor, after: Tensor, label: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The pairs [P], those whose labels change repeated until they make up at least `share` of all (never fewer).

    A predictor learns what an action does from changed pairs alone, and most pairs of a record are stable: seen in
    their natural numbers they teach it first of all to stand still.

    Args:
        label: [N, C] bool of the rows that `before` and `after` name.
        share: at least 0 and below 1; 0 leaves the pairs as they are.

    Raises:
        ValueError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of changed pairs of {share} must be at least 0 and below 1")
    changed = (label[before] != label[after]).any(1)
    some = changed.nonzero().squeeze(1)
    wanted = round(share / (1 - share) * (len(before) - len(some)))
    if len(some) == 0 or wanted <= len(some):
        return before, after
    again = some[torch.arange(wanted - len(some)) % len(some)]
    return torch.cat([before, before[again]]), torch.cat([after, after[again]])
