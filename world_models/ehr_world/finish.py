"""The learned ward around a trained network: what validation stays say of it, its card, its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from world_models import checkpoint, keys, tree
from world_models.ehr_world import vocabulary
from world_models.ehr_world.set_outcome.card import write_card
from world_models.ehr_world.set_outcome.losses import forced, likelihood
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, trim
from world_models.ehr_world.set_outcome.world import KIND, EHRWorldModel

__all__ = ["finish", "measure"]


@torch.no_grad()
def measure(net: SetOutcome, stays: Stays, batch: int = 50) -> dict[str, float]:
    """Next-step likelihood on these stays, and coverage of the central 80 %.

    That is of reports spread evenly over what rounds to them, as one rounded number may hold half the mass.
    """
    there = stays.asked & ~stays.value.isnan()
    steps = [vocabulary.report_grid(stays.value[..., i][there[..., i]].double()) for i in range(there.shape[-1])]
    grid = torch.tensor(steps, device=net.edges.device)
    total = torch.zeros(3, dtype=torch.float64)
    for rows in stays.valid.sum(1).argsort().split(batch):
        part = trim(tree.take(stays, rows))
        run = forced(net, part)
        log_p, _ = likelihood(net, run)
        here = ~run.z.isnan() & ~net.label[run.item]
        even = keys.uniform(keys.from_seed(1), int(rows[0]), "measure", (len(run.z),))[0].to(grid.device) - 0.5
        near = part.value[run.row, run.place, run.item].nan_to_num(0.0) + even * grid[run.item]
        near = vocabulary.to_z(near, net.scale[run.item])
        edges = run.outcome.marginal.edges
        pit = run.outcome.marginal.cdf(torch.maximum(torch.minimum(near, edges[:, -1]), edges[:, 0]))
        inside = (pit[here] > 0.1) & (pit[here] < 0.9)
        total += torch.tensor([float(-log_p[here].sum()), float(inside.sum()), float(here.sum())], dtype=torch.float64)
    nll, inside, count = total.tolist()
    return {"nll": nll / count, "coverage80": inside / count, "values": int(count), "stays": len(stays.static)}


def finish(
    net: SetOutcome,
    stays: Stays,
    held_out: Stays,
    out: Path,
    command: str,
    source: str,
    extra: Mapping[str, object] | None = None,
    figures: Mapping[str, float] | None = None,
    judged: str | None = None,
) -> tuple[EHRWorldModel, dict[str, float]]:
    """The world around a trained network, saved to `out`: admissions, triage and bounds from the training stays.

    Args:
        extra: kept in the config beside what the model needs.
        figures: further ones for the card.
        judged: the command that judges it, for the card; None: that of the ward's worlds.
    """
    config = dataclasses.replace(net.config, admissions=min(net.config.admissions, len(stays.static)))
    model = EHRWorldModel(config, net.vocabulary)
    model.net.load_state_dict(net.state_dict())
    model = model.to(net.edges.device).eval().requires_grad_(False)
    rows = torch.arange(config.admissions) * (len(stays.static) // config.admissions)
    model.admissions.copy_(stays.static[rows])
    model.triage.copy_(stays.asked[:, 0].float().mean(0))
    model.most_given.fill_(float((stays.given > 0).sum(-1).amax()))
    figures = {**measure(model.net, held_out), **(figures or {})}
    figures["parameters"] = sum(p.numel() for p in model.parameters())
    plain = {"kind": KIND, **dataclasses.asdict(config), "vocabulary": net.vocabulary.to_json(), **(extra or {})}
    checkpoint.save_checkpoint(
        out, model.state_dict(), plain, write_card(config, net.vocabulary, command, source, figures, judged)
    )
    return model, figures
