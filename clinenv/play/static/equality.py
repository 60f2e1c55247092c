"""Whether the ONNX files do what the learned world does: an episode played in both, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.play.session import Session
from clinenv.play.static.networks import Named, StepOfGame, drawn
from clinenv.play.static.patients import kept_state

__all__ = ["TOLERANCE", "Differences", "played"]

TOLERANCE = {"state": 1e-3, "chart": 1e-3, "reward": 1e-4, "ecg_mv": 0.05}  # see `Differences`


class Differences(NamedTuple):
    """The largest differences over an episode. Of state and chart |a - b| / (1 + |b|); the reward's as it is; the ECG's
    root mean square in mV over the worst of the ECGs: its search for a bend goes by misses of a rounding's size."""

    steps: int
    state: float
    chart: float
    reward: float
    ecg_mv: float
    flags: int  # of what is true or false, or whole, how many entries differ

    @property
    def within(self) -> bool:
        """Whether all of them are within TOLERANCE, and no flag differs."""
        return self.flags == 0 and all(getattr(self, name) <= most for name, most in TOLERANCE.items())


@torch.no_grad()
def played(
    session: Session, step: StepOfGame, run: Callable[[str, Named], Named], menu: Sequence[int], ecg_every: int = 8
) -> Differences:
    """Play a session's patient to the end, in torch and by `run`, which carries its own state from step to step.

    Args:
        session: at admission.
        step: of the session's world.
        run: name of a file and its inputs -> its outputs.
        menu: the menu's entries to give, one after the other, over and over.
        ecg_every: steps between ECGs that are drawn and compared.
    """
    episodes = session.episodes["learned"]
    simulator, entries = episodes.simulator, session.game.task().actions
    table = entries.table(simulator.world.orders)  # type: ignore[union-attr]
    now = session.branches[0].moments[0]["learned"].running
    state, chart, own = now.state, now.chart, kept_state(now.state)
    worst = {"state": 0.0, "chart": 0.0, "reward": 0.0, "ecg_mv": 0.0}
    flags, steps = 0, 0
    for steps in range(1, episodes.horizon_steps + 1):
        dose = table[menu[(steps - 1) % len(menu)]].unsqueeze(0)
        out = simulator.step(state, chart, dose)
        found = run("step", {**own, "dose_mg": dose})
        own |= {name: value for name, value in found.items() if not name.startswith("shown.")}
        state, chart = out.state, out.chart
        for name, value in kept_state(state).items():
            if value.dtype.is_floating_point:
                worst["state"] = max(worst["state"], _relative(own[name], value))
            else:
                flags += int((own[name] != value).sum())
        for name, value in step.shown(state, chart).items():
            if value.dtype.is_floating_point:
                worst["chart"] = max(worst["chart"], _relative(found[name], value))
            else:
                flags += int((found[name] != value).sum())
        flags += int((found["shown.terminated"] != out.terminated).sum())
        worst["reward"] = max(worst["reward"], float((found["shown.reward"] - out.reward).abs().max()))
        if steps % ecg_every == 0:
            asked = simulator.world.observe(state, ("ecg_mv",))["ecg_mv"]
            away = drawn(run, own, {**chart, **_chart_of(own)}) - asked
            worst["ecg_mv"] = max(worst["ecg_mv"], float(away.square().mean().sqrt()))
        if bool(out.terminated):
            break
    return Differences(steps, **worst, flags=flags)


def _chart_of(state: Named) -> Named:
    start = "present.intervals."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def _relative(one: Tensor, other: Tensor) -> float:
    """Largest relative difference; where only one is NaN, infinite."""
    if bool((one.isnan() != other.isnan()).any()):
        return float("inf")
    return float(((one - other).abs() / (1.0 + other.abs())).nan_to_num(0.0).max())
