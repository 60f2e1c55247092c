"""The moments that `lead_repair` reconstructs leads by, from real median beats.

    python -m world_models.ecg.lead_repair_fit --ptbxl DIR --ludb DIR --challenge DIR [--out lead_moments.json]

Trusted beats of the training split of `data.ecg.real_beats` (PTB-XL's folds 1 to 6, LUDB's odd records, Challenge
records); each beat counts alike, whatever its size.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from world_models.data.ecg.real_beats import R_SAMPLE, RATE_HZ, SAMPLES, RealBeats, real_beats
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.lead_repair import AROUND_QRS_MS, BEFORE_P_MS, MOMENTS_FILE
from world_models.files import write_text

__all__ = ["beat_segments", "moments_of"]

AFTER_T_MS = 60.0  # of the T end still counts


def beat_segments(beats: RealBeats) -> Tensor:
    """[N, 3, 800]: 1 where a median beat is in the segment (up to the QRS, QRS, after it), else 0."""
    time = (torch.arange(SAMPLES) - R_SAMPLE) * (1000.0 / RATE_HZ)
    measured = beats.measured
    on, off, end = (x.unsqueeze(-1) for x in (measured.qrs_onset_ms, measured.qrs_offset_ms, measured.t_end_ms))
    before = (time >= on - BEFORE_P_MS) & (time < on - AROUND_QRS_MS)
    qrs = (time >= on - AROUND_QRS_MS) & (time <= off + AROUND_QRS_MS)
    after = (time > off + AROUND_QRS_MS) & (time <= end + AFTER_T_MS)
    return torch.stack([before, qrs, after], 1).to(torch.float32)


def moments_of(beats: RealBeats) -> Tensor:
    """[3, 8, 8] mean over beats of the leads' second moments in each segment, each beat's mean power there being
    1."""
    weight = beat_segments(beats)
    each = torch.einsum("nct,ndt,nst->nscd", beats.beat_mv, beats.beat_mv, weight)
    power = torch.diagonal(each, dim1=-2, dim2=-1).mean(-1)  # [N, 3]
    return (each / power.clamp_min(1e-9)[..., None, None]).mean(0)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m world_models.ecg.lead_repair_fit", description=__doc__)
    for name in ("ptbxl", "ludb", "challenge"):
        parser.add_argument(f"--{name}", type=Path, help="folder of the database")
    parser.add_argument("--out", type=Path, default=MOMENTS_FILE)
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir() or options.out.is_dir():
            raise ValueError(f"{options.out} cannot be written: name a file in a folder that exists")
        beats = real_beats(options.ptbxl, options.ludb, options.challenge, "train", quiet=False)
        counts = Counter(beats.source)
        found = {
            "leads": list(INDEPENDENT_LEADS),
            "segments": ["up to the QRS", "QRS", "after the QRS"],
            "beats": dict(counts),
            "split": "train: PTB-XL folds 1 to 6, LUDB odd records, Challenge 2021",
            "licences": "PTB-XL 1.0.3 CC BY 4.0; LUDB 1.0.1 ODC-By 1.0; Challenge 2021 CC BY 4.0",
            "moments": [[[round(v, 5) for v in row] for row in matrix] for matrix in moments_of(beats).tolist()],
        }
        write_text(options.out, json.dumps(found, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: moments of {len(beats.source)} beats ({', '.join(f'{k} {n}' for k, n in counts.items())})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
