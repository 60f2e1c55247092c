"""Every figure of the README and of docs/results comes out of a committed file.

The pages are what `python -m benchmarks.common.pages` writes, and no figure is typed into their text: the numbers that
a template has outside its slots, or the README outside its generated blocks, stand in phrases that `SETTINGS` accounts
for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.common import figures, pages
from benchmarks.common.derived import DERIVED

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = sorted(pages.TEMPLATES.glob("*.md"))

CODE = re.compile(r"(?s:```.*?```)|(?m:^    .*$)")
# Names are no figures: `code`, links, S@25, SmolLM2-135M, 12-lead, ICD-10
NAME = re.compile(r"`[^`]*`|\]\([^)]*\)|\b[A-Za-z@]+[A-Za-z@-]*\d[\w.-]*|\b\d+-[a-z]\w*|\(k\)")

# By file: the phrases with a number that nothing measured, and what it is.
SETTINGS: dict[str, dict[str, str]] = {
    "agents": {
        "95 % intervals": "their level",
        "of the worst 5 %, shares": "what CVaR is of",
        "courses of 12 steps": "those that the page leaves out",
        "over its 48 h": "the environment",
        "QTcF over 500 ms or 60 ms over baseline": "the task's limits",
        "the worst 5 % of returns": "what CVaR is of",
        "CVaR 5 %": "its name",
        "of the worst 5 % of patients": "what CVaR is of",
        "keeps 95 % of the return": "what is asked of an objective",
        "cost, worst 5 %": "its name",
        "return, worst 5 %": "its name",
        "above 2 % of the return": "what is asked of a gap",
        "over 14 days": "the environment",
        "at 0 the log's": "the dial",
        "at 1 they": "the dial",
        "at 0 and": "the dial",
        "surely above 0": "of a reference's return",
        "at 1.": "the dial",
    },
    "ecg_drug": {
        "90 % prediction band": "the band's name",
        "the 90 % band covers": "the band's name",
        "at 2, 12 and 24 h": "hours after the dose, of the command",
        "from step 12 to step 24": "of the command",
        "PTB-XL's folds 7 and 8": "the data",
        "ECG-WM's tables 1 to 3": "the paper's",
        "the same 20,000 pairs": "of the command",
        "the same 512": "of the command",
        "Networks have 250 seconds": "of the command",
        "With 64 samples": "of the command",
        "One to 24 steps": "of the command",
        "4,096 patients": "the batch that is timed",
        "| prior alone | 0 |": "evaluations of none",
        "| 90 % covers |": "the band's name",
        "90 % bands of": "the band's name",
        "at 2 to 24 h": "hours after the dose, of the command",
        "dose within 25 %": "how near",
        "or 60 ms up": "the event's limits",
        "less at lambda 0": "the row that it is less than",
        "a chance near 0 or 1": "of any chance",
        "quinidine 800 mg; dofetilide 1 mg": "the card's rows",
        "between 0.25 and 12 h": "the card's steps",
        "QTcF over 500 ms": "the limit",
        "over 20 ms (PR, QRS) or 40 ms (QT)": "what a failure is",
        "quantiles 5 and 95 %": "their levels",
        "(Zheng 2020, doi 10.1038/": "the source",
    },
    "ward": {
        "within 25 % of the true one": "what S@25 is",
        "moved by more than 25 %": "what high-sensitivity is",
        "80 % interval covers": "its level",
        "within 72 h": "the horizon",
        "95 % intervals": "their level",
        "hour 4": "where the forecast begins",
        "hour 24": "where the forecast begins",
        "within 25 %": "how near",
        "with 100 or more": "which items are common",
        "| 25 % |": "the row's share",
        "| 50 % |": "the row's share",
        "| 100 % |": "the row's share",
        "14 B": "its name",
        "under 0.02 mean little": "a judgement of these sample sizes",
        "fold 0": "its number",
    },
    "progression": {
        "PTB-XL's folds 1 to 6": "the data",
        "PTB-XL's folds 7 and 8": "the data",
        "95 % intervals": "their level",
        "fold 19 of 20": "its number",
        "t 10 % of the patients": "the row that is named",
        "At 1 % of the patients": "the row that is named",
        "supervised 20 epochs": "of the published code",
        "pre-training 50": "its epochs",
        "fine-tuning 30": "its epochs",
        "20 epochs are": "of the published code",
        "Figure 4": "its number",
        "over 90 % for": "the threshold of the count",
        "under 10 % for": "the threshold of the other end",
        "men of 80": "the row's name",
    },
    "people": {
        "over 48 such courses": "how many are lived",
        "Challenge 2012 and 2019": "their years",
        "within 25 %": "what S@25 is",
        "over 25 %": "what moved is",
        "hour 4 ": "of the heading",
        "hour 24 ": "of the heading",
        "over 24 hours": "of the heading",
        "Figure 4": "its number",
    },
    "speed": {
        "A minibatch of 64": "the other library's default",
        "| batch 512": "the batch that is timed",
        "batch 1 ": "of the column or row",
        "Batch 1 is": "one patient alone",
        "batch 64": "of the column or row",
        "batch 1024": "of the column or row",
        "batch 4096": "of the column or row",
        "of 10 s at 500 Hz": "an ECG's length and rate",
        "14 B": "its name",
        "a batch of 1,024": "the batch that is timed",
    },
    "readme_limits": {
        "the trial admitted 18 to 35": "its protocol",
        "as many from hour 4": "when the rollouts begin",
        "from hour 24": "when the rollouts begin",
    },
    "readme_headline": {
        "within 25 %": "what S@25 is",
        "batch 4096": "of the row",
        "the worst 5 % of patients": "what CVaR is of",
        "keep 95 % of the return": "what is asked of an objective",
    },
    "README": {
        "Python 3.10 to 3.13": "versions",
        "every 2 h for 48 h": "the environment",
        "Challenge 2012 and 2019": "their years",
        "69 switches (39 tests, 30 treatments), every 4 h for up to 14 days": "the environment",
        "Intervals are 95 %": "their level",
    },
}


def plain(text: str) -> str:
    """A template's or the README's own text on one line: without slots and generated blocks, names and code."""
    for what in (pages.BLOCK, CODE, pages.SLOT, NAME):
        text = what.sub(" ", text)
    return re.sub(r"\s+", " ", text)


def typed(text: str, settings: dict[str, str]) -> list[str]:
    """The numbers in it that stand in no known phrase."""
    for phrase in sorted(settings, key=len, reverse=True):
        text = text.replace(phrase, " ")
    return re.findall(rf".{{0,20}}(?<![\w.]){figures.NUMBER}(?![\w]).{{0,20}}", text)


@pytest.mark.parametrize("path", [*TEMPLATES, ROOT / "README.md"], ids=lambda p: p.stem)
def test_no_figure_is_typed_by_hand(path: Path) -> None:
    text, settings = plain(path.read_text(encoding="utf-8")), SETTINGS.get(path.stem, {})
    assert typed(text, settings) == []
    assert [phrase for phrase in settings if phrase not in text] == [], "accounted for, but said no longer"


def test_a_typed_figure_is_noticed() -> None:
    text = plain(
        "A lead of {{planners.csv return:.2f}} in 12-lead ECGs (S@25), as `0.3` was, of 6.38,\nwithin 25 % of all."
    )
    assert ["6.38" in found for found in typed(text, {"within 25 %": "how near"})] == [True]


def test_the_pages_are_what_their_sources_say() -> None:
    assert pages.differences(pages.written()) == [], "run python -m benchmarks.common.pages"


def test_all_pages_are_generated() -> None:
    assert sorted(path.stem for path in (ROOT / "docs/results").glob("*")) == sorted(pages.PAGES)
    blocks = {f"readme_{found[2]}" for found in pages.BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {path.stem for path in TEMPLATES} == {*pages.PAGES, *blocks, pages.VERSIONS}


@pytest.mark.parametrize("name", DERIVED)
def test_every_computed_figure_is_printed_somewhere(name: str) -> None:
    assert any(re.search(rf"\{{\{{={re.escape(name)}[:}}]", path.read_text(encoding="utf-8")) for path in TEMPLATES)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small file of results that says it is stale."""
    path = tmp_path / "toy.csv"
    made = {"command": "python -m toy", "seeds": {"patients": 7}, "stale": "the weights changed"}
    comment = "".join(f"# {line}\n" for line in json.dumps(made, indent=1).splitlines())
    path.write_text(
        f"{comment}agent,batch,return,return_low,return_high\na,1,0.126,-0.001,1.5\nb,1,1234.5,1,2\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figures.load.cache_clear()
    yield path
    figures.load.cache_clear()


def filled(template: str) -> str:
    return pages.Renderer().text(template).strip()


def test_a_slot_prints_one_number(table: Path) -> None:
    assert filled("{{toy.csv agent=a return[]:+.2f}}") == "+0.13 [0.00, 1.50]"
    assert filled("{{toy.csv agent=a return:.1%}} {{toy.csv agent=b return:2s}}") == "12.6 % 1,200"
    assert filled("{{@toy.csv agent=b}}\n{{return:.0f}}") == "1234"
    assert filled("{{each toy.csv}}| {{agent}} |") == "| a |\n| b |"
    assert filled("{{toy.csv agent=b|a first agent}} {{toy.csv agent=b|c batch}}") == "a 1"
    assert filled("{{toy.csv agent=a return[]:verdict}} {{toy.csv agent=b return[]:verdict}}") == "not surely yes"


@pytest.mark.parametrize("slot", ["toy.csv return", "toy.csv agent=c return", "toy.csv agent=a cost", "=nothing"])
def test_a_slot_that_finds_not_one_number_is_an_error(table: Path, slot: str) -> None:
    with pytest.raises(LookupError):
        filled(f"{{{{{slot}}}}}")


def test_a_page_names_the_files_it_reads_and_says_what_is_stale(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "TEMPLATES", tmp_path)
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    (tmp_path / "toy.md").write_text("# Toy\n\n{{toy.csv agent=a return}}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="toy.csv"):
        pages.page("toy")
    (tmp_path / "toy.md").write_text("# Toy\n\n{{toy.csv agent=a return}}\n\n{{made toy.csv}}\n", encoding="utf-8")
    page = pages.page("toy").replace("\n", " ")
    assert "`python -m toy`, seeds: patients 7." in page and "**Stale:** the weights changed." in page
    (tmp_path / "readme_toy.md").write_text("{{toy.csv agent=a return}}\n", encoding="utf-8")
    assert pages.block("toy") == "0.126\n\nStale: toy.csv, the weights changed.\n"


def test_a_missing_file_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figures.load.cache_clear()
    assert pages.main([]) == 2
    assert "benchmarks/README.md" in capsys.readouterr().err and not list(tmp_path.iterdir())
    figures.load.cache_clear()


def test_check_prints_differences(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"]) == 0
    path = ROOT / "docs/results/speed.md"
    monkeypatch.setattr(pages, "written", lambda: {path: path.read_text(encoding="utf-8") + "More.\n"})
    assert pages.main(["--check"]) == 1
    assert "+More." in capsys.readouterr().out
