"""The oracles' cohorts at admission beside a real population of ECGs, stratum by stratum.

    python -m benchmarks.ecg_drug.cohorts --chapman DIR [--patients N] [--drawn N] [--out PREFIX]

Writes PREFIX.csv (quantiles of rate, QRS, QT and QTcF in both, the difference of medians in SDs of the real
distribution, whether it is over half an SD, and why), PREFIX_laws.csv (mean, SD, sex and age of each factor as
generated and as the real ECGs give them) and PREFIX.png (quantile against quantile). Nothing of a cohort is changed.

Real: the Chapman-Shaoxing machine measurements, adults (`world_models.data.ecg.chapman`). Generated: every cohort of
`world_models.oracles.ecg_drug.cohorts`, its charts; and the progression oracle's patients without conditions, whose
drawn ECGs are measured by the delineator in the convention of LUDB's readers. Charts hold the convention of the trial,
in which the drawn T wave ends where its tangent meets the baseline: --drawn ECGs of each cohort are read as a reader
marks them, to tell that apart from the cohort.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.common.results import RESULTS, made_by, sha256_of, write_csv, write_figure
from benchmarks.ecg_drug.cohort_reasons import explained, proposals
from benchmarks.ecg_drug.cohort_strata import AGES, FEWEST, MEASURES, NUMBER, SEXES, Generated, Stratum, compared
from world_models import keys
from world_models.command_line import whole
from world_models.data.ecg.chapman import find_table, load_measurements
from world_models.ecg.delineation.delineate import delineate
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import CODES, SAMPLING_RATE_HZ

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["main", "of_progression", "of_the_drug_oracle", "picture"]

SEED = 40_000  # of the first patient
PATIENTS, DRAWN = 10_000, 500
CONVENTION = "reader"
DRUG_ECG_HZ = 500.0
WITHOUT_CONDITIONS = "progression, no condition"
PROPOSED = ("typical", "elderly", WITHOUT_CONDITIONS)  # whose factors other cohorts share, or are no disease's
PICTURED = ("healthy", "typical", "elderly", "bradycardia", "heart-failure", "long-qt", WITHOUT_CONDITIONS)
UNITS = {"heart_rate_bpm": "heart rate, bpm", "qrs_ms": "QRS, ms", "qt_ms": "QT, ms", "qtcf_ms": "QTcF, ms"}
COLUMNS = tuple((rhythm, sex) for rhythm in ("sinus rhythm", "sinus bradycardia") for sex in ("women", "men"))
LEVELS = np.linspace(0.02, 0.98, 25)  # quantiles of the picture
RESOLUTION = {"heart_rate_bpm": 1.0, "qrs_ms": 2.0, "qt_ms": 2.0, "qtcf_ms": 2.0}  # of the machine: steps otherwise


def of_the_drug_oracle(cohort: str, patients: int = PATIENTS, drawn: int = DRAWN) -> Generated:
    """Charts of a cohort at admission; the reader's marks of the first `drawn` ECGs beside their charts."""
    import pandas as pd

    world = ECGDrugOracle(cohort)
    key = keys.from_seed(SEED, patients)
    chart = world.observe(world.initial(key))
    frame = pd.DataFrame({name: chart[name].double().numpy() for name in ("age_years", "sex_female", *MEASURES)})
    frame["fibrillates"] = (chart["atrial_fibrillation"] > 0.5).numpy()
    few = world.observe(world.initial(key[:drawn]), also=("ecg_mv",))
    read = delineate(few["ecg_mv"], DRUG_ECG_HZ, CONVENTION)
    apart = {m: float((getattr(read, m) - few[m])[read.trusted].median()) for m in MEASURES}
    return Generated(cohort, frame, apart)


def of_progression(patients: int = DRAWN) -> Generated:
    """The progression oracle's patients of the clinic's ages without conditions, measured off their ECGs."""
    import pandas as pd

    world = ProgressionOracle()
    none = {"condition": torch.zeros(patients, len(CODES))}
    chart = world.observe(world.initial(keys.from_seed(SEED, patients), none), also=("ecg_mv",))
    read = delineate(chart["ecg_mv"], SAMPLING_RATE_HZ, CONVENTION)
    frame = pd.DataFrame({name: getattr(read, name).double().numpy() for name in MEASURES})
    for name in ("age_years", "sex_female"):
        frame[name] = chart[name].double().numpy()
    frame["fibrillates"] = False
    return Generated(WITHOUT_CONDITIONS, frame[read.trusted.numpy()], conditions=False)


