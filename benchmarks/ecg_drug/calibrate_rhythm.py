"""Arrhythmia burden and torsades of the oracle beside published figures.

The figures are those that `world_models.oracles.ecg_drug.rhythm` cites.

    python -m benchmarks.ecg_drug.calibrate_rhythm [--patients 8192] [--hours 72] [--out CSV]

Torsades are printed as the mean probability 1 - exp(-integrated hazard), which needs far fewer patients than counting.
`label` doses dofetilide as its label does: by the creatinine clearance, nobody with a baseline QTc above 440 ms (500
with a wide QRS), after the first dose half if QTc is above 500 ms or 15 % over baseline; every drug is stopped for
good if QTc is above 500 ms (read 2 h after each dose). Figures are of those who were started.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from agents.baselines.ecg_rules import (
    CONTRAINDICATED_QTC_MS,
    CONTRAINDICATED_QTC_WIDE_QRS_MS,
    FULL_MG,
    WIDE_QRS_MS,
    label_dose_mg,
)
from benchmarks.common.results import made_by, write_csv
from world_models import keys
from world_models.oracles.ecg_drug.world import ECGDrugOracle, ECGDrugState

__all__ = ["REGIMENS", "PublishedRegimen", "main", "simulate"]


SEED = 20_000  # of the first patient
QTC_STOP_MS, QTC_RISE = 500.0, 1.15  # dofetilide's label: halve or stop above; halve if the first dose lengthens so
LATE_STEPS = 6  # the last 12 h


@dataclass(frozen=True, slots=True)
class PublishedRegimen:
    """A fixed order: `dose_mg` of `drug` every `every_h`, adjusted by the dofetilide label's rule or not."""

    cohort: str
    drug: str | None
    dose_mg: float
    every_h: float
    label: bool
    published: str


_DOF = "TdP 0.8 % label (k), 1.2 % of 1404 loadings; shift 2.1 (DIAMOND)"
REGIMENS: tuple[PublishedRegimen, ...] = (
    PublishedRegimen("typical", None, 0.0, 12.0, False, "TdP none in placebo arms; shift 0"),
    PublishedRegimen("typical", "dofetilide", 0.5, 12.0, True, _DOF),
    PublishedRegimen("typical", "dofetilide", 0.5, 12.0, False, "not adjusted: no published figure"),
    PublishedRegimen(
        "typical", "dofetilide", 0.25, 12.0, False, "shift about 1.0 (SAFIRE-D conversion, dose-response)"
    ),
    PublishedRegimen(
        "typical", "dofetilide", 0.125, 12.0, False, "shift about 0.5 (SAFIRE-D conversion, dose-response)"
    ),
    PublishedRegimen(
        "typical", "quinidine", 400.0, 6.0, True, "TdP 0.9 % of 342 loadings stopped at QTc 500 (Potpara)"
    ),
    PublishedRegimen("typical", "quinidine", 400.0, 6.0, False, "not adjusted: no published figure; shift 2.0"),
    PublishedRegimen(
        "typical", "quinidine", 200.0, 6.0, True, "TdP none in 501 on 200-400 mg every 6 h (Schwaab 2009)"
    ),
    PublishedRegimen("typical", "ranolazine", 750.0, 12.0, False, "TdP none; shift 0.5 (RAFFAELLO)"),
    PublishedRegimen("typical", "verapamil", 80.0, 8.0, False, "TdP none; shift 0.15"),
    PublishedRegimen(
        "heart-failure", "dofetilide", 0.5, 12.0, True, "TdP 3.3 % of 762 (DIAMOND, dose by renal function)"
    ),
    PublishedRegimen("long-qt", None, 0.0, 12.0, False, "-"),
)


