"""Inverse dynamics: from the coordinates before and after, which drug was given, and how much; and the nearest order.

    model = InverseDynamics.load(folder)
    found = model.infer(before, after, hours, covariates)      # u of two charts, `latent.standardise`
    found.drug                                                 # [B, 1 + D] nothing, then each drug
    menu_probabilities(found, menu_mg)                         # [B, M] of the entries of a menu
    project_dose(found)                                        # [B, D] mg: the nearest single order

Both answers are distributions: over {nothing, each drug}, and for each drug over bins of log dose. They are posteriors
under the distribution of orders that training used (`transitions`): divided by it they are likelihoods, and so serve
any other set of orders (action projection: ECG-WM's, here with probabilities). Dofetilide and quinidine both block IKr:
at small effects no ECG tells them apart, and how far one could is judged by `benchmarks.ecg_drug.inverse` against the
oracle's own posterior. A coordinate or covariate that is NaN is one that nobody measured.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_models import checkpoint, keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.transitions import (
    COVARIATES,
    HOURS,
    NOTHING_SHARE,
    Transition,
    dose_limits,
    pooled,
    rows_of,
)
from world_models.nn.mlp import mlp, sample_weights
from world_models.quantities.ecg_drug import DRUGS
from world_models.training import Schedule, fit

__all__ = [
    "ECG_ONLY",
    "KIND",
    "Inferred",
    "InverseConfig",
    "InverseDynamics",
    "hidden",
    "inverse_loss",
    "menu_probabilities",
    "project_dose",
    "train_inverse",
]

KIND = "ecg-inverse"
TRAIN_SEED, CALIBRATE_SEED = 5_000_000_000, 6_000_000_000  # of patients; the benchmark's are its own
STRIDE = 100_000  # seeds from one step's batch to the next's
# What no ECG holds: a cuff's pressure and what was seen between the ECGs.
ECG_ONLY = tuple(name not in ("systolic_bp_mmhg", "arrhythmia_burden") for name in latent.COORDINATES)
_CENTRES, _SPREADS = (60.0, 0.5, 76.0, 85.0, 12.0), (15.0, 0.5, 15.0, 30.0, 7.0)  # of COVARIATES
_TIMES_H = (1.0, 3.0, 10.0)  # decays that the hours are shown as
_GROUP_LOST, _ONE_LOST, _SOME_LOST, _COVARIATE_LOST, _NOT_ECG_LOST = 0.2, 0.15, 0.4, 0.2, 0.5  # shares in training


@dataclass(frozen=True)
class InverseConfig:
    """What the network is made of."""

    width: int = 256  # of each hidden layer
    depth: int = 3  # hidden layers
    bins: int = 24  # of log dose, a drug
    coordinates: tuple[str, ...] = latent.COORDINATES  # it was trained on
    covariates: tuple[str, ...] = COVARIATES
    drugs: tuple[str, ...] = DRUGS


class Inferred(NamedTuple):
    """What was given between two ECGs, as probabilities under training's orders."""

    drug: Tensor  # [B, 1 + D] nothing, then each drug
    dose: Tensor  # [B, D, K] of each bin, were that drug given
    edges_mg: Tensor  # [D, K + 1] of the bins


