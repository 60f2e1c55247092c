"""The arms of `benchmarks.progression.fair_arms`: how each is trained, under four schedules, and what it cost.

Under "fair" every stage of every arm, pre-training, fine-tuning or learning from nothing, runs at the same rates until
the validation patients of its own share no longer gain (`plateau`). "equal" is the same within so many seconds of
processor time an arm, tuning included: half of them pre-training's where there is any. "paper" is the epochs and rates
of the published code; "mixed" goes on from its pre-trained encoder and learns the labels as under "fair". An arm lies
in one folder and goes on where it was stopped.
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
from benchmarks.progression.arms import (
    PRESETS,
    PROBE,
    TUNED,
    WHOLE,
    Arm,
    SplitCohort,
    fresh_encoder,
    settle_norms,
    sides_of,
    spread,
)
from world_models import checkpoint
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.config import (
    JEPAConfig,
    as_authors,
    as_paper,
    naive,
    with_inverse,
    with_ode,
    with_vicreg,
)
from world_models.cardiac_jepa.encoder import XResNet1d
from world_models.cardiac_jepa.finetune import Classifier, FinetuneRecipe, LabelledRows, finetune, predict, supervised
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.pretrain import PairSource, pretrain
from world_models.cardiac_jepa.synthetic_pairs import with_synthetic
from world_models.cardiac_jepa.trainees import PROBE_PENALTIES, LabelledTrainee, PairTrainee
from world_models.data.ecg.pairs import with_changes
from world_models.files import write_bytes, write_text
from world_models.plateau import Patience, Plateau, to_plateau

__all__ = ["FORMS", "SCHEDULES", "Epochs", "FairSettings", "Form", "run_fair_arm"]

SCHEDULES = ("fair", "equal", "paper", "mixed")
CHANGED = 0.6  # least share of changed pairs in our own arms


class Form(NamedTuple):
    """How an arm differs from the others."""

    name: str  # in tables
    config: Callable[[JEPAConfig], JEPAConfig]
    pairs: bool = True  # it is pre-trained on pairs
    labels: bool = True  # all weights learn the labels
    changed: float = CHANGED  # least share of changed pairs; 0: in their natural numbers
    reverse: bool = False  # with transitions taken back where nature allows
    chain: int = 1  # transitions joined at most


def _same(config: JEPAConfig) -> JEPAConfig:
    return config


FORMS: dict[str, Form] = {
    "random": Form("Random encoder", _same, pairs=False, labels=False),
    "supervised": Form("Supervised", _same, pairs=False),
    "supervised-records": Form("Supervised, whole records as the authors' code", as_authors, pairs=False),
    "ours": Form("Ours (Latent Dynamics)", _same),
    "inverse": Form("Ours with inverse dynamics", with_inverse),
    "paper": Form("The paper's exact form", as_paper, changed=0.0),
    "authors": Form("The authors' public code", as_authors, changed=0.0),
    "naive": Form("Naive SSL (Invariance)", naive),
    "vicreg": Form("Ours with VICReg", with_vicreg),
    "binary": Form("Ours, binary action without time", lambda c: replace(c, name=f"{c.name}-binary", action="binary")),
    "ode": Form("Ours, Neural ODE in elapsed time", with_ode),
    "reversed": Form("Ours with reversed pairs", _same, reverse=True),
    "chained": Form("Ours with chained pairs", _same, chain=3),
    "reversed-chained": Form("Ours with reversed and chained pairs", _same, reverse=True, chain=3),
}


@dataclass(frozen=True)
class Epochs:
    """The published schedule: passes, batches and rates of the authors' code."""

    supervised: int = 20
    pretrain: int = 50
    finetune: int = 30
    supervised_batch: int = 512
    pretrain_batch: int = 512
    finetune_batch: int = 256
    supervised_rate: float = 1e-4
    pretrain_rate: float = 1e-3
    finetune_rate: float = 1e-4


