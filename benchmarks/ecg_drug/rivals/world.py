"""A world, oracle or learned, as one more rival: admitted with what the pre-dose chart tells, one dose, one step.

Unless the world brings its own, its beat is its chart drawn on the patient's own pre-dose beat (intervals and T wave as
charted), so that an oracle without the patient's waves is not judged by another patient's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.ecg_drug.rivals.frame import Given, Predicted, chart_of, endpoints_of
from world_models import keys, tree
from world_models.ecg_wm.pairs import own_beat
from world_models.inputs import admit
from world_models.protocol import Chart, WorldModel

__all__ = ["WorldRival", "factors_of"]

# world, state, chart, pre-dose chart and beat [B, 8, 200] -> beat
Beats = Callable[[Any, Any, Chart, tuple[Chart, Tensor]], Tensor]
_OTHER_NAMES = {
    "admission_clock_hour": "clock_hour",
    "baseline_systolic_bp_mmhg": "systolic_bp_mmhg",
    "admission_fibrillation": "atrial_fibrillation",
}  # factor -> what it is in the chart


def factors_of(world: WorldModel[Any], chart: Chart, covariates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the world can be told of patients from their pre-dose chart and covariates, within its factors' bounds.

    Everybody is in sinus rhythm on both ECGs, so the burden is told to be the least that there is.
    """
    known = {**chart, **covariates}
    found = {}
    for factor in world.factors:
        name = _OTHER_NAMES.get(factor.name, factor.name.removeprefix("baseline_"))
        if factor.name == "baseline_burden":
            found[factor.name] = torch.full_like(known["age_years"], factor.low)
        elif name in known and not factor.shape:
            found[factor.name] = known[name].to(torch.float32).clamp(factor.low, factor.high)
    return found


class WorldRival:
    """See the module's docstring.

    Args:
        make: a world whose one step lasts so many hours.
        name: as tables name it.
        beats: the world's own beats; None: its chart drawn on the pre-dose beat.
        reads: what the world makes of the pre-dose beats [B, 8, 200], as factors; None: nothing.
    """

    def __init__(
        self,
        make: Callable[[float], WorldModel[Any]],
        name: str,
        beats: Beats | None = None,
        reads: Callable[[Any, Tensor], dict[str, Tensor]] | None = None,
    ):
        self.make, self.name, self.beats, self.reads = lru_cache(maxsize=64)(make), name, beats, reads

    @torch.no_grad()
    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """See `frame.Rival.sample`."""
        beats, charts = [], []
        pre_beat, pre_chart, drug, dose_mg, hours, covariates = told
        kinds = hours.unique().tolist()
        rows = [(hours == h).nonzero().flatten() for h in kinds]
        for h, some in zip(kinds, rows, strict=True):
            world = self.make(float(h))
            known = factors_of(world, tree.take(dict(pre_chart), some), tree.take(dict(covariates), some))
            if self.reads is not None:
                known |= self.reads(world, pre_beat[some])
            many = tree.repeat(known, samples)
            own = torch.cat([torch.stack([keys.fold(k, s) for s in range(samples)]) for k in key[some].split(1)])
            state = admit(world, own.flatten(), many)
            doses = torch.nn.functional.one_hot(drug[some], len(world.orders) + 1)[:, 1:] * dose_mg[some].unsqueeze(-1)
            state = world.transition(state, doses.to(torch.float32).repeat_interleave(samples, 0))
            chart = world.observe(state)
            before = pre_beat[some].repeat_interleave(samples, 0)
            charted = tree.repeat(tree.take(dict(pre_chart), some), samples)
            shown = chart_of(torch.nan_to_num(endpoints_of(chart), nan=160.0))  # PR alone may be missing
            if self.beats is not None:
                beat = self.beats(world, state, chart, (charted, before))
            else:
                beat = own_beat(shown, before, (charted, before))
            beats.append(beat.unflatten(0, (len(some), samples)).transpose(0, 1))
            charts.append({n: v.unflatten(0, (len(some), samples)).T for n, v in shown.items()})
        back = torch.cat(rows).argsort()
        chart = {n: torch.cat([c[n] for c in charts], 1)[:, back] for n in charts[0]}
        return Predicted(torch.cat(beats, 1)[:, back], chart)
