"""MIMIC-IV-ECG with the diagnoses of MIMIC-IV-ECG-Ext-ICD to one monolith.

    python -m world_models.data.ecg.mimic_iv_ecg --root DIR --labels records_w_diag_icd10.csv --out FILE.h5

DIR holds `record_list.csv` and `files/p1000/p10000032/s40689238/40689238.hea, .dat` (Gow 2023, doi 10.13026/4nqg-sb35,
ODbL); the table is Strodthoff 2024, doi 10.1093/ehjdh/ztae039 (credentialed access). Labels are the categories of
ICD-10 chapter IX in one of its columns of diagnoses, as the paper has them, or of other --chapters. Rows are sorted by
patient, then time. A run that was stopped goes on when its command is given again.

Traps: an empty list says that no diagnosis is linked (the ECG was in no stay), not that the patient is healthy: such
rows are left out unless --undiagnosed keeps them. Triage is `ecg_no_within_stay` 0; it is -1 outside a stay. Sex
"missing" and an absent age are NaN; ages above 89 are not real. Dates are shifted, a patient's all by the same. The
files' lead order is I, II, III, aVR, aVF, aVL: leads are taken by name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from world_models.data.ecg.mimic_iv_ecg_labels import (
    FOLD_COLUMNS,
    LABEL_COLUMNS,
    LabelTable,
    MimicEcgError,
    read_labels,
)
from world_models.data.ecg.monolith import MonolithError, Transitions, read_records, transitions
from world_models.data.ecg.monolith_convert import SourceRows, convert, mark_of
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.data.icd10 import CHAPTER, CHAPTERS

__all__ = ["ConversionFlow", "LabelTable", "MimicEcgError", "build", "read_labels"]

SOURCE = "MIMIC-IV-ECG 1.0 with MIMIC-IV-ECG-Ext-ICD"
_COLUMNS = ("label", "patient", "days", "age_years", "sex_female", "fold", "first")
LICENCE = "ODbL 1.0 (ECGs); PhysioNet Credentialed Health Data License 1.5.0 (labels)"


class ConversionFlow(NamedTuple):
    """How many ECGs went in, how many are left, and what changes between those that are."""

    rows: int  # of the table
    out_of_order: int  # patients whose rows did not stand in time order; sorted
    diagnosed: int  # rows with any diagnosis
    chapter: int  # rows with a code of the chapters asked for
    codes: int
    chosen: int  # rows asked for: diagnosed ones, up to the limit
    missing: int  # of them, records not on disk
    unreadable: int  # of those on disk
    written: int
    whole: Transitions  # over the whole table
    kept: Transitions  # over the rows written
    chapters: tuple[str, ...] = (CHAPTER,)

    def diagram(self) -> str:
        """The counts as text, one step a line, and the figures of the paper's appendix."""
        lines = [
            f"{self.rows:9,d}  rows in the table ({self.out_of_order:,d} patients out of time order, sorted)",
            f"{self.diagnosed:9,d}  with diagnoses",
            f"{self.chapter:9,d}  with a code of chapter{'' if len(self.chapters) == 1 else 's'} "
            f"{', '.join(self.chapters)} ({self.codes} categories)",
            f"{self.chosen:9,d}  asked for",
            f"{self.chosen - self.missing:9,d}  on disk ({self.missing:,d} missing)",
            f"{self.written:9,d}  readable ({self.unreadable:,d} not)",
        ]
        for title, found in (("the whole table", self.whole), ("the rows written", self.kept)):
            sizes = ", ".join(f"{n}: {share:.1%}" for n, share in list(found.magnitudes.items())[:4])
            lines += [
                f"{title}:",
                f"{found.patients:9,d}  patients, {found.singletons:,d} with one ECG, at most {found.most_ecgs}",
                f"{found.pairs:9,d}  consecutive pairs",
                f"{found.changed:9,d}  changed, of {found.changed_patients:,d} patients; {found.stable_share:.1%} "
                "stable",
                f"           labels that change in a changed pair: {sizes or 'none'}",
                f"           codes an ECG: {found.codes_per_ecg:.2f}",
            ]
        return "\n".join(lines)


def _record_paths(root: Path, table: LabelTable, rows: np.ndarray) -> list[str | None]:
    """Each row's record below `root`, without extension: from record_list.csv, or built where there is no list; None
    where neither the list nor the disk has it."""
    listed = root / "record_list.csv"
    if listed.is_file():
        there = list(pd.read_csv(listed, nrows=0).columns)
        if not {"study_id", "path"} <= set(there):
            raise MimicEcgError(f"{listed} lacks study_id or path; it has {', '.join(there)}: fetch it again")
        known = (
            pd.read_csv(listed, usecols=["study_id", "path"]).drop_duplicates("study_id").set_index("study_id")["path"]
        )
        paths = known.reindex(table.study[rows]).tolist()
    else:
        people = table.patient[torch.from_numpy(rows)].tolist()
        paths = [f"files/p{str(p)[:4]}/p{p}/s{s}/{s}" for p, s in zip(people, table.study[rows].tolist(), strict=True)]
    inside = root.resolve()
    odd = next((p for p in paths if isinstance(p, str) and not (inside / p).resolve().is_relative_to(inside)), None)
    if odd is not None:
        raise MimicEcgError(f"the path {odd[:80]!r} leads out of {root}; correct record_list.csv, or fetch it again")
    return [str(p) if isinstance(p, str) and isfile(root / (p + ".hea")) else None for p in paths]


