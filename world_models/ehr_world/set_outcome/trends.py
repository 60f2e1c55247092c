"""How an item has gone so far: what a clinician reads off a column of numbers before the last one.

Kept per item from result to result, in charting order: running means over about two, seven and all results, how far
one lies from the next, how often one is said again. A running mean over n results moves by max(1/n, rate) of the way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ehr_world.set_outcome.stay_tensors import Charted

__all__ = ["FEATURES", "NUMBERS", "features", "grown", "trends"]

# what is kept: all on the item's z scale but for GAP (steps), COUNT and SAME (a share)
BEFORE, GAP, FIRST, COUNT, FAST, SLOW, ALL, CHANGE, SAME = range(9)
NUMBERS = 9
FEATURES = 10
RATES = {FAST: 0.5, SLOW: 0.15, ALL: 0.0}
CHANGE_RATE = 0.15
EQUAL = 1e-5  # two numbers on the z scale that differ by less are one
GAP_SCALE, COUNT_SCALE = 0.5, 0.5  # of their logarithms


def grown(kept: Tensor, came: Tensor, z: Tensor, last: Tensor, gap: Tensor) -> Tensor:
    """What is kept [..., I, NUMBERS] once results `z` [..., I] were charted where `came` (bool).

    Args:
        last: [..., I] the value charted before, on the z scale; anything where none was.
        gap: [..., I] steps between their specimens.
    """
    count = kept[..., COUNT] + 1
    first = count < 1.5
    between = count - 1  # how many changes there were, this one with them
    change = (z - last).abs()
    out = [torch.empty(0)] * NUMBERS
    out[BEFORE] = torch.where(first, z, last)
    out[GAP] = torch.where(first, 0.0, gap)
    out[FIRST] = torch.where(first, z, kept[..., FIRST])
    out[COUNT] = count
    for which, rate in RATES.items():
        out[which] = kept[..., which] + (z - kept[..., which]) * (1 / count).clamp_min(rate)
    step = (1 / between.clamp_min(1.0)).clamp_min(CHANGE_RATE)
    for which, seen in ((CHANGE, change), (SAME, (change < EQUAL).to(z.dtype))):
        out[which] = torch.where(first, 0.0, kept[..., which] + (seen - kept[..., which]) * step)
    return torch.where(came.unsqueeze(-1), torch.stack(out, -1), kept)


def trends(chart: Charted, z: Tensor) -> Tensor:
    """What is kept [B, T, I, NUMBERS] after every position of a chart whose values are `z` [B, T, I]."""
    batch, count, items = z.shape
    kept = z.new_zeros(batch, items, NUMBERS)
    place = torch.arange(count, device=z.device, dtype=z.dtype).view(1, -1, 1) - chart.age  # of the specimen
    out = []
    for t in range(count):
        before = max(t - 1, 0)
        kept = grown(kept, chart.fresh[:, t], z[:, t], z[:, before], place[:, t] - place[:, before])
        out.append(kept)
    return torch.stack(out, 1)


def features(kept: Tensor, z: Tensor) -> Tensor:
    """What the network reads [..., FEATURES] of what is kept [..., NUMBERS], beside the last value z [...]."""
    count = kept[..., COUNT]
    seen, several = (count > 0.5).to(z.dtype), (count > 1.5).to(z.dtype)
    before = (kept[..., BEFORE] - z) * several
    return torch.stack(
        [
            before,
            before / (1 + kept[..., GAP]),
            (kept[..., GAP] * GAP_SCALE).log1p() * several,
            (kept[..., FIRST] - z) * several,
            (kept[..., FAST] - z) * several,
            (kept[..., SLOW] - z) * several,
            (kept[..., ALL] - z) * several,
            kept[..., CHANGE],
            kept[..., SAME],
            count.log1p() * COUNT_SCALE * seen,
        ],
        -1,
    )
