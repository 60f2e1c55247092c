"""What a distribution holds and says: extras are told of, versions agree, the recipe asks for what the project asks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import clinenv

ROOT = Path(__file__).resolve().parents[1]
tomllib = pytest.importorskip("tomllib") if sys.version_info >= (3, 11) else pytest.importorskip("tomli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_extra_is_told_of() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([\w-]+)` \| \S", page, flags=re.MULTILINE)
    assert sorted(told) == sorted(PROJECT["optional-dependencies"])


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = (ROOT / "docs/CHANGELOG.md").read_text(encoding="utf-8")
    assert cited is not None and cited[1] == PROJECT["version"] == clinenv.__version__
    assert f"## {clinenv.__version__}" in changes


def test_the_recipe_asks_for_what_the_project_asks_for() -> None:
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / ".ci/conda/recipe.yaml").read_text(encoding="utf-8"))
    conda_names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    asked = {}
    for line in PROJECT["dependencies"]:
        name, limits = re.fullmatch(r"([\w-]+)(\S*)", line).groups()
        asked[conda_names.get(name, name)] = limits
    run = dict(line.partition(" ")[::2] for line in recipe["requirements"]["run"])
    assert run.pop("python") == PROJECT["requires-python"].replace(" ", "")
    assert run == asked
    assert recipe["context"]["version"] == PROJECT["version"] and recipe["about"]["license"] == PROJECT["license"]


def test_only_what_is_installed_is_packed() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert built["wheel"]["packages"] == ["clinenv", "world_models", "agents"]
    assert not {"tests", "benchmarks", "examples", "docs"} & set(built["sdist"]["only-include"])
    assert "constraints.txt" in built["wheel"]["force-include"], "the doctor holds versions against it"
