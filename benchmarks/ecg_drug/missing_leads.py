"""One to six of the eight leads missing before the dose: what the learned world reads, and what it foretells.

    python -m benchmarks.ecg_drug.missing_leads [--world NAME] [--out DIR]

Oracle patients of every cohort in sinus rhythm on real beats' heights. Of the ECG before the dose k leads, drawn at
random for each patient, are lost; they are made good from the others (`world_models.ecg.lead_repair`), the world reads
what there is then, and simulates a single dose. Judged at the hours asked for, beside all leads read (k = 0):

- before: errors of the intervals and T measures that are read, against the patient's own;
- after: errors of the measures foretold, and of the beat drawn after the dose, leads that were lost and leads that were
  kept apart, against the oracle's beat; `made` is the same of the beat before the dose.

Ratios to k = 0 are of the same patients, with intervals over them. Real records: `benchmarks.ecg_drug.leads`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.intervals import put_mean, resamples
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.leads import lost_sets, without
from benchmarks.ecg_drug.oracle_patients import one_dose, sinus_patients
from benchmarks.ecg_drug.own_beats import beat_of
from world_models import keys, tree
from world_models.bootstrap import percentile_interval
from world_models.command_line import folder, whole
from world_models.ecg.lead_repair import repair_leads
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import canonical_beat
from world_models.inputs import admit
from world_models.protocol import Chart

__all__ = ["MOST_LOST", "main", "ratio"]

TEST_SEED = 15_000_000_000
STEP_H, HOURS = 1.0, (1.0, 3.0, 6.0)
MOST_LOST = 6  # two good leads are the least that can be repaired
READ = ("qtcf_ms", "pr_ms", "qrs_ms", "tpeak_tend_ms", "heart_rate_bpm", "t_amplitude_uv", "t_asymmetry", "t_flatness")
BASE = {n: f"baseline_{n}" for n in READ}
_AT_ONCE = 32  # ECGs delineated together
WHO = ("age_years", "sex_female", "weight_kg", "creatinine_clearance_ml_min", "potassium_mmol_l", "magnesium_mmol_l")


class Truth(NamedTuple):
    """B patients, and what happened to them."""

    key: Tensor
    ecg_mv: Tensor  # [B, 12, 5000] before the dose
    charts: dict[float, Chart]  # by hours; 0 before
    beats: dict[float, Tensor]  # [B, 8, 200]
    doses: Tensor  # [B, T, D]


@torch.no_grad()
def truth_of(count: int) -> Truth:
    """The patients lived through by the oracle."""
    oracle, state = sinus_patients(TEST_SEED, count, STEP_H)
    _, doses = one_dose(state.key, round(max(HOURS) / STEP_H))
    first = state
    parts = (tree.take(first, rows) for rows in torch.arange(count).split(_AT_ONCE))
    ecg = [oracle.observe(part, ("ecg_mv",))["ecg_mv"] for part in parts]
    charts = {0.0: oracle.observe(state)}
    for i in range(doses.shape[1]):
        state = oracle.transition(state, doses[:, i])
        if (i + 1) * STEP_H in HOURS:
            charts[(i + 1) * STEP_H] = oracle.observe(state)
    beats = {h: canonical_beat(c, state.morphology) for h, c in charts.items()}
    return Truth(first.key, torch.cat(ecg), charts, beats, doses)


@torch.no_grad()
def read_by(world: ECGWorldModel, truth: Truth, lost: Tensor) -> dict[str, Tensor]:
    """Factors that the world reads of ECGs with leads lost [B, 8]."""
    parts = []
    for ecg, gone in zip(truth.ecg_mv.split(_AT_ONCE), lost.split(_AT_ONCE), strict=True):
        whole = ecg if not bool(gone.any()) else repair_leads(without(ecg, gone)).ecg_mv
        parts.append(world.read({"ecg_mv": whole}))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


@torch.no_grad()
def foretold(
    world: ECGWorldModel, truth: Truth, read: dict[str, Tensor], samples: int
) -> Iterator[tuple[float, Chart, Tensor]]:
    """(hours, median chart [B], mean beat [B, 8, 200]); of hour 0 the beat as it is drawn before the dose."""
    first = truth.charts[0.0]
    known = {n: first[n] for n in WHO} | {"admission_clock_hour": first["clock_hour"]}
    known |= {"admission_fibrillation": torch.zeros_like(first["hours"])}
    bounds = {q.name: q for q in world.factors}
    told = {n: v.clamp(bounds[n].low, bounds[n].high) for n, v in (read | known).items()}
    many, own = tree.repeat(told, samples), truth.key.repeat_interleave(samples)
    number = torch.arange(samples).repeat(len(truth.key))
    state = admit(world, keys.fold(keys.fold(own, "leads/particle"), number), many)

    def seen(now: Any) -> tuple[Chart, Tensor]:
        chart = world.observe(now)
        beat = beat_of(world, now, chart).unflatten(0, (-1, samples)).mean(1)
        return {n: chart[n].reshape(-1, samples).nanmedian(1).values for n in READ}, beat

    yield (0.0, *seen(state))
    for i in range(truth.doses.shape[1]):
        state = world.transition(state, truth.doses[:, i].repeat_interleave(samples, 0))
        if (i + 1) * STEP_H in HOURS:
            yield ((i + 1) * STEP_H, *seen(state))


def correlation(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """Correlation [B] about zero of beats [B, 8, L] over the leads `where` [B, 8]; NaN where there are none."""
    a, b = a * where.unsqueeze(-1), b * where.unsqueeze(-1)
    size = (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()
    return torch.where(size > 0, (a * b).sum((1, 2)) / size.clamp_min(1e-12), torch.nan)


def ratio(value: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Mean of value [B] over that of the same patients' reference [B], and its interval over those known in both."""
    known = torch.isfinite(value) & torch.isfinite(reference)
    value, reference = value[known].double(), reference[known].double()
    if not len(value):
        return float("nan"), float("nan"), float("nan")
    chosen = resamples(len(value))
    ends = percentile_interval(value[chosen].mean(-1) / reference[chosen].mean(-1))
    return float(value.mean() / reference.mean()), *ends


