"""The report: one file that needs nothing else, and is written whole or not at all."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from clinenv.commands.output import write_whole
from clinenv.commands.simulate.page import MedianBeats, ReportContent, RiskLine, page
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from clinenv.rendering.simulation_charts import IntervalCourse
from tests.clinenv.records import drawn_ecg


@pytest.fixture(scope="module")
def content() -> ReportContent:
    ecg = drawn_ecg()
    hours = np.arange(0.0, 26.0, 2.0)
    middle = 420 + 60 * np.exp(-(((hours - 4) / 4) ** 2))
    course = IntervalCourse(hours, middle, middle - 12, middle + 20, 419.0)
    return ReportContent(
        title="Dofetilide 500 µg <simulated>",
        regimen="dofetilide 500 µg at 0 h",
        patient=(("Age", "61 years"), ("Name", "<script>alert(1)</script>")),
        intervals={"heart_rate_bpm": 66.7, "pr_ms": math.nan, "qtcf_ms": 414.4},
        quality="Quality 0.9 of 1",
        ecg_before_mv=ecg,
        ecg_after_mv=ecg,
        sampling_rate_hz=500.0,
        after="4 h after the ECG",
        beats=MedianBeats({"recorded": ecg[:3, :500], "model": ecg[3:6, :500]}, ("II", "V2", "V5"), 500.0, 0.35),
        courses={"qtcf_ms": course, "pr_ms": course._replace(measured=math.nan)},
        dose_hours=(0.0,),
        risk=(RiskLine("QTcF above 500 ms", "3 %", "1 of 32 samples"),),
        model=(("Trained on", "generated patients & ECGRDVQ"),),
        warnings=("lead V2 is flat",),
        command="clinenv simulate --ecg rec",
        samples=32,
    )


class _Tags(HTMLParser):
    """Opened and closed tags, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "data", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(content: ReportContent) -> None:
    html = page(content)
    tags = _Tags()
    tags.feed(html)
    assert not tags.open, "every tag is closed"
    assert not tags.fetched and not {"script", "link", "img", "iframe", "object"} & tags.seen
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html) and "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_the_page_says_what_it_must(content: ReportContent) -> None:
    html = page(content)
    assert html.count(NOT_FOR_CLINICAL_USE) >= 4  # banner, both sheets, foot
    said = (
        "67 bpm",
        "414 ms",
        "not measurable",
        "lead V2 is flat",
        "generated patients &amp; ECGRDVQ",
        "1 of 32 samples",
    )
    for words in (*said, "90 % band", "442 → 480 ms", "prefers-color-scheme:dark", "@media print"):
        assert words in html, words
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html).lower()


def test_a_course_that_begins_with_a_gap_is_told_from_where_it_is(content: ReportContent) -> None:
    """PR of a patient whose recorded ECG shows fibrillation, and of one who never had any."""
    course = content.courses["qtcf_ms"]
    gap = np.where(course.hours < 4, np.nan, 1.0)
    late = course._replace(median=course.median * gap, low=course.low * gap, high=course.high * gap, measured=math.nan)
    never = late._replace(median=late.median * np.nan, low=late.low * np.nan, high=late.high * np.nan)
    text = page(dataclasses.replace(content, courses={"pr_ms": late, "qtcf_ms": never, "t_amplitude_uv": course}))
    assert "480 → 420 ms" in text and "nan" not in re.sub(r"<script.*?</script>", "", text).lower()
    assert "T amplitude" in text and "480 µV" in text


def test_writing_is_whole_or_not_at_all(content: ReportContent, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one")
    with pytest.raises(ValueError):
        write_whole(path, page(dataclasses.replace(content, ecg_after_mv=np.zeros((8, 100)))))
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half \ud800 of it")
    assert path.read_text() == "the old one" and list(tmp_path.iterdir()) == [path]
    write_whole(path, page(content))
    assert list(tmp_path.iterdir()) == [path]
    raw = path.read_bytes()
    assert raw.startswith(b"<!doctype html>") and len(raw) < 2_000_000
    raw.decode("utf-8")


def test_a_missing_folder_is_an_error(content: ReportContent, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_whole(tmp_path / "nowhere" / "report.html", page(content))
