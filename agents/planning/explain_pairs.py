"""Known pairs of ECGs, for what has to be chosen or fitted before an explanation: priors, metrics, libraries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.cardiac_jepa.explain import ExplainState
from world_models.protocol import Chart

__all__ = ["Pairs", "sample_pairs"]


class Pairs(NamedTuple):
    """N changed pairs at their start."""

    state: ExplainState
    chart: Chart

    @property
    def sought(self) -> Tensor:
        """float32 [N, C]: the true transitions."""
        return self.state.sought


def sample_pairs(simulator: Simulator, seed: int, count: int, apart_from: Tensor | None = None) -> Pairs:
    """Changed pairs sampled from keys, each once; those whose first latent is a row of `apart_from` [N, Z] are left
    out.

    Raises:
        ValueError: no changed pair is among them.
    """
    state, chart = simulator.reset(keys.from_seed(seed, count))
    changed = (state.sought != 0).any(-1).tolist()
    seen = set() if apart_from is None else {row.numpy().tobytes() for row in apart_from.cpu()}
    wanted = torch.zeros(count, dtype=torch.bool)
    for i, (latent, differs) in enumerate(zip(state.z_before.cpu(), changed, strict=True)):
        name = latent.numpy().tobytes()
        wanted[i] = differs and name not in seen
        seen.add(name)
    if not bool(wanted.any()):
        raise ValueError(f"none of {count} pairs changed and is apart from the library; draw more with --pairs")
    rows = wanted.nonzero().squeeze(1)
    return Pairs(tree.take(state, rows), tree.take(chart, rows))
