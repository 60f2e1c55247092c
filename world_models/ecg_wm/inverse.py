"""Inverse dynamics: from the coordinates before and after, which drug was given, and how much; and the nearest order.

    model = InverseDynamics.load()                             # the one that ships; or a folder of your own
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
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_models import checkpoint
from world_models.ecg_wm import latent
from world_models.ecg_wm.transitions import COVARIATES, NOTHING_SHARE, dose_limits
from world_models.nn.mlp import mlp
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["ECG_ONLY", "KIND", "SHIPPED", "Inferred", "InverseConfig", "InverseDynamics"]
__all__ += ["menu_probabilities", "project_dose"]

KIND = "ecg-inverse"
SHIPPED = "ecg-inverse-small"  # folder under world_models/weights
# What no ECG holds: a cuff's pressure and what was seen between the ECGs.
ECG_ONLY = tuple(name not in ("systolic_bp_mmhg", "arrhythmia_burden") for name in latent.COORDINATES)
_CENTRES, _SPREADS = (60.0, 0.5, 76.0, 85.0, 12.0), (15.0, 0.5, 15.0, 30.0, 7.0)  # of COVARIATES
_TIMES_H = (1.0, 3.0, 10.0)  # decays that the hours are shown as


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
    def load(cls, folder: str | Path | None = None, device: torch.device | str = "cpu") -> InverseDynamics:
        """From a folder that `save` wrote; None: the one that ships.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """

        def build(plain: dict[str, Any]) -> InverseDynamics:
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
            return cls(InverseConfig(**fields))

        shipped = Path(__file__).parents[1] / "weights" / SHIPPED
        return checkpoint.load_module(shipped if folder is None else folder, KIND, build, device)


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
