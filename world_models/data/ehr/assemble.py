"""Stays and events -> PatientEpisodes: each event to the stay it lies in, doubles removed. The steps are laid out by
`episode.build_episode`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from world_models.data.ehr.canonical_events import INQUIRY_COLUMNS, INTERVENTION_COLUMNS, empty
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.contradictions import without_contradictions
from world_models.data.ehr.episode import (
    OLDEST_YEARS,
    Diagnosis,
    InquiryEvent,
    InterventionEvent,
    PatientEpisode,
    build_episode,
)
from world_models.data.ehr.flow import Flow

__all__ = ["Frames", "assemble", "before_death", "calendar_years", "count", "place"]

STAY_TEXTS = ("race", "admission_type", "admission_location", "discharge_location")
CHARTED_ITEMS = ("LAB//22",)  # MetaVision's item ids: a lab among them is a copy of labevents
UNUSUAL_STAY, LONGEST_STAY = pd.Timedelta(days=60), pd.Timedelta(days=1000)
# in the emergency ward; a registration longer before the admission is another visit
LONGEST_WAIT = pd.Timedelta(days=2)


@dataclass
class Frames:
    """What a reader gives of one shard."""

    # subject_id, stay_id, registered, admitted, discharged, died, died_in_hospital (1, 0 or NaN), age_years,
    # sex_female (1, 0 or NaN), truncated, STAY_TEXTS, and hospital where the source has several
    stays: pd.DataFrame
    diagnoses: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["stay_id", "sequence", "version", "code"])
    )
    # as `canonical_events` leaves them
    inquiries: pd.DataFrame = field(default_factory=lambda: empty(INQUIRY_COLUMNS))
    interventions: pd.DataFrame = field(default_factory=lambda: empty(INTERVENTION_COLUMNS))


def assemble(frames: Frames, hours_per_step: float, flow: Flow) -> list[PatientEpisode]:
    """Episodes by subject and start. Every stay and event that goes no further is counted in `flow`.

    Raises:
        EpisodeError: hours_per_step is not above 0.
    """
    stays = frames.stays if "hospital" in frames.stays else frames.stays.assign(hospital="")
    stays = _clean_stays(stays, flow)
    inquiries = _placed(frames.inquiries, stays, "collected", flow, "inquiries")
    inquiries = _with_gcs(without_contradictions(inquiries, flow), flow)
    interventions = _placed(frames.interventions, stays, "start", flow, "interventions")
    keys = ["stay_id", "item", "value", "label", "collected"]
    # of two copies the laboratory's before the charted one, then the one that knows its result time
    charted = inquiries["source"].str.startswith(CHARTED_ITEMS)
    inquiries = inquiries.assign(charted=charted).sort_values(
        ["charted", "resulted", "source"], kind="stable", na_position="last"
    )
    inquiries = _without_doubles(inquiries, keys, flow, "inquiries", "same item, collection time and value again")
    same = [name for name in interventions.columns if name != "subject_id"]
    interventions = _without_doubles(interventions, same, flow, "interventions", "exact double")
    by_stay = _tuples(inquiries, InquiryEvent, ("item", "value", "label", "collected", "resulted", "unit", "source"))
    done_by_stay = _tuples(
        interventions,
        InterventionEvent,
        ("item", "kind", "start", "end", "dose", "unit", "rate", "rate_unit", "route", "source"),
    )
    diagnoses = _diagnoses(frames.diagnoses, flow)
    episodes = []
    for row in stays.itertuples(index=False):
        stay_id = int(row.stay_id)
        episodes.append(
            build_episode(
                subject_id=int(row.subject_id),
                stay_id=stay_id,
                started=row.started.to_pydatetime(),
                admitted=row.admitted.to_pydatetime(),
                discharged=row.discharged.to_pydatetime(),
                hours_per_step=hours_per_step,
                inquiries=by_stay.get(stay_id, ()),
                interventions=done_by_stay.get(stay_id, ()),
                diagnoses=diagnoses.get(stay_id, ()),
                died=None if pd.isna(row.died) else row.died.to_pydatetime(),
                died_in_hospital=None if pd.isna(row.died_in_hospital) else bool(row.died_in_hospital),
                truncated=bool(row.truncated),
                age_years=None if pd.isna(row.age_years) else float(row.age_years),
                sex_female=None if pd.isna(row.sex_female) else bool(row.sex_female),
                **{name: "" if pd.isna(getattr(row, name)) else str(getattr(row, name)) for name in STAY_TEXTS},
                hospital=row.hospital,
            )
        )
    flow.stage("stays", Counter(), **count(episodes))
    return episodes


def count(episodes: list[PatientEpisode]) -> dict[str, int]:
    """patients, episodes, inquiries, interventions."""
    return {
        "patients": len({episode.subject_id for episode in episodes}),
        "episodes": len(episodes),
        "inquiries": sum(len(step.inquiries) for episode in episodes for step in episode.steps),
        "interventions": sum(len(step.interventions) for episode in episodes for step in episode.steps),
    }


def place(subject_ids: np.ndarray, times: np.ndarray, stays: pd.DataFrame) -> np.ndarray:
    """stay_id int64 [N] of the patient's stay that a time lies in; of two that overlap the later; NO_ID: none."""
    found = np.full(len(subject_ids), NO_ID, np.int64)
    if not len(subject_ids) or stays.empty:
        return found
    left = pd.DataFrame({"subject_id": subject_ids, "time": times, "at": np.arange(len(subject_ids))})
    left = left[left["time"].notna()].sort_values("time", kind="stable")
    right = stays[["subject_id", "stay_id", "started", "discharged"]].sort_values("started", kind="stable")
    last = pd.merge_asof(left, right, left_on="time", right_on="started", by="subject_id")
    inside = (last["time"] <= last["discharged"]).to_numpy()
    found[last["at"].to_numpy()[inside]] = last["stay_id"].to_numpy()[inside]
    # the stay begun last is over; an earlier one can only be open where a patient's stays overlap
    before = right.groupby("subject_id")["discharged"].shift()
    overlapping = right.loc[right["started"] < before, "subject_id"].unique()
    rest = left[~inside & left["subject_id"].isin(overlapping).to_numpy()]
    if len(rest):
        pairs = rest.merge(right, on="subject_id")
        pairs = pairs[(pairs["started"] <= pairs["time"]) & (pairs["time"] <= pairs["discharged"])]
        pairs = pairs.sort_values("started", kind="stable").drop_duplicates("at", keep="last")
        found[pairs["at"].to_numpy()] = pairs["stay_id"].to_numpy()
    return found


