"""The pictures: size, what is on them, and that bad input is named."""

from __future__ import annotations

import re
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from clinenv.rendering.ecg_paper import HEIGHT, LEFT, ROWS, STRIPS, WIDTH, ecg_frame, svg_paper
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, hour_ticks, label_and_unit, nice_ticks
from clinenv.rendering.simulation_charts import IntervalCourse, beats_svg, course_svg
from clinenv.rendering.viewer import Viewer
from tests.clinenv.records import LEADS, drawn_ecg

HOURS = np.arange(0.0, 26.0, 2.0)
TREND = {
    "heart_rate_bpm": (HOURS, 70 + HOURS / 10),
    "qtcf_ms": (HOURS, 420 + 4 * HOURS, 410 + 4 * HOURS, 430 + 4 * HOURS),
    "pr_ms": (HOURS, np.where(HOURS == 4, np.nan, 160.0)),
}


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return drawn_ecg()


def test_a_frame_has_one_size_whatever_is_on_it(ecg: np.ndarray) -> None:
    frames = [
        ecg_frame(ecg, 500, TREND, "a patient", 48, [(0.0, "dofetilide 0.5 mg")]),
        ecg_frame(ecg[:, :1200], 250.0, {}, ""),
        ecg_frame(ecg, 500, {f"thing_{i}_ms": ([0.0], [float(i)]) for i in range(9)}),
    ]
    assert {f.shape for f in frames} == {(780, 1060, 3)}
    assert all(f.dtype == np.uint8 and f.flags.writeable for f in frames)


def test_a_frame_shows_the_ecg(ecg: np.ndarray) -> None:
    drawn, empty = (ecg_frame(x, 500, {})[:540].max(axis=2) < 90 for x in (ecg, np.zeros_like(ecg)))
    r_wave_row = round((ROWS[3] - 10 * 0.7) * 4)  # 0.7 mV up in the rhythm strip: only an R wave reaches there
    beats = np.flatnonzero(np.diff(drawn[r_wave_row, round(LEFT * 4) :].astype(int)) == 1)
    assert len(beats) == 11  # ten seconds at an RR of 0.9 s, the first R at 0.45 s
    spacing = np.diff(beats) / 4 / 25
    assert np.allclose(spacing, 0.9, atol=0.03)
    assert not empty[r_wave_row, round(LEFT * 4) :].any()


def test_a_frame_is_drawn_in_time_for_a_video(ecg: np.ndarray) -> None:
    ecg_frame(ecg, 500, TREND)
    took = []
    for _ in range(5):
        begin = time.process_time()
        ecg_frame(ecg, 500, TREND)
        took.append(time.process_time() - begin)
    assert min(took) < 0.15  # of processor time: the machine may be busy


def test_equal_input_gives_equal_frames(ecg: np.ndarray) -> None:
    assert np.array_equal(ecg_frame(ecg, 500, TREND, "x"), ecg_frame(ecg, 500, TREND, "x"))


def test_the_svg_is_true_to_scale_and_complete(ecg: np.ndarray) -> None:
    svg = svg_paper(ecg, 500, 'a <title> & "more"', "one")
    root = ElementTree.fromstring(svg)
    assert root.get("width") == f"{WIDTH:g}mm" and root.get("viewBox") == f"0 0 {WIDTH:g} {HEIGHT:g}"
    words = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert set(LEADS) <= set(words) and NOT_FOR_CLINICAL_USE in words
    trace = next(e.get("d") for e in root.iter() if e.get("transform") == "scale(.01)")
    pieces = [[int(n) for n in re.findall(r"-?\d+", part)] for part in trace.split("M")[1:]]
    assert len(pieces) == len(ROWS) + len(STRIPS)
    strip = np.array(pieces[-1]).reshape(-1, 2).cumsum(axis=0) / 100
    assert strip[0, 0] == LEFT and np.isclose(strip[-1, 0], LEFT + 25 * 9.998, atol=0.01)
    assert np.allclose(strip[:, 1], ROWS[3] - 10 * (ecg[1] - np.median(ecg[1])), atol=0.011)


