"""Values that cannot both be true: a systolic pressure below the diastolic one of the same cuff, line and moment.

Which of the two is wrong is not told, so both are left out, counted. One row a place where pressures are taken: the
source's codes of its systolic and its diastolic value. Where a source has medians of an hour in place of moments, the
two need not be of one beat; equal ones stay.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from world_models.data.ehr.flow import Flow

__all__ = ["PRESSURES", "without_contradictions"]

# (systolic, diastolic)
PRESSURES: tuple[tuple[str, str], ...] = (
    ("LAB//220050", "LAB//220051"), ("LAB//220179", "LAB//220180"), ("LAB//225309", "LAB//225310"),
    ("LAB//224167", "LAB//224643"), ("LAB//227243", "LAB//227242"),  # MIMIC, MetaVision: line, cuff, further lines
    ("LAB//51", "LAB//8368"), ("LAB//455", "LAB//8441"), ("LAB//6701", "LAB//8555"),
    ("LAB//442", "LAB//8440"),  # MIMIC-III, CareVue
    ("CHALLENGE2012//SysABP", "CHALLENGE2012//DiasABP"), ("CHALLENGE2012//NISysABP", "CHALLENGE2012//NIDiasABP"),
    ("CHALLENGE2019//SBP", "CHALLENGE2019//DBP"), ("EICU//sbp", "EICU//dbp"),
)  # fmt: skip


def without_contradictions(inquiries: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """The inquiries (columns INQUIRY_COLUMNS) without pairs of PRESSURES whose systolic value is below the diastolic
    one; both are counted in `flow`'s table "inquiries"."""
    place = {code: k for k, pair in enumerate(PRESSURES) for code in pair}
    rows = inquiries[inquiries["source"].isin(list(place)) & inquiries["value"].notna()]
    if rows.empty:
        return inquiries
    found = pd.DataFrame(
        {
            "stay_id": rows["stay_id"],
            "collected": rows["collected"],
            "place": rows["source"].map(place),
            "value": rows["value"],
            "at": rows.index,
        }
    )
    systolic = rows["source"].isin([code for code, _ in PRESSURES])
    keys = ["stay_id", "collected", "place"]
    pairs = found[systolic].merge(found[~systolic], on=keys, suffixes=("_systolic", "_diastolic"))
    wrong = pairs[pairs["value_systolic"] < pairs["value_diastolic"]]
    out = np.union1d(wrong["at_systolic"], wrong["at_diastolic"])
    flow.drop("inquiries", "systolic below diastolic pressure: both left out", len(out))
    flow.table("inquiries").kept -= len(out)
    return inquiries.drop(index=out).reset_index(drop=True)
