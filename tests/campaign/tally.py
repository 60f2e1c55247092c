"""What a campaign has tried and what failed, kept in a JSON file as it goes, so that one that was stopped goes on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from world_models.files import write_text

__all__ = ["Tally", "arguments", "processor"]


@dataclass
class Tally:
    """Counts by kind of trial, and each failure with the seed that makes it again."""

    name: str  # of the campaign
    seed: int
    path: Path | None = None  # where it is kept; None: nowhere
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # kind -> outcome -> how often
    failures: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)  # whatever else was measured
    seconds: float = 0.0  # wall time over all runs
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def begun(cls, name: str, seed: int, path: Path | None) -> Tally:
        """The tally that `path` holds of this campaign and seed, or a new one."""
        kept = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
        mine = kept.get(name, {})
        if mine.get("seed") != seed:
            mine = {}
        return cls(
            name,
            seed,
            path,
            {kind: Counter(counts) for kind, counts in mine.get("counts", {}).items()},
            mine.get("failures", []),
            mine.get("figures", {}),
            mine.get("seconds", 0.0),
        )

    def done(self, kind: str) -> int:
        """Trials of a kind so far."""
        return sum(self.counts.get(kind, Counter()).values())

    def add(self, kind: str, outcome: str, times: int = 1) -> None:
        """One more trial of a kind, and how it ended."""
        self.counts.setdefault(kind, Counter())[outcome] += times

    def fail(self, kind: str, what: str, **details: Any) -> None:
        """A trial that broke a promise."""
        self.add(kind, "failed")
        self.failures.append({"kind": kind, "what": what[:2000], **details})
        print(f"FAILED {kind}: {what[-700:]} {details}", flush=True)

    def save(self) -> None:
        """Write the tally beside those of the other campaigns in the file."""
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        if self.path is None:
            return
        kept = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        kept[self.name] = {
            "seed": self.seed,
            "counts": {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.counts.items())},
            "trials": sum(self.done(kind) for kind in self.counts),
            "failed": len(self.failures),
            "failures": self.failures,
            "figures": self.figures,
            "seconds": round(self.seconds, 1),
            "processor": processor(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(kept, indent=1, sort_keys=True) + "\n")

    def report(self) -> int:
        """Print the table; the exit status."""
        self.save()
        for kind, counts in sorted(self.counts.items()):
            told = ", ".join(f"{outcome} {n:,}" for outcome, n in sorted(counts.items()))
            print(f"{self.name} {kind:28s} {sum(counts.values()):>12,}: {told}")
        total = sum(self.done(kind) for kind in self.counts)
        print(f"{self.name}: {total:,} trials, {len(self.failures)} failures, {self.seconds:.0f} s", flush=True)
        return int(bool(self.failures))


def arguments(description: str, count: int, seconds: float, given: list[str] | None) -> argparse.Namespace:
    """The command line that all campaigns share."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=description)
    parser.add_argument("--count", type=int, default=count, help=f"trials in all (default {count:,})")
    parser.add_argument("--seconds", type=float, default=seconds, help="stop after so long (default %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="other trials (default 0)")
    parser.add_argument("--out", type=Path, help="JSON to keep the tally in, and to go on from")
    parser.add_argument("--only", nargs="*", help="kinds of trials; all if left out")
    return parser.parse_args(given)


def processor() -> str:
    """What it ran on."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