@dataclass(frozen=True)
class FairSettings:
    """What an arm's weights depend on, besides its form, share, schedule and seed."""

    data: str  # what tells one data set from another (`arms.data_mark`)
    preset: str = "narrow"
    rates: tuple[float, ...] = (3e-4, 1e-3)  # of every stage of every arm
    patience: Patience = Patience()
    epochs: Epochs = Epochs()
    batch: int = 256  # pairs a step
    finetune_batch: int = 64
    # Validation patients for each training patient: fold 18 has one for 18, which at 1 % were 19 people. Never more
    # validation ECGs than training ones.
    valid_for_train: float = 0.25
    probe_rows: int = 4000  # ECGs that probes are fitted on at most
    valid_rows: int = 2000  # ECGs that checks judge at most
    compiled: bool = False  # encoders are trained through compiled kernels


def _folder(
    work: Path, settings: FairSettings, form: str, share: float, schedule: str, seed: int, seconds: float
) -> Path:
    """Of an arm; it says what is in it."""
    told = json.dumps([asdict(settings), form, share, schedule, seed, round(seconds, 1)], default=str)
    folder = work / f"{schedule}-{form}-{share:g}-{seed}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "settings.json", told)
    return folder


def _take_encoder(folder: Path, other: Path) -> None:
    """Begin with the encoder and the probe that an arm of another schedule has made.

    Raises:
        ValueError: it has made none yet.
    """
    names = ("encoder.safetensors", "probe.json", "probe.safetensors")  # the last says that all are there
    if (folder / names[-1]).exists():
        return
    if not (other / names[-1]).exists():
        raise ValueError(
            "schedule 'mixed' goes on from the encoder of 'paper': train that first (--schedules paper mixed)"
        )
    for name in names:
        write_bytes(folder / name, (other / name).read_bytes())


def run_fair_arm(
    cohort: SplitCohort,
    form: str,
    share: float,
    schedule: str,
    settings: FairSettings,
    work: Path,
    seed: int = 0,
    seconds: float = math.inf,
    device: str = "cpu",
) -> Arm:
    """Train what is not trained yet, and score the test ECGs.

    Args:
        seconds: of processor time that training and tuning of the arm may take; with the schedule "equal" alone.

    Raises:
        ValueError: an unknown form or schedule, too few patients at this share, or "mixed" before "paper".
    """
    if form not in FORMS or schedule not in SCHEDULES:
        raise ValueError(
            f"no form {form!r} or schedule {schedule!r}; there are {', '.join(FORMS)} and {', '.join(SCHEDULES)}"
        )
    if math.isfinite(seconds) != (schedule == "equal"):
        raise ValueError(f"schedule {schedule!r} with {seconds:g} seconds: 'equal' needs them, the others have none")
    folder = _folder(work, settings, form, share, schedule, seed, seconds)
    if schedule == "mixed":
        _take_encoder(folder, _folder(work, settings, form, share, "paper", seed, math.inf))
    run = _Run(cohort, FORMS[form], share, schedule, settings, folder, seed, seconds, device)
    scores = run.scores()
    costs = ("pretrain", "probe", "labels")
    cost = {f"{name}_cpu_s": round(run.told.get(f"{name}_cpu_s", 0.0), 1) for name in costs}
    about = {
        "schedule": schedule,
        "method": FORMS[form].name,
        "share": share,
        "seed": seed,
        "train_patients": len(cohort.data.patient[run.side.train].unique()),
        "train_ecgs": len(run.side.train),
        "valid_ecgs": len(run.side.valid),
        "seconds_allowed": seconds if math.isfinite(seconds) else "",
    }
    return Arm(scores, {**about, **run.told, **cost, "cpu_s": round(math.fsum(cost.values()), 1)})


