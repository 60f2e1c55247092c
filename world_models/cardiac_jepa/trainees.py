"""What `plateau.to_plateau` trains of a cardiac JEPA: the JEPA on pairs, and an encoder with a head on labels.

Both are judged by macro AUROC of the validation ECGs: the JEPA by a linear probe of its features, since its own loss
says little of them and is on another scale in each form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.asymmetric_loss import asymmetric_loss
from world_models.cardiac_jepa.auroc import judged_labels, macro_auroc
from world_models.cardiac_jepa.finetune import Classifier, FinetuneRecipe, LabelledRows, labelled_batch, predict
from world_models.cardiac_jepa.pretrain import PairBatches, renew_norms

__all__ = ["LEAST", "LabelledTrainee", "PairTrainee", "check_judged", "probe_score"]

LEAST = 3  # validation ECGs with and without a label for it to enter the score: one of 60 tells nothing but luck
NORM_BATCHES = 20  # that statistics are renewed from before a check
_AHEAD = 1 << 40  # steps that training does not come to: the batches of statistics are others
PROBE_PENALTIES = (1e-1, 1e-2, 1e-3)
MEASURE_EVERY = 20


def check_judged(valid: LabelledRows) -> None:
    """Refuse validation ECGs on which no label can be judged.

    Raises:
        ValueError: there is none.
    """
    if not bool(judged_labels(valid.label[valid.rows], LEAST).any()):
        raise ValueError(
            f"no label has {LEAST} of the {len(valid.rows)} validation ECGs with it and {LEAST} without; give more"
        )


def probe_score(encoder: nn.Module, train: LabelledRows, valid: LabelledRows, crop: int) -> float:
    """Macro AUROC of the validation ECGs by a linear probe of an encoder, fitted on the training ECGs."""
    device = next(encoder.parameters()).device
    h, chosen = (probes.features(encoder, x.ecg, x.rows, crop, device=device) for x in (train, valid))
    known = valid.label[valid.rows]
    probe = probes.fit_probe(h, train.label[train.rows], (chosen, known), PROBE_PENALTIES)
    return macro_auroc(probes.apply(probe, chosen), known, LEAST)


class PairTrainee:
    """A model on pairs: anything with an `encoder` and the loss of `CardiacJEPA`.

    Args:
        model: see above; trained in place.
        source: its pairs.
        batch: pairs a step.
        train, valid: what its probe is fitted on and judged by.
        crop: samples of a crop, as in training.

    Raises:
        ValueError: no label can be judged on the validation ECGs.
    """

    def __init__(
        self, model: nn.Module, source: PairBatches, batch: int, train: LabelledRows, valid: LabelledRows, crop: int
    ) -> None:
        check_judged(valid)
        self.module, self.source, self.size = model, source, batch
        self.train, self.valid, self.crop = train, valid, crop
        self.device = next(model.parameters()).device

    def _batch(self, step: int) -> list[Tensor]:
        return [part.to(self.device) for part in self.source.batch(step, self.size)]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """That of the model."""
        return self.module(*self._batch(step), step, step % MEASURE_EVERY == 0)

    def judge(self) -> float:
        """`probe_score` of the encoder, its statistics renewed."""
        renew_norms(self.module, lambda i: self.module(*self._batch(_AHEAD + i), i, False), NORM_BATCHES)
        return probe_score(self.module.eval().get_submodule("encoder"), self.train, self.valid, self.crop)


class LabelledTrainee:
    """An encoder and a linear head on labels, under the asymmetric loss.

    Args:
        encoder: trained in place.
        train, valid: ECGs with labels.
        recipe: its batch, crop and seed.
        probe: where the head starts; None: at the labels' shares.
        device: of the encoder.

    Raises:
        ValueError: no label can be judged on the validation ECGs.
    """

    def __init__(
        self,
        encoder: nn.Module,
        train: LabelledRows,
        valid: LabelledRows,
        recipe: FinetuneRecipe,
        probe: probes.Probe | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_judged(valid)
        encoder = encoder.to(device).eval()
        example = probes.crop_features(encoder, train.ecg[train.rows[:1]].to(device).float(), recipe.crop)
        self.module = Classifier(encoder, example.shape[1], train.label.shape[1]).to(device)
        placed = None if probe is None else probes.Probe(*(x.to(device) for x in probe))
        self.module.begin(placed, train.label[train.rows].float().mean(0).to(device))
        self.train, self.valid, self.recipe, self.device = train, valid, recipe, device

    def _through(self, step: int) -> tuple[Tensor, Tensor]:
        ecg, label = labelled_batch(self.train, self.recipe, step, self.device)
        return self.module(ecg), label

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The asymmetric loss of random crops."""
        return asymmetric_loss(*self._through(step)), {}

    def judge(self) -> float:
        """Macro AUROC of the validation ECGs, the statistics of the norms renewed."""
        renew_norms(self.module, lambda i: self._through(_AHEAD + i), NORM_BATCHES)
        score = predict(self.module.eval(), self.valid.ecg, self.valid.rows, self.recipe.crop)
        return macro_auroc(score, self.valid.label[self.valid.rows], LEAST)
