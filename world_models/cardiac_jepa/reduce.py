"""Statistics of the whole batch when each process holds a share of it.

Data parallelism averages the gradients of losses that every process computes alone. A loss on the statistics of a batch
(BatchNorm, SIGReg, VICReg) is then another loss: means of 64 rows are noisier than means of 512. Here the sums
themselves are reduced, forwards and backwards, so that N processes with B rows each train as one with N * B rows. The
backward pass sums over the processes too: with the average that `DistributedDataParallel` takes afterwards, every
parameter gets the gradient of the loss on the joined batch, once.

Works with any backend (torch's own SyncBatchNorm wants a GPU) and is the identity in a single process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from world_models.processes import ranks

__all__ = ["BatchNorm1d", "mean_over_ranks", "sum_over_ranks"]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every process' x, in every process; differentiable."""
    return x if ranks()[1] == 1 else _Sum.apply(x)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of every process' x (each has as many rows); differentiable."""
    return sum_over_ranks(x) / ranks()[1]


class BatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over the rows [B, C] or [B, C, T] of all processes; each must hold as many."""

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, scaled and shifted, in its shape and type."""
        if ranks()[1] == 1 or not (self.training or self.running_mean is None):
            return super().forward(x)
        wide = x.float()  # half-precision statistics lose the variance
        axes = (0, 2) if x.ndim == 3 else (0,)
        here, spread = wide.mean(axes), wide.var(axes, correction=0)
        # Chan's merging of variances: only the small part between the processes is a difference of squares.
        mean, square, within = mean_over_ranks(torch.stack([here, here.square(), spread]))
        variance = within + (square - mean.square()).clamp(min=0.0)
        self._remember(mean, variance, x.numel() // x.shape[1] * ranks()[1])
        shape = (1, -1, 1) if x.ndim == 3 else (1, -1)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None:
            return
        assert self.running_var is not None and self.num_batches_tracked is not None  # torch has all three or none
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)
