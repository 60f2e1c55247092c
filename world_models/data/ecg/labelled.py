"""Single real ECGs with labels: LUDB, PTB-XL, Challenge 2021, or any folder of WFDB records with a table of labels.

    python -m world_models.data.ecg.labelled --ludb DIR [--out labels.csv]
    python -m world_models.data.ecg.labelled --challenge DIR [--out labels.csv]
    python -m world_models.data.ecg.labelled --records DIR --labels labels.csv

prints how many ECGs each label has and, with --out, writes the labels as the table the third form reads. LUDB: ODC-By,
Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211. Challenge 2021: CC-BY 4.0. PTB-XL (`read_ptbxl`): CC BY 4.0, Wagner
2020, doi 10.1038/s41597-020-0495-6. The label names are those of `snomed`.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.data.ecg import ludb, ptbxl, scp, snomed
from world_models.data.ecg.diagnoses import LUDB_LABELS, challenge_labels, ludb_labels
from world_models.data.ecg.wfdb.reader import RecordError, folder_records, read_ecg
from world_models.files import replacing

__all__ = ["LabelTableError", "LabelledECGs", "counts", "keep", "read_challenge", "read_ludb", "read_ptbxl"]
__all__ += ["read_table", "write_labels_csv"]

RATE_HZ = 100.0
SECONDS, SHORTEST_S = 10.0, 8.0  # a shorter ECG would be too much padding to be judged by
MOST_UNREADABLE = 0.05
log = logging.getLogger(__name__)


class LabelTableError(ValueError):
    """Labels that cannot be used with the records; the message names the value and the remedy."""


class LabelledECGs(NamedTuple):
    """N ECGs of 10 s with L labels each, and where they are from."""

    ecg: Tensor  # [N, 12, 1000] float32 mV at 100 Hz
    label: Tensor  # [N, L] bool
    names: tuple[str, ...]  # of the labels
    record: tuple[str, ...]
    patient: Tensor | None  # [N] int64; None: every record is another patient
    source: str
    unmapped: dict[str, int]  # diagnoses met that are none of our labels -> records
    skipped: dict[str, str]  # records left out -> why
    fold: Tensor | None = None  # [N] int64, the fold a source publishes; None: it has none


def _one_length(ecg: Tensor) -> Tensor:
    """[12, up to 1000] -> [12, 1000]: an ECG of 8 to 10 s goes on at each lead's median."""
    lacking = int(RATE_HZ * SECONDS) - ecg.shape[1]
    return ecg if lacking <= 0 else torch.cat([ecg, ecg.median(dim=1, keepdim=True).values.expand(-1, lacking)], dim=1)


def _waves(
    records: Sequence[tuple[str, Path]], most_unreadable: float
) -> tuple[list[Tensor], list[int], dict[str, str]]:
    """ECGs, which of the records they are, and what was left out.

    Raises:
        RecordError: more than that share cannot be read.
    """
    ecgs, kept, skipped = [], [], {}
    for i, (name, base) in enumerate(records):
        try:
            ecgs.append(_one_length(read_ecg(base, RATE_HZ, SECONDS, shortest_s=SHORTEST_S).ecg_mv))
            kept.append(i)
        except RecordError as error:
            skipped[name] = str(error)
    if not ecgs or len(skipped) > most_unreadable * len(records):
        name, reason = next(iter(skipped.items()))
        raise RecordError(
            f"{len(skipped)} of {len(records)} records cannot be read, more than {most_unreadable:.0%}; the first, "
            f"{name}: {reason}"
        )
    for name, reason in skipped.items():
        log.warning("%s left out: %s", name, reason)
    return ecgs, kept, skipped


def _build(
    records: Sequence[tuple[str, Path]],
    said: Sequence[set[str]],
    names: Sequence[str],
    source: str,
    patient: Sequence[int] | None = None,
    unmapped: Counter[str] | None = None,
    most_unreadable: float = MOST_UNREADABLE,
) -> LabelledECGs:
    ecgs, kept, skipped = _waves(records, most_unreadable)
    return LabelledECGs(
        ecg=torch.stack(ecgs),
        label=torch.tensor([[name in said[i] for name in names] for i in kept], dtype=torch.bool),
        names=tuple(names),
        record=tuple(records[i][0] for i in kept),
        patient=None if patient is None else torch.tensor([patient[i] for i in kept], dtype=torch.int64),
        source=source,
        unmapped=dict((unmapped or Counter()).most_common()),
        skipped=skipped,
    )


def read_ludb(folder: str | Path) -> LabelledECGs:
    """LUDB (the folder with ludb.csv and data/): its diagnoses as labels, every ECG another patient.

    Raises:
        RecordError: the folder does not hold LUDB, or over 5 % of its records cannot be read.
    """
    folder = Path(folder)
    names = ludb.record_names(folder)
    said, unmapped = ludb_labels(folder, names)
    records = [(name, folder / "data" / name) for name in names]
    return _build(records, said, LUDB_LABELS, "LUDB 1.0.1, ODC-By", unmapped=unmapped)


