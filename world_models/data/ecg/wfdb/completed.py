"""A recording whose lost leads are made from the others, as long as two of I, II, V1-V6 are good."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.data.ecg.wfdb.reader import RecordError, Recording
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
from world_models.ecg.lead_repair import LEAST_GOOD, lost_leads, repair_leads

__all__ = ["completed", "eight_of", "said_of"]


def eight_of(ecg_mv: Tensor) -> Tensor:
    """Leads I, II, V1-V6 [..., 8, T] of [..., 12, T]."""
    place = torch.tensor([LEADS.index(name) for name in INDEPENDENT_LEADS], device=ecg_mv.device)
    return ecg_mv.index_select(-2, place)


def completed(recording: Recording) -> tuple[Tensor, tuple[str, ...]]:
    """The ECG [12, T] with its lost leads reconstructed, and the names of those, limb leads that follow from them too.

    Args:
        recording: at 500 Hz, read with `whole=False`.

    Raises:
        RecordError: fewer than two good leads.
    """
    good = (~lost_leads(eight_of(recording.ecg_mv)[None])).sum()
    if good < LEAST_GOOD and not recording.leads_lost:
        return recording.ecg_mv, ()  # not a matter of leads (a wrong gain, say): the measurement says what it is
    try:
        repaired = repair_leads(recording.ecg_mv[None])
    except ValueError as error:
        raise RecordError(f"record {recording.name}: {error}") from error
    lost = {name for name, gone in zip(INDEPENDENT_LEADS, repaired.lost[0].tolist(), strict=True) if gone}
    if lost & {"I", "II"}:
        lost |= set(LEADS[2:6])
    return repaired.ecg_mv[0], tuple(name for name in LEADS if name in lost)


def said_of(made: tuple[str, ...]) -> str:
    """What a reader must be told of reconstructed leads."""
    return (
        f"leads {', '.join(made)} are missing, flat or broken and were reconstructed from the others: what they show "
        "is what is usual with such leads, not what was recorded"
    )
