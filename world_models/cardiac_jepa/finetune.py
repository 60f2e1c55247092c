"""All weights trained on the labels: an encoder that was pre-trained, or one from scratch (the supervised rival).

Random 2.5 s crops in training, the mean over tiling crops in judging, the asymmetric loss, AdamW on OneCycle, and the
weights of the check with the best macro AUROC on the validation patients. The published set-up lets the dynamics run at
a peak rate of 1e-3, the supervised network at 1e-4 with a clipped gradient; `supervised` does that, and may choose
among several rates on the validation patients, so that a rival is not beaten by its learning rate.

A run is a function of its recipe: the batch of a step is sampled from (seed, step), and a run that was killed goes on.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from world_models import checkpoint, keys
from world_models.cardiac_jepa.asymmetric_loss import asymmetric_loss
from world_models.cardiac_jepa.auroc import macro_auroc
from world_models.cardiac_jepa.encoder import initialise
from world_models.cardiac_jepa.probes import Probe, crop_features
from world_models.files import write_text

__all__ = ["Classifier", "FinetuneRecipe", "LabelledRows", "finetune", "labelled_batch", "predict", "supervised"]


@dataclass(frozen=True)
class FinetuneRecipe:
    """How the labels are learned.

    Raises:
        ValueError: a count below 1, or a rate or clip that is not above 0.
    """

    steps: int = 2000
    batch: int = 64
    rate: float = 1e-3  # peak of OneCycle
    clip: float = 1.0  # norm of the gradient
    weight_decay: float = 1e-2
    checks: int = 10  # times that the validation patients are judged, evenly over the steps; the start is judged too
    crop: int = 250  # samples; 2.5 s at 100 Hz
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.checks, self.crop) < 1 or min(self.rate, self.clip) <= 0:
            raise ValueError(f"steps, batch, checks and crop must be 1 or more, rate and clip above 0: {self}")


class LabelledRows(NamedTuple):
    """Rows of a table of ECGs; the table itself is shared, not copied."""

    ecg: Tensor  # [N, 12, T] any floating type, mV
    label: Tensor  # bool [N, C]
    rows: Tensor  # int64 [M]


class Classifier(nn.Module):
    """Encoder [B, 12, T] -> h [B, D], and a linear head: the mean of crops' logits is the logits of their mean h."""

    def __init__(self, encoder: nn.Module, features: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ecg: Tensor) -> Tensor:
        """Logits [B, C] of ECGs [B, 12, T] mV."""
        return self.head(self.encoder(ecg))

    @torch.no_grad()
    def begin(self, probe: Probe | None, share: Tensor) -> None:
        """Start the head at a linear probe's (Kumar 2022, arXiv:2202.10054), or at the labels' shares [C]."""
        if probe is None:
            self.head.bias.copy_(torch.logit(share.clamp(1e-4, 1 - 1e-4)))
        else:
            weight = probe.weight / probe.scale
            self.head.weight.copy_(weight)
            self.head.bias.copy_(probe.bias - weight @ probe.mean)


@torch.no_grad()
def predict(model: Classifier, ecg: Tensor, rows: Tensor, crop: int = 250, batch: int = 128) -> Tensor:
    """Logits [M, C] of rows [M], on the CPU: the mean over crops that tile each record."""
    device = model.head.weight.device
    was = model.training
    model.eval()
    out = [
        model.head(crop_features(model.encoder, ecg[r].to(device).float(), crop)).float().cpu()
        for r in rows.split(batch)
    ]
    model.train(was)
    return torch.cat(out)


