"""The projector: from the encoder's features h to the latent z in which dynamics are predicted and SIGReg looks."""

from __future__ import annotations

from torch import Tensor, nn

from world_models.cardiac_jepa.reduce import BatchNorm1d

__all__ = ["AuthorsProjector", "Projector", "normed_layers"]


class Projector(nn.Module):
    """h [B, inputs] -> z [B, outputs]: three linear layers, BatchNorm and ReLU between them.

    It ends in BatchNorm without affine (unless `final_norm` is off), so each coordinate of a training batch has mean 0
    and variance 1 and SIGReg is left with what BatchNorm cannot do: decorrelate and make Gaussian. In evaluation the
    running statistics stand in, and a batch of one is as good as any.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, final_norm: bool = True):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden, bias=False),
            BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs, bias=not final_norm),
        )
        if final_norm:
            self.layers.append(BatchNorm1d(outputs, affine=False))

    def forward(self, h: Tensor) -> Tensor:
        """Latents [B, outputs] of features [B, inputs].

        Raises:
            ValueError: one row in training mode, whose variance BatchNorm would divide by.
        """
        if self.training and h.shape[0] < 2:
            raise ValueError("the projector in training mode needs two rows or more; call model.eval() for one patient")
        return self.layers(h)


def normed_layers(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes, BatchNorm and GELU after each but the last: the unit of the authors' code."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(inputs, outputs), BatchNorm1d(outputs), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class AuthorsProjector(nn.Module):
    """h [B, inputs] -> z [B, outputs] as the paper's authors publish it: hidden, hidden, outputs, each with BatchNorm,
    the last one too, and affine."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(normed_layers(inputs, hidden, hidden, outputs), BatchNorm1d(outputs))

    def forward(self, h: Tensor) -> Tensor:
        """Latents [B, outputs] of features [B, inputs].

        Raises:
            ValueError: one row in training mode.
        """
        if self.training and h.shape[0] < 2:
            raise ValueError("the projector in training mode needs two rows or more; call model.eval() for one patient")
        return self.layers(h)
