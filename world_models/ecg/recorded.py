"""A recorded ECG as factors: what a world can take over from a real patient's chart."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.delineation.waves import BEFORE
from world_models.ecg.morphology import fit_morphology
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg.waveform import R_SHARE, Intervals, sample_times_ms
from world_models.protocol import Chart

__all__ = ["factors_from_chart", "morphology_of"]

RATE_HZ = 500.0
USUAL_PR_MS = 160.0  # only where no P wave is found: the wave fit then sees flat line there
PASSED_ON = {"age_years": "age_years", "sex_female": "sex_female", "weight_kg": "weight_kg"}
PASSED_ON["clock_hour"] = "admission_clock_hour"


def factors_from_chart(chart: Chart) -> dict[str, Tensor]:
    """Factors of `cohorts.FACTORS` (float32 [B]) and `morphology` [B, 8, W] from a recorded chart.

    `ecg_mv` [B, 12, 5000] is mV at 500 Hz; age_years, sex_female, weight_kg and clock_hour are passed on. An interval
    that is not there to be measured (PR without a P wave) is NaN: `world_models.inputs.admit` has it sampled.

    Raises:
        ValueError: an ECG of another shape, or one whose intervals cannot be trusted.
    """
    found = {factor: chart[n].to(torch.float32) for n, factor in PASSED_ON.items() if n in chart}
    if "ecg_mv" not in chart:
        return found
    ecg = chart["ecg_mv"]
    if ecg.ndim != 3 or tuple(ecg.shape[1:]) != (12, 5000):
        raise ValueError(f"ecg_mv has shape {tuple(ecg.shape)}; give [B, 12, 5000] (10 s at 500 Hz, mV)")
    marks = delineate(ecg, RATE_HZ)
    if not bool(marks.trusted.all()):
        row = int((~marks.trusted).nonzero()[0])
        raise ValueError(
            f"ECG {row} cannot be measured (quality {marks.quality[row].item():.2f}); give a cleaner record, or fix "
            "the baseline_* factors by hand and leave ecg_mv out"
        )
    at = TMarks(marks.qrs_onset_ms, marks.qrs_offset_ms, marks.t_peak_ms, marks.t_end_ms)
    with torch.no_grad():
        read = t_wave(marks.median_beat, at)
    return found | {
        "baseline_t_amplitude_uv": read.amplitude_uv,
        "baseline_t_asymmetry": read.asymmetry,
        "baseline_t_flatness": read.flatness,
        "baseline_erd_30_ms": read.erd_30_ms,
        "baseline_lrd_30_ms": read.lrd_30_ms,
        "baseline_heart_rate_bpm": marks.heart_rate_bpm,
        "baseline_pr_ms": marks.pr_ms,
        "baseline_qrs_ms": marks.qrs_ms,
        "baseline_qtcf_ms": marks.qtcf_ms,
        "baseline_tpeak_tend_ms": marks.tpeak_tend_ms,
        "morphology": morphology_of(marks),
    }


def morphology_of(marks: Delineation) -> Tensor:
    """Wave heights [B, 8, W] of the median beats, moved onto the generator's window (QRS onset at -R_SHARE * QRS)."""
    pr = torch.where(marks.pr_ms.isnan(), torch.full_like(marks.pr_ms, USUAL_PR_MS), marks.pr_ms)
    intervals = Intervals.of(marks.heart_rate_bpm, pr, marks.qrs_ms, marks.jt_peak_ms, marks.tpeak_tend_ms)
    beat = marks.median_beat
    shift = (marks.qrs_onset_ms + R_SHARE * marks.qrs_ms).unsqueeze(-1)
    place = (sample_times_ms(RATE_HZ, beat.device) + shift) * (RATE_HZ / 1000.0) + BEFORE
    place = place.clamp(0.0, beat.shape[-1] - 1.001)  # outside the recorded window its ends go on
    left = place.floor()
    share = (place - left).unsqueeze(1)
    index = left.to(torch.int64).unsqueeze(1).expand(-1, beat.shape[1], -1)
    moved = beat.gather(2, index) * (1.0 - share) + beat.gather(2, index + 1) * share
    return fit_morphology(moved, intervals, RATE_HZ)
