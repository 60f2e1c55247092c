"""Two populations of ECGs side by side, stratum by stratum: quantiles, and medians apart in SDs of the real one.

A stratum is a rhythm, a sex and a band of age. The oracles' charts are of sinus rhythm, so a generated patient counts
as sinus bradycardia, rhythm or tachycardia by his rate, cut where those names are; beside real atrial fibrillation
stands everyone who is admitted, in the sinus rhythm he has between the episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.intervals import percentile_interval, resamples

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AGES",
    "FEWEST",
    "FIBRILLATION",
    "HALF_SD",
    "MEASURES",
    "RATES",
    "SEXES",
    "Generated",
    "Stratum",
    "compared",
    "strata",
]

MEASURES = ("heart_rate_bpm", "qrs_ms", "qt_ms", "qtcf_ms")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# rhythm -> lowest and highest whole rate of generated patients that stand beside it
RATES = {
    "sinus bradycardia": (0, 59),
    "sinus rhythm": (60, 100),
    "sinus tachycardia": (101, 400),
    "atrial fibrillation": (0, 400),
}
FIBRILLATION = "atrial fibrillation"
SEXES = {"both": (0.0, 1.0), "women": (1.0,), "men": (0.0,)}
AGES = {"all": (18, 120), "18-39": (18, 40), "40-59": (40, 60), "60-74": (60, 75), "75 and over": (75, 120)}
FEWEST = 30  # ECGs on either side; smaller strata are left out
HALF_SD = 0.5  # of the real distribution: medians farther apart are flagged and explained
NUMBER = 1000  # bootstrap resamples


@dataclass(frozen=True, slots=True)
class Stratum:
    """A rhythm of `RATES`, a sex of `SEXES`, a band of `AGES`."""

    rhythm: str
    sex: str
    age: str

    def people(self, frame: pd.DataFrame) -> pd.Series:
        """bool [N]: who is of this sex and age."""
        low, high = AGES[self.age]
        return frame["sex_female"].isin(SEXES[self.sex]) & (frame["age_years"] >= low) & (frame["age_years"] < high)

    def real(self, frame: pd.DataFrame) -> pd.Series:
        """bool [N]: the real ECGs of this stratum."""
        return self.people(frame) & (frame["rhythm"] == self.rhythm)

    def generated(self, frame: pd.DataFrame) -> pd.Series:
        """bool [N]: the generated patients beside them."""
        rates = frame["heart_rate_bpm"].round().between(*RATES[self.rhythm])
        return self.people(frame) & rates & (frame["fibrillates"] == (self.rhythm == FIBRILLATION))


@dataclass(frozen=True)
class Generated:
    """Patients of one cohort, one row each, and how a reader's mark of their drawn ECGs differs from their chart."""

    name: str
    frame: pd.DataFrame  # age_years, sex_female, fibrillates and MEASURES
    reader_minus_chart: Mapping[str, float] = field(default_factory=dict)  # measure -> median difference
    conditions: bool = True  # False: nobody has any, so real fibrillation and labelled beats are not beside them

    def admissible(self, real: pd.DataFrame, rhythm: str) -> pd.Series:
        """bool [N]: real ECGs whose age, QRS and QTcF (and in sinus rhythm the rate) the cohort has at all; of a cohort
        without conditions, those of its ages that physicians gave no label besides the rhythm."""
        names = ("age_years", "qrs_ms", "qtcf_ms") + (() if rhythm == FIBRILLATION else ("heart_rate_bpm",))
        inside = real["rhythm"] == rhythm
        if not self.conditions:
            names, inside = ("age_years",), inside & (real["beat_labels"] == "")
        for name in names:
            inside &= real[name].between(self.frame[name].min(), self.frame[name].max())
        return inside


def strata() -> Iterator[Stratum]:
    """Each rhythm: everyone, then each sex at all ages and in each band (the bands mix the sexes differently)."""
    for rhythm in RATES:
        yield Stratum(rhythm, "both", "all")
        for sex in ("women", "men"):
            yield from (Stratum(rhythm, sex, age) for age in AGES)


