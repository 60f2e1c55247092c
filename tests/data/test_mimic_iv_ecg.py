from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb

from world_models.data.ecg import monolith_convert
from world_models.data.ecg.mimic_iv_ecg import MimicEcgError, build, main, read_labels
from world_models.data.ecg.monolith import MonolithError, pairs, read_monolith, read_records, split

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # the order of MIMIC's files
# subject, study, hours since its first, diagnoses, ecg_no_within_stay, fold, sex, age
ROWS = [
    (10000032, 40689238, 0, ["I4891", "E785"], 0, 3, "F", 52.0),
    (10000032, 44458630, 30, ["I48.0", "I10"], 1, 3, "F", 52.0),
    (10000032, 49036311, 900, ["I10", "I4581"], 0, 3, "F", 53.0),
    (10000117, 45090959, 5, ["E785"], 0, 18, "missing", np.nan),
    (10000117, 48446569, 0, [], -1, 18, "missing", np.nan),
    (10000764, 42045010, 0, ["I2510", "I10", "W19XXXA"], 0, 19, "M", 86.0),
    (10000764, 42045011, 1, ["I2510", "I10"], 1, 19, "M", 86.0),
    (10000935, 40000001, 0, ["I2510"], 0, 0, "M", 91.0),
]


def leads_mv(study: int) -> np.ndarray:
    """[12, 5000] in the standard order, different for every study, obeying Einthoven."""
    t = np.arange(5000) / 500
    wave = [np.sin(2 * np.pi * (1 + 0.1 * k + study % 7 * 0.05) * t) * (0.4 + 0.1 * k) for k in range(8)]
    one, two = wave[:2]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *wave[2:]])


def write_record(root: Path, subject: int, study: int, signal: np.ndarray | None = None) -> Path:
    folder = root / f"files/p{str(subject)[:4]}/p{subject}/s{study}"
    folder.mkdir(parents=True)
    standard = ["I", "II", "III", "aVR", "aVL", "aVF", *LEADS[6:]]
    signal = leads_mv(study) if signal is None else signal
    wfdb.wrsamp(
        str(study),
        fs=500,
        units=["mV"] * 12,
        sig_name=LEADS,
        p_signal=signal[[standard.index(n) for n in LEADS]].T,
        fmt=["16"] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )
    return folder / f"{study}.hea"


def frame() -> pd.DataFrame:
    start = pd.Timestamp("2180-05-06 22:30:00")
    lists = [str(row[3]) for row in ROWS]
    return pd.DataFrame(
        {
            "file_name": [f"mimic-iv-ecg-1.0/files/p{str(r[0])[:4]}/p{r[0]}/s{r[1]}/{r[1]}" for r in ROWS],
            "study_id": [r[1] for r in ROWS],
            "subject_id": [r[0] for r in ROWS],
            "ecg_time": [str(start + pd.Timedelta(hours=r[2])) for r in ROWS],
            "ed_stay_id": None,
            "ed_hadm_id": None,
            "hosp_hadm_id": None,
            "ed_diag_ed": ["[]"] * len(ROWS),
            "ed_diag_hosp": lists,
            "hosp_diag_hosp": ["[]"] * len(ROWS),
            "all_diag_hosp": lists,
            "all_diag_all": lists,
            "gender": [r[6] for r in ROWS],
            "age": [r[7] for r in ROWS],
            "anchor_year": 2180.0,
            "anchor_age": 52.0,
            "dod": None,
            "ecg_no_within_stay": [r[4] for r in ROWS],
            "ecg_taken_in_ed": True,
            "ecg_taken_in_hosp": False,
            "ecg_taken_in_ed_or_hosp": True,
            "fold": [r[5] for r in ROWS],
            "strat_fold": [r[0] % 20 for r in ROWS],
        }
    )


