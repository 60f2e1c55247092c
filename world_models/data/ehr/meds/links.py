"""What MEDS tells apart and we need together: a result and its specimen, a start and its end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow

__all__ = ["collection_times", "link_ends"]

LONGEST_LAB = pd.Timedelta(days=30)  # from collection to result


def collection_times(results: pd.DataFrame, specimens: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """`results` (rows of LAB//RESULT, at the result time) with `collected` and `resulted`.

    Of one patient and item, the n-th result is the n-th specimen's where there are as many of both and none is early;
    else the last specimen's before it. Without any, it counts as collected at its result time, counted.
    """
    if results.empty:
        return results.assign(collected=results["time"], resulted=results["time"])
    left = results.assign(item=results["code"].str.split("//").str[2], at=np.arange(len(results)))
    left = left.sort_values("time", kind="stable")
    right = pd.DataFrame(
        {
            "subject_id": specimens["subject_id"].to_numpy(),
            "item": specimens["code"].str.split("//").str[2].to_numpy(object),
            "specimen": specimens["time"].to_numpy("datetime64[us]"),
        }
    ).sort_values("specimen", kind="stable")
    keys = ["subject_id", "item"]
    last = pd.merge_asof(
        left[["at", "time", *keys]], right, left_on="time", right_on="specimen", by=keys, tolerance=LONGEST_LAB
    )
    nth = left[["at", "time", *keys]].assign(n=left.groupby(keys).cumcount())
    nth = nth.merge(right.assign(n=right.groupby(keys).cumcount()), on=[*keys, "n"], how="left")
    sizes = left.groupby(keys).size().to_frame("results").join(right.groupby(keys).size().rename("specimens"))
    nth = nth.merge(sizes, left_on=keys, right_index=True)
    good = (nth["results"] == nth["specimens"]) & (nth["specimen"] <= nth["time"])
    good &= nth["time"] - nth["specimen"] <= LONGEST_LAB
    whole = good.groupby([nth["subject_id"], nth["item"]]).transform("all")
    nth = nth.set_index("at")
    last = last.set_index("at")["specimen"]
    collected = nth["specimen"].where(whole.to_numpy(), last.reindex(nth.index)).reindex(range(len(results)))
    alone = collected.isna()
    flow.repair("meds", "result without a specimen: collected at its result time", int(alone.sum()))
    resulted = results["time"].to_numpy("datetime64[us]")
    return results.assign(collected=np.where(alone, resulted, collected.to_numpy("datetime64[us]")), resulted=resulted)


def link_ends(
    starts: pd.DataFrame, ends: pd.DataFrame, stay_ids: np.ndarray, part: int, flow: Flow, what: str
) -> pd.DataFrame:
    """`starts` with `end` and `amount` (the end's numeric_value) where it is certain which end is whose.

    `stay_ids` [starts + ends]; `part`: which part of the code names the thing. Certain is: of that patient, stay, name
    and order_id, from the start until the end, nothing else ran. The others keep no end and no amount, counted.
    """
    both = pd.DataFrame(
        {
            "subject_id": np.concatenate([starts["subject_id"], ends["subject_id"]]),
            "stay_id": stay_ids,
            "name": np.concatenate([frame["code"].str.split("//").str[part].str.strip() for frame in (starts, ends)]),
            "order_id": np.concatenate([frame["order_id"].fillna(NO_ID).astype(np.int64) for frame in (starts, ends)]),
            "time": np.concatenate([frame["time"].to_numpy("datetime64[us]") for frame in (starts, ends)]),
            "step": np.repeat([1, -1], [len(starts), len(ends)]),
            "at": np.concatenate([np.arange(len(starts)), np.arange(len(ends))]),
        }
    )
    keys = ["subject_id", "stay_id", "name", "order_id"]
    # at one moment what ends, ends before the next begins
    both = both.sort_values([*keys, "time", "step"], kind="stable", ignore_index=True)
    group = both.groupby(keys, sort=False).ngroup().to_numpy()
    running = both.groupby(group)["step"].cumsum()
    # an end without a start (it began before the stay, or the export left a double out) must not hide the next start
    running = (running - running.clip(upper=0).groupby(group).cummin()).to_numpy()
    if len(both):
        opens = np.concatenate(([True], (group[1:] != group[:-1]) | (running[:-1] == 0)))
        cluster = np.cumsum(opens)
        pair = (np.bincount(cluster) == 2) & (np.bincount(cluster, weights=both["step"]) == 0)
        pair = pair[cluster]
    else:
        pair = np.zeros(0, bool)
    flow.repair(
        "meds",
        f"{what}: end not linked to its start (several at once): left out",
        int((~pair & (both["step"] == -1)).sum()),
    )
    begun, ended = both[pair & (both["step"] == 1)], both[pair & (both["step"] == -1)]
    end = np.full(len(starts), np.datetime64("NaT", "us"))
    amount = np.full(len(starts), np.nan)
    unit = np.full(len(starts), "", object)
    index = ended["at"].to_numpy()
    end[begun["at"].to_numpy()] = ends["time"].to_numpy("datetime64[us]")[index]
    amount[begun["at"].to_numpy()] = ends["numeric_value"].to_numpy(np.float64)[index]
    unit[begun["at"].to_numpy()] = ends["unit"].astype(object).where(ends["unit"].notna(), "").to_numpy()[index]
    return starts.assign(end=end, amount=amount, amount_unit=unit)
