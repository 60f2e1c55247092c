"""How fast Cardiac JEPA is: `python -m benchmarks.progression.speed --json benchmarks/results/speed_cardiac_jepa.json`.

Latent steps a second (action projector, predictor, probe: one imagined visit of one patient) at batch 1, 64 and 4096,
with the share of each part; ECGs encoded a second (10 s in four crops) at the batches up to `--encode-most`. The whole
xResNet1d50 forward, and forward and backward, at [64, 12, 1000] and [64, 12, 250] beside the figures published for two
busy cores. A rate is the median of `--repeats` runs, all measurements interleaved, after a warm-up. `--world` a
catalogued cardiac JEPA or its folder; "untrained": random weights of the shipped shape, which cost the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_json
from world_models import catalog, keys
from world_models.cardiac_jepa import probes
from world_models.cardiac_jepa.config import FULL, NARROW
from world_models.cardiac_jepa.encoder import XResNet1d
from world_models.cardiac_jepa.jepa import CardiacJEPA

__all__ = ["forward_work", "latent_work", "main", "rates"]

BATCHES = (1, 64, 4096)
SHAPES = ((64, 12, 1000), (64, 12, 250))
# ECGs a second of the reference xResNet1d50 on two busy cores
PUBLISHED = {
    "forward [64, 12, 1000]": 94.0,
    "forward and backward [64, 12, 1000]": 28.0,
    "forward [64, 12, 250]": 180.0,
}
RESULT = RESULTS / "speed_cardiac_jepa.json"

Work = Callable[[], Any]


def rates(works: dict[str, tuple[int, Work]], seconds: float, repeats: int) -> dict[str, dict[str, float]]:
    """Units a second of each work (units a call, call): median, lowest, highest; kinds take turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _, work in works.values():
        work()
    for _ in range(repeats):
        for name, (units, work) in works.items():
            done, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                work()
                done += units
            found[name].append(done / (time.perf_counter() - start))
    return {n: {"median": statistics.median(x), "low": min(x), "high": max(x)} for n, x in found.items()}


def latent_work(jepa: CardiacJEPA, batch: int, encode: bool = True) -> dict[str, tuple[int, Work]]:
    """The parts of an imagined visit at a batch, and of reading its ECG."""
    c, key = jepa.config, keys.from_seed(0, batch)
    z, ecg = keys.normal(key, 0, "z", (c.latent,)), 0.2 * keys.normal(key, 0, "ecg", (12, 1000)) if encode else None
    action = torch.zeros(batch, len(c.codes))
    action[torch.arange(batch), torch.arange(batch) % len(c.codes)] = 1.0
    days = torch.full((batch,), 180.0)
    weight = keys.normal(keys.from_seed(1), 0, "probe", (len(c.codes), c.latent))[0]
    probe = probes.Probe(weight, torch.zeros(len(c.codes)), torch.zeros(c.latent), torch.ones(c.latent))
    embedded = None if jepa.action is None else jepa.action(action, days)

    def step() -> Tensor:
        return probes.apply(probe, jepa.predict(z, action, days))

    works: dict[str, tuple[int, Work]] = {
        f"latent step, batch {batch}": (batch, step),
        f"predictor, batch {batch}": (batch, lambda: jepa.dynamics(z, embedded)),
        f"probe, batch {batch}": (batch, lambda: probes.apply(probe, z)),
    }
    if jepa.action is not None:
        works[f"action projector, batch {batch}"] = (batch, lambda: jepa.action(action, days))
    if ecg is not None:
        works[f"encode, batch {batch}"] = (batch, lambda: probes.crop_features(jepa.latent, ecg, c.crop_samples))
    return works


def forward_work(encoder: XResNet1d, shape: tuple[int, int, int]) -> dict[str, tuple[int, Work]]:
    """An encoder forward (no gradient, evaluation), and forward and backward (training)."""
    ecg = 0.2 * keys.normal(keys.from_seed(0, shape[0]), 0, "ecg", shape[1:])
    at = f"[{', '.join(str(n) for n in shape)}]"

    def forward() -> None:
        encoder.eval()
        with torch.no_grad():
            encoder(ecg)

    def both() -> None:
        encoder.train()
        encoder.zero_grad(set_to_none=True)
        encoder(ecg).square().mean().backward()

    return {f"forward {at}": (shape[0], forward), f"forward and backward {at}": (shape[0], both)}


def _shares(found: dict[str, dict[str, float]], batch: int) -> dict[str, float]:
    """Seconds a patient of each part over those of the whole step; what is left is copying and calling."""
    whole = 1 / found[f"latent step, batch {batch}"]["median"]
    parts = ("action projector", "predictor", "probe")
    shares = {p: 1 / found[f"{p}, batch {batch}"]["median"] / whole for p in parts if f"{p}, batch {batch}" in found}
    encode = found.get(f"encode, batch {batch}")
    return shares | ({"encoding its ECG, in latent steps": 1 / encode["median"] / whole} if encode else {})


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--world", default="cardiac-jepa-small", help="a catalogued cardiac JEPA, its folder, or 'untrained'"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--encode-most", type=int, default=64, help="largest batch whose ECGs are encoded")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULT)
    a = parser.parse_args(argv)
    if min(*a.batches, a.repeats, a.threads) < 1 or a.seconds <= 0:
        parser.error("batches, repeats and threads must be 1 or more, seconds above 0")
    return a


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write. Returns the exit status: 2 for a world without a JEPA."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    if a.world == "untrained":
        jepa = CardiacJEPA(NARROW)
    else:
        try:
            world: Any = catalog.load(a.world)
            jepa = world.jepa
        except (ValueError, OSError, AttributeError) as error:
            print(f"error: {a.world!r} is no cardiac JEPA ({error})", file=sys.stderr)
            return 2
    jepa.eval()
    with torch.no_grad():
        works = {k: w for b in a.batches for k, w in latent_work(jepa, b, b <= a.encode_most).items()}
        found = rates(works, a.seconds, a.repeats)
    whole, narrow = {}, {}
    for shape in SHAPES:
        whole |= forward_work(XResNet1d.of(FULL), shape)
        narrow |= {f"narrow {n}": w for n, w in forward_work(XResNet1d.of(NARROW), shape).items()}
    ecgs = rates(whole | narrow, a.seconds, a.repeats)
    told = {
        "world": a.world,
        "threads": a.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "unit": "patients or ECGs a second",
        "latent": found,
        "shares_of_a_latent_step": {f"batch {b}": _shares(found, b) for b in a.batches},
        "encoders": ecgs,
        "published_xresnet1d50_two_busy_cores": PUBLISHED,
    }
    worlds = [] if a.world == "untrained" else [a.world]
    write_json(a.json, told, made_by("benchmarks.progression.speed", argv, {"inputs": 0}, worlds))
    for name, rate in (found | ecgs).items():
        beside = f"   published {PUBLISHED[name]:.0f}" if name in PUBLISHED else ""
        print(f"{name:<44}{rate['median']:>12.1f}  [{rate['low']:.1f} - {rate['high']:.1f}]{beside}")
    print(a.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
