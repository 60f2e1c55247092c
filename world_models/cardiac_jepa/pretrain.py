"""Pretraining on pairs of a patient's ECGs: AdamW, OneCycle, resumable; on one machine or, under torchrun, on several.

On several GPUs, with a script that calls `start_ddp`, reads its pairs and calls `pretrain`:

    torchrun --nproc-per-node 8 script.py

Each process takes its share of every batch and none of its neighbours'; BatchNorm, SIGReg and VICReg are computed over
all shares (`reduce`), so eight processes with 64 pairs train as one with 512, lambda included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from world_models import keys
from world_models.cardiac_jepa.collapse import CollapseWatch
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.reduce import BatchNorm1d
from world_models.files import write_text
from world_models.processes import ranks
from world_models.training import Schedule, fit

__all__ = ["Batch", "PairBatches", "PairOrder", "PairSource", "check_rows", "pretrain", "renew_norms", "start_ddp"]

MEASURE_EVERY = 20  # steps, as often as `fit` logs
NORM_BATCHES = 50  # forward passes that BatchNorm's final statistics are taken from

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]  # see `PairBatches.batch`


class Recordings(Protocol):
    """What pairs need of a monolith (`world_models.data.ecg.monolith.Monolith`)."""

    @property
    def ecg(self) -> Tensor:
        """float16 [N, 12, T], mV at 100 Hz."""

    @property
    def label(self) -> Tensor:
        """bool [N, C]."""

    @property
    def days(self) -> Tensor:
        """float32 [N]."""


class PairBatches(Protocol):
    """What `pretrain` learns from: `PairSource` (recorded ECGs), or `simulated_pairs.SimulatedPairs`."""

    @property
    def codes(self) -> int:
        """How many labels there are, the length of an action."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def batch(self, step: int, size: int = 256, rank: int = 0, world: int = 1) -> Batch:
        """ECGs before and after [B, 12, crop] mV, action [B, C], days [B]: a function of the step."""


def check_rows(first: Tensor, second: Tensor, rows: int) -> None:
    """Let pairs [P] of rows pass.

    Raises:
        ValueError: no pairs, two lists of other lengths, or a row that is not there.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"pairs need two equal lists of rows, got {list(first.shape)} and {list(second.shape)}")
    low, high = int(torch.minimum(first, second).min()), int(torch.maximum(first, second).max())
    if low < 0 or high >= rows:
        raise ValueError(f"pairs name rows {low} to {high}, but there are {rows} recordings (0 to {rows - 1})")


class PairOrder:
    """Which of so many pairs come when: shuffled anew each epoch, each once, a function of key and step alone."""

    def __init__(self, count: int, key: Tensor):
        self.count, self.key = count, key
        self._epoch: tuple[int, Tensor] = (-1, key)

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """int64 [B] each: the running number of every pair so far, and the pair; of this process' share.

        Raises:
            ValueError: a size that `world` does not divide.
        """
        if size % world:
            raise ValueError(f"a batch of {size} cannot be shared by {world} processes; make it a multiple")
        share = size // world
        place = torch.arange(share) + (step * size + rank * share)
        epoch = place // self.count
        return place, torch.cat([self._of(int(e))[place[epoch == e] % self.count] for e in epoch.unique()])

    def _of(self, epoch: int) -> Tensor:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, keys.bits(self.key, epoch, "order", (self.count,))[0].argsort())
        return self._epoch[1]


class PairSource:
    """Batches of pairs of a patient's ECGs, each a function of the step alone.

    Pairs come in an order shuffled anew each epoch, each once; of both ECGs a crop at a random place. Missing samples
    (NaN) become 0 mV.

    Args:
        recordings: held in memory.
        first, second: int64 [P], rows of the earlier and later ECGs.
        crop: samples of a crop.
        seed: of order and crops.
        reversed: bool [P], pairs whose second ECG is the earlier one (`synthetic_pairs`); default: none.

    Raises:
        ValueError: no pairs, rows that are not there, a crop longer than the records, or a later ECG that is earlier.
    """

    def __init__(
        self,
        recordings: Recordings,
        first: Tensor,
        second: Tensor,
        crop: int = 250,
        seed: int = 0,
        reversed: Tensor | None = None,
    ):
        rows, _, length = recordings.ecg.shape
        check_rows(first, second, rows)
        if not 0 < crop <= length:
            raise ValueError(f"a crop of {crop} samples does not fit into recordings of {length}")
        self.days = (recordings.days[second] - recordings.days[first]).float()
        if reversed is not None:
            self.days = torch.where(reversed, -self.days, self.days)
        if bool((self.days < 0).any()):
            raise ValueError(f"{int((self.days < 0).sum())} pairs go back in time; give the earlier ECG first")
        self.recordings = recordings
        self.windows = recordings.ecg.unfold(2, crop, 1)  # [N, 12, starts, crop]: a view
        self.first, self.second = first, second
        self.key = keys.from_seed(seed)
        self.order = PairOrder(len(first), self.key)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def codes(self) -> int:
        """How many labels the recordings have."""
        return self.recordings.label.shape[1]

    def batch(self, step: int, size: int = 256, rank: int = 0, world: int = 1) -> Batch:
        """ECGs before and after [B, 12, crop] float32 mV, action [B, C] in {-1, 0, 1}, days [B].

        Args:
            step: number of the batch.
            size: of the whole batch; this process' share is `size / world` rows of it.

        Raises:
            ValueError: a size that `world` does not divide.
        """
        place, pair = self.order.batch(step, size, rank, world)
        spots = self.windows.shape[2]
        start = (keys.uniform(self.key.expand(len(place)), place, "crop", (2,)) * spots).long().clamp_max(spots - 1)
        a, b = self.first[pair], self.second[pair]
        label = self.recordings.label
        action = label[b].float() - label[a].float()
        return self._crop(a, start[:, 0]), self._crop(b, start[:, 1]), action, self.days[pair]

    def _crop(self, rows: Tensor, start: Tensor) -> Tensor:
        return torch.nan_to_num(self.windows[rows, :, start].float(), nan=0.0)


def start_ddp() -> torch.device:
    """Join the processes that torchrun started (NCCL where there are GPUs, else gloo); this process' device.

    Raises:
        RuntimeError: not started by torchrun.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError("no LOCAL_RANK: start this script with `torchrun --nproc-per-node N`")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    return device


