"""A drug that the learned world never saw: trained without it, what can it say of it?

    python -m benchmarks.ecg_drug.held_out_drug --drug dofetilide --work DIR [--steps N] [--out DIR]

The world's chart stages are trained from nothing on courses in which nobody takes the drug (`chart_stages`). Its ODE
has a place for it, whose kinetics start from literature rates, and nothing else is known but what laboratory and class
say:

- "block": intervals by the rough law of ion-channel block at the free peak concentration (`dynamics.channel_effects`),
  laid on the fast effect site. Its three factors were fitted on all four of the trial's drugs, so the law is not blind
  to this one; the block itself is measured in vitro;
- "block and class": the T wave's slopes besides, of the other drug that blocks hERG most, times the ratio of the two
  predicted effects on Tpeak-Tend;
- "class": all trained slopes of the drug whose predicted intervals are nearest, times the ratio of the predicted QTcF
  effects, and how persons differ in them.

Rows: persistence; the mean course of untreated patients; the prior alone (an untrained ODE with the "block" effects: no
time of day, no belief); the world with the one and the other; and the world named, which has seen the drug. Oracle
patients of every cohort, the drug's single and repeated dose, known by the admission chart. Errors with intervals over
patients; differences from the prior alone are paired. Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import mean_interval, put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.chart_stages import Budget, normal_residual, train_chart_stages
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.fidelity import plans
from benchmarks.ecg_drug.oracle_patients import course_of, particles_of, sinus_patients
from world_models.command_line import MOST_BATCH, folder, whole
from world_models.ecg_wm import latent
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.courses import sample_courses
from world_models.ecg_wm.latent_ode import PhysiologicalPrior
from world_models.ecg_wm.model import ECGWorldModel
from world_models.oracles.ecg_drug.cipa import cipa_table
from world_models.oracles.ecg_drug.dynamics import channel_effects
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["JUDGED", "give_block_effects", "give_class_effects", "give_t_wave_effects", "main", "most_alike"]
__all__ += ["peak_level"]

TEST_SEED, OTHERS_SEED = 16_000_000_000, 16_500_000_000
STEP_H, HOURS = 2.0, (2.0, 4.0, 8.0, 12.0, 24.0)
JUDGED = ("qtcf_ms", "pr_ms", "jt_peak_c_ms", "tpeak_tend_ms", "t_amplitude_uv", "t_asymmetry", "t_flatness")
BY_BLOCK = ("jt_peak_c_ms", "tpeak_tend_ms", "pr_ms")  # what the rough law gives
FAST = 0  # of the effect sites


def predicted_effects(drug: str) -> dict[str, float]:
    """Of BY_BLOCK, ms, by block at the free peak concentration."""
    item = cipa_table()[drug]
    found = channel_effects(item, torch.tensor(item.free_cmax_nm))
    return {name: float(found[name]) for name in BY_BLOCK}


def most_alike(drug: str) -> tuple[str, float]:
    """The other drug whose predicted effects are nearest, and the ratio of the two predicted QTcF effects (1 where the
    other has none)."""
    own = predicted_effects(drug)
    others = {name: predicted_effects(name) for name in DRUGS if name != drug}
    near = min(others, key=lambda n: sum((others[n][e] - own[e]) ** 2 for e in own))
    size, other = (x["jt_peak_c_ms"] + x["tpeak_tend_ms"] for x in (own, others[near]))
    return near, size / other if abs(other) > 1.0 else 1.0


@torch.no_grad()
def peak_level(prior: PhysiologicalPrior, column: int) -> float:
    """Highest level of the fast site after one reference dose of a drug, in somebody without random effects."""
    nobody = torch.zeros(1, prior.config.eta)
    rates = prior.individual(nobody, torch.zeros(1, prior.rate_patient.shape[-1]), torch.zeros(1, latent.COORDS))
    nothing = torch.zeros(1, prior.drugs, rates.rate.shape[-1])
    dose = torch.zeros(1, prior.drugs)
    dose[0, column] = prior.reference_mg[column]
    amounts = prior.dose(rates, nothing, dose)
    hours = torch.arange(0.25, 24.0, 0.25)
    later = (-rates.rate.unsqueeze(2) * hours.view(1, 1, -1, 1)).exp() * amounts.unsqueeze(2)
    level = prior.effects(rates, later).unflatten(-1, (prior.drugs, -1))
    return float(level[0, :, column, FAST].max())


@torch.no_grad()
def give_block_effects(prior: PhysiologicalPrior, drug: str) -> None:
    """The drug's slopes by the rough law: its predicted effect at the fast site's peak; nothing else of it is known."""
    column, effects = DRUGS.index(drug), predicted_effects(drug)
    prior.slope[column] = 0.0
    prior.slope_eta[column] = 0.0
    prior.slope_patient[column] = 0.0
    level = peak_level(prior, column)
    for name, ms in effects.items():
        place = latent.COORDINATES.index(name)
        prior.slope[column, FAST, place] = ms / (latent.SCALE[place] * level)


@torch.no_grad()
def give_t_wave_effects(prior: PhysiologicalPrior, drug: str) -> None:
    """The drug's slopes on the T wave, and how persons differ in them, from the other drug that blocks hERG most."""
    others = {name: predicted_effects(name)["tpeak_tend_ms"] for name in DRUGS if name != drug}
    donor = max(others, key=lambda n: others[n])
    to, of = DRUGS.index(drug), DRUGS.index(donor)
    share = predicted_effects(drug)["tpeak_tend_ms"] / others[donor]
    share *= peak_level(prior, of) / peak_level(prior, to)
    for name in latent.T_WAVE:
        place = latent.COORDINATES.index(name)
        prior.slope[to, :, place] = share * prior.slope[of, :, place]
        prior.slope_eta[to, :, place] = prior.slope_eta[of, :, place]
        prior.slope_patient[to, :, place] = prior.slope_patient[of, :, place]


