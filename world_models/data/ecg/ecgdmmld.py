"""ECGDMMLD (FDA trial SCR-003): its table's own layout, and which drug was on board when.

NCT02308748; Johannesen 2016, PMID 26259627; PhysioNet ECGDMMLD 1.0.0, ODC-By. 22 healthy volunteers, five periods:
dofetilide; mexiletine + dofetilide; lidocaine + dofetilide; moxifloxacin + diltiazem; placebo.

The table `SCR-003.Clinical.Data.csv` differs from SCR-002's in this: the arm stands in TRTA (not EXTRT), no column
tells a dose, and in place of one PCTEST, PCSTRESN, PCSTRESU there is a column of concentrations for each analyte (DOF
in pg/mL; LIDO, MEXI, MOXI, MOXI.M2, DILT in ng/mL), "NA" where nothing was dosed, drawn or found (the three are not
told apart). Column names and units as described by others who hold the release ((k): no file of it was at hand).

**The arm is not the drug on board.** In the combinations the drugs enter hours apart: mexiletine and lidocaine first
and dofetilide at 6.5 h, moxifloxacin first and diltiazem at 12 h. An ECG of the arm "mexiletine + dofetilide" two hours
after the dose is one of mexiletine alone. What is on board is therefore taken from what was measured (`on_board`);
the schedule only says where an unmeasured hour is in doubt.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ANALYTES", "ENTERS_AT_H", "METABOLITES", "in_columns_of_scr002", "on_board"]

logger = logging.getLogger(__name__)

# column -> analyte, and what its numbers are multiplied by to be ng/mL
ANALYTES: dict[str, tuple[str, float]] = {
    "DOF": ("dofetilide", 1e-3),
    "LIDO": ("lidocaine", 1.0),
    "MEXI": ("mexiletine", 1.0),
    "MOXI": ("moxifloxacin", 1.0),
    "MOXI.M2": ("moxifloxacin_m2", 1.0),
    "DILT": ("diltiazem", 1.0),
}
METABOLITES = frozenset({"moxifloxacin_m2"})  # measured, and no drug that anybody was given
# arm -> its drug that enters later -> hours after the period's first dose
ENTERS_AT_H: dict[str, dict[str, float]] = {
    "mexiletine+dofetilide": {"dofetilide": 6.5},
    "lidocaine+dofetilide": {"dofetilide": 6.5},
    "moxifloxacin+diltiazem": {"diltiazem": 12.0},
}


def in_columns_of_scr002(raw: pd.DataFrame) -> pd.DataFrame:
    """A table with TRTA as one with the columns of SCR-002; others as they are. Still one row an ECG.

    EXTRT is the arm, EXDOSE and its unit are missing. `conc_<analyte>_ng_per_ml` has each analyte; PCTEST, PCSTRESN and
    PCSTRESU the drug of an arm of one drug, and nothing in combinations.

    Raises:
        ValueError: a column of an analyte is missing, or holds a text or a negative concentration.
    """
    import pandas as pd

    if "TRTA" not in raw.columns:
        return raw
    missing = [name for name in ANALYTES if name not in raw.columns]
    if missing:
        raise ValueError(
            f"a table with TRTA lacks the analytes' columns {', '.join(missing)}; give SCR-003.Clinical.Data.csv whole"
        )
    made = raw.drop(columns=list(ANALYTES)).rename(columns={"TRTA": "EXTRT"})
    made = made.assign(EXDOSE=np.nan, EXDOSU=np.nan, PCTEST=None, PCSTRESN=np.nan, PCSTRESU=None)
    arm = made["EXTRT"].astype(str).str.lower()
    for column, (analyte, scale) in ANALYTES.items():
        values = pd.to_numeric(raw[column], errors="coerce").astype(np.float64)
        bad = raw[column][(values.isna() & raw[column].notna()) | (values < 0)]
        if len(bad):
            raise ValueError(f"column {column} holds {str(bad.iloc[0])!r}, no concentration; correct or blank it")
        made[f"conc_{analyte}_ng_per_ml"] = values * scale
        own = arm.str.strip().eq(analyte) & values.notna()
        made.loc[own, "PCTEST"], made.loc[own, "PCSTRESU"] = analyte, "ng/mL"
        made.loc[own, "PCSTRESN"] = (values * scale)[own]
    return made


def on_board(ecgs: pd.DataFrame) -> pd.DataFrame:
    """The drugs in the blood at each ECG by what was measured: columns `on_board` and `in_doubt`, each drugs joined by
    '+' in alphabetical order ("" for none), index as in `ecgs`.

    A drug is on board at a nominal time of a person's period if it was measured above 0 in any of its ECGs, or both
    before and after it. It is in doubt where it was not measured but may be there: between its entry by the arm's
    schedule and its first measurement, and after its last, where "below quantification" and "not drawn" look alike.
    Measured contrary to the arm (another period's drug, or before its hour) it is on board all the same, with a
    warning.

    Args:
        ecgs: one row an ECG: randid, period, hour, arm (canonical, `ecgrdvq.canonical_drug`) and
            conc_<drug>_ng_per_ml.
    """
    import pandas as pd

    names = [c for c in ecgs.columns if c.startswith("conc_") and c.endswith("_ng_per_ml") and c != "conc_ng_per_ml"]
    drugs = {name.removeprefix("conc_").removesuffix("_ng_per_ml"): name for name in names}
    aboard: dict[object, list[str]] = {index: [] for index in ecgs.index}
    doubted: dict[object, list[str]] = {index: [] for index in ecgs.index}
    against = 0
    for (_, _, arm), period in ecgs.groupby(["randid", "period", "arm"], dropna=False, sort=False):
        expected = _schedule(str(arm))
        hour = period["hour"]
        for drug in sorted(set(drugs) - METABOLITES | set(expected)):
            measured = period[drugs[drug]] > 0 if drug in drugs else pd.Series(False, index=period.index)
            seen = hour[measured]
            first, last = (seen.min(), seen.max()) if len(seen) else (np.inf, -np.inf)
            enters = expected.get(drug, np.inf)
            against += int((measured & (hour < enters)).sum())
            for index, at in hour.items():
                if first <= at <= last:
                    aboard[index].append(drug)
                elif at > enters:
                    doubted[index].append(drug)
    if against:
        logger.warning(
            "%d measurement(s) of a drug that the arm's schedule does not have then: taken as measured", against
        )
    joined = {"on_board": aboard, "in_doubt": doubted}
    return pd.DataFrame({name: ["+".join(d[i]) for i in ecgs.index] for name, d in joined.items()}, index=ecgs.index)


def _schedule(arm: str) -> dict[str, float]:
    """Drug -> hour from which it can be there, of an arm."""
    later = next((late for known, late in ENTERS_AT_H.items() if set(known.split("+")) == set(arm.split("+"))), {})
    return {drug: later.get(drug, 0.0) for drug in arm.split("+") if drug not in ("", "placebo", "nan")}
