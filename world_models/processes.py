"""Several processes at one piece of work, a device each, as `torchrun` or `accelerate launch` starts them."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from world_models import tree

__all__ = ["gathered", "join", "ranks"]

T = TypeVar("T")  # a tree of tensors, see `world_models.tree`


def ranks() -> tuple[int, int]:
    """This process' number and how many there are; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def join() -> torch.device:
    """Meet the processes that `torchrun` started beside this one; the device that is this one's own.

    A process alone meets nobody. Tensors on the CPU travel by gloo, those on a GPU by NCCL.
    """
    if "WORLD_SIZE" in os.environ and dist.is_available() and not dist.is_initialized():
        dist.init_process_group()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def gathered(own: T) -> list[T]:
    """What every process has: one tree of tensors [N, ...] a process, in the order of their numbers.

    Args:
        own: this process' tree. The others' have the same structure; their N may differ.
    """
    world = ranks()[1]
    if world == 1:
        return [own]
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([tree.batch_size(own)]))
    rows = [int(count) for count in counts]
    parts = [_gathered(leaf, rows) for leaf in tree.leaves(own)]
    found = []
    for rank in range(world):
        leaves = iter(parts)
        found.append(tree.map_leaves(lambda _, rank=rank, leaves=leaves: next(leaves)[rank], own))
    return found


def _gathered(leaf: Tensor, rows: list[int]) -> list[Tensor]:
    """Every process' [N, ...]: rounds of equal size are what all backends exchange, so the short ones are filled up."""
    sent = leaf.to(torch.uint8) if leaf.dtype == torch.bool else leaf
    full = sent.new_zeros(max(rows), *sent.shape[1:])
    full[: len(sent)] = sent
    heard = [torch.empty_like(full) for _ in rows]
    dist.all_gather(heard, full)
    return [part[:count].to(leaf.dtype) for part, count in zip(heard, rows, strict=True)]
