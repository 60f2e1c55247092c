"""The shared training loop: schedule, average of weights, resume after a kill, progress, metrics as JSON lines.

A loss is a function of the step number alone (its data come from keys folded with that number), so a run that was
killed and goes on meets the same data as one that was not. Nothing is pickled: weights, their average and AdamW's
moments are safetensors, the rest is JSON. Under torch.distributed the loss's module averages the gradients; here the
first process alone writes, and all go on from what it wrote.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from world_models.processes import ranks
from world_models.tensor_file import CheckpointError, read_tensors, save_tensors

__all__ = ["Schedule", "fit"]


_LEAST_RATE = 0.01  # of the peak, where the cosine ends
_LOG_EVERY = 20  # steps
# torch.optim.lr_scheduler.OneCycleLR's defaults: first and last rate as shares of the peak; AdamW's first beta
_CYCLE_FIRST, _CYCLE_LAST = 1 / 25, 1 / 25e4
_CYCLE_TURN = 0.3  # share of the steps until the peak
_BETA_HIGH, _BETA_LOW = 0.95, 0.85
_BETA_SECOND = 0.999  # AdamW's default


@dataclass(frozen=True)
class Schedule:
    """How one stage is trained.

    Raises:
        ValueError: a shape that there is not.
    """

    steps: int
    learning_rate: float = 2e-3  # peak, reached after the warm-up, down to a hundredth along a cosine
    warm_up: int = 100  # steps
    weight_decay: float = 1e-4
    clip: float = 1.0  # norm of the gradient
    average: float = 0.998  # decay of the running average of the weights, which is what is kept
    save_every_s: float = 60.0
    # "onecycle": torch's OneCycleLR over all steps, with AdamW's first beta; warm_up is not used. "constant": after the
    # warm-up the peak to the end, so that a run of more steps goes on where one of fewer was stopped.
    shape: str = "cosine"
    first_beta: float = 0.9  # AdamW's, but in a cycle; adversarial training takes less (DCGAN: 0.5)

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "onecycle", "constant"):
            raise ValueError(f"shape is {self.shape!r}; choose cosine, onecycle or constant")


def fit(
    module: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    folder: Path,
    stage: str,
    parameters: list[nn.Parameter] | None = None,
) -> None:
    """Minimise `loss(step)` over the parameters (default: all of `module`'s that require a gradient).

    Leaves the averaged weights in `module`. Progress is kept in `folder/stage.*`; a finished stage is loaded and
    returned from at once, an unfinished one goes on where it was saved last.

    Raises:
        FloatingPointError: the loss is not finite.
        CheckpointError: what was saved is damaged, or of another configuration; nothing is changed then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [p for p in module.parameters() if p.requires_grad] if parameters is None else parameters
    optimiser = torch.optim.AdamW(
        chosen, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(schedule.first_beta, _BETA_SECOND)
    )
    average = [p.detach().clone() for p in chosen]
    start = _load(folder, stage, chosen, average, optimiser)
    saved = time.monotonic()
    writes = ranks()[0] == 0
    with (
        open(folder / "metrics.jsonl" if writes else os.devnull, "a") as log,
        tqdm(total=schedule.steps, initial=start, desc=stage, mininterval=1, disable=not writes) as bar,
    ):
        for step in range(start, schedule.steps):
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _factor(step, schedule)
                group["betas"] = (_momentum(step, schedule, group["betas"][0]), group["betas"][1])
            optimiser.zero_grad(set_to_none=True)
            value, metrics = loss(step)
            if not torch.isfinite(value):
                raise FloatingPointError(f"{stage}: the loss is {value.item()} at step {step}; lower the learning rate")
            value.backward()
            norm = nn.utils.clip_grad_norm_(chosen, schedule.clip)
            if torch.isfinite(norm):
                optimiser.step()
            with torch.no_grad():
                decay = min(schedule.average, (step + 1) / (step + 10))  # short at first: the start is forgotten
                torch._foreach_lerp_(average, [p.detach() for p in chosen], 1 - decay)
            bar.update()
            if step % _LOG_EVERY == 0 or step + 1 == schedule.steps:
                row = {"stage": stage, "step": step, "loss": value.item(), "gradient": norm.item(), **metrics}
                log.write(json.dumps(row) + "\n")
                log.flush()
                bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()}, refresh=False)
            if writes and time.monotonic() - saved > schedule.save_every_s:
                _save(folder, stage, chosen, average, optimiser, step + 1)
                saved = time.monotonic()
    if writes and start < schedule.steps:
        _save(folder, stage, chosen, average, optimiser, schedule.steps)
    with torch.no_grad():
        for parameter, mean in zip(chosen, average, strict=True):
            parameter.copy_(mean)