@pytest.fixture
def folder(tmp_path):
    """(root, labels): MIMIC-IV-ECG's layout with its list of records, and the table of labels beside it."""
    root = tmp_path / "mimic"
    root.mkdir()
    for subject, study, *_ in ROWS:
        write_record(root, subject, study)
    pd.DataFrame(
        {
            "subject_id": [r[0] for r in ROWS],
            "study_id": [r[1] for r in ROWS],
            "file_name": [r[1] for r in ROWS],
            "ecg_time": frame()["ecg_time"],
            "path": [f"files/p{str(r[0])[:4]}/p{r[0]}/s{r[1]}/{r[1]}" for r in ROWS],
        }
    ).to_csv(root / "record_list.csv", index=False)
    labels = tmp_path / "records_w_diag_icd10.csv"
    frame().to_csv(labels, index=False)
    return root, labels


def test_the_command_writes_a_monolith_and_the_flow(folder, tmp_path, capsys):
    root, labels = folder
    out = tmp_path / "m.h5"
    assert main(["--root", str(root), "--labels", str(labels), "--out", str(out), "--workers", "1", "--quiet"]) == 0
    m = read_monolith(out)
    studies = read_records(out).tolist()
    assert studies == [40689238, 44458630, 49036311, 45090959, 42045010, 42045011, 40000001]  # no row without diagnoses
    assert m.codes == ("I10", "I25", "I45", "I48")
    assert m.label.int().tolist() == [
        [0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0],
    ]  # fmt: skip
    assert m.days.tolist() == pytest.approx([0, 1.25, 37.5, 5 / 24, 0, 1 / 24, 0])  # since the first ECG, kept or not
    assert m.first.tolist() == [True, False, True, True, True, False, True]
    assert m.sex_female.nan_to_num(-1).tolist() == [1, 1, 1, -1, 0, 0, 0]
    assert m.age_years.nan_to_num(-1).tolist() == [52, 52, 53, -1, 86, 86, 91]
    assert split(m, "train").patient.tolist() == [10000032] * 3 + [10000935]
    assert len(split(m, "valid").patient) == 1 and len(split(m, "test").patient) == 2
    before, after = pairs(m)
    assert list(zip(before.tolist(), after.tolist(), strict=True)) == [(0, 1), (1, 2), (4, 5)]
    said = capsys.readouterr().out
    for line in (
        "8  rows in the table (1 patients",
        "7  with diagnoses",
        "6  with a code of chapter IX (4",
        "7  readable (0 not)",
        "3  consecutive pairs",
        "2  changed, of 1 patients; 33.3% stable",
        "1: 50.0%, 2: 50.0%",
        "codes an ECG: 1.43",
        "4  consecutive pairs",
        "codes an ECG: 1.25",
    ):
        assert line in said, said


def test_waves_are_in_the_standard_order_in_mv_at_the_rate_asked(folder, tmp_path):
    root, labels = folder
    build(root, labels, tmp_path / "m.h5", workers=1)
    m = read_monolith(tmp_path / "m.h5")
    assert m.ecg.shape == (7, 12, 1000) and m.ecg.dtype == torch.float16 and m.sampling_rate_hz == 100.0
    for row, study in enumerate(read_records(tmp_path / "m.h5").tolist()):
        expected = leads_mv(study)[:, ::5]
        error = np.abs(m.ecg[row].float().numpy() - expected)[:, 20:-20].max()
        assert error < 0.01, (study, error)  # a 5 uV digit, float16 and the filter's ripple
    build(root, labels, tmp_path / "fine.h5", workers=1, rate=250.0, seconds=4.0, limit=2)
    assert read_monolith(tmp_path / "fine.h5").ecg.shape == (2, 12, 1000)