class _Run:
    def __init__(
        self,
        cohort: SplitCohort,
        form: Form,
        share: float,
        schedule: str,
        settings: FairSettings,
        folder: Path,
        seed: int,
        seconds: float,
        device: str,
    ) -> None:
        self.cohort, self.form, self.schedule, self.settings = cohort, form, schedule, settings
        self.folder, self.seed, self.seconds, self.device = folder, seed, seconds, device
        m = cohort.data
        base = replace(PRESETS[settings.preset], codes=m.codes, crop_samples=min(250, m.ecg.shape[-1]))
        self.config = form.config(base)
        if self.config.crop_samples > m.ecg.shape[-1]:
            self.config = replace(self.config, crop_samples=m.ecg.shape[-1])
        self.side = sides_of(cohort, share, seed, settings.valid_for_train)
        self.fit = LabelledRows(m.ecg, m.label, self.side.train)
        self.few = LabelledRows(m.ecg, m.label, spread(self.side.train, settings.probe_rows))
        self.choose = LabelledRows(m.ecg, m.label, spread(self.side.valid, settings.valid_rows))
        self.told: dict[str, Any] = {}

    def scores(self) -> dict[str, Tensor]:
        """protocol -> logits [M, C] of the test ECGs."""
        if not self.form.pairs and self.form.labels:
            return {WHOLE: self._kept("labels", lambda: self._labels(None))["test"]}
        made = self._kept("probe", self._probe)
        out = {PROBE: made["test"]}
        if self.form.labels:
            probe = probes.Probe(**{n: made[f"probe.{n}"] for n in probes.Probe._fields})
            out[TUNED] = self._kept("labels", lambda: self._labels(probe))["test"]
        return out

    def _kept(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `make` gives, made once; what was told while it was made is told again."""
        path, words = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        if not path.exists():
            before = dict(self.told)
            made = make()
            write_text(words, json.dumps({k: v for k, v in self.told.items() if before.get(k) != v}, indent=1))
            checkpoint.save_tensors(path, made)
        self.told |= json.loads(words.read_text(encoding="utf-8"))
        return load_file(path)

    # ---- the parts of an arm

    def _encoder(self) -> nn.Module:
        """Pre-trained, or random with settled norms where the form knows no pairs."""
        if not self.form.pairs:
            encoder = fresh_encoder(self.config, self.seed).to(self.device)
            settle_norms(encoder, self.cohort.data.ecg, self.few.rows, self.config.crop_samples)
            return encoder
        source = self._source()
        if self.schedule == "paper":
            e = self.settings.epochs
            batch = min(e.pretrain_batch, len(source))
            steps = e.pretrain * math.ceil(len(source) / batch)
            with spending(self.folder / "cost-pretrain"):
                jepa = pretrain(
                    self.config,
                    source,
                    self.folder / "pretrain",
                    steps,
                    batch,
                    e.pretrain_rate,
                    self.seed,
                    device=self.device,
                    quicken=lambda jepa: self._quickened(jepa.encoder),
                )
            self.told |= {"pretrain_rate": e.pretrain_rate, "pretrain_steps": steps}
            self.told["pretrain_cpu_s"] = spent(self.folder / "cost-pretrain")
            return jepa.encoder.eval()
        batch = min(self.settings.batch, len(source))
        trainee, found = to_plateau(
            lambda: PairTrainee(
                self._fresh_jepa(),
                source,
                batch,
                self.few,
                self.choose,
                self.config.crop_samples,
            ),
            self.settings.rates,
            self.folder / "pretrain",
            self._patience(),
        )
        self._tell("pretrain", found)
        return trainee.module.encoder.eval()

    def _fresh_jepa(self) -> CardiacJEPA:
        jepa = CardiacJEPA(self.config, self.seed).to(self.device)
        self._quickened(jepa.encoder)
        return jepa

    def _quickened(self, encoder: XResNet1d) -> XResNet1d:
        """The encoder, trained by compiled kernels if the settings say so."""
        return encoder.quicken() if self.settings.compiled else encoder

    def _source(self) -> PairSource:
        m, form = self.cohort.data, self.form
        pairs = with_synthetic(self.side.first, self.side.second, m.label, m.codes, form.reverse, form.chain)
        # the plain pairs' share of changes is raised first, then what is synthetic is added once
        plain = len(self.side.first)
        first, second = with_changes(pairs.first[:plain], pairs.second[:plain], m.label, form.changed)
        back = torch.cat([torch.zeros(len(first), dtype=torch.bool), pairs.reversed[plain:]])
        first, second = torch.cat([first, pairs.first[plain:]]), torch.cat([second, pairs.second[plain:]])
        return PairSource(m, first, second, self.config.crop_samples, self.seed, back)

    def _probe(self) -> dict[str, Tensor]:
        m, crop = self.cohort.data, self.config.crop_samples
        encoder = self._encoder()
        with spending(self.folder / "cost-probe"):
            h = {
                name: probes.features(encoder, m.ecg, rows, crop, device=self.device)
                for name, rows in (("train", self.few.rows), ("valid", self.choose.rows))
            }
            chosen = h["valid"], m.label[self.choose.rows]
            probe = probes.fit_probe(h["train"], m.label[self.few.rows], chosen, PROBE_PENALTIES, loss="asymmetric")
        self.told["probe_cpu_s"] = spent(self.folder / "cost-probe")
        test = probes.features(encoder, m.ecg, self.cohort.test, crop, device=self.device)
        checkpoint.save_tensors(self.folder / "encoder.safetensors", encoder.state_dict())
        return {"test": probes.apply(probe, test), **{f"probe.{n}": x for n, x in probe._asdict().items()}}

    def _begun(self) -> XResNet1d:
        """The encoder that learns labels, as it begins: of its own pre-training, or fresh."""
        encoder = fresh_encoder(self.config, self.seed)
        if self.form.pairs:
            encoder.load_state_dict(load_file(self.folder / "encoder.safetensors"))
        return self._quickened(encoder.to(self.device))

    def _labels(self, probe: probes.Probe | None) -> dict[str, Tensor]:
        model = self._by_epochs() if self.schedule == "paper" else self._by_plateau(probe)
        m = self.cohort.data
        return {"test": predict(model, m.ecg, self.cohort.test, self.config.crop_samples)}

    def _by_plateau(self, probe: probes.Probe | None) -> Classifier:
        s = self.settings
        recipe = FinetuneRecipe(batch=s.finetune_batch, crop=self.config.crop_samples, seed=self.seed)
        trainee, found = to_plateau(
            lambda: LabelledTrainee(self._begun(), self.fit, self.choose, recipe, probe, self.device),
            s.rates,
            self.folder / "labels",
            self._patience(),
        )
        self._tell("labels", found)
        return trainee.module

    def _by_epochs(self) -> Classifier:
        e, count = self.settings.epochs, len(self.fit.rows)
        pairs = self.form.pairs
        batch = min(e.finetune_batch if pairs else e.supervised_batch, count)
        steps = (e.finetune if pairs else e.supervised) * math.ceil(count / batch)
        rate = e.finetune_rate if pairs else e.supervised_rate
        recipe = FinetuneRecipe(steps, batch, rate, crop=self.config.crop_samples, seed=self.seed)
        given = self._begun(), self.fit, self.choose, self.folder / "labels", recipe
        with spending(self.folder / "cost-labels"):
            model = (finetune(*given, device=self.device) if pairs else supervised(*given, (rate,), self.device))[0]
        self.told |= {"labels_rate": rate, "labels_steps": steps}
        self.told["labels_cpu_s"] = spent(self.folder / "cost-labels")
        return model

    def _patience(self) -> Patience:
        """That of a run: an arm's seconds are shared by its stages, a stage's by its rates."""
        stages = int(self.form.pairs) + int(self.form.labels)
        share = self.seconds / (stages * len(self.settings.rates))
        return replace(self.settings.patience, seconds=min(self.settings.patience.seconds, share))

    def _tell(self, stage: str, found: Plateau) -> None:
        self.told |= {
            f"{stage}_rate": found.rate,
            f"{stage}_steps": found.step,
            f"{stage}_steps_of_all_rates": found.steps,
            f"{stage}_valid_macro_auroc": found.score,
            f"{stage}_capped": found.capped,
            f"{stage}_cpu_s": found.cpu_s,
        }
