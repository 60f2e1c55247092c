"""Area under the ROC curve, exactly, for many labels, and its bootstrap over patients.

AUROC is the chance that an ECG with the label scores above one without, ties counted half (Mann-Whitney). The macro
average is the plain mean over the labels that can be judged. ECGs of one patient are not independent, so the bootstrap
samples patients, each with all of its ECGs; a draw is a weight for every ECG, and with the ECGs sorted once a label,
all draws' areas come from one cumulative sum of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.bootstrap import Interval, percentile_interval

__all__ = ["Bootstrap", "auroc", "bootstrap_macro", "contrast", "difference", "judged_labels", "macro_auroc", "mean_of"]

_DRAWS_AT_ONCE = 128  # bounds the memory: rows x draws of float32


class Bootstrap(NamedTuple):
    """A model's areas, and those of every draw of patients."""

    area: Tensor  # [C] float64; NaN where a label has one class only
    draws: Tensor  # [R, C] float32; NaN where a draw has one class only
    judged: Tensor  # bool [C], the labels that the macro average is over

    @property
    def macro(self) -> Interval:
        """Macro AUROC. A label that a draw left with one class is left out of that draw's mean."""
        return _interval(float(self.area[self.judged].mean()), _macro_draws(self))

    def label(self, index: int) -> Interval:
        """AUROC of one label; NaN without both classes."""
        return _interval(float(self.area[index]), self.draws[:, index])


def auroc(score: Tensor, label: Tensor) -> Tensor:
    """Areas [C], float64, of scores [N, C] for labels [N, C] (bool or 0/1); NaN where a class is empty.

    Raises:
        ValueError: shapes that do not fit, or a score that is NaN.
    """
    _check(score, label)
    ones = torch.ones(len(score), 1)
    return torch.stack([_areas(score[:, c], label[:, c].bool(), ones)[0] for c in range(score.shape[1])])


def judged_labels(label: Tensor, least: int = 10) -> Tensor:
    """bool [C]: labels with at least `least` ECGs that have it and as many that have not."""
    positives = label.bool().sum(0)
    return (positives >= least) & (len(label) - positives >= least)


def macro_auroc(score: Tensor, label: Tensor, least: int = 1) -> float:
    """Mean area over the labels of `judged_labels`; NaN if there are none."""
    judged = judged_labels(label, max(1, least))
    if not bool(judged.any()):
        return float("nan")
    return float(auroc(score[:, judged], label[:, judged]).mean())


def bootstrap_macro(
    score: Tensor, label: Tensor, patient: Tensor, draws: int = 1000, seed: int = 0, least: int = 10
) -> Bootstrap:
    """Areas, and their distribution over `draws` samples of the patients with replacement.

    The draws depend on (seed, number of patients) alone, so two models judged on the same ECGs meet the same draws and
    `difference` is paired.

    Args:
        score: [N, C].
        label: [N, C] bool.
        patient: int64 [N], whose ECG a row is.
        least: fewest ECGs with and without a label for it to enter the macro average.

    Raises:
        ValueError: shapes that do not fit, a NaN score, fewer than one draw, or no label that can be judged.
    """
    _check(score, label)
    if patient.shape != score.shape[:1]:
        raise ValueError(f"patient {tuple(patient.shape)} must be one number for each of {len(score)} rows")
    if draws < 1:
        raise ValueError(f"draws = {draws} must be 1 or more")
    judged = judged_labels(label, max(1, least))
    if not bool(judged.any()):
        raise ValueError(
            f"no label has {least} ECGs with it and {least} without; give more ECGs or a smaller `least`: "
            f"labels have {label.bool().sum(0).tolist()} of {len(label)}"
        )
    owner = patient.unique(return_inverse=True)[1]
    count = int(owner.max()) + 1
    parts = []
    for first in range(0, draws, _DRAWS_AT_ONCE):
        some = torch.arange(first, min(first + _DRAWS_AT_ONCE, draws))
        key = keys.fold(keys.from_seed(seed).expand(len(some)), some)
        sampled = keys.bits(key, 0, "bootstrap patients", (count,)) % count  # [R, P]
        times = torch.zeros(count, len(some))
        times.T.scatter_add_(1, sampled, torch.ones(len(some), count))
        weight = times[owner]  # [N, R]
        parts.append(torch.stack([_areas(score[:, c], label[:, c].bool(), weight) for c in range(score.shape[1])], 1))
    return Bootstrap(auroc(score, label), torch.cat(parts).float(), judged)


def difference(a: Bootstrap, b: Bootstrap) -> Interval:
    """Macro AUROC of a minus that of b, paired draw by draw; both judged on the same ECGs with the same seed.

    Raises:
        ValueError: they were not.
    """
    return contrast((1.0, a), (-1.0, b))


def contrast(*terms: tuple[float, Bootstrap]) -> Interval:
    """The weighted sum of macro AUROCs, paired draw by draw, of what was judged on the same ECGs with the same seed.

    Raises:
        ValueError: they were not, or there is none.
    """
    if not terms:
        raise ValueError("nothing to contrast; give one weight and bootstrap at least")
    first = terms[0][1]
    for _, other in terms:
        same = first.draws.shape == other.draws.shape and bool((first.judged == other.judged).all())
        if not same or not bool((first.draws.isnan() == other.draws.isnan()).all()):
            raise ValueError("the two were not judged on the same ECGs, labels and draws; bootstrap both in one way")
    point = sum(weight * float(b.area[b.judged].mean()) for weight, b in terms)
    draws = sum((weight * _macro_draws(b) for weight, b in terms), torch.zeros(len(first.draws)))
    return _interval(point, draws)


def mean_of(found: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over runs (seeds) that were judged on the same ECGs and draws: an interval over patients alone.

    Raises:
        ValueError: there is none.
    """
    if not found:
        raise ValueError("no run to average; give one at least")
    return Bootstrap(
        torch.stack([b.area for b in found]).mean(0), torch.stack([b.draws for b in found]).mean(0), found[0].judged
    )


def _macro_draws(b: Bootstrap) -> Tensor:
    return b.draws[:, b.judged].nanmean(1)


def _interval(value: float, draws: Tensor) -> Interval:
    return Interval(value, *percentile_interval(draws[~draws.isnan()].double()))


def _check(score: Tensor, label: Tensor) -> None:
    if score.ndim != 2 or score.shape != label.shape or not len(score):
        raise ValueError(f"score {tuple(score.shape)} and label {tuple(label.shape)} must both be [N, C], N at least 1")
    if bool(score.isnan().any()):
        raise ValueError(f"{int(score.isnan().any(1).sum())} rows have a NaN score; score every row")


def _areas(score: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Areas [R], float64, of one label under R weightings [N, R]."""
    order = score.argsort()
    sorted_score, present = score[order], label[order]
    weight = weight[order]
    # whole numbers below 2^24: the sums are exact in float32
    below = torch.cat([torch.zeros(1, weight.shape[1]), (weight * ~present[:, None]).cumsum(0)])
    at = sorted_score[present].contiguous()
    first = torch.searchsorted(sorted_score, at)
    last = torch.searchsorted(sorted_score, at, right=True)
    mine = weight[present]
    wins = (mine.double() * (below[first].double() + below[last].double())).sum(0) / 2
    return wins / (mine.double().sum(0) * below[-1].double())  # 0 / 0 is NaN: a class is empty
