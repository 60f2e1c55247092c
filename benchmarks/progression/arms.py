"""What every arm of the JEPA stands on: the split of the data, presets, and encoders that nobody has trained."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa.config import FULL, NARROW, JEPAConfig
from world_models.cardiac_jepa.encoder import XResNet1d, initialise
from world_models.cardiac_jepa.pretrain import renew_norms
from world_models.data.ecg.monolith import Monolith
from world_models.data.ecg.pairs import consecutive, subset_patients

__all__ = [
    "PRESETS",
    "PROBE",
    "TUNED",
    "WHOLE",
    "Arm",
    "Side",
    "SplitCohort",
    "cohort_of",
    "data_mark",
    "fresh_encoder",
    "settle_norms",
    "sides_of",
    "spread",
]

PROBE, TUNED, WHOLE = "Linear probe", "Finetuned", "End-to-end"
VALID_FOLD, TEST_FOLD = 18, 19

PRESETS = {"narrow": NARROW, "xresnet1d50": FULL}


class SplitCohort(NamedTuple):
    """The data and its rows. Folds 0-17 train, 18 chooses, 19 judges."""

    data: Monolith
    train: Tensor  # int64 rows
    valid: Tensor
    test: Tensor
    first: Tensor  # int64 pairs: rows of the earlier ECG
    second: Tensor  # and of the later


class Arm(NamedTuple):
    """Scores of the test ECGs under each protocol, and what they cost."""

    scores: dict[str, Tensor]  # protocol -> [M, C]
    told: dict[str, Any]


def cohort_of(m: Monolith) -> SplitCohort:
    """Rows of the three splits, and all consecutive pairs.

    Raises:
        ValueError: a split is empty, or a patient is in two.
    """
    fold = m.fold.long()
    split = (fold >= VALID_FOLD).long() + (fold >= TEST_FOLD).long()
    rows = [(split == i).nonzero()[:, 0] for i in range(3)]
    for name, mine in zip(("training (folds 0-17)", "validation (18)", "test (19)"), rows, strict=True):
        if not len(mine):
            raise ValueError(f"no ECG of the {name} split: folds are {sorted(set(fold.tolist()))}")
    parts = torch.stack([m.patient, split], 1).unique(dim=0)
    if len(parts) != len(m.patient.unique()):
        raise ValueError(
            f"{len(parts) - len(m.patient.unique())} patients are in more than one split; "
            "folds must keep patients whole"
        )
    first, second = consecutive(m.patient, m.days)
    return SplitCohort(m, *rows, first, second)


def data_mark(m: Monolith) -> str:
    """Tells data sets apart without reading every sample."""
    told = hashlib.sha256(f"{tuple(m.ecg.shape)} {m.codes} {m.label.sum(0).tolist()}".encode())
    for part in (m.patient, m.fold, m.days, m.ecg[:: max(1, len(m.ecg) // 64), 1, ::25].contiguous()):
        told.update(part.contiguous().numpy().tobytes())
    return told.hexdigest()[:16]


class Side(NamedTuple):
    """Rows of the patients of a share."""

    train: Tensor  # int64 [N]
    valid: Tensor  # int64 [V], V at most N
    first: Tensor  # int64 [P] pairs of training ECGs
    second: Tensor


def spread(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, evenly."""
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), most)).long()]


def sides_of(cohort: SplitCohort, share: float, seed: int, valid_for_train: float) -> Side:
    """Training and validation patients of a share; with one seed those of a smaller share are among them.

    Raises:
        ValueError: fewer than two pairs, or no validation ECG.
    """
    m = cohort.data
    train = cohort.train[subset_patients(m.patient[cohort.train], share, seed)]
    people = len(m.patient[cohort.valid].unique())
    wanted = max(share * people, valid_for_train * len(m.patient[train].unique()))
    valid = cohort.valid[subset_patients(m.patient[cohort.valid], min(1.0, wanted / people), seed)]
    valid = spread(valid, len(train))
    inside = torch.zeros(len(m.patient), dtype=torch.bool)
    inside[train] = True
    keep = inside[cohort.first]
    if int(keep.sum()) < 2:
        raise ValueError(f"{int(keep.sum())} pairs at a share of {share:g}; give more patients or a larger share")
    return Side(train, valid, cohort.first[keep], cohort.second[keep])


def fresh_encoder(config: JEPAConfig, seed: int) -> XResNet1d:
    """An encoder nobody has trained; its weights are a function of the seed."""
    encoder = XResNet1d.of(config)
    initialise(encoder, seed)
    return encoder


@torch.no_grad()
def settle_norms(encoder: nn.Module, ecg: Tensor, rows: Tensor, crop: int, seed: int = 0) -> None:
    """Running statistics of the norms from some of the data: without them a random encoder is a needlessly weak
    floor."""
    device = next(encoder.parameters()).device
    some = rows[:: max(1, len(rows) // 512)].split(64)
    renew_norms(encoder, lambda i: encoder(ecg[some[i]][..., :crop].to(device).float()), len(some))
    encoder.eval()
