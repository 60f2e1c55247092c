"""What people's records cannot teach, learned from simulated stays after all else: what an order does, and what results
look like that nobody charted.

Learned from beside people, simulated stays spoil what is foretold of people: a hospital that no record tells of, whose
patients get many orders, is foretold as surely as the simulator. So the network of people never meets one. A twin does,
which is thrown away; all that passes over is its table of straight effects (what an order moves an item by, on the
item's scale). In a network without `deep_orders` that is the one way by which orders act.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from world_models.ehr_world.feeder import Feeder, schedule
from world_models.ehr_world.set_outcome.losses import stay_losses
from world_models.ehr_world.set_outcome.network import DOSE_FEATURES, SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import UNKNOWN, Stays
from world_models.training import fit

__all__ = ["learn_effects", "learn_uncharted", "unread"]

BATCH = 24  # simulated stays
EFFECTS_RATE, UNCHARTED_RATE = 2e-3, 5e-3
READ, FUSED = 6, 4  # numbers that `SetOutcome.digest` and `.fuse` read of an item, each a block of columns


@torch.no_grad()
def unread(net: SetOutcome, items: Tensor, context: Tensor) -> None:
    """A network of people no longer reads items (bool [I]) and static features (bool [S]) that hardly any record holds:
    an agent that asks for one must not feed first weights to all else. What it says of who lacks them stays the same.
    """
    known, features = net.config.hidden, len(context)
    dosed = DOSE_FEATURES * len(net.largest) if net.config.deep_orders else 0
    for name, before, numbers in (("begin.0", 0, 0), ("pool", 0, READ), ("fuse_in", known, FUSED)):
        weight, bias = net.get_parameter(f"{name}.weight"), net.get_parameter(f"{name}.bias")
        weight[:, before : before + numbers * len(items)][:, items.repeat(numbers)] = 0.0
        begin = before + numbers * len(items) + (dosed if numbers else 0)
        value, lacking = weight[:, begin : begin + features], weight[:, begin + features : begin + 2 * features]
        bias.add_(lacking[:, context].sum(1))  # where a feature lacks, its flag is 1
        value[:, context] = 0.0
        lacking[:, context] = 0.0


def learn_effects(net: SetOutcome, simulated: Stays, steps: int, folder: Path) -> None:
    """The table of straight effects from simulated stays, by a twin whose every weight may follow the simulator.

    The twin says all by a base with a location, which is what an order moves: free logits would take a part of the
    effect, or give some of it back.
    """
    twin = copy.deepcopy(net)
    twin.moves_all, twin.base_alone = False, True
    twin.recorded_gain = torch.ones_like(net.recorded_gain)
    _fit(twin, simulated, steps, EFFECTS_RATE, folder, "effects", None)
    with torch.no_grad():
        net.effect.weight.copy_(twin.effect.weight)
        net.effect_slope.weight.copy_(twin.effect_slope.weight)


def learn_uncharted(net: SetOutcome, simulated: Stays, items: Tensor, steps: int, folder: Path) -> None:
    """These items' own rows (bool [I]) in the tables of the query, from simulated stays, with all else as it is."""
    gain, net.recorded_gain = net.recorded_gain, torch.ones_like(net.recorded_gain)
    tables = ["gain", "item", "out_item", "delay_class"] + ["trend_gain", "pull"] * net.config.trends
    rows = [net.get_parameter(f"{name}.weight") for name in tables]
    _fit(net, simulated, steps, UNCHARTED_RATE, folder, "uncharted", rows, items)
    net.recorded_gain = gain


def _fit(
    net: SetOutcome,
    simulated: Stays,
    steps: int,
    rate: float,
    folder: Path,
    stage: str,
    parameters: list[nn.Parameter] | None,
    only: Tensor | None = None,
) -> None:
    feed = Feeder(simulated, min(BATCH, len(simulated.static)), seed=len(stage))
    expected = float(simulated.valid.sum()) / len(simulated.static) * feed.batch

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        stays = feed(step)
        found = stay_losses(net, stays if only is None else wanted(stays, only), expected, shown=stays)
        metrics = {name: float(value.detach()) for name, value in found._asdict().items()}
        return found.total(ends=only is None), metrics

    # rows without a gradient stay as they are only where no weight decays
    plan = schedule(steps, rate, 1e-2 if only is None else 0.0, save_every_s=60.0, average=0.99)
    fit(net, loss, plan, folder, stage, parameters)


def wanted(stays: Stays, items: Tensor) -> Stays:
    """The stays with results of these items (bool [I]) alone, as what is to be foretold."""
    value = torch.where(items, stays.value, float("nan"))
    return stays._replace(value=value, delay=torch.where(items, stays.delay, UNKNOWN))
