"""`clinenv.ecg`: one answer for arrays, tensors and records at any rate; one error for what cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import clinenv
from clinenv.ecg import Measurement
from tests.clinenv.records import PR_MS, QT_MS, RR_MS, drawn_ecg, write_record
from world_models.data.ecg.wfdb.header import RecordError
from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return drawn_ecg()


@pytest.fixture(scope="module")
def found(ecg: np.ndarray) -> Measurement:
    return clinenv.ecg.measure(ecg, rate_hz=500)


def test_an_array_measures_as_it_was_drawn(found: Measurement) -> None:
    assert found.trusted and found.measurable and found.leads_made == () and found.ecg_mv.shape == (12, 5000)
    assert found.intervals["heart_rate_bpm"] == pytest.approx(60_000 / RR_MS, abs=1)
    assert found.intervals["qt_ms"] == pytest.approx(QT_MS, abs=20)
    assert found.intervals["pr_ms"] == pytest.approx(PR_MS, abs=20)


def test_a_record_and_the_command_give_the_arrays_numbers(ecg: np.ndarray, found: Measurement, tmp_path: Path) -> None:
    from clinenv.commands.measure import measure_record

    path = write_record(tmp_path, ecg_mv=ecg)
    of_record = clinenv.ecg.measure(path)
    assert of_record.intervals == measure_record(path, "reader").intervals and of_record.age_years == 61
    for name, value in of_record.intervals.items():
        assert value == pytest.approx(found.intervals[name], abs=1.0), name


@pytest.mark.parametrize("hz", [128.0, 1000.0])
def test_any_rate_reads_the_same(found: Measurement, hz: float) -> None:
    other = clinenv.ecg.measure(drawn_ecg(hz=hz, noise_uv=0.0), rate_hz=hz)
    for name, value in other.intervals.items():
        assert value == pytest.approx(found.intervals[name], abs=6.0), name


def test_tensors_eight_leads_units_signs_and_order_are_one_ecg(ecg: np.ndarray, found: Measurement) -> None:
    eight = torch.from_numpy(ecg[[LEADS.index(name) for name in INDEPENDENT_LEADS]])
    turned = np.round(ecg[::-1] * 1000).astype(np.int32)
    turned[LEADS[::-1].index("aVR")] *= -1
    names = ["Lead V6" if name == "V6" else "-aVR" if name == "aVR" else name for name in LEADS[::-1]]
    for other in (
        clinenv.ecg.measure(eight, rate_hz=500),
        clinenv.ecg.measure(turned, rate_hz=500, leads=names, unit="uV"),
    ):
        for name, value in other.intervals.items():
            assert value == pytest.approx(found.intervals[name], abs=1.0), name


def test_lost_leads_are_made_and_named(ecg: np.ndarray) -> None:
    holed = ecg.copy()
    holed[LEADS.index("V2")] = np.nan
    holed[LEADS.index("V5")] = 0.0
    found = clinenv.ecg.measure(holed, rate_hz=500)
    assert found.leads_made == ("V2", "V5") and any("reconstructed" in w for w in found.warnings)
    with pytest.raises(RecordError, match="V2"):
        clinenv.ecg.measure(holed, rate_hz=500, repair=False)
    two = clinenv.ecg.measure(ecg[:2], rate_hz=500, leads=["I", "II"])
    assert two.intervals["heart_rate_bpm"] == pytest.approx(60_000 / RR_MS, abs=1) and len(two.leads_made) == 6


def test_marks_lie_where_the_beats_were_drawn(ecg: np.ndarray) -> None:
    long = drawn_ecg(seconds=30.0, hz=250.0)
    marks = clinenv.ecg.delineate(long, rate_hz=250, convention="tangent")
    assert marks.start_s == pytest.approx(10.0) and marks.ecg_mv.shape == (12, 5000)
    beats = (np.arange(0, 40) + 0.5) * RR_MS / 1000
    beats = beats[(beats > 10.2) & (beats < 19.8)]
    near = np.abs(marks.r_s[:, None] - beats).min(0)
    assert near.max() < 0.01, near
    order = [marks.marks_ms[name] for name in ("p_onset", "p_peak", "qrs_onset", "qrs_offset", "t_peak", "t_end")]
    assert order == sorted(order)
    assert marks.marks_ms["t_end"] - marks.marks_ms["qrs_onset"] == pytest.approx(QT_MS, abs=10)
    assert (marks.times_s("t_end") > marks.r_s).all() and marks.trusted and marks.ectopic_beats == 0


def test_a_long_record_says_where_its_window_lies(tmp_path: Path) -> None:
    marks = clinenv.ecg.delineate(write_record(tmp_path, ecg_mv=drawn_ecg(seconds=150.0, hz=125.0), hz=125.0))
    assert marks.start_s == pytest.approx(70.0, abs=0.01)
    assert np.abs((marks.r_s * 1000 / RR_MS - 0.5) % 1.0 - 0.5).min() > 0.48, "R peaks lie at the drawn times"


def test_features_are_the_encoders_alone_or_in_a_batch(ecg: np.ndarray) -> None:
    from world_models.cardiac_jepa.features import load_features

    one = clinenv.ecg.features(ecg, rate_hz=500)
    assert isinstance(one, np.ndarray) and one.ndim == 1 and np.isfinite(one).all() and one.std() > 0
    batch = clinenv.ecg.features(torch.from_numpy(np.stack([ecg, 1.5 * ecg])), rate_hz=500)
    assert isinstance(batch, torch.Tensor) and batch.shape == (2, len(one))
    direct = load_features()(torch.from_numpy(ecg).float()[None], 500.0)[0]
    torch.testing.assert_close(torch.from_numpy(one), direct, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch[0], direct, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(batch[0], batch[1], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate_hz": None}, "rate_hz is not given"),
        ({"rate_hz": 50}, "rate_hz=50 is outside 100 to 10000 Hz"),
        ({"rate_hz": float("nan")}, "rate_hz=nan"),
        ({"rate_hz": "500"}, "rate_hz='500'"),
        ({"source": "short"}, "2.0 s of signal; at least 4 s"),
        ({"source": "flat"}, "none of its leads carries a signal"),
        ({"source": "nan"}, "none of its leads carries a signal"),
        ({"source": "batch"}, "shape \\(1, 12, 5000\\)"),
        ({"source": "tall"}, "transpose"),
        ({"source": "three"}, "3 rows"),
        ({"source": "one"}, "at least 2"),
        ({"source": "complex"}, "complex128"),
        ({"source": "text"}, "no real numbers"),
        ({"leads": ["I"]}, "names 1 rows"),
        ({"leads": ["X", *LEADS[1:]]}, "names X"),
        ({"leads": ["II", *LEADS[1:]]}, "II more than once"),
        ({"unit": "mmHg"}, "unit='mmHg'"),
    ],
)
def test_what_cannot_be_used_is_one_named_error(ecg: np.ndarray, change: dict, said: str) -> None:
    sources = {
        "short": ecg[:, :1000],
        "flat": np.zeros_like(ecg),
        "nan": np.full_like(ecg, np.nan),
        "batch": ecg[None],
        "tall": ecg.T,
        "three": ecg[:3],
        "one": ecg[:1],
        "complex": ecg.astype(complex),
        "text": ecg[:, :20].astype(str),
    }
    change = dict(change)
    source = sources.get(change.pop("source", ""), ecg)
    if source is sources["one"]:
        change["leads"] = ["II"]
    with pytest.raises(RecordError, match=said):
        clinenv.ecg.measure(source, **{"rate_hz": 500, **change})


def test_a_record_needs_no_names_and_a_rate_above_zero(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="leave them out"):
        clinenv.ecg.delineate(tmp_path / "rec", leads=LEADS)
    with pytest.raises(RecordError, match="not above 0"):
        clinenv.ecg.features(tmp_path / "rec", rate_hz=0)
    with pytest.raises(RecordError, match="no WFDB record"):
        clinenv.ecg.measure(tmp_path / "rec")
    with pytest.raises(ValueError, match="convention"):
        clinenv.ecg.measure(drawn_ecg(), rate_hz=500, convention="mine")
