"""Linear probes on a frozen encoder: is a condition a direction of the latent?

A probe is a logistic layer on standardised features, fitted to its optimum by L-BFGS in float64 rather than by a few
epochs of stochastic steps, so that two encoders are compared and not two learning rates. How strongly its weights are
held back (L2) is chosen on patients that neither fitted it nor judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models import keys
from world_models.cardiac_jepa.asymmetric_loss import asymmetric_loss
from world_models.cardiac_jepa.auroc import macro_auroc

__all__ = [
    "PENALTIES",
    "Probe",
    "apply",
    "chosen_apart",
    "cross_validated",
    "crop_features",
    "features",
    "fit_probe",
    "fitted_scores",
    "folds_of",
    "youden",
]

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # of the mean loss; strongest first: each fit starts at the one before
_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": lambda logits, y: F.binary_cross_entropy_with_logits(logits, y),
    "asymmetric": asymmetric_loss,
}


class Probe(NamedTuple):
    """Logits = (h - mean) / scale @ weight.T + bias."""

    weight: Tensor  # [C, D] float32
    bias: Tensor  # [C]
    mean: Tensor  # [D] of the features it was fitted on
    scale: Tensor  # [D] their standard deviation


def apply(probe: Probe, h: Tensor) -> Tensor:
    """Logits [..., C] of features [..., D]."""
    return ((h - probe.mean) / probe.scale) @ probe.weight.T + probe.bias


def fit_probe(
    h: Tensor,
    label: Tensor,
    valid: tuple[Tensor, Tensor] | None = None,
    penalties: Sequence[float] = PENALTIES,
    loss: str = "bce",
    iterations: int = 60,
) -> Probe:
    """The best logistic layer from features h [N, D] to labels [N, C] (bool).

    Args:
        valid: features and labels of other patients, whose macro AUROC chooses among the penalties; needed where there
            are several. Of equals the strongest penalty is kept.
        penalties: L2 / 2 on the weights (not the bias) beside the mean loss.
        loss: "bce", whose probabilities mean what they say, or "asymmetric" (the paper's).
        iterations: of L-BFGS at most, a penalty.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, several penalties without `valid`, or an
            unknown loss.
    """
    if h.ndim != 2 or label.ndim != 2 or len(h) != len(label) or not len(h):
        raise ValueError(
            f"features {tuple(h.shape)} and label {tuple(label.shape)} must be [N, D] and [N, C], N at least 1"
        )
    if not bool(torch.isfinite(h).all()):
        raise ValueError(f"{int((~torch.isfinite(h)).any(1).sum())} rows of features are not finite; check the encoder")
    if loss not in _LOSSES:
        raise ValueError(f"loss {loss!r} must be one of {', '.join(_LOSSES)}")
    if not penalties or (len(penalties) > 1 and valid is None):
        raise ValueError(
            f"{len(penalties)} penalties need `valid`, the patients that choose among them; or give one penalty"
        )
    mean, scale = h.double().mean(0), h.double().std(0, correction=0).clamp(min=1e-6)
    x, y = (h.double() - mean) / scale, label.double()
    share = (y.mean(0) * len(y) + 0.5) / (len(y) + 1.0)  # never 0 or 1: a label that is never there stays unlikely
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=torch.float64)
    bias = torch.logit(share)
    best: tuple[float, Probe] | None = None
    for penalty in sorted(penalties, reverse=True):
        weight, bias = _minimise(x, y, weight, bias, penalty, _LOSSES[loss], iterations)
        probe = Probe(weight.float(), bias.float(), mean.float(), scale.float())
        found = 0.0 if valid is None else macro_auroc(apply(probe, valid[0].float()), valid[1])
        if best is None or found > best[0] or best[0] != best[0]:
            best = (found, probe)
    assert best is not None
    return best[1]


def _minimise(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    penalty: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
) -> tuple[Tensor, Tensor]:
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [w, b],
        max_iter=iterations,
        max_eval=iterations * 5 // 4,
        tolerance_grad=1e-7,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        # summed over the labels: each is a problem of its own, and a mean would weigh the penalty by their number
        value = loss(x @ w.T + b, y) * y.shape[1] + 0.5 * penalty * (w * w).sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)
    return w.detach(), b.detach()


def crop_features(encoder: Callable[[Tensor], Tensor], ecg: Tensor, crop: int | None = 250) -> Tensor:
    """Features [B, D] of ECGs [B, 12, T]: the mean over crops that tile the record (crop None or above T: all).

    Where the crops do not divide T, the last one ends with the record and overlaps the one before.
    """
    samples = ecg.shape[-1]
    if crop is None or samples <= crop:
        return encoder(ecg)
    starts = sorted({*range(0, samples - crop + 1, crop), samples - crop})
    parts = torch.stack([ecg[..., s : s + crop] for s in starts], 1)
    return encoder(parts.flatten(0, 1)).unflatten(0, (len(ecg), len(starts))).mean(1)


@torch.no_grad()
def features(
    encoder: nn.Module,
    ecg: Tensor,
    rows: Tensor | None = None,
    crop: int | None = 250,
    batch: int = 128,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Frozen features [M, D] float32, on the CPU, of rows [M] of ECGs [N, 12, T] of any floating type.

    The encoder is used in evaluation mode and left in the mode it had.
    """
    rows = torch.arange(len(ecg)) if rows is None else rows
    was, out = encoder.training, []
    encoder.eval()
    try:
        for some in rows.split(batch):
            out.append(crop_features(encoder, ecg[some].to(device).float(), crop).float().cpu())
    finally:
        encoder.train(was)
    return torch.cat(out)


def folds_of(group: Tensor, label: Tensor, folds: int, seed: int = 0) -> Tensor:
    """A fold [N] int64 for every row: groups (patients) whole, every label spread as evenly as may be.

    The rarest label's groups are dealt out first, each to the fold that has fewest of them; chance only breaks ties.

    Raises:
        ValueError: fewer than two folds, or fewer groups than folds.
    """
    names, owner = group.unique(return_inverse=True)
    if folds < 2 or len(names) < folds:
        raise ValueError(f"{len(names)} patients cannot be dealt into {folds} folds; ask for 2 to {len(names)}")
    has = torch.zeros(len(names), label.shape[1]).index_add_(0, owner, label.float()) > 0
    chance = keys.uniform(keys.fold(keys.from_seed(seed).expand(len(names)), names.to(torch.int64)), 0, "fold")
    place = torch.full((len(names),), -1)
    size = torch.zeros(folds, dtype=torch.int64)
    counts = torch.zeros(folds, label.shape[1], dtype=torch.int64)
    for c in [*has.sum(0).argsort().tolist(), None]:
        mine = (place < 0) & (has[:, c] if c is not None else True)
        for g in sorted(mine.nonzero()[:, 0].tolist(), key=lambda g: float(chance[g])):
            wanted = size if c is None else counts[:, c] * (len(names) + 1) + size
            to = int(wanted.argmin())
            place[g] = to
            size[to] += 1
            counts[to] += has[g]
    return place[owner]


def cross_validated(
    h: Tensor,
    label: Tensor,
    group: Tensor,
    folds: int = 5,
    seed: int = 0,
    penalties: Sequence[float] = (1.0, *PENALTIES),
    loss: str = "bce",
) -> Tensor:
    """Logits [N, C], each from a probe that never saw the row's patient.

    In every fold the penalty is chosen on one inner fold of the training patients and the probe fitted on all of them
    again. A label with one class in a fold's training patients gets that fold's base rate: it tells nothing.
    """
    fold = folds_of(group, label, folds, seed)
    out = torch.empty(label.shape)
    for f in range(folds):
        train, test = ((fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0])
        out[test] = fitted_scores(h, label, group, train, test, seed, penalties, loss)
    return out


def chosen_apart(group: Tensor, label: Tensor, train: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The training rows parted by patient: those that something is fitted on, and a quarter that chooses."""
    inner = folds_of(group[train], label[train], min(4, len(group[train].unique())), seed + 1) == 0
    return train[~inner], train[inner]


def fitted_scores(
    h: Tensor,
    label: Tensor,
    group: Tensor,
    train: Tensor,
    test: Tensor,
    seed: int = 0,
    penalties: Sequence[float] = (1.0, *PENALTIES),
    loss: str = "bce",
) -> Tensor:
    """Logits of the rows `test` by a probe of the rows `train` of features h [N, D], labels [N, C], patients [N].

    The penalty is chosen on a quarter of the training patients, and the probe fitted on all of them again.
    """
    fit, choose = chosen_apart(group, label, train, seed)
    best = (float("-inf"), penalties[0])
    for penalty in sorted(penalties, reverse=True):
        probe = fit_probe(h[fit], label[fit], None, (penalty,), loss)
        found = macro_auroc(apply(probe, h[choose]), label[choose])
        best = max(best, (found, penalty))
    return apply(fit_probe(h[train], label[train], None, (best[1],), loss), h[test])


def youden(score: Tensor, label: Tensor) -> Tensor:
    """Thresholds [C] on scores [N, C] with the largest sensitivity + specificity - 1 (Youden 1950); NaN: one class.

    A row is read as having the label when its score is at or above the threshold.
    """
    out = torch.full((score.shape[1],), float("nan"))
    for c in range(score.shape[1]):
        values, order = score[:, c].sort(descending=True)
        present = label[order, c].bool()
        if bool(present.any()) and not bool(present.all()):
            gain = present.double().cumsum(0) / present.sum() - (~present).double().cumsum(0) / (~present).sum()
            gain[:-1][values[1:] == values[:-1]] = float("-inf")  # a tie is read as a whole
            out[c] = values[int(gain.argmax())]
    return out