def test_a_gap_in_the_signal_is_a_gap_on_the_paper(ecg: np.ndarray) -> None:
    broken = ecg.copy()
    broken[1, 2000:2200] = np.nan
    broken[7] = np.nan
    split, gone = 1, 1  # the rhythm strip falls in two, V2 is not drawn
    assert svg_paper(broken, 500).count("M") == svg_paper(ecg, 500).count("M") + split - gone
    assert "nan" not in svg_paper(broken, 500)
    ecg_frame(broken, 500, {})


@pytest.mark.parametrize(("shape", "hz"), [((8, 5000), 500.0), ((12, 1), 500.0), ((12,), 500.0), ((12, 100), 0.0)])
def test_what_is_no_ecg_is_refused(shape: tuple[int, ...], hz: float) -> None:
    with pytest.raises(ValueError, match="12, T|sampling_rate_hz"):
        svg_paper(np.zeros(shape), hz)


def test_a_trend_of_unequal_length_is_refused(ecg: np.ndarray) -> None:
    with pytest.raises(ValueError, match="qtcf_ms"):
        ecg_frame(ecg, 500, {"qtcf_ms": ([0.0, 1.0], [420.0])})


def test_a_course_shows_band_doses_and_limit() -> None:
    middle = np.array([420.0, 480.0, np.nan, 430.0])
    course = IntervalCourse(np.array([0.0, 2.0, 4.0, 6.0]), middle, middle - 10, middle + 15, 418.0)
    svg = course_svg("qtcf_ms", course, (0.0, 2.0))
    root = ElementTree.fromstring(svg)
    titles = [e.text for e in root.iter() if e.tag.endswith("title")]
    assert "dose at 2 h" in titles and any("418" in t for t in titles) and "nan" not in svg
    assert "500 ms" in svg
    assert "500 ms" not in course_svg("pr_ms", course, ())


def test_beats_lie_over_each_other() -> None:
    beat = np.sin(np.linspace(0, 6, 500))[None].repeat(3, 0)
    svg = beats_svg({"recorded": beat, "before": beat * 0.9, "after": beat * 0.8}, ("II", "V2", "V5"), 500.0, 0.35)
    assert len(re.findall("<polyline", svg)) == 9
    ElementTree.fromstring(svg)


def test_words_and_ticks() -> None:
    assert label_and_unit("qtcf_ms") == ("QTcF", "ms")
    assert label_and_unit("weight_kg") == ("Weight", "kg")
    assert label_and_unit("arrhythmia_burden") == ("Arrhythmia burden", "")
    assert hour_ticks(24) == [0, 6, 12, 18, 24]
    for low, high in ((412.3, 497.0), (0.0, 1.0), (0.01, 0.04), (-3.0, 1800.0)):
        ticks = nice_ticks(low, high)
        assert 2 <= len(ticks) <= 8 and all(low <= t <= high for t in ticks)


def test_no_display_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux says where its display is by DISPLAY")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match="rgb_array"):
        Viewer()


def test_a_drug_s_frame_shows_the_t_wave_and_leaves_gaps() -> None:
    from clinenv.envs.ecg_drug.env import ECGDrugVectorEnv
    from clinenv.envs.ecg_drug.task import ECGDrugTask
    from clinenv.rendering.panels import PANELS

    task = ECGDrugTask()
    assert len(task.trend) == PANELS and "t_amplitude_uv" in task.trend, "no panel is left out"
    env = ECGDrugVectorEnv(2, world="oracle", render_mode="rgb_array", hours=8)
    env.reset(seed=5, options={"baseline_burden": [1.0, 0.0]})
    for _ in range(3):
        env.step([4, 4])
    assert bool(env.chart["pr_ms"].isnan()[0]) and not bool(env.chart["pr_ms"].isnan()[1])
    frames = env.render()
    panel = slice(560, 700), slice(1060 * task.trend.index("pr_ms") // PANELS + 40, 1060 * 4 // PANELS - 12)
    blue = [int((np.abs(f[panel].astype(int) - (41, 98, 168)).sum(-1) < 160).sum()) for f in frames]
    assert blue[1] > blue[0] + 20, "there is no PR to draw in fibrillation"
    env.close()
