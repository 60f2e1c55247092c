"""What is measured on one recorded ECG: intervals, the T wave's shape, quality, trust, and warnings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinenv.rendering.labels import label_and_unit

if TYPE_CHECKING:
    from torch import Tensor

    from world_models.data.ecg.wfdb.reader import Recording
    from world_models.ecg.delineation.delineate import Delineation

__all__ = ["INTERVALS", "RATE_HZ", "SAMPLES", "T_WAVE", "Measurement", "measured", "read_marks", "whole_ecg"]

INTERVALS = (
    "heart_rate_bpm",
    "pr_ms",
    "qrs_ms",
    "qt_ms",
    "qtcf_ms",
    "jt_peak_ms",
    "jt_peak_c_ms",
    "tpeak_tend_ms",
)
T_WAVE = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
RATE_HZ = 500.0  # at which ECGs are measured, and worlds read them
SAMPLES = 5000  # ten seconds, what a world reads


@dataclass(frozen=True)
class Measurement:
    """One recorded ECG and what was read off it."""

    record: str
    ecg_mv: Tensor  # [12, T] at 500 Hz, as recorded
    intervals: dict[str, float]  # INTERVALS; NaN where the ECG has none (PR without a P wave)
    t_wave: dict[str, float]  # T_WAVE, always by the tangent's marks; NaN where there is no T wave to be read
    quality: float  # 0 (worthless) to 1
    trusted: bool  # False: do not rely on the intervals
    measurable: bool  # False: nothing on it can be relied on, so nothing can start from it
    r_samples: Tensor  # [K] R peaks in samples, padded with -1
    age_years: float | None  # as the header states it
    sex_female: bool | None
    warnings: tuple[str, ...]
    convention: str  # where waves start and end: "reader" or "tangent"
    leads_made: tuple[str, ...] = ()  # of the twelve, in `ecg_mv`: not recorded, but reconstructed from the others

    def as_json(self) -> dict[str, Any]:
        """The numbers for a JSON file: tenths of a millisecond, the T wave's to three decimals, null for what could not
        be measured."""
        numbers = {name: round(v, 1) if math.isfinite(v) else None for name, v in self.intervals.items()}
        shape = {name: round(v, 3) if math.isfinite(v) else None for name, v in self.t_wave.items()}
        return {
            "record": self.record,
            **numbers,
            **shape,
            "quality": round(self.quality, 3),
            "trusted": self.trusted,
            "measurable": self.measurable,
            "convention": self.convention,
            "leads_reconstructed": list(self.leads_made),
            "warnings": list(self.warnings),
        }


def whole_ecg(recording: Recording, repair: bool = True) -> tuple[Tensor, tuple[str, ...]]:
    """The ECG [12, T] in mV at 500 Hz with its lost leads made from the others, and the names of those.

    Raises:
        RecordError: fewer than two good leads (only where they are to be repaired).
    """
    from world_models.data.ecg.wfdb.completed import completed

    return completed(recording) if repair else (recording.ecg_mv, ())


def read_marks(
    recording: Recording, ecg_mv: Tensor, made: tuple[str, ...], convention: str
) -> tuple[Delineation, Delineation]:
    """What is read on all leads [12, T], and on the recorded ones alone: whose quality and trust count.

    Raises:
        ValueError: an unknown convention.
    """
    from world_models.data.ecg.wfdb.completed import eight_of
    from world_models.ecg.delineation.delineate import delineate

    marks = delineate(ecg_mv[None], RATE_HZ, convention)
    return marks, delineate(eight_of(recording.ecg_mv)[None], RATE_HZ, convention) if made else marks


def measured(recording: Recording, convention: str, repair: bool = True) -> Measurement:
    """Measure a recording at 500 Hz; see `clinenv.ecg.measure`.

    Raises:
        RecordError: fewer than two good leads.
        ValueError: an unknown convention.
    """
    import torch

    from world_models.ecg.delineation.delineate import delineate
    from world_models.ecg.recorded import t_wave_factors

    with torch.no_grad():
        ecg_mv, made = whole_ecg(recording, repair)
        marks, alone = read_marks(recording, ecg_mv, made, convention)
        tangent = marks if convention == "tangent" else delineate(ecg_mv[None], RATE_HZ)
        t_wave = {name: float(t_wave_factors(tangent)[f"baseline_{name}"][0]) for name in T_WAVE}
    intervals = {name: float(getattr(marks, name)[0]) for name in INTERVALS}
    trusted = bool(marks.trusted[0] & alone.trusted[0])
    measurable = bool(marks.measurable[0] & alone.measurable[0])
    warnings = _warnings(recording, made, intervals, marks, measurable, trusted)
    return Measurement(
        record=recording.name,
        ecg_mv=ecg_mv,
        intervals=intervals,
        t_wave=t_wave,
        quality=float(torch.minimum(marks.quality[0], alone.quality[0])),
        trusted=trusted,
        measurable=measurable,
        r_samples=marks.r_samples[0],
        age_years=recording.age_years,
        sex_female=recording.sex_female,
        warnings=tuple(warnings),
        convention=convention,
        leads_made=made,
    )


def _warnings(
    recording: Recording,
    made: tuple[str, ...],
    intervals: dict[str, float],
    marks: Delineation,
    measurable: bool,
    trusted: bool,
) -> list[str]:
    """What a reader must be told beside the numbers."""
    from world_models.data.ecg.wfdb.completed import said_of

    warnings = list(recording.warnings)
    if made:
        warnings.append(said_of(made))
    missing = [label_and_unit(name)[0] for name, value in intervals.items() if not math.isfinite(value)]
    if missing:
        warnings.append(f"not measurable on this ECG: {', '.join(missing)}")
    beats, ectopic = int((marks.r_samples[0] >= 0).sum()), int(marks.ectopic_beats[0])
    if ectopic:
        warnings.append(
            f"ectopy or an irregular rhythm: {ectopic} of {beats} beats are premature or of another shape; the heart "
            "rate counts all beats, QT and its correction are those of the others and of the RR before them"
        )
    if not measurable:
        warnings.append("nothing on this recording can be measured: it does not look like a heart's beats")
    elif not trusted:
        warnings.append("the intervals of this ECG should not be trusted: the quality flag is down")
    return warnings
