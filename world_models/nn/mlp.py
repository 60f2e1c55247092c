"""A plain multilayer perceptron."""

from __future__ import annotations

import torch
from torch import nn

from world_models import keys

__all__ = ["mlp", "sample_weights"]


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


@torch.no_grad()
def sample_weights(module: nn.Module, seed: int) -> None:
    """First weights from a seed, without torch's global generator: uniform to either side by one over the root of the
    inputs, as torch's linear layers have them. What is zero (biases, last layers, padding) stays so."""
    for i, parameter in enumerate(module.parameters()):
        if not bool(parameter.any()):
            continue
        reach = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0
        sampled = keys.uniform(keys.from_seed(seed, 1, parameter.device), i, "first weights", tuple(parameter.shape))[0]
        parameter.copy_(torch.where(parameter == 0, 0.0, (2.0 * sampled - 1.0) * reach))
