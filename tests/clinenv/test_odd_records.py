"""Records as people have them: no rate, short, without a unit, ages in months; what each command says and does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from clinenv.commands.main import main
from clinenv.commands.simulate.command import ten_seconds
from tests.clinenv.records import RR_MS, drawn_ecg, write_record

ORDER = ("--drug", "dofetilide", "--dose-ug", "500", "--world", "oracle", "--hours", "4", "--samples", "4")
WHO = ("--age", "61", "--sex", "F")


def _measure(record: Path, *more: str) -> dict:
    out = record.parent / "measured.json"
    assert main(["measure", "--ecg", str(record), "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def _simulate(record: Path, *more: str) -> int:
    out = ("--out", str(record.parent / "out.html"), "--json", str(record.parent / "out.json"))
    return main(["simulate", "--ecg", str(record), *ORDER, *out, *more])


def _without_rate(folder: Path) -> Path:
    record = write_record(folder, hz=300.0, ecg_mv=drawn_ecg(hz=300.0))
    header = record.with_suffix(".hea")
    header.write_text(re.sub(r"^rec 12 300 3000", "rec 12", header.read_text()))
    return record


def test_a_record_without_a_rate_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = _without_rate(tmp_path)
    for command in (("measure",), ("simulate", *ORDER, *WHO, "--out", str(tmp_path / "out.html"))):
        assert main([command[0], "--ecg", str(record), *command[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("clinenv: error: ") and "no sampling rate" in error and "--rate-hz" in error
    found = _measure(record, "--rate-hz", "300")
    assert found["trusted"] and found["heart_rate_bpm"] == pytest.approx(60_000 / RR_MS, abs=0.5)
    assert _simulate(record, *WHO, "--rate-hz", "300") == 0
    for wrong in ("0", "-300", "nan", "inf"):
        assert main(["measure", "--ecg", str(record), "--rate-hz", wrong]) == 2
        assert "--rate-hz" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["no unit", "hum", "noise", "ramp"])
def test_one_gate_for_what_cannot_be_measured(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = np.arange(5000) / 500
    traces = {"hum": np.tile(np.sin(2 * np.pi * 50 * time), (12, 1)), "ramp": np.tile(time / 10, (12, 1))}
    traces["noise"] = np.random.default_rng(0).normal(0, 0.5, (12, 5000))
    record = write_record(tmp_path, ecg_mv=traces.get(kind))
    if kind == "no unit":
        header = record.with_suffix(".hea")
        header.write_text(re.sub(r"1000(\.0)?\(0\)/mV", "1(0)", header.read_text()))
    found = _measure(record)
    assert not found["trusted"] and not found["measurable"]
    assert any("nothing on this recording can be measured" in text for text in found["warnings"])
    assert _simulate(record, *WHO) == 2
    assert "no baseline to start from" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.*"))


def test_seven_seconds_are_measured_and_simulated(tmp_path: Path) -> None:
    record = write_record(tmp_path, ecg_mv=drawn_ecg(7.0))
    found = _measure(record)
    assert found["trusted"] and found["heart_rate_bpm"] == pytest.approx(60_000 / RR_MS, abs=0.5)
    assert any("7.0 s of signal, shorter than the 10 s" in text for text in found["warnings"])
    assert _simulate(record, *WHO) == 0
    said = json.loads((tmp_path / "out.json").read_text())["warnings"]
    assert any("continued by its own beats" in text for text in said)


@pytest.mark.parametrize("seconds", [4.0, 5.3, 7.0, 9.9])
def test_whole_beats_are_tiled(seconds: float) -> None:
    whole = torch.from_numpy(drawn_ecg(noise_uv=0.0)).float()
    length = round(seconds * 500)
    peaks = torch.tensor([r for r in range(225, length, 450)] + [-1])
    longer = ten_seconds(whole[:, :length], peaks)
    assert longer.shape == (12, 5000) and torch.equal(longer[:, :length], whole[:, :length])
    assert (longer - whole).abs().max() < 0.02


@pytest.mark.parametrize(
    ("comments", "age"),
    [
        (("Age: 36 months", "Sex: M"), 3.0),
        (("Age: 90 days", "Sex: M"), 0.246),
        (("Age: 18-29", "Sex: M"), None),
        (("Age: 65, Sex: Male",), 65.0),
        (("<age>: 25  <sex>: M  <diagnoses>: (none)",), 25.0),
        (("Age (months): 36, Gender: male",), 3.0),
        (("age=044Y;sex=m",), 44.0),
        (("Sex: Male Age: 30",), 30.0),
        (("Gestational age: 32 weeks", "Sex: M"), None),
        (("Age: 1 year, 6 months", "Sex: M"), 1.5),
        (("Age: 56,5 Sex: M",), 56.5),
        (("Age: 30 to 40", "Sex: man"), None),
        (("<age> 51 <sex> M",), 51.0),
    ],
)
def test_ages_keep_their_unit(comments: tuple[str, ...], age: float | None, tmp_path: Path) -> None:
    from world_models.data.ecg.wfdb.reader import read_ecg

    found = read_ecg(write_record(tmp_path, comments=comments))
    assert found.sex_female is False
    assert found.age_years is None if age is None else found.age_years == pytest.approx(age, abs=1e-3)


@pytest.mark.parametrize(
    ("comments", "age", "female", "said"),
    [
        (("Age: unknown", "Age: 45", "Sex: F"), 45.0, True, ""),
        (("Age: ", "Age: 45", "Sex: -", "Sex: M"), 45.0, False, ""),
        (("Age: 45", "Age: 46", "Sex: F"), None, True, "age is stated as '45' and '46'"),
        (("Age: 45", "Age: 45 years", "Sex: F", "Sex: Female"), 45.0, True, ""),
        (("Age: 45", "Sex: F", "Gender: M"), 45.0, None, "sex is stated as 'F' and 'M'"),
        (("Age at diagnosis: 45", "Age: 60", "Sex: F"), 60.0, True, ""),
        (("Age at death: 70", "Sex: F"), None, True, ""),
        (("Age at the time of ECG: 45", "Sex: F"), 45.0, True, ""),
        (("Father age: 80", "Sex: F"), None, True, ""),
    ],
)
def test_statements_that_contradict_each_other(
    comments: tuple[str, ...], age: float | None, female: bool | None, said: str, tmp_path: Path
) -> None:
    from world_models.data.ecg.wfdb.reader import read_ecg

    found = read_ecg(write_record(tmp_path, comments=comments))
    assert (found.age_years, found.sex_female) == (age, female)
    assert any(said in text for text in found.warnings) if said else not found.warnings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_headers_in_other_encodings(encoding: str, end: str, tmp_path: Path) -> None:
    from world_models.data.ecg.wfdb.reader import read_ecg

    record = write_record(tmp_path)
    header = record.with_suffix(".hea")
    text = header.read_text().replace("mV", "\N{MICRO SIGN}V").replace("1000.0", "1") + "# Größe: 180 cm\n"
    header.write_bytes(text.replace("\n", end).encode(encoding))
    found = read_ecg(record)
    assert (found.age_years, found.sex_female, found.warnings) == (61.0, True, ())
    assert np.abs(found.ecg_mv.numpy() - drawn_ecg()).max() < 1e-3
    header.write_bytes(text.encode("utf-16-le"))  # nothing says so
    with pytest.raises(ValueError, match="NUL bytes.*saved as UTF-8"):
        read_ecg(record)


def test_a_clipped_lead_is_said(tmp_path: Path) -> None:
    found = _measure(write_record(tmp_path, ecg_mv=drawn_ecg().clip(-0.3, 0.3)))
    assert any("clipped at its highest or lowest value" in text for text in found["warnings"])


def test_almost_four_seconds_are_not_called_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write_record(tmp_path, ecg_mv=drawn_ecg()[:, :1999])
    assert main(["measure", "--ecg", str(record)]) == 2
    assert "3.9 s of signal; at least 4 s are needed" in capsys.readouterr().err


def test_an_age_out_of_the_models_range_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _simulate(write_record(tmp_path, comments=("Age: 36 months", "Sex: M"))) == 2
    assert "3 is outside 18 to 100" in capsys.readouterr().err
    assert _simulate(write_record(tmp_path, comments=("Age: 18-29", "Sex: M"))) == 2
    assert "'18-29' is not one age in years, months or days: age unknown; give it with --age" in capsys.readouterr().err


def test_ectopy_is_a_warning(tmp_path: Path) -> None:
    ecg = drawn_ecg()
    at = round((0.5 * RR_MS + 4 * RR_MS) / 2) - 135  # 270 ms before its time
    beat = drawn_ecg(noise_uv=0.0)[:, 225 - 60 : 225 + 60]
    ecg[:, at - 60 : at + 60] += 1.5 * beat[:, ::-1]
    ecg[:, at + 60 : at + 320] = ecg[:, at + 60 : at + 61]
    found = _measure(write_record(tmp_path, ecg_mv=ecg))
    assert any(re.search(r"ectopy or an irregular rhythm: \d of \d+ beats", text) for text in found["warnings"])
    assert not any("ectopy" in text for text in _measure(write_record(tmp_path))["warnings"])