def picture(real: pd.DataFrame, cohorts: list[Generated]) -> Figure:
    """Quantile against quantile in sinus rhythm and bradycardia: a panel a measure, rhythm and sex."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(3.1 * len(COLUMNS), 2.75 * len(MEASURES)), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(COLUMNS))
    blur = np.random.default_rng(SEED)
    for column, (rhythm, sex) in enumerate(COLUMNS):
        stratum = Stratum(rhythm, sex, "all")
        rows = real[stratum.real(real)]
        panels[0, column].set_title(f"{rhythm}, {sex}: {len(rows)} real ECGs", fontsize=9)
        if len(rows) < FEWEST:
            continue
        beside = [c.frame[stratum.generated(c.frame)] for c in cohorts]
        for line, measure in enumerate(MEASURES):
            panel = panels[line, column]
            values = rows[measure] + RESOLUTION[measure] * (blur.random(len(rows)) - 0.5)
            there, middle = np.quantile(values, LEVELS), float(rows[measure].median())
            panel.plot(there, there, color="0.4", linewidth=1.0, linestyle="--", zorder=0)
            for cohort, people in zip(cohorts, beside, strict=True):
                if cohort.name in PICTURED and len(people) >= FEWEST:
                    color = f"C{PICTURED.index(cohort.name)}"
                    here = np.quantile(people[measure], LEVELS)
                    panel.plot(there, here, color=color, linewidth=1.3)
                    panel.plot(middle, people[measure].median(), "o", color=color, markersize=3.5)
            panel.grid(alpha=0.25)
            panel.tick_params(labelsize=8)
            panel.set_xlabel(f"real {UNITS[measure]}", fontsize=8)
            if not column:
                panel.set_ylabel(f"oracle {UNITS[measure]}", fontsize=8)
    names = [c.name for c in cohorts if c.name in PICTURED]
    lines = [Line2D([], [], color=f"C{PICTURED.index(name)}", label=name) for name in names]
    lines.append(Line2D([], [], color="0.4", linestyle="--", label="as the real ECGs"))
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(
        "Quantiles of the cohorts against those of the Chapman-Shaoxing ECGs, all ages (dot: median)", fontsize=11
    )
    return figure


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Run, print the flagged rows by cause, write; the rows of PREFIX.csv."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chapman", required=True, type=Path, help="folder or table of the machine measurements")
    parser.add_argument("--patients", type=whole(100, 1_000_000), default=PATIENTS, help="generated, of each cohort")
    parser.add_argument("--drawn", type=whole(20, 100_000), default=DRAWN, help="of them with an ECG to be read")
    parser.add_argument("--resamples", type=whole(10, 100_000), default=NUMBER, help="of the bootstrap")
    parser.add_argument("--out", type=Path, default=RESULTS / "cohorts_chapman", help="prefix of the files")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        table = find_table(a.chapman)
        measurements = load_measurements(table)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    real = measurements.frame[measurements.frame["age_years"] >= AGES["all"][0]]
    print(f"{table.name}: {measurements.rows.as_dict()}, {len(real)} adults")

    made = made_by("benchmarks.ecg_drug.cohorts", argv, {"first patient": SEED, "bootstrap": 0}, ["oracle"])
    made["data"] = {table.name: sha256_of(table)}
    drug = [of_the_drug_oracle(name, a.patients, min(a.drawn, a.patients)) for name in COHORTS]
    everyone = [*drug, of_progression(a.drawn)]
    rows = explained(list(compared(real, everyone, a.resamples)))
    if not rows:
        parser.error(f"{table}: under {FEWEST} ECGs of adults in every stratum; give a larger table")
    laws = proposals(real, [c for c in everyone if c.name in PROPOSED])
    write_csv(a.out.with_name(f"{a.out.name}.csv"), rows, made)
    write_csv(a.out.with_name(f"{a.out.name}_laws.csv"), laws, made)
    write_figure(a.out.with_name(f"{a.out.name}.png"), picture(real, everyone), made, dpi=80)
    _print(rows, laws)
    return rows


def _print(rows: list[dict[str, Any]], laws: list[dict[str, Any]]) -> None:
    flagged = [row for row in rows if row["over_half_sd"]]
    print(f"{len(flagged)} of {len(rows)} medians are over half an SD apart; in sinus rhythm, all ages:")
    for row in flagged:
        if (row["rhythm"], row["age"]) == ("sinus rhythm", "all") and row["sex"] != next(iter(SEXES)):
            figures = f"{row['oracle_q50']:.0f} against {row['real_q50']:.0f}, {row['difference_sd']:+.2f} SD"
            print(f"  {row['cohort']}, {row['sex']}, {row['measure']}: {figures}; {row['why']}")
    for row in laws:
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
