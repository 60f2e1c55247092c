"""Stays in hospital out of MEDS rows: admission, discharge, registration, birth, death, sex and race."""

from __future__ import annotations

import numpy as np
import pandas as pd

from world_models.data.ehr_assemble import STAY_TEXTS, place
from world_models.data.ehr_tables import EhrDataError

__all__ = ["place_or_given", "read_stays", "stay_of_discharge"]

DIED_LOCATIONS = ("DIED", "DEAD/EXPIRED", "EXPIRED")
LARGEST_SUBJECT_ID = 2**53 // 1000 - 1  # so that 1000 * subject_id + n is exact in a float64


def place_or_given(rows: pd.DataFrame, stays: pd.DataFrame) -> np.ndarray:
    """stay_id float64 of rows: their hadm_id, else the stay they lie in."""
    given = rows["hadm_id"].to_numpy(np.float64, na_value=np.nan)
    timed = stays.dropna(subset=["admitted", "discharged"])
    started = timed["registered"].where(timed["registered"] <= timed["admitted"], timed["admitted"])
    found = place(
        rows["subject_id"].to_numpy(), rows["time"].to_numpy("datetime64[us]"), timed.assign(started=started)
    )
    return np.where(np.isnan(given), found, given)


def stay_of_discharge(rows: pd.DataFrame, stays: pd.DataFrame) -> np.ndarray:
    """stay_id float64 of rows stamped at a discharge (diagnoses): the stay that ended then, else as `place_or_given`."""
    ends = stays[["subject_id", "discharged", "stay_id"]].drop_duplicates(["subject_id", "discharged"])
    keyed = rows[["subject_id", "time"]].merge(
        ends, how="left", left_on=["subject_id", "time"], right_on=["subject_id", "discharged"]
    )
    found, otherwise = keyed["stay_id"].to_numpy(np.float64), place_or_given(rows, stays)
    given = rows["hadm_id"].notna().to_numpy()
    return np.where(given | np.isnan(found), otherwise, found)


def read_stays(parts: dict[str, pd.DataFrame], none: pd.DataFrame) -> pd.DataFrame:
    """Stays as `Frames` has them, of rows by kind (`none`: no rows). A discharge is the admission's by hadm_id, else the
    patient's next.

    Raises:
        EhrDataError: no hadm_id beside subject ids over `LARGEST_SUBJECT_ID`.
    """
    admissions = parts.get("admission", none).sort_values(["subject_id", "time"], kind="stable")
    discharges = parts.get("discharge", none).sort_values("time", kind="stable")
    stays = pd.DataFrame({
        "subject_id": admissions["subject_id"].to_numpy(), "admitted": admissions["time"].to_numpy("datetime64[us]"),
        "hadm_id": admissions["hadm_id"].to_numpy(np.float64, na_value=np.nan), "race": admissions["race"].to_numpy(),
    })  # fmt: skip
    split = admissions["code"].str.split("//")
    stays["admission_type"] = _known(split.str[1])
    stays["admission_location"] = _known(split.str[2])
    ends = pd.DataFrame({
        "subject_id": discharges["subject_id"].to_numpy(), "hadm_id": discharges["hadm_id"].to_numpy(np.float64),
        "discharged": discharges["time"].to_numpy("datetime64[us]"),
        "discharge_location": _known(discharges["code"].str.split("//").str[1]),
    })  # fmt: skip
    if stays["hadm_id"].notna().all() and len(stays):
        ends = ends.drop(columns="subject_id").drop_duplicates("hadm_id")
        stays = stays.merge(ends, on="hadm_id", how="left").rename(columns={"hadm_id": "stay_id"})
    else:
        large = stays["subject_id"].abs().max() if len(stays) else 0
        if large > LARGEST_SUBJECT_ID:
            raise EhrDataError(
                f"subject_id {large} is over {LARGEST_SUBJECT_ID} and the admissions have no hadm_id to name their "
                "stays by; add the column hadm_id or renumber the subjects"
            )
        stays = pd.merge_asof(
            stays.drop(columns="hadm_id").sort_values("admitted", kind="stable"), ends.drop(columns="hadm_id"),
            left_on="admitted", right_on="discharged", by="subject_id", direction="forward",
            allow_exact_matches=False,  # at the moment of an admission it is the stay before that ends
        ).sort_values(["subject_id", "admitted"], kind="stable", ignore_index=True)  # fmt: skip
        stays["stay_id"] = stays["subject_id"] * 1000 + stays.groupby("subject_id").cumcount() + 1
    stays = stays.sort_values("admitted", kind="stable", ignore_index=True)
    stays = _registered(stays, parts.get("ed", none))
    for name, kind in (("born", "birth"), ("death", "death")):
        stays = _nearest(stays, parts.get(kind, none), name)
    expired = stays["discharge_location"].str.upper().isin(DIED_LOCATIONS)
    untold = stays["discharge_location"].fillna("").eq("")
    expired |= untold & (stays["death"] <= stays["discharged"])
    stays["died_in_hospital"] = expired.astype(float)
    stays["died"] = stays["death"].where(expired)
    admitted, born = stays["admitted"].dt, stays["born"].dt
    before = (admitted.month < born.month) | ((admitted.month == born.month) & (admitted.day < born.day))
    stays["age_years"] = (admitted.year - born.year - before).astype(float).where(stays["born"].notna())
    sex = parts.get("gender", none)
    sexes = pd.Series(sex["code"].str.split("//").str[1].str[:1].str.upper().to_numpy(), sex["subject_id"].to_numpy())
    letter = stays["subject_id"].map(sexes[~sexes.index.duplicated()])
    stays["sex_female"] = letter.map({"F": 1.0, "M": 0.0}).astype(float)
    stays["race"] = stays["race"].where(stays["race"].notna(), _races(stays, parts.get("race", none)))
    stays["truncated"] = False
    for name in STAY_TEXTS:
        stays[name] = stays[name].astype(object).fillna("")
    return stays


