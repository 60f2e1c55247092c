"""The ECG under each drug: a beat before, after in the oracle, after in the learned world; three leads.

    python -m benchmarks.ecg_drug.drugs_figure [--world NAME] [--record RECORD] [--out DIR]

One patient takes the trial's single dose of each drug; the beats are those of the hour asked for (2.5 h, where the
trial's T waves are most changed). Without --record the patient is the oracle's, on a real beat's heights of its bank;
with it, the recorded patient of a WFDB record, whose own beat both worlds keep. The oracle's patient and the learned
world's share the key; the learned world has seen the ECG before alone. Its band is the middle nine tenths of particles.
Writes drugs_ecg_wm.png, and drugs_ecg_wm.csv with what the charts say and how the beats correlate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.oracle_patients import particles_of
from benchmarks.ecg_drug.own_beats import beat_factors, beat_of
from world_models import keys
from world_models.command_line import folder, number, whole
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import canonical_beat, time_beat
from world_models.inputs import admit
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import Chart
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["After", "courses", "main"]

PATIENT_SEED = 14_000_000_000
LEADS = ("II", "V2", "V5")
STEP_H = 0.5
SAMPLES = 64
ONSET, RATE_HZ = 300, 500.0  # of a beat in time (`pairs.time_beat`)
SHOWN_MS = (-300.0, 600.0)
MEASURES = ("qtcf_ms", "pr_ms", "tpeak_tend_ms", "t_amplitude_uv", "t_asymmetry", "t_flatness")


class After(NamedTuple):
    """One drug's hour: beats in time [8, 800] mV and charts."""

    true: Tensor
    true_chart: Chart  # [1]
    model: Tensor
    low: Tensor  # 5 % of the particles
    high: Tensor
    model_chart: Chart  # [1] medians


def _beats_of_oracle(chart: Chart, state: Any) -> Tensor:
    residual = state.residual if state.residual.shape[-1] else None
    return canonical_beat(chart, state.morphology, residual)


@torch.no_grad()
def courses(
    oracle: ECGDrugOracle,
    world: ECGWorldModel,
    factors: dict[str, Tensor],
    hours: float,
    samples: int = SAMPLES,
    seed: int = PATIENT_SEED,
) -> tuple[Tensor, Chart, dict[str, After]]:
    """The beat [8, 800] and chart before, and what each drug makes of them after `hours`."""
    key = keys.from_seed(seed, 1)
    state = admit(oracle, key, factors)
    chart = oracle.observe(state)
    before = _beats_of_oracle(chart, state)
    many = particles_of(world, chart, key, samples, beat_factors(world, before))
    found = {}
    for column, drug in enumerate(ANTIARRHYTHMICS):
        real, own = state, many
        for step in range(round(hours / STEP_H)):
            dose = torch.zeros(1, len(ANTIARRHYTHMICS))
            dose[0, column] = drug.trial_dose_mg if step == 0 else 0.0
            real, own = oracle.transition(real, dose), world.transition(own, dose.expand(samples, -1))
        after, foretold = oracle.observe(real), world.observe(own)
        true = time_beat(_beats_of_oracle(after, real), after)[0]
        drawn = time_beat(beat_of(world, own, foretold), foretold)
        low, middle, high = drawn.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
        median = {n: foretold[n].nanmedian().reshape(1) for n in MEASURES}
        found[drug.name] = After(true, after, middle, low, high, median)
    return time_beat(before, chart)[0], chart, found


def rows_of(chart: Chart, found: dict[str, After]) -> list[dict[str, Any]]:
    """What is charted before and after, in the oracle and foretold, and the correlation of the beats after."""
    rows = []
    for drug, after in found.items():
        inside = slice(ONSET - 150, ONSET + 300)
        a, b = after.true[:, inside], after.model[:, inside]
        r = float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
        for name in MEASURES:
            charts = {"before": chart, "oracle": after.true_chart, "model": after.model_chart}
            said = {who: float(c[name][0]) for who, c in charts.items()}
            rows.append({"drug": drug, "measure": name, **said, "beat_correlation": r})
    return rows


def picture(before: Tensor, found: dict[str, After], hours: float) -> Any:
    """A row a drug, a column a lead."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(len(found), len(LEADS), sharex=True, sharey="col", squeeze=False)
    ms = (torch.arange(before.shape[-1]) - ONSET) * (1000 / RATE_HZ)
    inside = (ms >= SHOWN_MS[0]) & (ms <= SHOWN_MS[1])
    ms = ms[inside].numpy()
    for line, (drug, after) in zip(axes, found.items(), strict=True):
        for axis, lead in zip(line, LEADS, strict=True):
            i = INDEPENDENT_LEADS.index(lead)
            wave = {
                n: v[i, inside].numpy() for n, v in {"before": before, **after._asdict()}.items() if n[-5:] != "chart"
            }
            axis.fill_between(ms, wave["low"], wave["high"], color="#1f4e79", alpha=0.15, lw=0)
            axis.plot(ms, wave["before"], color="0.6", lw=1.2, label="before")
            axis.plot(ms, wave["true"], color="black", lw=1.2, label=f"oracle, {hours:g} h after")
            axis.plot(ms, wave["model"], color="#1f4e79", lw=1.2, ls="--", label="learned world, median and 90 %")
            axis.set_title(f"{drug}, {lead}", fontsize=8)
            axis.tick_params(labelsize=7)
        line[0].set_ylabel("mV", fontsize=8)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("ms from QRS onset", fontsize=8)
    return figure


def _recorded(oracle: ECGDrugOracle, record: Path) -> dict[str, Tensor]:
    """Factors of a recorded patient. Raises ValueError and RecordError (a ValueError): an ECG that cannot be used."""
    from world_models.data.ecg.wfdb.reader import read_ecg

    ecg = torch.as_tensor(read_ecg(record).ecg_mv, dtype=torch.float32).reshape(1, 12, -1)
    return oracle.read({"ecg_mv": ecg})


def main(argv: list[str] | None = None) -> int:
    """Write the figure and its numbers. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--record", type=Path, default=None, help="a WFDB record, without extension")
    parser.add_argument("--cohort", default="healthy", help="of the oracle's patient")
    parser.add_argument("--patient", type=whole(0), default=0, help="which of the oracle's patients")
    parser.add_argument("--hours", type=number(STEP_H, 24), default=2.5, help="after the dose")
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        world = world_of(chosen.world).with_options(hours_per_step=STEP_H, cohort=chosen.cohort)
        oracle = ECGDrugOracle(cohort=chosen.cohort, hours_per_step=STEP_H)
        factors = {"admission_clock_hour": torch.tensor([8.0]), "admission_fibrillation": torch.zeros(1)}
        if chosen.record is not None:
            factors |= _recorded(oracle, chosen.record)
        before, chart, found = courses(oracle, world, factors, chosen.hours, seed=PATIENT_SEED + chosen.patient)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = made_by("benchmarks.ecg_drug.drugs_figure", argv, {"patient": PATIENT_SEED}, ["oracle", chosen.world])
    rows = rows_of(chart, found)
    for row in rows:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    write_csv(chosen.out / "drugs_ecg_wm.csv", rows, made)
    write_figure(chosen.out / "drugs_ecg_wm.png", picture(before, found, chosen.hours), made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
