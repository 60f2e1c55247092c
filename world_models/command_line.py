"""What the training commands' options must be, checked while the command line is read: before anything is written."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["MOST", "MOST_BATCH", "MOST_THREADS", "device", "folder", "number", "trainer", "whole"]

MOST = 10**9  # of patients, stays or steps: far above what anyone trains, and below what overflows
MOST_THREADS = 1024
MOST_BATCH = 1 << 24


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}; give one")
        return value

    return read


def number(least: float, most: float, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a number from `least` (or `above` it) to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not ((value > least if above else value >= least) and value <= most):
            raise argparse.ArgumentTypeError(
                f"{text} is not a number {'above' if above else 'from'} {least:g} {'and at most' if above else 'to'} "
                f"{most:g}; give one"
            )
        return value

    return read


def device(text: str) -> str:
    """An argparse type: a device that this torch can work on."""
    from world_models.devices import checked_device  # torch, which no other option needs

    try:
        checked_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def folder(text: str) -> Path:
    """An argparse type: a folder that is there and can be written to, or one that can be made."""
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty; name one")
    path = Path(text)
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {nearest} is a file, no folder; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: {nearest} cannot be written to; name another folder")
    return path


def trainer(
    module: str, about: str | None, steps: tuple[int, int], batch: tuple[int, int], of: str
) -> argparse.ArgumentParser:
    """The options of a command that trains one network: --out, --steps, --batch, --device and --threads.

    `steps` and `batch` are the default and the most; a batch holds `of`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument(
        "--out", type=folder, required=True, help="folder for config.json, model.safetensors and CARD.md"
    )
    parser.add_argument("--steps", type=whole(1, steps[1]), default=steps[0], help=f"of training (default {steps[0]})")
    parser.add_argument("--batch", type=whole(16, batch[1]), default=batch[0], help=f"{of} a step (default {batch[0]})")
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help="torch threads on the CPU")
    return parser
