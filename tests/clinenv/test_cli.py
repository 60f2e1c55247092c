"""The commands on records of every kind: good ones give the numbers, bad ones one clear line and nothing written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clinenv.commands.main import COMMANDS, main
from tests.clinenv import records
from tests.clinenv.records import LEADS, drawn_ecg, write_record

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("CLINENV_DATA", ROOT / "../shared/data"))
KEYS = {"pr_ms", "qrs_ms", "qt_ms", "qtcf_ms", "jt_peak_ms", "tpeak_tend_ms", "heart_rate_bpm", "quality"}
SIMULATE = ("--age", "61", "--sex", "F", "--drug", "dofetilide", "--dose-ug", "500", "--world", "oracle")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"))


def simulate(record: Path | str, folder: Path, *more: str) -> int:
    out = ("--out", str(folder / "report.html"), "--json", str(folder / "numbers.json"))
    return main(["simulate", "--ecg", str(record), *SIMULATE, "--hours", "12", *out, *more])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "clinenv", *arguments], capture_output=True, text=True, env=environment
    )


# ---- measure


def test_measure_prints_and_writes_the_intervals(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.json"
    assert main(["measure", "--ecg", str(record), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert KEYS | {"record", "warnings", "trusted", "jt_peak_c_ms"} <= found.keys()
    assert found["trusted"] is True and found["record"] == "rec" and list(tmp_path.iterdir()) == [out]
    assert found["heart_rate_bpm"] == pytest.approx(60000 / records.RR_MS, abs=1)
    assert found["qt_ms"] == pytest.approx(records.QT_MS, abs=20)
    assert found["pr_ms"] == pytest.approx(records.PR_MS, abs=20)
    assert found["qtcf_ms"] == pytest.approx(found["qt_ms"] / (60 / found["heart_rate_bpm"]) ** (1 / 3), abs=0.6)
    printed = capsys.readouterr().out
    assert "QTcF" in printed and "not for clinical use" in printed


def test_any_lead_order_gain_unit_and_rate_reads_the_same(record: Path, tmp_path: Path) -> None:
    from clinenv.commands.measure import measure_record

    plain = measure_record(record).intervals
    shuffled = write_record(tmp_path, "shuffled", order=LEADS[::-1], gain=200.0)
    microvolt = write_record(tmp_path, "microvolt", unit="uV", gain=500.0)
    fast = write_record(tmp_path, "fast", hz=1000.0)
    for other, within in ((shuffled, 2.0), (microvolt, 2.0), (fast, 4.0)):
        for name, value in measure_record(other).intervals.items():
            assert value == pytest.approx(plain[name], abs=within), (other.name, name)


def test_a_flat_lead_is_a_stated_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ecg = drawn_ecg()
    ecg[LEADS.index("V2")] = 0.0
    flat = write_record(tmp_path, "flat", ecg)
    assert main(["measure", "--ecg", str(flat), "--json", str(tmp_path / "m.json")]) == 0
    assert any("V2" in w and "flat" in w for w in json.loads((tmp_path / "m.json").read_text())["warnings"])
    assert "V2 is flat" in capsys.readouterr().err
    assert simulate(flat, tmp_path) == 0
    assert "V2 is flat" in (tmp_path / "report.html").read_text()
    assert any("V2 is flat" in w for w in json.loads((tmp_path / "numbers.json").read_text())["warnings"])


def test_an_interval_that_is_not_there_is_null(tmp_path: Path) -> None:
    from clinenv.commands.measure import measure_record
    from clinenv.ecg import Measurement

    found = measure_record(write_record(tmp_path))
    gone = {**found.intervals, "pr_ms": math.nan}
    numbers = Measurement(**{**vars(found), "intervals": gone}).as_json()
    assert numbers["pr_ms"] is None
    json.dumps(numbers, allow_nan=False)


# ---- simulate


def test_simulate_writes_the_report_and_the_same_numbers(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(record, tmp_path) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["numbers.json", "report.html"]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(html.encode()) < 2_000_000 and "not for clinical use" in html and html.count("<svg") >= 9
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["hours"] == [0, 2, 4, 6, 8, 10, 12] and numbers["samples"] == 32
    for name, course in numbers["courses"].items():
        low, middle, high = (np.array(course[k]) for k in ("p05", "median", "p95"))
        assert (low <= middle).all() and (middle <= high).all(), name
    qtcf = numbers["courses"]["qtcf_ms"]["median"]
    assert qtcf[0] == pytest.approx(numbers["measured"]["qtcf_ms"], abs=5)
    assert max(qtcf) - qtcf[0] > 20, "half a milligram of dofetilide prolongs QTcF"
    assert numbers["peak_hour"] == numbers["hours"][1:][int(np.argmax(qtcf[1:]))]
    rise = numbers["risk"]["largest_qtcf_rise_ms"]
    assert rise["score"] == pytest.approx(rise["mean"] + rise["lambda"] * rise["sd"], abs=1e-3)
    share = numbers["risk"]["qtcf_rise_above_60_ms"]
    assert share["probability"] == pytest.approx(share["samples"] / share["of"], abs=1e-4)
    assert share["low"] <= share["probability"] <= share["high"]
    share = numbers["risk"]["ecgs_in_atrial_fibrillation"]["share"]
    assert 0.1 < share < 0.7, "patients are admitted for it, and a part of their ECGs shows it"
    assert f"{100 * share:.0f} %" in html and "the median rate may jump" in html
    assert f"{numbers['measured']['qtcf_ms']:.0f} ms" in html
    alike = numbers["beat_correlation"]
    assert set(alike) == {"decoder", "shown"} and all(0.9 < r <= 1 for r in alike.values()), alike
    assert f"r = {alike['shown']:.3f}" in html
    assert "QTcF" in capsys.readouterr().out


def test_a_card_is_told_in_sentences_without_its_tables(tmp_path: Path) -> None:
    from clinenv.commands.worlds import _card

    card = (
        "# world\n\nIt learned.\n\n## Training data\n\n- First set.\n- Second set\n- Third.\n\nAttribution:\n\n- A.\n"
    )
    (tmp_path / "CARD.md").write_text(
        card + "\n## Limits\n\n- One.\n- Errors of each:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    told = _card(tmp_path)
    assert told["Training data"] == "First set. Second set; Third. Attribution: A."
    assert told["Limits"] == "One."


def test_the_same_seed_gives_the_same_numbers(record: Path, tmp_path: Path) -> None:
    texts = []
    for i, seed in enumerate(("3", "3", "4")):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert simulate(record, folder, "--seed", seed, "--samples", "8") == 0
        texts.append((folder / "numbers.json").read_text())
    assert texts[0] == texts[1] and json.loads(texts[0])["courses"] != json.loads(texts[2])["courses"]


def test_doses_in_both_units_and_repeated(record: Path, tmp_path: Path) -> None:
    orders = []
    for i, more in enumerate((("--every-hours", "6"), ("--times", "0,6"))):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert simulate(record, folder, "--samples", "4", *more) == 0
        orders.append(json.loads((folder / "numbers.json").read_text()))
    assert orders[0]["order"] == {"drug": "dofetilide", "dose_mg": 0.5, "times_h": [0, 6], "hours": 12}
    assert orders[0]["courses"] == orders[1]["courses"]
    out = ["--out", str(tmp_path / "mg.html"), "--json", str(tmp_path / "mg.json")]
    milligrams = ["--drug", "Dofetilide", "--dose-mg", "0.5", "--times", "0,6", "--world", "oracle", "--samples", "4"]
    assert main(["simulate", "--ecg", str(record), *milligrams, "--hours", "12", *out]) == 0  # age, sex: the header's
    assert json.loads((tmp_path / "mg.json").read_text())["courses"] == orders[0]["courses"]


def test_a_short_record_is_continued_by_its_own_beats(tmp_path: Path) -> None:
    import torch

    from clinenv.commands.simulate.command import ten_seconds

    ecg = torch.from_numpy(drawn_ecg(noise_uv=0.0)).float()
    peaks = torch.tensor([225 + 450 * i for i in range(9)] + [-1])
    longer = ten_seconds(ecg[:, :4250], peaks)
    assert longer.shape == (12, 5000)
    assert torch.allclose(longer, ecg, atol=0.02)
    assert simulate(write_record(tmp_path, "short", drawn_ecg(8.5)), tmp_path, "--samples", "4") == 0
    assert "continued by its own beats" in (tmp_path / "report.html").read_text()


# ---- bad input: one line, exit code 2, nothing written


def _bad_record(kind: str, folder: Path) -> Path:
    if kind == "missing leads":
        return write_record(folder, order=LEADS[8:9])
    if kind == "NaN leads":
        ecg = drawn_ecg()
        ecg[[i for i, lead in enumerate(LEADS) if lead != "V3"]] = np.nan
        return write_record(folder, ecg_mv=ecg)
    if kind == "two seconds":
        return write_record(folder, ecg_mv=drawn_ecg(2.0))
    path = write_record(folder)
    header = path.with_suffix(".hea")
    text = header.read_text()
    if kind == "unknown unit":
        header.write_text(text.replace("/mV", "/furlong"))
    elif kind == "rate 0":
        header.write_text(text.replace("rec 12 500", "rec 12 0"))
    elif kind == "text file":
        header.write_text("Dear colleague,\nthank you for the patient.\n")
    elif kind == "absent":
        header.unlink()
    return path


@pytest.mark.parametrize("command", ["measure", "simulate"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing leads", "V3"),
        ("NaN leads", "V3"),
        ("two seconds", "2.0 s"),
        ("unknown unit", "furlong"),
        ("rate 0", "rate"),
        ("text file", "header"),
        ("absent", "rec.hea"),
    ],
)
def test_a_bad_record_is_refused(
    command: str, kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out = tmp_path / "in", tmp_path / "out"
    bad.mkdir()
    out.mkdir()
    record = _bad_record(kind, bad)
    if command == "measure":
        assert main(["measure", "--ecg", str(record), "--json", str(out / "m.json")]) == 2
    else:
        assert simulate(record, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("clinenv: error: ") and error.count("\n") == 1 and words in error
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--drug", "aspirin"), ("aspirin", "dofetilide", "quinidine")),
        (("--dose-ug", "50000"), ("50 mg", "1 mg", "unit")),
        (("--dose-ug", "0"), ("0 mg",)),
        (("--dose-ug", "-500"), ("-0.5 mg",)),
        (("--dose-ug", "nan"), ("dose-ug",)),
        (("--age", "7"), ("7", "18", "100")),
        (("--age", "610"), ("610", "100")),
        (("--weight", "700"), ("700", "200")),
        (("--hours", "0"), ("0", "168")),
        (("--hours", "1e6"), ("168",)),
        (("--hours", "5"), ("multiples of 2",)),
        (("--times", "0,13"), ("13",)),
        (("--times", "0,1"), ("multiples of 2",)),
        (("--times", "0,0"), ("once",)),
        (("--times", "noon"), ("noon",)),
        (("--every-hours", "0"), ("above 0",)),
        (("--samples", "1"), ("2 to",)),
        (("--world", "nowhere"), ("nowhere", "oracle")),
        (("--world", "ward-oracle"), ("ward-oracle", "no ecg_mv", "ecg-wm-small")),
        (("--clock-hour", "25"), ("25",)),
        (("--lambda", "-1"), ("-1",)),
    ],
)
def test_a_bad_argument_is_refused(
    more: tuple[str, ...], words: tuple[str, ...], record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(record, tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("clinenv: error: ") and all(word in error for word in words), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [("--dose-mg", "0.5"), ("--sex", "X"), ("--age", "old"), ("--hours",)])
def test_what_argparse_refuses_reads_the_same(
    more: tuple[str, ...], record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        simulate(record, tmp_path, *more)
    assert stopped.value.code == 2 and "clinenv: error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_age_and_sex_must_come_from_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = write_record(tmp_path, "nameless", comments=())
    order = ["--drug", "dofetilide", "--dose-ug", "500", "--world", "oracle", "--out", str(tmp_path / "r.html")]
    assert main(["simulate", "--ecg", str(nameless), *order]) == 2
    assert "--age" in capsys.readouterr().err
    assert main(["simulate", "--ecg", str(nameless), "--age", "50", *order]) == 2
    assert "--sex" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("flag", ["--out", "--json"])
def test_a_folder_that_is_not_there_is_refused_before_the_work(
    flag: str, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(record, tmp_path, flag, str(tmp_path / "nowhere" / "file")) == 2
    assert "nowhere" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert simulate(record, tmp_path, flag, str(tmp_path)) == 2
    assert "is a folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


# ---- the frame


def test_help_and_version_load_no_torch() -> None:
    code = (
        "import sys\nfrom clinenv.commands.main import main\n"
        "for words in (['--help'], ['simulate', '--help']):\n"
        "    try: main(words)\n    except SystemExit as stop: assert stop.code == 0\n"
        "assert main(['--version']) == 0\n"
        "assert not {'torch', 'pandas', 'wfdb', 'matplotlib'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_run_as_a_module(record: Path, tmp_path: Path) -> None:
    done = run("measure", "--ecg", str(record))
    assert done.returncode == 0 and "QTcF" in done.stdout
    done = run("measure", "--ecg", str(tmp_path / "none"))
    assert done.returncode == 2 and done.stderr.startswith("clinenv: error: ") and "Traceback" not in done.stderr
    assert run().returncode == 2


def test_worlds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds"]) == 0
    printed = capsys.readouterr().out
    assert "oracle" in printed and "ecg-wm-small" in printed


# ---- real records


@pytest.mark.parametrize("where", ["ecg_12lead/cinc2021", "ecg_12lead/ptb", "ludb/data"])
def test_real_records_are_measured_and_simulated(where: str, tmp_path: Path) -> None:
    headers = sorted((DATA / where).glob("*.hea"))[:3]
    if not headers:
        pytest.skip(f"no records in {DATA / where}; set CLINENV_DATA to the folder that holds {where}")
    for header in headers:
        assert main(["measure", "--ecg", str(header), "--json", str(tmp_path / "m.json")]) == 0
        found = json.loads((tmp_path / "m.json").read_text())
        assert found.keys() >= KEYS and 20 < found["heart_rate_bpm"] < 250
        if found["trusted"]:
            assert simulate(header, tmp_path, "--samples", "4") == 0
            assert (tmp_path / "report.html").stat().st_size < 2_000_000