def _factor(step: int, schedule: Schedule) -> float:
    """Learning rate at `step` as a share of its peak."""
    if schedule.shape == "onecycle":
        return _one_cycle(step, schedule.steps, _CYCLE_FIRST, 1.0, _CYCLE_LAST)
    if step < schedule.warm_up:
        return (step + 1) / schedule.warm_up
    if schedule.shape == "constant":
        return 1.0
    share = (step - schedule.warm_up) / max(1, schedule.steps - schedule.warm_up)
    return _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))


def _momentum(step: int, schedule: Schedule, usual: float) -> float:
    """AdamW's first beta at `step`: in a cycle it is low while the rate is high."""
    if schedule.shape != "onecycle":
        return usual
    return _one_cycle(step, schedule.steps, _BETA_HIGH, _BETA_LOW, _BETA_HIGH)


def _one_cycle(step: int, steps: int, first: float, top: float, last: float) -> float:
    """From first to top over three tenths of the steps, then to last, along cosines.

    Smith & Topin 2019, arXiv 1708.07120. Shares and defaults are those of torch.optim.lr_scheduler.OneCycleLR.
    """
    turn, end = _CYCLE_TURN * steps - 1, steps - 1
    a, b, share = (first, top, step / turn) if step <= turn else (top, last, (step - turn) / max(1e-9, end - turn))
    return b + (a - b) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))) if turn > 0 else top


def _save(
    folder: Path, stage: str, chosen: list[nn.Parameter], average: list[Tensor], optimiser: torch.optim.AdamW, step: int
) -> None:
    tensors = {f"weight.{i}": p for i, p in enumerate(chosen)} | {f"average.{i}": a for i, a in enumerate(average)}
    for i, parameter in enumerate(chosen):
        for name, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{name}.{i}"] = value
    plain = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    save_tensors(folder / f"{stage}.safetensors", plain, {"step": str(step)})


def _load(
    folder: Path, stage: str, chosen: list[nn.Parameter], average: list[Tensor], optimiser: torch.optim.AdamW
) -> int:
    path = folder / f"{stage}.safetensors"
    if not path.exists():
        return 0
    wanted: dict[str, Tensor] = {f"{what}.{i}": p for what in ("weight", "average") for i, p in enumerate(chosen)}
    moments: dict[str, Tensor] = {f"{what}.{i}": p for what in ("exp_avg", "exp_avg_sq") for i, p in enumerate(chosen)}
    moments |= {f"step.{i}": torch.zeros(()) for i in range(len(chosen))}
    try:
        tensors, told = read_tensors(path, wanted, moments)
        step = int(told.get("step", "missing"))
        if step < 0:
            raise ValueError(f"step {step} is below 0")
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged or was saved by another configuration ({error}); delete it or name another folder"
        ) from None
    with torch.no_grad():
        for i, parameter in enumerate(chosen):
            parameter.copy_(tensors[f"weight.{i}"])
            average[i].copy_(tensors[f"average.{i}"])
            state = {
                name: tensors[f"{name}.{i}"] for name in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{i}" in tensors
            }
            if state:
                state = {k: v.to(parameter.device) if k != "step" else v for k, v in state.items()}
                optimiser.state[parameter].update(state)
    return step
