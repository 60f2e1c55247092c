"""The arms of `benchmarks.progression.tables`: what is trained on which patients, and its scores of the test ECGs.

An arm is a method and a share of the training patients. Its pre-training (if it has one), its probe and its
fine-tuning lie in one folder whose name tells method, share and a digest of the settings, so that a command that was
stopped goes on, arms can be made on several machines and brought together, and other settings never meet old weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.common.spent import spending, spent
from world_models import checkpoint
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.config import FULL, NARROW, JEPAConfig, naive, with_inverse, with_vicreg
from world_models.cardiac_jepa.encoder import XResNet1d, initialise
from world_models.cardiac_jepa.finetune import FinetuneRecipe, LabelledRows, finetune, predict, supervised
from world_models.cardiac_jepa.pretrain import PairSource, pretrain, renew_norms
from world_models.data.ecg.monolith import Monolith
from world_models.data.ecg.pairs import consecutive, subset_patients, with_changes
from world_models.files import write_text

__all__ = [
    "METHODS",
    "PRESETS",
    "PROBE",
    "TUNED",
    "WHOLE",
    "Arm",
    "SplitCohort",
    "ArmSettings",
    "cohort_of",
    "data_mark",
    "fresh_encoder",
    "run_arm",
    "settle_norms",
]

PROBE, TUNED, WHOLE = "Linear probe", "Finetuned", "End-to-end"
VALID_FOLD, TEST_FOLD = 18, 19

# method -> how its configuration comes from the model's own; None: nothing is pre-trained
METHODS: dict[str, Callable[[JEPAConfig], JEPAConfig] | None] = {
    "ours": lambda config: config,
    "naive": naive,
    "vicreg": with_vicreg,
    "inverse": with_inverse,
    "supervised": None,
    "random": None,
}
PRESETS = {"narrow": NARROW, "xresnet1d50": FULL}


@dataclass(frozen=True)
class ArmSettings:
    """What an arm's weights depend on."""

    data: str  # what tells one data set from another: rows, patients, a sum
    preset: str = "narrow"
    steps: int = 4000  # of pre-training on all patients
    batch: int = 256
    rate: float = 1e-3
    changed: float = (
        0.6  # of the pairs that pre-training sees at least this share has a change; naive learning sees the same
    )
    finetune_steps: int = 2000  # on all patients; the supervised rival has as many
    finetune_batch: int = 64
    finetune_rate: float = 1e-3
    head: str = "probe"  # where the fine-tuned head starts: "probe" or "shares"
    supervised_rates: tuple[float, ...] = (1e-4, 1e-3)  # the validation patients choose
    clip: float = 1.0
    steps_power: float = (
        0.5  # at a share f of the patients steps are multiplied by f to this power: fewer passes wasted
    )
    probe_loss: str = "asymmetric"  # as published
    probe_rows: int = 40_000  # ECGs that the probe is fitted on at most
    valid_rows: int = 4000  # ECGs that checks during fine-tuning use at most
    crop: int = 250
    seed: int = 0

    def at(self, steps: int, share: float) -> int:
        """Steps at a share of the patients: at least 50, at most `steps`."""
        return min(steps, max(50, round(steps * share**self.steps_power)))


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