def read_ptbxl(folder: str | Path, folds: Sequence[int], one_a_patient: bool = False) -> LabelledECGs:
    """The ECGs of some folds of PTB-XL: its five diagnostic superclasses and the single labels of `scp` as labels.

    A statement counts whatever its likelihood (0 means present), as in the benchmarks on PTB-XL.

    Args:
        folds: of 1 to 10; ECGs of others are not opened.
        one_a_patient: of a patient's ECGs the first alone.

    Raises:
        RecordError: see `ptbxl.read_table`; no ECG of these folds; over 5 % cannot be read.
        ScpError: no usable scp_statements.csv.
    """
    folder = Path(folder)
    entries = [e for e in ptbxl.read_table(folder).entries if e.fold in folds]
    if one_a_patient:  # sorted by patient and time
        entries = [e for i, e in enumerate(entries) if i == 0 or e.patient_id != entries[i - 1].patient_id]
    if not entries:
        raise RecordError(f"no ECG of folds {', '.join(map(str, folds))} is below {folder}; fetch their records")
    group = scp.superclasses(folder / "scp_statements.csv")
    said, unmapped = [], Counter[str]()
    for entry in entries:
        labels, rest = scp.labels_of(entry.scp)
        said.append(labels | {group[code] for code in entry.scp if code in group})
        unmapped.update(code for code in rest if code not in group)
    names = (*scp.SUPERCLASSES, *dict.fromkeys(label for labels in scp.SCP.values() for label in labels))
    records = [(e.record.relative_to(folder).as_posix(), e.record) for e in entries]
    people = [e.patient_id for e in entries]
    found = _build(records, said, names, "PTB-XL 1.0.3, CC BY 4.0", people, unmapped)
    fold = dict(zip((name for name, _ in records), (e.fold for e in entries), strict=True))
    return found._replace(fold=torch.tensor([fold[name] for name in found.record]))


def read_challenge(folder: str | Path) -> LabelledECGs:
    """Records of the PhysioNet/CinC Challenge 2021 in a folder and those below it; every record counts as a patient.

    A label is a column whether or not a record has it. Codes that say none of ours are counted in `unmapped`. Headers
    without diagnoses (no Dx line, or one that is no list of codes) say nothing of any label: they are left out, counted
    in a warning and named in `skipped`.

    Raises:
        RecordError: no record there, none with diagnoses, or over 5 % of those that cannot be read.
    """
    said, unmapped, without = challenge_labels(folder)
    records = [(base.name, base) for base in said]
    source = "PhysioNet/CinC Challenge 2021, CC-BY 4.0"
    labelled = _build(records, list(said.values()), tuple(snomed.LABELS), source, unmapped=unmapped)
    return labelled._replace(skipped={**without, **labelled.skipped})


def _bases(folder: Path, wanted: Sequence[str], table: Path) -> list[Path]:
    """The record each name stands for: a path below the folder, or the record's own name anywhere in it."""
    by_path: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = {}
    for base in folder_records(folder):
        by_path[base.relative_to(folder).as_posix()] = base
        by_name.setdefault(base.name, []).append(base)
    plain = [re.sub(r"\.(hea|dat|mat)$", "", name.replace("\\", "/").removeprefix("./")) for name in wanted]
    missing = [name for name in plain if name not in by_path and name not in by_name]
    if missing:
        raise LabelTableError(
            f"{len(missing)} of {len(plain)} records of {table} are not in {folder}, {missing[0]!r} for one; correct "
            "--records or take their rows out"
        )
    unclear = [name for name in plain if name not in by_path and len(by_name[name]) > 1]
    if unclear:
        raise LabelTableError(
            f"record {unclear[0]!r} of {table} is in {len(by_name[unclear[0]])} folders below {folder}; write its path"
        )
    return [by_path[name] if name in by_path else by_name[name][0] for name in plain]


