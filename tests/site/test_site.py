"""What the site is made of, without building it: `make site` builds it, strictly, and executes the notebooks."""

from __future__ import annotations

import json

import pytest

from clinenv.registration import ENVIRONMENTS, TEAMS
from docs.site import environments, physiology, results, worlds
from docs.site.docstrings import as_rst
from docs.site.films import FILMS, FOLDER
from docs.site.links import ROOT, Links

NOTEBOOKS = sorted((ROOT / "docs" / "site" / "notebooks").glob("*.ipynb"))


def test_links_become_pages_and_unknown_files_are_noted() -> None:
    links = Links({"docs/guide.md": "guide", "README.md": "index"})
    ours = "[a](guide.md#other-libraries) [b](../README.md) [c](../LICENSE)"
    others = " [d](https://x.org/y.md) [e](#here) [f](/log.md)"
    found = links.rewrite(ours + others, "docs/commands.md")
    assert found == "[a](/guide.md#other-libraries) [b](/index.md) [c](/files/LICENSE.md)" + others
    assert links.wanted == {"LICENSE"}
    assert links.rewrite("![x](ecg_drug.png)", "docs/guide.md") == "![x](/pictures/ecg_drug.png)"


def test_code_blocks_are_left_alone() -> None:
    text = "```python\nrows[0](nowhere.md)\n```\n"
    assert Links({}).rewrite(text, "README.md") == text


@pytest.mark.parametrize("target", ["nowhere.md", "../../etc/passwd"])
def test_a_link_to_nothing_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="mend the link"):
        Links({}).rewrite(f"[x]({target})", "docs/guide.md")


def test_markdown_in_docstrings_becomes_restructuredtext() -> None:
    lines = ["What it does:", "- one", "- two", "", "    code here", "", "Args:", "    name: what it is"]
    found = as_rst(lines)
    assert found[1] == "" and found[2] == "- one", "a list is set apart"
    assert found[-2:] == ["Args:", "    name: what it is"], "sections are napoleon's"
    assert "::" in as_rst(["Use it:", "", "    code()", "", "And so on."]), "an indented block is code"


@pytest.mark.parametrize("row", [*ENVIRONMENTS, *TEAMS], ids=lambda row: row["id"])
def test_every_environment_has_its_sections(row: dict) -> None:
    made = environments.class_of(row.get("entry_point") or row["parallel"])
    _, text = environments.docstring_of(made)
    assert "**Not for clinical use" in text
    assert all(f"## {section}" in text for section in environments.SECTIONS)


def test_the_list_of_worlds_says_what_each_is() -> None:
    rows = [line for line in worlds._index().splitlines() if line.startswith("| [")]
    assert len(rows) > 9 and not any("| #" in row for row in rows), "a card's title is no description"
    assert any("[ecg-wm-small](/worlds/ecg-wm-small.md) | A learned world model of the 12-lead ECG" in r for r in rows)


def test_sentences_in_a_table_get_room_and_numbers_do_not() -> None:
    found = results._html([["agent", "n"], ["a rule <that> looks at the QTc every two hours", "3"]])
    assert '<td class="long">a rule &lt;that&gt;' in found and "<td>3</td>" in found


def test_the_films_are_there_and_small() -> None:
    sizes = {name: (FOLDER / f"{name}.gif").stat().st_size for name in FILMS}
    assert set(sizes) == {row["id"] for row in (*ENVIRONMENTS, *TEAMS)}
    assert sum(sizes.values()) < 3_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 3 and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "clinical use" in "".join(cells[0]["source"])


def test_five_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {
        "first_policy",
        "plan_under_risk",
        "your_own_ecg",
        "ward_counterfactuals",
        "your_own_mimic",
    }


def test_every_file_of_results_says_on_its_page_what_made_it() -> None:
    pages = results.generate(Links(results.pages()))
    assert "--patients 300 --slow-patients 32" in pages["results/file-leaderboard-csv"]
    assert "<td>" in pages["results/file-leaderboard-csv"]
    assert set(results.pages().values()) <= pages.keys()


def test_physiology_comes_from_the_oracles() -> None:
    pages = physiology.generate(Links({}))
    assert "world_models.oracles.ward.hazard" in pages["physiology/ward"]
    assert "Cockcroft" in pages["physiology/drug_start"]
