"""What a cardiac JEPA's encoder is compared with on real ECGs: scores of rows nobody trained on, by rows that did.

Each method is a function (train, test) -> logits. What has something to choose, chooses it on a quarter of the training
patients: a probe its penalty, boosting its number of trees, a trained encoder its rate and its last step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.progression.arms import fresh_encoder, settle_norms
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.auroc import macro_auroc
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.finetune import FinetuneRecipe, LabelledRows, predict
from world_models.cardiac_jepa.trainees import LabelledTrainee
from world_models.plateau import Patience, Plateau, to_plateau

__all__ = ["Cases", "Scores", "boosted", "of_features", "random_features", "trained"]

Scores = Callable[[Tensor, Tensor], Tensor]  # rows to learn from [N], rows to score [M] -> logits [M, C]
PENALTIES = (10.0, 1.0, *probes.PENALTIES)  # of some hundred ECGs strong ones are often the best
TREES = (15, 40, 100)
LEARN_FEWEST = 2  # ECGs of a class that trees can be grown from
_EDGE = 1e-4  # chances are kept within it and one minus it


class Cases(NamedTuple):
    """ECGs with the labels that are judged."""

    ecg: Tensor  # [N, 12, T] mV at 100 Hz
    label: Tensor  # bool [N, C]
    patient: Tensor  # int64 [N]


def of_features(cases: Cases, h: Tensor, seed: int) -> Scores:
    """A linear probe of features h [N, D]."""

    def scores(train: Tensor, test: Tensor) -> Tensor:
        return probes.fitted_scores(h, cases.label, cases.patient, train, test, seed, PENALTIES)

    return scores


def random_features(cases: Cases, config: JEPAConfig, seed: int, tuning: Tensor) -> Tensor:
    """Features [N, D] of an encoder of that shape that nobody trained, its norms settled on the rows `tuning`."""
    encoder = fresh_encoder(config, seed)
    settle_norms(encoder, cases.ecg, tuning, config.crop_samples)
    return probes.features(encoder, cases.ecg, None, config.crop_samples)


def boosted(cases: Cases, h: Tensor, seed: int) -> Scores:
    """Gradient boosting of features h [N, D], trees to a label; how many, a quarter of the patients chooses.

    Raises (when scored):
        ImportError: no scikit-learn; the message names the extra.
    """

    def scores(train: Tensor, test: Tensor) -> Tensor:
        fit, choose = probes.chosen_apart(cases.patient, cases.label, train, seed)
        tried = _grown(cases, h, fit, choose, TREES)
        found = {n: macro_auroc(tried[n], cases.label[choose]) for n in TREES}
        trees = max(TREES, key=lambda n: found[n])
        return _grown(cases, h, train, test, (trees,))[trees]

    return scores


def _grown(cases: Cases, h: Tensor, train: Tensor, test: Tensor, sizes: Sequence[int]) -> dict[int, Tensor]:
    """Logits [M, C] after each of these numbers of trees."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as error:
        raise ImportError("boosting needs scikit-learn: pip install 'clinenv[offline]'") from error
    out = {n: torch.empty(len(test), cases.label.shape[1]) for n in sizes}
    for c in range(cases.label.shape[1]):
        y = cases.label[train, c]
        share = y.float().mean().clamp(_EDGE, 1 - _EDGE)
        for n in sizes:
            out[n][:, c] = torch.logit(share)  # a class that is hardly there tells nothing
        if min(int(y.sum()), int((~y).sum())) < LEARN_FEWEST:
            continue
        model = HistGradientBoostingClassifier(
            max_iter=max(sizes),
            learning_rate=0.1,
            max_leaf_nodes=8,
            min_samples_leaf=5,
            max_bins=63,
            early_stopping=False,
            random_state=0,
        ).fit(h[train].numpy(), y.numpy())
        for grown, chances in enumerate(model.staged_predict_proba(h[test].numpy()), 1):
            if grown in out:
                out[grown][:, c] = torch.logit(torch.from_numpy(chances[:, 1]).float().clamp(_EDGE, 1 - _EDGE))
    return out


def trained(
    cases: Cases,
    begin: Callable[[], nn.Module],
    h: Tensor | None,
    crop: int,
    rates: Sequence[float],
    patience: Patience,
    folder: Path,
    seed: int,
    told: list[Plateau],
) -> Scores:
    """All weights of an encoder on the labels, to the plateau of a quarter of the training patients at the best rate.

    Args:
        begin: the encoder as it begins, anew each time.
        h: its features [N, D], of which a probe is where the head begins; None: it begins at the labels' shares.
        folder: of progress; one inside it for each set of rows.
        told: what each training came to is added.
    """

    def scores(train: Tensor, test: Tensor) -> Tensor:
        fit, choose = probes.chosen_apart(cases.patient, cases.label, train, seed)
        sides = [LabelledRows(cases.ecg, cases.label, rows) for rows in (fit, choose)]
        probe = None
        if h is not None:
            probe = probes.fit_probe(h[fit], cases.label[fit], (h[choose], cases.label[choose]))
        recipe = FinetuneRecipe(batch=32, crop=crop, seed=seed)
        where = folder / f"{len(train)}-{int(train.sum())}"
        model, found = to_plateau(
            lambda: LabelledTrainee(begin(), sides[0], sides[1], recipe, probe), rates, where, patience
        )
        told.append(found)
        return predict(model.module, cases.ecg, test, crop)

    return scores
