"""A plain multilayer perceptron."""

from __future__ import annotations

from torch import nn

__all__ = ["mlp"]


def mlp(sizes: tuple[int, ...], zero_last: bool = False) -> nn.Sequential:
    """Linear layers of these sizes with SiLU between them.

    `zero_last` starts the output at zero: a correction that has learned nothing yet corrects nothing.
    """
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[i], sizes[i + 1]))
        if i < len(sizes) - 2:
            layers.append(nn.SiLU(inplace=True))
    if zero_last:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)
