"""The columns of a chart's `treated`, parted into procedures and drugs and joined again.

Apart from the names in `progression`, which are read without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.constants import constant
from world_models.quantities.progression import DRUGS, PROCEDURES, TREATMENTS

__all__ = ["joined", "parted"]

_PROCEDURE_COLUMNS = tuple(TREATMENTS.index(name) for name in PROCEDURES)
_DRUG_COLUMNS = tuple(TREATMENTS.index(name) for name in DRUGS)
_BACK = tuple((*PROCEDURES, *DRUGS).index(name) for name in TREATMENTS)


def parted(treated: Tensor) -> tuple[Tensor, Tensor]:
    """Procedures [..., P] and drugs [..., D] of `treated` [..., TREATMENTS]."""
    procedures, drugs = (constant(x, treated.device, torch.int64) for x in (_PROCEDURE_COLUMNS, _DRUG_COLUMNS))
    return treated.index_select(-1, procedures), treated.index_select(-1, drugs)


def joined(procedures: Tensor, drugs: Tensor) -> Tensor:
    """[..., TREATMENTS] of procedures [..., P] and drugs [..., D]: what `parted` took apart."""
    return torch.cat((procedures, drugs), -1).index_select(-1, constant(_BACK, drugs.device, torch.int64))
