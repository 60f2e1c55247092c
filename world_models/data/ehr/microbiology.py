"""Microbiology as label outcomes: what grew in a specimen, and which antibiotics the organism resists.

A test of a specimen is one inquiry, `culture//<specimen>//<test>`, for each organism it grew, or one with the label
"negative"; a susceptibility is `susceptibility//<organism>//<antibiotic>` with S, I or R. All lower case. Drawn at
charttime, resulted at storetime (the last of the rows of a test and organism; MIMIC-III has none).

In MIMIC-IV a result without an organism stands in `comments`, as text: it is read by the patterns below, in their
order; a comment none of them reads, or one that was blanked for privacy, gives no outcome and is counted.
"""

from __future__ import annotations

import pandas as pd

from world_models.data.ehr.canonical_events import INQUIRY_COLUMNS, empty
from world_models.data.ehr.flow import Flow

__all__ = ["COMMENT_LABELS", "culture_inquiries"]

# (pattern of the comment, label); '' is no result
COMMENT_LABELS: tuple[tuple[str, str], ...] = (
    (r"CANCELLED|CREDITED|NOT PERFORMED|UNABLE TO|SPECIMEN (?:NOT|NEVER)|INAPPROPRIATE", ""),
    (r"MIXED (?:BACTERIAL )?FLORA|MIXED BACTERIAL|CONTAMINAT|COMMENSAL|OROPHARYNGEAL FLORA", "mixed flora"),
    (r"^<\s*10,?000|NO SIGNIFICANT GROWTH", "no significant growth"),
    (r"(?<!\bNO )GRAM POSITIVE COCCI", "gram positive cocci"),
    (r"(?<!\bNO )GRAM NEGATIVE ROD", "gram negative rods"),
    (r"(?<!\bNO )GRAM POSITIVE ROD", "gram positive rods"),
    (r"\bNO\b.*\b(?:GROWTH|ISOLATED|FOUND|SEEN|DETECTED|ANAEROBES)\b", "negative"),
    (r"\bNEGATIVE (?:FOR|BY)|^NEGATIVE|^NON-?REACTIVE|NOT DETECTED|NOT ISOLATED", "negative"),
    (r"YEAST|FUNGAL", "yeast"),
    (r"POSITIVE|REACTIVE|\bDETECTED\b|ISOLATED", "positive"),
)
CANCELLED_ORGANISMS = ("cancelled",)


def culture_inquiries(raw: pd.DataFrame, flow: Flow, table: str) -> pd.DataFrame:
    """Frame INQUIRY_COLUMNS from columns subject_id, stay_id, collected, resulted, specimen, test, organism,
    antibiotic, interpretation, comments (text; "" or None for none). Without comments (MIMIC-III) no organism means no
    growth."""
    ledger = flow.table(table)
    ledger.read += len(raw)
    if raw.empty:
        return empty(INQUIRY_COLUMNS)
    dated = raw["collected"].notna()
    flow.drop(table, "no collection time (date only)", int((~dated).sum()))
    raw = raw[dated].copy()
    for name in ("specimen", "test", "organism", "antibiotic", "interpretation", "comments"):
        plain = raw[name].astype(object).where(raw[name].notna(), "").astype(str)
        raw[name] = plain.str.split().str.join(" ")
    raw["organism"] = raw["organism"].str.lower()
    cancelled = raw["organism"].isin(CANCELLED_ORGANISMS)
    label = raw["organism"].where(raw["organism"].ne(""), _read_comments(raw["comments"]))
    unread = label.eq("") & ~cancelled
    flow.drop(table, "cancelled", int(cancelled.sum()))
    flow.drop(table, "no organism and no readable comment (often blanked)", int(unread.sum()))
    kept = ~cancelled & ~unread
    ledger.kept += int(kept.sum())
    raw, label = raw[kept], label[kept]

    where = raw["specimen"].str.lower() + "//" + raw["test"].str.lower()
    cultures = raw.assign(item="culture//" + where, label=label)
    tested = raw["antibiotic"].ne("") & raw["organism"].ne("") & raw["interpretation"].isin(["S", "I", "R"])
    resists = raw[tested]
    names = "susceptibility//" + resists["organism"] + "//" + resists["antibiotic"].str.lower()
    resists = resists.assign(item=names, label=resists["interpretation"])
    both = pd.concat([cultures, resists], ignore_index=True)
    keys = ["subject_id", "stay_id", "item", "label", "collected"]
    merged = both.groupby(keys, as_index=False, dropna=False, sort=False)["resulted"].max()
    early = merged["resulted"] < merged["collected"]
    flow.repair(table, "result before the collection: taken as the collection time", int(early.sum()))
    merged.loc[early, "resulted"] = merged.loc[early, "collected"]
    merged = merged.assign(value=float("nan"), unit="", source="MICROBIOLOGY")
    return merged[list(INQUIRY_COLUMNS)]


def _read_comments(comments: pd.Series) -> pd.Series:
    """The label of each comment, '' where there is no result in it. No comment at all reads as no growth."""
    upper = comments.str.upper()
    label = pd.Series("", index=comments.index, dtype=object)
    open_ = pd.Series(True, index=comments.index)
    for pattern, name in COMMENT_LABELS:
        hit = open_ & upper.str.contains(pattern, regex=True)
        label[hit] = name
        open_ &= ~hit
    return label.where(upper.ne(""), "negative")