def run_arm(
    cohort: SplitCohort, method: str, share: float, settings: ArmSettings, work: Path, device: str = "cpu"
) -> Arm:
    """Train what is not trained yet, and score the test ECGs.

    Raises:
        ValueError: an unknown method, or too few patients at this share.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    m = cohort.data
    inside = torch.zeros(len(m.patient), dtype=torch.bool)
    inside[cohort.train] = True
    if share < 1:
        inside[cohort.train] = subset_patients(m.patient[cohort.train], share, settings.seed)
    train = inside.nonzero()[:, 0]
    digest = hashlib.sha256(json.dumps([asdict(settings), method, share]).encode()).hexdigest()[:10]
    folder = work / f"{method}-{share:g}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "settings.json", json.dumps(asdict(settings), indent=1))
    told = {
        "method": method,
        "share": share,
        "train_patients": len(m.patient[train].unique()),
        "train_ecgs": len(train),
    }
    run = _Run(cohort, train, inside, settings, share, folder, device)
    scores = run.supervised(told) if method == "supervised" else run.pretrained(method, told)
    return Arm(scores, told)


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


class _Run:
    def __init__(
        self,
        cohort: SplitCohort,
        train: Tensor,
        inside: Tensor,
        settings: ArmSettings,
        share: float,
        folder: Path,
        device: str,
    ) -> None:
        self.cohort, self.train, self.inside = cohort, train, inside
        self.settings, self.share, self.folder, self.device = settings, share, folder, device
        self.config = replace(PRESETS[settings.preset], codes=cohort.data.codes, crop_samples=settings.crop)
        m, s = cohort.data, settings
        self.fit = LabelledRows(m.ecg, m.label, train)
        few = cohort.valid[torch.linspace(0, len(cohort.valid) - 1, min(len(cohort.valid), s.valid_rows)).long()]
        self.choose = LabelledRows(m.ecg, m.label, few)

    def recipe(self, rate: float) -> FinetuneRecipe:
        s = self.settings
        steps = s.at(s.finetune_steps, self.share)
        return FinetuneRecipe(steps, s.finetune_batch, rate, s.clip, crop=s.crop, seed=s.seed)

    def kept(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            with spending(self.folder / f"cost-{name}"):
                checkpoint.save_tensors(path, make())
        return load_file(path)

    def supervised(self, told: dict[str, Any]) -> dict[str, Tensor]:
        s, m = self.settings, self.cohort.data

        def make() -> dict[str, Tensor]:
            encoder = fresh_encoder(self.config, s.seed).to(self.device)
            folder, recipe = self.folder / "train", self.recipe(s.supervised_rates[0])
            model, found, rate = supervised(
                encoder, self.fit, self.choose, folder, recipe, s.supervised_rates, self.device
            )
            return {"test": predict(model, m.ecg, self.cohort.test, s.crop), "found": torch.tensor([found, rate])}

        made = self.kept("scores", make)
        told |= {"valid_macro_auroc": float(made["found"][0]), "rate": float(made["found"][1])}
        told |= {"steps": 0, "finetune_steps": self.recipe(1.0).steps}
        told |= {"pretrain_cpu_s": 0.0, "cpu_s": round(spent(self.folder / "cost-scores"), 1)}
        return {WHOLE: made["test"]}

    def encoder(self, method: str) -> nn.Module:
        """Pre-trained (progress in the folder, loaded if done), or random with settled norms."""
        s, m = self.settings, self.cohort.data
        variant = METHODS[method]
        if variant is None:
            encoder = fresh_encoder(self.config, s.seed).to(self.device)
            settle_norms(encoder, m.ecg, self.train, s.crop)
            return encoder
        keep = self.inside[self.cohort.first]
        first, second = self.cohort.first[keep], self.cohort.second[keep]
        if len(first) < 2:
            raise ValueError(
                f"{len(first)} pairs at a share of {self.share:g}; the dynamics need more patients seen twice"
            )
        batch = min(s.batch, len(first))
        source = PairSource(m, *with_changes(first, second, m.label, s.changed), crop=s.crop, seed=s.seed)
        jepa = pretrain(
            variant(self.config),
            source,
            self.folder / "pretrain",
            s.at(s.steps, self.share),
            batch,
            s.rate,
            s.seed,
            device=self.device,
        )
        return jepa.encoder.eval()

    def pretrained(self, method: str, told: dict[str, Any]) -> dict[str, Tensor]:
        s, m = self.settings, self.cohort.data

        def make() -> dict[str, Tensor]:
            with spending(self.folder / "cost-pretrain"):
                encoder = self.encoder(method)
            rows = self.train[torch.linspace(0, len(self.train) - 1, min(len(self.train), s.probe_rows)).long()]
            h = {
                name: probes.features(encoder, m.ecg, some, s.crop, device=self.device)
                for name, some in (("train", rows), ("valid", self.cohort.valid), ("test", self.cohort.test))
            }
            probe = probes.fit_probe(
                h["train"], m.label[rows], (h["valid"], m.label[self.cohort.valid]), loss=s.probe_loss
            )
            return {"test": probes.apply(probe, h["test"]), **{f"probe.{n}": x for n, x in probe._asdict().items()}}

        made = self.kept("probe", make)
        out = {PROBE: made["test"]}
        told |= {"steps": s.at(s.steps, self.share) if METHODS[method] else 0}
        if METHODS[method] is not None:
            probe = probes.Probe(**{n: made[f"probe.{n}"].to(self.device) for n in probes.Probe._fields})

            def tune() -> dict[str, Tensor]:
                encoder = self.encoder(method)
                model, found = finetune(
                    encoder,
                    self.fit,
                    self.choose,
                    self.folder / "finetune",
                    self.recipe(s.finetune_rate),
                    probe if s.head == "probe" else None,
                    self.device,
                )
                return {"test": predict(model, m.ecg, self.cohort.test, s.crop), "found": torch.tensor([found])}

            tuned = self.kept("finetuned", tune)
            out[TUNED] = tuned["test"]
            told |= {"finetune_steps": self.recipe(1.0).steps, "rate": s.finetune_rate}
            told["valid_macro_auroc"] = float(tuned["found"][0])
        cost = math.fsum(spent(self.folder / f"cost-{n}") for n in ("probe", "finetuned"))
        told |= {"pretrain_cpu_s": round(spent(self.folder / "cost-pretrain"), 1), "cpu_s": round(cost, 1)}
        return out
