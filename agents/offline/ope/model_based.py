"""Model-based evaluation: the policy runs in a learned world, on patients admitted as those of the log were.

The world was learned from other courses than the log's, so neither the log's size nor its confounding bears on this
estimate; the world's own errors do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.offline.acting import Acting
from agents.offline.charts import ChartReader
from agents.rollout import admission_factors, judge
from clinenv.simulator import Simulator
from world_models import keys
from world_models.protocol import Chart, WorldModel

__all__ = ["model_based"]


def model_based(
    policy: Acting, learned: Simulator, logged_in: WorldModel, reader: ChartReader, steps: int, seed: int = 0
) -> Tensor:
    """float64 [N]: return of the policy for each patient of the log, in the learned world.

    Args:
        policy: made for the learned world's simulator.
        logged_in: the world of the log, whose factors the admission charts give.
        reader: of the log.
        steps: after which an episode is truncated.
    """
    admission: Chart = reader.at(0)
    count = len(next(iter(admission.values())))
    key = keys.fold(keys.from_seed(seed, count), "offline/model based")
    factors = admission_factors(admission, logged_in, learned.world)
    return judge(policy, learned, key, steps, factors).returns.to(torch.float64)