def test_a_stopped_run_goes_on_and_gives_the_same_file(folder, tmp_path, monkeypatch):
    root, labels = folder
    monkeypatch.setattr(monolith_convert, "BLOCK", 2)
    build(root, labels, tmp_path / "whole.h5", workers=1)
    read, done = monolith_convert._read_block, []

    def stop(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[0])
        return read(*arguments)

    monkeypatch.setattr(monolith_convert, "_read_block", stop)
    with pytest.raises(KeyboardInterrupt):
        build(root, labels, tmp_path / "m.h5", workers=1)
    assert (tmp_path / "m.h5.part").exists() and not (tmp_path / "m.h5").exists()
    with pytest.raises(MonolithError, match="source"):
        build(root, labels, tmp_path / "m.h5", workers=1, fold_column="strat_fold")
    again = []
    monkeypatch.setattr(monolith_convert, "_read_block", lambda *a: (again.append(a[0]), read(*a))[1])
    flow = build(root, labels, tmp_path / "m.h5", workers=1)
    assert len(again) == 2 and not set(again[0]) & {path for block in done for path in block}
    assert flow.written == 7
    for a, b in zip(read_monolith(tmp_path / "m.h5"), read_monolith(tmp_path / "whole.h5"), strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_workers_give_what_one_process_gives(folder, tmp_path):
    root, labels = folder
    build(root, labels, tmp_path / "one.h5", workers=1)
    build(root, labels, tmp_path / "two.h5", workers=2)
    one, two = read_monolith(tmp_path / "one.h5"), read_monolith(tmp_path / "two.h5")
    assert torch.equal(one.ecg, two.ecg) and torch.equal(one.label, two.label) and torch.equal(one.patient, two.patient)


def test_records_that_are_missing_or_broken_are_counted_up_to_a_share(folder, tmp_path):
    root, labels = folder
    for path in (root / "files/p1000/p10000935/s40000001").iterdir():
        path.unlink()
    with pytest.raises(MimicEcgError, match=r"1 of 7 records.*40000001.*1\.0%"):
        build(root, labels, tmp_path / "m.h5", workers=1)
    assert not list(tmp_path.glob("m.h5*"))  # nothing was written
    broken = leads_mv(42045011)
    broken[:, 1000:4000] = np.nan
    for path in (root / "files/p1000/p10000764/s42045011").iterdir():
        path.unlink()
    (root / "files/p1000/p10000764/s42045011").rmdir()
    write_record(root, 10000764, 42045011, broken)
    with pytest.raises(MimicEcgError, match="1 of 6 records cannot be read"):
        build(root, labels, tmp_path / "m.h5", workers=1, most_missing=0.15)
    flow = build(root, labels, tmp_path / "m.h5", workers=1, most_missing=0.2)
    assert (flow.chosen, flow.missing, flow.unreadable, flow.written) == (7, 1, 1, 5)
    assert read_records(tmp_path / "m.h5").tolist() == [40689238, 44458630, 49036311, 45090959, 42045010]


def test_without_a_list_of_records_the_paths_follow_the_layout(folder, tmp_path):
    root, labels = folder
    (root / "record_list.csv").unlink()
    flow = build(root, labels, tmp_path / "m.h5", workers=1, undiagnosed=True)
    assert (flow.chosen, flow.written) == (8, 8)
    m = read_monolith(tmp_path / "m.h5")
    assert m.days[3:5].tolist() == pytest.approx([0, 5 / 24])  # its rows stood in the wrong order
    assert not m.first[3] and m.first[4]


def test_the_label_set_may_be_given(folder):
    table = read_labels(folder[1], codes=("I48", "I50"))
    assert table.codes == ("I48", "I50") and table.label[:, 0].sum() == 2 and not table.label[:, 1].any()
    assert read_labels(folder[1], fold_column="strat_fold").fold.tolist() == [12] * 3 + [17] * 2 + [4] * 2 + [15]


def test_other_chapters_and_finer_codes(folder, tmp_path, capsys):
    both = read_labels(folder[1], chapters=("IX", "IV", "XX"))
    assert {"I10", "E78", "W19"} <= set(both.codes)
    one = read_labels(folder[1])
    column = [both.codes.index(code) for code in one.codes]
    assert torch.equal(both.label[:, column], one.label), "chapter IX reads as it does alone"
    assert int(both.label[:, both.codes.index("E78")].sum()) == sum("E785" in row[3] for row in ROWS)
    fine = read_labels(folder[1], codes=("I48", "I480", "I48.91", "W19"))
    assert fine.codes == ("I48", "I48.0", "I48.91", "W19")
    said = [[code.replace(".", "") for code in row[3]] for row in ROWS]
    for i, start in enumerate(("I48", "I480", "I4891", "W19")):
        assert int(fine.label[:, i].sum()) == sum(any(c.startswith(start) for c in codes) for codes in said)
    assert bool((fine.label[:, 0] >= fine.label[:, 1]).all()), "who has a finer code has the category"
    with pytest.raises(MimicEcgError, match="I99Z|'Q9"):
        read_labels(folder[1], codes=("I48", "Q9"))
    with pytest.raises(MimicEcgError, match="no diagnosis of chapters II in"):
        read_labels(folder[1], chapters=("II",))
    out = tmp_path / "m.h5"
    arguments = ["--root", str(folder[0]), "--labels", str(folder[1]), "--out", str(out), "--quiet"]
    assert main([*arguments, "--chapters", "IX", "IV"]) == 0
    assert "of chapters IX, IV (" in capsys.readouterr().out
    assert "E78" in read_monolith(out).codes


def wrong(column: str, row: int, value: object):
    return lambda table: table.assign(**{column: [value if i == row else old for i, old in enumerate(table[column])]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns=["age", "fold"]), "lacks age, fold"),
        (wrong("all_diag_all", 1, "['I48.0', 'I17']"), "'I17'.*I16"),
        (wrong("all_diag_all", 1, "__import__('os').getcwd()"), "row 3.*must be a list"),
        (wrong("all_diag_all", 1, "['I48'"), "row 3.*must be a list"),
        (wrong("all_diag_all", 2, "{'I48': 1}"), "row 4.*must be a list"),
        (wrong("ecg_time", 2, "yesterday"), "'yesterday' in row 4"),
        (wrong("fold", 0, 20), "20.* in row 2"),
        (wrong("fold", 0, 5), "1 patients.*10000032"),
        (wrong("study_id", 1, 40689238), "40689238.*more than once"),
        (lambda table: table.assign(all_diag_all="['E785']"), "chapter IX"),
        (lambda table: table.iloc[:0], "no rows"),
    ],
)
def test_a_table_that_is_wrong_says_how(folder, tmp_path, change, words):
    root, labels = folder
    change(frame()).to_csv(labels, index=False)
    with pytest.raises(MimicEcgError, match=words):
        build(root, labels, tmp_path / "m.h5", workers=1)
    assert not list(tmp_path.glob("m.h5*"))


