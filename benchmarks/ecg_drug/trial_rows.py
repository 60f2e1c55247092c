"""Rows of a trial to predict (after the dose, with what was read before it), what is predicted of them, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from world_models.data.ecg.ecgrdvq import READINGS, T_WAVE
from world_models.oracles.ecg_drug.scales import SCALES, scaled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TARGETS", "T_TARGETS", "TrialPrediction", "blind", "on_scale", "own_unit", "pre_dose_rows"]

TARGETS = {"QTcF": "qtcf_ms", "JTpc": "jt_peak_c_ms", "TpTe": "tpeak_tend_ms", "PR": "pr_ms"}
T_TARGETS = {column: name for name, column in T_WAVE.items()}  # the T wave's by the names of the trial's own table
TARGETS |= T_TARGETS


class TrialPrediction(NamedTuple):
    """Point and 90 % band of every target."""

    point: dict[str, np.ndarray]  # target -> [R] in its unit
    low: dict[str, np.ndarray]  # 5 % quantile
    high: dict[str, np.ndarray]  # 95 % quantile


def own_unit(column: str, level: np.ndarray) -> np.ndarray:
    """A target's column [R] from its working scale to its own unit."""
    return scaled(column, level, inverse=True) if column in SCALES else level


def on_scale(column: str, value: np.ndarray) -> np.ndarray:
    """A target's column [R] from its own unit to its working scale."""
    return scaled(column, value) if column in SCALES else value


def pre_dose_rows(frame: pd.DataFrame, keep_unread: bool = False) -> pd.DataFrame:
    """The post-dose rows, each with its period's last pre-dose means as `pre_*`.

    Periods without a pre-dose QT are left out, or with `keep_unread` kept with NaN.
    """
    before = frame[frame["hour"] < 0].sort_values("hour").groupby(["randid", "drug", "period"], dropna=False).last()
    before = before[[*READINGS, "hour"]].add_prefix("pre_").reset_index()
    rows = frame[frame["hour"] > 0].merge(before, on=["randid", "drug", "period"], how="left")
    return rows if keep_unread else rows[rows["pre_qtcf_ms"].notna()].reset_index(drop=True)


def blind(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without what was measured after the dose."""
    return rows.drop(columns=[c for c in (*READINGS, "conc_ng_per_ml", "replicates") if c in rows.columns])
