"""Records written by wfdb in odd orders, names, gains, units and rates come back as the same ECG; bad ones say why."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb

from world_models import keys
from world_models.data.ecg.wfdb.reader import (
    RecordError,
    folder_records,
    parse_age_years,
    parse_sex_female,
    read_ecg,
)
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.lead_names import LEADS
from world_models.ecg.morphology import default_morphology
from world_models.ecg.waveform import (
    Intervals,
    beat_samples,
    beat_template,
    synthesise_ecg,
    tile,
)

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))


def _ecg(rate=500.0, seconds=10.0):
    """[T, 12] mV."""
    intervals = Intervals.of(*(torch.tensor([v]) for v in (72.0, 160.0, 96.0, 210.0, 80.0)))
    drawn = synthesise_ecg(
        keys.from_seed(1), 0, intervals, default_morphology(1), seconds=seconds, sampling_rate_hz=rate
    )
    return drawn[0].T.numpy().astype(np.float64)


def _write(folder, signal, name="rec", rate=500, leads=LEADS, units=None, gain=None, comments=(), fmt="16"):
    gain = gain or [1000.0] * signal.shape[1]
    wfdb.wrsamp(
        name,
        fs=rate,
        units=units or ["mV"] * signal.shape[1],
        sig_name=list(leads),
        p_signal=signal,
        fmt=[fmt] * signal.shape[1],
        adc_gain=gain,
        baseline=[7] * signal.shape[1],
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / name


def test_plain_record_comes_back(tmp_path):
    signal = _ecg()
    base = _write(tmp_path, signal, comments=["Age: 56", "Sex: Female"])
    for path in (base, f"{base}.hea", f"{base}.dat"):
        ecg = read_ecg(path)
        assert ecg.ecg_mv.shape == (12, 5000) and ecg.ecg_mv.dtype == torch.float32
        assert np.abs(ecg.ecg_mv.numpy() - signal.T).max() < 6e-4  # half a digit
        assert (ecg.age_years, ecg.sex_female, ecg.name, ecg.warnings, ecg.leads_missing) == (56.0, True, "rec", (), ())


@pytest.mark.parametrize(
    "names",
    [
        [name.upper() for name in LEADS],
        [name.lower() for name in LEADS],
        ["MLI", "MLII", "MLIII", "aVR", "aVL", "aVF", "C1", "C2", "C3", "C4", "C5", "C6"],
        ["Lead I", "Lead II", "lead iii", "avr", "avl", "avf", "V1", "V2", "V3", "V4", "V5", "V6"],
        [f"MDC_ECG_LEAD_{name.upper()}" for name in LEADS],
        [
            "\u2160 (mV)",
            "\u2161 [uV]",
            "\u2162",
            "aVR",
            "aVL (V)",
            "aVF",
            *(f"V{i} (\N{MICRO SIGN}V)" for i in range(1, 7)),
        ],
    ],
)
def test_lead_names_and_order(tmp_path, names):
    signal, order = _ecg(), np.random.default_rng(3).permutation(12)
    gains = [200.0 * (i + 1) for i in range(12)]
    base = _write(tmp_path, signal[:, order], leads=[names[i] for i in order], gain=gains)
    assert np.abs(read_ecg(base).ecg_mv.numpy() - signal.T).max() < 3e-3


@pytest.mark.parametrize("avr", ["-aVR", "\N{MINUS SIGN}aVR", "- aVR"])
def test_sign_of_cabrera_avr_and_other_channels(tmp_path, avr):
    signal = _ecg()
    signal[:, 3] *= -1
    wide = np.column_stack((np.random.default_rng(0).normal(size=5000), signal))
    base = _write(tmp_path, wide, leads=["ABP", "I", "II", "III", avr, *LEADS[4:]], units=["mmHg"] + ["mV"] * 12)
    signal[:, 3] *= -1
    assert np.abs(read_ecg(base).ecg_mv.numpy() - signal.T).max() < 6e-4


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e3), ("µV", 1e3), ("V", 1e-3), ("mv", 1.0), ("nV", 1e6)])
def test_units(tmp_path, unit, factor):
    signal = _ecg()
    base = _write(tmp_path, signal * factor, units=[unit] * 12, gain=[1000.0 / factor] * 12)
    assert np.abs(read_ecg(base).ecg_mv.numpy() - signal.T).max() < 6e-4


@pytest.mark.parametrize("rate", [250, 257, 360, 400, 1000, 2000])
def test_rates_are_resampled_in_place(tmp_path, rate):
    """The same continuous beat at another rate: no shift, no ripple beyond what the lost band explains."""
    intervals = Intervals.of(*(torch.tensor([v]) for v in (60.0, 160.0, 110.0, 210.0, 80.0)))
    key = keys.from_seed(8)
    r = beat_samples(key, 0, intervals.heart_rate_bpm)
    seconds = r.double() / 500

    def drawn(hz):
        exact = (seconds * hz).round().to(torch.int64)
        return derive_twelve(tile(beat_template(intervals, default_morphology(1), hz), exact, int(10 * hz)))[0].numpy()

    base = _write(tmp_path, drawn(float(rate)).T.astype(np.float64), rate=rate)
    ecg = read_ecg(base).ecg_mv.numpy()
    assert ecg.shape == (12, 5000)
    lag = max(range(-4, 5), key=lambda k: float((np.roll(ecg[1], k) * drawn(500.0)[1]).sum()))
    assert abs(lag) <= (1 if rate in (257, 360) else 0)  # R falls between samples there
    if rate in (250, 1000, 2000):
        assert np.abs(ecg - drawn(500.0))[:, 50:-50].max() < 0.06


def test_resampling_does_not_alias(tmp_path):
    t = np.arange(20000) / 2000
    signal = _ecg(2000.0) + 0.5 * np.sin(2 * np.pi * 700 * t)[:, None]
    ecg = read_ecg(_write(tmp_path, signal, rate=2000)).ecg_mv.numpy()
    clean = read_ecg(_write(tmp_path, _ecg(2000.0), name="clean", rate=2000)).ecg_mv.numpy()
    assert np.abs(ecg - clean)[:, 20:-20].max() < 0.02


@pytest.mark.parametrize("kept", [("I", "II"), ("II", "III"), ("aVR", "aVF"), ("III", "aVL"), ("I", "aVR")])
def test_two_limb_leads_give_all_six(tmp_path, kept):
    signal = _ecg()
    chosen = [*LEADS[6:], *kept]
    base = _write(tmp_path, signal[:, [LEADS.index(name) for name in chosen]], leads=chosen)
    ecg = read_ecg(base)
    assert np.abs(ecg.ecg_mv.numpy() - signal.T).max() < 4e-3
    assert set(ecg.leads_missing) == set(LEADS[:6]) - set(kept)
    assert any("derived" in warning for warning in ecg.warnings)


def test_swapped_leads_are_suspected(tmp_path):
    signal = _ecg()[:, [0, 1, 2, 4, 3, *range(5, 12)]]  # aVR and aVL exchanged
    assert any("swapped" in warning for warning in read_ecg(_write(tmp_path, signal)).warnings)


def test_long_record_gives_its_middle(tmp_path):
    signal = _ecg(seconds=60.0)
    ecg = read_ecg(_write(tmp_path, signal)).ecg_mv.numpy()
    assert np.abs(ecg - signal.T[:, 12500:17500]).max() < 6e-4
    long = np.tile(signal, (4, 1))
    again = read_ecg(_write(tmp_path, long, name="long")).ecg_mv.numpy()  # 4 min: only the middle two are read
    assert np.abs(again - long.T[:, 57500:62500]).max() < 6e-4


def test_shorter_than_asked_but_long_enough(tmp_path):
    ecg = read_ecg(_write(tmp_path, _ecg(seconds=8.5)))
    assert ecg.ecg_mv.shape == (12, 4250) and any("shorter" in warning for warning in ecg.warnings)


def test_gaps(tmp_path):
    signal = _ecg(seconds=30.0)
    short = signal.copy()
    short[7000:7010, 8] = np.nan
    ecg = read_ecg(_write(tmp_path, short, name="short"))
    assert torch.isfinite(ecg.ecg_mv).all() and any("V3" in w and "bridged" in w for w in ecg.warnings)
    moved = signal.copy()
    moved[7000:7500, 8] = np.nan
    ecg = read_ecg(_write(tmp_path, moved, name="moved"))
    assert torch.isfinite(ecg.ecg_mv).all() and any("moved" in w for w in ecg.warnings)
    assert ecg.ecg_mv.shape == (12, 5000)


def test_flat_leads_warn_then_fail(tmp_path):
    signal = _ecg()
    signal[:, 7] = 0.0
    ecg = read_ecg(_write(tmp_path, signal))
    assert any(warning.startswith("lead V2 is flat") for warning in ecg.warnings)
    signal[:, 6:11] = 0.25
    with pytest.raises(RecordError, match="5 flat leads .*V1, V2, V3, V4, V5.*at most 3"):
        read_ecg(_write(tmp_path, signal, name="flat"))


def test_bad_records_name_value_limit_and_remedy(tmp_path):
    signal = _ecg()
    with pytest.raises(RecordError, match="no WFDB record at a+: "):
        read_ecg("a" * 1000)
    with pytest.raises(RecordError, match="no WFDB record at .*give the path of a .hea"):
        read_ecg(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("not an ECG")
    with pytest.raises(RecordError, match="not a WFDB record"):
        read_ecg(tmp_path / "notes.txt")
    (tmp_path / "notes.hea").write_text("Dear colleague,\nthank you for the patient.\n")
    with pytest.raises(RecordError, match="not a WFDB header|sampling rate|empty"):
        read_ecg(tmp_path / "notes.hea")
    (tmp_path / "binary.hea").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(RecordError, match="not a WFDB header"):
        read_ecg(tmp_path / "binary")
    (tmp_path / "nothing.hea").write_text("")
    with pytest.raises(RecordError, match="not a WFDB header|empty"):
        read_ecg(tmp_path / "nothing")
    with pytest.raises(RecordError, match="is a folder"):
        read_ecg(tmp_path)
    eleven = [i for i in range(12) if i != 8]
    with pytest.raises(RecordError, match="missing leads: V3;.*needed are V1 to V6"):
        read_ecg(_write(tmp_path, signal[:, eleven], "eleven", leads=[LEADS[i] for i in eleven]))
    with pytest.raises(RecordError, match=r"limb leads II \(two are needed\)"):
        read_ecg(_write(tmp_path, signal[:, [1, *range(6, 12)]], "chest", leads=["II", *LEADS[6:]]))
    lost = signal.copy()
    lost[:, 8] = np.nan
    with pytest.raises(RecordError, match="missing leads: V3;.*without a valid sample: V3"):
        read_ecg(_write(tmp_path, lost, "lost"))
    half = signal.copy()
    half[1500:3500, 8] = np.nan
    with pytest.raises(RecordError, match="lead V3 lacks 2000 of 5000 samples.*under 4 s"):
        read_ecg(_write(tmp_path, half, "half"))
    with pytest.raises(RecordError, match="2.0 s of signal; at least 4 s"):
        read_ecg(_write(tmp_path, signal[:1000], "brief"))
    with pytest.raises(RecordError, match="lead V1 is in unit 'mmHg'; known are mV"):
        read_ecg(_write(tmp_path, signal, "unit", units=["mV"] * 6 + ["mmHg"] * 6))
    with pytest.raises(ValueError, match="sampling_rate_hz=0"):
        read_ecg(tmp_path / "unit", sampling_rate_hz=0)


def test_latin1_micro_sign(tmp_path):
    """wfdb drops what is not ASCII: its 'V' would be a million times too much."""
    signal = _ecg()
    base = _write(tmp_path, signal * 1e3, units=["uV"] * 12, gain=[1.0] * 12)
    header = base.with_suffix(".hea")
    header.write_bytes(header.read_bytes().replace(b"/uV", b"/\xb5V"))
    assert np.abs(read_ecg(base).ecg_mv.numpy() - signal.T).max() < 6e-4


@pytest.mark.parametrize("rate", ["0", "5", "100000"])
def test_absurd_rates(tmp_path, rate):
    base = _write(tmp_path, _ecg())
    header = base.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec 12 500 5000", f"rec 12 {rate} 5000"))
    with pytest.raises(RecordError, match="sampling rate .* is outside 100 to 10000 Hz"):
        read_ecg(base)


def test_missing_and_truncated_signal_files(tmp_path):
    base = _write(tmp_path, _ecg())
    dat = base.with_suffix(".dat")
    content = dat.read_bytes()
    dat.write_bytes(content[: len(content) // 3])
    with pytest.raises(RecordError, match="rec.dat holds 1666 samples of each signal, its header states 5000"):
        read_ecg(base)
    dat.unlink()
    with pytest.raises(RecordError, match="rec.dat does not exist"):
        read_ecg(base)


def test_header_without_gain_is_said(tmp_path):
    base = _write(tmp_path, _ecg(), gain=[200.0] * 12)
    header = base.with_suffix(".hea")
    header.write_text(header.read_text().replace("200.0(7)/mV", "0(7)/mV").replace("200(7)/mV", "0(7)/mV"))
    ecg = read_ecg(base)
    assert any("states no gain" in warning for warning in ecg.warnings)


def test_age_and_sex_in_their_many_forms():
    assert [parse_age_years(x) for x in ("56", ">89", "300", "NaN", "", "61.5", "-4", "999")] == [
        56.0,
        90.0,
        90.0,
        None,
        None,
        61.5,
        None,
        None,
    ]
    sexes = {"F": True, "Female": True, " male": False, "M": False, "Unknown": None, "": None}
    assert {x: parse_sex_female(x) for x in sexes} == sexes


@pytest.mark.parametrize("lines", [["<age>: 51", "<sex>: F"], ["age: 51", "sex: female"], ["Age: 51", "Gender: F"]])
def test_header_styles(tmp_path, lines):
    ecg = read_ecg(_write(tmp_path, _ecg(), comments=lines))
    assert (ecg.age_years, ecg.sex_female) == (51.0, True)


def test_folder_records(tmp_path):
    (tmp_path / "deep").mkdir()
    _write(tmp_path, _ecg(), name="b")
    _write(tmp_path / "deep", _ecg(), name="a")
    assert folder_records(tmp_path) == [tmp_path / "b", tmp_path / "deep" / "a"]
    (tmp_path / "none").mkdir()
    with pytest.raises(RecordError, match="no .hea file"):
        folder_records(tmp_path / "none")
    with pytest.raises(RecordError, match="not a folder"):
        folder_records(tmp_path / "absent")


@pytest.mark.skipif(not (DATA / "ecg_12lead").is_dir(), reason=f"no ecg_12lead in {DATA} (set CLINENV_DATA)")
def test_real_records():
    records = folder_records(DATA / "ecg_12lead")
    assert len(records) == 26
    for path in records:
        ecg = read_ecg(path)
        assert ecg.ecg_mv.shape == (12, 5000) and torch.isfinite(ecg.ecg_mv).all()
        assert ecg.age_years is not None and ecg.sex_female is not None
        one, two, three = ecg.ecg_mv[:3]
        assert (two - one - three).abs().max() < 0.02