@dataclass(frozen=True)
class _Side:
    """One side's values [N] of each measure, and their medians and SDs [R] over the resamples."""

    values: dict[str, Tensor]
    medians: dict[str, Tensor]
    sds: dict[str, Tensor]

    @classmethod
    def of(cls, frame: pd.DataFrame, purpose: str, number: int) -> _Side:
        chosen = resamples(len(frame), number, purpose=purpose)
        values = {m: torch.from_numpy(frame[m].to_numpy(dtype=np.float64, copy=True)) for m in MEASURES}
        drawn = {m: v[chosen] for m, v in values.items()}
        return cls(values, {m: d.median(-1).values for m, d in drawn.items()}, {m: d.std(-1) for m, d in drawn.items()})


def compared(real: pd.DataFrame, cohorts: list[Generated], number: int = NUMBER) -> Iterator[dict[str, Any]]:
    """One row a cohort, stratum and measure; strata with under FEWEST ECGs on a side are left out.

    Columns: real_q05 ... real_q95 and oracle_q05 ... oracle_q95; difference_sd: oracle's median minus the real one in
    SDs of the real distribution, with difference_sd_low and _high, both sides resampled; over_half_sd; sd_ratio: the
    oracle's SD over the real one. Beside it, the same difference with the real ECGs that the cohort admits at all
    (admissible_sd), with the oracle read as a reader marks (reader_sd), and with both (both_sd). Of QTcF,
    real_bazett: the real median as Bazett corrects.
    """
    for stratum in strata():
        rows = real[stratum.real(real)]
        if len(rows) < FEWEST:
            continue
        one = _Side.of(rows, "cohorts/real", number)
        for cohort in cohorts:
            there = cohort.frame[stratum.generated(cohort.frame)]
            if len(there) < FEWEST or (stratum.rhythm == FIBRILLATION and not cohort.conditions):
                continue
            other = _Side.of(there, "cohorts/oracle", number)
            inside = rows[cohort.admissible(rows, stratum.rhythm)]
            for measure in MEASURES:
                head = {
                    "cohort": cohort.name,
                    "rhythm": stratum.rhythm,
                    "sex": stratum.sex,
                    "age": stratum.age,
                    "measure": measure,
                    "real_ecgs": len(rows),
                    "oracle_patients": len(there),
                }
                reader = cohort.reader_minus_chart.get(measure, 0.0)
                yield head | _apart(one, other, measure) | _tested(one, other, inside, measure, reader, rows)


def _apart(one: _Side, other: _Side, measure: str) -> dict[str, Any]:
    """The quantiles of both sides and the difference of their medians."""
    real, oracle = one.values[measure], other.values[measure]
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    row = {}
    for side, values in (("real", real), ("oracle", oracle)):
        found = torch.quantile(values, levels).tolist()
        row |= {f"{side}_q{100 * q:02.0f}": value for q, value in zip(QUANTILES, found, strict=True)}
    sd = float(real.std())
    difference = (row["oracle_q50"] - row["real_q50"]) / sd
    low, high = percentile_interval((other.medians[measure] - one.medians[measure]) / one.sds[measure])
    row |= {"real_sd": sd, "sd_ratio": float(oracle.std()) / sd}
    row |= {"difference_sd": difference, "difference_sd_low": low, "difference_sd_high": high}
    return row | {"over_half_sd": int(abs(difference) > HALF_SD)}


def _tested(
    one: _Side, other: _Side, inside: pd.DataFrame, measure: str, reader: float, rows: pd.DataFrame
) -> dict[str, Any]:
    """The difference again, the cohort's selection and the reader's convention taken out of it one by one."""
    real, oracle = one.values[measure], other.values[measure]
    sd, there = float(real.std()), float(oracle.quantile(0.5))
    chosen = float(inside[measure].median()) if len(inside) >= FEWEST else float("nan")
    return {
        "admissible_ecgs": len(inside),
        "admissible_sd": (there - chosen) / sd,
        "reader_minus_chart": reader,
        "reader_sd": (there + reader - float(real.quantile(0.5))) / sd,
        "both_sd": (there + reader - chosen) / sd,
        "real_bazett": float(rows["qtcb_ms"].median()) if measure == "qtcf_ms" else "",
    }
