"""Rows of a trial to predict: after the dose, with what was read before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from world_models.data.ecg.ecgrdvq import READINGS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["blind", "pre_dose_rows"]


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
