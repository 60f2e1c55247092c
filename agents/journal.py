"""What a training run says while it runs: a bar, a line of JSON an update, and TensorBoard where that is wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from world_models.files import write_text

__all__ = ["METRICS", "Journal", "summary_writer"]

METRICS = "metrics.jsonl"
_SHOWN = ("return", "cost", "multiplier")  # in the bar


def summary_writer(folder: Path) -> Any:
    """TensorBoard's writer into `folder`.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(f'TensorBoard is not installed ({error}): pip install "clinenv[rl]"') from None
    return SummaryWriter(str(folder))


class Journal:
    """Metrics of a run of `total` steps of which `done` were taken before; a context, closed at its end.

    Lines of steps beyond `done`, which a run wrote after its last checkpoint and before it was killed, are dropped.

    Raises:
        ValueError: TensorBoard is wanted and not installed; nothing is written then.
    """

    def __init__(self, folder: Path, label: str, total: int, done: int, show: bool, tensorboard: bool = False) -> None:
        self._writer = summary_writer(folder / "tensorboard") if tensorboard else None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS
        kept = [line for line in _lines(path) if json.loads(line)["steps"] <= done] if done else []
        write_text(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")
        self._bar = tqdm(total=total, initial=done, desc=label, unit="step", unit_scale=True, disable=not show)
        self._done, self._began = done, time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def line(self, steps: int, metrics: Mapping[str, float]) -> None:
        """One line: after so many patient-steps in all, these figures."""
        seconds = time.monotonic() - self._began
        rate = (steps - self._done) / max(seconds, 1e-9)
        told = {"steps": steps, "seconds": round(seconds, 2), "steps_per_second": round(rate)}
        rounded = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        self._file.write(json.dumps({**told, **rounded}) + "\n")
        self._file.flush()
        self._bar.update(steps - self._bar.n)
        self._bar.set_postfix({n: f"{metrics[n]:.2f}" for n in _SHOWN if n in metrics}, refresh=False)
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, steps)


def _lines(path: Path) -> list[str]:
    """Whole lines of a file of metrics; the last may have been cut by a kill."""
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