def pretrain(
    config: JEPAConfig,
    source: PairBatches,
    folder: str | Path,
    steps: int,
    batch: int = 512,
    rate: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: CollapseWatch | None = None,
    quicken: Callable[[CardiacJEPA], object] | None = None,
) -> CardiacJEPA:
    """Train a `CardiacJEPA` on the source's pairs; returns it in evaluation mode.

    What is kept is the running average of the weights; BatchNorm's statistics are then taken anew with these, from
    training batches. A killed run goes on where it was saved when called again with the same arguments; a finished one
    is loaded. Metrics go to `folder/metrics.jsonl`. bfloat16 on GPUs, float32 elsewhere.

    Args:
        batch: pairs a step, over all processes together.
        rate: peak learning rate.
        seed: of the first weights.
        watch: stops a run that collapses; a default one is made.
        quicken: called with the model before it is trained, such as to compile its encoder.

    Raises:
        ValueError: the source's labels are not the config's codes, a batch too small, or the folder holds a run of
            other arguments. Nothing is written then.
        CollapsedError: see `collapse`.
        FloatingPointError: the loss is not finite.
    """
    folder, device = Path(folder), torch.device(device)
    rank, world = ranks()
    if source.codes != len(config.codes):
        raise ValueError(
            f"the recordings have {source.codes} labels, the config {len(config.codes)} codes; make them agree"
        )
    if batch // world < 2 or batch % world:
        raise ValueError(f"a batch of {batch} over {world} process(es): each needs the same number of pairs, 2 or more")
    run = {"config": config.to_dict(), "pairs": len(source), "steps": steps, "batch": batch, "rate": rate, "seed": seed}
    _claim(folder, run, writes=rank == 0)
    model = CardiacJEPA(config, seed).to(device).train()
    if quicken is not None:
        quicken(model)
    wrapped: nn.Module = model
    if world > 1:
        gpu = [device.index] if device.type == "cuda" else None
        wrapped = nn.parallel.DistributedDataParallel(model, device_ids=gpu, broadcast_buffers=False)
    watch = CollapseWatch(from_step=min(200, steps // 4)) if watch is None else watch

    def batch_of(step: int) -> Batch:
        found = source.batch(step, batch, rank, world)
        ecg_a, ecg_b, action, days = (part.to(device, non_blocking=True) for part in found)
        return ecg_a, ecg_b, action, days

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        measure = step % MEASURE_EVERY == 0 or step + 1 == steps
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value, metrics = wrapped(*batch_of(step), step, measure)
        watch.check(step, metrics)
        return value, metrics

    schedule = Schedule(steps, learning_rate=rate, weight_decay=1e-2, shape="onecycle")
    fit(model, loss, schedule, folder, "pretrain", list(model.parameters()))
    renew_norms(model, lambda i: model(*batch_of(steps + i), i, False), min(NORM_BATCHES, steps))
    return model.eval()


@torch.no_grad()
def renew_norms(model: nn.Module, forward: Callable[[int], object], batches: int) -> None:
    """BatchNorm's running statistics as plain means over batches of the weights as they now are.

    The loop averages weights and keeps no statistics; those left in the layers belong to other weights.

    Args:
        forward: passes batch i, of 0 to `batches` - 1, through the model.
    """
    norms = [part for part in model.modules() if isinstance(part, BatchNorm1d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a cumulative mean
    model.train()
    for i in range(batches):
        forward(i)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _claim(folder: Path, run: dict[str, Any], writes: bool) -> None:
    """Note in the folder which run it holds; refuse one that holds another."""
    path = folder / "run.json"
    if path.exists():
        other = json.loads(path.read_text(encoding="utf-8"))
        differ = [k for k in run if k != "config" and other.get(k) != run[k]]
        before = other.get("config", {})
        differ += [f"config.{k}" for k, v in run["config"].items() if before.get(k) != v]
        if differ:
            raise ValueError(f"{folder} holds a run with other {', '.join(differ)}; name another folder or delete it")
        return
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(run, indent=2))
