"""What death and discharge of a step are told by: the head, and what it reads.

Who is watched closely is neither about to leave nor left to die unseen: in records, how much is charted tells a stay's
end better than what is charted does. A head on the backbone's state learns that, and in a world where an agent decides
what is charted, not asking would send patients home. With `ends_by_chart` the head reads last values, the patient and
the time, and nothing of how often or when anything was charted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.vocabulary import SOURCE_PREFIX, Vocabulary

if TYPE_CHECKING:
    from world_models.ehr_world.set_outcome.network import StepInputs

__all__ = ["chart_row", "head", "own_static"]

STARTS = (-4.0, -3.5)  # log odds of death and discharge within a step, at first
MOST_Z = 4.0  # on an item's scale; values further off tell no more of an end


def own_static(vocabulary: Vocabulary) -> int:
    """How many static features are the patient's own: those of the source stand after them."""
    return sum(not s.name.startswith(SOURCE_PREFIX) for s in vocabulary.static)


def head(config: SetOutcomeConfig, vocabulary: Vocabulary) -> nn.Sequential:
    """Two log odds of the backbone's state and what it took in, or of `chart_row`."""
    read = 2 * len(vocabulary.items) + own_static(vocabulary) + 2 if config.ends_by_chart else 2 * config.hidden
    made = nn.Sequential(nn.Linear(read, config.query), nn.GELU(), nn.Linear(config.query, 2))
    with torch.no_grad():
        made.get_parameter("2.bias").copy_(torch.tensor(STARTS))
    return made


def chart_row(inputs: StepInputs, static: int, own: int) -> Tensor:
    """[..., 2 I + own + 2]: last values on their scales (0: none), how far beyond one unit they lie, the `own`
    features of all `static` ones (0: unknown), and the time, of inputs whose chart is as the step ends."""
    z = (inputs.chart.z * inputs.chart.seen).clamp(-MOST_Z, MOST_Z)
    patient, time = inputs.fixed[..., :own], inputs.fixed[..., 2 * static : 2 * static + 2]
    return torch.cat([z, (z.abs() - 1.0).clamp_min(0.0), patient, time], -1)
