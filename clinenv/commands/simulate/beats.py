"""Median beats of the recorded and of the model's ECGs, set beside each other, and how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinenv.ecg.measurement import RATE_HZ

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BEAT_BEFORE_S", "beside", "likeness", "median_beat", "within"]

BEAT_BEFORE_S, BEAT_AFTER_S = 0.35, 0.65  # of R: what is shown and compared
MARGIN_S = 0.03  # R marks of one beat differ by up to so much


def median_beat(ecg_mv: Tensor, r_samples: Tensor | None = None) -> Tensor:
    """Median beat [8, L] mV of an ECG [12, T], MARGIN_S wider on either side than what is shown.

    r_samples: int64 [K] R peaks padded with -1, where they are known already.
    """
    from world_models.ecg.delineation.delineate import delineate, median_beats

    r = delineate(ecg_mv[None], RATE_HZ).r_samples if r_samples is None else r_samples[None]
    return median_beats(ecg_mv[None], r, RATE_HZ, BEAT_BEFORE_S + MARGIN_S, BEAT_AFTER_S + MARGIN_S)[0]


def within(beat: Tensor) -> Tensor:
    """The part [8, L - 2 margins] of a median beat that is shown."""
    margin = round(MARGIN_S * RATE_HZ)
    return beat[:, margin:-margin]


def beside(recorded: Tensor, beat: Tensor) -> Tensor:
    """The beat [8, L] moved to where it is most like the recorded one; its ends are held."""
    import torch

    from world_models.ecg.beat_axis import curved
    from world_models.ecg.likeness import aligned_correlation

    _, shift = aligned_correlation(recorded[None], beat[None], None, MARGIN_S * 1000, RATE_HZ)
    return curved(beat[None], (torch.arange(beat.shape[-1]) + shift)[None])[0]


def likeness(recorded_mv: Tensor, drawn_mv: Tensor) -> float:
    """Correlation of the median beats of a recorded and a drawn ECG [12, T]: eight leads, P onset to T end as recorded
    (without a P wave from QRS onset on), R marks aligned."""
    import torch

    from world_models.ecg.delineation.delineate import delineate
    from world_models.ecg.likeness import aligned_correlation

    found = delineate(recorded_mv[None], RATE_HZ)
    recorded, drawn = median_beat(recorded_mv, found.r_samples[0])[None], median_beat(drawn_mv)[None]
    ms = (torch.arange(recorded.shape[-1]) / RATE_HZ - BEAT_BEFORE_S - MARGIN_S) * 1000
    start = torch.where(found.p_onset_ms.isnan(), found.qrs_onset_ms, found.p_onset_ms)
    where = (ms >= start[:, None]) & (ms <= found.t_end_ms[:, None])
    return float(aligned_correlation(recorded, drawn, where, MARGIN_S * 1000, RATE_HZ)[0])