def _known(column: pd.Series) -> np.ndarray:
    return column.where(column.notna() & column.ne("UNK"), "").to_numpy(object)


def _nearest(stays: pd.DataFrame, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Adds the time of the patient's last such row before the admission (of death: the first after it)."""
    right = pd.DataFrame({"subject_id": rows["subject_id"].to_numpy(), name: rows["time"].to_numpy("datetime64[us]")})
    right = right.dropna().sort_values(name)
    return pd.merge_asof(
        stays, right, left_on="admitted", right_on=name, by="subject_id",
        direction="forward" if name == "death" else "backward",
    )  # fmt: skip


def _registered(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `registered`: a registration in the emergency ward belongs to the patient's next admission."""
    seen = pd.DataFrame({"subject_id": rows["subject_id"].to_numpy(), "at": rows["time"].to_numpy("datetime64[us]")})
    admissions = stays[["subject_id", "stay_id", "admitted"]].sort_values("admitted", kind="stable")
    seen = pd.merge_asof(
        seen.dropna().sort_values("at"), admissions, left_on="at", right_on="admitted", by="subject_id",
        direction="forward",
    )  # fmt: skip
    return stays.assign(registered=stays["stay_id"].map(seen.groupby("stay_id")["at"].max()).astype("datetime64[us]"))


def _races(stays: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """RACE//... written at the admission, or once without a time."""
    word = pd.Series(rows["code"].str.split("//", n=1).str[1].to_numpy(object), dtype=object)
    keyed = pd.DataFrame({
        "subject_id": rows["subject_id"].to_numpy(), "time": rows["time"].to_numpy("datetime64[us]"), "word": word,
    })  # fmt: skip
    at = stays.merge(
        keyed.dropna().drop_duplicates(["subject_id", "time"]), how="left",
        left_on=["subject_id", "admitted"], right_on=["subject_id", "time"],
    )["word"]  # fmt: skip
    once = keyed[keyed["time"].isna()].drop_duplicates("subject_id").set_index("subject_id")["word"]
    return pd.Series(np.where(at.isna(), stays["subject_id"].map(once), at), stays.index, dtype=object)
