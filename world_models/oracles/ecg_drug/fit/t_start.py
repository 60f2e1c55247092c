"""Learns where the search for a T wave's bend begins: `python -m world_models.oracles.ecg_drug.fit.t_start`.

Patients of every cohort, most of them under a drug, are drawn by a long search that begins with what the ratios of
durations say. The bends that came near are regressed on `world_models.ecg.t_start.features`, those that bend little
counting more, and a part of what the regression says is the guess: far bends fool the delineator, and a search that
begins far out stays there (`python -m benchmarks.ecg_drug.drawn` judges). A fifth of the patients judges the
regression: the share of the bends' variance explained. Takes two minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from world_models import keys
from world_models.ecg.as_read import drawn_as_read
from world_models.ecg.t_bend import LEFT_KNOTS
from world_models.ecg.t_start import COEFFICIENTS_FILE, features
from world_models.ecg.t_synthesis import Begin, Marks, Solved, solved_waves
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import Intervals
from world_models.files import write_bytes
from world_models.oracles.ecg_drug.cohort_table import COHORTS
from world_models.oracles.ecg_drug.drawing import t_wave_of
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["by_ratios", "learned", "main", "sampled", "searched"]

SEED = 5_200_000_000
NEAR = 10.0  # squared misses, in `t_synthesis.SCALE`, of the bends that are learned from
RIDGE = 300.0
SHARE = 0.7  # of what the regression says, that the guess is
LONG = ((5, 1.0), (5, 4.0), (8, 6.0), (12, 6.0), (12, 8.0))  # rounds, and squared misses that will do
Asked = tuple[Intervals, Tensor, TWave, Marks]


def sampled(cohort: str, count: int, seed: int = SEED) -> Asked:
    """Intervals, wave heights, T waves and marks of so many patients, 2 h after no drug or one."""
    world = ECGDrugOracle(cohort=cohort)
    key = keys.from_seed(seed, count)
    state = world.initial(key, {"admission_fibrillation": torch.zeros(count)})
    doses = torch.diag(torch.tensor([d.trial_dose_mg for d in ANTIARRHYTHMICS] + [0.0]))[:, :-1]
    which = (keys.uniform(key, 0, "t start/drug") * len(doses)).to(torch.int64)
    chart = world.observe(world.transition(state, doses[which]))
    wanted = t_wave_of(chart)
    assert wanted is not None  # the oracle charts T waves
    chart["pr_ms"] = torch.nan_to_num(chart["pr_ms"], nan=160.0)  # the P wave is no part of this
    drawn, marks = drawn_as_read(Intervals(*(chart[n] for n in Intervals._fields)), state.morphology)
    return drawn, state.morphology, wanted, marks


def searched(asked: list[Asked], begin: Begin) -> Solved:
    """The bends of a long search."""
    parts = [
        solved_waves(intervals, heights, wanted, marks, begin, LONG)
        for intervals, heights, wanted, marks in tqdm(asked, desc="searched")
    ]
    return Solved(*(torch.cat(column) for column in zip(*parts, strict=True)))


def learned(solved: Solved) -> Tensor:
    """Coefficients [FEATURES, N] of the bends that came near."""
    near = solved.cost < NEAR
    found, x = features(solved.read, solved.wanted)[:, near].double(), solved.x[near].double()
    weighted = found / (1.0 + x.square().sum(-1))
    normal = weighted @ found.T + RIDGE * torch.eye(len(found), dtype=torch.float64)
    return SHARE * torch.linalg.solve(normal, weighted @ x).float()


def by_ratios(read: Tensor, wanted: Tensor, free: int) -> Tensor:
    """Free parameters [B, free] from which ERD_30, LRD_30 and the T end read [B, 6] would be about right."""
    ratio = torch.nan_to_num((read / wanted.clamp_min(1e-3)).clamp(0.3, 3.0).log(), nan=0.0)
    x, left = torch.zeros(len(read), free), len(LEFT_KNOTS) - 1
    x[:, 0] = x[:, 1] = ratio[:, 2]
    x[:, left] = ratio[:, 3]
    x[:, left + 1] = x[:, left + 2] = x[:, left + 3] = ratio[:, 5]
    return x


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 2 where nothing can be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=COEFFICIENTS_FILE, help="the .safetensors to write")
    parser.add_argument("--patients", type=int, default=2048, help="of each cohort")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir() or options.patients < 64:
        print(f"error: --out {options.out} in a folder that exists, --patients at least 64", file=sys.stderr)
        return 2
    asked = [sampled(cohort, options.patients) for cohort in COHORTS]
    first = searched(asked, lambda read, wanted, free: torch.zeros(len(read), free))
    rough = learned(first)
    solved = searched(asked, lambda read, wanted, free: features(read, wanted).T @ rough)
    judges = torch.arange(len(solved.cost)) % 5 == 0
    coefficients = learned(Solved(*(x[~judges] for x in solved)))
    judges &= solved.cost < NEAR
    off = features(solved.read, solved.wanted).T[judges] @ coefficients / SHARE - solved.x[judges]
    spread = solved.x[judges] - solved.x[judges].mean(0)
    content = save({"coefficients": coefficients.contiguous()})
    account = {
        "what": "coefficients [features, free parameters of a bend] of world_models/ecg/t_start.py",
        "made_by": "python -m world_models.oracles.ecg_drug.fit.t_start",
        "seed": SEED,
        "patients": len(solved.cost),
        "near": int((solved.cost < NEAR).sum()),
        "variance_explained": [round(float(x), 3) for x in 1.0 - off.square().sum(0) / spread.square().sum(0)],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_bytes(options.out, content)
    write_bytes(options.out.with_suffix(".json"), (json.dumps(account, indent=2) + "\n").encode())
    print(json.dumps(account, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
