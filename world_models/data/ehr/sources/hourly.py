"""Hourly tables, a row an hour and a column a variable, as raw inquiries: a row a value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.canonical_events import shortest_decimals
from world_models.data.ehr.tables import EhrDataError

__all__ = ["Variable", "hourly_inquiries", "refuse_backwards"]

# variable -> (our item, "" for none; the unit it is in)
Variable = tuple[str, str]


def hourly_inquiries(rows: pd.DataFrame, variables: Mapping[str, Variable], prefix: str) -> pd.DataFrame:
    """Raw inquiries (see `canonical_events`) of the values there are.

    Args:
        rows: subject_id, stay_id, collected (datetime64[us]) and a column float64 each of `variables`.
        prefix: of the code of the source, "<prefix>//<variable>".
    """
    names = list(variables)
    values = rows[names].to_numpy(np.float64)
    row, column = np.nonzero(~np.isnan(values))
    itemids = [inquiry_items.by_name(item).itemids[0] if item else -1 for item, _ in variables.values()]
    units = np.array([unit for _, unit in variables.values()], object)
    codes = np.array([f"{prefix}//{name}" for name in names], object)
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(np.int64)[row],
            "stay_id": rows["stay_id"].to_numpy(np.int64)[row],
            "itemid": np.array(itemids, np.int64)[column],
            "unit": units[column],
            "value": shortest_decimals(values[row, column]),
            "text": "",
            "collected": rows["collected"].to_numpy("datetime64[us]")[row],
            "resulted": np.full(len(row), np.datetime64("NaT", "us")),
            "source": codes[column],
        }
    )


def refuse_backwards(stay_ids: pd.Series, hours: pd.Series, what: str) -> None:
    """Raises EhrDataError where a stay's hours do not grow from row to row; `what` names table and column."""
    step = hours.groupby(stay_ids.to_numpy()).diff()
    bad = np.flatnonzero((step <= 0).to_numpy())
    if len(bad):
        stay, hour = stay_ids.iloc[bad[0]], hours.iloc[bad[0]]
        raise EhrDataError(
            f"{what}: stay {stay} comes to hour {hour:g} after hour {hour - step.iloc[bad[0]]:g} ({len(bad)} such "
            "rows): time runs backwards or stands still; write one row an hour, sorted by stay and hour"
        )
