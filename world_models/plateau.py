"""Training to a plateau: several learning rates, each until a score of held-out patients no longer rises.

Whoever is compared gets the same: the same rates, checks and patience, from a first rate to a last word. A run has a
constant rate after its warm-up and a running average of its weights, so it need not know how long it will be, and what
it is worth after T seconds is its best check until then. Each check goes to `checks.jsonl` with the processor time so
far, training and judging together; the weights of the best one are kept. A run that was killed goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from world_models.files import write_text
from world_models.tensor_file import read_tensors, save_tensors
from world_models.training import Schedule, fit

__all__ = ["Patience", "Plateau", "Trainee", "to_plateau"]


class Trainee(Protocol):
    """What is trained: a module, its loss, and the score that it is chosen by."""

    @property
    def module(self) -> nn.Module:
        """Whose parameters are trained, and whose whole state is kept."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, in training mode, and metrics; a function of the step alone."""

    def judge(self) -> float:
        """Score of the held-out patients with the averaged weights: higher is better. May renew statistics first."""


@dataclass(frozen=True)
class Patience:
    """How long a run goes on, the same for everybody who is compared.

    Raises:
        ValueError: a count below 1, or seconds that are not above 0.
    """

    check: int = 100  # steps between two checks
    checks: int = 5  # without a gain after which a run stops, but not before
    share: float = 0.4  # of its steps have been without one: late in a long run gains come slowly
    least_steps: int = 1000  # before which no run stops for want of gains: learning may begin by losing
    most_steps: int = 20_000
    seconds: float = math.inf  # of processor time a run may take: a check that ends later does not count
    warm_up: int = 50  # steps until the rate is reached
    average: float = 0.995  # decay of the running average of the weights
    weight_decay: float = 1e-2
    clip: float = 1.0  # norm of the gradient

    def __post_init__(self) -> None:
        if min(self.check, self.checks, self.most_steps) < 1 or not self.seconds > 0:
            raise ValueError(f"check, checks and most_steps must be 1 or more, seconds above 0: {self}")

    def exhausted(self, step: int, best_step: int) -> bool:
        """Whether a run that stands at `step` has not gained for long enough since `best_step`."""
        return step >= self.least_steps and step - best_step >= max(self.checks * self.check, self.share * step)

    def over(self, step: int, best_step: int, cpu_s: float) -> bool:
        """Whether a run is done: at its plateau, or at the end of its steps or seconds."""
        return self.exhausted(step, best_step) or step >= self.most_steps or cpu_s >= self.seconds


class Plateau(NamedTuple):
    """The best check of all rates, and what finding it took."""

    score: float
    rate: float
    step: int  # of that check
    steps: int  # trained with all rates together
    cpu_s: float  # processor time of all rates, judging included
    capped: bool  # the chosen run was stopped by its steps or seconds, not by its patience


class _Run(NamedTuple):
    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    cpu_s: float = 0.0
    done: bool = False


def to_plateau(
    make: Callable[[], Trainee], rates: Sequence[float], folder: Path, patience: Patience
) -> tuple[Trainee, Plateau]:
    """Train at every rate until it no longer gains; the best one's trainee, with its best weights, in evaluation mode.

    The start is a check as well: who was better before is returned as he was. A rate at which the loss is no longer
    finite ends there, and what it had reached stands.

    Args:
        make: a fresh trainee, the same each time.
        rates: peak learning rates, each a run in a folder of its own.

    Raises:
        ValueError: no rate or one that is not above 0, a score that is NaN, or a folder with a run of another patience.
    """
    if min(rates, default=0.0) <= 0:
        raise ValueError(f"rates {tuple(rates)}: give one at least, all above 0")
    found: dict[float, _Run] = {}
    for rate in sorted(set(rates)):
        found[rate] = _train(make, rate, folder / f"rate-{rate:g}", patience)
    rate = max(found, key=lambda r: found[r].best)
    best = found[rate]
    trainee = make()
    state, _ = read_tensors(folder / f"rate-{rate:g}" / "best.safetensors")
    trainee.module.load_state_dict(state)
    trainee.module.eval()
    cpu_s = math.fsum(run.cpu_s for run in found.values())
    capped = not patience.exhausted(best.step, best.best_step)
    return trainee, Plateau(best.best, rate, best.best_step, sum(r.step for r in found.values()), cpu_s, capped)


def _train(make: Callable[[], Trainee], rate: float, folder: Path, patience: Patience) -> _Run:
    """One rate to its end; what is done is not done again."""
    run = _claim(folder, patience)
    if run.done:
        return run
    trainee = make()
    schedule = Schedule(
        1, rate, patience.warm_up, patience.weight_decay, patience.clip, patience.average, shape="constant"
    )
    if run.best == -math.inf:
        run = _checked(trainee, run, 0, time.process_time(), rate, folder, patience)
    while not run.done:
        begun, step = time.process_time(), run.step + patience.check
        trainee.module.train()
        try:
            fit(trainee.module, trainee.loss, replace(schedule, steps=step), folder, "run")
        except FloatingPointError:
            run = run._replace(done=True, cpu_s=run.cpu_s + time.process_time() - begun)
            _keep(folder, patience, run)
            break
        run = _checked(trainee, run, step, begun, rate, folder, patience)
    return run


def _checked(
    trainee: Trainee, run: _Run, step: int, begun: float, rate: float, folder: Path, patience: Patience
) -> _Run:
    """The run after a check at `step`, kept; `begun`: processor time at the check before."""
    score = trainee.judge()
    if math.isnan(score):
        raise ValueError(f"{folder}: the score at step {step} is NaN; the held-out patients must have every class")
    cpu_s = run.cpu_s + time.process_time() - begun
    if score > run.best and (step == 0 or cpu_s <= patience.seconds):
        save_tensors(folder / "best.safetensors", trainee.module.state_dict())
        run = run._replace(best=score, best_step=step)
    run = run._replace(step=step, cpu_s=cpu_s, done=step > 0 and patience.over(step, run.best_step, cpu_s))
    with (folder / "checks.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"rate": rate, "step": step, "score": score, "best": run.best, "cpu_s": cpu_s}) + "\n")
    _keep(folder, patience, run)
    return run


def _claim(folder: Path, patience: Patience) -> _Run:
    """Where a run stands; a folder of another patience is refused."""
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return _Run()
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["patience"] != _plain(patience):
        differ = sorted(k for k, v in _plain(patience).items() if told["patience"].get(k) != v)
        raise ValueError(f"{folder} holds a run with other {', '.join(differ)}; delete it or name another folder")
    return _Run(**told["run"])


def _keep(folder: Path, patience: Patience, run: _Run) -> None:
    write_text(folder / "run.json", json.dumps({"patience": _plain(patience), "run": run._asdict()}, indent=1))


def _plain(patience: Patience) -> dict[str, float | None]:
    return {k: None if v == math.inf else v for k, v in asdict(patience).items()}
