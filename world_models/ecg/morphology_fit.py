"""Make the morphology bank from LUDB: `python -m world_models.ecg.morphology_fit --ludb DIR --out FILE`.

For each record in sinus rhythm with P waves and no pacemaker: the median beat on the cardiologists' own marks, and the
generator's wave heights fitted to it at the record's own intervals. Poor fits and beats whose T or P could not be
measured anywhere are left out. Only heights are written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.data.ecg import ludb
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
from world_models.ecg.morphology import fit_morphology, fit_quality
from world_models.ecg.waveform import R_SHARE, WAVES, Intervals, sample_times_ms
from world_models.files import write_bytes

__all__ = ["MarkedBeat", "fit_bank", "main", "marked_beat"]

LEAST_BEATS = 3
LEAST_R2, LEAST_R2_LATE = 0.90, 0.70
LEAST_T_MV, LEAST_T_LEADS = 0.07, 5  # T measurable in at least five of the eight independent leads
LEAST_P_MV, LEAST_R_MV = 0.03, 0.3  # in lead II, and in the largest lead
PLAUSIBLE_MS = {"pr_ms": (90, 320), "qrs_ms": (60, 200), "jt_peak_ms": (90, 350), "tpeak_tend_ms": (45, 180)}


class MarkedBeat(NamedTuple):
    """A record's median beat and what its marks say."""

    beat_mv: Tensor  # [8, L] on the window of `beat_template`
    intervals: Intervals  # each a scalar tensor


def _global_marks(record: ludb.LudbRecord) -> np.ndarray:
    """[K, 6] samples: P onset, QRS onset, QRS offset, T peak, T offset, R (lead II's mark), one row a beat of lead II.

    Each is read over all leads of the beat: onsets at the lower and ends at the upper quartile (a wave starts where it
    first shows), the T peak at the median.
    """
    reference = record.beats["II"]
    rows = []
    for peak in reference.qrs_peak:
        near = []
        for lead in LEADS:
            marks = np.stack(record.beats[lead])
            if marks.shape[1]:
                k = int(np.nanargmin(np.abs(marks[4] - peak)))
                if abs(marks[4, k] - peak) < 0.1 * ludb.SAMPLING_RATE_HZ:
                    near.append(marks[:, k])
        near_marks = np.array(near)
        known = np.isfinite(near_marks).sum(0)
        if (known[[0, 3, 5, 7, 8]] < 4).any():
            continue
        p_onset, qrs_onset = (np.nanpercentile(near_marks[:, i], 25) for i in (0, 3))
        qrs_offset, t_offset = (np.nanpercentile(near_marks[:, i], 75) for i in (5, 8))
        rows.append((p_onset, qrs_onset, qrs_offset, np.nanmedian(near_marks[:, 7]), t_offset, peak))
    return np.array(rows).reshape(-1, 6)


