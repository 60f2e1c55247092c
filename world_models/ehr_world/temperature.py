"""How sure a trained network may be: a temperature of its bins' masses, chosen on patients whom it has not met.

A network is fitted to those it learns from, and is a little too sure of others. One number mends most of that (Guo
2017, arXiv 1706.04599): the masses of an item's bins to the power 1 / temperature. What is likeliest stays so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from world_models import tree
from world_models.ehr_world.set_outcome.losses import forced, likelihood
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, trim

__all__ = ["TEMPERATURES", "best_temperature", "with_temperature"]

TEMPERATURES = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3)  # to choose from
AT_ONCE = 64  # stays of about one length


def with_temperature(net: SetOutcome, temperature: float) -> None:
    """The network says everything at this temperature from now on."""
    net.config = dataclasses.replace(net.config, temperature=temperature)


@torch.no_grad()
def best_temperature(judged: Iterable[tuple[SetOutcome, Stays]]) -> float:
    """The one at which the numbers of these stays [B, ...], next step, are likeliest. The networks' own must be 1.

    Raises:
        ValueError: a network has another temperature already.
    """
    total = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    for net, stays in judged:
        if net.config.temperature != 1.0:
            raise ValueError(f"the network has temperature {net.config.temperature:g} already; set it to 1 first")
        for rows in stays.valid.sum(1).argsort().split(AT_ONCE):
            run = forced(net, trim(tree.take(stays, rows)))
            there = ~run.z.isnan() & ~net.label[run.item] & (run.place > 0)
            marginal, z = run.outcome.marginal.take(there), run.z[there]
            at = run._replace(row=run.row[there], place=run.place[there], item=run.item[there], z=z)
            for i, temperature in enumerate(TEMPERATURES):
                log_mass = torch.log_softmax(marginal.log_mass / temperature, -1)
                tempered = run.outcome._replace(marginal=marginal._replace(log_mass=log_mass))
                total[i] += likelihood(net, at._replace(outcome=tempered))[0].double().sum()
    return TEMPERATURES[int(total.argmax())]
