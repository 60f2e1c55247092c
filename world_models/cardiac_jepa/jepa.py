"""CardiacJEPA: encoder, projector, action projector and predictor, and the loss that trains all four.

    L = (1 - lambda) |z_hat' - z'|^2 + lambda (SIGReg(z) + SIGReg(z'))

with z = project(encode(ECG)) and z_hat' = Dyn(z, a, days). No momentum encoder, no stop-gradient: SIGReg alone keeps
the latents apart. The ablation puts VICReg's terms, with its authors' weights, in the place of SIGReg. Past the paper,
and only where `config.inverse` weighs it, inverse dynamics is added (`inverse.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa.actions import action_projector
from world_models.cardiac_jepa.collapse import effective_rank
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.dynamics import Dynamics, PlainDynamics
from world_models.cardiac_jepa.encoder import XResNet1d, initialise
from world_models.cardiac_jepa.inverse import InverseDynamics
from world_models.cardiac_jepa.ode_dynamics import OdeDynamics
from world_models.cardiac_jepa.projector import AuthorsProjector, Projector
from world_models.cardiac_jepa.reduce import mean_over_ranks, sum_over_ranks
from world_models.cardiac_jepa.sigreg import sigreg
from world_models.cardiac_jepa.vicreg import COVARIANCE, INVARIANCE, VARIANCE, vicreg

__all__ = ["CardiacJEPA"]


def _predictor(config: JEPAConfig, embedding: int) -> Dynamics | PlainDynamics | OdeDynamics:
    """The predictor that the config names."""
    if config.dynamics == "ode":
        return OdeDynamics(config.latent, embedding, config.dynamics_hidden)
    if config.layers == "authors":
        return PlainDynamics(config.latent, embedding, config.dynamics_hidden)
    return Dynamics(config.latent, embedding, config.dynamics_hidden, config.dynamics_blocks)


class CardiacJEPA(nn.Module):
    """The world model of the heart's electrical state, in latents.

    Args:
        config: sizes and choices.
        seed: of the first weights; the same seed gives the same ones whatever else drew random numbers.
    """

    def __init__(self, config: JEPAConfig, seed: int = 0):
        super().__init__()
        self.config = config
        told = config.conditioning == "action"
        self.encoder = XResNet1d.of(config)
        sizes = config.out, config.projector, config.latent
        own = config.layers == "own"
        self.projector = Projector(*sizes, config.final_norm) if own else AuthorsProjector(*sizes)
        self.action = action_projector(config) if told else None
        self.dynamics = _predictor(config, config.embedding if told else 0)
        self.inverse = InverseDynamics(config.latent, len(config.codes)) if config.inverse and told else None
        initialise(self, seed)

    def encode(self, ecg: Tensor) -> Tensor:
        """Features h [B, out] of ECGs [B, 12, T] in mV at 100 Hz."""
        return self.encoder(ecg)

    def project(self, h: Tensor) -> Tensor:
        """Latent z [B, latent], float32, of features h [B, out]."""
        return self.projector(h).float()

    def latent(self, ecg: Tensor) -> Tensor:
        """Latent z [B, latent], float32, of ECGs [B, 12, T] in mV at 100 Hz."""
        return self.project(self.encode(ecg))

    def predict(self, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
        """The next latent [B, latent], float32, from z [B, latent], action [B, C] in {-1, 0, 1} and days [B].

        A model trained without actions takes them and does not look at them.
        """
        if isinstance(self.dynamics, OdeDynamics):
            e = None if self.action is None else self.action(action, torch.zeros_like(days))
            return self.dynamics(z, e, days).float()
        e = None if self.action is None else self.action(action, days)
        return self.dynamics(z, e).float()

    def forward(
        self, ecg_a: Tensor, ecg_b: Tensor, action: Tensor, days: Tensor, step: int, measure: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """What `loss` gives: a wrapper for data parallelism hooks onto forward."""
        return self.loss(ecg_a, ecg_b, action, days, step, measure)

    def loss(
        self, ecg_a: Tensor, ecg_b: Tensor, action: Tensor, days: Tensor, step: int, measure: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of pairs, and what to watch.

        Under torch.distributed both are those of all processes' pairs together, the same in each.

        Args:
            ecg_a, ecg_b: [B, 12, T] mV, before and after.
            action: [B, C], label after minus label before.
            days: [B] between them.
            step: number that SIGReg's directions are sampled for, the same in every process.
            measure: also the costly metrics (rank, use of the action).

        Returns:
            The loss, and metrics: prediction (mean-square error), the regulariser's terms, inverse (share of the
            actions not read back, if that is weighed), std and rank of z, rank_h of the encoder's features, and
            zero_action_ratio: on changed pairs, the error with a zero action over that with the true one (absent
            without changed pairs, or where the model is told no action).
        """
        h = self.encode(torch.cat([ecg_a, ecg_b]))  # one pass: both halves share BatchNorm's statistics
        z = self.project(h)
        z_a, z_b = z.chunk(2)
        error = (self.predict(z_a, action, days) - z_b).square().mean(-1)
        prediction = mean_over_ranks(error.mean())
        terms = {"prediction": prediction}
        if self.config.regulariser == "sigreg":
            terms["sigreg"] = sigreg(z_a, step, self.config.slices) + sigreg(z_b, step, self.config.slices)
            total = (1 - self.config.weight) * prediction + self.config.weight * terms["sigreg"]
        else:
            (variance_a, covariance_a), (variance_b, covariance_b) = vicreg(z_a), vicreg(z_b)
            terms["variance"], terms["covariance"] = (variance_a + variance_b) / 2, covariance_a + covariance_b
            total = INVARIANCE * prediction + VARIANCE * terms["variance"] + COVARIANCE * terms["covariance"]
        if self.action is not None and self.config.action == "embedded":
            total = total + self.config.own_penalty * self.action.penalty()
        if self.inverse is not None:
            terms["inverse"] = self.inverse.loss(z_a, z_b, action)
            total = total + self.config.inverse * terms["inverse"]
        return total, self._metrics(terms, h, z, error, action, days) if measure else {}

    @torch.no_grad()
    def _metrics(
        self, terms: dict[str, Tensor], h: Tensor, z: Tensor, error: Tensor, action: Tensor, days: Tensor
    ) -> dict[str, float]:
        rank = torch.tensor([effective_rank(z), effective_rank(h.float()), float(z.std(0).mean())], device=z.device)
        rank = mean_over_ranks(rank)
        found = {name: float(term.detach()) for name, term in terms.items()}
        found |= {"rank": float(rank[0]), "rank_h": float(rank[1]), "std": float(rank[2])}
        if self.action is not None:
            z_a, z_b = z.chunk(2)
            without = (self.predict(z_a, torch.zeros_like(action), days) - z_b).square().mean(-1)
            changed = action.ne(0).any(-1)
            sums = sum_over_ranks(torch.stack([without[changed].sum(), error[changed].sum()]))
            if sums[1] > 0:
                found["zero_action_ratio"] = float(sums[0] / sums[1])
        return found