@torch.no_grad()
def give_class_effects(prior: PhysiologicalPrior, drug: str) -> None:
    """The drug's slopes, and how persons differ in them, from the drug most like it: see the module's docstring."""
    other, share = most_alike(drug)
    to, of = DRUGS.index(drug), DRUGS.index(other)
    prior.log_half[to] = prior.log_half[of]
    prior.slope_eta[to] = prior.slope_eta[of]
    prior.slope_patient[to] = prior.slope_patient[of]
    prior.slope[to] = prior.slope[of]
    prior.slope[to] *= share * peak_level(prior, of) / peak_level(prior, to)


def without_drug(drug: str, work: Path, budget: Budget) -> ECGWorldModel:
    """The world trained on courses in which nobody takes the drug."""
    draw = partial(sample_courses, withheld=(drug,))
    return train_chart_stages(work / f"without_{drug}", budget, draw, {"withheld": [drug]}, STEP_H)


def alone(drug: str) -> ECGWorldModel:
    """The prior alone: an untrained ODE, with the drug's rough effects; without time of day or random effects."""
    model = ECGWorldModel(SMALL)
    with torch.no_grad():
        for parameter in (model.prior.daily, model.prior.daily_eta, model.prior.rate_eta, model.prior.slope_eta):
            parameter.zero_()
        model.log_noise.fill_(-6.0)
        model.correction.fill_(-9.0)
        model.log_memory.fill_(9.0)  # the admission reading stays
    give_block_effects(model.prior, drug)
    return normal_residual(model, STEP_H)


@torch.no_grad()
def foreseen(world: ECGWorldModel, chart: Chart, key: Tensor, doses: Tensor, samples: int) -> list[Chart]:
    """Median charts [B] after each step of doses [T, D]."""
    state = particles_of(world, chart, key, samples)
    charts = course_of(world, state, doses.expand(len(key) * samples, -1, -1))
    return [{n: c[n].reshape(-1, samples).nanmedian(1).values for n in JUDGED} for c in charts]


@torch.no_grad()
def rows_of(drug: str, worlds: dict[str, ECGWorldModel], patients: int, samples: int) -> list[dict[str, Any]]:
    """A row a plan, hour, model."""
    oracle, state = sinus_patients(TEST_SEED, patients, STEP_H)
    _, others = sinus_patients(OTHERS_SEED, 4 * patients, STEP_H)
    steps, rows = round(max(HOURS) / STEP_H), []
    untreated = course_of(oracle, others, torch.zeros(4 * patients, steps, len(DRUGS)))
    for plan, doses in plans(STEP_H, steps).items():
        if not plan.startswith(drug):
            continue
        truth = course_of(oracle, state, doses.expand(patients, -1, -1))
        said = {name: foreseen(world, truth[0], state.key, doses, samples) for name, world in worlds.items()}
        said["persistence"] = [truth[0]] * (steps + 1)
        said["untreated patients' course"] = [
            {n: truth[0][n] + (c[n] - untreated[0][n]).nanmean() for n in JUDGED} for c in untreated
        ]
        for hours in HOURS:
            at = round(hours / STEP_H)
            sinus = truth[at]["atrial_fibrillation"] < 0.5
            errors = {
                name: {n: (charts[at][n] - truth[at][n])[sinus].abs() for n in JUDGED} for name, charts in said.items()
            }
            for name, each in errors.items():
                row: dict[str, Any] = {"held_out": drug, "plan": plan, "hours": hours, "model": name}
                row["patients"] = int(sinus.sum())
                for n, off in each.items():
                    known = ~(off + errors["prior alone"][n]).isnan()
                    put_mean(row, f"mae_{n}", off[known])
                    apart = mean_interval(off[known] - errors["prior alone"][n][known])
                    row |= {f"{n}_less_prior": apart.value, f"{n}_less_prior_low": apart.low}
                    row[f"{n}_less_prior_high"] = apart.high
                rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Write ood_drug_ecg_wm.csv and print it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drug", nargs="+", choices=DRUGS, default=["dofetilide"], help="held out, each by itself")
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world that has seen them")
    parser.add_argument("--steps", type=whole(8), default=800, help="training steps of the dynamics; an eighth after")
    parser.add_argument("--batch", type=whole(16, MOST_BATCH), default=128, help="patients a training step")
    parser.add_argument("--patients", type=whole(16), default=400)
    parser.add_argument("--samples", type=whole(2, 1000), default=32, help="particles of each patient")
    parser.add_argument("--work", type=folder, required=True, help="folder for what training has reached so far")
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    try:
        seen = world_of(chosen.world).with_options(hours_per_step=STEP_H)
        for drug in chosen.drug:
            budget = Budget.of(chosen.steps, chosen.batch)
            by_block, both, by_class = (without_drug(drug, chosen.work, budget) for _ in range(3))
            for world in (by_block, both):
                give_block_effects(world.prior, drug)
            give_t_wave_effects(both.prior, drug)
            give_class_effects(by_class.prior, drug)
            worlds = {"prior alone": alone(drug), "world, block": by_block, "world, block and class": both}
            worlds |= {f"world, class ({most_alike(drug)[0]})": by_class, "world that has seen it": seen}
            rows += rows_of(drug, worlds, chosen.patients, chosen.samples)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        told = {n: round(row[f"mae_{n}"], 3) for n in JUDGED}
        print(row["plan"], row["hours"], row["model"], told)
    seeds = {"patients": TEST_SEED, "untreated": OTHERS_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.held_out_drug", argv, seeds, ["oracle", chosen.world])
    write_csv(chosen.out / "ood_drug_ecg_wm.csv", rows, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
