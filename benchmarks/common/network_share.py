"""Where the time of a step goes: calls of networks, passes through learned weights, the world's verbs, the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["VERBS", "time_shares", "watched"]

VERBS = ("initial", "transition", "observe", "spread", "support", "rekey", "infer", "read", "fates")
Timed = tuple[Any, str]  # an object and the name of its method


class Clock(Protocol):
    """What is told when a method begins and ends."""

    def enter(self) -> None: ...

    def leave(self) -> None: ...


class _Clock:
    """Adds up the time between the outermost `enter` and its `leave`."""

    def __init__(self) -> None:
        self.depth, self.total, self.entered = 0, 0.0, 0.0

    def enter(self) -> None:
        if self.depth == 0:
            self.entered = time.perf_counter()
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.total += time.perf_counter() - self.entered


def time_shares(
    work: Callable[[], int],
    world: Any,
    seconds: float,
    learned: Iterable[Timed] | None = None,
    also: Mapping[str, Iterable[Timed]] | None = None,
) -> dict[str, float]:
    """Shares (0 to 1) of the wall time of repeated `work`; a pass inside a pass of the same kind counts once.

    Args:
        world: the object whose verbs `work` uses.
        learned: (object, name of its method) for each pass through learned weights that is no call of a torch module;
            None: those that the world itself names in `learned_passes`, if it does.
        also: name -> methods, whose share is told too, under that name.

    Returns:
        "modules": inside calls of torch modules, networks in the narrow sense: linear layers, activations, recurrent
        cells, and what a module's `forward` does around them. What a module does in its other methods is not in it.
        "learned": those calls and the methods in `learned`. For the ECG world these are the neural ODE's step (drug
        amounts by learned rates, learned slopes and daily rhythm, drift network), the making of a patient's own rates
        and propagator from random effects, and the torsades hazard; with flow, belief encoder, spread head and beat
        autoencoder, which are module calls, they are all the passes through learned weights there are but for the
        addition of coordinates. Not in it: random numbers, cohorts, dose logs, units, charts.
        "world": inside the world's verbs, the learned passes among them.
        "rest": outside the verbs: task, observation, infos, autoreset, numpy.
    """
    modules, passes, verbs = _Clock(), _Clock(), _Clock()
    others = {name: _Clock() for name in also or {}}
    named = getattr(world, "learned_passes", ()) if learned is None else learned

    def before(module: nn.Module, args: tuple) -> None:
        passes.enter()
        modules.enter()

    def after(module: nn.Module, args: tuple, output: object) -> None:
        modules.leave()
        passes.leave()

    work()
    places = [(world, verb, verbs) for verb in VERBS if hasattr(world, verb)]
    places += [(owner, name, passes) for owner, name in named]
    places += [(owner, name, others[share]) for share, methods in (also or {}).items() for owner, name in methods]
    with watched(places):
        hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
        try:
            start = time.perf_counter()
            while time.perf_counter() - start < seconds:
                work()
            total = time.perf_counter() - start
        finally:
            for hook in hooks:
                hook.remove()
    return {
        "modules": modules.total / total,
        "learned": passes.total / total,
        "world": verbs.total / total,
        "rest": 1.0 - verbs.total / total,
        **{name: clock.total / total for name, clock in others.items()},
    }


@contextmanager
def watched(places: Sequence[tuple[Any, str, Clock]]) -> Iterator[None]:
    """Every (object, method) with its clock running while it is at work; afterwards the objects are as they were.

    The timed method stands in the object's own `__dict__`, past `__setattr__`: a module's would refuse or register it.
    """
    kept = [(owner, name, vars(owner).get(name)) for owner, name, _ in places]
    try:
        for owner, name, clock in places:
            vars(owner)[name] = _clocked(getattr(owner, name), clock)
        yield
    finally:
        for owner, name, own in reversed(kept):
            if own is None:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = own


def _clocked(method: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        clock.enter()
        try:
            return method(*args, **kwargs)
        finally:
            clock.leave()

    return timed