class InverseDynamics(nn.Module):
    """See the module's text. Inputs are float32; NaN stands for what is not known."""

    edges_mg: Tensor  # [D, K + 1]
    temperature: Tensor  # [2] of the drug's and the dose's logits, from calibration patients
    weights_sha256: str

    def __init__(self, config: InverseConfig):
        super().__init__()
        if config.coordinates != latent.COORDINATES or config.covariates != COVARIATES or config.drugs != DRUGS:
            raise ValueError(
                "the config's coordinates, covariates or drugs are not those of this version "
                f"({', '.join(latent.COORDINATES)}); train it again"
            )
        self.config = config
        coordinates, extra = len(config.coordinates), len(config.covariates)
        clock = 2
        inputs = 4 * coordinates + 2 * extra + clock + 2 + len(_TIMES_H)
        sizes = (inputs, *(config.width,) * config.depth, 1 + len(DRUGS) * (1 + config.bins))
        self.network = mlp(sizes)
        self.register_buffer("edges_mg", torch.zeros(len(DRUGS), config.bins + 1))
        self.register_buffer("temperature", torch.ones(2))
        if self.edges_mg.device.type != "meta":
            low, high = dose_limits()
            share = torch.linspace(0, 1, config.bins + 1)
            self.edges_mg.copy_(low[:, None] * (high / low)[:, None] ** share)

    def forward(self, before: Tensor, after: Tensor, hours: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the drug [B, 1 + D] and of the dose's bins [B, D, K].

        Args:
            before, after: [B, COORDS] as `latent.standardise` gives them.
            hours: [B] between the ECGs; the order is taken to be given right after the first.
            covariates: [B, len(COVARIATES)] in their own units.
        """
        known = ~covariates.isnan()
        centre, spread = (covariates.new_tensor(row) for row in (_CENTRES, _SPREADS))
        who = torch.where(known, (covariates - centre) / spread, 0.0)
        angle = torch.where(known[:, -1], covariates[:, -1], 0.0) * (2 * math.pi / 24.0)
        clock = torch.stack([angle.sin(), angle.cos()], -1) * known[:, -1:]
        both = ~(before.isnan() | after.isnan())
        change = torch.where(both, after - before, 0.0)
        level = torch.where(before.isnan(), torch.nan_to_num(after), before)
        time = [(hours / t).neg().exp() for t in _TIMES_H]
        parts = [
            change,
            both,
            torch.nan_to_num(level),
            ~level.isnan() & ~(before.isnan() & after.isnan()),
            who,
            known,
            clock,
            torch.stack([hours / 12.0, hours.log1p(), *time], -1),
        ]
        out = self.network(torch.cat([p.to(before.dtype) for p in parts], -1))
        count = len(DRUGS)
        return out[:, : 1 + count], out[:, 1 + count :].unflatten(-1, (count, self.config.bins))

    @torch.no_grad()
    def infer(self, before: Tensor, after: Tensor, hours: Tensor, covariates: Tensor) -> Inferred:
        """Calibrated probabilities; arguments as `forward`.

        Raises:
            ValueError: shapes that do not go together, or hours that are not above 0.
        """
        size, extra = (len(before), len(self.config.coordinates)), (len(before), len(self.config.covariates))
        if tuple(before.shape) != size or before.shape != after.shape or tuple(covariates.shape) != extra:
            raise ValueError(
                f"need before and after [B, {size[1]}] and covariates [B, {extra[1]}], got {tuple(before.shape)}, "
                f"{tuple(after.shape)} and {tuple(covariates.shape)}"
            )
        if not bool((hours > 0).all()):
            raise ValueError(f"hours between the ECGs must be above 0, got {float(hours.min()):g}; swap the two ECGs")
        drug, dose = self(before, after, hours.to(torch.float32), covariates)
        return Inferred(
            (drug / self.temperature[0]).softmax(-1), (dose / self.temperature[1]).softmax(-1), self.edges_mg
        )

    def save(self, folder: str | Path, card: str) -> str:
        """Write config, weights and card into a sealed folder; returns the seal."""
        config = {"kind": KIND, **dataclasses.asdict(self.config)}
        return checkpoint.save_checkpoint(folder, self.state_dict(), config, card)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> InverseDynamics:
        """From a folder that `save` wrote.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """

        def build(plain: dict[str, Any]) -> InverseDynamics:
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
            return cls(InverseConfig(**fields))

        return checkpoint.load_module(folder, KIND, build, device)


def _log_ratio(found: Inferred, drug: Tensor, dose_mg: Tensor) -> Tensor:
    """log of posterior over training's density, [B, M], of orders drug [M] (0: nothing) and dose_mg [M]: a likelihood
    up to a constant."""
    count = found.dose.shape[1]
    prior = found.drug.new_tensor([NOTHING_SHARE] + [(1 - NOTHING_SHARE) / count] * count)
    ratio = (found.drug.clamp_min(1e-30) / prior).log()[:, drug]
    which = (drug - 1).clamp_min(0)
    edges = found.edges_mg[which].log()
    place = (torch.searchsorted(edges.contiguous(), dose_mg.clamp_min(1e-9).log().unsqueeze(-1)) - 1).squeeze(-1)
    bins = found.dose.shape[-1]
    within = found.dose[:, which, place.clamp(0, bins - 1)]  # training's doses are uniform over the bins
    return ratio + torch.where(drug > 0, (within.clamp_min(1e-30) * bins).log(), 0.0)


def menu_probabilities(found: Inferred, menu_mg: Tensor, prior: Tensor | None = None) -> Tensor:
    """Probability [B, M] of each entry of a menu [M, D] in mg (a row of zeros: nothing), each equally likely beforehand
    or by `prior` [M]: the transition's projection on what can be ordered.

    Raises:
        ValueError: an entry with two drugs at once, of which the model knows nothing.
    """
    several = ((menu_mg > 0).sum(-1) > 1).nonzero().flatten().tolist()
    if several:
        raise ValueError(f"menu entry {several[0]} orders two drugs at once; inverse dynamics knows single orders only")
    drug = torch.where((menu_mg > 0).any(-1), 1 + menu_mg.argmax(-1), 0)
    weight = _log_ratio(found, drug, menu_mg.amax(-1))
    return (weight if prior is None else weight + prior.log()).softmax(-1)


def project_dose(found: Inferred) -> Tensor:
    """The nearest single order, [B, D] mg: the likeliest drug at the median of its dose; zeros for nothing."""
    likeliest = found.drug.argmax(-1)
    which = (likeliest - 1).clamp_min(0)
    bins = found.dose[torch.arange(len(which)), which]
    edges = found.edges_mg[which].log()
    below = torch.cat([torch.zeros_like(bins[:, :1]), bins.cumsum(-1)], -1)
    place = (torch.searchsorted(below.contiguous(), torch.full_like(below[:, :1], 0.5)) - 1).clamp(
        0, bins.shape[-1] - 1
    )
    start, size = below.gather(-1, place), bins.gather(-1, place).clamp_min(1e-9)
    left, right = edges.gather(-1, place), edges.gather(-1, place + 1)
    dose = (left + ((0.5 - start) / size).clamp(0, 1) * (right - left)).exp().squeeze(-1)
    order = F.one_hot(which, found.dose.shape[1]) * dose.unsqueeze(-1)
    return torch.where((likeliest > 0).unsqueeze(-1), order, 0.0)


def hidden(data: Transition, key: Tensor) -> Transition:
    """The same pairs, some of what they hold lost at random: pressure, burden, the T wave, single ones, covariates."""

    def chance(name: str, shape: tuple[int, ...] = ()) -> Tensor:
        return keys.uniform(key, 0, f"hidden/{name}", shape)

    names = latent.COORDINATES
    lost = (chance("one", (len(names),)) < _ONE_LOST) & (chance("some") < _SOME_LOST).unsqueeze(-1)
    ecg = torch.tensor(ECG_ONLY, device=key.device)
    lost |= ~ecg & (chance("not ecg") < _NOT_ECG_LOST).unsqueeze(-1)
    t_wave = torch.tensor([name in latent.T_WAVE for name in names], device=key.device)
    lost |= t_wave & (chance("t wave") < _GROUP_LOST).unsqueeze(-1)
    unknown = chance("covariates", (len(COVARIATES),)) < _COVARIATE_LOST
    return data._replace(
        before=data.before.masked_fill(lost, torch.nan),
        after=data.after.masked_fill(lost, torch.nan),
        covariates=data.covariates.masked_fill(unknown, torch.nan),
    )


def _bin_of(model: InverseDynamics, data: Transition) -> Tensor:
    which = (data.drug - 1).clamp_min(0)
    edges = model.edges_mg[which].log().contiguous()
    place = torch.searchsorted(edges, data.dose_mg.clamp_min(1e-9).log().unsqueeze(-1)).squeeze(-1) - 1
    return place.clamp(0, model.config.bins - 1)


def inverse_loss(model: InverseDynamics, data: Transition) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods, nats a pair: of the drug, and of the dose's bin where a drug was given."""
    drug, dose = model(data.before, data.after, data.hours, data.covariates)
    given = data.drug > 0
    of_drug = dose[torch.arange(len(given)), (data.drug - 1).clamp_min(0)]
    each = F.cross_entropy(of_drug, _bin_of(model, data), reduction="none")
    return F.cross_entropy(drug, data.drug), (each * given).sum() / given.sum().clamp_min(1)


def _calibrate(model: InverseDynamics, batch: int) -> dict[str, float]:
    """Temperatures [2] by maximum likelihood on patients that training has not met (Guo 2017, arXiv:1706.04599)."""
    data = pooled(CALIBRATE_SEED, batch, model.edges_mg.device)
    data = hidden(data, keys.from_seed(CALIBRATE_SEED, len(data.hours), model.edges_mg.device))
    tried = torch.linspace(0.6, 2.0, 57)
    with torch.no_grad():
        drug, dose = model(data.before, data.after, data.hours, data.covariates)
        given = data.drug > 0
        of_drug = dose[torch.arange(len(given)), (data.drug - 1).clamp_min(0)][given]
        place = _bin_of(model, data)[given]
        losses = [(F.cross_entropy(drug / t, data.drug), F.cross_entropy(of_drug / t, place)) for t in tried.tolist()]
        best = torch.tensor(losses).argmin(0)
        model.temperature.copy_(tried[best])
    return {"drug_temperature": float(tried[best[0]]), "dose_temperature": float(tried[best[1]])}


def train_inverse(
    out: Path,
    steps: int = 3000,
    batch: int = 1024,
    config: InverseConfig | None = None,
    device: torch.device | str = "cpu",
    pairs: int = 320_000,
) -> InverseDynamics:
    """Train on `pairs` of the oracle's, made anew at each start (a minute), each met with other coordinates lost every
    time; calibrate, and write the sealed folder `out` (resumable, `out/training`).

    Raises:
        FloatingPointError, CheckpointError: see `training.fit`.
    """
    model = InverseDynamics(config or InverseConfig()).to(device)
    sample_weights(model, TRAIN_SEED)

    pool = pooled(TRAIN_SEED, max(batch, pairs // len(HOURS)), device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(TRAIN_SEED + step * STRIDE, batch, torch.device(device))
        row = (keys.uniform(key, 0, "inverse/row") * len(pool.hours)).long().clamp_max(len(pool.hours) - 1)
        drug, dose = inverse_loss(model, hidden(rows_of(pool, row), keys.fold(key, "inverse/hidden")))
        return drug + 0.5 * dose, {"drug": drug.item(), "dose": dose.item()}

    work = Path(out) / "training"
    fit(model, loss, Schedule(steps, learning_rate=2e-3, weight_decay=1e-4), work, "inverse")
    figures = _calibrate(model.eval(), 2048)
    with open(work / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"stage": "calibrate", **figures}) + "\n")
    model.save(out, _card(steps, batch, len(pool.hours), figures))
    return model.requires_grad_(False)


def _card(steps: int, batch: int, pairs: int, figures: dict[str, float]) -> str:
    return (
        "# Inverse dynamics of the antiarrhythmic world\n\n"
        "From two ECGs' coordinates, hours and covariates: which of nothing, "
        f"{', '.join(DRUGS)} was given between them, and how much, as probabilities.\n\n"
        f"Trained by `world_models.ecg_wm.inverse.train_inverse` on {steps} batches of {batch} of "
        f"{pairs} simulated pairs of the oracle (all cohorts, {HOURS[0]:g} to {HOURS[-1]:g} h, single orders), none "
        f"of them a real patient's; temperatures {figures['drug_temperature']:.3f} (drug) and "
        f"{figures['dose_temperature']:.3f} (dose) from other simulated patients. "
        "Judged by `python -m benchmarks.ecg_drug.inverse`. Not for clinical use.\n"
    )
