"""Every storage format, rate and cutting of a record gives the samples that were put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from tests.data.test_wfdb_reader import _ecg, _write
from world_models.data.ecg.wfdb.header import RecordError, read_header
from world_models.data.ecg.wfdb.reader import folder_records, read_ecg
from world_models.data.ecg.wfdb.signals import frames_of, read_channels
from world_models.ecg.lead_names import LEADS

RANGES = {8: 7, 80: 8, 16: 16, 61: 16, 160: 16, 24: 24, 32: 32, 212: 12, 310: 10, 311: 10}  # bits


def _pack(value: np.ndarray, fmt: int) -> bytes:
    """Samples in file order as the format stores them (signal(5))."""
    v = value.astype(np.int64)
    if fmt in (16, 32, 61):
        return v.astype({16: "<i2", 32: "<i4", 61: ">i2"}[fmt]).tobytes()
    if fmt in (80, 160):
        return (v + (128 if fmt == 80 else 32768)).astype("u1" if fmt == 80 else "<u2").tobytes()
    if fmt == 8:
        return v.astype("i1").tobytes()
    if fmt == 24:
        return v.astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    group = 2 if fmt == 212 else 3
    v = np.concatenate([v, np.zeros(-len(v) % group, np.int64)]).reshape(-1, group) & (0xFFF if fmt == 212 else 0x3FF)
    if fmt == 212:
        word = (v[:, 0] & 0xFF) | (v[:, 0] >> 8) << 8 | (v[:, 1] >> 8) << 12 | (v[:, 1] & 0xFF) << 16
        return word.astype("<u4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    if fmt == 310:
        word = v[:, 0] << 1 | (v[:, 2] & 0x1F) << 11 | v[:, 1] << 17 | (v[:, 2] >> 5) << 27
    else:
        word = v[:, 0] | v[:, 1] << 10 | v[:, 2] << 20
    return word.astype("<u4").tobytes()


def _record(folder: Path, fmt: int, frames: int = 301, per_frame: tuple[int, ...] = (1, 2, 1)) -> np.ndarray:
    """A record of random samples; [frames, samples a frame] as stored."""
    top = 1 << (RANGES[fmt] - 1)
    stored = np.random.default_rng(fmt).integers(-top + 1, top, (frames, sum(per_frame)))
    (folder / "r.dat").write_bytes(b"\0" * 5 + _pack(stored.reshape(-1), fmt))
    lines = [f"r.dat {fmt}x{n}+5 100(0)/mV 0 0 3 0 0 s{i}" for i, n in enumerate(per_frame)]
    (folder / "r.hea").write_text("\n".join([f"r {len(per_frame)} 500 {frames}", *lines]) + "\n")
    return stored


@pytest.mark.parametrize("fmt", list(RANGES))
def test_formats(tmp_path, fmt):
    stored = _record(tmp_path, fmt)
    header = read_header(tmp_path / "r")
    assert frames_of(header) == 301
    columns = np.split(stored, [1, 3], axis=1)
    if fmt == 8:  # differences from the first value, each signal's own
        columns = [3 + c.reshape(-1).cumsum() for c in columns]
    for start, stop in ((0, 301), (17, 130), (100, 101), (299, 301)):
        found = read_channels(header, start, stop, 301, [])
        for channel, column in zip(found, columns, strict=True):
            per_frame = channel.signal.samples_a_frame
            expected = column.reshape(-1)[start * per_frame : stop * per_frame] / 100
            np.testing.assert_allclose(channel.values, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fmt", ["80", "16", "24", "32", "212", "508", "516", "524"])
def test_records_that_the_wfdb_package_wrote(tmp_path, fmt):
    bits = int(fmt[1:]) if fmt.startswith("5") else RANGES[int(fmt)]
    top = 1 << (bits - 1)
    stored = np.random.default_rng(1).integers(-top + 1, top, (400, 3))
    wfdb.wrsamp(
        "r",
        fs=500,
        units=["mV"] * 3,
        sig_name=["a", "b", "c"],
        d_signal=stored,
        fmt=[fmt] * 3,
        adc_gain=[100.0] * 3,
        baseline=[4] * 3,
        write_dir=str(tmp_path),
    )
    header, warnings = read_header(tmp_path / "r"), []
    for start, stop in ((0, 400), (17, 130), (399, 400)):
        found = np.stack([c.values for c in read_channels(header, start, stop, frames_of(header), warnings)], 1)
        np.testing.assert_allclose(found, (stored[start:stop] - 4) / 100, rtol=0, atol=1e-9)
    assert warnings == []  # its checksums hold


@pytest.mark.parametrize(("fmt", "subtype"), [(508, "PCM_S8"), (516, "PCM_16"), (524, "PCM_24"), (524, "PCM_16")])
def test_flac_at_several_samples_a_frame_from_a_later_sample(tmp_path, fmt, subtype):
    import soundfile

    bits = int(subtype.removeprefix("PCM_").removeprefix("S"))
    stored = np.random.default_rng(fmt).integers(1 - (1 << (bits - 1)), 1 << (bits - 1), (3 + 200 * 2, 2))
    soundfile.write(tmp_path / "r.flac", (stored << (32 - bits)).astype(np.int32), 500, subtype, format="FLAC")
    lines = [f"r.flac {fmt}x2+3 100/mV 0 0 0 0 0 {name}" for name in "ab"]
    (tmp_path / "r.hea").write_text("\n".join(["r 2 250", *lines]) + "\n")
    header = read_header(tmp_path / "r")
    assert frames_of(header) == 200
    for start, stop in ((0, 200), (17, 130), (199, 200)):
        found = np.stack([c.values for c in read_channels(header, start, stop, 200, [])], 1)
        np.testing.assert_allclose(found, stored[3 + 2 * start : 3 + 2 * stop] / 100, rtol=0, atol=1e-9)


def test_bits_that_format_311_leaves_unused(tmp_path):
    stored = _record(tmp_path, 311, per_frame=(1, 1, 1))
    content = np.frombuffer((tmp_path / "r.dat").read_bytes()[5:], "<u4") | np.uint32(3 << 30)
    (tmp_path / "r.dat").write_bytes(b"\0" * 5 + content.tobytes())
    found = read_channels(read_header(tmp_path / "r"), 0, 301, 301, [])
    np.testing.assert_allclose(np.stack([c.values for c in found], 1), stored / 100, rtol=0, atol=1e-9)


def test_a_stretch_of_a_skewed_record_lacks_only_what_the_file_lacks(tmp_path):
    stored = np.arange(1, 301).reshape(100, 3)
    (tmp_path / "r.dat").write_bytes(stored.astype("<i2").tobytes())
    lines = [f"r.dat 16:{skew} 1/mV 16 0 0 0 0 s{skew}" for skew in (0, 2, 5)]
    (tmp_path / "r.hea").write_text("\n".join(["r 3 500 100", *lines]) + "\n")
    aligned = np.full((100, 3), np.nan)
    for i, skew in enumerate((0, 2, 5)):
        aligned[: 100 - skew, i] = stored[skew:, i]
    for start, stop in ((0, 100), (10, 50), (90, 97), (97, 100)):
        found = read_channels(read_header(tmp_path / "r"), start, stop, 100, [])
        np.testing.assert_array_equal(np.stack([c.values for c in found], 1), aligned[start:stop])


def _frames(folder: Path, per_frame: list[int], rate: float = 50.0, first: str | None = None) -> np.ndarray:
    """A record of several samples a frame, each lead at rate * its own; the leads at 500 Hz [T, 12]."""
    signal = _ecg()
    stored = [np.round(signal[:: 10 // n, i] * 1000).reshape(-1, n) for i, n in enumerate(per_frame)]
    (folder / "r.dat").write_bytes(np.concatenate(stored, 1).astype("<i2").tobytes())
    lines = [f"r.dat 16x{n} 1000/mV 16 0 0 0 0 {name}" for n, name in zip(per_frame, LEADS, strict=True)]
    (folder / "r.hea").write_text("\n".join([first or f"r 12 {rate:g} 500", *lines]) + "\n")
    return signal


def test_several_samples_a_frame_are_not_averaged(tmp_path):
    signal = _frames(tmp_path, [10] * 12)
    found = read_ecg(tmp_path / "r")
    assert found.warnings == () and np.abs(found.ecg_mv.numpy() - signal.T).max() < 6e-4


def test_leads_of_unlike_rates_are_brought_to_one(tmp_path):
    signal = _frames(tmp_path, [10] * 6 + [5] * 6)
    found = read_ecg(tmp_path / "r")
    assert "the leads are sampled at 250, 500 Hz: all brought to 500 Hz" in found.warnings
    gap = np.abs(found.ecg_mv.numpy() - signal.T)
    assert gap[:6].max() < 6e-4 and gap[6:, 50:-50].max() < 0.08
    # in place: half a sample's shift would be far more
    assert np.abs(found.ecg_mv.numpy() - np.roll(signal.T, 1, axis=1))[6:, 50:-50].max() > 0.1


def test_a_rate_that_is_not_stated_is_asked_for(tmp_path):
    base = _write(tmp_path, _ecg(300.0), rate=300)
    header = base.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec 12 300 3000", "rec 12"))
    with pytest.raises(RecordError, match="states no sampling rate; give it with --rate-hz HZ"):
        read_ecg(base)
    found = read_ecg(base, rate_hz=300)
    expected = read_ecg(_write(tmp_path, _ecg(300.0), "stated", rate=300))
    np.testing.assert_array_equal(found.ecg_mv, expected.ecg_mv)
    with pytest.raises(RecordError, match="given sampling rate 30 Hz is outside 100 to 10000 Hz"):
        read_ecg(base, rate_hz=30)
    with pytest.raises(ValueError, match="rate_hz=-1"):
        read_ecg(base, rate_hz=-1)


def test_a_given_rate_is_the_leads_and_beats_the_header_with_a_warning(tmp_path):
    signal = _frames(tmp_path, [10] * 12, first="r 12 40 500")
    found = read_ecg(tmp_path / "r", rate_hz=500)
    assert np.abs(found.ecg_mv.numpy() - signal.T).max() < 6e-4
    assert found.warnings == ("the header states 400 Hz, but 500 Hz were given and are taken",)


def test_skewed_signals_are_aligned(tmp_path):
    signal, skew = _ecg(), [0] * 6 + [3] * 5 + [5]
    late = np.stack([np.concatenate([np.full(k, x[0]), x])[: len(x)] for k, x in zip(skew, signal.T, strict=True)], 1)
    base = _write(tmp_path, late)
    header = base.with_suffix(".hea")
    lines = header.read_text().splitlines()
    lines[1:13] = [line.replace(" 16 ", f" 16:{k} ", 1) for k, line in zip(skew, lines[1:13], strict=True)]
    header.write_text("\n".join(lines) + "\n")
    found = read_ecg(base)
    assert found.ecg_mv.shape == (12, 5000) and any("skews of up to 5 samples" in w for w in found.warnings)
    assert np.abs(found.ecg_mv.numpy() - signal.T)[:, :-5].max() < 6e-4


def _segmented(folder: Path, parts: list[tuple[str, int]], **units: str) -> Path:
    lengths = sum(n for _, n in parts)
    lines = [f"{name} {n}" for name, n in parts]
    (folder / "r.hea").write_text(
        "\n".join([f"r/{len(parts)} 12 500 {lengths}", *lines, "# Age: 40", "# Sex: M"]) + "\n"
    )
    return folder / "r"


def test_segments_are_joined_their_gaps_kept_and_not_listed(tmp_path):
    signal = _ecg(seconds=14.0)
    _write(tmp_path, signal[:5000], "s1")
    _write(tmp_path, signal[6000:], "s2")
    base = _segmented(tmp_path, [("s1", 5000), ("~", 1000), ("s2", 1000)])
    found = read_ecg(base)
    assert any("window was moved to 0.0 s" in w for w in found.warnings) and found.age_years == 40
    assert np.abs(found.ecg_mv.numpy() - signal.T[:, :5000]).max() < 6e-4
    assert folder_records(tmp_path) == [base]
    assert read_ecg(tmp_path / "s1").ecg_mv.shape == (12, 5000)


def test_a_lead_that_some_segments_lack_is_derived_there(tmp_path):
    signal = _ecg()
    rest = [i for i in range(12) if i not in (0, 5)]
    _write(tmp_path, signal[:2500], "s1")
    _write(tmp_path, signal[2500:, rest], "s2", leads=[LEADS[i] for i in rest])
    found = read_ecg(_segmented(tmp_path, [("s1", 2500), ("s2", 2500)]))
    assert np.abs(found.ecg_mv.numpy() - signal.T).max() < 4e-3 and found.leads_missing == ("I", "aVF")
    assert any("lead I lacks some: derived from the other limb leads for 2500 of 5000" in w for w in found.warnings)


def test_units_and_layout_of_segments(tmp_path):
    signal = _ecg()
    for name, part in (("s1", signal[:2500]), ("s2", signal[2500:])):
        header = _write(tmp_path, part * 1e3, name, units=["uV"] * 12, gain=[1.0] * 12).with_suffix(".hea")
        header.write_bytes(header.read_bytes().replace(b"/uV", "/µV".encode()))
    layout = [f"~ 0 1000/mV 0 0 0 0 0 {name}" for name in LEADS]
    (tmp_path / "l.hea").write_text("\n".join(["l 12 500 0", *layout]) + "\n")
    found = read_ecg(_segmented(tmp_path, [("l", 0), ("s1", 2500), ("s2", 2500)]))
    assert np.abs(found.ecg_mv.numpy() - signal.T).max() < 1e-3


@pytest.mark.parametrize("lost", [["I"], ["III"], ["aVR", "aVL", "aVF"], ["I", "II", "III", "aVR"], ["II", "aVF"]])
def test_limb_leads_without_a_valid_sample_follow_from_the_others(tmp_path, lost):
    signal = _ecg()
    empty = signal.copy()
    empty[:, [LEADS.index(name) for name in lost]] = np.nan
    found = read_ecg(_write(tmp_path, empty))
    assert np.abs(found.ecg_mv.numpy() - signal.T).max() < 4e-3 and set(found.leads_missing) == set(lost)
    for name in lost:
        assert f"lead {name} has no valid sample: derived from the other limb leads" in found.warnings


def test_checksums_that_do_not_hold_are_said(tmp_path):
    base = _write(tmp_path, _ecg())
    assert read_ecg(base).warnings == ()
    content = bytearray(base.with_suffix(".dat").read_bytes())
    content[24 * 100 + 4] ^= 1  # lead III
    base.with_suffix(".dat").write_bytes(content)
    assert [w for w in read_ecg(base).warnings if "checksum" in w] == [
        "signal III: the samples' checksum is not the header's; the file may be damaged"
    ]