def test_the_command_reports_errors_and_writes_nothing(folder, tmp_path, capsys):
    root, labels = folder
    out = tmp_path / "m.h5"
    assert main(["--root", str(tmp_path / "no"), "--labels", str(labels), "--out", str(out)]) == 2
    assert main(["--root", str(root), "--labels", str(tmp_path / "no.csv"), "--out", str(out)]) == 2
    assert main(["--root", str(root), "--labels", str(labels), "--out", str(out), "--limit", "0"]) == 2
    out.write_text("mine")
    assert main(["--root", str(root), "--labels", str(labels), "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    said = capsys.readouterr().err
    assert all(word in said for word in ("no folder", "no table of labels", "limit=0", "exists already"))


def test_a_listed_path_that_leads_out_of_the_folder_is_refused(folder, tmp_path, capsys):
    root, labels = folder
    listed = root / "record_list.csv"
    for path in ("../elsewhere/1", "/elsewhere/1"):
        listed.write_text(re.sub(r"files/p1000/\S+/40689238$", path, listed.read_text(), count=1, flags=re.MULTILINE))
        arguments = ["--root", str(root), "--labels", str(labels), "--out", str(tmp_path / "m.h5"), "--quiet"]
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        assert code == 2 and f"'{path}' leads out of" in capsys.readouterr().err
        listed.write_text(listed.read_text().replace(path, "files/p1000/p10000032/s40689238/40689238"))
