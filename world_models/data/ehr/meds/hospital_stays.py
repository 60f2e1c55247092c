"""Stays in hospital out of MEDS rows: admission, discharge, registration, birth, death, sex and race."""

from __future__ import annotations

import numpy as np
import pandas as pd

from world_models.data.ehr.assemble import STAY_TEXTS, before_death, calendar_years, place
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.tables import EhrDataError

__all__ = ["given_stay", "place_or_given", "read_stays", "stay_of_discharge"]

DIED_LOCATIONS = ("DIED", "DEAD/EXPIRED", "EXPIRED")
STAYS_PER_SUBJECT = 1000  # stay n of a subject without hadm_id has the id 1000 * subject_id + n
LARGEST_SUBJECT_ID = 2**63 // STAYS_PER_SUBJECT - 1  # so that this is an int64


def place_or_given(rows: pd.DataFrame, stays: pd.DataFrame) -> np.ndarray:
    """stay_id int64 of rows: that of their hadm_id, else of the stay they lie in, else NO_ID."""
    timed = stays.dropna(subset=["admitted", "discharged"])
    started = timed["registered"].where(timed["registered"] <= timed["admitted"], timed["admitted"])
    found = place(rows["subject_id"].to_numpy(), rows["time"].to_numpy("datetime64[us]"), timed.assign(started=started))
    given = given_stay(rows, stays)
    return np.where(given == NO_ID, found, given)


def given_stay(rows: pd.DataFrame, stays: pd.DataFrame) -> np.ndarray:
    """stay_id int64 of rows by their hadm_id; NO_ID where they have none, or one of no admission."""
    named = stays[stays["hadm_id"].ne(NO_ID)].drop_duplicates("hadm_id").set_index("hadm_id")["stay_id"]
    at = named.index.get_indexer(rows["hadm_id"].to_numpy())
    return np.where(at >= 0, named.to_numpy(np.int64)[at] if len(named) else NO_ID, NO_ID)


def stay_of_discharge(rows: pd.DataFrame, stays: pd.DataFrame) -> np.ndarray:
    """stay_id int64 of rows stamped at a discharge (diagnoses): the stay that ended then, else as `place_or_given`."""
    ends = stays[["subject_id", "discharged", "stay_id"]].drop_duplicates(["subject_id", "discharged"])
    keyed = pd.MultiIndex.from_frame(ends[["subject_id", "discharged"]])
    at = (
        keyed.get_indexer(pd.MultiIndex.from_frame(rows[["subject_id", "time"]]))
        if len(ends)
        else np.full(len(rows), -1)
    )
    told = (given_stay(rows, stays) == NO_ID) & (at >= 0)
    return np.where(told, ends["stay_id"].to_numpy(np.int64)[at] if len(ends) else NO_ID, place_or_given(rows, stays))


def _ends_of(stays: pd.DataFrame, ends: pd.DataFrame) -> np.ndarray:
    """For each admission the row of its discharge, -1 where there is none.

    The same hadm_id joins them. Where one side has none, by time: a discharge is that of the patient's admission begun
    last and still open, so that a stay within another does not end it; at the moment of an admission it is the stay
    before that ends.
    """
    found = np.full(len(stays), -1, np.int64)
    by_id: dict[int, int] = {}
    for i, hadm_id in enumerate(ends["hadm_id"].tolist()):
        if hadm_id != NO_ID:
            by_id.setdefault(hadm_id, i)
    for i, hadm_id in enumerate(stays["hadm_id"].tolist()):
        if hadm_id in by_id:
            found[i] = by_id[hadm_id]
    taken = set(found.tolist())
    events = [
        (subject, time, 1, i, hadm_id)
        for i, (subject, time, hadm_id) in enumerate(
            zip(stays["subject_id"].tolist(), stays["admitted"].tolist(), stays["hadm_id"].tolist(), strict=True)
        )
        if found[i] < 0 and time is not pd.NaT
    ]
    events += [
        (subject, time, 0, i, hadm_id)
        for i, (subject, time, hadm_id) in enumerate(
            zip(ends["subject_id"].tolist(), ends["discharged"].tolist(), ends["hadm_id"].tolist(), strict=True)
        )
        if i not in taken and time is not pd.NaT
    ]
    still_open: dict[int, list[tuple[int, int]]] = {}  # subject -> admission, hadm_id
    for subject, _, begins, i, hadm_id in sorted(events):
        mine = still_open.setdefault(subject, [])
        if begins:
            mine.append((i, hadm_id))
            continue
        # two ids that differ are two stays
        fits = [k for k, (_, other) in enumerate(mine) if NO_ID in (hadm_id, other)]
        if fits:
            found[mine.pop(fits[-1])[0]] = i
    return found


