"""Pairs with an easy effect of a made-up kind: the first drug halves the T wave and makes J-Tpeak c 60 ms longer."""

from functools import lru_cache

import torch

from benchmarks.ecg_drug.rivals.frame import chart_of, endpoints_of
from world_models import keys
from world_models.ecg.beat_axis import J_POINT
from world_models.ecg_wm.pairs import Pairs, split_pairs

LONGER_MS = 60.0


@lru_cache(maxsize=4)
def drawn(split: str, count: int) -> Pairs:
    """Pairs of the oracle, drawn once a session."""
    return split_pairs(split, count, progress=False)


def easy(split: str, count: int) -> Pairs:
    """The same patients, half of them on the first drug with just that effect, half on nothing with none."""
    pairs = drawn(split, count)
    drug = (keys.uniform(pairs.key, 0, "easy") < 0.5).long()
    levels = endpoints_of(pairs.pre)
    jt_peak = torch.zeros(10)
    jt_peak[3] = LONGER_MS
    moved = chart_of(levels + drug.unsqueeze(-1) * jt_peak)
    beat = pairs.pre_beat.clone()
    beat[..., J_POINT:] *= 1.0 - 0.5 * drug[:, None, None]
    return pairs._replace(drug=drug, dose_mg=1000.0 * drug, post={**pairs.post, **moved}, post_beat=beat)