def marked_beat(record: ludb.LudbRecord) -> MarkedBeat | None:
    """The median beat on the marks, or None where too few beats carry P, QRS and T marks."""
    marks = _global_marks(record)
    if len(marks) < LEAST_BEATS:
        return None
    per_ms = ludb.SAMPLING_RATE_HZ / 1000.0
    pr, qrs, jt_peak, tpeak_tend = (
        float(np.median(marks[:, b] - marks[:, a])) / per_ms for a, b in ((0, 1), (1, 2), (2, 3), (3, 4))
    )
    rr = float(np.median(np.diff(marks[:, 5]))) / per_ms
    grid = sample_times_ms(ludb.SAMPLING_RATE_HZ)
    before = int(-grid[0] * per_ms)
    ecg = record.ecg_mv.numpy()[[LEADS.index(name) for name in INDEPENDENT_LEADS]]
    cut = []
    for row in marks:
        r = int(round(row[1] + R_SHARE * qrs * per_ms))
        start, stop = r - before, r - before + grid.numel()
        piece = np.full((len(INDEPENDENT_LEADS), grid.numel()), np.nan)
        a, b = max(start, 0), min(stop, ecg.shape[1])
        piece[:, a - start : b - start] = ecg[:, a:b]
        onset = int(row[1])
        level = np.median(ecg[:, max(onset - 8, 0) : onset + 1], axis=1)  # the PR segment's end is the zero
        cut.append(piece - level[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns that no beat reaches: NaN, outside the fit's window
        beat = np.nanmedian(np.stack(cut), axis=0)
    values = (60000.0 / rr, pr, qrs, jt_peak, tpeak_tend)
    return MarkedBeat(
        torch.from_numpy(np.nan_to_num(beat).astype(np.float32)), Intervals.of(*(torch.tensor(v) for v in values))
    )


def _usable(record: ludb.LudbRecord) -> bool:
    return not record.pacing and bool(record.rhythm) and all("sinus" in line.lower() for line in record.rhythm)


def fit_bank(folder: str | Path) -> tuple[Tensor, dict]:
    """Heights [N, 8, W] of the records that fit, and the account of how many were left out and why.

    Raises:
        RecordError: the folder does not hold LUDB.
        ValueError: no record could be fitted.
    """
    beats, counts = [], {"records": 0, "no_sinus_rhythm_or_paced": 0, "too_few_marks": 0, "implausible_marks": 0}
    for record in ludb.iterate(folder):
        counts["records"] += 1
        if not _usable(record):
            counts["no_sinus_rhythm_or_paced"] += 1
            continue
        beat = marked_beat(record)
        if beat is None:
            counts["too_few_marks"] += 1
            continue
        if any(not low <= float(getattr(beat.intervals, name)) <= high for name, (low, high) in PLAUSIBLE_MS.items()):
            counts["implausible_marks"] += 1
            continue
        beats.append(beat)
    if not beats:
        raise ValueError(f"no record of {folder} could be fitted: {counts}; give the folder of LUDB 1.0.1")
    median = torch.stack([b.beat_mv for b in beats])
    intervals = Intervals(*(torch.stack(column) for column in zip(*(b.intervals for b in beats), strict=True)))
    heights = fit_morphology(median, intervals)
    whole, late = fit_quality(median, intervals, heights)
    t, p = WAVES.index("T"), WAVES.index("P")
    qrs = [i for i, name in enumerate(WAVES) if name.startswith("QRS")]
    good = (whole >= LEAST_R2) & (late >= LEAST_R2_LATE)
    shows = (heights[..., t].abs() >= LEAST_T_MV).sum(-1) >= LEAST_T_LEADS
    shows &= heights[:, INDEPENDENT_LEADS.index("II"), p] >= LEAST_P_MV
    shows &= heights[..., qrs].abs().amax((1, 2)) >= LEAST_R_MV
    keep = good & shows
    counts |= {"poor_fit": int((~good).sum()), "unmeasurable_wave": int((good & ~shows).sum()), "kept": int(keep.sum())}
    if not keep.any():
        raise ValueError(f"no record of {folder} was fitted well enough: {counts}")
    quality = {
        "r2_all_fitted_median": round(float(whole.median()), 4),
        "r2_kept_median": round(float(whole[keep].median()), 4),
        "r2_kept_least": round(float(whole[keep].min()), 4),
        "r2_j_to_t_end_kept_median": round(float(late[keep].median()), 4),
    }
    order = torch.argsort(heights[keep].abs().sum((1, 2)))  # by size, so that the place in the bank is no record number
    return heights[keep][order].contiguous(), counts | quality


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 2 where the folder cannot be read or the bank not be written."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description="Fit the wave heights of LUDB's sinus beats.")
    parser.add_argument("--ludb", required=True, type=Path, help="folder with ludb.csv and data/")
    parser.add_argument("--out", required=True, type=Path, help="the .safetensors to write (a .json beside it)")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        print(f"error: {options.out.parent} is not a folder; create it first", file=sys.stderr)
        return 2
    try:
        heights, account = fit_bank(options.ludb)
    except (RecordError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = save({"heights_mv": heights}, metadata={"waves": ",".join(WAVES), "leads": ",".join(INDEPENDENT_LEADS)})
    card = {
        "what": "heights in mV of the waves of real sinus beats, [N, 8 leads, waves]; no signal, age, sex or record id",
        "leads": INDEPENDENT_LEADS,
        "waves": WAVES,
        "made_by": "python -m world_models.ecg.morphology_fit",
        "source": "Lobachevsky University Electrocardiography Database (LUDB) 1.0.1, PhysioNet",
        "licence": "Open Data Commons Attribution License (ODC-By) 1.0",
        "citation": "Kalyakulina et al. 2020, IEEE Access, doi 10.1109/ACCESS.2020.3029211; "
        "Goldberger et al. 2000, Circulation, doi 10.1161/01.CIR.101.23.e215",
        "sha256": hashlib.sha256(content).hexdigest(),
        **account,
    }
    write_bytes(options.out, content)
    write_bytes(options.out.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    print(json.dumps(account, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
