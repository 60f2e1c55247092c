"""A recorded ECG as factors: what a world can take over from a real patient's chart."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.beat_axis import AT_R, QRS_START, curved, piece_ends, to_canonical, valid_samples
from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.delineation.waves import BEFORE
from world_models.ecg.morphology import fit_morphology
from world_models.ecg.t_bend import unbent
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg.waveform import R_SHARE, Intervals, beat_template, sample_times_ms
from world_models.protocol import Chart

__all__ = ["beat_of", "factors_from_chart", "in_fibrillation", "morphology_of", "t_wave_factors"]

RATE_HZ = 500.0
USUAL_PR_MS = 160.0  # only where no P wave is found: the wave fit then sees flat line there
_IRREGULAR = 0.1  # SD of RR over their mean: nine in ten of real ECGs in fibrillation lie above (`fibrillation`)
_T_OWN = ("amplitude_uv", "asymmetry", "flatness")  # ERD_30 and LRD_30 are named after T already
PASSED_ON = {"age_years": "age_years", "sex_female": "sex_female", "weight_kg": "weight_kg"}
PASSED_ON["clock_hour"] = "admission_clock_hour"


def factors_from_chart(chart: Chart) -> dict[str, Tensor]:
    """Factors of `cohorts.FACTORS` (float32 [B]), `morphology` [B, 8, W] and `residual_mv` [B, 8, 200] from a recorded
    chart.

    `ecg_mv` [B, 12, 5000] is mV at 500 Hz; age_years, sex_female, weight_kg and clock_hour are passed on. An interval
    that is not there to be measured (PR without a P wave) is NaN: `world_models.inputs.admit` has it sampled. So is the
    sinus rate of an ECG in fibrillation, and the rate in fibrillation of one in sinus rhythm.

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
    fibrillates = in_fibrillation(marks)
    if not bool((marks.trusted | fibrillates).all()):
        row = int((~(marks.trusted | fibrillates)).nonzero()[0])
        raise ValueError(
            f"ECG {row} cannot be measured (quality {marks.quality[row].item():.2f}); give a cleaner record, or fix "
            "the baseline_* factors by hand and leave ecg_mv out"
        )
    unknown = torch.full_like(marks.heart_rate_bpm, torch.nan)
    read = {
        "admission_fibrillation": fibrillates.to(torch.float32),
        "baseline_fibrillation_rate_bpm": torch.where(fibrillates, marks.heart_rate_bpm, unknown),
        "baseline_heart_rate_bpm": torch.where(fibrillates, unknown, marks.heart_rate_bpm),
        "baseline_pr_ms": marks.pr_ms,
        "baseline_qrs_ms": marks.qrs_ms,
        "baseline_qtcf_ms": marks.qtcf_ms,
        "baseline_tpeak_tend_ms": marks.tpeak_tend_ms,
        **beat_of(marks),
        **t_wave_factors(marks),
    }
    return found | {name: value for name, value in read.items() if not bool(value.isnan().all())}


def in_fibrillation(marks: Delineation) -> Tensor:
    """bool [B]: a heart's beats without P waves at irregular intervals, measured on most of them."""
    r = marks.r_samples.to(torch.float32)
    rr = torch.where(marks.r_samples[:, 1:] >= 0, r[:, 1:] - r[:, :-1], torch.nan)
    mean = rr.nanmean(-1, keepdim=True)
    scatter = ((rr - mean) * (rr - mean)).nanmean(-1).sqrt() / mean.squeeze(-1)
    quality = marks.measurable & marks.qt_ms.isfinite() & marks.tpeak_tend_ms.isfinite()
    return quality & marks.pr_ms.isnan() & (scatter > _IRREGULAR)


def t_wave_factors(marks: Delineation) -> dict[str, Tensor]:
    """The T wave of the median beats as `baseline_*` factors [B]; NaN where it cannot be read."""
    of = TMarks(marks.qrs_onset_ms, marks.qrs_offset_ms, marks.t_peak_ms, marks.t_end_ms)
    read = t_wave(marks.median_beat, of)
    return {f"baseline_t_{n}" if n in _T_OWN else f"baseline_{n}": v for n, v in read._asdict().items()}


def beat_of(marks: Delineation) -> dict[str, Tensor]:
    """The median beats as a world draws them: `morphology` [B, 8, W] mV, and `residual_mv` [B, 8, 200] on the canonical
    axis (`beat_axis`): what the waves of that morphology do not express of them.

    Nothing is kept where the beat does not stand alone, nor before the QRS where no P wave was found.
    """
    moved, intervals = _on_window(marks)
    morphology = fit_morphology(moved, intervals, RATE_HZ)
    ends = piece_ends(intervals.pr_ms, intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms)
    onset = AT_R - R_SHARE * intervals.qrs_ms * (RATE_HZ / 1000.0)
    shape = unbent(morphology.shape[0], morphology.device)
    left = to_canonical(moved - beat_template(intervals, morphology, RATE_HZ, shape), ends, onset, RATE_HZ, curved)
    alone = valid_samples(ends, torch.nan_to_num(marks.before_rr_ms, nan=1000.0))
    place = torch.arange(left.shape[-1], device=left.device)
    alone = alone & ((place >= QRS_START) | ~marks.pr_ms.isnan().unsqueeze(-1))
    return {"morphology": morphology, "residual_mv": left * alone.unsqueeze(1)}


def morphology_of(marks: Delineation) -> Tensor:
    """Wave heights [B, 8, W] of the median beats."""
    return fit_morphology(*_on_window(marks), RATE_HZ)


def _on_window(marks: Delineation) -> tuple[Tensor, Intervals]:
    """Median beats [B, 8, 801] on the generator's window (QRS onset at -R_SHARE * QRS), and their intervals."""
    pr = torch.where(marks.pr_ms.isnan(), torch.full_like(marks.pr_ms, USUAL_PR_MS), marks.pr_ms)
    intervals = Intervals.of(marks.heart_rate_bpm, pr, marks.qrs_ms, marks.jt_peak_ms, marks.tpeak_tend_ms)
    beat = marks.median_beat
    shift = (marks.qrs_onset_ms + R_SHARE * marks.qrs_ms).unsqueeze(-1)
    place = (sample_times_ms(RATE_HZ, beat.device) + shift) * (RATE_HZ / 1000.0) + BEFORE
    return curved(beat, place), intervals  # outside the recorded window its ends go on
