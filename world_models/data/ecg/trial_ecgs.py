"""Every single ECG of the FDA's drug trials on PhysioNet (ECGRDVQ, ECGDMMLD): table, marks and waveforms joined.

    python -m world_models.data.ecg.trial_ecgs DIR [--out ecgs.csv]

DIR holds the clinical table and, where they were fetched, `raw/<RANDID>/<EGREFID>` (12 leads, 10 s, 1000 Hz),
`medians/<RANDID>/<EGREFID>` (the median beat, 1.2 s at 1000 Hz: 12 leads, and VCGMAG, vx, vy, vz, which are left
aside) with `.atr` marks, and `median_beat_fiducials.csv`. All is joined by EGREFID. `ecgrdvq.load_trial` has the
triplicates' means; this module has what models of the waveform need: one row an ECG, its drug on board
(`ecgdmmld.on_board`; in ECGRDVQ the arm's one drug, after its dose), and its files.

The automatic marks are in ms within the median beat; absent ones (-1) are NaN. Each beat of the CSV was marked twice
(FILTER 0 and 1). Those of `.atr` are the ones that the table's intervals were made from; the CSV's own T end lies some
3 ms before the table's in the median.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from world_models.data.ecg import ecgrdvq
from world_models.data.ecg.ecgdmmld import ANALYTES, on_board
from world_models.data.ecg.ecgrdvq import Waveform, read_record
from world_models.data.ecg.wfdb.header import RecordError, open_inside
from world_models.files import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MARKS", "TrialEcg", "baseline_changes", "iterate", "load_ecgs", "read_marks"]

logger = logging.getLogger(__name__)

MARKS_FILE = "median_beat_fiducials.csv"
# the CSV's columns -> ours, ms within the median beat
MARKS = {
    "QON": "mark_qrs_onset_ms",
    "RPEAK": "mark_r_peak_ms",
    "QOFF": "mark_qrs_offset_ms",
    "TPEAK": "mark_t_peak_ms",
    "TPPEAK": "mark_t_second_peak_ms",
    "TEND": "mark_t_end_ms",
}
ATR_BYTES = 1 << 16  # a median beat's marks; they take some 20 bytes
_MEASURES = {
    "RR": "rr_ms",
    "PR": "pr_ms",
    "QRS": "qrs_ms",
    "QT": "qt_ms",
    "JTPEAK": "jt_peak_ms",
    "TPEAKTEND": "tpeak_tend_ms",
}


class TrialEcg(NamedTuple):
    """One ECG of a trial with its waveforms, as far as they are on disk."""

    row: pd.Series  # of `load_ecgs`
    raw: Waveform | None  # [12, 10000] mV at 1000 Hz
    median: Waveform | None  # [12, 1200] mV at 1000 Hz


def load_ecgs(folder: str | Path, filtered: bool = True) -> pd.DataFrame:
    """One row an ECG, sorted by person, period, time and id.

    Columns: egrefid, randid, arm (canonical), period (1 to 5), hour, baseline (before the dose), sex_female, age_years,
    weight_kg, dose_mg (NaN in SCR-003, which tells none), conc_<drug>_ng_per_ml each, on_board and in_doubt (drugs
    joined by '+'), rr_ms, pr_ms, qrs_ms, qt_ms, jt_peak_ms, tpeak_tend_ms, qtcf_ms, jt_peak_c_ms, the T wave's measures
    (`ecgrdvq.T_WAVE`; NaN where the table has no such column), the automatic marks
    (`MARKS`, and mark_p_onset_ms from .atr files), path (of the raw
    record), and raw, median (bool: the waveform is on disk).

    Args:
        filtered: which of the two sets of marks of `median_beat_fiducials.csv` (FILTER 1, or 0).

    Raises:
        FileNotFoundError, ValueError: as `ecgrdvq.load_raw`; an EGREFID twice with different measurements; a VISIT that
            is not PERIOD-<n>-DOSING; marks that are not of this layout.
    """
    import pandas as pd

    folder = Path(folder)
    table = ecgrdvq.tidied(folder)
    raw = table.drop_duplicates("EGREFID")
    repeated = table.drop_duplicates(["EGREFID", "RANDID", "VISIT", "TPT", "RR", "QT"])
    if len(repeated) != len(raw):
        twice = repeated["EGREFID"][repeated["EGREFID"].duplicated()].iloc[0]
        raise ValueError(f"EGREFID {twice} stands for two ECGs; correct the table in {folder}")
    rr_s = raw["RR"] / 1000.0
    made = pd.DataFrame(
        {
            "egrefid": raw["EGREFID"].astype(str).str.strip(),
            "randid": raw["RANDID"],
            "arm": raw["drug"],
            "period": _periods(raw["VISIT"]),
            "hour": raw["TPT"],
            "baseline": raw["TPT"] < 0,
            "sex_female": raw["sex_female"],
            "age_years": raw["AGE"],
            "weight_kg": raw["WGHT"],
            "dose_mg": raw["dose_mg"].where(raw["EXDOSE"].notna() | raw["drug"].eq("placebo")),
            **{ours: raw[theirs] for theirs, ours in _MEASURES.items()},
            "qtcf_ms": raw["QT"] / rr_s**ecgrdvq.QT_EXPONENT,
            "jt_peak_c_ms": raw["JTPEAK"] / rr_s**ecgrdvq.JT_PEAK_EXPONENT,
            **{ours: raw[theirs] for ours, theirs in ecgrdvq.T_WAVE.items()},
        }
    )
    made = made.join(_concentrations(table), on="egrefid")
    made = made.join(on_board(made))
    marks = read_marks(folder, made, filtered)
    made = made.merge(marks, on="egrefid", how="left") if marks is not None else made
    where = {
        kind: [ecgrdvq.find_record(folder, r, e, kind) for r, e in zip(made["randid"], made["egrefid"], strict=True)]
        for kind in ("raw", "medians")
    }
    made["path"] = [None if path is None else str(path) for path in where["raw"]]
    made["raw"], made["median"] = made["path"].notna(), [path is not None for path in where["medians"]]
    return made.sort_values(["randid", "period", "hour", "egrefid"], ignore_index=True)


def _periods(visit: pd.Series) -> pd.Series:
    found = visit.astype(str).str.extract(r"^\s*PERIOD-(\d+)-DOSING\s*$", expand=False)
    if found.isna().any():
        raise ValueError(f"VISIT holds {visit[found.isna()].iloc[0]!r}, not PERIOD-<number>-DOSING; correct the table")
    return found.astype(int)


def _concentrations(table: pd.DataFrame) -> pd.DataFrame:
    """Columns conc_<analyte>_ng_per_ml by EGREFID: of the table's own columns (SCR-003) or its rows (SCR-002)."""
    wide = [f"conc_{name}_ng_per_ml" for name, _ in ANALYTES.values()]
    key = table["EGREFID"].astype(str).str.strip().rename("egrefid")
    if set(wide) <= set(table.columns):
        return table.set_index(key)[wide]
    pivoted = table.assign(egrefid=key).dropna(subset=["analyte", "conc"])
    pivoted = pivoted.pivot_table(index="egrefid", columns="analyte", values="conc", aggfunc="mean")
    return pivoted.rename(columns=lambda name: f"conc_{name}_ng_per_ml")