def finetune(
    encoder: nn.Module,
    train: LabelledRows,
    valid: LabelledRows,
    folder: Path,
    recipe: FinetuneRecipe,
    probe: Probe | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Classifier, float]:
    """Train encoder and head on all labels; the best check's weights and its validation macro AUROC.

    The encoder is changed in place. Progress lies in `folder`; a finished run is loaded and returned from at once.

    Args:
        probe: where the head starts; None: from the labels' shares.

    Raises:
        ValueError: no rows, or a folder with another recipe's run.
        FloatingPointError: the loss is not finite.
    """
    if not len(train.rows) or not len(valid.rows):
        raise ValueError(f"{len(train.rows)} training and {len(valid.rows)} validation ECGs; each needs one at least")
    _same_run(folder, recipe, train, valid)
    example = crop_features(encoder.eval(), train.ecg[train.rows[:1]].to(device).float(), recipe.crop)
    model = Classifier(encoder, example.shape[1], train.label.shape[1]).to(device).train()
    model.begin(probe, train.label[train.rows].float().mean(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    run = _FinetuneRun(folder, model, optimiser)
    step = run.restore()
    if step == 0:
        run.keep_best(_judge(model, valid, recipe), 0)
    cycle = _cycle(optimiser, recipe, step)
    checks = {round(recipe.steps * (i + 1) / recipe.checks) for i in range(recipe.checks)}
    saved = time.monotonic()
    with tqdm(total=recipe.steps, initial=step, desc=folder.name, mininterval=2) as bar:
        while step < recipe.steps:
            ecg, label = labelled_batch(train, recipe, step, device)
            optimiser.zero_grad(set_to_none=True)
            loss = asymmetric_loss(model(ecg), label)
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"{folder}: the loss is {loss.item()} at step {step}; lower the learning rate")
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            if bool(torch.isfinite(norm)):
                optimiser.step()
            cycle.step()
            step += 1
            bar.update()
            if step in checks:
                found = _judge(model, valid, recipe)
                run.keep_best(found, step)
                run.log({"step": step, "loss": loss.item(), "gradient": norm.item(), "valid_macro_auroc": found})
                bar.set_postfix(valid=f"{found:.4f}", best=f"{run.best:.4f}", refresh=False)
            if step in checks or time.monotonic() - saved > 60:
                run.save(step)
                saved = time.monotonic()
    run.load_best()
    return model.eval(), run.best


def supervised(
    encoder: nn.Module,
    train: LabelledRows,
    valid: LabelledRows,
    folder: Path,
    recipe: FinetuneRecipe,
    rates: Sequence[float] = (1e-4,),
    device: torch.device | str = "cpu",
) -> tuple[Classifier, float, float]:
    """The same from scratch, at the best of `rates` on the validation patients.

    The encoder's weights are sampled from the recipe's seed: what they were does not matter. Default rate: the paper's.

    Returns:
        the model, its validation macro AUROC, the rate that was chosen.
    """
    built = {n: x.detach().clone() for n, x in encoder.state_dict().items()}
    best: tuple[float, float, dict[str, Tensor]] | None = None
    model: Classifier | None = None
    for rate in rates:
        encoder.load_state_dict(built)
        initialise(encoder, recipe.seed)
        _fresh_norms(encoder)
        one = FinetuneRecipe(**{**asdict(recipe), "rate": rate})
        model, found = finetune(encoder, train, valid, folder / f"rate-{rate:g}", one, device=device)
        if best is None or found > best[0]:
            best = (found, rate, {n: x.detach().clone() for n, x in model.state_dict().items()})
    if model is None or best is None:
        raise ValueError("rates is empty; give one learning rate at least")
    model.load_state_dict(best[2])
    return model, best[0], best[1]


def _cycle(optimiser: torch.optim.Optimizer, recipe: FinetuneRecipe, step: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """The schedule, brought to where a run goes on."""
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has not stepped yet: it has, before it was stopped
        for _ in range(step):
            cycle.step()
    return cycle


def _fresh_norms(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._NormBase):
            m.reset_running_stats()


def _judge(model: Classifier, valid: LabelledRows, recipe: FinetuneRecipe) -> float:
    return macro_auroc(predict(model, valid.ecg, valid.rows, recipe.crop), valid.label[valid.rows])


def labelled_batch(
    train: LabelledRows, recipe: FinetuneRecipe, step: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Crops [B, 12, crop] and labels [B, C]; each pass over the rows in a new order, a function of (seed, step)."""
    count = len(train.rows)
    size = min(recipe.batch, count)  # a tenth of a small cohort can be smaller than a batch
    whole = count // size
    key = keys.fold(keys.from_seed(recipe.seed), "finetune")
    order = keys.uniform(key, step // whole, "order", (count,))[0].argsort()
    place = step % whole * size
    rows = train.rows[order[place : place + size]]
    ecg = train.ecg[rows].float()
    if ecg.shape[-1] > recipe.crop:
        room = ecg.shape[-1] - recipe.crop + 1
        first = keys.bits(key, step, "crop", (size,))[0] % room
        at = first[:, None, None] + torch.arange(recipe.crop)
        ecg = ecg.gather(2, at.expand(-1, ecg.shape[1], -1))
    return ecg.to(device), train.label[rows].to(device)


def _same_run(folder: Path, recipe: FinetuneRecipe, train: LabelledRows, valid: LabelledRows) -> None:
    """Refuse a folder whose progress belongs to other settings or other rows."""
    mine = {
        **asdict(recipe),
        "train": [len(train.rows), int(train.rows.sum())],
        "valid": [len(valid.rows), int(valid.rows.sum())],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept != mine:
            differ = sorted(k for k in {*kept, *mine} if kept.get(k) != mine.get(k))
            raise ValueError(
                f"{folder} holds a run that differs in {', '.join(differ)}; delete it or name another folder"
            )
    write_text(path, json.dumps(mine))


class _FinetuneRun:
    """What is kept of a run: progress (weights, moments, step) and the best check's weights."""

    def __init__(self, folder: Path, model: Classifier, optimiser: torch.optim.AdamW) -> None:
        self.folder, self.model, self.optimiser = folder, model, optimiser
        self.best = float("-inf")

    def restore(self) -> int:
        path = self.folder / "progress.safetensors"
        if not path.exists():
            return 0
        kept = load_file(path)
        self.model.load_state_dict({n.removeprefix("model."): x for n, x in kept.items() if n.startswith("model.")})
        for i, p in enumerate(self.model.parameters()):
            if f"moment.{i}.exp_avg" in kept:
                state = {n: kept[f"moment.{i}.{n}"] for n in ("step", "exp_avg", "exp_avg_sq")}
                self.optimiser.state[p].update({n: x.to(p.device) if n != "step" else x for n, x in state.items()})
        self.best = float(load_file(self.folder / "best.safetensors")["valid_macro_auroc"])
        return int(kept["steps_done"])

    def save(self, step: int) -> None:
        tensors = {f"model.{n}": x.detach().cpu() for n, x in self.model.state_dict().items()}
        for i, p in enumerate(self.model.parameters()):
            tensors |= {f"moment.{i}.{n}": x.detach().cpu() for n, x in self.optimiser.state.get(p, {}).items()}
        checkpoint.save_tensors(self.folder / "progress.safetensors", tensors | {"steps_done": torch.tensor(step)})

    def keep_best(self, found: float, step: int) -> None:
        """A validation without both classes of any label (NaN) chooses nothing: the latest weights are kept then."""
        if found == found and found <= self.best:
            return
        self.best = found if found == found else float("-inf")
        tensors = {f"model.{n}": x.detach().cpu() for n, x in self.model.state_dict().items()}
        tensors |= {"valid_macro_auroc": torch.tensor(self.best, dtype=torch.float64), "steps_done": torch.tensor(step)}
        checkpoint.save_tensors(self.folder / "best.safetensors", tensors)

    def load_best(self) -> None:
        kept = load_file(self.folder / "best.safetensors")
        self.best = float(kept["valid_macro_auroc"])
        self.model.load_state_dict({n.removeprefix("model."): x for n, x in kept.items() if n.startswith("model.")})

    def log(self, row: dict[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
