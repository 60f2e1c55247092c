"""Where the time of a step goes, each moment counted once: learned passes, random keys, admissions, physiology, door.

| kind | what it is |
|---|---|
| learned | calls of torch modules, and what else a world does with learned weights (`passes_of`) |
| keys | `world_models.keys`: folding keys and drawing random numbers from them |
| admissions | the rest of beginning new patients (`Episodes.begin`, `Episodes.renew`) |
| physiology | the rest of the world's verbs: states, charts, doses, sampling |
| door | all else: the task's reward and cost, spaces, observations, infos, autoreset, numpy, Gymnasium's wrappers |

Of two kinds of which one is at work within the other, the upper one of the table counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.network_share import VERBS, watched
from benchmarks.common.timing import Work
from clinenv.episodes import Episodes
from world_models import keys

__all__ = ["KINDS", "Meter", "Split", "flops_by_kind", "passes_of", "time_by_kind"]

KINDS = ("learned", "keys", "admissions", "physiology", "door")
_WITHIN = {"door": 0, "physiology": 1, "admissions": 2, "learned": 3, "keys": 4}  # the greater counts
_WARD_PASSES = ("start", "fixed", "doses", "outcomes", "take_in", "delay_logits")  # of its network, beside modules


class Meter:
    """Adds up what `reading` grows by (seconds, operations) to the kind at work. Starts as "door"."""

    def __init__(self, reading: Callable[[], float]) -> None:
        self.totals = dict.fromkeys(KINDS, 0.0)
        self._reading, self._at, self._last = reading, ["door"], reading()

    def enter(self, kind: str) -> None:
        """Until `leave`, this kind is at work, unless one is that counts before it."""
        self._add()
        here = self._at[-1]
        self._at.append(kind if _WITHIN[kind] > _WITHIN[here] else here)

    def leave(self) -> None:
        """What was at work before `enter` is again."""
        self._add()
        self._at.pop()

    def stop(self) -> None:
        """Add what grew since the last change."""
        self._add()

    def start(self) -> None:
        """Forget what grew until now."""
        self._last = self._reading()

    def _add(self) -> None:
        now = self._reading()
        self.totals[self._at[-1]] += now - self._last
        self._last = now


class _Kind:
    """A meter's kind as a clock of `watched`."""

    def __init__(self, meter: Meter, kind: str) -> None:
        self._meter, self._kind = meter, kind

    def enter(self) -> None:
        self._meter.enter(self._kind)

    def leave(self) -> None:
        self._meter.leave()


def passes_of(world: Any) -> tuple[tuple[Any, str], ...]:
    """(object, method) of each pass through learned weights that is no module's call, or more than that."""
    named = list(getattr(world, "learned_passes", ()))
    if (reader := getattr(world, "reader", None)) is not None:  # of ECGs: a linear probe
        named.append((reader, "chances"))
    if (network := getattr(world, "net", None)) is not None:
        named += [(network, name) for name in _WARD_PASSES]
    return tuple(named)


class Split(NamedTuple):
    """Where the processor's time went."""

    share: dict[str, float]  # of each kind, 0 to 1; they sum to 1
    cpu_s: float  # of all
    units: int  # of work


def time_by_kind(work: Work, episodes: Episodes, seconds: float, turns: int) -> Split:
    """The split of repeated `work`, which steps `episodes`: until so many turns are done, or so many seconds over."""
    work()
    meter, units, began = Meter(time.process_time), 0, time.perf_counter()
    with _metered(meter, episodes):
        meter.start()
        for _ in range(turns):
            units += work()
            if time.perf_counter() - began > seconds:
                break
        meter.stop()
    total = sum(meter.totals.values())
    return Split({kind: spent / total for kind, spent in meter.totals.items()}, total, units)


def flops_by_kind(work: Work, episodes: Episodes, turns: int) -> dict[str, float]:
    """Floating-point operations of matrix products and convolutions a unit of `work`, by kind, over so many turns."""
    units = 0
    with FlopCounterMode(display=False) as counter:
        meter = Meter(counter.get_total_flops)
        with _metered(meter, episodes):
            for _ in range(turns):
                units += work()
            meter.stop()
    return {kind: flops / units for kind, flops in meter.totals.items()}


@contextmanager
def _metered(meter: Meter, episodes: Episodes) -> Iterator[None]:
    """The meter follows what is at work in these episodes' environment."""
    world = episodes.simulator.world
    learned, verb = _Kind(meter, "learned"), _Kind(meter, "physiology")
    places: list[tuple[Any, str, Any]] = [(episodes, name, _Kind(meter, "admissions")) for name in ("begin", "renew")]
    places += [(world, name, verb) for name in VERBS if hasattr(world, name)]
    # verbs that the episodes took hold of when they were made
    places += [(episodes, name, verb) for name in ("_parts", "_truth") if getattr(episodes, name) is not None]
    places += [(owner, name, learned) for owner, name in passes_of(world)]
    places += [(keys, name, _Kind(meter, "keys")) for name in keys.__all__ if callable(getattr(keys, name))]

    def before(module: nn.Module, args: tuple) -> None:
        learned.enter()

    def after(module: nn.Module, args: tuple, output: object) -> None:
        learned.leave()

    with watched(places):
        hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