def read_marks(folder: str | Path, ecgs: pd.DataFrame, filtered: bool = True) -> pd.DataFrame | None:
    """The automatic marks of the median beats (egrefid and mark_*_ms, NaN where absent): of
    `median_beat_fiducials.csv`, else of the `.atr` files; None where the folder has neither.

    Raises:
        ValueError: a CSV without its columns, with a text for a number, or with a beat marked twice.
    """
    import pandas as pd

    folder = Path(folder)
    path = folder / MARKS_FILE
    if not path.is_file():
        return _atr_marks(folder, ecgs)
    try:
        marks = pd.read_csv(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as a CSV ({error}); fetch it again") from error
    missing = [name for name in ("RECORD", "FILTER", *MARKS) if name not in marks.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; fetch it again")
    marks = marks[marks["FILTER"] == int(filtered)]
    made = pd.DataFrame({"egrefid": marks["RECORD"].astype(str).str.split("/").str[-1].str.strip()})
    if made["egrefid"].duplicated().any():
        raise ValueError(f"{path} marks {made['egrefid'][made['egrefid'].duplicated()].iloc[0]} twice; fetch it again")
    for theirs, ours in MARKS.items():
        values = ecgrdvq.numeric(marks[theirs], theirs)
        made[ours] = values.where(values >= 0)
    absent = int((~made["egrefid"].isin(ecgs["egrefid"])).sum())
    if absent:
        logger.warning("%s: %d of %d marked beats are in no row of the clinical table", path, absent, len(made))
    return made


def _atr_marks(folder: Path, ecgs: pd.DataFrame) -> pd.DataFrame | None:
    import pandas as pd

    rows = []
    for randid, egrefid in zip(ecgs["randid"], ecgs["egrefid"], strict=True):
        base = ecgrdvq.find_record(folder, randid, egrefid, "medians")
        if base is not None and base.with_name(base.name + ".atr").is_file():
            rows.append({"egrefid": egrefid, **_of_atr(base)})
    return pd.DataFrame(rows) if rows else None


def _of_atr(base: Path) -> dict[str, float]:
    """Marks of a median beat's .atr: '(' P onset, '(' QRS onset, ')' QRS offset, 't' T peak, ')' T end, where a P onset
    or a QRS offset may be missing.

    Raises:
        RecordError: it cannot be read.
    """
    import os

    import wfdb

    with open_inside(base.parent, base.name + ".atr") as file:
        if os.fstat(file.fileno()).st_size > ATR_BYTES:
            raise RecordError(f"{base}.atr has over {ATR_BYTES} bytes; fetch it again")
    try:
        found = wfdb.rdann(str(base), "atr")
    except Exception as error:  # wfdb raises whatever its parser stumbles on
        raise RecordError(f"{base}.atr holds no marks ({error}); fetch it again") from error
    marks = sorted(zip(found.sample.tolist(), found.symbol, strict=True))
    nan = float("nan")
    peaks = [at for at, symbol in marks if symbol == "t"]
    told = {"mark_p_onset_ms": nan, **dict.fromkeys(MARKS.values(), nan)}
    if not peaks:
        return told
    onsets = [at for at, symbol in marks if symbol == "(" and at <= peaks[0]]
    ends = [at for at, symbol in marks if symbol == ")"]
    told["mark_t_peak_ms"] = float(peaks[0])
    if len(peaks) > 1:
        told["mark_t_second_peak_ms"] = float(peaks[1])
    if onsets:
        told["mark_qrs_onset_ms"] = float(onsets[-1])
    if len(onsets) > 1:
        told["mark_p_onset_ms"] = float(onsets[-2])
    inside = [at for at in ends if onsets and onsets[-1] <= at <= peaks[0]]
    after = [at for at in ends if at > peaks[-1]]
    if inside:
        told["mark_qrs_offset_ms"] = float(inside[0])
    if after:
        told["mark_t_end_ms"] = float(after[-1])
    return told


def baseline_changes(ecgs: pd.DataFrame) -> pd.DataFrame:
    """`ecgs` with `delta_<measure>`: each ECG minus the mean of its person's ECGs before the dose of that period."""
    measures = [n for n in (*_MEASURES.values(), "qtcf_ms", "jt_peak_c_ms", *ecgrdvq.T_WAVE)]
    before = ecgs[measures].where(ecgs["baseline"])
    base = before.groupby([ecgs["randid"], ecgs["period"]]).transform("mean")
    return ecgs.join((ecgs[measures] - base).add_prefix("delta_"))


def iterate(folder: str | Path, ecgs: pd.DataFrame, kinds: tuple[str, ...] = ("raw", "medians")) -> Iterator[TrialEcg]:
    """The ECGs of a frame of `load_ecgs` (any selection of its rows: by randid, period, hour, on_board) with their
    waveforms; those not on disk are None.

    A median beat whose header is damaged (three of ECGDMMLD 1.0.0 are (k)) is None as well, with a warning.

    Raises:
        RecordError: a raw record that cannot be read.
    """
    for _, row in ecgs.iterrows():
        found: dict[str, Waveform | None] = {"raw": None, "medians": None}
        for kind in kinds:
            if not row["median" if kind == "medians" else "raw"]:
                continue
            try:
                found[kind] = read_record(folder, row["randid"], row["egrefid"], kind)
            except RecordError as error:
                if kind == "raw":
                    raise
                logger.warning("left out: %s", error)
        yield TrialEcg(row, found["raw"], found["medians"])


def _summary(ecgs: pd.DataFrame) -> Iterator[str]:
    yield (
        f"{len(ecgs)} ECGs of {ecgs['randid'].nunique()} people in {ecgs.groupby(['randid', 'period']).ngroups} "
        f"periods; raw ECGs {int(ecgs['raw'].sum())}, median beats {int(ecgs['median'].sum())}, "
        f"marked {int(ecgs['mark_t_peak_ms'].notna().sum()) if 'mark_t_peak_ms' in ecgs else 0}"
    )
    yield "arm; on board (in doubt): ECGs, hours"
    for (arm, drugs, doubt), rows in ecgs.groupby(["arm", "on_board", "in_doubt"], sort=True):
        told = f"{drugs or 'nothing'}{f' ({doubt}?)' if doubt else ''}"
        yield f"  {arm}; {told}: {len(rows)}, {rows['hour'].min():g} to {rows['hour'].max():g}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m world_models.data.ecg.trial_ecgs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", help="folder of ECGRDVQ or ECGDMMLD")
    parser.add_argument("--unfiltered", action="store_true", help="the marks of the unfiltered beats (FILTER 0)")
    parser.add_argument("--out", type=Path, help="write the table, one row an ECG, as a CSV")
    options = parser.parse_args(arguments)
    try:
        if options.out is not None:
            check_out(options.out)
        ecgs = load_ecgs(options.folder, not options.unfiltered)
        print("\n".join(_summary(ecgs)))
        if options.out is not None:
            with replacing(options.out) as part:
                ecgs.to_csv(part, index=False)
            print(f"table: {options.out}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check_out(path: Path) -> None:
    """Raises ValueError where no new table can be put: it exists, its folder does not, or it does not end in .csv."""
    if path.suffix != ".csv":
        raise ValueError(f"{path}: the table is a CSV; give a name that ends in .csv")
    if path.exists():
        raise ValueError(f"{path} exists already; give another --out or remove it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; make it first")


if __name__ == "__main__":
    sys.exit(main())
