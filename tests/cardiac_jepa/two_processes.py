"""Two gloo processes on this machine, and a tiny model and recordings to try them on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from world_models import keys
from world_models.cardiac_jepa.config import JEPAConfig

TINY = JEPAConfig(
    name="tiny",
    codes=("I10", "I44", "I48"),
    stem=(8, 8, 8),
    inner=8,
    out=16,
    blocks=(1, 1),
    projector=16,
    latent=12,
    embedding=8,
    action_hidden=16,
    dynamics_hidden=24,
    dynamics_blocks=1,
    slices=32,
    crop_samples=128,
)


class Recordings(NamedTuple):
    ecg: Tensor
    label: Tensor
    days: Tensor
    patient: Tensor


def recordings(patients: int = 40, visible: bool = True, samples: int = 400) -> tuple[Recordings, Tensor, Tensor]:
    """Two ECGs a patient: their own repeating shape, a train of spikes where I48 is present (if `visible`), noise.

    Returns also the rows of the earlier and the later ECG of each pair.
    """
    key, rows = keys.from_seed(7, patients), keys.from_seed(1007, 2 * patients)
    shape = keys.normal(key, 0, "shape", (12, 50)).repeat(2, 1, samples // 50)
    label = keys.uniform(rows, 0, "label", (3,)) < 0.5
    spikes = (torch.arange(samples) % 25 == 0).float() * (1.0 if visible else 0.0)
    ecg = 0.1 * shape + 0.02 * keys.normal(rows, 0, "noise", (12, samples)) + label[:, 2, None, None] * spikes
    days = torch.cat([torch.zeros(patients), 30.0 * (1 + torch.arange(patients) % 5)])
    first = torch.arange(patients)
    return Recordings(ecg.half(), label, days, first.repeat(2)), first, first + patients


def _start(rank: int, function, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        torch.save(function(rank, *arguments), f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def run(function, folder: Path, *arguments) -> list:
    """What `function(rank, *arguments)` gives in each of two processes."""
    multiprocessing.spawn(_start, (function, str(folder), arguments), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
