"""The canonical time axis of the autoencoder's beats: `world_models.ecg.beat_axis`, by the name it has here."""

from world_models.ecg.beat_axis import (
    AT_R,
    LEAD_COUNT,
    PIECES,
    QRS_START,
    RATE_HZ,
    SAMPLES,
    from_canonical,
    piece_ends,
    to_canonical,
    valid_samples,
)

__all__ = ["AT_R", "LEAD_COUNT", "PIECES", "QRS_START", "RATE_HZ", "SAMPLES"]
__all__ += ["from_canonical", "piece_ends", "to_canonical", "valid_samples"]