def errors_of(world: ECGWorldModel, truth: Truth, lost: Tensor, samples: int) -> dict[tuple[str, float, str], Tensor]:
    """(part, hours, measure) -> its error or correlation [B], with the leads `lost` [B, 8] before the dose."""
    read = read_by(world, truth, lost)
    found = {
        ("read before", 0.0, name): (read[factor] - truth.charts[0.0][name]).abs()
        for name, factor in BASE.items()
        if factor in read
    }
    for hours, chart, beat in foretold(world, truth, read, samples):
        part = "after" if hours else "made"
        sinus = torch.where(truth.charts[hours]["atrial_fibrillation"] < 0.5, 1.0, torch.nan)
        if hours:
            found |= {(part, hours, n): (chart[n] - truth.charts[hours][n]).abs() * sinus for n in READ}
        off = (beat - truth.beats[hours]).abs().mean(-1) * 1000
        for which, leads in (("lost leads", lost), ("kept leads", ~lost)):
            found[part, hours, f"beat error uV, {which}"] = torch.where(leads, off, torch.nan).nanmean(-1) * sinus
            found[part, hours, f"beat correlation, {which}"] = correlation(beat, truth.beats[hours], leads) * sinus
    return found


def judged(world: ECGWorldModel, truth: Truth, samples: int, counts: Sequence[int]) -> list[dict[str, Any]]:
    """A row a number of leads lost (0 the first), moment and measure."""
    rows: list[dict[str, Any]] = []
    whole: dict[tuple[str, float, str], Tensor] = {}
    for count in tqdm(counts, desc="leads lost", mininterval=5):
        found = errors_of(world, truth, lost_sets(len(truth.key), count, 0), samples)
        whole = whole or found
        for (part, hours, name), value in found.items():
            known = value[torch.isfinite(value)]
            if not len(known):
                continue
            row: dict[str, Any] = {"lost": count, "part": part, "hours": hours, "measure": name, "patients": len(known)}
            put_mean(row, "mean", known)
            row["median"] = float(known.median())
            if "correlation" not in name:
                base = whole[part, hours, name.replace("lost", "kept")]
                row["ratio"], row["ratio_low"], row["ratio_high"] = ratio(value, base)
            rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Write leads_ecg_wm.csv and print it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--patients", type=whole(16), default=400)
    parser.add_argument("--samples", type=whole(2, 1000), default=16, help="particles of each patient")
    parser.add_argument("--lost", type=whole(0, MOST_LOST), nargs="+", default=list(range(MOST_LOST + 1)))
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        world = world_of(chosen.world).with_options(hours_per_step=STEP_H)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = judged(world, truth_of(chosen.patients), chosen.samples, sorted({0, *chosen.lost}))
    for row in rows:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if k[-4:] not in ("_low", "high")})
    seeds = {"patients": TEST_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.missing_leads", argv, seeds, ["oracle", chosen.world])
    columns = {name: "" for row in rows for name in row}
    write_csv(chosen.out / "leads_ecg_wm.csv", [columns | row for row in rows], made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
