"""What the antiarrhythmic worlds measure and what can be ordered in them: one table for oracle and learned world.

Bounds are those of the chart, wide enough for any patient; `world_models.oracles.ecg_drug.cohorts.FACTORS` holds the
narrower ones a caller may fix at admission.
"""

from __future__ import annotations

from collections.abc import Sequence

from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantity import Quantity

__all__ = ["DOSE_LIMIT_MG", "DRUGS", "MAX_HOURS_SINCE_DOSE", "MEASURES", "ORDERS", "measures", "orders"]

DRUGS: tuple[str, ...] = tuple(d.name for d in ANTIARRHYTHMICS)
DOSE_LIMIT_MG: dict[str, float] = {d.name: d.order_limit_mg for d in ANTIARRHYTHMICS}

OTHER_DOSE_LIMIT = 4.0  # CiPA's own range is up to four times the free Cmax

MAX_HOURS_SINCE_DOSE = 96.0  # "never given" and "long ago" read the same: eight half-lives of the slowest drug are less

MAX_TOTAL_DOSE_MG = 1e6


def orders(drugs: Sequence[str] = DRUGS) -> tuple[Quantity, ...]:
    """One order a drug, in the order of `drugs`: mg for the antiarrhythmics of the table; `NAME_doses` for others, in
    units of the dose that peaks at the therapeutic free Cmax (the CiPA table knows no mg)."""
    return tuple(
        Quantity(f"{d}_mg", "mg", 0.0, DOSE_LIMIT_MG[d], (), f"oral dose of {d} given now")
        if d in DOSE_LIMIT_MG
        else Quantity(f"{d}_doses", "1", 0.0, OTHER_DOSE_LIMIT, (), f"{d}, in doses that peak at the free Cmax")
        for d in drugs
    )


def measures(drugs: Sequence[str] = DRUGS) -> tuple[Quantity, ...]:
    """The chart for these drugs; `ecg_mv` is made on request only."""
    per_drug = (len(drugs),)
    names = ", ".join(drugs)
    return (
        Quantity("age_years", "a", 18.0, 100.0, (), "age at admission"),
        Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
        Quantity("weight_kg", "kg", 30.0, 200.0, (), "body weight at admission"),
        Quantity("hours", "h", 0.0, 1000.0, (), "hours since admission"),
        Quantity("clock_hour", "h", 0.0, 24.0, (), "hour of the day"),
        Quantity("heart_rate_bpm", "bpm", 20.0, 250.0, (), "sinus rate of the ten-second ECG"),
        Quantity("pr_ms", "ms", 60.0, 600.0, (), "P onset to QRS onset"),
        Quantity("qrs_ms", "ms", 40.0, 250.0, (), "QRS onset to J point"),
        Quantity("qt_ms", "ms", 150.0, 1000.0, (), "QRS onset to T end; qrs + jt_peak + tpeak_tend"),
        Quantity("qtcf_ms", "ms", 200.0, 1000.0, (), "QT / RR^(1/3), RR in s (Fridericia)"),
        Quantity("jt_peak_ms", "ms", 50.0, 800.0, (), "J point to T peak"),
        Quantity("jt_peak_c_ms", "ms", 50.0, 800.0, (), "J-Tpeak / RR^0.58, RR in s (Johannesen 2014)"),
        Quantity("tpeak_tend_ms", "ms", 20.0, 400.0, (), "T peak to T end"),
        Quantity("t_amplitude_uv", "uV", 20.0, 3000.0, (), "T peak of the vector magnitude"),
        Quantity("t_asymmetry", "1", 0.0, 3.0, (), "how far the T wave's legs differ in slope; 0: mirror images"),
        Quantity("t_flatness", "1", 0.02, 0.98, (), "how widely the T wave's area is spread; higher is flatter"),
        Quantity("erd_30_ms", "ms", 4.0, 250.0, (), "early repolarisation: the T wave's last 30 % up to its peak"),
        Quantity("lrd_30_ms", "ms", 4.0, 200.0, (), "late repolarisation: the first 30 % down from its peak"),
        Quantity("baseline_qtcf_ms", "ms", 200.0, 1000.0, (), "QTcF of the admission ECG, before any dose"),
        Quantity("arrhythmia_burden", "fraction", 0.0, 1.0, (), "share of the last step spent in the arrhythmia"),
        Quantity("torsades", "bool", 0.0, 1.0, (), "1 once torsades de pointes has occurred; stays 1"),
        Quantity("total_dose_mg", "mg", 0.0, MAX_TOTAL_DOSE_MG, per_drug, f"given since admission: {names}"),
        Quantity(
            "hours_since_dose", "h", 0.0, MAX_HOURS_SINCE_DOSE, per_drug, f"since the last dose (96 if none): {names}"
        ),
        Quantity("ecg_mv", "mV", -20.0, 20.0, (12, 5000), "I II III aVR aVL aVF V1-V6, 500 Hz, 10 s", on_request=True),
    )


MEASURES = measures()
ORDERS = orders()
