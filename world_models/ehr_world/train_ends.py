"""How stays end, learned last, from people whose records tell it and from simulated stays together.

Records that tell hold few deaths, and in them what is charted goes with who leaves; simulated stays tell what a value
means for survival, but not how long people's stays last. So one head reads last values alone (`set_outcome.ends`) and
meets both; how much rarer an end is among simulated patients is a number of its own, which is thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from world_models.ehr_world.feeder import Feeder, schedule
from world_models.ehr_world.set_outcome import ends
from world_models.ehr_world.set_outcome.losses import end_losses
from world_models.ehr_world.set_outcome.network import SetOutcome, StepInputs
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.training import fit

__all__ = ["learn_ends"]

BATCH = 24  # simulated stays
RATE, WEIGHT_DECAY = 3e-3, 1e-2


def learn_ends(
    net: SetOutcome,
    people: Callable[[int], Stays],
    positions: float,
    items: Tensor,
    simulated: Stays,
    steps: int,
    folder: Path,
) -> None:
    """Gives the network a head of ends that reads the chart, fitted with all else as it is.

    Args:
        people: stays of a step, whose ends are told.
        positions: of those, about.
        items: bool [I], those whose last values are read: what only simulated patients have tells of them alone.
    """
    net.config = dataclasses.replace(net.config, ends_by_chart=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net.ends = ends.head(net.config, net.vocabulary).to(net.edges.device)
    with torch.no_grad():
        net.get_parameter("ends.0.weight")[:, : 2 * len(items)][:, ~items.repeat(2)] = 0.0
    feed = Feeder(simulated, min(BATCH, len(simulated.static)), seed=3)
    expected = float(simulated.valid.sum()) / len(simulated.static) * feed.batch
    apart = nn.Parameter(_apart(people(0), simulated).to(net.edges.device))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        real, made = people(step), feed(step)
        found = [*end_losses(net.ends(_read(net, real, items)), real, positions)]
        found += end_losses(net.ends(_read(net, made, items)) + apart, made, expected)
        names = ("death", "home", "simulated_death", "simulated_home")
        return torch.stack(found).sum(), {n: float(x.detach()) for n, x in zip(names, found, strict=True)}

    plan = schedule(steps, RATE, WEIGHT_DECAY, save_every_s=60.0, average=0.99)
    fit(net, loss, plan, folder, "ends", [*net.ends.parameters(), apart])


@torch.no_grad()
def _read(net: SetOutcome, stays: Stays, items: Tensor) -> Tensor:
    """What the head reads of every position, [B, T, ...], were these items (bool [I]) all that is charted."""
    batch, count, _ = stays.value.shape
    step = torch.arange(count, device=stays.value.device, dtype=torch.float32).expand(batch, count)
    static, diagnosis = (x.unsqueeze(1).expand(-1, count, -1) for x in (stays.static, stays.diagnosis))
    chart, fixed = net.charted(charted(stays)), net.fixed(static, diagnosis, step)
    chart = chart._replace(seen=chart.seen * items)
    inputs = StepInputs(chart, net.doses(stays.given), fixed)
    return ends.chart_row(inputs, len(net.static_mean), net.own_static)


def _apart(people: Stays, simulated: Stays) -> Tensor:
    """Log odds [2] of an end in a simulated step, less those in one of people."""

    def odds(stays: Stays) -> Tensor:
        happened = torch.stack([(x & stays.valid).sum() for x in (~stays.alive, stays.home)])
        return ((happened + 0.5) / stays.valid.sum()).logit()

    return odds(simulated) - odds(people)