def read_table(folder: str | Path, table: str | Path) -> LabelledECGs:
    """Any folder of WFDB records with a CSV: a column `record` (a name or a path below the folder), one column of 0 and
    1 for each label and, where patients have several ECGs, a column `patient` (numbers or names).

    Raises:
        LabelTableError: no such table, no `record` column, no label, a value that is not 0 or 1, a record twice, not in
            the folder or in it more than once.
        RecordError: no record in the folder, or over 5 % that cannot be read.
    """
    folder, table = Path(folder), Path(table)
    if not table.is_file():
        raise LabelTableError(f"no table of labels at {table}; give a CSV with a column 'record' and one a label")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelTableError(f"{table} is no CSV in UTF-8 ({error}); save it as one") from error
    names = [name for name in columns if name not in ("record", "patient")]
    if "record" not in columns or not names or len(set(columns)) != len(columns) or not rows:
        raise LabelTableError(
            f"{table} has {len(rows)} rows of {', '.join(columns) or 'nothing'}; it needs a column 'record' and one of "
            "0 and 1 for each label, each once"
        )
    said = []
    for line, row in enumerate(rows, start=2):
        if None in row:
            raise LabelTableError(f"{table} line {line}: more values than the {len(columns)} columns; correct it")
        values = {name: (row[name] or "").strip() for name in names}
        wrong = next((name for name, value in values.items() if value not in ("0", "1", "0.0", "1.0")), None)
        if wrong is not None:
            raise LabelTableError(f"{table} line {line}: {wrong} is {values[wrong]!r}; write 0 or 1")
        said.append({name for name, value in values.items() if value.startswith("1")})
    wanted = [(row["record"] or "").strip() for row in rows]
    bases = _bases(folder, wanted, table)
    twice = [str(base) for base, n in Counter(bases).items() if n > 1]
    if twice:
        raise LabelTableError(f"record {twice[0]} is in {table} more than once; keep one row of it")
    patient = None
    if "patient" in columns:
        people = {name: i for i, name in enumerate(dict.fromkeys((row["patient"] or "").strip() for row in rows))}
        if "" in people:
            raise LabelTableError(f"{table}: a row has no patient; fill the column in or take it out")
        patient = [people[(row["patient"] or "").strip()] for row in rows]
    return _build(list(zip(wanted, bases, strict=True)), said, names, f"{folder.name} with {table.name}", patient)


def _writable(path: Path, read: Path | None = None) -> None:
    """Refuse a path that no table can be put at.

    Args:
        read: the table that the labels come from.

    Raises:
        LabelTableError: no such folder; a folder, a device or a file of a record; the table that is read.
    """
    if not path.parent.is_dir():
        raise LabelTableError(f"{path}: the folder {path.parent} does not exist; make it first or choose another")
    if path.exists() and not path.is_file():
        raise LabelTableError(f"{path} is a folder or a device; give the name of a file")
    if path.suffix.lower() in (".hea", ".dat", ".mat") or (read is not None and path.resolve() == read.resolve()):
        raise LabelTableError(f"{path} is read, or belongs to a record; give another name")


def write_labels_csv(labelled: LabelledECGs, path: str | Path) -> Path:
    """The labels as the table `read_table` takes; returns the path.

    Raises:
        LabelTableError: no table can be put there.
    """
    path = Path(path)
    _writable(path)
    with replacing(path) as part, part.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        people = None if labelled.patient is None else labelled.patient.tolist()
        writer.writerow(["record", *([] if people is None else ["patient"]), *labelled.names])
        for i, (name, row) in enumerate(zip(labelled.record, labelled.label.int().tolist(), strict=True)):
            writer.writerow([name, *([] if people is None else [people[i]]), *row])
    return path


def counts(labelled: LabelledECGs) -> dict[str, int]:
    """Label -> ECGs that have it, the commonest first."""
    tally = dict(zip(labelled.names, labelled.label.sum(dim=0).tolist(), strict=True))
    return dict(sorted(tally.items(), key=lambda item: (-item[1], item[0])))


def keep(labelled: LabelledECGs, least: int = 5) -> LabelledECGs:
    """Only labels that at least `least` ECGs have and at least `least` have not."""
    positive = labelled.label.sum(dim=0)
    enough = (positive >= least) & (len(labelled.record) - positive >= least)
    names = tuple(name for name, kept in zip(labelled.names, enough.tolist(), strict=True) if kept)
    return labelled._replace(label=labelled.label[:, enough], names=names)


def _table_text(labelled: LabelledECGs) -> Iterable[str]:
    yield f"{labelled.source}: {len(labelled.record)} ECGs, {len(labelled.skipped)} left out"
    for name, number in counts(labelled).items():
        code = snomed.LABELS.get(name, ("", None))[1]
        if number:
            yield f"  {number:6d}  {name}{f' ({code})' if code else ''}"
    absent = [name for name, number in counts(labelled).items() if not number]
    if absent:
        yield f"  none has: {', '.join(absent)}"
    if labelled.unmapped:
        yield "  not among the labels: " + ", ".join(f"{what} ({n})" for what, n in labelled.unmapped.items())


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m world_models.data.ecg.labelled", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--ludb", help="folder of LUDB")
    where.add_argument("--challenge", help="folder of Challenge-2021 records")
    where.add_argument("--records", help="folder of WFDB records, with --labels")
    parser.add_argument("--labels", help="CSV with a column 'record' and a column of 0 and 1 for each label")
    parser.add_argument("--out", help="write the labels as a CSV")
    options = parser.parse_args(arguments)
    if (options.records is None) != (options.labels is None):
        parser.error("--records and --labels go together")
    try:
        if options.out is not None:
            table = Path(options.ludb) / "ludb.csv" if options.ludb else options.labels and Path(options.labels)
            _writable(Path(options.out), table)
        if options.ludb:
            labelled = read_ludb(options.ludb)
        elif options.challenge:
            labelled = read_challenge(options.challenge)
        else:
            labelled = read_table(options.records, options.labels)
        print("\n".join(_table_text(labelled)))
        if options.out is not None:
            print(f"labels: {write_labels_csv(labelled, options.out)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
