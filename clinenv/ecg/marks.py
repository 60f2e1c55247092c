"""Where the waves of one recorded ECG lie: its beats in time, and the marks of their median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clinenv.ecg.measurement import RATE_HZ, read_marks, whole_ecg

if TYPE_CHECKING:
    import numpy as np

    from world_models.data.ecg.wfdb.reader import Recording

__all__ = ["WAVES", "Marks", "marked"]

WAVES = ("p_onset", "p_peak", "qrs_onset", "qrs_offset", "t_peak", "t_end")


@dataclass(frozen=True)
class Marks:
    """The delineation of one ECG."""

    r_s: np.ndarray  # [K] float64, R peaks in seconds from the start of what was given, premature beats' too
    marks_ms: dict[str, float]  # WAVES, from R of the median beat; NaN where there is none (P without a P wave)
    median_beat_mv: np.ndarray  # [8, 725] float32 at 500 Hz: I, II, V1-V6 from 0.5 s before R to 0.95 s after
    ecg_mv: np.ndarray  # [12, T] float32 at 500 Hz: what was measured, lost leads made from the others
    start_s: float  # where `ecg_mv` begins, from the start of what was given
    ectopic_beats: int  # premature, or of another shape than the others
    quality: float  # 0 (worthless) to 1
    trusted: bool  # False: do not rely on the marks
    measurable: bool  # False: nothing on it can be relied on
    convention: str  # where waves start and end: "reader" or "tangent"
    leads_made: tuple[str, ...]  # of the twelve: not recorded, but made from the others
    warnings: tuple[str, ...]

    def times_s(self, wave: str) -> np.ndarray:
        """When one of WAVES comes in each beat, [K] seconds from the start of what was given: the median beat's mark,
        laid at every R; a premature beat's own wave may lie elsewhere.

        Raises:
            KeyError: no name in WAVES.
        """
        return self.r_s + self.marks_ms[wave] / 1000.0


def marked(recording: Recording, convention: str, repair: bool = True) -> Marks:
    """Delineate a recording at 500 Hz; see `clinenv.ecg.delineate`.

    Raises:
        RecordError: fewer than two good leads.
        ValueError: an unknown convention.
    """
    import torch

    from world_models.data.ecg.wfdb.completed import said_of

    with torch.no_grad():
        ecg_mv, made = whole_ecg(recording, repair)
        marks, alone = read_marks(recording, ecg_mv, made, convention)
    r_samples = marks.r_samples[0]
    return Marks(
        r_s=recording.start_s + r_samples[r_samples >= 0].double().numpy() / RATE_HZ,
        marks_ms={name: float(getattr(marks, f"{name}_ms")[0]) for name in WAVES},
        median_beat_mv=marks.median_beat[0].numpy(),
        ecg_mv=ecg_mv.numpy(),
        start_s=recording.start_s,
        ectopic_beats=int(marks.ectopic_beats[0]),
        quality=float(torch.minimum(marks.quality[0], alone.quality[0])),
        trusted=bool(marks.trusted[0] & alone.trusted[0]),
        measurable=bool(marks.measurable[0] & alone.measurable[0]),
        convention=convention,
        leads_made=made,
        warnings=recording.warnings + ((said_of(made),) if made else ()),
    )
