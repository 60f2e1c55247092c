"""What lambda in S(a) = mu + lambda sigma does: orders chosen in the learned world, lived through in the oracle.

    python -m benchmarks.ecg_drug.risk_aversion [--world NAME] [--out DIR]

Oracle patients of every cohort in sinus rhythm, known by the admission chart. The learned world simulates nothing and
every single dose of the menu over a day with the same particles; S is the mean and spread over particles of the frozen
predictor's risk of each one's worst ECG (`world_models.uncertainty.risk_score`, as `clinenv recommend`). Of the orders
that the world foretells to free at least a hundredth of the time of the arrhythmia, the one with the least S is chosen;
where there is none, nothing. Then the patient takes it in the oracle: did an event happen (torsades, QTcF over 500 ms
or 60 ms up), and what became of the arrhythmia. `oracle` rows choose by the oracle's own futures of the patient.
Differences from lambda 0 are paired, with intervals over patients. Simulated patients throughout: no clinical evidence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.intervals import put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.oracle_patients import course_of, particles_of, sinus_patients
from world_models import keys, tree
from world_models.command_line import folder, whole
from world_models.ecg_wm.risk.data import LARGE_RISE_MS, LONG_QTCF_MS
from world_models.ecg_wm.risk.predictor import RiskPredictor
from world_models.protocol import Chart
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.uncertainty import risk_score

__all__ = ["LAMBDAS", "Forecast", "chosen_orders", "main", "menu"]

TEST_SEED = 13_000_000_000
LAMBDAS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
HOURS, STEP_H = 24.0, 2.0
LEAST_BENEFIT = 0.01  # of the time: an order that frees less of the arrhythmia is no treatment
NOTHING = "nothing"
PRINTED = ("lambda", "other_than_at_0", "event", "torsades", "burden_freed", "rise_ms", "foretold_mu", "foretold_sigma")


class Forecast(NamedTuple):
    """Of C orders (the first is nothing) for B patients, P particles."""

    risk: Tensor  # [C, B, P] of each particle's worst ECG
    burden: Tensor  # [C, B, P] share of the time in the arrhythmia


def menu() -> tuple[list[str], Tensor]:
    """Names of the orders, nothing first, and doses [C, D] in mg."""
    names, rows = [NOTHING], [[0.0] * len(ANTIARRHYTHMICS)]
    for i, drug in enumerate(ANTIARRHYTHMICS):
        for mg in drug.menu_mg:
            names.append(f"{drug.name} {mg:g} mg")
            rows.append([mg if j == i else 0.0 for j in range(len(rows[0]))])
    return names, torch.tensor(rows)


def _lived(world: Any, state: Any, dose: Tensor) -> list[Chart]:
    """The day after one dose [D] for all; the first chart left out."""
    steps = round(HOURS / STEP_H)
    doses = torch.zeros(tree.batch_size(state), steps, len(dose))
    doses[:, 0] = dose
    return course_of(world, state, doses)[1:]


@torch.no_grad()
def forecast(world: Any, state: Any, orders: Tensor, samples: int, predictor: RiskPredictor) -> Forecast:
    """What becomes of particles [B * samples] under each order [C, D]."""
    risk, burden = [], []
    for dose in orders:
        charts = _lived(world, state, dose)
        worst = torch.stack([predictor(c)["event"] for c in charts]).amax(0)
        risk.append(worst.reshape(-1, samples))
        burden.append(torch.stack([c["arrhythmia_burden"] for c in charts]).mean(0).reshape(-1, samples))
    return Forecast(torch.stack(risk), torch.stack(burden))


def chosen_orders(found: Forecast, risk_aversion: float) -> Tensor:
    """The order chosen for each patient, int64 [B]: see the module's docstring.

    Raises:
        ValueError: as `risk_score`.
    """
    score = risk_score(found.risk, risk_aversion).score
    benefit = (found.burden[:1] - found.burden).median(-1).values
    allowed = benefit >= LEAST_BENEFIT
    allowed[0] = ~allowed[1:].any(0)
    return torch.where(allowed, score, torch.inf).argmin(0)


class Outcome(NamedTuple):
    """What the oracle makes of C orders in B patients, [C, B] each."""

    event: Tensor
    torsades: Tensor
    burden: Tensor
    rise_ms: Tensor


@torch.no_grad()
def outcomes(oracle: Any, state: Any, orders: Tensor) -> Outcome:
    """The same patients with the same luck under each order."""
    rows = []
    for dose in orders:
        charts = _lived(oracle, state, dose)
        rise = torch.stack([c["qtcf_ms"] - c["baseline_qtcf_ms"] for c in charts]).amax(0)
        long = torch.stack([c["qtcf_ms"] for c in charts]).amax(0) > LONG_QTCF_MS
        struck = charts[-1]["torsades"] > 0.5
        event = (long | (rise > LARGE_RISE_MS) | struck).float()
        rows.append((event, struck.float(), torch.stack([c["arrhythmia_burden"] for c in charts]).mean(0), rise))
    return Outcome(*(torch.stack(column) for column in zip(*rows, strict=True)))


def rows_of(by: str, found: Forecast, real: Outcome, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a lambda."""
    rows, patient = [], torch.arange(real.event.shape[1])
    first = chosen_orders(found, 0.0)
    for lam in LAMBDAS:
        order = chosen_orders(found, lam)
        score = risk_score(found.risk, lam)
        row: dict[str, Any] = {"chosen_in": by, "lambda": lam, "patients": len(patient)}
        row["other_than_at_0"] = float((order != first).float().mean())
        for name, value in real._asdict().items():
            put_mean(row, name, value[order, patient])
            put_mean(row, f"{name}_less_at_0", value[order, patient] - value[first, patient])
        put_mean(row, "burden_freed", real.burden[0] - real.burden[order, patient])
        row["foretold_mu"] = float(score.mu[order, patient].mean())
        row["foretold_sigma"] = float(score.sigma[order, patient].mean())
        row |= {f"share {name}": float((order == i).float().mean()) for i, name in enumerate(names)}
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Write lambda_ecg_wm.csv and print it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--risk", type=Path, default=None, help="folder of a risk predictor (default: the shipped one)")
    parser.add_argument("--patients", type=whole(8), default=600)
    parser.add_argument("--samples", type=whole(2, 1000), default=32, help="particles of each patient")
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        world, predictor = world_of(chosen.world).with_options(hours_per_step=STEP_H), RiskPredictor.load(chosen.risk)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names, orders = menu()
    oracle, state = sinus_patients(TEST_SEED, chosen.patients, STEP_H)
    chart, real = oracle.observe(state), outcomes(oracle, state, orders)
    particles = particles_of(world, chart, state.key, chosen.samples)
    rows = rows_of(world.name, forecast(world, particles, orders, chosen.samples, predictor), real, names)
    futures = tree.repeat(state, chosen.samples)
    number = torch.arange(chosen.samples).repeat(chosen.patients)
    futures = oracle.rekey(futures, keys.fold(keys.fold(futures.key, "lambda/future"), number))
    rows += rows_of("oracle", forecast(oracle, futures, orders, chosen.samples, predictor), real, names)
    for row in rows:
        print(
            {
                k: round(v, 4) if isinstance(v, float) else v
                for k, v in row.items()
                if "_low" not in k and "_high" not in k
            }
        )
    made = made_by(
        "benchmarks.ecg_drug.risk_aversion", argv, {"patients": TEST_SEED, "bootstrap": 0}, ["oracle", chosen.world]
    )
    write_csv(chosen.out / "lambda_ecg_wm.csv", rows, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