def _clean_stays(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Stays whose times can be, with `started`, sorted."""
    ledger = flow.table("stays")
    ledger.read += len(stays)
    stays = _until_death(_started(_possible(_ended(stays, flow), flow), flow), flow)
    odd = stays["age_years"].notna() & ~stays["age_years"].between(0, OLDEST_YEARS)
    flow.repair("stays", f"age outside 0..{OLDEST_YEARS:g} blanked", int(odd.sum()))
    stays.loc[odd, "age_years"] = np.nan
    ledger.kept += len(stays)
    return stays.sort_values(["subject_id", "started", "stay_id"], ignore_index=True)


def _ended(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Stays with the time of their end, where a death tells it; those without begin, end or id are left out."""
    open_ = stays["discharged"].isna() & stays["died"].notna()
    flow.repair("stays", "no discharge time: ends at the death", int(open_.sum()))
    stays = stays.assign(discharged=stays["discharged"].mask(open_, stays["died"]))
    begun, ended, named = stays["admitted"].notna(), stays["discharged"].notna(), stays["stay_id"].ne(NO_ID)
    flow.drop("stays", "no admission time", int((~begun).sum()))
    flow.drop("stays", "no discharge time, nor one of death", int((begun & ~ended).sum()))
    flow.drop("stays", "no stay id", int((begun & ended & ~named).sum()))
    stays = stays[begun & ended & named]
    # a discharge at 00:00 of the day of death is a date without a time
    dated = (stays["discharged"] == stays["discharged"].dt.normalize()) & (stays["died"] > stays["discharged"])
    dated &= (stays["died"].dt.normalize() == stays["discharged"]) & stays["died_in_hospital"].eq(1)
    flow.repair("stays", "discharge at 00:00 of the day of death: taken as the death", int(dated.sum()))
    return stays.assign(discharged=stays["discharged"].mask(dated, stays["died"]))


def _possible(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Stays that last neither less than nothing nor for years, each id once."""
    lasts = stays["discharged"] - stays["admitted"]
    backwards, endless = lasts < pd.Timedelta(0), lasts > LONGEST_STAY
    flow.drop("stays", "discharge before admission: time runs backwards", int(backwards.sum()))
    flow.drop("stays", f"longer than {LONGEST_STAY.days} days: check the dates", int(endless.sum()))
    unusual = (lasts > UNUSUAL_STAY) & ~endless
    flow.repair("stays", f"longer than {UNUSUAL_STAY.days} days: kept, check the dates", int(unusual.sum()))
    stays = stays[~backwards & ~endless]
    doubled = stays["stay_id"].duplicated()
    flow.drop("stays", "stay id again", int(doubled.sum()))
    return stays[~doubled].copy()


def _started(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Adds `started`: the registration in the emergency ward where it can be this stay's, else the admission."""
    usable = stays["registered"].notna() & (stays["registered"] <= stays["admitted"])
    usable &= stays["admitted"] - stays["registered"] <= LONGEST_WAIT
    refused = stays["registered"].notna() & ~usable
    flow.repair("stays", "registration after or long before the admission: starts there", int(refused.sum()))
    stays["started"] = stays["registered"].where(usable, stays["admitted"])
    early = stays["died"].notna() & (stays["died"] < stays["started"])
    flow.repair("stays", "death before the start: time of death blanked", int(early.sum()))
    stays.loc[early, "died"] = pd.NaT
    return stays


def calendar_years(since: pd.Series, until: pd.Series) -> pd.Series:
    """Whole years [N] float64 between two times, NaN without the first.

    By the calendar, as the 300 years that MIMIC puts between some do not fit into a difference of times.
    """
    then, now = since.dt, until.dt
    before_birthday = (now.month < then.month) | ((now.month == then.month) & (now.day < then.day))
    return (now.year - then.year - before_birthday).astype(np.float64).where(since.notna())


def before_death(stays: pd.DataFrame, subject_ids: pd.Series, deaths: pd.Series, flow: Flow) -> pd.DataFrame:
    """The stays that do not begin after their patient's death, told by time (datetime64[us]); one at 00:00 is a date,
    and may be any hour of that day."""
    last = deaths.mask(deaths == deaths.dt.normalize(), deaths + pd.Timedelta(days=1))
    late = stays["admitted"] > stays["subject_id"].map(last.groupby(subject_ids.to_numpy()).min())
    if late.any():
        flow.refuse("stays", "begins after the patient's death", int(late.sum()))
    return stays[~late].reset_index(drop=True)


def _until_death(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Stays that end when their patient dies; none that begins later."""
    midnight = stays["died"] == stays["died"].dt.normalize()
    dated = midnight & (stays["died"] == stays["discharged"].dt.normalize()) & (stays["died"] < stays["discharged"])
    flow.repair("stays", "death at 00:00 of the day of discharge: taken as the discharge", int(dated.sum()))
    stays["died"] = stays["died"].mask(dated, stays["discharged"])
    dead = stays["died"] < stays["discharged"]
    flow.repair("stays", "discharge after the death: ends at the death", int(dead.sum()))
    for name in ("admitted", "discharged"):  # one may die in the emergency ward, before the admission
        stays[name] = stays[name].mask(dead & (stays[name] > stays["died"]), stays["died"])
    stays["died_in_hospital"] = stays["died_in_hospital"].mask(dead, 1.0)
    since = stays["started"] > stays.groupby("subject_id")["died"].transform("min")
    flow.drop("stays", "begins after the patient's death", int(since.sum()))
    return stays[~since].copy()


def _placed(events: pd.DataFrame, stays: pd.DataFrame, time: str, flow: Flow, table: str) -> pd.DataFrame:
    """Events of some stay: of the one the source names if they lie in it, else of the one they lie in."""
    flow.table(table).read += len(events)
    times = events[time].to_numpy("datetime64[us]")
    at = pd.Index(stays["stay_id"]).get_indexer(events["stay_id"].to_numpy())
    inside = at >= 0
    named = stays.iloc[at[inside]]
    inside[inside] = (
        (named["subject_id"].to_numpy() == events["subject_id"].to_numpy()[inside])
        & (named["started"].to_numpy("datetime64[us]") <= times[inside])
        & (times[inside] <= named["discharged"].to_numpy("datetime64[us]"))
    )
    other = ~inside
    found = np.where(inside, events["stay_id"].to_numpy(np.int64), NO_ID)
    if other.any():
        found[other] = place(events["subject_id"].to_numpy()[other], times[other], stays)
    lost = found == NO_ID
    died = stays.groupby("subject_id")["died"].min().reindex(events["subject_id"].to_numpy()).to_numpy("datetime64[us]")
    dead = lost & (times > died)
    flow.drop(table, "after the patient's death", int(dead.sum()))
    flow.drop(table, "outside every stay of the patient", int((lost & ~dead).sum()))
    events = events.assign(stay_id=found)[~lost].reset_index(drop=True)
    flow.table(table).kept += len(events)
    return events


def _without_doubles(frame: pd.DataFrame, keys: list[str], flow: Flow, table: str, reason: str) -> pd.DataFrame:
    doubled = frame.duplicated(keys)
    flow.drop(table, reason, int(doubled.sum()))
    flow.table(table).kept -= int(doubled.sum())
    return frame[~doubled]


def _with_gcs(inquiries: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Adds the Glasgow sum wherever its three parts were charted together."""
    parts = inquiries[inquiries["item"].isin(["gcs_eye", "gcs_verbal", "gcs_motor"]) & inquiries["value"].notna()]
    if parts.empty:
        return inquiries
    parts = parts.drop_duplicates(["stay_id", "collected", "item"])
    sums = parts.groupby(["subject_id", "stay_id", "collected"], as_index=False).agg(
        value=("value", "sum"), parts=("value", "size"), resulted=("resulted", "max")
    )
    sums = sums[sums["parts"] == 3].drop(columns="parts")
    flow.table("inquiries").read += len(sums)
    flow.table("inquiries").kept += len(sums)
    flow.repair("inquiries", "Glasgow sum added from its parts", len(sums))
    sums = sums.assign(item="gcs", label=None, unit="1", source="sum of parts")
    return pd.concat([inquiries, sums[list(inquiries.columns)]], ignore_index=True)


def _tuples(frame: pd.DataFrame, kind: type, fields: tuple[str, ...]) -> dict[int, list]:
    """stay_id -> events as named tuples: NaN and NaT become None, times python datetimes."""
    columns = []
    for name in fields:
        column = frame[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            columns.append(column.to_numpy("datetime64[us]").tolist())
        elif pd.api.types.is_float_dtype(column):
            columns.append([None if x != x else x for x in column.tolist()])
        else:
            columns.append([None if x is None or x != x else x for x in column.tolist()])
    by_stay: dict[int, list] = {}
    for stay_id, *values in zip(frame["stay_id"].tolist(), *columns, strict=True):
        by_stay.setdefault(stay_id, []).append(kind(*values))
    return by_stay


def _diagnoses(frame: pd.DataFrame, flow: Flow) -> dict[int, list[Diagnosis]]:
    by_stay: dict[int, list[Diagnosis]] = {}
    unread = 0
    for row in frame.itertuples(index=False):
        sequence = None if pd.isna(row.sequence) or row.sequence == NO_ID else int(row.sequence)
        version, code = str(row.version).strip(), "" if pd.isna(row.code) else str(row.code).strip()
        if row.stay_id == NO_ID or not version.isalnum() or not code:
            unread += 1
            continue
        by_stay.setdefault(int(row.stay_id), []).append(Diagnosis(sequence, version, code))
    if unread:
        flow.refuse("diagnoses", "no stay, code or version of the ICD", unread)
    return by_stay