def read_stays(parts: dict[str, pd.DataFrame], none: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Stays as `Frames` has them, and their hadm_id, of rows by kind (`none`: no rows).

    They are named by hadm_id where all admissions have one, else 1000 * subject_id + 1, 2, ... in order of time.

    Raises:
        EhrDataError: no hadm_id beside subject ids over `LARGEST_SUBJECT_ID`.
    """
    stays = _admissions(parts.get("admission", none))
    stays = _discharged(stays, parts.get("discharge", none))
    stays = _numbered(stays).sort_values("admitted", kind="stable", ignore_index=True)
    stays = _registered(stays, parts.get("ed", none))
    for name, kind in (("born", "birth"), ("death", "death")):
        stays = _nearest(stays, parts.get(kind, none), name)
    expired = _expired(stays)
    stays["died_in_hospital"] = expired.astype(float)
    stays["died"] = stays["death"].where(expired)
    stays["age_years"] = calendar_years(stays["born"], stays["admitted"])
    stays["sex_female"] = _female(stays, parts.get("gender", none))
    stays["race"] = stays["race"].where(stays["race"].notna(), _races(stays, parts.get("race", none)))
    stays["truncated"] = False
    for name in STAY_TEXTS:
        stays[name] = stays[name].astype(object).fillna("")
    deaths = parts.get("death", none)
    return before_death(stays, deaths["subject_id"], deaths["time"].astype("datetime64[us]"), flow)


def _admissions(rows: pd.DataFrame) -> pd.DataFrame:
    """Stays of the rows of admissions, by subject and time, with what their codes tell."""
    rows = rows.sort_values(["subject_id", "time"], kind="stable")
    split = rows["code"].str.split("//")
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "admitted": rows["time"].to_numpy("datetime64[us]"),
            "hadm_id": rows["hadm_id"].to_numpy(np.int64),
            "race": rows["race"].to_numpy(),
            "admission_type": _known(split.str[1]),
            "admission_location": _known(split.str[2]),
        }
    )


def _discharged(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `discharged` and `discharge_location` of the rows of discharges; NaT and "" where there is none."""
    rows = rows.sort_values("time", kind="stable")
    ends = pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "hadm_id": rows["hadm_id"].to_numpy(np.int64),
            "discharged": rows["time"].to_numpy("datetime64[us]"),
            "discharge_location": _known(rows["code"].str.split("//").str[1]),
        }
    )
    at = _ends_of(stays, ends)
    there = at >= 0
    time, place = np.full(len(stays), np.datetime64("NaT", "us")), np.full(len(stays), "", object)
    time[there] = ends["discharged"].to_numpy("datetime64[us]")[at[there]]
    place[there] = ends["discharge_location"].to_numpy(object)[at[there]]
    return stays.assign(discharged=time, discharge_location=place)


def _numbered(stays: pd.DataFrame) -> pd.DataFrame:
    """Adds `stay_id`. Raises EhrDataError: see `read_stays`."""
    if stays["hadm_id"].ne(NO_ID).all():
        return stays.assign(stay_id=stays["hadm_id"])
    large = stays["subject_id"].abs().max()
    if large > LARGEST_SUBJECT_ID:
        raise EhrDataError(
            f"subject_id {large} is over {LARGEST_SUBJECT_ID} and not all admissions have a hadm_id to name their "
            "stays by; add the column hadm_id or renumber the subjects"
        )
    nth = stays.groupby("subject_id").cumcount() + 1
    return stays.assign(stay_id=stays["subject_id"] * STAYS_PER_SUBJECT + nth)


def _expired(stays: pd.DataFrame) -> pd.Series:
    """bool [N]: the patient died in this stay, by where they were discharged to or by when they died."""
    said = stays["discharge_location"].astype(object).fillna("").str.upper().isin(DIED_LOCATIONS)
    untold = stays["discharge_location"].eq("")
    # a death at 00:00 is a date: of the day of a discharge to elsewhere, it came later
    dated = stays["death"] == stays["discharged"].dt.normalize()
    before_end = (stays["death"] <= stays["discharged"]) & (untold | ~dated)
    return said | before_end | (stays["discharged"].isna() & stays["death"].notna())


def _female(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """1, 0 or NaN of each stay's patient, by the first row that tells their sex."""
    letters = rows["code"].str.split("//").str[1].str[:1].str.upper()
    sexes = pd.Series(letters.to_numpy(), rows["subject_id"].to_numpy())
    letter = stays["subject_id"].map(sexes[~sexes.index.duplicated()])
    return letter.map({"F": 1.0, "M": 0.0}).astype(float)


def _known(column: pd.Series) -> np.ndarray:
    return column.where(column.notna() & column.ne("UNK"), "").to_numpy(object)


def _nearest(stays: pd.DataFrame, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Adds the time of the patient's last such row before the admission (of death: the first after it)."""
    right = pd.DataFrame({"subject_id": rows["subject_id"].to_numpy(), name: rows["time"].to_numpy("datetime64[us]")})
    right = right.dropna().sort_values(name)
    return pd.merge_asof(
        stays,
        right,
        left_on="admitted",
        right_on=name,
        by="subject_id",
        direction="forward" if name == "death" else "backward",
    )


def _registered(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `registered`: a registration in the emergency ward belongs to the patient's next admission."""
    seen = pd.DataFrame({"subject_id": rows["subject_id"].to_numpy(), "at": rows["time"].to_numpy("datetime64[us]")})
    admissions = stays[["subject_id", "stay_id", "admitted"]].sort_values("admitted", kind="stable")
    seen = pd.merge_asof(
        seen.dropna().sort_values("at"),
        admissions,
        left_on="at",
        right_on="admitted",
        by="subject_id",
        direction="forward",
    )
    return stays.assign(registered=stays["stay_id"].map(seen.groupby("stay_id")["at"].max()).astype("datetime64[us]"))


def _races(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """RACE//... written at the admission, or once without a time."""
    word = pd.Series(rows["code"].str.split("//", n=1).str[1].to_numpy(object), dtype=object)
    keyed = pd.DataFrame(
        {
            "subject_id": rows["subject_id"].to_numpy(),
            "time": rows["time"].to_numpy("datetime64[us]"),
            "word": word,
        }
    )
    at = stays.merge(
        keyed.dropna().drop_duplicates(["subject_id", "time"]),
        how="left",
        left_on=["subject_id", "admitted"],
        right_on=["subject_id", "time"],
    )["word"]
    once = keyed[keyed["time"].isna()].drop_duplicates("subject_id").set_index("subject_id")["word"]
    return pd.Series(np.where(at.isna(), stays["subject_id"].map(once), at), stays.index, dtype=object)
