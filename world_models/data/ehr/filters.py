"""The paper's filters and a split by patient.

EHRWorld, appendix A.2: a stay above the 90th percentile in length or in any count (lab values, cultures, drugs given)
is dropped, the number of events must lie within the 10th to 90th percentile, and at least one drug must have been
given; patients, not stays, are split, stratified by the category of the primary diagnosis. All percentiles are those of
the stays that enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from world_models.data.ehr.episode import PatientEpisode
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.inquiry_items import find, whole_number

__all__ = ["FilterRules", "diagnosis_category", "measure", "select", "split_patients"]

COUNTS = ("length_of_stay_hours", "values", "cultures", "drugs")
DRUG_KINDS = ("administration", "infusion")
SPLITS = ("train", "tuning", "held_out")  # the names MEDS recommends


@dataclass(frozen=True)
class FilterRules:
    """What a stay must be to be kept."""

    upper_percentile: float = 90.0  # of length of stay, values, cultures, drugs, and of all events; 100: none dropped
    lower_percentile: float = 10.0  # of all events; 0: none dropped
    needs_drug: bool = True  # at least one drug given

    def __post_init__(self) -> None:
        if not 0 <= self.lower_percentile < self.upper_percentile <= 100:
            raise ValueError(
                f"percentiles {self.lower_percentile}..{self.upper_percentile} must satisfy 0 <= lower < upper <= 100"
            )


def measure(episodes: Iterable[PatientEpisode]) -> pd.DataFrame:
    """One row a stay: subject_id, stay_id, started, category, COUNTS, events, inquiries, interventions, drugs_ordered.

    `drugs` are doses given and infusions, `drugs_ordered` prescriptions; `values` are of listed items, censored ones
    ("<0.01") too, `cultures` all other labels.
    """
    rows = []
    for e in episodes:
        inquiries, done = list(e.inquiries()), list(e.interventions())
        kinds = [event.kind for event in done]
        numeric = [event.value is not None or find(event.item) is not None for event in inquiries]
        primary = next((d for d in e.diagnoses if d.sequence == 1), None)
        rows.append(
            {
                "subject_id": e.subject_id,
                "stay_id": e.stay_id,
                "started": pd.Timestamp(e.started).as_unit("us"),
                "category": "unknown" if primary is None else diagnosis_category(primary.version, primary.code),
                "length_of_stay_hours": e.length_of_stay_hours,
                "values": sum(numeric),
                "cultures": len(numeric) - sum(numeric),
                "drugs": sum(kind in DRUG_KINDS for kind in kinds),
                "drugs_ordered": kinds.count("prescription"),
                "events": len(inquiries) + len(done),
                "inquiries": len(inquiries),
                "interventions": len(done),
            }
        )
    columns = ["subject_id", "stay_id", "started", "category", *COUNTS, "drugs_ordered", "events"]
    return pd.DataFrame(rows, columns=[*columns, "inquiries", "interventions"])


def select(measures: pd.DataFrame, rules: FilterRules, flow: Flow) -> pd.DataFrame:
    """The rows of `measure` that pass; every stage is added to `flow`."""
    left = measures
    if rules.upper_percentile < 100 and len(measures):
        reasons: dict[str, int] = {}
        for name in COUNTS:
            limit = float(np.percentile(measures[name], rules.upper_percentile))
            out = left[name] > limit
            what = name.replace("_", " ")
            reasons[f"{what} above the {rules.upper_percentile:g}th percentile ({limit:g})"] = int(out.sum())
            left = left[~out]
        _stage(flow, "length and counts", left, reasons)
    if (rules.upper_percentile < 100 or rules.lower_percentile > 0) and len(measures):
        low, high = np.percentile(measures["events"], [rules.lower_percentile, rules.upper_percentile])
        few, many = left["events"] < low, left["events"] > high
        reasons = {
            f"events below the {rules.lower_percentile:g}th percentile ({low:g})": int(few.sum()),
            f"events above the {rules.upper_percentile:g}th percentile ({high:g})": int(many.sum()),
        }
        left = left[~few & ~many]
        _stage(flow, "number of events", left, reasons)
    if rules.needs_drug and len(measures):
        name = "drugs" if measures["drugs"].any() else "drugs_ordered"
        if not measures[name].any():
            flow.note("the source has no drugs at all: the filter on drugs was left out")
        else:
            if name == "drugs_ordered":
                flow.note("the source tells no drug given: prescriptions were counted instead")
            none = left[name] == 0
            left = left[~none]
            _stage(flow, "a drug given", left, {"no drug given": int(none.sum())})
    return left


def _stage(flow: Flow, name: str, left: pd.DataFrame, reasons: Mapping[str, int]) -> None:
    flow.stage(
        name,
        reasons,
        patients=left["subject_id"].nunique(),
        episodes=len(left),
        inquiries=left["inquiries"].sum(),
        interventions=left["interventions"].sum(),
    )


def split_patients(
    measures: pd.DataFrame, shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> dict[int, str]:
    """subject_id -> "train", "tuning" or "held_out": every stay of a patient on one side.

    Stratified by the category of the patient's first stay: patients are lined up by category, by chance within it, and
    each goes where the share lags behind most, so every category is split as evenly as its size allows.

    Raises:
        ValueError: shares that are negative or do not add up to 1.
    """
    import torch  # here, so that the processes that only make shards need not load it

    from world_models import keys

    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares {shares} must be 0 or more and add up to 1")
    if measures.empty:
        return {}
    first = measures.sort_values(["subject_id", "started", "stay_id"]).drop_duplicates("subject_id")
    key = keys.fold(keys.from_seed(seed), "patient split").expand(len(first))
    chance = keys.uniform(keys.fold(key, torch.from_numpy(first["subject_id"].to_numpy(np.int64))), 0, "split")
    line = first.assign(chance=chance.numpy()).sort_values(["category", "chance", "subject_id"])
    given, result = np.zeros(3), {}
    for i, subject_id in enumerate(line["subject_id"].tolist(), 1):
        side = int(np.argmax(np.array(shares) * i - given))
        given[side] += 1
        result[int(subject_id)] = SPLITS[side]
    return result


_ICD9 = (
    (139, "infection"), (239, "neoplasm"), (279, "endocrine"), (289, "blood"), (319, "mental"), (389, "nervous"),
    (459, "circulatory"), (519, "respiratory"), (579, "digestive"), (629, "genitourinary"), (679, "pregnancy"),
    (709, "skin"), (739, "musculoskeletal"), (759, "congenital"), (779, "perinatal"), (799, "symptoms"),
    (999, "injury"),
)  # fmt: skip
_ICD10 = {
    "A": "infection", "B": "infection", "C": "neoplasm", "E": "endocrine", "F": "mental", "G": "nervous",
    "I": "circulatory", "J": "respiratory", "K": "digestive", "L": "skin", "M": "musculoskeletal",
    "N": "genitourinary", "O": "pregnancy", "P": "perinatal", "Q": "congenital", "R": "symptoms", "S": "injury",
    "T": "injury", "V": "external", "W": "external", "X": "external", "Y": "external", "Z": "contact",
}  # fmt: skip


def diagnosis_category(version: str, code: str) -> str:
    """Chapter of the ICD, by one name for both versions: ("9", "4280") and ("10", "I509") are "circulatory"."""
    code = code.strip().upper()
    if not code:
        return "unknown"
    if version == "9":
        if code[0] in "EV":
            return "external" if code[0] == "E" else "contact"
        head = whole_number(code[:3])
        return "unknown" if head is None else next(name for last, name in _ICD9 if head <= last)
    if code[0] == "D":
        return "neoplasm" if code[1:3] < "50" else "blood"
    if code[0] == "H":
        return "nervous"
    return _ICD10.get(code[0], "unknown")
