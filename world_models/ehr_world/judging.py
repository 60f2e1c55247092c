"""How well a network predicts recorded stays: the next step, and what is withheld from a position on."""

from __future__ import annotations

import torch

from world_models import keys, tree
from world_models.ehr_world.records import Guesses
from world_models.ehr_world.set_outcome.losses import forced, likelihood
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted, trim
from world_models.ehr_world.vocabulary import from_z, to_z

__all__ = ["compare", "looked_ahead", "nats_a_value"]

AT_ONCE = 24  # stays
CLOSE = 0.25  # of a value: S@25 counts what is no further off


def looked_ahead(stays: Stays, share: float, early: float, step: int, seed: int) -> Stays:
    """The stays as shown when everything after a random position is to be predicted from what came until then.

    Under the next step's likelihood alone a world learns to lean on the last value, which is good for one step and bad
    for forty: so some stays' results are withheld from a position on. The chart ages meanwhile, as nothing that was
    ordered is collected.
    """
    if share <= 0:
        return stays
    batch, count, _ = stays.value.shape
    u = keys.uniform(keys.from_seed(seed, batch), step, "look ahead", (2,))
    last = 1 + ((stays.valid.sum(1) - 1).clamp_min(1) * u[:, 0] ** early).floor()
    withheld = (torch.arange(count) >= last.unsqueeze(1)) & (u[:, 1] < share).unsqueeze(1)
    return stays._replace(value=torch.where(withheld.unsqueeze(-1), float("nan"), stays.value))


@torch.no_grad()
def nats_a_value(worlds: list[tuple[SetOutcome, Stays]], early: float) -> float:
    """Negative log likelihood a value, z scale: mean of the next step's and of what is withheld (`looked_ahead`)."""
    total = torch.zeros(2, dtype=torch.float64)
    count = 0
    for net, stays in worlds:
        for number, rows in enumerate(stays.valid.sum(1).argsort().split(AT_ONCE)):
            part = trim(tree.take(stays, rows))
            for i, shown in enumerate((part, looked_ahead(part, 1.0, early, number, 0))):
                run = forced(net, shown)
                run = run._replace(z=to_z(part.value[run.row, run.place, run.item], net.scale[run.item]))
                log_p, there = likelihood(net, run)[0], ~run.z.isnan()
                total[i] -= log_p[there].double().sum()
                count += int(there.sum()) * (i == 0)
    return float(total.sum()) / (2 * max(1, count))


@torch.no_grad()
def compare(net: SetOutcome, stays: Stays, guesses: Guesses) -> dict[str, float]:
    """Next step on values that were charted before: S@25 of the median and of the last value, and both likelihoods."""
    hits, total = torch.zeros(4, dtype=torch.float64), 0
    for rows in stays.valid.sum(1).argsort().split(AT_ONCE):
        part = trim(tree.take(stays, rows))
        run, chart = forced(net, part), charted(part)
        keep = ~run.z.isnan() & ~net.label[run.item] & (run.place > 0) & (run.last_seen > 0)
        row, place, item = run.row[keep], run.place[keep], run.item[keep]
        marginal = run.outcome.marginal.take(keep)
        y, last = part.value[row, place, item], chart.value[row, place - 1, item]
        point = from_z(marginal.quantile(torch.full((len(y),), 0.5)), net.scale[item])
        z = torch.maximum(torch.minimum(run.z[keep], marginal.edges[:, -1]), marginal.edges[:, 0])
        scale = guesses.last_value[item]
        far = (run.z[keep] - (run.last_z[keep])).abs()
        found = (
            ((point - y).abs() <= CLOSE * y.abs()).float(),
            ((last - y).abs() <= CLOSE * y.abs()).float(),
            -marginal.log_density(z),
            (2 * scale).log() + far / scale,
        )
        hits += torch.stack([f.double().sum() for f in found])
        total += len(y)
    names = ("s25", "s25_last_value", "nll_repeated", "nll_last_value")
    return {n: float(v) for n, v in zip(names, hits / max(1, total), strict=True)} | {"repeated_values": total}