def simulate(
    regimen: PublishedRegimen, patients: int, hours: float, on_step: Callable[[ECGDrugState], None] | None = None
) -> dict[str, float]:
    """Run one regimen and sum it up, over those whom the label lets start.

    Returns:
        torsades_share: probability by the end; over_500_share: QTcF above 500 ms at any step; started_share: of all;
        stopped_share: of those started, for a QTc above 500 ms by the label's rule; qtcf_top_ms: mean of each
        patient's highest QTcF change; burden_before, burden_after: mean over the last 12 h; shift: mean logit shift
        over the last 12 h; risk_ratio_500: risk of patients who ever exceed 500 ms over that of the rest.
    """
    world = ECGDrugOracle(cohort=regimen.cohort)
    state = world.initial(keys.from_seed(SEED, patients))
    first = world.observe(state)
    baseline = first["qtcf_ms"]
    steps, every = int(hours / world.hours_per_step), max(int(regimen.every_h / world.hours_per_step), 1)
    column = world.drugs.index(regimen.drug) if regimen.drug else 0
    factor = torch.ones(patients)
    if regimen.label and regimen.drug == "dofetilide":
        limit = torch.where(first["qrs_ms"] >= WIDE_QRS_MS, CONTRAINDICATED_QTC_WIDE_QRS_MS, CONTRAINDICATED_QTC_MS)
        factor = label_dose_mg(first["creatinine_clearance_ml_min"]) / FULL_MG * (baseline <= limit)
    started = factor > 0
    cumulative = torch.zeros(patients)
    top = torch.zeros(patients)
    over = torch.zeros(patients, dtype=torch.bool)
    late: list[tuple[float, float]] = []
    for step in range(steps):
        dose = torch.zeros(patients, len(world.drugs))
        if regimen.drug and step % every == 0:
            dose[:, column] = regimen.dose_mg * factor
        before = world.truth(state)["torsades_hazard_per_h"]
        state = world.transition(state, dose)
        if on_step is not None:
            on_step(state)
        chart, truth = world.observe(state), world.truth(state)
        hazard = truth["torsades_hazard_per_h"]
        cumulative += 0.5 * world.hours_per_step * (before + hazard)
        qtcf = chart["qtcf_ms"]
        over |= qtcf > QTC_STOP_MS
        top = torch.maximum(top, qtcf - baseline)
        if regimen.label and step % every == 0:
            if step == 0 and regimen.drug == "dofetilide":
                factor = torch.where((qtcf > QTC_STOP_MS) | (qtcf > QTC_RISE * baseline), 0.5 * factor, factor)
            else:
                factor = torch.where(qtcf > QTC_STOP_MS, 0.0, factor)
        if step >= steps - LATE_STEPS:
            shift = truth["burden_shift_logit"]
            late.append((chart["arrhythmia_burden"][started].mean().item(), shift[started].mean().item()))
    risk = -(-cumulative).expm1()
    above, below = risk[over & started], risk[~over & started]
    women = (first["sex_female"] > 0.5) & started
    return {
        "torsades_share": risk[started].mean().item(),
        "torsades_seen": state.rhythm.torsades[started].mean().item(),
        "torsades_women_share": risk[women].mean().item(),
        "torsades_men_share": risk[started & ~women].mean().item(),
        "started_share": started.float().mean().item(),
        "stopped_share": (factor[started] == 0).float().mean().item(),
        "over_500_share": over[started].float().mean().item(),
        "qtcf_top_ms": top[started].mean().item(),
        "burden_before": first["arrhythmia_burden"][started].mean().item(),
        "burden_after": sum(b for b, _ in late) / len(late),
        "shift": sum(s for _, s in late) / len(late),
        "risk_ratio_500": (above.mean() / below.mean()).item() if above.numel() and below.numel() else float("nan"),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table; with --out write it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=8192)
    parser.add_argument("--hours", type=float, default=72.0)
    parser.add_argument("--out", help="also write the rows to this CSV")
    args = parser.parse_args(argv)
    head = "cohort drug mg every_h label TdP_% seen_% >500_% top_ms burden shift x_>500".split()
    print("{:14s}{:11s}{:>7s}{:>8s}{:>6s}{:>8s}{:>8s}{:>8s}{:>7s}{:>13s}{:>7s}{:>8s}  published".format(*head))
    rows = []
    for r in REGIMENS:
        found = simulate(r, args.patients, args.hours)
        rows.append(asdict(r) | {n: round(v, 6) for n, v in found.items()})
        burden = f"{found['burden_before']:.2f} -> {found['burden_after']:.2f}"
        percent = [100 * found[n] for n in ("torsades_share", "torsades_seen", "over_500_share")]
        print(
            f"{r.cohort:14s}{r.drug or 'none':11s}{r.dose_mg:7g}{r.every_h:8g}{'yes' if r.label else 'no':>6s}"
            f"{percent[0]:8.3f}{percent[1]:8.3f}{percent[2]:8.1f}{found['qtcf_top_ms']:7.0f}{burden:>13s}"
            f"{found['shift']:7.2f}{found['risk_ratio_500']:8.1f}  {r.published}"
        )
    if args.out:
        made = made_by("benchmarks.ecg_drug.calibrate_rhythm", argv, {"first patient": SEED}, ["oracle"])
        write_csv(args.out, rows, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