def build(
    root: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    rate: float = 100.0,
    seconds: float = 10.0,
    workers: int = 2,
    limit: int | None = None,
    label_column: str = "all_diag_all",
    fold_column: str = "fold",
    undiagnosed: bool = False,
    most_missing: float = 0.01,
    chapters: Sequence[str] = (CHAPTER,),
    quiet: bool = True,
) -> ConversionFlow:
    """Read, check, convert and write; a run that was stopped is continued where it was given the same arguments.

    Args:
        limit: only the first so many rows (whole patients first come, so the last may be cut).
        undiagnosed: keep ECGs without any diagnosis, with no label set.
        most_missing: the share of records that may be missing on disk, and of those there that may be unreadable.
        chapters: of ICD-10, whose categories are the labels. All 22 are some 1,500 categories in a byte each: 1.2 GB.

    Raises:
        MimicEcgError: see `read_labels`; no folder, nothing to convert, too much missing or unreadable.
        MonolithError: `out` exists, or its .part was begun with other arguments.
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise MimicEcgError(f"no folder {root}; give the one that holds MIMIC-IV-ECG's record_list.csv and files/")
    if not (rate > 0 and seconds > 0 and 0 <= most_missing <= 1) or (limit is not None and limit < 1):
        raise MimicEcgError(
            f"rate={rate}, seconds={seconds} and limit={limit} must be above 0, most_missing={most_missing} in 0 to 1"
        )
    if out.exists():  # before the table is read, which takes a minute
        raise MonolithError(f"{out} exists already; give another --out or remove it")
    table = read_labels(labels, label_column, fold_column, chapters=chapters)
    chosen = np.flatnonzero(np.ones(len(table.study), bool) if undiagnosed else table.diagnosed.numpy())[:limit]
    if not len(chosen):
        raise MimicEcgError(
            f"no row of {labels} has a diagnosis in {label_column}; give another column, or --undiagnosed"
        )
    found = _record_paths(root, table, chosen)
    rows = chosen[[path is not None for path in found]]
    paths = [path for path in found if path is not None]
    missing = len(chosen) - len(rows)
    if not paths or missing > most_missing * len(chosen):
        example = table.study[chosen[found.index(None)]]
        raise MimicEcgError(
            f"{missing} of {len(chosen)} records are not below {root} (study {example} for one), more than "
            f"{most_missing:.1%}; fetch them, or allow it with --most-missing"
        )
    index = torch.from_numpy(rows)
    columns = {n: getattr(table, n)[index].numpy() for n in _COLUMNS}
    columns["record"] = table.study[rows]
    mark = mark_of(columns["record"], columns["label"])
    source = f"{SOURCE}, {label_column}, {fold_column}, rows {mark}"
    records = SourceRows([str(root / path) for path in paths], columns, table.codes, (), source, LICENCE)
    try:
        written, skipped = convert(
            records, out, rate=rate, seconds=seconds, workers=workers, most_unreadable=most_missing, quiet=quiet
        )
    except RecordError as error:
        raise MimicEcgError(str(error)) from error
    return _flow(table, len(chosen), missing, written, skipped, out)._replace(chapters=tuple(chapters))


def _flow(table: LabelTable, chosen: int, missing: int, written: int, skipped: int, out: Path) -> ConversionFlow:
    place = pd.Series(np.arange(len(table.study)), index=table.study)
    kept = torch.from_numpy(place[read_records(out).numpy()].to_numpy(np.int64))
    return ConversionFlow(
        rows=len(table.study),
        out_of_order=table.out_of_order,
        diagnosed=int(table.diagnosed.sum()),
        chapter=int(table.label.any(dim=1).sum()),
        codes=len(table.codes),
        chosen=chosen,
        missing=missing,
        unreadable=skipped,
        written=written,
        whole=transitions(table.label, table.patient, table.days),
        kept=transitions(table.label[kept], table.patient[kept], table.days[kept]),
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m world_models.data.ecg.mimic_iv_ecg",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", required=True, help="folder of MIMIC-IV-ECG: record_list.csv and files/")
    parser.add_argument("--labels", required=True, help="records_w_diag_icd10.csv")
    parser.add_argument("--out", required=True, help="the monolith to write")
    parser.add_argument("--rate", type=float, default=100.0, help="sampling rate, Hz (100)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an ECG (10)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only the first so many rows")
    parser.add_argument("--label-column", default="all_diag_all", choices=LABEL_COLUMNS)
    parser.add_argument("--fold-column", default="fold", choices=FOLD_COLUMNS)
    parser.add_argument(
        "--chapters", nargs="+", default=[CHAPTER], choices=list(CHAPTERS), metavar="NUMERAL", help="of ICD-10 (IX)"
    )
    parser.add_argument("--undiagnosed", action="store_true", help="keep ECGs that no diagnosis is linked to")
    parser.add_argument("--most-missing", type=float, default=0.01, help="share missing or unreadable allowed (0.01)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args(arguments))
    try:
        flow = build(options.pop("root"), options.pop("labels"), options.pop("out"), **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(flow.diagram())
    return 0


if __name__ == "__main__":
    sys.exit(main())
